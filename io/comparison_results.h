#pragma once
/// comparison.json, comparison.csv: what `compare` writes for programs.

#include <string>
#include <vector>

#include "engine/comparison.h"

namespace cinelumen {

/// comparison.json (schema cinelumen.comparison/1). `runs` as given to compare_runs(); `folders`: where each one's analysis lies, relative
/// to the output folder, absolute where it has no relation to that, empty: nowhere.
std::string comparison_json(const Comparison& comparison, const std::vector<ComparedRun>& runs, const std::vector<std::string>& folders);

/// comparison.csv: one row per segment and run.
std::string comparison_csv(const Comparison& comparison, const std::vector<ComparedRun>& runs);

}  // namespace cinelumen
