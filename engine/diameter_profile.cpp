#include "engine/diameter_profile.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "engine/lumen_bound.h"
#include "kernels/lumen_fit.h"

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

constexpr float least_significance = 3;  // peak over surroundings, in SDs of white noise, below which nothing is fitted

float with_pixel(float psf_px) { return std::sqrt(psf_px * psf_px + 1.0f / 12); }

// All points of all centrelines in one row, with what lies around them.
struct Site {
  int segment, point;
  bool overlap = false, inferred = false;
};

struct Neighbourhood {
  std::vector<Site> sites;
  std::vector<LumenFitPoint> fit_points;
};

// Points sorted into cells of a grid, to find the other vessels near a profile.
class PointGrid {
 public:
  struct Point {
    float y, x, radius, arc_length;
    int segment;
  };
  static constexpr float cell_px = 8;
  static constexpr float half_gap_px = 0.5f;  // every second point stands for its neighbours

  explicit PointGrid(const std::vector<Centreline>& centrelines) {
    int low_y = last, low_x = last, high_y = -last, high_x = -last;
    for (const Centreline& centreline : centrelines)
      for (const CentrelinePoint& p : centreline.points) {
        low_y = std::min(low_y, cell(p.y));
        low_x = std::min(low_x, cell(p.x));
        high_y = std::max(high_y, cell(p.y));
        high_x = std::max(high_x, cell(p.x));
      }
    if (high_y < low_y) return;
    y0_ = low_y;
    x0_ = low_x;
    height_ = high_y - low_y + 1;
    width_ = high_x - low_x + 1;
    first_.assign(static_cast<std::size_t>(height_) * width_ + 1, 0);
    for (const Centreline& centreline : centrelines)
      for_some(centreline, [&](const CentrelinePoint& p) { ++first_[index(cell(p.y), cell(p.x)) + 1]; });
    for (std::size_t i = 1; i < first_.size(); ++i) first_[i] += first_[i - 1];
    points_.resize(static_cast<std::size_t>(first_.back()));
    std::vector<int> next(first_.begin(), first_.end() - 1);
    for (int s = 0; s < static_cast<int>(centrelines.size()); ++s)
      for_some(centrelines[s], [&](const CentrelinePoint& p) {
        points_[next[index(cell(p.y), cell(p.x))]++] = {p.y, p.x, p.radius_px, p.arc_length_px, s};
      });
  }
  // Visits the points of all cells that the box touches.
  template <class Visit>
  void near(float y0, float y1, float x0, float x1, Visit visit) const {
    const int to_y = std::min(cell(y1), y0_ + height_ - 1), to_x = std::min(cell(x1), x0_ + width_ - 1), from_x = std::max(cell(x0), x0_);
    if (from_x > to_x) return;
    for (int cy = std::max(cell(y0), y0_); cy <= to_y; ++cy)
      for (int i = first_[index(cy, from_x)]; i < first_[index(cy, to_x) + 1]; ++i) visit(points_[i]);
  }

 private:
  template <class Body>
  static void for_some(const Centreline& centreline, Body body) {
    const auto& points = centreline.points;
    for (std::size_t i = 0; i < points.size(); i += 2) body(points[i]);
    if (points.size() % 2 == 0 && !points.empty()) body(points.back());
  }
  static constexpr int last = 10000;  // keeps a point that motion has carried far out from making the grid large
  static int cell(float at) { return static_cast<int>(std::clamp(std::floor(at / cell_px), -100.0f, static_cast<float>(last))); }
  std::size_t index(int cy, int cx) const { return static_cast<std::size_t>(cy - y0_) * width_ + (cx - x0_); }
  int y0_ = 0, x0_ = 0, height_ = 0, width_ = 0;
  std::vector<int> first_;
  std::vector<Point> points_;
};

float square(float x) { return x * x; }

// Where an end of a segment meets another segment, with the widest vessel there.
struct Junction {
  float y, x, radius;
};
std::vector<Junction> find_junctions(const std::vector<Centreline>& centrelines, const PointGrid& grid) {
  std::vector<Junction> junctions;
  for (int s = 0; s < static_cast<int>(centrelines.size()); ++s) {
    const auto& points = centrelines[s].points;
    if (points.empty()) continue;
    for (const CentrelinePoint* end : {&points.front(), &points.back()}) {
      const float reach = std::max(3.0f, end->radius_px);
      float radius = 0;
      grid.near(end->y - reach, end->y + reach, end->x - reach, end->x + reach, [&](const PointGrid::Point& p) {
        if (p.segment != s && square(p.y - end->y) + square(p.x - end->x) <= reach * reach)
          radius = std::max({radius, p.radius, end->radius_px});
      });
      if (radius > 0) junctions.push_back({end->y, end->x, radius});
    }
  }
  return junctions;
}

