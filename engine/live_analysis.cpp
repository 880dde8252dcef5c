#include "engine/live_analysis.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "engine/findings.h"
#include "engine/flow.h"
#include "engine/frame_chain.h"
#include "engine/median.h"
#include "engine/segment_measurement.h"

namespace cinelumen {
namespace {

constexpr std::size_t key_frame_count = 3;
constexpr int key_frame_step = 5;      // resting frames
constexpr std::size_t most_kept = 64;  // measured frames per segment, spread evenly over all
constexpr int scene_check_frames = 15;
constexpr double unusual_residual = 1.5;  // times what registration leaves in the frames before
constexpr float same_vessel_px = 3;
constexpr double settled_share = 0.03;  // of the vessels' length: by less than that they have not changed
constexpr int most_renew_gaps = 8;
constexpr double renew_ms = 500;
constexpr double fewest_renew_frames = 2, most_renew_frames = 15;
constexpr const char* background_row = "mask and vessels";  // of the trace

/// Frames that have been gathered, as a run's.
class GatheredFrames : public FrameSource {
 public:
  GatheredFrames(std::vector<Image<std::uint16_t>> frames) : frames_(std::move(frames)) {}
  int frame_count() const override { return static_cast<int>(frames_.size()); }
  int rows() const override { return frames_.front().height(); }
  int columns() const override { return frames_.front().width(); }
  void read_frame(int frame, ImageView<std::uint16_t> stored) const override {
    copy<std::uint16_t>(Stream::cpu({.parallel = false}), frames_[static_cast<std::size_t>(frame)].view(), stored);
  }

 private:
  std::vector<Image<std::uint16_t>> frames_;
};

Image<std::uint16_t> copy_of(ImageView<const std::uint16_t> stored) { return to_host(Stream::cpu({.parallel = false}), stored); }

// What works beside the frames: another queue on the same device, one core of a CPU.
Stream background_of(const Stream& stream) {
  return stream.on_cuda() ? Stream::cuda(stream.cuda_device()) : Stream::cpu({.parallel = false});
}

// Runs on a thread of its own, alone on it, and where the frames leave a core free.
template <class Work>
auto in_background(Work work) {
  return std::async(std::launch::async, [work = std::move(work)]() mutable {
    constexpr int patience = 19;             // the most there is: at less, frames in work waited for it by milliseconds
    setpriority(PRIO_PROCESS, 0, patience);  // on Linux: of this thread
    Trace::name_thread(background_row);
    decltype(work()) result;
    run_alone([&] { result = work(); });
    return result;
  });
}

// How many frames that takes, by the median step between them.
int frames_of(double ms, const std::vector<double>& times_ms) {
  std::vector<double> steps;
  for (std::size_t i = 1; i < times_ms.size(); ++i) steps.push_back(times_ms[i] - times_ms[i - 1]);
  return static_cast<int>(std::clamp(std::round(ms / middle_of(steps)), fewest_renew_frames, most_renew_frames));
}

// Points of centrelines by place: the nearest within same_vessel_px.
class NearestPoint {
 public:
  explicit NearestPoint(const std::vector<VesselGraph::Segment>& segments) : segments_(segments) {
    for (const VesselGraph::Segment& segment : segments)
      for (const CentrelinePoint& point : segment.centreline.points) {
        rows_ = std::max(rows_, cell(point.y) + 1);
        columns_ = std::max(columns_, cell(point.x) + 1);
      }
    starts_.assign(static_cast<std::size_t>(rows_) * columns_ + 1, 0);
    for_each_point([&](std::size_t at, const Entry&) { ++starts_[at + 1]; });
    for (std::size_t i = 1; i < starts_.size(); ++i) starts_[i] += starts_[i - 1];
    entries_.resize(static_cast<std::size_t>(starts_.back()));
    std::vector<int> next(starts_.begin(), starts_.end() - 1);
    for_each_point([&](std::size_t at, const Entry& entry) { entries_[static_cast<std::size_t>(next[at]++)] = entry; });
  }
  /// Segment and point, {-1, -1}: none. The first of equals.
  std::array<int, 2> to(const CentrelinePoint& point) const {
    float least = same_vessel_px * same_vessel_px;
    Entry best = {-1, -1};
    for (int row = std::max(0, cell(point.y) - 1); row <= std::min(rows_ - 1, cell(point.y) + 1); ++row)
      for (int column = std::max(0, cell(point.x) - 1); column <= std::min(columns_ - 1, cell(point.x) + 1); ++column) {
        const std::size_t at = static_cast<std::size_t>(row) * columns_ + column;
        for (int i = starts_[at]; i < starts_[at + 1]; ++i) {
          const Entry& entry = entries_[static_cast<std::size_t>(i)];
          const CentrelinePoint& other = segments_[entry[0]].centreline.points[entry[1]];
          const float dy = other.y - point.y, dx = other.x - point.x, square = dy * dy + dx * dx;
          if (square < least || (square == least && best[0] >= 0 && entry < best)) {
            least = square;
            best = entry;
          }
        }
      }
    return best;
  }

