#pragma once
/// Lumina of one segment as they are measured frame after frame, made without pictures: thousands of runs take seconds.

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "engine/change_point.h"

namespace cinelumen::test {

/// What a place shows: diameter in px, and its attenuation per px over the undiluted one's.
struct Shown {
  double diameter = 10, kappa_share = 1;
};
using Vessel = std::function<Shown(int frame, int point)>;

inline Centreline straight(int count) {
  Centreline line;
  for (int i = 0; i < count; ++i) {
    CentrelinePoint point;
    point.x = point.arc_length_px = static_cast<float>(i);
    line.points.push_back(point);
  }
  return line;
}

/// What measuring adds to a vessel.
struct MeasuringNoise {
  double sd_px = 0.3;            ///< of a point's diameter at full contrast; neighbours share half
  double outliers = 0;           ///< share of points that miss by three times as much
  double frame_sd = 0;           ///< of ln D that all points of a frame share ...
  double frame_correlation = 0;  ///< ... and from frame to frame
  double kappa_sd = 0.05;        ///< relative, of a point's attenuation per px
  double kappa_frame_sd = 0;     ///< the same that all points of a frame share
  double held_kappa_sd = 0;      ///< where a lumen is narrow kappa comes from elsewhere: this SD of its ln from frame to frame
  double missing = 0;            ///< a stretch of this share of the points is not measured; it wanders
  double narrowest_px = 3.5;     ///< that tells its own kappa
  Vessel elsewhere = nullptr;    ///< where narrow places have their kappa from; none: it is right
};

/// Measures a vessel frame by frame.
class Camera {
 public:
  Camera(Vessel vessel, int points, unsigned seed, MeasuringNoise noise = {})
      : vessel_(std::move(vessel)), points_(points), noise_(std::move(noise)), random_(seed) {}

  std::vector<LumenPoint> frame(int f) {
    const MeasuringNoise& n = noise_;
    shared_ = n.frame_correlation * shared_ + std::sqrt(1 - n.frame_correlation * n.frame_correlation) * normal_(random_);
    const double calibre = std::exp(n.frame_sd * shared_), all_kappa = n.kappa_frame_sd * normal_(random_),
                 held = std::exp(n.held_kappa_sd * normal_(random_));
    missing_at_ += 0.1 * normal_(random_);
    std::vector<LumenPoint> line(static_cast<std::size_t>(points_));
    double last = normal_(random_);
    for (int i = 0; i < points_; ++i) {
      const Shown shown = vessel_(f, i);
      const double fresh = normal_(random_), noise = (fresh + last) / std::sqrt(2.0) * (uniform_(random_) < n.outliers ? 3 : 1);
      last = fresh;
      const bool narrow = shown.diameter < n.narrowest_px;
      // What is seen of a narrow lumen is kappa D^2; the narrower, the more its kappa is that of filled places elsewhere.
      const double other = n.elsewhere ? n.elsewhere(f, i).kappa_share : shown.kappa_share;
      const double own_sd = 0.08 * std::pow(n.narrowest_px / shown.diameter, 3), weight = own_sd * own_sd / (own_sd * own_sd + 0.01);
      const double seen_kappa =
          narrow && other > 0.15 ? std::pow(held * other, weight) * std::pow(shown.kappa_share, 1 - weight) : shown.kappa_share;
      const double seen_diameter = shown.diameter * std::sqrt(shown.kappa_share / std::max(0.01, seen_kappa)) * calibre;
      LumenPoint& p = line[static_cast<std::size_t>(i)];
      p.point = i;
      p.used = shown.kappa_share > 0.1 && seen_diameter > 1 && !is_missing(i);
      p.own_kappa = !narrow;
      p.sd_px = static_cast<float>(std::hypot(n.sd_px / shown.kappa_share, common_px));
      p.common_sd_px = common_px;
      p.diameter_px = static_cast<float>(seen_diameter + n.sd_px / shown.kappa_share * noise);
      p.kappa = static_cast<float>(undiluted * seen_kappa * (1 + n.kappa_sd * normal_(random_) + all_kappa));
      p.kappa_sd = static_cast<float>(n.kappa_sd * undiluted);
    }
    return line;
  }

