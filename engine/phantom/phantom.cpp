#include "engine/phantom/phantom.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <sstream>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "engine/phantom/exposure.h"
#include "engine/phantom/foot_sites.h"
#include "engine/phantom/perfusion.h"
#include "engine/phantom/projection.h"
#include "engine/phantom/random.h"
#include "engine/phantom/scene.h"
#include "kernels/stream.h"

namespace cinelumen {
namespace {

using namespace phantom;

// Columnar CsI of about 0.6 mm: MTF 0.74 at 1 and 0.43 at 2 line pairs per mm, with the slow tail that a single Gaussian lacks.
constexpr std::array<double, 2> scintillator_sigma_mm = {0.10, 0.25};
constexpr std::array<double, 2> scintillator_weight = {0.75, 0.25};
constexpr double log_range = 256;  // LOG spans this ratio of linear counts

template <class Value>
void check(bool valid, const char* option, const Value& value, const char* expected) {
  if (valid) return;
  std::ostringstream text;
  text << "phantom: " << option << " is " << value << ", expected " << expected;
  throw std::invalid_argument(text.str());
}

const Scenario& scenario_of(const PhantomOptions& options) {
  const auto& all = scenarios();
  return *std::find_if(all.begin(), all.end(), [&](const Scenario& s) { return options.scenario == s.name; });
}

}  // namespace

namespace phantom {

namespace {

int frames_of(double lasts_ms, double frame_time_ms) { return static_cast<int>(std::ceil(lasts_ms / frame_time_ms)); }

/// The foot is full some 4.5 s after contrast enters at 90 mm/s; then twelve frames to know it by, and a little more.
double default_onset_ms(const PhantomOptions& options) {
  RandomStream random(options.seed, Purpose::layout, 0, 5);
  return (options.contrast_free_frames + 12) * options.frame_time_ms + 5000 * 90 / options.inlet_velocity_mm_s + 1000 * random.uniform();
}

}  // namespace

PhantomOptions complete(PhantomOptions options) {
  const auto& names = phantom_scenarios();
  std::string known;
  for (const std::string& name : names) known += (known.empty() ? "" : " or ") + name;
  check(std::find(names.begin(), names.end(), options.scenario) != names.end(), "scenario", options.scenario, known.c_str());
  const Scenario& scenario = scenario_of(options);
  if (!options.detector_pitch_mm) options.detector_pitch_mm = 0.154 * 1024 / std::max(1, std::max(options.rows, options.columns));
  if (!options.noise_log_sd) options.noise_log_sd = options.frame_time_ms < 100 ? 0.03 : 0.01;
  if (!options.motion_px) options.motion_px = scenario.motion_px;
  if (!options.rotation_deg) options.rotation_deg = scenario.rotation_deg;
  if (!options.warp_px) options.warp_px = scenario.warp_px * std::max(options.rows, options.columns) / 1024;
  check(options.rows >= 64 && options.rows <= 4096, "rows", options.rows, "64 to 4096");
  check(options.columns >= 64 && options.columns <= 4096, "columns", options.columns, "64 to 4096");
  check(options.frame_time_ms >= 1 && options.frame_time_ms <= 60000, "frame time", options.frame_time_ms, "1 to 60000 ms");
  if (!options.frames) options.frames = scenario.frames > 0 ? scenario.frames : frames_of(scenario.lasts_ms, options.frame_time_ms);
  check(*options.frames >= 1 && *options.frames <= 10000, "frames", *options.frames, "1 to 10000");
  check(options.contrast_free_frames >= 0, "contrast-free frames", options.contrast_free_frames, "0 or more");
  check(*options.detector_pitch_mm >= 0.02 && *options.detector_pitch_mm <= 4, "detector pitch", *options.detector_pitch_mm,
        "0.02 to 4 mm");
  check(options.source_to_detector_mm >= 500 && options.source_to_detector_mm <= 3000, "source to detector", options.source_to_detector_mm,
        "500 to 3000 mm");
  check(options.magnification >= 1 && options.magnification <= 2.5, "magnification", options.magnification, "1 to 2.5");
  check(options.encoding != IntensityRelationship::display, "encoding", "display", "linear or logarithmic");
  check(options.bits_stored >= 8 && options.bits_stored <= 16, "bits stored", options.bits_stored, "8 to 16");
  check(*options.noise_log_sd >= 0 && *options.noise_log_sd <= 0.3, "noise", *options.noise_log_sd, "0 to 0.3");
  check(options.electronic_sd >= 0 && options.electronic_sd <= 100, "electronic noise", options.electronic_sd, "0 to 100 counts");
  check(*options.motion_px >= 0 && *options.motion_px <= 8, "motion", *options.motion_px, "0 to 8 px");
  check(*options.rotation_deg >= 0 && *options.rotation_deg <= 0.3, "rotation", *options.rotation_deg, "0 to 0.3 degrees");
  const double most_warp = 5.0 * std::max(options.rows, options.columns) / 1024;
  check(*options.warp_px >= 0 && *options.warp_px <= most_warp, "warp", *options.warp_px,
        ("0 to " + std::to_string(most_warp) + " px, 5 at 1024 px").c_str());
  check(options.attenuation_per_mm > 0 && options.attenuation_per_mm <= 2, "attenuation", options.attenuation_per_mm,
        "above 0, to 2 per mm");
  check(options.focal_spot_mm >= 0 && options.focal_spot_mm <= 2, "focal spot", options.focal_spot_mm, "0 to 2 mm");
  check(options.scatter_fraction >= 0 && options.scatter_fraction <= 2, "scatter", options.scatter_fraction, "0 to 2");
  check(options.glare_fraction >= 0 && options.glare_fraction <= 0.5, "glare", options.glare_fraction, "0 to 0.5");
  check(options.lag_fraction >= 0 && options.lag_fraction <= 0.9, "lag", options.lag_fraction, "0 to 0.9");
  check(options.bolus_duration_ms >= 0, "bolus duration", options.bolus_duration_ms, "0 or more ms");
  check(options.inlet_velocity_mm_s >= 1 && options.inlet_velocity_mm_s <= 1000, "inlet velocity", options.inlet_velocity_mm_s,
        "1 to 1000 mm/s");
  const PhantomPose& pose = options.pose;
  for (const double angle : {pose.rotation_deg, pose.tilt_y_deg, pose.tilt_x_deg})
    check(std::abs(angle) <= 45, "angle of the pose", angle, "-45 to 45 degrees");
  for (const double shift : {pose.shift_y_mm, pose.shift_x_mm, pose.towards_mm})
    check(std::abs(shift) <= 100, "shift of the pose", shift, "-100 to 100 mm");
  if (!options.anatomy_seed) options.anatomy_seed = options.seed;
  if (!options.onset_ms) options.onset_ms = default_onset_ms(options);
  check(*options.onset_ms >= 0, "onset", *options.onset_ms, "0 ms or more");
  if (*options.noise_log_sd == 0) options.electronic_sd = 0;
  return options;
}

ConeBeam beam_of(const PhantomOptions& options) {
  ConeBeam beam;
  beam.source_to_detector_mm = options.source_to_detector_mm;
  beam.source_to_isocentre_mm = options.source_to_detector_mm / options.magnification;
  beam.pitch_mm = *options.detector_pitch_mm;
  beam.centre_y_px = (options.rows - 1) / 2.0;
  beam.centre_x_px = (options.columns - 1) / 2.0;
  beam.patient = Placement3(options.pose);
  return beam;
}

}  // namespace phantom

namespace {

double full_scale(const PhantomOptions& options) { return std::ldexp(1.0, options.bits_stored) - 1; }

double jolt_frame(const PhantomOptions& options) {
  return options.contrast_free_frames + 0.25 * (*options.frames - options.contrast_free_frames);
}

std::vector<PhantomMotion> make_motion(const PhantomOptions& options) {
  const Scenario& scenario = scenario_of(options);
  const double amplitude = *options.motion_px, angle = *options.rotation_deg * std::numbers::pi / 180;
  RandomStream random(options.seed, Purpose::motion, 0, 0);
  const double phase_y = 6.28 * random.uniform(), phase_x = 6.28 * random.uniform(), phase_r = 6.28 * random.uniform();
  const double towards = 6.28 * random.uniform();
  std::vector<PhantomMotion> motion;
  for (int f = 0; f < *options.frames; ++f) {
    RandomStream jitter(options.seed, Purpose::motion, static_cast<std::uint32_t>(f), 1);
    PhantomMotion m;
    m.dy_px = amplitude * (0.55 * (std::sin(0.31 * f + phase_y) - std::sin(phase_y)) + (f > 0 ? scenario.jitter * jitter.normal() : 0));
    m.dx_px = amplitude * (0.55 * (std::sin(0.23 * f + phase_x) - std::sin(phase_x)) + (f > 0 ? scenario.jitter * jitter.normal() : 0));
    m.rotation_rad = angle * 0.5 * (std::sin(0.4 * f + phase_r) - std::sin(phase_r));
    if (scenario.jerky && f > 0) m.rotation_rad += angle * scenario.jitter * jitter.normal();
    if (scenario.jolts) {
      // The patient starts at the warmth of the contrast, and comes to rest a little beside where he was.
      const double jolt = jolt_at(f, jolt_frame(options));
      m.dy_px += amplitude * jolt * std::sin(towards);
      m.dx_px += amplitude * jolt * std::cos(towards);
    }
    motion.push_back(m);
  }
  return motion;
}

/// Where scintillation light made in one pixel is seen, on the pixel grid: what correlates the noise.
struct LightSpread {
  int reach = 0;
  std::array<std::vector<double>, 2> taps;

