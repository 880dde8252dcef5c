/// Non-rigid registration on scenes that are bent by a formula.

#include "kernels/warp_registration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "kernels/mask_registration.h"
#include "reference/mask_registration.h"
#include "support/devices.h"

namespace cinelumen {
namespace {

class WarpRegistrationTest : public test::DeviceTest {};

using Field = std::function<std::array<double, 2>(double, double)>;

constexpr float step = 1e-4f;  // of the table
constexpr int zero = 20000;

/// A frame of the scene whose pixel q shows the mask's R^-1 q + d(q), with noise.
Image<std::uint16_t> bent_frame(const reference::Scene& scene, int side, const RigidMotion& rigid, const Field& d, double noise,
                                bool vessels, unsigned seed) {
  Image<std::uint16_t> stored(side, side);
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, noise);
  const RigidMotion back = inverse(rigid);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      const PixelPosition p = move(back, {static_cast<double>(y), static_cast<double>(x)}, side, side);
      const auto e = d(y, x);
      const double value = scene.background(p.y + e[0], p.x + e[1]) + (vessels ? scene.contrast(y, x) : 0) + normal(random);
      stored(y, x) = static_cast<std::uint16_t>(std::clamp(std::lround(value / step) + zero, 0L, 65535L));
    }
  return stored;
}

Array<float> straight_table() {
  Array<float> table(65536);
  for (int i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i - zero) * step;
  return table;
}

struct Found {
  RigidMotion rigid;
  Image<float> to_mask, to_frame;  // host
  WarpEstimate estimate;
};

/// Rigid motion, then what it leaves.
Found find(const Stream& stream, const Image<float>& mask_host, const Image<std::uint16_t>& stored_host) {
  const int side = mask_host.height();
  Image<std::uint8_t> valid_host(side, side);
  for (int y = 0; y < side; ++y) std::fill_n(valid_host.row(y), side, std::uint8_t{1});
  const Array<float> table_host = straight_table();
  Array<float> table(stream, table_host.size());
  copy<float>(stream, table_host, table);
  const Image<float> mask = to_device(stream, mask_host.view());
  const Image<std::uint8_t> valid = to_device(stream, valid_host.view());
  const Image<std::uint16_t> stored = to_device(stream, stored_host.view());
  stream.synchronize();
  MaskRegistration rigid(stream, mask, valid);
  WarpRegistration first(stream, mask, valid), warp = first.another(stream);
  Array<RigidEstimate> estimate(stream, 1);
  Array<FramePlacement> placement(stream, 1);
  Array<WarpEstimate> bent(stream, 1);
  Image<float> to_mask = make_displacement_field(stream, side, side), to_frame = make_displacement_field(stream, side, side);
  const StoredFrame frame{stored.view(), table.view()};
  rigid.enqueue(stream, frame, estimate, placement);
  warp.enqueue(stream, frame, placement, to_mask, to_frame, bent);
  Array<FramePlacement> placement_host = Array<FramePlacement>::staging(stream, 1);
  Array<WarpEstimate> bent_host = Array<WarpEstimate>::staging(stream, 1);
  copy<FramePlacement>(stream, placement, placement_host);
  copy<WarpEstimate>(stream, bent, bent_host);
  Found found{{}, to_host(stream, to_mask.view()), to_host(stream, to_frame.view()), {}};
  found.rigid = placement_host[0].motion;
  found.estimate = bent_host[0];
  return found;
}

/// Where a frame's pixel lies in the mask, as found.
PixelPosition place(const Found& found, double y, double x, int side) {
  const PixelPosition p = move(inverse(found.rigid), {y, x}, side, side);
  const Displacement d = displacement_at(found.to_mask.view(), static_cast<float>(y), static_cast<float>(x));
  return {p.y + d.y, p.x + d.x};
}

/// Of places in the mask, across the edges of the scene there: along them a straight edge says nothing.
struct Errors {
  double rms_px = 0, rigid_rms_px = 0;
};
Errors across_edges(const reference::Scene& scene, const Found& found, const RigidMotion& rigid, const Field& d, int side) {
  double sum = 0, of_rigid = 0;
  int count = 0;
  const RigidMotion back = inverse(rigid), found_back = inverse(found.rigid);
  for (int y = 12; y < side - 12; ++y)
    for (int x = 12; x < side - 12; ++x) {
      PixelPosition truth = move(back, {static_cast<double>(y), static_cast<double>(x)}, side, side);
      const auto e = d(y, x);
      truth = {truth.y + e[0], truth.x + e[1]};
      const double gy = (scene.background(truth.y + 1, truth.x) - scene.background(truth.y - 1, truth.x)) / 2,
                   gx = (scene.background(truth.y, truth.x + 1) - scene.background(truth.y, truth.x - 1)) / 2, g = std::hypot(gy, gx);
      if (g < 0.05) continue;
      const PixelPosition p = place(found, y, x, side), r = move(found_back, {static_cast<double>(y), static_cast<double>(x)}, side, side);
      sum += std::pow(((p.y - truth.y) * gy + (p.x - truth.x) * gx) / g, 2);
      of_rigid += std::pow(((r.y - truth.y) * gy + (r.x - truth.x) * gx) / g, 2);
      ++count;
    }
  return {std::sqrt(sum / count), std::sqrt(of_rigid / count)};
}

