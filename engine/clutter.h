#pragma once
/// What an image holds besides vessels and white noise: noise that varies with brightness, and structure that answers like weak vessels.

#include "engine/noise_model.h"
#include "engine/run.h"
#include "kernels/vesselness.h"

namespace cinelumen {

/// 1 / (SD of L at each pixel over noise.log_sd_at_median), smoothed over about 16 px, from the brightness of frame `frame` (0-based):
/// what VesselnessOptions::noise_weight takes, in host memory. 1 outside the field of view.
Image<float> local_noise_weight(const Run& run, const NoiseModel& noise, int frame);

/// The image's own spread of the noise gate z over that of white noise, per scale, from the median of its positive values: vessels cover
/// too little of an image to move a median, clutter does. At least 0.8, at most 20. `map`: computed with `options`; `valid`: host.
/// Multiply options.correlation_factor by it, and z is in SDs of what the image holds off the vessels. Synchronises the stream.
std::array<float, vesselness_scale_count> clutter_factors(const Stream& stream, const VesselnessMap& map,
                                                          ImageView<const std::uint8_t> valid, const VesselnessOptions& options);

/// The same for all scales together, from every eighth row: quick enough for every frame. At least 1, at most 20. Synchronises the stream.
float overall_clutter(const Stream& stream, const VesselnessMap& map);

}  // namespace cinelumen
