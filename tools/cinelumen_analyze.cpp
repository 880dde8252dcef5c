#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "engine/analysis.h"
#include "engine/batch.h"
#include "io/byte_source.h"
#include "io/output_folder.h"
#include "io/results.h"
#include "io/run_reader.h"
#include "io/trace_file.h"
#include "kernels/error.h"
#include "tools/analyze_options.h"
#include "tools/commands.h"
#include "tools/progress.h"

namespace cinelumen {
namespace {

struct Options {
  std::vector<std::string> runs;
  std::string output, trace, device = "auto", frames, roi, registration = "rigid", response = "noise-calibrated", diameter = "fit";
  int threads = 0;
  bool no_video = false;
  std::optional<double> mm_per_px, mm_per_px_sd;
  ObjectOptions object;
  ReadOptions read;
};

std::string cell(double value, int decimals) {
  if (!std::isfinite(value)) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}
std::string cell(const std::optional<double>& value, double factor, int decimals) { return value ? cell(*value * factor, decimals) : "-"; }

void print_summary(const Run& run, const Analysis& analysis, const std::filesystem::path& folder) {
  const Calibration& c = analysis.calibration;
  const bool calibrated = c.known();
  const double scale = calibrated ? c.mm_per_px : 1;
  const std::string unit = calibrated ? "mm" : "px";
  std::printf("%s: %d x %d px, %d of %d frames, on %s\n", clean_text(run.description.path).c_str(), analysis.columns, analysis.rows,
              analysis.frames, run.frame_count(), analysis.device.c_str());
  if (analysis.subtracted) {
    std::string frames;
    for (const int frame : analysis.subtraction.mask.frames()) frames += (frames.empty() ? "" : ",") + std::to_string(frame + 1);
    std::printf("mask: %s%s%s, registration %s\n", to_string(analysis.subtraction.mask.source), frames.empty() ? "" : ", frames ",
                frames.c_str(), to_string(analysis.subtraction.registration));
  } else {
    std::printf("mask: none, nothing was subtracted\n");
  }
  if (calibrated)
    std::printf("calibration: %.4f mm/px +- %.1f %% (%s)\n\n", c.mm_per_px, 100 * c.relative_sd, to_string(c.source));
  else
    std::printf("calibration: none, lengths are in pixels\n\n");
  if (analysis.segments.empty()) {
    std::printf("no vessel stands out of the noise\n");
  } else {
    std::vector<std::vector<std::string>> rows = {
        {"segment", "length " + unit, "diameter " + unit, "minimum " + unit, "stenosis %", "arrival s", "peak s", "filling"}};
    const int decimals = 2;
    for (const SegmentResult& segment : analysis.segments) {
      const SegmentDiameter& d = segment.diameter;
      std::string name = std::to_string(segment.id);
      if (!segment.name.empty() && segment.name != "segment " + name) name += " " + clean_text(segment.name, 40);
      rows.push_back(
          {name, cell(segment.length, 1),
           d.median && d.sd ? cell(d.median, scale, decimals) + " +- " + cell(d.sd, scale, decimals + 1) : cell(d.median, scale, decimals),
           cell(d.minimum, scale, decimals), cell(d.percent_stenosis, 1, 0), cell(segment.flow.times.arrival_ms, 1e-3, 2),
           cell(segment.flow.times.time_to_peak_ms, 1e-3, 2), segment.filling});
    }
    print_table(rows);
  }
  for (const Finding& finding : analysis.findings) {
    std::printf("%s%s%s", finding.segment > 0 ? ("segment " + std::to_string(finding.segment) + ": ").c_str() : "", finding.label.c_str(),
                finding.grade.empty() ? "" : (", " + finding.grade).c_str());
    if (finding.narrowing_percent) std::printf(", %.0f %%", *finding.narrowing_percent);
    std::printf("\n");
  }
  const auto write = analysis.timing.stages.find("write");
  std::printf("\n%.1f s on %d threads; %.1f s of one thread's time went into writing\n", analysis.timing.total / 1000, analysis.threads,
              write == analysis.timing.stages.end() ? 0 : write->second / 1000);
  std::printf("report: %s\n", (folder / "report.html").c_str());
  std::printf("research software, not a medical device\n");
}

/// One run's way from the file to its results.
struct Job {
  std::string path, folder;
  AnalysedRun done;
  std::string failure;  // of several: why this one could not be read
};

std::vector<Job> jobs_of(const Options& options) {
  std::vector<Job> jobs;
  std::set<std::string> folders;
  for (const std::string& path : options.runs) {
    std::string folder = name_for_results(path) + "-cinelumen";
    if (!options.output.empty())
      folder = options.runs.size() == 1 ? options.output : (std::filesystem::path(options.output) / folder).string();
    if (!folders.insert(folder).second) throw std::invalid_argument(path + ": another run's results go to " + folder + ", too");
    jobs.push_back({path, folder, {}, {}});
  }
  return jobs;
}

/// Where runs are worked on at the same time: the CPU (-1), one CUDA device, or all of them.
std::vector<int> devices_for(const Options& options, bool& automatic) {
  const bool all = options.device == "cuda:all";
  const int device = parse_device(all ? "cuda" : options.device, automatic);
  if (!all && !(automatic && device >= 0 && options.runs.size() > 1)) return {device};
  std::vector<int> devices;
  for (int i = 0; i < std::max(cuda_device_count(), 1); ++i) devices.push_back(i);
  return devices;
}

AnalysisOptions analysis_options_of(const Options& options) {
  AnalysisOptions result;
  if (!options.frames.empty()) parse_frames(options.frames, result);
  result.mm_per_px = options.mm_per_px;
  result.mm_per_px_relative_sd = options.mm_per_px_sd;
  if (options.mm_per_px_sd && !options.mm_per_px) throw std::invalid_argument("--mm-per-px-sd: expected together with --mm-per-px");
  result.registration = parse_registration(options.registration);
  result.object = parse_object(options.object);
  result.diameter = parse_diameter_rule(options.diameter);
  result.response = parse_response(options.response);
  if (!options.roi.empty()) result.regions = read_regions(options.roi);
  return result;
}

// Those that were analysed; as JSON one object, of several an array.
void print_results(const std::vector<Job>& jobs, bool several, const GlobalOptions& global) {
  const char* before = several ? "[" : "";
  for (const Job& job : jobs) {
    if (!job.failure.empty()) continue;
    print_notes(job.done.analysis, global);
    if (global.json)
      std::printf("%s%s", before, analysis_json(job.done.run, job.done.analysis).c_str());
    else if (!global.quiet)
      print_summary(job.done.run, job.done.analysis, job.folder);
    before = ",\n";
  }
  if (global.json && several) std::printf("%s]\n", *before == '[' ? before : "");
}

int analyze_runs(const Options& options, const GlobalOptions& global) {
  bool automatic = false;
  const std::vector<int> devices = devices_for(options, automatic);
  const AnalysisOptions analysis_options = analysis_options_of(options);
  std::vector<Job> jobs = jobs_of(options);
  const bool several = jobs.size() > 1;
  set_cpu_threads(options.threads);
  std::optional<TraceFile> trace;
  if (!options.trace.empty()) trace.emplace(options.trace);

  ResultOptions results;
  results.video = !options.no_video;
  // Runs that go side by side would write over one another's bar.
  ProgressBar bar(!several && !global.quiet && stderr_is_terminal());
  std::string last_stage;
  if (!several)
    results.progress = [&](const std::string& stage, int done, int total) {
      bar.show(stage, done, total);
      if (global.verbose && stage != last_stage) {
        bar.clear();
        std::fprintf(stderr, "%s\n", stage.c_str());
        last_stage = stage;
      }
    };

  std::vector<Stream> streams;
  for (const int device : devices) streams.push_back(device >= 0 ? Stream::cuda(device) : Stream::cpu());
  over_devices(streams, static_cast<int>(jobs.size()), [&](int item, const Stream& stream) {
    Job& job = jobs[item];
    try {
      ResultOptions own = results;
      own.folder = job.folder;
      const AnalysisJob asked{job.path, analysis_options, options.read, own};
      job.done = run_job(asked, open_run(asked), stream, automatic);
    } catch (const InputError& error) {
      if (!several) throw;
      job.failure = error.what();  // the others go on
    }
  });
  bar.clear();
  if (trace) trace->write();
  print_results(jobs, several, global);
  std::vector<std::string> failures;
  for (const Job& job : jobs)
    if (!job.failure.empty()) failures.push_back(job.failure);
  if (failures.empty()) return 0;
  for (std::size_t i = 0; i + 1 < failures.size(); ++i) std::fprintf(stderr, "cinelumen: %s\n", clean_text(failures[i], 1 << 12).c_str());
  throw InputError(failures.back());
}

}  // namespace

void parse_frames(const std::string& text, AnalysisOptions& options) {
  const auto wrong = [&] { return std::invalid_argument("--frames " + text + ": expected A-B, A- or A with 1 <= A <= B"); };
  const char *at = text.data(), *end = at + text.size();
  int first = 0, last = 0;
  auto parsed = std::from_chars(at, end, first);
  if (parsed.ec != std::errc() || first < 1) throw wrong();
  last = first;
  if (parsed.ptr != end) {
    if (*parsed.ptr != '-') throw wrong();
    at = parsed.ptr + 1;
    if (at == end) {
      last = 0;  // to the end
    } else {
      parsed = std::from_chars(at, end, last);
      if (parsed.ec != std::errc() || parsed.ptr != end || last < first) throw wrong();
    }
  }
  options.first_frame = first - 1;
  options.last_frame = last - 1;
}

std::vector<NamedRegion> read_regions(const std::string& path) {
  constexpr std::uintmax_t largest = 16u << 20;
  const auto wrong = [&](const std::string& what) {
    return InputError(path + ": " + what + R"(; expected [{"name": "wound", "polygon_px": [[y, x], [y, x], [y, x], ...]}, ...])");
  };
  const ByteSource file = ByteSource::file(path);
  if (file.size() > largest) throw wrong(std::to_string(file.size()) + " bytes are too many");
  const std::vector<std::uint8_t> bytes = file.read(0, file.size());
  const nlohmann::json list = nlohmann::json::parse(bytes.begin(), bytes.end(), nullptr, false);
  if (list.is_discarded()) throw wrong("not JSON");
  if (!list.is_array()) throw wrong("not a list");
  std::vector<NamedRegion> regions;
  for (const auto& item : list) {
    const std::string place = "region " + std::to_string(regions.size() + 1);
    if (!item.is_object() || !item.contains("name") || !item["name"].is_string()) throw wrong(place + " has no name");
    const char* key = item.contains("polygon_px") ? "polygon_px" : "polygon";
    if (!item.contains(key) || !item[key].is_array() || item[key].size() < 3)
      throw wrong(place + " has no polygon of three points or more");
    NamedRegion region{item["name"].get<std::string>(), {}};
    for (const auto& point : item[key]) {
      if (!point.is_array() || point.size() != 2 || !point[0].is_number() || !point[1].is_number()) throw wrong(place + ": not a point");
      region.polygon_px.push_back({point[0].get<double>(), point[1].get<double>()});
    }
    regions.push_back(std::move(region));
  }
  return regions;
}

std::string name_for_results(const std::string& run) {
  std::filesystem::path path(run);
  if (!path.has_filename()) path = path.parent_path();  // "folder/"
  std::string name = std::filesystem::is_directory(path) ? path.filename().string() : path.stem().string();
  for (char& c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == '/' || c == '%') c = '_';
  return name.empty() || name == "." || name == ".." ? "run" : name;
}

void print_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (widths.size() <= i) widths.push_back(0);
      widths[i] = std::max(widths[i], row[i].size());
    }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string gap(widths[i] - row[i].size(), ' ');
      line += i == 0 ? row[i] + gap : "  " + gap + row[i];
    }
    std::printf("%s\n", line.c_str());
  }
}

