/// Catheters and markers of known size, drawn by an integrator of this file's own: is their scale right?

#include "engine/calibration_object.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "engine/run.h"

namespace cinelumen {
namespace {

struct Drawn {
  double outer_px = 13, inner_px = 9, kappa = 0.03, angle_deg = 20, offset_px = 0, curvature = 0;  // curvature: 1 / px
};

// Transmission through tubes and balls on a soft background, averaged over 6 x 6 points of each pixel after a Gaussian blur that is drawn
// from a sum over a grid of rays.
class Scene {
 public:
  Scene(int height, int width) : height_(height), width_(width), lengths_(fine * height * fine * width, 0) {}

  void add_tube(const Drawn& tube) {
    const double a = tube.angle_deg * 3.14159265358979 / 180, cy = height_ / 2.0, cx = width_ / 2.0;
    for_each_ray([&](double y, double x, double& length) {
      const double along = std::cos(a) * (x - cx) + std::sin(a) * (y - cy);
      const double across = std::cos(a) * (y - cy) - std::sin(a) * (x - cx) - tube.offset_px - 0.5 * tube.curvature * along * along;
      const double r = across / std::hypot(1.0, tube.curvature * along);
      length += tube.kappa * (chord(tube.outer_px, r) - chord(tube.inner_px, r));
    });
  }
  void add_ball(double y0, double x0, double diameter_px, double kappa) {
    for_each_ray([&](double y, double x, double& length) { length += kappa * chord(diameter_px, std::hypot(y - y0, x - x0)); });
  }
  // Attenuation as a detector of that point spread (px, without the pixel) shows it.
  Image<float> expose(double psf_px) const {
    std::vector<double> kernel;
    const int reach = static_cast<int>(4 * psf_px * fine) + 1;
    double sum = 0;
    for (int k = -reach; k <= reach; ++k) {
      kernel.push_back(std::exp(-0.5 * std::pow(k / (psf_px * fine), 2)));
      sum += kernel.back();
    }
    const int h = fine * height_, w = fine * width_;
    std::vector<double> transmitted(lengths_.size()), rows(lengths_.size());
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x) {
        const double soft = 1 + 0.3 * std::sin(0.011 * y / fine) * std::cos(0.007 * x / fine) + 0.001 * x / fine;
        transmitted[y * w + x] = std::exp(-lengths_[y * w + x] - soft);
      }
    const auto mirrored = [](int i, int n) { return i < 0 ? -i - 1 : i >= n ? 2 * n - 1 - i : i; };
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x)
        for (int k = -reach; k <= reach; ++k) rows[y * w + x] += kernel[k + reach] / sum * transmitted[y * w + mirrored(x + k, w)];
    Image<float> image(height_, width_);
    for (int y = 0; y < height_; ++y)
      for (int x = 0; x < width_; ++x) {
        double value = 0;
        for (int sy = 0; sy < fine; ++sy)
          for (int k = -reach; k <= reach; ++k)
            for (int sx = 0; sx < fine; ++sx)
              value += kernel[k + reach] / sum * rows[mirrored(y * fine + sy + k, h) * w + x * fine + sx] / (fine * fine);
        image(y, x) = static_cast<float>(-std::log(value));
      }
    return image;
  }

 private:
  static constexpr int fine = 4;
  static double chord(double diameter, double x) { return 2 * std::sqrt(std::max(0.0, diameter * diameter / 4 - x * x)); }
  template <class Body>
  void for_each_ray(const Body& body) {
    for (int y = 0; y < fine * height_; ++y)
      for (int x = 0; x < fine * width_; ++x) body((y + 0.5) / fine - 0.5, (x + 0.5) / fine - 0.5, lengths_[y * fine * width_ + x]);
  }
  int height_, width_;
  std::vector<double> lengths_;
};

Image<float> with_noise(const Image<float>& clean, unsigned seed) {
  constexpr double noise = 0.004;  // of a mask averaged over a few frames
  Image<float> image(clean.height(), clean.width());
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  for (int y = 0; y < image.height(); ++y)
    for (int x = 0; x < image.width(); ++x) image(y, x) = static_cast<float>(clean(y, x) + noise * normal(random));
  return image;
}

