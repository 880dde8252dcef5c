#include "engine/centreline_fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>

#include "engine/smoothing_spline.h"
#include "kernels/error.h"

namespace cinelumen {
namespace {

constexpr double pi = 3.14159265358979;
constexpr double through_bend = 45 * pi / 180;                   // a vessel that goes through a branch point bends less than this
constexpr double crossing_bend = 28 * pi / 180;                  // and one that crosses another less than this
constexpr double good_sd_px = 0.07;                              // a place known to this is worth half of what one known exactly is
constexpr double known_sd_px = 0.45;                             // a place not known to this is inferred
constexpr double sound_sd_px = 0.7;                              // a place not known to this says nothing
constexpr double least_fitted = 0.4;                             // of a vessel's points: else it stays as it was traced
constexpr double doubtful_weight = 0.005;                        // of traced points whose profile says nothing
constexpr double usual_bend = 0.015, usual_bend_length_px = 20;  // rms rad/px, and how far alike: where an image shows too few vessels
constexpr int least_points = 12;                                 // fewer make no curve
constexpr double curvature_penalty = 0.1, outlier_px = 0.6;
constexpr double profiles_alike = 12;     // neighbouring profiles err alike: so many count as one
constexpr double beside_sd_px = 0.2;      // what the model of a neighbour leaves out moves a middle by this
constexpr double ends_sd_px = 0.75;       // where a branch that is carried on is expected to be known worse than this, it ends
constexpr double least_offset_sd = 0.03;  // no profile is better than this
constexpr double most_narrowed = 0.8;     // of the radius beside it: what is hardly narrower needs no fit of its own ...
constexpr double most_misfit = 9;         // ... what fits no better than this is no round lumen ...
constexpr double same_contrast = 0.15;    // ... and what differs more in ln of attenuation per px holds another vessel's contrast

// The chord of a blurred cylinder with its derivatives by x and R: a table of chord / R over x / R and log(s / R).
class ChordTable {
 public:
  static const ChordTable& get() {
    static const ChordTable table;
    return table;
  }
  struct Value {
    double chord, by_x, by_radius;
  };
  // What depends on the radius alone.
  struct Row {
    double radius, share, columns_per_px, slope_per_column;
    const double *below, *above;
  };
  Row row(double radius, double s) const {
    const double q = std::clamp(s / radius, first_q, last_q), place = std::log(q / first_q) / step_q;
    const int i = std::min(static_cast<int>(place), rows - 2);
    // Every row is sampled in x / (R + 5 s), so that rows are alike where they end.
    const double reach = 5 * q + 1;
    return {radius, place - i, (columns - 1) / (radius * reach), (columns - 1) / reach, values_[i].data(), values_[i + 1].data()};
  }
  static Value at(const Row& row, double x) {
    const double column = std::abs(x) * row.columns_per_px;
    if (column >= columns - 1) return {0, 0, 0};
    const int j = static_cast<int>(column);
    const double f = row.share, g = column - j, rise_below = row.below[j + 1] - row.below[j], rise_above = row.above[j + 1] - row.above[j];
    const double below = row.below[j] + g * rise_below, above = row.above[j] + g * rise_above;
    const double value = below + f * (above - below), slope = (rise_below + f * (rise_above - rise_below)) * row.slope_per_column;
    // chord = R h(v, row), v = |x| / (R + 5 s), row = log(s / R) / step + const.
    constexpr double rows_per_log = 1 / step_q;
    return {row.radius * value, x < 0 ? -slope : slope, value - slope * std::abs(x) / row.radius - (above - below) * rows_per_log};
  }
  Value at(double x, double radius, double s) const { return at(row(radius, s), x); }

 private:
  static constexpr int rows = 28, columns = 120;
  static constexpr double first_q = 0.015, last_q = 1.6, step_q = 0.173;
  std::array<std::array<double, columns>, rows> values_{};
  ChordTable() {
    for (int i = 0; i < rows; ++i) {
      const double q = first_q * std::exp(i * step_q);
      // The midpoint rule over t = sin(angle) is exact to rounding once its steps are shorter than the Gaussian's SD.
      const int steps = std::clamp(static_cast<int>(8 / q), 48, 480);
      std::vector<std::array<double, 2>> nodes;
      for (int n = 0; n < steps; ++n) {
        const double angle = pi * ((n + 0.5) / steps - 0.5);
        nodes.push_back({std::sin(angle), 2 * std::cos(angle) * std::cos(angle) * pi / steps / (q * std::sqrt(2 * pi))});
      }
      for (int j = 0; j < columns; ++j) {
        const double v = (1 + 5 * q) * j / (columns - 1);
        for (const auto& [t, share] : nodes) {
          const double u = (v - t) / q;
          if (std::abs(u) < 7) values_[i][j] += share * std::exp(-0.5 * u * u);
        }
      }
    }
  }
};

struct Place {
  double y = 0, x = 0;
};

// How a vessel's course goes on: its curvature is a random process of known spread that forgets itself, its direction and place the
// integrals of that. A Kalman filter over (offset, slope, curvature).
class Course {
 public:
  using Vector = std::array<double, 3>;
  using Matrix = std::array<Vector, 3>;
  // curvature_sd: rad/px; length_px: over which it is alike.
  Course(double curvature_sd, double length_px) : curvature_variance_(curvature_sd * curvature_sd), length_px_(length_px) {
    covariance[0][0] = 100;
    covariance[1][1] = 1;
    covariance[2][2] = curvature_variance_;
  }
  Vector state{};
  Matrix covariance{};

  Matrix transition(double ds) const { return {{{1, ds, 0.5 * ds * ds}, {0, 1, ds}, {0, 0, std::exp(-ds / length_px_)}}}; }
  void advance(double ds) {
    const Matrix f = transition(ds);
    Vector next{};
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) next[i] += f[i][j] * state[j];
    state = next;
    covariance = product(product(f, covariance), transpose(f));
    covariance[2][2] += curvature_variance_ * (1 - f[2][2] * f[2][2]);
  }
  void measure(double offset, double sd) {
    const double variance = covariance[0][0] + sd * sd, innovation = offset - state[0];
    const Vector gain = {covariance[0][0] / variance, covariance[1][0] / variance, covariance[2][0] / variance};
    const Vector row = covariance[0];
    for (int i = 0; i < 3; ++i) {
      state[i] += gain[i] * innovation;
      for (int j = 0; j < 3; ++j) covariance[i][j] -= gain[i] * row[j];
    }
  }
  double sd() const { return std::sqrt(std::max(0.0, covariance[0][0])); }

  static Matrix transpose(const Matrix& a) {
    Matrix t{};
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) t[i][j] = a[j][i];
    return t;
  }
  static Matrix product(const Matrix& a, const Matrix& b) {
    Matrix c{};
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j)
        for (int k = 0; k < 3; ++k) c[i][j] += a[i][k] * b[k][j];
    return c;
  }
  static Matrix inverse(const Matrix& m) {
    Matrix r{};
    double determinant = 0;
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) {
        const int a = (i + 1) % 3, b = (i + 2) % 3, c = (j + 1) % 3, d = (j + 2) % 3;
        r[j][i] = m[a][c] * m[b][d] - m[a][d] * m[b][c];
        if (i == 0) determinant += m[0][j] * r[j][0];
      }
    for (Vector& line : r)
      for (double& value : line) value /= determinant;
    return r;
  }

 private:
  double curvature_variance_, length_px_;
};
double distance(const Place& a, const Place& b) { return std::hypot(a.y - b.y, a.x - b.x); }

// A point of a vessel on its way through the passes.
struct Point {
  double y = 0, x = 0, normal_y = 0, normal_x = 1;
  double radius = 2, kappa = 0, base = 0;                       // of the model: smooth along the vessel
  double radius_sd = 0, kappa_sd = 0, base_sd = 0;              // how well that is known here; 0: not at all
  double fit_radius = 0, fit_kappa = 0, fit_base = 0, fit = 0;  // this profile's own, and the weight it has
  double seen_y = 0, seen_x = 0, offset_sd = 1e9;               // the middle as the profile shows it
  double blind_sd = 1e9;                                        // of it, if all that the model does not explain were noise
  bool beside = false;                                          // another vessel within the window
  bool made = false;                                            // not traced: carried on from either side
  double sd = 0;                                                // to be expected of the place; 0: not known
};

// Where a vessel ends on another one.
struct Joint {
  bool there = false;
  int vessel = -1;              // that it ends on; -1: a place of its own
  std::vector<int> candidates;  // those it may end on
  Place place;
  Place traced;      // where it was traced
  double reach = 0;  // the other's radius
};

// Segments that continue one another.
struct Vessel {
  std::vector<Point> points;  // about 1 px apart
  std::array<Joint, 2> ends;
};

// Points 1 px apart: those of a bridge are not.
void respace(std::vector<Point>& points) {
  if (points.size() < 3) return;
  std::vector<Point> result = {points.front()};
  double along = 0, wanted = 1;
  for (std::size_t i = 1; i < points.size(); ++i) {
    const Point &a = points[i - 1], &b = points[i];
    const double step = std::hypot(b.y - a.y, b.x - a.x);
    for (; wanted <= along + step; wanted += 1) {
      const double f = (wanted - along) / step;
      Point point = f < 0.5 ? a : b;
      point.y = a.y + f * (b.y - a.y);
      point.x = a.x + f * (b.x - a.x);
      result.push_back(point);
    }
    along += step;
  }
  if (wanted - along > 0.5)
    result.back() = points.back();
  else
    result.push_back(points.back());
  points = std::move(result);
}

// ---- which segments continue one another ----

struct Arm {
  int segment = -1;
  bool at_start = true;
  int clear = 0;          // points from the end to where the arm is clear of the others
  double y = 0, x = 0;    // there
  double dy = 0, dx = 0;  // unit vector away from the branching
  double radius = 2;
  bool known = false;
};

double angle_of(double cosine) { return std::acos(std::clamp(cosine, -1.0, 1.0)); }

// How far two arms are from continuing one another: by their directions, and by the way from one to the other.
double bend(const Arm& a, const Arm& b) {
  const double dy = b.y - a.y, dx = b.x - a.x, length = std::max(1e-9, std::hypot(dy, dx));
  const double turn = angle_of(-(a.dy * b.dy + a.dx * b.dx));
  // The way between says little where it is short, and a steady bend shares its angle between both ends.
  const double aside = std::max(angle_of(-(a.dy * dy + a.dx * dx) / length), angle_of((b.dy * dy + b.dx * dx) / length));
  return length > 4 ? std::max(turn, aside) : turn;
}

