#include "engine/frame_chain.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/flow_statistics.h"
#include "kernels/log_subtract.h"

namespace cinelumen {
namespace {

constexpr float unknown = std::numeric_limits<float>::quiet_NaN();
constexpr int most_slots = 16;

// Mean over a polygon's pixels, moved with the background. At most a few thousand samples: enough for a mean, quick for any size.
float region_mean(ImageView<const float> subtracted, const std::vector<std::array<int, 2>>& pixels, const RigidMotion& motion,
                  const FrameWarp& warp) {
  double sum = 0;
  int count = 0;
  const std::size_t step = pixels.size() / 4000 + 1;
  for (std::size_t i = 0; i < pixels.size(); i += step) {
    const PixelPosition to = place_in_frame(motion, warp, {static_cast<double>(pixels[i][0]), static_cast<double>(pixels[i][1])},
                                            subtracted.height, subtracted.width);
    const int y = static_cast<int>(std::lround(to.y)), x = static_cast<int>(std::lround(to.x));
    if (y < 0 || x < 0 || y >= subtracted.height || x >= subtracted.width) continue;
    sum += subtracted(y, x);
    ++count;
  }
  return count ? static_cast<float>(sum / count) : unknown;
}

// Takes vessels out, wider than they look: their blur, and what registration leaves.
void take_out_vessels(std::vector<std::array<int, 2>>& pixels, const VesselGraph& graph, int height, int width) {
  constexpr float wider = 1.25f, rim_px = 3;
  Image<std::uint8_t> vessel(height, width);
  set_zero(Stream::cpu({.parallel = false}), vessel.view());
  for (const VesselGraph::Segment& segment : graph.segments)
    for (const CentrelinePoint& point : segment.centreline.points) {
      const float radius = wider * point.radius_px + rim_px;
      for (int y = std::max(0, static_cast<int>(point.y - radius)); y <= std::min(height - 1, static_cast<int>(point.y + radius)); ++y)
        for (int x = std::max(0, static_cast<int>(point.x - radius)); x <= std::min(width - 1, static_cast<int>(point.x + radius)); ++x)
          if (std::hypot(static_cast<float>(y) - point.y, static_cast<float>(x) - point.x) <= radius) vessel(y, x) = 1;
    }
  std::erase_if(pixels, [&](const std::array<int, 2>& p) { return vessel(p[0], p[1]) != 0; });
}

}  // namespace

std::vector<bool> frames_of_picture(const std::vector<double>& frame_times_ms, int first, int last, int least) {
  const std::size_t count = static_cast<std::size_t>(last - first + 1);
  if (frame_times_ms.empty()) return std::vector<bool>(count, true);
  std::vector<bool> taken(count, false);
  double before = -std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < count; ++i) {
    const double now = frame_times_ms[static_cast<std::size_t>(first) + i];
    taken[i] = now - before >= picture_interval_ms;
    if (taken[i]) before = now;
  }
  if (std::count(taken.begin(), taken.end(), true) < least) taken.assign(count, true);
  return taken;
}

FrameChain::FrameChain(const Stream& stream, const Run& run, const IntensityModel& intensity, const NoiseModel& noise,
                       const MaskChoice& choice, std::vector<MaskFrame> masks, const Scene& scene, const AnalysisOptions& options)
    : stream_(stream),
      run_(run),
      intensity_(intensity),
      choice_(choice),
      scene_(scene),
      options_(options),
      setup_(stream, run, intensity, noise, choice.reference_frame, std::move(masks), options.registration),
      frame_ms_(static_cast<std::size_t>(scene.last - scene.first + 1), 0.0) {
  // A GPU is filled by one frame: others are on their way there and back. CPU cores each take their own, and one waits where another is
  // filtered or written in its turn.
  constexpr int slots_on_cuda = 4;
  const bool parallel = stream.schedule().parallel;
  const int busy = stream.on_cuda() ? slots_on_cuda : parallel ? cpu_threads() : 1;
  // A recording is of one place of the filter's ring, which has two at least.
  const int wanted = options.frames_in_flight > 0 ? options.frames_in_flight : busy, least = stream.on_cuda() ? 2 : 1;
  const int slots = std::clamp(std::min(wanted, run.frame_count()), least, most_slots);
  for (int i = 0; i < slots; ++i) {
    CpuSchedule schedule = stream.schedule();
    schedule.parallel = false;
    const Stream own = stream.on_cuda() ? stream.another() : parallel ? Stream::cpu(schedule) : stream;
    slots_.push_back(std::make_unique<FrameSlot>(own, setup_));
  }
}

