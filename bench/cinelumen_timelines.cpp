/// cinelumen_timelines: clinical cases of the phantom, seven runs each, compared and held against their truth. Every timeline is one line
/// of a file, so that a long series can be broken off and taken up again; the tables are made from the file.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "bench/reliability_page.h"
#include "engine/median.h"
#include "support/compared.h"
#include "support/matching.h"
#include "support/upper_limit.h"

namespace cinelumen {
namespace {

using Json = nlohmann::ordered_json;
using namespace cinelumen::test;

struct Options {
  std::vector<std::string> variants;
  int side = 512, frames = 36, timelines = 2, first_seed = 601;
  std::string file = "timelines.jsonl", plot;
  bool only_tables = false, list = false, check = false;
};

/// A place of a vessel, the same in every run.
struct Place {
  std::string vessel;
  double mm = 0;
};

/// One run's truth, by place.
class PlaceMap {
 public:
  explicit PlaceMap(const PhantomTruth& truth) {
    for (const PhantomSegment& segment : truth.segments)
      for (const PhantomPoint& point : segment.points) by_vessel_[segment.name][point.place_mm] = point;
  }
  const PhantomPoint* at(const Place& place) const {
    const auto vessel = by_vessel_.find(place.vessel);
    if (vessel == by_vessel_.end()) return nullptr;
    auto near = vessel->second.lower_bound(place.mm);
    if (near == vessel->second.end() || (near != vessel->second.begin() && place.mm - std::prev(near)->first < near->first - place.mm))
      near = std::prev(near);
    return std::abs(near->first - place.mm) < 1 ? &near->second : nullptr;
  }

