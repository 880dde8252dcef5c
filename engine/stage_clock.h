#pragma once
/// Where the time of a run goes.

#include <chrono>
#include <map>
#include <string>

namespace cinelumen {

/// Adds up wall time by stage. One clock per thread of work; merge() them at the end.
class StageClock {
 public:
  /// Adds the time of its own life to a stage.
  class Span {
   public:
    Span(StageClock& clock, const char* stage) : clock_(clock), stage_(stage), start_(std::chrono::steady_clock::now()) {}
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;
    ~Span() {
      const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start_;
      clock_.stages_[stage_] += spent.count();
    }

   private:
    StageClock& clock_;
    const char* stage_;
    std::chrono::steady_clock::time_point start_;
  };

  [[nodiscard]] Span measure(const char* stage) { return Span(*this, stage); }
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
};

}  // namespace cinelumen
