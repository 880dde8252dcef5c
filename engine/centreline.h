#pragma once
/// From a vesselness map to a graph of sub-pixel centrelines (methods.md 4).

#include <array>
#include <memory>
#include <vector>

#include "kernels/image.h"
#include "kernels/vesselness.h"

namespace cinelumen {

/// A point of a centreline, in pixels of the image it was found in.
struct CentrelinePoint {
  float y = 0, x = 0;                  ///< sub-pixel position
  float tangent_y = 0, tangent_x = 1;  ///< unit direction along the vessel
  float arc_length_px = 0;             ///< from the segment's first point
  float radius_px = 0;                 ///< rough, from the winning scale; the fit's starting value
  float z = 0;                         ///< noise gate at the point
  bool inferred = false;               ///< carried on from either side: no pixel tells where the middle is. Not to be measured
  float sd_px = 0;                     ///< standard deviation across the vessel to be expected of the position; 0: nothing is known of it
};

/// Ordered points about 1 px apart.
struct Centreline {
  std::vector<CentrelinePoint> points;
  double length_px() const { return points.empty() ? 0 : points.back().arc_length_px; }
};

/// Where three or more segments meet, or a vessel crosses another.
struct BranchPoint {
  double y = 0, x = 0;
  std::vector<int> segments;  ///< indices of the segments that meet here
  bool crossing = false;      ///< two vessels one behind the other, not a bifurcation
};

/// Segments between branch points and ends.
struct VesselGraph {
  struct Segment {
    Centreline centreline;
    int start_branch = -1, end_branch = -1;  ///< index into branch_points, -1: a free end
    bool inferred = false;                   ///< bridged gap: never measured
  };
  std::vector<Segment> segments;
  std::vector<BranchPoint> branch_points;
};

/// What counts as a segment, and how smooth it is.
struct CentrelineOptions {
  float z_high = 5, z_low = 2.75f;  ///< hysteresis on the noise gate
  /// And on the noise-calibrated response, which measures against the image's own clutter: where bone or soft tissue was not subtracted
  /// all of it passes the noise gate. response_high <= 0: not asked, as must be with another response.
  float response_low = 0.3f, response_high = 0.6f;
  int minimum_area_px = 30;      ///< components smaller than this are dropped
  float minimum_length_px = 10;  ///< segments with a free end shorter than this, or than 1.5 local radii, are spurs
  float spline_knot_px = 5;      ///< knots of the smoothing spline
  /// A graph for every frame: z is measured against this image's own clutter, points are moved onto the ridge once and smoothed by a
  /// running mean.
  bool quick = false;
};

/// Hysteresis, components, thinning, sub-pixel ridge and graph of images of one size, with all workspace allocated once. Not to be used by
/// two threads at a time.
class CentrelineTracer {
 public:
  /// For images of this size, on the stream's device.
  CentrelineTracer(const Stream& stream, int height, int width);
  CentrelineTracer(CentrelineTracer&&) noexcept;
  CentrelineTracer& operator=(CentrelineTracer&&) noexcept;
  ~CentrelineTracer();
  /// See trace_centrelines. Images have the size of the constructor.
  VesselGraph trace(const Stream& stream, ImageView<const float> image, const VesselnessMap& vesselness,
                    ImageView<const std::uint8_t> valid, const CentrelineOptions& options = {});

 private:
  struct Workspace;
  std::unique_ptr<Workspace> workspace_;
};

/// Hysteresis, components, thinning, sub-pixel ridge and graph of `image` (added attenuation, vessels bright; memory of the stream's
/// device) with its vesselness. `valid` is 1 where the image may be read. Segments come longest first.
VesselGraph trace_centrelines(const Stream& stream, ImageView<const float> image, const VesselnessMap& vesselness,
                              ImageView<const std::uint8_t> valid, const CentrelineOptions& options = {});

}  // namespace cinelumen
