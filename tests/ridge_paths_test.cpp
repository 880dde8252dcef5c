/// Lines placed in a frame, found on its ridges and moved there, against point-by-point twins.

#include "kernels/ridge_paths.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "reference/ridge_paths.h"
#include "support/arrays.h"
#include "support/devices.h"

namespace cinelumen {
namespace {

using test::on_device, test::on_host;

class RidgePathsTest : public test::DeviceTest {};

// Lines of these numbers of points, around the number of threads of a block.
const std::vector<int> lengths = {1, 0, 3, 40, 255, 256, 257, 600};

std::vector<int> first_points() {
  std::vector<int> first = {0};
  for (const int length : lengths) first.push_back(first.back() + length);
  return first;
}

TEST_P(RidgePathsTest, PlacesLinesAsPixelsMove) {
  const Stream stream = this->stream();
  const FramePlacement placement{{3.25f, -7.5f, 0.03f}, 0.1f};
  std::vector<CrossSection> lines;
  for (int i = 0; i < 300; ++i) {
    const float angle = 0.1f * static_cast<float>(i);
    lines.push_back({static_cast<float>(i % 50) * 3.7f, static_cast<float>(i) * 0.9f, std::sin(angle), std::cos(angle)});
  }
  const auto device_lines = on_device(stream, lines);
  const auto device_placement = on_device(stream, std::vector<FramePlacement>{placement});
  Array<CrossSection> placed(stream, 300);
  place_lines(stream, device_lines.view(), device_placement.view(), 200, 280, placed.view());
  const auto host = on_host<CrossSection>(stream, placed.view());
  for (std::size_t i = 0; i < host.size(); ++i) {
    const CrossSection& line = lines[i];
    const PixelPosition at = move(placement.motion, {line.y, line.x}, 200, 280),
                        ahead = move(placement.motion,
                                     {static_cast<double>(line.y) + line.normal_y, static_cast<double>(line.x) + line.normal_x}, 200, 280);
    EXPECT_NEAR(host[i].y, at.y, 1e-4);
    EXPECT_NEAR(host[i].x, at.x, 1e-4);
    EXPECT_NEAR(host[i].normal_y, ahead.y - at.y, 1e-5);
    EXPECT_NEAR(host[i].normal_x, ahead.x - at.x, 1e-5);
  }
  EXPECT_THROW(place_lines(stream, device_lines.view(), {}, 200, 280, placed.view()), std::invalid_argument);
}

// A ridge that winds about the row in the middle, and leaves the image at its end.
TEST_P(RidgePathsTest, FollowsARidge) {
  const Stream stream = this->stream();
  const int height = 48, width = test::small_bodies() ? 120 : 300;
  const auto middle = [](double x) { return 24 + 5 * std::sin(0.07 * x); };
  Image<float> z(height, width), scale(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      scale(y, x) = x % 90 < 45 ? 2.0f : 3.0f;
      z(y, x) = static_cast<float>(10 * std::exp(-(y - middle(x)) * (y - middle(x)) / 8)) * scale(y, x);
    }
  std::vector<CrossSection> lines;
  for (int x = 0; x < width + 6; ++x) lines.push_back({24.2f, static_cast<float>(x), 1, 0});
  const int count = static_cast<int>(lines.size());
  const std::vector<int> first = {0, 0, count};
  RidgePathScratch scratch(stream, ArrayView<const int>{first.data(), 3});
  const auto device_first = on_device(stream, first);
  const auto device_lines = on_device(stream, lines);
  const Image<float> device_z = to_device(stream, z.view()), device_scale = to_device(stream, scale.view());
  Array<CrossPeak> peaks(stream, count);
  const RidgePathOptions options{7.5f, 3, 0.2f};
  find_ridge_paths(stream, {device_z.view(), device_scale.view()}, device_first.view(), device_lines.view(), options, scratch,
                   peaks.view());
  const auto host = on_host<CrossPeak>(stream, peaks.view());
  for (int x = 0; x < count; ++x) {
    if (x != width - 1) {  // between its neighbours one of which is outside
      EXPECT_EQ(host[x].found != 0, x < width) << x;
    }
    if (host[x].found && x % 45 > 2 && x % 45 < 43) {
      EXPECT_NEAR(host[x].offset_px, middle(x) - 24.2, 0.06) << x;
    }
  }
  EXPECT_THROW(find_ridge_paths(stream, {device_z.view()}, device_first.view(), device_lines.view(), {0, 3, 1}, scratch, peaks.view()),
               std::invalid_argument);
}

// The same ridge in an image of half the resolution.
TEST_P(RidgePathsTest, FollowsARidgeInACoarserImage) {
  const Stream stream = this->stream();
  const int height = 48, width = test::small_bodies() ? 120 : 300;
  const auto middle = [](double x) { return 24 + 5 * std::sin(0.07 * x); };
  Image<float> z(height / 2, width / 2), scale(height / 2, width / 2);
  for (int y = 0; y < height / 2; ++y)
    for (int x = 0; x < width / 2; ++x) {
      scale(y, x) = 2;
      const double off = 2 * y - middle(2 * x);
      z(y, x) = static_cast<float>(10 * std::exp(-off * off / 8));
    }
  std::vector<CrossSection> lines;
  for (int x = 0; x < width; ++x) lines.push_back({24.2f, static_cast<float>(x), 1, 0});
  const int count = static_cast<int>(lines.size());
  const std::vector<int> first = {0, count};
  RidgePathScratch scratch(stream, ArrayView<const int>{first.data(), 2});
  const auto device_first = on_device(stream, first);
  const auto device_lines = on_device(stream, lines);
  const Image<float> device_z = to_device(stream, z.view()), device_scale = to_device(stream, scale.view());
  Array<CrossPeak> peaks(stream, count);
  const RidgePathOptions options{7.5f, 3, 0.2f};
  RidgeImage image{device_z.view(), device_scale.view(), true, 2};
  find_ridge_paths(stream, image, device_first.view(), device_lines.view(), options, scratch, peaks.view());
  const auto host = on_host<CrossPeak>(stream, peaks.view());
  int found = 0;
  double squares = 0;
  for (int x = 4; x < count - 4; ++x) {
    found += host[x].found;
    if (host[x].found) squares += std::pow(host[x].offset_px - (middle(x) - 24.2), 2);
  }
  EXPECT_GT(found, 0.98 * (count - 8));
  EXPECT_LT(std::sqrt(squares / found), 0.15);  // of one point: a Gaussian of one pixel's SD, and cubics
  image.pixel_px = 0;
  EXPECT_THROW(find_ridge_paths(stream, image, device_first.view(), device_lines.view(), options, scratch, peaks.view()),
               std::invalid_argument);
}

std::vector<CrossPeak> some_peaks(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(0, 1);
  std::vector<CrossPeak> peaks(static_cast<std::size_t>(count));
  bool gap = false;
  for (int i = 0; i < count; ++i) {
    if (uniform(random) < 0.1f) gap = !gap;
    const float wave = std::sin(0.05f * static_cast<float>(i));
    peaks[i] = {wave + 0.3f * uniform(random) + (uniform(random) < 0.1f ? 4.0f : 0.0f), 5, gap || uniform(random) < 0.05f ? 0 : 1};
  }
  return peaks;
}

TEST_P(RidgePathsTest, RejectsAndMovesAsTheTwin) {
  const Stream stream = this->stream();
  const std::vector<int> first = first_points();
  const int count = first.back();
  const std::vector<CrossPeak> before = some_peaks(count, 7);
  std::vector<CrossSection> lines;
  for (int i = 0; i < count; ++i) lines.push_back({10, static_cast<float>(i), 0.8f, -0.6f});
  const auto device_first = on_device(stream, first);
  const auto device_lines = on_device(stream, lines);
  auto peaks = on_device(stream, before);
  Array<int> list(stream, count), rank(stream, count);
  Array<float> offsets(stream, count);
  Array<CrossSection> moved(stream, count);
  Array<std::int32_t> found(stream, static_cast<int>(lengths.size()));
  reject_lone_peaks(stream, device_first.view(), peaks.view(), list.view());
  move_to_peaks(stream, device_first.view(), device_lines.view(), peaks.view(), 0.5f, list.view(), rank.view(), offsets.view(),
                moved.view(), found.view());
  const auto kept = on_host<CrossPeak>(stream, peaks.view());
  const auto host = on_host<CrossSection>(stream, moved.view());
  const auto host_found = on_host<std::int32_t>(stream, found.view());
  int rejected = 0;
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    const int start = first[s], end = first[s + 1];
    const auto expected = reference::without_lone_peaks({before.begin() + start, before.begin() + end});
    for (int i = start; i < end; ++i) {
      EXPECT_EQ(kept[i].found, expected[i - start].found) << s << " " << i - start;
      rejected += before[i].found && !kept[i].found;
    }
    const auto there = static_cast<int>(reference::found_among(expected).size());
    EXPECT_EQ(host_found[s], 2 * there >= end - start ? 1 : 0) << s;
    if (!host_found[s]) {
      for (int i = start; i < end; ++i) EXPECT_EQ(host[i].x, lines[i].x);
      continue;
    }
    const std::vector<double> by = reference::offsets_of(expected);
    for (int i = start; i < end; ++i) {
      EXPECT_NEAR(host[i].y, lines[i].y + by[i - start] * 0.8, 2e-5) << s << " " << i - start;
      EXPECT_NEAR(host[i].x, lines[i].x - by[i - start] * 0.6, 1e-4);
    }
    for (int i = start; i < end && end - start > 1; ++i) {
      const CrossSection &a = host[std::max(start, i - 4)], &b = host[std::min(end - 1, i + 4)];
      const double length = std::hypot(b.y - a.y, b.x - a.x);
      EXPECT_NEAR(host[i].normal_y, (b.x - a.x) / length, 1e-5);
      EXPECT_NEAR(host[i].normal_x, -(b.y - a.y) / length, 1e-5);
    }
  }
  EXPECT_GT(rejected, 20);
  EXPECT_THROW(reject_lone_peaks(stream, device_first.view(), peaks.view(), {}), std::invalid_argument);
}

CINELUMEN_ON_ALL_DEVICES(RidgePathsTest);

}  // namespace
}  // namespace cinelumen
