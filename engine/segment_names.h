#pragma once
/// What a segment is called, where the picture alone tells.

#include <optional>
#include <string>
#include <vector>

#include "engine/analysis.h"

namespace cinelumen {

/// How contrast passes through a segment, in the picture.
struct SegmentTransit {
  double slowness_s_px = 0, sd_s_px = 0;  ///< s per px along the arc length; < 0: towards the first point
};

/// The way of the contrast through a foot, as far as it could be told. Indices of segments.
struct FootPath {
  std::vector<int> main;                      ///< from the image's edge on
  std::vector<int> loop;                      ///< from where the main vein forks, through the arch, back to there; empty: not told
  bool arch_known = false;                    ///< contrast meets near the loop's middle: what lies there is the arch
  std::size_t arch_first = 0, arch_last = 0;  ///< of the loop: the arch, where it is known
};

/// Gives segments their role and name where flow, calibre and the graph leave no doubt, in pictures of a leg or foot (`body_part`: DICOM
/// Body Part Examined). A wrong name is worse than none: all others keep "segment N" and no role.
///
/// main: the path that begins at the image's edge where contrast comes first, the widest vessel there is, and on through every branching
/// whose other branches are clearly thinner or turn back, to where it divides into two of like calibre. In a foot: plantar: what leads on
/// from there both ways, arch: where the two meet again; given only if contrast runs down both, later and later, until they meet. A branch
/// that is nearly as wide and leads nowhere near them is passed by. collateral: what was filled from these and leads out of the image again
/// where they came in; given where `transits` (by segment; empty: not known) show that contrast runs that way. Needs arrival times and
/// diameters.
FootPath name_segments(Analysis& analysis, const std::string& body_part, const std::vector<std::optional<SegmentTransit>>& transits = {});

}  // namespace cinelumen
