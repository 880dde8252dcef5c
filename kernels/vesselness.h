#pragma once
/// Multi-scale Hessian vesselness, noise-calibrated (methods.md 3).

#include <array>
#include <cstdint>
#include <vector>

#include "image.h"
#include "stream.h"

namespace cinelumen {

/// Which response to compute. All take bright ridges (added attenuation).
enum class VesselnessResponse {
  noise_calibrated,  ///< the default: Jerman's shape gated by the noise, with elongation
  frangi,            ///< Frangi et al., MICCAI 1998
  sato,              ///< Sato et al., Med Image Anal 1998
  jerman,            ///< Jerman et al., IEEE TMI 2016
};

struct VesselnessOptions {
  VesselnessResponse response = VesselnessResponse::noise_calibrated;
  float noise_sd = 0.01f;  ///< white-noise SD of the image, > 0
  /// SD of sigma^2 L_xx for this noise over 0.244 noise_sd / sigma, per scale: > 1 where the noise is correlated.
  std::array<float, 6> correlation_factor = {1, 1, 1, 1, 1, 1};
};

/// Scales used, px.
inline constexpr std::array<float, 6> vesselness_scales_px = {1.0f, 1.4f, 2.0f, 2.8f, 4.0f, 5.6f};

/// Results, memory of the stream's device, each rows x columns.
struct VesselnessMap {
  Image<float> response;  ///< [0, 1] (Sato: log units)
  Image<float> z;         ///< noise gate at the winning scale, SDs; negative: no bright ridge
  Image<float> angle;     ///< direction along the vessel, radians in (-pi/2, pi/2], atan2(dy, dx)
  Image<float> scale_px;  ///< winning sigma
};

}  // namespace cinelumen