 private:
  using Entry = std::array<int, 2>;
  static int cell(float position) { return std::max(0, static_cast<int>(position / same_vessel_px)); }
  template <class Visit>
  void for_each_point(Visit visit) const {
    for (int s = 0; s < static_cast<int>(segments_.size()); ++s)
      for (int i = 0; i < static_cast<int>(segments_[s].centreline.points.size()); ++i) {
        const CentrelinePoint& point = segments_[s].centreline.points[i];
        visit(static_cast<std::size_t>(cell(point.y)) * columns_ + cell(point.x), Entry{s, i});
      }
  }
  const std::vector<VesselGraph::Segment>& segments_;
  int rows_ = 0, columns_ = 0;
  std::vector<int> starts_;  // per cell: its first entry
  std::vector<Entry> entries_;
};

// Median diameter along a segment. Neighbouring points share pixels: about every second one is news.
// One point per centreline point: those that a frame lacks were not measured.
std::vector<LumenPoint> along(const Centreline& centreline, const std::vector<LumenPoint>& points) {
  std::vector<LumenPoint> all(centreline.points.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].point = static_cast<int>(i);
    all[i].arc_length_px = centreline.points[i].arc_length_px;
  }
  for (const LumenPoint& point : points) {
    LumenPoint& to = all[static_cast<std::size_t>(point.point)];
    const float arc_length_px = to.arc_length_px;
    to = point;
    to.arc_length_px = arc_length_px;
  }
  return all;
}

LiveSegment summarize_frame(int id, const std::vector<LumenPoint>& points, const std::vector<float>& contrast) {
  LiveSegment result;
  result.id = id;
  std::vector<double> diameters, own, common;
  for (const LumenPoint& point : points)
    if (point.used && point.sd_px > 0) {
      diameters.push_back(point.diameter_px);
      common.push_back(std::min(point.common_sd_px, point.sd_px));
      own.push_back(std::sqrt(std::max(0.0, static_cast<double>(point.sd_px) * point.sd_px - common.back() * common.back())));
    }
  if (diameters.size() >= 3) {
    result.diameter_px = middle_of(diameters);
    result.sd_px = std::hypot(1.2533 * middle_of(own) / std::sqrt(std::max(1.0, diameters.size() / 2.0)), middle_of(common));
  }
  double sum = 0;
  int count = 0;
  for (const float value : contrast)
    if (std::isfinite(value)) {
      sum += value;
      ++count;
    }
  result.contrast = count ? sum / count : std::numeric_limits<double>::quiet_NaN();
  return result;
}

}  // namespace

const char* to_string(MaskState state) {
  switch (state) {
    case MaskState::ready:
      return "ready";
    case MaskState::again:
      return "again";
    case MaskState::waiting:
      break;
  }
  return "waiting";
}

/// What is worked out of the gathered frames.
struct LiveAnalysis::Prepared {
  NoiseModel noise;
  MaskChoice choice;
  std::unique_ptr<FrameSetup> setup;
  Image<float> picture;                         // of the mask, on the host
  std::vector<Image<float>> scene, brightness;  // planes of the first gathered frames: what the scene looks like
  std::string event;
  std::optional<Calibration> calibration;  // by an object in the mask
  // What frames go through, its memory touched: the first of them is to take no longer than the others.
  std::unique_ptr<FrameSlot> slot;
  std::optional<TemporalFilter> filter, resting_filter;
  std::optional<FlowStatistics> statistics;

  void warm_up(const Stream& stream, ImageView<const std::uint16_t> frame) {
    slot = std::make_unique<FrameSlot>(stream, *setup);
    filter.emplace(make_temporal_filter(stream, *setup));
    resting_filter.emplace(make_temporal_filter(stream, *setup));
    for (int i = 0; i < 2; ++i) {
      statistics.emplace(stream, setup->height(), setup->width(), FlowOptions{.area = false, .mean_time = false});
      if (i == 1) break;
      copy<std::uint16_t>(Stream::cpu({.parallel = false}), frame, slot->stored());
      slot->ingest(0, 0);
      slot->register_mask();
      slot->subtract_onto_mask();
      for (int place = 0; place < resting_filter->places(); ++place) {
        slot->set_time(statistics->next_frame(place));
        slot->send_numbers();
        slot->filter(*resting_filter, place, *statistics);
      }
      slot->subtract();
      for (int place = 0; place < filter->places(); ++place) slot->filter(*filter, place);
      slot->stream().synchronize();
    }
    filter->reset(stream);
    resting_filter->reset(stream);
  }
};

