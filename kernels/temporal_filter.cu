#include "temporal_filter.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "math.h"
#include "tile.h"

namespace cinelumen {
namespace {

constexpr int pool = 2;  // half side of the pooling window

// Of the sums along y: each value that is loaded serves several.
constexpr int rows_at_once = on_device ? 1 : 4;

// A precision is at least 0 (unknown) and less than 1.
using Precision = TemporalFilter::Precision;
constexpr float precision_steps = 65535;
CINELUMEN_HOST_DEVICE inline Precision stored(float precision) {
  return static_cast<Precision>(static_cast<int>(precision * precision_steps + 0.5f));
}
CINELUMEN_HOST_DEVICE inline float loaded(Precision precision) { return static_cast<float>(precision) * (1 / precision_steps); }
// In the scratch: on the CPU a loop over numbers of one size has more registers, on CUDA a block has only so much memory.
#ifdef __CUDA_ARCH__
using KeptPrecision = Precision;
#else
using KeptPrecision = float;
CINELUMEN_HOST_DEVICE inline float loaded(float precision) { return precision; }
#endif

// 1 / sqrt(x) for normal x > 0, relative error <= 5e-6: a third of what the division and the root take.
CINELUMEN_HOST_DEVICE inline float inverse_sqrt(float x) {
  const float half = 0.5f * x;
  float r = std::bit_cast<float>(0x5f3759df - (std::bit_cast<std::int32_t>(x) >> 1));
  r *= 1.5f - half * r * r;
  return r * (1.5f - half * r * r);
}

struct CubicWeights {
  float at[4];
};

// Keys' cubic convolution, a = -1/2, for taps -1 ... 2 around a fraction in [0, 1).
CINELUMEN_HOST_DEVICE inline CubicWeights cubic_weights(float f) {
  const float g = 1 - f;
  return {{-0.5f * f * g * g, 1 + f * f * (1.5f * f - 2.5f), 1 + g * g * (1.5f * g - 2.5f), -0.5f * g * f * f}};
}

/// Where along one axis the state comes from.
struct AxisShift {
  int offset;         // from a pixel to the first tap of its source
  CubicWeights taps;  // four
  int nearest;        // from a pixel to the source's nearest pixel
  int first, last;    // pixels [first, last) were seen in the previous frame
};

CINELUMEN_HOST_DEVICE inline AxisShift axis_shift(float shift_px, int extent) {
  // A shift beyond the frame leaves no history; clamped so that its whole part fits an int, NaN to one of the ends.
  const float most = 2.0f * static_cast<float>(extent);
  const float back = -shift_px > -most ? (-shift_px < most ? -shift_px : most) : -most, whole = floorf(back);
  AxisShift result;
  result.offset = static_cast<int>(whole) - 1;
  result.taps = cubic_weights(back - whole);
  result.nearest = static_cast<int>(floorf(back + 0.5f));
  result.first = clamp_int(-result.nearest, 0, extent);
  result.last = clamp_int(extent - result.nearest, result.first, extent);
  return result;
}

/// What is done with a result beside keeping it as the state.
struct NoSink {
  template <class Block, class Previous>
  CINELUMEN_HOST_DEVICE void take(const Block&, int, int, const ImageView<float>&, Previous) const {}
};
template <bool Area, bool Moment>
struct StatisticsSink {
  FlowPlanes planes;
  PerFrame<FlowTime> time;
  /// `previous(y)`: the last frame's results along a row of the tile.
  template <class Block, class Previous>
  CINELUMEN_HOST_DEVICE void take(Block block, int rows, int columns, const ImageView<float>& result, Previous previous) const {
    const FlowTime now = time.read();
    take_in_strips(block, rows, columns, [&](int y, int x, auto count) {
      const int row = block.y0 + y, column = block.x0 + x;
      planes.take<Area, Moment, decltype(count)::value>(now, row, column, result.row(row) + column, previous(y) + x);
    });
  }
};

/// The background rests.
struct AtRest {
  template <int Height, int Width>
  struct Scratch {};
};
/// It lies where the frame's placement says.
struct Placed {
  PerFrame<FramePlacement> placement;
  const FramePlacement* before;
  FramePlacement* kept;
  template <int Height, int Width>
  struct Scratch {
    AxisShift y, x;
    bool none;
  };
};

/// A tile with what the pooling window reaches around it.
template <class T, int Height, int Width>
struct Window {
  // On CUDA rows begin where sectors of 32 bytes do, and a warp that goes on in the next row finds other banks of shared memory.
  static constexpr int before = on_device ? 8 - pool : 0, pitch = Width + 2 * pool + 2 * before, rows = Height + 2 * pool;
  T at[rows][pitch];
  CINELUMEN_HOST_DEVICE T* operator[](int y) { return at[y] + before; }
  CINELUMEN_HOST_DEVICE const T* operator[](int y) const { return at[y] + before; }

