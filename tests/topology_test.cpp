/// Which image the vessels are traced in, and which traced segments are no vessels.

#include "engine/topology.h"

#include "support/devices.h"
#include "support/graph_matching.h"
#include "support/images.h"
#include "support/tubes.h"

namespace cinelumen {
namespace {

constexpr int side = 192;

Image<std::uint8_t> everywhere() {
  Image<std::uint8_t> valid(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) valid(y, x) = 1;
  return valid;
}

// A vessel across the image, displaced by dy, and a branch.
Image<float> picture(double dy, unsigned seed) {
  const std::vector<test::Tube> tubes = {test::make_tube(
                                             [=](double t) {
                                               return test::TubePoint{60 + dy + 30 * t * t, 10 + 170 * t};
                                             },
                                             4),
                                         test::make_tube(
                                             [=](double t) {
                                               return test::TubePoint{66 + dy + 90 * t, 80 + 30 * t};
                                             },
                                             3)};
  return test::render_tubes(side, side, tubes, 0.3, 0.8, 0.01, seed, 0);
}

std::vector<KeyFrame> key_frames(const Stream& stream, const std::vector<double>& shifts) {
  std::vector<KeyFrame> frames;
  for (std::size_t i = 0; i < shifts.size(); ++i)
    frames.push_back({static_cast<int>(i), to_device(stream, picture(shifts[i], static_cast<unsigned>(i) + 1).view())});
  return frames;
}

Image<float> maximum(const std::vector<KeyFrame>& frames) {
  Image<float> result(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      result(y, x) = frames[0].image(y, x);
      for (const KeyFrame& frame : frames) result(y, x) = std::max(result(y, x), frame.image(y, x));
    }
  return result;
}

TEST(Topology, StillVesselsComeFromTheWholeRun) {
  const Stream stream = Stream::cpu();
  const std::vector<KeyFrame> frames = key_frames(stream, {0, 0, 0, 0});
  const Topology topology = find_topology(stream, maximum(frames).view(), frames, everywhere().view(), {});
  EXPECT_FALSE(topology.moving_vessels) << topology.note;
  EXPECT_EQ(topology.frame, -1);
  EXPECT_GT(topology.agreement, 0.9);
  EXPECT_GE(topology.graph.segments.size(), 3u);
}

TEST(Topology, MovingVesselsComeFromOneFrame) {
  const Stream stream = Stream::cpu();
  const std::vector<KeyFrame> frames = key_frames(stream, {0, 9, 18, 27});
  const Topology topology = find_topology(stream, maximum(frames).view(), frames, everywhere().view(), {});
  EXPECT_TRUE(topology.moving_vessels) << topology.note;
  ASSERT_GE(topology.frame, 0);
  EXPECT_NE(topology.note.find("frame " + std::to_string(topology.frame + 1)), std::string::npos) << topology.note;
  // The traced vessels are those of that frame, not of the smear.
  const Image<float> one = to_host(stream, topology.picture.view());
  test::expect_near(one.view(), to_host(stream, frames[topology.frame].image.view()).view(), 0);
}

TEST(Topology, WhatMovedAwayLeavesNoVessel) {
  // A catheter: added attenuation where it is now, removed where the mask saw it.
  const Stream stream = Stream::cpu();
  std::vector<KeyFrame> frames;
  for (int i = 0; i < 3; ++i) {
    Image<float> image = picture(9.0 * i, 5);
    const Image<float> now = test::render_tubes(side, side, {test::straight_tube({5, 30}, {55, 34}, 2.5)}, 0.2, 0.8, 0, 1, 0);
    const Image<float> before = test::render_tubes(side, side, {test::straight_tube({5, 42}, {55, 46}, 2.5)}, 0.2, 0.8, 0, 1, 0);
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) image(y, x) += now(y, x) - before(y, x);
    frames.push_back({i, std::move(image)});
  }
  const Topology topology = find_topology(stream, maximum(frames).view(), frames, everywhere().view(), {});
  ASSERT_TRUE(topology.moving_vessels) << topology.note;
  EXPECT_GE(topology.removed_displaced_points, 20);
  for (const VesselGraph::Segment& segment : topology.graph.segments) {
    const CentrelinePoint& middle = segment.centreline.points[segment.centreline.points.size() / 2];
    EXPECT_FALSE(middle.y < 50 && middle.x < 40) << "the catheter was taken for a vessel";
  }
  EXPECT_GE(topology.graph.segments.size(), 2u) << "the vessels went with it";
}

TEST(Topology, TheFieldsEdgeIsNoVessel) {
  const Stream stream = Stream::cpu();
  Image<float> image = picture(0, 3);
  Image<std::uint8_t> valid = everywhere();
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      if (x > side - 20) valid(y, x) = 0;
      if (x > side - 25) image(y, x) += 0.5f * std::exp(-0.5f * std::pow((x - (side - 22)) / 2.0f, 2.0f));
    }
  std::vector<KeyFrame> frames;
  const Topology topology = find_topology(stream, image.view(), frames, valid.view(), {});
  for (const VesselGraph::Segment& segment : topology.graph.segments) {
    long near = 0;
    for (const CentrelinePoint& point : segment.centreline.points) near += point.x > side - 28;
    EXPECT_LT(near, static_cast<long>(segment.centreline.points.size()) / 2) << "a segment runs along the edge";
  }
  EXPECT_GE(topology.graph.segments.size(), 2u);
}

