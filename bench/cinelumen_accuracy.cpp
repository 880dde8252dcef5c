/// cinelumen_accuracy: makes phantom runs in memory, analyses them, and compares every figure with the truth. Tables on stdout, the same as
/// JSON where asked for.

#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <tuple>

#include "bench/injury_accuracy.h"
#include "bench/onset_accuracy.h"
#include "engine/diameter_rule.h"
#include "engine/findings.h"
#include "engine/frame_warp.h"
#include "engine/lumen_bound.h"
#include "support/matching.h"

namespace cinelumen {
namespace {

using Json = nlohmann::ordered_json;
using namespace cinelumen::test;

constexpr const char *onset_mode = "onset", *injury_scenario = "injury";

struct Options {
  std::string scenario = "tubes", method = "fit", registration = "rigid", json;
  bool comparators = true;
  int side = 1024, seeds = 1, first_seed = 101, simulated = 1000;
  std::optional<double> noise, motion_px;
  std::optional<int> frames;
};

constexpr std::array comparators = {DiameterRule::fwhm, DiameterRule::first_derivative, DiameterRule::mean_derivatives};

/// Errors by true diameter.
struct Bin {
  double from_mm, to_mm;
  Errors single, pooled;
  std::array<Errors, comparators.size()> compared;  // in mm; the fit's SDs
  double bound_sum = 0, bound_squares = 0, bound_mm = 0;
  int bound_count = 0;

  void add_over_bound(double error_mm, double of_bound_mm) {
    const double z = error_mm / of_bound_mm;
    bound_sum += z, bound_squares += z * z, bound_mm += of_bound_mm;
    ++bound_count;
  }
  double sd_over_bound() const {
    if (bound_count == 0) return 0;
    const double mean = bound_sum / bound_count;
    return std::sqrt(std::max(0.0, bound_squares / bound_count - mean * mean));
  }
};

std::vector<Bin> make_bins() {
  std::vector<Bin> bins;
  for (const auto& [from, to] :
       std::vector<std::pair<double, double>>{{0.6, 0.8}, {0.8, 1}, {1, 1.25}, {1.25, 1.5}, {1.5, 2}, {2, 3}, {3, 4.01}, {4.01, 6}})
    bins.push_back({from, to, {}, {}, {}});
  return bins;
}

/// The Cramer-Rao bound of one profile as the fit takes it: its two rows, the noise of the frame and the mask at that place with its
/// correlation, the attenuation that is there, the point spread known, kappa free with the prior that the fit gives it where it is narrow.
class Bounds {
 public:
  Bounds(const PhantomTruth& truth, int mask_frames)
      : truth_(truth), counts_(expected_counts(truth.options, 0)), mask_share_(1.0 / std::max(1, mask_frames)) {
    for (int i = 0; i < 5; ++i)
      for (int j = 0; j < 5; ++j) correlation_[i][j] = static_cast<float>(truth.noise_autocorrelation[i][j]);
  }
  double diameter_sd_px(const TruthMatch& match, int frame, const LumenPoint& measured) {
    const PhantomPoint& q = match.segment->points[match.point];
    const double filling = match.segment->filling[frame][match.point];
    const auto key = std::make_tuple(match.segment->id, match.point, static_cast<int>(20 * filling),
                                     measured.own_kappa ? 0 : 1 + static_cast<int>(200 * measured.kappa_sd / measured.kappa));
    const auto known = cache_.find(key);
    constexpr double rows = 2;
    const double lines = rows * std::max(std::abs(measured.normal_y), std::abs(measured.normal_x));
    if (known != cache_.end()) return known->second / std::sqrt(lines);
    ProfileCase profile;
    profile.radius_px = q.radius_px;
    profile.psf_px = truth_.psf_sigma_px;
    profile.kappa = truth_.attenuation_per_mm * truth_.mm_per_px * q.path_factor * filling;
    const double count = counts_(std::clamp(static_cast<int>(std::lround(q.y_px)), 0, counts_.height() - 1),
                                 std::clamp(static_cast<int>(std::lround(q.x_px)), 0, counts_.width() - 1));
    const double quanta = truth_.noise_gain / count, other = std::pow(truth_.electronic_sd / count, 2);
    const double variance = (quanta + other) * (1 + mask_share_);
    profile.noise_sd = std::sqrt(variance);
    profile.quantum_share = quanta / variance;
    profile.kappa_free = true;
    if (!measured.own_kappa) profile.kappa_sd = measured.kappa_sd;  // no wider than its prior was
    const double sd = diameter_sd_bound(profile) * correlated_noise_factor(profile, correlation_, static_cast<int>(rows));
    cache_[key] = sd;
    return sd / std::sqrt(lines);
  }