Field waves(double amplitude, double side) {
  return [=](double y, double x) -> std::array<double, 2> {
    return {amplitude * std::sin(7 * x / side + 1) * std::cos(5 * y / side),
            amplitude * std::cos(6 * x / side) * std::sin(6 * y / side + 2)};
  };
}

const RigidMotion moved{1.3f, -0.7f, 0.001f};

TEST(WarpRegistration, FindsWhatARigidMotionLeaves) {
  constexpr int side = 400;
  const Stream stream = Stream::cpu();
  for (const unsigned seed : {611u, 612u, 613u}) {
    const reference::Scene scene(side, seed);
    const Field d = waves(1, side);
    const Image<float> mask = scene.frame({}, 0.0035, false, seed);
    for (const bool vessels : {false, true}) {
      const Found found = find(stream, mask, bent_frame(scene, side, moved, d, 0.01, vessels, seed + 1));
      const Errors errors = across_edges(scene, found, moved, d, side);
      EXPECT_EQ(found.estimate.usable, 1);
      EXPECT_EQ(found.estimate.folded, 0);
      EXPECT_LT(errors.rms_px, 0.15) << "seed " << seed << ", vessels " << vessels << ", rigid " << errors.rigid_rms_px;
      EXPECT_LT(errors.rms_px, 0.3 * errors.rigid_rms_px) << "seed " << seed << ", vessels " << vessels;
    }
  }
}

TEST(WarpRegistration, WhatDidNotBendStaysAsItIs) {
  constexpr int side = 400;
  const reference::Scene scene(side, 621);
  const Field none = [](double, double) -> std::array<double, 2> { return {0, 0}; };
  const Found found = find(Stream::cpu(), scene.frame({}, 0.0035, false, 1), bent_frame(scene, side, moved, none, 0.01, true, 2));
  EXPECT_LT(across_edges(scene, found, moved, none, side).rms_px, 0.03);
  EXPECT_LT(found.estimate.rms_px, 0.25);
  EXPECT_LT(found.estimate.residual_px, 0.03);
  EXPECT_GT(found.estimate.least_determinant, 0.97);
}

// The bias of a vessel that fills: the same frame, noise and all, with and without contrast.
TEST(WarpRegistration, ContrastMovesItByLittle) {
  constexpr int side = 400;
  double sum = 0;
  int count = 0;
  for (const unsigned seed : {631u, 632u, 633u}) {
    const reference::Scene scene(side, seed);
    const Field d = waves(1, side);
    const Image<float> mask = scene.frame({}, 0.0035, false, seed);
    const Found without = find(Stream::cpu(), mask, bent_frame(scene, side, moved, d, 0.01, false, seed + 1)),
                with = find(Stream::cpu(), mask, bent_frame(scene, side, moved, d, 0.01, true, seed + 1));
    for (int y = 12; y < side - 12; y += 2)
      for (int x = 12; x < side - 12; x += 2) {
        const PixelPosition a = place(without, y, x, side), b = place(with, y, x, side);
        const double gy = (scene.background(a.y + 1, a.x) - scene.background(a.y - 1, a.x)) / 2,
                     gx = (scene.background(a.y, a.x + 1) - scene.background(a.y, a.x - 1)) / 2, g = std::hypot(gy, gx);
        if (g < 0.05 || scene.contrast(y, x) > 0) continue;
        sum += std::pow(((a.y - b.y) * gy + (a.x - b.x) * gx) / g, 2);
        ++count;
      }
  }
  EXPECT_LT(std::sqrt(sum / count), 0.05);  // six vessels across three bones: the phantom's foot says less than 0.03
}

TEST(WarpRegistration, TellsHowFarTheMappingIsFromFolding) {
  constexpr int side = 400;
  const reference::Scene scene(side, 641);
  const Field d = [](double y, double x) -> std::array<double, 2> { return {-0.015 * (y - 200), -0.015 * (x - 200)}; };
  const Found found = find(Stream::cpu(), scene.frame({}, 0.0035, false, 1), bent_frame(scene, side, {}, d, 0.005, false, 2));
  double least = 1;
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      const PixelPosition p = place(found, y, x, side), down = place(found, y + 1, x, side), right = place(found, y, x + 1, side);
      least = std::min(least, (down.y - p.y) * (right.x - p.x) - (right.y - p.y) * (down.x - p.x));
    }
  EXPECT_LT(least, 0.985);
  EXPECT_NEAR(found.estimate.least_determinant, least, 0.01);
}