Calibration geometry_of(double mm_per_px) {
  Calibration calibration;
  calibration.source = CalibrationSource::geometry;
  calibration.mm_per_px = mm_per_px;
  calibration.relative_sd = 0.03;
  return calibration;
}

TEST(CalibrationObject, TubesAreMeasuredToOnePercent) {
  struct Case {
    const char* name;
    Drawn tube;
    double psf_px;
  };
  const Case cases[] = {{"5F, thin wall", {13.01, 9.3, 0.03, 20, 1.3, 0}, 0.7},
                        {"5F, 512 px", {6.5, 4.6, 0.06, -35, 0.4, 0}, 0.6},
                        {"4F", {10.4, 7.4, 0.03, 80, -0.7, 0}, 0.9},
                        {"solid", {13.01, 0, 0.02, 55, 2.1, 0}, 0.7},
                        {"solid, narrow", {5.2, 0, 0.04, 5, 0.2, 0}, 0.8},
                        {"bent", {13.01, 9.3, 0.03, 10, 0, 1 / 300.0}, 0.7},
                        {"6F introducer", {20.8, 17.5, 0.04, 140, 0.9, 0}, 0.7},
                        {"dense solid", {9, 0, 0.08, 100, 0.5, 0}, 0.7}};
  constexpr int seeds = 4;
  double common = 0;
  for (const Case& c : cases) {
    Scene scene(130, 140);
    scene.add_tube(c.tube);
    const Image<float> clean = scene.expose(c.psf_px);
    double sum = 0, squares = 0, sd = 0;
    for (int seed = 0; seed < seeds; ++seed) {
      const Image<float> image = with_noise(clean, 600 + seed);
      std::string why;
      const auto found =
          measure_tube(image.view(), {}, {65 + 2 + c.tube.offset_px, 70 - 1}, {0.6 * c.tube.outer_px, 1.6 * c.tube.outer_px}, why);
      ASSERT_TRUE(found) << c.name << ": " << why;
      const double error = found->outer_diameter_px / c.tube.outer_px - 1, reported = found->sd_px / c.tube.outer_px;
      EXPECT_LT(std::abs(error), 3.5 * reported) << c.name << ", seed " << seed;
      EXPECT_LT(reported, 0.04) << c.name;
      EXPECT_GT(found->length_px, 70) << c.name;
      sum += error, squares += error * error, sd += reported;
    }
    const double bias = sum / seeds;
    std::printf("%-16s bias %+.2f %%, rms %.2f %%, SD as reported %.2f %%\n", c.name, 100 * bias, 100 * std::sqrt(squares / seeds),
                100 * sd / seeds);
    EXPECT_LT(std::abs(bias), 0.01 + 2 * sd / seeds / std::sqrt(seeds)) << c.name;
    common += bias / std::size(cases);
  }
  EXPECT_LT(std::abs(common), 0.004) << "a bias common to all";
}

TEST(CalibrationObject, CatheterGivesTheScale) {
  Scene scene(180, 180);
  scene.add_tube({13.01, 9.3, 0.03, 20, 1.3, 0});
  const Image<float> image = with_noise(scene.expose(0.7), 3);
  CalibrationObject object;
  object.catheter_od_mm = 1.67;
  object.catheter_at_px = {{91, 90}};
  const Calibration shown = calibrate_by(object, image.view(), {}, geometry_of(0.13), "run.dcm");
  EXPECT_EQ(shown.source, CalibrationSource::catheter);
  EXPECT_NEAR(shown.mm_per_px, 1.67 / 13.01, 0.01 * 1.67 / 13.01);
  EXPECT_GT(shown.relative_sd, 0.02);
  EXPECT_LT(shown.relative_sd, 0.035);
  EXPECT_NE(shown.note.find("INTRODUCER"), std::string::npos) << shown.note;
  EXPECT_NE(shown.note.find("geometry says"), std::string::npos) << shown.note;
  EXPECT_TRUE(shown.warning.empty()) << shown.warning;

  object.catheter_at_px.reset();
  const Calibration looked_for = calibrate_by(object, image.view(), {}, geometry_of(0.13), "run.dcm");
  EXPECT_NEAR(looked_for.mm_per_px, shown.mm_per_px, 0.015 * shown.mm_per_px) << "the only tube that enters the field";
}

