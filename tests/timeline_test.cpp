#include "engine/timeline.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace {

using namespace cinelumen;

/// What a run measures of a vessel of 2 mm and 60 mm: narrowed by `percent` over `length` mm about `at`.
struct Seen {
  double percent = 0, length = 40, at = 30;
};

CalibreChange change_of(const Seen& seen) {
  std::vector<LogRatio> ratios;
  for (double arc = 0; arc < 60; arc += 0.26) {
    const double u = std::abs(arc - seen.at) / (0.5 * seen.length);
    const double depth = u < 1 ? 0.005 * seen.percent * (1 + std::cos(std::numbers::pi * u)) : 0;
    ratios.push_back({arc, std::log(1 - depth), 0.03});
  }
  return estimate_change(ratios, 0.01);
}

struct Timeline {
  std::vector<SegmentTimeline> segments{1};
  std::vector<TimelineRun> runs;

  Timeline() {
    for (double arc = 0; arc < 60; arc += 0.26) {
      segments[0].arc_mm.push_back(static_cast<float>(arc));
      segments[0].reference_mm.push_back(2);
    }
    add({}, EventKind::reference, 0);
    runs[0].is_reference = true;
  }
  void add(const Seen& seen, EventKind event, int procedure) {
    TimelineEntry entry;
    entry.run = static_cast<int>(runs.size());
    entry.state = SegmentState::measured;
    entry.change = change_of(seen);
    segments[0].entries.push_back(entry);
    runs.push_back({event, procedure, true, false});
  }
  /// The same after valvulotomy, after a drug and on the next day.
  void add_lasting(const Seen& seen) {
    add(seen, EventKind::valvulotomy, 0);
    add(seen, EventKind::spasmolytic, 0);
    add(seen, EventKind::next_day, 1);
  }
  void add_occluded(EventKind event, int procedure) {
    TimelineEntry entry;
    entry.run = static_cast<int>(runs.size());
    entry.state = SegmentState::occluded;
    entry.lost_mm = {20, 40};
    segments[0].entries.push_back(entry);
    runs.push_back({event, procedure, true, false});
  }
  /// The same, and what is left of the vessel narrows towards where it is lost.
  void add_occluded_by_a_taper(EventKind event, int procedure) {
    add_occluded(event, procedure);
    CalibreChange& change = segments[0].entries.back().change;
    change.known = true;
    change.narrowings.resize(1);
    change.narrowings[0].percent = 60;
    change.narrowings[0].probability_25 = 1;
    change.narrowings[0].extent_from_mm = 17;
    change.narrowings[0].extent_to_mm = 20;
  }
  const SegmentTimeline& labelled() {
    control_false_discoveries(segments);
    label_timeline(segments[0], runs);
    return segments[0];
  }
};

TEST(Timeline, NoChange) {
  Timeline timeline;
  timeline.add({}, EventKind::valvulotomy, 0);
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.label, "no change");
  EXPECT_EQ(segment.grade, "none");
  EXPECT_EQ(segment.entries[1].label_then, "no change");
}

TEST(Timeline, BelowGrade) {
  Timeline timeline;
  timeline.add({38}, EventKind::valvulotomy, 0);
  EXPECT_EQ(timeline.labelled().label, "narrowing below spasm grade");
  EXPECT_EQ(timeline.segments[0].grade, "none");
}

TEST(Timeline, SpasmIsNotSettledAlone) {
  Timeline timeline;
  timeline.add({70}, EventKind::valvulotomy, 0);
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.label, "spasm, not yet settled");
  EXPECT_EQ(segment.grade, "mild");
  EXPECT_NEAR(*segment.narrowing_percent, 70, 3);
  EXPECT_EQ(summarize_spasm(timeline.segments, timeline.runs).response, "not tested");
}

TEST(Timeline, RelievedByADrug) {
  Timeline timeline;
  timeline.add({70}, EventKind::valvulotomy, 0);
  timeline.add({15}, EventKind::spasmolytic, 0);
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.label, "spasm, relieved");
  EXPECT_EQ(segment.entries[1].label_then, "spasm, not yet settled");
  EXPECT_EQ(segment.entries[1].label_now, "spasm, relieved");
  EXPECT_NEAR(*segment.recovery, 1 - 15. / 70, 0.08);
  const TimelineSummary summary = summarize_spasm(timeline.segments, timeline.runs);
  EXPECT_EQ(summary.response, "relieved");
  EXPECT_EQ(summary.spasm_extent, "segmental");
}

