#include "vesselness.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "math.h"
#include "ridge_points.h"
#include "tile.h"

// Vectors of 256 bits where the processor has 512, for filters along a row with more weights than registers: GCC then loads each value
// twice, and most 512-bit loads straddle cache lines.
#ifdef __CUDACC__
#define CINELUMEN_HALF_VECTORS
#else
#define CINELUMEN_HALF_VECTORS __attribute__((noinline, target("prefer-vector-width=256")))
#endif

namespace cinelumen {
namespace {

constexpr int levels = 3;
constexpr double decimation_sigma_px = 1.2;  // 1 px leaves 0.35 % of aliasing in a ridge of 1 px
constexpr int decimation_radius = 5;
constexpr int cell_size = 16;  // of the grid of planes that extends the image beyond the field of view
constexpr int cell_reach = 4;
constexpr float cell_window_px = 24;
constexpr int line_samples = 4;  // each way, 2 half-resolution pixels apart
constexpr int line_step = 2;
constexpr int line_reach = line_samples * line_step;
constexpr float line_window = 4;                                // half-resolution px
constexpr double white_noise_hessian_sd = 0.24430125595145996;  // sqrt(3 / (16 pi)): SD of sigma^2 L_xx times sigma, unit white noise
constexpr double white_noise_valley_mean = 0.2030;              // mean of max(sigma^2 lambda1, 0) times sigma, by simulation

constexpr int largest_radius = 12;

using field_block = TileShape<64, 128>;  // no tile reaches beyond one by more than a cell
constexpr int finest_decimated = 2;      // of the scales: what may be worked out at half resolution
constexpr int level_of(int scale) { return scale < 3 ? 0 : (scale < 7 ? 1 : 2); }
constexpr int level_halo(int level) { return level == 0 ? 8 : (level == 1 ? 12 : 11); }  // the largest radius of its scales
int half(int n) { return (n + 1) / 2; }

// ---- Beyond the field of view: a plane per cell, fitted to the valid pixels near it.

/// Moments of one cell's valid pixels about its centre, in cells.
struct CellMoments {
  float m, x, y, xx, xy, yy, l, lx, ly;
};
struct CellPlane {
  float value, slope_x, slope_y;  // at the cell's centre; per cell
};

/// Cells with pixels outside the field of view, and what lies near them: the same for all images of one field. Made on the host once.
struct FieldEdge {
  std::vector<std::uint8_t> partial;          // per block of field_block: it or the cells beside it lie outside, in part
  std::vector<std::uint8_t> full;             // per cell
  std::vector<int> measured, fitted, copied;  // cells: whose moments count, which need a plane, which partial blocks read
  int rows = 0, columns = 0, block_columns = 0;
};

FieldEdge find_field_edge(ImageView<const std::uint8_t> valid) {
  constexpr int block_rows_of_cells = field_block::height / cell_size, block_columns_of_cells = field_block::width / cell_size;
  FieldEdge edge;
  edge.rows = detail::tiles_along(valid.height, cell_size);
  edge.columns = detail::tiles_along(valid.width, cell_size);
  edge.block_columns = detail::tiles_along(valid.width, field_block::width);
  const int block_rows = detail::tiles_along(valid.height, field_block::height);
  edge.full.assign(static_cast<std::size_t>(edge.rows) * edge.columns, 1);
  for (int y = 0; y < valid.height; ++y)
    for (int x = 0; x < valid.width; ++x)
      if (!valid(y, x)) edge.full[y / cell_size * edge.columns + x / cell_size] = 0;
  // Marks all cells within `reach` rows and columns of a marked one.
  using Marks = std::vector<std::uint8_t>;
  const auto around = [&](const Marks& marks, int reach) {
    Marks along(marks.size(), 0), result(marks.size(), 0);
    const auto spread = [&](const Marks& from, Marks& to, int dy, int dx) {
      for (int r = 0; r < edge.rows; ++r)
        for (int c = 0; c < edge.columns; ++c) {
          if (!from[r * edge.columns + c]) continue;
          for (int k = -reach; k <= reach; ++k) {
            const int row = r + k * dy, column = c + k * dx;
            if (row >= 0 && row < edge.rows && column >= 0 && column < edge.columns) to[row * edge.columns + column] = 1;
          }
        }
    };
    spread(marks, along, 0, 1);
    spread(along, result, 1, 0);
    return result;
  };
  const auto cells_of = [](const Marks& marks) {
    std::vector<int> cells;
    for (std::size_t i = 0; i < marks.size(); ++i)
      if (marks[i]) cells.push_back(static_cast<int>(i));
    return cells;
  };
  Marks outside(edge.full.size());
  for (std::size_t i = 0; i < outside.size(); ++i) outside[i] = !edge.full[i];
  const Marks fitted = around(outside, 1);
  edge.fitted = cells_of(fitted);
  edge.measured = cells_of(around(fitted, cell_reach));
  // Tiles read a cell beyond their block at most.
  Marks copied(outside.size(), 0);
  for (int i = 0; i < block_rows; ++i)
    for (int j = 0; j < edge.block_columns; ++j) {
      const int top = std::max(i * block_rows_of_cells - 1, 0), bottom = std::min((i + 1) * block_rows_of_cells + 1, edge.rows);
      const int left = std::max(j * block_columns_of_cells - 1, 0), right = std::min((j + 1) * block_columns_of_cells + 1, edge.columns);
      bool partial = false;
      for (int r = top; r < bottom; ++r)
        for (int c = left; c < right; ++c) partial = partial || outside[r * edge.columns + c];
      edge.partial.push_back(partial);
      for (int r = top; partial && r < bottom; ++r) std::fill_n(copied.begin() + r * edge.columns + left, right - left, std::uint8_t{1});
    }
  edge.copied = cells_of(copied);
  return edge;
}

/// A tile per listed cell.
struct MeasureCells {
  ImageView<const float> image;
  ImageView<const std::uint8_t> valid;
  ArrayView<const int> listed;
  CellMoments* cells;
  int columns;  // of the grid

  using CpuTile = TileShape<cell_size, cell_size>;
  using CudaTile = TileShape<cell_size, cell_size>;
  template <int Height, int Width>
  struct Scratch {
    Tile<float, Height, Width> weight, value;
    SumLanes<9> lanes;
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int cell = listed[block.y0 / cell_size], y0 = cell / columns * cell_size, x0 = cell % columns * cell_size;
    const int height = image.height - y0, width = image.width - x0;
    if (height < cell_size || width < cell_size)
      block.for_each_pixel(cell_size, cell_size, [&](int y, int x) { scratch.weight[y][x] = scratch.value[y][x] = 0; });
    // Apart from the sums: floats and bytes in one loop do not vectorise well.
    const auto take = [&](int y, int x) {
      const bool inside = valid.row(y0 + y)[x0 + x] != 0;
      const float value = image.row(y0 + y)[x0 + x];
      scratch.weight[y][x] = inside ? 1.0f : 0.0f;
      scratch.value[y][x] = inside ? value : 0.0f;
    };
    if (height >= cell_size && width >= cell_size)
      block.for_each_pixel(cell_size, cell_size, take);
    else
      block.for_each_pixel(height < cell_size ? height : cell_size, width < cell_size ? width : cell_size, take);
    const Sums<9> sums = block.template sum_pixels<9>(cell_size, cell_size, scratch.lanes, [&](int y, int x) {
      constexpr float middle = 0.5f * (cell_size - 1), per_cell = 1.0f / cell_size;
      const float v = (static_cast<float>(y) - middle) * per_cell, u = (static_cast<float>(x) - middle) * per_cell;
      const float m = scratch.weight[y][x], l = scratch.value[y][x];
      return Sums<9>{{m, m * u, m * v, m * u * u, m * u * v, m * v * v, l, l * u, l * v}};
    });
    block.once([&] {
      const float* s = sums.value;
      cells[cell] = {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8]};
    });
  }
};

struct FitCells {
  const CellMoments* cells;
  CellPlane* planes;
  ArrayView<const int> listed;
  int rows, columns;  // of the grid
  float window[cell_reach + 1];

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const int cell = listed[i], row = cell / columns, column = cell % columns;
    planes[cell] = {0, 0, 0};
    CellMoments sum = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (int dy = -cell_reach; dy <= cell_reach; ++dy) {
      if (row + dy < 0 || row + dy >= rows) continue;
      for (int dx = -cell_reach; dx <= cell_reach; ++dx) {
        if (column + dx < 0 || column + dx >= columns) continue;
        const CellMoments& c = cells[(row + dy) * columns + column + dx];
        const float w = window[dy < 0 ? -dy : dy] * window[dx < 0 ? -dx : dx];
        sum.m += w * c.m;
        sum.x += w * (c.x + dx * c.m);
        sum.y += w * (c.y + dy * c.m);
        sum.xx += w * (c.xx + dx * (2 * c.x + dx * c.m));
        sum.xy += w * (c.xy + dx * c.y + dy * (c.x + dx * c.m));
        sum.yy += w * (c.yy + dy * (2 * c.y + dy * c.m));
        sum.l += w * c.l;
        sum.lx += w * (c.lx + dx * c.l);
        sum.ly += w * (c.ly + dy * c.l);
      }
    }
    if (sum.m < 1e-3f) return;
    // About the centroid, where the mean and the slopes are independent; the ridge keeps slopes sane where few pixels are in reach.
    const float n = 1 / sum.m, x = sum.x * n, y = sum.y * n, l = sum.l * n;
    const float xx = sum.xx * n - x * x + 0.004f, yy = sum.yy * n - y * y + 0.004f, xy = sum.xy * n - x * y;
    const float lx = sum.lx * n - l * x, ly = sum.ly * n - l * y;
    const float determinant = 1 / (xx * yy - xy * xy);
    const float slope_x = (lx * yy - ly * xy) * determinant, slope_y = (ly * xx - lx * xy) * determinant;
    planes[cell] = {l - slope_x * x - slope_y * y, slope_x, slope_y};
  }
};

/// The image where it is valid, elsewhere the planes of the four nearest cells, linearly between their centres. A tile per listed cell.
struct ExtendImage {
  ImageView<const float> image;
  ImageView<const std::uint8_t> valid;
  const CellPlane* planes;
  const std::uint8_t* full;
  ArrayView<const int> listed;
  int rows, columns;  // of the grid
  ImageView<float> output;