/// The vessels as they were found in what had come.
struct LiveAnalysis::Traced {
  Topology topology;
  MeasureSettings settings;
  std::vector<KeyFrame> keys;  // to be given back
  std::optional<SegmentFollower> follower;
};

/// A vessel over time.
struct LiveAnalysis::Segment {
  int id = 0;
  std::deque<double> contrast;                // as times_ms_, NaN before it was found
  std::vector<std::vector<LumenPoint>> kept;  // measured frames
  std::vector<double> kept_ms;                // when they were taken
  int stride = 1, seen = 0;                   // every stride-th is kept
  int filled_frames = 0;
  CalibreWatch watch{{}, 0};

  void keep(const std::vector<LumenPoint>& points, double time_ms) {
    const auto used = std::count_if(points.begin(), points.end(), [](const LumenPoint& p) { return p.used; });
    if (5 * used < static_cast<std::ptrdiff_t>(points.size())) return;
    ++filled_frames;
    if (seen++ % stride == 0) kept.push_back(points), kept_ms.push_back(time_ms);
    if (kept.size() <= most_kept) return;
    for (std::size_t i = 1; 2 * i < kept.size(); ++i) {
      kept[i] = std::move(kept[2 * i]);
      kept_ms[i] = kept_ms[2 * i];
    }
    kept.resize((kept.size() + 1) / 2);
    kept_ms.resize(kept.size());
    stride *= 2;
  }
};

Run with_frames(const Run& header, std::shared_ptr<const FrameSource> frames) {
  Run run;
  run.frames = std::move(frames);
  run.description = header.description;
  run.intensity = header.intensity;
  run.geometry = header.geometry;
  run.field = {to_host(Stream::cpu({.parallel = false}), header.field.valid()), header.field.source};
  run.window = header.window;
  return run;
}

LiveAnalysis::LiveAnalysis(const Stream& stream, const Run& header, const LiveOptions& options)
    : stream_(stream),
      header_(header),
      options_(options),
      intensity_(make_intensity_model(header.intensity)),
      calibration_(calibrate(header.geometry, options.mm_per_px, options.mm_per_px_relative_sd)) {
  const auto require_within = [](const char* name, int value, int least, int most) {
    if (value < least || value > most)
      throw std::invalid_argument(std::string(name) + " = " + std::to_string(value) + ": expected " + std::to_string(least) + " to " +
                                  std::to_string(most));
  };
  if (options.diameter != DiameterRule::fit) warnings_.push_back(caution(options.diameter));
  require_within("mask_frames", options.mask_frames, 4, 64);
  require_within("renew_frames", options.renew_frames, 0, 1 << 20);
  require_within("kept_frames", options.kept_frames, 16, 1 << 20);
}

LiveAnalysis::~LiveAnalysis() {
  if (preparing_.valid()) preparing_.wait();
  if (tracing_.valid()) tracing_.wait();
}

const LiveFrame& LiveAnalysis::push(ImageView<const std::uint16_t> stored, double time_ms) {
  const int height = header_.field.mask.height(), width = header_.field.mask.width();
  if (stored.height != height || stored.width != width)
    throw std::invalid_argument("frame of " + std::to_string(stored.width) + " x " + std::to_string(stored.height) + " px: expected " +
                                std::to_string(width) + " x " + std::to_string(height));
  if (frames_ > 0 && !(time_ms > last_time_ms_))
    throw std::invalid_argument("frame time " + std::to_string(time_ms) + " ms is not after " + std::to_string(last_time_ms_) + " ms");
  result_ = {};
  result_.frame = frames_;
  result_.time_ms = last_time_ms_ = time_ms;
  result_.subtraction.frame = frames_;
  ++frames_;
  if (!prepared_) {
    if (result_.frame == mask_due_)
      adopt_mask();
    else
      gather(stored);
  }
  result_.mask = prepared_ ? MaskState::ready : next_id_ > 1 || gathered_from_ > 0 ? MaskState::again : MaskState::waiting;
  if (!prepared_) return result_;

  copy<std::uint16_t>(Stream::cpu({.parallel = false}), stored, slot_->stored());
  slot_->ingest(result_.frame, 0);
  const bool converged = slot_->register_mask();
  // A registration may settle on another picture, too: then it leaves more than usual.
  const double residual = slot_->subtraction().residual_sd;
  const bool unusual = !converged || (usual_residual_ > 0 && residual > unusual_residual * usual_residual_);
  if ((unusual || since_mask_ % scene_check_frames == scene_check_frames - 1 || changed_in_a_row_ > 0) && scene_changed(stored)) {
    // One frame alone is blank or flashed; two are another scene.
    if (++changed_in_a_row_ == 2) {
      start_over("the picture became another (table, zoom or shutter): mask again");
      gather(stored);
      result_.mask = MaskState::again;
      return result_;
    }
    result_.events.push_back("frame shows something else than its mask: not measured");
    result_.subtraction = slot_->subtraction();
    return result_;
  }
  changed_in_a_row_ = 0;
  usual_residual_ += (usual_residual_ > 0 ? 0.1 : 1.0) * (residual - usual_residual_);
  measure();
  ++since_mask_;
  trace_if_due();
  return result_;
}

