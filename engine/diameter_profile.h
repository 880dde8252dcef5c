#pragma once
/// Lumen diameter with its standard deviation along centrelines, frame by frame and pooled (methods.md 5).

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/calibration.h"
#include "engine/centreline.h"
#include "engine/diameter_rule.h"
#include "engine/noise_model.h"
#include "kernels/image.h"
#include "kernels/lumen_fit.h"

namespace cinelumen {

/// Why a point was not used; the words of lumen.csv.
enum class Exclusion { none, unfilled, overlap, edge, low_contrast, motion, no_fit, inferred, display_grey, key_frame_only, partly_filled };
const char* to_string(Exclusion reason);

/// One centreline point in one frame.
struct LumenPoint {
  int segment = 0, point = 0;  ///< indices into the graph
  float arc_length_px = 0;
  float y_px = 0, x_px = 0;  ///< the frame's own coordinates, after re-snapping
  float normal_y = 0, normal_x = 0;
  float diameter_px = 0, sd_px = 0;
  float contrast = 0;  ///< log attenuation at the profile's centre; where nothing was fitted, of the search; 0 at an overlap
  float background = 0;
  bool used = false;
  Exclusion reason = Exclusion::no_fit;
  float contrast_sd = 0;        ///< one SD of contrast
  float kappa = 0;              ///< attenuation per px of lumen
  float kappa_sd = 0;           ///< one SD of it
  bool own_kappa = false;       ///< it is this profile's own; else a prior from the segment's or the frame's wide points went in
  float area_px2 = 0;           ///< densitometric: the profile's integral over kappa of the vessel; 0: not known
  bool area_disagrees = false;  ///< with the round lumen of diameter_px, beyond its error: an ellipse, an overlap, or incomplete mixing
  float chi2_per_dof = 0;       ///< of the fit
  float common_sd_px = 0;       ///< what of sd_px every frame shares: point spread, kappa's prior, the mask's noise
};

/// Takes points out of what is used, for this reason.
void exclude(std::vector<LumenPoint>& points, Exclusion reason);

/// What measure_frame needs to know beside the image. All in px and log units.
struct LumenOptions {
  float noise_sd = 0.01f;   ///< of one pixel of the image (frame and mask together), > 0
  VarianceSource variance;  ///< of each pixel, memory of the stream's device; without data: noise_sd everywhere
  std::array<std::array<float, 5>, 5> autocorrelation{};  ///< of the noise, as NoiseModel; centre 0: taken as white
  bool densitometric = true;                              ///< attenuation is that of the contrast: areas mean something
  float sd_inflation = 1;                                 ///< on SDs, for what a display grey scale hides; >= 1
  float common_noise_share = 0;                           ///< of the noise's variance that all frames share: the mask's; 0 to 1
  float psf_px = 0.7f, psf_sd_px = 0.15f;  ///< Gaussian SD of the point spread without the pixel: estimate_psf, or what is usual
  int rows = 2;                            ///< pixels along the vessel per profile, 1 to 3
  DiameterRule rule = DiameterRule::fit;   ///< for a FrameSlot: what diameters are read by; LumenMeasurement always fits
  float free_kappa_ratio =
      4.8f;  ///< kappa is the profile's own where radius / point spread exceeds this (2 mm at 0.2 mm); else the segment's
  float minimum_contrast_ratio = 4;  ///< contrast / its SD below which a point counts as unfilled
  float maximum_relative_sd = 0.3f;  ///< sd / diameter above which the contrast is too low to measure
  float maximum_misfit = 0.25f;      ///< rms residual beyond noise / contrast above which the model does not hold
};

/// The point spread, estimated from wide, well filled profiles.
struct PsfEstimate {
  double psf_px = 0, sd_px = 0;  ///< Gaussian SD without the pixel; SD of it over profiles and what their shape leaves open
  int profiles = 0;
};

/// Fits the point spread with the cylinder at points whose radius is several point spreads and whose contrast is high, and pools them
/// robustly. Arguments as measure_frame. Empty where fewer than ten profiles serve. Synchronises the stream.
std::optional<PsfEstimate> estimate_psf(const Stream& stream, ImageView<const float> subtracted, ImageView<const std::uint8_t> valid,
                                        const std::vector<Centreline>& centrelines, const LumenOptions& options);

/// Measures the lumen at every point of every centreline in one frame: a search at every third point finds where to start and where there
/// is nothing to fit (by the middle of what neighbours found, so that noise at one point decides nothing); a cylinder fit with kappa free
/// gives each segment's kappa where the vessel is wide; narrow points are fitted again with that kappa as a prior (the frame's, less
/// certain, where a segment is narrow throughout; none where the whole frame is). subtracted: added attenuation, the frame's own
/// coordinates, memory of the stream's device. valid: same size (or without data), 1 where it may be read. centrelines: in the frame's
/// coordinates, after re-snapping. Returns, per centreline, one LumenPoint per centreline point. For one frame only: see LumenMeasurement.
/// Synchronises the stream; throws std::invalid_argument.
std::vector<std::vector<LumenPoint>> measure_frame(const Stream& stream, ImageView<const float> subtracted,
                                                   ImageView<const std::uint8_t> valid, const std::vector<Centreline>& centrelines,
                                                   const LumenOptions& options);

/// Diameter along one segment, pooled over frames.
struct DiameterProfile {
  struct Point {
    float arc_length_px = 0, y_px = 0, x_px = 0;  ///< mask coordinates
    float diameter_px = 0, sd_px = 0;             ///< robust mean over frames and its SD; sd 0: not measured
    int frames = 0;                               ///< how many frames went in
    float area_ratio = 0;                         ///< densitometric over geometric area, median over frames; 0: not known
    bool own_kappa = false;                       ///< in most frames: else the area ratio is what a prior left of it
  };
  std::vector<Point> points;
  double along_variance_px2 = 0;  ///< of what blurs a diameter along the vessel: point spread, pixel, rows of the fit; 0: not known
};

/// Figures of one segment. In px; the caller multiplies by the calibration. sd: of the median, as measured (not how the vessel varies).
struct SegmentDiameter {
  std::optional<double> median, sd, minimum, reference, percent_stenosis;
  std::optional<double> minimum_sd;  ///< of the minimum, as measured
  std::array<double, 2> minimum_at_px = {0, 0};
  int minimum_point = -1;  ///< index into the profile
  /// Densitometric area over that of a round lumen where the lumen is narrowest; empty where attenuation does not tell it.
  std::optional<double> area_ratio_at_minimum;
  bool sized_by_contrast = false;     ///< too narrow there for its edges to tell its width: a round lumen, of the vessel's attenuation
  std::optional<double> kappa_ratio;  ///< kappa after the minimum over that before it, likewise; empty where attenuation does not tell it
  std::optional<double> sides_ratio;  ///< healthy calibre after the minimum over that before it, where the two are nearest to it
};

/// Pools one segment's points over frames: Huber's mean with weights 1 / (sd^2 + between-frame variance), its SD from the same. What of
/// the SDs all frames share (LumenPoint::common_sd_px) does not fall with their number. A point whose pooled SD exceeds a tenth of its
/// diameter is not measured: its frames contradict one another.
/// `frames` has, per frame, that segment's points; only used ones count.
DiameterProfile pool_profile(const Centreline& centreline, const std::vector<std::vector<LumenPoint>>& frames);

/// ln D along a profile, measured points only, freed of noise by a smoothness prior that keeps webs: weighted total variation, its weight
/// from the noise that neighbours show. Returns NaN where nothing was measured.
std::vector<double> smooth_log_diameter(const DiameterProfile& profile);

/// Median, minimum, reference and percent stenosis of a pooled profile. The minimum is where smooth_log_diameter() is least; its value is
/// that of a parabola fitted to D about there, over a third of the narrowing's length either side, less what the blur along the vessel adds
/// to it: the least of many noisy points would be low by their noise, and a short web too wide by its shoulders. The reference is the
/// robust straight line (Theil-Sen) through the healthy calibre on both sides of the minimum, read at the minimum; null, with the stenosis,
/// where fewer than ten healthy points, or none on one side, were measured.
SegmentDiameter summarize(const DiameterProfile& profile);

}  // namespace cinelumen
