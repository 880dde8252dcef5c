#pragma once
/// A run at the size at which whole frames are judged: which show contrast, which belong to one scene.

#include <array>
#include <vector>

#include "engine/noise_model.h"
#include "engine/run.h"

namespace cinelumen {

/// Binned frames. Host memory.
struct FramePlanes {
  int first = 0;                         ///< 0-based number in the file of planes[0]
  int bin = 1, height = 0, width = 0;    ///< a plane's pixel is the attenuation of the mean of bin x bin stored values
  Image<std::uint8_t> valid;             ///< 1 where all of them lie in the field of view
  std::vector<Image<float>> planes;      ///< attenuation, freed of what varies slowly; 0 where not valid
  std::vector<Image<float>> brightness;  ///< attenuation, mean over coarse blocks (16 x 16, fewer for small images); NaN where not valid
};

/// Reads frames first..last (0-based, inclusive), several at a time, binned so that the longer side is about 256 px (less in long runs: all
/// planes together stay below 128 MB or 64 px). Throws InputError where a frame can't be read,
/// std::invalid_argument where first..last does not lie in the run.
FramePlanes read_frame_planes(const Run& run, const IntensityModel& intensity, int first, int last);

/// Only frames first..last (0-based in the file) of `planes`.
FramePlanes part_of(FramePlanes planes, int first, int last);

}  // namespace cinelumen
