/// The cylinder fit: its model against quadrature, its result against a double-precision twin, its bias and error bars on tubes drawn by
/// another integrator with another point spread.

#include "kernels/lumen_fit.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "reference/lumen_fit.h"
#include "support/devices.h"
#include "support/images.h"

namespace cinelumen {
namespace {

struct Tube {
  double radius_px = 6, kappa = 0.02, noise_sd = 0.01, angle_rad = 0.4, edge = 0;
  reference::LineSpread spread;
  unsigned seed = 1;
  int side = 120;
};

struct Scene {
  Image<float> image;
  std::vector<LumenFitPoint> points;
};

// A straight tube through the middle, points along it, their places off by up to 0.3 px.
Scene draw(const Tube& tube, int count, double start_scale) {
  Scene scene{Image<float>(tube.side, tube.side), {}};
  const double ny = std::sin(tube.angle_rad), nx = std::cos(tube.angle_rad), middle = 0.5 * tube.side + 0.21;
  for (int y = 0; y < tube.side; ++y)
    for (int x = 0; x < tube.side; ++x) scene.image(y, x) = static_cast<float>(0.01 + 0.0002 * x);
  reference::TubeRenderer(tube.radius_px, tube.kappa, tube.spread).draw(scene.image.view(), middle, middle, ny, nx);
  reference::add_noise(scene.image.view(), tube.noise_sd, tube.seed, tube.edge);
  for (int i = 0; i < count; ++i) {
    const double along = (i - 0.5 * count) * std::min(1.0, 0.5 * tube.side / count), off = 0.3 * std::sin(1.7 * i);
    LumenFitPoint point;
    point.y = static_cast<float>(middle + along * nx + off * ny);
    point.x = static_cast<float>(middle - along * ny + off * nx);
    point.normal_y = static_cast<float>(ny);
    point.normal_x = static_cast<float>(nx);
    point.radius_px = static_cast<float>(start_scale * tube.radius_px);
    point.psf_px = static_cast<float>(tube.spread.sd);
    point.psf_sd_px = 0.03f;
    scene.points.push_back(point);
  }
  return scene;
}

std::vector<LumenFit> fit(const Stream& stream, ImageView<const float> image, const std::vector<LumenFitPoint>& points,
                          const LumenFitOptions& options, ImageView<const float> variance = {}, ImageView<const std::uint8_t> valid = {}) {
  const int count = static_cast<int>(points.size());
  const Image<float> on_device = to_device(stream, image);
  Image<float> variance_on_device;
  Image<std::uint8_t> valid_on_device;
  if (variance.data) variance_on_device = to_device(stream, variance);
  if (valid.data) valid_on_device = to_device(stream, valid);
  Array<LumenFitPoint> host_points(count), device_points(stream, count);
  Array<LumenFit> host_fits(count), device_fits(stream, count);
  std::copy(points.begin(), points.end(), host_points.begin());
  copy<LumenFitPoint>(stream, host_points.view(), device_points.view());
  fit_lumen(stream, on_device.view(), variance_on_device.view(), valid_on_device.view(), device_points.view(), device_fits.view(), options);
  copy<LumenFit>(stream, device_fits.view(), host_fits.view());
  stream.synchronize();
  return {host_fits.begin(), host_fits.end()};
}

TEST(BlurredChord, AgreesWithQuadrature) {
  for (const double s : {0.4, 0.75, 1.3})
    for (double radius = 0.2 * s; radius < 45; radius *= 1.21) {
      const double peak = reference::blurred_chord(0, radius, s);
      for (double x = -radius - 6 * s; x < radius + 6 * s; x += 0.11 * (radius + 6 * s)) {
        const BlurredChord chord = blurred_chord(static_cast<float>(x), static_cast<float>(radius), static_cast<float>(s));
        const double h = 1e-3 * s, low = reference::blurred_chord(x - h, radius, s), high = reference::blurred_chord(x + h, radius, s),
                     mid = reference::blurred_chord(x, radius, s);
        ASSERT_NEAR(chord.value, mid, 1.5e-4 * peak) << "R " << radius << ", s " << s << ", x " << x;
        ASSERT_NEAR(chord.slope, (high - low) / (2 * h), 1.5e-3 * peak / s) << "R " << radius << ", s " << s << ", x " << x;
        ASSERT_NEAR(chord.curvature, (high - 2 * mid + low) / (h * h), 5e-3 * peak / (s * s))
            << "R " << radius << ", s " << s << ", x " << x;
      }
    }
  EXPECT_THROW(blurred_chord(0, 0, 1), std::invalid_argument);
  EXPECT_THROW(blurred_chord(0, 1, 0), std::invalid_argument);
}

class LumenFits : public test::DeviceTest {};

TEST_P(LumenFits, SearchAloneFindsStartsAndTellsVesselsFromNothing) {
  const Stream stream = this->stream();
  for (const double radius : {2.5, 9.0}) {
    Tube tube;
    tube.radius_px = radius;
    tube.kappa = 0.2 / radius;
    tube.angle_rad = 0.9;
    const Scene scene = draw(tube, 20, 0.8);
    tube.kappa = 1e-9;
    const Scene empty = draw(tube, 20, 0.8);
    LumenFitOptions options;
    options.search_only = true;
    std::vector<float> radii;
    for (const LumenFit& found : fit(stream, scene.image.view(), scene.points, options)) {
      EXPECT_GT(found.significance, 10) << radius;
      EXPECT_GT(found.contrast, 0.1f) << radius;
      EXPECT_EQ(found.samples, 0);
      EXPECT_EQ(found.converged, 0);
      radii.push_back(found.diameter_px / 2);
    }
    std::nth_element(radii.begin(), radii.begin() + 10, radii.end());
    EXPECT_NEAR(radii[10], radius, 0.12 * radius);
    int seen = 0;
    for (const LumenFit& found : fit(stream, empty.image.view(), empty.points, options)) seen += found.significance > 4;
    EXPECT_LE(seen, 2) << radius;
  }
}

// Moving what is held by one SD moves the diameter by what prior_sd_px says.
TEST_P(LumenFits, PriorsShareOfTheSd) {
  const Stream stream = this->stream();
  Tube tube;
  tube.radius_px = 3;
  tube.kappa = 0.06;
  Scene scene = draw(tube, 4, 1);
  LumenFitOptions options;
  options.search = false;
  options.iterations = 20;
  for (LumenFitPoint& p : scene.points) {
    p.kappa = 0.06f;
    p.kappa_sd = 0.003f;
    p.psf_sd_px = 1e-4f;
  }
  const auto before = fit(stream, scene.image.view(), scene.points, options);
  for (LumenFitPoint& p : scene.points) p.kappa += p.kappa_sd;
  const auto after = fit(stream, scene.image.view(), scene.points, options);
  for (std::size_t i = 0; i < before.size(); ++i) {
    const float moved = std::abs(after[i].diameter_px - before[i].diameter_px);
    EXPECT_GT(moved, 0.01f);
    EXPECT_NEAR(before[i].prior_sd_px, moved, 0.15f * moved);
    EXPECT_LT(before[i].prior_sd_px, before[i].sd_px);
  }
}

TEST_P(LumenFits, AgreesWithTheTwin) {
  const Stream stream = this->stream();
  unsigned seed = 3;
  for (const double radius : {2.0, 4.1, 5.3, 11.0}) {
    Tube tube;
    tube.radius_px = radius;
    tube.kappa = 0.2 / radius;
    tube.angle_rad = 0.37 * seed;
    tube.seed = seed++;
    const Scene scene = draw(tube, 2, 0.9);
    LumenFitOptions options;
    options.search = false;
    options.rows = 1 + static_cast<int>(seed % 3);
    options.iterations = 20;
    const auto fits = fit(stream, scene.image.view(), scene.points, options);
    for (std::size_t i = 0; i < fits.size(); ++i) {
      const LumenFitPoint& p = scene.points[i];
      const double s = std::sqrt(p.psf_px * p.psf_px + 1.0 / 12);
      const auto samples =
          reference::window_pixels(scene.image.view(), p.y, p.x, p.normal_y, p.normal_x, p.radius_px, s, options.rows, options.variance);
      const auto twin = reference::fit_cylinder(samples, {radius, 0, tube.kappa, 0, 0}, s);
      EXPECT_EQ(fits[i].samples, static_cast<int>(samples.size()));
      EXPECT_TRUE(fits[i].converged);
      EXPECT_NEAR(fits[i].diameter_px, 2 * twin.theta[0], 0.1 * fits[i].sd_px) << "radius " << radius << " point " << i;
      EXPECT_NEAR(fits[i].centre_px, twin.theta[1], 0.1 * fits[i].centre_sd_px);
      EXPECT_NEAR(fits[i].kappa, twin.theta[2], 0.1 * fits[i].kappa_sd);
      EXPECT_NEAR(fits[i].background, twin.theta[3], 2e-4);
      EXPECT_NEAR(fits[i].background_slope, twin.theta[4], 3e-5);
      EXPECT_NEAR(fits[i].chi2_per_dof, twin.chi2 / (static_cast<double>(samples.size()) - 5), 0.01);
    }
  }
}

TEST_P(LumenFits, SameBitsOnEverySchedule) {
  const Stream stream = this->stream();
  if (stream.on_cuda()) GTEST_SKIP() << "the CPU's schedules only: a GPU sums in another order";
  const Scene scene = draw({}, 45, 1.2);
  const auto fits = fit(stream, scene.image.view(), scene.points, {});
  const auto serial = fit(Stream::cpu({.parallel = false}), scene.image.view(), scene.points, {});
  EXPECT_EQ(std::memcmp(fits.data(), serial.data(), fits.size() * sizeof(LumenFit)), 0);
}

// Neither on which profiles share a tile, nor on whether all their pixels may be read without a look.
TEST_P(LumenFits, NoProfileDependsOnItsNeighbours) {
  const Stream stream = this->stream();
  const bool small = stream.on_cuda();
  Tube wide, narrow;
  wide.radius_px = 9;
  narrow.radius_px = 2;
  narrow.kappa = 0.1;
  wide.side = narrow.side = 80;
  for (const bool search : {true, false}) {
    Scene scene = draw(wide, small ? 3 : 12, 1.2);
    const Scene other = draw(narrow, small ? 3 : 12, 0.9);
    for (const LumenFitPoint& p : other.points) scene.points.insert(scene.points.begin() + 1, p);
    LumenFitOptions options;
    options.search = search;
    const auto alone = fit(stream, scene.image.view(), {scene.points[2]}, options);
    LumenFitPoint at_border = scene.points[0];
    at_border.y = 3;
    at_border.x = 2;
    scene.points.push_back(at_border);
    const auto together = fit(stream, scene.image.view(), scene.points, options);
    EXPECT_EQ(std::memcmp(&alone[0], &together[2], sizeof(LumenFit)), 0) << search;
  }
}

// Those that need many iterations go on in other company.
TEST_P(LumenFits, LongFitsDoNotDependOnTheirNeighbours) {
  const Stream stream = this->stream();
  Tube faint;
  faint.radius_px = 2.5;
  faint.kappa = 0.004;
  faint.side = 70;
  Scene scene = draw(faint, stream.on_cuda() ? 20 : 300, 1.4);
  const int count = static_cast<int>(scene.points.size());
  for (int i = 0; i < count; ++i) {
    LumenFitPoint& p = scene.points[i];
    p.from_px = i % 3 ? -1e6f : -6.0f;
    p.radius_px *= 1 + 0.3f * static_cast<float>(i % 5);
    p.kappa = i % 2 ? 0.004f : 0;
    p.kappa_sd = i % 2 ? 0.0005f : 0;
  }
  LumenFitOptions options;
  options.search = false;
  const auto together = fit(stream, scene.image.view(), scene.points, options);
  int unfinished = 0;
  for (const LumenFit& f : together) unfinished += !f.converged;
  EXPECT_GT(unfinished, 0) << "not hard enough to tell";
  for (int i = 0; i < count; i += 7) {
    const auto alone = fit(stream, scene.image.view(), {scene.points[i]}, options);
    EXPECT_EQ(std::memcmp(&alone[0], &together[i], sizeof(LumenFit)), 0) << i;
  }
}

TEST_P(LumenFits, FirstRadiusIsNoMoreThanAStart) {
  const Stream stream = this->stream();
  Tube tube;
  const Scene scene = draw(tube, 6, 1);
  LumenFitOptions options;
  options.search = false;
  const auto from_window = fit(stream, scene.image.view(), scene.points, options);
  auto points = scene.points;
  for (LumenFitPoint& p : points) p.first_radius_px = 1.15f * p.radius_px;
  const auto from_first = fit(stream, scene.image.view(), points, options);
  for (std::size_t i = 0; i < points.size(); ++i) {
    EXPECT_EQ(from_first[i].samples, from_window[i].samples);
    EXPECT_NEAR(from_first[i].diameter_px, from_window[i].diameter_px, 0.1f * from_window[i].sd_px);
  }
}

TEST_P(LumenFits, MaskedAndMissingPixelsWeighNothing) {
  const Stream stream = this->stream();
  Tube tube;
  tube.angle_rad = 0;
  tube.side = 64;
  const Scene scene = draw(tube, 3, 1);
  Image<float> spoilt = to_host(stream, to_device(stream, scene.image.view()).view());
  Image<std::uint8_t> valid(64, 64);
  for (int y = 0; y < 64; ++y)
    for (int x = 0; x < 64; ++x) {
      valid(y, x) = x >= 44 ? 0 : 1;
      if (x >= 44) spoilt(y, x) = 1e6f;
    }
  const auto fits = fit(stream, spoilt.view(), scene.points, {}, {}, valid.view());
  for (const LumenFit& f : fits) {
    EXPECT_NEAR(f.diameter_px, 12, 4 * f.sd_px);
    EXPECT_GT(f.lost, 0.01f);
  }
  // The same by the points' own limits: nothing is lost then, the window is shorter.
  auto points = scene.points;
  for (LumenFitPoint& p : points) p.to_px = 43.5f - p.x;
  for (const LumenFit& f : fit(stream, spoilt.view(), points, {})) {
    EXPECT_NEAR(f.diameter_px, 12, 4 * f.sd_px);
    EXPECT_EQ(f.lost, 0);
  }
  // A variance image of a constant is the scalar.
  Image<float> variance(64, 64);
  for (int y = 0; y < 64; ++y)
    for (int x = 0; x < 64; ++x) variance(y, x) = 1e-4f;
  const auto by_image = fit(stream, scene.image.view(), scene.points, {}, variance.view()),
             by_scalar = fit(stream, scene.image.view(), scene.points, {});
  for (std::size_t i = 0; i < by_image.size(); ++i) EXPECT_NEAR(by_image[i].diameter_px, by_scalar[i].diameter_px, 1e-4);
}

TEST_P(LumenFits, OddPlacesGiveFiniteAnswers) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : {std::pair{1, 1}, std::pair{1, 37}, std::pair{17, 33}}) {
    const Image<float> noise = test::random_image(height, width, -0.01f, 0.01f);
    std::vector<LumenFitPoint> points(19);
    for (int i = 0; i < 19; ++i) {
      points[i].y = static_cast<float>(i - 3);
      points[i].x = static_cast<float>(2 * i - 9);
      points[i].normal_y = std::sin(0.4f * static_cast<float>(i));
      points[i].normal_x = std::cos(0.4f * static_cast<float>(i));
    }
    for (const LumenFit& f : fit(stream, noise.view(), points, {})) {
      EXPECT_TRUE(std::isfinite(f.diameter_px) && std::isfinite(f.sd_px) && std::isfinite(f.contrast) && std::isfinite(f.chi2_per_dof));
      EXPECT_GE(f.lost, 0);
      EXPECT_LE(f.lost, 1);
    }
  }
  EXPECT_TRUE(fit(stream, test::random_image(5, 5).view(), {}, {}).empty());
}

