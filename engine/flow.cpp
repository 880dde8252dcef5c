#include "engine/flow.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "engine/dense_matrix.h"

namespace cinelumen {
namespace {

constexpr double no_value = std::numeric_limits<double>::quiet_NaN();

// --- curves ---

struct Samples {
  std::vector<double> t, c, sd;  // s since the first sample; contrast; its SD
  double start_ms = 0;
  std::size_t size() const { return t.size(); }
};

Samples readable_samples(const TimeDensityCurve& curve, double noise_sd) {
  Samples samples;
  const double usual = std::isfinite(noise_sd) && noise_sd > 0 ? noise_sd : 1e-3;
  for (std::size_t i = 0; i < std::min(curve.time_ms.size(), curve.contrast.size()); ++i) {
    if (!std::isfinite(curve.time_ms[i]) || !std::isfinite(curve.contrast[i])) continue;
    if (samples.size() == 0) samples.start_ms = curve.time_ms[i];
    const double t = (curve.time_ms[i] - samples.start_ms) / 1000;
    if (samples.size() > 0 && t <= samples.t.back()) continue;
    const double own = i < curve.contrast_sd.size() ? curve.contrast_sd[i] : no_value;
    samples.t.push_back(t);
    samples.c.push_back(curve.contrast[i]);
    samples.sd.push_back(std::max(1e-9, std::isfinite(own) && own > 0 ? own : usual));
  }
  return samples;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double frame_interval(const Samples& s) {
  std::vector<double> steps;
  for (std::size_t i = 1; i < s.size(); ++i) steps.push_back(s.t[i] - s.t[i - 1]);
  return steps.empty() ? 0 : median(steps);
}

// Mean of a sample and its neighbours, with its SD.
struct Smoothed {
  double value, sd;
};
Smoothed smoothed(const Samples& s, std::size_t i) {
  const std::size_t from = i > 0 ? i - 1 : 0, to = std::min(i + 2, s.size());
  double sum = 0, variance = 0;
  for (std::size_t k = from; k < to; ++k) {
    sum += s.c[k];
    variance += s.sd[k] * s.sd[k];
  }
  const double n = static_cast<double>(to - from);
  return {sum / n, std::sqrt(variance) / n};
}

// --- monotone curve through the rise ---

struct Knot {
  double t, c;
};

// Isotonic regression (pool adjacent violators) of samples [from, to): the centres of its blocks.
std::vector<Knot> isotonic(const Samples& s, std::size_t from, std::size_t to) {
  struct Pool {
    double weight, c, t;
    std::size_t count;
  };
  std::vector<Pool> pools;
  for (std::size_t i = from; i < to; ++i) {
    const double w = 1 / (s.sd[i] * s.sd[i]);
    pools.push_back({w, s.c[i], s.t[i], 1});
    while (pools.size() > 1 && pools[pools.size() - 2].c >= pools.back().c) {
      const Pool last = pools.back();
      pools.pop_back();
      Pool& p = pools.back();
      const double sum = p.weight + last.weight;
      p = {sum, (p.weight * p.c + last.weight * last.c) / sum, (p.weight * p.t + last.weight * last.t) / sum, p.count + last.count};
    }
  }
  std::vector<Knot> knots;
  for (const Pool& p : pools) knots.push_back({p.t, p.c});
  return knots;
}

// Slopes of Fritsch and Carlson's monotone cubic (PCHIP) at the knots.
std::vector<double> monotone_slopes(const std::vector<Knot>& k) {
  std::vector<double> slopes(k.size(), 0);
  const auto secant = [&](std::size_t i) { return (k[i + 1].c - k[i].c) / (k[i + 1].t - k[i].t); };
  for (std::size_t i = 1; i + 1 < k.size(); ++i) {
    const double a = secant(i - 1), b = secant(i), h0 = k[i].t - k[i - 1].t, h1 = k[i + 1].t - k[i].t;
    if (a * b > 0) slopes[i] = 3 * (h0 + h1) / ((2 * h1 + h0) / a + (h1 + 2 * h0) / b);
  }
  if (k.size() > 1) {
    slopes.front() = secant(0);
    slopes.back() = secant(k.size() - 2);
  }
  return slopes;
}

double monotone_cubic(const std::vector<Knot>& k, const std::vector<double>& slopes, std::size_t i, double t) {
  const double h = k[i + 1].t - k[i].t, x = (t - k[i].t) / h;
  return (1 + 2 * x) * (1 - x) * (1 - x) * k[i].c + x * (1 - x) * (1 - x) * h * slopes[i] + x * x * (3 - 2 * x) * k[i + 1].c +
         x * x * (x - 1) * h * slopes[i + 1];
}

struct Rise {
  double half_time, half_slope;  // where the curve crosses half of `top`
  double steepest;               // contrast per s
};

std::optional<Rise> find_rise(const std::vector<Knot>& knots, double half) {
  if (knots.size() < 2) return std::nullopt;
  const std::vector<double> slopes = monotone_slopes(knots);
  Rise rise{no_value, 0, 0};
  for (std::size_t i = 0; i + 1 < knots.size(); ++i) {
    rise.steepest = std::max(rise.steepest, (knots[i + 1].c - knots[i].c) / (knots[i + 1].t - knots[i].t));
    if (!std::isnan(rise.half_time) || knots[i].c > half || knots[i + 1].c < half) continue;
    double low = knots[i].t, high = knots[i + 1].t;
    for (int k = 0; k < 50; ++k) {
      const double middle = 0.5 * (low + high);
      (monotone_cubic(knots, slopes, i, middle) < half ? low : high) = middle;
    }
    rise.half_time = 0.5 * (low + high);
    rise.half_slope = (knots[i + 1].c - knots[i].c) / (knots[i + 1].t - knots[i].t);
  }
  if (std::isnan(rise.half_time)) return std::nullopt;
  return rise;
}

// --- small dense linear algebra ---

template <std::size_t N>
using Matrix = std::array<std::array<double, N>, N>;

// --- gamma variate ---

// C(t) = baseline + height (x exp(1 - x))^shape with x = (t - onset) / rise, 0 before the onset. Madsen's form, Phys Med Biol 1992.
struct GammaVariate {
  // ln height, onset, ln rise, ln shape, baseline
  std::array<double, 5> p;

  double height() const { return std::exp(p[0]); }
  double onset() const { return p[1]; }
  double rise() const { return std::exp(p[2]); }
  double shape() const { return std::exp(p[3]); }
  // Where it reaches half of its height on the way up, in units of its rise.
  double half() const {
    const double below_top = std::log(0.5) / shape();
    double low = 0, high = 1;
    for (int i = 0; i < 60; ++i) {
      const double middle = 0.5 * (low + high);
      (middle > 0 && std::log(middle) + 1 - middle >= below_top ? high : low) = middle;
    }
    return high;
  }
  double half_time() const { return onset() + rise() * half(); }
};

// The curve at many times: what its parameters stand for is worked out once.
class GammaCurve {
 public:
  explicit GammaCurve(const GammaVariate& g)
      : height_(g.height()), onset_(g.onset()), rise_(g.rise()), shape_(g.shape()), baseline_(g.p[4]) {}

  // Value and derivatives by the parameters.
  double derivatives(double t, std::array<double, 5>& d) const {
    const double x = (t - onset_) / rise_;
    d = {0, 0, 0, 0, 1};
    if (x <= 0) return baseline_;
    const double u = std::log(x) + 1 - x, c = height_ * std::exp(shape_ * u), by_x = c * shape_ * (1 / x - 1);
    d = {c, -by_x / rise_, -by_x * x, c * shape_ * u, 1};
    return baseline_ + c;
  }

 private:
  double height_, onset_, rise_, shape_, baseline_;
};

struct GammaFit {
  GammaVariate curve;
  Matrix<5> covariance;
  double chi_square;
  double reduced;  // per degree of freedom
};

// Weak knowledge: boluses have shapes around 3 within a factor of e^0.7, and subtraction leaves a baseline near 0. Without it onset and
// shape trade places along a valley, and the half-rise, which is what is wanted, is no better for it.
constexpr double usual_log_shape = 1.1, log_shape_sd = 0.7;

std::optional<GammaFit> fit_gamma_variate(const Samples& s, GammaVariate start, double baseline_sd) {
  const double duration = s.t.back() - s.t.front(), interval = frame_interval(s);
  const auto bounded = [&](GammaVariate g) {
    g.p[0] = std::clamp(g.p[0], start.p[0] - 3, start.p[0] + 3);
    g.p[1] = std::clamp(g.p[1], s.t.front() - 2 * duration, s.t.back());
    g.p[2] = std::clamp(g.p[2], std::log(0.3 * interval), std::log(4 * duration));
    g.p[3] = std::clamp(g.p[3], std::log(0.8), std::log(60.0));
    return g;
  };
  // Of the squares at a curve, and their sum: value and derivatives share what is dear, so each curve is looked at once.
  struct NormalEquations {
    Matrix<5> a{};
    std::array<double, 5> b{};
    double cost = 0;
  };
  const auto equations_at = [&](const GammaVariate& g) {
    NormalEquations at;
    std::array<double, 5> d{};
    const GammaCurve curve(g);
    at.cost = std::pow((g.p[3] - usual_log_shape) / log_shape_sd, 2) + std::pow(g.p[4] / baseline_sd, 2);
    for (std::size_t i = 0; i < s.size(); ++i) {
      const double w = 1 / (s.sd[i] * s.sd[i]), r = s.c[i] - curve.derivatives(s.t[i], d);
      at.cost += w * r * r;
      for (std::size_t j = 0; j < 5; ++j) {
        at.b[j] += w * r * d[j];
        for (std::size_t k = 0; k <= j; ++k) at.a[j][k] += w * d[j] * d[k];
      }
    }
    for (std::size_t j = 0; j < 5; ++j)
      for (std::size_t k = j + 1; k < 5; ++k) at.a[j][k] = at.a[k][j];
    at.a[3][3] += 1 / (log_shape_sd * log_shape_sd);
    at.b[3] += (usual_log_shape - g.p[3]) / (log_shape_sd * log_shape_sd);
    at.a[4][4] += 1 / (baseline_sd * baseline_sd);
    at.b[4] -= g.p[4] / (baseline_sd * baseline_sd);
    return at;
  };
  GammaFit fit{bounded(start), {}, 0, 0};
  NormalEquations here = equations_at(fit.curve);
  Matrix<5> inverse{};
  double damping = 1e-2;
  for (int iteration = 0; iteration < 50 && damping < 1e10; ++iteration) {
    Matrix<5> damped = here.a;
    for (std::size_t j = 0; j < 5; ++j) damped[j][j] += damping * here.a[j][j] + 1e-12;
    if (!invert(damped, inverse)) return std::nullopt;
    GammaVariate next = fit.curve;
    for (std::size_t j = 0; j < 5; ++j)
      for (std::size_t k = 0; k < 5; ++k) next.p[j] += inverse[j][k] * here.b[k];
    next = bounded(next);
    const NormalEquations there = equations_at(next);
    if (std::isfinite(there.cost) && there.cost <= here.cost) {
      const bool settled = here.cost - there.cost <= 1e-7 * (1 + here.cost);
      fit.curve = next;
      here = there;
      damping = std::max(1e-9, damping * 0.2);
      if (settled) break;
    } else {
      damping *= 6;
    }
  }
  if (!invert(here.a, fit.covariance)) return std::nullopt;
  fit.chi_square = here.cost;
  fit.reduced = here.cost / std::max(1.0, static_cast<double>(s.size()) - 5);
  return fit;
}

std::optional<GammaFit> best_gamma_fit(const Samples& s, double peak, double half_time, double peak_time) {
  std::optional<GammaFit> best;
  const double half_rise = std::max(peak_time - half_time, 0.5 * frame_interval(s));
  constexpr double as_good_as_any = 1.3;  // reduced chi square: what is left is noise, another start would end no nearer
  for (const double shape : {3.0, 1.5, 8.0}) {
    // For this shape, where between onset and peak the half lies: start from the half-rise and the peak that were seen.
    GammaVariate unit{{0, 0, 0, std::log(shape), 0}};
    const double tau = half_rise / (1 - unit.half());
    const auto fit = fit_gamma_variate(s, {{std::log(peak), peak_time - tau, std::log(tau), std::log(shape), 0}}, 0.05 * peak);
    if (fit && (!best || fit->chi_square < best->chi_square)) best = fit;
    if (best && best->reduced < as_good_as_any) break;
  }
  return best;
}

// SD of the fitted curve's half-rise, by its gradient.
double half_rise_sd(const GammaFit& fit) {
  const GammaVariate& curve = fit.curve;
  const double x = curve.half();
  // By ln height, onset, ln rise, ln shape and baseline.
  const std::array<double, 5> gradient = {0, 1, curve.rise() * x, -curve.rise() * (std::log(x) + 1 - x) / (1 / x - 1), 0};
  double variance = 0;
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t j = 0; j < 5; ++j) variance += gradient[i] * fit.covariance[i][j] * gradient[j];
  return std::sqrt(std::max(0.0, variance) * std::max(1.0, fit.reduced));
}

double trapezoids(const Samples& s) {
  double area = 0;
  for (std::size_t i = 1; i < s.size(); ++i) area += 0.5 * (s.t[i] - s.t[i - 1]) * (s.c[i] + s.c[i - 1]);
  return area;
}

struct Shape {
  std::size_t top;  // index of the largest smoothed sample
  double peak;      // contrast there
  bool opacified, rises, falls;
};

Shape look_at(const Samples& s) {
  Shape shape{0, 0, false, false, false};
  double best = -std::numeric_limits<double>::infinity(), best_ratio = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    const Smoothed m = smoothed(s, i);
    if (m.value > best) {
      best = m.value;
      shape.top = i;
    }
    best_ratio = std::max(best_ratio, m.value / m.sd);
  }
  shape.peak = best;
  shape.opacified = best > 0 && best_ratio > 5;
  const auto differs = [&](std::size_t i) {
    const Smoothed m = smoothed(s, i), top = smoothed(s, shape.top);
    return m.value < 0.5 * best && top.value - m.value > 3 * std::hypot(m.sd, top.sd);
  };
  for (std::size_t i = 0; i < s.size(); ++i)
    if (differs(i)) (i < shape.top ? shape.rises : shape.falls) = true;
  return shape;
}

}  // namespace

