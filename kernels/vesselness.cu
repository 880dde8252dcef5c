#include "vesselness.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "math.h"
#include "tile.h"

// Taps are unrolled so that the loop over pixels around them vectorises.
#ifdef __CUDACC__
#define CINELUMEN_UNROLL _Pragma("unroll")
#else
#define CINELUMEN_UNROLL _Pragma("GCC unroll 16")
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

constexpr int level_of(int scale) { return scale < 3 ? 0 : (scale < 5 ? 1 : 2); }
int half(int n) { return (n + 1) / 2; }

// ---- Beyond the field of view: a plane per cell, fitted to the valid pixels near it.

/// Moments of one cell's valid pixels about its centre, in cells.
struct CellMoments {
  float m, x, y, xx, xy, yy, l, lx, ly;
};
struct CellPlane {
  float value, slope_x, slope_y;  // at the cell's centre; per cell
};

struct MeasureCells {
  ImageView<const float> image;
  ImageView<const std::uint8_t> valid;
  CellMoments* cells;
  int columns;

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const int y0 = i / columns * cell_size, x0 = i % columns * cell_size;
    const int height = image.height - y0 < cell_size ? image.height - y0 : cell_size;
    const int width = image.width - x0 < cell_size ? image.width - x0 : cell_size;
    // Sums over y first, lane by lane: the sums over x then cost a sixteenth.
    float m[cell_size], my[cell_size], myy[cell_size], l[cell_size], ly[cell_size];
    for (int x = 0; x < cell_size; ++x) m[x] = my[x] = myy[x] = l[x] = ly[x] = 0;
    for (int y = 0; y < height; ++y) {
      const float t = (y - 0.5f * (cell_size - 1)) / cell_size;
      const float* value = image.row(y0 + y) + x0;
      const std::uint8_t* inside = valid.row(y0 + y) + x0;
      for (int x = 0; x < width; ++x) {
        const float w = inside[x] ? 1.0f : 0.0f, v = inside[x] ? value[x] : 0.0f;
        m[x] += w;
        my[x] += w * t;
        myy[x] += w * t * t;
        l[x] += v;
        ly[x] += v * t;
      }
    }
    CellMoments sum = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (int x = 0; x < width; ++x) {
      const float t = (x - 0.5f * (cell_size - 1)) / cell_size;
      sum.m += m[x];
      sum.x += m[x] * t;
      sum.y += my[x];
      sum.xx += m[x] * t * t;
      sum.xy += my[x] * t;
      sum.yy += myy[x];
      sum.l += l[x];
      sum.lx += l[x] * t;
      sum.ly += ly[x];
    }
    cells[i] = sum;
  }
};

struct FitCells {
  const CellMoments* cells;
  CellPlane* planes;
  int height, width, rows, columns;  // of the image, of the grid
  float window[cell_reach + 1];

  CINELUMEN_HOST_DEVICE bool full(int row, int column) const {
    const int h = height - row * cell_size < cell_size ? height - row * cell_size : cell_size;
    const int w = width - column * cell_size < cell_size ? width - column * cell_size : cell_size;
    return cells[row * columns + column].m > h * w - 0.5f;
  }

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const int row = i / columns, column = i % columns;
    bool needed = false;
    for (int y = row > 0 ? row - 1 : 0; y <= row + 1 && y < rows; ++y)
      for (int x = column > 0 ? column - 1 : 0; x <= column + 1 && x < columns; ++x) needed = needed || !full(y, x);
    planes[i] = {0, 0, 0};
    if (!needed) return;
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
    planes[i] = {l - slope_x * x - slope_y * y, slope_x, slope_y};
  }
};

struct ExtendImage {
  ImageView<const float> image;
  ImageView<const std::uint8_t> valid;
  const CellPlane* planes;
  int rows, columns;
  ImageView<float> output;

  template <int Height, int Width>
  struct Scratch {
    SumLanes<1> lanes;
  };

