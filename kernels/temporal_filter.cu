#include "temporal_filter.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "math.h"
#include "tile.h"

namespace cinelumen {
namespace {

constexpr int pool = 2;              // half side of the pooling window
constexpr float no_history = 1e30f;  // variance of a pixel that nothing is known of: its gain is then exactly 1

struct CubicWeights {
  float at[4];
};

// Keys' cubic convolution, a = -1/2, for taps -1 ... 2 around a fraction in [0, 1).
CubicWeights cubic_weights(float f) {
  const float g = 1 - f;
  return {{-0.5f * f * g * g, 1 + f * f * (1.5f * f - 2.5f), 1 + g * g * (1.5f * g - 2.5f), -0.5f * g * f * f}};
}

struct FilterFrame {
  ImageView<const float> input, noise_variance;  // noise_variance without data: constant_variance everywhere
  ImageView<const float> state, variance;
  ImageView<float> next_state, next_variance, filtered;
  float constant_variance;
  int offset_y, offset_x;  // from a pixel to the first tap of its source
  CubicWeights weight_y, weight_x;
  int history_top, history_bottom, history_left, history_right;  // rows [top, bottom), columns [left, right) seen in the previous frame
  int nearest_y, nearest_x;                                      // from a pixel to the source's nearest pixel
  float minimum_gain, change_first, gain_per_sd, noise_correlation;

  template <int Height, int Width>
  struct Scratch {
    Tile<float, Height + 2 * pool, Width + 2 * pool + 4> moved;  // 3 more are needed, 4 keep the rows aligned
    Tile<float, Height + 2 * pool, Width + 2 * pool> predicted, history, innovation;
    Tile<float, Height + 2 * pool, Width> sum, square_sum;
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int height = input.height, width = input.width;
    const int rows = block.rows(height), columns = block.columns(width);
    const int window_rows = rows + 2 * pool, window_columns = columns + 2 * pool;
    const int top = block.y0 - pool, left = block.x0 - pool;

    // The state, moved along y only, for the tile with its window's border and the taps along x.
    const int source_y = top + offset_y, source_x = left + offset_x;
    const float a0 = weight_y.at[0], a1 = weight_y.at[1], a2 = weight_y.at[2], a3 = weight_y.at[3];
    const auto move_along_y = [&](int y, int x, int column) {
      const int row = source_y + y, last = height - 1;
      scratch.moved[y][x] = (a0 * state.row(clamp_int(row, 0, last))[column] + a1 * state.row(clamp_int(row + 1, 0, last))[column]) +
                            (a2 * state.row(clamp_int(row + 2, 0, last))[column] + a3 * state.row(clamp_int(row + 3, 0, last))[column]);
    };
    if (source_x >= 0 && source_x + window_columns + 3 <= width)
      block.for_each_pixel(window_rows, window_columns + 3, [&](int y, int x) { move_along_y(y, x, source_x + x); });
    else
      block.for_each_pixel(window_rows, window_columns + 3,
                           [&](int y, int x) { move_along_y(y, x, clamp_int(source_x + x, 0, width - 1)); });

    const float b0 = weight_x.at[0], b1 = weight_x.at[1], b2 = weight_x.at[2], b3 = weight_x.at[3];
    const bool constant_noise = noise_variance.data == nullptr;
    const float constant = constant_variance;
    const auto innovate = [&](int y, int x) {
      const float* m = scratch.moved[y] + x;
      const float predicted = (b0 * m[0] + b1 * m[1]) + (b2 * m[2] + b3 * m[3]);
      const float noise = constant_noise ? constant : noise_variance.row(top + y)[left + x];
      const float history = variance.row(top + y + nearest_y)[left + x + nearest_x];
      scratch.predicted[y][x] = predicted;
      scratch.history[y][x] = history;
      scratch.innovation[y][x] = (input.row(top + y)[left + x] - predicted) / sqrtf(history + noise);
    };
    // history_* lie within the image, so what is inside them is inside the image too.
    const int known_top = history_top > top ? history_top - top : 0, known_left = history_left > left ? history_left - left : 0;
    const int known_bottom = history_bottom - top < window_rows ? history_bottom - top : window_rows;
    const int known_right = history_right - left < window_columns ? history_right - left : window_columns;
    if (known_bottom - known_top < window_rows || known_right - known_left < window_columns)
      block.for_each_pixel(window_rows, window_columns, [&](int y, int x) {
        scratch.predicted[y][x] = 0;
        scratch.history[y][x] = no_history;
        scratch.innovation[y][x] = 0;
      });
    if (known_top < known_bottom && known_left < known_right)
      block.for_each_pixel(known_bottom - known_top, known_right - known_left,
                           [&](int y, int x) { innovate(known_top + y, known_left + x); });

