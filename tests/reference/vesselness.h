#pragma once
/// Vesselness by its definition, in double precision: whole two-dimensional kernels, every plane of its own, no tiles.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/vesselness.h"

namespace cinelumen::test {

struct DoublePlane {
  int height = 0, width = 0;
  std::vector<double> data;
  DoublePlane() = default;
  DoublePlane(int h, int w, double value = 0) : height(h), width(w), data(static_cast<std::size_t>(h) * w, value) {}
  double& operator()(int y, int x) { return data[static_cast<std::size_t>(y) * width + x]; }
  double operator()(int y, int x) const { return data[static_cast<std::size_t>(y) * width + x]; }
  static int fold(int i, int n) {
    if (n == 1) return 0;
    while (i < 0 || i >= n) i = i < 0 ? -i : 2 * (n - 1) - i;
    return i;
  }
  double mirrored(int y, int x) const { return (*this)(fold(y, height), fold(x, width)); }
};

/// sum over dy, dx of vertical[dy] horizontal[dx] image(y + dy, x + dx), kernels indexed from -radius, at every `step`-th pixel.
inline DoublePlane correlate(const DoublePlane& image, const std::vector<double>& vertical, const std::vector<double>& horizontal,
                             int step = 1) {
  const int ry = static_cast<int>(vertical.size()) / 2, rx = static_cast<int>(horizontal.size()) / 2;
  DoublePlane result((image.height + step - 1) / step, (image.width + step - 1) / step);
  for (int y = 0; y < result.height; ++y)
    for (int x = 0; x < result.width; ++x) {
      double sum = 0;
      for (int dy = -ry; dy <= ry; ++dy) {
        double row = 0;
        for (int dx = -rx; dx <= rx; ++dx) row += horizontal[dx + rx] * image.mirrored(y * step + dy, x * step + dx);
        sum += vertical[dy + ry] * row;
      }
      result(y, x) = sum;
    }
  return result;
}

/// Sampled Gaussian and its first and second derivative (as correlation kernels), radius ceil(4 sigma), the second summing to 0.
inline std::vector<std::vector<double>> gaussian_derivatives(double variance) {
  const int radius = static_cast<int>(std::ceil(4 * std::sqrt(variance) - 1e-9));
  std::vector<std::vector<double>> kernels(3, std::vector<double>(2 * radius + 1));
  double sum = 0, curve = 0;
  for (int k = -radius; k <= radius; ++k) sum += std::exp(-0.5 * k * k / variance);
  for (int k = -radius; k <= radius; ++k) {
    const double g = std::exp(-0.5 * k * k / variance) / sum;
    kernels[0][k + radius] = g;
    kernels[1][k + radius] = g * k / variance;
    kernels[2][k + radius] = g * (k * k / variance - 1) / variance;
    curve += kernels[2][k + radius];
  }
  for (double& w : kernels[2]) w -= curve / (2 * radius + 1);
  return kernels;
}

/// The image with a plane per 16 x 16 cell, fitted with a Gaussian window of 24 px over the cells near it, where it is not valid.
inline DoublePlane extend_beyond_field(const DoublePlane& image, ImageView<const std::uint8_t> valid) {
  constexpr int size = 16, reach = 4;
  const int rows = (image.height + size - 1) / size, columns = (image.width + size - 1) / size;
  struct Plane {
    double value = 0, x = 0, y = 0;
  };
  std::vector<Plane> planes(rows * columns);
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < columns; ++column) {
      double m = 0, mx = 0, my = 0, ml = 0;
      const double centre_y = (row + 0.5) * size - 0.5, centre_x = (column + 0.5) * size - 0.5;
      const auto each = [&](auto body) {
        for (int y = std::max((row - reach) * size, 0); y < std::min((row + reach + 1) * size, image.height); ++y)
          for (int x = std::max((column - reach) * size, 0); x < std::min((column + reach + 1) * size, image.width); ++x) {
            if (!valid(y, x)) continue;
            const double dy = (y / size - row) * size / 24.0, dx = (x / size - column) * size / 24.0;
            body(std::exp(-0.5 * (dy * dy + dx * dx)), (y - centre_y) / size, (x - centre_x) / size, image(y, x));
          }
      };
      each([&](double w, double y, double x, double l) { m += w, my += w * y, mx += w * x, ml += w * l; });
      if (m < 1e-3) continue;
      my /= m, mx /= m, ml /= m;
      double xx = 0, yy = 0, xy = 0, lx = 0, ly = 0;
      each([&](double w, double y, double x, double l) {
        xx += w * (x - mx) * (x - mx) / m;
        yy += w * (y - my) * (y - my) / m;
        xy += w * (x - mx) * (y - my) / m;
        lx += w * (x - mx) * (l - ml) / m;
        ly += w * (y - my) * (l - ml) / m;
      });
      xx += 0.004, yy += 0.004;
      Plane& plane = planes[row * columns + column];
      plane.x = (lx * yy - ly * xy) / (xx * yy - xy * xy);
      plane.y = (ly * xx - lx * xy) / (xx * yy - xy * xy);
      plane.value = ml - plane.x * mx - plane.y * my;
    }
  DoublePlane result = image;
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x) {
      if (valid(y, x)) continue;
      const double v = (y + 0.5) / size - 0.5, u = (x + 0.5) / size - 0.5;
      const int row = static_cast<int>(std::floor(v)), column = static_cast<int>(std::floor(u));
      double sum = 0;
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) {
          const int r = std::clamp(row + i, 0, rows - 1), c = std::clamp(column + j, 0, columns - 1);
          const Plane& plane = planes[r * columns + c];
          sum += (i ? v - row : 1 - v + row) * (j ? u - column : 1 - u + column) * (plane.value + plane.x * (u - c) + plane.y * (v - r));
        }
      result(y, x) = sum;
    }
  return result;
}

