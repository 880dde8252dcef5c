#include "engine/change_point.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>
#include <tuple>
#include <utility>

#include "engine/median.h"

namespace cinelumen {
namespace {

constexpr int reference_frames = 3;        // that make a point's reference: only an offset, common to all frames after
constexpr std::size_t most_readings = 64;  // per window; older ones are merged by twos
constexpr double news_share = 0.5;         // neighbouring points share pixels: about every second one is news

// Share of the newest frame.
float smoothing(int seen) { return std::max(0.3f, 1 / static_cast<float>(seen)); }

double normal_cdf(double z) { return 0.5 * std::erfc(-z / std::numbers::sqrt2); }

CalibreReading merged(const CalibreReading& a, const CalibreReading& b) {
  CalibreReading both = a;
  const double wa = 1 / a.variance, wb = 1 / b.variance;
  both.last_ms = b.last_ms;
  both.last_frame = b.last_frame;
  both.frames += b.frames;
  both.confirmed += b.confirmed;
  both.variance = 1 / (wa + wb);
  both.value = (wa * a.value + wb * b.value) * both.variance;
  both.kappa = (a.frames * a.kappa + b.frames * b.kappa) / both.frames;
  both.common = (a.frames * a.common + b.frames * b.common) / both.frames;
  return both;
}

// Merges the two neighbours of which least is lost: alike in value, and not yet long. The last half keeps its clock.
void thin(std::vector<CalibreReading>& readings) {
  constexpr double frames_per_chi2 = 16;  // what a longer reading costs, against unlike values
  std::size_t least = 0;
  double cost = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; 2 * i < readings.size(); ++i) {
    const CalibreReading &a = readings[i], &b = readings[i + 1];
    const double here = (a.value - b.value) * (a.value - b.value) / (a.variance + b.variance) + (a.frames + b.frames) / frames_per_chi2;
    if (here < cost) cost = here, least = i;
  }
  readings[least] = merged(readings[least], readings[least + 1]);
  readings.erase(readings.begin() + static_cast<std::ptrdiff_t>(least) + 1);
}

// Sums of weights, and of weights times powers of time and value, up to each reading.
struct Sums {
  double w = 0, t = 0, tt = 0, y = 0, ty = 0, yy = 0;
  Sums operator-(const Sums& o) const { return {w - o.w, t - o.t, tt - o.tt, y - o.y, ty - o.ty, yy - o.yy}; }
};

}  // namespace

std::optional<std::size_t> find_point(const std::vector<PointBefore>& before, int segment, int point) {
  constexpr int near = 4;  // points
  std::optional<std::size_t> nearest;
  int least = near + 1;
  for (std::size_t i = 0; i < before.size(); ++i)
    if (before[i][0] == segment && std::abs(before[i][1] - point) < least) {
      least = std::abs(before[i][1] - point);
      nearest = i;
    }
  return nearest;
}

void ChangePointPosterior::add(double value, double variance) {
  constexpr double least_weight = 1e-5;
  constexpr std::size_t most = 16;  // run lengths followed
  const double prior_variance = level_sd_ * level_sd_;
  const auto density = [](double away, double v) { return std::exp(-0.5 * away * away / v) / std::sqrt(v); };
  if (count_ > 0) {
    const double before = sum_ / precision_;
    for (RunLength& run : runs_) run.weight *= 1 - hazard_;
    runs_.push_back({count_, hazard_, 0, 1 / prior_variance, before, precision_});
  } else {
    runs_.push_back({0, 1, 0, 1 / prior_variance, 0, 0});
  }
  double total = 0;
  for (RunLength& run : runs_) {
    // The floor keeps a value that nothing explains from leaving no hypothesis at all.
    run.weight *= density(value - run.level, 1 / run.precision + variance) + std::numeric_limits<double>::min();
    const double precision = run.precision + 1 / variance;
    run.level = (run.level * run.precision + value / variance) / precision;
    run.precision = precision;
    total += run.weight;
  }
  for (RunLength& run : runs_) run.weight /= total;
  std::erase_if(runs_, [](const RunLength& run) { return run.weight < least_weight; });
  if (runs_.size() > most)
    runs_.erase(
        std::min_element(runs_.begin(), runs_.end() - 1, [](const RunLength& a, const RunLength& b) { return a.weight < b.weight; }));
  sum_ += value / variance;
  precision_ += 1 / variance;
  ++count_;
}

