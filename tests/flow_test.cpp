/// Time-density curves whose truth is known: how precise, how biased, and defined whatever is given.

#include "engine/flow.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

namespace cinelumen {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// Gamma variate with its largest value, time of onset and from onset to peak in s.
struct Bolus {
  double height, onset, rise, shape;
  double operator()(double t) const {
    const double x = (t - onset) / rise;
    return x > 0 ? height * std::exp(shape * (std::log(x) + 1 - x)) : 0;
  }
  double half_rise() const {
    double low = onset, high = onset + rise;
    for (int i = 0; i < 60; ++i) {
      const double middle = 0.5 * (low + high);
      ((*this)(middle) < 0.5 * height ? low : high) = middle;
    }
    return low;
  }
};

TimeDensityCurve sample(const std::function<double(double)>& contrast, int frames, double interval_s, double noise_sd, std::mt19937& random,
                        double start_s = 0) {
  std::normal_distribution<double> normal(0, 1);
  TimeDensityCurve curve;
  for (int i = 0; i < frames; ++i) {
    const double t = start_s + i * interval_s;
    curve.time_ms.push_back(1000 * t);
    curve.contrast.push_back(contrast(t) + noise_sd * normal(random));
    curve.contrast_sd.push_back(noise_sd);
  }
  return curve;
}

void expect_finite(const FlowTimes& times) {
  for (const auto& value :
       {times.arrival_ms, times.arrival_sd_ms, times.time_to_peak_ms, times.mean_transit_ms, times.wash_in_per_s, times.peak, times.area})
    EXPECT_TRUE(!value || std::isfinite(*value));
  EXPECT_EQ(times.arrival_ms.has_value(), times.arrival_sd_ms.has_value());
}

// --- regions ---

TEST(Regions, PixelsOfASquare) {
  const NamedRegion square{"wound", {{1.5, 2.5}, {1.5, 5.5}, {4.5, 5.5}, {4.5, 2.5}}};
  const auto pixels = pixels_in(square, 10, 10);
  ASSERT_EQ(pixels.size(), 9u);
  EXPECT_EQ(pixels.front(), (std::array<int, 2>{2, 3}));
  EXPECT_EQ(pixels.back(), (std::array<int, 2>{4, 5}));
}

TEST(Regions, AgreesWithPointByPointTest) {
  std::mt19937 random(4);
  std::uniform_real_distribution<double> uniform(-6, 26);
  for (int trial = 0; trial < 50; ++trial) {
    NamedRegion region;
    for (int i = 0; i < 3 + trial % 6; ++i) region.polygon_px.push_back({uniform(random), uniform(random)});
    std::vector<std::array<int, 2>> expected;
    for (int y = 0; y < 20; ++y)
      for (int x = 0; x < 18; ++x) {
        bool inside = false;  // a ray to the right
        for (std::size_t i = 0, j = region.polygon_px.size() - 1; i < region.polygon_px.size(); j = i++) {
          const auto &a = region.polygon_px[i], &b = region.polygon_px[j];
          if ((a[0] > y) != (b[0] > y) && x < (b[1] - a[1]) * (y - a[0]) / (b[0] - a[0]) + a[1]) inside = !inside;
        }
        if (inside) expected.push_back({y, x});
      }
    EXPECT_EQ(pixels_in(region, 20, 18), expected) << "trial " << trial;
  }
}

TEST(Regions, BadPolygonsHaveNoPixels) {
  EXPECT_TRUE(pixels_in({"", {}}, 10, 10).empty());
  EXPECT_TRUE(pixels_in({"", {{1, 1}, {5, 5}}}, 10, 10).empty());
  EXPECT_TRUE(pixels_in({"", {{1, 1}, {5, nan}, {5, 5}}}, 10, 10).empty());
  EXPECT_TRUE(pixels_in({"", {{-9, -9}, {-9, -5}, {-5, -5}}}, 10, 10).empty());
  EXPECT_EQ(pixels_in({"", {{-1e9, -1e9}, {-1e9, 1e9}, {1e9, 1e9}, {1e9, -1e9}}}, 10, 10).size(), 100u);
}

// --- times ---

TEST(FlowTimes, WithoutNoiseTheTruth) {
  std::mt19937 random(1);
  const Bolus bolus{0.4, 1.3, 1.5, 3};
  const FlowTimes times = read_times(sample(bolus, 60, 0.2, 1e-5, random), 1e-5);
  ASSERT_TRUE(times.arrival_ms && times.mean_transit_ms && times.peak && times.time_to_peak_ms && times.area && times.wash_in_per_s);
  EXPECT_NEAR(*times.arrival_ms, 1000 * bolus.half_rise(), 2);
  EXPECT_NEAR(*times.time_to_peak_ms, 2800, 2);
  EXPECT_NEAR(*times.peak, 0.4, 1e-3);
  double area = 0, moment = 0, steepest = 0;
  for (double t = 0; t < 11.8; t += 0.001) {
    area += 0.001 * bolus(t);
    moment += 0.001 * t * bolus(t);
    steepest = std::max(steepest, (bolus(t + 0.001) - bolus(t)) / 0.001);
  }
  EXPECT_NEAR(*times.area / area, 1, 0.005);
  EXPECT_NEAR(*times.mean_transit_ms, 1000 * (moment / area - bolus.half_rise()), 30);
  EXPECT_NEAR(*times.wash_in_per_s / steepest, 1, 0.01);
}

TEST(FlowTimes, ArrivalIsAsPreciseAsItCanBe) {
  struct Case {
    Bolus bolus;
    double interval, noise_sd;
  };
  for (const Case& c :
       {Case{{0.3, 1.5, 1.0, 3}, 0.133, 0.03}, Case{{0.3, 1.5, 1.0, 3}, 0.25, 0.03}, Case{{0.3, 1.5, 2.0, 2}, 0.25, 0.01}}) {
    const int frames = static_cast<int>(10 / c.interval), trials = 400;
    double sum = 0, square_sum = 0, claimed = 0;
    int found = 0, covered = 0;
    std::mt19937 random(17);
    std::uniform_real_distribution<double> phase(0, c.interval);
    double information = 0;
    for (int trial = 0; trial < trials; ++trial) {
      const double start = phase(random);
      const FlowTimes times = read_times(sample(c.bolus, frames, c.interval, c.noise_sd, random, start), c.noise_sd);
      expect_finite(times);
      for (int i = 0; i < frames; ++i) {
        const double t = start + i * c.interval;
        information += std::pow((c.bolus(t + 1e-4) - c.bolus(t - 1e-4)) / 2e-4 / c.noise_sd, 2) / trials;
      }
      if (!times.arrival_ms) continue;
      ++found;
      const double error = *times.arrival_ms / 1000 - c.bolus.half_rise();
      sum += error;
      square_sum += error * error;
      claimed += *times.arrival_sd_ms / 1000;
      covered += std::abs(error) < 1.96 * *times.arrival_sd_ms / 1000;
    }
    ASSERT_GE(found, trials * 99 / 100);
    const double bound = 1 / std::sqrt(information), bias = sum / found, sd = std::sqrt(square_sum / found - bias * bias);
    RecordProperty("sd_over_bound_" + std::to_string(c.interval) + "_" + std::to_string(c.noise_sd), std::to_string(sd / bound));
    RecordProperty("covered_" + std::to_string(c.interval) + "_" + std::to_string(c.noise_sd), std::to_string(1.0 * covered / found));
    // The bound is that of a curve whose form is known; with the form free the best possible is 1.2 to 1.35 of it.
    EXPECT_LT(sd / bound, 1.45) << "at " << c.interval << " s";
    EXPECT_LT(std::abs(bias), 0.35 * sd + 0.002);
    EXPECT_NEAR(claimed / found / sd, 1, 0.25);
    EXPECT_GT(covered, found * 88 / 100);
  }
}

TEST(FlowTimes, PlateauIsNoGammaVariateAndStillArrives) {
  std::mt19937 random(3);
  const auto plateau = [](double t) { return 0.3 / (1 + std::exp(-(t - 2.2) / 0.15)) / (1 + std::exp((t - 7) / 0.3)); };
  double sum = 0, square_sum = 0;
  const int trials = 200;
  for (int trial = 0; trial < trials; ++trial) {
    const FlowTimes times = read_times(sample(plateau, 70, 0.133, 0.01, random), 0.01);
    ASSERT_TRUE(times.arrival_ms);
    const double error = *times.arrival_ms - 2200;
    sum += error;
    square_sum += error * error;
  }
  EXPECT_LT(std::abs(sum / trials), 15);
  EXPECT_LT(std::sqrt(square_sum / trials), 30);
}

TEST(FlowTimes, FilledFromTheStartHasNoArrival) {
  std::mt19937 random(5);
  const FlowTimes washing = read_times(sample([](double t) { return 0.4 * std::exp(-t); }, 40, 0.2, 0.01, random), 0.01);
  EXPECT_FALSE(washing.arrival_ms);
  EXPECT_TRUE(washing.area && washing.peak);
  const FlowTimes constant = read_times(sample([](double) { return 0.4; }, 40, 0.2, 0.01, random), 0.01);
  EXPECT_FALSE(constant.arrival_ms);
  EXPECT_FALSE(constant.time_to_peak_ms);
  ASSERT_TRUE(constant.peak && constant.area);
  EXPECT_NEAR(*constant.peak, 0.4, 0.03);
  EXPECT_NEAR(*constant.area, 0.4 * 7.8, 0.05);
}

TEST(FlowTimes, UnfilledIsEmpty) {
  std::mt19937 random(6);
  int said = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const FlowTimes times = read_times(sample([](double) { return 0.0; }, 60, 0.133, 0.02, random), 0.02);
    said += times.arrival_ms.has_value() || times.peak.has_value();
  }
  EXPECT_EQ(said, 0);
}

