#pragma once
/// What stands in the beam besides the patient: wires, catheters, struts, markers.

#include "engine/phantom/scene.h"

namespace cinelumen::phantom {

/// A tube, or a wire where there is nothing inside, drawn along a polyline.
struct DevicePart {
  std::vector<Vec3> path;
  double outer_mm = 1, inner_mm = 0;  ///< diameters; `inner_mm` is empty of the part's own material
  double per_mm = 1;                  ///< attenuation of its material above what it displaces
};

/// Adds a part to a background (see Scene::attenuation): the mean transmission of 4 x 4 rays in each pixel. Where a part crosses itself it
/// counts once.
void draw(const DevicePart& part, const ConeBeam& beam, int margin, Image<float>& attenuation);

/// A stent-graft about `axis` from `from_mm` (or its beginning) to `to_mm` along it: rings of struts, two markers at the lower end. Added
/// to the scene's background and devices.
void put_stent_graft(Scene& scene, const ConeBeam& beam, const std::vector<Vec3>& axis, double from_mm, double to_mm, double diameter_mm);

}  // namespace cinelumen::phantom
