#pragma once
/// Log subtraction of a moved mask, with cubic B-spline interpolation.

#include <cstdint>

#include "image.h"
#include "rigid_motion.h"
#include "stream.h"

namespace cinelumen {

/// subtracted = attenuation - (mask moved by `motion`) - offset where valid is not 0 and the mask reaches; 0 elsewhere. The mask reaches
/// up to a pixel beyond its border pixels, mirrored. Positive: attenuation was added (contrast). Log units, the frame's coordinates.
/// `mask_coefficients`: bspline_coefficients of the mask's attenuation. All images in memory of the stream's device, of one height and
/// width; `subtracted` may be `attenuation` itself, no other overlap. A pure translation costs least.
/// Throws std::invalid_argument where sizes differ or the motion or offset is not finite.
void log_subtract(const Stream& stream, ImageView<const float> attenuation, ImageView<const float> mask_coefficients,
                  ImageView<const std::uint8_t> valid, const RigidMotion& motion, float offset, ImageView<float> subtracted);

/// The image whose `coefficients` are given, moved by `motion`; 0 where it does not reach. See log_subtract. To carry a frame onto the
/// mask: its own coefficients and inverse(motion). `moved` must not overlap `coefficients`; same height and width.
/// Throws std::invalid_argument where sizes differ or the motion is not finite.
void warp(const Stream& stream, ImageView<const float> coefficients, const RigidMotion& motion, ImageView<float> moved);

}  // namespace cinelumen
