/// Log subtraction of a moved mask.

#include "kernels/log_subtract.h"

#include <algorithm>

#include "kernels/bspline.h"
#include "kernels/math.h"
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
      log_subtract(stream, attenuation.view, coefficients.view, valid_device.view, FramePlacement{motion, 0.125f}, subtracted.view);
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
  log_subtract(stream, image, coefficients, valid_device, FramePlacement{{}, 0}, result);
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
    log_subtract(stream, attenuation, coefficients, valid_device, FramePlacement{motion, 0}, result);
    log_subtract(stream, attenuation, coefficients, valid_device, FramePlacement{motion, 0}, attenuation);
    test::expect_near(to_host(stream, attenuation.view()).view(), to_host(stream, result.view()).view(), 0);
  }
}

/// A frame as stored, the plane that it stands for, and the mask, on the device.
struct Stored {
  Image<std::uint16_t> stored;
  Array<float> table;
  Image<float> attenuation, coefficients;
  Image<std::uint8_t> valid;
  StoredFrame frame() const { return {stored.view(), table.view()}; }
};
Stored stored_scene(const Stream& stream, int height, int width, const RigidMotion& motion) {
  const auto scene = [](double y, double x) { return 0.6 + 0.25 * std::sin(0.11 * x + 0.05 * y) * std::cos(0.09 * y); };
  Image<std::uint16_t> stored(height, width);
  Image<float> mask(height, width);
  Image<std::uint8_t> valid(height, width);
  Array<float> table(8192);
  for (int i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i) / 4000;
  const RigidMotion back = inverse(motion);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const PixelPosition at = move(back, {static_cast<double>(y), static_cast<double>(x)}, height, width);
      const double vessel = 0.3 * std::exp(-0.5 * square(static_cast<float>(at.x - at.y / 3 - width / 3.0) / 1.8f));
      stored(y, x) = static_cast<std::uint16_t>(std::lround(4000 * (scene(at.y, at.x) + 0.125 + vessel)));
      mask(y, x) = static_cast<float>(scene(y, x));
      valid(y, x) = (y + 2 * x) % 37 != 0;
    }
  stored(0, 0) = 60000;  // beyond the table
  Stored result{to_device(stream, stored.view()), Array<float>(stream, table.size()), Image<float>(stream, height, width),
                Image<float>(stream, height, width), to_device(stream, valid.view())};
  copy<float>(stream, table, result.table);
  const Image<float> mask_device = to_device(stream, mask.view());
  bspline_coefficients(stream, mask_device, result.coefficients);
  log_attenuation(stream, result.stored, result.table, result.attenuation);
  stream.synchronize();
  return result;
}

TEST_P(LogSubtract, StoredFrameGivesWhatItsAttenuationGives) {
  const Stream stream = this->stream();
  for (const RigidMotion& motion : {RigidMotion{0.4f, -1.3f, 0}, RigidMotion{3.25f, 2.5f, 0.004f}, RigidMotion{-2.5f, 0.75f, 0.02f}}) {
    const Stored scene = stored_scene(stream, 41, 150, motion);
    auto from_plane = test::sub_view<float>(stream, 41, 150), from_stored = test::sub_view<float>(stream, 41, 150);
    log_subtract(stream, scene.attenuation, scene.coefficients, scene.valid, FramePlacement{motion, 0.125f}, from_plane.view);
    log_subtract(stream, scene.frame(), scene.coefficients, scene.valid, FramePlacement{motion, 0.125f}, from_stored.view);
    test::expect_near(to_host(stream, from_stored.view).view(), to_host(stream, from_plane.view).view(), 1e-6);
    EXPECT_EQ(to_host(stream, from_stored.whole.view())(1, 3), 7) << "wrote outside the view";
  }
}

// Against log_subtract's own result interpolated in double precision, pixel by pixel.
TEST_P(LogSubtract, OntoTheMaskIsTheDifferenceMovedBack) {
  const Stream stream = this->stream();
  const auto keys = [](double d) {
    d = std::abs(d);
    return d < 1 ? (1.5 * d - 2.5) * d * d + 1 : (d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0);
  };
  for (const auto& [height, width] : {std::pair{1, 1}, {37, 29}, {70, 141}})
    for (const RigidMotion& motion : {RigidMotion{},
                                      {0.4f, -1.3f, 0},
                                      {3.25f, 2.5f, 0.0045f},
                                      {-7.5f, 0.75f, -0.002f},
                                      {500, 0, 0},
                                      {2.25f, -1.5f, 0.02f},
                                      {0.5f, 3, -0.9f},
                                      {1, 900, 2.0f}}) {
      const Stored scene = stored_scene(stream, height, width, motion);
      Image<float> in_frame(stream, height, width);
      auto onto = test::sub_view<float>(stream, height, width);
      log_subtract(stream, scene.frame(), scene.coefficients, scene.valid, FramePlacement{motion, 0.125f}, in_frame);
      log_subtract_onto_mask(stream, scene.frame(), scene.coefficients, scene.valid, FramePlacement{motion, 0.125f}, onto.view);
      const Image<float> difference = to_host(stream, in_frame.view()), found = to_host(stream, onto.view);
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) {
          const PixelPosition at = move(motion, {static_cast<double>(y), static_cast<double>(x)}, height, width);
          const double inside = std::min({at.y, height - 1 - at.y, at.x, width - 1 - at.x});
          if (std::abs(inside) < 1e-3 && motion.shift_y_px != 0) continue;  // rounding may decide either way
          double sum = 0;
          const int row = static_cast<int>(std::floor(at.y)), column = static_cast<int>(std::floor(at.x));
          for (int j = row - 1; j <= row + 2; ++j)
            for (int i = column - 1; i <= column + 2; ++i)
              if (inside >= 0 && j >= 0 && i >= 0 && j < height && i < width) sum += keys(at.y - j) * keys(at.x - i) * difference(j, i);
          // Pixels that are not valid make jumps of 0.3, along which a rotation's two passes go a little beside one another.
          ASSERT_NEAR(found(y, x), sum, motion.rotation_rad == 0 ? 2e-5 : 1e-3)
              << height << "x" << width << " at " << y << ", " << x << ", rotation " << motion.rotation_rad;
        }
      EXPECT_EQ(to_host(stream, onto.whole.view())(1, 3), 7) << "wrote outside the view";
    }
}

