/// Changes of calibre while a run goes on: told when they are there, and never where a constant lumen fills, empties or is noisy.

#include "engine/change_point.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

#include "support/calibre_series.h"
#include "support/matching.h"

namespace cinelumen {
namespace {

using test::Camera;
using test::MeasuringNoise;
using test::Shown;
using test::straight;
using test::Vessel;

constexpr double mm_per_px = 0.25, frame_ms = 100;
constexpr int points = 241;  // 60 mm

struct Watched {
  std::vector<ChangeWithinRun> told;  // when they were
  std::vector<int> at;                // frames
  std::vector<ChangeWithinRun> final;
};

Watched watch(const Vessel& vessel, unsigned seed, int frames = 60, double sd_px = 0.3) {
  Camera camera(vessel, points, seed, {.sd_px = sd_px});
  CalibreWatch watch(straight(points), mm_per_px);
  Watched result;
  for (int f = 0; f < frames; ++f)
    for (const ChangeWithinRun& change : watch.add(f, frame_ms * f, camera.frame(f))) {
      result.told.push_back(change);
      result.at.push_back(f);
    }
  result.final = watch.changes();
  return result;
}

// 15 mm in the middle, narrowed by `share` from frame 30 on, over `ramp` frames.
Vessel spasm(double share, int ramp = 1, int from = 90, int to = 150) {
  return [=](int f, int i) {
    const double grown = std::clamp((f - 30.0) / ramp, 0.0, 1.0);
    return Shown{10 * (1 - (i >= from && i < to ? share * grown : 0))};
  };
}

TEST(ChangePointPosterior, AStepIsSeenAndWhichWay) {
  std::mt19937 random(600);
  std::normal_distribution<double> noise(0, 0.03);
  ChangePointPosterior posterior(1.0 / 50, 0.5);
  for (int i = 0; i < 300; ++i) {
    posterior.add(noise(random), 0.0009);
    ASSERT_LT(posterior.probability_of_fall(0.15), 0.01) << i;
    ASSERT_LT(posterior.probability_of_rise(0.15), 0.01) << i;
  }
  for (int i = 0; i < 3; ++i) posterior.add(-0.4 + noise(random), 0.0009);
  EXPECT_GT(posterior.probability_of_fall(0.15), 0.999);
  EXPECT_LT(posterior.probability_of_rise(0.15), 0.001);
  EXPECT_LT(posterior.probability_of_fall(0.8), 0.01) << "it is not as deep";
}

TEST(Cusum, AlarmsOnAShiftOfOneSdAfterAboutTenValues) {
  std::mt19937 random(600);
  std::normal_distribution<double> normal;
  double delays = 0;
  constexpr int trials = 200;
  for (int trial = 0; trial < trials; ++trial) {
    Cusum cusum;
    int n = 1;
    while (!cusum.add(normal(random) - 1)) ++n;
    delays += n;
  }
  EXPECT_NEAR(delays / trials, 10.4, 1.0) << "the published average run length of k 0.5, h 5";
}

TEST(RampFit, OnsetAndChangeWithHonestIntervals) {
  std::mt19937 random(600);
  std::normal_distribution<double> noise(0, 0.04);
  int onset = 0, change = 0;
  constexpr int trials = 200;
  for (int trial = 0; trial < trials; ++trial) {
    std::vector<CalibreReading> readings;
    const int ramp = 1 + trial % 12;
    for (int f = 0; f < 50; ++f) {
      CalibreReading reading;
      reading.first_ms = reading.last_ms = frame_ms * f;
      reading.value = -0.5 * std::clamp((f - 25.0) / ramp, 0.0, 1.0) + noise(random);
      reading.variance = 0.0016;
      readings.push_back(reading);
    }
    const auto fit = fit_ramp(readings, 0.5);
    ASSERT_TRUE(fit);
    EXPECT_NEAR(fit->onset_ms, 2500, 700);
    onset += fit->onset_interval_ms[0] <= 2500 && 2500 <= fit->onset_interval_ms[1];
    change += std::abs(fit->change + 0.5) < 1.96 * fit->change_sd;
  }
  EXPECT_GE(onset, 0.92 * trials);
  EXPECT_GE(change, 0.90 * trials);
}

TEST(CalibreWatch, ANarrowingOfAPartIsToldWithItsPlaceAndTime) {
  for (unsigned seed = 600; seed < 620; ++seed)
    for (const int ramp : {1, 8}) {
      const Watched watched = watch(spasm(0.4, ramp), seed);
      ASSERT_EQ(watched.told.size(), 1u) << "seed " << seed << " ramp " << ramp;
      EXPECT_LE(watched.at[0], 30 + ramp + 8);
      ASSERT_EQ(watched.final.size(), 1u);
      const ChangeWithinRun& change = watched.final[0];
      EXPECT_TRUE(change.narrower());
      EXPECT_NEAR(change.narrowing_percent, 40, 5);
      EXPECT_NEAR(change.onset_ms, 3000, 400);
      EXPECT_NEAR(change.extent_px, 60, 12);
      EXPECT_GE(change.point, 88);
      EXPECT_LT(change.point, 152);
      EXPECT_GE(change.frames_before, 20);
      EXPECT_EQ(change.before_last, change.onset_frame);
      EXPECT_TRUE(change.cusum_agrees);
    }
}

TEST(CalibreWatch, WhatGivesWayIsAChangeOfItsOwn) {
  const Vessel vessel = [](int f, int i) { return Shown{i >= 90 && i < 150 && f >= 30 && f < 60 ? 5.0 : 10.0}; };
  const Watched watched = watch(vessel, 601, 90);
  ASSERT_EQ(watched.final.size(), 2u);
  EXPECT_NEAR(watched.final[0].narrowing_percent, 50, 4);
  EXPECT_NEAR(watched.final[1].narrowing_percent, -100, 8) << "against the calibre between";
  EXPECT_NEAR(watched.final[1].onset_ms, 5900, 200);
}

TEST(CalibreWatch, ANarrowingThatGoesOutOfSightIsALowerBound) {
  const Vessel vessel = [](int f, int i) { return Shown{i >= 90 && i < 150 ? 10 * std::max(0.05, 1 - std::max(0, f - 30) / 10.0) : 10.0}; };
  const Watched watched = watch(vessel, 602);
  ASSERT_EQ(watched.final.size(), 1u);
  EXPECT_TRUE(watched.final[0].still_changing);
  EXPECT_EQ(watched.final[0].ci95[1], 100);
  EXPECT_GT(watched.final[0].narrowing_percent, 40);
}

int false_alarms(const Vessel& vessel, double sd_px = 0.3) {
  int alarms = 0;
  for (unsigned seed = 600; seed < 650; ++seed) alarms += !watch(vessel, seed, 60, sd_px).told.empty();
  return alarms;
}

TEST(CalibreWatch, AConstantLumenDoesNotChange) {
  EXPECT_EQ(false_alarms([](int, int) { return Shown{}; }), 0);
  EXPECT_EQ(false_alarms([](int, int) { return Shown{4}; }, 0.6), 0) << "little dose";
  EXPECT_EQ(false_alarms([](int, int i) { return Shown{i < 120 ? 10.0 : 5.0}; }), 0) << "narrow all the time";
}

TEST(CalibreWatch, WhatFillsOrEmptiesDoesNotChange) {
  const auto plug = [](int f, int i) { return 1 / (1 + std::exp(-(f - 6.0 - i / 40.0) / 3)); };
  EXPECT_EQ(false_alarms([&](int f, int i) { return Shown{10, plug(f, i)}; }), 0);
  // Contrast goes ahead in the middle of the vessel: D^2 (1 - t0 / t).
  for (const double slowest : {4.0, 12.0, 30.0})
    EXPECT_EQ(false_alarms([=](int f, int i) {
                const double t = f - 4.5, t0 = slowest * (0.2 + 0.8 * i / points);
                return t > t0 ? Shown{10 * std::sqrt(1 - t0 / t)} : Shown{0, 0.01};
              }),
              0)
        << slowest;
  // Blood comes after it, and what is left looks narrow.
  EXPECT_EQ(false_alarms([](int f, int) {
              const double left = 1 / (1 + std::exp((f - 40.0) / 3));
              return Shown{10 * (0.5 + 0.5 * left), 0.3 + 0.7 * left};
            }),
            0);
}

TEST(CalibreWatch, RunsLikeMeasuredOnesTellNothing) {
  // As `cinelumen_accuracy onset` does with more of them.
  constexpr int runs = 20, segments = 15;
  int alarms = 0;
  for (unsigned seed = 1; seed <= runs; ++seed) {
    test::SimulatedRun run(seed);
    for (unsigned s = 0; s < segments; ++s) {
      const test::SimulatedSegment segment = run.segment();
      Camera camera(segment.vessel, segment.points, seed * segments + s, segment.noise);
      CalibreWatch watch(straight(segment.points), mm_per_px);
      for (int f = 0; f < run.frames; ++f) alarms += !watch.add(f, f * run.frame_ms, camera.frame(f)).empty();
    }
  }
  EXPECT_EQ(alarms, 0);
}

TEST(CalibreWatch, PlacesThatAreNotMeasuredAreNoChange) {
  // Contrast goes ahead in the middle of the vessel: its first diameters differ from place to place, and now these are missing, now those.
  const Vessel vessel = [](int f, int i) {
    const double t = f - 4 - i / 40.0;
    return t > 8 ? Shown{10 * std::sqrt(1 - 8 / t)} : Shown{0, 0.01};
  };
  int alarms = 0;
  for (unsigned seed = 640; seed < 660; ++seed) {
    Camera camera(vessel, points, seed, {.sd_px = 0.2, .missing = 0.4});
    CalibreWatch watch(straight(points), mm_per_px);
    for (int f = 0; f < 150; ++f) alarms += !watch.add(f, frame_ms * f, camera.frame(f)).empty();
  }
  EXPECT_EQ(alarms, 0);
}

TEST(CalibreWatch, WhatWidensMayBeFilling) {
  const Vessel vessel = [](int f, int i) { return Shown{i >= 90 && i < 150 && f >= 30 ? 13.0 : 10.0}; };
  EXPECT_TRUE(watch(vessel, 605).told.empty());
}

TEST(CalibreWatch, ANarrowLumenThatContrastLeavesIsNotNarrowed) {
  // It is sized by its contrast, and what tells how much that is lies elsewhere.
  MeasuringNoise noise{.sd_px = 0.1};
  noise.elsewhere = [](int, int) { return Shown{10, 1}; };
  const auto told = [&](const Vessel& vessel) {
    int count = 0;
    for (unsigned seed = 610; seed < 630; ++seed) {
      Camera camera(vessel, points, seed, noise);
      CalibreWatch watch(straight(points), mm_per_px);
      bool any = false;
      for (int f = 0; f < 60; ++f) any = !watch.add(f, frame_ms * f, camera.frame(f)).empty() || any;
      count += any;
    }
    return count;
  };
  EXPECT_EQ(told([](int f, int) { return Shown{2.5, 1 / (1 + std::exp((f - 40.0) / 3))}; }), 0) << "washed out";
  EXPECT_EQ(told([](int f, int i) { return Shown{2.5, f > 30 && i > 60 ? 0.4 : 1}; }), 0) << "diluted from a place on";
  EXPECT_EQ(told([](int f, int i) { return Shown{2.5 * (f > 30 && i > 90 && i < 150 ? 0.6 : 1)}; }), 20) << "narrowed, open beyond";
}

TEST(CalibreWatch, AnotherPointSpreadIsNoChange) {
  const auto measured_otherwise = [](std::vector<LumenPoint> line) {
    for (LumenPoint& point : line) point.diameter_px *= 0.75f, point.kappa *= 1.04f;
    return line;
  };
  std::vector<PointBefore> before;
  for (int i = 0; i < points; ++i) before.push_back({0, i});
  for (const bool levelled : {true, false}) {
    Camera camera([](int, int) { return Shown{}; }, points, 606);
    CalibreWatch first(straight(points), mm_per_px);
    for (int f = 0; f < 25; ++f) ASSERT_TRUE(first.add(f, frame_ms * f, camera.frame(f)).empty());
    CalibreWatch then(straight(points), mm_per_px, {&first}, before);
    int told = 0;
    for (int f = 25; f < 50; ++f) {
      const std::vector<LumenPoint> line = camera.frame(f);
      if (f == 25 && levelled) then.level(line, measured_otherwise(line));
      told += !then.add(f, frame_ms * f, measured_otherwise(line)).empty();
    }
    EXPECT_EQ(told, levelled ? 0 : 1);
  }
}

TEST(CalibreWatch, IsCarriedOverToAnotherCentreline) {
  Camera camera(spasm(0.4), points, 603);
  CalibreWatch watch(straight(points), mm_per_px);
  for (int f = 0; f < 25; ++f) ASSERT_TRUE(watch.add(f, frame_ms * f, camera.frame(f)).empty());
  // The same vessel, found 12 px shorter at its start.
  constexpr int cut = 12;
  std::vector<PointBefore> before;
  for (int i = cut; i < points; ++i) before.push_back({0, i});
  CalibreWatch moved(straight(points - cut), mm_per_px, {&watch}, before);
  std::vector<ChangeWithinRun> told;
  for (int f = 25; f < 50; ++f) {
    std::vector<LumenPoint> line = camera.frame(f);
    line.erase(line.begin(), line.begin() + cut);
    for (int i = 0; i < static_cast<int>(line.size()); ++i) line[static_cast<std::size_t>(i)].point = i;
    for (const ChangeWithinRun& change : moved.add(f, frame_ms * f, line)) told.push_back(change);
  }
  ASSERT_EQ(told.size(), 1u);
  EXPECT_LT(told[0].before_first, 15) << "held against what was seen before";
  EXPECT_NEAR(moved.changes()[0].narrowing_percent, 40, 5);
  EXPECT_NEAR(moved.changes()[0].point, 120 - cut, 32);
}

TEST(CalibreWatch, GoesWithThePlaceWhenASegmentIsDivided) {
  // Divided in the middle of what narrows, as it narrows: both halves have the frames before; what was told goes with its place.
  Camera camera(spasm(0.5), points, 604);
  CalibreWatch watch(straight(points), mm_per_px);
  std::vector<ChangeWithinRun> told;
  const auto gather = [&](const std::vector<ChangeWithinRun>& news) { told.insert(told.end(), news.begin(), news.end()); };
  for (int f = 0; f < 32; ++f) gather(watch.add(f, frame_ms * f, camera.frame(f)));
  constexpr int at = 120;
  std::vector<PointBefore> first, second;
  for (int i = 0; i < points; ++i) (i < at ? first : second).push_back({0, i});
  CalibreWatch left(straight(at), mm_per_px, {&watch}, first), right(straight(points - at), mm_per_px, {&watch}, second);
  for (int f = 32; f < 60; ++f) {
    std::vector<LumenPoint> line = camera.frame(f), beyond(line.begin() + at, line.end());
    line.resize(at);
    for (int i = 0; i < points - at; ++i) beyond[static_cast<std::size_t>(i)].point = i;
    gather(left.add(f, frame_ms * f, line));
    gather(right.add(f, frame_ms * f, beyond));
  }
  ASSERT_EQ(left.changes().size(), 1u);
  ASSERT_EQ(right.changes().size(), 1u);
  EXPECT_LE(told.size(), 2u);
  for (const CalibreWatch* half : {&left, &right}) {
    EXPECT_NEAR(half->changes()[0].narrowing_percent, 50, 4);
    EXPECT_NEAR(half->changes()[0].onset_ms, 3000, 400);
  }
  // And joined again.
  std::vector<PointBefore> both;
  for (int i = 0; i < points; ++i) both.push_back({i < at ? 0 : 1, i < at ? i : i - at});
  EXPECT_EQ(CalibreWatch(straight(points), mm_per_px, {&left, &right}, both).changes().size(), 2u) << "each with its place";
}

TEST(CalibreWatch, NothingToWatchIsNoError) {
  CalibreWatch watch(Centreline{}, 0);
  EXPECT_TRUE(watch.add(0, 0, {}).empty());
  EXPECT_TRUE(watch.changes().empty());
}

/// The lumina of a phantom's run as they were measured, segment by segment.
class Gatherer : public AnalysisObserver {
 public:
  void progress(const std::string&, int, int) override {}
  void topology_done(const Analysis& so_far) override {
    for (const SegmentResult& segment : so_far.segments) lines.push_back(segment.centreline);
    mm = so_far.calibration.mm_per_px;
  }
  void frame_done(const FrameResult& frame) override {
    auto& of_frame = frames.emplace_back(lines.size());
    times_ms.push_back(frame.time_ms);
    if (!frame.lumen) return;
    for (const LumenPoint& point : *frame.lumen) of_frame[static_cast<std::size_t>(point.segment)].push_back(point);
  }
  std::vector<Centreline> lines;
  std::vector<std::vector<std::vector<LumenPoint>>> frames;
  std::vector<double> times_ms;
  double mm = 0;
};

TEST(CalibreWatch, MeasuredLuminaKeepTheirCalibreAndTellWhenTheyAreNarrowed) {
  const PhantomRun phantom = test::phantom_of("tubes", 384, 607, 34);
  Gatherer run;
  const Analysis analysis = analyze(Stream::cpu(), make_run(phantom), {}, &run);
  for (const SegmentResult& segment : analysis.segments) EXPECT_TRUE(segment.changes.empty()) << segment.id;
  constexpr int onset = 22;
  int tried = 0, told = 0, wrong = 0;
  for (std::size_t s = 0; s < run.lines.size(); ++s) {
    if (run.lines[s].length_px() < 60 || !analysis.segments[s].diameter.median || *analysis.segments[s].diameter.median < 5) continue;
    ++tried;
    CalibreWatch watch(run.lines[s], run.mm);
    const double middle = run.lines[s].length_px() / 2, half = 5 / run.mm;
    for (std::size_t f = 0; f < run.frames.size(); ++f) {
      std::vector<LumenPoint> line = run.frames[f][s];
      for (LumenPoint& point : line)
        if (static_cast<int>(f) > onset && std::abs(point.arc_length_px - middle) < half)
          point.diameter_px -= 0.4f * analysis.segments[s].profile.points[static_cast<std::size_t>(point.point)].diameter_px;
      for (const ChangeWithinRun& change : watch.add(static_cast<int>(f), run.times_ms[f], line)) {
        wrong += !change.narrower() || static_cast<int>(f) <= onset;
        told += static_cast<int>(f) <= onset + 8 && std::abs(change.onset_frame - onset) <= 2;
      }
    }
  }
  EXPECT_GE(tried, 4);
  EXPECT_EQ(told, tried);
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace cinelumen
