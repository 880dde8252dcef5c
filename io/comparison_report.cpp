#include "io/comparison_report.h"

namespace cinelumen {

std::string comparison_report(const Comparison&, const std::vector<ComparedRun>&, const std::vector<std::string>&) { return ""; }

}  // namespace cinelumen
