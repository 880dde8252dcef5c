#pragma once
/// How much a vessel's calibre changed along its length, as a posterior (methods.md 7).

#include <array>
#include <optional>
#include <vector>

namespace cinelumen {

/// ln of calibre over reference at one place of a vessel.
struct LogRatio {
  double arc_mm = 0;
  double value = 0, sd = 0;  ///< sd > 0: as measured, both runs
  double over_mm = 0;        ///< length along the vessel that it is an average of: it shows nothing shorter
};

/// What is believed of changes before looking, and of errors that the SDs do not hold.
struct CalibreChangeOptions {
  double bin_mm = 0.4;                                    ///< neighbouring points share pixels: figures are pooled over this
  double long_mm = 12, long_sd = 0.5;                     ///< a change that spreads along the vessel: length scale, SD of ln D ...
  double shoulder_mm = 5, shoulder_sd = 0.3;              ///< ... and of how steeply it begins and ends
  std::array<double, 4> focal_mm = {0.4, 0.8, 1.5, 2.5};  ///< a focal narrowing is a bell of any of these SDs ...
  double focal_sd = 0.7;                                  ///< ... and of this depth, in ln D; one in a place of its own
  int most_focal = 3;                                     ///< of them in a segment
  double changed_share = 0.15;                            ///< of vessels between two runs, before looking
  double focal_share = 0.3;                               ///< ... and of those that have a focal one
  double shape_sd = 0.02;     ///< of one bin: what of ln D the background's structure and the model leave open ...
  double shape_mm = 2;        ///< ... over this length
  double window_mm = 0.5;     ///< a narrowing counts where it holds over this length
  double least_percent = 15;  ///< a stretch narrower by this is listed
  int draws = 400;            ///< of the posterior
};

/// A stretch of a vessel that is narrower than the reference. Percentages are reductions of the calibre.
struct Narrowing {
  double percent = 0;                   ///< at its narrowest, over CalibreChangeOptions::window_mm: posterior median
  std::array<double, 2> ci95 = {0, 0};  ///< of it
  double probability_25 = 0, probability_50 = 0, probability_90 = 0;  ///< that it exceeds so many percent anywhere in the stretch
  double at_mm = 0, from_mm = 0, to_mm = 0;                           ///< the narrowest; where half of its depth is reached either side
  double extent_from_mm = 0, extent_to_mm = 0;                        ///< where it is reduced by more than 25 %
  double spread_mm = 0;    ///< length of that, with what continues it across branchings and what is hidden between
  double possible_mm = 0;  ///< the same, if it also goes on where the vessel could not be measured beyond its ends
  bool at_least = false;   ///< what lies beside it was seen and failed the gates of filling: it may be narrower there
  double denser = 0;       ///< share by which it holds more contrast than a round lumen of its width does: flattened, or layered
  double taper_mm = 0;     ///< length of the gentler shoulder, from a tenth to nine tenths of the depth
  double extent_mm() const { return extent_to_mm - extent_from_mm; }
  double half_depth_mm() const { return to_mm - from_mm; }
};

/// How a vessel's calibre differs from the reference's: posterior, along it and in figures.
struct CalibreChange {
  bool known = false;                                   ///< false: too little was measured
  double probability = 0;                               ///< that it differs at all
  double mean_ratio = 1, mean_ratio_sd = 0;             ///< geometric mean over what was measured
  Narrowing largest;                                    ///< also where nothing is narrow: percent may be negative
  std::vector<Narrowing> narrowings;                    ///< those deeper than CalibreChangeOptions::least_percent, deepest first
  std::vector<double> arc_mm, ratio_log, ratio_log_sd;  ///< ln of the ratio along the vessel, bin by bin
  double bin_mm = 0;                                    ///< their width: that of the options, or wider in a long vessel

  /// Mean ratio of calibre to reference between two places, and its SD; NaN where nothing was measured there. `like`: only where this one
  /// measured, too.
  std::array<double, 2> ratio_between(double from_mm, double to_mm, const CalibreChange* like = nullptr) const;
};

/// Gaussian process with a long and a short length scale for ln of the calibre ratio, mixed with "no change"; `common_sd`: SD of a factor
/// that all places share. Empty input, or less than window_mm of it: not known.
CalibreChange estimate_change(const std::vector<LogRatio>& ratios, double common_sd, const CalibreChangeOptions& options = {});

}  // namespace cinelumen
