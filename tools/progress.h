#pragma once
/// A progress bar on stderr, where that is a terminal.

#include <chrono>
#include <string>

namespace cinelumen {

/// Draws on stderr, or keeps silent.
class ProgressBar {
 public:
  /// shown: false keeps it silent.
  explicit ProgressBar(bool shown) : shown_(shown) {}
  ~ProgressBar() { clear(); }
  /// Draws `done` of `total` steps of `stage`, ten times a second at most.
  void show(const std::string& stage, int done, int total);
  /// Takes the bar off the terminal, before anything else is printed.
  void clear();

 private:
  bool shown_, drawn_ = false;
  std::string stage_;
  std::chrono::steady_clock::time_point last_{};
};

/// True where stderr is a terminal that can be drawn on.
bool stderr_is_terminal();

}  // namespace cinelumen
