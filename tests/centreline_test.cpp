/// From pictures of tubes with known middle lines to centrelines and back: position, recall, precision, branch points, crossings.

#include "engine/centreline.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "kernels/vesselness.h"
#include "support/devices.h"
#include "support/tubes.h"

namespace cinelumen {
namespace {

constexpr double contrast = 0.2, noise_sd = contrast / 5, psf_sigma_px = 0.6;

VesselGraph trace(const Stream& stream, const Image<float>& image, const Image<std::uint8_t>* valid_host = nullptr, double noise = noise_sd,
                  bool quick = false) {
  const Image<float> device = to_device(stream, image.view());
  Image<std::uint8_t> valid;
  if (valid_host) valid = to_device(stream, valid_host->view());
  stream.synchronize();
  VesselnessMap map = make_vesselness_map(stream, image.height(), image.width());
  VesselnessOptions options;
  options.noise_sd = static_cast<float>(noise);
  Vesselness vesselness = valid_host ? Vesselness(stream, valid.view()) : Vesselness(stream, image.height(), image.width());
  vesselness.compute(stream, device, options, map);
  return trace_centrelines(stream, device, map, valid.view(), {.quick = quick});
}

struct Score {
  double rms_px = 0, worst_px = 0, recall = 0, precision = 0;
};

/// Position errors count where a tube is alone: not within two radii (of the larger tube) of its ends, which are where tubes join,
/// nor of another tube's middle line. Recall and precision count everything, within max(1.5 px, half a radius).
Score score(const VesselGraph& graph, const std::vector<test::Tube>& tubes) {
  Score result;
  double sum = 0;
  int count = 0, precise = 0, points = 0, recalled = 0, truth = 0;
  double largest = 0;
  for (const test::Tube& tube : tubes) largest = std::max(largest, tube.radius_px);
  for (const VesselGraph::Segment& segment : graph.segments)
    for (const CentrelinePoint& point : segment.centreline.points) {
      const test::NearestOnTubes nearest = test::nearest_on_tubes(tubes, point.y, point.x);
      const test::Tube& tube = tubes[nearest.tube];
      ++points;
      precise += nearest.distance <= std::max(1.5, tube.radius_px / 2);
      const double to_end = 0.2 * std::min<double>(nearest.index, static_cast<double>(tube.line.size()) - nearest.index);
      bool alone = to_end > 2 * largest + 2;
      for (const test::Tube& other : tubes)
        if (&other != &tube && test::nearest_on_tubes({other}, point.y, point.x).distance < 2 * largest + 4) alone = false;
      if (!alone || nearest.distance > 3) continue;
      sum += nearest.distance * nearest.distance;
      result.worst_px = std::max(result.worst_px, nearest.distance);
      ++count;
    }
  for (const test::Tube& tube : tubes)
    for (std::size_t i = 0; i < tube.line.size(); i += 5) {
      double distance = 1e9;
      for (const VesselGraph::Segment& segment : graph.segments)
        for (const CentrelinePoint& point : segment.centreline.points)
          distance = std::min(distance, std::hypot(point.y - tube.line[i].y, point.x - tube.line[i].x));
      ++truth;
      recalled += distance <= std::max(1.5, tube.radius_px / 2);
    }
  result.rms_px = count ? std::sqrt(sum / count) : 1e9;
  result.recall = static_cast<double>(recalled) / truth;
  result.precision = points ? static_cast<double>(precise) / points : 0;
  std::printf("  rms %.3f px, worst %.3f px, recall %.3f, precision %.3f, %zu segments, %zu branch points\n", result.rms_px,
              result.worst_px, result.recall, result.precision, graph.segments.size(), graph.branch_points.size());
  return result;
}

class CentrelineTest : public test::DeviceTest {};

test::Tube wave(double radius_px) {
  return test::make_tube([](double t) { return test::TubePoint{64.3 + 22 * std::sin(6.0 * t), 10.2 + 200 * t}; }, radius_px);
}

TEST_P(CentrelineTest, CurvedTubesToATenthOfAPixel) {
  const Stream stream = this->stream();
  if (stream.on_cuda()) GTEST_SKIP() << "large";
  for (const double radius_px : {2.0, 3.0, 5.0, 7.0}) {
    const std::vector<test::Tube> tubes = {wave(radius_px)};
    const VesselGraph graph = trace(stream, test::render_tubes(128, 224, tubes, contrast, psf_sigma_px, noise_sd, 11));
    std::printf("radius %.1f:\n", radius_px);
    const Score result = score(graph, tubes);
    // The widest is 14 px across with a bend of 50 px radius.
    EXPECT_LE(result.rms_px, radius_px > 5 ? 0.12 : 0.1);
    EXPECT_GE(result.recall, 0.95);
    EXPECT_GE(result.precision, 0.95);
    ASSERT_FALSE(graph.segments.empty());
    EXPECT_EQ(graph.segments.size(), 1u);
  }
}

std::vector<test::Tube> tree() {
  std::vector<test::Tube> tubes;
  tubes.push_back(test::make_tube([](double t) { return test::TubePoint{20 + 215 * t, 120 + 25 * std::sin(3 * t)}; }, 5));
  const auto branch = [&](double t0, double dy, double dx, double bend, double radius_px) {
    const test::TubePoint root{20 + 215 * t0, 120 + 25 * std::sin(3 * t0)};
    tubes.push_back(test::make_tube(
        [=](double t) {
          return test::TubePoint{root.y + dy * t - bend * t * t * dx / 100, root.x + dx * t + bend * t * t * dy / 100};
        },
        radius_px));
  };
  branch(0.2, 60, 80, 20, 3);
  branch(0.4, 70, -80, -15, 3.5);
  branch(0.65, 50, 75, -20, 2.5);
  branch(0.75, 40, -90, 10, 2);
  return tubes;
}

TEST_P(CentrelineTest, BranchingTree) {
  const Stream stream = this->stream();
  if (stream.on_cuda()) GTEST_SKIP() << "large";
  for (const unsigned seed : {1u, 2u, 3u}) {
    const std::vector<test::Tube> tubes = tree();
    const VesselGraph graph = trace(stream, test::render_tubes(256, 256, tubes, contrast, psf_sigma_px, noise_sd, seed));
    const Score result = score(graph, tubes);
    EXPECT_LE(result.rms_px, 0.1);
    EXPECT_GE(result.recall, 0.95);
    EXPECT_GE(result.precision, 0.95);
    EXPECT_EQ(graph.segments.size(), 9u);
    EXPECT_EQ(graph.branch_points.size(), 4u);
    for (const BranchPoint& branch : graph.branch_points) {
      EXPECT_FALSE(branch.crossing);
      EXPECT_EQ(branch.segments.size(), 3u);
      // On the parent's middle line, downstream of where the middle lines meet: that is inside both lumens.
      EXPECT_LE(test::nearest_on_tubes({tubes[0]}, branch.y, branch.x).distance, 3.5);
      double distance = 1e9;
      for (std::size_t t = 1; t < tubes.size(); ++t)
        distance = std::min(distance, std::hypot(branch.y - tubes[t].line[0].y, branch.x - tubes[t].line[0].x));
      EXPECT_LE(distance, 20);
    }
  }
}

TEST_P(CentrelineTest, CrossingVesselsGoThrough) {
  const Stream stream = this->stream();
  if (stream.on_cuda()) GTEST_SKIP() << "large";
  for (const double slope : {1.2, 0.6, -0.45}) {
    const std::vector<test::Tube> tubes = {test::make_tube(
                                               [](double t) {
                                                 return test::TubePoint{80 + 8 * std::sin(3 * t), 10 + 200 * t};
                                               },
                                               3.5, 0),
                                           test::make_tube(
                                               [=](double t) {
                                                 return test::TubePoint{82 + slope * 120 * (t - 0.5), 50 + 120 * t};
                                               },
                                               2.5, 1)};
    const VesselGraph graph = trace(stream, test::render_tubes(176, 224, tubes, contrast, psf_sigma_px, noise_sd, 5));
    const Score result = score(graph, tubes);
    EXPECT_LE(result.rms_px, 0.15);
    EXPECT_GE(result.recall, 0.95);
    EXPECT_GE(result.precision, 0.95);
    EXPECT_EQ(graph.segments.size(), 2u);
    EXPECT_EQ(graph.branch_points.size(), 1u);
    if (graph.branch_points.empty()) continue;
    EXPECT_TRUE(graph.branch_points[0].crossing);
    EXPECT_EQ(graph.branch_points[0].segments, (std::vector<int>{0, 1}));
    for (const VesselGraph::Segment& segment : graph.segments) EXPECT_TRUE(segment.start_branch < 0 && segment.end_branch < 0);
  }
}

// As every frame has it: a running mean instead of splines.
TEST_P(CentrelineTest, AQuickTreeIsTheSameTree) {
  const Stream stream = this->stream();
  if (stream.on_cuda()) GTEST_SKIP() << "large";
  const std::vector<test::Tube> tubes = tree();
  const VesselGraph graph =
      trace(stream, test::render_tubes(256, 256, tubes, contrast, psf_sigma_px, noise_sd, 1), nullptr, noise_sd, true);
  const Score result = score(graph, tubes);
  EXPECT_LE(result.rms_px, 0.25);
  // Where a branch leaves its parent nothing leads it.
  EXPECT_GE(result.recall, 0.9);
  EXPECT_GE(result.precision, 0.92);
  EXPECT_EQ(graph.segments.size(), 9u);
  EXPECT_EQ(graph.branch_points.size(), 4u);
}

TEST_P(CentrelineTest, QuickTracesMeasureAgainstTheirOwnClutter) {
  const Stream stream = this->stream();
  if (stream.on_cuda()) GTEST_SKIP() << "large";
  // The noise is three times what it is said to be: a filter that has seen few frames.
  const Image<float> noise = test::render_tubes(256, 256, {}, contrast, psf_sigma_px, noise_sd, 3);
  EXPECT_FALSE(trace(stream, noise, nullptr, noise_sd / 3).segments.empty());
  EXPECT_TRUE(trace(stream, noise, nullptr, noise_sd / 3, true).segments.empty());
}

TEST_P(CentrelineTest, NoiseAloneGivesNothing) {
  const Stream stream = this->stream();
  if (stream.on_cuda()) GTEST_SKIP() << "large";
  EXPECT_TRUE(trace(stream, test::render_tubes(256, 256, {}, contrast, psf_sigma_px, noise_sd, 3)).segments.empty());
}

TEST_P(CentrelineTest, PointsAreOrderedAndMeasured) {
  const Stream stream = this->stream();
  const int height = 64, width = stream.on_cuda() ? 96 : 160;
  const std::vector<test::Tube> tubes = {test::straight_tube({25, 12}, {height - 20.0, width - 12.0}, 3)};
  const VesselGraph graph =
      trace(stream, test::render_tubes(height, width, tubes, contrast, psf_sigma_px, noise_sd / 5, 3), nullptr, noise_sd / 5);
  ASSERT_EQ(graph.segments.size(), 1u);
  const std::vector<CentrelinePoint>& points = graph.segments[0].centreline.points;
  ASSERT_GT(points.size(), 50u);
  for (std::size_t i = 0; i < points.size(); ++i) {
    EXPECT_NEAR(std::hypot(points[i].tangent_y, points[i].tangent_x), 1, 1e-5);
    EXPECT_LE(test::nearest_on_tubes(tubes, points[i].y, points[i].x).distance, i > 8 && i + 9 < points.size() ? 0.1 : 5.0);
    if (i > 8 && i + 9 < points.size()) {
      EXPECT_GT(points[i].z, 20);
      EXPECT_NEAR(points[i].radius_px, 3, i > 15 && i + 16 < points.size() ? 1 : 3);
    }
    if (i == 0) continue;
    const float dy = points[i].y - points[i - 1].y, dx = points[i].x - points[i - 1].x, step = std::hypot(dy, dx);
    EXPECT_NEAR(step, 1, 0.05);
    EXPECT_NEAR(points[i].arc_length_px - points[i - 1].arc_length_px, step, 0.02);
    EXPECT_GT(points[i].tangent_y * dy + points[i].tangent_x * dx, 0.95 * step);
  }
}

TEST_P(CentrelineTest, NothingOutsideTheField) {
  const Stream stream = this->stream();
  if (stream.on_cuda()) GTEST_SKIP() << "large";
  const std::vector<test::Tube> tubes = {test::straight_tube({40, 10}, {60, 190}, 3)};
  Image<std::uint8_t> valid(96, 200);
  for (int y = 0; y < 96; ++y)
    for (int x = 0; x < 200; ++x) valid(y, x) = x < 120;
  const VesselGraph graph = trace(stream, test::render_tubes(96, 200, tubes, contrast, psf_sigma_px, noise_sd, 3), &valid);
  ASSERT_EQ(graph.segments.size(), 1u);
  for (const CentrelinePoint& point : graph.segments[0].centreline.points) EXPECT_LT(point.x, 121);
}

TEST_P(CentrelineTest, RefusesWhatDoesNotFit) {
  const Stream stream = this->stream();
  const Image<float> image(stream, 16, 16);
  const VesselnessMap map = make_vesselness_map(stream, 16, 17);
  EXPECT_THROW(trace_centrelines(stream, image, map, {}), std::invalid_argument);
}

CINELUMEN_ON_ALL_DEVICES(CentrelineTest);

}  // namespace
}  // namespace cinelumen
