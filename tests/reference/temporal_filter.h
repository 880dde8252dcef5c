#pragma once
/// The temporal filter pixel by pixel in double precision, with whole planes between its steps.

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/temporal_filter.h"

namespace cinelumen::reference {

class TemporalFilter {
 public:
  TemporalFilter(int height, int width, TemporalFilterOptions options = {})
      : options_(options), height_(height), width_(width), state_(plane()), variance_(plane()) {}

  std::vector<double> apply(ImageView<const float> z, ImageView<const float> noise_variance, double shift_y, double shift_x) {
    std::vector<double> predicted = plane(), history = plane(), innovation = plane();
    for (int y = 0; y < height_; ++y)
      for (int x = 0; x < width_; ++x) {
        const int from_y = static_cast<int>(std::floor(y - shift_y + 0.5)), from_x = static_cast<int>(std::floor(x - shift_x + 0.5));
        const bool known = !first_ && from_y >= 0 && from_y < height_ && from_x >= 0 && from_x < width_;
        history[at(y, x)] = known ? variance_[at(from_y, from_x)] : INFINITY;
        if (!known) continue;
        predicted[at(y, x)] = interpolate(y - shift_y, x - shift_x);
        innovation[at(y, x)] = (z(y, x) - predicted[at(y, x)]) / std::sqrt(history[at(y, x)] + noise_variance(y, x));
      }
    for (int y = 0; y < height_; ++y)
      for (int x = 0; x < width_; ++x) {
        double sum = 0, square_sum = 0, count = 0;
        for (int v = std::max(0, y - 2); v <= std::min(height_ - 1, y + 2); ++v)
          for (int u = std::max(0, x - 2); u <= std::min(width_ - 1, x + 2); ++u) {
            sum += innovation[at(v, u)];
            square_sum += innovation[at(v, u)] * innovation[at(v, u)];
            ++count;
          }
        const double change =
            std::max(std::abs(sum) / std::sqrt(count), (square_sum - count) / std::sqrt(2 * count)) / options_.noise_correlation;
        const double step =
            std::clamp((change - options_.change_first_sd) / (options_.change_last_sd - double(options_.change_first_sd)), 0.0, 1.0);
        const double p = history[at(y, x)], noise = noise_variance(y, x);
        const double kalman = std::isinf(p) ? 1 : std::max<double>(p / (p + noise), options_.minimum_gain);
        const double gain = kalman + (1 - kalman) * step;
        state_[at(y, x)] = predicted[at(y, x)] + gain * (z(y, x) - predicted[at(y, x)]);
        variance_[at(y, x)] = (gain < 1 ? (1 - gain) * (1 - gain) * p : 0) + gain * gain * noise;
      }
    first_ = false;
    return state_;
  }

 private:
  std::vector<double> plane() const { return std::vector<double>(static_cast<std::size_t>(height_) * width_, 0.0); }
  std::size_t at(int y, int x) const { return static_cast<std::size_t>(y) * width_ + x; }
  static double cubic(double d) {  // Keys, a = -1/2
    d = std::abs(d);
    return d < 1 ? (1.5 * d - 2.5) * d * d + 1 : (d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0);
  }
  double interpolate(double y, double x) const {
    double sum = 0;
    for (int v = static_cast<int>(std::floor(y)) - 1; v <= std::floor(y) + 2; ++v)
      for (int u = static_cast<int>(std::floor(x)) - 1; u <= std::floor(x) + 2; ++u)
        sum += cubic(y - v) * cubic(x - u) * state_[at(std::clamp(v, 0, height_ - 1), std::clamp(u, 0, width_ - 1))];
    return sum;
  }
  TemporalFilterOptions options_;
  int height_, width_;
  bool first_ = true;
  std::vector<double> state_, variance_;
};

}  // namespace cinelumen::reference
