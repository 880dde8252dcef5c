#pragma once
/// The lumen's area by densitometry, beside that of a round lumen of the fitted diameter (methods.md 5).

#include <vector>

#include "engine/diameter_profile.h"

namespace cinelumen {

/// Sets area_px2 and area_disagrees of one frame's used points, by segment. A = integral p dx / kappa: what the fitted profile integrates
/// to, over the kappa of the vessel, which is the median over the segment's points wide enough to tell theirs (five at least), else over
/// such segments of the frame. Only ratios of kappa enter. Nothing is set where no such points are.
void add_areas(std::vector<std::vector<LumenPoint>>& segments);

}  // namespace cinelumen
