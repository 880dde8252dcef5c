#include "hysteresis.h"

#include "thrust_policy.h"  // before other Thrust headers: it chooses the device system

#include <thrust/scan.h>

#include <atomic>
#include <climits>

#include "tile.h"

namespace cinelumen {
namespace {

CINELUMEN_HOST_DEVICE inline int read_shared(const int* at) {
#ifdef __CUDA_ARCH__
  return *static_cast<const volatile int*>(at);
#else
  return __atomic_load_n(at, __ATOMIC_RELAXED);
#endif
}

/// Lowers *at to value; returns what was there.
CINELUMEN_HOST_DEVICE inline int lower(int* at, int value) {
#ifdef __CUDA_ARCH__
  return atomicMin(at, value);
#else
  std::atomic_ref<int> shared(*at);
  int before = shared.load(std::memory_order_relaxed);
  while (before > value && !shared.compare_exchange_weak(before, value, std::memory_order_relaxed)) {
  }
  return before;
#endif
}

CINELUMEN_HOST_DEVICE inline void raise(int* at, int value) {
#ifdef __CUDA_ARCH__
  atomicMax(at, value);
#else
  std::atomic_ref<int> shared(*at);
  int before = shared.load(std::memory_order_relaxed);
  while (before < value && !shared.compare_exchange_weak(before, value, std::memory_order_relaxed)) {
  }
#endif
}

CINELUMEN_HOST_DEVICE inline void add(int* at, int value) {
#ifdef __CUDA_ARCH__
  atomicAdd(at, value);
#else
  std::atomic_ref<int>(*at).fetch_add(value, std::memory_order_relaxed);
#endif
}

CINELUMEN_HOST_DEVICE inline int find_root(const int* parents, int run) {
  for (;;) {
    const int parent = read_shared(parents + run);
    if (parent == run) return run;
    run = parent;
  }
}

CINELUMEN_HOST_DEVICE inline void unite(int* parents, int a, int b) {
  for (;;) {
    a = find_root(parents, a);
    b = find_root(parents, b);
    if (a == b) return;
    const int larger = a > b ? a : b, smaller = a > b ? b : a;
    const int before = lower(parents + larger, smaller);
    if (before == larger) return;  // it was still a root
    a = before;
    b = smaller;
  }
}

CINELUMEN_HOST_DEVICE inline int lowest_bit(BitWord word) {
#ifdef __CUDA_ARCH__
  return __ffsll(static_cast<long long>(word)) - 1;
#else
  return __builtin_ctzll(word);
#endif
}

CINELUMEN_HOST_DEVICE inline int count_bits(BitWord word) {
#ifdef __CUDA_ARCH__
  return __popcll(word);
#else
  return __builtin_popcountll(word);
#endif
}

/// First pixels of the runs of a word; a run that comes from the word before starts anew at bit 0.
CINELUMEN_HOST_DEVICE inline BitWord run_starts(BitWord word) { return word & ~(word << 1); }

/// The run of `word` that starts at bit `start`.
CINELUMEN_HOST_DEVICE inline BitWord run_at(BitWord word, int start) {
  const BitWord from_start = ~(word >> start);
  const int length = from_start == 0 ? 64 : lowest_bit(from_start);
  return (length >= 64 ? ~BitWord{0} : (BitWord{1} << length) - 1) << start;
}

/// Words and the number of each one's first run.
struct RunImage {
  ImageView<const BitWord> bits;
  const int* offsets;

