#include "engine/phantom/clinical_case.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <numbers>
#include <set>
#include <stdexcept>
#include <utility>

#include "engine/phantom/devices.h"
#include "engine/phantom/exposure.h"
#include "engine/phantom/foot_sites.h"
#include "engine/phantom/perfusion.h"
#include "engine/phantom/random.h"

namespace cinelumen {
namespace phantom {

/// A narrowing and its height in each run, parts of the diameter.
struct CaseLesion {
  std::string vessel;
  LesionPlan shape;
  std::array<double, phantom_case_runs> narrowing{};
  std::string label;  ///< of the whole timeline
};

/// What the seed has drawn.
struct CasePlan {
  std::vector<CaseLesion> lesions;
  std::vector<std::string> occluded;  ///< edges, in the sixth run
  std::vector<std::string> covered;   ///< edges whose mouth the second stent-graft closes
};

}  // namespace phantom

namespace {

using namespace phantom;

enum Visit : std::uint8_t { reference, after_valvulotomy, after_first_drug, after_second_drug, next_day, two_months, redo };

/// Between the branch points of the main vein: into view, along the communicating vein and the perforator, on to the paired vein.
constexpr const char *main_above_view = "posterior tibial vein (arterialised) 1", *main_proximal = "posterior tibial vein (arterialised) 2",
                     *main_transitional = "posterior tibial vein (arterialised) 3";

// ---- what may be asked of a detector ----

/// Percent that nobody need argue about: none of them within five points of 25, 50 or 90.
bool clear_of_borders(double percent) {
  constexpr double slack = 0.3;  // of sampling
  const auto in = [&](double low, double high) { return percent >= low - slack && percent <= high + slack; };
  return in(0, 20) || in(30, 45) || in(55, 85) || percent >= 95 - slack;
}

// ---- scenes ----

/// Of the tree's own order: what the vessels do not take goes elsewhere, so that spasm lowers the inflow and an occlusion stops it.
constexpr double source_conductance = 0.05;

Scene anatomy(std::uint64_t seed) {
  Scene scene = foot_vessels();
  scene.wandering = seed + 1;
  // A severe spasm then has sixteen times the healthy resistance and the vein still fills within a run.
  scene.least_hydraulic_share = 0.5;
  TerminalPlan& inlet = scene.terminals.front();
  inlet.conductance = source_conductance;
  const double radius = scene.vessels.front().points.front().radius_mm;
  scene.area_per_share_mm2 = std::numbers::pi * radius * radius;
  const VesselTree tree = grow(scene);
  inlet.inflow_share = 1 / accepted_share(tree, tree.node(inlet.node));
  return scene;
}

TerminalPlan& terminal_at(Scene& scene, const std::string& node) {
  return *std::find_if(scene.terminals.begin(), scene.terminals.end(), [&](const TerminalPlan& t) { return t.node == node; });
}

/// Perforators wide open; plain blood from the toes joins what little contrast comes, which sinks where the flow is slow.
void steal_from(Scene& scene) {
  open_perforators(scene);
  for (const char* const toe : {"toe 3", "toe 5"}) {
    TerminalPlan& terminal = terminal_at(scene, toe);
    terminal.inflow_share = 0.02;
    terminal.conductance = 0;
    terminal.contrast = 0;
  }
  scene.filling.push_back({"lateral plantar vein 3", {Mechanism::layering, 0.65, 4, 12, 0.5}});
}

/// The vein is closed. Where the stent-graft is closed too, the foot lives on what comes down the paired vein.
void occlude(Scene& scene, const std::vector<std::string>& edges) {
  scene.closed.insert(scene.closed.end(), edges.begin(), edges.end());
  if (std::find(edges.begin(), edges.end(), main_proximal) == edges.end()) return;
  const double inflow = terminal_at(scene, "ptv in").inflow_share;
  TerminalPlan& collateral = terminal_at(scene, "ptv out");
  collateral.inflow_share = 0.4 * inflow;
  collateral.conductance = 0.4 * source_conductance;
  collateral.contrast = 0.7;
  collateral.delay_ms = 700;
}

Scene vessels_in_run(const PhantomCaseOptions& options, const CasePlan& plan, int run) {
  Scene scene = anatomy(options.base.seed);
  for (const CaseLesion& lesion : plan.lesions) {
    if (lesion.narrowing[static_cast<std::size_t>(run)] <= 0) continue;
    LesionPlan shape = lesion.shape;
    shape.narrowing = lesion.narrowing[static_cast<std::size_t>(run)];
    for (VesselPlan& vessel : scene.vessels)
      if (vessel.name == lesion.vessel) vessel.lesions.push_back(shape);
  }
  if (options.variant == "steal" && run >= after_valvulotomy && run <= after_second_drug) steal_from(scene);
  if (run == two_months && !plan.occluded.empty()) occlude(scene, plan.occluded);
  if (run == redo) scene.closed.insert(scene.closed.end(), plan.covered.begin(), plan.covered.end());
  return scene;
}

/// Millimetres from the vein's beginning to the branch points in view, and the grafts' ends about them.
void put_grafts(Scene& scene, const ConeBeam& beam, bool second) {
  const VesselTree tree = grow(scene);
  std::vector<Vec3> axis;
  double perforator_mm = 0;
  for (const Edge& edge : tree.edges) {
    if (!edge.name.starts_with(main_vein)) continue;
    axis.insert(axis.end(), edge.curve.begin() + (axis.empty() ? 0 : 1), edge.curve.end());
    if (edge.name == main_above_view || edge.name == main_proximal) perforator_mm += edge.length_mm;
  }
  const double first_end = perforator_mm - 4, second_end = perforator_mm + 11;
  put_stent_graft(scene, beam, axis, first_end - 100, first_end, 5);
  if (second) put_stent_graft(scene, beam, axis, second_end - 80, second_end, 5);
}

// ---- what the seed draws ----

const std::vector<Site> short_sites = {{main_vein, 3, 3},
                                       {main_vein, 5, 5},
                                       {"lateral plantar vein", 1, 1},
                                       {"lateral plantar vein", 2, 2},
                                       {"lateral plantar vein", 3, 3},
                                       {"medial plantar vein", 1, 1},
                                       {"medial plantar vein", 2, 2},
                                       {"deep plantar arch", 1, 1}};

/// Of the diameter across the ray, where a lesion is `height` of its full height.
double seen_narrowing(const LesionPlan& shape, double narrowing, double height) {
  const double across = 1 - narrowing * height, along = 1 - shape.wider_axis * narrowing * height;
  return 1 - std::hypot(across * std::cos(shape.angle_rad), along * std::sin(shape.angle_rad));
}

/// Every edge that it reaches is narrowed by what nobody need argue about, in all runs, and seen from its side.
bool suits(const CaseLesion& lesion, const Stretch& stretch, double least_sine) {
  constexpr double least_part_mm = 4;
  const Vec3 source = beam_of(complete({})).source();
  for (const Edge* edge : stretch.edges) {
    double highest = 0, sine = 1, narrowed_mm = 0;
    const double step = edge->plan_length_mm / static_cast<double>(edge->curve.size() - 1);
    for_each_point(*edge, lesion.shape, [&](std::size_t k, double height) {
      highest = std::max(highest, height);
      if (lesion.narrowing[after_valvulotomy] * height > 0.25) narrowed_mm += step;
      const Vec3 axis = unit(edge->curve[std::min(k + 3, edge->curve.size() - 1)] - edge->curve[k >= 3 ? k - 3 : 0]);
      sine = std::min(sine, norm(cross(axis, unit(edge->curve[k] - source))));
    });
    if (sine < least_sine) return false;
    // What reaches over a branch point does so for a length that can be seen.
    if (stretch.edges.size() > 1 && narrowed_mm < least_part_mm) return false;
    for (const double narrowing : lesion.narrowing) {
      const double percent = 100 * seen_narrowing(lesion.shape, narrowing, highest);
      if (!clear_of_borders(percent)) return false;
    }
    // A narrowing's foot is no finding of its own.
    if (100 * seen_narrowing(lesion.shape, lesion.narrowing[after_valvulotomy], highest) < 30) return false;
  }
  return true;
}

bool long_enough(const LesionPlan& shape, double narrowing) {
  const double extent = extent_above(shape, narrowing, 25);
  return extent >= 12 && extent <= 60 && (narrowing < 0.9 || extent_above(shape, narrowing, 90) >= 10);
}

/// A little more or less of the same.
double about(RandomStream& random, double narrowing) {
  const double spread = narrowing > 0.9 ? 0.01 : 0.03;
  return std::max(narrowing > 0.9 ? 0.95 : 0.0, narrowing + between(random, -spread, spread));
}

/// What is left of a spasm after each drug: nothing, or too little to be called a narrowing; now and then 30 to 45 %.
void let_go(RandomStream& random, CaseLesion& spasm) {
  const double at_first = spasm.narrowing[after_valvulotomy];
  double left = random.uniform() < 0.4 ? 0 : between(random, 0.02, 0.16);
  if (at_first > 0.78 && random.uniform() < 0.25) left = between(random, 0.30, std::min(0.44, 0.39 * at_first));
  spasm.narrowing[after_first_drug] = random.uniform() < 0.4 ? about(random, at_first) : between(random, std::max(left, 0.3), at_first);
  spasm.narrowing[after_second_drug] = left;
}

constexpr int tries_a_site = 60;
constexpr double least_sine_of_spasm = 0.6, least_sine_of_notch = 0.8;

void draw_spasms(RandomStream& random, const VesselTree& tree, bool relieved, CasePlan& plan) {
  const int wanted = whole_between(random, 4, 7);
  int severe = whole_between(random, 1, 2), edges = 0;
  bool slight = false;
  std::vector<const Edge*> taken;
  for (const Site& site : shuffled(spasm_sites(), random)) {
    const Stretch stretch = stretch_of(site, tree);
    const int more = static_cast<int>(stretch.edges.size());
    const auto is_taken = [&](const Edge* edge) { return std::find(taken.begin(), taken.end(), edge) != taken.end(); };
    if (edges + more > wanted || std::any_of(stretch.edges.begin(), stretch.edges.end(), is_taken)) continue;
    CaseLesion spasm;
    spasm.vessel = site.vessel;
    // Where blood has another way.
    const bool becomes_severe = severe > 0 && more == 1 && spasm.vessel != main_vein && stretch.length_mm() > 18;
    const bool becomes_slight = !becomes_severe && !slight && !taken.empty();
    for (int i = 0; i < tries_a_site; ++i) {
      const double narrowing = becomes_severe ? 0.95 : (becomes_slight ? between(random, 0.30, 0.45) : between(random, 0.55, 0.85));
      spasm.shape = draw_spasm(random, stretch, narrowing);
      spasm.narrowing[after_valvulotomy] = narrowing;
      if (relieved)
        let_go(random, spasm);
      else
        for (const std::size_t visit : {after_first_drug, after_second_drug}) spasm.narrowing[visit] = about(random, narrowing);
      if (!long_enough(spasm.shape, narrowing) || !suits(spasm, stretch, least_sine_of_spasm)) continue;
      spasm.label = becomes_slight ? "narrowing below spasm grade" : (relieved ? "spasm, relieved" : "spasm, refractory");
      plan.lesions.push_back(spasm);
      taken.insert(taken.end(), stretch.edges.begin(), stretch.edges.end());
      edges += more;
      severe -= becomes_severe;
      slight = slight || becomes_slight;
      break;
    }
  }
}

void stand(CaseLesion& lesion, double narrowing, int from_run, int to_run) {
  for (int run = from_run; run < to_run; ++run) lesion.narrowing[static_cast<std::size_t>(run)] = narrowing;
}

/// Two valve remnants and two stenoses, one of each there from the first run on, and a spasm.
void draw_valves_and_stenoses(RandomStream& random, const VesselTree& tree, CasePlan& plan) {
  for (const Site& site : shuffled(short_sites, random)) {
    const std::size_t index = plan.lesions.size();
    if (index == 5) return;
    const Stretch stretch = stretch_of(site, tree);
    for (int i = 0; i < tries_a_site; ++i) {
      CaseLesion lesion;
      lesion.vessel = site.vessel;
      LesionPlan& shape = lesion.shape;
      if (index == 4) {
        const double narrowing = between(random, 0.60, 0.80);
        lesion.label = "spasm, refractory";
        shape = draw_spasm(random, stretch, narrowing);
        stand(lesion, narrowing, after_valvulotomy, next_day);
        for (const std::size_t visit : {after_first_drug, after_second_drug}) lesion.narrowing[visit] = about(random, narrowing);
        const double extent = extent_above(shape, narrowing, 25);
        if (extent < 15 || extent > 40) continue;
      } else if (index < 2) {
        lesion.label = "valve remnant";
        shape.kind = "web";
        shape.length_mm = between(random, 1.7, 2.8);
        stand(lesion, between(random, 0.40, 0.75), index == 0 ? reference : after_valvulotomy, next_day);
      } else {
        lesion.label = "fixed stenosis";
        shape.kind = "eccentric";
        shape.length_mm = between(random, 4, 9);
        shape.shoulder = 0.7;
        shape.eccentric = true;
        shape.wider_axis = 0.35;
        // Seen from its narrow side.
        shape.angle_rad = between(random, -0.15, 0.15);
        stand(lesion, between(random, 0.40, 0.75), index == 2 ? reference : after_valvulotomy, phantom_case_runs);
      }
      // Normal calibre on either side.
      const double margin = 0.5 * shape.length_mm + 2.5;
      if (index < 4) shape.centre_mm = between(random, stretch.from_mm + margin, stretch.to_mm - margin);
      if (!suits(lesion, stretch, index < 4 ? least_sine_of_notch : least_sine_of_spasm)) continue;
      plan.lesions.push_back(std::move(lesion));
      break;
    }
  }
}

/// The tree's flow as it is in a run.
void narrow(VesselTree& tree, const CasePlan& plan, int run, double least_share) {
  for (const CaseLesion& lesion : plan.lesions)
    for (Edge& edge : tree.edges)
      if (edge.name.starts_with(lesion.vessel))
        for_each_point(edge, lesion.shape, [&](std::size_t k, double height) {
          edge.hydraulic_mm[k] = edge.healthy_mm[k] * std::max(least_share, 1 - lesion.narrowing[static_cast<std::size_t>(run)] * height);
        });
}

/// The worst of what timing may bring: late contrast, slow inflow.
PhantomOptions slowest_run() {
  PhantomOptions options;
  options.contrast_free_frames = 12;
  options.inlet_velocity_mm_s *= 0.8;
  return complete(options);
}

/// Deep veins hold contrast for long enough to be measured.
bool deep_veins_fill(const Scene& scene, const VesselTree& tree, double share, int least_frames) {
  const PhantomOptions options = slowest_run();
  const Perfusion perfusion = perfuse(tree, scene, options);
  for (std::size_t e = 0; e < tree.edges.size(); ++e) {
    const Edge& edge = tree.edges[e];
    if (edge.closed || (edge.role != "main" && edge.role != "plantar" && edge.role != "arch")) continue;
    int frames = 0;
    for (int f = 0; f < *options.frames; ++f) {
      double least = 1;
      for (const double place : {0.1, 0.5, 0.9})
        least = std::min(least, perfusion.bolus.concentration(static_cast<int>(e), place * edge.length_mm, f * options.frame_time_ms));
      frames += least >= share;
    }
    if (frames < least_frames) return false;
  }
  return true;
}

/// Findings enough, and a flow that keeps every deep vein visible in the run in which they are worst.
bool good(const PhantomCaseOptions& options, const CasePlan& plan, const VesselTree& healthy) {
  if (options.variant == "valve-and-fixed" && plan.lesions.size() < 5) return false;
  if (options.variant == "refractory" || options.variant == "relieved") {
    const auto any = [&](double low, double high) {
      return std::any_of(plan.lesions.begin(), plan.lesions.end(), [&](const CaseLesion& lesion) {
        return lesion.narrowing[after_valvulotomy] >= low && lesion.narrowing[after_valvulotomy] <= high;
      });
    };
    if (!any(0.30, 0.45) || !any(0.55, 0.85) || !any(0.95, 1) || plan.lesions.size() < 4) return false;
  }
  if (!plan.lesions.empty()) {
    const Scene scene = vessels_in_run(options, plan, after_valvulotomy);
    VesselTree tree = healthy;
    narrow(tree, plan, after_valvulotomy, scene.least_hydraulic_share);
    if (!deep_veins_fill(scene, tree, 0.9, 8)) return false;
  }
  if (!plan.occluded.empty()) {
    const Scene scene = vessels_in_run(options, plan, two_months);
    if (!deep_veins_fill(scene, grow(scene), 0.4, 6)) return false;
  }
  return true;
}

CasePlan draw(const PhantomCaseOptions& options, const VesselTree& tree, std::uint32_t attempt) {
  RandomStream random(options.base.seed, Purpose::layout, attempt, 1);
  CasePlan plan;
  if (options.variant == "refractory" || options.variant == "relieved") draw_spasms(random, tree, options.variant == "relieved", plan);
  if (options.variant == "valve-and-fixed") draw_valves_and_stenoses(random, tree, plan);
  if (options.variant == "refractory") {
    plan.occluded = {main_transitional};
    // With the stent-graft, or from its lower end on.
    if (random.uniform() < 0.6) plan.occluded.insert(plan.occluded.end(), {main_above_view, main_proximal});
    plan.covered = {"posterior tibial perforator", "tibial communicating vein 2"};
  }
  return plan;
}

CasePlan plan_case(const PhantomCaseOptions& options) {
  constexpr std::uint32_t most = 2000;
  const VesselTree healthy = grow(anatomy(options.base.seed));
  for (std::uint32_t attempt = 0; attempt < most; ++attempt) {
    CasePlan plan = draw(options, healthy, attempt);
    if (good(options, plan, healthy)) return plan;
  }
  throw std::invalid_argument("phantom: seed is " + std::to_string(options.base.seed) + ", expected one whose case can be drawn");
}

// ---- runs ----

PhantomPose pose_of(std::uint64_t seed, int run) {
  if (run == reference) return {};
  RandomStream random(seed, Purpose::layout, static_cast<std::uint32_t>(run), 2);
  PhantomPose pose;
  pose.rotation_deg = between(random, -3, 3);
  const double tilt = between(random, 0, 2), tilt_towards = between(random, 0, 2 * std::numbers::pi);
  pose.tilt_y_deg = tilt * std::sin(tilt_towards);
  pose.tilt_x_deg = tilt * std::cos(tilt_towards);
  const double shift = between(random, 0, 5), shift_towards = between(random, 0, 2 * std::numbers::pi);
  pose.shift_y_mm = shift * std::sin(shift_towards);
  pose.shift_x_mm = shift * std::cos(shift_towards);
  pose.towards_mm = between(random, -4, 4);
  return pose;
}

PhantomOptions options_of(const PhantomCaseOptions& options, int run) {
  PhantomOptions result = options.base;
  RandomStream random(options.base.seed, Purpose::layout, static_cast<std::uint32_t>(run), 3);
  result.anatomy_seed = options.base.seed;
  result.seed = options.base.seed * phantom_case_runs + static_cast<std::uint64_t>(run);
  result.pose = pose_of(options.base.seed, run);
  result.contrast_free_frames = whole_between(random, 6, 12);
  result.inlet_velocity_mm_s *= between(random, 0.8, 1.2);
  result.bolus_duration_ms *= between(random, 0.9, 1.2);
  return result;
}

std::string listed(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : " or ") + name;
  return list;
}

void check(const PhantomCaseOptions& options) {
  const auto is_in = [](const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (!is_in(phantom_case_variants(), options.variant))
    throw std::invalid_argument("phantom: variant is " + options.variant + ", expected " + listed(phantom_case_variants()));
  const std::vector<std::string> feet = {"foot", "motion-rigid", "motion-nonrigid"};
  if (!is_in(feet, options.base.scenario))
    throw std::invalid_argument("phantom: scenario of a case is " + options.base.scenario + ", expected " + listed(feet));
}

void check_run(int run) {
  if (run < 0 || run >= phantom_case_runs)
    throw std::invalid_argument("phantom: run is " + std::to_string(run) + ", expected 0 to " + std::to_string(phantom_case_runs - 1));
}

SceneMaker scene_of(const PhantomCaseOptions& options, const CasePlan& plan, int run) {
  return [&options, &plan, run](const ConeBeam& beam, int rows, int columns) {
    Scene scene = vessels_in_run(options, plan, run);
    add_foot_background(scene, beam, rows, columns, options.base.seed);
    if (options.devices) put_grafts(scene, beam, run == redo && !plan.covered.empty());
    return scene;
  };
}

// ---- timeline ----

std::string time_after(std::chrono::minutes minutes) {
  using namespace std::chrono;
  const sys_time<std::chrono::minutes> start = sys_days{2026y / January / 12} + 10h + 12min, at = start + minutes;
  const auto day = floor<days>(at);
  const year_month_day date(day);
  const hh_mm_ss clock(at - day);
  char text[96];
  std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02ld:%02ld:00", static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                static_cast<unsigned>(date.day()), static_cast<long>(clock.hours().count()), static_cast<long>(clock.minutes().count()));
  return text;
}

std::vector<PhantomEvent> events_of(const std::string& variant) {
  using namespace std::chrono;
  const bool balloon = variant == "valve-and-fixed";
  std::vector<PhantomEvent> events = {
      {0, "reference", "", "", time_after(0min), "before valvulotomy", 0},
      {1, "valvulotomy", "", "", time_after(25min), "after valvulotomy with a balloon of 4 x 80 mm", 0},
      {2, "spasmolytic", "nitroglycerin", "200 ug", time_after(35min), "10 min after nitroglycerin 200 ug", 0},
      {3, "spasmolytic", "papaverine", "30 mg", time_after(45min), "10 min after papaverine 30 mg", 0},
      {4, "next day", "", "", time_after(23h + 30min), "next day", 1},
      {5, "follow-up", "", "", time_after(60 * 24h - 15min), "two months later", 2},
      {6, "redo", "", "", time_after(60 * 24h + 45min), "after redo", 3}};
  if (balloon) {
    events[4] = {4, "balloon", "", "", time_after(60min), "after a balloon at the valve remnants", 0};
    events[5].session = 1;
    events[6].session = 2;
  }
  if (variant == "refractory") events[6].note = "after recanalisation and a second stent-graft";
  return events;
}

const PhantomSegment* segment_named(const PhantomTruth& truth, const std::string& name) {
  for (const PhantomSegment& segment : truth.segments)
    if (segment.name == name) return &segment;
  return nullptr;
}

double mean_contrast(const PhantomSegment& segment) {
  double largest = 0;
  for (std::size_t f = 0; f < segment.filling.size(); ++f) {
    double sum = 0;
    for (std::size_t i = 0; i < segment.filling[f].size(); ++i)
      sum +=
          static_cast<double>(segment.filling[f][i]) * (segment.filled_share.empty() ? 1 : static_cast<double>(segment.filled_share[f][i]));
    largest = std::max(largest, sum / static_cast<double>(segment.filling[f].size()));
  }
  return largest;
}

/// Places along a segment that are seen.
std::array<double, 2> seen_places(const PhantomSegment& segment) {
  const double a = segment.points.front().place_mm, b = segment.points.back().place_mm;
  return {std::min(a, b), std::max(a, b)};
}

/// Half the width across the ray without narrowing, in the middle of what is seen.
double healthy_radius(const PhantomSegment& segment, double place_mm) {
  const auto nearest = std::min_element(segment.points.begin(), segment.points.end(), [&](const PhantomPoint& p, const PhantomPoint& q) {
    return std::abs(p.place_mm - place_mm) < std::abs(q.place_mm - place_mm);
  });
  return nearest->healthy_radius_mm;
}

/// Figures along the edge's own fine steps, not at the truth's points, which may miss a web's least diameter.
PhantomState state_of(const PhantomSegment& segment, const PhantomSegment& first, const Edge& edge, const CaseLesion* lesion, int run) {
  constexpr double narrowed_percent = 25, unfilled = 0.1;
  PhantomState state;
  const auto here = seen_places(segment), there = seen_places(first);
  const double low = std::max(here[0], there[0]), high = std::min(here[1], there[1]);
  state.at_mm = 0.5 * (low + high);
  const double wider = healthy_radius(segment, state.at_mm) / healthy_radius(first, state.at_mm);
  state.change_percent = 100 * (1 - wider);
  if (lesion != nullptr) {
    const double step = edge.drawn_length_mm / static_cast<double>(edge.curve.size() - 1);
    for_each_point(edge, lesion->shape, [&](std::size_t k, double height) {
      const double place = step * static_cast<double>(k);
      if (place < low || place > high) return;
      const double now = seen_narrowing(lesion->shape, lesion->narrowing[static_cast<std::size_t>(run)], height);
      const double then = seen_narrowing(lesion->shape, lesion->narrowing[reference], height), change = 100 * (1 - (1 - now) / (1 - then));
      if (100 * now > state.narrowing_percent) {
        state.narrowing_percent = 100 * now;
        state.at_mm = place;
      }
      if (std::abs(change) > std::abs(state.change_percent)) state.change_percent = change;
      if (100 * now > narrowed_percent) state.extent_mm += step;
    });
  }
  state.diameter_mm = 2 * healthy_radius(segment, state.at_mm) * (1 - state.narrowing_percent / 100);
  state.contrast = mean_contrast(segment);
  state.state = state.contrast < unfilled ? "not filled" : (state.narrowing_percent >= narrowed_percent ? "narrowed" : "open");
  return state;
}

std::string grade_of(const std::string& label, double percent) {
  if (!label.starts_with("spasm")) return "none";
  return percent >= 90 ? "severe" : (percent >= 50 ? "mild" : "none");
}

/// The lesion that reaches into an edge; lesions never share one.
const CaseLesion* lesion_in(const CasePlan& plan, const Edge& edge) {
  for (const CaseLesion& lesion : plan.lesions)
    if (edge.name.starts_with(lesion.vessel) && reaches(lesion.shape, edge)) return &lesion;
  return nullptr;
}

void label(PhantomSegmentTimeline& segment, const CaseLesion* lesion, const CasePlan& plan) {
  const auto listed = [&](const std::vector<std::string>& edges) {
    return std::find(edges.begin(), edges.end(), segment.name) != edges.end();
  };
  bool unfilled = false;
  for (int run = 0; run < phantom_case_runs; ++run) {
    PhantomState& state = segment.runs[static_cast<std::size_t>(run)];
    state.label_now = "no change";
    if (run == two_months && listed(plan.occluded)) {
      state.state = "occluded";
      state.label_now = segment.label = "occlusion";
    } else if (state.state == "not filled") {
      state.label_now = "not filled";
      unfilled = true;
    } else if (state.state == "narrowed" && lesion != nullptr) {
      state.label_now = lesion->label;
      state.grade = grade_of(lesion->label, state.narrowing_percent);
      if (segment.label != "occlusion") segment.label = lesion->label;
      if (state.narrowing_percent > segment.narrowing_percent) {
        segment.narrowing_percent = state.narrowing_percent;
        segment.extent_mm = state.extent_mm;
        segment.lesion_extent_mm = extent_above(lesion->shape, lesion->narrowing[static_cast<std::size_t>(run)], 25);
        segment.grade = state.grade;
      }
    }
  }
  if (segment.label == "no change" && unfilled) segment.label = "not filled";
  if (lesion == nullptr || !lesion->label.starts_with("spasm")) return;
  const double at_first = lesion->narrowing[after_valvulotomy], after = lesion->narrowing[after_second_drug];
  segment.recovery = (at_first - after) / at_first;
}

std::string response_of(const std::vector<PhantomSegmentTimeline>& segments) {
  bool all_relieved = true, all_refractory = true, any = false;
  for (const PhantomSegmentTimeline& segment : segments) {
    if (std::isnan(segment.recovery)) continue;
    any = true;
    all_relieved = all_relieved && segment.recovery >= 0.5;
    all_refractory = all_refractory && segment.recovery < 0.2;
  }
  return !any ? "not tested" : (all_relieved ? "relieved" : (all_refractory ? "refractory" : "partial"));
}

}  // namespace

const std::vector<std::string>& phantom_case_variants() {
  static const std::vector<std::string> variants = {"refractory", "relieved", "valve-and-fixed", "null", "steal"};
  return variants;
}

std::string phantom_case_summary(const std::string& variant) {
  static const std::map<std::string, std::string> summaries = {
      {"refractory", "disseminated spasm, two drugs without effect, patent next day, occluded after two months, open after redo"},
      {"relieved", "disseminated spasm that the drugs relieve"},
      {"valve-and-fixed", "valve remnants that a balloon opens, fixed stenoses, one spasm"},
      {"null", "nothing changes but pose, timing and noise"},
      {"steal", "wide perforators before the arch for three runs, calibres as they were"}};
  const auto found = summaries.find(variant);
  return found == summaries.end() ? "" : found->second;
}

PhantomCase::PhantomCase(const PhantomCaseOptions& options) : options_(options) {
  check(options_);
  complete(options_of(options_, reference));
  plan_ = std::make_shared<const CasePlan>(plan_case(options_));
}

std::vector<PhantomEvent> PhantomCase::events() const { return events_of(options_.variant); }

PhantomRun PhantomCase::run(int index) const {
  check_run(index);
  return expose(options_of(options_, index), scene_of(options_, *plan_, index));
}

PhantomTruth PhantomCase::truth(int index) const {
  check_run(index);
  return describe(options_of(options_, index), scene_of(options_, *plan_, index));
}

Image<float> PhantomCase::expected_counts(int index, int frame) const {
  check_run(index);
  return expect_counts(options_of(options_, index), scene_of(options_, *plan_, index), frame);
}

PhantomTimeline PhantomCase::timeline(const std::vector<PhantomTruth>& truths) const {
  if (truths.size() != phantom_case_runs)
    throw std::invalid_argument("phantom: truths are " + std::to_string(truths.size()) + ", expected " + std::to_string(phantom_case_runs));
  const VesselTree tree = grow(anatomy(options_.base.seed));
  PhantomTimeline timeline;
  timeline.variant = options_.variant;
  timeline.seed = options_.base.seed;
  timeline.events = events();
  for (const Edge& edge : tree.edges) {
    const PhantomSegment* first = segment_named(truths.front(), edge.name);
    if (first == nullptr) continue;
    PhantomSegmentTimeline& segment = timeline.segments.emplace_back();
    segment.name = edge.name;
    segment.role = edge.role;
    const CaseLesion* lesion = lesion_in(*plan_, edge);
    for (int run = 0; run < phantom_case_runs; ++run) {
      const PhantomSegment* seen = segment_named(truths[static_cast<std::size_t>(run)], edge.name);
      segment.runs.push_back(seen == nullptr ? PhantomState{} : state_of(*seen, *first, edge, lesion, run));
    }
    label(segment, lesion, *plan_);
  }
  timeline.response = response_of(timeline.segments);
  return timeline;
}

PhantomTimeline make_phantom_case(const PhantomCaseOptions& options, const std::function<void(int run, const PhantomRun&)>& use) {
  const PhantomCase made(options);
  std::vector<PhantomTruth> truths;
  for (int index = 0; index < phantom_case_runs; ++index) {
    PhantomRun run = made.run(index);
    use(index, run);
    truths.push_back(std::move(run.truth));
  }
  return made.timeline(truths);
}

}  // namespace cinelumen
