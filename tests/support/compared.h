#pragma once
/// Runs of the phantom's clinical case, analysed and made ready to be compared.

#include <algorithm>
#include <string>

#include "engine/comparison.h"
#include "engine/phantom/clinical_case.h"

namespace cinelumen::test {

/// One run as compare_runs() takes it.
inline ComparedRun compared_run(const PhantomRun& phantom, const PhantomEvent& event, int index) {
  const Run run = make_run(phantom);
  ComparedRun result;
  result.analysis = analyze(Stream::cpu(), run, {});
  result.description = run.description;
  result.description.path = "run " + std::to_string(index + 1);
  result.geometry = run.geometry;
  result.valid = Image<std::uint8_t>(run.rows(), run.columns());
  for (int y = 0; y < run.rows(); ++y) std::fill(result.valid.row(y), result.valid.row(y) + run.columns(), std::uint8_t{1});
  result.acquired = event.acquired;
  result.event.kind = parse_event(event.event).value_or(EventKind::other);
  result.event.drug = event.drug;
  return result;
}

}  // namespace cinelumen::test
