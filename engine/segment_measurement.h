#pragma once
/// What was measured along each segment in each frame, and what it says of the segment.

#include <vector>

#include "engine/analysis.h"
#include "kernels/rigid_motion.h"

namespace cinelumen {

/// Measurements of all segments in all frames. Index order: segment, frame, point.
struct SegmentMeasurements {
  std::vector<std::vector<std::vector<LumenPoint>>> lumen;
  std::vector<std::vector<std::vector<float>>> contrast;  ///< log attenuation above the local background at the centreline; NaN: not read
  std::vector<std::vector<float>> region_contrast;        ///< per named region and frame; NaN: not read
  double contrast_sd = 0;                                 ///< noise SD of one value of `contrast`, log units
};

/// The centreline, moved by the background's motion from the mask's coordinates into a frame's. height, width: the image's.
Centreline move_centreline(const Centreline& centreline, const RigidMotion& motion, int height, int width);

/// Pools the diameters over frames, fills each segment's profile, figures and filling.
void summarize_segments(const SegmentMeasurements& measurements, Analysis& analysis);

/// Time-density curves, arrival, transit and velocity of each segment and region; areas relative to the inlet.
void summarize_flow(const SegmentMeasurements& measurements, const std::vector<NamedRegion>& regions, Analysis& analysis);

}  // namespace cinelumen
