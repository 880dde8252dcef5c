#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "engine/phantom/scene.h"
#include "kernels/stream.h"

namespace cinelumen::phantom {
namespace {

// Anatomy in mm of an adult right foot: x towards the toes, y up from the sole, z lateral; the ankle joint at (0, 85, 0). Sizes after
// standard atlases, rounded; the whole is then scaled to a small foot so that crus to toes fit into the field of view. Vessel radii are not
// scaled.
constexpr double foot_scale = 0.68;
constexpr Vec3 ankle = {0, 85, 0};
constexpr double plantarflexion_deg = 33, oblique_deg = 40, turn_deg = 8;
constexpr Vec3 view_offset = {-5, -20, 0};

double smoothstep(double low, double high, double x) {
  const double f = std::clamp((x - low) / (high - low), 0.0, 1.0);
  return f * f * (3 - 2 * f);
}

/// 0 for the leg, 1 for the foot: how far a point takes part in plantarflexion.
double in_foot(const Vec3& p) { return std::max(smoothstep(112, 66, p.y) * (p.y < 112), smoothstep(14, 34, p.x)); }

Vec3 turn_about_z(const Vec3& p, double angle) {
  return {p.x * std::cos(angle) - p.y * std::sin(angle), p.x * std::sin(angle) + p.y * std::cos(angle), p.z};
}

/// From anatomy to the room. `part`: 0 leg, 1 foot, -1 by position.
Vec3 to_room(const Vec3& p, double part = -1) {
  constexpr double degree = std::numbers::pi / 180;
  const double w = part < 0 ? in_foot(p) : part;
  const Vec3 q = turn_about_z(p - ankle, -w * plantarflexion_deg * degree);
  const Vec3 rolled = {q.x, q.y * std::cos(oblique_deg * degree) - q.z * std::sin(oblique_deg * degree),
                       q.z * std::cos(oblique_deg * degree) + q.y * std::sin(oblique_deg * degree)};
  const Vec3 yawed = {rolled.x * std::cos(turn_deg * degree) + rolled.z * std::sin(turn_deg * degree), rolled.y,
                      rolled.z * std::cos(turn_deg * degree) - rolled.x * std::sin(turn_deg * degree)};
  return Vec3{yawed.x, -yawed.y, yawed.z} * foot_scale + view_offset;
}

// ---- solids ----

/// A ball swept from one place to another while its radius changes.
struct RoundCone {
  Vec3 a, b;
  double ra = 1, rb = 1;
  // Of the distance's closed form: the same at every point.
  Vec3 ba = b - a;
  double l2 = dot(ba, ba), rr = ra - rb, a2 = l2 - rr * rr, il2 = 1 / l2;
};

/// Distance to the surface, negative inside (Quilez's closed form).
double distance(const RoundCone& cone, const Vec3& p) {
  const Vec3 pa = p - cone.a;
  const double y = dot(pa, cone.ba), z = y - cone.l2;
  const Vec3 side = pa * cone.l2 - cone.ba * y;
  const double x2 = dot(side, side), y2 = y * y * cone.l2, z2 = z * z * cone.l2;
  const double k = (cone.rr > 0 ? 1 : -1) * cone.rr * cone.rr * x2;
  if ((z > 0 ? 1 : -1) * cone.a2 * z2 > k) return std::sqrt(x2 + z2) * cone.il2 - cone.rb;
  if ((y > 0 ? 1 : -1) * cone.a2 * y2 < k) return std::sqrt(x2 + y2) * cone.il2 - cone.ra;
  return (std::sqrt(x2 * cone.a2 * cone.il2) + y * cone.rr) * cone.il2 - cone.ra;
}

/// What moves as one. Ankle, Chopart's, Lisfranc's and the basal joints of the toes; the leg turns about the knee.
enum LimbIndex { crus, hindfoot, midfoot, medial_rays, lateral_rays, great_toe, lesser_toes };

struct Ball {
  Vec3 centre;
  double radius = 0;
};

/// Round cones melted into one body, with rind and filling.
struct Solid {
  std::vector<RoundCone> parts;
  double melt_mm = 3, cortex_mm = 1;
  double cortex_per_mm = 0, filling_per_mm = 0;
  Ball bound;
  LimbIndex limb = crus;

