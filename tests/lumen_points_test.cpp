/// What goes on between the fits of a frame, against brute-force twins.

#include "kernels/lumen_points.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "support/arrays.h"
#include "support/devices.h"
#include "support/tubes.h"

namespace cinelumen {
namespace {

using test::on_device, test::on_host;

class LumenPointsTest : public test::DeviceTest {};

constexpr int group = points_per_group;

/// Lines with everything the functions need, every block a candidate of every group.
struct Scene {
  std::vector<std::int32_t> first = {0}, segment, inferred, group_first, group_end, seen_first = {0}, seen_block, block_point, end_point,
                            end_seen_first = {0}, end_seen, group_ends_first = {0}, group_ends;
  std::vector<float> radius, arc_length, seen_reach, block_radius, block_arc;
  std::vector<CrossSection> lines;

  void add(const std::vector<CrossSection>& line, float wide) {
    const int start = first.back(), count = static_cast<int>(line.size()), number = static_cast<int>(first.size()) - 1;
    for (int i = 0; i < count; ++i) {
      lines.push_back(line[i]);
      segment.push_back(number);
      inferred.push_back(i == 5 ? 1 : 0);
      radius.push_back(wide + 0.02f * static_cast<float>(i % 30));
      arc_length.push_back(static_cast<float>(i));
    }
    first.push_back(start + count);
    for (int i = 0; i < count; i += group) {
      group_first.push_back(start + i);
      group_end.push_back(start + std::min(count, i + group));
    }
    std::vector<int> chosen;
    for (int i = 0; i < count; i += 2) chosen.push_back(i);
    while (chosen.size() % group != 0) chosen.push_back(count - 1);
    for (const int i : chosen) {
      block_point.push_back(start + i);
      block_radius.push_back(radius[start + i]);
      block_arc.push_back(arc_length[start + i]);
    }
    end_point.push_back(start);
    end_point.push_back(start + count - 1);
  }
  int blocks() const { return static_cast<int>(block_point.size()) / group; }
  int points() const { return first.back(); }

  void connect() {
    for (std::size_t g = 0; g < group_first.size(); ++g) {
      for (int b = 0; b < blocks(); ++b) {
        seen_block.push_back(b);
        seen_reach.push_back(60);
      }
      seen_first.push_back(static_cast<int>(seen_block.size()));
      for (int e = 0; e < static_cast<int>(end_point.size()); ++e) group_ends.push_back(e);
      group_ends_first.push_back(static_cast<int>(group_ends.size()));
    }
    for (const int point : end_point) {
      for (int b = 0; b < blocks(); ++b)
        if (segment[block_point[b * group]] != segment[point]) end_seen.push_back(b);
      end_seen_first.push_back(static_cast<int>(end_seen.size()));
    }
  }
};

/// The scene and the workspace on a device.
struct Bench {
  Bench(const Stream& on, const Scene& scene)
      : stream(on),
        first(on_device(on, scene.first)),
        segment(on_device(on, scene.segment)),
        inferred(on_device(on, scene.inferred)),
        group_first(on_device(on, scene.group_first)),
        group_end(on_device(on, scene.group_end)),
        seen_first(on_device(on, scene.seen_first)),
        seen_block(on_device(on, scene.seen_block)),
        block_point(on_device(on, scene.block_point)),
        end_point(on_device(on, scene.end_point)),
        end_seen_first(on_device(on, scene.end_seen_first)),
        end_seen(on_device(on, scene.end_seen)),
        group_ends_first(on_device(on, scene.group_ends_first)),
        group_ends(on_device(on, scene.group_ends)),
        radius(on_device(on, scene.radius)),
        arc_length(on_device(on, scene.arc_length)),
        seen_reach(on_device(on, scene.seen_reach)),
        block_radius(on_device(on, scene.block_radius)),
        block_arc(on_device(on, scene.block_arc)),
        lines(on_device(on, scene.lines)) {
    const int all = scene.points(), blocks = scene.blocks();
    for (Array<float>* array : {&block_y, &block_x}) *array = Array<float>(on, blocks * group);
    extent = Array<float>(on, blocks);
    junction = Array<float>(on, static_cast<int>(scene.end_point.size()));
    for (Array<float>* array : {&kappa, &kappa_sd}) *array = Array<float>(on, all);
    for (Array<std::int32_t>* array : {&overlap, &pass, &width_class, &list}) *array = Array<std::int32_t>(on, all);
    points = Array<LumenFitPoint>(on, all);
    count = Array<std::int32_t>(on, 1);
    for (Array<LumenFit>* array : {&found, &fits}) *array = Array<LumenFit>(on, all);
    pooled = Array<PooledKappa>(on, static_cast<int>(scene.first.size()));
  }
  LumenPlan plan() const {
    return {first.view(),     segment.view(),    inferred.view(),       radius.view(),     arc_length.view(),       group_first.view(),
            group_end.view(), seen_first.view(), seen_block.view(),     seen_reach.view(), block_point.view(),      block_radius.view(),
            block_arc.view(), end_point.view(),  end_seen_first.view(), end_seen.view(),   group_ends_first.view(), group_ends.view()};
  }
  LumenWorkspace work() {
    return {block_y.view(), block_x.view(), extent.view(),      junction.view(), points.view(),
            overlap.view(), pass.view(),    width_class.view(), list.view(),     count.view(),
            found.view(),   fits.view(),    kappa.view(),       kappa_sd.view(), pooled.view()};
  }
  std::vector<std::int32_t> listed() {
    auto all = on_host<std::int32_t>(stream, list.view());
    all.resize(static_cast<std::size_t>(on_host<std::int32_t>(stream, count.view())[0]));
    return all;
  }