TEST(Timeline, OneEndOfASpasmTellsWhetherItGaveWay) {
  // Open again it lies so near to another vessel that little more than its end can be measured; that is set against the same end.
  Timeline timeline;
  timeline.add({75, 40, 30}, EventKind::valvulotomy, 0);
  timeline.add({}, EventKind::spasmolytic, 0);
  const auto measure_to = [&](double end_mm, double percent) {
    std::vector<LogRatio> ratios;
    const CalibreChange whole = change_of({percent, 40, 30});
    for (std::size_t i = 0; i < whole.arc_mm.size() && whole.arc_mm[i] < end_mm; ++i)
      ratios.push_back({whole.arc_mm[i], whole.ratio_log[i], 0.02});
    timeline.segments[0].entries[2].change = estimate_change(ratios, 0.01);
    return timeline.labelled();
  };
  const double half_depth_mm = timeline.segments[0].entries[1].change.largest.from_mm;
  const SegmentTimeline relieved = measure_to(half_depth_mm + 1.5, 0);
  EXPECT_EQ(relieved.label, "spasm, relieved");
  EXPECT_NEAR(*relieved.recovery, 1, 0.1);
  const SegmentTimeline as_narrow = measure_to(half_depth_mm + 1.5, 75);
  EXPECT_EQ(as_narrow.label, "spasm, not yet settled");
  EXPECT_NEAR(*as_narrow.recovery, 0, 0.1) << "not what the end differs from the whole by";
}

TEST(Timeline, WhatGivesWayStepByStepIsMeasuredFromItsWorst) {
  Timeline timeline;
  timeline.add({92}, EventKind::valvulotomy, 0);
  timeline.add({61}, EventKind::spasmolytic, 0);
  timeline.add({37}, EventKind::spasmolytic, 0);  // 60 % of what was lost at first have come back, and 39 % of what was lost then
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.label, "spasm, relieved");
  EXPECT_EQ(segment.entries[2].label_now, "spasm, relieved");
  EXPECT_EQ(segment.entries[2].label_then, "spasm, not yet settled");
  EXPECT_EQ(segment.grade, "severe");
}

TEST(Timeline, RefractoryIsSettledByTheNextDay) {
  Timeline timeline;
  timeline.add({70}, EventKind::valvulotomy, 0);
  timeline.add({68}, EventKind::spasmolytic, 0);
  timeline.add({69}, EventKind::spasmolytic, 0);
  timeline.add({3}, EventKind::next_day, 1);
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.label, "spasm, refractory");
  for (int run = 1; run <= 3; ++run) {
    EXPECT_EQ(segment.entries[run].label_then, "spasm, not yet settled") << run;
    EXPECT_EQ(segment.entries[run].label_now, "spasm, refractory") << run;
  }
  EXPECT_EQ(segment.entries[4].label_now, "no change");
  EXPECT_EQ(summarize_spasm(timeline.segments, timeline.runs).response, "refractory");
}

TEST(Timeline, WhatABalloonOpensSettlesNothing) {
  Timeline timeline;
  timeline.add({70}, EventKind::valvulotomy, 0);
  timeline.add({3}, EventKind::redo, 1);
  EXPECT_EQ(timeline.labelled().label, "spasm, not yet settled");
}

TEST(Timeline, WhatLastsLongIsNoSpasm) {
  Timeline timeline;
  timeline.add({60}, EventKind::valvulotomy, 0);
  timeline.add({60}, EventKind::follow_up, 1);
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.entries[1].label_now, "indeterminate");
}

TEST(Timeline, OcclusionIsGravest) {
  Timeline timeline;
  timeline.add({70}, EventKind::valvulotomy, 0);
  timeline.add({70}, EventKind::spasmolytic, 0);
  timeline.add({2}, EventKind::next_day, 1);
  timeline.add_occluded(EventKind::follow_up, 2);
  timeline.add({2}, EventKind::redo, 3);
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.label, "occlusion");
  EXPECT_EQ(segment.entries[1].label_now, "spasm, refractory");
  EXPECT_EQ(segment.entries[4].label_now, "occlusion");
  EXPECT_EQ(segment.entries[5].label_now, "no change");
  EXPECT_EQ(segment.grade, "mild");
}

