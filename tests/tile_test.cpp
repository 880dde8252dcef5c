/// The tile machinery itself: every pixel once, on every device; sums; errors.

#include "kernels/tile.h"

#include "support/devices.h"
#include "support/images.h"

namespace cinelumen {
namespace {

class Images : public test::DeviceTest {};

TEST_P(Images, RoundTripAndZero) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : test::awkward_sizes()) {
    const Image<float> host = test::random_image(height, width);
    auto device = test::sub_view<float>(stream, height, width);
    copy<float>(stream, host.view(), device.view);
    test::expect_near(to_host(stream, device.view).view(), host.view(), 0);
    set_zero(stream, device.view);
    const Image<float> zero = to_host(stream, device.view);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) ASSERT_EQ(zero(y, x), 0);
    const Image<float> whole = to_host(stream, device.whole.view());
    EXPECT_EQ(whole(0, 0), 7) << "set_zero must not touch what lies outside the view";
    EXPECT_EQ(whole(height + 4, width + 8), 7);
  }
}

TEST_P(Images, EmptyIsAllowed) {
  const Stream stream = this->stream();
  Image<float> empty(stream, 0, 5);
  EXPECT_TRUE(empty.empty());
  set_zero(stream, empty.view());
  EXPECT_THROW(Image<float>(stream, -1, 5), std::invalid_argument);
}

CINELUMEN_ON_ALL_DEVICES(Images);

TEST(Streams, MissingDeviceIsNamed) {
  try {
    Stream::cuda(99);
    FAIL() << "device 99 was accepted";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("CUDA"), std::string::npos) << error.what();
  }
}

TEST(ParallelFor, RunsEachOnceAndPassesExceptionsOn) {
  std::vector<int> count(1000, 0);
  parallel_for(1000, [&](int i) { ++count[i]; });
  EXPECT_EQ(count, std::vector<int>(1000, 1));
  EXPECT_THROW(parallel_for(10,
                            [](int i) {
                              if (i == 7) throw std::runtime_error("seven");
                            }),
               std::runtime_error);
}

}  // namespace
}  // namespace cinelumen