 private:
  std::map<std::string, std::map<double, PhantomPoint>> by_vessel_;
};

/// What a traced segment truly is in one run.
struct TruthInRun {
  double narrowing_percent = 0, least_mm = 1e9, extent_mm = 0, occluded_share = 0, not_filled_share = 0;
};

/// What a traced segment truly is.
struct TruthOfSegment {
  std::vector<TruthInRun> runs;
  std::string label = "no change", grade = "none", vessel;
  double narrowing_percent = 0, reference_mm = 0;
  bool borderline = false;
  bool passed_by = false;  // in some run contrast does not come, though nothing but a graft or the pressures keeps it out
};

const PhantomSegmentTimeline* timeline_of(const PhantomTimeline& timeline, const std::string& vessel) {
  for (const PhantomSegmentTimeline& segment : timeline.segments)
    if (segment.name == vessel) return &segment;
  return nullptr;
}

bool near_a_border(double percent) {
  for (const double border : {25.0, 50.0, 90.0})
    if (std::abs(percent - border) < 5) return true;
  return percent > 5 && percent < 30;  // the foot of a narrowing whose depth lies in the neighbouring segment
}

TruthOfSegment truth_of(const std::vector<Place>& places, double step_mm, const std::vector<PlaceMap>& maps,
                        const PhantomTimeline& timeline) {
  TruthOfSegment truth;
  std::map<std::string, int> votes;
  for (const Place& place : places) ++votes[place.vessel];
  int most = 0;
  for (const auto& [vessel, count] : votes)
    if (count > most) most = count, truth.vessel = vessel;
  std::set<std::string> narrowed;  // vessels
  for (std::size_t r = 0; r < maps.size(); ++r) {
    TruthInRun run;
    int occluded = 0, not_filled = 0;
    for (const Place& place : places) {
      const PhantomSegmentTimeline* of = timeline_of(timeline, place.vessel);
      if (of && of->runs[r].state == "occluded") {
        ++occluded;
        continue;
      }
      not_filled += of && of->runs[r].state == "not filled";
      const PhantomPoint* point = maps[r].at(place);
      if (!point || !(point->healthy_radius_mm > 0)) continue;
      if (point->gap_px < 0) continue;  // beneath another vessel: nothing can be seen of it
      const double percent = 100 * (1 - point->radius_mm / point->healthy_radius_mm);
      run.least_mm = std::min(run.least_mm, 2 * point->radius_mm);
      if (percent > 25) {
        run.extent_mm += step_mm;
        narrowed.insert(place.vessel);
      }
      run.narrowing_percent = std::max(run.narrowing_percent, percent);
      truth.narrowing_percent = std::max(truth.narrowing_percent, percent);
    }
    run.occluded_share = static_cast<double>(occluded) / static_cast<double>(places.size());
    run.not_filled_share = static_cast<double>(not_filled) / static_cast<double>(places.size());
    truth.passed_by = truth.passed_by || run.not_filled_share > 0.3;
    truth.borderline = truth.borderline || near_a_border(run.narrowing_percent) || (occluded > 0 && occluded * step_mm < 5);
    truth.runs.push_back(run);
  }
  // The gravest, as a timeline is named.
  for (const std::string& vessel : narrowed)
    if (const PhantomSegmentTimeline* of = timeline_of(timeline, vessel); of && label_gravity(of->label) > label_gravity(truth.label)) {
      truth.label = of->label;
      truth.grade = of->grade;
    }
  const bool is_occluded = std::any_of(truth.runs.begin(), truth.runs.end(), [&](const TruthInRun& run) {
    return run.occluded_share * static_cast<double>(places.size()) * step_mm >= 5;
  });
  if (is_occluded) truth.label = "occlusion";
  if (!is_occluded && truth.narrowing_percent <= 25) truth.label = "no change";
  return truth;
}

Json entry_line(const TimelineEntry& entry, const TruthInRun& truth) {
  const Narrowing& n = entry.change.largest;
  return {{"state", to_string(entry.state)},
          {"known", entry.change.known},
          {"percent", n.percent},
          {"p", {n.probability_25, n.probability_50, n.probability_90}},
          {"ci", n.ci95},
          {"label", entry.label_now},
          {"note", entry.note},
          {"doubt", entry.doubt},
          {"segment", entry.segment},
          {"true_percent", truth.narrowing_percent},
          {"true_least_mm", truth.least_mm},
          {"occluded", truth.occluded_share},
          {"not_filled", truth.not_filled_share}};
}

Json make_timeline(const Options& options, const std::string& variant, int seed) {
  PhantomCaseOptions wanted;
  wanted.variant = variant;
  wanted.base.rows = wanted.base.columns = options.side;
  wanted.base.frames = options.frames;
  wanted.base.seed = static_cast<std::uint64_t>(seed);
  const PhantomCase made(wanted);
  const std::vector<PhantomEvent> events = made.events();
  std::vector<ComparedRun> runs;
  std::vector<PhantomTruth> truths;
  for (int index = 0; index < phantom_case_runs; ++index) {
    PhantomRun run = made.run(index);
    runs.push_back(compared_run(run, events[static_cast<std::size_t>(index)], index));
    truths.push_back(std::move(run.truth));
  }
  const PhantomTimeline timeline = made.timeline(truths);
  const Comparison comparison = compare_runs(runs);

  std::vector<PlaceMap> maps;
  for (const PhantomTruth& truth : truths) maps.emplace_back(truth);
  const TruthMap map(truths.front());
  const Analysis& reference = runs.front().analysis;
  Json line = {{"variant", variant}, {"seed", seed}, {"side", options.side}, {"frames", options.frames}, {"segments", Json::array()}};
  line["summary"] = {comparison.summary.spasm_extent, comparison.summary.response, timeline.response};
  Json comparable = Json::array(), factors = Json::array();
  for (const ComparedRunSummary& run : comparison.runs) {
    comparable.push_back(run.comparable);
    factors.push_back({run.scale_offset, run.scale_offset_sd, run.matched_share});
  }
  line["comparable"] = comparable;
  line["factors"] = factors;
  for (std::size_t s = 0; s < comparison.segments.size(); ++s) {
    const SegmentTimeline& segment = comparison.segments[s];
    std::vector<Place> places;
    const auto& points = reference.segments[s].centreline.points;
    for (const CentrelinePoint& point : points) {
      const TruthMatch match = map.nearest(move_truth_back(truths.front(), reference.subtraction.reference_frame, {point.y, point.x}));
      if (match.segment && match.distance_px <= 2)
        places.push_back({match.segment->name, match.segment->points[static_cast<std::size_t>(match.point)].place_mm});
    }
    if (places.size() < 10 || 2 * places.size() < points.size()) continue;
    const TruthOfSegment truth = truth_of(places, truths.front().mm_per_px, maps, timeline);
    Json entries = Json::array();
    for (std::size_t r = 0; r < segment.entries.size(); ++r) entries.push_back(entry_line(segment.entries[r], truth.runs[r]));
    line["segments"].push_back(
        {{"id", segment.id},
         {"vessel", truth.vessel},
         {"true_label", truth.label},
         {"true_grade", truth.grade},
         {"true_percent", truth.narrowing_percent},
         {"borderline", truth.borderline},
         {"passed_by", truth.passed_by},
         {"reference_measured", std::any_of(segment.reference_mm.begin(), segment.reference_mm.end(), [](float d) { return d > 0; })},
         {"length_mm", segment.length_mm},
         {"label", segment.label},
         {"grade", segment.grade},
         {"percent", segment.narrowing_percent ? Json(*segment.narrowing_percent) : Json(nullptr)},
         {"reasons", segment.reasons},
         {"runs", entries}});
  }
  return line;
}

// ---- tables ----

double share(int part, int whole) { return whole > 0 ? 100.0 * part / whole : 0; }

bool is_spasm(const std::string& label) { return label.rfind("spasm", 0) == 0; }

/// Not measured in the reference, for other vessels lie over all of it, and said to be so.
bool is_hidden(const Json& segment) { return !segment["reference_measured"].get<bool>() && segment["label"] == "indeterminate"; }

void label_tables(const std::vector<Json>& lines) {
  std::map<std::string, std::map<std::string, std::map<std::string, int>>> tables;
  std::map<std::string, std::array<int, 4>> grades;  // right, of; not measurable and said so
  std::map<std::string, std::vector<double>> errors;
  for (const Json& line : lines)
    for (const Json& segment : line["segments"]) {
      if (segment["borderline"].get<bool>()) continue;
      const std::string variant = line["variant"], truth = segment["true_label"], found = segment["label"];
      double least = 1e9;
      for (const Json& run : segment["runs"]) least = std::min(least, run["true_least_mm"].get<double>());
      const bool unmeasurable = least < 0.4 && is_spasm(truth) && (found == "indeterminate" || found == "not filled");
      const bool hidden = is_hidden(segment);
      // A vein that contrast passed by: shut or not filled, either is right.
      const bool passed_by =
          segment["passed_by"].get<bool>() && (found == "occlusion" || found == "not filled" || found == "indeterminate");
      ++tables[variant][hidden      ? "(hidden in the reference)"
                        : passed_by ? "(contrast passes it by)"
                                    : truth][unmeasurable ? "(not measurable)" : found];
      if (hidden || passed_by) continue;
      if (is_spasm(truth)) {
        ++grades[variant][1];
        grades[variant][0] += segment["grade"] == segment["true_grade"] || unmeasurable;
      }
      for (const Json& run : segment["runs"])
        if (run["known"].get<bool>() && run["true_percent"].get<double>() >= 30 && run["true_least_mm"].get<double>() >= 0.4)
          errors[variant].push_back(std::abs(run["percent"].get<double>() - run["true_percent"].get<double>()));
    }
  for (const auto& [variant, of_truth] : tables) {
    std::set<int> seeds;
    for (const Json& line : lines)
      if (line["variant"] == variant) seeds.insert(line["seed"].get<int>());
    std::printf("\n%s: %zu timelines\n", variant.c_str(), seeds.size());
    for (const auto& [truth, found] : of_truth) {
      int all = 0, right = 0;
      std::string rest;
      for (const auto& [label, count] : found) {
        all += count;
        if (label == truth || label == "(not measurable)" || truth.front() == '(') right += count;
        if (label != truth) rest += (rest.empty() ? "" : ", ") + label + " " + std::to_string(count);
      }
      std::printf("  %-28s right %4d of %4d (%5.1f %%)%s%s\n", truth.c_str(), right, all, share(right, all),
                  rest.empty() ? "" : "; said: ", rest.c_str());
    }
    if (grades[variant][1] > 0)
      std::printf("  grade right %d of %d (%.1f %%)\n", grades[variant][0], grades[variant][1],
                  share(grades[variant][0], grades[variant][1]));
    auto& e = errors[variant];
    std::sort(e.begin(), e.end());
    if (!e.empty())
      std::printf("  narrowing, lumen of 0.4 mm and more: median error %.1f points, 90 %% within %.1f (%zu)\n", e[e.size() / 2],
                  e[e.size() * 9 / 10], e.size());
  }
}

void false_finding_table(const std::vector<Json>& lines) {
  std::printf("\nfalse findings\n");
  std::map<std::string, std::array<int, 4>> counts;  // timelines with a false spasm, timelines, false spasms, with any false finding
  for (const Json& line : lines) {
    auto& of = counts[line["variant"]];
    int spasms = 0, any = 0;
    for (const Json& segment : line["segments"]) {
      if (segment["true_label"] != "no change" || segment["borderline"].get<bool>()) continue;
      if (segment["passed_by"].get<bool>() && segment["label"] == "occlusion") continue;
      const std::string label = segment["label"];
      spasms += is_spasm(label);
      any += label != "no change" && label != "indeterminate" && label != "not filled";
    }
    of[0] += spasms > 0;
    ++of[1];
    of[2] += spasms;
    of[3] += any > 0;
  }
  for (const auto& [variant, of] : counts)
    std::printf("  %-16s false spasm in %d of %d timelines (upper 95 %% limit %.1f %%), %d segments; any false finding in %d\n",
                variant.c_str(), of[0], of[1], 100 * upper_limit(of[0], of[1]), of[2], of[3]);
}

/// Of P(narrowing > 25, 50, 90 %), in all runs but the first.
std::vector<bench::Reliability> reliability_of(const std::vector<Json>& lines) {
  constexpr std::array borders = {25.0, 50.0, 90.0};
  std::vector<bench::Reliability> curves(borders.size());
  for (std::size_t b = 0; b < borders.size(); ++b) {
    curves[b].border_percent = borders[b];
    for (const Json& line : lines)
      for (const Json& segment : line["segments"])
        for (std::size_t r = 1; r < segment["runs"].size(); ++r) {
          const Json& run = segment["runs"][r];
          if (!run["known"].get<bool>() || run["occluded"].get<double>() > 0 || run["true_least_mm"].get<double>() > 1e8) continue;
          curves[b].add(run["p"][b], run["true_percent"].get<double>() > borders[b]);
        }
  }
  return curves;
}

void reliability_table(const std::vector<bench::Reliability>& curves) {
  std::printf("\nreliability of P(narrowing > x), all runs but the first\n");
  for (const bench::Reliability& curve : curves) {
    std::printf("  > %2.0f %%:", curve.border_percent);
    for (std::size_t bin = 0; bin < curve.count.size(); ++bin)
      if (const int n = curve.count[bin]; n > 0) std::printf("  %.2f said %.2f was (%d)", curve.said[bin] / n, curve.came_true[bin] / n, n);
    std::printf("\n        calibration error %.4f of %d\n", curve.calibration_error(), curve.all());
  }
}

/// Area under the ROC of the narrowing for true changes of 20 to 45 % against none, within the first procedure.
void roc_table(const std::vector<Json>& lines) {
  std::vector<double> changed, unchanged;
  for (const Json& line : lines)
    for (const Json& segment : line["segments"])
      for (std::size_t r = 1; r < std::min<std::size_t>(4, segment["runs"].size()); ++r) {
        const Json& run = segment["runs"][r];
        if (!run["known"].get<bool>() || run["occluded"].get<double>() > 0) continue;
        const double truth = run["true_percent"];
        if (truth < 1) unchanged.push_back(run["percent"]);
        if (truth >= 20 && truth <= 45) changed.push_back(run["percent"]);
      }
  if (changed.empty() || unchanged.empty()) return;
  std::sort(unchanged.begin(), unchanged.end());
  double above = 0;
  for (const double value : changed) {
    const auto low = std::lower_bound(unchanged.begin(), unchanged.end(), value),
               high = std::upper_bound(unchanged.begin(), unchanged.end(), value);
    above += static_cast<double>(low - unchanged.begin()) + 0.5 * static_cast<double>(high - low);
  }
  std::printf("\nROC area for true changes of 20 to 45 %% (%zu) against none (%zu), runs 2 to 4: %.4f\n", changed.size(), unchanged.size(),
              above / static_cast<double>(changed.size() * unchanged.size()));
}

/// Occlusion and reopening, run by run: of segments that are occluded over most of their length.
void occlusion_table(const std::vector<Json>& lines) {
  int occluded = 0, found = 0, reopened = 0, seen_open = 0, wrong = 0;
  for (const Json& line : lines)
    for (const Json& segment : line["segments"])
      for (std::size_t r = 0; r < segment["runs"].size(); ++r) {
        const Json& run = segment["runs"][r];
        // What is shorter is none (ComparisonThresholds::occluded_mm).
        const bool long_enough = run["occluded"].get<double>() * segment["length_mm"].get<double>() >= ComparisonThresholds{}.occluded_mm;
        if (run["occluded"].get<double>() > 0.5 && long_enough) {
          ++occluded;
          found += run["state"] == "occluded";
          if (r + 1 < segment["runs"].size() && segment["runs"][r + 1]["occluded"].get<double>() == 0) {
            ++reopened;
            seen_open += segment["runs"][r + 1]["state"] == "measured";
          }
        } else if (run["occluded"].get<double>() == 0) {
          wrong += run["state"] == "occluded" && run["true_least_mm"].get<double>() >= 0.4;
        }
      }
  std::printf("\nocclusion found %d of %d (%.1f %%), reopening %d of %d (%.1f %%), open vessels called occluded: %d\n", found, occluded,
              share(found, occluded), seen_open, reopened, share(seen_open, reopened), wrong);
}

void list_errors(const std::vector<Json>& lines) {
  for (const Json& line : lines)
    for (const Json& segment : line["segments"]) {
      if (segment["borderline"].get<bool>() || (segment["label"] == segment["true_label"] &&
                                                (segment["true_label"] == "no change" || segment["grade"] == segment["true_grade"])))
        continue;
      if (is_hidden(segment)) continue;
      std::string runs;
      for (const Json& run : segment["runs"]) {
        char text[160];
        std::snprintf(text, sizeof text, " %s%.0f/%.0f", run["known"].get<bool>() ? "" : std::string(run["state"]).substr(0, 4).c_str(),
                      run["percent"].get<double>(), run["true_percent"].get<double>());
        runs += text;
        if (run["occluded"].get<double>() > 0) runs += "(occ)";
        if (run["state"] == "occluded") runs += "[occ]";
        if (!std::string(run["doubt"]).empty()) runs += "?";
      }
      std::printf("%s %d seg %d %s (%.0f mm): said %s/%s, is %s/%s;%s\n", std::string(line["variant"]).c_str(), line["seed"].get<int>(),
                  segment["id"].get<int>(), std::string(segment["vessel"]).c_str(), segment["length_mm"].get<double>(),
                  std::string(segment["label"]).c_str(), std::string(segment["grade"]).c_str(), std::string(segment["true_label"]).c_str(),
                  std::string(segment["true_grade"]).c_str(), runs.c_str());
    }
}

/// What few timelines must show: no false spasm anywhere, most spasms named and graded rightly and sized to 5 points, occlusions found.
bool holds(const std::vector<Json>& lines) {
  constexpr double least_share = 0.8, most_points = 5;
  int false_spasms = 0, spasms = 0, named = 0, graded = 0, occluded = 0, found = 0;
  std::vector<double> errors;
  for (const Json& line : lines)
    for (const Json& segment : line["segments"]) {
      const std::string truth = segment["true_label"], label = segment["label"];
      if (segment["borderline"].get<bool>() || is_hidden(segment) || segment["passed_by"].get<bool>()) continue;
      false_spasms += truth == "no change" && is_spasm(label);
      for (const Json& run : segment["runs"])
        if (is_spasm(truth) && run["known"].get<bool>() && run["true_percent"].get<double>() >= 30 &&
            run["true_least_mm"].get<double>() >= 0.4)
          errors.push_back(std::abs(run["percent"].get<double>() - run["true_percent"].get<double>()));
      spasms += is_spasm(truth);
      named += is_spasm(truth) && label == truth;
      graded += is_spasm(truth) && segment["grade"] == segment["true_grade"];
      occluded += truth == "occlusion";
      found += truth == "occlusion" && label == truth;
    }
  const double median = errors.empty() ? 0 : middle_of(errors);
  // Of few, one may be missed.
  const auto enough = [&](int right, int of) { return of - right <= std::max(1.0, (1 - least_share) * of); };
  const bool holds =
      false_spasms == 0 && enough(named, spasms) && enough(graded, spasms) && enough(found, occluded) && median <= most_points;
  std::printf("\ncheck: false spasm %d, spasm named %d and graded %d of %d, occlusion %d of %d, median error %.1f points: %s\n",
              false_spasms, named, graded, spasms, found, occluded, median, holds ? "holds" : "fails");
  return holds;
}

int run(const Options& options) {
  std::vector<Json> lines;
  std::set<std::pair<std::string, int>> done;
  {
    std::ifstream file(options.file);
    for (std::string text; std::getline(file, text);) {
      Json line = Json::parse(text, nullptr, false);
      if (line.is_discarded()) continue;  // broken off while it was written
      if (line["side"] != options.side || line["frames"] != options.frames) continue;
      done.emplace(line["variant"].get<std::string>(), line["seed"].get<int>());
      lines.push_back(std::move(line));
    }
  }
  if (!options.only_tables) {
    std::ofstream file(options.file, std::ios::app);
    if (!file) throw std::runtime_error(options.file + ": can't be written");
    for (int i = 0; i < options.timelines; ++i)
      for (const std::string& variant : options.variants) {
        const int seed = options.first_seed + i;
        if (done.count({variant, seed})) continue;
        Json line = make_timeline(options, variant, seed);
        file << line.dump() << "\n" << std::flush;
        std::fprintf(stderr, "%s %d\n", variant.c_str(), seed);
        lines.push_back(std::move(line));
      }
  }
  if (options.list) list_errors(lines);
  label_tables(lines);
  false_finding_table(lines);
  occlusion_table(lines);
  roc_table(lines);
  const std::vector<bench::Reliability> curves = reliability_of(lines);
  reliability_table(curves);
  if (!options.plot.empty())
    bench::write_reliability_page(curves,
                                  "Narrowings of the phantom's clinical cases, all runs but the first, of " + std::to_string(lines.size()) +
                                      " timelines of seven runs",
                                  options.plot);
  return options.check && !holds(lines) ? 1 : 0;
}

}  // namespace
}  // namespace cinelumen

