/// Middle lines where the ridge is not the middle: branchings, crossings, neighbours, the image's border.

#include "engine/centreline_fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <stdexcept>

#include "engine/diameter_profile.h"
#include "kernels/vesselness.h"
#include "support/tubes.h"

namespace cinelumen {
namespace {

constexpr double contrast = 0.3, noise_sd = 0.005, psf_sigma_px = 0.7;

struct Scene {
  Image<float> image;
  VesselnessMap map;
  VesselGraph traced, fitted;
};

CentrelineFitOptions fit_options() {
  CentrelineFitOptions options;
  options.noise_sd = static_cast<float>(noise_sd);
  return options;
}

// Tubes of one attenuation, as one contrast medium fills them: tubes of one group are one lumen.
Scene make_scene(int height, int width, const std::vector<test::Tube>& tubes, unsigned seed = 3) {
  const Stream stream = Stream::cpu();
  Scene scene{test::render_tubes(height, width, tubes, contrast, psf_sigma_px, noise_sd, seed, 0), {}, {}, {}};
  scene.map = make_vesselness_map(stream, height, width);
  VesselnessOptions options;
  options.noise_sd = static_cast<float>(noise_sd);
  Vesselness(stream, height, width).compute(stream, scene.image, options, scene.map);
  scene.traced = trace_centrelines(stream, scene.image, scene.map, {});
  scene.fitted = fit_centrelines(stream, scene.image, scene.map.z, {}, scene.traced, fit_options());
  return scene;
}

using Select = std::function<bool(const CentrelinePoint&)>;
// Of points that are not at a tube's end: there is no middle line beyond it.
double rms_px(const VesselGraph& graph, const std::vector<test::Tube>& tubes, const Select& select, int* count = nullptr) {
  double sum = 0;
  int points = 0;
  for (const VesselGraph::Segment& segment : graph.segments)
    for (const CentrelinePoint& point : segment.centreline.points) {
      if (!select(point)) continue;
      const test::NearestOnTubes nearest = test::nearest_on_tubes(tubes, point.y, point.x);
      const double distance = nearest.distance;
      const int to_end = std::min(nearest.index, static_cast<int>(tubes[nearest.tube].line.size()) - 1 - nearest.index);
      if (to_end < 60) continue;
      sum += distance * distance;
      ++points;
    }
  if (count) *count = points;
  return points ? std::sqrt(sum / points) : 1e9;
}

void expect_consistent(const VesselGraph& graph) {
  std::vector<std::vector<int>> ends(graph.branch_points.size());
  for (std::size_t s = 0; s < graph.segments.size(); ++s) {
    const VesselGraph::Segment& segment = graph.segments[s];
    const std::vector<CentrelinePoint>& points = segment.centreline.points;
    ASSERT_GE(points.size(), 2u);
    if (s > 0) {
      EXPECT_LE(segment.centreline.length_px(), graph.segments[s - 1].centreline.length_px()) << "longest first";
    }
    for (std::size_t i = 0; i < points.size(); ++i) {
      EXPECT_NEAR(std::hypot(points[i].tangent_y, points[i].tangent_x), 1, 1e-5);
      if (i == 0) continue;
      const float dy = points[i].y - points[i - 1].y, dx = points[i].x - points[i - 1].x;
      EXPECT_LT(std::hypot(dy, dx), 1.6);
      EXPECT_NEAR(points[i].arc_length_px - points[i - 1].arc_length_px, std::hypot(dy, dx), 0.01);
    }
    for (const int branch : {segment.start_branch, segment.end_branch}) {
      ASSERT_LT(branch, static_cast<int>(graph.branch_points.size()));
      if (branch >= 0) ends[branch].push_back(static_cast<int>(s));
    }
  }
  for (std::size_t n = 0; n < graph.branch_points.size(); ++n) {
    const BranchPoint& branch = graph.branch_points[n];
    if (branch.crossing) {
      EXPECT_EQ(branch.segments.size(), 2u);
      continue;
    }
    EXPECT_EQ(branch.segments, ends[n]);
    // Segments that end here do so here, or where they are last known.
    for (const int s : branch.segments) {
      const std::vector<CentrelinePoint>& points = graph.segments[s].centreline.points;
      const double first = std::hypot(points.front().y - branch.y, points.front().x - branch.x),
                   last = std::hypot(points.back().y - branch.y, points.back().x - branch.x);
      const CentrelinePoint& end = first < last ? points.front() : points.back();
      EXPECT_LT(std::min(first, last), end.inferred ? 20 : 5);
    }
  }
}

test::Tube parent() {
  return test::make_tube([](double t) { return test::TubePoint{10 + 200 * t, 100 + 18 * std::sin(3 * t)}; }, 7);
}
test::Tube branch_of_parent(double t0, double dy, double dx, double radius_px) {
  return test::straight_tube({10 + 200 * t0, 100 + 18 * std::sin(3 * t0)}, {10 + 200 * t0 + dy, 100 + 18 * std::sin(3 * t0) + dx},
                             radius_px);
}

TEST(CentrelineFit, APastBranchTheParentStaysInItsMiddle) {
  const std::vector<test::Tube> tubes = {parent(), branch_of_parent(0.35, 60, 70, 5), branch_of_parent(0.6, 45, -70, 3.5)};
  const Scene scene = make_scene(224, 208, tubes);
  expect_consistent(scene.fitted);
  // Points of the parent near its branches.
  const Select near_branches = [&](const CentrelinePoint& point) {
    return point.y > 70 && point.y < 175 && test::nearest_on_tubes({tubes[0]}, point.y, point.x).distance < 3 &&
           std::abs(point.tangent_y) > 0.8;
  };
  int count = 0;
  const double before = rms_px(scene.traced, {tubes[0]}, near_branches), after = rms_px(scene.fitted, {tubes[0]}, near_branches, &count);
  std::printf("  parent beside its branches: ridge %.3f px, fit %.3f px (%d points)\n", before, after, count);
  EXPECT_GT(count, 80);
  EXPECT_GT(before, 2 * after);
  EXPECT_LE(after, 0.15);
  const Select measured = [](const CentrelinePoint& point) { return !point.inferred; };
  EXPECT_LE(rms_px(scene.fitted, tubes, measured), 0.12);
}

TEST(CentrelineFit, WhatLiesInsideTheParentIsInferredAndNothingElse) {
  const std::vector<test::Tube> tubes = {parent(), branch_of_parent(0.35, 60, 70, 4)};
  const Scene scene = make_scene(224, 208, tubes);
  int inferred = 0;
  for (const VesselGraph::Segment& segment : scene.fitted.segments)
    for (const CentrelinePoint& point : segment.centreline.points) {
      const double to_parent = test::nearest_on_tubes({tubes[0]}, point.y, point.x).distance;
      const bool of_branch = point.tangent_x * 70 + point.tangent_y * 60 > 0.93 * std::hypot(70, 60) ||
                             point.tangent_x * 70 + point.tangent_y * 60 < -0.93 * std::hypot(70, 60);
      if (point.inferred) {
        ++inferred;
        EXPECT_LE(to_parent, 9) << "nothing hides the branch at " << point.y << ", " << point.x;
      }
      if (of_branch && to_parent < 4 && to_parent > 1.5) {
        EXPECT_TRUE(point.inferred) << point.y << ", " << point.x;
      }
    }
  EXPECT_GE(inferred, 4);
  ASSERT_EQ(scene.fitted.branch_points.size(), 1u);
  // A straight branch carried on meets the parent where its own middle line does.
  EXPECT_NEAR(scene.fitted.branch_points[0].y, tubes[1].line[0].y, 1);
  EXPECT_NEAR(scene.fitted.branch_points[0].x, tubes[1].line[0].x, 1);
}

TEST(CentrelineFit, ANotchInABranchIsNoGap) {
  // A valve remnant where the branch leaves its parent: the calibre of what lies beyond is no help there, but its pixels tell.
  constexpr double wide_px = 4.5, thin_px = 1, notch_px = 6, points_per_px = 5;
  const test::Tube whole = branch_of_parent(0.35, 30, 85, wide_px);
  const auto piece = [&](double from_px, double to_px, double radius_px) {
    const auto at = [&](double px) {
      return whole.line.begin() + static_cast<std::ptrdiff_t>(std::min(px * points_per_px, static_cast<double>(whole.line.size())));
    };
    return test::Tube{{at(from_px), at(to_px)}, radius_px, whole.group};
  };
  for (const double from_px : {10, 11, 14}) {
    const double to_px = from_px + notch_px;
    // Pieces end in half discs.
    const std::vector<test::Tube> tubes = {parent(), piece(0, from_px - wide_px, wide_px),
                                           piece(from_px - wide_px, to_px + wide_px, thin_px), piece(to_px + wide_px, 1e6, wide_px)};
    const Scene scene = make_scene(224, 208, tubes);
    int there = 0;
    for (const VesselGraph::Segment& segment : scene.fitted.segments)
      for (const CentrelinePoint& point : segment.centreline.points) {
        const test::NearestOnTubes nearest = test::nearest_on_tubes({whole}, point.y, point.x);
        const double along = nearest.index / points_per_px;
        if (nearest.distance > 2 || along < from_px || along > to_px) continue;
        ++there;
        EXPECT_FALSE(point.inferred) << from_px << " px: " << point.y << ", " << point.x;
        EXPECT_LE(nearest.distance, 0.15) << from_px << " px: " << point.y << ", " << point.x;
      }
    EXPECT_GE(there, 5) << from_px;
  }
}

TEST(CentrelineFit, ABranchEndsWhereNothingTellsItsWay) {
  // Thin, and leaving a wide parent at a small angle: most of the way to the parent's middle is hidden.
  const std::vector<test::Tube> tubes = {test::straight_tube({-20, 80}, {320, 80}, 14), test::straight_tube({60, 80}, {230, 150}, 4)};
  const Scene scene = make_scene(300, 180, tubes);
  expect_consistent(scene.fitted);
  ASSERT_EQ(scene.fitted.branch_points.size(), 1u);
  EXPECT_NEAR(scene.fitted.branch_points[0].x, 80, 1) << "the joint stays on the parent's middle line";
  double nearest = 1e9, worst_sd = 0;
  int inferred = 0;
  for (const VesselGraph::Segment& segment : scene.fitted.segments)
    for (const CentrelinePoint& point : segment.centreline.points) {
      EXPECT_GT(point.sd_px, 0);
      worst_sd = std::max<double>(worst_sd, point.sd_px);
      const bool of_branch = std::abs(point.tangent_x) > 0.25;
      if (of_branch) nearest = std::min<double>(nearest, point.x - 80);
      inferred += point.inferred;
    }
  EXPECT_GT(inferred, 0);
  EXPECT_GT(nearest, 2) << "carried on into what nobody knows";
  EXPECT_LT(nearest, 14);
  EXPECT_LE(worst_sd, 0.8);
}

TEST(CentrelineFit, PointsErrAsTheySay) {
  double z_squared = 0, inferred_z_squared = 0;
  int points = 0, inferred = 0;
  for (unsigned seed = 1; seed <= 6; ++seed) {
    const double bend = 0.5 + 0.25 * seed;
    const auto along = [=](double t) { return test::TubePoint{10 + 200 * t, 100 + 18 * std::sin(3 * t)}; };
    const auto branch = [=](double t0, double side) {
      const test::TubePoint from = along(t0);
      return test::make_tube(
          [=](double t) {
            return test::TubePoint{from.y + 60 * t, from.x + side * (70 * t + 8 * std::sin(bend * 3 * t))};
          },
          4);
    };
    const std::vector<test::Tube> tubes = {parent(), branch(0.3, 1), branch(0.55, -1)};
    const Scene scene = make_scene(224, 208, tubes, seed);
    for (const VesselGraph::Segment& segment : scene.fitted.segments)
      for (const CentrelinePoint& point : segment.centreline.points) {
        const test::NearestOnTubes nearest = test::nearest_on_tubes(tubes, point.y, point.x);
        const int to_end = static_cast<int>(tubes[nearest.tube].line.size()) - 1 - nearest.index;
        if (!(point.sd_px > 0) || to_end < 60 || (nearest.tube == 0 && nearest.index < 60)) continue;
        const double z = nearest.distance / point.sd_px;
        (point.inferred ? inferred_z_squared : z_squared) += z * z;
        ++(point.inferred ? inferred : points);
      }
  }
  const double z = std::sqrt(z_squared / points), inferred_z = std::sqrt(inferred_z_squared / inferred);
  std::printf("  rms z: measured %.2f (%d points), inferred %.2f (%d points)\n", z, points, inferred_z, inferred);
  EXPECT_GT(inferred, 30);
  EXPECT_LT(z, 1.5);
  EXPECT_LT(inferred_z, 1.5);
  EXPECT_GT(inferred_z, 0.15);
}

TEST(CentrelineFit, CrossingsAtASmallAngle) {
  for (const double slope : {0.9, 0.45}) {
    const std::vector<test::Tube> tubes = {test::make_tube(
                                               [](double t) {
                                                 return test::TubePoint{80 + 6 * std::sin(3 * t), 10 + 200 * t};
                                               },
                                               4.5, 0),
                                           test::make_tube(
                                               [=](double t) {
                                                 return test::TubePoint{85 + slope * 180 * (t - 0.5), 20 + 180 * t};
                                               },
                                               3.5, 1)};
    const Scene scene = make_scene(200, 224, tubes);
    expect_consistent(scene.fitted);
    int count = 0;
    const Select all = [](const CentrelinePoint&) { return true; };
    const double before = rms_px(scene.traced, tubes, all), after = rms_px(scene.fitted, tubes, all, &count);
    std::printf("  slope %.2f: ridge %.3f px, fit %.3f px (%d points)\n", slope, before, after, count);
    EXPECT_LE(after, 0.12);
    EXPECT_LT(after, before);
    EXPECT_EQ(scene.fitted.segments.size(), 2u);
    ASSERT_EQ(scene.fitted.branch_points.size(), 1u);
    EXPECT_TRUE(scene.fitted.branch_points[0].crossing);
    EXPECT_EQ(scene.fitted.branch_points[0].segments, (std::vector<int>{0, 1}));
  }
}

TEST(CentrelineFit, ABranchBesideACrossing) {
  // Five arms: the straight vessel passes behind, the bent one goes on, the thin one ends on it.
  const std::vector<test::Tube> tubes = {test::make_tube(
                                             [](double t) {
                                               return test::TubePoint{60 + 60 * t * t, 10 + 200 * t};
                                             },
                                             6, 0),
                                         test::straight_tube({75, 112}, {160, 140}, 3, 0), test::straight_tube({15, 60}, {160, 200}, 4, 1)};
  const Scene scene = make_scene(176, 224, tubes);
  expect_consistent(scene.fitted);
  int crossings = 0;
  for (const BranchPoint& branch : scene.fitted.branch_points) crossings += branch.crossing;
  EXPECT_EQ(crossings, 1);
  const Select measured = [](const CentrelinePoint& point) { return !point.inferred; };
  const double before = rms_px(scene.traced, tubes, measured), after = rms_px(scene.fitted, tubes, measured);
  std::printf("  ridge %.3f px, fit %.3f px\n", before, after);
  EXPECT_LE(after, 0.2);
  EXPECT_GT(before, 2 * after);
}

TEST(CentrelineFit, VesselsThatOverlapSideBySide) {
  // Traced where their common ridges might be: each drawn towards the other. They part at one end.
  const std::vector<test::Tube> tubes = {test::straight_tube({60, 8}, {70, 290}, 6, 0),
                                         test::make_tube(
                                             [](double t) {
                                               return test::TubePoint{69 + 10 * t + 30 * t * t * t, 8 + 282 * t};
                                             },
                                             4, 1)};
  Scene scene = make_scene(144, 300, tubes);
  VesselGraph graph;
  for (const test::Tube& tube : tubes) {
    graph.segments.emplace_back();
    for (std::size_t i = 0; i < tube.line.size(); i += 5) {
      CentrelinePoint point;
      const bool beside = tube.line[i].x < 180;
      point.y = static_cast<float>(tube.line[i].y + (beside ? (&tube == &tubes[0] ? 1 : -1) : 0));
      point.x = static_cast<float>(tube.line[i].x);
      point.arc_length_px = static_cast<float>(i) / 5;
      point.radius_px = 5;
      graph.segments.back().centreline.points.push_back(point);
    }
  }
  const VesselGraph fitted = fit_centrelines(Stream::cpu(), scene.image, scene.map.z, {}, graph, fit_options());
  const Select beside = [](const CentrelinePoint& point) { return point.x > 20 && point.x < 170; };
  const double before = rms_px(graph, tubes, beside), after = rms_px(fitted, tubes, beside);
  std::printf("  given %.3f px, fit %.3f px\n", before, after);
  EXPECT_EQ(fitted.segments.size(), 2u);
  EXPECT_GT(before, 0.9);
  EXPECT_LE(after, 0.1);
}

TEST(CentrelineFit, AtTheBorderTheMiddleIsNotDrawnInwards) {
  const std::vector<test::Tube> tubes = {test::straight_tube({-30, -60}, {70, 230}, 8)};
  const Scene scene = make_scene(128, 200, tubes);
  const Select border = [](const CentrelinePoint& point) { return point.y < 14; };
  int count = 0;
  const double before = rms_px(scene.traced, tubes, border), after = rms_px(scene.fitted, tubes, border, &count);
  std::printf("  ridge %.3f px, fit %.3f px (%d points)\n", before, after, count);
  EXPECT_GT(count, 25);
  EXPECT_LE(after, 0.15);
  EXPECT_GT(before, 2 * after);
}

TEST(CentrelineFit, WhatIsNoVesselStaysAsItWasTraced) {
  // A graph of nothing: there is no cylinder to be fitted, and nothing is moved far.
  const Stream stream = Stream::cpu();
  const Image<float> image = test::render_tubes(96, 160, {}, contrast, psf_sigma_px, noise_sd, 9, 0);
  VesselGraph graph;
  graph.segments.resize(1);
  for (int i = 0; i < 100; ++i) {
    CentrelinePoint point;
    point.y = 40;
    point.x = static_cast<float>(20 + i);
    point.arc_length_px = static_cast<float>(i);
    point.radius_px = 3;
    graph.segments[0].centreline.points.push_back(point);
  }
  Image<float> z(96, 160);
  for (int y = 0; y < 96; ++y) std::fill(z.row(y), z.row(y) + 160, 0.0f);
  const VesselGraph fitted = fit_centrelines(stream, image, z, {}, graph, fit_options());
  ASSERT_EQ(fitted.segments.size(), 1u);
  EXPECT_EQ(fitted.segments[0].centreline.points.size(), 100u);
  for (const CentrelinePoint& point : fitted.segments[0].centreline.points) {
    EXPECT_NEAR(point.y, 40, 2);
    EXPECT_FALSE(point.inferred);
  }
}

TEST(CentrelineFit, PixelsOutsideTheFieldAreNotRead) {
  const Stream stream = Stream::cpu();
  const std::vector<test::Tube> tubes = {test::straight_tube({50, 8}, {60, 190}, 5)};
  Scene scene = make_scene(112, 200, tubes);
  Image<std::uint8_t> valid(112, 200);
  for (int y = 0; y < 112; ++y)
    for (int x = 0; x < 200; ++x) {
      valid(y, x) = y < 58;
      if (y >= 58) scene.image(y, x) = 5;  // what an edge of the field may leave
    }
  const VesselGraph fitted = fit_centrelines(stream, scene.image, scene.map.z, valid.view(), scene.traced, fit_options());
  const Select half_covered = [](const CentrelinePoint& point) { return point.x > 20 && point.x < 100; };
  EXPECT_LE(rms_px(fitted, tubes, half_covered), 0.2);
}

TEST(CentrelineFit, TheSameForAnyNumberOfThreads) {
  const std::vector<test::Tube> tubes = {parent(), branch_of_parent(0.35, 60, 70, 5)};
  const Scene scene = make_scene(224, 208, tubes);
  for (int repeat = 0; repeat < 3; ++repeat) {
    const VesselGraph again =
        fit_centrelines(Stream::cpu({.parallel = repeat == 0}), scene.image, scene.map.z, {}, scene.traced, fit_options());
    ASSERT_EQ(again.segments.size(), scene.fitted.segments.size());
    for (std::size_t s = 0; s < again.segments.size(); ++s)
      for (std::size_t i = 0; i < again.segments[s].centreline.points.size(); ++i) {
        ASSERT_EQ(again.segments[s].centreline.points[i].y, scene.fitted.segments[s].centreline.points[i].y);
        ASSERT_EQ(again.segments[s].centreline.points[i].x, scene.fitted.segments[s].centreline.points[i].x);
      }
  }
}

TEST(CentrelineFit, InferredPointsAreNotMeasured) {
  const Stream stream = Stream::cpu();
  const Scene scene = make_scene(112, 200, {test::straight_tube({50, 8}, {60, 190}, 5)});
  Centreline line = scene.fitted.segments.at(0).centreline;
  for (std::size_t i = 60; i < 80; ++i) line.points[i].inferred = true;
  LumenOptions options;
  options.noise_sd = static_cast<float>(noise_sd);
  const std::vector<LumenPoint> lumen = measure_frame(stream, scene.image, {}, {line}, options)[0];
  for (std::size_t i = 40; i < 100; ++i) {
    const bool inferred = i >= 60 && i < 80;
    EXPECT_EQ(lumen[i].used, !inferred) << i;
    EXPECT_EQ(lumen[i].reason, inferred ? Exclusion::inferred : Exclusion::none) << i;
  }
}

TEST(CentrelineFit, RefusesWhatDoesNotFit) {
  const Stream stream = Stream::cpu();
  const Image<float> image(stream, 16, 16), other(stream, 16, 17);
  const Image<std::uint8_t> valid(stream, 15, 16);
  EXPECT_THROW(fit_centrelines(stream, image, other, {}, {}, {}), std::invalid_argument);
  EXPECT_THROW(fit_centrelines(stream, image, image, valid, {}, {}), std::invalid_argument);
  CentrelineFitOptions options;
  options.passes = 0;
  EXPECT_THROW(fit_centrelines(stream, image, image, {}, {}, options), std::invalid_argument);
  options = {};
  options.noise_sd = 0;
  EXPECT_THROW(fit_centrelines(stream, image, image, {}, {}, options), std::invalid_argument);
  EXPECT_TRUE(fit_centrelines(stream, image, image, {}, {}, {}).segments.empty());
}

}  // namespace
}  // namespace cinelumen
