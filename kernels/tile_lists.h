#pragma once
/// What a tile's threads do together with a row of numbers: number those that are flagged, find the k-th smallest.

#include <bit>
#include <cstdint>

#include "math.h"
#include "tile.h"

namespace cinelumen {

/// Scratch of enumerate().
struct ListScratch {
  int sum[2][block_threads];
};

/// Calls visit(i, rank, flagged) for 0 <= i < count, rank: how many before i are flagged. Returns how many are in all, in every thread;
/// ends with the barrier. `flag` is asked before any visit() of the same i, and must not depend on what visit() does to others.
template <class Block, class Flag, class Visit>
CINELUMEN_HOST_DEVICE int enumerate([[maybe_unused]] const Block& block, [[maybe_unused]] ListScratch& scratch, int count, Flag flag,
                                    Visit visit) {
  int total = 0;
#ifdef __CUDA_ARCH__
  for (int start = 0; start < count; start += block_threads) {
    block.for_each_pixel(1, block_threads, [&](int, int t) { scratch.sum[0][t] = start + t < count && flag(start + t) ? 1 : 0; });
    int from = 0;
    for (int step = 1; step < block_threads; step *= 2, from = 1 - from)
      block.for_each_pixel(1, block_threads, [&](int, int t) {
        scratch.sum[1 - from][t] = scratch.sum[from][t] + (t >= step ? scratch.sum[from][t - step] : 0);
      });
    const int here = scratch.sum[from][block_threads - 1], before = total;
    block.for_each_pixel(1, block_threads, [&](int, int t) {
      const int rank = t > 0 ? scratch.sum[from][t - 1] : 0;
      if (start + t < count) visit(start + t, before + rank, scratch.sum[from][t] > rank);
    });
    total += here;
  }
#else
  for (int i = 0; i < count; ++i) {
    const bool flagged = flag(i);
    visit(i, total, flagged);
    total += flagged ? 1 : 0;
  }
#endif
  return total;
}

/// Scratch of kth_smallest() and median().
using KthScratch = SumLanes<7>;

/// The k-th smallest (k from 0) of value(0) ... value(count - 1) that are not negative, more than k of them. Three bits at a time: for such
/// floats, their bits as a whole number come in the same order.
template <class Block, class Value>
CINELUMEN_HOST_DEVICE float kth_smallest([[maybe_unused]] const Block& block, [[maybe_unused]] KthScratch& scratch, int count, int k,
                                         Value value) {
  std::uint32_t found = 0;
#ifdef __CUDA_ARCH__
  for (int shift = 28;; shift = shift > 3 ? shift - 3 : 0) {
    const std::uint32_t start = found;
    const Sums<7> below = block.template sum_pixels<7>(1, count, scratch, [&](int, int i) {
      const float here = value(i);
      const std::uint32_t bits = std::bit_cast<std::uint32_t>(here);
      Sums<7> one;
      for (std::uint32_t m = 0; m < 7; ++m) one.value[m] = (here >= 0) & (bits < start + ((m + 1) << shift)) ? 1.0f : 0.0f;
      return one;
    });
    for (std::uint32_t m = 0; m < 7; ++m)
      if (below.value[m] <= static_cast<float>(k)) found = start + ((m + 1) << shift);
    if (shift == 0) break;
  }
#else
  // A count of whole numbers is vector code: one bit at a time is quickest.
  for (int shift = 30; shift >= 0; --shift) {
    const std::int32_t tried = static_cast<std::int32_t>(found + (1u << shift));
    int below = 0;
    for (int i = 0; i < count; ++i) {
      const std::int32_t bits = std::bit_cast<std::int32_t>(value(i));  // negative where the value is
      below += (bits >= 0) & (bits < tried) ? 1 : 0;
    }
    if (below <= k) found += 1u << shift;
  }
#endif
  return std::bit_cast<float>(found);
}

/// Median of the values that are not negative, `listed` >= 1 of them; the mean of the two in the middle.
template <class Block, class Value>
CINELUMEN_HOST_DEVICE float median(const Block& block, KthScratch& scratch, int count, int listed, Value value) {
  const float low = kth_smallest(block, scratch, count, (listed - 1) / 2, value);
  return listed % 2 ? low : 0.5f * (low + kth_smallest(block, scratch, count, listed / 2, value));
}

}  // namespace cinelumen