  explicit LightSpread(const std::array<double, 2>& sigma_px) {
    reach = static_cast<int>(std::ceil(4 * std::max(sigma_px[0], sigma_px[1]))) + 1;
    for (std::size_t g = 0; g < 2; ++g) {
      double sum = 0;
      for (int k = -reach; k <= reach; ++k) {
        const auto cdf = [&](double u) { return 0.5 * std::erfc(-u / (std::numbers::sqrt2 * sigma_px[g])); };
        sum += taps[g].emplace_back(cdf(k + 0.5) - cdf(k - 0.5));
      }
      for (double& tap : taps[g]) tap /= sum;
    }
  }
  double at(int dy, int dx) const {
    if (std::abs(dy) > reach || std::abs(dx) > reach) return 0;
    double sum = 0;
    for (std::size_t g = 0; g < 2; ++g)
      sum += scintillator_weight[g] * taps[g][static_cast<std::size_t>(dy + reach)] * taps[g][static_cast<std::size_t>(dx + reach)];
    return sum;
  }
  /// Sum of products of the spread with itself, moved by (dy, dx).
  double overlap(int dy, int dx) const {
    double sum = 0;
    for (int y = -reach; y <= reach; ++y)
      for (int x = -reach; x <= reach; ++x) sum += at(y, x) * at(y + dy, x + dx);
    return sum;
  }
};

Image<float> copy(const Image<float>& image) {
  Image<float> result(image.height(), image.width());
  for (int y = 0; y < image.height(); ++y) std::copy(image.row(y), image.row(y) + image.width(), result.row(y));
  return result;
}

/// Lag: what is left of the frames before joins each. `lagged` is empty before the first frame, which has stood for long.
void add_lag(double fraction, const Image<float>& lagged, Image<float>& signal) {
  if (fraction == 0 || lagged.height() == 0) return;
  const auto left = static_cast<float>(fraction);
  for (int y = 0; y < signal.height(); ++y)
    for (int x = 0; x < signal.width(); ++x) signal(y, x) = (1 - left) * signal(y, x) + left * lagged(y, x);
}

/// `fraction` of the light, spread over about a tenth of the field.
Image<float> veil(const Image<float>& light, double fraction) {
  const int rows = light.height(), columns = light.width();
  Image<float> result(rows, columns);
  // Means of blocks, spread over about a tenth of the field, then interpolated.
  const int block = std::max(8, std::max(rows, columns) / 32), reach = 10;
  const int height = (rows + block - 1) / block, width = (columns + block - 1) / block;
  Image<float> mean(height, width), spread(height, width);
  for (int j = 0; j < height; ++j)
    for (int i = 0; i < width; ++i) {
      double sum = 0;
      int count = 0;
      for (int y = j * block; y < std::min(rows, (j + 1) * block); ++y)
        for (int x = i * block; x < std::min(columns, (i + 1) * block); ++x, ++count) sum += light(y, x);
      mean(j, i) = static_cast<float>(sum / count);
    }
  for (int j = 0; j < height; ++j)
    for (int i = 0; i < width; ++i) {
      double sum = 0, weights = 0;
      for (int dy = -reach; dy <= reach; ++dy)
        for (int dx = -reach; dx <= reach; ++dx) {
          const double weight = std::exp(-(dy * dy + dx * dx) / (2 * 3.2 * 3.2));
          sum += weight * mean(std::clamp(j + dy, 0, height - 1), std::clamp(i + dx, 0, width - 1));
          weights += weight;
        }
      spread(j, i) = static_cast<float>(fraction * sum / weights);
    }
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < columns; ++x) {
      const double v = std::clamp((y + 0.5) / block - 0.5, 0.0, height - 1.0), u = std::clamp((x + 0.5) / block - 0.5, 0.0, width - 1.0);
      const int j = static_cast<int>(v), i = static_cast<int>(u), j1 = std::min(j + 1, height - 1), i1 = std::min(i + 1, width - 1);
      const double fv = v - j, fu = u - i;
      result(y, x) = static_cast<float>((1 - fv) * ((1 - fu) * spread(j, i) + fu * spread(j, i1)) +
                                        fv * ((1 - fu) * spread(j1, i) + fu * spread(j1, i1)));
    }
  return result;
}

/// The scene projected, the bolus run, the truth written: all but the frames.
class Studio {
 public:
  Studio(const PhantomOptions& requested, const SceneMaker& make_scene)
      : options_(complete(requested)),
        light_({scintillator_sigma_mm[0] / *options_.detector_pitch_mm, scintillator_sigma_mm[1] / *options_.detector_pitch_mm}) {
    beam_ = beam_of(options_);
    const Scene scene = make_scene(beam_, options_.rows, options_.columns);
    truth_.warp =
        make_warp(scene.limbs, options_.rows, options_.columns, *options_.frames, *options_.warp_px, jolt_frame(options_), options_.seed);
    tree_ = grow(scene);
    for (std::size_t e = 0; e < tree_.edges.size(); ++e)
      if (std::any_of(tree_.edges[e].lesions.begin(), tree_.edges[e].lesions.end(), [](const LesionPlan& l) { return l.develops; }))
        developing_.push_back(e);
    perfusion_ = perfuse(tree_, scene, options_);
    build_projector(scene);
    close_shutter(scene.shutter);
    scene_shutter_ = scene.shutter;
    describe_detector();
    describe_vessels(scene);
    truth_.devices = scene.devices;
  }

