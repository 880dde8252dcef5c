#include "engine/calibre_alignment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>

#include "engine/median.h"
#include "engine/segment_ends.h"

namespace cinelumen {
namespace {

/// Places where the lumen was filled, as far as can be told. Where that could not be tested a calibre like the reference's is one all the
/// same; that it is narrower is then not believed (AlignedSegment::doubt).
bool passes(const SegmentResult& segment, std::size_t point) {
  if (point >= segment.profile.points.size() || !(segment.profile.points[point].sd_px > 0)) return false;
  const FillingGate gate = point < segment.gates.size() ? segment.gates[point] : FillingGate::untested;
  return gate == FillingGate::passed || gate == FillingGate::unconfirmed || gate == FillingGate::untested;
}

/// From this reference calibre on, mm, thinner contrast does not look like a narrower lumen: the profile keeps its width.
constexpr double shape_tells_mm = 1.5;

bool fails(FillingGate gate) { return gate == FillingGate::contrast || gate == FillingGate::growing || gate == FillingGate::diluted; }

/// ln D of a vessel on either side of a place: the upper quartile of what was measured there over a length, neither a dip itself nor the
/// widened end beside a branching. NaN where a side was hardly measured.
struct Sides {
  double before = 0, after = 0;
  double lower() const { return std::isfinite(before) && std::isfinite(after) ? std::min(before, after) : unknown(); }
  double upper() const { return std::isfinite(before) && std::isfinite(after) ? std::max(before, after) : either(); }
  double either() const { return std::isfinite(before) ? before : after; }
  static double unknown() { return std::numeric_limits<double>::quiet_NaN(); }
};

/// Per point of a profile; `length`: of both sides together.
std::vector<Sides> sides_of(const std::vector<double>& arc, const std::vector<double>& log_diameter, double length) {
  constexpr double least_side_mm = 1.5;
  const auto level = [&](std::size_t i, std::ptrdiff_t step) {
    std::vector<double> values;
    double reached = 0;
    for (auto k = static_cast<std::ptrdiff_t>(i) + step; k >= 0 && k < static_cast<std::ptrdiff_t>(arc.size()); k += step) {
      const auto at = static_cast<std::size_t>(k);
      if (std::abs(arc[at] - arc[i]) > 0.5 * length) break;
      if (!std::isfinite(log_diameter[at])) continue;
      values.push_back(log_diameter[at]);
      reached = std::abs(arc[at] - arc[i]);
    }
    if (reached < least_side_mm || values.size() < 4) return Sides::unknown();
    const auto quartile = values.begin() + static_cast<std::ptrdiff_t>(3 * values.size() / 4);
    std::nth_element(values.begin(), quartile, values.end());
    return *quartile;
  };
  std::vector<Sides> result;
  for (std::size_t i = 0; i < arc.size(); ++i) result.push_back({level(i, -1), level(i, 1)});
  return result;
}

/// ln D, each the middle one of itself and its measured neighbours: one odd point is no dip and hides none. NaN where not measured.
std::vector<double> middle_of_three(const std::vector<float>& diameter_px) {
  std::vector<double> result;
  const std::size_t n = diameter_px.size();
  for (std::size_t i = 0; i < n; ++i) {
    const float before = i > 0 && diameter_px[i - 1] > 0 ? diameter_px[i - 1] : diameter_px[i];
    const float after = i + 1 < n && diameter_px[i + 1] > 0 ? diameter_px[i + 1] : diameter_px[i];
    const float middle = std::max(std::min(before, after), std::min(std::max(before, after), diameter_px[i]));
    result.push_back(diameter_px[i] > 0 ? std::log(middle) : std::numeric_limits<double>::quiet_NaN());
  }
  return result;
}

/// A place where less than this was measured says less.
constexpr double few_mm = 1;

/// Calibre where it was not measured, from the nearest place either side where it was: a vein that is hidden by another one goes on beneath
/// it. A place says what the 2 mm about it say.
void carry_on(const AlignmentOptions& options, double mm_per_px, ReferenceCalibre::Segment& segment) {
  constexpr double place_mm = 2;
  const std::size_t n = segment.diameter_px.size();
  struct Known {
    double away = 0, log_diameter = 0, sd = 0;
  };
  const auto nearest = [&](std::size_t i, std::ptrdiff_t step) -> std::optional<Known> {
    std::vector<double> values, sds;
    double first = 0;
    for (auto k = static_cast<std::ptrdiff_t>(i) + step; k >= 0 && k < static_cast<std::ptrdiff_t>(n); k += step) {
      const auto at = static_cast<std::size_t>(k);
      const double away = std::abs(segment.arc_mm[at] - segment.arc_mm[i]);
      if (away > (values.empty() ? options.reach_mm : first + place_mm)) break;
      if (!(segment.measured_px[at] > 0)) continue;
      if (values.empty()) first = away;
      values.push_back(std::log(segment.diameter_px[at]));
      sds.push_back(segment.sd_px[at] / segment.diameter_px[at]);
    }
    if (values.size() < 2) return {};
    const bool few = static_cast<double>(values.size()) * mm_per_px < few_mm;
    return Known{first, in_place_median(values), std::hypot(in_place_median(sds), options.reach_sd * first, few ? options.few_sd : 0)};
  };
  std::vector<float> diameter = segment.diameter_px, sd = segment.sd_px;
  for (std::size_t i = 0; i < n; ++i) {
    if (segment.measured_px[i] > 0) continue;
    const std::optional<Known> before = nearest(i, -1), after = nearest(i, 1);
    if (!before && !after) continue;
    double value = 0, log_sd = 0;
    if (before && after) {
      const double f = before->away / (before->away + after->away);
      value = (1 - f) * before->log_diameter + f * after->log_diameter;
      log_sd = std::min(before->sd, after->sd);
    } else {
      value = (before ? before : after)->log_diameter;
      log_sd = (before ? before : after)->sd;
    }
    diameter[i] = static_cast<float>(std::exp(value));
    sd[i] = static_cast<float>(std::exp(value) * log_sd);
  }
  segment.diameter_px = std::move(diameter);
  segment.sd_px = std::move(sd);
}

struct Calibre {
  double diameter_px = 0, sd_px = 0;
  double area_ratio = 0;  // densitometric over round; 0: not known
  bool own_kappa = false, confirmed = false, tested = false;
};

double known_area_ratio(const SegmentResult& segment, std::size_t point) {
  const DiameterProfile::Point& at = segment.profile.points[point];
  return at.own_kappa ? at.area_ratio : 0;
}

/// Between two measured neighbours, or at one of them.
std::optional<Calibre> calibre_at(const SegmentResult& segment, double place) {
  const auto last = static_cast<double>(segment.profile.points.size()) - 1;
  if (!(place >= 0) || place > last) return {};
  const auto low = static_cast<std::size_t>(place), high = std::min(low + 1, segment.profile.points.size() - 1);
  const bool use_low = passes(segment, low), use_high = passes(segment, high);
  if (!use_low && !use_high) return {};
  const double f = !use_low ? 1 : !use_high ? 0 : place - static_cast<double>(low);
  const auto &a = segment.profile.points[low], &b = segment.profile.points[high];
  Calibre calibre;
  calibre.diameter_px = (1 - f) * a.diameter_px + f * b.diameter_px;
  calibre.sd_px = (1 - f) * a.sd_px + f * b.sd_px;  // neighbours share pixels: their mean is hardly surer than one
  const std::size_t nearest = f < 0.5 ? low : high;
  calibre.own_kappa = segment.profile.points[nearest].own_kappa;
  calibre.area_ratio = known_area_ratio(segment, nearest);
  const FillingGate gate = nearest < segment.gates.size() ? segment.gates[nearest] : FillingGate::untested;
  calibre.confirmed = gate == FillingGate::passed;
  calibre.tested = gate != FillingGate::untested;
  return calibre;
}

/// Points `first` to `last` of a profile, and the largest value among them.
struct Stretch {
  std::size_t first = 0, last = 0;
  double largest = 0;
};

/// Stretches above a level, across gaps that are no longer than a millimetre: the steepest place of a short narrowing is often not
/// measured.
std::vector<Stretch> stretches_above(const std::vector<double>& arc, const std::vector<double>& values, double level) {
  constexpr double gap_mm = 1;
  std::vector<Stretch> result;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!(values[i] > level)) continue;
    Stretch stretch{i, i, values[i]};
    for (std::size_t k = i + 1; k < values.size() && arc[k] - arc[stretch.last] <= gap_mm && !(values[k] <= level); ++k)
      if (values[k] > level) {
        stretch.last = k;
        stretch.largest = std::max(stretch.largest, values[k]);
      }
    result.push_back(stretch);
    i = stretch.last;
  }
  return result;
}

