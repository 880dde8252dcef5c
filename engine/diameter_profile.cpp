#include "engine/diameter_profile.h"

#include <algorithm>
#include <cmath>

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
}

DiameterProfile pool_profile(const Centreline& centreline, const std::vector<std::vector<LumenPoint>>& frames) {
  DiameterProfile profile;
  const std::size_t count = centreline.points.size();
  std::vector<std::vector<double>> diameters(count), sds(count), common(count);
  for (const auto& frame : frames)
    for (const LumenPoint& point : frame)
      if (point.used && point.sd_px > 0 && point.point >= 0 && static_cast<std::size_t>(point.point) < count) {
        diameters[point.point].push_back(point.diameter_px);
        const double shared = std::min(point.common_sd_px, point.sd_px), own = std::sqrt(point.sd_px * point.sd_px - shared * shared);
        sds[point.point].push_back(std::max(own, 0.1 * point.sd_px));
        common[point.point].push_back(shared);
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
      if (pooled.sd_px > maximum_pooled_relative_sd * pooled.diameter_px) pooled.diameter_px = pooled.sd_px = 0;  // frames contradict
    }
    profile.points.push_back(pooled);
  }
  return profile;
}

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

  // Three neighbouring points, weighted: the minimum of single noisy points would be low by the noise.
  std::vector<double> smooth(n);
  for (std::size_t i = 0; i < n; ++i) {
    double sum = 0, weights = 0;
    for (std::size_t k = i > 0 ? i - 1 : 0; k < std::min(n, i + 2); ++k)
      if (std::abs(measured[k]->arc_length_px - measured[i]->arc_length_px) < 3) {
        sum += diameters[k] / variances[k];
        weights += 1 / variances[k];
      }
    smooth[i] = sum / weights;
  }
  const auto lowest = static_cast<std::size_t>(std::min_element(smooth.begin(), smooth.end()) - smooth.begin());
  result.minimum = smooth[lowest];
  result.minimum_at_px = {measured[lowest]->y_px, measured[lowest]->x_px};

  // Healthy: outside the run of points about the minimum that lie below half-way from the minimum to the upper quartile (whose flanks
  // are left out as well), and outside one diameter of it in any case.
  std::vector<double> sorted = smooth;
  std::sort(sorted.begin(), sorted.end());
  const double upper = sorted[n * 3 / 4], half_way = 0.5 * (smooth[lowest] + upper),
               flank = smooth[lowest] + 0.85 * (upper - smooth[lowest]);
  std::size_t first = lowest, last = lowest;
  while (first > 0 && smooth[first - 1] < half_way) --first;
  while (last + 1 < n && smooth[last + 1] < half_way) ++last;
  while (first > 0 && smooth[first - 1] < flank && smooth[first - 1] >= smooth[first]) --first;
  while (last + 1 < n && smooth[last + 1] < flank && smooth[last + 1] >= smooth[last]) ++last;
  const double at = measured[lowest]->arc_length_px;
  std::vector<double> place, healthy;
  int before = 0, after = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double s = measured[i]->arc_length_px;
    if ((i >= first && i <= last) || std::abs(s - at) < upper) continue;
    place.push_back(s);
    healthy.push_back(smooth[i]);
    ++(s < at ? before : after);
  }
  if (healthy.size() < 10 || before < 3 || after < 3) return result;
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
