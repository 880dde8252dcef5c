#include "engine/calibre_change.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numbers>
#include <random>

namespace cinelumen {
namespace {

constexpr std::size_t most_bins = 120;     // longer vessels get wider bins: the cost grows with the cube
constexpr double points_that_share = 2.5;  // neighbouring points, about a pixel apart, of which one is news
constexpr double gap_mm = 1.2, unknown_variance = 10;
constexpr double narrowed_ratio = 0.75;  // where the extent of a narrowing ends: 25 %

/// Lower triangular factor of a symmetric positive semidefinite matrix, row by row.
class Cholesky {
 public:
  Cholesky(std::vector<double> a, std::size_t n) : l_(std::move(a)), n_(n) {
    double largest = 0;
    for (std::size_t i = 0; i < n_; ++i) largest = std::max(largest, l_[i * n_ + i]);
    for (std::size_t j = 0; j < n_; ++j) {
      double pivot = l_[j * n_ + j];
      for (std::size_t k = 0; k < j; ++k) pivot -= l_[j * n_ + k] * l_[j * n_ + k];
      // What rounding leaves of a direction without variance is not one.
      const bool flat = pivot <= rounding * largest;
      l_[j * n_ + j] = flat ? 0 : std::sqrt(pivot);
      for (std::size_t i = j + 1; i < n_; ++i) {
        double sum = l_[i * n_ + j];
        for (std::size_t k = 0; k < j; ++k) sum -= l_[i * n_ + k] * l_[j * n_ + k];
        l_[i * n_ + j] = flat ? 0 : sum / l_[j * n_ + j];
      }
    }
  }
  /// L^-1 b.
  std::vector<double> forward(std::vector<double> b) const {
    for (std::size_t i = 0; i < n_; ++i) {
      for (std::size_t k = 0; k < i; ++k) b[i] -= l_[i * n_ + k] * b[k];
      b[i] /= l_[i * n_ + i];
    }
    return b;
  }
  /// L b.
  std::vector<double> times(const std::vector<double>& b) const {
    std::vector<double> result(n_, 0.0);
    for (std::size_t i = 0; i < n_; ++i)
      for (std::size_t k = 0; k <= i; ++k) result[i] += l_[i * n_ + k] * b[k];
    return result;
  }
  double log_determinant() const {
    double sum = 0;
    for (std::size_t i = 0; i < n_; ++i) sum += 2 * std::log(l_[i * n_ + i]);
    return sum;
  }

