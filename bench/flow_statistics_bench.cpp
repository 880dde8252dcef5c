/// Flow statistics per frame. Baseline: OpenCV's maximum, comparison, masked copies and accumulate, without the values beside the peak.

#include "kernels/flow_statistics.h"

#include <opencv2/imgproc.hpp>

#include "bench/machine.h"

namespace cinelumen {
namespace {

Image<float> ramp(int side, float height) {
  Image<float> image(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) image(y, x) = height * static_cast<float>((x * 7 + y * 13) % 101) / 101.0f;
  return image;
}

void flow_statistics(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  const Image<float> host[2] = {ramp(side, 0.4f), ramp(side, 0.5f)};
  const Image<float> frames[2] = {to_device(stream, host[0].view()), to_device(stream, host[1].view())};
  FlowStatistics statistics(stream, side, side);
  double time_ms = 0;
  statistics.update(stream, frames[0], statistics.next_frame(0));
  for (auto _ : state) {
    time_ms += 100;
    const FlowTime time = statistics.next_frame(time_ms);
    statistics.update(stream, frames[time.frame % 2], time);
    stream.synchronize();
  }
  const FlowImages images = statistics.finish(stream, 0.01f);
  if (to_host(stream, images.maximum.view())(0, 10) != host[1](0, 10)) state.SkipWithError("wrong maximum");
  const double bytes = 15.0 * sizeof(float) * side * side;  // the frame in; seven planes in and out
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, stream, bytes, 14.0 * side * side);
}

void opencv_maximum(benchmark::State& state) {
  const int side = static_cast<int>(state.range(0));
  Image<float> host[2] = {ramp(side, 0.4f), ramp(side, 0.5f)};
  cv::Mat maximum = cv::Mat::zeros(side, side, CV_32F), time = cv::Mat::zeros(side, side, CV_32F),
          area = cv::Mat::zeros(side, side, CV_32F), moment = cv::Mat::zeros(side, side, CV_32F), higher;
  int i = 0;
  for (auto _ : state) {
    Image<float>& frame = host[++i % 2];
    const cv::Mat contrast(side, side, CV_32F, frame.row(0), sizeof(float) * static_cast<std::size_t>(frame.view().pitch));
    cv::compare(contrast, maximum, higher, cv::CMP_GT);
    contrast.copyTo(maximum, higher);
    time.setTo(static_cast<float>(i), higher);
    cv::accumulate(contrast, area);
    cv::scaleAdd(contrast, static_cast<double>(i), moment, moment);
  }
  bench::add_limits(state, 9.0 * sizeof(float) * side * side);
}

const bool registered = [] {
  bench::register_on_all_devices("flow_statistics", flow_statistics);
  bench::register_row("flow_statistics/opencv_maximum", opencv_maximum);
  return true;
}();

}  // namespace
}  // namespace cinelumen
