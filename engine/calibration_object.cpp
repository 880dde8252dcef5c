#include "engine/calibration_object.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <numbers>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "engine/dense_matrix.h"
#include "engine/median.h"
#include "engine/run.h"

namespace cinelumen {
namespace {

using Point = std::array<double, 2>;  // (y, x)

std::string number(double value, int digits = 4) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*g", digits, value);
  return text;
}
std::string place(const Point& p) { return number(p[0], 5) + "," + number(p[1], 5); }

double robust_sd(const std::vector<double>& values, double centre) {
  std::vector<double> away;
  for (const double value : values) away.push_back(std::abs(value - centre));
  return 1.4826 * middle_of(away);
}

/// The picture: attenuation where it may be read.
struct Picture {
  ImageView<const float> attenuation;
  ImageView<const std::uint8_t> valid;
  bool readable(int y, int x) const {
    return y >= 0 && x >= 0 && y < attenuation.height && x < attenuation.width && (valid.data == nullptr || valid(y, x) != 0);
  }
  // Bilinear; NaN outside.
  double at(double y, double x) const {
    const int y0 = static_cast<int>(std::floor(y)), x0 = static_cast<int>(std::floor(x));
    if (!readable(y0, x0) || !readable(y0 + 1, x0) || !readable(y0, x0 + 1) || !readable(y0 + 1, x0 + 1)) return NAN;
    const double fy = y - y0, fx = x - x0;
    return (1 - fy) * ((1 - fx) * attenuation(y0, x0) + fx * attenuation(y0, x0 + 1)) +
           fy * ((1 - fx) * attenuation(y0 + 1, x0) + fx * attenuation(y0 + 1, x0 + 1));
  }
};

// --- least squares ---

using Residuals = std::function<void(const std::vector<double>&, std::vector<double>&)>;

struct Solution {
  std::vector<double> parameters, sd;  // SDs for residuals of SD 1
  double squares = 0;
};

// Levenberg-Marquardt with one-sided differences; `steps`: of the differences.
Solution solve(std::vector<double> p, const std::vector<double>& steps, const Residuals& residuals, int iterations) {
  const std::size_t n = p.size();
  std::vector<double> r, moved;
  std::vector<std::vector<double>> columns(n), normal(n, std::vector<double>(n));
  residuals(p, r);
  const auto squares_of = [](const std::vector<double>& v) { return std::inner_product(v.begin(), v.end(), v.begin(), 0.0); };
  double best = squares_of(r), damping = 1e-3;
  const auto linearise = [&] {
    for (std::size_t j = 0; j < n; ++j) {
      std::vector<double> q = p;
      q[j] += steps[j];
      residuals(q, columns[j]);
      for (std::size_t i = 0; i < r.size(); ++i) columns[j][i] = (columns[j][i] - r[i]) / steps[j];
    }
    for (std::size_t a = 0; a < n; ++a)
      for (std::size_t b = 0; b < n; ++b) normal[a][b] = std::inner_product(columns[a].begin(), columns[a].end(), columns[b].begin(), 0.0);
  };
  for (int iteration = 0; iteration < iterations && damping < 1e8; ++iteration) {
    linearise();
    auto damped = normal;
    for (std::size_t j = 0; j < n; ++j) damped[j][j] += damping * normal[j][j] + 1e-12;
    std::vector<std::vector<double>> inverted;
    if (!invert(damped, inverted)) break;
    std::vector<double> next = p;
    for (std::size_t a = 0; a < n; ++a)
      for (std::size_t b = 0; b < n; ++b)
        next[a] -= inverted[a][b] * std::inner_product(columns[b].begin(), columns[b].end(), r.begin(), 0.0);
    residuals(next, moved);
    const double now = squares_of(moved);
    if (std::isfinite(now) && now <= best) {
      const bool settled = best - now < 1e-7 * best;
      p = next;
      r = moved;
      best = now;
      damping = std::max(1e-7, 0.2 * damping);
      if (settled) break;
    } else {
      damping *= 10;
    }
  }
  linearise();
  std::vector<std::vector<double>> covariance;
  const bool known = invert(normal, covariance);
  Solution result{p, std::vector<double>(n, INFINITY), best};
  for (std::size_t j = 0; j < n && known; ++j) result.sd[j] = std::sqrt(std::max(0.0, covariance[j][j]));
  return result;
}

// --- the tube ---

struct Shape {
  double radius = 5, inner_share = 0;  // inner over outer radius
  double log_kappa = -4;               // attenuation per px of wall
  double psf = 0.8;                    // with the pixel
};

constexpr double thinnest_wall = 0.05;  // of the outer radius: thinner ones look alike
constexpr double narrowest_psf = 0.3, widest_psf = 4;

/// Attenuation across a tube of wall: the blur acts on what is transmitted.
class TubeProfile {
 public:
  TubeProfile(const Shape& shape, double half_width) {
    const double radius = std::max(shape.radius, 0.3), inner = std::clamp(shape.inner_share, 0.0, 1 - thinnest_wall) * radius,
                 kappa = std::exp(std::clamp(shape.log_kappa, -12.0, 2.0)), s = std::clamp(shape.psf, narrowest_psf, widest_psf);
    const int taps = static_cast<int>(std::ceil(4 * s / step)), nodes = static_cast<int>(std::ceil(half_width / step)) + 3;
    std::vector<double> transmitted(nodes + taps + 1), weights(taps + 1);
    for (std::size_t i = 0; i < transmitted.size(); ++i) {
      const double from = (static_cast<double>(i) - 0.5) * step, to = from + step;
      transmitted[i] = std::exp(-kappa * (area(radius, to) - area(radius, from) - area(inner, to) + area(inner, from)) / step);
    }
    double sum = 0;
    for (int k = 0; k <= taps; ++k) {
      weights[k] = std::exp(-0.5 * std::pow(k * step / s, 2));
      sum += (k > 0 ? 2 : 1) * weights[k];
    }
    values_.resize(nodes);
    for (int i = 0; i < nodes; ++i) {
      double value = weights[0] * transmitted[i];
      for (int k = 1; k <= taps; ++k) value += weights[k] * (transmitted[std::abs(i - k)] + transmitted[i + k]);
      values_[i] = -std::log(value / sum);
    }
  }
  double at(double x) const {
    const double position = std::min(std::abs(x) / step, static_cast<double>(values_.size()) - 3);
    const int i = static_cast<int>(position);
    const double f = position - i, a = values_[std::abs(i - 1)], b = values_[i], c = values_[i + 1], d = values_[i + 2];
    return b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)));
  }

 private:
  static constexpr double step = 0.125;
  // Integral of the chord from the axis to x.
  static double area(double radius, double x) {
    if (radius <= 0) return 0;
    const double u = std::clamp(x, -radius, radius);
    return u * std::sqrt(radius * radius - u * u) + radius * radius * std::asin(u / radius);
  }
  std::vector<double> values_;
};