  /// Calls body(y, x) for rows [top, bottom) and columns [left, right) of the window. Ends with the barrier.
  template <class Block, class Body>
  CINELUMEN_HOST_DEVICE static void for_each(const Block& block, int top, int left, int bottom, int right, Body body) {
#ifdef __CUDA_ARCH__
    block.for_each_pixel(bottom - top, pitch, [&](int y, int i) {
      const int x = i - before;
      if (x >= left && x < right) body(top + y, x);
    });
#else
    block.for_each_pixel(bottom - top, right - left, [&](int y, int x) { body(top + y, left + x); });
#endif
  }
};

template <class Background, class Sink>
struct FilterFrame {
  Background background;
  Sink sink;
  ImageView<const float> input, state;
  ImageView<const Precision> precision;
  ImageView<float> next_state;
  ImageView<Precision> next_precision;
  float noise_sd, minimum_gain, change_first, gain_per_sd, noise_correlation;

  using CpuTile = TileShape<32, 256>;
  using CudaTile = TileShape<24, 64>;

  template <int Height, int Width>
  struct Scratch {
    struct Sums {
      Tile<float, Height + 2 * pool, Width> plain, squared;
    };
    typename Background::template Scratch<Height, Width> background;
    Window<float, Height, Width> predicted;
#ifdef __CUDACC__
    Window<float, Height, Width> value;  // of the input, read once
#endif
    Window<KeptPrecision, Height, Width> precision;
    // What is moved has been read when the others are made.
    union {
      Window<float, Height, Width> innovation;
#ifdef __CUDACC__
      Tile<float, Height + 2 * pool + 3, Width + 16> source;
#endif
    };
    union {
      Sums sum;
      Tile<float, Height + 2 * pool, Width + (on_device ? 16 : 2 * pool + 4)> moved;  // CPU: 3 more are needed, 4 keep the rows aligned
    };
    float rows_within[Height], by_rows[Height], columns_within[Width], by_columns[Width];  // at the image's border
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    if constexpr (std::is_same_v<Background, Placed>) {
      block.once([&] {
        const FramePlacement now = background.placement.read(), before = *background.before;
        const float shift_y = now.motion.shift_y_px - before.motion.shift_y_px, shift_x = now.motion.shift_x_px - before.motion.shift_x_px;
        scratch.background.none = shift_y == 0 && shift_x == 0;
        scratch.background.y = axis_shift(shift_y, input.height);
        scratch.background.x = axis_shift(shift_x, input.width);
        if (block.index == 0) *background.kept = now;
      });
      if (!scratch.background.none) {
        filter<true>(block, scratch, scratch.background.y, scratch.background.x);
        return;
      }
    }
    filter<false>(block, scratch, {-1, {}, 0, 0, input.height}, {-1, {}, 0, 0, input.width});
  }

