#pragma once
/// Where the scene of frame 0 lies in another frame: limbs that move rigidly about their joints, soft tissue that gives, and the whole.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/phantom/phantom.h"

namespace cinelumen::phantom {

/// A bone's projection: a line with two half widths, px of frame 0.
struct BoneShadow {
  double ay = 0, ax = 0, by = 0, bx = 0, ra = 0, rb = 0;
};

/// Bones that move as one. Every limb turns about its joint and carries those that follow it.
struct Limb {
  std::string name;
  int parent = -1;  ///< index of a limb before it; -1: the room
  double joint_y = 0, joint_x = 0;
  double swing_deg = 0;  ///< largest turn about its joint, relative to those of other limbs
  std::vector<BoneShadow> bones;
};

/// The non-rigid motion of a run: each limb's motion is exactly rigid on its bones, as far as a grid of `size` / 51 px can tell them apart,
/// and blends into its neighbours'; soft tissue away from bones waves a little besides. Without limbs there are waves only. Frame 0 rests;
/// the largest displacement of a node inside the image, over all frames, is `largest_px`. `jolt_frame`: see jolt_at(). 0: an empty warp.
PhantomWarp make_warp(const std::vector<Limb>& limbs, int rows, int columns, int frames, double largest_px, double jolt_frame,
                      std::uint64_t seed);

/// The course of a patient who starts at `start` (a frame) and comes to rest a little beside where he was: 0 before, then 2, then 1.1.
double jolt_at(double frame, double start);

/// One frame's displacement, both ways.
class Displacement {
 public:
  /// Rest.
  Displacement() = default;
  /// Rigid motion about the centre of rows x columns.
  Displacement(const PhantomMotion& motion, int rows, int columns);
  /// The warp of `frame`, then the rigid motion. The inverse is solved by fixed-point iteration on a grid 0.4 times as wide as the warp's
  /// and read through an interpolating cubic B-spline.
  Displacement(const PhantomMotion& motion, int rows, int columns, const PhantomWarp& warp, int frame);

  /// Where the scene's point (y, x) of frame 0 lies in this frame.
  std::array<double, 2> forward(double y, double x) const;
  /// The scene's point of frame 0 that lies at (y, x) in this frame.
  std::array<double, 2> inverse(double y, double x) const {
    const double qy = y - cy_ - dy_, qx = x - cx_ - dx_;
    const double py = cy_ + cos_ * qy - sin_ * qx, px = cx_ + cos_ * qx + sin_ * qy;
    return back_.nodes.empty() ? std::array<double, 2>{py, px} : unwarp(py, px);
  }
  /// Direction (ty, tx), of unit length, at the scene's point (y, x), as it lies in this frame; of unit length.
  std::array<double, 2> turned(double y, double x, double ty, double tx) const;
  /// True without a warp: inverse() is then a rigid motion.
  bool rigid() const { return back_.nodes.empty(); }

 private:
  std::array<double, 2> unwarp(double y, double x) const;

  double cy_ = 0, cx_ = 0, dy_ = 0, dx_ = 0, cos_ = 1, sin_ = 0;
  PhantomWarp there_, back_;  // one frame each
};

}  // namespace cinelumen::phantom