  using CpuTile = TileShape<cell_size, cell_size>;
  using CudaTile = TileShape<cell_size, cell_size>;
  template <int Height, int Width>
  struct Scratch {};

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    const int cell = listed[block.y0 / cell_size], y0 = cell / columns * cell_size, x0 = cell % columns * cell_size;
    if (full[cell]) {
      const int height = clamp_int(output.height - y0, 0, cell_size), width = clamp_int(output.width - x0, 0, cell_size);
      block.for_each_pixel(height, width, [&](int y, int x) { output.row(y0 + y)[x0 + x] = image.row(y0 + y)[x0 + x]; });
      return;
    }
    // Within a quarter of a cell the four nearest centres are the same.
    for (int part = 0; part < 4; ++part) fill(block, y0 + part / 2 * (cell_size / 2), x0 + part % 2 * (cell_size / 2));
  }

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void fill(const Block<Height, Width>& block, int y0, int x0) const {
    constexpr int side = cell_size / 2;
    const int height = output.height - y0 < side ? output.height - y0 : side, width = output.width - x0 < side ? output.width - x0 : side;
    if (height <= 0 || width <= 0) return;
    const int row = (y0 + side) / cell_size - 1, column = (x0 + side) / cell_size - 1;
    CellPlane plane[2][2];
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j) {
        const int r = clamp_int(row + i, 0, rows - 1), c = clamp_int(column + j, 0, columns - 1);
        plane[i][j] = planes[r * columns + c];
        // Its value at the centre of (row, column).
        plane[i][j].value += plane[i][j].slope_x * (column - c) + plane[i][j].slope_y * (row - r);
      }
    block.for_each_pixel(height, width, [&](int y, int x) {
      const float v = (y0 + y + 0.5f) / cell_size - 0.5f - row, u = (x0 + x + 0.5f) / cell_size - 0.5f - column;
      const auto at = [&](const CellPlane& p) { return p.value + p.slope_x * u + p.slope_y * v; };
      const float fitted =
          (1 - v) * ((1 - u) * at(plane[0][0]) + u * at(plane[0][1])) + v * ((1 - u) * at(plane[1][0]) + u * at(plane[1][1]));
      const float own = image.row(y0 + y)[x0 + x];
      output.row(y0 + y)[x0 + x] = valid.row(y0 + y)[x0 + x] ? own : fitted;
    });
  }
};

struct FillBytes {
  ImageView<std::uint8_t> output;
  template <int Height, int Width>
  struct Scratch {};
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    block.for_each_pixel(block.rows(output.height), block.columns(output.width),
                         [&](int y, int x) { output.row(block.y0 + y)[block.x0 + x] = 1; });
  }
};

// ---- Levels and scales.

/// Of a tile's rows.
template <class TileType>
inline constexpr int tile_pitch = sizeof(TileType::at[0]) / sizeof(TileType::at[0][0]);

/// Loads rows x columns input pixels from (y0, x0) on, mirrored about the border, to tile[top][left] and on; a barrier follows.
template <class BlockType, class TileType>
CINELUMEN_HOST_DEVICE void load_mirrored(const BlockType& block, ImageView<const float> input, int y0, int x0, int rows, int columns,
                                         TileType& tile, int top = 0, int left = 0) {
  const int first = x0 > 0 ? x0 : 0, last = x0 + columns < input.width ? x0 + columns : input.width;
  const int before = first - x0, inside = last - first, outside = columns - inside;
  const auto load = [&](int y, int x) { tile[top + y][left + before + x] = input.row(mirror(y0 + y, input.height))[first + x]; };
#ifdef __CUDA_ARCH__
  // Rows as wide as they lie apart: a warp that goes on in the next one finds other banks of shared memory.
  block.for_each_pixel(rows, tile_pitch<TileType>, [&](int y, int i) {
    const int x = i - before;
    if (x >= 0 && x < inside) load(y, x);
  });
#else
  block.for_each_pixel(rows, inside, load);
#endif
  if (outside > 0)
    block.for_each_pixel(rows, outside, [&](int y, int x) {
      const int column = x < before ? x : x + inside;
      tile[top + y][left + column] = input.row(mirror(y0 + y, input.height))[mirror(x0 + column, input.width)];
    });
}

/// Marks squares of vesselness_square px along the sections.
struct MarkSquares {
  ArrayView<const CrossSection> sections;
  float reach_px;
  ImageView<std::int32_t> wanted;

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    constexpr float beside_px = 8, per_px = 1.0f / vesselness_square;
    const CrossSection at = sections[i];
    const float high = reach_px * fabsf(at.normal_y) + beside_px, wide = reach_px * fabsf(at.normal_x) + beside_px;
    const auto square_at = [](float px, int end) {
      const float square = floorf(px * per_px);
      return square > 0 ? (square < static_cast<float>(end) ? static_cast<int>(square) : end) : 0;
    };
    const int bottom = at.y + high < 0 ? -1 : square_at(at.y + high, wanted.height - 1),
              right = at.x + wide < 0 ? -1 : square_at(at.x + wide, wanted.width - 1);
    for (int y = square_at(at.y - high, wanted.height); y <= bottom; ++y)
      for (int x = square_at(at.x - wide, wanted.width); x <= right; ++x) mark(wanted.row(y)[x]);
  }

 private:
  // Several may mark the same one at once.
  CINELUMEN_HOST_DEVICE static void mark(std::int32_t& square) {
#ifdef __CUDA_ARCH__
    atomicOr(&square, 1);
#else
    std::atomic_ref<std::int32_t>(square).store(1, std::memory_order_relaxed);
#endif
  }
};

/// Of a level, in squares of its own pixels, those that wanted squares of the image need. Without data: all.
struct NeededSquares {
  ImageView<std::uint8_t> image, sum;  // its image; its sums over scales
};
/// Finds them.
struct FindNeeded {
  ImageView<const std::int32_t> wanted;
  NeededSquares needed;
  int scale;                   // pixels of the image per pixel of the level
  int image_reach, sum_reach;  // pixels of the image

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const int y = i / needed.sum.width, x = i % needed.sum.width;
    needed.image.row(y)[x] = any_within(y, x, image_reach) ? 1 : 0;
    needed.sum.row(y)[x] = any_within(y, x, sum_reach) ? 1 : 0;
  }

 private:
  CINELUMEN_HOST_DEVICE bool any_within(int y, int x, int reach) const {
    const int beside = (reach + vesselness_square - 1) / vesselness_square;
    const int bottom = clamp_int((y + 1) * scale + beside, 0, wanted.height), right = clamp_int((x + 1) * scale + beside, 0, wanted.width);
    bool any = false;
    for (int v = clamp_int(y * scale - beside, 0, bottom); v < bottom; ++v)
      for (int u = clamp_int(x * scale - beside, 0, right); u < right; ++u) any = any || wanted.row(v)[u] != 0;
    return any;
  }
};

/// Whether a tile has anything of marked squares; without data it has.
template <class Mark>
CINELUMEN_HOST_DEVICE inline bool any_marked(const ImageView<Mark>& marks, int y0, int x0, int rows, int columns) {
  if (marks.data == nullptr) return true;
  bool any = false;
  for (int y = y0 / vesselness_square; y <= (y0 + rows - 1) / vesselness_square; ++y)
    for (int x = x0 / vesselness_square; x <= (x0 + columns - 1) / vesselness_square; ++x) any = any || marks.row(y)[x] != 0;
  return any;
}

/// An image that may be read around any tile: extended where that is near the field's edge.
struct ReadableImage {
  ImageView<const float> image, extended;
  const std::uint8_t* partial;  // per block of field_block; none: all of the image may be read
  int block_columns;

  /// What to read around the tile whose first pixel is (y, x).
  CINELUMEN_HOST_DEVICE const ImageView<const float>& around(int y, int x) const {
    if (partial == nullptr) return image;
    return partial[y / field_block::height * block_columns + x / field_block::width] ? extended : image;
  }
};

/// Gaussian, then every second pixel, from (0, 0) on.
struct Decimate {
  ReadableImage input;
  ImageView<const std::uint8_t> needed;  // squares of the output
  ImageView<float> output;
  float weight[decimation_radius + 1];

  using CpuTile = TileShape<32, 64>;
  using CudaTile = TileShape<32, 32>;
  static constexpr int side = on_device ? 8 : decimation_radius;  // columns beside the tile: on CUDA whole sectors
  template <int Height, int Width>
  struct Scratch {
    // On CUDA warps go over rows of 2 Width + 16 columns. Where they go on in the next one, they find other banks: every second row of the
    // input, and each half of it, begins there where the one before ended.
    Tile<float, 2 * Height + 2 * decimation_radius, 2 * Width + (on_device ? 24 : 16)> input;
#ifndef __CUDA_ARCH__
    Tile<float, Height, 2 * Width + 2 * decimation_radius> rows;
#endif
    Tile<float, Height, Width + (on_device ? 8 : decimation_radius)> even;  // columns: a strided loop costs a shuffle for every tap
    float apart[16];                                                        // so that both are written to different banks
    Tile<float, Height, Width + (on_device ? 8 : decimation_radius)> odd;
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    constexpr int R = decimation_radius;
    const int rows = block.rows(output.height), columns = block.columns(output.width);
    if (!any_marked(needed, block.y0, block.x0, rows, columns)) return;
    // Rows of the image often lie multiples of 4 KiB apart, in the same places of the cache: eleven of them at once only from a copy.
    load_mirrored(block, input.around(2 * block.y0, 2 * block.x0), 2 * block.y0 - R, 2 * block.x0 - side, 2 * rows + 2 * R,
                  2 * columns + 2 * side, scratch.input);
    float w[R + 1];
    for (int k = 0; k <= R; ++k) w[k] = weight[k];
    const auto along_y = [&](int y, int x) {
      const int column = x + side - R;
      float sum = w[0] * scratch.input[2 * y + R][column];
      CINELUMEN_UNROLL
      for (int k = 1; k <= R; ++k) sum += w[k] * (scratch.input[2 * y + R - k][column] + scratch.input[2 * y + R + k][column]);
      return sum;
    };
#ifdef __CUDA_ARCH__
    block.for_each_pixel(rows, 2 * Width + 16, [&](int y, int x) {
      if (x < 2 * columns + 2 * R) (x % 2 ? scratch.odd : scratch.even)[y][x / 2] = along_y(y, x);
    });
#else
    block.for_each_pixel(rows, 2 * columns + 2 * R, [&](int y, int x) { scratch.rows[y][x] = along_y(y, x); });
    block.for_each_pixel(rows, columns + R, [&](int y, int x) {
      scratch.even[y][x] = scratch.rows[y][2 * x];
      scratch.odd[y][x] = scratch.rows[y][2 * x + 1];
    });
#endif
    static_assert(R == 5);
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const float *even = scratch.even[y] + x, *odd = scratch.odd[y] + x;
      output.row(block.y0 + y)[block.x0 + x] = w[0] * odd[2] + w[1] * (even[2] + even[3]) + w[2] * (odd[1] + odd[3]) +
                                               w[3] * (even[1] + even[4]) + w[4] * (odd[0] + odd[4]) + w[5] * (even[0] + even[5]);
    });
  }
};

