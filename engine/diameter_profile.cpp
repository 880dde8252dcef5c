#include "engine/diameter_profile.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/lumen_measurement.h"

namespace cinelumen {
namespace {

double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2) return *middle;
  return 0.5 * (*middle + *std::max_element(values.begin(), middle));
}

double robust_sd(const std::vector<double>& values, double centre) {
  std::vector<double> away;
  for (const double value : values) away.push_back(std::abs(value - centre));
  return 1.4826 * median_of(away);
}

float with_pixel(float psf_px) { return std::sqrt(psf_px * psf_px + 1.0f / 12); }

}  // namespace

const char* to_string(Exclusion reason) {
  switch (reason) {
    case Exclusion::none:
      return "";
    case Exclusion::unfilled:
      return "unfilled";
    case Exclusion::overlap:
      return "overlap";
    case Exclusion::edge:
      return "edge";
    case Exclusion::low_contrast:
      return "low_contrast";
    case Exclusion::motion:
      return "motion";
    case Exclusion::no_fit:
      return "no_fit";
    case Exclusion::inferred:
      return "inferred";
    case Exclusion::display_grey:
      return "display_grey";
    case Exclusion::key_frame_only:
      return "key_frame_only";
    case Exclusion::partly_filled:
      return "partly_filled";
  }
  return "";
}

std::optional<PsfEstimate> estimate_psf(const Stream& stream, ImageView<const float> subtracted, ImageView<const std::uint8_t> valid,
                                        const std::vector<Centreline>& centrelines, const LumenOptions& options) {
  LumenMeasurement measurement(stream, centrelines, options);
  std::vector<double> values, sds;
  for (const LumenFit& fit : measurement.fit_point_spread(stream, subtracted, options.variance, valid))
    if (is_sound(fit, measurement.point_options()) && fit.diameter_px > 2 * options.free_kappa_ratio * with_pixel(fit.psf_px) &&
        fit.psf_sd_px < 0.4f) {
      values.push_back(fit.psf_px);
      sds.push_back(fit.psf_sd_px);
    }
  if (values.size() < 10) return {};
  PsfEstimate estimate;
  estimate.profiles = static_cast<int>(values.size());
  estimate.psf_px = median_of(values);
  // Neighbouring profiles share pixels: a third of them count as independent. What a point spread that is no Gaussian leaves open, 0.02 px,
  // does not average out.
  const double spread = std::max(robust_sd(values, estimate.psf_px), median_of(sds));
  estimate.sd_px = std::hypot(1.2533 * spread / std::sqrt(values.size() / 3.0), 0.02);
  return estimate;
}

std::vector<std::vector<LumenPoint>> measure_frame(const Stream& stream, ImageView<const float> subtracted,
                                                   ImageView<const std::uint8_t> valid, const std::vector<Centreline>& centrelines,
                                                   const LumenOptions& options) {
  LumenMeasurement measurement(stream, centrelines, options);
  measurement.enqueue(stream, subtracted, options.variance, valid);
  stream.synchronize();
  return measurement.results();
}

namespace {
constexpr float maximum_pooled_relative_sd = 0.1f;  // of what several frames say together
constexpr double round_area = std::numbers::pi / 4;
}  // namespace