struct Pairing {
  std::vector<std::array<int, 2>> pairs;
  bool crossing = true;  // each of several pairs crosses another
  double cost = 1e9;
};

// The pairs of arms that continue one another: at most one bends much.
class PairFinder {
 public:
  PairFinder(const std::vector<Arm>& arms, bool only_crossing) : arms_(arms), only_crossing_(only_crossing), used_(arms.size(), 0) {
    double y = 0, x = 0;
    for (const Arm& arm : arms) {
      y += arm.y / static_cast<double>(arms.size());
      x += arm.x / static_cast<double>(arms.size());
    }
    for (const Arm& arm : arms) angle_.push_back(std::atan2(arm.y - y, arm.x - x));
    search(0, 0);
  }
  const Pairing& best() const { return best_; }

 private:
  bool interleaved(const std::array<int, 2>& p, const std::array<int, 2>& q) const {
    const auto inside = [&](int i) {
      const double low = std::min(angle_[p[0]], angle_[p[1]]), high = std::max(angle_[p[0]], angle_[p[1]]);
      return angle_[i] > low && angle_[i] < high;
    };
    return inside(q[0]) != inside(q[1]);
  }
  void search(std::size_t at, double cost) {
    while (at < arms_.size() && used_[at]) ++at;
    if (at == arms_.size()) {
      finish(cost);
      return;
    }
    used_[at] = 1;
    search(at + 1, cost + 1);  // ends here
    for (std::size_t other = at + 1; other < arms_.size(); ++other) {
      if (used_[other] || !arms_[at].known || !arms_[other].known || arms_[at].segment == arms_[other].segment) continue;
      const double b = bend(arms_[at], arms_[other]);
      if (b > through_bend) continue;
      const double unlike = std::log(arms_[at].radius / arms_[other].radius);
      used_[other] = 1;
      current_.push_back({static_cast<int>(at), static_cast<int>(other)});
      bends_.push_back(b);
      search(at + 1, cost + 2 * b * b / (through_bend * through_bend) + 0.5 * unlike * unlike);
      bends_.pop_back();
      current_.pop_back();
      used_[other] = 0;
    }
    used_[at] = 0;
  }
  void finish(double cost) {
    if (cost >= best_.cost) return;
    bool crossing = true;
    if (current_.size() > 1) {
      int bent = 0;
      for (std::size_t i = 0; i < current_.size(); ++i) {
        bent += bends_[i] > crossing_bend;
        bool crosses = false;
        for (std::size_t j = 0; j < current_.size(); ++j) crosses = crosses || (j != i && interleaved(current_[i], current_[j]));
        crossing = crossing && crosses;
      }
      if (bent > 1 || (only_crossing_ && !crossing)) return;
    }
    best_ = {current_, crossing, cost};
  }
  const std::vector<Arm>& arms_;
  const bool only_crossing_;
  std::vector<char> used_;
  std::vector<double> angle_, bends_;
  std::vector<std::array<int, 2>> current_;
  Pairing best_;
};

// One segment's points, from one of its ends.
const CentrelinePoint& from_end(const Centreline& line, bool at_start, int k) {
  const int count = static_cast<int>(line.points.size());
  return line.points[at_start ? k : count - 1 - k];
}

double median_radius(const Centreline& line, bool at_start, int from, int to) {
  std::vector<float> radii;
  for (int k = from; k < to; ++k) radii.push_back(from_end(line, at_start, k).radius_px);
  if (radii.empty()) return 2;
  std::nth_element(radii.begin(), radii.begin() + static_cast<std::ptrdiff_t>(radii.size() / 2), radii.end());
  return radii[radii.size() / 2];
}

// A vessel may end on itself: a ring with a tail. Points this near to that end are not what it ends on. end: -1 where it is another's.
bool near_end(int end, int point) { return end >= 0 && std::abs(point - end) < 40; }

// Builds vessels of segments.
class Assembly {
 public:
  Assembly(const VesselGraph& graph, const Image<float>& image) : graph_(graph), image_(image) {
    find_clusters();
    join_along_crossings();
    for (const std::vector<int>& cluster : clusters_) resolve(cluster);
    chain();
  }
  std::vector<Vessel> vessels;
  std::vector<std::pair<int, int>> crossing;  // vessels that were taken for crossing one another

 private:
  struct End {
    bool joined = false;  // continues in ...
    int segment = -1;
    bool other_at_start = true;
    int keep_from = 0;  // points of the segment left out at this end
    bool at_node = false;
    int cluster = -1;
  };

  void find_clusters() {
    const int nodes = static_cast<int>(graph_.branch_points.size());
    std::vector<int> root(nodes);
    std::iota(root.begin(), root.end(), 0);
    const auto find = [&](int i) {
      while (root[i] != i) i = root[i];
      return i;
    };
    inner_.assign(graph_.segments.size(), 0);
    std::vector<double> radius(nodes, 2);
    for (const VesselGraph::Segment& segment : graph_.segments) {
      const int count = static_cast<int>(segment.centreline.points.size());
      if (segment.start_branch >= 0)
        radius[segment.start_branch] =
            std::max(radius[segment.start_branch], median_radius(segment.centreline, true, std::min(count - 1, 4), std::min(count, 20)));
      if (segment.end_branch >= 0)
        radius[segment.end_branch] =
            std::max(radius[segment.end_branch], median_radius(segment.centreline, false, std::min(count - 1, 4), std::min(count, 20)));
    }
    for (std::size_t s = 0; s < graph_.segments.size(); ++s) {
      const VesselGraph::Segment& segment = graph_.segments[s];
      const int a = segment.start_branch, b = segment.end_branch;
      if (a < 0 || b < 0 || a == b || segment.centreline.length_px() > 1.2 * (radius[a] + radius[b]) + 3) continue;
      inner_[s] = 1;
      root[find(a)] = find(b);
    }
    std::vector<int> number(nodes, -1);
    for (int n = 0; n < nodes; ++n) {
      if (graph_.branch_points[n].crossing) continue;
      const int r = find(n);
      if (number[r] < 0) {
        number[r] = static_cast<int>(clusters_.size());
        clusters_.emplace_back();
      }
      clusters_[number[r]].push_back(n);
    }
    ends_.resize(graph_.segments.size());
  }

  // A quantile of the image along a segment, from one point to another of those counted from one of its ends; of the most that there is
  // within aside_px, where the line itself is in doubt.
  double along(int segment, bool at_start, int from, int to, double quantile, int aside_px) const {
    const Centreline& line = graph_.segments[segment].centreline;
    std::vector<float> values;
    for (int k = from; k < std::min<int>(to, static_cast<int>(line.points.size())); ++k) {
      const CentrelinePoint& p = from_end(line, at_start, k);
      const int y = static_cast<int>(std::lround(p.y)), x = static_cast<int>(std::lround(p.x));
      float most = -std::numeric_limits<float>::infinity();
      for (int j = std::max(0, y - aside_px); j <= std::min(image_.height() - 1, y + aside_px); ++j)
        for (int i = std::max(0, x - aside_px); i <= std::min(image_.width() - 1, x + aside_px); ++i) most = std::max(most, image_(j, i));
      if (std::isfinite(most)) values.push_back(most);
    }
    if (values.empty()) return 0;
    const auto at = values.begin() + static_cast<std::ptrdiff_t>(quantile * static_cast<double>(values.size() - 1));
    std::nth_element(values.begin(), at, values.end());
    return *at;
  }

  // Whether what lies between two branchings is two vessels, one behind the other, rather than a trunk: their attenuations add up.
  bool two_behind(int inner) const {
    constexpr double least_share = 0.5;  // of the thinner one's: a trunk has a quarter more than equal branches
    const VesselGraph::Segment& segment = graph_.segments[inner];
    const double between = along(inner, true, 0, static_cast<int>(segment.centreline.points.size()), 0.75, 3);
    for (const int node : {segment.start_branch, segment.end_branch}) {
      std::vector<double> arms;
      for (const Arm& arm : arms_of({node}, true))
        if (arm.segment != inner) arms.push_back(along(arm.segment, arm.at_start, arm.clear, arm.clear + 20, 0.5, 0));
      if (arms.size() != 2 || between - std::max(arms[0], arms[1]) < least_share * std::min(arms[0], arms[1])) return false;
    }
    return true;
  }

  // Vessels that cross at a small angle run as one for longer than two branchings are usually apart.
  void join_along_crossings() {
    constexpr double most_radii = 12;  // of the two together: lumens overlap for that long at 10 degrees
    std::vector<int> cluster_of(graph_.branch_points.size(), -1);
    for (std::size_t c = 0; c < clusters_.size(); ++c)
      if (clusters_[c].size() == 1) cluster_of[clusters_[c][0]] = static_cast<int>(c);
    for (std::size_t s = 0; s < graph_.segments.size(); ++s) {
      const VesselGraph::Segment& segment = graph_.segments[s];
      const int a = segment.start_branch, b = segment.end_branch;
      if (a < 0 || b < 0 || a == b || cluster_of[a] < 0 || cluster_of[b] < 0 || cluster_of[a] == cluster_of[b]) continue;
      const int count = static_cast<int>(segment.centreline.points.size());
      if (segment.centreline.length_px() > most_radii * median_radius(segment.centreline, true, 0, count) ||
          !two_behind(static_cast<int>(s)))
        continue;
      inner_[s] = 1;
      clusters_[cluster_of[a]].push_back(b);
      clusters_[cluster_of[b]].clear();
      cluster_of[a] = cluster_of[b] = -1;
    }
    std::erase_if(clusters_, [](const std::vector<int>& cluster) { return cluster.empty(); });
  }

