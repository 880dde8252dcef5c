#pragma once
/// Compares the graph of an analysis with a phantom's truth: crossings, bifurcations, names.

#include <numbers>
#include <set>
#include <string>

#include "support/matching.h"

namespace cinelumen::test {

/// Crossings and bifurcations of the truth, and what the graph makes of them.
struct GraphFigures {
  int true_crossings = 0, found_crossings = 0;        ///< of two vessels as wide as asked
  int false_crossings = 0;                            ///< told where no two vessels cross
  int true_bifurcations = 0, found_bifurcations = 0;  ///< of vessels as wide as asked
  std::vector<std::string> missed;                    ///< in words
};

/// True crossings are those of which both vessels go on for 10 px beside the other, filled, without a branching there. One is found where
/// the graph has one of segments that are the two vessels', and no branch point there joins the two. A bifurcation is found where the graph
/// has a branch point that is no crossing. `minimum_diameter_mm`: of the thinner vessel, there.
class GraphComparison {
 public:
  GraphComparison(const Analysis& analysis, const PhantomTruth& truth) : analysis_(analysis), truth_(truth), map_(truth) {
    for (const SegmentResult& segment : analysis.segments) {
      std::map<int, int> of;
      for (const CentrelinePoint& point : segment.centreline.points) {
        const TruthMatch match = map_.nearest(in_truth(point.y, point.x));
        if (match.segment && match.distance_px <= 2) ++of[match.segment->id];
      }
      truths_.push_back(std::move(of));
    }
  }

  GraphFigures figures(double minimum_diameter_mm) const {
    GraphFigures figures;
    for (const PhantomCrossing& crossing : truth_.crossings) {
      const PhantomPoint *a = point_of(crossing.segments[0], crossing.y_px, crossing.x_px),
                         *b = point_of(crossing.segments[1], crossing.y_px, crossing.x_px);
      if (!inside(crossing.y_px, crossing.x_px) || !wide(a, minimum_diameter_mm) || !wide(b, minimum_diameter_mm)) continue;
      if (!goes_on(crossing, 0) || !goes_on(crossing, 1)) continue;
      ++figures.true_crossings;
      const double reach = reach_px(crossing);
      bool found = false, joined = false;
      for (const BranchPoint& branch : analysis_.branch_points) {
        if (!near(branch, crossing.y_px, crossing.x_px, reach)) continue;
        bool of_a = false, of_b = false;
        for (const int segment : branch.segments) {
          of_a = of_a || truths_[segment].contains(crossing.segments[0]);
          of_b = of_b || truths_[segment].contains(crossing.segments[1]);
        }
        if (!of_a || !of_b) continue;
        if (branch.crossing)
          found = true;
        else
          joined = !near_node(branch);
      }
      if (found && !joined)
        ++figures.found_crossings;
      else
        figures.missed.push_back(
            "crossing " + std::to_string(crossing.segments[0]) + " x " + std::to_string(crossing.segments[1]) + " at (" +
            std::to_string(static_cast<int>(crossing.y_px)) + ", " + std::to_string(static_cast<int>(crossing.x_px)) + "), " +
            std::to_string(static_cast<int>(crossing.angle_deg)) + " degrees, " + std::to_string(a->diameter_calibration_mm) + " and " +
            std::to_string(b->diameter_calibration_mm) + " mm" + (joined ? ": joined" : ": not found"));
    }
    for (const BranchPoint& branch : analysis_.branch_points) {
      if (!branch.crossing) continue;
      if (std::none_of(truth_.crossings.begin(), truth_.crossings.end(),
                       [&](const PhantomCrossing& c) { return near(branch, c.y_px, c.x_px, reach_px(c)); })) {
        ++figures.false_crossings;
        figures.missed.push_back("no crossing at (" + std::to_string(static_cast<int>(branch.y)) + ", " +
                                 std::to_string(static_cast<int>(branch.x)) + ")");
      }
    }
    for (const PhantomNode& node : truth_.nodes) {
      int arms = 0;
      double widest = 0;
      for (const int s : node.segments) {
        const PhantomPoint* point = point_of(truth_.segments[s].id, node.y_px, node.x_px);
        arms += wide(point, minimum_diameter_mm);
        if (point) widest = std::max(widest, point->radius_px);
      }
      if (arms < 3 || !inside(node.y_px, node.x_px)) continue;
      ++figures.true_bifurcations;
      const bool found = std::any_of(analysis_.branch_points.begin(), analysis_.branch_points.end(), [&](const BranchPoint& branch) {
        return !branch.crossing && branch.segments.size() >= 2 && near(branch, node.y_px, node.x_px, 3 * widest + 6);
      });
      figures.found_bifurcations += found;
      if (!found)
        figures.missed.push_back("bifurcation " + node.name + " at (" + std::to_string(static_cast<int>(node.y_px)) + ", " +
                                 std::to_string(static_cast<int>(node.x_px)) + ")");
    }
    return figures;
  }

