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
#include "registration_pyramid.h"
#include "registration_tile.h"
#include "tile.h"

namespace cinelumen {
namespace {

using namespace registration;

constexpr int level_count = 3;
constexpr int iterations[level_count] = {3, 5, 3};  // finest first
// Of what the mask's gradients tell, the share in the blocks that are compared: at first, when a step need not be exact, and in the end.
// All of it costs twice the time and hardly lowers the error (0.018 px rms against 0.025 under heavy noise, no difference under little).
constexpr double share_at_first[level_count] = {0.5, 0.5, 1}, share_in_the_end[level_count] = {0.85, 0.8, 1};
constexpr int steps_at_first[level_count] = {2, 1, 2};
constexpr std::size_t least_blocks = 16;  // also of the blocks of small images
constexpr int slow_level = 1;             // where the slow part is measured
constexpr int unused_border_px = 4;
// A median absolute deviation of that many pixels is good to 3 and 4 %.
constexpr int sample_limit[level_count] = {2048, 1024, 1024};

/// A block of grid pixels that the normal equations are summed over. Blocks have the same size on both machines.
struct GridBlock {
  int y, x;
};
constexpr int block_rows = 8, block_columns = 64;

/// Where a finished estimate goes.
struct Outcome {
  ArrayView<RigidEstimate> estimate;
  ArrayView<FramePlacement> placement;
  RigidMotion otherwise;  // the motion told where nothing could be compared

  CINELUMEN_HOST_DEVICE void write(const State& state) const {
    RigidEstimate result{};
    result.motion = otherwise;
    if (state.comparable && state.solved) {
      result.motion = {static_cast<float>(state.shift_y), static_cast<float>(state.shift_x), static_cast<float>(state.rotation)};
      result.offset = static_cast<float>(state.offset + state.slow_offset);
      result.residual_sd = static_cast<float>(state.sigma);
      result.standard_error_y_px = static_cast<float>(state.error_y);
      result.standard_error_x_px = static_cast<float>(state.error_x);
      result.standard_error_rotation_rad = static_cast<float>(state.error_rotation);
      result.inlier_fraction = static_cast<float>(state.mean_weight);
      result.converged = state.last_step < 0.1;
    }
    estimate[0] = result;
    placement[0] = {result.converged ? result.motion : RigidMotion{}, result.offset};
  }
};

/// The coefficients that a block of grid pixels reads. CUDA copies them to shared memory, where sixteen of a block's pixels read each.
template <int Step>
struct CoefficientWindow {
#ifdef __CUDACC__
  // Room for a motion that turns by 2 degrees.
  static constexpr int rows = Step * (block_rows - 1) + 4 + 5, half_columns = (block_columns + 2 / Step + 2 + 7 + 7) / 8 * 8,
                       columns = Step * half_columns;
  Tile<float, rows, columns> at;
#endif