/// What other runs show of one of the reference's segments, per point; both empty where there are none.
struct ShownElsewhere {
  std::vector<double> dips;          // by how much ln D of the reference is short of theirs over a short stretch, else 0
  std::vector<double> log_diameter;  // ln D, reference pixels, where the reference was not measured; NaN where they were not either
};

/// ln D of the vessel without its own short narrowings.
void bridge(const AlignmentOptions& options, const ShownElsewhere& elsewhere, ReferenceCalibre::Segment& own) {
  constexpr double any = 0.01, as_wide = 0.05;  // in ln D
  const std::size_t n = own.measured_px.size();
  const std::vector<double> smooth = middle_of_three(own.measured_px);
  // A side that the reference does not show may be known all the same.
  std::vector<double> known = smooth;
  for (std::size_t i = 0; i < elsewhere.log_diameter.size(); ++i)
    if (!std::isfinite(known[i])) known[i] = elsewhere.log_diameter[i];
  const double least = -std::log(1 - 0.01 * options.bridge_percent);
  // The whole dip is filled, its shoulders too, where it is deep enough anywhere.
  const auto fill = [&](const std::vector<double>& healthy, const auto& serves) {
    std::vector<double> depth;
    for (std::size_t i = 0; i < n; ++i) depth.push_back(healthy[i] - smooth[i]);
    for (const auto& [first, last, deepest] : stretches_above(own.arc_mm, depth, any)) {
      if (deepest < least || !serves(first, last)) continue;
      for (std::size_t k = first; k <= last; ++k)
        if (depth[k] > 0) own.diameter_px[k] = std::max(own.diameter_px[k], static_cast<float>(std::exp(healthy[k])));
    }
  };
  std::vector<double> lower;
  for (const Sides& side : sides_of(own.arc_mm, known, options.bridge_mm)) lower.push_back(side.lower());
  fill(lower, [](std::size_t, std::size_t) { return true; });
  if (elsewhere.dips.empty()) return;
  const std::vector<Sides> sides = sides_of(own.arc_mm, smooth, options.bridge_mm);
  std::vector<double> before, after;
  for (const Sides& side : sides) {
    before.push_back(side.before);
    after.push_back(side.after);
  }
  // One side is enough where other runs show a part of the dip to be as wide.
  for (const std::vector<double>* side : {&before, &after})
    fill(*side, [&](std::size_t first, std::size_t last) {
      if (own.arc_mm[last] - own.arc_mm[first] > options.bridge_mm) return false;
      for (std::size_t k = first; k <= last; ++k)
        if (elsewhere.dips[k] >= least && smooth[k] + elsewhere.dips[k] > (*side)[k] - as_wide) return true;
      return false;
    });
  for (std::size_t i = 0; i < n; ++i) {
    if (!(own.measured_px[i] > 0) || !(elsewhere.dips[i] > 0)) continue;
    // No wider than the vessel is beside it: else the others are wrong there.
    const double shown = std::log(own.measured_px[i]) + elsewhere.dips[i], most = sides[i].upper() + as_wide;
    own.diameter_px[i] = std::max(own.diameter_px[i], static_cast<float>(std::exp(shown > most ? most : shown)));
  }
}

