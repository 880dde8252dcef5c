#include "engine/lost_contrast.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "engine/median.h"
#include "engine/path_contrast.h"
#include "engine/segment_ends.h"
#include "engine/words.h"

namespace cinelumen {
namespace {

/// What a point of the reference's centreline shows in the run.
enum class Seen : std::uint8_t { out_of_view, vessel, contrast, thread, empty };

struct Segment {
  std::vector<Seen> seen;
  std::vector<double> ratio_log;          // of threads and empty points: ln of calibre, or its bound, over the reference's
  int first_empty = -1, last_empty = -1;  // the longest stretch without contrast
  bool lost = false;
  bool has_threads = false;
};

/// The reference's vessels laid into the run's picture.
class Search {
 public:
  Search(const Analysis& reference, const ReferenceCalibre& calibre, const Analysis& run, ImageView<const std::uint8_t> valid,
         const RunRegistration& registration, const VesselMatching& matching, const std::vector<AlignedSegment>& aligned,
         const LostContrastOptions& options)
      : reference_(reference),
        calibre_(calibre),
        run_(run),
        valid_(valid),
        registration_(registration),
        matching_(matching),
        aligned_(aligned),
        options_(options) {
    mm_ = calibre.mm_per_px;
    std::vector<std::vector<PathContrast>> contrast;
    for (std::size_t s = 0; s < reference.segments.size(); ++s) contrast.push_back(read(s));
    learn_attenuation(contrast);
    for (std::size_t s = 0; s < reference.segments.size(); ++s) segments_.push_back(look(s, contrast[s]));
  }

  std::vector<LostContrast> verdicts() {
    connect();
    connect_threads();
    std::vector<LostContrast> result;
    for (std::size_t s = 0; s < segments_.size(); ++s) result.push_back(verdict(s));
    return result;
  }

 private:
  std::vector<PathContrast> read(std::size_t s) const {
    const std::vector<CentrelinePoint>& points = reference_.segments[s].centreline.points;
    std::vector<PathPoint> path;
    for (std::size_t i = 0; i < points.size(); ++i) {
      const auto at = registration_.forward(points[i].y, points[i].x);
      const auto on = registration_.forward(points[i].y + points[i].tangent_y, points[i].x + points[i].tangent_x);
      const double ty = on[0] - at[0], tx = on[1] - at[1], length = std::max(1e-9, std::hypot(ty, tx));
      const double radius = 0.5 * std::max<double>(diameter_px(s, i), 2) * registration_.scale;
      path.push_back({at[0], at[1], ty / length, tx / length, radius + options_.place_sd_px + 1});
    }
    const int window = std::max(1, static_cast<int>(std::lround(options_.window_mm / mm_)));
    return read_path(run_.maximum_opacification.view(), valid_, path, window);
  }
  double diameter_px(std::size_t s, std::size_t i) const {
    const float known = calibre_.segments[s].diameter_px[i];
    return known > 0 ? known : 2 * reference_.segments[s].centreline.points[i].radius_px;
  }

  /// Contrast area over lumen area where both are known: what the picture makes of a lumen.
  void learn_attenuation(const std::vector<std::vector<PathContrast>>& contrast) {
    std::vector<double> values;
    for (std::size_t s = 0; s < contrast.size(); ++s)
      for (std::size_t i = 0; i < contrast[s].size(); ++i) {
        const PointMatch& match = matching_.points[s][i];
        if (match.segment < 0 || !contrast[s][i].in_view) continue;
        const auto& points = run_.segments[static_cast<std::size_t>(match.segment)].profile.points;
        const auto nearest = static_cast<std::size_t>(std::lround(std::max(0.0, match.point)));
        if (nearest >= points.size() || !(points[nearest].sd_px > 0)) continue;
        const double d = points[nearest].diameter_px;
        values.push_back(contrast[s][i].area_px / (d * d));
      }
    attenuation_ = values.size() >= 20 ? std::max(0.0, in_place_median(values)) : 0;
  }

