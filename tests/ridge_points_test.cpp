/// Collecting, refining and sampling against double-precision twins; and refinement of a ridge whose place is known.

#include "kernels/ridge_points.h"

#include <gtest/gtest.h>

#include <limits>

#include "reference/ridge_points.h"
#include "support/devices.h"
#include "support/images.h"
#include "support/masks.h"
#include "support/tubes.h"

namespace cinelumen {
namespace {

class RidgePointsTest : public test::DeviceTest {};

std::vector<RidgePoint> refined(const Stream& stream, ImageView<const float> image, std::vector<RidgePoint> points, int steps,
                                float limit) {
  Array<RidgePoint> device(stream, static_cast<int>(points.size()));
  const ArrayView<RidgePoint> host{points.data(), static_cast<int>(points.size())};
  copy<RidgePoint>(stream, host, device.view());
  refine_ridge_points(stream, image, device, steps, limit);
  copy<RidgePoint>(stream, device.view(), host);
  stream.synchronize();
  return points;
}

TEST_P(RidgePointsTest, CollectsEverySkeletonPixelInRasterOrder) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : test::awkward_sizes()) {
    const Image<std::uint8_t> mask = test::random_blobs(height, width, 1, 8);
    const Image<float> z = test::random_image(height, width, 0, 9, 1), angle = test::random_image(height, width, -1, 1, 2),
                       scale = test::random_image(height, width, 1, 5, 3);
    auto device_mask = test::sub_view<std::uint8_t>(stream, height, width);
    copy<std::uint8_t>(stream, mask.view(), device_mask.view);
    const auto pixels = collect_skeleton(stream, device_mask.view, to_device(stream, z.view()).view(),
                                         to_device(stream, angle.view()).view(), to_device(stream, scale.view()).view());
    std::size_t at = 0;
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        if (!mask(y, x)) continue;
        ASSERT_LT(at, pixels.size());
        EXPECT_EQ(pixels[at].y, y);
        EXPECT_EQ(pixels[at].x, x);
        EXPECT_EQ(pixels[at].z, z(y, x));
        EXPECT_EQ(pixels[at].angle, angle(y, x));
        EXPECT_EQ(pixels[at].scale_px, scale(y, x));
        ++at;
      }
    EXPECT_EQ(at, pixels.size());
  }
}

TEST_P(RidgePointsTest, StepEqualsTheTwin) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : test::awkward_sizes()) {
    const Image<float> image = test::random_image(height, width, 3, 5, 4);
    auto device = test::sub_view<float>(stream, height, width);
    copy<float>(stream, image.view(), device.view);
    const Image<float> random = test::random_image(24, 4, 0, 1, 6);
    std::vector<RidgePoint> points;
    for (int i = 0; i < 24; ++i) {
      const float turn = 6.28f * random(i, 2);
      points.push_back({random(i, 0) * static_cast<float>(height - 1), random(i, 1) * static_cast<float>(width - 1), std::sin(turn),
                        std::cos(turn), 0.8f + 3 * random(i, 3), 1.5f, 0, 0});
    }
    const auto result = refined(stream, device.view, points, 1, 0.6f);
    for (int i = 0; i < 24; ++i) {
      // A step is a quotient: its rounding error goes with its size. A denominator near 0 may fall on either side.
      const double expected = reference::newton_step(image, points[i], points[i].y, points[i].x);
      if (std::abs(expected) > 30) continue;
      ASSERT_NEAR(result[i].last_step_px, expected, 2e-3 * (1 + expected * expected)) << height << " x " << width << ", point " << i;
      const double limited = std::clamp(static_cast<double>(result[i].last_step_px), -0.6, 0.6);
      EXPECT_NEAR(result[i].y, points[i].y + limited * points[i].normal_y, 1e-4);
      EXPECT_NEAR(result[i].x, points[i].x + limited * points[i].normal_x, 1e-4);
      EXPECT_NEAR(result[i].moved_px, limited, 1e-4);
    }
  }
}

