/// Registration of a mask to a frame with vessels and noise, from the previous frame's motion and from nowhere. "error_px": what it missed
/// the true shift by. Baseline: OpenCV's phaseCorrelate, which vessels mislead.

#include "kernels/mask_registration.h"

#include <cmath>
#include <opencv2/imgproc.hpp>

#include "bench/machine.h"
#include "tests/reference/mask_registration.h"

namespace cinelumen {
namespace {

constexpr RigidMotion truth{2.3f, -1.4f, 0};

struct Pair {
  Image<float> mask, frame;
};
Pair make_pair(int side) {
  const reference::Scene scene(side, 4);
  return {scene.frame({}, 0.004, false, 1), scene.frame(truth, 0.01, true, 2)};
}

void registration(benchmark::State& state, const Stream& stream, bool start_given) {
  const int side = static_cast<int>(state.range(0));
  const Pair host = make_pair(side);
  Image<std::uint8_t> valid_host(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) valid_host(y, x) = 1;
  const Image<float> mask = to_device(stream, host.mask.view()), frame = to_device(stream, host.frame.view());
  const Image<std::uint8_t> valid = to_device(stream, valid_host.view());
  MaskRegistration registration(stream, mask, valid);
  const std::optional<RigidMotion> start = start_given ? std::optional(RigidMotion{2, -1, 0}) : std::nullopt;
  const RigidEstimate found = registration.estimate(stream, frame, start);
  const double error = std::hypot(found.motion.shift_y_px - truth.shift_y_px, found.motion.shift_x_px - truth.shift_x_px);
  if (!(error < 0.05)) state.SkipWithError("the shift is wrong");
  for (auto _ : state) benchmark::DoNotOptimize(registration.estimate(stream, frame, start));
  const double bytes = sizeof(float) * static_cast<double>(side) * side;  // what must be read: the frame
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, stream, bytes);
  state.counters["error_px"] = error;
}

void opencv_phase_correlate(benchmark::State& state) {
  const int side = static_cast<int>(state.range(0));
  Pair host = make_pair(side);
  const cv::Mat mask(side, side, CV_32F, host.mask.row(0), sizeof(float) * static_cast<std::size_t>(host.mask.view().pitch));
  const cv::Mat frame(side, side, CV_32F, host.frame.row(0), sizeof(float) * static_cast<std::size_t>(host.frame.view().pitch));
  cv::Mat window;
  cv::createHanningWindow(window, mask.size(), CV_32F);
  cv::Point2d shift;
  for (auto _ : state) shift = cv::phaseCorrelate(mask, frame, window);
  const double bytes = sizeof(float) * static_cast<double>(side) * side;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, bytes);
  state.counters["error_px"] = std::hypot(shift.y - truth.shift_y_px, shift.x - truth.shift_x_px);
}

const bool registered = [] {
  bench::register_on_all_devices("mask_registration/from_start",
                                 [](benchmark::State& state, const Stream& stream) { registration(state, stream, true); });
  bench::register_on_all_devices("mask_registration/search",
                                 [](benchmark::State& state, const Stream& stream) { registration(state, stream, false); });
  bench::register_row("mask_registration/opencv_phase_correlate", opencv_phase_correlate);
  return true;
}();

}  // namespace
}  // namespace cinelumen
