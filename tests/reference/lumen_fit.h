#pragma once
/// Double-precision twins of the cylinder fit: the blurred chord by dense quadrature, the window pixel by pixel, Gauss-Newton with
/// numerical derivatives, the Cramer-Rao bound, and a renderer of tubes with another integrator and another point spread.

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numbers>
#include <random>
#include <vector>

#include "kernels/image.h"

namespace cinelumen::reference {

/// 2 sqrt(R^2 - x^2) convolved with a Gaussian of SD s: midpoint rule over the angle, dense.
inline double blurred_chord(double x, double radius, double s) {
  const int count = std::max(100, static_cast<int>(16 * radius / s));
  double sum = 0;
  for (int k = 0; k < count; ++k) {
    const double angle = std::numbers::pi * ((k + 0.5) / count - 0.5), z = (x - radius * std::sin(angle)) / s;
    sum += std::cos(angle) * std::cos(angle) * std::exp(-0.5 * z * z);
  }
  return 2 * radius * radius * sum * std::numbers::pi / count / (s * std::sqrt(2 * std::numbers::pi));
}

/// Solves a x = b for a small symmetric positive definite a, by Gauss-Jordan with pivoting.
inline std::vector<double> solve(std::vector<std::vector<double>> a, std::vector<double> b) {
  const int n = static_cast<int>(b.size());
  for (int i = 0; i < n; ++i) {
    int pivot = i;
    for (int r = i + 1; r < n; ++r)
      if (std::abs(a[r][i]) > std::abs(a[pivot][i])) pivot = r;
    std::swap(a[i], a[pivot]);
    std::swap(b[i], b[pivot]);
    for (int r = 0; r < n; ++r) {
      if (r == i) continue;
      const double factor = a[r][i] / a[i][i];
      for (int k = i; k < n; ++k) a[r][k] -= factor * a[i][k];
      b[r] -= factor * b[i];
    }
  }
  for (int i = 0; i < n; ++i) b[i] /= a[i][i];
  return b;
}

struct Sample {
  double x, value, weight;
};

/// The pixels of one profile: for each step along the axis nearer to the normal, the `rows` pixels nearest to the line.
inline std::vector<Sample> window_pixels(ImageView<const float> image, double y, double x, double normal_y, double normal_x, double radius,
                                         double s_with_pixel, int rows, double variance) {
  const bool by_columns = std::abs(normal_x) >= std::abs(normal_y);
  const double n_major = by_columns ? normal_x : normal_y, n_minor = by_columns ? normal_y : normal_x;
  const double major = by_columns ? x : y, minor = by_columns ? y : x;
  const int side = static_cast<int>((1.5 * radius + 5 * s_with_pixel + 2) * std::abs(n_major)) + 1;
  const int centre = static_cast<int>(std::floor(major + 0.5));
  std::vector<Sample> samples;
  for (int i = centre - side; i <= centre + side; ++i) {
    const double line = minor + (i - major) * n_minor / n_major;
    std::vector<int> nearest;
    for (int j = static_cast<int>(line) - 6; j <= static_cast<int>(line) + 6; ++j) nearest.push_back(j);
    std::sort(nearest.begin(), nearest.end(), [&](int a, int b) { return std::abs(a - line) < std::abs(b - line); });
    for (int k = 0; k < rows; ++k) {
      const int py = by_columns ? nearest[k] : i, px = by_columns ? i : nearest[k];
      if (py < 0 || px < 0 || py >= image.height || px >= image.width) continue;
      samples.push_back({(i - major) * n_major + (nearest[k] - minor) * n_minor, image(py, px), 1 / variance});
    }
  }
  return samples;
}

/// theta = R, c, kappa, b0, b1; s_with_pixel held. Weighted least squares by damped Gauss-Newton until the step vanishes.
struct CylinderFit {
  std::array<double, 5> theta;
  double radius_sd, chi2;
};
inline double cylinder(const std::array<double, 5>& theta, double s_with_pixel, double x) {
  constexpr double h = 1e-3;
  const double s = s_with_pixel, low = blurred_chord(x - theta[1] - h, theta[0], s), mid = blurred_chord(x - theta[1], theta[0], s),
               high = blurred_chord(x - theta[1] + h, theta[0], s), slope = (high - low) / (2 * h),
               curvature = (high - 2 * mid + low) / (h * h);
  const double variance_within = s * s * slope * slope + 0.5 * s * s * s * s * curvature * curvature;
  return theta[2] * mid - 0.5 * theta[2] * theta[2] * variance_within + theta[3] + theta[4] * x;
}
inline CylinderFit fit_cylinder(const std::vector<Sample>& samples, std::array<double, 5> theta, double s_with_pixel) {
  const auto chi2_of = [&](const std::array<double, 5>& at) {
    double sum = 0;
    for (const Sample& sample : samples) {
      const double r = sample.value - cylinder(at, s_with_pixel, sample.x);
      sum += sample.weight * r * r;
    }
    return sum;
  };
  double chi2 = chi2_of(theta), damping = 1e-3;
  std::vector<std::vector<double>> hessian(5, std::vector<double>(5));
  for (int iteration = 0; iteration < 100; ++iteration) {
    for (auto& row : hessian) std::fill(row.begin(), row.end(), 0.0);
    std::vector<double> gradient(5, 0.0);
    for (const Sample& sample : samples) {
      std::array<double, 5> column{};
      for (int j = 0; j < 5; ++j) {
        auto high = theta, low = theta;
        high[j] += 1e-5;
        low[j] -= 1e-5;
        column[j] = (cylinder(high, s_with_pixel, sample.x) - cylinder(low, s_with_pixel, sample.x)) / 2e-5;
      }
      const double r = sample.value - cylinder(theta, s_with_pixel, sample.x);
      for (int j = 0; j < 5; ++j) {
        gradient[j] += sample.weight * column[j] * r;
        for (int k = 0; k < 5; ++k) hessian[j][k] += sample.weight * column[j] * column[k];
      }
    }
    auto damped = hessian;
    for (int j = 0; j < 5; ++j) damped[j][j] *= 1 + damping;
    const auto step = solve(damped, gradient);
    auto next = theta;
    for (int j = 0; j < 5; ++j) next[j] += step[j];
    const double next_chi2 = next[0] > 0 ? chi2_of(next) : 1e300;
    if (next_chi2 <= chi2) {
      theta = next;
      chi2 = next_chi2;
      damping *= 0.1;
      if (std::abs(step[0]) < 1e-5) break;
    } else {
      damping *= 10;
      if (damping > 1e12) break;
    }
  }
  std::vector<double> unit(5, 0.0);
  unit[0] = 1;
  return {theta, std::sqrt(solve(hessian, unit)[0]), chi2};
}

/// Line spread of the renderer: a narrow and a wide Gaussian, so not a Gaussian. SD of the whole is `sd`.
struct LineSpread {
  double sd = 0.7, wide_share = 0.2, wide_ratio = 2;
  double narrow_sd() const { return sd / std::sqrt(1 - wide_share + wide_share * wide_ratio * wide_ratio); }
  double operator()(double x) const {
    const double a = narrow_sd(), b = a * wide_ratio, norm = std::sqrt(2 * std::numbers::pi);
    return (1 - wide_share) * std::exp(-0.5 * x * x / (a * a)) / (a * norm) + wide_share * std::exp(-0.5 * x * x / (b * b)) / (b * norm);
  }
};

/// Draws straight tubes: attenuation averaged in the intensity domain over the line spread and 5 x 5 points of each pixel.
class TubeRenderer {
 public:
  TubeRenderer(double radius_px, double kappa_per_px, const LineSpread& spread) {
    extent_ = radius_px + 8 * spread.sd + 2;
    const int count = static_cast<int>(2 * extent_ / step_) + 1;
    transmission_.resize(count);
    const int half = static_cast<int>(7 * spread.sd / step_);
    std::vector<double> kernel(2 * half + 1);
    double total = 0;
    for (int k = -half; k <= half; ++k) total += kernel[k + half] = spread(k * step_);
    for (int i = 0; i < count; ++i) {
      double sum = 0;
      for (int k = -half; k <= half; ++k) {
        const double x = i * step_ - extent_ + k * step_, inside = radius_px * radius_px - x * x;
        sum += kernel[k + half] * std::exp(-kappa_per_px * (inside > 0 ? 2 * std::sqrt(inside) : 0));
      }
      transmission_[i] = sum / total;
    }
  }
  /// Adds the tube whose axis passes (y, x) along the direction at right angles to (normal_y, normal_x).
  void draw(ImageView<float> image, double y, double x, double normal_y, double normal_x) const {
    for (int py = 0; py < image.height; ++py)
      for (int px = 0; px < image.width; ++px) {
        const double at_centre = (py - y) * normal_y + (px - x) * normal_x;
        if (std::abs(at_centre) > extent_ - 2) continue;
        double sum = 0;
        for (int a = 0; a < 5; ++a)
          for (int b = 0; b < 5; ++b) {
            const double distance = at_centre + ((a - 2) * normal_y + (b - 2) * normal_x) / 5, place = (distance + extent_) / step_;
            const int i = static_cast<int>(place);
            sum += transmission_[i] + (place - i) * (transmission_[i + 1] - transmission_[i]);
          }
        image(py, px) += static_cast<float>(-std::log(sum / 25));
      }
  }

 private:
  static constexpr double step_ = 1.0 / 32;
  double extent_ = 0;
  std::vector<double> transmission_;
};

/// Adds Gaussian noise of that SD with a 3 x 3 kernel (1 e 1) x (1 e 1): edge = 0 is white.
inline void add_noise(ImageView<float> image, double sd, unsigned seed, double edge = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> white(static_cast<std::size_t>(image.height + 2) * (image.width + 2));
  for (double& w : white) w = normal(random);
  const double norm = 1 + 2 * edge * edge;
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x) {
      double sum = 0;
      for (int a = -1; a <= 1; ++a)
        for (int b = -1; b <= 1; ++b)
          sum += (a ? edge : 1) * (b ? edge : 1) * white[static_cast<std::size_t>(y + 1 + a) * (image.width + 2) + x + 1 + b];
      image(y, x) += static_cast<float>(sd * sum / norm);
    }
}

}  // namespace cinelumen::reference
