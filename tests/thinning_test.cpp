/// Thinning against its pixel-by-pixel twin, and what thinning must keep.

#include "kernels/thinning.h"

#include <gtest/gtest.h>

#include "reference/hysteresis.h"
#include "reference/thinning.h"
#include "support/devices.h"
#include "support/images.h"
#include "support/masks.h"

namespace cinelumen {
namespace {

class ThinningTest : public test::DeviceTest {};

Image<std::uint8_t> thin(const Stream& stream, const Image<std::uint8_t>& mask) {
  auto device = test::sub_view<std::uint8_t>(stream, mask.height(), mask.width());
  auto skeleton = test::sub_view<std::uint8_t>(stream, mask.height(), mask.width());
  copy<std::uint8_t>(stream, mask.view(), device.view);
  Thinning(stream, mask.height(), mask.width()).thin(device.view, skeleton.view);
  return to_host(stream, skeleton.view);
}

/// Number of 8-connected components, and of 4-connected components of the background inside a border of zeros.
std::pair<int, int> topology(const Image<std::uint8_t>& mask) {
  Image<std::uint8_t> background(mask.height() + 2, mask.width() + 2);
  for (int y = 0; y < background.height(); ++y)
    for (int x = 0; x < background.width(); ++x) {
      const bool inside = y > 0 && x > 0 && y <= mask.height() && x <= mask.width();
      background(y, x) = !(inside && mask(y - 1, x - 1));
    }
  Image<int> labels(mask.height(), mask.width()), background_labels(background.height(), background.width());
  return {static_cast<int>(reference::flood_fill(mask, true, labels).size()),
          static_cast<int>(reference::flood_fill(background, false, background_labels).size())};
}

TEST_P(ThinningTest, EqualsTheTwin) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : test::awkward_sizes()) {
    if (stream.on_cuda() && height * width > 5000) continue;
    for (const int blur_px : {1, 3}) {
      const Image<std::uint8_t> mask = test::random_blobs(height, width, blur_px, 5 + blur_px);
      test::expect_near(thin(stream, mask).view(), reference::guo_hall(mask).view(), 0);
    }
  }
}

TEST_P(ThinningTest, EqualsTheTwinOnThickFigures) {
  // Thick enough for several launches, wide enough for several tiles of words.
  const Stream stream = this->stream();
  Image<std::uint8_t> mask = test::figures(stream.on_cuda() ? 95 : 150, stream.on_cuda() ? 130 : 1500);
  for (int y = 20; y < 95; ++y)
    for (int x = 130; x < mask.width() - 10; ++x) mask(y, x) = (x / 40 + y / 30) % 3 != 0;
  test::expect_near(thin(stream, mask).view(), reference::guo_hall(mask).view(), 0);
}

TEST_P(ThinningTest, KeepsComponentsAndHoles) {
  const Stream stream = this->stream();
  std::vector<Image<std::uint8_t>> masks;
  masks.push_back(test::figures(95, 130));
  for (unsigned seed = 0; seed < (stream.on_cuda() ? 1u : 12u); ++seed)
    masks.push_back(test::random_blobs(70, 90, 1 + static_cast<int>(seed % 4), seed, 0.3 * (seed % 3) - 0.3));
  for (const Image<std::uint8_t>& mask : masks) {
    const Image<std::uint8_t> skeleton = thin(stream, mask);
    EXPECT_EQ(topology(skeleton), topology(mask));
    int before = 0, after = 0, added = 0;
    for (int y = 0; y < mask.height(); ++y)
      for (int x = 0; x < mask.width(); ++x) {
        before += mask(y, x);
        after += skeleton(y, x);
        added += skeleton(y, x) && !mask(y, x);
      }
    EXPECT_LT(after, before);
    EXPECT_EQ(added, 0);
  }
}

TEST_P(ThinningTest, StraightBarBecomesItsMiddleLine) {
  const Stream stream = this->stream();
  Image<std::uint8_t> mask(40, 100);
  for (int y = 0; y < 40; ++y)
    for (int x = 0; x < 100; ++x) mask(y, x) = y >= 10 && y < 21;
  const Image<std::uint8_t> skeleton = thin(stream, mask);
  for (int x = 10; x < 90; ++x)
    for (int y = 0; y < 40; ++y) EXPECT_EQ(skeleton(y, x), y == 15) << y << ", " << x;
}

TEST_P(ThinningTest, MaskAndSkeletonMayBeOneImage) {
  const Stream stream = this->stream();
  const Image<std::uint8_t> mask = test::random_blobs(33, 70, 2, 4);
  Image<std::uint8_t> device = to_device(stream, mask.view());
  Thinning(stream, 33, 70).thin(device.view(), device.view());
  test::expect_near(to_host(stream, device.view()).view(), reference::guo_hall(mask).view(), 0);
}

TEST_P(ThinningTest, RefusesWhatDoesNotFit) {
  const Stream stream = this->stream();
  Thinning thinning(stream, 8, 8);
  Image<std::uint8_t> right(stream, 8, 8), wrong(stream, 8, 9);
  EXPECT_THROW(thinning.thin(wrong.view(), wrong), std::invalid_argument);
  EXPECT_THROW(thinning.thin(right.view(), wrong), std::invalid_argument);
  Thinning(stream, 0, 0).thin({}, {});
}

CINELUMEN_ON_ALL_DEVICES(ThinningTest);

}  // namespace
}  // namespace cinelumen