std::vector<std::array<int, 2>> pixels_in(const NamedRegion& region, int rows, int columns) {
  std::vector<std::array<int, 2>> pixels;
  const auto& polygon = region.polygon_px;
  if (polygon.size() < 3) return pixels;
  for (const auto& point : polygon)
    if (!std::isfinite(point[0]) || !std::isfinite(point[1])) return pixels;
  std::vector<double> crossings;
  for (int y = 0; y < rows; ++y) {
    crossings.clear();
    for (std::size_t i = 0; i < polygon.size(); ++i) {
      const auto &a = polygon[i], &b = polygon[(i + 1) % polygon.size()];
      // Half open, so that a corner on the row counts once.
      if ((a[0] <= y) != (b[0] <= y)) crossings.push_back(a[1] + (y - a[0]) / (b[0] - a[0]) * (b[1] - a[1]));
    }
    std::sort(crossings.begin(), crossings.end());
    for (std::size_t k = 0; k + 1 < crossings.size(); k += 2) {
      const double from = std::max(0.0, std::ceil(crossings[k])), to = std::min<double>(columns, std::ceil(crossings[k + 1]));
      for (double x = from; x < to; ++x) pixels.push_back({y, static_cast<int>(x)});
    }
  }
  return pixels;
}

FlowTimes read_times(const TimeDensityCurve& curve, double noise_sd) {
  FlowTimes times;
  const Samples s = readable_samples(curve, noise_sd);
  if (s.size() < 3) return times;
  const Shape shape = look_at(s);
  if (!shape.opacified) return times;
  const auto on_clock = [&](double t) { return s.start_ms + 1000 * t; };

  times.area = trapezoids(s);
  times.peak = shape.peak;
  if (!shape.rises && !shape.falls) return times;

  // The peak as seen: the parabola through the three smoothed samples around the largest.
  double peak_time = s.t[shape.top];
  if (shape.top > 0 && shape.top + 1 < s.size()) {
    const double left = s.t[shape.top] - s.t[shape.top - 1], right = s.t[shape.top + 1] - s.t[shape.top];
    const double up = (shape.peak - smoothed(s, shape.top - 1).value) / left,
                 down = (shape.peak - smoothed(s, shape.top + 1).value) / right;
    if (up + down > 0) peak_time += std::clamp(0.5 * (up * right - down * left) / (up + down), -0.5 * left, 0.5 * right);
  }
  times.time_to_peak_ms = on_clock(peak_time);
  if (!shape.rises) return times;  // filled from the start: no arrival

  const std::vector<Knot> knots = isotonic(s, 0, shape.top + 1);
  const double top = std::max(shape.peak, 1e-12);
  const std::optional<Rise> rise = find_rise(knots, 0.5 * top);
  std::optional<GammaFit> gamma;
  if (s.size() >= 8 && rise && shape.falls) gamma = best_gamma_fit(s, top, rise->half_time, std::max(peak_time, rise->half_time));
  // The fit speaks only of what was seen: its peak within the run, its half-rise too.
  const bool fits =
      gamma && gamma->reduced < 2 && gamma->curve.onset() + gamma->curve.rise() < s.t.back() && gamma->curve.half_time() > s.t.front();
  if (fits) {
    const GammaVariate& g = gamma->curve;
    times.arrival_ms = on_clock(g.half_time());
    times.arrival_sd_ms = 1000 * half_rise_sd(*gamma);
    times.time_to_peak_ms = on_clock(g.onset() + g.rise());
    times.peak = g.height();
    double steepest = 0;
    std::array<double, 5> d{};
    const GammaCurve fitted(g);
    for (int i = 1; i < 200; ++i) {
      fitted.derivatives(g.onset() + g.rise() * i / 200.0, d);
      steepest = std::max(steepest, -d[1]);
    }
    times.wash_in_per_s = steepest;
  } else if (rise) {
    times.arrival_ms = on_clock(rise->half_time);
    // The bound of a curve of known form, and half as much again for the form that is not known.
    double information = 0;
    const std::vector<double> slopes = monotone_slopes(knots);
    for (std::size_t i = 0; i <= shape.top; ++i) {
      std::size_t k = 0;
      while (k + 2 < knots.size() && knots[k + 1].t < s.t[i]) ++k;
      const double secant = (knots[k + 1].c - knots[k].c) / (knots[k + 1].t - knots[k].t);
      const bool inside = s.t[i] >= knots.front().t && s.t[i] <= knots.back().t;
      if (inside) information += std::pow(secant / s.sd[i], 2);
    }
    double sd = information > 0 ? 1.5 / std::sqrt(information) : s.t.back();
    // Still rising at the end: half of what was seen is early by an unknown part of what was not.
    const std::size_t n = s.size();
    const bool still_rising =
        !shape.falls && n >= 4 &&
        smoothed(s, n - 1).value - smoothed(s, n - 4).value > 3 * std::hypot(smoothed(s, n - 1).sd, smoothed(s, n - 4).sd);
    if (still_rising) sd = std::max(sd, 0.5 * (s.t.back() - rise->half_time));
    times.arrival_sd_ms = 1000 * std::min(sd, s.t.back() - s.t.front());
    times.wash_in_per_s = rise->steepest;
  }
  if (times.arrival_ms && shape.falls) {
    double moment = 0, area = 0;
    for (std::size_t i = 1; i < s.size(); ++i) {
      const double step = 0.5 * (s.t[i] - s.t[i - 1]);
      area += step * (s.c[i] + s.c[i - 1]);
      moment += step * (s.c[i] * s.t[i] + s.c[i - 1] * s.t[i - 1]);
    }
    // The fitted curve knows the tail that the run's end cut off.
    double centre = area > 0 ? moment / area : no_value;
    if (fits) centre = gamma->curve.onset() + gamma->curve.rise() * (1 + 1 / gamma->curve.shape());
    const bool washed_out = smoothed(s, s.size() - 1).value < (fits ? 0.6 : 0.2) * top;
    const double transit = 1000 * centre - (*times.arrival_ms - s.start_ms);
    if (washed_out && std::isfinite(transit) && transit > 0) times.mean_transit_ms = transit;
  }
  return times;
}