  CINELUMEN_HOST_DEVICE float plane_at(int y, int x) const {
    const float v = (y + 0.5f) / cell_size - 0.5f, u = (x + 0.5f) / cell_size - 0.5f;
    const int row = static_cast<int>(floorf(v)), column = static_cast<int>(floorf(u));
    float sum = 0;
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j) {
        const int r = clamp_int(row + i, 0, rows - 1), c = clamp_int(column + j, 0, columns - 1);
        const CellPlane plane = planes[r * columns + c];
        const float weight = (i ? v - row : 1 - (v - row)) * (j ? u - column : 1 - (u - column));
        sum += weight * (plane.value + plane.slope_x * (u - c) + plane.slope_y * (v - r));
      }
    return sum;
  }

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int height = block.rows(output.height), width = block.columns(output.width);
    block.for_each_pixel(height, width,
                         [&](int y, int x) { output.row(block.y0 + y)[block.x0 + x] = image.row(block.y0 + y)[block.x0 + x]; });
    const Sums<1> outside = block.template sum_pixels<1>(
        height, width, scratch.lanes, [&](int y, int x) { return Sums<1>{{valid.row(block.y0 + y)[block.x0 + x] ? 0.0f : 1.0f}}; });
    if (outside.value[0] < 0.5f) return;
    block.for_each_pixel(height, width, [&](int y, int x) {
      if (!valid.row(block.y0 + y)[block.x0 + x]) output.row(block.y0 + y)[block.x0 + x] = plane_at(block.y0 + y, block.x0 + x);
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

/// Loads rows x columns input pixels from (y0, x0) on, mirrored about the border; a barrier follows.
template <class BlockType, class TileType>
CINELUMEN_HOST_DEVICE void load_mirrored(const BlockType& block, ImageView<const float> input, int y0, int x0, int rows, int columns,
                                         TileType& tile) {
  const int first = x0 > 0 ? x0 : 0, last = x0 + columns < input.width ? x0 + columns : input.width;
  const int left = first - x0, inside = last - first, outside = columns - inside;
  block.for_each_pixel(rows, inside, [&](int y, int x) { tile[y][left + x] = input.row(mirror(y0 + y, input.height))[first + x]; });
  if (outside > 0)
    block.for_each_pixel(rows, outside, [&](int y, int x) {
      const int column = x < left ? x : x + inside;
      tile[y][column] = input.row(mirror(y0 + y, input.height))[mirror(x0 + column, input.width)];
    });
}

/// Gaussian, then every second pixel, from (0, 0) on.
struct Decimate {
  ImageView<const float> input;
  ImageView<float> output;
  float weight[decimation_radius + 1];

  using CpuTile = TileShape<32, 128>;
  template <int Height, int Width>
  struct Scratch {
    Tile<float, 2 * Height + 2 * decimation_radius, 2 * Width + 2 * decimation_radius> input;
    Tile<float, Height, 2 * Width + 2 * decimation_radius> rows;
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    constexpr int R = decimation_radius;
    const int rows = block.rows(output.height), columns = block.columns(output.width);
    float w[R + 1];
    for (int k = 0; k <= R; ++k) w[k] = weight[k];
    load_mirrored(block, input, 2 * block.y0 - R, 2 * block.x0 - R, 2 * rows + 2 * R, 2 * columns + 2 * R, scratch.input);
    block.for_each_pixel(rows, 2 * columns + 2 * R, [&](int y, int x) {
      float sum = w[0] * scratch.input[2 * y + R][x];
      for (int k = 1; k <= R; ++k) sum += w[k] * (scratch.input[2 * y + R - k][x] + scratch.input[2 * y + R + k][x]);
      scratch.rows[y][x] = sum;
    });
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      float sum = w[0] * scratch.rows[y][2 * x + R];
      for (int k = 1; k <= R; ++k) sum += w[k] * (scratch.rows[y][2 * x + R - k] + scratch.rows[y][2 * x + R + k]);
      output.row(block.y0 + y)[block.x0 + x] = sum;
    });
  }
};

/// What one scale leaves behind, at its level's resolution.
struct ScalePlanes {
  ImageView<float> strength;      // -sigma^2 lambda2, negative where there is no bright ridge
  ImageView<float> cosine, sine;  // max(strength, 0) times cosine and sine of twice the vessel's direction
  ImageView<float> classical;     // Frangi's, Sato's or Jerman's measure; no data for the default response
};

/// The default response stores no measure of its own: it needs the mean over the frame first.
struct ClassicalMeasure {
  VesselnessResponse response;
  float minus_half_over_beta2, minus_half_over_c2, lambda_rho;

  CINELUMEN_HOST_DEVICE float frangi(float ridge, float other) const {
    const float ratio2 = other * other / (ridge * ridge + 1e-30f);
    const float value = fast_exp(minus_half_over_beta2 * ratio2) * (1 - fast_exp(minus_half_over_c2 * (ridge * ridge + other * other)));
    // |lambda1| <= |lambda2| and lambda2 < 0: a valley crossing a weaker ridge is not a bright vessel.
    return ridge > 0 && other <= ridge ? value : 0.0f;
  }
  CINELUMEN_HOST_DEVICE float jerman(float ridge) const {
    const float sum = ridge + lambda_rho;
    const float value = ridge * ridge * (lambda_rho - ridge) * 27 / (sum * sum * sum);
    return ridge <= 0 ? 0.0f : (ridge >= 0.5f * lambda_rho ? 1.0f : value);
  }
};

template <int Radius>
struct HessianAtScale {
  ImageView<const float> input;
  ImageView<const std::uint8_t> valid;  // at full resolution
  int stride;                           // of this level's pixels in it
  ScalePlanes planes;
  ClassicalMeasure measure;
  float* partial_sum;  // of the valleys, per tile
  float* partial_count;
  float smooth[Radius + 1], slope_x[Radius + 1], slope_y[Radius + 1], curve[Radius + 1];  // slope_x and curve carry sigma^2

