#include "ridge_points.h"

#include "thrust_policy.h"  // before other Thrust headers: it chooses the device system

#include <thrust/scan.h>

#include <limits>

#include "bit_rows.h"
#include "math.h"
#include "tile.h"

namespace cinelumen {
namespace {

struct CountPixels {
  ImageView<const BitWord> bits;
  int* counts;  // one more than there are words
  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    int count = 0;
    if (i < bits.height * bits.width)
      for (BitWord left = bits.row(i / bits.width)[i % bits.width]; left != 0; left &= left - 1) ++count;
    counts[i] = count;
  }
};

struct CollectPixels {
  ImageView<const BitWord> bits;
  const int* offsets;
  ImageView<const float> z, angle, scale_px;
  SkeletonPixel* pixels;
  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const BitWord word = bits.row(i / bits.width)[i % bits.width];
    if (word == 0) return;
    const int y = i / bits.width, x0 = i % bits.width * 64;
    int at = offsets[i];
    for (int bit = 0; bit < 64; ++bit) {
      if (!(word >> bit & 1)) continue;
      const int x = x0 + bit;
      SkeletonPixel& pixel = pixels[at++];
      pixel.y = y;
      pixel.x = x;
      pixel.z = z.row(y)[x];
      pixel.angle = angle.row(y)[x];
      pixel.scale_px = scale_px.row(y)[x];
    }
  }
};

constexpr float converged_px = 0.01f;        // a further step would move the point by the square of this, about
constexpr int lanes = 8;                     // one 256-bit register of floats
constexpr float least_weight = 0.01110905f;  // exp(-9 / 2), at three sigma, and a little: a pixel just there is outside

