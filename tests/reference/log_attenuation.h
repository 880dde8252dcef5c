#pragma once
/// Naive twin of kernels/log_attenuation.h.

#include <cstdint>
#include <vector>

#include "kernels/image.h"

namespace cinelumen::reference {

inline Image<double> log_attenuation(ImageView<const std::uint16_t> stored, const std::vector<float>& table) {
  Image<double> result(stored.height, stored.width);
  for (int y = 0; y < stored.height; ++y)
    for (int x = 0; x < stored.width; ++x) result(y, x) = stored(y, x) < table.size() ? table[stored(y, x)] : table.back();
  return result;
}

}  // namespace cinelumen::reference