// A profile sees a neighbour's lumen as a pedestal: its window ends short of it. Where the neighbour comes too near for any background
// between the two, or vessels meet, the point is an overlap.
Neighbourhood look_around(const std::vector<Centreline>& centrelines, const LumenOptions& options) {
  const float s = with_pixel(options.psf_px);
  const PointGrid grid(centrelines);
  const std::vector<Junction> junctions = find_junctions(centrelines, grid);
  Neighbourhood result;
  std::size_t total = 0;
  float widest = 0;
  for (const Centreline& centreline : centrelines) {
    total += centreline.points.size();
    for (const CentrelinePoint& p : centreline.points) widest = std::max(widest, p.radius_px);
  }
  result.sites.reserve(total);
  result.fit_points.reserve(total);
  const auto window_of = [&](const CentrelinePoint& p) { return 1.5f * std::clamp(p.radius_px, 0.8f, 60.0f) + 5 * s + 2; };

  std::vector<PointGrid::Point> others;
  std::vector<float> other_y, other_x, other_lumen, chord;
  std::vector<Junction> meetings;
  for (int seg = 0; seg < static_cast<int>(centrelines.size()); ++seg) {
    const std::vector<CentrelinePoint>& points = centrelines[seg].points;
    constexpr std::size_t group = 16;  // neighbours see much the same: what none of them can meet is put aside once for all
    for (std::size_t first = 0; first < points.size(); first += group) {
      const std::size_t last = std::min(points.size(), first + group);
      const CentrelinePoint& middle = points[(first + last) / 2];
      float window = 0, extent = 0, radius = 0, half_arc = 0, least_y = middle.y, most_y = middle.y, least_x = middle.x, most_x = middle.x;
      for (std::size_t i = first; i < last; ++i) {
        const CentrelinePoint& p = points[i];
        window = std::max(window, window_of(p));
        radius = std::max(radius, std::clamp(p.radius_px, 0.8f, 60.0f));
        extent = std::max(extent, square(p.y - middle.y) + square(p.x - middle.x));
        half_arc = std::max(half_arc, std::abs(p.arc_length_px - middle.arc_length_px));
        least_y = std::min(least_y, p.y);
        most_y = std::max(most_y, p.y);
        least_x = std::min(least_x, p.x);
        most_x = std::max(most_x, p.x);
      }
      extent = std::sqrt(extent);
      const float sight = std::max(window, 2.5f * radius + 9), reach = sight + widest + 2 * s;
      for (auto* values : {&other_y, &other_x, &other_lumen}) values->clear();
      others.clear();
      grid.near(least_y - reach, most_y + reach, least_x - reach, most_x + reach, [&](const PointGrid::Point& q) {
        // Far from all of them, whatever their directions; or of this segment and met by going along it. Distances are taken short.
        const float from_middle = square(q.y - middle.y) + square(q.x - middle.x);
        if (from_middle > square(sight + q.radius + 2 * s + PointGrid::half_gap_px + extent)) return;
        if (q.segment == seg) {
          const float arc = std::abs(q.arc_length - middle.arc_length_px) + half_arc, slack = arc / 3 - 4 + extent;
          if (slack < 0 || from_middle > slack * slack) return;
        }
        others.push_back(q);
        other_y.push_back(q.y);
        other_x.push_back(q.x);
        other_lumen.push_back(q.radius + 2 * s);
      });
      chord.resize(others.size());
      meetings.clear();
      for (const Junction& junction : junctions)
        if (square(junction.y - middle.y) + square(junction.x - middle.x) < square(junction.radius + 0.5f * radius + 2 + extent))
          meetings.push_back(junction);

      for (std::size_t i = first; i < last; ++i) {
        const CentrelinePoint& p = points[i];
        Site site{seg, static_cast<int>(i)};
        site.overlap = site.inferred = p.inferred;
        LumenFitPoint fit;
        fit.y = p.y;
        fit.x = p.x;
        const float length = std::sqrt(square(p.tangent_y) + square(p.tangent_x));
        fit.normal_y = length > 0 ? p.tangent_x / length : 0;
        fit.normal_x = length > 0 ? -p.tangent_y / length : 1;
        fit.radius_px = std::clamp(p.radius_px, 0.8f, 60.0f);
        fit.psf_px = options.psf_px;
        fit.psf_sd_px = options.psf_sd_px;
        // What of the other lumens lies within the profile's width: few do, so all are asked at once.
        const float p_y = p.y, p_x = p.x, n_y = fit.normal_y, n_x = fit.normal_x;
        const std::size_t count = other_y.size();
        for (std::size_t j = 0; j < count; ++j) {
          const float along = std::abs((other_x[j] - p_x) * n_y - (other_y[j] - p_y) * n_x), beside = along - PointGrid::half_gap_px;
          chord[j] = other_lumen[j] * other_lumen[j] - (beside > 0 ? beside * beside : 0.0f);
        }
        for (std::size_t j = 0; j < count; ++j) {
          if (chord[j] <= 0) continue;
          const PointGrid::Point& q = others[j];
          const float dy = q.y - p_y, dx = q.x - p_x, across = dy * n_y + dx * n_x, along = dx * n_y - dy * n_x;
          // The same segment only where it comes back.
          const float arc = std::abs(q.arc_length - p.arc_length_px);
          if (q.segment == seg && arc < 3 * (std::abs(across) + std::abs(along) + 4)) continue;
          const float free = std::abs(across) - std::sqrt(chord[j]);
          if (free < fit.radius_px + 2.5f * s)
            site.overlap = true;
          else if (across > 0)
            fit.to_px = std::min(fit.to_px, free);
          else
            fit.from_px = std::max(fit.from_px, -free);
        }
        for (const Junction& junction : meetings)
          if (square(junction.y - p.y) + square(junction.x - p.x) < square(junction.radius + 0.5f * fit.radius_px + 2)) site.overlap = true;
        result.sites.push_back(site);
        result.fit_points.push_back(fit);
      }
    }
  }
  return result;
}

