/// The graph of a foot against its truth: what is traced, what crosses, what branches, and that no name is wrong.

#include "engine/segment_names.h"

#include <gtest/gtest.h>

#include "support/graph_matching.h"

namespace cinelumen {
namespace {

// The role of most true points along a traced segment.
std::string true_role(const test::GraphComparison& comparison, const PhantomTruth& truth, std::size_t segment) {
  std::map<std::string, int> points;
  for (const auto& [id, count] : comparison.truths_of(segment))
    for (const PhantomSegment& vessel : truth.segments)
      if (vessel.id == id) points[vessel.role] += count;
  const auto most = std::max_element(points.begin(), points.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == points.end() ? "" : most->first;
}

TEST(SegmentNames, OfAFootAreRightAndItsGraphIsTheTruths) {
  int named = 0, right = 0, main = 0, crossings = 0, crossings_found = 0, bifurcations = 0, bifurcations_found = 0, false_crossings = 0;
  for (std::uint64_t seed = 600; seed < 602; ++seed) {
    const PhantomRun phantom = test::phantom_of("foot", 512, seed, 42);
    const Analysis analysis = analyze(Stream::cpu(), make_run(phantom), {});
    const test::GraphComparison comparison(analysis, phantom.truth);
    for (std::size_t s = 0; s < analysis.segments.size(); ++s) {
      const SegmentResult& segment = analysis.segments[s];
      EXPECT_EQ(segment.role.empty(), segment.name == "segment " + std::to_string(segment.id)) << segment.name;
      if (segment.role.empty()) continue;
      ++named;
      main += segment.role == "main";
      const std::string truth = true_role(comparison, phantom.truth, s);
      right += segment.role == truth;
      EXPECT_EQ(segment.role, truth) << "segment " << segment.id << " of seed " << seed;
    }
    const test::CentrelineFigures lines = test::compare_centrelines(analysis, phantom.truth, 0.8);
    EXPECT_GE(lines.recall, 0.95) << seed;
    EXPECT_GE(lines.precision, 0.98) << seed;
    EXPECT_LE(lines.clear_error_rms_px, 0.05) << seed;
    const test::GraphFigures graph = comparison.figures(1.1);
    crossings += graph.true_crossings;
    crossings_found += graph.found_crossings;
    false_crossings += graph.false_crossings;
    bifurcations += graph.true_bifurcations;
    bifurcations_found += graph.found_bifurcations;
    for (const std::string& missed : graph.missed) RecordProperty("missed_" + std::to_string(seed), missed);
  }
  EXPECT_GE(right, 0.95 * named);
  EXPECT_GE(main, 4) << "at least two pieces of the main vein in every foot";
  EXPECT_GE(crossings, 1);
  EXPECT_GE(crossings_found, 0.9 * crossings);
  EXPECT_GE(bifurcations_found, 0.9 * bifurcations);
  EXPECT_LE(false_crossings, 2);
}

TEST(SegmentNames, NoneWithoutAFootOrWithoutFlow) {
  Analysis analysis;
  analysis.rows = analysis.columns = 200;
  SegmentResult segment;
  segment.id = 1;
  segment.name = "segment 1";
  for (int y = 0; y < 150; ++y) {
    CentrelinePoint point;
    point.y = static_cast<float>(y);
    point.x = 90;
    point.arc_length_px = static_cast<float>(y);
    point.radius_px = 4;
    segment.centreline.points.push_back(point);
  }
  segment.diameter.median = 8;
  analysis.segments.push_back(segment);
  name_segments(analysis, "FOOT");
  EXPECT_EQ(analysis.segments[0].name, "segment 1") << "no arrival is known";
  analysis.segments[0].flow.times.arrival_ms = 1000;
  name_segments(analysis, "HEART");
  EXPECT_TRUE(analysis.segments[0].role.empty());
  name_segments(analysis, "FOOT");
  EXPECT_EQ(analysis.segments[0].role, "main");
  EXPECT_EQ(analysis.segments[0].name, "main vein 1");
}

TEST(SegmentNames, NotOfAVesselThatDoesNotComeFromOutside) {
  Analysis analysis;
  analysis.rows = analysis.columns = 200;
  SegmentResult segment;
  segment.id = 1;
  for (int y = 40; y < 150; ++y) {
    CentrelinePoint point;
    point.y = static_cast<float>(y);
    point.x = 90;
    point.arc_length_px = static_cast<float>(y - 40);
    segment.centreline.points.push_back(point);
  }
  segment.diameter.median = 8;
  segment.flow.times.arrival_ms = 1000;
  analysis.segments.push_back(segment);
  name_segments(analysis, "FOOT");
  EXPECT_TRUE(analysis.segments[0].role.empty());
}

}  // namespace
}  // namespace cinelumen
