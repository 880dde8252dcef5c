#include <numbers>

#include "engine/phantom/random.h"
#include "engine/phantom/scene.h"

namespace cinelumen::phantom {
namespace {

/// From (x0, y) to (x1, y) with a bow of `bow` in the middle; all in mm at the isocentre.
VesselPlan across(const std::string& name, double x0, double x1, double y, double bow, double depth, double diameter_mm) {
  VesselPlan vessel{name, "tube", {}};
  for (int i = 0; i <= 8; ++i) {
    const double f = i / 8.0;
    vessel.points.push_back({{x0 + f * (x1 - x0), y + bow * (1 - (2 * f - 1) * (2 * f - 1)), depth},
                             diameter_mm / 2,
                             i == 0 ? name + " start" : (i == 8 ? name + " end" : "")});
  }
  return vessel;
}

}  // namespace

Scene make_stenoses(const ConeBeam& beam, int rows, int columns, std::uint64_t seed) {
  Scene scene;
  scene.endless_bolus = true;
  // Laid out for the default field of view, 131 mm, and scaled with others; lesions and calibres keep their size.
  const double scale = beam.mm_per_px() * std::min(rows, columns) / 131.4;
  RandomStream random(seed, Purpose::layout, 0, 0);
  const auto between = [&](double low, double high) { return low + (high - low) * random.uniform(); };
  struct Tube {
    double diameter_mm, percent;
    const char* kind;
  };
  // Long ones over the whole width, each with a spasm-like taper.
  constexpr Tube spasms[] = {{4, 50, "smooth"}, {3, 70, "smooth"}, {2, 30, "smooth"}, {1.5, 50, "smooth"}};
  constexpr Tube others[] = {{4, 30, "eccentric"},    {4, 70, "concentric"},   {3, 30, "concentric"}, {3, 50, "eccentric"},
                             {2.5, 50, "web"},        {2.5, 70, "smooth"},     {2, 50, "concentric"}, {2, 70, "eccentric"},
                             {3.5, 30, "web"},        {1.5, 70, "concentric"}, {1.5, 30, "smooth"},   {1, 50, "concentric"},
                             {1.25, 50, "eccentric"}, {1, 30, "smooth"}};
  int number = 0;
  const auto add = [&](const Tube& tube, double x0, double x1, double y, double longest) {
    VesselPlan vessel = across("tube " + std::to_string(++number), scale * x0, scale * x1, scale * y, between(-1.6, 1.6), between(-12, 12),
                               tube.diameter_mm);
    const std::string kind = tube.kind;
    LesionPlan lesion;
    lesion.kind = kind;
    lesion.narrowing = tube.percent / 100;
    lesion.length_mm = kind == "smooth" ? between(0.5, 1) * longest : (kind == "web" ? between(1.5, 2.8) : between(4, 8));
    lesion.shoulder = kind == "smooth" ? between(0.4, 0.8) : (kind == "eccentric" ? 0.7 : 1);
    lesion.eccentric = kind == "eccentric";
    lesion.wider_axis = lesion.eccentric ? 0.35 : 1;
    lesion.angle_rad = lesion.eccentric ? between(-0.5, 0.5) * std::numbers::pi : 0;
    const double length = scale * (x1 - x0), margin = 0.5 * lesion.length_mm + 5;
    lesion.centre_mm = margin < length / 2 ? between(margin, length - margin) : length / 2;
    vessel.lesions.push_back(std::move(lesion));
    flow_through(scene, vessel);
    scene.vessels.push_back(std::move(vessel));
  };
  double y = -57;
  for (const Tube& tube : spasms) {
    add(tube, -58, 58, y, 60);
    y += 9.4;
  }
  int placed = 0;
  for (const Tube& tube : others) {
    const bool left = placed % 2 == 0;
    add(tube, left ? -59 : 3, left ? -3 : 59, y, 28);
    if (++placed % 2 == 0) y += 9.4;
  }
  // An occlusion: contrast goes round it, and fills the vessel beyond from its collateral.
  const auto at = [&](double x, double dy) { return Vec3{scale * x, scale * (y + dy), 0}; };
  scene.vessels.push_back({"vessel before the occlusion",
                           "main",
                           {{at(-58, 0), 1.25, "occlusion in"}, {at(-40, 0.4), 1.25, ""}, {at(-22, 0), 1.25, "collateral out"}}});
  scene.vessels.push_back({"stump", "main", {{at(-22, 0), 1.25, "collateral out"}, {at(-18, 0), 1.2, ""}, {at(-15, 0), 0.8, "occlusion"}}});
  scene.vessels.push_back({"collateral",
                           "collateral",
                           {{at(-22, 0), 0.55, "collateral out"},
                            {at(-14, 4.2), 0.5, ""},
                            {at(0, 5.2), 0.5, ""},
                            {at(13, 4.2), 0.5, ""},
                            {at(20, 0), 0.55, "collateral in"}}});
  scene.vessels.push_back({"vessel beyond the occlusion",
                           "main",
                           {{at(20, 0), 1.2, "collateral in"}, {at(40, 0.4), 1.2, ""}, {at(58, 0), 1.2, "occlusion out"}}});
  scene.terminals.push_back({"occlusion in", 0.35, 0});
  scene.terminals.push_back({"occlusion out", 0, 1});
  scene.occlusions.push_back({"stump", "vessel beyond the occlusion"});
  scene.attenuation = plain_background(beam, rows, columns, scene.margin, seed);
  return scene;
}

}  // namespace cinelumen::phantom
