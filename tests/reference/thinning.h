#pragma once
/// Guo and Hall's algorithm A1 as printed: one pixel at a time, all of a sub-iteration decided before any is deleted.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/image.h"

namespace cinelumen::reference {

inline Image<std::uint8_t> guo_hall(ImageView<const std::uint8_t> mask) {
  Image<std::uint8_t> image(mask.height, mask.width);
  for (int y = 0; y < mask.height; ++y)
    for (int x = 0; x < mask.width; ++x) image(y, x) = mask(y, x) != 0;
  const auto at = [&](int y, int x) { return y >= 0 && y < mask.height && x >= 0 && x < mask.width && image(y, x) ? 1 : 0; };
  for (int unchanged = 0, iteration = 0; unchanged < 2; ++iteration) {
    std::vector<std::pair<int, int>> deleted;
    for (int y = 0; y < mask.height; ++y)
      for (int x = 0; x < mask.width; ++x) {
        if (!image(y, x)) continue;
        const int p2 = at(y - 1, x), p3 = at(y - 1, x + 1), p4 = at(y, x + 1), p5 = at(y + 1, x + 1), p6 = at(y + 1, x),
                  p7 = at(y + 1, x - 1), p8 = at(y, x - 1), p9 = at(y - 1, x - 1);
        const int c = (!p2 && (p3 || p4)) + (!p4 && (p5 || p6)) + (!p6 && (p7 || p8)) + (!p8 && (p9 || p2));
        const int n1 = (p9 || p2) + (p3 || p4) + (p5 || p6) + (p7 || p8), n2 = (p2 || p3) + (p4 || p5) + (p6 || p7) + (p8 || p9);
        const int n = std::min(n1, n2);
        const bool side = iteration % 2 == 0 ? (p2 || p3 || !p5) && p4 : (p6 || p7 || !p9) && p8;
        if (c == 1 && n >= 2 && n <= 3 && !side) deleted.emplace_back(y, x);
      }
    for (const auto& [y, x] : deleted) image(y, x) = 0;
    unchanged = deleted.empty() ? unchanged + 1 : 0;
  }
  return image;
}

}  // namespace cinelumen::reference
