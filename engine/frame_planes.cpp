#include "engine/frame_planes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

namespace cinelumen {
namespace {

constexpr int plane_side_px = 256, least_plane_side_px = 64;
constexpr std::int64_t most_bytes = 128 << 20;
constexpr int slow_radius_px = 12;  // at plane_side_px: wider than any vessel
constexpr int brightness_blocks = 16;

Image<float> read_binned(const Run& run, const IntensityModel& intensity, int frame, int bin) {
  Image<std::uint16_t> stored(run.rows(), run.columns());
  run.frames->read_frame(frame, stored.view());
  const int height = run.rows() / bin, width = run.columns() / bin, last = static_cast<int>(intensity.attenuation.size()) - 1;
  Image<float> result(height, width);
  const float weight = 1.0f / static_cast<float>(bin * bin);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      float sum = 0;
      for (int j = 0; j < bin; ++j)
        for (int i = 0; i < bin; ++i) sum += intensity.attenuation[std::min<int>(stored(y * bin + j, x * bin + i), last)];
      result(y, x) = sum * weight;
    }
  return result;
}

/// Mean over a (2 radius + 1)-square of what is valid there.
Image<float> local_mean(ImageView<const float> image, ImageView<const std::uint8_t> valid, int radius) {
  const int height = image.height, width = image.width;
  Image<float> result(height, width);
  std::vector<double> sum(static_cast<std::size_t>(width) + 1), count(static_cast<std::size_t>(width) + 1);
  std::vector<double> column_sum(static_cast<std::size_t>(width)), column_count(static_cast<std::size_t>(width));
  const auto add_row = [&](int y, double sign) {
    if (y < 0 || y >= height) return;
    for (int x = 0; x < width; ++x)
      if (valid(y, x)) {
        column_sum[static_cast<std::size_t>(x)] += sign * image(y, x);
        column_count[static_cast<std::size_t>(x)] += sign;
      }
  };
  for (int y = 0; y < radius; ++y) add_row(y, 1);
  for (int y = 0; y < height; ++y) {
    add_row(y + radius, 1);
    add_row(y - radius - 1, -1);
    for (std::size_t x = 0; x < static_cast<std::size_t>(width); ++x) {
      sum[x + 1] = sum[x] + column_sum[x];
      count[x + 1] = count[x] + column_count[x];
    }
    for (int x = 0; x < width; ++x) {
      const auto low = static_cast<std::size_t>(std::max(0, x - radius)), high = static_cast<std::size_t>(std::min(width, x + radius + 1));
      const double n = count[high] - count[low];
      result(y, x) = n > 0 ? static_cast<float>((sum[high] - sum[low]) / n) : 0;
    }
  }
  return result;
}

/// Takes out what varies slowly: exposure, breathing lungs, the intensifier's shading.
void remove_slow(Image<float>& image, ImageView<const std::uint8_t> valid, int radius) {
  const Image<float> once = local_mean(image.view(), valid, radius), twice = local_mean(once.view(), valid, radius);
  for (int y = 0; y < image.height(); ++y)
    for (int x = 0; x < image.width(); ++x) image(y, x) = valid(y, x) ? image(y, x) - twice(y, x) : 0;
}

Image<float> block_means(const Image<float>& image, ImageView<const std::uint8_t> valid) {
  const int rows = std::min(brightness_blocks, image.height()), columns = std::min(brightness_blocks, image.width());
  Image<float> result(rows, columns);
  for (int j = 0; j < rows; ++j)
    for (int i = 0; i < columns; ++i) {
      const int y0 = j * image.height() / rows, y1 = (j + 1) * image.height() / rows;
      const int x0 = i * image.width() / columns, x1 = (i + 1) * image.width() / columns;
      double sum = 0;
      int count = 0;
      for (int y = y0; y < y1; ++y)
        for (int x = x0; x < x1; ++x)
          if (valid(y, x)) {
            sum += image(y, x);
            ++count;
          }
      result(j, i) = 2 * count >= (y1 - y0) * (x1 - x0) ? static_cast<float>(sum / count) : std::numeric_limits<float>::quiet_NaN();
    }
  return result;
}

}  // namespace

FramePlanes read_frame_planes(const Run& run, const IntensityModel& intensity, int first, int last) {
  if (first < 0 || last < first || last >= run.frame_count())
    throw std::invalid_argument("read_frame_planes: frames " + std::to_string(first) + " to " + std::to_string(last) + " of a run of " +
                                std::to_string(run.frame_count()));
  FramePlanes result;
  result.first = first;
  const int longer = std::max(run.rows(), run.columns()), count = last - first + 1;
  int side = plane_side_px;
  while (side > least_plane_side_px && static_cast<std::int64_t>(count) * side * side * 4 > most_bytes) side /= 2;
  const int bin = result.bin = std::max(1, (longer + side - 1) / side);
  const int radius = std::max(3, slow_radius_px * side / plane_side_px);
  result.height = run.rows() / bin;
  result.width = run.columns() / bin;
  result.valid = Image<std::uint8_t>(result.height, result.width);
  const ImageView<const std::uint8_t> field = run.field.valid();
  for (int y = 0; y < result.height; ++y)
    for (int x = 0; x < result.width; ++x) {
      bool all = true;
      for (int j = 0; j < bin; ++j)
        for (int i = 0; i < bin; ++i) all = all && field(y * bin + j, x * bin + i);
      result.valid(y, x) = all;
    }
  result.planes.resize(static_cast<std::size_t>(count));
  result.brightness.resize(static_cast<std::size_t>(count));
  parallel_for(count, [&](int i) {
    Image<float> plane = read_binned(run, intensity, first + i, bin);
    result.brightness[i] = block_means(plane, result.valid.view());
    remove_slow(plane, result.valid.view(), radius);
    result.planes[i] = std::move(plane);
  });
  return result;
}

FramePlanes part_of(FramePlanes planes, int first, int last) {
  const auto cut = [&](std::vector<Image<float>>& list) {
    list.erase(list.begin() + (last - planes.first + 1), list.end());
    list.erase(list.begin(), list.begin() + (first - planes.first));
  };
  cut(planes.planes);
  cut(planes.brightness);
  planes.first = first;
  return planes;
}

}  // namespace cinelumen