double ChangePointPosterior::probability(double step, int sign) const {
  double sum = 0;
  for (const RunLength& run : runs_) {
    if (run.start == 0 || run.before_precision <= 0) continue;
    const double z = (sign * (run.level - run.before) - step) / std::sqrt(1 / run.precision + 1 / run.before_precision);
    constexpr double sure = 5;  // SDs; the usual case, and it need not be cheap to be told
    if (z > -sure) sum += run.weight * (z > sure ? 1 : normal_cdf(z));
  }
  return sum;
}

bool Cusum::add(double z) {
  fall_ = std::max(0.0, fall_ - z - k_);
  rise_ = std::max(0.0, rise_ + z - k_);
  return alarm_ = alarm_ || fall_ > h_ || rise_ > h_;
}

std::optional<RampFit> fit_ramp(const std::vector<CalibreReading>& readings, double level_sd, bool bent) {
  const std::size_t n = readings.size();
  if (n < 3) return {};
  const double start = readings.front().mid_ms(), prior = 1 / (level_sd * level_sd);
  std::vector<double> time(n);
  std::vector<Sums> upto(n + 1);
  for (std::size_t i = 0; i < n; ++i) {
    const double w = 1 / readings[i].variance, t = time[i] = readings[i].mid_ms() - start, y = readings[i].value;
    const Sums& s = upto[i];
    upto[i + 1] = {s.w + w, s.t + w * t, s.tt + w * t * t, s.y + w * y, s.ty + w * t * y, s.yy + w * y * y};
  }
  struct Candidate {
    std::size_t from, to;
    double log_weight, change, variance, chi2;
  };
  std::vector<Candidate> candidates;
  double best = -std::numeric_limits<double>::infinity();
  // Of the readings strictly between: sums of w u, w u^2 and w u y, where u goes from 0 at i to 1 at j.
  struct Way {
    double u = 0, uu = 0, uy = 0;
  };
  const auto straight = [&](std::size_t i, std::size_t j) {
    const Sums way = upto[j] - upto[i + 1];
    const double span = time[j] - time[i], origin = time[i];
    return Way{(way.t - origin * way.w) / span, (way.tt - 2 * origin * way.t + origin * origin * way.w) / (span * span),
               (way.ty - origin * way.y) / span};
  };
  const auto gentle = [&](std::size_t i, std::size_t j) {
    Way way;
    for (std::size_t k = i + 1; k < j; ++k) {
      const double f = (time[k] - time[i]) / (time[j] - time[i]), u = f * f * (3 - 2 * f), w = 1 / readings[k].variance;
      way.u += w * u, way.uu += w * u * u, way.uy += w * u * readings[k].value;
    }
    return way;
  };
  const auto consider = [&](std::size_t i, std::size_t j, const Way& w) {
    // y = a (1 - u) + b u.
    const Sums left = upto[i + 1], way = upto[j] - upto[i + 1], right = upto[n] - upto[j];
    const double aa = prior + left.w + way.w - 2 * w.u + w.uu, ab = w.u - w.uu, bb = prior + right.w + w.uu;
    const double ay = left.y + way.y - w.uy, by = right.y + w.uy;
    const double determinant = aa * bb - ab * ab;
    const double a = (bb * ay - ab * by) / determinant, b = (aa * by - ab * ay) / determinant;
    const double explained = a * ay + b * by;
    const double length = static_cast<double>(j - i);
    candidates.push_back({i, j, 0.5 * explained - 0.5 * std::log(determinant) - std::log(length), b - a, (aa + bb + 2 * ab) / determinant,
                          upto[n].yy - explained});
    best = std::max(best, candidates.back().log_weight);
  };
  for (std::size_t i = 0; i + 1 < n; ++i)
    for (std::size_t j = i + 1; j < n; ++j) {
      consider(i, j, straight(i, j));
      if (bent) consider(i, j, gentle(i, j));
    }
  double total = 0, mean = 0, square = 0;
  std::vector<double> by_start(n, 0.0);
  for (const Candidate& c : candidates) {
    const double weight = std::exp(c.log_weight - best);
    total += weight;
    mean += weight * c.change;
    square += weight * (c.variance + c.change * c.change);
    by_start[c.from] += weight;
  }
  RampFit fit;
  fit.change = mean / total;
  fit.change_sd = std::sqrt(std::max(0.0, square / total - fit.change * fit.change));
  const auto mode = static_cast<std::size_t>(std::max_element(by_start.begin(), by_start.end()) - by_start.begin());
  const Candidate* likely = nullptr;
  for (const Candidate& c : candidates)
    if (c.from == mode && (!likely || c.log_weight > likely->log_weight)) likely = &c;
  fit.onset_ms = readings[mode].mid_ms();
  fit.chi2 = likely->chi2;
  fit.before = mode + 1;
  fit.settled = likely->to;
  constexpr double tail = 0.025;
  double below = 0;
  std::size_t low = n, high = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (below + by_start[i] > tail * total && low == n) low = i;
    if (below < (1 - tail) * total) high = i;
    below += by_start[i];
  }
  // It began between a frame of the old level and the next; a way that begins otherwise than these two do is found to begin elsewhere.
  constexpr double shape = 0.15;  // of the way's length
  const double open = shape * (readings[fit.settled].mid_ms() - fit.onset_ms);
  fit.onset_interval_ms = {readings[low].mid_ms() - open, readings[std::min(high + 1, n - 1)].mid_ms() + open};
  return fit;
}