TEST(Timeline, WhatOpensByItselfAndTapersWasShut) {
  Timeline timeline;
  for (const EventKind event : {EventKind::valvulotomy, EventKind::spasmolytic}) timeline.add_occluded_by_a_taper(event, 0);
  timeline.add({4}, EventKind::next_day, 1);
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.entries[1].label_then, "occlusion");
  EXPECT_EQ(segment.entries[1].label_now, "spasm, refractory");
  EXPECT_EQ(segment.label, "spasm, refractory");
  EXPECT_EQ(segment.grade, "severe");
}

TEST(Timeline, WhatOpensByItselfWithoutATaperWasPassedBy) {
  Timeline timeline;
  timeline.add_occluded(EventKind::valvulotomy, 0);
  timeline.add({4}, EventKind::next_day, 1);
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.entries[1].label_then, "occlusion");
  EXPECT_EQ(segment.entries[1].label_now, "indeterminate");
  EXPECT_EQ(segment.grade, "none");
}

TEST(Timeline, WhatIsShutBetweenNarrowedVesselsWasShutBySpasm) {
  Timeline timeline;
  timeline.add_occluded(EventKind::valvulotomy, 0);
  timeline.segments[0].entries.back().narrowed_around = true;
  timeline.add({4}, EventKind::next_day, 1);
  EXPECT_EQ(timeline.labelled().label, "spasm, relieved");
  EXPECT_EQ(timeline.segments[0].grade, "severe");
}

TEST(Timeline, WhatOpensByItselfThroughASpasmWasShutByIt) {
  // Nothing beside it could be measured while it was shut; the next run shows it on its way.
  Timeline timeline;
  timeline.add_occluded(EventKind::valvulotomy, 0);
  timeline.add({72, 36}, EventKind::spasmolytic, 0);
  timeline.add({0}, EventKind::spasmolytic, 0);
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.label, "spasm, relieved");
  EXPECT_EQ(segment.grade, "severe");
}

TEST(Timeline, WhatOneProcedureShowsAndNoneLaterMeasuredIsNotFixed) {
  const auto seen_in_one_procedure = [](bool later_measured) {
    Timeline timeline;
    for (int i = 0; i < 3; ++i) timeline.add({60, 8}, i == 0 ? EventKind::valvulotomy : EventKind::spasmolytic, 0);
    timeline.add({60, 8}, EventKind::next_day, 1);
    if (later_measured) return timeline.labelled().label;
    // Of the next day only a part far away from it.
    CalibreChange& change = timeline.segments[0].entries.back().change;
    std::vector<LogRatio> ratios;
    for (double arc = 0; arc < 20; arc += 0.26) ratios.push_back({arc, 0, 0.03});
    change = estimate_change(ratios, 0.01);
    return timeline.labelled().label;
  };
  EXPECT_EQ(seen_in_one_procedure(true), "fixed stenosis");
  EXPECT_EQ(seen_in_one_procedure(false), "indeterminate");
}

TEST(Timeline, WhatWasSaidThenKnewNothingOfLaterRuns) {
  Timeline timeline;
  timeline.add({60, 7}, EventKind::valvulotomy, 0);
  timeline.add({70, 40}, EventKind::spasmolytic, 0);
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.entries[1].label_then, "indeterminate") << "short, and seen once";
  EXPECT_EQ(segment.entries[2].label_then, "spasm, not yet settled");
}

TEST(Timeline, FixedStenosisStays) {
  Timeline timeline;
  timeline.add_lasting({60, 7});
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.entries[1].label_then, "indeterminate");
  EXPECT_EQ(segment.label, "fixed stenosis");
  EXPECT_EQ(segment.grade, "none");
}

TEST(Timeline, AValveRemnantGoesAfterABalloonNotAfterADrug) {
  Timeline timeline;
  const Seen notch{60, 3};
  timeline.add(notch, EventKind::valvulotomy, 0);
  timeline.add(notch, EventKind::spasmolytic, 0);
  timeline.add({0}, EventKind::balloon, 0);
  EXPECT_EQ(timeline.labelled().label, "valve remnant");
}

