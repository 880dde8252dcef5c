#pragma once
/// Motion-compensated recursive noise reduction over frames, for display and detection only (methods.md 1).

#include <vector>

#include "flow_statistics.h"
#include "image.h"
#include "stream.h"

namespace cinelumen {

/// How strongly and when the filter averages.
struct TemporalFilterOptions {
  float minimum_gain = 0.15f;  ///< gain of the newest frame in the steady state, (0, 1]; noise SD then falls to sqrt(gain / (2 - gain))
  /// SDs of the pooled innovation between which the gain rises from Kalman's to 1; first < last.
  float change_first_sd = 3.0f, change_last_sd = 4.5f;
  /// SD of the noise's 5 x 5 mean over that of white noise, >= 1 for the correlated noise of a scintillator: scales the two above.
  float noise_correlation = 1;
};

/// A Kalman filter per pixel for a scene that stands still on its background. Where the innovation, normalised by its SD and pooled
/// over 5 x 5 pixels, is no longer noise (by its mean or by its mean square), the gain goes back to 1: what moves or fills is shown at
/// once and unblurred, what stands still loses its noise. Frames must come in their order. Holds two planes and one for each result kept.
class TemporalFilter {
 public:
  /// height, width >= 1; noise_sd > 0 of the frames to come. `results_kept` >= 1: how many of the last results stay as they are, for work
  /// on several frames at a time. Throws std::invalid_argument for what is out of range.
  TemporalFilter(const Stream& stream, int height, int width, float noise_sd, TemporalFilterOptions options = {}, int results_kept = 1);

  /// Filters one frame and returns the result, memory of the stream's device that the filter keeps. `subtracted`: finite, height x width.
  /// shift_y_px, shift_x_px (finite): where this frame's background lies relative to the previous frame's, positive down and right; ignored
  /// for the first frame. The state is moved by it with cubic convolution (Keys, IEEE TASSP 1981; border pixels repeated); where it comes
  /// from outside the previous frame, and in the first frame, the frame itself is the result. No shift costs least.
  ImageView<const float> apply(const Stream& stream, ImageView<const float> subtracted, float shift_y_px = 0, float shift_x_px = 0);
  /// The same over a resting background, and the result goes into `statistics` in the same pass, as its update would take it. Both must
  /// have seen the same frames.
  ImageView<const float> apply(const Stream& stream, ImageView<const float> subtracted, FlowStatistics& statistics, double time_ms);
  /// Forgets all frames, for instance at a new mask.
  void reset() { frames_ = 0; }

 private:
  ImageView<const float> run(const Stream& stream, ImageView<const float> subtracted, float shift_y_px, float shift_x_px,
                             FlowStatistics* statistics, double time_ms);
  TemporalFilterOptions options_;
  float noise_variance_;
  long long frames_ = 0;
  std::vector<Image<float>> states_;         ///< the last result is states_[frames_ % size]
  Image<float> precision_, next_precision_;  ///< 1 / SD of what the next frame will differ from the state by, were nothing to change
};

}  // namespace cinelumen
