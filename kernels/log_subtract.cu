#include "log_subtract.h"

#include <cmath>
#include <type_traits>

#include "bspline_tile.h"
#include "frame_source.h"
#include "tile.h"

namespace cinelumen {
namespace {

/// No frame: the moved mask itself is wanted.
struct NoFrame {};

/// Rotations up to this go along one axis after the other: positions are then right to 0.001 px, and values to 0.002 of the image's mixed
/// second difference.
constexpr float small_rotation_rad = 0.005f;

/// InverseMotion of a small rotation, as offsets of the source's position from the output's.
struct Tilt {
  float origin_y, origin_x, cosine_less_1, sine, tangent, stretch;  // stretch: 1 / cosine - 1

  CINELUMEN_HOST_DEVICE float position_y(int y, int x) const { return y + (origin_y + cosine_less_1 * y - sine * x); }
  CINELUMEN_HOST_DEVICE float position_x(int y, int x) const { return x + (origin_x + cosine_less_1 * x + sine * y); }
};

// NaN gives `low`.
CINELUMEN_HOST_DEVICE inline double clamped(double x, double low, double high) { return x > low ? (x < high ? x : high) : low; }

CINELUMEN_HOST_DEVICE inline Tilt make_tilt(const RigidMotion& motion, int height, int width) {
  const auto [s, c] = sine_cosine(motion.rotation_rad);
  const double centre_y = (height - 1) / 2.0, centre_x = (width - 1) / 2.0;
  // Beyond the image's size nothing is reached; clamping keeps the integers small.
  const double sy = clamped(motion.shift_y_px, -2.0 * height - 16, 2.0 * height + 16);
  const double sx = clamped(motion.shift_x_px, -2.0 * width - 16, 2.0 * width + 16);
  return {static_cast<float>(centre_y * (1 - c) + s * (centre_x + sx) - c * sy),
          static_cast<float>(centre_x * (1 - c) - s * (centre_y + sy) - c * sx),
          static_cast<float>(c - 1),
          static_cast<float>(s),
          static_cast<float>(s / c),
          static_cast<float>(1 / c - 1)};
}

/// inverse(motion), by sine_cosine.
CINELUMEN_HOST_DEVICE inline RigidMotion moved_back(const RigidMotion& motion) {
  const auto [s, c] = sine_cosine(motion.rotation_rad);
  return {static_cast<float>(-(c * motion.shift_y_px - s * motion.shift_x_px)),
          static_cast<float>(-(s * motion.shift_y_px + c * motion.shift_x_px)), -motion.rotation_rad};
}

CINELUMEN_HOST_DEVICE inline bool is_small(const RigidMotion& motion) { return fabsf(motion.rotation_rad) <= small_rotation_rad; }

CINELUMEN_HOST_DEVICE inline InverseMotion make_turn(const RigidMotion& motion, int height, int width) {
  return invert(motion.shift_y_px, motion.shift_x_px, motion.rotation_rad, (height - 1) / 2.0, (width - 1) / 2.0, 1);
}

/// Interpolation of a region of at most Rows x Columns output pixels: first along x, in every source row at the position that the output
/// column has there, then along y. Over so small a region the first weights depend on the row alone and the second on the column alone.
template <class Weights, int Rows, int Columns, int Pitch = Columns + 4>
struct Interpolation {
  Tile<float, Rows + 4, Pitch> input;
  Tile<float, Rows + 4, Columns> along_x;
  float weight_x[4][Rows + 4], weight_y[5][Columns];
  int shift_x[Rows + 4], row[Rows + 4];

  /// Source pixels that a region needs.
  struct Source {
    int top, left, rows, columns;
  };

