/// From one frame to a stenosis: kappa carried to narrow parts, reasons for leaving a point out, pooling over frames, the summary.

#include "engine/diameter_profile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "reference/lumen_fit.h"

namespace cinelumen {
namespace {

Centreline straight(double y0, double x0, double y1, double x1, double radius) {
  Centreline centreline;
  const double length = std::hypot(y1 - y0, x1 - x0);
  const int count = static_cast<int>(length) + 1;
  for (int i = 0; i < count; ++i) {
    CentrelinePoint p;
    p.y = static_cast<float>(y0 + (y1 - y0) * i / length);
    p.x = static_cast<float>(x0 + (x1 - x0) * i / length);
    p.tangent_y = static_cast<float>((y1 - y0) / length);
    p.tangent_x = static_cast<float>((x1 - x0) / length);
    p.arc_length_px = static_cast<float>(i);
    p.radius_px = static_cast<float>(radius);
    centreline.points.push_back(p);
  }
  return centreline;
}

Image<float> blank(int height, int width) {
  Image<float> image(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) image(y, x) = 0.02f;
  return image;
}

void draw(Image<float>& image, const Centreline& centreline, double radius, double kappa) {
  const CentrelinePoint& p = centreline.points.front();
  reference::TubeRenderer(radius, kappa, {}).draw(image.view(), p.y, p.x, p.tangent_x, -p.tangent_y);
}

std::array<std::array<float, 5>, 5> autocorrelation_of(double edge) {
  const double one[3] = {1, 2 * edge / (1 + 2 * edge * edge), edge * edge / (1 + 2 * edge * edge)};
  std::array<std::array<float, 5>, 5> rho{};
  for (int y = 0; y < 5; ++y)
    for (int x = 0; x < 5; ++x) rho[y][x] = static_cast<float>(one[std::abs(y - 2)] * one[std::abs(x - 2)]);
  return rho;
}

double share(const std::vector<LumenPoint>& points, Exclusion reason) {
  double n = 0;
  for (const LumenPoint& p : points) n += p.reason == reason;
  return n / static_cast<double>(points.size());
}

constexpr double mm_per_px = 0.154 / 1.2;

// Four tubes of one kappa, noise with a known correlation: bias and error bars of all points of a frame.
TEST(MeasureFrame, BiasAndCoverageUnderCorrelatedNoise) {
  const double edge = 0.3;
  const double diameters_mm[] = {1, 1.5, 2.5, 4};
  LumenOptions options;
  options.autocorrelation = autocorrelation_of(edge);
  options.psf_sd_px = 0.03f;
  double bias[4] = {}, inside = 0, n = 0, counts[4] = {};
  for (int trial = 0; trial < 4; ++trial) {
    Image<float> image = blank(260, 300);
    std::vector<Centreline> centrelines;
    for (int k = 0; k < 4; ++k) {
      const double radius = diameters_mm[k] / 2 / mm_per_px;
      centrelines.push_back(straight(30 + 0.3 * trial, 30 + 70 * k, 230, 50.3 + 70 * k, 0.8 * radius));
      draw(image, centrelines.back(), radius, 0.15 * mm_per_px);
    }
    reference::add_noise(image.view(), 0.01, static_cast<unsigned>(trial + 1), edge);
    const auto lumen = measure_frame(Stream::cpu(), image.view(), {}, centrelines, options);
    ASSERT_EQ(lumen.size(), 4u);
    for (int k = 0; k < 4; ++k) {
      ASSERT_EQ(lumen[k].size(), centrelines[k].points.size());
      EXPECT_LT(1 - share(lumen[k], Exclusion::none), 0.05) << k;
      for (const LumenPoint& p : lumen[k])
        if (p.used) {
          const double error = p.diameter_px * mm_per_px - diameters_mm[k];
          bias[k] += error;
          ++counts[k];
          inside += std::abs(error) < 1.96 * p.sd_px * mm_per_px;
          ++n;
        }
    }
  }
  for (int k = 0; k < 4; ++k) EXPECT_LT(std::abs(bias[k] / counts[k]), 0.02) << diameters_mm[k];
  EXPECT_GT(inside / n, 0.91);
  EXPECT_LT(inside / n, 0.985);
}

// One segment, wide above row 100, narrow below: alone, the narrow half has only its own kappa.
TEST(MeasureFrame, NarrowPartsTakeKappaFromTheWideOnes) {
  Image<float> image = blank(200, 100), narrow = blank(200, 100);
  const Centreline whole = straight(10, 50.2, 190, 50.2, 4), part = straight(125, 50.2, 190, 50.2, 2.2);
  draw(image, whole, 9, 0.02);
  draw(narrow, whole, 2.2, 0.02);
  for (int y = 100; y < 200; ++y)
    for (int x = 0; x < 100; ++x) image(y, x) = narrow(y, x);
  reference::add_noise(image.view(), 0.01, 5);
  LumenOptions options;
  options.psf_sd_px = 0.03f;
  const auto together = measure_frame(Stream::cpu(), image.view(), {}, {whole}, options);
  const auto alone = measure_frame(Stream::cpu(), image.view(), {}, {part}, options);
  const auto rms = [](const std::vector<LumenPoint>& points) {
    double squares = 0, n = 0;
    for (const LumenPoint& p : points)
      if (p.y_px > 125 && std::isfinite(p.diameter_px)) squares += std::pow(std::min(std::abs(p.diameter_px - 4.4), 4.4), 2), ++n;
    return std::sqrt(squares / n);
  };
  EXPECT_LT(rms(together[0]), 0.75 * rms(alone[0]));
  double inside = 0, n = 0;
  for (const LumenPoint& p : together[0])
    if (p.y_px > 110 && p.used) inside += std::abs(p.diameter_px - 4.4) < 1.96 * p.sd_px, ++n;
  EXPECT_GT(n, 70);
  EXPECT_GT(inside / n, 0.88);
}

TEST(MeasureFrame, ReasonsForLeavingPointsOut) {
  Image<float> image = blank(220, 220);
  const std::vector<Centreline> lines = {
      straight(10, 40, 210, 40, 5),                                 // filled
      straight(10, 90, 210, 90, 5),                                 // nothing there
      straight(110, 120, 110, 210, 5),                              // crosses the next one
      straight(20, 165, 200, 165, 5),  straight(10, 3, 210, 3, 5),  // along the border
  };
  for (const int k : {0, 2, 3, 4}) draw(image, lines[k], 5, 0.03);
  reference::add_noise(image.view(), 0.01, 9);
  const auto lumen = measure_frame(Stream::cpu(), image.view(), {}, lines, {});
  EXPECT_GT(share(lumen[0], Exclusion::none), 0.9);
  EXPECT_EQ(share(lumen[1], Exclusion::none), 0);
  EXPECT_GT(share(lumen[1], Exclusion::unfilled), 0.9);
  EXPECT_GT(share(lumen[4], Exclusion::edge), 0.99);
  for (const LumenPoint& p : lumen[2]) {
    if (std::abs(p.x_px - 165) < 5) {
      EXPECT_EQ(p.reason, Exclusion::overlap) << p.x_px;
    }
  }
  EXPECT_GT(share(lumen[3], Exclusion::none), 0.6);
  for (const auto& segment : lumen)
    for (const LumenPoint& p : segment) EXPECT_EQ(p.used, p.reason == Exclusion::none);
  Image<std::uint8_t> valid(220, 220);
  for (int y = 0; y < 220; ++y)
    for (int x = 0; x < 220; ++x) valid(y, x) = y < 110 ? 1 : 0;
  const auto half = measure_frame(Stream::cpu(), image.view(), valid.view(), {lines[0]}, {});
  EXPECT_EQ(half[0].back().reason, Exclusion::edge);
  EXPECT_EQ(half[0][20].reason, Exclusion::none);
}

// Two veins side by side, each in the other's window: neither is lost, neither is biased.
TEST(MeasureFrame, NeighboursAreKeptOutOfTheWindow) {
  Image<float> image = blank(200, 120);
  const std::vector<Centreline> pair = {straight(10, 46, 190, 46, 5), straight(10, 64, 190, 64, 5)};
  for (const Centreline& c : pair) draw(image, c, 5, 0.03);
  reference::add_noise(image.view(), 0.01, 4);
  const auto lumen = measure_frame(Stream::cpu(), image.view(), {}, pair, {});
  for (const auto& segment : lumen) {
    EXPECT_GT(share(segment, Exclusion::none), 0.9);
    double error = 0, n = 0;
    for (const LumenPoint& p : segment)
      if (p.used) error += p.diameter_px - 10, ++n;
    EXPECT_LT(std::abs(error / n), 0.15);
  }
}

TEST(MeasureFrame, EmptyAndWrongInput) {
  const Image<float> image = blank(30, 30);
  EXPECT_TRUE(measure_frame(Stream::cpu(), image.view(), {}, {}, {}).empty());
  const auto one = measure_frame(Stream::cpu(), image.view(), {}, {Centreline{}}, {});
  ASSERT_EQ(one.size(), 1u);
  EXPECT_TRUE(one[0].empty());
  const Image<std::uint8_t> valid(20, 30);
  EXPECT_THROW(measure_frame(Stream::cpu(), image.view(), valid.view(), {}, {}), std::invalid_argument);
  LumenOptions options;
  options.noise_sd = 0;
  EXPECT_THROW(measure_frame(Stream::cpu(), image.view(), {}, {}, options), std::invalid_argument);
}

TEST(EstimatePsf, FindsItFromWideVessels) {
  Image<float> image = blank(200, 160);
  const std::vector<Centreline> lines = {straight(10, 40, 190, 50, 7), straight(190, 100, 10, 120, 9)};
  reference::TubeRenderer wide(8, 0.03, {1.0, 0, 2});
  for (const Centreline& c : lines) wide.draw(image.view(), c.points[0].y, c.points[0].x, c.points[0].tangent_x, -c.points[0].tangent_y);
  reference::add_noise(image.view(), 0.01, 3);
  const auto psf = estimate_psf(Stream::cpu(), image.view(), {}, lines, {});
  ASSERT_TRUE(psf.has_value());
  EXPECT_NEAR(psf->psf_px, 1.0, 3 * psf->sd_px);
  EXPECT_LT(psf->sd_px, 0.06);
  EXPECT_GT(psf->profiles, 100);
  EXPECT_FALSE(estimate_psf(Stream::cpu(), blank(200, 160).view(), {}, lines, {}).has_value()) << "no vessels, no point spread";
}

std::vector<std::vector<LumenPoint>> frames_of(const Centreline& centreline, int frames, double diameter, double sd, double between,
                                               unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<std::vector<LumenPoint>> result(frames);
  for (auto& frame : result)
    for (int i = 0; i < static_cast<int>(centreline.points.size()); ++i) {
      LumenPoint p;
      p.point = i;
      p.diameter_px = static_cast<float>(diameter + std::hypot(sd, between) * normal(random));
      p.sd_px = static_cast<float>(sd);
      p.used = true;
      p.reason = Exclusion::none;
      frame.push_back(p);
    }
  return result;
}

TEST(PoolProfile, SdFallsWithFramesAndSeesScatter) {
  const Centreline line = straight(0, 0, 0, 299, 5);
  for (const double between : {0.0, 0.4}) {
    const DiameterProfile profile = pool_profile(line, frames_of(line, 12, 10, 0.2, between, 3));
    double error = 0, reported = 0;
    for (const auto& p : profile.points) {
      error += std::pow(p.diameter_px - 10, 2);
      reported += p.sd_px;
      EXPECT_EQ(p.frames, 12);
    }
    const double n = static_cast<double>(profile.points.size());
    EXPECT_NEAR(reported / n / std::sqrt(error / n), 1, 0.2) << between;
  }
}

TEST(PoolProfile, WhatFramesShareDoesNotAverageOut) {
  const Centreline line = straight(0, 0, 0, 99, 5);
  auto frames = frames_of(line, 25, 10, 0.2, 0, 3);
  for (auto& frame : frames)
    for (LumenPoint& p : frame) {
      p.common_sd_px = 0.15f;
      p.sd_px = std::hypot(0.2f, 0.15f);
    }
  for (const auto& p : pool_profile(line, frames).points) EXPECT_NEAR(p.sd_px, std::hypot(0.2 / 5, 0.15), 0.02);
}

TEST(MeasureFrame, TheMasksNoiseIsShared) {
  Image<float> image = blank(120, 80);
  const Centreline line = straight(10, 40.3, 110, 40.3, 8);
  draw(image, line, 8, 0.02);
  reference::add_noise(image.view(), 0.01, 5);
  LumenOptions options;
  options.psf_sd_px = 1e-4f;
  options.common_noise_share = 0.25f;
  const auto lumen = measure_frame(Stream::cpu(), image.view(), {}, {line}, options);
  EXPECT_GT(share(lumen[0], Exclusion::none), 0.8);
  for (const LumenPoint& p : lumen[0])
    if (p.used) {
      EXPECT_NEAR(p.common_sd_px, 0.5 * p.sd_px, 0.02 * p.sd_px);
    }
  options.common_noise_share = 1.5f;
  EXPECT_THROW(measure_frame(Stream::cpu(), image.view(), {}, {line}, options), std::invalid_argument);
}

TEST(PoolProfile, OneBadFrameDoesNotMoveIt) {
  const Centreline line = straight(0, 0, 0, 50, 5);
  auto frames = frames_of(line, 9, 10, 0.2, 0, 5);
  for (LumenPoint& p : frames[4]) p.diameter_px = 16;
  for (const auto& p : pool_profile(line, frames).points) EXPECT_NEAR(p.diameter_px, 10, 0.5);
  for (auto& frame : frames)
    for (LumenPoint& p : frame)
      if (p.point == 7) p.used = false;
  EXPECT_EQ(pool_profile(line, frames).points[7].sd_px, 0) << "never used: not measured";
  EXPECT_EQ(pool_profile(line, {}).points.size(), line.points.size());
}

DiameterProfile profile_of(int count, const std::function<double(double)>& diameter, double noise, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  DiameterProfile profile;
  for (int i = 0; i < count; ++i) {
    DiameterProfile::Point p;
    p.arc_length_px = static_cast<float>(i);
    p.y_px = static_cast<float>(100 + i);
    p.x_px = 7;
    p.diameter_px = static_cast<float>(diameter(i) + noise * normal(random));
    p.sd_px = static_cast<float>(noise);
    profile.points.push_back(p);
  }
  return profile;
}

TEST(Summarize, StenosisInATaperingVessel) {
  const auto shape = [](double s) { return (14 - 0.02 * s) * (1 - 0.6 * std::exp(-0.5 * std::pow((s - 90) / 5, 2))); };
  const SegmentDiameter got = summarize(profile_of(200, shape, 0.2, 2));
  ASSERT_TRUE(got.percent_stenosis.has_value());
  EXPECT_NEAR(*got.percent_stenosis, 60, 4);
  EXPECT_NEAR(*got.reference, 14 - 0.02 * 90, 0.5);
  EXPECT_NEAR(*got.minimum, 0.4 * (14 - 0.02 * 90), 0.5);
  EXPECT_NEAR(got.minimum_at_px[0], 190, 4);
  EXPECT_EQ(got.minimum_at_px[1], 7);
  EXPECT_GT(*got.sd, 0);
  EXPECT_LT(*got.sd, 0.1);
}

// Noise with a correlation of half from point to point, as windows of two rows give.
DiameterProfile overlapping(int count, const std::function<double(double)>& diameter, double noise, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  DiameterProfile profile = profile_of(count, diameter, 1e-6, seed);
  double before = normal(random);
  for (DiameterProfile::Point& p : profile.points) {
    const double now = normal(random);
    p.diameter_px += static_cast<float>(noise * (before + now) / std::sqrt(2.0));
    p.sd_px = static_cast<float>(noise);
    before = now;
  }
  return profile;
}

TEST(Summarize, PercentStenosisIsNotBiasedByNoise) {
  const auto gaussian = [](double s) { return std::exp(-0.5 * std::pow(s / 8, 2)); };
  const auto cosine = [](double s) { return std::abs(s) < 20 ? 0.5 + 0.5 * std::cos(s * 3.14159265 / 20) : 0; };
  const auto web = [](double s) { return std::abs(s) < 3.5 ? 1.0 : 0; };
  struct Shape {
    const char* name;
    std::function<double(double)> depth;
  };
  constexpr int seeds = 30;
  for (const double noise : {0.1, 0.25})  // px, of a vessel of 14
    for (const Shape& shape : {Shape{"gaussian", gaussian}, Shape{"cosine", cosine}, Shape{"web", web}})
      for (const double percent : {0.0, 30.0, 50.0, 70.0}) {
        double sum = 0, worst = 0;
        for (int seed = 0; seed < seeds; ++seed) {
          const SegmentDiameter got = summarize(overlapping(
              260, [&](double s) { return (14 - 0.01 * s) * (1 - percent / 100 * shape.depth(s - 120)); }, noise, 600 + seed));
          ASSERT_TRUE(got.percent_stenosis || percent == 0) << shape.name << " " << percent << " %, noise " << noise;
          const double error = got.percent_stenosis.value_or(0) - percent;  // the least of a taper is its end: no stenosis
          sum += error;
          worst = std::max(worst, std::abs(error));
        }
        std::printf("%-8s %2.0f %%, noise %.2f px: mean error %+.2f points, worst %.2f\n", shape.name, percent, noise, sum / seeds, worst);
        EXPECT_LT(std::abs(sum / seeds), 1) << shape.name << " " << percent << " %, noise " << noise;
        EXPECT_LT(worst, 5) << shape.name << " " << percent << " %, noise " << noise;
      }
}

TEST(Summarize, HealthyVesselHasLittle) {
  const SegmentDiameter got = summarize(profile_of(
      200, [](double s) { return 12 - 0.01 * s; }, 0.2, 4));
  if (got.percent_stenosis) {
    EXPECT_LT(*got.percent_stenosis, 8);
  }
  EXPECT_NEAR(*got.median, 11, 0.1);
}

TEST(Summarize, TooShortOrOneSidedHasNoStenosis) {
  EXPECT_FALSE(summarize(profile_of(
                             12, [](double) { return 10.0; }, 0.1, 1))
                   .percent_stenosis.has_value());
  EXPECT_TRUE(summarize(profile_of(
                            12, [](double) { return 10.0; }, 0.1, 1))
                  .median.has_value());
  const auto closing = [](double s) { return 12 - 0.1 * s; };
  EXPECT_FALSE(summarize(profile_of(100, closing, 0.05, 1)).percent_stenosis.has_value()) << "the minimum is the end: no far side";
  EXPECT_FALSE(summarize({}).median.has_value());
}

TEST(ExclusionNames, AreThoseOfTheTable) {
  EXPECT_STREQ(to_string(Exclusion::none), "");
  EXPECT_STREQ(to_string(Exclusion::unfilled), "unfilled");
  EXPECT_STREQ(to_string(Exclusion::low_contrast), "low_contrast");
  EXPECT_STREQ(to_string(Exclusion::no_fit), "no_fit");
  EXPECT_STREQ(to_string(Exclusion::display_grey), "display_grey");
  EXPECT_STREQ(to_string(Exclusion::key_frame_only), "key_frame_only");
}

}  // namespace
}  // namespace cinelumen
