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
template <class Slot>
std::vector<bool> snap(Slot& slot, std::vector<Centreline>& centrelines, const RidgeSnapOptions& options) {
  const std::vector<std::vector<SnappedPoint>> snapped = snap_to_ridge(slot.stream, slot.map, centrelines, options);
  std::vector<bool> found;
  for (std::size_t s = 0; s < centrelines.size(); ++s) {
    const auto accepted = std::count_if(snapped[s].begin(), snapped[s].end(), [](const SnappedPoint& p) { return p.accepted; });
    found.push_back(2 * accepted >= static_cast<std::ptrdiff_t>(snapped[s].size()));
    if (found.back()) centrelines[s] = moved_to_ridge(centrelines[s], snapped[s]);
  }
  return found;
}

void exclude(std::vector<LumenPoint>& points, Exclusion reason) {
  for (LumenPoint& point : points) {
    point.used = false;
    point.reason = reason;
  }
}

}  // namespace

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
  int frame = 0;
  Image<std::uint16_t> stored, stored_on_device;
  Image<float> attenuation, subtracted, filtered, coefficients, variance;
  Image<float> host_subtracted, host_filtered;  ///< CUDA only
  std::optional<MaskRegistration> registration;
  std::optional<Vesselness> vesselness;
  VesselnessMap map;
  RigidMotion motion;
  float offset = 0;
  FrameSubtraction subtraction;
  std::vector<std::vector<LumenPoint>> lumen;  ///< per segment
  std::vector<std::vector<float>> contrast;    ///< per segment
  std::vector<bool> found;                     ///< per segment: its ridge was found again in this frame
  StageClock clock;
  double frame_ms = 0;

  /// The planes in host memory, once the stream has been synchronised.
  ImageView<const float> subtracted_on_host() const { return stream.on_cuda() ? host_subtracted.view() : subtracted.view(); }
  ImageView<const float> filtered_on_host() const { return stream.on_cuda() ? host_filtered.view() : filtered.view(); }
};

FrameChain::FrameChain(const Stream& stream, const Run& run, const IntensityModel& intensity, const NoiseModel& noise,
                       const MaskChoice& mask, MaskFrame mask_frame, const AnalysisOptions& options)
    : stream_(stream),
      run_(run),
      intensity_(intensity),
      noise_(noise),
      mask_(mask),
      options_(options),
      mask_frame_(std::move(mask_frame)),
      table_(stream, static_cast<int>(intensity.attenuation.size())),
      variance_table_(stream, static_cast<int>(noise.variance.size())),
      valid_(to_device(stream, run.field.valid())),
      noise_weight_(to_device(stream, local_noise_weight(run, noise, mask.reference_frame).view())) {
  const int height = run.rows(), width = run.columns();
  Array<float> table = Array<float>::staging(stream, table_.size());
  std::copy(intensity.attenuation.begin(), intensity.attenuation.end(), table.begin());
  copy<float>(stream, table.view(), table_.view());
  // Frame and mask together: the mask's share is the same multiple of the frame's at every intensity.
  Array<float> variance = Array<float>::staging(stream, table_.size());
  const float factor = mask_.source == MaskSource::none ? 1 : mask_frame_.noise_factor;
  std::transform(noise.variance.begin(), noise.variance.end(), variance.begin(), [&](float v) { return std::max(v * factor, 1e-10f); });
  copy<float>(stream, variance.view(), variance_table_.view());
  if (mask_.source == MaskSource::none) {
    no_mask_ = Image<float>(stream, height, width);
    set_zero(stream, no_mask_.view());
    Image<std::uint16_t> stored(height, width);
    run.frames->read_frame(mask_.reference_frame, stored.view());
    std::vector<float> values;
    for (int y = 0; y < height; y += 2)
      for (int x = 0; x < width; x += 2)
        if (run.field.mask(y, x)) values.push_back(intensity.attenuation[stored(y, x)]);
    no_mask_offset_ = static_cast<float>(median(values));
  }
  stream.synchronize();

  // A GPU is filled by one frame; CPU cores each take their own.
  const int slots = stream.on_cuda() || !stream.schedule().parallel ? 1 : std::clamp(std::min(cpu_threads(), run.frame_count()), 1, 16);
  for (int i = 0; i < slots; ++i) {
    CpuSchedule schedule = stream.schedule();
    schedule.parallel = false;
    slots_.push_back(std::make_unique<Slot>(slots == 1 ? stream : Stream::cpu(schedule), height, width));
  }
  if (mask_.source != MaskSource::none && options.registration == Registration::rigid) {
    MaskRegistration first(stream, mask_frame_.attenuation.view(), valid_.view());
    for (std::size_t i = 1; i < slots_.size(); ++i) slots_[i]->registration.emplace(first.another(slots_[i]->stream));
    slots_[0]->registration.emplace(std::move(first));
  }
}

