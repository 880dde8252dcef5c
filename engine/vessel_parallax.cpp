#include "engine/vessel_parallax.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace cinelumen {
namespace {

constexpr double knot_spacing_px = 20;  // along a vessel
constexpr int common = 6;               // unknowns that all vessels share
constexpr double outlying = 2.5;        // SDs: beyond it a sample counts less and less

}  // namespace

/// sum of coefficient x unknown = right, with weight 1 / variance.
struct VesselParallax::Equation {
  static constexpr int most = 10;
  std::array<int, most> unknown{};
  std::array<double, most> coefficient{};
  int count = 0;
  double right = 0, weight = 1;
  void add(int which, double value) {
    unknown[count] = which;
    coefficient[count++] = value;
  }
  double residual(const std::vector<double>& x) const {
    double sum = -right;
    for (int i = 0; i < count; ++i) sum += coefficient[i] * x[unknown[i]];
    return sum;
  }
};

VesselParallax::VesselParallax(const std::vector<double>& lengths_px, const std::vector<ParallaxTie>& ties, std::array<double, 2> centre,
                               double extent_px, const ParallaxPrior& prior)
    : lengths_(lengths_px), ties_(ties), centre_(centre), extent_(extent_px), prior_(prior) {
  int knots = 0;
  for (const double length : lengths_px) {
    first_knot_.push_back(knots);
    knots_.push_back(2 + static_cast<int>(length / knot_spacing_px));
    knots += knots_.back();
  }
  unknowns_.assign(common + 2 * static_cast<std::size_t>(knots), 0);
}

VesselParallax::Knots VesselParallax::knots_at(int segment, double arc_px) const {
  const int steps = knots_[segment] - 1;
  const double at = lengths_[segment] > 0 ? std::clamp(arc_px / lengths_[segment], 0.0, 1.0) * steps : 0;
  const int i = std::min(static_cast<int>(at), steps - 1);
  return {first_knot_[segment] + i, first_knot_[segment] + i + 1, at - i};
}

std::array<double, 2> VesselParallax::at(int segment, double arc_px, double y, double x) const {
  const Knots k = knots_at(segment, arc_px);
  const double v = (y - centre_[0]) / extent_, u = (x - centre_[1]) / extent_;
  std::array<double, 2> d{};
  for (int part = 0; part < 2; ++part)
    d[part] = unknowns_[part] + unknowns_[2 + 2 * part] * v + unknowns_[3 + 2 * part] * u +
              (1 - k.fraction) * unknowns_[common + 2 * k.first + part] + k.fraction * unknowns_[common + 2 * k.last + part];
  return d;
}

std::vector<VesselParallax::Equation> VesselParallax::sample_equations(const std::vector<ParallaxSample>& samples) const {
  std::vector<Equation> equations;
  for (const ParallaxSample& s : samples) {
    const Knots k = knots_at(s.segment, s.arc_px);
    const std::array<double, 2> direction = {s.direction_y, s.direction_x};
    Equation e;
    for (int part = 0; part < 2; ++part) {
      e.add(part, direction[part]);
      e.add(2 + 2 * part, direction[part] * (s.y - centre_[0]) / extent_);
      e.add(3 + 2 * part, direction[part] * (s.x - centre_[1]) / extent_);
      e.add(common + 2 * k.first + part, direction[part] * (1 - k.fraction));
      e.add(common + 2 * k.last + part, direction[part] * k.fraction);
    }
    e.right = s.offset_px;
    e.weight = 1 / (s.sd_px * s.sd_px);
    equations.push_back(e);
  }
  return equations;
}

std::vector<VesselParallax::Equation> VesselParallax::tie_equations() const {
  constexpr double sd_px = 0.5;
  std::vector<Equation> equations;
  for (const ParallaxTie& tie : ties_) {
    const Knots a = knots_at(tie.first_segment, tie.first_arc_px), b = knots_at(tie.second_segment, tie.second_arc_px);
    for (int part = 0; part < 2; ++part) {
      Equation e;
      e.add(common + 2 * a.first + part, 1 - a.fraction);
      e.add(common + 2 * a.last + part, a.fraction);
      e.add(common + 2 * b.first + part, b.fraction - 1);
      e.add(common + 2 * b.last + part, -b.fraction);
      e.weight = 1 / (sd_px * sd_px);
      equations.push_back(e);
    }
  }
  return equations;
}

