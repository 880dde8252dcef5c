#include "engine/phantom/foot_sites.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace cinelumen::phantom {

const std::vector<Site>& spasm_sites() {
  static const std::vector<Site> sites = {{main_vein, 3, 3},
                                          {main_vein, 4, 5},
                                          {"lateral plantar vein", 1, 1},
                                          {"lateral plantar vein", 2, 2},
                                          {"lateral plantar vein", 3, 3},
                                          {"lateral plantar vein", 1, 2},
                                          {"lateral plantar vein", 2, 3},
                                          {"medial plantar vein", 1, 1},
                                          {"medial plantar vein", 2, 2},
                                          {"medial plantar vein", 1, 2},
                                          {"deep plantar arch", 1, 2},
                                          {"deep plantar arch", 1, 4}};
  return sites;
}

Stretch stretch_of(const Site& site, const VesselTree& tree) {
  Stretch stretch;
  for (int number = site.first; number <= site.last; ++number)
    for (const Edge& edge : tree.edges)
      if (edge.name == std::string(site.vessel) + " " + std::to_string(number)) stretch.edges.push_back(&edge);
  stretch.from_mm = stretch.edges.front()->start_mm;
  stretch.to_mm = stretch.edges.back()->start_mm + stretch.edges.back()->plan_length_mm;
  return stretch;
}

double between(RandomStream& random, double low, double high) { return low + (high - low) * random.uniform(); }

int whole_between(RandomStream& random, int low, int high) {
  return low + std::min(high - low, static_cast<int>(random.uniform() * (high - low + 1)));
}

std::vector<Site> shuffled(std::vector<Site> sites, RandomStream& random) {
  for (std::size_t i = sites.size(); i-- > 1;)
    std::swap(sites[i], sites[static_cast<std::size_t>(whole_between(random, 0, static_cast<int>(i)))]);
  return sites;
}

LesionPlan draw_spasm(RandomStream& random, const Stretch& stretch, double narrowing) {
  LesionPlan shape;
  shape.kind = "smooth";
  shape.narrowing = narrowing;
  shape.shoulder = narrowing > 0.9 ? between(random, 0.3, 0.5) : between(random, 0.35, 0.7);
  shape.length_mm = std::min(stretch.length_mm(), 64.0) * between(random, 0.7, 1);
  shape.centre_mm = between(random, stretch.from_mm + 0.5 * shape.length_mm, stretch.to_mm - 0.5 * shape.length_mm);
  return shape;
}

bool reaches(const LesionPlan& shape, const Edge& edge) {
  constexpr double touch_mm = 1e-6;
  return shape.centre_mm + 0.5 * shape.length_mm > edge.start_mm + touch_mm &&
         shape.centre_mm - 0.5 * shape.length_mm < edge.start_mm + edge.plan_length_mm - touch_mm;
}

double extent_above(const LesionPlan& shape, double narrowing, double percent) {
  const double height = percent / 100 / narrowing;
  if (height >= 1) return 0;
  const double slope = std::acos(2 * height - 1) / std::numbers::pi;
  return shape.length_mm * (1 - shape.shoulder + shape.shoulder * slope);
}

}  // namespace cinelumen::phantom
