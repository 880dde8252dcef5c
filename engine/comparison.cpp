#include "engine/comparison.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <ctime>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <stdexcept>

#include "engine/calibre_alignment.h"
#include "engine/lost_contrast.h"
#include "engine/median.h"
#include "engine/segment_ends.h"
#include "engine/vessel_injury.h"
#include "engine/words.h"

namespace cinelumen {
namespace {

constexpr float nothing = std::numeric_limits<float>::quiet_NaN();

std::vector<std::size_t> in_order_of_time(const std::vector<ComparedRun>& runs, std::vector<std::string>& warnings) {
  std::vector<std::size_t> order(runs.size());
  std::iota(order.begin(), order.end(), 0);
  std::vector<std::optional<double>> at;
  for (const ComparedRun& run : runs) at.push_back(seconds_of(run.acquired));
  for (std::size_t i = 0; i < runs.size(); ++i)
    if (!at[i]) {
      warnings.push_back(runs[i].description.path + ": no acquisition time (" +
                         (runs[i].acquired.empty() ? std::string("absent") : "\"" + runs[i].acquired + "\"") +
                         "); the runs are taken in the order given");
      return order;
    }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return *at[a] < *at[b]; });
  return order;
}

/// Runs of one procedure have the same number: close in time, with nothing between that says otherwise.
std::vector<int> procedures_of(const std::vector<const ComparedRun*>& runs, const ComparisonThresholds& thresholds) {
  std::vector<int> numbers;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    if (r == 0) {
      numbers.push_back(0);
      continue;
    }
    const EventKind event = runs[r]->event.kind;
    const auto before = seconds_of(runs[r - 1]->acquired), now = seconds_of(runs[r]->acquired);
    const bool parted = event == EventKind::next_day || event == EventKind::follow_up || event == EventKind::redo;
    const bool far = before && now && *now - *before > thresholds.procedure_hours * 3600;
    numbers.push_back(numbers.back() + (parted || far));
  }
  return numbers;
}

/// Degrees between two projections; empty where a file does not tell.
std::optional<double> angle_between(const AcquisitionGeometry& a, const AcquisitionGeometry& b) {
  if (!a.primary_angle_deg || !a.secondary_angle_deg || !b.primary_angle_deg || !b.secondary_angle_deg) return {};
  constexpr double radians = 0.017453292519943295;
  const auto direction = [&](const AcquisitionGeometry& g) {
    const double p = *g.primary_angle_deg * radians, s = *g.secondary_angle_deg * radians;
    return std::array<double, 3>{std::sin(p) * std::cos(s), std::sin(s), std::cos(p) * std::cos(s)};
  };
  const auto u = direction(a), v = direction(b);
  return std::acos(std::clamp(u[0] * v[0] + u[1] * v[1] + u[2] * v[2], -1.0, 1.0)) / radians;
}

std::string angles_in_words(const AcquisitionGeometry& g) {
  return text("%.1f/%.1f degrees", g.primary_angle_deg.value_or(0), g.secondary_angle_deg.value_or(0));
}

bool can_serve(const ComparedRun& run) {
  return std::any_of(run.analysis.segments.begin(), run.analysis.segments.end(),
                     [](const SegmentResult& segment) { return segment.diameter.median.has_value(); });
}

std::ptrdiff_t measured_points(const ComparedRun& run) {
  std::ptrdiff_t count = 0;
  for (const SegmentResult& segment : run.analysis.segments)
    count += std::count_if(segment.profile.points.begin(), segment.profile.points.end(),
                           [](const DiameterProfile::Point& point) { return point.sd_px > 0; });
  return count;
}

/// Index into `runs`, in the order of time.
int choose_reference(const std::vector<const ComparedRun*>& runs, const std::vector<std::size_t>& order, const ComparisonOptions& options,
                     std::string& note) {
  if (options.reference) {
    for (std::size_t r = 0; r < order.size(); ++r)
      if (static_cast<int>(order[r]) == *options.reference) {
        note = "asked for";
        return static_cast<int>(r);
      }
  }
  for (std::size_t r = 0; r < runs.size(); ++r)
    if (runs[r]->event.kind == EventKind::reference) {
      if (!can_serve(*runs[r])) throw InputError(runs[r]->description.path + ": no vessel of the reference run could be measured");
      note = "named so by the events";
      return static_cast<int>(r);
    }
  std::optional<std::size_t> best;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    if (!can_serve(*runs[r])) continue;
    if (!best) {
      best = r;
      note = r == 0 ? "the earliest run" : "the earliest run in which vessels could be measured";
    } else if (const auto time = seconds_of(runs[r]->acquired);
               time && time == seconds_of(runs[*best]->acquired) && measured_points(*runs[r]) > measured_points(*runs[*best])) {
      best = r;
      note = "of those acquired first, at the same time, the run of which most could be measured";
    }
  }
  if (best) return static_cast<int>(*best);
  throw InputError(runs.front()->description.path + " and the others: no vessel could be measured in any of them, expected a reference");
}

