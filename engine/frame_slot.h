#pragma once
/// One frame on its way through the chain, and what all frames of a run share. `analyze` sends many through, stream one after the other.

#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "engine/analysis.h"
#include "engine/diameter_profile.h"
#include "engine/frame_warp.h"
#include "engine/mask_frame.h"
#include "engine/segment_follower.h"
#include "engine/stage_clock.h"
#include "engine/topology.h"
#include "kernels/flow_statistics.h"
#include "kernels/log_attenuation.h"
#include "kernels/mask_registration.h"
#include "kernels/rigid_motion.h"
#include "kernels/temporal_filter.h"
#include "kernels/warp_registration.h"

namespace cinelumen {

/// What every frame of a run is read, subtracted and judged with. Images and tables in memory of the stream's device. Not changed once
/// made: frames in flight may share it.
class FrameSetup {
 public:
  /// `masks`: of make_mask_frames; empty: nothing is subtracted, frames are their attenuation over its median in frame `reference_frame`
  /// (0-based). `registration` none: frames lie where the masks do. Keeps references to intensity and noise, which must outlive it; `run`
  /// is read here only. Synchronises the stream.
  FrameSetup(const Stream& stream, const Run& run, const IntensityModel& intensity, const NoiseModel& noise, int reference_frame,
             std::vector<MaskFrame> masks, Registration registration);

  bool subtracting() const { return !masks_.empty(); }
  /// Variance of a subtracted frame over that of a raw one: the largest over masks; 1 where nothing is subtracted.
  double noise_factor() const;
  /// Noise SD of a subtracted frame at the run's median intensity, log units.
  double noise_sd() const;
  /// The same after the temporal filter, where nothing changes.
  double filtered_noise_sd() const;
  /// Settings of the vesselness for an image whose noise has this SD.
  VesselnessOptions vesselness_options(VesselnessResponse response, double noise_sd) const;
  /// Settings of the lumen's fit; the variance image is the frame's.
  LumenOptions lumen_options() const;

  int height() const { return valid_.height(); }
  int width() const { return valid_.width(); }
  ImageView<const std::uint8_t> valid() const { return valid_.view(); }
  /// The same in host memory.
  ImageView<const std::uint8_t> field() const { return field_.view(); }

 private:
  friend class FrameSlot;
  struct Mask {
    MaskFrame frame;
    Array<float> variance_table;  ///< of frame minus mask, by stored value
    std::optional<MaskRegistration> registration;
    std::optional<WarpRegistration> warp;
    Image<float> bordered;  ///< coefficients for log_subtract_warped
  };
  const IntensityModel& intensity_;
  const NoiseModel& noise_;
  Image<std::uint8_t> field_;  ///< host
  Array<float> table_, variance_table_;
  Image<std::uint8_t> valid_;
  Image<float> noise_weight_;  ///< see local_noise_weight
  std::vector<Mask> masks_;
  Image<float> no_mask_;  ///< zero coefficients, where there is no mask
  float no_mask_offset_ = 0;
};

/// A temporal filter for subtracted frames, with the gain that FrameSetup::filtered_noise_sd counts on.
TemporalFilter make_temporal_filter(const Stream& stream, const FrameSetup& setup, int places = 2);

/// How vessels are found again and measured in a frame.
struct MeasureSettings {
  VesselnessOptions vesselness;
  RidgeSnapOptions snap;
  LumenOptions lumen;
  bool trace_every_frame = false;  ///< benchmarks: also components, thinning and graph
};

/// Settings for finding vessels again 1.5 mm either side (6 px where nothing is calibrated) and for measuring them.
MeasureSettings measure_settings(const FrameSetup& setup, VesselnessResponse response, const Calibration& calibration);

/// Follows the vessels of `topology` as the settings say.
SegmentFollower make_segment_follower(const Stream& stream, const FrameSetup& setup, const Topology& topology,
                                      const MeasureSettings& settings);

/// The planes of one frame and the workspaces of the kernels that it goes through. One frame at a time; another slot for another stream.
/// The calls are made in the order they stand in. They return at once on CUDA, and neither allocate nor ask the device anything, unless
/// they say so: what changes from frame to frame stands in memory of the device, so that what follows ingest() can be recorded once and
/// launched for every frame.
class FrameSlot {
 public:
  /// Planes and workspaces on the stream; the setup must outlive it.
  FrameSlot(const Stream& stream, const FrameSetup& setup);
  FrameSlot(const FrameSlot&) = delete;
  FrameSlot& operator=(const FrameSlot&) = delete;
  /// Waits for what is still under way.
  ~FrameSlot();

  /// Where a frame's stored values go: host memory (pinned for CUDA), rows x columns.
  ImageView<std::uint16_t> stored() { return stored_.view(); }
  /// Takes what stands in stored() as frame `frame` (0-based) of the run, to be measured against mask `mask` of the setup, which is at rest
  /// until something else is known. On CUDA the copy runs beside what other streams do.
  void ingest(int frame, int mask);
  /// Sets motion(), offset(), subtraction() and warp() as they are known from before.
  void place(const FrameSubtraction& subtraction, const RigidMotion& motion, float offset, const FrameWarp& warp = {});
  /// When the frame was taken, for statistics.
  void set_time(const FlowTime& time) { numbers_host_[0].time = time; }