TEST_P(LogSubtract, OntoTheMaskAgreesWithTheSplineWhereThereIsOnlyContrast) {
  const Stream stream = this->stream();
  const int height = 60, width = 90;
  for (const RigidMotion& motion : {RigidMotion{1.5f, -2.5f, 0.004f}, RigidMotion{1.5f, -2.5f, 0.02f}}) {
    const Stored scene = stored_scene(stream, height, width, motion);
    const Image<std::uint8_t> all_host = [&] {
      Image<std::uint8_t> all(height, width);
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) all(y, x) = 1;
      return all;
    }();
    const Image<std::uint8_t> all = to_device(stream, all_host.view());
    Image<float> in_frame(stream, height, width), coefficients(stream, height, width), by_spline(stream, height, width),
        onto(stream, height, width);
    log_subtract(stream, scene.frame(), scene.coefficients, all, FramePlacement{motion, 0.125f}, in_frame);
    bspline_coefficients(stream, in_frame, coefficients);
    warp(stream, coefficients, inverse(motion), by_spline);
    log_subtract_onto_mask(stream, scene.frame(), scene.coefficients, all, FramePlacement{motion, 0.125f}, onto);
    const Image<float> expected = to_host(stream, by_spline.view()), found = to_host(stream, onto.view());
    for (int y = 8; y < height - 8; ++y)
      for (int x = 8; x < width - 8; ++x) ASSERT_NEAR(found(y, x), expected(y, x), 0.008) << "at " << y << ", " << x;
  }
}

// What a captured CUDA graph does: one launch whatever the motion, which is written to memory beforehand.
TEST_P(LogSubtract, PlacementFromMemoryGivesTheSame) {
  const Stream stream = this->stream();
  const int height = 41, width = 70;
  const Stored scene = stored_scene(stream, height, width, {});
  Array<FramePlacement> memory(stream, 1);
  Image<float> known(stream, height, width), remembered(stream, height, width);
  for (const RigidMotion& motion : motions()) {
    const FramePlacement placement{motion, 0.125f};
    copy<FramePlacement>(stream, ArrayView<const FramePlacement>{&placement, 1}, memory.view());
    stream.synchronize();
    for (const auto function : {&log_subtract_onto_mask, static_cast<decltype(&log_subtract_onto_mask)>(&log_subtract)}) {
      function(stream, scene.frame(), scene.coefficients, scene.valid, placement, known);
      function(stream, scene.frame(), scene.coefficients, scene.valid, memory, remembered);
      test::expect_near(to_host(stream, remembered.view()).view(), to_host(stream, known.view()).view(), 0);
    }
  }
}

TEST_P(LogSubtract, ChecksArguments) {
  const Stream stream = this->stream();
  Image<float> a(stream, 4, 5), b(stream, 5, 4);
  Image<std::uint8_t> valid(stream, 4, 5);
  EXPECT_THROW(log_subtract(stream, a, b, valid, FramePlacement{{}, 0}, a), std::invalid_argument);
  EXPECT_THROW(log_subtract(stream, a, a, valid, FramePlacement{{}, 0}, b), std::invalid_argument);
  EXPECT_THROW(log_subtract(stream, a, a, valid, FramePlacement{{NAN, 0, 0}, 0}, a), std::invalid_argument);
  EXPECT_THROW(warp(stream, a, {}, b), std::invalid_argument);
  const Image<std::uint16_t> stored(stream, 4, 5), other(stream, 5, 4);
  const Array<float> table(stream, 3);
  for (const auto function : {&log_subtract_onto_mask, static_cast<decltype(&log_subtract_onto_mask)>(&log_subtract)}) {
    EXPECT_THROW(function(stream, {other.view(), table.view()}, a, valid, FramePlacement{}, a), std::invalid_argument);
    EXPECT_THROW(function(stream, {stored.view(), {}}, a, valid, FramePlacement{}, a), std::invalid_argument);
    EXPECT_THROW(function(stream, {stored.view(), table.view()}, a, valid, FramePlacement{{0, 0, NAN}, 0}, a), std::invalid_argument);
  }
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
