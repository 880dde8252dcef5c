#include "engine/phantom/projection.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "kernels/stream.h"

namespace cinelumen::phantom {
namespace {

constexpr int fine = 4;  // samples per pixel and axis
constexpr int tile_px = 64;

double square(double x) { return x * x; }
double normal_cdf(double u) { return 0.5 * std::erfc(-u / std::numbers::sqrt2); }
double normal_density(double u) { return std::exp(-0.5 * u * u) / std::sqrt(2 * std::numbers::pi); }
/// Antiderivative of a Gaussian's cumulative distribution.
double ramp(double u, double sigma) { return u * normal_cdf(u / sigma) + sigma * normal_density(u / sigma); }

/// Mean of sqrt(R^2 - v^2)+ over v in [u - h/2, u + h/2].
double mean_half_chord(double u, double radius, double h) {
  const double r2 = radius * radius;
  if (std::abs(u) < 0.6 * radius && h < 0.3 * radius) {
    const double s2 = r2 - u * u, s = std::sqrt(s2);
    return s - h * h / 24 * r2 / (s * s2);
  }
  const double a = std::clamp(u - h / 2, -radius, radius), b = std::clamp(u + h / 2, -radius, radius);
  if (b <= a) return 0;
  const auto area = [&](double v) { return 0.5 * (v * std::sqrt(std::max(0.0, r2 - v * v)) + r2 * std::asin(v / radius)); };
  return (area(b) - area(a)) / h;
}

std::array<double, 4> bspline_weights(double f) {
  const double g = 1 - f;
  return {g * g * g / 6, (4 - 6 * f * f + 3 * f * f * f) / 6, (4 - 6 * g * g + 3 * g * g * g) / 6, f * f * f / 6};
}

SectionFill mix(const SectionFill& a, const SectionFill& b, double f) {
  const auto t = static_cast<float>(f);
  SectionFill result = a;
  result.core += t * (b.core - a.core);
  result.level += t * (b.level - a.level);
  result.filled += t * (b.filled - a.filled);
  result.rest += t * (b.rest - a.rest);
  return result;
}

struct Interval {
  int sample;
  float low, high, per_mm;
};

/// Attenuation of the union: where intervals overlap the densest counts once.
double union_attenuation(const std::vector<Interval>& parts) {
  std::vector<float> ends;
  for (const Interval& part : parts) {
    ends.push_back(part.low);
    ends.push_back(part.high);
  }
  std::sort(ends.begin(), ends.end());
  double sum = 0;
  for (std::size_t i = 0; i + 1 < ends.size(); ++i) {
    const float middle = 0.5f * (ends[i] + ends[i + 1]);
    float densest = 0;
    for (const Interval& part : parts)
      if (part.low <= middle && middle <= part.high) densest = std::max(densest, part.per_mm);
    sum += static_cast<double>(densest) * (ends[i + 1] - ends[i]);
  }
  return sum;
}

}  // namespace

double PointSpread::profile(int gaussian, double u) const {
  const double sigma = sigma_px[static_cast<std::size_t>(gaussian)], a = 0.5, b = std::max(focal_px, 1e-3) / 2;
  return (ramp(u + a + b, sigma) - ramp(u + a - b, sigma) - ramp(u - a + b, sigma) + ramp(u - a - b, sigma)) / (4 * a * b);
}

double PointSpread::edge(double u) const {
  const double b = std::max(focal_px, 1e-3) / 2;
  double sum = 0;
  for (std::size_t i = 0; i < 2; ++i) sum += weight[i] * (ramp(u + b, sigma_px[i]) - ramp(u - b, sigma_px[i])) / (2 * b);
  return sum;
}

double PointSpread::edge_sigma_px() const {
  double low = 0, high = 100;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (edge(middle) < 0.75 ? low : high) = middle;
  }
  return low / 0.6744897501960817;
}