DiameterProfile pool_profile(const Centreline& centreline, const std::vector<std::vector<LumenPoint>>& frames) {
  DiameterProfile profile;
  const std::size_t count = centreline.points.size();
  std::vector<int> own_kappa(count);
  std::vector<std::vector<double>> diameters(count), sds(count), common(count), ratios(count);
  for (const auto& frame : frames)
    for (const LumenPoint& point : frame)
      if (point.used && point.sd_px > 0 && point.point >= 0 && static_cast<std::size_t>(point.point) < count) {
        diameters[point.point].push_back(point.diameter_px);
        const double shared = std::min(point.common_sd_px, point.sd_px), own = std::sqrt(point.sd_px * point.sd_px - shared * shared);
        sds[point.point].push_back(std::max(own, 0.1 * point.sd_px));
        common[point.point].push_back(shared);
        own_kappa[point.point] += point.own_kappa;
        if (point.area_px2 > 0) ratios[point.point].push_back(point.area_px2 / (round_area * point.diameter_px * point.diameter_px));
      }
  for (std::size_t i = 0; i < count; ++i) {
    const CentrelinePoint& p = centreline.points[i];
    DiameterProfile::Point pooled;
    pooled.arc_length_px = p.arc_length_px;
    pooled.y_px = p.y;
    pooled.x_px = p.x;
    const auto& d = diameters[i];
    const auto& s = sds[i];
    const std::size_t n = d.size();
    if (n > 0) {
      double mean = median_of(d), between = 0;
      if (n >= 3) {
        const double spread = robust_sd(d, mean), typical = median_of(s);
        between = std::max(spread * spread - typical * typical, 0.0);
      }
      double weights = 0, squares = 0;
      for (int iteration = 0; iteration < 20; ++iteration) {
        double sum = 0;
        weights = squares = 0;
        for (std::size_t k = 0; k < n; ++k) {
          const double variance = s[k] * s[k] + between, away = std::abs(d[k] - mean) / std::sqrt(variance);
          const double weight = (away > 1.5 ? 1.5 / away : 1) / variance;
          weights += weight;
          sum += weight * d[k];
          squares += weight * std::min(away, 1.5) * std::min(away, 1.5) * variance;
        }
        const double next = sum / weights;
        const bool settled = std::abs(next - mean) < 1e-6;
        mean = next;
        if (settled) break;
      }
      const double scatter = n > 1 ? std::max(1.0, squares / static_cast<double>(n - 1)) : 1.0;
      pooled.diameter_px = static_cast<float>(mean);
      pooled.sd_px = static_cast<float>(std::hypot(std::sqrt(scatter / weights), median_of(common[i])));
      pooled.frames = static_cast<int>(n);
      pooled.own_kappa = 2 * static_cast<std::size_t>(own_kappa[i]) > n;
      if (!ratios[i].empty()) pooled.area_ratio = static_cast<float>(median_of(ratios[i]));
      if (pooled.sd_px > maximum_pooled_relative_sd * pooled.diameter_px) pooled.diameter_px = pooled.sd_px = 0;  // frames contradict
    }
    profile.points.push_back(pooled);
  }
  return profile;
}

std::vector<double> smooth_log_diameter(const DiameterProfile& profile) {
  std::vector<double> result(profile.points.size(), std::numeric_limits<double>::quiet_NaN()), y, variance;
  std::vector<std::size_t> index;
  for (std::size_t i = 0; i < profile.points.size(); ++i) {
    const DiameterProfile::Point& point = profile.points[i];
    if (!(point.sd_px > 0)) continue;
    index.push_back(i);
    y.push_back(std::log(point.diameter_px));
    variance.push_back(std::pow(point.sd_px / point.diameter_px, 2));
  }
  const std::size_t n = y.size();
  if (n < 3) {
    for (std::size_t i = 0; i < n; ++i) result[index[i]] = y[i];
    return result;
  }
  // What points share (point spread, kappa) moves all of them: the noise is what points differ by that have no pixel in common.
  constexpr std::size_t apart = 3;
  std::vector<double> jumps;
  for (std::size_t i = 0; i + apart < n; ++i) jumps.push_back(std::abs(y[i + apart] - y[i]));
  const double typical = median_of(variance), noise2 = jumps.empty() ? typical : std::pow(1.4826 * median_of(jumps), 2) / 2;
  const double scale = std::max(noise2, 1e-8) / typical;
  for (double& v : variance) v = std::clamp(v * scale, 0.1 * noise2 + 1e-8, 100 * noise2 + 1e-8);

  // Total variation by reweighted least squares: sum (x - y)^2 / 2 v + lambda / sd sum |x' |. lambda: noise alone makes no step.
  constexpr double lambda = 4, smallest_step = 1e-4;
  constexpr int iterations = 40;
  const double strength = lambda / std::sqrt(std::max(noise2, 1e-8));
  std::vector<double> x = y, pull(n - 1), diagonal(n), right(n);
  for (int iteration = 0; iteration < iterations; ++iteration) {
    for (std::size_t i = 0; i + 1 < n; ++i) pull[i] = strength / std::max(std::abs(x[i + 1] - x[i]), smallest_step);
    // A tridiagonal system, eliminated forwards.
    for (std::size_t i = 0; i < n; ++i) {
      diagonal[i] = 1 / variance[i] + (i > 0 ? pull[i - 1] : 0) + (i + 1 < n ? pull[i] : 0);
      right[i] = y[i] / variance[i];
      if (i == 0) continue;
      const double factor = pull[i - 1] / diagonal[i - 1];
      diagonal[i] -= factor * pull[i - 1];
      right[i] += factor * right[i - 1];
    }
    x[n - 1] = right[n - 1] / diagonal[n - 1];
    for (std::size_t i = n - 1; i-- > 0;) x[i] = (right[i] + pull[i] * x[i + 1]) / diagonal[i];
  }
  for (std::size_t i = 0; i < n; ++i) result[index[i]] = x[i];
  return result;
}