  template <int Height, int Width>
  struct Scratch {
    Tile<float, Height + 2 * Radius, Width + 2 * Radius> input;
    Tile<float, Height + 2 * Radius, Width> smoothed, slope, curvature;
    SumLanes<2> lanes;
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    constexpr int R = Radius;
    const int rows = block.rows(input.height), columns = block.columns(input.width);
    float g[R + 1], gx[R + 1], gy[R + 1], gg[R + 1];
    for (int k = 0; k <= R; ++k) g[k] = smooth[k], gx[k] = slope_x[k], gy[k] = slope_y[k], gg[k] = curve[k];
    load_mirrored(block, input, block.y0 - R, block.x0 - R, rows + 2 * R, columns + 2 * R, scratch.input);
    block.for_each_pixel(rows + 2 * R, columns, [&](int y, int x) {
      const float* centre = scratch.input[y] + x + R;
      float smoothed = g[0] * centre[0], curvature = gg[0] * centre[0], slope = 0;
      CINELUMEN_UNROLL
      for (int k = 1; k <= R; ++k) {
        const float both = centre[k] + centre[-k];
        smoothed += g[k] * both;
        curvature += gg[k] * both;
        slope += gx[k] * (centre[k] - centre[-k]);
      }
      scratch.smoothed[y][x] = smoothed;
      scratch.slope[y][x] = slope;
      scratch.curvature[y][x] = curvature;
    });
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      float xx = g[0] * scratch.curvature[y + R][x], yy = gg[0] * scratch.smoothed[y + R][x], xy = 0;
      CINELUMEN_UNROLL
      for (int k = 1; k <= R; ++k) {
        xx += g[k] * (scratch.curvature[y + R + k][x] + scratch.curvature[y + R - k][x]);
        yy += gg[k] * (scratch.smoothed[y + R + k][x] + scratch.smoothed[y + R - k][x]);
        xy += gy[k] * (scratch.slope[y + R + k][x] - scratch.slope[y + R - k][x]);
      }
      const float mean = 0.5f * (xx + yy), difference = 0.5f * (xx - yy);
      const float radius = sqrtf(difference * difference + xy * xy);
      const float strength = radius - mean;
      // Twice the direction needs no eigenvector: (difference, xy) points along it, well conditioned wherever there is a direction.
      // The addend exceeds what its square loses to underflow.
      const float unit = (strength > 0 ? strength : 0.0f) / (radius + 1e-18f);
      planes.strength.row(block.y0 + y)[block.x0 + x] = strength;
      planes.cosine.row(block.y0 + y)[block.x0 + x] = difference * unit;
      planes.sine.row(block.y0 + y)[block.x0 + x] = xy * unit;
      scratch.input[y][x] = mean + radius;
    });
    const Sums<2> sums = block.template sum_pixels<2>(rows, columns, scratch.lanes, [&](int y, int x) {
      const float inside = valid.row((block.y0 + y) * stride)[(block.x0 + x) * stride] ? 1.0f : 0.0f;
      const float valley = scratch.input[y][x];
      return Sums<2>{{inside * (valley > 0 ? valley : 0.0f), inside}};
    });
    block.once([&] {
      partial_sum[block.index] = sums.value[0];
      partial_count[block.index] = sums.value[1];
    });
    if (measure.response == VesselnessResponse::frangi)
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        const float other = scratch.input[y][x];
        planes.classical.row(block.y0 + y)[block.x0 + x] = measure.frangi(planes.strength.row(block.y0 + y)[block.x0 + x], other);
      });
    else if (measure.response == VesselnessResponse::sato)
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        const float ridge = planes.strength.row(block.y0 + y)[block.x0 + x];
        planes.classical.row(block.y0 + y)[block.x0 + x] = ridge > 0 ? ridge : 0.0f;
      });
    else if (measure.response == VesselnessResponse::jerman)
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        planes.classical.row(block.y0 + y)[block.x0 + x] = measure.jerman(planes.strength.row(block.y0 + y)[block.x0 + x]);
      });
  }
};

/// gain of one scale = 1 / (number of scales x mean valley), the mean at least what white noise gives. One tile.
struct MeanValley {
  const float* partial_sum;
  const float* partial_count;
  int count;
  float noise_valley, scales;
  float* gain;

  template <int Height, int Width>
  struct Scratch {
    SumLanes<2> lanes;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const Sums<2> sums = block.template sum_pixels<2>(1, count, scratch.lanes, [&](int, int i) {
      return Sums<2>{{partial_sum[i], partial_count[i]}};
    });
    block.once([&] {
      const float mean = sums.value[1] > 0 ? sums.value[0] / sums.value[1] : 0.0f;
      *gain = 1 / (scales * (mean > noise_valley ? mean : noise_valley));
    });
  }
};

