/// Components against flood fill: same labels, same order, on every device.

#include "kernels/hysteresis.h"

#include <gtest/gtest.h>

#include <limits>

#include "reference/hysteresis.h"
#include "support/devices.h"
#include "support/images.h"
#include "support/masks.h"

namespace cinelumen {
namespace {

class HysteresisTest : public test::DeviceTest {};

/// Masks that are hard for run union-find: blobs, pixel noise at the percolation density, combs and a spiral that unite late.
std::vector<Image<std::uint8_t>> hard_masks(int height, int width) {
  std::vector<Image<std::uint8_t>> masks;
  masks.push_back(test::random_blobs(height, width, 2, 3));
  for (const double density : {0.1, 0.41, 0.6, 0.97}) {
    const Image<float> noise = test::random_image(height, width, 0, 1, 17);
    Image<std::uint8_t> mask(height, width);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) mask(y, x) = noise(y, x) < density ? 255 : 0;
    masks.push_back(std::move(mask));
  }
  Image<std::uint8_t> comb(height, width), full(height, width), spiral(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      comb(y, x) = x % 2 == 0 || y == height - 1;
      full(y, x) = 1;
      const int ring = std::min(std::min(y, x), std::min(height - 1 - y, width - 1 - x));
      spiral(y, x) = ring % 2 == 0 && !(y == ring + 1 && x == ring);
    }
  masks.push_back(std::move(comb));
  masks.push_back(std::move(full));
  masks.push_back(std::move(spiral));
  return masks;
}

TEST_P(HysteresisTest, LabelsAreThoseOfFloodFill) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : test::awkward_sizes()) {
    if (stream.on_cuda() && height * width > 2500) continue;
    Hysteresis hysteresis(stream, height, width);
    for (const Image<std::uint8_t>& mask : hard_masks(height, width)) {
      auto device_mask = test::sub_view<std::uint8_t>(stream, height, width);
      auto device_labels = test::sub_view<int>(stream, height, width, -5);
      copy<std::uint8_t>(stream, mask.view(), device_mask.view);
      const int count = hysteresis.label(device_mask.view, device_labels.view);
      Image<int> expected(height, width);
      const auto components = reference::flood_fill(mask, true, expected);
      EXPECT_EQ(count, static_cast<int>(components.size()));
      test::expect_near(to_host(stream, device_labels.view).view(), expected.view(), 0);
      const Image<int> whole = to_host(stream, device_labels.whole.view());
      EXPECT_EQ(whole(2, device_labels.left - 1), -5) << "wrote left of the view";
      EXPECT_EQ(whole(2, device_labels.left + width), -5) << "wrote right of the view";
    }
  }
}

TEST_P(HysteresisTest, KeepsWhatHasAHighPixelAndIsLargeEnough) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : test::awkward_sizes()) {
    if (stream.on_cuda() && height * width > 2500) continue;
    Image<float> z = test::random_image(height, width, -3, 6, 5);
    Image<std::uint8_t> valid(height, width), low(height, width), high(height, width);
    const HysteresisOptions options{.low = 3.2f, .high = 5.7f, .minimum_area_px = 4, .minimum_length_px = 4.3f};
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        valid(y, x) = (x + 2 * y) % 11 != 0 ? 3 : 0;
        if ((x * 7 + y) % 29 == 0) z(y, x) = std::numeric_limits<float>::quiet_NaN();
        low(y, x) = valid(y, x) && z(y, x) >= options.low;
        high(y, x) = valid(y, x) && z(y, x) >= options.high;
      }
    Image<int> all(height, width);
    const auto components = reference::flood_fill(low, true, all, high);
    std::vector<int> number(components.size() + 1, 0);
    int kept = 0;
    for (std::size_t i = 0; i < components.size(); ++i)
      if (components[i].has_high && components[i].area >= 4 && components[i].length() >= 4.3) number[i + 1] = ++kept;
    if (height * width > 2000) {
      ASSERT_GT(kept, 3);
      ASSERT_LT(kept, static_cast<int>(components.size()) / 2);
    }
    Image<std::uint8_t> expected_mask(height, width);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        all(y, x) = number[all(y, x)];
        expected_mask(y, x) = all(y, x) > 0;
      }
    Hysteresis hysteresis(stream, height, width);
    const auto device_z = to_device(stream, z.view());
    const auto device_valid = to_device(stream, valid.view());
    auto mask = test::sub_view<std::uint8_t>(stream, height, width);
    auto labels = test::sub_view<int>(stream, height, width);
    EXPECT_EQ(hysteresis.segment(device_z, device_valid, options, mask.view, labels.view), kept);
    test::expect_near(to_host(stream, mask.view).view(), expected_mask.view(), 0);
    test::expect_near(to_host(stream, labels.view).view(), all.view(), 0);
  }
}

