#pragma once
/// A rigid estimate in progress, in memory of the stream's device, and what one block does between two rounds of the normal equations:
/// the robust scale, the solution, the slow part. Nothing here is decided on the host.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "bspline_tile.h"
#include "image.h"
#include "tile.h"

namespace cinelumen::registration {

inline constexpr float unknown = std::bit_cast<float>(0x7fc00000);  // NaN
inline constexpr double cut_above = 2.5, cut_below = 4.685;
inline constexpr int cell_px = 32;               // of the slow part
inline constexpr double least_slow_part = 0.25;  // sigma: below, taking it out costs more than it gains
inline constexpr int least_samples = 20;         // for a scale, and least weight for a step
inline constexpr int most_samples = 2048;
inline constexpr int sum_count = 16;

/// The motion as one level's kernels need it.
struct LevelMotion {
  InverseMotion inverse;     // into the padded plane of coefficients
  float centre_y, centre_x;  // of rotation, in that plane
  float cosine, sine;        // of the rotation alone
};

/// One frame's estimation in progress. Shifts in full-resolution pixels.
struct State {
  double shift_y, shift_x, rotation, offset, sigma;
  double error_y, error_x, error_rotation, mean_weight, last_step;
  double slow_offset;  // mean of the slow part over what was compared
  bool turn;           // rotation is free
  bool comparable;     // enough pixels lie on one another
  bool solved;         // the last step is the solution of its equations
  bool slow;           // a slow part was found
  // Of the search: how large a difference of neighbours may count, on its two grids.
  float limit, coarse_limit;
  int found_y, found_x;
  // As the next round's kernels read it.
  LevelMotion motion;
  float offset_now, inverse_cut_above, inverse_cut_below;
};

/// One level of the pyramid as kernels see it.
struct LevelView {
  ImageView<const float> frame, coefficients;  // the latter padded
  int step;                                    // mask pixels per grid pixel
  double scale;                                // full-resolution pixels per mask pixel
  double centre_y, centre_x;                   // of rotation, mask pixels
  int padding;
};

/// The state's motion on this level.
CINELUMEN_HOST_DEVICE inline LevelMotion level_motion(const LevelView& level, const State& state) {
  const auto [sine, cosine] = sine_cosine(state.rotation);
  const double centre_y = level.centre_y, centre_x = level.centre_x, y = centre_y + state.shift_y / level.scale,
               x = centre_x + state.shift_x / level.scale;
  LevelMotion result;
  result.inverse = {static_cast<float>(centre_y + sine * x - cosine * y + level.padding),
                    static_cast<float>(centre_x - cosine * x - sine * y + level.padding), static_cast<float>(level.step * cosine),
                    static_cast<float>(level.step * sine)};
  result.centre_y = static_cast<float>(centre_y + level.padding);
  result.centre_x = static_cast<float>(centre_x + level.padding);
  result.cosine = static_cast<float>(cosine);
  result.sine = static_cast<float>(sine);
  return result;
}

// ------------------------------------------------------------------ order statistics

/// Keys of floats in their order; all NaN come last.
CINELUMEN_HOST_DEVICE inline std::int32_t order_key(float value) {
  const std::int32_t bits = std::bit_cast<std::int32_t>(value);
  const std::int32_t key = bits ^ ((bits >> 31) & 0x7fffffff);
  return value == value ? key : 0x7fffffff;
}
CINELUMEN_HOST_DEVICE inline float from_order_key(std::int32_t key) { return std::bit_cast<float>(key ^ ((key >> 31) & 0x7fffffff)); }

/// A sample, and scratch to take quantiles of it.
struct Sample {
  std::int32_t key[most_samples];
  SumLanes<3> lanes;
};

/// The key of rank `rank` (0-based) among the first `count`: the same on any machine. Bits are found two at a time, by counting.
template <class Block>
CINELUMEN_HOST_DEVICE std::int32_t key_of_rank(const Block& block, Sample& sample, int count, int rank) {
  std::uint32_t found = 0;  // as if keys were unsigned
  const std::int32_t* key = sample.key;
  for (int shift = 30; shift >= 0; shift -= 2) {
    std::int32_t edge[3];
    for (int k = 0; k < 3; ++k) edge[k] = static_cast<std::int32_t>((found | static_cast<std::uint32_t>(k + 1) << shift) ^ 0x80000000u);
    const std::int32_t e0 = edge[0], e1 = edge[1], e2 = edge[2];
    const Sums<3> below = block.sum_pixels(1, count, sample.lanes, [&](int, int i) {
      return Sums<3>{{key[i] < e0 ? 1.0f : 0.0f, key[i] < e1 ? 1.0f : 0.0f, key[i] < e2 ? 1.0f : 0.0f}};
    });
    std::uint32_t digit = 0;
    for (int k = 0; k < 3; ++k) digit += static_cast<float>(rank) >= below.value[k] ? 1u : 0u;
    found |= digit << shift;
  }
  return static_cast<std::int32_t>(found ^ 0x80000000u);
}

/// How many of the first `count` keys are of numbers.
template <class Block>
CINELUMEN_HOST_DEVICE int known_keys(const Block& block, Sample& sample, int count) {
  const std::int32_t* key = sample.key;
  return static_cast<int>(
      block.sum_pixels(1, count, sample.lanes,
                       [&](int, int i) {
                         return Sums<3>{{key[i] == 0x7fffffff ? 0.0f : 1.0f, 0.0f, 0.0f}};
                       })
          .value[0]);
}

// ------------------------------------------------------------------ the slow part

/// The part of frame - mask that varies slowly: exposure, breathing lungs, an intensifier's shading. It moves otherwise than the edges do,
/// or not at all, and would drag the estimate along. Robust local means over cells; taken as coefficients of a cubic B-spline, because
/// linear interpolation would leave a pattern that does not move with the image.
struct SlowPart {
  ImageView<float> sum, weight;  // per cell: of weighted residuals, of weights
  ImageView<float> along_y_sum, along_y_weight, change, field;
};

/// Where grid pixel i lies among the slow part's cells, + 1.
CINELUMEN_HOST_DEVICE inline float slow_position(int i, float cells_per_pixel) {
  return (static_cast<float>(i) + 0.5f) * cells_per_pixel + 0.5f;  // + 1: never negative
}

/// The field at grid pixel (y, x).
CINELUMEN_HOST_DEVICE inline float slow_at(const ImageView<float>& field, int y, int x, float cells_per_pixel) {
  const float at_y = slow_position(y, cells_per_pixel), at_x = slow_position(x, cells_per_pixel);
  const int whole_y = static_cast<int>(at_y), whole_x = static_cast<int>(at_x);
  float wy[4], wx[4], sum = 0;
  bspline_weights(at_y - static_cast<float>(whole_y), wy[0], wy[1], wy[2], wy[3]);
  bspline_weights(at_x - static_cast<float>(whole_x), wx[0], wx[1], wx[2], wx[3]);
  for (int j = 0; j < 4; ++j) {
    const float* row = field.row(clamp_int(whole_y - 2 + j, 0, field.height - 1));
    for (int k = 0; k < 4; ++k) sum += wy[j] * wx[k] * row[clamp_int(whole_x - 2 + k, 0, field.width - 1)];
  }
  return sum;
}

/// Adds the smoothed cell means to the field, unless their rms is below least_slow_part sigma. `full_cell`: pixels of a full cell.
template <class Block>
CINELUMEN_HOST_DEVICE void update_slow(const Block& block, const SlowPart& slow, float full_cell, State& state, SumLanes<3>& lanes) {
  const int height = slow.sum.height, width = slow.sum.width;
  const auto binomial = [](float a, float b, float c, float d, float e) { return 0.0625f * (a + e) + 0.25f * (b + d) + 0.375f * c; };
  block.for_each_pixel(height, width, [&](int y, int x) {
    const int a = mirror_near(y - 2, height), b = mirror_near(y - 1, height), d = mirror_near(y + 1, height),
              e = mirror_near(y + 2, height);
    slow.along_y_sum(y, x) = binomial(slow.sum(a, x), slow.sum(b, x), slow.sum(y, x), slow.sum(d, x), slow.sum(e, x));
    slow.along_y_weight(y, x) = binomial(slow.weight(a, x), slow.weight(b, x), slow.weight(y, x), slow.weight(d, x), slow.weight(e, x));
  });
  // Cells of little weight are drawn to zero.
  const float floor = 0.05f * full_cell;
  block.for_each_pixel(height, width, [&](int y, int x) {
    const int a = mirror_near(x - 2, width), b = mirror_near(x - 1, width), d = mirror_near(x + 1, width), e = mirror_near(x + 2, width);
    const float *s = slow.along_y_sum.row(y), *w = slow.along_y_weight.row(y);
    slow.change(y, x) = binomial(s[a], s[b], s[x], s[d], s[e]) / (binomial(w[a], w[b], w[x], w[d], w[e]) + floor);
  });
  const Sums<3> sums = block.sum_pixels(height, width, lanes, [&](int y, int x) {
    const float w = slow.weight(y, x), c = slow.change(y, x);
    return Sums<3>{{w, w * c, w * c * c}};
  });
  const double least_rms = least_slow_part * state.sigma;
  if (!(sums.value[0] > 0) || sums.value[2] / sums.value[0] < least_rms * least_rms) return;
  const bool first = !state.slow;
  block.for_each_pixel(height, width, [&](int y, int x) { slow.field(y, x) = slow.change(y, x) + (first ? 0.0f : slow.field(y, x)); });
  block.once([&] {
    state.slow = true;
    state.slow_offset += sums.value[1] / sums.value[0];
  });
}

// ------------------------------------------------------------------ between two rounds

/// What the next round of the normal equations needs to know.
struct Round {
  LevelView level;
  bool first;                        // of its level
  double quantile, normal_quantile;  // of the absolute residual that the scale is read from, and a normal distribution's; 0: scale kept
  int spacing;                       // of the lattice of samples, grid pixels
  ImageView<float> slow;             // of SlowPart
  float cells_per_pixel;
};

/// Residuals at a lattice of pixels where the motion now stands, as keys.
template <class Block>
CINELUMEN_HOST_DEVICE int sample_residuals(const Block& block, const Round& round, const State& state, Sample& sample) {
  const ImageView<const float> frame = round.level.frame, coefficients = round.level.coefficients;
  const int spacing = round.spacing, rows = (frame.height + spacing - 1) / spacing, columns = (frame.width + spacing - 1) / spacing;
  const InverseMotion inverse = state.motion.inverse;
  const bool split = round.level.step == 2, slow = state.slow;
  const float last_y = static_cast<float>(coefficients.height) - 3.0f, last_x = static_cast<float>(coefficients.width) - 3.0f;
  std::int32_t* const key = sample.key;
  // Columns [first, end) of the four that a sample needs; the whole of it is their sum.
  const auto moved_mask = [&](int y, int x, int first, int end) __attribute__((always_inline)) {
    const float fy = static_cast<float>(y), fx = static_cast<float>(x);
    float q_y = inverse.origin_y - inverse.sine * fx + inverse.cosine * fy,
          q_x = inverse.origin_x + inverse.cosine * fx + inverse.sine * fy;
    // What lies off the mask lies on its border of NaN.
    q_y = q_y >= 1.0f ? (q_y < last_y ? q_y : last_y) : 1.0f;
    q_x = q_x >= 1.0f ? (q_x < last_x ? q_x : last_x) : 1.0f;
    const int base_y = static_cast<int>(q_y), base_x = static_cast<int>(q_x);
    float wy[4], wx[4], value = 0;
    bspline_weights(q_y - static_cast<float>(base_y), wy[0], wy[1], wy[2], wy[3]);
    bspline_weights(q_x - static_cast<float>(base_x), wx[0], wx[1], wx[2], wx[3]);
    for (int j = 0; j < 4; ++j) {
      const float* c = coefficients.row(base_y - 1 + j);
      CINELUMEN_UNROLL
      for (int k = first; k < end; ++k) {
        const int at = base_x - 1 + k;
        const float w = k < 2 ? (k < 1 ? wx[0] : wx[1]) : (k < 3 ? wx[2] : wx[3]);
        value += wy[j] * w * c[split ? coefficient_column<2>(at, coefficients.width) : at];
      }
    }
    return value;
  };
#ifdef __CUDA_ARCH__
  // Four threads a sample, a column each: what lies side by side is asked for at once. All threads of a warp take part in the sum.
  const int count = rows * columns;
  block.for_each_pixel(1, (4 * count + 31) / 32 * 32, [&](int, int thread) {
    const int i = thread / 4 < count ? thread / 4 : count - 1, y = i / columns * spacing, x = i % columns * spacing, column = thread % 4;
    float value = moved_mask(y, x, column, column + 1);
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    value += __shfl_xor_sync(0xffffffffu, value, 2);
    if (column == 0 && thread / 4 < count) key[i] = std::bit_cast<std::int32_t>(frame.row(y)[x] - value);
  });
#else
  block.for_each_pixel(rows, columns, [&](int row, int column) {
    const int y = row * spacing, x = column * spacing;
    key[row * columns + column] = std::bit_cast<std::int32_t>(frame.row(y)[x] - moved_mask(y, x, 0, 4));
  });
#endif
  block.for_each_pixel(rows, columns, [&](int row, int column) {
    const int i = row * columns + column;
    const float off = slow ? slow_at(round.slow, row * spacing, column * spacing, round.cells_per_pixel) : 0.0f;
    key[i] = order_key(std::bit_cast<float>(key[i]) - off);
  });
  return rows * columns;
}

/// Median and scale of the residual, into `state`; not comparable where there is too little of it.
template <class Block>
CINELUMEN_HOST_DEVICE void measure_scale(const Block& block, const Round& round, State& state, Sample& sample) {
  const int count = sample_residuals(block, round, state, sample), known = known_keys(block, sample, count);
  if (known < least_samples) {
    block.once([&] { state.comparable = false; });
    return;
  }
  const auto rank = [&](double quantile) { return static_cast<int>(quantile * known); };
  const float median = from_order_key(key_of_rank(block, sample, count, rank(0.5)));
  std::int32_t* const key = sample.key;
  block.for_each_pixel(1, count, [&](int, int i) {
    const float deviation = from_order_key(key[i]) - median;
    key[i] = order_key(deviation < 0 ? -deviation : deviation);
  });
  const float deviation = from_order_key(key_of_rank(block, sample, count, rank(round.quantile)));
  block.once([&] {
    const double sigma = deviation / round.normal_quantile;
    state.offset = median;
    state.sigma = sigma > 1e-6 ? sigma : 1e-6;
    state.comparable = true;
  });
}

/// Makes the state ready for a round.
template <class Block>
CINELUMEN_HOST_DEVICE void prepare(const Block& block, const Round& round, State& state, Sample& sample) {
  block.once([&] { state.motion = level_motion(round.level, state); });
  // Where a level has nothing to compare, the next one may have.
  if (round.quantile > 0 && (round.first || state.comparable)) measure_scale(block, round, state, sample);
  block.once([&] {
    state.offset_now = static_cast<float>(state.offset);
    state.inverse_cut_above = static_cast<float>(1 / (cut_above * state.sigma));
    state.inverse_cut_below = static_cast<float>(1 / (cut_below * state.sigma));
  });
}

/// A symmetric 4 x 4 system, solved by Cholesky decomposition.
struct System {
  double a[4][4], b[4];

