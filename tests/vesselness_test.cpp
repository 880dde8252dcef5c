/// Vesselness against its definition, against the analytic answer of a ridge, and against what it promises of noise and field edges.

#include "kernels/vesselness.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/ridge_points.h"
#include "reference/vesselness.h"
#include "support/devices.h"
#include "support/images.h"

namespace cinelumen {
namespace {

class Vessels : public test::DeviceTest {
 protected:
  struct HostMap {
    Image<float> response, z, angle, scale_px, ridge;
  };
  static HostMap compute(const Stream& stream, const Image<float>& image, const VesselnessOptions& options,
                         const Image<std::uint8_t>* valid = nullptr) {
    VesselnessMap map = make_vesselness_map(stream, image.height(), image.width(), options.planes);
    const Image<float> input = to_device(stream, image.view());
    Image<std::uint8_t> field;
    if (valid) field = to_device(stream, valid->view());
    Vesselness vesselness = valid ? Vesselness(stream, field.view()) : Vesselness(stream, image.height(), image.width());
    vesselness.compute(stream, input, options, map);
    return {to_host(stream, map.response.view()), to_host(stream, map.z.view()), to_host(stream, map.angle.view()),
            to_host(stream, map.scale_px.view()), to_host(stream, map.ridge.view())};
  }
  static Image<std::uint8_t> everywhere(int height, int width) {
    Image<std::uint8_t> valid(height, width);
    for (int y = 0; y < height; ++y) std::fill_n(valid.row(y), width, std::uint8_t{1});
    return valid;
  }
};

/// Ridge of Gaussian profile through the image's middle, at `direction` radians from the x axis, shifted by a part of a pixel.
struct Ridge {
  double width_px, direction, height = 1;
  double distance(int y, int x, int side) const {
    return -(x - side / 2 - 0.3) * std::sin(direction) + (y - side / 2 + 0.2) * std::cos(direction);
  }
  Image<float> image(int side) const {
    Image<float> result(side, side);
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) {
        const double u = distance(y, x, side) / width_px;
        result(y, x) = static_cast<float>(height * std::exp(-0.5 * u * u));
      }
    return result;
  }
  /// -sigma^2 times the second derivative across the ridge smoothed by sigma: the profile becomes a Gaussian of variance t = w^2 + sigma^2
  /// and height w / sqrt(t), whose second derivative is (u^2 / t - 1) / t times itself.
  double strength(double u, double sigma) const {
    const double t = width_px * width_px + sigma * sigma;
    return sigma * sigma * height * width_px / std::sqrt(t) * (1 - u * u / t) / t * std::exp(-0.5 * u * u / t);
  }
};

/// Image of lines, blobs and noise, different in every part.
Image<float> busy_image(int height, int width) {
  Image<float> image = test::random_image(height, width, 0, 0.2f, 5);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const double line = std::sin(0.13 * x + 0.21 * y + 0.002 * x * y), other = std::cos(0.05 * x - 0.4 * y);
      image(y, x) += static_cast<float>(0.7 * line * line * line + 0.2 * other + 0.003 * x);
    }
  return image;
}

Image<std::uint8_t> round_field(int height, int width) {
  Image<std::uint8_t> valid(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) valid(y, x) = std::hypot((y - 0.55 * height) / height, (x - 0.45 * width) / width) < 0.52;
  return valid;
}