  std::vector<Arm> arms_of(const std::vector<int>& nodes, bool with_inner) const {
    std::vector<Arm> arms;
    const auto has = [&](int n) { return std::find(nodes.begin(), nodes.end(), n) != nodes.end(); };
    for (std::size_t s = 0; s < graph_.segments.size(); ++s) {
      if (inner_[s] && !with_inner && has(graph_.segments[s].start_branch) && has(graph_.segments[s].end_branch)) continue;
      for (const bool at_start : {true, false})
        if (has(at_start ? graph_.segments[s].start_branch : graph_.segments[s].end_branch)) {
          Arm arm;
          arm.segment = static_cast<int>(s);
          arm.at_start = at_start;
          const Centreline& line = graph_.segments[s].centreline;
          const int count = static_cast<int>(line.points.size());
          arm.radius = median_radius(line, at_start, std::min(count / 2, 8), std::min(count, 30));
          arms.push_back(arm);
        }
    }
    for (Arm& arm : arms) {
      const Centreline& line = graph_.segments[arm.segment].centreline;
      const int count = static_cast<int>(line.points.size());
      double widest = 0;
      for (const Arm& other : arms) widest = std::max(widest, other.radius);
      const int limit = std::min(count / 2, static_cast<int>(3 * widest + 12));
      int clear = 0;
      for (; clear < limit; ++clear) {
        const CentrelinePoint& p = from_end(line, arm.at_start, clear);
        double free = 1e9;
        for (const Arm& other : arms) {
          if (&other == &arm) continue;
          const Centreline& theirs = graph_.segments[other.segment].centreline;
          const int reach = std::min(static_cast<int>(theirs.points.size()), static_cast<int>(6 * widest + 30));
          for (int k = 0; k < reach; ++k) {
            const CentrelinePoint& q = from_end(theirs, other.at_start, k);
            free = std::min(free, std::hypot(p.y - q.y, p.x - q.x) - 0.9 * other.radius);
          }
        }
        if (free > 0.6 * arm.radius + 1.5) break;
      }
      arm.clear = clear;
      const int last = std::min(count, clear + static_cast<int>(std::clamp(1.5 * arm.radius, 8.0, 16.0)));
      if (last - clear < 5) continue;
      const int half = (last - clear) / 2;
      Place near, far;
      for (int k = 0; k < half; ++k) {
        const CentrelinePoint &p = from_end(line, arm.at_start, clear + k), &q = from_end(line, arm.at_start, last - 1 - k);
        near.y += static_cast<double>(p.y) / half;
        near.x += static_cast<double>(p.x) / half;
        far.y += static_cast<double>(q.y) / half;
        far.x += static_cast<double>(q.x) / half;
      }
      const double length = distance(near, far);
      if (!(length > 0)) continue;
      arm.dy = (far.y - near.y) / length;
      arm.dx = (far.x - near.x) / length;
      arm.y = from_end(line, arm.at_start, clear).y;
      arm.x = from_end(line, arm.at_start, clear).x;
      arm.known = true;
    }
    return arms;
  }

  End& end_of(const Arm& arm) { return ends_[arm.segment][arm.at_start ? 0 : 1]; }

  void resolve(const std::vector<int>& nodes) {
    constexpr std::size_t most_arms = 8;
    const std::vector<Arm> arms = arms_of(nodes, false);
    if (nodes.size() > 1 && (arms.size() > most_arms || arms.size() < 2)) {
      split(nodes);
      return;
    }
    if (arms.size() > most_arms) return;
    const Pairing pairing = PairFinder(arms, nodes.size() == 1).best();
    // Vessels that pass one another without crossing are joined by what lies between the nodes.
    if (nodes.size() > 1 && (pairing.pairs.empty() || !pairing.crossing)) {
      split(nodes);
      return;
    }
    const int cluster = static_cast<int>(resolved_.size());
    resolved_.emplace_back();
    for (const int n : nodes) {
      resolved_.back().middle.y += graph_.branch_points[n].y / static_cast<double>(nodes.size());
      resolved_.back().middle.x += graph_.branch_points[n].x / static_cast<double>(nodes.size());
    }
    for (const Arm& arm : arms) {
      End& end = end_of(arm);
      end.at_node = true;
      end.cluster = cluster;
      end.keep_from = arm.known ? arm.clear : 0;
      resolved_.back().arms.push_back(arm);
    }
    for (const auto& pair : pairing.pairs)
      for (const int side : {0, 1}) {
        End& end = end_of(arms[pair[side]]);
        end.joined = true;
        end.segment = arms[pair[1 - side]].segment;
        end.other_at_start = arms[pair[1 - side]].at_start;
      }
    resolved_.back().pairs = pairing.pairs;
    for (std::size_t s = 0; s < graph_.segments.size(); ++s)
      if (inner_[s] && std::find(nodes.begin(), nodes.end(), graph_.segments[s].start_branch) != nodes.end()) inner_[s] = 2;  // gone
  }

  // Each of its nodes by itself.
  void split(const std::vector<int>& nodes) {
    for (std::size_t s = 0; s < graph_.segments.size(); ++s)
      if (inner_[s] && std::find(nodes.begin(), nodes.end(), graph_.segments[s].start_branch) != nodes.end()) inner_[s] = 0;
    for (const int n : nodes) resolve({n});
  }

  void add_points(Vessel& vessel, int segment, bool forwards, int skip_first, int skip_last) const {
    const Centreline& line = graph_.segments[segment].centreline;
    const int count = static_cast<int>(line.points.size());
    for (int k = skip_first; k < count - skip_last; ++k) {
      const CentrelinePoint& p = from_end(line, forwards, k);
      Point point;
      point.y = p.y;
      point.x = p.x;
      point.radius = std::max(0.8, static_cast<double>(p.radius_px));
      vessel.points.push_back(point);
    }
  }

  // A cubic from the last point on, along its direction, to where the next arm is clear.
  static void bridge(Vessel& vessel, const Arm& from, const Arm& to) {
    const double span = std::hypot(to.y - from.y, to.x - from.x);
    const int steps = static_cast<int>(std::lround(span));
    for (int k = 1; k < steps; ++k) {
      const double t = static_cast<double>(k) / steps, h0 = (1 + 2 * t) * (1 - t) * (1 - t), h1 = t * (1 - t) * (1 - t) * span,
                   h2 = t * t * (3 - 2 * t), h3 = t * t * (1 - t) * span;
      Point point;
      point.y = h0 * from.y - h1 * from.dy + h2 * to.y + h3 * to.dy;
      point.x = h0 * from.x - h1 * from.dx + h2 * to.x + h3 * to.dx;
      point.radius = from.radius + (to.radius - from.radius) * t;
      point.made = true;
      vessel.points.push_back(point);
    }
  }

  const Arm& arm_at(int segment, bool at_start) const {
    const End& end = ends_[segment][at_start ? 0 : 1];
    for (const Arm& arm : resolved_[end.cluster].arms)
      if (arm.segment == segment && arm.at_start == at_start) return arm;
    return resolved_[end.cluster].arms.front();
  }

  void chain() {
    std::vector<char> used(graph_.segments.size(), 0);
    std::vector<std::array<int, 2>> vessel_of(graph_.segments.size(), {-1, -1});
    struct Loose {
      int vessel, side, cluster;
    };
    std::vector<Loose> loose;
    const auto follow = [&](int first, bool forwards) {
      Vessel vessel;
      const int number = static_cast<int>(vessels.size());
      int segment = first;
      for (bool begun = false;; begun = true) {
        used[segment] = 1;
        const End &in = ends_[segment][forwards ? 0 : 1], &out = ends_[segment][forwards ? 1 : 0];
        if (!begun && in.at_node && !in.joined) loose.push_back({number, 0, in.cluster});
        vessel_of[segment] = {number, 0};
        add_points(vessel, segment, forwards, in.at_node ? in.keep_from : 0, out.at_node ? out.keep_from : 0);
        if (!out.joined) {
          if (out.at_node) loose.push_back({number, 1, out.cluster});
          break;
        }
        if (used[out.segment]) break;  // a ring
        bridge(vessel, arm_at(segment, !forwards), arm_at(out.segment, out.other_at_start));
        forwards = out.other_at_start;
        segment = out.segment;
      }
      respace(vessel.points);
      vessels.push_back(std::move(vessel));
    };
    for (std::size_t s = 0; s < graph_.segments.size(); ++s) {
      if (used[s] || inner_[s] == 2) continue;
      for (const bool forwards : {true, false})
        if (!used[s] && !ends_[s][forwards ? 0 : 1].joined) follow(static_cast<int>(s), forwards);
    }
    for (std::size_t s = 0; s < graph_.segments.size(); ++s)
      if (!used[s] && inner_[s] != 2) follow(static_cast<int>(s), true);  // rings
    for (const Loose& end : loose) {
      Joint& joint = vessels[end.vessel].ends[end.side];
      const Resolved& cluster = resolved_[end.cluster];
      joint.there = true;
      joint.place = joint.traced = cluster.middle;
      for (const auto& pair : cluster.pairs) joint.candidates.push_back(vessel_of[cluster.arms[pair[0]].segment][0]);
    }
    for (const Resolved& cluster : resolved_)
      for (std::size_t i = 0; i < cluster.pairs.size(); ++i)
        for (std::size_t j = 0; j < i; ++j)
          crossing.emplace_back(vessel_of[cluster.arms[cluster.pairs[i][0]].segment][0],
                                vessel_of[cluster.arms[cluster.pairs[j][0]].segment][0]);
    for (const BranchPoint& branch : graph_.branch_points)
      if (branch.crossing && branch.segments.size() == 2)
        crossing.emplace_back(vessel_of[branch.segments[0]][0], vessel_of[branch.segments[1]][0]);
  }

  struct Resolved {
    Place middle;
    std::vector<Arm> arms;
    std::vector<std::array<int, 2>> pairs;
  };
  const VesselGraph& graph_;
  const Image<float>& image_;
  std::vector<std::vector<int>> clusters_;
  std::vector<char> inner_;  // 1: between two nodes of a cluster, 2: no longer there
  std::vector<std::array<End, 2>> ends_;
  std::vector<Resolved> resolved_;
};

// ---- profiles ----

// Points of all vessels by place.
class PointGrid {
 public:
  struct Entry {
    int vessel, point;
  };
  PointGrid(const std::vector<Vessel>& vessels, int height, int width)
      : height_(height / cell + 1), width_(width / cell + 1), cells_(static_cast<std::size_t>(height_) * width_) {
    for (int v = 0; v < static_cast<int>(vessels.size()); ++v)
      for (int i = 0; i < static_cast<int>(vessels[v].points.size()); ++i)
        cells_[static_cast<std::size_t>(index(vessels[v].points[i].y, height_)) * width_ + index(vessels[v].points[i].x, width_)].push_back(
            {v, i});
  }
  template <class Visit>
  void near(double y, double x, double reach, Visit visit) const {
    for (int cy = index(y - reach, height_); cy <= index(y + reach, height_); ++cy)
      for (int cx = index(x - reach, width_); cx <= index(x + reach, width_); ++cx)
        for (const Entry& entry : cells_[static_cast<std::size_t>(cy) * width_ + cx]) visit(entry);
  }

 private:
  static constexpr int cell = 16;
  static int index(double at, int count) { return std::clamp(static_cast<int>(std::floor(at / cell)), 0, count - 1); }
  int height_, width_;
  std::vector<std::vector<Entry>> cells_;
};

