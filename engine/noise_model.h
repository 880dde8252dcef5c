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
  bool relative = false;           ///< the unit of L is assumed (LOG without its scale): ratios hold, absolute figures do not
  float sd_inflation = 1;          ///< factor on SDs for what the grey scale hides
  std::string note;                ///< in words, for the report
};

/// Builds the model from what the file says of its pixel values. Never throws: what is unknown is treated as display grey, and said.
/// Linear: L = -ln(I / I0) with I the value in stored counts (the offset o is not in the file: 0), half a count at least, and I0 the
/// table's largest. Logarithmic without a LUT: the full range of values is taken for the full range of counts, ln 2^bits_stored.
/// Display grey: L = -ln(grey + 8 x 2^(bits_stored - 8)), scaled like the linear one, and SDs twice as large (display_sd_inflation).
IntensityModel make_intensity_model(const IntensityEncoding& encoding);

/// What a display curve may hide: with its exponent anywhere from 1/2 to 2, a fitted edge moves by about its own SD at the usual contrast.
inline constexpr float display_sd_inflation = 2;

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

/// Robust regression of half the temporal-difference variance on intensity over `frames` (0-based, contrast-free, two at least; up to
/// nine neighbouring pairs of the list are read), or a spatial estimate of the one frame given, marked as such. Reads inside the field of
/// view only, in flat blocks of 16 x 16 pixels whose difference is freed of its mean (drift) and of
/// what motion of up to three pixels explains by the scene's gradient; blocks with a saturated or
/// clamped pixel are left out. Display grey: the same in grey values. Nothing is ever less than the quantisation's step^2 / 12, which is
/// part of electronic_sd. Throws std::invalid_argument where `frames` is empty or names a frame that is not there, InputError.
NoiseModel estimate_noise(const Run& run, const IntensityModel& intensity, const std::vector<int>& frames);

/// SD of an image's finest noise: median absolute second difference along rows, which smooth structure hardly touches. Host memory;
/// `valid`: same size, 1 where the image may be read.
double fine_noise_sd(const Image<float>& image, const Image<std::uint8_t>& valid);

}  // namespace cinelumen
