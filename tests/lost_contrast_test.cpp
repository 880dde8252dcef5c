#include "engine/lost_contrast.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "support/straight_vessels.h"

namespace {

using namespace cinelumen;
using namespace cinelumen::test;

constexpr double healthy_px = 10, thread_px = 2.5, kappa = 0.05, noise_sd = 0.004;

/// Contrast in a lumen along y = 50, its diameter by x.
template <class Lumen>
Image<float> contrast_in(const Analysis& analysis, const Lumen& lumen_at) {
  Image<float> image(analysis.rows, analysis.columns);
  std::mt19937 random(7);
  std::normal_distribution<float> noise(0, noise_sd);
  for (int y = 0; y < analysis.rows; ++y)
    for (int x = 0; x < analysis.columns; ++x) {
      const double r = 0.5 * lumen_at(x), u = y - 50, chord = std::abs(u) < r ? 2 * std::sqrt(r * r - u * u) : 0;
      image(y, x) = static_cast<float>(kappa * chord) + noise(random);
    }
  return image;
}

LostContrast first_lost(const Analysis& reference, const Analysis& run, const VesselMatching& matching,
                        ImageView<const std::uint8_t> field = {}) {
  const ReferenceCalibre calibre = reference_calibre(reference);
  const std::vector<AlignedSegment> aligned = align_calibres(reference, calibre, run, matching, 1);
  return find_lost_contrast(reference, calibre, run, field, matching.registration, matching, aligned)[0];
}

/// A vein along y = 50 from x = 20 to 180: open, narrowing over 8 px to a lumen of `thread` from 60 to 140, open again.
struct Scene {
  double thread = thread_px;
  bool shoulders = true;  // else contrast thins out at full width, and nothing is measured there
  double last_ms = 4900;

