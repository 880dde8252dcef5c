#include "io/comparison_results.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "support/fabricated_case.h"

namespace cinelumen {
namespace {

using nlohmann::json;

class ComparisonResults : public testing::Test {
 protected:
  test::FabricatedCase made;
  json root() const { return json::parse(comparison_json(made.comparison, made.runs, made.folders)); }
};

TEST_F(ComparisonResults, HasWhatTheContractNames) {
  const json written = root();
  EXPECT_EQ(written["schema"], "cinelumen.comparison/1");
  for (const json& run : written["runs"])
    for (const char* key : {"index", "path", "sha256", "acquired", "event", "is_reference", "comparable", "note"})
      EXPECT_TRUE(run.contains(key)) << key;
  ASSERT_EQ(written["segments"].size(), made.comparison.segments.size());
  for (const json& segment : written["segments"]) {
    for (const char* key : {"id", "name", "at_px", "timeline", "label", "grade", "narrowing_percent", "ci95", "extent_mm", "recovery",
                            "probabilities", "reasons"})
      EXPECT_TRUE(segment.contains(key)) << key;
    ASSERT_EQ(segment["timeline"].size(), made.runs.size());
    for (const json& entry : segment["timeline"]) {
      for (const char* key : {"run", "segment", "state", "diameter_mm", "sd_mm", "percent_of_reference", "ci95", "label_then", "label_now"})
        EXPECT_TRUE(entry.contains(key)) << key;
      EXPECT_TRUE((std::set<std::string>{"measured", "not filled", "occluded", "out of view"}.count(entry["state"])));
    }
  }
  EXPECT_EQ(written["summary"]["spasm_extent"], made.comparison.summary.spasm_extent);
  EXPECT_EQ(written["summary"]["response"], made.comparison.summary.response);
}

TEST_F(ComparisonResults, SaysOfEachRunWhatItsFlowShows) {
  const json runs = root()["runs"];
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const FlowSummary& flow = made.runs[static_cast<std::size_t>(made.comparison.runs[r].given)].analysis.flow;
    const json& written = runs[r]["flow"];
    EXPECT_EQ(written["arch_filled"], flow.arch_filled ? json(*flow.arch_filled) : json(nullptr)) << r;
    EXPECT_EQ(written["steal_fraction"].is_null(), !flow.steal_fraction) << r;
    EXPECT_EQ(written["early_venous_return"], flow.early_venous_return) << r;
  }
}

TEST_F(ComparisonResults, ALowerBoundIsMarked) {
  bool marked = false;
  for (SegmentTimeline& segment : made.comparison.segments)
    for (TimelineEntry& entry : segment.entries)
      if (!entry.change.narrowings.empty()) entry.change.narrowings.front().at_least = marked = true;
  ASSERT_TRUE(marked) << "the case has narrowings";
  EXPECT_NE(root().dump().find("\"at_least\":true"), std::string::npos);
}

TEST_F(ComparisonResults, WithoutACalibrationNothingIsInMillimetres) {
  made.comparison.calibrated = false;
  const auto is_mm = [](const std::string& key) { return key.size() > 3 && key.compare(key.size() - 3, 3, "_mm") == 0; };
  std::size_t seen = 0;
  const auto look = [&](const auto& self, const json& value) -> void {
    for (const auto& [key, inside] : value.items())
      if (inside.is_structured())
        self(self, inside);
      else if (value.is_object() && is_mm(key)) {
        ++seen;
        EXPECT_TRUE(inside.is_null()) << key << " " << inside;
      }
  };
  look(look, root()["segments"]);
  EXPECT_GE(seen, made.comparison.segments.size() * made.runs.size());
}

TEST_F(ComparisonResults, OneRowPerSegmentAndRun) {
  const std::string text = comparison_csv(made.comparison, made.runs);
  const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  EXPECT_EQ(lines, 1 + made.runs.size() * made.comparison.segments.size());
}

}  // namespace
}  // namespace cinelumen
