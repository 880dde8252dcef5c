#pragma once
/// The part of an X-ray image that is worth reading: from the header's shutter and collimator, or found in the pixels.

#include <array>
#include <string>
#include <vector>

#include "engine/run.h"

namespace cinelumen {

/// One opening as DICOM describes it: any mix of shapes, of which the inside counts. Rows and columns are 1-based, edges inclusive.
struct Opening {
  struct Rectangle {
    double left, right, upper, lower;
  };
  struct Circle {
    double row, column, radius_px;
  };
  std::vector<Rectangle> rectangles;
  std::vector<Circle> circles;
  std::vector<std::vector<std::array<double, 2>>> polygons;  ///< (row, column)
  bool empty() const { return rectangles.empty() && circles.empty() && polygons.empty(); }
};

/// The field inside both openings (either may be empty: the whole image). An opening of less than 1 % of the image is ignored, with a
/// warning. source is "shutter", "collimator" or "whole image".
FieldOfView field_from_header(int rows, int columns, const Opening& shutter, const Opening& collimator, std::vector<std::string>& warnings);

/// The field as seen in up to eight frames: what is left without a dark or constant surround that touches the image's border, and
/// without straight collimator blades along its sides. Where nothing convincing is found, the whole image. Frames that can't be read are
/// left out. source is "pixels" or "whole image".
FieldOfView find_field(const FrameSource& frames);

/// The pixels in both fields. Where that is less than 1 % of the image: `first`.
FieldOfView intersection(FieldOfView first, const FieldOfView& second);

/// Share of the image inside the field, 0 to 1.
double field_share(const FieldOfView& field);

}  // namespace cinelumen