  const PhantomTruth& truth() const { return truth_; }

  /// Linear counts without noise, scatter included.
  Image<float> expected(int frame) const {
    const Displacement displacement(truth_.motion[static_cast<std::size_t>(frame)], options_.rows, options_.columns, truth_.warp, frame);
    Image<float> counts = projector_->transmission(displacement, attenuation(frame), fills(frame), calibres(frame));
    for (int y = 0; y < options_.rows; ++y)
      for (int x = 0; x < options_.columns; ++x) {
        counts(y, x) = static_cast<float>(truth_.air_count) * (counts(y, x) + scatter(y, x));
        if (scene_shutter_ > 0)
          counts(y, x) *= std::min(open_rows_[static_cast<std::size_t>(y)], open_columns_[static_cast<std::size_t>(x)]);
      }
    return counts;
  }

  /// With its own veil, which takes its light from the picture. The veil is too broad to carry noise: it is that of `expected`.
  void glare(const Image<float>& expected, Image<float>& signal) const {
    if (options_.glare_fraction == 0) return;
    const Image<float> spread = veil(expected, options_.glare_fraction);
    const auto kept = static_cast<float>(1 - options_.glare_fraction);
    for (int y = 0; y < options_.rows; ++y)
      for (int x = 0; x < options_.columns; ++x) signal(y, x) = kept * signal(y, x) + spread(y, x);
  }

  /// Mean linear counts of a frame by itself, before lag.
  Image<float> expected_light(int frame) const {
    Image<float> counts = expected(frame), signal = copy(counts);
    glare(counts, signal);
    return signal;
  }

  /// One frame's light with its quanta, before lag.
  Image<float> light(int frame) const {
    const Image<float> mean_counts = expected(frame);
    Image<float> counts = copy(mean_counts);
    const int rows = options_.rows, columns = options_.columns;
    if (*options_.noise_log_sd > 0) {
      // Quanta around the field too, or noise would be another at the edge.
      const int reach = light_.reach, width = columns + 2 * reach;
      const double quanta_per_count = light_.overlap(0, 0) / truth_.noise_gain;
      Image<float> deviation(rows + 2 * reach, width), along(rows + 2 * reach, columns);
      for (int y = 0; y < deviation.height(); ++y)
        for (int x = 0; x < width; ++x) {
          const double mean = quanta_per_count * counts(std::clamp(y - reach, 0, rows - 1), std::clamp(x - reach, 0, columns - 1));
          RandomStream random(options_.seed, Purpose::quanta, static_cast<std::uint32_t>(frame), static_cast<std::uint32_t>(y * width + x));
          deviation(y, x) = static_cast<float>((random.poisson(mean) - mean) / quanta_per_count);
        }
      for (std::size_t g = 0; g < 2; ++g) {
        const auto& taps = light_.taps[g];
        for (int y = 0; y < deviation.height(); ++y) {
          float* to = along.row(y);
          std::fill(to, to + columns, 0.0f);
          for (int k = 0; k <= 2 * reach; ++k) {
            const float tap = static_cast<float>(taps[static_cast<std::size_t>(k)]);
            const float* from = deviation.row(y) + k;
            for (int x = 0; x < columns; ++x) to[x] += tap * from[x];
          }
        }
        for (int y = 0; y < rows; ++y)
          for (int k = 0; k <= 2 * reach; ++k) {
            const float tap = static_cast<float>(scintillator_weight[g] * taps[static_cast<std::size_t>(k)]);
            const float* from = along.row(y + k);
            float* to = counts.row(y);
            for (int x = 0; x < columns; ++x) to[x] += tap * from[x];
          }
      }
    }
    glare(mean_counts, counts);
    return counts;
  }

  /// What the detector reads and stores.
  Image<std::uint16_t> read_out(int frame, Image<float> counts) const {
    const int rows = options_.rows, columns = options_.columns;
    if (truth_.electronic_sd > 0)
      for (int y = 0; y < rows; ++y)
        for (int x = 0; x < columns; ++x) {
          RandomStream random(options_.seed, Purpose::electronics, static_cast<std::uint32_t>(frame),
                              static_cast<std::uint32_t>(y * columns + x));
          counts(y, x) += static_cast<float>(truth_.electronic_sd * random.normal());
        }
    Image<std::uint16_t> stored(rows, columns);
    const double top = full_scale(options_);
    const bool logarithmic = options_.encoding == IntensityRelationship::logarithmic;
    for (int y = 0; y < rows; ++y)
      for (int x = 0; x < columns; ++x) {
        const double count = counts(y, x);
        const double value = logarithmic ? truth_.log_offset + truth_.log_slope * std::log(std::max(count, 1e-3)) : count;
        stored(y, x) = static_cast<std::uint16_t>(std::lround(std::clamp(value, 0.0, top)));
      }
    return stored;
  }

 private:
  struct Stain {
    StainPlan plan;
    std::vector<ProjectedPoint> points;
    double onset_ms;  // NaN: never
  };

