#pragma once
/// A made-up case: one vein tree in seven runs, with spasm that two drugs do not relieve, an occlusion, a redo, and names that hold HTML.
/// Labels come from the rules themselves; only what was measured is made up. For what is written about a comparison.

#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "engine/comparison.h"
#include "support/fabricated.h"

namespace cinelumen::test {

/// Seven runs as given to compare_runs(), and what it would say of them.
struct FabricatedCase {
  static constexpr int side = 160;
  std::vector<ComparedRun> runs;
  std::vector<std::string> folders;
  Comparison comparison;

  /// `apart`: this run (0-based, not the first) is of another projection; -1: none.
  explicit FabricatedCase(int apart = -1) {
    add_run("2026-01-12T10:12:00", {EventKind::reference, "", "", "before \"valvulotomy\""});
    add_run("2026-01-12T10:37:00", {EventKind::valvulotomy, "", "", "<img src=x onerror=alert(2)>"});
    add_run("2026-01-12T10:47:00", {EventKind::spasmolytic, "nitro<b>glycerin", "200 & ug", ""});
    add_run("2026-01-12T10:57:00", {EventKind::spasmolytic, "papaverine", "30 mg", ""});
    add_run("2026-01-13T09:42:00", {EventKind::next_day, "", "", ""});
    add_run("2026-03-13T09:57:00", {EventKind::follow_up, "", "", ""});
    add_run("2026-03-13T10:57:00", {EventKind::redo, "", "", ""});
    folders = {"run_01", "run 02 <x>", "javascript:alert(3)", "/elsewhere/run_04", "run_05", "", "../finished/run_07"};
    std::vector<TimelineRun> context;
    const int procedures[] = {0, 0, 0, 0, 1, 2, 3};
    for (std::size_t r = 0; r < runs.size(); ++r) {
      ComparedRunSummary summary;
      summary.index = summary.given = static_cast<int>(r);
      summary.is_reference = r == 0;
      summary.comparable = static_cast<int>(r) != apart;
      summary.procedure = procedures[r];
      if (!summary.comparable) summary.note = "not comparable: another projection, <i>18</i> degrees apart";
      summary.registration.reliable = summary.comparable;
      summary.registration.correlation = summary.registration.agreement = 0.98;
      summary.registration.shift = {r % 3 * 1.5, r % 2 * -2.0};
      summary.matched_share = 1;
      summary.scale_offset = r == 0 ? 0 : 0.004 * static_cast<double>(r % 3);
      summary.scale_offset_sd = 0.005;
      comparison.runs.push_back(summary);
      context.push_back({runs[r].event.kind, procedures[r], summary.comparable, summary.is_reference});
    }
    comparison.reference_note = "named so by the events";
    comparison.calibrated = true;
    for (std::size_t s = 0; s < runs[0].analysis.segments.size(); ++s) comparison.segments.push_back(timeline(s, apart));
    control_false_discoveries(comparison.segments);
    for (SegmentTimeline& segment : comparison.segments) label_timeline(segment, context);
    comparison.summary = summarize_spasm(comparison.segments, context);
    comparison.warnings = {"run_02.dcm: <script>alert(4)</script>"};
  }

 private:
  void add_run(const std::string& acquired, RunEvent event) {
    FabricatedRun made(side, 12);
    ComparedRun run;
    run.description = made.run.description;
    run.description.path = "/data/run_" + std::to_string(runs.size() + 1) + ".dcm";
    run.valid = Image<std::uint8_t>(side, side);
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) run.valid(y, x) = 1;
    run.analysis = std::move(made.analysis);
    run.analysis.calibration.mm_per_px = 0.6;
    run.analysis.flow.arch_filled = runs.size() != 1;
    if (runs.size() != 1) run.analysis.flow.arch_arrival_ms = 266.667 * 6;
    if (runs.size() == 2) run.analysis.flow.steal_fraction = 0.42, run.analysis.flow.steal_sd = 0.06;
    run.acquired = acquired;
    run.event = std::move(event);
    runs.push_back(std::move(run));
  }

  /// Per cent that segment `s` is narrower by in run `r`, at its middle.
  static double narrowing(std::size_t s, std::size_t r) {
    const bool spastic = r >= 1 && r <= 3;
    if (s == 1 || s == 2) return spastic ? 72 : 0;
    if (s == 3) return spastic ? 60 : 0;
    if (s == 8) return spastic ? 38 : 0;
    return 0;
  }

  SegmentTimeline timeline(std::size_t s, int apart) const {
    const SegmentResult& from = runs[0].analysis.segments[s];
    const double mm = runs[0].analysis.calibration.mm_per_px, length = from.centreline.length_px() * mm;
    SegmentTimeline timeline;
    timeline.id = from.id;
    timeline.name = s == 2 ? "plantar <script>alert(5)</script>" : from.name;
    timeline.length_mm = length;
    const CentrelinePoint& middle = from.centreline.points[from.centreline.points.size() / 2];
    timeline.at_px = {middle.y, middle.x};
    for (const CentrelinePoint& point : from.centreline.points) {
      timeline.arc_mm.push_back(static_cast<float>(point.arc_length_px * mm));
      timeline.reference_mm.push_back(2.4F);
      timeline.reference_sd_mm.push_back(0.05F);
    }
    for (std::size_t r = 0; r < runs.size(); ++r) timeline.entries.push_back(entry(s, r, length, apart));
    return timeline;
  }

  TimelineEntry entry(std::size_t s, std::size_t r, double length, int apart) const {
    TimelineEntry entry;
    entry.run = static_cast<int>(r);
    if (static_cast<int>(r) == apart) {
      entry.note = comparison.runs[r].note;
      return entry;
    }
    const SegmentResult& there = runs[r].analysis.segments[s];
    entry.segment = there.id;
    entry.arrival_ms = there.flow.times.arrival_ms;
    entry.velocity_mm_s = there.flow.velocity_mm_s;
    entry.auc_relative_to_inlet = there.flow.auc_relative_to_inlet;
    entry.state = SegmentState::measured;
    if (s == 4 && r == 2) {
      entry.state = SegmentState::not_filled;
      entry.note = "contrast never came <here>";
      return entry;
    }
    if (s == 5 && r == 4) {
      entry.state = SegmentState::out_of_view;
      entry.note = "80 % of it lie outside this run's field";
      return entry;
    }
    if (s == 0 && r == 5) {
      entry.state = SegmentState::occluded;
      entry.lost_mm = {0.3 * length, 0.8 * length};
      return entry;
    }
    std::vector<LogRatio> ratios;
    for (double arc = 0; arc < length; arc += 0.3) {
      const double u = std::abs(arc - 0.5 * length) / (0.45 * length);
      const double depth = u < 1 ? 0.005 * narrowing(s, r) * (1 + std::cos(std::numbers::pi * u)) : 0;
      ratios.push_back({arc, std::log(1 - depth), 0.03});
    }
    entry.change = estimate_change(ratios, 0.01);
    entry.diameter_mm = 2.4 * entry.change.mean_ratio;
    entry.sd_mm = 2.4 * entry.change.mean_ratio_sd;
    entry.percent_of_reference = 100 * entry.change.mean_ratio;
    entry.ci95 = {{100 * (entry.change.mean_ratio - 1.96 * entry.change.mean_ratio_sd),
                   100 * (entry.change.mean_ratio + 1.96 * entry.change.mean_ratio_sd)}};
    return entry;
  }
};

}  // namespace cinelumen::test