  /// Sets `coefficients` and `inverse` to what evaluate_strip takes for the block at (y0, x0). Ends with the barrier.
  template <class Block>
  CINELUMEN_HOST_DEVICE void load([[maybe_unused]] const Block& block, [[maybe_unused]] int block_height, [[maybe_unused]] int block_width,
                                  [[maybe_unused]] ImageView<const float>& coefficients, [[maybe_unused]] InverseMotion& inverse) {
#ifdef __CUDA_ARCH__
    const float y0 = block.y0, x0 = block.x0, y1 = block.y0 + block_height - 1, x1 = block.x0 + block_width - 1;
    const float turn_y = inverse.sine * (x1 - x0), turn_x = inverse.sine * (y1 - y0);
    const float first_y = inverse.origin_y - inverse.sine * x0 + inverse.cosine * y0,
                first_x = inverse.origin_x + inverse.cosine * x0 + inverse.sine * y0;
    const float top = first_y - fmaxf(turn_y, 0.0f) + fminf(inverse.cosine * (y1 - y0), 0.0f),
                bottom = first_y - fminf(turn_y, 0.0f) + fmaxf(inverse.cosine * (y1 - y0), 0.0f);
    const float left = first_x + fminf(turn_x, 0.0f) + fminf(inverse.cosine * (x1 - x0), 0.0f),
                right = first_x + fmaxf(turn_x, 0.0f) + fmaxf(inverse.cosine * (x1 - x0), 0.0f);
    if (!(top >= 2.0f && left >= 2.0f && bottom < coefficients.height - 4.0f && right < coefficients.width - 4.0f)) return;
    // Whole sectors of 8, counted in each half of the columns where they are split.
    const int first_row = static_cast<int>(top) - 1, row_count = static_cast<int>(bottom) + 3 - first_row;
    const int first_column = (static_cast<int>(left) - 1) / Step / 8 * 8,
              column_count = (static_cast<int>(right) + 3) / Step + 1 - first_column;
    if (row_count > rows || column_count > half_columns) return;
    // Rows as wide as they lie apart: a warp that goes on in the next one finds other banks of shared memory.
    block.for_each_pixel(row_count, columns, [&](int y, int i) {
      const int part = i < half_columns ? 0 : 1, x = i - part * half_columns;
      if (x < column_count) at[y][i] = coefficients.row(first_row + y)[part * (coefficients.width / 2) + first_column + x];
    });
    coefficients = {at[0], row_count, columns, columns};
    inverse.origin_y -= static_cast<float>(first_row);
    inverse.origin_x -= static_cast<float>(Step * first_column);
#endif
  }
};

/// Sums of the normal equations over each of a list of blocks: tile `index` works on blocks[index]. Then one step, the slow part, and what
/// the next round needs.
template <int Step>
struct NormalEquations {
  ImageView<const float> frame, coefficients;
  ArrayView<const GridBlock> blocks;
  float inverse_lever;  // 1 / half diagonal, mask pixels: keeps rotation and shift on one scale
  bool cells;           // the blocks are all there are, and each is a row of cells whose residuals are summed
  float cells_per_pixel;
  SlowPart slow;
  ImageView<float> partial;
  Solver solver;
  Round next;  // not used after the last
  Outcome outcome;
  ArrayView<State> state;

  using CpuTile = TileShape<block_rows, block_columns>;
  using CudaTile = CpuTile;
  static constexpr int cell = Step == 2 ? cell_px / 2 : cell_px / 4, cells_along = block_columns / cell, parts = 16;

