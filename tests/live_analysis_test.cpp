/// A run pushed frame by frame: when there is a mask, what is measured, and that nothing depends on threads.

#include "engine/live_analysis.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "engine/median.h"
#include "support/matching.h"

namespace cinelumen {
namespace {

using test::phantom_of;

TEST(LiveAnalysis, MeasuresTubesAsTheyFill) {
  const PhantomRun phantom = phantom_of("tubes", 384, 8001, 40);
  const cinelumen::Run run = make_run(phantom);
  LiveOptions options;
  options.mask_frames = 5;
  options.renew_frames = 3;
  std::vector<std::vector<int>> ids_by_threads;
  std::vector<double> medians;
  for (const int threads : {1, 2}) {
    set_cpu_threads(threads);
    LiveAnalysis live(threads == 1 ? Stream::cpu({.parallel = false}) : Stream::cpu(), run, options);
    test::TruthMap map(phantom.truth);
    test::Errors errors;
    int waiting = 0, seen = 0;
    std::vector<int> ids;
    for (int frame = 0; frame < run.frame_count(); ++frame) {
      const LiveFrame& result = live.push(phantom.frames[frame].view(), run.frame_times_ms[frame]);
      EXPECT_EQ(result.frame, frame);
      waiting += result.mask == MaskState::waiting;
      if (!result.lumen) continue;
      for (const LiveSegment& segment : result.segments) ids.push_back(segment.id);
      for (const LumenPoint& point : *result.lumen) {
        if (!point.used) continue;
        const test::TruthMatch match = map.nearest(test::move_truth_back(phantom.truth, frame, {point.y_px, point.x_px}));
        if (!match.segment || match.distance_px > 2 || match.segment->filling[frame][match.point] < 0.5f) continue;
        const PhantomPoint& truth = match.segment->points[match.point];
        if (truth.diameter_calibration_mm < 1) continue;
        errors.add((point.diameter_px - 2 * truth.radius_px) * phantom.truth.mm_per_px, point.sd_px * phantom.truth.mm_per_px);
        ++seen;
      }
    }
    EXPECT_EQ(waiting, 5 - 1 + 3) << "gathered, and made in the background";
    ASSERT_GT(seen, 2000);
    EXPECT_LE(std::abs(errors.figures().bias), 0.05);
    EXPECT_GE(errors.figures().coverage, 0.88);
    const Analysis analysis = live.finish();
    EXPECT_TRUE(analysis.subtracted);
    EXPECT_GE(analysis.segments.size(), 8u);
    const test::CentrelineFigures lines = test::compare_centrelines(analysis, phantom.truth, 1);
    EXPECT_GE(lines.precision, 0.9);
    ids_by_threads.push_back(ids);
    for (const SegmentResult& segment : analysis.segments) medians.push_back(segment.diameter.median.value_or(0));
  }
  set_cpu_threads(0);
  EXPECT_EQ(ids_by_threads[0], ids_by_threads[1]);
  ASSERT_EQ(medians.size() % 2, 0u);
  for (std::size_t i = 0; i < medians.size() / 2; ++i) EXPECT_EQ(medians[i], medians[i + medians.size() / 2]);
}

double median_difference(const Image<float>& a, const Image<float>& b) {
  std::vector<double> differences;
  for (int y = 0; y < a.height(); ++y)
    for (int x = 0; x < a.width(); ++x) differences.push_back(std::abs(a(y, x) - b(y, x)));
  return middle_of(differences);
}

TEST(LiveAnalysis, KeepsThePicturesThatRunsAreComparedBy) {
  const PhantomRun phantom = phantom_of("tubes", 256, 8005, 40);
  const cinelumen::Run run = make_run(phantom);
  LiveAnalysis live(Stream::cpu(), run, {});
  int measured = 0;
  for (int frame = 0; frame < run.frame_count(); ++frame)
    measured += !live.push(phantom.frames[frame].view(), run.frame_times_ms[frame]).segments.empty();
  EXPECT_GE(measured, 20) << "at 4 frames/s the vessels are found within two frames";
  const Analysis seen = live.finish(), whole = analyze(Stream::cpu(), run, {});
  ASSERT_FALSE(seen.mask_picture.empty());
  constexpr double noise = 0.01;
  EXPECT_LT(median_difference(seen.mask_picture, whole.mask_picture), noise);
  EXPECT_LT(median_difference(seen.maximum_opacification, whole.maximum_opacification), noise);
  float fullest = 0, bone = 0;
  for (int y = 0; y < 256; ++y)
    for (int x = 0; x < 256; ++x)
      fullest = std::max(fullest, seen.maximum_opacification(y, x)), bone = std::max(bone, seen.mask_picture(y, x));
  EXPECT_GT(fullest, 0.3) << "contrast";
  EXPECT_GT(bone, 0.3);
}

TEST(LiveAnalysis, WhatNoFrameMeasuredIsNotSaidToBeEmpty) {
  const PhantomRun phantom = phantom_of("tubes", 256, 8005, 40);
  const cinelumen::Run run = make_run(phantom);
  LiveOptions options;
  options.renew_frames = 12;  // the mask at frame 19, vessels looked for from 30 on, known at 42
  for (const int frames : {40, 24}) {
    LiveAnalysis live(Stream::cpu(), run, options);
    for (int frame = 0; frame < frames; ++frame) live.push(phantom.frames[frame].view(), run.frame_times_ms[frame]);
    const Analysis analysis = live.finish();
    EXPECT_TRUE(analysis.segments.empty());
    EXPECT_TRUE(analysis.findings.empty());
    ASSERT_FALSE(analysis.warnings.empty());
    EXPECT_NE(analysis.warnings.back().find("before vessels were found"), std::string::npos);
  }
}

TEST(LiveAnalysis, FiguresAreCarriedOverManyRenewals) {
  // A bolus that comes and goes again and again: vessels are found anew dozens of times, longer and shorter.
  const PhantomRun phantom = phantom_of("foot", 256, 8003, 40);
  const cinelumen::Run run = make_run(phantom);
  LiveOptions options;
  options.mask_frames = 4;
  options.renew_frames = 1;
  LiveAnalysis live(Stream::cpu(), run, options);
  for (int i = 0; i < 120; ++i) live.push(phantom.frames[i < 40 ? i : 39 - std::abs((i - 40) % 60 - 30)].view(), 100.0 * i);
  const Analysis analysis = live.finish();
  EXPECT_GE(analysis.segments.size(), 5u);
  int measured = 0;
  for (const SegmentResult& segment : analysis.segments) {
    ASSERT_EQ(segment.profile.points.size(), segment.centreline.points.size());
    for (const DiameterProfile::Point& point : segment.profile.points) measured += point.frames > 10;
  }
  EXPECT_GT(measured, 200);
}

// Memory that this process holds, MB.
double resident_mb() {
  std::ifstream statm("/proc/self/statm");
  long pages = 0, resident = 0;
  statm >> pages >> resident;
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

TEST(LiveAnalysis, AVeinThatNarrowsIsToldOnceWhileItDoes) {
  PhantomOptions phantom_options;
  phantom_options.scenario = "spasm";
  phantom_options.rows = phantom_options.columns = 384;
  phantom_options.seed = 608;
  const PhantomRun phantom = make_phantom(phantom_options);
  const cinelumen::Run run = make_run(phantom);
  LiveOptions options;
  options.mask_frames = 5;
  options.renew_frames = 4;
  LiveAnalysis live(Stream::cpu(), run, options);
  const test::TruthMap map(phantom.truth);
  std::vector<int> told;
  for (int frame = 0; frame < run.frame_count(); ++frame)
    for (const Finding& change : live.push(phantom.frames[frame].view(), run.frame_times_ms[frame]).changes) {
      EXPECT_EQ(std::count(told.begin(), told.end(), change.segment), 0) << "told twice";
      told.push_back(change.segment);
      const test::TruthMatch at = map.nearest({change.at_px[0], change.at_px[1]});
      ASSERT_TRUE(at.segment && !at.segment->calibre.empty()) << "frame " << frame << ", segment " << change.segment;
      EXPECT_LT(at.segment->calibre.back()[at.point], 0.9f);
      EXPECT_GT(*change.narrowing_percent, 0);
      const double complete_ms = phantom.truth.onsets.back().complete_ms, onset_ms = phantom.truth.onsets.front().onset_ms;
      EXPECT_LE(run.frame_times_ms[frame], complete_ms + 8 * 250);
      EXPECT_NEAR(*change.onset_ms, onset_ms, 1500);
    }
  EXPECT_GE(2 * told.size(), phantom.truth.onsets.size());
  const Analysis analysis = live.finish();
  EXPECT_GE(std::count_if(analysis.findings.begin(), analysis.findings.end(),
                          [](const Finding& finding) { return finding.label == "change within the run" && finding.onset_ms; }),
            static_cast<std::ptrdiff_t>(told.size()));
}

TEST(LiveAnalysis, MemoryDoesNotGrow) {
  const PhantomRun phantom = phantom_of("tubes", 96, 8004, 30);
  const cinelumen::Run run = make_run(phantom);
  LiveOptions options;
  options.kept_frames = 64;
  LiveAnalysis live(Stream::cpu(), run, options);
  // Fills and empties, again and again: vessels come and go, too.
  const auto push = [&](int i) { live.push(phantom.frames[i < 30 ? i : 29 - std::abs((i - 30) % 40 - 20)].view(), 33.0 * i); };
  int i = 0;
  while (i < 1500) push(i++);
  const double warm = resident_mb();
  ASSERT_GT(warm, 0);
  while (i < 4500) push(i++);
  EXPECT_LT(resident_mb() - warm, 4) << "of " << warm << " MB";
  EXPECT_EQ(live.finish().frames, 64);
}

TEST(LiveAnalysis, AMovedTableMeansANewMask) {
  const PhantomRun phantom = phantom_of("foot", 256, 8002, 36);
  const cinelumen::Run run = make_run(phantom);
  LiveOptions options;
  options.mask_frames = 4;
  options.renew_frames = 2;
  LiveAnalysis live(Stream::cpu(), run, options);
  std::vector<MaskState> states;
  std::string events;
  for (int frame = 0; frame < 36; ++frame) {
    Image<std::uint16_t> shown(256, 256);
    for (int y = 0; y < 256; ++y)
      for (int x = 0; x < 256; ++x) shown(y, x) = phantom.frames[frame](frame < 20 ? y : (y + 100) % 256, frame < 20 ? x : (x + 70) % 256);
    const LiveFrame& result = live.push(shown.view(), run.frame_times_ms[frame]);
    states.push_back(result.mask);
    for (const std::string& event : result.events) events += std::to_string(frame) + ": " + event + "\n";
  }
  EXPECT_EQ(states[0], MaskState::waiting);
  EXPECT_EQ(states[12], MaskState::ready);
  EXPECT_EQ(std::count(states.begin() + 20, states.begin() + 26, MaskState::again), 5) << events;
  EXPECT_EQ(states[35], MaskState::ready) << events;
  EXPECT_NE(events.find("mask again"), std::string::npos) << events;
}

TEST(LiveAnalysis, StreamsThatEndEarlyOrAreWrongAreSaid) {
  const PhantomRun phantom = phantom_of("tubes", 64, 1, 6);
  const cinelumen::Run run = make_run(phantom);
  LiveAnalysis live(Stream::cpu(), run, {});
  EXPECT_EQ(live.push(phantom.frames[0].view(), 0).mask, MaskState::waiting);
  EXPECT_THROW(live.push(phantom.frames[1].view(), 0), std::invalid_argument);
  EXPECT_THROW(live.push(Image<std::uint16_t>(32, 64).view(), 50), std::invalid_argument);
  const Analysis analysis = live.finish();
  EXPECT_FALSE(analysis.subtracted);
  EXPECT_TRUE(analysis.segments.empty());
  ASSERT_FALSE(analysis.warnings.empty());
  LiveOptions wrong;
  wrong.mask_frames = 2;
  EXPECT_THROW(LiveAnalysis(Stream::cpu(), run, wrong), std::invalid_argument);
}

}  // namespace
}  // namespace cinelumen