/// A stretch of the tube: pixels at distances from its axis.
struct Sample {
  double across, along, value;
};
struct Stretch {
  Point at{};
  double angle = 0;                            // of the axis, from +x to +y
  double centre = 0, tilt = 0;                 // of the tube against that axis
  double background = 0, slope = 0, bend = 0;  // at the axis; per px and px^2 across
  double log_kappa = 0, radius = 0;
  double rms = 0;  // of what the fit leaves
  std::vector<Sample> samples;
};

constexpr double stretch_px = 8;

// As little of what lies beside it as tells the background: the edge of a bone there bends it.
double half_window(double radius) { return 1.2 * radius + 4.5; }

Stretch take_stretch(const Picture& picture, Point at, double angle, double half_width, double length = stretch_px) {
  Stretch stretch;
  stretch.at = at;
  stretch.angle = angle;
  const double s = std::sin(angle), c = std::cos(angle), reach = std::hypot(half_width, length / 2) + 1;
  for (int y = static_cast<int>(at[0] - reach); y <= at[0] + reach; ++y)
    for (int x = static_cast<int>(at[1] - reach); x <= at[1] + reach; ++x) {
      if (!picture.readable(y, x)) continue;
      const double dy = y - at[0], dx = x - at[1], along = c * dx + s * dy, across = c * dy - s * dx;
      if (std::abs(along) <= length / 2 && std::abs(across) <= half_width)
        stretch.samples.push_back({across, along, picture.attenuation(y, x)});
    }
  return stretch;
}

// Centre, tilt, background and amplitude of a stretch under a shape, and its radius where `free_radius`. Returns how sure the radius is.
double fit_stretch(Stretch& stretch, const Shape& shape, bool free_radius) {
  const double half = half_window(shape.radius) + 4;
  std::vector<double> start = {stretch.centre, stretch.tilt, stretch.background, stretch.slope, stretch.bend, shape.log_kappa};
  std::vector<double> steps = {0.01, 1e-3, 1e-4, 1e-5, 1e-6, 1e-3};
  if (free_radius) start.push_back(shape.radius), steps.push_back(0.01);
  const auto residuals = [&](const std::vector<double>& p, std::vector<double>& r) {
    Shape now = shape;
    now.log_kappa = p[5];
    if (free_radius) now.radius = p[6];
    const TubeProfile profile(now, half);
    r.clear();
    for (const Sample& sample : stretch.samples) {
      const double x = sample.across - p[0] - p[1] * sample.along;
      r.push_back(profile.at(x) + p[2] + sample.across * (p[3] + p[4] * sample.across) - sample.value);
    }
    r.push_back(p[1] / 0.1 * 1e-3);  // a tilt beyond a tenth is another tube
  };
  const Solution fit = solve(start, steps, residuals, 12);
  stretch.centre = fit.parameters[0];
  stretch.tilt = fit.parameters[1];
  stretch.background = fit.parameters[2];
  stretch.slope = fit.parameters[3];
  stretch.bend = fit.parameters[4];
  stretch.log_kappa = fit.parameters[5];
  stretch.radius = free_radius ? fit.parameters[6] : shape.radius;
  const auto freedom = static_cast<double>(std::max<std::size_t>(stretch.samples.size(), start.size() + 2) - start.size());
  stretch.rms = std::sqrt(fit.squares / freedom);
  return free_radius ? fit.sd[6] * stretch.rms : 0;
}

struct ShapeFit {
  Shape shape;
  double radius_sd = INFINITY, squares = INFINITY, rms = INFINITY;
};

