/// Subtraction of a bent mask against what it must be where the bending is known.

#include "kernels/warped_subtract.h"

#include <algorithm>
#include <cmath>

#include "kernels/bspline.h"
#include "kernels/log_subtract.h"
#include "support/devices.h"

namespace cinelumen {
namespace {

class WarpedSubtract : public test::DeviceTest {};

double scene(double y, double x) { return 1 + 0.3 * std::sin(x / 5.3) * std::cos(y / 6.1) + 0.1 * std::sin((x + y) / 4.2); }

constexpr int height = 70, width = 150;

Image<float> image_of(double dy, double dx) {
  Image<float> image(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) image(y, x) = static_cast<float>(scene(y + dy, x + dx));
  return image;
}

/// A field of one displacement everywhere.
Image<float> constant_field(const Stream& stream, float dy, float dx) {
  Image<float> host(2 * field_nodes(height), field_nodes(width));
  for (int j = 0; j < host.height(); ++j) std::fill_n(host.row(j), host.width(), j < host.height() / 2 ? dy : dx);
  Image<float> field = to_device(stream, host.view());
  stream.synchronize();
  return field;
}

struct Prepared {
  Image<std::uint16_t> stored;
  Array<float> table;
  Image<float> coefficients, bordered;
  Image<std::uint8_t> valid;
  StoredFrame frame() const { return {stored.view(), table.view()}; }
};

/// The scene as mask, and moved as frame.
Prepared prepare(const Stream& stream, double dy, double dx) {
  const Image<float> mask_host = image_of(0, 0), frame_host = image_of(dy, dx);
  Image<std::uint16_t> stored(height, width);
  Image<std::uint8_t> valid(height, width);
  Array<float> table(65536);
  for (int i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i) / 30000;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      stored(y, x) = static_cast<std::uint16_t>(std::lround(30000 * frame_host(y, x)));
      valid(y, x) = y == 40 && x == 100 ? 0 : 1;
    }
  Prepared result{to_device(stream, stored.view()),
                  Array<float>(stream, table.size()),
                  Image<float>(stream, height, width),
                  {},
                  to_device(stream, valid.view())};
  copy<float>(stream, table, result.table);
  const Image<float> mask = to_device(stream, mask_host.view());
  bspline_coefficients(stream, mask, result.coefficients);
  result.bordered = bordered_coefficients(stream, result.coefficients.view());
  stream.synchronize();
  return result;
}

TEST_P(WarpedSubtract, WithoutABendItIsLogSubtract) {
  const Stream stream = this->stream();
  const Prepared with = prepare(stream, 0.3, -0.4);
  const FramePlacement placement{{1.2f, -2.4f, 0.01f}, 0.02f};
  Image<float> rigid(stream, height, width), warped(stream, height, width);
  log_subtract(stream, with.frame(), with.coefficients.view(), with.valid.view(), placement, rigid);
  const Image<float> field = constant_field(stream, 0, 0);
  log_subtract_warped(stream, with.frame(), with.bordered.view(), with.valid.view(), placement, field.view(), warped);
  const Image<float> a = to_host(stream, rigid.view()), b = to_host(stream, warped.view());
  int reached = 0;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      if (b(y, x) == 0) continue;  // outside, or the invalid pixel
      ASSERT_NEAR(a(y, x), b(y, x), 1e-4) << y << ", " << x;
      ++reached;
    }
  EXPECT_GT(reached, 0.9 * height * width);
  EXPECT_EQ(b(40, 100), 0);
}

TEST_P(WarpedSubtract, AKnownDisplacementLeavesNothing) {
  const Stream stream = this->stream();
  const Prepared with = prepare(stream, 1.3, -2.6);
  Image<float> warped(stream, height, width);
  const Image<float> field = constant_field(stream, 1.3f, -2.6f);
  log_subtract_warped(stream, with.frame(), with.bordered.view(), with.valid.view(), FramePlacement{}, field.view(), warped);
  const Image<float> left = to_host(stream, warped.view());
  for (int y = 8; y < height - 8; ++y)
    for (int x = 8; x < width - 8; ++x) ASSERT_NEAR(left(y, x), 0, 5e-4) << y << ", " << x;
  EXPECT_EQ(left(height - 1, 80), 0) << "the mask does not reach there";
  // The mask's invalid pixel is read 1.3 px up and 2.6 px right of where it is shown.
  EXPECT_EQ(left(39, 103), 0);
}

