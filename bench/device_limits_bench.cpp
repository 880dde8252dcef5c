/// The yardstick itself: copy bandwidth and multiply-add rate of one thread, of the pool, and of each CUDA device.

#include "kernels/device_limits.h"

#include <cmath>
#include <string>

#include "bench/machine.h"

namespace cinelumen {
namespace {

void copy_bandwidth(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  Image<float> host(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) host(y, x) = static_cast<float>(y + x);
  const Image<float> from = to_device(stream, host.view());
  Image<float> to(stream, side, side);
  for (auto _ : state) {
    copy_plane(stream, from, to);
    stream.synchronize();
  }
  if (to_host(stream, to.view())(side - 1, side - 1) != static_cast<float>(2 * side - 2)) state.SkipWithError("wrong copy");
  const double bytes = 2.0 * sizeof(float) * side * side;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, stream, bytes);
}

void multiply_add_rate(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0)), rounds = 32;
  Image<float> output(stream, side, side);
  for (auto _ : state) {
    multiply_add_chains(stream, rounds, 0.5f, 1.0f, output);
    stream.synchronize();
  }
  if (std::abs(to_host(stream, output.view())(0, 0) - 16) > 0.01) state.SkipWithError("wrong sum");  // each chain tends to 2
  const double flops = 2.0 * multiply_adds_per_round * rounds * side * side;
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  bench::add_limits(state, stream, sizeof(float) * side * side, flops);
}

const bool registered = bench::register_on_all_devices("copy_plane", copy_bandwidth, {1024, 4096}) &&
                        bench::register_on_all_devices("multiply_add_chains", multiply_add_rate, {1024});

}  // namespace
}  // namespace cinelumen