  template <class Block>
  CINELUMEN_HOST_DEVICE Source prepare(const Block& block, const Tilt& tilt, int y0, int x0, int rows, int columns) {
    const float middle_y = tilt.origin_y + tilt.cosine_less_1 * (y0 + rows / 2);
    const float middle_x = tilt.origin_x + tilt.stretch * (x0 + columns / 2) - tilt.tangent * tilt.origin_y;
    const auto offset_y = [=](int x) { return middle_y - tilt.sine * static_cast<float>(x); };
    const auto offset_x = [=](int row_of_source) { return middle_x + tilt.tangent * static_cast<float>(row_of_source); };
    const float first_y = offset_y(x0), last_y = offset_y(x0 + columns - 1);
    const int whole_y = static_cast<int>(floorf(first_y < last_y ? first_y : last_y));
    const Source source_y{y0 + whole_y - 1, 0, rows + 4, columns + 4};
    const float first_x = offset_x(source_y.top), last_x = offset_x(source_y.top + rows + 3);
    const int whole_x = static_cast<int>(floorf(first_x < last_x ? first_x : last_x));
    block.for_each_pixel(1, rows + 4, [&](int, int i) {
      const float offset = offset_x(source_y.top + i);
      // Rounding may differ from that above by a hair; the cubics go on smoothly beyond their piece.
      const int shift = clamp_int(static_cast<int>(floorf(offset)) - whole_x, 0, 1);
      float w[4];
      Weights::weights(offset - static_cast<float>(whole_x + shift), w[0], w[1], w[2], w[3]);
      for (int k = 0; k < 4; ++k) weight_x[k][i] = w[k];
      shift_x[i] = shift;
    });
    block.for_each_pixel(1, columns, [&](int, int j) {
      const float offset = offset_y(x0 + j);
      const bool next = static_cast<int>(floorf(offset)) > whole_y;
      float w[4];
      Weights::weights(offset - static_cast<float>(whole_y + (next ? 1 : 0)), w[0], w[1], w[2], w[3]);
      weight_y[0][j] = next ? 0.0f : w[0];
      weight_y[1][j] = next ? w[0] : w[1];
      weight_y[2][j] = next ? w[1] : w[2];
      weight_y[3][j] = next ? w[2] : w[3];
      weight_y[4][j] = next ? w[3] : 0.0f;
    });
    return {source_y.top, x0 + whole_x - 1, rows + 4, columns + 4};
  }

  /// From `input`. Ends with the barrier.
  template <class Block>
  CINELUMEN_HOST_DEVICE void interpolate_along_x(const Block& block, int rows, int columns) {
    interpolate_along_x(block, rows, columns, [&](int y) { return input[y]; });
  }
  /// From the image itself where the region lies inside, else from a mirrored copy; on CUDA from a copy, because four taps from memory
  /// would ask for each sector more than four times. `input` is free again afterwards.
  template <class Block>
  CINELUMEN_HOST_DEVICE void interpolate_along_x(const Block& block, int rows, int columns, const ImageView<const float>& image,
                                                 const Source& from) {
#ifndef __CUDA_ARCH__
    if (from.top >= 0 && from.left >= 0 && from.top + from.rows <= image.height && from.left + from.columns <= image.width) {
      interpolate_along_x(block, rows, columns, [&](int y) { return image.row(from.top + y) + from.left; });
      return;
    }
#endif
    load_mirrored(block, PlaneSource{image}, from.top, from.left, from.rows, from.columns, row, input);
    interpolate_along_x(block, rows, columns);
  }
  CINELUMEN_HOST_DEVICE float at(int y, int x) const {
    return (weight_y[0][x] * along_x[y][x] + weight_y[1][x] * along_x[y + 1][x]) +
           (weight_y[2][x] * along_x[y + 2][x] + weight_y[3][x] * along_x[y + 3][x]) + weight_y[4][x] * along_x[y + 4][x];
  }

