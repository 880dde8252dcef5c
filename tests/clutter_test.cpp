/// The noise gate calibrated on what an image holds off the vessels.

#include "engine/clutter.h"

#include <gtest/gtest.h>

#include <random>

#include "engine/phantom/phantom.h"
#include "support/tubes.h"

namespace cinelumen {
namespace {

constexpr int side = 256;

Image<float> noise_image(double sd, int box, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 1);
  Image<float> white(side + box, side + box), image(side, side);
  for (int y = 0; y < white.height(); ++y)
    for (int x = 0; x < white.width(); ++x) white(y, x) = normal(random);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      float sum = 0;
      for (int i = 0; i < box; ++i)
        for (int j = 0; j < box; ++j) sum += white(y + i, x + j);
      image(y, x) = static_cast<float>(sd / box) * sum;
    }
  return image;
}

std::array<float, vesselness_scale_count> factors_of(const Image<float>& image, const VesselnessOptions& options) {
  const Stream stream = Stream::cpu();
  VesselnessMap map = make_vesselness_map(stream, side, side);
  Vesselness(stream, side, side).compute(stream, image.view(), options, map);
  return clutter_factors(stream, map, {}, options);
}

TEST(Clutter, WhiteNoiseOfTheStatedSdIsOne) {
  VesselnessOptions options;
  options.noise_sd = 0.02f;
  for (float factor : factors_of(noise_image(0.02, 1, 3), options)) EXPECT_NEAR(factor, 1, 0.15);
}

TEST(Clutter, ItFollowsTheNoise) {
  VesselnessOptions options;
  options.noise_sd = 0.01f;
  for (float factor : factors_of(noise_image(0.03, 1, 3), options)) EXPECT_NEAR(factor, 3, 0.45);
}

TEST(Clutter, CoarseStructureCountsAtCoarseScales) {
  VesselnessOptions options;
  options.noise_sd = 0.01f;
  const auto factors = factors_of(noise_image(0.01, 5, 3), options);
  // Scales 4 and 5.6 px see all of a 5 x 5 px blur's power; white noise of that SD has 1/25 of it there.
  EXPECT_GT(factors[4], 2.5f);
}

TEST(Clutter, VesselsDoNotMoveIt) {
  VesselnessOptions options;
  options.noise_sd = 0.02f;
  Image<float> image = test::render_tubes(
      side, side, {test::straight_tube({40, 10}, {200, 240}, 4), test::straight_tube({200, 20}, {60, 200}, 2)}, 0.4, 0.8, 0, 1, 0);
  const Image<float> noise = noise_image(0.02, 1, 9);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) image(y, x) += noise(y, x);
  const auto factors = factors_of(image, options);
  for (const int i : {2, 3, 5}) EXPECT_NEAR(factors[i], 1, 0.35) << "scale " << vesselness_scales_px[i];
}

TEST(LocalNoise, DarkPartsWeighLess) {
  PhantomOptions options;
  options.scenario = "foot";
  options.rows = options.columns = 128;
  options.frames = 1;
  const PhantomRun phantom = make_phantom(options);
  const cinelumen::Run run = make_run(phantom);
  NoiseModel noise;
  noise.log_sd_at_median = 0.01;
  noise.variance.assign(std::size_t{1} << run.intensity.bits_stored, 0);
  for (std::size_t i = 0; i < noise.variance.size(); ++i) noise.variance[i] = 1.0f / (i + 1.0f);
  const Image<float> weight = local_noise_weight(run, noise, 0);
  // Air (bright) has little noise, the leg (dark) more: the brightest place weighs more than the darkest.
  int bright = 0, dark = 0;
  for (int i = 0; i < 128 * 128; ++i) {
    if (phantom.frames[0](i / 128, i % 128) > phantom.frames[0](bright / 128, bright % 128)) bright = i;
    if (phantom.frames[0](i / 128, i % 128) < phantom.frames[0](dark / 128, dark % 128)) dark = i;
  }
  EXPECT_GT(weight(bright / 128, bright % 128), 1.2f * weight(dark / 128, dark % 128));
  const double variance = noise.variance[phantom.frames[0](dark / 128, dark % 128)];
  EXPECT_NEAR(weight(dark / 128, dark % 128), 0.01 / std::sqrt(variance), 0.5 * 0.01 / std::sqrt(variance));
}

}  // namespace
}  // namespace cinelumen
