#pragma once
/// Maximum-likelihood fit of a projected, blurred cylinder to the raw pixels around centreline points (methods.md 5).

#include <cstdint>

#include "image.h"
#include "log_attenuation.h"
#include "stream.h"

namespace cinelumen {

/// Where to fit, and what is known beforehand. One profile each.
struct LumenFitPoint {
  float y = 0, x = 0;                   ///< on the centreline, px
  float normal_y = 0, normal_x = 1;     ///< unit vector across the vessel
  float radius_px = 3;                  ///< start; with LumenFitOptions::search only the scale of the search
  float centre_px = 0;                  ///< start along the normal; not used with LumenFitOptions::search
  float kappa = 0;                      ///< prior attenuation per px of chord
  float kappa_sd = 0;                   ///< its SD: small holds kappa, 0 leaves it free
  float psf_px = 0.7f;                  ///< Gaussian SD of the point spread without the pixel, px
  float psf_sd_px = 0.1f;               ///< its SD: goes into sd_px; the prior where LumenFitOptions::fit_psf
  float from_px = -1e6f, to_px = 1e6f;  ///< pixels at distances outside are left out: another vessel lies there
  float first_radius_px = 0;            ///< where the fit starts without a search, if not at radius_px, which sets the window; 0: there
};

/// A fitted profile. SDs are for white noise of the given variance, widened by sqrt(chi2_per_dof) where that exceeds 1.
struct LumenFit {
  float diameter_px = 0, sd_px = 0;
  float prior_sd_px = 0;  ///< what of sd_px comes from the errors of the held point spread and of kappa's prior: no pixel's noise
  float centre_px = 0, centre_sd_px = 0;  ///< along the normal, from the point
  float kappa = 0, kappa_sd = 0;          ///< per px
  float psf_px = 0, psf_sd_px = 0;
  float contrast = 0, contrast_sd = 0;         ///< of the blurred cylinder at its centre, units of the image; SD with the diameter's error
  float background = 0, background_slope = 0;  ///< at the point; per px along the normal
  float chi2_per_dof = 0;
  float fwhm_px = 0;           ///< full width at half maximum, the comparator; 0 without search
  float significance = 0;      ///< of the search: its peak over what lies outside the vessel, in SDs of white noise; 0 without search
  float lost = 0;              ///< share of the window's pixels outside the image or `valid`
  std::int32_t samples = 0;    ///< pixels used
  std::int32_t converged = 0;  ///< 1: what the last step left is a small part of the SD
  std::int32_t at_bound = 0;   ///< 1: radius or centre stopped at the edge of what the window can tell
};

/// Variance of each pixel's noise: a plane, or a frame's stored values through their table; neither: LumenFitOptions::variance everywhere.
struct VarianceSource {
  ImageView<const float> plane;
  StoredFrame stored;
  VarianceSource() = default;
  VarianceSource(ImageView<const float> of_pixels) : plane(of_pixels) {}
  VarianceSource(ImageView<float> of_pixels) : plane(of_pixels) {}
  VarianceSource(const StoredFrame& frame) : stored(frame) {}
};

/// Which of the points to fit: those of indices[0] ... indices[*count - 1], in this order. Memory of the stream's device.
struct LumenFitList {
  ArrayView<const std::int32_t> indices;
  const std::int32_t* count = nullptr;
};

/// Which parameters are free, and how long the fit may search.
struct LumenFitOptions {
  int rows = 2;              ///< pixels along the vessel per step across: the window is rows x (0.71 ... 1) px long; 1 to 3
  int iterations = 9;        ///< 2 to 50, an upper limit
  bool search = true;        ///< find the starting radius from the half maximum of a wide profile
  bool search_only = false;  ///< and no more: sets diameter_px, centre_px, fwhm_px, contrast, significance; samples and converged stay 0
  bool fit_psf = false;      ///< the point spread is a parameter too, with its prior
  float variance = 1e-4f;    ///< of the image's noise, > 0, where no variance image is given
};

/// Fits f(x) = kappa [2 sqrt(R^2 - (x - c)^2) * Gaussian * pixel] + b0 + b1 x, x the signed distance of each pixel to the centreline, to
/// the pixels within 1.5 R + 5 s + 2 px of each point, weights 1 / variance (of the first of a step's rows), by Levenberg-Marquardt on R,
/// c and s with the linear parameters projected out. The pixel's box enters as its second moment (1/12 px^2 in any direction). Model error
/// below 1.5e-4 of the peak. Where kappa is free and explains nothing by the third step, the fit ends there, not converged.
/// image: attenuation, vessels bright. variance: of the same size. valid: 1 where the image may be read, same size or without
/// data. Pixels outside weigh nothing. points and fits: same size; all memory of the stream's device; fits may not alias the rest.
/// Radii up to 30 px are fitted on every pixel; wider vessels on every second or third step. No fit depends on the other points, bit for
/// bit, nor on the CPU's schedule; but profiles are worked on in groups, so points should come in order along their vessels, groups of
/// like width. Throws std::invalid_argument.
void fit_lumen(const Stream& stream, ImageView<const float> image, const VarianceSource& variance, ImageView<const std::uint8_t> valid,
               ArrayView<const LumenFitPoint> points, ArrayView<LumenFit> fits, const LumenFitOptions& options = {});
/// The same for some of the points; the other fits stay as they are. The list is read when the stream comes to it.
void fit_lumen(const Stream& stream, ImageView<const float> image, const VarianceSource& variance, ImageView<const std::uint8_t> valid,
               const LumenFitList& list, ArrayView<const LumenFitPoint> points, ArrayView<LumenFit> fits, const LumenFitOptions& options);

/// The model's basis at one distance: value and first two derivatives along x of the blurred chord 2 sqrt(R^2 - x^2) * Gaussian(psf_px),
/// px.
struct BlurredChord {
  float value, slope, curvature;
};

/// The same evaluation that fit_lumen uses, for tests and plots. radius_px >= 0.05 psf_px, psf_px > 0 (the pixel is not added).
BlurredChord blurred_chord(float x_px, float radius_px, float psf_px);

}  // namespace cinelumen
