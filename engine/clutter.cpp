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
  double overall = 0;
};

// Median of the positive z at pixels where each scale wins.
ScaleMedians positive_medians(const Image<float>& z, const Image<float>& scale_px, ImageView<const std::uint8_t> valid) {
  std::array<std::vector<float>, vesselness_scale_count> values;
  std::vector<float> all;
  for (int y = 0; y < z.height(); y += 2)
    for (int x = 0; x < z.width(); x += 2) {
      if ((valid.data && !valid(y, x)) || !(z(y, x) > 0)) continue;
      const auto scale = std::find(vesselness_scales_px.begin(), vesselness_scales_px.end(), scale_px(y, x));
      if (scale == vesselness_scales_px.end()) continue;
      values[scale - vesselness_scales_px.begin()].push_back(z(y, x));
      all.push_back(z(y, x));
    }
  const auto median = [](std::vector<float>& v) {
    if (v.empty()) return 0.0;
    std::nth_element(v.begin(), v.begin() + v.size() / 2, v.end());
    return static_cast<double>(v[v.size() / 2]);
  };
  ScaleMedians result;
  for (int i = 0; i < vesselness_scale_count; ++i) {
    result.count[i] = static_cast<long>(values[i].size());
    result.median[i] = median(values[i]);
  }
  result.overall = median(all);
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
  VesselnessMap map = make_vesselness_map(stream, side, side);
  Vesselness(stream, side, side).compute(stream, noise.view(), {}, options, map);
  return made.emplace(key, positive_medians(map.z, map.scale_px, {})).first->second;
}

}  // namespace

Image<float> local_noise_weight(const Run& run, const NoiseModel& noise, int frame) {
  const int height = run.rows(), width = run.columns();
  Image<std::uint16_t> stored(height, width);
  run.frames->read_frame(frame, stored.view());
  // Box sums of the variance by an integral image: smooth enough, and as quick for any width.
  constexpr int reach = 8;
  std::vector<double> sum(static_cast<std::size_t>(height + 1) * (width + 1), 0), count(sum.size(), 0);
  const auto at = [&](int y, int x) { return static_cast<std::size_t>(y) * (width + 1) + x; };
  for (int y = 0; y < height; ++y) {
    double row_sum = 0, row_count = 0;
    for (int x = 0; x < width; ++x) {
      if (run.field.mask(y, x)) {
        row_sum += noise.variance[std::min<std::size_t>(stored(y, x), noise.variance.size() - 1)];
        row_count += 1;
      }
      sum[at(y + 1, x + 1)] = sum[at(y, x + 1)] + row_sum;
      count[at(y + 1, x + 1)] = count[at(y, x + 1)] + row_count;
    }
  }
  Image<float> weight(height, width);
  const double typical = std::max(noise.log_sd_at_median * noise.log_sd_at_median, 1e-12);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const int y0 = std::max(0, y - reach), y1 = std::min(height, y + reach + 1), x0 = std::max(0, x - reach),
                x1 = std::min(width, x + reach + 1);
      const auto box = [&](const std::vector<double>& s) { return s[at(y1, x1)] - s[at(y0, x1)] - s[at(y1, x0)] + s[at(y0, x0)]; };
      const double n = box(count);
      weight(y, x) = n > 0 ? static_cast<float>(std::clamp(std::sqrt(typical * n / std::max(box(sum), 1e-15)), 0.05, 20.0)) : 1.0f;
    }
  return weight;
}

std::array<float, vesselness_scale_count> clutter_factors(const Stream& stream, const VesselnessMap& map,
                                                          ImageView<const std::uint8_t> valid, const VesselnessOptions& options) {
  const ScaleMedians& white = white_noise_medians(options.min_scale_px, options.max_scale_px);
  const ScaleMedians here = positive_medians(to_host(stream, map.z.view()), to_host(stream, map.scale_px.view()), valid);
  constexpr long enough = 400;
  const auto limited = [](double factor) { return static_cast<float>(std::clamp(factor, 0.8, 20.0)); };
  std::array<float, vesselness_scale_count> factors;
  for (int i = 0; i < vesselness_scale_count; ++i) {
    const bool own = here.count[i] >= enough && white.count[i] >= enough && white.median[i] > 0;
    factors[i] = limited(own ? here.median[i] / white.median[i] : white.overall > 0 ? here.overall / white.overall : 1.0);
  }
  return factors;
}

}  // namespace cinelumen