// What is known of walls: a narrow tube does not show its own. Catheters are 0.97 / 1.35 (4F), 1.17 / 1.67 (5F), 1.4 / 2 mm (6F); wires and
// filled shafts are solid.
struct Wall {
  double inner_share, sd;
};
constexpr Wall catheter_wall = {0.71, 0.1}, solid_wall = {0, 0.2};

// Shape that explains all stretches, laid on one another in bins of a quarter of a pixel.
ShapeFit fit_shape(const std::vector<Stretch>& stretches, const Shape& start, const Wall& wall, double half_width) {
  constexpr double bin = 0.25, usual_psf = 0.85, psf_sd = 0.3;  // px, with the pixel: detectors of angiography
  const int bins = static_cast<int>(2 * half_width / bin) + 1;
  std::vector<double> sums(bins, 0), places(bins, 0), counts(bins, 0), squares(bins, 0);
  for (const Stretch& stretch : stretches)
    for (const Sample& sample : stretch.samples) {
      const double x = sample.across - stretch.centre - stretch.tilt * sample.along;
      const int i = static_cast<int>(std::lround((x + half_width) / bin));
      if (i < 0 || i >= bins) continue;
      const double value = sample.value - stretch.background - sample.across * (stretch.slope + stretch.bend * sample.across);
      sums[i] += value, places[i] += x, counts[i] += 1, squares[i] += value * value;
    }
  double inside = 0, total = 0;
  for (int i = 0; i < bins; ++i)
    if (counts[i] > 1) inside += squares[i] - sums[i] * sums[i] / counts[i], total += counts[i] - 1;
  const double noise = std::max(std::sqrt(inside / std::max(1.0, total)), 1e-5);
  const auto residuals = [&](const std::vector<double>& p, std::vector<double>& r) {
    const TubeProfile profile({p[0], p[1], p[2], p[3]}, half_width + 2);
    r.clear();
    for (int i = 0; i < bins; ++i)
      if (counts[i] > 0) {
        const double x = places[i] / counts[i];
        r.push_back((profile.at(x - p[4]) + p[5] + x * (p[6] + p[7] * x) - sums[i] / counts[i]) * std::sqrt(counts[i]) / noise);
      }
    r.push_back((p[3] - usual_psf) / psf_sd);
    r.push_back((p[1] - wall.inner_share) / wall.sd);
  };
  const Solution fit = solve({start.radius, start.inner_share, start.log_kappa, start.psf, 0, 0, 0, 0},
                             {0.01, 0.005, 1e-3, 0.01, 0.01, 1e-4, 1e-5, 1e-6}, residuals, 40);
  ShapeFit result;
  result.shape = {fit.parameters[0], std::clamp(fit.parameters[1], 0.0, 1 - thinnest_wall), fit.parameters[2],
                  std::clamp(fit.parameters[3], narrowest_psf, widest_psf)};
  result.squares = fit.squares;
  const double freedom = std::max(1.0, static_cast<double>(bins) - 8), excess = std::max(1.0, fit.squares / freedom);
  result.radius_sd = fit.sd[0] * std::sqrt(excess);
  result.rms = noise * std::sqrt(fit.squares / freedom / std::max(1.0, static_cast<double>(total) / bins));
  return result;
}

// The best of several walls to start from.
ShapeFit best_shape(const std::vector<Stretch>& stretches, const Shape& start) {
  ShapeFit best;
  for (const Wall& wall : {catheter_wall, solid_wall}) {
    Shape from = start;
    from.inner_share = std::max(wall.inner_share, 0.1);
    const ShapeFit fit = fit_shape(stretches, from, wall, half_window(start.radius));
    if (fit.squares < best.squares) best = fit;
  }
  return best;
}

// --- where it is ---

struct Edges {
  double centre = 0, diameter = 0, score = 0;  // of the two opposite edges; px, and their lesser steepness
};

// Mean across a line of `length` through `at`.
std::vector<double> mean_profile(const Picture& picture, Point at, double angle, double half_width, double length) {
  const double s = std::sin(angle), c = std::cos(angle);
  std::vector<double> profile;
  for (double across = -half_width; across <= half_width; across += 0.5) {
    double sum = 0;
    int count = 0;
    for (double along = -length / 2; along <= length / 2; along += 2) {
      const double value = picture.at(at[0] + c * across + s * along, at[1] - s * across + c * along);
      if (std::isfinite(value)) sum += value, ++count;
    }
    profile.push_back(count * 2 > length / 2 ? sum / count : NAN);
  }
  return profile;
}

// Pairs of a rise and a fall as far apart as asked, the steepest first.
std::vector<Edges> find_edges(const std::vector<double>& profile, std::array<double, 2> diameters, double off_centre) {
  const int n = static_cast<int>(profile.size());
  std::vector<double> slope(n, 0);
  for (int i = 2; i + 2 < n; ++i) slope[i] = (profile[i + 2] - profile[i - 2]) / 2;  // per px; over 2 px
  std::vector<int> rises, falls;
  for (int i = 2; i + 2 < n; ++i) {
    if (!std::isfinite(slope[i])) continue;
    if (slope[i] > 0 && slope[i] >= slope[i - 1] && slope[i] > slope[i + 1]) rises.push_back(i);
    if (slope[i] < 0 && slope[i] <= slope[i - 1] && slope[i] < slope[i + 1]) falls.push_back(i);
  }
  std::vector<Edges> pairs;
  for (const int a : rises)
    for (const int b : falls) {
      const Edges pair{(a + b - (n - 1)) * 0.25, (b - a) * 0.5, std::min(slope[a], -slope[b])};
      if (pair.diameter >= diameters[0] && pair.diameter <= diameters[1] && std::abs(pair.centre) <= off_centre) pairs.push_back(pair);
    }
  std::sort(pairs.begin(), pairs.end(), [](const Edges& a, const Edges& b) { return a.score > b.score; });
  return pairs;
}

