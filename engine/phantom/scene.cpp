#include "engine/phantom/scene.h"

#include <algorithm>
#include <numbers>
#include <stdexcept>

#include "engine/phantom/random.h"

namespace cinelumen::phantom {
namespace {

struct Sample {
  Vec3 at;
  double radius = 0;
};

Sample mix(const Sample& a, const Sample& b, double f) { return {a.at * (1 - f) + b.at * f, a.radius * (1 - f) + b.radius * f}; }

/// Barry and Goldman's pyramid for the part between p[1] and p[2]; radii follow a monotone cubic so that they never overshoot.
Sample catmull_rom(const Sample p[4], double f) {
  double t[4] = {0, 0, 0, 0};
  for (int i = 1; i < 4; ++i) t[i] = t[i - 1] + std::sqrt(std::max(1e-6, norm(p[i].at - p[i - 1].at)));
  const double u = t[1] + f * (t[2] - t[1]);
  const auto blend = [&](const Vec3& a, const Vec3& b, double ta, double tb) {
    return a * ((tb - u) / (tb - ta)) + b * ((u - ta) / (tb - ta));
  };
  const Vec3 a1 = blend(p[0].at, p[1].at, t[0], t[1]), a2 = blend(p[1].at, p[2].at, t[1], t[2]), a3 = blend(p[2].at, p[3].at, t[2], t[3]);
  const Vec3 b1 = blend(a1, a2, t[0], t[2]), b2 = blend(a2, a3, t[1], t[3]);
  const double smooth = f * f * (3 - 2 * f);
  return {blend(b1, b2, t[1], t[2]), p[1].radius * (1 - smooth) + p[2].radius * smooth};
}

double lattice(int iy, int ix, std::uint32_t octave, std::uint64_t seed) {
  const auto words =
      philox({static_cast<std::uint32_t>(ix), static_cast<std::uint32_t>(iy), octave, static_cast<std::uint32_t>(Purpose::texture)}, seed);
  return words[0] * 0x1p-31 - 1;
}

void narrow(Edge& edge, const LesionPlan& lesion) {
  const double step = edge.plan_length_mm / static_cast<double>(edge.curve.size() - 1);
  const bool round = lesion.wider_axis == 1;
  if (!round && edge.sections.empty())
    for (const double radius : edge.radius_mm) edge.sections.push_back({radius, radius, lesion.angle_rad});
  std::vector<Vec3> curve = edge.curve;
  for (std::size_t k = 0; k < curve.size(); ++k) {
    const double height = height_of(lesion, static_cast<double>(k) * step);
    if (height <= 0) continue;
    const double radius = edge.radius_mm[k], smaller = radius * (1 - lesion.narrowing * height);
    const double larger = radius * (1 - lesion.wider_axis * lesion.narrowing * height);
    edge.radius_mm[k] = std::sqrt(smaller * larger);
    if (!round) edge.sections[k] = {smaller, larger, lesion.angle_rad};
    if (!lesion.eccentric) continue;
    const Vec3 axis = axis_at(edge.curve, k), aside = across(axis), along = cross(axis, aside);
    curve[k] = edge.curve[k] + (aside * std::cos(lesion.angle_rad) + along * std::sin(lesion.angle_rad)) * (radius - smaller);
  }
  edge.curve = std::move(curve);
}

/// The lesions of a vessel that reach into one of its edges.
void narrow(Edge& edge, const std::vector<LesionPlan>& of_vessel, double least_hydraulic_share) {
  edge.healthy_mm = edge.radius_mm;
  for (LesionPlan lesion : of_vessel) {
    lesion.centre_mm -= edge.start_mm;
    if (std::abs(lesion.centre_mm - 0.5 * edge.plan_length_mm) >= 0.5 * (lesion.length_mm + edge.plan_length_mm)) continue;
    if (!lesion.develops) narrow(edge, lesion);
    edge.lesions.push_back(lesion);
  }
  for (std::size_t k = 0; k < edge.radius_mm.size(); ++k)
    edge.hydraulic_mm.push_back(std::max(edge.radius_mm[k], least_hydraulic_share * edge.healthy_mm[k]));
}

Edge& edge_named(VesselTree& tree, const std::string& name) {
  for (Edge& edge : tree.edges)
    if (edge.name == name) return edge;
  throw std::invalid_argument("grow: there is no '" + name + "'");
}

Vec3 turn(const Vec3& p, double c, double s, int axis) {
  if (axis == 0) return {p.x, c * p.y - s * p.z, s * p.y + c * p.z};
  if (axis == 1) return {c * p.x - s * p.z, p.y, s * p.x + c * p.z};
  return {c * p.x - s * p.y, s * p.x + c * p.y, p.z};
}

}  // namespace

double length(const std::vector<Vec3>& curve) {
  double sum = 0;
  for (std::size_t k = 1; k < curve.size(); ++k) sum += norm(curve[k] - curve[k - 1]);
  return sum;
}

Vec3 axis_at(const std::vector<Vec3>& curve, std::size_t point) {
  return unit(curve[std::min(point + 1, curve.size() - 1)] - curve[point > 0 ? point - 1 : 0]);
}

Vec3 across(const Vec3& axis) { return unit(cross(axis, {0, 0, -1})); }

Placement3::Placement3(const PhantomPose& pose) : shift_{pose.shift_x_mm, pose.shift_y_mm, pose.towards_mm} {
  constexpr double degree = std::numbers::pi / 180;
  // Columns are where the axes go.
  const auto placed = [&](Vec3 p) {
    p = turn(p, std::cos(pose.tilt_x_deg * degree), std::sin(pose.tilt_x_deg * degree), 1);
    p = turn(p, std::cos(pose.tilt_y_deg * degree), std::sin(pose.tilt_y_deg * degree), 0);
    return turn(p, std::cos(pose.rotation_deg * degree), std::sin(pose.rotation_deg * degree), 2);
  };
  const Vec3 x = placed({1, 0, 0}), y = placed({0, 1, 0}), z = placed({0, 0, 1});
  rows_ = {Vec3{x.x, y.x, z.x}, Vec3{x.y, y.y, z.y}, Vec3{x.z, y.z, z.z}};
}

double height_of(const LesionPlan& lesion, double arc_mm) {
  const double x = std::abs(arc_mm - lesion.centre_mm) / (0.5 * lesion.length_mm);
  if (x >= 1) return 0;
  if (x <= 1 - lesion.shoulder) return 1;
  return 0.5 * (1 + std::cos(std::numbers::pi * (x - 1 + lesion.shoulder) / lesion.shoulder));
}

double risen(double since_ms, double rise_ms) {
  const double f = std::clamp(since_ms / std::max(1.0, rise_ms), 0.0, 1.0);
  return f * f * (3 - 2 * f);
}

double developed(const LesionPlan& lesion, double since_onset_ms) {
  return lesion.develops ? risen(since_onset_ms - lesion.delay_ms, lesion.rise_ms) : 1;
}

double fractal_noise(double y_mm, double x_mm, double longest_mm, double shortest_mm, std::uint64_t seed) {
  double sum = 0, power = 0;
  std::uint32_t octave = 0;
  for (double period = longest_mm; period >= shortest_mm; period *= 0.5, ++octave) {
    // Octaves are turned against each other, or the lattice shows.
    const double turn = 0.7 * octave, c = std::cos(turn) / period, s = std::sin(turn) / period;
    const double y = c * y_mm - s * x_mm, x = s * y_mm + c * x_mm;
    const double fy = std::floor(y), fx = std::floor(x);
    const double dy = y - fy, dx = x - fx;
    const double wy[4] = {(1 - dy) * (1 - dy) * (1 - dy) / 6, (4 - 6 * dy * dy + 3 * dy * dy * dy) / 6,
                          (1 + 3 * dy + 3 * dy * dy - 3 * dy * dy * dy) / 6, dy * dy * dy / 6};
    const double wx[4] = {(1 - dx) * (1 - dx) * (1 - dx) / 6, (4 - 6 * dx * dx + 3 * dx * dx * dx) / 6,
                          (1 + 3 * dx + 3 * dx * dx - 3 * dx * dx * dx) / 6, dx * dx * dx / 6};
    for (int j = 0; j < 4; ++j)
      for (int i = 0; i < 4; ++i) sum += wy[j] * wx[i] * lattice(static_cast<int>(fy) + j - 1, static_cast<int>(fx) + i - 1, octave, seed);
    power += 1.0 / 3 * 0.479 * 0.479;  // variance of a lattice value times the mean of the squared weights
  }
  return power > 0 ? sum / std::sqrt(power) : 0;
}

void flow_through(Scene& scene, const VesselPlan& vessel, double speed) {
  const double radius = vessel.points.front().radius_mm;
  scene.terminals.push_back({vessel.points.front().node, speed * radius * radius, 0});
  scene.terminals.push_back({vessel.points.back().node, 0, 1});
}

int VesselTree::node(const std::string& name) const {
  const auto found = std::find(node_names.begin(), node_names.end(), name);
  return found == node_names.end() ? -1 : static_cast<int>(found - node_names.begin());
}

VesselTree grow(const Scene& scene) {
  constexpr std::uint64_t edges_a_seed = 1000;  // no two edges of any two seeds wander alike
  VesselTree tree;
  for (const VesselPlan& vessel : scene.vessels)
    for (const ControlPoint& point : vessel.points)
      if (!point.node.empty() && tree.node(point.node) < 0) {
        tree.node_names.push_back(point.node);
        tree.node_positions.push_back(point.at);
      }
  for (const VesselPlan& vessel : scene.vessels) {
    if (vessel.points.size() < 2 || vessel.points.front().node.empty() || vessel.points.back().node.empty())
      throw std::invalid_argument("grow: vessel '" + vessel.name + "' must begin and end at nodes");
    std::vector<Sample> control;
    for (const ControlPoint& point : vessel.points) {
      const int node = point.node.empty() ? -1 : tree.node(point.node);
      control.push_back({node < 0 ? point.at : tree.node_positions[static_cast<std::size_t>(node)], point.radius_mm});
    }
    int cuts = 0;
    for (std::size_t i = 1; i + 1 < vessel.points.size(); ++i) cuts += !vessel.points[i].node.empty();
    double start_mm = 0;
    std::vector<Sample> dense = {control.front()};
    int start = tree.node(vessel.points.front().node), number = 1;
    for (std::size_t i = 0; i + 1 < control.size(); ++i) {
      // Beyond the ends the curve goes on as its mirror image.
      const Sample before = i > 0 ? control[i - 1] : Sample{control[0].at * 2 - control[1].at, control[0].radius};
      const Sample after = i + 2 < control.size() ? control[i + 2] : Sample{control[i + 1].at * 2 - control[i].at, control[i + 1].radius};
      const Sample four[4] = {before, control[i], control[i + 1], after};
      constexpr int pieces = 400;
      for (int k = 1; k <= pieces; ++k) dense.push_back(catmull_rom(four, static_cast<double>(k) / pieces));
      if (vessel.points[i + 1].node.empty()) continue;
      Edge edge;
      edge.name = vessel.name + (cuts > 0 ? " " + std::to_string(number++) : "");
      edge.role = vessel.role;
      edge.from = start;
      edge.to = start = tree.node(vessel.points[i + 1].node);
      std::vector<double> arc = {0};
      for (std::size_t k = 1; k < dense.size(); ++k) arc.push_back(arc.back() + norm(dense[k].at - dense[k - 1].at));
      edge.start_mm = start_mm;
      const double planned = edge.plan_length_mm = arc.back();
      start_mm += planned;
      const int steps = std::max(4, static_cast<int>(std::ceil(planned / 0.1)));
      std::size_t at = 0;
      for (int k = 0; k <= steps; ++k) {
        const double wanted = planned * k / steps;
        while (at + 2 < arc.size() && arc[at + 1] < wanted) ++at;
        const Sample sample =
            mix(dense[at], dense[at + 1], std::clamp((wanted - arc[at]) / std::max(1e-12, arc[at + 1] - arc[at]), 0.0, 1.0));
        // Nothing wanders at a node, or the vessels that meet there would part.
        const double free = std::clamp(std::min(wanted, planned - wanted) / 6, 0.0, 1.0), swing = free * free * (3 - 2 * free);
        const auto wander = [&](double lane, double longest, double shortest) {
          return swing * fractal_noise(lane, wanted, longest, shortest, edges_a_seed * scene.wandering + tree.edges.size() + 1);
        };
        const Vec3 offset = Vec3{wander(0, 22, 11), wander(50, 22, 11), wander(100, 22, 11)} * scene.tortuosity_mm;
        edge.curve.push_back(sample.at + offset);
        edge.radius_mm.push_back(sample.radius * (1 + scene.calibre_variation * std::clamp(wander(150, 9, 4.5), -2.5, 2.5)));
      }
      edge.filling = vessel.filling;
      // Wandering made the curve longer, and its points a little uneven.
      edge.drawn_length_mm = length(edge.curve);
      narrow(edge, vessel.lesions, scene.least_hydraulic_share);
      edge.length_mm = length(edge.curve);
      tree.edges.push_back(std::move(edge));
      dense = {control[i + 1]};
    }
  }
  for (const TerminalPlan& terminal : scene.terminals) {
    const int node = tree.node(terminal.node);
    if (node < 0) throw std::invalid_argument("grow: no vessel reaches node '" + terminal.node + "'");
    tree.terminals.push_back({node, terminal.inflow_share, terminal.conductance, terminal.contrast, terminal.delay_ms});
  }
  for (const std::string& name : scene.closed) edge_named(tree, name).closed = true;
  for (const auto& [name, plan] : scene.filling) edge_named(tree, name).filling = plan;
  return tree;
}

}  // namespace cinelumen::phantom
