#include <cmath>
#include <numbers>
#include <string>

#include "engine/phantom/random.h"
#include "engine/phantom/scene.h"

namespace cinelumen::phantom {

Scene make_overlap(const ConeBeam& beam, int rows, int columns, std::uint64_t seed) {
  Scene scene;
  scene.endless_bolus = true;
  const double scale = beam.mm_per_px() * std::min(rows, columns) / 131.4;
  RandomStream random(seed, Purpose::layout, 0, 0);
  const auto between = [&](double low, double high) { return low + (high - low) * random.uniform(); };
  const auto straight = [&](const std::string& name, double x, double y, double degrees, double length, double aside, double depth,
                            double diameter) {
    VesselPlan vessel{name, "tube", {}};
    const double angle = degrees * std::numbers::pi / 180, c = std::cos(angle), s = std::sin(angle), bow = between(-0.6, 0.6);
    // The beam diverges: what lies nearer to the source is drawn larger, so it is laid out smaller.
    const double depth_scale = (beam.source_to_isocentre_mm - depth) / beam.source_to_isocentre_mm;
    for (int i = 0; i <= 6; ++i) {
      const double f = i / 3.0 - 1, along = f * length / 2, off = aside / scale + bow * (1 - f * f);
      vessel.points.push_back(
          {Vec3{scale * (x + c * along - s * off), scale * (y + s * along + c * off), 0} * depth_scale + Vec3{0, 0, depth}, diameter / 2,
           i == 0 ? name + " start" : (i == 6 ? name + " end" : "")});
    }
    flow_through(scene, vessel);
    scene.vessels.push_back(std::move(vessel));
  };
  struct Crossing {
    double first_mm, second_mm, angle_deg;
  };
  constexpr Crossing crossings[] = {{2, 2, 90}, {3, 1.5, 65}, {1.2, 1.2, 45}, {2.5, 2.5, 30}, {1.5, 2.5, 20}, {2, 1.2, 12}};
  int number = 0;
  for (const Crossing& crossing : crossings) {
    const double x = (number % 3 - 1) * 41, y = (number / 3 - 1) * 40, turn = between(0, 180);
    const std::string pair = "crossing " + std::to_string(++number);
    straight(pair + " front", x, y, turn, 33, 0, between(6, 20), crossing.first_mm);
    straight(pair + " back", x, y, turn + crossing.angle_deg, 33, 0, between(-20, -6), crossing.second_mm);
  }
  // Along each other: close by, touching, and half covered, as paired veins are.
  struct Pair {
    double diameter_mm, gap_mm;
  };
  constexpr Pair pairs[] = {{1.6, 1.2}, {2.2, 0.3}, {2, -0.9}};
  int row = 0;
  for (const Pair& pair : pairs) {
    const std::string name = "parallel " + std::to_string(row + 1);
    const double y = 30 + 11.5 * row, tilt = between(-6, 6);
    straight(name + " front", -33, y, tilt, 50, 0, between(4, 14), pair.diameter_mm);
    straight(name + " back", -33, y, tilt, 50, pair.diameter_mm + pair.gap_mm, between(-14, -4), pair.diameter_mm);
    ++row;
  }
  // The same picture with a connection.
  const auto at = [&](double x, double y) { return Vec3{scale * x, scale * y, 0}; };
  scene.vessels.push_back(
      {"bifurcation trunk", "main", {{at(6, 42), 1.4, "trunk"}, {at(20, 41), 1.35, ""}, {at(30, 42), 1.3, "bifurcation"}}});
  scene.vessels.push_back(
      {"bifurcation branch 1", "main", {{at(30, 42), 1.1, "bifurcation"}, {at(42, 36), 1.05, ""}, {at(58, 32), 1, "branch 1"}}});
  scene.vessels.push_back(
      {"bifurcation branch 2", "main", {{at(30, 42), 0.9, "bifurcation"}, {at(43, 47), 0.85, ""}, {at(58, 52), 0.8, "branch 2"}}});
  scene.terminals.push_back({"trunk", 1.4 * 1.4, 0});
  scene.terminals.push_back({"branch 1", 0, 0.06});
  scene.terminals.push_back({"branch 2", 0, 0.03});
  scene.attenuation = plain_background(beam, rows, columns, scene.margin, seed);
  return scene;
}

}  // namespace cinelumen::phantom
