#include "engine/frame_planes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace cinelumen {
namespace {

constexpr int plane_side_px = 256, least_plane_side_px = 64;
constexpr std::int64_t most_bytes = 128 << 20;
constexpr int slow_radius_px = 12;  // at plane_side_px: wider than any vessel
constexpr int brightness_blocks = 16;

// Sums of bin x bin stored values, then their mean through the table: the table is smooth, and one look-up does for all of them.
class Binner {
 public:
  Binner(const IntensityModel& intensity, int bin, int rows, int columns)
      : attenuation_(intensity.attenuation), bin_(bin), stored_(rows, columns), sums_(static_cast<std::size_t>(columns)), binned_(sums_) {}

  Image<float> read(const FrameSource& frames, int frame) {
    frames.read_frame(frame, stored_.view());
    const int height = stored_.height() / bin_, width = stored_.width() / bin_, last = static_cast<int>(attenuation_.size()) - 1;
    const float weight = 1.0f / static_cast<float>(bin_ * bin_);
    Image<float> result(height, width);
    for (int y = 0; y < height; ++y) {
      std::fill(sums_.begin(), sums_.end(), 0);
      for (int j = 0; j < bin_; ++j) {
        const std::uint16_t* row = stored_.row(y * bin_ + j);
        for (std::size_t x = 0; x < sums_.size(); ++x) sums_[x] += row[x];
      }
      if (bin_ == 2)
        add_columns(width, std::integral_constant<int, 2>{});
      else if (bin_ == 4)
        add_columns(width, std::integral_constant<int, 4>{});
      else
        add_columns(width, bin_);
      float* to = result.row(y);
      for (int x = 0; x < width; ++x) {
        const float mean = static_cast<float>(binned_[static_cast<std::size_t>(x)]) * weight;
        const int below = std::min(static_cast<int>(mean), last), above = std::min(below + 1, last);
        to[x] = attenuation_[below] + (mean - static_cast<float>(below)) * (attenuation_[above] - attenuation_[below]);
      }
    }
    return result;
  }

 private:
  // Sums of `bin` columns each: vector code where that is a constant.
  template <class Bin>
  void add_columns(int width, Bin bin) {
    for (int x = 0; x < width; ++x) {
      const int* const from = &sums_[static_cast<std::size_t>(x) * bin];
      int sum = 0;
      for (int i = 0; i < bin; ++i) sum += from[i];
      binned_[static_cast<std::size_t>(x)] = sum;
    }
  }

  const std::vector<float>& attenuation_;
  int bin_;
  Image<std::uint16_t> stored_;
  std::vector<int> sums_, binned_;
};

// Sums over (2 radius + 1)-squares cut off at the border.
class BoxSums {
 public:
  BoxSums(int height, int width, int radius)
      : height_(height), width_(width), radius_(radius), columns_(std::size_t{rows_at_once} * width), running_(columns_.size()) {}

  void sum(const Image<float>& image, Image<float>& result) {
    std::vector<double> column(static_cast<std::size_t>(width_), 0);
    const auto add_row = [&](int y, double sign) {
      if (y < 0 || y >= height_) return;
      const float* row = image.row(y);
      for (int x = 0; x < width_; ++x) column[x] += sign * row[x];
    };
    for (int y = 0; y < radius_; ++y) add_row(y, 1);
    // Several rows side by side: one running sum alone waits for itself.
    for (int y0 = 0; y0 < height_; y0 += rows_at_once) {
      const int rows = std::min(rows_at_once, height_ - y0);
      for (int r = 0; r < rows_at_once; ++r) {
        if (r < rows) {
          add_row(y0 + r + radius_, 1);
          add_row(y0 + r - radius_ - 1, -1);
        }
        for (int x = 0; x < width_; ++x) columns_[static_cast<std::size_t>(x) * rows_at_once + r] = column[x];
      }
      std::array<double, rows_at_once> total{};
      for (int x = 0; x < width_; ++x)
        for (int r = 0; r < rows_at_once; ++r) {
          const std::size_t at = static_cast<std::size_t>(x) * rows_at_once + r;
          running_[at] = total[r] += columns_[at];
        }
      for (int x = 0; x < width_; ++x) {
        const std::size_t high = static_cast<std::size_t>(std::min(width_ - 1, x + radius_)) * rows_at_once;
        const int low = x - radius_ - 1;
        for (int r = 0; r < rows; ++r)
          result(y0 + r, x) =
              static_cast<float>(running_[high + r] - (low >= 0 ? running_[static_cast<std::size_t>(low) * rows_at_once + r] : 0.0));
      }
    }
  }

 private:
  static constexpr int rows_at_once = 4;
  int height_, width_, radius_;
  std::vector<double> columns_, running_;  // by column, then row
};

// Takes out what varies slowly: exposure, breathing lungs, the intensifier's shading. A local mean of what is valid, twice.
class SlowPart {
 public:
  SlowPart(ImageView<const std::uint8_t> valid, int radius)
      : radius_(radius), inside_(valid.height, valid.width), share_(valid.height, valid.width) {
    for (int y = 0; y < valid.height; ++y)
      for (int x = 0; x < valid.width; ++x) inside_(y, x) = valid(y, x) ? 1.0f : 0.0f;
    BoxSums(valid.height, valid.width, radius).sum(inside_, share_);
    for (int y = 0; y < valid.height; ++y)
      for (int x = 0; x < valid.width; ++x) share_(y, x) = share_(y, x) > 0.5f ? 1 / share_(y, x) : 0.0f;
  }
  void remove(Image<float>& image) const {
    const int height = image.height(), width = image.width();
    BoxSums box(height, width, radius_);
    Image<float> masked(height, width), sums(height, width);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) masked(y, x) = image(y, x) * inside_(y, x);
    for (int pass = 0; pass < 2; ++pass) {
      box.sum(masked, sums);
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) masked(y, x) = sums(y, x) * share_(y, x) * inside_(y, x);
    }
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) image(y, x) = inside_(y, x) > 0 ? image(y, x) - masked(y, x) : 0.0f;
  }

 private:
  int radius_;
  Image<float> inside_, share_;  // 1 where valid; 1 over how many are in the square
};

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
  const SlowPart slow(result.valid.view(), radius);
  constexpr int frames_at_once = 4;  // read into the same memory
  parallel_for((count + frames_at_once - 1) / frames_at_once, [&](int part) {
    Binner binner(intensity, bin, run.rows(), run.columns());
    for (int i = part * frames_at_once; i < std::min(count, (part + 1) * frames_at_once); ++i) {
      Image<float> plane = binner.read(*run.frames, first + i);
      result.brightness[i] = block_means(plane, result.valid.view());
      slow.remove(plane);
      result.planes[i] = std::move(plane);
    }
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