std::optional<double> auc_relative_to_inlet(const FlowTimes& times, const FlowTimes& inlet) {
  if (!times.area || !inlet.area || !(*inlet.area > 0)) return std::nullopt;
  return *times.area / *inlet.area;
}

namespace {

// --- velocity ---

// All curves of a segment as one cubic spline, delayed in proportion to arc length, of their own height each.
class ShiftedCurves {
 public:
  ShiftedCurves(std::vector<Samples> curves, std::vector<double> arc_length, double interval)
      : curves_(std::move(curves)), arc_length_(std::move(arc_length)), interval_(interval) {
    const double middle = 0.5 * (arc_length_.front() + arc_length_.back());
    for (double& s : arc_length_) s -= middle;
  }

  // Chi^2 of the best spline and heights for a delay of `slowness` s per mm.
  double chi_square(double slowness) {
    double first = std::numeric_limits<double>::infinity(), last = -first;
    for (std::size_t i = 0; i < curves_.size(); ++i) {
      first = std::min(first, curves_[i].t.front() - slowness * arc_length_[i]);
      last = std::max(last, curves_[i].t.back() - slowness * arc_length_[i]);
    }
    const auto knots = static_cast<std::size_t>(std::ceil((last - first) / interval_)) + 3;
    delay_samples(slowness, first, knots);
    // From the second delay on the heights start from the last one's.
    const int passes = height_.empty() ? 6 : 3;
    if (height_.empty()) height_.assign(curves_.size(), 1);
    double chi = 0;
    for (int pass = 0; pass < passes; ++pass) {
      fit_spline(knots);
      chi = fit_heights();
    }
    return chi;
  }