/// Run pixels per reference pixel to be expected of the same thing.
double pixel_ratio(const ComparedRun& reference, const ComparedRun& run) {
  const Calibration &a = reference.analysis.calibration, &b = run.analysis.calibration;
  if (a.known() && b.known()) return a.mm_per_px / b.mm_per_px;
  const auto &p = reference.geometry.imager_pixel_spacing_mm, &q = run.geometry.imager_pixel_spacing_mm;
  if (p && q) return (*p)[0] / (*q)[0];
  return 1;
}

/// Where registration found bone and the calibrations say otherwise, one of them is wrong.
std::string scale_note(const ComparedRun& reference, const ComparedRun& run, const RunRegistration& registration) {
  const Calibration &a = reference.analysis.calibration, &b = run.analysis.calibration;
  if (!a.known() || !b.known()) return "";
  const double said = a.mm_per_px / b.mm_per_px, off = registration.scale / said;
  if (std::abs(std::log(off)) <= 2 * std::hypot(a.relative_sd, b.relative_sd)) return "";
  return text("bone is %.1f %% %s than both calibrations say: calibres are compared by bone", 100 * std::abs(off - 1),
              off > 1 ? "larger" : "smaller");
}

ComparedRunSummary place_run(const ComparedRun& reference, const ComparedRun& run, const ComparisonThresholds& thresholds) {
  ComparedRunSummary summary;
  if (const auto angle = angle_between(reference.geometry, run.geometry); angle && *angle > thresholds.angulation_deg) {
    summary.note =
        text("not comparable: another projection, %s, the reference's is %s: %.1f degrees apart, at most %.0f are compared",
             angles_in_words(run.geometry).c_str(), angles_in_words(reference.geometry).c_str(), *angle, thresholds.angulation_deg);
    return summary;
  }
  if (run.analysis.mask_picture.empty() || reference.analysis.mask_picture.empty()) {
    summary.note = "not comparable: no picture without contrast to register on";
    return summary;
  }
  summary.registration = register_runs(reference.analysis.mask_picture.view(), reference.valid.view(), run.analysis.mask_picture.view(),
                                       run.valid.view(), pixel_ratio(reference, run));
  if (!summary.registration.reliable) {
    summary.note = "not comparable: the bones do not match the reference's (" + summary.registration.note + ")";
    return summary;
  }
  summary.comparable = true;
  summary.note = scale_note(reference, run, summary.registration);
  return summary;
}

/// Common factor of all calibres of a run: what most of the segments share, drawn to 1 by what is known before.
void estimate_scale(const std::vector<AlignedSegment>& aligned, double prior_sd, ComparedRunSummary& summary) {
  std::vector<double> means;
  for (const AlignedSegment& segment : aligned) {
    std::vector<double> values;
    for (const float ratio : segment.ratio)
      if (std::isfinite(ratio)) values.push_back(ratio);
    if (values.size() >= 10) means.push_back(middle_of(values));
  }
  // Segments that changed lie far off; a factor shared by most of the rest is what is looked for.
  constexpr double segment_sd = 0.03, cut = 3;
  double b = 0, precision = 1 / (prior_sd * prior_sd);
  for (int iteration = 0; iteration < 20; ++iteration) {
    double weights = 1 / (prior_sd * prior_sd), sum = 0;
    for (const double mean : means) {
      const double u = (mean - b) / (cut * segment_sd);
      const double weight = std::abs(u) < 1 ? (1 - u * u) * (1 - u * u) / (segment_sd * segment_sd) : 0;
      weights += weight;
      sum += weight * mean;
    }
    b = sum / weights;
    precision = weights;
  }
  summary.scale_offset = b;
  summary.scale_offset_sd = 1 / std::sqrt(precision);
}

std::optional<double> median_calibre(const std::vector<float>& values) {
  std::vector<double> known;
  for (const float value : values)
    if (std::isfinite(value)) known.push_back(value);
  if (known.empty()) return {};
  return in_place_median(known);
}

RunRegistration at_rest() {
  RunRegistration registration;
  registration.correlation = registration.agreement = registration.common_share = 1;
  registration.reliable = true;
  return registration;
}

/// Every point on itself: the reference's own narrowings are found against its bridged calibre.
VesselMatching match_itself(const std::vector<SegmentResult>& segments) {
  VesselMatching matching;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    auto& points = matching.points.emplace_back();
    for (std::size_t i = 0; i < segments[s].centreline.points.size(); ++i)
      points.push_back({static_cast<int>(s), static_cast<double>(i), 0});
    matching.segment.push_back(static_cast<int>(s));
    matching.matched_share.push_back(1);
  }
  matching.registration = at_rest();
  return matching;
}