  double surface(const Vec3& p) const {
    double d = 1e9;
    for (const RoundCone& part : parts) {
      const double e = distance(part, p), overlap = melt_mm - std::abs(d - e);
      d = std::min(d, e);
      if (overlap <= 0) continue;
      const double h = overlap / melt_mm;
      d -= h * h * melt_mm * 0.25;
    }
    return d;
  }
};

struct PartPlan {
  Vec3 a, b;
  double ra, rb;
};

Solid solid(const std::vector<PartPlan>& parts, double part, double melt, double cortex, double cortex_per_mm, double filling_per_mm) {
  Solid result;
  Vec3 sum;
  for (const PartPlan& p : parts) {
    result.parts.push_back({to_room(p.a, part), to_room(p.b, part), p.ra * foot_scale, p.rb * foot_scale});
    sum = sum + result.parts.back().a + result.parts.back().b;
  }
  result.melt_mm = melt * foot_scale;
  result.cortex_mm = cortex * foot_scale;
  // Per mm of an adult's bone: a scaled foot keeps an adult foot's contrast.
  result.cortex_per_mm = cortex_per_mm / foot_scale;
  result.filling_per_mm = filling_per_mm / foot_scale;
  result.bound.centre = sum * (0.5 / static_cast<double>(parts.size()));
  for (const RoundCone& cone : result.parts)
    result.bound.radius =
        std::max({result.bound.radius, norm(cone.a - result.bound.centre) + cone.ra + 1, norm(cone.b - result.bound.centre) + cone.rb + 1});
  return result;
}

std::vector<Solid> make_bones() {
  constexpr double rind = 0.036, sponge = 0.0085;
  std::vector<Solid> bones;
  LimbIndex limb = crus;
  const auto add = [&](double part, double melt, double cortex, double density, const std::vector<PartPlan>& parts) {
    bones.push_back(solid(parts, part, melt, cortex, rind * density, sponge * density));
    bones.back().limb = limb;
  };
  // Tibia with plafond and medial malleolus; fibula with lateral malleolus.
  add(0, 3, 2.1, 0.9,
      {{{-6, 330, 0}, {-3, 145, -3}, 12.5, 11.5},
       {{-3, 145, -3}, {-1, 116, -5}, 11.5, 13.5},
       {{-3, 108, -10}, {0, 108, 4}, 13.5, 13},
       {{3, 103, -21}, {5, 85, -24}, 7.5, 5.5}});
  add(0, 2, 1.8, 0.9, {{{-13, 330, 24}, {-11, 122, 23}, 6.5, 6}, {{-11, 122, 23}, {-9, 98, 25}, 6, 8}, {{-9, 98, 25}, {-7, 79, 26}, 8, 6}});
  limb = hindfoot;
  // Talus: trochlea, neck, head, posterior process.
  add(1, 7, 1.4, 1.1,
      {{{-8, 75, -7}, {-8, 75, 6}, 10.5, 10.5},
       {{8, 77, -7}, {8, 77, 6}, 11.5, 11.5},
       {{12, 72, -4}, {30, 64, -10}, 10, 9},
       {{31, 62, -11}, {34, 61, -12}, 10.5, 10},
       {{-10, 68, -2}, {-21, 66, -4}, 6, 4}});
  // Calcaneus: tuber, body, sustentaculum, anterior process.
  add(1, 9, 1.6, 1,
      {{{-42, 36, 2}, {-44, 26, 2}, 15, 13},
       {{-40, 36, 2}, {4, 45, 5}, 16, 12},
       {{4, 47, 4}, {33, 36, 12}, 11.5, 10},
       {{8, 51, -4}, {12, 51, -13}, 6.5, 5.5}});
  limb = midfoot;
  add(1, 4, 1.2, 1.1, {{{52, 58, -22}, {51, 56, -5}, 6, 6}, {{52, 63, -14}, {51, 49, -13}, 6, 5.5}});   // navicular
  add(1, 6, 1.2, 1, {{{54, 32, 14}, {63, 31, 16}, 9.5, 9}, {{56, 38, 11}, {63, 36, 13}, 7.5, 7}});      // cuboid
  add(1, 4, 1.1, 1, {{{67, 55, -21}, {78, 52, -22}, 6.5, 6.5}, {{67, 44, -19}, {79, 40, -19}, 6, 7}});  // medial cuneiform
  add(1, 4, 1.1, 1, {{{66, 61, -9}, {73, 59, -9}, 6, 6}, {{66, 53, -7}, {72, 51, -7}, 4.5, 4.5}});      // intermediate
  add(1, 4, 1.1, 1, {{{66, 56, 2}, {75, 54, 3}, 6, 5.5}, {{66, 48, 2}, {74, 45, 3}, 4.5, 4.5}});        // lateral
  struct Ray {
    Vec3 base, head;
    double base_r, shaft_r, head_r;
    Vec3 toe;  ///< tip
    bool big;
  };
  const Ray rays[] = {{{95, 43, -21}, {140, 16, -27}, 9, 6.2, 9.6, {190, 9, -24}, true},
                      {{87, 52, -8}, {148, 15, -11}, 7.5, 3.9, 6.4, {196, 8, -8}, false},
                      {{89, 46, 3}, {144, 14, 3}, 7.2, 3.8, 6.2, {190, 8, 5}, false},
                      {{82, 37, 14}, {136, 13, 16}, 7, 3.8, 6.1, {178, 8, 18}, false},
                      {{78, 29, 25}, {124, 11, 29}, 7.5, 3.9, 6, {162, 7, 31}, false}};
  for (const Ray& ray : rays) {
    const Vec3 axis = ray.head - ray.base;
    limb = ray.base.z < 0 ? medial_rays : lateral_rays;
    const auto at = [&](double f) { return ray.base + axis * f; };
    add(1, 5, 1.1, 1, {{at(0), at(0.10), ray.base_r, ray.base_r * 0.9}, {at(0.08), at(0.3), ray.base_r * 0.82, ray.shaft_r}});
    bones.back().parts.push_back({to_room(at(0.3), 1), to_room(at(0.72), 1), ray.shaft_r * foot_scale, ray.shaft_r * 0.95 * foot_scale});
    bones.back().parts.push_back(
        {to_room(at(0.72), 1), to_room(at(0.94), 1), ray.shaft_r * 0.95 * foot_scale, ray.head_r * 0.86 * foot_scale});
    bones.back().parts.push_back({to_room(at(0.95), 1), to_room(at(1.0), 1), ray.head_r * foot_scale, ray.head_r * 0.93 * foot_scale});
    bones.back().bound = {to_room(at(0.5), 1), (norm(axis) / 2 + 12) * foot_scale + 1};
    limb = ray.big ? great_toe : lesser_toes;
    // Phalanges: two for the great toe, three for the others, with joint spaces between.
    const Vec3 start = ray.head + unit(axis) * (ray.head_r * 1.25), toe = ray.toe - start;
    const auto phalanx = [&](double f0, double f1, double r, double lift) {
      const Vec3 a = start + toe * f0 + Vec3{0, lift, 0}, b = start + toe * f1 + Vec3{0, lift, 0}, m = (a + b) * 0.5;
      add(1, 3, 0.9, 0.95, {{a, m, r * 1.25, r * 0.8}, {m, b, r * 0.8, r}});
    };
    if (ray.big) {
      phalanx(0.05, 0.50, 7, 0);
      phalanx(0.72, 0.98, 5.5, 0);
    } else {
      phalanx(0.03, 0.46, 4.4, 3);
      phalanx(0.62, 0.76, 3.8, 2);
      phalanx(0.90, 1.0, 2.8, 0);
    }
  }
  limb = lateral_rays;
  add(1, 5, 1.1, 1, {{{77, 27, 28}, {68, 25, 31}, 6.5, 4.5}});  // styloid of the fifth
  limb = medial_rays;
  add(1, 2, 1, 1.1, {{{130, 6, -22}, {136, 6, -22}, 4.6, 4.6}});  // sesamoids
  add(1, 2, 1, 1.1, {{{130, 6, -31}, {136, 6, -31}, 4.6, 4.6}});
  return bones;
}

std::vector<Solid> make_flesh() {
  constexpr double water = 0.0195;
  std::vector<PartPlan> parts = {
      {{-12, 330, 4}, {-12, 150, 3}, 49, 37},
      {{-14, 150, 2}, {-13, 96, 1}, 37, 33},
  };
  std::vector<PartPlan> foot = {
      {{-13, 96, 1}, {-34, 38, 3}, 34, 27},     {{-36, 40, 3}, {-38, 28, 3}, 27, 26},  {{-5, 84, 0}, {40, 52, -4}, 33, 29},
      {{-30, 32, 4}, {45, 33, 8}, 27, 27},      {{35, 52, -8}, {95, 40, -14}, 30, 22}, {{40, 36, 10}, {100, 26, 16}, 27, 18},
      {{90, 36, -16}, {138, 18, -20}, 23, 17},  {{95, 28, 8}, {130, 15, 15}, 20, 13},  {{110, 26, -4}, {142, 15, -4}, 20, 14},
      {{136, 16, -25}, {188, 11, -24}, 14, 10}, {{142, 14, -10}, {194, 9, -8}, 10, 7}, {{138, 13, 4}, {188, 9, 5}, 9.5, 7},
      {{130, 12, 17}, {176, 8.5, 18}, 9, 6.5},  {{120, 11, 28}, {161, 8, 30}, 9, 6.5}};
  Solid leg = solid(parts, 0, 22, 1.6, water * 0.82, water);
  const Solid sole = solid(foot, 1, 14, 1.6, water * 0.82, water);
  // One body: the skin must not run across the ankle.
  leg.parts.insert(leg.parts.end(), sole.parts.begin(), sole.parts.end());
  leg.melt_mm = sole.melt_mm;
  leg.bound = {{0, 0, 0}, 1e6};
  return {leg};
}

/// Attenuation along a ray. The rind's density changes smoothly with depth, so that the sum over steps has nothing to alias.
double line_integral(const Solid& body, const Vec3& source, const Vec3& ray, double* thickness) {
  const Vec3 to_centre = body.bound.centre - source;
  const double closest = dot(to_centre, ray), off2 = dot(to_centre, to_centre) - closest * closest,
               r2 = body.bound.radius * body.bound.radius;
  *thickness = 0;
  if (off2 >= r2) return 0;
  const double half = std::min(std::sqrt(r2 - off2), 120.0);
  const double skin = 0.35;  // mm over which a surface fades
  double t = closest - half, sum = 0, last_t = t, last_value = 0, last_deep = 0;
  while (t < closest + half) {
    const double d = body.surface(source + ray * t);
    const double inside = smoothstep(skin, -skin, d), deep = smoothstep(skin, -skin, d + body.cortex_mm);
    const double value = inside * body.cortex_per_mm + deep * (body.filling_per_mm - body.cortex_per_mm);
    sum += 0.5 * (t - last_t) * (value + last_value);
    *thickness += 0.5 * (t - last_t) * (deep + last_deep);
    last_t = t;
    last_value = value;
    last_deep = deep;
    t += d > skin ? std::max(0.15, d - 0.9 * skin) : std::clamp(0.7 * std::min(std::abs(d), std::abs(d + body.cortex_mm)), 0.22, 2.0);
  }
  return sum;
}

std::vector<Limb> make_limbs(const std::vector<Solid>& bones, const ConeBeam& beam) {
  const auto limb = [&](const char* name, int parent, const Vec3& joint, double swing_deg) {
    const auto at = beam.project(to_room(joint, parent < 0 ? 0 : 1));
    return Limb{name, parent, at[0], at[1], swing_deg, {}};
  };
  std::vector<Limb> limbs = {limb("crus", -1, {-5, 330, 0}, 0.12),
                             limb("hindfoot", crus, ankle, 0.4),
                             limb("midfoot", hindfoot, {45, 50, -2}, 0.4),
                             limb("medial rays", midfoot, {88, 48, -15}, 0.7),
                             limb("lateral rays", midfoot, {80, 34, 20}, 0.7),
                             limb("great toe", medial_rays, {140, 16, -27}, 2.5),
                             limb("lesser toes", lateral_rays, {140, 13, 4}, 2.5)};
  const double px_per_mm = 1 / beam.mm_per_px();
  for (const Solid& bone : bones)
    for (const RoundCone& part : bone.parts) {
      const auto a = beam.project(part.a), b = beam.project(part.b);
      limbs[bone.limb].bones.push_back({a[0], a[1], b[0], b[1], part.ra * px_per_mm, part.rb * px_per_mm});
    }
  return limbs;
}

// ---- vessels ----

struct Via {
  double x, y, z, radius;
  const char* node;
};

/// A function over image and margin, sampled on a grid and read through a cubic B-spline.
class Samples {
 public:
  template <class Function>
  Samples(const ConeBeam& beam, int rows, int columns, int margin, double spacing_mm, const Function& value)
      : step_(std::max(1, static_cast<int>(std::lround(spacing_mm / beam.mm_per_px())))) {
    grid_ = Image<double>((rows + 2 * margin) / step_ + 4, (columns + 2 * margin) / step_ + 4);
    parallel_for(grid_.height(), [&](int j) {
      for (int i = 0; i < grid_.width(); ++i) grid_(j, i) = value((j - 1) * step_ - margin, (i - 1) * step_ - margin);
    });
  }
  /// At pixel (y, x) of the image with its margin.
  double at(int y, int x) const {
    const int j = y / step_, i = x / step_;
    const auto wy = weights(static_cast<double>(y % step_) / step_), wx = weights(static_cast<double>(x % step_) / step_);
    double sum = 0;
    for (int dj = 0; dj < 4; ++dj)
      for (int di = 0; di < 4; ++di)
        if (wy[static_cast<std::size_t>(dj)] > 0 && wx[static_cast<std::size_t>(di)] > 0)
          sum += wy[static_cast<std::size_t>(dj)] * wx[static_cast<std::size_t>(di)] * grid_(j + dj, i + di);
    return sum;
  }

