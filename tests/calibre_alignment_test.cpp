#include "engine/calibre_alignment.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/straight_vessels.h"

namespace {

using namespace cinelumen;
using namespace cinelumen::test;

std::vector<AlignedSegment> against(const Analysis& reference, const ReferenceCalibre& calibre, const Analysis& run) {
  return align_calibres(reference, calibre, run, match_rows(reference, run), 1);
}

TEST(ReferenceCalibre, GoesOnWhereOtherVesselsHideIt) {
  // 40 px of 8 px, 12 px (3 mm) hidden at the start and 60 px (15 mm) at the end.
  const auto visible = [](double s) { return s < 12 || s > 52 ? 0.0 : 8.0; };
  const ReferenceCalibre calibre = reference_calibre(straight_analysis({straight_segment(1, 50, 20, 132, visible)}));
  const ReferenceCalibre::Segment& own = calibre.segments[0];
  EXPECT_FLOAT_EQ(own.measured_px[4], 0);
  EXPECT_NEAR(own.diameter_px[4], 8, 0.01);
  EXPECT_GT(own.sd_px[4] / own.diameter_px[4], 0.03 * 8 * straight_mm_per_px) << "2 mm from what was measured";
  EXPECT_NEAR(own.diameter_px[52 + 18], 8, 0.01) << "4.5 mm beyond";
  EXPECT_EQ(own.diameter_px[52 + 24], 0) << "6 mm beyond: not known";
  EXPECT_LT(own.sd_px[30] / own.diameter_px[30], 0.02) << "measured";
}

TEST(ReferenceCalibre, GoesStraightOnAcrossABranching) {
  // A hidden link of 7 mm between two pieces of one vein, and a side branch that is narrower.
  Analysis analysis = straight_analysis({straight_segment(1, 50, 10, 60, [](double) { return 12.0; }),
                                         straight_segment(2, 50, 60, 88, [](double) { return 0.0; }),
                                         straight_segment(3, 50, 88, 150, [](double) { return 12.0; })});
  analysis.branch_points = {{50, 60, {0, 1}, false}, {50, 88, {1, 2}, false}};
  const ReferenceCalibre calibre = reference_calibre(analysis);
  EXPECT_NEAR(calibre.segments[1].diameter_px[14], 12, 0.2);
  EXPECT_GT(calibre.segments[1].sd_px[14] / calibre.segments[1].diameter_px[14], 0.1);
  analysis.branch_points[0].crossing = analysis.branch_points[1].crossing = true;
  EXPECT_EQ(reference_calibre(analysis).segments[1].diameter_px[14], 0) << "what crosses is another vessel";
}

TEST(ReferenceCalibre, ALaterRunShowsAShortNarrowingOfIt) {
  // 5 px (1.25 mm) narrowed by half, next to where nothing could be measured: one side alone does not tell a narrowing from a taper.
  const auto notch = [](double s) { return s > 85 ? 0.0 : s > 80 ? 5.0 : 10.0; };
  const Analysis reference = straight_analysis({straight_segment(1, 50, 20, 120, notch)});
  const Analysis later = straight_analysis({straight_segment(1, 50, 20, 120, [](double s) { return s > 85 ? 0.0 : 10.0; })});
  const ReferenceCalibre alone = reference_calibre(reference);
  EXPECT_NEAR(alone.segments[0].diameter_px[83], 5, 0.01);
  const ReferenceCalibre widened = widened_by(reference, alone, {against(reference, alone, later)});
  EXPECT_NEAR(widened.segments[0].diameter_px[83], 10, 0.3);
  EXPECT_NEAR(widened.segments[0].measured_px[83], 5, 0.01);
  EXPECT_NEAR(widened.segments[0].diameter_px[40], 10, 0.01);
}

TEST(ReferenceCalibre, ASideThatOnlyAnotherRunMeasuredTellsANarrowingToo) {
  // The stenosis stands in every run; the reference does not see the vessel beyond it.
  const auto stenosis = [](double s) { return s > 60 && s < 80 ? 5.0 : 10.0; };
  const Analysis reference = straight_analysis({straight_segment(1, 50, 20, 140, [&](double s) { return s > 78 ? 0.0 : stenosis(s); })});
  const Analysis other = straight_analysis({straight_segment(1, 50, 20, 140, stenosis)});
  const ReferenceCalibre alone = reference_calibre(reference);
  EXPECT_NEAR(alone.segments[0].diameter_px[70], 5, 0.01);
  const ReferenceCalibre widened = widened_by(reference, alone, {against(reference, alone, other)});
  EXPECT_NEAR(widened.segments[0].diameter_px[70], 10, 0.1);
}

TEST(ReferenceCalibre, ADipThatOthersShowInPartIsFilledAsAWhole) {
  // Of a notch beside a hidden end, later runs measured the first half.
  const auto notch = [](double s) { return s > 90 ? 0.0 : s > 78 ? 5.0 : 10.0; };
  const Analysis reference = straight_analysis({straight_segment(1, 50, 20, 140, notch)});
  const Analysis later = straight_analysis({straight_segment(1, 50, 20, 140, [](double s) { return s > 84 ? 0.0 : 10.0; })});
  const ReferenceCalibre alone = reference_calibre(reference);
  const ReferenceCalibre widened = widened_by(reference, alone, {against(reference, alone, later)});
  EXPECT_NEAR(widened.segments[0].diameter_px[88], 10, 0.1);
}

TEST(ReferenceCalibre, OthersDoNotMakeItWiderThanItIsBesideThat) {
  // Near its end others are measured together with the vessel that it joins.
  const Analysis reference = straight_analysis({straight_segment(1, 50, 20, 140, [](double s) { return s > 90 ? 0.0 : 10.0; })});
  const Analysis later =
      straight_analysis({straight_segment(1, 50, 20, 140, [](double s) { return s > 90   ? 0.0
                                                                                : s > 80 ? 14.0
                                                                                         : 10.0; })});
  const ReferenceCalibre alone = reference_calibre(reference);
  const ReferenceCalibre widened = widened_by(reference, alone, {against(reference, alone, later)});
  EXPECT_LT(widened.segments[0].diameter_px[86], 10.6);
}

TEST(ReferenceCalibre, AVesselThatIsWiderAllAlongWasOnlySmallerThen) {
  const auto part = [](double diameter) { return [diameter](double s) { return s > 20 && s < 44 ? diameter : 0.0; }; };
  const Analysis reference = straight_analysis({straight_segment(1, 50, 20, 120, part(8))});
  const Analysis later = straight_analysis({straight_segment(1, 50, 20, 120, part(11))});
  const ReferenceCalibre alone = reference_calibre(reference);
  EXPECT_NEAR(widened_by(reference, alone, {against(reference, alone, later)}).segments[0].diameter_px[30], 8, 0.01);
}

TEST(ReferenceCalibre, ANotchBetweenTwoBranchingsIsToldByItsOwnShape) {
  // 11 px (2.8 mm) are all that was measured, and nowhere is it as wide as later: but it widens to both ends.
  const auto part = [](const auto& inside) { return [inside](double s) { return s > 30 && s < 42 ? inside(s) : 0.0; }; };
  const auto notch = part([](double s) { return 14 - 8 * std::exp(-0.5 * std::pow((s - 36) / 2.2, 2)); });
  const Analysis reference = straight_analysis({straight_segment(1, 50, 20, 120, notch)});
  const Analysis later = straight_analysis({straight_segment(1, 50, 20, 120, part([](double) { return 14.0; }))});
  const ReferenceCalibre alone = reference_calibre(reference);
  EXPECT_LT(alone.segments[0].diameter_px[36], 8);
  EXPECT_GT(widened_by(reference, alone, {against(reference, alone, later)}).segments[0].diameter_px[36], 11);
}

TEST(AlignedSegment, DensityTellsLayersFromARoundLumen) {
  const Analysis reference = straight_analysis({straight_segment(1, 50, 20, 120, [](double) { return 10.0; })});
  Analysis run = straight_analysis({straight_segment(1, 50, 20, 120, [](double s) { return s > 60 ? 7.0 : 10.0; })});
  for (std::size_t i = 61; i < run.segments[0].profile.points.size(); ++i) run.segments[0].profile.points[i].area_ratio = 1.2F;
  run.segments[0].profile.points[70].own_kappa = false;
  const AlignedSegment aligned = against(reference, reference_calibre(reference), run)[0];
  EXPECT_NEAR(aligned.density[30], 0, 1e-6);
  EXPECT_NEAR(aligned.density[80], std::log(1.2), 1e-6);
  EXPECT_TRUE(std::isnan(aligned.density[70])) << "sized by its contrast: its density is a prior's";
}

}  // namespace
