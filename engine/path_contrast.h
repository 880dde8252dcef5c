#pragma once
/// Contrast along a path in a picture of the vessels, whether or not a vessel was traced there.

#include <cstdint>
#include <vector>

#include "kernels/image.h"

namespace cinelumen {

/// A place on a path, px of the picture.
struct PathPoint {
  double y = 0, x = 0;
  double tangent_y = 0, tangent_x = 1;  ///< unit length
  double half_width_px = 2;             ///< of what a vessel there may cover, its blur and the error of its place included
};

/// Log attenuation above its surroundings, integrated across the path.
struct PathContrast {
  double area_px = 0, sd_px = 0;  ///< log units x px, mean over a stretch of the path
  bool in_view = false;           ///< false: outside the picture or its field of view; nothing is known
};

/// Reads `picture` (added log attenuation, host) at every point, with the surroundings from strips either side of half_width_px, and
/// averages over `window` points along the path, >= 1. Where one side holds another vessel, the other side counts.
std::vector<PathContrast> read_path(ImageView<const float> picture, ImageView<const std::uint8_t> valid, const std::vector<PathPoint>& path,
                                    int window);

}  // namespace cinelumen
