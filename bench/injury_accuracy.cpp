#include "bench/injury_accuracy.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <string>

#include "engine/phantom/phantom.h"
#include "engine/vessel_injury.h"
#include "support/upper_limit.h"

namespace cinelumen {
namespace {

using Json = nlohmann::ordered_json;
using namespace cinelumen::test;

/// Scenes with veins that fill, wash out, overlap and move.
constexpr const char* uninjured[] = {"foot", "steal", "spasm", "motion-nonrigid", "devices", "overlap"};

struct Count {
  int there = 0, found = 0, elsewhere = 0;
};

double away_mm(const PhantomStain& stain, const Finding& finding, double mm_per_px) {
  return mm_per_px * std::hypot(stain.y_px - finding.at_px[0], stain.x_px - finding.at_px[1]);
}

/// Findings of injuries against the stains that are there, in the mask's coordinates of a patient who hardly moves.
void judge(const PhantomTruth& truth, const Analysis& analysis, std::map<std::string, Count>& counts) {
  constexpr double same_place_mm = 4;
  for (const char* kind : {"extravasation", "dissection"}) {
    std::vector<const Finding*> said;
    for (const Finding& finding : analysis.findings)
      if (injury_of(finding) == kind) said.push_back(&finding);
    Count& count = counts[kind];
    for (const PhantomStain& stain : truth.stains) {
      if (stain.kind != kind || std::isnan(stain.onset_ms)) continue;
      ++count.there;
      const auto at = std::find_if(said.begin(), said.end(),
                                   [&](const Finding* finding) { return away_mm(stain, *finding, truth.mm_per_px) < same_place_mm; });
      if (at == said.end()) continue;
      ++count.found;
      said.erase(at);
    }
    count.elsewhere += static_cast<int>(said.size());
  }
}

}  // namespace

Json measure_injuries(const InjurySeries& series) {
  Json result = Json::array();
  std::printf(
      "| scenario | runs | extravasations found | dissections found | named where there is none | runs with such, upper 95 %% limit |\n");
  std::printf("|---|---|---|---|---|---|\n");
  const auto measure = [&](const std::string& scenario) {
    std::map<std::string, Count> counts;
    int wrong_runs = 0;
    for (int i = 0; i < series.runs; ++i) {
      PhantomOptions options;
      options.scenario = scenario;
      options.rows = options.columns = series.side;
      options.seed = static_cast<std::uint64_t>(series.first_seed + i);
      const PhantomRun phantom = make_phantom(options);
      const int before = counts["extravasation"].elsewhere + counts["dissection"].elsewhere;
      judge(phantom.truth, analyze(Stream::cpu(), make_run(phantom), {}), counts);
      wrong_runs += counts["extravasation"].elsewhere + counts["dissection"].elsewhere > before;
    }
    const Count &leaks = counts["extravasation"], &flaps = counts["dissection"];
    const double upper = upper_limit(wrong_runs, series.runs);
    std::printf("| %s | %d | %d of %d | %d of %d | %d, %d | %d, %.1f %% |\n", scenario.c_str(), series.runs, leaks.found, leaks.there,
                flaps.found, flaps.there, leaks.elsewhere, flaps.elsewhere, wrong_runs, 100 * upper);
    std::fflush(stdout);
    result.push_back({{"scenario", scenario},
                      {"runs", series.runs},
                      {"extravasations", leaks.there},
                      {"extravasations_found", leaks.found},
                      {"dissections", flaps.there},
                      {"dissections_found", flaps.found},
                      {"wrong", leaks.elsewhere + flaps.elsewhere},
                      {"wrong_runs", wrong_runs},
                      {"wrong_runs_upper_limit", upper}});
  };
  measure("injury");
  for (const char* scenario : uninjured) measure(scenario);
  return result;
}

}  // namespace cinelumen
