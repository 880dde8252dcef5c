#include "mask_registration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "bspline.h"
#include "bspline_tile.h"
#include "frame_source.h"
#include "tile.h"

namespace cinelumen {
namespace {

constexpr int level_count = 3;
constexpr int iterations[level_count] = {4, 5, 4};  // finest first
// Of what the mask's gradients tell, the share in the blocks that are compared: at first, when a step need not be exact, and in the end.
// All of it costs twice the time and lowers the error by a tenth.
constexpr double share_at_first[level_count] = {0.5, 0.5, 1}, share_in_the_end[level_count] = {0.92, 0.92, 1};
constexpr int steps_at_first = 2;
constexpr std::size_t least_blocks = 16;  // also of the blocks of small images
constexpr int cell_px = 32;               // of the slow part
constexpr double least_slow_part = 0.25;  // sigma: below, taking it out costs more than it gains
constexpr int unused_border_px = 4;
// Planes of the mask carry a border of NaN, so that strips that reach over its edge need no separate path.
constexpr int padding = 40;  // even: columns keep their parity
constexpr float unknown = std::numeric_limits<float>::quiet_NaN();
constexpr double cut_above = 2.5, cut_below = 4.685;
// A median absolute deviation of that many pixels is good to 3 and 4 %.
constexpr int sample_limit[level_count] = {2048, 1024, 1024};
constexpr int sum_count = 16;

/// The 5-tap binomial filter along both axes, every `Step`-th pixel; NaN where `valid` (of the output's size) is given and 0.
template <int Step, class Source = PlaneSource>
struct Smooth {
  Source image;
  ImageView<const std::uint8_t> valid;
  ImageView<float> smoothed;

  using CpuTile = TileShape<16, 128>;

  template <int Height, int Width>
  struct Scratch {
    Tile<float, Step * Height + 4, Step * Width + 4> input;
    Tile<float, Height, Step * Width + 4> along_y;
    int row[Step * Height + 4];
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int rows = block.rows(smoothed.height), columns = block.columns(smoothed.width);
    const int top = Step * block.y0 - 2, left = Step * block.x0 - 2, input_rows = Step * rows + 4, input_columns = Step * columns + 4;
    constexpr int pitch = Step * Width + 4;
    load_mirrored(block, image, top, left, input_rows, input_columns, scratch.row, scratch.input);
    // Down first: with a step the rows that are left are half as many, and along them neighbours no longer lie side by side.
    block.for_each_pixel(rows, input_columns, [&](int y, int x) {
      const float* in = scratch.input[Step * y] + x;
      scratch.along_y[y][x] = 0.0625f * (in[0] + in[4 * pitch]) + 0.25f * (in[pitch] + in[3 * pitch]) + 0.375f * in[2 * pitch];
    });
    const auto along_x = [&](int y, int x) {
      const float* in = scratch.along_y[y] + Step * x;
      return 0.0625f * (in[0] + in[4]) + 0.25f * (in[1] + in[3]) + 0.375f * in[2];
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

/// ratio = sum / (weight + floor): cells of little weight are drawn to zero.
struct Ratio {
  ImageView<const float> sum, weight;
  ImageView<float> ratio;
  float floor;

  template <int Height, int Width>
  struct Scratch {};

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    block.for_each_pixel(block.rows(sum.height), block.columns(sum.width), [&](int y, int x) {
      const int py = block.y0 + y, px = block.x0 + x;
      ratio.row(py)[px] = sum.row(py)[px] / (weight.row(py)[px] + floor);
    });
  }
};

/// total += part.
struct Add {
  ImageView<const float> part;
  ImageView<float> total;

  template <int Height, int Width>
  struct Scratch {};

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    block.for_each_pixel(block.rows(part.height), block.columns(part.width),
                         [&](int y, int x) { total.row(block.y0 + y)[block.x0 + x] += part.row(block.y0 + y)[block.x0 + x]; });
  }
};

/// Subtracts a plane on a coarser grid, its pixels taken as coefficients of a cubic B-spline: linear interpolation would leave a pattern
/// that does not move with the image.
struct RemoveSlow {
  ImageView<const float> slow;
  ImageView<float> image;
  float scale;  // coarse cells per pixel, <= 1; pixel (0, 0) is the first of cell (0, 0)