// Medians, and how the values scatter about them, over what clear profiles on either side of a clear point say: of four points at once,
// each in a lane of a vector.
class Windows {
 public:
  static constexpr int lanes = 4;
  using Lanes = std::array<float, lanes>;
  // clear: indices of points, in order.
  Windows(const std::vector<Point>& points, const std::vector<int>& clear) : points_(points), clear_(clear) {}
  // About the points clear[first], clear[first + 1], ... from here on.
  void place(int first) {
    const int count = static_cast<int>(clear_.size());
    for (int l = 0; l < lanes; ++l) {
      const int k = std::min(first + l, count - 1);
      int from = k, to = k + 1;
      while (from > std::max(0, k - each_side) && clear_[k] - clear_[from - 1] <= 2 * each_side) --from;
      while (to < std::min(count, k + each_side + 1) && clear_[to] - clear_[k] <= 2 * each_side) ++to;
      from_[l] = from;
      sizes_[l] = to - from;
    }
  }
  void middle(double Point::*member, Lanes& median, Lanes& spread) const {
    Vector values[most];
    for (int l = 0; l < lanes; ++l)
      for (int r = 0; r < most; ++r)
        values[r][l] = r < sizes_[l] ? static_cast<float>(points_[clear_[from_[l] + r]].*member) : std::numeric_limits<float>::infinity();
    const Vector middle = sorted_middle(values);
    for (Vector& value : values) value = value < middle ? middle - value : value - middle;
    const Vector scatter = sorted_middle(values);
    for (int l = 0; l < lanes; ++l) {
      median[l] = middle[l];
      spread[l] = 1.48f * scatter[l];
    }
  }

 private:
  static constexpr int each_side = 6, most = 2 * each_side + 1;
  using Vector = float __attribute__((vector_size(lanes * sizeof(float))));
  // Neighbours exchanged in turns; what is not there is infinite.
  Vector sorted_middle(Vector (&values)[most]) const {
    for (int turn = 0; turn < most; ++turn)
      for (int r = turn % 2; r + 1 < most; r += 2) {
        const Vector a = values[r], b = values[r + 1];
        values[r] = b < a ? b : a;
        values[r + 1] = b < a ? a : b;
      }
    Vector result{};
    for (int l = 0; l < lanes; ++l) result[l] = values[sizes_[l] / 2][l];
    return result;
  }

  const std::vector<Point>& points_;
  const std::vector<int>& clear_;
  std::array<int, lanes> from_{}, sizes_{};
};

class Refit {
 public:
  Refit(const Image<float>& image, const Image<std::uint8_t>& valid, std::vector<Vessel>& vessels, const CentrelineFitOptions& options,
        bool parallel)
      : image_(image),
        valid_(valid),
        vessels_(vessels),
        options_(options),
        s_(std::hypot(options.psf_px, std::sqrt(1.0 / 12))),
        parallel_(parallel) {}

  void run() {
    for (Vessel& vessel : vessels_) set_normals(vessel);
    extend();
    first_ = false;
    for (Vessel& vessel : vessels_) set_normals(vessel);
    for (int pass = 0; pass < options_.passes; ++pass) {
      fit_profiles(pass, pass > 0);
      each_vessel([](Vessel& vessel) { smooth_model(vessel); });
      if (pass == 0) {
        // Radii and attenuations of neighbours are now known: what was fitted beside them is fitted again before it moves a curve.
        fit_profiles(pass, true);
        each_vessel([](Vessel& vessel) { smooth_model(vessel); });
      }
      each_vessel([this](Vessel& vessel) { curve(vessel); });
      learn_bends();
      for (Vessel& vessel : vessels_) set_normals(vessel);
      extend();
      for (Vessel& vessel : vessels_) set_normals(vessel);
    }
    each_vessel([this](Vessel& vessel) {
      predict(vessel);
      trim(vessel);
    });
  }

 private:
  void each(int count, const std::function<void(int)>& body) const {
    if (parallel_)
      parallel_for(count, body);
    else
      for (int i = 0; i < count; ++i) body(i);
  }
  template <class Body>
  void each_vessel(const Body& body) {
    each(static_cast<int>(vessels_.size()), [&](int v) { body(vessels_[v]); });
  }

  static void set_normals(Vessel& vessel) {
    const int count = static_cast<int>(vessel.points.size());
    for (int i = 0; i < count; ++i) {
      const Point &a = vessel.points[std::max(0, i - 2)], &b = vessel.points[std::min(count - 1, i + 2)];
      const double dy = b.y - a.y, dx = b.x - a.x, length = std::hypot(dy, dx);
      if (!(length > 0)) continue;
      vessel.points[i].normal_y = dx / length;
      vessel.points[i].normal_x = -dy / length;
    }
  }

  bool joined(int a, int b) const {
    if (a == b) return true;
    for (const auto& [v, w] : {std::pair{a, b}, std::pair{b, a}})
      for (const Joint& end : vessels_[v].ends)
        if (end.there && end.vessel == w) return true;
    for (const Joint& mine : vessels_[a].ends)  // both end at one place
      for (const Joint& theirs : vessels_[b].ends)
        if (mine.there && theirs.there && distance(mine.place, theirs.place) < 20) return true;
    return false;
  }

  // Whether the nearer end of vessel v is on `other`.
  bool ends_on(int v, int point, int other) const {
    const bool first = 2 * point < static_cast<int>(vessels_[v].points.size());
    const Joint& end = vessels_[v].ends[first ? 0 : 1];
    return end.there && end.vessel == other;
  }

  // Catmull-Rom; NaN where that is outside the image or not valid.
  double sample(double y, double x) const {
    const int h = image_.height(), w = image_.width();
    if (!(y >= 0 && x >= 0 && y <= h - 1 && x <= w - 1)) return std::numeric_limits<double>::quiet_NaN();
    const int iy = std::min(static_cast<int>(y), h - 2), ix = std::min(static_cast<int>(x), w - 2);
    if (h < 2 || w < 2) return std::numeric_limits<double>::quiet_NaN();
    if (valid_.height() > 0 && !valid_(static_cast<int>(std::lround(y)), static_cast<int>(std::lround(x))))
      return std::numeric_limits<double>::quiet_NaN();
    const auto weights = [](double f) {
      return std::array<double, 4>{f * (-0.5 + f * (1 - 0.5 * f)), 1 + f * f * (-2.5 + 1.5 * f), f * (0.5 + f * (2 - 1.5 * f)),
                                   f * f * (-0.5 + 0.5 * f)};
    };
    const auto wy = weights(y - iy), wx = weights(x - ix);
    double sum = 0;
    for (int j = 0; j < 4; ++j) {
      const float* row = image_.row(std::clamp(iy - 1 + j, 0, h - 1));
      double line = 0;
      for (int i = 0; i < 4; ++i) line += wx[i] * row[std::clamp(ix - 1 + i, 0, w - 1)];
      sum += wy[j] * line;
    }
    return sum;
  }

  void fit_profiles(int pass, bool again) {
    const PointGrid grid(vessels_, image_.height(), image_.width());
    double widest = 2;
    std::vector<std::pair<int, int>> todo;
    for (int v = 0; v < static_cast<int>(vessels_.size()); ++v)
      for (int i = 0; i < static_cast<int>(vessels_[v].points.size()); ++i) {
        widest = std::max(widest, vessels_[v].points[i].radius);
        // A lone vessel's profile tells nothing new from a place that is nearly the same.
        const Point& p = vessels_[v].points[i];
        if (!again || p.beside || !(p.offset_sd < 1) || std::abs(shift_of(p)) > 0.3) todo.emplace_back(v, i);
      }
    const int count = static_cast<int>(vessels_.size());
    std::vector<char> joins(static_cast<std::size_t>(count) * count, 0);
    for (int a = 0; a < count; ++a)
      for (int b = 0; b <= a; ++b)
        joins[static_cast<std::size_t>(a) * count + b] = joins[static_cast<std::size_t>(b) * count + a] = joined(a, b);
    std::vector<Point> results(todo.size());
    constexpr int group = 64;
    each(static_cast<int>((todo.size() + group - 1) / group), [&](int g) {
      for (std::size_t k = static_cast<std::size_t>(g) * group; k < std::min(todo.size(), static_cast<std::size_t>(g + 1) * group); ++k) {
        results[k] = vessels_[todo[k].first].points[todo[k].second];
        fit_profile(grid, joins, widest, todo[k].first, todo[k].second, pass, results[k]);
      }
    });
    for (std::size_t k = 0; k < todo.size(); ++k) vessels_[todo[k].first].points[todo[k].second] = results[k];
  }

  struct Neighbour {
    int vessel, point;
    double squared;
    bool joined;
  };

  // A profile, 2 half + 1 samples a step apart; those without weight are left out.
  struct ProfileSamples {
    const std::array<double, 97>&value, &weight, &precision;
    int half;
    double step, samples;  // how many have weight
  };
  // A cylinder on a sloping background: centre, radius, kappa, base, tilt; as a prior, then as found.
  struct CylinderFit {
    std::array<double, 5> value, sd;
    double misfit = 0;  // mean square residual, in SDs
  };
  CylinderFit fit_cylinder(const ProfileSamples& profile, const CylinderFit& prior, int iterations) const {
    const ChordTable& table = ChordTable::get();
    CylinderFit found = prior;
    auto& [centre, radius, kappa, base, tilt] = found.value;
    std::array<std::array<double, 5>, 5> normal{};
    std::array<double, 5> right{};
    bool settled = false;
    for (int iteration = 0; iteration <= iterations; ++iteration) {
      for (auto& line : normal) line.fill(0);
      right.fill(0);
      found.misfit = 0;
      const ChordTable::Row row = table.row(radius, s_);
      for (int k = 0; k <= 2 * profile.half; ++k) {
        if (profile.weight[k] == 0) continue;
        const double u = (k - profile.half) * profile.step;
        const ChordTable::Value model = ChordTable::at(row, u - centre);
        const double residual = profile.value[k] - (kappa * model.chord + base + tilt * u);
        const std::array<double, 5> slope = {-kappa * model.by_x, kappa * model.by_radius, model.chord, 1, u};
        const double r2 = residual * residual * profile.precision[k], down = 1 / (1 + r2 * (1.0 / 9)),
                     w = profile.precision[k] * down * down;
        found.misfit += r2;
        for (int a = 0; a < 5; ++a) {
          for (int b = 0; b <= a; ++b) normal[a][b] += w * slope[a] * slope[b];
          right[a] += w * slope[a] * residual;
        }
      }
      found.misfit /= profile.samples;
      for (int a = 0; a < 5; ++a) {
        normal[a][a] += 1 / (prior.sd[a] * prior.sd[a]);
        right[a] += (prior.value[a] - found.value[a]) / (prior.sd[a] * prior.sd[a]);
      }
      // Cholesky, in place.
      for (int a = 0; a < 5; ++a)
        for (int b = 0; b <= a; ++b) {
          double sum = normal[a][b];
          for (int c = 0; c < b; ++c) sum -= normal[a][c] * normal[b][c];
          normal[a][b] = a == b ? std::sqrt(std::max(sum, 1e-30)) : sum / normal[b][b];
        }
      if (iteration == iterations || settled) break;
      for (int a = 0; a < 5; ++a) {
        for (int c = 0; c < a; ++c) right[a] -= normal[a][c] * right[c];
        right[a] /= normal[a][a];
      }
      for (int a = 4; a >= 0; --a) {
        for (int c = a + 1; c < 5; ++c) right[a] -= normal[c][a] * right[c];
        right[a] /= normal[a][a];
      }
      const double limit = 0.4 * radius;
      centre += std::clamp(right[0], -limit, limit);
      radius = std::clamp(radius + std::clamp(right[1], -0.3 * radius, 0.3 * radius), 0.5, 2.5 * prior.value[1] + 1);
      kappa = std::clamp(kappa + right[2], 0.1 * prior.value[2], 10 * prior.value[2]);
      base += right[3];
      tilt += right[4];
      settled = std::abs(right[0]) < 0.015 && std::abs(right[1]) < 0.03 && std::abs(right[2]) < 0.01 * kappa;
    }
    // SDs: the inverse's diagonal.
    found.sd.fill(0);
    for (int a = 0; a < 5; ++a) {
      std::array<double, 5> e{};
      for (int b = a; b < 5; ++b) {
        double sum = b == a ? 1 : 0;
        for (int c = a; c < b; ++c) sum -= normal[b][c] * e[c];
        e[b] = sum / normal[b][b];
        found.sd[a] += e[b] * e[b];
      }
      found.sd[a] = std::sqrt(found.sd[a]);
    }
    return found;
  }

