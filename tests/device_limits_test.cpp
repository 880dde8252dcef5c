/// The yardstick does what it says: a copy copies, and the chains are all computed.

#include "kernels/device_limits.h"

#include "support/devices.h"
#include "support/images.h"

namespace cinelumen {
namespace {

class DeviceLimits : public test::DeviceTest {};

TEST_P(DeviceLimits, CopyIsExact) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : test::awkward_sizes()) {
    const Image<float> host = test::random_image(height, width);
    const Image<float> from = to_device(stream, host.view());
    auto to = test::sub_view<float>(stream, height, width);
    copy_plane(stream, from, to.view);
    test::expect_near(to_host(stream, to.view).view(), host.view(), 0);
    EXPECT_EQ(to_host(stream, to.whole.view())(1, 2), 7) << "written outside the view";
  }
  Image<float> a(stream, 3, 4), b(stream, 3, 5);
  EXPECT_THROW(copy_plane(stream, a, b), std::invalid_argument);
}

TEST_P(DeviceLimits, ChainsAreAllComputed) {
  const Stream stream = this->stream();
  const float factor = 0.9f, term = 0.01f;
  for (const int rounds : {0, 1, 3}) {
    double expected = 0;
    for (int round = 0; round < rounds; ++round) {
      double sum = 0;
      for (int chain = 0; chain < 8; ++chain) {
        double x = expected + chain;
        for (int i = 0; i < multiply_adds_per_round / 8; ++i) x = x * double(factor) + double(term);
        sum += x;
      }
      expected = sum;
    }
    auto output = test::sub_view<float>(stream, 17, 65);
    multiply_add_chains(stream, rounds, factor, term, output.view);
    const Image<float> host = to_host(stream, output.view);
    for (int y = 0; y < 17; ++y)
      for (int x = 0; x < 65; ++x) ASSERT_NEAR(host(y, x), expected, 1e-5 * expected) << "rounds " << rounds;
  }
  Image<float> output(stream, 2, 2);
  EXPECT_THROW(multiply_add_chains(stream, -1, factor, term, output), std::invalid_argument);
}

CINELUMEN_ON_ALL_DEVICES(DeviceLimits);

}  // namespace
}  // namespace cinelumen