/// By how much ln D of a run exceeds the reference's calibre, each the middle one of five neighbours that were measured, or that the
/// reference carries on (`carried`), of fewer at their ends; NaN elsewhere.
std::vector<double> wider_by(const AlignedSegment& run, const ReferenceCalibre::Segment& own, bool carried) {
  constexpr std::size_t half = 2;
  const std::size_t n = own.measured_px.size();
  std::vector<double> result(n, std::numeric_limits<double>::quiet_NaN()), values;
  const auto counts = [&](std::size_t i) { return std::isfinite(run.ratio[i]) && (own.measured_px[i] > 0) != carried; };
  for (std::size_t i = 0; i < n; ++i) {
    if (!counts(i)) continue;
    std::size_t reach = 0;  // to both sides alike: what ends steeply is not to be flattened
    while (reach < std::min({half, i, n - 1 - i}) && counts(i - reach - 1) && counts(i + reach + 1)) ++reach;
    values.clear();
    for (std::size_t k = i - reach; k <= i + reach; ++k) values.push_back(run.ratio[k]);
    result[i] = in_place_median(values);
    if (!carried && result[i] < 2 * run.sd[i]) result[i] = std::min(result[i], 0.0);  // not sure of it
  }
  return result;
}

/// The least that the last runs show of those that measured a place: what was opened stays open, and one of them may err.
std::vector<double> least_of_the_last(const std::vector<std::vector<double>>& by_run, std::size_t points) {
  constexpr std::size_t most_runs = 3;
  std::vector<double> result(points, std::numeric_limits<double>::quiet_NaN()), values;
  for (std::size_t i = 0; i < points; ++i) {
    values.clear();
    for (const std::vector<double>& run : by_run)
      if (std::isfinite(run[i])) values.push_back(run[i]);
    const std::size_t asked = std::min<std::size_t>(most_runs, (values.size() + 1) / 2);
    if (!values.empty()) result[i] = *std::min_element(values.end() - static_cast<std::ptrdiff_t>(asked), values.end());
  }
  return result;
}