// What to ask of the fit: a start, the profile from a known start, or search, profile and point spread.
enum class Pass { start, fit, fit_psf };

std::vector<LumenFit> fit_all(const Stream& stream, ImageView<const float> image, ImageView<const std::uint8_t> valid,
                              const std::vector<LumenFitPoint>& points, const LumenOptions& options, Pass pass) {
  const int count = static_cast<int>(points.size());
  std::vector<LumenFit> result(points.size());
  if (count == 0) return result;
  LumenFitOptions fit_options;
  fit_options.rows = options.rows;
  fit_options.search = pass != Pass::fit;
  fit_options.search_only = pass == Pass::start;
  fit_options.fit_psf = pass == Pass::fit_psf;
  fit_options.variance = options.noise_sd * options.noise_sd;
  fit_options.iterations = 7;  // what needs more is no vessel
  const ArrayView<const LumenFitPoint> here{points.data(), count};
  const ArrayView<LumenFit> to{result.data(), count};
  if (!stream.on_cuda()) {
    fit_lumen(stream, image, options.variance, valid, here, to, fit_options);
    return result;
  }
  auto staging = Array<LumenFitPoint>::staging(stream, count);
  std::copy(points.begin(), points.end(), staging.begin());
  auto fits = Array<LumenFit>::staging(stream, count);
  Array<LumenFitPoint> device_points(stream, count);
  Array<LumenFit> device_fits(stream, count);
  copy<LumenFitPoint>(stream, staging.view(), device_points.view());
  fit_lumen(stream, image, options.variance, valid, device_points.view(), device_fits.view(), fit_options);
  copy<LumenFit>(stream, device_fits.view(), fits.view());
  stream.synchronize();
  std::copy(fits.begin(), fits.end(), result.begin());
  return result;
}

// Rms of what the model leaves beyond the noise, over the contrast.
float misfit(const LumenFit& fit, const LumenOptions& options) {
  return options.noise_sd * std::sqrt(std::max(fit.chi2_per_dof - 1.5f, 0.0f)) / std::max(fit.contrast, 1e-6f);
}

