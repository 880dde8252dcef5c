#pragma once
/// Straight vessels as an analysis has them, without a picture behind: for what is decided from profiles alone.

#include <cmath>
#include <functional>
#include <vector>

#include "engine/analysis.h"
#include "engine/vessel_matching.h"

namespace cinelumen::test {

constexpr double straight_mm_per_px = 0.25;

/// Diameter in px at a point, by its distance along the segment in px; 0: not measured there.
using DiameterAlong = std::function<double(double)>;

/// A vessel along y from x0 to x1, a point a pixel.
inline SegmentResult straight_segment(int id, double y, double x0, double x1, const DiameterAlong& diameter) {
  SegmentResult segment;
  segment.id = id;
  for (double x = x0; x <= x1; ++x) {
    CentrelinePoint point;
    point.y = static_cast<float>(y);
    point.x = static_cast<float>(x);
    point.arc_length_px = static_cast<float>(x - x0);
    point.tangent_y = 0;
    point.tangent_x = 1;
    point.radius_px = 4;
    segment.centreline.points.push_back(point);
    DiameterProfile::Point measured;
    measured.arc_length_px = point.arc_length_px;
    measured.y_px = point.y;
    measured.x_px = point.x;
    measured.diameter_px = static_cast<float>(diameter(x - x0));
    measured.sd_px = measured.diameter_px > 0 ? 0.05F : 0;
    measured.own_kappa = true;
    measured.area_ratio = 1;
    measured.frames = 10;
    segment.profile.points.push_back(measured);
    segment.gates.push_back(measured.diameter_px > 0 ? FillingGate::passed : FillingGate::unmeasured);
  }
  segment.flow.times.arrival_ms = 500;
  return segment;
}

/// An analysis with these segments, calibrated, 5 s long.
inline Analysis straight_analysis(std::vector<SegmentResult> segments) {
  Analysis analysis;
  analysis.rows = 120;
  analysis.columns = 200;
  analysis.calibration.source = CalibrationSource::user;
  analysis.calibration.mm_per_px = straight_mm_per_px;
  analysis.segments = std::move(segments);
  for (int f = 0; f < 50; ++f) analysis.frame_times_ms.push_back(100.0 * f);
  return analysis;
}

/// Every point of the reference that a run's segment on the same row has too.
inline VesselMatching match_rows(const Analysis& reference, const Analysis& run) {
  VesselMatching matching;
  for (const SegmentResult& segment : reference.segments) {
    auto& points = matching.points.emplace_back();
    int last = -1;
    for (const CentrelinePoint& point : segment.centreline.points) {
      PointMatch match;
      for (std::size_t s = 0; s < run.segments.size(); ++s) {
        const auto& there = run.segments[s].centreline.points;
        if (there.front().y == point.y && point.x >= there.front().x && point.x <= there.back().x)
          match = {static_cast<int>(s), point.x - there.front().x, 0};
      }
      if (match.segment >= 0) last = match.segment;
      points.push_back(match);
    }
    matching.segment.push_back(last);
    matching.matched_share.push_back(1);
  }
  matching.registration.reliable = true;
  return matching;
}

}  // namespace cinelumen::test