    block.for_each_pixel(window_rows, columns, [&](int y, int x) {
      const float* n = scratch.innovation[y] + x;
      scratch.sum[y][x] = (n[0] + n[1]) + (n[2] + n[3]) + n[4];
      scratch.square_sum[y][x] = (n[0] * n[0] + n[1] * n[1]) + (n[2] * n[2] + n[3] * n[3]) + n[4] * n[4];
    });

    const float least_gain = minimum_gain, first = change_first, per_sd = gain_per_sd, inverse_correlation = 1 / noise_correlation;
    const auto update = [&](int y, int x, float noise) {
      const int row = block.y0 + y, column = block.x0 + x;
      const int rows_below = height - 1 - row < pool ? height - 1 - row : pool, rows_above = row < pool ? row : pool;
      const int columns_right = width - 1 - column < pool ? width - 1 - column : pool, columns_left = column < pool ? column : pool;
      const float count = static_cast<float>((rows_above + rows_below + 1) * (columns_left + columns_right + 1));
      const float sum =
          (scratch.sum[y][x] + scratch.sum[y + 1][x]) + (scratch.sum[y + 2][x] + scratch.sum[y + 3][x]) + scratch.sum[y + 4][x];
      const float square_sum = (scratch.square_sum[y][x] + scratch.square_sum[y + 1][x]) +
                               (scratch.square_sum[y + 2][x] + scratch.square_sum[y + 3][x]) + scratch.square_sum[y + 4][x];
      const float by_mean = fabsf(sum) / sqrtf(count);
      const float by_square = (square_sum - count) / sqrtf(2 * count);
      const float change = (by_mean > by_square ? by_mean : by_square) * inverse_correlation;
      float step = (change - first) * per_sd;
      step = step < 0 ? 0 : (step > 1 ? 1 : step);

      const float predicted = scratch.predicted[y + pool][x + pool], history = scratch.history[y + pool][x + pool];
      const float value = input.row(row)[column];
      const float kalman = history / (history + noise);
      const float gain = (kalman > least_gain ? kalman : least_gain) * (1 - step) + step;
      const float rest = 1 - gain;
      const float result = gain * value + rest * predicted;
      next_state.row(row)[column] = result;
      filtered.row(row)[column] = result;
      next_variance.row(row)[column] = rest * rest * history + gain * gain * noise;
    };
    // Two loops rather than a choice inside: GCC vectorises neither a conditional load nor so long a body around one.
    if (constant_noise)
      block.for_each_pixel(rows, columns, [&](int y, int x) { update(y, x, constant); });
    else
      block.for_each_pixel(rows, columns, [&](int y, int x) { update(y, x, noise_variance.row(block.y0 + y)[block.x0 + x]); });
  }
};

struct StartState {
  ImageView<const float> input, noise_variance;
  ImageView<float> state, variance, filtered;
  float constant_variance;
  template <int Height, int Width>
  struct Scratch {};
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    const bool constant_noise = noise_variance.data == nullptr;
    const float constant = constant_variance;
    const int y0 = block.y0, x0 = block.x0;
    block.for_each_pixel(block.rows(input.height), block.columns(input.width), [&](int y, int x) {
      const float value = input.row(y0 + y)[x0 + x];
      state.row(y0 + y)[x0 + x] = value;
      filtered.row(y0 + y)[x0 + x] = value;
      variance.row(y0 + y)[x0 + x] = constant_noise ? constant : noise_variance.row(y0 + y)[x0 + x];
    });
  }
};

// Pixels [first, last) of `extent` whose source, `nearest` pixels further, lies in the previous frame.
void known_range(int extent, int nearest, int* first, int* last) {
  *first = std::min(extent, std::max(0, -nearest));
  *last = std::max(*first, std::min(extent, extent - nearest));
}

}  // namespace