/// 2^x for x <= 0, clamped at -126; relative error <= 4e-6. Two of them a pixel and scale are what Frangi's measure costs.
CINELUMEN_HOST_DEVICE inline float exp2_of_negative(float x) {
  x = x < -126.0f ? -126.0f : x;
  // Adding 1.5 * 2^23 rounds to a whole number, which then stands in the lowest bits.
  constexpr float rounding = 12582912.0f;
  const float shifted = x + rounding, r = x - (shifted - rounding);
  float p = 9.57010143e-3f;
  p = p * r + 5.59178603e-2f;
  p = p * r + 2.40247448e-1f;
  p = p * r + 6.93121815e-1f;
  p = p * r + 9.99999261e-1f;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(shifted) << 23));
}

struct ClassicalMeasure {
  VesselnessResponse response;
  float minus_half_over_beta2, minus_half_over_c2;  // times log2(e)
  float lambda_rho;

  CINELUMEN_HOST_DEVICE float frangi(float ridge, float other) const {
    const float ridge2 = ridge * ridge, other2 = other * other;
    const float value = exp2_of_negative(minus_half_over_beta2 * (other2 / (ridge2 + 1e-30f))) *
                        (1 - exp2_of_negative(minus_half_over_c2 * (ridge2 + other2)));
    // |lambda1| <= |lambda2| and lambda2 < 0: a valley crossing a weaker ridge is not a bright vessel.
    return ridge > 0 && other <= ridge ? value : 0.0f;
  }
  CINELUMEN_HOST_DEVICE float jerman(float ridge) const {
    const float sum = ridge + lambda_rho;
    const float value = ridge * ridge * (lambda_rho - ridge) * 27 / (sum * sum * sum);
    return ridge <= 0 ? 0.0f : (ridge >= 0.5f * lambda_rho ? 1.0f : value);
  }
};

// ---- Scales of one level.

constexpr int scales_of_level = 5;  // at most

/// Kernels of one scale, in its level's pixels.
struct ScaleKernels {
  int radius;
  float sigma_px;     // of the image
  const float* gain;  // 1 / (number of scales x mean valley)
  float smooth[largest_radius + 1], slope_x[largest_radius + 1], slope_y[largest_radius + 1],
      curve[largest_radius + 1];  // slope_x and curve carry sigma^2
};

/// A level's image and the scales computed on it.
struct LevelScales {
  ReadableImage input;
  ScaleKernels scale[scales_of_level];
  int count, radius;  // radius: the largest
};

/// Rows that one step of the column pass works out: each value it loads then serves several of them.
template <int Height>
inline constexpr int rows_at_once = Height % 8 == 0 && Height >= 32 ? (on_device ? 4 : 8) : 2;

template <int Height>
CINELUMEN_HOST_DEVICE constexpr int whole_steps(int rows) {
  constexpr int step = rows_at_once<Height>;
  return (rows + step - 1) / step * step;
}

template <int Height, int Width, int Halo>
struct DerivativeTiles {
  static_assert(Height % rows_at_once<Height> == 0);
  Tile<float, Height + 2 * Halo, Width + 2 * Halo> input;
  // On the CPU planes and rows that lie multiples of 4 KiB apart would evict one another.
  static constexpr int pitch = Width < 64 ? Width : Width + 16;
  Tile<float, Height + 2 * Halo, pitch> smoothed, slope, curvature;
};
template <int Height, int Width, int Halo>
struct HessianTiles : DerivativeTiles<Height, Width, Halo> {
  static constexpr int pitch = DerivativeTiles<Height, Width, Halo>::pitch;
  Tile<float, Height, pitch> xx, yy, xy;
};

template <int Level, int Height, int Width, int Halo>
CINELUMEN_HOST_DEVICE void load_level(const Block<Height, Width>& block, const LevelScales& level, int rows, int columns,
                                      DerivativeTiles<Height, Width, Halo>& tiles) {
  const int high = level.radius;
  // On CUDA whole sectors where there is room.
  const int wide = on_device && Halo >= 8 && high < 8 ? 8 : high;
  load_mirrored(block, Level == 0 ? level.input.around(block.y0, block.x0) : level.input.image, block.y0 - high, block.x0 - wide,
                whole_steps<Height>(rows) + 2 * high, columns + 2 * wide, tiles.input, Halo - high, Halo - wide);
}

template <int Radius, int Height, int Width, int Halo>
CINELUMEN_HALF_VECTORS CINELUMEN_HOST_DEVICE void filter_along_x(const Block<Height, Width>& block, const ScaleKernels& scale, int lines,
                                                                 int columns, DerivativeTiles<Height, Width, Halo>& tiles) {
  constexpr int R = Radius;
  float g[R + 1], gx[R + 1], gg[R + 1];
  for (int k = 0; k <= R; ++k) g[k] = scale.smooth[k], gx[k] = scale.slope_x[k], gg[k] = scale.curve[k];
  block.for_each_pixel(lines, columns, [&](int y, int x) {
    const float* centre = tiles.input[y + Halo - R] + x + Halo;
    float smoothed = g[0] * centre[0], curvature = gg[0] * centre[0], slope = 0;
    CINELUMEN_UNROLL
    for (int k = 1; k <= R; ++k) {
      const float both = centre[k] + centre[-k];
      smoothed += g[k] * both;
      curvature += gg[k] * both;
      slope += gx[k] * (centre[k] - centre[-k]);
    }
    tiles.smoothed[y][x] = smoothed;
    tiles.slope[y][x] = slope;
    tiles.curvature[y][x] = curvature;
  });
}

/// Correlates rows_at_once pixels of column x, from row y on, along y with a kernel of which `weight` is one half; Sign 1: symmetric,
/// -1: antisymmetric.
template <int Radius, int Sign, int Height, class From>
CINELUMEN_HOST_DEVICE inline void correlate_along_y(const float* weight, const From& from, int y, int x, float* to) {
  constexpr int R = Radius, step = rows_at_once<Height>, lines = step + 2 * R;
  float v[lines];
  CINELUMEN_UNROLL
  for (int j = 0; j < lines; ++j) v[j] = from[y + j][x];
  CINELUMEN_UNROLL
  for (int r = 0; r < step; ++r) {
    float sum = Sign > 0 ? weight[0] * v[r + R] : 0.0f;
    CINELUMEN_UNROLL
    for (int k = 1; k <= R; ++k) sum += weight[k] * (v[r + R + k] + Sign * v[r + R - k]);
    to[r] = sum;
  }
}

/// The same for all pixels of a tile.
template <int Radius, int Sign, int Height, int Width, class From, class To>
CINELUMEN_HOST_DEVICE void filter_along_y(const Block<Height, Width>& block, const float* weight, int rows, int columns, const From& from,
                                          To& to) {
  constexpr int step = rows_at_once<Height>;
#ifdef __CUDA_ARCH__
  const float* const w = weight;  // copies would take registers
#else
  float w[Radius + 1];
  for (int k = 0; k <= Radius; ++k) w[k] = weight[k];
#endif
  block.for_each_pixel((rows + step - 1) / step, columns, [&](int i, int x) {
    float sum[step];
    correlate_along_y<Radius, Sign, Height>(w, from, i * step, x, sum);
    CINELUMEN_UNROLL
    for (int r = 0; r < step; ++r) to[i * step + r][x] = sum[r];
  });
}

/// Calls body(std::integral_constant<int, radius>) for the radii that a level has, up to Halo.
template <int Level, int Halo, class Body>
CINELUMEN_HOST_DEVICE inline void for_radius(int radius, Body body) {
  if constexpr (Level < 2) {
    if (radius == 4) body(std::integral_constant<int, 4>{});
    if (radius == 6) body(std::integral_constant<int, 6>{});
  }
  if constexpr (Level == 1 && Halo >= 12) {
    if (radius == 12) body(std::integral_constant<int, 12>{});
  }
  if constexpr (Level == 2) {
    if (radius == 5) body(std::integral_constant<int, 5>{});
    if (radius == 11) body(std::integral_constant<int, 11>{});
  }
  if (radius == 8) body(std::integral_constant<int, 8>{});
}

/// sigma^2 times the Hessian.
template <int Level, int Height, int Width, int Halo>
CINELUMEN_HOST_DEVICE void hessian_at_scale(const Block<Height, Width>& block, const ScaleKernels& scale, int rows, int columns,
                                            HessianTiles<Height, Width, Halo>& tiles) {
  for_radius<Level, Halo>(scale.radius, [&](auto radius) {
    constexpr int R = decltype(radius)::value;
    filter_along_x<R>(block, scale, whole_steps<Height>(rows) + 2 * R, columns, tiles);
    filter_along_y<R, 1>(block, scale.smooth, rows, columns, tiles.curvature, tiles.xx);
    filter_along_y<R, 1>(block, scale.curve, rows, columns, tiles.smoothed, tiles.yy);
    filter_along_y<R, -1>(block, scale.slope_y, rows, columns, tiles.slope, tiles.xy);
  });
}

/// The same without keeping it: body(y, x, xx, yy, xy) at each pixel, of rows up to whole_steps(rows).
template <int Level, int Height, int Width, int Halo, class Body>
CINELUMEN_HOST_DEVICE void for_each_hessian(const Block<Height, Width>& block, const ScaleKernels& scale, int rows, int columns,
                                            DerivativeTiles<Height, Width, Halo>& tiles, Body body) {
  constexpr int step = rows_at_once<Height>;
  for_radius<Level, Halo>(scale.radius, [&](auto radius) {
    constexpr int R = decltype(radius)::value;
    filter_along_x<R>(block, scale, whole_steps<Height>(rows) + 2 * R, columns, tiles);
    block.for_each_pixel(whole_steps<Height>(rows) / step, columns, [&](int i, int x) {
      float xx[step], yy[step], xy[step];
      correlate_along_y<R, 1, Height>(scale.smooth, tiles.curvature, i * step, x, xx);
      correlate_along_y<R, 1, Height>(scale.curve, tiles.smoothed, i * step, x, yy);
      correlate_along_y<R, -1, Height>(scale.slope_y, tiles.slope, i * step, x, xy);
      CINELUMEN_UNROLL
      for (int r = 0; r < step; ++r) body(i * step + r, x, xx[r], yy[r], xy[r]);
    });
  });
}

