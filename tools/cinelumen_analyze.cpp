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
#include <sstream>
#include <string>

#include "engine/analysis.h"
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
  std::string run, output, trace, device = "auto", frames, roi, registration = "rigid", response = "noise-calibrated";
  int threads = 0;
  bool no_video = false;
  std::optional<double> mm_per_px, mm_per_px_sd;
  ReadOptions read;
};

/// "3-17", "5-" or "8": 1-based, inclusive.
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

/// [{"name": "wound", "polygon_px": [[y, x], ...]}, ...]
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

std::string default_folder(const std::string& run) {
  std::filesystem::path path(run);
  if (!path.has_filename()) path = path.parent_path();  // "folder/"
  std::string name = std::filesystem::is_directory(path) ? path.filename().string() : path.stem().string();
  for (char& c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == '/' || c == '%') c = '_';
  return (name.empty() || name == "." || name == ".." ? "run" : name) + "-cinelumen";
}

std::string cell(double value, int decimals) {
  if (!std::isfinite(value)) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}
std::string cell(const std::optional<double>& value, double factor, int decimals) { return value ? cell(*value * factor, decimals) : "-"; }

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
                frames.c_str(), analysis.subtraction.registration == Registration::rigid ? "rigid" : "none");
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

int analyze_run(const Options& options, const GlobalOptions& global) {
  AnalysisOptions analysis_options;
  bool automatic = false;
  int device = parse_device(options.device, automatic);
  if (!options.frames.empty()) parse_frames(options.frames, analysis_options);
  analysis_options.mm_per_px = options.mm_per_px;
  analysis_options.mm_per_px_relative_sd = options.mm_per_px_sd;
  if (options.mm_per_px_sd && !options.mm_per_px) throw std::invalid_argument("--mm-per-px-sd: expected together with --mm-per-px");
  analysis_options.registration = options.registration == "none" ? Registration::none : Registration::rigid;
  analysis_options.response = parse_response(options.response);
  if (!options.roi.empty()) analysis_options.regions = read_regions(options.roi);
  set_cpu_threads(options.threads);

  std::optional<TraceFile> trace;
  if (!options.trace.empty()) trace.emplace(options.trace);
  const Run run = [&] {
    const TraceSpan span("read the run");
    return read_run(options.run, options.read);
  }();
  if (analysis_options.last_frame >= run.frame_count() || analysis_options.first_frame >= run.frame_count())
    throw std::invalid_argument("--frames " + options.frames + ": the run has frames 1-" + std::to_string(run.frame_count()));
  ResultOptions results;
  results.folder = options.output.empty() ? default_folder(options.run) : options.output;
  results.video = !options.no_video;
  ProgressBar bar(!global.quiet && stderr_is_terminal());
  std::string last_stage;
  results.progress = [&](const std::string& stage, int done, int total) {
    bar.show(stage, done, total);
    if (global.verbose && stage != last_stage) {
      bar.clear();
      std::fprintf(stderr, "%s\n", stage.c_str());
      last_stage = stage;
    }
  };

  std::string fell_back;
  const auto run_on = [&](int on) {
    const Stream stream = on >= 0 ? Stream::cuda(on) : Stream::cpu();
    ResultWriter writer(run, analysis_options, results);
    Analysis analysis = analyze(stream, run, analysis_options, &writer);
    if (!fell_back.empty()) analysis.warnings.insert(analysis.warnings.begin(), fell_back);
    const TraceSpan span("finish the files");
    writer.finish(analysis);
    return analysis;
  };
  const Analysis analysis = [&] {
    if (device < 0 || !automatic) return run_on(device);
    try {
      return run_on(device);
    } catch (const DeviceError& error) {
      fell_back = "CUDA failed, so everything was done again on the CPU: " + std::string(error.what());
    }
    return run_on(-1);
  }();
  bar.clear();
  if (trace) trace->write();

  if (!global.quiet)
    for (const std::string& warning : analysis.warnings) std::fprintf(stderr, "warning: %s\n", clean_text(warning, 1 << 12).c_str());
  if (global.verbose) {
    for (const std::string& note : analysis.subtraction.mask.notes) std::fprintf(stderr, "mask: %s\n", clean_text(note, 1 << 12).c_str());
    std::fprintf(stderr, "vessels: %s\n", analysis.subtraction.topology_note.c_str());
    for (const auto& [stage, ms] : analysis.timing.stages) std::fprintf(stderr, "%-16s %9.1f ms\n", stage.c_str(), ms);
  }
  if (global.json)
    std::fputs(analysis_json(run, analysis).c_str(), stdout);
  else if (!global.quiet)
    print_summary(run, analysis, results.folder);
  return 0;
}

}  // namespace

VesselnessResponse parse_response(const std::string& name) {
  if (name == "frangi") return VesselnessResponse::frangi;
  if (name == "sato") return VesselnessResponse::sato;
  if (name == "jerman") return VesselnessResponse::jerman;
  return VesselnessResponse::noise_calibrated;
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
  CLI::App* analyze = app.add_subcommand("analyze", "One run: subtract, find the vessels, measure them, report");
  analyze->add_option("RUN", options->run, "A DICOM file (XA, XRF), a folder with one run's files, a video or an image sequence")
      ->required();
  analyze->add_option("--output", options->output, "Folder for the results [<name of RUN>-cinelumen]; other files in it are left alone");
  analyze->add_option("--device", options->device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  analyze->add_option("--threads", options->threads, "CPU threads, 0: all")->check(CLI::Range(0, 4096))->capture_default_str();
  analyze->add_option("--frames", options->frames, "Part of the run: A-B, A- or A, from 1");
  analyze->add_option("--roi", options->roi, R"(Regions to follow: JSON [{"name", "polygon_px": [[y, x], ...]}, ...] in mask pixels)");
  analyze->add_option("--mm-per-px", options->mm_per_px, "Calibration at the vessels; goes before the file's")->check(CLI::PositiveNumber);
  analyze->add_option("--mm-per-px-sd", options->mm_per_px_sd, "Its relative standard deviation [0.02]")->check(CLI::Range(0.0, 0.999));
  analyze->add_option("--frame-time", options->read.frame_time_ms, "Time from frame to frame in ms; goes before the file's")
      ->check(CLI::PositiveNumber);
  analyze->add_option("--spacing", options->read.spacing_mm, "mm per pixel at the vessels of a video or image sequence")
      ->check(CLI::PositiveNumber);
  analyze->add_option("--registration", options->registration, "Move the mask onto each frame: none or rigid")
      ->check(CLI::IsMember({"none", "rigid"}))
      ->capture_default_str();
  analyze->add_option("--response", options->response, "Vesselness: noise-calibrated, frangi, sato or jerman")
      ->check(CLI::IsMember({"noise-calibrated", "frangi", "sato", "jerman"}))
      ->capture_default_str();
  analyze->add_flag("--no-video", options->no_video, "Do not write overlay.mp4");
  analyze->add_option("--trace", options->trace, "Write what each thread did when: JSON for chrome://tracing or ui.perfetto.dev");
  analyze->callback([&global, &command, options] { command = [&global, options] { return analyze_run(*options, global); }; });
}

}  // namespace cinelumen