/// All that is known of one run against the reference, made into entries of the segments' timelines.
class RunAgainstReference {
 public:
  /// The runs' vessels, matched; `calibre`: as the reference alone shows it.
  RunAgainstReference(const ComparedRun& reference, const ReferenceCalibre& calibre, const ComparedRun& run, int index,
                      ComparedRunSummary& summary, bool same_procedure, const ComparisonThresholds& thresholds)
      : reference_(reference), run_(run), index_(index), summary_(summary), same_procedure_(same_procedure), t_(thresholds) {
    if (summary.is_reference) {
      matching_ = match_itself(run.analysis.segments);
    } else {
      VesselMatchingOptions matching_options;
      matching_options.mm_per_px = calibre.mm_per_px;
      matching_ = match_vessels(reference.analysis.segments, run.analysis.segments, summary.registration, matching_options);
    }
    summary.registration = matching_.registration;
    for (const int s : matching_.unmatched_in_run) summary.unmatched.push_back(run.analysis.segments[static_cast<std::size_t>(s)].id);
    int matched = 0;
    for (const int s : matching_.segment) matched += s >= 0;
    summary.matched_share = matching_.segment.empty() ? 0 : static_cast<double>(matched) / static_cast<double>(matching_.segment.size());
    for (const Finding& finding : run.analysis.findings)
      if (!injury_of(finding).empty()) injuries_.emplace_back(place_nearest(finding), &finding);
    align(calibre);
  }

  /// Calibres against the reference's, the run's common factor taken out.
  void align(const ReferenceCalibre& calibre) {
    calibre_ = &calibre;
    aligned_ = align_calibres(reference_.analysis, calibre, run_.analysis, matching_, summary_.registration.scale);
    if (!summary_.is_reference) estimate_scale(aligned_, prior_scale_sd(same_procedure_), summary_);
    for (AlignedSegment& segment : aligned_)
      for (float& ratio : segment.ratio) ratio -= static_cast<float>(summary_.scale_offset);
  }
  const std::vector<AlignedSegment>& aligned() const { return aligned_; }
  void look_for_lost_contrast() {
    lost_ = find_lost_contrast(reference_.analysis, *calibre_, run_.analysis, run_.valid.view(), summary_.registration, matching_, aligned_,
                               lost_options());
  }

  TimelineEntry entry(std::size_t s) const {
    TimelineEntry entry;
    entry.run = index_;
    const AlignedSegment& aligned = aligned_[s];
    const int matched = matching_.segment[s];
    if (matched >= 0) {
      const SegmentResult& there = run_.analysis.segments[static_cast<std::size_t>(matched)];
      entry.segment = there.id;
      entry.arrival_ms = there.flow.times.arrival_ms;
      entry.velocity_mm_s = there.flow.velocity_mm_s;
      entry.auc_relative_to_inlet = there.flow.auc_relative_to_inlet;
    }
    const double mm = calibre_->mm_per_px;
    std::vector<LogRatio> ratios;
    for (std::size_t i = 0; i < aligned.ratio.size(); ++i) {
      const float ratio = aligned.ratio[i];
      entry.ratio.push_back(ratio);
      entry.ratio_sd.push_back(aligned.sd[i]);
      const bool known = std::isfinite(ratio);
      const double calibre = known ? calibre_->segments[s].diameter_px[i] * std::exp(ratio) * mm : 0;
      entry.calibre_mm.push_back(known ? static_cast<float>(calibre) : nothing);
      entry.calibre_sd_mm.push_back(known ? static_cast<float>(calibre * aligned.sd[i]) : nothing);
      if (!known) continue;
      // Where the reference's calibre is carried on from far away nothing short can be told.
      constexpr double carried_mm = 3, far_sd = 0.1;
      const ReferenceCalibre::Segment& own = calibre_->segments[s];
      ratios.push_back({own.arc_mm[i], ratio, aligned.sd[i], own.sd_px[i] > far_sd * own.diameter_px[i] ? carried_mm : 0});
    }
    entry.compared_mm = static_cast<double>(ratios.size()) * calibre_->mm_per_px;
    judge(s, std::move(ratios), entry);
    for (const auto& [place, finding] : injuries_) {
      if (place.segment != static_cast<int>(s)) continue;
      const CentrelinePoint& p = reference_.analysis.segments[s].centreline.points[place.point];
      entry.injury = injury_of(*finding);
      entry.injury_reasons = finding->reasons;
      entry.injury_at_px = {p.y, p.x};
    }
    return entry;
  }

 private:
  double prior_scale_sd(bool same_procedure) const {
    // Bone in the same picture tells the scale: what is left is the point spread's and the model's part.
    if (summary_.registration.reliable) return t_.bone_scale_sd;
    return same_procedure ? t_.procedure_scale_sd : t_.other_scale_sd;
  }
  LostContrastOptions lost_options() const {
    LostContrastOptions options;
    options.least_mm = t_.occluded_mm;
    options.measurable_mm = t_.measurable_mm;
    options.layered_density = t_.layered_density;
    options.arrival_sds = t_.arrival_sds;
    options.arrival_relative_sd = t_.arrival_relative_sd;
    return options;
  }

