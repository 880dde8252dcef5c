/// Non-rigid registration of a mask to a frame that is bent by a formula, with vessels and noise; and the subtraction of the bent mask.
/// "error_px": what was missed across the scene's edges, rms. Baselines: OpenCV's dense inverse search (where its video module is there),
/// which takes contrast for motion, and its remap (bicubic, coefficients of 5 bits) with subtract.

#include "kernels/warp_registration.h"

#include <cmath>
#include <opencv2/imgproc.hpp>
#ifdef CINELUMEN_WITH_OPENCV_VIDEO
#include <opencv2/video/tracking.hpp>
#endif

#include "bench/machine.h"
#include "kernels/bspline.h"
#include "kernels/warped_subtract.h"
#include "tests/reference/mask_registration.h"

namespace cinelumen {
namespace {

constexpr float step = 1e-4f;
constexpr int zero = 20000;
constexpr double amplitude_px = 0.7;

PixelPosition bent(double y, double x, double side) {
  return {y + amplitude_px * std::sin(7 * x / side + 1) * std::cos(5 * y / side),
          x + amplitude_px * std::cos(6 * x / side) * std::sin(6 * y / side + 2)};
}

/// Mask and frame in host memory; the frame stored, with its table.
struct Scenery {
  explicit Scenery(int of_side)
      : side(of_side), scene(side, 4), mask(scene.frame({}, 0.004, false, 1)), stored(side, side), table(65536), valid(side, side) {
    std::mt19937 random(2);
    std::normal_distribution<double> normal(0, 0.01);
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) {
        const PixelPosition p = bent(y, x, side);
        const double value = scene.background(p.y, p.x) + scene.contrast(y, x) + normal(random);
        stored(y, x) = static_cast<std::uint16_t>(std::lround(value / step) + zero);
        valid(y, x) = 1;
      }
    for (int i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i - zero) * step;
  }

  /// Rms of what `place` (of a frame's pixel in the mask) misses, across edges and off the vessels.
  template <class Place>
  double error_px(Place place) const {
    double sum = 0;
    int count = 0;
    for (int y = 16; y < side - 16; y += 2)
      for (int x = 16; x < side - 16; x += 2) {
        const PixelPosition truth = bent(y, x, side), found = place(y, x);
        const double gy = (scene.background(truth.y + 1, truth.x) - scene.background(truth.y - 1, truth.x)) / 2,
                     gx = (scene.background(truth.y, truth.x + 1) - scene.background(truth.y, truth.x - 1)) / 2, g = std::hypot(gy, gx);
        if (g < 0.05 || scene.contrast(y, x) > 0) continue;
        sum += std::pow(((found.y - truth.y) * gy + (found.x - truth.x) * gx) / g, 2);
        ++count;
      }
    return std::sqrt(sum / std::max(count, 1));
  }

  int side;
  reference::Scene scene;
  Image<float> mask;
  Image<std::uint16_t> stored;
  Array<float> table;
  Image<std::uint8_t> valid;
};

/// The same on a device, and the fields.
struct OnDevice {
  OnDevice(const Stream& stream, const Scenery& host)
      : mask(to_device(stream, host.mask.view())),
        stored(to_device(stream, host.stored.view())),
        valid(to_device(stream, host.valid.view())),
        table(stream, host.table.size()),
        to_mask(make_displacement_field(stream, host.side, host.side)),
        to_frame(make_displacement_field(stream, host.side, host.side)),
        placement(stream, 1),
        estimate(stream, 1),
        registration(stream, mask, valid) {
    copy<float>(stream, host.table, table);
    set_zero(stream, placement.view());
    find(stream);
    stream.synchronize();
  }
  void find(const Stream& stream) { registration.enqueue(stream, frame(), placement, to_mask, to_frame, estimate); }
  StoredFrame frame() const { return {stored.view(), table.view()}; }