inline DoublePlane upsample(const DoublePlane& coarse, int height, int width) {
  DoublePlane fine(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const int y0 = y / 2, x0 = x / 2, y1 = std::min(y0 + y % 2, coarse.height - 1), x1 = std::min(x0 + x % 2, coarse.width - 1);
      fine(y, x) = 0.25 * (coarse(y0, x0) + coarse(y0, x1) + coarse(y1, x0) + coarse(y1, x1));
    }
  return fine;
}

/// The same through cubics, (-1 9 9 -1) / 16 between pixels, borders repeated.
inline DoublePlane upsample_cubic(const DoublePlane& coarse, int height, int width) {
  const auto weights = [](int odd) {
    return odd ? std::vector<double>{-1 / 16.0, 9 / 16.0, 9 / 16.0, -1 / 16.0} : std::vector<double>{0, 1, 0, 0};
  };
  DoublePlane fine(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int j = 0; j < 4; ++j)
        for (int i = 0; i < 4; ++i)
          fine(y, x) += weights(y % 2)[j] * weights(x % 2)[i] *
                        coarse(std::clamp(y / 2 + j - 1, 0, coarse.height - 1), std::clamp(x / 2 + i - 1, 0, coarse.width - 1));
  return fine;
}

struct VesselnessReference {
  DoublePlane response, z, twice_cosine, twice_sine, scale_px;
  DoublePlane margin;  ///< 1 where rounding decides nothing: neither a sample's pixel nor the winning scale
};

