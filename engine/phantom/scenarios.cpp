#include "engine/phantom/scene.h"

namespace cinelumen::phantom {

const std::vector<Scenario>& scenarios() {
  static const std::vector<Scenario> all = {
      {"tubes", "tubes of known diameter", make_tubes, false, false, 24, 2, 0, 0, 0.12, false},
      {"stenoses", "tubes with one narrowing each: smooth, concentric, eccentric, web; an occlusion", make_stenoses, false, false, 24, 1, 0,
       0, 0.12, false},
      {"overlap", "vessels that cross and run along each other without meeting", make_overlap, false, false, 24, 1, 0, 0, 0.12, false},
      {"partial-fill", "vessels of constant calibre that contrast fills only in part", make_partial_fill, false, false, 24, 1, 0, 0, 0.12,
       false},
      {"foot", "the veins of a foot filling; the patient starts once", make_foot, true, true, 48, 1.5, 0.02, 0, 0.12, false},
      {"motion-rigid", "the foot, shifted and turned by several px from frame to frame", make_foot, true, false, 48, 4, 0.25, 0, 0.45,
       true},
      {"motion-nonrigid", "the foot, its bones turning about their joints and soft tissue giving", make_foot, true, true, 48, 1.5, 0.02,
       3.5, 0.12, false},
      {"steal", "the foot, most of its flow leaving through perforators before the arch", make_steal, true, true, 48, 1.5, 0.02, 0, 0.12,
       false},
      {"spasm", "the foot; several deep veins narrow while the run goes on", make_spasm, true, true, 0, 1.5, 0.02, 0, 0.12, false, 18500},
      {"injury", "the foot, one deep vein leaking contrast into the tissue and one split by a flap into two lumina", make_injury, true,
       true, 0, 1.5, 0.02, 0, 0.12, false, 15000},
      {"devices", "the foot with wire, balloon markers, stent-graft, catheter, sheath, ruler and shutter", make_devices, true, true, 48,
       1.5, 0.02, 0, 0.12, false},
  };
  return all;
}

}  // namespace cinelumen::phantom

namespace cinelumen {

const std::vector<std::string>& phantom_scenarios() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> result;
    for (const auto& scenario : phantom::scenarios()) result.emplace_back(scenario.name);
    return result;
  }();
  return names;
}

std::string phantom_summary(const std::string& scenario) {
  for (const auto& known : phantom::scenarios())
    if (scenario == known.name) return known.summary;
  return "";
}

}  // namespace cinelumen
