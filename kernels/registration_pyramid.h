#pragma once
/// Smoothed and decimated planes of a mask and of the frames that are laid on it, shared by mask_registration.cu and warp_registration.cu.

#include <cstdint>

#include "bspline.h"
#include "bspline_tile.h"
#include "frame_source.h"
#include "registration_tile.h"
#include "tile.h"

namespace cinelumen::registration {

// Planes of the mask carry a border of NaN, so that strips that reach over its edge need no separate path.
inline constexpr int padding = 40;  // a multiple of 8: columns keep their parity, and sectors

/// The 5-tap binomial filter along both axes, every `Step`-th pixel; NaN where `valid` (of the output's size) is given and 0.
template <int Step, class Source = PlaneSource>
struct Smooth {
  Source image;
  ImageView<const std::uint8_t> valid;
  ImageView<float> smoothed;

  using CpuTile = TileShape<16, 128>;
  using CudaTile = TileShape<16, 64>;

  template <int Height, int Width>
  struct Scratch {
    // Even columns before odd ones, or every second column would need each bank of shared memory twice; and rows begin where a warp that
    // goes on in the next one finds other banks.
    static constexpr bool apart = Step == 2 && Width == CudaTile::width;
    static constexpr int pitch = apart ? Step * Width + 18 : Step * Width + 4;
    CINELUMEN_HOST_DEVICE static constexpr int column(int x) { return apart ? (x >> 1) + (x & 1) * (Width + 16) : x; }
    Tile<float, Step * Height + 4, pitch> input;
    Tile<float, Height, apart ? 2 * Width + 34 : pitch> along_y;
    int row[Step * Height + 4];
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int rows = block.rows(smoothed.height), columns = block.columns(smoothed.width);
    const int top = Step * block.y0 - 2, left = Step * block.x0 - 2, input_rows = Step * rows + 4, input_columns = Step * columns + 4;
    using Layout = Scratch<Height, Width>;
    constexpr int pitch = Layout::pitch;
    load_mirrored(block, image, top, left, input_rows, input_columns, scratch.row, scratch.input);
    // Down first: with a step the rows that are left are half as many, and along them neighbours no longer lie side by side.
    block.for_each_pixel(rows, input_columns, [&](int y, int x) {
      const float* in = scratch.input[Step * y] + x;
      scratch.along_y[y][Layout::column(x)] =
          0.0625f * (in[0] + in[4 * pitch]) + 0.25f * (in[pitch] + in[3 * pitch]) + 0.375f * in[2 * pitch];
    });
    const auto along_x = [&](int y, int x) {
      constexpr int c1 = Layout::column(1), c2 = Layout::column(2), c3 = Layout::column(3), c4 = Layout::column(4);
      const float* in = scratch.along_y[y] + Layout::column(Step * x);
      return 0.0625f * (in[0] + in[c4]) + 0.25f * (in[c1] + in[c3]) + 0.375f * in[c2];
    };
    // Two loops rather than a choice inside: GCC does not vectorise a conditional load.
    if (valid.data == nullptr)
      block.for_each_pixel(rows, columns, [&](int y, int x) { smoothed.row(block.y0 + y)[block.x0 + x] = along_x(y, x); });
    else
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        const float sum = along_x(y, x);
        smoothed.row(block.y0 + y)[block.x0 + x] = valid.row(block.y0 + y)[block.x0 + x] != 0 ? sum : unknown;
      });
  }
};

/// Of n pixels every second.
inline int half(int n) { return (n + 1) / 2; }

/// 1 where all pixels within `radius` are valid and inside the image.
inline Image<std::uint8_t> erode(ImageView<const std::uint8_t> valid, int radius) {
  Image<std::uint8_t> along_x(valid.height, valid.width), result(valid.height, valid.width);
  for (int y = 0; y < valid.height; ++y)
    for (int x = 0, since_invalid = 0; x < valid.width + radius; ++x) {
      since_invalid = x < valid.width && valid(y, x) ? since_invalid + 1 : 0;
      if (x >= radius) along_x(y, x - radius) = since_invalid > 2 * radius;
    }
  for (int x = 0; x < valid.width; ++x)
    for (int y = 0, since_invalid = 0; y < valid.height + radius; ++y) {
      since_invalid = y < valid.height && along_x(y, x) ? since_invalid + 1 : 0;
      if (y >= radius) result(y - radius, x) = since_invalid > 2 * radius;
    }
  return result;
}

/// Every second pixel along both axes.
inline Image<std::uint8_t> every_second(ImageView<const std::uint8_t> valid) {
  Image<std::uint8_t> result(half(valid.height), half(valid.width));
  for (int y = 0; y < result.height(); ++y)
    for (int x = 0; x < result.width(); ++x) result(y, x) = valid(2 * y, 2 * x);
  return result;
}

/// Coefficients of `plane` with NaN where not valid and around, columns in coefficient_column<Step>'s order; memory of the stream's device.
template <int Step>
Image<float> padded_coefficients(const Stream& stream, ImageView<const float> plane, ImageView<const std::uint8_t> valid) {
  Image<float> coefficients(stream, plane.height, plane.width);
  bspline_coefficients(stream, plane, coefficients);
  const Image<float> host = to_host(stream, coefficients.view());
  Image<float> padded(plane.height + 2 * padding, (plane.width + 2 * padding + 15) / 16 * 16);
  for (int y = 0; y < padded.height(); ++y)
    for (int x = 0; x < padded.width(); ++x) {
      const int py = y - padding, px = x - padding;
      const bool inside = py >= 0 && py < plane.height && px >= 0 && px < plane.width;
      padded(y, coefficient_column<Step>(x, padded.width())) = inside && valid(py, px) ? host(py, px) : unknown;
    }
  Image<float> result = to_device(stream, padded.view());
  stream.synchronize();
  return result;
}

}  // namespace cinelumen::registration
