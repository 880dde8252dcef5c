#pragma once
/// A fixed set of vessels found again and measured in frame after frame, without waiting.

#include <vector>

#include "engine/lumen_measurement.h"
#include "engine/ridge_snap.h"
#include "kernels/rigid_motion.h"

namespace cinelumen {

/// Made once for a set of centrelines, with all the memory it needs: what is enqueued neither waits, allocates nor decides anything on the
/// host, so that it can be captured in a CUDA graph. What changes from frame to frame is read from the memory that is named, when the
/// stream comes to it. Results lie in host memory once the stream has been synchronised.
class SegmentFollower {
 public:
  /// centrelines: in the mask's coordinates. local_background: contrast is read above what lies beside the vessel, else as it is.
  /// lumen.variance is not used. Synchronises the stream; throws std::invalid_argument.
  SegmentFollower(const Stream& stream, const std::vector<Centreline>& centrelines, const RidgeSnapOptions& snap, const LumenOptions& lumen,
                  bool local_background);
  /// The same for another frame in flight: own memory, on the stream's device.
  SegmentFollower another(const Stream& stream) const;

  /// The steps below. All memory of the stream's device: the vesselness of the frame (ridge and scale, or z and scale), the
  /// subtracted frame in its own coordinates, the variance of its noise, where it may be read, and one element of placement.
  void enqueue(const Stream& stream, const VesselnessMap& vesselness, ImageView<const float> subtracted, const VarianceSource& variance,
               ImageView<const std::uint8_t> valid, ArrayView<const FramePlacement> placement);
  /// Places the centrelines in a frame of that size, and marks the squares of it where its vesselness will be read (see mark_squares).
  /// to_frame: how the mask is bent before it is moved, of WarpRegistration; without data: not at all.
  void enqueue_place(const Stream& stream, ArrayView<const FramePlacement> placement, int height, int width,
                     ImageView<std::int32_t> wanted = {}, const DisplacementField& to_frame = {});
  /// Moves those onto their ridges of which half is found.
  void enqueue_snap(const Stream& stream, const VesselnessMap& vesselness);
  /// Measures the lumen where enqueue_snap() has left them.
  void enqueue_diameters(const Stream& stream, ImageView<const float> subtracted, const VarianceSource& variance,
                         ImageView<const std::uint8_t> valid);
  /// And the contrast: mean over three pixels across the vessel at each point.
  void enqueue_contrast(const Stream& stream, ImageView<const float> subtracted, ImageView<const std::uint8_t> valid);

  /// Of the last frame enqueued, once the stream has been synchronised: per centreline, one LumenPoint per point.
  std::vector<std::vector<LumenPoint>> lumen() const { return measurement_.results(); }
  /// Per centreline, the contrast of each point, log units; NaN outside the image or field.
  std::vector<std::vector<float>> contrast() const;
  /// Whether a centreline's vessel was found on its ridge.
  bool found(int centreline) const { return found_[centreline] != 0; }

 private:
  SegmentFollower(const Stream& stream, const SegmentFollower& other);
  void make_memory(const Stream& stream);

  RidgeSnapOptions snap_;
  bool local_background_;
  std::vector<Centreline> centrelines_;
  std::vector<int> first_;
  RidgeFollower ridges_;
  LumenMeasurement measurement_;
  Array<CrossSection> lines_, placed_;
  Array<float> radius_, contrast_, contrast_on_host_;  // contrast_ with CUDA only
  Array<std::int32_t> found_;                          // host
};

}  // namespace cinelumen
