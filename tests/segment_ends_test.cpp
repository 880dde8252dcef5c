#include "engine/segment_ends.h"

#include <gtest/gtest.h>

#include "support/straight_vessels.h"

namespace {

using namespace cinelumen;
using namespace cinelumen::test;

const DiameterAlong open_vessel = [](double) { return 8.0; };

TEST(SegmentEnds, EachEndHasTheBranchingThatItLiesAt) {
  Analysis analysis = straight_analysis({straight_segment(1, 50, 10, 60, open_vessel), straight_segment(2, 50, 60, 100, open_vessel)});
  analysis.branch_points = {{50, 60, {0, 1}, false}, {50, 100, {1}, false}};
  const auto ends = segment_ends(analysis);
  EXPECT_EQ(ends[0], (std::array{-1, 0}));
  EXPECT_EQ(ends[1], (std::array{0, 1}));
}

TEST(SegmentEnds, AShortLinkBetweenTwoBranchingsHasBoth) {
  // Both branchings lie nearer to its start than to its end.
  Analysis analysis = straight_analysis({straight_segment(1, 50, 60, 72, open_vessel)});
  analysis.branch_points = {{50, 58, {0}, false}, {50, 65, {0}, false}};
  EXPECT_EQ(segment_ends(analysis)[0], (std::array{0, 1}));
}

TEST(SegmentEnds, WhatCrossesJoinsNothing) {
  Analysis analysis = straight_analysis({straight_segment(1, 50, 10, 60, open_vessel)});
  analysis.branch_points = {{50, 60, {0}, true}};
  EXPECT_EQ(segment_ends(analysis)[0], (std::array{-1, -1}));
}

TEST(SegmentEnds, AVesselThatGoesOnBeyondTheImage) {
  const Analysis analysis = straight_analysis({straight_segment(1, 50, 10, 100, open_vessel)});
  EXPECT_TRUE(leaves_image(analysis, analysis.segments[0].centreline.points.front()));
  EXPECT_FALSE(leaves_image(analysis, analysis.segments[0].centreline.points.back()));
}

TEST(SegmentEnds, AWideVesselIsTracedLessFarTowardsTheEdge) {
  const Analysis analysis = straight_analysis({straight_segment(1, 50, 15, 100, open_vessel)});
  CentrelinePoint end = analysis.segments[0].centreline.points.front();
  end.radius_px = 3;
  EXPECT_FALSE(leaves_image(analysis, end));
  end.radius_px = 9;
  EXPECT_TRUE(leaves_image(analysis, end));
}

}  // namespace