  std::size_t sample_count() const {
    std::size_t n = 0;
    for (const Samples& s : curves_) n += s.size();
    return n;
  }
  std::size_t curve_count() const { return curves_.size(); }

 private:
  // A sample, delayed: the splines that do not vanish there.
  struct Delayed {
    std::size_t curve, at;
    std::array<double, 4> basis;
    double weight, c;
  };
  static std::array<double, 4> basis(double f) {
    const double g = 1 - f;
    return {g * g * g / 6, (4 - 6 * f * f + 3 * f * f * f) / 6, (4 - 6 * g * g + 3 * g * g * g) / 6, f * f * f / 6};
  }
  void delay_samples(double slowness, double first, std::size_t knots) {
    delayed_.clear();
    for (std::size_t i = 0; i < curves_.size(); ++i) {
      const Samples& s = curves_[i];
      for (std::size_t k = 0; k < s.size(); ++k) {
        const double x = (s.t[k] - slowness * arc_length_[i] - first) / interval_;
        const double whole = std::clamp(std::floor(x), 0.0, static_cast<double>(knots - 4));
        delayed_.push_back({i, static_cast<std::size_t>(whole), basis(std::clamp(x - whole, 0.0, 1.0)), 1 / (s.sd[k] * s.sd[k]), s.c[k]});
      }
    }
  }