TEST_P(LumenFits, PitchedViewsReadTheirOwnPixels) {
  const Stream stream = this->stream();
  Tube tube;
  tube.side = 60;
  const Scene scene = draw(tube, 2, 1);
  auto view = test::sub_view<float>(stream, 60, 60, 1e6f);
  copy<float>(stream, scene.image.view(), view.view);
  Array<LumenFitPoint> host_points(2), points(stream, 2);
  Array<LumenFit> host_fits(2), fits(stream, 2);
  std::copy(scene.points.begin(), scene.points.end(), host_points.begin());
  copy<LumenFitPoint>(stream, host_points.view(), points.view());
  fit_lumen(stream, view.view, {}, {}, points.view(), fits.view());
  copy<LumenFit>(stream, fits.view(), host_fits.view());
  stream.synchronize();
  const auto expected = fit(stream, scene.image.view(), scene.points, {});
  for (int i = 0; i < 2; ++i) EXPECT_EQ(host_fits[i].diameter_px, expected[i].diameter_px);
}

CINELUMEN_ON_ALL_DEVICES(LumenFits);

struct Score {
  double bias = 0, sd = 0, reported = 0, coverage = 0, fwhm_bias = 0, converged = 0;
};
Score score(Tube tube, const LumenFitOptions& options, int trials, void (*adjust)(LumenFitPoint&, const Tube&) = nullptr) {
  Score result;
  double squares = 0, n = 0;
  for (int t = 0; t < trials; ++t) {
    tube.angle_rad = 0.21 * t + 0.03;
    tube.seed = static_cast<unsigned>(100 * t + 7);
    Scene scene = draw(tube, 48, 0.75);
    for (LumenFitPoint& p : scene.points)
      if (adjust) adjust(p, tube);
    for (const LumenFit& f : fit(Stream::cpu(), scene.image.view(), scene.points, options)) {
      const double error = f.diameter_px - 2 * tube.radius_px;
      result.bias += error;
      squares += error * error;
      result.reported += f.sd_px;
      result.coverage += std::abs(error) < 1.96 * f.sd_px;
      result.fwhm_bias += f.fwhm_px - 2 * tube.radius_px;
      result.converged += f.converged;
      ++n;
    }
  }
  result.bias /= n;
  result.sd = std::sqrt(squares / n - result.bias * result.bias);
  for (double* figure : {&result.reported, &result.coverage, &result.fwhm_bias, &result.converged}) *figure /= n;
  return result;
}