  void build_projector(const Scene& scene) {
    for (std::size_t e = 0; e < tree_.edges.size(); ++e) {
      // In the direction of flow from here on.
      Edge edge = tree_.edges[e];
      if (flow(e) < 0) {
        std::reverse(edge.curve.begin(), edge.curve.end());
        for (auto* along : {&edge.radius_mm, &edge.healthy_mm, &edge.hydraulic_mm}) std::reverse(along->begin(), along->end());
        std::reverse(edge.sections.begin(), edge.sections.end());
        for (Section& section : edge.sections) section.angle_rad = -section.angle_rad;
      }
      auto& points = points_.emplace_back(project(edge, beam_, 1));
      if (flow(e) < 0)
        for (ProjectedPoint& point : points) point.place_mm = edge.drawn_length_mm - point.place_mm;
    }
    std::vector<Joint> joints;
    for (int node = 0; node < static_cast<int>(tree_.node_names.size()); ++node) {
      Joint widest;
      bool found = false;
      for (std::size_t e = 0; e < tree_.edges.size(); ++e) {
        if (tree_.edges[e].closed) continue;
        const bool backwards = flow(e) < 0;
        for (const bool at_start : {true, false}) {
          if ((at_start != backwards ? tree_.edges[e].from : tree_.edges[e].to) != node) continue;
          const ProjectedPoint& end = at_start ? points_[e].front() : points_[e].back();
          if (found && end.radius_mm <= widest.at.radius_mm) continue;
          widest = {end, static_cast<int>(e), at_start ? 0 : static_cast<int>(points_[e].size()) - 1};
          found = true;
        }
      }
      // A ball would stand out of a vessel that is not filled all over.
      if (found && tree_.edges[static_cast<std::size_t>(widest.edge)].filling.mechanism == Mechanism::full) joints.push_back(widest);
    }
    add_stains(scene);
    std::vector<std::vector<ProjectedPoint>> drawn = points_;
    for (const Stain& stain : stains_) drawn.push_back(stain.points);
    PointSpread spread;
    spread.focal_px = options_.focal_spot_mm * (options_.magnification - 1) / *options_.detector_pitch_mm;
    for (std::size_t g = 0; g < 2; ++g) spread.sigma_px[g] = scintillator_sigma_mm[g] / *options_.detector_pitch_mm;
    spread.weight = scintillator_weight;
    truth_.psf_sigma_px = spread.edge_sigma_px();
    truth_.psf_rms_px = std::sqrt(spread.weight[0] * spread.sigma_px[0] * spread.sigma_px[0] +
                                  spread.weight[1] * spread.sigma_px[1] * spread.sigma_px[1] + spread.focal_px * spread.focal_px / 12);
    truth_.scintillator_sigma_px = spread.sigma_px;
    truth_.scintillator_weight = spread.weight;
    truth_.focal_blur_px = spread.focal_px;
    projector_.emplace(scene.attenuation.view(), scene.margin, options_.rows, options_.columns, spread, std::move(drawn), joints);
  }

  void add_stains(const Scene& scene) {
    for (const StainPlan& plan : scene.stains)
      for (std::size_t e = 0; e < tree_.edges.size(); ++e) {
        if (tree_.edges[e].name != plan.host) continue;
        const double middle = 0.5 * (plan.from_mm + plan.to_mm);
        const ProjectedPoint& beside = *std::min_element(points_[e].begin(), points_[e].end(), [&](const auto& a, const auto& b) {
          return std::abs(a.place_mm - middle) < std::abs(b.place_mm - middle);
        });
        stains_.push_back({plan, project(plan.tube, beam_, 0.5), arrival_ms(e, beside) + plan.delay_ms});
      }
  }

  void describe_detector() {
    truth_.options = options_;
    truth_.body_part = scenario_of(options_).foot ? "FOOT" : "PHANTOM";
    truth_.motion = make_motion(options_);
    const Image<float> background = projector_->transmission(Displacement({}, options_.rows, options_.columns), no_contrast());
    std::vector<float> values;
    for (int y = 0; y < options_.rows; ++y) values.insert(values.end(), background.row(y), background.row(y) + options_.columns);
    make_scatter(background);
    const double top = full_scale(options_);
    const float brightest = *std::max_element(values.begin(), values.end());
    // The object's, not the air's around it.
    std::erase_if(values, [](float value) { return value > 0.74f; });
    check(!values.empty(), "field of view", "empty", "an object in the beam");
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
    // The exposure control keeps the brightest part of the field below saturation.
    truth_.air_count = 0.94 * top / (brightest * (1 + options_.scatter_fraction));
    truth_.median_count = truth_.air_count * values[values.size() / 2];
    truth_.electronic_sd = options_.electronic_sd * (top + 1) / 4096;
    const double variance = *options_.noise_log_sd * *options_.noise_log_sd * truth_.median_count * truth_.median_count;
    check(variance == 0 || variance > 1.2 * truth_.electronic_sd * truth_.electronic_sd, "electronic noise", options_.electronic_sd,
          "well below the noise at the median intensity");
    truth_.noise_gain = variance == 0 ? 0 : (variance - truth_.electronic_sd * truth_.electronic_sd) / truth_.median_count;
    const double whole = light_.overlap(0, 0);
    for (int dy = -2; dy <= 2; ++dy)
      for (int dx = -2; dx <= 2; ++dx)
        truth_.noise_autocorrelation[static_cast<std::size_t>(dy + 2)][static_cast<std::size_t>(dx + 2)] = light_.overlap(dy, dx) / whole;
    if (options_.encoding == IntensityRelationship::logarithmic) {
      truth_.log_slope = top / std::log(log_range);
      truth_.log_offset = top - truth_.log_slope * std::log(top);
    }
  }

