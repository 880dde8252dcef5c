#include "engine/segment_ends.h"

#include <cmath>
#include <cstddef>

namespace cinelumen {

std::vector<std::array<int, 2>> segment_ends(const Analysis& analysis) {
  std::vector<std::array<int, 2>> ends(analysis.segments.size(), {-1, -1});
  for (std::size_t b = 0; b < analysis.branch_points.size(); ++b) {
    const BranchPoint& branch = analysis.branch_points[b];
    if (branch.crossing) continue;
    for (const int s : branch.segments) {
      const std::vector<CentrelinePoint>& points = analysis.segments[s].centreline.points;
      if (points.size() < 2) continue;
      const auto away = [&](const CentrelinePoint& p) { return std::hypot(p.y - branch.y, p.x - branch.x); };
      ends[s][away(points.front()) < away(points.back()) ? 0 : 1] = static_cast<int>(b);
    }
  }
  return ends;
}

bool leaves_image(const Analysis& analysis, const CentrelinePoint& point) {
  constexpr float edge_px = 12;  // a vessel that ends this near to the image's edge goes on beyond it
  return point.y < edge_px || point.x < edge_px || point.y > static_cast<float>(analysis.rows) - 1 - edge_px ||
         point.x > static_cast<float>(analysis.columns) - 1 - edge_px;
}

}  // namespace cinelumen