TEST(Timeline, ANotchThatOneRunShowsToEndDoesNotGoOnElsewhere) {
  Timeline timeline;
  for (int i = 0; i < 3; ++i) timeline.add({60, 4}, i == 0 ? EventKind::valvulotomy : EventKind::spasmolytic, 0);
  for (int run = 1; run <= 3; ++run)
    for (Narrowing& n : timeline.segments[0].entries[static_cast<std::size_t>(run)].change.narrowings) {
      // One run reads it as part of what lies beyond a branching; the others do not see 2 mm beside it.
      n.spread_mm = run == 2 ? 21 : n.extent_mm();
      n.possible_mm = run == 2 ? 21 : n.extent_mm() + 2;
    }
  timeline.add({0}, EventKind::balloon, 0);
  EXPECT_EQ(timeline.labelled().label, "valve remnant");
}

TEST(Timeline, WhatIsHalfSeenInOneRunIsNotGoneInIt) {
  Timeline timeline;
  for (const double percent : {44.0, 42.0, 24.0}) timeline.add({percent, 4}, EventKind::valvulotomy, 0);
  timeline.add({0, 4}, EventKind::balloon, 0);
  EXPECT_EQ(timeline.labelled().label, "valve remnant");
}

TEST(Timeline, WhatIsNarrowestWhereTheMeasuredEndsIsNotUnchanged) {
  Timeline timeline;
  timeline.add({20, 30}, EventKind::valvulotomy, 0);
  EXPECT_EQ(timeline.labelled().label, "no change");
  timeline.segments[0].entries[1].change.largest.at_least = true;
  EXPECT_EQ(timeline.labelled().label, "indeterminate");
  timeline.segments[0].entries[1].change.largest.ci95[0] = 6;
  EXPECT_EQ(timeline.labelled().label, "no change") << "it may be as good as nothing";
  timeline.segments[0].entries[1].change.largest.ci95[0] = 15;
  timeline.segments[0].entries[1].change.probability = 0.1;
  EXPECT_EQ(timeline.labelled().label, "no change") << "that there is anything is not likely";
}

TEST(Timeline, WhatIsWiderIsSaidToBe) {
  Timeline timeline;
  timeline.add({}, EventKind::valvulotomy, 0);
  TimelineEntry& entry = timeline.segments[0].entries[1];
  entry.change.mean_ratio = 1.5, entry.change.mean_ratio_sd = 0.05;
  EXPECT_EQ(timeline.labelled().label, "no change") << "of the words that there are";
  EXPECT_EQ(timeline.segments[0].reasons.back().rfind("wider than the reference", 0), 0U) << timeline.segments[0].reasons.back();
  entry.doubt = "the vessels move";
  EXPECT_EQ(timeline.labelled().label, "indeterminate") << "and what is doubtful is not as it was";
  EXPECT_EQ(timeline.segments[0].reasons.back(), "the vessels move");
  entry.change.mean_ratio_sd = 0.2;
  EXPECT_EQ(timeline.labelled().label, "no change") << "it may be as wide as it was";
}

TEST(Timeline, AShortNarrowingThatGoesByItselfIsNotNamed) {
  Timeline timeline;
  timeline.add({60, 3}, EventKind::valvulotomy, 0);
  timeline.add({0}, EventKind::spasmolytic, 0);
  EXPECT_EQ(timeline.labelled().label, "indeterminate");
}

TEST(Timeline, DoubtAndMissingLengthsNameNothing) {
  Timeline doubtful;
  doubtful.add({70}, EventKind::valvulotomy, 0);
  doubtful.segments[0].entries[1].doubt = "thin contrast";
  EXPECT_EQ(doubtful.labelled().label, "indeterminate");
  Timeline uncalibrated;
  uncalibrated.add({70}, EventKind::valvulotomy, 0);
  uncalibrated.segments[0].lengths_known = false;
  EXPECT_EQ(uncalibrated.labelled().label, "indeterminate");
}