 private:
  static constexpr double rounding = 1e-7;
  std::vector<double> l_;
  std::size_t n_;
};

struct Bins {
  std::vector<double> arc, value, variance, over;
  double step = 0;
};

Bins pool(const std::vector<LogRatio>& ratios, const CalibreChangeOptions& options) {
  Bins bins;
  const auto [first, last] =
      std::minmax_element(ratios.begin(), ratios.end(), [](const LogRatio& a, const LogRatio& b) { return a.arc_mm < b.arc_mm; });
  bins.step = std::max(options.bin_mm, (last->arc_mm - first->arc_mm) / most_bins);
  const auto count = static_cast<std::size_t>((last->arc_mm - first->arc_mm) / bins.step) + 1;
  std::vector<double> weights(count), sums(count), arcs(count), spreads(count), overs(count);
  std::vector<int> points(count);
  for (const LogRatio& ratio : ratios) {
    const auto b = std::min(count - 1, static_cast<std::size_t>((ratio.arc_mm - first->arc_mm) / bins.step));
    const double weight = 1 / (ratio.sd * ratio.sd);
    weights[b] += weight;
    sums[b] += weight * ratio.value;
    arcs[b] += ratio.arc_mm;
    spreads[b] += ratio.sd;
    overs[b] = std::max(overs[b], ratio.over_mm);
    ++points[b];
  }
  const auto add = [&](double arc, double value, double variance, double over) {
    bins.arc.push_back(arc);
    bins.value.push_back(value);
    bins.variance.push_back(variance);
    bins.over.push_back(over);
  };
  for (std::size_t b = 0; b < count; ++b) {
    if (points[b] == 0) continue;
    const double arc = arcs[b] / points[b];
    // What lies in a short gap follows from both sides of it.
    if (!bins.arc.empty() && arc - bins.arc.back() <= gap_mm)
      for (double between = bins.arc.back() + bins.step; between < arc - 0.5 * bins.step; between += bins.step)
        add(between, 0, unknown_variance, 0);
    const double sd = spreads[b] / points[b];
    add(arc, sums[b] / weights[b], sd * sd / std::max(1.0, points[b] / points_that_share), overs[b]);
  }
  return bins;
}

double bell(double distance, double length) { return std::exp(-0.5 * distance * distance / (length * length)); }

/// Posterior of the change at each bin, and how likely it is that there is one.
struct Posterior {
  double changed = 0;                    // probability
  std::vector<double> mean, covariance;  // given that something changed
};

/// A short change: how much of its depth is at each bin.
using Bump = std::vector<double>;

/// What may have happened, as covariances between bins.
class Models {
 public:
  Models(const Bins& bins, double common_sd, const CalibreChangeOptions& options) : bins_(bins), options_(options), n_(bins.arc.size()) {
    error_.resize(n_ * n_);
    for (std::size_t i = 0; i < n_; ++i)
      for (std::size_t j = 0; j < n_; ++j)
        error_[i * n_ + j] = common_sd * common_sd +
                             options.shape_sd * options.shape_sd * bell(bins.arc[i] - bins.arc[j], options.shape_mm) +
                             (i == j ? bins.variance[i] : 0.0);
    for (const double width : options.focal_mm)
      for (std::size_t at = 0; at < n_; ++at) {
        if (bins.over[at] > width) continue;
        Bump& bump = bumps_.emplace_back();
        for (std::size_t i = 0; i < n_; ++i) bump.push_back(bell(bins.arc[i] - bins.arc[at], width));
      }
  }
  /// Covariance of no change at all, and of one that spreads.
  std::vector<double> nothing() const { return std::vector<double>(n_ * n_, 0.0); }
  std::vector<double> spread() const {
    std::vector<double> result(n_ * n_);
    for (std::size_t i = 0; i < n_; ++i)
      for (std::size_t j = 0; j < n_; ++j) {
        const double d = bins_.arc[i] - bins_.arc[j];
        result[i * n_ + j] = options_.long_sd * options_.long_sd * bell(d, options_.long_mm) +
                             options_.shoulder_sd * options_.shoulder_sd * bell(d, options_.shoulder_mm);
      }
    return result;
  }
  Cholesky with(const std::vector<double>& signal) const {
    std::vector<double> both(n_ * n_);
    for (std::size_t i = 0; i < both.size(); ++i) both[i] = signal[i] + error_[i];
    return {std::move(both), n_};
  }
  double log_likelihood(const Cholesky& factor) const {
    double squares = 0;
    for (const double z : factor.forward(bins_.value)) squares += z * z;
    return -0.5 * (squares + factor.log_determinant());
  }

  struct Focal {
    double gain = 0;                  // of log likelihood, over all places and widths that it may have
    const Bump* likeliest = nullptr;  // none: no place where one would show
  };
  /// What a focal narrowing besides would explain, its depth unknown: each place and width changes the covariance by a matrix of rank one.
  Focal focal(const Cholesky& factor) const {
    const std::vector<double> whitened = factor.forward(bins_.value);
    std::vector<double> gains;
    Focal result;
    if (bumps_.empty()) return result;
    for (const Bump& bump : bumps_) {
      const std::vector<double> shape = factor.forward(bump);
      double power = 0, match = 0;
      for (std::size_t i = 0; i < n_; ++i) power += shape[i] * shape[i], match += shape[i] * whitened[i];
      const double prior = options_.focal_sd * options_.focal_sd, variance = 1 / (1 / prior + power), mean = variance * match;
      // Nothing widens a vessel at one place: half of a normal distribution.
      const double narrower = std::erfc(mean / std::sqrt(2 * variance));
      const double gain = 0.5 * (std::log(variance / prior) + mean * match) + std::log(std::max(narrower, 1e-300));
      gains.push_back(gain);
    }
    const auto most_at = std::max_element(gains.begin(), gains.end());
    result.likeliest = &bumps_[static_cast<std::size_t>(most_at - gains.begin())];
    const double most = *most_at;
    double sum = 0;
    for (const double gain : gains) sum += std::exp(gain - most);
    result.gain = most + std::log(sum / static_cast<double>(gains.size()));
    return result;
  }
  void add(const Bump& bump, std::vector<double>& signal) const {
    for (std::size_t i = 0; i < n_; ++i)
      for (std::size_t j = 0; j < n_; ++j) signal[i * n_ + j] += options_.focal_sd * options_.focal_sd * bump[i] * bump[j];
  }
  /// mean = S B^-1 y, covariance = S - S B^-1 S, with B = L L'.
  void condition(const std::vector<double>& signal, const Cholesky& factor, Posterior& posterior) const {
    const std::vector<double> whitened = factor.forward(bins_.value);
    std::vector<std::vector<double>> rows;
    for (std::size_t i = 0; i < n_; ++i)
      rows.push_back(factor.forward(
          {signal.begin() + static_cast<std::ptrdiff_t>(i * n_), signal.begin() + static_cast<std::ptrdiff_t>((i + 1) * n_)}));
    posterior.mean.assign(n_, 0.0);
    posterior.covariance = signal;
    for (std::size_t i = 0; i < n_; ++i) {
      for (std::size_t k = 0; k < n_; ++k) posterior.mean[i] += rows[i][k] * whitened[k];
      for (std::size_t j = 0; j <= i; ++j) {
        double explained = 0;
        for (std::size_t k = 0; k < n_; ++k) explained += rows[i][k] * rows[j][k];
        posterior.covariance[i * n_ + j] -= explained;
        posterior.covariance[j * n_ + i] = posterior.covariance[i * n_ + j];
      }
    }
  }

