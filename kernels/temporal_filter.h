#pragma once
/// Motion-compensated recursive noise reduction over frames, for display and detection only (methods.md 1).

#include <cstdint>
#include <vector>

#include "flow_statistics.h"
#include "image.h"
#include "per_frame.h"
#include "rigid_motion.h"
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
/// once and unblurred, what stands still loses its noise. Frames must come in their order. Results stand in a ring of places, each made
/// from the one at the place before: a step that ends at a fixed place is the same work for every frame, the first included, and can be
/// captured in a CUDA graph. Holds two planes per place.
class TemporalFilter {
 public:
  /// SD of the noise over that of what the next frame will differ from the state by, were nothing to change, times 65535; 0: unknown. It is
  /// 0.7 after the first frame and nears 1 as noise averages out. Rounding it errs a gain by 0.00002 and holds up its fall only below
  /// 0.004.
  using Precision = std::uint16_t;

  /// height, width >= 1; noise_sd > 0 of the frames to come; places >= 2: a result stays until the step that makes the one `places` frames
  /// later. Throws std::invalid_argument for what is out of range.
  TemporalFilter(const Stream& stream, int height, int width, float noise_sd, TemporalFilterOptions options = {}, int places = 2);

  /// Filters one frame and returns the result, memory of the stream's device that the filter keeps at `place`, 0 ... places() - 1: the one
  /// after the last frame's, round the ring; any for the first. `subtracted`: finite, height x width. Where no frame was before, in the
  /// first and where the state comes from outside the previous frame, the frame itself is the result. Over a background that rests:
  ImageView<const float> step(const Stream& stream, int place, ImageView<const float> subtracted);
  /// Over one that lies where `placement` says: the state is moved by what the shift differs from that of the frame before, with cubic
  /// convolution (Keys, IEEE TASSP 1981; border pixels repeated). Rotation is ignored. Not to be mixed with the others. No shift costs
  /// least.
  ImageView<const float> step(const Stream& stream, int place, ImageView<const float> subtracted,
                              const PerFrame<FramePlacement>& placement);
  /// Over a background that rests, and the result goes into `statistics` in the same pass, as its update would take it; `time` is
  /// statistics.next_frame's. Both must have seen the same frames.
  ImageView<const float> step(const Stream& stream, int place, ImageView<const float> subtracted, FlowStatistics& statistics,
                              const PerFrame<FlowTime>& time);
  /// In place of a step, for a frame that the filter should not see: what stood at the place before now stands at `place`, too.
  void skip(const Stream& stream, int place);
  /// Forgets all frames, for instance at a new mask.
  void reset(const Stream& stream);

  int places() const { return static_cast<int>(states_.size()); }
  /// Round the ring.
  int place_after(int place) const { return (place + 1) % places(); }

 private:
  int place_before(int place) const { return (place + places() - 1) % places(); }
  template <class Background, class Sink>
  ImageView<const float> run(const Stream& stream, int place, ImageView<const float> subtracted, const Background& background,
                             const Sink& sink);
  TemporalFilterOptions options_;
  float noise_sd_;
  std::vector<Image<float>> states_;  // results
  std::vector<Image<Precision>> precisions_;
  Array<FramePlacement> placements_;
};

}  // namespace cinelumen
