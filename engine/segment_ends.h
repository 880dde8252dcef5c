#pragma once
/// How the segments of a run hang together.

#include <array>
#include <vector>

#include "engine/analysis.h"

namespace cinelumen {

/// Index of the branch point at each segment's first and last point; -1: none. Crossings join nothing.
std::vector<std::array<int, 2>> segment_ends(const Analysis& analysis);

/// Whether a point lies so near the image's edge that its vessel goes on beyond it.
bool leaves_image(const Analysis& analysis, const CentrelinePoint& point);

}  // namespace cinelumen