/// Of what is wider elsewhere, the stretches that are deep enough and short: a vessel that is wider all along was only smaller then. So one
/// side of it must have been seen to be as wide as elsewhere, or the reference itself widens to both by half of what it lacks.
std::vector<double> short_dips(const ReferenceCalibre::Segment& own, const AlignmentOptions& options, const std::vector<double>& wider) {
  constexpr double comes_back = 0.5;
  const std::vector<double>& arc = own.arc_mm;
  const double least = -std::log(1 - 0.01 * options.bridge_percent), edge = 0.3 * least;
  const auto as_wide = [&](std::ptrdiff_t from, std::ptrdiff_t step) {
    constexpr int enough = 4, looked_at = 8;  // points
    int count = 0;
    for (std::ptrdiff_t k = from; k >= 0 && k < static_cast<std::ptrdiff_t>(wider.size()) && std::abs(k - from) < looked_at; k += step)
      count += wider[static_cast<std::size_t>(k)] <= edge;
    return count >= enough;
  };
  std::vector<double> dips(wider.size(), 0.0);
  for (const auto& [first, last, deepest] : stretches_above(arc, wider, edge)) {
    if (deepest < least || arc[last] - arc[first] > options.bridge_mm) continue;
    float narrowest = own.measured_px[first];
    for (std::size_t k = first; k <= last; ++k)
      if (own.measured_px[k] > 0) narrowest = std::min(narrowest, own.measured_px[k]);
    const double ends = std::log(std::min(own.measured_px[first], own.measured_px[last]) / narrowest);
    if (ends >= comes_back * deepest || as_wide(static_cast<std::ptrdiff_t>(first) - 1, -1) ||
        as_wide(static_cast<std::ptrdiff_t>(last) + 1, 1))
      for (std::size_t k = first; k <= last; ++k)
        if (std::isfinite(wider[k])) dips[k] = wider[k];
  }
  return dips;
}

/// Segments of which hardly anything was measured, between branchings: the vessel that goes straight on there has nearly the same calibre.
class HiddenLinks {
 public:
  HiddenLinks(const Analysis& reference, const AlignmentOptions& options, ReferenceCalibre& calibre)
      : reference_(reference), options_(options), calibre_(calibre), ends_(segment_ends(reference)) {}

  void carry_on() {
    const std::vector<ReferenceCalibre::Segment> before = calibre_.segments;
    for (std::size_t s = 0; s < before.size(); ++s) {
      const auto measured = std::count_if(before[s].measured_px.begin(), before[s].measured_px.end(), [](float d) { return d > 0; });
      if (static_cast<double>(measured) * calibre_.mm_per_px >= few_mm) continue;
      std::vector<Beyond> ends;
      for (const std::size_t end : {0, 1})
        if (const std::optional<Beyond> there = beyond(before, s, end)) ends.push_back(*there);
      for (std::size_t i = 0; i < before[s].diameter_px.size(); ++i) {
        if (before[s].diameter_px[i] > 0) continue;
        double weights = 0, sum = 0, least_sd = std::numeric_limits<double>::infinity();
        for (const Beyond& there : ends) {
          const double away = there.away_mm + std::abs(before[s].arc_mm[i] - there.end_mm);
          if (away > 2 * options_.reach_mm) continue;
          const double sd = std::hypot(options_.branching_sd, options_.reach_sd * away);
          weights += 1 / (sd * sd);
          sum += there.log_diameter / (sd * sd);
          least_sd = std::min(least_sd, sd);  // both sides may err alike
        }
        if (!(weights > 0)) continue;
        const double value = std::exp(sum / weights);
        calibre_.segments[s].diameter_px[i] = static_cast<float>(value);
        calibre_.segments[s].sd_px[i] = static_cast<float>(value * least_sd);
      }
    }
  }

