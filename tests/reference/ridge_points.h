#pragma once
/// One Newton step onto a ridge and Catmull-Rom sampling, in double precision with whole windows.

#include <cmath>
#include <limits>

#include "kernels/ridge_points.h"

namespace cinelumen::reference {

inline int mirrored(int i, int n) {
  while (n > 1 && (i < 0 || i >= n)) i = i < 0 ? -i : 2 * n - 2 - i;
  return n == 1 ? 0 : i;
}

/// -(n.grad L) / (n'Hn) of the image smoothed by an oriented Gaussian cut at three sigma, along the point's normal; infinite where n'Hn >=
/// 0.
inline double newton_step(ImageView<const float> image, const RidgePoint& point, double y, double x) {
  const double across = point.sigma_px, along = point.along_sigma_px, reach = 3 * std::max(across, along) + 2;
  const double reference =
      image(mirrored(static_cast<int>(std::floor(y + 0.5)), image.height), mirrored(static_cast<int>(std::floor(x + 0.5)), image.width));
  double slope = 0, curvature = 0;
  for (int i = static_cast<int>(y - reach); i <= y + reach; ++i)
    for (int j = static_cast<int>(x - reach); j <= x + reach; ++j) {
      const double dy = i - y, dx = j - x, u = (point.normal_y * dy + point.normal_x * dx) / across,
                   v = (point.normal_x * dy - point.normal_y * dx) / along;
      if (u * u + v * v >= 9) continue;
      const double value = (image(mirrored(i, image.height), mirrored(j, image.width)) - reference) * std::exp(-0.5 * (u * u + v * v));
      slope += value * u;
      curvature += value * (u * u - 1);
    }
  return curvature < 0 ? -slope / curvature * across : std::numeric_limits<double>::infinity();
}

/// Catmull-Rom value at (y, x), NaN outside the image.
inline double sample(ImageView<const float> image, double y, double x) {
  if (y < 0 || x < 0 || y > image.height - 1 || x > image.width - 1) return std::numeric_limits<double>::quiet_NaN();
  const auto weight = [](double t) {
    t = std::abs(t);
    return t < 1 ? 1 - 2.5 * t * t + 1.5 * t * t * t : (t < 2 ? 2 - 4 * t + 2.5 * t * t - 0.5 * t * t * t : 0);
  };
  double sum = 0;
  const int iy = static_cast<int>(std::floor(y)), ix = static_cast<int>(std::floor(x));
  for (int i = iy - 1; i <= iy + 2; ++i)
    for (int j = ix - 1; j <= ix + 2; ++j)
      sum += weight(y - i) * weight(x - j) * image(mirrored(i, image.height), mirrored(j, image.width));
  return sum;
}

}  // namespace cinelumen::reference
