#include "engine/ridge_snap.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/error.h"
#include "kernels/ridge_points.h"

namespace cinelumen {
namespace {

constexpr float sample_step_px = 1, fine_step_px = 0.5f, outlier_px = 1.5f;
constexpr int max_half_count = 24;  // samples on either side
constexpr float nowhere = std::numeric_limits<float>::infinity();

float middle_value(float* first, float* last) {
  if (first == last) return 0;
  std::nth_element(first, first + (last - first) / 2, last);
  return first[(last - first) / 2];
}

// Finds the best path through rows of samples, and keeps its memory for the next segment.
class PathFinder {
 public:
  // Offsets (sample numbers) of the best path through rows first .. last of the samples. Neighbouring points differ by one at most.
  const std::vector<int>& operator()(ImageView<const float> samples, int first, int last, float step_px, float stiffness) {
    const int count = last - first, width = samples.width;
    peaks_.clear();
    for (int i = first; i < last; ++i) {
      const float* const row = samples.row(i);
      float peak = 0;
      for (int k = 0; k < width; ++k) peak = row[k] > peak ? row[k] : peak;
      if (peak > 0) peaks_.push_back(peak);
    }
    // In units of the segment's usual peak, and hardly more for more: a brighter vessel alongside must not pay for the way over to it.
    const float unit = 1 / std::max(6.0f, middle_value(peaks_.data(), peaks_.data() + peaks_.size()));
    const float cost = stiffness * step_px * step_px;
    // Totals with room at both ends, where nothing can be gained: no branches, so that the loops vectorise.
    constexpr float never = -1e30f;
    before_.assign(width + 2, never);
    now_.assign(width + 2, never);
    from_.resize(static_cast<std::size_t>(count) * width);
    for (int i = 0; i < count; ++i) {
      const float *const row = samples.row(first + i), *const before = before_.data() + 1;
      float* const now = now_.data() + 1;
      std::int32_t* const origin = from_.data() + static_cast<std::size_t>(i) * width;
      for (int k = 0; k < width; ++k) {
        // Equal ones: the straightest.
        const float here = i > 0 ? before[k] : 0, left = before[k - 1] - cost, right = before[k + 1] - cost;
        const float best = left > here ? left : here;
        origin[k] = right > best ? 1 : (left > here ? -1 : 0);
        const float share = row[k] > 0 ? row[k] * unit : 0;  // NaN too: no gain outside the image
        const float beyond = 1 + 0.1f * (share - 1), most = beyond < 1.1f ? beyond : 1.1f;
        now[k] = (right > best ? right : best) + (share < 1 ? share : most);
      }
      std::swap(before_, now_);
    }
    path_.resize(count);
    const float* const end = before_.data() + 1;
    int k = width / 2;
    for (int j = 0; j < width; ++j)
      if (end[j] > end[k]) k = j;
    for (int i = count - 1; i >= 0; --i) {
      path_[i] = k;
      k += from_[static_cast<std::size_t>(i) * width + k];
    }
    return path_;
  }

