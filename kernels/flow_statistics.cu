#include "flow_statistics.h"

#include <cmath>
#include <limits>

#include "tile.h"

namespace cinelumen {
namespace {

/// As if no frame had reached any pixel: the first is then taken like every other.
struct StartStatistics {
  FlowPlanes planes;
  template <int Height, int Width>
  struct Scratch {};
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    block.for_each_pixel(block.rows(planes.maximum.height), block.columns(planes.maximum.width), [&](int y, int x) {
      const int row = block.y0 + y, column = block.x0 + x;
      planes.maximum.row(row)[column] = unseen;
      planes.before.row(row)[column] = unseen;
      planes.after.row(row)[column] = unseen;
      planes.frame_of_maximum.row(row)[column] = 0;
      if (planes.area.data) planes.area.row(row)[column] = 0;
      if (planes.moment.data) planes.moment.row(row)[column] = 0;
    });
  }
};

struct Fill {
  ImageView<float> image;
  float value;
  template <int Height, int Width>
  struct Scratch {};
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    block.for_each_pixel(block.rows(image.height), block.columns(image.width),
                         [&](int y, int x) { image.row(block.y0 + y)[block.x0 + x] = value; });
  }
};

template <bool Area, bool Moment>
struct UpdateStatistics {
  ImageView<const float> contrast;
  FlowPlanes planes;
  PerFrame<FlowTime> time;
  ImageView<float> last;
  template <int Height, int Width>
  struct Scratch {};
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    const FlowTime now = time.read();
    take_in_strips(block, block.rows(contrast.height), block.columns(contrast.width), [&](int y, int x, auto count) {
      constexpr int n = decltype(count)::value;
      const int row = block.y0 + y, column = block.x0 + x;
      const float* const values = contrast.row(row) + column;
      float* const kept = last.row(row) + column;
      float from[n];
#pragma GCC ivdep
      for (int i = 0; i < n; ++i) {
        const float value = values[i], previous = kept[i], current = value == value ? value : previous;
        // The first value that a pixel shows was there before: no step from nothing.
        from[i] = previous > unseen ? previous : current;
        kept[i] = current;
      }
      planes.take<Area, Moment, n>(now, row, column, kept, from);
    });
  }
};

struct FinishStatistics {
  ImageView<const float> maximum, before, after, area, moment;
  ImageView<const int> frame_of_maximum;
  ArrayView<const float> times_ms;  // since the first frame
  ImageView<float> out_maximum, out_time_to_peak, out_area, out_mean_time;
  float threshold, first_ms, not_a_number;
  template <int Height, int Width>
  struct Scratch {};
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    block.for_each_pixel(block.rows(maximum.height), block.columns(maximum.width), [&](int y, int x) {
      const int row = block.y0 + y, column = block.x0 + x;
      const float best = maximum(row, column), total = area.data ? area(row, column) : 0;
      const int frame = frame_of_maximum(row, column), last_frame = times_ms.size - 1;
      float peak = times_ms[frame];
      if (frame > 0 && frame < last_frame) {
        const float left = times_ms[frame] - times_ms[frame - 1], right = times_ms[frame + 1] - times_ms[frame];
        const float rise = (best - before(row, column)) / left, fall = (best - after(row, column)) / right;
        // Vertex of the parabola through three samples; a plateau (no curvature) keeps its first frame.
        const float offset = 0.5f * (rise * right - fall * left) / (rise + fall);
        if (rise + fall > 0) peak += offset < -0.5f * left ? -0.5f * left : (offset > 0.5f * right ? 0.5f * right : offset);
      }
      const bool seen = best > unseen, opacified = seen && best > threshold;
      out_maximum(row, column) = seen ? best : not_a_number;
      if (out_area.data) out_area(row, column) = seen ? total : not_a_number;
      out_time_to_peak(row, column) = opacified ? first_ms + peak : not_a_number;
      if (!out_mean_time.data) return;
      // Where noise leaves next to no area the quotient means nothing, and can lie anywhere.
      const float mean_time = 1000 * (moment(row, column) / total);
      const bool in_run = mean_time >= 0 && mean_time <= times_ms[last_frame];
      out_mean_time(row, column) = opacified && total > 0 && in_run ? first_ms + mean_time : not_a_number;
    });
  }
};

}  // namespace