CalibreWatch::CalibreWatch(const Centreline& centreline, double mm_per_px, const ChangePointOptions& options)
    : options_(options), references_(centreline.points.size()), residuals_(centreline.points.size()) {
  for (const CentrelinePoint& point : centreline.points) arc_length_px_.push_back(point.arc_length_px);
  make_windows(mm_per_px);
}

ChangePointPosterior CalibreWatch::fresh() const {
  return {options_.hazard / static_cast<double>(std::max<std::size_t>(1, windows_.size())), options_.level_sd};
}

void CalibreWatch::make_windows(double mm_per_px) {
  if (arc_length_px_.empty()) return;
  const double length = arc_length_px_.back();
  const double wanted = mm_per_px > 0 ? std::max(options_.window_px, options_.window_mm / mm_per_px) : options_.window_px;
  const int count = std::max(1, static_cast<int>(length / wanted));
  const auto add = [&](std::size_t first, std::size_t last) {
    windows_.emplace_back();
    windows_.back().first = first;
    windows_.back().last = last;
  };
  const std::size_t last = arc_length_px_.size() - 1;
  for (std::size_t first = 0; first <= last;) {
    const double end = (static_cast<double>(windows_.size()) + 1) * length / count;
    std::size_t to = first;
    while (to < last && (arc_length_px_[to + 1] < end || windows_.size() + 1 == static_cast<std::size_t>(count))) ++to;
    add(first, to);
    first = to + 1;
  }
  if (windows_.size() > 1) add(0, last);
  for (Window& window : windows_) window.posterior = fresh();
}

void CalibreWatch::refer(const std::vector<LumenPoint>& points) {
  std::fill(residuals_.begin(), residuals_.end(), Residual());
  for (const LumenPoint& point : points) {
    if (!point.used || !(point.sd_px > 0) || !(point.diameter_px > 0) || point.point < 0) continue;
    const auto i = static_cast<std::size_t>(point.point);
    if (i >= residuals_.size()) continue;
    const double shared = std::min(point.common_sd_px, point.sd_px);
    const double own = std::max(static_cast<double>(point.sd_px) * point.sd_px - shared * shared, 0.01 * point.sd_px * point.sd_px);
    Residual& residual = residuals_[i];
    residual.value = std::log(point.diameter_px);
    residual.variance = static_cast<float>(own / (static_cast<double>(point.diameter_px) * point.diameter_px));
    residual.common = static_cast<float>(shared) / point.diameter_px;
    residual.kappa = point.kappa;
    residual.kappa_variance = point.kappa_sd * point.kappa_sd;
    residual.own_kappa = point.own_kappa || !(point.kappa > 0);
    residual.by_contrast = residual.value + (point.kappa > 0 ? 0.5f * std::log(point.kappa) : 0);
  }
}

// ln of calibre over the reference. What a narrow lumen holds of contrast, kappa D^2, is known better than either: D changes with kappa,
// which comes from elsewhere and differs from frame to frame.
double CalibreWatch::against_reference(std::size_t point) const {
  const Residual& r = residuals_[point];
  const Reference& reference = references_[point];
  const bool wide = 2 * reference.own_kappa > reference.frames;
  return wide ? r.value - reference.sum / static_cast<float>(reference.frames)
              : r.by_contrast - reference.by_contrast / static_cast<float>(reference.frames);
}

