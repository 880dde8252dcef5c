/// Rigid registration of a mask to frames with contrast.

#include "kernels/mask_registration.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "reference/mask_registration.h"
#include "support/devices.h"
#include "support/images.h"

namespace cinelumen {
namespace {

class Registration : public test::DeviceTest {
 protected:
  /// A copy on `stream`, complete on return. (stream() gives a new stream each time.)
  static Image<float> on_device(const Stream& stream, const Image<float>& host) {
    Image<float> result = to_device(stream, host.view());
    stream.synchronize();
    return result;
  }
};

/// Errors over random motions, as in the method's table: mask of 8 frames, noise, vessels, motions of several px.
struct Accuracy {
  double shift_rms_px = 0, rotation_rms_px = 0, bound_px = 0, error_ratio = 0;
  int converged = 0, turned = 0;
};
Image<std::uint8_t> ones(int height, int width) {
  Image<std::uint8_t> valid(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) valid(y, x) = 1;
  return valid;
}
Accuracy measure(int side, int trials, double noise, bool vessels, double rotation_rad, bool start_given) {
  const Stream stream = Stream::cpu();
  const Image<std::uint8_t> valid = ones(side, side);
  Accuracy result;
  double ratio = 0;
  std::mt19937 random(11);
  std::uniform_real_distribution<float> u(-1, 1);
  for (int trial = 0; trial < trials; ++trial) {
    const reference::Scene scene(side, 100 + static_cast<unsigned>(trial) / 3);
    const RigidMotion truth{5 * u(random), 5 * u(random), static_cast<float>(rotation_rad) * u(random)};
    const Image<float> mask = scene.frame({}, noise / std::sqrt(8.0), false, 1000 + static_cast<unsigned>(trial));
    const Image<float> frame = scene.frame(truth, noise, vessels, 2000 + static_cast<unsigned>(trial));
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
  bool start_given = false;
  for (const Case& c : {Case{0.01, false, 0, 0.012}, Case{0.01, true, 0, 0.02}, Case{0.03, false, 0, 0.03}, Case{0.03, true, 0, 0.07},
                        Case{0.01, true, 0.01, 0.02}, Case{0.03, true, 0.01, 0.07}}) {
    start_given = !start_given;
    const Accuracy a = measure(256, 12, c.noise, c.vessels, c.rotation_rad, start_given);
    const std::string which = "noise " + std::to_string(c.noise) + ", vessels " + std::to_string(c.vessels) + ", rotation " +
                              std::to_string(c.rotation_rad) + ", Cramer-Rao bound " + std::to_string(a.bound_px);
    RecordProperty("shift_rms_px", std::to_string(a.shift_rms_px));
    std::printf("%s: shift %.4f px rms, corners %.4f px rms, error / standard error %.2f\n", which.c_str(), a.shift_rms_px,
                a.rotation_rms_px, a.error_ratio);
    EXPECT_LE(a.shift_rms_px, c.limit_px) << which;
    EXPECT_GT(a.shift_rms_px, 0.7 * a.bound_px) << which << ": better than any estimator can be";
    EXPECT_EQ(a.converged, 12) << which;
    EXPECT_GT(a.error_ratio, 0.5) << which << ": standard errors too large";
    EXPECT_LT(a.error_ratio, 2) << which << ": standard errors too small";
    if (c.rotation_rad == 0)
      EXPECT_LE(a.turned, 1) << which << ": a rotation was found where there is none";
    else
      EXPECT_LE(a.rotation_rms_px, 2 * c.limit_px) << which;
  }
}

TEST_P(Registration, FindsAShiftOnEveryDevice) {
  const Stream stream = this->stream();
  const int side = stream.on_cuda() ? 64 : 150;
  const reference::Scene scene(side, 5);
  const RigidMotion truth{1.4f, -2.3f, 0};
  const Image<float> mask = on_device(stream, scene.frame({}, 0.003, false, 1)),
                     frame = on_device(stream, scene.frame(truth, 0.003, false, 2));
  const Image<std::uint8_t> valid_host = ones(side, side), valid = to_device(stream, valid_host.view());
  stream.synchronize();
  MaskRegistration registration(stream, mask, valid);
  const RigidEstimate e = registration.estimate(stream, frame, RigidMotion{});
  EXPECT_TRUE(e.converged);
  EXPECT_NEAR(e.motion.shift_y_px, truth.shift_y_px, 0.1);
  EXPECT_NEAR(e.motion.shift_x_px, truth.shift_x_px, 0.1);
  EXPECT_NEAR(e.offset, 0, 0.01);
  if (stream.on_cuda()) return;
  MaskRegistration second = registration.another(stream);
  const RigidEstimate again = second.estimate(stream, frame, RigidMotion{});
  EXPECT_EQ(again.motion.shift_y_px, e.motion.shift_y_px);
  EXPECT_EQ(again.motion.shift_x_px, e.motion.shift_x_px);
}

TEST_P(Registration, StoredFrameGivesWhatItsAttenuationGives) {
  const Stream stream = this->stream();
  const int side = stream.on_cuda() ? 64 : 131;
  const reference::Scene scene(side, 5);
  const Image<float> mask = on_device(stream, scene.frame({}, 0.003, false, 1)),
                     scene_frame = scene.frame({1.4f, -2.3f, 0}, 0.003, true, 2);
  Array<float> table_host(1000);
  for (int i = 0; i < table_host.size(); ++i) table_host[i] = 0.004f * static_cast<float>(i) - 1;
  Image<std::uint16_t> stored_host(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x)
      stored_host(y, x) = static_cast<std::uint16_t>(y == 5 ? 4000 : std::clamp(std::lround((scene_frame(y, x) + 1) / 0.004f), 0L, 999L));
  const Image<std::uint8_t> valid_host = ones(side, side), valid = to_device(stream, valid_host.view());
  const Image<std::uint16_t> stored = to_device(stream, stored_host.view());
  Array<float> table(stream, table_host.size());
  copy<float>(stream, table_host, table);
  Image<float> attenuation(stream, side, side);
  log_attenuation(stream, stored, table, attenuation);
  MaskRegistration registration(stream, mask, valid);
  const StoredFrame frame{stored.view(), table.view()};
  const RigidEstimate looked_up = registration.estimate(stream, frame), plane = registration.estimate(stream, attenuation);
  EXPECT_EQ(looked_up.motion.shift_y_px, plane.motion.shift_y_px);
  EXPECT_EQ(looked_up.motion.shift_x_px, plane.motion.shift_x_px);
  EXPECT_EQ(looked_up.motion.rotation_rad, plane.motion.rotation_rad);
  EXPECT_EQ(looked_up.offset, plane.offset);
  EXPECT_NEAR(looked_up.motion.shift_y_px, 1.4, 0.2);
  EXPECT_THROW(registration.estimate(stream, StoredFrame{stored.view(), {}}), std::invalid_argument);
}

// Recorded once, launched for one frame after the other, as the chain does.
TEST_P(Registration, RecordedGivesWhatIsWaitedForAndWhereTheFrameLies) {
  const Stream stream = this->stream();
  const int side = stream.on_cuda() ? 64 : 131;
  const reference::Scene scene(side, 5);
  const Image<float> mask = on_device(stream, scene.frame({}, 0.003, false, 1));
  Array<float> table_host(1000), table(stream, 1000);
  for (int i = 0; i < 1000; ++i) table_host[i] = 0.004f * static_cast<float>(i) - 1;
  copy<float>(stream, table_host, table);
  const Image<std::uint8_t> valid_host = ones(side, side), valid = to_device(stream, valid_host.view());
  Image<std::uint16_t> stored_host = Image<std::uint16_t>::staging(stream, side, side), stored(stream, side, side);
  Array<RigidEstimate> estimate(stream, 1), estimate_host = Array<RigidEstimate>::staging(stream, 1);
  Array<FramePlacement> placement(stream, 1), placement_host = Array<FramePlacement>::staging(stream, 1);
  MaskRegistration registration(stream, mask, valid), waiting = registration.another(stream);
  stream.synchronize();
  const StoredFrame frame{stored.view(), table.view()};
  const Recording recording(stream, [&] {
    copy<std::uint16_t>(stream, stored_host, stored);
    registration.enqueue(stream, frame, estimate, placement);
    copy<RigidEstimate>(stream, estimate, estimate_host);
    copy<FramePlacement>(stream, placement, placement_host);
  });
  const auto launch = [&](const Image<float>* shown) {
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x)
        stored_host(y, x) = static_cast<std::uint16_t>(shown ? std::clamp(std::lround(((*shown)(y, x) + 1) / 0.004f), 0L, 999L) : 7);
    recording.launch(stream);
    stream.synchronize();
  };
  for (const RigidMotion truth : {RigidMotion{1.4f, -2.3f, 0}, RigidMotion{-0.6f, 3.1f, 0}}) {
    const Image<float> shown = scene.frame(truth, 0.003, true, 2);
    launch(&shown);
    const RigidEstimate found = estimate_host[0], waited = waiting.estimate(stream, frame);
    EXPECT_NEAR(found.motion.shift_y_px, truth.shift_y_px, 0.2);
    EXPECT_NEAR(found.motion.shift_x_px, truth.shift_x_px, 0.2);
    EXPECT_EQ(found.motion.shift_y_px, waited.motion.shift_y_px);
    EXPECT_EQ(found.motion.shift_x_px, waited.motion.shift_x_px);
    EXPECT_EQ(found.offset, waited.offset);
    ASSERT_TRUE(found.converged);
    EXPECT_EQ(placement_host[0].motion.shift_x_px, found.motion.shift_x_px);
    EXPECT_EQ(placement_host[0].offset, found.offset);
  }
  launch(nullptr);
  if (!estimate_host[0].converged) {
    EXPECT_EQ(placement_host[0].motion.shift_y_px, 0) << "a frame that was not found rests";
    EXPECT_EQ(placement_host[0].motion.shift_x_px, 0);
  }
  EXPECT_THROW(registration.enqueue(stream, frame, {}, placement), std::invalid_argument);
}

TEST(RegistrationRobustness, SameForAnyNumberOfThreads) {
  const reference::Scene scene(300, 5);
  const Image<float> mask = scene.frame({}, 0.003, false, 1), frame = scene.frame({2, 3, 0.004f}, 0.01, true, 2);
  const Image<std::uint8_t> valid = ones(300, 300);
  RigidEstimate estimates[2];
  for (const bool parallel : {false, true}) {
    const Stream stream = Stream::cpu({.parallel = parallel});
    MaskRegistration registration(stream, mask, valid);
    estimates[parallel] = registration.estimate(stream, frame);
  }
  EXPECT_EQ(estimates[0].motion.shift_y_px, estimates[1].motion.shift_y_px);
  EXPECT_EQ(estimates[0].motion.shift_x_px, estimates[1].motion.shift_x_px);
  EXPECT_EQ(estimates[0].motion.rotation_rad, estimates[1].motion.rotation_rad);
  EXPECT_EQ(estimates[0].offset, estimates[1].offset);
}

TEST(RegistrationRobustness, BrightnessAndShadingDoNotDrag) {
  const reference::Scene scene(256, 7);
  const RigidMotion truth{1.5f, -2.5f, 0};
  const Image<float> mask = scene.frame({}, 0.003, false, 1);
  Image<float> frame = scene.frame(truth, 0.01, true, 2);
  for (int y = 0; y < 256; ++y)
    for (int x = 0; x < 256; ++x) frame(y, x) += 0.3f + 0.1f * std::sin(static_cast<float>(x) / 60) * std::cos(static_cast<float>(y) / 70);
  const Image<std::uint8_t> valid = ones(256, 256);
  const Stream stream = Stream::cpu();
  MaskRegistration registration(stream, mask, valid);
  const RigidEstimate e = registration.estimate(stream, frame);
  EXPECT_NEAR(e.motion.shift_y_px, truth.shift_y_px, 0.15);
  EXPECT_NEAR(e.motion.shift_x_px, truth.shift_x_px, 0.15);
  EXPECT_NEAR(e.offset, 0.3, 0.08);
}

TEST(RegistrationRobustness, FarShiftIsFoundBySearch) {
  const reference::Scene scene(256, 9);
  const Image<float> mask = scene.frame({}, 0.003, false, 1), frame = scene.frame({-33, 21, 0}, 0.01, true, 2);
  const Image<std::uint8_t> valid = ones(256, 256);
  const Stream stream = Stream::cpu();
  MaskRegistration registration(stream, mask, valid);
  const RigidEstimate e = registration.estimate(stream, frame);
  EXPECT_NEAR(e.motion.shift_y_px, -33, 0.1);
  EXPECT_NEAR(e.motion.shift_x_px, 21, 0.1);
}

TEST(RegistrationRobustness, StaticFieldEdgeDoesNotHold) {
  const reference::Scene scene(256, 8);
  const RigidMotion truth{2.5f, 3.5f, 0};
  Image<float> mask = scene.frame({}, 0.003, false, 1), frame = scene.frame(truth, 0.01, true, 2);
  Image<std::uint8_t> valid = ones(256, 256);
  for (int y = 0; y < 256; ++y)
    for (int x = 0; x < 256; ++x)
      if (std::hypot(y - 128, x - 128) > 115) {
        mask(y, x) = frame(y, x) = 5;
        valid(y, x) = 0;
      }
  const Stream stream = Stream::cpu();
  MaskRegistration registration(stream, mask, valid);
  const RigidEstimate e = registration.estimate(stream, frame);
  EXPECT_NEAR(e.motion.shift_y_px, truth.shift_y_px, 0.06);
  EXPECT_NEAR(e.motion.shift_x_px, truth.shift_x_px, 0.06);
}

TEST(RegistrationRobustness, NothingToCompareKeepsTheStart) {
  const Stream stream = Stream::cpu();
  for (const int side : {1, 5, 9, 40}) {
    Image<float> flat(side, side);
    Image<std::uint8_t> valid(side, side);
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) {
        flat(y, x) = 1;
        valid(y, x) = side < 40;
      }
    MaskRegistration registration(stream, flat, valid);
    const RigidEstimate e = registration.estimate(stream, flat, RigidMotion{1, 2, 0});
    EXPECT_FALSE(e.converged) << side;
    EXPECT_EQ(e.motion.shift_y_px, 1);
    EXPECT_EQ(e.motion.shift_x_px, 2);
  }
}

TEST_P(Registration, ChecksArguments) {
  const Stream stream = this->stream();
  Image<float> a(stream, 40, 50), b(stream, 50, 40);
  Image<std::uint8_t> valid(stream, 40, 50), other(stream, 50, 40), empty(stream, 0, 0);
  Image<float> none(stream, 0, 0);
  set_zero(stream, a.view());
  set_zero(stream, valid.view());
  EXPECT_THROW(MaskRegistration(stream, a, other), std::invalid_argument);
  EXPECT_THROW(MaskRegistration(stream, none, empty), std::invalid_argument);
  EXPECT_THROW(MaskRegistration(stream, a, valid, {.rotation = true, .search_radius_px = -1}), std::invalid_argument);
  MaskRegistration registration(stream, a, valid);
  EXPECT_THROW(registration.estimate(stream, b), std::invalid_argument);
  EXPECT_THROW(registration.estimate(stream, a, RigidMotion{NAN, 0, 0}), std::invalid_argument);
}

CINELUMEN_ON_ALL_DEVICES(Registration);

}  // namespace
}  // namespace cinelumen
