#pragma once
/// The same vessels in two runs: where each point of one run's centrelines lies on the other's (methods.md 6).

#include <vector>

#include "engine/analysis.h"
#include "engine/run_registration.h"

namespace cinelumen {

/// Where a point of the reference's vessel lies on the other run's.
struct PointMatch {
  int segment = -1;        ///< index into the run's segments; -1: it has none
  double point = -1;       ///< fractional index of that segment's centreline point; -1: none
  double distance_px = 0;  ///< from where the refined registration puts it, run px; 0 where there is none
  bool matched() const { return segment >= 0; }
};

/// Which vessels of two runs are the same.
struct VesselMatching {
  std::vector<std::vector<PointMatch>> points;  ///< [reference segment][its centreline point]; monotone along each run segment
  std::vector<int> segment;                     ///< per reference segment: the run's segment that most of its points lie on; -1: none
  std::vector<double> matched_share;            ///< per reference segment: of its points, 0 to 1
  std::vector<int> unmatched_in_run;  ///< the run's segments that no reference segment explains: a new channel, a collateral, other filling
  RunRegistration registration;       ///< as refined on the vessels: it holds at their depth
};

/// What is taken for the same vessel. Lengths are mm in the reference's plane of calibration.
struct VesselMatchingOptions {
  double mm_per_px = 0.2;         ///< of the reference, > 0; where it is not known, about what angiography has
  double search_mm = 3;           ///< how far vessels may lie from where bone puts them: a tilt moves what lies at another depth
  double final_mm = 1.2;          ///< the same once the registration was refined on the vessels
  double largest_angle_deg = 35;  ///< between the directions of the two
  double least_length_mm = 3;     ///< of a matched piece: shorter ones are chance
  double explained_share = 0.3;   ///< of a run's segment: less is not explained by the reference
};

/// Matches vessels point by point, since the same vein is cut at other branch points in other runs. The reference's centrelines are taken
/// into the run by the registration; along each the most likely monotone course over the run's points is found, or none (null matches:
/// occluded, not filled, hidden, or new). No point of the run is given to two vessels; the registration is then refined on what matched, as
/// a smooth displacement, and it is done again within closer bounds. Where arc length is left open along a straight vessel, matched branch
/// points settle it. With a registration that is not reliable nothing is matched. Deterministic; one thread.
/// Throws std::invalid_argument where options are not positive.
VesselMatching match_vessels(const std::vector<SegmentResult>& reference, const std::vector<SegmentResult>& run,
                             const RunRegistration& registration, const VesselMatchingOptions& options = {});

}  // namespace cinelumen
