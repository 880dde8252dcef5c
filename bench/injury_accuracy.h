#pragma once
/// Extravasations and dissections: how many are suspected of those that are there, and how often where there is none.

#include <nlohmann/json.hpp>

namespace cinelumen {

/// How many runs of which seeds.
struct InjurySeries {
  int side = 512;
  int runs = 10;  ///< with injuries, and of each scenario without
  int first_seed = 50;
};

/// A table on stdout; the same figures.
nlohmann::ordered_json measure_injuries(const InjurySeries& series);

}  // namespace cinelumen