 private:
  template <class Block, class RowOf>
  CINELUMEN_HOST_DEVICE void interpolate_along_x(const Block& block, int rows, int columns, RowOf row_of) {
    block.for_each_pixel(rows + 4, columns, [&](int y, int x) {
      const float* in = row_of(y) + shift_x[y] + x;
      along_x[y][x] = (weight_x[0][y] * in[0] + weight_x[1][y] * in[1]) + (weight_x[2][y] * in[2] + weight_x[3][y] * in[3]);
    });
  }
};

/// Whether all pixels of a region have their source within [low, extent - 1 - low] along both axes.
CINELUMEN_HOST_DEVICE inline bool all_within(const Tilt& tilt, int y0, int x0, int rows, int columns, int height, int width, float low) {
  bool within = true;
  for (int corner = 0; corner < 4; ++corner) {
    const int y = corner & 1 ? y0 + rows - 1 : y0, x = corner & 2 ? x0 + columns - 1 : x0;
    const float q_y = tilt.position_y(y, x), q_x = tilt.position_x(y, x);
    within = within && q_y >= low && q_y <= height - 1 - low && q_x >= low && q_x <= width - 1 - low;
  }
  return within;
}

/// What a tile has of the frame's placement: worked out by one thread.
struct Placed {
  bool small;
  float offset;
  Tilt to_mask, to_frame;             // where the rotation is small: positions in the mask of the frame's pixels, and the other way
  InverseMotion turned, turned_back;  // where it is not
};

/// Moved mask, or frame - moved mask - offset where Source is one.
template <class Source>
struct MovedMask {
  static constexpr bool subtract = !std::is_same_v<Source, NoFrame>;
  ImageView<const float> coefficients;
  Source frame;
  ImageView<const std::uint8_t> valid;
  PerFrame<FramePlacement> placement;
  ImageView<float> image;

  using CpuTile = TileShape<32, 128>;
  using CudaTile = TileShape<24, 64>;

  template <int Height, int Width>
  struct Scratch {
    Placed placed;
    Interpolation<BSpline, Height, Width> mask;
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int height = image.height, width = image.width;
    block.once([&] {
      const FramePlacement now = placement.read();
      scratch.placed.small = is_small(now.motion);
      scratch.placed.offset = now.offset;
      if (scratch.placed.small)
        scratch.placed.to_mask = make_tilt(now.motion, height, width);
      else
        scratch.placed.turned = make_turn(now.motion, height, width);
    });
    if (scratch.placed.small)
      shift(block, scratch, scratch.placed.to_mask);
    else
      turn(block, scratch, scratch.placed.turned);
  }

 private:
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void shift(Block<Height, Width> block, Scratch<Height, Width>& scratch, const Tilt& tilt) const {
    const int height = image.height, width = image.width, rows = block.rows(height), columns = block.columns(width);
    auto& mask = scratch.mask;
    const auto from = mask.prepare(block, tilt, block.y0, block.x0, rows, columns);
    mask.interpolate_along_x(block, rows, columns, coefficients, from);
    auto& attenuation = mask.input;
    if constexpr (subtract) load_inside(block, frame, block.y0, block.x0, rows, columns, [&](int y) -> float* { return attenuation[y]; });
    const float offset = scratch.placed.offset;
    const auto write = [&](int y, int x, bool reaches) {
      const int oy = block.y0 + y, ox = block.x0 + x;
      float value = mask.at(y, x);
      bool use = reaches;
      if constexpr (subtract) {
        value = attenuation[y][x] - value - offset;
        use = use & (valid.row(oy)[ox] != 0);
      }
      image.row(oy)[ox] = use ? value : 0.0f;
    };
    if (all_within(tilt, block.y0, block.x0, rows, columns, height, width, -1)) {
      block.for_each_pixel(rows, columns, [&](int y, int x) { write(y, x, true); });
    } else {
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        const float q_y = tilt.position_y(block.y0 + y, block.x0 + x), q_x = tilt.position_x(block.y0 + y, block.x0 + x);
        write(y, x, (q_y >= -1) & (q_y <= height) & (q_x >= -1) & (q_x <= width));
      });
    }
  }

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void turn(Block<Height, Width> block, Scratch<Height, Width>& scratch, const InverseMotion& motion) const {
    static_assert(Width % bspline_strip == 0);
    const int rows = block.rows(image.height), columns = block.columns(image.width);
    auto& moved = scratch.mask.along_x;
    block.for_each_pixel(rows, (columns + bspline_strip - 1) / bspline_strip, [&](int y, int strip) {
      const int x = strip * bspline_strip;
      evaluate_strip<1, false>(coefficients, motion, block.y0 + y, block.x0 + x, moved[y] + x, nullptr, nullptr);
    });
    const float offset = scratch.placed.offset;
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const int oy = block.y0 + y, ox = block.x0 + x;
      float value = moved[y][x];
      bool use = value == value;
      if constexpr (subtract) {
        value = frame.row(oy)[ox] - value - offset;
        use = use & (valid.row(oy)[ox] != 0);
      }
      image.row(oy)[ox] = use ? value : 0.0f;
    });
  }
};

