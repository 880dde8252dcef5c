#pragma once
/// Lumen diameters of a fixed set of centrelines, frame after frame, without waiting (methods.md 5).

#include <memory>
#include <vector>

#include "engine/diameter_profile.h"
#include "kernels/lumen_points.h"

namespace cinelumen {

/// Centre and normal at each point of all centrelines, in order.
std::vector<CrossSection> sections_of(const std::vector<Centreline>& centrelines);

/// Where each centreline starts among the points of all, and the end.
std::vector<int> first_points_of(const std::vector<Centreline>& centrelines);

/// Measures as measure_frame does. Made once for a set of centrelines, with all the memory it needs; enqueue() neither waits, allocates nor
/// decides anything on the host, so that it can be captured in a CUDA graph.
class LumenMeasurement {
 public:
  /// reach_px: how far a point may be moved against the others from where it lies in `centrelines`. options.variance is not used.
  /// Synchronises the stream; throws std::invalid_argument.
  LumenMeasurement(const Stream& stream, const std::vector<Centreline>& centrelines, const LumenOptions& options, float reach_px = 0);
  /// The same for another frame in flight: own memory, on the stream's device.
  LumenMeasurement another(const Stream& stream) const;

  /// Measures in `image` (added attenuation, the frame's own coordinates). lines: where the points lie in the frame; without data: where
  /// `centrelines` has them. All memory of the stream's device, which must stay until the stream has come to it.
  void enqueue(const Stream& stream, ImageView<const float> image, const VarianceSource& variance, ImageView<const std::uint8_t> valid,
               ArrayView<const CrossSection> lines = {});
  /// Per centreline, one LumenPoint per point: of the last enqueue(), once the stream has been synchronised.
  std::vector<std::vector<LumenPoint>> results() const;

  /// Fits of the point spread, with the cylinder, at all points that no other vessel disturbs. Waits.
  std::vector<LumenFit> fit_point_spread(const Stream& stream, ImageView<const float> image, const VarianceSource& variance,
                                         ImageView<const std::uint8_t> valid);

  const LumenPointOptions& point_options() const { return point_options_; }

 private:
  struct Plan;
  LumenMeasurement(const Stream& stream, std::shared_ptr<const Plan> plan, const LumenOptions& options,
                   const LumenPointOptions& point_options);
  LumenWorkspace workspace();
  void fit(const Stream& stream, ImageView<const float> image, const VarianceSource& variance, ImageView<const std::uint8_t> valid,
           const LumenFitOptions& options, ArrayView<LumenFit> fits);

  std::shared_ptr<const Plan> plan_;
  LumenOptions options_;
  LumenPointOptions point_options_;
  Array<float> block_y_, block_x_, block_extent_, junction_radius_, kappa_, kappa_sd_;
  Array<LumenFitPoint> points_;
  Array<std::int32_t> overlap_, pass_, width_class_, list_, count_;
  Array<LumenFit> found_, fits_;
  Array<PooledKappa> pooled_;
  Array<MeasuredLumen> measured_, measured_on_host_;  // the first with CUDA only
};

}  // namespace cinelumen
