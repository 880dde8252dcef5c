#include "log_subtract.h"

#include <algorithm>
#include <cmath>

#include "bspline_tile.h"
#include "tile.h"

namespace cinelumen {
namespace {

/// What is done with the moved mask's value at a pixel.
struct Output {
  ImageView<const float> attenuation;  // null: the moved mask itself is wanted
  ImageView<const std::uint8_t> valid;
  float offset;
  ImageView<float> image;
};

/// Pure translation: the same four weights along each axis for every pixel.
template <bool Subtract>
struct ShiftedMask {
  ImageView<const float> coefficients;
  Output output;
  int base_y, base_x;  // mask pixel of the second coefficient for output pixel (0, 0)
  float wy[4], wx[4];
  int first_y, end_y, first_x, end_x;  // output pixels that the mask reaches

  template <int Height, int Width>
  struct Scratch {
    Tile<float, Height + 3, Width + 3> input;
    Tile<float, Height + 3, Width> along_x;
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int height = output.image.height, width = output.image.width;
    const int rows = block.rows(height), columns = block.columns(width);
    const int top = block.y0 + base_y - 1, left = block.x0 + base_x - 1;
    const float x0 = wx[0], x1 = wx[1], x2 = wx[2], x3 = wx[3];
    if (top >= 0 && left >= 0 && top + rows + 3 <= height && left + columns + 3 <= width) {
      block.for_each_pixel(rows + 3, columns, [&](int y, int x) {
        const float* c = coefficients.row(top + y) + left + x;
        scratch.along_x[y][x] = x0 * c[0] + x1 * c[1] + x2 * c[2] + x3 * c[3];
      });
    } else {
      // Positions further off than a pixel are not used; clamping them keeps the single reflection of mirror_near enough.
      block.for_each_pixel(rows + 3, columns + 3, [&](int y, int x) {
        scratch.input[y][x] = coefficients.row(
            mirror_near(clamp_int(top + y, -3, height + 2), height))[mirror_near(clamp_int(left + x, -3, width + 2), width)];
      });
      block.for_each_pixel(rows + 3, columns, [&](int y, int x) {
        const float* c = scratch.input[y] + x;
        scratch.along_x[y][x] = x0 * c[0] + x1 * c[1] + x2 * c[2] + x3 * c[3];
      });
    }
    const float y0 = wy[0], y1 = wy[1], y2 = wy[2], y3 = wy[3];
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const float* c = scratch.along_x[y] + x;
      const float mask = y0 * c[0] + y1 * c[Width] + y2 * c[2 * Width] + y3 * c[3 * Width];
      const int oy = block.y0 + y, ox = block.x0 + x;
      bool use = (oy >= first_y) & (oy < end_y) & (ox >= first_x) & (ox < end_x);
      float value = mask;
      if constexpr (Subtract) {
        value = output.attenuation.row(oy)[ox] - mask - output.offset;
        use = use & (output.valid.row(oy)[ox] != 0);
      }
      output.image.row(oy)[ox] = use ? value : 0.0f;
    });
  }
};

/// Translation and rotation.
template <bool Subtract>
struct TurnedMask {
  ImageView<const float> coefficients;
  Output output;
  InverseMotion motion;

  template <int Height, int Width>
  struct Scratch {
    Tile<float, Height, Width> mask;
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    static_assert(Width % bspline_strip == 0);
    const int rows = block.rows(output.image.height), columns = block.columns(output.image.width);
    block.for_each_pixel(rows, (columns + bspline_strip - 1) / bspline_strip, [&](int y, int strip) {
      const int x = strip * bspline_strip;
      evaluate_strip<1, false>(coefficients, motion, block.y0 + y, block.x0 + x, scratch.mask[y] + x, nullptr, nullptr);
    });
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const int oy = block.y0 + y, ox = block.x0 + x;
      float value = scratch.mask[y][x];
      bool use = value == value;
      if constexpr (Subtract) {
        value = output.attenuation.row(oy)[ox] - value - output.offset;
        use = use & (output.valid.row(oy)[ox] != 0);
      }
      output.image.row(oy)[ox] = use ? value : 0.0f;
    });
  }
};

template <bool Subtract>
void run(const Stream& stream, ImageView<const float> coefficients, const RigidMotion& motion, const Output& output) {
  const int height = output.image.height, width = output.image.width;
  if (motion.rotation_rad != 0) {
    for_each_tile(
        stream, height, width,
        TurnedMask<Subtract>{coefficients, output,
                             invert(motion.shift_y_px, motion.shift_x_px, motion.rotation_rad, (height - 1) / 2.0, (width - 1) / 2.0, 1)});
    return;
  }
  // Beyond the image's size nothing is reached; clamping keeps the integers small.
  const double sy = std::clamp<double>(motion.shift_y_px, -height - 8.0, height + 8.0);
  const double sx = std::clamp<double>(motion.shift_x_px, -width - 8.0, width + 8.0);
  ShiftedMask<Subtract> kernel{
      coefficients, output, static_cast<int>(std::floor(-sy)), static_cast<int>(std::floor(-sx)), {}, {}, 0, 0, 0, 0};
  bspline_weights(static_cast<float>(-sy - kernel.base_y), kernel.wy[0], kernel.wy[1], kernel.wy[2], kernel.wy[3]);
  bspline_weights(static_cast<float>(-sx - kernel.base_x), kernel.wx[0], kernel.wx[1], kernel.wx[2], kernel.wx[3]);
  kernel.first_y = static_cast<int>(std::ceil(sy - 1));
  kernel.end_y = static_cast<int>(std::floor(sy + height)) + 1;
  kernel.first_x = static_cast<int>(std::ceil(sx - 1));
  kernel.end_x = static_cast<int>(std::floor(sx + width)) + 1;
  for_each_tile(stream, height, width, kernel);
}

bool is_finite(const RigidMotion& motion) {
  return std::isfinite(motion.shift_y_px) && std::isfinite(motion.shift_x_px) && std::isfinite(motion.rotation_rad);
}

}  // namespace

void log_subtract(const Stream& stream, ImageView<const float> attenuation, ImageView<const float> mask_coefficients,
                  ImageView<const std::uint8_t> valid, const RigidMotion& motion, float offset, ImageView<float> subtracted) {
  require(same_size(attenuation, mask_coefficients), "log_subtract: attenuation and mask_coefficients differ in size");
  require(same_size(attenuation, valid), "log_subtract: attenuation and valid differ in size");
  require(same_size(attenuation, subtracted), "log_subtract: attenuation and subtracted differ in size");
  require(is_finite(motion) && std::isfinite(offset), "log_subtract: motion and offset must be finite");
  run<true>(stream, mask_coefficients, motion, {attenuation, valid, offset, subtracted});
}

void warp(const Stream& stream, ImageView<const float> coefficients, const RigidMotion& motion, ImageView<float> moved) {
  require(same_size(coefficients, moved), "warp: coefficients and moved differ in size");
  require(is_finite(motion), "warp: motion must be finite");
  run<false>(stream, coefficients, motion, {{}, {}, 0, moved});
}

}  // namespace cinelumen