  void describe_vessels(const Scene& scene) {
    truth_.mm_per_px = beam_.mm_per_px();
    truth_.attenuation_per_mm = options_.attenuation_per_mm;
    const int frames = *options_.frames;
    for (int f = 0; f < frames; ++f) {
      truth_.frame_times_ms.push_back(f * options_.frame_time_ms);
      const std::size_t s = std::min(perfusion_.bolus.injected.size() - 1,
                                     static_cast<std::size_t>(std::lround(f * options_.frame_time_ms / perfusion_.bolus.step_ms)));
      constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
      truth_.mass.push_back(partly_filled() || !developing_.empty()
                                ? PhantomMass{unknown, unknown, unknown}
                                : PhantomMass{perfusion_.bolus.injected[s], perfusion_.bolus.in_vessels[s], perfusion_.bolus.drained[s]});
    }
    for (std::size_t n = 0; n < tree_.node_names.size(); ++n) {
      const auto at = beam_.project(tree_.node_positions[n]);
      truth_.nodes.push_back({at[0], at[1], tree_.node_names[n], {}});
    }
    truth_.first_contrast_frame = frames;
    for (std::size_t e = 0; e < tree_.edges.size(); ++e) {
      const Edge& edge = tree_.edges[e];
      const auto& projected = points_[e];
      // The longest stretch inside the image.
      std::size_t first = 0, count = 0;
      for (std::size_t i = 0; i < projected.size();) {
        std::size_t j = i;
        while (j < projected.size() && inside(projected[j])) ++j;
        if (j - i > count) {
          first = i;
          count = j - i;
        }
        i = j + 1;
      }
      if (count < 2) continue;
      const bool backwards = flow(e) < 0;
      PhantomSegment segment;
      segment.id = static_cast<int>(truth_.segments.size()) + 1;
      segment.name = edge.name;
      segment.role = edge.role;
      segment.flow_mm3_s = std::abs(flow(e));
      if (first == 0) segment.start = backwards ? edge.to : edge.from;
      if (first + count == projected.size()) segment.end = backwards ? edge.from : edge.to;
      for (const int node : {segment.start, segment.end})
        if (node >= 0) truth_.nodes[static_cast<std::size_t>(node)].segments.push_back(segment.id - 1);
      for (std::size_t i = first; i < first + count; ++i) {
        const ProjectedPoint& p = projected[i];
        PhantomPoint point;
        point.y_px = p.y;
        point.x_px = p.x;
        point.arc_length_mm = p.arc_mm - projected[first].arc_mm;
        point.depth_mm = p.depth_mm;
        point.radius_mm = p.radius_mm;
        point.area_mm2 = p.area_mm2;
        point.radius_px = p.radius_px;
        point.diameter_calibration_mm = 2 * p.radius_px * truth_.mm_per_px;
        point.path_factor = p.path_factor;
        point.velocity_mm_s = segment.flow_mm3_s / p.hydraulic_mm2;
        point.place_mm = p.place_mm;
        point.healthy_radius_mm = p.healthy_radius_mm;
        point.arrival_ms = arrival_ms(e, p);
        segment.points.push_back(point);
      }
      for (int f = 0; f < frames; ++f) {
        auto& filling = segment.filling.emplace_back();
        for (std::size_t i = first; i < first + count; ++i) {
          filling.push_back(concentration(e, i, f));
          if (edge.filling.mechanism != Mechanism::full) describe_filling(segment, e, i, f);
          if (filling.back() > 0.01f) truth_.first_contrast_frame = std::min(truth_.first_contrast_frame, f);
        }
      }
      segment.mechanism = name_of(edge.filling.mechanism);
      for (const LesionPlan& lesion : edge.lesions)
        if (!lesion.develops) describe_lesion(segment, lesion, edge);
      for (int f = 0; f < frames && is_developing(e); ++f) {
        auto& calibres_then = segment.calibre.emplace_back();
        for (std::size_t i = first; i < first + count; ++i) calibres_then.push_back(calibre(e, i, f));
      }
      if (edge.closed) describe_closure(segment);
      truth_.segments.push_back(std::move(segment));
    }
    describe_occlusions(scene);
    describe_onsets(scene);
    describe_stains();
    describe_crossings();
    describe_flow_split();
    parallel_for(static_cast<int>(truth_.segments.size()), [&](int k) {
      PhantomSegment& segment = truth_.segments[static_cast<std::size_t>(k)];
      for (PhantomPoint& point : segment.points)
        for (const PhantomSegment& other : truth_.segments) {
          if (&other == &segment) continue;
          for (const PhantomPoint& q : other.points) {
            const double distance = std::hypot(point.y_px - q.y_px, point.x_px - q.x_px);
            if (distance < 100) point.gap_px = std::min(point.gap_px, distance - point.radius_px - q.radius_px);
          }
          if (point.gap_px > 50) point.gap_px = std::numeric_limits<double>::infinity();
        }
    });
  }

  bool inside(const ProjectedPoint& p) const {
    const auto& [y0, x0, y1, x1] = truth_.open_field_px;
    return p.y >= y0 && p.x >= x0 && p.y <= y1 && p.x <= x1;
  }

  void describe_filling(PhantomSegment& segment, std::size_t e, std::size_t point, int frame) const {
    const SectionFill fill = fill_at(e, point, frame);
    float& filled = segment.filling.back().back();
    segment.filled_share.resize(segment.filling.size());
    segment.filled_share.back().push_back(static_cast<float>(filled_share(fill)));
    if (tree_.edges[e].filling.mechanism == Mechanism::streaming) {
      segment.rest.resize(segment.filling.size());
      segment.rest.back().push_back(filled * fill.rest);
    }
    filled *= fill.filled;
  }

  /// A lesion's places are along the plan of its edge; the segment has what is seen of it, in the direction of flow.
  void describe_lesion(const PhantomSegment& segment, const LesionPlan& plan, const Edge& edge) {
    const double longer = edge.drawn_length_mm / edge.plan_length_mm;
    const double low = (plan.centre_mm - 0.5 * plan.length_mm) * longer, high = (plan.centre_mm + 0.5 * plan.length_mm) * longer;
    const PhantomPoint *narrowest = nullptr, *smallest = nullptr;
    for (const PhantomPoint& p : segment.points) {
      if (p.place_mm < low || p.place_mm > high) continue;
      if (narrowest == nullptr || remaining(p) < remaining(*narrowest)) narrowest = &p;
      if (smallest == nullptr || area_left(p) < area_left(*smallest)) smallest = &p;
    }
    if (narrowest == nullptr) return;
    // The middle of where it is as narrow as that.
    const double middle = 0.5 * (low + high), least = remaining(*narrowest);
    for (const PhantomPoint& p : segment.points)
      if (remaining(p) <= 1.001 * least && std::abs(p.place_mm - middle) < std::abs(narrowest->place_mm - middle)) narrowest = &p;
    PhantomLesion lesion;
    lesion.kind = plan.kind;
    lesion.segment = segment.id;
    std::tie(lesion.from_mm, lesion.to_mm) = range_along(segment, low, high);
    lesion.nominal_percent = 100 * plan.narrowing;
    lesion.at_mm = narrowest->arc_length_mm;
    lesion.minimal_diameter_mm = narrowest->diameter_calibration_mm;
    lesion.reference_diameter_mm = lesion.minimal_diameter_mm / remaining(*narrowest);
    lesion.diameter_percent = 100 * (1 - remaining(*narrowest));
    lesion.area_percent = 100 * (1 - area_left(*smallest));
    truth_.lesions.push_back(std::move(lesion));
  }

