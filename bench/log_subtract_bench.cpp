/// Log subtraction of a moved mask: shift alone, and shift with rotation. Baseline: OpenCV's warpAffine (bicubic, coefficients of 5 bits)
/// and subtract.

#include "kernels/log_subtract.h"

#include <cmath>
#include <opencv2/imgproc.hpp>
#include <string>

#include "bench/machine.h"
#include "kernels/bspline.h"

namespace cinelumen {
namespace {

float scene(float y, float x) { return 1 + 0.3f * std::sin(x / 7) * std::cos(y / 9); }

Image<float> scene_image(int side, float shift_y, float shift_x) {
  Image<float> image(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) image(y, x) = scene(static_cast<float>(y) - shift_y, static_cast<float>(x) - shift_x);
  return image;
}

void subtract(benchmark::State& state, const Stream& stream, float rotation_rad) {
  const int side = static_cast<int>(state.range(0));
  const RigidMotion motion{1.3f, -2.6f, 0};
  const Image<float> mask_host = scene_image(side, 0, 0), frame_host = scene_image(side, motion.shift_y_px, motion.shift_x_px);
  Image<std::uint8_t> valid_host(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) valid_host(y, x) = 1;
  const Image<float> mask = to_device(stream, mask_host.view()), frame = to_device(stream, frame_host.view());
  const Image<std::uint8_t> valid = to_device(stream, valid_host.view());
  Image<float> coefficients(stream, side, side), subtracted(stream, side, side);
  bspline_coefficients(stream, mask, coefficients);
  log_subtract(stream, frame, coefficients, valid, motion, 0, subtracted);
  if (std::abs(to_host(stream, subtracted.view())(side / 2, side / 2)) > 1e-3) state.SkipWithError("the moved mask is not the frame");
  for (auto _ : state) {
    log_subtract(stream, frame, coefficients, valid, {motion.shift_y_px, motion.shift_x_px, rotation_rad}, 0, subtracted);
    stream.synchronize();
  }
  const double bytes = 13.0 * side * side;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, stream, bytes, (rotation_rad == 0 ? 18.0 : 72.0) * side * side);
}

void opencv_subtract(benchmark::State& state) {
  const int side = static_cast<int>(state.range(0));
  Image<float> mask_host = scene_image(side, 0, 0), frame_host = scene_image(side, 1.3f, -2.6f);
  const cv::Mat mask(side, side, CV_32F, mask_host.row(0), sizeof(float) * static_cast<std::size_t>(mask_host.view().pitch));
  const cv::Mat frame(side, side, CV_32F, frame_host.row(0), sizeof(float) * static_cast<std::size_t>(frame_host.view().pitch));
  const cv::Mat motion = (cv::Mat_<double>(2, 3) << 1, 0, -2.6, 0, 1, 1.3);
  cv::Mat moved, subtracted;
  for (auto _ : state) {
    cv::warpAffine(mask, moved, motion, mask.size(), cv::INTER_CUBIC, cv::BORDER_REFLECT_101);
    cv::subtract(frame, moved, subtracted);
  }
  const double bytes = 13.0 * side * side;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, bytes);
}

void add_rows(const std::string& device, const Stream& stream) {
  for (const float rotation_rad : {0.0f, 0.004f})
    benchmark::RegisterBenchmark(((rotation_rad == 0 ? "log_subtract/shift/" : "log_subtract/shift_and_rotation/") + device).c_str(),
                                 subtract, stream, rotation_rad)
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
  benchmark::RegisterBenchmark("log_subtract/opencv_warp_affine_and_subtract", opencv_subtract)
      ->Arg(512)
      ->Arg(1024)
      ->Arg(2048)
      ->MeasureProcessCPUTime()
      ->UseRealTime();
  return 0;
}();

}  // namespace
}  // namespace cinelumen
