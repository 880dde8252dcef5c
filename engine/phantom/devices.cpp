#include "engine/phantom/devices.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>
#include <string>

namespace cinelumen::phantom {
namespace {

/// Attenuation above soft tissue at about 45 keV, per mm.
constexpr double steel = 1.3, nitinol = 1.0, platinum = 6, lead = 4, loaded_polymer = 0.2, polymer = 0.02;

using Path = std::vector<Vec3>;

/// The point at `arc_mm` from the start, on the path or its end.
Vec3 point_at(const Path& path, double arc_mm) {
  for (std::size_t i = 1; i < path.size(); ++i) {
    const double step = norm(path[i] - path[i - 1]);
    if (arc_mm <= step) return path[i - 1] + (path[i] - path[i - 1]) * (std::max(0.0, arc_mm) / std::max(step, 1e-9));
    arc_mm -= step;
  }
  return path.back();
}

Path part_of(const Path& path, double from_mm, double to_mm) {
  Path part;
  const int steps = std::max(2, static_cast<int>((to_mm - from_mm) / 0.25));
  for (int i = 0; i <= steps; ++i) part.push_back(point_at(path, from_mm + (to_mm - from_mm) * i / steps));
  return part;
}

/// A smooth path through a few points.
Path through(const std::vector<Vec3>& points) {
  Scene scene;
  VesselPlan plan{"path", "", {}};
  for (std::size_t i = 0; i < points.size(); ++i)
    plan.points.push_back({points[i], 1, i == 0 ? "start" : (i + 1 == points.size() ? "end" : "")});
  scene.vessels.push_back(std::move(plan));
  return grow(scene).edges.front().curve;
}

/// Places devices in a scene and writes them down.
class Tray {
 public:
  Tray(Scene& scene, const ConeBeam& beam) : scene_(scene), beam_(beam) {}

  void put(const DevicePart& part) { draw(part, beam_, scene_.margin, scene_.attenuation); }

  PhantomDevice& list(const std::string& kind, const Path& path, double outer_mm, double inner_mm) {
    PhantomDevice& device = scene_.devices.emplace_back();
    device.kind = kind;
    device.outer_diameter_mm = outer_mm;
    device.inner_diameter_mm = inner_mm;
    for (const Vec3& p : part_of(path, 0, length(path))) device.centreline_px.push_back(beam_.project(p));
    device.depth_mm = beam_.depth_mm(path[path.size() / 2]);
    return device;
  }

  std::array<double, 2> seen(const Vec3& p) const { return beam_.project(p); }

  /// A short ring of platinum about the path.
  void marker(PhantomDevice& device, const Path& path, double arc_mm, double outer_mm) {
    put({part_of(path, arc_mm - 0.5, arc_mm + 0.5), outer_mm, outer_mm - 0.3, platinum});
    device.markers_px.push_back(beam_.project(point_at(path, arc_mm)));
  }

