#include "engine/vessel_injury.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "engine/phantom/phantom.h"
#include "support/straight_vessels.h"

namespace {

using namespace cinelumen;
using namespace cinelumen::test;

constexpr int side = 160;
constexpr double frame_ms = 500, noise_sd = 0.004;

/// Rises within a second, stays for two, and falls to a tenth within three.
double washes_out(double s) { return s < 1 ? 0 : s < 2 ? s - 1 : s < 4 ? 1 : std::max(0.1, 1 - 0.3 * (s - 4)); }
double stays(double s) { return std::min(1.0, std::max(0.0, 0.5 * (s - 2))); }

/// Contrast at (y, x) px and a time in s.
using Contrast = std::function<double(double, double, double)>;

std::vector<CourseSample> course_of(const Contrast& contrast) {
  std::vector<CourseSample> course;
  for (int k = 0; k < 16; ++k) {
    CourseSample sample{k * frame_ms, Image<float>(side, side)};
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) sample.opacification(y, x) = static_cast<float>(contrast(y, x, 0.001 * sample.time_ms));
    course.push_back(std::move(sample));
  }
  return course;
}

/// A vein of 12 px (3 mm) along y = 80.
Analysis vein() {
  Analysis analysis = straight_analysis({straight_segment(1, 80, 5, 155, [](double) { return 12.0; })});
  analysis.subtracted = true;
  return analysis;
}
double in_vein(double y, double s) { return std::abs(y - 80) < 6 ? 0.3 * washes_out(s) : 0; }

/// Beside it a disc whose radius grows to `radius` px from 2 s on.
Contrast leak(double radius, const std::function<double(double)>& over_time) {
  return [radius, over_time](double y, double x, double s) {
    const double grown = radius * std::cbrt(std::clamp((s - 2) / 5, 0.0, 1.0));
    return std::max(in_vein(y, s), std::hypot(y - 96, x - 80) < grown ? 0.15 * over_time(s) : 0);
  };
}

TEST(Extravasation, GrowsBesideAVesselAndStays) {
  const auto found = find_injuries(course_of(leak(12, stays)), vein(), noise_sd).extravasations;
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].segment, 1);
  EXPECT_NEAR(found[0].at_px[0], 97, 2);
  EXPECT_NEAR(found[0].at_px[1], 80, 1);
  EXPECT_NEAR(found[0].onset_ms, 3000, 600) << "when half of its contrast is there";
  EXPECT_GT(found[0].left, 0.95);
  EXPECT_LT(found[0].left_in_vessel, 0.2);
  EXPECT_LT(found[0].early_area_mm2, 0.8 * found[0].area_mm2);
  const Finding finding = finding_of(found[0]);
  EXPECT_EQ(finding.label, "extravasation (suspected)");
  EXPECT_EQ(injury_of(finding), "extravasation");
}

TEST(Extravasation, WhatWashesOutIsNone) {
  EXPECT_TRUE(find_injuries(course_of(leak(12, washes_out)), vein(), noise_sd).extravasations.empty());
}

TEST(Extravasation, WhatDoesNotGrowOrIsSmallOrFaintIsNone) {
  const Contrast at_once = [](double y, double x, double s) {
    return std::max(in_vein(y, s), std::hypot(y - 96, x - 80) < 12 ? 0.15 * stays(s) : 0);
  };
  EXPECT_TRUE(find_injuries(course_of(at_once), vein(), noise_sd).extravasations.empty());
  EXPECT_TRUE(find_injuries(course_of(leak(4, stays)), vein(), noise_sd).extravasations.empty());
  const Contrast blush = [](double y, double x, double s) {
    return std::max(in_vein(y, s), std::hypot(y - 96, x - 80) < 12 * std::cbrt(std::clamp((s - 2) / 5, 0.0, 1.0)) ? 0.03 * stays(s) : 0);
  };
  EXPECT_TRUE(find_injuries(course_of(blush), vein(), noise_sd).extravasations.empty());
}

