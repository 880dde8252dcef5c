#include "engine/frame_slot.h"

#include <algorithm>
#include <cmath>

#include "engine/clutter.h"
#include "engine/segment_measurement.h"
#include "kernels/bspline.h"
#include "kernels/log_subtract.h"
#include "kernels/warped_subtract.h"

namespace cinelumen {
namespace {

constexpr float minimum_gain = 0.15f;  // of the temporal filter

// A table in memory of the stream's device.
Array<float> table_on(const Stream& stream, const std::vector<float>& values) {
  Array<float> host = Array<float>::staging(stream, static_cast<int>(values.size())), table(stream, host.size());
  std::copy(values.begin(), values.end(), host.begin());
  copy<float>(stream, host.view(), table.view());
  stream.synchronize();
  return table;
}

float median_attenuation(const Run& run, const IntensityModel& intensity, int frame) {
  Image<std::uint16_t> stored(run.rows(), run.columns());
  run.frames->read_frame(frame, stored.view());
  std::vector<float> values;
  for (int y = 0; y < run.rows(); y += 2)
    for (int x = 0; x < run.columns(); x += 2)
      if (run.field.mask(y, x)) values.push_back(intensity.attenuation[stored(y, x)]);
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Between images in host memory.
void copy_or_zero(const Image<float>& from, Image<float>& to) {
  const Stream host = Stream::cpu({.parallel = false});
  if (from.empty())
    set_zero(host, to.view());
  else
    copy<float>(host, from, to);
}

}  // namespace

FrameWarp FrameSlot::copy_of_warp() const {
  if (!warping()) return {};
  const Stream host = Stream::cpu({.parallel = false});
  return {to_host(host, warp_.to_mask.view()), to_host(host, warp_.to_frame.view())};
}

FrameSetup::FrameSetup(const Stream& stream, const Run& run, const IntensityModel& intensity, const NoiseModel& noise, int reference_frame,
                       std::vector<MaskFrame> masks, Registration registration)
    : intensity_(intensity),
      noise_(noise),
      field_(to_host(Stream::cpu(), run.field.valid())),
      table_(table_on(stream, intensity.attenuation)),
      valid_(to_device(stream, run.field.valid())),
      noise_weight_(to_device(stream, local_noise_weight(run, noise, reference_frame).view())) {
  // The mask's share of the variance is the same multiple of the frame's at every intensity.
  const auto variance_with = [&](float factor) {
    std::vector<float> variance;
    for (const float v : noise.variance) variance.push_back(std::max(v * factor, 1e-10f));
    return table_on(stream, variance);
  };
  for (MaskFrame& mask : masks) {
    Array<float> variance = variance_with(mask.noise_factor);
    masks_.push_back({std::move(mask), std::move(variance), {}, {}, {}});
    Mask& made = masks_.back();
    if (registration == Registration::none) continue;
    made.registration.emplace(stream, made.frame.attenuation.view(), valid_.view());
    if (registration == Registration::rigid) continue;
    made.warp.emplace(stream, made.frame.attenuation.view(), valid_.view());
    made.bordered = bordered_coefficients(stream, made.frame.coefficients.view());
  }
  if (!subtracting()) {
    variance_table_ = variance_with(1);
    no_mask_ = Image<float>(stream, run.rows(), run.columns());
    set_zero(stream, no_mask_.view());
    no_mask_offset_ = median_attenuation(run, intensity, reference_frame);
  }
  stream.synchronize();
}

double FrameSetup::noise_factor() const {
  float factor = 1;
  for (const Mask& mask : masks_) factor = std::max(factor, mask.frame.noise_factor);
  return factor;
}

double FrameSetup::noise_sd() const { return std::max(noise_.log_sd_at_median * std::sqrt(noise_factor()), 1e-5); }

double FrameSetup::filtered_noise_sd() const {
  // What the recursive filter leaves of white noise.
  return noise_sd() * std::sqrt(minimum_gain / (2 - minimum_gain));
}

VesselnessOptions FrameSetup::vesselness_options(VesselnessResponse response, double noise_sd) const {
  VesselnessOptions options;
  options.response = response;
  options.noise_sd = static_cast<float>(std::max(noise_sd, 1e-5));
  options.correlation_factor = correlation_factors(noise_.autocorrelation);
  options.noise_weight = noise_weight_.view();
  return options;
}

LumenOptions FrameSetup::lumen_options() const {
  LumenOptions options;
  options.noise_sd = static_cast<float>(noise_sd());
  options.sd_inflation = intensity_.sd_inflation;
  options.densitometric = intensity_.densitometric && subtracting();
  options.autocorrelation = noise_.autocorrelation;
  if (subtracting()) options.common_noise_share = static_cast<float>(1 - 1 / noise_factor());
  return options;
}

TemporalFilter make_temporal_filter(const Stream& stream, const FrameSetup& setup, int places) {
  TemporalFilterOptions options;
  options.minimum_gain = minimum_gain;
  return TemporalFilter(stream, setup.height(), setup.width(), static_cast<float>(setup.noise_sd()), options, places);
}

MeasureSettings measure_settings(const FrameSetup& setup, VesselnessResponse response, const Calibration& calibration) {
  MeasureSettings settings;
  settings.vesselness = setup.vesselness_options(response, setup.filtered_noise_sd());
  settings.vesselness.planes = VesselnessPlanes::ridge_and_scale;
  settings.snap.search_px = static_cast<float>(calibration.known() ? std::clamp(1.5 / calibration.mm_per_px, 2.0, 12.0) : 6.0);
  settings.lumen = setup.lumen_options();
  return settings;
}

SegmentFollower make_segment_follower(const Stream& stream, const FrameSetup& setup, const Topology& topology,
                                      const MeasureSettings& settings) {
  std::vector<Centreline> centrelines;
  for (const VesselGraph::Segment& segment : topology.graph.segments) centrelines.push_back(segment.centreline);
  return SegmentFollower(stream, centrelines, settings.snap, settings.lumen, !setup.subtracting());
}

FrameSlot::FrameSlot(const Stream& stream, const FrameSetup& setup)
    : stream_(stream),
      beside_(stream.another()),
      setup_(setup),
      arrived_(stream),
      forked_(stream),
      copied_(stream),
      done_(stream),
      stored_(Image<std::uint16_t>::staging(stream, setup.height(), setup.width())),
      subtracted_(stream, setup.height(), setup.width()),
      numbers_(stream, 1),
      numbers_host_(Array<Numbers>::staging(stream, 1)),
      estimate_(stream, 1),
      estimate_host_(Array<RigidEstimate>::staging(stream, 1)) {
  if (stream.on_cuda()) {
    stored_on_device_ = Image<std::uint16_t>(stream, setup.height(), setup.width());
    host_subtracted_ = Image<float>::staging(stream, setup.height(), setup.width());
    host_filtered_ = Image<float>::staging(stream, setup.height(), setup.width());
  }
  numbers_host_[0] = {};
  for (const FrameSetup::Mask& mask : setup.masks_) {
    if (mask.registration) registrations_.push_back(mask.registration->another(stream));
    if (mask.warp) warps_.push_back(mask.warp->another(stream));
  }
  if (warping()) {
    for (Image<float>* field : {&to_mask_, &to_frame_}) *field = make_displacement_field(stream, setup.height(), setup.width());
    for (Image<float>* field : {&warp_.to_mask, &warp_.to_frame}) {
      *field = Image<float>::staging(stream, to_mask_.height(), to_mask_.width());
      copy_or_zero({}, *field);
    }
    difference_ = Image<float>(stream, setup.height(), setup.width());
    warp_estimate_ = Array<WarpEstimate>(stream, 1);
    warp_estimate_host_ = Array<WarpEstimate>::staging(stream, 1);
  }
  stream.synchronize();  // the copies' stream may use what was allocated
}

FrameSlot::~FrameSlot() {
  try {
    done_.wait();
    beside_.synchronize();
    stream_.synchronize();
  } catch (const DeviceError&) {  // told by the call that failed first
  }
}

StoredFrame FrameSlot::stored_frame() const {
  return {stream_.on_cuda() ? stored_on_device_.view() : stored_.view(), setup_.table_.view()};
}

void FrameSlot::ingest(int frame, int mask) {
  frame_ = frame;
  mask_ = mask;
  clock_.set_frame(frame);
  FrameSubtraction subtraction;
  subtraction.frame = frame;
  place(subtraction, {}, 0);
  if (!stream_.on_cuda()) return;
  const auto timed = clock_.measure("ingest");
  copy<std::uint16_t>(beside_, stored_.view(), stored_on_device_.view());
  arrived_.record(beside_);
  arrived_.hold(stream_);
}

void FrameSlot::place(const FrameSubtraction& subtraction, const RigidMotion& motion, float offset, const FrameWarp& warp) {
  if (warping()) {
    copy_or_zero(warp.to_mask, warp_.to_mask);
    copy_or_zero(warp.to_frame, warp_.to_frame);
  }
  set_place(subtraction, motion, offset);
}

void FrameSlot::set_place(const FrameSubtraction& subtraction, const RigidMotion& motion, float offset) {
  subtraction_ = subtraction;
  motion_ = motion;
  offset_ = setup_.subtracting() ? offset : setup_.no_mask_offset_;
  numbers_host_[0].placement = {motion_, offset_};
}

void FrameSlot::send_numbers() {
  copy<Numbers>(stream_, numbers_host_.view(), numbers_.view());
  if (!warping()) return;
  copy<float>(stream_, warp_.to_mask.view(), to_mask_.view());
  copy<float>(stream_, warp_.to_frame.view(), to_frame_.view());
}

void FrameSlot::find_motion() {
  if (registrations_.empty()) return;
  const auto timed = clock_.measure("registration");
  registrations_[mask_].enqueue(stream_, stored_frame(), estimate_.view(), placement());
  copy<RigidEstimate>(stream_, estimate_.view(), estimate_host_.view());
  if (!warping()) return;
  warps_[mask_].enqueue(stream_, stored_frame(), placement(), to_mask_.view(), to_frame_.view(), warp_estimate_.view());
  copy<WarpEstimate>(stream_, warp_estimate_.view(), warp_estimate_host_.view());
  copy<float>(stream_, to_mask_.view(), warp_.to_mask.view());
  copy<float>(stream_, to_frame_.view(), warp_.to_frame.view());
}

bool FrameSlot::take_motion() {
  if (registrations_.empty()) return true;
  const RigidEstimate& estimate = estimate_host_[0];
  FrameSubtraction subtraction;
  subtraction.frame = frame_;
  subtraction.residual_sd = estimate.residual_sd;
  if (estimate.converged) {
    subtraction.shift_y_px = estimate.motion.shift_y_px;
    subtraction.shift_x_px = estimate.motion.shift_x_px;
    subtraction.rotation_rad = estimate.motion.rotation_rad;
  }
  if (warping()) {
    const WarpEstimate& warp = warp_estimate_host_[0];
    subtraction.displacement_rms_px = warp.folded ? 0 : warp.rms_px;
    subtraction.displacement_largest_px = warp.folded ? 0 : warp.largest_px;
    subtraction.residual_motion_px = warp.residual_px;
    subtraction.field_refused = warp.folded != 0;
  }
  set_place(subtraction, estimate.converged ? estimate.motion : RigidMotion{}, estimate.offset);
  return estimate.converged;
}

bool FrameSlot::register_mask() {
  send_numbers();
  find_motion();
  stream_.synchronize();
  return take_motion();
}

ImageView<const float> FrameSlot::mask_coefficients() const {
  return setup_.subtracting() ? setup_.masks_[mask_].frame.coefficients.view() : setup_.no_mask_.view();
}

void FrameSlot::subtract() {
  const auto timed = clock_.measure("subtraction");
  if (warping())
    subtract_warped(subtracted_.view());
  else
    log_subtract(stream_, stored_frame(), mask_coefficients(), setup_.valid(), placement(), subtracted_.view());
}

void FrameSlot::subtract_onto_mask() {
  const auto timed = clock_.measure("opacification");
  if (warping()) {
    subtract_warped(difference_.view());
    carry_onto_mask(stream_, difference_.view(), placement(), to_frame_.view(), subtracted_.view());
    return;
  }
  log_subtract_onto_mask(stream_, stored_frame(), mask_coefficients(), setup_.valid(), placement(), subtracted_.view());
}

void FrameSlot::subtract_warped(ImageView<float> subtracted) {
  log_subtract_warped(stream_, stored_frame(), setup_.masks_[mask_].bordered.view(), setup_.valid(), placement(), to_mask_.view(),
                      subtracted);
}

void FrameSlot::filter(TemporalFilter& filter, int place) {
  const auto timed = clock_.measure("temporal filter");
  filtered_ = filter.step(stream_, place, subtracted_.view(), placement());
}

void FrameSlot::filter(TemporalFilter& filter, int place, FlowStatistics& statistics) {
  const auto timed = clock_.measure("temporal filter and flow statistics");
  filtered_ = filter.step(stream_, place, subtracted_.view(), statistics, time());
}

void FrameSlot::pass_unfiltered(TemporalFilter& filter, int place) {
  const auto timed = clock_.measure("temporal filter");
  filter.skip(stream_, place);
  filtered_ = subtracted_.view();
}

void FrameSlot::follow(const SegmentFollower& follower, const MeasureSettings& settings) {
  follower_.emplace(follower.another(stream_));
  lumen_options_ = settings.lumen;
  if (!vesselness_) vesselness_.emplace(stream_, setup_.valid());
  map_ = make_vesselness_map(stream_, setup_.height(), setup_.width(), settings.vesselness.planes);
  wanted_ = Image<std::int32_t>(stream_, squares_along(setup_.height()), squares_along(setup_.width()));
  stream_.synchronize();
}

StoredFrame FrameSlot::variance() const {
  return {stored_frame().stored, setup_.subtracting() ? setup_.masks_[mask_].variance_table.view() : setup_.variance_table_.view()};
}

std::vector<Centreline> FrameSlot::centrelines_of(const Topology& topology) const {
  std::vector<Centreline> centrelines;
  for (const VesselGraph::Segment& segment : topology.graph.segments)
    centrelines.push_back(move_centreline(segment.centreline, motion_, setup_.height(), setup_.width(), warp_));
  return centrelines;
}

void FrameSlot::find_and_measure(const MeasureSettings& settings) {
  {
    const auto timed = clock_.measure("vesselness");
    VesselnessOptions options = settings.vesselness;
    follower_->enqueue_place(stream_, placement(), setup_.height(), setup_.width(), wanted_.view(), to_frame_.view());
    if (!settings.trace_every_frame) options.wanted = wanted_.view();
    vesselness_->compute(stream_, filtered_, options, map_);
  }
  // Pictures leave while the vessels are measured.
  forked_.record(stream_);
  forked_.hold(beside_);
  copy_to_host(beside_);
  copied_.record(beside_);
  {
    const auto timed = clock_.measure("re-snap");
    follower_->enqueue_snap(stream_, map_);
  }
  {
    const auto timed = clock_.measure("diameters");
    follower_->enqueue_diameters(stream_, subtracted_.view(), variance(), setup_.valid());
  }
  const auto timed = clock_.measure("flow");
  follower_->enqueue_contrast(stream_, subtracted_.view(), setup_.valid());
  copied_.hold(stream_);
}

void FrameSlot::take_measurements(const Topology& topology) {
  const auto timed = clock_.measure("flow");
  lumen_ = follower_->lumen();
  contrast_ = follower_->contrast();
  for (std::vector<LumenPoint>& points : lumen_)
    apply_rule(lumen_options_.rule, subtracted_on_host(), lumen_options_.psf_px, lumen_options_.rows, points);
  // A vessel that moved away is not measured where it used to be.
  if (topology.moving_vessels && frame_ != topology.frame)
    for (std::size_t s = 0; s < lumen_.size(); ++s)
      if (!follower_->found(static_cast<int>(s))) exclude(lumen_[s], Exclusion::key_frame_only);
}

void FrameSlot::measure(const Topology& topology, const MeasureSettings& settings) {
  find_and_measure(settings);
  stream_.synchronize();
  take_measurements(topology);
}

void FrameSlot::trace() {
  const auto timed = clock_.measure("topology in every frame");
  if (!tracer_) tracer_.emplace(stream_, setup_.height(), setup_.width());
  (void)tracer_->trace(stream_, filtered_, map_, setup_.valid(), {.quick = true});
}

void FrameSlot::record(int name, int mask, const std::function<void()>& work) {
  mask_ = mask;
  Recording recording(stream_, work);
  recordings_[name] = {std::move(recording), filtered_};
}

void FrameSlot::launch(const Stream& stream, int name) {
  const auto timed = clock_.measure("launch");
  const Recorded& recorded = recordings_.at(name);
  arrived_.hold(stream);
  recorded.recording.launch(stream);
  done_.record(stream);
  filtered_ = recorded.filtered;
}

void FrameSlot::wait() {
  const auto timed = clock_.measure("device");
  done_.wait();
}

void FrameSlot::estimate_point_spread(const Topology& topology, LumenOptions& options) {
  LumenOptions of_this_frame = options;
  of_this_frame.variance = variance();
  if (const auto psf = estimate_psf(stream_, subtracted_.view(), setup_.valid(), centrelines_of(topology), of_this_frame)) {
    options.psf_px = static_cast<float>(psf->psf_px);
    options.psf_sd_px = static_cast<float>(psf->sd_px);
  }
}

void FrameSlot::copy_to_host() { copy_to_host(stream_); }

void FrameSlot::copy_to_host(const Stream& stream) {
  if (!stream_.on_cuda()) return;
  copy<float>(stream, subtracted_.view(), host_subtracted_.view());
  copy<float>(stream, filtered_, host_filtered_);
}

}  // namespace cinelumen
