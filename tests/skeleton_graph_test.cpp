/// Drawn skeletons to graphs: ends, branch points, spurs, loops, crossings.

#include "engine/skeleton_graph.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace cinelumen {
namespace {

// Pixels by place, in raster order.
class Drawing {
 public:
  // A line of single pixels from one place to another, ends included.
  Drawing& line(double y0, double x0, double y1, double x1, float z = 20, float scale_px = 2) {
    const int steps = static_cast<int>(std::ceil(std::max(std::abs(y1 - y0), std::abs(x1 - x0))));
    for (int i = 0; i <= steps; ++i) {
      const double t = steps > 0 ? static_cast<double>(i) / steps : 0;
      const int y = static_cast<int>(std::lround(y0 + t * (y1 - y0))), x = static_cast<int>(std::lround(x0 + t * (x1 - x0)));
      pixels_.insert({{y, x}, {y, x, z, 0, scale_px}});
    }
    return *this;
  }
  std::vector<SkeletonPixel> pixels() const {
    std::vector<SkeletonPixel> result;
    for (const auto& [place, pixel] : pixels_) result.push_back(pixel);
    return result;
  }
  SkeletonGraph graph(const SkeletonGraphOptions& options = {}) const { return build_skeleton_graph(pixels(), options); }

 private:
  std::map<std::pair<int, int>, SkeletonPixel> pixels_;
};

// What must hold of any graph.
void expect_consistent(const SkeletonGraph& graph, const std::vector<SkeletonPixel>& pixels) {
  std::vector<int> ends(graph.nodes.size(), 0), used(pixels.size(), 0);
  for (const SkeletonGraph::Edge& edge : graph.edges) {
    EXPECT_FALSE(edge.pixels.empty());
    EXPECT_EQ(edge.pixels.size(), edge.hidden.size());
    for (std::size_t i = 0; i < edge.pixels.size(); ++i) {
      ASSERT_TRUE(edge.pixels[i] >= 0 && edge.pixels[i] < static_cast<int>(pixels.size()));
      if (!edge.hidden[i]) ++used[edge.pixels[i]];
    }
    for (const int node : {edge.start, edge.end})
      if (node >= 0) ++ends[node];
  }
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    EXPECT_EQ(ends[n], static_cast<int>(graph.nodes[n].edges.size()));
    EXPECT_GE(ends[n], 3) << "a branch point of fewer than three arms";
  }
  for (const int count : used) EXPECT_LE(count, 1) << "a pixel in two edges";
}

TEST(SkeletonGraph, NothingGivesNothing) {
  const SkeletonGraph graph = build_skeleton_graph({});
  EXPECT_TRUE(graph.edges.empty() && graph.nodes.empty() && graph.crossings.empty());
}

TEST(SkeletonGraph, ALineIsOneEdge) {
  const Drawing drawing = Drawing().line(10, 5, 40, 65);
  const SkeletonGraph graph = drawing.graph();
  ASSERT_EQ(graph.edges.size(), 1u);
  EXPECT_TRUE(graph.nodes.empty());
  EXPECT_EQ(graph.edges[0].pixels.size(), drawing.pixels().size());
  EXPECT_TRUE(graph.edges[0].start < 0 && graph.edges[0].end < 0);
  expect_consistent(graph, drawing.pixels());
  // In order: each pixel touches the next.
  const std::vector<SkeletonPixel> pixels = drawing.pixels();
  for (std::size_t i = 1; i < graph.edges[0].pixels.size(); ++i) {
    const SkeletonPixel &a = pixels[graph.edges[0].pixels[i - 1]], &b = pixels[graph.edges[0].pixels[i]];
    EXPECT_LE(std::max(std::abs(a.y - b.y), std::abs(a.x - b.x)), 1);
  }
}

TEST(SkeletonGraph, ACornerIsNoBranchPoint) {
  const Drawing drawing = Drawing().line(10, 10, 10, 50).line(10, 50, 50, 50);
  const SkeletonGraph graph = drawing.graph();
  EXPECT_EQ(graph.edges.size(), 1u);
  EXPECT_TRUE(graph.nodes.empty());
}

TEST(SkeletonGraph, ABranchPointWithItsThreeArms) {
  const Drawing drawing = Drawing().line(40, 5, 40, 95).line(40, 50, 80, 75);
  const SkeletonGraph graph = drawing.graph();
  ASSERT_EQ(graph.nodes.size(), 1u);
  EXPECT_EQ(graph.edges.size(), 3u);
  EXPECT_NEAR(graph.nodes[0].y, 40, 1.5);
  EXPECT_NEAR(graph.nodes[0].x, 50, 1.5);
  EXPECT_NEAR(graph.nodes[0].radius_px, radius_from_scale(2), 1e-4);
  expect_consistent(graph, drawing.pixels());
  double length = 0;
  for (const SkeletonGraph::Edge& edge : graph.edges) length += edge.length_px;
  EXPECT_NEAR(length, 90 + std::hypot(40, 25), 6);
}

