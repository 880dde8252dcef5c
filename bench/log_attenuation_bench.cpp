/// Stored values to attenuation. Baseline: OpenCV's convertTo and log, which do the same without a table.

#include "kernels/log_attenuation.h"

#include <cmath>
#include <opencv2/core.hpp>

#include "bench/machine.h"

namespace cinelumen {
namespace {

Image<std::uint16_t> stored_image(int side) {
  Image<std::uint16_t> image(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) image(y, x) = static_cast<std::uint16_t>(500 + (7 * y + 13 * x) % 3000);
  return image;
}

void log_attenuation_rows(benchmark::State& state, const Stream& stream) {
  const int side = static_cast<int>(state.range(0));
  Array<float> table(4096), device_table(stream, 4096);
  for (int i = 0; i < table.size(); ++i) table[i] = -std::log(static_cast<float>(i + 1) / 4096);
  copy<float>(stream, table, device_table);
  const Image<std::uint16_t> host = stored_image(side), stored = to_device(stream, host.view());
  Image<float> attenuation(stream, side, side);
  log_attenuation(stream, stored, device_table, attenuation);
  if (to_host(stream, attenuation.view())(3, 5) != table[host(3, 5)]) state.SkipWithError("not the table's value");
  for (auto _ : state) {
    log_attenuation(stream, stored, device_table, attenuation);
    stream.synchronize();
  }
  const double bytes = 6.0 * side * side;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, stream, bytes);
}

void opencv_log(benchmark::State& state) {
  const int side = static_cast<int>(state.range(0));
  Image<std::uint16_t> host = stored_image(side);
  const cv::Mat stored(side, side, CV_16U, host.row(0), sizeof(std::uint16_t) * static_cast<std::size_t>(host.view().pitch));
  cv::Mat scaled, attenuation;
  for (auto _ : state) {
    stored.convertTo(scaled, CV_32F, 1.0 / 4096);
    cv::log(scaled, attenuation);
  }
  const double bytes = 6.0 * side * side;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  bench::add_limits(state, bytes);
}

const bool registered = [] {
  bench::register_on_all_devices("log_attenuation", log_attenuation_rows);
  bench::register_row("log_attenuation/opencv_log", opencv_log);
  return true;
}();

}  // namespace
}  // namespace cinelumen