TEST_P(HysteresisTest, BothGatesMustBePassed) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : test::awkward_sizes()) {
    const Image<float> z = test::random_image(height, width, 0, 1, 5), other = test::random_image(height, width, 0, 1, 6);
    Image<BitWord> low(stream, height, words_per_row(width)), high(stream, height, words_per_row(width));
    const auto device_z = to_device(stream, z.view());
    const auto device_other = to_device(stream, other.view());
    pack_thresholds(stream, device_z, {}, 0.3f, 0.6f, low, high, device_other, 0.4f, 0.7f);
    const Image<BitWord> host_low = to_host(stream, low.view()), host_high = to_host(stream, high.view());
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        ASSERT_EQ(host_low(y, x / 64) >> (x % 64) & 1, z(y, x) >= 0.3f && other(y, x) >= 0.4f);
        ASSERT_EQ(host_high(y, x / 64) >> (x % 64) & 1, z(y, x) >= 0.6f && other(y, x) >= 0.7f);
      }
  }
}

TEST_P(HysteresisTest, FillsSmallHolesOnly) {
  const Stream stream = this->stream();
  const int height = stream.on_cuda() ? 40 : 97, width = stream.on_cuda() ? 70 : 211;
  for (const int maximum : {0, 1, 6, 40, 100000}) {
    const Image<std::uint8_t> mask = test::random_blobs(height, width, 1, 21, -0.6);
    Image<std::uint8_t> background(height, width), expected(height, width);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) background(y, x) = !mask(y, x);
    Image<int> labels(height, width);
    const auto holes = reference::flood_fill(background, false, labels);
    int count = 0;
    for (const auto& hole : holes)
      count += hole.area <= maximum && hole.top > 0 && hole.left > 0 && hole.bottom < height - 1 && hole.right < width - 1;
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        expected(y, x) = mask(y, x);
        if (labels(y, x)) {
          const auto& hole = holes[labels(y, x) - 1];
          if (hole.area <= maximum && hole.top > 0 && hole.left > 0 && hole.bottom < height - 1 && hole.right < width - 1)
            expected(y, x) = 1;
        }
      }
    ASSERT_EQ(count > 0, maximum > 0);
    Hysteresis hysteresis(stream, height, width);
    auto device = test::sub_view<std::uint8_t>(stream, height, width);
    copy<std::uint8_t>(stream, mask.view(), device.view);
    EXPECT_EQ(hysteresis.fill_holes(device.view, maximum, device.view), count);
    test::expect_near(to_host(stream, device.view).view(), expected.view(), 0);
  }
}

TEST_P(HysteresisTest, BitsRoundTrip) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : test::awkward_sizes()) {
    const Image<std::uint8_t> mask = test::random_blobs(height, width, 1, 9);
    auto device = test::sub_view<std::uint8_t>(stream, height, width);
    copy<std::uint8_t>(stream, mask.view(), device.view);
    Image<BitWord> bits(stream, height, words_per_row(width));
    pack_bits(stream, device.view, bits);
    const Image<BitWord> host = to_host(stream, bits.view());
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) ASSERT_EQ(host(y, x / 64) >> (x % 64) & 1, mask(y, x));
      ASSERT_EQ(width % 64 ? host(y, host.width() - 1) >> (width % 64) : 0, 0u) << "bits beyond the width";
    }
    auto back = test::sub_view<std::uint8_t>(stream, height, width);
    unpack_bits(stream, bits, back.view);
    test::expect_near(to_host(stream, back.view).view(), mask.view(), 0);
    const Image<std::uint8_t> whole = to_host(stream, back.whole.view());
    EXPECT_EQ(whole(2, back.left + width), 7) << "wrote right of the view";
  }
}

TEST_P(HysteresisTest, RefusesWhatDoesNotFit) {
  const Stream stream = this->stream();
  Hysteresis hysteresis(stream, 8, 70);
  Image<std::uint8_t> mask(stream, 8, 70), small(stream, 8, 69);
  Image<int> labels(stream, 8, 70);
  Image<float> z(stream, 8, 70);
  EXPECT_THROW(hysteresis.label(small.view(), labels), std::invalid_argument);
  EXPECT_THROW(hysteresis.fill_holes(mask.view(), 3, small), std::invalid_argument);
  EXPECT_THROW(hysteresis.segment(z.view(), small.view(), {}, mask), std::invalid_argument);
  EXPECT_THROW(hysteresis.segment(z.view(), mask.view(), {.low = 5, .high = 2}, mask), std::invalid_argument);
  Hysteresis empty(stream, 0, 0);
  EXPECT_EQ(empty.label({}, {}), 0);
}

CINELUMEN_ON_ALL_DEVICES(HysteresisTest);

}  // namespace
}  // namespace cinelumen
