#pragma once
/// The statistics of one pixel's curve, from all its samples at once, in double precision.

#include <cmath>
#include <limits>
#include <vector>

namespace cinelumen::reference {

struct FlowOfPixel {
  double maximum, time_to_peak_ms, area, mean_time_ms;
};

inline FlowOfPixel flow_of_pixel(const std::vector<double>& times_ms, std::vector<double> contrast, double threshold) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  std::size_t first = 0;
  while (first < contrast.size() && std::isnan(contrast[first])) ++first;
  if (first == contrast.size()) return {nan, nan, nan, nan};
  for (std::size_t i = first + 1; i < contrast.size(); ++i)
    if (std::isnan(contrast[i])) contrast[i] = contrast[i - 1];
  for (std::size_t i = 0; i < first; ++i) contrast[i] = contrast[first];  // what a pixel first shows was there before

  std::size_t best = first;
  for (std::size_t i = first; i < contrast.size(); ++i)
    if (contrast[i] > contrast[best]) best = i;
  double peak = times_ms[best];
  if (best > 0 && best + 1 < contrast.size()) {
    const double t0 = times_ms[best - 1] - peak, t2 = times_ms[best + 1] - peak;
    const double a = contrast[best - 1] - contrast[best], b = contrast[best + 1] - contrast[best];
    // a = p t0^2 + q t0, b = p t2^2 + q t2: vertex at -q / 2p
    const double p = (a * t2 - b * t0) / (t0 * t2 * (t0 - t2)), q = (b * t0 * t0 - a * t2 * t2) / (t0 * t2 * (t0 - t2));
    if (p < 0) peak += std::fmax(t0 / 2, std::fmin(t2 / 2, -q / (2 * p)));
  }
  double area = 0, moment = 0;
  for (std::size_t i = first > 0 ? first : 1; i < contrast.size(); ++i) {
    const double step = (times_ms[i] - times_ms[i - 1]) / 1000;
    area += step * (contrast[i] + contrast[i - 1]) / 2;
    moment += step * (contrast[i] * times_ms[i] + contrast[i - 1] * times_ms[i - 1]) / 2;
  }
  const bool opacified = contrast[best] > threshold;
  const double mean = moment / area;
  const bool in_run = area > 0 && mean >= times_ms.front() && mean <= times_ms.back();
  return {contrast[best], opacified ? peak : nan, area, opacified && in_run ? mean : nan};
}

}  // namespace cinelumen::reference