 private:
  const PhantomTruth& truth_;
  Image<float> counts_;
  double mask_share_;
  std::array<std::array<float, 5>, 5> correlation_{};
  std::map<std::tuple<int, int, int, int>, double> cache_;
};

/// Collects what is measured while a run is analysed.
class Observer : public AnalysisObserver {
 public:
  Observer(const PhantomTruth& truth, std::vector<Bin>& bins, bool with_comparators)
      : truth_(truth), map_(truth, true), bins_(bins), with_comparators_(with_comparators) {}
  /// Rigidly, and bent where that was asked for.
  PlaceFinder found_places(const Analysis& analysis) const {
    const PlaceFinder rigid = test::found_places(analysis, truth_);
    return [this, rigid](int frame, PixelPosition p) {
      const auto warp = warps_.find(frame);
      if (warp != warps_.end()) p = place_in_frame({}, warp->second, p, truth_.options.rows, truth_.options.columns);
      return rigid(frame, p);
    };
  }
  void progress(const std::string&, int, int) override {}
  void topology_done(const Analysis& so_far) override {
    bounds_.emplace(truth_, static_cast<int>(so_far.subtraction.mask.frames().size()));
  }
  void frame_done(const FrameResult& frame) override {
    if (frame.warp && !frame.warp->to_frame.empty()) warps_[frame.frame].to_frame = to_host(Stream::cpu(), frame.warp->to_frame.view());
    std::vector<LumenPoint> points;
    std::vector<std::pair<TruthMatch, Bin*>> matches;
    for (const LumenPoint& point : *frame.lumen) {
      ++points_;
      if (!point.used) continue;
      ++used_;
      const TruthMatch match = map_.nearest(move_truth_back(truth_, frame.frame, {point.y_px, point.x_px}));
      // Only a filled lumen has a diameter that could be seen.
      if (!match.segment || match.distance_px > 2 || match.segment->filling[frame.frame][match.point] < 0.5f) continue;
      Bin* const bin = bin_of(match.segment->points[match.point].diameter_calibration_mm);
      if (!bin) continue;
      points.push_back(point);
      matches.emplace_back(match, bin);
    }
    for (std::size_t i = 0; i < points.size(); ++i) {
      const auto& [match, bin] = matches[i];
      const double error = error_mm(points[i].diameter_px, match);
      bin->single.add(error, points[i].sd_px * truth_.mm_per_px);
      bin->add_over_bound(error, bounds_->diameter_sd_px(match, frame.frame, points[i]) * truth_.mm_per_px);
    }
    for (std::size_t k = 0; with_comparators_ && k < comparators.size(); ++k) {
      std::vector<LumenPoint> compared = points;
      constexpr int rows = 2;
      apply_rule(comparators[k], frame.subtracted, truth_.psf_sigma_px, rows, compared);
      for (std::size_t i = 0; i < compared.size(); ++i)
        if (compared[i].used)
          matches[i].second->compared[k].add(error_mm(compared[i].diameter_px, matches[i].first), points[i].sd_px * truth_.mm_per_px);
    }
  }
  void finish(const Analysis& analysis) {
    for (const SegmentResult& segment : analysis.segments)
      for (const DiameterProfile::Point& point : segment.profile.points) {
        if (point.sd_px <= 0) continue;
        const TruthMatch match = nearest(analysis, point.y_px, point.x_px);
        if (!match.segment || match.distance_px > 2) continue;
        if (Bin* const bin = bin_of(match.segment->points[match.point].diameter_calibration_mm))
          bin->pooled.add(error_mm(point.diameter_px, match), point.sd_px * truth_.mm_per_px);
      }
  }
  double used_share() const { return points_ ? static_cast<double>(used_) / static_cast<double>(points_) : 0; }
  TruthMatch nearest(const Analysis& analysis, double y, double x) const {
    return map_.nearest(move_truth_back(truth_, analysis.subtraction.reference_frame, {y, x}));
  }

