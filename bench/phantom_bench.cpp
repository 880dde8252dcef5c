/// Making synthetic runs: geometry, bolus, exposure and truth; nothing is written.

#include "engine/phantom/phantom.h"

#include <string>

#include "bench/machine.h"

namespace cinelumen {
namespace {

void phantom(benchmark::State& state, const char* scenario) {
  PhantomOptions options;
  options.scenario = scenario;
  options.rows = options.columns = static_cast<int>(state.range(0));
  options.frames = 24;
  PhantomRun run;
  for (auto _ : state) run = make_phantom(options);
  // Verified: contrast darkens the last frame somewhere, and the first frame lies within the range of stored values.
  const PhantomSegment& segment = run.truth.segments.front();
  if (segment.filling.back().front() < 0.5f || run.truth.median_count < 50) state.SkipWithError("the phantom is empty");
  state.counters["frames/s"] = benchmark::Counter(static_cast<double>(*options.frames), benchmark::Counter::kIsIterationInvariantRate);
}

const bool registered = [] {
  for (const char* const scenario : {"tubes", "foot", "motion-nonrigid"})
    bench::register_row(
        std::string("phantom/") + scenario, [scenario](benchmark::State& state) { phantom(state, scenario); }, bench::sides_up_to(1024));
  return true;
}();

}  // namespace
}  // namespace cinelumen