  template <int Height, int Width>
  struct Scratch {
    Tile<float, Height, Width + 5> rows;  // of the image, columns of the coarse grid
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int rows = block.rows(image.height), columns = block.columns(image.width);
    const auto position = [&](int i) { return (static_cast<float>(i) + 0.5f) * scale + 0.5f; };  // + 1: never negative
    const int first = static_cast<int>(position(block.x0)) - 2;
    const int coarse = static_cast<int>(position(block.x0 + columns - 1)) + 2 - first;
    block.for_each_pixel(rows, coarse, [&](int y, int c) {
      const float at = position(block.y0 + y);
      const int whole = static_cast<int>(at), column = clamp_int(first + c, 0, slow.width - 1);
      float w[4], sum = 0;
      bspline_weights(at - static_cast<float>(whole), w[0], w[1], w[2], w[3]);
      for (int k = 0; k < 4; ++k) sum += w[k] * slow.row(clamp_int(whole - 2 + k, 0, slow.height - 1))[column];
      scratch.rows[y][c] = sum;
    });
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const float at = position(block.x0 + x);
      const int whole = static_cast<int>(at), c = whole - 2 - first;
      float w0, w1, w2, w3;
      bspline_weights(at - static_cast<float>(whole), w0, w1, w2, w3);
      const float* in = scratch.rows[y];
      image.row(block.y0 + y)[block.x0 + x] -= w0 * in[c] + w1 * in[c + 1] + w2 * in[c + 2] + w3 * in[c + 3];
    });
  }
};

/// The motion as one level's kernels need it.
struct LevelMotion {
  InverseMotion inverse;     // into the padded plane of coefficients
  float centre_y, centre_x;  // of rotation, in that plane
  float cosine, sine;        // of the rotation alone
};

/// A block of grid pixels that the normal equations are summed over. Blocks have the same size on both machines.
struct GridBlock {
  int y, x;
};
constexpr int block_rows = 8, block_columns = 64;

/// Sums of the normal equations over each of a list of blocks: tile `index` works on blocks[index].
template <int Step>
struct NormalEquations {
  ImageView<const float> frame, coefficients;
  ArrayView<const GridBlock> blocks;
  LevelMotion motion;
  float offset, inverse_cut_above, inverse_cut_below;
  float inverse_lever;  // 1 / half diagonal, mask pixels: keeps rotation and shift on one scale
  ImageView<float> partial;

  using CpuTile = TileShape<block_rows, block_columns>;
  using CudaTile = CpuTile;

  template <int Height, int Width>
  struct Scratch {
    Tile<float, Height, Width> value, slope_y, slope_x;
    SumLanes<sum_count> lanes;
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> tile, Scratch<Height, Width>& scratch) const {
    static_assert(Width % bspline_strip == 0);
    Block<Height, Width> block = tile;
    block.y0 = blocks.data[tile.index].y;
    block.x0 = blocks.data[tile.index].x;
    const int rows = block.rows(frame.height), columns = block.columns(frame.width);
    block.for_each_pixel(rows, (columns + bspline_strip - 1) / bspline_strip, [&](int y, int strip) {
      const int x = strip * bspline_strip;
      evaluate_strip<Step, true>(coefficients, motion.inverse, block.y0 + y, block.x0 + x, scratch.value[y] + x, scratch.slope_y[y] + x,
                                 scratch.slope_x[y] + x);
    });
    const Sums<sum_count> total = block.sum_pixels(rows, columns, scratch.lanes, [&](int y, int x) {
      const float fy = static_cast<float>(block.y0 + y), fx = static_cast<float>(block.x0 + x);
      const float r = frame.row(block.y0 + y)[block.x0 + x] - scratch.value[y][x] - offset;
      const float u = r * (r > 0.0f ? inverse_cut_above : inverse_cut_below);
      const float t = 1.0f - u * u;
      const bool known = t == t, use = t > 0.0f;
      const float w = use ? t * t : 0.0f;
      const float my = use ? scratch.slope_y[y][x] : 0.0f, mx = use ? scratch.slope_x[y][x] : 0.0f;
      const float q_y = motion.inverse.origin_y - motion.inverse.sine * fx + motion.inverse.cosine * fy - motion.centre_y;
      const float q_x = motion.inverse.origin_x + motion.inverse.cosine * fx + motion.inverse.sine * fy - motion.centre_x;
      const float e = use ? r : 0.0f;
      const float gy = -(mx * motion.sine + my * motion.cosine);
      const float gx = -(mx * motion.cosine - my * motion.sine);
      const float gt = (mx * q_y - my * q_x) * inverse_lever;
      const float wy = w * gy, wx = w * gx, wt = w * gt, we = w * e;
      return Sums<sum_count>{{w, wy, wx, wt, wy * gy, wy * gx, wy * gt, wx * gx, wx * gt, wt * gt, we, we * gy, we * gx, we * gt, we * e,
                              known ? 1.0f : 0.0f}};
    });
    block.for_each_pixel(1, sum_count, [&](int, int k) { partial.row(block.index)[k] = total.value[k]; });
  }
};

/// Sums of weighted residuals and of weights over square cells. The cell's side divides the tile's.
struct CellSums {
  ImageView<const float> frame, coefficients;
  LevelMotion motion;
  float offset, inverse_cut_above, inverse_cut_below;
  int side;  // of a cell, grid pixels
  ImageView<float> sum, weight;

  using CpuTile = TileShape<32, 128>;

  template <int Height, int Width>
  struct Scratch {
    Tile<float, Height, Width> value, weight;
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int rows = block.rows(frame.height), columns = block.columns(frame.width);
    block.for_each_pixel(rows, (columns + bspline_strip - 1) / bspline_strip, [&](int y, int strip) {
      const int x = strip * bspline_strip;
      evaluate_strip<1, false>(coefficients, motion.inverse, block.y0 + y, block.x0 + x, scratch.value[y] + x, nullptr, nullptr);
    });
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const float r = frame.row(block.y0 + y)[block.x0 + x] - scratch.value[y][x] - offset;
      const float u = r * (r > 0.0f ? inverse_cut_above : inverse_cut_below);
      const float t = 1.0f - u * u;
      const bool use = t > 0.0f;
      scratch.weight[y][x] = use ? t * t : 0.0f;
      scratch.value[y][x] = use ? t * t * r : 0.0f;
    });
    block.for_each_pixel((rows + side - 1) / side, (columns + side - 1) / side, [&](int cell_y, int cell_x) {
      float s = 0, w = 0;
      for (int y = cell_y * side; y < cell_y * side + side && y < rows; ++y)
        for (int x = cell_x * side; x < cell_x * side + side && x < columns; ++x) {
          s += scratch.value[y][x];
          w += scratch.weight[y][x];
        }
      sum.row(block.y0 / side + cell_y)[block.x0 / side + cell_x] = s;
      weight.row(block.y0 / side + cell_y)[block.x0 / side + cell_x] = w;
    });
  }
};

