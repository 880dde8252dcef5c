/// Rigid registration of a mask to frames with contrast.

#include "kernels/mask_registration.h"

#include <cstdlib>
#include <thread>

#include "reference/mask_registration.h"
#include "support/devices.h"
#include "support/images.h"

namespace cinelumen {
namespace {

class Registration : public test::DeviceTest {
 protected:
  Image<std::uint8_t> all_valid(int height, int width) {
    Image<std::uint8_t> valid(height, width);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) valid(y, x) = 1;
    Image<std::uint8_t> result = to_device(stream(), valid.view());
    stream().synchronize();
    return result;
  }
  Image<float> on_device(const Image<float>& host) {
    Image<float> result = to_device(stream(), host.view());
    stream().synchronize();
    return result;
  }
};

/// Errors over random motions, as in methods' table: mask of 8 frames, noise, vessels, motions of several px.
struct Accuracy {
  double shift_rms_px = 0, rotation_rms_px = 0, bound_px = 0, error_ratio = 0;
  int converged = 0, turned = 0;
};
Accuracy measure(const Stream& stream, int side, int trials, double noise, bool vessels, double rotation_rad, bool start_given) {
  Accuracy result;
  double ratio = 0;
  std::mt19937 random(11);
  std::uniform_real_distribution<float> u(-1, 1);
  for (int trial = 0; trial < trials; ++trial) {
    const reference::Scene scene(side, 100 + trial / 3);
    const Image<float> mask_host = scene.frame({}, noise / std::sqrt(8.0), false, 1000 + trial);
    const RigidMotion truth{5 * u(random), 5 * u(random), static_cast<float>(rotation_rad) * u(random)};
    const Image<float> frame_host = scene.frame(truth, noise, vessels, 2000 + trial);
    Image<std::uint8_t> valid_host(side, side);
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) valid_host(y, x) = 1;
    const Image<float> mask = to_device(stream, mask_host.view()), frame = to_device(stream, frame_host.view());
    const Image<std::uint8_t> valid = to_device(stream, valid_host.view());
    MaskRegistration registration(stream, mask, valid);
    const RigidEstimate e = registration.estimate(stream, frame, start_given ? std::optional<RigidMotion>(RigidMotion{}) : std::nullopt);
    const double dy = e.motion.shift_y_px - truth.shift_y_px, dx = e.motion.shift_x_px - truth.shift_x_px;
    result.shift_rms_px += (dy * dy + dx * dx) / 2;
    const double corner = (e.motion.rotation_rad - truth.rotation_rad) * side / std::sqrt(2.0);
    result.rotation_rms_px += corner * corner;
    const double bound = scene.shift_bound_px(noise * std::sqrt(1.125));
    result.bound_px += bound * bound;
    ratio += (dy * dy / (e.standard_error_y_px * e.standard_error_y_px) + dx * dx / (e.standard_error_x_px * e.standard_error_x_px)) / 2;
    result.converged += e.converged;
    result.turned += e.motion.rotation_rad != 0;
    if (std::getenv("CINELUMEN_TEST_VERBOSE"))
      printf("  %d truth %.2f %.2f %.4f error %.4f %.4f corner %.4f se %.4f %.4f inlier %.2f sd %.4f\n", trial, truth.shift_y_px, truth.shift_x_px,
             truth.rotation_rad, dy, dx, corner, e.standard_error_y_px, e.standard_error_x_px, e.inlier_fraction, e.residual_sd);
  }
  result.shift_rms_px = std::sqrt(result.shift_rms_px / trials);
  result.rotation_rms_px = std::sqrt(result.rotation_rms_px / trials);
  result.bound_px = std::sqrt(result.bound_px / trials);
  result.error_ratio = std::sqrt(ratio / trials);
  return result;
}

struct Case {
  double noise;
  bool vessels;
  double rotation_rad, limit_px;
};

TEST(RegistrationAccuracy, WithinRequirementsAgainstTruth) {
  for (const Case& c : {Case{0.01, false, 0, 0.015}, Case{0.01, true, 0, 0.02}, Case{0.03, false, 0, 0.04}, Case{0.03, true, 0, 0.07}, Case{0.01, true, 0.01, 0.02},
                        Case{0.03, true, 0.01, 0.07}})
    for (const bool start_given : {false, true}) {
      const Accuracy a = measure(Stream::cpu(), 256, 12, c.noise, c.vessels, c.rotation_rad, start_given);
      printf("noise %.2f vessels %d rotation %.3f start %d: shift %.4f px rms (bound %.4f), corner %.4f px, error / SE %.2f, converged %d turned %d\n", c.noise,
             c.vessels, c.rotation_rad, start_given, a.shift_rms_px, a.bound_px, a.rotation_rms_px, a.error_ratio, a.converged, a.turned);
      EXPECT_LE(a.shift_rms_px, c.limit_px) << "noise " << c.noise << ", vessels " << c.vessels;
      EXPECT_EQ(a.converged, 12);
      EXPECT_GT(a.error_ratio, 0.5) << "standard errors too large";
      EXPECT_LT(a.error_ratio, 2) << "standard errors too small";
      if (c.rotation_rad == 0) {
        EXPECT_LE(a.turned, 1) << "a rotation was found where there is none";
      } else {
        EXPECT_LE(a.rotation_rms_px, 2 * c.limit_px);
      }
    }
}



}  // namespace
}  // namespace cinelumen