  // Whether the profile is seen to fall to its base either side: half of another vessel's lumen looks like a narrow one.
  bool ends_within(const ProfileSamples& profile, const CylinderFit& lumen) const {
    constexpr double fallen = 0.25;  // of the lumen's contrast
    const auto& [centre, radius, kappa, base, tilt] = lumen.value;
    std::array<bool, 2> seen{};
    for (int k = 0; k <= 2 * profile.half; ++k) {
      const double u = (k - profile.half) * profile.step;
      if (profile.weight[k] == 0 || std::abs(u - centre) < radius + s_) continue;
      bool& side = seen[u > centre ? 1 : 0];
      side = side || profile.value[k] - base - tilt * u < fallen * 2 * kappa * radius;
    }
    return seen[0] && seen[1];
  }

  void fit_profile(const PointGrid& grid, const std::vector<char>& joins, double widest, int v, int at, int pass, Point& p) const {
    const double window = 1.4 * p.radius + 3 * s_ + 2;
    // The nearest point of every vessel whose lumen reaches into the window.
    std::vector<Neighbour> neighbours;
    const int count = static_cast<int>(vessels_.size());
    grid.near(p.y, p.x, window + widest + 3, [&](const PointGrid::Entry& entry) {
      const Point& q = vessels_[entry.vessel].points[entry.point];
      const double dy = q.y - p.y, dx = q.x - p.x, squared = dy * dy + dx * dx, reach = window + q.radius + 2 * s_;
      if (squared > reach * reach) return;
      // The same vessel only where it comes back.
      if (entry.vessel == v && std::abs(entry.point - at) < 3 * std::sqrt(squared) + 30) return;
      for (Neighbour& neighbour : neighbours)
        if (neighbour.vessel == entry.vessel) {
          if (squared < neighbour.squared) neighbour = {entry.vessel, entry.point, squared, neighbour.joined};
          return;
        }
      neighbours.push_back({entry.vessel, entry.point, squared, joins[static_cast<std::size_t>(v) * count + entry.vessel] != 0});
    });
    p.beside = false;
    p.offset_sd = p.blind_sd = 1e9;
    p.fit = 0;
    // Well inside the lumen that it ends in a vessel has none of its own.
    for (const Neighbour& neighbour : neighbours) {
      const Point& q = vessels_[neighbour.vessel].points[neighbour.point];
      if (ends_on(v, at, neighbour.vessel) && neighbour.squared < 0.5 * q.radius * q.radius && q.radius > 0.8 * p.radius) return;
    }
    const double step = std::max(1.0, p.radius / 8);
    const int half = std::min(48, static_cast<int>(window / step));
    std::array<double, 97> value, weight, extra;
    const ChordTable& table = ChordTable::get();
    const double noise = std::max<double>(options_.noise_sd, 1e-6);
    double high = -1e9;
    for (int k = -half; k <= half; ++k) {
      const double u = k * step, y = p.y + u * p.normal_y, x = p.x + u * p.normal_x;
      double& here = value[k + half] = sample(y, x);
      weight[k + half] = std::isnan(here) ? 0 : 1;
      extra[k + half] = 0;
      if (weight[k + half] == 0) continue;
      for (const Neighbour& neighbour : neighbours) {
        const auto& points = vessels_[neighbour.vessel].points;
        // Down to the nearest point of that vessel.
        int j = neighbour.point;
        const auto squared = [&](int i) { return (points[i].y - y) * (points[i].y - y) + (points[i].x - x) * (points[i].x - x); };
        double best = squared(j);
        for (const int direction : {-1, 1})
          while (j + direction >= 0 && j + direction < static_cast<int>(points.size()) && squared(j + direction) < best)
            best = squared(j += direction);
        const Point& q = points[j];
        if (best > (q.radius + 4 * s_) * (q.radius + 4 * s_)) continue;
        const double across = (y - q.y) * q.normal_y + (x - q.x) * q.normal_x;
        const bool beyond = (j == 0 || j + 1 == static_cast<int>(points.size())) && best > across * across + 1;
        if (beyond && best > q.radius * q.radius) continue;
        p.beside = true;
        const double theirs = table.at(beyond ? std::sqrt(best) : across, q.radius, s_).chord;
        if (neighbour.joined) {
          // One lumen: what shows is the deeper of the two.
          const double mine = p.kappa > 0 ? table.at(u, p.radius, s_).chord * p.kappa : 0, other = theirs * std::max(q.kappa, 0.0);
          if (pass == 0 && p.kappa <= 0 ? theirs > 0.3 * q.radius : other > 0.04 * q.kappa * q.radius && other > 0.5 * mine)
            weight[k + half] = 0;
        } else if (q.kappa > 0) {
          extra[k + half] += theirs * q.kappa;
        } else if (theirs > 0.2 * q.radius) {
          weight[k + half] = 0;
        }
      }
      here -= extra[k + half];
      if (weight[k + half] > 0 && std::abs(u) < p.radius + 1) high = std::max(high, here);
    }
    double samples = 0, least = 1e9;
    for (int k = 0; k <= 2 * half; ++k) {
      samples += weight[k];
      if (weight[k] > 0) least = std::min(least, value[k]);
    }
    if (samples < 5 || high < -1e8) return;
    // Starts and priors.
    const bool known = p.kappa > 0;
    const double base = known ? p.base : std::min(0.0, least);
    const double kappa = known ? p.kappa : std::max(high - base, 2 * noise) / (2 * p.radius), contrast = 2 * kappa * p.radius;
    std::array<double, 97> precision;
    const double model_sd = 0.02 * contrast;
    for (int k = 0; k <= 2 * half; ++k)
      if (weight[k] != 0) precision[k] = 1 / (noise * noise + model_sd * model_sd + 0.04 * extra[k] * extra[k]);
    const ProfileSamples samples_here{value, weight, precision, half, step, samples};
    const CylinderFit prior{{0, p.radius, kappa, base, 0},
                            {0.35 * p.radius + 1, known ? std::max(p.radius_sd, 0.02 * p.radius) : 0.5 * p.radius,
                             known ? std::max(p.kappa_sd, 0.03 * kappa) : 0.6 * kappa,
                             known ? std::max(p.base_sd, 0.02 * contrast) : 0.3 * contrast + noise, 0.03 * contrast / p.radius}};
    CylinderFit fit = fit_cylinder(samples_here, prior, known ? 4 : 8);
    const auto is_found = [&](const CylinderFit& found) { return std::abs(found.value[0]) < 0.8 * p.radius + 1.5; };
    bool narrowed = false;
    if (known && !(is_found(fit) && fit.sd[0] < known_sd_px && fit.misfit < most_misfit)) {
      // A short narrowing: the calibre of what lies either side is no help.
      CylinderFit any_radius = prior;
      any_radius.value[1] = std::clamp((high - base) / (2 * kappa), 0.5, most_narrowed * p.radius);
      any_radius.sd[1] = 0.5 * p.radius;
      const CylinderFit narrower = fit_cylinder(samples_here, any_radius, 8);
      narrowed = narrower.value[1] < most_narrowed * p.radius && narrower.misfit < most_misfit && narrower.sd[0] < known_sd_px &&
                 std::abs(narrower.value[0]) < 0.5 * p.radius && std::abs(std::log(narrower.value[2] / kappa)) < same_contrast &&
                 ends_within(samples_here, narrower);
      if (narrowed) fit = narrower;
    }
    if (!is_found(fit)) return;
    const auto& [centre, radius, fitted_kappa, fitted_base, tilt] = fit.value;
    p.seen_y = p.y + centre * p.normal_y;
    p.seen_x = p.x + centre * p.normal_x;
    // What the model does not explain moves the middle too: another vessel that nobody knows of.
    p.blind_sd = fit.sd[0];
    p.offset_sd = fit.sd[0] * std::sqrt(std::max(1.0, fit.misfit));
    p.fit_radius = radius;
    p.fit_kappa = fitted_kappa;
    p.fit_base = fitted_base;
    // What the prior itself says is no measurement, and a narrowing not how the vessel goes on.
    const double news = known ? 1 - std::min(1.0, fit.sd[1] * fit.sd[1] / (prior.sd[1] * prior.sd[1])) : 1;
    p.fit =
        !narrowed && fit.sd[1] < 0.15 * radius && fit.sd[2] < 0.3 * fitted_kappa && !p.beside && fit.sd[0] < 1 ? std::max(news, 0.2) : 0;
  }

