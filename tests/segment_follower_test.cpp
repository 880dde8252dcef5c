/// Vessels followed frame after frame: as the steps for one frame do it, and with no memory of the frame before.

#include "engine/segment_follower.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/segment_measurement.h"
#include "reference/lumen_fit.h"

namespace cinelumen {
namespace {

constexpr int height = 150, width = 200;

Centreline straight(float y, float angle, float radius) {
  Centreline centreline;
  for (int i = 0; i < 150; ++i) {
    CentrelinePoint point;
    point.tangent_y = std::sin(angle);
    point.tangent_x = std::cos(angle);
    point.y = y + static_cast<float>(i) * point.tangent_y;
    point.x = 20 + static_cast<float>(i) * point.tangent_x;
    point.arc_length_px = static_cast<float>(i);
    point.radius_px = radius;
    centreline.points.push_back(point);
  }
  return centreline;
}

std::vector<Centreline> three_lines() { return {straight(30, 0.05f, 4), straight(75, -0.04f, 2), straight(125, 0, 3)}; }

/// The first two vessels, moved and filled; the third is empty.
struct Frame {
  Frame(const RigidMotion& motion, unsigned seed) : image(height, width), stored(height, width), valid(height, width) {
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        image(y, x) = 0.02f;
        valid(y, x) = 1;
        stored(y, x) = static_cast<std::uint16_t>((3 * y + x) % 4);
      }
    const double radii[] = {5, 2.5};
    for (int k = 0; k < 2; ++k) {
      const CentrelinePoint p = move_centreline(three_lines()[k], motion, height, width).points[70];
      reference::TubeRenderer(radii[k], 0.02, {}).draw(image.view(), p.y, p.x, p.tangent_x, -p.tangent_y);
    }
    reference::add_noise(image.view(), 0.01, seed);
    map = make_vesselness_map(Stream::cpu(), height, width);
    VesselnessOptions options;
    options.noise_sd = 0.01f;
    Vesselness(Stream::cpu(), valid.view()).compute(Stream::cpu(), image.view(), options, map);
    placement[0] = {motion, 0};
  }
  Image<float> image;
  Image<std::uint16_t> stored;
  Image<std::uint8_t> valid;
  VesselnessMap map;
  Array<FramePlacement> placement = Array<FramePlacement>(1);
};

LumenOptions lumen_options() {
  LumenOptions options;
  options.psf_sd_px = 0.03f;
  return options;
}

constexpr RidgeSnapOptions snap_options{.search_px = 5};

TEST(SegmentFollower, DoesWhatTheStepsDo) {
  const Stream stream = Stream::cpu();
  const Frame frame({2.2f, -1.4f, 0.01f}, 3);
  SegmentFollower follower(stream, three_lines(), snap_options, lumen_options(), false);
  follower.enqueue(stream, frame.map, frame.image.view(), {}, frame.valid.view(), frame.placement.view());
  std::vector<Centreline> lines;
  for (const Centreline& line : three_lines()) lines.push_back(move_centreline(line, frame.placement[0].motion, height, width));
  const auto snapped = snap_to_ridge(stream, frame.map, lines, snap_options);
  for (std::size_t s = 0; s < lines.size(); ++s) {
    const auto accepted = std::count_if(snapped[s].begin(), snapped[s].end(), [](const SnappedPoint& p) { return p.accepted; });
    EXPECT_EQ(follower.found(static_cast<int>(s)), s < 2);
    EXPECT_EQ(2 * accepted >= static_cast<std::ptrdiff_t>(snapped[s].size()), s < 2);
    if (s < 2) lines[s] = moved_to_ridge(lines[s], snapped[s]);
  }
  const auto expected = measure_frame(stream, frame.image.view(), frame.valid.view(), lines, lumen_options());
  const auto lumen = follower.lumen();
  const auto contrast = follower.contrast();
  ASSERT_EQ(lumen.size(), expected.size());
  for (std::size_t s = 0; s < lumen.size(); ++s) {
    int used = 0;
    ASSERT_EQ(lumen[s].size(), expected[s].size());
    ASSERT_EQ(contrast[s].size(), expected[s].size());
    for (std::size_t i = 0; i < lumen[s].size(); ++i) {
      used += lumen[s][i].used;
      EXPECT_EQ(lumen[s][i].point, static_cast<int>(i));
      EXPECT_EQ(lumen[s][i].arc_length_px, expected[s][i].arc_length_px);
      // Positions agree to float's last digits only: nearly every point is judged alike.
      if (!lumen[s][i].used || !expected[s][i].used) continue;
      EXPECT_NEAR(lumen[s][i].diameter_px, expected[s][i].diameter_px, 0.02) << s << " " << i;
      EXPECT_NEAR(lumen[s][i].y_px, expected[s][i].y_px, 0.01);
      EXPECT_NEAR(contrast[s][i], lumen[s][i].contrast + 0.02, 0.06);
    }
    EXPECT_EQ(used > 120, s < 2) << s;
  }
}

TEST(SegmentFollower, RemembersNoFrameAndSharesNoMemory) {
  const Stream stream = Stream::cpu({.parallel = false});
  const Frame first({0, 0, 0}, 5), second({-3, 2.5f, 0.02f}, 6);
  SegmentFollower one(stream, three_lines(), snap_options, lumen_options(), true);
  SegmentFollower other = one.another(stream);
  const auto enqueue = [&](SegmentFollower& follower, const Frame& frame) {
    follower.enqueue(stream, frame.map, frame.image.view(), {}, frame.valid.view(), frame.placement.view());
  };
  enqueue(other, second);
  enqueue(one, first);
  enqueue(one, second);
  enqueue(other, first);
  enqueue(other, second);
  const auto a = one.lumen(), b = other.lumen();
  for (std::size_t s = 0; s < a.size(); ++s)
    for (std::size_t i = 0; i < a[s].size(); ++i) {
      EXPECT_EQ(a[s][i].diameter_px, b[s][i].diameter_px);
      EXPECT_EQ(a[s][i].sd_px, b[s][i].sd_px);
      EXPECT_EQ(a[s][i].reason, b[s][i].reason);
    }
}

TEST(SegmentFollower, VarianceIsThatOfTheStoredValue) {
  const Stream stream = Stream::cpu({.parallel = false});
  const Frame frame({1, 1, 0}, 7);
  Array<float> table(3);  // the last holds for larger values, too
  for (int i = 0; i < 3; ++i) table[i] = 1e-4f * static_cast<float>(1 + i);
  Image<float> plane(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) plane(y, x) = table[std::min<int>(frame.stored(y, x), 2)];
  SegmentFollower follower(stream, three_lines(), snap_options, lumen_options(), true);
  std::vector<std::vector<LumenPoint>> results[2];
  for (const bool looked_up : {false, true}) {
    const VarianceSource variance =
        looked_up ? VarianceSource(StoredFrame{frame.stored.view(), table.view()}) : VarianceSource(plane.view());
    follower.enqueue(stream, frame.map, frame.image.view(), variance, frame.valid.view(), frame.placement.view());
    results[looked_up ? 1 : 0] = follower.lumen();
  }
  for (std::size_t s = 0; s < results[0].size(); ++s)
    for (std::size_t i = 0; i < results[0][s].size(); ++i) {
      EXPECT_EQ(results[0][s][i].diameter_px, results[1][s][i].diameter_px);
      EXPECT_EQ(results[0][s][i].sd_px, results[1][s][i].sd_px);
    }
}

TEST(SegmentFollower, NothingToFollowIsNoError) {
  const Stream stream = Stream::cpu();
  const Frame frame({0, 0, 0}, 5);
  for (const std::vector<Centreline>& lines : {std::vector<Centreline>{}, std::vector<Centreline>(2)}) {
    SegmentFollower follower(stream, lines, snap_options, lumen_options(), true);
    follower.enqueue(stream, frame.map, frame.image.view(), {}, frame.valid.view(), frame.placement.view());
    EXPECT_EQ(follower.lumen().size(), lines.size());
    EXPECT_EQ(follower.contrast().size(), lines.size());
  }
  EXPECT_THROW(SegmentFollower(stream, three_lines(), {.search_px = 0}, lumen_options(), true), std::invalid_argument);
}

}  // namespace
}  // namespace cinelumen