void LiveAnalysis::gather(ImageView<const std::uint16_t> stored) {
  if (mask_due_ >= 0) return;  // enough have come; the mask is being made
  if (gathered_.empty()) gathered_from_ = result_.frame;
  gathered_.push_back(copy_of(stored));
  gathered_ms_.push_back(result_.time_ms);
  if (static_cast<int>(gathered_.size()) < options_.mask_frames) return;
  renew_frames_ = options_.renew_frames > 0 ? options_.renew_frames : frames_of(renew_ms, gathered_ms_);
  gathered_ms_.clear();
  mask_due_ = result_.frame + renew_frames_;
  preparing_ = in_background([this, frames = std::move(gathered_), from = gathered_from_]() mutable {
    const Stream stream = background_of(stream_);
    const TraceSpan span("mask", from);
    auto prepared = std::make_unique<Prepared>();
    const int count = static_cast<int>(frames.size());
    const Run run = with_frames(header_, std::make_shared<GatheredFrames>(std::move(frames)));
    FramePlanes planes = read_frame_planes(run, intensity_, 0, count - 1);
    const Scene scene = find_scenes(planes).back();  // the table may just have come to rest
    planes = part_of(std::move(planes), scene.first, scene.last);
    for (int i = 0; i < 2; ++i) {
      const std::size_t k = std::min<std::size_t>(i, planes.planes.size() - 1);
      prepared->scene.push_back(to_host(stream.on_cuda() ? Stream::cpu() : stream, planes.planes[k].view()));
      prepared->brightness.push_back(to_host(stream.on_cuda() ? Stream::cpu() : stream, planes.brightness[k].view()));
    }
    MaskChoice& choice = prepared->choice;
    choice = select_mask(run, std::move(planes), scene.odd_frames);
    const bool contrast_from_start = choice.source == MaskSource::envelope;
    if (choice.source == MaskSource::none) {
      choice.source = MaskSource::automatic;
      MaskAverage all;
      for (int frame = scene.first; frame <= scene.last; ++frame)
        if (!scene.is_odd(frame)) all.frames.push_back(frame);
      choice.reference_frame = all.frames.front();
      choice.masks = {std::move(all)};
    }
    const std::vector<int> used = choice.frames();
    prepared->noise = estimate_noise(run, intensity_, used);
    std::vector<MaskFrame> masks = make_mask_frames(stream, run, intensity_, choice, options_.registration);
    prepared->picture = to_host<const float>(stream, masks.front().attenuation.view());
    if (options_.object.given() && !object_measured_)
      prepared->calibration =
          calibrate_by(options_.object, prepared->picture.view(), run.field.valid(), calibration_, run.description.path);
    prepared->setup = std::make_unique<FrameSetup>(stream, run, intensity_, prepared->noise, choice.reference_frame, std::move(masks),
                                                   options_.registration);
    Image<std::uint16_t> last(run.rows(), run.columns());
    run.frames->read_frame(count - 1, last.view());
    prepared->warm_up(stream_, last.view());
    prepared->event = "mask ready: frames " + std::to_string(from + used.front() + 1) + " to " + std::to_string(from + used.back() + 1) +
                      (contrast_from_start ? ", which show contrast already: the least attenuation at each pixel" : "");
    // From here on frame numbers are those of the stream.
    for (MaskAverage& mask : choice.masks)
      for (int& frame : mask.frames) frame += from;
    choice.reference_frame += from;
    if (choice.inflow_frame >= 0) choice.inflow_frame += from;
    return prepared;
  });
  gathered_.clear();
}

void LiveAnalysis::adopt_mask() {
  {
    const TraceSpan waiting("wait for the mask", result_.frame);
    prepared_ = preparing_.get();
  }
  mask_due_ = -1;
  slot_ = std::move(prepared_->slot);
  filter_ = std::move(prepared_->filter);
  resting_filter_ = std::move(prepared_->resting_filter);
  statistics_ = std::move(prepared_->statistics);
  since_mask_ = changed_in_a_row_ = 0;
  usual_residual_ = 0;
  next_trace_ = renew_gap_ = renew_frames_;
  result_.events.push_back(prepared_->event);
  if (!prepared_->calibration) return;
  calibration_ = *prepared_->calibration;
  object_measured_ = true;
  result_.events.push_back("calibrated by the " + std::string(to_string(calibration_.source)) + ": " + calibration_.note);
  if (!calibration_.warning.empty()) warnings_.push_back(calibration_.warning);
}

