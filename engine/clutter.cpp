#include "engine/clutter.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <random>
#include <vector>

namespace cinelumen {
namespace {

struct ScaleMedians {
  std::array<double, vesselness_scale_count> median{};
  std::array<long, vesselness_scale_count> count{};
  double overall = 0;  // of all scales
};

// Median of the positive z at pixels where each scale wins.
ScaleMedians positive_medians(ImageView<const float> z, ImageView<const float> scale_px, ImageView<const std::uint8_t> valid) {
  std::array<std::vector<float>, vesselness_scale_count> values;
  for (int y = 0; y < z.height; y += 2) {
    int scale = 0;  // neighbours mostly agree
    for (int x = 0; x < z.width; x += 2) {
      if (!(z(y, x) > 0) || (valid.data && !valid(y, x))) continue;
      const float won = scale_px(y, x);
      if (vesselness_scales_px[scale] != won)
        scale = static_cast<int>(std::find(vesselness_scales_px.begin(), vesselness_scales_px.end(), won) - vesselness_scales_px.begin());
      if (scale < vesselness_scale_count)
        values[scale].push_back(z(y, x));
      else
        scale = 0;
    }
  }
  const auto median = [](std::vector<float>& v) {
    if (v.empty()) return 0.0;
    std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
    return static_cast<double>(v[v.size() / 2]);
  };
  ScaleMedians result;
  std::vector<float> some;  // of all scales alike
  for (int i = 0; i < vesselness_scale_count; ++i) {
    for (std::size_t k = 0; k < values[i].size(); k += 5) some.push_back(values[i][k]);
    result.count[i] = static_cast<long>(values[i].size());
    result.median[i] = median(values[i]);
  }
  result.overall = median(some);
  return result;
}

// The same for white noise, with the same scales. Made once for each pair of bounds.
const ScaleMedians& white_noise_medians(float min_scale_px, float max_scale_px) {
  static std::mutex mutex;
  static std::map<std::pair<float, float>, ScaleMedians> made;
  const std::lock_guard lock(mutex);
  const std::pair<float, float> key = {min_scale_px, max_scale_px};
  const auto found = made.find(key);
  if (found != made.end()) return found->second;
  constexpr int side = 384;
  Image<float> noise(side, side);
  std::mt19937 random(7);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      // Twelve uniform numbers make a Gaussian one, the same with every standard library.
      double sum = -6;
      for (int k = 0; k < 12; ++k) sum += random() / 4294967296.0;
      noise(y, x) = static_cast<float>(sum);
    }
  const Stream stream = Stream::cpu({.parallel = false});
  VesselnessOptions options;
  options.noise_sd = 1;
  options.min_scale_px = min_scale_px;
  options.max_scale_px = max_scale_px;
  options.planes = VesselnessPlanes::z_and_scale;
  VesselnessMap map = make_vesselness_map(stream, side, side);
  Vesselness(stream, side, side).compute(stream, noise.view(), options, map);
  return made.emplace(key, positive_medians(map.z.view(), map.scale_px.view(), {})).first->second;
}

}  // namespace