  template <int Height, int Width>
  struct Scratch {
    struct Equations {
      Tile<float, Height, Width> value, slope_y, slope_x;
      SumLanes<sum_count> lanes;
      CoefficientWindow<Step> window;
      Tile<float, Height, cells_along + 5> slow_rows;  // of the image, columns of cells
    };
    struct Between {
      Tile<double, parts, sum_count> part;
      SumLanes<3> lanes;
      Sample sample;
    };
    union {
      Equations equations;
      Between between;
    };
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> tile, Scratch<Height, Width>& memory) const {
    static_assert(Width % bspline_strip == 0 && Height == block_rows && Width == block_columns);
    const State& now = *state.data;
    if (!now.comparable) return;
    auto& scratch = memory.equations;
    Block<Height, Width> block = tile;
    block.y0 = blocks.data[tile.index].y;
    block.x0 = blocks.data[tile.index].x;
    const int rows = block.rows(frame.height), columns = block.columns(frame.width);
    const LevelMotion motion = now.motion;
    const float offset = now.offset_now, inverse_cut_above = now.inverse_cut_above, inverse_cut_below = now.inverse_cut_below;
    ImageView<const float> readable = coefficients;
    InverseMotion inverse = motion.inverse;
    scratch.window.load(block, rows, columns, readable, inverse);
    block.for_each_pixel(rows, (columns + bspline_strip - 1) / bspline_strip, [&](int y, int strip) {
      const int x = strip * bspline_strip;
      evaluate_strip<Step, true>(readable, inverse, block.y0 + y, block.x0 + x, scratch.value[y] + x, scratch.slope_y[y] + x,
                                 scratch.slope_x[y] + x);
    });
    if (now.slow) add_slow(block, scratch, rows, columns);
    // What decides a pixel's weight in float stays in float: names are the derivatives of the residual.
    (void)block.sum_pixels(rows, columns, scratch.lanes, [&](int y, int x) {
      const float fy = static_cast<float>(block.y0 + y), fx = static_cast<float>(block.x0 + x);
      const float r = frame.row(block.y0 + y)[block.x0 + x] - scratch.value[y][x] - offset;
      if constexpr (on_device) scratch.value[y][x] = r;  // so that the frame is read once
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
      return Sums<sum_count>{{w, wy, wx, wt, wy * gy, wy * gx, wy * gt, wx * gx, wx * gt, wt * gt, we, we * gy, we * gx, we * gt,
                              use ? t * (1.0f - 5.0f * u * u) : 0.0f, known ? 1.0f : 0.0f}};
    });
    block.for_each_pixel(1, sum_count, [&](int, int k) { partial.row(block.index)[k] = scratch.lanes.total(k); });
    if (!cells) return;
    // The same weights again, now per cell.
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const float r = on_device ? scratch.value[y][x] : frame.row(block.y0 + y)[block.x0 + x] - scratch.value[y][x] - offset;
      const float u = r * (r > 0.0f ? inverse_cut_above : inverse_cut_below);
      const float t = 1.0f - u * u;
      const bool use = t > 0.0f;
      const float w = use ? t * t : 0.0f, e = use ? r : 0.0f;
      scratch.slope_y[y][x] = w;
      scratch.slope_x[y][x] = w * e;
    });
    // What a cell's threads add on CUDA lies in different banks of shared memory.
    float* const of_column = scratch.value[0];
    const auto at = [](int x) { return on_device ? x + x / 32 : x; };
    static_assert(Height * Width >= 256 && Width <= 64);
    block.for_each_pixel(1, columns, [&](int, int x) {
      float weight = 0, sum = 0;
      for (int y = 0; y < rows; ++y) {
        weight += scratch.slope_y[y][x];
        sum += scratch.slope_x[y][x];
      }
      of_column[at(x)] = weight;
      of_column[128 + at(x)] = sum;
    });
    block.for_each_pixel(1, (columns + cell - 1) / cell, [&](int, int c) {
      float weight = 0, sum = 0;
      for (int x = c * cell; x < c * cell + cell && x < columns; ++x) {
        weight += of_column[at(x)];
        sum += of_column[128 + at(x)];
      }
      slow.weight.row(block.y0 / cell)[block.x0 / cell + c] = weight;
      slow.sum.row(block.y0 / cell)[block.x0 / cell + c] = sum;
    });
  }