std::vector<VesselParallax::Equation> VesselParallax::prior_equations(const ParallaxPrior& prior, double direction) const {
  std::vector<Equation> equations;
  const auto believe = [&](Equation e, double sd) {
    e.weight = 1 / (sd * sd);
    equations.push_back(e);
  };
  for (int i = 0; i < common; ++i) {
    Equation e;
    e.add(i, 1);
    believe(e, i < 2 ? prior.shift_sd_mm * prior.px_per_mm : prior.linear_sd * extent_);
  }
  // In the common direction, then across it.
  const std::array<std::array<double, 2>, 2> axes = {
      {{std::sin(direction), std::cos(direction)}, {std::cos(direction), -std::sin(direction)}}};
  const std::array<double, 2> slope_sd = {prior.tilted_slope_sd, prior.other_slope_sd},
                              value_sd = {prior.tilted_sd_mm * prior.px_per_mm, prior.other_sd_mm * prior.px_per_mm};
  for (std::size_t s = 0; s < lengths_.size(); ++s) {
    const double step = std::max(1.0, lengths_[s] / (knots_[s] - 1));
    for (int i = 0; i < knots_[s]; ++i)
      for (int axis = 0; axis < 2; ++axis) {
        const int at = common + 2 * (first_knot_[s] + i);
        Equation value;
        value.add(at, axes[axis][0]);
        value.add(at + 1, axes[axis][1]);
        if (i + 1 < knots_[s]) {
          Equation slope = value;
          slope.add(at + 2, -axes[axis][0]);
          slope.add(at + 3, -axes[axis][1]);
          believe(slope, slope_sd[axis] * step);
        }
        // The knots of a segment are one vessel: together they weigh as one.
        believe(value, value_sd[axis] * std::sqrt(static_cast<double>(knots_[s])));
      }
  }
  return equations;
}

/// Least squares by conjugate gradients from what is known; returns the sum of weighted squares.
double VesselParallax::solve(const std::vector<Equation>& equations) {
  constexpr int most_steps = 150;
  constexpr double enough = 1e-3;  // of the scaled gradient's square: what is left moves the sum of squares by less
  const std::size_t n = unknowns_.size();
  std::vector<double> gradient(n, 0), diagonal(n, 0), direction(n, 0), turned(n);
  for (const Equation& e : equations) {
    const double r = e.residual(unknowns_);
    for (int i = 0; i < e.count; ++i) {
      gradient[e.unknown[i]] -= e.weight * r * e.coefficient[i];
      diagonal[e.unknown[i]] += e.weight * e.coefficient[i] * e.coefficient[i];
    }
  }
  const auto squared_gradient = [&] {
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += gradient[i] * gradient[i] / diagonal[i];
    return sum;
  };
  double now = squared_gradient();
  for (std::size_t i = 0; i < n; ++i) direction[i] = gradient[i] / diagonal[i];
  for (int step = 0; step < most_steps && now > enough; ++step) {
    std::fill(turned.begin(), turned.end(), 0);
    double curvature = 0;
    for (const Equation& e : equations) {
      double along = 0;
      for (int i = 0; i < e.count; ++i) along += e.coefficient[i] * direction[e.unknown[i]];
      curvature += e.weight * along * along;
      for (int i = 0; i < e.count; ++i) turned[e.unknown[i]] += e.weight * along * e.coefficient[i];
    }
    if (!(curvature > 0)) break;
    const double length = now / curvature;
    for (std::size_t i = 0; i < n; ++i) {
      unknowns_[i] += length * direction[i];
      gradient[i] -= length * turned[i];
    }
    const double next = squared_gradient();
    for (std::size_t i = 0; i < n; ++i) direction[i] = gradient[i] / diagonal[i] + next / now * direction[i];
    now = next;
  }
  double cost = 0;
  for (const Equation& e : equations) cost += e.weight * e.residual(unknowns_) * e.residual(unknowns_);
  return cost;
}

std::vector<VesselParallax::Equation> VesselParallax::bounded(std::vector<Equation> seen) const {
  for (Equation& e : seen) {
    const double r = e.residual(unknowns_), u2 = r * r * e.weight / (outlying * outlying);
    e.weight /= (1 + u2) * (1 + u2);
  }
  return seen;
}

void VesselParallax::fit(const std::vector<ParallaxSample>& samples) {
  constexpr int rounds = 3, directions = 12, refinements = 3;
  std::vector<Equation> seen = sample_equations(samples);
  for (const Equation& e : tie_equations()) seen.push_back(e);
  const auto solve_with = [&](const std::vector<Equation>& of_samples, const std::vector<Equation>& of_prior) {
    std::vector<Equation> all = of_samples;
    all.insert(all.end(), of_prior.begin(), of_prior.end());
    return solve(all);
  };
  // Which samples to trust: from a fit that prefers no direction.
  ParallaxPrior even = prior_;
  even.other_slope_sd = even.tilted_slope_sd;
  even.other_sd_mm = even.tilted_sd_mm;
  const std::vector<Equation> any_direction = prior_equations(even, 0);
  for (int i = 0; i < rounds; ++i) solve_with(bounded(seen), any_direction);

  const std::vector<Equation> trusted = bounded(seen);
  const auto cost_of = [&](double direction) { return solve_with(trusted, prior_equations(prior_, direction)); };
  double width = std::numbers::pi / directions, least = cost_of(direction_);
  const double from = direction_;
  for (int i = 1; i < directions; ++i)
    if (const double cost = cost_of(from + i * width); cost < least) {
      least = cost;
      direction_ = from + i * width;
    }
  for (int i = 0; i < refinements; ++i) {
    width /= 2;
    for (const double direction : {direction_ - width, direction_ + width})
      if (const double cost = cost_of(direction); cost < least) {
        least = cost;
        direction_ = direction;
        break;
      }
  }
  const std::vector<Equation> one_direction = prior_equations(prior_, direction_);
  for (int i = 0; i < rounds; ++i) solve_with(bounded(seen), one_direction);
}

}  // namespace cinelumen
