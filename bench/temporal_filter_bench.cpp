/// Temporal filter per frame, with a shift of a fraction of a pixel. Baseline: OpenCV's accumulateWeighted with a warped state (no test for
/// change).

#include "kernels/temporal_filter.h"

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>
#include <random>

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

void temporal_filter(benchmark::State& state, const Stream& stream, float shift_y_px, float shift_x_px) {
  const int side = static_cast<int>(state.range(0));
  const Image<float> host[2] = {noise(side, 1), noise(side, 2)};
  const Image<float> frames[2] = {to_device(stream, host[0].view()), to_device(stream, host[1].view())};
  TemporalFilter filter(stream, side, side, 0.02f);
  filter.step(stream, 0, frames[0]);
  const double ratio = mean_square(to_host(stream, filter.step(stream, 1, frames[1]))) / mean_square(host[0].view());
  if (std::abs(ratio - 0.5) > 0.02) state.SkipWithError("two frames do not halve the variance");
  int i = 1;
  FramePlacement placement;
  for (auto _ : state) {
    placement.motion.shift_y_px += shift_y_px;
    placement.motion.shift_x_px += shift_x_px;
    ++i;
    filter.step(stream, i % 2, frames[i % 2], placement);
    stream.synchronize();
  }
  // Frame, state and precision in; state and precision out.
  const double bytes = (3.0 * sizeof(float) + 2.0 * sizeof(TemporalFilter::Precision)) * side * side;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, stream, bytes, 60.0 * side * side);
}

void with_statistics(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  const Image<float> host[2] = {noise(side, 1), noise(side, 2)};
  const Image<float> frames[2] = {to_device(stream, host[0].view()), to_device(stream, host[1].view())};
  TemporalFilter filter(stream, side, side, 0.02f);
  FlowStatistics statistics(stream, side, side, {.area = false, .mean_time = false});
  double time_ms = 0;
  filter.step(stream, 0, frames[0], statistics, statistics.next_frame(0));
  const float first = host[0](5, 9),
              second = to_host(stream, filter.step(stream, 1, frames[1], statistics, statistics.next_frame(time_ms += 40)))(5, 9);
  if (to_host(stream, statistics.finish(stream, 0.01f).maximum.view())(5, 9) != std::max(first, second))
    state.SkipWithError("wrong maximum");
  int i = 1;
  for (auto _ : state) {
    ++i;
    filter.step(stream, i % 2, frames[i % 2], statistics, statistics.next_frame(time_ms += 40));
    stream.synchronize();
  }
  // The filter's five; maximum, its frame and its neighbours in and out.
  const double bytes = (11.0 * sizeof(float) + 2.0 * sizeof(TemporalFilter::Precision)) * side * side;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, stream, bytes, 66.0 * side * side);
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

const bool registered = [] {
  bench::register_on_all_devices("temporal_filter/moved",
                                 [](benchmark::State& state, const Stream& stream) { temporal_filter(state, stream, 0.3f, -1.6f); });
  bench::register_on_all_devices("temporal_filter/still",
                                 [](benchmark::State& state, const Stream& stream) { temporal_filter(state, stream, 0, 0); });
  bench::register_on_all_devices("temporal_filter/still_with_statistics", with_statistics);
  bench::register_row("temporal_filter/opencv_running_average", opencv_running_average);
  return true;
}();

}  // namespace
}  // namespace cinelumen
