/// The whole chain on phantoms whose truth is known. Seeds here are not those the methods were developed on.

#include "engine/analysis.h"

#include <gtest/gtest.h>

#include "engine/frame_chain.h"
#include "support/matching.h"

namespace cinelumen {
namespace {

using test::phantom_of;

TEST(Analysis, TubesAreMeasuredWithHonestErrorBars) {
  const PhantomRun phantom = phantom_of("tubes", 512, 7001);
  const cinelumen::Run run = make_run(phantom);
  std::vector<test::DiameterBin> bins = {{1, 2, {}, {}}, {2, 3, {}, {}}, {3, 4.01, {}, {}}};
  test::DiameterObserver observer(phantom.truth, bins);
  const Analysis analysis = analyze(Stream::cpu(), run, {}, &observer);
  observer.finish(analysis);
  EXPECT_EQ(analysis.subtraction.mask.source, MaskSource::automatic);
  for (int frame : analysis.subtraction.mask.frames()) EXPECT_LT(frame, phantom.truth.first_contrast_frame);
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

TEST(Analysis, LongRunsMakeTheirPictureOfFramesAFewTenthsOfASecondApart) {
  std::vector<double> times;
  for (int i = 0; i < 12; ++i) times.push_back(60.0 * i);
  times.push_back(1000);
  const std::vector<bool> some = {true, false, false, true, false, false, true, false, false, true, false, false, true};
  EXPECT_EQ(frames_of_picture(times, 0, 12, 5), some);
  EXPECT_EQ(frames_of_picture(times, 0, 12, 6), std::vector<bool>(13, true));
  EXPECT_EQ(frames_of_picture(times, 3, 8, 2), (std::vector<bool>{true, false, false, true, false, false}));
  EXPECT_EQ(frames_of_picture({}, 0, 12, 1), std::vector<bool>(13, true));

  // The vessels are the same ones, and every frame is measured.
  const PhantomRun phantom = phantom_of("tubes", 256, 7005, 40);
  cinelumen::Run run = make_run(phantom);
  for (std::size_t i = 0; i < run.frame_times_ms.size(); ++i) run.frame_times_ms[i] = 1000.0 / 30 * static_cast<double>(i);
  AnalysisOptions options;
  const Analysis all = analyze(Stream::cpu(), run, options);
  options.picture_frames = 8;
  const Analysis few = analyze(Stream::cpu(), run, options);
  for (const Analysis* analysis : {&all, &few}) {
    const test::CentrelineFigures lines = test::compare_centrelines(*analysis, phantom.truth, 0.8);
    EXPECT_GE(lines.recall, 0.88);  // 256 x 256: the smallest are hardly there
    EXPECT_GE(lines.precision, 0.95);
    EXPECT_LE(lines.error_rms_px, 0.15);
    for (const SegmentResult& segment : analysis->segments) EXPECT_EQ(segment.flow.curve.contrast.size(), 40u);
  }
  ASSERT_EQ(all.segments.size(), few.segments.size());
  EXPECT_NE(all.maximum_opacification(100, 100), few.maximum_opacification(100, 100));
}

TEST(Analysis, ResultsDoNotDependOnTheNumberOfThreads) {
  const PhantomRun phantom = phantom_of("tubes", 192, 7003, 14);
  cinelumen::Run run = make_run(phantom);
  for (int i = 0; i < 14; ++i) run.frame_times_ms[static_cast<std::size_t>(i)] = 70.0 * i;  // every second one makes the picture
  std::vector<Analysis> results;
  AnalysisOptions options;
  options.picture_frames = 1;
  for (int threads : {1, 2, 3}) {
    set_cpu_threads(threads);
    results.push_back(analyze(threads == 1 ? Stream::cpu({.parallel = false}) : Stream::cpu(), run, options));
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

/// Keeps the subtracted frames as they are shown.
class ShownFrames : public AnalysisObserver {
 public:
  void progress(const std::string&, int, int) override {}
  void topology_done(const Analysis&) override {}
  void frame_done(const FrameResult& frame) override {
    Image<float> copied(frame.subtracted.height, frame.subtracted.width);
    for (int y = 0; y < copied.height(); ++y)
      for (int x = 0; x < copied.width(); ++x) copied(y, x) = frame.subtracted(y, x);
    frames.push_back(std::move(copied));
  }
  std::vector<Image<float>> frames;
};

/// Mean attenuation of frames (0-based) of a phantom at a pixel.
double mean_attenuation(const PhantomRun& phantom, const IntensityModel& intensity, const std::vector<int>& frames, int y, int x) {
  double sum = 0;
  for (const int frame : frames) sum += intensity.attenuation[phantom.frames[frame](y, x)];
  return sum / frames.size();
}

TEST(MaskModule, EachFrameIsShownAsItsItemSays) {
  using Operation = MaskInstruction::Operation;
  const PhantomRun phantom = phantom_of("tubes", 96, 7005, 16);
  cinelumen::Run run = make_run(phantom);
  MaskInstruction early, averaged, difference, reverse;
  early.operation = Operation::average_subtraction;  // frames 1-4
  early.applicable_frames = {{1, 4}};
  early.mask_frames = {1, 2};
  averaged.operation = Operation::average_subtraction;  // frames 5-9, three contrast frames averaged
  averaged.applicable_frames = {{5, 9}};
  averaged.mask_frames = {3, 4, 5};
  averaged.contrast_frame_averaging = 3;
  difference.operation = Operation::time_interval_difference;  // frames 10-12, two frames earlier
  difference.applicable_frames = {{10, 12}};
  difference.tid_offset = 2;
  reverse.operation = Operation::reverse_time_interval_difference;  // frames 13-15: 12, 11, 10; frame 16 is nobody's
  reverse.applicable_frames = {{13, 15}};
  run.mask_instructions = {early, averaged, difference, reverse};
  AnalysisOptions options;
  options.registration = Registration::none;
  ShownFrames shown;
  const Analysis analysis = analyze(Stream::cpu(), run, options, &shown);
  EXPECT_EQ(analysis.subtraction.mask.source, MaskSource::dicom);
  EXPECT_EQ(analysis.subtraction.mask.frames(), (std::vector<int>{0, 1, 2, 3, 4}));
  const IntensityModel intensity = make_intensity_model(run.intensity);
  const auto expect = [&](int frame, const std::vector<int>& contrast, const std::vector<int>& mask) {
    double worst = 0;
    for (int y = 4; y < 92; ++y)
      for (int x = 4; x < 92; ++x)
        worst = std::max(worst, std::abs(shown.frames[frame](y, x) - mean_attenuation(phantom, intensity, contrast, y, x) +
                                         mean_attenuation(phantom, intensity, mask, y, x)));
    EXPECT_LT(worst, 2e-4) << "frame " << frame + 1;
  };
  ASSERT_EQ(shown.frames.size(), 16u);
  for (const int frame : {0, 1, 2, 3}) expect(frame, {frame}, {0, 1});
  for (const int frame : {4, 5, 6, 7, 8}) expect(frame, {frame, frame + 1, frame + 2}, {2, 3, 4});
  for (const int frame : {9, 10, 11}) expect(frame, {frame}, {frame - 2});
  expect(12, {12}, {11});
  expect(13, {13}, {10});
  expect(14, {14}, {9});
  expect(15, {15}, {0, 1});
  // What was done is said: two masks, what is shown otherwise, and whose mask frames without one take.
  std::string notes;
  for (const std::string& note : analysis.subtraction.mask.notes) notes += note + "\n";
  for (const char* words :
       {"for frames 1 to 4: the average of frames 1, 2", "for frames 5 to 9: the average of frames 3 to 5", "TID for frames 10 to 12",
        "REV_TID for frames 13 to 15", "applies to frames 10 to 16", "subtracted.dcm shows frames 5 to 15"})
    EXPECT_NE(notes.find(words), std::string::npos) << words << " in\n" << notes;
}

TEST(MaskModule, MasksThatMovedAreLaidOnTheSameReference) {
  // Two masks from different times of a foot that moves: the second half of the run is measured against the second. Lumina and motion come
  // out as with one.
  const PhantomRun phantom = phantom_of("tubes", 384, 7006, 24);
  cinelumen::Run run = make_run(phantom);
  MaskInstruction first, second;
  first.operation = second.operation = MaskInstruction::Operation::average_subtraction;
  first.applicable_frames = {{1, 12}};
  first.mask_frames = {1, 2, 3};
  first.sub_pixel_shift = {0.4, -0.3};  // the registration finds it again
  second.applicable_frames = {{13, 24}};
  second.mask_frames = {7, 8};
  run.mask_instructions = {first, second};
  std::vector<test::DiameterBin> bins = {{1, 4.01, {}, {}}};
  test::DiameterObserver observer(phantom.truth, bins);
  const Analysis analysis = analyze(Stream::cpu(), run, {}, &observer);
  observer.finish(analysis);
  EXPECT_EQ(analysis.subtraction.mask.frames(), (std::vector<int>{0, 1, 2, 6, 7}));
  ASSERT_GT(bins[0].single.figures().count, 500);
  EXPECT_LE(std::abs(bins[0].single.figures().bias), 0.05);
  EXPECT_LE(std::abs(bins[0].pooled.figures().bias), 0.05);
  // An average of frames as they are lies where they lie on average; its shift moves it further.
  const PixelPosition centre{191.5, 191.5};
  PixelPosition mask{0.4, -0.3};
  for (const int frame : {0, 1, 2}) {
    const PixelPosition there = test::move_truth(phantom.truth, frame, centre);
    mask.y += there.y / 3, mask.x += there.x / 3;
  }
  double squares = 0;
  for (const FrameSubtraction& frame : analysis.subtraction.frames) {
    const PixelPosition truth = test::move_truth(phantom.truth, frame.frame, centre);
    squares += std::pow(mask.y + frame.shift_y_px - truth.y, 2) + std::pow(mask.x + frame.shift_x_px - truth.x, 2);
  }
  EXPECT_LE(std::sqrt(squares / 2 / analysis.subtraction.frames.size()), 0.07);
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

TEST(Analysis, NothingIsMeasuredAcrossAMovedTable) {
  PhantomRun phantom = phantom_of("foot", 384, 7007, 40);
  const cinelumen::Run untouched = make_run(phantom);
  const Analysis before = analyze(Stream::cpu(), untouched, {});
  // The table moves after frame 32; frame 26 is blank.
  for (int frame = 32; frame < 40; ++frame) {
    Image<std::uint16_t> moved(384, 384);
    for (int y = 0; y < 384; ++y)
      for (int x = 0; x < 384; ++x) moved(y, x) = phantom.frames[frame]((y + 100) % 384, (x + 60) % 384);
    phantom.frames[frame] = std::move(moved);
  }
  for (int y = 0; y < 384; ++y)
    for (int x = 0; x < 384; ++x) phantom.frames[25](y, x) = 0;
  std::vector<test::DiameterBin> bins = {{1, 4.01, {}, {}}};
  test::DiameterObserver observer(phantom.truth, bins);
  const Analysis analysis = analyze(Stream::cpu(), make_run(phantom), {}, &observer);
  observer.finish(analysis);
  EXPECT_EQ(analysis.first_frame, 0);
  EXPECT_EQ(analysis.frames, 32);
  std::string warnings;
  for (const std::string& warning : analysis.warnings) warnings += warning + "\n";
  EXPECT_NE(warnings.find("becomes another at frame 33"), std::string::npos) << warnings;
  EXPECT_NE(warnings.find("Frame 26"), std::string::npos) << warnings;
  EXPECT_GE(analysis.segments.size(), before.segments.size() / 2);
  ASSERT_GT(bins[0].single.figures().count, 300);
  EXPECT_LE(std::abs(bins[0].single.figures().bias), 0.05);
  for (const SegmentResult& segment : analysis.segments)
    EXPECT_TRUE(std::isnan(segment.flow.curve.contrast[25])) << "segment " << segment.id << ": a blank frame has no contrast";
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