TEST(Topology, ConfirmedShare) {
  VesselGraph a, b;
  a.segments.resize(1);
  b.segments.resize(1);
  for (int i = 0; i < 10; ++i) {
    CentrelinePoint point;
    point.x = static_cast<float>(10 * i);
    a.segments[0].centreline.points.push_back(point);
    point.y = i < 5 ? 1.5f : 3.0f;
    b.segments[0].centreline.points.push_back(point);
  }
  EXPECT_DOUBLE_EQ(confirmed_share(a, b, 2), 0.5);
  EXPECT_DOUBLE_EQ(confirmed_share({}, b, 2), 1);
  EXPECT_DOUBLE_EQ(confirmed_share(a, {}, 2), 0);
}

TEST(Topology, SpursGoAndWhatTheyPartedIsOneSegment) {
  const auto line = [](float y, float x, float dy, float dx, int points, int start, int end) {
    VesselGraph::Segment segment;
    for (int i = 0; i < points; ++i) {
      CentrelinePoint point;
      point.y = y + dy * static_cast<float>(i), point.x = x + dx * static_cast<float>(i);
      point.tangent_y = dy, point.tangent_x = dx;
      point.arc_length_px = static_cast<float>(i);
      segment.centreline.points.push_back(point);
    }
    segment.start_branch = start, segment.end_branch = end;
    return segment;
  };
  // A vessel along x, traced from its left end and from its right one towards (20, 50), a spur of 8 px there and a branch of 30 px at 80.
  VesselGraph graph;
  graph.segments = {line(20, 10, 0, 1, 41, -1, 0), line(20, 80, 0, -1, 31, 1, 0), line(20, 80, 1, 0, 31, 1, -1),
                    line(20, 80, 0, 1, 21, 1, -1), line(20, 50, 1, 0, 9, 0, -1)};
  graph.branch_points = {{20, 50, {0, 1, 4}, false}, {20, 80, {1, 2, 3}, false}, {20, 60, {1, 2}, true}};
  prune_spurs(graph, 12);
  ASSERT_EQ(graph.segments.size(), 3u);
  const VesselGraph::Segment& vessel = graph.segments[0];
  ASSERT_EQ(vessel.centreline.points.size(), 71u) << "the place where both met counts once";
  EXPECT_FLOAT_EQ(vessel.centreline.length_px(), 70);
  EXPECT_EQ(vessel.start_branch, -1);
  EXPECT_EQ(vessel.end_branch, 1);
  for (std::size_t i = 0; i < vessel.centreline.points.size(); ++i) {
    EXPECT_FLOAT_EQ(vessel.centreline.points[i].x, 10 + static_cast<float>(i));
    EXPECT_FLOAT_EQ(vessel.centreline.points[i].arc_length_px, static_cast<float>(i));
    EXPECT_FLOAT_EQ(vessel.centreline.points[i].tangent_x, 1);
  }
  EXPECT_EQ(graph.branch_points[1].segments, (std::vector<int>{0, 1, 2})) << "three meet there as before";
  EXPECT_EQ(graph.branch_points[2].segments, (std::vector<int>{0, 1})) << "a crossing goes with its vessel";
}

TEST(Topology, CrossingsAreNoBifurcations) {
  int crossings = 0, found = 0;
  for (std::uint64_t seed = 600; seed < 603; ++seed) {
    const PhantomRun phantom = test::phantom_of("overlap", 512, seed);
    const Analysis analysis = analyze(Stream::cpu(), make_run(phantom), {});
    PhantomTruth truth = phantom.truth;
    // At smaller angles the overlap is longer than what is seen of the vessels beside it.
    std::erase_if(truth.crossings, [](const PhantomCrossing& crossing) { return crossing.angle_deg < 15; });
    const test::GraphFigures graph = test::GraphComparison(analysis, truth).figures(1);
    crossings += graph.true_crossings;
    found += graph.found_crossings;
    EXPECT_EQ(graph.found_bifurcations, graph.true_bifurcations) << seed;
    for (const std::string& missed : graph.missed)
      if (missed.find("not found") != std::string::npos || missed.find("joined") != std::string::npos)
        ADD_FAILURE() << seed << ": " << missed;
  }
  EXPECT_EQ(crossings, 15);
  EXPECT_EQ(found, crossings);
}

}  // namespace
}  // namespace cinelumen