struct Eigenvalues {
  float mean, difference, radius;  // mean -+ radius; half the difference of xx and yy
};
CINELUMEN_HOST_DEVICE inline Eigenvalues eigenvalues(float xx, float yy, float xy) {
  const float difference = 0.5f * (xx - yy);
  return {0.5f * (xx + yy), difference, sqrtf(difference * difference + xy * xy)};
}

/// Sums of max(sigma^2 lambda1, 0) over the field of view, per scale and tile.
template <int Level>
struct MeasureValleys {
  LevelScales level;
  ImageView<const std::uint8_t> valid;  // of this level
  float* sum[scales_of_level];          // per tile
  float* count[scales_of_level];

  template <int Height, int Width>
  struct Scratch {
    HessianTiles<Height, Width, level_halo(Level)> hessian;
    SumLanes<2> lanes;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int rows = block.rows(valid.height), columns = block.columns(valid.width);
    load_level<Level>(block, level, rows, columns, scratch.hessian);
    for (int i = 0; i < level.count; ++i) {
      hessian_at_scale<Level>(block, level.scale[i], rows, columns, scratch.hessian);
      HessianTiles<Height, Width, level_halo(Level)>& tiles = scratch.hessian;
      // Apart from the sums, which only then vectorise.
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        const Eigenvalues e = eigenvalues(tiles.xx[y][x], tiles.yy[y][x], tiles.xy[y][x]);
        const float valley = e.mean + e.radius, positive = valley > 0 ? valley : 0.0f;
        const bool inside = valid.row(block.y0 + y)[block.x0 + x] != 0;
        tiles.xx[y][x] = inside ? positive : 0.0f;
        tiles.yy[y][x] = inside ? 1.0f : 0.0f;
      });
      const Sums<2> sums = block.template sum_pixels<2>(rows, columns, scratch.lanes, [&](int y, int x) {
        return Sums<2>{{tiles.xx[y][x], tiles.yy[y][x]}};
      });
      block.once([&] {
        sum[i][block.index] = sums.value[0];
        count[i][block.index] = sums.value[1];
      });
    }
  }
};

/// gain of one scale = 1 / (number of scales x mean valley), the mean at least what white noise gives. One tile per scale.
struct MeanValley {
  struct OfScale {
    const float* sum;
    const float* count;
    int tiles;
    float noise_valley;
    float* gain;
  };
  OfScale scale[vesselness_scale_count];
  float scales;

  using CpuTile = TileShape<1, 16>;
  using CudaTile = TileShape<1, 16>;
  template <int Height, int Width>
  struct Scratch {
    SumLanes<2> lanes;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const OfScale& own = scale[block.y0];
    const Sums<2> sums = block.template sum_pixels<2>(1, own.tiles, scratch.lanes, [&](int, int i) {
      return Sums<2>{{own.sum[i], own.count[i]}};
    });
    block.once([&] {
      const float mean = sums.value[1] > 0 ? sums.value[0] / sums.value[1] : 0.0f;
      *own.gain = 1 / (scales * (mean > own.noise_valley ? mean : own.noise_valley));
    });
  }
};

/// Every second pixel, from (0, 0) on.
struct SampleField {
  ImageView<const std::uint8_t> input;
  ImageView<std::uint8_t> output;
  template <int Height, int Width>
  struct Scratch {};
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    block.for_each_pixel(block.rows(output.height), block.columns(output.width),
                         [&](int y, int x) { output.row(block.y0 + y)[block.x0 + x] = input.row(2 * (block.y0 + y))[2 * (block.x0 + x)]; });
  }
};

// ---- Over the scales.

/// A scale in a byte: in fifths of a pixel all of them are whole numbers, and come back as they were.
using ScaleCode = std::uint8_t;
CINELUMEN_HOST_DEVICE inline ScaleCode coded(float scale_px) { return static_cast<ScaleCode>(static_cast<int>(5 * scale_px + 0.5f)); }
CINELUMEN_HOST_DEVICE inline float decoded(ScaleCode code) { return 0.2f * static_cast<float>(code); }

/// Sums over this level's scales and all coarser ones.
template <class T>
struct SumPlanes {
  ImageView<T> ratio;         // ridge over mean clutter, summed; of the classical measures the largest
  ImageView<T> cosine, sine;  // of twice the direction, weighted by the ratio
  ImageView<T> strength;      // the largest
  ImageView<std::conditional_t<std::is_const_v<T>, const ScaleCode, ScaleCode>> scale;  // and where
};

// Even sizes: upsampling writes whole 2 x 2 blocks.
template <int Height, int Width>
using SumTile = Tile<float, Height + Height % 2, Width + Width % 2>;
template <int Height, int Width>
struct StrengthTiles {
  SumTile<Height, Width> strength, scale_px;
};
template <int Height, int Width>
struct SumTiles : StrengthTiles<Height, Width> {
  SumTile<Height, Width> ratio, cosine, sine;
};

/// Scratch of upsample_cubic().
template <int Height, int Width>
struct CubicTiles {
  static constexpr int pitch = Width / 2 + 16;
#ifdef __CUDACC__
  Tile<float, Height / 2 + 4, pitch> coarse;
#endif
  Tile<float, Height + Height % 2, pitch> between;  // rows already fine
};

/// Writes the 2 x 2 fine pixels of every coarse one, linearly between coarse pixels, for a tile that starts at the even pixel (y0, x0).
template <class BlockType, class TileType>
CINELUMEN_HOST_DEVICE void upsample(const BlockType& block, ImageView<const float> coarse, int rows, int columns, TileType& tile) {
  const int y0 = block.y0 / 2, x0 = block.x0 / 2, height = (rows + 1) / 2, width = (columns + 1) / 2;
#ifdef __CUDA_ARCH__
  // A thread per fine pixel: neighbours then write to different banks.
  block.for_each_pixel(2 * height, 2 * width, [&](int y, int x) {
    const int row = y0 + y / 2, column = x0 + x / 2, below = row + y % 2, right = column + x % 2;
    const float* top = coarse.row(row);
    const float* bottom = coarse.row(below < coarse.height ? below : row);
    const int next = right < coarse.width ? right : column;
    tile[y][x] = 0.25f * (top[column] + top[next] + (bottom[column] + bottom[next]));
  });
#else
  const auto write = [&](int y, int x, int right) {
    const float* top = coarse.row(y0 + y);
    const float* bottom = coarse.row(y0 + y + 1 < coarse.height ? y0 + y + 1 : y0 + y);
    const float a = top[x], b = top[right], c = bottom[x], d = bottom[right];
    const int column = 2 * (x - x0);
    tile[2 * y][column] = a;
    tile[2 * y][column + 1] = 0.5f * (a + b);
    tile[2 * y + 1][column] = 0.5f * (a + c);
    tile[2 * y + 1][column + 1] = 0.25f * (a + b + (c + d));
  };
  // The last column has no right neighbour; apart, so that the others vectorise.
  const int inner = x0 + width < coarse.width ? width : coarse.width - 1 - x0;
  block.for_each_pixel(height, inner, [&](int y, int x) { write(y, x0 + x, x0 + x + 1); });
  if (inner < width) block.for_each_pixel(height, 1, [&](int y, int) { write(y, x0 + inner, x0 + inner); });
#endif
}

/// The same by repeating.
template <class BlockType, class TileType>
CINELUMEN_HOST_DEVICE void upsample_nearest(const BlockType& block, ImageView<const ScaleCode> coarse, int rows, int columns,
                                            TileType& tile) {
  const int y0 = block.y0 / 2, x0 = block.x0 / 2;
#ifdef __CUDA_ARCH__
  block.for_each_pixel((rows + 1) / 2, columns,
                       [&](int y, int x) { tile[2 * y][x] = tile[2 * y + 1][x] = decoded(coarse.row(y0 + y)[x0 + x / 2]); });
#else
  block.for_each_pixel((rows + 1) / 2, (columns + 1) / 2, [&](int y, int x) {
    tile[2 * y][2 * x] = tile[2 * y][2 * x + 1] = tile[2 * y + 1][2 * x] = tile[2 * y + 1][2 * x + 1] = decoded(coarse.row(y0 + y)[x0 + x]);
  });
#endif
}

/// The same through cubics, coefficients (-1 9 9 -1) / 16: a ridge's peak between two coarse pixels keeps its height. Border pixels repeat.
template <int Height, int Width, class TileType>
CINELUMEN_HOST_DEVICE void upsample_cubic(const Block<Height, Width>& block, ImageView<const float> coarse, int rows, int columns,
                                          CubicTiles<Height, Width>& tiles, TileType& tile) {
  const int y0 = block.y0 / 2, x0 = block.x0 / 2, width = (columns + 1) / 2, last_row = coarse.height - 1, last = coarse.width - 1;
  const auto middle = [](float p, float q, float r, float s) { return 0.5625f * (q + r) - 0.0625f * (p + s); };
  auto& between = tiles.between;
#ifdef __CUDA_ARCH__
  // From where a sector begins, each pixel read once, and rows as wide as they lie apart.
  constexpr int side = 8, pitch = CubicTiles<Height, Width>::pitch;
  const auto used = [width](int i) { return i >= side - 1 && i < side + width + 2; };
  block.for_each_pixel((rows + 1) / 2 + 3, pitch, [&](int y, int i) {
    if (used(i)) tiles.coarse[y][i] = coarse.row(clamp_int(y0 - 1 + y, 0, last_row))[clamp_int(x0 - side + i, 0, last)];
  });
  block.for_each_pixel(rows, pitch, [&](int y, int i) {
    if (!used(i)) return;
    const float *const from = tiles.coarse[y / 2] + i, own = from[pitch];
    between[y][i] = y % 2 ? middle(from[0], own, from[2 * pitch], from[3 * pitch]) : own;
  });
  block.for_each_pixel(rows, 2 * width, [&](int y, int fine) {
    const float* const from = between[y] + side - 1 + fine / 2;
    tile[y][fine] = fine % 2 ? middle(from[0], from[1], from[2], from[3]) : from[1];
  });
#else
  const auto along_y = [&](int y, int x) {
    const int i = y0 + y / 2;
    const float own = coarse.row(i)[x];
    const float value = middle(coarse.row(i > 0 ? i - 1 : 0)[x], own, coarse.row(i + 1 < last_row ? i + 1 : last_row)[x],
                               coarse.row(i + 2 < last_row ? i + 2 : last_row)[x]);
    return y % 2 ? value : own;
  };
  // Fine rows of coarse columns x0 - 1 ... x0 + width + 1.
  const int left = x0 > 0 ? 0 : 1, inside = (x0 + width + 1 < last ? x0 + width + 1 : last) + 1 - (x0 - 1 + left);
  const int outside = width + 3 - inside;
  block.for_each_pixel(rows, inside, [&](int y, int j) { between[y][left + j] = along_y(y, x0 - 1 + left + j); });
  if (outside > 0)
    block.for_each_pixel(rows, outside, [&](int y, int i) {
      const int j = i < left ? i : i + inside;
      between[y][j] = along_y(y, clamp_int(x0 - 1 + j, 0, last));
    });
  block.for_each_pixel(rows, width, [&](int y, int x) {
    const float own = between[y][x + 1], value = middle(between[y][x], own, between[y][x + 2], between[y][x + 3]);
    tile[y][2 * x] = own;
    tile[y][2 * x + 1] = value;
  });
#endif
}