  /// The moved mask becomes what the frame is expected to be without contrast. In strips that read the same four columns of cells.
  template <class Block, class Scratch>
  CINELUMEN_HOST_DEVICE void add_slow(const Block& block, Scratch& scratch, int rows, int columns) const {
#ifdef __CUDA_ARCH__
    constexpr int strip = 1;
#else
    constexpr int strip = cell / 2;
#endif
    const int first = static_cast<int>(slow_position(block.x0, cells_per_pixel)) - 2;
    const int coarse = static_cast<int>(slow_position(block.x0 + columns - 1, cells_per_pixel)) + 2 - first;
    block.for_each_pixel(rows, coarse, [&](int y, int c) {
      const float at = slow_position(block.y0 + y, cells_per_pixel);
      const int whole = static_cast<int>(at), column = clamp_int(first + c, 0, slow.field.width - 1);
      float w[4], sum = 0;
      bspline_weights(at - static_cast<float>(whole), w[0], w[1], w[2], w[3]);
      for (int k = 0; k < 4; ++k) sum += w[k] * slow.field.row(clamp_int(whole - 2 + k, 0, slow.field.height - 1))[column];
      scratch.slow_rows[y][c] = sum;
    });
    block.for_each_pixel(rows, (columns + strip - 1) / strip, [&](int y, int i) {
      const int x = i * strip;
      const float at = slow_position(block.x0 + x, cells_per_pixel);
      const int whole = static_cast<int>(at);
      const float from = at - static_cast<float>(whole);
      const float* const in = scratch.slow_rows[y] + (whole - 2 - first);
      const float a = in[0], b = in[1], c = in[2], d = in[3];
      float* const value = scratch.value[y] + x;
      for (int k = 0; k < strip; ++k) {
        float w0, w1, w2, w3;
        bspline_weights(from + static_cast<float>(k) * cells_per_pixel, w0, w1, w2, w3);
        value[k] += w0 * a + w1 * b + w2 * c + w3 * d;
      }
    });
  }

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void finish(Block<Height, Width> block, Scratch<Height, Width>& memory) const {
    State& now = *state.data;
    auto& scratch = memory.between;
    if (now.comparable) {
      block.for_each_pixel(parts, sum_count, [&](int part, int k) {
        double sum = 0;
        for (int tile = part; tile < blocks.size; tile += parts) sum += partial.row(tile)[k];
        scratch.part[part][k] = sum;
      });
      block.once([&] {
        double sums[sum_count];
        for (int k = 0; k < sum_count; ++k) {
          sums[k] = 0;
          for (int part = 0; part < parts; ++part) sums[k] += scratch.part[part][k];
        }
        solver(sums, now);
      });
      if (cells) update_slow(block, slow, static_cast<float>(cell * cell), now, scratch.lanes);
    }
    if (solver.last)
      block.once([&] { outcome.write(now); });
    else
      prepare(block, next, now, scratch.sample);
  }
};

/// Sets the state to a motion, and makes it ready for the first round. One tile.
struct Start {
  RigidMotion motion;
  bool turn;
  Round first;
  ArrayView<State> state;

  using CpuTile = TileShape<1, 1>;
  using CudaTile = CpuTile;
  template <int Height, int Width>
  struct Scratch {
    Sample sample;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    block.once([&] {
      *state.data = State{};
      state.data->turn = turn;
      state.data->shift_y = motion.shift_y_px;
      state.data->shift_x = motion.shift_x_px;
      state.data->rotation = turn ? motion.rotation_rad : 0;
    });
    prepare(block, first, *state.data, scratch.sample);
  }
};

CINELUMEN_HOST_DEVICE inline float binned(const ImageView<const float>& image, int y, int x) {
  return 0.25f * (image(2 * y, 2 * x) + image(2 * y, 2 * x + 1) + image(2 * y + 1, 2 * x) + image(2 * y + 1, 2 * x + 1));
}

/// A difference of neighbours that nine in ten do not exceed; 0 where none is known.
template <class Block>
CINELUMEN_HOST_DEVICE float common_difference(const Block& block, ImageView<const float> image, Sample& sample) {
  const int height = image.height, width = image.width - 1;
  int spacing = 1;
  while (((height + spacing - 1) / spacing) * ((width + spacing - 1) / spacing) > most_samples) ++spacing;
  const int rows = (height + spacing - 1) / spacing, columns = (width + spacing - 1) / spacing;
  if (columns <= 0) return 0;
  std::int32_t* const key = sample.key;
  block.for_each_pixel(rows, columns, [&](int y, int x) {
    const float* at = image.row(y * spacing) + x * spacing;
    const float step = at[1] - at[0];
    key[y * columns + x] = order_key(step < 0 ? -step : step);
  });
  const int known = known_keys(block, sample, rows * columns);
  return known > 0 ? from_order_key(key_of_rank(block, sample, rows * columns, static_cast<int>(0.9 * known))) : 0;
}