TemporalFilter::TemporalFilter(const Stream& stream, int height, int width, TemporalFilterOptions options) : options_(options) {
  require(height > 0 && width > 0, "TemporalFilter: height and width must be at least 1");
  require(options.minimum_gain > 0 && options.minimum_gain <= 1, "TemporalFilter: minimum_gain must be in (0, 1]");
  require(options.change_first_sd < options.change_last_sd, "TemporalFilter: change_first_sd must be less than change_last_sd");
  require(options.noise_correlation >= 1, "TemporalFilter: noise_correlation must be at least 1");
  for (Image<float>* plane : {&state_, &variance_, &next_state_, &next_variance_}) *plane = Image<float>(stream, height, width);
}

void TemporalFilter::apply(const Stream& stream, ImageView<const float> subtracted, float noise_sd, float shift_y_px, float shift_x_px,
                           ImageView<float> filtered) {
  require(noise_sd > 0 && noise_sd < 1e9f, "TemporalFilter: noise_sd must be positive");
  run(stream, subtracted, {}, noise_sd * noise_sd, shift_y_px, shift_x_px, filtered);
}

void TemporalFilter::apply(const Stream& stream, ImageView<const float> subtracted, ImageView<const float> noise_variance, float shift_y_px,
                           float shift_x_px, ImageView<float> filtered) {
  require(noise_variance.data && same_size(noise_variance, subtracted), "TemporalFilter: noise_variance differs in size");
  run(stream, subtracted, noise_variance, 0, shift_y_px, shift_x_px, filtered);
}

void TemporalFilter::run(const Stream& stream, ImageView<const float> subtracted, ImageView<const float> noise_variance,
                         float constant_variance, float shift_y_px, float shift_x_px, ImageView<float> filtered) {
  require(same_size(subtracted, state_.view()), "TemporalFilter: subtracted differs in size from the filter");
  require(same_size(filtered, state_.view()), "TemporalFilter: filtered differs in size from the filter");
  require(std::isfinite(shift_y_px) && std::isfinite(shift_x_px), "TemporalFilter: the shift is not finite");
  const int height = state_.height(), width = state_.width();
  if (first_) {
    for_each_tile(stream, height, width, StartState{subtracted, noise_variance, state_, variance_, filtered, constant_variance});
    first_ = false;
    return;
  }
  // A shift beyond the frame leaves no history; clamped so that its whole part fits an int.
  const float back_y = std::clamp(-shift_y_px, -2.0f * height, 2.0f * height),
              back_x = std::clamp(-shift_x_px, -2.0f * width, 2.0f * width);
  const float whole_y = std::floor(back_y), whole_x = std::floor(back_x);
  FilterFrame kernel{};
  kernel.input = subtracted;
  kernel.noise_variance = noise_variance;
  kernel.state = state_.view();
  kernel.variance = variance_.view();
  kernel.next_state = next_state_.view();
  kernel.next_variance = next_variance_.view();
  kernel.filtered = filtered;
  kernel.constant_variance = constant_variance;
  kernel.offset_y = static_cast<int>(whole_y) - 1;
  kernel.offset_x = static_cast<int>(whole_x) - 1;
  kernel.weight_y = cubic_weights(back_y - whole_y);
  kernel.weight_x = cubic_weights(back_x - whole_x);
  kernel.nearest_y = static_cast<int>(std::floor(back_y + 0.5f));
  kernel.nearest_x = static_cast<int>(std::floor(back_x + 0.5f));
  known_range(height, kernel.nearest_y, &kernel.history_top, &kernel.history_bottom);
  known_range(width, kernel.nearest_x, &kernel.history_left, &kernel.history_right);
  kernel.minimum_gain = options_.minimum_gain;
  kernel.change_first = options_.change_first_sd;
  kernel.gain_per_sd = 1 / (options_.change_last_sd - options_.change_first_sd);
  kernel.noise_correlation = options_.noise_correlation;
  for_each_tile(stream, height, width, kernel);
  std::swap(state_, next_state_);
  std::swap(variance_, next_variance_);
}

}  // namespace cinelumen