/// `noise_weight`: options.noise_weight in host memory.
inline VesselnessReference vesselness_reference(ImageView<const float> input, ImageView<const std::uint8_t> valid,
                                                const VesselnessOptions& options, ImageView<const float> noise_weight = {}) {
  const int height = input.height, width = input.width;
  DoublePlane base(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) base(y, x) = valid(y, x) ? input(y, x) : 0;
  base = extend_beyond_field(base, valid);

  std::vector<double> decimation = gaussian_derivatives(1.2 * 1.2)[0];
  double decimation_variance = 0;
  for (int k = -5; k <= 5; ++k) decimation_variance += decimation[k + 5] * k * k;
  std::vector<DoublePlane> level = {base};
  std::vector<double> before = {0};
  for (int i = 1; i < 3; ++i) {
    level.push_back(correlate(level.back(), decimation, decimation, 2));
    before.push_back((before.back() + decimation_variance) / 4);
  }

  struct Sums {
    DoublePlane ratio, measure, cosine, sine, strength, scale_px, clear;
  };
  std::vector<int> used;
  for (int i = 0; i < vesselness_scale_count; ++i)
    if (vesselness_scales_px[i] > options.min_scale_px - 1e-3 && vesselness_scales_px[i] < options.max_scale_px + 1e-3 &&
        options.use_scale[i])
      used.push_back(i);
  const bool classical = options.response != VesselnessResponse::noise_calibrated;
  const auto level_of = [](int i) { return i < 3 ? 0 : (i < 7 ? 1 : 2); };

  Sums sums;
  DoublePlane along;
  bool any = false;
  DoublePlane ambiguous_line;
  for (int l = level_of(used.back()); l >= 0; --l) {
    const int h = level[l].height, w = level[l].width;
    Sums next{DoublePlane(h, w),         DoublePlane(h, w), DoublePlane(h, w),   DoublePlane(h, w),
              DoublePlane(h, w, -1e300), DoublePlane(h, w), DoublePlane(h, w, 1)};
    if (any) {
      next.ratio = upsample(sums.ratio, h, w);
      next.measure = upsample(sums.measure, h, w);
      next.cosine = upsample(sums.cosine, h, w);
      next.sine = upsample(sums.sine, h, w);
      next.strength = upsample_cubic(sums.strength, h, w);
      for (int y = 0; y < h; ++y)
        for (int x = 0; x < w; ++x) next.scale_px(y, x) = sums.scale_px(y / 2, x / 2), next.clear(y, x) = sums.clear(y / 2, x / 2);
    }
    any = true;
    for (const int i : used) {
      if (level_of(i) != l) continue;
      const double sigma = vesselness_scales_px[i], relative = sigma / (1 << l), factor = relative * relative;
      const auto kernels = gaussian_derivatives(relative * relative - before[l]);
      const DoublePlane xx = correlate(level[l], kernels[0], kernels[2]), yy = correlate(level[l], kernels[2], kernels[0]),
                        xy = correlate(level[l], kernels[1], kernels[1]);
      DoublePlane low(h, w), high(h, w);
      double valley = 0, count = 0;
      for (int y = 0; y < h; ++y)
        for (int x = 0; x < w; ++x) {
          const double a = factor * xx(y, x), b = factor * xy(y, x), d = factor * yy(y, x), r = std::hypot(0.5 * (a - d), b);
          low(y, x) = 0.5 * (a + d) - r;
          high(y, x) = 0.5 * (a + d) + r;
          if (valid(y << l, x << l)) valley += std::max(high(y, x), 0.0), count += 1;
        }
      const double floor = 0.2030 * options.noise_sd * options.correlation_factor[i] / sigma;
      const double gain = 1 / (used.size() * std::max(count > 0 ? valley / count : 0, floor));
      for (int y = 0; y < h; ++y)
        for (int x = 0; x < w; ++x) {
          const double ridge = -low(y, x), other = high(y, x), positive = std::max(ridge, 0.0);
          // Direction of the eigenvector of the larger eigenvalue.
          const double direction = 0.5 * std::atan2(2 * xy(y, x), xx(y, x) - yy(y, x));
          next.ratio(y, x) += gain * positive;
          if (!classical) {
            next.cosine(y, x) += gain * positive * std::cos(2 * direction);
            next.sine(y, x) += gain * positive * std::sin(2 * direction);
          } else if (ridge > next.strength(y, x)) {
            const double radius = 0.5 * (high(y, x) - low(y, x));
            next.cosine(y, x) = radius * std::cos(2 * direction);
            next.sine(y, x) = radius * std::sin(2 * direction);
          }
          double measure = 0;
          if (options.response == VesselnessResponse::frangi && ridge > 0 && std::abs(other) <= ridge)
            measure = std::exp(-0.5 * other * other / (ridge * ridge) / (options.frangi_beta * options.frangi_beta)) *
                      (1 - std::exp(-0.5 * (ridge * ridge + other * other) / (options.frangi_c * options.frangi_c)));
          if (options.response == VesselnessResponse::sato) measure = positive;
          if (options.response == VesselnessResponse::jerman && ridge > 0)
            measure = ridge >= options.jerman_lambda / 2
                          ? 1
                          : ridge * ridge * (options.jerman_lambda - ridge) * std::pow(3 / (ridge + options.jerman_lambda), 3);
          next.measure(y, x) = std::max(next.measure(y, x), measure);
          if (std::abs(ridge - next.strength(y, x)) < 1e-4 * std::abs(ridge) + 1e-6) next.clear(y, x) = 0;
          if (ridge > next.strength(y, x)) next.strength(y, x) = ridge, next.scale_px(y, x) = sigma;
        }
    }
    sums = next;
    if (l == 1 && !classical && options.elongation) {
      along = DoublePlane(h, w);
      ambiguous_line = DoublePlane(h, w);
      for (int y = 0; y < h; ++y)
        for (int x = 0; x < w; ++x) {
          const double c = sums.cosine(y, x), s = sums.sine(y, x), direction = 0.5 * std::atan2(s, c);
          // A direction of no strength, and one across the cut of the half angle, may round to another sample.
          if (std::hypot(c, s) < 1e-3 || (c < 0 && std::abs(s) < 1e-3 * std::abs(c))) ambiguous_line(y, x) = 1;
          double sum = 0, weights = 0;
          for (int k = -4; k <= 4; ++k) {
            const double weight = std::exp(-0.5 * k * k / 4.0), v = std::abs(2 * k) * std::sin(direction),
                         u = std::abs(2 * k) * std::cos(direction);
            for (const double t : {v, u})
              if (std::abs(t + 0.5 - std::round(t + 0.5)) < 2e-3 && k != 0) ambiguous_line(y, x) = 1;
            const int sign = k < 0 ? -1 : 1;
            const int j = DoublePlane::fold(y + sign * static_cast<int>(std::floor(v + 0.5)), h);
            const int i = DoublePlane::fold(x + sign * static_cast<int>(std::floor(u + 0.5)), w);
            sum +=
                weight * 0.5 * (sums.ratio(j, i) + std::cos(2 * direction) * sums.cosine(j, i) + std::sin(2 * direction) * sums.sine(j, i));
            weights += weight;
          }
          along(y, x) = sum / weights;
        }
    }
  }

  VesselnessReference result{DoublePlane(height, width), DoublePlane(height, width), sums.cosine, sums.sine, sums.scale_px, sums.clear};
  DoublePlane line = sums.ratio;
  if (along.height > 0) line = upsample(along, height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      if (along.height > 0)
        for (int j = y / 2; j <= std::min((y + 1) / 2, along.height - 1); ++j)
          for (int i = x / 2; i <= std::min((x + 1) / 2, along.width - 1); ++i)
            if (ambiguous_line(j, i)) result.margin(y, x) = 0;
      if (!valid(y, x)) continue;
      const double sigma = sums.scale_px(y, x), ratio = (sums.ratio(y, x) + line(y, x)) / (2 * options.half_response_ratio);
      for (int i = 0; i < vesselness_scale_count; ++i)
        if (static_cast<double>(vesselness_scales_px[i]) == sigma)
          result.z(y, x) = sums.strength(y, x) * sigma / (std::sqrt(3 / (16 * M_PI)) * options.noise_sd * options.correlation_factor[i]) *
                           (noise_weight.data ? noise_weight(y, x) : 1.0f);
      result.response(y, x) = classical ? sums.measure(y, x) : ratio * ratio / (1 + ratio * ratio);
    }
  return result;
}

}  // namespace cinelumen::test