void LiveAnalysis::start_over(const std::string& why) {
  if (tracing_.valid()) tracing_.wait();
  tracing_ = {};
  vessels_due_ = -1;
  for (std::size_t s = 0; s < segments_.size(); ++s) retire(static_cast<int>(s), {});
  traced_.reset();
  slot_.reset();
  prepared_.reset();
  segments_.clear();
  key_frames_.clear();
  times_ms_.clear();
  subtractions_.clear();
  gathered_.clear();
  gathered_ms_.clear();
  result_.events.push_back(why);
  if (object_measured_) warnings_.push_back("The scale is that of the first scene: a zoom or another table height changes it.");
  warnings_.push_back("frame " + std::to_string(result_.frame + 1) + ": " + why + "; figures of before are in lumen.csv only");
}

bool LiveAnalysis::scene_changed(ImageView<const std::uint16_t> stored) {
  std::vector<Image<std::uint16_t>> one;
  one.push_back(copy_of(stored));
  FramePlanes now = read_frame_planes(with_frames(header_, std::make_shared<GatheredFrames>(std::move(one))), intensity_, 0, 0);
  // Three frames of the mask's time before it say what frames of one scene differ by.
  FramePlanes both;
  both.bin = now.bin, both.height = now.height, both.width = now.width, both.valid = std::move(now.valid);
  const Stream host = Stream::cpu({.parallel = false});
  for (const int i : {0, 1, 0}) {
    both.planes.push_back(to_host(host, prepared_->scene[i].view()));
    both.brightness.push_back(to_host(host, prepared_->brightness[i].view()));
  }
  both.planes.push_back(std::move(now.planes.front()));
  both.brightness.push_back(std::move(now.brightness.front()));
  return find_scenes(both).size() > 1;
}

void LiveAnalysis::measure() {
  FrameSlot& slot = *slot_;
  if (statistics_->frame_count() == 0 || result_.time_ms - last_resting_ms_ >= picture_interval_ms) {
    last_resting_ms_ = result_.time_ms;
    slot.subtract_onto_mask();
    slot.set_time(statistics_->next_frame(result_.time_ms));
    slot.send_numbers();
    slot.filter(*resting_filter_, resting_filter_place_ = resting_filter_->place_after(resting_filter_place_), *statistics_);
    if (statistics_->frame_count() % key_frame_step == 0) {
      KeyFrame key{result_.frame, Image<float>(stream_, slot.filtered().height, slot.filtered().width)};
      copy<float>(stream_, slot.filtered(), key.image.view());
      key_frames_.push_back(std::move(key));
      if (key_frames_.size() > key_frame_count) key_frames_.pop_front();
    }
  }
  slot.subtract();
  slot.filter(*filter_, filter_place_ = filter_->place_after(filter_place_));
  if (vessels_due_ >= 0 && result_.frame >= vessels_due_) renew_vessels();
  flat_.clear();
  times_ms_.push_back(result_.time_ms);
  subtractions_.push_back(slot.subtraction());
  if (traced_) {
    slot.measure(traced_->topology, traced_->settings);
    for (std::size_t s = 0; s < segments_.size(); ++s) {
      const std::vector<LumenPoint>& points = slot.lumen()[s];
      result_.segments.push_back(summarize_frame(segments_[s].id, points, slot.contrast()[s]));
      segments_[s].contrast.push_back(result_.segments.back().contrast);
      segments_[s].keep(points, result_.time_ms);
      flat_.insert(flat_.end(), points.begin(), points.end());
    }
    watch_calibre();
  } else {
    slot.copy_to_host();
    stream_.synchronize();
  }
  while (static_cast<int>(times_ms_.size()) > options_.kept_frames) {
    times_ms_.pop_front();
    subtractions_.pop_front();
    for (Segment& segment : segments_) segment.contrast.pop_front();
  }
  result_.subtraction = slot.subtraction();
  result_.subtracted = slot.subtracted_on_host();
  result_.display = slot.filtered_on_host();
  result_.lumen = &flat_;
}

void LiveAnalysis::watch_calibre() {
  std::vector<std::vector<ChangeWithinRun>> told(segments_.size());
  parallel_for(static_cast<int>(segments_.size()), [&](int s) {
    told[s] = segments_[s].watch.add(result_.frame, result_.time_ms, slot_->lumen()[static_cast<std::size_t>(s)]);
  });
  for (std::size_t s = 0; s < told.size(); ++s)
    for (const ChangeWithinRun& change : told[s])
      result_.changes.push_back(finding_of(change, segments_[s].id, traced_->topology.graph.segments[s].centreline, calibration_, true));
}

