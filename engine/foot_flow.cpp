#include "engine/foot_flow.h"

#include <algorithm>
#include <cmath>

#include "kernels/stream.h"

namespace cinelumen {
namespace {

constexpr double bin_px = 12;           // stretches whose arrivals are compared ...
constexpr std::size_t most_bins = 8;    // ... longer ones in a long segment: a line through more of them is no better known
constexpr double arrival_share = 0.03;  // of a frame: what is left of an arrival's error however little noise there is ...
constexpr double arrival_s = 0.003;     // ... and however fast the frames come
constexpr double amount_sd = 0.08;      // relative, of contrast per length: diameter, mixing, overlap
constexpr double largest_steal_sd = 0.15;
constexpr double most_relative_sd = 0.5;  // of a flow that is worth anything

// Weighted straight line through arrivals; s per px.
std::optional<SegmentTransit> fit_transit(const std::vector<double>& at_px, const std::vector<double>& arrivals_s,
                                          const std::vector<double>& sd_s) {
  double w = 0, x = 0, xx = 0, y = 0, xy = 0;
  for (std::size_t i = 0; i < at_px.size(); ++i) {
    const double weight = 1 / (sd_s[i] * sd_s[i]);
    w += weight, x += weight * at_px[i], xx += weight * at_px[i] * at_px[i], y += weight * arrivals_s[i],
        xy += weight * at_px[i] * arrivals_s[i];
  }
  const double determinant = w * xx - x * x;
  if (at_px.size() < 2 || !(determinant > 0)) return {};
  SegmentTransit transit;
  transit.slowness_s_px = (w * xy - x * y) / determinant;
  const double offset = (y - transit.slowness_s_px * x) / w;
  double chi2 = 0;
  for (std::size_t i = 0; i < at_px.size(); ++i) chi2 += std::pow((arrivals_s[i] - offset - transit.slowness_s_px * at_px[i]) / sd_s[i], 2);
  const double excess = at_px.size() > 2 ? std::max(1.0, chi2 / (static_cast<double>(at_px.size()) - 2)) : 1;
  transit.sd_s_px = std::sqrt(w / determinant * excess);
  return transit;
}

/// Contrast that passes per second, in arbitrary units, and its relative SD.
struct Passing {
  double value = 0, relative_sd = 0;
};

std::optional<Passing> passing(const SegmentResult& segment, const std::optional<SegmentTransit>& transit) {
  if (!transit || !segment.diameter.median || !segment.flow.times.peak) return {};
  const double velocity = 1 / std::abs(transit->slowness_s_px);
  const Passing result{*segment.flow.times.peak * *segment.diameter.median * velocity, std::hypot(transit->sd_s_px * velocity, amount_sd)};
  if (result.relative_sd > most_relative_sd) return {};
  return result;
}

// Share of the flow that a branch at the far end of a piece of the main vein may take.
double branch_share(const FootPath& path, int segment, const Analysis& analysis) {
  const auto calibre = [&](int s) { return analysis.segments[s].diameter.median.value_or(0); };
  double main = 0, taken = 0;
  for (const int s : path.main) main = std::max(main, calibre(s));
  for (const BranchPoint& branch : analysis.branch_points) {
    if (branch.crossing || std::find(branch.segments.begin(), branch.segments.end(), segment) == branch.segments.end()) continue;
    for (const int s : branch.segments)
      if (std::find(path.main.begin(), path.main.end(), s) == path.main.end()) taken += std::pow(calibre(s) / std::max(main, 1e-9), 3);
  }
  return taken;
}

// What enters the image: the piece of the main vein that tells it best. What branches took before it counts as its error: flow goes about
// with the third power of calibre.
std::optional<Passing> inflow(const FootPath& path, const std::vector<std::optional<SegmentTransit>>& transits, const Analysis& analysis) {
  std::optional<Passing> best;
  double lost = 0;
  for (const int s : path.main) {
    if (auto here = passing(analysis.segments[s], transits[s])) {
      here->relative_sd = std::hypot(here->relative_sd, lost);
      if (!best || here->relative_sd < best->relative_sd) best = here;
    }
    lost += branch_share(path, s, analysis);
  }
  return best;
}

struct Entry {
  int segment = 0;
  bool forwards = false;  // its arc length runs towards the arch
};

// Where along the loop from either end, of its length: in either plantar vein, beyond its branches and before the arch.
constexpr double entry_share = 0.35;

std::optional<Entry> entry_of(const FootPath& path, bool from_start, const Analysis& analysis) {
  std::vector<int> way = path.loop;
  if (!from_start) std::reverse(way.begin(), way.end());
  double whole = 0, along = 0;
  for (const int s : way) whole += analysis.segments[s].centreline.length_px();
  for (std::size_t i = 0; i + 1 < way.size(); ++i) {
    const Centreline& line = analysis.segments[way[i]].centreline;
    if ((along += line.length_px()) < entry_share * whole) continue;
    // Its arc length runs towards the arch where its last point is nearer to the next piece than its first.
    const std::vector<CentrelinePoint>& next = analysis.segments[way[i + 1]].centreline.points;
    const auto gap = [&](const CentrelinePoint& p) {
      return std::min(std::hypot(p.y - next.front().y, p.x - next.front().x), std::hypot(p.y - next.back().y, p.x - next.back().x));
    };
    return Entry{way[i], gap(line.points.back()) < gap(line.points.front())};
  }
  return {};
}

void find_steal(const FootPath& path, const std::vector<std::optional<SegmentTransit>>& transits, Analysis& analysis) {
  const auto in = inflow(path, transits, analysis);
  if (!in || path.loop.size() < 3) return;
  double sum = 0, variance = 0;
  for (const bool from_start : {true, false}) {
    const std::optional<Entry> entry = entry_of(path, from_start, analysis);
    if (!entry) return;
    const auto part = passing(analysis.segments[entry->segment], transits[entry->segment]);
    if (!part) return;
    // What runs away from the arch does not come to it.
    if ((transits[entry->segment]->slowness_s_px > 0) != entry->forwards) continue;
    sum += part->value;
    variance += std::pow(part->value * part->relative_sd, 2);
  }
  const double share = sum / in->value, sd = std::hypot(std::sqrt(variance) / in->value, share * in->relative_sd);
  if (sum == 0 || sd > largest_steal_sd) return;
  analysis.flow.steal_fraction = std::clamp(1 - share, 0.0, 1.0);
  analysis.flow.steal_sd = sd;
}

}  // namespace

std::vector<std::optional<SegmentTransit>> measure_transits(const SegmentMeasurements& measurements, const Analysis& analysis) {
  std::vector<std::optional<SegmentTransit>> transits(analysis.segments.size());
  const std::vector<double>& times = analysis.frame_times_ms;
  if (times.size() < 3) return transits;
  const double frame_s = (times.back() - times.front()) / static_cast<double>(times.size() - 1) / 1000;
  parallel_for(static_cast<int>(transits.size()), [&](int s) {
    const std::vector<CentrelinePoint>& points = analysis.segments[s].centreline.points;
    if (points.size() < 2) return;
    const double length = analysis.segments[s].centreline.length_px();
    const auto count = std::clamp<std::size_t>(static_cast<std::size_t>(length / bin_px), 2, most_bins);
    std::vector<double> at, arrival, sd;
    for (std::size_t k = 0; k < count; ++k) {
      const std::size_t from = points.size() * k / count, to = points.size() * (k + 1) / count;
      if (to - from < 3) continue;
      const FlowTimes read =
          read_times(mean_curve(measurements.contrast[s], times, from, to, measurements.contrast_sd), measurements.contrast_sd);
      if (!read.arrival_ms) continue;
      at.push_back(0.5 * (points[from].arc_length_px + points[to - 1].arc_length_px));
      arrival.push_back(*read.arrival_ms / 1000);
      sd.push_back(std::hypot(read.arrival_sd_ms.value_or(0) / 1000, arrival_share * frame_s, arrival_s));
    }
    const auto transit = fit_transit(at, arrival, sd);
    if (transit && std::abs(transit->slowness_s_px) > 2 * transit->sd_s_px) transits[s] = transit;
  });
  return transits;
}

void summarize_foot_flow(const FootPath& path, const std::vector<std::optional<SegmentTransit>>& transits, Analysis& analysis) {
  find_steal(path, transits, analysis);
  const SegmentResult* first = nullptr;
  bool filled = true;
  for (const SegmentResult& segment : analysis.segments) {
    if (segment.role != "arch") continue;
    filled = filled && segment.filling != "not filled";
    const auto& arrival = segment.flow.times.arrival_ms;
    if (arrival && (!first || *arrival < *first->flow.times.arrival_ms)) first = &segment;
  }
  if (!first) return;
  analysis.flow.arch_filled = filled;
  analysis.flow.arch_arrival_ms = first->flow.times.arrival_ms;
  for (const SegmentResult& segment : analysis.segments) {
    const FlowTimes& times = segment.flow.times;
    if (segment.role != "collateral" || !times.arrival_ms) continue;
    const double sd = std::hypot(times.arrival_sd_ms.value_or(0), first->flow.times.arrival_sd_ms.value_or(0));
    if (*times.arrival_ms < *first->flow.times.arrival_ms - 2 * sd) analysis.flow.early_venous_return.push_back(segment.id);
  }
}

}  // namespace cinelumen