// ---- Over the scales.

/// Sums over this level's scales and all coarser ones.
template <class T>
struct SumPlanes {
  ImageView<T> ratio;               // ridge over mean clutter, summed; of the classical measures the largest
  ImageView<T> cosine, sine;        // of twice the direction, weighted by the ratio
  ImageView<T> strength, scale_px;  // the largest, and where
};

template <int Height, int Width>
struct SumTiles {
  // Even sizes: upsampling writes whole 2 x 2 blocks.
  Tile<float, Height + Height % 2, Width + Width % 2> ratio, cosine, sine, strength, scale_px;
};

/// Writes the 2 x 2 fine pixels of every coarse one, linearly between coarse pixels, for a tile that starts at the even pixel (y0, x0).
template <class BlockType, class TileType>
CINELUMEN_HOST_DEVICE void upsample(const BlockType& block, ImageView<const float> coarse, int rows, int columns, TileType& tile) {
  const int y0 = block.y0 / 2, x0 = block.x0 / 2, height = (rows + 1) / 2, width = (columns + 1) / 2;
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
}

/// The same through cubics, coefficients (-1 9 9 -1) / 16: a ridge's peak between two coarse pixels keeps its height.
template <class BlockType, class TileType>
CINELUMEN_HOST_DEVICE void upsample_cubic(const BlockType& block, ImageView<const float> coarse, int rows, int columns, TileType& tile) {
  const int y0 = block.y0 / 2, x0 = block.x0 / 2, height = (rows + 1) / 2, width = (columns + 1) / 2;
  const auto write = [&](int y, int x, int before, int next, int after) {
    const int last = coarse.height - 1;
    const float* a = coarse.row(clamp_int(y0 + y - 1, 0, last));
    const float* b = coarse.row(y0 + y);
    const float* c = coarse.row(clamp_int(y0 + y + 1, 0, last));
    const float* d = coarse.row(clamp_int(y0 + y + 2, 0, last));
    const auto middle = [](float p, float q, float r, float s) { return 0.5625f * (q + r) - 0.0625f * (p + s); };
    const int column = 2 * (x - x0);
    tile[2 * y][column] = b[x];
    tile[2 * y][column + 1] = middle(b[before], b[x], b[next], b[after]);
    tile[2 * y + 1][column] = middle(a[x], b[x], c[x], d[x]);
    tile[2 * y + 1][column + 1] = middle(middle(a[before], a[x], a[next], a[after]), middle(b[before], b[x], b[next], b[after]),
                                         middle(c[before], c[x], c[next], c[after]), middle(d[before], d[x], d[next], d[after]));
  };
  const int first = x0 > 0 ? x0 : 1, end = x0 + width < coarse.width - 2 ? x0 + width : coarse.width - 2;
  const int inner = end > first ? end - first : 0, left = inner > 0 ? first - x0 : 0;
  if (inner > 0)
    block.for_each_pixel(height, inner, [&](int y, int x) { write(y, first + x, first + x - 1, first + x + 1, first + x + 2); });
  if (inner < width)
    block.for_each_pixel(height, width - inner, [&](int y, int i) {
      const int x = x0 + (i < left ? i : i + inner), last = coarse.width - 1;
      write(y, x, clamp_int(x - 1, 0, last), clamp_int(x + 1, 0, last), clamp_int(x + 2, 0, last));
    });
}

struct AddScales {
  ScalePlanes scale[3];
  float sigma_px[3];
  const float* gain[3];
  int count;
  SumPlanes<const float> coarser;  // no data: none
  bool classical;

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(const Block<Height, Width>& block, int rows, int columns, SumTiles<Height, Width>& sum) const {
    if (coarser.ratio.data) {
      upsample(block, coarser.ratio, rows, columns, sum.ratio);
      upsample(block, coarser.cosine, rows, columns, sum.cosine);
      upsample(block, coarser.sine, rows, columns, sum.sine);
      upsample_cubic(block, coarser.strength, rows, columns, sum.strength);
      block.for_each_pixel((rows + 1) / 2, (columns + 1) / 2, [&](int y, int x) {
        const float scale_px = coarser.scale_px.row(block.y0 / 2 + y)[block.x0 / 2 + x];
        sum.scale_px[2 * y][2 * x] = scale_px;
        sum.scale_px[2 * y][2 * x + 1] = scale_px;
        sum.scale_px[2 * y + 1][2 * x] = scale_px;
        sum.scale_px[2 * y + 1][2 * x + 1] = scale_px;
      });
    } else {
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        sum.ratio[y][x] = 0;
        sum.cosine[y][x] = 0;
        sum.sine[y][x] = 0;
        sum.strength[y][x] = -3e38f;
        sum.scale_px[y][x] = 0;
      });
    }
    for (int i = 0; i < count; ++i) {
      const ScalePlanes& own = scale[i];
      const float g = *gain[i], sigma = sigma_px[i];
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        const float strength = own.strength.row(block.y0 + y)[block.x0 + x], best = sum.strength[y][x];
        sum.ratio[y][x] += g * (strength > 0 ? strength : 0.0f);
        sum.cosine[y][x] += g * own.cosine.row(block.y0 + y)[block.x0 + x];
        sum.sine[y][x] += g * own.sine.row(block.y0 + y)[block.x0 + x];
        sum.scale_px[y][x] = strength > best ? sigma : sum.scale_px[y][x];
        sum.strength[y][x] = strength > best ? strength : best;
      });
    }
  }

  /// The same with the largest measure instead of the summed ratio.
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void take_largest(const Block<Height, Width>& block, int rows, int columns, SumTiles<Height, Width>& sum) const {
    if (coarser.ratio.data)
      upsample(block, coarser.ratio, rows, columns, sum.ratio);
    else
      block.for_each_pixel(rows, columns, [&](int y, int x) { sum.ratio[y][x] = 0; });
    for (int i = 0; i < count; ++i) {
      const ScalePlanes& own = scale[i];
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        const float value = own.classical.row(block.y0 + y)[block.x0 + x], largest = sum.ratio[y][x];
        sum.ratio[y][x] = value > largest ? value : largest;
      });
    }
  }
};