// Changes stay though nothing more will be seen of their place.
void LiveAnalysis::retire(int segment, const std::vector<std::vector<PointBefore>>& now) {
  const Centreline& centreline = traced_->topology.graph.segments[static_cast<std::size_t>(segment)].centreline;
  const Segment& old = segments_[static_cast<std::size_t>(segment)];
  for (const ChangeWithinRun& change : old.watch.changes()) {
    if (std::any_of(now.begin(), now.end(),
                    [&](const std::vector<PointBefore>& before) { return find_point(before, segment, change.point).has_value(); }))
      continue;
    past_.push_back(finding_of(change, old.id, centreline, calibration_, true));
    past_.back().reasons.push_back("the segment was not followed to the end: its number is that of the frames' lines");
  }
}

void LiveAnalysis::trace_if_due() {
  if (vessels_due_ >= 0 || since_mask_ < next_trace_ || statistics_->frame_count() < 3) return;
  // Those that are known do meanwhile: the first are found in the time between frames that measure nothing yet.
  vessels_due_ = result_.frame + (traced_ ? 2 : 1) * renew_frames_;
  FlowImages images = statistics_->finish(stream_, static_cast<float>(prepared_->setup->filtered_noise_sd()));
  // They come back with the vessels.
  std::vector<KeyFrame> keys(std::make_move_iterator(key_frames_.begin()), std::make_move_iterator(key_frames_.end()));
  key_frames_.clear();
  stream_.synchronize();
  tracing_ = in_background([this, picture = std::move(images.maximum), keys = std::move(keys), stored = copy_of(slot_->stored()),
                            subtraction = slot_->subtraction(), motion = slot_->motion(), offset = slot_->offset(),
                            frame = result_.frame]() mutable {
    const Stream stream = background_of(stream_);
    const TraceSpan span("topology", frame);
    const FrameSetup& setup = *prepared_->setup;
    auto traced = std::make_unique<Traced>();
    TopologyOptions options;
    options.vesselness = setup.vesselness_options(options_.response, fine_noise_sd(to_host(stream, picture.view()), header_.field.mask));
    traced->topology = find_topology(stream, picture, keys, setup.valid(), options);
    traced->settings = measure_settings(setup, options_.response, calibration_);
    traced->settings.lumen.rule = options_.diameter;
    FrameSlot slot(stream, setup);
    copy<std::uint16_t>(Stream::cpu({.parallel = false}), stored.view(), slot.stored());
    slot.ingest(frame, 0);
    slot.place(subtraction, motion, offset);
    slot.send_numbers();
    slot.subtract();
    slot.estimate_point_spread(traced->topology, traced->settings.lumen);
    traced->follower.emplace(make_segment_follower(stream, setup, traced->topology, traced->settings));
    traced->keys = std::move(keys);
    return traced;
  });
}

// What was seen of the calibre goes with the place, whatever segment it is part of now.
void LiveAnalysis::carry_watches(const std::vector<VesselGraph::Segment>& now, const std::vector<std::vector<PointBefore>>& before,
                                 std::vector<Segment>& segments) {
  const double mm_per_px = calibration_.known() ? calibration_.mm_per_px : 0;
  std::vector<const CalibreWatch*> old;
  for (const Segment& segment : segments_) old.push_back(&segment.watch);
  parallel_for(static_cast<int>(now.size()), [&](int s) {
    segments[s].watch =
        before[s].empty() ? CalibreWatch(now[s].centreline, mm_per_px) : CalibreWatch(now[s].centreline, mm_per_px, old, before[s]);
  });
  for (std::size_t s = 0; s < segments_.size(); ++s) retire(static_cast<int>(s), before);
}

// Other centrelines, another point spread: what both say of this frame tells what is not the vessels' doing.
void LiveAnalysis::renew_vessels() {
  std::vector<std::vector<LumenPoint>> old;
  if (traced_) {
    slot_->measure(traced_->topology, traced_->settings);
    old = slot_->lumen();
  }
  const std::vector<std::vector<PointBefore>> before = adopt_vessels();
  if (old.empty()) return;
  slot_->measure(traced_->topology, traced_->settings);
  parallel_for(static_cast<int>(segments_.size()), [&](int s) {
    std::vector<LumenPoint> as_before;
    for (const auto& [segment, point] : before[static_cast<std::size_t>(s)]) {
      const auto now = static_cast<int>(as_before.size());
      as_before.push_back(segment < 0 ? LumenPoint() : old[static_cast<std::size_t>(segment)][static_cast<std::size_t>(point)]);
      as_before.back().point = now;
    }
    segments_[static_cast<std::size_t>(s)].watch.level(as_before, slot_->lumen()[static_cast<std::size_t>(s)]);
  });
}