/// frame - moved mask - offset, carried onto the mask: the difference is made for the pixels of the frame that a tile of the mask needs.
struct OntoMask {
  ImageView<const float> coefficients;
  StoredSource frame;
  ImageView<const std::uint8_t> valid;
  PerFrame<FramePlacement> placement;
  ImageView<float> image;

  using CpuTile = TileShape<32, 128>;
  using CudaTile = TileShape<24, 64>;

  template <int Height, int Width>
  struct Scratch {
    // A warp that goes on in the next row finds other banks of shared memory there where rows lie a whole number of times 32 further
    // than they are wide.
    static constexpr int columns = Width + 4, pitch = Width == CudaTile::width ? columns + 32 : columns + 4;
    Placed placed;
    Interpolation<BSpline, Height + 4, columns, pitch> mask;
    Interpolation<Convolution, Height, Width> difference;
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int height = image.height, width = image.width;
    block.once([&] {
      const FramePlacement now = placement.read();
      const RigidMotion back = moved_back(now.motion);
      scratch.placed.small = is_small(now.motion);
      scratch.placed.offset = now.offset;
      if (scratch.placed.small) {
        scratch.placed.to_mask = make_tilt(now.motion, height, width);
        scratch.placed.to_frame = make_tilt(back, height, width);
      } else {
        scratch.placed.turned = make_turn(now.motion, height, width);
        scratch.placed.turned_back = make_turn(back, height, width);
      }
    });
    if (scratch.placed.small) {
      shift(block, scratch, scratch.placed.to_mask, scratch.placed.to_frame);
      return;
    }
    // The part of the frame under a turned square is larger than the square: small ones fit the scratch of the shifted tile.
    constexpr int side = Height >= 32 ? 32 : 16;
    for (int y = 0; y < block.rows(height); y += side)
      for (int x = 0; x < block.columns(width); x += side) turn<side>(block, scratch, block.y0 + y, block.x0 + x);
  }

