#pragma once
/// Cubic B-spline interpolation: coefficients.

#include "image.h"
#include "stream.h"

namespace cinelumen {

/// Coefficients of the cubic B-spline surface that passes through every pixel of `image`, mirrored about its border pixels
/// (whole-sample). The inverse filter is used as a symmetric FIR of radius 12, equal to the recursive one to 3e-7 of the image's range.
/// (Unser, Aldroubi, Eden, IEEE Trans Signal Process 1993.)
/// Both in memory of the stream's device, same height and width, no overlap. Throws std::invalid_argument where the sizes differ.
void bspline_coefficients(const Stream& stream, ImageView<const float> image, ImageView<float> coefficients);

}  // namespace cinelumen
