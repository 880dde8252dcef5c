/// Running statistics against a twin that sees each pixel's whole curve at once.

#include "kernels/flow_statistics.h"

#include <limits>

#include "reference/flow_statistics.h"
#include "support/devices.h"
#include "support/images.h"

namespace cinelumen {
namespace {

class FlowStatisticsTest : public test::DeviceTest {};

Image<float> upload(const Stream& stream, const Image<float>& host) {
  Image<float> device = to_device(stream, host.view());
  stream.synchronize();
  return device;
}

void expect_same(double actual, double expected, double tolerance, const char* what, int y, int x) {
  if (std::isnan(expected))
    ASSERT_TRUE(std::isnan(actual)) << what << " at (" << y << ", " << x << ") is " << actual;
  else
    ASSERT_NEAR(actual, expected, tolerance) << what << " at (" << y << ", " << x << ")";
}

TEST_P(FlowStatisticsTest, AgreesWithReference) {
  const Stream stream = this->stream();
  // Uneven frame times, not starting at zero; values on a coarse grid so that ties occur; gaps.
  const std::vector<double> times_ms = {100, 233, 366, 500, 766, 900, 1033};
  const float threshold_sd = 5, noise_sd = 0.06f;
  for (const auto& [height, width] : test::awkward_sizes()) {
    FlowStatistics statistics(stream, height, width);
    std::vector<Image<float>> frames;
    std::mt19937 random(static_cast<unsigned>(height * 1000 + width));
    for (const double time : times_ms) {
      Image<float> frame(height, width);
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
          frame(y, x) = random() % 8 == 0 ? std::numeric_limits<float>::quiet_NaN()
                                          : 0.0625f * static_cast<float>(static_cast<int>(random() % 12) - 2);
      frame(height / 2, width / 2) = std::numeric_limits<float>::quiet_NaN();
      const Image<float> device = upload(stream, frame);
      auto view = test::sub_view<float>(stream, height, width);
      copy<float>(stream, device.view(), view.view);
      statistics.update(stream, view.view, statistics.next_frame(time));
      frames.push_back(std::move(frame));
    }
    const FlowImages images = statistics.finish(stream, noise_sd, threshold_sd);
    const Image<float> maximum = to_host(stream, images.maximum.view()), peak = to_host(stream, images.time_to_peak_ms.view()),
                       area = to_host(stream, images.area.view()), mean_time = to_host(stream, images.mean_time_ms.view());
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        std::vector<double> curve;
        for (const Image<float>& frame : frames) curve.push_back(frame(y, x));
        const auto expected = reference::flow_of_pixel(times_ms, curve, static_cast<double>(threshold_sd * noise_sd));
        expect_same(maximum(y, x), expected.maximum, 0, "maximum", y, x);
        expect_same(peak(y, x), expected.time_to_peak_ms, 1e-2, "time to peak", y, x);
        expect_same(area(y, x), expected.area, 1e-6, "area", y, x);
        const bool opacified = !std::isnan(expected.time_to_peak_ms);
        if (!opacified)
          ASSERT_TRUE(std::isnan(mean_time(y, x)));
        else if (expected.area > 0.05 && expected.mean_time_ms > times_ms.front() + 1 && expected.mean_time_ms < times_ms.back() - 1)
          expect_same(mean_time(y, x), expected.mean_time_ms, 0.05, "mean time", y, x);
        else  // next to no area, or at the very edge: whatever is said lies in the run
          ASSERT_TRUE(std::isnan(mean_time(y, x)) || (mean_time(y, x) >= times_ms.front() && mean_time(y, x) <= times_ms.back()));
      }
  }
}

TEST_P(FlowStatisticsTest, ParabolaFindsThePeakBetweenFrames) {
  const Stream stream = this->stream();
  const int height = 3, width = 41;
  FlowStatistics statistics(stream, height, width);
  for (int t = 0; t < 12; ++t) {
    Image<float> frame(height, width);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        const double s = (t * 133.0 - (600 + 7 * x)) / 500;
        frame(y, x) = static_cast<float>(0.4 * (1 - s * s));
      }
    statistics.update(stream, upload(stream, frame), statistics.next_frame(t * 133.0));
  }
  const Image<float> peak = to_host(stream, statistics.finish(stream, 0.01f).time_to_peak_ms.view());
  for (int x = 0; x < width; ++x) ASSERT_NEAR(peak(1, x), 600 + 7 * x, 0.05);
}

TEST_P(FlowStatisticsTest, QuietPixelsHaveNoTime) {
  const Stream stream = this->stream();
  FlowStatistics statistics(stream, 2, 2);
  Image<float> frame(2, 2);
  for (int t = 0; t < 3; ++t) {
    for (int x = 0; x < 2; ++x) frame(0, x) = 0.04f * static_cast<float>(t), frame(1, x) = 0;
    statistics.update(stream, upload(stream, frame), statistics.next_frame(100.0 * t));
  }
  const Image<float> low = to_host(stream, statistics.finish(stream, 0.01f).time_to_peak_ms.view());
  EXPECT_EQ(low(0, 0), 200);  // the last frame: nothing to refine with
  EXPECT_TRUE(std::isnan(low(1, 0)));
  const Image<float> high = to_host(stream, statistics.finish(stream, 0.02f).time_to_peak_ms.view());
  EXPECT_TRUE(std::isnan(high(0, 0)));
}

TEST_P(FlowStatisticsTest, SingleFrame) {
  const Stream stream = this->stream();
  FlowStatistics statistics(stream, 1, 1);
  Image<float> frame(1, 1);
  frame(0, 0) = 0.3f;
  statistics.update(stream, upload(stream, frame), statistics.next_frame(40));
  const FlowImages images = statistics.finish(stream, 0.01f);
  EXPECT_EQ(to_host(stream, images.maximum.view())(0, 0), 0.3f);
  EXPECT_EQ(to_host(stream, images.time_to_peak_ms.view())(0, 0), 40);
  EXPECT_EQ(to_host(stream, images.area.view())(0, 0), 0);
  EXPECT_TRUE(std::isnan(to_host(stream, images.mean_time_ms.view())(0, 0)));
}

TEST_P(FlowStatisticsTest, ArgumentsAreChecked) {
  const Stream stream = this->stream();
  EXPECT_THROW(FlowStatistics(stream, 0, 1), std::invalid_argument);
  EXPECT_THROW(FlowStatistics(stream, 1, 1, {.area = false}), std::invalid_argument);
  FlowStatistics statistics(stream, 4, 5);
  EXPECT_THROW(statistics.finish(stream, 0.01f), std::invalid_argument);
  Image<float> right(stream, 4, 5), wrong(stream, 5, 4);
  set_zero(stream, right.view());
  EXPECT_THROW(statistics.next_frame(std::numeric_limits<double>::infinity()), std::invalid_argument);
  const FlowTime time = statistics.next_frame(10);
  EXPECT_THROW(statistics.update(stream, wrong, time), std::invalid_argument);
  statistics.update(stream, right, time);
  EXPECT_THROW(statistics.next_frame(10), std::invalid_argument);
  EXPECT_THROW(statistics.finish(stream, -1), std::invalid_argument);
  EXPECT_EQ(statistics.frame_count(), 1);
}

CINELUMEN_ON_ALL_DEVICES(FlowStatisticsTest);

}  // namespace
}  // namespace cinelumen
