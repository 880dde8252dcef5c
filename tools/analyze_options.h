#pragma once
/// What `analyze`, `compare` and `stream` do alike with the command line.

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/analysis.h"
#include "io/results.h"
#include "io/run_reader.h"
#include "kernels/stream.h"
#include "kernels/vesselness.h"
#include "tools/commands.h"

namespace cinelumen {

/// "frangi", "sato", "jerman", anything else: noise-calibrated.
VesselnessResponse parse_response(const std::string& name);

/// What is said of an object of known size, as typed.
struct ObjectOptions {
  std::optional<double> catheter_od_mm, catheter_french, marker_length_mm;
  std::string calibrate_at;
  std::vector<std::string> marker_at;
};

/// Adds --catheter-od-mm, --catheter-french, --calibrate-at, --marker-length-mm and --marker-at to a subcommand.
void add_object_options(CLI::App& command, ObjectOptions& options);

/// Reads them. Throws std::invalid_argument.
CalibrationObject parse_object(const ObjectOptions& options);

/// Adds --diameter, for parse_diameter_rule.
void add_diameter_option(CLI::App& command, std::string& diameter);

/// "auto", "cpu", "cuda" or "cuda:N" as a CUDA device, -1 for the CPU. `automatic`: it was "auto". Throws std::invalid_argument.
int parse_device(const std::string& text, bool& automatic);

/// "3-17", "5-" or "8" of --frames: 1-based, inclusive. Throws std::invalid_argument.
void parse_frames(const std::string& text, AnalysisOptions& options);

/// The regions of a --roi file: [{"name": "wound", "polygon_px": [[y, x], ...]}, ...]. Throws InputError.
std::vector<NamedRegion> read_regions(const std::string& path);

/// The name of a run's file or folder, as a folder for its results begins with it.
std::string name_for_results(const std::string& run);

/// What is asked of one run.
struct AnalysisJob {
  std::string path;
  AnalysisOptions analysis;
  ReadOptions read;
  ResultOptions results;
};

/// One run, read, analysed and written.
struct AnalysedRun {
  Run run;
  Analysis analysis;
};
/// Opens the run and looks whether it has the frames that are asked for. Throws InputError, std::invalid_argument.
Run open_run(const AnalysisJob& job);
/// Analyses what open_run() gave and writes the results; where `automatic`, on the CPU if the device fails. Throws InputError, DeviceError,
/// OutputError.
AnalysedRun run_job(const AnalysisJob& job, Run run, const Stream& stream, bool automatic);

/// Rows as a table on stdout, columns as wide as they must be, all but the first flush right.
void print_table(const std::vector<std::vector<std::string>>& rows);

/// Warnings on stderr, and where global.verbose stages and notes.
void print_notes(const Analysis& analysis, const GlobalOptions& global);

}  // namespace cinelumen