TEST(FlowTimes, StillRisingSaysSoInItsSd) {
  std::mt19937 random(7);
  const FlowTimes times = read_times(sample([](double t) { return std::max(0.0, 0.1 * (t - 2)); }, 30, 0.2, 0.01, random), 0.01);
  ASSERT_TRUE(times.arrival_ms && times.arrival_sd_ms);
  EXPECT_GT(*times.arrival_sd_ms, 500);
  EXPECT_FALSE(times.mean_transit_ms);
}

TEST(FlowTimes, DefinedWhateverIsGiven) {
  std::mt19937 random(8);
  const Bolus bolus{0.3, 1, 1, 3};
  expect_finite(read_times({}, 0.01));
  for (int frames = 1; frames < 12; ++frames) {
    expect_finite(read_times(sample(bolus, frames, 0.5, 0.01, random), 0.01));
    expect_finite(read_times(sample([](double) { return 0.3; }, frames, 0.5, 0.01, random), 0.01));
    expect_finite(read_times(sample([](double t) { return t > 1 ? 0.3 : 0; }, frames, 0.5, 0, random), 0));
  }
  EXPECT_FALSE(read_times(sample(bolus, 1, 0.5, 0.01, random), 0.01).arrival_ms);
  TimeDensityCurve gaps = sample(bolus, 60, 0.2, 0.01, random);
  for (std::size_t i = 0; i < gaps.contrast.size(); ++i)
    if (random() % 3 == 0) gaps.contrast[i] = nan;
  gaps.contrast[10] = std::numeric_limits<double>::infinity();
  const FlowTimes through_gaps = read_times(gaps, 0.01);
  expect_finite(through_gaps);
  ASSERT_TRUE(through_gaps.arrival_ms);
  EXPECT_NEAR(*through_gaps.arrival_ms, 1000 * bolus.half_rise(), 60);
  for (double& value : gaps.contrast) value = nan;
  expect_finite(read_times(gaps, 0.01));
  TimeDensityCurve ragged = sample(bolus, 60, 0.2, 0.01, random);
  ragged.contrast_sd.resize(5);
  ragged.contrast.resize(50);
  ragged.time_ms[20] = ragged.time_ms[19];
  ragged.time_ms[30] = nan;
  expect_finite(read_times(ragged, 0.01));
  for (const double noise : {0.0, -1.0, nan}) expect_finite(read_times(ragged, noise));
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (int trial = 0; trial < 300; ++trial)
    expect_finite(read_times(sample([&](double) { return uniform(random); }, 3 + trial % 40, 0.1, 0.01, random), 0.01));
}

