#include "engine/lumen_area.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/median.h"

namespace cinelumen {
namespace {

// Kappa of a vessel: its value, and how far it strays from point to point.
struct Kappa {
  float value = 0, sd = 0;
};

constexpr std::size_t enough_points = 5;

Kappa median_kappa(std::vector<float>& values) {
  if (values.size() < enough_points) return {};
  const float centre = in_place_median(values);
  const auto count = static_cast<float>(values.size());
  for (float& value : values) value = std::abs(value - centre);
  // Neighbours share pixels: about every second point is news.
  return {centre, 1.4826f * in_place_median(values) * 1.2533f / std::sqrt(std::max(1.0f, count / 2))};
}

}  // namespace

void add_areas(std::vector<std::vector<LumenPoint>>& segments) {
  std::vector<Kappa> of_segment(segments.size());
  std::vector<float> values, of_frame;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    values.clear();
    for (const LumenPoint& point : segments[s])
      if (point.used && point.own_kappa && point.kappa > 0) values.push_back(point.kappa);
    of_frame.insert(of_frame.end(), values.begin(), values.end());
    of_segment[s] = median_kappa(values);
  }
  // Segments fill differently: a kappa that is not the segment's own is that much less certain.
  constexpr float between_segments = 0.15f;
  Kappa frame = median_kappa(of_frame);
  frame.sd = std::hypot(frame.sd, between_segments * frame.value);
  constexpr float least_disagreement = 0.15f, significant = 3;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const Kappa reference = of_segment[s].value > 0 ? of_segment[s] : frame;
    if (!(reference.value > 0)) continue;
    for (LumenPoint& point : segments[s]) {
      if (!point.used || !(point.kappa > 0)) continue;
      const float ratio = point.kappa / reference.value;
      point.area_px2 = static_cast<float>(std::numbers::pi / 4) * point.diameter_px * point.diameter_px * ratio;
      const float sd = ratio * std::hypot(point.kappa_sd / point.kappa, reference.sd / reference.value);
      point.area_disagrees = std::abs(ratio - 1) > std::max(least_disagreement, significant * sd);
    }
  }
}

}  // namespace cinelumen