  /// a is decomposed in place; false where it is not positive definite.
  CINELUMEN_HOST_DEVICE bool decompose() {
    for (int j = 0; j < 4; ++j) {
      for (int k = 0; k < j; ++k) a[j][j] -= a[j][k] * a[j][k];
      if (!(a[j][j] > 0)) return false;
      a[j][j] = std::sqrt(a[j][j]);
      for (int i = j + 1; i < 4; ++i) {
        for (int k = 0; k < j; ++k) a[i][j] -= a[i][k] * a[j][k];
        a[i][j] /= a[j][j];
      }
    }
    return true;
  }
  /// v becomes the solution for the right side v.
  CINELUMEN_HOST_DEVICE void solve(double (&v)[4]) const {
    for (int i = 0; i < 4; ++i) {
      for (int k = 0; k < i; ++k) v[i] -= a[i][k] * v[k];
      v[i] /= a[i][i];
    }
    for (int i = 3; i >= 0; --i) {
      for (int k = i + 1; k < 4; ++k) v[i] -= a[k][i] * v[k];
      v[i] /= a[i][i];
    }
  }
  CINELUMEN_HOST_DEVICE double inverse_diagonal(int i) const {
    double unit[4] = {i == 0 ? 1.0 : 0.0, i == 1 ? 1.0 : 0.0, i == 2 ? 1.0 : 0.0, i == 3 ? 1.0 : 0.0};
    solve(unit);
    return i == 0 ? unit[0] : i == 1 ? unit[1] : i == 2 ? unit[2] : unit[3];
  }
  /// As if the rotation were known.
  CINELUMEN_HOST_DEVICE void hold_rotation() {
    for (int k = 0; k < 3; ++k) a[3][k] = a[k][3] = 0;
    a[3][3] = 1;
    b[3] = 0;
  }
};

/// Takes one step with the sums of the normal equations `s`.
struct Solver {
  double scale, lever;         // of the level; full-resolution pixels per mask pixel; half diagonal, mask pixels
  double half_diagonal;        // full-resolution pixels
  double smoothing_per_pixel;  // of the variance of an estimate, for the noise that smoothing has correlated; see standard errors
  bool last;

