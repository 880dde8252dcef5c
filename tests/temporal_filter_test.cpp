/// The temporal filter against its twin, and against what it is for: less noise where nothing changes, no delay and no blur where it does.

#include "kernels/temporal_filter.h"

#include <array>
#include <limits>

#include "kernels/math.h"
#include "reference/temporal_filter.h"
#include "support/devices.h"
#include "support/images.h"

namespace cinelumen {
namespace {

Image<float> noise_image(int height, int width, float sd, unsigned seed) {
  Image<float> image(height, width);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, sd);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) image(y, x) = normal(random);
  return image;
}

// Synchronises, so that a temporary may be uploaded.
Image<float> upload(const Stream& stream, const Image<float>& host) {
  Image<float> device = to_device(stream, host.view());
  stream.synchronize();
  return device;
}

class TemporalFilterTest : public test::DeviceTest {};

/// A filter that goes round its ring by itself.
class Sequence {
 public:
  template <class... Arguments>
  explicit Sequence(const Stream& stream, Arguments... arguments) : filter_(stream, arguments...) {}
  ImageView<const float> apply(const Stream& stream, ImageView<const float> frame) { return filter_.step(stream, next(), frame); }
  /// The background moves on by a shift.
  ImageView<const float> apply(const Stream& stream, ImageView<const float> frame, float shift_y_px, float shift_x_px) {
    placement_.motion.shift_y_px += shift_y_px;
    placement_.motion.shift_x_px += shift_x_px;
    return filter_.step(stream, next(), frame, placement_);
  }
  ImageView<const float> apply(const Stream& stream, ImageView<const float> frame, FlowStatistics& statistics, double time_ms) {
    return filter_.step(stream, next(), frame, statistics, statistics.next_frame(time_ms));
  }

 private:
  int next() { return place_ = filter_.place_after(place_); }
  TemporalFilter filter_;
  int place_ = 0;
  FramePlacement placement_;
};

TEST_P(TemporalFilterTest, AgreesWithReference) {
  const Stream stream = this->stream();
  const std::array<std::array<float, 2>, 4> shifts = {{{0, 0}, {0.3f, -1.6f}, {-2.25f, 0.75f}, {0, 3}}};
  unsigned seed = 1;
  for (const auto& [height, width] : test::awkward_sizes()) {
    Sequence filter(stream, height, width, 0.02f);
    reference::TemporalFilter expected(height, width);
    for (const auto& shift : shifts) {
      Image<float> frame = noise_image(height, width, 0.02f, ++seed);
      if (seed % 2 == 0)  // something that appears, so that gains between the floor and 1 occur
        for (int y = height / 3; y < height / 2; ++y)
          for (int x = 0; x < width / 2; ++x) frame(y, x) += 0.03f;
      Image<float> variance(height, width);
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) variance(y, x) = 4e-4f;
      const std::vector<double> twin = expected.apply(frame, variance, shift[0], shift[1]);
      auto device_frame = test::sub_view<float>(stream, height, width);
      copy<float>(stream, frame.view(), device_frame.view);
      const Image<float> result = to_host(stream, filter.apply(stream, device_frame.view, shift[0], shift[1]));
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
          ASSERT_NEAR(result(y, x), twin[static_cast<std::size_t>(y) * width + x], 5e-6)
              << height << " x " << width << " at (" << y << ", " << x << ")";
    }
  }
}

