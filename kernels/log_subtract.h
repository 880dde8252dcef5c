#pragma once
/// Log subtraction of a moved mask, with cubic B-spline interpolation.

#include <cstdint>

#include "image.h"
#include "log_attenuation.h"
#include "per_frame.h"
#include "rigid_motion.h"
#include "stream.h"

namespace cinelumen {

/// subtracted = attenuation - (mask moved by placement.motion) - placement.offset where valid is not 0 and the mask reaches; 0 elsewhere.
/// The mask reaches up to a pixel beyond its border pixels, mirrored. Positive: attenuation was added (contrast). Log units, the frame's
/// coordinates. `mask_coefficients`: bspline_coefficients of the mask's attenuation. All images in memory of the stream's device, of one
/// height and width; `subtracted` may be `attenuation` itself, no other overlap. A rotation up to 0.005 rad costs no more than none: it is
/// interpolated along one axis after the other, which puts positions right to 0.001 px and values to 0.002 of the mask's mixed second
/// difference. Throws std::invalid_argument where sizes differ or a placement that the host knows is not finite.
void log_subtract(const Stream& stream, ImageView<const float> attenuation, ImageView<const float> mask_coefficients,
                  ImageView<const std::uint8_t> valid, const PerFrame<FramePlacement>& placement, ImageView<float> subtracted);

/// The same for a frame as stored, whose attenuation is looked up on the way and never stands in memory.
void log_subtract(const Stream& stream, const StoredFrame& frame, ImageView<const float> mask_coefficients,
                  ImageView<const std::uint8_t> valid, const PerFrame<FramePlacement>& placement, ImageView<float> subtracted);

/// The same in the mask's coordinates, for display and detection: what log_subtract gives, moved by inverse(placement.motion) with cubic
/// convolution (Keys, IEEE TASSP 1981), which needs no coefficients and narrows the highest frequencies a little. 0 where the frame does
/// not reach and where it is not valid; pixels outside it count as 0.
void log_subtract_onto_mask(const Stream& stream, const StoredFrame& frame, ImageView<const float> mask_coefficients,
                            ImageView<const std::uint8_t> valid, const PerFrame<FramePlacement>& placement, ImageView<float> subtracted);

/// The image whose `coefficients` are given, moved by `motion`; 0 where it does not reach. See log_subtract. To carry a frame onto the
/// mask: its own coefficients and inverse(motion). `moved` must not overlap `coefficients`; same height and width.
/// Throws std::invalid_argument where sizes differ or the motion is not finite.
void warp(const Stream& stream, ImageView<const float> coefficients, const RigidMotion& motion, ImageView<float> moved);

}  // namespace cinelumen
