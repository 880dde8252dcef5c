#pragma once
/// The canonical attenuation plane and its noise (methods.md 1).

#include <array>
#include <string>
#include <vector>

#include "engine/run.h"

namespace cinelumen {

/// From stored values to attenuation L = -ln((I - o) / I0), dimensionless, larger where more is absorbed.
struct IntensityModel {
  std::vector<float> attenuation;  ///< L per stored value
  std::vector<float> linear;       ///< I - o in stored counts per stored value, where densitometric
  bool densitometric = false;      ///< false: display grey; geometric fits only, SDs inflated
  float sd_inflation = 1;          ///< factor on SDs for what the grey scale hides
  std::string note;                ///< in words, for the report
};

/// Builds the model from what the file says of its pixel values. Never throws: what is unknown is treated as display grey, and said.
IntensityModel make_intensity_model(const IntensityEncoding& encoding);

/// Var(I) = gain (I - o) + electronic_sd^2, carried to L, with the noise's spatial correlation.
struct NoiseModel {
  double gain = 0;                                        ///< variance per stored count
  double electronic_sd = 0;                               ///< stored counts
  double log_sd_at_median = 0;                            ///< SD of L of one frame at the median stored value
  std::vector<float> variance;                            ///< Var(L) per stored value
  std::array<std::array<float, 5>, 5> autocorrelation{};  ///< [dy + 2][dx + 2], 1 at the centre
  bool temporal = false;  ///< from differences of contrast-free frames; false: spatial estimate of one frame
  std::string note;
};

/// Robust regression of half the temporal-difference variance on intensity over `frames` (0-based, contrast-free, two at least), or a
/// spatial estimate of one frame where there are fewer. Reads inside the field of view only.
NoiseModel estimate_noise(const Run& run, const IntensityModel& intensity, const std::vector<int>& frames);

}  // namespace cinelumen
