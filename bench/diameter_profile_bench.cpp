/// What a frame costs once the vessels are known: finding their ridges again and measuring every centreline point, in a frame that is
/// filled and in one that is not yet. The half-maximum width with OpenCV's remap is what is used instead, and is biased.

#include "engine/lumen_measurement.h"

#include <benchmark/benchmark.h>

#include <cmath>
#include <opencv2/imgproc.hpp>
#include <string>
#include <vector>

#include "bench/machine.h"
#include "engine/segment_follower.h"
#include "kernels/vesselness.h"
#include "tests/reference/lumen_fit.h"

namespace cinelumen {
namespace {

struct Scene {
  Image<float> image, variance;
  std::vector<Centreline> centrelines;
  int points = 0;
};

// Tubes of 1.6 to 8 px radius from side to side, one per 150 px.
Scene draw(int side, bool filled) {
  Scene scene{Image<float>(side, side), Image<float>(side, side), {}, 0};
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      scene.image(y, x) = 0.01f;
      scene.variance(y, x) = 1e-4f;
    }
  const int tubes = std::max(1, side / 150);
  for (int k = 0; k < tubes; ++k) {
    const double radius = 1.6 * std::pow(5.0, k % 6 / 5.0), angle = 1.4 + 0.02 * (k % 5), ny = std::sin(angle), nx = std::cos(angle);
    const double middle = (k + 0.5) * side / tubes;
    if (filled) reference::TubeRenderer(radius, 0.02, {}).draw(scene.image.view(), middle, 0.5 * side, ny, nx);
    Centreline centreline;
    for (int i = 8; i < side - 8; ++i) {
      CentrelinePoint p;
      const double along = i - 0.5 * side;
      p.y = static_cast<float>(middle - along * nx + 0.3 * std::sin(0.1 * i));
      p.x = static_cast<float>(0.5 * side + along * ny);
      p.tangent_y = static_cast<float>(-nx);
      p.tangent_x = static_cast<float>(ny);
      p.arc_length_px = static_cast<float>(i - 8);
      p.radius_px = static_cast<float>(0.8 * radius);
      p.z = 9;
      if (p.y > 12 && p.x > 12 && p.y < static_cast<float>(side - 12) && p.x < static_cast<float>(side - 12))
        centreline.points.push_back(p);
    }
    scene.points += static_cast<int>(centreline.points.size());
    scene.centrelines.push_back(std::move(centreline));
  }
  reference::add_noise(scene.image.view(), 0.01, 3);
  return scene;
}

Array<FramePlacement> to_device_array(const Stream& stream, const FramePlacement& placement) {
  Array<FramePlacement> host = Array<FramePlacement>::staging(stream, 1), result(stream, 1);
  host[0] = placement;
  copy<FramePlacement>(stream, host.view(), result.view());
  stream.synchronize();
  return result;
}

void diameters(benchmark::State& state, const Stream& stream, bool filled) {
  const Scene scene = draw(static_cast<int>(state.range(0)), filled);
  const Image<float> image = to_device(stream, scene.image.view()), variance = to_device(stream, scene.variance.view());
  LumenMeasurement measurement(stream, scene.centrelines, {}, 17);  // as far as they are moved in re_snap
  const auto run = [&] {
    measurement.enqueue(stream, image.view(), variance.view(), {});
    stream.synchronize();
  };
  run();
  const auto lumen = measurement.results();
  int used = 0;
  for (const auto& segment : lumen)
    for (const LumenPoint& point : segment) used += point.used;
  if (filled ? used < 0.9 * scene.points : used > 0.02 * scene.points) state.SkipWithError("not what the image shows was measured");
  for (auto _ : state) run();
  state.SetItemsProcessed(state.iterations() * scene.points);
  state.counters["points"] = scene.points;
}

void re_snap(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  const Scene scene = draw(side, true);
  VesselnessOptions vesselness;  // as in frames in which known vessels are found again
  vesselness.noise_sd = 0.01f;
  vesselness.planes = VesselnessPlanes::ridge_and_scale;
  VesselnessMap map = make_vesselness_map(stream, side, side, vesselness.planes);
  Vesselness(stream, side, side).compute(stream, to_device(stream, scene.image.view()).view(), vesselness, map);
  stream.synchronize();
  SegmentFollower follower(stream, scene.centrelines, {.search_px = 12}, {}, false);
  const Array<FramePlacement> placement = to_device_array(stream, FramePlacement{});
  const auto run = [&] {
    follower.enqueue_place(stream, placement.view(), side, side);
    follower.enqueue_snap(stream, map);
    stream.synchronize();
  };
  run();
  for (std::size_t s = 0; s < scene.centrelines.size(); ++s)
    if (!follower.found(static_cast<int>(s))) state.SkipWithError("ridges were lost");
  for (auto _ : state) run();
  state.SetItemsProcessed(state.iterations() * scene.points);
  state.counters["points"] = scene.points;
}

void opencv_half_maximum_of_a_frame(benchmark::State& state) {
  const int side = static_cast<int>(state.range(0));
  Scene scene = draw(side, true);
  constexpr int half = 60, length = 2 * half + 1;
  cv::Mat image(side, side, CV_32F, scene.image.row(0), static_cast<std::size_t>(scene.image.view().pitch) * sizeof(float));
  cv::Mat map_x(scene.points, length, CV_32F), map_y(scene.points, length, CV_32F), profiles;
  double width = 0;
  for (auto _ : state) {
    int i = 0;
    for (const Centreline& centreline : scene.centrelines)
      for (const CentrelinePoint& p : centreline.points) {
        for (int k = 0; k < length; ++k) {
          const float t = 0.5f * static_cast<float>(k - half);
          map_x.at<float>(i, k) = p.x - t * p.tangent_y;
          map_y.at<float>(i, k) = p.y + t * p.tangent_x;
        }
        ++i;
      }
    cv::remap(image, profiles, map_x, map_y, cv::INTER_CUBIC, cv::BORDER_REPLICATE);
    cv::GaussianBlur(profiles, profiles, {5, 1}, 1);
    width = 0;
    for (i = 0; i < scene.points; ++i) {
      const float* const p = profiles.ptr<float>(i);
      const float level = 0.5f * (p[half] + 0.5f * (p[0] + p[length - 1]));
      int a = half, b = half;
      while (a > 0 && p[a] > level) --a;
      while (b < length - 1 && p[b] > level) ++b;
      width += 0.5 * (b - a) / scene.points;
    }
    benchmark::DoNotOptimize(width);
  }
  state.SetItemsProcessed(state.iterations() * scene.points);
  state.counters["points"] = scene.points;
  state.counters["mean_px"] = width;
}

const bool registered = [] {
  for (const bool filled : {true, false})
    bench::register_on_all_devices(std::string("diameters_of_a_frame/") + (filled ? "filled" : "empty"),
                                   [filled](benchmark::State& state, const Stream& stream) { diameters(state, stream, filled); });
  bench::register_on_all_devices("re_snap_of_a_frame", re_snap);
  bench::register_row("diameters_of_a_frame/opencv_half_maximum", opencv_half_maximum_of_a_frame);
  return true;
}();

}  // namespace
}  // namespace cinelumen
