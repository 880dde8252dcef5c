/// Motion of the phantom's scene: what the truth says is where the picture goes, both ways, and bones stay bones.

#include "engine/phantom/displacement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace cinelumen {
namespace {

using phantom::Displacement;

PhantomOptions moving(const std::string& scenario, int size, int frames, std::uint64_t seed) {
  PhantomOptions options;
  options.scenario = scenario;
  options.rows = options.columns = size;
  options.frames = frames;
  options.contrast_free_frames = 2;
  options.seed = seed;
  return options;
}

Displacement at_frame(const PhantomTruth& truth, int frame) {
  return {truth.motion[static_cast<std::size_t>(frame)], truth.options.rows, truth.options.columns, truth.warp, frame};
}

TEST(PhantomDisplacement, RestsInFrameZeroAndReachesWhatIsAskedFor) {
  const PhantomTruth truth = phantom_truth(moving("motion-nonrigid", 128, 24, 3));
  EXPECT_NEAR(*truth.options.warp_px, 3.5 / 8, 1e-12);
  double largest = 0;
  for (int f = 0; f < 24; ++f)
    for (int y = 0; y < 128; y += 3)
      for (int x = 0; x < 128; x += 3) {
        const auto u = truth.warp.at(f, y, x);
        if (f == 0) {
          ASSERT_EQ(u[0], 0);
          ASSERT_EQ(u[1], 0);
          ASSERT_NEAR(truth.displacement(0, y, x)[0], 0, 1e-12);
        }
        largest = std::max(largest, std::hypot(u[0], u[1]));
      }
  EXPECT_NEAR(largest, *truth.options.warp_px, 0.1 * *truth.options.warp_px);
}

TEST(PhantomDisplacement, NeverFoldsAndIsInverted) {
  for (const std::uint64_t seed : {1u, 2u}) {
    PhantomOptions options = moving("motion-nonrigid", 96, 20, seed);
    options.rotation_deg = 0.2;
    options.warp_px = 5.0 * 96 / 1024;  // the most
    const PhantomTruth truth = phantom_truth(options);
    double smallest = 9, worst = 0;
    for (int f = 1; f < 20; ++f) {
      const Displacement displacement = at_frame(truth, f);
      for (double y = -6; y < 102; y += 1.37)
        for (double x = -6; x < 102; x += 1.37) {
          const auto u = truth.displacement(f, y, x), v = truth.displacement(f, y + 0.01, x), w = truth.displacement(f, y, x + 0.01);
          const double yy = 1 + (v[0] - u[0]) / 0.01, yx = (w[0] - u[0]) / 0.01, xy = (v[1] - u[1]) / 0.01, xx = 1 + (w[1] - u[1]) / 0.01;
          smallest = std::min(smallest, yy * xx - yx * xy);
          const auto moved = displacement.forward(y, x), back = displacement.inverse(y + u[0], x + u[1]);
          ASSERT_NEAR(moved[0], y + u[0], 1e-9);
          ASSERT_NEAR(moved[1], x + u[1], 1e-9);
          worst = std::max(worst, std::hypot(back[0] - y, back[1] - x));
        }
    }
    EXPECT_GT(smallest, 0.5) << seed;
    EXPECT_LT(smallest, 0.99) << "it bends";
    EXPECT_LT(worst, 0.003) << seed;
  }
}

TEST(PhantomDisplacement, IsTwiceDifferentiable) {
  const PhantomTruth truth = phantom_truth(moving("motion-nonrigid", 128, 12, 4));
  // The second difference across a node's line goes on where it was.
  const double h = 0.02, step = truth.warp.spacing_px;
  double jump = 0, curvature = 0;
  for (int k = 6; k < 30; ++k)
    for (double y = 20; y < 110; y += 7.3) {
      const double node = truth.warp.origin_x_px + k * step;
      const auto second = [&](double x) {
        const auto a = truth.warp.at(11, y, x - h), b = truth.warp.at(11, y, x), c = truth.warp.at(11, y, x + h);
        return (a[0] - 2 * b[0] + c[0]) / (h * h);
      };
      jump = std::max(jump, std::abs(second(node + 2 * h) - second(node - 2 * h)));
      curvature = std::max(curvature, std::abs(second(node)));
    }
  EXPECT_GT(curvature, 1e-4);
  EXPECT_LT(jump, 0.15 * curvature);
}

TEST(PhantomDisplacement, LimbsMoveRigidlyAboutTheirJoints) {
  using phantom::Limb;
  std::vector<Limb> limbs = {{"a", -1, 200, 100, 1, {{200, 120, 200, 330, 40, 40}}}, {"b", 0, 200, 520, 4, {{200, 700, 200, 900, 40, 40}}}};
  const PhantomWarp warp = phantom::make_warp(limbs, 1024, 1024, 8, 4, 100, 5);
  // Distances between points of one bone are kept; those between bones are not.
  const auto change = [&](double x0, double x1) {
    const auto a = warp.at(7, 200, x0), b = warp.at(7, 200, x1);
    return std::hypot(x1 + b[1] - x0 - a[1], b[0] - a[0]) - (x1 - x0);
  };
  EXPECT_NEAR(change(150, 300), 0, 0.02);
  EXPECT_NEAR(change(720, 880), 0, 0.02);
  double turn = 0;
  for (int f = 1; f < 8; ++f) {
    const auto a = warp.at(f, 200, 720), b = warp.at(f, 200, 880);
    turn = std::max(turn, std::abs(b[0] - a[0]));
  }
  EXPECT_GT(turn, 0.3) << "the outer limb turns";
}

TEST(PhantomDisplacement, IsTheRigidMotionElsewhere) {
  for (const char* const scenario : {"tubes", "foot", "motion-rigid"}) {
    const PhantomTruth truth = phantom_truth(moving(scenario, 96, 6, 2));
    EXPECT_TRUE(truth.warp.nodes.empty()) << scenario;
    const PhantomMotion& m = truth.motion[5];
    const auto centre = truth.displacement(5, 47.5, 47.5), corner = truth.displacement(5, 0, 0);
    EXPECT_NEAR(centre[0], m.dy_px, 1e-12);
    EXPECT_NEAR(centre[1], m.dx_px, 1e-12);
    EXPECT_NEAR(corner[0] - m.dy_px, 47.5 * (1 - std::cos(m.rotation_rad)) - 47.5 * std::sin(m.rotation_rad), 1e-9);
    const auto back = at_frame(truth, 5).inverse(30 + truth.displacement(5, 30, 40)[0], 40 + truth.displacement(5, 30, 40)[1]);
    EXPECT_NEAR(back[0], 30, 1e-9);
    EXPECT_NEAR(back[1], 40, 1e-9);
  }
}

TEST(PhantomDisplacement, RigidMotionIsSeveralPixelsFromFrameToFrame) {
  const PhantomTruth truth = phantom_truth(moving("motion-rigid", 96, 30, 2));
  double sum = 0, turned = 0;
  for (std::size_t f = 1; f < 30; ++f) {
    sum += std::hypot(truth.motion[f].dy_px - truth.motion[f - 1].dy_px, truth.motion[f].dx_px - truth.motion[f - 1].dx_px);
    turned += std::abs(truth.motion[f].rotation_rad - truth.motion[f - 1].rotation_rad);
  }
  EXPECT_GT(sum / 29, 2);
  EXPECT_GT(turned / 29, 5e-4);
}

// A frame resampled by the truth is frame 0: what motion is left, by least squares on gradients in windows, is nothing.
TEST(PhantomDisplacement, BackgroundMovesByIt) {
  PhantomOptions options = moving("motion-nonrigid", 192, 16, 5);
  options.contrast_free_frames = 16;
  options.warp_px = 0.9;
  options.noise_log_sd = 0;
  const PhantomTruth truth = phantom_truth(options);
  const int f = 12;
  const Image<float> rest = expected_counts(options, 0), moved = expected_counts(options, f);
  const auto sample = [&](double y, double x) {
    const int j = static_cast<int>(std::floor(y)), i = static_cast<int>(std::floor(x));
    const auto taps = [](double t) {  // Lagrange's, of degree 5
      std::array<double, 6> w{};
      for (int k = 0; k < 6; ++k) {
        w[static_cast<std::size_t>(k)] = 1;
        for (int l = 0; l < 6; ++l)
          if (l != k) w[static_cast<std::size_t>(k)] *= (t + 2 - l) / (k - l);
      }
      return w;
    };
    const auto wy = taps(y - j), wx = taps(x - i);
    double sum = 0;
    for (int b = 0; b < 6; ++b)
      for (int a = 0; a < 6; ++a)
        sum += wy[static_cast<std::size_t>(b)] * wx[static_cast<std::size_t>(a)] * static_cast<double>(moved(j + b - 2, i + a - 2));
    return std::log(sum);
  };
  Image<float> back(192, 192);
  for (int y = 12; y < 180; ++y)
    for (int x = 12; x < 180; ++x) {
      const auto u = truth.displacement(f, y, x);
      back(y, x) = static_cast<float>(sample(y + u[0], x + u[1]));
    }
  int windows = 0;
  double worst = 0, bent = 0;
  for (int y0 = 16; y0 + 24 < 178; y0 += 24)
    for (int x0 = 16; x0 + 24 < 178; x0 += 24) {
      double yy = 0, yx = 0, xx = 0, yt = 0, xt = 0;
      for (int y = y0; y < y0 + 24; ++y)
        for (int x = x0; x < x0 + 24; ++x) {
          const auto l = [&](int j, int i) { return std::log(static_cast<double>(rest(j, i))); };
          const double gy = (l(y + 1, x) - l(y - 1, x)) / 2, gx = (l(y, x + 1) - l(y, x - 1)) / 2,
                       t = static_cast<double>(back(y, x)) - l(y, x);
          yy += gy * gy;
          yx += gy * gx;
          xx += gx * gx;
          yt -= gy * t;
          xt -= gx * t;
        }
      const double det = yy * xx - yx * yx, trace = yy + xx;
      if (det < 0.05 * trace * trace || trace < 0.05) continue;
      ++windows;
      worst = std::max(worst, std::hypot((xx * yt - yx * xt) / det, (yy * xt - yx * yt) / det));
      bent = std::max(bent, std::hypot(truth.warp.at(f, y0, x0)[0], truth.warp.at(f, y0, x0)[1]));
    }
  EXPECT_GT(windows, 12);
  EXPECT_GT(bent, 0.3);
  EXPECT_LT(worst, 0.02);
}

}  // namespace
}  // namespace cinelumen
