/// Topology of a run (components, thinning, graph, sub-pixel centrelines) and what every frame does with it (finding the ridges again).

#include "engine/centreline.h"

#include <benchmark/benchmark.h>

#include <string>

#include "bench/machine.h"
#include "engine/centreline_fit.h"
#include "engine/ridge_snap.h"
#include "kernels/vesselness.h"
#include "tests/support/vessel_gate.h"

namespace cinelumen {
namespace {

struct Scene {
  Image<float> image;
  VesselnessMap map;
};

Scene make_scene(const Stream& stream, int side) {
  Scene scene{to_device(stream, test::vessel_gate(side).view()), make_vesselness_map(stream, side, side)};
  stream.synchronize();
  VesselnessOptions options;
  options.noise_sd = 2.5f;  // the noise is correlated: that of white noise with the same answer
  Vesselness(stream, side, side).compute(stream, scene.image, options, scene.map);
  stream.synchronize();
  return scene;
}

double points_of(const VesselGraph& graph) {
  double points = 0;
  for (const VesselGraph::Segment& segment : graph.segments) points += static_cast<double>(segment.centreline.points.size());
  return points;
}

void trace(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  const Scene scene = make_scene(stream, side);
  VesselGraph graph = trace_centrelines(stream, scene.image, scene.map, {});
  // Fourteen vessels run from side to side.
  if (points_of(graph) < 10 * side) state.SkipWithError("vessels were missed");
  for (auto _ : state) graph = trace_centrelines(stream, scene.image, scene.map, {});
  state.SetBytesProcessed(state.iterations() * side * side * 16);
  state.counters["points"] = points_of(graph);
  state.counters["segments"] = static_cast<double>(graph.segments.size());
}

void fit(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  const Scene scene = make_scene(stream, side);
  const VesselGraph graph = trace_centrelines(stream, scene.image, scene.map, {});
  const CentrelineFitOptions options{.noise_sd = 2.5f};
  VesselGraph fitted = fit_centrelines(stream, scene.image, scene.map.z, {}, graph, options);
  if (points_of(fitted) < 0.95 * points_of(graph)) state.SkipWithError("vessels were lost");
  for (auto _ : state) benchmark::DoNotOptimize(fitted = fit_centrelines(stream, scene.image, scene.map.z, {}, graph, options));
  state.counters["points"] = points_of(fitted);
}

void snap(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  const Scene scene = make_scene(stream, side);
  const VesselGraph graph = trace_centrelines(stream, scene.image, scene.map, {});
  // 3000 points, 13 samples across each.
  std::vector<Centreline> centrelines;
  int points = 0;
  for (const VesselGraph::Segment& segment : graph.segments) {
    Centreline centreline = segment.centreline;
    if (points + static_cast<int>(centreline.points.size()) > 3000) centreline.points.resize(3000 - points);
    points += static_cast<int>(centreline.points.size());
    centrelines.push_back(std::move(centreline));
    if (points == 3000) break;
  }
  const RidgeSnapOptions options{.search_px = 3};
  auto snapped = snap_to_ridge(stream, scene.map, centrelines, options);
  int accepted = 0;
  for (const auto& segment : snapped)
    for (const SnappedPoint& point : segment) accepted += point.accepted;
  if (accepted < 0.8 * points) state.SkipWithError("ridges were lost");
  for (auto _ : state) benchmark::DoNotOptimize(snapped = snap_to_ridge(stream, scene.map, centrelines, options));
  state.counters["points"] = points;
}

const bool registered = [] {
  bench::register_on_all_devices("trace_centrelines", trace);
  bench::register_on_all_devices("fit_centrelines", fit);
  bench::register_on_all_devices("snap_to_ridge", snap);
  return true;
}();

}  // namespace
}  // namespace cinelumen
