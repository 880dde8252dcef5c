#include "bench/onset_accuracy.h"

#include <cstdio>
#include <mutex>
#include <set>
#include <string>

#include "engine/live_analysis.h"
#include "engine/median.h"
#include "support/calibre_series.h"
#include "support/matching.h"
#include "support/upper_limit.h"

namespace cinelumen {
namespace {

using Json = nlohmann::ordered_json;
using namespace cinelumen::test;

constexpr double mm_per_px = 0.25;
constexpr int segments_per_run = 30;

/// Runs, and those with an alarm.
struct Alarms {
  int runs = 0, alarms = 0;
  void add(bool alarm) { ++runs, alarms += alarm; }
  Json row(const char* what) const {
    const double upper = upper_limit(alarms, runs);
    std::printf("| %s | %d | %d | %.2f %% | %.2f %% |\n", what, runs, alarms, runs ? 100.0 * alarms / runs : 0, 100 * upper);
    return {{"what", what}, {"runs", runs}, {"alarms", alarms}, {"upper_limit", upper}};
  }
};

/// What was told of narrowings whose truth is known.
struct Detection {
  int narrowings = 0, told = 0, covered = 0;
  std::vector<double> delay_frames, delay_ms, onset_error_ms, percent_error;
  void add(const ChangeWithinRun& change, double delayed_frames, double frame_ms, double onset_ms, double percent) {
    ++told;
    delay_frames.push_back(delayed_frames);
    delay_ms.push_back(delayed_frames * frame_ms);
    onset_error_ms.push_back(std::abs(change.onset_ms - onset_ms));
    covered += change.onset_interval_ms[0] <= onset_ms + frame_ms && onset_ms <= change.onset_interval_ms[1];
    percent_error.push_back(std::abs(change.narrowing_percent - percent));
  }
};

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
}

Json row_of(const std::string& what, const Detection& seen) {
  const double told = seen.narrowings ? 100.0 * seen.told / seen.narrowings : 0;
  std::printf("| %s | %d | %.1f %% | %.0f / %.0f | %.0f / %.0f | %.0f / %.0f |", what.c_str(), seen.narrowings, told,
              quantile(seen.delay_frames, 0.5), quantile(seen.delay_frames, 0.95), quantile(seen.delay_ms, 0.5),
              quantile(seen.delay_ms, 0.95), quantile(seen.onset_error_ms, 0.5), quantile(seen.onset_error_ms, 0.95));
  if (seen.percent_error.empty())
    std::printf(" - | - |\n");
  else
    std::printf(" %.0f %% | %.1f |\n", 100.0 * seen.covered / seen.told, quantile(seen.percent_error, 0.5));
  return {{"what", what},
          {"narrowings", seen.narrowings},
          {"told", seen.told},
          {"delay_frames_p50", quantile(seen.delay_frames, 0.5)},
          {"delay_frames_p95", quantile(seen.delay_frames, 0.95)},
          {"delay_ms_p50", quantile(seen.delay_ms, 0.5)},
          {"delay_ms_p95", quantile(seen.delay_ms, 0.95)},
          {"onset_error_ms_p50", quantile(seen.onset_error_ms, 0.5)},
          {"onset_error_ms_p95", quantile(seen.onset_error_ms, 0.95)},
          {"onset_covered", seen.covered},
          {"percent_error_p50", quantile(seen.percent_error, 0.5)}};
}

/// The mean of ln D over a whole segment, against its first frames and in units of their SD: what the comparators watch.
class PlainMean {
 public:
  /// True once the Bayesian change point alone, or CUSUM alone, would have told.
  bool bayes = false, cusum = false;
  void add(const std::vector<LumenPoint>& points) {
    double sum = 0, weight = 0;
    for (const LumenPoint& p : points) {
      if (!p.used || !(p.sd_px > 0)) continue;
      const double w = std::pow(p.diameter_px / p.sd_px, 2);
      sum += w * std::log(p.diameter_px);
      weight += w;
    }
    if (!(weight > 0)) return;
    const double value = sum / weight, variance = 2 / weight;  // every second point is news
    constexpr int reference_frames = 5;
    if (++frames_ <= reference_frames) {
      reference_ += value / reference_frames;
      return;
    }
    const ChangePointOptions options;
    posterior_.add(value, variance);
    bayes = bayes || posterior_.probability_of_fall(-std::log(1 - options.least_change)) > options.probability;
    cusum = cusum_.add((value - reference_) / std::sqrt(variance * (1 + 1.0 / reference_frames))) || cusum;
  }

