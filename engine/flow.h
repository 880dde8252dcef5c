#pragma once
/// Time-density curves and what is read from them (methods.md 8).

#include <array>
#include <optional>
#include <string>
#include <vector>

namespace cinelumen {

/// A polygon given by the user, in mask pixels: "wound", "inlet", or any name. Where the name begins with "wound" it is read without the
/// vessels that were traced in it and a rim around them: the blush of the tissue. Others are read whole.
struct NamedRegion {
  std::string name;
  std::vector<std::array<double, 2>> polygon_px;  ///< (y, x)
  bool is_tissue() const { return name.starts_with("wound"); }
};

/// The pixels (y, x) of a rows x columns image whose centres lie inside the polygon, even-odd rule, row by row. A polygon of fewer than
/// three points, or with one that is not finite, has none.
std::vector<std::array<int, 2>> pixels_in(const NamedRegion& region, int rows, int columns);

/// Mean contrast over time; NaN where it could not be read.
struct TimeDensityCurve {
  std::vector<double> time_ms, contrast, contrast_sd;
};

/// What a curve says, always finite. A figure is empty where the run is too short for it, the vessel not filled, or no frame times are
/// known.
struct FlowTimes {
  /// When the contrast reaches half its maximum, on the run's clock, and its SD. Empty where it was there from the start.
  std::optional<double> arrival_ms, arrival_sd_ms;
  std::optional<double> time_to_peak_ms;  ///< when it is largest, on the run's clock; empty for a curve without a rise or a fall
  std::optional<double> mean_transit_ms;  ///< from arrival to the curve's centre of gravity; empty where the wash-out was not seen
  std::optional<double> wash_in_per_s;    ///< steepest rise, contrast per second
  std::optional<double> peak;             ///< largest contrast, noise taken out
  std::optional<double> area;             ///< contrast integrated over the run by trapezoids, contrast x s
};

/// Arrival by a gamma-variate fit (Levenberg-Marquardt), where it describes the curve (reduced chi^2 below 2), else by the half-rise of
/// a monotone cubic through the isotonic regression of the rise. `noise_sd` > 0: SD of one sample where contrast_sd has none.
/// Samples that are not finite, or not later than the one before, are left out; fewer than three, or none above the noise: all empty.
FlowTimes read_times(const TimeDensityCurve& curve, double noise_sd);

/// Area under a curve over that of the inlet; empty where one is not known or the inlet's is not positive.
std::optional<double> auc_relative_to_inlet(const FlowTimes& times, const FlowTimes& inlet);

/// When contrast reaches a segment and how fast it passes.
struct SegmentFlow {
  TimeDensityCurve curve;
  FlowTimes times;
  std::optional<double> velocity_mm_s, velocity_sd_mm_s, auc_relative_to_inlet;  ///< velocity > 0
  bool velocity_is_lower_bound = false;  ///< velocity_mm_s is what the flow exceeds with 95 % probability; no SD then
  bool against_arc_length = false;       ///< contrast moves towards the segment's first point
};

/// The same for a region that the user drew.
struct RegionFlow {
  std::string name;
  TimeDensityCurve curve;
  FlowTimes times;
  std::optional<double> auc_relative_to_inlet;
};

/// Flow of the whole run.
struct FlowSummary {
  std::vector<RegionFlow> regions;
  std::string inlet;                               ///< in words: what areas are relative to
  std::optional<bool> arch_filled;                 ///< empty: no segment could be told to be the arch
  std::optional<double> arch_arrival_ms;           ///< when contrast first reaches half its height in a part of it
  std::optional<double> steal_fraction, steal_sd;  ///< share of what enters the image that does not come to the arch
  std::vector<int> early_venous_return;            ///< ids of segments: see summarize_foot_flow
};

/// Transit velocity along a segment from curves at increasing arc length (mm), one per bin, by shifted least squares: all curves are one
/// curve, a cubic spline fitted along, of their own height each and delayed in proportion to arc length. Empty where no rise was seen,
/// with fewer than three readable curves, or where the delay is not twice its SD; where it is less than three frames a lower bound is
/// given and marked. Throws std::invalid_argument where arc_length_mm and along differ in size.
SegmentFlow read_segment_flow(const TimeDensityCurve& mean_curve, const std::vector<double>& arc_length_mm,
                              const std::vector<TimeDensityCurve>& along, double noise_sd);

}  // namespace cinelumen
