#include "engine/ridge_snap.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/error.h"
#include "kernels/ridge_points.h"

namespace cinelumen {
namespace {

constexpr float sample_step_px = 0.5f;
constexpr int max_half_count = 24, max_step = 2;  // samples on either side; samples that neighbouring points may differ by

float middle_value(std::vector<float>& values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Offsets (sample numbers) of the best path through rows first .. last of the samples.
std::vector<int> best_path(ImageView<const float> samples, int first, int last, float step_px, float stiffness) {
  const int count = last - first, width = samples.width;
  std::vector<float> peaks;
  for (int i = first; i < last; ++i) {
    float peak = 0;
    for (int k = 0; k < width; ++k)
      if (samples(i, k) > peak) peak = samples(i, k);
    if (peak > 0) peaks.push_back(peak);
  }
  // In units of the segment's usual peak, capped: a brighter vessel alongside must not pay for the way over to it.
  const float unit = 1 / std::max(6.0f, middle_value(peaks));
  std::vector<float> total(static_cast<std::size_t>(count) * width);
  std::vector<signed char> from(total.size(), 0);
  for (int i = 0; i < count; ++i)
    for (int k = 0; k < width; ++k) {
      const float z = samples(first + i, k);
      const float gain = z > 0 ? std::min(z * unit, 1.0f) : 0;  // NaN too: no gain outside the image
      float best = 0;
      int best_from = 0;
      if (i > 0) {
        best = -std::numeric_limits<float>::infinity();
        for (int d = -max_step; d <= max_step; ++d) {
          if (k + d < 0 || k + d >= width) continue;
          const float bend = static_cast<float>(d) * step_px;
          const float candidate = total[static_cast<std::size_t>(i - 1) * width + k + d] - stiffness * bend * bend;
          if (candidate > best || (candidate == best && std::abs(d) < std::abs(best_from))) {
            best = candidate;
            best_from = d;
          }
        }
      }
      total[static_cast<std::size_t>(i) * width + k] = best + gain;
      from[static_cast<std::size_t>(i) * width + k] = static_cast<signed char>(best_from);
    }
  std::vector<int> path(count);
  const auto end = total.begin() + static_cast<std::ptrdiff_t>(count - 1) * width;
  int k = width / 2;
  for (int j = 0; j < width; ++j)
    if (end[j] > end[k]) k = j;
  for (int i = count - 1; i >= 0; --i) {
    path[i] = k;
    k += from[static_cast<std::size_t>(i) * width + k];
  }
  return path;
}

SnappedPoint read_ridge(const float* row, int width, int k, float step_px, float minimum_z) {
  // The path is stiff: the maximum itself may lie a step or two beside it.
  for (int climb = 0; climb < 2; ++climb) {
    if (k > 0 && row[k - 1] > row[k])
      --k;
    else if (k + 1 < width && row[k + 1] > row[k])
      ++k;
  }
  SnappedPoint point;
  if (k == 0 || k == width - 1) return point;
  const float left = row[k - 1], here = row[k], right = row[k + 1];
  if (!(here >= left && here >= right && here > minimum_z)) return point;
  const float bend = left - 2 * here + right;
  const float t = bend < 0 ? std::clamp(0.5f * (left - right) / bend, -0.5f, 0.5f) : 0;
  point.offset_px = (static_cast<float>(k - width / 2) + t) * step_px;
  point.z = here - 0.25f * (left - right) * t;
  point.accepted = true;
  return point;
}

}  // namespace

std::vector<std::vector<SnappedPoint>> snap_to_ridge(const Stream& stream, ImageView<const float> z,
                                                     const std::vector<Centreline>& centrelines, const RidgeSnapOptions& options) {
  require(options.search_px > 0, "snap_to_ridge: search_px must be positive");
  int count = 0;
  for (const Centreline& centreline : centrelines) count += static_cast<int>(centreline.points.size());
  std::vector<std::vector<SnappedPoint>> result(centrelines.size());
  if (count == 0) return result;
  const int half_count = std::clamp(static_cast<int>(std::ceil(options.search_px / sample_step_px)), 1, max_half_count);
  const float step_px = options.search_px / static_cast<float>(half_count);
  Array<CrossSection> sections = Array<CrossSection>::staging(stream, count);
  int at = 0;
  for (const Centreline& centreline : centrelines)
    for (const CentrelinePoint& point : centreline.points) sections[at++] = {point.y, point.x, point.tangent_x, -point.tangent_y};
  // One more sample at each end, so that a maximum at the end of the search can be told from a slope.
  const int width = 2 * (half_count + 1) + 1;
  Image<float> samples = Image<float>::staging(stream, count, width);
  if (stream.on_cuda()) {
    Array<CrossSection> device_sections(stream, count);
    Image<float> device_samples(stream, count, width);
    copy<CrossSection>(stream, sections.view(), device_sections.view());
    sample_across(stream, z, device_sections.view(), step_px, device_samples);
    copy<float>(stream, device_samples.view(), samples.view());
    stream.synchronize();
  } else {
    sample_across(stream, z, sections.view(), step_px, samples);
  }
  int first = 0;
  for (std::size_t s = 0; s < centrelines.size(); ++s) {
    const int last = first + static_cast<int>(centrelines[s].points.size());
    if (last > first) {
      const std::vector<int> path = best_path(samples.view(), first, last, step_px, options.stiffness);
      for (int i = first; i < last; ++i)
        result[s].push_back(read_ridge(samples.row(i), width, path[i - first], step_px, options.minimum_z));
    }
    first = last;
  }
  return result;
}

std::vector<SnappedPoint> snap_to_ridge(const Stream& stream, ImageView<const float> z, const Centreline& centreline, float search_px) {
  RidgeSnapOptions options;
  options.search_px = search_px;
  return std::move(snap_to_ridge(stream, z, std::vector<Centreline>{centreline}, options)[0]);
}

Centreline moved_to_ridge(const Centreline& centreline, const std::vector<SnappedPoint>& snapped) {
  require(centreline.points.size() == snapped.size(), "moved_to_ridge: one snapped point per centreline point is needed");
  const int count = static_cast<int>(snapped.size());
  Centreline result = centreline;
  std::vector<float> offsets(count, 0);
  int before = -1;
  for (int i = 0; i < count; ++i) {
    if (!snapped[i].accepted) continue;
    offsets[i] = snapped[i].offset_px;
    for (int j = before + 1; j < i; ++j) {
      const float share = before < 0 ? 1 : static_cast<float>(j - before) / static_cast<float>(i - before);
      offsets[j] = before < 0 ? offsets[i] : offsets[before] + share * (offsets[i] - offsets[before]);
    }
    before = i;
  }
  if (before >= 0) std::fill(offsets.begin() + before, offsets.end(), offsets[before]);
  for (int i = 0; i < count; ++i) {
    const CentrelinePoint& from = centreline.points[i];
    CentrelinePoint& to = result.points[i];
    to.y = from.y + offsets[i] * from.tangent_x;
    to.x = from.x - offsets[i] * from.tangent_y;
    to.z = snapped[i].accepted ? snapped[i].z : 0;
  }
  // Directions over a few points: single offsets are noisy.
  for (int i = 0; i < count; ++i) {
    const CentrelinePoint &a = result.points[std::max(0, i - 4)], &b = result.points[std::min(count - 1, i + 4)];
    const float dy = b.y - a.y, dx = b.x - a.x, length = std::hypot(dy, dx);
    if (!(length > 0)) continue;
    result.points[i].tangent_y = dy / length;
    result.points[i].tangent_x = dx / length;
  }
  return result;
}

}  // namespace cinelumen
