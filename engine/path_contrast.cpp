#include "engine/path_contrast.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "engine/median.h"

namespace cinelumen {
namespace {

constexpr double strip_px = 4;      // width of the surroundings that are read either side
constexpr double other_vessel = 4;  // SDs by which one side must exceed the other to be taken for a vessel
constexpr double correlated = 2;    // pixels that are one piece of news: the detector's light spreads

std::optional<double> sample(ImageView<const float> picture, ImageView<const std::uint8_t> valid, double y, double x) {
  const int y0 = static_cast<int>(std::floor(y)), x0 = static_cast<int>(std::floor(x));
  if (y0 < 0 || x0 < 0 || y0 + 1 >= picture.height || x0 + 1 >= picture.width) return {};
  if (valid.data && !(valid(y0, x0) && valid(y0 + 1, x0 + 1))) return {};
  const double fy = y - y0, fx = x - x0;
  const double value = (1 - fy) * ((1 - fx) * picture(y0, x0) + fx * picture(y0, x0 + 1)) +
                       fy * ((1 - fx) * picture(y0 + 1, x0) + fx * picture(y0 + 1, x0 + 1));
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

struct Profile {
  std::vector<double> inside, left, right;
  bool whole = true;
};

Profile read_profile(ImageView<const float> picture, ImageView<const std::uint8_t> valid, const PathPoint& at) {
  Profile profile;
  const double reach = at.half_width_px + 1 + strip_px;
  for (double u = -std::floor(reach); u <= reach; ++u) {
    const auto value = sample(picture, valid, at.y + u * at.tangent_x, at.x - u * at.tangent_y);
    if (!value)
      profile.whole = profile.whole && std::abs(u) > at.half_width_px;  // a strip may be cut, the path may not
    else if (std::abs(u) <= at.half_width_px)
      profile.inside.push_back(*value);
    else if (std::abs(u) > at.half_width_px + 1)
      (u < 0 ? profile.left : profile.right).push_back(*value);
  }
  profile.whole = profile.whole && !profile.inside.empty() && !(profile.left.empty() && profile.right.empty());
  return profile;
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

}  // namespace

std::vector<PathContrast> read_path(ImageView<const float> picture, ImageView<const std::uint8_t> valid, const std::vector<PathPoint>& path,
                                    int window) {
  std::vector<PathContrast> raw(path.size());
  std::vector<Profile> profiles;
  std::vector<double> away;
  for (const PathPoint& at : path) {
    const Profile& profile = profiles.emplace_back(read_profile(picture, valid, at));
    if (!profile.whole) continue;
    for (const std::vector<double>* side : {&profile.left, &profile.right})
      for (const double value : *side) away.push_back(std::abs(value - mean(*side)));
  }
  const double noise = away.empty() ? 0 : 1.4826 * in_place_median(away);
  for (std::size_t i = 0; i < path.size(); ++i) {
    const Profile& p = profiles[i];
    if (!p.whole) continue;
    double surroundings = 0;
    if (p.left.empty() || p.right.empty()) {
      surroundings = mean(p.left.empty() ? p.right : p.left);
    } else {
      const double l = mean(p.left), r = mean(p.right);
      surroundings = std::abs(l - r) > other_vessel * noise ? std::min(l, r) : 0.5 * (l + r);
    }
    const auto across = static_cast<double>(p.inside.size()), beside = static_cast<double>(p.left.size() + p.right.size());
    raw[i] = {across * (mean(p.inside) - surroundings), noise * std::sqrt(correlated * across * (1 + across / beside)), true};
  }
  std::vector<PathContrast> result(path.size());
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (!raw[i].in_view) continue;
    const std::size_t half = static_cast<std::size_t>(std::max(window, 1)) / 2;
    double area = 0, variance = 0;
    int count = 0;
    for (std::size_t k = i - std::min(i, half); k <= std::min(path.size() - 1, i + half); ++k)
      if (raw[k].in_view) {
        area += raw[k].area_px;
        variance += raw[k].sd_px * raw[k].sd_px;
        ++count;
      }
    result[i] = {area / count, std::sqrt(variance / count / std::max(1.0, count / correlated)), true};
  }
  return result;
}

}  // namespace cinelumen
