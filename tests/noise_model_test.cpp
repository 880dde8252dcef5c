/// Intensity model and noise estimate on runs whose noise is known exactly.

#include "engine/noise_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <random>

namespace cinelumen {
namespace {

/// Frames made by the test, kept in memory.
class MadeFrames : public FrameSource {
 public:
  MadeFrames(int frames, int rows, int columns, const std::function<double(int frame, int y, int x)>& stored, double most) {
    for (int f = 0; f < frames; ++f) {
      Image<std::uint16_t> image(rows, columns);
      for (int y = 0; y < rows; ++y)
        for (int x = 0; x < columns; ++x)
          image(y, x) = static_cast<std::uint16_t>(std::lround(std::min(most, std::max(0.0, stored(f, y, x)))));
      frames_.push_back(std::move(image));
    }
  }
  int frame_count() const override { return static_cast<int>(frames_.size()); }
  int rows() const override { return frames_[0].height(); }
  int columns() const override { return frames_[0].width(); }
  void read_frame(int frame, ImageView<std::uint16_t> stored) const override {
    const Image<std::uint16_t>& from = frames_.at(static_cast<std::size_t>(frame));
    for (int y = 0; y < stored.height; ++y)
      for (int x = 0; x < stored.width; ++x) stored(y, x) = from(y, x);
  }

 private:
  std::vector<Image<std::uint16_t>> frames_;
};

IntensityEncoding encoding(IntensityRelationship relationship, const std::string& name, int bits, int sign = 1) {
  IntensityEncoding result;
  result.relationship = relationship;
  result.relationship_as_stored = name;
  result.bits_stored = bits;
  result.sign = sign;
  for (int i = 0; i < 1 << bits; ++i) result.value.push_back(static_cast<float>(i));
  return result;
}

cinelumen::Run make_run(int frames, int side, int bits, const std::function<double(int, int, int)>& stored) {
  cinelumen::Run run;
  run.frames = std::make_shared<MadeFrames>(frames, side, side, stored, (1 << bits) - 1);
  run.intensity = encoding(IntensityRelationship::linear, "LIN", bits);
  run.field.mask = Image<std::uint8_t>(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) run.field.mask(y, x) = 1;
  run.field.source = "whole image";
  return run;
}

// A scene with smooth parts, an edge, fine texture in one corner: counts between about 300 and 2800.
double scene(double y, double x) {
  double intensity = 1500 + 700 * std::sin(y / 60) + 500 * std::cos(x / 45);
  if (x > 300) intensity *= 0.6;
  if (y > 400 && x < 150) intensity *= 1 + 0.2 * std::sin(1.3 * x) * std::sin(1.1 * y);
  return intensity;
}

class Noise {
 public:
  Noise(double gain, double electronic_sd, unsigned seed) : gain_(gain), electronic_sd_(electronic_sd), random_(seed) {}
  /// A noisy count for the mean `intensity`: Poisson quanta of `gain` counts each, and electronic noise.
  double operator()(double intensity) {
    std::poisson_distribution<int> quanta(intensity / gain_);
    return gain_ * quanta(random_) + electronic_sd_ * normal_(random_);
  }

