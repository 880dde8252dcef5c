/// Log subtraction of a moved mask: shift alone, with a small and with a large rotation; from a plane, from stored values, and from stored
/// values carried onto the mask. Baseline: OpenCV's warpAffine (bicubic, coefficients of 5 bits)
/// and subtract.

#include "kernels/log_subtract.h"

#include <cmath>
#include <opencv2/imgproc.hpp>
#include <string>
#include <utility>

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

/// What is subtracted from, and where the difference is wanted.
enum class Way { plane, stored, onto_mask };

void subtract(benchmark::State& state, const Stream& stream, float rotation_rad, Way way) {
  const int side = static_cast<int>(state.range(0));
  const RigidMotion shift{1.3f, -2.6f, 0}, motion{shift.shift_y_px, shift.shift_x_px, rotation_rad};
  const Image<float> mask_host = scene_image(side, 0, 0), frame_host = scene_image(side, shift.shift_y_px, shift.shift_x_px);
  Image<std::uint8_t> valid_host(side, side);
  Image<std::uint16_t> stored_host(side, side);
  Array<float> table_host(4096), table(stream, 4096);
  for (int i = 0; i < table_host.size(); ++i) table_host[i] = static_cast<float>(i) / 2000;
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      valid_host(y, x) = 1;
      stored_host(y, x) = static_cast<std::uint16_t>(std::lround(2000 * frame_host(y, x)));
    }
  const Image<float> mask = to_device(stream, mask_host.view()), frame = to_device(stream, frame_host.view());
  const Image<std::uint16_t> stored = to_device(stream, stored_host.view());
  copy<float>(stream, table_host, table);
  const Image<std::uint8_t> valid = to_device(stream, valid_host.view());
  Image<float> coefficients(stream, side, side), subtracted(stream, side, side);
  bspline_coefficients(stream, mask, coefficients);
  const auto work = [&](const RigidMotion& by) {
    if (way == Way::plane)
      log_subtract(stream, frame, coefficients, valid, FramePlacement{by, 0}, subtracted);
    else if (way == Way::stored)
      log_subtract(stream, StoredFrame{stored.view(), table.view()}, coefficients, valid, FramePlacement{by, 0}, subtracted);
    else
      log_subtract_onto_mask(stream, {stored.view(), table.view()}, coefficients, valid, FramePlacement{by, 0}, subtracted);
  };
  work(shift);
  if (std::abs(to_host(stream, subtracted.view())(side / 2, side / 2)) > 1e-3) state.SkipWithError("the moved mask is not the frame");
  for (auto _ : state) {
    work(motion);
    stream.synchronize();
  }
  // Coefficients, validity, the frame as it comes; the difference.
  const double bytes = (way == Way::plane ? 13.0 : 11.0) * side * side;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, stream, bytes, (way == Way::onto_mask ? 36.0 : (rotation_rad <= 0.005f ? 20.0 : 72.0)) * side * side);
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

const bool registered = [] {
  for (const auto& [name, rotation_rad] : {std::pair{"shift", 0.0f}, {"small_rotation", 0.0004f}, {"rotation", 0.01f}}) {
    const std::string row = std::string("log_subtract/") + name;
    const auto add = [&](const std::string& way_name, Way way) {
      bench::register_on_all_devices(row + way_name, [way, rotation = rotation_rad](benchmark::State& state, const Stream& stream) {
        subtract(state, stream, rotation, way);
      });
    };
    add("", Way::plane);
    add("/stored", Way::stored);
    add("/stored_onto_mask", Way::onto_mask);
  }
  bench::register_row("log_subtract/opencv_warp_affine_and_subtract", opencv_subtract);
  return true;
}();

}  // namespace
}  // namespace cinelumen
