#include "io/comparison_views.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace cinelumen {
namespace {

constexpr double bin_reach = 1.0;      // of a bin's step: how far its figure is taken for the vessel's
constexpr double margin_share = 0.06;  // about the vessels, of the longer side of their box

/// ln of calibre over reference at one place, from the nearest bin; NaN where none is near.
double ratio_at(const CalibreChange& change, double arc_mm) {
  const auto& arcs = change.arc_mm;
  if (arcs.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto above = std::lower_bound(arcs.begin(), arcs.end(), arc_mm);
  auto nearest = above == arcs.end() ? arcs.end() - 1 : above;
  if (above != arcs.begin() && (above == arcs.end() || arc_mm - *(above - 1) < *above - arc_mm)) nearest = above - 1;
  if (std::abs(*nearest - arc_mm) > bin_reach * change.bin_mm) return std::numeric_limits<double>::quiet_NaN();
  return change.ratio_log[static_cast<std::size_t>(nearest - arcs.begin())];
}

Narrowness narrowness_at(const TimelineEntry& entry, double arc_mm, const ComparisonThresholds& thresholds) {
  if (entry.state == SegmentState::not_filled) return Narrowness::unfilled;
  if (entry.state == SegmentState::occluded && arc_mm >= entry.lost_mm[0] && arc_mm <= entry.lost_mm[1]) return Narrowness::shut;
  const double ratio = entry.change.known ? ratio_at(entry.change, arc_mm) : std::numeric_limits<double>::quiet_NaN();
  if (!std::isfinite(ratio)) return Narrowness::unjudged;
  // A figure that does not stand out among so many segments, or whose contrast is in doubt, is not drawn as a narrowing.
  if (!entry.significant) return entry.label_now == "indeterminate" ? Narrowness::unjudged : Narrowness::none;
  if (!entry.doubt.empty()) return Narrowness::unjudged;
  const double percent = 100 * (1 - std::exp(ratio));
  return percent >= thresholds.severe_percent      ? Narrowness::severe
         : percent >= thresholds.mild_percent      ? Narrowness::mild
         : percent >= thresholds.narrowing_percent ? Narrowness::below
                                                   : Narrowness::none;
}

}  // namespace

std::vector<NarrowStretch> narrow_stretches(const SegmentTimeline& segment, std::size_t run, bool comparable,
                                            const ComparisonThresholds& thresholds) {
  const TimelineEntry& entry = segment.entries[run];
  std::vector<NarrowStretch> stretches;
  if (!comparable || entry.state == SegmentState::out_of_view) return stretches;
  for (std::size_t i = 0; i < segment.arc_mm.size(); ++i) {
    const Narrowness here = narrowness_at(entry, segment.arc_mm[i], thresholds);
    if (stretches.empty() || stretches.back().narrowness != here) {
      if (!stretches.empty()) stretches.back().last = i;
      stretches.push_back({i, i, here});
    }
    stretches.back().last = i;
  }
  return stretches;
}

ViewBox vessels_box(const Analysis& reference) {
  const int rows = reference.maximum_opacification.height(), columns = reference.maximum_opacification.width();
  double top = rows, bottom = -1, left = columns, right = -1;
  for (const SegmentResult& segment : reference.segments)
    for (const CentrelinePoint& point : segment.centreline.points) {
      top = std::min<double>(top, point.y), bottom = std::max<double>(bottom, point.y);
      left = std::min<double>(left, point.x), right = std::max<double>(right, point.x);
    }
  if (bottom < top) return {0, 0, rows, columns};
  const double margin = std::max(8.0, margin_share * std::max(bottom - top, right - left));
  const int y = std::max(0, static_cast<int>(top - margin)), x = std::max(0, static_cast<int>(left - margin));
  return {y, x, std::min(rows, static_cast<int>(bottom + margin) + 1) - y, std::min(columns, static_cast<int>(right + margin) + 1) - x};
}

Image<float> registered_view(const ComparedRun& run, const RunRegistration& registration, const ViewBox& box, double scale) {
  const ImageView<const float> from = run.analysis.maximum_opacification.view();
  const ImageView<const std::uint8_t> valid = run.valid.view();
  const bool whole = valid.data == nullptr || valid.height != from.height || valid.width != from.width;
  Image<float> view(std::max(1, static_cast<int>(std::lround(box.height * scale))),
                    std::max(1, static_cast<int>(std::lround(box.width * scale))));
  for (int i = 0; i < view.height(); ++i)
    for (int j = 0; j < view.width(); ++j) {
      view(i, j) = std::numeric_limits<float>::quiet_NaN();
      const auto [v, u] = registration.forward(box.y + (i + 0.5) / scale - 0.5, box.x + (j + 0.5) / scale - 0.5);
      if (!(v >= 0 && v <= from.height - 1 && u >= 0 && u <= from.width - 1)) continue;
      const int y = std::min(static_cast<int>(v), from.height - 2), x = std::min(static_cast<int>(u), from.width - 2);
      if (y < 0 || x < 0 || (!whole && !valid.row(static_cast<int>(std::lround(v)))[static_cast<int>(std::lround(u))])) continue;
      const auto b = static_cast<float>(v - y), a = static_cast<float>(u - x);
      const float *above = from.row(y) + x, *below = from.row(y + 1) + x;
      view(i, j) = (1 - b) * ((1 - a) * above[0] + a * above[1]) + b * ((1 - a) * below[0] + a * below[1]);
    }
  return view;
}

std::vector<SegmentLabel> place_numbers(const Comparison& comparison, const Analysis& reference, const std::vector<std::size_t>& segments,
                                        const ViewBox& box, double radius_px) {
  constexpr int directions = 16;
  constexpr double pi = 3.14159265358979323846, nearest = 1.8, farthest = 6, step = 0.7, apart = 2.3;  // of the radius
  std::vector<SegmentLabel> numbers;
  for (const std::size_t s : segments) {
    const auto [y, x] = comparison.segments[s].at_px;
    SegmentLabel best;
    double best_cost = std::numeric_limits<double>::infinity();
    for (double away = nearest; away <= farthest; away += step)
      for (int d = 0; d < directions; ++d) {
        const double angle = 2 * pi * d / directions;
        const SegmentLabel number{comparison.segments[s].id, y + away * radius_px * std::sin(angle), x + away * radius_px * std::cos(angle),
                                  y, x};
        const double room = std::min({number.y - box.y, number.x - box.x, box.y + box.height - number.y, box.x + box.width - number.x});
        double cost = 0.5 * away + (room < 1.2 * radius_px ? 100 : 0);
        for (const SegmentLabel& other : numbers)
          cost += 40 * std::max(0.0, 1 - std::hypot(number.y - other.y, number.x - other.x) / (apart * radius_px));
        // On a vessel it would hide what is to be seen.
        for (const SegmentResult& vessel : reference.segments)
          for (std::size_t i = 0; i < vessel.centreline.points.size(); i += 3) {
            const CentrelinePoint& point = vessel.centreline.points[i];
            cost += std::max(0.0, 1 - std::hypot(number.y - point.y, number.x - point.x) / (1.3 * radius_px));
          }
        if (cost < best_cost) best_cost = cost, best = number;
      }
    numbers.push_back(best);
  }
  return numbers;
}

}  // namespace cinelumen
