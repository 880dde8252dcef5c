#pragma once
/// What becomes of one line's peaks, point by point.

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/ridge_points.h"

namespace cinelumen::reference {

inline double upper_middle(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

inline std::vector<int> found_among(const std::vector<CrossPeak>& peaks) {
  std::vector<int> found;
  for (int i = 0; i < static_cast<int>(peaks.size()); ++i)
    if (peaks[i].found) found.push_back(i);
  return found;
}

/// A peak further than 1.5 px from the middle of itself and the five found ones on either side is none.
inline std::vector<CrossPeak> without_lone_peaks(const std::vector<CrossPeak>& peaks) {
  const std::vector<int> found = found_among(peaks);
  std::vector<CrossPeak> result = peaks;
  for (int k = 0; k < static_cast<int>(found.size()); ++k) {
    std::vector<double> nearby;
    for (int j = std::max(0, k - 5); j < std::min(static_cast<int>(found.size()), k + 6); ++j) nearby.push_back(peaks[found[j]].offset_px);
    if (std::abs(peaks[found[k]].offset_px - upper_middle(nearby)) > 1.5) result[found[k]].found = 0;
  }
  return result;
}

/// Offsets of all points: a gap goes from the middle of the seven found before it to that of the seven after it; then a mean over three on
/// either side.
inline std::vector<double> offsets_of(const std::vector<CrossPeak>& peaks) {
  const std::vector<int> found = found_among(peaks);
  const int count = static_cast<int>(peaks.size()), there = static_cast<int>(found.size());
  std::vector<double> offsets(peaks.size(), 0);
  for (int i = 0; i < count; ++i) {
    if (peaks[i].found || there == 0) {
      offsets[i] = peaks[i].found ? peaks[i].offset_px : 0;
      continue;
    }
    std::vector<double> before, after;
    int last = -1, next = count;
    for (int k = there; k-- > 0;)
      if (found[k] < i) {
        if (before.empty()) last = found[k];
        if (before.size() < 7) before.push_back(peaks[found[k]].offset_px);
      }
    for (int k = 0; k < there; ++k)
      if (found[k] > i) {
        if (after.empty()) next = found[k];
        if (after.size() < 7) after.push_back(peaks[found[k]].offset_px);
      }
    const double left = upper_middle(before.empty() ? after : before), right = upper_middle(after.empty() ? before : after);
    offsets[i] = left + (right - left) * (i - last) / (next - last);
  }
  std::vector<double> smooth(offsets.size());
  for (int i = 0; i < count; ++i) {
    int taken = 0;
    for (int j = std::max(0, i - 3); j < std::min(count, i + 4); ++j, ++taken) smooth[i] += offsets[j];
    smooth[i] /= taken;
  }
  return smooth;
}

}  // namespace cinelumen::reference
