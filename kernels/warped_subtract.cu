#include "warped_subtract.h"

#include "bspline_tile.h"
#include "frame_source.h"
#include "tile.h"

namespace cinelumen {
namespace {

constexpr int border = 4;  // of the bordered coefficients: a position may lie a pixel off the mask

struct Border {
  ImageView<const float> inside;
  ImageView<float> whole;
  template <int Height, int Width>
  struct Scratch {};
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    block.for_each_pixel(block.rows(whole.height), block.columns(whole.width), [&](int y, int x) {
      const int from_y = mirror_near(block.y0 + y - border, inside.height), from_x = mirror_near(block.x0 + x - border, inside.width);
      whole.row(block.y0 + y)[block.x0 + x] = inside.row(from_y)[from_x];
    });
  }
};

/// Positions in one image of the pixels of another's tile, and whether they are reached.
template <int Height, int Width>
struct Positions {
  static constexpr int nodes = Width / field_spacing_px + 5;
  Tile<float, 2 * Height, nodes> along_y;
  Tile<float, Height, Width> at_y, at_x;
  FramePlacement placement;
  InverseMotion motion;    // of what reads the mask
  ForwardMotion to_frame;  // of what reads the frame

  /// The field down the rows of the tile, at each column of nodes.
  CINELUMEN_HOST_DEVICE int interpolate_nodes(const Block<Height, Width>& block, const DisplacementField& field, int rows, int columns) {
    constexpr float nodes_per_px = 1.0f / field_spacing_px;
    const int field_rows = field.height / 2;
    const int first = lattice_position(static_cast<float>(block.x0), nodes_per_px, field.width).first;
    const int count = lattice_position(static_cast<float>(block.x0 + columns - 1), nodes_per_px, field.width).first + 4 - first;
    block.for_each_pixel(2 * rows, count, [&](int row, int k) {
      const int part = row / rows, j = row - part * rows;
      const LatticePosition at = lattice_position(static_cast<float>(block.y0 + j), nodes_per_px, field_rows);
      float w[4], sum = 0;
      bspline_weights(at.fraction, w[0], w[1], w[2], w[3]);
      for (int i = 0; i < 4; ++i) sum += w[i] * field.row(part * field_rows + at.first + i)[first + k];
      along_y[part * Height + j][k] = sum;
    });
    return first;
  }

  /// set(y, x, displacement) for all pixels of whole strips of the tile. Ends with the barrier.
  template <class Set>
  CINELUMEN_HOST_DEVICE void for_each_displacement(const Block<Height, Width>& block, int rows, int strips, int first, int field_width,
                                                   Set set) const {
    // Pieces of a row whose pixels see the same nodes.
    constexpr int piece = on_device ? 1 : field_spacing_px;
    static_assert(Width % piece == 0 && bspline_strip % piece == 0);
    block.for_each_pixel(rows, strips * (bspline_strip / piece), [&](int y, int part) {
      const int from = part * piece;
      const LatticePosition at = lattice_position(static_cast<float>(block.x0 + from), 1.0f / field_spacing_px, field_width);
      const float *const a = along_y[y] + (at.first - first), *const b = along_y[Height + y] + (at.first - first);
      const float a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], b0 = b[0], b1 = b[1], b2 = b[2], b3 = b[3];
#pragma GCC ivdep
      for (int i = 0; i < piece; ++i) {
        float v0, v1, v2, v3;
        bspline_weights(at.fraction + static_cast<float>(i) / field_spacing_px, v0, v1, v2, v3);
        set(y, from + i, Displacement{(v0 * a0 + v1 * a1) + (v2 * a2 + v3 * a3), (v0 * b0 + v1 * b1) + (v2 * b2 + v3 * b3)});
      }
    });
  }
};

CINELUMEN_HOST_DEVICE inline float limited(float position, float low, float high) {
  const float above = position > low ? position : low;  // NaN gives `low`
  return above < high ? above : high;
}

