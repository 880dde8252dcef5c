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

  /// `current`: this frame's contrast, `from` the previous one's; both seen. Of the first frame neither `from` nor the planes are used.
  /// `Area`, `Moment`: those planes are kept.
  template <bool Area, bool Moment>
  CINELUMEN_HOST_DEVICE void take(const FlowTime& now, int row, int column, float current, float from) const {
    const bool first = now.frame == 0;
    from = first ? current : from;
    const float kept = maximum.row(row)[column], best = first ? unseen : kept;
    const int kept_frame = frame_of_maximum.row(row)[column], best_frame = first ? 0 : kept_frame;
    const float kept_after = after.row(row)[column], kept_before = before.row(row)[column];
    const bool higher = current > best, follows = best_frame == now.frame - 1;
    maximum.row(row)[column] = higher ? current : best;
    frame_of_maximum.row(row)[column] = higher ? now.frame : best_frame;
    before.row(row)[column] = higher | first ? from : kept_before;
    after.row(row)[column] = higher | follows | first ? current : kept_after;
    const bool seen = current > unseen;
    const float half_step = 0.5f * now.step_s;
    if constexpr (Area) {
      const float kept_area = area.row(row)[column];
      const float now_area = kept_area + (seen ? half_step * (from + current) : 0);
      area.row(row)[column] = first ? 0 : now_area;
    }
    if constexpr (Moment) {
      const float kept_moment = moment.row(row)[column];
      const float now_moment = kept_moment + (seen ? half_step * (from * (now.time_s - now.step_s) + current * now.time_s) : 0);
      moment.row(row)[column] = first ? 0 : now_moment;
    }
  }
};

}  // namespace cinelumen