  void judge(std::size_t s, std::vector<LogRatio> ratios, TimelineEntry& entry) const {
    const AlignedSegment& aligned = aligned_[s];
    const LostContrast& lost = lost_[s];
    entry.note = lost.note;
    if (lost.in_view_share < 0.5) {
      entry.state = SegmentState::out_of_view;
      entry.note = text("%.0f %% of it lie outside this run's field", 100 * (1 - lost.in_view_share));
      return;
    }
    const bool moves = run_.analysis.subtraction.moving_vessels || reference_.analysis.subtraction.moving_vessels;
    if (!moves) ratios.insert(ratios.end(), lost.threads.begin(), lost.threads.end());
    std::sort(ratios.begin(), ratios.end(), [](const LogRatio& a, const LogRatio& b) { return a.arc_mm < b.arc_mm; });
    CalibreChangeOptions options;
    if (moves) options.shape_sd = t_.moving_calibre_sd;
    if (ratios.size() >= 5) entry.change = estimate_change(ratios, summary_.scale_offset_sd, options);
    entry.bounded = lost.bounded && !moves;
    const std::vector<double> failed = moves ? aligned.failed_mm : without(aligned.failed_mm, lost.threads);
    const auto qualify = [&](Narrowing& n) {
      n.at_least = beside(n, failed) > least_beside_mm || deepens_to_an_end(entry.change, n);
      n.denser = denser_there(aligned, calibre_->segments[s].arc_mm, n);
    };
    if (entry.change.known) qualify(entry.change.largest);
    for (Narrowing& n : entry.change.narrowings) qualify(n);
    if (moves && lost.empty_share > 0) {
      entry.state = aligned.measured_share >= t_.measured_share ? SegmentState::measured : SegmentState::not_filled;
      entry.note = "the vessels move against the background: where it is not seen, it may lie elsewhere";
      if (entry.state == SegmentState::not_filled) entry.change = {};
    } else if (lost.occluded) {
      entry.state = SegmentState::occluded;
      entry.lost_mm = {lost.from_mm, lost.to_mm};
      entry.lost_bound = lost.bound;
      if (entry.change.known) entry.change.largest = unseen_lumen(entry);
    } else if (lost.empty_share > 0.5) {
      entry.state = SegmentState::not_filled;
      entry.change = {};
    } else if (aligned.measured_share >= t_.measured_share || !lost.threads.empty()) {
      entry.state = SegmentState::measured;
    } else {
      entry.state = aligned.filling_failed_share > 0.5 ? SegmentState::not_filled : SegmentState::measured;
      entry.change = {};
      entry.note =
          aligned.filling_failed_share > 0.5
              ? text("filled in part only: %.0f %% of what was seen of it failed the gates of filling", 100 * aligned.filling_failed_share)
              : text("only %.0f %% of it could be measured in both runs", 100 * aligned.measured_share);
    }
    if (moves)
      entry.doubt = "the vessels move against the background: another moment of their motion looks like another calibre";
    else if (aligned.doubt > 0.5)
      entry.doubt =
          "whether it was filled could not be tested in most of it, or it is sized by its contrast alone: thinner contrast looks the same "
          "as a narrower lumen";
    if (!entry.change.known) return;
    entry.diameter_mm = median_calibre(entry.calibre_mm);
    const double ratio = entry.change.mean_ratio, sd = entry.change.mean_ratio_sd;
    if (entry.diameter_mm) entry.sd_mm = *entry.diameter_mm * sd / ratio;
    entry.percent_of_reference = 100 * ratio;
    entry.ci95 = {{100 * (ratio - 1.96 * sd), 100 * (ratio + 1.96 * sd)}};
  }

