#pragma once
/// Motion-compensated recursive noise reduction over frames, for display and detection only (methods.md 1).

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
/// once and unblurred, what stands still loses its noise. Frames must come in their order. Holds four planes on the stream's device.
class TemporalFilter {
 public:
  /// height, width >= 1. Throws std::invalid_argument for options out of range.
  TemporalFilter(const Stream& stream, int height, int width, TemporalFilterOptions options = {});

  /// Filters one frame. `subtracted`: finite, noise SD `noise_sd` > 0, height x width. shift_y_px, shift_x_px (finite): where this
  /// frame's background lies relative to the previous frame's, positive down and right; ignored for the first frame. The state is
  /// moved by it with cubic convolution (Keys, IEEE TASSP 1981; border pixels repeated); where it comes from outside the previous frame,
  /// and in the first frame, the frame itself is the result. `filtered` must not overlap the inputs.
  void apply(const Stream& stream, ImageView<const float> subtracted, float noise_sd, float shift_y_px, float shift_x_px,
             ImageView<float> filtered);
  /// The same with a noise variance per pixel (> 0), height x width.
  void apply(const Stream& stream, ImageView<const float> subtracted, ImageView<const float> noise_variance, float shift_y_px,
             float shift_x_px, ImageView<float> filtered);
  /// Forgets all frames, for instance at a new mask.
  void reset() { first_ = true; }
  /// Variance of the last result, height x width.
  ImageView<const float> variance() const { return variance_.view(); }

 private:
  void run(const Stream& stream, ImageView<const float> subtracted, ImageView<const float> noise_variance, float constant_variance,
           float shift_y_px, float shift_x_px, ImageView<float> filtered);
  TemporalFilterOptions options_;
  bool first_ = true;
  Image<float> state_, variance_, next_state_, next_variance_;
};

}  // namespace cinelumen
