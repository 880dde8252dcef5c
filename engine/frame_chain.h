#pragma once
/// The chain that every frame goes through: attenuation, registration, subtraction, temporal filter; then, once the vessels are known,
/// vesselness, re-snapping, diameters and contrast. Frames are worked on several at a time; what depends on their order is done in it,
/// so that results do not depend on the number of threads.

#include <functional>
#include <memory>
#include <vector>

#include "engine/analysis.h"
#include "engine/frame_slot.h"
#include "engine/scenes.h"
#include "engine/segment_measurement.h"

namespace cinelumen {

/// What all frames together show, in the mask's coordinates.
struct Opacification {
  Image<float> picture;          ///< device: maximum opacification, or the mean where nothing can be subtracted
  Image<float> time_to_peak_ms;  ///< host: NaN where not opacified; empty where frame times are unknown
  std::vector<KeyFrame> key_frames;
  std::vector<KeyFrame> course;  ///< some of the picture's frames, evenly spaced over the run, filtered; mask coordinates
  std::vector<FrameSubtraction> frames;
  std::vector<RigidMotion> motions;  ///< mask to frame
  std::vector<FrameWarp> warps;      ///< before it; empty without non-rigid registration
  std::vector<float> offsets;        ///< log units: frame minus mask, off the vessels
  double noise_sd = 0;               ///< of `picture` and the filtered frames, log units
};

/// Contrast comes slowly, and is usually taken at 2 to 7.5 frames/s: at this interval the picture that it makes has all of it.
constexpr double picture_interval_ms = 130;

/// Which of frames first..last the picture of a run is gathered from: true for the first and those that follow the one taken before by
/// picture_interval_ms at least; for all of them where frame times (ms, of the whole run) are unknown, or where fewer than `least` would be
/// left.
std::vector<bool> frames_of_picture(const std::vector<double>& frame_times_ms, int first, int last, int least);

/// Works through the frames of one scene, twice.
class FrameChain {
 public:
  /// `masks`: make_mask_frames of `choice`, empty where choice.source is none. `scene`: the frames to work through; its odd frames are
  /// passed on, but nothing is taken from them. Keeps references to what it is given, which must outlive it.
  FrameChain(const Stream& stream, const Run& run, const IntensityModel& intensity, const NoiseModel& noise, const MaskChoice& choice,
             std::vector<MaskFrame> masks, const Scene& scene, const AnalysisOptions& options);

  /// Goes through the scene's frames once: registers each, gathers the picture from those `of_picture`, and keeps copies of the key frames
  /// and of those of the run's course, which are among these, in order.
  Opacification opacify(const std::vector<bool>& of_picture, const std::vector<int>& key_frames, const std::vector<int>& course,
                        AnalysisObserver* observer);
  /// Goes through them again, measuring the vessels of `topology` in each, and hands every frame to the observer in order.
  SegmentMeasurements measure(const Topology& topology, const Opacification& opacification, const Calibration& calibration,
                              AnalysisObserver* observer);

  const FrameSetup& setup() const { return setup_; }
  const StageClock& clock() const { return clock_; }
  /// Milliseconds of work on each frame, decoding and writing apart.
  const std::vector<double>& frame_ms() const { return frame_ms_; }

 private:
  int frame_count() const { return scene_.last - scene_.first + 1; }
  int mask_of(int i) const { return setup_.subtracting() ? choice_.mask_of_frame[i] : 0; }
  bool is_odd(int i) const { return scene_.is_odd(scene_.first + i); }
  /// What is done to a frame beside its registration or subtraction, and where in the filter's ring.
  enum class Filtering { none, passed_by, filtered };
  struct Turn {
    Filtering filtering = Filtering::none;
    int place = 0;
  };
  std::vector<Turn> turns(const TemporalFilter& filter, const std::vector<bool>& taken) const;
  int recording_of(int i, const Turn& turn) const;
  void record(const std::vector<Turn>& turns, const std::function<void(FrameSlot&, int)>& work);
  TemporalFilter make_filter() const;
  void load(FrameSlot& slot, int i);
  MeasureSettings settings_for(const Topology& topology, const Opacification& opacification, const Calibration& calibration);
  Image<float> shown_otherwise(FrameSlot& slot, const FrameMask& asked, const Opacification& opacification);
  void take_times(FrameSlot& slot);

  Stream stream_;
  const Run& run_;
  const IntensityModel& intensity_;
  const MaskChoice& choice_;
  const Scene& scene_;
  const AnalysisOptions& options_;
  FrameSetup setup_;
  std::vector<std::unique_ptr<FrameSlot>> slots_;
  StageClock clock_;
  std::vector<double> frame_ms_;
};

}  // namespace cinelumen