  CINELUMEN_HOST_DEVICE int offset(int y, int w) const { return offsets[y * bits.width + w]; }
  /// Number of the run that contains bit `bit` of word (y, w).
  CINELUMEN_HOST_DEVICE int run_of(int y, int w, int bit) const {
    const BitWord up_to = bit == 63 ? ~BitWord{0} : (BitWord{2} << bit) - 1;
    return offset(y, w) + count_bits(run_starts(bits.row(y)[w]) & up_to) - 1;
  }
};

struct CountRuns {
  ImageView<const BitWord> bits;
  int* counts;  // one more than there are words, the last one 0: the scan leaves the total there
  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    counts[i] = i < bits.height * bits.width ? count_bits(run_starts(bits.row(i / bits.width)[i % bits.width])) : 0;
  }
};

struct StartRuns {
  RunImage runs;
  int *parents, *areas, *has_high, *bottoms, *lefts, *rights, *starts;
  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const int y = i / runs.bits.width, w = i % runs.bits.width;
    int run = runs.offsets[i];
    for (BitWord left = run_starts(runs.bits.row(y)[w]); left != 0; left &= left - 1, ++run) {
      parents[run] = run;
      starts[run] = i * 64 + lowest_bit(left);
      areas[run] = 0;
      has_high[run] = 0;
      bottoms[run] = -1;
      lefts[run] = INT_MAX;
      rights[run] = -1;
    }
  }
};

struct UniteRuns {
  RunImage runs;
  int* parents;
  bool diagonals;  // 8-connected, else 4-connected
  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const int width = runs.bits.width, y = i / width, w = i % width;
    const BitWord word = runs.bits.row(y)[w];
    if (word == 0) return;
    int run = runs.offsets[i];
    if (w > 0 && (word & 1) && runs.bits.row(y)[w - 1] >> 63) unite(parents, run, run - 1);
    if (y == 0) return;
    const BitWord above = runs.bits.row(y - 1)[w];
    const bool above_left = diagonals && w > 0 && runs.bits.row(y - 1)[w - 1] >> 63;
    const bool above_right = diagonals && w + 1 < width && (runs.bits.row(y - 1)[w + 1] & 1);
    for (BitWord left = run_starts(word); left != 0; left &= left - 1, ++run) {
      const BitWord pixels = run_at(word, lowest_bit(left));
      BitWord touching = above & (diagonals ? pixels | pixels << 1 | pixels >> 1 : pixels);
      while (touching != 0) {
        const int bit = lowest_bit(touching);
        unite(parents, run, runs.run_of(y - 1, w, bit));
        touching &= ~run_at(above, bit);  // the rest of that run says nothing new
      }
      if (above_left && (pixels & 1)) unite(parents, run, runs.run_of(y - 1, w - 1, 63));
      if (above_right && pixels >> 63) unite(parents, run, runs.run_of(y - 1, w + 1, 0));
    }
  }
};

struct MeasureComponents {
  RunImage runs;
  ImageView<const BitWord> high;  // may be empty
  const int* parents;
  int *roots, *areas, *has_high, *bottoms, *lefts, *rights;
  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const int y = i / runs.bits.width, w = i % runs.bits.width;
    const BitWord word = runs.bits.row(y)[w];
    int run = runs.offsets[i];
    for (BitWord left = run_starts(word); left != 0; left &= left - 1, ++run) {
      const int start = lowest_bit(left);
      const BitWord pixels = run_at(word, start);
      const int root = find_root(parents, run), length = count_bits(pixels);
      roots[run] = root;
      add(areas + root, length);
      // Reading first: most runs change nothing, and an atomic that changes nothing costs as much as one that does.
      if (read_shared(bottoms + root) < y) raise(bottoms + root, y);
      if (read_shared(lefts + root) > w * 64 + start) lower(lefts + root, w * 64 + start);
      if (read_shared(rights + root) < w * 64 + start + length - 1) raise(rights + root, w * 64 + start + length - 1);
      if (high.data && (high.row(y)[w] & pixels) && read_shared(has_high + root) == 0) raise(has_high + root, 1);
    }
  }
};

/// Which components to keep.
struct Criteria {
  int minimum_area = 0, maximum_area = INT_MAX;
  float minimum_length = 0;
  bool needs_high = false, inner = false;  // inner: not touching the image's border
};