  /// Points of each true segment (id) that a traced segment (index) runs along.
  const std::map<int, int>& truths_of(std::size_t segment) const { return truths_[segment]; }

 private:
  PixelPosition in_truth(double y, double x) const {
    return move_truth_back(truth_, analysis_.subtraction.reference_frame, {static_cast<float>(y), static_cast<float>(x)});
  }
  bool inside(double y, double x) const { return y >= 16 && x >= 16 && y <= truth_.options.rows - 17 && x <= truth_.options.columns - 17; }
  const PhantomPoint* point_of(int id, double y, double x) const {
    const PhantomPoint* best = nullptr;
    double least = 12;
    for (const PhantomSegment& segment : truth_.segments) {
      if (segment.id != id) continue;
      for (std::size_t i = 0; i < segment.points.size(); ++i) {
        const double d = std::hypot(segment.points[i].y_px - y, segment.points[i].x_px - x);
        if (d >= least || largest_filling(segment, static_cast<int>(i)) < 0.5f) continue;
        least = d;
        best = &segment.points[i];
      }
    }
    return best;
  }
  // Whether one of two crossing vessels is seen on both sides of the other: filled there, and neither an end of it nor a branching near.
  bool goes_on(const PhantomCrossing& crossing, int side) const {
    for (const PhantomSegment& segment : truth_.segments) {
      if (segment.id != crossing.segments[side]) continue;
      const int count = static_cast<int>(segment.points.size());
      int at = 0;
      double least = 1e9;
      for (int i = 0; i < count; ++i)
        if (const double d = std::hypot(segment.points[i].y_px - crossing.y_px, segment.points[i].x_px - crossing.x_px); d < least) {
          least = d;
          at = i;
        }
      const int reach = static_cast<int>(reach_px(crossing));
      for (const PhantomNode& node : truth_.nodes)
        if (node.segments.size() >= 3 && std::hypot(node.y_px - crossing.y_px, node.x_px - crossing.x_px) < reach + 6) return false;
      constexpr int seen = 10;  // px beyond the crossing
      for (const int way : {-1, 1})
        for (int k = reach; k < reach + seen; ++k) {
          const int i = at + way * k;
          if (i < 0 || i >= count || largest_filling(segment, i) < 0.5f) return false;
        }
    }
    return true;
  }
  static bool wide(const PhantomPoint* point, double minimum_mm) { return point && point->diameter_calibration_mm >= minimum_mm; }
  double reach_px(const PhantomCrossing& crossing) const {
    const PhantomPoint *a = point_of(crossing.segments[0], crossing.y_px, crossing.x_px),
                       *b = point_of(crossing.segments[1], crossing.y_px, crossing.x_px);
    const double radii = (a ? a->radius_px : 0) + (b ? b->radius_px : 0);
    return 4 + radii / std::max(0.2, std::sin(crossing.angle_deg * std::numbers::pi / 180));
  }
  bool near(const BranchPoint& branch, double y, double x, double reach) const {
    const PixelPosition p = in_truth(branch.y, branch.x);
    return std::hypot(p.y - y, p.x - x) <= reach;
  }
  bool near_node(const BranchPoint& branch) const {
    return std::any_of(truth_.nodes.begin(), truth_.nodes.end(),
                       [&](const PhantomNode& node) { return node.segments.size() >= 3 && near(branch, node.y_px, node.x_px, 12); });
  }

  const Analysis& analysis_;
  const PhantomTruth& truth_;
  const TruthMap map_;
  std::vector<std::map<int, int>> truths_;
};

}  // namespace cinelumen::test
