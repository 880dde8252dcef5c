/// Curves through points: what is fitted exactly, what is bridged, what is taken for an outlier.

#include "engine/smoothing_spline.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <stdexcept>

namespace cinelumen {
namespace {

using Sample = SmoothingSpline::Sample;

// A wave, sampled every px of its parameter.
Sample wave(double t) { return {t, 20 + 6 * std::sin(t / 15), 5 + t}; }

std::vector<Sample> waves(int count) {
  std::vector<Sample> samples;
  for (int i = 0; i < count; ++i) samples.push_back(wave(i));
  return samples;
}

double distance(const SmoothingSpline::Position& a, const Sample& b) { return std::hypot(a.y - b.y, a.x - b.x); }

TEST(SmoothingSpline, AStraightLineIsExactWhateverThePenalty) {
  std::vector<Sample> samples;
  for (int i = 0; i <= 40; ++i) samples.push_back({static_cast<double>(i), 3 + 0.5 * i, 7 - 0.25 * i});
  for (const double penalty : {0.0, 0.05, 1000.0}) {
    const SmoothingSpline spline(samples, 40, 5, penalty, 0.75);
    EXPECT_DOUBLE_EQ(spline.length(), 40);
    for (double t = 0; t <= 40; t += 0.7) {
      const SmoothingSpline::Position here = spline.at(t);
      EXPECT_NEAR(here.y, 3 + 0.5 * t, 1e-5);
      EXPECT_NEAR(here.x, 7 - 0.25 * t, 1e-5);
      EXPECT_NEAR(here.dy, 0.5, 1e-5);
      EXPECT_NEAR(here.dx, -0.25, 1e-5);
    }
  }
}

TEST(SmoothingSpline, DerivativesAreThoseOfThePosition) {
  const SmoothingSpline spline(waves(60), 59, 5, 0.05, 0);
  for (double t = 0.5; t < 58.5; t += 1.3) {
    const double h = 1e-4;
    const SmoothingSpline::Position a = spline.at(t - h), b = spline.at(t + h), here = spline.at(t);
    EXPECT_NEAR(here.dy, (b.y - a.y) / (2 * h), 1e-6);
    EXPECT_NEAR(here.dx, (b.x - a.x) / (2 * h), 1e-6);
  }
}

TEST(SmoothingSpline, NoiseIsAveragedAndBendsAreKept) {
  std::mt19937 random(7);
  std::normal_distribution<double> noise(0, 0.3);
  std::vector<Sample> samples = waves(200);
  for (Sample& sample : samples) {
    sample.y += noise(random);
    sample.x += noise(random);
  }
  const SmoothingSpline spline(samples, 199, 5, 0.05, 0);
  double sum = 0;
  for (int i = 0; i < 200; ++i) sum += std::pow(spline.at(i).y - wave(i).y, 2);
  // About one parameter per 5 samples is free: 0.3 / sqrt(5) = 0.13.
  EXPECT_LT(std::sqrt(sum / 200), 0.2);
  const SmoothingSpline stiff(samples, 199, 5, 1e5, 0);
  double flat = 0;
  for (int i = 0; i < 200; ++i) flat = std::max(flat, std::abs(stiff.at(i).y - wave(i).y));
  EXPECT_GT(flat, 2) << "the penalty does nothing";
}

TEST(SmoothingSpline, SamplesOfWeightZeroDoNotCountAndGapsAreBridged) {
  std::vector<Sample> samples = waves(80);
  for (int i = 30; i < 42; ++i) {
    samples[i].y += 50;
    samples[i].weight = 0;
  }
  const SmoothingSpline spline(samples, 79, 5, 0.05, 0);
  for (int i = 0; i < 80; ++i) EXPECT_LT(distance(spline.at(i), wave(i)), i >= 28 && i < 44 ? 0.6 : 0.1) << i;
}

TEST(SmoothingSpline, OutliersLoseWeightAnchorsDoNot) {
  std::vector<Sample> samples = waves(80);
  samples[40].y += 5;
  EXPECT_LT(distance(SmoothingSpline(samples, 79, 5, 0.05, 0.75).at(40), wave(40)), 0.15);
  EXPECT_GT(distance(SmoothingSpline(samples, 79, 5, 0.05, 0).at(40), wave(40)), 0.5);
  samples[40].anchor = true;
  EXPECT_GT(distance(SmoothingSpline(samples, 79, 5, 0.05, 0.75).at(40), wave(40)), 0.5);
}

TEST(SmoothingSpline, ParametersOutsideAreTheEnds) {
  const SmoothingSpline spline(waves(30), 29, 5, 0.05, 0);
  EXPECT_EQ(spline.at(-5).y, spline.at(0).y);
  EXPECT_EQ(spline.at(100).x, spline.at(29).x);
}

TEST(SmoothingSpline, TwoSamplesMakeALine) {
  const SmoothingSpline spline({{0, 1, 2}, {10, 5, 6}}, 10, 50, 0.05, 0.75);
  EXPECT_NEAR(spline.at(5).y, 3, 0.01);
  EXPECT_NEAR(spline.at(5).x, 4, 0.01);
}

TEST(SmoothingSpline, RefusesNoLength) {
  EXPECT_THROW(SmoothingSpline(waves(5), 0, 5, 0.05, 0), std::invalid_argument);
  EXPECT_THROW(SmoothingSpline(waves(5), 4, 0, 0.05, 0), std::invalid_argument);
}

}  // namespace
}  // namespace cinelumen