TEST_P(TemporalFilterTest, StatisticsOnTheWayAreThoseOfItsResults) {
  const Stream stream = this->stream();
  const int height = 37, width = 140, frames = 6;
  const float noise_sd = 0.02f;
  for (const FlowOptions options : {FlowOptions{true, true}, {true, false}, {false, false}}) {
    Sequence fused(stream, height, width, noise_sd, TemporalFilterOptions{}, 2), apart(stream, height, width, noise_sd);
    FlowStatistics on_the_way(stream, height, width, options), after(stream, height, width);
    ImageView<const float> previous{};
    Image<float> previous_host;
    for (int t = 0; t < frames; ++t) {
      Image<float> image = noise_image(height, width, noise_sd, 40 + static_cast<unsigned>(t));
      for (int y = 5; y < 20; ++y)
        for (int x = 30; x < 90; ++x) image(y, x) += 0.08f * static_cast<float>(t == 3 ? 5 : t);
      const Image<float> frame = upload(stream, image);
      const ImageView<const float> a = fused.apply(stream, frame, on_the_way, 40.0 * t), b = apart.apply(stream, frame);
      after.update(stream, b, after.next_frame(40.0 * t));
      test::expect_near(to_host(stream, a).view(), to_host(stream, b).view(), 1e-7);
      if (t > 0) test::expect_near(to_host(stream, previous).view(), previous_host.view(), 0);  // two results are kept
      previous = a;
      previous_host = to_host(stream, a);
    }
    const FlowImages found = on_the_way.finish(stream, noise_sd), expected = after.finish(stream, noise_sd);
    test::expect_near(to_host(stream, found.maximum.view()).view(), to_host(stream, expected.maximum.view()).view(), 1e-7);
    const Image<float> peak = to_host(stream, found.time_to_peak_ms.view()), twin = to_host(stream, expected.time_to_peak_ms.view());
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        ASSERT_TRUE(std::isnan(twin(y, x)) ? std::isnan(peak(y, x)) : std::abs(peak(y, x) - twin(y, x)) < 0.1) << y << ", " << x;
    EXPECT_EQ(found.area.empty(), !options.area);
    EXPECT_EQ(found.mean_time_ms.empty(), !options.mean_time);
    if (options.area) test::expect_near(to_host(stream, found.area.view()).view(), to_host(stream, expected.area.view()).view(), 1e-6);
    if (!options.mean_time) continue;
    const Image<float> mean = to_host(stream, found.mean_time_ms.view());
    EXPECT_NEAR(mean(12, 60), to_host(stream, expected.mean_time_ms.view())(12, 60), 0.01);
  }
}

TEST_P(TemporalFilterTest, StaticNoiseFallsAsKalmanSays) {
  const Stream stream = this->stream();
  const int side = stream.on_cuda() ? 48 : 200;
  const float sd = 0.02f;
  for (const float gain : {0.15f, 0.03f}) {
    const int frames = static_cast<int>((stream.on_cuda() ? 2 : 4) / gain);
    TemporalFilterOptions options;
    options.minimum_gain = gain;
    options.change_first_sd = 8;  // noise alone passes for change now and then
    options.change_last_sd = 9;
    Sequence filter(stream, side, side, sd, options);
    Image<float> result;
    for (int t = 0; t < frames; ++t) result = to_host(stream, filter.apply(stream, upload(stream, noise_image(side, side, sd, 100 + t))));
    double sum = 0;
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) sum += square(result(y, x));
    EXPECT_NEAR(std::sqrt(sum) / side / (sd * std::sqrt(gain / (2 - gain))), 1, stream.on_cuda() ? 0.12 : 0.012) << gain;
  }
}

TEST_P(TemporalFilterTest, StepAppearsInFullWithinOneFrame) {
  const Stream stream = this->stream();
  const int height = 48, width = 64, frames = 12;
  const float sd = 0.02f, step = 5 * sd;
  Sequence filter(stream, height, width, sd);
  Image<float> result, last;
  for (int t = 0; t < frames; ++t) {
    last = noise_image(height, width, sd, 300 + t);
    if (t == frames - 1)
      for (int y = 16; y < 32; ++y)
        for (int x = 20; x < 44; ++x) last(y, x) += step;
    result = to_host(stream, filter.apply(stream, upload(stream, last)));
  }
  for (int y = 16; y < 32; ++y)
    for (int x = 20; x < 44; ++x) ASSERT_NEAR(result(y, x), last(y, x), 1e-6) << "still holds the past at " << y << ", " << x;
}

TEST_P(TemporalFilterTest, ThinVesselAppearsInFullWithinOneFrame) {
  const Stream stream = this->stream();
  const int height = 40, width = 40;
  const float sd = 0.02f;
  Sequence filter(stream, height, width, sd);
  Image<float> result, last;
  for (int t = 0; t < 10; ++t) {
    last = noise_image(height, width, sd, 500 + t);
    if (t == 9)
      for (int y = 0; y < height; ++y) last(y, 20) += 5 * sd;  // one pixel wide
    result = to_host(stream, filter.apply(stream, upload(stream, last)));
  }
  double shown = 0, real = 0;
  for (int y = 0; y < height; ++y) shown += result(y, 20), real += last(y, 20);
  EXPECT_GT(shown / real, 0.98);
}

