/// The polynomials of math.h against the C++ library in double precision, at the errors they state.

#include "kernels/math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace cinelumen {
namespace {

TEST(Math, Exponential) {
  for (double x = -86; x < 87; x += 0.00371) {
    const double expected = std::exp(static_cast<double>(static_cast<float>(x)));
    ASSERT_NEAR(fast_exp(static_cast<float>(x)), expected, 2e-7 * expected) << x;
  }
  EXPECT_FLOAT_EQ(fast_exp(-1000), fast_exp(-87));
  EXPECT_FLOAT_EQ(fast_exp(1000), fast_exp(88));
}

TEST(Math, Logarithm) {
  for (double exponent = -37; exponent < 38; exponent += 0.00217) {
    const float x = static_cast<float>(std::pow(10, exponent));
    const double expected = std::log(static_cast<double>(x));
    ASSERT_NEAR(fast_log(x), expected, 2e-7 * std::max(1.0, std::abs(expected))) << x;
  }
  EXPECT_FLOAT_EQ(fast_log(0), fast_log(1.17549435e-38f));
}

TEST(Math, ArcTangent) {
  for (const double radius : {1e-18, 1e-3, 1.0, 1e12})
    for (double angle = -3.1415; angle < 3.1415; angle += 0.00037) {
      const float y = static_cast<float>(radius * std::sin(angle)), x = static_cast<float>(radius * std::cos(angle));
      ASSERT_NEAR(fast_atan2(y, x), std::atan2(static_cast<double>(y), static_cast<double>(x)), 4e-7) << angle << ", " << radius;
    }
  EXPECT_EQ(fast_atan2(0, 0), 0);
  EXPECT_FLOAT_EQ(fast_atan2(0, -1), static_cast<float>(std::numbers::pi));
  EXPECT_FLOAT_EQ(fast_atan2(-0.0f, -1), static_cast<float>(std::numbers::pi)) << "the range is (-pi, pi]";
}

TEST(Math, Mirror) {
  const int expected[] = {2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1};
  for (int i = -4; i < 8; ++i) EXPECT_EQ(mirror(i, 4), expected[i + 4]) << i;
  EXPECT_EQ(mirror(-3, 1), 0);
}

}  // namespace
}  // namespace cinelumen