  // Radius, attenuation and background along the vessel: running means of what clear profiles say, with how much they scatter; between
  // them, and where nothing is clear, the nearest.
  static void smooth_model(Vessel& vessel) {
    const int count = static_cast<int>(vessel.points.size());
    std::vector<int> clear;
    for (int i = 0; i < count; ++i)
      if (vessel.points[i].fit > 0) clear.push_back(i);
    if (clear.empty()) return;
    struct Mean {
      double radius, kappa, base, radius_sd, kappa_sd, base_sd;
    };
    std::vector<Mean> means(clear.size());
    Windows windows(vessel.points, clear);
    for (std::size_t first = 0; first < clear.size(); first += Windows::lanes) {
      Windows::Lanes radius, radius_sd, kappa, kappa_sd, base, base_sd;
      windows.place(static_cast<int>(first));
      windows.middle(&Point::fit_radius, radius, radius_sd);
      windows.middle(&Point::fit_kappa, kappa, kappa_sd);
      windows.middle(&Point::fit_base, base, base_sd);
      for (std::size_t l = 0; l < std::min<std::size_t>(Windows::lanes, clear.size() - first); ++l)
        means[first + l] = {radius[l], kappa[l], base[l], radius_sd[l], kappa_sd[l], base_sd[l]};
    }
    std::size_t next = 0;
    for (int i = 0; i < count; ++i) {
      while (next < clear.size() && clear[next] < i) ++next;
      const std::size_t b = std::min(next, clear.size() - 1), a = next > 0 && clear[b] != i ? next - 1 : b;
      const double span = clear[b] - clear[a], f = span > 0 ? std::clamp((i - clear[a]) / span, 0.0, 1.0) : 0;
      const double away = std::min(std::abs(i - clear[a]), std::abs(i - clear[b]));
      Point& p = vessel.points[i];
      const auto mix = [&](double Mean::*member) { return (1 - f) * means[a].*member + f * means[b].*member; };
      p.radius = mix(&Mean::radius);
      p.kappa = mix(&Mean::kappa);
      p.base = mix(&Mean::base);
      // Calibre strays by some percent over a diameter.
      const double stray = 0.03 * std::min(away / (2 * p.radius), 3.0);
      p.radius_sd = std::hypot(mix(&Mean::radius_sd), stray * p.radius);
      p.kappa_sd = std::hypot(mix(&Mean::kappa_sd), stray * p.kappa);
      p.base_sd = std::hypot(mix(&Mean::base_sd), stray * p.kappa * p.radius);
    }
  }

  // How the vessels of this image bend where their middles are seen: rms curvature, and how far it stays alike.
  void learn_bends() {
    constexpr int reach = 6, least = 200;
    double squares = 0, products = 0;
    int count = 0, pairs = 0;
    std::vector<double> curvature;
    for (const Vessel& vessel : vessels_) {
      const auto& points = vessel.points;
      const int size = static_cast<int>(points.size());
      curvature.assign(size, std::numeric_limits<double>::quiet_NaN());
      for (int i = reach; i + reach < size; ++i) {
        const Point &a = points[i - reach], &b = points[i], &c = points[i + reach];
        if (!(a.offset_sd < good_sd_px && b.offset_sd < good_sd_px && c.offset_sd < good_sd_px)) continue;
        const double turn = std::remainder(std::atan2(c.y - b.y, c.x - b.x) - std::atan2(b.y - a.y, b.x - a.x), 2 * pi) / reach;
        curvature[i] = turn;
        squares += turn * turn;
        ++count;
        if (i < 3 * reach || std::isnan(curvature[i - 2 * reach])) continue;
        products += turn * curvature[i - 2 * reach];
        ++pairs;
      }
    }
    if (count < least || pairs < least) return;
    bend_sd_ = std::sqrt(squares / count);
    const double alike = std::clamp(products / pairs / (squares / count), 0.1, 0.9);
    bend_length_px_ = -2 * reach / std::log(alike);
  }

  static double profile_sd(const Point& p) {
    return std::sqrt(profiles_alike) * std::hypot(std::max(p.offset_sd, least_offset_sd), p.beside ? beside_sd_px : 0);
  }

