#pragma once
/// Scenes whose motion is known exactly, and the smallest error any estimator can have on them.

#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/image.h"
#include "kernels/rigid_motion.h"

namespace cinelumen::reference {

/// A bone-like scene given by a formula, so that moved frames need no interpolation: soft-edged shafts, trabecular texture, soft tissue;
/// and vessels that only frames have.
class Scene {
 public:
  Scene(int side, unsigned seed) : side_(side) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> u(0, 1);
    for (int i = 0; i < 3; ++i)
      bones_.push_back({u(random) * side, u(random) * side, u(random) * 3.14, side * (0.04 + 0.06 * u(random)), 0.3 + 0.4 * u(random), 0});
    for (int i = 0; i < 40; ++i) blobs_.push_back({u(random) * side, u(random) * side, 2 + 4 * u(random), 0, 0.08 * (u(random) - 0.5), 0});
    for (int i = 0; i < 6; ++i)
      vessels_.push_back(
          {u(random) * side, u(random) * side, u(random) * 3.14, 1.5 + 3 * u(random), 0.15 + 0.35 * u(random), u(random) * 0.02});
  }

  /// Attenuation at mask position (y, x).
  double background(double y, double x) const {
    double sum = 0.002 * (y - side_ / 2.0) + 0.3 * std::sin(x / side_ * 3);
    for (const Part& bone : bones_) {
      const double d = std::abs((x - bone.x) * std::sin(bone.a) - (y - bone.y) * std::cos(bone.a));
      if (d > bone.b + 6) continue;
      // Cortical edges blurred to SD 1 px.
      sum +=
          bone.amplitude * (0.5 * std::erfc((d - bone.b) / std::sqrt(2.0)) - 0.35 * std::erfc((d - 0.7 * bone.b) / std::sqrt(2.0)) * 0.5);
    }
    for (const Part& blob : blobs_)
      if (const double t = ((x - blob.x) * (x - blob.x) + (y - blob.y) * (y - blob.y)) / (2 * blob.a * blob.a); t < 20)
        sum += blob.amplitude * std::exp(-t);
    return sum;
  }
  /// Contrast at frame position (y, x): vessels have their own motion.
  double contrast(double y, double x) const {
    double sum = 0;
    for (const Part& v : vessels_) {
      const double along = (x - v.x) * std::cos(v.a) + (y - v.y) * std::sin(v.a);
      const double d = (x - v.x) * std::sin(v.a) - (y - v.y) * std::cos(v.a) + v.bend * along * along / 4;
      sum += v.amplitude * std::sqrt(std::max(0.0, 1 - d * d / (v.b * v.b)));
    }
    return sum;
  }

  /// The frame's attenuation under `motion`, with noise.
  Image<float> frame(const RigidMotion& motion, double noise_sd, bool vessels, unsigned seed) const {
    Image<float> result(side_, side_);
    std::mt19937 random(seed);
    std::normal_distribution<double> normal(0, 1);
    const RigidMotion back = inverse(motion);
    for (int y = 0; y < side_; ++y)
      for (int x = 0; x < side_; ++x) {
        const PixelPosition q = move(back, {static_cast<double>(y), static_cast<double>(x)}, side_, side_);
        result(y, x) = static_cast<float>(background(q.y, q.x) + (vessels ? contrast(y, x) : 0) + noise_sd * normal(random));
      }
    return result;
  }

  /// Cramer-Rao bound of one shift component (rms of y and x), px, for this noise between frame and mask, and no vessels.
  double shift_bound_px(double noise_sd) const {
    const Image<float> image = frame({}, 0, false, 1);
    double yy = 0, yx = 0, xx = 0;
    for (int y = 1; y < side_ - 1; ++y)
      for (int x = 1; x < side_ - 1; ++x) {
        const double gy = (image(y + 1, x) - image(y - 1, x)) / 2.0, gx = (image(y, x + 1) - image(y, x - 1)) / 2.0;
        yy += gy * gy;
        yx += gy * gx;
        xx += gx * gx;
      }
    return noise_sd * std::sqrt((yy + xx) / 2 / (yy * xx - yx * yx));
  }

 private:
  struct Part {
    double y, x, a, b, amplitude, bend;
  };
  int side_;
  std::vector<Part> bones_, blobs_, vessels_;
};

}  // namespace cinelumen::reference
