#include "engine/frame_chain.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/clutter.h"
#include "engine/ridge_snap.h"
#include "kernels/bspline.h"
#include "kernels/flow_statistics.h"
#include "kernels/log_attenuation.h"
#include "kernels/log_subtract.h"
#include "kernels/mask_registration.h"
#include "kernels/temporal_filter.h"

namespace cinelumen {
namespace {

constexpr float minimum_gain = 0.15f;  // of the temporal filter

// What the temporal filter leaves of white noise where nothing changes.
double filtered_noise_factor() { return std::sqrt(minimum_gain / (2 - minimum_gain)); }

double median(std::vector<float>& values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// SD of the finest noise: median absolute second difference along rows, which smooth structure hardly touches.
double fine_noise_sd(const Image<float>& image, const Image<std::uint8_t>& valid) {
  std::vector<float> differences;
  const int step = std::max(1, image.height() / 256);
  for (int y = 0; y < image.height(); y += step)
    for (int x = 1; x + 1 < image.width(); ++x)
      if (valid(y, x - 1) && valid(y, x) && valid(y, x + 1))
        differences.push_back(std::abs(image(y, x - 1) - 2 * image(y, x) + image(y, x + 1)));
  return median(differences) / 0.6745 / std::sqrt(6.0);
}

// Mean over a polygon's pixels, moved with the background. At most a few thousand samples: enough for a mean, quick for any size.
float region_mean(ImageView<const float> subtracted, const std::vector<std::array<int, 2>>& pixels, const RigidMotion& motion) {
  double sum = 0;
  int count = 0;
  const std::size_t step = pixels.size() / 4000 + 1;
  for (std::size_t i = 0; i < pixels.size(); i += step) {
    const PixelPosition to =
        move(motion, {static_cast<double>(pixels[i][0]), static_cast<double>(pixels[i][1])}, subtracted.height, subtracted.width);
    const int y = static_cast<int>(std::lround(to.y)), x = static_cast<int>(std::lround(to.x));
    if (y < 0 || x < 0 || y >= subtracted.height || x >= subtracted.width) continue;
    sum += subtracted(y, x);
    ++count;
  }
  return count ? static_cast<float>(sum / count) : std::numeric_limits<float>::quiet_NaN();
}

// Moves the centrelines onto their ridges in this frame. Returns, per segment, whether it was found.
std::vector<bool> snap(const Stream& stream, const VesselnessMap& map, std::vector<Centreline>& centrelines,
                       const RidgeSnapOptions& options) {
  const std::vector<std::vector<SnappedPoint>> snapped = snap_to_ridge(stream, map, centrelines, options);
  std::vector<bool> found;
  for (std::size_t s = 0; s < centrelines.size(); ++s) {
    const auto accepted = std::count_if(snapped[s].begin(), snapped[s].end(), [](const SnappedPoint& p) { return p.accepted; });
    found.push_back(2 * accepted >= static_cast<std::ptrdiff_t>(snapped[s].size()));
    if (found.back()) centrelines[s] = moved_to_ridge(centrelines[s], snapped[s]);
  }
  return found;
}

// A table of the stream's device.
Array<float> table_on(const Stream& stream, const std::vector<float>& values) {
  Array<float> host = Array<float>::staging(stream, static_cast<int>(values.size())), table(stream, host.size());
  std::copy(values.begin(), values.end(), host.begin());
  copy<float>(stream, host.view(), table.view());
  stream.synchronize();
  return table;
}

TemporalFilter make_filter(const Stream& stream, int height, int width) {
  TemporalFilterOptions options;
  options.minimum_gain = minimum_gain;
  return TemporalFilter(stream, height, width, options);
}

bool moves(const RigidMotion& motion) { return motion.shift_y_px != 0 || motion.shift_x_px != 0 || motion.rotation_rad != 0; }

void exclude(std::vector<LumenPoint>& points, Exclusion reason) {
  for (LumenPoint& point : points) {
    point.used = false;
    point.reason = reason;
  }
}

}  // namespace

/// A mask on the stream's device.
struct FrameChain::Mask {
  MaskFrame frame;
  Array<float> variance_table;  ///< of frame minus mask, by stored value
};

/// What the second pass does to every frame.
struct FrameChain::MeasureSettings {
  VesselnessOptions vesselness;
  RidgeSnapOptions snap;
  LumenOptions lumen;
};

/// One frame in flight: its planes, and the workspaces of the kernels that it goes through.
struct FrameChain::Slot {
  Slot(const Stream& on, int height, int width)
      : stream(on),
        stored(Image<std::uint16_t>::staging(on, height, width)),
        attenuation(on, height, width),
        subtracted(on, height, width),
        filtered(on, height, width),
        coefficients(on, height, width),
        variance(on, height, width) {
    if (on.on_cuda()) {
      stored_on_device = Image<std::uint16_t>(on, height, width);
      host_subtracted = Image<float>::staging(on, height, width);
      host_filtered = Image<float>::staging(on, height, width);
    }
  }