 private:
  static constexpr double undiluted = 0.04;
  static constexpr float common_px = 0.1f;
  bool is_missing(int i) const {
    const double at = static_cast<double>(i) / points_ - missing_at_;
    return at - std::floor(at) < noise_.missing;
  }
  Vessel vessel_;
  int points_;
  MeasuringNoise noise_;
  std::mt19937 random_;
  std::normal_distribution<double> normal_;
  std::uniform_real_distribution<double> uniform_;
  double shared_ = 0, missing_at_ = 0;
};

/// One segment of a run whose noise, filling and wash-out are like those that the engine yields on the phantom (256^2 and 512^2, DSA at 4
/// and 7.5 frames/s and fluoroscopy at 15, seeds 70 to 73): SDs by calibre and dose; most segments with nothing that a frame's points
/// share, some with up to 5 % that drifts; stretches that are not measured; narrow places whose attenuation is taken from elsewhere.
struct SimulatedSegment {
  Vessel vessel;
  MeasuringNoise noise;
  int points = 100;
};

/// One run: how fast, how long, how much dose, and when contrast leaves.
class SimulatedRun {
 public:
  /// washes_out: most runs end with contrast leaving, 4 to 20 s after their start.
  explicit SimulatedRun(unsigned seed, bool washes_out = true) : random_(seed) {
    constexpr std::array rates = {250.0, 133.0, 66.7, 33.3};
    const auto rate = static_cast<std::size_t>(uniform(0, rates.size()));
    frame_ms = rates[rate];
    fluoroscopy = rate >= 2;
    frames = static_cast<int>(1000 * uniform(8, 25) / frame_ms);
    leaves_s_ = uniform(0, 1) < 0.7 && washes_out ? uniform(4, 20) : 1e9;
  }
  double frame_ms = 250;
  bool fluoroscopy = false;
  int frames = 0;

  /// The next one. Its calibre does not change.
  SimulatedSegment segment() {
    SimulatedSegment result;
    result.points = static_cast<int>(uniform(20, 240));
    const double widest = 1.6 * std::pow(8, uniform(0, 1)), taper = uniform(0.6, 1);
    MeasuringNoise& noise = result.noise;
    noise.sd_px = (fluoroscopy ? 0.16 : 0.04) + 0.13 / widest;
    noise.outliers = 0.1;
    noise.frame_sd = std::min(0.06, 0.002 * std::exp(1.6 * normal_(random_)));
    noise.frame_correlation = uniform(0, 1) < 0.2 ? uniform(0.4, 0.8) : 0;
    noise.kappa_sd = (fluoroscopy ? 0.15 : 0.05) / std::max(1.0, widest / 4);
    noise.kappa_frame_sd = fluoroscopy ? 0.02 : 0.007;
    noise.held_kappa_sd = fluoroscopy ? 0.17 : 0.04;
    noise.missing = uniform(0, 1) < 0.3 ? uniform(0, 0.5) : 0;
    const double arrives_s = uniform(0.2, 3), per_point_s = uniform(0, 0.01), rise_s = uniform(0.05, 0.6);
    const double falls_s = uniform(0.2, 2), apart_s = uniform(-2, 2);
    // Blood without contrast joins for a while.
    const double dip = uniform(0, 1) < 0.05 ? uniform(0.05, 0.4) : 0, dip_at_s = uniform(3, 15), dip_s = uniform(0.5, 4);
    const double core_s = uniform(0, 1) < 0.15 ? uniform(0.1, 2) : 0;  // contrast goes ahead in the middle
    const double frame_s = frame_ms / 1000, leaves_s = leaves_s_;
    const int points = result.points;
    const auto share = [=](double t, double at) {
      const auto passed = [](double x) { return 1 / (1 + std::exp(-std::clamp(x, -40.0, 40.0))); };
      const double dipped = dip * passed((t - dip_at_s) / 0.2) * passed((dip_at_s + dip_s - t) / 0.2);
      return std::max(0.005, passed((t - arrives_s - at) / rise_s * 4) * passed((leaves_s + at - t) / falls_s * 4) * (1 - dipped));
    };
    result.vessel = [=](int f, int i) {
      const double t = f * frame_s, at = i * per_point_s, since = t - arrives_s - at;
      const double diameter = widest * (1 - (1 - taper) * i / points);
      const double core = core_s > 0 ? (since > core_s ? std::sqrt(1 - core_s / since) : 0.0) : 1;
      return Shown{diameter * core, core > 0 ? share(t, at) : 0.005};
    };
    noise.elsewhere = [=](int f, int i) { return Shown{widest, share(f * frame_s - apart_s, i * per_point_s)}; };
    return result;
  }
  double uniform(double low, double high) { return low + (high - low) * std::uniform_real_distribution<double>()(random_); }

 private:
  std::mt19937 random_;
  std::normal_distribution<double> normal_;
  double leaves_s_ = 1e9;
};

}  // namespace cinelumen::test
