#pragma once
/// Reliability of stated probabilities: how often what was said came true, as a page with diagrams.

#include <array>
#include <string>
#include <vector>

namespace cinelumen::bench {

/// Said against true, of one kind of statement, in bins of a tenth.
struct Reliability {
  static constexpr std::size_t bins = 10;
  double border_percent = 0;  ///< the statement: narrowed by more than this
  std::array<double, bins> said{}, came_true{};
  std::array<int, bins> count{};

  void add(double probability, bool is_true);
  int all() const;
  /// Mean absolute difference between what was said and what came true, over all statements.
  double calibration_error() const;
};

/// 95 % interval of a share (Wilson).
std::array<double, 2> share_interval(double events, int trials);

/// One diagram per kind of statement. `what`: a sentence that says of what. Throws OutputError where the file can't be written.
void write_reliability_page(const std::vector<Reliability>& curves, const std::string& what, const std::string& file);

}  // namespace cinelumen::bench
