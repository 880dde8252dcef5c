#pragma once
/// Changes of calibre within a run: how often they are told of lumina that stay as they are, and how soon of those that narrow.

#include <nlohmann/json.hpp>

namespace cinelumen {

/// How many runs of which seeds.
struct OnsetSeries {
  int side = 512;        ///< of phantom runs
  int runs = 4;          ///< of each scene
  int simulated = 1000;  ///< runs without pictures; half as many of each narrowing
  int first_seed = 600;
};

/// Tables on stdout; the same figures.
nlohmann::ordered_json measure_onsets(const OnsetSeries& series);

}  // namespace cinelumen
