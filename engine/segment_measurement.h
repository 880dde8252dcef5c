#pragma once
/// What was measured along each segment in each frame, and what it says of the segment.

#include <vector>

#include "engine/analysis.h"
#include "engine/frame_warp.h"
#include "kernels/rigid_motion.h"

namespace cinelumen {

/// Measurements of all segments in all frames. Index order: segment, frame, point.
struct SegmentMeasurements {
  std::vector<std::vector<std::vector<LumenPoint>>> lumen;
  std::vector<std::vector<std::vector<float>>> contrast;  ///< log attenuation above the local background at the centreline; NaN: not read
  std::vector<std::vector<float>> region_contrast;        ///< per named region and frame; NaN: not read
  double psf_px = 0;                                      ///< of the diameters' fit, without the pixel; 0: not known
  double contrast_sd = 0;                                 ///< noise SD of one value of `contrast`, log units
};

/// The centreline, bent and moved as the background is from the mask's coordinates into a frame's. height, width: the image's.
Centreline move_centreline(const Centreline& centreline, const RigidMotion& motion, int height, int width, const FrameWarp& warp = {});

/// Takes out of one segment's `frames` what was measured while it was partly filled, pools the rest, and fills the segment's profile,
/// figures (along_variance_px2: see DiameterProfile), gates and, where the gates fail on a fifth of what was measured, its filling. Returns
/// what was taken out.
std::vector<PartlyFilled> pool_filled(SegmentResult& segment, std::vector<std::vector<LumenPoint>>& frames, const FillingSeries& series,
                                      const FillingOptions& options, double along_variance_px2);

/// Mean contrast over time of points [from, to) of a segment's `contrast` (frame, point). `sd`: noise of one value.
TimeDensityCurve mean_curve(const std::vector<std::vector<float>>& contrast, const std::vector<double>& times_ms, std::size_t from,
                            std::size_t to, double sd);

/// Fills each segment's changes of calibre within the run, from all frames in order: before summarize_segments, which takes points out.
void watch_calibre(const SegmentMeasurements& measurements, Analysis& analysis);

/// DiameterProfile::along_variance_px2 for a point spread (px, without the pixel).
double along_variance_px2(double psf_px);

/// The filling's options for what an analysis was made of.
FillingOptions filling_options(const Analysis& analysis);

/// Pools the diameters over frames in which the lumen was filled; fills each segment's profile, figures and filling. Marks what was not.
void summarize_segments(SegmentMeasurements& measurements, Analysis& analysis);

/// Time-density curves, arrival, transit and velocity of each segment and region; areas relative to the inlet.
void summarize_flow(const SegmentMeasurements& measurements, const std::vector<NamedRegion>& regions, Analysis& analysis);

}  // namespace cinelumen