 private:
  template <bool Moved, int Height, int Width>
  CINELUMEN_HOST_DEVICE void filter(Block<Height, Width> block, Scratch<Height, Width>& scratch, const AxisShift& shift_y,
                                    const AxisShift& shift_x) const {
    const int height = input.height, width = input.width;
    const int rows = block.rows(height), columns = block.columns(width);
    const int window_rows = rows + 2 * pool, window_columns = columns + 2 * pool;
    const int top = block.y0 - pool, left = block.x0 - pool;

    if constexpr (Moved) move_along_y(block, scratch, shift_y, top, left + shift_x.offset, window_rows, window_columns + 3);
    const int nearest_y = shift_y.nearest, nearest_x = shift_x.nearest;
    const int history_top = shift_y.first, history_bottom = shift_y.last, history_left = shift_x.first, history_right = shift_x.last;
    // These lie within the image, so what is inside them is inside the image too.
    const int known_top = history_top > top ? history_top - top : 0, known_left = history_left > left ? history_left - left : 0;
    const int known_bottom = history_bottom - top < window_rows ? history_bottom - top : window_rows;
    const int known_right = history_right - left < window_columns ? history_right - left : window_columns;
    const bool all_known = known_top == 0 && known_left == 0 && known_bottom == window_rows && known_right == window_columns;
    const Predicted<Moved, Scratch<Height, Width>> predicted(scratch, state, shift_x, top, left);
    if (all_known && rows % rows_at_once == 0) {
      // What is read again is kept on CUDA, so that less is asked of the memory. On the CPU it is still in the cache.
      constexpr bool kept = Moved || on_device;
      predict<kept>(block, scratch, predicted, nearest_y, nearest_x, 0, 0, window_rows, window_columns);
      update_inside<kept>(block, scratch, rows, columns);
      return;
    }
    const auto forget = [&](int first_row, int first_column, int end_row, int end_column) {
      if (first_row < end_row && first_column < end_column)
        Window<float, Height, Width>::for_each(block, first_row, first_column, end_row, end_column, [&](int y, int x) {
          scratch.predicted[y][x] = scratch.precision[y][x] = scratch.innovation[y][x] = 0;
        });
    };
    if (known_top < known_bottom && known_left < known_right) {
      predict<true>(block, scratch, predicted, nearest_y, nearest_x, known_top, known_left, known_bottom, known_right);
      forget(0, 0, known_top, window_columns);
      forget(known_top, 0, known_bottom, known_left);
      forget(known_top, known_right, known_bottom, window_columns);
      forget(known_bottom, 0, window_rows, window_columns);
    } else {
      forget(0, 0, window_rows, window_columns);
    }
    update_at_edge(block, scratch, rows, columns);
  }

  /// The state, moved along y only, for the tile with its window's border and the taps along x. left: of the first tap.
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void move_along_y(Block<Height, Width> block, Scratch<Height, Width>& scratch, const AxisShift& shift_y, int top,
                                          int left, int rows, int taps) const {
    auto& moved = scratch.moved;
    const int source_y = top + shift_y.offset, width = input.width, last = input.height - 1;
    const float a0 = shift_y.taps.at[0], a1 = shift_y.taps.at[1], a2 = shift_y.taps.at[2], a3 = shift_y.taps.at[3];
#ifdef __CUDA_ARCH__
    // From where a sector begins, and rows as wide as they lie apart.
    constexpr int pitch = Width + 16;
    auto& source = scratch.source;
    const int before = left & 7;
    block.for_each_pixel(rows + 3, pitch, [&](int y, int x) {
      if (x >= before && x < before + taps)
        source[y][x] = state.row(clamp_int(source_y + y, 0, last))[clamp_int(left - before + x, 0, width - 1)];
    });
    block.for_each_pixel(rows, pitch, [&](int y, int x) {
      const float* const in = source[y] + before + x;
      if (x < taps) moved[y][x] = (a0 * in[0] + a1 * in[pitch]) + (a2 * in[2 * pitch] + a3 * in[3 * pitch]);
    });
#else
    const auto move = [&](int y, int x, int column) {
      const int row = source_y + y;
      moved[y][x] = (a0 * state.row(clamp_int(row, 0, last))[column] + a1 * state.row(clamp_int(row + 1, 0, last))[column]) +
                    (a2 * state.row(clamp_int(row + 2, 0, last))[column] + a3 * state.row(clamp_int(row + 3, 0, last))[column]);
    };
    const int begin = clamp_int(-left, 0, taps), end = clamp_int(width - left, begin, taps), outside = begin + taps - end;
    block.for_each_pixel(rows, end - begin, [&](int y, int x) { move(y, begin + x, left + begin + x); });
    if (outside > 0)
      block.for_each_pixel(rows, outside, [&](int y, int i) {
        const int x = i < begin ? i : end + i - begin;
        move(y, x, clamp_int(left + x, 0, width - 1));
      });
#endif
  }

  /// The state at pixel x of row y of the window.
  template <bool Moved, class Scratch>
  struct Predicted {
    const Scratch& scratch;
    const ImageView<const float>& state;
    int top, left;
    float b0, b1, b2, b3;
    CINELUMEN_HOST_DEVICE Predicted(const Scratch& store, const ImageView<const float>& before, const AxisShift& shift_x, int y, int x)
        : scratch(store),
          state(before),
          top(y),
          left(x),
          b0(shift_x.taps.at[0]),
          b1(shift_x.taps.at[1]),
          b2(shift_x.taps.at[2]),
          b3(shift_x.taps.at[3]) {}
    CINELUMEN_HOST_DEVICE float operator()(int y, int x) const {
      if constexpr (Moved) {
        const float* m = scratch.moved[y] + x;
        return (b0 * m[0] + b1 * m[1]) + (b2 * m[2] + b3 * m[3]);
      } else {
        return state.row(top + y)[left + x];
      }
    }
  };

