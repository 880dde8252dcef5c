#include "engine/smoothing_spline.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/error.h"

namespace cinelumen {
namespace {

// The four cubic B-splines that do not vanish at u in [0, 1) of an interval, and their derivatives by u.
void basis(double u, std::array<double, 4>& value, std::array<double, 4>& slope) {
  const double v = 1 - u;
  value = {v * v * v / 6, (4 - 6 * u * u + 3 * u * u * u) / 6, (4 - 6 * v * v + 3 * v * v * v) / 6, u * u * u / 6};
  slope = {-v * v / 2, (-4 * u + 3 * u * u) / 2, (4 * v - 3 * v * v) / 2, u * u / 2};
}

}  // namespace

SmoothingSpline::SmoothingSpline(const std::vector<Sample>& samples, double length, double knot_spacing, double curvature_penalty,
                                 double outlier_px)
    : length_(length) {
  require(length > 0 && knot_spacing > 0, "SmoothingSpline: length and knot_spacing must be positive");
  const int intervals = std::max(1, static_cast<int>(std::lround(length / knot_spacing)));
  spacing_ = length / intervals;
  control_y_.assign(intervals + 3, 0);
  control_x_.assign(intervals + 3, 0);
  const int n = static_cast<int>(control_y_.size());
  std::vector<double> weights(samples.size());
  std::vector<Support> supports(samples.size());  // the same in all fits
  for (std::size_t i = 0; i < samples.size(); ++i) {
    weights[i] = samples[i].weight;
    const double position = std::clamp(samples[i].t / spacing_, 0.0, static_cast<double>(n - 3));
    supports[i].interval = std::min(static_cast<int>(position), n - 4);
    std::array<double, 4> slope;
    basis(position - supports[i].interval, supports[i].value, slope);
  }
  fit(samples, supports, weights, curvature_penalty);
  if (!(outlier_px > 0)) return;
  for (int pass = 0; pass < 2; ++pass) {
    for (std::size_t i = 0; i < samples.size(); ++i) {
      if (samples[i].anchor) continue;
      double dy = 0, dx = 0;
      for (int a = 0; a < 4; ++a) {
        dy += supports[i].value[a] * control_y_[supports[i].interval + a];
        dx += supports[i].value[a] * control_x_[supports[i].interval + a];
      }
      dy -= samples[i].y;
      dx -= samples[i].x;
      const double r2 = (dy * dy + dx * dx) / (outlier_px * outlier_px);
      weights[i] = samples[i].weight / ((1 + r2) * (1 + r2));
    }
    fit(samples, supports, weights, curvature_penalty);
  }
}

void SmoothingSpline::fit(const std::vector<Sample>& samples, const std::vector<Support>& supports, const std::vector<double>& weights,
                          double curvature_penalty) {
  const int n = static_cast<int>(control_y_.size());
  std::vector<std::array<double, 4>> band(n, {0, 0, 0, 0});  // band[i][d]: element (i, i - d)
  std::vector<double> right_y(n, 0), right_x(n, 0);
  double total = 0;
  for (std::size_t s = 0; s < samples.size(); ++s) {
    if (!(weights[s] > 0)) continue;
    total += weights[s];
    const int interval = supports[s].interval;
    const std::array<double, 4>& value = supports[s].value;
    for (int a = 0; a < 4; ++a) {
      for (int b = 0; b <= a; ++b) band[interval + a][a - b] += weights[s] * value[a] * value[b];
      right_y[interval + a] += weights[s] * value[a] * samples[s].y;
      right_x[interval + a] += weights[s] * value[a] * samples[s].x;
    }
  }
  const double unit = total / (n - 3);
  const double penalty = curvature_penalty * unit;
  for (int i = 2; i < n; ++i) {
    constexpr double difference[3] = {1, -2, 1};
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b <= a; ++b) band[i - 2 + a][a - b] += penalty * difference[a] * difference[b];
  }
  for (int i = 0; i < n; ++i) band[i][0] += 1e-9 * unit + 1e-300;
  // Banded Cholesky, L stored over the band.
  for (int i = 0; i < n; ++i)
    for (int d = std::min(3, i); d >= 0; --d) {
      const int j = i - d;
      double sum = band[i][d];
      for (int k = std::max({0, i - 3, j - 3}); k < j; ++k) sum -= band[i][i - k] * band[j][j - k];
      band[i][d] = d == 0 ? std::sqrt(std::max(sum, 1e-300)) : sum / band[j][0];
    }
  const auto solve = [&](std::vector<double>& x) {
    for (int i = 0; i < n; ++i) {
      for (int d = 1; d <= std::min(3, i); ++d) x[i] -= band[i][d] * x[i - d];
      x[i] /= band[i][0];
    }
    for (int i = n - 1; i >= 0; --i) {
      for (int d = 1; d <= std::min(3, n - 1 - i); ++d) x[i] -= band[i + d][d] * x[i + d];
      x[i] /= band[i][0];
    }
  };
  solve(right_y);
  solve(right_x);
  control_y_ = std::move(right_y);
  control_x_ = std::move(right_x);
}

SmoothingSpline::Position SmoothingSpline::at(double t) const {
  const int n = static_cast<int>(control_y_.size());
  const double position = std::clamp(t / spacing_, 0.0, static_cast<double>(n - 3));
  const int interval = std::min(static_cast<int>(position), n - 4);
  std::array<double, 4> value, slope;
  basis(position - interval, value, slope);
  Position result;
  for (int a = 0; a < 4; ++a) {
    result.y += value[a] * control_y_[interval + a];
    result.x += value[a] * control_x_[interval + a];
    result.dy += slope[a] * control_y_[interval + a] / spacing_;
    result.dx += slope[a] * control_x_[interval + a] / spacing_;
  }
  return result;
}

std::vector<double> SmoothingSpline::arc_lengths(int steps) const {
  const int n = static_cast<int>(control_y_.size());
  std::vector<double> arc(steps + 1, 0);
  std::array<double, 4> y{}, x{};  // coefficients of the interval's polynomials
  const auto polynomial = [](const double* control) {
    return std::array<double, 4>{(control[0] + 4 * control[1] + control[2]) / 6, (control[2] - control[0]) / 2,
                                 (control[0] - 2 * control[1] + control[2]) / 2,
                                 (control[3] - control[0] + 3 * (control[1] - control[2])) / 6};
  };
  double before_y = 0, before_x = 0;
  for (int i = 0, current = -1; i <= steps; ++i) {
    const double position = std::min(static_cast<double>(n - 3) * i / steps, static_cast<double>(n - 3));
    const int interval = std::min(static_cast<int>(position), n - 4);
    if (interval != current) {
      y = polynomial(&control_y_[interval]);
      x = polynomial(&control_x_[interval]);
      current = interval;
    }
    const double u = position - interval;
    const double here_y = y[0] + u * (y[1] + u * (y[2] + u * y[3])), here_x = x[0] + u * (x[1] + u * (x[2] + u * x[3]));
    const double dy = here_y - before_y, dx = here_x - before_x;
    if (i > 0) arc[i] = arc[i - 1] + std::sqrt(dy * dy + dx * dx);
    before_y = here_y;
    before_x = here_x;
  }
  return arc;
}

}  // namespace cinelumen
