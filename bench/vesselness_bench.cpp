/// Multi-scale vesselness of a frame of vessels in noise: the default response and Frangi's, beside Frangi's with OpenCV's separable
/// filters.

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

void vesselness(benchmark::State& state, const Stream& stream, VesselnessResponse response) {
  const int side = static_cast<int>(state.range(0));
  const Image<float> image = to_device(stream, vessels_in_noise(side).view());
  const Image<std::uint8_t> valid = to_device(stream, round_field(side).view());
  VesselnessMap map = make_vesselness_map(stream, side, side);
  Vesselness filter(stream, side, side);
  VesselnessOptions options;
  options.response = response;
  filter.compute(stream, image, valid.view(), options, map);
  const Image<float> z = to_host(stream, map.z.view()), answer = to_host(stream, map.response.view());
  const int y = side / 2, vessel = static_cast<int>(std::lround(side * 3.5 / 6 + 20 * std::sin(0.02 * y + 3)));
  if (!(z(y, vessel) > 20 && answer(y, vessel) > 0.5f)) state.SkipWithError("the vessel is not found");
  for (auto _ : state) {
    filter.compute(stream, image, valid.view(), options, map);
    stream.synchronize();
  }
  const double bytes = 21.0 * side * side;  // image and field in, four planes out
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * bytes));
  bench::add_limits(state, stream, bytes);
}

void vesselness_cpu(benchmark::State& state) { vesselness(state, Stream::cpu({.parallel = false}), VesselnessResponse::noise_calibrated); }
void vesselness_cpu_pool(benchmark::State& state) { vesselness(state, Stream::cpu(), VesselnessResponse::noise_calibrated); }
void vesselness_frangi_cpu(benchmark::State& state) { vesselness(state, Stream::cpu({.parallel = false}), VesselnessResponse::frangi); }

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

/// Frangi's measure at the same scales: three sepFilter2D per scale at 4 sigma, eigenvalues in a plain loop. One thread.
void vesselness_opencv_frangi(benchmark::State& state) {
  cv::setNumThreads(1);
  const int side = static_cast<int>(state.range(0));
  Image<float> host = vessels_in_noise(side);
  const cv::Mat image(side, side, CV_32F, host.row(0), host.view().pitch * sizeof(float));
  cv::Mat xx, xy, yy, best(side, side, CV_32F);
  const VesselnessOptions options;
  const float over_beta = 0.5f / (options.frangi_beta * options.frangi_beta), over_c = 0.5f / (options.frangi_c * options.frangi_c);
  const auto run = [&] {
    best = 0;
    for (const float sigma : vesselness_scales_px) {
      if (sigma < options.min_scale_px || sigma > options.max_scale_px) continue;
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

void sizes(benchmark::internal::Benchmark* row) {
  row->Arg(512)->Arg(1024)->Arg(2048)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime()->UseRealTime();
}

BENCHMARK(vesselness_cpu)->Apply(sizes);
BENCHMARK(vesselness_cpu_pool)->Apply(sizes);
BENCHMARK(vesselness_frangi_cpu)->Apply(sizes);
BENCHMARK(vesselness_opencv_frangi)->Apply(sizes);

const bool cuda_rows = [] {
  for (int device = 0; device < cuda_device_count(); ++device)
    sizes(benchmark::RegisterBenchmark(("vesselness_cuda" + std::to_string(device)).c_str(), [device](benchmark::State& state) {
      vesselness(state, Stream::cuda(device), VesselnessResponse::noise_calibrated);
    }));
  return true;
}();

}  // namespace
}  // namespace cinelumen
