#pragma once
/// Known lines found again on the ridges of another frame: placed, searched across, followed along, moved (methods.md 6).
/// Lines stand in one row of points; line s is points first[s] ... first[s + 1] - 1, about 1 px apart. All memory is the stream's. Nothing
/// here waits, allocates or decides on the host.

#include <cstdint>

#include "displacement_field.h"
#include "image.h"
#include "ridge_points.h"
#include "rigid_motion.h"
#include "stream.h"

namespace cinelumen {

/// placed[i] = where `lines[i]` of the mask lies in a frame of that size. placement: one element. May alias.
void place_lines(const Stream& stream, ArrayView<const CrossSection> lines, ArrayView<const FramePlacement> placement, int height,
                 int width, ArrayView<CrossSection> placed, const DisplacementField& field = {});

/// How far and how strictly ridges are looked for.
struct RidgePathOptions {
  float search_px = 3;  ///< on either side, > 0
  float minimum_z = 3;  ///< a ridge needs this much
  float stiffness = 1;  ///< cost of a sideways step of 1 px per point, in units of the line's usual z; none is larger
};

/// Where ridges are looked for.
struct RidgeImage {
  ImageView<const float> values;      ///< z, or where per_scale z / scale_px
  ImageView<const float> scale_px{};  ///< of the same size: maxima are of z / scale_px; no data: of z
  bool per_scale = false;
  float pixel_px = 1;  ///< size of its pixels, px of the lines: (i, j) lies at pixel_px (i, j); > 0
};

/// What find_ridge_paths needs beside its arguments, for lines of one layout; made once.
class RidgePathScratch {
 public:
  RidgePathScratch() = default;
  /// first: host memory.
  RidgePathScratch(const Stream& stream, ArrayView<const int> first);
  int lines() const { return first_row_.size() > 0 ? first_row_.size() - 1 : 0; }

 private:
  friend void find_ridge_paths(const Stream&, const RidgeImage&, ArrayView<const int>, ArrayView<const CrossSection>,
                               const RidgePathOptions&, RidgePathScratch&, ArrayView<CrossPeak>);
  Array<int> first_row_, point_of_row_, line_of_row_;  // every second point of each line
  Image<float> samples_;
  Image<std::int8_t> moves_;
  Array<float> highest_, rough_;
};

/// For each point the ridge across its line: peaks, one per point, their value z. Every second point's line is searched px by px (24 on
/// either side at most); the path of offsets along the line that gathers most z at least bending is found by dynamic programming, and the
/// nearest maximum to it by locate_peaks_across; points between take the mean of their neighbours. found: at a maximum with z above
/// minimum_z. Lines do not depend on one another.
/// Throws std::invalid_argument where sizes differ, or search_px or pixel_px is not positive.
void find_ridge_paths(const Stream& stream, const RidgeImage& image, ArrayView<const int> first, ArrayView<const CrossSection> lines,
                      const RidgePathOptions& options, RidgePathScratch& scratch, ArrayView<CrossPeak> peaks);

/// Takes `found` from single peaks that lie far from what their neighbours along the line found. list: one element per point.
void reject_lone_peaks(const Stream& stream, ArrayView<const int> first, ArrayView<CrossPeak> peaks, ArrayView<int> list);

/// Moves points onto their peaks where found; the others take their neighbours' offsets, interpolated along the line. Each by the mean
/// over three points on either side. Normals are turned accordingly. A line with less than least_share of its points found stays, found[s]
/// = 0; otherwise 1. list, rank, offsets: scratch, one element per point; moved may not alias.
void move_to_peaks(const Stream& stream, ArrayView<const int> first, ArrayView<const CrossSection> lines, ArrayView<const CrossPeak> peaks,
                   float least_share, ArrayView<int> list, ArrayView<int> rank, ArrayView<float> offsets, ArrayView<CrossSection> moved,
                   ArrayView<std::int32_t> found);

}  // namespace cinelumen