  /// The settings, as update() needs them.
  struct Gains {
    float least, first, per_sd, inverse_correlation;
  };
  CINELUMEN_HOST_DEVICE Gains gains() const { return {minimum_gain, change_first, gain_per_sd, 1 / noise_correlation}; }
  struct Updated {
    float state, precision;
  };
  /// A pixel from its history: predicted, and its precision as it was. `sum`, `square_sum`: of the innovation over the window. by_mean,
  /// by_square: 1 / sqrt(count) and 1 / sqrt(2 count).
  CINELUMEN_HOST_DEVICE static Updated update(const Gains& g, float value, float predicted, float before, float sum, float square_sum,
                                              float count, float by_mean, float by_square) {
    const float mean_change = fabsf(sum) * by_mean, square_change = (square_sum - count) * by_square;
    const float change = (mean_change > square_change ? mean_change : square_change) * g.inverse_correlation;
    float step = (change - g.first) * g.per_sd;
    step = step < 0 ? 0 : (step > 1 ? 1 : step);
    // With p the history's variance in units of the noise's: precision = 1 / sqrt(p + 1), Kalman's gain = p / (p + 1) = 1 - precision^2.
    // Without history it is 0.
    const float noise_share = before * before, kalman = 1 - noise_share;
    const float gain = (kalman > g.least ? kalman : g.least) * (1 - step) + step;
    const float rest = 1 - gain;
    // Of the result's variance rest^2 p + gain^2, plus 1, times precision^2.
    const float growth = rest * rest * kalman + (gain * gain + 1) * noise_share;
    const bool known = before > 0;
    return {gain * value + rest * predicted, (known ? before : 0.70710678f) * inverse_sqrt(known ? growth : 1.0f)};
  }

  /// What the state says of rows [top, bottom) and columns [left, right) of the window, and what the input differs from it by, in SDs.
  template <bool Kept, int Height, int Width, class PredictedState>
  CINELUMEN_HOST_DEVICE void predict(Block<Height, Width> block, Scratch<Height, Width>& scratch, const PredictedState& predicted,
                                     int nearest_y, int nearest_x, int top, int left, int bottom, int right) const {
    const int y0 = block.y0 - pool, x0 = block.x0 - pool;
    const float per_sd = 1 / noise_sd;
#ifndef __CUDA_ARCH__
    // Apart from the rest: floats and shorter numbers in one loop take twice the registers.
    Window<float, Height, Width>::for_each(block, top, left, bottom, right, [&](int y, int x) {
      scratch.precision[y][x] = loaded(precision.row(y0 + y + nearest_y)[x0 + x + nearest_x]);
    });
#endif
    Window<float, Height, Width>::for_each(block, top, left, bottom, right, [&](int y, int x) {
      const float from = predicted(y, x), value = input.row(y0 + y)[x0 + x];
      if constexpr (Kept) scratch.predicted[y][x] = from;
#ifdef __CUDA_ARCH__
      scratch.value[y][x] = value;
      scratch.precision[y][x] = precision.row(y0 + y + nearest_y)[x0 + x + nearest_x];
#endif
      scratch.innovation[y][x] = (value - from) * (loaded(scratch.precision[y][x]) * per_sd);
    });
  }

  template <class Block, class Store>
  CINELUMEN_HOST_DEVICE void sum_along_x(const Block& block, Store& scratch, int window_rows, int columns) const {
    block.for_each_pixel(window_rows, columns, [&](int y, int x) {
      const float* n = scratch.innovation[y] + x;
      scratch.sum.plain[y][x] = (n[0] + n[1]) + (n[2] + n[3]) + n[4];
      scratch.sum.squared[y][x] = (n[0] * n[0] + n[1] * n[1]) + (n[2] * n[2] + n[3] * n[3]) + n[4] * n[4];
    });
  }

