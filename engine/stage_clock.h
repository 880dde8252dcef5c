#pragma once
/// Where the time of a run goes.

#include <chrono>
#include <map>
#include <string>

#include "engine/trace.h"

namespace cinelumen {

/// Adds up wall time by stage. One clock per thread of work; merge() them at the end. What it measures is in the trace, too.
class StageClock {
 public:
  /// Adds the time of its own life to a stage.
  class Span {
   public:
    Span(StageClock& clock, const char* stage)
        : range_(stage), clock_(clock), stage_(stage), frame_(clock.frame_), start_(Trace::Clock::now()) {}
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;
    ~Span() {
      const Trace::Clock::time_point end = Trace::Clock::now();
      clock_.stages_[stage_] += std::chrono::duration<double, std::milli>(end - start_).count();
      if (Trace::on()) Trace::add(stage_, frame_, start_, end);
    }

   private:
    ProfilerRange range_;
    StageClock& clock_;
    const char* stage_;
    int frame_;
    Trace::Clock::time_point start_;
  };

  /// `stage`: a literal.
  [[nodiscard]] Span measure(const char* stage) { return Span(*this, stage); }
  /// What is measured from now on belongs to this frame, 0-based; -1: to none.
  void set_frame(int frame) { frame_ = frame; }
  void merge(const StageClock& other) {
    for (const auto& [stage, ms] : other.stages_) stages_[stage] += ms;
  }
  /// Milliseconds by stage.
  const std::map<std::string, double>& stages() const { return stages_; }
  /// All stages but `decode` and `write`.
  double work_ms() const {
    double sum = 0;
    for (const auto& [stage, ms] : stages_)
      if (stage != "decode" && stage != "write") sum += ms;
    return sum;
  }

 private:
  std::map<std::string, double> stages_;
  int frame_ = -1;
};

}  // namespace cinelumen
