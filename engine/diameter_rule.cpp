#include "engine/diameter_rule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "engine/diameter_profile.h"

namespace cinelumen {
namespace {

constexpr std::array rules = {DiameterRule::fit, DiameterRule::fwhm, DiameterRule::first_derivative, DiameterRule::mean_derivatives};

// Where the parabola through a sample and its neighbours is highest.
double peak_at(const std::vector<double>& values, int i) {
  const double a = values[i - 1], b = values[i], c = values[i + 1], bend = a - 2 * b + c;
  return i + (bend < 0 ? std::clamp(0.5 * (a - c) / bend, -0.5, 0.5) : 0.0);
}

// The largest value's place in [from, to]; negative where it is at an end.
int largest(const std::vector<double>& values, int from, int to) {
  if (to <= from) return -1;
  const int at = static_cast<int>(std::max_element(values.begin() + from, values.begin() + to + 1) - values.begin());
  return at == from || at == to ? -1 : at;
}

// Outwards from the middle to the right: the first place where the profile is down to half. Steps; negative: none.
double half_maximum(const std::vector<double>& profile) {
  const int n = static_cast<int>(profile.size()), eighth = std::max(2, n / 8), middle = n / 2;
  const auto mean = [&](int from) { return std::accumulate(profile.begin() + from, profile.begin() + from + eighth, 0.0) / eighth; };
  const double left = mean(0), right = mean(n - eighth), slope = (right - left) / (n - eighth);
  const auto above = [&](int i) { return profile[i] - left - slope * (i - 0.5 * (eighth - 1)); };
  double highest = 0;
  for (int i = n / 4; i < n - n / 4; ++i) highest = std::max(highest, above(i));
  for (int i = middle; i + 1 < n; ++i)
    if (above(i) >= 0.5 * highest && above(i + 1) < 0.5 * highest)
      return i + (above(i) - 0.5 * highest) / (above(i) - above(i + 1)) - middle;
  return -1;
}

// The same for the rules by derivatives.
double steep_edge(const std::vector<double>& profile, double step_px, bool with_bend) {
  const int n = static_cast<int>(profile.size()), reach = std::max(1, static_cast<int>(std::lround(0.5 / step_px))), middle = n / 2;
  std::vector<double> fall(n, 0), bend(n, 0);
  for (int i = reach; i + reach < n; ++i) fall[i] = profile[i - reach] - profile[i + reach];
  for (int i = 2 * reach; i + 2 * reach < n; ++i) bend[i] = fall[i - reach] - fall[i + reach];
  const int steepest = largest(fall, middle, n - 1 - reach);
  if (steepest < 0) return -1;
  const double edge = peak_at(fall, steepest) - middle;
  if (!with_bend) return edge;
  const int most_blurred = static_cast<int>(std::lround(4 / step_px));  // px that an edge takes to end
  const int sharpest = largest(bend, steepest, std::min(n - 1 - 2 * reach, steepest + most_blurred));
  return sharpest < 0 ? -1 : 0.5 * (edge + peak_at(bend, sharpest) - middle);
}

double weight(double t) {  // Catmull and Rom's cubic
  t = std::abs(t);
  return t < 1 ? 1 + t * t * (1.5 * t - 2.5) : t < 2 ? 2 + t * (-4 + t * (2.5 - 0.5 * t)) : 0;
}

double sample(ImageView<const float> image, double y, double x) {
  const int y0 = static_cast<int>(std::floor(y)), x0 = static_cast<int>(std::floor(x));
  double sum = 0;
  for (int i = -1; i <= 2; ++i)
    for (int j = -1; j <= 2; ++j)
      sum += weight(y - (y0 + i)) * weight(x - (x0 + j)) *
             image(std::clamp(y0 + i, 0, image.height - 1), std::clamp(x0 + j, 0, image.width - 1));
  return sum;
}

}  // namespace

const char* to_string(DiameterRule rule) {
  switch (rule) {
    case DiameterRule::fwhm:
      return "fwhm";
    case DiameterRule::first_derivative:
      return "first-derivative";
    case DiameterRule::mean_derivatives:
      return "mean-derivatives";
    case DiameterRule::fit:
      break;
  }
  return "fit";
}

DiameterRule parse_diameter_rule(const std::string& name) {
  for (const DiameterRule rule : rules)
    if (name == to_string(rule)) return rule;
  throw std::invalid_argument("diameter rule " + name + ": expected fit, fwhm, first-derivative or mean-derivatives");
}

std::string caution(DiameterRule rule) {
  if (rule == DiameterRule::fit) return {};
  return std::string("Diameters were read by the rule ") + to_string(rule) +
         ", for comparison: its bias by the point spread is not corrected, and the SDs are those of the fit.";
}

std::optional<double> read_diameter(DiameterRule rule, const std::vector<double>& profile, double step_px) {
  constexpr std::size_t least = 16;  // samples
  if (rule == DiameterRule::fit || profile.size() < least) return {};
  const std::vector<double> mirrored(profile.rbegin(), profile.rend());
  const auto edge = [&](const std::vector<double>& side) {
    return rule == DiameterRule::fwhm ? half_maximum(side) : steep_edge(side, step_px, rule == DiameterRule::mean_derivatives);
  };
  const double right = edge(profile), left = edge(mirrored);
  // Middles of an even number of samples lie one step apart.
  const double between = profile.size() % 2 ? 0 : 1;
  if (right < 0 || left < 0) return {};
  return (left + right + between) * step_px;
}

void apply_rule(DiameterRule rule, ImageView<const float> image, double psf_px, int rows, std::vector<LumenPoint>& points) {
  if (rule == DiameterRule::fit) return;
  constexpr double step = 0.25;
  const double s = std::sqrt(psf_px * psf_px + 1.0 / 12);
  for (LumenPoint& point : points) {
    if (!point.used) continue;
    const int half = static_cast<int>((0.75 * point.diameter_px + 5 * s + 2) / step);
    std::vector<double> profile;
    for (int i = -half; i <= half; ++i) {
      double sum = 0;
      for (int row = 0; row < rows; ++row) {
        const double across = i * step, along = row - 0.5 * (rows - 1);
        sum += sample(image, point.y_px + across * point.normal_y + along * point.normal_x,
                      point.x_px + across * point.normal_x - along * point.normal_y);
      }
      profile.push_back(sum / rows);
    }
    const std::optional<double> diameter = read_diameter(rule, profile, step);
    point.diameter_px = static_cast<float>(diameter.value_or(0));
    if (diameter) continue;
    point.used = false;
    point.reason = Exclusion::no_fit;
  }
}

}  // namespace cinelumen