 private:
  double gain_, electronic_sd_;
  std::mt19937 random_;
  std::normal_distribution<double> normal_{0, 1};
};

std::vector<int> first_frames(int count) {
  std::vector<int> frames(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) frames[static_cast<std::size_t>(i)] = i;
  return frames;
}

// --- intensity ---

TEST(IntensityModel, LinearIsTheNegativeLogarithm) {
  const IntensityModel model = make_intensity_model(encoding(IntensityRelationship::linear, "LIN", 12));
  ASSERT_EQ(model.attenuation.size(), 4096u);
  EXPECT_TRUE(model.densitometric);
  EXPECT_FALSE(model.relative);
  EXPECT_EQ(model.sd_inflation, 1);
  EXPECT_NEAR(model.attenuation[4095], 0, 1e-6);
  EXPECT_NEAR(model.attenuation[1000] - model.attenuation[2000], std::log(2.0), 1e-6);
  EXPECT_EQ(model.linear[1000], 1000);
  EXPECT_EQ(model.linear[0], 0.5f) << "no counts are clamped at half a count";
  EXPECT_NEAR(model.attenuation[0], std::log(4095 / 0.5), 1e-5);
}

TEST(IntensityModel, SignTurnsTheScale) {
  const IntensityModel plus = make_intensity_model(encoding(IntensityRelationship::linear, "LIN", 10));
  const IntensityModel minus = make_intensity_model(encoding(IntensityRelationship::linear, "LIN", 10, -1));
  const IntensityModel log_plus = make_intensity_model(encoding(IntensityRelationship::logarithmic, "LOG", 10));
  const IntensityModel log_minus = make_intensity_model(encoding(IntensityRelationship::logarithmic, "LOG", 10, -1));
  const IntensityModel grey_plus = make_intensity_model(encoding(IntensityRelationship::display, "DISP", 10));
  const IntensityModel grey_minus = make_intensity_model(encoding(IntensityRelationship::display, "DISP", 10, -1));
  for (std::size_t i = 0; i < 1024; i += 31) {
    EXPECT_FLOAT_EQ(plus.attenuation[i], minus.attenuation[1023 - i]);
    EXPECT_FLOAT_EQ(log_plus.attenuation[i], log_minus.attenuation[1023 - i]);
    EXPECT_FLOAT_EQ(grey_plus.attenuation[i], grey_minus.attenuation[1023 - i]);
  }
}

TEST(IntensityModel, RescaledCountsAreStillStoredCounts) {
  IntensityEncoding rescaled = encoding(IntensityRelationship::linear, "LIN", 10);
  for (float& value : rescaled.value) value *= 4;
  const IntensityModel model = make_intensity_model(rescaled);
  EXPECT_FLOAT_EQ(model.linear[100], 100);
}

TEST(IntensityModel, LogarithmicIsRelative) {
  const IntensityModel model = make_intensity_model(encoding(IntensityRelationship::logarithmic, "LOG", 10));
  EXPECT_TRUE(model.densitometric);
  EXPECT_TRUE(model.relative);
  EXPECT_NEAR(model.attenuation[0] - model.attenuation[1023], 10 * std::log(2.0), 1e-5);
  EXPECT_NEAR(model.attenuation[100] - model.attenuation[200], model.attenuation[800] - model.attenuation[900], 1e-5);
  EXPECT_NE(model.note.find("scale"), std::string::npos);
}

TEST(IntensityModel, LinearAndLogarithmicAgreeOnOneScene) {
  const int bits = 12;
  const IntensityModel linear = make_intensity_model(encoding(IntensityRelationship::linear, "LIN", bits));
  const IntensityModel logarithmic = make_intensity_model(encoding(IntensityRelationship::logarithmic, "LOG", bits));
  const double log_step = bits * std::log(2.0) / 4095;
  for (double intensity = 50; intensity < 4000; intensity *= 1.07) {
    const auto lin_stored = static_cast<std::size_t>(std::lround(intensity));
    const auto log_stored = static_cast<std::size_t>(std::lround(4095 + std::log(intensity / 4096) / log_step));
    const double lin = linear.attenuation[lin_stored] - linear.attenuation[4000];
    const double log = logarithmic.attenuation[log_stored] - (std::log(4096 / 4000.0));
    EXPECT_NEAR(lin, log, 0.5 / intensity + 0.5 * log_step + 1e-5) << "at " << intensity;
  }
}

TEST(IntensityModel, DisplayGreyIsSaidAndNeverFails) {
  for (const auto& name : {"DISP", "DRM", ""}) {
    const IntensityModel model = make_intensity_model(encoding(IntensityRelationship::display, name, 8));
    EXPECT_FALSE(model.densitometric);
    EXPECT_TRUE(model.linear.empty());
    EXPECT_EQ(model.sd_inflation, display_sd_inflation);
    EXPECT_NE(model.note.find("display grey"), std::string::npos);
    EXPECT_NE(model.note.find(*name ? name : "absent"), std::string::npos);
    for (std::size_t i = 1; i < 256; ++i) ASSERT_LT(model.attenuation[i], model.attenuation[i - 1]);
  }
  IntensityEncoding strange = encoding(IntensityRelationship::linear, "LIN", 8);
  strange.value.assign(256, 5);
  EXPECT_FALSE(make_intensity_model(strange).densitometric);
  strange.value.assign(256, NAN);
  for (const float value : make_intensity_model(strange).attenuation) EXPECT_TRUE(std::isfinite(value));
  strange.value.clear();
  EXPECT_EQ(make_intensity_model(strange).attenuation.size(), 256u);
}

// --- noise ---

TEST(NoiseModel, FindsGainAndElectronicNoise) {
  for (const double gain : {0.3, 1.0, 4.0}) {
    Noise noise(gain, 6, 11);
    const cinelumen::Run run = make_run(6, 512, 12, [&](int, int y, int x) { return noise(scene(y, x)); });
    const NoiseModel model = estimate_noise(run, make_intensity_model(run.intensity), first_frames(6));
    EXPECT_TRUE(model.temporal);
    EXPECT_NEAR(model.gain / gain, 1, 0.02) << model.note;
    EXPECT_NEAR(model.electronic_sd, 6, gain < 1 ? 0.5 : 3);
    ASSERT_EQ(model.variance.size(), 4096u);
    for (const int stored : {400, 1000, 2000})
      EXPECT_NEAR(model.variance[static_cast<std::size_t>(stored)] / ((gain * stored + 36) / (double(stored) * stored)), 1, 0.03);
    EXPECT_GT(model.log_sd_at_median, 0);
    for (int dy = 0; dy < 5; ++dy)
      for (int dx = 0; dx < 5; ++dx) EXPECT_NEAR(model.autocorrelation[dy][dx], dy == 2 && dx == 2 ? 1 : 0, 0.02);
  }
}

TEST(NoiseModel, MotionAndDriftDoNotCount) {
  // Texture like that of bone everywhere, moving by a part of a pixel and by more than one from frame to frame, while the dose drifts.
  const auto bone = [](double y, double x) { return scene(y, x) * (1 + 0.06 * std::sin(0.7 * x + 0.3 * y) * std::sin(0.6 * y)); };
  for (const double step : {0.3, 1.6}) {
    Noise noise(1, 4, 5);
    const cinelumen::Run run =
        make_run(5, 512, 12, [&](int f, int y, int x) { return noise((1 + 0.01 * f) * bone(y - step * f, x + 0.6 * step * f)); });
    const NoiseModel model = estimate_noise(run, make_intensity_model(run.intensity), first_frames(5));
    EXPECT_NEAR(model.gain, 1, 0.02) << "at " << step << " px per frame: " << model.note;
    EXPECT_NEAR(model.autocorrelation[2][3], 0, 0.02);
  }
}

TEST(NoiseModel, LogarithmicStorageGivesTheSameNoise) {
  // The same run stored as logarithm with its way back: value is linear again, in uneven steps.
  const double slope = 300;
  Noise noise(1, 4, 21), again(1, 4, 21);
  const cinelumen::Run linear = make_run(5, 384, 12, [&](int, int y, int x) { return noise(scene(y, x)); });
  cinelumen::Run logarithmic = make_run(5, 384, 12, [&](int, int y, int x) { return slope * std::log(std::max(1.0, again(scene(y, x)))); });
  for (std::size_t i = 0; i < logarithmic.intensity.value.size(); ++i)
    logarithmic.intensity.value[i] = static_cast<float>(std::exp(static_cast<double>(i) / slope));
  const NoiseModel a = estimate_noise(linear, make_intensity_model(linear.intensity), first_frames(5));
  const NoiseModel b = estimate_noise(logarithmic, make_intensity_model(logarithmic.intensity), first_frames(5));
  EXPECT_NEAR(a.gain, 1, 0.03);
  EXPECT_NEAR(b.gain, 1, 0.03) << b.note;
  for (const double intensity : {500.0, 1500.0, 2500.0}) {
    const auto log_stored = static_cast<std::size_t>(std::lround(slope * std::log(intensity)));
    EXPECT_NEAR(b.variance[log_stored] / a.variance[static_cast<std::size_t>(intensity)], 1, 0.04);
  }
}

TEST(NoiseModel, CorrelatedNoiseIsSeen) {
  // White noise of SD 40 through (1 2 1) / 4 along x: SD 40 sqrt(6) / 4, neighbours correlated 4/6, second ones 1/6.
  const int side = 384;
  std::mt19937 random(3);
  std::normal_distribution<double> normal(0, 40);
  std::vector<double> white(static_cast<std::size_t>(5 * side * (side + 2)));
  for (double& value : white) value = normal(random);
  const cinelumen::Run run = make_run(5, side, 12, [&](int f, int y, int x) {
    const double* at = white.data() + (static_cast<std::size_t>(f) * side + y) * (side + 2) + x;
    return 1200 + 2.0 * y + (at[0] + 2 * at[1] + at[2]) / 4;
  });
  const NoiseModel model = estimate_noise(run, make_intensity_model(run.intensity), first_frames(5));
  EXPECT_NEAR(model.autocorrelation[2][3], 4.0 / 6, 0.03);
  EXPECT_NEAR(model.autocorrelation[2][1], 4.0 / 6, 0.03);
  EXPECT_NEAR(model.autocorrelation[2][4], 1.0 / 6, 0.03);
  EXPECT_NEAR(model.autocorrelation[3][2], 0, 0.03);
  EXPECT_NEAR(std::sqrt(model.variance[1584]) * 1584, 40 * std::sqrt(6.0) / 4, 0.7);
}

TEST(NoiseModel, SaturationAndFieldAreLeftOut) {
  Noise noise(2, 3, 8);
  // A burnt-out third, clipped at 3000 of 4095; a wildly flickering rim outside the field.
  cinelumen::Run run = make_run(5, 384, 12, [&](int f, int y, int x) {
    if (x < 64) return 2000.0 + 900 * ((f + y) % 2);
    return std::min(3000.0, noise(x > 256 ? 3400 : 500 + 5.0 * y));
  });
  for (int y = 0; y < 384; ++y)
    for (int x = 0; x < 64; ++x) run.field.mask(y, x) = 0;
  const NoiseModel model = estimate_noise(run, make_intensity_model(run.intensity), first_frames(5));
  EXPECT_NEAR(model.gain, 2, 0.06) << model.note;
}

TEST(NoiseModel, OneFrameGivesASpatialEstimateAndSaysSo) {
  Noise noise(1.5, 5, 31);
  const cinelumen::Run run = make_run(1, 512, 12, [&](int, int y, int x) { return noise(scene(y, x)); });
  const NoiseModel model = estimate_noise(run, make_intensity_model(run.intensity), {0});
  EXPECT_FALSE(model.temporal);
  EXPECT_NE(model.note.find("one frame"), std::string::npos) << model.note;
  for (const int stored : {600, 1200, 2000})
    EXPECT_NEAR(std::sqrt(model.variance[static_cast<std::size_t>(stored)] / ((1.5 * stored + 25) / (double(stored) * stored))), 1, 0.06);
}

TEST(NoiseModel, CompressedPicturesKeepTheQuantisationAtLeast) {
  // 8 bits of grey whose noise is gone: the frames differ in a few pixels by one step.
  cinelumen::Run run = make_run(4, 256, 8, [](int f, int y, int x) { return 60 + y / 4 + ((f * 131 + y * 17 + x * 29) % 97 == 0); });
  run.intensity = encoding(IntensityRelationship::display, "DISP", 8);
  const IntensityModel intensity = make_intensity_model(run.intensity);
  const NoiseModel model = estimate_noise(run, intensity, first_frames(4));
  EXPECT_TRUE(model.temporal);
  EXPECT_NE(model.note.find("quantisation"), std::string::npos) << model.note;
  const double step = intensity.attenuation[99] - intensity.attenuation[100];
  EXPECT_GE(std::sqrt(model.variance[100]), 0.95 * step / std::sqrt(12.0));
  EXPECT_GE(model.electronic_sd, 0.28);
  for (const float variance : model.variance) ASSERT_GT(variance, 0);
}

TEST(NoiseModel, DisplayGreyIsMeasuredInGrey) {
  Noise noise(1, 0, 4);  // a square-root display: nearly constant noise of 1/2 x its slope
  cinelumen::Run run = make_run(5, 384, 10, [&](int, int y, int x) { return 16 * std::sqrt(noise(scene(y, x))); });
  run.intensity = encoding(IntensityRelationship::display, "", 10);
  const IntensityModel intensity = make_intensity_model(run.intensity);
  const NoiseModel model = estimate_noise(run, intensity, first_frames(5));
  const double slope = (intensity.attenuation[599] - intensity.attenuation[601]) / 2;
  EXPECT_NEAR(std::sqrt(model.variance[600]) / slope, 8, 0.25) << model.note;
}

TEST(NoiseModel, DefinedWhateverIsGiven) {
  const auto check = [](const cinelumen::Run& run, const std::vector<int>& frames) {
    const NoiseModel model = estimate_noise(run, make_intensity_model(run.intensity), frames);
    EXPECT_TRUE(std::isfinite(model.gain) && model.gain >= 0);
    EXPECT_TRUE(std::isfinite(model.electronic_sd) && model.electronic_sd > 0);
    EXPECT_GT(model.log_sd_at_median, 0);
    EXPECT_FALSE(model.note.empty());
    for (const float variance : model.variance) ASSERT_TRUE(std::isfinite(variance) && variance > 0);
  };
  Noise noise(1, 3, 1);
  check(make_run(3, 5, 12, [&](int, int, int) { return noise(500); }), {0, 1, 2});    // smaller than a block
  check(make_run(3, 64, 12, [](int, int, int) { return 700; }), {0, 1, 2});           // copies, constant
  check(make_run(3, 64, 12, [](int, int, int) { return 0; }), {0, 1, 2});             // black
  check(make_run(3, 64, 12, [](int, int, int) { return 4095; }), {0, 1, 2});          // burnt out
  check(make_run(3, 64, 12, [&](int, int, int) { return noise(900); }), {0, 1, 2});   // one intensity
  check(make_run(2, 64, 16, [&](int, int y, int) { return noise(9 + y); }), {1, 1});  // the same frame twice
  cinelumen::Run nothing = make_run(2, 64, 12, [&](int, int, int) { return noise(900); });
  for (int y = 0; y < 64; ++y)
    for (int x = 0; x < 64; ++x) nothing.field.mask(y, x) = 0;
  check(nothing, {0, 1});
  const cinelumen::Run run = make_run(2, 32, 12, [&](int, int, int) { return noise(900); });
  EXPECT_THROW(estimate_noise(run, make_intensity_model(run.intensity), {}), std::invalid_argument);
  EXPECT_THROW(estimate_noise(run, make_intensity_model(run.intensity), {0, 2}), std::invalid_argument);
}

TEST(NoiseModel, SameForAnyNumberOfThreads) {
  Noise noise(1, 3, 77);
  const cinelumen::Run run = make_run(4, 256, 12, [&](int, int y, int x) { return noise(scene(y, x)); });
  const IntensityModel intensity = make_intensity_model(run.intensity);
  const NoiseModel many = estimate_noise(run, intensity, first_frames(4));
  set_cpu_threads(1);
  const NoiseModel one = estimate_noise(run, intensity, first_frames(4));
  set_cpu_threads(0);
  EXPECT_EQ(one.gain, many.gain);
  EXPECT_EQ(one.electronic_sd, many.electronic_sd);
  EXPECT_EQ(one.variance, many.variance);
  EXPECT_EQ(one.autocorrelation, many.autocorrelation);
}

}  // namespace
}  // namespace cinelumen
