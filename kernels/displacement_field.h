#pragma once
/// Smooth displacements over an image, as cubic B-splines on a lattice.

#include "bspline_tile.h"
#include "image.h"
#include "rigid_motion.h"

namespace cinelumen {

inline constexpr int field_spacing_px = 16;  // between nodes: a joint's gap is about as wide

/// Displacements in px at every position of an image: coefficients of cubic B-splines, a plane of those along y above one of those along
/// x, each field_nodes(height) x field_nodes(width). Node (j, i) lies at pixel ((j - 1), (i - 1)) field_spacing_px. Without data: none.
using DisplacementField = ImageView<const float>;

/// Nodes along an axis of `extent_px` pixels, spacing_px apart.
CINELUMEN_HOST_DEVICE constexpr int field_nodes(int extent_px, int spacing_px = field_spacing_px) {
  return (extent_px - 1) / spacing_px + 4;
}

/// Memory of the stream's device for a field over an image of that size; not set.
inline Image<float> make_displacement_field(const Stream& stream, int height, int width) {
  return Image<float>(stream, 2 * field_nodes(height), field_nodes(width));
}

/// A rigid motion as kernels apply it to places of the mask: where they lie in the frame, px.
struct ForwardMotion {
  float centre_y, centre_x, shift_y, shift_x, cosine, sine;
  CINELUMEN_HOST_DEVICE float y(float from_y, float from_x) const {
    return centre_y + sine * (from_x - centre_x) + cosine * (from_y - centre_y) + shift_y;
  }
  CINELUMEN_HOST_DEVICE float x(float from_y, float from_x) const {
    return centre_x + cosine * (from_x - centre_x) - sine * (from_y - centre_y) + shift_x;
  }
};

/// The motion over an image of that size.
CINELUMEN_HOST_DEVICE inline ForwardMotion forward(const RigidMotion& motion, int height, int width) {
  const auto [s, c] = sine_cosine(motion.rotation_rad);
  return {0.5f * static_cast<float>(height - 1),
          0.5f * static_cast<float>(width - 1),
          motion.shift_y_px,
          motion.shift_x_px,
          static_cast<float>(c),
          static_cast<float>(s)};
}

/// A displacement, px.
struct Displacement {
  float y, x;
};

/// Where a position lies on a lattice's axis: its first node of four, and how far it is from the second.
struct LatticePosition {
  int first;
  float fraction;
};

/// Positions beyond the lattice are taken at its end.
CINELUMEN_HOST_DEVICE inline LatticePosition lattice_position(float position_px, float nodes_per_px, int nodes) {
  const float u = position_px * nodes_per_px, last = static_cast<float>(nodes - 3);
  const float at = u > 0 ? (u < last ? u : last) : 0;
  const int whole = static_cast<int>(at), first = whole < nodes - 4 ? whole : nodes - 4;
  return {first, at - static_cast<float>(first)};
}

/// The field at a position of the image, (y, x) in px.
CINELUMEN_HOST_DEVICE inline Displacement displacement_at(const DisplacementField& field, float y, float x) {
  constexpr float nodes_per_px = 1.0f / field_spacing_px;
  const int rows = field.height / 2;
  const LatticePosition at_y = lattice_position(y, nodes_per_px, rows), at_x = lattice_position(x, nodes_per_px, field.width);
  float wy[4], wx[4];
  bspline_weights(at_y.fraction, wy[0], wy[1], wy[2], wy[3]);
  bspline_weights(at_x.fraction, wx[0], wx[1], wx[2], wx[3]);
  Displacement result{0, 0};
  for (int j = 0; j < 4; ++j) {
    const float *along_y = field.row(at_y.first + j) + at_x.first, *along_x = field.row(rows + at_y.first + j) + at_x.first;
    result.y += wy[j] * ((wx[0] * along_y[0] + wx[1] * along_y[1]) + (wx[2] * along_y[2] + wx[3] * along_y[3]));
    result.x += wy[j] * ((wx[0] * along_x[0] + wx[1] * along_x[1]) + (wx[2] * along_x[2] + wx[3] * along_x[3]));
  }
  return result;
}

}  // namespace cinelumen