/// The coarsest level of a frame; then its half, and how much neighbours differ in both: for the search.
template <class Source>
struct CoarsestLevel : Smooth<2, Source> {
  ImageView<float> half;  // no pixels where images are too small for a search in two steps
  bool turn;
  ArrayView<State> state;

  template <int Height, int Width>
  struct Scratch {
    union {
      typename Smooth<2, Source>::template Scratch<Height, Width> smooth;
      Sample sample;
    };
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    Smooth<2, Source>::operator()(block, scratch.smooth);
  }
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void finish(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const ImageView<float>&made = this->smoothed, &coarse = half;
    const ImageView<const float> coarsest{made.data, made.height, made.width, made.pitch},
        halved{coarse.data, coarse.height, coarse.width, coarse.pitch};
    block.for_each_pixel(half.height, half.width, [&](int y, int x) { half(y, x) = binned(coarsest, y, x); });
    const float limit = common_difference(block, coarsest, scratch.sample), coarse_limit = common_difference(block, halved, scratch.sample);
    block.once([&] {
      *state.data = State{};
      state.data->turn = turn;
      state.data->limit = limit;
      state.data->coarse_limit = coarse_limit;
    });
  }
};

/// How well the mask, shifted by whole pixels, lies on the frame: by the differences of neighbours, which do not see an offset, truncated,
/// so that contrast has a bounded say. One tile for each of the (2 radius + 1)^2 shifts around twice the one found before. Then the best.
struct Search {
  ImageView<const float> frame, mask;
  int radius;
  bool coarse;  // the first of two
  double grid;  // full-resolution pixels per pixel
  ArrayView<float> score, count;
  Round first;
  ArrayView<State> state;

  using CpuTile = TileShape<1, 1>;
  using CudaTile = CpuTile;
  static constexpr int shifts_at_once = 512;

  template <int Height, int Width>
  struct Scratch {
    struct Staged {
      float score[shifts_at_once], count[shifts_at_once];
    };
    union {
      SumLanes<2> lanes;
      Staged staged;
      Sample sample;
    };
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int sy = 2 * state[0].found_y + block.index / (2 * radius + 1) - radius,
              sx = 2 * state[0].found_x + block.index % (2 * radius + 1) - radius;
    const float limit = coarse ? state[0].coarse_limit : state[0].limit;
    const int top = sy > 0 ? sy : 0, left = sx > 0 ? sx : 0;
    const int rows = frame.height - 1 - (sy > 0 ? sy : -sy), columns = frame.width - 1 - (sx > 0 ? sx : -sx);
    const Sums<2> sums = block.sum_pixels(rows > 0 ? rows : 0, columns > 0 ? columns : 0, scratch.lanes, [&](int y, int x) {
      const float* f = frame.row(top + y) + left;
      const float* m = mask.row(top + y - sy) + left - sx;
      const float here = f[x] - m[x], across = fabsf(f[x + 1] - m[x + 1] - here),
                  down = fabsf(f[x + frame.pitch] - m[x + mask.pitch] - here);
      const float a = across < limit ? across : limit, d = down < limit ? down : limit;
      const bool known = across + down < 1e30f;
      return Sums<2>{{known ? a + d : 0.0f, known ? 1.0f : 0.0f}};
    });
    block.once([&] {
      score[block.index] = sums.value[0];
      count[block.index] = sums.value[1];
    });
  }
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void finish(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    State& now = *state.data;
    const int side = 2 * radius + 1, shifts = side * side;
    // A small overlap fits by chance.
    float enough = 1;
    for_each_shift(block, scratch, shifts, [&](int, float, float known) { enough = known > enough ? known : enough; });
    enough *= 0.4f;
    // Where shifts are equally good, the image rests.
    int best = shifts / 2;
    float least = count[best] >= enough ? score[best] / count[best] : 1e30f;
    for_each_shift(block, scratch, shifts, [&](int i, float sum, float known) {
      const float mean = known >= enough ? sum / known : 1e30f;
      best = mean < least ? i : best;
      least = mean < least ? mean : least;
    });
    block.once([&] {
      now.found_y = 2 * now.found_y + best / side - radius;
      now.found_x = 2 * now.found_x + best % side - radius;
      now.shift_y = grid * now.found_y;
      now.shift_x = grid * now.found_x;
    });
    if (!coarse) prepare(block, first, now, scratch.sample);
  }