FrameChain::~FrameChain() = default;

VesselnessOptions FrameChain::vesselness_options(double noise_sd) const {
  VesselnessOptions options;
  options.response = options_.response;
  options.noise_sd = static_cast<float>(std::max(noise_sd, 1e-5));
  options.correlation_factor = correlation_factors(noise_.autocorrelation);
  options.noise_weight = noise_weight_.view();
  return options;
}

void FrameChain::load_and_subtract(Slot& slot, int frame, bool register_frame, const RigidMotion* motion, float offset) {
  slot.frame = frame;
  {
    const auto timed = slot.clock.measure("decode");
    run_.frames->read_frame(frame, slot.stored.view());
  }
  const double before_ms = slot.clock.work_ms();
  {
    const auto timed = slot.clock.measure("ingest");
    if (slot.stream.on_cuda()) copy<std::uint16_t>(slot.stream, slot.stored.view(), slot.stored_on_device.view());
    const ImageView<const std::uint16_t> stored = slot.stream.on_cuda() ? slot.stored_on_device.view() : slot.stored.view();
    log_attenuation(slot.stream, stored, table_.view(), slot.attenuation.view());
    if (!register_frame) log_attenuation(slot.stream, stored, variance_table_.view(), slot.variance.view());
  }
  slot.motion = motion ? *motion : RigidMotion{};
  slot.offset = mask_.source == MaskSource::none ? no_mask_offset_ : offset;
  ImageView<const float> coefficients = mask_.source == MaskSource::none ? no_mask_.view() : mask_frame_.coefficients.view();
  slot.subtraction = {};
  slot.subtraction.frame = frame;
  if (register_frame && slot.registration) {
    const auto timed = slot.clock.measure("registration");
    const RigidEstimate estimate = slot.registration->estimate(slot.stream, slot.attenuation.view());
    if (estimate.converged) slot.motion = estimate.motion;
    slot.offset = estimate.offset;
    slot.subtraction.residual_sd = estimate.residual_sd;
  }
  slot.subtraction.shift_y_px = slot.motion.shift_y_px;
  slot.subtraction.shift_x_px = slot.motion.shift_x_px;
  slot.subtraction.rotation_rad = slot.motion.rotation_rad;
  {
    const auto timed = slot.clock.measure("subtraction");
    log_subtract(slot.stream, slot.attenuation.view(), coefficients, valid_.view(), slot.motion, slot.offset, slot.subtracted.view());
  }
  slot.frame_ms = slot.clock.work_ms() - before_ms;
}

// Frames in groups of one per slot: `parallel` and `measured` run for the whole group at once, `ordered` and `finished` in frame order.
template <class Parallel, class Ordered, class Measured, class Finished>
void FrameChain::for_frames(int first, int last, Parallel parallel, Ordered ordered, Measured measured, Finished finished) {
  const int slots = static_cast<int>(slots_.size());
  const auto each = [&](int count, const std::function<void(int)>& body) {
    if (count == 1)
      body(0);
    else
      parallel_for(count, body);
  };
  for (int group = first; group <= last; group += slots) {
    const int count = std::min(slots, last - group + 1);
    each(count, [&](int i) { parallel(*slots_[i], group + i); });
    for (int i = 0; i < count; ++i) ordered(*slots_[i], group + i);
    each(count, [&](int i) { measured(*slots_[i], group + i); });
    for (int i = 0; i < count; ++i) finished(*slots_[i], group + i);
  }
}

