#pragma once
/// Finding a known centreline again in another frame (methods.md 6).

#include <vector>

#include "engine/centreline.h"
#include "kernels/image.h"

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

/// For each point of each centreline (already moved by the background's motion) the offset to the ridge of `z` (the frame's noise gate,
/// memory of the stream's device): the path of offsets along the segment, in steps of about 1 px, that gathers most z at least bending, by
/// dynamic programming, then the nearest maximum of samples half a pixel apart and a parabola through it. Two kernel calls for all
/// segments. Points outside the image are not accepted. Segments do not depend on one another.
std::vector<std::vector<SnappedPoint>> snap_to_ridge(const Stream& stream, ImageView<const float> z,
                                                     const std::vector<Centreline>& centrelines, const RidgeSnapOptions& options);
/// The same with the maximum looked for in z / scale, which goes with the scale-normalised curvature that chose the scale: z itself grows
/// with the scale, so where the scale changes across a vessel it may have two maxima beside the middle and none on it.
std::vector<std::vector<SnappedPoint>> snap_to_ridge(const Stream& stream, const VesselnessMap& vesselness,
                                                     const std::vector<Centreline>& centrelines, const RidgeSnapOptions& options);
/// The first for one centreline.
std::vector<SnappedPoint> snap_to_ridge(const Stream& stream, ImageView<const float> z, const Centreline& centreline, float search_px);

/// The centreline with its accepted points moved onto their ridges; the others take their neighbours' offsets, interpolated along the
/// segment. Tangents are turned accordingly; arc lengths stay those of the segment (they are its coordinate); z is the new one.
Centreline moved_to_ridge(const Centreline& centreline, const std::vector<SnappedPoint>& snapped);

}  // namespace cinelumen
