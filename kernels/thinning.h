#pragma once
/// Masks to lines one pixel wide (methods.md 4).

#include <cstdint>

#include "bit_rows.h"
#include "image.h"
#include "stream.h"

namespace cinelumen {

/// Parallel thinning with two sub-iterations, until nothing changes: Guo and Hall, "Parallel thinning with two-subiteration algorithms",
/// CACM 32 (1989), algorithm A1. Keeps the number of 8-connected components and of 4-connected holes. Outside the image is background.
/// Owns the memory it needs for images up to the given size; one object serves one stream and one call at a time.
class Thinning {
 public:
  /// Allocates for images of this size, on the stream's device.
  Thinning(const Stream& stream, int height, int width);
  /// skeleton(y, x) = 1 on the lines, else 0, from mask (nonzero = set), both height x width in the stream's memory; they may be the
  /// same. Waits for a CUDA stream (it asks whether the last pass changed anything).
  /// Throws std::invalid_argument where the sizes are not those of the constructor.
  void thin(ImageView<const std::uint8_t> mask, ImageView<std::uint8_t> skeleton);

 private:
  Stream stream_;
  int height_, width_;
  Image<BitWord> bits_[2];
  Array<int> changed_[2], changed_host_;
};

}  // namespace cinelumen