void print_notes(const Analysis& analysis, const GlobalOptions& global) {
  if (!global.quiet)
    for (const std::string& warning : analysis.warnings) std::fprintf(stderr, "warning: %s\n", clean_text(warning, 1 << 12).c_str());
  if (!global.verbose) return;
  for (const std::string& note : analysis.subtraction.mask.notes) std::fprintf(stderr, "mask: %s\n", clean_text(note, 1 << 12).c_str());
  std::fprintf(stderr, "vessels: %s\n", analysis.subtraction.topology_note.c_str());
  for (const auto& [stage, ms] : analysis.timing.stages) std::fprintf(stderr, "%-16s %9.1f ms\n", stage.c_str(), ms);
}

Run open_run(const AnalysisJob& job) {
  const TraceSpan span("read the run");
  Run run = read_run(job.path, job.read);
  if (job.analysis.last_frame >= run.frame_count() || job.analysis.first_frame >= run.frame_count())
    throw std::invalid_argument("--frames " + std::to_string(job.analysis.first_frame + 1) + "-" +
                                (job.analysis.last_frame < 0 ? "" : std::to_string(job.analysis.last_frame + 1)) + ": " + job.path +
                                " has frames 1-" + std::to_string(run.frame_count()));
  return run;
}

AnalysedRun run_job(const AnalysisJob& job, Run opened, const Stream& stream, bool automatic) {
  AnalysedRun result{std::move(opened), {}};
  const Run& run = result.run;
  const auto run_on = [&](const Stream& on, const std::string& warning) {
    ResultWriter writer(run, job.analysis, job.results);
    result.analysis = analyze(on, run, job.analysis, &writer);
    if (!warning.empty()) result.analysis.warnings.insert(result.analysis.warnings.begin(), warning);
    const TraceSpan span("finish the files");
    writer.finish(result.analysis);
  };
  std::string fell_back;
  if (stream.on_cuda() && automatic) {
    try {
      run_on(stream, {});
      return result;
    } catch (const DeviceError& error) {
      fell_back = "CUDA failed, so everything was done again on the CPU: " + std::string(error.what());
    }
    run_on(Stream::cpu(), fell_back);
  } else {
    run_on(stream, {});
  }
  return result;
}

