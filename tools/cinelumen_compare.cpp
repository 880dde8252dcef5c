#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/comparison.h"
#include "io/analysis_reader.h"
#include "io/byte_source.h"
#include "io/comparison_report.h"
#include "io/comparison_results.h"
#include "io/events_file.h"
#include "io/output_folder.h"
#include "kernels/error.h"
#include "tools/analyze_options.h"
#include "tools/commands.h"
#include "tools/progress.h"

namespace cinelumen {
namespace {

struct Options {
  std::vector<std::string> runs, frames;
  std::string output = "comparison", events, device = "auto", registration = "rigid", roi;
  int threads = 0, reference = 0;
  bool force = false, video = false;
  std::optional<double> mm_per_px, mm_per_px_sd;
  ReadOptions read;
};

AnalysisOptions analysis_options_of(const Options& options, std::size_t run) {
  AnalysisOptions result;
  if (!options.frames.empty()) parse_frames(options.frames.size() == 1 ? options.frames.front() : options.frames[run], result);
  result.mm_per_px = options.mm_per_px;
  result.mm_per_px_relative_sd = options.mm_per_px_sd;
  if (options.mm_per_px_sd && !options.mm_per_px) throw std::invalid_argument("--mm-per-px-sd: expected together with --mm-per-px");
  result.registration = parse_registration(options.registration);
  if (!options.roi.empty()) result.regions = read_regions(options.roi);
  return result;
}

void check(const Options& options) {
  if (options.runs.size() < 2)
    throw std::invalid_argument(std::to_string(options.runs.size()) + " run given, expected two or more: compare RUN RUN...");
  if (options.frames.size() > 1 && options.frames.size() != options.runs.size())
    throw std::invalid_argument("--frames: given " + std::to_string(options.frames.size()) + " times for " +
                                std::to_string(options.runs.size()) + " runs, expected once, or once for each");
  if (options.reference < 0 || options.reference > static_cast<int>(options.runs.size()))
    throw std::invalid_argument("--reference " + std::to_string(options.reference) + ": expected 1 to " +
                                std::to_string(options.runs.size()));
}

/// A copy: the run's own goes with it.
Image<std::uint8_t> copy_of(ImageView<const std::uint8_t> image) {
  Image<std::uint8_t> result(image.height, image.width);
  for (int y = 0; y < image.height; ++y) std::copy(image.row(y), image.row(y) + image.width, result.row(y));
  return result;
}

/// "run_03"
std::string folder_name(std::size_t run) {
  char name[32];
  std::snprintf(name, sizeof name, "run_%02zu", run + 1);
  return name;
}

/// A run as it was given: opened, to be analysed into a folder of its own under the output folder, or read from a finished analysis.
struct GivenRun {
  AnalysisJob job;
  std::optional<Run> run;
  std::string folder;
};

/// All of them, before any is analysed; `compared` gets what their files say.
std::vector<GivenRun> open_runs(const Options& options, std::vector<ComparedRun>& compared) {
  std::vector<GivenRun> given;
  for (std::size_t i = 0; i < options.runs.size(); ++i) {
    const std::string& path = options.runs[i];
    if (is_analysis_folder(path)) {
      if (!options.frames.empty() && (options.frames.size() == 1 || !options.frames[i].empty()))
        throw std::invalid_argument("--frames: " + path + " is a finished analysis, expected a run");
      compared.push_back(read_analysis(path));
      given.push_back({{}, {}, std::filesystem::proximate(path, options.output).generic_string()});
      continue;
    }
    AnalysisJob job{path, analysis_options_of(options, i), options.read, {}};
    job.results.folder = std::filesystem::path(options.output) / folder_name(i);
    job.results.video = options.video;
    Run run = open_run(job);
    ComparedRun& result = compared.emplace_back();
    result.description = run.description;
    result.geometry = run.geometry;
    result.valid = copy_of(run.field.valid());
    result.acquired = run.description.acquired;
    given.push_back({std::move(job), std::move(run), folder_name(i)});
  }
  return given;
}

void analyse(std::vector<GivenRun>& given, const Options& options, const GlobalOptions& global, std::vector<ComparedRun>& compared) {
  bool automatic = false;
  const int device = parse_device(options.device, automatic);
  std::optional<Stream> stream;
  ProgressBar bar(!global.quiet && stderr_is_terminal());
  for (std::size_t i = 0; i < given.size(); ++i) {
    if (!given[i].run) continue;
    if (!stream) stream = device >= 0 ? Stream::cuda(device) : Stream::cpu();
    const std::string title = "run " + std::to_string(i + 1) + " of " + std::to_string(given.size()) + ": ";
    given[i].job.results.progress = [&](const std::string& stage, int done, int total) { bar.show(title + stage, done, total); };
    AnalysedRun done = run_job(given[i].job, std::move(*given[i].run), *stream, automatic);
    bar.clear();
    print_notes(done.analysis, global);
    compared[i].analysis = std::move(done.analysis);
  }
}

void take_events(const Options& options, std::vector<ComparedRun>& runs, std::vector<std::string>& warnings) {
  if (options.events.empty()) {
    for (ComparedRun& run : runs) run.event.note = run.description.series_description;
    return;
  }
  std::vector<std::string> sources;
  for (const ComparedRun& run : runs) sources.push_back(run.description.path);
  const Events events = read_events(options.events, options.runs, sources);
  warnings = events.warnings;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    runs[i].event = events.lines[i].event;
    if (!events.lines[i].acquired.empty()) runs[i].acquired = events.lines[i].acquired;
  }
}

std::string figure(const char* format, double value) {
  char text[48];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

void print_summary(const Comparison& comparison, const std::vector<ComparedRun>& runs, const std::string& folder) {
  std::vector<std::vector<std::string>> rows = {{"run", "acquired", "event", "comparable"}};
  for (const ComparedRunSummary& summary : comparison.runs) {
    const ComparedRun& run = runs[static_cast<std::size_t>(summary.given)];
    std::string event = to_string(run.event.kind);
    if (!run.event.drug.empty()) event += ": " + run.event.drug;
    rows.push_back({std::to_string(summary.index + 1) + " " + clean_text(run.description.path, 200),
                    run.acquired.empty() ? "-" : run.acquired, event.empty() ? "-" : event,
                    summary.is_reference ? "reference"
                    : summary.comparable ? "yes"
                                         : "no"});
  }
  print_table(rows);
  std::printf("\n");
  const std::string unit = comparison.calibrated ? " mm" : " px";
  rows = {{"segment", "reference" + unit, "label", "grade", "narrowing %", "extent" + unit, "recovery"}};
  for (const SegmentTimeline& segment : comparison.segments) {
    std::vector<double> known;
    for (const float d : segment.reference_mm)
      if (d > 0) known.push_back(d);
    std::string name = std::to_string(segment.id);
    if (segment.name != "segment " + name && !segment.name.empty()) name += " " + clean_text(segment.name, 40);
    std::nth_element(known.begin(), known.begin() + static_cast<std::ptrdiff_t>(known.size() / 2), known.end());
    rows.push_back({name, known.empty() ? "-" : figure("%.2f", known[known.size() / 2]), segment.label, segment.grade,
                    segment.narrowing_percent ? figure("%.0f", *segment.narrowing_percent) : "-",
                    segment.extent_mm && *segment.extent_mm > 0 ? figure("%.0f", *segment.extent_mm) : "-",
                    segment.recovery ? figure("%.2f", *segment.recovery) : "-"});
  }
  print_table(rows);
  const TimelineSummary& s = comparison.summary;
  std::printf("\nspasm: %s", s.spasm_extent.c_str());
  if (s.spastic_segments > 0) std::printf(", %d segments, %.0f mm; response %s", s.spastic_segments, s.spastic_mm, s.response.c_str());
  std::printf("\nreport: %s\nspasm grades are an extrapolation from the axillary vein; research software, not a medical device\n",
              (std::filesystem::path(folder) / "report.html").c_str());
}

int compare(const Options& options, const GlobalOptions& global) {
  check(options);
  set_cpu_threads(options.threads);
  // Before hours of work: whether it can be written, and whether files and events allow it.
  OutputFolder folder(options.output, {"comparison.json", "comparison.csv", "report.html"});
  std::vector<ComparedRun> runs;
  std::vector<GivenRun> given = open_runs(options, runs);
  std::vector<std::string> folders, warnings;
  for (const GivenRun& run : given) folders.push_back(run.folder);
  take_events(options, runs, warnings);
  check_same_patient(runs, options.force);
  analyse(given, options, global, runs);
  ComparisonOptions comparison_options;
  comparison_options.force = options.force;
  if (options.reference > 0) comparison_options.reference = options.reference - 1;
  Comparison comparison = compare_runs(runs, comparison_options);
  comparison.warnings.insert(comparison.warnings.begin(), warnings.begin(), warnings.end());
  const std::string json = comparison_json(comparison, runs, folders);
  folder.write("comparison.json", json);
  folder.write("comparison.csv", comparison_csv(comparison, runs));
  folder.write("report.html", comparison_report(comparison, runs, folders));
  folder.commit();
  if (!global.quiet)
    for (const std::string& warning : comparison.warnings) std::fprintf(stderr, "warning: %s\n", clean_text(warning, 1 << 12).c_str());
  if (global.json)
    std::printf("%s", json.c_str());
  else if (!global.quiet)
    print_summary(comparison, runs, options.output);
  return 0;
}

}  // namespace

void add_compare_command(CLI::App& app, const GlobalOptions& global, Command& command) {
  const auto options = std::make_shared<Options>();
  CLI::App* sub = app.add_subcommand("compare", "The same vessels over several runs: spasm, its response to a drug, stenosis, occlusion");
  sub->add_option("RUN", options->runs, "Runs as `analyze` takes them, or folders that it has finished; two or more")->required();
  sub->add_option("--events", options->events,
                  R"(What happened before each run: JSON [{"run", "event", "drug", "dose", "acquired", "note"}, ...])");
  sub->add_option("--output", options->output, "Folder for comparison.json, comparison.csv, report.html and each run's analysis")
      ->capture_default_str();
  sub->add_option("--reference", options->reference,
                  "Number of the run that calibres are compared with [the event \"reference\", else the earliest]");
  sub->add_flag("--force", options->force, "Compare runs that seem to be of different patients or body parts");
  sub->add_option("--frames", options->frames, "Part of the runs: A-B, A- or A, from 1; once for all, or once for each")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->expected(1);
  sub->add_option("--device", options->device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  sub->add_option("--threads", options->threads, "CPU threads, 0: all")->check(CLI::Range(0, 4096))->capture_default_str();
  sub->add_option("--roi", options->roi, R"(Regions to follow: JSON [{"name", "polygon_px": [[y, x], ...]}, ...] in mask pixels)");
  sub->add_option("--mm-per-px", options->mm_per_px, "Calibration of all runs at the vessels; goes before the files'")
      ->check(CLI::PositiveNumber);
  sub->add_option("--mm-per-px-sd", options->mm_per_px_sd, "Its relative standard deviation [0.02]")->check(CLI::Range(0.0, 0.999));
  sub->add_option("--frame-time", options->read.frame_time_ms, "Time from frame to frame in ms; goes before the files'")
      ->check(CLI::PositiveNumber);
  sub->add_option("--spacing", options->read.spacing_mm, "mm per pixel at the vessels of videos or image sequences")
      ->check(CLI::PositiveNumber);
  sub->add_option("--registration", options->registration, "Within each run: none, rigid or nonrigid")
      ->check(CLI::IsMember({"none", "rigid", "nonrigid"}))
      ->capture_default_str();
  sub->add_flag("--video", options->video, "Write each analysis's overlay.mp4 too");
  sub->callback([&global, &command, options] { command = [&global, options] { return compare(*options, global); }; });
}

}  // namespace cinelumen
