/// Where the contrast of a foot goes, against the flow that made the phantom.

#include "engine/foot_flow.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "support/graph_matching.h"

namespace cinelumen {
namespace {

// Of what enters the image (the widest flow in a piece of the main vein), what does not enter the arch.
double true_steal(const PhantomTruth& truth) {
  double arch = 0, inflow = 0;
  for (const PhantomSegment& segment : truth.segments)
    if (segment.role == "main") inflow = std::max(inflow, segment.flow_mm3_s);
  for (const char* last : {"lateral plantar vein 3", "medial plantar vein 2"})
    for (const PhantomSegment& segment : truth.segments)
      if (segment.name == last) arch += segment.flow_mm3_s;
  return 1 - arch / inflow;
}

const PhantomSegment* truth_of(const test::GraphComparison& comparison, const PhantomTruth& truth, std::size_t segment) {
  const auto& counts = comparison.truths_of(segment);
  const auto most = std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most == counts.end()) return nullptr;
  return &*std::find_if(truth.segments.begin(), truth.segments.end(), [&](const PhantomSegment& s) { return s.id == most->first; });
}

double first_arrival(const PhantomTruth& truth, const std::string& role) {
  double first = 1e9;
  for (const PhantomSegment& segment : truth.segments)
    if (segment.role == role)
      for (const PhantomPoint& point : segment.points)
        if (std::isfinite(point.arrival_ms)) first = std::min(first, point.arrival_ms);
  return first;
}

NamedRegion box(const char* name, const PhantomSegment& around, double half_px) {
  const PhantomPoint& middle = around.points[around.points.size() / 2];
  const double y = middle.y_px, x = middle.x_px;
  return {name, {{y - half_px, x - half_px}, {y - half_px, x + half_px}, {y + half_px, x + half_px}, {y + half_px, x - half_px}}};
}

TEST(FootFlow, ArchStealAndReturnOfAFoot) {
  const PhantomRun phantom = test::phantom_of("foot", 512, 601, 42);
  AnalysisOptions options;
  for (const PhantomSegment& segment : phantom.truth.segments)
    if (segment.name == "lateral plantar vein 2") options.regions = {box("wound", segment, 30), box("vessel", segment, 30)};
  const Analysis analysis = analyze(Stream::cpu(), make_run(phantom), options);
  const FlowSummary& flow = analysis.flow;

  ASSERT_TRUE(flow.arch_filled);
  EXPECT_TRUE(*flow.arch_filled);
  const double arch = first_arrival(phantom.truth, "arch");
  EXPECT_GT(*flow.arch_arrival_ms, arch - 50);
  EXPECT_LT(*flow.arch_arrival_ms, arch + 500) << "of its middle, not of its beginning";

  ASSERT_TRUE(flow.steal_fraction);
  EXPECT_NEAR(*flow.steal_fraction, true_steal(phantom.truth), 1.96 * *flow.steal_sd);
  EXPECT_LE(*flow.steal_sd, 0.1);

  const test::GraphComparison comparison(analysis, phantom.truth);
  ASSERT_FALSE(flow.early_venous_return.empty()) << "the paired tibial vein carries contrast back before the arch has any";
  for (std::size_t s = 0; s < analysis.segments.size(); ++s) {
    const SegmentResult& segment = analysis.segments[s];
    const bool early = std::count(flow.early_venous_return.begin(), flow.early_venous_return.end(), segment.id) > 0;
    if (segment.role != "collateral") {
      EXPECT_FALSE(early) << segment.id;
      continue;
    }
    const PhantomSegment* truth = truth_of(comparison, phantom.truth, s);
    ASSERT_TRUE(truth);
    EXPECT_EQ(truth->role, "collateral") << segment.id;
    EXPECT_EQ(early, truth->points[truth->points.size() / 2].arrival_ms < arch) << truth->name;
  }

  ASSERT_EQ(flow.regions.size(), 2u);
  ASSERT_TRUE(flow.regions[1].times.peak);
  EXPECT_LT(flow.regions[0].times.peak.value_or(0), 0.1 * *flow.regions[1].times.peak) << "without its vessels nothing is left to fill";
}

TEST(FootFlow, WhereTheArchIsNotFilledNothingIsSaid) {
  // Most of the flow leaves before the arch, whose far end no contrast reaches within the run: no loop, no arch, no share.
  const PhantomRun phantom = test::phantom_of("steal", 512, 601, 42);
  const Analysis analysis = analyze(Stream::cpu(), make_run(phantom), {});
  if (analysis.flow.steal_fraction) {
    EXPECT_NEAR(*analysis.flow.steal_fraction, true_steal(phantom.truth), 1.96 * *analysis.flow.steal_sd);
  }
  if (analysis.flow.arch_filled) {
    EXPECT_GT(*analysis.flow.arch_arrival_ms, first_arrival(phantom.truth, "arch") - 50);
  }
  const test::GraphComparison comparison(analysis, phantom.truth);
  for (std::size_t s = 0; s < analysis.segments.size(); ++s) {
    if (analysis.segments[s].role.empty()) continue;
    const PhantomSegment* truth = truth_of(comparison, phantom.truth, s);
    ASSERT_TRUE(truth);
    EXPECT_EQ(analysis.segments[s].role, truth->role) << truth->name;
  }
}

// A straight vessel, contrast arriving later and later along it.
TEST(FootFlow, TransitsComeFromArrivals) {
  Analysis analysis;
  SegmentMeasurements measurements;
  measurements.contrast_sd = 0.002;
  for (int f = 0; f < 40; ++f) analysis.frame_times_ms.push_back(100.0 * f);
  for (const double slowness_ms_px : {10.0, -5.0, 0.0}) {
    SegmentResult segment;
    auto& contrast = measurements.contrast.emplace_back();
    for (int i = 0; i <= 80; ++i) {
      CentrelinePoint point;
      point.x = point.arc_length_px = static_cast<float>(i);
      segment.centreline.points.push_back(point);
    }
    for (int f = 0; f < 40; ++f) {
      auto& frame = contrast.emplace_back();
      for (int i = 0; i <= 80; ++i)
        frame.push_back(static_cast<float>(0.3 / (1 + std::exp(-(100.0 * f - 1800 - slowness_ms_px * (i - 40)) / 150))));
    }
    analysis.segments.push_back(std::move(segment));
  }
  const auto transits = measure_transits(measurements, analysis);
  ASSERT_EQ(transits.size(), 3u);
  ASSERT_TRUE(transits[0] && transits[1]);
  EXPECT_NEAR(transits[0]->slowness_s_px, 0.010, 0.0005);
  EXPECT_NEAR(transits[1]->slowness_s_px, -0.005, 0.0005);
  EXPECT_FALSE(transits[2]) << "no delay, no direction";
  analysis.frame_times_ms.clear();
  EXPECT_FALSE(measure_transits(measurements, analysis)[0]);
}

}  // namespace
}  // namespace cinelumen
