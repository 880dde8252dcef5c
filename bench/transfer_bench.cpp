/// What the way to a device and back costs: a frame's stored values to it, a plane of results from it, from pinned and from pageable
/// memory; and the default vesselness with both in its time, beside `vesselness/default`, whose planes lie on the device.

#include <random>
#include <string>

#include "bench/machine.h"
#include "kernels/vesselness.h"

namespace cinelumen {
namespace {

template <class T>
void transfer(benchmark::State& state, int device, bool pinned, bool to_device) {
  const Stream stream = Stream::cuda(device);
  const int side = static_cast<int>(state.range(0));
  Image<T> host = pinned ? Image<T>::staging(stream, side, side) : Image<T>(side, side), on_device(stream, side, side);
  host(side / 2, side / 3) = 17;
  copy<T>(stream, host.view(), on_device.view());
  stream.synchronize();
  host(side / 2, side / 3) = 0;
  copy<T>(stream, on_device.view(), host.view());
  stream.synchronize();
  if (host(side / 2, side / 3) != 17) state.SkipWithError("not what was sent came back");
  for (auto _ : state) {
    if (to_device)
      copy<T>(stream, host.view(), on_device.view());
    else
      copy<T>(stream, on_device.view(), host.view());
    stream.synchronize();
  }
  bench::add_limits(state, stream, static_cast<double>(sizeof(T)) * side * side);
}

void vesselness_and_transfer(benchmark::State& state, int device) {
  const Stream stream = Stream::cuda(device);
  const int side = static_cast<int>(state.range(0));
  Image<float> host = Image<float>::staging(stream, side, side), response = Image<float>::staging(stream, side, side);
  std::mt19937 random(5);
  std::normal_distribution<float> noise(0, 0.01f);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) host(y, x) = noise(random) + (x > side / 2 - 4 && x < side / 2 + 4 ? 0.2f : 0);
  Image<float> image(stream, side, side);
  VesselnessMap map = make_vesselness_map(stream, side, side);
  Vesselness filter(stream, side, side);
  VesselnessOptions options;
  options.noise_sd = 0.01f;
  const auto run = [&] {
    copy<float>(stream, host.view(), image.view());
    filter.compute(stream, image, options, map);
    copy<float>(stream, map.response.view(), response.view());
    stream.synchronize();
  };
  run();
  if (!(response(side / 2, side / 2) > 0.5f)) state.SkipWithError("the vessel is not found");
  for (auto _ : state) run();
  bench::add_limits(state, stream, 20.0 * side * side);
}

const bool registered = [] {
  for (int i = 0; i < cuda_device_count(); ++i) {
    const std::string device = "/cuda" + std::to_string(i);
    for (const bool pinned : {true, false}) {
      const std::string memory = pinned ? "/pinned" : "/pageable";
      bench::register_row("transfer/frame_to_device" + memory + device,
                          [=](benchmark::State& state) { transfer<std::uint16_t>(state, i, pinned, true); });
      bench::register_row("transfer/plane_to_host" + memory + device,
                          [=](benchmark::State& state) { transfer<float>(state, i, pinned, false); });
    }
    bench::register_row("vesselness/default_with_transfer" + device, [=](benchmark::State& state) { vesselness_and_transfer(state, i); });
  }
  return true;
}();

}  // namespace
}  // namespace cinelumen