  // Weighted least squares with a little smoothness, so that stretches without samples are bridged. Banded Cholesky.
  void fit_spline(std::size_t knots) {
    band_.assign(knots, {});  // band[i][j] = A(i, i + j)
    right_.assign(knots, 0);
    std::vector<std::array<double, 4>>& band = band_;
    std::vector<double>& right = right_;
    double trace = 0;
    for (const Delayed& s : delayed_) {
      const double a = height_[s.curve], wa = s.weight * a, waa = wa * a;
      for (std::size_t m = 0; m < 4; ++m) {
        right[s.at + m] += wa * s.c * s.basis[m];
        for (std::size_t n = m; n < 4; ++n) band[s.at + m][n - m] += waa * s.basis[m] * s.basis[n];
      }
      trace += waa;
    }
    const double smooth = 1e-3 * trace / static_cast<double>(knots);
    for (std::size_t i = 0; i + 2 < knots; ++i) {  // second differences
      const std::array<double, 3> d = {1, -2, 1};
      for (std::size_t m = 0; m < 3; ++m)
        for (std::size_t n = m; n < 3; ++n) band[i + m][n - m] += smooth * d[m] * d[n];
    }
    for (std::size_t i = 0; i < knots; ++i) band[i][0] += 1e-9 * trace / static_cast<double>(knots) + 1e-300;
    for (std::size_t i = 0; i < knots; ++i) {
      for (std::size_t back = 1; back <= std::min<std::size_t>(3, i); ++back) {
        const std::array<double, 4>& above = band[i - back];
        for (std::size_t j = 0; j + back < 4; ++j) band[i][j] -= above[back] * above[back + j];
        right[i] -= above[back] * right[i - back];
      }
      const double root = std::sqrt(std::max(band[i][0], 1e-300));
      for (double& value : band[i]) value /= root;
      right[i] /= root;
    }
    spline_.assign(knots, 0);
    for (std::size_t i = knots; i-- > 0;) {
      double sum = right[i];
      for (std::size_t j = 1; j < 4 && i + j < knots; ++j) sum -= band[i][j] * spline_[i + j];
      spline_[i] = sum / band[i][0];
    }
  }

