#include "engine/segment_ends.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace cinelumen {

std::vector<std::array<int, 2>> segment_ends(const Analysis& analysis) {
  std::vector<std::vector<int>> branches(analysis.segments.size());
  for (std::size_t b = 0; b < analysis.branch_points.size(); ++b)
    if (!analysis.branch_points[b].crossing)
      for (const int s : analysis.branch_points[b].segments) branches[static_cast<std::size_t>(s)].push_back(static_cast<int>(b));
  std::vector<std::array<int, 2>> ends(analysis.segments.size(), {-1, -1});
  for (std::size_t s = 0; s < ends.size(); ++s) {
    const std::vector<CentrelinePoint>& points = analysis.segments[s].centreline.points;
    if (points.size() < 2) continue;
    const auto away = [&](int branch, const CentrelinePoint& p) {
      const BranchPoint& at = analysis.branch_points[static_cast<std::size_t>(branch)];
      return std::hypot(p.y - at.y, p.x - at.x);
    };
    // A short or bent segment may have both nearer to one end: each end has its own.
    double least = std::numeric_limits<double>::infinity();
    for (const int front : branches[s])
      for (const int back : branches[s])
        if (front != back && away(front, points.front()) + away(back, points.back()) < least) {
          least = away(front, points.front()) + away(back, points.back());
          ends[s] = {front, back};
        }
    if (branches[s].size() == 1) {
      const int only = branches[s].front();
      ends[s][away(only, points.front()) < away(only, points.back()) ? 0 : 1] = only;
    }
  }
  return ends;
}

std::array<double, 2> direction_from_end(const Centreline& centreline, std::size_t end, std::size_t reach) {
  const std::vector<CentrelinePoint>& points = centreline.points;
  const std::size_t steps = std::min(reach, points.size() - 1);
  const CentrelinePoint &from = end == 0 ? points.front() : points.back(), &to = points[end == 0 ? steps : points.size() - 1 - steps];
  const double dy = to.y - from.y, dx = to.x - from.x, length = std::max(1e-9, std::hypot(dy, dx));
  return {dy / length, dx / length};
}

bool leaves_image(const Analysis& analysis, const CentrelinePoint& point) {
  // A vessel that ends this near to the image's edge goes on beyond it; a wide one is traced less far.
  const float edge_px = 10 + point.radius_px;
  return point.y < edge_px || point.x < edge_px || point.y > static_cast<float>(analysis.rows) - 1 - edge_px ||
         point.x > static_cast<float>(analysis.columns) - 1 - edge_px;
}

}  // namespace cinelumen