  /// From place to place along the vessel as drawn: what a segment has of it, along the segment.
  static std::pair<double, double> range_along(const PhantomSegment& segment, double low, double high) {
    const PhantomPoint &first = segment.points.front(), &last = segment.points.back();
    const double way = first.place_mm < last.place_mm ? 1 : -1;
    const auto along = [&](double place) { return std::clamp(way * (place - first.place_mm), 0.0, last.arc_length_mm); };
    return std::minmax({along(low), along(high)});
  }

  static double remaining(const PhantomPoint& p) { return p.radius_mm / p.healthy_radius_mm; }
  static double area_left(const PhantomPoint& p) { return p.area_mm2 / (std::numbers::pi * p.healthy_radius_mm * p.healthy_radius_mm); }

  void describe_closure(const PhantomSegment& segment) {
    PhantomLesion lesion;
    lesion.kind = "occlusion";
    lesion.segment = segment.id;
    lesion.to_mm = segment.points.back().arc_length_mm;
    lesion.reference_diameter_mm = segment.points.front().diameter_calibration_mm;
    lesion.diameter_percent = lesion.nominal_percent = lesion.area_percent = 100;
    truth_.lesions.push_back(std::move(lesion));
  }

  void describe_occlusions(const Scene& scene) {
    const auto find = [&](const std::string& name) -> const PhantomSegment* {
      for (const PhantomSegment& segment : truth_.segments)
        if (segment.name == name) return &segment;
      return nullptr;
    };
    for (const auto& [stump, distal] : scene.occlusions) {
      const PhantomSegment *before = find(stump), *beyond = find(distal);
      if (before == nullptr || beyond == nullptr) continue;
      PhantomLesion lesion;
      lesion.kind = "occlusion";
      lesion.segment = before->id;
      lesion.beyond = beyond->id;
      lesion.from_mm = lesion.to_mm = lesion.at_mm = before->points.back().arc_length_mm;
      lesion.reference_diameter_mm = before->points.front().diameter_calibration_mm;
      lesion.diameter_percent = lesion.nominal_percent = lesion.area_percent = 100;
      truth_.lesions.push_back(std::move(lesion));
    }
  }

  /// One for each lesion that develops.
  void describe_onsets(const Scene& scene) {
    for (const VesselPlan& vessel : scene.vessels)
      for (const LesionPlan& lesion : vessel.lesions) {
        if (!lesion.develops) continue;
        PhantomOnset onset;
        onset.onset_ms = *options_.onset_ms + lesion.delay_ms;
        onset.complete_ms = onset.onset_ms + lesion.rise_ms;
        onset.narrowing_percent = 100 * lesion.narrowing;
        onset.extent_mm = extent_above(lesion, lesion.narrowing, 25);
        for (const PhantomSegment& segment : truth_.segments)
          for (const Edge& edge : tree_.edges)
            if (edge.name == segment.name && edge.name.starts_with(vessel.name) && reaches(lesion, edge))
              onset.segments.push_back(segment.id);
        truth_.onsets.push_back(std::move(onset));
      }
    std::stable_sort(truth_.onsets.begin(), truth_.onsets.end(),
                     [](const PhantomOnset& a, const PhantomOnset& b) { return a.onset_ms < b.onset_ms; });
  }

  /// Those whose middle is seen.
  void describe_stains() {
    for (const Stain& stain : stains_) {
      const ProjectedPoint& middle = stain.points[stain.points.size() / 2];
      for (const PhantomSegment& segment : truth_.segments) {
        if (segment.name != stain.plan.host || !inside(middle)) continue;
        const auto [from, to] = range_along(segment, stain.plan.from_mm, stain.plan.to_mm);
        truth_.stains.push_back(
            {stain.plan.kind, segment.id, from, to, middle.y, middle.x, stain.onset_ms, stain.plan.radius_mm, stain.plan.concentration});
      }
    }
  }

  void describe_crossings() {
    const auto connected = [&](const PhantomSegment& a, const PhantomSegment& b) {
      for (const int m : {a.start, a.end})
        for (const int n : {b.start, b.end})
          if (m >= 0 && m == n) return true;
      return false;
    };
    for (std::size_t s = 0; s < truth_.segments.size(); ++s)
      for (std::size_t t = s + 1; t < truth_.segments.size(); ++t) {
        const PhantomSegment &a = truth_.segments[s], &b = truth_.segments[t];
        if (connected(a, b)) continue;
        for (std::size_t i = 0; i + 1 < a.points.size(); ++i) {
          const PhantomPoint &p = a.points[i], &q = a.points[i + 1];
          for (std::size_t j = 0; j + 1 < b.points.size(); ++j) {
            const PhantomPoint &r = b.points[j], &u = b.points[j + 1];
            if (std::abs(p.y_px - r.y_px) > 4 || std::abs(p.x_px - r.x_px) > 4) continue;
            const double ay = q.y_px - p.y_px, ax = q.x_px - p.x_px, by = u.y_px - r.y_px, bx = u.x_px - r.x_px;
            const double det = ay * bx - ax * by, gy = r.y_px - p.y_px, gx = r.x_px - p.x_px;
            if (det == 0) continue;
            const double f = (gy * bx - gx * by) / det, g = (gy * ax - gx * ay) / det;
            if (f < 0 || f >= 1 || g < 0 || g >= 1) continue;
            const double cosine = std::abs(ay * by + ax * bx) / (std::hypot(ay, ax) * std::hypot(by, bx));
            truth_.crossings.push_back({{a.id, b.id},
                                        p.y_px + f * ay,
                                        p.x_px + f * ax,
                                        std::acos(std::min(1.0, cosine)) * 180 / std::numbers::pi,
                                        std::abs(p.depth_mm - r.depth_mm)});
          }
        }
      }
  }

  void describe_flow_split() {
    if (truth_.body_part != "FOOT") return;
    // What an inlet sends elsewhere does not count.
    double inflow = 0;
    for (const Terminal& terminal : perfusion_.terminals)
      if (terminal.inflow_mm3_s > 0)
        for (std::size_t e = 0; e < tree_.edges.size(); ++e)
          inflow += (tree_.edges[e].from == terminal.node ? flow(e) : 0) - (tree_.edges[e].to == terminal.node ? flow(e) : 0);
    std::vector<bool> of_arch(tree_.node_names.size());
    for (const Edge& edge : tree_.edges)
      if (edge.role == "arch") of_arch[static_cast<std::size_t>(edge.from)] = of_arch[static_cast<std::size_t>(edge.to)] = true;
    PhantomFlowSplit split;
    for (std::size_t e = 0; e < tree_.edges.size(); ++e) {
      const Edge& edge = tree_.edges[e];
      const bool from = of_arch[static_cast<std::size_t>(edge.from)], to = of_arch[static_cast<std::size_t>(edge.to)];
      if (edge.role == "perforator" && !from && !to) split.perforators += std::abs(flow(e)) / inflow;
      if (edge.role != "arch" && from != to && (flow(e) > 0) == to) split.arch += std::abs(flow(e)) / inflow;
    }
    truth_.flow_split = split;
  }