TEST(Timeline, RunsThatSayNothingAreSaidSo) {
  Timeline timeline;
  timeline.add({}, EventKind::valvulotomy, 0);
  timeline.segments[0].entries[1].state = SegmentState::not_filled;
  timeline.segments[0].entries[1].change = {};
  timeline.segments[0].entries[1].note = "no contrast";
  EXPECT_EQ(timeline.labelled().label, "not filled");
  timeline.runs[1].comparable = false;
  EXPECT_EQ(timeline.labelled().label, "indeterminate");
}

TEST(Timeline, SpasmThatIsSeenOnlyAfterTheDrugsDidNotGiveWayToThem) {
  Timeline timeline;
  timeline.add({70}, EventKind::valvulotomy, 0);
  timeline.segments[0].entries[1].change = {};
  timeline.add({70}, EventKind::spasmolytic, 0);
  timeline.add({3}, EventKind::next_day, 1);
  EXPECT_EQ(timeline.labelled().label, "spasm, refractory");
}

TEST(Timeline, WhatIsAsNarrowInAnotherProcedureIsFixed) {
  Timeline timeline;
  const Seen narrowing{60, 26};
  timeline.add(narrowing, EventKind::valvulotomy, 0);
  timeline.add(narrowing, EventKind::balloon, 0);
  timeline.add(narrowing, EventKind::follow_up, 1);
  const SegmentTimeline& segment = timeline.labelled();
  ASSERT_GT(segment.entries[1].change.largest.spread_mm, 10) << "no focal one";
  for (int run = 1; run <= 3; ++run) EXPECT_EQ(segment.entries[run].label_now, "fixed stenosis") << run;
}

TEST(Timeline, WhatComesAgainWasNotFixed) {
  Timeline timeline;
  timeline.add({60, 26}, EventKind::valvulotomy, 0);
  timeline.add({2}, EventKind::spasmolytic, 0);
  timeline.add({60, 26}, EventKind::redo, 1);
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.entries[1].label_now, "spasm, relieved");
  EXPECT_EQ(segment.entries[3].label_now, "spasm, not yet settled");
}

TEST(Timeline, ANarrowingWithoutANameIsNotOutvoted) {
  Timeline timeline;
  timeline.add({60, 3}, EventKind::valvulotomy, 0);
  for (int run = 0; run < 4; ++run) timeline.add({0}, EventKind::spasmolytic, 0);
  EXPECT_EQ(timeline.labelled().label, "indeterminate");
}

TEST(Timeline, WhereASiteWasNotMeasuredItIsNotGone) {
  Timeline timeline;
  const Seen notch{60, 3};
  timeline.add(notch, EventKind::valvulotomy, 0);
  timeline.add({0}, EventKind::spasmolytic, 0);
  std::vector<LogRatio> elsewhere;
  for (double arc = 0; arc < 25; arc += 0.26) elsewhere.push_back({arc, 0, 0.03});
  timeline.segments[0].entries[2].change = estimate_change(elsewhere, 0.01);
  timeline.add({0}, EventKind::balloon, 0);
  EXPECT_EQ(timeline.labelled().label, "valve remnant");
}

TEST(Timeline, LayeredContrastIsNoNarrowing) {
  Timeline timeline;
  timeline.add({36, 30}, EventKind::valvulotomy, 0);
  for (Narrowing& narrowing : timeline.segments[0].entries[1].change.narrowings) narrowing.denser = 0.15;
  EXPECT_EQ(timeline.labelled().label, "indeterminate");
}

TEST(Timeline, AFocalOneThatHoldsMoreContrastIsEccentricWhereAllRunsSayTheSame) {
  Timeline timeline;
  timeline.add_lasting({42, 9});
  for (int run = 1; run <= 3; ++run)
    for (Narrowing& n : timeline.segments[0].entries[static_cast<std::size_t>(run)].change.narrowings) {
      n.denser = 0.4;
      if (run == 3) n.possible_mm = 14;  // in one of them what lies beside it is hidden
    }
  EXPECT_EQ(timeline.labelled().label, "fixed stenosis");
}

