#pragma once
/// Smooth displacements of a picture on the host: cubic B-splines on a coarse lattice, fitted to what is known of it here and there.

#include <array>
#include <vector>

namespace cinelumen {

/// A displacement (dy, dx) at every place of a picture. Node (j, i) lies at pixel ((j - 1), (i - 1)) spacing_px.
struct SmoothDisplacement {
  double spacing_px = 0;  ///< from node to node; 0: no displacement anywhere
  int rows = 0, columns = 0;
  std::vector<std::array<double, 2>> nodes;  ///< rows x columns spline coefficients (dy, dx), px

  bool empty() const { return nodes.empty(); }
  /// (dy, dx) at a place; beyond the lattice that of its edge.
  std::array<double, 2> at(double y, double x) const;
};

/// A lattice over a picture of that size, all zero. spacing_px > 0.
SmoothDisplacement make_lattice(int height, int width, double spacing_px);

/// What is known of a displacement at one place, as a 2 x 2 normal matrix: an edge tells of one direction only.
struct DisplacementEvidence {
  double y = 0, x = 0;              ///< px
  double yy = 0, yx = 0, xx = 0;    ///< information, 1 / px^2
  double along_y = 0, along_x = 0;  ///< information x displacement, 1 / px
};

/// Evidence that the displacement at (y, x) is (dy, dx): SDs along and across a unit direction, px, > 0.
DisplacementEvidence directed_evidence(double y, double x, double dy, double dx, double direction_y, double direction_x, double sd_along,
                                       double sd_across);

/// What is believed of a displacement where nothing is known of it.
struct DisplacementPrior {
  double bend_sd = 1;   ///< SD of a second difference of nodes, px, > 0
  double value_sd = 8;  ///< SD of a node, px, > 0
};

/// The most probable displacement on the lattice of `displacement`, whose nodes are replaced. False, and nothing is changed, where the
/// equations can't be solved.
bool fit_displacement(const std::vector<DisplacementEvidence>& evidence, const DisplacementPrior& prior, SmoothDisplacement& displacement);

/// e = (ty + a y + b x, tx + c y + d x): how a picture's places move as a whole.
struct LinearDisplacement {
  double ty = 0, tx = 0, a = 0, b = 0, c = 0, d = 0;
};

/// The least squares fit to the evidence; as a similarity (c = -b, d = a) or in general. Places are taken relative to (centre_y, centre_x).
/// All zero where the evidence leaves it open.
LinearDisplacement fit_linear(const std::vector<DisplacementEvidence>& evidence, double centre_y, double centre_x, bool similarity);

}  // namespace cinelumen
