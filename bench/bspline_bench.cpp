/// Cubic B-spline coefficients. OpenCV has none: its cubic interpolation is not a spline.

#include "kernels/bspline.h"

#include <cmath>
#include <random>

#include "bench/machine.h"

namespace cinelumen {
namespace {

void bspline(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  Image<float> host(side, side);
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(0, 1);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) host(y, x) = uniform(random);
  const Image<float> image = to_device(stream, host.view());
  Image<float> coefficients(stream, side, side);
  bspline_coefficients(stream, image, coefficients);
  const Image<float> c = to_host(stream, coefficients.view());
  const float at = (c(9, 9) + c(9, 11) + c(11, 9) + c(11, 11) + 4 * (c(9, 10) + c(10, 9) + c(10, 11) + c(11, 10)) + 16 * c(10, 10)) / 36;
  if (std::abs(at - host(10, 10)) > 1e-5) state.SkipWithError("the surface misses a pixel");
  for (auto _ : state) {
    bspline_coefficients(stream, image, coefficients);
    stream.synchronize();
  }
  const double bytes = 2.0 * sizeof(float) * side * side;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, stream, bytes, 76.0 * side * side);
}

const bool registered = [] {
  bench::register_on_all_devices("bspline_coefficients", bspline);
  return true;
}();

}  // namespace
}  // namespace cinelumen
