#include <cmath>
#include <iterator>
#include <numbers>
#include <string>
#include <utility>

#include "engine/phantom/random.h"
#include "engine/phantom/scene.h"

namespace cinelumen::phantom {

Scene make_partial_fill(const ConeBeam& beam, int rows, int columns, std::uint64_t seed) {
  Scene scene;
  scene.endless_bolus = true;
  scene.area_per_share_mm2 = std::numbers::pi;
  const double scale = beam.mm_per_px() * std::min(rows, columns) / 131.4;
  RandomStream random(seed, Purpose::layout, 0, 0);
  const auto between = [&](double low, double high) { return low + (high - low) * random.uniform(); };
  constexpr int across_count = 5, down = 9;
  constexpr Mechanism kinds[] = {Mechanism::full,      Mechanism::core_front, Mechanism::core_front,
                                 Mechanism::layering,  Mechanism::layering,   Mechanism::dilution,
                                 Mechanism::streaming, Mechanism::streaming,  Mechanism::incomplete_arrival};
  // Every mechanism equally often in each run, in an order of the seed's.
  std::vector<Mechanism> mechanisms;
  for (int i = 0; i < across_count * down; ++i) mechanisms.push_back(kinds[i % static_cast<int>(std::size(kinds))]);
  for (std::size_t i = mechanisms.size(); i-- > 1;)
    std::swap(mechanisms[i], mechanisms[static_cast<std::size_t>(random.uniform() * static_cast<double>(i + 1))]);
  for (int i = 0; i < across_count * down; ++i) {
    // Small vessels are the many.
    const double diameter = 0.8 * std::pow(5, between(0, 1)), length = 22 - diameter;
    const double x = (i % across_count - 2) * 25.2, y = (i / across_count - 4) * 13.6, angle = between(-14, 14) * std::numbers::pi / 180;
    const bool backwards = random.uniform() < 0.5;
    VesselPlan vessel{"vessel " + std::to_string(i + 1), "tube", {}};
    const double bow = between(-0.8, 0.8), depth = between(-10, 10), c = std::cos(angle) * (backwards ? -1 : 1), s = std::sin(angle);
    for (int k = 0; k <= 6; ++k) {
      const double f = k / 3.0 - 1, along = f * length / 2, off = bow * (1 - f * f);
      vessel.points.push_back({{scale * (x + c * along - s * off), scale * (y + s * along + std::abs(c) * off), depth},
                               diameter / 2,
                               k == 0 ? vessel.name + " start" : (k == 6 ? vessel.name + " end" : "")});
    }
    FillingPlan& filling = vessel.filling;
    filling.mechanism = mechanisms[static_cast<std::size_t>(i)];
    // Relative to the inlet's velocity of the options, 90 mm/s.
    double speed = between(0.5, 1);
    switch (filling.mechanism) {
      case Mechanism::core_front:
        speed = between(0.05, 0.2);
        break;
      case Mechanism::incomplete_arrival:
        speed = between(0.025, 0.06);
        break;
      case Mechanism::layering:
        filling.share = between(0.3, 0.85);
        filling.start_mm = scale * between(0, 8);
        filling.length_mm = scale * between(4, 12);
        filling.angle_rad = between(-0.5, 0.5) * std::numbers::pi * (random.uniform() < 0.5 ? 0 : 1);
        speed = between(0.2, 0.5);
        break;
      case Mechanism::dilution:
      case Mechanism::streaming:
        filling.share = between(0.35, 0.85);
        filling.start_mm = scale * between(3, 12);
        filling.length_mm = scale * (filling.mechanism == Mechanism::dilution ? between(0.5, 2) : between(5, 30));
        filling.angle_rad = between(-0.5, 0.5) * std::numbers::pi;
        break;
      case Mechanism::full:
        break;
    }
    flow_through(scene, vessel, speed);
    scene.vessels.push_back(std::move(vessel));
  }
  scene.attenuation = plain_background(beam, rows, columns, scene.margin, seed);
  return scene;
}

}  // namespace cinelumen::phantom