 private:
  /// visit(shift, score, count) for all shifts in their order, in every thread.
  template <class Block, class Scratch, class Visit>
  CINELUMEN_HOST_DEVICE void for_each_shift(const Block& block, Scratch& scratch, int shifts, Visit visit) const {
    for (int from = 0; from < shifts; from += shifts_at_once) {
      const int here = shifts - from < shifts_at_once ? shifts - from : shifts_at_once;
      block.for_each_pixel(1, here, [&](int, int i) {
        scratch.staged.score[i] = score[from + i];
        scratch.staged.count[i] = count[from + i];
      });
      for (int i = 0; i < here; ++i) visit(from + i, scratch.staged.score[i], scratch.staged.count[i]);
      block.for_each_pixel(0, 0, [](int, int) {});  // all have read them
    }
  }
};

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
  if (blocks.empty()) blocks.push_back({0, 0});
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

/// Which quantile of the absolute residual the scale is read from before an iteration, and a normal distribution's; {0, 0}: the scale is
/// kept. The median, or higher while edges are still far from one another: they would be taken for outliers, though they are what shows the
/// way.
std::pair<double, double> scale_quantile(int level, int iteration, int coarsest) {
  if (level == coarsest && iteration == 0) return {0.95, 1.95996};
  if (level == coarsest && iteration == 1) return {0.8, 1.28155};
  if (iteration < 2 || level > 0) return {0.5, 0.67449};
  return {0, 0};
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
  Image<std::uint8_t> valid;      // on the finest grid, device
  Image<float> coarsest, halved;  // device: the coarsest level's mask, NaN where not valid, and half of it, for the search
  double gradient_smoothing = 1;  // see standard errors

  double half_diagonal() const { return std::max(0.5 * std::hypot(height - 1.0, width - 1.0), 1.0); }
  double grid_px() const { return levels[levels_used - 1].scale * levels[levels_used - 1].step; }
  /// Of the search, pixels of the coarsest grid.
  int reach() const {
    const Level& last = levels[levels_used - 1];
    return std::min({static_cast<int>(options.search_radius_px / grid_px()), last.height / 4, last.width / 4});
  }
  bool search_twice() const { return std::min(levels[levels_used - 1].height, levels[levels_used - 1].width) >= 96 && reach() >= 4; }
};

struct MaskRegistration::Workspace {
  std::array<Image<float>, level_count> frame;
  Image<float> halved, partial;
  Image<float> cell_sum, cell_weight, along_y_sum, along_y_weight, change, field;  // of the slow part
  Array<float> score, count;
  Array<State> state;
  Array<unsigned> ticket;
  Array<RigidEstimate> estimate, estimate_host;  // of the calls that wait
  Array<FramePlacement> placement;