TEST_P(RidgePointsTest, StepEqualsTheTwinForLongThinWindowsAtAnyAngle) {
  const Stream stream = this->stream();
  const Image<float> image = test::random_image(40, 45, 3, 5, 4);
  const Image<float> device = to_device(stream, image.view());
  std::vector<RidgePoint> points;
  for (const auto& [across, along] : {std::pair{0.5f, 8.0f}, std::pair{8.0f, 0.5f}, std::pair{8.0f, 1.5f}, std::pair{0.5f, 0.5f}})
    for (int turn = 0; turn < 24; ++turn) {
      const float angle = 0.2618f * static_cast<float>(turn) + 0.01f;
      points.push_back({20.3f, 22.7f, std::sin(angle), std::cos(angle), across, along, 0, 0});
    }
  const auto result = refined(stream, device, points, 1, 0.6f);
  int compared = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const double expected = reference::newton_step(image, points[i], points[i].y, points[i].x);
    if (std::abs(expected) > 10 * points[i].sigma_px) continue;
    ++compared;
    ASSERT_NEAR(result[i].last_step_px, expected, 5e-3 * (1 + expected * expected)) << "point " << i;
  }
  EXPECT_GE(compared, 20);
}

TEST_P(RidgePointsTest, FindsTheMiddleOfATube) {
  const Stream stream = this->stream();
  const test::Tube tube = test::straight_tube({8.3, -10}, {37.7, 90}, 3);
  const Image<float> image = to_device(stream, test::render_tubes(48, 80, {tube}, 0.2, 0.6, 0, 1, 5).view());
  const double slope = 29.4 / 100, length = std::hypot(1, slope);
  std::vector<RidgePoint> points;
  for (int k = 0; k < 12; ++k) {
    const double along = 20 + 6 * k, off = -1.8 + 0.3 * k;
    const double ny = 1 / length, nx = -slope / length;
    points.push_back({static_cast<float>(8.3 + slope * (along + 10) + off * ny), static_cast<float>(along + off * nx),
                      static_cast<float>(ny), static_cast<float>(nx), 2.5f, 1.5f, 0, 0});
  }
  const auto result = refined(stream, image.view(), points, 4, 1);
  for (int k = 0; k < 12; ++k) {
    if (result[k].x < 6 || result[k].x > 73) continue;
    EXPECT_LE(test::nearest_on_tubes({tube}, result[k].y, result[k].x).distance, 0.03) << k;
    EXPECT_NEAR(result[k].moved_px, 1.8 - 0.3 * k, 0.03);
    EXPECT_LE(std::abs(result[k].last_step_px), 0.02);
  }
}

TEST_P(RidgePointsTest, NoRidgeNoStep) {
  const Stream stream = this->stream();
  Image<float> valley(20, 20);
  for (int y = 0; y < 20; ++y)
    for (int x = 0; x < 20; ++x) valley(y, x) = static_cast<float>((x - 9) * (x - 9));
  const Image<float> image = to_device(stream, valley.view());
  const auto result = refined(stream, image.view(), {RidgePoint{10, 9.4f, 0, 1, 1.5f, 1.5f, 0, 0}}, 3, 1);
  EXPECT_GT(result[0].last_step_px, 1e30f);
  EXPECT_EQ(result[0].moved_px, 0);
  EXPECT_EQ(result[0].x, 9.4f);
}

TEST_P(RidgePointsTest, SamplesEqualTheTwin) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : test::awkward_sizes()) {
    const Image<float> image = test::random_image(height, width, -2, 5, 4), random = test::random_image(10, 3, 0, 1, 5);
    auto device = test::sub_view<float>(stream, height, width);
    copy<float>(stream, image.view(), device.view);
    Array<CrossSection> sections(10);
    for (int i = 0; i < 10; ++i)
      sections[i] = {random(i, 0) * static_cast<float>(height - 1), random(i, 1) * static_cast<float>(width - 1),
                     std::sin(6.28f * random(i, 2)), std::cos(6.28f * random(i, 2))};
    Array<CrossSection> device_sections(stream, 10);
    copy<CrossSection>(stream, sections.view(), device_sections.view());
    auto samples = test::sub_view<float>(stream, 10, 13);
    sample_across(stream, device.view, device_sections.view(), 0.5f, samples.view);
    const Image<float> host = to_host(stream, samples.view);
    for (int i = 0; i < 10; ++i)
      for (int k = 0; k < 13; ++k) {
        const double t = (k - 6) * 0.5, y = sections[i].y + t * sections[i].normal_y, x = sections[i].x + t * sections[i].normal_x;
        const double expected = reference::sample(image, y, x);
        const bool near_edge =
            std::min(std::min(std::abs(y), std::abs(x)), std::min(std::abs(y - height + 1), std::abs(x - width + 1))) < 1e-4;
        if (near_edge) continue;  // float and double may disagree which side that is
        if (std::isnan(expected)) {
          EXPECT_TRUE(std::isnan(host(i, k)));
        } else {
          EXPECT_NEAR(host(i, k), expected, 2e-4);
        }
      }
  }
}

