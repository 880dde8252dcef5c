#include <numbers>

#include "engine/phantom/scene.h"
#include "kernels/stream.h"

namespace cinelumen::phantom {

Image<float> plain_background(const ConeBeam& beam, int rows, int columns, int margin, std::uint64_t seed) {
  Image<float> attenuation(rows + 2 * margin, columns + 2 * margin);
  parallel_for(attenuation.height(), [&](int j) {
    for (int i = 0; i < attenuation.width(); ++i) {
      const auto [y, x] = beam.in_plane(j - margin, i - margin);
      const double slow = 1.25 + 0.16 * std::cos(x / 23 + 0.4) * std::cos(y / 31 - 0.7) - 2.2e-5 * (x * x + y * y);
      attenuation(j, i) = static_cast<float>(slow + 0.035 * fractal_noise(y, x, 20, 0.9, seed));
    }
  });
  return attenuation;
}

Scene make_tubes(const ConeBeam& beam, int rows, int columns, std::uint64_t seed) {
  struct Tube {
    double diameter_mm, x, y, angle_deg, length, bow, depth_mm;  // x, y, length, bow in units of the smaller side of the field of view
  };
  // Laid out so that no two come within 4 mm of each other in the default field of view.
  constexpr Tube tubes[] = {
      {4.0, -0.235, -0.420, 0, 0.42, 0.010, 0},  {0.6, -0.235, -0.330, 6, 0.42, 0.000, 0},   {2.0, -0.235, -0.235, -7, 0.42, -0.012, 12},
      {5.0, 0.070, -0.260, 90, 0.38, 0.000, 0},  {0.8, 0.165, -0.260, 82, 0.38, 0.008, -15}, {2.5, 0.260, -0.260, 90, 0.38, 0.012, 0},
      {1.0, 0.355, -0.260, 97, 0.38, 0.000, 0},  {3.0, -0.300, 0.180, 45, 0.44, 0.015, -10}, {1.25, -0.150, 0.160, 52, 0.46, 0.000, 0},
      {1.5, 0.165, 0.190, -28, 0.30, 0.000, 20}, {0.7, 0.170, 0.310, -33, 0.36, 0.006, 0},   {3.5, 0.410, 0.250, 105, 0.36, -0.010, 0},
  };
  Scene scene;
  scene.endless_bolus = true;
  const double side = beam.mm_per_px() * std::min(rows, columns);
  int number = 0;
  for (const Tube& tube : tubes) {
    const double angle = tube.angle_deg * std::numbers::pi / 180, c = std::cos(angle), s = std::sin(angle);
    VesselPlan vessel;
    vessel.name = "tube " + std::to_string(++number);
    vessel.role = "tube";
    for (int i = 0; i <= 8; ++i) {
      const double along = (i / 8.0 - 0.5) * tube.length, across = tube.bow * (1 - std::pow(2 * along / tube.length, 2));
      vessel.points.push_back({{side * (tube.x + c * along - s * across), side * (tube.y + s * along + c * across), tube.depth_mm},
                               tube.diameter_mm / 2,
                               i == 0 ? vessel.name + " start" : (i == 8 ? vessel.name + " end" : "")});
    }
    // Inflow in proportion to the lumen's area: the same velocity everywhere.
    scene.terminals.push_back({vessel.points.front().node, tube.diameter_mm * tube.diameter_mm, 0});
    scene.terminals.push_back({vessel.points.back().node, 0, 1});
    scene.vessels.push_back(std::move(vessel));
  }
  scene.attenuation = plain_background(beam, rows, columns, scene.margin, seed);
  return scene;
}

}  // namespace cinelumen::phantom
