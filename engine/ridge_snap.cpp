#include "engine/ridge_snap.h"

#include <algorithm>
#include <cmath>

#include "kernels/error.h"
#include "kernels/ridge_points.h"

namespace cinelumen {
namespace {

constexpr float sample_step_px = 0.5f, outlier_px = 1.5f;
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
  // In units of the segment's usual peak, and hardly more for more: a brighter vessel alongside must not pay for the way over to it.
  const float unit = 1 / std::max(6.0f, middle_value(peaks));
  // Rows of totals and of gains with room at both ends, where nothing can be gained: no branches, so that the loops vectorise.
  constexpr float never = -1e30f;
  const int room = width + 2 * max_step;
  std::vector<float> total(static_cast<std::size_t>(count) * room, never);
  std::vector<int> from(static_cast<std::size_t>(count) * width, 0);
  float cost[max_step + 1];
  for (int d = 0; d <= max_step; ++d) cost[d] = stiffness * static_cast<float>(d) * step_px * static_cast<float>(d) * step_px;
  for (int i = 0; i < count; ++i) {
    const float* const row = samples.row(first + i);
    float* const now = total.data() + static_cast<std::size_t>(i) * room + max_step;
    int* const origin = from.data() + static_cast<std::size_t>(i) * width;
    if (i > 0) {
      const float* const before = now - room;
      for (int k = 0; k < width; ++k) {
        // Equal ones: the straightest.
        float best = before[k];
        int best_from = 0;
        for (const int d : {-1, 1, -2, 2}) {
          const float candidate = before[k + d] - cost[d < 0 ? -d : d];
          best_from = candidate > best ? d : best_from;
          best = candidate > best ? candidate : best;
        }
        now[k] = best;
        origin[k] = best_from;
      }
    } else {
      std::fill(now, now + width, 0.0f);
    }
    for (int k = 0; k < width; ++k) {
      const float share = row[k] > 0 ? row[k] * unit : 0;  // NaN too: no gain outside the image
      const float beyond = 1 + 0.1f * (share - 1), most = beyond < 1.1f ? beyond : 1.1f;
      now[k] += share < 1 ? share : most;
    }
  }
  std::vector<int> path(count);
  const float* const end = total.data() + static_cast<std::size_t>(count - 1) * room + max_step;
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
  // The path is stiff: the maximum itself may lie a few steps beside it.
  for (int climb = 0; climb < 3; ++climb) {
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

// A single point far from what its neighbours found has found something else.
void reject_outliers(std::vector<SnappedPoint>& points) {
  std::vector<int> found;
  for (int i = 0; i < static_cast<int>(points.size()); ++i)
    if (points[i].accepted) found.push_back(i);
  std::vector<char> outlier(found.size(), 0);
  for (std::size_t k = 0; k < found.size(); ++k) {
    std::vector<float> nearby;
    for (std::size_t j = k > 5 ? k - 5 : 0; j < std::min(found.size(), k + 6); ++j) nearby.push_back(points[found[j]].offset_px);
    outlier[k] = std::abs(points[found[k]].offset_px - middle_value(nearby)) > outlier_px;
  }
  for (std::size_t k = 0; k < found.size(); ++k)
    if (outlier[k]) points[found[k]] = {};
}

}  // namespace

namespace {

// scale_px may be empty: then the samples are of z itself.
std::vector<std::vector<SnappedPoint>> snap(const Stream& stream, ImageView<const float> z, ImageView<const float> scale_px,
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
  Image<float> samples = Image<float>::staging(stream, count, width), scales = Image<float>::staging(stream, count, 1);
  const auto sample = [&](ArrayView<const CrossSection> at_sections, ImageView<float> to, ImageView<float> scales_to) {
    if (!scale_px.data) {
      sample_across(stream, z, at_sections, step_px, to);
      return;
    }
    sample_ratio_across(stream, z, scale_px, at_sections, step_px, to);
    sample_across(stream, scale_px, at_sections, step_px, scales_to);
  };
  if (stream.on_cuda()) {
    Array<CrossSection> device_sections(stream, count);
    Image<float> device_samples(stream, count, width), device_scales(stream, count, 1);
    copy<CrossSection>(stream, sections.view(), device_sections.view());
    sample(device_sections.view(), device_samples, device_scales);
    copy<float>(stream, device_samples.view(), samples.view());
    if (scale_px.data) copy<float>(stream, device_scales.view(), scales.view());
    stream.synchronize();
  } else {
    sample(sections.view(), samples, scales);
  }
  // Back to units of z: one factor per point, so that its maximum stays where it is.
  if (scale_px.data)
    for (int i = 0; i < count; ++i)
      for (int k = 0; k < width; ++k) samples(i, k) *= std::max(scales(i, 0), 0.5f);
  int first = 0;
  for (std::size_t s = 0; s < centrelines.size(); ++s) {
    const int last = first + static_cast<int>(centrelines[s].points.size());
    if (last > first) {
      const std::vector<int> path = best_path(samples.view(), first, last, step_px, options.stiffness);
      for (int i = first; i < last; ++i)
        result[s].push_back(read_ridge(samples.row(i), width, path[i - first], step_px, options.minimum_z));
      reject_outliers(result[s]);
    }
    first = last;
  }
  return result;
}

}  // namespace

std::vector<std::vector<SnappedPoint>> snap_to_ridge(const Stream& stream, ImageView<const float> z,
                                                     const std::vector<Centreline>& centrelines, const RidgeSnapOptions& options) {
  return snap(stream, z, {}, centrelines, options);
}

std::vector<std::vector<SnappedPoint>> snap_to_ridge(const Stream& stream, const VesselnessMap& vesselness,
                                                     const std::vector<Centreline>& centrelines, const RidgeSnapOptions& options) {
  return snap(stream, vesselness.z, vesselness.scale_px, centrelines, options);
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
  std::vector<int> found;
  for (int i = 0; i < count; ++i)
    if (snapped[i].accepted) {
      offsets[i] = snapped[i].offset_px;
      found.push_back(i);
    }
  // What a gap starts and ends with: the middle of several, as the last point before a gap is often half on what made the gap.
  const auto usual = [&](std::size_t first, std::size_t last) {
    std::vector<float> values;
    for (std::size_t k = first; k < last; ++k) values.push_back(offsets[found[k]]);
    return middle_value(values);
  };
  for (std::size_t k = 0; k <= found.size() && !found.empty(); ++k) {
    const int before = k > 0 ? found[k - 1] : -1, after = k < found.size() ? found[k] : count;
    if (after - before < 2) continue;
    const std::size_t end = std::min(found.size(), k + 7), start = k > 7 ? k - 7 : 0;
    const float right = k < found.size() ? usual(k, end) : usual(start, k), left = k > 0 ? usual(start, k) : right;
    for (int j = before + 1; j < after; ++j)
      offsets[j] = left + (right - left) * static_cast<float>(j - before) / static_cast<float>(after - before);
  }
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