 private:
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void shift(Block<Height, Width> block, Scratch<Height, Width>& scratch, const Tilt& to_mask,
                                   const Tilt& to_frame) const {
    const float offset = scratch.placed.offset;
    const int height = image.height, width = image.width, rows = block.rows(height), columns = block.columns(width);
    auto& mask = scratch.mask;
    auto& difference = scratch.difference;
    const auto region = difference.prepare(block, to_frame, block.y0, block.x0, rows, columns);
    // What of it lies in the frame.
    const int first_y = clamp_int(-region.top, 0, region.rows), end_y = clamp_int(height - region.top, first_y, region.rows);
    const int first_x = clamp_int(-region.left, 0, region.columns), end_x = clamp_int(width - region.left, first_x, region.columns);
    const int y0 = region.top + first_y, x0 = region.left + first_x, frame_rows = end_y - first_y, frame_columns = end_x - first_x;
    if (frame_rows < region.rows || frame_columns < region.columns)
      block.for_each_pixel(region.rows, region.columns, [&](int y, int x) { difference.input[y][x] = 0; });
    if (frame_rows > 0 && frame_columns > 0) {
      const auto from = mask.prepare(block, to_mask, y0, x0, frame_rows, frame_columns);
      mask.interpolate_along_x(block, frame_rows, frame_columns, coefficients, from);
      auto& attenuation = mask.input;
      load_inside(block, frame, y0, x0, frame_rows, frame_columns, [&](int y) -> float* { return attenuation[y]; });
      const auto subtract = [&](int y, int x, bool reaches) {
        const bool use = reaches & (valid.row(y0 + y)[x0 + x] != 0);
        const float value = attenuation[y][x] - mask.at(y, x) - offset;
        difference.input[first_y + y][first_x + x] = use ? value : 0.0f;
      };
      if (all_within(to_mask, y0, x0, frame_rows, frame_columns, height, width, -1)) {
        block.for_each_pixel(frame_rows, frame_columns, [&](int y, int x) { subtract(y, x, true); });
      } else {
        block.for_each_pixel(frame_rows, frame_columns, [&](int y, int x) {
          const float q_y = to_mask.position_y(y0 + y, x0 + x), q_x = to_mask.position_x(y0 + y, x0 + x);
          subtract(y, x, (q_y >= -1) & (q_y <= height) & (q_x >= -1) & (q_x <= width));
        });
      }
    }
    difference.interpolate_along_x(block, rows, columns);
    if (all_within(to_frame, block.y0, block.x0, rows, columns, height, width, 0)) {
      block.for_each_pixel(rows, columns, [&](int y, int x) { image.row(block.y0 + y)[block.x0 + x] = difference.at(y, x); });
    } else {
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        const float q_y = to_frame.position_y(block.y0 + y, block.x0 + x), q_x = to_frame.position_x(block.y0 + y, block.x0 + x);
        const bool reaches = (q_y >= 0) & (q_y <= height - 1) & (q_x >= 0) & (q_x <= width - 1);
        const float value = difference.at(y, x);
        image.row(block.y0 + y)[block.x0 + x] = reaches ? value : 0.0f;
      });
    }
  }

  /// The square of `side` pixels, or what of it lies in the tile, whose first pixel is (y0, x0).
  template <int side, int Height, int Width>
  CINELUMEN_HOST_DEVICE void turn(Block<Height, Width> block, Scratch<Height, Width>& scratch, int y0, int x0) const {
    constexpr int most = (side - 1) * 3 / 2 + 6, pitch = (most + bspline_strip - 1) / bspline_strip * bspline_strip;
    static_assert(most * pitch <= (Height + 4) * (Width + 4));
    const int height = image.height, width = image.width;
    const int rows = clamp_int(block.y0 + block.rows(height) - y0, 0, side),
              columns = clamp_int(block.x0 + block.columns(width) - x0, 0, side);
    const InverseMotion to_mask = scratch.placed.turned, to_frame = scratch.placed.turned_back;
    const auto position_y = [=](int y, int x) { return to_frame.origin_y + to_frame.cosine * y - to_frame.sine * x; };
    const auto position_x = [=](int y, int x) { return to_frame.origin_x + to_frame.cosine * x + to_frame.sine * y; };
    // The least position over the square is at a corner.
    const float down_y = to_frame.cosine * (rows - 1), right_y = -to_frame.sine * (columns - 1);
    const float down_x = to_frame.sine * (rows - 1), right_x = to_frame.cosine * (columns - 1);
    const auto least = [](float at, float a, float b) { return at + (a < 0 ? a : 0) + (b < 0 ? b : 0); };
    const auto first = [](float q, int extent) {
      // Beyond the frame nothing is read; clamping keeps the integers small, and makes one of NaN.
      return static_cast<int>(floorf(q > -2.0f * most ? (q < extent + 1.0f * most ? q : extent + 1.0f * most) : -2.0f * most)) - 1;
    };
    const int top = first(least(position_y(y0, x0), down_y, right_y), height),
              left = first(least(position_x(y0, x0), down_x, right_x), width);
    float* difference = scratch.difference.input[0];
    block.for_each_pixel(most, pitch / bspline_strip, [&](int y, int strip) {
      const int x = strip * bspline_strip;
      evaluate_strip<1, false>(coefficients, to_mask, top + y, left + x, difference + y * pitch + x, nullptr, nullptr);
    });
    const float offset = scratch.placed.offset;
    block.for_each_pixel(most, pitch, [&](int y, int x) {
      const int fy = top + y, fx = left + x;
      float& value = difference[y * pitch + x];
      const bool use = fy >= 0 && fy < height && fx >= 0 && fx < width && value == value && valid.row(fy)[fx] != 0;
      value = use ? frame.row(fy)[fx] - value - offset : 0.0f;
    });
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const float q_y = position_y(y0 + y, x0 + x), q_x = position_x(y0 + y, x0 + x);
      float sum = 0;
      if (q_y >= 0 && q_y <= height - 1 && q_x >= 0 && q_x <= width - 1) {
        const float whole_y = floorf(q_y), whole_x = floorf(q_x);
        const int from_y = clamp_int(static_cast<int>(whole_y) - 1 - top, 0, most - 4);
        const int from_x = clamp_int(static_cast<int>(whole_x) - 1 - left, 0, most - 4);
        float weight_y[4], weight_x[4];
        Convolution::weights(q_y - whole_y, weight_y[0], weight_y[1], weight_y[2], weight_y[3]);
        Convolution::weights(q_x - whole_x, weight_x[0], weight_x[1], weight_x[2], weight_x[3]);
        for (int i = 0; i < 4; ++i) {
          const float* row = difference + (from_y + i) * pitch + from_x;
          sum += weight_y[i] * ((weight_x[0] * row[0] + weight_x[1] * row[1]) + (weight_x[2] * row[2] + weight_x[3] * row[3]));
        }
      }
      image.row(y0 + y)[x0 + x] = sum;
    });
  }
};