  /// Writes a pixel's new state. Its precision on the CPU by keep_precisions(), as floats and shorter numbers in one loop take twice the
  /// registers; until then it stands where the innovation was.
  template <class Block, class Store>
  CINELUMEN_HOST_DEVICE void keep(const Block& block, Store& scratch, int y, int x, const Updated& now) const {
    next_state.row(block.y0 + y)[block.x0 + x] = now.state;
    if constexpr (on_device)
      next_precision.row(block.y0 + y)[block.x0 + x] = stored(now.precision);
    else
      scratch.innovation[y][x] = now.precision;
  }
  template <class Block, class Store>
  CINELUMEN_HOST_DEVICE void keep_precisions(const Block& block, const Store& scratch, int rows, int columns) const {
    if constexpr (!on_device)
      block.for_each_pixel(rows, columns,
                           [&](int y, int x) { next_precision.row(block.y0 + y)[block.x0 + x] = stored(scratch.innovation[y][x]); });
  }

  /// A tile whose window has history everywhere. `Kept`: what was predicted stands in the scratch, else it is the state itself.
  template <bool Kept, int Height, int Width>
  CINELUMEN_HOST_DEVICE void update_inside(Block<Height, Width> block, Scratch<Height, Width>& scratch, int rows, int columns) const {
    sum_along_x(block, scratch, rows + 2 * pool, columns);
    const auto predicted = [&](int y) -> const float* {
      if constexpr (Kept)
        return scratch.predicted[y + pool] + pool;
      else
        return state.row(block.y0 + y) + block.x0;
    };
    const auto value = [&](int y) -> const float* {
#ifdef __CUDA_ARCH__
      return scratch.value[y + pool] + pool;
#else
      return input.row(block.y0 + y) + block.x0;
#endif
    };
    const Gains g = gains();
    block.for_each_pixel(rows / rows_at_once, columns, [&](int group, int x) {
      constexpr int lines = rows_at_once + 2 * pool;
      const int y0 = group * rows_at_once;
      float sum[lines], square_sum[lines];
      CINELUMEN_UNROLL
      for (int i = 0; i < lines; ++i) sum[i] = scratch.sum.plain[y0 + i][x], square_sum[i] = scratch.sum.squared[y0 + i][x];
      CINELUMEN_UNROLL
      for (int i = 0; i < rows_at_once; ++i) {
        constexpr float count = (2 * pool + 1) * (2 * pool + 1), by_mean = 1.0f / (2 * pool + 1), by_square = by_mean * 0.70710678f;
        const int y = y0 + i;
        const float of_sum = (sum[i] + sum[i + 1]) + (sum[i + 2] + sum[i + 3]) + sum[i + 4];
        const float of_squares = (square_sum[i] + square_sum[i + 1]) + (square_sum[i + 2] + square_sum[i + 3]) + square_sum[i + 4];
        keep(block, scratch, y, x,
             update(g, value(y)[x], predicted(y)[x], loaded(scratch.precision[y + pool][x + pool]), of_sum, of_squares, count, by_mean,
                    by_square));
      }
    });
    keep_precisions(block, scratch, rows, columns);
    sink.take(block, rows, columns, next_state, predicted);
  }

  /// A tile whose window goes beyond the image, or beyond where there is history.
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void update_at_edge(Block<Height, Width> block, Scratch<Height, Width>& scratch, int rows, int columns) const {
    // How many pixels the window holds along either axis, and 1 over its root.
    const auto extent = [](int at, int end) {
      const int after = end - 1 - at < pool ? end - 1 - at : pool, before = at < pool ? at : pool;
      return static_cast<float>(before + after + 1);
    };
    block.for_each_pixel(1, rows, [&](int, int y) {
      scratch.rows_within[y] = extent(block.y0 + y, input.height);
      scratch.by_rows[y] = 1 / sqrtf(scratch.rows_within[y]);
    });
    block.for_each_pixel(1, columns, [&](int, int x) {
      scratch.columns_within[x] = extent(block.x0 + x, input.width);
      scratch.by_columns[x] = 1 / sqrtf(scratch.columns_within[x]);
    });
    sum_along_x(block, scratch, rows + 2 * pool, columns);
    const Gains g = gains();
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const auto along_y = [y, x](const auto& sum) {
        return (sum[y][x] + sum[y + 1][x]) + (sum[y + 2][x] + sum[y + 3][x]) + sum[y + 4][x];
      };
      const float count = scratch.rows_within[y] * scratch.columns_within[x], by_mean = scratch.by_rows[y] * scratch.by_columns[x];
      keep(block, scratch, y, x,
           update(g, input.row(block.y0 + y)[block.x0 + x], scratch.predicted[y + pool][x + pool],
                  loaded(scratch.precision[y + pool][x + pool]), along_y(scratch.sum.plain), along_y(scratch.sum.squared), count, by_mean,
                  by_mean * 0.70710678f));
    });
    keep_precisions(block, scratch, rows, columns);
    sink.take(block, rows, columns, next_state, [&](int y) -> const float* { return scratch.predicted[y + pool] + pool; });
  }
};

}  // namespace