 private:
  std::vector<float> peaks_, before_, now_;
  std::vector<std::int32_t> from_;
  std::vector<int> path_;
};

// Where near sample k the row is highest, to a fraction of a sample; not finite where that is at an end or not above `minimum_z`.
float rough_peak(const float* row, int width, int k, float step_px, float minimum_z) {
  // The path is stiff: the maximum itself may lie a step or two beside it.
  for (int climb = 0; climb < 2; ++climb) {
    if (k > 0 && row[k - 1] > row[k])
      --k;
    else if (k + 1 < width && row[k + 1] > row[k])
      ++k;
  }
  if (k == 0 || k == width - 1) return nowhere;
  const float left = row[k - 1], here = row[k], right = row[k + 1];
  // Between samples it may be a little higher.
  if (!(here >= left && here >= right && here > 0.7f * minimum_z)) return nowhere;
  const float bend = left - 2 * here + right;
  const float t = bend < 0 ? std::clamp(0.5f * (left - right) / bend, -0.5f, 0.5f) : 0;
  return (static_cast<float>(k - width / 2) + t) * step_px;
}

// A single point far from what its neighbours found has found something else.
void reject_outliers(std::vector<SnappedPoint>& points, std::vector<int>& found, std::vector<char>& outlier) {
  found.clear();
  for (int i = 0; i < static_cast<int>(points.size()); ++i)
    if (points[i].accepted) found.push_back(i);
  outlier.assign(found.size(), 0);
  for (std::size_t k = 0; k < found.size(); ++k) {
    std::array<float, 11> nearby;
    int count = 0, far = 0;
    const float own = points[found[k]].offset_px;
    for (std::size_t j = k > 5 ? k - 5 : 0; j < std::min(found.size(), k + 6); ++j) {
      nearby[count] = points[found[j]].offset_px;
      far += std::abs(nearby[count++] - own) > outlier_px ? 1 : 0;
    }
    // With most of them near, so is the middle one.
    if (2 * far < count - 1) continue;
    outlier[k] = std::abs(own - middle_value(nearby.data(), nearby.data() + count)) > outlier_px;
  }
  for (std::size_t k = 0; k < found.size(); ++k)
    if (outlier[k]) points[found[k]] = {};
}

// scale_px may be empty: then the maximum is of z itself.
std::vector<std::vector<SnappedPoint>> snap(const Stream& stream, ImageView<const float> z, ImageView<const float> scale_px,
                                            const std::vector<Centreline>& centrelines, const RidgeSnapOptions& options) {
  require(options.search_px > 0, "snap_to_ridge: search_px must be positive");
  int count = 0;
  for (const Centreline& centreline : centrelines) count += static_cast<int>(centreline.points.size());
  std::vector<std::vector<SnappedPoint>> result(centrelines.size());
  if (count == 0) return result;
  const int half_count = std::clamp(static_cast<int>(std::ceil(options.search_px / sample_step_px)), 1, max_half_count);
  const float step_px = options.search_px / static_cast<float>(half_count);
  Array<CrossSection> sections = Array<CrossSection>::staging(stream, count), device_sections;
  int at = 0;
  for (const Centreline& centreline : centrelines)
    for (const CentrelinePoint& point : centreline.points) sections[at++] = {point.y, point.x, point.tangent_x, -point.tangent_y};
  // One more sample at each end, so that a maximum at the end of the search can be told from a slope.
  const int width = 2 * (half_count + 1) + 1;
  Image<float> samples = Image<float>::staging(stream, count, width);
  if (stream.on_cuda()) {
    device_sections = Array<CrossSection>(stream, count);
    Image<float> device_samples(stream, count, width);
    copy<CrossSection>(stream, sections.view(), device_sections.view());
    sample_ridges_across(stream, z, scale_px, device_sections.view(), step_px, device_samples);
    copy<float>(stream, device_samples.view(), samples.view());
    stream.synchronize();
  } else {
    sample_ridges_across(stream, z, scale_px, sections.view(), step_px, samples);
  }

  Array<CrossPeak> peaks = Array<CrossPeak>::staging(stream, count);
  PathFinder best_path;
  int first = 0;
  for (const Centreline& centreline : centrelines) {
    const int last = first + static_cast<int>(centreline.points.size());
    if (last == first) continue;
    const std::vector<int>& path = best_path(samples.view(), first, last, step_px, options.stiffness);
    for (int i = first; i < last; ++i) {
      peaks[i] = {};
      peaks[i].offset_px = rough_peak(samples.view().row(i), width, path[i - first], step_px, options.minimum_z);
    }
    first = last;
  }
  if (stream.on_cuda()) {
    Array<CrossPeak> device_peaks(stream, count);
    copy<CrossPeak>(stream, peaks.view(), device_peaks.view());
    locate_peaks_across(stream, z, scale_px, device_sections.view(), fine_step_px, device_peaks.view());
    copy<CrossPeak>(stream, device_peaks.view(), peaks.view());
    stream.synchronize();
  } else {
    locate_peaks_across(stream, z, scale_px, sections.view(), fine_step_px, peaks.view());
  }

  std::vector<int> found;
  std::vector<char> outlier;
  at = 0;
  for (std::size_t s = 0; s < centrelines.size(); ++s) {
    result[s].resize(centrelines[s].points.size());
    for (SnappedPoint& point : result[s]) {
      const CrossPeak& peak = peaks[at++];
      if (peak.found && peak.value > options.minimum_z) point = {peak.offset_px, peak.value, true};
    }
    reject_outliers(result[s], found, outlier);
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
    std::array<float, 7> values;
    std::size_t n = 0;
    for (std::size_t k = first; k < last; ++k) values[n++] = offsets[found[k]];
    return middle_value(values.data(), values.data() + n);
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
