#include "engine/lumen_bound.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "kernels/lumen_fit.h"

namespace cinelumen {
namespace {

constexpr int largest = 6;

// Weights h with which the pixels' errors enter the radius: R_error = sum h_i e_i, for errors of SD 1 off the vessel; what they are more in
// it is part of h.
struct Influence {
  std::vector<double> pixels;
  double prior = 0;  // the same of kappa's prior
};

Influence influence(const ProfileCase& profile, double phase) {
  const double s = std::sqrt(profile.psf_px * profile.psf_px + 1.0 / 12), radius = profile.radius_px;
  const double half = profile.half_window_px > 0 ? profile.half_window_px : 1.5 * radius + 5 * s + 2;
  const int side = static_cast<int>(half);
  std::vector<std::array<double, largest>> columns;
  std::vector<int> kept = {0, 1, 2, 3};  // R, c, b0, b1
  if (profile.kappa_free) kept.push_back(4);
  if (profile.psf_free) kept.push_back(5);
  const int count = static_cast<int>(kept.size());
  for (int i = -side; i <= side; ++i) {
    const double x = i + phase;
    const BlurredChord chord = blurred_chord(static_cast<float>(x), static_cast<float>(radius), static_cast<float>(s));
    const double by_radius = profile.kappa * (chord.value - x * chord.slope - s * s * chord.curvature) / radius;
    const double sd = std::sqrt(1 + profile.quantum_share * (std::exp(profile.kappa * chord.value) - 1));
    columns.push_back({by_radius, -profile.kappa * chord.slope, 1, x, chord.value, profile.kappa * s * chord.curvature});
    for (double& value : columns.back()) value /= sd;
  }
  // What is known beforehand counts as one more reading, in the pixels' SD.
  const double prior = profile.kappa_sd > 0 ? std::pow(profile.noise_sd / profile.kappa_sd, 2) : 0;
  // Cholesky of the normal matrix, then the row of its inverse that belongs to R.
  double lower[largest][largest] = {}, row[largest] = {};
  for (int a = 0; a < count; ++a)
    for (int b = 0; b <= a; ++b) {
      double sum = 0;
      for (const auto& column : columns) sum += column[kept[a]] * column[kept[b]];
      if (a == b && kept[a] == 4) sum += prior;
      for (int k = 0; k < b; ++k) sum -= lower[a][k] * lower[b][k];
      lower[a][b] = a == b ? std::sqrt(std::max(sum, 1e-300)) : sum / lower[b][b];
    }
  for (int a = 0; a < count; ++a) {
    double sum = a == 0 ? 1 : 0;
    for (int k = 0; k < a; ++k) sum -= lower[a][k] * row[k];
    row[a] = sum / lower[a][a];
  }
  for (int a = count - 1; a >= 0; --a) {
    for (int k = a + 1; k < count; ++k) row[a] -= lower[k][a] * row[k];
    row[a] /= lower[a][a];
  }
  Influence result;
  if (profile.kappa_free) result.prior = std::sqrt(prior) * row[4];
  for (const auto& column : columns) {
    double sum = 0;
    for (int a = 0; a < count; ++a) sum += row[a] * column[kept[a]];
    result.pixels.push_back(sum);
  }
  return result;
}

void check(const ProfileCase& profile) {
  if (!(profile.radius_px > 0.1 && profile.radius_px < 1000 && profile.psf_px >= 0 && profile.psf_px < 100 && profile.kappa > 0 &&
        profile.noise_sd >= 0))
    throw std::invalid_argument("diameter_sd_bound: radius, point spread, kappa and noise must be positive");
}

constexpr int phases = 4;

}  // namespace

double diameter_sd_bound(const ProfileCase& profile) {
  check(profile);
  double variance = 0;
  for (int k = 0; k < phases; ++k) {
    const Influence from = influence(profile, (k + 0.5) / phases);
    variance += from.prior * from.prior / phases;
    for (const double h : from.pixels) variance += h * h / phases;
  }
  return 2 * profile.noise_sd * std::sqrt(variance);
}

double correlated_noise_factor(const ProfileCase& profile, const std::array<std::array<float, 5>, 5>& autocorrelation, int rows) {
  check(profile);
  if (rows < 1) throw std::invalid_argument("correlated_noise_factor: rows must be positive");
  if (!(autocorrelation[2][2] > 0)) return 1;
  double white = 0, correlated = 0;
  for (int k = 0; k < phases; ++k) {
    const Influence from = influence(profile, (k + 0.5) / phases);
    const std::vector<double>& h = from.pixels;
    white += from.prior * from.prior, correlated += from.prior * from.prior;  // it is not the noise's
    const int count = static_cast<int>(h.size());
    for (int across = -2; across <= 2; ++across) {
      double product = 0;
      for (int i = std::max(0, -across); i < std::min(count, count - across); ++i) product += h[i] * h[i + across];
      if (across == 0) white += product;
      for (int along = -std::min(2, rows - 1); along <= std::min(2, rows - 1); ++along) {
        const double rho = 0.5 * (autocorrelation[along + 2][across + 2] + autocorrelation[across + 2][along + 2]) / autocorrelation[2][2];
        correlated += (1 - std::abs(along) / static_cast<double>(rows)) * rho * product;
      }
    }
  }
  return std::sqrt(std::max(correlated / white, 0.05));
}

}  // namespace cinelumen
