#include "engine/segment_measurement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace cinelumen {
namespace {

// By the contrast that its points reach in any frame, not by what could be measured: a link inside a branching is filled and unmeasured.
std::string classify_filling(const std::vector<std::vector<float>>& contrast, double contrast_sd) {
  if (contrast.empty() || contrast[0].empty()) return "not filled";
  constexpr double enough_sd = 5;
  const std::size_t points = contrast[0].size();
  std::size_t filled = 0;
  for (std::size_t i = 0; i < points; ++i)
    filled +=
        std::any_of(contrast.begin(), contrast.end(), [&](const std::vector<float>& frame) { return frame[i] > enough_sd * contrast_sd; });
  const double share = static_cast<double>(filled) / static_cast<double>(points);
  return share >= 0.8 ? "filled" : share >= 0.2 ? "partly filled" : "not filled";
}

}  // namespace

TimeDensityCurve mean_curve(const std::vector<std::vector<float>>& contrast, const std::vector<double>& times_ms, std::size_t from,
                            std::size_t to, double sd) {
  TimeDensityCurve curve;
  for (std::size_t frame = 0; frame < contrast.size(); ++frame) {
    double sum = 0;
    int count = 0;
    for (std::size_t i = from; i < std::min(to, contrast[frame].size()); ++i)
      if (std::isfinite(contrast[frame][i])) {
        sum += contrast[frame][i];
        ++count;
      }
    curve.time_ms.push_back(times_ms.empty() ? static_cast<double>(frame) : times_ms[frame]);
    curve.contrast.push_back(count ? sum / count : std::numeric_limits<double>::quiet_NaN());
    // Neighbouring points along the vessel share pixels: about every second one is news.
    curve.contrast_sd.push_back(count ? sd / std::sqrt(std::max(1.0, count / 2.0)) : std::numeric_limits<double>::quiet_NaN());
  }
  return curve;
}

Centreline move_centreline(const Centreline& centreline, const RigidMotion& motion, int height, int width, const FrameWarp& warp) {
  Centreline moved = centreline;
  const float c = std::cos(motion.rotation_rad), s = std::sin(motion.rotation_rad);
  for (CentrelinePoint& point : moved.points) {
    const PixelPosition to = place_in_frame(motion, warp, {point.y, point.x}, height, width);
    const float ty = point.tangent_y, tx = point.tangent_x;
    point.y = static_cast<float>(to.y);
    point.x = static_cast<float>(to.x);
    point.tangent_y = s * tx + c * ty;
    point.tangent_x = c * tx - s * ty;
  }
  return moved;
}

double along_variance_px2(double psf_px) {
  if (!(psf_px > 0)) return 0;
  const double rows = LumenOptions().rows;
  return psf_px * psf_px + (1 + rows * rows) / 12;
}

FillingOptions filling_options(const Analysis& analysis) {
  FillingOptions options;
  options.compare_kappa = analysis.densitometric && analysis.subtracted;
  return options;
}

std::vector<PartlyFilled> pool_filled(SegmentResult& segment, std::vector<std::vector<LumenPoint>>& frames, const FillingSeries& series,
                                      const FillingOptions& options, double along_variance_px2) {
  DiameterProfile all = pool_profile(segment.centreline, frames);
  all.along_variance_px2 = along_variance_px2;
  FillingVerdict verdict = gate_filling(frames, series, options);
  segment.gates = std::move(verdict.points);
  segment.profile = verdict.frames.empty() ? all : pool_profile(segment.centreline, frames);
  segment.profile.along_variance_px2 = along_variance_px2;
  segment.diameter = summarize(segment.profile);
  if (!verdict.frames.empty()) segment.ungated = summarize(all);
  const auto count = [&](auto... gates) {
    return std::count_if(segment.gates.begin(), segment.gates.end(), [&](FillingGate gate) { return ((gate == gates) || ...); });
  };
  const auto failed = count(FillingGate::contrast, FillingGate::growing, FillingGate::diluted);
  const auto measured = failed + count(FillingGate::passed, FillingGate::unconfirmed);
  constexpr std::ptrdiff_t part = 5;  // a fifth of what was measured
  if (segment.filling == "filled" && part * failed > measured) segment.filling = "partly filled";
  return std::move(verdict.frames);
}

void watch_calibre(const SegmentMeasurements& measurements, Analysis& analysis) {
  if (!analysis.subtracted) return;
  const double mm_per_px = analysis.calibration.known() ? analysis.calibration.mm_per_px : 0;
  parallel_for(static_cast<int>(analysis.segments.size()), [&](int s) {
    SegmentResult& segment = analysis.segments[s];
    CalibreWatch watch(segment.centreline, mm_per_px);
    const auto& frames = measurements.lumen[s];
    for (std::size_t f = 0; f < frames.size(); ++f) {
      constexpr double unknown_step_ms = 1000;  // no time is told then
      const double time = analysis.frame_times_ms.empty() ? unknown_step_ms * static_cast<double>(f) : analysis.frame_times_ms[f];
      (void)watch.add(analysis.first_frame + static_cast<int>(f), time, frames[f]);
    }
    segment.changes = watch.changes();
  });
}