TEST_P(Vessels, FollowsItsDefinition) {
  const Stream stream = this->stream();
  using enum VesselnessResponse;
  for (const auto& [height, width] : test::awkward_sizes()) {
    if (stream.on_cuda() && height * width > 70 * 130) continue;
    const Image<float> image = busy_image(height, width);
    int variant = height + width;
    for (const VesselnessResponse response : {noise_calibrated, frangi, sato, jerman}) {
      if (response != noise_calibrated && height * width > 40 * 40) continue;
      ++variant;
      VesselnessOptions options;
      options.response = response;
      options.correlation_factor = {1.5f, 1.4f, 1.3f, 1.25f, 1.22f, 1.2f, 1.12f, 1.15f, 1.1f, 1.05f};
      if (variant % 5 == 2)  // clutter factors as uneven as they come: the noise's floor under the valleys and z both follow
        options.correlation_factor = {0.8f, 20, 3, 9, 5, 1, 8, 14, 2.5f, 6};
      options.elongation = variant % 2 == 0;
      options.use_scale[1] = options.use_scale[5] = variant % 7 != 3;
      options.use_scale[4] = options.use_scale[6] = variant % 7 > 3;
      options.noise_sd = 0.05f;
      options.frangi_c = 0.3f;
      options.jerman_lambda = 0.9f;
      if (variant % 3 == 0) options.min_scale_px = 1, options.max_scale_px = 11.2f;
      if (variant % 3 == 1) options.min_scale_px = 2.8f, options.max_scale_px = 4;
      Image<std::uint8_t> valid = variant % 2 ? round_field(height, width) : everywhere(height, width);
      Image<float> input(height, width);
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) input(y, x) = valid(y, x) ? image(y, x) : std::numeric_limits<float>::quiet_NaN();
      Image<float> weight(height, width);
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) weight(y, x) = 0.3f + 0.01f * ((7 * y + 3 * x) % 200);
      const bool weighted = variant % 4 < 2;
      const auto expected =
          test::vesselness_reference(input.view(), valid.view(), options, weighted ? weight.view() : ImageView<const float>{});

      auto device_image = test::sub_view<float>(stream, height, width);
      copy<float>(stream, input.view(), device_image.view);
      auto device_valid = test::sub_view<std::uint8_t>(stream, height, width);
      copy<std::uint8_t>(stream, valid.view(), device_valid.view);
      auto device_weight = test::sub_view<float>(stream, height, width);
      copy<float>(stream, weight.view(), device_weight.view);
      if (weighted) options.noise_weight = device_weight.view;
      Vesselness vesselness(stream, device_valid.view);
      VesselnessMap map = make_vesselness_map(stream, height, width);
      // Twice: nothing may be left over from the frame before.
      vesselness.compute(stream, to_device(stream, image.view()), options, map);
      vesselness.compute(stream, device_image.view, options, map);
      const Image<float> actual = to_host(stream, map.response.view()), z = to_host(stream, map.z.view()),
                         angle = to_host(stream, map.angle.view()), scale = to_host(stream, map.scale_px.view());
      int compared = 0;
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) {
          const std::string where = std::to_string(height) + " x " + std::to_string(width) + ", response " +
                                    std::to_string(static_cast<int>(response)) + " at (" + std::to_string(y) + ", " + std::to_string(x) +
                                    ")";
          if (!valid(y, x)) {
            ASSERT_EQ(actual(y, x), 0) << where;
            ASSERT_EQ(z(y, x), 0) << where;
            ASSERT_EQ(angle(y, x), 0) << where;
            continue;
          }
          if (expected.margin(y, x) == 0) continue;
          ++compared;
          ASSERT_NEAR(actual(y, x), expected.response(y, x), 2e-4) << where;
          ASSERT_NEAR(z(y, x), expected.z(y, x), 2e-3 + 2e-4 * std::abs(expected.z(y, x))) << where;
          ASSERT_FLOAT_EQ(scale(y, x), static_cast<float>(expected.scale_px(y, x))) << where;
          const double c = expected.twice_cosine(y, x), s = expected.twice_sine(y, x);
          if (std::hypot(c, s) < 0.02) continue;
          ASSERT_NEAR(std::cos(2 * angle(y, x)) * std::hypot(c, s), c, 1e-3) << where;
          ASSERT_NEAR(std::sin(2 * angle(y, x)) * std::hypot(c, s), s, 1e-3) << where;
          ASSERT_GT(angle(y, x), -std::numbers::pi / 2 - 1e-6) << where;
        }
      if (height * width > 500) {
        EXPECT_GT(compared, height * width / 4);
      }
    }
  }
}