Opacification FrameChain::opacify(int first, int last, const std::vector<int>& key_frames, AnalysisObserver* observer) {
  const int height = run_.rows(), width = run_.columns();
  Opacification result;
  const int count = last - first + 1;
  result.frames.resize(count);
  result.motions.resize(count);
  result.offsets.resize(count);

  TemporalFilterOptions filter_options;
  filter_options.minimum_gain = minimum_gain;
  TemporalFilter filter(stream_, height, width, filter_options);
  FlowStatistics statistics(stream_, height, width);
  const bool subtracting = mask_.source != MaskSource::none;
  const double frame_noise = noise_.log_sd_at_median * std::sqrt(subtracting ? mask_frame_.noise_factor : 1.0);

  for_frames(
      first, last,
      [&](Slot& slot, int frame) {
        load_and_subtract(slot, frame, true, nullptr, 0);
        const auto timed = slot.clock.measure("opacification");
        // Onto the mask: a resting background, over which the filter and the running statistics need no motion.
        const bool moved = slot.motion.shift_y_px != 0 || slot.motion.shift_x_px != 0 || slot.motion.rotation_rad != 0;
        if (moved) {
          bspline_coefficients(slot.stream, slot.subtracted.view(), slot.coefficients.view());
          warp(slot.stream, slot.coefficients.view(), inverse(slot.motion), slot.attenuation.view());
        } else {
          copy<float>(slot.stream, slot.subtracted.view(), slot.attenuation.view());
        }
      },
      [&](Slot& slot, int frame) {
        const int i = frame - first;
        {
          const auto timed = clock_.measure("temporal filter");
          filter.apply(stream_, slot.attenuation.view(), static_cast<float>(std::max(frame_noise, 1e-5)), 0, 0, slot.filtered.view());
        }
        {
          const auto timed = clock_.measure("flow statistics");
          statistics.update(stream_, slot.filtered.view(), run_.frame_times_ms.empty() ? i : run_.frame_times_ms[frame]);
        }
        if (std::find(key_frames.begin(), key_frames.end(), frame) != key_frames.end()) {
          KeyFrame key{frame, Image<float>(stream_, height, width)};
          copy<float>(stream_, slot.filtered.view(), key.image.view());
          result.key_frames.push_back(std::move(key));
        }
        slot.subtraction.contrast_score = mask_.contrast_score.empty() ? 0 : mask_.contrast_score[i];
        result.frames[i] = slot.subtraction;
        result.motions[i] = slot.motion;
        result.offsets[i] = slot.offset;
        stream_.synchronize();
        if (observer) observer->progress("subtracting", i + 1, count);
      },
      [](Slot&, int) {}, [](Slot&, int) {});

  const auto timed = clock_.measure("flow statistics");
  FlowImages images = statistics.finish(stream_, static_cast<float>(frame_noise * filtered_noise_factor()));
  result.picture = std::move(images.maximum);
  if (!subtracting && count > 1) {
    // Nothing comes and goes: the mean has less noise. Areas are in s.
    const double seconds = (run_.frame_times_ms.empty() ? count - 1 : run_.frame_times_ms[last] - run_.frame_times_ms[first]) / 1000;
    Image<float> mean = to_host(stream_, images.area.view());
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) mean(y, x) = static_cast<float>(mean(y, x) / seconds);
    result.picture = to_device(stream_, mean.view());
  }
  if (!run_.frame_times_ms.empty() && count > 1) result.time_to_peak_ms = to_host(stream_, images.time_to_peak_ms.view());
  result.noise_sd = fine_noise_sd(to_host(stream_, result.picture.view()), run_.field.mask);
  return result;
}

// The point spread is the detector's and the focal spot's: one for the run, from the fullest frame.
void FrameChain::estimate_point_spread(const Topology& topology, const Opacification& opacification, int first, LumenOptions& options) {
  int frame = topology.frame >= 0 ? topology.frame : mask_.reference_frame;
  if (topology.frame < 0 && !mask_.contrast_score.empty())
    frame =
        first + static_cast<int>(std::max_element(mask_.contrast_score.begin(), mask_.contrast_score.end()) - mask_.contrast_score.begin());
  Slot& slot = *slots_[0];
  load_and_subtract(slot, frame, false, &opacification.motions[frame - first], opacification.offsets[frame - first]);
  std::vector<Centreline> centrelines;
  for (const VesselGraph::Segment& segment : topology.graph.segments)
    centrelines.push_back(move_centreline(segment.centreline, slot.motion, run_.rows(), run_.columns()));
  LumenOptions of_this_frame = options;
  of_this_frame.variance = slot.variance.view();
  if (const auto psf = estimate_psf(slot.stream, slot.subtracted.view(), valid_.view(), centrelines, of_this_frame)) {
    options.psf_px = static_cast<float>(psf->psf_px);
    options.psf_sd_px = static_cast<float>(psf->sd_px);
  }
}

