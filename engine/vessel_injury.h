#pragma once
/// Contrast where it should not be: outside the vessels, or in a second lumen of one (clinical.md: extravasation, dissection).

#include <array>
#include <string>
#include <vector>

#include "engine/analysis.h"

namespace cinelumen {

/// One of some pictures of a run's course, in the order of time.
struct CourseSample {
  double time_ms = 0;          ///< on the run's clock
  Image<float> opacification;  ///< host, mask coordinates: added log attenuation, noise-filtered
};

/// When a stain is one. Our own choice, not clinically validated.
struct InjuryOptions {
  double stays = 0.8;              ///< share of a place's highest contrast that is left at the run's end: it does not wash out ...
  double washed_out = 0.5;         ///< ... while of the vessel beside it no more than this is left
  double seen_sds = 6;             ///< contrast above so many of its SDs is seen ...
  double least_contrast = 0.15;    ///< ... and counts from this share of the vessel's on: what blushes is fainter
  double outside_mm = 0.4;         ///< this far from a vessel's wall a place is outside
  double least_area_mm2 = 4;       ///< of what lies outside ...
  double least_width_mm = 2;       ///< ... and its smaller width ...
  double least_roundness = 0.4;    ///< ... over its larger one: a vessel that fills late is long
  double least_filled = 0.75;      ///< ... and so much of the ellipse of both widths: a network of veins leaves holes
  double beside_mm = 2.5;          ///< no farther than this from the wall of the vessel that it comes from
  double grows = 0.8;              ///< a third of its time after it began no more than this share of its area is there
  double least_diameter_mm = 2.4;  ///< vessels wider than this are looked at for two lumina ...
  double least_length_mm = 6;      ///< ... that run side by side for this long ...
  double defect = 0.9;             ///< ... with a line between them that has no more than this share of the lesser one's contrast
  double reach_mm = 3;             ///< from the traced middle to where the other one may lie
};

/// Contrast beside a vessel that grows and does not wash out.
struct Extravasation {
  int segment = 0;                       ///< id of the vessel that it lies beside
  std::array<double, 2> at_px = {0, 0};  ///< its centre of area, (y, x)
  double area_mm2 = 0;                   ///< at the run's end
  double early_area_mm2 = 0;             ///< a third of its time after it began
  double onset_ms = 0, seconds = 0;      ///< when it began, and how long it was seen since
  double left = 0, left_in_vessel = 0;   ///< shares of the highest contrast at the run's end
};

/// A second lumen beside the first, parted by a line without contrast, that keeps its contrast.
struct Dissection {
  int segment = 0;                       ///< id of the vessel whose outline holds both
  std::array<double, 2> at_px = {0, 0};  ///< its middle, (y, x)
  double from_mm = 0, to_mm = 0;         ///< along the segment
  double defect = 0;                     ///< median share of the lesser lumen's contrast that the line between them has
  double left = 0, left_beside = 0;      ///< shares of the highest contrast at the run's end, in it and in the other lumen
  double length_mm() const { return to_mm - from_mm; }
};

/// What was found in a run.
struct VesselInjuries {
  std::vector<Extravasation> extravasations;
  std::vector<Dissection> dissections;
};

/// Looks at the course of a run. `noise_sd`: of one picture, log units. Empty where fewer than five pictures, no calibration, or vessels
/// that move against the background leave nothing to be told.
VesselInjuries find_injuries(const std::vector<CourseSample>& course, const Analysis& analysis, double noise_sd,
                             const InjuryOptions& options = {});

/// "extravasation (suspected)".
Finding finding_of(const Extravasation& injury);
/// "dissection (suspected)".
Finding finding_of(const Dissection& injury);
/// "extravasation" or "dissection" for such a finding, empty for any other.
std::string injury_of(const Finding& finding);

}  // namespace cinelumen
