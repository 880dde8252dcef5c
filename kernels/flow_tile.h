#pragma once
/// One frame's update of FlowStatistics inside tile kernels, shared by flow_statistics.cu and temporal_filter.cu.

#include "image.h"

namespace cinelumen {

inline constexpr float unseen = -3e38f;  // less than any contrast

/// When a frame was taken, as FlowStatistics counts.
struct FlowTime {
  int frame = 0;                 ///< 0: the first
  float time_s = 0, step_s = 0;  ///< since the first frame; since the last
};

/// The planes of FlowStatistics, those not kept without data.
struct FlowPlanes {
  ImageView<float> maximum, before, after, area, moment;
  ImageView<int> frame_of_maximum;

  /// `current`: this frame's contrast, `from` the previous one's, of the first frame any number. `Area`, `Moment`: those planes are kept.
  template <bool Area, bool Moment>
  CINELUMEN_HOST_DEVICE void take(const FlowTime& now, int row, int column, float current, float from) const {
    const float best = maximum.row(row)[column];
    const int best_frame = frame_of_maximum.row(row)[column];
    const float kept_after = after.row(row)[column], kept_before = before.row(row)[column];
    const bool higher = current > best, follows = best_frame == now.frame - 1;
    maximum.row(row)[column] = higher ? current : best;
    frame_of_maximum.row(row)[column] = higher ? now.frame : best_frame;
    before.row(row)[column] = higher ? from : kept_before;
    after.row(row)[column] = higher | follows ? current : kept_after;
    const bool seen = current > unseen;
    const float half_step = 0.5f * now.step_s;
    if constexpr (Area) area.row(row)[column] += seen ? half_step * (from + current) : 0;
    if constexpr (Moment) moment.row(row)[column] += seen ? half_step * (from * (now.time_s - now.step_s) + current * now.time_s) : 0;
  }
};

}  // namespace cinelumen
