#include "device_limits.h"

#include <cmath>

#include "tile.h"

namespace cinelumen {
namespace {

struct CopyPlane {
  ImageView<const float> from;
  ImageView<float> to;
  template <int Height, int Width>
  struct Scratch {};
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    const ImageView<const float> in = from.part(block.y0, block.x0, 0, 0);
    const ImageView<float> out = to.part(block.y0, block.x0, 0, 0);
    block.for_each_pixel(block.rows(to.height), block.columns(to.width), [&](int y, int x) { out.row(y)[x] = in.row(y)[x]; });
  }
};

struct MultiplyAddChains {
  int rounds;
  float factor, term;
  ImageView<float> output;
  using CpuTile = TileShape<16, 64>;  // 4 KiB: stays in the first cache
  template <int Height, int Width>
  struct Scratch {
    Tile<float, Height, Width> sum;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const ImageView<float> out = output.part(block.y0, block.x0, 0, 0);
    const int rows = block.rows(output.height), columns = block.columns(output.width);
    const float a = factor, b = term;
    block.for_each_pixel(rows, columns, [&](int y, int x) { scratch.sum[y][x] = 0; });
    for (int round = 0; round < rounds; ++round)
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        const float start = scratch.sum[y][x];
        float x0 = start, x1 = start + 1, x2 = start + 2, x3 = start + 3, x4 = start + 4, x5 = start + 5, x6 = start + 6, x7 = start + 7;
        // Few enough steps for GCC to unroll in full: it vectorises over pixels only what has no inner loop.
        for (int i = 0; i < multiply_adds_per_round / 8; ++i) {
          x0 = fmaf(x0, a, b);
          x1 = fmaf(x1, a, b);
          x2 = fmaf(x2, a, b);
          x3 = fmaf(x3, a, b);
          x4 = fmaf(x4, a, b);
          x5 = fmaf(x5, a, b);
          x6 = fmaf(x6, a, b);
          x7 = fmaf(x7, a, b);
        }
        scratch.sum[y][x] = ((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7));
      });
    block.for_each_pixel(rows, columns, [&](int y, int x) { out.row(y)[x] = scratch.sum[y][x]; });
  }
};

}  // namespace

void copy_plane(const Stream& stream, ImageView<const float> from, ImageView<float> to) {
  require(same_size(from, to), "copy_plane: the planes differ in size");
  for_each_tile(stream, to.height, to.width, CopyPlane{from, to});
}

void multiply_add_chains(const Stream& stream, int rounds, float factor, float term, ImageView<float> output) {
  require(rounds >= 0, "multiply_add_chains: rounds must not be negative");
  for_each_tile(stream, output.height, output.width, MultiplyAddChains{rounds, factor, term, output});
}

}  // namespace cinelumen
