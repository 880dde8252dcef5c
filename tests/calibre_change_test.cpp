#include "engine/calibre_change.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>

namespace {

using namespace cinelumen;

/// A vessel of 40 mm, points 0.26 mm apart, its calibre reduced by `percent` over `length` about 20 mm, the shoulders a cosine.
std::vector<LogRatio> vessel(double percent, double length, double sd, std::uint64_t seed, double factor = 1) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  std::vector<LogRatio> ratios;
  double error = 0;
  for (double arc = 0; arc < 40; arc += 0.26) {
    const double u = std::abs(arc - 20) / (0.5 * length);
    const double depth = u < 1 ? 0.005 * percent * (1 + std::cos(std::numbers::pi * u)) : 0;
    // Neighbours share pixels.
    error = 0.5 * error + std::sqrt(0.75) * sd * normal(engine);
    ratios.push_back({arc, std::log(factor * (1 - depth)) + error, sd});
  }
  return ratios;
}

TEST(CalibreChange, NothingToLookAtIsNotKnown) {
  EXPECT_FALSE(estimate_change({}, 0.02).known);
  EXPECT_FALSE(estimate_change({{0, 0, 0.05}}, 0.02).known);
}

TEST(CalibreChange, AnUnchangedVesselIsNotNarrow) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const CalibreChange change = estimate_change(vessel(0, 10, 0.04, seed), 0.02);
    ASSERT_TRUE(change.known);
    EXPECT_LT(change.largest.probability_25, 0.01) << seed;
    EXPECT_NEAR(change.mean_ratio, 1, 3 * change.mean_ratio_sd) << seed;
  }
}

TEST(CalibreChange, FindsDepthPlaceAndLength) {
  for (const double percent : {35.0, 60.0, 80.0})
    for (const double length : {15.0, 30.0}) {
      const CalibreChange change = estimate_change(vessel(percent, length, 0.04, 7), 0.01);
      ASSERT_EQ(change.narrowings.size(), 1u) << percent << " " << length;
      const Narrowing& n = change.narrowings.front();
      EXPECT_NEAR(n.percent, percent, 4);
      EXPECT_LT(n.ci95[0] - 1, percent);
      EXPECT_GT(n.ci95[1] + 1, percent);
      EXPECT_NEAR(n.at_mm, 20, 2.5);
      EXPECT_NEAR(n.half_depth_mm(), 0.5 * length, 2);
      EXPECT_GT(n.probability_25, 0.95);
      EXPECT_EQ(n.probability_50 > 0.5, percent > 50);
    }
}

TEST(CalibreChange, AShortOneIsNotSmoothedAway) {
  const CalibreChange change = estimate_change(vessel(60, 4, 0.03, 3), 0.01);
  ASSERT_GE(change.narrowings.size(), 1u);
  EXPECT_NEAR(change.narrowings.front().percent, 60, 8);
  EXPECT_LT(change.narrowings.front().half_depth_mm(), 4);
}

TEST(CalibreChange, ANotchIsFoundWhereItsFloorWasNotMeasured) {
  // 60 % over 2.4 mm; frames contradict one another at its steepest, and its floor is hidden.
  std::vector<LogRatio> ratios = vessel(60, 2.4, 0.03, 3);
  std::erase_if(ratios, [](const LogRatio& r) { return std::abs(r.arc_mm - 20) < 0.3; });
  const CalibreChange change = estimate_change(ratios, 0.01);
  ASSERT_EQ(change.narrowings.size(), 1u);
  const Narrowing& n = change.narrowings.front();
  EXPECT_GT(n.percent, 35) << "shoulders of 47 % were measured";
  EXPECT_LT(n.percent, 65);
  EXPECT_NEAR(n.at_mm, 20, 0.6);
  EXPECT_GT(n.probability_25, 0.95);
  EXPECT_LT(n.half_depth_mm(), 3);
  EXPECT_GT(change.probability, 0.99);
}

TEST(CalibreChange, WhatWasAveragedShowsNoNotch) {
  // A thread of a third of the calibre, known by contrast over 3 mm at a time; at one place less of it by chance.
  const auto thread = [](double over_mm) {
    std::vector<LogRatio> ratios;
    for (double arc = 0; arc < 40; arc += 0.26) ratios.push_back({arc, std::log(std::abs(arc - 20) < 0.6 ? 0.12 : 0.33), 0.2, over_mm});
    return estimate_change(ratios, 0.01).largest.percent;
  };
  EXPECT_GT(thread(0), 80);
  EXPECT_LT(thread(3), 76);
}

TEST(CalibreChange, TwoNarrowingsAreTwo) {
  std::vector<LogRatio> both = vessel(60, 10, 0.03, 5);
  for (LogRatio& r : both)
    if (const double u = std::abs(r.arc_mm - 35) / 2; u < 1) r.value += std::log(1 - 0.25 * (1 + std::cos(std::numbers::pi * u)));
  const CalibreChange change = estimate_change(both, 0.01);
  ASSERT_EQ(change.narrowings.size(), 2u);
  EXPECT_NEAR(change.narrowings[0].at_mm, 20, 2);
  EXPECT_NEAR(change.narrowings[1].at_mm, 35, 1);
  EXPECT_NEAR(change.narrowings[1].percent, 50, 8);
}

TEST(CalibreChange, ACommonFactorWidensTheInterval) {
  const auto ratios = vessel(30, 30, 0.03, 11);
  const CalibreChange sure = estimate_change(ratios, 0.005), unsure = estimate_change(ratios, 0.08);
  EXPECT_GT(unsure.largest.ci95[1] - unsure.largest.ci95[0], 1.5 * (sure.largest.ci95[1] - sure.largest.ci95[0]));
  EXPECT_GT(unsure.mean_ratio_sd, 0.05);
}

// P(> 25 %) of 23 to 27 % must be neither all 0 nor all 1, and right on average.
TEST(CalibreChange, ProbabilitiesAreCalibratedAtTheBorder) {
  double sum = 0, truth = 0;
  int count = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const double percent = 21 + 0.2 * static_cast<double>(seed);
    const CalibreChange change = estimate_change(vessel(percent, 25, 0.05, seed), 0.02);
    sum += change.largest.probability_25;
    truth += percent > 25;
    ++count;
  }
  EXPECT_NEAR(sum / count, truth / count, 0.15);
}

}  // namespace
