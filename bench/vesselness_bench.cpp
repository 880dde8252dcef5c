/// Multi-scale vesselness of a frame of vessels in noise: the default response, z alone as each frame of a run asks for it, and Frangi's
/// at sigmas 1, 2, 3, 4 and 6 px, beside Frangi's with OpenCV's separable filters.

#include "kernels/vesselness.h"

#include <benchmark/benchmark.h>

#include <cmath>
#include <opencv2/imgproc.hpp>
#include <random>
#include <string>
#include <vector>

#include "kernels/math.h"
#include "machine.h"

namespace cinelumen {
namespace {

/// Sinuous vessels of 2 to 12 px and noise of SD 0.01.
Image<float> vessels_in_noise(int side) {
  Image<float> image(side, side);
  std::mt19937 random(11);
  std::normal_distribution<float> noise(0, 0.01f);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      float value = noise(random);
      for (int k = 0; k < 6; ++k) {
        const double centre = side * (k + 0.5) / 6 + 20 * std::sin(0.02 * y + k), radius = 1 + k, u = (x - centre) / radius;
        if (u * u < 1) value += static_cast<float>(0.05 * radius * std::sqrt(1 - u * u));
      }
      image(y, x) = value;
    }
  return image;
}

Image<std::uint8_t> round_field(int side) {
  Image<std::uint8_t> valid(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) valid(y, x) = std::hypot(y - 0.5 * side, x - 0.5 * side) < 0.55 * side;
  return valid;
}

VesselnessOptions z_alone() {
  VesselnessOptions options;
  options.planes = VesselnessPlanes::z_and_scale;
  return options;
}

/// As frames are looked at in which known vessels are found again.
VesselnessOptions ridge_alone() {
  VesselnessOptions options;
  options.planes = VesselnessPlanes::ridge_and_scale;
  return options;
}

/// Sigmas 1, 2, 3, 4 and 6 px, as others are measured.
VesselnessOptions frangi(VesselnessPlanes planes) {
  VesselnessOptions options;
  options.planes = planes;
  options.response = VesselnessResponse::frangi;
  options.min_scale_px = 1;
  options.max_scale_px = 6;
  options.use_scale = {true, false, true, false, true, true, true, false, false, false};
  return options;
}

/// Floating-point operations per pixel of the image that the separable derivatives alone take, once per scale.
double hessian_flops_per_pixel(const VesselnessOptions& options) {
  double flops = 0;
  for (int i = 0; i < vesselness_scale_count; ++i) {
    const float sigma = vesselness_scales_px[i];
    if (!options.use_scale[i] || sigma < options.min_scale_px || sigma > options.max_scale_px) continue;
    const int level = i < 3 ? 0 : i < 7 ? 1 : 2;
    const double radius = std::ceil(4 * std::sqrt(std::pow(sigma / (1 << level), 2) - (level == 0 ? 0 : level == 1 ? 0.36 : 0.45)));
    flops += (2 * (6 * radius + 4) + 5 * radius) / (1 << 2 * level);
  }
  return flops;
}

void vesselness(benchmark::State& state, const Stream& stream, const VesselnessOptions& options, bool with_field = true) {
  const int side = static_cast<int>(state.range(0));
  const Image<float> image = to_device(stream, vessels_in_noise(side).view());
  const Image<std::uint8_t> valid = to_device(stream, round_field(side).view());
  VesselnessMap map = make_vesselness_map(stream, side, side, options.planes);
  Vesselness filter = with_field ? Vesselness(stream, valid.view()) : Vesselness(stream, side, side);
  filter.compute(stream, image, options, map);
  const bool with_z = options.planes != VesselnessPlanes::response,
             with_response = options.planes == VesselnessPlanes::all || options.planes == VesselnessPlanes::response;
  const Image<float> z = to_host(stream, map.pixel_px > 1 ? map.ridge.view() : map.z.view()), answer = to_host(stream, map.response.view());
  const int y = side / 2, step = map.pixel_px, vessel = static_cast<int>(std::lround(side * 3.5 / 6 + 20 * std::sin(0.02 * y + 3)));
  if ((with_z && !(z(y / step, vessel / step) > 5)) || (with_response && !(answer(y, vessel) > 0.5f)))
    state.SkipWithError("the vessel is not found");
  for (auto _ : state) {
    filter.compute(stream, image, options, map);
    stream.synchronize();
  }
  const double pixels = static_cast<double>(side) * side;
  const double bytes =
      ((with_field ? 5 : 4) + (with_z ? 8.0 / (step * step) : 0) + (with_response ? 4 : 0) + (with_z && with_response ? 4 : 0)) *
      pixels;  // in, out
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * bytes));
  // The default response needs the mean valley of every scale first and works the derivatives out again rather than keep them.
  const int passes = options.response == VesselnessResponse::noise_calibrated && with_response ? 2 : 1;
  bench::add_limits(state, stream, bytes, passes * hessian_flops_per_pixel(options) * pixels);
}