  CINELUMEN_HOST_DEVICE void operator()(const double (&s)[sum_count], State& state) const {
    state.solved = false;
    if (!(s[0] >= least_samples)) return;
    state.mean_weight = s[0] / s[15];
    // Unknowns: offset, shift y, shift x (mask pixels), rotation x lever.
    System system{{{s[0], s[1], s[2], s[3]}, {s[1], s[4], s[5], s[6]}, {s[2], s[5], s[7], s[8]}, {s[3], s[6], s[8], s[9]}},
                  {s[10], s[11], s[12], s[13]}};
    // Holds still what the image says nothing about: as if each step were known to be zero to 5 px.
    for (int k = 1; k < 4; ++k) system.a[k][k] += state.sigma * state.sigma / 25;
    const double offset = state.offset, shift_y = state.shift_y, shift_x = state.shift_x, rotation = state.rotation;
    System still = system;
    if (!state.turn) system.hold_rotation();
    if (!system.decompose()) return;
    system.solve(system.b);
    double step = 0;
    for (int k = 1; k < 4; ++k) step = step > std::abs(system.b[k]) ? step : std::abs(system.b[k]);
    // The equations take the weights as given; Newton's method, which sees them change, goes this much further.
    const double newton = s[14] > 0.5 * s[0] ? s[0] / s[14] : 2, stretch = newton > 1 ? newton : 1;
    const double length = stretch * step > 2 ? 2 / step : stretch;
    move(state, system.b, length);
    if (state.turn) state.rotation += length * system.b[3] / lever;
    state.last_step = step * length * scale;
    state.solved = true;
    if (!last) return;
    set_errors(system, state);
    if (!state.turn || !(std::abs(state.rotation) * half_diagonal < 0.05 || std::abs(state.rotation) < 3 * state.error_rotation)) return;
    // The same equations for a rotation of zero.
    for (int k = 0; k < 3; ++k) still.b[k] += still.a[k][3] * rotation * lever;
    still.hold_rotation();
    if (!still.decompose()) return;
    still.solve(still.b);
    state.turn = false;
    state.rotation = 0;
    state.offset = offset;
    state.shift_y = shift_y;
    state.shift_x = shift_x;
    move(state, still.b, 1);
    set_errors(still, state);
  }

 private:
  CINELUMEN_HOST_DEVICE void move(State& state, const double (&b)[4], double length) const {
    state.offset += b[0];
    state.shift_y += length * b[1] * scale;
    state.shift_x += length * b[2] * scale;
  }
  CINELUMEN_HOST_DEVICE void set_errors(const System& system, State& state) const {
    const double factor = state.sigma * std::sqrt(smoothing_per_pixel);
    state.error_y = factor * std::sqrt(system.inverse_diagonal(1)) * scale;
    state.error_x = factor * std::sqrt(system.inverse_diagonal(2)) * scale;
    state.error_rotation = state.turn ? factor * std::sqrt(system.inverse_diagonal(3)) / lever : 0;
  }
};

}  // namespace cinelumen::registration