constexpr double mm_per_px = 0.154 / 1.2;

// 1 to 4 mm at a detector of 0.154 mm and a magnification of 1.2, kappa 0.15 / mm, noise 0.01: kappa free, point spread held.
TEST(LumenAccuracy, BiasAndErrorBarsOnTubes) {
  for (const double diameter_mm : {1.0, 1.5, 2.0, 3.0, 4.0}) {
    Tube tube;
    tube.radius_px = diameter_mm / 2 / mm_per_px;
    tube.kappa = 0.15 * mm_per_px;
    const Score got = score(tube, {}, 16);
    EXPECT_LT(std::abs(got.bias) * mm_per_px, 0.006) << diameter_mm;
    EXPECT_NEAR(got.reported / got.sd, 1, 0.12) << diameter_mm;
    EXPECT_GT(got.coverage, 0.92) << diameter_mm;
    EXPECT_LT(got.coverage, 0.98) << diameter_mm;
    EXPECT_GT(got.converged, 0.995) << diameter_mm;
    EXPECT_LT(got.fwhm_bias * mm_per_px, -0.1) << "the half-maximum width is the comparator that this beats";
  }
}

TEST(LumenAccuracy, KnownKappaHalvesTheErrorOfNarrowVessels) {
  Tube tube;
  tube.radius_px = 0.8 / 2 / mm_per_px;
  tube.kappa = 0.15 * mm_per_px;
  const Score free = score(tube, {}, 12);
  const Score held = score(tube, {}, 12, [](LumenFitPoint& p, const Tube& t) {
    p.kappa = static_cast<float>(t.kappa);
    p.kappa_sd = static_cast<float>(0.03 * t.kappa);
  });
  EXPECT_LT(held.sd, 0.6 * free.sd);
  EXPECT_NEAR(held.reported / held.sd, 1, 0.25);
  EXPECT_GT(held.coverage, 0.92);
  // A prior that is wrong by many of its SDs shows as bias: it is used.
  const Score wrong = score(tube, {}, 4, [](LumenFitPoint& p, const Tube& t) {
    p.kappa = static_cast<float>(1.3 * t.kappa);
    p.kappa_sd = static_cast<float>(0.001 * t.kappa);
  });
  EXPECT_LT(wrong.bias, -0.3);
}

