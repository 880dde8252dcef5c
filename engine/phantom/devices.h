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

}  // namespace cinelumen::phantom
