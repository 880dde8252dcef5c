#pragma once
/// A noise gate as a vessel tree makes it, for benchmarks of components and thinning.

#include <cmath>
#include <random>

#include "kernels/image.h"

namespace cinelumen::test {

/// z of a side x side image: SD 1 noise of 2 px correlation, and 14 winding vessels of 2 to 9 px (at 1024; they scale with the side)
/// with z up to 30. About one pixel in ten is above the lower threshold.
inline Image<float> vessel_gate(int side) {
  Image<float> z(side, side);
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) z(y, x) = normal(random);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x)
      if (x > 0 && y > 0) z(y, x) = 0.6f * z(y, x) + 0.4f * z(y, x - 1) + 0.4f * z(y - 1, x);
  for (int vessel = 0; vessel < 14; ++vessel) {
    const double radius = side / 1024.0 * (1 + 0.25 * vessel), phase = vessel * 1.7, top = side * (0.05 + 0.066 * vessel);
    for (int x = 0; x < side; ++x) {
      const double slope = 0.45 * std::cos(x * 9.0 / side + phase), centre = top + side * 0.05 * std::sin(x * 9.0 / side + phase);
      const double stretch = std::sqrt(1 + slope * slope);
      for (int y = std::max(0, static_cast<int>(centre - 3 * radius)); y < std::min<double>(side, centre + 3 * radius); ++y) {
        const double d = (y - centre) / radius / stretch;
        z(y, x) += static_cast<float>(30 * std::exp(-2 * d * d));
      }
    }
  }
  return z;
}

}  // namespace cinelumen::test
