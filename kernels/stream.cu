#include "stream.h"

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/info.h>
#include <oneapi/tbb/parallel_pipeline.h>
#include <oneapi/tbb/task_arena.h>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <mutex>
#include <new>
#include <stdexcept>

#include "tile.h"

namespace cinelumen {
namespace detail {

#ifdef __CUDACC__
void check_cuda(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();  // else the next launch that is checked would be blamed
  throw DeviceError(std::string(call) + " failed: " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
}
#endif

void* thread_scratch(std::size_t bytes) {
  struct Scratch {
    void* memory = nullptr;
    std::size_t size = 0;
    ~Scratch() { std::free(memory); }
  };
  static thread_local Scratch scratch;
  if (bytes > scratch.size) {
    std::free(scratch.memory);
    scratch.memory = nullptr;
    scratch.size = (bytes + 63) / 64 * 64;
    scratch.memory = std::aligned_alloc(64, scratch.size);
    if (!scratch.memory) {
      scratch.size = 0;
      throw std::bad_alloc();
    }
  }
  return scratch.memory;
}

std::shared_ptr<void> allocate(const Stream* stream, MemoryKind kind, std::size_t bytes) {
  if (bytes == 0) return nullptr;
#ifdef __CUDACC__
  if (kind == MemoryKind::device) {
    CINELUMEN_CUDA(cudaSetDevice(stream->cuda_device()));
    void* memory = nullptr;
    CINELUMEN_CUDA(cudaMallocAsync(&memory, bytes, stream->handle()));
    // Freed in the stream's order; errors of a dying device are dropped here, the next call reports them.
    return {memory, [keep = *stream](void* p) {
              (void)cudaSetDevice(keep.cuda_device());
              if (cudaFreeAsync(p, keep.handle()) != cudaSuccess) (void)cudaGetLastError();
            }};
  }
  if (kind == MemoryKind::pinned) {
    CINELUMEN_CUDA(cudaSetDevice(stream->cuda_device()));
    void* memory = nullptr;
    CINELUMEN_CUDA(cudaMallocHost(&memory, bytes));
    return {memory, [](void* p) {
              if (cudaFreeHost(p) != cudaSuccess) (void)cudaGetLastError();
            }};
  }
#else
  (void)stream;
  (void)kind;
#endif
  if (bytes > std::numeric_limits<std::size_t>::max() - 63) throw std::bad_alloc();
  void* memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!memory) throw std::bad_alloc();
  return {memory, [](void* p) { std::free(p); }};
}

void copy_rows([[maybe_unused]] const Stream& stream, void* to, std::ptrdiff_t to_pitch, const void* from, std::ptrdiff_t from_pitch,
               std::size_t width, int height) {
  if (height <= 0 || width == 0) return;
#ifdef __CUDACC__
  if (stream.on_cuda()) {
    CINELUMEN_CUDA(cudaSetDevice(stream.cuda_device()));
    if (height == 1)
      CINELUMEN_CUDA(cudaMemcpyAsync(to, from, width, cudaMemcpyDefault, stream.handle()));
    else
      CINELUMEN_CUDA(cudaMemcpy2DAsync(to, static_cast<std::size_t>(to_pitch), from, static_cast<std::size_t>(from_pitch), width,
                                       static_cast<std::size_t>(height), cudaMemcpyDefault, stream.handle()));
    return;
  }
#endif
  for (int y = 0; y < height; ++y)
    std::memmove(static_cast<char*>(to) + y * to_pitch, static_cast<const char*>(from) + y * from_pitch, width);
}

void zero_rows([[maybe_unused]] const Stream& stream, void* to, std::ptrdiff_t pitch, std::size_t width, int height) {
  if (height <= 0 || width == 0) return;
#ifdef __CUDACC__
  if (stream.on_cuda()) {
    CINELUMEN_CUDA(cudaSetDevice(stream.cuda_device()));
    if (height == 1)
      CINELUMEN_CUDA(cudaMemsetAsync(to, 0, width, stream.handle()));
    else
      CINELUMEN_CUDA(cudaMemset2DAsync(to, static_cast<std::size_t>(pitch), 0, width, static_cast<std::size_t>(height), stream.handle()));
    return;
  }
#endif
  for (int y = 0; y < height; ++y) std::memset(static_cast<char*>(to) + y * pitch, 0, width);
}

}  // namespace detail

Stream Stream::cpu(CpuSchedule schedule) {
  auto state = std::make_shared<State>();
  state->schedule = schedule;
  return Stream(std::move(state));
}

Stream Stream::cuda([[maybe_unused]] int device) {
#ifdef __CUDACC__
  const int count = cuda_device_count();
  if (device < 0 || device >= count)
    throw DeviceError("no CUDA device " + std::to_string(device) + ": " + std::to_string(count) + " found");
  CINELUMEN_CUDA(cudaSetDevice(device));
  auto state = std::make_shared<State>();
  CINELUMEN_CUDA(cudaStreamCreateWithFlags(&state->handle, cudaStreamNonBlocking));
  state->cuda_device = device;
  return Stream(std::move(state));
#else
  throw DeviceError("this build of CineLumen has no CUDA support");
#endif
}

Stream::State::~State() {
#ifdef __CUDACC__
  if (handle) {
    (void)cudaSetDevice(cuda_device);
    (void)cudaStreamSynchronize(handle);
    (void)cudaStreamDestroy(handle);
  }
#endif
}

void Stream::synchronize() const {
#ifdef __CUDACC__
  if (on_cuda()) {
    CINELUMEN_CUDA(cudaSetDevice(cuda_device()));
    CINELUMEN_CUDA(cudaStreamSynchronize(handle()));
  }
#endif
}

Stream Stream::another() const { return on_cuda() ? cuda(cuda_device()) : cpu(schedule()); }

struct Event::State {
#ifdef __CUDACC__
  int device = 0;
  cudaEvent_t event = nullptr;
  ~State() {
    if (event && cudaEventDestroy(event) != cudaSuccess) (void)cudaGetLastError();
  }
#endif
};

Event::Event([[maybe_unused]] const Stream& stream) {
#ifdef __CUDACC__
  if (!stream.on_cuda()) return;
  CINELUMEN_CUDA(cudaSetDevice(stream.cuda_device()));
  auto state = std::make_shared<State>();
  state->device = stream.cuda_device();
  // A thread that waits for it leaves its core to others.
  CINELUMEN_CUDA(cudaEventCreateWithFlags(&state->event, cudaEventDisableTiming | cudaEventBlockingSync));
  state_ = std::move(state);
#endif
}

void Event::record([[maybe_unused]] const Stream& stream) {
#ifdef __CUDACC__
  if (!state_) return;
  CINELUMEN_CUDA(cudaSetDevice(state_->device));
  CINELUMEN_CUDA(cudaEventRecord(state_->event, stream.handle()));
#endif
}

void Event::hold([[maybe_unused]] const Stream& stream) const {
#ifdef __CUDACC__
  if (!state_) return;
  CINELUMEN_CUDA(cudaSetDevice(state_->device));
  CINELUMEN_CUDA(cudaStreamWaitEvent(stream.handle(), state_->event, 0));
#endif
}

void Event::wait() const {
#ifdef __CUDACC__
  if (!state_) return;
  CINELUMEN_CUDA(cudaSetDevice(state_->device));
  CINELUMEN_CUDA(cudaEventSynchronize(state_->event));
#endif
}

struct Recording::State {
#ifdef __CUDACC__
  int device = 0;
  cudaGraphExec_t graph = nullptr;
  ~State() {
    if (graph && cudaGraphExecDestroy(graph) != cudaSuccess) (void)cudaGetLastError();
  }
#endif
};

#ifdef __CUDACC__
namespace {

struct DestroyGraph {
  void operator()(cudaGraph_t graph) const {
    if (graph && cudaGraphDestroy(graph) != cudaSuccess) (void)cudaGetLastError();
  }
};
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;

Graph capture(const Stream& stream, const std::function<void()>& work) {
  CINELUMEN_CUDA(cudaSetDevice(stream.cuda_device()));
  // What other threads do meanwhile is no concern of this capture.
  CINELUMEN_CUDA(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    work();
    CINELUMEN_CUDA(cudaStreamEndCapture(stream.handle(), &graph));
  } catch (...) {
    // A stream left capturing could not even free its memory.
    if (cudaStreamEndCapture(stream.handle(), &graph) != cudaSuccess) (void)cudaGetLastError();
    Graph(graph).reset();
    throw;
  }
  return Graph(graph);
}

}  // namespace
#endif

Recording::Recording([[maybe_unused]] const Stream& stream, std::function<void()> work) {
#ifdef __CUDACC__
  if (stream.on_cuda()) {
    const Graph graph = capture(stream, work);
    auto state = std::make_shared<State>();
    state->device = stream.cuda_device();
    CINELUMEN_CUDA(cudaGraphInstantiate(&state->graph, graph.get(), 0));
    state_ = std::move(state);
    return;
  }
#endif
  work_ = std::move(work);
}

void Recording::launch([[maybe_unused]] const Stream& stream) const {
#ifdef __CUDACC__
  if (state_) {
    CINELUMEN_CUDA(cudaSetDevice(state_->device));
    CINELUMEN_CUDA(cudaGraphLaunch(state_->graph, stream.handle()));
    return;
  }
#endif
  if (work_) work_();
}

int cuda_device_count() noexcept {
#ifdef __CUDACC__
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  return count;
#else
  return 0;
#endif
}

namespace {

std::string cpu_model() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

std::unique_ptr<oneapi::tbb::global_control> thread_limit;
std::mutex thread_limit_mutex;

}  // namespace

std::string device_name(const Stream& stream) {
#ifdef __CUDACC__
  if (stream.on_cuda()) {
    cudaDeviceProp properties{};
    CINELUMEN_CUDA(cudaGetDeviceProperties(&properties, stream.cuda_device()));
    return "CUDA:" + std::to_string(stream.cuda_device()) + " (" + properties.name + ")";
  }
#endif
#if defined(__AVX512F__)
  const char* isa = "x86-64-v4";
#elif defined(__AVX2__)
  const char* isa = "x86-64-v3";
#else
  const char* isa = "baseline";
#endif
  return "CPU (" + cpu_model() + ", " + isa + ", " + std::to_string(stream.schedule().parallel ? cpu_threads() : 1) + " threads)";
}

void set_cpu_threads(int threads) {
  const std::lock_guard lock(thread_limit_mutex);
  thread_limit.reset();
  if (threads > 0)
    thread_limit = std::make_unique<oneapi::tbb::global_control>(oneapi::tbb::global_control::max_allowed_parallelism,
                                                                 static_cast<std::size_t>(threads));
}

int cpu_threads() {
  return static_cast<int>(
      std::min<std::size_t>(oneapi::tbb::global_control::active_value(oneapi::tbb::global_control::max_allowed_parallelism),
                            static_cast<std::size_t>(oneapi::tbb::info::default_concurrency())));
}

void parallel_for(int count, const std::function<void(int)>& body) {
  oneapi::tbb::parallel_for(oneapi::tbb::blocked_range<int>(0, count, 1), [&](const auto& range) {
    for (int i = range.begin(); i < range.end(); ++i) body(i);
  });
}

void run_alone(const std::function<void()>& body) { oneapi::tbb::task_arena(1).execute(body); }

void pipeline(int count, int in_flight, const std::vector<PipelineStage>& stages) {
  if (in_flight < 1) throw std::invalid_argument("pipeline: in_flight = " + std::to_string(in_flight) + ", at least 1 expected");
  if (in_flight == 1) {
    for (int item = 0; item < count; ++item)
      for (const PipelineStage& stage : stages) stage.body(item, 0);
    return;
  }
  namespace tbb = oneapi::tbb;
  int next = 0;
  tbb::filter<void, int> chain = tbb::make_filter<void, int>(tbb::filter_mode::serial_in_order, [&](tbb::flow_control& control) {
    if (next >= count) control.stop();
    return next++;
  });
  for (const PipelineStage& stage : stages) {
    const auto mode = stage.in_order ? tbb::filter_mode::serial_in_order : tbb::filter_mode::parallel;
    // Isolated: a thread that waits inside a body must not pick up another item's stage meanwhile.
    chain = chain & tbb::make_filter<int, int>(mode, [&stage, in_flight](int item) {
              tbb::this_task_arena::isolate([&] { stage.body(item, item % in_flight); });
              return item;
            });
  }
  // Items leave in order, so item + in_flight enters only when this one has left: item % in_flight is free.
  tbb::parallel_pipeline(static_cast<std::size_t>(in_flight),
                         chain & tbb::make_filter<int, void>(tbb::filter_mode::serial_in_order, [](int) {}));
}

}  // namespace cinelumen
