/// Centrelines carried from mask to frame, contrast read along them, and flow summed up.

#include "engine/segment_measurement.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/tubes.h"

namespace cinelumen {
namespace {

Centreline straight(float y, float from_x, float to_x) {
  Centreline centreline;
  for (float x = from_x; x <= to_x; ++x) {
    CentrelinePoint point;
    point.y = y;
    point.x = x;
    point.arc_length_px = x - from_x;
    point.radius_px = 4;
    centreline.points.push_back(point);
  }
  return centreline;
}

TEST(MoveCentreline, PointsAndTangentsTurnTogether) {
  const RigidMotion motion{3, -2, 0.1f};
  const Centreline moved = move_centreline(straight(40, 10, 60), motion, 101, 101);
  for (std::size_t i = 1; i < moved.points.size(); ++i) {
    const CentrelinePoint &a = moved.points[i - 1], &b = moved.points[i];
    EXPECT_NEAR(b.y - a.y, a.tangent_y, 1e-4);
    EXPECT_NEAR(b.x - a.x, a.tangent_x, 1e-4);
  }
  const PixelPosition first = move(motion, {40, 10}, 101, 101);
  EXPECT_NEAR(moved.points[0].y, first.y, 1e-4);
  EXPECT_NEAR(moved.points[0].x, first.x, 1e-4);
}

TEST(SummarizeFlow, TheInletIsTheWidestOfTheFirst) {
  Analysis analysis;
  analysis.calibration.source = CalibrationSource::user;
  analysis.calibration.mm_per_px = 0.2;
  analysis.frames = 40;
  SegmentMeasurements measurements;
  measurements.contrast_sd = 0.002;
  for (int i = 0; i < analysis.frames; ++i) analysis.frame_times_ms.push_back(100.0 * i);
  const double arrival_ms[] = {500, 500, 1500}, height[] = {0.2, 0.3, 0.15}, diameter[] = {5, 12, 20};
  for (int s = 0; s < 3; ++s) {
    SegmentResult segment;
    segment.id = s + 1;
    segment.centreline = straight(10.0f * s, 0, 60);
    segment.diameter.median = diameter[s];
    analysis.segments.push_back(std::move(segment));
    auto& contrast = measurements.contrast.emplace_back();
    for (int i = 0; i < analysis.frames; ++i) {
      const double t = std::max(0.0, 100.0 * i - arrival_ms[s]) / 600;
      contrast.emplace_back(61, static_cast<float>(height[s] * t * std::exp(1 - t)));
    }
  }
  measurements.lumen.resize(3);
  summarize_flow(measurements, {}, analysis);
  EXPECT_NE(analysis.flow.inlet.find("segment 2"), std::string::npos) << analysis.flow.inlet;
  ASSERT_TRUE(analysis.segments[0].flow.auc_relative_to_inlet);
  EXPECT_NEAR(*analysis.segments[0].flow.auc_relative_to_inlet, 2.0 / 3, 0.03);
  EXPECT_NEAR(*analysis.segments[2].flow.times.time_to_peak_ms, 2100, 60);
}

TEST(SummarizeFlow, OneFrameHasNoTimes) {
  Analysis analysis;
  analysis.frames = 1;
  SegmentResult segment;
  segment.centreline = straight(5, 0, 30);
  analysis.segments.push_back(std::move(segment));
  SegmentMeasurements measurements;
  measurements.contrast.push_back({std::vector<float>(31, 0.2f)});
  measurements.lumen.resize(1);
  summarize_flow(measurements, {}, analysis);
  EXPECT_FALSE(analysis.segments[0].flow.times.arrival_ms);
  EXPECT_FALSE(analysis.segments[0].flow.velocity_mm_s);
}

}  // namespace
}  // namespace cinelumen