/// Every option that changes the default response or z, one at a time, on one image: against the definition, and not without effect.
TEST_P(Vessels, OptionsFollowTheirDefinition) {
  const Stream stream = this->stream();
  const int height = 45, width = 67;
  Image<float> image = busy_image(height, width);
  Image<float> weight(height, width);
  const Image<std::uint8_t> valid = round_field(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) weight(y, x) = 0.2f + 0.05f * (x % 40), image(y, x) *= 0.05f;
  const Image<float> device_weight = to_device(stream, weight.view());
  VesselnessOptions plain;
  plain.noise_sd = 0.05f;  // the noise's floor decides at some scales, the image's valleys at others
  const auto reference = test::vesselness_reference(image.view(), valid.view(), plain);
  const auto check = [&](const char* what, const VesselnessOptions& options, ImageView<const float> host_weight, bool moves_z,
                         bool moves_response) {
    const auto expected = test::vesselness_reference(image.view(), valid.view(), options, host_weight);
    const HostMap map = compute(stream, image, options, &valid);
    double z_moved = 0, response_moved = 0;
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        if (expected.margin(y, x) == 0) continue;
        ASSERT_NEAR(map.z(y, x), expected.z(y, x), 1e-4 + 2e-4 * std::abs(expected.z(y, x))) << what << " at " << y << ", " << x;
        ASSERT_NEAR(map.response(y, x), expected.response(y, x), 2e-4) << what << " at " << y << ", " << x;
        z_moved = std::max(z_moved, std::abs(expected.z(y, x) - reference.z(y, x)));
        response_moved = std::max(response_moved, std::abs(expected.response(y, x) - reference.response(y, x)));
      }
    EXPECT_EQ(z_moved > 0.01, moves_z) << what;
    EXPECT_EQ(response_moved > 0.002, moves_response) << what;
  };
  check("defaults", plain, {}, false, false);
  VesselnessOptions options = plain;
  options.noise_weight = device_weight.view();
  check("noise_weight", options, weight.view(), true, false);
  options = plain;
  options.elongation = false;
  check("elongation", options, {}, false, true);
  options = plain;
  options.correlation_factor = {1, 1, 3, 0.5f, 1, 2, 1, 8, 0.9f, 1};
  check("correlation_factor", options, {}, true, true);
  options = plain;
  options.half_response_ratio = 4;
  check("half_response_ratio", options, {}, false, true);
  options = plain;
  options.use_scale[5] = false;
  check("use_scale", options, {}, true, true);
}

/// Without response and angle, z and scale are the same to the bit, and the two planes stay as they are.
TEST_P(Vessels, ZAloneIsTheSame) {
  const Stream stream = this->stream();
  const int height = 70, width = 131;
  const Image<float> image = busy_image(height, width);
  const Image<std::uint8_t> valid = round_field(height, width);
  VesselnessOptions options;
  const HostMap full = compute(stream, image, options, &valid);
  options.planes = VesselnessPlanes::z_and_scale;
  VesselnessMap map = make_vesselness_map(stream, height, width);
  set_zero(stream, map.response.view());
  set_zero(stream, map.angle.view());
  const Image<float> input = to_device(stream, image.view());
  const Image<std::uint8_t> field = to_device(stream, valid.view());
  Vesselness vesselness(stream, field.view());
  vesselness.compute(stream, input, options, map);
  test::expect_near(to_host(stream, map.z.view()).view(), full.z.view(), 0);
  test::expect_near(to_host(stream, map.scale_px.view()).view(), full.scale_px.view(), 0);
  const Image<float> response = to_host(stream, map.response.view()), angle = to_host(stream, map.angle.view());
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      ASSERT_EQ(response(y, x), 0);
      ASSERT_EQ(angle(y, x), 0);
    }
}