Image<float> local_noise_weight(const Run& run, const NoiseModel& noise, int frame) {
  const int height = run.rows(), width = run.columns();
  Image<std::uint16_t> stored(height, width);
  run.frames->read_frame(frame, stored.view());
  // Box sums, cut off at the border: along columns for a row at a time, then along the row.
  constexpr int reach = 8;
  const int rows_held = 2 * reach + 1;
  const std::size_t table_last = noise.variance.size() - 1;
  std::vector<float> held(static_cast<std::size_t>(rows_held) * width), inside(held.size());  // the last rows that came in
  std::vector<double> column_sum(static_cast<std::size_t>(width), 0), column_count(column_sum), sum(column_sum.size() + 1), count(sum);
  const auto take_out = [&](int y) {
    const std::size_t at = static_cast<std::size_t>(y % rows_held) * width;
    for (int x = 0; x < width; ++x) {
      column_sum[x] -= held[at + x];
      column_count[x] -= inside[at + x];
    }
  };
  const auto bring_in = [&](int y) {
    const std::size_t at = static_cast<std::size_t>(y % rows_held) * width;
    const std::uint16_t* values = stored.row(y);
    const std::uint8_t* valid = run.field.mask.row(y);
    for (int x = 0; x < width; ++x) {
      const float one = valid[x] ? 1.0f : 0.0f;
      inside[at + x] = one;
      held[at + x] = one * noise.variance[std::min<std::size_t>(values[x], table_last)];
      column_sum[x] += held[at + x];
      column_count[x] += one;
    }
  };
  Image<float> weight(height, width);
  const double typical = std::max(noise.log_sd_at_median * noise.log_sd_at_median, 1e-12);
  for (int y = 0; y < std::min(reach, height); ++y) bring_in(y);
  for (int y = 0; y < height; ++y) {
    if (y - reach - 1 >= 0) take_out(y - reach - 1);
    if (y + reach < height) bring_in(y + reach);
    for (std::size_t x = 0; x < column_sum.size(); ++x) {
      sum[x + 1] = sum[x] + column_sum[x];
      count[x + 1] = count[x] + column_count[x];
    }
    float* to = weight.row(y);
    const auto weigh = [&](int x, int x0, int x1) {
      const double n = count[x1] - count[x0], variance = std::max(sum[x1] - sum[x0], 1e-15);
      const float w = static_cast<float>(std::sqrt(typical * n / variance));
      to[x] = n > 0.5 ? std::clamp(w, 0.05f, 20.0f) : 1.0f;
    };
    for (int x = 0; x < std::min(reach, width); ++x) weigh(x, 0, std::min(width, x + reach + 1));
    for (int x = reach; x < width - reach; ++x) weigh(x, x - reach, x + reach + 1);
    for (int x = std::max(reach, width - reach); x < width; ++x) weigh(x, std::max(0, x - reach), width);
  }
  return weight;
}

std::array<float, vesselness_scale_count> clutter_factors(const Stream& stream, const VesselnessMap& map,
                                                          ImageView<const std::uint8_t> valid, const VesselnessOptions& options) {
  const ScaleMedians& white = white_noise_medians(options.min_scale_px, options.max_scale_px);
  Image<float> z, scale_px;
  if (stream.on_cuda()) {
    z = to_host(stream, map.z.view());
    scale_px = to_host(stream, map.scale_px.view());
  }
  const ScaleMedians here =
      stream.on_cuda() ? positive_medians(z.view(), scale_px.view(), valid) : positive_medians(map.z.view(), map.scale_px.view(), valid);
  constexpr long enough = 400;
  const auto limited = [](double factor) { return static_cast<float>(std::clamp(factor, 0.8, 20.0)); };
  std::array<float, vesselness_scale_count> factors;
  for (int i = 0; i < vesselness_scale_count; ++i) {
    const bool own = here.count[i] >= enough && white.count[i] >= enough && white.median[i] > 0;
    factors[i] = limited(own ? here.median[i] / white.median[i] : white.overall > 0 ? here.overall / white.overall : 1.0);
  }
  return factors;
}

float overall_clutter(const Stream& stream, const VesselnessMap& map) {
  constexpr int apart = 8, apart_in_row = 4;
  const ImageView<const float> z = map.z.view();
  const ImageView<const float> rows{z.data, (z.height + apart - 1) / apart, z.width, z.pitch * apart};
  Image<float> copied;
  if (stream.on_cuda()) copied = to_host(stream, rows);
  const ImageView<const float> read = stream.on_cuda() ? copied.view() : rows;
  std::vector<float> values;
  for (int y = 0; y < read.height; ++y)
    for (int x = 0; x < read.width; x += apart_in_row)
      if (read(y, x) > 0) values.push_back(read(y, x));
  constexpr std::size_t enough = 400;
  const VesselnessOptions usual;
  const double white = white_noise_medians(usual.min_scale_px, usual.max_scale_px).overall;
  if (values.size() < enough || !(white > 0)) return 1;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return static_cast<float>(std::clamp(values[values.size() / 2] / white, 1.0, 20.0));
}

}  // namespace cinelumen
