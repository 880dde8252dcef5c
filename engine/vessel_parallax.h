#pragma once
/// How vessels at other depths than bone lie displaced when the beam was tilted between two runs.

#include <array>
#include <vector>

namespace cinelumen {

/// What is seen of a vessel's displacement at a place: its part along `direction`; a vessel shows that across itself only. Run px.
struct ParallaxSample {
  int segment = 0;
  double arc_px = 0;                        ///< along the segment
  double y = 0, x = 0;                      ///< where the registration puts it
  double direction_y = 0, direction_x = 1;  ///< unit vector
  double offset_px = 0;                     ///< of the displacement along it
  double sd_px = 1;                         ///< > 0
};

/// Places of two segments that meet in space: their displacement is the same.
struct ParallaxTie {
  int first_segment, second_segment;
  double first_arc_px, second_arc_px;
};

/// What is believed of vessels before anything is seen.
struct ParallaxPrior {
  double px_per_mm = 4;            ///< run px
  double tilted_slope_sd = 0.025;  ///< of the displacement in the common direction, px per px of vessel: depth's slope x tilt
  double other_slope_sd = 0.004;   ///< the same across that direction: what is no tilt
  double tilted_sd_mm = 1;         ///< of the displacement itself, in the common direction
  double other_sd_mm = 0.15;       ///< and across it
  double shift_sd_mm = 0.5;        ///< of a shift of all, beyond the registration
  double linear_sd = 0.005;        ///< of a stretch, turn or shear of all
};

/// A tilt moves what lies z deeper by z sin(tilt), all in one direction. So the displacement of every vessel is a smooth function of its
/// arc length along one direction that all share, beside what moves all vessels alike: what a vessel shows across itself then tells how it
/// lies displaced along itself too.
class VesselParallax {
 public:
  /// lengths_px: of the segments. centre, extent_px: of the picture in the run.
  VesselParallax(const std::vector<double>& lengths_px, const std::vector<ParallaxTie>& ties, std::array<double, 2> centre,
                 double extent_px, const ParallaxPrior& prior);

  /// Fits all to the samples, robustly; the direction too. Starts from what was fitted before.
  void fit(const std::vector<ParallaxSample>& samples);

  /// (dy, dx), run px, of a place of a segment that the registration puts at (y, x).
  std::array<double, 2> at(int segment, double arc_px, double y, double x) const;

  double direction_rad() const { return direction_; }  ///< of the common displacement, from +x to +y, modulo pi

 private:
  struct Equation;
  struct Knots {
    int first, last;  // numbers of two neighbouring knots
    double fraction;  // of the way between
  };
  Knots knots_at(int segment, double arc_px) const;
  std::vector<Equation> sample_equations(const std::vector<ParallaxSample>& samples) const;
  std::vector<Equation> tie_equations() const;
  std::vector<Equation> prior_equations(const ParallaxPrior& prior, double direction) const;
  double solve(const std::vector<Equation>& equations);
  std::vector<Equation> bounded(std::vector<Equation> seen) const;

  std::vector<int> first_knot_, knots_;  // per segment
  std::vector<double> lengths_;
  std::vector<ParallaxTie> ties_;
  std::array<double, 2> centre_;
  double extent_;
  ParallaxPrior prior_;
  double direction_ = 0;
  std::vector<double> unknowns_;  // shift (y, x) and the 2 x 2 linear part, then (y, x) of each knot
};

}  // namespace cinelumen