  Stream stream;
  int frame = 0, mask = 0;
  Image<std::uint16_t> stored, stored_on_device;
  Image<float> attenuation, subtracted, filtered, coefficients, variance;
  Image<float> host_subtracted, host_filtered;  ///< CUDA only
  Image<float> host_shown;                      ///< where the frame is shown otherwise than it is measured
  std::vector<MaskRegistration> registrations;  ///< one per mask
  std::optional<Vesselness> vesselness;
  VesselnessMap map;
  RigidMotion motion;  ///< reference to frame
  float offset = 0;
  FrameSubtraction subtraction;
  std::vector<std::vector<LumenPoint>> lumen;  ///< per segment
  std::vector<std::vector<float>> contrast;    ///< per segment
  StageClock clock;

  /// The planes in host memory, once the stream has been synchronised.
  ImageView<const float> subtracted_on_host() const { return stream.on_cuda() ? host_subtracted.view() : subtracted.view(); }
  ImageView<const float> filtered_on_host() const { return stream.on_cuda() ? host_filtered.view() : filtered.view(); }
};

FrameChain::FrameChain(const Stream& stream, const Run& run, const IntensityModel& intensity, const NoiseModel& noise,
                       const MaskChoice& choice, std::vector<MaskFrame> masks, const Scene& scene, const AnalysisOptions& options)
    : stream_(stream),
      run_(run),
      intensity_(intensity),
      noise_(noise),
      choice_(choice),
      options_(options),
      scene_(scene),
      first_(scene.first),
      last_(scene.last),
      table_(table_on(stream, intensity.attenuation)),
      valid_(to_device(stream, run.field.valid())),
      noise_weight_(to_device(stream, local_noise_weight(run, noise, choice.reference_frame).view())),
      frame_ms_(static_cast<std::size_t>(last_ - first_ + 1), 0.0) {
  const int height = run.rows(), width = run.columns();
  // The mask's share of the variance is the same multiple of the frame's at every intensity.
  const auto variance_with = [&](float factor) {
    std::vector<float> variance;
    for (const float v : noise.variance) variance.push_back(std::max(v * factor, 1e-10f));
    return table_on(stream, variance);
  };
  for (MaskFrame& mask : masks) {
    Array<float> variance = variance_with(mask.noise_factor);
    masks_.push_back(std::make_unique<Mask>(Mask{std::move(mask), std::move(variance)}));
  }
  if (!subtracting()) {
    variance_table_ = variance_with(1);
    no_mask_ = Image<float>(stream, height, width);
    set_zero(stream, no_mask_.view());
    Image<std::uint16_t> stored(height, width);
    run.frames->read_frame(choice.reference_frame, stored.view());
    std::vector<float> values;
    for (int y = 0; y < height; y += 2)
      for (int x = 0; x < width; x += 2)
        if (run.field.mask(y, x)) values.push_back(intensity.attenuation[stored(y, x)]);
    no_mask_offset_ = static_cast<float>(median(values));
  }
  stream.synchronize();

  // A GPU is filled by one frame; CPU cores each take their own, and one waits where another is written or filtered in its turn.
  const bool one = stream.on_cuda() || !stream.schedule().parallel;
  const int slots = one ? 1 : std::clamp(std::min(cpu_threads() + 1, run.frame_count()), 1, 16);
  for (int i = 0; i < slots; ++i) {
    CpuSchedule schedule = stream.schedule();
    schedule.parallel = false;
    slots_.push_back(std::make_unique<Slot>(one ? stream : Stream::cpu(schedule), height, width));
  }
  if (options.registration != Registration::rigid) return;
  for (const auto& mask : masks_) {
    MaskRegistration registration(stream, mask->frame.attenuation.view(), valid_.view());
    for (std::size_t i = 1; i < slots_.size(); ++i) slots_[i]->registrations.push_back(registration.another(slots_[i]->stream));
    slots_[0]->registrations.push_back(std::move(registration));
  }
}

FrameChain::~FrameChain() = default;

double FrameChain::noise_factor() const {
  float factor = 1;
  for (const auto& mask : masks_) factor = std::max(factor, mask->frame.noise_factor);
  return factor;
}

VesselnessOptions FrameChain::vesselness_options(double noise_sd) const {
  VesselnessOptions options;
  options.response = options_.response;
  options.noise_sd = static_cast<float>(std::max(noise_sd, 1e-5));
  options.correlation_factor = correlation_factors(noise_.autocorrelation);
  options.noise_weight = noise_weight_.view();
  return options;
}

void FrameChain::load(Slot& slot, int frame) {
  slot.frame = frame;
  slot.mask = subtracting() ? choice_.mask_of_frame[frame - first_] : 0;
  {
    const auto timed = slot.clock.measure("decode");
    run_.frames->read_frame(frame, slot.stored.view());
  }
  const auto timed = slot.clock.measure("ingest");
  if (slot.stream.on_cuda()) copy<std::uint16_t>(slot.stream, slot.stored.view(), slot.stored_on_device.view());
  log_attenuation(slot.stream, slot.stream.on_cuda() ? slot.stored_on_device.view() : slot.stored.view(), table_.view(),
                  slot.attenuation.view());
}

// Leaves motion and offset as they are known for the frame.
void FrameChain::register_frame(Slot& slot) {
  slot.motion = {};
  slot.offset = 0;
  slot.subtraction = {};
  slot.subtraction.frame = slot.frame;
  slot.subtraction.contrast_score = choice_.contrast_score.empty() ? 0 : choice_.contrast_score[slot.frame - first_];
  if (!slot.registrations.empty()) {
    const auto timed = slot.clock.measure("registration");
    const RigidEstimate estimate = slot.registrations[slot.mask].estimate(slot.stream, slot.attenuation.view());
    if (estimate.converged) slot.motion = estimate.motion;
    slot.offset = estimate.offset;
    slot.subtraction.residual_sd = estimate.residual_sd;
  }
  slot.subtraction.shift_y_px = slot.motion.shift_y_px;
  slot.subtraction.shift_x_px = slot.motion.shift_x_px;
  slot.subtraction.rotation_rad = slot.motion.rotation_rad;
}

void FrameChain::subtract(Slot& slot, const RigidMotion& motion, float offset) {
  const auto timed = slot.clock.measure("subtraction");
  slot.motion = motion;
  slot.offset = offset;
  if (subtracting()) {
    const Mask& mask = *masks_[slot.mask];
    log_subtract(slot.stream, slot.attenuation.view(), mask.frame.coefficients.view(), valid_.view(), motion, offset,
                 slot.subtracted.view());
  } else {
    log_subtract(slot.stream, slot.attenuation.view(), no_mask_.view(), valid_.view(), {}, no_mask_offset_, slot.subtracted.view());
  }
}

Opacification FrameChain::opacify(const std::vector<int>& key_frames, AnalysisObserver* observer) {
  const int height = run_.rows(), width = run_.columns(), count = last_ - first_ + 1;
  Opacification result;
  result.frames.resize(count);
  result.motions.resize(count);
  result.offsets.resize(count);
  TemporalFilter filter = make_filter(stream_, height, width);
  FlowStatistics statistics(stream_, height, width);
  const double frame_noise = noise_.log_sd_at_median * std::sqrt(noise_factor());

  const auto register_and_subtract = [&](int i, int place) {
    Slot& slot = *slots_[place];
    load(slot, first_ + i);
    register_frame(slot);
    subtract(slot, slot.motion, slot.offset);
    const auto timed = slot.clock.measure("opacification");
    // Onto the reference: a resting background, over which the filter and the running statistics need no motion.
    if (moves(slot.motion)) {
      bspline_coefficients(slot.stream, slot.subtracted.view(), slot.coefficients.view());
      warp(slot.stream, slot.coefficients.view(), inverse(slot.motion), slot.attenuation.view());
    } else {
      copy<float>(slot.stream, slot.subtracted.view(), slot.attenuation.view());
    }
  };
  const auto filter_in_time = [&](int, int place) {
    Slot& slot = *slots_[place];
    if (scene_.is_odd(slot.frame)) return;
    const auto timed = slot.clock.measure("temporal filter");
    filter.apply(slot.stream, slot.attenuation.view(), static_cast<float>(std::max(frame_noise, 1e-5)), 0, 0, slot.filtered.view());
  };
  const auto gather = [&](int i, int place) {
    Slot& slot = *slots_[place];
    if (!scene_.is_odd(slot.frame)) {
      const auto timed = slot.clock.measure("flow statistics");
      statistics.update(slot.stream, slot.filtered.view(), run_.frame_times_ms.empty() ? i : run_.frame_times_ms[slot.frame]);
    }
    if (std::find(key_frames.begin(), key_frames.end(), slot.frame) != key_frames.end()) {
      KeyFrame key{slot.frame, Image<float>(stream_, height, width)};
      copy<float>(slot.stream, slot.filtered.view(), key.image.view());
      result.key_frames.push_back(std::move(key));
    }
    result.frames[i] = slot.subtraction;
    result.motions[i] = slot.motion;
    result.offsets[i] = slot.offset;
    slot.stream.synchronize();
    take_times(slot);
    if (observer) observer->progress("subtracting", i + 1, count);
  };
  pipeline(count, static_cast<int>(slots_.size()), {{false, register_and_subtract}, {true, filter_in_time}, {true, gather}});

  const auto timed = clock_.measure("flow statistics");
  FlowImages images = statistics.finish(stream_, static_cast<float>(frame_noise * filtered_noise_factor()));
  result.picture = std::move(images.maximum);
  if (!subtracting() && count > 1) {
    // Nothing comes and goes: the mean has less noise. Areas are in s.
    const double seconds = (run_.frame_times_ms.empty() ? count - 1 : run_.frame_times_ms[last_] - run_.frame_times_ms[first_]) / 1000;
    Image<float> mean = to_host(stream_, images.area.view());
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) mean(y, x) = static_cast<float>(mean(y, x) / seconds);
    result.picture = to_device(stream_, mean.view());
  }
  if (!run_.frame_times_ms.empty() && count > 1) result.time_to_peak_ms = to_host(stream_, images.time_to_peak_ms.view());
  result.noise_sd = fine_noise_sd(to_host(stream_, result.picture.view()), run_.field.mask);
  return result;
}

// Adds what the slot's frame has cost in this pass to the run's account.
void FrameChain::take_times(Slot& slot) {
  frame_ms_[slot.frame - first_] += slot.clock.work_ms();
  clock_.merge(slot.clock);
  slot.clock = {};
}

// The point spread is the detector's and the focal spot's: one for the run, from the fullest frame.
void FrameChain::estimate_point_spread(const Topology& topology, const Opacification& opacification, LumenOptions& options) {
  const auto timed = clock_.measure("point spread");
  const std::vector<double>& score = choice_.contrast_score;
  int frame = topology.frame >= 0 ? topology.frame : choice_.reference_frame;
  if (topology.frame < 0 && !score.empty()) frame = first_ + static_cast<int>(std::max_element(score.begin(), score.end()) - score.begin());
  Slot& slot = *slots_[0];
  load(slot, frame);
  subtract(slot, opacification.motions[frame - first_], opacification.offsets[frame - first_]);
  std::vector<Centreline> centrelines;
  for (const VesselGraph::Segment& segment : topology.graph.segments)
    centrelines.push_back(move_centreline(segment.centreline, slot.motion, run_.rows(), run_.columns()));
  LumenOptions of_this_frame = options;
  of_this_frame.variance = variance_of(slot);
  if (const auto psf = estimate_psf(slot.stream, slot.subtracted.view(), valid_.view(), centrelines, of_this_frame)) {
    options.psf_px = static_cast<float>(psf->psf_px);
    options.psf_sd_px = static_cast<float>(psf->sd_px);
  }
  slot.clock = {};  // what is timed here, is timed above
}

// Per pixel, of the frame that the slot has loaded.
ImageView<const float> FrameChain::variance_of(Slot& slot) {
  const auto timed = slot.clock.measure("ingest");
  log_attenuation(slot.stream, slot.stream.on_cuda() ? slot.stored_on_device.view() : slot.stored.view(),
                  subtracting() ? masks_[slot.mask]->variance_table.view() : variance_table_.view(), slot.variance.view());
  return slot.variance.view();
}

// Finds the vessels in the slot's frame and measures lumen and contrast along them.
void FrameChain::measure_vessels(Slot& slot, const Topology& topology, const MeasureSettings& settings) {
  {
    const auto timed = slot.clock.measure("vesselness");
    slot.vesselness->compute(slot.stream, slot.filtered.view(), valid_.view(), settings.vesselness, slot.map);
  }
  if (slot.stream.on_cuda()) {
    copy<float>(slot.stream, slot.subtracted.view(), slot.host_subtracted.view());
    copy<float>(slot.stream, slot.filtered.view(), slot.host_filtered.view());
  }
  if (options_.topology_every_frame) {
    const auto timed = slot.clock.measure("topology in every frame");
    (void)trace_centrelines(slot.stream, slot.filtered.view(), slot.map, valid_.view());
  }
  std::vector<Centreline> centrelines;
  std::vector<bool> found;
  {
    const auto timed = slot.clock.measure("re-snap");
    for (const VesselGraph::Segment& segment : topology.graph.segments)
      centrelines.push_back(move_centreline(segment.centreline, slot.motion, run_.rows(), run_.columns()));
    found = snap(slot.stream, slot.map, centrelines, settings.snap);
  }
  LumenOptions of_this_frame = settings.lumen;
  of_this_frame.variance = variance_of(slot);
  {
    const auto timed = slot.clock.measure("diameters");
    slot.lumen = measure_frame(slot.stream, slot.subtracted.view(), valid_.view(), centrelines, of_this_frame);
    // A vessel that moved away is not measured where it used to be.
    if (topology.moving_vessels && slot.frame != topology.frame)
      for (std::size_t s = 0; s < found.size(); ++s)
        if (!found[s]) exclude(slot.lumen[s], Exclusion::key_frame_only);
    if (scene_.is_odd(slot.frame))
      for (std::vector<LumenPoint>& points : slot.lumen) exclude(points, Exclusion::motion);
  }
  const auto timed = slot.clock.measure("flow");
  slot.stream.synchronize();
  slot.contrast.clear();
  for (const Centreline& centreline : centrelines)
    slot.contrast.push_back(sample_contrast(slot.subtracted_on_host(), run_.field.valid(), centreline, !subtracting()));
  if (scene_.is_odd(slot.frame))
    for (std::vector<float>& contrast : slot.contrast) std::fill(contrast.begin(), contrast.end(), std::numeric_limits<float>::quiet_NaN());
}

// The subtracted frame as the file's Mask Module wants it shown (see shown_mask_for): host memory.
ImageView<const float> FrameChain::shown(Slot& slot, const Opacification& opacification) {
  const std::optional<FrameMask> asked = shown_mask_for(choice_, slot.frame, run_.frame_count());
  if (!asked) return slot.subtracted_on_host();
  const auto timed = slot.clock.measure("shown otherwise");
  std::vector<int> averaged;
  for (int i = 0; i < asked->contrast_frame_averaging && slot.frame + i < run_.frame_count(); ++i) averaged.push_back(slot.frame + i);
  const MaskFrame contrast = average_mask_frames(slot.stream, run_, intensity_, {averaged, {}});
  RigidMotion motion = slot.motion;
  float offset = slot.offset;
  std::optional<MaskFrame> other;
  if (asked->operation != MaskInstruction::Operation::average_subtraction) {
    // Both frames' places relative to the reference are known: so is one's to the other.
    other = average_mask_frames(slot.stream, run_, intensity_, {asked->frames, asked->sub_pixel_shift});
    const int i = std::clamp(asked->frames.front(), first_, last_) - first_;
    motion = compose(slot.motion, inverse(opacification.motions[i]));
    offset -= opacification.offsets[i];
  }
  const Image<float>& coefficients = other ? other->coefficients : masks_[slot.mask]->frame.coefficients;
  log_subtract(slot.stream, contrast.attenuation.view(), coefficients.view(), valid_.view(), motion, offset, slot.attenuation.view());
  slot.host_shown = to_host<const float>(slot.stream, slot.attenuation.view());
  return slot.host_shown.view();
}

SegmentMeasurements FrameChain::measure(const Topology& topology, const Opacification& opacification, const Calibration& calibration,
                                        AnalysisObserver* observer) {
  const int height = run_.rows(), width = run_.columns(), count = last_ - first_ + 1;
  const double frame_noise = noise_.log_sd_at_median * std::sqrt(noise_factor());
  std::vector<std::vector<std::array<int, 2>>> regions;
  for (const NamedRegion& region : options_.regions) regions.push_back(pixels_in(region, height, width));
  const std::size_t segments = topology.graph.segments.size();
  SegmentMeasurements result;
  result.lumen.resize(segments);
  result.contrast.resize(segments);
  result.region_contrast.resize(regions.size());
  result.contrast_sd = frame_noise / std::sqrt(2.0);  // three samples 0.7 px apart are worth about two

  for (auto& slot : slots_) {
    if (!slot->vesselness) {
      slot->vesselness.emplace(slot->stream, height, width);
      slot->map = make_vesselness_map(slot->stream, height, width);
    }
  }
  TemporalFilter filter = make_filter(stream_, height, width);
  MeasureSettings settings;
  settings.vesselness = vesselness_options(frame_noise * filtered_noise_factor());
  settings.vesselness.elongation = options_.topology_every_frame;  // re-snapping asks for z and scale only
  settings.snap.search_px = static_cast<float>(calibration.known() ? std::clamp(1.5 / calibration.mm_per_px, 2.0, 12.0) : 6.0);
  settings.lumen.noise_sd = static_cast<float>(frame_noise);
  settings.lumen.sd_inflation = intensity_.sd_inflation;
  settings.lumen.autocorrelation = noise_.autocorrelation;
  if (subtracting()) settings.lumen.common_noise_share = static_cast<float>(1 - 1 / noise_factor());
  estimate_point_spread(topology, opacification, settings.lumen);

  const auto load_and_subtract = [&](int i, int place) {
    Slot& slot = *slots_[place];
    load(slot, first_ + i);
    slot.subtraction = opacification.frames[i];
    subtract(slot, opacification.motions[i], opacification.offsets[i]);
  };
  const auto filter_in_time = [&](int i, int place) {
    Slot& slot = *slots_[place];
    const auto timed = slot.clock.measure("temporal filter");
    if (scene_.is_odd(slot.frame)) {
      copy<float>(slot.stream, slot.subtracted.view(), slot.filtered.view());
      return;
    }
    int earlier = std::max(0, i - 1);
    while (earlier > 0 && scene_.is_odd(first_ + earlier)) --earlier;
    const RigidMotion &now = opacification.motions[i], &before = opacification.motions[earlier];
    filter.apply(slot.stream, slot.subtracted.view(), static_cast<float>(std::max(frame_noise, 1e-5)), now.shift_y_px - before.shift_y_px,
                 now.shift_x_px - before.shift_x_px, slot.filtered.view());
  };
  const auto find_and_measure = [&](int, int place) { measure_vessels(*slots_[place], topology, settings); };
  std::vector<LumenPoint> flat;
  const auto hand_over = [&](int i, int place) {
    Slot& slot = *slots_[place];
    flat.clear();
    for (std::size_t s = 0; s < segments; ++s) {
      flat.insert(flat.end(), slot.lumen[s].begin(), slot.lumen[s].end());
      result.lumen[s].push_back(std::move(slot.lumen[s]));
      result.contrast[s].push_back(std::move(slot.contrast[s]));
    }
    for (std::size_t r = 0; r < regions.size(); ++r)
      result.region_contrast[r].push_back(scene_.is_odd(slot.frame) ? std::numeric_limits<float>::quiet_NaN()
                                                                    : region_mean(slot.subtracted_on_host(), regions[r], slot.motion));
    if (observer) {
      FrameResult frame_result;
      frame_result.frame = slot.frame;
      if (!run_.frame_times_ms.empty()) frame_result.time_ms = run_.frame_times_ms[slot.frame];
      frame_result.subtracted = shown(slot, opacification);
      frame_result.display = slot.filtered_on_host();
      frame_result.lumen = &flat;
      frame_result.subtraction = &slot.subtraction;
      const auto timed = slot.clock.measure("write");
      observer->frame_done(frame_result);
      observer->progress("measuring", i + 1, count);
    }
    take_times(slot);
  };
  pipeline(count, static_cast<int>(slots_.size()),
           {{false, load_and_subtract}, {true, filter_in_time}, {false, find_and_measure}, {true, hand_over}});
  return result;
}

}  // namespace cinelumen