// Carries what is known of the vessels over to those found now: a vessel is the same where most of its points lie on one's. Where points
// lay before.
std::vector<std::vector<PointBefore>> LiveAnalysis::adopt_vessels() {
  vessels_due_ = -1;
  std::unique_ptr<Traced> found = [&] {
    const TraceSpan waiting("wait for the vessels", result_.frame);
    return tracing_.get();
  }();
  key_frames_.insert(key_frames_.begin(), std::make_move_iterator(found->keys.begin()), std::make_move_iterator(found->keys.end()));
  while (key_frames_.size() > key_frame_count) key_frames_.pop_front();
  const auto& now = found->topology.graph.segments;
  std::vector<Segment> segments(now.size());
  // Segment and point before, of each point now.
  std::vector<std::vector<PointBefore>> before(now.size());
  if (traced_) {
    const NearestPoint nearest(traced_->topology.graph.segments);
    parallel_for(static_cast<int>(now.size()), [&](int s) {
      for (const CentrelinePoint& point : now[s].centreline.points) before[s].push_back(nearest.to(point));
    });
  }
  std::vector<int> same(now.size(), -1);
  std::vector<bool> taken(segments_.size(), false);
  for (std::size_t s = 0; s < now.size(); ++s) {
    std::vector<int> votes(segments_.size(), 0);
    for (const auto& [old, point] : before[s])
      if (old >= 0) ++votes[old];
    for (std::size_t old = 0; old < votes.size(); ++old)
      if (!taken[old] && 2 * votes[old] >= static_cast<int>(before[s].size()) && (same[s] < 0 || votes[old] > votes[same[s]]))
        same[s] = static_cast<int>(old);
    if (same[s] >= 0) {
      taken[same[s]] = true;
      continue;
    }
    segments[s].id = next_id_++;
    segments[s].contrast.assign(times_ms_.size(), std::numeric_limits<double>::quiet_NaN());
  }
  carry_watches(now, before, segments);
  parallel_for(static_cast<int>(now.size()), [&](int s) {
    if (same[s] < 0) return;
    Segment &segment = segments[s], &old = segments_[same[s]];
    segment.id = old.id;
    segment.contrast = std::move(old.contrast);
    segment.stride = old.stride;
    segment.seen = old.seen;
    segment.filled_frames = old.filled_frames;
    segment.kept_ms = std::move(old.kept_ms);
    // A kept frame may have come through such a change before: not every point of the old centreline is in it.
    std::vector<int> at(traced_->topology.graph.segments[same[s]].centreline.points.size());
    for (std::vector<LumenPoint>& frame : old.kept) {
      std::fill(at.begin(), at.end(), -1);
      for (std::size_t k = 0; k < frame.size(); ++k) at[static_cast<std::size_t>(frame[k].point)] = static_cast<int>(k);
      std::vector<LumenPoint> carried;
      carried.reserve(before[s].size());
      for (std::size_t i = 0; i < before[s].size(); ++i) {
        const auto& [from, point] = before[s][i];
        if (from != same[s] || at[static_cast<std::size_t>(point)] < 0) continue;
        carried.push_back(frame[static_cast<std::size_t>(at[static_cast<std::size_t>(point)])]);
        carried.back().point = static_cast<int>(i);
        carried.back().segment = s;
      }
      segment.kept.push_back(std::move(carried));
      frame = {};
    }
  });
  // Where nothing new is found it is looked for less often: the machine is the frames' own again.
  const auto length = [](const Topology& topology) {
    double sum = 0;
    for (const VesselGraph::Segment& segment : topology.graph.segments) sum += segment.centreline.length_px();
    return sum;
  };
  const bool settled = traced_ && std::abs(length(found->topology) - length(traced_->topology)) < settled_share * length(traced_->topology);
  renew_gap_ = settled ? std::min(2 * renew_gap_, most_renew_gaps * renew_frames_) : renew_frames_;
  next_trace_ = since_mask_ + renew_gap_;
  const std::size_t segments_before = segments_.size();
  segments_ = std::move(segments);
  traced_ = std::move(found);
  slot_->follow(*traced_->follower, traced_->settings);
  if (segments_.size() != segments_before) result_.events.push_back(std::to_string(segments_.size()) + " segments");
  return before;
}

