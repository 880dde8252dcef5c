/// Cubic B-spline coefficients.

#include "kernels/bspline.h"

#include "reference/bspline.h"
#include "support/devices.h"
#include "support/images.h"

namespace cinelumen {
namespace {

class Bspline : public test::DeviceTest {};

TEST_P(Bspline, MatchesRecursiveFilter) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : test::awkward_sizes()) {
    const Image<float> host = test::random_image(height, width, -1, 3);
    auto input = test::sub_view<float>(stream, height, width);
    auto output = test::sub_view<float>(stream, height, width);
    copy<float>(stream, host.view(), input.view);
    bspline_coefficients(stream, input.view, output.view);
    // Up to 9 times the range: the inverse filter's gain at the highest frequency.
    test::expect_near(to_host(stream, output.view).view(), reference::bspline_coefficients(host.view()).view(), 2e-5);
    EXPECT_EQ(to_host(stream, output.whole.view())(1, 3), 7) << "wrote outside the view";
  }
}

TEST_P(Bspline, SurfacePassesThroughPixels) {
  const Stream stream = this->stream();
  const Image<float> host = test::random_image(21, 34);
  const Image<float> input = to_device(stream, host.view());
  Image<float> output(stream, 21, 34);
  bspline_coefficients(stream, input, output);
  const Image<float> found = to_host(stream, output.view());
  Image<double> coefficients(21, 34);
  for (int y = 0; y < 21; ++y)
    for (int x = 0; x < 34; ++x) coefficients(y, x) = found(y, x);
  for (int y = 0; y < 21; ++y)
    for (int x = 0; x < 34; ++x) ASSERT_NEAR(reference::bspline_at(coefficients.view(), y, x), host(y, x), 3e-6);
}

TEST_P(Bspline, ChecksArguments) {
  const Stream stream = this->stream();
  Image<float> a(stream, 4, 5), b(stream, 5, 4);
  EXPECT_THROW(bspline_coefficients(stream, a, b), std::invalid_argument);
}

CINELUMEN_ON_ALL_DEVICES(Bspline);

}  // namespace
}  // namespace cinelumen