TemporalFilter::TemporalFilter(const Stream& stream, int height, int width, float noise_sd, TemporalFilterOptions options, int places)
    : options_(options), noise_sd_(noise_sd) {
  require(height > 0 && width > 0, "TemporalFilter: height and width must be at least 1");
  require(noise_sd > 1e-9f && noise_sd < 1e9f, "TemporalFilter: noise_sd must be positive");
  require(options.minimum_gain > 0 && options.minimum_gain <= 1, "TemporalFilter: minimum_gain must be in (0, 1]");
  require(options.change_first_sd < options.change_last_sd, "TemporalFilter: change_first_sd must be less than change_last_sd");
  require(options.noise_correlation >= 1, "TemporalFilter: noise_correlation must be at least 1");
  require(places >= 2, "TemporalFilter: places must be at least 2");
  for (int i = 0; i < places; ++i) {
    states_.emplace_back(stream, height, width);
    precisions_.emplace_back(stream, height, width);
    set_zero(stream, states_.back().view());  // times a gain of 0, it must be a number
  }
  placements_ = Array<FramePlacement>(stream, places);
  set_zero(stream, placements_.view());
  reset(stream);
}

void TemporalFilter::reset(const Stream& stream) {
  for (Image<Precision>& precision : precisions_) set_zero(stream, precision.view());
}

ImageView<const float> TemporalFilter::step(const Stream& stream, int place, ImageView<const float> subtracted) {
  return run(stream, place, subtracted, AtRest{}, NoSink{});
}

ImageView<const float> TemporalFilter::step(const Stream& stream, int place, ImageView<const float> subtracted,
                                            const PerFrame<FramePlacement>& placement) {
  require(place >= 0 && place < places(), "TemporalFilter: there is no such place");
  if (placement.known_on_host(stream)) {
    const RigidMotion motion = placement.read().motion;
    require(std::isfinite(motion.shift_y_px) && std::isfinite(motion.shift_x_px), "TemporalFilter: the shift is not finite");
  }
  FramePlacement* placements = placements_.view().data;
  const Placed background{placement, placements + place_before(place), placements + place};
  return run(stream, place, subtracted, background, NoSink{});
}

ImageView<const float> TemporalFilter::step(const Stream& stream, int place, ImageView<const float> subtracted, FlowStatistics& statistics,
                                            const PerFrame<FlowTime>& time) {
  require(same_size(statistics.planes().maximum, subtracted), "TemporalFilter: the statistics differ in size from the frame");
  const FlowPlanes planes = statistics.planes();
  if (statistics.options().mean_time) return run(stream, place, subtracted, AtRest{}, StatisticsSink<true, true>{planes, time});
  if (statistics.options().area) return run(stream, place, subtracted, AtRest{}, StatisticsSink<true, false>{planes, time});
  return run(stream, place, subtracted, AtRest{}, StatisticsSink<false, false>{planes, time});
}

template <class Background, class Sink>
ImageView<const float> TemporalFilter::run(const Stream& stream, int place, ImageView<const float> subtracted, const Background& background,
                                           const Sink& sink) {
  require(place >= 0 && place < places(), "TemporalFilter: there is no such place");
  const int before = place_before(place);
  require(same_size(subtracted, states_[place].view()), "TemporalFilter: subtracted differs in size from the filter");
  for_each_tile(stream, subtracted.height, subtracted.width,
                FilterFrame<Background, Sink>{background, sink, subtracted, states_[before], precisions_[before], states_[place],
                                              precisions_[place], noise_sd_, options_.minimum_gain, options_.change_first_sd,
                                              1 / (options_.change_last_sd - options_.change_first_sd), options_.noise_correlation});
  return states_[place].view();
}

void TemporalFilter::skip(const Stream& stream, int place) {
  require(place >= 0 && place < places(), "TemporalFilter: there is no such place");
  const int before = place_before(place);
  copy(stream, states_[before], states_[place]);
  copy(stream, precisions_[before], precisions_[place]);
  FramePlacement* placements = placements_.view().data;
  copy<FramePlacement>(stream, ArrayView<const FramePlacement>{placements + before, 1}, ArrayView<FramePlacement>{placements + place, 1});
}

}  // namespace cinelumen
