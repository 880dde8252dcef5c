/// Temporal filter per frame, with a shift of a fraction of a pixel. Baseline: OpenCV's accumulateWeighted with a warped state (no test for
/// change).

#include "kernels/temporal_filter.h"

#include <cmath>
#include <opencv2/imgproc.hpp>
#include <random>
#include <string>

#include "bench/machine.h"

namespace cinelumen {
namespace {

Image<float> noise(int side, unsigned seed) {
  Image<float> image(side, side);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) image(y, x) = normal(random);
  return image;
}

double mean_square(ImageView<const float> image) {
  double sum = 0;
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x) sum += double(image(y, x)) * image(y, x);
  return sum / image.height / image.width;
}

void temporal_filter(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  const Image<float> host[2] = {noise(side, 1), noise(side, 2)};
  const Image<float> frames[2] = {to_device(stream, host[0].view()), to_device(stream, host[1].view())};
  Image<float> filtered(stream, side, side);
  TemporalFilter filter(stream, side, side);
  filter.apply(stream, frames[0], 0.02f, 0, 0, filtered);
  filter.apply(stream, frames[1], 0.02f, 0, 0, filtered);
  const double ratio = mean_square(to_host(stream, filtered.view())) / mean_square(host[0].view());
  if (std::abs(ratio - 0.5) > 0.02) state.SkipWithError("two frames do not halve the variance");
  int i = 0;
  for (auto _ : state) {
    filter.apply(stream, frames[++i % 2], 0.02f, 0.3f, -1.6f, filtered);
    stream.synchronize();
  }
  const double bytes = 6.0 * sizeof(float) * side * side;  // frame, state and variance in; filtered, state and variance out
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, stream, bytes, 60.0 * side * side);
}

void opencv_running_average(benchmark::State& state) {
  const int side = static_cast<int>(state.range(0));
  Image<float> host[2] = {noise(side, 1), noise(side, 2)};
  cv::Mat average = cv::Mat::zeros(side, side, CV_32F), moved;
  const cv::Mat shift = (cv::Mat_<double>(2, 3) << 1, 0, -1.6, 0, 1, 0.3);
  int i = 0;
  for (auto _ : state) {
    Image<float>& frame = host[++i % 2];
    cv::warpAffine(average, moved, shift, average.size(), cv::INTER_CUBIC, cv::BORDER_REPLICATE);
    cv::accumulateWeighted(cv::Mat(side, side, CV_32F, frame.row(0), sizeof(float) * static_cast<std::size_t>(frame.view().pitch)), moved,
                           0.15);
    std::swap(average, moved);
  }
  const double bytes = 3.0 * sizeof(float) * side * side;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, bytes);
}

void add_rows(const std::string& device, const Stream& stream) {
  benchmark::RegisterBenchmark(("temporal_filter/" + device).c_str(), temporal_filter, stream)
      ->Arg(512)
      ->Arg(1024)
      ->Arg(2048)
      ->MeasureProcessCPUTime()
      ->UseRealTime();
}

const int registered = [] {
  add_rows("cpu_1_thread", Stream::cpu({.parallel = false}));
  add_rows("cpu", Stream::cpu());
  for (int i = 0; i < cuda_device_count(); ++i) add_rows("cuda" + std::to_string(i), Stream::cuda(i));
  benchmark::RegisterBenchmark("temporal_filter/opencv_running_average", opencv_running_average)
      ->Arg(512)
      ->Arg(1024)
      ->Arg(2048)
      ->MeasureProcessCPUTime()
      ->UseRealTime();
  return 0;
}();

}  // namespace
}  // namespace cinelumen
