#pragma once
/// How the segments of a run hang together.

#include <array>
#include <cstddef>
#include <vector>

#include "engine/analysis.h"

namespace cinelumen {

/// Index of the branch point at each segment's first and last point; -1: none. Crossings join nothing.
std::vector<std::array<int, 2>> segment_ends(const Analysis& analysis);

/// Unit vector (y, x) along a centreline away from its first (end 0) or last point (end 1), over its first `reach` points there. Two points
/// or more.
std::array<double, 2> direction_from_end(const Centreline& centreline, std::size_t end, std::size_t reach);

/// Whether a point lies so near the image's edge that its vessel goes on beyond it.
bool leaves_image(const Analysis& analysis, const CentrelinePoint& point);

}  // namespace cinelumen
