#pragma once
/// What may be said of a share after so many trials.

#include <cmath>

namespace cinelumen::test {

/// Upper end of the 95 % interval of a share of which `events` of `trials` were seen (Clopper-Pearson, by bisection).
inline double upper_limit(int events, int trials) {
  if (trials == 0 || events >= trials) return 1;
  constexpr double tail = 0.025;
  double low = 0, high = 1;
  for (int i = 0; i < 60; ++i) {
    const double p = 0.5 * (low + high);
    double sum = 0;
    for (int k = 0; k <= events; ++k)
      sum += std::exp(std::lgamma(trials + 1.0) - std::lgamma(k + 1.0) - std::lgamma(trials - k + 1.0) + k * std::log(p) +
                      (trials - k) * std::log1p(-p));
    (sum > tail ? low : high) = p;
  }
  return high;
}

}  // namespace cinelumen::test