/// What is worked out besides strength and scale.
enum class Wanted { strength_only, calibrated, classical, classical_response };

/// Scratch of AddScales.
template <int Height, int Width, int Halo, bool StrengthOnly>
struct AddTiles {
  union {
    std::conditional_t<StrengthOnly && on_device, DerivativeTiles<Height, Width, Halo>, HessianTiles<Height, Width, Halo>> hessian;
    CubicTiles<Height, Width> cubic;  // before
  };
  std::conditional_t<StrengthOnly, StrengthTiles<Height, Width>, SumTiles<Height, Width>> sum;
};

struct AddScales {
  LevelScales level;
  SumPlanes<const float> coarser;  // no data: none
  Wanted wanted;
  ClassicalMeasure measure;

  /// Sums over the scales of this level and all coarser ones. `StrengthOnly`: wanted is strength_only.
  template <int Level, int Height, int Width, int Halo, bool StrengthOnly>
  CINELUMEN_HOST_DEVICE void add(const Block<Height, Width>& block, int rows, int columns,
                                 AddTiles<Height, Width, Halo, StrengthOnly>& tiles) const {
    auto& sum = tiles.sum;
    if (coarser.strength.data)
      start_from_coarser(block, rows, columns, tiles);
    else
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        if constexpr (!StrengthOnly) sum.ratio[y][x] = sum.cosine[y][x] = sum.sine[y][x] = 0;
        sum.strength[y][x] = -3e38f;
        sum.scale_px[y][x] = 0;
      });
    if (level.count == 0) return;
    load_level<Level>(block, level, rows, columns, tiles.hessian);
    for (int i = 0; i < level.count; ++i) {
      const ScaleKernels& scale = level.scale[i];
      if constexpr (StrengthOnly) {
        add_strength<Level>(block, scale, rows, columns, tiles);
      } else {
        hessian_at_scale<Level>(block, scale, rows, columns, tiles.hessian);
        add_all(block, scale, rows, columns, tiles.hessian, sum);
      }
    }
  }

 private:
  template <int Height, int Width, int Halo>
  CINELUMEN_HOST_DEVICE void add_all(const Block<Height, Width>& block, const ScaleKernels& scale, int rows, int columns,
                                     const HessianTiles<Height, Width, Halo>& tiles, SumTiles<Height, Width>& sum) const {
    if (wanted == Wanted::calibrated)
      add_calibrated(block, scale, rows, columns, tiles, sum);
    else if (wanted == Wanted::classical_response)
      add_response(block, rows, columns, tiles, sum);
    else if (measure.response == VesselnessResponse::frangi)
      add_classical(block, scale, rows, columns, tiles, sum, [&](float ridge, float other) { return measure.frangi(ridge, other); });
    else if (measure.response == VesselnessResponse::sato)
      add_classical(block, scale, rows, columns, tiles, sum, [](float ridge, float) { return ridge; });
    else
      add_classical(block, scale, rows, columns, tiles, sum, [&](float ridge, float) { return measure.jerman(ridge); });
  }

  template <int Height, int Width, int Halo, bool StrengthOnly>
  CINELUMEN_HOST_DEVICE void start_from_coarser(const Block<Height, Width>& block, int rows, int columns,
                                                AddTiles<Height, Width, Halo, StrengthOnly>& tiles) const {
    if constexpr (!StrengthOnly) {
      upsample(block, coarser.ratio, rows, columns, tiles.sum.ratio);
      if (wanted == Wanted::classical_response) return;
      upsample(block, coarser.cosine, rows, columns, tiles.sum.cosine);
      upsample(block, coarser.sine, rows, columns, tiles.sum.sine);
    }
    upsample_cubic(block, coarser.strength, rows, columns, tiles.cubic, tiles.sum.strength);
    upsample_nearest(block, coarser.scale, rows, columns, tiles.sum.scale_px);
  }

  template <int Level, int Height, int Width, int Halo>
  CINELUMEN_HOST_DEVICE static void add_strength(const Block<Height, Width>& block, const ScaleKernels& scale, int rows, int columns,
                                                 AddTiles<Height, Width, Halo, true>& tiles) {
    const float sigma = scale.sigma_px;
    auto& sum = tiles.sum;
    const auto add = [&](int y, int x, float xx, float yy, float xy) {
      const Eigenvalues e = eigenvalues(xx, yy, xy);
      const float strength = e.radius - e.mean, best = sum.strength[y][x], best_scale = sum.scale_px[y][x];
      sum.scale_px[y][x] = strength > best ? sigma : best_scale;
      sum.strength[y][x] = strength > best ? strength : best;
    };
    auto& hessian = tiles.hessian;
#ifdef __CUDA_ARCH__
    // Room for a larger tile, which reads less beside it.
    for_each_hessian<Level>(block, scale, rows, columns, hessian, add);
#else
    hessian_at_scale<Level>(block, scale, rows, columns, hessian);
    block.for_each_pixel(rows, columns, [&](int y, int x) { add(y, x, hessian.xx[y][x], hessian.yy[y][x], hessian.xy[y][x]); });
#endif
  }

  template <int Height, int Width, int Halo>
  CINELUMEN_HOST_DEVICE static void add_calibrated(const Block<Height, Width>& block, const ScaleKernels& scale, int rows, int columns,
                                                   const HessianTiles<Height, Width, Halo>& tiles, SumTiles<Height, Width>& sum) {
    const float sigma = scale.sigma_px, gain = *scale.gain;
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const float xy = tiles.xy[y][x];
      const Eigenvalues e = eigenvalues(tiles.xx[y][x], tiles.yy[y][x], xy);
      const float strength = e.radius - e.mean, best = sum.strength[y][x], best_scale = sum.scale_px[y][x];
      const float ratio = gain * (strength > 0 ? strength : 0.0f);
      // Twice the direction needs no eigenvector: (difference, xy) points along it, well conditioned wherever there is a direction.
      // The addend exceeds what its square loses to underflow.
      const float unit = ratio / (e.radius + 1e-18f);
      sum.ratio[y][x] += ratio;
      sum.cosine[y][x] += e.difference * unit;
      sum.sine[y][x] += xy * unit;
      sum.scale_px[y][x] = strength > best ? sigma : best_scale;
      sum.strength[y][x] = strength > best ? strength : best;
    });
  }

  /// The largest measure alone.
  template <int Height, int Width, int Halo>
  CINELUMEN_HOST_DEVICE void add_response(const Block<Height, Width>& block, int rows, int columns,
                                          const HessianTiles<Height, Width, Halo>& tiles, SumTiles<Height, Width>& sum) const {
    const auto add_measure = [&](auto measure_of) {
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        const Eigenvalues e = eigenvalues(tiles.xx[y][x], tiles.yy[y][x], tiles.xy[y][x]);
        const float value = measure_of(e.radius - e.mean, e.mean + e.radius), largest = sum.ratio[y][x];
        sum.ratio[y][x] = value > largest ? value : largest;
      });
    };
    if (measure.response == VesselnessResponse::frangi)
      add_measure([&](float ridge, float other) { return measure.frangi(ridge, other); });
    else if (measure.response == VesselnessResponse::sato)
      add_measure([](float ridge, float) { return ridge; });
    else
      add_measure([&](float ridge, float) { return measure.jerman(ridge); });
  }

  /// The largest measure instead of the summed ratio, and the direction at the winning scale alone.
  template <int Height, int Width, int Halo, class Measure>
  CINELUMEN_HOST_DEVICE static void add_classical(const Block<Height, Width>& block, const ScaleKernels& scale, int rows, int columns,
                                                  const HessianTiles<Height, Width, Halo>& tiles, SumTiles<Height, Width>& sum,
                                                  Measure measure_of) {
    const float sigma = scale.sigma_px;
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const float xy = tiles.xy[y][x];
      const Eigenvalues e = eigenvalues(tiles.xx[y][x], tiles.yy[y][x], xy);
      const float strength = e.radius - e.mean, best = sum.strength[y][x], best_scale = sum.scale_px[y][x];
      const float value = measure_of(strength, e.mean + e.radius), largest = sum.ratio[y][x];
      const float cosine = sum.cosine[y][x], sine = sum.sine[y][x];
      sum.ratio[y][x] = value > largest ? value : largest;
      sum.cosine[y][x] = strength > best ? e.difference : cosine;
      sum.sine[y][x] = strength > best ? xy : sine;
      sum.scale_px[y][x] = strength > best ? sigma : best_scale;
      sum.strength[y][x] = strength > best ? strength : best;
    });
  }
};

template <int Level, bool StrengthOnly, int Halo = level_halo(Level)>
struct SumLevel {
  AddScales scales;
  ImageView<const std::uint8_t> needed;  // squares
  SumPlanes<float> output;

  using CudaTile = std::conditional_t<StrengthOnly && Halo == 8, TileShape<48, 32>, DefaultCudaTile>;
  template <int Height, int Width>
  using Scratch = AddTiles<Height, Width, Halo, StrengthOnly>;
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, AddTiles<Height, Width, Halo, StrengthOnly>& scratch) const {
    const int rows = block.rows(output.strength.height), columns = block.columns(output.strength.width);
    if (!any_marked(needed, block.y0, block.x0, rows, columns)) return;
    scales.add<Level>(block, rows, columns, scratch);
    const auto& sum = scratch.sum;
    if constexpr (!StrengthOnly) {
      block.for_each_pixel(rows, columns, [&](int y, int x) { output.ratio.row(block.y0 + y)[block.x0 + x] = sum.ratio[y][x]; });
      if (scales.wanted == Wanted::classical_response) return;
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        output.cosine.row(block.y0 + y)[block.x0 + x] = sum.cosine[y][x];
        output.sine.row(block.y0 + y)[block.x0 + x] = sum.sine[y][x];
      });
    }
    block.for_each_pixel(rows, columns, [&](int y, int x) { output.strength.row(block.y0 + y)[block.x0 + x] = sum.strength[y][x]; });
    block.for_each_pixel(rows, columns, [&](int y, int x) { output.scale.row(block.y0 + y)[block.x0 + x] = coded(sum.scale_px[y][x]); });
  }
};