TEST(Extravasation, AVeinThatFillsLateIsNone) {
  // Beside the vein, and still full when the run ends: long.
  const Contrast late = [](double y, double x, double s) {
    const double front = 12 * (s - 2);
    return std::max(in_vein(y, s), std::abs(y - 96) < 6 && x > 40 && x < 40 + front ? 0.25 : 0);
  };
  EXPECT_TRUE(find_injuries(course_of(late), vein(), noise_sd).extravasations.empty());
}

TEST(Extravasation, NothingIsSaidWhereTheVesselHasNotWashedOut) {
  const Contrast full = [](double y, double x, double s) {
    return std::max(std::abs(y - 80) < 6 ? 0.3 * stays(s) : 0, leak(12, stays)(y, x, s));
  };
  EXPECT_TRUE(find_injuries(course_of(full), vein(), noise_sd).extravasations.empty());
  Analysis uncalibrated = vein();
  uncalibrated.calibration = {};
  EXPECT_TRUE(find_injuries(course_of(leak(12, stays)), uncalibrated, noise_sd).extravasations.empty());
}

/// From x = 50 to 110: a lumen that flows, a line, and one that keeps its contrast, blurred as a detector does.
Contrast flap(double from_y, double line_y, double to_y) {
  return [=](double y, double x, double s) {
    if (x < 50 || x > 110) return in_vein(y, s);
    const auto edge = [](double d) { return 0.5 * (1 + std::erf(d / 1.2)); };
    const double flowing = edge(y - from_y) * edge(line_y - 0.8 - y), other = edge(y - line_y - 0.8) * edge(to_y - y);
    return 0.25 * flowing * washes_out(s) + 0.2 * other * stays(s);
  };
}

TEST(Dissection, TwoLuminaInOneOutlineOfWhichOneStays) {
  const auto found = find_injuries(course_of(flap(74, 80.5, 86)), vein(), noise_sd).dissections;
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].segment, 1);
  EXPECT_NEAR(found[0].from_mm, (50 - 5) * straight_mm_per_px, 1);
  EXPECT_NEAR(found[0].to_mm, (110 - 5) * straight_mm_per_px, 1);
  EXPECT_LT(found[0].defect, 0.8);
  EXPECT_GT(found[0].left, 0.95);
  EXPECT_LT(found[0].left_beside, 0.2);
  EXPECT_EQ(injury_of(finding_of(found[0])), "dissection");
}

TEST(Dissection, TwoVeinsBesideOneAnotherAreNone) {
  // Together they are much wider than the vein before and after.
  EXPECT_TRUE(find_injuries(course_of(flap(74, 86.5, 99)), vein(), noise_sd).dissections.empty());
}

TEST(Dissection, OneLumenIsNone) {
  EXPECT_TRUE(find_injuries(course_of([](double y, double, double s) { return in_vein(y, s); }), vein(), noise_sd).dissections.empty());
  const Contrast layered = [](double y, double, double s) { return std::abs(y - 80) >= 6 ? 0 : 0.3 * (y > 80 ? stays(s) : washes_out(s)); };
  EXPECT_TRUE(find_injuries(course_of(layered), vein(), noise_sd).dissections.empty()) << "no line parts them";
}

TEST(VesselInjury, OfAFootBothAreFoundWhereTheyAreAndNoOthers) {
  PhantomOptions options;
  options.scenario = "injury";
  options.rows = options.columns = 512;
  options.seed = 3;
  const PhantomRun phantom = make_phantom(options);
  const Analysis analysis = analyze(Stream::cpu(), make_run(phantom), {});
  ASSERT_EQ(phantom.truth.stains.size(), 2U);
  int named = 0;
  for (const Finding& finding : analysis.findings) named += !injury_of(finding).empty();
  EXPECT_EQ(named, 2);
  for (const PhantomStain& stain : phantom.truth.stains) {
    const auto at = std::find_if(analysis.findings.begin(), analysis.findings.end(),
                                 [&](const Finding& finding) { return injury_of(finding) == stain.kind; });
    ASSERT_NE(at, analysis.findings.end()) << stain.kind;
    EXPECT_LT(phantom.truth.mm_per_px * std::hypot(at->at_px[0] - stain.y_px, at->at_px[1] - stain.x_px), 4) << stain.kind;
  }
}

}  // namespace
