#pragma once
/// What a segment is called, where the picture alone tells.

#include <string>

#include "engine/analysis.h"

namespace cinelumen {

/// Gives segments their role and name where flow, calibre and the graph leave no doubt, in pictures of a leg or foot (`body_part`: DICOM
/// Body Part Examined). A wrong name is worse than none: all others keep "segment N" and no role.
///
/// main: the path that begins at the image's edge where contrast comes first, the widest vessel there is, and on through every branching
/// whose other branches are clearly thinner or turn back, to where it divides into two of like calibre. In a foot: plantar: what leads on
/// from there both ways, arch: where the two meet again; given only if contrast runs down both, later and later, until they meet. Needs
/// arrival times and diameters.
void name_segments(Analysis& analysis, const std::string& body_part);

}  // namespace cinelumen
