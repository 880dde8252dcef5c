#pragma once
/// What tile kernels read a frame from: a plane of attenuation, or stored values through their table.

#include "log_attenuation.h"
#include "math.h"

namespace cinelumen {

/// Attenuation as a plane.
struct PlaneSource {
  ImageView<const float> image;
  CINELUMEN_HOST_DEVICE int height() const { return image.height; }
  CINELUMEN_HOST_DEVICE int width() const { return image.width; }
  CINELUMEN_HOST_DEVICE const float* row(int y) const { return image.row(y); }
};

/// Attenuation looked up in a table as it is read.
struct StoredSource {
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

/// target[y][x] = source(top + y, left + x) for 0 <= y < rows, 0 <= x < columns, mirrored about the border pixels; `row`: scratch for
/// `rows` indices. Ends with the barrier. On the CPU only the few columns beyond the border are fetched one by one.
template <class Block, class Source, class Target>
CINELUMEN_HOST_DEVICE void load_mirrored(const Block& block, const Source& source, int top, int left, int rows, int columns, int* row,
                                         Target& target) {
  const int height = source.height(), width = source.width();
  if (top >= 0 && left >= 0 && top + rows <= height && left + columns <= width) {
    block.for_each_pixel(rows, columns, [&](int y, int x) { target[y][x] = source.row(top + y)[left + x]; });
    return;
  }
  block.for_each_pixel(1, rows, [&](int, int y) { row[y] = mirror(top + y, height); });
  const int first = clamp_int(-left, 0, columns), last = clamp_int(width - left, first, columns), outside = first + columns - last;
  block.for_each_pixel(rows, last - first, [&](int y, int x) { target[y][first + x] = source.row(row[y])[left + first + x]; });
  block.for_each_pixel(rows, outside, [&](int y, int i) {
    const int x = i < first ? i : last + i - first;
    target[y][x] = source.row(row[y])[mirror(left + x, width)];
  });
}

}  // namespace cinelumen