  double fit_heights() {
    double chi = 0, mean = 0;
    std::size_t at = 0;
    for (std::size_t i = 0; i < curves_.size(); ++i) {
      double fc = 0, ff = 0, cc = 0;
      for (; at < delayed_.size() && delayed_[at].curve == i; ++at) {
        const Delayed& s = delayed_[at];
        double value = 0;
        for (std::size_t m = 0; m < 4; ++m) value += s.basis[m] * spline_[s.at + m];
        fc += s.weight * value * s.c;
        ff += s.weight * value * value;
        cc += s.weight * s.c * s.c;
      }
      height_[i] = ff > 0 ? std::max(0.05, fc / ff) : 1;
      chi += cc - 2 * height_[i] * fc + height_[i] * height_[i] * ff;
      mean += height_[i] / static_cast<double>(curves_.size());
    }
    for (double& h : height_) h /= mean;  // the spline carries the common height
    return chi;
  }

  std::vector<Samples> curves_;
  std::vector<double> arc_length_, height_, spline_, right_;
  std::vector<std::array<double, 4>> band_;
  std::vector<Delayed> delayed_;
  double interval_;
};

struct Delay {
  double slowness, sd;  // s per mm
};

std::optional<Delay> find_delay(ShiftedCurves& curves, double start, double length, double interval, double longest) {
  // Steps of a third of a frame over the whole length, around where the single curves' half-rises say.
  const double step = interval / 3 / length;
  const double most = longest / length;
  double best = std::clamp(start, -most, most), best_chi = curves.chi_square(best);
  for (int round = 0, centre_moved = 1; round < 4 && centre_moved; ++round) {
    centre_moved = 0;
    const double centre = best;
    for (int k = -6; k <= 6; ++k) {
      const double u = centre + k * step;
      if (k == 0 || std::abs(u) > most) continue;
      const double chi = curves.chi_square(u);
      if (chi < best_chi) {
        best_chi = chi;
        best = u;
        centre_moved = std::abs(k) >= 5;
      }
    }
  }
  // Golden section between the neighbours.
  constexpr double golden = 0.6180339887498949;
  double low = best - step, high = best + step;
  double a = high - golden * (high - low), b = low + golden * (high - low);
  double chi_a = curves.chi_square(a), chi_b = curves.chi_square(b);
  for (int i = 0; i < 16; ++i) {
    if (chi_a < chi_b) {
      high = b;
      b = a;
      chi_b = chi_a;
      a = high - golden * (high - low);
      chi_a = curves.chi_square(a);
    } else {
      low = a;
      a = b;
      chi_a = chi_b;
      b = low + golden * (high - low);
      chi_b = curves.chi_square(b);
    }
  }
  best = 0.5 * (low + high);
  best_chi = curves.chi_square(best);
  // Curvature of the profile likelihood, taken over about one SD to each side.
  double reach = 0.25 * step, curvature = 0;
  for (int i = 0; i < 3; ++i) {
    curvature = (curves.chi_square(best + reach) + curves.chi_square(best - reach) - 2 * best_chi) / (reach * reach);
    if (!(curvature > 0)) {
      reach *= 4;
      continue;
    }
    reach = std::clamp(std::sqrt(2 / curvature), 0.05 * step, 2 * step);
  }
  if (!(curvature > 0) || !std::isfinite(curvature)) return std::nullopt;
  const double freedom = std::max(1.0, 0.8 * static_cast<double>(curves.sample_count()) - static_cast<double>(curves.curve_count()));
  return Delay{best, std::sqrt(2 / curvature * std::max(1.0, best_chi / freedom))};
}

}  // namespace

