/// The whole chain, from stored frames in memory to diameters: decoding and writing are not in it. Throughput: frames over cores, the run
/// analysed as `analyze` does it, mask choice, noise and topology of the run included. Latency: one frame in flight, tiles over cores, as
/// `stream` does it. On CUDA every frame's transfer to the device and its figures' way back are in the time.

#include "engine/analysis.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "bench/machine.h"
#include "bench/repeated_frames.h"
#include "engine/live_analysis.h"
#include "engine/phantom/phantom.h"

namespace cinelumen {
namespace {

constexpr int short_frames = 32, long_frames = 60, sustained_frames = 300;

constexpr double sustained_frame_ms = 1000.0 / 30;

// A foot run, made once per size and length; the sustained one shares its frames with a shorter one, and comes at a cine loop's rate.
const Run& foot(int side, int frames) {
  static std::map<std::pair<int, int>, Run> made;
  const auto found = made.find({side, frames});
  if (found != made.end()) return found->second;
  if (frames > long_frames) {
    const Run& shorter = foot(side, long_frames);
    Run run = with_frames(shorter, std::make_shared<bench::RepeatedFrames>(shorter.frames, frames));
    for (int i = 0; i < frames; ++i) run.frame_times_ms.push_back(i * sustained_frame_ms);
    return made.emplace(std::pair(side, frames), std::move(run)).first->second;
  }
  PhantomOptions options;
  options.scenario = "foot";
  options.rows = options.columns = side;
  options.frames = frames;
  return made.emplace(std::pair(side, frames), make_run(make_phantom(options))).first->second;
}

// What the stages took of one thread's time; the sum over stages is the work on the whole run.
void count_stages(benchmark::State& state, const Timing& timing, int frames) {
  double all = 0;
  for (const auto& [stage, ms] : timing.stages) {
    if (stage == "decode" || stage == "write") continue;
    state.counters[stage + " ms/frame"] = ms / frames;
    all += ms;
  }
  state.counters["thread ms/frame"] = all / frames;
}

void throughput(benchmark::State& state, const Stream& stream, int frames, bool topology_in_every_frame,
                Registration registration = Registration::rigid) {
  const Run& run = foot(static_cast<int>(state.range(0)), frames);
  AnalysisOptions options;
  options.topology_every_frame = topology_in_every_frame;
  options.registration = registration;
  Analysis analysis;
  for (auto _ : state) analysis = analyze(stream, run, options);
  if (analysis.segments.size() < 5) state.SkipWithError("the chain found no vessels");
  state.counters["frames"] = frames;
  state.counters["frames/s"] = benchmark::Counter(static_cast<double>(frames), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["segments"] = static_cast<double>(analysis.segments.size());
  count_stages(state, analysis.timing, frames);
}

// A frame's time from push() to its figures, vessels known: p50, p99 and the longest over the second half of the run.
void latency(benchmark::State& state, const Stream& stream) {
  const Run& run = foot(static_cast<int>(state.range(0)), long_frames);
  Image<std::uint16_t> stored(run.rows(), run.columns());
  std::vector<double> ms;
  std::size_t segments = 0;
  for (auto _ : state) {
    LiveAnalysis live(stream, run, {});
    for (int i = 0; i < run.frame_count(); ++i) {
      run.frames->read_frame(i, stored.view());
      const auto start = std::chrono::steady_clock::now();
      segments = live.push(stored.view(), run.frame_times_ms[i]).segments.size();
      const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
      if (2 * i >= run.frame_count()) ms.push_back(spent.count());
    }
  }
  if (segments < 5) state.SkipWithError("the chain found no vessels");
  std::sort(ms.begin(), ms.end());
  state.counters["frames"] = run.frame_count();
  state.counters["frames/s"] = benchmark::Counter(run.frame_count(), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["p50 ms"] = ms[ms.size() / 2];
  state.counters["p99 ms"] = ms[(ms.size() - 1) * 99 / 100];
  state.counters["max ms"] = ms.back();
  state.counters["segments"] = static_cast<double>(segments);
}

const bool registered = [] {
  const auto add = [](const std::string& name, int frames, bool every, const std::vector<std::int64_t>& sides) {
    bench::register_on_all_devices(
        name, [=](benchmark::State& state, const Stream& stream) { throughput(state, stream, frames, every); }, sides);
  };
  add("chain/throughput", short_frames, false, bench::sides());
  add("chain/throughput_60_frames", long_frames, false, bench::sides_up_to(1024));
  add("chain/throughput_300_frames", sustained_frames, false, bench::sides_up_to(1024));
  bench::register_on_all_devices(
      "chain/throughput_300_frames_nonrigid",
      [](benchmark::State& state, const Stream& stream) { throughput(state, stream, sustained_frames, false, Registration::nonrigid); },
      bench::sides_up_to(1024));
  add("chain/throughput_with_topology_in_every_frame", long_frames, true, bench::sides_up_to(1024));
  add("chain/throughput_300_frames_with_topology_in_every_frame", sustained_frames, true, bench::sides_up_to(1024));
  bench::register_on_all_devices("chain/latency", latency, bench::sides());
  return true;
}();

}  // namespace
}  // namespace cinelumen