namespace {

struct Lowest {
  double diameter = 0, sd = 0;
  std::size_t index = 0;  // of the measured points
  std::optional<double> area_ratio;
};

// Vertex of the parabola through D about measured[lowest]; [first, last]: the run of points nearer to the minimum than to the reference.
Lowest parabola_at(const std::vector<const DiameterProfile::Point*>& measured, std::size_t lowest, std::size_t first, std::size_t last,
                   double along_variance_px2, double healthy_px) {
  constexpr double least_reach_px = 2, share = 0.35;  // of the narrowing's length, either side: a parabola holds there
  const double at = measured[lowest]->arc_length_px, length = measured[last]->arc_length_px - measured[first]->arc_length_px;
  const double reach = std::max(least_reach_px, std::min(share * length, healthy_px));  // a long one has a flat floor, no parabola's
  double sums[5] = {}, with_y[3] = {};
  std::vector<double> sds, ratios;
  double from = at, to = at;
  for (std::size_t i = first; i <= last; ++i) {
    const DiameterProfile::Point& point = *measured[i];
    const double s = (point.arc_length_px - at) / reach, y = point.diameter_px;
    if (std::abs(s) > 1) continue;
    const double w = 1 / (point.sd_px * point.sd_px);
    for (int k = 0; k < 5; ++k) sums[k] += w * std::pow(s, k);
    for (int k = 0; k < 3; ++k) with_y[k] += w * y * std::pow(s, k);
    sds.push_back(point.sd_px);
    if (point.area_ratio > 0) ratios.push_back(point.area_ratio);
    from = std::min<double>(from, point.arc_length_px), to = std::max<double>(to, point.arc_length_px);
  }
  Lowest result;
  result.index = lowest;
  if (!ratios.empty()) result.area_ratio = median_of(ratios);
  const double mean = with_y[0] / sums[0];
  double value = mean;
  const double determinant = sums[0] * (sums[2] * sums[4] - sums[3] * sums[3]) - sums[1] * (sums[1] * sums[4] - sums[3] * sums[2]) +
                             sums[2] * (sums[1] * sums[3] - sums[2] * sums[2]);
  if (sds.size() >= 5 && determinant > 1e-9 * sums[0] * sums[2] * sums[4]) {
    // Cramer's rule for a + b s + c s^2.
    const auto solved = [&](int column) {
      double m[3][3];
      for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) m[i][j] = j == column ? with_y[i] : sums[i + j];
      return (m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
              m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])) /
             determinant;
    };
    const double a = solved(0), b = solved(1), c = solved(2);
    const double vertex = c > 0 ? std::clamp(-b / (2 * c), (from - at) / reach, (to - at) / reach) : 0;
    // A blur adds half the curvature times its variance.
    constexpr double most_taken_off = 0.1;
    if (c > 0) value = a + vertex * (b + c * vertex);
    if (c > 0) value -= std::min(c / (reach * reach) * along_variance_px2, most_taken_off * value);
    const double place = at + vertex * reach;
    for (std::size_t i = first; i <= last; ++i)
      if (std::abs(measured[i]->arc_length_px - place) < std::abs(measured[result.index]->arc_length_px - place)) result.index = i;
  }
  result.diameter = value;
  // Neighbours share pixels, and all share the point spread and kappa: no better than one of them.
  result.sd = median_of(sds);
  return result;
}

}  // namespace