  void make_scatter(const Image<float>& background) {
    scatter_ = Image<float>(options_.rows, options_.columns);
    for (int y = 0; y < options_.rows; ++y) std::fill(scatter_.row(y), scatter_.row(y) + options_.columns, 0.0f);
    if (options_.scatter_fraction > 0) scatter_ = veil(background, options_.scatter_fraction);
  }

  /// The edges that shade the border, blurred by the focal spot; what gets through lead is a little. Column by column, row by row.
  void close_shutter(double share) {
    const double width = share * std::min(options_.rows, options_.columns), blur = 1.5, leak = 0.015;
    const auto open = [&](int size) {
      std::vector<float> profile;
      for (int k = 0; k < size; ++k) {
        const auto edge = [&](double inside) { return 0.5 * std::erfc(-inside / (std::numbers::sqrt2 * blur)); };
        profile.push_back(static_cast<float>(share > 0 ? std::max(leak, edge(k - width) * edge(size - 1 - width - k)) : 1));
      }
      return profile;
    };
    open_rows_ = open(options_.rows);
    open_columns_ = open(options_.columns);
    truth_.open_field_px = {width, width, options_.rows - 1 - width, options_.columns - 1 - width};
  }

  double flow(std::size_t e) const { return perfusion_.flow_mm3_s[e]; }
  float scatter(int y, int x) const { return scatter_(y, x); }
  double conduit_arc(std::size_t e, double arc_mm) const { return flow(e) < 0 ? tree_.edges[e].length_mm - arc_mm : arc_mm; }
  float concentration(std::size_t e, std::size_t point, int frame) const {
    const double arc = points_[e][point].arc_mm, time = frame * options_.frame_time_ms;
    // The core's front is the flow's fastest part: what is there has just come from the inlet.
    if (tree_.edges[e].filling.mechanism == Mechanism::core_front)
      return static_cast<float>(perfusion_.inlet(time - core_delay_ms(e, arc)));
    return static_cast<float>(perfusion_.bolus.concentration(static_cast<int>(e), conduit_arc(e, arc), time));
  }
  double mean_velocity(std::size_t e) const { return std::abs(flow(e)) / points_[e].front().area_mm2; }
  double core_delay_ms(std::size_t e, double arc_mm) const { return 1000 * arc_mm / (2 * mean_velocity(e)); }
  /// Contrast is at half its height at the inlet.
  double entry_ms() const { return options_.contrast_free_frames * options_.frame_time_ms + inlet_rise_ms / 2; }
  double arrival_ms(std::size_t e, const ProjectedPoint& p) const {
    if (tree_.edges[e].filling.mechanism != Mechanism::core_front)
      return perfusion_.bolus.arrival_ms(static_cast<int>(e), conduit_arc(e, p.arc_mm));
    const double arrival = entry_ms() + core_delay_ms(e, p.arc_mm);
    return arrival <= (*options_.frames - 1) * options_.frame_time_ms ? arrival : std::numeric_limits<double>::quiet_NaN();
  }
  SectionFill fill_at(std::size_t e, std::size_t point, int frame) const {
    return section_fill(tree_.edges[e].filling, points_[e][point].arc_mm, frame * options_.frame_time_ms - entry_ms(), mean_velocity(e));
  }
  bool is_developing(std::size_t e) const { return std::find(developing_.begin(), developing_.end(), e) != developing_.end(); }
  /// Diameter at a point relative to the first frame's.
  float calibre(std::size_t e, std::size_t point, int frame) const {
    const Edge& edge = tree_.edges[e];
    const double along_plan = points_[e][point].place_mm * edge.plan_length_mm / edge.drawn_length_mm;
    double left = 1;
    for (const LesionPlan& lesion : edge.lesions)
      if (lesion.develops)
        left *=
            1 - lesion.narrowing * height_of(lesion, along_plan) * developed(lesion, frame * options_.frame_time_ms - *options_.onset_ms);
    return static_cast<float>(left);
  }
  double since_ms(const Stain& stain, int frame) const {
    const double since = frame * options_.frame_time_ms - stain.onset_ms;
    return since > 0 ? since : 0;
  }
  std::vector<std::vector<float>> calibres(int frame) const {
    std::vector<std::vector<float>> result;
    if (developing_.empty() && stains_.empty()) return result;
    for (std::size_t e = 0; e < tree_.edges.size(); ++e) {
      auto& of_edge = result.emplace_back();
      for (std::size_t i = 0; i < points_[e].size() && is_developing(e); ++i) of_edge.push_back(calibre(e, i, frame));
    }
    const double last_ms = (*options_.frames - 1) * options_.frame_time_ms;
    for (const Stain& stain : stains_) {
      auto& of_stain = result.emplace_back();
      const double elapsed = since_ms(stain, frame) / std::max(1.0, last_ms - stain.onset_ms);
      for (const ProjectedPoint& p : stain.points)
        of_stain.push_back(static_cast<float>(phantom::calibre(stain.plan, p.arc_mm / stain.plan.tube.length_mm, elapsed)));
    }
    return result;
  }
  bool partly_filled() const {
    return std::any_of(tree_.edges.begin(), tree_.edges.end(), [](const Edge& edge) { return edge.filling.mechanism != Mechanism::full; });
  }
  std::vector<std::vector<SectionFill>> fills(int frame) const {
    std::vector<std::vector<SectionFill>> result;
    if (!partly_filled()) return result;
    for (std::size_t e = 0; e < tree_.edges.size(); ++e) {
      auto& of_edge = result.emplace_back();
      if (tree_.edges[e].filling.mechanism == Mechanism::full) continue;
      for (std::size_t i = 0; i < points_[e].size(); ++i) of_edge.push_back(fill_at(e, i, frame));
    }
    return result;
  }
  std::vector<std::vector<float>> no_contrast() const {
    std::vector<std::vector<float>> none;
    for (const auto& points : points_) none.emplace_back(points.size(), 0.0f);
    for (const Stain& stain : stains_) none.emplace_back(stain.points.size(), 0.0f);
    return none;
  }
  std::vector<std::vector<float>> attenuation(int frame) const {
    std::vector<std::vector<float>> result = no_contrast();
    const auto per_mm = [&](float c) { return c > 1e-6f ? static_cast<float>(options_.attenuation_per_mm) * c : 0; };
    for (std::size_t e = 0; e < points_.size(); ++e)
      for (std::size_t i = 0; i < result[e].size(); ++i) result[e][i] = per_mm(concentration(e, i, frame));
    for (std::size_t s = 0; s < stains_.size(); ++s) {
      auto& of_stain = result[points_.size() + s];
      std::fill(of_stain.begin(), of_stain.end(),
                per_mm(static_cast<float>(phantom::concentration(stains_[s].plan, since_ms(stains_[s], frame)))));
    }
    return result;
  }

