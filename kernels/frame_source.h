#pragma once
/// What tile kernels read a frame from: a plane of attenuation, or stored values through their table.

#include <cstring>
#include <type_traits>

#include "log_attenuation.h"
#include "math.h"

namespace cinelumen {

/// Attenuation as a plane.
struct PlaneSource {
  static constexpr int pixel_bytes = sizeof(float);
  ImageView<const float> image;
  CINELUMEN_HOST_DEVICE int height() const { return image.height; }
  CINELUMEN_HOST_DEVICE int width() const { return image.width; }
  CINELUMEN_HOST_DEVICE const float* row(int y) const { return image.row(y); }
};

/// Attenuation looked up in a table as it is read.
struct StoredSource {
  static constexpr int pixel_bytes = sizeof(std::uint16_t);
  StoredFrame frame;

  struct Row {
    const std::uint16_t* __restrict stored;
    const float* __restrict table;
    int last;
    CINELUMEN_HOST_DEVICE float operator[](int x) const {
      const int value = stored[x];
      return table[value < last ? value : last];
    }
  };
  CINELUMEN_HOST_DEVICE int height() const { return frame.stored.height; }
  CINELUMEN_HOST_DEVICE int width() const { return frame.stored.width; }
  CINELUMEN_HOST_DEVICE Row row(int y) const { return {frame.stored.row(y), frame.table.data, frame.table.size - 1}; }
};

/// Looks up `count` pixels of a row: four stored values per load. GCC makes vectors out of single look-ups instead, which take twice as
/// long.
inline void look_up(const StoredSource::Row& from, float* to, int count) {
  const float* __restrict table = from.table;
  const unsigned last = static_cast<unsigned>(from.last);
  const auto clamped = [last](std::uint64_t value) { return value < last ? value : last; };
  int i = 0;
  for (; i + 4 <= count; i += 4) {
    std::uint64_t four;
    std::memcpy(&four, from.stored + i, sizeof(four));
    to[i] = table[clamped(four & 0xffff)];
    to[i + 1] = table[clamped(four >> 16 & 0xffff)];
    to[i + 2] = table[clamped(four >> 32 & 0xffff)];
    to[i + 3] = table[clamped(four >> 48)];
  }
  for (; i < count; ++i) to[i] = from[i];
}

/// target(y)[x] = source(from(y), left + x) for 0 <= y < rows, 0 <= x < columns, all inside. Ends with the barrier.
template <class Block, class Source, class FromRow, class TargetRow>
CINELUMEN_HOST_DEVICE void load_rows(const Block& block, const Source& source, int left, int rows, int columns, FromRow from,
                                     TargetRow target) {
#ifndef __CUDA_ARCH__
  if constexpr (std::is_same_v<Source, StoredSource>) {
    block.for_each_pixel(rows, 1, [&](int y, int) {
      StoredSource::Row row = source.row(from(y));
      row.stored += left;
      // A tile's rows lie too far apart for the processor to see them coming.
      constexpr int ahead = 4, line = 64 / sizeof(std::uint16_t);
      if (y + ahead < rows) {
        const std::uint16_t* const next = source.row(from(y + ahead)).stored + left;
        for (int x = 0; x < columns; x += line) __builtin_prefetch(next + x);
      }
      look_up(row, target(y), columns);
    });
    return;
  }
  block.for_each_pixel(rows, columns, [&](int y, int x) { target(y)[x] = source.row(from(y))[left + x]; });
#else
  // Warps begin where sectors of 32 bytes do: elsewhere each would ask for one more.
  constexpr int sector = 32 / Source::pixel_bytes;
  const int before = left % sector;
  block.for_each_pixel(rows, (before + columns + sector - 1) / sector * sector, [&](int y, int i) {
    const int x = i - before;
    if (x >= 0 && x < columns) target(y)[x] = source.row(from(y))[left + x];
  });
#endif
}

/// The same for rows that follow one another from `top` on.
template <class Block, class Source, class TargetRow>
CINELUMEN_HOST_DEVICE void load_inside(const Block& block, const Source& source, int top, int left, int rows, int columns,
                                       TargetRow target) {
  load_rows(
      block, source, left, rows, columns, [top](int y) { return top + y; }, target);
}

/// target[y][x] = source(top + y, left + x) for 0 <= y < rows, 0 <= x < columns, mirrored about the border pixels; `row`: scratch for
/// `rows` indices. Ends with the barrier. On the CPU only the few columns beyond the border are fetched one by one.
template <class Block, class Source, class Target>
CINELUMEN_HOST_DEVICE void load_mirrored(const Block& block, const Source& source, int top, int left, int rows, int columns, int* row,
                                         Target& target) {
  const int height = source.height(), width = source.width();
  if (top >= 0 && left >= 0 && top + rows <= height && left + columns <= width) {
    load_inside(block, source, top, left, rows, columns, [&](int y) -> float* { return target[y]; });
    return;
  }
  block.for_each_pixel(1, rows, [&](int, int y) { row[y] = mirror(top + y, height); });
  const int first = clamp_int(-left, 0, columns), last = clamp_int(width - left, first, columns), outside = first + columns - last;
  load_rows(
      block, source, left + first, rows, last - first, [&](int y) { return row[y]; }, [&](int y) -> float* { return target[y] + first; });
  block.for_each_pixel(rows, outside, [&](int y, int i) {
    const int x = i < first ? i : last + i - first;
    target[y][x] = source.row(row[y])[mirror(left + x, width)];
  });
}

}  // namespace cinelumen