struct ChooseComponents {
  Criteria criteria;
  int height, width, words;
  const int *roots, *starts, *areas, *has_high, *bottoms, *lefts, *rights;
  int* kept;  // one more than there are runs
  int runs;
  CINELUMEN_HOST_DEVICE void operator()(int run) const {
    bool keep = run < runs && roots[run] == run;
    if (keep) {
      const int top = starts[run] / (64 * words), bottom = bottoms[run], left = lefts[run], right = rights[run];
      const float rows = static_cast<float>(bottom - top + 1), columns = static_cast<float>(right - left + 1);
      keep = areas[run] >= criteria.minimum_area && areas[run] <= criteria.maximum_area && (!criteria.needs_high || has_high[run]) &&
             rows * rows + columns * columns >= criteria.minimum_length * criteria.minimum_length &&
             !(criteria.inner && (top == 0 || left == 0 || bottom == height - 1 || right == width - 1));
    }
    kept[run] = keep;
  }
};

struct WriteComponents {
  RunImage runs;
  const int *roots, *numbers;  // numbers: exclusive scan of what was kept
  ImageView<BitWord> kept;
  ImageView<int> labels;  // may be empty
  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const int y = i / runs.bits.width, w = i % runs.bits.width, x0 = w * 64;
    const BitWord word = runs.bits.row(y)[w];
    int* row = labels.data ? labels.row(y) + x0 : nullptr;
    if (row)
      for (int x = 0; x < (labels.width - x0 < 64 ? labels.width - x0 : 64); ++x) row[x] = 0;
    int run = runs.offsets[i];
    BitWord result = 0;
    for (BitWord left = run_starts(word); left != 0; left &= left - 1, ++run) {
      const int root = roots[run];
      if (numbers[root + 1] == numbers[root]) continue;
      const int start = lowest_bit(left);
      const BitWord pixels = run_at(word, start);
      result |= pixels;
      if (row)
        for (int x = start; x < 64 && (pixels >> x & 1); ++x) row[x] = numbers[root] + 1;
    }
    kept.row(y)[w] = result;
  }
};

struct InvertBits {
  ImageView<const BitWord> bits;
  ImageView<BitWord> inverted;
  int width;
  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const int y = i / bits.width, w = i % bits.width, columns = width - 64 * w;
    inverted.row(y)[w] = ~bits.row(y)[w] & (columns >= 64 ? ~BitWord{0} : (BitWord{1} << columns) - 1);
  }
};

struct JoinBits {
  ImageView<BitWord> bits;
  ImageView<const BitWord> others;
  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    bits.row(i / bits.width)[i % bits.width] |= others.row(i / bits.width)[i % bits.width];
  }
};

}  // namespace

struct Hysteresis::Selection {
  Criteria criteria;
  bool diagonals = true;
  ImageView<const BitWord> high;
};

Hysteresis::Hysteresis(const Stream& stream, int height, int width)
    : stream_(stream),
      height_(height),
      width_(width),
      low_(stream, height, words_per_row(width)),
      high_(stream, height, words_per_row(width)),
      kept_(stream, height, words_per_row(width)),
      run_offsets_(stream, height * words_per_row(width) + 1),
      last_(Array<int>::staging(stream, 1)) {}

int Hysteresis::segment(ImageView<const float> z, ImageView<const std::uint8_t> valid, const HysteresisOptions& options,
                        ImageView<std::uint8_t> mask, ImageView<int> labels, const SecondGate& second) {
  require(z.height == height_ && z.width == width_, "Hysteresis::segment: z must have the constructor's size");
  require(same_size(z, mask), "Hysteresis::segment: mask and z differ in size");
  require(!valid.data || same_size(z, valid), "Hysteresis::segment: valid and z differ in size");
  require(!labels.data || same_size(z, labels), "Hysteresis::segment: labels and z differ in size");
  require(options.low <= options.high, "Hysteresis::segment: low must not exceed high");
  if (height_ == 0 || width_ == 0) return 0;
  pack_thresholds(stream_, z, valid, options.low, options.high, low_, high_, second.image, second.low, second.high);
  Selection selection;
  selection.criteria.minimum_area = options.minimum_area_px;
  selection.criteria.minimum_length = options.minimum_length_px;
  selection.criteria.needs_high = true;
  selection.high = high_.view();
  const int count = select_components(low_, selection, kept_, labels);
  unpack_bits(stream_, kept_, mask);
  return count;
}

