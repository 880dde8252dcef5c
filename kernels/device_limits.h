#pragma once
/// What a device can do at most, measured with the same machinery as every other kernel: the yardstick of the benchmarks.

#include "image.h"
#include "stream.h"

namespace cinelumen {

/// Copies a plane by a kernel (not by the runtime's copy): `to` = `from`, same size, not overlapping. Reads and writes 4 bytes a pixel
/// each. Throws std::invalid_argument where the sizes differ.
void copy_plane(const Stream& stream, ImageView<const float> from, ImageView<float> to);

/// Fused multiply-adds (two floating-point operations each) of one pixel in one round of multiply_add_chains.
inline constexpr int multiply_adds_per_round = 128;

/// Per pixel and round: eight independent chains x <- x * factor + term, 16 times each, chain k starting at the last round's sum plus k;
/// `output` gets the sum of the chains after `rounds` >= 0 rounds (0 after none). Throws std::invalid_argument for negative rounds.
void multiply_add_chains(const Stream& stream, int rounds, float factor, float term, ImageView<float> output);

}  // namespace cinelumen