  struct PlaceInReference {
    int segment = -1;
    std::size_t point = 0;
  };
  /// Where the reference lies nearest to a finding of the run, of its segments matched to the one that it was found at; -1: none.
  PlaceInReference place_nearest(const Finding& finding) const {
    PlaceInReference nearest;
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t s = 0; s < matching_.points.size(); ++s)
      for (std::size_t k = 0; k < matching_.points[s].size(); ++k) {
        const PointMatch& match = matching_.points[s][k];
        if (match.segment < 0) continue;
        const SegmentResult& there = run_.analysis.segments[static_cast<std::size_t>(match.segment)];
        if (there.id != finding.segment) continue;
        const auto i = std::min(there.centreline.points.size() - 1, static_cast<std::size_t>(std::lround(std::max(0.0, match.point))));
        const CentrelinePoint& p = there.centreline.points[i];
        if (const double away = std::hypot(p.y - finding.at_px[0], p.x - finding.at_px[1]); away < least)
          least = away, nearest = {static_cast<int>(s), k};
      }
    return nearest;
  }
  /// Places of which contrast told what the gates of filling had left open are no longer failed.
  static std::vector<double> without(std::vector<double> places_mm, const std::vector<LogRatio>& told) {
    std::erase_if(places_mm,
                  [&](double mm) { return std::any_of(told.begin(), told.end(), [&](const LogRatio& r) { return r.arc_mm == mm; }); });
    return places_mm;
  }
  /// By how much more contrast there is in a narrowing than a round lumen of its width would hold, compared with where the vessel is as
  /// wide as it was; 0 where too little of either was sized by its edges.
  static double denser_there(const AlignedSegment& aligned, const std::vector<double>& arc_mm, const Narrowing& n) {
    constexpr double floor_share = 0.8;  // of the depth
    constexpr std::size_t enough = 5;    // points
    const double floor = floor_share * std::log(1 - 0.01 * std::clamp(n.percent, 0.0, 99.0));
    std::vector<double> narrow, wide = densities_as_wide(aligned);
    for (std::size_t i = 0; i < aligned.density.size(); ++i)
      if (std::isfinite(aligned.density[i]) && arc_mm[i] >= n.from_mm && arc_mm[i] <= n.to_mm && aligned.ratio[i] < floor)
        narrow.push_back(aligned.density[i]);
    if (narrow.size() < enough || wide.size() < enough) return 0;
    return std::expm1(in_place_median(narrow) - in_place_median(wide));
  }
  /// Narrowest where what could be measured ends, and still narrowing there.
  static bool deepens_to_an_end(const CalibreChange& change, const Narrowing& n) {
    constexpr double near_mm = 0.8, inner_mm = 2, steeper = 0.03;  // of ln D
    const double first = change.arc_mm.front(), last = change.arc_mm.back();
    const bool at_first = n.at_mm < first + near_mm;
    if (!at_first && n.at_mm <= last - near_mm) return false;
    const double inside = std::clamp(at_first ? first + inner_mm : last - inner_mm, first, last);
    const auto nearest = [&](double mm) {
      std::size_t at = 0;
      for (std::size_t i = 1; i < change.arc_mm.size(); ++i)
        if (std::abs(change.arc_mm[i] - mm) < std::abs(change.arc_mm[at] - mm)) at = i;
      return change.ratio_log[at];
    };
    return nearest(inside) - nearest(n.at_mm) > steeper;
  }
  static constexpr double least_beside_mm = 1.5;
  /// Length of the places within 3 mm of a narrowing.
  double beside(const Narrowing& n, const std::vector<double>& places_mm) const {
    constexpr double reach_mm = 3;
    return calibre_->mm_per_px * static_cast<double>(std::count_if(places_mm.begin(), places_mm.end(), [&](double mm) {
             return mm > n.extent_from_mm - reach_mm && mm < n.extent_to_mm + reach_mm;
           }));
  }

  const ComparedRun& reference_;
  const ReferenceCalibre* calibre_ = nullptr;
  const ComparedRun& run_;
  int index_;
  ComparedRunSummary& summary_;
  bool same_procedure_;
  const ComparisonThresholds& t_;
  VesselMatching matching_;
  std::vector<AlignedSegment> aligned_;
  std::vector<LostContrast> lost_;
  std::vector<std::pair<PlaceInReference, const Finding*>> injuries_;  // of the run, in the order of its findings
};

std::vector<SegmentTimeline> start_timelines(const ComparedRun& reference, const ReferenceCalibre& calibre) {
  std::vector<SegmentTimeline> segments;
  for (std::size_t s = 0; s < reference.analysis.segments.size(); ++s) {
    const SegmentResult& from = reference.analysis.segments[s];
    SegmentTimeline timeline;
    timeline.id = from.id;
    timeline.name = from.name;
    timeline.role = from.role;
    timeline.lengths_known = calibre.calibrated;
    timeline.length_mm = from.centreline.length_px() * calibre.mm_per_px;
    for (std::size_t i = 0; i < from.centreline.points.size(); ++i) {
      timeline.arc_mm.push_back(static_cast<float>(calibre.segments[s].arc_mm[i]));
      const bool measured = calibre.segments[s].measured_px[i] > 0;
      const float d = calibre.segments[s].diameter_px[i], sd = calibre.segments[s].sd_px[i];
      timeline.reference_mm.push_back(measured ? static_cast<float>(d * calibre.mm_per_px) : nothing);
      timeline.reference_sd_mm.push_back(measured ? static_cast<float>(sd * calibre.mm_per_px) : nothing);
    }
    segments.push_back(std::move(timeline));
  }
  return segments;
}

TimelineEntry not_compared(int run, const std::string& note) {
  TimelineEntry entry;
  entry.run = run;
  entry.note = note;
  return entry;
}

/// Where the narrowest place of any run lies in the reference, else the segment's middle.
std::array<double, 2> place_of(const SegmentTimeline& timeline, const Centreline& centreline) {
  if (centreline.points.empty()) return {0, 0};
  std::size_t at = centreline.points.size() / 2;
  if (timeline.label != "no change" && timeline.label != "indeterminate" && timeline.label != "not filled") {
    double deepest = 0, arc = -1;
    for (const TimelineEntry& entry : timeline.entries) {
      if (entry.state == SegmentState::occluded) {
        arc = 0.5 * (entry.lost_mm[0] + entry.lost_mm[1]);
        break;
      }
      if (entry.change.known && entry.significant && entry.change.largest.percent > deepest) {
        deepest = entry.change.largest.percent;
        arc = entry.change.largest.at_mm;
      }
    }
    if (arc >= 0)
      for (std::size_t i = 0; i < timeline.arc_mm.size(); ++i)
        if (std::abs(timeline.arc_mm[i] - arc) < std::abs(timeline.arc_mm[at] - arc)) at = i;
  }
  return {centreline.points[at].y, centreline.points[at].x};
}

