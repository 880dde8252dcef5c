#pragma once
/// The chain that every frame goes through: attenuation, registration, subtraction, temporal filter; then, once the vessels are known,
/// vesselness, re-snapping, diameters and contrast. Frames are worked on several at a time; what depends on their order is done in it,
/// so that results do not depend on the number of threads.

#include <memory>
#include <vector>

#include "engine/analysis.h"
#include "engine/mask_frame.h"
#include "engine/scenes.h"
#include "engine/segment_measurement.h"
#include "engine/stage_clock.h"
#include "engine/topology.h"
#include "kernels/rigid_motion.h"

namespace cinelumen {

/// What all frames together show, in the mask's coordinates.
struct Opacification {
  Image<float> picture;          ///< device: maximum opacification, or the mean where nothing can be subtracted
  Image<float> time_to_peak_ms;  ///< host: NaN where not opacified; empty where frame times are unknown
  std::vector<KeyFrame> key_frames;
  std::vector<FrameSubtraction> frames;
  std::vector<RigidMotion> motions;  ///< mask to frame
  std::vector<float> offsets;        ///< log units: frame minus mask, off the vessels
  double noise_sd = 0;               ///< of `picture` and the filtered frames, log units
};

/// Works through the frames of one run, twice.
class FrameChain {
 public:
  /// Keeps references to what it is given, which must outlive it.
  /// `scene`: the frames to work through; its odd frames are passed on, but nothing is taken from them. `masks`: make_mask_frames of
  /// `choice`, empty where choice.source is none.
  FrameChain(const Stream& stream, const Run& run, const IntensityModel& intensity, const NoiseModel& noise, const MaskChoice& choice,
             std::vector<MaskFrame> masks, const Scene& scene, const AnalysisOptions& options);
  ~FrameChain();

  /// Goes through the scene's frames once. Keeps copies of the frames named in `key_frames`.
  Opacification opacify(const std::vector<int>& key_frames, AnalysisObserver* observer);
  /// Goes through them again, measuring the vessels of `topology` in each, and hands every frame to the observer in order.
  SegmentMeasurements measure(const Topology& topology, const Opacification& opacification, const Calibration& calibration,
                              AnalysisObserver* observer);

  /// Settings of the vesselness for an image whose noise has this SD.
  VesselnessOptions vesselness_options(double noise_sd) const;
  ImageView<const std::uint8_t> valid() const { return valid_.view(); }
  const StageClock& clock() const { return clock_; }
  /// Milliseconds of work on each frame, decoding and writing apart.
  const std::vector<double>& frame_ms() const { return frame_ms_; }

 private:
  struct Mask;
  struct Slot;
  struct MeasureSettings;
  void load(Slot& slot, int frame);
  void subtract(Slot& slot, const RigidMotion& from_reference, float offset);
  void register_frame(Slot& slot);
  void measure_vessels(Slot& slot, const Topology& topology, const MeasureSettings& settings);
  ImageView<const float> shown(Slot& slot, const Opacification& opacification);
  void estimate_point_spread(const Topology& topology, const Opacification& opacification, LumenOptions& options);
  bool subtracting() const { return !masks_.empty(); }
  /// The largest, over masks, of MaskFrame::noise_factor; 1 where nothing is subtracted.
  double noise_factor() const;
  ImageView<const float> variance_of(Slot& slot);
  void take_times(Slot& slot);

  Stream stream_;
  const Run& run_;
  const IntensityModel& intensity_;
  const NoiseModel& noise_;
  const MaskChoice& choice_;
  const AnalysisOptions& options_;
  const Scene& scene_;
  int first_, last_;  ///< 0-based, inclusive
  std::vector<std::unique_ptr<Mask>> masks_;
  Array<float> table_, variance_table_;
  Image<std::uint8_t> valid_;
  Image<float> noise_weight_;  ///< see local_noise_weight
  Image<float> no_mask_;       ///< zero coefficients, where there is no mask
  float no_mask_offset_ = 0;
  std::vector<std::unique_ptr<Slot>> slots_;
  StageClock clock_;
  std::vector<double> frame_ms_;
};

}  // namespace cinelumen