// Noise of a pixel near a point: median absolute second difference along the row.
double local_noise(const Picture& picture, Point at) {
  std::vector<double> differences;
  const int y0 = static_cast<int>(at[0]), x0 = static_cast<int>(at[1]);
  for (int y = y0 - 24; y <= y0 + 24; ++y)
    for (int x = x0 - 24; x <= x0 + 24; ++x)
      if (picture.readable(y, x - 1) && picture.readable(y, x) && picture.readable(y, x + 1))
        differences.push_back(std::abs(picture.attenuation(y, x - 1) - 2 * picture.attenuation(y, x) + picture.attenuation(y, x + 1)));
  if (differences.size() < 20) return INFINITY;
  return std::max(middle_of(differences) / 0.6745 / std::sqrt(6.0), 1e-5);
}

struct Start {
  Point at{};
  double angle = 0;
  Edges edges;
};

constexpr double look_length = 20;  // px along an edge that make it one

// Directions and widths worth a fit at a point, the steepest edges first.
std::vector<Start> find_starts(const Picture& picture, Point at, std::array<double, 2> expected, double off_centre, std::size_t most) {
  constexpr int directions = 36;
  const double half = expected[1] / 2 + off_centre + 4;
  std::vector<Start> starts;
  for (int k = 0; k < directions; ++k) {
    const double angle = std::numbers::pi * k / directions;
    const std::vector<double> profile = mean_profile(picture, at, angle, half, look_length);
    const std::vector<Edges> pairs = find_edges(profile, expected, off_centre);
    for (std::size_t i = 0; i < std::min<std::size_t>(pairs.size(), 4); ++i) starts.push_back({at, angle, pairs[i]});
  }
  std::sort(starts.begin(), starts.end(), [](const Start& a, const Start& b) { return a.edges.score > b.edges.score; });
  std::vector<Start> kept;
  for (const Start& start : starts) {
    const bool known = std::any_of(kept.begin(), kept.end(), [&](const Start& other) {
      return std::abs(other.edges.diameter - start.edges.diameter) < 2 && std::abs(other.edges.centre - start.edges.centre) < 2;
    });
    if (!known && kept.size() < most) kept.push_back(start);
  }
  for (Start& start : kept) {
    start.at[0] += start.edges.centre * std::cos(start.angle);
    start.at[1] -= start.edges.centre * std::sin(start.angle);
  }
  return kept;
}

// Puts a stretch's axis where the fit found it.
void recentre(const Picture& picture, Stretch& stretch, double half_width, double length = stretch_px) {
  const Point at = {stretch.at[0] + stretch.centre * std::cos(stretch.angle), stretch.at[1] - stretch.centre * std::sin(stretch.angle)};
  Stretch moved = take_stretch(picture, at, stretch.angle + std::atan(stretch.tilt), half_width, length);
  moved.background = stretch.background + stretch.slope * stretch.centre;
  moved.slope = stretch.slope + 2 * stretch.bend * stretch.centre;
  moved.bend = stretch.bend;
  stretch = std::move(moved);
}

struct Tube {
  std::vector<Stretch> stretches;  // in order along it
  ShapeFit fit;
};

// The tube at one place: its shape and how well it stands out.
std::optional<Tube> tube_at(const Picture& picture, const Start& start, double noise) {
  Shape shape;
  shape.radius = start.edges.diameter / 2;
  const double half = half_window(shape.radius);
  Stretch stretch = take_stretch(picture, start.at, start.angle, half, 16);
  if (stretch.samples.size() < 100) return {};
  std::vector<double> values;
  for (const Sample& sample : stretch.samples) values.push_back(sample.value);
  stretch.background = middle_of(values);
  shape.log_kappa = std::log(std::max(start.edges.score, 1e-4) / std::sqrt(2 * shape.radius));
  for (int pass = 0; pass < 3; ++pass) {
    fit_stretch(stretch, shape, true);
    if (!(stretch.radius > 0.6 * start.edges.diameter / 2 && stretch.radius < 1.6 * start.edges.diameter / 2) ||
        std::abs(stretch.centre) > 4 || std::abs(stretch.tilt) > 0.3)
      return {};
    shape.radius = stretch.radius;
    shape.log_kappa = stretch.log_kappa;
    if (pass < 2) recentre(picture, stretch, half, 16);
  }
  Tube tube;
  tube.stretches.push_back(stretch);
  tube.fit = best_shape(tube.stretches, shape);
  const double contrast = TubeProfile(tube.fit.shape, half).at(0.9 * tube.fit.shape.radius * tube.fit.shape.inner_share);
  if (!(tube.fit.shape.radius > 0.8) || !(contrast > 3 * noise)) return {};
  return tube;
}

