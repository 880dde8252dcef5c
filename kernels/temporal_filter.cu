#include "temporal_filter.h"

#include <cmath>
#include <type_traits>

#include "math.h"
#include "tile.h"

namespace cinelumen {
namespace {

constexpr int pool = 2;  // half side of the pooling window

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
  /// `previous(y, x)`: the last frame's result at a pixel of the tile.
  template <class Block, class Previous>
  CINELUMEN_HOST_DEVICE void take(Block block, int rows, int columns, const ImageView<float>& result, Previous previous) const {
    const FlowTime now = time.read();
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const int row = block.y0 + y, column = block.x0 + x;
      planes.take<Area, Moment>(now, row, column, result.row(row)[column], previous(y, x));
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
    Tile<float, Height + 2 * pool, Width + 2 * pool + 4> moved;  // 3 more are needed, 4 keep the rows aligned
  };
};

template <class Background, class Sink>
struct FilterFrame {
  Background background;
  Sink sink;
  ImageView<const float> input, state, precision;
  ImageView<float> next_state, next_precision;
  float noise_variance, minimum_gain, change_first, gain_per_sd, noise_correlation;

  using CpuTile = TileShape<32, 128>;

  template <int Height, int Width>
  struct Scratch {
    typename Background::template Scratch<Height, Width> background;
    Tile<float, Height + 2 * pool, Width + 2 * pool> predicted, precision, innovation;
    Tile<float, Height + 2 * pool, Width> sum, square_sum;
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

    if constexpr (Moved) {
      // The state, moved along y only, for the tile with its window's border and the taps along x.
      auto& moved = scratch.background.moved;
      const int source_y = top + shift_y.offset, source_x = left + shift_x.offset;
      const float a0 = shift_y.taps.at[0], a1 = shift_y.taps.at[1], a2 = shift_y.taps.at[2], a3 = shift_y.taps.at[3];
      const auto move_along_y = [&](int y, int x, int column) {
        const int row = source_y + y, last = height - 1;
        moved[y][x] = (a0 * state.row(clamp_int(row, 0, last))[column] + a1 * state.row(clamp_int(row + 1, 0, last))[column]) +
                      (a2 * state.row(clamp_int(row + 2, 0, last))[column] + a3 * state.row(clamp_int(row + 3, 0, last))[column]);
      };
      const int taps = window_columns + 3;
      const int begin = clamp_int(-source_x, 0, taps), end = clamp_int(width - source_x, begin, taps), outside = begin + taps - end;
      block.for_each_pixel(window_rows, end - begin, [&](int y, int x) { move_along_y(y, begin + x, source_x + begin + x); });
      if (outside > 0)
        block.for_each_pixel(window_rows, outside, [&](int y, int i) {
          const int x = i < begin ? i : end + i - begin;
          move_along_y(y, x, clamp_int(source_x + x, 0, width - 1));
        });
    }

    const float b0 = shift_x.taps.at[0], b1 = shift_x.taps.at[1], b2 = shift_x.taps.at[2], b3 = shift_x.taps.at[3];
    const int nearest_y = shift_y.nearest, nearest_x = shift_x.nearest;
    const int history_top = shift_y.first, history_bottom = shift_y.last, history_left = shift_x.first, history_right = shift_x.last;
    // These lie within the image, so what is inside them is inside the image too.
    const int known_top = history_top > top ? history_top - top : 0, known_left = history_left > left ? history_left - left : 0;
    const int known_bottom = history_bottom - top < window_rows ? history_bottom - top : window_rows;
    const int known_right = history_right - left < window_columns ? history_right - left : window_columns;
    const bool all_known = known_top == 0 && known_left == 0 && known_bottom == window_rows && known_right == window_columns;
    if (!all_known)
      block.for_each_pixel(window_rows, window_columns, [&](int y, int x) {
        scratch.predicted[y][x] = 0;
        scratch.precision[y][x] = 0;
        scratch.innovation[y][x] = 0;
      });
    if (known_top < known_bottom && known_left < known_right)
      block.for_each_pixel(known_bottom - known_top, known_right - known_left, [&](int from_y, int from_x) {
        const int y = known_top + from_y, x = known_left + from_x;
        float predicted;
        if constexpr (Moved) {
          const float* m = scratch.background.moved[y] + x;
          predicted = (b0 * m[0] + b1 * m[1]) + (b2 * m[2] + b3 * m[3]);
        } else {
          predicted = state.row(top + y)[left + x];
        }
        const float before = precision.row(top + y + nearest_y)[left + x + nearest_x];
        scratch.predicted[y][x] = predicted;
        scratch.precision[y][x] = before;
        scratch.innovation[y][x] = (input.row(top + y)[left + x] - predicted) * before;
      });