 private:
  /// What was measured first beyond an end of a segment, and how far from that end.
  struct Beyond {
    double end_mm = 0, away_mm = 0, log_diameter = 0;
  };
  std::optional<Beyond> beyond(const std::vector<ReferenceCalibre::Segment>& segments, std::size_t s, std::size_t end) const {
    const int other = straight_on(s, end);
    if (other < 0 || straight_on(static_cast<std::size_t>(other), end_at(other, ends_[s][end])) != static_cast<int>(s)) return {};
    const ReferenceCalibre::Segment& there = segments[static_cast<std::size_t>(other)];
    const std::size_t n = there.measured_px.size();
    const bool from_start = end_at(other, ends_[s][end]) == 0;
    for (std::size_t k = 0; k < n; ++k) {
      const std::size_t at = from_start ? k : n - 1 - k;
      if (!(there.measured_px[at] > 0)) continue;
      return Beyond{end == 0 ? 0 : segments[s].arc_mm.back(), from_start ? there.arc_mm[at] : there.arc_mm.back() - there.arc_mm[at],
                    std::log(there.diameter_px[at])};
    }
    return {};
  }
  std::size_t end_at(int s, int branch) const { return ends_[static_cast<std::size_t>(s)][0] == branch ? 0 : 1; }
  std::array<double, 2> outward(std::size_t s, std::size_t end) const {
    constexpr std::size_t reach = 8;  // points
    return direction_from_end(reference_.segments[s].centreline, end, reach);
  }
  int straight_on(std::size_t s, std::size_t end) const {
    constexpr double straight_cosine = 0.7;
    const int branch = ends_[s][end];
    if (branch < 0) return -1;
    const auto here = outward(s, end);
    int best = -1;
    double least = -straight_cosine;
    for (const int o : reference_.branch_points[static_cast<std::size_t>(branch)].segments) {
      if (o == static_cast<int>(s)) continue;
      const auto there = outward(static_cast<std::size_t>(o), end_at(o, branch));
      const double cosine = here[0] * there[0] + here[1] * there[1];
      if (cosine < least) least = cosine, best = o;
    }
    return best;
  }

  const Analysis& reference_;
  const AlignmentOptions& options_;
  ReferenceCalibre& calibre_;
  std::vector<std::array<int, 2>> ends_;
};

/// `elsewhere`: per segment.
ReferenceCalibre healthy_calibre(const Analysis& reference, const std::vector<ShownElsewhere>& elsewhere, const AlignmentOptions& options) {
  ReferenceCalibre result;
  result.calibrated = reference.calibration.known();
  if (result.calibrated) result.mm_per_px = reference.calibration.mm_per_px;
  for (std::size_t s = 0; s < reference.segments.size(); ++s) {
    const SegmentResult& segment = reference.segments[s];
    ReferenceCalibre::Segment own;
    for (std::size_t i = 0; i < segment.centreline.points.size(); ++i) {
      own.arc_mm.push_back(segment.centreline.points[i].arc_length_px * result.mm_per_px);
      const bool measured = passes(segment, i);
      own.measured_px.push_back(measured ? segment.profile.points[i].diameter_px : 0);
      own.sd_px.push_back(measured ? segment.profile.points[i].sd_px : 0);
    }
    own.diameter_px = own.measured_px;
    if (result.calibrated) bridge(options, elsewhere[s], own);
    carry_on(options, result.mm_per_px, own);
    result.segments.push_back(std::move(own));
  }
  HiddenLinks(reference, options, result).carry_on();
  return result;
}

}  // namespace