// A frame's result is made over when as many have followed as there are places: its slot has been left by then. On CUDA each slot has its
// own place, so that what is recorded for it stays true.
TemporalFilter FrameChain::make_filter() const {
  return make_temporal_filter(stream_, setup_, std::max(2, static_cast<int>(slots_.size())));
}

// The turn of every frame of the scene in a filter that is shown those that are `taken`.
std::vector<FrameChain::Turn> FrameChain::turns(const TemporalFilter& filter, const std::vector<bool>& taken) const {
  std::vector<Turn> result(static_cast<std::size_t>(frame_count()));
  int place = 0;
  for (int i = 0; i < frame_count(); ++i) {
    if (!taken[i]) continue;
    result[i] = {is_odd(i) ? Filtering::passed_by : Filtering::filtered, place};
    place = filter.place_after(place);
  }
  return result;
}

int FrameChain::recording_of(int i, const Turn& turn) const {
  constexpr int kinds = 3;
  return (mask_of(i) * kinds + static_cast<int>(turn.filtering)) * most_slots + turn.place;
}

// Records on CUDA what `work` does to a frame, in every slot for each kind of frame that comes there.
void FrameChain::record(const std::vector<Turn>& turns, const std::function<void(FrameSlot&, int)>& work) {
  for (const auto& slot : slots_) slot->forget_recordings();
  if (!stream_.on_cuda()) return;
  const auto timed = clock_.measure("recording");
  for (int i = 0; i < frame_count(); ++i) {
    FrameSlot& slot = *slots_[i % slots_.size()];
    const int name = recording_of(i, turns[i]);
    if (!slot.recorded(name)) slot.record(name, mask_of(i), [&] { work(slot, i); });
  }
}

void FrameChain::load(FrameSlot& slot, int i) {
  slot.clock().set_frame(scene_.first + i);
  {
    const auto timed = slot.clock().measure("decode");
    run_.frames->read_frame(scene_.first + i, slot.stored());
  }
  slot.ingest(scene_.first + i, mask_of(i));
}

// Adds what the slot's frame has cost in this pass to the run's account.
void FrameChain::take_times(FrameSlot& slot) {
  frame_ms_[slot.frame() - scene_.first] += slot.clock().work_ms();
  clock_.merge(slot.clock());
  slot.clock() = {};
}