/// Residuals at a lattice of pixels, for the robust scale.
struct SampleResiduals {
  ImageView<const float> frame, coefficients;
  LevelMotion motion;
  int spacing, columns;  // of the lattice
  bool split;            // even columns of coefficients before odd ones
  ArrayView<float> residual;

  CINELUMEN_HOST_DEVICE void operator()(int item) const {
    const int y = item / columns * spacing, x = item % columns * spacing;
    const float q_y = motion.inverse.origin_y - motion.inverse.sine * x + motion.inverse.cosine * y;
    const float q_x = motion.inverse.origin_x + motion.inverse.cosine * x + motion.inverse.sine * y;
    float value = unknown;
    if (q_y >= 1.0f && q_y < coefficients.height - 2.0f && q_x >= 1.0f && q_x < coefficients.width - 2.0f) {
      const int base_y = static_cast<int>(q_y), base_x = static_cast<int>(q_x);
      float wy[4], wx[4];
      bspline_weights(q_y - base_y, wy[0], wy[1], wy[2], wy[3]);
      bspline_weights(q_x - base_x, wx[0], wx[1], wx[2], wx[3]);
      value = 0;
      for (int j = 0; j < 4; ++j) {
        const float* c = coefficients.row(base_y - 1 + j);
        for (int k = 0; k < 4; ++k) {
          const int column = base_x - 1 + k;
          value += wy[j] * wx[k] * c[split ? coefficient_column<2>(column, coefficients.width) : column];
        }
      }
    }
    residual[item] = frame.row(y)[x] - value;
  }
};

int half(int n) { return (n + 1) / 2; }

/// The part of frame - mask that varies slowly: exposure, breathing lungs, an intensifier's shading. It moves otherwise than the edges do,
/// or not at all, and would drag the estimate along. Robust local means over cells, on the frame's grid.
struct SlowResidual {
  Image<float> sum, weight, smooth_sum, smooth_weight, change, field;
  Image<float> change_host, weight_host;
  double offset = 0;  // mean of the field over what was compared

  SlowResidual(const Stream& stream, int height, int width) {
    const int h = (height + cell_px - 1) / cell_px, w = (width + cell_px - 1) / cell_px;
    for (Image<float>* plane : {&sum, &weight, &smooth_sum, &smooth_weight, &change, &field}) *plane = Image<float>(stream, h, w);
    change_host = Image<float>::staging(stream, h, w);
    weight_host = Image<float>::staging(stream, h, w);
  }
  /// Unless their rms is below `least_rms`: adds the smoothed cell means to the field, and takes the change out of `frame`, whose pixels
  /// lie `grid_px` apart. `kernel`: CellSums of that frame without its outputs.
  void update(const Stream& stream, CellSums kernel, ImageView<float> frame, int grid_px, double least_rms) {
    kernel.side = cell_px / grid_px;
    kernel.sum = sum;
    kernel.weight = weight;
    for_each_tile(stream, kernel.frame.height, kernel.frame.width, kernel);
    for_each_tile(stream, sum.height(), sum.width(), Smooth<1>{{sum}, {}, smooth_sum});
    for_each_tile(stream, sum.height(), sum.width(), Smooth<1>{{weight}, {}, smooth_weight});
    for_each_tile(stream, sum.height(), sum.width(),
                  Ratio{smooth_sum, smooth_weight, change, 0.05f * static_cast<float>(kernel.side * kernel.side)});
    copy<float>(stream, change, change_host);
    copy<float>(stream, weight, weight_host);
    stream.synchronize();
    double squares = 0, weights = 0, mean = 0;
    for (int y = 0; y < change_host.height(); ++y)
      for (int x = 0; x < change_host.width(); ++x) {
        squares += weight_host(y, x) * change_host(y, x) * change_host(y, x);
        mean += weight_host(y, x) * change_host(y, x);
        weights += weight_host(y, x);
      }
    if (!(weights > 0) || squares / weights < least_rms * least_rms) return;
    offset += mean / weights;
    for_each_tile(stream, field.height(), field.width(), Add{change, field});
    for_each_tile(stream, frame.height, frame.width, RemoveSlow{change, frame, static_cast<float>(grid_px) / cell_px});
  }
  void remove(const Stream& stream, ImageView<float> image, int grid_px) const {
    for_each_tile(stream, image.height, image.width, RemoveSlow{field, image, static_cast<float>(grid_px) / cell_px});
  }
};

