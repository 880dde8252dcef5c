#pragma once
/// Multi-scale Hessian vesselness, noise-calibrated. All of it takes bright ridges: added attenuation.

#include <array>
#include <cstdint>
#include <memory>

#include "image.h"
#include "stream.h"

namespace cinelumen {

/// Which planes of a map to compute.
enum class VesselnessPlanes {
  all,
  z_and_scale,  ///< at half the cost of all
  /// ridge and scale_px of half the image's resolution, pixel (i, j) at (2 i, 2 j) of the image, at a fifth of the cost: for finding known
  /// vessels again. Needs min_scale_px >= 2; 2 px is worked out at half resolution, too, within 10 % rms of a ridge's peak from 1 px wide.
  ridge_and_scale,
  response,  ///< for the classical measures at two thirds of the cost
};

/// Which response to compute.
enum class VesselnessResponse {
  noise_calibrated,  ///< the default: ridges over the frame's own clutter and noise, summed over scales, averaged along the vessel
  frangi,            ///< Frangi et al., MICCAI 1998
  sato,              ///< Sato et al., Med Image Anal 1998 (2-D: sigma^2 |lambda2|)
  jerman,            ///< Jerman et al., IEEE TMI 2016
};

/// Scales that can be used, px. The first three are computed at full resolution, the next four at half, the last three at a quarter.
inline constexpr int vesselness_scale_count = 10;
inline constexpr std::array<float, vesselness_scale_count> vesselness_scales_px = {1.0f, 1.4f, 2.0f, 2.8f, 3.0f,
                                                                                   4.0f, 6.0f, 5.6f, 8.0f, 11.2f};

struct CrossSection;

/// An image in squares of this side, from (0, 0) on: those at its end are cut off.
inline constexpr int vesselness_square = 32;
inline constexpr int squares_along(int extent) { return (extent + vesselness_square - 1) / vesselness_square; }

/// Sets `wanted` (squares_along() of both sides of an image) to 1 for each square that is less than reach_px along a section's normal, and
/// 8 px in any direction, from its centre, else to 0. All memory of the stream's device.
void mark_squares(const Stream& stream, ArrayView<const CrossSection> sections, float reach_px, ImageView<std::int32_t> wanted);

/// Settings; the defaults of the default response were fixed on the odd-numbered images of the DCA1 authors' training set (cinelumen_roc).
struct VesselnessOptions {
  VesselnessResponse response = VesselnessResponse::noise_calibrated;
  float noise_sd = 0.01f;  ///< white-noise SD of the image, > 0
  /// SD of sigma^2 L_xx for this noise over 0.244 noise_sd / sigma, per scale: > 1 where the noise is correlated. See
  /// correlation_factors().
  std::array<float, vesselness_scale_count> correlation_factor = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  /// Where the noise is not the same everywhere: 1 / (its local SD / noise_sd), memory of the stream's device, the image's size, positive
  /// inside the field. Multiplies z only. Without data: 1.
  ImageView<const float> noise_weight;
  /// Scales within these bounds are used, at least one. A ridge of Gaussian profile w answers most at sigma = sqrt(2) w, a bar of
  /// diameter D at D / 2.
  float min_scale_px = 2.0f, max_scale_px = 8.0f;
  /// Of the scales within the bounds, those to use: all but 3 and 6 px, which the steps of sqrt(2) do not need.
  std::array<bool, vesselness_scale_count> use_scale = {true, true, true, true, false, true, false, true, true, true};
  /// Noise-calibrated: ridge over mean clutter at which the response is 1/2.
  float half_response_ratio = 2.0f;
  /// Noise-calibrated: average along the vessel. Without it the response is that of the point alone; z, angle and scale are the same.
  bool elongation = true;
  /// Only what is asked for is worked out; other planes of the map are left as they are.
  VesselnessPlanes planes = VesselnessPlanes::all;
  /// For z_and_scale or ridge_and_scale, nonzero for the squares of the image that are asked for (see mark_squares), memory of the stream's
  /// device: pixels of others are left as they are, or set to anything. Without data: all.
  ImageView<const std::int32_t> wanted;
  float frangi_beta = 0.5f;    ///< Frangi: blobness at which exp(-1/2)
  float frangi_c = 0.03f;      ///< Frangi: structureness at which 1 - exp(-1/2), the image's units; fixed, not half of a frame's maximum
  float jerman_lambda = 0.1f;  ///< Jerman: lambda_rho, the image's units; fixed, not tau times a frame's maximum
};

/// Results, memory of the stream's device, of the image's size unless said otherwise. Outside the field of view all are 0 but scale_px.
/// Planes that are not asked for may be empty.
struct VesselnessMap {
  Image<float> response;  ///< [0, 1]; Sato: the image's units, >= 0
  Image<float> z;         ///< sigma^3 |lambda2| over its noise SD at the winning scale; negative: no bright ridge at any scale
  /// Direction along the vessel, radians in (-pi/2, pi/2], atan2(dy, dx): of all scales, each weighted by its part in the response;
  /// of the classical measures at the winning scale alone.
  Image<float> angle;
  Image<float> scale_px;  ///< sigma with the largest sigma^2 |lambda2|
  Image<float> ridge;     ///< z / scale_px: highest on a ridge's middle, where z itself has steps between scales
  int pixel_px = 1;  ///< size of the map's pixels, px of the image: 2 of ridge and its scale_px, which are of half the size, rounded up
};

/// A map for images of this size, uninitialised: the planes that are asked for.
VesselnessMap make_vesselness_map(const Stream& stream, int height, int width, VesselnessPlanes planes = VesselnessPlanes::all);

/// SD of sigma^2 L_xx (mean of both axes) for noise with this autocorrelation ([dy + 2][dx + 2], normalised by its centre, zero beyond)
/// over that of white noise of the same SD, per scale. All 1 where the centre is not positive; never below 0.1.
std::array<float, vesselness_scale_count> correlation_factors(const std::array<std::array<float, 5>, 5>& autocorrelation);

/// Vesselness of images of one size and field of view, with all workspace allocated once. Not to be used by two threads at a time.
///
/// Hessian: sampled Gaussian derivatives of radius 4 sigma, sum-corrected, at full, half and quarter resolution (pre-smoothed), times
/// sigma^2: eigenvalues of ridges of 1 px or more within 0.2 % rms of the continuous ones up to 4 px and at 6 px, 0.5 % above. Borders
/// mirror about the border pixels. Outside `valid` the image is replaced by a plane fitted to what lies near (Gaussian window, 24 px), so
/// that the field's edge does not answer.
///
/// Noise-calibrated response: with r_s = max(-sigma^2 lambda2, 0) and n_s = mean over the field of max(sigma^2 lambda1, 0), the
/// answer to valleys, which vessels hardly give but noise and clutter give as often as ridges (at least what white noise gives,
/// 0.203 noise_sd factor / sigma): R = mean over scales of r_s / n_s. A = R of the half-resolution scales averaged over +-16 px along
/// the vessel, each point weighted by the squared cosine of its direction's difference. x = (R + A) / (2 half_response_ratio);
/// the response is x^2 / (1 + x^2). No maximum over the frame anywhere.
class Vesselness {
 public:
  /// Images of height x width >= 1 that may be read everywhere.
  Vesselness(const Stream& stream, int height, int width);
  /// Images of the size of `valid`, memory of the stream's device, which is nonzero where they may be read and must outlive this.
  /// Synchronises the stream.
  Vesselness(const Stream& stream, ImageView<const std::uint8_t> valid);
  ~Vesselness();
  Vesselness(Vesselness&&) noexcept;
  Vesselness& operator=(Vesselness&&) noexcept;

  /// Vesselness of `image` (bright vessels, any units; finite where valid). The map, of make_vesselness_map for all planes or those
  /// that the options ask for, may not overlap it. Throws std::invalid_argument where sizes differ from the constructor's or an option is
  /// out of its range.
  void compute(const Stream& stream, ImageView<const float> image, const VesselnessOptions& options, VesselnessMap& map);

 private:
  Vesselness(const Stream& stream, int height, int width, ImageView<const std::uint8_t> valid);
  struct Workspace;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace cinelumen
