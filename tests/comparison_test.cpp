#include "engine/comparison.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/median.h"
#include "support/compared.h"

namespace {

using namespace cinelumen;
using namespace cinelumen::test;

PhantomCase small_case(const char* variant) {
  PhantomCaseOptions options;
  options.variant = variant;
  options.base.rows = options.base.columns = 512;
  options.base.frames = 32;
  options.base.seed = 606;
  return PhantomCase(options);
}

/// The runs of a case with these numbers, 0-based.
std::vector<ComparedRun> runs_of(const PhantomCase& made, const std::vector<int>& indices) {
  std::vector<ComparedRun> runs;
  for (const int index : indices) runs.push_back(compared_run(made.run(index), made.events()[static_cast<std::size_t>(index)], index));
  return runs;
}

int labelled(const Comparison& comparison, const std::string& label) {
  int count = 0;
  for (const SegmentTimeline& segment : comparison.segments) count += segment.label == label;
  return count;
}

/// One refractory case's first three runs and the next day's, given out of order: analysed once.
class Refractory : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    runs = new std::vector<ComparedRun>(runs_of(small_case("refractory"), {4, 0, 1, 2}));
    comparison = new Comparison(compare_runs(*runs));
  }
  static void TearDownTestSuite() {
    delete comparison;
    delete runs;
  }
  static std::vector<ComparedRun>* runs;
  static Comparison* comparison;
};
std::vector<ComparedRun>* Refractory::runs = nullptr;
Comparison* Refractory::comparison = nullptr;

TEST_F(Refractory, RunsAreInTheOrderOfTime) {
  ASSERT_EQ(comparison->runs.size(), 4u);
  EXPECT_EQ(comparison->runs[0].given, 1);
  EXPECT_EQ(comparison->runs[3].given, 0);
  EXPECT_EQ(comparison->reference, 0);
  EXPECT_TRUE(comparison->runs[0].is_reference);
  EXPECT_EQ(comparison->runs[1].procedure, comparison->runs[0].procedure);
  EXPECT_NE(comparison->runs[3].procedure, comparison->runs[0].procedure);
  for (const ComparedRunSummary& run : comparison->runs) EXPECT_TRUE(run.comparable) << run.note;
}

TEST_F(Refractory, SpasmIsFoundAndSettledByTheNextDay) {
  EXPECT_GE(labelled(*comparison, "spasm, refractory"), 1);
  EXPECT_EQ(labelled(*comparison, "spasm, relieved"), 0);
  EXPECT_EQ(comparison->summary.response, "refractory");
  for (const SegmentTimeline& segment : comparison->segments)
    if (segment.label == "spasm, refractory") {
      EXPECT_EQ(segment.entries[1].label_now, "spasm, refractory");
      // A segment that other vessels hide once it is wide again has its label from those into which its spasm went on.
      if (segment.entries[3].change.known)
        EXPECT_EQ(segment.entries[3].label_now, "no change") << segment.id;
      else
        EXPECT_NE(segment.reasons.back().find("goes on in segment"), std::string::npos) << segment.id;
      EXPECT_NE(segment.grade, "none");
      EXPECT_FALSE(segment.reasons.empty());
    }
}

TEST_F(Refractory, MostSegmentsDidNotChangeByTheNextDay) {
  int unchanged = 0, measured = 0;
  for (const SegmentTimeline& segment : comparison->segments) {
    measured += segment.entries[3].change.known;
    unchanged += segment.entries[3].label_now == "no change";
    if (segment.entries[3].change.known) {
      EXPECT_LT(segment.entries[3].change.largest.probability_50, 0.5) << segment.id;
    }
  }
  EXPECT_GE(measured, 15);
  EXPECT_GE(unchanged, 0.8 * measured);
}