void summarize_segments(SegmentMeasurements& measurements, Analysis& analysis) {
  FillingSeries series;
  std::vector<int> numbers(static_cast<std::size_t>(analysis.frames));
  std::iota(numbers.begin(), numbers.end(), analysis.first_frame);
  series.frame_numbers = &numbers;
  if (!analysis.frame_times_ms.empty()) series.times_ms = &analysis.frame_times_ms;
  const FillingOptions options = filling_options(analysis);
  series.first_arrival_ms = first_arrival(measurements.lumen, analysis.frame_times_ms);
  std::vector<std::vector<PartlyFilled>> taken(analysis.segments.size());
  parallel_for(static_cast<int>(analysis.segments.size()), [&](int i) {
    SegmentResult& segment = analysis.segments[i];
    segment.filling = classify_filling(measurements.contrast[i], measurements.contrast_sd);
    FillingSeries own = series;
    own.segment = i;
    taken[i] = pool_filled(segment, measurements.lumen[i], own, options, along_variance_px2(measurements.psf_px));
  });
  for (std::vector<PartlyFilled>& of_segment : taken)
    analysis.partly_filled.insert(analysis.partly_filled.end(), of_segment.begin(), of_segment.end());
}

void summarize_flow(const SegmentMeasurements& measurements, const std::vector<NamedRegion>& regions, Analysis& analysis) {
  const std::vector<double>& times_ms = analysis.frame_times_ms;
  const bool timed = !times_ms.empty() && analysis.frames > 1;
  const double sd = measurements.contrast_sd;
  parallel_for(static_cast<int>(analysis.segments.size()), [&](int i) {
    SegmentResult& segment = analysis.segments[i];
    const auto& contrast = measurements.contrast[i];
    const std::size_t points = segment.centreline.points.size();
    const TimeDensityCurve whole = mean_curve(contrast, times_ms, 0, points, sd);
    if (!timed) {
      segment.flow.curve = whole;
      return;
    }
    // Bins of 5 mm (or 20 px): long enough to average noise, short against the way contrast goes between two frames.
    const double mm_per_px = analysis.calibration.mm_per_px;
    const double bin = analysis.calibration.known() ? std::max(5.0 / mm_per_px, 8.0) : 20.0;
    std::vector<double> arc_length;
    std::vector<TimeDensityCurve> along;
    for (std::size_t from = 0; from < points;) {
      std::size_t to = from;
      const float start = segment.centreline.points[from].arc_length_px;
      while (to < points && segment.centreline.points[to].arc_length_px < start + bin) ++to;
      if (to - from >= 3) {
        arc_length.push_back((start + segment.centreline.points[to - 1].arc_length_px) / 2 * mm_per_px);
        along.push_back(mean_curve(contrast, times_ms, from, to, sd));
      }
      from = to;
    }
    segment.flow = read_segment_flow(whole, arc_length, along, sd);
    if (!analysis.calibration.known()) segment.flow.velocity_mm_s = segment.flow.velocity_sd_mm_s = std::nullopt;  // px/s is no velocity
  });
  for (std::size_t r = 0; r < regions.size(); ++r) {
    RegionFlow region;
    region.name = regions[r].name;
    std::vector<std::vector<float>> per_frame;
    for (float value : measurements.region_contrast[r]) per_frame.push_back({value});
    region.curve = mean_curve(per_frame, times_ms, 0, 1, sd);
    if (timed) region.times = read_times(region.curve, sd);
    analysis.flow.regions.push_back(std::move(region));
  }

  // The inlet: what the user drew, else the widest of the segments that fill first.
  std::optional<double> inlet_area;
  for (const RegionFlow& region : analysis.flow.regions)
    if (region.name == "inlet" && region.times.area) {
      inlet_area = region.times.area;
      analysis.flow.inlet = "the region \"inlet\"";
    }
  if (!inlet_area) {
    std::optional<double> first_arrival;
    for (const SegmentResult& segment : analysis.segments)
      if (segment.flow.times.arrival_ms && segment.flow.times.area && segment.diameter.median)
        first_arrival = std::min(first_arrival.value_or(*segment.flow.times.arrival_ms), *segment.flow.times.arrival_ms);
    const SegmentResult* inlet = nullptr;
    for (const SegmentResult& segment : analysis.segments) {
      if (!first_arrival || !segment.flow.times.arrival_ms || !segment.flow.times.area || !segment.diameter.median) continue;
      const double frame_ms = (times_ms.back() - times_ms.front()) / (times_ms.size() - 1);
      if (*segment.flow.times.arrival_ms > *first_arrival + frame_ms) continue;
      if (!inlet || *segment.diameter.median > *inlet->diameter.median) inlet = &segment;
    }
    if (inlet) {
      inlet_area = inlet->flow.times.area;
      analysis.flow.inlet = "segment " + std::to_string(inlet->id) + ", the widest of those that fill first";
    }
  }
  if (!inlet_area || *inlet_area <= 0) return;
  for (SegmentResult& segment : analysis.segments)
    if (segment.flow.times.area) segment.flow.auc_relative_to_inlet = *segment.flow.times.area / *inlet_area;
  for (RegionFlow& region : analysis.flow.regions)
    if (region.times.area) region.auc_relative_to_inlet = *region.times.area / *inlet_area;
}

}  // namespace cinelumen
