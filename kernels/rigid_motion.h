#pragma once
/// How the background of a frame lies relative to the mask.

#include <cmath>

#include "image.h"

namespace cinelumen {

/// Moves the mask onto a frame: first turned by rotation_rad about the image centre ((height - 1) / 2, (width - 1) / 2), positive from the
/// x axis towards the y axis (clockwise as displayed), then shifted, positive down and to the right.
struct RigidMotion {
  float shift_y_px = 0, shift_x_px = 0, rotation_rad = 0;
};

/// How a frame lies and how bright it is against its mask. In memory of the stream's device where kernels read it, so that a frame's own
/// motion decides nothing on the host.
struct FramePlacement {
  RigidMotion motion;  ///< mask to frame
  float offset = 0;    ///< frame minus mask, off the vessels, log units
};

/// A position, (y, x) in pixels.
struct PixelPosition {
  double y = 0, x = 0;
};

/// Where a point of the mask lies in the frame. height and width are the image's.
inline PixelPosition move(const RigidMotion& motion, PixelPosition point, int height, int width) {
  const double cy = (height - 1) / 2.0, cx = (width - 1) / 2.0;
  const double c = std::cos(static_cast<double>(motion.rotation_rad)), s = std::sin(static_cast<double>(motion.rotation_rad));
  return {cy + s * (point.x - cx) + c * (point.y - cy) + motion.shift_y_px,
          cx + c * (point.x - cx) - s * (point.y - cy) + motion.shift_x_px};
}

/// The motion that carries the frame back onto the mask: move(inverse(m), move(m, p)) = p.
CINELUMEN_HOST_DEVICE inline RigidMotion inverse(const RigidMotion& motion) {
  const double c = std::cos(static_cast<double>(motion.rotation_rad)), s = std::sin(static_cast<double>(motion.rotation_rad));
  return {static_cast<float>(-(c * motion.shift_y_px - s * motion.shift_x_px)),
          static_cast<float>(-(s * motion.shift_y_px + c * motion.shift_x_px)), -motion.rotation_rad};
}

/// First `before`, then `after`: move(compose(after, before), p) = move(after, move(before, p)).
inline RigidMotion compose(const RigidMotion& after, const RigidMotion& before) {
  const double c = std::cos(static_cast<double>(after.rotation_rad)), s = std::sin(static_cast<double>(after.rotation_rad));
  return {static_cast<float>(after.shift_y_px + s * before.shift_x_px + c * before.shift_y_px),
          static_cast<float>(after.shift_x_px + c * before.shift_x_px - s * before.shift_y_px), after.rotation_rad + before.rotation_rad};
}

}  // namespace cinelumen