  PhantomOptions options_;
  LightSpread light_;
  ConeBeam beam_;
  VesselTree tree_;
  std::vector<std::size_t> developing_;  // edges whose calibre changes within the run
  Perfusion perfusion_;
  std::vector<std::vector<ProjectedPoint>> points_;
  std::vector<Stain> stains_;
  std::optional<Projector> projector_;
  Image<float> scatter_;
  std::vector<float> open_rows_, open_columns_;
  double scene_shutter_ = 0;
  PhantomTruth truth_;
};

class FramesInMemory : public FrameSource {
 public:
  explicit FramesInMemory(const std::vector<Image<std::uint16_t>>& frames) {
    for (const auto& frame : frames) {
      Image<std::uint16_t> copied(frame.height(), frame.width());
      for (int y = 0; y < frame.height(); ++y) std::copy(frame.row(y), frame.row(y) + frame.width(), copied.row(y));
      frames_.push_back(std::move(copied));
    }
  }
  int frame_count() const override { return static_cast<int>(frames_.size()); }
  int rows() const override { return frames_.front().height(); }
  int columns() const override { return frames_.front().width(); }
  void read_frame(int frame, ImageView<std::uint16_t> stored) const override {
    if (frame < 0 || frame >= frame_count()) throw InputError("phantom: frame " + std::to_string(frame) + " does not exist");
    const Image<std::uint16_t>& from = frames_[static_cast<std::size_t>(frame)];
    for (int y = 0; y < rows(); ++y) std::copy(from.row(y), from.row(y) + columns(), stored.row(y));
  }

 private:
  std::vector<Image<std::uint16_t>> frames_;
};

}  // namespace

namespace phantom {

PhantomRun expose(const PhantomOptions& options, const SceneMaker& scene) {
  const Studio studio(options, scene);
  PhantomRun run;
  run.truth = studio.truth();
  run.frames.resize(run.truth.frame_times_ms.size());
  const int frames = static_cast<int>(run.frames.size());
  const auto store = [&](int frame, Image<float> counts) {
    run.frames[static_cast<std::size_t>(frame)] = studio.read_out(frame, std::move(counts));
  };
  const double lag = run.truth.options.lag_fraction;
  if (lag == 0) {
    parallel_for(frames, [&](int frame) { store(frame, studio.light(frame)); });
    return run;
  }
  // Each frame waits for the one before: as many at a time as keep the machine busy.
  constexpr int at_a_time = 16;
  Image<float> lagged;
  for (int first = 0; first < frames; first += at_a_time) {
    std::vector<Image<float>> signals(static_cast<std::size_t>(std::min(at_a_time, frames - first)));
    parallel_for(static_cast<int>(signals.size()), [&](int k) { signals[static_cast<std::size_t>(k)] = studio.light(first + k); });
    for (std::size_t k = 0; k < signals.size(); ++k) {
      add_lag(lag, lagged, signals[k]);
      lagged = copy(signals[k]);
      store(first + static_cast<int>(k), std::move(signals[k]));
    }
  }
  return run;
}

PhantomTruth describe(const PhantomOptions& options, const SceneMaker& scene) { return Studio(options, scene).truth(); }

Image<float> expect_counts(const PhantomOptions& options, const SceneMaker& scene, int frame) {
  const Studio studio(options, scene);
  const int frames = static_cast<int>(studio.truth().frame_times_ms.size());
  check(frame >= 0 && frame < frames, "frame", frame, "0 to the number of frames less one");
  const double lag = studio.truth().options.lag_fraction;
  // What is left of frames long past is less than a float holds.
  const int first = lag == 0 ? frame : std::max(0, frame - static_cast<int>(std::ceil(std::log(1e-8) / std::log(lag))));
  Image<float> signal;
  for (int f = first; f <= frame; ++f) {
    Image<float> next = studio.expected_light(f);
    add_lag(lag, signal, next);
    signal = std::move(next);
  }
  return signal;
}

}  // namespace phantom

namespace {

/// The scenario's own scene.
SceneMaker scene_of(const PhantomOptions& options) {
  const PhantomOptions completed = complete(options);
  return [make = scenario_of(completed).make, seed = *completed.anatomy_seed](const ConeBeam& beam, int rows, int columns) {
    return make(beam, rows, columns, seed);
  };
}

}  // namespace

PhantomRun make_phantom(const PhantomOptions& options) { return expose(options, scene_of(options)); }

PhantomTruth phantom_truth(const PhantomOptions& options) { return describe(options, scene_of(options)); }

Image<float> expected_counts(const PhantomOptions& options, int frame) { return expect_counts(options, scene_of(options), frame); }

std::vector<float> linear_counts(const PhantomTruth& truth) {
  std::vector<float> counts;
  for (int v = 0; v <= static_cast<int>(full_scale(truth.options)); ++v)
    counts.push_back(static_cast<float>(truth.log_slope > 0 ? std::exp((v - truth.log_offset) / truth.log_slope) : v));
  return counts;
}

Run make_run(const PhantomRun& phantom) {
  const PhantomOptions& options = phantom.truth.options;
  Run run;
  run.frames = std::make_shared<FramesInMemory>(phantom.frames);
  run.description.modality = "XA";
  run.description.manufacturer = "CineLumen phantom";
  run.description.series_description = options.scenario;
  run.description.body_part = phantom.truth.body_part;
  run.intensity.relationship = IntensityRelationship::linear;
  run.intensity.relationship_as_stored = options.encoding == IntensityRelationship::logarithmic ? "LOG" : "LIN";
  run.intensity.bits_stored = options.bits_stored;
  run.intensity.value = linear_counts(phantom.truth);
  run.geometry.source_to_detector_mm = options.source_to_detector_mm;
  run.geometry.source_to_patient_mm = options.source_to_detector_mm / options.magnification;
  run.geometry.magnification = options.magnification;
  run.geometry.imager_pixel_spacing_mm = {*options.detector_pitch_mm, *options.detector_pitch_mm};
  run.field.mask = Image<std::uint8_t>(options.rows, options.columns);
  for (int y = 0; y < options.rows; ++y) std::fill(run.field.mask.row(y), run.field.mask.row(y) + options.columns, std::uint8_t{1});
  run.field.source = "whole image";
  run.frame_times_ms = phantom.truth.frame_times_ms;
  return run;
}

}  // namespace cinelumen