 private:
  static std::array<double, 4> weights(double f) {
    const double g = 1 - f;
    return {g * g * g / 6, (4 - 6 * f * f + 3 * f * f * f) / 6, (4 - 6 * g * g + 3 * g * g * g) / 6, f * f * f / 6};
  }
  int step_;
  Image<double> grid_;
};

VesselPlan vessel(const char* name, const char* role, const std::vector<Via>& route) {
  VesselPlan plan{name, role, {}};
  for (const Via& via : route) plan.points.push_back({to_room({via.x, via.y, via.z}), via.radius, via.node});
  return plan;
}

}  // namespace

void open_perforators(Scene& foot) {
  for (VesselPlan& plan : foot.vessels) {
    const double wider = plan.name == "posterior tibial perforator" ? 2.6 : (plan.name == "medial perforator" ? 2.2 : 1);
    for (ControlPoint& point : plan.points) point.radius_mm *= plan.name == "great saphenous vein" ? 1.35 : wider;
  }
  for (TerminalPlan& terminal : foot.terminals)
    if (terminal.node == "gsv out") terminal.conductance *= 40;
}

Scene foot_vessels() {
  Scene scene;
  auto& v = scene.vessels;
  // Deep veins, filled backwards from the arterialised posterior tibial vein behind the medial malleolus.
  v.push_back(vessel("posterior tibial vein (arterialised)", "main",
                     {{-30, 215, -8, 2.25, "ptv in"},
                      {-31, 190, -10, 2.2, ""},
                      {-28, 168, -13, 2.1, "rung a"},
                      {-29, 150, -16, 2.05, ""},
                      {-25, 132, -19, 1.95, "rung b"},
                      {-22, 115, -23, 1.95, ""},
                      {-19, 98, -27, 1.85, "rung c"},
                      {-14, 82, -28, 1.8, "calcaneal"},
                      {-5, 66, -26, 1.75, "fork"}}));
  v.push_back(vessel("posterior tibial vein (paired)", "collateral",
                     {{-19, 98, -27, 1.0, "rung c"},
                      {-29, 105, -25, 1.2, ""},
                      {-37, 122, -20, 1.3, ""},
                      {-38, 136, -16, 1.35, "rung b2"},
                      {-41, 155, -13, 1.4, ""},
                      {-40, 172, -9, 1.45, "rung a2"},
                      {-44, 195, -7, 1.5, ""},
                      {-42, 215, -5, 1.55, "ptv out"}}));
  v.push_back(
      vessel("tibial communicating vein 1", "collateral", {{0, 0, 0, 0.65, "rung a"}, {-35, 164, -9, 0.6, ""}, {0, 0, 0, 0.6, "rung a2"}}));
  v.push_back(vessel("tibial communicating vein 2", "collateral",
                     {{0, 0, 0, 0.6, "rung b"}, {-31, 137, -19, 0.55, ""}, {0, 0, 0, 0.55, "rung b2"}}));
  v.push_back(vessel("lateral plantar vein", "plantar",
                     {{-5, 66, -26, 1.55, "fork"},
                      {4, 50, -22, 1.5, ""},
                      {12, 36, -13, 1.5, "heel"},
                      {26, 24, 0, 1.45, ""},
                      {42, 17, 10, 1.4, "plantar link"},
                      {56, 14, 17, 1.35, ""},
                      {70, 15, 20, 1.3, "arch lateral"}}));
  v.push_back(vessel("medial plantar vein", "plantar",
                     {{-5, 66, -26, 1.15, "fork"},
                      {10, 58, -29, 1.15, ""},
                      {28, 48, -31, 1.1, ""},
                      {46, 40, -32, 1.1, "medial link"},
                      {64, 36, -32, 1.0, ""},
                      {82, 31, -28, 0.95, ""},
                      {96, 27, -21, 0.95, "arch medial"}}));
  v.push_back(
      vessel("plantar communicating vein", "collateral",
             {{42, 17, 10, 0.6, "plantar link"}, {46, 22, -6, 0.55, ""}, {48, 30, -20, 0.55, ""}, {46, 40, -32, 0.6, "medial link"}}));
  v.push_back(vessel("deep plantar arch", "arch",
                     {{70, 15, 20, 1.25, "arch lateral"},
                      {80, 18, 17, 1.2, ""},
                      {87, 21, 10, 1.15, "arch 4"},
                      {92, 24, 2, 1.15, "arch 3"},
                      {96, 26, -7, 1.1, "arch 2"},
                      {98, 27, -15, 1.05, "arch 1"},
                      {96, 27, -21, 1.0, "arch medial"}}));
  // Plantar metatarsal veins, from the arch to the toes.
  v.push_back(vessel("plantar metatarsal vein 1", "plantar",
                     {{98, 27, -15, 0.62, "arch 1"}, {116, 17, -18, 0.58, ""}, {136, 7, -18, 0.52, ""}, {156, 5, -16, 0.42, "toe 1"}}));
  v.push_back(vessel("plantar metatarsal vein 2", "plantar",
                     {{96, 26, -7, 0.6, "arch 2"}, {114, 17, -5, 0.55, ""}, {134, 7, -4, 0.5, ""}, {152, 4, -3, 0.4, "toe 2"}}));
  v.push_back(vessel("plantar metatarsal vein 3", "plantar",
                     {{92, 24, 2, 0.55, "arch 3"}, {108, 15, 7, 0.52, ""}, {126, 6, 9, 0.46, ""}, {144, 4, 10, 0.38, "toe 3"}}));
  v.push_back(vessel("plantar metatarsal vein 4", "plantar",
                     {{87, 21, 10, 0.52, "arch 4"}, {102, 13, 17, 0.48, ""}, {118, 5, 21, 0.42, ""}, {134, 3, 23, 0.35, "toe 4"}}));
  v.push_back(vessel("lateral marginal plantar vein", "plantar",
                     {{70, 15, 20, 0.62, "arch lateral"}, {84, 9, 27, 0.55, ""}, {102, 5, 32, 0.46, ""}, {120, 4, 34, 0.38, "toe 5"}}));
  // Perforators to the back of the foot.
  v.push_back(vessel("first intermetatarsal perforator", "perforator",
                     {{98, 27, -15, 0.85, "arch 1"}, {101, 38, -17, 0.8, ""}, {108, 47, -17, 0.8, ""}, {117, 47, -15, 0.85, "dorsal 1"}}));
  v.push_back(vessel("third intermetatarsal perforator", "perforator",
                     {{92, 24, 2, 0.55, "arch 3"}, {98, 34, 5, 0.5, ""}, {106, 42, 6, 0.5, ""}, {113, 40, 7, 0.55, "dorsal 3"}}));
  v.push_back(vessel("dorsal venous arch", "collateral",
                     {{117, 47, -15, 0.9, "dorsal 1"},
                      {121, 44, -4, 0.85, ""},
                      {113, 40, 7, 0.8, "dorsal 3"},
                      {104, 36, 18, 0.75, ""},
                      {90, 36, 28, 0.75, "dorsal 5"}}));
  v.push_back(vessel("great saphenous vein", "collateral",
                     {{117, 47, -15, 1.0, "dorsal 1"},
                      {100, 58, -23, 1.05, ""},
                      {76, 69, -29, 1.1, "gsv mid"},
                      {48, 80, -31, 1.15, ""},
                      {28, 98, -33, 1.2, ""},
                      {20, 124, -33, 1.25, "gsv perforator"},
                      {16, 155, -31, 1.3, ""},
                      {14, 190, -29, 1.35, ""},
                      {12, 215, -28, 1.35, "gsv out"}}));
  v.push_back(
      vessel("medial perforator", "perforator",
             {{46, 40, -32, 0.62, "medial link"}, {58, 48, -37, 0.55, ""}, {70, 60, -35, 0.55, ""}, {76, 69, -29, 0.6, "gsv mid"}}));
  v.push_back(
      vessel("posterior tibial perforator", "perforator",
             {{-25, 132, -19, 0.6, "rung b"}, {-8, 140, -36, 0.52, ""}, {8, 132, -39, 0.52, ""}, {20, 124, -33, 0.6, "gsv perforator"}}));
  v.push_back(vessel("small saphenous vein", "collateral",
                     {{90, 36, 28, 0.8, "dorsal 5"},
                      {66, 40, 36, 0.85, ""},
                      {38, 46, 39, 0.9, ""},
                      {8, 60, 38, 0.95, ""},
                      {-18, 84, 34, 1.0, ""},
                      {-38, 118, 26, 1.05, ""},
                      {-50, 160, 18, 1.1, ""},
                      {-56, 215, 12, 1.15, "ssv out"}}));
  // Heel.
  v.push_back(vessel("medial calcaneal vein", "collateral",
                     {{-14, 82, -28, 0.62, "calcaneal"},
                      {-26, 66, -25, 0.56, ""},
                      {-36, 48, -19, 0.5, "heel fork"},
                      {-45, 34, -10, 0.42, ""},
                      {-50, 20, 0, 0.35, "heel tip 1"}}));
  v.push_back(vessel("calcaneal branch", "collateral",
                     {{-36, 48, -19, 0.4, "heel fork"}, {-34, 32, -16, 0.36, ""}, {-28, 16, -10, 0.3, "heel tip 2"}}));
  v.push_back(vessel("plantar heel vein", "plantar",
                     {{12, 36, -13, 0.55, "heel"}, {2, 24, -8, 0.5, ""}, {-12, 13, -3, 0.45, ""}, {-28, 7, 4, 0.36, "heel tip 3"}}));

  scene.terminals = {{"ptv in", 1, 0}};
  // Resistances beyond the tree, chosen so that every vein fills: of the order of the tree's own.
  for (const auto& [node, conductance] : std::initializer_list<std::pair<const char*, double>>{{"ptv out", 0.012},
                                                                                               {"gsv out", 0.035},
                                                                                               {"ssv out", 0.020},
                                                                                               {"toe 1", 0.0030},
                                                                                               {"toe 2", 0.0028},
                                                                                               {"toe 3", 0.0024},
                                                                                               {"toe 4", 0.0020},
                                                                                               {"toe 5", 0.0020},
                                                                                               {"heel tip 1", 0.0016},
                                                                                               {"heel tip 2", 0.0010},
                                                                                               {"heel tip 3", 0.0018}})
    scene.terminals.push_back({node, 0, conductance});

  scene.tortuosity_mm = 0.45;
  scene.calibre_variation = 0.04;
  return scene;
}

void add_foot_background(Scene& scene, const ConeBeam& beam, int rows, int columns, std::uint64_t seed) {
  // Texture is painted on the patient's plane, so that it lies with him.
  // Bodies are sampled every quarter of a millimetre (flesh: every half) and joined by a cubic B-spline: nothing finer reaches a detector.
  const std::vector<Solid> bones = make_bones(), flesh = make_flesh();
  const Samples flesh_samples(beam, rows, columns, scene.margin, 0.5, [&](double py, double px) {
    const auto [y, x] = beam.in_plane(py, px);
    double total = 0, deepest = 0;
    for (const Solid& body : flesh) {
      double thickness = 0;
      total += line_integral(body, beam.source(), beam.ray(py, px), &thickness);
      deepest = std::max(deepest, thickness);
    }
    return deepest > 0 ? total * (1 + 0.03 * fractal_noise(y, x, 12, 0.8, seed) * smoothstep(0, 8, deepest)) : total;
  });
  const Samples bone_samples(beam, rows, columns, scene.margin, 0.25, [&](double py, double px) {
    const auto [y, x] = beam.in_plane(py, px);
    double total = 0;
    std::uint64_t key = seed * 977 + 1;
    for (const Solid& bone : bones) {
      ++key;
      double thickness = 0;
      const double added = line_integral(bone, beam.source(), beam.ray(py, px), &thickness);
      if (added <= 0) continue;
      // Trabeculae: relative fluctuation of a projection falls with the number of struts along the ray.
      const double grain = fractal_noise(y, x, 5, 0.35, key) * 0.6 / std::sqrt(1 + thickness / 6);
      total += added + bone.filling_per_mm * thickness * std::max(-0.8, grain);
    }
    return total;
  });
  scene.limbs = make_limbs(bones, beam);
  scene.attenuation = Image<float>(rows + 2 * scene.margin, columns + 2 * scene.margin);
  parallel_for(scene.attenuation.height(), [&](int j) {
    for (int i = 0; i < scene.attenuation.width(); ++i)
      scene.attenuation(j, i) = static_cast<float>(flesh_samples.at(j, i) + bone_samples.at(j, i));
  });
}

Scene make_foot(const ConeBeam& beam, int rows, int columns, std::uint64_t seed) {
  Scene scene = foot_vessels();
  add_foot_background(scene, beam, rows, columns, seed);
  return scene;
}

Scene make_steal(const ConeBeam& beam, int rows, int columns, std::uint64_t seed) {
  Scene scene = foot_vessels();
  open_perforators(scene);
  add_foot_background(scene, beam, rows, columns, seed);
  return scene;
}

}  // namespace cinelumen::phantom
