#pragma once
/// What changes from frame to frame, for kernels that are queued once and run for every frame.

#include "error.h"
#include "image.h"

namespace cinelumen {

/// A value as it is when the kernel is queued, or one element in memory of the stream's device, read when the kernel runs: a captured
/// CUDA graph then takes what stands there at each launch.
template <class T>
class PerFrame {
 public:
  PerFrame(const T& value) : value_(value) {}
  /// std::invalid_argument unless it has one element.
  PerFrame(ArrayView<const T> memory) : memory_(memory.data) {
    require(memory.size == 1 && memory.data, "PerFrame: one element in memory is expected");
  }
  PerFrame(ArrayView<T> memory) : PerFrame(ArrayView<const T>(memory)) {}
  PerFrame(const Array<T>& memory) : PerFrame(memory.view()) {}

  /// In kernels.
  CINELUMEN_HOST_DEVICE T read() const { return memory_ ? *memory_ : value_; }
  /// True where the host may read() it now: to check it.
  bool known_on_host(const Stream& stream) const { return !memory_ || !stream.on_cuda(); }

 private:
  const T* memory_ = nullptr;
  T value_{};
};

}  // namespace cinelumen