 private:
  int frames_ = 0;
  double reference_ = 0;
  ChangePointPosterior posterior_{ChangePointOptions().hazard, ChangePointOptions().level_sd};
  Cusum cusum_;
};

Json simulated_constant(const OnsetSeries& series) {
  Alarms watched, bayes, cusum;
  std::mutex mutex;
  parallel_for(series.simulated, [&](int k) {
    const auto seed = static_cast<unsigned>(series.first_seed + k);
    SimulatedRun run(seed);
    bool told = false, by_bayes = false, by_cusum = false;
    for (int s = 0; s < segments_per_run; ++s) {
      const SimulatedSegment segment = run.segment();
      Camera camera(segment.vessel, segment.points, seed * segments_per_run + static_cast<unsigned>(s), segment.noise);
      CalibreWatch watch(straight(segment.points), mm_per_px);
      PlainMean plain;
      for (int f = 0; f < run.frames; ++f) {
        const std::vector<LumenPoint> points = camera.frame(f);
        told = !watch.add(f, f * run.frame_ms, points).empty() || told;
        plain.add(points);
      }
      by_bayes = by_bayes || plain.bayes, by_cusum = by_cusum || plain.cusum;
    }
    const std::lock_guard lock(mutex);
    watched.add(told), bayes.add(by_bayes), cusum.add(by_cusum);
  });
  std::printf(
      "\nSimulated runs of %d segments whose calibre does not change (noise, filling, wash-out as the engine yields them)\n\n"
      "| told by | runs | with a false alarm | share | upper 95 %% limit |\n|---|---|---|---|---|\n",
      segments_per_run);
  return {watched.row("the program"), bayes.row("change point on the plain segment mean"), cusum.row("CUSUM on the plain segment mean")};
}

// A stretch of a segment narrows smoothly. wide: where it tells its own attenuation per mm.
Json simulated_narrowing(const OnsetSeries& series, double share, double rise_s, bool wide) {
  Detection seen;
  std::mutex mutex;
  parallel_for(series.simulated / 2, [&](int k) {
    const auto seed = static_cast<unsigned>(series.first_seed + k);
    SimulatedRun run(seed, false);
    SimulatedSegment segment;
    double middle = 0;
    constexpr int late = 1 << 20;  // frames: it is as full as it gets
    const double length = run.uniform(40, 80);
    do {
      segment = run.segment();
      segment.points = std::max(segment.points, 100);
      middle = run.uniform(0.5 * length, segment.points - 0.5 * length);
    } while ((segment.vessel(late, static_cast<int>(middle)).diameter > segment.noise.narrowest_px) != wide);
    const double onset_s = run.uniform(6, 7);
    const auto narrowed = [=, &run](int f, int i) {
      const double x = std::abs(i - middle) / (0.5 * length), along = x < 1 ? 0.5 * (1 + std::cos(3.14159265 * x * x)) : 0;
      const double g = std::clamp((f * run.frame_ms / 1000 - onset_s) / rise_s, 0.0, 1.0);
      return 1 - share * along * g * g * (3 - 2 * g);
    };
    const Vessel vessel = [=](int f, int i) {
      Shown shown = segment.vessel(f, i);
      shown.diameter *= narrowed(f, i);
      return shown;
    };
    Camera camera(vessel, segment.points, seed, segment.noise);
    CalibreWatch watch(straight(segment.points), mm_per_px);
    int told_at = -1;
    for (int f = 0; f < run.frames; ++f)
      for (const ChangeWithinRun& change : watch.add(f, f * run.frame_ms, camera.frame(f)))
        if (told_at < 0 && change.narrower()) told_at = f;
    const std::lock_guard lock(mutex);
    ++seen.narrowings;
    if (told_at >= 0) seen.add(watch.changes().front(), told_at - 1000 * onset_s / run.frame_ms, run.frame_ms, 1000 * onset_s, 100 * share);
  });
  char what[64];
  std::snprintf(what, sizeof what, "%.0f %% within %.0f s%s", 100 * share, rise_s, wide ? "" : ", calibre below 3.5 px");
  return row_of(what, seen);
}

PhantomOptions scene(const OnsetSeries& series, const std::string& name, int k) {
  PhantomOptions options;
  options.scenario = name;
  options.rows = options.columns = series.side;
  options.seed = static_cast<std::uint64_t>(series.first_seed + k);
  // DSA at 4 and 7.5 frames/s, fluoroscopy at 15, in turn; contrast goes on for 2 to 8 s and leaves within the run, or not.
  constexpr std::array frame_ms = {250.0, 133.0, 66.7};
  options.frame_time_ms = frame_ms[static_cast<std::size_t>(k) % frame_ms.size()];
  constexpr double lasts_ms = 12000, free_ms = 1000;
  constexpr int fewest_free = 8;
  options.contrast_free_frames = std::max(fewest_free, static_cast<int>(free_ms / options.frame_time_ms));
  options.bolus_duration_ms = 2000 + 1500 * (k % 5);
  if (name != "spasm") options.frames = static_cast<int>(lasts_ms / options.frame_time_ms);
  return options;
}

std::vector<std::pair<int, Finding>> stream_through(const PhantomRun& phantom, const Run& run) {
  std::vector<std::pair<int, Finding>> told;
  LiveAnalysis live(Stream::cpu(), run, {});
  for (int f = 0; f < run.frame_count(); ++f)
    for (const Finding& change : live.push(phantom.frames[f].view(), run.frame_times_ms[f]).changes) told.emplace_back(f, change);
  return told;
}

bool is_change(const Finding& finding) { return finding.label == "change within the run"; }

Json whole_constant(const OnsetSeries& series) {
  std::printf("\nPhantom runs of %d px whose vessels do not change, by `analyze` and by `stream`\n\n", series.side);
  Alarms offline, live;
  for (const char* name : {"foot", "steal", "devices", "motion-rigid", "motion-nonrigid", "partial-fill", "tubes", "overlap", "stenoses"})
    for (int k = 0; k < series.runs; ++k) {
      const PhantomRun phantom = make_phantom(scene(series, name, k));
      const Run run = make_run(phantom);
      const Analysis analysis = analyze(Stream::cpu(), run, {});
      const auto false_one = std::find_if(analysis.findings.begin(), analysis.findings.end(), is_change);
      offline.add(false_one != analysis.findings.end());
      const auto told = stream_through(phantom, run);
      live.add(!told.empty());
      if (false_one != analysis.findings.end())
        std::printf("FALSE, analyze: %s seed %d: %s\n", name, series.first_seed + k, false_one->reasons.front().c_str());
      if (!told.empty())
        std::printf("FALSE, stream: %s seed %d: %s\n", name, series.first_seed + k, told.front().second.reasons.front().c_str());
      std::fflush(stdout);
    }
  std::printf("| told by | runs | with a false alarm | share | upper 95 %% limit |\n|---|---|---|---|---|\n");
  return {offline.row("analyze"), live.row("stream")};
}

// The phantom's veins that narrow, live.
Json whole_narrowing(const OnsetSeries& series) {
  Detection seen;
  int elsewhere = 0;
  for (int k = 0; k < series.runs; ++k) {
    const PhantomOptions options = scene(series, "spasm", k);
    const PhantomRun phantom = make_phantom(options);
    const Run run = make_run(phantom);
    const TruthMap map(phantom.truth);
    std::set<int> told;  // onsets, by index
    seen.narrowings += static_cast<int>(phantom.truth.onsets.size());
    for (const auto& [frame, finding] : stream_through(phantom, run)) {
      const TruthMatch at = map.nearest({finding.at_px[0], finding.at_px[1]});
      const auto onset = std::find_if(phantom.truth.onsets.begin(), phantom.truth.onsets.end(), [&](const PhantomOnset& o) {
        return at.segment && std::count(o.segments.begin(), o.segments.end(), at.segment->id) > 0;
      });
      if (onset == phantom.truth.onsets.end() || *finding.narrowing_percent < 0) {
        ++elsewhere;
        std::printf("not where a vein narrows: seed %d frame %d: %s\n", series.first_seed + k, frame, finding.reasons.front().c_str());
        continue;
      }
      if (!told.insert(static_cast<int>(onset - phantom.truth.onsets.begin())).second) continue;
      ++seen.told;
      seen.delay_ms.push_back(run.frame_times_ms[frame] - onset->onset_ms);
      seen.delay_frames.push_back(seen.delay_ms.back() / options.frame_time_ms);
      seen.onset_error_ms.push_back(std::abs(*finding.onset_ms - onset->onset_ms));
    }
  }
  Json row = row_of("phantom `spasm`, live", seen);
  row["elsewhere"] = elsewhere;
  return row;
}

}  // namespace

Json measure_onsets(const OnsetSeries& series) {
  Json root;
  if (series.simulated > 0) root["simulated_constant"] = simulated_constant(series);
  std::printf(
      "\n| narrowing | n | told | delay, frames: median / 95th | delay ms | onset error ms | onset in its 95 %% interval | percent, median "
      "error "
      "|\n|---|---|---|---|---|---|---|---|\n");
  for (const double share : {0.3, 0.5, 0.8}) {
    if (series.simulated == 0) break;
    for (const double rise_s : {1.0, 2.0, 3.0}) root["narrowing"].push_back(simulated_narrowing(series, share, rise_s, true));
    root["narrowing"].push_back(simulated_narrowing(series, share, 2, false));
  }
  if (series.runs == 0) return root;
  root["narrowing"].push_back(whole_narrowing(series));
  root["whole_constant"] = whole_constant(series);
  return root;
}

}  // namespace cinelumen