  // The SD to be expected of every point: forwards and back over what its vessel's profiles know.
  void predict(Vessel& vessel) const {
    auto& points = vessel.points;
    const int count = static_cast<int>(points.size());
    std::vector<double> step(count, 0);
    std::vector<Course::Matrix> filtered(count), predicted(count);
    Course course(bend_sd_, bend_length_px_);
    int seen = 0;
    for (int i = 0; i < count; ++i) {
      if (i > 0) {
        step[i] = std::hypot(points[i].y - points[i - 1].y, points[i].x - points[i - 1].x);
        course.advance(step[i]);
      }
      predicted[i] = course.covariance;
      if (points[i].offset_sd < 1 && points[i].offset_sd > 0) {
        course.measure(0, profile_sd(points[i]));
        ++seen;
      }
      filtered[i] = course.covariance;
    }
    if (seen < 3) return;
    Course::Matrix smooth = filtered[count - 1];
    for (int i = count - 1;; --i) {
      points[i].sd = std::sqrt(std::max(0.0, smooth[0][0]));
      if (i == 0) break;
      const Course::Matrix gain =
          Course::product(Course::product(filtered[i - 1], Course::transpose(course.transition(step[i]))), Course::inverse(predicted[i]));
      Course::Matrix more = smooth;
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) more[a][b] -= predicted[i][a][b];
      more = Course::product(Course::product(gain, more), Course::transpose(gain));
      smooth = filtered[i - 1];
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) smooth[a][b] += more[a][b];
    }
  }

  // A branch ends where nothing tells any more where it goes: what was carried on beyond is left out, the joint stays.
  static void trim(Vessel& vessel) {
    auto& points = vessel.points;
    const int count = static_cast<int>(points.size());
    const bool both = vessel.ends[0].there && vessel.ends[1].there;
    if (both && count < least_points &&
        std::none_of(points.begin(), points.end(), [](const Point& p) { return p.offset_sd < sound_sd_px; })) {
      points.clear();
      return;
    }
    int from = 0, to = count;
    if (vessel.ends[0].there)
      while (from < count && points[from].made && points[from].sd > ends_sd_px) ++from;
    if (vessel.ends[1].there)
      while (to > from && points[to - 1].made && points[to - 1].sd > ends_sd_px) --to;
    if (to - from < 2) return;
    points.erase(points.begin() + to, points.end());
    points.erase(points.begin(), points.begin() + from);
  }

  static double shift_of(const Point& p) { return (p.seen_y - p.y) * p.normal_y + (p.seen_x - p.x) * p.normal_x; }

  double weight_of(const Point& p) const {
    return p.offset_sd < 1 ? good_sd_px * good_sd_px / (good_sd_px * good_sd_px + p.offset_sd * p.offset_sd) : 0;
  }

  // The smooth curve through the fitted middles, between the first and the last that is known where the end is a joint.
  void curve(Vessel& vessel) const {
    auto& points = vessel.points;
    const int count = static_cast<int>(points.size());
    if (count < least_points) {
      // Between two others no pixel may speak for it at all.
      if (!(vessel.ends[0].there && vessel.ends[1].there))
        for (Point& p : points) p.offset_sd = p.blind_sd = p.made ? 1e9 : 0;
      return;
    }
    // Clutter and vessels that are no cylinders stay as they were traced.
    const auto fitted = std::count_if(points.begin(), points.end(), [](const Point& p) { return p.offset_sd < sound_sd_px; });
    if (fitted < least_fitted * count) {
      for (Point& p : points) p.offset_sd = p.blind_sd = p.made ? 1e9 : 0;
      return;
    }
    // An end that is a joint is carried on anew from where this vessel's own lumen is last seen.
    const auto last_seen = [&](int from, int step) {
      int traced = 0;
      while (traced < count / 2 && points[from + step * traced].made) ++traced;
      const auto sound = [&](int k) { return points[from + step * k].offset_sd < sound_sd_px; };
      for (int k = 0; k < std::min(traced + 12, count / 2 - 4); ++k)
        if (sound(k) && sound(k + 1) && sound(k + 2)) return from + step * k;
      return from + step * std::min(traced, count / 2 - 2);
    };
    const int low = vessel.ends[0].there ? last_seen(0, 1) : 0, high = vessel.ends[1].there ? last_seen(count - 1, -1) : count - 1;
    std::vector<SmoothingSpline::Sample> samples;
    double t = 0, total = 0;
    for (int i = low; i <= high; ++i) {
      if (i > low) t += std::hypot(points[i].y - points[i - 1].y, points[i].x - points[i - 1].x);
      const Point& p = points[i];
      double w = weight_of(p);
      const double shift = p.offset_sd < 1 ? shift_of(p) : 0;
      w = std::max(w, p.made ? 1e-6 : doubtful_weight);
      total += w;
      samples.push_back({t, p.y + shift * p.normal_y, p.x + shift * p.normal_x, w, false});
    }
    if (!(t > 3) || !(total > 0.5)) return;
    const SmoothingSpline spline(samples, t, options_.spline_knot_px, curvature_penalty, outlier_px);
    const int fine = std::max(8, static_cast<int>(t * 4));
    std::vector<double> arc(fine + 1, 0);
    SmoothingSpline::Position before = spline.at(0);
    for (int i = 1; i <= fine; ++i) {
      const SmoothingSpline::Position here = spline.at(t * i / fine);
      arc[i] = arc[i - 1] + std::hypot(here.y - before.y, here.x - before.x);
      before = here;
    }
    const int steps = std::max(3, static_cast<int>(std::lround(arc[fine])));
    std::vector<Point> result;
    int cursor = 0;
    std::size_t sample = 0;
    for (int k = 0; k <= steps; ++k) {
      const double wanted = arc[fine] * k / steps;
      while (cursor + 1 < fine && arc[cursor + 1] < wanted) ++cursor;
      const double span = arc[cursor + 1] - arc[cursor], f = span > 0 ? std::clamp((wanted - arc[cursor]) / span, 0.0, 1.0) : 0;
      const double here_t = t * (cursor + f) / fine;
      const SmoothingSpline::Position here = spline.at(here_t);
      while (sample + 1 < samples.size() && std::abs(samples[sample + 1].t - here_t) <= std::abs(samples[sample].t - here_t)) ++sample;
      Point point = points[low + static_cast<int>(sample)];
      point.y = here.y;
      point.x = here.x;
      result.push_back(point);
    }
    points = std::move(result);
  }

  // The way on from a vessel's tip, a step a pixel.
  struct Way {
    std::vector<Place> places;
    std::vector<double> sd;
  };
  Way way_on(const std::vector<Point>& points, int steps) const {
    constexpr int back = 40, direction = 8;
    const int count = static_cast<int>(points.size());
    const Point &tip = points.back(), &earlier = points[std::max(0, count - 1 - direction)];
    const double length = std::max(1e-9, std::hypot(tip.y - earlier.y, tip.x - earlier.x));
    const double dy = (tip.y - earlier.y) / length, dx = (tip.x - earlier.x) / length;
    Course course(bend_sd_, bend_length_px_);
    double along = 0;
    for (int i = std::max(0, count - back); i < count; ++i) {
      const Point& p = points[i];
      const double here = (p.y - tip.y) * dy + (p.x - tip.x) * dx;
      if (i > std::max(0, count - back)) course.advance(std::max(0.1, here - along));
      along = here;
      // Towards the tip the curve itself, whose end the profiles may have left behind, else what they show.
      const bool seen = p.offset_sd < 1 && p.offset_sd > 0;
      if (seen)
        course.measure((p.seen_y - tip.y) * dx - (p.seen_x - tip.x) * dy, profile_sd(p));
      else if (p.offset_sd == 0 || first_)
        course.measure((p.y - tip.y) * dx - (p.x - tip.x) * dy, 1);
    }
    const double off = std::clamp(course.state[0], -1.0, 1.0);
    Way way;
    for (int k = 1; k <= steps; ++k) {
      course.advance(1);
      const double aside = course.state[0] - off;
      way.places.push_back({tip.y + k * dy + aside * dx, tip.x + k * dx - aside * dy});
      way.sd.push_back(course.sd());
    }
    return way;
  }

  // Where the way on from a vessel's tip meets another's middle line, or comes nearest to it.
  struct Meeting {
    bool found = false, crossed = false;
    double run = 1e9;  // steps of the way
    double sine = 0;   // of the angle at which it crosses
    Place place;
    double radius = 0;  // the other's
  };
  // own: the tip's index where it is its own vessel that it may meet, else -1.
  static Meeting meet(const Point& tip, const std::vector<Place>& way, const std::vector<Point>& other, int own) {
    Meeting meeting;
    const int count = static_cast<int>(other.size());
    const auto nearest = [&](double y, double x, double& squared) {
      int at = -1;
      squared = 1e18;
      for (int j = 0; j < count; ++j) {
        const double d = (other[j].y - y) * (other[j].y - y) + (other[j].x - x) * (other[j].x - x);
        if (d >= squared || near_end(own, j)) continue;
        squared = d;
        at = j;
      }
      return at;
    };
    double squared = 0;
    int at = nearest(tip.y, tip.x, squared);
    if (at < 0) return meeting;
    meeting.found = true;
    meeting.radius = other[at].radius;
    meeting.place = {other[at].y, other[at].x};
    const std::size_t furthest = std::min(way.size(), static_cast<std::size_t>(3 * meeting.radius + 12));
    const auto across = [&](const Place& p, int j) {
      return (p.y - other[j].y) * other[j].normal_y + (p.x - other[j].x) * other[j].normal_x;
    };
    double before = across({tip.y, tip.x}, at), least = squared;
    meeting.run = 0;
    for (std::size_t k = 0; k < furthest; ++k) {
      at = nearest(way[k].y, way[k].x, squared);
      const double here = across(way[k], at);
      if ((here <= 0) != (before <= 0) && squared < 9) {
        meeting.crossed = true;
        meeting.run = static_cast<double>(k + 1);
        meeting.place = {other[at].y, other[at].x};
        const Place from = k > 0 ? way[k - 1] : Place{tip.y, tip.x};
        meeting.sine = std::abs((way[k].y - from.y) * other[at].normal_y + (way[k].x - from.x) * other[at].normal_x);
        return meeting;
      }
      before = here;
      if (squared >= least) continue;
      least = squared;
      meeting.run = static_cast<double>(k + 1);
      meeting.place = {other[at].y, other[at].x};
    }
    return meeting;
  }

  static Place nearest_place(const std::vector<Point>& line, const Place& to) {
    Place best = to;
    double squared = 1e18;
    for (const Point& p : line) {
      const double d = (p.y - to.y) * (p.y - to.y) + (p.x - to.x) * (p.x - to.x);
      if (d >= squared) continue;
      squared = d;
      best = {p.y, p.x};
    }
    return best;
  }

  // On from each end that is a joint, as it may be expected to go, to the middle line it joins.
  void extend() {
    std::vector<std::vector<Point>> lines;
    for (const Vessel& vessel : vessels_) lines.push_back(vessel.points);
    for (std::size_t v = 0; v < vessels_.size(); ++v)
      for (const int side : {0, 1}) {
        Joint& joint = vessels_[v].ends[side];
        auto& points = vessels_[v].points;
        if (!joint.there || points.size() < 4) continue;
        if (side == 0) std::reverse(points.begin(), points.end());
        const Point tip = points.back();
        const Way way = way_on(points, 60);
        Meeting best;
        for (const int candidate : joint.candidates) {
          const int own = candidate != static_cast<int>(v) ? -1 : (side == 0 ? 0 : static_cast<int>(lines[v].size()) - 1);
          const Meeting meeting = meet(tip, way.places, lines[candidate], own);
          if (!meeting.found || (best.found && (meeting.crossed != best.crossed ? best.crossed : meeting.run >= best.run))) continue;
          best = meeting;
          joint.vessel = candidate;
        }
        bool sure = false;
        // Once chosen it stays.
        if (best.found) {
          joint.candidates = {joint.vessel};
          joint.reach = best.radius;
          // Where it runs beside the other for long, it is the ridge that tells best where they part.
          sure = best.crossed && way.sd[static_cast<std::size_t>(best.run) - 1] < best.sine * best.radius;
          joint.place = sure ? best.place : nearest_place(lines[joint.vessel], joint.traced);
        }
        const auto add = [&](double y, double x) {
          Point point = tip;
          point.y = y;
          point.x = x;
          point.offset_sd = point.blind_sd = 1e9;
          point.fit = 0;
          point.made = true;
          points.push_back(point);
        };
        // What is left between the way's end and a joint that is sure is shared out along it; else it is a straight line.
        int steps = sure ? static_cast<int>(best.run) : 0;
        const double to_joint = distance({tip.y, tip.x}, joint.place);
        if (!sure)
          while (steps < static_cast<int>(way.sd.size()) && way.sd[steps] < ends_sd_px && steps + 2 < to_joint) ++steps;
        Place last = {tip.y, tip.x};
        for (int k = 0; k < steps; ++k) {
          const double share = sure ? (k + 1.0) / steps : 0;
          last = {way.places[k].y + share * (joint.place.y - way.places[steps - 1].y),
                  way.places[k].x + share * (joint.place.x - way.places[steps - 1].x)};
          add(last.y, last.x);
        }
        const double gap = distance(last, joint.place);
        for (double step = 1; step < gap + 0.5 && gap > 0.1; step += 1) {
          const double share = std::min(step, gap) / gap;
          add(last.y + share * (joint.place.y - last.y), last.x + share * (joint.place.x - last.x));
        }
        if (side == 0) std::reverse(points.begin(), points.end());
      }
  }

  const Image<float>& image_;
  const Image<std::uint8_t>& valid_;
  std::vector<Vessel>& vessels_;
  const CentrelineFitOptions& options_;
  const double s_;     // point spread with the pixel
  bool first_ = true;  // nothing fitted yet
  double bend_sd_ = usual_bend, bend_length_px_ = usual_bend_length_px;
  const bool parallel_;
};

// ---- where vessels cross ----

// Where the middle lines of two vessels meet without either ending there.
struct Passing {
  std::array<int, 2> vessels{}, points{};
  double reach_px = 0;  // from there the two lumens are apart
};

class PassingFinder {
 public:
  PassingFinder(const std::vector<Vessel>& vessels, const Image<float>& image) : vessels_(vessels), image_(image) {}

  // `taken`: pairs of vessels that were taken for crossing one another: where no two lines meet, they do where they come nearest.
  std::vector<Passing> find(const std::vector<std::pair<int, int>>& taken) const {
    std::vector<Passing> result;
    const int count = static_cast<int>(vessels_.size());
    for (int a = 0; a < count; ++a)
      for (int b = a + 1; b < count; ++b) meet(a, b, result);
    for (const std::pair<int, int>& pair : taken) {
      const int a = std::min(pair.first, pair.second), b = std::max(pair.first, pair.second);
      const auto of_both = [&](const Passing& p) { return p.vessels == std::array<int, 2>{a, b}; };
      if (a < 0 || a == b || vessels_[a].points.empty() || vessels_[b].points.empty()) continue;
      if (std::none_of(result.begin(), result.end(), of_both)) result.push_back(nearest(a, b));
    }
    return result;
  }

  // In a crossing the attenuations of both vessels add up; where they are one lumen, the wider one's is all there is, and where it is more
  // than both, others are there too.
  bool adds_up(const Passing& passing) const {
    constexpr double least_share = 0.25, most_share = 1.7;  // of the thinner one's, beyond the wider one's: 1 in a crossing
    const auto &a = vessels_[passing.vessels[0]].points, &b = vessels_[passing.vessels[1]].points;
    const std::optional<double> one = beside(a, passing.points[0], passing.reach_px),
                                other = beside(b, passing.points[1], passing.reach_px);
    if (!one || !other) return true;
    const Point &p = a[passing.points[0]], &q = b[passing.points[1]];
    double here = -1e9;
    const int y = static_cast<int>(std::lround((p.y + q.y) / 2)), x = static_cast<int>(std::lround((p.x + q.x) / 2));
    for (int dy = -1; dy <= 1; ++dy)
      for (int dx = -1; dx <= 1; ++dx)
        if (y + dy >= 0 && x + dx >= 0 && y + dy < image_.height() && x + dx < image_.width())
          here = std::max<double>(here, image_(y + dy, x + dx));
    const double share = (here - std::max(*one, *other)) / std::max(1e-6, std::min(*one, *other));
    return share > least_share && share < most_share;
  }

 private:
  // Neither a joint of the two nor what lies about it is a crossing.
  bool at_joint(int a, int b, const Point& p) const {
    for (const auto& [own, other] : {std::pair{a, b}, std::pair{b, a}})
      for (const Joint& joint : vessels_[own].ends)
        if (joint.there && joint.vessel == other && std::hypot(joint.place.y - p.y, joint.place.x - p.x) < 2 * joint.reach + 6) return true;
    return false;
  }

  Passing passing(int a, int i, int b, int j) const {
    const Point &p = vessels_[a].points[i], &q = vessels_[b].points[j];
    constexpr double least_sine = 0.15;  // of 9 degrees: smaller angles are known too badly
    const double sine = std::max(least_sine, std::abs(p.normal_y * q.normal_x - p.normal_x * q.normal_y));
    return {{a, b}, {i, j}, (p.radius + q.radius) / sine + 2};
  }