/// Four floats that are loaded at once: one sample is one load, not three gathers.
#ifdef __CUDACC__
struct alignas(16) Quad {
  float value[4];
  CINELUMEN_HOST_DEVICE float operator[](int i) const { return value[i]; }
  friend CINELUMEN_HOST_DEVICE Quad operator+(const Quad& a, const Quad& b) { return {a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]}; }
  friend CINELUMEN_HOST_DEVICE Quad operator*(float w, const Quad& a) { return {w * a[0], w * a[1], w * a[2], w * a[3]}; }
};
#else
using Quad = float __attribute__((vector_size(16)));
#endif

/// Mean of the ratio along the vessel, at half resolution. A neighbour counts as far as it runs the same way: weight
/// (1 + cos 2 difference) / 2, linear in what is stored.
struct AverageAlong {
  SumPlanes<const float> input;
  ImageView<float> output;
  float window[line_samples + 1];  // sums to 1 over both sides

  using CpuTile = TileShape<32, 128>;
  template <int Height, int Width>
  struct Scratch {
    Tile<Quad, Height + 2 * line_reach, Width + 2 * line_reach> point;  // ratio, cosine, sine, nothing
    Tile<float, Height, Width> cosine, sine;
    Tile<int, Height, Width> step[line_samples];
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    constexpr int R = line_reach, pitch = Width + 2 * R;
    const int rows = block.rows(output.height), columns = block.columns(output.width);
    float w[line_samples + 1];
    for (int k = 0; k <= line_samples; ++k) w[k] = 0.5f * window[k];
    const auto load = [&](int y, int x, int from_y, int from_x) {
      scratch.point[y][x] = Quad{input.ratio.row(from_y)[from_x], input.cosine.row(from_y)[from_x], input.sine.row(from_y)[from_x], 0};
    };
    const int y0 = block.y0 - R, x0 = block.x0 - R, width = columns + 2 * R;
    const int first = x0 > 0 ? x0 : 0, last = x0 + width < input.ratio.width ? x0 + width : input.ratio.width;
    const int left = first - x0, inside = last - first;
    block.for_each_pixel(rows + 2 * R, inside, [&](int y, int x) { load(y, left + x, mirror(y0 + y, input.ratio.height), first + x); });
    if (inside < width)
      block.for_each_pixel(rows + 2 * R, width - inside, [&](int y, int i) {
        const int x = i < left ? i : i + inside;
        load(y, x, mirror(y0 + y, input.ratio.height), mirror(x0 + x, input.ratio.width));
      });
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const float c = input.cosine.row(block.y0 + y)[block.x0 + x], s = input.sine.row(block.y0 + y)[block.x0 + x];
      const float norm = 1 / (sqrtf(c * c + s * s) + 1e-18f);
      const float cosine = c * norm, sine = s * norm;
      const float up = 0.5f * (1 + cosine), down = 0.5f * (1 - cosine);
      const float dx = sqrtf(up > 0 ? up : 0.0f), dy = (sine < 0 ? -1.0f : 1.0f) * sqrtf(down > 0 ? down : 0.0f);
      scratch.cosine[y][x] = cosine;
      scratch.sine[y][x] = sine;
      CINELUMEN_UNROLL
      for (int k = 1; k <= line_samples; ++k)
        scratch.step[k - 1][y][x] =
            static_cast<int>(floorf(k * line_step * dy + 0.5f)) * pitch + static_cast<int>(floorf(k * line_step * dx + 0.5f));
    });
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const Quad* centre = &scratch.point[y + R][x + R];
      Quad sum = w[0] * *centre;
      CINELUMEN_UNROLL
      for (int k = 1; k <= line_samples; ++k) {
        const int step = scratch.step[k - 1][y][x];
        sum = sum + w[k] * (centre[step] + centre[-step]);
      }
      output.row(block.y0 + y)[block.x0 + x] = sum[0] + scratch.cosine[y][x] * sum[1] + scratch.sine[y][x] * sum[2];
    });
  }
};

/// Writes the largest strength times a factor of its scale, and that scale, for tiles of pixels that lie `step` of the image's apart.
struct WriteStrength {
  ImageView<const float> noise_weight;  // of the image; no data: 1
  int step;
  float scale_px[vesselness_scale_count], factor[vesselness_scale_count];
  ImageView<float> output, scale;

  template <int Height, int Width, class Inside>
  CINELUMEN_HOST_DEVICE void operator()(const Block<Height, Width>& block, int rows, int columns, const Inside& inside,
                                        const StrengthTiles<Height, Width>& sum) const {
    float sigma[vesselness_scale_count], factors[vesselness_scale_count];
    for (int i = 0; i < vesselness_scale_count; ++i) sigma[i] = scale_px[i], factors[i] = factor[i];
    const auto write = [&](int y, int x, float weight) {
      const float best = sum.scale_px[y][x];
      float chosen = factors[0];
      CINELUMEN_UNROLL
      for (int i = 1; i < vesselness_scale_count; ++i) chosen = best == sigma[i] ? factors[i] : chosen;
      const float value = weight * chosen * sum.strength[y][x];
      output.row(block.y0 + y)[block.x0 + x] = inside[y][x] > 0 ? value : 0.0f;
      scale.row(block.y0 + y)[block.x0 + x] = best;
    };
    if (!noise_weight.data)
      block.for_each_pixel(rows, columns, [&](int y, int x) { write(y, x, 1); });
    else if (step == 1)
      block.for_each_pixel(rows, columns, [&](int y, int x) { write(y, x, noise_weight.row(block.y0 + y)[block.x0 + x]); });
    else
      block.for_each_pixel(rows, columns,
                           [&](int y, int x) { write(y, x, noise_weight.row(step * (block.y0 + y))[step * (block.x0 + x)]); });
  }
};

// Where a tile may be read: in place of the input, which is no longer needed. Apart from the rest: with bytes among them, loops over floats
// go 64 pixels at a time, which is more than the registers hold.
template <class BlockType, class Inside>
CINELUMEN_HOST_DEVICE void read_inside(const BlockType& block, ImageView<const std::uint8_t> valid, int rows, int columns, Inside& inside) {
  block.for_each_pixel(rows, columns, [&](int y, int x) { inside[y][x] = valid.row(block.y0 + y)[block.x0 + x] != 0 ? 1.0f : 0.0f; });
}

/// Ridge and scale at half resolution.
template <int Halo>
struct FinishHalfMap {
  AddScales scales;
  ImageView<const std::uint8_t> valid;
  ImageView<const std::uint8_t> needed;  // squares
  WriteStrength write_strength;

  using CudaTile = typename SumLevel<1, true, Halo>::CudaTile;
  template <int Height, int Width>
  using Scratch = AddTiles<Height, Width, Halo, true>;
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int rows = block.rows(valid.height), columns = block.columns(valid.width);
    if (!any_marked(needed, block.y0, block.x0, rows, columns)) return;
    scales.add<1>(block, rows, columns, scratch);
    read_inside(block, valid, rows, columns, scratch.hessian.input);
    write_strength(block, rows, columns, scratch.hessian.input, scratch.sum);
  }
};

template <bool StrengthOnly>
struct FinishMap {
  AddScales scales;
  ImageView<const float> along;  // half resolution; no data: the ratio itself
  ImageView<const std::uint8_t> valid;
  float half_over_ratio;
  WriteStrength write_strength;
  ImageView<float> response, angle;
  VesselnessPlanes planes;
  ImageView<const std::int32_t> wanted;  // squares

  template <int Height, int Width>
  struct ScratchOfAll : AddTiles<Height, Width, level_halo(0), false> {
    SumTile<Height, Width> along;
  };
  template <int Height, int Width>
  using Scratch = std::conditional_t<StrengthOnly, AddTiles<Height, Width, level_halo(0), true>, ScratchOfAll<Height, Width>>;
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int rows = block.rows(valid.height), columns = block.columns(valid.width);
    if (!any_marked(wanted, block.y0, block.x0, rows, columns)) return;
    scales.add<0>(block, rows, columns, scratch);
    read_inside(block, valid, rows, columns, scratch.hessian.input);
    if (planes != VesselnessPlanes::response) write_strength(block, rows, columns, scratch.hessian.input, scratch.sum);
    if constexpr (!StrengthOnly) write_response(block, rows, columns, scratch.hessian.input, scratch);
  }

 private:
  template <int Height, int Width, class Inside>
  CINELUMEN_HOST_DEVICE void write_response(const Block<Height, Width>& block, int rows, int columns, const Inside& inside,
                                            ScratchOfAll<Height, Width>& scratch) const {
    const SumTiles<Height, Width>& sum = scratch.sum;
    const auto write = [&](int y, int x, float value) { response.row(block.y0 + y)[block.x0 + x] = inside[y][x] > 0 ? value : 0.0f; };
    if (scales.wanted == Wanted::calibrated) {
      if (along.data) upsample(block, along, rows, columns, scratch.along);
      const auto& line = along.data ? scratch.along : sum.ratio;
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        const float ratio = half_over_ratio * (sum.ratio[y][x] + line[y][x]), square = ratio * ratio;
        write(y, x, square / (1 + square));
      });
    } else {
      block.for_each_pixel(rows, columns, [&](int y, int x) { write(y, x, sum.ratio[y][x]); });
    }
    if (planes == VesselnessPlanes::response) return;
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const float direction = 0.5f * fast_atan2(sum.sine[y][x], sum.cosine[y][x]);
      angle.row(block.y0 + y)[block.x0 + x] = inside[y][x] > 0 ? direction : 0.0f;
    });
  }
};

// ---- Host side.

/// Variance of the sampled decimation kernel, px^2.
std::vector<double> decimation_weights() {
  std::vector<double> weight(decimation_radius + 1);
  double sum = 0;
  for (int k = 0; k <= decimation_radius; ++k)
    sum += (k ? 2 : 1) * (weight[k] = std::exp(-0.5 * k * k / (decimation_sigma_px * decimation_sigma_px)));
  for (double& w : weight) w /= sum;
  return weight;
}

/// Variance that the image of a level already has from decimation, in that level's px^2.
double variance_before(int level) {
  const std::vector<double> weight = decimation_weights();
  double one = 0, total = 0;
  for (int k = 1; k <= decimation_radius; ++k) one += 2 * weight[k] * k * k;
  for (int i = 0; i < level; ++i) total = (total + one) / 4;
  return total;
}

struct DerivativeKernels {
  int radius;
  std::vector<double> smooth, slope, curve;
};

