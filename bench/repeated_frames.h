#pragma once
/// A long run in the memory of a short one.

#include <memory>
#include <utility>

#include "engine/run.h"

namespace cinelumen::bench {

/// A run of as many frames as asked for, out of fewer: once they are over, those of the second half go back and forth.
class RepeatedFrames : public FrameSource {
 public:
  RepeatedFrames(std::shared_ptr<const FrameSource> frames, int count) : frames_(std::move(frames)), count_(count) {}
  int frame_count() const override { return count_; }
  int rows() const override { return frames_->rows(); }
  int columns() const override { return frames_->columns(); }
  void read_frame(int frame, ImageView<std::uint16_t> stored) const override { frames_->read_frame(source_of(frame), stored); }

 private:
  int source_of(int frame) const {
    const int whole = frames_->frame_count(), first = whole / 2, back = whole - 1 - first;
    if (frame < whole) return frame;
    const int phase = (frame - whole + 1) % (2 * back);
    return phase < back ? whole - 1 - phase : first + phase - back;
  }

  std::shared_ptr<const FrameSource> frames_;
  int count_;
};

}  // namespace cinelumen::bench