/// Where squares are wanted they are the same to the bit, whatever stood in the memory of the others.
TEST_P(Vessels, WantedSquaresAreTheSame) {
  const Stream stream = this->stream();
  const int height = stream.on_cuda() ? 150 : 390, width = stream.on_cuda() ? 201 : 517;
  const Image<float> image = to_device(stream, busy_image(height, width).view());
  Image<float> other_on_host = busy_image(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) other_on_host(y, x) = 5 - 3 * other_on_host(y, x);
  const Image<float> other = to_device(stream, other_on_host.view());
  const Image<std::uint8_t> valid = round_field(height, width), field = to_device(stream, valid.view());
  const CrossSection sections[] = {{61, 70.5f, 0, 1}, {static_cast<float>(height) - 20, 128, 1, 0}, {-9, 30, 0.6f, 0.8f}, {-80, 90, 0, 1}};
  const int count = static_cast<int>(std::size(sections));
  Array<CrossSection> lines(stream, count);
  copy<CrossSection>(stream, ArrayView<const CrossSection>{sections, count}, lines.view());
  Image<std::int32_t> wanted(stream, squares_along(height), squares_along(width));
  mark_squares(stream, lines.view(), 12, wanted.view());
  const Image<std::int32_t> marks = to_host(stream, wanted.view());
  EXPECT_EQ(marks(1, 2), 1);
  EXPECT_EQ(marks(2, 2), 1);  // within 8 px along the vessel
  EXPECT_EQ(marks(1, 1), 1);  // within 12 px across it
  EXPECT_EQ(marks(0, 1), 1);
  EXPECT_EQ(marks(0, 2), 0);
  EXPECT_EQ(marks(1, 4), 0);
  for (const VesselnessPlanes planes : {VesselnessPlanes::z_and_scale, VesselnessPlanes::ridge_and_scale}) {
    VesselnessOptions options;
    options.planes = planes;
    VesselnessMap full = make_vesselness_map(stream, height, width, planes), part = make_vesselness_map(stream, height, width, planes);
    Vesselness(stream, field.view()).compute(stream, image, options, full);
    Vesselness vesselness(stream, field.view());
    vesselness.compute(stream, other, options, part);
    options.wanted = wanted.view();
    vesselness.compute(stream, image, options, part);
    const bool half = planes == VesselnessPlanes::ridge_and_scale;
    const Image<float> value = to_host(stream, (half ? part.ridge : part.z).view()),
                       expected = to_host(stream, (half ? full.ridge : full.z).view()), scale = to_host(stream, part.scale_px.view()),
                       expected_scale = to_host(stream, full.scale_px.view());
    for (int y = 0; y < value.height(); ++y)
      for (int x = 0; x < value.width(); ++x) {
        if (!marks(part.pixel_px * y / vesselness_square, part.pixel_px * x / vesselness_square)) continue;
        ASSERT_EQ(value(y, x), expected(y, x)) << half << " " << y << ", " << x;
        ASSERT_EQ(scale(y, x), expected_scale(y, x)) << half << " " << y << ", " << x;
      }
  }
}

TEST_P(Vessels, RidgeStrengthIsAnalytic) {
  const Stream stream = this->stream();
  const int side = stream.on_cuda() ? 64 : 161;
  const int edge = stream.on_cuda() ? 20 : 40;
  const auto widths = stream.on_cuda() ? std::vector<double>{1.5} : std::vector<double>{1, 1.5, 2, 2.5};
  const auto directions = stream.on_cuda() ? std::vector<double>{0.3} : std::vector<double>{0, 0.3, 0.785398, 1.3};
  for (int i = 0; i < vesselness_scale_count - (stream.on_cuda() ? 3 : 0); ++i)
    for (const double width_px : widths)
      for (const double direction : directions) {
        const Ridge ridge{width_px, direction};
        VesselnessOptions options;
        options.noise_sd = 0.001f;
        options.use_scale.fill(true);
        options.min_scale_px = options.max_scale_px = vesselness_scales_px[i];
        const HostMap map = compute(stream, ridge.image(side), options);
        const double sigma = vesselness_scales_px[i], per_z = std::sqrt(3 / (16 * std::numbers::pi)) * options.noise_sd / sigma;
        // Between the pixels of a coarse level there is linear interpolation: another error, bounded by the next test.
        const int step = i < 3 ? 1 : (i < 7 ? 2 : 4);
        double squares = 0;
        int count = 0;
        for (int y = edge / step * step; y < side - edge; y += step)
          for (int x = edge / step * step; x < side - edge; x += step) {
            const double u = ridge.distance(y, x, side);
            if (u * u > width_px * width_px + sigma * sigma) continue;  // beyond, the bright ridge has ended
            const double error = map.z(y, x) * per_z - ridge.strength(u, sigma);
            squares += error * error;
            ++count;
          }
        ASSERT_GT(count, 10);
        const double rms = std::sqrt(squares / count) / ridge.strength(0, sigma);
        EXPECT_LE(rms, sigma <= 4 || sigma == 6 ? 0.002 : 0.005)
            << "width " << width_px << ", sigma " << sigma << ", direction " << direction;
      }
}