TEST(LumenAccuracy, FitsThePointSpread) {
  Tube tube;
  tube.radius_px = 9;
  tube.spread = {0.9, 0, 2};
  LumenFitOptions options;
  options.fit_psf = true;
  double sum = 0, squares = 0, reported = 0, n = 0;
  for (int t = 0; t < 10; ++t) {
    tube.angle_rad = 0.3 * t;
    tube.seed = static_cast<unsigned>(t);
    Scene scene = draw(tube, 48, 0.75);
    for (LumenFitPoint& p : scene.points) {
      p.psf_px = 0.6f;
      p.psf_sd_px = 0;
    }
    for (const LumenFit& f : fit(Stream::cpu(), scene.image.view(), scene.points, options)) {
      sum += f.psf_px;
      squares += f.psf_px * f.psf_px;
      reported += f.psf_sd_px;
      ++n;
    }
  }
  EXPECT_NEAR(sum / n, 0.9, 0.04);
  EXPECT_NEAR(reported / n / std::sqrt(squares / n - sum * sum / n / n), 1, 0.35);
}

TEST(LumenAccuracy, NoVesselHasNoContrast) {
  Tube tube;
  tube.kappa = 1e-9;
  int seen = 0, n = 0;
  for (int t = 0; t < 6; ++t) {
    tube.seed = static_cast<unsigned>(t + 50);
    const Scene scene = draw(tube, 48, 0.75);
    for (const LumenFit& f : fit(Stream::cpu(), scene.image.view(), scene.points, {})) {
      seen += f.contrast > 4 * f.contrast_sd && f.sd_px < 0.3f * f.diameter_px && f.converged && !f.at_bound;
      ++n;
    }
  }
  EXPECT_LT(seen, 0.02 * n) << "noise must not be measured as a vessel";
}

