#include "engine/scenes.h"

#include <algorithm>
#include <cmath>

namespace cinelumen {
namespace {

constexpr int coarse_side_px = 64;
constexpr double unrelated = 0.8;   // median difference over the root of the sum of squared median sizes: 1 for two unrelated pictures
constexpr double beyond_noise = 3;  // times what consecutive frames differ by
constexpr double contained = 0.5;   // of what a picture shows is there too in one with contrast added: 0 for two unrelated pictures
// Log units, of the whole picture: no automatic exposure goes so far from one frame to the next.
constexpr double exposure_change = 2;
// Log units: blades let through less than a hundredth, contrast over a whole block more than a quarter.
constexpr double shutter_change = 1.5;
constexpr double shutter_share = 0.05;  // of the blocks
constexpr int most_odd_in_a_row = 2;

float median_of(std::vector<float>& values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Planes small enough to try every shift.
class CoarsePlanes {
 public:
  explicit CoarsePlanes(const FramePlanes& run) : brightness_(run.brightness) {
    const int bin = std::max(1, (std::max(run.height, run.width) + coarse_side_px - 1) / coarse_side_px);
    height_ = run.height / bin;
    width_ = run.width / bin;
    valid_ = Image<std::uint8_t>(height_, width_);
    for (int y = 0; y < height_; ++y)
      for (int x = 0; x < width_; ++x) {
        bool all = true;
        for (int j = 0; j < bin; ++j)
          for (int i = 0; i < bin; ++i) all = all && run.valid(y * bin + j, x * bin + i);
        valid_(y, x) = all;
      }
    planes_.resize(run.planes.size());
    size_.resize(run.planes.size());
    parallel_for(static_cast<int>(run.planes.size()), [&](int t) {
      Image<float> plane(height_, width_);
      std::vector<float> sizes;
      for (int y = 0; y < height_; ++y)
        for (int x = 0; x < width_; ++x) {
          float sum = 0;
          for (int j = 0; j < bin; ++j)
            for (int i = 0; i < bin; ++i) sum += run.planes[t](y * bin + j, x * bin + i);
          plane(y, x) = sum / static_cast<float>(bin * bin);
          if (valid_(y, x)) sizes.push_back(std::abs(plane(y, x)));
        }
      size_[t] = median_of(sizes);
      planes_[t] = std::move(plane);
    });
    std::vector<float> steps(planes_.size() > 1 ? planes_.size() - 1 : 0);
    parallel_for(static_cast<int>(steps.size()), [&](int t) { steps[t] = difference(t, t + 1, 0, 0); });
    noise_ = median_of(steps);
  }

  /// Whether b shows the scene that a does, contrast apart.
  bool alike(int a, int b) const {
    if (brightness_changed(a, b)) return false;
    if (size_[a] < beyond_noise * noise_) return true;  // a picture of nothing: what comes into it is contrast
    const double limit = std::max(beyond_noise * noise_, unrelated * std::hypot(size_[a], size_[b]));
    if (difference(a, b, 0, 0) <= limit || share_contained(a, b) >= contained) return true;
    const int reach_y = height_ / 8, reach_x = width_ / 8;
    for (int dy = -reach_y; dy <= reach_y; ++dy)
      for (int dx = -reach_x; dx <= reach_x; ++dx)
        if (difference(a, b, dy, dx) <= limit) return true;
    return false;
  }

 private:
  // Median absolute difference where both show something, b moved back by (dy, dx).
  float difference(int a, int b, int dy, int dx) const {
    std::vector<float> differences;
    differences.reserve(static_cast<std::size_t>(height_) * width_);
    for (int y = std::max(0, -dy); y < std::min(height_, height_ - dy); ++y)
      for (int x = std::max(0, -dx); x < std::min(width_, width_ - dx); ++x)
        if (valid_(y, x) && valid_(y + dy, x + dx)) differences.push_back(std::abs(planes_[a](y, x) - planes_[b](y + dy, x + dx)));
    return median_of(differences);
  }

  // How much of a is in b: the slope of b on a. Contrast, however much of it comes, adds to a and takes nothing away. Neither has more say
  // than a few times the usual size: vessels are few and dense.
  double share_contained(int a, int b) const {
    constexpr float most_sizes = 3;
    const float most_a = most_sizes * size_[a], most_b = most_sizes * size_[b];
    double products = 0, squares = 0;
    for (int y = 0; y < height_; ++y)
      for (int x = 0; x < width_; ++x) {
        if (!valid_(y, x)) continue;
        const float here = std::clamp(planes_[a](y, x), -most_a, most_a);
        products += here * std::clamp(planes_[b](y, x), -most_b, most_b);
        squares += here * here;
      }
    return squares > 0 ? products / squares : 1;
  }

  bool brightness_changed(int a, int b) const {
    std::vector<float> changes;
    const Image<float>&before = brightness_[a], &after = brightness_[b];
    for (int j = 0; j < before.height(); ++j)
      for (int i = 0; i < before.width(); ++i)
        if (const float change = after(j, i) - before(j, i); std::isfinite(change)) changes.push_back(change);
    std::vector<float> sorted = changes;
    const float exposure = median_of(sorted);
    if (std::abs(exposure) > exposure_change) return true;
    const auto far = std::count_if(changes.begin(), changes.end(), [&](float c) { return std::abs(c - exposure) > shutter_change; });
    return static_cast<double>(far) >= std::max(2.0, shutter_share * static_cast<double>(changes.size()));
  }

  int height_ = 0, width_ = 0;
  Image<std::uint8_t> valid_;
  std::vector<Image<float>> planes_;
  const std::vector<Image<float>>& brightness_;
  std::vector<float> size_;
  float noise_ = 0;
};

}  // namespace

std::vector<Scene> find_scenes(const FramePlanes& planes) {
  const int count = static_cast<int>(planes.planes.size());
  const CoarsePlanes coarse(planes);
  std::vector<Scene> scenes;
  for (int start = 0; start < count;) {
    Scene scene{planes.first + start, planes.first + start, {}};
    int t = start + 1;
    while (t < count) {
      int again = t;  // the next frame that shows the scene
      while (again < count && again <= t + most_odd_in_a_row && !coarse.alike(start, again)) ++again;
      if (again == count || again > t + most_odd_in_a_row) break;
      for (; t < again; ++t) scene.odd_frames.push_back(planes.first + t);
      scene.last = planes.first + again;
      t = again + 1;
    }
    start = scene.last - planes.first + 1;
    scenes.push_back(std::move(scene));
  }
  return scenes;
}

const Scene& longest(const std::vector<Scene>& scenes) {
  return *std::max_element(scenes.begin(), scenes.end(),
                           [](const Scene& a, const Scene& b) { return a.last - a.first < b.last - b.first; });
}

}  // namespace cinelumen
