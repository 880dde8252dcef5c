#include "temporal_filter.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "math.h"
#include "tile.h"

namespace cinelumen {
namespace {

constexpr int pool = 2;  // half side of the pooling window

struct CubicWeights {
  float at[4];
};

// Keys' cubic convolution, a = -1/2, for taps -1 ... 2 around a fraction in [0, 1).
CubicWeights cubic_weights(float f) {
  const float g = 1 - f;
  return {{-0.5f * f * g * g, 1 + f * f * (1.5f * f - 2.5f), 1 + g * g * (1.5f * g - 2.5f), -0.5f * g * f * f}};
}

/// What is done with a result beside keeping it as the state.
struct NoSink {
  template <class Block, class Previous>
  CINELUMEN_HOST_DEVICE void take(const Block&, int, int, const ImageView<float>&, Previous) const {}
};
template <bool Area, bool Moment>
struct StatisticsSink {
  FlowStep step;
  /// `previous(y, x)`: the last frame's result at a pixel of the tile.
  template <class Block, class Previous>
  CINELUMEN_HOST_DEVICE void take(const Block& block, int rows, int columns, const ImageView<float>& result, Previous previous) const {
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      const int row = block.y0 + y, column = block.x0 + x;
      step.take<Area, Moment>(row, column, result.row(row)[column], previous(y, x));
    });
  }
};

template <bool Moved, class Sink>
struct FilterFrame {
  ImageView<const float> input, state, precision;
  ImageView<float> next_state, next_precision;
  float noise_variance;
  int offset_y, offset_x;  // from a pixel to the first tap of its source
  CubicWeights weight_y, weight_x;
  int history_top, history_bottom, history_left, history_right;  // rows [top, bottom), columns [left, right) seen in the previous frame
  int nearest_y, nearest_x;                                      // from a pixel to the source's nearest pixel
  float minimum_gain, change_first, gain_per_sd, noise_correlation;
  Sink sink;

  using CpuTile = TileShape<32, 128>;

  template <int Height, int Width>
  struct Scratch {
    Tile<float, Height + 2 * pool, Width + 2 * pool + 4> moved;  // 3 more are needed, 4 keep the rows aligned
    Tile<float, Height + 2 * pool, Width + 2 * pool> predicted, precision, innovation;
    Tile<float, Height + 2 * pool, Width> sum, square_sum;
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int height = input.height, width = input.width;
    const int rows = block.rows(height), columns = block.columns(width);
    const int window_rows = rows + 2 * pool, window_columns = columns + 2 * pool;
    const int top = block.y0 - pool, left = block.x0 - pool;