TEST(FlowTimes, AreaRelativeToInlet) {
  FlowTimes a, b;
  EXPECT_FALSE(auc_relative_to_inlet(a, b));
  a.area = 1;
  b.area = 0;
  EXPECT_FALSE(auc_relative_to_inlet(a, b));
  b.area = 4;
  EXPECT_EQ(auc_relative_to_inlet(a, b), 0.25);
}

// --- velocity ---

struct Segment {
  std::vector<double> arc_length_mm;
  std::vector<TimeDensityCurve> along;
  TimeDensityCurve mean;
};

// A segment of `bins` bins 5 mm apart, its bolus moving at `velocity` mm/s; thinner and thinner, so contrast falls along it.
Segment make_segment(const std::function<double(double)>& bolus, double velocity, int bins, int frames, double interval, double noise_sd,
                     std::mt19937& random) {
  Segment segment;
  for (int i = 0; i < bins; ++i) {
    const double s = 5.0 * i + 2.5;
    segment.arc_length_mm.push_back(s);
    segment.along.push_back(
        sample([&](double t) { return (1 - 0.5 * i / bins) * bolus(t - s / velocity); }, frames, interval, noise_sd, random));
  }
  segment.mean = segment.along[0];
  for (std::size_t t = 0; t < segment.mean.contrast.size(); ++t) {
    double sum = 0;
    for (const TimeDensityCurve& curve : segment.along) sum += curve.contrast[t];
    segment.mean.contrast[t] = sum / bins;
    segment.mean.contrast_sd[t] = noise_sd / std::sqrt(bins);
  }
  return segment;
}

