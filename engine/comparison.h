#pragma once
/// The same vessels over several runs, and what may be said of them (clinical.md; methods.md 6 and 7).

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "engine/analysis.h"
#include "engine/run.h"
#include "engine/run_registration.h"
#include "engine/timeline.h"
#include "engine/vessel_matching.h"

namespace cinelumen {

/// One run that takes part: what its file says of it, and what was found in it.
struct ComparedRun {
  RunDescription description;
  AcquisitionGeometry geometry;
  Image<std::uint8_t> valid;  ///< the field of view, 1 inside; host
  Analysis analysis;          ///< segments with profiles and gates, mask_picture, maximum_opacification
  std::string acquired;       ///< ISO 8601; the event's where that gives one, else the file's
  RunEvent event;
};

/// One run's place in the comparison.
struct ComparedRunSummary {
  int index = 0;  ///< 0-based, in the order of time
  int given = 0;  ///< 0-based, in the order of the command line
  bool is_reference = false, comparable = false;
  int procedure = 0;                             ///< runs of one procedure have the same number
  std::string note;                              ///< why not comparable, or what is to be known
  RunRegistration registration;                  ///< reference -> this run, after the vessels
  double scale_offset = 0, scale_offset_sd = 0;  ///< b_r: common ln factor of all calibres, and its SD
  double matched_share = 0;                      ///< of the reference's segments
  std::vector<int> unmatched;                    ///< ids of its segments that the reference doesn't have
};

/// Everything `compare` knows at the end.
struct Comparison {
  std::vector<ComparedRunSummary> runs;  ///< in the order of time
  int reference = 0;                     ///< index into runs
  std::string reference_note;            ///< why that one
  bool calibrated = false;               ///< lengths are mm; else px of the reference
  std::vector<SegmentTimeline> segments;
  TimelineSummary summary;
  ComparisonThresholds thresholds;  ///< those that the words hang on
  std::vector<std::string> warnings;
};

/// What the caller may choose.
struct ComparisonOptions {
  std::optional<int> reference;  ///< index into `runs` as given; empty: the event "reference", else the earliest that can serve
  bool force = false;            ///< compare what seems to be of different patients or body parts
  ComparisonThresholds thresholds;
};

/// Seconds since 1970 of "2026-01-31T12:30:00" or a shorter beginning of it with a whole date; empty for anything else.
std::optional<double> seconds_of(const std::string& iso);

/// Looks at what the runs' files say, not at their analyses. Throws InputError where they seem to be of different patients or body parts;
/// where `force`, says so instead, one line each.
std::vector<std::string> check_same_patient(const std::vector<ComparedRun>& runs, bool force);

/// Compares runs of one patient: puts them in the order of time, registers each on the reference's bones, matches the vessels, and says of
/// each of the reference's segments what became of it. Throws InputError where runs are of different patients or body parts (unless
/// forced) or none can serve as a reference; std::invalid_argument for fewer than two runs or a reference that does not exist.
Comparison compare_runs(const std::vector<ComparedRun>& runs, const ComparisonOptions& options = {});

}  // namespace cinelumen