struct SumLevel {
  AddScales scales;
  SumPlanes<float> output;

  template <int Height, int Width>
  struct Scratch {
    SumTiles<Height, Width> sum;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int rows = block.rows(output.ratio.height), columns = block.columns(output.ratio.width);
    scales(block, rows, columns, scratch.sum);
    if (scales.classical) scales.take_largest(block, rows, columns, scratch.sum);
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      output.ratio.row(block.y0 + y)[block.x0 + x] = scratch.sum.ratio[y][x];
      output.cosine.row(block.y0 + y)[block.x0 + x] = scratch.sum.cosine[y][x];
      output.sine.row(block.y0 + y)[block.x0 + x] = scratch.sum.sine[y][x];
      output.strength.row(block.y0 + y)[block.x0 + x] = scratch.sum.strength[y][x];
      output.scale_px.row(block.y0 + y)[block.x0 + x] = scratch.sum.scale_px[y][x];
    });
  }
};

/// Mean of the ratio along the vessel, at half resolution. A neighbour counts as far as it runs the same way: weight
/// (1 + cos 2 difference) / 2, linear in what is stored.
struct AverageAlong {
  SumPlanes<const float> input;
  ImageView<float> output;
  float window[line_samples + 1];  // sums to 1 over both sides

  template <int Height, int Width>
  struct Scratch {
    Tile<float, Height + 2 * line_reach, Width + 2 * line_reach> ratio, cosine, sine;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    constexpr int R = line_reach, pitch = Width + 2 * R;
    const int rows = block.rows(output.height), columns = block.columns(output.width);
    float w[line_samples + 1];
    for (int k = 0; k <= line_samples; ++k) w[k] = 0.5f * window[k];
    load_mirrored(block, input.ratio, block.y0 - R, block.x0 - R, rows + 2 * R, columns + 2 * R, scratch.ratio);
    load_mirrored(block, input.cosine, block.y0 - R, block.x0 - R, rows + 2 * R, columns + 2 * R, scratch.cosine);
    load_mirrored(block, input.sine, block.y0 - R, block.x0 - R, rows + 2 * R, columns + 2 * R, scratch.sine);
    const float* ratios = &scratch.ratio[0][0];
    const float* cosines = &scratch.cosine[0][0];
    const float* sines = &scratch.sine[0][0];
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const int centre = (y + R) * pitch + x + R;
      const float c = cosines[centre], s = sines[centre];
      const float norm = 1 / (sqrtf(c * c + s * s) + 1e-18f);
      const float cosine = c * norm, sine = s * norm;
      const float up = 0.5f * (1 + cosine), down = 0.5f * (1 - cosine);
      const float dx = sqrtf(up > 0 ? up : 0.0f), dy = (sine < 0 ? -1.0f : 1.0f) * sqrtf(down > 0 ? down : 0.0f);
      float sum = w[0] * (ratios[centre] + cosine * c + sine * s);
      CINELUMEN_UNROLL
      for (int k = 1; k <= line_samples; ++k) {
        const int step = static_cast<int>(floorf(k * line_step * dy + 0.5f)) * pitch + static_cast<int>(floorf(k * line_step * dx + 0.5f));
        const int a = centre + step, b = centre - step;
        sum += w[k] * ((ratios[a] + ratios[b]) + cosine * (cosines[a] + cosines[b]) + sine * (sines[a] + sines[b]));
      }
      output.row(block.y0 + y)[block.x0 + x] = sum;
    });
  }
};

