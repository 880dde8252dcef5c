/// The clinical case: one anatomy in seven runs, and a timeline that is what its runs show.

#include "engine/phantom/clinical_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace cinelumen {
namespace {

PhantomCaseOptions small(const std::string& variant, std::uint64_t seed, int size, int frames) {
  PhantomCaseOptions options;
  options.variant = variant;
  options.base.seed = seed;
  options.base.rows = options.base.columns = size;
  options.base.frames = frames;
  return options;
}

std::vector<PhantomTruth> truths_of(const PhantomCase& made) {
  std::vector<PhantomTruth> truths;
  for (int run = 0; run < phantom_case_runs; ++run) truths.push_back(made.truth(run));
  return truths;
}

const PhantomSegment& segment(const PhantomTruth& truth, const std::string& name) {
  for (const PhantomSegment& s : truth.segments)
    if (s.name == name) return s;
  throw std::logic_error("no " + name);
}

const PhantomSegmentTimeline& timeline_of(const PhantomTimeline& timeline, const std::string& name) {
  for (const PhantomSegmentTimeline& s : timeline.segments)
    if (s.name == name) return s;
  throw std::logic_error("no " + name);
}

/// Index of the point nearest to a place along the vessel; -1 where none is near.
int index_at(const PhantomSegment& s, double place_mm, double within_mm) {
  int best = -1;
  double nearest = within_mm;
  for (std::size_t i = 0; i < s.points.size(); ++i)
    if (std::abs(s.points[i].place_mm - place_mm) < nearest) {
      nearest = std::abs(s.points[i].place_mm - place_mm);
      best = static_cast<int>(i);
    }
  return best;
}

bool near_a_border(double percent) { return std::abs(percent - 25) < 4.6 || std::abs(percent - 50) < 4.6 || std::abs(percent - 90) < 4.6; }

TEST(ClinicalCase, SameSeedSameBytes) {
  const PhantomCaseOptions options = small("null", 2, 64, 2);
  const PhantomRun a = PhantomCase(options).run(3);
  std::vector<PhantomRun> all;
  const PhantomTimeline timeline = make_phantom_case(options, [&](int run, const PhantomRun& made) {
    ASSERT_EQ(made.frames.size(), 2u);
    if (run != 3) return;
    for (std::size_t f = 0; f < 2; ++f)
      for (int y = 0; y < 64; ++y)
        for (int x = 0; x < 64; ++x) ASSERT_EQ(a.frames[f](y, x), made.frames[f](y, x));
  });
  EXPECT_EQ(timeline.events.size(), 7u);
  EXPECT_EQ(timeline.events[2].event, "spasmolytic");
  EXPECT_EQ(timeline.events[2].drug, "nitroglycerin");
  EXPECT_EQ(timeline.events[0].acquired, "2026-01-12T10:12:00");
  EXPECT_EQ(timeline.events[4].acquired, "2026-01-13T09:42:00");
  EXPECT_EQ(timeline.events[6].acquired, "2026-03-13T10:57:00");
}

TEST(ClinicalCase, OneAnatomyInSevenPoses) {
  const PhantomCase made(small("null", 3, 96, 2));
  const std::vector<PhantomTruth> truths = truths_of(made);
  EXPECT_EQ(truths[0].options.pose.rotation_deg, 0);
  std::set<int> free_frames;
  double largest_shift = 0;
  for (int run = 1; run < phantom_case_runs; ++run) {
    const PhantomTruth& truth = truths[static_cast<std::size_t>(run)];
    const PhantomPose& pose = truth.options.pose;
    EXPECT_LE(std::abs(pose.rotation_deg), 3);
    EXPECT_LE(std::hypot(pose.tilt_y_deg, pose.tilt_x_deg), 2);
    EXPECT_LE(std::hypot(pose.shift_y_mm, pose.shift_x_mm), 5);
    free_frames.insert(truth.options.contrast_free_frames);
    for (const PhantomSegment& s : truth.segments) {
      if (std::none_of(truths[0].segments.begin(), truths[0].segments.end(), [&](const auto& t) { return t.name == s.name; })) continue;
      const PhantomSegment& first = segment(truths[0], s.name);
      for (const PhantomPoint& p : s.points) {
        const int i = index_at(first, p.place_mm, 0.05);
        if (i < 0) continue;
        const PhantomPoint& q = first.points[static_cast<std::size_t>(i)];
        EXPECT_NEAR(p.radius_mm, q.radius_mm, 0.02) << s.name;
        EXPECT_NEAR(p.diameter_calibration_mm / q.diameter_calibration_mm, 1, 0.03) << "magnification changes a little";
        largest_shift = std::max(largest_shift, truth.mm_per_px * std::hypot(p.y_px - q.y_px, p.x_px - q.x_px));
      }
    }
  }
  EXPECT_GT(free_frames.size(), 2u);
  EXPECT_GT(largest_shift, 2);
  EXPECT_LT(largest_shift, 13);
  for (const PhantomSegmentTimeline& s : made.timeline(truths).segments) {
    EXPECT_TRUE(s.label == "no change" || s.label == "not filled") << s.name << " " << s.label;
    for (const PhantomState& state : s.runs) EXPECT_EQ(state.narrowing_percent, 0);
  }
}

// A pose moves what is drawn as it moves the truth: vessels to their centrelines, and the background with them.
TEST(ClinicalCase, PoseMovesVesselsAndBackgroundAlike) {
  PhantomOptions options;
  options.scenario = "foot";
  options.rows = options.columns = 192;
  options.frames = 32;
  options.noise_log_sd = 0;
  options.motion_px = 0;
  options.rotation_deg = 0;
  options.attenuation_per_mm = 0.02;
  const Image<float> still = expected_counts(options, 0);
  options.pose = {2.5, 0, 0, 3, -4, 0};
  const PhantomTruth truth = phantom_truth(options);
  const Image<float> before = expected_counts(options, 0), after = expected_counts(options, 31);
  // In the plane a pose is a turn and a shift of the picture (a little less or more where the foot is off the plane).
  const double c = std::cos(2.5 * 0.017453292519943295), s = std::sin(2.5 * 0.017453292519943295), mid = 95.5;
  double difference = 0, contrast = 0, count = 0, mean = 0;
  for (int y = 45; y < 147; ++y)
    for (int x = 45; x < 147; ++x) {
      // Where the room's pixel (y, x) was.
      const double qy = y - mid - 3 / truth.mm_per_px, qx = x - mid + 4 / truth.mm_per_px;
      const double py = mid + c * qy - s * qx, px = mid + c * qx + s * qy;
      const int j = static_cast<int>(py), i = static_cast<int>(px);
      const double fy = py - j, fx = px - i;
      const auto at = [&](int v, int u) { return static_cast<double>(still(v, u)); };
      const double expected = (1 - fy) * ((1 - fx) * at(j, i) + fx * at(j, i + 1)) + fy * ((1 - fx) * at(j + 1, i) + fx * at(j + 1, i + 1));
      difference += std::pow(std::log(static_cast<double>(before(y, x)) / expected), 2);
      contrast += std::pow(std::log(static_cast<double>(before(y, x)) / at(y, x)), 2);
      mean += std::log(at(y, x));
      count += 1;
    }
  EXPECT_LT(difference, 0.01 * contrast) << "the background";
  int checked = 0;
  for (const PhantomSegment& segment : truth.segments)
    for (std::size_t i = 3; i + 3 < segment.points.size(); i += 5) {
      const PhantomPoint& p = segment.points[i];
      if (p.gap_px < 6 || p.path_factor > 1.5 || p.y_px < 12 || p.x_px < 12 || p.y_px > 179 || p.x_px > 179) continue;
      if (segment.filling.back()[i] < 0.9f) continue;
      const PhantomPoint &a = segment.points[i - 1], &b = segment.points[i + 1];
      const double norm = std::hypot(b.y_px - a.y_px, b.x_px - a.x_px), ty = (b.y_px - a.y_px) / norm, tx = (b.x_px - a.x_px) / norm;
      double sum = 0, first = 0;
      for (int y = static_cast<int>(p.y_px) - 8; y <= p.y_px + 9; ++y)
        for (int x = static_cast<int>(p.x_px) - 8; x <= p.x_px + 9; ++x) {
          const double along = (y - p.y_px) * ty + (x - p.x_px) * tx, across = (y - p.y_px) * tx - (x - p.x_px) * ty;
          if (std::abs(across) > p.radius_px + 2.5) continue;
          const double added = std::exp(-along * along / 2) * std::log(before(y, x) / after(y, x));
          sum += added;
          first += added * across;
        }
      EXPECT_NEAR(first / sum, 0, 0.2) << segment.name << " at " << p.place_mm;
      ++checked;
    }
  EXPECT_GT(checked, 30);
}

TEST(ClinicalCase, RefractorySpasmIsWhatThePlanSays) {
  const PhantomCase made(small("refractory", 2, 128, 44));
  const std::vector<PhantomTruth> truths = truths_of(made);
  const PhantomTimeline timeline = made.timeline(truths);
  EXPECT_EQ(timeline.response, "refractory");
  int spastic = 0, severe = 0, slight = 0, occluded = 0, unfilled = 0;
  for (const PhantomSegmentTimeline& s : timeline.segments) {
    const bool spasm = s.runs[1].label_now == "spasm, refractory", below = s.runs[1].label_now == "narrowing below spasm grade";
    spastic += spasm || below;
    severe += s.grade == "severe";
    slight += below;
    occluded += s.label == "occlusion";
    unfilled += s.label == "not filled";
    EXPECT_EQ(s.runs[0].narrowing_percent, 0);
    for (std::size_t run = 4; run < 7; ++run) EXPECT_EQ(s.runs[run].narrowing_percent, 0);
    EXPECT_EQ(s.runs[5].state == "occluded", s.label == "occlusion");
    if (!spasm) continue;
    EXPECT_GE(s.narrowing_percent, 54.6);
    EXPECT_GT(s.lesion_extent_mm, 10);
    EXPECT_LT(s.lesion_extent_mm, 61);
    EXPECT_LT(s.recovery, 0.2);
    EXPECT_TRUE(s.role == "main" || s.role == "plantar" || s.role == "arch") << s.name;
    for (const std::size_t run : {1u, 2u, 3u}) {
      const PhantomState& state = s.runs[run];
      EXPECT_FALSE(near_a_border(state.narrowing_percent)) << s.name << " " << state.narrowing_percent;
      // The points' calibre against the first run's.
      const PhantomSegment &now = segment(truths[run], s.name), &before = segment(truths[0], s.name);
      const int i = index_at(now, state.at_mm, 1.5), j = index_at(before, state.at_mm, 1.5);
      ASSERT_TRUE(i >= 0 && j >= 0);
      const double ratio = now.points[static_cast<std::size_t>(i)].diameter_calibration_mm /
                           before.points[static_cast<std::size_t>(j)].diameter_calibration_mm;
      EXPECT_NEAR(100 * (1 - ratio), state.narrowing_percent, 2.5) << s.name;
    }
  }
  EXPECT_GE(spastic, 4);
  EXPECT_LE(spastic, 7);
  EXPECT_GE(severe, 1);
  EXPECT_GE(slight, 1);
  EXPECT_GE(occluded, 1);
  EXPECT_GE(unfilled, 1) << "the second stent-graft closes a perforator";
  EXPECT_EQ(timeline_of(timeline, "posterior tibial perforator").runs[6].state, "not filled");
  EXPECT_EQ(truths[6].devices.size(), truths[0].devices.size() + 1);
  // Deep veins are filled whenever they are not closed.
  for (const PhantomSegmentTimeline& s : timeline.segments)
    for (std::size_t run = 0; run < 7; ++run)
      if ((s.role == "main" || s.role == "plantar" || s.role == "arch") && s.runs[run].state != "occluded") {
        EXPECT_GT(s.runs[run].contrast, run == 5 ? 0.35 : 0.9) << s.name << " in run " << run + 1;
      }
}

TEST(ClinicalCase, NoContrastInAnOcclusionButBeyondIt) {
  PhantomCaseOptions options = small("refractory", 2, 160, 46);
  options.base.noise_log_sd = 0;
  options.base.motion_px = 0;
  options.base.rotation_deg = 0;
  options.devices = false;
  const PhantomCase made(options);
  const PhantomRun occluded = made.run(5), open = made.run(6);
  const auto added = [&](const PhantomRun& run, const std::string& name) {
    double sum = 0, count = 0;
    for (const PhantomPoint& p : segment(run.truth, name).points) {
      if (p.gap_px < 2 || p.y_px < 1 || p.x_px < 1 || p.y_px > 158 || p.x_px > 158) continue;
      const int y = static_cast<int>(std::lround(p.y_px)), x = static_cast<int>(std::lround(p.x_px));
      sum += std::log(static_cast<double>(run.frames.front()(y, x)) / run.frames.back()(y, x));
      count += 1;
    }
    return sum / count;
  };
  const std::string closed = "posterior tibial vein (arterialised) 3", beyond = "lateral plantar vein 1";
  EXPECT_LT(std::abs(added(occluded, closed)), 0.01);
  EXPECT_GT(added(occluded, beyond), 0.1);
  EXPECT_GT(added(open, closed), 0.1);
  const auto arrival = [&](const PhantomRun& run) {
    return segment(run.truth, beyond).points[5].arrival_ms - 250 * run.truth.options.contrast_free_frames;
  };
  EXPECT_GT(arrival(occluded), arrival(open) + 500) << "refill is late";
}

TEST(ClinicalCase, VariantsAreWhatTheyAreCalled) {
  {
    const PhantomCase made(small("relieved", 2, 64, 32));
    const PhantomTimeline timeline = made.timeline(truths_of(made));
    EXPECT_EQ(timeline.response, "relieved");
    for (const PhantomSegmentTimeline& s : timeline.segments) {
      EXPECT_NE(s.label, "occlusion");
      if (std::isnan(s.recovery)) continue;
      EXPECT_GE(s.recovery, 0.6);
      EXPECT_LT(s.runs[3].narrowing_percent, 45.3);
      EXPECT_EQ(s.label, "spasm, relieved");
    }
  }
  {
    const PhantomCase made(small("valve-and-fixed", 2, 64, 32));
    const PhantomTimeline timeline = made.timeline(truths_of(made));
    EXPECT_EQ(timeline.events[4].event, "balloon");
    EXPECT_EQ(timeline.events[4].session, 0);
    int valves = 0, stenoses = 0, spasms = 0;
    for (const PhantomSegmentTimeline& s : timeline.segments) {
      valves += s.label == "valve remnant";
      stenoses += s.label == "fixed stenosis";
      spasms += s.label == "spasm, refractory";
      if (s.label == "valve remnant") {
        EXPECT_EQ(s.runs[4].narrowing_percent, 0);
        EXPECT_LT(s.extent_mm, 3);
      }
      if (s.label == "fixed stenosis") {
        EXPECT_NEAR(s.runs[6].narrowing_percent, s.runs[1].narrowing_percent, 1e-9);
        EXPECT_LT(s.extent_mm, 9);
      }
    }
    EXPECT_EQ(valves, 2);
    EXPECT_EQ(stenoses, 2);
    EXPECT_EQ(spasms, 1);
  }
  {
    const PhantomCase made(small("steal", 2, 64, 44));
    const PhantomTruth before = made.truth(0), steal = made.truth(2), after = made.truth(5);
    EXPECT_GT(steal.flow_split->perforators, 0.5);
    EXPECT_LT(after.flow_split->perforators, 0.2);
    for (const PhantomSegment& s : steal.segments) {
      const PhantomSegment& first = segment(before, s.name);
      for (const PhantomPoint& p : s.points) EXPECT_EQ(p.radius_mm, p.healthy_radius_mm);
      if (s.role != "arch") continue;
      const std::size_t middle = s.points.size() / 2, then = first.points.size() / 2;
      EXPECT_LT(s.filling.back()[middle], 0.9f * first.filling.back()[then]) << s.name << ": diluted";
      EXPECT_GT(s.points[middle].arrival_ms - 250 * steal.options.contrast_free_frames,
                first.points[then].arrival_ms - 250 * before.options.contrast_free_frames + 500)
          << s.name << ": late";
    }
  }
}

TEST(ClinicalCase, WrongOptionsAreNamed) {
  EXPECT_THROW(PhantomCase(small("sudden", 1, 64, 2)), std::invalid_argument);
  PhantomCaseOptions options = small("null", 1, 64, 2);
  EXPECT_THROW(PhantomCase(options).run(7), std::invalid_argument);
  options.base.scenario = "tubes";
  EXPECT_THROW(PhantomCase{options}, std::invalid_argument);
  for (const std::string& variant : phantom_case_variants()) EXPECT_FALSE(phantom_case_summary(variant).empty());
}

}  // namespace
}  // namespace cinelumen
