#pragma once
/// One frame's update of FlowStatistics inside tile kernels, shared by flow_statistics.cu and temporal_filter.cu.

#include "image.h"

namespace cinelumen {

inline constexpr float unseen = -3e38f;  // less than any contrast

/// The planes of FlowStatistics, those not kept without data, and the frame that comes next.
struct FlowStep {
  ImageView<float> maximum, before, after, area, moment;
  ImageView<int> frame_of_maximum;
  int frame = 0;
  float time_s = 0, step_s = 0;  // since the first frame; since the last

  /// `current`: this frame's contrast, `from` the previous one's; both seen. `Area`, `Moment`: those planes are kept.
  template <bool Area, bool Moment>
  CINELUMEN_HOST_DEVICE void take(int row, int column, float current, float from) const {
    const float best = maximum.row(row)[column];
    const int best_frame = frame_of_maximum.row(row)[column];
    const float kept_after = after.row(row)[column], kept_before = before.row(row)[column];
    const bool higher = current > best, follows = best_frame == frame - 1;
    maximum.row(row)[column] = higher ? current : best;
    frame_of_maximum.row(row)[column] = higher ? frame : best_frame;
    before.row(row)[column] = higher ? from : kept_before;
    after.row(row)[column] = higher | follows ? current : kept_after;
    const bool seen = current > unseen;
    const float half_step = 0.5f * step_s;
    if constexpr (Area) area.row(row)[column] += seen ? half_step * (from + current) : 0;
    if constexpr (Moment) moment.row(row)[column] += seen ? half_step * (from * (time_s - step_s) + current * time_s) : 0;
  }
};

}  // namespace cinelumen
