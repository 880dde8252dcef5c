/// Devices and the detector's last steps: drawn as large and as dark as the truth says.

#include "engine/phantom/devices.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <set>

namespace cinelumen {
namespace {

using namespace phantom;
using std::numbers::pi;

PhantomOptions noiseless(const std::string& scenario, int size, int frames) {
  PhantomOptions options;
  options.scenario = scenario;
  options.rows = options.columns = size;
  options.frames = frames;
  options.noise_log_sd = 0;
  return options;
}

TEST(PhantomDevices, PartsAreDrawnWithTheirSection) {
  ConeBeam beam;
  beam.centre_y_px = beam.centre_x_px = 63.5;
  for (const double inner : {0.0, 1.1}) {
    Image<float> attenuation(128, 128);
    for (int y = 0; y < 128; ++y) std::fill(attenuation.row(y), attenuation.row(y) + 128, 0.0f);
    DevicePart part{{}, 1.67, inner, 1e-3};
    for (int i = 0; i <= 80; ++i) part.path.push_back({-6 + 0.15 * i, 1.3, 0});
    draw(part, beam, 0, attenuation);
    double across = 0, all = 0;
    for (int y = 0; y < 128; ++y) {
      across += static_cast<double>(attenuation(y, 64));
      for (int x = 0; x < 128; ++x) all += static_cast<double>(attenuation(y, x));
    }
    const double area = pi / 4 * (1.67 * 1.67 - inner * inner), mm = beam.mm_per_px();
    EXPECT_NEAR(across * mm / (1e-3 * area), 1, 0.01) << inner;
    EXPECT_NEAR(all * mm * mm / (1e-3 * area * 12), 1, 0.01) << "flat ends " << inner;
  }
}

TEST(PhantomDevices, LieInTheBackgroundWhereTheTruthSays) {
  const PhantomOptions options = noiseless("devices", 320, 1);
  const PhantomTruth truth = phantom_truth(options);
  const Image<float> picture = expected_counts(options, 0), bare = expected_counts(noiseless("foot", 320, 1), 0);
  const double foot_air = phantom_truth(noiseless("foot", 320, 1)).air_count;
  const auto darker = [&](const std::array<double, 2>& at) {
    const int y = static_cast<int>(std::lround(at[0])), x = static_cast<int>(std::lround(at[1]));
    return std::log(static_cast<double>(bare(y, x)) / foot_air) - std::log(static_cast<double>(picture(y, x)) / truth.air_count);
  };
  std::set<std::string> kinds;
  for (const PhantomDevice& device : truth.devices) {
    kinds.insert(device.kind);
    if (device.kind == "balloon") {
      ASSERT_EQ(device.markers_px.size(), 2u);
      EXPECT_GT(darker(device.markers_px[0]), 0.5);
      EXPECT_GT(darker(device.markers_px[1]), 0.5);
      double along = 0;
      for (std::size_t i = 1; i < device.centreline_px.size(); ++i)
        along += std::hypot(device.centreline_px[i][0] - device.centreline_px[i - 1][0],
                            device.centreline_px[i][1] - device.centreline_px[i - 1][1]);
      EXPECT_LE(along * truth.mm_per_px, 40 * 1.03);
      EXPECT_GT(along * truth.mm_per_px, 30) << "foreshortened, but seen";
    }
    if (device.kind == "ruler") {
      ASSERT_EQ(device.markers_px.size(), 5u);
      for (std::size_t i = 1; i < 5; ++i) EXPECT_NEAR((device.markers_px[i][0] - device.markers_px[i - 1][0]) * truth.mm_per_px, 10, 1e-6);
    }
    if (device.kind == "guide wire") {
      EXPECT_GT(darker(device.centreline_px[device.centreline_px.size() / 2]), 0.1);
    }
  }
  EXPECT_EQ(kinds, (std::set<std::string>{"guide wire", "balloon", "stent-graft", "catheter 5F", "introducer sheath 5F", "ruler"}));
}

TEST(PhantomDevices, ShutterStaysWhereItIsAndHidesVessels) {
  PhantomOptions options = noiseless("devices", 192, 12);
  options.motion_px = 3;
  const PhantomTruth truth = phantom_truth(options);
  const auto& [y0, x0, y1, x1] = truth.open_field_px;
  EXPECT_NEAR(y0, 0.035 * 192, 1e-9);
  EXPECT_NEAR(x1, 191 - 0.035 * 192, 1e-9);
  for (const int f : {0, 11}) {
    const Image<float> picture = expected_counts(options, f);
    EXPECT_LT(picture(2, 96), 0.03 * truth.air_count);
    EXPECT_LT(picture(96, 189), 0.03 * truth.air_count);
    EXPECT_GT(picture(15, 180), 0.3 * truth.air_count);
  }
  for (const PhantomSegment& segment : truth.segments)
    for (const PhantomPoint& p : segment.points) ASSERT_TRUE(p.y_px >= y0 && p.x_px >= x0 && p.y_px <= y1 && p.x_px <= x1);
}

TEST(PhantomDetector, GlareTakesItsLightFromThePicture) {
  PhantomOptions options = noiseless("foot", 128, 1);
  const Image<float> clear = expected_counts(options, 0);
  options.glare_fraction = 0.1;
  const Image<float> veiled = expected_counts(options, 0);
  double before = 0, after = 0;
  float darkest_before = 1e9f, darkest_after = 1e9f;
  for (int y = 0; y < 128; ++y)
    for (int x = 0; x < 128; ++x) {
      before += static_cast<double>(clear(y, x));
      after += static_cast<double>(veiled(y, x));
      darkest_before = std::min(darkest_before, clear(y, x));
      darkest_after = std::min(darkest_after, veiled(y, x));
    }
  EXPECT_NEAR(after / before, 1, 0.01);
  EXPECT_GT(darkest_after, 1.1f * darkest_before);
}

TEST(PhantomDetector, LagIsTheFramesBefore) {
  PhantomOptions options = noiseless("tubes", 96, 14);
  std::vector<Image<float>> clear;
  for (int f = 0; f < 14; ++f) clear.push_back(expected_counts(options, f));
  options.lag_fraction = 0.3;
  options.bits_stored = 16;
  const PhantomRun run = make_phantom(options);
  const double gain = run.truth.air_count / phantom_truth(noiseless("tubes", 96, 1)).air_count;
  Image<float> lagged;
  double worst = 0;
  for (std::size_t f = 0; f < 14; ++f) {
    Image<float> expected = expected_counts(options, static_cast<int>(f)), next(96, 96);
    for (int y = 0; y < 96; ++y)
      for (int x = 0; x < 96; ++x) {
        next(y, x) = f == 0 ? clear[0](y, x) : 0.7f * clear[f](y, x) + 0.3f * lagged(y, x);
        worst = std::max(worst, std::abs(gain * static_cast<double>(next(y, x)) / static_cast<double>(expected(y, x)) - 1));
        ASSERT_NEAR(run.frames[f](y, x), expected(y, x), 0.51);
      }
    lagged = std::move(next);
  }
  EXPECT_LT(worst, 1e-5);
}

TEST(PhantomDetector, LagAveragesNoise) {
  PhantomOptions options = noiseless("tubes", 96, 24);
  options.contrast_free_frames = 24;
  options.noise_log_sd = 0.03;
  options.electronic_sd = 0;
  options.bits_stored = 16;
  options.motion_px = 0;
  const auto variance = [&] {
    const PhantomRun run = make_phantom(options);
    const Image<float> mean = expected_counts(options, 0);
    double sum = 0, count = 0;
    for (std::size_t f = 10; f < 24; ++f)
      for (int y = 0; y < 96; ++y)
        for (int x = 0; x < 96; ++x) {
          const double d = run.frames[f](y, x) - static_cast<double>(mean(y, x));
          sum += d * d / static_cast<double>(mean(y, x));
          count += 1;
        }
    return sum / count;
  };
  const double without = variance();
  options.lag_fraction = 0.4;
  EXPECT_NEAR(variance() / without, 0.6 / 1.4, 0.02) << "(1 - lag) / (1 + lag)";
}

}  // namespace
}  // namespace cinelumen
