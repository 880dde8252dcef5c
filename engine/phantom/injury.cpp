#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "engine/phantom/foot_sites.h"

namespace cinelumen::phantom {
namespace {

struct Host {
  const Edge* edge = nullptr;
  std::string vessel;
};

/// A stretch of an edge, by points of its curve, and a side of it: 1 or -1, along across().
struct Spot {
  Host host;
  std::size_t first = 0, last = 0;
  double side = 1;
  std::size_t middle() const { return (first + last) / 2; }
  double place_mm(std::size_t point) const {
    return host.edge->drawn_length_mm * static_cast<double>(point) / static_cast<double>(host.edge->curve.size() - 1);
  }
};

/// What is done to a vein.
struct Injury {
  Spot spot;
  StainPlan stain;
  LesionPlan narrowing = {};
};

/// Somewhere on the deep veins, `length_mm` long.
Spot draw_spot(RandomStream& random, const std::vector<Host>& hosts, double length_mm) {
  Spot spot;
  spot.host = hosts[static_cast<std::size_t>(whole_between(random, 0, static_cast<int>(hosts.size()) - 1))];
  const Edge& edge = *spot.host.edge;
  const int points = static_cast<int>(edge.curve.size()),
            reach = std::min(points - 1, static_cast<int>(length_mm / edge.drawn_length_mm * (points - 1)));
  spot.first = static_cast<std::size_t>(whole_between(random, 0, points - 1 - reach));
  spot.last = spot.first + static_cast<std::size_t>(reach);
  spot.side = random.uniform() < 0.5 ? 1 : -1;
  return spot;
}

StainPlan stain_at(const Spot& spot, const char* kind) {
  StainPlan stain;
  stain.kind = kind;
  stain.host = spot.host.edge->name;
  stain.from_mm = spot.place_mm(spot.first);
  stain.to_mm = spot.place_mm(spot.last);
  return stain;
}

void add_slice(Edge& tube, const Vec3& at, double across_mm, double along_ray_mm) {
  tube.curve.push_back(at);
  tube.radius_mm.push_back(std::sqrt(across_mm * along_ray_mm));
  tube.sections.push_back({across_mm, along_ray_mm, 0});
}

/// An ellipsoid beside the vein, as long as the spot. Its tube leads away from the vein, so that it can grow out of the wall.
Injury draw_leak(RandomStream& random, const std::vector<Host>& hosts) {
  const double radius = between(random, 2, 3.5), length = std::clamp(2 * radius * between(random, 1.1, 1.4), 5.0, 9.0);
  const Spot spot = draw_spot(random, hosts, length);
  Injury leak = {spot, stain_at(spot, "extravasation")};
  StainPlan& stain = leak.stain;
  const std::vector<Vec3>& vein = spot.host.edge->curve;
  constexpr double overlap_mm = 0.4, thinnest_mm = 0.02;
  const Vec3 aside = across(axis_at(vein, spot.middle())) * spot.side;
  const Vec3 wall = vein[spot.middle()] + aside * (spot.host.edge->radius_mm[spot.middle()] - overlap_mm);
  const int slices = static_cast<int>(std::ceil(2 * radius / 0.1));
  for (int k = 0; k <= slices; ++k) {
    const double f = static_cast<double>(k) / slices, height = std::max(thinnest_mm / radius, 2 * std::sqrt(f * (1 - f)));
    add_slice(stain.tube, wall + aside * (2 * radius * f), 0.5 * length * height, radius * height);
  }
  stain.radius_mm = radius;
  stain.delay_ms = between(random, 300, 1000);
  stain.rise_ms = between(random, 1500, 2500);
  stain.concentration = between(random, 0.4, 0.8);
  stain.grows = true;
  return leak;
}

/// The lumen moved to one side and narrowed to about half, and what a flap leaves of the rest, tapering with it. Both deeper than wide, as
/// halves of a round vein are.
Injury draw_split(RandomStream& random, const std::vector<Host>& hosts) {
  const Spot spot = draw_spot(random, hosts, between(random, 12, 20));
  const Edge& host = *spot.host.edge;
  Injury split = {spot, stain_at(spot, "dissection")};
  const double per_point = host.plan_length_mm / static_cast<double>(host.curve.size() - 1);
  LesionPlan& lesion = split.narrowing;
  lesion.kind = "dissection";
  lesion.length_mm = per_point * static_cast<double>(spot.last - spot.first);
  lesion.centre_mm = host.start_mm + per_point * 0.5 * static_cast<double>(spot.first + spot.last);
  lesion.shoulder = 0.3;
  lesion.narrowing = between(random, 0.46, 0.51);
  lesion.wider_axis = 0.3;
  lesion.eccentric = true;
  lesion.angle_rad = spot.side > 0 ? 0 : std::numbers::pi;
  StainPlan& stain = split.stain;
  const double flap_mm = between(random, 0.25, 0.35);
  constexpr double thinnest_mm = 0.1, depth_to_width = 1.8;
  stain.radius_mm = 0;
  for_each_point(host, lesion, [&](std::size_t k, double height) {
    const double half = host.radius_mm[k] * lesion.narrowing * height - 0.5 * flap_mm;
    if (half < thinnest_mm) return;
    const Vec3 aside = across(axis_at(host.curve, k)) * -spot.side;
    add_slice(stain.tube, host.curve[k] + aside * (host.radius_mm[k] - half), half, depth_to_width * half);
    stain.radius_mm = std::max(stain.radius_mm, half);
  });
  stain.delay_ms = between(random, 500, 1200);
  stain.rise_ms = 600;
  stain.concentration = between(random, 0.6, 0.85);
  return split;
}

/// mm from an injury and the vein beside it to the nearest outline of another vessel, as the picture shows them.
double clearance_mm(const Injury& injury, const VesselTree& tree, const ConeBeam& beam) {
  constexpr std::size_t stride = 5;
  double least = std::numeric_limits<double>::infinity();
  const auto look = [&](const Edge& edge, std::size_t first, std::size_t last) {
    for (std::size_t k = first; k <= last; k += stride) {
      const auto p = beam.project(edge.curve[k]);
      for (const Edge& other : tree.edges)
        for (std::size_t j = 0; j < other.curve.size() && !other.name.starts_with(injury.spot.host.vessel); j += stride) {
          const auto q = beam.project(other.curve[j]);
          least = std::min(least, std::hypot(p[0] - q[0], p[1] - q[1]) * beam.mm_per_px() - edge.radius_mm[k] - other.radius_mm[j]);
        }
    }
  };
  look(injury.stain.tube, 0, injury.stain.tube.curve.size() - 1);
  look(*injury.spot.host.edge, injury.spot.first, injury.spot.last);
  return least;
}

/// The first of those drawn, on veins at least `least_radius_mm` wide, that lies clear of other vessels; else the clearest.
template <class Draw>
Injury draw_clear(const VesselTree& tree, const ConeBeam& beam, double least_radius_mm, const Draw& draw) {
  constexpr int draws = 200;
  constexpr double clear_mm = 0.3;
  Injury clearest;
  double most = -std::numeric_limits<double>::infinity();
  for (int k = 0; k < draws && most < clear_mm; ++k) {
    Injury injury = draw();
    const auto& radii = injury.spot.host.edge->radius_mm;
    const auto at = [&](std::size_t point) { return radii.begin() + static_cast<std::ptrdiff_t>(point); };
    if (*std::min_element(at(injury.spot.first), at(injury.spot.last) + 1) < least_radius_mm) continue;
    const double clearance = clearance_mm(injury, tree, beam);
    if (clearance <= most) continue;
    most = clearance;
    clearest = std::move(injury);
  }
  StainPlan& stain = clearest.stain;
  stain.tube.length_mm = stain.tube.drawn_length_mm = length(stain.tube.curve);
  return clearest;
}

}  // namespace

double concentration(const StainPlan& stain, double since_ms) { return stain.concentration * risen(since_ms, stain.rise_ms); }

double calibre(const StainPlan& stain, double along, double elapsed) {
  if (!stain.grows || elapsed >= 1) return 1;
  constexpr double first_size = 0.3;
  const double size = std::max(first_size, std::cbrt(elapsed));
  return along < size ? std::sqrt((size - along) / (1 - along)) : 0;
}

Scene make_injury(const ConeBeam& beam, int rows, int columns, std::uint64_t seed) {
  Scene scene = make_foot(beam, rows, columns, seed);
  // Wide enough for two lumina and a flap that a detector resolves.
  for (VesselPlan& vessel : scene.vessels)
    for (ControlPoint& point : vessel.points)
      if (vessel.name == "lateral plantar vein") point.radius_mm *= 1.16;
  const VesselTree tree = grow(scene);
  // However the patient lies, his injuries are the same.
  ConeBeam at_rest = beam;
  at_rest.patient = {};
  std::vector<Host> hosts;
  for (const Site& site : spasm_sites())
    if (site.first == site.last) hosts.push_back({stretch_of(site, tree).edges.front(), site.vessel});
  RandomStream random(seed, Purpose::layout, 0, 6);
  const Injury split = draw_clear(tree, at_rest, 1.5, [&] { return draw_split(random, hosts); });
  for (VesselPlan& vessel : scene.vessels)
    if (vessel.name == split.spot.host.vessel) vessel.lesions.push_back(split.narrowing);
  std::erase_if(hosts, [&](const Host& host) { return host.vessel == split.spot.host.vessel; });
  const Injury leak = draw_clear(tree, at_rest, 1, [&] { return draw_leak(random, hosts); });
  scene.stains = {leak.stain, split.stain};
  return scene;
}

}  // namespace cinelumen::phantom