// On its plateau, as far as the frames up to now tell; raises the plateau, and drops frames that turn out not to have been on it.
bool CalibreWatch::filled(Window& window, double kappa, double kappa_sd) const {
  const double allowance = 2 * kappa_sd;
  const double borne_out = std::min(kappa, window.kappa_before);
  const bool flat = window.kappa_two_before > 0 && kappa <= std::exp(options_.kappa_flat) * window.kappa_two_before + allowance;
  window.kappa_two_before = window.kappa_before;
  window.kappa_before = kappa;
  if (borne_out > window.plateau) {
    window.plateau = borne_out;
    const double least = options_.kappa_share * window.plateau - allowance;
    const auto keep =
        std::find_if(window.readings.begin(), window.readings.end(), [&](const CalibreReading& r) { return r.kappa >= least; });
    if (keep != window.readings.begin()) {
      window.readings.erase(window.readings.begin(), keep);
      window.posterior = fresh();
      for (const CalibreReading& reading : window.readings) window.posterior.add(reading.value, reading.variance);
    }
  }
  return flat && kappa >= options_.kappa_share * window.plateau - allowance;
}

std::optional<CalibreReading> CalibreWatch::read(Window& window) const {
  struct Kappa {
    double sum = 0, weight = 0;
    std::size_t points = 0;
    void add(const Residual& r) { sum += r.kappa / r.kappa_variance, weight += 1 / r.kappa_variance, ++points; }
  };
  Kappa own, any;
  std::size_t used = 0;
  for (std::size_t i = window.first; i <= window.last; ++i) {
    const Residual& r = residuals_[i];
    if (!(r.variance > 0)) continue;
    ++used;
    if (!(r.kappa_variance > 0) || !(r.kappa > 0)) continue;
    any.add(r);
    if (r.own_kappa) own.add(r);
  }
  const auto points = static_cast<double>(window.last - window.first + 1);
  constexpr std::size_t least_points = 6;
  if (used < least_points || static_cast<double>(used) < options_.measured_share * points || !(any.weight > 0)) return {};
  CalibreReading reading;
  reading.confirmed = own.points >= least_points;
  const Kappa& kappa = reading.confirmed ? own : any;
  reading.kappa = kappa.sum / kappa.weight;
  if (!filled(window, reading.kappa, 1 / std::sqrt(news_share * kappa.weight))) return {};
  const double share = static_cast<double>(used) / points;
  if (share < options_.kept_share * window.usual_share) return {};
  constexpr double newest = 0.2;  // share of the newest frame
  window.usual_share += (window.usual_share > 0 ? newest : 1) * (share - window.usual_share);

  // Huber's mean of what the points say against their own reference. Points that are not measured now say what they said before: their
  // absence is no change, and no news either.
  struct Said {
    float value, variance;
    bool news;
  };
  std::array<Said, 256> said;
  const std::size_t step = points > static_cast<double>(said.size()) ? static_cast<std::size_t>(points) / said.size() + 1 : 1;
  std::size_t n = 0, news = 0;
  double mean = 0, weights = 0, common = 0;
  for (std::size_t i = window.first; i <= window.last; i += step) {
    const Residual& r = residuals_[i];
    const Reference& reference = references_[i];
    const bool measured = r.variance > 0 && reference.frames >= reference_frames;
    if (!measured && reference.seen == 0) continue;
    said[n] =
        measured ? Said{static_cast<float>(against_reference(i)), r.variance, true} : Said{reference.recent, reference.variance, false};
    if (measured) common += r.common, ++news;
    mean += said[n].value / said[n].variance;
    weights += 1 / said[n++].variance;
  }
  if (news < least_points || static_cast<double>(news * step) < options_.measured_share * points) return {};
  mean /= weights;
  double news_weights = 0;
  for (int iteration = 0; iteration < 3; ++iteration) {
    double sum = 0;
    weights = news_weights = 0;
    for (std::size_t k = 0; k < n; ++k) {
      const double away = std::abs(said[k].value - mean) / std::sqrt(static_cast<double>(said[k].variance));
      const double weight = (away > 1.5 ? 1.5 / away : 1) / said[k].variance;
      weights += weight;
      if (said[k].news) news_weights += weight;
      sum += weight * said[k].value;
    }
    mean = sum / weights;
  }
  reading.value = mean + window.offset;
  window.recent += smoothing(++window.seen) * (reading.value - window.recent);
  reading.common = common / static_cast<double>(news);
  reading.variance = 1 / (news_weights * (step == 1 ? news_share : 1));
  return reading;
}

