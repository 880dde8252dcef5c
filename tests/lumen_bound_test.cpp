/// The Cramer-Rao bound against the figures it was planned with, and the factor for correlated noise against a simulation.

#include "engine/lumen_bound.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace cinelumen {
namespace {

// Pixel 0.2 mm, point spread 0.2 mm, kappa 0.15 / mm, noise 0.01, one profile: SD of D in um for the three cases.
TEST(DiameterBound, KnownTable) {
  const struct {
    double diameter_mm, held, kappa_free, both_free;
  } rows[] = {{0.6, 35, 217, 1236}, {1.0, 25, 78, 158}, {1.5, 20, 44, 56}, {2.0, 17, 32, 36}, {3.0, 14, 22, 23}};
  for (const auto& row : rows) {
    ProfileCase profile;
    profile.radius_px = row.diameter_mm / 2 / 0.2;
    profile.psf_px = 1;
    profile.kappa = 0.15 * 0.2;
    profile.noise_sd = 0.01;
    profile.half_window_px = 25;
    profile.kappa_free = false;
    EXPECT_NEAR(diameter_sd_bound(profile) * 200, row.held, 0.12 * row.held + 0.5) << row.diameter_mm;
    profile.kappa_free = true;
    EXPECT_NEAR(diameter_sd_bound(profile) * 200, row.kappa_free, 0.12 * row.kappa_free + 0.5) << row.diameter_mm;
    profile.psf_free = true;
    EXPECT_NEAR(diameter_sd_bound(profile) * 200, row.both_free, 0.25 * row.both_free) << row.diameter_mm;
  }
}

// A prior on kappa leads from the bound with kappa free to that with kappa known; correlation is the pixels' noise's, not the prior's.
TEST(DiameterBound, PriorOnKappaLiesBetweenFreeAndKnown) {
  ProfileCase profile;
  profile.radius_px = 2.5;
  profile.psf_px = 1;
  const double free = diameter_sd_bound(profile);
  profile.kappa_free = false;
  const double known = diameter_sd_bound(profile);
  profile.kappa_free = true;
  double last = known;
  for (const double relative_sd : {1e-4, 0.02, 0.1, 1.0, 100.0}) {
    profile.kappa_sd = relative_sd * profile.kappa;
    const double sd = diameter_sd_bound(profile);
    EXPECT_GT(sd, last * (1 - 1e-6)) << relative_sd;
    if (relative_sd < 1e-3) {
      EXPECT_NEAR(sd, known, 1e-3 * known);
    }
    last = sd;
  }
  EXPECT_NEAR(last, free, 1e-3 * free);
  // Of almost no noise only the prior's error is left: the diameter follows kappa.
  profile.kappa_sd = 0.02 * profile.kappa;
  std::array<std::array<float, 5>, 5> same{};
  for (auto& row : same) row.fill(1);
  EXPECT_GT(correlated_noise_factor(profile, same, 2), 0.2);
}

TEST(DiameterBound, ScalesWithNoiseAndContrast) {
  ProfileCase profile;
  const double sd = diameter_sd_bound(profile);
  profile.noise_sd *= 3;
  EXPECT_NEAR(diameter_sd_bound(profile), 3 * sd, 1e-9 * sd);
  profile.kappa *= 3;
  EXPECT_NEAR(diameter_sd_bound(profile), sd, 1e-6 * sd);
  profile.radius_px = -1;
  EXPECT_THROW(diameter_sd_bound(profile), std::invalid_argument);
}

TEST(CorrelatedNoise, WhiteIsOne) {
  std::array<std::array<float, 5>, 5> rho{};
  EXPECT_EQ(correlated_noise_factor({}, rho, 2), 1) << "not known: white";
  rho[2][2] = 1;
  EXPECT_NEAR(correlated_noise_factor({}, rho, 2), 1, 1e-12);
  EXPECT_THROW(correlated_noise_factor({}, rho, 0), std::invalid_argument);
}

// Noise that is the same in both rows of a profile averages nothing: the variance doubles.
TEST(CorrelatedNoise, RowsThatRepeatCountOnce) {
  std::array<std::array<float, 5>, 5> rho{};
  rho[2][2] = rho[1][2] = rho[3][2] = rho[2][1] = rho[2][3] = 1;
  ProfileCase profile;
  profile.radius_px = 30;  // wide: what happens across the vessel is not zero but must be the same for one row and two
  const double one = correlated_noise_factor(profile, rho, 1), two = correlated_noise_factor(profile, rho, 2);
  EXPECT_GT(two * two, one * one + 0.9);
}

TEST(CorrelatedNoise, BlurredNoiseRaisesTheSd) {
  std::array<std::array<float, 5>, 5> rho{};
  const double edge = 0.4, one[3] = {1, 2 * edge / (1 + 2 * edge * edge), edge * edge / (1 + 2 * edge * edge)};
  for (int y = 0; y < 5; ++y)
    for (int x = 0; x < 5; ++x) rho[y][x] = static_cast<float>(one[std::abs(y - 2)] * one[std::abs(x - 2)]);
  ProfileCase profile;
  const double factor = correlated_noise_factor(profile, rho, 2);
  EXPECT_GT(factor, 1.2);
  EXPECT_LT(factor, 1 + 2 * edge) << "no more than the noise's sum over all lags can give";
}

}  // namespace
}  // namespace cinelumen