int main(int argc, char** argv) {
  using namespace cinelumen;
  CLI::App app("Clinical cases of the phantom, compared and held against their truth; taken up again where it was broken off.");
  Options options;
  options.variants = phantom_case_variants();
  app.add_option("--variants", options.variants, "Which; default all")->delimiter(',')->check(CLI::IsMember(phantom_case_variants()));
  app.add_option("--timelines", options.timelines, "Of each variant")->capture_default_str();
  app.add_option("--first-seed", options.first_seed, "Seeds count up from it")->capture_default_str();
  app.add_option("--side", options.side, "Rows and columns")->capture_default_str();
  app.add_option("--frames", options.frames, "Per run")->capture_default_str();
  app.add_option("--file", options.file, "Where timelines are kept, one line each")->capture_default_str();
  app.add_option("--plot", options.plot, "Where the reliability diagrams go, a page (HTML)");
  app.add_flag("--tables", options.only_tables, "Tables of what the file holds, no more timelines");
  app.add_flag("--check", options.check, "Fails where spasm is said of what has none, or less is found than must be");
  app.add_flag("--list", options.list, "Also every segment that was labelled otherwise than it is");
  CLI11_PARSE(app, argc, argv);
  try {
    return run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cinelumen_timelines: %s\n", error.what());
    return 1;
  }
}