SegmentDiameter summarize(const DiameterProfile& profile) {
  SegmentDiameter result;
  std::vector<const DiameterProfile::Point*> measured;
  for (const auto& point : profile.points)
    if (point.sd_px > 0) measured.push_back(&point);
  const std::size_t n = measured.size();
  if (n < 3) return result;

  std::vector<double> diameters, variances;
  for (const auto* point : measured) {
    diameters.push_back(point->diameter_px);
    variances.push_back(static_cast<double>(point->sd_px) * point->sd_px);
  }
  const double median = median_of(diameters);
  result.median = median;
  // Neighbours share pixels (windows overlap by about one row): half of them count as independent.
  result.sd = 1.2533 * std::sqrt(median_of(variances) / std::max(1.0, static_cast<double>(n) / 2));

  std::vector<double> smooth;
  const std::vector<double> log_smooth = smooth_log_diameter(profile);
  for (const double value : log_smooth)
    if (std::isfinite(value)) smooth.push_back(std::exp(value));
  const auto lowest = static_cast<std::size_t>(std::min_element(smooth.begin(), smooth.end()) - smooth.begin());

  // Healthy: outside the run of points about the minimum that lie below half-way from the minimum to the upper quartile (whose flanks
  // are left out as well), and outside one diameter of it in any case.
  std::vector<double> sorted = smooth;
  std::sort(sorted.begin(), sorted.end());
  const double upper = sorted[n * 3 / 4], half_way = 0.5 * (smooth[lowest] + upper),
               flank = smooth[lowest] + 0.85 * (upper - smooth[lowest]);
  std::size_t first = lowest, last = lowest;
  while (first > 0 && smooth[first - 1] < half_way) --first;
  while (last + 1 < n && smooth[last + 1] < half_way) ++last;
  const Lowest minimum = parabola_at(measured, lowest, first, last, profile.along_variance_px2, upper);
  result.minimum = minimum.diameter;
  result.minimum_sd = minimum.sd;
  result.minimum_at_px = {measured[minimum.index]->y_px, measured[minimum.index]->x_px};
  result.minimum_point = static_cast<int>(measured[minimum.index] - profile.points.data());
  result.area_ratio_at_minimum = minimum.area_ratio;
  result.sized_by_contrast = !measured[minimum.index]->own_kappa;

  while (first > 0 && smooth[first - 1] < flank && smooth[first - 1] >= smooth[first]) --first;
  while (last + 1 < n && smooth[last + 1] < flank && smooth[last + 1] >= smooth[last]) ++last;
  const double at = measured[lowest]->arc_length_px;
  std::vector<double> place, healthy, area_ratio;
  int before = 0, after = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double s = measured[i]->arc_length_px;
    if ((i >= first && i <= last) || std::abs(s - at) < upper) continue;
    place.push_back(s);
    healthy.push_back(smooth[i]);
    area_ratio.push_back(measured[i]->area_ratio);
    ++(s < at ? before : after);
  }
  if (healthy.size() < 10 || before < 3 || after < 3) return result;
  constexpr int near = 15;  // points
  const auto begin = healthy.begin();
  const double calibre_before = median_of({begin + std::max(0, before - near), begin + before}),
               calibre_after = median_of({begin + before, begin + before + std::min(after, near)});
  result.sides_ratio = calibre_after / calibre_before;
  const auto ratios = area_ratio.begin();
  const double kappa_before = median_of({ratios + std::max(0, before - near), ratios + before}),
               kappa_after = median_of({ratios + before, ratios + before + std::min(after, near)});
  if (kappa_before > 0 && kappa_after > 0) result.kappa_ratio = kappa_after / kappa_before;
  std::vector<double> slopes;
  const std::size_t stride = std::max<std::size_t>(1, healthy.size() / 150);
  for (std::size_t a = 0; a < healthy.size(); a += stride)
    for (std::size_t b = a + stride; b < healthy.size(); b += stride)
      if (place[b] - place[a] > 2) slopes.push_back((healthy[b] - healthy[a]) / (place[b] - place[a]));
  if (slopes.empty()) return result;
  const double slope = median_of(slopes);
  std::vector<double> levels;
  for (std::size_t a = 0; a < healthy.size(); ++a) levels.push_back(healthy[a] - slope * (place[a] - at));
  const double reference = median_of(levels);
  if (!(reference > 0)) return result;
  result.reference = reference;
  result.percent_stenosis = std::max(0.0, 100 * (1 - *result.minimum / reference));
  return result;
}

void exclude(std::vector<LumenPoint>& points, Exclusion reason) {
  for (LumenPoint& point : points) {
    point.used = false;
    point.reason = reason;
  }
}

}  // namespace cinelumen
