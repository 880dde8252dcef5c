/// The phantom against physics: what it draws, fills, moves and adds as noise must be what its truth says.

#include "engine/phantom/phantom.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <numeric>

#include "engine/phantom/bolus.h"
#include "engine/phantom/projection.h"
#include "engine/phantom/random.h"
#include "kernels/stream.h"

namespace cinelumen {
namespace {

using std::numbers::pi;

PhantomOptions small(const std::string& scenario, int size, int frames) {
  PhantomOptions options;
  options.scenario = scenario;
  options.rows = options.columns = size;
  options.frames = frames;
  return options;
}

bool same_frames(const PhantomRun& a, const PhantomRun& b) {
  if (a.frames.size() != b.frames.size()) return false;
  for (std::size_t f = 0; f < a.frames.size(); ++f)
    for (int y = 0; y < a.frames[f].height(); ++y)
      if (!std::equal(a.frames[f].row(y), a.frames[f].row(y) + a.frames[f].width(), b.frames[f].row(y))) return false;
  return true;
}

TEST(PhantomRandom, PhiloxGivesThePublishedNumbers) {
  // Random123's known answers for philox4x32-10.
  EXPECT_EQ(phantom::philox({0, 0, 0, 0}, 0), (std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(phantom::philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822),
            (std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhantomRandom, PoissonHasItsMomentsAndProbabilities) {
  for (const double mean : {0.3, 4.0, 9.9, 10.1, 37.0, 900.0, 40000.0}) {
    constexpr int count = 200000;
    double sum = 0, sum2 = 0, sum3 = 0;
    int at_mode = 0;
    const double mode = std::floor(mean);
    for (int i = 0; i < count; ++i) {
      phantom::RandomStream random(7, phantom::Purpose::quanta, 3, static_cast<std::uint32_t>(i));
      const double k = random.poisson(mean), d = k - mean;
      ASSERT_EQ(k, std::floor(k));
      ASSERT_GE(k, 0);
      sum += d;
      sum2 += d * d;
      sum3 += d * d * d;
      at_mode += k == mode;
    }
    EXPECT_NEAR(sum / count, 0, 5 * std::sqrt(mean / count)) << mean;
    EXPECT_NEAR(sum2 / count / mean, 1, 5 * std::sqrt((2 + 1 / mean) / count)) << mean;
    EXPECT_NEAR(sum3 / count / std::pow(mean, 1.5), 1 / std::sqrt(mean), 0.05 + 0.1 / std::sqrt(mean)) << mean;
    const double p = std::exp(mode * std::log(mean) - mean - std::lgamma(mode + 1));
    EXPECT_NEAR(at_mode / static_cast<double>(count), p, 5 * std::sqrt(p / count)) << mean;
  }
}

TEST(PhantomBolus, FlowDividesByResistanceAndIsConserved) {
  using namespace phantom;
  // One vessel into two of the same length, radii 1 and 0.5 mm: Poiseuille gives 16 to 1.
  const std::vector<Conduit> conduits = {{0, 1, 20, {1.2, 1.2}}, {1, 2, 30, {1, 1}}, {3, 1, 30, {0.5, 0.5}}};
  const std::vector<double> flow = solve_flow(4, conduits, {{0, 300, 0}, {2, 0, 1e9}, {3, 0, 1e9}});
  EXPECT_NEAR(flow[0], 300, 1e-6);
  EXPECT_NEAR(flow[1] / -flow[2], 16, 1e-4) << "the third vessel is drawn against the flow";
  EXPECT_NEAR(flow[1] - flow[2], 300, 1e-6);
  EXPECT_THROW(solve_flow(4, conduits, {{0, 300, 0}}), std::invalid_argument) << "blood has no way out";
}

TEST(PhantomBolus, MassIsConservedAndArrivalIsVolumeOverFlow) {
  using namespace phantom;
  const std::vector<Conduit> conduits = {{0, 1, 40, {1.5, 1.0, 1.2}}, {1, 2, 30, {1, 0.6}}, {3, 1, 25, {0.5, 0.7}}};
  const std::vector<Terminal> terminals = {{0, 400, 0}, {2, 0, 0.05}, {3, 0, 0.02}};
  const std::vector<double> flow = solve_flow(4, conduits, terminals);
  const auto inlet = [](double t) { return t > 200 && t < 1200 ? 1.0 : 0.0; };
  const BolusHistory history = run_bolus(4, conduits, terminals, flow, inlet, 3000, 30);
  EXPECT_NEAR(history.injected.back(), 400 * 1.0, 400 * 0.005) << "a second of plateau";
  double latest_drained = 0;
  for (std::size_t s = 0; s < history.samples.size(); ++s) {
    ASSERT_NEAR(history.in_vessels[s] + history.drained[s], history.injected[s], 1e-3 * 400);
    ASSERT_GE(history.drained[s], latest_drained - 1e-9);
    latest_drained = history.drained[s];
  }
  EXPECT_GT(latest_drained, 350);
  // What is in the vessels, once more, from concentrations and lumens.
  const double time = 700;
  double content = 0;
  for (int k = 0; k < 3; ++k) {
    const Conduit& conduit = conduits[static_cast<std::size_t>(k)];
    constexpr int steps = 4000;
    for (int i = 0; i < steps; ++i) {
      const double f = (i + 0.5) / steps, p = f * static_cast<double>(conduit.radius_mm.size() - 1);
      const std::size_t j = std::min(static_cast<std::size_t>(p), conduit.radius_mm.size() - 2);
      const double r = conduit.radius_mm[j] + (p - static_cast<double>(j)) * (conduit.radius_mm[j + 1] - conduit.radius_mm[j]);
      content += pi * r * r * conduit.length_mm / steps * history.concentration(k, f * conduit.length_mm, time);
    }
  }
  const auto sample = static_cast<std::size_t>(std::lround(time / history.step_ms));
  EXPECT_NEAR(content, history.in_vessels[sample], 0.005 * content);
  // A front without dispersion arrives when the volume before it has been filled.
  const BolusHistory sharp = run_bolus(
      4, conduits, terminals, flow, [](double t) { return t > 200 ? 1.0 : 0.0; }, 3000, 0);
  double volume = 0;
  for (int i = 0; i < 1000; ++i) {
    const double f = (i + 0.5) / 1000, r = f < 0.5 ? 1.5 - f : 1.0 + 0.4 * (f - 0.5);
    volume += pi * r * r * 40 / 1000;
  }
  EXPECT_NEAR(sharp.arrival_ms(0, 40), 200 + 1000 * volume / 400, 12);
  EXPECT_TRUE(std::isnan(run_bolus(
                             4, conduits, terminals, flow, [](double) { return 0.0; }, 500, 0)
                             .arrival_ms(0, 10)));
}

std::vector<phantom::ProjectedPoint> straight(double y0, double x0, double y1, double x1, double radius_px, double depth_mm) {
  std::vector<phantom::ProjectedPoint> points;
  const double length = std::hypot(y1 - y0, x1 - x0);
  for (int i = 0; i <= 100; ++i) {
    phantom::ProjectedPoint p;
    p.y = y0 + (y1 - y0) * i / 100;
    p.x = x0 + (x1 - x0) * i / 100;
    p.tangent_y = (y1 - y0) / length;
    p.tangent_x = (x1 - x0) / length;
    p.radius_px = radius_px;
    p.radius_mm = radius_px * 0.13;
    p.depth_mm = depth_mm;
    points.push_back(p);
  }
  return points;
}

phantom::PointSpread spread() { return {0.8, {0.65, 1.6}, {0.75, 0.25}}; }

TEST(PhantomProjector, TubeAgreesWithFineSampling) {
  using namespace phantom;
  Image<float> attenuation(96, 96);
  for (int y = 0; y < 96; ++y) std::fill(attenuation.row(y), attenuation.row(y) + 96, 0.7f);
  for (const double radius : {1.2, 4.3, 9.0}) {
    const auto tube = straight(-40, 10, 80, 60.5, radius, 0);
    const Projector projector(attenuation.view(), 16, 64, 64, spread(), {tube}, {});
    const double kappa = 0.3;  // twice that of undiluted contrast
    const Image<float> image = projector.transmission({}, {std::vector<float>(tube.size(), static_cast<float>(kappa))});
    // Eight samples per pixel and axis; spread by plain sums.
    constexpr int fine = 8;
    const double ty = tube[0].tangent_y, tx = tube[0].tangent_x;
    double worst = 0;
    for (const auto& [py, px] : {std::pair{20, 34}, {31, 38}, {31, 41}, {32, 50}, {45, 46}}) {
      double sum = 0, weights = 0;
      for (int j = -12 * fine; j < 12 * fine; ++j)
        for (int i = -12 * fine; i < 12 * fine; ++i) {
          const double dy = (j + 0.5) / fine, dx = (i + 0.5) / fine;
          double weight = 0;
          for (int g = 0; g < 2; ++g)
            weight += spread().weight[static_cast<std::size_t>(g)] * spread().profile(g, dy) * spread().profile(g, dx);
          const double u = (py + dy - tube[0].y) * tx - (px + dx - tube[0].x) * ty;
          const double chord = 2 * 0.13 * std::sqrt(std::max(0.0, radius * radius - u * u));
          sum += weight * std::exp(-kappa * chord);
          weights += weight;
        }
      EXPECT_NEAR(weights / (fine * fine), 1, 1e-3) << "the spread keeps energy";
      worst = std::max(worst, std::abs(image(py, px) / std::exp(-0.7) - sum / weights));
    }
    EXPECT_LT(worst, 4e-4) << "radius " << radius;
  }
}

TEST(PhantomProjector, CrossingVesselsUniteWhereTheyTouchAndAddWhereTheyDoNot) {
  using namespace phantom;
  Image<float> attenuation(96, 96);
  set_zero(Stream::cpu(), attenuation.view());
  const double kappa = 0.05, chord = 2 * 10 * 0.13;
  const auto centre = [&](double depth, bool joint) {
    const auto a = straight(-30, 32, 94, 32, 10, 0), b = straight(32, -30, 32, 94, 10, depth);
    std::vector<Joint> joints;
    if (joint) joints.push_back({a[50], 0, 50});
    const Projector projector(attenuation.view(), 16, 64, 64, {0.1, {0.3, 0.3}, {0.5, 0.5}}, {a, b}, joints);
    const std::vector<float> full(101, static_cast<float>(kappa));
    return -std::log(projector.transmission({}, {full, full})(32, 32));
  };
  EXPECT_NEAR(centre(0, false), kappa * chord, 0.004 * kappa * chord);
  EXPECT_NEAR(centre(0, true), kappa * chord, 0.004 * kappa * chord);
  EXPECT_NEAR(centre(5, false), 2 * kappa * chord, 0.008 * kappa * chord) << "one behind the other";
  EXPECT_NEAR(centre(chord / 2, false), 1.5 * kappa * chord, 0.012 * kappa * chord) << "half merged";
}

TEST(PhantomProjector, EdgeSigmaIsThatOfAGaussian) {
  const phantom::PointSpread one{0, {1.3, 1.3}, {0.5, 0.5}};
  EXPECT_NEAR(one.edge_sigma_px(), 1.3, 1e-3);
  EXPECT_NEAR(one.edge(0), 0.5, 1e-9);
  EXPECT_GT(spread().edge_sigma_px(), 0.65);
  EXPECT_LT(spread().edge_sigma_px(), 1.0);
}

// Integral of attenuation across a tube = kappa pi R^2, for every tube, orientation and depth at once.
TEST(PhantomTubes, IntegralIsThatOfTheLumen) {
  PhantomOptions options = small("tubes", 384, 20);
  options.attenuation_per_mm = 2e-4;  // so thin that intensity and attenuation are proportional
  options.noise_log_sd = 0;
  options.motion_px = 0;
  options.bits_stored = 16;
  const Image<float> before = expected_counts(options, 0), after = expected_counts(options, 19);
  const PhantomTruth truth = phantom_truth(options);
  const double kappa = options.attenuation_per_mm;
  double drawn = 0, from_truth = 0, from_radius = 0;
  for (int y = 0; y < 384; ++y)
    for (int x = 0; x < 384; ++x) drawn += 1 - static_cast<double>(after(y, x)) / before(y, x);
  for (const PhantomSegment& segment : truth.segments) {
    ASSERT_GE(segment.start, 0) << segment.name << " is cut by the image's edge";
    ASSERT_GE(segment.end, 0);
    ASSERT_GT(*std::min_element(segment.filling.back().begin(), segment.filling.back().end()), 0.999f) << segment.name;
    for (std::size_t i = 0; i + 1 < segment.points.size(); ++i) {
      const PhantomPoint &a = segment.points[i], &b = segment.points[i + 1];
      const double step = std::hypot(b.y_px - a.y_px, b.x_px - a.x_px);
      from_truth += kappa * step * pi * a.radius_mm * a.radius_px * a.path_factor;
    }
    const PhantomPoint& end = segment.points.front();
    const double magnified =
        truth.options.source_to_detector_mm / (truth.options.source_to_detector_mm / 1.2 - end.depth_mm) / *truth.options.detector_pitch_mm;
    from_truth += kappa * 4 / 3 * pi * end.radius_mm * end.radius_px * end.radius_px;  // half a ball at either end
    from_radius += kappa * magnified * magnified * pi * end.radius_mm * end.radius_mm *
                   (segment.points.back().arc_length_mm + 4.0 / 3 * end.radius_mm);
  }
  EXPECT_NEAR(drawn / from_truth, 1, 1e-3);
  EXPECT_NEAR(drawn / from_radius, 1, 6e-3) << "up to the cone's obliquity";
}

TEST(PhantomTubes, DiametersInThePlaneOfCalibration) {
  const PhantomTruth truth = phantom_truth(small("tubes", 256, 1));
  ASSERT_EQ(truth.segments.size(), 12u);
  EXPECT_NEAR(truth.mm_per_px, 0.154 * 4 / 1.2, 1e-12);
  bool raised = false;
  for (const PhantomSegment& segment : truth.segments) {
    const PhantomPoint& p = segment.points[segment.points.size() / 2];
    const double source = 1000 / 1.2;
    EXPECT_NEAR(p.diameter_calibration_mm, 2 * p.radius_mm * source / (source - p.depth_mm), 0.006 * p.radius_mm)
        << segment.name << ", up to the cone's obliquity";
    raised = raised || p.depth_mm > 5;
    for (const PhantomPoint& q : segment.points) EXPECT_GT(q.gap_px * truth.mm_per_px, 2) << segment.name << " comes too near to another";
  }
  EXPECT_TRUE(raised);
}

TEST(PhantomTubes, CentrelinesLieWhereTheTruthSaysInAMovedFrame) {
  PhantomOptions options = small("tubes", 384, 20);
  options.noise_log_sd = 0;
  options.attenuation_per_mm = 0.01;
  options.rotation_deg = 0.3;
  options.warp_px = 1.8;
  options.contrast_free_frames = 2;
  const Image<float> filled = expected_counts(options, 19);
  PhantomOptions empty = options;
  empty.attenuation_per_mm = 1e-9;
  const Image<float> background = expected_counts(empty, 19);
  const PhantomTruth truth = phantom_truth(options);
  const auto moved = [&](const PhantomPoint& p) {
    const auto u = truth.displacement(19, p.y_px, p.x_px);
    return std::array<double, 2>{p.y_px + u[0], p.x_px + u[1]};
  };
  EXPECT_GT(std::hypot(truth.motion.back().dy_px, truth.motion.back().dx_px), 0.1);
  for (const PhantomSegment& segment : truth.segments) {
    const PhantomPoint& p = segment.points[segment.points.size() / 2];
    const PhantomPoint &before = segment.points[segment.points.size() / 2 - 1], &after = segment.points[segment.points.size() / 2 + 1];
    const auto [y, x] = moved(p);
    const auto a = moved(before), b = moved(after);
    // Centre of gravity of the added attenuation in a window, across the tube.
    double sum = 0, first = 0;
    const double dy = b[0] - a[0], dx = b[1] - a[1], norm = std::hypot(dy, dx), ty = dy / norm, tx = dx / norm;
    const double reach = p.radius_px + 6;
    for (int j = static_cast<int>(y - reach - 4); j <= y + reach + 4; ++j)
      for (int i = static_cast<int>(x - reach - 4); i <= x + reach + 4; ++i) {
        const double along = (j - y) * ty + (i - x) * tx, across = (j - y) * tx - (i - x) * ty;
        const double window = std::exp(-along * along / 8);
        if (std::abs(across) > reach) continue;
        const double added = std::log(background(j, i) / filled(j, i));
        sum += window * added;
        first += window * added * across;
      }
    EXPECT_NEAR(first / sum, 0, 0.03) << segment.name;
  }
}

TEST(PhantomTubes, BackgroundMovesByTheTruth) {
  PhantomOptions options = small("tubes", 256, 12);
  options.detector_pitch_mm = 0.154;
  options.contrast_free_frames = 12;
  options.noise_log_sd = 0;
  options.motion_px = 0.4;
  options.rotation_deg = 0;
  options.bits_stored = 16;
  const PhantomRun run = make_phantom(options);
  const auto log_count = [&](std::size_t f, int y, int x) { return std::log(static_cast<double>(run.frames[f](y, x))); };
  for (const std::size_t f : {3u, 7u, 11u}) {
    double yy = 0, yx = 0, xx = 0, yt = 0, xt = 0;
    for (int y = 5; y < 251; ++y)
      for (int x = 5; x < 251; ++x) {
        // Gradient of the mean of both frames: the error is then of third order.
        const auto mean = [&](int j, int i) { return 0.5 * (log_count(0, j, i) + log_count(f, j, i)); };
        const double gy = (8 * (mean(y + 1, x) - mean(y - 1, x)) - mean(y + 2, x) + mean(y - 2, x)) / 12;
        const double gx = (8 * (mean(y, x + 1) - mean(y, x - 1)) - mean(y, x + 2) + mean(y, x - 2)) / 12;
        const double t = log_count(f, y, x) - log_count(0, y, x);
        yy += gy * gy;
        yx += gy * gx;
        xx += gx * gx;
        yt -= gy * t;
        xt -= gx * t;
      }
    const double det = yy * xx - yx * yx;
    EXPECT_NEAR((xx * yt - yx * xt) / det, run.truth.motion[f].dy_px, 0.01) << f;
    EXPECT_NEAR((yy * xt - yx * yt) / det, run.truth.motion[f].dx_px, 0.01) << f;
  }
}

TEST(PhantomNoise, MeanVarianceLineAndCorrelation) {
  PhantomOptions options = small("foot", 160, 40);
  options.contrast_free_frames = 40;
  options.motion_px = 0;
  options.rotation_deg = 0;
  options.bits_stored = 16;
  const PhantomRun run = make_phantom(options);
  const PhantomTruth& truth = run.truth;
  const Image<float> expected = expected_counts(options, 0);
  // Variance about the expected value, in bins of it; straight line with weights of 1 / variance^2.
  struct Bin {
    double mean = 0, square = 0, next = 0, count = 0;
  };
  std::vector<Bin> bins(24);
  const double top = truth.air_count * 1.05;
  for (const auto& frame : run.frames)
    for (int y = 0; y < 160; ++y)
      for (int x = 0; x + 1 < 160; ++x) {
        Bin& bin = bins[static_cast<std::size_t>(expected(y, x) / top * 24)];
        const double d = frame(y, x) - expected(y, x);
        bin.mean += expected(y, x);
        bin.square += d * d;
        bin.next += d * (frame(y, x + 1) - expected(y, x + 1));
        bin.count += 1;
      }
  double s0 = 0, s1 = 0, s2 = 0, t0 = 0, t1 = 0, correlation = 0, weights = 0;
  for (const Bin& bin : bins) {
    if (bin.count < 500) continue;
    const double m = bin.mean / bin.count, v = bin.square / bin.count, w = bin.count / (v * v);
    s0 += w;
    s1 += w * m;
    s2 += w * m * m;
    t0 += w * v;
    t1 += w * m * v;
    correlation += bin.count * bin.next / bin.square;
    weights += bin.count;
  }
  const double gain = (s0 * t1 - s1 * t0) / (s0 * s2 - s1 * s1), offset = (t0 * s2 - t1 * s1) / (s0 * s2 - s1 * s1);
  EXPECT_NEAR(gain / truth.noise_gain, 1, 0.02);
  const double electronic = truth.electronic_sd * truth.electronic_sd + 1.0 / 12;
  EXPECT_NEAR(offset, electronic, 0.02 * truth.noise_gain * truth.median_count + 0.25 * electronic);
  EXPECT_NEAR(correlation / weights, truth.noise_autocorrelation[2][3], 0.02);
  EXPECT_NEAR(truth.noise_gain * truth.median_count + truth.electronic_sd * truth.electronic_sd, std::pow(0.01 * truth.median_count, 2),
              1e-6 * truth.median_count)
      << "log SD 0.01 at the median";
}

TEST(PhantomRuns, WithoutMotionAndNoiseContrastFreeFramesAreTheSame) {
  for (const std::string& scenario : phantom_scenarios()) {
    PhantomOptions options = small(scenario, 128, 3);
    options.noise_log_sd = 0;
    options.motion_px = 0;
    options.rotation_deg = 0;
    options.warp_px = 0;
    const PhantomRun run = make_phantom(options);
    for (int y = 0; y < 128; ++y)
      for (int x = 0; x < 128; ++x) {
        ASSERT_EQ(run.frames[0](y, x), run.frames[1](y, x));
        ASSERT_EQ(run.frames[0](y, x), run.frames[2](y, x));
      }
  }
}

TEST(PhantomRuns, LinearAndLogarithmicAgreeToQuantisation) {
  PhantomOptions options = small("foot", 128, 16);
  const PhantomRun linear = make_phantom(options);
  options.encoding = IntensityRelationship::logarithmic;
  const PhantomRun logarithmic = make_phantom(options);
  const std::vector<float> counts = linear_counts(logarithmic.truth);
  ASSERT_EQ(counts.size(), 4096u);
  for (std::size_t f = 0; f < 16; ++f)
    for (int y = 0; y < 128; ++y)
      for (int x = 0; x < 128; ++x) {
        const double a = linear.frames[f](y, x), b = counts[logarithmic.frames[f](y, x)];
        ASSERT_NEAR(std::log(a), std::log(b), 0.5 / (a - 0.5) + 0.5 / logarithmic.truth.log_slope + 1e-4) << f << " " << y << " " << x;
      }
}

TEST(PhantomRuns, SameSeedSameBytesOnAnyNumberOfThreads) {
  PhantomOptions options = small("foot", 96, 14);
  set_cpu_threads(1);
  const PhantomRun one = make_phantom(options);
  set_cpu_threads(3);
  const PhantomRun three = make_phantom(options);
  set_cpu_threads(0);
  EXPECT_TRUE(same_frames(one, three));
  options.seed = 2;
  EXPECT_FALSE(same_frames(one, make_phantom(options)));
}

TEST(PhantomFoot, VeinsFillDownToTheArch) {
  PhantomOptions options = small("foot", 192, 48);
  const PhantomTruth truth = phantom_truth(options);
  EXPECT_GE(truth.segments.size(), 30u);
  EXPECT_GE(truth.first_contrast_frame, 8) << "contrast-free frames come first";
  EXPECT_LE(truth.first_contrast_frame, 12);
  const auto arrival = [&](const std::string& role) {
    double earliest = 1e9;
    for (const PhantomSegment& segment : truth.segments)
      if (segment.role == role)
        for (const PhantomPoint& p : segment.points) earliest = std::min(earliest, p.arrival_ms);
    return earliest;
  };
  EXPECT_LT(arrival("main"), arrival("plantar"));
  EXPECT_LT(arrival("plantar"), arrival("arch"));
  double thinnest = 9, widest = 0, arch = 0;
  for (const PhantomSegment& segment : truth.segments) {
    ASSERT_EQ(segment.filling.size(), 48u);
    for (std::size_t i = 0; i < segment.points.size(); ++i) {
      const PhantomPoint& p = segment.points[i];
      thinnest = std::min(thinnest, p.radius_mm);
      widest = std::max(widest, p.radius_mm);
      EXPECT_TRUE(p.y_px >= 0 && p.y_px <= 191 && p.x_px >= 0 && p.x_px <= 191);
      if (i > 0) {
        EXPECT_NEAR(std::hypot(p.y_px - segment.points[i - 1].y_px, p.x_px - segment.points[i - 1].x_px), 1, 0.3);
      }
      for (const auto& frame : segment.filling) {
        ASSERT_GE(frame[i], -1e-3f);
        ASSERT_LE(frame[i], 1.001f);
        if (segment.role == "arch") arch = std::max(arch, static_cast<double>(frame[i]));
      }
    }
  }
  EXPECT_LT(thinnest, 0.45);
  EXPECT_GT(widest, 2);
  EXPECT_GT(arch, 0.95);
  for (const PhantomMass& mass : truth.mass) EXPECT_NEAR(mass.in_vessels + mass.drained, mass.injected, 1e-3 * truth.mass.back().injected);
  EXPECT_GT(truth.mass.back().drained, 0);
  // A patient who moves: the jolt.
  double jump = 0;
  for (std::size_t f = 1; f < truth.motion.size(); ++f)
    jump = std::max(jump, std::hypot(truth.motion[f].dy_px - truth.motion[f - 1].dy_px, truth.motion[f].dx_px - truth.motion[f - 1].dx_px));
  EXPECT_GT(jump, 2);
}

TEST(PhantomStenoses, LesionsAreWhatTheyAreCalled) {
  const PhantomTruth truth = phantom_truth(small("stenoses", 512, 1));
  int kinds[5] = {};
  const std::vector<std::string> names = {"smooth", "concentric", "eccentric", "web", "occlusion"};
  for (const PhantomLesion& lesion : truth.lesions) {
    const auto kind = std::find(names.begin(), names.end(), lesion.kind);
    ASSERT_NE(kind, names.end()) << lesion.kind;
    ++kinds[kind - names.begin()];
    const PhantomSegment& segment = truth.segments[static_cast<std::size_t>(lesion.segment - 1)];
    if (lesion.kind == "occlusion") {
      EXPECT_EQ(truth.segments[static_cast<std::size_t>(lesion.beyond - 1)].name, "vessel beyond the occlusion");
      continue;
    }
    EXPECT_GT(lesion.from_mm, 0) << "a piece of healthy vessel before and beyond";
    EXPECT_LT(lesion.to_mm, segment.points.back().arc_length_mm);
    const double length = lesion.to_mm - lesion.from_mm;
    EXPECT_TRUE(lesion.kind == "smooth" ? length > 10 : length < (lesion.kind == "web" ? 3 : 10)) << length;
    EXPECT_TRUE(lesion.nominal_percent == 30 || lesion.nominal_percent == 50 || lesion.nominal_percent == 70);
    if (lesion.kind == "eccentric") {
      EXPECT_LE(lesion.diameter_percent, lesion.nominal_percent + 0.5);
      EXPECT_GE(lesion.diameter_percent, 0.35 * lesion.nominal_percent - 3) << "sampled once a pixel";
    } else {
      EXPECT_NEAR(lesion.diameter_percent, lesion.nominal_percent, lesion.kind == "web" ? 2.5 : 0.8) << lesion.kind;
      EXPECT_NEAR(lesion.area_percent, 100 * (1 - std::pow(1 - lesion.diameter_percent / 100, 2)), 0.5);
    }
    EXPECT_GE(lesion.reference_diameter_mm, 0.95);
    EXPECT_LE(lesion.reference_diameter_mm, 4.1);
  }
  for (const int count : kinds) EXPECT_GT(count, 0);
  EXPECT_EQ(truth.lesions.size(), 19u);
}

// The volume that is drawn between 3 mm before a lesion and 3 mm beyond it, and its least section where that is long enough to be seen.
TEST(PhantomStenoses, LesionsAreDrawnAsLargeAsTheTruthSays) {
  PhantomOptions options = small("stenoses", 512, 20);
  options.attenuation_per_mm = 2e-4;
  options.noise_log_sd = 0;
  options.motion_px = 0;
  options.seed = 3;
  const Image<float> before = expected_counts(options, 0), after = expected_counts(options, 19);
  const PhantomTruth truth = phantom_truth(options);
  for (const PhantomLesion& lesion : truth.lesions) {
    if (lesion.kind == "occlusion") continue;
    const auto& points = truth.segments[static_cast<std::size_t>(lesion.segment - 1)].points;
    // All tubes run from left to right: a column is a section.
    const auto column = [&](int x) {
      const auto nearest = std::min_element(points.begin(), points.end(), [&](const PhantomPoint& a, const PhantomPoint& b) {
        return std::abs(a.x_px - x) < std::abs(b.x_px - x);
      });
      double drawn = 0;
      for (int y = static_cast<int>(nearest->y_px) - 15; y <= nearest->y_px + 15; ++y)
        if (y >= 0 && y < 512) drawn += 1 - static_cast<double>(after(y, x)) / static_cast<double>(before(y, x));
      return std::array{drawn / options.attenuation_per_mm, pi * nearest->radius_mm * nearest->radius_px * nearest->path_factor};
    };
    double drawn = 0, expected = 0, least = 0;
    int first = 512, last = 0;
    for (const PhantomPoint& p : points) {
      if (p.arc_length_mm < lesion.from_mm - 3 || p.arc_length_mm > lesion.to_mm + 3) continue;
      first = std::min(first, static_cast<int>(std::lround(p.x_px)));
      last = std::max(last, static_cast<int>(std::lround(p.x_px)));
      if (std::abs(p.arc_length_mm - lesion.at_mm) < 0.2) least = p.x_px;
    }
    for (int x = first; x <= last; ++x) {
      const auto [seen, true_area] = column(x);
      drawn += seen;
      expected += true_area;
    }
    EXPECT_NEAR(drawn / expected, 1, 0.015) << lesion.kind << " in segment " << lesion.segment;
    if (lesion.kind == "smooth") {
      const auto [seen, true_area] = column(static_cast<int>(std::lround(least)));
      EXPECT_NEAR(seen / true_area, 1, 0.03) << "segment " << lesion.segment;
    }
  }
}

TEST(PhantomStenoses, ContrastGoesRoundTheOcclusion) {
  PhantomOptions options = small("stenoses", 256, 28);
  options.contrast_free_frames = 2;
  const PhantomTruth truth = phantom_truth(options);
  double round = 0, beyond = 0;
  for (const PhantomSegment& segment : truth.segments) {
    if (segment.name == "collateral") round = segment.points.back().arrival_ms;
    if (segment.name == "vessel beyond the occlusion") beyond = segment.points[segment.points.size() / 2].arrival_ms;
  }
  EXPECT_GT(round, 0);
  EXPECT_GT(beyond, round);
}

TEST(PhantomOverlap, CrossingsAreListedAndConnectNothing) {
  const PhantomTruth truth = phantom_truth(small("overlap", 512, 1));
  ASSERT_EQ(truth.crossings.size(), 6u);
  const double angles[] = {90, 65, 45, 30, 20, 12};
  for (std::size_t i = 0; i < 6; ++i) {
    const PhantomCrossing& crossing = truth.crossings[i];
    EXPECT_NEAR(crossing.angle_deg, angles[i], 2.5);
    EXPECT_GT(crossing.depth_mm, 10);
    for (const int id : crossing.segments) {
      double nearest = 1e9, gap = 1e9;
      for (const PhantomPoint& p : truth.segments[static_cast<std::size_t>(id - 1)].points) {
        nearest = std::min(nearest, std::hypot(p.y_px - crossing.y_px, p.x_px - crossing.x_px));
        gap = std::min(gap, p.gap_px);
      }
      EXPECT_LT(nearest, 1);
      EXPECT_LT(gap, 0) << "they overlap";
    }
  }
  int bifurcations = 0;
  for (const PhantomNode& node : truth.nodes) bifurcations += node.segments.size() == 3;
  EXPECT_EQ(bifurcations, 1);
}

TEST(PhantomPartialFill, CalibreIsConstantAndFillingIsNot) {
  PhantomOptions options = small("partial-fill", 256, 24);
  const PhantomTruth truth = phantom_truth(options);
  ASSERT_GE(truth.segments.size(), 40u);
  std::map<std::string, int> mechanisms;
  for (const PhantomSegment& segment : truth.segments) {
    ++mechanisms[segment.mechanism];
    EXPECT_GE(segment.points[0].radius_mm, 0.4);
    EXPECT_LE(segment.points[0].radius_mm, 2);
    double least = 1;
    for (std::size_t i = 0; i < segment.points.size(); ++i) {
      ASSERT_NEAR(segment.points[i].radius_mm, segment.points[0].radius_mm, 1e-9);
      const double share = segment.filled_share.empty() ? 1 : static_cast<double>(segment.filled_share.back()[i]);
      const double rest = segment.rest.empty() ? 0 : static_cast<double>(segment.rest.back()[i]);
      least = std::min(least, share * static_cast<double>(segment.filling.back()[i]) + (1 - share) * rest);
    }
    EXPECT_TRUE(segment.mechanism == "full" ? least > 0.99 : least < 0.96) << segment.mechanism << " " << least;
  }
  for (const char* const name : {"full", "core front", "layering", "dilution", "streaming", "incomplete arrival"})
    EXPECT_GE(mechanisms[name], 5) << name;
  EXPECT_TRUE(std::isnan(truth.mass.back().injected)) << "not what was injected";
  options.seed = 2;
  const PhantomTruth other = phantom_truth(options);
  int same = 0;
  for (std::size_t s = 0; s < truth.segments.size(); ++s) same += truth.segments[s].mechanism == other.segments[s].mechanism;
  EXPECT_LT(same, 30) << "the seed says which";
}

// What the picture has lost to contrast is what the truth says is in the sections, vessel by vessel summed up.
TEST(PhantomPartialFill, IntegralIsThatOfWhatIsFilled) {
  PhantomOptions options = small("partial-fill", 384, 24);
  options.attenuation_per_mm = 2e-4;  // so thin that intensity and attenuation are proportional
  options.noise_log_sd = 0;
  options.motion_px = 0;
  const Image<float> before = expected_counts(options, 0);
  const PhantomTruth truth = phantom_truth(options);
  for (const int frame : {14, 23}) {
    const Image<float> after = expected_counts(options, frame);
    for (const PhantomSegment& segment : truth.segments) {
      double expected = 0, low_y = 1e9, high_y = -1e9, low_x = 1e9, high_x = -1e9;
      const auto f = static_cast<std::size_t>(frame);
      const auto content = [&](std::size_t i) {
        const PhantomPoint& p = segment.points[i];
        const double share = segment.filled_share.empty() ? 1 : static_cast<double>(segment.filled_share[f][i]);
        const double rest = segment.rest.empty() ? 0 : static_cast<double>(segment.rest[f][i]);
        return (share * static_cast<double>(segment.filling[f][i]) + (1 - share) * rest) * pi * p.radius_px * p.radius_mm * p.path_factor;
      };
      for (std::size_t i = 0; i < segment.points.size(); ++i) {
        const PhantomPoint& p = segment.points[i];
        low_y = std::min(low_y, p.y_px - p.radius_px);
        high_y = std::max(high_y, p.y_px + p.radius_px);
        low_x = std::min(low_x, p.x_px - p.radius_px);
        high_x = std::max(high_x, p.x_px + p.radius_px);
        if (i == 0) continue;
        const PhantomPoint& q = segment.points[i - 1];
        expected += 0.5 * (content(i) + content(i - 1)) * std::hypot(p.y_px - q.y_px, p.x_px - q.x_px);
      }
      if (segment.mechanism == "full") {
        const PhantomPoint &start = segment.points.front(), &end = segment.points.back();
        for (const PhantomPoint& p : {start, end}) expected += 2.0 / 3 * pi * p.radius_mm * p.radius_px * p.radius_px;
      }
      double drawn = 0;
      for (int y = static_cast<int>(low_y) - 4; y <= high_y + 5; ++y)
        for (int x = static_cast<int>(low_x) - 4; x <= high_x + 5; ++x)
          if (y >= 0 && x >= 0 && y < 384 && x < 384) drawn += 1 - static_cast<double>(after(y, x)) / static_cast<double>(before(y, x));
      drawn /= options.attenuation_per_mm;
      EXPECT_NEAR(drawn, expected, 0.015 * expected + 0.3) << segment.name << ", " << segment.mechanism << ", frame " << frame;
    }
  }
}

TEST(PhantomSpasm, VeinsNarrowWhereAndWhenTheTruthSays) {
  PhantomOptions options = small("spasm", 192, 74);
  options.noise_log_sd = 0;
  options.motion_px = 0;
  options.rotation_deg = 0;
  options.attenuation_per_mm = 2e-3;  // so thin that intensity and attenuation are nearly proportional
  const PhantomTruth truth = phantom_truth(options);
  ASSERT_FALSE(truth.onsets.empty());
  const double first_onset = truth.onsets.front().onset_ms;
  double complete = 0;
  std::vector<int> changing;
  for (const PhantomOnset& onset : truth.onsets) {
    EXPECT_GE(onset.narrowing_percent, 40);
    EXPECT_LE(onset.narrowing_percent, 80);
    EXPECT_GE(onset.complete_ms - onset.onset_ms, 2000);
    EXPECT_LE(onset.complete_ms - onset.onset_ms, 4000);
    complete = std::max(complete, onset.complete_ms);
    changing.insert(changing.end(), onset.segments.begin(), onset.segments.end());
  }
  EXPECT_GE(changing.size(), 3u);
  const auto onset_frame = static_cast<std::size_t>(first_onset / 250), complete_frame = static_cast<std::size_t>(complete / 250) + 1;
  ASSERT_LE(complete_frame + 12, 74u) << "twelve frames after";
  const Image<float> empty = expected_counts(options, 0), before = expected_counts(options, static_cast<int>(onset_frame)),
                     after = expected_counts(options, 73);
  int measured = 0;
  for (const PhantomSegment& segment : truth.segments) {
    const bool changes = std::find(changing.begin(), changing.end(), segment.id) != changing.end();
    ASSERT_EQ(changes, !segment.calibre.empty()) << segment.name;
    if (!changes) continue;
    ASSERT_EQ(segment.calibre.size(), 74u);
    for (std::size_t i = 0; i < segment.points.size(); ++i) {
      for (std::size_t f = 0; f <= onset_frame; ++f) ASSERT_EQ(segment.calibre[f][i], 1);
      for (std::size_t f = 1; f < 74; ++f) ASSERT_LE(segment.calibre[f][i], segment.calibre[f - 1][i]);
      ASSERT_EQ(segment.calibre[complete_frame][i], segment.calibre.back()[i]);
      EXPECT_GT(segment.filling[onset_frame - 12][i], 0.9f) << segment.name << ": filled for twelve frames before";
    }
    // The section that is drawn.
    for (std::size_t i = 4; i + 4 < segment.points.size(); i += 4) {
      const PhantomPoint& p = segment.points[i];
      if (p.gap_px < 8 || p.path_factor > 1.3 || p.y_px < 12 || p.x_px < 12 || p.y_px > 179 || p.x_px > 179) continue;
      if (std::abs(segment.calibre.back()[i - 3] - segment.calibre.back()[i + 3]) > 0.1f) continue;
      double then = 0, now = 0;
      for (int y = static_cast<int>(p.y_px) - 7; y <= p.y_px + 8; ++y)
        for (int x = static_cast<int>(p.x_px) - 7; x <= p.x_px + 8; ++x) {
          const double dy = segment.points[i + 1].y_px - segment.points[i - 1].y_px,
                       dx = segment.points[i + 1].x_px - segment.points[i - 1].x_px;
          const double along = ((y - p.y_px) * dy + (x - p.x_px) * dx) / std::hypot(dy, dx), weight = std::exp(-along * along / 4);
          then += weight * (1 - static_cast<double>(before(y, x)) / static_cast<double>(empty(y, x)));
          now += weight * (1 - static_cast<double>(after(y, x)) / static_cast<double>(empty(y, x)));
        }
      EXPECT_NEAR(now / then, std::pow(static_cast<double>(segment.calibre.back()[i]), 2), 0.06) << segment.name << " " << i;
      ++measured;
    }
  }
  EXPECT_GT(measured, 3);
}

/// A run in which nothing moves and nothing is noise, seen as ln of the first frame over a later one.
class InjuryRun {
 public:
  explicit InjuryRun(std::uint64_t seed) {
    PhantomOptions options = small("injury", 512, 16);
    options.seed = seed;
    options.frame_time_ms = 1000;
    options.contrast_free_frames = 1;
    options.noise_log_sd = options.motion_px = options.rotation_deg = 0;
    phantom_ = make_phantom(options);
  }
  const PhantomTruth& truth() const { return phantom_.truth; }
  const PhantomStain& stain(const std::string& kind) const {
    return *std::find_if(truth().stains.begin(), truth().stains.end(), [&](const PhantomStain& s) { return s.kind == kind; });
  }
  const PhantomSegment& vein(const PhantomStain& stain) const { return truth().segments[static_cast<std::size_t>(stain.segment - 1)]; }
  /// Of the vein's points the one beside the stain's middle.
  std::size_t beside(const PhantomStain& stain) const {
    const auto& points = vein(stain).points;
    const auto away = [&](const PhantomPoint& p) { return std::abs(p.arc_length_mm - 0.5 * (stain.from_mm + stain.to_mm)); };
    const auto nearest = std::min_element(points.begin(), points.end(), [&](const auto& a, const auto& b) { return away(a) < away(b); });
    return static_cast<std::size_t>(nearest - points.begin());
  }
  double density(int frame, double y, double x) const {
    const int iy = static_cast<int>(y), ix = static_cast<int>(x);
    const double f = y - iy, g = x - ix;
    const auto at = [&](int j, int i) {
      return std::log(static_cast<double>(phantom_.frames[0](j, i)) / phantom_.frames[static_cast<std::size_t>(frame)](j, i));
    };
    return (1 - f) * ((1 - g) * at(iy, ix) + g * at(iy, ix + 1)) + f * ((1 - g) * at(iy + 1, ix) + g * at(iy + 1, ix + 1));
  }
  /// Densities added up within a distance.
  double mass(int frame, double y, double x, double within_px) const {
    double sum = 0;
    for (int j = static_cast<int>(y - within_px); j <= y + within_px; ++j)
      for (int i = static_cast<int>(x - within_px); i <= x + within_px; ++i)
        if (std::hypot(j - y, i - x) <= within_px) sum += density(frame, j, i);
    return sum;
  }

 private:
  PhantomRun phantom_;
};

TEST(PhantomInjury, WhatLeaksGrowsAndStaysWhileTheVeinWashesOut) {
  for (const std::uint64_t seed : {1, 2}) {
    const InjuryRun run(seed);
    const PhantomStain& leak = run.stain("extravasation");
    const PhantomSegment& vein = run.vein(leak);
    const std::size_t k = run.beside(leak);
    const double mm = run.truth().mm_per_px, after_ms = leak.onset_ms - vein.points[k].arrival_ms;
    EXPECT_GE(after_ms, 300);
    EXPECT_LE(after_ms, 1000);
    EXPECT_GE(leak.radius_mm, 2);
    EXPECT_LE(leak.radius_mm, 3.5);
    EXPECT_GE(leak.to_mm - leak.from_mm, 4.8);
    EXPECT_LE(leak.to_mm - leak.from_mm, 9.2);
    const double aside = std::hypot(leak.y_px - vein.points[k].y_px, leak.x_px - vein.points[k].x_px) * mm;
    EXPECT_NEAR(aside, vein.points[k].radius_mm + leak.radius_mm - 0.4, 0.2) << "it touches the wall from outside";
    double before = 0;
    for (int frame = 0; frame < 16; ++frame) {
      const double now = run.mass(frame, leak.y_px, leak.x_px, leak.radius_mm / mm);
      EXPECT_GE(now, before - 0.2) << "frame " << frame;
      if (frame * 1000 < leak.onset_ms) {
        EXPECT_LT(run.density(frame, leak.y_px, leak.x_px), 0.02);
      }
      before = now;
    }
    EXPECT_GT(before, 2 * run.mass(static_cast<int>(leak.onset_ms / 1000) + 3, leak.y_px, leak.x_px, leak.radius_mm / mm));
    const double chord = 2 * leak.radius_mm * leak.concentration * run.truth().attenuation_per_mm;
    EXPECT_NEAR(run.density(15, leak.y_px, leak.x_px) / chord, 1, 0.06);
    float highest = 0;
    for (const auto& frame : vein.filling) highest = std::max(highest, frame[k]);
    EXPECT_GT(highest, 0.95f);
    EXPECT_LT(vein.filling.back()[k], 0.2f * highest);
  }
}

TEST(PhantomInjury, FlapPartsTwoLuminaOfWhichTheFalseOneKeepsItsContrast) {
  for (const std::uint64_t seed : {1, 4}) {
    const InjuryRun run(seed);
    const PhantomStain& lumen = run.stain("dissection");
    const PhantomPoint& beside = run.vein(lumen).points[run.beside(lumen)];
    const double diameter = 2 * beside.healthy_radius_mm;
    EXPECT_GE(diameter, 2.95);
    EXPECT_GE(lumen.to_mm - lumen.from_mm, 11.5);
    EXPECT_LE(lumen.to_mm - lumen.from_mm, 20.5);
    EXPECT_NEAR(beside.radius_mm / beside.healthy_radius_mm, 0.5, 0.05);
    EXPECT_NEAR(2 * lumen.radius_mm / diameter, 0.4, 0.06);
    const double apart = std::hypot(lumen.y_px - beside.y_px, lumen.x_px - beside.x_px) * run.truth().mm_per_px;
    EXPECT_NEAR(apart - beside.radius_mm - lumen.radius_mm, 0.3, 0.12) << "the flap";
    ASSERT_EQ(run.truth().lesions.size(), 1u);
    EXPECT_EQ(run.truth().lesions[0].kind, "dissection");
    EXPECT_EQ(run.truth().lesions[0].segment, lumen.segment);
    EXPECT_GT(lumen.onset_ms, beside.arrival_ms + 500);
    EXPECT_LT(lumen.onset_ms, beside.arrival_ms + 1500);

    const int full = static_cast<int>(lumen.onset_ms / 1000) + 2;
    const double of_true = run.density(full, beside.y_px, beside.x_px), of_false = run.density(full, lumen.y_px, lumen.x_px);
    double between = of_true;
    for (double f = 0; f <= 1; f += 0.05)
      between =
          std::min(between, run.density(full, lumen.y_px + f * (beside.y_px - lumen.y_px), lumen.x_px + f * (beside.x_px - lumen.x_px)));
    EXPECT_LT(between, 0.8 * of_true);
    EXPECT_LT(between, 0.8 * of_false);
    EXPECT_GT(run.density(15, lumen.y_px, lumen.x_px), 0.9 * of_false);
    EXPECT_LT(run.density(15, beside.y_px, beside.x_px), 0.3 * of_true);
  }
}

TEST(PhantomInjury, NoOtherScenarioHasStains) {
  for (const std::string& scenario : phantom_scenarios())
    EXPECT_EQ(phantom_truth(small(scenario, 64, 2)).stains.size(), scenario == "injury" ? 2u : 0u) << scenario;
}

TEST(PhantomSteal, PerforatorsTakeTheFlowAndTheArchFillsLate) {
  const auto arch_arrival = [](const PhantomTruth& truth) {
    double latest = 0;
    for (const PhantomSegment& segment : truth.segments)
      if (segment.role == "arch")
        for (const PhantomPoint& p : segment.points) latest = std::max(latest, std::isnan(p.arrival_ms) ? 1e9 : p.arrival_ms);
    return latest;
  };
  const PhantomTruth foot = phantom_truth(small("foot", 96, 48)), steal = phantom_truth(small("steal", 96, 48));
  ASSERT_TRUE(foot.flow_split && steal.flow_split);
  EXPECT_LT(foot.flow_split->perforators, 0.2);
  EXPECT_GT(foot.flow_split->arch, 0.3);
  EXPECT_GT(steal.flow_split->perforators, 0.6);
  EXPECT_LT(steal.flow_split->arch, 0.15);
  EXPECT_GT(arch_arrival(steal), arch_arrival(foot) + 1500);
}

TEST(PhantomRuns, RunInMemoryIsComplete) {
  const PhantomRun phantom = make_phantom(small("tubes", 96, 5));
  const cinelumen::Run run = make_run(phantom);  // not testing::Test::Run
  EXPECT_EQ(run.frame_count(), 5);
  EXPECT_EQ(run.rows(), 96);
  EXPECT_EQ(run.frame_times_ms, (std::vector<double>{0, 250, 500, 750, 1000}));
  EXPECT_EQ(run.intensity.relationship, IntensityRelationship::linear);
  ASSERT_EQ(run.intensity.value.size(), 4096u);
  EXPECT_EQ(run.intensity.value[1234], 1234);
  EXPECT_NEAR((*run.geometry.imager_pixel_spacing_mm)[0] * *run.geometry.source_to_patient_mm / *run.geometry.source_to_detector_mm,
              phantom.truth.mm_per_px, 1e-9);
  Image<std::uint16_t> frame(96, 96);
  run.frames->read_frame(4, frame.view());
  for (int y = 0; y < 96; ++y)
    for (int x = 0; x < 96; ++x) {
      ASSERT_EQ(frame(y, x), phantom.frames[4](y, x));
      ASSERT_EQ(run.field.mask(y, x), 1);
    }
  EXPECT_THROW(run.frames->read_frame(5, frame.view()), InputError);
}

TEST(PhantomRuns, WrongOptionsAreNamed) {
  const auto message = [](auto change) {
    PhantomOptions options = small("tubes", 96, 2);
    change(options);
    try {
      make_phantom(options);
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message([](PhantomOptions&) {}), "");
  EXPECT_EQ(message([](PhantomOptions& o) { o.rows = 5; }), "phantom: rows is 5, expected 64 to 4096");
  EXPECT_NE(message([](PhantomOptions& o) { o.scenario = "hand"; }).find("hand"), std::string::npos);
  EXPECT_NE(message([](PhantomOptions& o) { o.frames = 0; }).find("frames"), std::string::npos);
  EXPECT_NE(message([](PhantomOptions& o) { o.frame_time_ms = std::nan(""); }).find("frame time"), std::string::npos);
  EXPECT_NE(message([](PhantomOptions& o) { o.noise_log_sd = -1; }).find("noise"), std::string::npos);
  EXPECT_NE(message([](PhantomOptions& o) { o.motion_px = 50; }).find("motion"), std::string::npos);
  EXPECT_NE(message([](PhantomOptions& o) { o.bits_stored = 20; }).find("bits"), std::string::npos);
}

}  // namespace
}  // namespace cinelumen
