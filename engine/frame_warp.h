#pragma once
/// A frame's bending against the mask, as the host keeps it.

#include "kernels/displacement_field.h"
#include "kernels/rigid_motion.h"

namespace cinelumen {

/// How the mask was bent onto a frame before it was moved, host memory: see WarpRegistration::enqueue. Empty where it was not.
struct FrameWarp {
  Image<float> to_mask, to_frame;
};

/// Where a point of the mask lies in the frame.
inline PixelPosition place_in_frame(const RigidMotion& motion, const FrameWarp& warp, PixelPosition point, int height, int width) {
  if (!warp.to_frame.empty()) {
    const Displacement e = displacement_at(warp.to_frame.view(), static_cast<float>(point.y), static_cast<float>(point.x));
    point = {point.y + e.y, point.x + e.x};
  }
  return move(motion, point, height, width);
}

}  // namespace cinelumen
