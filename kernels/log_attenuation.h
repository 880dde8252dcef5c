#pragma once
/// From stored values to attenuation.

#include <cstdint>

#include "image.h"
#include "stream.h"

namespace cinelumen {

/// A frame as it is stored, for kernels that look its attenuation up where they read it: table[min(stored(y, x), table.size - 1)].
/// Both in memory of the stream's device; the table is not empty.
struct StoredFrame {
  ImageView<const std::uint16_t> stored;
  ArrayView<const float> table;
};

/// attenuation(y, x) = table[min(stored(y, x), table.size - 1)]. `table` holds the attenuation of each stored value (dimensionless,
/// size 2^bits; see IntensityModel). All in memory of the stream's device, same height and width, no overlap.
/// Throws std::invalid_argument where the sizes differ or the table is empty.
void log_attenuation(const Stream& stream, ImageView<const std::uint16_t> stored, ArrayView<const float> table,
                     ImageView<float> attenuation);

}  // namespace cinelumen
