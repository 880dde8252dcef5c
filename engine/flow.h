#pragma once
/// Time-density curves and what is read from them (methods.md 8).

#include <array>
#include <optional>
#include <string>
#include <vector>

namespace cinelumen {

/// A polygon given by the user, in mask pixels: "wound", "inlet", or any name.
struct NamedRegion {
  std::string name;
  std::vector<std::array<double, 2>> polygon_px;  ///< (y, x)
};

/// Mean contrast over time; NaN where it could not be read.
struct TimeDensityCurve {
  std::vector<double> time_ms, contrast, contrast_sd;
};

/// What a curve says. Empty where the run is too short, unfilled, or has no frame times.
struct FlowTimes {
  std::optional<double> arrival_ms, arrival_sd_ms, time_to_peak_ms, mean_transit_ms, wash_in_per_s, peak, area;
};

/// Arrival by gamma-variate fit, else half-rise of a monotone fit; time to peak; mean transit time; area under the curve.
/// `noise_sd`: SD of one sample where contrast_sd is empty.
FlowTimes read_times(const TimeDensityCurve& curve, double noise_sd);

struct SegmentFlow {
  TimeDensityCurve curve;
  FlowTimes times;
  std::optional<double> velocity_mm_s, velocity_sd_mm_s, auc_relative_to_inlet;
  bool velocity_is_lower_bound = false;
};

struct RegionFlow {
  std::string name;
  TimeDensityCurve curve;
  FlowTimes times;
  std::optional<double> auc_relative_to_inlet;
};

struct FlowSummary {
  std::vector<RegionFlow> regions;
  std::string inlet;  ///< in words: what areas are relative to
};

/// Transit velocity along a segment from curves at increasing arc length (mm), by shifted least squares; empty where fewer than three
/// frames of transit were seen (then a lower bound is given and marked). One curve per arc-length bin.
SegmentFlow read_segment_flow(const TimeDensityCurve& mean_curve, const std::vector<double>& arc_length_mm,
                              const std::vector<TimeDensityCurve>& along, double noise_sd);

}  // namespace cinelumen