// Goes on from the tube's end as long as it stays the same.
void follow(const Picture& picture, Tube& tube, bool forward) {
  constexpr int most = 100;
  const Shape shape = tube.fit.shape;
  const double half = half_window(shape.radius);
  double usual = tube.stretches.front().rms;
  int missed = 0;
  Point at = tube.stretches.front().at;
  double angle = tube.stretches.front().angle;
  for (int k = 0; k < most && missed < 2; ++k) {
    const double step = (forward ? 1 : -1) * stretch_px;
    const Point next = {at[0] + step * std::sin(angle), at[1] + step * std::cos(angle)};
    Stretch stretch = take_stretch(picture, next, angle, half);
    at = next;
    const double whole = 2 * half * stretch_px;
    if (static_cast<double>(stretch.samples.size()) < 0.9 * whole) {
      ++missed;
      continue;
    }
    std::vector<double> values;
    for (const Sample& sample : stretch.samples) values.push_back(sample.value);
    stretch.background = middle_of(values);
    fit_stretch(stretch, shape, false);
    const bool same = std::abs(stretch.centre) < 1.5 + 0.1 * shape.radius && std::abs(stretch.tilt) < 0.25 &&
                      std::abs(stretch.log_kappa - shape.log_kappa) < 0.5 && stretch.rms < 2.5 * usual;
    if (!same) {
      ++missed;
      continue;
    }
    missed = 0;
    recentre(picture, stretch, half);
    fit_stretch(stretch, shape, false);
    at = stretch.at;
    at[0] += stretch.centre * std::cos(stretch.angle);
    at[1] -= stretch.centre * std::sin(stretch.angle);
    angle = stretch.angle + std::atan(stretch.tilt);
    if (forward)
      tube.stretches.push_back(std::move(stretch));
    else
      tube.stretches.insert(tube.stretches.begin(), std::move(stretch));
  }
}

TubeMeasurement measure(const Picture& picture, Tube tube) {
  // The first stretch is longer than the others: taken again like them.
  Stretch& first = tube.stretches.front();
  Stretch again = take_stretch(picture, first.at, first.angle, half_window(tube.fit.shape.radius));
  again.centre = first.centre, again.tilt = first.tilt, again.background = first.background, again.slope = first.slope,
  again.bend = first.bend;
  again.rms = first.rms;
  first = std::move(again);
  Tube forward = tube;
  follow(picture, forward, true);
  follow(picture, tube, false);
  tube.stretches.insert(tube.stretches.end(), std::make_move_iterator(forward.stretches.begin() + 1),
                        std::make_move_iterator(forward.stretches.end()));
  constexpr int passes = 3;  // shape and backgrounds have settled
  for (int pass = 0; pass < passes; ++pass) {
    tube.fit = best_shape(tube.stretches, tube.fit.shape);
    for (Stretch& stretch : tube.stretches) fit_stretch(stretch, tube.fit.shape, pass + 1 == passes);
  }
  std::vector<double> radii, misfits;
  for (const Stretch& stretch : tube.stretches) misfits.push_back(stretch.rms);
  const double usual = middle_of(misfits);
  for (const Stretch& stretch : tube.stretches)
    if (stretch.rms < 2 * usual) radii.push_back(stretch.radius);  // bone that crosses
  const double middle = middle_of(radii), spread = robust_sd(radii, middle);
  double sum = 0;
  int count = 0;
  for (const double radius : radii)
    if (std::abs(radius - middle) <= 3 * spread + 1e-9) sum += radius, ++count;
  TubeMeasurement result;
  result.outer_diameter_px = 2 * sum / count;
  result.profiles = count;
  result.sd_px = 2 * std::hypot(1.2533 * spread / std::sqrt(static_cast<double>(count)), tube.fit.radius_sd);
  result.inner_share = tube.fit.shape.inner_share;
  result.psf_px = tube.fit.shape.psf;
  result.from_px = tube.stretches.front().at;
  result.to_px = tube.stretches.back().at;
  for (std::size_t i = 0; i + 1 < tube.stretches.size(); ++i)
    result.length_px +=
        std::hypot(tube.stretches[i + 1].at[0] - tube.stretches[i].at[0], tube.stretches[i + 1].at[1] - tube.stretches[i].at[1]);
  result.length_px += stretch_px;
  return result;
}

}  // namespace

std::optional<TubeMeasurement> measure_tube(ImageView<const float> attenuation, ImageView<const std::uint8_t> valid,
                                            std::array<double, 2> at_px, std::array<double, 2> expected_px, std::string& why) {
  constexpr double click_px = 6;  // how far off its axis the tube may be marked
  constexpr std::size_t most_starts = 6;
  const Picture picture{attenuation, valid};
  const double noise = local_noise(picture, at_px);
  if (!std::isfinite(noise)) {
    why = "no part of the picture that may be read lies there";
    return {};
  }
  std::optional<Tube> best;
  for (const Start& start : find_starts(picture, at_px, expected_px, std::max(click_px, 0.4 * expected_px[0]), most_starts)) {
    const std::optional<Tube> tube = tube_at(picture, start, noise);
    // Judged by what they leave over what they explain: hypotheses differ in their windows.
    if (tube && (!best || tube->stretches[0].rms < best->stretches[0].rms)) best = tube;
  }
  if (!best) {
    why = "no pair of parallel edges stands out there";
    return {};
  }
  TubeMeasurement result = measure(picture, std::move(*best));
  if (!(result.sd_px <= 0.05 * result.outer_diameter_px)) {
    why = "a tube of " + number(result.outer_diameter_px) + " px +- " + number(result.sd_px, 2) +
          " px is too uncertain (expected 5 % or better)";
    return {};
  }
  return result;
}