  Segment look(std::size_t s, const std::vector<PathContrast>& contrast) const {
    Segment segment;
    const std::size_t n = contrast.size();
    for (std::size_t i = 0; i < n; ++i) {
      const PathContrast& c = contrast[i];
      const bool traced = matching_.points[s][i].segment >= 0, clear = c.area_px > options_.seen_sds * c.sd_px;
      const double area = clear ? c.area_px : std::max(0.0, c.area_px) + 2 * c.sd_px;
      // Less than what counts as contrast can't be told from what the subtraction leaves.
      const double ratio = std::max(std::log(options_.least_share), 0.5 * std::log(std::max(area, 1e-6) / std::max(attenuation_, 1e-9)) -
                                                                        std::log(diameter_px(s, i) * registration_.scale));
      segment.seen.push_back(!c.in_view ? Seen::out_of_view
                             : traced   ? look_at_traced(matching_.points[s][i], clear, ratio)
                                        : look_at_untraced(clear, ratio));
      segment.ratio_log.push_back(ratio);
    }
    find_longest(s, segment);
    for (std::size_t i = 0; i < n; ++i) segment.has_threads = segment.has_threads || is_thread(segment, i);
    return segment;
  }
  /// Contrast too thin for the vessel; or none, over less than what counts as lost.
  static bool is_thread(const Segment& segment, std::size_t i) {
    return segment.seen[i] == Seen::thread || (segment.seen[i] == Seen::empty && !segment.lost);
  }
  /// The first and the last point of a segment that has some.
  static std::array<std::size_t, 2> ends_of_threads(const Segment& segment) {
    std::size_t first = 0, last = segment.seen.size() - 1;
    while (!is_thread(segment, first)) ++first;
    while (!is_thread(segment, last)) --last;
    return {first, last};
  }
  /// How much contrast a lumen has may not be known.
  Seen look_at_untraced(bool clear, double ratio) const {
    if (!(attenuation_ > 0)) return Seen::contrast;
    if (clear && ratio > std::log(options_.least_share)) return ratio < std::log(options_.thread_share) ? Seen::thread : Seen::contrast;
    // A bound that would let half the calibre through says nothing.
    return ratio > std::log(0.5) ? Seen::contrast : Seen::empty;
  }
  Seen look_at_traced(const PointMatch& match, bool clear, double ratio) const {
    const SegmentResult& there = run_.segments[static_cast<std::size_t>(match.segment)];
    const auto nearest = static_cast<std::size_t>(std::lround(std::max(0.0, match.point)));
    const bool measured = nearest < there.profile.points.size() && there.profile.points[nearest].sd_px > 0;
    const FillingGate gate = nearest < there.gates.size() ? there.gates[nearest] : FillingGate::untested;
    const bool may_be_narrow = !measured && gate != FillingGate::contrast && gate != FillingGate::growing;
    return may_be_narrow && attenuation_ > 0 && clear && ratio < std::log(options_.traced_thread_share) ? Seen::thread : Seen::vessel;
  }

  void find_longest(std::size_t s, Segment& segment) const {
    const std::vector<double>& arc = calibre_.segments[s].arc_mm;
    for (std::size_t i = 0; i < segment.seen.size(); ++i) {
      if (segment.seen[i] != Seen::empty) continue;
      // What crosses it, or noise, does not part it.
      constexpr double parted_mm = 1.5;
      std::size_t last = i;
      for (std::size_t k = i + 1; k < segment.seen.size() && arc[k] - arc[last] <= parted_mm; ++k) {
        if (segment.seen[k] == Seen::vessel || segment.seen[k] == Seen::out_of_view) break;
        if (segment.seen[k] == Seen::empty) last = k;
      }
      if (segment.first_empty < 0 || arc[last] - arc[i] > length(s, segment)) {
        segment.first_empty = static_cast<int>(i);
        segment.last_empty = static_cast<int>(last);
      }
      i = last;
    }
    // A short link between branchings that is empty as a whole, or what the field shows of a vessel, belongs to what is lost about it. Its
    // first millimetres are averaged with what fills the branching.
    constexpr double empty_share = 0.55;
    const auto in_view = std::count_if(segment.seen.begin(), segment.seen.end(), [](Seen seen) { return seen != Seen::out_of_view; });
    const double least = std::min(options_.least_mm, empty_share * mm_ * static_cast<double>(in_view));
    // Where the field cuts a stretch off, all that averaging takes from it lies on its other side, and counts.
    const double averaged = is_cut_off(segment) ? 0.5 * options_.window_mm : 0;
    segment.lost = segment.first_empty >= 0 && length(s, segment) + averaged >= std::max(least, 1.0);
  }
  static bool is_cut_off(const Segment& segment) {
    if (segment.first_empty < 0) return false;
    const auto first = static_cast<std::size_t>(segment.first_empty), beyond = static_cast<std::size_t>(segment.last_empty) + 1;
    return (first > 0 && segment.seen[first - 1] == Seen::out_of_view) ||
           (beyond < segment.seen.size() && segment.seen[beyond] == Seen::out_of_view);
  }
  double length(std::size_t s, const Segment& segment) const {
    const std::vector<double>& arc = calibre_.segments[s].arc_mm;
    return arc[static_cast<std::size_t>(segment.last_empty)] - arc[static_cast<std::size_t>(segment.first_empty)];
  }

