/// The classic rules on noise-free profiles: the biases that methods.md 5 gives for them.

#include "engine/diameter_rule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "engine/diameter_profile.h"

namespace cinelumen {
namespace {

constexpr double pixel_mm = 0.2, psf_mm = 0.2;

// Chord of a cylinder, mm, blurred by a Gaussian and the pixel's width, at x mm from its axis.
double blurred_chord(double x, double diameter) {
  double sum = 0, weights = 0;
  for (double u = -4 * psf_mm; u <= 4 * psf_mm; u += 0.002) {
    const double w = std::exp(-0.5 * u * u / (psf_mm * psf_mm));
    weights += w;
    const auto area = [&](double to) {
      const double r = diameter / 2, c = std::clamp(to, -r, r);
      return c * std::sqrt(r * r - c * c) + r * r * std::asin(c / r);
    };
    sum += w * (area(x - u + pixel_mm / 2) - area(x - u - pixel_mm / 2)) / pixel_mm;
  }
  return sum / weights;
}

std::vector<double> profile_of(double diameter, double step_px) {
  std::vector<double> profile;
  const int half = static_cast<int>((0.75 * diameter / pixel_mm + 8) / step_px);
  for (int i = -half; i <= half; ++i)
    profile.push_back(0.03 + 0.01 * i * step_px * pixel_mm + 0.15 * blurred_chord(i * step_px * pixel_mm, diameter));
  return profile;
}

TEST(DiameterRule, NoiseFreeBiasesAreTheKnownOnes) {
  struct Case {
    DiameterRule rule;
    double bias_um[3];  // at 1, 2, 4 mm
  };
  const Case cases[] = {{DiameterRule::fwhm, {-143, -353, -630}},
                        {DiameterRule::first_derivative, {-176, -252, -284}},
                        {DiameterRule::mean_derivatives, {54, 0, -22}}};
  for (const Case& c : cases)
    for (int i = 0; i < 3; ++i) {
      const double diameter = 1 << i;
      const auto found = read_diameter(c.rule, profile_of(diameter, 0.25), 0.25);
      ASSERT_TRUE(found) << to_string(c.rule) << " at " << diameter << " mm";
      const double bias_um = 1000 * (*found * pixel_mm - diameter);
      std::printf("%-17s %g mm: %+.0f um (known: %+.0f)\n", to_string(c.rule), diameter, bias_um, c.bias_um[i]);
      EXPECT_NEAR(bias_um, c.bias_um[i], 20) << to_string(c.rule) << " at " << diameter << " mm";
    }
}

TEST(DiameterRule, ReadsTheImageAcrossThePoint) {
  constexpr double diameter = 2, angle = 0.4;
  Image<float> image(80, 80);
  for (int y = 0; y < 80; ++y)
    for (int x = 0; x < 80; ++x)
      image(y, x) = static_cast<float>(blurred_chord(((y - 40.3) * std::cos(angle) - (x - 40.1) * std::sin(angle)) * pixel_mm, diameter));
  LumenPoint point;
  point.y_px = 40.3f, point.x_px = 40.1f;
  point.normal_y = std::cos(angle), point.normal_x = -std::sin(angle);
  point.diameter_px = 10;
  point.sd_px = 0.1f;
  point.used = true;
  point.reason = Exclusion::none;
  for (const DiameterRule rule : {DiameterRule::fwhm, DiameterRule::first_derivative, DiameterRule::mean_derivatives}) {
    std::vector<LumenPoint> points = {point};
    apply_rule(rule, image.view(), 1, 2, points);
    const auto expected = read_diameter(rule, profile_of(diameter, 0.25), 0.25);
    EXPECT_TRUE(points[0].used);
    EXPECT_NEAR(points[0].diameter_px, *expected, 0.25) << to_string(rule);
    EXPECT_FLOAT_EQ(points[0].sd_px, 0.1f);
  }
}

TEST(DiameterRule, NamesAndWhatIsNoProfile) {
  for (const DiameterRule rule : {DiameterRule::fit, DiameterRule::fwhm, DiameterRule::first_derivative, DiameterRule::mean_derivatives})
    EXPECT_EQ(parse_diameter_rule(to_string(rule)), rule);
  EXPECT_THROW(parse_diameter_rule("width"), std::invalid_argument);
  EXPECT_FALSE(read_diameter(DiameterRule::fwhm, std::vector<double>(60, 1.0), 0.25));
  EXPECT_FALSE(read_diameter(DiameterRule::first_derivative, {1, 2, 3}, 0.25));
}

}  // namespace
}  // namespace cinelumen
