#pragma once
/// Was the lumen filled where it was measured? A partly filled lumen looks narrow (methods.md 6).

#include <string>
#include <vector>

#include "engine/diameter_profile.h"

namespace cinelumen {

/// When a place counts as filled. Our own choice, not clinically validated.
struct FillingOptions {
  double plateau_share = 0.9;      ///< of the most contrast that the place ever shows
  int flat_frames = 3;             ///< so many frames in a row
  double kappa_tolerance = 0.1;    ///< how far the attenuation of filled lumen may be from that of the vessel up- and downstream
  double growth = 0.05;            ///< share of the final diameter that a lumen may still lack while it fills
  double growth_significance = 4;  ///< SDs of the slope of D^2 on 1/t that tell it
  double block_px = 8;             ///< places are stretches of this length
  double beside_px = 40;           ///< so near a wide lumen that was filled a narrow place is a narrowing, and no core that grows
  bool compare_kappa = true;       ///< attenuation is that of the contrast
  double near_px = 400;            ///< how far away the vessel still says what its kappa should be
};

/// What became of a centreline point.
enum class FillingGate : std::uint8_t {
  passed,       ///< filled, and the vessel either side of it has the same kappa
  unmeasured,   ///< nothing was measured there
  untested,     ///< too few frames to see it fill
  contrast,     ///< its contrast was never flat near its highest
  growing,      ///< its diameter was still growing as a core of contrast does: D^2 falls with 1/t
  diluted,      ///< narrower, and kappa leaves the vessel's and does not come back: dilution or layers
  unconfirmed,  ///< filled as far as contrast over time tells, but no lumen wide enough either side to compare kappa with
};
/// In words, for a finding's reasons.
const char* to_string(FillingGate gate);

/// A stretch of a segment that was not filled in one frame.
struct PartlyFilled {
  int frame = 0;                        ///< 0-based in the file
  int segment = 0;                      ///< index
  int first_point = 0, last_point = 0;  ///< inclusive
  int points = 0;                       ///< of them, how many had been used
};

/// One segment's measurements over time. `frames`: per frame, one LumenPoint per centreline point.
struct FillingSeries {
  const std::vector<double>* times_ms = nullptr;    ///< of the frames; null: not known
  const std::vector<int>* frame_numbers = nullptr;  ///< 0-based in the file; null: 0, 1, ...
  int segment = 0;                                  ///< for PartlyFilled
  double first_arrival_ms = 0;                      ///< when contrast came into the run's vessels: see first_arrival
};

/// What the gates say of a segment.
struct FillingVerdict {
  std::vector<FillingGate> points;   ///< per centreline point
  std::vector<PartlyFilled> frames;  ///< what was taken out
};

/// When contrast first reaches half of its highest anywhere: from there on contrast flows. Index order: segment, frame, point.
double first_arrival(const std::vector<std::vector<std::vector<LumenPoint>>>& lumen, const std::vector<double>& times_ms);

/// Takes used points out of `frames` (Exclusion::partly_filled) in frames where the place is not filled: contrast below
/// options.plateau_share of its plateau, or not flat for options.flat_frames in a row; diameter still growing; in all frames where kappa
/// tells a place that is diluted or layered to its end. Where it was read in fewer frames than that nothing is taken out: it is untested.
FillingVerdict gate_filling(std::vector<std::vector<LumenPoint>>& frames, const FillingSeries& series, const FillingOptions& options = {});

}  // namespace cinelumen