bool sound(const LumenFit& fit, const LumenOptions& options) {
  return fit.converged && !fit.at_bound && fit.lost < 0.05f && fit.contrast > options.minimum_contrast_ratio * fit.contrast_sd &&
         fit.sd_px < options.maximum_relative_sd * fit.diameter_px && misfit(fit, options) < options.maximum_misfit &&
         std::abs(fit.centre_px) < 0.5f * fit.diameter_px + 1;
}

struct Kappa {
  double value = 0, sd = 0;  // sd 0: not known
};

// Kappa of wide points, pooled. Its SD is how far kappa strays from point to point (mixing), not how well its mean is known: a narrow
// point may stray as far.
Kappa pool_kappa(const std::vector<double>& values, const std::vector<double>& sds, double least_relative_sd) {
  if (values.size() < 5) return {};
  const double centre = median_of(values), spread = robust_sd(values, centre), measured = median_of(sds);
  if (!(centre > 0)) return {};
  const double strays = std::sqrt(std::max(spread * spread - measured * measured, 0.0));
  return {centre, std::hypot(strays, std::max(measured / std::sqrt(values.size() / 3.0), least_relative_sd * centre))};
}

// Factor on SDs for correlated noise, by radius: a few radii are enough, it varies slowly.
class NoiseFactor {
 public:
  explicit NoiseFactor(const LumenOptions& options) {
    for (std::size_t k = 0; k < factor_.size(); ++k) {
      ProfileCase profile;
      profile.radius_px = first_radius_ * std::pow(ratio_, static_cast<double>(k));
      profile.psf_px = options.psf_px;
      profile.kappa_free = profile.radius_px > options.free_kappa_ratio * with_pixel(options.psf_px);
      factor_[k] = correlated_noise_factor(profile, options.autocorrelation, options.rows);
    }
  }
  double at(double radius_px) const {
    const double position = std::clamp(std::log(std::max(radius_px, first_radius_) / first_radius_) / std::log(ratio_), 0.0,
                                       static_cast<double>(factor_.size()) - 1.001);
    const auto k = static_cast<std::size_t>(position);
    return factor_[k] + (position - static_cast<double>(k)) * (factor_[k + 1] - factor_[k]);
  }

 private:
  static constexpr double first_radius_ = 1, ratio_ = 1.6;
  std::array<double, 8> factor_{};
};

void check(const char* name, ImageView<const float> image, ImageView<const std::uint8_t> valid, const LumenOptions& options) {
  const auto demand = [&](bool met, const char* what) {
    if (!met) throw std::invalid_argument(std::string(name) + ": " + what);
  };
  demand(valid.data == nullptr || same_size(image, valid), "valid differs from the image in size");
  demand(options.noise_sd > 0 && std::isfinite(options.noise_sd), "noise_sd must be positive");
  demand(options.psf_px > 0 && options.psf_sd_px >= 0, "psf_px must be positive, its SD not negative");
  demand(options.common_noise_share >= 0 && options.common_noise_share <= 1, "common_noise_share must be 0 to 1");
  demand(options.sd_inflation >= 1, "sd_inflation must be at least 1");
}

// Looks for starts at every second point, not where another vessel overlaps. A single one may have found anything, or by chance
// something in noise: each point takes the middle of what was found at its neighbours, radius, centre and significance. Returns
// search-only fits.
std::vector<LumenFit> find_starts(const Stream& stream, ImageView<const float> image, ImageView<const std::uint8_t> valid,
                                  Neighbourhood& around, const LumenOptions& options) {
  const std::size_t count = around.sites.size();
  const std::vector<Site>& sites = around.sites;
  std::vector<LumenFitPoint> points;
  std::vector<std::size_t> places;
  points.reserve(count);
  places.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const bool after_searched = !places.empty() && places.back() + 1 == i && sites[i].segment == sites[i - 1].segment;
    if (sites[i].overlap || after_searched) continue;
    points.push_back(around.fit_points[i]);
    places.push_back(i);
  }
  const std::vector<LumenFit> found = fit_all(stream, image, valid, points, options, Pass::start);

  constexpr std::size_t each_side = 3;
  std::vector<LumenFit> result(count);
  std::size_t first = 0, last = 0;  // of `places` within reach
  for (std::size_t i = 0; i < count; ++i) {
    if (sites[i].overlap) continue;
    while (first < places.size() && places[first] + each_side < i) ++first;
    last = std::max(last, first);
    while (last < places.size() && places[last] <= i + each_side) ++last;
    std::array<std::array<float, 2 * each_side + 1>, 4> values;
    std::size_t n = 0;
    for (std::size_t k = first; k < last; ++k)
      if (sites[places[k]].segment == sites[i].segment) {
        values[0][n] = 0.5f * found[k].diameter_px;
        values[1][n] = found[k].centre_px;
        values[2][n] = found[k].significance;
        values[3][n++] = found[k].contrast;
      }
    for (auto& row : values) std::sort(row.begin(), row.begin() + static_cast<std::ptrdiff_t>(n));
    const auto middle = [&](int k) { return 0.5f * (values[k][(n - 1) / 2] + values[k][n / 2]); };
    around.fit_points[i].radius_px = middle(0);
    around.fit_points[i].centre_px = middle(1);
    result[i].significance = middle(2);
    result[i].contrast = middle(3);
  }
  return result;
}