int Hysteresis::label(ImageView<const std::uint8_t> mask, ImageView<int> labels) {
  require(mask.height == height_ && mask.width == width_, "Hysteresis::label: mask must have the constructor's size");
  require(same_size(mask, labels), "Hysteresis::label: labels and mask differ in size");
  if (height_ == 0 || width_ == 0) return 0;
  pack_bits(stream_, mask, low_);
  return select_components(low_, {}, kept_, labels);
}

int Hysteresis::fill_holes(ImageView<const std::uint8_t> mask, int maximum_area_px, ImageView<std::uint8_t> filled) {
  require(mask.height == height_ && mask.width == width_, "Hysteresis::fill_holes: mask must have the constructor's size");
  require(same_size(mask, filled), "Hysteresis::fill_holes: filled and mask differ in size");
  if (height_ == 0 || width_ == 0) return 0;
  const int words = height_ * words_per_row(width_);
  pack_bits(stream_, mask, high_);
  for_each_item(stream_, words, InvertBits{high_, low_, width_}, 1024);
  Selection selection;
  selection.criteria.maximum_area = maximum_area_px;
  selection.criteria.inner = true;
  selection.diagonals = false;
  const int count = select_components(low_, selection, kept_, {});
  for_each_item(stream_, words, JoinBits{kept_, high_}, 1024);
  unpack_bits(stream_, kept_, filled);
  return count;
}

int Hysteresis::select_components(ImageView<const BitWord> bits, const Selection& selection, ImageView<BitWord> kept,
                                  ImageView<int> labels) {
  const int words = bits.height * bits.width;
  const auto scan = [&](Array<int>& numbers, int count) {
    int* const first = numbers.view().data;
    with_thrust_policy(stream_, [&](auto policy) { thrust::exclusive_scan(policy, first, first + count, first); });
    copy<int>(stream_, ArrayView<const int>{first + count - 1, 1}, last_.view());
    stream_.synchronize();
    return last_[0];
  };
  for_each_item(stream_, words + 1, CountRuns{bits, run_offsets_.view().data}, 1024);
  const int runs = scan(run_offsets_, words + 1);
  if (parents_.size() < runs + 1 || parents_.size() == 0) {
    const int capacity = runs + runs / 2 + 1024;
    for (Array<int>* array : {&parents_, &roots_, &starts_, &areas_, &has_high_, &bottoms_, &lefts_, &rights_, &numbers_})
      *array = Array<int>(stream_, capacity);
  }
  int *const parents = parents_.view().data, *const roots = roots_.view().data, *const starts = starts_.view().data,
             *const areas = areas_.view().data, *const has_high = has_high_.view().data, *const bottoms = bottoms_.view().data,
             *const lefts = lefts_.view().data, *const rights = rights_.view().data, *const numbers = numbers_.view().data;
  const RunImage run_image{bits, run_offsets_.view().data};
  for_each_item(stream_, words, StartRuns{run_image, parents, areas, has_high, bottoms, lefts, rights, starts}, 1024);
  for_each_item(stream_, words, UniteRuns{run_image, parents, selection.diagonals}, 1024);
  for_each_item(stream_, words, MeasureComponents{run_image, selection.high, parents, roots, areas, has_high, bottoms, lefts, rights},
                1024);
  for_each_item(stream_, runs + 1,
                ChooseComponents{selection.criteria, height_, width_, bits.width, roots, starts, areas, has_high, bottoms, lefts, rights,
                                 numbers, runs},
                4096);
  const int count = scan(numbers_, runs + 1);
  for_each_item(stream_, words, WriteComponents{run_image, roots, numbers, kept, labels}, 1024);
  return count;
}

}  // namespace cinelumen