  Workspace(const Stream& stream, const Mask& mask)
      : state(stream, 1),
        ticket(stream, 1),
        estimate(stream, 1),
        estimate_host(Array<RigidEstimate>::staging(stream, 1)),
        placement(stream, 1) {
    int tiles = 0;
    for (int l = 0; l < mask.levels_used; ++l) {
      const Mask::Level& level = mask.levels[l];
      frame[l] = Image<float>(stream, level.height, level.width);
      tiles = std::max(tiles, std::max(level.at_first.size(), level.in_the_end.size()));
    }
    partial = Image<float>(stream, tiles, sum_count);
    halved = Image<float>(stream, mask.halved.height(), mask.halved.width());
    const int h = (mask.height + cell_px - 1) / cell_px, w = (mask.width + cell_px - 1) / cell_px;
    for (Image<float>* plane : {&cell_sum, &cell_weight, &along_y_sum, &along_y_weight, &change, &field}) {
      *plane = Image<float>(stream, h, w);
      set_zero(stream, plane->view());
    }
    const int shifts = square_of_side(mask.search_twice() ? std::max(mask.reach() / 2, 2) : mask.reach());
    score = Array<float>(stream, shifts);
    count = Array<float>(stream, shifts);
    set_zero(stream, ticket.view());
  }
  SlowPart slow() { return {cell_sum, cell_weight, along_y_sum, along_y_weight, change, field}; }
  static int square_of_side(int radius) { return (2 * radius + 1) * (2 * radius + 1); }
};

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
  Image<float> coarsest = to_host(stream, plane.view());
  for (int y = 0; y < coarsest.height(); ++y)
    for (int x = 0; x < coarsest.width(); ++x)
      if (!level_valid(y, x)) coarsest(y, x) = unknown;
  mask->coarsest = to_device(stream, coarsest.view());
  if (mask->search_twice()) {
    Image<float> halved(coarsest.height() / 2, coarsest.width() / 2);
    for (int y = 0; y < halved.height(); ++y)
      for (int x = 0; x < halved.width(); ++x) halved(y, x) = binned(coarsest.view(), y, x);
    mask->halved = to_device(stream, halved.view());
  }
  stream.synchronize();
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

RigidEstimate MaskRegistration::estimate(const Stream& stream, ImageView<const float> frame_attenuation, std::optional<RigidMotion> start) {
  check(frame_attenuation.height, frame_attenuation.width, start);
  enqueue(stream, PlaneSource{frame_attenuation}, start, workspace_->estimate, workspace_->placement);
  return wait(stream);
}

RigidEstimate MaskRegistration::estimate(const Stream& stream, const StoredFrame& frame, std::optional<RigidMotion> start) {
  enqueue(stream, frame, workspace_->estimate, workspace_->placement, start);
  return wait(stream);
}

void MaskRegistration::enqueue(const Stream& stream, const StoredFrame& frame, ArrayView<RigidEstimate> estimate,
                               ArrayView<FramePlacement> placement, std::optional<RigidMotion> start) {
  check(frame.stored.height, frame.stored.width, start);
  require(frame.table.size > 0, "MaskRegistration::estimate: the table is empty");
  require(estimate.size == 1 && placement.size == 1, "MaskRegistration::enqueue: estimate and placement must have one element");
  enqueue(stream, StoredSource{frame}, start, estimate, placement);
}

void MaskRegistration::check(int height, int width, const std::optional<RigidMotion>& start) const {
  require(height == mask_->height && width == mask_->width, "MaskRegistration::estimate: frame and mask differ in size");
  require(!start || (std::isfinite(start->shift_y_px) && std::isfinite(start->shift_x_px) && std::isfinite(start->rotation_rad)),
          "MaskRegistration::estimate: start must be finite");
}

RigidEstimate MaskRegistration::wait(const Stream& stream) {
  copy<RigidEstimate>(stream, workspace_->estimate, workspace_->estimate_host);
  stream.synchronize();
  return workspace_->estimate_host[0];
}