  Image<float> mask;
  Image<std::uint16_t> stored;
  Image<std::uint8_t> valid;
  Array<float> table;
  Image<float> to_mask, to_frame;
  Array<FramePlacement> placement;
  Array<WarpEstimate> estimate;
  WarpRegistration registration;
};

void registration(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  const Scenery host(side);
  OnDevice device(stream, host);
  const Image<float> field = to_host(stream, device.to_mask.view());
  const double error = host.error_px([&](int y, int x) {
    const Displacement d = displacement_at(field.view(), static_cast<float>(y), static_cast<float>(x));
    return PixelPosition{y + static_cast<double>(d.y), x + static_cast<double>(d.x)};
  });
  if (!(error < 0.2)) state.SkipWithError("the field is wrong");
  for (auto _ : state) {
    device.find(stream);
    stream.synchronize();
  }
  const double bytes = sizeof(std::uint16_t) * static_cast<double>(side) * side;  // what must be read: the frame
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, stream, bytes);
  state.counters["error_px"] = error;
}

void subtraction(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  const Scenery host(side);
  OnDevice device(stream, host);
  Image<float> coefficients(stream, side, side), subtracted(stream, side, side);
  bspline_coefficients(stream, device.mask, coefficients);
  const Image<float> bordered = bordered_coefficients(stream, coefficients.view());
  for (auto _ : state) {
    log_subtract_warped(stream, device.frame(), bordered.view(), device.valid.view(), device.placement, device.to_mask.view(), subtracted);
    stream.synchronize();
  }
  const double bytes = 11.0 * side * side;  // coefficients, validity, the frame as stored; the difference
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, stream, bytes, 90.0 * side * side);
}

void opencv_remap(benchmark::State& state) {
  const int side = static_cast<int>(state.range(0));
  Scenery host(side);
  const cv::Mat mask(side, side, CV_32F, host.mask.row(0), sizeof(float) * static_cast<std::size_t>(host.mask.view().pitch));
  cv::Mat places(side, side, CV_32FC2), frame = mask.clone(), moved, subtracted;
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      const PixelPosition p = bent(y, x, side);
      places.at<cv::Vec2f>(y, x) = {static_cast<float>(p.x), static_cast<float>(p.y)};
    }
  for (auto _ : state) {
    cv::remap(mask, moved, places, cv::Mat(), cv::INTER_CUBIC, cv::BORDER_REFLECT_101);
    cv::subtract(frame, moved, subtracted);
  }
  const double bytes = 20.0 * side * side;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, bytes);
}

#ifdef CINELUMEN_WITH_OPENCV_VIDEO
void opencv_dense_inverse_search(benchmark::State& state) {
  const int side = static_cast<int>(state.range(0));
  const Scenery host(side);
  // It takes 8 bits.
  cv::Mat mask(side, side, CV_8U), frame(side, side, CV_8U), flow;
  const auto grey = [](double value) { return cv::saturate_cast<std::uint8_t>(100 + 90 * value); };
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      mask.at<std::uint8_t>(y, x) = grey(host.mask(y, x));
      frame.at<std::uint8_t>(y, x) = grey(host.table[host.stored(y, x)]);
    }
  const auto search = cv::DISOpticalFlow::create(cv::DISOpticalFlow::PRESET_MEDIUM);
  for (auto _ : state) {
    flow.release();
    search->calc(frame, mask, flow);
  }
  const double bytes = 2.0 * side * side;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, bytes);
  state.counters["error_px"] = host.error_px([&](int y, int x) {
    const cv::Vec2f d = flow.at<cv::Vec2f>(y, x);
    return PixelPosition{y + static_cast<double>(d[1]), x + static_cast<double>(d[0])};
  });
}
#endif

const bool registered = [] {
  bench::register_on_all_devices("warp_registration", registration);
  bench::register_on_all_devices("warped_subtract", subtraction);
#ifdef CINELUMEN_WITH_OPENCV_VIDEO
  bench::register_row("warp_registration/opencv_dense_inverse_search", opencv_dense_inverse_search);
#endif
  bench::register_row("warped_subtract/opencv_remap", opencv_remap);
  return true;
}();

}  // namespace
}  // namespace cinelumen