DerivativeKernels derivative_kernels(int scale, int level) {
  const double relative = vesselness_scales_px[scale] / static_cast<double>(1 << level);
  const double variance = relative * relative - variance_before(level), sigma = std::sqrt(variance);
  const int radius = static_cast<int>(std::ceil(4 * sigma - 1e-9));
  DerivativeKernels result{radius, std::vector<double>(radius + 1), std::vector<double>(radius + 1), std::vector<double>(radius + 1)};
  double sum = 0, curve_sum = 0;
  for (int k = 0; k <= radius; ++k) sum += (k ? 2 : 1) * std::exp(-0.5 * k * k / variance);
  for (int k = 0; k <= radius; ++k) {
    const double g = std::exp(-0.5 * k * k / variance) / sum;
    result.smooth[k] = g;
    result.slope[k] = g * k / variance;
    result.curve[k] = g * (k * k / variance - 1) / variance;
    curve_sum += (k ? 2 : 1) * result.curve[k];
  }
  // A constant must not answer.
  for (double& w : result.curve) w -= curve_sum / (2 * radius + 1);
  return result;
}

}  // namespace

std::array<float, vesselness_scale_count> correlation_factors(const std::array<std::array<float, 5>, 5>& autocorrelation) {
  std::array<float, vesselness_scale_count> factors;
  factors.fill(1);
  const double centre = autocorrelation[2][2];
  if (!(centre > 0)) return factors;
  for (int scale = 0; scale < vesselness_scale_count; ++scale) {
    // The filter's own autocorrelation: derivatives of a Gaussian of variance 2 sigma^2, over its value at 0.
    const double variance = 2.0 * vesselness_scales_px[scale] * vesselness_scales_px[scale];
    const auto gaussian = [&](int d) { return std::exp(-0.5 * d * d / variance); };
    const auto fourth = [&](int d) {
      const double u = d * d / variance;
      return gaussian(d) * (u * u - 6 * u + 3) / 3;
    };
    double sum = 0;
    for (int y = -2; y <= 2; ++y)
      for (int x = -2; x <= 2; ++x)
        sum += autocorrelation[y + 2][x + 2] / centre * 0.5 * (fourth(x) * gaussian(y) + fourth(y) * gaussian(x));
    factors[scale] = static_cast<float>(std::sqrt(std::max(sum, 0.01)));
  }
  return factors;
}

namespace {

std::vector<Image<float> VesselnessMap::*> planes_of(VesselnessPlanes planes) {
  switch (planes) {
    case VesselnessPlanes::z_and_scale:
      return {&VesselnessMap::z, &VesselnessMap::scale_px};
    case VesselnessPlanes::ridge_and_scale:
      return {&VesselnessMap::ridge, &VesselnessMap::scale_px};
    case VesselnessPlanes::response:
      return {&VesselnessMap::response};
    case VesselnessPlanes::all:
      break;
  }
  return {&VesselnessMap::response, &VesselnessMap::z, &VesselnessMap::angle, &VesselnessMap::scale_px};
}

}  // namespace

void mark_squares(const Stream& stream, ArrayView<const CrossSection> sections, float reach_px, ImageView<std::int32_t> wanted) {
  require(reach_px >= 0, "mark_squares: reach_px must not be negative");
  set_zero(stream, wanted);
  for_each_item(stream, sections.size, MarkSquares{sections, reach_px, wanted}, 1024);
}

VesselnessMap make_vesselness_map(const Stream& stream, int height, int width, VesselnessPlanes planes) {
  VesselnessMap map;
  const bool decimated = planes == VesselnessPlanes::ridge_and_scale;
  map.pixel_px = decimated ? 2 : 1;
  for (const auto plane : planes_of(planes))
    map.*plane = decimated ? Image<float>(stream, half(height), half(width)) : Image<float>(stream, height, width);
  return map;
}

struct Vesselness::Workspace {
  struct Sum {
    Image<float> ratio, cosine, sine, strength;
    Image<ScaleCode> scale;
    template <class T>
    SumPlanes<T> planes() {
      return {ratio.view(), cosine.view(), sine.view(), strength.view(), scale.view()};
    }
  };

  int height = 0, width = 0;
  ImageView<const std::uint8_t> valid;
  std::array<int, levels> level_height{}, level_width{};
  std::array<Image<float>, levels> image;  // level 0: beyond the field of view, and around it
  std::array<Sum, levels> sum;
  struct Needed {
    Image<std::uint8_t> image, sum;
  };
  std::array<Needed, levels> needed;  // squares
  Image<float> along;
  Image<std::uint8_t> everywhere;
  std::array<Image<std::uint8_t>, levels> field;  // of the coarser levels
  FieldEdge edge;
  Array<CellMoments> cells;
  Array<CellPlane> planes;
  Array<int> measured, fitted, copied;      // cells; see FieldEdge
  Array<std::uint8_t> full_cells, partial;  // likewise
  std::array<Array<float>, vesselness_scale_count> partial_sum, partial_count;
  Array<float> gain;
  std::array<DerivativeKernels, vesselness_scale_count> kernels;
  DerivativeKernels decimated_kernels;  // of finest_decimated, at half resolution
  std::array<float, decimation_radius + 1> decimation{};

  /// Keeps the field, and finds what it has in common for all images. Waits for the device.
  void set_field(const Stream& stream, ImageView<const std::uint8_t> field_of_view) {
    if (field_of_view.data) {
      valid = field_of_view;
      edge = find_field_edge(to_host(stream, valid).view());
    } else {
      everywhere = Image<std::uint8_t>(stream, height, width);
      for_each_tile(stream, height, width, FillBytes{everywhere.view()});
      valid = everywhere.view();
    }
    for (int level = 1; level < levels; ++level)
      for_each_tile(stream, level_height[level], level_width[level],
                    SampleField{level == 1 ? valid : field[level - 1].view(), field[level].view()});
    if (edge.fitted.empty()) return;
    image[0] = Image<float>(stream, height, width);
    cells = Array<CellMoments>(stream, edge.rows * edge.columns);
    planes = Array<CellPlane>(stream, edge.rows * edge.columns);
    const auto upload = [&]<class T>(const std::vector<T>& values) {
      Array<T> host = Array<T>::staging(stream, static_cast<int>(values.size())), result(stream, host.size());
      std::copy(values.begin(), values.end(), host.begin());
      copy<T>(stream, host.view(), result.view());
      stream.synchronize();
      return result;
    };
    measured = upload(edge.measured);
    fitted = upload(edge.fitted);
    copied = upload(edge.copied);
    full_cells = upload(edge.full);
    partial = upload(edge.partial);
  }

  /// `frame`, with image[0] around the edge of the field extended beyond it.
  ReadableImage extend(const Stream& stream, ImageView<const float> frame) {
    if (edge.fitted.empty()) return {frame, {}, nullptr, 0};
    for_each_tile(stream, cell_size * measured.size(), cell_size, MeasureCells{frame, valid, measured.view(), cells.begin(), edge.columns});
    FitCells fit{cells.begin(), planes.begin(), fitted.view(), edge.rows, edge.columns, {}};
    for (int k = 0; k <= cell_reach; ++k) fit.window[k] = std::exp(-0.5f * square(k * cell_size / cell_window_px));
    for_each_item(stream, fitted.size(), fit, 64);
    for_each_tile(stream, cell_size * copied.size(), cell_size,
                  ExtendImage{frame, valid, planes.begin(), full_cells.begin(), copied.view(), edge.rows, edge.columns, image[0].view()});
    return {frame, image[0].view(), partial.begin(), edge.block_columns};
  }

  ScaleKernels scale_kernels(int index, int level) const {
    ScaleKernels result{};
    const DerivativeKernels& weights = level == level_of(index) ? kernels[index] : decimated_kernels;
    result.radius = weights.radius;
    result.sigma_px = vesselness_scales_px[index];
    result.gain = gain.begin() + index;
    const double relative = vesselness_scales_px[index] / static_cast<double>(1 << level), sigma2 = relative * relative;
    for (int k = 0; k <= weights.radius; ++k) {
      result.smooth[k] = static_cast<float>(weights.smooth[k]);
      result.slope_x[k] = static_cast<float>(sigma2 * weights.slope[k]);
      result.slope_y[k] = static_cast<float>(weights.slope[k]);
      result.curve[k] = static_cast<float>(sigma2 * weights.curve[k]);
    }
    return result;
  }

  ReadableImage readable(const ReadableImage& base, int level) const {
    return level == 0 ? base : ReadableImage{image[level].view(), {}, nullptr, 0};
  }

  /// What wanted squares need of each level.
  std::array<NeededSquares, levels> find_needed(const Stream& stream, ImageView<const std::int32_t> wanted, int coarsest,
                                                const LevelScales (&scales)[levels]) {
    std::array<NeededSquares, levels> result{};
    if (!wanted.data) return result;
    // Pixels of the image. A pixel starts from those of the next level up to 5 of its own away; an image is filtered for its own scales,
    // and decimated for the next level's.
    int sum_reach[levels] = {}, image_reach[levels + 1] = {};
    for (int level = 1; level <= coarsest; ++level) sum_reach[level] = sum_reach[level - 1] + 5 * (1 << (level - 1)) + 1;
    for (int level = coarsest; level > 0; --level)
      image_reach[level] = std::max(sum_reach[level] + (scales[level].radius + 1) * (1 << level),
                                    level < coarsest ? image_reach[level + 1] + (decimation_radius + 1) * (1 << level) : 0);
    for (int level = 1; level <= coarsest; ++level) {
      result[level] = {needed[level].image.view(), needed[level].sum.view()};
      for_each_item(stream, result[level].sum.height * result[level].sum.width,
                    FindNeeded{wanted, result[level], 1 << level, image_reach[level], sum_reach[level]});
    }
    return result;
  }

  /// Sums of a level's scales and all coarser ones.
  void sum_level(const Stream& stream, int level, const AddScales& scales, ImageView<const std::uint8_t> squares) {
    const auto run = [&](auto kernel) { for_each_tile(stream, level_height[level], level_width[level], kernel); };
    const SumPlanes<float> to = sum[level].planes<float>();
    if (scales.wanted == Wanted::strength_only) {
      // Without the largest of its scales the half resolution's tiles have room for more pixels.
      if (level == 2)
        run(SumLevel<2, true>{scales, squares, to});
      else if (scales.level.radius <= 8)
        run(SumLevel<1, true, 8>{scales, squares, to});
      else
        run(SumLevel<1, true>{scales, squares, to});
    } else if (level == 2) {
      run(SumLevel<2, false>{scales, squares, to});
    } else {
      run(SumLevel<1, false>{scales, squares, to});
    }
  }

