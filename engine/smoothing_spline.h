#pragma once
/// Cubic B-spline curves by penalised least squares.

#include <array>
#include <vector>

namespace cinelumen {

/// A planar curve (y, x)(t), t in [0, length]: cubic B-splines on uniform knots.
class SmoothingSpline {
 public:
  struct Sample {
    double t = 0, y = 0, x = 0;
    double weight = 1;    ///< >= 0; samples of weight 0 do not count
    bool anchor = false;  ///< never taken for an outlier
  };
  struct Position {
    double y = 0, x = 0;
    double dy = 0, dx = 0;  ///< derivatives by t
  };
  /// Least squares with `curvature_penalty` times the sum of squared second differences of the control points, in units of the mean
  /// weight per knot (Eilers and Marx, "Flexible smoothing with B-splines and penalties", Stat Sci 1996). Residuals beyond about
  /// `outlier_px` lose weight (two reweighted fits); 0: none do. At least two samples of positive weight, length > 0, knot_spacing > 0.
  SmoothingSpline(const std::vector<Sample>& samples, double length, double knot_spacing, double curvature_penalty, double outlier_px);

  /// Position at parameter t.
  Position at(double t) const;
  /// Arc length from t = 0 to t = i length / steps, 0 <= i <= steps, of the polygon through these points. steps > 0.
  std::vector<double> arc_lengths(int steps) const;
  double length() const { return length_; }

 private:
  /// The interval of the knots in which a sample lies, and the four splines that do not vanish there.
  struct Support {
    int interval = 0;
    std::array<double, 4> value;
  };
  void fit(const std::vector<Sample>& samples, const std::vector<Support>& supports, const std::vector<double>& weights,
           double curvature_penalty);
  double length_, spacing_;
  std::vector<double> control_y_, control_x_;
};

}  // namespace cinelumen