TEST(SkeletonGraph, SpursGoAndWhatIsLeftIsOneChain) {
  const Drawing drawing = Drawing().line(40, 5, 40, 95).line(40, 50, 46, 52);
  const SkeletonGraph graph = drawing.graph();
  ASSERT_EQ(graph.edges.size(), 1u);
  EXPECT_TRUE(graph.nodes.empty());
  EXPECT_NEAR(graph.edges[0].length_px, 90, 2);
}

TEST(SkeletonGraph, ABranchOfNoiseGoesAndAClearOneStays) {
  const auto with_branch = [](float z) { return Drawing().line(40, 5, 40, 95).line(40, 50, 75, 60, z); };
  EXPECT_EQ(with_branch(3).graph().edges.size(), 1u);
  EXPECT_EQ(with_branch(12).graph().edges.size(), 3u);
}

TEST(SkeletonGraph, FreeEndsAreCutBackToWhereTheVesselEnds) {
  const Drawing drawing = Drawing().line(40, 5, 40, 95).line(40, 96, 40, 115, 4);
  const SkeletonGraph graph = drawing.graph();
  ASSERT_EQ(graph.edges.size(), 1u);
  EXPECT_NEAR(graph.edges[0].length_px, 90, 4);
}

TEST(SkeletonGraph, AHoleInAVesselsMaskIsNoLoop) {
  const Drawing drawing = Drawing().line(40, 5, 40, 45).line(39, 46, 39, 48).line(41, 46, 41, 48).line(40, 49, 40, 95);
  const SkeletonGraph graph = drawing.graph();
  EXPECT_EQ(graph.edges.size(), 1u);
  EXPECT_TRUE(graph.nodes.empty());
}

TEST(SkeletonGraph, ALargeLoopStays) {
  const Drawing drawing = Drawing().line(20, 20, 20, 80).line(20, 80, 70, 80).line(70, 80, 70, 20).line(70, 20, 20, 20);
  const SkeletonGraph graph = drawing.graph();
  ASSERT_EQ(graph.edges.size(), 1u);
  EXPECT_GT(graph.edges[0].length_px, 200);
}

TEST(SkeletonGraph, VesselsThatCrossGoThrough) {
  const Drawing drawing = Drawing().line(10, 10, 90, 90).line(90, 12, 10, 88);
  const SkeletonGraph graph = drawing.graph();
  ASSERT_EQ(graph.crossings.size(), 1u);
  EXPECT_NEAR(graph.crossings[0].y, 50, 2);
  EXPECT_NEAR(graph.crossings[0].x, 50, 2);
  ASSERT_EQ(graph.edges.size(), 2u);
  EXPECT_TRUE(graph.nodes.empty());
  for (const SkeletonGraph::Edge& edge : graph.edges) {
    EXPECT_GT(edge.length_px, 100);
    EXPECT_NE(std::count(edge.hidden.begin(), edge.hidden.end(), 1), 0) << "the crossing itself tells no place";
  }
  EXPECT_NE(graph.crossings[0].edges[0], graph.crossings[0].edges[1]);
  expect_consistent(graph, drawing.pixels());
}

TEST(SkeletonGraph, TwoVesselsThatRunAsOneForAWhileCross) {
  // Thinning leaves a bridge where two vessels cross at a small angle.
  const Drawing drawing =
      Drawing().line(20, 10, 38, 52).line(56, 10, 38, 52).line(38, 52, 38, 58).line(38, 58, 56, 100).line(38, 58, 20, 100);
  const SkeletonGraph graph = drawing.graph();
  EXPECT_EQ(graph.crossings.size(), 1u);
  EXPECT_EQ(graph.edges.size(), 2u);
  EXPECT_TRUE(graph.nodes.empty());
}

TEST(SkeletonGraph, BranchesOnEitherSideAreNoCrossing) {
  // Both branches lean the same way: neither continues the other.
  const Drawing drawing = Drawing().line(40, 5, 40, 105).line(40, 50, 75, 85).line(40, 50, 5, 85);
  const SkeletonGraph graph = drawing.graph();
  EXPECT_TRUE(graph.crossings.empty());
  EXPECT_EQ(graph.edges.size(), 4u);
  ASSERT_EQ(graph.nodes.size(), 1u);
  EXPECT_EQ(graph.nodes[0].edges.size(), 4u);
}

TEST(SkeletonGraph, NearbyBranchPointsAreOne) {
  const Drawing drawing = Drawing().line(40, 5, 40, 105, 20, 4).line(40, 50, 75, 75, 20, 4).line(40, 53, 5, 80, 20, 4);
  const SkeletonGraph graph = drawing.graph();
  EXPECT_EQ(graph.nodes.size(), 1u);
  EXPECT_EQ(graph.edges.size(), 4u);
}

TEST(SkeletonGraph, RadiusGrowsWithScale) {
  EXPECT_NEAR(radius_from_scale(4), 4.66, 0.02);
  for (float scale = 0.6f; scale < 10; scale *= 1.3f) EXPECT_GT(radius_from_scale(1.3f * scale), radius_from_scale(scale));
}

}  // namespace
}  // namespace cinelumen
