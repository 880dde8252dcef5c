#pragma once
/// Non-rigid registration: what a rigid motion of the mask leaves, as a smooth displacement.

#include <cstdint>
#include <memory>

#include "displacement_field.h"
#include "image.h"
#include "log_attenuation.h"
#include "rigid_motion.h"
#include "stream.h"

namespace cinelumen {

/// What WarpRegistration found.
struct WarpEstimate {
  float largest_px = 0;         ///< of the displacement at the nodes over the image
  float rms_px = 0;             ///< of the same
  float residual_px = 0;        ///< rms motion that is left, estimated from the last residual, freed of what noise alone would show
  float least_determinant = 1;  ///< of the mapping's Jacobian at the nodes
  std::int32_t folded = 0;      ///< 1: least_determinant fell below 0.3; the field is refused, and zero
  std::int32_t usable = 0;      ///< 1: there was something to compare
};

/// Estimates how parts of the background moved on their own, bones against each other and soft tissue between them (methods.md 2). The
/// mask's place for a frame's pixel q is p(q) = R^-1 q + d(q): R the rigid motion, d a cubic B-spline on a lattice that is refined from 64
/// to 16 px. Each round is one Gauss-Newton step of maximum a posteriori: residuals r = frame - mask(p) - b, b a still smoother brightness,
/// with one-sided robust weights (1 - (r / cut)^2)^2, cut 2.5 s above and 4.685 s below; normal equations summed over 16-px cells; second
/// differences of d and b normal with known SDs; conjugate gradients. The scale s is each cell's own, from the residuals below zero alone:
/// a displaced edge shows both signs, contrast only one. Cells of which more than 40 % lies above the cut say nothing.
///
/// The mask's planes are shared; the working memory is the object's own, so one object serves one frame at a time.
class WarpRegistration {
 public:
  /// As MaskRegistration. `mask_attenuation` and `valid`: memory of the stream's device, same height and width, 64 px at least along both
  /// axes, not kept. Synchronises the stream; throws std::invalid_argument.
  WarpRegistration(const Stream& stream, ImageView<const float> mask_attenuation, ImageView<const std::uint8_t> valid);
  /// Another object for the same mask, for frames on another stream of the same device.
  WarpRegistration another(const Stream& stream) const;
  WarpRegistration(WarpRegistration&&) noexcept;
  WarpRegistration& operator=(WarpRegistration&&) noexcept;
  ~WarpRegistration();

  /// In the stream's order: `to_mask`, over the frame's pixels, is d; `to_frame`, over the mask's, is e with p + e(p) = R^-1 q, so that the
  /// mask's point p lies at R(p + e(p)) in the frame. placement: where the frame lies rigidly, or is taken to lie. Fields as
  /// make_displacement_field() gives them, one element of the others, all memory of the stream's device. Neither waits nor allocates.
  void enqueue(const Stream& stream, const StoredFrame& frame, ArrayView<const FramePlacement> placement, ImageView<float> to_mask,
               ImageView<float> to_frame, ArrayView<WarpEstimate> estimate);

 private:
  struct Mask;
  struct Workspace;
  WarpRegistration(std::shared_ptr<const Mask> mask, std::unique_ptr<Workspace> workspace);
  std::shared_ptr<const Mask> mask_;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace cinelumen
