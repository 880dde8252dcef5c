#include "engine/smooth_displacement.h"

#include <cmath>

#include "engine/dense_matrix.h"
#include "kernels/displacement_field.h"

namespace cinelumen {
namespace {

/// The sixteen nodes about a place and their weights.
struct Footprint {
  int first_row, first_column;
  std::array<double, 4> wy, wx;

  Footprint(const SmoothDisplacement& lattice, double y, double x) {
    const auto axis = [&](double position, int nodes, int& first, std::array<double, 4>& w) {
      const LatticePosition at = lattice_position(static_cast<float>(position), static_cast<float>(1 / lattice.spacing_px), nodes);
      float w0 = 0, w1 = 0, w2 = 0, w3 = 0;
      bspline_weights(at.fraction, w0, w1, w2, w3);
      w = {w0, w1, w2, w3};
      first = at.first;
    };
    axis(y, lattice.rows, first_row, wy);
    axis(x, lattice.columns, first_column, wx);
  }
};

/// Symmetric positive definite equations of which the lower triangle is kept within a band.
class BandedEquations {
 public:
  BandedEquations(int unknowns, int band)
      : n_(unknowns), band_(band), matrix_(static_cast<std::size_t>(unknowns) * (band + 1)), right_(n_) {}
  void add(int i, int j, double value) {
    if (i >= j) at(i, j) += value;
  }
  void add(int i, double value) { right_[i] += value; }
  /// Cholesky; empty where the matrix is not positive definite.
  std::vector<double> solve() {
    for (int i = 0; i < n_; ++i)
      for (int j = std::max(0, i - band_); j <= i; ++j) {
        double sum = at(i, j);
        for (int k = std::max(0, i - band_); k < j; ++k) sum -= at(i, k) * at(j, k);
        if (i > j)
          at(i, j) = sum / at(j, j);
        else if (!(sum > 0) || !std::isfinite(sum))
          return {};
        else
          at(i, i) = std::sqrt(sum);
      }
    for (int i = 0; i < n_; ++i) {
      for (int k = std::max(0, i - band_); k < i; ++k) right_[i] -= at(i, k) * right_[k];
      right_[i] /= at(i, i);
    }
    for (int i = n_ - 1; i >= 0; --i) {
      for (int k = i + 1; k <= std::min(n_ - 1, i + band_); ++k) right_[i] -= at(k, i) * right_[k];
      right_[i] /= at(i, i);
    }
    return right_;
  }