Exclusion judge(const LumenFit& fit, const Site& site, const LumenOptions& options) {
  if (fit.lost >= 0.05f) return Exclusion::edge;
  if (site.inferred) return Exclusion::inferred;
  if (site.overlap) return Exclusion::overlap;
  if (fit.samples == 0) return Exclusion::unfilled;
  if (!(fit.contrast > options.minimum_contrast_ratio * fit.contrast_sd)) return Exclusion::unfilled;
  if (!sound(fit, options))
    return fit.converged && !fit.at_bound && fit.sd_px >= options.maximum_relative_sd * fit.diameter_px ? Exclusion::low_contrast
                                                                                                        : Exclusion::no_fit;
  return Exclusion::none;
}

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
  check("estimate_psf", subtracted, valid, options);
  const Neighbourhood around = look_around(centrelines, options);
  std::vector<LumenFitPoint> points;
  for (std::size_t i = 0; i < around.sites.size(); ++i)
    if (!around.sites[i].overlap) {
      points.push_back(around.fit_points[i]);
      points.back().psf_sd_px = 0;  // no prior: these profiles are to speak for themselves
    }
  const std::vector<LumenFit> fits = fit_all(stream, subtracted, valid, points, options, Pass::fit_psf);
  std::vector<double> values, sds;
  for (const LumenFit& fit : fits)
    if (sound(fit, options) && fit.diameter_px > 2 * options.free_kappa_ratio * with_pixel(fit.psf_px) && fit.psf_sd_px < 0.4f) {
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
  check("measure_frame", subtracted, valid, options);
  Neighbourhood around = look_around(centrelines, options);
  std::vector<LumenFit> fits = find_starts(stream, subtracted, valid, around, options);

  // Nothing is fitted where another vessel overlaps or where there is plainly nothing. First what looks wide, with its own kappa.
  const float narrow_below = options.free_kappa_ratio * with_pixel(options.psf_px);
  std::vector<LumenFitPoint> points;
  std::vector<std::size_t> places, rest;
  for (std::size_t i = 0; i < fits.size(); ++i) {
    if (around.sites[i].overlap || fits[i].significance < least_significance) continue;
    (around.fit_points[i].radius_px < narrow_below ? rest : places).push_back(i);
  }
  // Profiles are fitted in groups, which take as long as their widest, and longer where its model is another. Neighbours share pixels that
  // are in the cache: sorted in stretches only.
  const float wide_from = 6 * with_pixel(options.psf_px);
  constexpr std::size_t stretch = 1024;
  const auto width_of = [&](std::size_t i) {
    const float radius = around.fit_points[i].radius_px;
    return static_cast<int>(2 * radius) + (radius > wide_from ? 1000 : 0) + 10000 * static_cast<int>(i / stretch);
  };
  const auto by_width = [&](std::size_t a, std::size_t b) { return width_of(a) < width_of(b); };
  std::stable_sort(places.begin(), places.end(), by_width);
  for (const std::size_t i : places) points.push_back(around.fit_points[i]);
  const auto fit_points = [&] {
    const std::vector<LumenFit> fitted = fit_all(stream, subtracted, valid, points, options, Pass::fit);
    for (std::size_t k = 0; k < fitted.size(); ++k) fits[places[k]] = fitted[k];
  };
  fit_points();
  // By the start, not by what the fit found: of points about that size it would take those that came out too wide, with too low a kappa.
  const auto fitted_wide = [&](std::size_t i) {
    return fits[i].samples > 0 && around.fit_points[i].radius_px >= narrow_below && fits[i].converged && !fits[i].at_bound;
  };

  std::vector<std::vector<double>> values(centrelines.size()), sds(centrelines.size());
  for (std::size_t i = 0; i < fits.size(); ++i)
    if (!around.sites[i].overlap && fitted_wide(i) && sound(fits[i], options)) {
      values[around.sites[i].segment].push_back(fits[i].kappa);
      sds[around.sites[i].segment].push_back(fits[i].kappa_sd);
    }
  std::vector<Kappa> kappa(centrelines.size());
  std::vector<double> all_values, all_sds;
  for (std::size_t s = 0; s < centrelines.size(); ++s) {
    kappa[s] = pool_kappa(values[s], sds[s], 0.02);
    all_values.insert(all_values.end(), values[s].begin(), values[s].end());
    all_sds.insert(all_sds.end(), sds[s].begin(), sds[s].end());
  }
  // Segments fill differently: how differently shows where three or more are wide, and is guessed with fewer.
  std::vector<double> of_segments;
  for (const Kappa& k : kappa)
    if (k.sd > 0) of_segments.push_back(k.value);
  double between = 0.15;
  if (of_segments.size() >= 3) {
    const double centre = median_of(of_segments);
    between = std::max(0.05, 1.5 * robust_sd(of_segments, centre) / centre);
  }
  const Kappa of_frame = pool_kappa(all_values, all_sds, between);

  // Then the others, and what only looked wide, with the kappa of the wide ones where there is any.
  const auto prior_of = [&](std::size_t i) -> const Kappa& {
    const Kappa& own = kappa[around.sites[i].segment];
    return own.sd > 0 ? own : of_frame;
  };
  for (const std::size_t i : places)
    if (!fitted_wide(i) && prior_of(i).sd > 0) rest.push_back(i);
  std::sort(rest.begin(), rest.end());
  std::stable_sort(rest.begin(), rest.end(), by_width);
  points.clear();
  places = rest;
  for (const std::size_t i : places) {
    LumenFitPoint point = around.fit_points[i];
    if (fits[i].converged && !fits[i].at_bound) {
      point.radius_px = 0.5f * fits[i].diameter_px;
      point.centre_px = 0;
    }
    const Kappa& prior = prior_of(i);
    point.kappa = static_cast<float>(prior.value);
    point.kappa_sd = static_cast<float>(prior.sd);
    points.push_back(point);
  }
  fit_points();

  const NoiseFactor noise_factor(options);
  std::vector<std::vector<LumenPoint>> result(centrelines.size());
  for (std::size_t i = 0; i < fits.size(); ++i) {
    LumenFit& fit = fits[i];
    const Site& site = around.sites[i];
    const CentrelinePoint& p = centrelines[site.segment].points[site.point];
    const LumenFitPoint& at = around.fit_points[i];
    const float factor = options.sd_inflation * static_cast<float>(noise_factor.at(0.5 * fit.diameter_px));
    const float of_noise = std::sqrt(std::max(square(fit.sd_px) - square(fit.prior_sd_px), 0.0f));
    fit.sd_px *= factor;
    fit.contrast_sd *= factor;
    LumenPoint point;
    point.segment = site.segment;
    point.point = site.point;
    point.arc_length_px = p.arc_length_px;
    point.reason = judge(fit, site, options);
    point.used = point.reason == Exclusion::none;
    const float move = point.used ? fit.centre_px : 0;
    point.y_px = p.y + move * at.normal_y;
    point.x_px = p.x + move * at.normal_x;
    point.normal_y = at.normal_y;
    point.normal_x = at.normal_x;
    point.diameter_px = fit.samples > 0 ? fit.diameter_px : 0;
    point.sd_px = fit.sd_px;
    point.common_sd_px = std::sqrt(square(options.sd_inflation * fit.prior_sd_px) + options.common_noise_share * square(factor * of_noise));
    point.contrast = fit.contrast;
    point.contrast_sd = fit.contrast_sd;
    point.background = fit.background;
    point.kappa = fit.kappa;
    point.chi2_per_dof = fit.chi2_per_dof;
    result[site.segment].push_back(point);
  }
  return result;
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
