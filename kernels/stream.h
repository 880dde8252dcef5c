#pragma once
/// Where work runs and in what order: the CPU pool or a CUDA stream. First argument of every kernel function.

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

struct CUstream_st;  // the CUDA runtime's stream, opaque where there is no CUDA toolkit

namespace cinelumen {

/// How a CPU stream runs its tiles. The last two exist for tests: they show on a CPU what would go wrong on a GPU.
struct CpuSchedule {
  bool parallel = true;     ///< tiles over the pool (latency); false: on the calling thread (frames over the pool: throughput)
  bool cuda_tiles = false;  ///< run with the tile shape that CUDA uses
  bool reversed = false;    ///< tiles, and pixels within a phase, in reverse order; implies cuda_tiles
};

/// A shared handle to an ordered queue of work. Copies refer to the same queue.
/// CPU streams run each kernel before its function returns; CUDA streams return at once: call synchronize() before reading on the host.
class Stream {
 public:
  /// A stream on the CPU pool.
  static Stream cpu(CpuSchedule schedule = {});
  /// A new stream on CUDA device `device`, 0-based. Throws DeviceError if there is none or it can't be used.
  static Stream cuda(int device = 0);

  /// Another queue on the same device, with the same schedule.
  Stream another() const;

  bool on_cuda() const { return state_->cuda_device >= 0; }
  /// CUDA device number, -1 on the CPU.
  int cuda_device() const { return state_->cuda_device; }
  const CpuSchedule& schedule() const { return state_->schedule; }
  CUstream_st* handle() const { return state_->handle; }
  /// Returns when all work queued so far is done. Throws DeviceError if any of it failed.
  void synchronize() const;

  struct State {
    CpuSchedule schedule;
    int cuda_device = -1;
    CUstream_st* handle = nullptr;
    ~State();
  };

 private:
  explicit Stream(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

/// A point in a stream's order that other streams and the host can wait for. On the CPU everything is done when it has been queued.
class Event {
 public:
  /// For streams of this stream's device.
  explicit Event(const Stream& stream);
  /// All that the stream has been given so far.
  void record(const Stream& stream);
  /// What the stream is given from now on waits for what was recorded last; for nothing where nothing was.
  void hold(const Stream& stream) const;
  /// Returns when what was recorded last is done. Throws DeviceError if any of it failed.
  void wait() const;

  struct State;

 private:
  std::shared_ptr<State> state_;  // null on the CPU
};

/// Kernel calls and copies, recorded once and queued any number of times: a CUDA graph, whose launch is one call and allocates nothing. On
/// the CPU the calls are made again at each launch.
class Recording {
 public:
  Recording() = default;
  /// Of what `work` queues on the stream, and on others that an Event makes wait for it and that it waits for in the end. On CUDA `work` is
  /// called now, once, and nothing of it runs; it must not wait, nor allocate, and the memory that it names must outlive the recording. On
  /// the CPU it is called by launch(). Throws DeviceError, and what `work` throws.
  Recording(const Stream& stream, std::function<void()> work);
  /// Queues everything on the stream, which need not be the one it was recorded on but must be of its device. Not before the last launch is
  /// done, unless it was on the same stream.
  void launch(const Stream& stream) const;
  explicit operator bool() const { return work_ || state_; }

  struct State;

 private:
  std::function<void()> work_;    // CPU
  std::shared_ptr<State> state_;  // CUDA
};

/// Number of CUDA devices that can be used; 0 in a build without CUDA or on a machine without a driver. Never throws.
int cuda_device_count() noexcept;

/// Name of the device a stream runs on, as printed in results: "CPU (AMD EPYC ..., x86-64-v4, 8 threads)" or "CUDA:0 (NVIDIA H100 ...)".
std::string device_name(const Stream& stream);

/// Limits the CPU pool to `threads` >= 1; 0 restores the machine's number. Affects the whole process.
void set_cpu_threads(int threads);
/// Threads the CPU pool uses.
int cpu_threads();

/// Runs body(0) ... body(count - 1) over the CPU pool in no particular order; returns when all are done. The first exception is rethrown.
void parallel_for(int count, const std::function<void(int)>& body);

/// Runs body() with all its parallel_for on the calling thread: work beside which others need the pool.
void run_alone(const std::function<void()>& body);

/// One step of pipeline(): what is done to an item, in one of the places that items in flight have.
struct PipelineStage {
  bool in_order = false;  ///< items one at a time, in their order; otherwise several at once
  std::function<void(int item, int place)> body;
};

/// Takes items 0 ... count - 1 through `stages`, at most `in_flight` (>= 1) of them at a time: an item starts when there is a place for it.
/// `place`, 0 ... in_flight - 1, is the item's own while it is in flight. Items leave in order. in_flight = 1 runs everything on the
/// calling thread. What bodies do in parallel inside does not hold up other stages. The first exception is rethrown when what runs has
/// stopped.
void pipeline(int count, int in_flight, const std::vector<PipelineStage>& stages);

/// Memory of one kind, owned by the images and arrays of image.h.
enum class MemoryKind { host, pinned, device };

namespace detail {
/// `bytes` of memory of the stream's device (or host memory), 64-byte aligned at least, uninitialised. bytes == 0 gives null.
std::shared_ptr<void> allocate(const Stream* stream, MemoryKind kind, std::size_t bytes);
/// Row-wise copy between host and device in the stream's order; pitches and widths in bytes.
void copy_rows(const Stream& stream, void* to, std::ptrdiff_t to_pitch, const void* from, std::ptrdiff_t from_pitch, std::size_t width,
               int height);
/// Fills rows with zero bytes in the stream's order.
void zero_rows(const Stream& stream, void* to, std::ptrdiff_t pitch, std::size_t width, int height);
}  // namespace detail

}  // namespace cinelumen