TEST(WarpRegistration, OneFieldUndoesTheOther) {
  constexpr int side = 400;
  const reference::Scene scene(side, 651);
  const Found found =
      find(Stream::cpu(), scene.frame({}, 0.0035, false, 1), bent_frame(scene, side, moved, waves(1.5, side), 0.01, false, 2));
  ASSERT_GT(found.estimate.rms_px, 0.3);
  double worst = 0;
  for (int y = 8; y < side - 8; y += 3)
    for (int x = 8; x < side - 8; x += 3) {
      const PixelPosition p = place(found, y, x, side);
      const Displacement e = displacement_at(found.to_frame.view(), static_cast<float>(p.y), static_cast<float>(p.x));
      const PixelPosition q = move(found.rigid, {p.y + e.y, p.x + e.x}, side, side);
      worst = std::max(worst, std::hypot(q.y - y, q.x - x));
    }
  EXPECT_LT(worst, 0.05);
}

TEST_P(WarpRegistrationTest, TheSameOnEveryDevice) {
  const int side = 96;
  const reference::Scene scene(side, 5);
  const Image<float> mask = scene.frame({}, 0.003, false, 1);
  const Image<std::uint16_t> frame = bent_frame(scene, side, {0.6f, -0.4f, 0}, waves(0.7, side), 0.003, true, 2);
  const Found here = find(stream(), mask, frame), reference = find(Stream::cpu({.parallel = false}), mask, frame);
  EXPECT_EQ(here.estimate.usable, 1);
  EXPECT_GT(reference.estimate.rms_px, 0.1);
  // Other orders of a loop are contracted to fused multiply-adds in other places.
  const float tolerance = stream().on_cuda() ? 0.01f : GetParam() == "cpu" || GetParam() == "cpu_serial" ? 0.0f : 1e-4f;
  for (int y = 0; y < here.to_mask.height(); ++y)
    for (int x = 0; x < here.to_mask.width(); ++x) {
      ASSERT_NEAR(here.to_mask(y, x), reference.to_mask(y, x), tolerance) << y << ", " << x;
      ASSERT_NEAR(here.to_frame(y, x), reference.to_frame(y, x), tolerance) << y << ", " << x;
    }
}
CINELUMEN_ON_ALL_DEVICES(WarpRegistrationTest);

TEST(WarpRegistration, NothingToCompareGivesNoField) {
  constexpr int side = 96;
  const reference::Scene scene(side, 5);
  Image<float> mask = scene.frame({}, 0.003, false, 1);
  for (int y = 0; y < side; ++y) std::fill_n(mask.row(y), side, std::numeric_limits<float>::quiet_NaN());
  const Found found = find(Stream::cpu(), mask, bent_frame(scene, side, {}, waves(0.7, side), 0.003, false, 2));
  EXPECT_EQ(found.estimate.usable, 0);
  for (int y = 0; y < found.to_mask.height(); ++y)
    for (int x = 0; x < found.to_mask.width(); ++x) ASSERT_EQ(found.to_mask(y, x), 0);
}

TEST(WarpRegistration, WrongSizesAreRefused) {
  const Stream stream = Stream::cpu();
  const reference::Scene scene(96, 5);
  const Image<float> mask = scene.frame({}, 0.003, false, 1), small(40, 40);
  Image<std::uint8_t> valid(96, 96), small_valid(40, 40);
  EXPECT_THROW(WarpRegistration(stream, mask, small_valid), std::invalid_argument);
  EXPECT_THROW(WarpRegistration(stream, small, small_valid), std::invalid_argument);
  for (int y = 0; y < 96; ++y) std::fill_n(valid.row(y), 96, std::uint8_t{1});
  WarpRegistration warp(stream, mask, valid);
  const Array<float> table = straight_table();
  Image<std::uint16_t> stored(96, 96);
  Image<float> field = make_displacement_field(stream, 96, 96), other = make_displacement_field(stream, 64, 96);
  Array<FramePlacement> placement(1);
  Array<WarpEstimate> estimate(1);
  EXPECT_THROW(warp.enqueue(stream, {stored.view(), table.view()}, placement, field, other, estimate), std::invalid_argument);
  EXPECT_THROW(warp.enqueue(stream, {stored.view(), {}}, placement, field, field, estimate), std::invalid_argument);
  EXPECT_THROW(warp.enqueue(stream, {stored.view(), table.view()}, {}, field, field, estimate), std::invalid_argument);
}

}  // namespace
}  // namespace cinelumen