  /// Which lost stretches lie on a way from contrast to contrast: others lead nowhere, and were perhaps not reached.
  void connect() {
    const std::size_t n = segments_.size();
    ends_ = segment_ends(reference_);
    on_the_way_.assign(n, false);
    for (std::size_t s = 0; s < n; ++s) on_the_way_[s] = segments_[s].lost;
    for (bool changed = true; changed;) {
      changed = false;
      for (std::size_t s = 0; s < n; ++s)
        if (on_the_way_[s] && !(leads_to_contrast(s, 0) && leads_to_contrast(s, 1))) {
          on_the_way_[s] = false;
          changed = true;
        }
    }
  }
  /// At an end of the lost stretch: contrast in the same segment beyond it, or at the branching, or another lost stretch that goes on, or
  /// the inlet.
  bool leads_to_contrast(std::size_t s, std::size_t end) const {
    const Segment& segment = segments_[s];
    const int n = static_cast<int>(segment.seen.size());
    const int from = end == 0 ? 0 : segment.last_empty + 1, to = end == 0 ? segment.first_empty : n;
    int filled = 0;
    for (int i = from; i < to; ++i) {
      const Seen seen = segment.seen[static_cast<std::size_t>(i)];
      filled += seen == Seen::vessel || seen == Seen::contrast || seen == Seen::thread;
    }
    if (filled * mm_ >= 1) return true;
    const int branch = ends_[s][end];
    if (branch < 0) {
      const auto& points = reference_.segments[s].centreline.points;
      return is_inlet(s) && leaves_image(reference_, end == 0 ? points.front() : points.back());
    }
    for (const int other : reference_.branch_points[static_cast<std::size_t>(branch)].segments) {
      const auto o = static_cast<std::size_t>(other);
      if (o == s) continue;
      if (on_the_way_[o]) return true;
      const bool at_start = ends_[o][0] == branch;
      if (filled_at(o, at_start, true)) return true;
    }
    return false;
  }
  /// Among the first that contrast came into.
  bool is_inlet(std::size_t s) const {
    const auto& arrival = reference_.segments[s].flow.times.arrival_ms;
    return reference_.segments[s].role == "main" || (arrival && *arrival <= first_arrival(reference_) + 1.5 * frame_ms(reference_));
  }
  /// `thinly`: a thread fills it, too.
  bool filled_at(std::size_t s, bool at_start, bool thinly = false) const {
    const Segment& segment = segments_[s];
    const std::size_t n = segment.seen.size(),
                      reach = std::min<std::size_t>(n, static_cast<std::size_t>(std::ceil(options_.least_mm / mm_)));
    std::size_t filled = 0;
    for (std::size_t k = 0; k < reach; ++k) {
      const Seen seen = segment.seen[at_start ? k : n - 1 - k];
      filled += seen == Seen::vessel || seen == Seen::contrast || (thinly && seen == Seen::thread);
    }
    return 2 * filled > reach;
  }
  /// Which segments' threads lie between filled vessels, in them or across branchings. A lumen that has not filled yet looks like a thread
  /// too, but no filled vessel lies beyond it.
  void connect_threads() {
    threaded_.assign(segments_.size(), false);
    for (std::size_t s = 0; s < segments_.size(); ++s) threaded_[s] = segments_[s].has_threads;
    for (bool changed = true; changed;) {
      changed = false;
      for (std::size_t s = 0; s < segments_.size(); ++s) {
        if (!threaded_[s]) continue;
        const auto [first, last] = ends_of_threads(segments_[s]);
        threaded_[s] = leads_to_vessel(s, first, 0) && leads_to_vessel(s, last, 1);
        changed = changed || !threaded_[s];
      }
    }
    keep_those_with_shoulders();
  }
  /// From point i on towards an end: a vessel in the segment itself, or beyond the branching there.
  bool leads_to_vessel(std::size_t s, std::size_t i, std::size_t end) const {
    const std::vector<Seen>& seen = segments_[s].seen;
    const auto middle = seen.begin() + static_cast<std::ptrdiff_t>(i);
    const auto vessels = end == 0 ? std::count(seen.begin(), middle, Seen::vessel) : std::count(middle, seen.end(), Seen::vessel);
    if (static_cast<double>(vessels) * mm_ >= 2) return true;
    const std::vector<double>& arc = calibre_.segments[s].arc_mm;
    if ((end == 0 ? arc[i] - arc.front() : arc.back() - arc[i]) > options_.hidden_mm) return false;
    const int branch = ends_[s][end];
    if (branch < 0) return false;
    const std::vector<int>& meet = reference_.branch_points[static_cast<std::size_t>(branch)].segments;
    return std::any_of(meet.begin(), meet.end(), [&](int other) {
      const auto o = static_cast<std::size_t>(other);
      return o != s && (threaded_[o] || filled_at(o, ends_[o][0] == branch));
    });
  }

