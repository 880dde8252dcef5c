#pragma once
/// How well a lumen diameter can be known: the Cramer-Rao bound of one profile, and what correlated noise does to it.

#include <array>

namespace cinelumen {

/// One profile across a vessel, one pixel per px, fitted with a straight background and the vessel's place free.
struct ProfileCase {
  double radius_px = 5;
  double psf_px = 0.7;     ///< Gaussian SD without the pixel
  double kappa = 0.02;     ///< log units per px
  double noise_sd = 0.01;  ///< white, per pixel
  bool kappa_free = true, psf_free = false;
  double kappa_sd = 0;  ///< of a prior that a free kappa has, log units per px; 0: none
  /// Share of noise_sd^2 that is of quanta of the frame and grows with what the vessel absorbs, as exp(attenuation); the rest is the
  /// mask's.
  double quantum_share = 0;
  double half_window_px = 0;  ///< 0: 1.5 R + 5 s + 2, as fit_lumen
};

/// Lower bound of the SD of the diameter, px, for any unbiased estimator, averaged over the vessel's place within a pixel.
double diameter_sd_bound(const ProfileCase& profile);

/// Factor on the SD of a diameter fitted by weighted least squares where the noise is correlated: autocorrelation[dy + 2][dx + 2], 1 at the
/// centre (a centre of 0 means white). `rows` profiles side by side are fitted together; both directions of the vessel are averaged.
double correlated_noise_factor(const ProfileCase& profile, const std::array<std::array<float, 5>, 5>& autocorrelation, int rows);

}  // namespace cinelumen