  /// Brings place and time to the device: first of what is queued.
  void send_numbers();
  /// Finds how the mask moved, and bent where that is asked for; without registration, or where the estimate does not converge, it stays.
  void find_motion();
  /// subtracted() = frame - mask in the frame's coordinates, or in the mask's.
  void subtract();
  void subtract_onto_mask();
  /// Sets filtered(), which stands at `place` of the filter, where it must stay while it is used.
  void filter(TemporalFilter& filter, int place);
  /// The same for subtract_onto_mask(), and into `statistics`.
  void filter(TemporalFilter& filter, int place, FlowStatistics& statistics);
  /// filtered() is subtracted(): for a frame that the filter should not see.
  void pass_unfiltered(TemporalFilter& filter, int place);
  /// What is followed from now on: a copy for this slot of make_segment_follower() of the topology. Allocates.
  void follow(const SegmentFollower& follower, const MeasureSettings& settings);
  /// With the same settings: finds the vessels that the slot follows again and measures along them.
  void find_and_measure(const MeasureSettings& settings);
  /// Copies subtracted() and filtered() to the host where they are not there. find_and_measure() does, too.
  void copy_to_host();

  /// Records, under a name for launch(), what `work` queues for a frame that is measured against `mask`. Allocates.
  void record(int name, int mask, const std::function<void()>& work);
  bool recorded(int name) const { return recordings_.count(name) > 0; }
  void forget_recordings() { recordings_.clear(); }
  /// Runs it for the frame that was taken, on `stream` of the slot's device, once the frame has arrived there: one launch.
  void launch(const Stream& stream, int name);
  /// Returns when launch() is done.
  void wait();

  /// Once the stream has been waited for: sets motion(), offset() and subtraction() as they were found; false where the estimate did not
  /// converge.
  bool take_motion();
  /// And lumen() and contrast() along the vessels of `topology`, which the slot follows.
  void take_measurements(const Topology& topology);

  /// find_motion() from the start, waited for and taken; find_and_measure() likewise.
  bool register_mask();
  void measure(const Topology& topology, const MeasureSettings& settings);
  /// Components, thinning and graph of the frame (benchmarks). Allocates and waits.
  void trace();
  /// Estimates the run's point spread from this frame into `options`, if it shows vessels wide enough. Waits for the device.
  void estimate_point_spread(const Topology& topology, LumenOptions& options);

  const Stream& stream() const { return stream_; }
  int frame() const { return frame_; }
  int mask() const { return mask_; }
  const RigidMotion& motion() const { return motion_; }  ///< mask to frame
  float offset() const { return offset_; }               ///< frame minus mask, off the vessels, log units
  const FrameWarp& warp() const { return warp_; }        ///< valid until the slot takes another frame
  /// A copy of it, to be kept.
  FrameWarp copy_of_warp() const;
  const FrameSubtraction& subtraction() const { return subtraction_; }
  ImageView<const float> subtracted() const { return subtracted_.view(); }  ///< device
  ImageView<const float> filtered() const { return filtered_; }             ///< device
  ImageView<const float> subtracted_on_host() const { return stream_.on_cuda() ? host_subtracted_.view() : subtracted_.view(); }
  ImageView<const float> filtered_on_host() const { return stream_.on_cuda() ? host_filtered_.view() : filtered_; }
  /// Coefficients of the mask in use.
  ImageView<const float> mask_coefficients() const;
  /// Per segment, what was measured; the caller may take them away.
  std::vector<std::vector<LumenPoint>>& lumen() { return lumen_; }
  std::vector<std::vector<float>>& contrast() { return contrast_; }
  StageClock& clock() { return clock_; }

 private:
  bool warping() const { return !warps_.empty(); }
  void set_place(const FrameSubtraction& subtraction, const RigidMotion& motion, float offset);
  void subtract_warped(ImageView<float> subtracted);
  StoredFrame stored_frame() const;
  void copy_to_host(const Stream& stream);
  StoredFrame variance() const;
  std::vector<Centreline> centrelines_of(const Topology& topology) const;

  /// What a frame brings along beside its pixels.
  struct Numbers {
    FramePlacement placement;
    FlowTime time;
  };
  struct Recorded {
    Recording recording;
    ImageView<const float> filtered;
  };
  ArrayView<FramePlacement> placement() { return {&numbers_.view().data->placement, 1}; }
  ArrayView<FlowTime> time() { return {&numbers_.view().data->time, 1}; }

  Stream stream_, beside_;  // the second for copies
  const FrameSetup& setup_;
  Event arrived_, forked_, copied_, done_;
  int frame_ = 0, mask_ = 0;
  Image<std::uint16_t> stored_, stored_on_device_;
  Image<float> subtracted_;
  ImageView<const float> filtered_;               // the temporal filter's
  Image<float> host_subtracted_, host_filtered_;  // CUDA only
  Array<Numbers> numbers_, numbers_host_;
  Array<RigidEstimate> estimate_, estimate_host_;
  std::vector<MaskRegistration> registrations_;  // one per mask
  std::vector<WarpRegistration> warps_;          // likewise, for non-rigid registration
  Image<float> to_mask_, to_frame_;              // its fields, and the difference before it is carried onto the mask
  Image<float> difference_;
  FrameWarp warp_;
  Array<WarpEstimate> warp_estimate_, warp_estimate_host_;
  std::optional<Vesselness> vesselness_;  // where vessels are followed
  VesselnessMap map_;
  Image<std::int32_t> wanted_;  // squares of the frame where the map will be read
  std::optional<SegmentFollower> follower_;
  LumenOptions lumen_options_;  // of what is followed
  std::optional<CentrelineTracer> tracer_;
  std::map<int, Recorded> recordings_;
  RigidMotion motion_;
  float offset_ = 0;
  FrameSubtraction subtraction_;
  std::vector<std::vector<LumenPoint>> lumen_;
  std::vector<std::vector<float>> contrast_;
  StageClock clock_;
};

}  // namespace cinelumen
