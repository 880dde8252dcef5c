/// The whole chain, from stored frames in memory to diameters: decoding and writing are not in it.

#include <benchmark/benchmark.h>

#include "engine/analysis.h"
#include "engine/phantom/phantom.h"

namespace cinelumen {
namespace {

// A foot run of 32 frames, made once per size.
const Run& foot(int side) {
  static std::map<int, std::pair<PhantomRun, Run>> made;
  auto found = made.find(side);
  if (found == made.end()) {
    PhantomOptions options;
    options.scenario = "foot";
    options.rows = options.columns = side;
    options.frames = 32;
    PhantomRun phantom = make_phantom(options);
    Run run = make_run(phantom);
    found = made.emplace(side, std::pair(std::move(phantom), std::move(run))).first;
  }
  return found->second.second;
}

// Observes nothing: results are measured, not written.
void analysis_bench(benchmark::State& state, bool every_frame) {
  const int side = static_cast<int>(state.range(0)), threads = static_cast<int>(state.range(1));
  const Run& run = foot(side);
  set_cpu_threads(threads);
  const Stream stream = threads == 1 ? Stream::cpu({.parallel = false}) : Stream::cpu();
  AnalysisOptions options;
  options.topology_every_frame = every_frame;
  Analysis analysis;
  for (auto _ : state) analysis = analyze(stream, run, options);
  if (analysis.segments.size() < 5) state.SkipWithError("the chain found no vessels");
  state.counters["frames/s"] = benchmark::Counter(static_cast<double>(run.frame_count()), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["segments"] = static_cast<double>(analysis.segments.size());
  for (const auto& [stage, ms] : analysis.timing.stages)
    if (stage != "decode" && stage != "write") state.counters[stage + " ms/frame"] = ms / run.frame_count();
  set_cpu_threads(0);
}

void chain(benchmark::State& state) { analysis_bench(state, false); }
void chain_with_topology_in_every_frame(benchmark::State& state) { analysis_bench(state, true); }

BENCHMARK(chain)
    ->ArgsProduct({{512, 1024, 2048}, {1, 2}})
    ->ArgNames({"side", "threads"})
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();
BENCHMARK(chain_with_topology_in_every_frame)
    ->ArgsProduct({{512, 1024}, {1, 2}})
    ->ArgNames({"side", "threads"})
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

}  // namespace
}  // namespace cinelumen