FlowStatistics::FlowStatistics(const Stream& stream, int height, int width, FlowOptions options) : options_(options) {
  require(height > 0 && width > 0, "FlowStatistics: height and width must be at least 1");
  require(options.area || !options.mean_time, "FlowStatistics: mean_time needs area");
  for (Image<float>* plane : {&maximum_, &before_, &after_}) *plane = Image<float>(stream, height, width);
  if (options.area) area_ = Image<float>(stream, height, width);
  if (options.mean_time) moment_ = Image<float>(stream, height, width);
  frame_of_maximum_ = Image<int>(stream, height, width);
  reset(stream);
}

void FlowStatistics::reset(const Stream& stream) {
  times_ms_.clear();
  for_each_tile(stream, height(), width(), StartStatistics{planes()});
}

FlowTime FlowStatistics::next_frame(double time_ms) {
  require(std::isfinite(time_ms), "FlowStatistics::next_frame: time_ms is not finite");
  require(times_ms_.empty() || time_ms > times_ms_.back(), "FlowStatistics::next_frame: time_ms must increase from frame to frame");
  FlowTime time{frame_count()};
  if (!times_ms_.empty()) {
    time.time_s = static_cast<float>((time_ms - times_ms_.front()) / 1000);
    time.step_s = static_cast<float>((time_ms - times_ms_.back()) / 1000);
  }
  times_ms_.push_back(time_ms);
  return time;
}

void FlowStatistics::update(const Stream& stream, ImageView<const float> contrast, const PerFrame<FlowTime>& time) {
  const int height = contrast.height, width = contrast.width;
  require(same_size(contrast, maximum_.view()), "FlowStatistics::update: contrast differs in size from the statistics");
  if (last_.empty()) last_ = Image<float>(stream, height, width);
  if (times_ms_.size() == 1) for_each_tile(stream, height, width, Fill{last_, unseen});
  if (options_.mean_time)
    for_each_tile(stream, height, width, UpdateStatistics<true, true>{contrast, planes(), time, last_});
  else if (options_.area)
    for_each_tile(stream, height, width, UpdateStatistics<true, false>{contrast, planes(), time, last_});
  else
    for_each_tile(stream, height, width, UpdateStatistics<false, false>{contrast, planes(), time, last_});
}

FlowImages FlowStatistics::finish(const Stream& stream, float noise_sd, float threshold_sd) const {
  require(!times_ms_.empty(), "FlowStatistics::finish: no frame was given");
  require(noise_sd >= 0 && threshold_sd >= 0, "FlowStatistics::finish: noise_sd and threshold_sd must not be negative");
  const int height = maximum_.height(), width = maximum_.width();
  FlowImages images{Image<float>(stream, height, width), Image<float>(stream, height, width), {}, {}};
  if (options_.area) images.area = Image<float>(stream, height, width);
  if (options_.mean_time) images.mean_time_ms = Image<float>(stream, height, width);
  Array<float> host_times = Array<float>::staging(stream, frame_count());
  for (int i = 0; i < frame_count(); ++i) host_times[i] = static_cast<float>(times_ms_[static_cast<std::size_t>(i)] - times_ms_.front());
  Array<float> times(stream, frame_count());
  copy<float>(stream, host_times.view(), times.view());
  FinishStatistics kernel{};
  kernel.maximum = maximum_.view();
  kernel.before = before_.view();
  kernel.after = after_.view();
  kernel.area = area_.view();
  kernel.moment = moment_.view();
  kernel.frame_of_maximum = frame_of_maximum_.view();
  kernel.times_ms = times.view();
  kernel.out_maximum = images.maximum.view();
  kernel.out_time_to_peak = images.time_to_peak_ms.view();
  kernel.out_area = images.area.view();
  kernel.out_mean_time = images.mean_time_ms.view();
  kernel.threshold = threshold_sd * noise_sd;
  kernel.first_ms = static_cast<float>(times_ms_.front());
  kernel.not_a_number = std::numeric_limits<float>::quiet_NaN();
  for_each_tile(stream, height, width, kernel);
  stream.synchronize();  // host_times must outlive its copy
  return images;
}

}  // namespace cinelumen