std::optional<MarkerMeasurement> measure_marker(ImageView<const float> attenuation, ImageView<const std::uint8_t> valid,
                                                std::array<double, 2> at_px, double search_px) {
  const Picture picture{attenuation, valid};
  const auto blob = [&](double y, double x) {  // mean of what a marker covers, above what lies around
    double inside = 0, around = 0;
    int n = 0, m = 0;
    for (int dy = -8; dy <= 8; ++dy)
      for (int dx = -8; dx <= 8; ++dx) {
        const int r2 = dy * dy + dx * dx, py = static_cast<int>(std::lround(y)) + dy, px = static_cast<int>(std::lround(x)) + dx;
        if (!picture.readable(py, px)) continue;
        if (r2 <= 4) inside += picture.attenuation(py, px), ++n;
        if (r2 >= 36 && r2 <= 64) around += picture.attenuation(py, px), ++m;
      }
    return n > 6 && m > 20 ? inside / n - around / m : -INFINITY;
  };
  Point at = at_px;
  double contrast = -INFINITY;
  for (double dy = -search_px; dy <= search_px; ++dy)
    for (double dx = -search_px; dx <= search_px; ++dx) {
      const double here = std::hypot(dy, dx) <= search_px ? blob(at_px[0] + dy, at_px[1] + dx) : -INFINITY;
      if (here > contrast) contrast = here, at = {std::round(at_px[0] + dy), std::round(at_px[1] + dx)};
    }
  const double noise = local_noise(picture, at);
  if (!(contrast > 5 * noise / std::sqrt(13.0))) return {};  // 13 pixels make the blob

  // An elliptical Gaussian on a plane: its centre is the blob's whatever its shape, as long as that is symmetrical.
  std::vector<std::array<double, 3>> pixels;
  constexpr int reach = 7;
  for (int dy = -reach; dy <= reach; ++dy)
    for (int dx = -reach; dx <= reach; ++dx) {
      const int y = static_cast<int>(at[0]) + dy, x = static_cast<int>(at[1]) + dx;
      if (dy * dy + dx * dx <= reach * reach && picture.readable(y, x))
        pixels.push_back({static_cast<double>(dy), static_cast<double>(dx), picture.attenuation(y, x)});
    }
  std::vector<double> values;
  for (const auto& p : pixels) values.push_back(p[2]);
  // y, x, ln height, ln of the SDs along y and x, their product's tilt, background and its slopes
  const auto residuals = [&](const std::vector<double>& p, std::vector<double>& r) {
    r.clear();
    const double sy = std::exp(std::clamp(p[3], -1.0, 1.8)), sx = std::exp(std::clamp(p[4], -1.0, 1.8)), rho = std::tanh(p[5]);
    for (const auto& [dy, dx, value] : pixels) {
      const double u = (dy - p[0]) / sy, v = (dx - p[1]) / sx;
      r.push_back(std::exp(p[2] - 0.5 * (u * u - 2 * rho * u * v + v * v) / (1 - rho * rho)) + p[6] + p[7] * dy + p[8] * dx - value);
    }
  };
  const Solution fit = solve({0, 0, std::log(std::max(contrast, 1e-4)), 0.4, 0.4, 0, middle_of(values), 0, 0},
                             {0.01, 0.01, 1e-3, 1e-2, 1e-2, 1e-2, 1e-4, 1e-5, 1e-5}, residuals, 40);
  if (std::hypot(fit.parameters[0], fit.parameters[1]) > 4) return {};
  const double rms = std::sqrt(fit.squares / std::max(1.0, static_cast<double>(pixels.size()) - 9));
  const double sd = rms * std::hypot(fit.sd[0], fit.sd[1]) / std::sqrt(2.0);
  // A shape that the fit can't settle on, as the end of a ruler's mark: somewhere in the 4 px that the fit may go.
  constexpr double unsettled_px = 2;
  return MarkerMeasurement{at[0] + fit.parameters[0], at[1] + fit.parameters[1],
                           std::isfinite(sd) ? std::min(sd, unsettled_px) : unsettled_px};
}

// --- the scale ---