  double lumen(double x) const {
    const double into = std::min((x - 60) / 8, (140 - x) / 8);
    return healthy_px + (thread - healthy_px) * std::clamp(into, 0.0, 1.0);
  }
  Analysis run() const {
    const auto piece = [this](int id, double x0, double x1) {
      return straight_segment(id, 50, x0, x1, [this, x0](double s) {
        const double d = lumen(x0 + s);
        return d < 5 ? 0.0 : shoulders ? d : healthy_px;
      });
    };
    Analysis analysis = straight_analysis({piece(1, 20, 65), piece(2, 135, 180)});
    std::erase_if(analysis.frame_times_ms, [&](double ms) { return ms > last_ms; });
    analysis.maximum_opacification = contrast_in(analysis, [this](int x) { return x >= 20 && x <= 180 ? lumen(x) : 0; });
    return analysis;
  }
};

LostContrast look(const Scene& scene) {
  const Analysis reference = straight_analysis({straight_segment(1, 50, 20, 180, [](double) { return healthy_px; })});
  const Analysis run = scene.run();
  return first_lost(reference, run, match_rows(reference, run));
}

TEST(LostContrast, ALumenTooThinToBeTracedIsSizedByItsContrast) {
  const LostContrast lost = look({});
  EXPECT_FALSE(lost.occluded);
  ASSERT_GT(lost.threads.size(), 50u);
  int inside = 0;
  for (const LogRatio& thread : lost.threads)
    if (thread.arc_mm > 60 * straight_mm_per_px && thread.arc_mm < 100 * straight_mm_per_px) {
      EXPECT_NEAR(thread.value, std::log(thread_px / healthy_px), 0.3) << thread.arc_mm;
      ++inside;
    }
  EXPECT_GE(inside, 38);
}

TEST(LostContrast, ContrastThatThinsOutAtFullWidthIsNoThread) {
  Scene scene;
  scene.shoulders = false;
  EXPECT_TRUE(look(scene).threads.empty());
}

TEST(LostContrast, WhatIsStillFillingAtTheRunsEndIsNoThread) {
  Scene scene;
  scene.last_ms = 600;
  EXPECT_TRUE(look(scene).threads.empty());
}

TEST(LostContrast, AVesselWithoutContrastBetweenFilledOnesIsOccludedAndBounded) {
  Scene scene;
  scene.thread = 0;
  const LostContrast lost = look(scene);
  EXPECT_TRUE(lost.occluded) << lost.note;
  EXPECT_NEAR(lost.from_mm, 48 * straight_mm_per_px, 2);
  EXPECT_NEAR(lost.to_mm, 112 * straight_mm_per_px, 2);
  EXPECT_GT(lost.bound, 0.02);
  EXPECT_LT(lost.bound, 0.35);
  scene.last_ms = 600;
  EXPECT_FALSE(look(scene).occluded) << "too short a run";
}

TEST(LostContrast, AShutInletBesideALinkThatIsAThread) {
  // Shut up to where a small branch parts it into an inlet and a link; in the link some contrast is left.
  constexpr double inlet_x = 40, link_x = 56;
  const auto pieces = [](double) { return healthy_px; };
  Analysis reference = straight_analysis({straight_segment(1, 50, 1, inlet_x, pieces), straight_segment(2, 50, inlet_x, link_x, pieces),
                                          straight_segment(3, 50, link_x, 180, pieces)});
  for (SegmentResult& segment : reference.segments) segment.role = "main";
  reference.branch_points = {{50, inlet_x, {0, 1}, false}, {50, link_x, {1, 2}, false}};
  Analysis run = straight_analysis({straight_segment(1, 50, link_x, 180, pieces)});
  run.maximum_opacification = contrast_in(run, [](int x) { return x >= link_x ? healthy_px : x >= inlet_x ? 0.4 * healthy_px : 0; });
  const LostContrast lost = first_lost(reference, run, match_rows(reference, run));
  EXPECT_TRUE(lost.occluded) << lost.note;
}

TEST(LostContrast, TheShortInletOfAWideVeinMayBeShut) {
  // What contrast is left at the branching is averaged into the inlet's first millimetres; the field shows little more of it.
  const auto inlet = [](bool main, double branching_x = 30, double stump_px = 4, int first_seen_x = 0) {
    SegmentResult in = straight_segment(1, 50, 1, branching_x, [](double) { return healthy_px; });
    if (main) in.role = "main";
    in.flow.times.arrival_ms = main ? 300 : 1500;
    Analysis reference = straight_analysis({in, straight_segment(2, 50, branching_x, 180, [](double) { return healthy_px; })});
    reference.segments[1].flow.times.arrival_ms = 900;
    reference.branch_points.push_back({50, branching_x, {0, 1}, false});
    Analysis run = straight_analysis({straight_segment(1, 50, branching_x, 180, [](double) { return healthy_px; })});
    run.maximum_opacification = contrast_in(run, [=](int x) { return x >= branching_x - stump_px ? healthy_px : 0; });
    VesselMatching matching = match_rows(reference, run);
    matching.points[0].back() = {};  // the branching's own
    Image<std::uint8_t> field(run.rows, run.columns);
    for (int y = 0; y < run.rows; ++y)
      for (int x = 0; x < run.columns; ++x) field(y, x) = x >= first_seen_x;
    return first_lost(reference, run, matching, field.view());
  };
  const LostContrast lost = inlet(true);
  EXPECT_TRUE(lost.occluded) << lost.note;
  EXPECT_LT(lost.to_mm - lost.from_mm, 5) << "shorter than what counts as lost elsewhere";
  EXPECT_FALSE(inlet(false).occluded) << "a side branch may not have been reached";
  // A longer one, of which the field shows 9 mm and a stump of 3.
  EXPECT_TRUE(inlet(true, 60, 12, 24).occluded) << "the stump is averaged over what is shut beside it";
  EXPECT_FALSE(inlet(true, 60, 24, 24).occluded) << "3 mm";
}

}  // namespace