    if constexpr (Moved) {
      // The state, moved along y only, for the tile with its window's border and the taps along x.
      const int source_y = top + offset_y, source_x = left + offset_x;
      const float a0 = weight_y.at[0], a1 = weight_y.at[1], a2 = weight_y.at[2], a3 = weight_y.at[3];
      const auto move_along_y = [&](int y, int x, int column) {
        const int row = source_y + y, last = height - 1;
        scratch.moved[y][x] = (a0 * state.row(clamp_int(row, 0, last))[column] + a1 * state.row(clamp_int(row + 1, 0, last))[column]) +
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

    const float b0 = weight_x.at[0], b1 = weight_x.at[1], b2 = weight_x.at[2], b3 = weight_x.at[3];
    // history_* lie within the image, so what is inside them is inside the image too.
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
          const float* m = scratch.moved[y] + x;
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

struct StartState {
  ImageView<const float> input;
  ImageView<float> state, precision;
  float first_precision;
  template <int Height, int Width>
  struct Scratch {};
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    const int y0 = block.y0, x0 = block.x0;
    block.for_each_pixel(block.rows(input.height), block.columns(input.width), [&](int y, int x) {
      state.row(y0 + y)[x0 + x] = input.row(y0 + y)[x0 + x];
      precision.row(y0 + y)[x0 + x] = first_precision;
    });
  }
};

// Pixels [first, last) of `extent` whose source, `nearest` pixels further, lies in the previous frame.
void known_range(int extent, int nearest, int* first, int* last) {
  *first = std::min(extent, std::max(0, -nearest));
  *last = std::max(*first, std::min(extent, extent - nearest));
}

/// A kernel with all parameters that do not depend on its type.
template <class Kernel>
Kernel filter_kernel(ImageView<const float> subtracted, float noise_variance, float shift_y_px, float shift_x_px,
                     const TemporalFilterOptions& options) {
  const int height = subtracted.height, width = subtracted.width;
  // A shift beyond the frame leaves no history; clamped so that its whole part fits an int.
  const float back_y = std::clamp(-shift_y_px, -2.0f * height, 2.0f * height),
              back_x = std::clamp(-shift_x_px, -2.0f * width, 2.0f * width);
  const float whole_y = std::floor(back_y), whole_x = std::floor(back_x);
  Kernel kernel{};
  kernel.input = subtracted;
  kernel.noise_variance = noise_variance;
  kernel.offset_y = static_cast<int>(whole_y) - 1;
  kernel.offset_x = static_cast<int>(whole_x) - 1;
  kernel.weight_y = cubic_weights(back_y - whole_y);
  kernel.weight_x = cubic_weights(back_x - whole_x);
  kernel.nearest_y = static_cast<int>(std::floor(back_y + 0.5f));
  kernel.nearest_x = static_cast<int>(std::floor(back_x + 0.5f));
  known_range(height, kernel.nearest_y, &kernel.history_top, &kernel.history_bottom);
  known_range(width, kernel.nearest_x, &kernel.history_left, &kernel.history_right);
  kernel.minimum_gain = options.minimum_gain;
  kernel.change_first = options.change_first_sd;
  kernel.gain_per_sd = 1 / (options.change_last_sd - options.change_first_sd);
  kernel.noise_correlation = options.noise_correlation;
  return kernel;
}

}  // namespace

TemporalFilter::TemporalFilter(const Stream& stream, int height, int width, float noise_sd, TemporalFilterOptions options, int results_kept)
    : options_(options), noise_variance_(noise_sd * noise_sd) {
  require(height > 0 && width > 0, "TemporalFilter: height and width must be at least 1");
  require(noise_sd > 1e-9f && noise_sd < 1e9f, "TemporalFilter: noise_sd must be positive");
  require(options.minimum_gain > 0 && options.minimum_gain <= 1, "TemporalFilter: minimum_gain must be in (0, 1]");
  require(options.change_first_sd < options.change_last_sd, "TemporalFilter: change_first_sd must be less than change_last_sd");
  require(options.noise_correlation >= 1, "TemporalFilter: noise_correlation must be at least 1");
  require(results_kept >= 1, "TemporalFilter: results_kept must be at least 1");
  for (int i = 0; i <= results_kept; ++i) states_.emplace_back(stream, height, width);
  for (Image<float>* plane : {&precision_, &next_precision_}) *plane = Image<float>(stream, height, width);
}

ImageView<const float> TemporalFilter::apply(const Stream& stream, ImageView<const float> subtracted, float shift_y_px, float shift_x_px) {
  return run(stream, subtracted, shift_y_px, shift_x_px, nullptr, 0);
}

ImageView<const float> TemporalFilter::apply(const Stream& stream, ImageView<const float> subtracted, FlowStatistics& statistics,
                                             double time_ms) {
  require(statistics.frame_count() == frames_, "TemporalFilter: the statistics have seen other frames than the filter");
  return run(stream, subtracted, 0, 0, &statistics, time_ms);
}

ImageView<const float> TemporalFilter::run(const Stream& stream, ImageView<const float> subtracted, float shift_y_px, float shift_x_px,
                                           FlowStatistics* statistics, double time_ms) {
  const auto ring = static_cast<long long>(states_.size());
  Image<float>& state = states_[static_cast<std::size_t>(frames_ % ring)];
  Image<float>& next_state = states_[static_cast<std::size_t>((frames_ + 1) % ring)];
  require(same_size(subtracted, state.view()), "TemporalFilter: subtracted differs in size from the filter");
  require(std::isfinite(shift_y_px) && std::isfinite(shift_x_px), "TemporalFilter: the shift is not finite");
  const int height = state.height(), width = state.width();
  FlowStep step;
  if (statistics) {
    require(statistics->height() == height && statistics->width() == width,
            "TemporalFilter: the statistics differ in size from the filter");
    step = statistics->next_frame(time_ms);
  }
  const auto launch = [&]<class Kernel>(Kernel kernel) {
    kernel.state = state.view();
    kernel.precision = precision_.view();
    kernel.next_state = next_state.view();
    kernel.next_precision = next_precision_.view();
    for_each_tile(stream, height, width, kernel);
  };
  const auto still = [&]<class Sink>(Sink sink) {
    auto kernel = filter_kernel<FilterFrame<false, Sink>>(subtracted, noise_variance_, 0, 0, options_);
    kernel.sink = sink;
    launch(kernel);
  };
  if (frames_ == 0) {
    for_each_tile(stream, height, width, StartState{subtracted, next_state, next_precision_, 1 / std::sqrt(2 * noise_variance_)});
    if (statistics) statistics->start(stream, next_state);
  } else if (statistics && statistics->options().mean_time) {
    still(StatisticsSink<true, true>{step});
  } else if (statistics && statistics->options().area) {
    still(StatisticsSink<true, false>{step});
  } else if (statistics) {
    still(StatisticsSink<false, false>{step});
  } else if (shift_y_px == 0 && shift_x_px == 0) {
    still(NoSink{});
  } else {
    launch(filter_kernel<FilterFrame<true, NoSink>>(subtracted, noise_variance_, shift_y_px, shift_x_px, options_));
  }
  ++frames_;
  std::swap(precision_, next_precision_);
  return next_state.view();
}

}  // namespace cinelumen