  Stream stream;
  Array<std::int32_t> first, segment, inferred, group_first, group_end, seen_first, seen_block, block_point, end_point, end_seen_first,
      end_seen, group_ends_first, group_ends;
  Array<float> radius, arc_length, seen_reach, block_radius, block_arc;
  Array<CrossSection> lines;
  Array<float> block_y, block_x, extent, junction, kappa, kappa_sd;
  Array<std::int32_t> overlap, pass, width_class, list, count;
  Array<LumenFitPoint> points;
  Array<LumenFit> found, fits;
  Array<PooledKappa> pooled;
};

std::vector<CrossSection> straight(float y, float x, float angle, int count) {
  std::vector<CrossSection> line;
  const float dy = std::sin(angle), dx = std::cos(angle);
  for (int i = 0; i < count; ++i) line.push_back({y + static_cast<float>(i) * dy, x + static_cast<float>(i) * dx, dx, -dy});
  return line;
}

// Beside one another, crossing, meeting an end, and one that comes back to itself.
Scene some_lines() {
  Scene scene;
  scene.add(straight(40, 10, 0.1f, 150), 3);
  scene.add(straight(56, 12, 0.05f, 120), 2);
  scene.add(straight(90, 150, -2.2f, 90), 4);
  scene.add(straight(20, 60, 0.9f, 17), 1.2f);
  std::vector<CrossSection> bend;
  for (int i = 0; i < 130; ++i) {
    const float angle = 0.06f * static_cast<float>(i);
    bend.push_back({110 + 16 * std::sin(angle), 60 + 16 * std::cos(angle), std::sin(angle), std::cos(angle)});
  }
  scene.add(bend, 1.5f);
  scene.connect();
  return scene;
}

struct Window {
  double from = -1e6, to = 1e6;
  bool overlap = false;
};

std::vector<Window> windows_of(const Scene& scene, double s) {
  std::vector<std::pair<const CrossSection*, double>> junctions;
  for (const int e : scene.end_point) {
    const double own = scene.radius[e], reach = std::max(3.0, own);
    double wide = 0;
    for (const int q : scene.block_point)
      if (scene.segment[q] != scene.segment[e] &&
          std::hypot(scene.lines[q].y - scene.lines[e].y, scene.lines[q].x - scene.lines[e].x) <= reach)
        wide = std::max({wide, own, static_cast<double>(scene.radius[q])});
    if (wide > 0) junctions.emplace_back(&scene.lines[e], wide);
  }
  std::vector<Window> result;
  for (int i = 0; i < scene.points(); ++i) {
    const CrossSection& p = scene.lines[i];
    Window window;
    window.overlap = scene.inferred[i] != 0;
    for (const int q : scene.block_point) {
      const double dy = scene.lines[q].y - p.y, dx = scene.lines[q].x - p.x, across = dy * p.normal_y + dx * p.normal_x;
      const double along = std::abs(dx * p.normal_y - dy * p.normal_x), lumen = scene.radius[q] + 2 * s;
      const double arc = std::abs(scene.arc_length[q] - scene.arc_length[i]);
      if (scene.segment[q] == scene.segment[i] && arc < 3 * (std::abs(across) + along + 4)) continue;
      const double chord = lumen * lumen - std::pow(std::max(along - 0.5, 0.0), 2);
      if (chord <= 0 || std::hypot(dy, dx) > 55) continue;  // all within 60 are seen
      const double free = std::abs(across) - std::sqrt(chord);
      if (free < scene.radius[i] + 2.5 * s)
        window.overlap = true;
      else if (across > 0)
        window.to = std::min(window.to, free);
      else
        window.from = std::max(window.from, -free);
    }
    for (const auto& [at, wide] : junctions)
      if (std::hypot(at->y - p.y, at->x - p.x) < wide + 0.5 * scene.radius[i] + 2) window.overlap = true;
    result.push_back(window);
  }
  return result;
}

TEST_P(LumenPointsTest, WindowsEndShortOfOtherVessels) {
  const Stream stream = this->stream();
  const Scene scene = some_lines();
  Bench bench(stream, scene);
  LumenPointOptions options;
  look_around(stream, bench.plan(), options, bench.lines.view(), bench.work());
  const auto points = on_host<LumenFitPoint>(stream, bench.points.view());
  const auto overlap = on_host<std::int32_t>(stream, bench.overlap.view());
  const std::vector<Window> expected = windows_of(scene, options.effective_psf_px);
  int overlaps = 0, limited = 0;
  for (int i = 0; i < scene.points(); ++i) {
    EXPECT_EQ(overlap[i] != 0, expected[i].overlap) << i;
    overlaps += overlap[i];
    limited += points[i].to_px < 50 || points[i].from_px > -50;
    if (expected[i].to < 40 || points[i].to_px < 40) {
      EXPECT_NEAR(points[i].to_px, expected[i].to, 1e-3) << i;
    }
    if (expected[i].from > -40 || points[i].from_px > -40) {
      EXPECT_NEAR(points[i].from_px, expected[i].from, 1e-3) << i;
    }
    EXPECT_EQ(points[i].radius_px, scene.radius[i]);
    EXPECT_EQ(points[i].y, scene.lines[i].y);
  }
  EXPECT_GT(overlaps, 40);
  EXPECT_LT(overlaps, scene.points() / 2);
  EXPECT_GT(limited, 60);
}

TEST_P(LumenPointsTest, EveryThirdPointIsSearchedAndItsNeighboursStartFromTheMiddle) {
  const Stream stream = this->stream();
  const Scene scene = some_lines();
  Bench bench(stream, scene);
  const LumenPointOptions options;
  look_around(stream, bench.plan(), options, bench.lines.view(), bench.work());
  list_searched(stream, bench.plan(), bench.work());
  const auto overlap = on_host<std::int32_t>(stream, bench.overlap.view());
  std::vector<std::int32_t> searched, clear;
  for (int i = 0; i < scene.points(); ++i) {
    const int place = i - scene.first[scene.segment[i]];
    if (overlap[i]) continue;
    clear.push_back(i);
    if (place % 3 == 0 || overlap[i - 1]) searched.push_back(i);
  }
  EXPECT_EQ(bench.listed(), searched);
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform(0, 1);
  std::vector<LumenFit> found(static_cast<std::size_t>(scene.points()));
  for (const int i : searched) {
    found[i].diameter_px = 4 + 8 * uniform(random);
    found[i].centre_px = uniform(random) - 0.5f;
    found[i].significance = 8 * uniform(random);
    found[i].contrast = uniform(random);
  }
  copy<LumenFit>(stream, ArrayView<const LumenFit>{found.data(), scene.points()}, bench.found.view());
  choose_starts(stream, bench.plan(), options, bench.work());
  const auto points = on_host<LumenFitPoint>(stream, bench.points.view());
  const auto fits = on_host<LumenFit>(stream, bench.fits.view());
  const auto pass = on_host<std::int32_t>(stream, bench.pass.view());
  int wide = 0, narrow = 0;
  for (const int i : clear) {
    std::vector<float> radius, significance;
    for (const int j : searched)
      if (std::abs(j - i) <= 5 && scene.segment[j] == scene.segment[i]) {
        radius.push_back(0.5f * found[j].diameter_px);
        significance.push_back(found[j].significance);
      }
    const auto middle = [](std::vector<float> values) {
      std::sort(values.begin(), values.end());
      return 0.5f * (values[(values.size() - 1) / 2] + values[values.size() / 2]);
    };
    EXPECT_FLOAT_EQ(points[i].radius_px, middle(radius)) << i;
    EXPECT_FLOAT_EQ(fits[i].significance, middle(significance)) << i;
    const int expected = middle(significance) < 3 ? 0 : (middle(radius) < options.free_kappa_ratio * options.effective_psf_px ? 2 : 1);
    EXPECT_EQ(pass[i], expected) << i;
    wide += expected == 1;
    narrow += expected == 2;
  }
  EXPECT_GT(wide, 20);
  EXPECT_GT(narrow, 20);
  for (const int which : {1, 2}) {
    list_pass(stream, bench.plan(), which, bench.work());
    auto listed = bench.listed();
    std::sort(listed.begin(), listed.end());
    std::vector<std::int32_t> expected;
    for (int i = 0; i < scene.points(); ++i)
      if (pass[i] == which) expected.push_back(i);
    EXPECT_EQ(listed, expected) << which;
  }
  list_all(stream, bench.plan(), bench.work());
  EXPECT_EQ(bench.listed(), clear);
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return 0.5 * (values[(values.size() - 1) / 2] + values[values.size() / 2]);
}

PooledKappa pool(const std::vector<double>& values, const std::vector<double>& sds, double least) {
  if (values.size() < 5) return {};
  const double centre = median_of(values), measured = median_of(sds);
  std::vector<double> away;
  for (const double value : values) away.push_back(std::abs(value - centre));
  const double spread = 1.4826 * median_of(away), strays = std::sqrt(std::max(spread * spread - measured * measured, 0.0));
  return {static_cast<float>(centre),
          static_cast<float>(std::hypot(strays, std::max(measured / std::sqrt(static_cast<double>(values.size()) / 3), least * centre)))};
}

TEST_P(LumenPointsTest, KappaOfWidePointsIsPooled) {
  const Stream stream = this->stream();
  const Scene scene = some_lines();
  Bench bench(stream, scene);
  const LumenPointOptions options;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const int lines = static_cast<int>(scene.first.size()) - 1;
  std::vector<LumenFit> fits(static_cast<std::size_t>(scene.points()));
  std::vector<std::int32_t> pass(fits.size());
  std::vector<std::vector<double>> values(static_cast<std::size_t>(lines) + 1), sds(values.size());
  for (int i = 0; i < scene.points(); ++i) {
    const int s = scene.segment[i];
    LumenFit& fit = fits[i];
    fit.diameter_px = 10;
    fit.sd_px = i % 11 == 0 ? 6.0f : 0.2f;  // too uncertain
    fit.contrast = 0.2f;
    fit.contrast_sd = 0.005f;
    fit.chi2_per_dof = 1;
    fit.samples = 60;
    fit.converged = i % 7 != 0;
    fit.kappa = (0.02f + 0.002f * static_cast<float>(s)) * (1 + 0.1f * normal(random));
    fit.kappa_sd = 0.001f * (1 + 0.2f * std::abs(normal(random)));
    pass[i] = s == 3 ? 2 : (s == 1 && i % 3 == 0 ? 2 : 1);  // one line is narrow throughout
    if (pass[i] != 1 || !fit.converged || i % 11 == 0) continue;
    for (const int to : {s, lines}) {
      values[to].push_back(fit.kappa);
      sds[to].push_back(fit.kappa_sd);
    }
  }
  copy<LumenFit>(stream, ArrayView<const LumenFit>{fits.data(), scene.points()}, bench.fits.view());
  copy<std::int32_t>(stream, ArrayView<const std::int32_t>{pass.data(), scene.points()}, bench.pass.view());
  const std::vector<LumenFitPoint> points(fits.size());
  copy<LumenFitPoint>(stream, ArrayView<const LumenFitPoint>{points.data(), scene.points()}, bench.points.view());
  prepare_second_pass(stream, bench.plan(), options, bench.work());
  const auto pooled = on_host<PooledKappa>(stream, bench.pooled.view());
  std::vector<double> of_lines;
  for (int s = 0; s < lines; ++s) {
    const PooledKappa expected = pool(values[s], sds[s], 0.02);
    EXPECT_NEAR(pooled[s].value, expected.value, 1e-6 * expected.value) << s;
    EXPECT_NEAR(pooled[s].sd, expected.sd, 1e-4 * expected.sd) << s;
    if (expected.sd > 0) of_lines.push_back(expected.value);
  }
  EXPECT_EQ(pooled[3].sd, 0);
  std::vector<double> away;
  for (const double value : of_lines) away.push_back(std::abs(value - median_of(of_lines)));
  const double between = std::max(0.05, 1.5 * 1.4826 * median_of(away) / median_of(of_lines));
  const PooledKappa of_frame = pool(values[lines], sds[lines], between);
  EXPECT_NEAR(pooled[lines].value, of_frame.value, 1e-6 * of_frame.value);
  EXPECT_NEAR(pooled[lines].sd, of_frame.sd, 1e-4 * of_frame.sd);
  const auto second = on_host<std::int32_t>(stream, bench.pass.view());
  const auto prepared = on_host<LumenFitPoint>(stream, bench.points.view());
  for (int i = 0; i < scene.points(); ++i) {
    const bool again = pass[i] == 2 || !fits[i].converged;
    EXPECT_EQ(second[i], again ? 2 : 1) << i;
    const PooledKappa& prior = scene.segment[i] == 3 ? pooled[lines] : pooled[scene.segment[i]];
    EXPECT_EQ(prepared[i].kappa, again ? prior.value : 0) << i;
    EXPECT_EQ(prepared[i].kappa_sd, again ? prior.sd : 0) << i;
  }
}

TEST_P(LumenPointsTest, VerdictsFollowTheFits) {
  const Stream stream = this->stream();
  Scene scene;
  scene.add(straight(20, 10, 0, 20), 3);
  scene.connect();
  Bench bench(stream, scene);
  LumenPointOptions options;
  options.sd_inflation = 1.5f;
  options.common_noise_share = 0.25f;
  for (int k = 0; k < 8; ++k) options.noise_factor[k] = 1 + 0.1f * static_cast<float>(k);
  look_around(stream, bench.plan(), options, bench.lines.view(), bench.work());
  LumenFit good;
  good.diameter_px = 2 * 1.6f * 1.6f;
  good.sd_px = 0.3f;
  good.prior_sd_px = 0.1f;
  good.centre_px = 0.4f;
  good.contrast = 0.2f;
  good.contrast_sd = 0.005f;
  good.chi2_per_dof = 1;
  good.samples = 60;
  good.converged = 1;
  std::vector<LumenFit> fits(20, good);
  fits[1].lost = 0.2f;
  fits[2].samples = 0;
  fits[3].contrast = 0.02f;
  fits[4].sd_px = 2;
  fits[6].converged = 0;
  fits[7].chi2_per_dof = 4000;
  copy<LumenFit>(stream, ArrayView<const LumenFit>{fits.data(), 20}, bench.fits.view());
  Array<MeasuredLumen> measured(stream, 20);
  judge_points(stream, bench.plan(), options, bench.work(), measured.view());
  const auto host = on_host<MeasuredLumen>(stream, measured.view());
  const LumenVerdict expected[] = {LumenVerdict::used,         LumenVerdict::edge,     LumenVerdict::unfilled, LumenVerdict::unfilled,
                                   LumenVerdict::low_contrast, LumenVerdict::inferred, LumenVerdict::no_fit,   LumenVerdict::no_fit};
  for (int i = 0; i < 8; ++i) EXPECT_EQ(host[i].verdict, expected[i]) << i;
  EXPECT_NEAR(host[0].sd_px, 1.5 * 1.2 * 0.3, 1e-4);
  EXPECT_NEAR(host[0].common_sd_px, std::sqrt(std::pow(1.5 * 0.1, 2) + 0.25 * std::pow(1.8, 2) * (0.09 - 0.01)), 1e-4);
  EXPECT_FLOAT_EQ(host[0].y, 20.0f + 0.4f * host[0].normal_y);
  EXPECT_FLOAT_EQ(host[6].y, 20.0f) << "not moved where it is not used";
  EXPECT_TRUE(is_sound(fits[0], options));
  EXPECT_FALSE(is_sound(fits[6], options));
}

TEST_P(LumenPointsTest, ContrastIsReadAboveTheBackground) {
  const Stream stream = this->stream();
  const Image<float> image = test::render_tubes(100, 120, {test::straight_tube({50, 0}, {50, 119}, 4)}, 0.3, 0.8, 0, 1, 0.2);
  Image<std::uint8_t> valid(100, 120);
  for (int y = 0; y < 100; ++y)
    for (int x = 0; x < 120; ++x) valid(y, x) = x < 100;
  const std::vector<CrossSection> line = straight(50, 20, 0, 105);  // the last five outside
  const auto lines = on_device(stream, line);
  const auto radius = on_device(stream, std::vector<float>(line.size(), 4.0f));
  const Image<float> device = to_device(stream, image.view());
  const Image<std::uint8_t> device_valid = to_device(stream, valid.view());
  Array<float> above(stream, 105), whole(stream, 105);
  sample_contrast(stream, device.view(), device_valid.view(), lines.view(), radius.view(), true, above.view());
  sample_contrast(stream, device.view(), device_valid.view(), lines.view(), radius.view(), false, whole.view());
  const auto host_above = on_host<float>(stream, above.view()), host_whole = on_host<float>(stream, whole.view());
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i].x < 99) {
      EXPECT_NEAR(host_above[i], 0.29, 0.015) << i;
      EXPECT_NEAR(host_whole[i], 0.49, 0.015) << i;
    } else if (line[i].x >= 100) {
      EXPECT_TRUE(std::isnan(host_above[i])) << "outside the field at " << i;
    }
  }
  EXPECT_THROW(sample_contrast(stream, device.view(), {}, lines.view(), radius.view(), true, above.view()), std::invalid_argument);
}

CINELUMEN_ON_ALL_DEVICES(LumenPointsTest);

}  // namespace
}  // namespace cinelumen