 private:
  double error_mm(double diameter_px, const TruthMatch& match) const {
    return (diameter_px - 2 * match.segment->points[match.point].radius_px) * truth_.mm_per_px;
  }
  Bin* bin_of(double diameter_mm) {
    for (Bin& bin : bins_)
      if (diameter_mm >= bin.from_mm && diameter_mm < bin.to_mm) return &bin;
    return nullptr;
  }
  const PhantomTruth& truth_;
  TruthMap map_;
  std::vector<Bin>& bins_;
  bool with_comparators_;
  std::map<int, FrameWarp> warps_;
  std::optional<Bounds> bounds_;
  long points_ = 0, used_ = 0;
};

/// What the findings are worth, over all runs.
struct Findings {
  Errors stenosis;                        // percent stenosis, points
  std::map<std::string, Errors> by_kind;  // the same, by the lesion's
  std::map<std::string, int> labels;      // of segments whose lumen is narrow somewhere
  std::map<std::string, int> of_even;     // of segments whose lumen is not: "narrowing" is false there
  std::map<std::string, int> gates;       // centreline points that were measured, by filling gate
  std::map<std::string, int> filling;     // segments
  int segments = 0;
};

/// Of the true lesions on a measured segment the one with the largest reduction of diameter, as this view shows it.
struct SeenLesion {
  const PhantomLesion* lesion = nullptr;
  double percent = 0;  ///< against the calibre either side of it; 0: none
};

SeenLesion lesion_along(const SegmentResult& segment, const Analysis& analysis, const PhantomTruth& truth, const Observer& observer) {
  SeenLesion seen;
  for (const DiameterProfile::Point& point : segment.profile.points) {
    const TruthMatch match = observer.nearest(analysis, point.y_px, point.x_px);
    if (!match.segment || match.distance_px >= 3) continue;
    constexpr double near_mm = 0.5;  // points lie a pixel apart
    for (const PhantomLesion& lesion : truth.lesions)
      if (lesion.segment == match.segment->id && lesion.kind != "occlusion" && lesion.diameter_percent > seen.percent &&
          std::abs(match.segment->points[match.point].arc_length_mm - lesion.at_mm) < near_mm)
        seen = {&lesion, lesion.diameter_percent};
  }
  return seen;
}

// Whether a segment's least diameter was found inside the lesion: where it lies elsewhere, the lesion was not measured.
bool lies_in(const PhantomLesion& lesion, const SegmentResult& segment, const Analysis& analysis, const Observer& observer) {
  const auto& at = segment.profile.points[static_cast<std::size_t>(segment.diameter.minimum_point)];
  const TruthMatch match = observer.nearest(analysis, at.y_px, at.x_px);
  if (!match.segment || match.segment->id != lesion.segment) return false;
  const double place = match.segment->points[match.point].arc_length_mm, half = (lesion.to_mm - lesion.from_mm) / 4;
  return std::abs(place - lesion.at_mm) < half;  // its narrower half
}

// Percent by which the true calibre of what was traced narrows, against a straight line between its ends'.
double true_narrowing(const SegmentResult& segment, const Analysis& analysis, const Observer& observer) {
  std::vector<double> diameters;
  for (const DiameterProfile::Point& point : segment.profile.points) {
    const TruthMatch match = observer.nearest(analysis, point.y_px, point.x_px);
    if (match.segment && match.distance_px < 3) diameters.push_back(2 * match.segment->points[match.point].radius_px);
  }
  const std::size_t n = diameters.size(), end = n / 6;
  if (n < 24) return 0;
  const auto median = [&](std::size_t from) {
    std::vector<double> some(diameters.begin() + static_cast<std::ptrdiff_t>(from),
                             diameters.begin() + static_cast<std::ptrdiff_t>(from + end));
    std::nth_element(some.begin(), some.begin() + static_cast<std::ptrdiff_t>(end / 2), some.end());
    return some[end / 2];
  };
  const double first = median(0), last = median(n - end);
  double deepest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double calibre = first + static_cast<double>(i) / static_cast<double>(n - 1) * (last - first);
    deepest = std::max(deepest, 100 * (1 - diameters[i] / calibre));
  }
  return deepest;
}

void judge_findings(const Analysis& analysis, const PhantomTruth& truth, const Observer& observer, Findings& findings) {
  constexpr double narrow_percent = 20, even_percent = 10;
  for (const SegmentResult& segment : analysis.segments) {
    ++findings.segments;
    ++findings.filling[segment.filling];
    for (const FillingGate gate : segment.gates)
      if (gate != FillingGate::unmeasured) ++findings.gates[to_string(gate)];
    if (segment.profile.points.size() < 24) continue;
    const SeenLesion seen = lesion_along(segment, analysis, truth, observer);
    std::string label = "nothing said", reason;
    double sd_points = 0;
    for (const Finding& finding : analysis.findings)
      if (finding.segment == segment.id) {
        label = finding.label, reason = finding.reasons.back();
        if (finding.ci95) sd_points = ((*finding.ci95)[1] - (*finding.ci95)[0]) / (2 * 1.96);
      }
    const SegmentDiameter& d = segment.diameter;
    if (seen.percent >= narrow_percent) {
      ++findings.labels[label];
      const PhantomLesion& lesion = *seen.lesion;
      const bool measured = label != "indeterminate" && d.percent_stenosis && lies_in(lesion, segment, analysis, observer);
      std::printf("  segment %d: %s, %.2f mm in %.2f mm, %.1f %%: measured %.2f mm in %.2f mm, %.1f %%%s; area ratio %.3f%s; %s; %s\n",
                  segment.id, lesion.kind.c_str(), lesion.minimal_diameter_mm, lesion.reference_diameter_mm, seen.percent,
                  d.minimum.value_or(NAN) * truth.mm_per_px, d.reference.value_or(NAN) * truth.mm_per_px, d.percent_stenosis.value_or(NAN),
                  measured ? "" : " (not counted)", d.area_ratio_at_minimum.value_or(NAN), d.sized_by_contrast ? ", by contrast" : "",
                  label.c_str(), label == "indeterminate" ? reason.c_str() : "");
      if (!measured) continue;
      if (sd_points == 0) sd_points = std::hypot(100 * d.minimum_sd.value_or(0) / *d.reference, FindingThresholds().model_percent);
      findings.stenosis.add(*d.percent_stenosis - seen.percent, sd_points);
      findings.by_kind[lesion.kind].add(*d.percent_stenosis - seen.percent, sd_points);
    } else if (true_narrowing(segment, analysis, observer) < even_percent) {
      ++findings.of_even[label];
      if (label == "narrowing")
        std::printf("  FALSE NARROWING in segment %d: %.1f %% at (%.0f, %.0f), true %.1f %%\n", segment.id, *d.percent_stenosis,
                    d.minimum_at_px[0], d.minimum_at_px[1], seen.percent);
    }
  }
}

struct Report {
  std::vector<Bin> bins = make_bins();
  Findings findings;
  Json runs = Json::array();
};

void analyse_seed(const Options& options, int seed, Report& report) {
  PhantomOptions asked;
  asked.scenario = options.scenario;
  asked.rows = asked.columns = options.side;
  asked.seed = static_cast<std::uint64_t>(seed);
  asked.noise_log_sd = options.noise;
  asked.motion_px = options.motion_px;
  asked.frames = options.frames;
  const PhantomRun phantom = make_phantom(asked);
  const Run run = make_run(phantom);
  AnalysisOptions how;
  how.diameter = parse_diameter_rule(options.method);
  how.registration = parse_registration(options.registration);
  Observer observer(phantom.truth, report.bins, options.comparators);
  const Analysis analysis = analyze(Stream::cpu(), run, how, &observer);
  observer.finish(analysis);
  const MotionFigures motion = compare_motion(analysis, phantom.truth);
  const FieldFigures edges = compare_field(phantom, analysis.subtraction.reference_frame, observer.found_places(analysis));
  const CentrelineFigures lines = compare_centrelines(analysis, phantom.truth, 0.8);
  std::printf(
      "%s %d seed %d: %zu segments, mask frames %zu (inflow %d, true %d), shift %.3f px rms (whole field %.3f), recall %.3f precision "
      "%.3f centreline %.3f px rms (clear of others %.3f, without the %.1f %% inferred %.3f), %.0f %% of points used, noise %.4f\n",
      options.scenario.c_str(), options.side, seed, analysis.segments.size(), analysis.subtraction.mask.frames().size(),
      analysis.subtraction.mask.inflow_frame + 1, phantom.truth.first_contrast_frame + 1, motion.shift_rms_px, motion.field_rms_px,
      lines.recall, lines.precision, lines.error_rms_px, lines.clear_error_rms_px, 100 * lines.inferred_share, lines.measured_error_rms_px,
      100 * observer.used_share(), analysis.noise.log_sd_at_median);
  std::printf("  endpoint error of the field near bone edges %.3f px rms (%d places)\n", edges.endpoint_rms_px, edges.places);
  std::printf("  %s\n  %.0f ms:", analysis.subtraction.topology_note.c_str(), analysis.timing.total);
  for (const auto& [stage, ms] : analysis.timing.stages) std::printf(" %s %.0f,", stage.c_str(), ms);
  std::printf("\n");
  for (const std::string& warning : analysis.warnings) std::printf("  warning: %s\n", warning.c_str());
  judge_findings(analysis, phantom.truth, observer, report.findings);
  report.runs.push_back({{"seed", seed},
                         {"segments", analysis.segments.size()},
                         {"shift_rms_px", motion.shift_rms_px},
                         {"field_rms_px", motion.field_rms_px},
                         {"bone_edge_endpoint_px", edges.endpoint_rms_px},
                         {"bone_edge_places", edges.places},
                         {"recall", lines.recall},
                         {"precision", lines.precision},
                         {"centreline_rms_px", lines.error_rms_px},
                         {"centreline_clear_rms_px", lines.clear_error_rms_px},
                         {"centreline_measured_rms_px", lines.measured_error_rms_px},
                         {"used_share", observer.used_share()},
                         {"noise_log_sd", analysis.noise.log_sd_at_median},
                         {"total_ms", analysis.timing.total}});
}

void print_diameters(const std::vector<Bin>& bins) {
  std::printf(
      "\n| true diameter mm | single frame: points | bias mm | SD mm | bound mm | SD / bound | covered | pooled: points | bias mm | SD mm "
      "| "
      "covered |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const Bin& bin : bins) {
    const ErrorFigures s = bin.single.figures(), p = bin.pooled.figures();
    if (s.count == 0) {
      std::printf("| %.2f-%.2f | 0 | - | - | - | - | - | 0 | - | - | - |\n", bin.from_mm, bin.to_mm);
      continue;
    }
    std::printf("| %.2f-%.2f | %d | %+.3f | %.3f | %.3f | %.2f | %.1f %% | %d | %+.3f | %.3f | %.1f %% |\n", bin.from_mm, bin.to_mm,
                s.count, s.bias, s.sd, bin.bound_count ? bin.bound_mm / bin.bound_count : 0, bin.sd_over_bound(), 100 * s.coverage, p.count,
                p.bias, p.sd, 100 * p.coverage);
  }
}

void print_comparators(const std::vector<Bin>& bins) {
  std::printf("\n| true diameter mm | fit: bias +- SD mm");
  for (const DiameterRule rule : comparators) std::printf(" | %s", to_string(rule));
  std::printf(" |\n|---|---|---|---|---|\n");
  for (const Bin& bin : bins) {
    std::printf("| %.2f-%.2f", bin.from_mm, bin.to_mm);
    const auto cell = [](const ErrorFigures& figures) {
      if (figures.count > 0)
        std::printf(" | %+.3f +- %.3f", figures.bias, figures.sd);
      else
        std::printf(" | -");
    };
    cell(bin.single.figures());
    for (const Errors& errors : bin.compared) cell(errors.figures());
    std::printf(" |\n");
  }
}

void print_counts(const char* what, const std::map<std::string, int>& counts) {
  std::printf("%s:", what);
  for (const auto& [name, count] : counts) std::printf(" %d %s;", count, name.c_str());
  std::printf("\n");
}

Json figures_json(const ErrorFigures& figures) {
  if (figures.count == 0) return {{"points", 0}};
  return {
      {"points", figures.count}, {"bias_mm", figures.bias}, {"sd_mm", figures.sd}, {"rms_mm", figures.rms}, {"coverage", figures.coverage}};
}

Json to_json(const Options& options, const Report& report) {
  Json root{{"scenario", options.scenario},     {"size", options.side},     {"seeds", options.seeds},
            {"first_seed", options.first_seed}, {"method", options.method}, {"registration", options.registration}};
  Json& diameters = root["diameters"] = Json::array();
  for (const Bin& bin : report.bins) {
    Json row{{"from_mm", bin.from_mm},
             {"to_mm", bin.to_mm},
             {"single_frame", figures_json(bin.single.figures())},
             {"bound_mm", bin.bound_count ? bin.bound_mm / bin.bound_count : 0},
             {"sd_over_bound", bin.sd_over_bound()},
             {"pooled", figures_json(bin.pooled.figures())}};
    for (std::size_t k = 0; options.comparators && k < comparators.size(); ++k)
      row[to_string(comparators[k])] = figures_json(bin.compared[k].figures());
    diameters.push_back(row);
  }
  const Findings& f = report.findings;
  const ErrorFigures stenosis = f.stenosis.figures();
  root["stenoses"] = {{"measured", stenosis.count}, {"bias_points", stenosis.bias},  {"sd_points", stenosis.sd},
                      {"rms_points", stenosis.rms}, {"coverage", stenosis.coverage}, {"labels", f.labels}};
  Json& kinds = root["stenoses"]["by_kind"] = Json::object();
  for (const auto& [kind, errors] : f.by_kind) {
    const ErrorFigures figures = errors.figures();
    kinds[kind] = {{"measured", figures.count}, {"bias_points", figures.bias}, {"sd_points", figures.sd}, {"rms_points", figures.rms}};
  }
  root["even_vessels"] = f.of_even;
  root["filling"] = f.filling;
  root["gates"] = f.gates;
  root["runs"] = report.runs;
  return root;
}

int write_json(const std::string& path, const Json& figures) {
  if (path.empty()) return 0;
  std::ofstream file(path);
  file << figures.dump(1) << "\n";
  if (file.flush()) return 0;
  std::fprintf(stderr, "%s: can't be written\n", path.c_str());
  return 4;
}

int compare_with_truth(const Options& options) {
  Report report;
  for (int seed = options.first_seed; seed < options.first_seed + options.seeds; ++seed) analyse_seed(options, seed, report);
  print_diameters(report.bins);
  if (options.comparators) print_comparators(report.bins);
  const ErrorFigures stenosis = report.findings.stenosis.figures();
  std::printf("\nstenoses: %d measured", stenosis.count);
  if (stenosis.count > 0)
    std::printf(", percent stenosis %+.2f +- %.2f points (rms %.2f), covered %.1f %%", stenosis.bias, stenosis.sd, stenosis.rms,
                100 * stenosis.coverage);
  std::printf("\n");
  for (const auto& [kind, errors] : report.findings.by_kind) {
    const ErrorFigures figures = errors.figures();
    std::printf("  %s: %d, %+.2f +- %.2f points (rms %.2f)\n", kind.c_str(), figures.count, figures.bias, figures.sd, figures.rms);
  }
  print_counts("of narrow segments", report.findings.labels);
  print_counts("of even segments", report.findings.of_even);
  print_counts("filling", report.findings.filling);
  print_counts("gates of centreline points", report.findings.gates);
  return write_json(options.json, to_json(options, report));
}

}  // namespace
}  // namespace cinelumen