SegmentFlow read_segment_flow(const TimeDensityCurve& mean_curve, const std::vector<double>& arc_length_mm,
                              const std::vector<TimeDensityCurve>& along, double noise_sd) {
  if (arc_length_mm.size() != along.size())
    throw std::invalid_argument("read_segment_flow: " + std::to_string(arc_length_mm.size()) + " arc lengths for " +
                                std::to_string(along.size()) + " curves");
  SegmentFlow flow;
  flow.curve = mean_curve;
  flow.times = read_times(mean_curve, noise_sd);

  // Curves whose rise was seen, and when.
  std::vector<Samples> curves;
  std::vector<double> arc_length, half_time;
  double start_ms = 0;
  for (std::size_t i = 0; i < along.size(); ++i) {
    Samples s = readable_samples(along[i], noise_sd);
    if (!std::isfinite(arc_length_mm[i]) || s.size() < 5) continue;
    const Shape shape = look_at(s);
    if (!shape.opacified || !shape.rises) continue;
    const auto rise = find_rise(isotonic(s, 0, shape.top + 1), 0.5 * shape.peak);
    if (!rise) continue;
    if (curves.empty()) start_ms = s.start_ms;
    const double late = (s.start_ms - start_ms) / 1000;
    for (double& t : s.t) t += late;
    half_time.push_back(rise->half_time + late);
    arc_length.push_back(arc_length_mm[i]);
    curves.push_back(std::move(s));
  }
  if (curves.size() < 3) return flow;
  const auto [least, most] = std::minmax_element(arc_length.begin(), arc_length.end());
  const double length = *most - *least, interval = frame_interval(curves.front());
  if (!(length > 0) || !(interval > 0)) return flow;

  // Only around the rise: what comes long after it says nothing of the delay, and costs.
  const auto [earliest, latest] = std::minmax_element(half_time.begin(), half_time.end());
  const double from = *earliest - 12 * interval, to = *latest + 24 * interval;
  double longest = 0;
  for (Samples& s : curves) {
    Samples part;
    for (std::size_t k = 0; k < s.size(); ++k)
      if (s.t[k] >= from && s.t[k] <= to) {
        part.t.push_back(s.t[k]);
        part.c.push_back(s.c[k]);
        part.sd.push_back(s.sd[k]);
      }
    s = std::move(part);
    longest = std::max(longest, s.t.back() - s.t.front());
  }
  // Theil-Sen through the half-rises.
  std::vector<double> slopes;
  for (std::size_t i = 0; i < curves.size(); ++i)
    for (std::size_t j = i + 1; j < curves.size(); ++j)
      if (arc_length[i] != arc_length[j]) slopes.push_back((half_time[j] - half_time[i]) / (arc_length[j] - arc_length[i]));
  if (slopes.empty()) return flow;

  ShiftedCurves shifted(std::move(curves), arc_length, interval);
  const auto delay = find_delay(shifted, median(slopes), length, interval, longest);
  if (!delay) return flow;
  const double transit = std::abs(delay->slowness) * length, transit_sd = delay->sd * length;
  flow.against_arc_length = delay->slowness < 0;
  if (transit >= 3 * interval) {
    if (transit < 2 * transit_sd) return flow;
    flow.velocity_mm_s = 1 / std::abs(delay->slowness);
    flow.velocity_sd_mm_s = *flow.velocity_mm_s * transit_sd / transit;
  } else {
    // One-sided 95 %, and never finer than one frame: within its exposure nothing is resolved.
    flow.velocity_mm_s = length / std::max(interval, transit + 1.645 * transit_sd);
    flow.velocity_is_lower_bound = true;
  }
  return flow;
}

}  // namespace cinelumen