// A vertical vessel of 6 px on a still background; its mean profile over rows, at sub-pixel steps, gives the width at half height.
double half_width(ImageView<const float> image, double centre) {
  std::vector<double> profile(static_cast<std::size_t>(image.width), 0.0);
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x) profile[static_cast<std::size_t>(x)] += image(y, x) / image.height;
  const int middle = static_cast<int>(std::lround(centre));
  const double half = 0.5 * (profile[middle - 1] + profile[middle] + profile[middle + 1]) / 3;
  double left = 0, right = 0;
  for (int x = middle; x > 0; --x)
    if (profile[x - 1] < half) {
      left = x - (profile[x] - half) / (profile[x] - profile[x - 1]);
      break;
    }
  for (int x = middle; x + 1 < image.width; ++x)
    if (profile[x + 1] < half) {
      right = x + (profile[x] - half) / (profile[x] - profile[x + 1]);
      break;
    }
  return right - left;
}

TEST_P(TemporalFilterTest, MovingVesselKeepsItsWidth) {
  const Stream stream = this->stream();
  if (stream.on_cuda()) GTEST_SKIP() << "too long for an emulator; the other tests cover the same code";
  const int height = 200, width = 120;
  const float sd = 0.02f, contrast = 0.3f;
  for (const double speed : {0.0, 0.1, 0.3, 0.6, 1.0, 2.0, 3.5, 5.0}) {
    Sequence filter(stream, height, width, sd);
    double raw_width = 0, filtered_width = 0;
    int measured = 0;
    for (int t = 0; t < 16; ++t) {
      const double centre = 20.3 + speed * t;
      Image<float> frame = noise_image(height, width, sd, 700 + t);
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
          frame(y, x) += contrast * 0.5f * static_cast<float>(std::erf((x - centre + 3) / 1.4) - std::erf((x - centre - 3) / 1.4));
      const Image<float> filtered = to_host(stream, filter.apply(stream, upload(stream, frame)));
      if (t < 8) continue;
      raw_width += half_width(frame.view(), centre);
      filtered_width += half_width(filtered.view(), centre);
      ++measured;
    }
    RecordProperty("width_ratio_at_" + std::to_string(speed), std::to_string(filtered_width / raw_width));
    EXPECT_NEAR(filtered_width / raw_width, 1, 0.03) << "at " << speed << " px/frame, " << measured << " frames";
  }
}

TEST_P(TemporalFilterTest, StateFollowsTheBackground) {
  const Stream stream = this->stream();
  const int height = 64, width = 96;
  const float sd = 0.01f;
  Sequence filter(stream, height, width, sd);
  Image<float> result;
  const auto scene = [](double y, double x) { return static_cast<float>(0.2 * std::sin(0.35 * y) * std::cos(0.3 * x)); };
  double shift = 0;
  for (int t = 0; t < 12; ++t) {
    const double step = t == 0 ? 0 : 0.45;
    shift += step;
    Image<float> frame = noise_image(height, width, sd, 900 + t);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) frame(y, x) += scene(y - shift, x + 2 * shift);
    result = to_host(stream, filter.apply(stream, upload(stream, frame), static_cast<float>(step), static_cast<float>(-2 * step)));
  }
  double sum = 0;
  int count = 0;
  for (int y = 8; y < height - 8; ++y)
    for (int x = 8; x < width - 12; ++x, ++count) sum += square(result(y, x) - scene(y - shift, x + 2 * shift));
  EXPECT_LT(std::sqrt(sum / count), 0.45 * sd) << "a scene that moves as said must be averaged like one that stands still";
}