TEST_P(RidgePointsTest, ClimbsToTheNearestPeak) {
  const Stream stream = this->stream();
  constexpr int height = 40, width = 50;
  Image<float> ridge(height, width), scale(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const float d = static_cast<float>(y) - 18.3f - 0.2f * static_cast<float>(x);
      scale(y, x) = x < 25 ? 2.0f : 3.0f;
      ridge(y, x) = 10 * std::exp(-d * d / 8.0f) * scale(y, x);
    }
  const float slope = 0.2f, length = std::hypot(1.0f, slope), ny = 1 / length, nx = -slope / length;
  std::vector<CrossSection> sections;
  std::vector<CrossPeak> starts;
  const auto add = [&](float along, float off, float start) {
    sections.push_back({18.3f + 0.2f * along - off * ny, along - off * nx, ny, nx});
    starts.push_back({start, 0, 0});
  };
  add(12, 1.4f, 0.3f);    // up the slope, twice
  add(14, -0.8f, -0.8f);  // starts where it is
  add(36, 0.6f, 0.2f);
  add(12, 0, -6);  // too far to climb
  add(12, 0, std::numeric_limits<float>::infinity());
  add(1, 0.2f, 60);  // outside
  const int count = static_cast<int>(sections.size());
  Array<CrossSection> device_sections(stream, count);
  Array<CrossPeak> device_peaks(stream, count);
  copy<CrossSection>(stream, ArrayView<const CrossSection>{sections.data(), count}, device_sections.view());
  copy<CrossPeak>(stream, ArrayView<const CrossPeak>{starts.data(), count}, device_peaks.view());
  const Image<float> image = to_device(stream, ridge.view()), divisor = to_device(stream, scale.view());
  locate_peaks_across(stream, image.view(), divisor.view(), device_sections.view(), 0.5f, device_peaks.view());
  std::vector<CrossPeak> peaks(starts.size());
  copy<CrossPeak>(stream, device_peaks.view(), ArrayView<CrossPeak>{peaks.data(), count});
  stream.synchronize();
  const float expected[] = {1.4f, -0.8f, 0.6f}, heights[] = {20, 20, 30};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(peaks[i].found, 1) << i;
    EXPECT_NEAR(peaks[i].offset_px, expected[i], 0.03) << i;
    EXPECT_NEAR(peaks[i].value, heights[i], 0.3) << i;
  }
  for (int i = 3; i < count; ++i) EXPECT_EQ(peaks[i].found, 0) << i;
}

TEST_P(RidgePointsTest, RefusesWhatDoesNotFit) {
  const Stream stream = this->stream();
  const Image<float> image(stream, 8, 8), other(stream, 8, 9);
  const Image<std::uint8_t> mask(stream, 8, 8);
  Array<RidgePoint> points(stream, 3);
  Array<CrossSection> sections(stream, 3);
  Image<float> samples(stream, 4, 5);
  EXPECT_THROW(collect_skeleton(stream, mask, image, other, image), std::invalid_argument);
  EXPECT_THROW(refine_ridge_points(stream, image, points, 0, 1), std::invalid_argument);
  EXPECT_THROW(refine_ridge_points(stream, {}, points, 1, 1), std::invalid_argument);
  EXPECT_THROW(sample_across(stream, image, sections.view(), 1, samples), std::invalid_argument);
  Array<CrossPeak> peaks(stream, 2);
  EXPECT_THROW(locate_peaks_across(stream, image, {}, sections.view(), 1, peaks.view()), std::invalid_argument);
  EXPECT_TRUE(collect_skeleton(stream, {}, {}, {}, {}).empty());
}

CINELUMEN_ON_ALL_DEVICES(RidgePointsTest);

}  // namespace
}  // namespace cinelumen
