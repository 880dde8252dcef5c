/// Double threshold and components on a vessel-like noise gate (4 to 5 % of the pixels set), beside OpenCV's connectedComponentsWithStats.

#include "kernels/hysteresis.h"

#include <benchmark/benchmark.h>

#include <opencv2/imgproc.hpp>

#include "bench/machine.h"
#include "tests/support/vessel_gate.h"

namespace cinelumen {
namespace {

void hysteresis(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  const Image<float> host = test::vessel_gate(side);
  const Image<float> z = to_device(stream, host.view());
  Image<std::uint8_t> mask(stream, side, side);
  Hysteresis components(stream, side, side);
  int count = components.segment(z, {}, {}, mask);
  Image<std::uint8_t> low(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) low(y, x) = host(y, x) >= 2.75f;
  cv::Mat labels;
  const int all = cv::connectedComponents(cv::Mat(side, side, CV_8U, low.row(0), low.view().pitch), labels, 8);
  Image<std::uint8_t> device_low = to_device(stream, low.view());
  Image<int> device_labels(stream, side, side);
  if (components.label(device_low.view(), device_labels) != all - 1) state.SkipWithError("number of components differs from OpenCV's");
  for (auto _ : state) {
    benchmark::DoNotOptimize(count = components.segment(z, {}, {}, mask));
    stream.synchronize();
  }
  bench::add_limits(state, stream, 5.0 * side * side);
  state.counters["kept"] = count;
}

void hysteresis_opencv(benchmark::State& state) {
  cv::setNumThreads(1);
  const int side = static_cast<int>(state.range(0));
  Image<float> host = test::vessel_gate(side);
  const cv::Mat z(side, side, CV_32F, host.row(0), host.view().pitch * sizeof(float));
  cv::Mat low, labels, stats, centroids, mask(side, side, CV_8U);
  for (auto _ : state) {
    cv::compare(z, 2.75, low, cv::CMP_GE);
    const int count = cv::connectedComponentsWithStats(low, labels, stats, centroids, 8, CV_32S);
    std::vector<std::uint8_t> high(count, 0), keep(count, 0);
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x)
        if (z.at<float>(y, x) >= 5) high[labels.at<int>(y, x)] = 1;
    for (int i = 1; i < count; ++i) keep[i] = high[i] && stats.at<int>(i, cv::CC_STAT_AREA) >= 30;
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) mask.at<std::uint8_t>(y, x) = keep[labels.at<int>(y, x)];
    benchmark::DoNotOptimize(mask.data);
  }
  state.SetBytesProcessed(state.iterations() * side * side * 5);
}

const bool registered = [] {
  bench::register_on_all_devices("hysteresis", hysteresis);
  bench::register_row("hysteresis/opencv_components", hysteresis_opencv);
  return true;
}();

}  // namespace
}  // namespace cinelumen
