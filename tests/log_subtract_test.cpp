/// Log subtraction of a moved mask.

#include "kernels/log_subtract.h"

#include "kernels/bspline.h"
#include "reference/log_subtract.h"
#include "support/devices.h"
#include "support/images.h"

namespace cinelumen {
namespace {

class LogSubtract : public test::DeviceTest {};

std::vector<RigidMotion> motions() {
  return {{0, 0, 0},     {0.3f, -0.7f, 0},      {-2.5f, 3.25f, 0}, {5, -4, 0},         {-40.2f, 17.9f, 0}, {1000, -1e9f, 0},
          {0, 0, 0.01f}, {1.5f, 2.25f, -0.03f}, {-3, 0.4f, 0.2f},  {0.1f, 0.2f, 2.0f}, {1e9f, 0, 0.1f}};
}

TEST_P(LogSubtract, MatchesTwin) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : test::awkward_sizes()) {
    if (stream.on_cuda() && height > 33) continue;
    const Image<float> mask = test::random_image(height, width), frame = test::random_image(height, width, 0, 1, 2);
    Image<std::uint8_t> valid(height, width);
    std::mt19937 random(5);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) valid(y, x) = random() % 10 != 0;
    auto mask_device = test::sub_view<float>(stream, height, width), coefficients = test::sub_view<float>(stream, height, width),
         attenuation = test::sub_view<float>(stream, height, width), subtracted = test::sub_view<float>(stream, height, width),
         moved = test::sub_view<float>(stream, height, width);
    auto valid_device = test::sub_view<std::uint8_t>(stream, height, width);
    copy<float>(stream, mask.view(), mask_device.view);
    copy<float>(stream, frame.view(), attenuation.view);
    copy<std::uint8_t>(stream, valid.view(), valid_device.view);
    bspline_coefficients(stream, mask_device.view, coefficients.view);
    const Image<double> exact = reference::bspline_coefficients(mask.view());
    for (const RigidMotion& motion : motions()) {
      log_subtract(stream, attenuation.view, coefficients.view, valid_device.view, motion, 0.125f, subtracted.view);
      warp(stream, coefficients.view, motion, moved.view);
      const Image<float> found = to_host(stream, subtracted.view), found_moved = to_host(stream, moved.view);
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) {
          bool reaches;
          double margin;
          const double value = reference::moved_mask(exact.view(), motion, y, x, reaches, margin);
          if (margin < 1e-4) continue;
          // Positions carry 1e-5 px of rounding at 200 px; noise of full range has slopes of a few per px.
          ASSERT_NEAR(found_moved(y, x), value, 1e-4) << height << "x" << width << " at " << y << ", " << x << ", shift "
                                                      << motion.shift_y_px << ", " << motion.shift_x_px << ", " << motion.rotation_rad;
          ASSERT_NEAR(found(y, x), valid(y, x) && reaches ? frame(y, x) - value - 0.125 : 0.0, 1e-4);
        }
      EXPECT_EQ(to_host(stream, subtracted.whole.view())(1, 3), 7) << "wrote outside the view";
      EXPECT_EQ(to_host(stream, subtracted.whole.view())(height + 2, width + 3), 7) << "wrote outside the view";
    }
  }
}

TEST_P(LogSubtract, PositiveShiftIsDownAndRight) {
  const Stream stream = this->stream();
  Image<float> mask(20, 40);
  for (int y = 0; y < 20; ++y)
    for (int x = 0; x < 40; ++x) mask(y, x) = y == 8 && x == 15;
  const Image<float> device = to_device(stream, mask.view());
  Image<float> coefficients(stream, 20, 40), moved(stream, 20, 40);
  bspline_coefficients(stream, device, coefficients);
  warp(stream, coefficients, {2, 5, 0}, moved);
  EXPECT_NEAR(to_host(stream, moved.view())(10, 20), 1, 1e-5);
}

TEST_P(LogSubtract, NoMotionOfTheSameImageIsZero) {
  const Stream stream = this->stream();
  const Image<float> host = test::random_image(70, 133), image = to_device(stream, host.view());
  Image<float> coefficients(stream, 70, 133), result(stream, 70, 133);
  Image<std::uint8_t> valid(70, 133);
  for (int y = 0; y < 70; ++y)
    for (int x = 0; x < 133; ++x) valid(y, x) = 1;
  const Image<std::uint8_t> valid_device = to_device(stream, valid.view());
  bspline_coefficients(stream, image, coefficients);
  log_subtract(stream, image, coefficients, valid_device, {}, 0, result);
  const Image<float> found = to_host(stream, result.view());
  for (int y = 0; y < 70; ++y)
    for (int x = 0; x < 133; ++x) ASSERT_NEAR(found(y, x), 0, 2e-6);
}

TEST_P(LogSubtract, InPlaceGivesTheSame) {
  const Stream stream = this->stream();
  const Image<float> frame = test::random_image(40, 70);
  Image<float> attenuation = to_device(stream, frame.view());
  Image<float> coefficients(stream, 40, 70), result(stream, 40, 70);
  Image<std::uint8_t> valid(40, 70);
  for (int y = 0; y < 40; ++y)
    for (int x = 0; x < 70; ++x) valid(y, x) = 1;
  const Image<std::uint8_t> valid_device = to_device(stream, valid.view());
  bspline_coefficients(stream, attenuation, coefficients);
  for (const RigidMotion& motion : {RigidMotion{0.4f, 1.3f, 0}, RigidMotion{0.4f, 1.3f, 0.02f}}) {
    copy<float>(stream, frame.view(), attenuation.view());
    log_subtract(stream, attenuation, coefficients, valid_device, motion, 0, result);
    log_subtract(stream, attenuation, coefficients, valid_device, motion, 0, attenuation);
    test::expect_near(to_host(stream, attenuation.view()).view(), to_host(stream, result.view()).view(), 0);
  }
}

TEST_P(LogSubtract, ChecksArguments) {
  const Stream stream = this->stream();
  Image<float> a(stream, 4, 5), b(stream, 5, 4);
  Image<std::uint8_t> valid(stream, 4, 5);
  EXPECT_THROW(log_subtract(stream, a, b, valid, {}, 0, a), std::invalid_argument);
  EXPECT_THROW(log_subtract(stream, a, a, valid, {}, 0, b), std::invalid_argument);
  EXPECT_THROW(log_subtract(stream, a, a, valid, {NAN, 0, 0}, 0, a), std::invalid_argument);
  EXPECT_THROW(warp(stream, a, {}, b), std::invalid_argument);
  EXPECT_THROW(warp(stream, a, {0, INFINITY, 0}, a), std::invalid_argument);
}

CINELUMEN_ON_ALL_DEVICES(LogSubtract);

TEST(RigidMotions, InverseUndoesMove) {
  const RigidMotion motion{3.5f, -7.25f, 0.3f};
  const PixelPosition there = move(motion, {12, 90}, 100, 140), back = move(inverse(motion), there, 100, 140);
  EXPECT_NEAR(back.y, 12, 1e-4);
  EXPECT_NEAR(back.x, 90, 1e-4);
  EXPECT_GT(move({0, 0, 0.1f}, {49.5, 139}, 100, 140).y, 50) << "positive rotation turns x towards y";
  const RigidMotion after{-1.5f, 0.25f, -0.04f};
  const PixelPosition one = move(after, there, 100, 140), both = move(compose(after, motion), {12, 90}, 100, 140);
  EXPECT_NEAR(both.y, one.y, 1e-5);
  EXPECT_NEAR(both.x, one.x, 1e-5);
}

}  // namespace
}  // namespace cinelumen