 private:
  const Bins& bins_;
  const CalibreChangeOptions& options_;
  std::size_t n_;
  std::vector<double> error_;
  std::vector<Bump> bumps_;
};

/// Nothing, or a change that spreads, and focal narrowings with either: the likeliest that says that something changed is carried on.
Posterior infer(const Bins& bins, double common_sd, const CalibreChangeOptions& options) {
  const Models models(bins, common_sd, options);
  struct Model {
    std::vector<double> signal;
    Cholesky factor;
    double log_evidence;
  };
  const auto start = [&](std::vector<double> signal) {
    Cholesky factor = models.with(signal);
    const double likelihood = models.log_likelihood(factor);
    return Model{std::move(signal), std::move(factor), likelihood};
  };
  const double changed = options.changed_share, focal = options.focal_share;
  Model spreads = start(models.spread()), alone = start(models.nothing());
  const double nothing = alone.log_evidence + std::log(1 - changed);
  for (Model* base : {&spreads, &alone}) base->log_evidence += std::log(changed * (1 - focal));
  Model best = spreads;
  for (const Model* base : {&spreads, &alone}) {
    // One after the other, as long as they explain more than they cost.
    Model model = *base;
    for (int count = 0; count < options.most_focal; ++count) {
      const Models::Focal more = models.focal(model.factor);
      const double gain = more.gain + std::log(focal / (1 - focal));
      if (!more.likeliest || (count > 0 && gain <= 0)) break;
      models.add(*more.likeliest, model.signal);
      model.factor = models.with(model.signal);
      model.log_evidence += gain;
    }
    if (model.log_evidence > best.log_evidence) best = std::move(model);
  }
  Posterior posterior;
  posterior.changed = 1 / (1 + std::exp(-std::clamp(best.log_evidence - nothing, -50.0, 50.0)));
  models.condition(best.signal, best.factor, posterior);
  return posterior;
}

/// Means of a change over a window about each bin.
class Windows {
 public:
  Windows(const Bins& bins, double window_mm) {
    for (std::size_t i = 0; i < bins.arc.size(); ++i) {
      std::size_t from = i, to = i;
      while (from > 0 && bins.arc[i] - bins.arc[from - 1] <= 0.5 * window_mm) --from;
      while (to + 1 < bins.arc.size() && bins.arc[to + 1] - bins.arc[i] <= 0.5 * window_mm) ++to;
      ranges_.push_back({from, to});
    }
  }
  /// Index of the window with the least mean.
  std::size_t narrowest(const std::vector<double>& change) const {
    std::size_t best = 0;
    for (std::size_t i = 1; i < ranges_.size(); ++i)
      if (mean(change, i) < mean(change, best)) best = i;
    return best;
  }
  /// The least mean of the windows `first` to `last`.
  double least(const std::vector<double>& change, std::size_t first, std::size_t last) const {
    double best = mean(change, first);
    for (std::size_t i = first + 1; i <= last; ++i) best = std::min(best, mean(change, i));
    return best;
  }
  double mean(const std::vector<double>& change, std::size_t i) const {
    double sum = 0;
    for (std::size_t k = ranges_[i][0]; k <= ranges_[i][1]; ++k) sum += change[k];
    return sum / static_cast<double>(ranges_[i][1] - ranges_[i][0] + 1);
  }

