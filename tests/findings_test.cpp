/// What one run alone may say.

#include "engine/findings.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace cinelumen {
namespace {

// 100 px of vessel, 10 px wide, with a notch to `narrow_px` in the middle.
Analysis one_segment(float narrow_px, float sd_px) {
  Analysis analysis;
  analysis.subtracted = true;
  analysis.calibration.source = CalibrationSource::user;
  analysis.calibration.mm_per_px = 0.5;
  SegmentResult segment;
  segment.id = 1;
  segment.filling = "filled";
  for (int i = 0; i <= 100; ++i) {
    CentrelinePoint point;
    point.x = static_cast<float>(i);
    point.arc_length_px = static_cast<float>(i);
    segment.centreline.points.push_back(point);
    DiameterProfile::Point profile;
    profile.arc_length_px = static_cast<float>(i);
    profile.diameter_px = i >= 45 && i <= 55 ? narrow_px : 10;
    profile.sd_px = sd_px;
    profile.frames = 5;
    segment.profile.points.push_back(profile);
  }
  segment.diameter.median = 10;
  segment.diameter.minimum = narrow_px;
  segment.diameter.reference = 10;
  segment.diameter.percent_stenosis = 10 * (10 - narrow_px);
  segment.diameter.minimum_sd = sd_px;
  segment.diameter.minimum_at_px = {0, 50};
  segment.diameter.minimum_point = 50;
  segment.gates.assign(101, FillingGate::passed);
  analysis.segments.push_back(std::move(segment));
  return analysis;
}

TEST(Findings, ANarrowingIsNamedAndNeverCalledSpasm) {
  const std::vector<Finding> findings = find_single_run_findings(one_segment(5, 0.2f));
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].label, "narrowing");
  EXPECT_NEAR(*findings[0].narrowing_percent, 50, 1e-9);
  EXPECT_NEAR((*findings[0].ci95)[0], 50 - 1.96 * std::hypot(2.0, 1.0), 1e-6);
  EXPECT_NEAR(*findings[0].extent_mm, 11 * 0.5, 1e-6);
  EXPECT_EQ(findings[0].at_px[1], 50);
  EXPECT_FALSE(findings[0].reasons.empty());
}

TEST(Findings, SmallOrUncertainNarrowingIsNot) {
  EXPECT_TRUE(find_single_run_findings(one_segment(8, 0.2f)).empty());
  EXPECT_TRUE(find_single_run_findings(one_segment(6, 2.0f)).empty()) << "the interval reaches down to nothing";
}

TEST(Findings, APartlyFilledLumenIsNeverCalledNarrow) {
  for (const FillingGate gate :
       {FillingGate::contrast, FillingGate::growing, FillingGate::diluted, FillingGate::untested, FillingGate::unconfirmed}) {
    Analysis analysis = one_segment(5, 0.2f);
    analysis.segments[0].gates[50] = gate;
    const std::vector<Finding> findings = find_single_run_findings(analysis);
    ASSERT_EQ(findings.size(), 1u);
    EXPECT_EQ(findings[0].label, "indeterminate");
    EXPECT_FALSE(findings[0].narrowing_percent);
    EXPECT_EQ(findings[0].reasons.back(), to_string(gate));
  }
  // Too narrow for a kappa, but the same calibre comes back beyond it.
  Analysis narrow = one_segment(5, 0.2f);
  narrow.segments[0].gates.assign(101, FillingGate::unconfirmed);
  narrow.segments[0].diameter.sides_ratio = 0.97;
  EXPECT_EQ(find_single_run_findings(narrow)[0].label, "narrowing");
  narrow.segments[0].diameter.sides_ratio = 0.85;
  EXPECT_EQ(find_single_run_findings(narrow)[0].label, "indeterminate");
  // Contrast that is thinner on one side.
  narrow.segments[0].diameter.sides_ratio = 1;
  narrow.segments[0].diameter.kappa_ratio = 0.8;
  EXPECT_EQ(find_single_run_findings(narrow)[0].label, "indeterminate");
  // What only the frames that were taken out would have shown.
  Analysis analysis = one_segment(5, 0.2f);
  analysis.segments[0].ungated = analysis.segments[0].diameter;
  analysis.segments[0].diameter.percent_stenosis = 2;
  const std::vector<Finding> findings = find_single_run_findings(analysis);
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].label, "indeterminate");
}

ChangeWithinRun change_of(double percent) {
  ChangeWithinRun change;
  change.narrowing_percent = percent;
  change.ci95 = {percent - 4, percent + 4};
  change.onset_ms = 7250;
  change.onset_frame = 29;
  change.before_first = 11, change.before_last = 29;
  change.frames_before = 19, change.frames_after = 5;
  change.probability = 0.999;
  change.point = 50;
  change.extent_px = 20;
  return change;
}

std::string reasons_of(const Finding& finding) {
  std::string all;
  for (const std::string& reason : finding.reasons) all += reason + "\n";
  return all;
}

TEST(Findings, AChangeWithinTheRunMayMeetTheDefinitionOfSpasm) {
  Analysis analysis = one_segment(10, 0.2f);
  analysis.frame_times_ms = {0, 250};
  analysis.segments[0].diameter.percent_stenosis = 0;
  analysis.segments[0].changes = {change_of(60)};
  const std::vector<Finding> findings = find_single_run_findings(analysis);
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].label, "change within the run");
  EXPECT_EQ(findings[0].grade, "mild");
  EXPECT_EQ(findings[0].onset_ms, 7250);
  EXPECT_EQ(findings[0].extent_mm, 10);
  EXPECT_EQ(findings[0].at_px[1], 50);
  const std::string reasons = reasons_of(findings[0]);
  EXPECT_NE(reasons.find("meets the definition of venous spasm, mild"), std::string::npos) << reasons;
  EXPECT_NE(reasons.find("frames 12 to 30 of this run"), std::string::npos) << reasons;
  EXPECT_NE(reasons.find("extrapolation from the axillary vein"), std::string::npos) << reasons;

  const auto reasons_at = [&](double percent) {
    return reasons_of(finding_of(change_of(percent), 1, analysis.segments[0].centreline, analysis.calibration, true));
  };
  EXPECT_NE(reasons_at(95).find("venous spasm, severe"), std::string::npos);
  EXPECT_EQ(reasons_at(40).find("venous spasm"), std::string::npos);
  EXPECT_NE(reasons_at(40).find("narrowing below spasm grade"), std::string::npos);
  EXPECT_EQ(reasons_at(20).find("narrowing below spasm grade"), std::string::npos);
  EXPECT_NE(reasons_at(-40).find("40 % wider"), std::string::npos);
  EXPECT_EQ(reasons_at(-60).find("spasm"), std::string::npos) << "what widens is none";
  EXPECT_TRUE(finding_of(change_of(-60), 1, analysis.segments[0].centreline, analysis.calibration, true).grade.empty());
}

TEST(Findings, ASingleUnsubtractedPictureClaimsNothing) {
  Analysis analysis = one_segment(5, 0.2f);
  analysis.subtracted = false;
  analysis.frames = 1;
  EXPECT_TRUE(find_single_run_findings(analysis).empty());
}

TEST(Findings, AnUnfilledSegmentIsNotMeasured) {
  Analysis analysis = one_segment(5, 0.2f);
  analysis.segments[0].filling = "not filled";
  const std::vector<Finding> findings = find_single_run_findings(analysis);
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].label, "not filled");
  EXPECT_FALSE(findings[0].narrowing_percent);
}

}  // namespace
}  // namespace cinelumen