Analysis LiveAnalysis::finish() {
  // No frame measured the vessels that are being looked for.
  if (tracing_.valid()) tracing_.wait();
  Analysis analysis;
  analysis.device = device_name(stream_);
  analysis.threads = cpu_threads();
  analysis.rows = header_.field.mask.height();
  analysis.columns = header_.field.mask.width();
  analysis.calibration = calibration_;
  analysis.intensity_note = intensity_.note;
  analysis.densitometric = intensity_.densitometric;
  analysis.warnings = header_.warnings;
  analysis.warnings.insert(analysis.warnings.end(), warnings_.begin(), warnings_.end());
  analysis.frames = static_cast<int>(times_ms_.size());
  analysis.first_frame = subtractions_.empty() ? 0 : subtractions_.front().frame;
  analysis.frame_times_ms.assign(times_ms_.begin(), times_ms_.end());
  analysis.subtraction.registration = options_.registration;
  if (!prepared_) {
    analysis.warnings.push_back("The stream ended before there was a mask: nothing was measured.");
    analysis.maximum_opacification = Image<float>(analysis.rows, analysis.columns);
    set_zero(Stream::cpu(), analysis.maximum_opacification.view());
    return analysis;
  }
  analysis.subtracted = true;
  analysis.mask_picture = to_host(Stream::cpu(), prepared_->picture.view());
  analysis.noise = prepared_->noise;
  analysis.subtraction.mask = prepared_->choice;
  analysis.subtraction.reference_frame = prepared_->choice.reference_frame;
  analysis.subtraction.frames.assign(subtractions_.begin(), subtractions_.end());
  analysis.subtraction.topology_note = "Traced while the run was being made: the vessels rest on the frames that had come.";
  if (statistics_->frame_count() > 1) {
    FlowImages images = statistics_->finish(stream_, static_cast<float>(prepared_->setup->filtered_noise_sd()));
    analysis.maximum_opacification = to_host(stream_, images.maximum.view());
    analysis.time_to_peak_ms = to_host(stream_, images.time_to_peak_ms.view());
  } else {
    analysis.maximum_opacification = Image<float>(analysis.rows, analysis.columns);
    set_zero(Stream::cpu(), analysis.maximum_opacification.view());
  }
  if (!traced_) {
    analysis.warnings.push_back("The stream ended before vessels were found: nothing was measured.");
    return analysis;
  }
  analysis.subtraction.topology_frame = traced_->topology.frame;
  analysis.subtraction.moving_vessels = traced_->topology.moving_vessels;
  if (traced_->topology.moving_vessels) analysis.maximum_opacification = to_host<const float>(stream_, traced_->topology.picture.view());
  analysis.branch_points = traced_->topology.graph.branch_points;
  const double contrast_sd = prepared_->setup->noise_sd() / std::sqrt(2.0);
  double first_seen_ms = std::numeric_limits<double>::infinity();
  for (const Segment& segment : segments_)
    if (!segment.kept_ms.empty()) first_seen_ms = std::min(first_seen_ms, segment.kept_ms.front());
  for (std::size_t s = 0; s < segments_.size(); ++s) {
    SegmentResult segment;
    segment.id = segments_[s].id;
    segment.name = "segment " + std::to_string(segment.id);
    segment.centreline = traced_->topology.graph.segments[s].centreline;
    segment.length = segment.centreline.length_px() * calibration_.mm_per_px;
    segment.filling = segments_[s].filled_frames > 0 ? "filled" : "not filled";
    FillingSeries series;
    series.times_ms = &segments_[s].kept_ms;
    series.first_arrival_ms = first_seen_ms;
    std::vector<std::vector<LumenPoint>> kept;
    for (const std::vector<LumenPoint>& frame : segments_[s].kept) kept.push_back(along(segment.centreline, frame));
    (void)pool_filled(segment, kept, series, filling_options(analysis), along_variance_px2(traced_->settings.lumen.psf_px));
    segment.changes = segments_[s].watch.changes();
    TimeDensityCurve& curve = segment.flow.curve;
    curve.time_ms = analysis.frame_times_ms;
    curve.contrast.assign(segments_[s].contrast.begin(), segments_[s].contrast.end());
    curve.contrast_sd.assign(curve.contrast.size(), contrast_sd / std::sqrt(std::max(1.0, segment.centreline.points.size() / 2.0)));
    segment.flow.times = read_times(curve, contrast_sd);
    // Found when it had filled: when contrast came to it was not seen.
    if (!curve.contrast.empty() && !std::isfinite(curve.contrast.front()))
      segment.flow.times.arrival_ms = segment.flow.times.arrival_sd_ms = {};
    analysis.segments.push_back(std::move(segment));
  }
  analysis.findings = find_single_run_findings(analysis);
  analysis.findings.insert(analysis.findings.end(), past_.begin(), past_.end());
  return analysis;
}

}  // namespace cinelumen