TEST(CalibrationObject, TheTrapIsNamed) {
  Scene scene(180, 180);
  scene.add_tube({17.5, 13.0, 0.03, 20, 1.3, 0});  // a 5F introducer at 0.1284 mm per px
  const Image<float> image = with_noise(scene.expose(0.7), 4);
  CalibrationObject object;
  object.catheter_od_mm = 1.67;
  object.catheter_at_px = {{91, 90}};
  const Calibration found = calibrate_by(object, image.view(), {}, geometry_of(0.1284), "run.dcm");
  EXPECT_NE(found.warning.find("introducer"), std::string::npos) << found.warning;
  object.catheter_od_mm = 5;  // French for millimetres
  EXPECT_THROW(check(object), std::invalid_argument);
}

std::string error_of(const CalibrationObject& object, const Image<float>& image) {
  try {
    (void)calibrate_by(object, image.view(), {}, geometry_of(0.13), "run.dcm");
  } catch (const InputError& error) {
    return error.what();
  }
  return {};
}

TEST(CalibrationObject, WhatIsNotThereIsAnErrorThatNamesTheArgument) {
  CalibrationObject object;
  object.catheter_od_mm = 1.67;
  const Image<float> empty = with_noise(Scene(180, 180).expose(0.7), 5);
  EXPECT_NE(error_of(object, empty).find("--catheter-od-mm 1.67: no tube"), std::string::npos) << error_of(object, empty);
  object.catheter_at_px = {{90, 90}};
  EXPECT_NE(error_of(object, empty).find("--calibrate-at 90,90"), std::string::npos) << error_of(object, empty);

  Scene two(180, 180);
  two.add_tube({13.01, 9.3, 0.03, 20, -40, 0});
  two.add_tube({13.01, 9.3, 0.03, 20, 40, 0});
  object.catheter_at_px.reset();
  const std::string ambiguous = error_of(object, with_noise(two.expose(0.7), 6));
  EXPECT_NE(ambiguous.find("2 tubes"), std::string::npos) << ambiguous;
  EXPECT_NE(ambiguous.find("--calibrate-at"), std::string::npos) << ambiguous;

  CalibrationObject markers;
  markers.marker_length_mm = 20;
  markers.markers_at_px = {{{60, 40}, {60, 140}}};
  EXPECT_NE(error_of(markers, empty).find("--marker-at 60,40"), std::string::npos) << error_of(markers, empty);
}

TEST(CalibrationObject, MarkersAreFoundToATenthOfAPixel) {
  const std::array<std::array<double, 2>, 2> at = {{{60.3, 40.7}, {95.6, 141.2}}};
  Scene scene(150, 180);
  for (const auto& p : at) scene.add_ball(p[0], p[1], 6.2, 0.15);
  CalibrationObject object;
  object.marker_length_mm = 20;
  object.markers_at_px = {{{62, 38}, {93, 143}}};
  const Image<float> image = with_noise(scene.expose(0.7), 8);
  for (std::size_t i = 0; i < 2; ++i) {
    const auto marker = measure_marker(image.view(), {}, (*object.markers_at_px)[i]);
    ASSERT_TRUE(marker);
    EXPECT_NEAR(marker->y, at[i][0], 0.05);
    EXPECT_NEAR(marker->x, at[i][1], 0.05);
  }
  const Calibration found = calibrate_by(object, image.view(), {}, {}, "run.dcm");
  const double distance = std::hypot(at[0][0] - at[1][0], at[0][1] - at[1][1]);
  EXPECT_EQ(found.source, CalibrationSource::device);
  EXPECT_NEAR(found.mm_per_px, 20 / distance, 0.002 * 20 / distance);
}

TEST(CalibrationObject, BetterSourcesGoFirst) {
  Calibration user = geometry_of(0.2);
  user.source = CalibrationSource::user;
  CalibrationObject object;
  object.catheter_od_mm = 1.67;
  const Image<float> empty = with_noise(Scene(60, 60).expose(0.7), 9);
  const Calibration kept = calibrate_by(object, empty.view(), {}, user, "run.dcm");
  EXPECT_EQ(kept.source, CalibrationSource::user);
  EXPECT_NE(kept.warning.find("--catheter-od-mm was not used"), std::string::npos);
}

}  // namespace
}  // namespace cinelumen
