#pragma once
/// What each pixel's contrast did over a run: its maximum and when, its area and mean time (methods.md 8).

#include <vector>

#include "flow_tile.h"
#include "image.h"
#include "per_frame.h"
#include "stream.h"

namespace cinelumen {

/// Results of FlowStatistics, memory of the stream's device, height x width.
struct FlowImages {
  Image<float> maximum;          ///< largest contrast; NaN where no frame reached the pixel
  Image<float> time_to_peak_ms;  ///< time of the maximum, on the run's clock; NaN where the maximum is not above the noise
  Image<float> area;             ///< contrast integrated over time by trapezoids, contrast x s; empty where not asked for
  /// First moment over area; NaN where time_to_peak_ms is, or where it lies outside the run; empty where not asked for.
  Image<float> mean_time_ms;
};

/// What FlowStatistics keeps beside the maximum and its time; each costs a plane read and written per frame.
struct FlowOptions {
  bool area = true;
  bool mean_time = true;  ///< needs the area
};

/// Running statistics per pixel, in the mask's coordinates. Holds up to seven planes on the stream's device; memory does not grow with the
/// run.
class FlowStatistics {
 public:
  /// height, width >= 1, mean_time only with area (std::invalid_argument).
  FlowStatistics(const Stream& stream, int height, int width, FlowOptions options = {});

  /// Forgets all frames.
  void reset(const Stream& stream);
  /// Counts a frame taken at time_ms, which must be greater than the last frame's (std::invalid_argument). What it returns is for update,
  /// or for a kernel that makes the contrast and updates the statistics in one pass (TemporalFilter).
  FlowTime next_frame(double time_ms);
  /// Takes the frame that was counted last: `contrast` in the mask's coordinates (added log attenuation, noise-filtered), height x width;
  /// NaN where the frame does not reach: the pixel's last value is then held.
  void update(const Stream& stream, ImageView<const float> contrast, const PerFrame<FlowTime>& time);

  /// What the frames so far say. The time of the maximum is refined by the parabola through it and its two neighbours in time; the first
  /// of equal maxima counts. Times are given where the maximum exceeds `threshold_sd` x `noise_sd` (>= 0, of one filtered frame).
  FlowImages finish(const Stream& stream, float noise_sd, float threshold_sd = 5) const;

  int frame_count() const { return static_cast<int>(times_ms_.size()); }
  /// From the first frame to the last, on the run's clock; 0 for fewer than two.
  double duration_ms() const { return times_ms_.empty() ? 0 : times_ms_.back() - times_ms_.front(); }
  FlowOptions options() const { return options_; }
  int height() const { return maximum_.height(); }
  int width() const { return maximum_.width(); }

  /// For such a kernel. A pixel that it updates once must be updated by it in every frame.
  FlowPlanes planes() { return {maximum_, before_, after_, area_, moment_, frame_of_maximum_}; }

 private:
  FlowOptions options_;
  std::vector<double> times_ms_;
  Image<float> maximum_, before_, after_, last_, area_, moment_;
  Image<int> frame_of_maximum_;
};

}  // namespace cinelumen