std::vector<ProjectedPoint> project(const Edge& edge, const ConeBeam& beam, double step_px) {
  std::vector<std::array<double, 2>> image;
  std::vector<double> arc = {0};
  for (const Vec3& p : edge.curve) {
    image.push_back(beam.project(p));
    if (image.size() > 1) {
      const auto &a = image[image.size() - 2], &b = image.back();
      arc.push_back(arc.back() + std::hypot(b[0] - a[0], b[1] - a[1]));
    }
  }
  const int steps = std::max(2, static_cast<int>(std::lround(arc.back() / step_px)));
  const double dense_step_mm = edge.length_mm / static_cast<double>(edge.curve.size() - 1);
  std::vector<ProjectedPoint> points;
  std::size_t at = 0;
  for (int k = 0; k <= steps; ++k) {
    const double wanted = arc.back() * k / steps;
    while (at + 2 < arc.size() && arc[at + 1] < wanted) ++at;
    const double f = std::clamp((wanted - arc[at]) / std::max(1e-12, arc[at + 1] - arc[at]), 0.0, 1.0);
    const Vec3 p = edge.curve[at] * (1 - f) + edge.curve[at + 1] * f;
    // The axis over a few dense steps: differences of neighbours carry the parametrisation's kinks.
    const std::size_t before = at >= 3 ? at - 3 : 0, after = std::min(at + 4, edge.curve.size() - 1);
    const Vec3 axis = unit(edge.curve[after] - edge.curve[before]);
    const Vec3 ray = unit(p - beam.source());
    ProjectedPoint point;
    const auto middle = beam.project(p);
    point.y = middle[0];
    point.x = middle[1];
    const auto ahead = beam.project(p + axis * 0.05), behind = beam.project(p - axis * 0.05);
    const double length = std::hypot(ahead[0] - behind[0], ahead[1] - behind[1]);
    point.tangent_y = (ahead[0] - behind[0]) / length;
    point.tangent_x = (ahead[1] - behind[1]) / length;
    point.radius_mm = edge.radius_mm[at] * (1 - f) + edge.radius_mm[at + 1] * f;
    point.area_mm2 = std::numbers::pi * point.radius_mm * point.radius_mm;
    const auto between = [&](const std::vector<double>& values) { return values[at] * (1 - f) + values[at + 1] * f; };
    // Edges that nothing narrows may leave these out.
    point.healthy_radius_mm = between(edge.healthy_mm.empty() ? edge.radius_mm : edge.healthy_mm);
    point.hydraulic_mm2 = std::numbers::pi * square(between(edge.hydraulic_mm.empty() ? edge.radius_mm : edge.hydraulic_mm));
    point.place_mm = edge.drawn_length_mm * (static_cast<double>(at) + f) / static_cast<double>(edge.curve.size() - 1);
    double depth_over_width = 1;
    if (!edge.sections.empty()) {
      const Section &s0 = edge.sections[at], &s1 = edge.sections[at + 1];
      const double first = s0.first_mm * (1 - f) + s1.first_mm * f, second = s0.second_mm * (1 - f) + s1.second_mm * f;
      const double c = std::cos(s0.angle_rad), s = std::sin(s0.angle_rad);
      const double width2 = first * first * c * c + second * second * s * s;
      point.area_mm2 = std::numbers::pi * first * second;
      point.radius_mm = std::sqrt(width2);
      depth_over_width = first * second / width2;
      point.shear = (first * first - second * second) * s * c / width2;
    }
    const Vec3 across = cross(axis, ray);
    const double sine = norm(across);
    const Vec3 offset = across * (point.radius_mm / sine);
    const auto left = beam.project(p + offset), right = beam.project(p - offset);
    point.radius_px = 0.5 * std::abs((left[0] - right[0]) * point.tangent_x - (left[1] - right[1]) * point.tangent_y);
    point.depth_mm = beam.depth_mm(p);
    point.path_factor = std::min(1 / sine, 4.0) * depth_over_width;
    point.arc_mm = (static_cast<double>(at) + f) * dense_step_mm;
    points.push_back(point);
  }
  return points;
}