 private:
  std::vector<std::array<std::size_t, 2>> ranges_;
};

/// Standard normal numbers, the same everywhere: std::normal_distribution is not.
class Normal {
 public:
  double operator()() {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }

 private:
  double uniform() { return (static_cast<double>(engine_() >> 11) + 0.5) * 0x1p-53; }
  std::mt19937_64 engine_{20261};
};

double percent_of(double log_ratio) { return 100 * (1 - std::exp(log_ratio)); }

/// A stretch of bins about its narrowest window.
struct Stretch {
  std::size_t first = 0, last = 0, at = 0;
};

/// Stretches that are narrower than `least_percent`, each parted from the next by a place half as deep; deepest first.
std::vector<Stretch> find_stretches(const std::vector<double>& mean, const Windows& windows, double least_percent) {
  std::vector<double> depth;
  for (std::size_t i = 0; i < mean.size(); ++i) depth.push_back(percent_of(windows.mean(mean, i)));
  std::vector<Stretch> found;
  std::vector<char> taken(mean.size(), 0);
  for (;;) {
    std::size_t at = mean.size();
    for (std::size_t i = 0; i < mean.size(); ++i)
      if (!taken[i] && depth[i] >= least_percent && (at == mean.size() || depth[i] > depth[at])) at = i;
    if (at == mean.size()) return found;
    Stretch stretch{at, at, at};
    const double side = std::min(0.5 * depth[at], least_percent);
    while (stretch.first > 0 && !taken[stretch.first - 1] && depth[stretch.first - 1] > side) --stretch.first;
    while (stretch.last + 1 < mean.size() && !taken[stretch.last + 1] && depth[stretch.last + 1] > side) ++stretch.last;
    // What touches a deeper stretch is its shoulder.
    const bool shoulder = (stretch.first > 0 && taken[stretch.first - 1]) || (stretch.last + 1 < mean.size() && taken[stretch.last + 1]);
    for (std::size_t i = stretch.first; i <= stretch.last; ++i) taken[i] = 1;
    if (!shoulder) found.push_back(stretch);
  }
}

/// Length about the narrowest over which `inside` holds without a break: its ends, half a bin beyond the last ones.
template <class Inside>
std::array<double, 2> reach(const Bins& bins, std::size_t at, const Inside& inside) {
  if (!inside(at)) return {bins.arc[at], bins.arc[at]};
  std::size_t from = at, to = at;
  while (from > 0 && inside(from - 1)) --from;
  while (to + 1 < bins.arc.size() && inside(to + 1)) ++to;
  return {bins.arc[from] - 0.5 * bins.step, bins.arc[to] + 0.5 * bins.step};
}

Narrowing describe(const Bins& bins, const std::vector<double>& mean, const Windows& windows, std::size_t at) {
  Narrowing narrowing;
  narrowing.at_mm = bins.arc[at];
  narrowing.percent = percent_of(windows.mean(mean, at));
  const auto depth = [&](std::size_t i) { return 1 - std::exp(mean[i]); };
  const double deepest = 0.01 * narrowing.percent;
  const auto half = reach(bins, at, [&](std::size_t i) { return depth(i) > 0.5 * deepest; });
  narrowing.from_mm = half[0];
  narrowing.to_mm = half[1];
  const auto whole = reach(bins, at, [&](std::size_t i) { return std::exp(mean[i]) < narrowed_ratio; });
  narrowing.extent_from_mm = whole[0];
  narrowing.extent_to_mm = whole[1];
  narrowing.spread_mm = narrowing.possible_mm = narrowing.extent_mm();
  const auto shoulder = [&](int step) {
    double inner = bins.arc[at];
    for (auto i = static_cast<std::ptrdiff_t>(at); i >= 0 && i < static_cast<std::ptrdiff_t>(bins.arc.size()); i += step) {
      const auto k = static_cast<std::size_t>(i);
      if (depth(k) > 0.9 * deepest) inner = bins.arc[k];
      if (depth(k) < 0.1 * deepest) return std::abs(bins.arc[k] - inner);
    }
    return 0.0;
  };
  narrowing.taper_mm = std::max(shoulder(-1), shoulder(1));
  return narrowing;
}

/// Fills in what hangs on the posterior's spread: intervals and probabilities.
void weigh(const Posterior& posterior, const Windows& windows, const CalibreChangeOptions& options, const std::vector<Stretch>& stretches,
           const std::vector<Narrowing*>& narrowings) {
  const std::size_t n = posterior.mean.size();
  const Cholesky factor(posterior.covariance, n);
  Normal normal;
  std::vector<std::vector<double>> there(stretches.size());
  std::vector<std::array<int, 3>> over(stretches.size(), {0, 0, 0});
  std::vector<double> z(n);
  for (int d = 0; d < options.draws; ++d) {
    for (double& value : z) value = normal();
    std::vector<double> drawn = factor.times(z);
    for (std::size_t i = 0; i < n; ++i) drawn[i] += posterior.mean[i];
    for (std::size_t s = 0; s < stretches.size(); ++s) {
      const double largest = percent_of(windows.least(drawn, stretches[s].first, stretches[s].last));
      over[s][0] += largest > 25;
      over[s][1] += largest > 50;
      over[s][2] += largest > 90;
      there[s].push_back(percent_of(windows.mean(drawn, stretches[s].at)));
    }
  }
  for (std::size_t s = 0; s < stretches.size(); ++s) {
    std::sort(there[s].begin(), there[s].end());
    const auto quantile = [&](double q) { return there[s][static_cast<std::size_t>(q * static_cast<double>(there[s].size() - 1))]; };
    narrowings[s]->ci95 = {quantile(0.025), quantile(0.975)};
    const double share = posterior.changed / options.draws;
    narrowings[s]->probability_25 = share * over[s][0];
    narrowings[s]->probability_50 = share * over[s][1];
    narrowings[s]->probability_90 = share * over[s][2];
  }
}

}  // namespace

std::array<double, 2> CalibreChange::ratio_between(double from_mm, double to_mm, const CalibreChange* like) const {
  constexpr double near_mm = 0.4;  // bins of two runs need not begin at the same place
  const auto measured = [&](double mm) {
    return !like || std::any_of(like->arc_mm.begin(), like->arc_mm.end(), [&](double other) { return std::abs(other - mm) <= near_mm; });
  };
  double sum = 0, variance = 0;
  int count = 0;
  for (std::size_t i = 0; i < arc_mm.size(); ++i)
    if (arc_mm[i] >= from_mm && arc_mm[i] <= to_mm && measured(arc_mm[i])) {
      sum += ratio_log[i];
      variance += ratio_log_sd[i] * ratio_log_sd[i];
      ++count;
    }
  if (count == 0) return {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN()};
  // Neighbouring bins err alike: their mean is no surer than one of them.
  const double ratio = std::exp(sum / count);
  return {ratio, ratio * std::sqrt(variance / count)};
}

CalibreChange estimate_change(const std::vector<LogRatio>& ratios, double common_sd, const CalibreChangeOptions& options) {
  CalibreChange change;
  if (ratios.empty()) return change;
  const Bins bins = pool(ratios, options);
  const std::size_t n = bins.arc.size();
  if (static_cast<double>(n) * bins.step < options.window_mm) return change;
  change.known = true;
  const Posterior posterior = infer(bins, common_sd, options);
  change.probability = posterior.changed;
  double weights = 0, sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double weight = 1 / (bins.variance[i] + options.shape_sd * options.shape_sd);
    weights += weight;
    sum += weight * bins.value[i];
  }
  change.mean_ratio = std::exp(sum / weights);
  // Of the shape's errors as many are independent as there are of their lengths.
  const double independent = std::max(1.0, static_cast<double>(n) * bins.step / options.shape_mm);
  change.mean_ratio_sd =
      change.mean_ratio * std::sqrt(1 / weights + options.shape_sd * options.shape_sd / independent + common_sd * common_sd);
  const Windows windows(bins, options.window_mm);
  // The whole vessel first, then what is narrow in it.
  std::vector<Stretch> stretches = find_stretches(posterior.mean, windows, options.least_percent);
  stretches.insert(stretches.begin(), {0, n - 1, windows.narrowest(posterior.mean)});
  change.narrowings.resize(stretches.size() - 1);
  std::vector<Narrowing*> narrowings = {&change.largest};
  for (Narrowing& narrowing : change.narrowings) narrowings.push_back(&narrowing);
  for (std::size_t s = 0; s < stretches.size(); ++s) *narrowings[s] = describe(bins, posterior.mean, windows, stretches[s].at);
  weigh(posterior, windows, options, stretches, narrowings);
  change.arc_mm = bins.arc;
  change.bin_mm = bins.step;
  change.ratio_log = posterior.mean;
  for (std::size_t i = 0; i < n; ++i) change.ratio_log_sd.push_back(std::sqrt(std::max(0.0, posterior.covariance[i * n + i])));
  return change;
}

}  // namespace cinelumen