void CalibreWatch::take(Window& window, CalibreReading reading) const {
  // What frames differ by more than their errors, neighbours and those four apart, since what drifts shows little in neighbours; a step
  // counts as little as it may.
  const double measured = reading.variance, prior = options_.between_sd * options_.between_sd;
  const auto variance = [&](const Between& between) {
    return std::max(0.0, (options_.between_frames * prior + between.sum) / (options_.between_frames + between.frames));
  };
  const auto compare = [&](Between& between, const Recent& then) {
    const double expected = 0.5 * (measured + then.variance), away = reading.value - then.value;
    constexpr double clip = 6;
    between.sum += std::min(0.5 * away * away, clip * (expected + variance(between))) - expected;
    between.frames += 1;
  };
  constexpr std::size_t apart = std::tuple_size_v<decltype(window.latest)>;
  if (window.taken >= 1) compare(window.neighbours, window.latest[(window.taken - 1) % apart]);
  if (window.taken >= apart) compare(window.apart, window.latest[window.taken % apart]);
  window.latest[window.taken++ % apart] = {reading.value, measured};
  reading.variance += std::max({variance(window.neighbours), window.apart.frames > 0 ? variance(window.apart) : 0.0, 0.04 * prior});
  window.posterior.add(reading.value, reading.variance);
  window.readings.push_back(reading);
  if (window.readings.size() > most_readings) thin(window.readings);
}

// From now on it is watched for what follows.
void CalibreWatch::tell(Window& window, int sign) const {
  if (window.told == sign) return;
  const std::optional<RampFit> ramp = fit_ramp(window.readings, options_.level_sd, false);
  const auto settled = window.readings.begin() + static_cast<std::ptrdiff_t>(ramp ? ramp->settled : window.readings.size());
  window.earlier.assign(window.readings.begin(), settled);
  window.readings.erase(window.readings.begin(), settled);
  window.posterior = fresh();
  for (const CalibreReading& reading : window.readings) window.posterior.add(reading.value, reading.variance);
  window.told = sign;
}

std::optional<ChangeWithinRun> CalibreWatch::examine(const Window& window, int sign, bool bent) const {
  std::vector<CalibreReading> readings;
  if (window.told == sign) readings = window.earlier;
  readings.insert(readings.end(), window.readings.begin(), window.readings.end());
  const std::optional<RampFit> ramp = fit_ramp(readings, options_.level_sd, bent);
  const double least = sign < 0 ? -std::log(1 - options_.least_change) : std::log(1 + options_.least_change);
  if (!ramp || sign * ramp->change < least || readings.back().last_ms < ramp->onset_ms + options_.lasting_ms) return {};
  ChangeWithinRun change;
  for (std::size_t i = 0; i < readings.size(); ++i) (i < ramp->before ? change.frames_before : change.frames_after) += readings[i].frames;
  if (change.frames_before < options_.frames_before || change.frames_after < options_.frames_after) return {};
  change.onset_ms = ramp->onset_ms;
  change.onset_interval_ms = ramp->onset_interval_ms;
  change.onset_frame = readings[ramp->before - 1].last_frame;
  change.before_first = readings.front().first_frame;
  change.before_last = change.onset_frame;
  const double ratio = std::exp(ramp->change);
  constexpr double model_percent = 1;  // SD that the lumen's shape leaves open, beside the measurement's
  change.narrowing_percent = 100 * (1 - ratio);
  // What all frames share (point spread, attenuation of narrow lumens) weighs more on a narrow lumen than on a wide one.
  const auto common_of = [&](std::size_t from, std::size_t to) {
    double sum = 0;
    for (std::size_t i = from; i < to; ++i) sum += readings[i].common;
    return sum / static_cast<double>(std::max<std::size_t>(1, to - from));
  };
  const double shared = common_of(ramp->settled, readings.size()) - common_of(0, ramp->before);
  change.percent_sd = std::hypot(100 * ratio * ramp->change_sd, 100 * ratio * shared, model_percent);
  change.ci95 = {change.narrowing_percent - 1.96 * change.percent_sd, std::min(100.0, change.narrowing_percent + 1.96 * change.percent_sd)};
  // Fewer frames at the new level than make one.
  change.still_changing = readings.size() < ramp->settled + static_cast<std::size_t>(options_.frames_after);
  if (change.still_changing && sign < 0) change.ci95[1] = 100;
  change.probability = sign < 0 ? window.posterior.probability_of_fall(least) : window.posterior.probability_of_rise(least);

  Cusum cusum;
  double level = 0, weight = 0;
  for (std::size_t i = 0; i < ramp->before; ++i) level += readings[i].value / readings[i].variance, weight += 1 / readings[i].variance;
  for (const CalibreReading& reading : readings)
    change.cusum_agrees = cusum.add((reading.value - level / weight) / std::sqrt(reading.variance));
  locate(change, window);
  if (!is_vouched_for(readings, *ramp, change)) return {};
  return change;
}

