#pragma once
/// Masks with one bit per pixel: 64 pixels a word, bit i of word w is pixel 64 w + i, bits beyond the width are 0.
/// What is done to a mask bit by bit (thinning, components) then takes a sixty-fourth of the steps on either machine.

#include <cstdint>

#include "image.h"
#include "stream.h"

namespace cinelumen {

using BitWord = std::uint64_t;

/// Words that a row of `width` pixels takes.
CINELUMEN_HOST_DEVICE inline int words_per_row(int width) { return (width + 63) / 64; }

/// bits(y, w) from mask (height x width, nonzero = set); `bits` is height x words_per_row(width).
/// Throws std::invalid_argument where the sizes do not fit.
void pack_bits(const Stream& stream, ImageView<const std::uint8_t> mask, ImageView<BitWord> bits);

/// Two masks in one reading of z (height x width): low where z >= z_low, high where z >= z_high, both only where valid != 0.
/// An empty `valid` means everywhere; NaN is below any threshold. `low` and `high` are height x words_per_row(width).
/// With a second image (not empty) both must reach their thresholds. Throws std::invalid_argument where the sizes do not fit.
void pack_thresholds(const Stream& stream, ImageView<const float> z, ImageView<const std::uint8_t> valid, float z_low, float z_high,
                     ImageView<BitWord> low, ImageView<BitWord> high, ImageView<const float> second = {}, float second_low = 0,
                     float second_high = 0);

/// mask(y, x) = 1 where the bit is set, else 0; see pack_bits.
void unpack_bits(const Stream& stream, ImageView<const BitWord> bits, ImageView<std::uint8_t> mask);

}  // namespace cinelumen
