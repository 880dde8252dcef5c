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

/// Scratch of kth_smallest() and median(); also that of a sum.
struct KthScratch : SumLanes<7> {
#ifdef __CUDACC__
  unsigned bin[256], group[16], digit, before, next;
#endif
};

/// The k-th smallest (k from 0) of value(0) ... value(count - 1) that are not negative, more than k of them. For such floats, their bits as
/// a whole number come in the same order.
template <class Block, class Value>
CINELUMEN_HOST_DEVICE float kth_smallest([[maybe_unused]] const Block& block, [[maybe_unused]] KthScratch& scratch, int count, int k,
                                         Value value) {
  std::uint32_t found = 0;
#ifdef __CUDA_ARCH__
  // Eight bits at a time, by how many of those that agree so far have which.
  unsigned left = static_cast<unsigned>(k);
  for (int shift = 24; shift >= 0; shift -= 8) {
    block.for_each_pixel(1, 256, [&](int, int i) { scratch.bin[i] = 0; });
    block.for_each_pixel(1, count, [&](int, int i) {
      const float here = value(i);
      const std::uint32_t bits = std::bit_cast<std::uint32_t>(here);
      if (here >= 0 && (bits >> shift >> 8) == (found >> shift >> 8)) atomicAdd(&scratch.bin[bits >> shift & 255], 1u);
    });
    block.for_each_pixel(1, 16, [&](int, int g) {
      unsigned sum = 0;
      for (int i = 0; i < 16; ++i) sum += scratch.bin[16 * g + i];
      scratch.group[g] = sum;
    });
    block.once([&] {
      unsigned before = 0, digit = 0;
      while (digit < 240 && before + scratch.group[digit / 16] <= left) before += scratch.group[digit / 16], digit += 16;
      while (digit < 255 && before + scratch.bin[digit] <= left) before += scratch.bin[digit++];
      scratch.digit = digit;
      scratch.before = before;
    });
    found |= scratch.digit << shift;
    left -= scratch.before;
    __syncthreads();  // nobody may count anew before all have read
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

/// The next of these values after `low`, which is the k-th: itself where more than k + 1 are not above it.
template <class Block, class Value>
CINELUMEN_HOST_DEVICE float next_smallest([[maybe_unused]] const Block& block, [[maybe_unused]] KthScratch& scratch, int count, int k,
                                          float low, Value value) {
#ifdef __CUDA_ARCH__
  block.once([&] { scratch.before = 0, scratch.next = 0x7f800000u; });
  block.for_each_pixel(1, count, [&](int, int i) {
    const float here = value(i);
    if (here >= 0 && here <= low) atomicAdd(&scratch.before, 1u);
    if (here > low) atomicMin(&scratch.next, std::bit_cast<std::uint32_t>(here));
  });
  const bool same = scratch.before > static_cast<unsigned>(k) + 1;
  const float next = std::bit_cast<float>(scratch.next);
  __syncthreads();  // nobody may start anew before all have read
  return same ? low : next;
#else
  int not_above = 0;
  float next = 3e38f;
  for (int i = 0; i < count; ++i) {
    const float here = value(i);
    not_above += (here >= 0) & (here <= low) ? 1 : 0;
    next = (here > low) & (here < next) ? here : next;
  }
  return not_above > k + 1 ? low : next;
#endif
}

/// Median of the values that are not negative, `listed` >= 1 of them; the mean of the two in the middle.
template <class Block, class Value>
CINELUMEN_HOST_DEVICE float median(const Block& block, KthScratch& scratch, int count, int listed, Value value) {
  const int k = (listed - 1) / 2;
  const float low = kth_smallest(block, scratch, count, k, value);
  return listed % 2 ? low : 0.5f * (low + next_smallest(block, scratch, count, k, low, value));
}

}  // namespace cinelumen