struct RefineRidgePoints {
  ImageView<const float> image;
  ArrayView<RidgePoint> points;
  int steps;
  float max_step_px;

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    RidgePoint point = points[i];
    const float start_y = point.y, start_x = point.x;
    point.last_step_px = 0;
    for (int step = 0; step < steps; ++step) {
      const float t = newton_step(point);
      point.last_step_px = t;
      if (!(t > -1e30f && t < 1e30f)) break;
      const float limited = t < -max_step_px ? -max_step_px : (t > max_step_px ? max_step_px : t);
      point.y += limited * point.normal_y;
      point.x += limited * point.normal_x;
      if (t > -converged_px && t < converged_px) break;
    }
    point.moved_px = (point.y - start_y) * point.normal_y + (point.x - start_x) * point.normal_x;
    points[i] = point;
  }

  CINELUMEN_HOST_DEVICE static float limited_sigma(float sigma) { return sigma < 0.5f ? 0.5f : (sigma > 8.0f ? 8.0f : sigma); }

  CINELUMEN_HOST_DEVICE float newton_step(const RidgePoint& point) const {
    const float across = limited_sigma(point.sigma_px), along = limited_sigma(point.along_sigma_px);
    const float ny = point.normal_y, nx = point.normal_x, u_factor = 1 / across, v_factor = 1 / along;
    // u^2 + v^2 = a dx^2 + 2 b dx dy + c dy^2.
    const float b = (square(u_factor) - square(v_factor)) * ny * nx, c = square(u_factor * ny) + square(v_factor * nx);
    const float height2 = 1 / c, lean = -b * height2, narrowing = square(u_factor * v_factor);
    // The columns of the ellipse of three sigma, in groups; each with the rows that the ellipse has there.
    const float radius_x = 3 * sqrtf(square(across * nx) + square(along * ny));
    const int first_x = static_cast<int>(ceilf(point.x - radius_x)), last_x = static_cast<int>(floorf(point.x + radius_x));
    // Down a column the Gaussian is a geometric series of a geometric series. It starts anew before a pixel whose weight was too small for
    // a float (exp(-85), 13 sigma) can come within three sigma.
    const float shrinking = fast_exp(-c), step_u = u_factor * ny;
    const int rows_at_once = static_cast<int>(10 * (across < along ? across : along));
    // Relative to the centre's value: else a large constant would leak through the cut-off tails.
    const float reference = image.row(
        mirror(static_cast<int>(floorf(point.y + 0.5f)), image.height))[mirror(static_cast<int>(floorf(point.x + 0.5f)), image.width)];
    float slope[lanes] = {}, curvature[lanes] = {};
    for (int x0 = first_x; x0 <= last_x; x0 += lanes) {
      const float left = static_cast<float>(x0) - point.x, limit = left + static_cast<float>(lanes - 1),
                  right = limit < radius_x ? limit : radius_x;
      const float nearest = left > 0 ? left : (right < 0 ? right : 0.0f), rest = 9.0f - narrowing * height2 * square(nearest);
      const float half = sqrtf(rest > 0 ? rest * height2 : 0.0f), middle_left = point.y + lean * left,
                  middle_right = point.y + lean * right;
      const int first_y = static_cast<int>(ceilf((middle_left < middle_right ? middle_left : middle_right) - half));
      const int last_y = static_cast<int>(floorf((middle_left < middle_right ? middle_right : middle_left) + half));
      const bool inside = x0 >= 0 && x0 + lanes <= image.width;
      for (int y0 = first_y; y0 <= last_y; y0 += rows_at_once) {
        const int end_y = y0 + rows_at_once <= last_y ? y0 + rows_at_once : last_y + 1;
        const float dy = static_cast<float>(y0) - point.y;
        float u[lanes], weight[lanes], ratio[lanes];
        for (int l = 0; l < lanes; ++l) {
          const float dx = left + static_cast<float>(l), v = v_factor * (nx * dy - ny * dx);
          u[l] = u_factor * (ny * dy + nx * dx);
          const float distance2 = u[l] * u[l] + v * v;
          weight[l] = distance2 < 170.0f ? fast_exp(-0.5f * distance2) : 0.0f;
          ratio[l] = fast_exp(-(c * (dy + 0.5f) + b * dx));
        }
        for (int y = y0; y < end_y; ++y) {
          const float* const row = image.row(mirror(y, image.height));
          float mirrored[lanes];
          const float* values = row + x0;
          if (!inside) {
            for (int l = 0; l < lanes; ++l) mirrored[l] = row[mirror(x0 + l, image.width)];
            values = mirrored;
          }
#pragma GCC unroll 1
          for (int l = 0; l < lanes; ++l) {
            const float value = values[l] - reference, weighted = weight[l] > least_weight ? weight[l] * value : 0.0f;
            slope[l] += weighted * u[l];
            curvature[l] += weighted * (u[l] * u[l] - 1.0f);
            u[l] += step_u;
            weight[l] *= ratio[l];
            ratio[l] *= shrinking;
          }
        }
      }
    }
    for (int half = lanes / 2; half > 0; half /= 2)
      for (int l = 0; l < half; ++l) {
        slope[l] += slope[l + half];
        curvature[l] += curvature[l + half];
      }
    return curvature[0] < 0 ? -slope[0] / curvature[0] * across : 3e38f;
  }
};

struct SampleAcross {
  ImageView<const float> image, divisor;  // divisor may be empty
  ArrayView<const CrossSection> sections;
  float step_px;
  ImageView<float> samples;