struct WarpedDifference {
  ImageView<const float> coefficients;
  StoredSource frame;
  ImageView<const std::uint8_t> valid;
  PerFrame<FramePlacement> placement;
  DisplacementField field;
  ImageView<float> image;

  using CpuTile = TileShape<16, 128>;
  using CudaTile = TileShape<16, 64>;
  template <int Height, int Width>
  struct Scratch {
    Positions<Height, Width> position;
    Tile<float, Height, Width> moved, attenuation;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    static_assert(Width % bspline_strip == 0);
    const int height = image.height, width = image.width, rows = block.rows(height), columns = block.columns(width);
    auto& position = scratch.position;
    block.once([&] {
      position.placement = placement.read();
      const RigidMotion& motion = position.placement.motion;
      position.motion = invert(motion.shift_y_px, motion.shift_x_px, motion.rotation_rad, (height - 1) / 2.0, (width - 1) / 2.0, 1);
    });
    const InverseMotion motion = position.motion;
    const int first = position.interpolate_nodes(block, field, rows, columns);
    const int strips = (columns + bspline_strip - 1) / bspline_strip;
    const float last_y = static_cast<float>(height + 1), last_x = static_cast<float>(width + 1);
    position.for_each_displacement(block, rows, strips, first, field.width, [&](int y, int x, const Displacement& d) {
      const float q_y = static_cast<float>(block.y0 + y), q_x = static_cast<float>(block.x0 + x);
      position.at_y[y][x] = limited(motion.origin_y - motion.sine * q_x + motion.cosine * q_y + d.y, -2.0f, last_y) + border;
      position.at_x[y][x] = limited(motion.origin_x + motion.cosine * q_x + motion.sine * q_y + d.x, -2.0f, last_x) + border;
    });
    block.for_each_pixel(rows, strips, [&](int y, int strip) {
      const int x = strip * bspline_strip;
      evaluate_positions<1, false, BSpline>(coefficients, position.at_y[y] + x, position.at_x[y] + x, scratch.moved[y] + x, nullptr,
                                            nullptr);
    });
    load_inside(block, frame, block.y0, block.x0, rows, columns, [&](int y) -> float* { return scratch.attenuation[y]; });
    const float offset = position.placement.offset;
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const float p_y = position.at_y[y][x] - border, p_x = position.at_x[y][x] - border;
      // The mask's own place must be valid, too: what a field moves comes from elsewhere.
      const int m_y = clamp_int(static_cast<int>(p_y + 0.5f), 0, height - 1), m_x = clamp_int(static_cast<int>(p_x + 0.5f), 0, width - 1);
      const bool reaches = (p_y >= -1) & (p_y <= static_cast<float>(height)) & (p_x >= -1) & (p_x <= static_cast<float>(width));
      const bool use = reaches & (valid.row(block.y0 + y)[block.x0 + x] != 0) & (valid.row(m_y)[m_x] != 0);
      const float value = scratch.attenuation[y][x] - scratch.moved[y][x] - offset;
      image.row(block.y0 + y)[block.x0 + x] = use ? value : 0.0f;
    });
  }
};

template <class Weights>
struct Carry {
  ImageView<const float> from;
  PerFrame<FramePlacement> placement;
  DisplacementField field;
  ImageView<float> image;

