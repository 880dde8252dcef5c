#include <algorithm>

#include "engine/phantom/foot_sites.h"

namespace cinelumen::phantom {

Scene make_spasm(const ConeBeam& beam, int rows, int columns, std::uint64_t seed) {
  Scene scene = make_foot(beam, rows, columns, seed);
  scene.endless_bolus = true;
  const VesselTree tree = grow(scene);
  RandomStream random(seed, Purpose::layout, 0, 4);
  const int wanted = whole_between(random, 3, 5);
  std::vector<const Edge*> taken;
  for (const Site& site : shuffled(spasm_sites(), random)) {
    const Stretch stretch = stretch_of(site, tree);
    const auto is_taken = [&](const Edge* edge) { return std::find(taken.begin(), taken.end(), edge) != taken.end(); };
    if (static_cast<int>(taken.size() + stretch.edges.size()) > wanted) continue;
    if (std::any_of(stretch.edges.begin(), stretch.edges.end(), is_taken)) continue;
    LesionPlan lesion = draw_spasm(random, stretch, between(random, 0.4, 0.8));
    // One after the other, but all at about the same time.
    lesion.develops = true;
    lesion.delay_ms = taken.empty() ? 0 : between(random, 0, 500);
    lesion.rise_ms = between(random, 2000, 3500);
    for (VesselPlan& vessel : scene.vessels)
      if (vessel.name == site.vessel) vessel.lesions.push_back(lesion);
    taken.insert(taken.end(), stretch.edges.begin(), stretch.edges.end());
  }
  return scene;
}

}  // namespace cinelumen::phantom