  enum class Shoulder { unknown, none, narrows };
  /// A shoulder anywhere in what hangs together tells for all of it, but for a segment that shows that it has none.
  void keep_those_with_shoulders() {
    std::vector<Shoulder> own;
    std::vector<char> told(segments_.size(), false);
    for (std::size_t s = 0; s < segments_.size(); ++s) {
      own.push_back(threaded_[s] ? shoulder_of(s) : Shoulder::none);
      told[s] = own[s] == Shoulder::narrows;
    }
    for (bool changed = true; changed;) {
      changed = false;
      for (const BranchPoint& branch : reference_.branch_points) {
        const auto is_told = [&](int s) { return told[static_cast<std::size_t>(s)] != 0; };
        if (std::none_of(branch.segments.begin(), branch.segments.end(), is_told)) continue;
        for (const int s : branch.segments) {
          const auto other = static_cast<std::size_t>(s);
          if (told[other] || own[other] != Shoulder::unknown) continue;
          told[other] = changed = true;
        }
      }
    }
    threaded_ = std::move(told);
  }
  /// What was measured beside a segment's threads, on either side.
  Shoulder shoulder_of(std::size_t s) const {
    const AlignedSegment& aligned = aligned_[s];
    // In a thin vein, sized by its contrast, thinner contrast looks like a shoulder.
    if (aligned.doubt > 0.5 || median_mm(s) < options_.least_calibre_mm) return Shoulder::none;
    const auto [first, last] = ends_of_threads(segments_[s]);
    const Shoulder before = shoulder_beside(s, first, -1), after = shoulder_beside(s, last, 1);
    if (before == Shoulder::narrows || after == Shoulder::narrows) return Shoulder::narrows;
    return before == Shoulder::none || after == Shoulder::none ? Shoulder::none : Shoulder::unknown;
  }
  /// The nearest places that were measured from point i on.
  Shoulder shoulder_beside(std::size_t s, std::size_t i, std::ptrdiff_t step) const {
    constexpr std::size_t enough = 3;  // points
    const AlignedSegment& aligned = aligned_[s];
    const std::vector<double>& arc = calibre_.segments[s].arc_mm;
    const double dense = middle_of(densities_as_wide(aligned)) + std::log1p(options_.layered_density);
    std::vector<double> ratios;
    bool layered = false;
    for (auto k = static_cast<std::ptrdiff_t>(i) + step; k >= 0 && k < static_cast<std::ptrdiff_t>(arc.size()) && ratios.size() < enough;
         k += step) {
      const auto at = static_cast<std::size_t>(k);
      if (std::abs(arc[at] - arc[i]) > options_.shoulder_mm) break;
      if (!std::isfinite(aligned.ratio[at])) continue;
      ratios.push_back(aligned.ratio[at]);
      // Layered contrast narrows too, but holds more of it than a round lumen of that width.
      layered = layered || aligned.density[at] > dense;
    }
    if (ratios.size() < enough) return Shoulder::unknown;
    return in_place_median(ratios) < std::log(options_.shoulder_share) && !layered ? Shoulder::narrows : Shoulder::none;
  }

  static double frame_ms(const Analysis& analysis) {
    const std::vector<double>& times = analysis.frame_times_ms;
    return times.size() < 2 ? 0 : (times.back() - times.front()) / static_cast<double>(times.size() - 1);
  }
  static double first_arrival(const Analysis& analysis) {
    double first = std::numeric_limits<double>::infinity();
    for (const SegmentResult& segment : analysis.segments)
      if (segment.flow.times.arrival_ms) first = std::min(first, *segment.flow.times.arrival_ms);
    return first;
  }
  /// When contrast should have been there for long enough; empty where arrival times are not known.
  std::optional<double> missed_from_ms(std::size_t s) const {
    const auto& arrival = reference_.segments[s].flow.times.arrival_ms;
    const double start = first_arrival(reference_), start_here = first_arrival(run_);
    if (!arrival || !std::isfinite(start) || !std::isfinite(start_here) || run_.frame_times_ms.size() < 2) return {};
    const double way = *arrival - start, step = frame_ms(run_);
    return start_here + way + options_.arrival_sds * std::hypot(options_.arrival_relative_sd * way, step);
  }

