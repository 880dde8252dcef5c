#pragma once
/// Components by flood fill, one pixel at a time.

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/image.h"

namespace cinelumen::reference {

struct Component {
  int area = 0, top = 1 << 30, bottom = -1, left = 1 << 30, right = -1;
  bool has_high = false;
  double length() const { return std::hypot(bottom - top + 1, right - left + 1); }
};

/// Labels 1, 2, ... in raster order of each component's first pixel; 0 where mask is 0. `high` may be empty.
inline std::vector<Component> flood_fill(ImageView<const std::uint8_t> mask, bool diagonals, ImageView<int> labels,
                                         ImageView<const std::uint8_t> high = {}) {
  std::vector<Component> components;
  for (int y = 0; y < mask.height; ++y)
    for (int x = 0; x < mask.width; ++x) labels(y, x) = 0;
  for (int y = 0; y < mask.height; ++y)
    for (int x = 0; x < mask.width; ++x) {
      if (!mask(y, x) || labels(y, x)) continue;
      components.emplace_back();
      Component& component = components.back();
      std::vector<std::pair<int, int>> todo = {{y, x}};
      labels(y, x) = static_cast<int>(components.size());
      while (!todo.empty()) {
        const auto [cy, cx] = todo.back();
        todo.pop_back();
        ++component.area;
        component.top = std::min(component.top, cy);
        component.bottom = std::max(component.bottom, cy);
        component.left = std::min(component.left, cx);
        component.right = std::max(component.right, cx);
        if (high.data && high(cy, cx)) component.has_high = true;
        for (int dy = -1; dy <= 1; ++dy)
          for (int dx = -1; dx <= 1; ++dx) {
            const int ny = cy + dy, nx = cx + dx;
            if ((dy == 0) == (dx == 0) && !(diagonals && dy != 0 && dx != 0)) continue;
            if (ny < 0 || ny >= mask.height || nx < 0 || nx >= mask.width || !mask(ny, nx) || labels(ny, nx)) continue;
            labels(ny, nx) = static_cast<int>(components.size());
            todo.emplace_back(ny, nx);
          }
      }
    }
  return components;
}

}  // namespace cinelumen::reference
