#include "bspline.h"

#include <cmath>

#include "frame_source.h"
#include "tile.h"

namespace cinelumen {
namespace {

constexpr int radius = 12;

struct InverseFilter {
  ImageView<const float> image;
  ImageView<float> coefficients;
  float weight[radius + 1];

  template <int Height, int Width>
  struct Scratch {
    Tile<float, Height + 2 * radius, Width + 2 * radius> input;
    Tile<float, Height + 2 * radius, Width> along_x;
    int row[Height + 2 * radius];
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int rows = block.rows(image.height), columns = block.columns(image.width);
    load_mirrored(block, PlaneSource{image}, block.y0 - radius, block.x0 - radius, rows + 2 * radius, columns + 2 * radius, scratch.row,
                  scratch.input);
    block.for_each_pixel(rows + 2 * radius, columns, [&](int y, int x) {
      const float* in = scratch.input[y] + x + radius;
      float sum = weight[0] * in[0];
#pragma GCC unroll 12
      for (int k = 1; k <= radius; ++k) sum += weight[k] * (in[-k] + in[k]);
      scratch.along_x[y][x] = sum;
    });
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const float* in = &scratch.along_x[y + radius][x];
      float sum = weight[0] * in[0];
#pragma GCC unroll 12
      for (int k = 1; k <= radius; ++k) sum += weight[k] * (in[-k * Width] + in[k * Width]);
      coefficients.row(block.y0 + y)[block.x0 + x] = sum;
    });
  }
};

}  // namespace

void bspline_coefficients(const Stream& stream, ImageView<const float> image, ImageView<float> coefficients) {
  require(same_size(image, coefficients), "bspline_coefficients: image and coefficients differ in size");
  InverseFilter kernel{image, coefficients, {}};
  // 6 / (z + 4 + 1/z) has its poles at z1 and 1/z1.
  const double z1 = std::sqrt(3.0) - 2;
  for (int k = 0; k <= radius; ++k) kernel.weight[k] = static_cast<float>(-6 * z1 / (1 - z1 * z1) * std::pow(z1, k));
  for_each_tile(stream, image.height, image.width, kernel);
}

}  // namespace cinelumen