SegmentMeasurements FrameChain::measure(int first, int last, const Topology& topology, const Opacification& opacification,
                                        AnalysisObserver* observer) {
  const int height = run_.rows(), width = run_.columns(), count = last - first + 1;
  const bool subtracting = mask_.source != MaskSource::none;
  const double frame_noise = noise_.log_sd_at_median * std::sqrt(subtracting ? mask_frame_.noise_factor : 1.0);
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
  TemporalFilterOptions filter_options;
  filter_options.minimum_gain = minimum_gain;
  TemporalFilter filter(stream_, height, width, filter_options);
  VesselnessOptions vesselness = vesselness_options(frame_noise * filtered_noise_factor());
  vesselness.response_and_angle = options_.topology_every_frame;  // re-snapping asks for z and scale only
  LumenOptions lumen_options;
  lumen_options.noise_sd = static_cast<float>(frame_noise);
  lumen_options.sd_inflation = intensity_.sd_inflation;
  lumen_options.autocorrelation = noise_.autocorrelation;
  if (subtracting)
    lumen_options.common_noise_share = static_cast<float>(1 - 1 / std::max(1.0, static_cast<double>(mask_frame_.noise_factor)));
  estimate_point_spread(topology, opacification, first, lumen_options);
  RidgeSnapOptions snap_options;
  const Calibration calibration = calibrate(run_.geometry, options_.mm_per_px, options_.mm_per_px_relative_sd);
  snap_options.search_px = static_cast<float>(calibration.known() ? std::clamp(1.5 / calibration.mm_per_px, 2.0, 12.0) : 6.0);
  std::vector<LumenPoint> flat;

  for_frames(
      first, last,
      [&](Slot& slot, int frame) {
        load_and_subtract(slot, frame, false, &opacification.motions[frame - first], opacification.offsets[frame - first]);
        slot.subtraction = opacification.frames[frame - first];
      },
      [&](Slot& slot, int frame) {
        const auto timed = clock_.measure("temporal filter");
        const int i = frame - first;
        const RigidMotion &now = opacification.motions[i], &before = opacification.motions[std::max(0, i - 1)];
        filter.apply(stream_, slot.subtracted.view(), static_cast<float>(std::max(frame_noise, 1e-5)), now.shift_y_px - before.shift_y_px,
                     now.shift_x_px - before.shift_x_px, slot.filtered.view());
        stream_.synchronize();
      },
      [&](Slot& slot, int frame) {
        const double before_ms = slot.clock.work_ms();
        {
          const auto timed = slot.clock.measure("vesselness");
          slot.vesselness->compute(slot.stream, slot.filtered.view(), valid_.view(), vesselness, slot.map);
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
        {
          const auto timed = slot.clock.measure("re-snap");
          for (const VesselGraph::Segment& segment : topology.graph.segments)
            centrelines.push_back(move_centreline(segment.centreline, slot.motion, height, width));
          slot.found = snap(slot, centrelines, snap_options);
        }
        {
          const auto timed = slot.clock.measure("diameters");
          LumenOptions of_this_frame = lumen_options;
          of_this_frame.variance = slot.variance.view();
          slot.lumen = measure_frame(slot.stream, slot.subtracted.view(), valid_.view(), centrelines, of_this_frame);
          // A vessel that moved away is not measured where it used to be.
          if (topology.moving_vessels && frame != topology.frame)
            for (std::size_t s = 0; s < segments; ++s)
              if (!slot.found[s]) exclude(slot.lumen[s], Exclusion::key_frame_only);
        }
        {
          const auto timed = slot.clock.measure("flow");
          slot.stream.synchronize();
          slot.contrast.clear();
          for (const Centreline& centreline : centrelines)
            slot.contrast.push_back(sample_contrast(slot.subtracted_on_host(), run_.field.valid(), centreline, !subtracting));
        }
        slot.frame_ms += slot.clock.work_ms() - before_ms;
      },
      [&](Slot& slot, int frame) {
        flat.clear();
        for (std::size_t s = 0; s < segments; ++s) {
          flat.insert(flat.end(), slot.lumen[s].begin(), slot.lumen[s].end());
          result.lumen[s].push_back(std::move(slot.lumen[s]));
          result.contrast[s].push_back(std::move(slot.contrast[s]));
        }
        for (std::size_t r = 0; r < regions.size(); ++r)
          result.region_contrast[r].push_back(region_mean(slot.subtracted_on_host(), regions[r], slot.motion));
        frame_ms_.push_back(slot.frame_ms);
        if (!observer) return;
        const auto timed = clock_.measure("write");
        FrameResult frame_result;
        frame_result.frame = frame;
        if (!run_.frame_times_ms.empty()) frame_result.time_ms = run_.frame_times_ms[frame];
        frame_result.subtracted = slot.subtracted_on_host();
        frame_result.display = slot.filtered_on_host();
        frame_result.lumen = &flat;
        frame_result.subtraction = &slot.subtraction;
        observer->frame_done(frame_result);
        observer->progress("measuring", frame - first + 1, count);
      });
  for (const auto& slot : slots_) clock_.merge(slot->clock);
  return result;
}

}  // namespace cinelumen