/// 1 where all pixels within `radius` are valid and inside the image.
Image<std::uint8_t> erode(ImageView<const std::uint8_t> valid, int radius) {
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

Image<std::uint8_t> every_second(ImageView<const std::uint8_t> valid) {
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
  Image<float> padded(plane.height + 2 * padding, (plane.width + 2 * padding + 1) / 2 * 2);
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

/// The blocks of a level's grid that tell most about the motion: strongest gradients first, until they hold `share` of what all of them say
/// about each of y, x and rotation taken together. `plane`: the level's mask, host; `valid`: on the grid, whose pixels lie `step` apart.
std::vector<GridBlock> informative_blocks(ImageView<const float> plane, ImageView<const std::uint8_t> valid, int step, double share) {
  struct Candidate {
    GridBlock block;
    std::array<double, 3> information;
    double score;
  };
  std::vector<Candidate> candidates;
  std::array<double, 3> total{};
  const double centre_y = 0.5 * (plane.height - 1), centre_x = 0.5 * (plane.width - 1);
  for (int y0 = 0; y0 < valid.height; y0 += block_rows)
    for (int x0 = 0; x0 < valid.width; x0 += block_columns) {
      Candidate candidate{{y0, x0}, {}, 0};
      bool any = false;
      for (int y = y0; y < std::min(y0 + block_rows, valid.height); ++y)
        for (int x = x0; x < std::min(x0 + block_columns, valid.width); ++x) {
          const int py = step * y, px = step * x;
          if (!valid(y, x)) continue;
          any = true;
          if (py < 1 || px < 1 || py + 1 >= plane.height || px + 1 >= plane.width) continue;
          const double gy = 0.5 * (plane(py + 1, px) - plane(py - 1, px)), gx = 0.5 * (plane(py, px + 1) - plane(py, px - 1));
          const double turn = gy * (px - centre_x) - gx * (py - centre_y);
          candidate.information[0] += gy * gy;
          candidate.information[1] += gx * gx;
          candidate.information[2] += turn * turn;
        }
      if (!any) continue;
      for (int k = 0; k < 3; ++k) total[k] += candidate.information[k];
      candidates.push_back(candidate);
    }
  for (Candidate& candidate : candidates)
    for (int k = 0; k < 3; ++k) candidate.score += total[k] > 0 ? candidate.information[k] / total[k] / 3 : 0;
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
  double sum = 0;
  std::vector<GridBlock> blocks;
  for (const Candidate& candidate : candidates) {
    if (sum >= share && blocks.size() >= least_blocks) break;
    sum += candidate.score;
    blocks.push_back(candidate.block);
  }
  // In memory's order.
  std::sort(blocks.begin(), blocks.end(), [](const GridBlock& a, const GridBlock& b) { return a.y != b.y ? a.y < b.y : a.x < b.x; });
  return blocks;
}

Array<GridBlock> to_device(const Stream& stream, const std::vector<GridBlock>& blocks) {
  Array<GridBlock> host(static_cast<int>(blocks.size())), result(stream, host.size());
  std::copy(blocks.begin(), blocks.end(), host.begin());
  copy<GridBlock>(stream, host, result);
  stream.synchronize();
  return result;
}

/// Solves the n x n system a x = b in place (Cholesky) and returns the inverse's diagonal. False where a is not positive definite.
bool solve_system(std::array<std::array<double, 4>, 4> a, int n, std::array<double, 4>& b, std::array<double, 4>& inverse_diagonal) {
  for (int j = 0; j < n; ++j) {
    for (int k = 0; k < j; ++k) a[j][j] -= a[j][k] * a[j][k];
    if (!(a[j][j] > 0)) return false;
    a[j][j] = std::sqrt(a[j][j]);
    for (int i = j + 1; i < n; ++i) {
      for (int k = 0; k < j; ++k) a[i][j] -= a[i][k] * a[j][k];
      a[i][j] /= a[j][j];
    }
  }
  const auto solve = [&](std::array<double, 4>& v) {
    for (int i = 0; i < n; ++i) {
      for (int k = 0; k < i; ++k) v[i] -= a[i][k] * v[k];
      v[i] /= a[i][i];
    }
    for (int i = n; i-- > 0;) {
      for (int k = i + 1; k < n; ++k) v[i] -= a[k][i] * v[k];
      v[i] /= a[i][i];
    }
  };
  solve(b);
  for (int i = 0; i < n; ++i) {
    std::array<double, 4> unit{};
    unit[i] = 1;
    solve(unit);
    inverse_diagonal[i] = unit[i];
  }
  return true;
}

double take_quantile(std::vector<float>& values, double quantile) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(quantile * static_cast<double>(values.size()));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

}  // namespace

struct MaskRegistration::Mask {
  struct Level {
    int height = 0, width = 0;              // of the frame's grid
    int step = 1;                           // mask pixels per grid pixel
    double scale = 1;                       // full-resolution pixels per mask pixel
    Image<float> coefficients;              // padded
    Array<GridBlock> at_first, in_the_end;  // where the normal equations are summed

    void choose_blocks(const Stream& stream, ImageView<const float> plane, ImageView<const std::uint8_t> valid, double share_first,
                       double share_end) {
      at_first = to_device(stream, informative_blocks(plane, valid, step, share_first));
      in_the_end = to_device(stream, informative_blocks(plane, valid, step, share_end));
    }
  };
  RegistrationOptions options;
  int height = 0, width = 0;
  std::array<Level, level_count> levels;  // finest first
  int levels_used = level_count;
  Image<std::uint8_t> valid;  // on the finest grid, device
  Image<float> coarsest;      // host: the coarsest level's mask, NaN where not valid, for the exhaustive search
  std::vector<Image<float>> slow_weight;
  Image<float> slow_mean;  // host
  double slow_grid_px = 2;
  double gradient_smoothing = 1;  // see standard errors

  double half_diagonal() const { return 0.5 * std::hypot(height - 1.0, width - 1.0); }
};

struct MaskRegistration::Workspace {
  std::array<Image<float>, level_count> frame;  // device
  SlowResidual slow;
  Image<float> partial, partial_host, coarsest_host;
  Array<float> residual, residual_host;
  std::vector<float> sorted;

  Workspace(const Stream& stream, const Mask& mask) : slow(stream, mask.height, mask.width) {
    int tiles = 0;
    for (int l = 0; l < mask.levels_used; ++l) {
      const Mask::Level& level = mask.levels[l];
      frame[l] = Image<float>(stream, level.height, level.width);
      tiles = std::max(tiles, std::max(level.at_first.size(), level.in_the_end.size()));
    }
    partial = Image<float>(stream, tiles, sum_count);
    partial_host = Image<float>::staging(stream, tiles, sum_count);
    const Mask::Level& last = mask.levels[mask.levels_used - 1];
    coarsest_host = Image<float>::staging(stream, last.height, last.width);
    residual = Array<float>(stream, sample_limit[0]);
    residual_host = Array<float>::staging(stream, sample_limit[0]);
    sorted.reserve(sample_limit[0]);
  }
};

namespace {

/// One frame's estimation in progress. Shifts in full-resolution pixels.
struct State {
  double shift_y = 0, shift_x = 0, rotation = 0, offset = 0, sigma = 0;
  bool turn = false;  // rotation is free
  double error_y = 0, error_x = 0, error_rotation = 0, mean_weight = 0, last_step = 0;
  bool solved = false;
};

template <class Level>
LevelMotion level_motion(const Level& level, int height, int width, const State& state) {
  const double centre_y = (height - 1) / 2.0 / level.scale, centre_x = (width - 1) / 2.0 / level.scale;
  LevelMotion result;
  result.inverse = invert(state.shift_y / level.scale, state.shift_x / level.scale, state.rotation, centre_y, centre_x, level.step);
  result.inverse.origin_y += padding;
  result.inverse.origin_x += padding;
  result.centre_y = static_cast<float>(centre_y + padding);
  result.centre_x = static_cast<float>(centre_x + padding);
  result.cosine = static_cast<float>(std::cos(state.rotation));
  result.sine = static_cast<float>(std::sin(state.rotation));
  return result;
}

}  // namespace

MaskRegistration::MaskRegistration(const Stream& stream, ImageView<const float> mask_attenuation, ImageView<const std::uint8_t> valid,
                                   const RegistrationOptions& options) {
  require(same_size(mask_attenuation, valid), "MaskRegistration: mask_attenuation and valid differ in size");
  require(mask_attenuation.height > 0 && mask_attenuation.width > 0, "MaskRegistration: the mask is empty");
  require(options.search_radius_px >= 0, "MaskRegistration: search_radius_px must not be negative");
  auto mask = std::make_shared<Mask>();
  mask->options = options;
  const int height = mask->height = mask_attenuation.height, width = mask->width = mask_attenuation.width;

  const Image<std::uint8_t> valid_host = to_host(stream, valid);
  const Image<std::uint8_t> usable = erode(valid_host.view(), unused_border_px);
  Image<std::uint8_t> level_valid = every_second(usable.view());
  mask->valid = to_device(stream, level_valid.view());
  Image<float> smooth(stream, height, width);
  for_each_tile(stream, height, width, Smooth<1>{{mask_attenuation}, {}, smooth});
  mask->levels[0] = {half(height), half(width), 2, 1, padded_coefficients<2>(stream, smooth.view(), usable.view()), {}, {}};
  stream.synchronize();

  // Smoothing the gradient once more shows how much of the noise, which smoothing has correlated, reaches the estimate.
  {
    Image<float> twice(stream, height, width);
    for_each_tile(stream, height, width, Smooth<1>{{smooth}, {}, twice});
    const Image<float> once_host = to_host(stream, smooth.view()), twice_host = to_host(stream, twice.view());
    double once_sum = 0, twice_sum = 0;
    for (int y = 1; y < height; ++y)
      for (int x = 1; x < width; ++x)
        if (usable(y, x)) {
          once_sum += std::pow(once_host(y, x) - once_host(y, x - 1), 2) + std::pow(once_host(y, x) - once_host(y - 1, x), 2);
          twice_sum += std::pow(twice_host(y, x) - twice_host(y, x - 1), 2) + std::pow(twice_host(y, x) - twice_host(y - 1, x), 2);
        }
    mask->gradient_smoothing = once_sum > 0 ? twice_sum / once_sum : 1;
    mask->levels[0].choose_blocks(stream, once_host.view(), level_valid.view(), share_at_first[0], share_in_the_end[0]);
  }

  Image<float> plane(stream, half(height), half(width));
  for_each_tile(stream, half(height), half(width), Smooth<2>{{mask_attenuation}, {}, plane});
  for (int l = 1; l < level_count; ++l) {
    const int h = half(plane.height()), w = half(plane.width());
    if (std::min(h, w) < 16) {
      mask->levels_used = l;
      break;
    }
    Image<float> next(stream, h, w);
    for_each_tile(stream, h, w, Smooth<2>{{plane}, {}, next});
    const Image<std::uint8_t> eroded = erode(level_valid.view(), 2);
    level_valid = every_second(eroded.view());
    mask->levels[l] = {h, w, 1, static_cast<double>(2 << l), padded_coefficients<1>(stream, next.view(), level_valid.view()), {}, {}};
    mask->levels[l].choose_blocks(stream, to_host(stream, next.view()).view(), level_valid.view(), share_at_first[l], share_in_the_end[l]);
    plane = std::move(next);
  }
  mask->coarsest = to_host(stream, plane.view());
  for (int y = 0; y < mask->coarsest.height(); ++y)
    for (int x = 0; x < mask->coarsest.width(); ++x)
      if (!level_valid(y, x)) mask->coarsest(y, x) = unknown;
  mask_ = std::move(mask);
  workspace_ = std::make_unique<Workspace>(stream, *mask_);
}

MaskRegistration::MaskRegistration(std::shared_ptr<const Mask> mask, std::unique_ptr<Workspace> workspace)
    : mask_(std::move(mask)), workspace_(std::move(workspace)) {}
MaskRegistration MaskRegistration::another(const Stream& stream) const {
  return MaskRegistration(mask_, std::make_unique<Workspace>(stream, *mask_));
}
MaskRegistration::MaskRegistration(MaskRegistration&&) noexcept = default;
MaskRegistration& MaskRegistration::operator=(MaskRegistration&&) noexcept = default;
MaskRegistration::~MaskRegistration() = default;

namespace {

/// Differences of neighbouring pixels, which do not see an offset.
struct Differences {
  Image<float> across, down;  // one row and one column less than the image

  explicit Differences(ImageView<const float> image)
      : across(std::max(image.height - 1, 0), std::max(image.width - 1, 0)), down(across.height(), across.width()) {
    for (int y = 0; y < across.height(); ++y) {
      const float *here = image.row(y), *below = image.row(y + 1);
      for (int x = 0; x < across.width(); ++x) {
        across(y, x) = here[x + 1] - here[x];
        down(y, x) = below[x] - here[x];
      }
    }
  }
};

/// Best whole-pixel shift (y, x) of `mask` onto `frame` within `radius` of `centre`, by their differences, truncated: contrast has a
/// bounded say where it is.
std::pair<int, int> search(const Differences& frame, const Differences& mask, std::pair<int, int> centre, int radius) {
  const int height = frame.across.height(), width = frame.across.width();
  std::vector<float> steps;
  steps.reserve(static_cast<std::size_t>(height) * width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      if (const float step = std::abs(frame.across(y, x)); step == step) steps.push_back(step);
  if (steps.empty()) return centre;
  const float limit = take_quantile(steps, 0.9);
  constexpr int lanes = 16;
  double most = 0;
  const auto score = [&frame, &mask, &most, height, width, limit](int sy, int sx) {
    float sum[lanes] = {}, count[lanes] = {};
    const int x_low = std::max(0, sx), x_high = std::min(width, width + sx);
    for (int y = std::max(0, sy); y < std::min(height, height + sy); ++y) {
      const float* __restrict fa = frame.across.row(y), * __restrict fd = frame.down.row(y);
      const float* __restrict ma = mask.across.row(y - sy) - sx, * __restrict md = mask.down.row(y - sy) - sx;
      for (int x = x_low; x + lanes <= x_high; x += lanes)
#pragma GCC ivdep
        for (int l = 0; l < lanes; ++l) {
          const float across = std::fabs(fa[x + l] - ma[x + l]), down = std::fabs(fd[x + l] - md[x + l]);
          const float a = across < limit ? across : limit, d = down < limit ? down : limit;
          const float known = across + down < 1e30f ? 1.0f : 0.0f;
          sum[l] += known * (a + d);
          count[l] += known;
        }
    }
    double s = 0, n = 0;
    for (int l = 0; l < lanes; ++l) {
      s += sum[l];
      n += count[l];
    }
    most = std::max(most, n);
    // A small overlap fits by chance.
    return n > 0 && n >= 0.4 * most ? s / n : std::numeric_limits<double>::infinity();
  };
  double best = score(centre.first, centre.second);
  std::pair<int, int> best_shift = centre;
  for (int sy = centre.first - radius; sy <= centre.first + radius; ++sy)
    for (int sx = centre.second - radius; sx <= centre.second + radius; ++sx)
      if (const double s = score(sy, sx); s < best) {
        best = s;
        best_shift = {sy, sx};
      }
  return best_shift;
}

Image<float> binned(ImageView<const float> image) {
  Image<float> result(image.height / 2, image.width / 2);
  for (int y = 0; y < result.height(); ++y)
    for (int x = 0; x < result.width(); ++x)
      result(y, x) = 0.25f * (image(2 * y, 2 * x) + image(2 * y, 2 * x + 1) + image(2 * y + 1, 2 * x) + image(2 * y + 1, 2 * x + 1));
  return result;
}

/// The same in two steps where the images are large: on a grid twice as coarse, then around what was found there.
std::pair<int, int> search(ImageView<const float> frame, ImageView<const float> mask, int radius) {
  const Differences frame_steps(frame), mask_steps(mask);
  if (std::min(frame.height, frame.width) < 96 || radius < 4) return search(frame_steps, mask_steps, {0, 0}, radius);
  const Differences coarse_frame(binned(frame).view()), coarse_mask(binned(mask).view());
  const auto [y, x] = search(coarse_frame, coarse_mask, {0, 0}, radius / 2);
  return search(frame_steps, mask_steps, {2 * y, 2 * x}, 2);
}

}  // namespace

RigidEstimate MaskRegistration::estimate(const Stream& stream, ImageView<const float> frame_attenuation, std::optional<RigidMotion> start) {
  check(frame_attenuation.height, frame_attenuation.width, start);
  Image<float>& finest = workspace_->frame[0];
  for_each_tile(stream, finest.height(), finest.width(), Smooth<2>{{frame_attenuation}, mask_->valid, finest});
  return refine(stream, start);
}

RigidEstimate MaskRegistration::estimate(const Stream& stream, const StoredFrame& frame, std::optional<RigidMotion> start) {
  check(frame.stored.height, frame.stored.width, start);
  require(frame.table.size > 0, "MaskRegistration::estimate: the table is empty");
  Image<float>& finest = workspace_->frame[0];
  for_each_tile(stream, finest.height(), finest.width(), Smooth<2, StoredSource>{{frame}, mask_->valid, finest});
  return refine(stream, start);
}

void MaskRegistration::check(int height, int width, const std::optional<RigidMotion>& start) const {
  require(height == mask_->height && width == mask_->width, "MaskRegistration::estimate: frame and mask differ in size");
  require(!start || (std::isfinite(start->shift_y_px) && std::isfinite(start->shift_x_px) && std::isfinite(start->rotation_rad)),
          "MaskRegistration::estimate: start must be finite");
}

RigidEstimate MaskRegistration::refine(const Stream& stream, const std::optional<RigidMotion>& start) {
  const Mask& mask = *mask_;
  Workspace& work = *workspace_;
  const int levels = mask.levels_used;
  // NaN spreads by itself to the coarser levels.
  for (int l = 1; l < levels; ++l)
    for_each_tile(stream, work.frame[l].height(), work.frame[l].width(), Smooth<2>{{work.frame[l - 1]}, {}, work.frame[l]});

  set_zero(stream, work.slow.field.view());
  work.slow.offset = 0;

  State state;
  state.turn = mask.options.rotation;
  const Mask::Level& coarsest = mask.levels[levels - 1];
  if (start) {
    state.shift_y = start->shift_y_px;
    state.shift_x = start->shift_x_px;
    state.rotation = state.turn ? start->rotation_rad : 0;
  } else {
    copy<float>(stream, work.frame[levels - 1], work.coarsest_host);
    stream.synchronize();
    const double grid = coarsest.scale * coarsest.step;
    const int reach = std::min({static_cast<int>(mask.options.search_radius_px / grid), coarsest.height / 4, coarsest.width / 4});
    const auto [sy, sx] = search(work.coarsest_host.view(), mask.coarsest.view(), reach);
    state.shift_y = grid * sy;
    state.shift_x = grid * sx;
  }

  const double half_diagonal = std::max(mask.half_diagonal(), 1.0);
  struct Lattice {
    int spacing, columns, count;
  };
  // Residuals at a lattice of pixels where the motion now stands, in work.residual_host.
  const auto sample = [&](const Mask::Level& level, const Image<float>& frame) {
    Lattice lattice{1, 0, 0};
    while (((level.height + lattice.spacing - 1) / lattice.spacing) * ((level.width + lattice.spacing - 1) / lattice.spacing) >
           sample_limit[&level - mask.levels.data()])
      ++lattice.spacing;
    lattice.columns = (level.width + lattice.spacing - 1) / lattice.spacing;
    lattice.count = (level.height + lattice.spacing - 1) / lattice.spacing * lattice.columns;
    const LevelMotion motion = level_motion(level, mask.height, mask.width, state);
    const ArrayView<float> residual{work.residual.view().data, lattice.count}, host{work.residual_host.view().data, lattice.count};
    for_each_item(stream, lattice.count,
                  SampleResiduals{frame, level.coefficients, motion, lattice.spacing, lattice.columns, level.step == 2, residual}, 256);
    copy<float>(stream, residual, host);
    stream.synchronize();
    return lattice;
  };
  // Median and scale of the residual. False where nothing can be compared. `quantile` of the absolute deviation that the scale is read
  // from: the median, or higher while edges are still far from one another: they would be taken for outliers, though they are what shows
  // the way.
  const auto measure_scale = [&](const Mask::Level& level, const Image<float>& frame, double quantile, double normal_quantile) {
    const Lattice lattice = sample(level, frame);
    const ArrayView<const float> host{work.residual_host.view().data, lattice.count};
    work.sorted.clear();
    for (const float r : host)
      if (r == r) work.sorted.push_back(r);
    if (work.sorted.size() < 20) return false;
    state.offset = take_quantile(work.sorted, 0.5);
    for (float& r : work.sorted) r = std::abs(r - static_cast<float>(state.offset));
    state.sigma = std::max(take_quantile(work.sorted, quantile) / normal_quantile, 1e-6);
    return true;
  };
  const auto iterate = [&](const Mask::Level& level, const Image<float>& frame, int iteration, bool last) {
    const LevelMotion motion = level_motion(level, mask.height, mask.width, state);
    const double lever = half_diagonal / level.scale;
    const ArrayView<const GridBlock> blocks = (iteration < steps_at_first ? level.at_first : level.in_the_end).view();
    const float offset = static_cast<float>(state.offset), above = static_cast<float>(1 / (cut_above * state.sigma)),
                below = static_cast<float>(1 / (cut_below * state.sigma)), inverse_lever = static_cast<float>(1 / lever);
    const int tiles = blocks.size;
    const auto launch = [&](auto kernel) { for_each_tile(stream, tiles * block_rows, block_columns, kernel); };
    if (level.step == 2)
      launch(NormalEquations<2>{frame, level.coefficients, blocks, motion, offset, above, below, inverse_lever, work.partial});
    else
      launch(NormalEquations<1>{frame, level.coefficients, blocks, motion, offset, above, below, inverse_lever, work.partial});
    const ImageView<float> host = work.partial_host.view().part(0, 0, tiles, sum_count);
    copy<float>(stream, work.partial.view().part(0, 0, tiles, sum_count), host);
    stream.synchronize();
    std::array<double, sum_count> s{};
    for (int tile = 0; tile < tiles; ++tile)
      for (int k = 0; k < sum_count; ++k) s[k] += host(tile, k);
    state.solved = false;
    if (!(s[0] >= 20)) return;
    state.mean_weight = s[0] / s[15];
    // Unknowns: offset, shift y, shift x (mask pixels), rotation x lever.
    std::array<std::array<double, 4>, 4> a{
        {{s[0], s[1], s[2], s[3]}, {s[1], s[4], s[5], s[6]}, {s[2], s[5], s[7], s[8]}, {s[3], s[6], s[8], s[9]}}};
    std::array<double, 4> b{s[10], s[11], s[12], s[13]}, variance{};
    // Holds still what the image says nothing about: as if each step were known to be zero to 5 px.
    for (int k = 1; k < 4; ++k) a[k][k] += state.sigma * state.sigma / 25;
    const State before = state;
    const std::array<double, 4> right = b;
    if (!solve_system(a, state.turn ? 4 : 3, b, variance)) return;
    const double step = std::max({std::abs(b[1]), std::abs(b[2]), state.turn ? std::abs(b[3]) : 0.0}), shorten = step > 2 ? 2 / step : 1;
    state.offset += b[0];
    state.shift_y += shorten * b[1] * level.scale;
    state.shift_x += shorten * b[2] * level.scale;
    if (state.turn) state.rotation += shorten * b[3] / lever;
    // Of the smoothed noise, whose variance is 0.0748 of the white noise's, a sum weighted by a smooth gradient keeps nearly all.
    constexpr double kept = (70.0 / 256) * (70.0 / 256);
    const double grid_pixels = static_cast<double>(level.step) * level.step;
    const double factor = state.sigma * std::sqrt(std::max(1.0, mask.gradient_smoothing / kept / grid_pixels));
    const auto set_errors = [&] {
      state.error_y = factor * std::sqrt(variance[1]) * level.scale;
      state.error_x = factor * std::sqrt(variance[2]) * level.scale;
      state.error_rotation = state.turn ? factor * std::sqrt(variance[3]) / lever : 0;
    };
    set_errors();
    state.last_step = step * shorten * level.scale;
    state.solved = true;
    if (last && state.turn && (std::abs(state.rotation) * half_diagonal < 0.05 || std::abs(state.rotation) < 3 * state.error_rotation)) {
      // The same equations for a rotation of zero.
      b = right;
      for (int k = 0; k < 3; ++k) b[k] += a[k][3] * before.rotation * lever;
      if (!solve_system(a, 3, b, variance)) return;
      state.turn = false;
      state.rotation = 0;
      state.offset = before.offset + b[0];
      state.shift_y = before.shift_y + b[1] * level.scale;
      state.shift_x = before.shift_x + b[2] * level.scale;
      set_errors();
    }
  };
  const auto remove_slow = [&](int l) {
    const Mask::Level& level = mask.levels[l];
    const LevelMotion motion = level_motion(level, mask.height, mask.width, state);
    const CellSums kernel{work.frame[l],
                          level.coefficients,
                          motion,
                          static_cast<float>(state.offset),
                          static_cast<float>(1 / (cut_above * state.sigma)),
                          static_cast<float>(1 / (cut_below * state.sigma)),
                          0,
                          {},
                          {}};
    work.slow.update(stream, kernel, work.frame[l], 2 << l, least_slow_part * state.sigma);
  };

  bool comparable = false;
  for (int l = levels; l-- > 0;) {
    const Mask::Level& level = mask.levels[l];
    if (l == 0) work.slow.remove(stream, work.frame[l], 2 << l);
    for (int i = 0; i < iterations[l]; ++i) {
      if (l == levels - 1 && i == 0)
        comparable = measure_scale(level, work.frame[l], 0.95, 1.95996);
      else if (l == levels - 1 && i == 1)
        comparable = measure_scale(level, work.frame[l], 0.8, 1.28155);
      else if (i < 2 || l > 0)
        comparable = measure_scale(level, work.frame[l], 0.5, 0.67449);
      if (!comparable) break;
      iterate(level, work.frame[l], i, l == 0 && i == iterations[l] - 1);
      // Not before the motion is roughly right: a slow part measured off the place would hold the estimate there.
      if (l == 1 && i >= 1) remove_slow(l);
    }
  }

  RigidEstimate result;
  if (!comparable || !state.solved) {
    if (start) result.motion = *start;
    return result;
  }
  result.motion = {static_cast<float>(state.shift_y), static_cast<float>(state.shift_x), static_cast<float>(state.rotation)};
  result.offset = static_cast<float>(state.offset + work.slow.offset);
  result.residual_sd = static_cast<float>(state.sigma);
  result.standard_error_y_px = static_cast<float>(state.error_y);
  result.standard_error_x_px = static_cast<float>(state.error_x);
  result.standard_error_rotation_rad = static_cast<float>(state.error_rotation);
  result.inlier_fraction = static_cast<float>(state.mean_weight);
  result.converged = state.last_step < 0.1;
  return result;
}

}  // namespace cinelumen