int main(int argc, char** argv) {
  using namespace cinelumen;
  Options options;
  CLI::App app(
      "Phantom runs, analysed and compared with their truth: diameters against the Cramer-Rao bound and the classic rules, motion, "
      "centrelines, stenoses, filling gates");
  // By name or in this order.
  std::vector<std::string> scenarios = phantom_scenarios();
  scenarios.emplace_back(onset_mode);
  app.add_option(
         "SCENARIO,--scenario", options.scenario,
         "One of the phantom's; or onset: changes of calibre within a run, false ones in runs that keep theirs (SEEDS of each of nine "
         "scenarios, and simulated ones) and how soon narrowings are told. injury: what is suspected of it, and of as many runs of "
         "scenarios "
         "without any")
      ->check(CLI::IsMember(scenarios))
      ->capture_default_str();
  app.add_option("SIDE,--size", options.side, "Rows and columns")->check(CLI::Range(64, 4096))->capture_default_str();
  app.add_option("SEEDS,--seeds", options.seeds, "How many runs; onset: 0 for simulated ones alone")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  app.add_option("FIRST,--first-seed", options.first_seed, "Seed of the first")->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--method", options.method, "fit, fwhm, first-derivative or mean-derivatives: what is pooled and judged")
      ->check(CLI::IsMember({"fit", "fwhm", "first-derivative", "mean-derivatives"}))
      ->capture_default_str();
  app.add_option("--noise", options.noise, "SD of log intensity [the scenario's]")->check(CLI::NonNegativeNumber);
  app.add_option("--motion", options.motion_px, "Amplitude of the shift, px [the scenario's]")->check(CLI::NonNegativeNumber);
  app.add_option("--frames", options.frames, "Frames of a run [the scenario's]")->check(CLI::Range(1, 10000));
  app.add_option("--registration", options.registration, "none, rigid or nonrigid")
      ->check(CLI::IsMember({"none", "rigid", "nonrigid"}))
      ->capture_default_str();
  app.add_flag("!--no-comparators", options.comparators, "Leave the classic rules out: they take longer than all the rest");
  app.add_option("--simulated", options.simulated, "onset: runs that are simulated without pictures; half as many of each narrowing")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  app.add_option("--json", options.json, "Also write the figures here");
  CLI11_PARSE(app, argc, argv);
  try {
    if (options.scenario == onset_mode)
      return write_json(options.json, measure_onsets({options.side, options.seeds, options.simulated, options.first_seed}));
    if (options.scenario == injury_scenario)
      return write_json(options.json, measure_injuries({options.side, options.seeds, options.first_seed}));
    return compare_with_truth(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cinelumen_accuracy: %s\n", error.what());
    return 1;
  }
}