VesselnessResponse parse_response(const std::string& name) {
  if (name == "frangi") return VesselnessResponse::frangi;
  if (name == "sato") return VesselnessResponse::sato;
  if (name == "jerman") return VesselnessResponse::jerman;
  return VesselnessResponse::noise_calibrated;
}

void add_object_options(CLI::App& command, ObjectOptions& options) {
  CLI::Option* od = command.add_option(
      "--catheter-od-mm", options.catheter_od_mm,
      "Calibrate on a catheter or sheath of this OUTER diameter; goes before the file's geometry. A 5F catheter is 1.67 mm. Not so an "
      "introducer: its French size is its lumen, and a 5F one is 2.2 to 2.3 mm outside");
  command.add_option("--catheter-french", options.catheter_french, "The same for a catheter (never an introducer) in French: 1F is 1/3 mm")
      ->check(CLI::Range(1.5, 12.0))
      ->excludes(od);
  command.add_option("--calibrate-at", options.calibrate_at,
                     "Where the catheter is: y,x in px of the mask, from 0 [looked for where it enters the field]");
  command.add_option("--marker-length-mm", options.marker_length_mm, "Calibrate on two markers of a device that are this far apart");
  command
      .add_option("--marker-at", options.marker_at, "Where the markers are: y,x in px of the mask, from 0; given twice, or as \"y,x;y,x\"")
      ->expected(1)
      ->delimiter(';')
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void add_diameter_option(CLI::App& command, std::string& diameter) {
  command
      .add_option(
          "--diameter", diameter,
          "How a diameter is read: fit, or to compare with, fwhm, first-derivative or mean-derivatives (biased by the point spread)")
      ->check(CLI::IsMember({"fit", "fwhm", "first-derivative", "mean-derivatives"}))
      ->capture_default_str();
}

CalibrationObject parse_object(const ObjectOptions& options) {
  const auto position = [](const char* name, const std::string& text) {
    std::array<double, 2> at{};
    const char* const end = text.data() + text.size();
    auto parsed = std::from_chars(text.data(), end, at[0]);
    const bool comma = parsed.ec == std::errc() && parsed.ptr != end && *parsed.ptr == ',';
    if (comma) parsed = std::from_chars(parsed.ptr + 1, end, at[1]);
    if (!comma || parsed.ec != std::errc() || parsed.ptr != end || !(at[0] >= 0 && at[1] >= 0 && at[0] < 1e5 && at[1] < 1e5))
      throw std::invalid_argument(std::string(name) + " " + text + ": expected y,x in px, from 0");
    return at;
  };
  CalibrationObject object;
  object.catheter_od_mm = options.catheter_od_mm;
  if (options.catheter_french) object.catheter_od_mm = *options.catheter_french / 3;
  if (!options.calibrate_at.empty()) object.catheter_at_px = position("--calibrate-at", options.calibrate_at);
  object.marker_length_mm = options.marker_length_mm;
  if (options.marker_at.size() == 2)
    object.markers_at_px = {{position("--marker-at", options.marker_at[0]), position("--marker-at", options.marker_at[1])}};
  else if (!options.marker_at.empty())
    throw std::invalid_argument("--marker-at: " + std::to_string(options.marker_at.size()) + " given, expected 2");
  check(object);
  return object;
}

int parse_device(const std::string& text, bool& automatic) {
  automatic = text == "auto";
  if (automatic) return cuda_device_count() > 0 ? 0 : -1;
  if (text == "cpu") return -1;
  if (text == "cuda") return 0;
  int number = -1;
  const char* end = text.data() + text.size();
  if (text.rfind("cuda:", 0) == 0) {
    const auto parsed = std::from_chars(text.data() + 5, end, number);
    if (parsed.ec == std::errc() && parsed.ptr == end && number >= 0) return number;
  }
  throw std::invalid_argument("--device " + text + ": expected auto, cpu, cuda or cuda:N");
}

void add_analyze_command(CLI::App& app, const GlobalOptions& global, Command& command) {
  const auto options = std::make_shared<Options>();
  CLI::App* analyze = app.add_subcommand("analyze", "A run: subtract, find the vessels, measure them, report");
  analyze
      ->add_option(
          "RUN", options->runs,
          "A DICOM file (XA, XRF), a folder with one run's files, a video or an image sequence; several: one on each device at a time")
      ->required();
  analyze->add_option(
      "--output", options->output,
      "Folder for the results [<name of RUN>-cinelumen]; other files in it are left alone. Of several runs: where their folders go");
  analyze->add_option("--device", options->device, "auto, cpu, cuda, cuda:N or cuda:all")->capture_default_str();
  analyze->add_option("--threads", options->threads, "CPU threads, 0: all")->check(CLI::Range(0, 4096))->capture_default_str();
  analyze->add_option("--frames", options->frames, "Part of the run: A-B, A- or A, from 1");
  analyze->add_option("--roi", options->roi, R"(Regions to follow: JSON [{"name", "polygon_px": [[y, x], ...]}, ...] in mask pixels)");
  analyze->add_option("--mm-per-px", options->mm_per_px, "Calibration at the vessels; goes before the file's")->check(CLI::PositiveNumber);
  analyze->add_option("--mm-per-px-sd", options->mm_per_px_sd, "Its relative standard deviation [0.02]")->check(CLI::Range(0.0, 0.999));
  add_object_options(*analyze, options->object);
  analyze->add_option("--frame-time", options->read.frame_time_ms, "Time from frame to frame in ms; goes before the file's")
      ->check(CLI::PositiveNumber);
  analyze->add_option("--spacing", options->read.spacing_mm, "mm per pixel at the vessels of a video or image sequence")
      ->check(CLI::PositiveNumber);
  analyze
      ->add_option("--registration", options->registration,
                   "Lay the mask on each frame: none, rigid (moved as a whole) or nonrigid (bent bone by bone as well)")
      ->check(CLI::IsMember({"none", "rigid", "nonrigid"}))
      ->capture_default_str();
  analyze->add_option("--response", options->response, "Vesselness: noise-calibrated, frangi, sato or jerman")
      ->check(CLI::IsMember({"noise-calibrated", "frangi", "sato", "jerman"}))
      ->capture_default_str();
  add_diameter_option(*analyze, options->diameter);
  analyze->add_flag("--no-video", options->no_video, "Do not write overlay.mp4");
  analyze->add_option("--trace", options->trace, "Write what each thread did when: JSON for chrome://tracing or ui.perfetto.dev");
  analyze->callback([&global, &command, options] { command = [&global, options] { return analyze_runs(*options, global); }; });
}

}  // namespace cinelumen
