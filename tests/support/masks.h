#pragma once
/// Binary figures for tests of components and thinning.

#include <cmath>
#include <cstdint>
#include <random>

#include "kernels/image.h"

namespace cinelumen::test {

/// Smoothed noise above its median-like level: blobs with holes, bridges and all kinds of corners. `blur_px` is about their size.
inline Image<std::uint8_t> random_blobs(int height, int width, int blur_px, unsigned seed, double level = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Image<double> noise(height + 2 * blur_px, width + 2 * blur_px);
  for (int y = 0; y < noise.height(); ++y)
    for (int x = 0; x < noise.width(); ++x) noise(y, x) = normal(random);
  Image<std::uint8_t> mask(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      double sum = 0;
      for (int dy = -blur_px; dy <= blur_px; ++dy)
        for (int dx = -blur_px; dx <= blur_px; ++dx)
          if (dy * dy + dx * dx <= blur_px * blur_px) sum += noise(y + blur_px + dy, x + blur_px + dx);
      mask(y, x) = sum > level * blur_px * 1.77;
    }
  return mask;
}

/// Rings, a filled disc, a disc with three holes, bars, a cross, single pixels, 2 x 2 blocks, a spiral and touching diagonals.
inline Image<std::uint8_t> figures(int height, int width) {
  Image<std::uint8_t> mask(height, width);
  const auto disc = [&](int y, int x, double cy, double cx, double r) { return std::hypot(y - cy, x - cx) <= r; };
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      bool set = disc(y, x, 20, 20, 15) && !disc(y, x, 20, 20, 6);  // ring
      set = set || disc(y, x, 20, 60, 17);                          // disc
      set = set || (disc(y, x, 62, 30, 20) && !disc(y, x, 55, 25, 4) && !disc(y, x, 55, 38, 3) && !disc(y, x, 72, 30, 5));
      set = set || (y >= 50 && y < 57 && x >= 60 && x < 120) || (x >= 85 && x < 90 && y >= 40 && y < 90);  // cross
      set = set || (y == 5 && x == 100) || (y >= 10 && y < 12 && x >= 100 && x < 102);
      set = set || (y >= 5 && y < 40 && x >= 110 && x < 126 && (y - 5) / 2 == (x - 110));  // thin diagonal
      set = set || (y >= 60 && y < 90 && x >= 95 && x < 125 && (y / 3 + x / 3) % 2 == 0);  // chequers: touching corners
      mask(y, x) = set;
    }
  return mask;
}

}  // namespace cinelumen::test
