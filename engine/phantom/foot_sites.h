#pragma once
/// Where the foot's deep veins may narrow, and by what.

#include <string>
#include <utility>
#include <vector>

#include "engine/phantom/random.h"
#include "engine/phantom/scene.h"

namespace cinelumen::phantom {

/// Edges of a vessel that a narrowing may take, first and last by number.
struct Site {
  const char* vessel;
  int first, last;
};

/// The arterialised vein's name.
constexpr const char* main_vein = "posterior tibial vein (arterialised)";

/// Deep veins of 1 to 4 mm, by themselves and across branch points.
const std::vector<Site>& spasm_sites();

/// The edges of a site, and where they lie along the plan of their vessel.
struct Stretch {
  std::vector<const Edge*> edges;
  double from_mm = 0, to_mm = 0;
  double length_mm() const { return to_mm - from_mm; }
};

/// The stretch of a tree, which must outlive it.
Stretch stretch_of(const Site& site, const VesselTree& tree);

/// Uniform between two numbers; both ends of the whole ones may come.
double between(RandomStream& random, double low, double high);
int whole_between(RandomStream& random, int low, int high);

/// In an order of the stream's.
std::vector<Site> shuffled(std::vector<Site> sites, RandomStream& random);

/// A smooth, concentric, tapered narrowing somewhere in a stretch, at most 64 mm long with its shoulders.
LesionPlan draw_spasm(RandomStream& random, const Stretch& stretch, double narrowing);

/// Length along the plan where a lesion takes away more than `percent` of the diameter.
double extent_above(const LesionPlan& shape, double narrowing, double percent);

/// Whether a lesion of its vessel narrows an edge somewhere.
bool reaches(const LesionPlan& shape, const Edge& edge);

/// Calls use(point of the curve, share of the lesion's full height) where a lesion of its vessel narrows an edge.
template <class Use>
void for_each_point(const Edge& edge, const LesionPlan& shape, const Use& use) {
  const double step = edge.plan_length_mm / static_cast<double>(edge.curve.size() - 1);
  for (std::size_t k = 0; k < edge.curve.size(); ++k) {
    const double height = height_of(shape, edge.start_mm + static_cast<double>(k) * step);
    if (height > 0) use(k, height);
  }
}

}  // namespace cinelumen::phantom
