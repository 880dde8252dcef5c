#pragma once
/// The chain that every frame goes through: attenuation, registration, subtraction, temporal filter; then, once the vessels are known,
/// vesselness, re-snapping, diameters and contrast. Frames are worked on several at a time; what depends on their order is done in it,
/// so that results do not depend on the number of threads.

#include <memory>
#include <vector>

#include "engine/analysis.h"
#include "engine/mask_frame.h"
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
  FrameChain(const Stream& stream, const Run& run, const IntensityModel& intensity, const NoiseModel& noise, const MaskChoice& mask,
             MaskFrame mask_frame, const AnalysisOptions& options);
  ~FrameChain();

  /// Goes through frames first..last (0-based, inclusive) once. Keeps copies of the frames named in `key_frames`.
  Opacification opacify(int first, int last, const std::vector<int>& key_frames, AnalysisObserver* observer);
  /// Goes through them again, measuring the vessels of `topology` in each, and hands every frame to the observer in order.
  SegmentMeasurements measure(int first, int last, const Topology& topology, const Opacification& opacification,
                              AnalysisObserver* observer);

  /// Settings of the vesselness for an image whose noise has this SD.
  VesselnessOptions vesselness_options(double noise_sd) const;
  ImageView<const std::uint8_t> valid() const { return valid_.view(); }
  const StageClock& clock() const { return clock_; }
  /// Milliseconds of work on each frame, decoding and writing apart.
  const std::vector<double>& frame_ms() const { return frame_ms_; }

 private:
  struct Slot;
  void load_and_subtract(Slot& slot, int frame, bool register_frame, const RigidMotion* motion, float offset);
  void estimate_point_spread(const Topology& topology, const Opacification& opacification, int first, LumenOptions& options);
  template <class Parallel, class Ordered, class Measured, class Finished>
  void for_frames(int first, int last, Parallel parallel, Ordered ordered, Measured measured, Finished finished);

  Stream stream_;
  const Run& run_;
  const IntensityModel& intensity_;
  const NoiseModel& noise_;
  const MaskChoice& mask_;
  const AnalysisOptions& options_;
  MaskFrame mask_frame_;
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
