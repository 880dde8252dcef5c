#pragma once
/// What one run alone may claim (clinical.md): narrowing, filling, and changes while it goes on. Spasm needs a reference: only what a
/// segment shows against its own earlier frames may meet its definition, and the reasons say so.

#include <vector>

#include "engine/analysis.h"

namespace cinelumen {

/// When a single run's narrowing is worth a line. Our own choice, not clinically validated.
struct FindingThresholds {
  double narrowing_percent = 30;         ///< smallest narrowing that is reported
  double narrowing_percent_lower = 15;   ///< the lower end of its 95 % interval must reach this
  double minimum_segment_diameters = 6;  ///< the segment must be this many reference diameters long
  double model_percent = 1;              ///< SD of a percent narrowing that the lumen's shape leaves open, beside the measurement's
  double kappa_agrees = 0.1;       ///< how far (natural log) the contrast's attenuation beyond the narrowing may be from that before it
  double held_area_agrees = 0.03;  ///< of a lumen sized by its contrast: how far densitometry may pull from a round one's area
  /// Venous spasm against the segment's own earlier calibre, percent: mild, severe (axillary vein, Europace 2012); below mild it is a
  /// narrowing below spasm grade, or none.
  double spasm_percent = 50, severe_spasm_percent = 90, below_grade_percent = 25;
  double sides_agree = 0.1;  ///< where kappa can't be compared: how far the calibre beyond the narrowing may be from that before it
};

/// A change of calibre within the run, as a finding: "change within the run". segment, centreline: what it was watched on. `timed`: the run
/// has frame times.
Finding finding_of(const ChangeWithinRun& change, int segment, const Centreline& centreline, const Calibration& calibration, bool timed,
                   const FindingThresholds& thresholds = {});

/// Findings of one run, segment by segment.
std::vector<Finding> find_single_run_findings(const Analysis& analysis, const FindingThresholds& thresholds = {});

}  // namespace cinelumen