// A lumen too narrow to tell its own attenuation is sized by its contrast, with the attenuation of wide places elsewhere. When contrast
// leaves it, it looks narrower and narrower, and where blood without contrast joins, so does all that lies downstream; only a narrowing
// settles and leaves the vessel either side of it as it was. When contrast comes back it looks wider.
bool CalibreWatch::is_vouched_for(const std::vector<CalibreReading>& readings, const RampFit& ramp, const ChangeWithinRun& change) const {
  int before = 0, after = 0, settled = 0;
  for (std::size_t i = 0; i < readings.size(); ++i) {
    (i < ramp.before ? before : after) += readings[i].confirmed;
    if (i >= ramp.settled) settled += readings[i].frames;
  }
  const bool confirmed = after >= options_.frames_confirmed;
  if (!change.narrower()) return confirmed && 2 * before >= change.frames_before;
  if (confirmed) return true;
  const int last = static_cast<int>(references_.size()) - 1;
  return settled >= options_.frames_settled && change.first_point > 0 && change.last_point < last;
}

// Where most, and as far to either side as it is half of that: from what points show in the last frames.
void CalibreWatch::locate(ChangeWithinRun& change, const Window& window) const {
  constexpr std::size_t reach = 4;  // points either side that are averaged
  const auto smooth = [&](std::size_t i) {
    double sum = 0;
    int count = 0;
    for (std::size_t k = i > reach ? i - reach : 0; k <= std::min(i + reach, references_.size() - 1); ++k)
      if (references_[k].seen > 0) sum += references_[k].recent, ++count;
    return count > 0 ? sum / count : 0.0;
  };
  const double sign = change.narrowing_percent > 0 ? -1 : 1;
  std::size_t most = window.first;
  for (std::size_t i = window.first; i <= window.last; ++i)
    if (sign * smooth(i) > sign * smooth(most)) most = i;
  const double half = 0.5 * smooth(most);
  std::size_t first = most, last = most;
  while (first > 0 && sign * smooth(first - 1) > sign * half) --first;
  while (last + 1 < references_.size() && sign * smooth(last + 1) > sign * half) ++last;
  change.point = static_cast<int>(most);
  change.first_point = static_cast<int>(first);
  change.last_point = static_cast<int>(last);
  change.extent_px = arc_length_px_[last] - arc_length_px_[first];
}