ReferenceCalibre reference_calibre(const Analysis& reference, const AlignmentOptions& options) {
  return healthy_calibre(reference, std::vector<ShownElsewhere>(reference.segments.size()), options);
}

ReferenceCalibre widened_by(const Analysis& reference, const ReferenceCalibre& calibre,
                            const std::vector<std::vector<AlignedSegment>>& runs, const AlignmentOptions& options) {
  std::vector<ShownElsewhere> elsewhere;
  for (std::size_t s = 0; s < calibre.segments.size(); ++s) {
    const ReferenceCalibre::Segment& own = calibre.segments[s];
    const std::size_t n = own.measured_px.size();
    std::vector<std::vector<double>> where_measured, where_carried;
    for (const std::vector<AlignedSegment>& run : runs) {
      where_measured.push_back(wider_by(run[s], own, false));
      where_carried.push_back(wider_by(run[s], own, true));
    }
    ShownElsewhere& shown = elsewhere.emplace_back();
    shown.dips = short_dips(own, options, least_of_the_last(where_measured, n));
    shown.log_diameter = least_of_the_last(where_carried, n);
    for (std::size_t i = 0; i < n; ++i) shown.log_diameter[i] += std::log(std::max(own.diameter_px[i], 1e-6F));
  }
  return healthy_calibre(reference, elsewhere, options);
}

std::vector<double> densities_as_wide(const AlignedSegment& segment) {
  constexpr double as_wide = 0.95;
  std::vector<double> values;
  for (std::size_t i = 0; i < segment.density.size(); ++i)
    if (std::isfinite(segment.density[i]) && segment.ratio[i] > std::log(as_wide)) values.push_back(segment.density[i]);
  return values;
}

std::vector<AlignedSegment> align_calibres(const Analysis& reference, const ReferenceCalibre& calibre, const Analysis& run,
                                           const VesselMatching& matching, double scale) {
  constexpr float unknown = std::numeric_limits<float>::quiet_NaN();
  std::vector<AlignedSegment> result;
  for (std::size_t s = 0; s < reference.segments.size(); ++s) {
    const ReferenceCalibre::Segment& own = calibre.segments[s];
    AlignedSegment aligned;
    int measured = 0, both = 0, carried = 0, matched = 0, failed = 0, doubtful = 0;
    for (std::size_t i = 0; i < own.diameter_px.size(); ++i) {
      aligned.ratio.push_back(unknown);
      aligned.sd.push_back(unknown);
      aligned.density.push_back(unknown);
      measured += own.measured_px[i] > 0;
      const PointMatch& match = matching.points[s][i];
      if (match.segment < 0) continue;
      const SegmentResult& there = run.segments[static_cast<std::size_t>(match.segment)];
      ++matched;
      const auto nearest = static_cast<std::size_t>(std::lround(std::max(0.0, match.point)));
      const bool fails_here = nearest < there.gates.size() && fails(there.gates[nearest]);
      failed += fails_here;
      if (fails_here) aligned.failed_mm.push_back(own.arc_mm[i]);
      if (!(own.diameter_px[i] > 0)) continue;
      const std::optional<Calibre> found = calibre_at(there, match.point);
      if (!found || !(found->diameter_px > 0)) continue;
      ++(own.measured_px[i] > 0 ? both : carried);
      aligned.ratio.back() = static_cast<float>(std::log(found->diameter_px / scale / own.diameter_px[i]));
      aligned.sd.back() = static_cast<float>(std::hypot(found->sd_px / found->diameter_px, own.sd_px[i] / own.diameter_px[i]));
      if (own.measured_px[i] > 0 && found->area_ratio > 0 && known_area_ratio(reference.segments[s], i) > 0)
        aligned.density.back() = static_cast<float>(std::log(found->area_ratio / known_area_ratio(reference.segments[s], i)));
      doubtful += !found->tested || (own.diameter_px[i] * calibre.mm_per_px < shape_tells_mm && !found->own_kappa && !found->confirmed);
    }
    aligned.measured_share = measured > 0 ? static_cast<double>(both) / measured : 0;
    aligned.filling_failed_share = matched > 0 ? static_cast<double>(failed) / matched : 0;
    aligned.doubt = both + carried > 0 ? static_cast<double>(doubtful) / (both + carried) : 0;
    result.push_back(std::move(aligned));
  }
  return result;
}

}  // namespace cinelumen
