#include "engine/findings.h"

#include <algorithm>
#include <cmath>

#include "engine/words.h"

namespace cinelumen {
namespace {

// Millimetres over which the lumen is closer to the minimum than to the reference.
double extent_px(const SegmentResult& segment) {
  const double half = (*segment.diameter.minimum + *segment.diameter.reference) / 2;
  double extent = 0;
  for (std::size_t i = 0; i + 1 < segment.profile.points.size(); ++i)
    if (segment.profile.points[i].sd_px > 0 && segment.profile.points[i].diameter_px < half)
      extent += segment.profile.points[i + 1].arc_length_px - segment.profile.points[i].arc_length_px;
  return extent;
}

/// A narrowing that is worth a line, with its 95 % interval.
struct Narrowing {
  double percent = 0, low = 0, high = 0;
};

std::optional<Narrowing> narrowing_of(const SegmentDiameter& diameter, const SegmentResult& segment, const FindingThresholds& thresholds) {
  if (!diameter.percent_stenosis || !diameter.reference || !diameter.minimum || *diameter.reference <= 0) return {};
  const double sd_percent = std::hypot(100 * diameter.minimum_sd.value_or(0) / *diameter.reference, thresholds.model_percent);
  const Narrowing seen{*diameter.percent_stenosis, *diameter.percent_stenosis - 1.96 * sd_percent,
                       *diameter.percent_stenosis + 1.96 * sd_percent};
  if (seen.percent < thresholds.narrowing_percent || seen.low < thresholds.narrowing_percent_lower ||
      segment.centreline.length_px() < thresholds.minimum_segment_diameters * *diameter.reference)
    return {};
  return seen;
}

FillingGate gate_at(const SegmentResult& segment, const SegmentDiameter& diameter) {
  const auto point = static_cast<std::size_t>(diameter.minimum_point);
  return diameter.minimum_point >= 0 && point < segment.gates.size() ? segment.gates[point] : FillingGate::untested;
}

// What looks narrow where it is not known that the lumen was filled.
Finding indeterminate(const SegmentResult& segment, const SegmentDiameter& diameter, const Narrowing& apparent) {
  Finding finding;
  finding.segment = segment.id;
  finding.label = "indeterminate";
  finding.at_px = diameter.minimum_at_px;
  const FillingGate gate = gate_at(segment, diameter);
  finding.reasons = {text("looks %.0f %% narrower than either side of it, but a partly filled lumen does", apparent.percent),
                     gate == FillingGate::passed ? "it does so only in frames in which it was not filled" : to_string(gate)};
  return finding;
}

// Of a narrow lumen only the area can be told, and that by the contrast of the vessel; its width is that area's if it is round. What the
// profile says against it is a small part of what an ellipse does, as kappa is held by its prior.
bool is_not_round(const SegmentDiameter& diameter, const FindingThresholds& thresholds) {
  return diameter.sized_by_contrast && diameter.area_ratio_at_minimum &&
         std::abs(std::log(*diameter.area_ratio_at_minimum)) > thresholds.held_area_agrees;
}

std::string frame_range(const ChangeWithinRun& change) {
  return "frames " + std::to_string(change.before_first + 1) + " to " + std::to_string(change.before_last + 1);
}

// What the size of a narrowing against earlier frames of the same run allows to say.
std::string grade_in_words(const ChangeWithinRun& change, const FindingThresholds& thresholds) {
  if (change.narrowing_percent >= thresholds.spasm_percent)
    return std::string("meets the definition of venous spasm, ") +
           (change.narrowing_percent >= thresholds.severe_spasm_percent ? "severe" : "mild") +
           text(" (>= %.0f %%", thresholds.spasm_percent) +
           text("; severe >= %.0f %%), against the calibre of ", thresholds.severe_spasm_percent) + frame_range(change) +
           " of this run; the thresholds are an extrapolation from the axillary vein (Europace 2012)" +
           (change.ci95[0] < thresholds.spasm_percent ? "; its interval reaches below them" : "");
  if (change.narrowing_percent >= thresholds.below_grade_percent) return "narrowing below spasm grade";
  return change.narrower() ? "a narrowing of less than " + text("%.0f %%, of no grade", thresholds.below_grade_percent) : "";
}

}  // namespace

Finding finding_of(const ChangeWithinRun& change, int segment, const Centreline& centreline, const Calibration& calibration, bool timed,
                   const FindingThresholds& thresholds) {
  Finding finding;
  finding.segment = segment;
  finding.label = "change within the run";
  finding.narrowing_percent = change.narrowing_percent;
  finding.ci95 = change.ci95;
  finding.probability = change.probability;
  if (timed) finding.onset_ms = change.onset_ms;
  if (calibration.known()) finding.extent_mm = change.extent_px * calibration.mm_per_px;
  const auto point = static_cast<std::size_t>(change.point);
  if (point < centreline.points.size()) {
    const CentrelinePoint& at = centreline.points[point];
    finding.at_px = {at.y, at.x};
  }
  if (change.narrowing_percent >= thresholds.spasm_percent)
    finding.grade = change.narrowing_percent >= thresholds.severe_spasm_percent ? "severe" : "mild";
  finding.reasons = {(change.still_changing ? "at least " : "") + text("%.0f %% ", std::abs(change.narrowing_percent)) +
                     (change.narrower() ? "narrower" : "wider") + " than in " + frame_range(change) + " of this run, of which " +
                     std::to_string(change.frames_before) + " were measured filled, and " + std::to_string(change.frames_after) + " since"};
  finding.reasons.push_back("begins after frame " + std::to_string(change.onset_frame + 1) +
                            (timed ? text(": %.2f s", change.onset_ms / 1000) +
                                         text(" (95 %% interval %.2f", change.onset_interval_ms[0] / 1000) +
                                         text(" to %.2f s)", change.onset_interval_ms[1] / 1000)
                                   : ""));
  if (change.still_changing)
    finding.reasons.push_back("it had not settled when it was last measured: too narrow, not filled, or the run's end");
  finding.reasons.push_back(
      "the contrast's attenuation per mm is the same before and after: the lumen was filled, and did not fill or empty");
  finding.reasons.push_back(text("probability %.3f that the calibre changed by ", change.probability) +
                            text("%.0f %% or more (Bayesian online change point); ", 100 * ChangePointOptions().least_change) +
                            (change.cusum_agrees ? "CUSUM (k 0.5, h 5) says so, too" : "CUSUM (k 0.5, h 5) does not say so"));
  if (const std::string grade = grade_in_words(change, thresholds); !grade.empty()) finding.reasons.push_back(grade);
  return finding;
}

std::vector<Finding> find_single_run_findings(const Analysis& analysis, const FindingThresholds& thresholds) {
  std::vector<Finding> findings;
  for (const SegmentResult& segment : analysis.segments) {
    for (const ChangeWithinRun& change : segment.changes)
      findings.push_back(
          finding_of(change, segment.id, segment.centreline, analysis.calibration, !analysis.frame_times_ms.empty(), thresholds));
    const SegmentDiameter& diameter = segment.diameter;
    if (segment.filling == "not filled" && analysis.subtracted) {
      Finding finding;
      finding.segment = segment.id;
      finding.label = "not filled";
      if (!segment.centreline.points.empty()) {
        const CentrelinePoint& middle = segment.centreline.points[segment.centreline.points.size() / 2];
        finding.at_px = {middle.y, middle.x};
      }
      finding.reasons = {"fewer than a fifth of its points reached five noise SDs of contrast in any frame"};
      findings.push_back(finding);
      continue;
    }
    // Where nothing was subtracted, bone and overlap narrow and widen a profile as a lesion does.
    if (!analysis.subtracted && analysis.frames < 3) continue;
    const std::optional<Narrowing> seen = narrowing_of(diameter, segment, thresholds);
    if (!seen) {
      // What the frames of a partly filled lumen would have made of it is no narrowing, and is not silently dropped either.
      const std::optional<Narrowing> apparent =
          segment.ungated ? narrowing_of(*segment.ungated, segment, thresholds) : std::optional<Narrowing>();
      if (apparent) findings.push_back(indeterminate(segment, *segment.ungated, *apparent));
      continue;
    }
    const FillingGate gate = gate_at(segment, diameter);
    // Contrast that is thinner, layered or on its way does not come back to the same calibre beyond.
    const bool comes_back =
        gate == FillingGate::unconfirmed && diameter.sides_ratio && std::abs(std::log(*diameter.sides_ratio)) < thresholds.sides_agree;
    const bool same_contrast = !diameter.kappa_ratio || std::abs(std::log(*diameter.kappa_ratio)) < thresholds.kappa_agrees;
    if (!same_contrast || (gate != FillingGate::passed && !comes_back)) {
      findings.push_back(indeterminate(segment, diameter, *seen));
      if (!same_contrast)
        findings.back().reasons.back() =
            text("contrast attenuates beyond it %.0f %% of what it does before: thinner, or not yet mixed", 100 * *diameter.kappa_ratio);
      continue;
    }
    if (is_not_round(diameter, thresholds)) {
      findings.push_back(indeterminate(segment, diameter, *seen));
      findings.back().reasons = {text("looks %.0f %% narrower than either side of it", seen->percent),
                                 "too narrow for its edges to tell how wide it is, and its profile is not that of a round lumen: an "
                                 "ellipse's width can't be told"};
      continue;
    }
    Finding finding;
    finding.segment = segment.id;
    finding.label = "narrowing";
    finding.narrowing_percent = seen->percent;
    finding.ci95 = {{std::max(0.0, seen->low), std::min(100.0, seen->high)}};
    finding.at_px = diameter.minimum_at_px;
    if (analysis.calibration.known()) finding.extent_mm = extent_px(segment) * analysis.calibration.mm_per_px;
    finding.reasons = {text("smallest diameter %.2f px", *diameter.minimum), text("against %.2f px either side of it", *diameter.reference),
                       "the interval holds the measurement's error; a ratio in one plane has none of the calibration's",
                       "one run alone can't tell spasm from stenosis: compare it with a reference run of the same segment"};
    if (comes_back)
      finding.reasons.push_back(text("too narrow to compare the contrast's attenuation: the calibre beyond is %.0f %% of that before",
                                     100 * *diameter.sides_ratio));
    constexpr double notable_area = 0.15;
    if (diameter.sized_by_contrast)
      finding.reasons.push_back("too narrow for its edges to tell how wide it is: sized by its contrast, as a round lumen");
    else if (diameter.area_ratio_at_minimum && std::abs(*diameter.area_ratio_at_minimum - 1) > notable_area)
      finding.reasons.push_back(text("its area by densitometry is %.0f %% of a round lumen's: elliptical, or unevenly mixed",
                                     100 * *diameter.area_ratio_at_minimum));
    if (segment.filling != "filled") finding.reasons.push_back("the segment was not filled throughout: elsewhere nothing is said");
    findings.push_back(finding);
  }
  return findings;
}

}  // namespace cinelumen
