#pragma once
/// What `analyze` and `stream` read alike from the command line.

#include <string>

#include "kernels/vesselness.h"

namespace cinelumen {

/// "frangi", "sato", "jerman", anything else: noise-calibrated.
VesselnessResponse parse_response(const std::string& name);

/// "auto", "cpu", "cuda" or "cuda:N" as a CUDA device, -1 for the CPU. `automatic`: it was "auto". Throws std::invalid_argument.
int parse_device(const std::string& text, bool& automatic);

}  // namespace cinelumen