/// 2 px at half resolution against the analytic answer over the bright ridge.
TEST_P(Vessels, RidgeAtHalfResolutionIsNear) {
  const Stream stream = this->stream();
  const int side = stream.on_cuda() ? 64 : 128, edge = 20;
  for (const double width_px : {1.0, 1.5, 2.5})
    for (const double direction : {0.0, 0.3, 0.785398}) {
      if (stream.on_cuda() && direction != 0.3) continue;
      const Ridge ridge{width_px, direction};
      VesselnessOptions options;
      options.noise_sd = 0.001f;
      options.min_scale_px = options.max_scale_px = 2;
      options.planes = VesselnessPlanes::ridge_and_scale;
      const HostMap map = compute(stream, ridge.image(side), options);
      const double sigma = 2, per_ridge = std::sqrt(3 / (16 * std::numbers::pi)) * options.noise_sd;
      ASSERT_EQ(map.ridge.height(), side / 2);
      double squares = 0;
      int count = 0;
      for (int y = edge; y < side - edge; y += 2)
        for (int x = edge; x < side - edge; x += 2) {
          const double u = ridge.distance(y, x, side);
          if (u * u > width_px * width_px + sigma * sigma) continue;
          squares += std::pow(map.ridge(y / 2, x / 2) * per_ridge - ridge.strength(u, sigma), 2);
          ++count;
        }
      ASSERT_GT(count, 10);
      EXPECT_LE(std::sqrt(squares / count) / ridge.strength(0, sigma), 0.1) << "width " << width_px << ", direction " << direction;
    }
}

/// At half resolution: every second pixel of the scales that are worked out at half resolution anyway, with the field and the weights of
/// those pixels.
TEST_P(Vessels, RidgeHoldsEverySecondPixel) {
  const Stream stream = this->stream();
  const int height = 65, width = 78;
  Image<float> image = Ridge{2.5, 0.4}.image(80), cut(height, width), weight(height, width);
  Image<std::uint8_t> valid = everywhere(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      cut(y, x) = image(y, x);
      weight(y, x) = 0.5f + 0.01f * static_cast<float>(x);
      valid(y, x) = y + x > 30;
    }
  const Image<float> device_weight = to_device(stream, weight.view());
  VesselnessOptions options;
  options.min_scale_px = 2.8f;
  options.planes = VesselnessPlanes::z_and_scale;
  options.noise_weight = device_weight.view();
  const HostMap full = compute(stream, cut, options, &valid);
  options.planes = VesselnessPlanes::ridge_and_scale;
  const HostMap half = compute(stream, cut, options, &valid);
  ASSERT_EQ(half.ridge.height(), 33);
  ASSERT_EQ(half.ridge.width(), 39);
  for (int y = 0; y < 33; ++y)
    for (int x = 0; x < 39; ++x) {
      const float z = full.z(2 * y, 2 * x);
      ASSERT_NEAR(half.ridge(y, x) * half.scale_px(y, x), z, 1e-5f * std::abs(z)) << y << ", " << x;
      ASSERT_EQ(half.scale_px(y, x), full.scale_px(2 * y, 2 * x)) << y << ", " << x;
    }
}

TEST_P(Vessels, DirectionScaleAndPeak) {
  const Stream stream = this->stream();
  const int side = 96;
  for (const double direction : {-1.2, -0.4, 0.0, 0.6, 1.5})
    for (const double width_px : {1.5, 2.0, 4.0}) {
      if (stream.on_cuda() && (direction != 0.6 || width_px != 2)) continue;
      const Ridge ridge{width_px, direction, 0.5};
      VesselnessOptions options;
      const HostMap map = compute(stream, ridge.image(side), options);
      float best = 0;
      for (const float sigma : vesselness_scales_px)
        if (sigma >= 2 && sigma <= 8 && (best == 0 || ridge.strength(0, sigma) > ridge.strength(0, best))) best = sigma;
      for (int y = 36; y < 60; ++y)
        for (int x = 36; x < 60; ++x) {
          if (std::abs(ridge.distance(y, x, side)) > 0.4) continue;
          const double off = std::remainder(map.angle(y, x) - direction, std::numbers::pi);
          ASSERT_LE(std::abs(off), 0.01) << "direction " << direction << ", width " << width_px;
          // Two neighbouring scales can be all but equal, and coarse levels decide for 2 x 2 pixels.
          const double chosen = map.scale_px(y, x);
          const double expected_z = chosen * ridge.strength(0, chosen) / (0.2443 * options.noise_sd);
          ASSERT_NEAR(map.z(y, x), expected_z, 0.1 * expected_z) << direction << ", " << width_px;
          ASSERT_GT(map.response(y, x), 0.9);
          ASSERT_GE(ridge.strength(0, chosen), 0.92 * ridge.strength(0, best)) << chosen << " instead of " << best;
        }
    }
}