  double median_mm(std::size_t s) const {
    std::vector<double> known;
    for (const float d : calibre_.segments[s].diameter_px)
      if (d > 0) known.push_back(d);
    return known.empty() ? 0 : mm_ * in_place_median(known);
  }
  LostContrast verdict(std::size_t s) const {
    const Segment& segment = segments_[s];
    LostContrast result;
    int in_view = 0, empty = 0;
    for (const Seen seen : segment.seen) {
      in_view += seen != Seen::out_of_view;
      empty += seen == Seen::empty;
    }
    const auto n = static_cast<double>(segment.seen.size());
    result.in_view_share = n > 0 ? in_view / n : 0;
    result.empty_share = in_view > 0 ? static_cast<double>(empty) / in_view : 0;
    const std::vector<double>& arc = calibre_.segments[s].arc_mm;
    const bool both_ends = segment.lost && on_the_way_[s];
    if (segment.lost) {
      result.from_mm = arc[static_cast<std::size_t>(segment.first_empty)];
      result.to_mm = arc[static_cast<std::size_t>(segment.last_empty)];
      std::vector<double> bounds(segment.ratio_log.begin() + segment.first_empty, segment.ratio_log.begin() + segment.last_empty + 1);
      result.bound = std::min(1.0, std::exp(in_place_median(bounds)));
      const auto missed = missed_from_ms(s);
      const bool long_enough = missed && run_.frame_times_ms.back() >= *missed;
      const bool thin = median_mm(s) < options_.least_calibre_mm;
      result.occluded = both_ends && long_enough && !thin;
      result.note =
          !both_ends ? "no contrast in it and none beyond it: shut, or not reached by the injection"
          : thin     ? "no contrast between vessels that have some, but a vein this thin is passed by where pressures at its ends are alike"
          : !missed  ? "no contrast between vessels that have some, but when it should have come is not known"
          : !long_enough
              ? text("no contrast, but the run ends %.1f s before it would be missed", (*missed - run_.frame_times_ms.back()) / 1000)
              : text("vessels on both sides of it fill; contrast is missed %.1f s before the run's end",
                     (run_.frame_times_ms.back() - *missed) / 1000);
    }
    if (threads_tell(s, segment)) add_threads(s, segment, result);
    return result;
  }

  /// Thin lumens look thin for other reasons too: veins through which little flows are passed by, and what the run ends on is still
  /// filling.
  bool threads_tell(std::size_t s, const Segment& segment) const {
    const auto missed = missed_from_ms(s);
    const bool long_enough = missed && run_.frame_times_ms.back() >= *missed;
    return segment.has_threads && threaded_[s] && long_enough && median_mm(s) >= options_.least_calibre_mm;
  }
  void add_threads(std::size_t s, const Segment& segment, LostContrast& result) const {
    const std::vector<double>& arc = calibre_.segments[s].arc_mm;
    for (std::size_t i = 0; i < segment.seen.size(); ++i) {
      if (!is_thread(segment, i) || !(calibre_.segments[s].diameter_px[i] > 0)) continue;
      const bool gap = segment.seen[i] == Seen::empty;
      const double least = std::log(options_.measurable_mm / (diameter_px(s, i) * mm_));
      result.bounded = result.bounded || gap || segment.ratio_log[i] < least;
      result.threads.push_back(gap ? LogRatio{arc[i], segment.ratio_log[i] + std::log(0.5), options_.unseen_sd, options_.window_mm}
                                   : LogRatio{arc[i], segment.ratio_log[i], options_.thread_sd, options_.window_mm});
    }
  }

  const Analysis& reference_;
  const ReferenceCalibre& calibre_;
  const Analysis& run_;
  ImageView<const std::uint8_t> valid_;
  const RunRegistration& registration_;
  const VesselMatching& matching_;
  const std::vector<AlignedSegment>& aligned_;
  const LostContrastOptions& options_;
  double mm_ = 1, attenuation_ = 0;
  std::vector<Segment> segments_;
  std::vector<char> threaded_;
  std::vector<std::array<int, 2>> ends_;
  std::vector<char> on_the_way_;
};

}  // namespace

std::vector<LostContrast> find_lost_contrast(const Analysis& reference, const ReferenceCalibre& calibre, const Analysis& run,
                                             ImageView<const std::uint8_t> valid, const RunRegistration& registration,
                                             const VesselMatching& matching, const std::vector<AlignedSegment>& aligned,
                                             const LostContrastOptions& options) {
  return Search(reference, calibre, run, valid, registration, matching, aligned, options).verdicts();
}

}  // namespace cinelumen
