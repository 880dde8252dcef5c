#include "engine/phantom/displacement.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/phantom/random.h"

namespace cinelumen {
namespace {

std::array<double, 4> bspline(double f) {
  const double g = 1 - f;
  return {g * g * g / 6, (4 - 6 * f * f + 3 * f * f * f) / 6, (4 - 6 * g * g + 3 * g * g * g) / 6, f * f * f / 6};
}

}  // namespace

std::array<double, 2> PhantomWarp::at(int frame, double y_px, double x_px) const {
  if (nodes.empty()) return {0, 0};
  const double v = std::clamp((y_px - origin_y_px) / spacing_px, 1.0, rows - 2.001);
  const double u = std::clamp((x_px - origin_x_px) / spacing_px, 1.0, columns - 2.001);
  const int j = static_cast<int>(v), i = static_cast<int>(u);
  const auto wy = bspline(v - j), wx = bspline(u - i);
  double dy = 0, dx = 0;
  const std::array<float, 2>* row = nodes[static_cast<std::size_t>(frame)].data() + static_cast<std::ptrdiff_t>(j - 1) * columns + i - 1;
  for (std::size_t k = 0; k < 4; ++k, row += columns)
    for (std::size_t l = 0; l < 4; ++l) {
      const double weight = wy[k] * wx[l];
      dy += weight * static_cast<double>(row[l][0]);
      dx += weight * static_cast<double>(row[l][1]);
    }
  return {dy, dx};
}

std::array<double, 2> PhantomTruth::displacement(int frame, double y_px, double x_px) const {
  const auto warped = warp.at(frame, y_px, x_px);
  const PhantomMotion& m = motion[static_cast<std::size_t>(frame)];
  const double cy = (options.rows - 1) / 2.0, cx = (options.columns - 1) / 2.0;
  const double c = std::cos(m.rotation_rad), s = std::sin(m.rotation_rad);
  const double qy = y_px + warped[0] - cy, qx = x_px + warped[1] - cx;
  return {cy + c * qy + s * qx + m.dy_px - y_px, cx + c * qx - s * qy + m.dx_px - x_px};
}

namespace phantom {
namespace {

/// A rigid motion of the plane: p goes to rotation p + shift.
struct Placement {
  double c = 1, s = 0, dy = 0, dx = 0;
  std::array<double, 2> operator()(double y, double x) const { return {c * y + s * x + dy, c * x - s * y + dx}; }
};

/// First `second`, a turn about a point and a shift; then `first`.
Placement carried(const Placement& first, double angle, double y, double x, double shift_y, double shift_x) {
  const double c = std::cos(angle), s = std::sin(angle);
  const Placement own = {c, s, y - c * y - s * x + shift_y, x - c * x + s * y + shift_x};
  const auto origin = first(own.dy, own.dx);
  return {first.c * own.c - first.s * own.s, first.c * own.s + first.s * own.c, origin[0], origin[1]};
}

double distance(const BoneShadow& bone, double y, double x) {
  const double dy = bone.by - bone.ay, dx = bone.bx - bone.ax, length2 = std::max(1e-9, dy * dy + dx * dx);
  const double f = std::clamp(((y - bone.ay) * dy + (x - bone.ax) * dx) / length2, 0.0, 1.0);
  return std::max(0.0, std::hypot(y - bone.ay - f * dy, x - bone.ax - f * dx) - bone.ra - f * (bone.rb - bone.ra));
}

double distance(const Limb& limb, double y, double x) {
  double nearest = 1e9;
  for (const BoneShadow& bone : limb.bones) nearest = std::min(nearest, distance(bone, y, x));
  return nearest;
}

/// A slow swing in time, zero at frame 0, with a jolt.
struct Course {
  double rate = 0, phase = 0, share_of_jolt = 0, start = 0;
  Course(RandomStream& random, double jolt_frame)
      : rate(0.2 + 0.25 * random.uniform()),
        phase(2 * std::numbers::pi * random.uniform()),
        share_of_jolt(random.uniform() - 0.5),
        start(jolt_frame) {}
  double at(int frame) const { return 0.5 * (std::sin(rate * frame + phase) - std::sin(phase)) + share_of_jolt * jolt_at(frame, start); }
};

/// Cubic B-spline coefficients that pass through the values of one line of nodes (Unser's recursive filter, mirrored at both ends).
template <class At>
void interpolate(int count, const At& at) {
  const double pole = std::sqrt(3.0) - 2;
  double first = 0, power = 1;
  for (int k = 0; k < std::min(count, 30); ++k, power *= pole) first += power * at(k);
  double previous = first;
  std::vector<double> causal = {first};
  for (int k = 1; k < count; ++k) causal.push_back(previous = at(k) + pole * previous);
  const std::size_t last = causal.size() - 1;
  double next = pole / (pole * pole - 1) * (causal[last] + pole * causal[last - 1]);
  at(count - 1) = static_cast<float>(6 * next);
  for (int k = count - 2; k >= 0; --k) at(k) = static_cast<float>(6 * (next = pole * (next - causal[static_cast<std::size_t>(k)])));
}

PhantomWarp grid(double spacing, int rows, int columns, double beyond_px) {
  PhantomWarp warp;
  warp.spacing_px = spacing;
  warp.origin_y_px = warp.origin_x_px = -beyond_px - spacing;
  warp.rows = static_cast<int>(std::ceil((rows + 2 * beyond_px) / spacing)) + 4;
  warp.columns = static_cast<int>(std::ceil((columns + 2 * beyond_px) / spacing)) + 4;
  return warp;
}

}  // namespace

double jolt_at(double frame, double start) { return frame < start ? 0 : 1.1 + 0.9 * std::exp(-(frame - start) / 1.5); }

PhantomWarp make_warp(const std::vector<Limb>& limbs, int rows, int columns, int frames, double largest_px, double jolt_frame,
                      std::uint64_t seed) {
  if (largest_px <= 0) return {};
  const double side = std::max(rows, columns), degree = std::numbers::pi / 180;
  PhantomWarp warp = grid(side / 51.2, rows, columns, side / 10);
  RandomStream random(seed, Purpose::motion, 0, 2);
  std::vector<Course> turn, up, along;
  for (std::size_t k = 0; k < limbs.size(); ++k) {
    turn.emplace_back(random, jolt_frame);
    up.emplace_back(random, jolt_frame);
    along.emplace_back(random, jolt_frame);
  }
  struct Wave {
    double ky, kx, phase, dy, dx;
    Course course;
  };
  std::vector<Wave> waves;
  for (int k = 0; k < 5; ++k) {
    const double k_px = 2 * std::numbers::pi / (side * (0.25 + 0.3 * random.uniform())), towards = 2 * std::numbers::pi * random.uniform();
    const double phase = 2 * std::numbers::pi * random.uniform(), push = 2 * std::numbers::pi * random.uniform();
    waves.push_back({k_px * std::sin(towards), k_px * std::cos(towards), phase, std::sin(push), std::cos(push), {random, jolt_frame}});
  }
  // Who moves a node, once for all frames: the limbs by their nearness, and the waves far from bones.
  const std::size_t nodes = static_cast<std::size_t>(warp.rows) * static_cast<std::size_t>(warp.columns);
  const double soft_px = side / 85, wave_px = limbs.empty() ? 1 : side / 1500;
  std::vector<std::vector<double>> weight(nodes, std::vector<double>(limbs.size()));
  std::vector<double> give(nodes, 1.0);
  double scale = 1;
  const auto place = [&](std::size_t n) {
    const auto columns_of = static_cast<std::size_t>(warp.columns);
    return std::array<double, 2>{warp.origin_y_px + warp.spacing_px * static_cast<double>(n / columns_of),
                                 warp.origin_x_px + warp.spacing_px * static_cast<double>(n % columns_of)};
  };
  for (std::size_t n = 0; n < nodes; ++n) {
    const auto [y, x] = place(n);
    double total = 0, nearest = 1e9;
    for (std::size_t k = 0; k < limbs.size(); ++k) {
      const double d = distance(limbs[k], y, x), near = d * d + soft_px * soft_px;
      nearest = std::min(nearest, d);
      total += weight[n][k] = 1 / (near * near);
    }
    for (double& w : weight[n]) w /= total;
    const double f = std::clamp(nearest / (4 * soft_px), 0.0, 1.0);
    give[n] = f * f * (3 - 2 * f);
  }
  // Displacements in frame 0's units first, to learn how large they are; then turns and shifts scaled, so that limbs stay rigid.
  for (const bool scaled : {false, true}) {
    double largest = 0;
    warp.nodes.clear();
    for (int frame = 0; frame < frames; ++frame) {
      std::vector<Placement> placements;
      for (std::size_t k = 0; k < limbs.size(); ++k) {
        const Placement parent = limbs[k].parent < 0 ? Placement{} : placements[static_cast<std::size_t>(limbs[k].parent)];
        // Joints have a little play.
        const double play = side / 2500;
        placements.push_back(carried(parent, scale * limbs[k].swing_deg * degree * turn[k].at(frame), limbs[k].joint_y, limbs[k].joint_x,
                                     scale * play * up[k].at(frame), scale * play * along[k].at(frame)));
      }
      auto& field = warp.nodes.emplace_back(nodes);
      for (std::size_t n = 0; n < nodes; ++n) {
        const auto [y, x] = place(n);
        double dy = 0, dx = 0;
        for (std::size_t k = 0; k < limbs.size(); ++k) {
          const auto moved = placements[k](y, x);
          dy += weight[n][k] * (moved[0] - y);
          dx += weight[n][k] * (moved[1] - x);
        }
        for (const Wave& wave : waves) {
          const double push = scale * wave_px * give[n] * wave.course.at(frame) * std::sin(wave.ky * y + wave.kx * x + wave.phase);
          dy += push * wave.dy;
          dx += push * wave.dx;
        }
        field[n] = {static_cast<float>(dy), static_cast<float>(dx)};
        if (y >= 0 && x >= 0 && y < rows && x < columns) largest = std::max(largest, std::hypot(dy, dx));
      }
    }
    if (!scaled) scale = largest > 0 ? largest_px / largest : 0;
  }
  return warp;
}

Displacement::Displacement(const PhantomMotion& motion, int rows, int columns)
    : cy_((rows - 1) / 2.0),
      cx_((columns - 1) / 2.0),
      dy_(motion.dy_px),
      dx_(motion.dx_px),
      cos_(std::cos(motion.rotation_rad)),
      sin_(std::sin(motion.rotation_rad)) {}

Displacement::Displacement(const PhantomMotion& motion, int rows, int columns, const PhantomWarp& warp, int frame)
    : Displacement(motion, rows, columns) {
  if (warp.nodes.empty()) return;
  there_ = {warp.spacing_px, warp.origin_y_px, warp.origin_x_px, warp.rows, warp.columns, {warp.nodes[static_cast<std::size_t>(frame)]}};
  back_ = grid(0.4 * warp.spacing_px, rows, columns, 0.09 * std::max(rows, columns));
  auto& field = back_.nodes.emplace_back();
  for (int j = 0; j < back_.rows; ++j)
    for (int i = 0; i < back_.columns; ++i) {
      const double y = back_.origin_y_px + j * back_.spacing_px, x = back_.origin_x_px + i * back_.spacing_px;
      // The field's gradients are far below one: each step gains a digit or so.
      std::array<double, 2> u{};
      for (int k = 0; k < 25; ++k) {
        const auto next = there_.at(0, y - u[0], x - u[1]);
        const double change = std::abs(next[0] - u[0]) + std::abs(next[1] - u[1]);
        u = next;
        if (change < 1e-6) break;
      }
      field.push_back({static_cast<float>(-u[0]), static_cast<float>(-u[1])});
    }
  for (std::size_t axis = 0; axis < 2; ++axis) {
    const auto node = [&](int j, int i) -> float& { return field[static_cast<std::size_t>(j * back_.columns + i)][axis]; };
    for (int j = 0; j < back_.rows; ++j) interpolate(back_.columns, [&](int i) -> float& { return node(j, i); });
    for (int i = 0; i < back_.columns; ++i) interpolate(back_.rows, [&](int j) -> float& { return node(j, i); });
  }
}

std::array<double, 2> Displacement::forward(double y, double x) const {
  const auto warped = there_.at(0, y, x);
  const double qy = y + warped[0] - cy_, qx = x + warped[1] - cx_;
  return {cy_ + cos_ * qy + sin_ * qx + dy_, cx_ + cos_ * qx - sin_ * qy + dx_};
}

std::array<double, 2> Displacement::turned(double y, double x, double ty, double tx) const {
  if (!rigid()) {
    const auto ahead = there_.at(0, y + 0.5 * ty, x + 0.5 * tx), behind = there_.at(0, y - 0.5 * ty, x - 0.5 * tx);
    ty += ahead[0] - behind[0];
    tx += ahead[1] - behind[1];
    const double length = std::hypot(ty, tx);
    ty /= length;
    tx /= length;
  }
  return {cos_ * ty + sin_ * tx, cos_ * tx - sin_ * ty};
}

std::array<double, 2> Displacement::unwarp(double y, double x) const {
  const auto u = back_.at(0, y, x);
  return {y + u[0], x + u[1]};
}

}  // namespace phantom
}  // namespace cinelumen
