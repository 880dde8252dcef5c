#pragma once
/// What a run's file says and what would be done with it, for people and for programs.

#include <string>

#include "engine/run.h"

namespace cinelumen {

/// Several lines of text. Reads no frame.
std::string describe_run(const Run& run);

/// The same as one JSON object, UTF-8, 2 spaces of indentation, a line end at its end. Unknown figures are null.
std::string describe_run_json(const Run& run);

}  // namespace cinelumen