namespace {

// What a manufacturer allows in a diameter or a length.
constexpr double tolerance = 0.015;
// The object lies off the vessels' plane by 15 mm or so at 750 mm from the source.
constexpr double off_plane = 0.02;
constexpr double shortest_tube_mm = 10;
// Without a scale in the file: what a catheter may look like, px.
constexpr std::array<double, 2> any_diameter_px = {2.5, 60};
// With one: the file's may be wrong by a third, and an introducer taken for a catheter is wider by as much.
constexpr std::array<double, 2> expected_share = {0.6, 1.6};

const char* const trap = "5F on an INTRODUCER is its lumen (2.2-2.3 mm outside); a 5F catheter is 1.67 mm";

std::array<double, 2> expected_diameter(double od_mm, const Calibration& by_header) {
  if (!by_header.known()) return any_diameter_px;
  const double px = od_mm / by_header.mm_per_px;
  return {std::max(1.5, expected_share[0] * px), std::max(3.0, expected_share[1] * px)};
}

// Says how the scale compares with the file's.
void compare(Calibration& found, const Calibration& by_header) {
  if (!by_header.known()) return;
  const double ratio = found.mm_per_px / by_header.mm_per_px, sd = std::hypot(found.relative_sd, by_header.relative_sd);
  found.note += "; " + std::string(to_string(by_header.source)) + " says " + number(by_header.mm_per_px) + " mm per px, " +
                number(100 * (1 / ratio - 1), 2) + " % from it";
  if (std::abs(std::log(ratio)) < 3 * sd) return;
  found.warning = "calibration: the " + std::string(to_string(found.source)) + " gives " + number(found.mm_per_px) +
                  " mm per px, the file's " + to_string(by_header.source) + " " + number(by_header.mm_per_px) +
                  ": further apart than their errors allow";
  // 1.67 / 2.25: an introducer measured, a catheter's diameter given.
  if (found.source == CalibrationSource::catheter && ratio > 0.66 && ratio < 0.83)
    found.warning += "; as if the tube were an introducer and the diameter a catheter's: " + std::string(trap);
  if (found.source == CalibrationSource::catheter && ratio > 1.2 && ratio < 1.52)
    found.warning += "; as if the tube were a catheter and the diameter an introducer's: " + std::string(trap);
}

// Tubes that enter the field at its edge, each once.
std::vector<TubeMeasurement> tubes_at_the_edge(const Picture& picture, std::array<double, 2> expected) {
  constexpr int depth = 16, apart = 4;
  constexpr std::size_t most = 24;
  std::vector<Start> starts;
  const int height = picture.attenuation.height, width = picture.attenuation.width;
  const auto outside = [&](int y, int x) { return !picture.readable(y, x); };
  for (int y = depth; y < height - depth; y += apart)
    for (int x = depth; x < width - depth; x += apart) {
      const bool at_edge =
          outside(y - depth - apart, x) || outside(y + depth + apart, x) || outside(y, x - depth - apart) || outside(y, x + depth + apart);
      if (!at_edge || !picture.readable(y, x)) continue;
      const Point at = {static_cast<double>(y), static_cast<double>(x)};
      const std::vector<Start> here = find_starts(picture, at, expected, apart, 1);
      if (!here.empty()) starts.push_back(here.front());
    }
  std::sort(starts.begin(), starts.end(), [](const Start& a, const Start& b) { return a.edges.score > b.edges.score; });
  std::vector<TubeMeasurement> found;
  std::vector<Point> tried;
  for (const Start& start : starts) {
    if (tried.size() >= most) break;
    const auto near = [&](const Point& p, double distance) { return std::hypot(p[0] - start.at[0], p[1] - start.at[1]) < distance; };
    if (std::any_of(tried.begin(), tried.end(), [&](const Point& p) { return near(p, 10); })) continue;
    tried.push_back(start.at);
    std::string why;
    const auto tube = measure_tube(picture.attenuation, picture.valid, start.at, expected, why);
    if (!tube) continue;
    const bool known = std::any_of(found.begin(), found.end(), [&](const TubeMeasurement& other) {
      const auto close = [](const Point& a, const Point& b) { return std::hypot(a[0] - b[0], a[1] - b[1]) < 30; };
      return close(other.from_px, tube->from_px) || close(other.to_px, tube->to_px) || close(other.from_px, tube->to_px) ||
             close(other.to_px, tube->from_px);
    });
    if (!known) found.push_back(*tube);
  }
  return found;
}

// A tube found without being shown must be beyond doubt.
constexpr double steady_diameter = 0.015;

TubeMeasurement find_catheter(const CalibrationObject& object, const Picture& picture, const Calibration& by_header,
                              const std::string& file) {
  const double od = *object.catheter_od_mm;
  const std::array<double, 2> expected = expected_diameter(od, by_header);
  const auto long_enough = [&](const TubeMeasurement& tube) { return tube.length_px * od / tube.outer_diameter_px >= shortest_tube_mm; };
  const std::string asked = file + ": --catheter-od-mm " + number(od);
  if (object.catheter_at_px) {
    std::string why;
    const auto tube = measure_tube(picture.attenuation, picture.valid, *object.catheter_at_px, expected, why);
    const std::string at = asked + " --calibrate-at " + place(*object.catheter_at_px) + ": ";
    if (!tube) throw InputError(at + why + ", expected a tube " + number(expected[0], 3) + " to " + number(expected[1], 3) + " px wide");
    if (!long_enough(*tube))
      throw InputError(at + "the tube there can be followed over " + number(tube->length_px * od / tube->outer_diameter_px, 3) +
                       " mm, expected " + number(shortest_tube_mm) + " mm or more");
    return *tube;
  }
  std::vector<TubeMeasurement> tubes = tubes_at_the_edge(picture, expected);
  std::erase_if(tubes, [&](const TubeMeasurement& t) { return !long_enough(t) || !(t.sd_px <= steady_diameter * t.outer_diameter_px); });
  if (tubes.size() == 1) return tubes.front();
  std::string places;
  for (const TubeMeasurement& tube : tubes) places += (places.empty() ? " (" : "; ") + place(tube.from_px);
  throw InputError(asked + ": " + (tubes.empty() ? "no tube" : std::to_string(tubes.size()) + " tubes" + places + ")") +
                   " found where a catheter enters the field, expected one: show it with --calibrate-at y,x");
}

Calibration by_catheter(const CalibrationObject& object, const Picture& picture, const Calibration& by_header, const std::string& file) {
  const TubeMeasurement tube = find_catheter(object, picture, by_header, file);
  const double od = *object.catheter_od_mm;
  Calibration result;
  result.source = CalibrationSource::catheter;
  result.mm_per_px = od / tube.outer_diameter_px;
  result.relative_sd = std::hypot(std::hypot(tube.sd_px / tube.outer_diameter_px, tolerance), off_plane);
  result.note = std::string(tube.inner_share > 0.2 ? "hollow" : "solid") + " tube from " + place(tube.from_px) + " to " +
                place(tube.to_px) + " (y,x), " + number(tube.outer_diameter_px) + " +- " + number(tube.sd_px, 2) +
                " px outside, taken for a catheter of " + number(od) + " mm; SD: that, 1.5 % for the object and 2 % for its plane; " + trap;
  return result;
}

Calibration by_markers(const CalibrationObject& object, const Picture& picture, const Calibration& by_header, const std::string& file) {
  std::array<MarkerMeasurement, 2> markers;
  for (std::size_t i = 0; i < 2; ++i) {
    const Point& at = (*object.markers_at_px)[i];
    const auto marker = measure_marker(picture.attenuation, picture.valid, at);
    if (!marker) throw InputError(file + ": --marker-at " + place(at) + ": nothing stands out there, expected a marker within 6 px");
    markers[i] = *marker;
  }
  const double distance = std::hypot(markers[0].y - markers[1].y, markers[0].x - markers[1].x);
  if (distance < 10)
    throw InputError(file + ": --marker-at " + place((*object.markers_at_px)[0]) + " and " + place((*object.markers_at_px)[1]) +
                     ": both lead to markers " + number(distance, 3) + " px apart, expected 10 px or more");
  Calibration result;
  result.source = CalibrationSource::device;
  result.mm_per_px = *object.marker_length_mm / distance;
  result.relative_sd = std::hypot(std::hypot(markers[0].sd_px, markers[1].sd_px) / distance, std::hypot(tolerance, off_plane));
  result.note = "markers at " + place({markers[0].y, markers[0].x}) + " and " + place({markers[1].y, markers[1].x}) + " (y,x), " +
                number(distance) + " px apart, taken for " + number(*object.marker_length_mm) +
                " mm; SD: their places, 1.5 % for the device and 2 % for its plane; a device tilted by 15 degrees against the picture "
                "looks 3.4 % shorter than it is, which is not in the SD";
  // A tilt or a bend only ever shortens what is seen.
  if (by_header.known() && std::log(result.mm_per_px / by_header.mm_per_px) > 3 * std::hypot(result.relative_sd, by_header.relative_sd))
    throw InputError(file + ": --marker-length-mm " + number(*object.marker_length_mm) + ": the markers look " +
                     number(distance * by_header.mm_per_px, 3) + " mm apart by the file's " + to_string(by_header.source) +
                     ": the device is tilted or bent, expected one that lies flat in the picture (or --mm-per-px)");
  return result;
}

}  // namespace

