/// Cylinder fit per thousand centreline points, narrow (R 3 px), usual (6) and wide (12), first pass (with the search for a start) and
/// second (kappa held). No library has one; the full width at half maximum with OpenCV's remap is what is used instead, and is biased.

#include "kernels/lumen_fit.h"

#include <cmath>
#include <opencv2/imgproc.hpp>
#include <string>
#include <vector>

#include "bench/machine.h"
#include "tests/reference/lumen_fit.h"

namespace cinelumen {
namespace {

constexpr int count = 1000, side = 1024;

struct Scene {
  Image<float> image{side, side};
  std::vector<LumenFitPoint> points;
};

Scene draw(double radius_px, bool second_pass) {
  Scene scene;
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) scene.image(y, x) = 0.01f;
  const double ny = std::sin(1.2), nx = std::cos(1.2);
  reference::TubeRenderer(radius_px, 0.15 / radius_px, {}).draw(scene.image.view(), 0.5 * side, 0.5 * side, ny, nx);
  reference::add_noise(scene.image.view(), 0.01, 3);
  for (int i = 0; i < count; ++i) {
    LumenFitPoint p;
    const double along = 0.9 * (i - count / 2);
    p.y = static_cast<float>(0.5 * side + along * nx + 0.2 * std::sin(i) * ny);
    p.x = static_cast<float>(0.5 * side - along * ny + 0.2 * std::sin(i) * nx);
    p.normal_y = static_cast<float>(ny);
    p.normal_x = static_cast<float>(nx);
    p.radius_px = static_cast<float>((second_pass ? 1.03 : 0.8) * radius_px);
    if (second_pass) {
      p.kappa = static_cast<float>(0.15 / radius_px);
      p.kappa_sd = 0.05f * p.kappa;
    }
    scene.points.push_back(p);
  }
  return scene;
}

void lumen_fit(benchmark::State& state, const Stream& stream, bool second_pass) {
  const double radius = static_cast<double>(state.range(0));
  const Scene scene = draw(radius, second_pass);
  const Image<float> image = to_device(stream, scene.image.view());
  Array<LumenFitPoint> host_points(count), points(stream, count);
  Array<LumenFit> host_fits(count), fits(stream, count);
  std::copy(scene.points.begin(), scene.points.end(), host_points.begin());
  copy<LumenFitPoint>(stream, host_points.view(), points.view());
  LumenFitOptions options;
  options.search = !second_pass;
  const auto run = [&] { fit_lumen(stream, image.view(), {}, {}, points.view(), fits.view(), options); };
  run();
  copy<LumenFit>(stream, fits.view(), host_fits.view());
  stream.synchronize();
  double mean = 0, samples = 0;
  for (const LumenFit& fit : host_fits) {
    mean += fit.diameter_px / count;
    samples += fit.samples;
  }
  if (std::abs(mean - 2 * radius) > 0.06) state.SkipWithError("the mean diameter is wrong");
  for (auto _ : state) {
    run();
    stream.synchronize();
  }
  state.SetItemsProcessed(state.iterations() * count);
  state.SetBytesProcessed(static_cast<std::int64_t>(samples * sizeof(float) * static_cast<double>(state.iterations())));
  state.counters["samples_per_point"] = samples / count;
}

void opencv_half_maximum(benchmark::State& state) {
  const double radius = static_cast<double>(state.range(0));
  Scene scene = draw(radius, false);
  const int half = static_cast<int>(2.5 * radius + 8), length = 2 * half * 2 + 1;
  cv::Mat image(side, side, CV_32F, scene.image.row(0), static_cast<std::size_t>(scene.image.view().pitch) * sizeof(float));
  cv::Mat map_x(count, length, CV_32F), map_y(count, length, CV_32F), profiles;
  for (int i = 0; i < count; ++i)
    for (int k = 0; k < length; ++k) {
      const float t = 0.5f * static_cast<float>(k - 2 * half);
      map_x.at<float>(i, k) = scene.points[i].x + t * scene.points[i].normal_x;
      map_y.at<float>(i, k) = scene.points[i].y + t * scene.points[i].normal_y;
    }
  double width = 0;
  for (auto _ : state) {
    cv::remap(image, profiles, map_x, map_y, cv::INTER_CUBIC, cv::BORDER_REPLICATE);
    cv::GaussianBlur(profiles, profiles, {5, 1}, 1);
    width = 0;
    for (int i = 0; i < count; ++i) {
      const float* const p = profiles.ptr<float>(i);
      const float top = p[2 * half], low = 0.5f * (p[0] + p[length - 1]), level = 0.5f * (top + low);
      int a = 2 * half, b = 2 * half;
      while (a > 0 && p[a] > level) --a;
      while (b < length - 1 && p[b] > level) ++b;
      width += 0.5 * (b - a) / count;
    }
    benchmark::DoNotOptimize(width);
  }
  state.SetItemsProcessed(state.iterations() * count);
  state.counters["bias_px"] = width - 2 * radius;
}

const bool registered = [] {
  const std::vector<std::int64_t> radii_px = {3, 6, 12};
  for (const bool second : {false, true})
    bench::register_on_all_devices(
        std::string("lumen_fit/") + (second ? "kappa_held" : "kappa_free"),
        [second](benchmark::State& state, const Stream& stream) { lumen_fit(state, stream, second); }, radii_px);
  bench::register_row("lumen_fit/opencv_half_maximum", opencv_half_maximum, radii_px);
  return true;
}();

}  // namespace
}  // namespace cinelumen
