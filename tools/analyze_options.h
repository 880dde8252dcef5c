#pragma once
/// What `analyze` and `stream` read alike from the command line.

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/calibration_object.h"
#include "kernels/vesselness.h"

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

}  // namespace cinelumen