Opacification FrameChain::opacify(const std::vector<bool>& of_picture, const std::vector<int>& key_frames, const std::vector<int>& course,
                                  AnalysisObserver* observer) {
  const int height = run_.rows(), width = run_.columns(), count = scene_.last - scene_.first + 1;
  Opacification result;
  result.frames.resize(count);
  result.motions.resize(count);
  result.warps.resize(count);
  result.offsets.resize(count);
  // In the mask's coordinates the background rests: the filter and the running statistics need no motion.
  TemporalFilter filter = make_filter();
  FlowStatistics statistics(stream_, height, width, {.area = !setup_.subtracting(), .mean_time = false});
  for (const int key : key_frames) result.key_frames.push_back({key, Image<float>(stream_, height, width)});
  for (const int frame : course) result.course.push_back({frame, Image<float>(stream_, height, width)});
  const std::vector<Turn> turn = turns(filter, of_picture);
  std::vector<FlowTime> counted(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i)
    if (turn[i].filtering == Filtering::filtered)
      counted[i] = statistics.next_frame(run_.frame_times_ms.empty() ? i : run_.frame_times_ms[scene_.first + i]);
  std::size_t keys_taken = 0, course_taken = 0;

  const auto register_and_subtract = [&](FrameSlot& slot, int i) {
    slot.send_numbers();
    slot.find_motion();
    if (turn[i].filtering != Filtering::none) slot.subtract_onto_mask();
  };
  const auto filter_in_time = [&](FrameSlot& slot, int i) {
    if (turn[i].filtering == Filtering::filtered) slot.filter(filter, turn[i].place, statistics);
    if (turn[i].filtering == Filtering::passed_by) slot.pass_unfiltered(filter, turn[i].place);
  };
  record(turn, [&](FrameSlot& slot, int i) {
    register_and_subtract(slot, i);
    filter_in_time(slot, i);
  });

  const bool recorded = stream_.on_cuda();
  const auto begin = [&](int i, int place) {
    FrameSlot& slot = *slots_[place];
    load(slot, i);
    slot.set_time(counted[i]);
    if (!recorded) register_and_subtract(slot, i);
  };
  const auto go_on_in_order = [&](int i, int place) {
    FrameSlot& slot = *slots_[place];
    if (recorded)
      slot.launch(stream_, recording_of(i, turn[i]));
    else
      filter_in_time(slot, i);
    const auto keep = [&](std::vector<KeyFrame>& frames, std::size_t& taken) {
      if (taken < frames.size() && frames[taken].frame == slot.frame()) copy<float>(stream_, slot.filtered(), frames[taken++].image.view());
    };
    keep(result.key_frames, keys_taken);
    keep(result.course, course_taken);
  };
  const auto gather = [&](int i, int place) {
    FrameSlot& slot = *slots_[place];
    slot.wait();
    slot.take_motion();
    result.frames[i] = slot.subtraction();
    result.frames[i].contrast_score = choice_.contrast_score.empty() ? 0 : choice_.contrast_score[i];
    result.motions[i] = slot.motion();
    result.warps[i] = slot.copy_of_warp();
    result.offsets[i] = slot.offset();
    take_times(slot);
    if (observer) observer->progress("subtracting", i + 1, count);
  };
  pipeline(count, static_cast<int>(slots_.size()), {{false, begin}, {true, go_on_in_order}, {true, gather}});

  const auto timed = clock_.measure("flow statistics");
  FlowImages images = statistics.finish(stream_, static_cast<float>(setup_.filtered_noise_sd()));
  result.picture = std::move(images.maximum);
  if (!setup_.subtracting() && statistics.frame_count() > 1) {
    // Nothing comes and goes: the mean has less noise. Areas are in s.
    const double seconds = statistics.duration_ms() / 1000;
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
MeasureSettings FrameChain::settings_for(const Topology& topology, const Opacification& opacification, const Calibration& calibration) {
  MeasureSettings settings = measure_settings(setup_, options_.response, calibration);
  settings.lumen.rule = options_.diameter;
  settings.trace_every_frame = options_.topology_every_frame;
  if (settings.trace_every_frame) settings.vesselness.planes = VesselnessPlanes::all;
  const auto timed = clock_.measure("point spread");
  const std::vector<double>& score = choice_.contrast_score;
  int i = (topology.frame >= 0 ? topology.frame : std::clamp(choice_.reference_frame, scene_.first, scene_.last)) - scene_.first;
  if (topology.frame < 0 && !score.empty()) i = static_cast<int>(std::max_element(score.begin(), score.end()) - score.begin());
  FrameSlot& slot = *slots_[0];
  load(slot, i);
  slot.place(opacification.frames[i], opacification.motions[i], opacification.offsets[i], opacification.warps[i]);
  slot.send_numbers();
  slot.subtract();
  slot.estimate_point_spread(topology, settings.lumen);
  slot.clock() = {};  // timed as a whole
  return settings;
}

// The subtracted frame as the file's Mask Module wants it shown (see shown_mask_for): host memory.
Image<float> FrameChain::shown_otherwise(FrameSlot& slot, const FrameMask& asked, const Opacification& opacification) {
  const auto timed = slot.clock().measure("shown otherwise");
  std::vector<int> averaged;
  for (int i = 0; i < asked.contrast_frame_averaging && slot.frame() + i < run_.frame_count(); ++i) averaged.push_back(slot.frame() + i);
  const MaskFrame contrast = average_mask_frames(slot.stream(), run_, intensity_, {averaged, {}});
  RigidMotion motion = slot.motion();
  float offset = slot.offset();
  std::optional<MaskFrame> other;
  if (asked.operation != MaskInstruction::Operation::average_subtraction) {
    // Both frames' places relative to the mask are known: so is one's to the other.
    other = average_mask_frames(slot.stream(), run_, intensity_, {asked.frames, asked.sub_pixel_shift});
    const int i = std::clamp(asked.frames.front(), scene_.first, scene_.last) - scene_.first;
    motion = compose(motion, inverse(opacification.motions[i]));
    offset -= opacification.offsets[i];
  }
  Image<float> difference(slot.stream(), run_.rows(), run_.columns());
  log_subtract(slot.stream(), contrast.attenuation.view(), other ? other->coefficients.view() : slot.mask_coefficients(), setup_.valid(),
               FramePlacement{motion, offset}, difference.view());
  return to_host<const float>(slot.stream(), difference.view());
}

SegmentMeasurements FrameChain::measure(const Topology& topology, const Opacification& opacification, const Calibration& calibration,
                                        AnalysisObserver* observer) {
  const int height = run_.rows(), width = run_.columns(), count = scene_.last - scene_.first + 1;
  const MeasureSettings settings = settings_for(topology, opacification, calibration);
  const SegmentFollower follower = make_segment_follower(slots_[0]->stream(), setup_, topology, settings);
  for (const auto& slot : slots_) slot->follow(follower, settings);
  std::vector<std::vector<std::array<int, 2>>> regions;
  for (const NamedRegion& region : options_.regions) {
    regions.push_back(pixels_in(region, height, width));
    if (region.is_tissue()) take_out_vessels(regions.back(), topology.graph, height, width);
  }
  const std::size_t segments = topology.graph.segments.size();
  SegmentMeasurements result;
  result.lumen.resize(segments);
  result.contrast.resize(segments);
  result.region_contrast.resize(regions.size());
  result.psf_px = settings.lumen.psf_px;
  result.contrast_sd = setup_.noise_sd() / std::sqrt(2.0);  // three samples 0.7 px apart are worth about two
  TemporalFilter filter = make_filter();

  const auto subtract = [&](FrameSlot& slot) {
    slot.send_numbers();
    slot.subtract();
  };
  const std::vector<Turn> turn = turns(filter, std::vector<bool>(static_cast<std::size_t>(count), true));
  const auto filter_in_time = [&](FrameSlot& slot, int i) {
    if (turn[i].filtering == Filtering::filtered)
      slot.filter(filter, turn[i].place);
    else
      slot.pass_unfiltered(filter, turn[i].place);
  };
  record(turn, [&](FrameSlot& slot, int i) {
    subtract(slot);
    filter_in_time(slot, i);
    slot.find_and_measure(settings);
  });

  const bool recorded = stream_.on_cuda();
  const auto begin = [&](int i, int place) {
    FrameSlot& slot = *slots_[place];
    load(slot, i);
    slot.place(opacification.frames[i], opacification.motions[i], opacification.offsets[i], opacification.warps[i]);
    if (!recorded) subtract(slot);
  };
  const auto go_on_in_order = [&](int i, int place) {
    if (recorded)
      slots_[place]->launch(stream_, recording_of(i, turn[i]));
    else
      filter_in_time(*slots_[place], i);
  };
  struct Result {
    FrameResult frame;
    std::vector<LumenPoint> lumen;
    Image<float> shown;
  };
  std::vector<Result> results(slots_.size());
  const auto find_and_measure = [&](int, int place) {
    FrameSlot& slot = *slots_[place];
    if (!recorded) slot.find_and_measure(settings);
    slot.wait();
    if (settings.trace_every_frame) slot.trace();
    slot.take_measurements(topology);
    if (scene_.is_odd(slot.frame())) {
      for (std::vector<LumenPoint>& points : slot.lumen()) exclude(points, Exclusion::motion);
      for (std::vector<float>& contrast : slot.contrast()) std::fill(contrast.begin(), contrast.end(), unknown);
    }
    if (!observer) return;
    Result& now = results[place];
    now.lumen.clear();
    for (const std::vector<LumenPoint>& points : slot.lumen()) now.lumen.insert(now.lumen.end(), points.begin(), points.end());
    now.frame = {};
    now.frame.frame = slot.frame();
    if (!run_.frame_times_ms.empty()) now.frame.time_ms = run_.frame_times_ms[slot.frame()];
    const std::optional<FrameMask> asked = shown_mask_for(choice_, slot.frame(), run_.frame_count());
    if (asked) now.shown = shown_otherwise(slot, *asked, opacification);
    now.frame.subtracted = asked ? now.shown.view() : slot.subtracted_on_host();
    now.frame.display = slot.filtered_on_host();
    now.frame.lumen = &now.lumen;
    now.frame.subtraction = &slot.subtraction();
    now.frame.warp = &slot.warp();
    const auto timed = slot.clock().measure("write");
    now.frame.prepared = observer->prepare(now.frame);
  };
  const auto hand_over = [&](int i, int place) {
    FrameSlot& slot = *slots_[place];
    for (std::size_t s = 0; s < segments; ++s) {
      result.lumen[s].push_back(std::move(slot.lumen()[s]));
      result.contrast[s].push_back(std::move(slot.contrast()[s]));
    }
    for (std::size_t r = 0; r < regions.size(); ++r)
      result.region_contrast[r].push_back(
          scene_.is_odd(slot.frame()) ? unknown : region_mean(slot.subtracted_on_host(), regions[r], slot.motion(), slot.warp()));
    if (observer) {
      const auto timed = slot.clock().measure("write");
      observer->frame_done(results[place].frame);
      results[place].frame.prepared.reset();
      observer->progress("measuring", i + 1, count);
    }
    take_times(slot);
  };
  pipeline(count, static_cast<int>(slots_.size()), {{false, begin}, {true, go_on_in_order}, {false, find_and_measure}, {true, hand_over}});
  return result;
}

}  // namespace cinelumen