 private:
  double& at(int i, int j) { return matrix_[static_cast<std::size_t>(i) * (band_ + 1) + (j - i + band_)]; }
  int n_, band_;
  std::vector<double> matrix_, right_;
};

}  // namespace

std::array<double, 2> SmoothDisplacement::at(double y, double x) const {
  if (empty()) return {0, 0};
  const Footprint footprint(*this, y, x);
  std::array<double, 2> result = {0, 0};
  for (int j = 0; j < 4; ++j)
    for (int i = 0; i < 4; ++i) {
      const auto& node = nodes[static_cast<std::size_t>(footprint.first_row + j) * columns + footprint.first_column + i];
      const double w = footprint.wy[j] * footprint.wx[i];
      result[0] += w * node[0];
      result[1] += w * node[1];
    }
  return result;
}

SmoothDisplacement make_lattice(int height, int width, double spacing_px) {
  const auto nodes = [&](int extent) { return static_cast<int>((extent - 1) / spacing_px) + 4; };
  SmoothDisplacement lattice{spacing_px, nodes(height), nodes(width), {}};
  lattice.nodes.assign(static_cast<std::size_t>(lattice.rows) * lattice.columns, {0, 0});
  return lattice;
}

DisplacementEvidence directed_evidence(double y, double x, double dy, double dx, double direction_y, double direction_x, double sd_along,
                                       double sd_across) {
  const double along = 1 / (sd_along * sd_along), across = 1 / (sd_across * sd_across);
  DisplacementEvidence evidence{y,
                                x,
                                across + (along - across) * direction_y * direction_y,
                                (along - across) * direction_y * direction_x,
                                across + (along - across) * direction_x * direction_x,
                                0,
                                0};
  evidence.along_y = evidence.yy * dy + evidence.yx * dx;
  evidence.along_x = evidence.yx * dy + evidence.xx * dx;
  return evidence;
}

bool fit_displacement(const std::vector<DisplacementEvidence>& evidence, const DisplacementPrior& prior, SmoothDisplacement& displacement) {
  const int rows = displacement.rows, columns = displacement.columns, n = 2 * rows * columns;
  // Unknown 2 (j columns + i) is the node's dy, the next its dx; a node meets others up to three rows and columns away.
  BandedEquations equations(n, std::min(n - 1, 2 * (3 * columns + 3) + 1));
  for (const DisplacementEvidence& e : evidence) {
    const Footprint f(displacement, e.y, e.x);
    std::array<double, 16> w{};
    std::array<int, 16> at{};
    for (int k = 0; k < 16; ++k) {
      w[k] = f.wy[k / 4] * f.wx[k % 4];
      at[k] = 2 * ((f.first_row + k / 4) * columns + f.first_column + k % 4);
    }
    for (int k = 0; k < 16; ++k) {
      equations.add(at[k], w[k] * e.along_y);
      equations.add(at[k] + 1, w[k] * e.along_x);
      for (int l = 0; l <= k; ++l) {
        const double both = w[k] * w[l];
        equations.add(at[k], at[l], both * e.yy);
        equations.add(at[k] + 1, at[l] + 1, both * e.xx);
        equations.add(at[k] + 1, at[l], both * e.yx);
        equations.add(at[k], at[l] + 1, both * e.yx);
      }
    }
  }
  const double bend = 1 / (prior.bend_sd * prior.bend_sd), value = 1 / (prior.value_sd * prior.value_sd);
  const auto add_bend = [&](int first, int step) {  // of the nodes first, first + step, first + 2 step
    constexpr std::array<double, 3> second_difference = {1, -2, 1};
    for (int k = 0; k < 3; ++k)
      for (int l = 0; l <= k; ++l)
        for (int part = 0; part < 2; ++part)
          equations.add(2 * (first + k * step) + part, 2 * (first + l * step) + part, bend * second_difference[k] * second_difference[l]);
  };
  for (int j = 0; j < rows; ++j)
    for (int i = 0; i < columns; ++i) {
      const int node = j * columns + i;
      if (i + 2 < columns) add_bend(node, 1);
      if (j + 2 < rows) add_bend(node, columns);
      for (int part = 0; part < 2; ++part) equations.add(2 * node + part, 2 * node + part, value);
    }
  const std::vector<double> solution = equations.solve();
  if (solution.empty()) return false;
  for (std::size_t k = 0; k < displacement.nodes.size(); ++k) displacement.nodes[k] = {solution[2 * k], solution[2 * k + 1]};
  return true;
}

LinearDisplacement fit_linear(const std::vector<DisplacementEvidence>& evidence, double centre_y, double centre_x, bool similarity) {
  // Unknowns: ty, tx, then a, b or a, b, c, d, of places in units of `unit`, so that all are of like size.
  constexpr double unit = 100;
  constexpr std::size_t most = 6;
  const std::size_t n = similarity ? 4 : most;
  std::vector<std::vector<double>> matrix(n, std::vector<double>(n)), inverse;
  std::vector<double> right(n);
  for (const DisplacementEvidence& e : evidence) {
    const double y = (e.y - centre_y) / unit, x = (e.x - centre_x) / unit;
    const std::array<double, most> of_y = {1, 0, y, x, 0, 0};
    const std::array<double, most> of_x =
        similarity ? std::array<double, most>{0, 1, x, -y, 0, 0} : std::array<double, most>{0, 1, 0, 0, y, x};
    for (std::size_t i = 0; i < n; ++i) {
      right[i] += of_y[i] * e.along_y + of_x[i] * e.along_x;
      for (std::size_t j = 0; j < n; ++j)
        matrix[i][j] += of_y[i] * (e.yy * of_y[j] + e.yx * of_x[j]) + of_x[i] * (e.yx * of_y[j] + e.xx * of_x[j]);
    }
  }
  if (!invert(matrix, inverse)) return {};
  std::array<double, most> p{};
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) p[i] += inverse[i][j] * right[j];
  LinearDisplacement result{p[0], p[1], p[2] / unit, p[3] / unit, p[4] / unit, p[5] / unit};
  if (similarity) {
    result.c = -result.b;
    result.d = result.a;
  }
  // From places relative to the centre to places.
  result.ty -= result.a * centre_y + result.b * centre_x;
  result.tx -= result.c * centre_y + result.d * centre_x;
  return result;
}

}  // namespace cinelumen