/// OpenCV has no eigenvalues of planes: a plain loop that vectorises, so that the row measures OpenCV and not this.
void frangi_row(int width, const float* xx, const float* xy, const float* yy, float* best, float over_beta, float over_c) {
#pragma GCC ivdep
  for (int x = 0; x < width; ++x) {
    const float mean = 0.5f * (xx[x] + yy[x]), half = 0.5f * (xx[x] - yy[x]), radius = sqrtf(half * half + xy[x] * xy[x]);
    const float low = mean - radius, high = mean + radius;
    const float value = fast_exp(-over_beta * high * high / (low * low + 1e-30f)) * (1 - fast_exp(-over_c * (low * low + high * high)));
    best[x] = mean < 0 && value > best[x] ? value : best[x];
  }
}

/// Frangi's measure at the same five scales: three sepFilter2D per scale at 4 sigma, eigenvalues in a plain loop. One thread.
void vesselness_opencv_frangi(benchmark::State& state) {
  cv::setNumThreads(1);
  const int side = static_cast<int>(state.range(0));
  Image<float> host = vessels_in_noise(side);
  const cv::Mat image(side, side, CV_32F, host.row(0), host.view().pitch * sizeof(float));
  cv::Mat xx, xy, yy, best(side, side, CV_32F);
  const VesselnessOptions options = frangi(VesselnessPlanes::response);
  const float over_beta = 0.5f / (options.frangi_beta * options.frangi_beta), over_c = 0.5f / (options.frangi_c * options.frangi_c);
  const auto run = [&] {
    best = 0;
    for (int i = 0; i < vesselness_scale_count; ++i) {
      const float sigma = vesselness_scales_px[i];
      if (!options.use_scale[i] || sigma < options.min_scale_px || sigma > options.max_scale_px) continue;
      const int radius = static_cast<int>(std::ceil(4 * sigma));
      cv::Mat g(2 * radius + 1, 1, CV_32F), g1 = g.clone(), g2 = g.clone();
      double sum = 0;
      for (int k = -radius; k <= radius; ++k) sum += std::exp(-0.5 * k * k / (sigma * sigma));
      for (int k = -radius; k <= radius; ++k) {
        const double w = std::exp(-0.5 * k * k / (sigma * sigma)) / sum, u = k / sigma;
        g.at<float>(k + radius) = static_cast<float>(w);
        g1.at<float>(k + radius) = static_cast<float>(w * u);
        g2.at<float>(k + radius) = static_cast<float>(w * (u * u - 1));
      }
      cv::sepFilter2D(image, xx, CV_32F, g2, g, cv::Point(-1, -1), 0, cv::BORDER_REFLECT_101);
      cv::sepFilter2D(image, yy, CV_32F, g, g2, cv::Point(-1, -1), 0, cv::BORDER_REFLECT_101);
      cv::sepFilter2D(image, xy, CV_32F, g1, g1, cv::Point(-1, -1), 0, cv::BORDER_REFLECT_101);
      for (int y = 0; y < side; ++y)
        frangi_row(side, xx.ptr<float>(y), xy.ptr<float>(y), yy.ptr<float>(y), best.ptr<float>(y), over_beta, over_c);
    }
  };
  run();
  for (auto _ : state) {
    run();
    benchmark::DoNotOptimize(best.data);
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * side * side * 8);
}

const bool registered = [] {
  bench::register_on_all_devices("vesselness/default",
                                 [](benchmark::State& state, const Stream& stream) { vesselness(state, stream, {}); });
  bench::register_on_all_devices("vesselness/z_alone",
                                 [](benchmark::State& state, const Stream& stream) { vesselness(state, stream, z_alone()); });
  bench::register_on_all_devices("vesselness/ridge_at_half_resolution",
                                 [](benchmark::State& state, const Stream& stream) { vesselness(state, stream, ridge_alone()); });
  // As the peers do it: the response alone, everywhere.
  bench::register_on_all_devices("vesselness/frangi", [](benchmark::State& state, const Stream& stream) {
    vesselness(state, stream, frangi(VesselnessPlanes::response), false);
  });
  bench::register_on_all_devices("vesselness/frangi_z_scale_and_angle", [](benchmark::State& state, const Stream& stream) {
    vesselness(state, stream, frangi(VesselnessPlanes::all), false);
  });
  bench::register_row("vesselness/opencv_frangi", vesselness_opencv_frangi);
  return true;
}();

}  // namespace
}  // namespace cinelumen