TEST_P(Vessels, ConstantAndRampDoNotAnswer) {
  const Stream stream = this->stream();
  const int height = 110, width = 120;
  Image<float> constant(height, width), ramp(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) constant(y, x) = -5, ramp(y, x) = 0.02f * x - 0.03f * y;
  const HostMap flat = compute(stream, constant, {}), sloped = compute(stream, ramp, {});
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      ASSERT_LE(std::abs(flat.z(y, x)), 0.05) << y << ", " << x;
      ASSERT_LE(flat.response(y, x), 0.01) << y << ", " << x;
      if (y > 46 && y < height - 47 && x > 46 && x < width - 47) {
        ASSERT_LE(std::abs(sloped.z(y, x)), 0.05) << y << ", " << x;
      }
    }
}

/// A field on a slope, dark or broken outside: its edge is no vessel, and the vessel that runs out of it is one up to the edge.
TEST_P(Vessels, FieldEdgeDoesNotAnswerButVesselsThereDo) {
  const Stream stream = this->stream();
  const int side = stream.on_cuda() ? 80 : 240;
  const double radius = stream.on_cuda() ? 22 : 80, centre = side / 2;
  Image<float> empty(side, side), with_vessel(side, side);
  Image<std::uint8_t> valid(side, side);
  const Image<float> noise = test::random_image(side, side, -0.017f, 0.017f, 3);  // SD 0.01
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      valid(y, x) = std::hypot(y - centre, x - centre) < radius;
      const float outside = (x + y) % 7 ? 3.0f : std::numeric_limits<float>::quiet_NaN();
      empty(y, x) = valid(y, x) ? -2 + 0.01f * x - 0.004f * y + noise(y, x) : outside;
      const double u = (y - centre) / 2;
      with_vessel(y, x) = empty(y, x) + static_cast<float>(0.2 * std::exp(-0.5 * u * u));
    }
  VesselnessOptions options;
  if (stream.on_cuda()) options.max_scale_px = 4;
  const HostMap without = compute(stream, empty, options, &valid), with = compute(stream, with_vessel, options, &valid);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      ASSERT_LT(without.z(y, x), 6) << "false vessel at (" << y << ", " << x << "), " << radius - std::hypot(y - centre, x - centre)
                                    << " px inside";
      if (valid(y, x) && y == static_cast<int>(centre)) {
        ASSERT_GT(with.z(y, x), 10) << "lost at column " << x;
        ASSERT_GT(with.response(y, x), 0.6) << "lost at column " << x;
      }
    }
}

/// Mean of the positive part of sigma^2 times one eigenvalue is 0.2030 / 0.2443 of the SD of sigma^2 L_xx: what z must show in pure noise.
TEST_P(Vessels, NoiseIsCalibrated) {
  const Stream stream = this->stream();
  if (stream.on_cuda()) GTEST_SKIP() << "statistics are the CPU's task";
  const int side = 512;
  Image<float> white(side, side), box(side, side);
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 0.02f);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) white(y, x) = normal(random);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      float sum = 0;
      for (int j = -1; j <= 1; ++j)
        for (int i = -1; i <= 1; ++i) sum += white((y + j + side) % side, (x + i + side) % side);
      box(y, x) = sum / 3;  // SD 0.02 again
    }
  std::array<std::array<float, 5>, 5> correlated{};
  for (int j = -2; j <= 2; ++j)
    for (int i = -2; i <= 2; ++i) correlated[j + 2][i + 2] = (3 - std::abs(j)) * (3 - std::abs(i)) / 9.0f;
  for (const bool coloured : {false, true})
    for (int i = 0; i < vesselness_scale_count; ++i) {
      VesselnessOptions options;
      options.noise_sd = 0.02f;
      options.use_scale.fill(true);
      options.min_scale_px = options.max_scale_px = vesselness_scales_px[i];
      if (coloured) options.correlation_factor = correlation_factors(correlated);
      const HostMap map = compute(stream, coloured ? box : white, options);
      double sum = 0, count = 0, above = 0;
      const int step = i < 3 ? 1 : (i < 7 ? 2 : 4);
      for (int y = 32 / step * step; y < side - 32; y += step)
        for (int x = 32 / step * step; x < side - 32; x += step) {
          sum += std::max(map.z(y, x), 0.0f);
          above += map.z(y, x) > 5;
          count += 1;
        }
      // The larger the scale, the fewer independent places.
      EXPECT_NEAR(sum / count, 0.2030 / 0.2443, 0.01 + 0.006 * vesselness_scales_px[i])
          << "sigma " << vesselness_scales_px[i] << (coloured ? " coloured" : "");
      EXPECT_LE(above / count, 1e-4);
    }
}