Projector::Projector(ImageView<const float> attenuation, int margin, int rows, int columns, PointSpread spread,
                     std::vector<std::vector<ProjectedPoint>> vessels, std::vector<Joint> joints)
    : sharp_(attenuation.height, attenuation.width),
      blurred_(attenuation.height, attenuation.width),
      margin_(margin),
      rows_(rows),
      columns_(columns),
      spread_(spread),
      vessels_(std::move(vessels)),
      joints_(std::move(joints)) {
  const double widest = std::max(spread.sigma_px[0], spread.sigma_px[1]);
  reach_px_ = static_cast<int>(std::ceil(0.5 + spread.focal_px / 2 + 4.5 * widest));
  for (int g = 0; g < 2; ++g) {
    std::vector<double> taps;
    for (int j = -reach_px_ * fine; j < reach_px_ * fine; ++j) taps.push_back(spread.profile(g, (j + 0.5) / fine));
    double sum = 0;
    for (double tap : taps) sum += tap;
    for (double tap : taps) fine_taps_[static_cast<std::size_t>(g)].push_back(static_cast<float>(tap / sum));
  }
  const int height = attenuation.height, width = attenuation.width;
  parallel_for(height, [&](int y) {
    for (int x = 0; x < width; ++x) sharp_(y, x) = std::exp(-attenuation(y, x));
  });
  // The background passes the same spread; as coefficients of the spline, it does so at every sub-pixel position.
  Image<float> along(height, width);
  for (int g = 0; g < 2; ++g) {
    std::vector<double> taps;
    double sum = 0;
    for (int k = -reach_px_; k <= reach_px_; ++k) sum += taps.emplace_back(spread.profile(g, k));
    for (double& tap : taps) tap /= sum;
    parallel_for(height, [&](int y) {
      for (int x = 0; x < width; ++x) {
        double value = 0;
        for (int k = -reach_px_; k <= reach_px_; ++k)
          value += taps[static_cast<std::size_t>(k + reach_px_)] * sharp_(y, std::clamp(x + k, 0, width - 1));
        along(y, x) = static_cast<float>(value);
      }
    });
    const double weight = spread.weight[static_cast<std::size_t>(g)];
    parallel_for(height, [&](int y) {
      for (int x = 0; x < width; ++x) {
        double value = 0;
        for (int k = -reach_px_; k <= reach_px_; ++k)
          value += taps[static_cast<std::size_t>(k + reach_px_)] * along(std::clamp(y + k, 0, height - 1), x);
        blurred_(y, x) = static_cast<float>((g == 0 ? 0 : blurred_(y, x)) + weight * value);
      }
    });
  }
}

double Projector::background(ImageView<const float> coefficients, double y, double x) const {
  const double py = std::clamp(y + margin_, 1.0, coefficients.height - 3.0), px = std::clamp(x + margin_, 1.0, coefficients.width - 3.0);
  const int iy = static_cast<int>(py), ix = static_cast<int>(px);
  const auto wy = bspline_weights(py - iy), wx = bspline_weights(px - ix);
  double sum = 0;
  for (int j = 0; j < 4; ++j) {
    const float* row = coefficients.row(iy - 1 + j) + ix - 1;
    sum += wy[static_cast<std::size_t>(j)] * (wx[0] * row[0] + wx[1] * row[1] + wx[2] * row[2] + wx[3] * row[3]);
  }
  return sum;
}

// A rigid motion is inverted as it is asked for; a warp once for each pixel, linear between them: its curvature leaves 0.001 px.
class Projector::SceneMap {
 public:
  SceneMap(const Displacement& motion, int rows, int columns, int margin) : motion_(motion), margin_(margin) {
    if (motion.rigid()) return;
    dy_ = Image<float>(rows + 2 * margin + 1, columns + 2 * margin + 1);
    dx_ = Image<float>(rows + 2 * margin + 1, columns + 2 * margin + 1);
    for (int j = 0; j < dy_.height(); ++j)
      for (int i = 0; i < dy_.width(); ++i) {
        const double y = j - margin, x = i - margin;
        const auto [py, px] = motion.inverse(y, x);
        dy_(j, i) = static_cast<float>(py - y);
        dx_(j, i) = static_cast<float>(px - x);
      }
  }
  std::array<double, 2> at_pixel(int y, int x) const {
    if (motion_.rigid()) return motion_.inverse(y, x);
    return {y + static_cast<double>(dy_(y + margin_, x + margin_)), x + static_cast<double>(dx_(y + margin_, x + margin_))};
  }
  std::array<double, 2> at(double y, double x) const {
    if (motion_.rigid()) return motion_.inverse(y, x);
    const double v = y + margin_, u = x + margin_;
    const int j = std::clamp(static_cast<int>(v), 0, dy_.height() - 2), i = std::clamp(static_cast<int>(u), 0, dy_.width() - 2);
    const double f = v - j, g = u - i;
    const auto between = [&](const Image<float>& of) {
      const float *above = of.row(j) + i, *below = of.row(j + 1) + i;
      return (1 - f) * ((1 - g) * static_cast<double>(above[0]) + g * static_cast<double>(above[1])) +
             f * ((1 - g) * static_cast<double>(below[0]) + g * static_cast<double>(below[1]));
    };
    return {y + between(dy_), x + between(dx_)};
  }

