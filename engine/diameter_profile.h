#pragma once
/// Lumen diameter with its standard deviation along centrelines, frame by frame and pooled (methods.md 5).

#include <optional>
#include <string>
#include <vector>

#include "engine/calibration.h"
#include "engine/centreline.h"
#include "engine/noise_model.h"
#include "kernels/image.h"

namespace cinelumen {

/// Why a point was not used; the words of lumen.csv.
enum class Exclusion { none, unfilled, overlap, edge, low_contrast, motion, no_fit, inferred, display_grey, key_frame_only };
const char* to_string(Exclusion reason);

/// One centreline point in one frame.
struct LumenPoint {
  int segment = 0, point = 0;  ///< indices into the graph
  float arc_length_px = 0;
  float y_px = 0, x_px = 0;  ///< the frame's own coordinates, after re-snapping
  float normal_y = 0, normal_x = 0;
  float diameter_px = 0, sd_px = 0;
  float contrast = 0;  ///< log attenuation at the profile's centre
  float background = 0;
  bool used = false;
  Exclusion reason = Exclusion::no_fit;
};

/// Diameter along one segment, pooled over frames.
struct DiameterProfile {
  struct Point {
    float arc_length_px = 0, y_px = 0, x_px = 0;  ///< mask coordinates
    float diameter_px = 0, sd_px = 0;             ///< robust mean over frames and its SD; sd 0: not measured
    int frames = 0;                               ///< how many frames went in
  };
  std::vector<Point> points;
};

/// Figures of one segment. In px; the caller multiplies by the calibration.
struct SegmentDiameter {
  std::optional<double> median, sd, minimum, reference, percent_stenosis;
  std::array<double, 2> minimum_at_px = {0, 0};
};

/// Pools one segment's points over frames (robustly, weights 1/SD^2): `frames` has, per frame, that segment's points.
DiameterProfile pool_profile(const Centreline& centreline, const std::vector<std::vector<LumenPoint>>& frames);

/// Minimum, reference (healthy calibre interpolated from both sides of the minimum) and percent stenosis of a pooled profile.
SegmentDiameter summarize(const DiameterProfile& profile);

}  // namespace cinelumen
