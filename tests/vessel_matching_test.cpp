/// Vessels drawn by formula, moved, cut at other places and partly gone; and two runs of a phantom patient in other poses.

#include "engine/vessel_matching.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <numbers>

#include "engine/phantom/clinical_case.h"
#include "support/vessel_matches.h"

namespace cinelumen {
namespace {

using Point = std::array<double, 2>;
using Curve = std::function<Point(double)>;  // of 0 to 1

/// Points 1 px apart along the part of a curve, in its direction or against it. parameters: gets those of the points.
SegmentResult segment_of(const Curve& curve, double from = 0, double to = 1, std::vector<double>* parameters = nullptr) {
  SegmentResult segment;
  constexpr int steps = 4000;
  double arc = 0, next = 0;
  Point last = curve(from);
  for (int i = 0; i <= steps; ++i) {
    const Point p = curve(from + (to - from) * i / steps);
    arc += std::hypot(p[0] - last[0], p[1] - last[1]);
    last = p;
    if (arc < next) continue;
    CentrelinePoint point;
    point.y = static_cast<float>(p[0]);
    point.x = static_cast<float>(p[1]);
    point.arc_length_px = static_cast<float>(arc);
    segment.centreline.points.push_back(point);
    if (parameters) parameters->push_back(from + (to - from) * i / steps);
    next += 1;
  }
  return segment;
}

/// The curve as a registration moves it, and `dy`, `dx` further.
Curve moved(const Curve& curve, const RunRegistration& registration, double dy = 0, double dx = 0) {
  return [=](double t) -> Point {
    const Point p = curve(t), q = registration.forward(p[0], p[1]);
    return {q[0] + dy, q[1] + dx};
  };
}

/// 3 degrees about (200, 200), and 25 px.
RunRegistration pose() {
  const double c = std::cos(3 * std::numbers::pi / 180), s = std::sin(3 * std::numbers::pi / 180);
  RunRegistration registration;
  registration.affine = {{{c, s}, {-s, c}}};
  registration.shift = {200 - c * 200 - s * 200 + 15, 200 + s * 200 - c * 200 - 20};
  registration.reliable = true;
  return registration;
}

/// A vein down the picture, one beside it 7 px away, a branch off the first, and an arch across.
const Curve vein = [](double t) -> Point { return {30 + 300 * t, 150 + 20 * std::sin(4 * t)}; };
const Curve paired = [](double t) -> Point { return {30 + 300 * t, 157 + 20 * std::sin(4 * t)}; };
const Curve branch = [](double t) -> Point {
  const Point p = vein(0.4);
  return {p[0] + 80 * t, p[1] - 90 * t - 10 * std::sin(3 * t)};
};
const Curve arch = [](double t) -> Point { return {340 + 20 * std::sin(3 * t), 60 + 220 * t}; };

VesselMatchingOptions options() {
  VesselMatchingOptions result;
  result.mm_per_px = 0.25;
  return result;
}

/// Distance in px, along and across, from where a reference point's match lies to where it should.
double miss(const SegmentResult& run_segment, const PointMatch& match, const Point& expected) {
  const auto& points = run_segment.centreline.points;
  const int i = std::min(static_cast<int>(match.point), static_cast<int>(points.size()) - 2);
  const double f = match.point - i;
  return std::hypot((1 - f) * points[i].y + f * points[i + 1].y - expected[0], (1 - f) * points[i].x + f * points[i + 1].x - expected[1]);
}

/// Matched points and the largest miss of a reference segment.
struct Found {
  double share = 0, largest_miss_px = 0;
};
Found found(const VesselMatching& matching, int segment, const std::vector<SegmentResult>& reference, const std::vector<SegmentResult>& run,
            const RunRegistration& truth, double dy = 0, double dx = 0) {
  Found result;
  for (std::size_t k = 0; k < matching.points[segment].size(); ++k) {
    const PointMatch& match = matching.points[segment][k];
    if (!match.matched()) continue;
    ++result.share;
    const CentrelinePoint& p = reference[segment].centreline.points[k];
    Point expected = truth.forward(p.y, p.x);
    expected[0] += dy;
    expected[1] += dx;
    result.largest_miss_px = std::max(result.largest_miss_px, miss(run[match.segment], match, expected));
  }
  result.share /= static_cast<double>(matching.points[segment].size());
  return result;
}

TEST(VesselMatching, TheSameVesselsAreFoundWhereverTheyAreCut) {
  const RunRegistration truth = pose();
  const std::vector<SegmentResult> reference = {segment_of(vein), segment_of(paired), segment_of(branch), segment_of(arch)};
  // In the run the vein is cut at its branch, the arch in the middle and one half of it is stored the other way round.
  const std::vector<SegmentResult> run = {segment_of(moved(arch, truth), 0, 0.5), segment_of(moved(vein, truth), 0.4, 1),
                                          segment_of(moved(paired, truth), 1, 0), segment_of(moved(vein, truth), 0, 0.4),
                                          segment_of(moved(branch, truth)),       segment_of(moved(arch, truth), 1, 0.5)};
  RunRegistration registration = truth;  // bone lies 2 px beside the vessels
  registration.shift[0] += 1;
  registration.shift[1] -= 2;
  const VesselMatching matching = match_vessels(reference, run, registration, options());
  EXPECT_EQ(matching.segment, (std::vector<int>{1, 2, 4, 0}));
  EXPECT_TRUE(matching.unmatched_in_run.empty());
  for (int s = 0; s < 4; ++s) {
    const Found f = found(matching, s, reference, run, truth);
    EXPECT_GE(f.share, 0.97) << s;
    EXPECT_EQ(f.share, matching.matched_share[s]);
    EXPECT_LE(f.largest_miss_px, 1) << s;
    for (std::size_t k = 1; k < matching.points[s].size(); ++k) {
      const PointMatch &a = matching.points[s][k - 1], &b = matching.points[s][k];
      if (!a.matched() || a.segment != b.segment) continue;
      const bool reversed = s == 1 || (s == 3 && a.segment == 5);
      EXPECT_TRUE(reversed ? b.point <= a.point : b.point >= a.point) << s << " " << k;
    }
  }
  const auto refined = matching.registration.forward(200, 160), expected = truth.forward(200, 160);
  EXPECT_LE(std::hypot(refined[0] - expected[0], refined[1] - expected[1]), 0.7);
}

TEST(VesselMatching, ATiltMovesVesselsByTheirDepth) {
  // The displacement grows along the vein, its paired vein lies deeper throughout; the branch begins where the vein is.
  const RunRegistration truth = pose();
  const auto tilted = [&](const Curve& curve, double at_start, double at_end) -> Curve {
    return [=](double t) -> Point {
      const Point p = curve(t), q = truth.forward(p[0], p[1]);
      const double d = at_start + t * (at_end - at_start);
      return {q[0] + 0.5 * d, q[1] + std::sqrt(0.75) * d};
    };
  };
  const std::vector<SegmentResult> reference = {segment_of(vein, 0, 0.4), segment_of(vein, 0.4, 1), segment_of(paired), segment_of(branch),
                                                segment_of(arch)};
  const Curve vein_there = tilted(vein, -2, 3);
  const std::vector<SegmentResult> run = {segment_of(vein_there, 0, 0.4), segment_of(vein_there, 0.4, 1), segment_of(tilted(paired, 1, 5)),
                                          segment_of(tilted(branch, 0, -4)), segment_of(tilted(arch, 4, 4))};
  const VesselMatching matching = match_vessels(reference, run, truth, options());
  EXPECT_EQ(matching.segment, (std::vector<int>{0, 1, 2, 3, 4}));
  // Across, a vessel that fits has no error; along it only the common direction and the branch point tell. 2 px are 0.5 mm.
  const auto check = [&](int s, const Curve& there, const Curve& here, double from, double to, double largest_px) {
    std::vector<double> parameters;
    segment_of(here, from, to, &parameters);
    int matched = 0;
    for (std::size_t k = 0; k < matching.points[s].size(); ++k) {
      const PointMatch& match = matching.points[s][k];
      if (!match.matched()) continue;
      ++matched;
      EXPECT_LE(miss(run[match.segment], match, there(parameters[k])), largest_px) << s << " " << k;
    }
    EXPECT_GE(matched, 0.95 * static_cast<double>(matching.points[s].size())) << s;
  };
  check(0, vein_there, vein, 0, 0.4, 2);
  check(1, vein_there, vein, 0.4, 1, 2);
  check(2, tilted(paired, 1, 5), paired, 0, 1, 2);
  check(3, tilted(branch, 0, -4), branch, 0, 1, 2);
}

TEST(VesselMatching, WhatIsGoneIsNotMatchedToItsNeighbour) {
  const RunRegistration truth = pose();
  const std::vector<SegmentResult> reference = {segment_of(vein), segment_of(paired), segment_of(branch), segment_of(arch)};
  // The paired vein is occluded; then the vein is; then a piece in its middle.
  const std::vector<SegmentResult> without_paired = {segment_of(moved(vein, truth)), segment_of(moved(branch, truth)),
                                                     segment_of(moved(arch, truth))};
  const VesselMatching first = match_vessels(reference, without_paired, truth, options());
  EXPECT_EQ(first.segment, (std::vector<int>{0, -1, 1, 2}));
  EXPECT_EQ(first.matched_share[1], 0);
  const std::vector<SegmentResult> without_vein = {segment_of(moved(paired, truth)), segment_of(moved(branch, truth)),
                                                   segment_of(moved(arch, truth))};
  const VesselMatching second = match_vessels(reference, without_vein, truth, options());
  EXPECT_EQ(second.segment, (std::vector<int>{-1, 0, 1, 2}));
  EXPECT_EQ(second.matched_share[0], 0);
  const std::vector<SegmentResult> interrupted = {segment_of(moved(vein, truth), 0, 0.45), segment_of(moved(vein, truth), 0.6, 1),
                                                  segment_of(moved(paired, truth)), segment_of(moved(branch, truth)),
                                                  segment_of(moved(arch, truth))};
  const VesselMatching third = match_vessels(reference, interrupted, truth, options());
  EXPECT_EQ(third.segment, (std::vector<int>{0, 2, 3, 4}));
  EXPECT_NEAR(third.matched_share[0], 0.85, 0.03);
  EXPECT_LE(found(third, 0, reference, interrupted, truth).largest_miss_px, 2);
  // Without the paired vein in the reference, that of the run is new.
  const VesselMatching fourth = match_vessels({reference[0], reference[2], reference[3]}, without_vein, truth, options());
  EXPECT_EQ(fourth.segment, (std::vector<int>{-1, 1, 2}));
  EXPECT_EQ(fourth.unmatched_in_run, (std::vector<int>{0}));
}

TEST(VesselMatching, PairedVeinsAreToldApartWhereBoneIsOffByHalfTheirDistance) {
  const RunRegistration truth = pose();
  const std::vector<SegmentResult> reference = {segment_of(vein), segment_of(paired), segment_of(branch), segment_of(arch)};
  const std::vector<SegmentResult> run = {segment_of(moved(vein, truth)), segment_of(moved(paired, truth)),
                                          segment_of(moved(branch, truth)), segment_of(moved(arch, truth))};
  for (const double off : {-5.0, 5.0}) {
    RunRegistration registration = truth;
    registration.shift[1] += off;
    const VesselMatching matching = match_vessels(reference, run, registration, options());
    EXPECT_EQ(matching.segment, (std::vector<int>{0, 1, 2, 3})) << off;
    for (int s = 0; s < 4; ++s) EXPECT_LE(found(matching, s, reference, run, truth).largest_miss_px, 1) << off << " " << s;
  }
}

TEST(VesselMatching, VesselsThatCrossKeepTheirOwnPlaces) {
  const RunRegistration truth = pose();
  const Curve crossing = [](double t) -> Point { return {100 + 200 * t, 60 + 200 * t}; };
  const std::vector<SegmentResult> reference = {segment_of(vein), segment_of(crossing)};
  const std::vector<SegmentResult> run = {segment_of(moved(crossing, truth)), segment_of(moved(vein, truth))};
  const VesselMatching matching = match_vessels(reference, run, truth, options());
  EXPECT_EQ(matching.segment, (std::vector<int>{1, 0}));
  EXPECT_GE(matching.matched_share[0], 0.99);
  EXPECT_GE(matching.matched_share[1], 0.99);
}

TEST(VesselMatching, NothingIsMatchedWithoutARegistration) {
  RunRegistration registration = pose();
  registration.reliable = false;
  const std::vector<SegmentResult> reference = {segment_of(vein)};
  const VesselMatching matching = match_vessels(reference, reference, registration, options());
  EXPECT_EQ(matching.segment, (std::vector<int>{-1}));
  EXPECT_EQ(matching.unmatched_in_run, (std::vector<int>{0}));
  const VesselMatching empty = match_vessels({}, {}, pose(), options());
  EXPECT_TRUE(empty.points.empty());
  const VesselMatching one_sided = match_vessels(reference, {}, pose(), options());
  EXPECT_EQ(one_sided.matched_share, (std::vector<double>{0}));
  VesselMatchingOptions wrong = options();
  wrong.mm_per_px = 0;
  EXPECT_THROW(match_vessels(reference, reference, pose(), wrong), std::invalid_argument);
}

TEST(VesselMatching, RunsOfOnePatientInOtherPoses) {
  PhantomCaseOptions options;
  options.variant = "refractory";
  options.base.rows = options.base.columns = 384;
  options.base.frames = 18;
  options.base.frame_time_ms = 700;
  options.base.seed = 600;
  const PhantomCase patient(options);
  const PhantomRun before = patient.run(0), after = patient.run(1);
  const Analysis reference = analyze(Stream::cpu(), make_run(before), {}), run = analyze(Stream::cpu(), make_run(after), {});
  const RunRegistration registration = register_runs(reference.mask_picture.view(), {}, run.mask_picture.view(), {}, 1);
  ASSERT_TRUE(registration.reliable) << registration.note;
  VesselMatchingOptions matching_options;
  matching_options.mm_per_px = reference.calibration.mm_per_px;
  const VesselMatching matching = match_vessels(reference.segments, run.segments, registration, matching_options);
  const test::MatchingFigures figures = test::compare_matching(reference, before.truth, run, after.truth, matching);
  std::printf("  edges matched %d of %d, arc length %.3f mm rms, 95 %% within %.3f mm\n", figures.matched_edges, figures.edges,
              figures.rms_mm(), figures.quantile_mm(0.95));
  EXPECT_GE(figures.edges, 20);
  EXPECT_GE(figures.matched_edges, 0.95 * figures.edges);
  EXPECT_LE(static_cast<double>(figures.wrong), 0.005 * static_cast<double>(figures.given));
  EXPECT_LE(figures.rms_mm(), 0.3);
  EXPECT_LE(figures.quantile_mm(0.95), 0.5);
}

}  // namespace
}  // namespace cinelumen
