#pragma once
/// What each pixel's contrast did over a run: its maximum and when, its area and mean time (methods.md 8).

#include <vector>

#include "image.h"
#include "stream.h"

namespace cinelumen {

/// Results of FlowStatistics, memory of the stream's device, height x width.
struct FlowImages {
  Image<float> maximum;          ///< largest contrast; NaN where no frame reached the pixel
  Image<float> time_to_peak_ms;  ///< time of the maximum, on the run's clock; NaN where the maximum is not above the noise
  Image<float> area;             ///< contrast integrated over time by trapezoids, contrast x s
  Image<float> mean_time_ms;     ///< first moment over area; NaN where time_to_peak_ms is, or where it lies outside the run
};

/// Running statistics per pixel, in the mask's coordinates. Holds seven planes on the stream's device; memory does not grow with the run.
class FlowStatistics {
 public:
  /// height, width >= 1 (std::invalid_argument).
  FlowStatistics(const Stream& stream, int height, int width);

  /// Takes the next frame: `contrast` in the mask's coordinates (added log attenuation, noise-filtered), height x width; NaN where the
  /// frame does not reach: the pixel's last value is then held. time_ms must be greater than the last frame's (std::invalid_argument).
  void update(const Stream& stream, ImageView<const float> contrast, double time_ms);

  /// What the frames so far say. The time of the maximum is refined by the parabola through it and its two neighbours in time; the first
  /// of equal maxima counts. Times are given where the maximum exceeds `threshold_sd` x `noise_sd` (>= 0, of one filtered frame).
  FlowImages finish(const Stream& stream, float noise_sd, float threshold_sd = 5) const;

  int frame_count() const { return static_cast<int>(times_ms_.size()); }

 private:
  std::vector<double> times_ms_;
  Image<float> maximum_, before_, after_, last_, area_, moment_;
  Image<int> frame_of_maximum_;
};

}  // namespace cinelumen