TEST(LumenArguments, AreChecked) {
  const Stream stream = Stream::cpu();
  const Image<float> image(8, 8), other(8, 9);
  const Image<std::uint8_t> valid(7, 8);
  const Array<LumenFitPoint> points(2);
  Array<LumenFit> fits(2), too_many(3);
  EXPECT_THROW(fit_lumen(stream, image.view(), {}, {}, points.view(), too_many.view()), std::invalid_argument);
  EXPECT_THROW(fit_lumen(stream, image.view(), other.view(), {}, points.view(), fits.view()), std::invalid_argument);
  EXPECT_THROW(fit_lumen(stream, image.view(), {}, valid.view(), points.view(), fits.view()), std::invalid_argument);
  EXPECT_THROW(fit_lumen(stream, {}, {}, {}, points.view(), fits.view()), std::invalid_argument);
  LumenFitOptions options;
  options.rows = 4;
  EXPECT_THROW(fit_lumen(stream, image.view(), {}, {}, points.view(), fits.view(), options), std::invalid_argument);
  options = {};
  options.iterations = 1;
  EXPECT_THROW(fit_lumen(stream, image.view(), {}, {}, points.view(), fits.view(), options), std::invalid_argument);
  options = {};
  options.variance = 0;
  EXPECT_THROW(fit_lumen(stream, image.view(), {}, {}, points.view(), fits.view(), options), std::invalid_argument);
}

}  // namespace
}  // namespace cinelumen
