#pragma once
/// The Thrust policy of a stream. Only what Thrust 1.17 (Debian) and CCCL 3 (the CUDA toolkit) both have.

#ifndef __CUDACC__
#define THRUST_DEVICE_SYSTEM THRUST_DEVICE_SYSTEM_TBB
#endif
#include <thrust/execution_policy.h>
#include <thrust/system/cpp/execution_policy.h>
#include <thrust/system/tbb/execution_policy.h>
#ifdef __CUDACC__
#include <thrust/system/cuda/execution_policy.h>
#include <thrust/system_error.h>
#endif

#include <map>
#include <memory>

#include "stream.h"
#ifdef __CUDACC__
#include "tile.h"
#endif

namespace cinelumen {

#ifdef __CUDACC__
/// Thrust's temporary storage from the stream-ordered pool: plain cudaMalloc would wait for the whole device.
class ThrustMemory {
 public:
  using value_type = char;
  explicit ThrustMemory(const Stream& stream) : stream_(stream) {}
  char* allocate(std::ptrdiff_t bytes) {
    auto memory = detail::allocate(&stream_, MemoryKind::device, static_cast<std::size_t>(bytes > 0 ? bytes : 1));
    char* const p = static_cast<char*>(memory.get());
    held_[p] = std::move(memory);
    return p;
  }
  void deallocate(char* p, std::size_t) { held_.erase(p); }

 private:
  Stream stream_;
  std::map<char*, std::shared_ptr<void>> held_;
};
#endif

/// Calls body(policy) with the Thrust execution policy that runs on the stream: CUDA in the stream's order, oneTBB, or the calling
/// thread for a serial CPU stream. Thrust may synchronise a CUDA stream: for per-run steps, not inside a frame. Throws DeviceError.
template <class Body>
void with_thrust_policy(const Stream& stream, Body body) {
#ifdef __CUDACC__
  if (stream.on_cuda()) {
    CINELUMEN_CUDA(cudaSetDevice(stream.cuda_device()));
    ThrustMemory memory(stream);
    try {
      body(thrust::cuda::par(memory).on(stream.handle()));
    } catch (const thrust::system_error& error) {
      throw DeviceError(std::string("Thrust failed: ") + error.what());
    }
    return;
  }
#endif
  if (stream.schedule().parallel)
    body(thrust::tbb::par);
  else
    body(thrust::cpp::par);
}

}  // namespace cinelumen
