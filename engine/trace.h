#pragma once
/// Which thread did what when: a run as a picture in time. Off unless started; then every span of StageClock and TraceSpan is kept.

#include <atomic>
#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "kernels/profiler_range.h"

namespace cinelumen {

/// The record of the whole process. Where it is off, a span pays for one load of an atomic.
class Trace {
 public:
  using Clock = std::chrono::steady_clock;

  /// One stage on one thread. `stage` is a literal.
  struct Span {
    const char* stage;
    int frame;  ///< 0-based, -1: of no frame
    int row;    ///< index into Record::rows
    Clock::time_point start, end;
  };
  /// All that was recorded. Spans of one row come in the order they ended in.
  struct Record {
    Clock::time_point start;
    std::vector<std::string> rows;  ///< names of threads
    std::vector<Span> spans;
    std::size_t left_out = 0;  ///< spans beyond the first `most_spans`
  };
  static constexpr std::size_t most_spans = std::size_t{1} << 21;  ///< some 80 MB: hours of a stream

  static bool on() { return on_.load(std::memory_order_relaxed); }
  /// Starts an empty record. Threads that have no name yet are called "worker N" as they come.
  static void start();
  /// Ends it and returns what was recorded. Spans under way are lost.
  static Record stop();
  /// Names the calling thread's row from now on; threads of the same name share a row and must not work at the same time.
  static void name_thread(const char* name);
  /// Adds a span of the calling thread.
  static void add(const char* stage, int frame, Clock::time_point start, Clock::time_point end);

 private:
  static std::atomic<bool> on_;
};

/// Records its own life as a stage, and tells it to a profiler of the device.
class TraceSpan {
 public:
  explicit TraceSpan(const char* stage, int frame = -1)
      : range_(stage), stage_(stage), frame_(frame), start_(Trace::on() ? Trace::Clock::now() : Trace::Clock::time_point{}) {}
  TraceSpan(const TraceSpan&) = delete;
  TraceSpan& operator=(const TraceSpan&) = delete;
  ~TraceSpan() {
    if (start_ != Trace::Clock::time_point{} && Trace::on()) Trace::add(stage_, frame_, start_, Trace::Clock::now());
  }

 private:
  ProfilerRange range_;
  const char* stage_;
  int frame_;
  Trace::Clock::time_point start_;
};

}  // namespace cinelumen