  static constexpr int together = 8;  // samples of one section per item
  CINELUMEN_HOST_DEVICE static int items(ImageView<float> samples) { return samples.height * ((samples.width + together - 1) / together); }

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const int groups = (samples.width + together - 1) / together, point = i / groups, first = i % groups * together;
    const int last = first + together < samples.width ? first + together : samples.width;
    const CrossSection section = sections[point];
    float* const row = samples.row(point);
    for (int k = first; k < last; ++k) {
      const float along = (static_cast<float>(k) - 0.5f * static_cast<float>(samples.width - 1)) * step_px;
      row[k] = sample(section.y + along * section.normal_y, section.x + along * section.normal_x);
    }
  }

  CINELUMEN_HOST_DEVICE float sample(float y, float x) const {
    if (!(y >= 0 && x >= 0 && y <= static_cast<float>(image.height - 1) && x <= static_cast<float>(image.width - 1))) return nanf("");
    const int iy = static_cast<int>(y), ix = static_cast<int>(x);
    float wy[4], wx[4];
    catmull_rom(y - static_cast<float>(iy), wy);
    catmull_rom(x - static_cast<float>(ix), wx);
    const bool inside = iy >= 1 && ix >= 1 && iy + 2 < image.height && ix + 2 < image.width;
    if (!inside) return near_border(iy, ix, wy, wx);
    // Four neighbouring columns at once: one vector register.
    float columns[4] = {};
    const float* above = image.row(iy - 1) + (ix - 1);
    if (divisor.data) {
      const float* below = divisor.row(iy - 1) + (ix - 1);
      for (int a = 0; a < 4; ++a, above += image.pitch, below += divisor.pitch)
        for (int b = 0; b < 4; ++b) columns[b] += wy[a] * (above[b] / below[b]);
    } else {
      for (int a = 0; a < 4; ++a, above += image.pitch)
        for (int b = 0; b < 4; ++b) columns[b] += wy[a] * above[b];
    }
    return wx[0] * columns[0] + wx[1] * columns[1] + wx[2] * columns[2] + wx[3] * columns[3];
  }

  CINELUMEN_HOST_DEVICE float near_border(int iy, int ix, const float* wy, const float* wx) const {
    float result = 0;
    for (int b = 0; b < 4; ++b) {
      const int column = mirror(ix + b - 1, image.width);
      float sum = 0;
      for (int a = 0; a < 4; ++a) {
        const int row = mirror(iy + a - 1, image.height);
        sum += wy[a] * (divisor.data ? image.row(row)[column] / divisor.row(row)[column] : image.row(row)[column]);
      }
      result += wx[b] * sum;
    }
    return result;
  }

  CINELUMEN_HOST_DEVICE static void catmull_rom(float t, float* weights) {
    weights[0] = t * (-0.5f + t * (1.0f - 0.5f * t));
    weights[1] = 1.0f + t * t * (-2.5f + 1.5f * t);
    weights[2] = t * (0.5f + t * (2.0f - 1.5f * t));
    weights[3] = t * t * (-0.5f + 0.5f * t);
  }
};

struct LocatePeaks {
  static constexpr int most_climbs = 4;
  SampleAcross source;             // image and what it is still to be divided by
  ImageView<const float> divisor;  // no data: none
  ArrayView<const CrossSection> sections;
  float step_px, least_value, scale;  // scale: pixels of the image per px
  ArrayView<const int> which;
  ArrayView<CrossPeak> peaks;

  CINELUMEN_HOST_DEVICE void operator()(int item) const {
    const int i = which.data ? which[item] : item;
    CrossPeak peak = peaks[i];
    const CrossSection section = scaled(sections[i], scale);
    const float normal_y = scale * section.normal_y, normal_x = scale * section.normal_x;
    const auto at = [&](float offset) { return source.sample(section.y + offset * normal_y, section.x + offset * normal_x); };
    float value = 0;
    bool found = peak.offset_px > -1e6f && peak.offset_px < 1e6f;
    if (found) {
      float left = at(peak.offset_px - step_px), here = at(peak.offset_px), right = at(peak.offset_px + step_px);
      for (int climb = 0; climb < most_climbs && (left > here || right > here); ++climb) {
        if (left > here) {
          right = here;
          here = left;
          peak.offset_px -= step_px;
          left = at(peak.offset_px - step_px);
        } else {
          left = here;
          here = right;
          peak.offset_px += step_px;
          right = at(peak.offset_px + step_px);
        }
      }
      found = here >= left && here >= right;  // not where one of them is outside
      const float bend = left - 2 * here + right, t = found && bend < 0 ? 0.5f * (left - right) / bend : 0.0f;
      peak.offset_px += t * step_px;
      value = here - 0.25f * (left - right) * t;
    }
    const float factor = divisor.data ? usual_divisor(divisor, section) : 1.0f;
    found = found && factor * value > least_value;
    peak.offset_px = found ? peak.offset_px : 0.0f;
    peak.value = found ? factor * value : 0.0f;
    peak.found = found ? 1 : 0;
    peaks[i] = peak;
  }
};

}  // namespace