    block.for_each_pixel(window_rows, columns, [&](int y, int x) {
      const float* n = scratch.innovation[y] + x;
      scratch.sum[y][x] = (n[0] + n[1]) + (n[2] + n[3]) + n[4];
      scratch.square_sum[y][x] = (n[0] * n[0] + n[1] * n[1]) + (n[2] * n[2] + n[3] * n[3]) + n[4] * n[4];
    });

    const float least_gain = minimum_gain, first = change_first, per_sd = gain_per_sd, inverse_correlation = 1 / noise_correlation;
    const float noise = noise_variance, first_precision = 1 / sqrtf(2 * noise);
    // by_mean, by_square: 1 / sqrt(count) and 1 / sqrt(2 count).
    const auto update = [&](int y, int x, float count, float by_mean, float by_square) {
      const int row = block.y0 + y, column = block.x0 + x;
      const float sum =
          (scratch.sum[y][x] + scratch.sum[y + 1][x]) + (scratch.sum[y + 2][x] + scratch.sum[y + 3][x]) + scratch.sum[y + 4][x];
      const float square_sum = (scratch.square_sum[y][x] + scratch.square_sum[y + 1][x]) +
                               (scratch.square_sum[y + 2][x] + scratch.square_sum[y + 3][x]) + scratch.square_sum[y + 4][x];
      const float mean_change = fabsf(sum) * by_mean, square_change = (square_sum - count) * by_square;
      const float change = (mean_change > square_change ? mean_change : square_change) * inverse_correlation;
      float step = (change - first) * per_sd;
      step = step < 0 ? 0 : (step > 1 ? 1 : step);

      // With p the history's variance and n the noise's: precision = 1 / sqrt(p + n), Kalman's gain = p / (p + n) = 1 - n precision^2.
      // Without history it is 0.
      const float before = scratch.precision[y + pool][x + pool];
      const float noise_share = noise * before * before, kalman = 1 - noise_share;
      const float gain = (kalman > least_gain ? kalman : least_gain) * (1 - step) + step;
      const float rest = 1 - gain;
      const float predicted = scratch.predicted[y + pool][x + pool];
      const float result = gain * input.row(row)[column] + rest * predicted;
      next_state.row(row)[column] = result;
      // Of the result's variance rest^2 p + gain^2 n, plus n, times precision^2.
      const float growth = rest * rest * kalman + (gain * gain + 1) * noise_share;
      const bool known = before > 0;
      next_precision.row(row)[column] = (known ? before : first_precision) / sqrtf(known ? growth : 1);
    };
    // GCC vectorises neither a conditional load nor so long a body around a choice: the common case has a loop of its own.
    const bool inside = block.y0 >= pool && block.x0 >= pool && block.y0 + rows + pool <= height && block.x0 + columns + pool <= width;
    if (inside) {
      constexpr float count = (2 * pool + 1) * (2 * pool + 1), by_mean = 1.0f / (2 * pool + 1);
      const float by_square = by_mean * 0.70710678f;
      block.for_each_pixel(rows, columns, [&](int y, int x) { update(y, x, count, by_mean, by_square); });
    } else {
      block.for_each_pixel(rows, columns, [&](int y, int x) {
        const int row = block.y0 + y, column = block.x0 + x;
        const int rows_below = height - 1 - row < pool ? height - 1 - row : pool, rows_above = row < pool ? row : pool;
        const int columns_right = width - 1 - column < pool ? width - 1 - column : pool, columns_left = column < pool ? column : pool;
        const float count = static_cast<float>((rows_above + rows_below + 1) * (columns_left + columns_right + 1));
        const float by_mean = 1 / sqrtf(count);
        update(y, x, count, by_mean, by_mean * 0.70710678f);
      });
    }
    sink.take(block, rows, columns, next_state, [&](int y, int x) { return scratch.predicted[y + pool][x + pool]; });
  }
};

}  // namespace

TemporalFilter::TemporalFilter(const Stream& stream, int height, int width, float noise_sd, TemporalFilterOptions options, int places)
    : options_(options), noise_variance_(noise_sd * noise_sd) {
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
  for (Image<float>& precision : precisions_) set_zero(stream, precision.view());
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
                                              precisions_[place], noise_variance_, options_.minimum_gain, options_.change_first_sd,
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
