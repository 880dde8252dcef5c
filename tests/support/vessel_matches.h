#pragma once
/// Compares the matching of two analysed runs of one phantom patient with their truths.

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "engine/vessel_matching.h"
#include "support/matching.h"

namespace cinelumen::test {

/// How vessels of two runs were matched. Edges are the reference's segments of which 10 points at least exist and were traced in the run.
struct MatchingFigures {
  int edges = 0, matched_edges = 0;     ///< matched: half of those points and more lie on the right vessel
  long points = 0, matched_points = 0;  ///< points that exist and were traced in both runs
  long given = 0, wrong = 0;            ///< matches given, and those that lie on another vessel, beyond its lumen's edge by 1 px
  std::vector<double> place_errors_mm;  ///< of right matches: along the vessel

  double rms_mm() const {
    double squares = 0;
    for (const double e : place_errors_mm) squares += e * e;
    return place_errors_mm.empty() ? 0 : std::sqrt(squares / static_cast<double>(place_errors_mm.size()));
  }
  /// That `share` of the errors' sizes do not exceed.
  double quantile_mm(double share) const {
    std::vector<double> sizes;
    for (const double e : place_errors_mm) sizes.push_back(std::abs(e));
    std::sort(sizes.begin(), sizes.end());
    return sizes.empty() ? 0 : sizes[static_cast<std::size_t>(share * static_cast<double>(sizes.size() - 1))];
  }
  void add(const MatchingFigures& other) {
    edges += other.edges;
    matched_edges += other.matched_edges;
    points += other.points;
    matched_points += other.matched_points;
    given += other.given;
    wrong += other.wrong;
    place_errors_mm.insert(place_errors_mm.end(), other.place_errors_mm.begin(), other.place_errors_mm.end());
  }
};

/// A traced point's true vessel and place along it.
struct TracedPlace {
  const PhantomSegment* segment = nullptr;  ///< null: none within 2.5 px
  double place_mm = 0;
};

/// Those of an analysis, per segment and point.
inline std::vector<std::vector<TracedPlace>> traced_places(const Analysis& analysis, const PhantomTruth& truth) {
  constexpr double near_px = 2.5;
  const TruthMap map(truth);
  std::vector<std::vector<TracedPlace>> places;
  for (const SegmentResult& segment : analysis.segments) {
    places.emplace_back();
    for (const CentrelinePoint& point : segment.centreline.points) {
      const PixelPosition p = move_truth_back(truth, analysis.subtraction.reference_frame, {point.y, point.x});
      const TruthMatch match = map.nearest(p);
      TracedPlace place;
      if (match.segment && match.distance_px <= near_px) {
        const auto& points = match.segment->points;
        const PhantomPoint &q = points[match.point], &a = points[std::max(0, match.point - 1)],
                           &b = points[std::min(static_cast<int>(points.size()) - 1, match.point + 1)];
        const double length2 = std::pow(b.y_px - a.y_px, 2) + std::pow(b.x_px - a.x_px, 2);
        const double along = length2 > 0 ? ((p.y - q.y_px) * (b.y_px - a.y_px) + (p.x - q.x_px) * (b.x_px - a.x_px)) / length2 : 0;
        place = {match.segment, q.place_mm + along * (b.place_mm - a.place_mm)};
      }
      places.back().push_back(place);
    }
  }
  return places;
}

/// Figures of one pair of runs; their truths name the same vessels alike.
inline MatchingFigures compare_matching(const Analysis& reference, const PhantomTruth& reference_truth, const Analysis& run,
                                        const PhantomTruth& run_truth, const VesselMatching& matching) {
  constexpr double traced_mm = 0.5;    // a place counts as traced where a traced point lies so near
  constexpr double beside_px = 1;      // of the lumen's edge: what lies further off is another vessel
  constexpr double same_place_mm = 5;  // farther off it is no error of arc length any more
  const auto here = traced_places(reference, reference_truth), there = traced_places(run, run_truth);
  std::map<std::string, std::vector<double>> traced;
  for (const auto& places : there)
    for (const TracedPlace& place : places)
      if (place.segment) traced[place.segment->name].push_back(place.place_mm);
  for (auto& [name, places] : traced) std::sort(places.begin(), places.end());
  const auto is_traced = [&](const TracedPlace& place) {
    const auto& places = traced[place.segment->name];
    const auto above = std::lower_bound(places.begin(), places.end(), place.place_mm - traced_mm);
    return above != places.end() && *above <= place.place_mm + traced_mm;
  };
  // Whether a point of the run lies within another vessel of the run's truth.
  const auto within = [&](const std::string& name, const CentrelinePoint& point) {
    const PixelPosition p = move_truth_back(run_truth, run.subtraction.reference_frame, {point.y, point.x});
    for (const PhantomSegment& segment : run_truth.segments)
      if (segment.name == name)
        for (const PhantomPoint& q : segment.points)
          if (std::hypot(q.y_px - p.y, q.x_px - p.x) <= q.radius_px + beside_px) return true;
    return false;
  };
  MatchingFigures figures;
  for (std::size_t s = 0; s < here.size(); ++s) {
    int possible = 0, found = 0;
    for (std::size_t k = 0; k < here[s].size(); ++k) {
      const TracedPlace& place = here[s][k];
      if (!place.segment) continue;
      const bool exists = is_traced(place);
      possible += exists;
      const PointMatch& match = matching.points[s][k];
      if (!match.matched()) continue;
      ++figures.given;
      const auto& targets = there[match.segment];
      const int i = std::min(static_cast<int>(match.point), static_cast<int>(targets.size()) - 2);
      const TracedPlace &a = targets[i], &b = targets[i + 1];
      const bool same = a.segment && b.segment == a.segment && a.segment->name == place.segment->name;
      const double error = same ? a.place_mm + (match.point - i) * (b.place_mm - a.place_mm) - place.place_mm : 0;
      const bool right = (same && std::abs(error) < same_place_mm) || !a.segment ||
                         (!same && within(place.segment->name, run.segments[match.segment].centreline.points[i]));
      if (!right) ++figures.wrong;
      if (right && same) figures.place_errors_mm.push_back(error);
      found += exists && right;
    }
    figures.points += possible;
    figures.matched_points += found;
    constexpr int enough = 10;
    if (possible < enough) continue;
    ++figures.edges;
    figures.matched_edges += 2 * found >= possible;
  }
  return figures;
}

}  // namespace cinelumen::test