std::vector<SkeletonPixel> collect_skeleton(const Stream& stream, ImageView<const std::uint8_t> skeleton, ImageView<const float> z,
                                            ImageView<const float> angle, ImageView<const float> scale_px) {
  require(same_size(skeleton, z) && same_size(skeleton, angle) && same_size(skeleton, scale_px),
          "collect_skeleton: skeleton, z, angle and scale_px differ in size");
  if (skeleton.height == 0 || skeleton.width == 0) return {};
  Image<BitWord> bits(stream, skeleton.height, words_per_row(skeleton.width));
  pack_bits(stream, skeleton, bits);
  const int words = bits.height() * bits.width();
  Array<int> offsets(stream, words + 1), total = Array<int>::staging(stream, 1);
  int* const first = offsets.view().data;
  for_each_item(stream, words + 1, CountPixels{bits, first}, 1024);
  with_thrust_policy(stream, [&](auto policy) { thrust::exclusive_scan(policy, first, first + words + 1, first); });
  copy<int>(stream, ArrayView<const int>{first + words, 1}, total.view());
  stream.synchronize();
  Array<SkeletonPixel> pixels(stream, total[0]);
  for_each_item(stream, words, CollectPixels{bits, first, z, angle, scale_px, pixels.view().data}, 1024);
  std::vector<SkeletonPixel> result(static_cast<std::size_t>(total[0]));
  copy<SkeletonPixel>(stream, pixels.view(), ArrayView<SkeletonPixel>{result.data(), total[0]});
  stream.synchronize();
  return result;
}

void refine_ridge_points(const Stream& stream, ImageView<const float> image, ArrayView<RidgePoint> points, int steps, float max_step_px) {
  require(steps >= 1 && max_step_px > 0, "refine_ridge_points: steps must be at least 1 and max_step_px positive");
  require(points.size == 0 || (image.height > 0 && image.width > 0), "refine_ridge_points: the image is empty");
  for_each_item(stream, points.size, RefineRidgePoints{image, points, steps, max_step_px}, 32);
}

void sample_across(const Stream& stream, ImageView<const float> image, ArrayView<const CrossSection> sections, float step_px,
                   ImageView<float> samples) {
  require(samples.height == sections.size, "sample_across: samples must have one row per section");
  require(step_px > 0, "sample_across: step_px must be positive");
  for_each_item(stream, SampleAcross::items(samples), SampleAcross{image, {}, sections, step_px, samples}, 256);
}

void locate_peaks_across(const Stream& stream, ImageView<const float> image, ImageView<const float> divisor,
                         ArrayView<const CrossSection> sections, float step_px, ArrayView<CrossPeak> peaks, const LocateOptions& options) {
  require(divisor.data == nullptr || same_size(image, divisor), "locate_peaks_across: image and divisor differ in size");
  require(peaks.size == sections.size, "locate_peaks_across: peaks must have one element per section");
  require(step_px > 0 && options.pixel_px > 0, "locate_peaks_across: step_px and pixel_px must be positive");
  require(sections.size == 0 || (image.height > 0 && image.width > 0), "locate_peaks_across: the image is empty");
  const SampleAcross source{image, options.divided ? ImageView<const float>{} : divisor, {}, 1, {}};
  for_each_item(stream, options.which.data ? options.which.size : sections.size,
                LocatePeaks{source, divisor, sections, step_px, options.least_value, 1 / options.pixel_px, options.which, peaks}, 64);
}

}  // namespace cinelumen