 private:
  Scene& scene_;
  const ConeBeam& beam_;
};

/// Rings of wire, bent to and fro, about a path: five millimetres from ring to ring.
void put_struts(Tray& tray, const Path& path, double from_mm, double to_mm, double diameter_mm) {
  constexpr double pitch_mm = 5, crest_mm = 1.6;
  constexpr int crests = 7;
  for (double at = from_mm + crest_mm; at <= to_mm - crest_mm + 1e-6; at += pitch_mm) {
    const Vec3 axis = unit(point_at(path, at + 1) - point_at(path, at - 1)), e1 = unit(cross(axis, {0, 0, -1})), e2 = cross(axis, e1);
    const auto corner = [&](int k) {
      const double turn = std::numbers::pi * k / crests;
      return point_at(path, at) + axis * (k % 2 == 0 ? crest_mm : -crest_mm) +
             (e1 * std::cos(turn) + e2 * std::sin(turn)) * (diameter_mm / 2);
    };
    for (int k = 0; k < 2 * crests; ++k) tray.put({{corner(k), corner(k + 1)}, 0.22, 0, nitinol});
  }
}

void put_ruler(Tray& tray, const Vec3& start, double length_mm) {
  const Vec3 along = {0, 1, 0}, across = {1, 0, 0};
  const Path edge = {start, start + along * length_mm};
  tray.put({edge, 0.4, 0, lead});
  PhantomDevice& ruler = tray.list("ruler", edge, 0.4, 0);
  ruler.marker_distance_mm = 10;
  for (int k = 0; 5 * k <= length_mm; ++k) {
    const Vec3 at = start + along * (5.0 * k);
    tray.put({{at, at + across * (k % 2 == 0 ? 4.0 : 2.0)}, 0.5, 0, lead});
  }
  for (int k = 0; 10 * k <= length_mm; ++k) ruler.markers_px.push_back(tray.seen(start + along * (10.0 * k)));
}

}  // namespace

void draw(const DevicePart& part, const ConeBeam& beam, int margin, Image<float>& attenuation) {
  constexpr int rays = 4;
  std::vector<std::array<double, 2>> line;
  for (const Vec3& p : part.path) {
    const auto at = beam.project(p);
    line.push_back({at[0] + margin, at[1] + margin});
  }
  const double magnified =
      beam.source_to_detector_mm / (beam.source_to_isocentre_mm - beam.depth_mm(part.path[part.path.size() / 2])) / beam.pitch_mm;
  const double outer = part.outer_mm / 2 * magnified, inner = part.inner_mm / 2 * magnified;
  // Pixels near the line, each with the stretch of the line that comes near it.
  std::map<std::pair<int, int>, std::pair<std::size_t, std::size_t>> near;
  const double reach = outer + 1;
  for (std::size_t k = 0; k + 1 < line.size(); ++k) {
    const auto &a = line[k], &b = line[k + 1];
    const auto range = [&](std::size_t axis, int size) {
      const double low = std::min(a[axis], b[axis]) - reach, high = std::max(a[axis], b[axis]) + reach;
      return std::pair{static_cast<int>(std::clamp(std::floor(low), 0.0, static_cast<double>(size))),
                       static_cast<int>(std::clamp(std::ceil(high) + 1, 0.0, static_cast<double>(size)))};
    };
    const auto [y0, y1] = range(0, attenuation.height());
    const auto [x0, x1] = range(1, attenuation.width());
    for (int y = y0; y < y1; ++y)
      for (int x = x0; x < x1; ++x) {
        const auto [place, is_new] = near.try_emplace({y, x}, k, k);
        place->second.second = k;
      }
  }
  for (const auto& [pixel, stretch] : near) {
    double passed = 0;
    for (int j = 0; j < rays; ++j)
      for (int i = 0; i < rays; ++i) {
        const double y = pixel.first + (j + 0.5) / rays - 0.5, x = pixel.second + (i + 0.5) / rays - 0.5;
        double least = std::numeric_limits<double>::infinity(), slant = 1;
        bool beyond = true;
        for (std::size_t k = stretch.first; k <= stretch.second; ++k) {
          const double dy = line[k + 1][0] - line[k][0], dx = line[k + 1][1] - line[k][1], length2 = dy * dy + dx * dx;
          if (length2 < 1e-12) continue;
          const double f = ((y - line[k][0]) * dy + (x - line[k][1]) * dx) / length2, g = std::clamp(f, 0.0, 1.0);
          const double d2 = (y - line[k][0] - g * dy) * (y - line[k][0] - g * dy) + (x - line[k][1] - g * dx) * (x - line[k][1] - g * dx);
          if (d2 >= least) continue;
          least = d2;
          beyond = (k == 0 && f < 0) || (k + 2 == line.size() && f > 1);
          // A wire that runs along the ray is met over a longer way.
          const double seen = std::sqrt(length2) / magnified, whole = norm(part.path[k + 1] - part.path[k]);
          slant = std::min(4.0, whole / std::max(1e-6, seen));
        }
        const auto half_chord = [&](double radius) { return std::sqrt(std::max(0.0, radius * radius - least)); };
        // Flat ends: what lies beyond the path's end is not the device.
        const double chord = !beyond ? 2 * (half_chord(outer) - half_chord(inner)) / magnified * slant : 0;
        passed += std::exp(-part.per_mm * chord);
      }
    if (passed < rays * rays) attenuation(pixel.first, pixel.second) -= static_cast<float>(std::log(passed / (rays * rays)));
  }
}

void put_stent_graft(Scene& scene, const ConeBeam& beam, const std::vector<Vec3>& axis, double from_mm, double to_mm, double diameter_mm) {
  Tray tray(scene, beam);
  put_struts(tray, axis, std::max(2.0, from_mm), to_mm, diameter_mm);
  PhantomDevice& graft = tray.list("stent-graft", part_of(axis, std::max(0.0, from_mm), to_mm), diameter_mm, diameter_mm);
  graft.length_mm = to_mm - from_mm;
  const Vec3 end = point_at(axis, to_mm), along = unit(end - point_at(axis, to_mm - 2)), e1 = unit(cross(along, {0, 0, -1}));
  for (const double side : {-0.5 * diameter_mm, 0.5 * diameter_mm}) {
    const Vec3 at = end + e1 * side;
    tray.put({{at - along * 1.2, at}, 0.8, 0, platinum});
  }
  graft.markers_px.push_back(beam.project(end - along * 0.6));
}

Scene make_devices(const ConeBeam& beam, int rows, int columns, std::uint64_t seed) {
  Scene scene = make_foot(beam, rows, columns, seed);
  const VesselTree tree = grow(scene);
  Path main;
  for (const std::string prefix : {"posterior tibial vein (arterialised) ", "lateral plantar vein "})
    for (const Edge& edge : tree.edges)
      if (edge.name.starts_with(prefix)) main.insert(main.end(), edge.curve.begin() + (main.empty() ? 0 : 1), edge.curve.end());
  // Where the vein comes into view.
  double enters = 0;
  while (beam.project(point_at(main, enters))[0] < 0) enters += 0.5;
  Tray tray(scene, beam);
  // Its upper part lies outside the field.
  const double lower_end = enters + 27;
  put_stent_graft(scene, beam, main, lower_end - 100, lower_end, 5);
  {
    Path wire = part_of(main, 0, length(main) - 12);
    tray.put({wire, 0.46, 0, steel});  // 0.018 inch
    tray.list("guide wire", wire, 0.46, 0);
    // A balloon of 3 x 40 mm on it, deflated: what is seen is its markers, and barely its shaft.
    constexpr double balloon_mm = 40;
    const double tip = enters + 78, proximal = tip - balloon_mm;
    const Path shaft = part_of(main, 0, tip + 4);
    tray.put({shaft, 1.1, 0.5, polymer});
    PhantomDevice& balloon = tray.list("balloon", part_of(main, proximal, tip), 1.1, 0.5);
    balloon.length_mm = balloon.marker_distance_mm = balloon_mm;
    tray.marker(balloon, main, proximal, 1.0);
    tray.marker(balloon, main, tip, 1.0);
  }
  {
    const Path catheter = through({{-15.5, -76, 2}, {-15, -62, 2}, {-15, -52, 1}, {-14.7, -44, 0}, {-14.6, -37, 0}});
    tray.put({catheter, 1.67, 1.1, loaded_polymer});
    tray.list("catheter 5F", catheter, 1.67, 1.1);
  }
  {
    // "5F" is what goes through it.
    const Path sheath = through({{-56, -62, 6}, {-44, -56, 5}, {-35, -50, 4}, {-27, -42, 2}});
    tray.put({sheath, 2.25, 1.75, loaded_polymer});
    tray.list("introducer sheath 5F", sheath, 2.25, 1.75);
  }
  put_ruler(tray, {-52, 14, 0}, 40);
  scene.shutter = 0.035;
  return scene;
}

}  // namespace cinelumen::phantom