template <class Source>
void MaskRegistration::enqueue(const Stream& stream, const Source& source, const std::optional<RigidMotion>& start,
                               ArrayView<RigidEstimate> estimate, ArrayView<FramePlacement> placement) {
  const Mask& mask = *mask_;
  Workspace& work = *workspace_;
  const int coarsest = mask.levels_used - 1;

  const auto round = [&](int l, int iteration) {
    const Mask::Level& level = mask.levels[l];
    Round result{};
    result.level = {work.frame[l],
                    level.coefficients,
                    level.step,
                    level.scale,
                    (mask.height - 1) / 2.0 / level.scale,
                    (mask.width - 1) / 2.0 / level.scale,
                    padding};
    result.first = iteration == 0;
    result.slow = work.field;
    result.cells_per_pixel = static_cast<float>(level.scale * level.step / cell_px);
    const auto [quantile, normal_quantile] = scale_quantile(l, iteration, coarsest);
    result.quantile = quantile;
    result.normal_quantile = normal_quantile;
    result.spacing = 1;
    const auto along = [&](int extent) { return (extent + result.spacing - 1) / result.spacing; };
    while (along(level.height) * along(level.width) > sample_limit[l]) ++result.spacing;
    return result;
  };

  // NaN spreads by itself to the coarser levels.
  const Round first = round(coarsest, 0);
  const bool turn = mask.options.rotation;
  const auto smooth = [&](int l, const auto& kernel) {
    if (l < coarsest || start)
      for_each_tile(stream, kernel.smoothed.height, kernel.smoothed.width, kernel);
    else
      for_each_tile_then_finish(stream, kernel.smoothed.height, kernel.smoothed.width,
                                CoarsestLevel{kernel, work.halved.view(), turn, work.state.view()}, work.ticket);
  };
  smooth(0, Smooth<2, Source>{source, mask.valid, work.frame[0]});
  for (int l = 1; l <= coarsest; ++l) smooth(l, Smooth<2>{{work.frame[l - 1]}, {}, work.frame[l]});
  if (start) {
    for_each_tile(stream, 1, 1, Start{*start, turn, first, work.state});
  } else {
    const auto search = [&](const Image<float>& frame, const Image<float>& of_mask, int radius, bool coarse) {
      for_each_tile_then_finish(stream, Workspace::square_of_side(radius), 1,
                                Search{frame, of_mask, radius, coarse, mask.grid_px(), work.score, work.count, first, work.state},
                                work.ticket);
    };
    const bool twice = mask.search_twice();
    if (twice) search(work.halved, mask.halved, mask.reach() / 2, true);
    search(work.frame[coarsest], mask.coarsest, twice ? 2 : mask.reach(), false);
  }

  for (int l = coarsest; l >= 0; --l)
    for (int i = 0; i < iterations[l]; ++i) {
      const Mask::Level& level = mask.levels[l];
      const bool last_of_level = i + 1 == iterations[l], last = last_of_level && l == 0;
      const double lever = mask.half_diagonal() / level.scale;
      // Of the smoothed noise, whose variance is 0.0748 of the white noise's, a sum weighted by a smooth gradient keeps nearly all.
      constexpr double kept = (70.0 / 256) * (70.0 / 256);
      const Solver solver{level.scale, lever, mask.half_diagonal(),
                          std::max(1.0, mask.gradient_smoothing / kept / (static_cast<double>(level.step) * level.step)), last};
      const Round next = last ? Round{} : last_of_level ? round(l - 1, 0) : round(l, i + 1);
      const ArrayView<const GridBlock> blocks = (i < steps_at_first[l] ? level.at_first : level.in_the_end).view();
      const auto solve = [&](auto kernel) {
        for_each_tile_then_finish(stream, blocks.size * block_rows, block_columns, kernel, work.ticket);
      };
      const auto kernel = [&]<int Step>(std::integral_constant<int, Step>) {
        // The slow part not before the motion is roughly right: measured off the place it would hold the estimate there.
        const bool cells = l == slow_level && i >= steps_at_first[l];
        return NormalEquations<Step>{work.frame[l],
                                     level.coefficients,
                                     blocks,
                                     static_cast<float>(1 / lever),
                                     cells,
                                     static_cast<float>(level.scale * level.step / cell_px),
                                     work.slow(),
                                     work.partial,
                                     solver,
                                     next,
                                     {estimate, placement, start.value_or(RigidMotion{})},
                                     work.state};
      };
      if (level.step == 2)
        solve(kernel(std::integral_constant<int, 2>{}));
      else
        solve(kernel(std::integral_constant<int, 1>{}));
    }
}

}  // namespace cinelumen