TEST_P(Vessels, DefaultResponseFollowsTheContrastToNoiseRatioOnly) {
  const Stream stream = this->stream();
  const int height = 61, width = 83;
  const Image<float> image = busy_image(height, width);
  Image<float> scaled(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) scaled(y, x) = 4 * image(y, x);
  VesselnessOptions options, scaled_options;
  scaled_options.noise_sd = 4 * options.noise_sd;
  const HostMap a = compute(stream, image, options), b = compute(stream, scaled, scaled_options);
  test::expect_near(b.response.view(), a.response.view(), 1e-5);
  test::expect_near(b.z.view(), a.z.view(), 1e-4, 1e-5);
}

/// With nothing but noise-free ridges in view, the clutter is what the noise gives, not what the ridges' flanks give, if that is more.
TEST_P(Vessels, NoiseFloorsTheClutter) {
  const Stream stream = this->stream();
  const Image<float> image = Ridge{2, 0.5, 0.01}.image(96);
  VesselnessOptions quiet, noisy;
  quiet.noise_sd = 1e-5f;
  noisy.noise_sd = 1;
  EXPECT_GT(compute(stream, image, quiet).response(48, 48), 0.8);
  EXPECT_LT(compute(stream, image, noisy).response(48, 48), 0.01);
}

TEST_P(Vessels, ThreadsDoNotChangeABit) {
  const Stream stream = this->stream();
  if (stream.on_cuda()) GTEST_SKIP();
  const Image<float> image = busy_image(300, 410);
  const Image<std::uint8_t> valid = round_field(300, 410);
  CpuSchedule serial = stream.schedule();
  serial.parallel = false;
  const HostMap a = compute(stream, image, {}, &valid), b = compute(Stream::cpu(serial), image, {}, &valid);
  test::expect_near(a.response.view(), b.response.view(), 0);
  test::expect_near(a.z.view(), b.z.view(), 0);
  test::expect_near(a.angle.view(), b.angle.view(), 0);
}

/// The response alone is the same to the bit, of every measure, and the other planes stay as they are.
TEST_P(Vessels, ResponseAloneIsTheSame) {
  const Stream stream = this->stream();
  const int height = 70, width = 131;
  const Image<float> image = busy_image(height, width);
  const Image<std::uint8_t> valid = round_field(height, width);
  for (const auto response :
       {VesselnessResponse::noise_calibrated, VesselnessResponse::frangi, VesselnessResponse::sato, VesselnessResponse::jerman}) {
    VesselnessOptions options;
    options.response = response;
    const HostMap full = compute(stream, image, options, &valid);
    options.planes = VesselnessPlanes::response;
    VesselnessMap map = make_vesselness_map(stream, height, width);
    for (Image<float>* plane : {&map.z, &map.angle, &map.scale_px}) set_zero(stream, plane->view());
    const Image<float> input = to_device(stream, image.view());
    const Image<std::uint8_t> field = to_device(stream, valid.view());
    Vesselness vesselness(stream, field.view());
    vesselness.compute(stream, input, options, map);
    test::expect_near(to_host(stream, map.response.view()).view(), full.response.view(), 0);
    for (const Image<float>* plane : {&map.z, &map.angle, &map.scale_px}) {
      const Image<float> left = to_host(stream, plane->view());
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) ASSERT_EQ(left(y, x), 0);
    }
  }
}