void check_placement(const Stream& stream, const PerFrame<FramePlacement>& placement) {
  if (!placement.known_on_host(stream)) return;
  const FramePlacement now = placement.read();
  const RigidMotion& motion = now.motion;
  require(std::isfinite(motion.shift_y_px) && std::isfinite(motion.shift_x_px) && std::isfinite(motion.rotation_rad) &&
              std::isfinite(now.offset),
          "log_subtract: motion and offset must be finite");
}

template <class T>
void check(const Stream& stream, ImageView<const T> frame, ImageView<const float> coefficients, ImageView<const std::uint8_t> valid,
           const PerFrame<FramePlacement>& placement, ImageView<float> subtracted) {
  require(same_size(frame, coefficients), "log_subtract: frame and mask_coefficients differ in size");
  require(same_size(frame, valid), "log_subtract: frame and valid differ in size");
  require(same_size(frame, subtracted), "log_subtract: frame and subtracted differ in size");
  check_placement(stream, placement);
}

}  // namespace

void log_subtract(const Stream& stream, ImageView<const float> attenuation, ImageView<const float> mask_coefficients,
                  ImageView<const std::uint8_t> valid, const PerFrame<FramePlacement>& placement, ImageView<float> subtracted) {
  check(stream, attenuation, mask_coefficients, valid, placement, subtracted);
  for_each_tile(stream, subtracted.height, subtracted.width,
                MovedMask<PlaneSource>{mask_coefficients, {attenuation}, valid, placement, subtracted});
}

void log_subtract(const Stream& stream, const StoredFrame& frame, ImageView<const float> mask_coefficients,
                  ImageView<const std::uint8_t> valid, const PerFrame<FramePlacement>& placement, ImageView<float> subtracted) {
  check(stream, frame.stored, mask_coefficients, valid, placement, subtracted);
  require(frame.table.size > 0, "log_subtract: the table is empty");
  for_each_tile(stream, subtracted.height, subtracted.width,
                MovedMask<StoredSource>{mask_coefficients, {frame}, valid, placement, subtracted});
}

void log_subtract_onto_mask(const Stream& stream, const StoredFrame& frame, ImageView<const float> mask_coefficients,
                            ImageView<const std::uint8_t> valid, const PerFrame<FramePlacement>& placement, ImageView<float> subtracted) {
  check(stream, frame.stored, mask_coefficients, valid, placement, subtracted);
  require(frame.table.size > 0, "log_subtract_onto_mask: the table is empty");
  for_each_tile(stream, subtracted.height, subtracted.width, OntoMask{mask_coefficients, {frame}, valid, placement, subtracted});
}

void warp(const Stream& stream, ImageView<const float> coefficients, const RigidMotion& motion, ImageView<float> moved) {
  require(same_size(coefficients, moved), "warp: coefficients and moved differ in size");
  const FramePlacement placement{motion, 0};
  check_placement(stream, placement);
  for_each_tile(stream, moved.height, moved.width, MovedMask<NoFrame>{coefficients, {}, {}, placement, moved});
}

}  // namespace cinelumen