/// Narrowings that reach a branching, and go on beyond it in another segment, are one: a vein is not shorter for its branches.
class AcrossBranchings {
 public:
  AcrossBranchings(const Analysis& reference, std::vector<SegmentTimeline>& segments, const ComparisonThresholds& thresholds)
      : segments_(segments), notch_mm_(thresholds.notch_extent_mm), ends_(segment_ends(reference)) {
    places_.resize(reference.branch_points.size());
    std::iota(places_.begin(), places_.end(), 0);
    // Two branchings with a link between them that is too short to be measured are one place.
    for (std::size_t s = 0; s < segments.size(); ++s)
      if (segments[s].length_mm < short_link_mm && ends_[s][0] >= 0 && ends_[s][1] >= 0) merge(places_, ends_[s][0], ends_[s][1]);
  }

  void join(std::size_t run) {
    std::vector<Piece> pieces;
    for (std::size_t s = 0; s < segments_.size(); ++s) {
      CalibreChange& change = segments_[s].entries[run].change;
      for (Narrowing& n : change.narrowings)
        if (n.extent_mm() > 0) pieces.push_back({s, &n, {end_of(s, change, n, 0), end_of(s, change, n, 1)}});
    }
    std::vector<int> together(pieces.size());
    std::iota(together.begin(), together.end(), 0);
    for (std::size_t a = 0; a < pieces.size(); ++a)
      for (std::size_t b = 0; b < a; ++b)
        for (End& of_a : pieces[a].ends)
          for (End& of_b : pieces[b].ends)
            if (of_a.place >= 0 && of_a.place == of_b.place) {
              of_a.joined = of_b.joined = true;
              merge(together, static_cast<int>(a), static_cast<int>(b));
            }
    for (std::size_t a = 0; a < pieces.size(); ++a) {
      Narrowing& n = *pieces[a].narrowing;
      n.spread_mm = n.possible_mm = 0;
      for (std::size_t b = 0; b < pieces.size(); ++b) {
        if (root(together, static_cast<int>(a)) != root(together, static_cast<int>(b))) continue;
        n.spread_mm += pieces[b].narrowing->extent_mm();
        n.possible_mm += pieces[b].narrowing->extent_mm();
        for (const End& end : pieces[b].ends) {
          n.spread_mm += end.joined ? end.hidden_mm : 0;
          n.possible_mm += end.hidden_mm + (end.joined ? 0 : hidden_beyond(end.place, run));
        }
      }
    }
    for (const Piece& piece : pieces)
      for (const End& end : piece.ends)
        if (end.place >= 0) reached_[end.place].insert(piece.segment);
  }
  /// Spasm that shuts a whole segment tapers in those beside it. Needs TimelineEntry::significant.
  void look_around(std::size_t run) {
    for (std::size_t s = 0; s < segments_.size(); ++s) {
      TimelineEntry& entry = segments_[s].entries[run];
      if (entry.state != SegmentState::occluded) continue;
      const double length = segments_[s].length_mm;
      const std::array<std::array<double, 2>, 2> left = {{{0, entry.lost_mm[0]}, {entry.lost_mm[1], length}}};
      entry.narrowed_around = true;
      for (std::size_t end = 0; end < 2; ++end) {
        const bool hides_a_taper = left[end][1] - left[end][0] < hidden_mm || nothing_measured(segments_[s], entry, left[end]);
        entry.narrowed_around = entry.narrowed_around && hides_a_taper && narrowed_at(ends_[s][end], s, run);
      }
    }
  }
  /// Segments whose narrowings reach the same branching, in whatever run.
  std::vector<std::vector<std::size_t>> joined() const {
    std::vector<std::vector<std::size_t>> result;
    for (const auto& [place, segments] : reached_)
      if (segments.size() > 1) result.emplace_back(segments.begin(), segments.end());
    return result;
  }