TEST(Velocity, WithinFivePercent) {
  const auto plateau = [](double t) { return 0.3 / (1 + std::exp(-(t - 1.5) / 0.15)) / (1 + std::exp((t - 5) / 0.3)); };
  const Bolus bolus{0.3, 1.0, 1.2, 3};
  const std::vector<std::function<double(double)>> shapes = {plateau, bolus};
  for (std::size_t which = 0; which < shapes.size(); ++which)
    for (const double velocity : {60.0, 120.0, 200.0}) {
      const double interval = 0.133;  // 7.5 frames/s; 100 mm: 3.8 frames of transit at the fastest
      double worst = 0, square_sum = 0;
      int covered = 0;
      std::mt19937 random(21);
      const int trials = 30;
      for (int trial = 0; trial < trials; ++trial) {
        const Segment segment = make_segment(shapes[which], velocity, 20, 60, interval, 0.01, random);
        const SegmentFlow flow = read_segment_flow(segment.mean, segment.arc_length_mm, segment.along, 0.01);
        ASSERT_TRUE(flow.velocity_mm_s && flow.velocity_sd_mm_s) << velocity;
        EXPECT_FALSE(flow.velocity_is_lower_bound);
        EXPECT_FALSE(flow.against_arc_length);
        const double error = *flow.velocity_mm_s - velocity;
        worst = std::max(worst, std::abs(error) / velocity);
        square_sum += error * error / velocity / velocity;
        covered += std::abs(error) < 1.96 * *flow.velocity_sd_mm_s;
      }
      const std::string name = std::to_string(which) + "_" + std::to_string(static_cast<int>(velocity));
      RecordProperty("rms_" + name, std::to_string(std::sqrt(square_sum / trials)));
      RecordProperty("covered_" + name, covered);
      EXPECT_LT(std::sqrt(square_sum / trials), 0.035) << name;
      // With less than four frames of transit noise alone makes an SD of 2.5 %.
      EXPECT_LT(worst, velocity < 150 ? 0.05 : 0.1) << name;
      EXPECT_GT(covered, trials * 8 / 10) << name;
    }
}