struct FinishMap {
  AddScales scales;
  ImageView<const float> along;  // half resolution; no data: the ratio itself
  ImageView<const std::uint8_t> valid;
  ImageView<const float> noise_weight;  // no data: 1
  float half_over_ratio;
  float scale_px[vesselness_scale_count], z_factor[vesselness_scale_count];
  ImageView<float> response, z, angle, scale;

  template <int Height, int Width>
  struct Scratch {
    SumTiles<Height, Width> sum;
    Tile<float, Height + Height % 2, Width + Width % 2> along;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int rows = block.rows(response.height), columns = block.columns(response.width);
    SumTiles<Height, Width>& sum = scratch.sum;
    scales(block, rows, columns, sum);
    float sigma[vesselness_scale_count], factor[vesselness_scale_count];
    for (int i = 0; i < vesselness_scale_count; ++i) sigma[i] = scale_px[i], factor[i] = z_factor[i];
    const bool weighted = noise_weight.data != nullptr;
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const bool inside = valid.row(block.y0 + y)[block.x0 + x] != 0;
      const float best = sum.scale_px[y][x];
      float to_z = factor[0];
      CINELUMEN_UNROLL
      for (int i = 1; i < vesselness_scale_count; ++i) to_z = best == sigma[i] ? factor[i] : to_z;
      const float twice = fast_atan2(sum.sine[y][x], sum.cosine[y][x]);
      if (weighted) to_z *= noise_weight.row(block.y0 + y)[block.x0 + x];
      z.row(block.y0 + y)[block.x0 + x] = inside ? to_z * sum.strength[y][x] : 0.0f;
      angle.row(block.y0 + y)[block.x0 + x] = inside ? 0.5f * twice : 0.0f;
      scale.row(block.y0 + y)[block.x0 + x] = best;
    });
    if (scales.classical) {
      scales.take_largest(block, rows, columns, sum);
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        response.row(block.y0 + y)[block.x0 + x] = valid.row(block.y0 + y)[block.x0 + x] != 0 ? sum.ratio[y][x] : 0.0f;
      });
      return;
    }
    if (along.data)
      upsample(block, along, rows, columns, scratch.along);
    else
      block.for_each_pixel(rows, columns, [&](int y, int x) { scratch.along[y][x] = sum.ratio[y][x]; });
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const float ratio = half_over_ratio * (sum.ratio[y][x] + scratch.along[y][x]), square = ratio * ratio;
      response.row(block.y0 + y)[block.x0 + x] = valid.row(block.y0 + y)[block.x0 + x] != 0 ? square / (1 + square) : 0.0f;
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