TEST_F(Refractory, OtherPatientsAreRefused) {
  std::string mine = (*runs)[1].description.patient_id;
  (*runs)[0].description.patient_id = "A";
  (*runs)[1].description.patient_id = "B";
  try {
    compare_runs(*runs);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("Patient ID (0010,0020) is \"B\", expected \"A\""), std::string::npos) << error.what();
  }
  ComparisonOptions forced;
  forced.force = true;
  EXPECT_FALSE(compare_runs(*runs, forced).warnings.empty());
  (*runs)[0].description.patient_id = (*runs)[1].description.patient_id = mine;
}

TEST_F(Refractory, AnotherProjectionIsNotCompared) {
  for (ComparedRun& run : *runs) run.geometry.primary_angle_deg = run.geometry.secondary_angle_deg = 0;
  (*runs)[2].geometry.primary_angle_deg = 18;
  const Comparison angled = compare_runs(*runs);
  EXPECT_FALSE(angled.runs[1].comparable);
  EXPECT_NE(angled.runs[1].note.find("18.0 degrees apart"), std::string::npos) << angled.runs[1].note;
  for (const SegmentTimeline& segment : angled.segments) EXPECT_EQ(segment.entries[1].label_now, "indeterminate");
  for (ComparedRun& run : *runs) run.geometry.primary_angle_deg.reset();
}

TEST_F(Refractory, WithoutACalibrationNothingIsNamed) {
  const Calibration kept = (*runs)[1].analysis.calibration;
  (*runs)[1].analysis.calibration = {};
  const Comparison pixels = compare_runs(*runs);
  EXPECT_FALSE(pixels.calibrated);
  for (const SegmentTimeline& segment : pixels.segments)
    EXPECT_TRUE(segment.label == "no change" || segment.label == "indeterminate" || segment.label == "not filled" ||
                segment.label == "occlusion")
        << segment.label;
  // Lengths along a vessel are pixels then, all of them.
  for (const SegmentTimeline& segment : pixels.segments)
    for (const TimelineEntry& entry : segment.entries) {
      if (entry.change.arc_mm.size() < 3) continue;
      std::vector<double> steps;
      for (std::size_t i = 1; i < entry.change.arc_mm.size(); ++i) steps.push_back(entry.change.arc_mm[i] - entry.change.arc_mm[i - 1]);
      EXPECT_LT(in_place_median(steps), 1.5 * entry.change.bin_mm) << segment.id;
      EXPECT_GE(segment.length_mm, entry.change.arc_mm.back()) << segment.id;
    }
  (*runs)[1].analysis.calibration = kept;
}

TEST_F(Refractory, WrongUse) {
  EXPECT_THROW(compare_runs({}), std::invalid_argument);
  ComparisonOptions options;
  options.reference = 9;
  EXPECT_THROW(compare_runs(*runs, options), std::invalid_argument);
}

TEST_F(Refractory, TheReferenceMayBeChosen) {
  ComparisonOptions options;
  options.reference = 0;  // the next day's, given first
  const Comparison other = compare_runs(*runs, options);
  EXPECT_EQ(other.reference, 3);
  EXPECT_GE(labelled(other, "spasm, not yet settled") + labelled(other, "spasm, refractory") + labelled(other, "indeterminate"), 2);
}

TEST(Comparison, ARunAgainstItselfHasNotChanged) {
  const PhantomCase made = small_case("null");
  std::vector<ComparedRun> runs = runs_of(made, {0, 0});
  const Comparison comparison = compare_runs(runs);
  EXPECT_NEAR(comparison.runs[1].scale_offset, 0, 0.003);
  for (const SegmentTimeline& segment : comparison.segments) {
    EXPECT_TRUE(segment.label == "no change" || segment.label == "indeterminate" || segment.label == "not filled") << segment.label;
    if (segment.entries[1].percent_of_reference) {
      EXPECT_NEAR(*segment.entries[1].percent_of_reference, 100, 1);
    }
  }
  EXPECT_EQ(comparison.summary.spasm_extent, "none");
}

}  // namespace