  using CpuTile = TileShape<16, 128>;
  using CudaTile = TileShape<16, 64>;
  template <int Height, int Width>
  struct Scratch {
    Positions<Height, Width> position;
    Tile<float, Height, Width> moved;
    Tile<std::int32_t, Height, Width> reaches;  // a word each: neighbours are written by other threads
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    static_assert(Width % bspline_strip == 0);
    const int height = image.height, width = image.width, rows = block.rows(height), columns = block.columns(width);
    auto& position = scratch.position;
    block.once([&] { position.to_frame = forward(placement.read().motion, height, width); });
    const int first = position.interpolate_nodes(block, field, rows, columns);
    const int strips = (columns + bspline_strip - 1) / bspline_strip;
    const ForwardMotion motion = position.to_frame;
    const float last_y = static_cast<float>(height - 3), last_x = static_cast<float>(width - 3);
    position.for_each_displacement(block, rows, strips, first, field.width, [&](int y, int x, const Displacement& e) {
      const float p_y = static_cast<float>(block.y0 + y) + e.y, p_x = static_cast<float>(block.x0 + x) + e.x;
      const float q_y = motion.y(p_y, p_x), q_x = motion.x(p_y, p_x);
      const bool reaches = (q_y >= 1.0f) & (q_y <= last_y) & (q_x >= 1.0f) & (q_x <= last_x);
      scratch.reaches[y][x] = reaches ? 1 : 0;
      position.at_y[y][x] = limited(q_y, 1.0f, last_y);
      position.at_x[y][x] = limited(q_x, 1.0f, last_x);
    });
    block.for_each_pixel(rows, strips, [&](int y, int strip) {
      const int x = strip * bspline_strip;
      evaluate_positions<1, false, Weights>(from, position.at_y[y] + x, position.at_x[y] + x, scratch.moved[y] + x, nullptr, nullptr);
    });
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      image.row(block.y0 + y)[block.x0 + x] = scratch.reaches[y][x] != 0 ? scratch.moved[y][x] : 0.0f;
    });
  }
};

void check_field(const DisplacementField& field, int height, int width) {
  require(field.height == 2 * field_nodes(height) && field.width == field_nodes(width), "warp: the field is not of the image's size");
}

void check_carried(ImageView<const float> image, const DisplacementField& to_frame, ImageView<float> carried) {
  require(same_size(image, carried), "carry_onto_mask: image and carried differ in size");
  require(image.height > border && image.width > border, "carry_onto_mask: the image is too small");
  check_field(to_frame, image.height, image.width);
}

}  // namespace

Image<float> bordered_coefficients(const Stream& stream, ImageView<const float> coefficients) {
  require(coefficients.height > border && coefficients.width > border, "bordered_coefficients: the image is too small");
  Image<float> result(stream, coefficients.height + 2 * border, coefficients.width + 2 * border);
  for_each_tile(stream, result.height(), result.width(), Border{coefficients, result});
  return result;
}

void log_subtract_warped(const Stream& stream, const StoredFrame& frame, ImageView<const float> coefficients,
                         ImageView<const std::uint8_t> valid, const PerFrame<FramePlacement>& placement, const DisplacementField& to_mask,
                         ImageView<float> subtracted) {
  require(same_size(frame.stored, valid) && same_size(frame.stored, subtracted),
          "log_subtract_warped: frame, valid and subtracted differ in size");
  require(coefficients.height == valid.height + 2 * border && coefficients.width == valid.width + 2 * border,
          "log_subtract_warped: the coefficients are not bordered ones of the frame's size");
  require(frame.table.size > 0, "log_subtract_warped: the table is empty");
  check_field(to_mask, valid.height, valid.width);
  for_each_tile(stream, subtracted.height, subtracted.width,
                WarpedDifference{coefficients, {frame}, valid, placement, to_mask, subtracted});
}

void carry_onto_mask(const Stream& stream, ImageView<const float> image, const PerFrame<FramePlacement>& placement,
                     const DisplacementField& to_frame, ImageView<float> carried) {
  check_carried(image, to_frame, carried);
  for_each_tile(stream, carried.height, carried.width, Carry<Convolution>{image, placement, to_frame, carried});
}

void warp_onto_mask(const Stream& stream, ImageView<const float> coefficients, const PerFrame<FramePlacement>& placement,
                    const DisplacementField& to_frame, ImageView<float> carried) {
  check_carried(coefficients, to_frame, carried);
  for_each_tile(stream, carried.height, carried.width, Carry<BSpline>{coefficients, placement, to_frame, carried});
}

}  // namespace cinelumen