std::vector<ChangeWithinRun> CalibreWatch::add(int frame, double time_ms, const std::vector<LumenPoint>& points) {
  refer(points);
  const double fall = -std::log(1 - options_.least_change), rise = std::log(1 + options_.least_change);
  struct Alarm {
    std::size_t window;
    ChangeWithinRun change;
  };
  std::vector<Alarm> alarms;
  std::vector<char> filled_point(references_.size(), 0);
  for (std::size_t w = 0; w < windows_.size(); ++w) {
    Window& window = windows_[w];
    const double before = window.kappa_before;
    std::optional<CalibreReading> reading = read(window);
    // A window that is filled makes its points' references, too.
    if (window.kappa_before != before && window.kappa_before >= options_.kappa_share * window.plateau && window.kappa_two_before > 0)
      std::fill(filled_point.begin() + static_cast<std::ptrdiff_t>(window.first),
                filled_point.begin() + static_cast<std::ptrdiff_t>(window.last) + 1, 1);
    if (!reading) continue;
    reading->first_ms = reading->last_ms = time_ms;
    reading->first_frame = reading->last_frame = frame;
    take(window, *reading);
    for (const int sign : {-1, 1}) {
      // What fills widens: only what had narrowed within the run is said to.
      if (sign > 0 && window.told >= 0) continue;
      const double probability = sign < 0 ? window.posterior.probability_of_fall(fall) : window.posterior.probability_of_rise(rise);
      if (probability < options_.probability) continue;
      if (const auto change = examine(window, sign, false)) alarms.push_back({w, *change});
    }
  }
  for (std::size_t i = 0; i < references_.size(); ++i) {
    const Residual& r = residuals_[i];
    if (!(r.variance > 0) || !filled_point[i]) continue;
    Reference& reference = references_[i];
    if (reference.frames < reference_frames) {
      reference.sum += r.value;
      reference.by_contrast += r.by_contrast;
      reference.own_kappa += r.own_kappa;
      ++reference.frames;
      continue;
    }
    reference.variance = r.variance;
    reference.recent += smoothing(++reference.seen) * (static_cast<float>(against_reference(i)) - reference.recent);
  }

  // Of what is new, the deepest place speaks for the segment; what follows it the same way belongs to it.
  std::vector<ChangeWithinRun> news;
  for (const int sign : {-1, 1}) {
    const Alarm* deepest = nullptr;
    for (const Alarm& alarm : alarms) {
      if ((alarm.change.narrower() ? -1 : 1) != sign || windows_[alarm.window].told == sign) continue;
      if (!deepest || std::abs(alarm.change.narrowing_percent) > std::abs(deepest->change.narrowing_percent)) deepest = &alarm;
    }
    if (!deepest) continue;
    const bool follows = !told_.empty() && !told_.back().settled && told_.back().change.narrower() == (sign < 0);
    if (!follows) {
      for (Told& told : told_) told.settled = true;
      const auto precise = examine(windows_[deepest->window], sign, true);
      told_.push_back({precise.value_or(deepest->change), deepest->window, false});
      news.push_back(told_.back().change);
    }
    for (const Alarm& alarm : alarms)
      if ((alarm.change.narrower() ? -1 : 1) == sign) tell(windows_[alarm.window], sign);
  }
  return news;
}

void CalibreWatch::level(const std::vector<LumenPoint>& before, const std::vector<LumenPoint>& now) {
  refer(before);
  const std::vector<Residual> as_before = residuals_;
  refer(now);
  level_references(as_before);
  // A window that goes on with the readings of other points goes on at their level, or begins anew.
  for (Window& window : windows_) {
    double sum = 0, weight = 0;
    std::size_t known = 0;
    for (std::size_t i = window.first; i <= window.last; ++i) {
      if (references_[i].seen == 0) continue;
      ++known;
      sum += references_[i].recent / as_before[i].variance;
      weight += 1 / as_before[i].variance;
    }
    if (2 * known >= window.last - window.first + 1) {
      if (window.seen > 0) window.offset = window.recent - sum / weight;
    } else {
      const std::size_t first = window.first, last = window.last;
      window = Window();
      window.first = first;
      window.last = last;
      window.posterior = fresh();
    }
  }
}

void CalibreWatch::level_references(const std::vector<Residual>& before) {
  std::vector<double> kappa;
  std::vector<std::size_t> known;
  for (std::size_t i = 0; i < references_.size(); ++i) {
    const Residual &was = before[i], &is = residuals_[i];
    if (!(was.variance > 0) || !(is.variance > 0)) {
      references_[i] = {};
      continue;
    }
    known.push_back(i);
    if (was.kappa > 0 && is.kappa > 0) kappa.push_back(is.kappa / was.kappa);
  }
  constexpr std::size_t reach = 4;  // points either side that are averaged
  for (std::size_t k = 0, from = 0; k < known.size(); ++k) {
    while (known[from] + reach < known[k]) ++from;
    double calibre = 0, by_contrast = 0;
    std::size_t to = from;
    for (; to < known.size() && known[to] <= known[k] + reach; ++to) {
      calibre += residuals_[known[to]].value - before[known[to]].value;
      by_contrast += residuals_[known[to]].by_contrast - before[known[to]].by_contrast;
    }
    Reference& reference = references_[known[k]];
    const double share = reference.frames / static_cast<double>(to - from);
    reference.sum += static_cast<float>(share * calibre);
    reference.by_contrast += static_cast<float>(share * by_contrast);
  }
  if (kappa.empty()) return;
  const double ratio = middle_of(kappa);
  for (Window& window : windows_) {
    for (double* value : {&window.plateau, &window.kappa_before, &window.kappa_two_before}) *value *= ratio;
    for (std::vector<CalibreReading>* readings : {&window.readings, &window.earlier})
      for (CalibreReading& reading : *readings) reading.kappa *= ratio;
  }
}

