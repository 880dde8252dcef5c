#pragma once
/// Double threshold and connected components (methods.md 4).

#include <cstdint>

#include "bit_rows.h"
#include "image.h"
#include "stream.h"

namespace cinelumen {

/// The two thresholds, and how large a component must be to be kept.
struct HysteresisOptions {
  float low = 2.75f, high = 5;   ///< a component of z >= low is kept if it contains a pixel of z >= high
  int minimum_area_px = 30;      ///< smaller components are dropped
  float minimum_length_px = 10;  ///< so are those whose bounding box has a shorter diagonal
};

/// A second image that must reach its own thresholds wherever z does; none where `image` is empty.
struct SecondGate {
  ImageView<const float> image;
  float low = 0, high = 0;
};

/// Components of masks by union-find over runs: the set pixels of one 64-pixel word that touch are one item, items of neighbouring rows
/// and words are united towards the smaller number with integer atomics. The result does not depend on the order of the work:
/// labels are 1, 2, ... in raster order of each component's first pixel.
/// Owns the memory it needs for images of one size; one object serves one stream and one call at a time. All images are in the
/// stream's memory; calls wait for a CUDA stream (they ask how many runs there are).
/// All throw std::invalid_argument where a size is not that of the constructor.
class Hysteresis {
 public:
  /// Allocates for images of this size, on the stream's device.
  Hysteresis(const Stream& stream, int height, int width);

  /// Double threshold on z and 8-connected components. mask = 1 on kept components, else 0; labels (may be empty) as above, 0 elsewhere.
  /// Pixels with valid == 0 are never set (an empty `valid`: all may be); NaN is below any threshold. With a second gate
  /// a pixel is above a threshold where both images are. Returns the number kept.
  int segment(ImageView<const float> z, ImageView<const std::uint8_t> valid, const HysteresisOptions& options, ImageView<std::uint8_t> mask,
              ImageView<int> labels = {}, const SecondGate& second = {});

  /// 8-connected components of the nonzero pixels of mask, all of them. Returns their number.
  int label(ImageView<const std::uint8_t> mask, ImageView<int> labels);

  /// Sets the holes of mask with at most `maximum_area_px` pixels: 4-connected components of zero pixels that do not touch the image's
  /// border. filled = 1 on mask and filled holes, else 0; it may be mask itself. Returns the number of holes filled.
  int fill_holes(ImageView<const std::uint8_t> mask, int maximum_area_px, ImageView<std::uint8_t> filled);

 private:
  struct Selection;
  int select_components(ImageView<const BitWord> bits, const Selection& selection, ImageView<BitWord> kept, ImageView<int> labels);

  Stream stream_;
  int height_, width_;
  Image<BitWord> low_, high_, kept_;
  Array<int> run_offsets_;                                            // per word: number of its first run; one more element holds the total
  Array<int> parents_, roots_, starts_;                               // per run
  Array<int> areas_, has_high_, bottoms_, lefts_, rights_, numbers_;  // per run, used at roots
  Array<int> last_;                                                   // staging for one number
};

}  // namespace cinelumen
