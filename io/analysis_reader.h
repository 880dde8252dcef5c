#pragma once
/// A finished analysis's folder, as far as comparing runs needs it.

#include <string>

#include "engine/comparison.h"

namespace cinelumen {

/// Whether `path` is a folder that `analyze` has finished.
bool is_analysis_folder(const std::string& path);

/// Reads analysis.json, mask.png and opacification.png of a folder that `analyze` has written: what compare_runs() uses of an analysis, and
/// no more (nothing per frame). Throws InputError, one line that names the file, the field, and what was expected.
ComparedRun read_analysis(const std::string& folder);

}  // namespace cinelumen