std::vector<ChangeWithinRun> CalibreWatch::changes() const {
  std::vector<ChangeWithinRun> result;
  for (const Told& told : told_) {
    result.push_back(told.change);
    if (told.settled) continue;
    const int sign = told.change.narrower() ? -1 : 1;
    for (std::size_t w = 0; w < windows_.size(); ++w) {
      if (windows_[w].told != sign) continue;
      auto now = examine(windows_[w], sign, true);
      if (!now) continue;
      now->probability = std::max(now->probability, told.change.probability);
      const bool deeper = std::abs(now->narrowing_percent) > std::abs(result.back().narrowing_percent);
      if (w == told.window || deeper) result.back() = *now;
    }
  }
  return result;
}

CalibreWatch::CalibreWatch(const Centreline& centreline, double mm_per_px, const std::vector<const CalibreWatch*>& old,
                           const std::vector<PointBefore>& before, const ChangePointOptions& options)
    : CalibreWatch(centreline, mm_per_px, options) {
  const auto known = [&](std::size_t i) { return before[i][0] >= 0; };
  const auto watch_of = [&](std::size_t i) -> const CalibreWatch& { return *old[static_cast<std::size_t>(before[i][0])]; };
  for (std::size_t i = 0; i < references_.size(); ++i)
    if (known(i)) references_[i] = watch_of(i).references_[static_cast<std::size_t>(before[i][1])];
  using Place = std::pair<const CalibreWatch*, std::size_t>;  // a window
  std::map<Place, std::size_t> now_of;
  for (std::size_t w = 0; w < windows_.size(); ++w) {
    Window& window = windows_[w];
    const bool whole = windows_.size() > 1 && w + 1 == windows_.size();
    // The old window that most of its points were in; the whole goes on as the whole.
    std::vector<std::pair<Place, std::size_t>> votes;
    for (std::size_t i = window.first; i <= window.last; ++i) {
      if (!known(i) || watch_of(i).windows_.empty()) continue;
      const Place place{&watch_of(i),
                        whole ? watch_of(i).windows_.size() - 1 : watch_of(i).window_at(static_cast<std::size_t>(before[i][1]))};
      const auto vote = std::find_if(votes.begin(), votes.end(), [&](const auto& v) { return v.first == place; });
      if (vote == votes.end())
        votes.emplace_back(place, 1);
      else
        ++vote->second;
    }
    const auto most = std::max_element(votes.begin(), votes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    if (most == votes.end() || 2 * most->second < window.last - window.first + 1) continue;
    const std::size_t first = window.first, last = window.last;
    window = most->first.first->windows_[most->first.second];
    window.first = first;
    window.last = last;
    now_of.emplace(most->first, w);
  }
  for (std::size_t o = 0; o < old.size(); ++o)
    for (Told told : old[o]->told_) {
      const std::optional<std::size_t> at = find_point(before, static_cast<int>(o), told.change.point);
      if (!at) continue;
      const auto shift = static_cast<int>(*at) - told.change.point, most = static_cast<int>(before.size()) - 1;
      told.change.point = static_cast<int>(*at);
      told.change.first_point = std::clamp(told.change.first_point + shift, 0, told.change.point);
      told.change.last_point = std::clamp(told.change.last_point + shift, told.change.point, most);
      const auto window = now_of.find({old[o], told.window});
      told.window = window == now_of.end() ? windows_.size() : window->second;
      told_.push_back(told);
    }
}

std::size_t CalibreWatch::window_at(std::size_t point) const {
  std::size_t w = 0;
  while (w + 1 < windows_.size() && windows_[w].last < point) ++w;
  return w;
}

}  // namespace cinelumen