void check(const CalibrationObject& object) {
  const auto demand = [](bool met, const std::string& what) {
    if (!met) throw std::invalid_argument(what);
  };
  if (object.catheter_od_mm) {
    const double od = *object.catheter_od_mm;
    demand(od >= smallest_catheter_mm && od <= largest_catheter_mm, "--catheter-od-mm " + number(od) + ": expected an outer diameter of " +
                                                                        number(smallest_catheter_mm) + " to " +
                                                                        number(largest_catheter_mm) + " mm, not a French size; " + trap);
  }
  demand(!object.catheter_at_px || object.catheter_od_mm, "--calibrate-at: expected together with --catheter-od-mm or --catheter-french");
  if (object.marker_length_mm)
    demand(*object.marker_length_mm > 0 && *object.marker_length_mm <= 500,
           "--marker-length-mm " + number(*object.marker_length_mm) + ": expected up to 500 mm");
  demand(object.marker_length_mm.has_value() == object.markers_at_px.has_value(),
         "--marker-length-mm and --marker-at y,x (twice): expected together");
}

Calibration calibrate_by(const CalibrationObject& object, ImageView<const float> attenuation, ImageView<const std::uint8_t> valid,
                         const Calibration& by_header, const std::string& file) {
  check(object);
  const bool first_given = object.catheter_od_mm.has_value();
  if (by_header.source == CalibrationSource::user || by_header.source == CalibrationSource::ruler) {
    Calibration result = by_header;
    result.warning = std::string("calibration: ") + (first_given ? "--catheter-od-mm" : "--marker-length-mm") + " was not used: the " +
                     (by_header.source == CalibrationSource::user ? "user's --mm-per-px" : "file's calibration on a ruler or fiducial") +
                     " goes before it";
    return result;
  }
  const Picture picture{attenuation, valid};
  Calibration result = first_given ? by_catheter(object, picture, by_header, file) : by_markers(object, picture, by_header, file);
  compare(result, by_header);
  if (first_given && object.marker_length_mm) result.note += "; --marker-length-mm was not used: the catheter goes before it";
  return result;
}

}  // namespace cinelumen