  void finish_half_map(const Stream& stream, const FinishHalfMap<level_halo(1)>& kernel) const {
    if (kernel.scales.level.radius <= 8)
      for_each_tile(stream, level_height[1], level_width[1],
                    FinishHalfMap<8>{kernel.scales, kernel.valid, kernel.needed, kernel.write_strength});
    else
      for_each_tile(stream, level_height[1], level_width[1], kernel);
  }

  template <int Level>
  void measure_valleys(const Stream& stream, const LevelScales& scales, ImageView<const std::uint8_t> of_level, const int* index,
                       MeanValley::OfScale* valleys) {
    if (scales.count == 0) return;
    MeasureValleys<Level> kernel{scales, of_level, {}, {}};
    for (int i = 0; i < scales.count; ++i) {
      kernel.sum[i] = partial_sum[index[i]].begin();
      kernel.count[i] = partial_count[index[i]].begin();
      valleys[i].sum = kernel.sum[i];
      valleys[i].count = kernel.count[i];
      valleys[i].tiles = tile_count<MeasureValleys<Level>>(stream, of_level.height, of_level.width);
      valleys[i].gain = gain.begin() + index[i];
    }
    for_each_tile(stream, of_level.height, of_level.width, kernel);
  }
};

Vesselness::Vesselness(const Stream& stream, int height, int width) : Vesselness(stream, height, width, {}) {}

Vesselness::Vesselness(const Stream& stream, ImageView<const std::uint8_t> valid) : Vesselness(stream, valid.height, valid.width, valid) {}

Vesselness::Vesselness(const Stream& stream, int height, int width, ImageView<const std::uint8_t> valid)
    : workspace_(std::make_unique<Workspace>()) {
  require(height >= 1 && width >= 1, "Vesselness: height and width must be at least 1");
  Workspace& w = *workspace_;
  w.height = height;
  w.width = width;
  for (int level = 0; level < levels; ++level) {
    w.level_height[level] = level ? half(w.level_height[level - 1]) : height;
    w.level_width[level] = level ? half(w.level_width[level - 1]) : width;
    if (level == 0) continue;
    w.image[level] = Image<float>(stream, w.level_height[level], w.level_width[level]);
    w.field[level] = Image<std::uint8_t>(stream, w.level_height[level], w.level_width[level]);
    for (Image<float> Workspace::Sum::*plane :
         {&Workspace::Sum::ratio, &Workspace::Sum::cosine, &Workspace::Sum::sine, &Workspace::Sum::strength})
      w.sum[level].*plane = Image<float>(stream, w.level_height[level], w.level_width[level]);
    w.sum[level].scale = Image<ScaleCode>(stream, w.level_height[level], w.level_width[level]);
    for (Image<std::uint8_t> Workspace::Needed::*plane : {&Workspace::Needed::image, &Workspace::Needed::sum})
      w.needed[level].*plane = Image<std::uint8_t>(stream, squares_along(w.level_height[level]), squares_along(w.level_width[level]));
  }
  w.along = Image<float>(stream, w.level_height[1], w.level_width[1]);
  w.set_field(stream, valid);
  w.gain = Array<float>(stream, vesselness_scale_count);
  for (int scale = 0; scale < vesselness_scale_count; ++scale) {
    w.kernels[scale] = derivative_kernels(scale, level_of(scale));
    // The CUDA tiles are the smallest that run.
    const int tiles = detail::tiles_along(w.level_height[level_of(scale)], DefaultCudaTile::height) *
                      detail::tiles_along(w.level_width[level_of(scale)], DefaultCudaTile::width);
    w.partial_sum[scale] = Array<float>(stream, tiles);
    w.partial_count[scale] = Array<float>(stream, tiles);
  }
  w.decimated_kernels = derivative_kernels(finest_decimated, 1);
  const std::vector<double> decimation = decimation_weights();
  for (int k = 0; k <= decimation_radius; ++k) w.decimation[k] = static_cast<float>(decimation[k]);
}

Vesselness::~Vesselness() = default;
Vesselness::Vesselness(Vesselness&&) noexcept = default;
Vesselness& Vesselness::operator=(Vesselness&&) noexcept = default;

void Vesselness::compute(const Stream& stream, ImageView<const float> image, const VesselnessOptions& options, VesselnessMap& map) {
  Workspace& w = *workspace_;
  require(image.height == w.height && image.width == w.width, "Vesselness: the image's size is not the one given at construction");
  const bool decimated = options.planes == VesselnessPlanes::ridge_and_scale;
  for (const auto plane : planes_of(options.planes))
    require((map.*plane).height() == w.level_height[decimated] && (map.*plane).width() == w.level_width[decimated],
            "Vesselness: the map's size is not what is asked for");
  require(options.noise_sd > 0, "Vesselness: noise_sd must be positive");
  require(!options.noise_weight.data || same_size(options.noise_weight, image), "Vesselness: noise_weight and image differ in size");
  require(options.half_response_ratio > 0, "Vesselness: half_response_ratio must be positive");
  require(options.frangi_beta > 0 && options.frangi_c > 0 && options.jerman_lambda > 0,
          "Vesselness: frangi_beta, frangi_c and jerman_lambda must be positive");
  for (const float factor : options.correlation_factor) require(factor > 0, "Vesselness: correlation_factor must be positive");
  std::vector<int> used;
  for (int i = 0; i < vesselness_scale_count; ++i)
    if (vesselness_scales_px[i] >= options.min_scale_px - 1e-3f && vesselness_scales_px[i] <= options.max_scale_px + 1e-3f &&
        options.use_scale[i])
      used.push_back(i);
  require(!used.empty(), "Vesselness: no scale lies between min_scale_px and max_scale_px");
  require(!decimated || used.front() >= finest_decimated, "Vesselness: ridge and scale at half resolution are from 2 px on");
  const auto level_used = [&](int scale) { return decimated && scale == finest_decimated ? 1 : level_of(scale); };
  const int coarsest = level_used(used.back());
  const bool calibrated = options.response == VesselnessResponse::noise_calibrated;
  const Wanted wanted = decimated || options.planes == VesselnessPlanes::z_and_scale ? Wanted::strength_only
                        : calibrated                                                 ? Wanted::calibrated
                        : options.planes == VesselnessPlanes::response               ? Wanted::classical_response
                                                                                     : Wanted::classical;

  require(!options.wanted.data || (wanted == Wanted::strength_only && options.wanted.height == squares_along(w.height) &&
                                   options.wanted.width == squares_along(w.width)),
          "Vesselness: wanted is for z or ridge and scale alone, and has an element per square of the image");

  const ReadableImage base = w.extend(stream, image);
  LevelScales scales[levels] = {};
  int index[levels][scales_of_level];
  for (int level = 0; level < levels; ++level) scales[level].input = w.readable(base, level);
  for (const int i : used) {
    const int level = level_used(i);
    LevelScales& own = scales[level];
    index[level][own.count] = i;
    own.scale[own.count] = w.scale_kernels(i, level);
    own.radius = std::max(own.radius, own.scale[own.count++].radius);
  }
  const std::array<NeededSquares, levels> needed = w.find_needed(stream, options.wanted, coarsest, scales);
  for (int level = 1; level <= coarsest; ++level) {
    Decimate decimate{w.readable(base, level - 1), needed[level].image, w.image[level].view(), {}};
    for (int k = 0; k <= decimation_radius; ++k) decimate.weight[k] = w.decimation[k];
    for_each_tile(stream, w.level_height[level], w.level_width[level], decimate);
  }

  if (wanted == Wanted::calibrated) {
    MeanValley mean{{}, static_cast<float>(used.size())};
    MeanValley::OfScale* valleys = mean.scale;
    w.measure_valleys<0>(stream, scales[0], w.valid, index[0], valleys);
    valleys += scales[0].count;
    w.measure_valleys<1>(stream, scales[1], w.field[1].view(), index[1], valleys);
    valleys += scales[1].count;
    w.measure_valleys<2>(stream, scales[2], w.field[2].view(), index[2], valleys);
    for (std::size_t i = 0; i < used.size(); ++i)
      mean.scale[i].noise_valley = static_cast<float>(white_noise_valley_mean * options.noise_sd * options.correlation_factor[used[i]] /
                                                      vesselness_scales_px[used[i]]);
    for_each_tile(stream, static_cast<int>(used.size()), 1, mean);
  }

  const float half_log2_e = 0.72134752f;
  const ClassicalMeasure measure{options.response, -half_log2_e / square(options.frangi_beta), -half_log2_e / square(options.frangi_c),
                                 options.jerman_lambda};
  const auto scales_at = [&](int level) {
    return AddScales{scales[level], level < coarsest ? w.sum[level + 1].planes<const float>() : SumPlanes<const float>{}, wanted, measure};
  };
  WriteStrength write_strength{options.noise_weight, decimated ? 2 : 1, {}, {}, decimated ? map.ridge.view() : map.z.view(),
                               map.scale_px.view()};
  for (int i = 0; i < vesselness_scale_count; ++i) {
    write_strength.scale_px[i] = vesselness_scales_px[i];
    write_strength.factor[i] = static_cast<float>((decimated ? 1.0f : vesselness_scales_px[i]) /
                                                  (white_noise_hessian_sd * options.noise_sd * options.correlation_factor[i]));
  }
  for (int level = coarsest; level > (decimated ? 1 : 0); --level) w.sum_level(stream, level, scales_at(level), needed[level].sum);
  if (decimated) {
    w.finish_half_map(stream, FinishHalfMap<level_halo(1)>{scales_at(1), w.field[1].view(), needed[1].sum, write_strength});
    return;
  }

  const bool elongated = options.elongation && wanted == Wanted::calibrated && coarsest > 0;
  if (elongated) {
    AverageAlong average{w.sum[1].planes<const float>(), w.along.view(), {}};
    double total = 0;
    for (int k = 0; k <= line_samples; ++k) total += (k ? 2 : 1) * std::exp(-0.5 * std::pow(k * line_step / double(line_window), 2));
    for (int k = 0; k <= line_samples; ++k)
      average.window[k] = static_cast<float>(std::exp(-0.5 * std::pow(k * line_step / double(line_window), 2)) / total);
    for_each_tile(stream, w.level_height[1], w.level_width[1], average);
  }
  const ImageView<const float> along = elongated ? ImageView<const float>(w.along.view()) : ImageView<const float>{};
  const auto finish = [&](auto kind) {
    for_each_tile(stream, w.height, w.width,
                  FinishMap<kind>{scales_at(0), along, w.valid, 0.5f / options.half_response_ratio, write_strength, map.response.view(),
                                  map.angle.view(), options.planes, options.wanted});
  };
  if (wanted == Wanted::strength_only)
    finish(std::true_type{});
  else
    finish(std::false_type{});
}

}  // namespace cinelumen