TEST_P(Vessels, ArgumentsAreChecked) {
  const Stream stream = this->stream();
  EXPECT_THROW(Vesselness(stream, 0, 5), std::invalid_argument);
  Vesselness vesselness(stream, 8, 9);
  VesselnessMap map = make_vesselness_map(stream, 8, 9), small = make_vesselness_map(stream, 8, 8);
  Image<float> image(stream, 8, 9), wrong(stream, 9, 9);
  EXPECT_THROW(Vesselness(stream, ImageView<const std::uint8_t>{}), std::invalid_argument);
  set_zero(stream, image.view());
  EXPECT_NO_THROW(vesselness.compute(stream, image, {}, map));
  EXPECT_THROW(vesselness.compute(stream, wrong, {}, map), std::invalid_argument);
  EXPECT_THROW(vesselness.compute(stream, image, {}, small), std::invalid_argument);
  const auto refused = [&](auto change) {
    VesselnessOptions options;
    change(options);
    EXPECT_THROW(vesselness.compute(stream, image, options, map), std::invalid_argument);
  };
  refused([](VesselnessOptions& options) { options.noise_sd = 0; });
  refused([](VesselnessOptions& options) { options.planes = VesselnessPlanes::ridge_and_scale; });  // the map lacks it
  VesselnessOptions too_fine;
  too_fine.planes = VesselnessPlanes::ridge_and_scale;
  too_fine.min_scale_px = 1;
  VesselnessMap half = make_vesselness_map(stream, image.height(), image.width(), too_fine.planes);
  EXPECT_THROW(vesselness.compute(stream, image, too_fine, half), std::invalid_argument);
  refused([](VesselnessOptions& options) { options.noise_sd = std::numeric_limits<float>::quiet_NaN(); });
  refused([](VesselnessOptions& options) { options.correlation_factor[3] = -1; });
  refused([](VesselnessOptions& options) { options.min_scale_px = 12; });
  refused([](VesselnessOptions& options) { options.frangi_c = 0; });
  refused([](VesselnessOptions& options) { options.half_response_ratio = 0; });
  stream.synchronize();
}

CINELUMEN_ON_ALL_DEVICES(Vessels);

/// The factor by its definition: variance of the filtered noise as a double sum over the filter's taps.
TEST(CorrelationFactors, AreTheFiltersOwnVariance) {
  std::array<std::array<float, 5>, 5> correlated{}, white{};
  white[2][2] = 1;
  for (int j = -2; j <= 2; ++j)
    for (int i = -2; i <= 2; ++i)
      correlated[j + 2][i + 2] = 0.9f * std::exp(-0.4f * (i * i + 1.5f * j * j));  // anisotropic, not normalised
  const auto factors = correlation_factors(correlated);
  for (int s = 0; s < 7; ++s) {
    const double sigma = vesselness_scales_px[s];
    const int radius = static_cast<int>(std::ceil(6 * sigma)), n = 2 * radius + 1;
    std::vector<double> smooth(n), curve(n);
    for (int k = -radius; k <= radius; ++k) {
      smooth[k + radius] = std::exp(-0.5 * k * k / (sigma * sigma));
      curve[k + radius] = smooth[k + radius] * (k * k / (sigma * sigma) - 1);
    }
    // Separable filter, so the double sum over taps is a product of sums over their distance.
    const auto lagged = [&](const std::vector<double>& f, int lag) {
      double sum = 0;
      for (int k = 0; k < n; ++k)
        if (k + lag >= 0 && k + lag < n) sum += f[k] * f[k + lag];
      return sum;
    };
    double along_x = 0, along_y = 0;
    for (int j = -2; j <= 2; ++j)
      for (int i = -2; i <= 2; ++i) {
        along_x += correlated[j + 2][i + 2] / 0.9 * lagged(smooth, j) * lagged(curve, i);
        along_y += correlated[j + 2][i + 2] / 0.9 * lagged(curve, j) * lagged(smooth, i);
      }
    const double expected = std::sqrt(0.5 * (along_x + along_y) / (lagged(smooth, 0) * lagged(curve, 0)));
    EXPECT_NEAR(factors[s], expected, 0.006 * expected) << "sigma " << sigma;
  }
  for (const float factor : correlation_factors(white)) EXPECT_FLOAT_EQ(factor, 1);
  for (const float factor : correlation_factors({})) EXPECT_EQ(factor, 1) << "no estimate counts as white";
}

}  // namespace
}  // namespace cinelumen
