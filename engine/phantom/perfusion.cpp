#include "engine/phantom/perfusion.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace cinelumen::phantom {
namespace {

constexpr double dispersion_mm2_s = 30;

std::vector<Conduit> conduits_of(const VesselTree& tree) {
  std::vector<Conduit> conduits;
  for (const Edge& edge : tree.edges) conduits.push_back({edge.from, edge.to, edge.length_mm, edge.hydraulic_mm, edge.closed});
  return conduits;
}

/// mm^3/s that a share of one stands for, at a velocity of 1 mm/s.
double area_per_share(const VesselTree& tree, const Scene& scene) {
  if (scene.area_per_share_mm2 > 0) return scene.area_per_share_mm2;
  double area = 0, shares = 0;
  for (const Terminal& terminal : tree.terminals) {
    if (terminal.inflow_mm3_s <= 0) continue;
    shares += terminal.inflow_mm3_s;
    for (const Edge& edge : tree.edges)
      if (edge.from == terminal.node) area += std::numbers::pi * edge.radius_mm.front() * edge.radius_mm.front();
  }
  return area / shares;
}

}  // namespace

Perfusion perfuse(const VesselTree& tree, const Scene& scene, const PhantomOptions& options) {
  Perfusion result;
  result.terminals = tree.terminals;
  const double per_share = area_per_share(tree, scene);
  for (Terminal& terminal : result.terminals) terminal.inflow_mm3_s *= options.inlet_velocity_mm_s * per_share;
  const std::vector<Conduit> conduits = conduits_of(tree);
  const int nodes = static_cast<int>(tree.node_names.size());
  result.flow_mm3_s = solve_flow(nodes, conduits, result.terminals);
  const double start = options.contrast_free_frames * options.frame_time_ms, decay = 1500;
  const double stop = scene.endless_bolus ? std::numeric_limits<double>::infinity() : start + inlet_rise_ms + options.bolus_duration_ms;
  result.inlet = [=](double time_ms) {
    const double f = std::clamp((time_ms - start) / inlet_rise_ms, 0.0, 1.0);
    return f * f * (3 - 2 * f) * (time_ms > stop ? std::exp(-(time_ms - stop) / decay) : 1);
  };
  const double duration = std::max(1.0, (*options.frames - 1) * options.frame_time_ms);
  result.bolus = run_bolus(nodes, conduits, result.terminals, result.flow_mm3_s, result.inlet, duration, dispersion_mm2_s);
  return result;
}

double accepted_share(const VesselTree& tree, int inlet_node) {
  const std::vector<double> flow = solve_flow(static_cast<int>(tree.node_names.size()), conduits_of(tree), tree.terminals);
  double inflow = 0, accepted = 0;
  for (const Terminal& terminal : tree.terminals)
    if (terminal.node == inlet_node) inflow += terminal.inflow_mm3_s;
  for (std::size_t e = 0; e < tree.edges.size(); ++e) {
    if (tree.edges[e].from == inlet_node) accepted += flow[e];
    if (tree.edges[e].to == inlet_node) accepted -= flow[e];
  }
  return accepted / inflow;
}

}  // namespace cinelumen::phantom
