#pragma once
/// Random images and comparisons for kernel tests.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>

#include "kernels/image.h"

namespace cinelumen::test {

/// Host image of uniform numbers in [low, high).
inline Image<float> random_image(int height, int width, float low = 0, float high = 1, unsigned seed = 1) {
  Image<float> image(height, width);
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(low, high);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) image(y, x) = uniform(random);
  return image;
}

/// A pitched sub-view of a larger device image, and the image that keeps it alive; the margin is filled with `margin`.
template <class T>
struct SubView {
  static constexpr int top = 2;
  /// Odd, so that nothing is aligned; for bytes on a 4-byte word, since race checkers watch whole words and blocks meet at multiples of 4.
  static constexpr int left = sizeof(T) == 1 ? 4 : 3;
  Image<T> whole;
  ImageView<T> view;
};
template <class T>
SubView<T> sub_view(const Stream& stream, int height, int width, T margin = T(7)) {
  Image<T> host(height + 5, width + 9);
  for (int y = 0; y < host.height(); ++y)
    for (int x = 0; x < host.width(); ++x) host(y, x) = margin;
  SubView<T> result{to_device(stream, host.view()), {}};
  stream.synchronize();
  result.view = result.whole.view().part(SubView<T>::top, SubView<T>::left, height, width);
  return result;
}

/// Fails unless the host images agree within absolute + relative tolerance at every pixel; names the first that does not.
template <class A, class B>
void expect_near(ImageView<A> actual, ImageView<B> expected, double absolute, double relative = 0) {
  ASSERT_EQ(actual.height, expected.height);
  ASSERT_EQ(actual.width, expected.width);
  for (int y = 0; y < actual.height; ++y)
    for (int x = 0; x < actual.width; ++x) {
      const double a = actual(y, x), e = expected(y, x);
      ASSERT_LE(std::abs(a - e), absolute + relative * std::abs(e)) << "at (" << y << ", " << x << "): " << a << ", expected " << e;
    }
}

}  // namespace cinelumen::test