TEST(Timeline, WhatWasShutIsAsNarrowAsCouldNotBeSeen) {
  Timeline timeline;
  timeline.add_occluded_by_a_taper(EventKind::valvulotomy, 0);
  timeline.segments[0].entries[1].lost_bound = 0.3;
  timeline.add({4}, EventKind::spasmolytic, 0);
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.label, "spasm, relieved");
  EXPECT_NEAR(*segment.narrowing_percent, 85, 1e-9);
  EXPECT_NEAR((*segment.ci95)[0], 70, 1e-9);
  EXPECT_EQ(segment.grade, "mild");
}

TEST(Timeline, ASegmentThatCouldNotBeMeasuredAgainGoesWithTheNextOne) {
  Timeline hidden, open;
  hidden.add({70}, EventKind::valvulotomy, 0);
  hidden.add({70}, EventKind::spasmolytic, 0);
  hidden.segments[0].entries[2].change = {};
  open.add({70}, EventKind::valvulotomy, 0);
  open.add({5}, EventKind::spasmolytic, 0);
  std::vector<SegmentTimeline> segments = {hidden.labelled(), open.labelled()};
  ASSERT_EQ(segments[0].label, "spasm, not yet settled");
  settle_by_neighbours(segments, {});
  EXPECT_EQ(segments[0].label, "spasm, not yet settled");
  settle_by_neighbours(segments, {{0, 1}});
  EXPECT_EQ(segments[0].label, "spasm, relieved");
  EXPECT_EQ(segments[0].entries[1].label_now, "spasm, relieved");
  EXPECT_EQ(segments[0].entries[1].label_then, "spasm, not yet settled");
}

TEST(Timeline, AnInjuryIsGraverThanSpasmAndLessThanAnOcclusion) {
  Timeline timeline;
  timeline.add({80}, EventKind::valvulotomy, 0);
  timeline.segments[0].entries[1].injury = "dissection";
  timeline.segments[0].entries[1].injury_reasons = {"two lumina"};
  const SegmentTimeline& segment = timeline.labelled();
  EXPECT_EQ(segment.label, "dissection");
  EXPECT_EQ(segment.entries[1].label_now, "dissection");
  ASSERT_FALSE(segment.reasons.empty());
  EXPECT_EQ(segment.reasons.back(), "two lumina");
  timeline.add_occluded(EventKind::follow_up, 1);
  EXPECT_EQ(timeline.labelled().label, "occlusion");
  EXPECT_EQ(timeline.segments[0].entries[1].label_now, "dissection");
}

TEST(Timeline, FalseDiscoveriesAreBounded) {
  std::vector<SegmentTimeline> segments(40);
  for (std::size_t s = 0; s < segments.size(); ++s) {
    segments[s].entries.resize(1);
    segments[s].entries[0].change.known = true;
    segments[s].entries[0].change.largest.probability_25 = s < 4 ? 0.99 : 0.6;
  }
  control_false_discoveries(segments);
  int significant = 0;
  for (const SegmentTimeline& segment : segments) significant += segment.entries[0].significant;
  EXPECT_EQ(significant, 4);
}

TEST(Timeline, ExtentOfSpasm) {
  const auto extent = [](const std::vector<double>& lengths) {
    std::vector<SegmentTimeline> segments;
    std::vector<TimelineRun> runs;
    for (const double length : lengths) {
      Timeline timeline;
      timeline.add({80, length}, EventKind::valvulotomy, 0);
      segments.push_back(timeline.labelled());
      runs = timeline.runs;
    }
    return summarize_spasm(segments, runs).spasm_extent;
  };
  EXPECT_EQ(extent({}), "none");
  EXPECT_EQ(extent({20}), "focal");
  EXPECT_EQ(extent({45}), "segmental");
  EXPECT_EQ(extent({20, 20}), "segmental");
  EXPECT_EQ(extent({50, 50}), "diffuse");
  EXPECT_EQ(extent({20, 20, 20}), "diffuse");
}

TEST(Timeline, EventsAreKnownByTheirWords) {
  for (const EventKind kind : {EventKind::reference, EventKind::valvulotomy, EventKind::balloon, EventKind::spasmolytic,
                               EventKind::stent_graft, EventKind::next_day, EventKind::follow_up, EventKind::redo, EventKind::other})
    EXPECT_EQ(parse_event(to_string(kind)), kind);
  EXPECT_FALSE(parse_event("Spasm"));
}

}  // namespace
