#pragma once
/// One frame's update of FlowStatistics inside tile kernels, shared by flow_statistics.cu and temporal_filter.cu.

#include <type_traits>

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

  /// `Count` pixels of a row from `column` on. `current`: this frame's contrast, `from` the previous one's, of the first frame any number.
  /// `Area`, `Moment`: those planes are kept. What follows the maximum stands in `after` once it has come, `unseen` until then, so that
  /// pixels where nothing changes, most of them, are read only.
  template <bool Area, bool Moment, int Count>
  CINELUMEN_HOST_DEVICE void take(const FlowTime& now, int row, int column, const float* current, const float* from) const {
    float *const best = maximum.row(row) + column, *const next = after.row(row) + column;
    int changes = 0;
#pragma GCC unroll 1
    for (int i = 0; i < Count; ++i) changes |= (current[i] > best[i] ? 1 : 0) | (next[i] == unseen ? 1 : 0);
    if (changes) {
      float* const last = before.row(row) + column;
      int* const frame = frame_of_maximum.row(row) + column;
#pragma GCC ivdep
      for (int i = 0; i < Count; ++i) {
        const float value = current[i], kept = best[i], kept_next = next[i], kept_last = last[i];
        const int kept_frame = frame[i];
        const bool higher = value > kept;
        best[i] = higher ? value : kept;
        next[i] = higher ? unseen : (kept_next == unseen ? value : kept_next);
        last[i] = higher ? from[i] : kept_last;
        frame[i] = higher ? now.frame : kept_frame;
      }
    }
    if constexpr (!Area) return;
    const float half_step = 0.5f * now.step_s, time = now.time_s, time_before = now.time_s - now.step_s;
    float *const areas = area.row(row) + column, *const moments = Moment ? moment.row(row) + column : nullptr;
#pragma GCC ivdep
    for (int i = 0; i < Count; ++i) {
      const float value = current[i], previous = from[i];
      const bool seen = value > unseen;
      areas[i] += seen ? half_step * (previous + value) : 0.0f;
      if constexpr (Moment) moments[i] += seen ? half_step * (previous * time_before + value * time) : 0.0f;
    }
  }
};

#ifdef __CUDA_ARCH__
inline constexpr int flow_strip = 1;  // one pixel a thread
#else
inline constexpr int flow_strip = 16;  // pixels of a row that are looked at together
#endif

/// Calls body(y, x, count) for strips of a tile's rows: count is std::integral_constant<int, flow_strip>, or 1 at the end of a row.
template <class Block, class Body>
CINELUMEN_HOST_DEVICE inline void take_in_strips(const Block& block, int rows, int columns, Body body) {
  const int strips = columns / flow_strip, whole = strips * flow_strip;
  block.for_each_pixel(rows, strips, [&](int y, int strip) { body(y, strip * flow_strip, std::integral_constant<int, flow_strip>{}); });
  if (whole < columns)
    block.for_each_pixel(rows, columns - whole, [&](int y, int x) { body(y, whole + x, std::integral_constant<int, 1>{}); });
}

}  // namespace cinelumen
