#pragma once
/// The median as one of the values.

#include <algorithm>
#include <limits>
#include <vector>

namespace cinelumen {

/// The middle of the values, the upper one of two, which it reorders; NaN where there are none.
template <class T>
T in_place_median(std::vector<T>& values) {
  if (values.empty()) return std::numeric_limits<T>::quiet_NaN();
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// The same of a copy.
inline double middle_of(std::vector<double> values) { return in_place_median(values); }

}  // namespace cinelumen
