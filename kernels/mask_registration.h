#pragma once
/// Rigid sub-pixel registration of a contrast-free mask to a frame with contrast.

#include <cstdint>
#include <memory>
#include <optional>

#include "image.h"
#include "log_attenuation.h"
#include "rigid_motion.h"
#include "stream.h"

namespace cinelumen {

/// What MaskRegistration::estimate found.
struct RigidEstimate {
  RigidMotion motion;     ///< puts the mask on the frame
  float offset = 0;       ///< frame minus moved mask where nothing was added, log units
  float residual_sd = 0;  ///< robust SD of frame - moved mask - offset, both smoothed by the 5-tap binomial filter; log units
  /// From the residual and the mask's gradients, for white noise; one SD each.
  float standard_error_y_px = 0, standard_error_x_px = 0, standard_error_rotation_rad = 0;
  float inlier_fraction = 0;  ///< mean weight over the pixels compared: falls as contrast or misfit grows
  bool converged = false;     ///< false: no usable pixels, or the last step was still > 0.1 px; motion is then the best known
};

/// How far the background may have moved, and how the robust fit treats what is no background.
struct RegistrationOptions {
  bool rotation = true;       ///< false: translation only
  int search_radius_px = 64;  ///< of the exhaustive search where no start is given
};

/// Estimates how a mask moved, one-sided and robust (methods.md 2): Gauss-Newton on r = frame - moved mask - offset with weights
/// (1 - (r / cut)^2)^2, cut = 2.5 sigma where r > 0 (added attenuation is contrast, not error) and 4.685 sigma where r < 0, sigma the
/// median absolute deviation, the offset solved along with the motion. Grids of 8, 4 and 2 px, 4 + 5 + 4 iterations, on the two finer
/// ones in those blocks of the mask whose gradients hold 85 % (80 % on the middle one) of what all of them tell (the first two iterations:
/// half). On the last the frame is smoothed by the 5-tap binomial filter (SD 1 px), and the mask, smoothed alike, is interpolated at full
/// resolution by cubic B-splines with their exact gradients, so that neither noise nor aliasing pulls towards whole pixels. What varies
/// slowly (robust local means of r over 32-px cells, smoothed) is taken out on the way: exposure, shading, breathing lungs. A rotation that
/// moves the corners by less than 0.05 px, or is below 3 standard errors, is set to zero and the translation refitted.
///
/// The mask's pyramid is made once and shared; the working memory is the object's own, so one object serves one frame at a time.
class MaskRegistration {
 public:
  /// `mask_attenuation` and `valid` (1 where the image may be read): memory of the stream's device, same height and width, not kept.
  /// Pixels within 4 px of invalid ones or of the border are not used. Synchronises the stream.
  /// Throws std::invalid_argument where sizes differ or an image is empty.
  MaskRegistration(const Stream& stream, ImageView<const float> mask_attenuation, ImageView<const std::uint8_t> valid,
                   const RegistrationOptions& options = {});
  /// Another object for the same mask, for frames on another stream of the same device.
  MaskRegistration another(const Stream& stream) const;
  MaskRegistration(MaskRegistration&&) noexcept;
  MaskRegistration& operator=(MaskRegistration&&) noexcept;
  ~MaskRegistration();

  /// `frame_attenuation`: memory of the stream's device, size of the mask. `start`: a motion believed to be within a few px (the previous
  /// frame's); empty: exhaustive search over whole 8-px steps and their halves first. Returns when the estimate is known.
  /// Throws std::invalid_argument where the size differs from the mask's or the start is not finite.
  RigidEstimate estimate(const Stream& stream, ImageView<const float> frame_attenuation, std::optional<RigidMotion> start = {});
  /// The same for a frame as stored, whose attenuation is looked up on the way: bit for bit what log_attenuation's plane gives.
  RigidEstimate estimate(const Stream& stream, const StoredFrame& frame, std::optional<RigidMotion> start = {});

  /// The same without waiting, searched for from nowhere unless a start is given: in the stream's order the estimate is written, and where
  /// the frame is taken to lie (where the estimate has not converged: at rest). One element each, memory of the stream's device. Allocates
  /// nothing, and asks the device nothing: the call can be recorded.
  void enqueue(const Stream& stream, const StoredFrame& frame, ArrayView<RigidEstimate> estimate, ArrayView<FramePlacement> placement,
               std::optional<RigidMotion> start = {});

 private:
  struct Mask;
  struct Workspace;
  MaskRegistration(std::shared_ptr<const Mask> mask, std::unique_ptr<Workspace> workspace);
  void check(int height, int width, const std::optional<RigidMotion>& start) const;
  template <class Source>
  void enqueue(const Stream& stream, const Source& source, const std::optional<RigidMotion>& start, ArrayView<RigidEstimate> estimate,
               ArrayView<FramePlacement> placement);
  RigidEstimate wait(const Stream& stream);
  std::shared_ptr<const Mask> mask_;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace cinelumen
