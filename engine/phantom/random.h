#pragma once
/// Random numbers that depend on (seed, frame, pixel, stage) and on nothing else: the same bytes for any number of threads.

#include <array>
#include <cmath>
#include <cstdint>

namespace cinelumen::phantom {

/// Philox4x32-10 (Salmon et al., SC 2011): four independent 32-bit words for each counter and key.
inline std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::uint64_t key) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(a)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

/// What a stream of numbers is for; streams of different purposes never share numbers.
enum class Purpose : std::uint32_t { quanta, electronics, motion, texture, layout };

/// The stream of one (seed, purpose, frame, index): uniform, normal and Poisson numbers in a fixed order.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, Purpose purpose, std::uint32_t frame, std::uint32_t index)
      : seed_(seed), counter_{0, index, frame, static_cast<std::uint32_t>(purpose)} {}

  /// In the open interval (0, 1).
  double uniform() {
    if (next_ == 4) {
      words_ = philox(counter_, seed_);
      ++counter_[0];
      next_ = 0;
    }
    return (words_[next_++] + 0.5) * 0x1p-32;
  }
  /// Zero mean, unit variance (Box-Muller).
  double normal() {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }
  /// Poisson number of mean >= 0: inversion below 10, else transformed rejection (Hoermann, Insurance: Mathematics and Economics 1993).
  double poisson(double mean) {
    if (mean <= 0) return 0;
    if (mean < 10) {
      double p = std::exp(-mean), sum = p;
      const double u = uniform();
      int k = 0;
      while (u > sum && k < 200) {
        ++k;
        p *= mean / k;
        sum += p;
      }
      return k;
    }
    const double root = std::sqrt(mean), b = 0.931 + 2.53 * root, a = -0.059 + 0.02483 * b;
    const double v_squeeze = 0.9277 - 3.6224 / (b - 2);
    for (;;) {
      const double u = uniform() - 0.5, v = uniform();
      const double us = 0.5 - std::abs(u);
      const double k = std::floor((2 * a / us + b) * u + mean + 0.43);
      if (us >= 0.07 && v <= v_squeeze) return k;
      if (k < 0 || (us < 0.013 && v > us)) continue;
      const double inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
      if (std::log(v * inverse_alpha / (a / (us * us) + b)) <= k * std::log(mean) - mean - log_factorial(k)) return k;
    }
  }

 private:
  static double log_factorial(double k) {
    if (k < 10) {
      double product = 1;
      for (int i = 2; i <= static_cast<int>(k); ++i) product *= i;
      return std::log(product);
    }
    const double n = k + 1, r = 1 / n, r2 = r * r;
    return (n - 0.5) * std::log(n) - n + 0.9189385332046727 + r * (1. / 12 - r2 * (1. / 360 - r2 * (1. / 1260)));
  }
  std::uint64_t seed_;
  std::array<std::uint32_t, 4> counter_, words_{};
  int next_ = 4;
};

}  // namespace cinelumen::phantom
