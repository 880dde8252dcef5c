#pragma once
/// Where the contrast of a run goes in a foot: to the arch, and past it (methods.md 8).

#include <optional>
#include <vector>

#include "engine/segment_measurement.h"
#include "engine/segment_names.h"

namespace cinelumen {

/// How contrast passes through each segment, by index: from arrivals in stretches of it. Entries are empty where frame times are not known
/// or the delay is not twice its SD.
std::vector<std::optional<SegmentTransit>> measure_transits(const SegmentMeasurements& measurements, const Analysis& analysis);

/// Fills arch, steal and early venous return of analysis.flow from names and transits; what can't be told stays empty.
///
/// Steal: 1 - (what goes on to the arch, through either plantar vein two thirds of the way there / what enters the image), also where the
/// arch has no name because contrast does not meet in its middle, as with steal. Contrast is conserved: what passes a place is what there
/// is per length of picture, times how fast it moves in the picture. Both are shortened alike where a vessel runs towards the beam, so that
/// no angle need be known. Its SD holds that of the arrivals and 8 % for each amount; nothing is given where it exceeds 0.15.
///
/// Early venous return: collaterals that lead back out of the image, where it was filled from, before the arch fills.
void summarize_foot_flow(const FootPath& path, const std::vector<std::optional<SegmentTransit>>& transits, Analysis& analysis);

}  // namespace cinelumen
