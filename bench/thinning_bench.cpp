/// Thinning of a vessel mask, beside OpenCV's ximgproc::thinning (Guo-Hall, the same algorithm) where that module is.

#include "kernels/thinning.h"

#include <benchmark/benchmark.h>

#ifdef CINELUMEN_WITH_XIMGPROC
#include <opencv2/ximgproc.hpp>
#endif

#include "bench/machine.h"
#include "kernels/hysteresis.h"
#include "tests/reference/thinning.h"
#include "tests/support/vessel_gate.h"

namespace cinelumen {
namespace {

Image<std::uint8_t> vessel_mask(const Stream& stream, int side) {
  const Image<float> z = to_device(stream, test::vessel_gate(side).view());
  stream.synchronize();
  Image<std::uint8_t> mask(stream, side, side);
  Hysteresis(stream, side, side).segment(z, {}, {}, mask);
  return mask;
}

void thinning(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  const Image<std::uint8_t> mask = vessel_mask(stream, side);
  Image<std::uint8_t> skeleton(stream, side, side);
  Thinning thinning(stream, side, side);
  thinning.thin(mask.view(), skeleton);
  const Image<std::uint8_t> host = to_host(stream, skeleton.view()), expected = reference::guo_hall(to_host(stream, mask.view()));
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x)
      if (host(y, x) != expected(y, x)) state.SkipWithError("the skeleton is not Guo and Hall's");
  for (auto _ : state) {
    thinning.thin(mask.view(), skeleton);
    stream.synchronize();
  }
  bench::add_limits(state, stream, 2.0 * side * side);
}

#ifdef CINELUMEN_WITH_XIMGPROC
void thinning_opencv(benchmark::State& state) {
  cv::setNumThreads(1);
  const int side = static_cast<int>(state.range(0));
  const Image<std::uint8_t> mask = vessel_mask(Stream::cpu(), side);
  cv::Mat input(side, side, CV_8U), output;
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) input.at<std::uint8_t>(y, x) = mask(y, x) ? 255 : 0;
  for (auto _ : state) cv::ximgproc::thinning(input, output, cv::ximgproc::THINNING_GUOHALL);
  state.SetBytesProcessed(state.iterations() * side * side * 2);
}
#endif

const bool registered = [] {
  bench::register_on_all_devices("thinning", thinning);
#ifdef CINELUMEN_WITH_XIMGPROC
  bench::register_row("thinning/opencv_guo_hall", thinning_opencv);
#endif
  return true;
}();

}  // namespace
}  // namespace cinelumen
