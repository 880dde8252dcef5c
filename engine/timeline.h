#pragma once
/// One vessel segment over several runs: what was measured, and the words for it (clinical.md). The rules are here, all thresholds in one
/// place; what they rest on is made in comparison.cpp.

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/calibre_change.h"

namespace cinelumen {

/// What happened before a run.
enum class EventKind { none, reference, valvulotomy, balloon, spasmolytic, stent_graft, next_day, follow_up, redo, other };
/// The words of the events file: "stent-graft", "next day"; "" for none.
const char* to_string(EventKind kind);
/// Its inverse; empty for a word that is not one of them.
std::optional<EventKind> parse_event(const std::string& word);
/// The words themselves, for messages: "reference, valvulotomy, ...".
std::string known_events();

/// One line of the events file: it stands before its run.
struct RunEvent {
  EventKind kind = EventKind::none;
  std::string drug, dose, note;
};

/// Every figure that a word hangs on. Spasm grades are those of the axillary vein (Europace 2012, n = 74; 2023, n = 137), an extrapolation
/// to arterialised veins of the foot; all others are our own proposal. None is clinically validated.
struct ComparisonThresholds {
  double narrowing_percent = 25;        ///< from here on a calibre counts as reduced
  double mild_percent = 50;             ///< venous spasm, mild, from here on ...
  double severe_percent = 90;           ///< ... and severe from here on
  double spasm_extent_mm = 10;          ///< spasm spreads along the vessel: over more than this; what is shorter is focal
  double notch_extent_mm = 3;           ///< a valve remnant is shorter than this
  double recovery = 0.5;                ///< of the loss of calibre that must come back in a segment that is called relieved
  double refractory_recovery = 0.2;     ///< below it in every segment the response is called refractory
  double same_site_mm = 3;              ///< lesions of two runs this near are at the same site
  double same_size_percent = 12;        ///< ... and this alike of the same size
  double false_discovery_rate = 0.05;   ///< expected share of false ones among the segments that are called narrowed
  double no_change_probability = 0.05;  ///< P(narrowing > narrowing_percent) below which "no change" is said
  double angulation_deg = 5;            ///< farther apart than this is another projection
  double procedure_hours = 6;           ///< runs this close, and not parted by "next day" and its like, are one procedure
  double focal_mm = 20;                 ///< spasm_extent: one segment shorter than this is focal ...
  double diffuse_mm = 60;               ///< ... and two of this length in all diffuse
  int diffuse_segments = 3;             ///< as are so many segments
  double layered_density = 0.08;        ///< so much more contrast than a round lumen of its width holds: flattened or layered
  double shoulder_percent = 15;         ///< narrower than this where what could be measured ends, it may be the shoulder of more ...
  double shoulder_least_percent = 7.5;  ///< ... where it is narrower than this with 97.5 % probability
  double measurable_mm = 0.4;           ///< a lumen below this is not measured but bounded
  double measured_share = 0.3;          ///< of a segment that must have been measured in both runs
  double occluded_mm = 5;               ///< length without contrast that counts as an occlusion
  double arrival_sds = 3;               ///< contrast is missed this many SDs after it should have come
  double arrival_relative_sd = 0.3;     ///< SD of that time, of the way from the inlet: injections and pressures differ
  double procedure_scale_sd = 0.03;     ///< common factor between runs of one procedure and geometry
  double other_scale_sd = 0.08;         ///< ... and of different ones
  double bone_scale_sd = 0.015;         ///< ... and where bone in the same picture gives the scale
  double moving_calibre_sd = 0.08;      ///< of ln of a place's calibre, where vessels move: another moment of the beat is another calibre
};

/// What became of one reference segment in one run.
enum class SegmentState { measured, not_filled, occluded, out_of_view };
const char* to_string(SegmentState state);

/// One segment in one run.
struct TimelineEntry {
  int run = 0;      ///< index
  int segment = 0;  ///< id in that run; 0: none there
  SegmentState state = SegmentState::out_of_view;
  std::optional<double> diameter_mm, sd_mm;      ///< median of what was measured in both runs; px where not calibrated
  std::optional<double> percent_of_reference;    ///< of that median
  std::optional<std::array<double, 2>> ci95;     ///< of percent_of_reference
  CalibreChange change;                          ///< against the reference, along the vessel
  std::vector<float> ratio, ratio_sd;            ///< along the reference's centreline: ln of calibre over reference; NaN where not measured
  std::vector<float> calibre_mm, calibre_sd_mm;  ///< likewise, in mm (px) of the reference's plane
  double compared_mm = 0;                        ///< length that was measured in both runs
  bool significant = false;                      ///< narrowed, the number of segments looked at considered
  bool bounded = false;                          ///< the lumen at the narrowest is below what can be measured: narrowing is at least that
  std::array<double, 2> lost_mm = {0, 0};        ///< occluded: from where to where there is no contrast, along the reference's centreline
  double lost_bound = 0;         ///< ... and the share of the reference's calibre below which a lumen would not be seen there
  bool narrowed_around = false;  ///< ... and what it reaches either side, across branchings, is narrowed
  std::string note;              ///< in words: why it was not measured or not filled
  std::string injury;            ///< "extravasation" or "dissection", where the run by itself shows one; else empty
  std::vector<std::string> injury_reasons;
  std::array<double, 2> injury_at_px = {0, 0};  ///< ... and where: the nearest place of the reference's centreline, y and x
  std::string doubt;                            ///< in words: why a narrowing here is not to be graded; empty: it is
  std::optional<double> arrival_ms, velocity_mm_s, auc_relative_to_inlet;  ///< flow beside calibre
  std::string label_then, label_now;
  std::vector<std::string> reasons;  ///< of label_then
};

/// The narrowing of an occluded entry, if there is a lumen at all: any that would not have been seen (TimelineEntry::lost_bound) is as
/// likely.
Narrowing unseen_lumen(const TimelineEntry& entry);

/// One segment over all runs.
struct SegmentTimeline {
  int id = 0;  ///< in the reference run
  std::string name, role;
  bool lengths_known = true;                         ///< false: not calibrated; how long a narrowing is can't be told, nor what it is
  std::array<double, 2> at_px = {0, 0};              ///< in the reference run; where it is narrowest in any run, else its middle
  double length_mm = 0;                              ///< px where not calibrated
  std::vector<float> reference_mm, reference_sd_mm;  ///< calibre of the reference along its centreline, focal narrowings bridged
  std::vector<float> arc_mm;                         ///< of its points
  std::vector<TimelineEntry> entries;                ///< one per run
  std::string label = "indeterminate", grade = "none";
  std::optional<double> narrowing_percent, extent_mm, recovery;
  bool at_least = false;  ///< narrowing_percent is a lower bound: where it is narrowest, it could not be measured
  std::optional<std::array<double, 2>> ci95;
  std::vector<std::pair<std::string, double>> probabilities;  ///< label, posterior probability
  std::vector<std::string> reasons;
};

/// How grave a label is: the larger, the graver; "no change" 1, "not filled" 2, "indeterminate" 3, lesions above; 0: not a label.
int label_gravity(const std::string& label);

/// What the rules must know of a run besides the segment.
struct TimelineRun {
  EventKind event = EventKind::none;  ///< before it
  int procedure = 0;                  ///< runs of one procedure have the same number
  bool comparable = true;
  bool is_reference = false;
};

/// Fills in label_then, label_now and reasons of every entry, and the segment's label, grade and figures. `runs` in the order of time, one
/// per entry.
void label_timeline(SegmentTimeline& segment, const std::vector<TimelineRun>& runs, const ComparisonThresholds& thresholds = {});

/// Marks entries as TimelineEntry::significant, run by run: the largest set of segments whose expected share of false ones is within
/// thresholds.false_discovery_rate.
void control_false_discoveries(std::vector<SegmentTimeline>& segments, const ComparisonThresholds& thresholds = {});

/// Spasm relaxes along the whole segment at once: where no later run could be measured, a segment takes the label of those into which its
/// narrowing goes on; likewise where its own depth is hidden and theirs is not. `joined`: groups of indices into `segments`.
void settle_by_neighbours(std::vector<SegmentTimeline>& segments, const std::vector<std::vector<std::size_t>>& joined);

/// spasm_extent and response of all segments together.
struct TimelineSummary {
  std::string spasm_extent = "none", response = "not tested";
  int spastic_segments = 0;
  double spastic_mm = 0;
};
/// What all segments together say. Segments as labelled by label_timeline().
TimelineSummary summarize_spasm(const std::vector<SegmentTimeline>& segments, const std::vector<TimelineRun>& runs,
                                const ComparisonThresholds& thresholds = {});

}  // namespace cinelumen