TEST_P(TemporalFilterTest, ArgumentsAreChecked) {
  const Stream stream = this->stream();
  EXPECT_THROW(TemporalFilter(stream, 0, 5, 1), std::invalid_argument);
  EXPECT_THROW(TemporalFilter(stream, 5, 5, 1, {.minimum_gain = 0}), std::invalid_argument);
  EXPECT_THROW(TemporalFilter(stream, 5, 5, 1, {.noise_correlation = 0.5f}), std::invalid_argument);
  TemporalFilter filter(stream, 5, 6, 0.1f);
  Image<float> right(stream, 5, 6), wrong(stream, 6, 5);
  set_zero(stream, right.view());
  EXPECT_THROW(TemporalFilter(stream, 5, 5, 1, {}, 1), std::invalid_argument);
  EXPECT_THROW(TemporalFilter(stream, 5, 6, 0), std::invalid_argument);
  EXPECT_THROW(filter.step(stream, 0, wrong), std::invalid_argument);
  EXPECT_THROW(filter.step(stream, 2, right), std::invalid_argument);
  EXPECT_THROW(filter.step(stream, -1, right, FramePlacement{}), std::invalid_argument);
  EXPECT_THROW(filter.skip(stream, 2), std::invalid_argument);
  EXPECT_THROW(filter.step(stream, 0, right, FramePlacement{{std::numeric_limits<float>::quiet_NaN(), 0, 0}, 0}), std::invalid_argument);
  FlowStatistics other(stream, 6, 5);
  EXPECT_THROW(filter.step(stream, 0, right, other, other.next_frame(0)), std::invalid_argument);
  filter.step(stream, 0, right, FramePlacement{});
  // Nothing in common with the previous frame: allowed.
  const ImageView<const float> out = filter.step(stream, 1, right, FramePlacement{{1e9f, -1e9f, 0}, 0});
  Image<float> zero(5, 6);
  set_zero(Stream::cpu(), zero.view());
  test::expect_near(to_host(stream, out).view(), zero.view(), 0);
}

// What a captured CUDA graph does: the same launches for every frame, what differs between frames written to memory beforehand.
TEST_P(TemporalFilterTest, WhatChangesPerFrameComesFromMemory) {
  const Stream stream = this->stream();
  const int height = 21, width = 70, places = 3;
  TemporalFilter known(stream, height, width, 0.02f), remembered(stream, height, width, 0.02f, {}, places);
  Array<FramePlacement> placement(stream, 1);
  int place = 0;
  for (int t = 0; t < 5; ++t) {
    const Image<float> frame = upload(stream, noise_image(height, width, 0.02f, 60 + t));
    const FramePlacement now{{0.4f * static_cast<float>(t % 4), 7 - 1.3f * static_cast<float>(t), 0.001f}, 0};
    copy<FramePlacement>(stream, ArrayView<const FramePlacement>{&now, 1}, placement.view());
    stream.synchronize();
    if (t == 3) {  // a frame that is not seen
      remembered.skip(stream, t % places);
      continue;
    }
    const Image<float> expected = to_host(stream, known.step(stream, place = known.place_after(place), frame, now));
    test::expect_near(to_host(stream, remembered.step(stream, t % places, frame, placement)).view(), expected.view(), 0);
    if (t == 0) test::expect_near(to_host(stream, frame.view()).view(), expected.view(), 0);
  }
  remembered.reset(stream);
  const Image<float> frame = upload(stream, noise_image(height, width, 0.02f, 70));
  test::expect_near(to_host(stream, remembered.step(stream, 1, frame, placement)).view(), to_host(stream, frame.view()).view(), 0);
}

TEST_P(TemporalFilterTest, TimesOfStatisticsComeFromMemory) {
  const Stream stream = this->stream();
  const int height = 17, width = 40;
  TemporalFilter filter(stream, height, width, 0.02f);
  FlowStatistics known(stream, height, width), remembered(stream, height, width);
  Array<FlowTime> time(stream, 1);
  for (int t = 0; t < 4; ++t) {
    const Image<float> frame = upload(stream, noise_image(height, width, 0.02f, 80 + t));
    const FlowTime now = remembered.next_frame(50.0 * t * t);
    copy<FlowTime>(stream, ArrayView<const FlowTime>{&now, 1}, time.view());
    stream.synchronize();
    known.update(stream, filter.step(stream, t % 2, frame, remembered, time), known.next_frame(50.0 * t * t));
  }
  const FlowImages found = remembered.finish(stream, 0), expected = known.finish(stream, 0);
  const auto same = [&](const Image<float>& a, const Image<float>& b) {
    const Image<float> one = to_host(stream, a.view()), other = to_host(stream, b.view());
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        ASSERT_TRUE(one(y, x) == other(y, x) || (std::isnan(one(y, x)) && std::isnan(other(y, x)))) << y << ", " << x;
  };
  same(found.maximum, expected.maximum);
  same(found.time_to_peak_ms, expected.time_to_peak_ms);
  same(found.area, expected.area);
}

CINELUMEN_ON_ALL_DEVICES(TemporalFilterTest);

}  // namespace
}  // namespace cinelumen