TEST_P(WarpedSubtract, ABendThatVariesIsFollowed) {
  const Stream stream = this->stream();
  const auto bend = [](double y, double x) { return 0.8 * std::sin(x / 40) * std::cos(y / 35); };
  // Nodes hold coefficients: of so smooth a bend nearly its values.
  Image<float> nodes(field_nodes(height), field_nodes(width)), host(2 * field_nodes(height), field_nodes(width));
  for (int j = 0; j < nodes.height(); ++j)
    for (int i = 0; i < nodes.width(); ++i) nodes(j, i) = static_cast<float>(bend((j - 1) * 16, (i - 1) * 16));
  Image<float> coefficients(nodes.height(), nodes.width());
  bspline_coefficients(Stream::cpu(), nodes, coefficients);
  for (int j = 0; j < host.height(); ++j)
    for (int i = 0; i < host.width(); ++i) host(j, i) = j < nodes.height() ? coefficients(j, i) : 0;
  const Image<float> field = to_device(stream, host.view());
  Prepared with = prepare(stream, 0, 0);
  Image<std::uint16_t> stored(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) stored(y, x) = static_cast<std::uint16_t>(std::lround(30000 * scene(y + bend(y, x), x)));
  with.stored = to_device(stream, stored.view());
  Image<float> warped(stream, height, width);
  log_subtract_warped(stream, with.frame(), with.bordered.view(), with.valid.view(), FramePlacement{}, field.view(), warped);
  const Image<float> left = to_host(stream, warped.view());
  for (int y = 20; y < height - 20; ++y)
    for (int x = 20; x < width - 20; ++x) ASSERT_NEAR(left(y, x), 0, 1e-3) << y << ", " << x;
}

TEST_P(WarpedSubtract, CarriesOntoTheMask) {
  const Stream stream = this->stream();
  const Image<float> host = image_of(0, 0), image = to_device(stream, host.view());
  Image<float> coefficients(stream, height, width), carried(stream, height, width), sharp(stream, height, width);
  bspline_coefficients(stream, image, coefficients);
  const Image<float> field = constant_field(stream, 0.7f, -1.4f);
  const FramePlacement placement{{2.0f, 0.5f, 0}, 0};
  carry_onto_mask(stream, image.view(), placement, field.view(), carried);
  warp_onto_mask(stream, coefficients.view(), placement, field.view(), sharp);
  const Image<float> a = to_host(stream, carried.view()), b = to_host(stream, sharp.view());
  for (int y = 8; y < height - 8; ++y)
    for (int x = 8; x < width - 8; ++x) {
      ASSERT_NEAR(a(y, x), scene(y + 2.7, x - 0.9), 4e-3) << y << ", " << x;
      ASSERT_NEAR(b(y, x), scene(y + 2.7, x - 0.9), 5e-4) << y << ", " << x;
    }
  EXPECT_EQ(a(height - 1, 60), 0);
  EXPECT_EQ(b(height - 1, 60), 0);
}

TEST_P(WarpedSubtract, WrongSizesAreRefused) {
  const Stream stream = this->stream();
  const Prepared with = prepare(stream, 0, 0);
  Image<float> result(stream, height, width), small(stream, height, width - 1), field = constant_field(stream, 0, 0);
  const FramePlacement at{};
  EXPECT_THROW(log_subtract_warped(stream, with.frame(), with.coefficients.view(), with.valid.view(), at, field.view(), result),
               std::invalid_argument);
  EXPECT_THROW(log_subtract_warped(stream, with.frame(), with.bordered.view(), with.valid.view(), at, small.view(), result),
               std::invalid_argument);
  EXPECT_THROW(log_subtract_warped(stream, with.frame(), with.bordered.view(), with.valid.view(), at, field.view(), small),
               std::invalid_argument);
  EXPECT_THROW(carry_onto_mask(stream, result.view(), at, field.view(), small), std::invalid_argument);
  EXPECT_THROW(warp_onto_mask(stream, result.view(), at, small.view(), result), std::invalid_argument);
}
CINELUMEN_ON_ALL_DEVICES(WarpedSubtract);

}  // namespace
}  // namespace cinelumen
