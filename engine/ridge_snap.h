#pragma once
/// Finding a known centreline again in another frame (methods.md 6).

#include <vector>

#include "engine/centreline.h"
#include "kernels/image.h"
#include "kernels/ridge_paths.h"

namespace cinelumen {

/// Where a centreline point's ridge lies in this frame. The normal of a point is (y, x) = (tangent_x, -tangent_y).
struct SnappedPoint {
  float offset_px = 0;    ///< along the normal, sub-pixel; 0 where not accepted
  float z = 0;            ///< noise gate there
  bool accepted = false;  ///< z above the threshold at a maximum across the vessel
};

/// How far and how strictly a centreline is re-found in a frame.
struct RidgeSnapOptions {
  float search_px = 3;  ///< how far a ridge is looked for on either side, > 0
  float minimum_z = 3;  ///< a ridge needs this much
  float stiffness = 1;  ///< cost of a sideways step of 1 px between neighbouring points, in units of the segment's usual z; none is larger
};

/// Finds the ridges of centrelines of one layout, frame after frame: the path of offsets along each that gathers most z at least bending,
/// by dynamic programming, then the nearest maximum (kernels/ridge_paths.h). Made once, with all the memory it needs; enqueue() neither
/// waits, allocates nor decides anything on the host.
class RidgeFollower {
 public:
  /// first: host; line s is points first[s] ... first[s + 1] - 1. Synchronises the stream. Throws std::invalid_argument.
  RidgeFollower(const Stream& stream, ArrayView<const int> first, const RidgeSnapOptions& options);

  /// Looks for the ridges of z / scale across `lines`, which goes with the scale-normalised curvature that chose the scale: z itself grows
  /// with the scale, so where the scale changes across a vessel it may have two maxima beside the middle and none on it. An image without
  /// scale_px: of z itself. Sets peaks(). All memory of the stream's device.
  void find(const Stream& stream, const RidgeImage& image, ArrayView<const CrossSection> lines);
  /// Sets moved() and found(): lines with at least least_share of their points found are moved onto their ridges, others stay.
  void move(const Stream& stream, ArrayView<const CrossSection> lines, float least_share);

  ArrayView<CrossPeak> peaks() { return peaks_.view(); }                 ///< device
  ArrayView<const CrossSection> moved() const { return moved_.view(); }  ///< device
  ArrayView<const std::int32_t> found() const { return found_.view(); }  ///< device; per line
  /// How far a point may be moved, px.
  float reach_px() const;

 private:
  RidgeSnapOptions options_;
  Array<int> first_, list_, rank_;
  RidgePathScratch scratch_;
  Array<CrossPeak> peaks_;
  Array<float> offsets_;
  Array<CrossSection> moved_;
  Array<std::int32_t> found_;
};

/// What a map holds for it: the ridge where it is there, or z and scale.
RidgeImage ridge_image_of(const VesselnessMap& map);

/// For each point of each centreline (already moved by the background's motion) the offset to the ridge of `z` (the frame's noise gate,
/// memory of the stream's device). For one frame only: see RidgeFollower. Points outside the image are not accepted. Segments do not
/// depend on one another. Synchronises the stream.
std::vector<std::vector<SnappedPoint>> snap_to_ridge(const Stream& stream, ImageView<const float> z,
                                                     const std::vector<Centreline>& centrelines, const RidgeSnapOptions& options);
/// The same with the maximum looked for in z / scale.
std::vector<std::vector<SnappedPoint>> snap_to_ridge(const Stream& stream, const VesselnessMap& vesselness,
                                                     const std::vector<Centreline>& centrelines, const RidgeSnapOptions& options);
/// The first for one centreline.
std::vector<SnappedPoint> snap_to_ridge(const Stream& stream, ImageView<const float> z, const Centreline& centreline, float search_px);

/// The centreline with its accepted points moved onto their ridges; the others take their neighbours' offsets, interpolated along the
/// segment. Tangents are turned accordingly; arc lengths stay those of the segment (they are its coordinate); z is the new one.
Centreline moved_to_ridge(const Centreline& centreline, const std::vector<SnappedPoint>& snapped);

}  // namespace cinelumen