DerivativeKernels derivative_kernels(int scale) {
  const int level = level_of(scale);
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

VesselnessMap make_vesselness_map(const Stream& stream, int height, int width) {
  return {Image<float>(stream, height, width), Image<float>(stream, height, width), Image<float>(stream, height, width),
          Image<float>(stream, height, width)};
}

struct Vesselness::Workspace {
  struct Scale {
    Image<float> strength, cosine, sine, classical;
    ScalePlanes planes() { return {strength.view(), cosine.view(), sine.view(), classical.view()}; }
  };
  struct Sum {
    Image<float> ratio, cosine, sine, strength, scale_px;
    template <class T>
    SumPlanes<T> planes() {
      return {ratio.view(), cosine.view(), sine.view(), strength.view(), scale_px.view()};
    }
  };

  int height = 0, width = 0;
  std::array<int, levels> level_height{}, level_width{};
  std::array<Image<float>, levels> image;  // level 0: extended beyond the field of view
  std::array<Scale, vesselness_scale_count> scale;
  std::array<Sum, levels> sum;
  Image<float> along;
  Image<std::uint8_t> everywhere;
  Array<CellMoments> cells;
  Array<CellPlane> planes;
  int cell_rows = 0, cell_columns = 0;
  std::array<Array<float>, vesselness_scale_count> partial_sum, partial_count;
  Array<float> gain;
  std::array<DerivativeKernels, vesselness_scale_count> kernels;
  std::array<float, decimation_radius + 1> decimation{};

  /// Planes that these settings use; allocates on first use only.
  void prepare(const Stream& stream, int scale_index, bool classical) {
    Scale& planes_of = scale[scale_index];
    const int level = level_of(scale_index), h = level_height[level], w = level_width[level];
    if (planes_of.strength.empty()) {
      planes_of.strength = Image<float>(stream, h, w);
      planes_of.cosine = Image<float>(stream, h, w);
      planes_of.sine = Image<float>(stream, h, w);
      // The CUDA tiles are the smallest that run.
      const int tiles = detail::tiles_along(h, DefaultCudaTile::height) * detail::tiles_along(w, DefaultCudaTile::width);
      partial_sum[scale_index] = Array<float>(stream, tiles);
      partial_count[scale_index] = Array<float>(stream, tiles);
    }
    if (classical && planes_of.classical.empty()) planes_of.classical = Image<float>(stream, h, w);
  }

  template <int Radius>
  void run_scale(const Stream& stream, int index, ImageView<const float> input, ImageView<const std::uint8_t> valid,
                 const ClassicalMeasure& measure, float noise_valley, int used) {
    HessianAtScale<Radius> kernel{};
    kernel.input = input;
    kernel.valid = valid;
    kernel.stride = 1 << level_of(index);
    kernel.planes = scale[index].planes();
    kernel.measure = measure;
    kernel.partial_sum = partial_sum[index].begin();
    kernel.partial_count = partial_count[index].begin();
    const DerivativeKernels& weights = kernels[index];
    const double relative = vesselness_scales_px[index] / static_cast<double>(kernel.stride), sigma2 = relative * relative;
    for (int k = 0; k <= Radius; ++k) {
      kernel.smooth[k] = static_cast<float>(weights.smooth[k]);
      kernel.slope_x[k] = static_cast<float>(sigma2 * weights.slope[k]);
      kernel.slope_y[k] = static_cast<float>(weights.slope[k]);
      kernel.curve[k] = static_cast<float>(sigma2 * weights.curve[k]);
    }
    for_each_tile(stream, input.height, input.width, kernel);
    for_each_tile(
        stream, 1, 1,
        MeanValley{kernel.partial_sum, kernel.partial_count, tile_count<HessianAtScale<Radius>>(stream, input.height, input.width),
                   noise_valley, static_cast<float>(used), gain.begin() + index});
  }
};

Vesselness::Vesselness(const Stream& stream, int height, int width) : workspace_(std::make_unique<Workspace>()) {
  require(height >= 1 && width >= 1, "Vesselness: height and width must be at least 1");
  Workspace& w = *workspace_;
  w.height = height;
  w.width = width;
  for (int level = 0; level < levels; ++level) {
    w.level_height[level] = level ? half(w.level_height[level - 1]) : height;
    w.level_width[level] = level ? half(w.level_width[level - 1]) : width;
    w.image[level] = Image<float>(stream, w.level_height[level], w.level_width[level]);
    if (level == 0) continue;
    for (Image<float> Workspace::Sum::*plane :
         {&Workspace::Sum::ratio, &Workspace::Sum::cosine, &Workspace::Sum::sine, &Workspace::Sum::strength, &Workspace::Sum::scale_px})
      w.sum[level].*plane = Image<float>(stream, w.level_height[level], w.level_width[level]);
  }
  w.along = Image<float>(stream, w.level_height[1], w.level_width[1]);
  w.everywhere = Image<std::uint8_t>(stream, height, width);
  for_each_tile(stream, height, width, FillBytes{w.everywhere.view()});
  w.cell_rows = detail::tiles_along(height, cell_size);
  w.cell_columns = detail::tiles_along(width, cell_size);
  w.cells = Array<CellMoments>(stream, w.cell_rows * w.cell_columns);
  w.planes = Array<CellPlane>(stream, w.cell_rows * w.cell_columns);
  w.gain = Array<float>(stream, vesselness_scale_count);
  for (int scale = 0; scale < vesselness_scale_count; ++scale) w.kernels[scale] = derivative_kernels(scale);
  const std::vector<double> decimation = decimation_weights();
  for (int k = 0; k <= decimation_radius; ++k) w.decimation[k] = static_cast<float>(decimation[k]);
}

Vesselness::~Vesselness() = default;
Vesselness::Vesselness(Vesselness&&) noexcept = default;
Vesselness& Vesselness::operator=(Vesselness&&) noexcept = default;

void Vesselness::compute(const Stream& stream, ImageView<const float> image, ImageView<const std::uint8_t> valid,
                         const VesselnessOptions& options, VesselnessMap& map) {
  Workspace& w = *workspace_;
  require(image.height == w.height && image.width == w.width, "Vesselness: the image's size is not the one given at construction");
  require(!valid.data || same_size(valid, image), "Vesselness: valid and image differ in size");
  for (const Image<float>* plane : {&map.response, &map.z, &map.angle, &map.scale_px})
    require(plane->height() == w.height && plane->width() == w.width, "Vesselness: the map's size is not the image's");
  require(options.noise_sd > 0, "Vesselness: noise_sd must be positive");
  require(!options.noise_weight.data || same_size(options.noise_weight, image), "Vesselness: noise_weight and image differ in size");
  require(options.half_response_ratio > 0, "Vesselness: half_response_ratio must be positive");
  require(options.frangi_beta > 0 && options.frangi_c > 0 && options.jerman_lambda > 0,
          "Vesselness: frangi_beta, frangi_c and jerman_lambda must be positive");
  for (const float factor : options.correlation_factor) require(factor > 0, "Vesselness: correlation_factor must be positive");
  std::vector<int> used;
  for (int i = 0; i < vesselness_scale_count; ++i)
    if (vesselness_scales_px[i] >= options.min_scale_px - 1e-3f && vesselness_scales_px[i] <= options.max_scale_px + 1e-3f)
      used.push_back(i);
  require(!used.empty(), "Vesselness: no scale lies between min_scale_px and max_scale_px");
  const int coarsest = level_of(used.back());
  const bool classical = options.response != VesselnessResponse::noise_calibrated;

  ImageView<const float> base = image;
  if (valid.data) {
    const int count = w.cell_rows * w.cell_columns;
    for_each_item(stream, count, MeasureCells{image, valid, w.cells.begin(), w.cell_columns}, 64);
    FitCells fit{w.cells.begin(), w.planes.begin(), w.height, w.width, w.cell_rows, w.cell_columns, {}};
    for (int k = 0; k <= cell_reach; ++k) fit.window[k] = std::exp(-0.5f * square(k * cell_size / cell_window_px));
    for_each_item(stream, count, fit, 64);
    for_each_tile(stream, w.height, w.width, ExtendImage{image, valid, w.planes.begin(), w.cell_rows, w.cell_columns, w.image[0].view()});
    base = w.image[0].view();
  } else {
    valid = w.everywhere.view();
  }
  for (int level = 1; level <= coarsest; ++level) {
    Decimate decimate{level == 1 ? base : w.image[level - 1].view(), w.image[level].view(), {}};
    for (int k = 0; k <= decimation_radius; ++k) decimate.weight[k] = w.decimation[k];
    for_each_tile(stream, w.level_height[level], w.level_width[level], decimate);
  }

  const ClassicalMeasure measure{options.response, -0.5f / square(options.frangi_beta), -0.5f / square(options.frangi_c),
                                 options.jerman_lambda};
  for (const int index : used) {
    w.prepare(stream, index, classical);
    const int level = level_of(index), count = static_cast<int>(used.size());
    const ImageView<const float> input = level == 0 ? base : w.image[level].view();
    const float noise_valley =
        static_cast<float>(white_noise_valley_mean * options.noise_sd * options.correlation_factor[index] / vesselness_scales_px[index]);
    switch (w.kernels[index].radius) {
      case 4:
        w.run_scale<4>(stream, index, input, valid, measure, noise_valley, count);
        break;
      case 5:
        w.run_scale<5>(stream, index, input, valid, measure, noise_valley, count);
        break;
      case 6:
        w.run_scale<6>(stream, index, input, valid, measure, noise_valley, count);
        break;
      case 8:
        w.run_scale<8>(stream, index, input, valid, measure, noise_valley, count);
        break;
      case 11:
        w.run_scale<11>(stream, index, input, valid, measure, noise_valley, count);
        break;
      default:
        throw std::logic_error("Vesselness: no kernel of this radius");
    }
  }

  const auto scales_at = [&](int level) {
    AddScales add{};
    add.classical = classical;
    for (const int index : used)
      if (level_of(index) == level) {
        add.scale[add.count] = w.scale[index].planes();
        add.sigma_px[add.count] = vesselness_scales_px[index];
        add.gain[add.count] = w.gain.begin() + index;
        ++add.count;
      }
    if (level < coarsest) add.coarser = w.sum[level + 1].planes<const float>();
    return add;
  };
  for (int level = coarsest; level > 0; --level)
    for_each_tile(stream, w.level_height[level], w.level_width[level], SumLevel{scales_at(level), w.sum[level].planes<float>()});

  const bool elongated = options.elongation && !classical && coarsest > 0;
  if (elongated) {
    AverageAlong average{w.sum[1].planes<const float>(), w.along.view(), {}};
    double total = 0;
    for (int k = 0; k <= line_samples; ++k) total += (k ? 2 : 1) * std::exp(-0.5 * std::pow(k * line_step / double(line_window), 2));
    for (int k = 0; k <= line_samples; ++k)
      average.window[k] = static_cast<float>(std::exp(-0.5 * std::pow(k * line_step / double(line_window), 2)) / total);
    for_each_tile(stream, w.level_height[1], w.level_width[1], average);
  }
  FinishMap finish{scales_at(0),
                   elongated ? ImageView<const float>(w.along.view()) : ImageView<const float>{},
                   valid,
                   options.noise_weight,
                   0.5f / options.half_response_ratio,
                   {},
                   {},
                   map.response.view(),
                   map.z.view(),
                   map.angle.view(),
                   map.scale_px.view()};
  for (int i = 0; i < vesselness_scale_count; ++i) {
    finish.scale_px[i] = vesselness_scales_px[i];
    finish.z_factor[i] =
        static_cast<float>(vesselness_scales_px[i] / (white_noise_hessian_sd * options.noise_sd * options.correlation_factor[i]));
  }
  for_each_tile(stream, w.height, w.width, finish);
}

}  // namespace cinelumen