 private:
  static constexpr double short_link_mm = 6, hidden_mm = 6;  // near a branching the wider vessel hides what begins there
  static constexpr double goes_on_share = 0.5, edge_mm = 2;  // of the depth, in ln D, somewhere within this from the end ...
  static constexpr double notch_edge_mm = 0.5;               // ... or, where it is as short as a valve remnant, within this
  /// One end of a narrowing.
  struct End {
    int place = -1;        // that it reaches, as far as could be measured; -1: none
    double hidden_mm = 0;  // from there to the segment's end
    bool joined = false;
  };
  struct Piece {
    std::size_t segment;
    Narrowing* narrowing;
    std::array<End, 2> ends;
  };
  End end_of(std::size_t s, const CalibreChange& change, const Narrowing& n, std::size_t end) {
    if (change.arc_mm.empty()) return {};
    const double first = change.arc_mm.front(), last = change.arc_mm.back();
    const bool touches = end == 0 ? n.extent_from_mm < first + 1 : n.extent_to_mm > last - 1;
    // What has nearly come back there ends there.
    const double deepest = std::log(std::max(0.01, 1 - 0.01 * n.percent)), edge = n.half_depth_mm() < notch_mm_ ? notch_edge_mm : edge_mm;
    double there = 0;
    for (std::size_t i = 0; i < change.arc_mm.size(); ++i)
      if ((end == 0 ? change.arc_mm[i] - first : last - change.arc_mm[i]) <= edge) there = std::min(there, change.ratio_log[i]);
    if (!touches || there > goes_on_share * deepest) return {};
    const double hidden = std::max(0.0, end == 0 ? first : segments_[s].length_mm - last);
    const int branch = ends_[s][end];
    return {branch >= 0 && hidden < hidden_mm ? root(places_, branch) : -1, hidden, false};
  }
  static bool nothing_measured(const SegmentTimeline& segment, const TimelineEntry& entry, const std::array<double, 2>& between_mm) {
    for (std::size_t i = 0; i < std::min(segment.arc_mm.size(), entry.ratio.size()); ++i)
      if (std::isfinite(entry.ratio[i]) && segment.arc_mm[i] >= between_mm[0] && segment.arc_mm[i] <= between_mm[1]) return false;
    return true;
  }
  /// Whether a segment other than `s` is narrowed near a branching (-1: none).
  bool narrowed_at(int branch, std::size_t s, std::size_t run) {
    if (branch < 0) return false;
    const int place = root(places_, branch);
    for (std::size_t other = 0; other < segments_.size(); ++other) {
      const TimelineEntry& entry = segments_[other].entries[run];
      if (other == s || !entry.change.known || !entry.significant) continue;
      for (std::size_t end = 0; end < 2; ++end) {
        if (ends_[other][end] < 0 || root(places_, ends_[other][end]) != place) continue;
        for (const Narrowing& n : entry.change.narrowings)
          if (n.extent_mm() > 0 && (end == 0 ? n.extent_from_mm : segments_[other].length_mm - n.extent_to_mm) < hidden_mm) return true;
      }
    }
    return false;
  }
  /// Longest of the segments from a branching on of which nothing could be measured in this run.
  double hidden_beyond(int place, std::size_t run) {
    double longest = 0;
    for (std::size_t s = 0; place >= 0 && s < segments_.size(); ++s) {
      const TimelineEntry& entry = segments_[s].entries[run];
      if (entry.change.known || entry.state != SegmentState::measured) continue;
      for (const int branch : ends_[s])
        if (branch >= 0 && root(places_, branch) == place) longest = std::max(longest, segments_[s].length_mm);
    }
    return longest;
  }
  static int root(std::vector<int>& parents, int i) {
    while (parents[static_cast<std::size_t>(i)] != i) i = parents[static_cast<std::size_t>(i)];
    return i;
  }
  static void merge(std::vector<int>& parents, int a, int b) { parents[static_cast<std::size_t>(root(parents, a))] = root(parents, b); }

  std::vector<SegmentTimeline>& segments_;
  double notch_mm_;
  std::map<int, std::set<std::size_t>> reached_;  // by place
  std::vector<int> places_;
  std::vector<std::array<int, 2>> ends_;
};

/// Lengths that were made with a scale that only decides, in pixels.
void to_pixels(std::vector<SegmentTimeline>& segments, double mm_per_px) {
  const auto all = [&](auto& values) {
    for (auto& value : values) value = static_cast<std::decay_t<decltype(value)>>(value / mm_per_px);
  };
  const auto narrowing = [&](Narrowing& n) {
    for (double* length : {&n.at_mm, &n.from_mm, &n.to_mm, &n.extent_from_mm, &n.extent_to_mm, &n.spread_mm, &n.possible_mm, &n.taper_mm})
      *length /= mm_per_px;
  };
  for (SegmentTimeline& segment : segments) {
    segment.length_mm /= mm_per_px;
    if (segment.extent_mm) *segment.extent_mm /= mm_per_px;
    all(segment.reference_mm);
    all(segment.reference_sd_mm);
    all(segment.arc_mm);
    for (TimelineEntry& entry : segment.entries) {
      if (entry.diameter_mm) *entry.diameter_mm /= mm_per_px;
      if (entry.sd_mm) *entry.sd_mm /= mm_per_px;
      entry.compared_mm /= mm_per_px;
      all(entry.calibre_mm);
      all(entry.calibre_sd_mm);
      all(entry.lost_mm);
      all(entry.change.arc_mm);
      entry.change.bin_mm /= mm_per_px;
      narrowing(entry.change.largest);
      for (Narrowing& n : entry.change.narrowings) narrowing(n);
    }
  }
}

}  // namespace

std::optional<double> seconds_of(const std::string& iso) {
  std::tm time{};
  double second = 0;
  int year = 0, month = 0, day = 0, hour = 0, minute = 0;
  const int read = std::sscanf(iso.c_str(), "%4d-%2d-%2dT%2d:%2d:%lf", &year, &month, &day, &hour, &minute, &second);
  if (read < 3 || month < 1 || month > 12 || day < 1 || day > 31) return {};
  time.tm_year = year - 1900;
  time.tm_mon = month - 1;
  time.tm_mday = day;
  time.tm_hour = hour;
  time.tm_min = minute;
  return static_cast<double>(timegm(&time)) + second;
}

