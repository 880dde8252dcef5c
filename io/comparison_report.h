#pragma once
/// report.html of `compare`: the timeline on one page.

#include <string>
#include <vector>

#include "engine/comparison.h"

namespace cinelumen {

/// The whole page; it loads nothing. Arguments as of comparison_json().
std::string comparison_report(const Comparison& comparison, const std::vector<ComparedRun>& runs, const std::vector<std::string>& folders);

}  // namespace cinelumen
