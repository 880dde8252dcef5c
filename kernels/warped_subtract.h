#pragma once
/// Log subtraction of a mask that is moved and bent, and what is carried back onto it.

#include <cstdint>

#include "displacement_field.h"
#include "image.h"
#include "log_attenuation.h"
#include "per_frame.h"
#include "rigid_motion.h"
#include "stream.h"

namespace cinelumen {

/// Coefficients of a mask as log_subtract_warped reads them: with a mirrored border. Memory of the stream's device.
Image<float> bordered_coefficients(const Stream& stream, ImageView<const float> coefficients);

/// As log_subtract, with the mask's place for the frame's pixel q at p(q) = R^-1 q + d(q): R is placement.motion, d is `to_mask`, a field
/// over the frame; 0, too, where valid is 0 at p(q). `coefficients`: bordered_coefficients of the mask's. Interpolation by cubic B-splines.
/// All images in memory of the stream's device, frame, valid and subtracted of one size. Throws std::invalid_argument where sizes differ.
void log_subtract_warped(const Stream& stream, const StoredFrame& frame, ImageView<const float> coefficients,
                         ImageView<const std::uint8_t> valid, const PerFrame<FramePlacement>& placement, const DisplacementField& to_mask,
                         ImageView<float> subtracted);

/// carried(p) = image at R(p + e(p)), e being `to_frame`, a field over the mask: cubic convolution (Keys, IEEE TASSP 1981); 0 where that is
/// less than a pixel inside the image. Both of one size and apart, memory of the stream's device. Throws std::invalid_argument.
void carry_onto_mask(const Stream& stream, ImageView<const float> image, const PerFrame<FramePlacement>& placement,
                     const DisplacementField& to_frame, ImageView<float> carried);
/// The same from bspline_coefficients of the image: for what is to stay as sharp as it is.
void warp_onto_mask(const Stream& stream, ImageView<const float> coefficients, const PerFrame<FramePlacement>& placement,
                    const DisplacementField& to_frame, ImageView<float> carried);

}  // namespace cinelumen