std::vector<std::string> check_same_patient(const std::vector<ComparedRun>& runs, bool force) {
  std::vector<std::string> warnings;
  const RunDescription& first = runs.front().description;
  const auto compare = [&](const RunDescription& run, const char* what, const std::string& value, const std::string& expected) {
    if (value.empty() || expected.empty() || value == expected) return;
    const std::string line = run.path + ": " + what + " is \"" + value + "\", expected \"" + expected + "\" as in " + first.path;
    if (!force) throw InputError(line + " (--force compares them all the same)");
    warnings.push_back(line + "; compared because that was asked for");
  };
  for (const ComparedRun& compared : runs) {
    const RunDescription& run = compared.description;
    compare(run, "Patient ID (0010,0020)", run.patient_id, first.patient_id);
    compare(run, "Body Part Examined (0018,0015)", run.body_part, first.body_part);
    compare(run, "Laterality (0020,0060)", run.laterality, first.laterality);
  }
  return warnings;
}

Comparison compare_runs(const std::vector<ComparedRun>& given, const ComparisonOptions& options) {
  if (given.size() < 2) throw std::invalid_argument("compare: " + std::to_string(given.size()) + " run given, expected two or more");
  if (options.reference && (*options.reference < 0 || *options.reference >= static_cast<int>(given.size())))
    throw std::invalid_argument("--reference " + std::to_string(*options.reference + 1) + ": expected 1 to " +
                                std::to_string(given.size()));
  Comparison comparison;
  comparison.thresholds = options.thresholds;
  comparison.warnings = check_same_patient(given, options.force);
  const std::vector<std::size_t> order = in_order_of_time(given, comparison.warnings);
  std::vector<const ComparedRun*> runs;
  for (const std::size_t i : order) runs.push_back(&given[i]);
  const std::vector<int> procedures = procedures_of(runs, options.thresholds);
  comparison.reference = choose_reference(runs, order, options, comparison.reference_note);
  const ComparedRun& reference = *runs[static_cast<std::size_t>(comparison.reference)];
  comparison.calibrated = reference.analysis.calibration.known();
  if (!comparison.calibrated)
    comparison.warnings.push_back(reference.description.path +
                                  ": no calibration; lengths are pixels, and a narrowing is not named: that takes its length in mm");
  const ReferenceCalibre as_it_was = reference_calibre(reference.analysis);

  comparison.runs.resize(runs.size());
  std::vector<std::optional<RunAgainstReference>> against(runs.size());
  std::vector<std::vector<AlignedSegment>> others;
  std::vector<TimelineRun> context;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const bool is_reference = static_cast<int>(r) == comparison.reference;
    ComparedRunSummary& summary = comparison.runs[r];
    if (is_reference)
      summary.registration = at_rest();
    else
      summary = place_run(reference, *runs[r], options.thresholds);
    summary.index = static_cast<int>(r);
    summary.given = static_cast<int>(order[r]);
    summary.is_reference = is_reference;
    summary.comparable = summary.comparable || is_reference;
    summary.procedure = procedures[r];
    context.push_back({runs[r]->event.kind, procedures[r], summary.comparable, is_reference});
    if (!summary.comparable) {
      comparison.warnings.push_back(runs[r]->description.path + ": " + summary.note);
      continue;
    }
    const bool same = procedures[r] == procedures[static_cast<std::size_t>(comparison.reference)];
    against[r].emplace(reference, as_it_was, *runs[r], static_cast<int>(r), summary, same, options.thresholds);
    if (!is_reference) others.push_back(against[r]->aligned());
  }

  const ReferenceCalibre calibre = widened_by(reference.analysis, as_it_was, others);
  comparison.segments = start_timelines(reference, calibre);
  for (std::size_t r = 0; r < runs.size(); ++r) {
    if (against[r]) {
      against[r]->align(calibre);
      against[r]->look_for_lost_contrast();
    }
    for (std::size_t s = 0; s < comparison.segments.size(); ++s)
      comparison.segments[s].entries.push_back(against[r] ? against[r]->entry(s)
                                                          : not_compared(static_cast<int>(r), comparison.runs[r].note));
  }

  AcrossBranchings branchings(reference.analysis, comparison.segments, options.thresholds);
  for (std::size_t r = 0; r < runs.size(); ++r) branchings.join(r);
  control_false_discoveries(comparison.segments, options.thresholds);
  for (std::size_t r = 0; r < runs.size(); ++r) branchings.look_around(r);
  for (SegmentTimeline& segment : comparison.segments) label_timeline(segment, context, options.thresholds);
  settle_by_neighbours(comparison.segments, branchings.joined());
  for (std::size_t s = 0; s < comparison.segments.size(); ++s)
    comparison.segments[s].at_px = place_of(comparison.segments[s], reference.analysis.segments[s].centreline);
  comparison.summary = summarize_spasm(comparison.segments, context, options.thresholds);
  if (!comparison.calibrated) to_pixels(comparison.segments, calibre.mm_per_px);
  return comparison;
}

}  // namespace cinelumen