  void meet(int a, int b, std::vector<Passing>& result) const {
    const auto &first = vessels_[a].points, &second = vessels_[b].points;
    const auto cross = [](const Point& o, const Point& p, const Point& q) { return (p.y - o.y) * (q.x - o.x) - (p.x - o.x) * (q.y - o.y); };
    constexpr int stride = 8;  // points lie 1 px apart: nothing nearer than that is passed over
    for (std::size_t i = 0; i + 1 < first.size(); ++i)
      for (std::size_t j = 0; j + 1 < second.size();) {
        const Point &p = first[i], &q = second[j];
        const double away = std::max(std::abs(p.y - q.y), std::abs(p.x - q.x));
        if (away > stride) {
          j += std::max<std::size_t>(1, static_cast<std::size_t>(away / 2));
          continue;
        }
        const Point &p1 = first[i + 1], &q1 = second[j + 1];
        if ((cross(p, p1, q) > 0) != (cross(p, p1, q1) > 0) && (cross(q, q1, p) > 0) != (cross(q, q1, p1) > 0) && !at_joint(a, b, p)) {
          const Passing found = passing(a, static_cast<int>(i), b, static_cast<int>(j));
          const bool again = std::any_of(result.begin(), result.end(), [&](const Passing& other) {
            return other.vessels == found.vessels && std::abs(other.points[0] - found.points[0]) < found.reach_px;
          });
          if (!again) result.push_back(found);
        }
        ++j;
      }
  }

  Passing nearest(int a, int b) const {
    double least = 1e18;
    int at_a = 0, at_b = 0;
    for (int i = 0; i < static_cast<int>(vessels_[a].points.size()); ++i)
      for (int j = 0; j < static_cast<int>(vessels_[b].points.size()); ++j) {
        const Point &p = vessels_[a].points[i], &q = vessels_[b].points[j];
        const double d = (p.y - q.y) * (p.y - q.y) + (p.x - q.x) * (p.x - q.x);
        if (d >= least) continue;
        least = d;
        at_a = i;
        at_b = j;
      }
    return passing(a, at_a, b, at_b);
  }

  // Median of the image along a vessel where it has left the crossing, of the side where it is less: the other may hold another crossing.
  std::optional<double> beside(const std::vector<Point>& points, int at, double reach_px) const {
    constexpr int length = 15, enough = 6;
    std::optional<double> least;
    for (const int side : {-1, 1}) {
      std::vector<float> values;
      for (int k = 0; k < length; ++k) {
        const int i = at + side * (static_cast<int>(reach_px) + k);
        if (i < 0 || i >= static_cast<int>(points.size())) break;
        const int y = static_cast<int>(std::lround(points[i].y)), x = static_cast<int>(std::lround(points[i].x));
        if (y >= 0 && x >= 0 && y < image_.height() && x < image_.width()) values.push_back(image_(y, x));
      }
      if (static_cast<int>(values.size()) < enough) continue;
      const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
      std::nth_element(values.begin(), middle, values.end());
      least = std::min<double>(least.value_or(*middle), *middle);
    }
    return least;
  }

  const std::vector<Vessel>& vessels_;
  const Image<float>& image_;
};

// ---- back to a graph ----

VesselGraph make_graph(const std::vector<Vessel>& vessels, const std::vector<std::pair<int, int>>& crossing, const Image<float>& image,
                       const Image<float>& z) {
  const int height = z.height(), width = z.width();
  VesselGraph graph;
  struct Cut {
    int point, node;
  };
  std::vector<std::vector<Cut>> cuts(vessels.size());
  std::vector<std::array<int, 2>> end_node(vessels.size(), {-1, -1});
  for (std::size_t v = 0; v < vessels.size(); ++v)
    for (const int side : {0, 1}) {
      const Joint& joint = vessels[v].ends[side];
      if (!joint.there || vessels[v].points.empty()) continue;
      int node = -1;
      for (std::size_t n = 0; n < graph.branch_points.size() && node < 0; ++n)
        if (std::hypot(graph.branch_points[n].y - joint.place.y, graph.branch_points[n].x - joint.place.x) < std::max(4.0, joint.reach))
          node = static_cast<int>(n);
      if (node < 0) {
        node = static_cast<int>(graph.branch_points.size());
        graph.branch_points.push_back({joint.place.y, joint.place.x, {}, false});
        if (joint.vessel >= 0) {
          const auto& other = vessels[joint.vessel].points;
          const int own = joint.vessel != static_cast<int>(v) ? -1 : (side == 0 ? 0 : static_cast<int>(other.size()) - 1);
          int nearest = -1;
          double nearest_px = 1e9;
          for (int j = 0; j < static_cast<int>(other.size()); ++j) {
            const double d = std::hypot(other[j].y - joint.place.y, other[j].x - joint.place.x);
            if (d >= nearest_px || near_end(own, j)) continue;
            nearest_px = d;
            nearest = j;
          }
          if (nearest >= 0) cuts[joint.vessel].push_back({nearest, node});
        }
      }
      end_node[v][side] = node;
    }
  const PassingFinder finder(vessels, image);
  std::vector<Passing> crossings;
  for (const Passing& passing : finder.find(crossing)) {
    if (finder.adds_up(passing)) {
      crossings.push_back(passing);
      continue;
    }
    // One lumen: both vessels are cut there.
    const Point& place = vessels[passing.vessels[0]].points[passing.points[0]];
    const int node = static_cast<int>(graph.branch_points.size());
    graph.branch_points.push_back({place.y, place.x, {}, false});
    for (const int side : {0, 1}) cuts[passing.vessels[side]].push_back({passing.points[side], node});
  }
  std::vector<std::vector<std::pair<int, int>>> pieces(vessels.size());  // first point, segment
  for (std::size_t v = 0; v < vessels.size(); ++v) {
    const auto& points = vessels[v].points;
    if (points.size() < 2) continue;
    std::stable_sort(cuts[v].begin(), cuts[v].end(), [](const Cut& a, const Cut& b) { return a.point < b.point; });
    int from = 0, node = end_node[v][0];
    const auto add = [&](int to, int end) {
      VesselGraph::Segment segment;
      double arc = 0;
      int last = -1;
      for (int i = from; i <= to; ++i) {
        const Point& p = points[i];
        if (!(p.y >= 0 && p.x >= 0 && p.y <= height - 1 && p.x <= width - 1)) continue;
        if (last >= 0) arc += std::hypot(p.y - points[last].y, p.x - points[last].x);
        last = i;
        CentrelinePoint point;
        point.y = static_cast<float>(p.y);
        point.x = static_cast<float>(p.x);
        point.tangent_y = static_cast<float>(-p.normal_x);
        point.tangent_x = static_cast<float>(p.normal_y);
        point.arc_length_px = static_cast<float>(arc);
        point.radius_px = static_cast<float>(p.radius);
        point.z = z(static_cast<int>(std::lround(p.y)), static_cast<int>(std::lround(p.x)));
        point.inferred = !((p.made ? p.offset_sd : p.blind_sd) < known_sd_px);
        point.sd_px = static_cast<float>(p.sd);
        segment.centreline.points.push_back(point);
      }
      if (segment.centreline.points.size() >= 2) {
        segment.start_branch = node;
        segment.end_branch = end;
        pieces[v].emplace_back(from, static_cast<int>(graph.segments.size()));
        graph.segments.push_back(std::move(segment));
      }
      from = to;
      node = end;
    };
    for (const Cut& cut : cuts[v])
      if (cut.point - from >= 2 && static_cast<int>(points.size()) - 1 - cut.point >= 2)
        add(cut.point, cut.node);
      else if (cut.point - from < 2 && node < 0)
        node = cut.node;
    add(static_cast<int>(points.size()) - 1, end_node[v][1]);
  }
  // Segments longest first.
  std::vector<int> order(graph.segments.size()), number(graph.segments.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return graph.segments[a].centreline.length_px() > graph.segments[b].centreline.length_px(); });
  std::vector<VesselGraph::Segment> sorted;
  for (std::size_t i = 0; i < order.size(); ++i) {
    number[order[i]] = static_cast<int>(i);
    sorted.push_back(std::move(graph.segments[order[i]]));
  }
  graph.segments = std::move(sorted);
  for (std::size_t s = 0; s < graph.segments.size(); ++s)
    for (const int branch : {graph.segments[s].start_branch, graph.segments[s].end_branch})
      if (branch >= 0) {
        auto& list = graph.branch_points[branch].segments;
        if (list.empty() || list.back() != static_cast<int>(s)) list.push_back(static_cast<int>(s));
      }
  const auto piece = [&](int v, int point) {
    int found = -1;
    for (const auto& [from, segment] : pieces[v])
      if (from <= point || found < 0) found = number[segment];
    return found;
  };
  for (const Passing& passing : crossings) {
    const Point& place = vessels[passing.vessels[0]].points[passing.points[0]];
    BranchPoint branch{
        place.y, place.x, {piece(passing.vessels[0], passing.points[0]), piece(passing.vessels[1], passing.points[1])}, true};
    if (branch.segments[0] < 0 || branch.segments[1] < 0) continue;
    std::sort(branch.segments.begin(), branch.segments.end());
    graph.branch_points.push_back(std::move(branch));
  }
  return graph;
}

}  // namespace

VesselGraph fit_centrelines(const Stream& stream, ImageView<const float> image, ImageView<const float> z,
                            ImageView<const std::uint8_t> valid, const VesselGraph& graph, const CentrelineFitOptions& options) {
  require(same_size(image, z), "fit_centrelines: image and z differ in size");
  require(valid.data == nullptr || same_size(image, valid), "fit_centrelines: image and valid differ in size");
  require(options.noise_sd > 0 && options.psf_px > 0, "fit_centrelines: noise_sd and psf_px must be positive");
  require(options.passes >= 1 && options.spline_knot_px > 0, "fit_centrelines: passes and spline_knot_px must be positive");
  if (graph.segments.empty()) return graph;
  const Image<float> host_image = to_host(stream, image), host_z = to_host(stream, z);
  Image<std::uint8_t> host_valid;
  if (valid.data) host_valid = to_host(stream, valid);
  Assembly assembly(graph, host_image);
  std::vector<Vessel> vessels = std::move(assembly.vessels);
  Refit(host_image, host_valid, vessels, options, stream.on_cuda() || stream.schedule().parallel).run();
  return make_graph(vessels, assembly.crossing, host_image, host_z);
}

}  // namespace cinelumen
