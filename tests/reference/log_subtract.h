#pragma once
/// Naive twin of kernels/log_subtract.h.

#include <cstdint>

#include "kernels/rigid_motion.h"
#include "reference/bspline.h"

namespace cinelumen::reference {

/// The moved mask at an output pixel, and whether the mask reaches there. `margin`: distance in px to the decision, for tests to leave
/// pixels out that rounding may decide either way.
inline double moved_mask(ImageView<const double> coefficients, const RigidMotion& motion, int y, int x, bool& reaches, double& margin) {
  const int height = coefficients.height, width = coefficients.width;
  const double c = std::cos(static_cast<double>(motion.rotation_rad)), s = std::sin(static_cast<double>(motion.rotation_rad));
  const double dy = y - (height - 1) / 2.0 - motion.shift_y_px, dx = x - (width - 1) / 2.0 - motion.shift_x_px;
  const double qy = (height - 1) / 2.0 - s * dx + c * dy, qx = (width - 1) / 2.0 + c * dx + s * dy;
  const double inside = std::min(std::min(qy + 1, height - qy), std::min(qx + 1, width - qx));
  reaches = inside >= 0;
  margin = std::abs(inside);
  return reaches ? bspline_at(coefficients, qy, qx) : 0;
}

}  // namespace cinelumen::reference
