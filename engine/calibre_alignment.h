#pragma once
/// Calibres of two runs brought to the same places of the same vessels.

#include <vector>

#include "engine/analysis.h"
#include "engine/vessel_matching.h"

namespace cinelumen {

/// What counts as measured, and what of the reference is a lesion of its own.
struct AlignmentOptions {
  double bridge_mm = 10;       ///< narrowings of the reference shorter than this are bridged: calibre is compared with that either side
  double bridge_percent = 15;  ///< ... if deeper than this
  double reach_mm = 5;         ///< beyond what was measured, or between: so far the reference's calibre is taken to go on ...
  double reach_sd = 0.03;      ///< ... its ln growing less sure by this a mm ...
  double few_sd = 0.05;        ///< ... and by this where it rests on less than a millimetre ...
  double branching_sd = 0.1;   ///< ... and by this across a branching, to the segment that goes straight on there
};

/// The calibre that all others are compared with, along each of the reference's centrelines.
struct ReferenceCalibre {
  struct Segment {
    std::vector<double> arc_mm;             ///< px where not calibrated
    std::vector<float> diameter_px, sd_px;  ///< focal narrowings bridged, and carried on a little where other vessels hide it; 0: not known
    std::vector<float> measured_px;         ///< 0: not measured; as it was
  };
  std::vector<Segment> segments;
  double mm_per_px = 0.2;  ///< where not calibrated about what angiography has: for windows and lengths that decide, not to be shown
  bool calibrated = false;
};
/// Calibres of the reference where its lumen was filled, narrowings that are short bridged: they are lesions of its own.
ReferenceCalibre reference_calibre(const Analysis& reference, const AlignmentOptions& options = {});

/// One of the reference's segments in another run.
struct AlignedSegment {
  std::vector<float> ratio, sd;   ///< per centreline point: ln of calibre over the reference's, and its SD; NaN where not measured in both
  std::vector<float> density;     ///< ln of densitometric over round area, over the same of the reference; NaN where either is not known
  double measured_share = 0;      ///< of the points that the reference has measured
  std::vector<double> failed_mm;  ///< where the gates of filling hold the run's points, along the reference's centreline
  double filling_failed_share = 0;  ///< of the matched points: those that the gates of filling hold
  double doubt =
      0;  ///< of the measured points: not tested whether filled, or sized by contrast with no wide vessel either side to confirm it
};

/// reference_calibre(), wider where other runs show the vessel wider over a short stretch: what the reference has there is a lesion of its
/// own. `runs`: per run, in the order of time, the segments aligned with `calibre`, common factors taken out.
ReferenceCalibre widened_by(const Analysis& reference, const ReferenceCalibre& calibre,
                            const std::vector<std::vector<AlignedSegment>>& runs, const AlignmentOptions& options = {});

/// AlignedSegment::density where the vessel is as wide as it was.
std::vector<double> densities_as_wide(const AlignedSegment& segment);

/// `scale`: run px per reference px of the same thing. One per reference segment.
std::vector<AlignedSegment> align_calibres(const Analysis& reference, const ReferenceCalibre& calibre, const Analysis& run,
                                           const VesselMatching& matching, double scale);

}  // namespace cinelumen
