/// The whole chain on phantoms whose truth is known. Seeds here are not those the methods were developed on.

#include "engine/analysis.h"

#include <gtest/gtest.h>

#include "support/matching.h"

namespace cinelumen {
namespace {

PhantomRun phantom_of(const char* scenario, int side, std::uint64_t seed, std::optional<int> frames = {}) {
  PhantomOptions options;
  options.scenario = scenario;
  options.rows = options.columns = side;
  options.seed = seed;
  options.frames = frames;
  return make_phantom(options);
}

TEST(Analysis, TubesAreMeasuredWithHonestErrorBars) {
  const PhantomRun phantom = phantom_of("tubes", 512, 7001);
  const cinelumen::Run run = make_run(phantom);
  std::vector<test::DiameterBin> bins = {{1, 2, {}, {}}, {2, 3, {}, {}}, {3, 4.01, {}, {}}};
  test::DiameterObserver observer(phantom.truth, bins);
  const Analysis analysis = analyze(Stream::cpu(), run, {}, &observer);
  observer.finish(analysis);
  EXPECT_EQ(analysis.subtraction.mask.source, MaskSource::automatic);
  for (int frame : analysis.subtraction.mask.frames) EXPECT_LT(frame, phantom.truth.first_contrast_frame);
  EXPECT_FALSE(analysis.subtraction.moving_vessels);
  EXPECT_LE(test::compare_motion(analysis, phantom.truth).shift_rms_px, 0.07);
  const test::CentrelineFigures lines = test::compare_centrelines(analysis, phantom.truth, 0.8);
  EXPECT_GE(lines.recall, 0.95);
  EXPECT_GE(lines.precision, 0.95);
  EXPECT_LE(lines.error_rms_px, 0.15);
  double covered = 0, count = 0;
  for (const test::DiameterBin& bin : bins) {
    const test::ErrorFigures single = bin.single.figures(), pooled = bin.pooled.figures();
    ASSERT_GT(single.count, 300) << bin.from_mm << " mm";
    EXPECT_LE(std::abs(single.bias), 0.05) << bin.from_mm << " mm";
    EXPECT_LE(std::abs(pooled.bias), 0.05) << bin.from_mm << " mm";
    covered += single.coverage * single.count;
    count += single.count;
  }
  EXPECT_GE(covered / count, 0.85);
  EXPECT_NEAR(analysis.calibration.mm_per_px, phantom.truth.mm_per_px, 1e-6);
  EXPECT_EQ(analysis.calibration.source, CalibrationSource::geometry);
}

TEST(Analysis, TheFootsVeinsAreFound) {
  const PhantomRun phantom = phantom_of("foot", 512, 7002, 40);
  const cinelumen::Run run = make_run(phantom);
  const Analysis analysis = analyze(Stream::cpu(), run, {});
  EXPECT_FALSE(analysis.subtraction.moving_vessels) << analysis.subtraction.topology_note;
  EXPECT_LE(test::compare_motion(analysis, phantom.truth).shift_rms_px, 0.07);
  const test::CentrelineFigures lines = test::compare_centrelines(analysis, phantom.truth, 0.8);
  EXPECT_GE(lines.recall, 0.90);
  EXPECT_GE(lines.precision, 0.93);
  EXPECT_LE(lines.clear_error_rms_px, 0.15);
  // Contrast comes down the leg: what is further away fills later.
  int timed = 0;
  for (const SegmentResult& segment : analysis.segments) timed += segment.flow.times.arrival_ms.has_value();
  EXPECT_GE(timed, 10);
  EXPECT_FALSE(analysis.flow.inlet.empty());
}

TEST(Analysis, ResultsDoNotDependOnTheNumberOfThreads) {
  const PhantomRun phantom = phantom_of("tubes", 192, 7003, 14);
  const cinelumen::Run run = make_run(phantom);
  std::vector<Analysis> results;
  for (int threads : {1, 2, 3}) {
    set_cpu_threads(threads);
    results.push_back(analyze(threads == 1 ? Stream::cpu({.parallel = false}) : Stream::cpu(), run, {}));
  }
  set_cpu_threads(0);
  for (std::size_t r = 1; r < results.size(); ++r) {
    ASSERT_EQ(results[r].segments.size(), results[0].segments.size());
    for (std::size_t s = 0; s < results[0].segments.size(); ++s) {
      const auto &a = results[0].segments[s].profile.points, &b = results[r].segments[s].profile.points;
      ASSERT_EQ(a.size(), b.size());
      for (std::size_t i = 0; i < a.size(); ++i) {
        ASSERT_EQ(a[i].diameter_px, b[i].diameter_px) << "segment " << s << " point " << i;
        ASSERT_EQ(a[i].sd_px, b[i].sd_px);
      }
    }
    for (int y = 0; y < 192; ++y)
      for (int x = 0; x < 192; ++x) ASSERT_EQ(results[0].maximum_opacification(y, x), results[r].maximum_opacification(y, x));
  }
}

TEST(Analysis, WithoutContrastNothingIsClaimed) {
  PhantomOptions options;
  options.scenario = "tubes";
  options.rows = options.columns = 128;
  options.frames = 8;
  options.contrast_free_frames = 8;
  const PhantomRun phantom = make_phantom(options);
  const cinelumen::Run run = make_run(phantom);
  const Analysis analysis = analyze(Stream::cpu(), run, {});
  for (const SegmentResult& segment : analysis.segments) EXPECT_NE(segment.filling, "filled");
  for (const Finding& finding : analysis.findings) EXPECT_NE(finding.label, "narrowing");
}

TEST(Analysis, OneFrame) {
  const PhantomRun phantom = phantom_of("tubes", 192, 7004, 14);
  const cinelumen::Run run = make_run(phantom);
  AnalysisOptions options;
  options.first_frame = options.last_frame = 12;
  const Analysis analysis = analyze(Stream::cpu(), run, options);
  EXPECT_FALSE(analysis.subtracted);
  EXPECT_EQ(analysis.subtraction.mask.source, MaskSource::none);
  EXPECT_GE(analysis.segments.size(), 3u);
  EXPECT_TRUE(analysis.time_to_peak_ms.empty());
}

TEST(Analysis, ConstantAndSaturatedFramesGiveNothing) {
  for (const std::uint16_t value : {std::uint16_t{0}, std::uint16_t{1000}, std::uint16_t{4095}}) {
    PhantomRun phantom = phantom_of("tubes", 64, 1, 6);
    for (Image<std::uint16_t>& frame : phantom.frames)
      for (int y = 0; y < 64; ++y)
        for (int x = 0; x < 64; ++x) frame(y, x) = value;
    const Analysis analysis = analyze(Stream::cpu(), make_run(phantom), {});
    EXPECT_TRUE(analysis.segments.empty()) << "value " << value;
    for (int y = 0; y < 64; ++y)
      for (int x = 0; x < 64; ++x) ASSERT_TRUE(std::isfinite(analysis.maximum_opacification(y, x))) << "value " << value;
  }
}

TEST(Analysis, WrongFramesAreNamed) {
  const PhantomRun phantom = phantom_of("tubes", 64, 1, 6);
  AnalysisOptions options;
  options.first_frame = 4;
  options.last_frame = 9;
  try {
    (void)analyze(Stream::cpu(), make_run(phantom), options);
    FAIL() << "frames 5-10 of 6 were accepted";
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("5-10"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace cinelumen
