#pragma once
/// Small dense matrices: rows of std::array or std::vector.

#include <cmath>
#include <cstddef>

namespace cinelumen {

/// Inverse of a symmetric positive definite matrix by Gauss-Jordan with pivots on the diagonal; false where it is none.
template <class Matrix>
bool invert(Matrix a, Matrix& inverse) {
  const std::size_t n = a.size();
  inverse = a;
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) inverse[i][j] = i == j ? 1 : 0;
  for (std::size_t c = 0; c < n; ++c) {
    if (!(a[c][c] > 0) || !std::isfinite(a[c][c])) return false;
    const double pivot = 1 / a[c][c];
    for (std::size_t j = 0; j < n; ++j) {
      a[c][j] *= pivot;
      inverse[c][j] *= pivot;
    }
    for (std::size_t r = 0; r < n; ++r) {
      if (r == c) continue;
      const double f = a[r][c];
      for (std::size_t j = 0; j < n; ++j) {
        a[r][j] -= f * a[c][j];
        inverse[r][j] -= f * inverse[c][j];
      }
    }
  }
  return true;
}

}  // namespace cinelumen