 private:
  const Displacement& motion_;
  int margin_;
  Image<float> dy_, dx_;
};

Image<float> Projector::transmission(const Displacement& motion, const std::vector<std::vector<float>>& attenuation_per_mm,
                                     const std::vector<std::vector<SectionFill>>& fills,
                                     const std::vector<std::vector<float>>& calibre) const {
  Image<float> image(rows_, columns_);
  const SceneMap scene(motion, rows_, columns_, reach_px_ + 1);
  for (int y = 0; y < rows_; ++y)
    for (int x = 0; x < columns_; ++x) {
      const auto [py, px] = scene.at_pixel(y, x);
      image(y, x) = static_cast<float>(background(blurred_.view(), py, px));
    }
  subtract_vessels(motion, attenuation_per_mm, fills, calibre, scene, image);
  return image;
}

struct Projector::Scratch {
  explicit Scratch(int side) : count(samples(side)), first(samples(side)), deficit(samples(side)), rows(samples(side)) {}
  static std::size_t samples(int side) { return static_cast<std::size_t>(side) * static_cast<std::size_t>(side); }
  std::vector<std::uint8_t> count;
  std::vector<Interval> first, more;
  std::vector<float> deficit, rows;
};

// Transmission T W = T - T (1 - W): what the vessels take away is zero outside them, so only tiles that a vessel touches are worked on, and
// a frame without contrast is the background to the last bit.
void Projector::subtract_vessels(const Displacement& motion, const std::vector<std::vector<float>>& attenuation_per_mm,
                                 const std::vector<std::vector<SectionFill>>& fills, const std::vector<std::vector<float>>& calibre,
                                 const SceneMap& scene, Image<float>& image) const {
  const auto move = [&](ProjectedPoint p, std::size_t vessel, std::size_t point) {
    if (vessel < calibre.size() && !calibre[vessel].empty()) {
      p.radius_px *= static_cast<double>(calibre[vessel][point]);
      p.radius_mm *= static_cast<double>(calibre[vessel][point]);
    }
    const auto moved = motion.forward(p.y, p.x), direction = motion.turned(p.y, p.x, p.tangent_y, p.tangent_x);
    p.y = moved[0];
    p.x = moved[1];
    p.tangent_y = direction[0];
    p.tangent_x = direction[1];
    return p;
  };
  std::vector<std::vector<ProjectedPoint>> moved;
  for (std::size_t v = 0; v < vessels_.size(); ++v) {
    auto& points = moved.emplace_back();
    for (std::size_t i = 0; i < vessels_[v].size(); ++i) points.push_back(move(vessels_[v][i], v, i));
  }
  const auto move_joint = [&](const Joint& joint) {
    return move(joint.at, static_cast<std::size_t>(joint.edge), static_cast<std::size_t>(joint.point));
  };
  struct Piece {
    int vessel, point;  // from point to point + 1; vessel -1: joint number `point`
  };
  const int tiles_y = (rows_ + tile_px - 1) / tile_px, tiles_x = (columns_ + tile_px - 1) / tile_px;
  std::vector<std::vector<Piece>> work(static_cast<std::size_t>(tiles_y * tiles_x));
  const auto enlist = [&](Piece piece, double y0, double y1, double x0, double x1) {
    const int first_y = std::max(0, static_cast<int>(std::floor((y0 - reach_px_ - 1) / tile_px)));
    const int last_y = std::min(tiles_y - 1, static_cast<int>(std::floor((y1 + reach_px_ + 1) / tile_px)));
    const int first_x = std::max(0, static_cast<int>(std::floor((x0 - reach_px_ - 1) / tile_px)));
    const int last_x = std::min(tiles_x - 1, static_cast<int>(std::floor((x1 + reach_px_ + 1) / tile_px)));
    for (int ty = first_y; ty <= last_y; ++ty)
      for (int tx = first_x; tx <= last_x; ++tx) work[static_cast<std::size_t>(ty * tiles_x + tx)].push_back(piece);
  };
  for (std::size_t v = 0; v < moved.size(); ++v)
    for (std::size_t i = 0; i + 1 < moved[v].size(); ++i) {
      if (attenuation_per_mm[v][i] <= 0 && attenuation_per_mm[v][i + 1] <= 0) continue;
      const ProjectedPoint &a = moved[v][i], &b = moved[v][i + 1];
      const double r = std::max(a.radius_px, b.radius_px) + 1;
      enlist({static_cast<int>(v), static_cast<int>(i)}, std::min(a.y, b.y) - r, std::max(a.y, b.y) + r, std::min(a.x, b.x) - r,
             std::max(a.x, b.x) + r);
    }
  for (std::size_t i = 0; i < joints_.size(); ++i) {
    const Joint& joint = joints_[i];
    if (attenuation_per_mm[static_cast<std::size_t>(joint.edge)][static_cast<std::size_t>(joint.point)] <= 0) continue;
    const ProjectedPoint p = move_joint(joint);
    const double r = p.radius_px + 1;
    enlist({-1, static_cast<int>(i)}, p.y - r, p.y + r, p.x - r, p.x + r);
  }

  const int side = (tile_px + 2 * reach_px_) * fine;
  Scratch scratch(side);
  std::vector<Interval> here;
  for (int tile = 0; tile < tiles_y * tiles_x; ++tile) {
    const auto& pieces = work[static_cast<std::size_t>(tile)];
    if (pieces.empty()) continue;
    const int tile_y = tile / tiles_x * tile_px, tile_x = tile % tiles_x * tile_px;
    std::fill(scratch.count.begin(), scratch.count.end(), std::uint8_t{0});
    std::fill(scratch.deficit.begin(), scratch.deficit.end(), 0.0f);
    scratch.more.clear();
    // Position of fine sample j: centre of its cell, in px.
    const auto position = [&](int j, int origin) { return origin - reach_px_ + (j + 0.5) / fine - 0.5; };
    const auto first_index = [&](double p, int origin) {
      return std::clamp(static_cast<int>(std::floor((p + 0.5 - origin + reach_px_) * fine)), 0, side);
    };
    const auto put = [&](int j, int i, double low, double high, double per_mm) {
      const int sample = j * side + i;
      const Interval interval{sample, static_cast<float>(low), static_cast<float>(high), static_cast<float>(per_mm)};
      auto& count = scratch.count[static_cast<std::size_t>(sample)];
      if (count == 0) {
        scratch.first[static_cast<std::size_t>(sample)] = interval;
        count = 1;
      } else {
        scratch.more.push_back(interval);
        count = 2;
      }
    };
    for (const Piece& piece : pieces) {
      constexpr double cell = 1.0 / fine;
      if (piece.vessel < 0) {
        const Joint& joint = joints_[static_cast<std::size_t>(piece.point)];
        const ProjectedPoint p = move_joint(joint);
        const double per_mm = attenuation_per_mm[static_cast<std::size_t>(joint.edge)][static_cast<std::size_t>(joint.point)];
        const double r = p.radius_px + cell;
        for (int j = first_index(p.y - r, tile_y); j < first_index(p.y + r + cell, tile_y); ++j)
          for (int i = first_index(p.x - r, tile_x); i < first_index(p.x + r + cell, tile_x); ++i) {
            const double u = std::hypot(position(j, tile_y) - p.y, position(i, tile_x) - p.x);
            const double half = mean_half_chord(u, p.radius_px, cell) * p.radius_mm / p.radius_px;
            if (half > 0) put(j, i, p.depth_mm - half, p.depth_mm + half, per_mm);
          }
        continue;
      }
      const auto v = static_cast<std::size_t>(piece.vessel), k = static_cast<std::size_t>(piece.point);
      const ProjectedPoint &a = moved[v][k], &b = moved[v][k + 1];
      const double ka = attenuation_per_mm[v][k], kb = attenuation_per_mm[v][k + 1];
      const SectionFill* filling = v < fills.size() && !fills[v].empty() ? fills[v].data() : nullptr;
      const double r = std::max(a.radius_px, b.radius_px) + cell;
      const int first_j = first_index(std::min(a.y, b.y) - r, tile_y), last_j = first_index(std::max(a.y, b.y) + r + cell, tile_y);
      const int first_i = first_index(std::min(a.x, b.x) - r, tile_x), last_i = first_index(std::max(a.x, b.x) + r + cell, tile_x);
      for (int j = first_j; j < last_j; ++j) {
        // Both normal planes cut a row in one place each.
        double low = -1e9, high = 1e9;
        const double y = position(j, tile_y);
        const auto bound = [&](const ProjectedPoint& p, double sign) {
          if (std::abs(p.tangent_x) < 1e-3) return;
          const double cut = p.x - (y - p.y) * p.tangent_y / p.tangent_x;
          if (sign * p.tangent_x > 0)
            low = std::max(low, cut);
          else
            high = std::min(high, cut);
        };
        bound(a, 1);
        bound(b, -1);
        if (low > high) continue;
        const int begin = std::max(first_i, first_index(std::max(low, -1e6) - cell, tile_x));
        const int end = std::min(last_i, first_index(std::min(high, 1e6) + 2 * cell, tile_x));
        for (int i = begin; i < end; ++i) {
          const double x = position(i, tile_x);
          // Between the normal planes of both ends: neighbouring pieces share a plane, so every sample belongs to one.
          const double da = (y - a.y) * a.tangent_y + (x - a.x) * a.tangent_x;
          if (da < 0) continue;
          const double db = (y - b.y) * b.tangent_y + (x - b.x) * b.tangent_x;
          if (db >= 0) continue;
          const double f = da / (da - db), g = 1 - f;
          const double u = std::sqrt(square(y - g * a.y - f * b.y) + square(x - g * a.x - f * b.x));
          const double radius_px = g * a.radius_px + f * b.radius_px, radius_mm = g * a.radius_mm + f * b.radius_mm;
          const double core =
              filling == nullptr ? 1 : g * static_cast<double>(filling[k].core) + f * static_cast<double>(filling[k + 1].core);
          const double half_px = core > 0 ? mean_half_chord(u, core * radius_px, cell) : 0;
          if (half_px <= 0) continue;
          const double path = g * a.path_factor + f * b.path_factor;
          const double half = half_px * radius_mm / radius_px * path, per_mm = g * ka + f * kb;
          double depth = g * a.depth_mm + f * b.depth_mm;
          if (a.shear == 0 && b.shear == 0 && filling == nullptr) {
            put(j, i, depth - half, depth + half, per_mm);
            continue;
          }
          const double ty = g * a.tangent_y + f * b.tangent_y, tx = g * a.tangent_x + f * b.tangent_x;
          const double left = (y - g * a.y - f * b.y) * tx - (x - g * a.x - f * b.x) * ty, aside = std::copysign(u, left) / radius_px;
          depth += (g * a.shear + f * b.shear) * aside * radius_mm;
          const SectionFill fill = filling == nullptr ? SectionFill{} : mix(filling[k], filling[k + 1], f);
          const double level = static_cast<double>(fill.level), filled = static_cast<double>(fill.filled),
                       rest = static_cast<double>(fill.rest);
          const double angle = static_cast<double>(fill.angle_rad);
          if (level >= 1) {
            put(j, i, depth - half, depth + half, per_mm * filled);
            continue;
          }
          const double across = std::cos(angle), along = std::sin(angle);
          if (std::abs(along) < 0.15) {  // the line between both parts runs along the ray: a cell holds some of each
            const double share = std::clamp((level - across * aside) * radius_px / cell + 0.5, 0.0, 1.0);
            put(j, i, depth - half, depth + half, per_mm * (share * filled + (1 - share) * rest));
            continue;
          }
          const double cut = std::clamp(radius_mm * path * (level - across * aside) / along, -half, half);
          const double filled_low = along > 0 ? -half : cut, filled_high = along > 0 ? cut : half;
          if (filled_high > filled_low) put(j, i, depth + filled_low, depth + filled_high, per_mm * filled);
          if (rest > 0 && filled_high - filled_low < 2 * half)
            put(j, i, along > 0 ? depth + cut : depth - half, along > 0 ? depth + half : depth + cut, per_mm * rest);
        }
      }
    }
    std::stable_sort(scratch.more.begin(), scratch.more.end(), [](const Interval& p, const Interval& q) { return p.sample < q.sample; });
    const auto store = [&](int sample, double attenuation) {
      const auto [py, px] = scene.at(position(sample / side, tile_y), position(sample % side, tile_x));
      scratch.deficit[static_cast<std::size_t>(sample)] = static_cast<float>(-std::expm1(-attenuation) * background(sharp_.view(), py, px));
    };
    for (std::size_t n = 0; n < scratch.count.size(); ++n)
      if (scratch.count[n] == 1) {
        const Interval& only = scratch.first[n];
        store(static_cast<int>(n), static_cast<double>(only.per_mm) * (only.high - only.low));
      }
    for (std::size_t n = 0; n < scratch.more.size();) {
      const int sample = scratch.more[n].sample;
      here.assign(1, scratch.first[static_cast<std::size_t>(sample)]);
      for (; n < scratch.more.size() && scratch.more[n].sample == sample; ++n) here.push_back(scratch.more[n]);
      store(sample, union_attenuation(here));
    }
    // Down to pixels: each axis in turn, evaluated at pixel centres only.
    const int taps = 2 * reach_px_ * fine, height = std::min(tile_px, rows_ - tile_y), width = std::min(tile_px, columns_ - tile_x);
    std::vector<float> total(static_cast<std::size_t>(height * width), 0.0f);
    std::vector<bool> empty;
    for (int j = 0; j < side; ++j) {
      const std::uint8_t* row = scratch.count.data() + static_cast<std::ptrdiff_t>(j) * side;
      empty.push_back(std::all_of(row, row + side, [](std::uint8_t n) { return n == 0; }));
    }
    for (std::size_t g = 0; g < 2; ++g) {
      const float* tap = fine_taps_[g].data();
      for (int j = 0; j < side; ++j) {
        if (empty[static_cast<std::size_t>(j)]) continue;
        const float* from = scratch.deficit.data() + static_cast<std::ptrdiff_t>(j) * side;
        float* to = scratch.rows.data() + static_cast<std::ptrdiff_t>(j) * tile_px;
        for (int x = 0; x < width; ++x) {
          // The pixel's centre lies between fine samples 4 x + 1 and 4 x + 2 of its own.
          const float* window = from + (x + reach_px_) * fine + fine / 2 - taps / 2;
          float lanes[8] = {};
          for (int k = 0; k < taps; k += 8)
            for (int l = 0; l < 8; ++l) lanes[l] += tap[k + l] * window[k + l];
          to[x] = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
        }
      }
      const float weight = static_cast<float>(spread_.weight[g]);
      for (int y = 0; y < height; ++y) {
        float* to = total.data() + static_cast<std::ptrdiff_t>(y) * width;
        for (int k = 0; k < taps; ++k) {
          const int j = (y + reach_px_) * fine + fine / 2 - taps / 2 + k;
          if (empty[static_cast<std::size_t>(j)]) continue;
          const float* from = scratch.rows.data() + static_cast<std::ptrdiff_t>(j) * tile_px;
          const float factor = weight * tap[k];
          for (int x = 0; x < width; ++x) to[x] += factor * from[x];
        }
      }
    }
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) image(tile_y + y, tile_x + x) -= total[static_cast<std::size_t>(y * width + x)];
  }
}

}  // namespace cinelumen::phantom