TEST(Velocity, DirectionDoesNotMatter) {
  std::mt19937 random(2);
  Segment segment = make_segment(Bolus{0.3, 1.0, 1.2, 3}, 80, 16, 60, 0.133, 0.005, random);
  std::reverse(segment.along.begin(), segment.along.end());
  const SegmentFlow flow = read_segment_flow(segment.mean, segment.arc_length_mm, segment.along, 0.005);
  ASSERT_TRUE(flow.velocity_mm_s);
  EXPECT_NEAR(*flow.velocity_mm_s, 80, 3);
  EXPECT_TRUE(flow.against_arc_length);
}

TEST(Velocity, FastFlowGivesALowerBound) {
  std::mt19937 random(9);
  int holds = 0;
  const int trials = 30;
  for (int trial = 0; trial < trials; ++trial) {
    const Segment segment = make_segment(Bolus{0.3, 1.0, 1.2, 3}, 400, 12, 50, 0.133, 0.01, random);  // 55 mm: one frame
    const SegmentFlow flow = read_segment_flow(segment.mean, segment.arc_length_mm, segment.along, 0.01);
    ASSERT_TRUE(flow.velocity_mm_s);
    EXPECT_TRUE(flow.velocity_is_lower_bound);
    EXPECT_FALSE(flow.velocity_sd_mm_s);
    EXPECT_GT(*flow.velocity_mm_s, 200);
    holds += *flow.velocity_mm_s <= 400 * 1.0001;
  }
  EXPECT_GE(holds, trials * 9 / 10);
}

TEST(Velocity, DefinedWhateverIsGiven) {
  std::mt19937 random(10);
  const auto check = [](const Segment& segment, double noise_sd) {
    const SegmentFlow flow = read_segment_flow(segment.mean, segment.arc_length_mm, segment.along, noise_sd);
    expect_finite(flow.times);
    EXPECT_TRUE(!flow.velocity_mm_s || (std::isfinite(*flow.velocity_mm_s) && *flow.velocity_mm_s > 0));
    EXPECT_TRUE(!flow.velocity_sd_mm_s || (std::isfinite(*flow.velocity_sd_mm_s) && *flow.velocity_sd_mm_s > 0));
    return flow;
  };
  const Bolus bolus{0.3, 1, 1, 3};
  EXPECT_FALSE(check({}, 0.01).velocity_mm_s);
  for (const int bins : {1, 2, 3, 4})
    for (const int frames : {1, 2, 5, 9, 30}) check(make_segment(bolus, 50, bins, frames, 0.2, 0.01, random), 0.01);
  EXPECT_FALSE(check(make_segment([](double) { return 0.3; }, 50, 10, 30, 0.2, 0.01, random), 0.01).velocity_mm_s);
  EXPECT_FALSE(check(make_segment([](double) { return 0.0; }, 50, 10, 30, 0.2, 0.01, random), 0.01).velocity_mm_s);
  check(make_segment([](double t) { return t > 2 ? 0.3 : 0; }, 50, 10, 30, 0.2, 0, random), 0);
  Segment gaps = make_segment(bolus, 50, 12, 50, 0.2, 0.01, random);
  for (TimeDensityCurve& curve : gaps.along)
    for (double& value : curve.contrast)
      if (random() % 4 == 0) value = nan;
  for (double& value : gaps.along[3].contrast) value = nan;
  gaps.arc_length_mm[5] = nan;
  const SegmentFlow flow = check(gaps, 0.01);
  ASSERT_TRUE(flow.velocity_mm_s);
  EXPECT_NEAR(*flow.velocity_mm_s, 50, 3);
  Segment one_place = make_segment(bolus, 50, 6, 50, 0.2, 0.01, random);
  for (double& s : one_place.arc_length_mm) s = 7;
  EXPECT_FALSE(check(one_place, 0.01).velocity_mm_s);
  EXPECT_THROW(read_segment_flow({}, {1.0, 2.0}, {}, 0.01), std::invalid_argument);
}

}  // namespace
}  // namespace cinelumen
