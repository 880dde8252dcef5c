#pragma once
/// What this machine can do, so that every benchmark can say which share of it was reached.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "kernels/device_limits.h"
#include "kernels/image.h"
#include "kernels/stream.h"

namespace cinelumen::bench {

/// Shortest of `repeats` runs of `work` on the stream, in seconds. The first run, which warms up, does not count.
template <class Work>
double shortest_seconds(const Stream& stream, int repeats, Work work) {
  double best = 1e30;
  for (int i = 0; i <= repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    stream.synchronize();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    if (i > 0) best = std::min(best, time.count());
  }
  return best;
}

/// Bytes read plus bytes written per second by a plane copy far larger than the caches.
inline double measure_copy(const Stream& stream) {
  constexpr int side = 5120;  // 100 MiB a plane
  Image<float> from(stream, side, side), to(stream, side, side);
  set_zero(stream, from.view());
  // Many repeats: on a machine that others use too, the limit is what its quiet moments show.
  return 2.0 * sizeof(float) * side * side / shortest_seconds(stream, 40, [&] { copy_plane(stream, from, to); });
}

/// Floating-point operations per second of chained single-precision multiply-adds.
inline double measure_fma(const Stream& stream) {
  const int side = stream.on_cuda() ? 4096 : 256, rounds = 64;
  Image<float> output(stream, side, side);
  return 2.0 * multiply_adds_per_round * rounds * side * side /
         shortest_seconds(stream, 40, [&] { multiply_add_chains(stream, rounds, 0.999f, 0.001f, output); });
}

struct Limits {
  double copy_bytes_per_second = 0, fma_flops_per_second = 0;
};

/// The limits of the stream's device with `threads` CPU threads (ignored on CUDA), measured once a process.
inline Limits limits(const Stream& stream, int threads) {
  static std::mutex mutex;
  static std::map<std::pair<int, int>, Limits> measured;
  const std::lock_guard lock(mutex);
  const std::pair<int, int> key = {stream.cuda_device(), stream.on_cuda() ? 0 : threads};
  const auto found = measured.find(key);
  if (found != measured.end()) return found->second;
  const bool other_pool = !stream.on_cuda() && threads != 1 && threads != cpu_threads();
  if (other_pool) set_cpu_threads(threads);
  const Stream how = stream.on_cuda() ? stream : Stream::cpu({.parallel = threads != 1});
  const Limits result = {measure_copy(how), measure_fma(how)};
  if (other_pool) set_cpu_threads(0);
  return measured[key] = result;
}

/// Copy bandwidth of `threads` CPU threads (0: all), bytes read plus written per second.
inline double copy_bytes_per_second(int threads = 0) {
  return limits(Stream::cpu(), threads > 0 ? threads : cpu_threads()).copy_bytes_per_second;
}

/// Single-precision multiply-add rate of `threads` CPU threads (0: all), operations per second.
inline double fma_flops_per_second(int threads = 0) {
  return limits(Stream::cpu(), threads > 0 ? threads : cpu_threads()).fma_flops_per_second;
}

/// Adds "bytes" and "flops" of an iteration (what it must move, each input and output once; 0 flops: not given), "GB/s", and the shares of
/// the device's limits "of_copy" and "of_fma". Planes that stay in the caches can exceed 1 of_copy. Call it after the loop. In a profile
/// (CINELUMEN_BENCH_ITERATIONS) there is no time, and no share of a limit.
inline void add_limits(benchmark::State& state, const Stream& stream, double bytes, double flops = 0) {
  using benchmark::Counter;
  state.counters["bytes"] = bytes;
  if (flops > 0) state.counters["flops"] = flops;
  if (std::getenv("CINELUMEN_BENCH_ITERATIONS")) return;
  const Limits machine = limits(stream, stream.schedule().parallel ? cpu_threads() : 1);
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["of_copy"] = Counter(bytes / machine.copy_bytes_per_second, Counter::kIsIterationInvariantRate);
  if (flops > 0) state.counters["of_fma"] = Counter(flops / machine.fma_flops_per_second, Counter::kIsIterationInvariantRate);
}
/// The same for the CPU pool.
inline void add_limits(benchmark::State& state, double bytes, double flops = 0) { add_limits(state, Stream::cpu(), bytes, flops); }

/// Sides of the images of all rows: 512, 1024 and 2048 px, or CINELUMEN_BENCH_SIDES ("256,512").
inline std::vector<std::int64_t> sides() {
  const char* const asked = std::getenv("CINELUMEN_BENCH_SIDES");
  if (!asked) return {512, 1024, 2048};
  std::vector<std::int64_t> result;
  std::istringstream list(asked);
  for (std::string side; std::getline(list, side, ',');) result.push_back(std::stoll(side));
  return result;
}

/// Those of them that are not larger.
inline std::vector<std::int64_t> sides_up_to(std::int64_t largest) {
  std::vector<std::int64_t> result = sides();
  std::erase_if(result, [&](std::int64_t side) { return side > largest; });
  return result;
}

/// Registers one row, one line per value of `arguments` (sides, unless something else is varied), in ms, by processor and by real time.
/// CINELUMEN_BENCH_ITERATIONS fixes the number of iterations: a profile counts what one of them does.
template <class Body>
void register_row(const std::string& name, Body body, const std::vector<std::int64_t>& arguments = sides()) {
  auto* const row = benchmark::RegisterBenchmark(name.c_str(), body);
  for (const std::int64_t argument : arguments) row->Arg(argument);
  row->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime()->UseRealTime();
  if (const char* const iterations = std::getenv("CINELUMEN_BENCH_ITERATIONS")) row->Iterations(std::stoll(iterations));
}

/// 1, 2, 4 ... threads and all that the machine has.
inline std::vector<int> thread_counts() {
  std::vector<int> counts;
  for (int threads = 1; threads < cpu_threads(); threads *= 2) counts.push_back(threads);
  counts.push_back(cpu_threads());
  return counts;
}

/// "cpu_1_thread", "cpu_2_threads" ...: names of rows.
inline std::string cpu_name(int threads) { return "cpu_" + std::to_string(threads) + (threads == 1 ? "_thread" : "_threads"); }

/// The CPU pool with so many threads while this lives.
class CpuThreads {
 public:
  explicit CpuThreads(int threads) { set_cpu_threads(threads); }
  ~CpuThreads() { set_cpu_threads(0); }
  CpuThreads(const CpuThreads&) = delete;
  CpuThreads& operator=(const CpuThreads&) = delete;
};

/// Registers `body(state, stream)` as NAME/DEVICE on 1 ... n CPU threads and on every CUDA device. True, so that it can initialise a
/// constant.
template <class Body>
bool register_on_all_devices(const std::string& name, Body body, const std::vector<std::int64_t>& arguments = sides()) {
  for (const int threads : thread_counts())
    register_row(
        name + "/" + cpu_name(threads),
        [body, threads](benchmark::State& state) {
          const CpuThreads limit(threads);
          body(state, Stream::cpu({.parallel = threads > 1}));
        },
        arguments);
  for (int i = 0; i < cuda_device_count(); ++i)
    register_row(
        name + "/cuda" + std::to_string(i), [body, i](benchmark::State& state) { body(state, Stream::cuda(i)); }, arguments);
  return true;
}

}  // namespace cinelumen::bench
