/// A centreline put off its vessel finds it again, at the right place, past gaps and brighter neighbours.

#include "engine/ridge_snap.h"

#include <gtest/gtest.h>

#include <random>

#include "support/devices.h"

namespace cinelumen {
namespace {

class RidgeSnapTest : public test::DeviceTest {};

constexpr int height = 60, width = 150;

double middle(double x) { return 30.3 + 6 * std::sin(0.05 * x); }

// A noise gate with one ridge of Gaussian profile (SD 2 px) along middle(x), and unit noise of 1 px correlation.
Image<float> ridge(double peak, double noise, unsigned seed = 3) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 1);
  Image<float> z(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const double slope = 0.3 * std::cos(0.05 * x), d = (y - middle(x)) / std::hypot(1, slope);
      z(y, x) = static_cast<float>(peak * std::exp(-d * d / 8) + noise * normal(random));
    }
  return z;
}

// The ridge's centreline moved sideways by `off`.
Centreline beside(double off) {
  Centreline centreline;
  for (int x = 10; x < width - 10; ++x) {
    const double slope = 0.3 * std::cos(0.05 * x), length = std::hypot(1, slope);
    CentrelinePoint point;
    point.tangent_y = static_cast<float>(slope / length);
    point.tangent_x = static_cast<float>(1 / length);
    point.y = static_cast<float>(middle(x) - off * point.tangent_x);
    point.x = static_cast<float>(x + off * point.tangent_y);
    point.arc_length_px = static_cast<float>(centreline.points.size());
    centreline.points.push_back(point);
  }
  return centreline;
}

TEST_P(RidgeSnapTest, FindsTheOffset) {
  const Stream stream = this->stream();
  for (const double noise : {0.0, 1.0}) {
    const Image<float> z = to_device(stream, ridge(20, noise).view());
    for (const double off : {-2.6, -0.7, 0.0, 1.3}) {
      const auto snapped = snap_to_ridge(stream, z.view(), beside(off), 3.5f);
      double sum = 0;
      int accepted = 0;
      for (const SnappedPoint& point : snapped) {
        accepted += point.accepted;
        if (point.accepted) sum += (point.offset_px - off) * (point.offset_px - off);
      }
      EXPECT_GE(accepted, 0.97 * static_cast<double>(snapped.size())) << off;
      EXPECT_LE(std::sqrt(sum / accepted), noise > 0 ? 0.35 : 0.03) << off;
    }
  }
}

TEST_P(RidgeSnapTest, MovedCentrelineLiesOnTheRidge) {
  const Stream stream = this->stream();
  const Image<float> z = to_device(stream, ridge(20, 0).view());
  const Centreline before = beside(1.7), after = moved_to_ridge(before, snap_to_ridge(stream, z.view(), before, 3));
  ASSERT_EQ(after.points.size(), before.points.size());
  for (std::size_t i = 3; i + 3 < after.points.size(); ++i) {
    EXPECT_NEAR(after.points[i].y, middle(after.points[i].x), 0.06);
    EXPECT_NEAR(after.points[i].tangent_y / after.points[i].tangent_x, 0.3 * std::cos(0.05 * after.points[i].x), 0.03);
    EXPECT_EQ(after.points[i].arc_length_px, before.points[i].arc_length_px);
  }
}

TEST_P(RidgeSnapTest, DoesNotJumpToABrighterNeighbour) {
  const Stream stream = this->stream();
  Image<float> z = ridge(12, 0);
  for (int y = 0; y < height; ++y)
    for (int x = 70; x < 90; ++x) {
      const double d = y - middle(x) - 3.5;  // a brighter vessel alongside for 20 px
      z(y, x) = std::max(z(y, x), static_cast<float>(30 * std::exp(-d * d / 2)));
    }
  const Image<float> device = to_device(stream, z.view());
  for (const SnappedPoint& point : snap_to_ridge(stream, device.view(), beside(0), 4)) EXPECT_LE(std::abs(point.offset_px), 0.7);
}

TEST_P(RidgeSnapTest, FaintAndOutsideIsNotAccepted) {
  const Stream stream = this->stream();
  Image<float> z = ridge(12, 0);
  for (int y = 0; y < height; ++y)
    for (int x = 60; x < 80; ++x) z(y, x) *= 0.2f;  // unfilled
  const Image<float> device = to_device(stream, z.view());
  const Centreline centreline = beside(0.8);
  const auto snapped = snap_to_ridge(stream, device.view(), centreline, 3);
  for (std::size_t i = 0; i < snapped.size(); ++i) {
    const float x = centreline.points[i].x;
    if (x < 57 || x > 83 || (x > 63 && x < 77)) {
      EXPECT_EQ(snapped[i].accepted, x < 57 || x > 83) << x;
    }
  }
  // Across the gap the centreline goes on at its neighbours' offset.
  const Centreline moved = moved_to_ridge(centreline, snapped);
  for (const CentrelinePoint& point : moved.points)
    EXPECT_NEAR(point.y, middle(point.x), 0.4) << "the step in z itself shifts its neighbours";

  Centreline outside;
  for (int i = 0; i < 5; ++i) outside.points.push_back({-30, static_cast<float>(10 + i), 0, 1, static_cast<float>(i), 2, 9});
  for (const SnappedPoint& point : snap_to_ridge(stream, device.view(), outside, 3)) EXPECT_FALSE(point.accepted);
}

TEST_P(RidgeSnapTest, SegmentsDoNotDependOnOneAnother) {
  const Stream stream = this->stream();
  const Image<float> z = to_device(stream, ridge(20, 1).view());
  const std::vector<Centreline> centrelines = {beside(0.5), {}, beside(-1.5)};
  const auto together = snap_to_ridge(stream, z.view(), centrelines, RidgeSnapOptions{});
  ASSERT_EQ(together.size(), 3u);
  EXPECT_TRUE(together[1].empty());
  for (const int s : {0, 2}) {
    const auto alone = snap_to_ridge(stream, z.view(), centrelines[s], 3);
    ASSERT_EQ(alone.size(), together[s].size());
    for (std::size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(alone[i].offset_px, together[s][i].offset_px);
  }
  EXPECT_THROW(snap_to_ridge(stream, z.view(), centrelines[0], 0), std::invalid_argument);
  EXPECT_THROW(moved_to_ridge(centrelines[0], {}), std::invalid_argument);
}

CINELUMEN_ON_ALL_DEVICES(RidgeSnapTest);

}  // namespace
}  // namespace cinelumen
