#pragma once
/// Naive twin of kernels/bspline.h: Unser's recursive filter in double precision, and the spline evaluated from its definition.

#include <cmath>
#include <vector>

#include "kernels/image.h"

namespace cinelumen::reference {

inline void bspline_coefficients_1d(std::vector<double>& c) {
  const int n = static_cast<int>(c.size());
  if (n == 1) return;
  const double z = std::sqrt(3.0) - 2;
  for (double& v : c) v *= 6;
  // Whole-sample mirror: the start is a sum over one period.
  double sum = c[0] + std::pow(z, n - 1) * c[n - 1];
  for (int k = 1; k < n - 1; ++k) sum += (std::pow(z, k) + std::pow(z, 2 * n - 2 - k)) * c[k];
  c[0] = sum / (1 - std::pow(z, 2 * n - 2));
  for (int k = 1; k < n; ++k) c[k] += z * c[k - 1];
  c[n - 1] = z / (z * z - 1) * (c[n - 1] + z * c[n - 2]);
  for (int k = n - 2; k >= 0; --k) c[k] = z * (c[k + 1] - c[k]);
}

template <class T>
Image<double> bspline_coefficients(ImageView<T> image) {
  Image<double> result(image.height, image.width);
  for (int y = 0; y < image.height; ++y) {
    std::vector<double> line(image.width);
    for (int x = 0; x < image.width; ++x) line[x] = image(y, x);
    bspline_coefficients_1d(line);
    for (int x = 0; x < image.width; ++x) result(y, x) = line[x];
  }
  for (int x = 0; x < image.width; ++x) {
    std::vector<double> line(image.height);
    for (int y = 0; y < image.height; ++y) line[y] = result(y, x);
    bspline_coefficients_1d(line);
    for (int y = 0; y < image.height; ++y) result(y, x) = line[y];
  }
  return result;
}

/// Cubic B-spline kernel.
inline double bspline(double t) {
  t = std::abs(t);
  if (t < 1) return 2.0 / 3 - t * t + t * t * t / 2;
  if (t < 2) return (2 - t) * (2 - t) * (2 - t) / 6;
  return 0;
}

/// The spline at (y, x), mirrored about its border pixels.
inline double bspline_at(ImageView<const double> coefficients, double y, double x) {
  const auto mirrored = [](int i, int n) {
    if (n == 1) return 0;
    while (i < 0 || i >= n) i = i < 0 ? -i : 2 * n - 2 - i;
    return i;
  };
  double sum = 0;
  for (int j = static_cast<int>(std::floor(y)) - 2; j <= static_cast<int>(std::floor(y)) + 3; ++j)
    for (int i = static_cast<int>(std::floor(x)) - 2; i <= static_cast<int>(std::floor(x)) + 3; ++i)
      sum += bspline(y - j) * bspline(x - i) * coefficients(mirrored(j, coefficients.height), mirrored(i, coefficients.width));
  return sum;
}

}  // namespace cinelumen::reference
