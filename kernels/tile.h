#pragma once
/// One kernel source, two machines. A kernel is a struct of its parameters whose call operator runs once per TILE as a few phases;
/// each phase ends with the barrier. Scratch is a struct that the kernel declares: shared memory on CUDA, a cache-sized buffer of
/// the running task on the CPU. Nothing per pixel survives a phase except in Scratch. `<<<` stands in this file only.
///
///     struct Scale {
///       ImageView<const float> input;
///       ImageView<float> output;
///       float factor;
///       template <int Height, int Width> struct Scratch {};
///       template <int Height, int Width>
///       CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
///         block.for_each_pixel(block.rows(output.height), block.columns(output.width), [&](int y, int x) {
///           output.row(block.y0 + y)[block.x0 + x] = factor * input.row(block.y0 + y)[block.x0 + x];
///         });
///       }
///     };
///
/// A kernel may give its own tile shapes: `using CpuTile = TileShape<64, 128>; using CudaTile = TileShape<16, 32>;`.

#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_for.h>
#include <algorithm>

#include "error.h"
#include "image.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
/// Throws DeviceError, naming the call, when a CUDA runtime call fails.
#define CINELUMEN_CUDA(call) ::cinelumen::detail::check_cuda((call), #call)
#endif

// Unrolls the loop that follows, so that one over pixels around it vectorises.
#ifdef __CUDACC__
#define CINELUMEN_UNROLL _Pragma("unroll")
#else
#define CINELUMEN_UNROLL _Pragma("GCC unroll 64")
#endif

namespace cinelumen {

/// Whether this is compiled for a GPU: the same source's other half may keep less, or more, than a CPU.
#ifdef __CUDA_ARCH__
inline constexpr bool on_device = true;
#else
inline constexpr bool on_device = false;
#endif

/// Pixels of one tile.
template <int Height, int Width>
struct TileShape {
  static constexpr int height = Height, width = Width;
};
using DefaultCpuTile = TileShape<64, 128>;  // L2 holds it with its scratch; rows are long enough for the vector unit
using DefaultCudaTile = TileShape<16, 32>;  // 48 KiB of shared memory hold a few planes of it with a 16-pixel halo

/// A plane of scratch.
template <class T, int Height, int Width>
struct Tile {
  T at[Height][Width];
  CINELUMEN_HOST_DEVICE T* operator[](int y) { return at[y]; }
  CINELUMEN_HOST_DEVICE const T* operator[](int y) const { return at[y]; }
};

inline constexpr int block_threads = 256;  // of a CUDA block
inline constexpr int sum_lanes = 16;       // one 512-bit register of floats; on CUDA half as many warps, and room for the totals

/// Scratch of Block::sum_pixels for `Count` sums.
template <int Count>
struct alignas(64) SumLanes {
  float lane[Count][sum_lanes];
  /// Total k of Block::sum_pixels, until the next phase: for a thread that needs no others.
  CINELUMEN_HOST_DEVICE float total(int k) const { return on_device ? lane[0][block_threads / 32 * Count + k] : lane[k][0]; }
};

/// `Count` sums of one pixel, what the body of Block::sum_pixels returns.
template <int Count>
struct Sums {
  float value[Count];
};

/// The tile a kernel's call operator works on.
template <int Height, int Width>
struct Block {
  static_assert(Height > 0 && Width > 0);
  static constexpr int height = Height, width = Width;
  int y0, x0;     ///< top-left output pixel of this tile
  int index;      ///< number of this tile, row by row: where its partial sums go
  bool reversed;  ///< CPU tests: run pixels in reverse order

  /// Rows and columns of this tile that lie inside an image of that size.
  CINELUMEN_HOST_DEVICE int rows(int image_height) const { return image_height - y0 < Height ? image_height - y0 : Height; }
  CINELUMEN_HOST_DEVICE int columns(int image_width) const { return image_width - x0 < Width ? image_width - x0 : Width; }

  /// Runs body(y, x) for every pixel of a region_height x region_width region, 0-based; returns when all are done (barrier).
  /// Bodies of one phase must not depend on one another.
  template <class Body>
  CINELUMEN_HOST_DEVICE void for_each_pixel(int region_height, int region_width, Body body) const {
#ifdef __CUDA_ARCH__
    for (int i = threadIdx.x; i < region_height * region_width; i += blockDim.x) body(i / region_width, i % region_width);
    __syncthreads();
#else
    if constexpr (Height == DefaultCudaTile::height || Height < 32) {  // the shape of tests
      if (reversed) {
        for (int y = region_height; y-- > 0;)
          for (int x = region_width; x-- > 0;) body(y, x);
        return;
      }
    }
    for (int y = 0; y < region_height; ++y)
#pragma GCC ivdep
      for (int x = 0; x < region_width; ++x) body(y, x);
#endif
  }

  /// Sums body(y, x) (a Sums<Count>) over a region, in an order that depends only on the region's size and the machine's kind.
  /// The totals are valid in every thread on return. `lanes` is scratch and free again after the next phase.
  template <int Count, class Body>
  CINELUMEN_HOST_DEVICE Sums<Count> sum_pixels(int region_height, int region_width, SumLanes<Count>& lanes, Body body) const {
    Sums<Count> total;
#ifdef __CUDA_ARCH__
    constexpr int warps = block_threads / 32;
    static_assert(warps < sum_lanes);
    float* const lane = lanes.lane[0];
    for (int k = 0; k < Count; ++k) total.value[k] = 0;
    for (int i = threadIdx.x; i < region_height * region_width; i += block_threads) {
      const Sums<Count> one = body(i / region_width, i % region_width);
      for (int k = 0; k < Count; ++k) total.value[k] += one.value[k];
    }
    for (int k = 0; k < Count; ++k) {
      for (int step = 16; step > 0; step /= 2) total.value[k] += __shfl_down_sync(0xffffffffu, total.value[k], step);
      if (threadIdx.x % 32 == 0) lane[threadIdx.x / 32 * Count + k] = total.value[k];
    }
    __syncthreads();
    if (threadIdx.x < Count) {
      float sum = 0;
      for (int warp = 0; warp < warps; ++warp) sum += lane[warp * Count + threadIdx.x];
      lane[warps * Count + threadIdx.x] = sum;
    }
    __syncthreads();
    for (int k = 0; k < Count; ++k) total.value[k] = lane[warps * Count + k];
    __syncthreads();  // nobody may reuse the lanes before all have read the totals
#else
    for (int k = 0; k < Count; ++k)
      for (int l = 0; l < sum_lanes; ++l) lanes.lane[k][l] = 0;
    for (int y = 0; y < region_height; ++y) {
      int x = 0;
      for (; x + sum_lanes <= region_width; x += sum_lanes)
#pragma GCC ivdep
        for (int l = 0; l < sum_lanes; ++l) {
          const Sums<Count> one = body(y, x + l);
          for (int k = 0; k < Count; ++k) lanes.lane[k][l] += one.value[k];
        }
      for (int l = 0; x < region_width; ++x, ++l) {
        const Sums<Count> one = body(y, x);
        for (int k = 0; k < Count; ++k) lanes.lane[k][l] += one.value[k];
      }
    }
    for (int k = 0; k < Count; ++k) {
      for (int step = sum_lanes / 2; step > 0; step /= 2)
        for (int l = 0; l < step; ++l) lanes.lane[k][l] += lanes.lane[k][l + step];
      total.value[k] = lanes.lane[k][0];
    }
#endif
    return total;
  }

  /// Runs body() once, by one thread; returns when it is done (barrier).
  template <class Body>
  CINELUMEN_HOST_DEVICE void once(Body body) const {
#ifdef __CUDA_ARCH__
    if (threadIdx.x == 0) body();
    __syncthreads();
#else
    body();
#endif
  }
};

namespace detail {

#ifdef __CUDACC__
void check_cuda(cudaError_t error, const char* call);

inline constexpr int item_threads = 128;

// The bounds tell ptxas how many registers a thread may have: a kernel that needs more spills, and the build says so.
template <int Height, int Width, class Kernel>
__global__ void __launch_bounds__(block_threads) run_tile(Kernel kernel) {
  __shared__ typename Kernel::template Scratch<Height, Width> scratch;
  kernel(Block<Height, Width>{static_cast<int>(blockIdx.y) * Height, static_cast<int>(blockIdx.x) * Width,
                              static_cast<int>(blockIdx.y * gridDim.x + blockIdx.x), false},
         scratch);
}

/// The same; then the block that is done last runs kernel.finish.
// Two blocks at a time: left to itself, ptxas aims at more and spills for it.
template <int Height, int Width, class Kernel>
__global__ void __launch_bounds__(block_threads, 2) run_tile_and_finish(Kernel kernel, unsigned* ticket) {
  __shared__ typename Kernel::template Scratch<Height, Width> scratch;
  __shared__ bool last;
  kernel(Block<Height, Width>{static_cast<int>(blockIdx.y) * Height, static_cast<int>(blockIdx.x) * Width,
                              static_cast<int>(blockIdx.y * gridDim.x + blockIdx.x), false},
         scratch);
  __threadfence();  // every thread's results, before its block takes a ticket
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(ticket, 1u) == gridDim.x * gridDim.y - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (threadIdx.x == 0) *ticket = 0;
  kernel.finish(Block<Height, Width>{0, 0, 0, false}, scratch);
}

template <class Kernel>
__global__ void __launch_bounds__(item_threads) run_items(Kernel kernel, int count) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) kernel(i);
}
#endif

template <class Kernel>
struct CpuTileOf {
  using type = DefaultCpuTile;
};
template <class Kernel>
requires requires { typename Kernel::CpuTile; }
struct CpuTileOf<Kernel> {
  using type = typename Kernel::CpuTile;
};
template <class Kernel>
struct CudaTileOf {
  using type = DefaultCudaTile;
};
template <class Kernel>
requires requires { typename Kernel::CudaTile; }
struct CudaTileOf<Kernel> {
  using type = typename Kernel::CudaTile;
};

/// Scratch memory of the running thread, grown to the largest kernel's need and kept. 64-byte aligned.
void* thread_scratch(std::size_t bytes);

inline int tiles_along(int extent, int tile) { return (extent + tile - 1) / tile; }

template <class Shape, class Kernel>
void run_tiles_on_cpu(const CpuSchedule& schedule, int height, int width, const Kernel& kernel) {
  using Scratch = typename Kernel::template Scratch<Shape::height, Shape::width>;
  const int columns = tiles_along(width, Shape::width), count = tiles_along(height, Shape::height) * columns;
  const auto run = [&](int first, int last) {
    // Kernels never start nested parallel work, so no second tile can enter this thread's scratch while one uses it.
    Scratch& scratch = *static_cast<Scratch*>(thread_scratch(sizeof(Scratch)));
    for (int i = first; i < last; ++i) {
      const int tile = schedule.reversed ? count - 1 - i : i;
      kernel(Block<Shape::height, Shape::width>{tile / columns * Shape::height, tile % columns * Shape::width, tile, schedule.reversed},
             scratch);
    }
  };
  if (!schedule.parallel || count == 1) {
    run(0, count);
    return;
  }
  oneapi::tbb::parallel_for(oneapi::tbb::blocked_range<int>(0, count), [&](const auto& range) { run(range.begin(), range.end()); });
}

}  // namespace detail

/// Number of tiles that for_each_tile runs for this kernel and image: the size of its array of partial results.
template <class Kernel>
int tile_count(const Stream& stream, int height, int width) {
  using Cpu = typename detail::CpuTileOf<Kernel>::type;
  using Cuda = typename detail::CudaTileOf<Kernel>::type;
  if (stream.on_cuda() || stream.schedule().cuda_tiles || stream.schedule().reversed)
    return detail::tiles_along(height, Cuda::height) * detail::tiles_along(width, Cuda::width);
  return detail::tiles_along(height, Cpu::height) * detail::tiles_along(width, Cpu::width);
}

/// Runs the kernel once per tile of a height x width output. Does nothing for an empty image.
template <class Kernel>
void for_each_tile(const Stream& stream, int height, int width, const Kernel& kernel) {
  if (height <= 0 || width <= 0) return;
  using Cpu = typename detail::CpuTileOf<Kernel>::type;
  using Cuda = typename detail::CudaTileOf<Kernel>::type;
#ifdef __CUDACC__
  if (stream.on_cuda()) {
    CINELUMEN_CUDA(cudaSetDevice(stream.cuda_device()));
    const dim3 grid(detail::tiles_along(width, Cuda::width), detail::tiles_along(height, Cuda::height));
    detail::run_tile<Cuda::height, Cuda::width><<<grid, block_threads, 0, stream.handle()>>>(kernel);
    detail::check_cuda(cudaGetLastError(), "kernel launch");
    return;
  }
#endif
  if (stream.schedule().cuda_tiles || stream.schedule().reversed)
    detail::run_tiles_on_cpu<Cuda>(stream.schedule(), height, width, kernel);
  else
    detail::run_tiles_on_cpu<Cpu>(stream.schedule(), height, width, kernel);
}

/// Runs the kernel once per tile, then kernel.finish(block, scratch) once, in one block, which sees what all tiles have written. `ticket`:
/// one zero in memory of the stream's device, zero again afterwards; not for two streams at once. height and width > 0.
template <class Kernel>
void for_each_tile_then_finish(const Stream& stream, int height, int width, const Kernel& kernel,
                               [[maybe_unused]] ArrayView<unsigned> ticket) {
  using Cpu = typename detail::CpuTileOf<Kernel>::type;
  using Cuda = typename detail::CudaTileOf<Kernel>::type;
#ifdef __CUDACC__
  if (stream.on_cuda()) {
    CINELUMEN_CUDA(cudaSetDevice(stream.cuda_device()));
    const dim3 grid(detail::tiles_along(width, Cuda::width), detail::tiles_along(height, Cuda::height));
    detail::run_tile_and_finish<Cuda::height, Cuda::width><<<grid, block_threads, 0, stream.handle()>>>(kernel, ticket.data);
    detail::check_cuda(cudaGetLastError(), "kernel launch");
    return;
  }
#endif
  const auto run = [&]<class Shape>(Shape) {
    using Scratch = typename Kernel::template Scratch<Shape::height, Shape::width>;
    detail::run_tiles_on_cpu<Shape>(stream.schedule(), height, width, kernel);
    kernel.finish(Block<Shape::height, Shape::width>{0, 0, 0, stream.schedule().reversed},
                  *static_cast<Scratch*>(detail::thread_scratch(sizeof(Scratch))));
  };
  if (stream.schedule().cuda_tiles || stream.schedule().reversed)
    run(Cuda{});
  else
    run(Cpu{});
}

/// Runs kernel(i) for 0 <= i < count: one CUDA thread, or one step of a CPU loop, each. Items must not depend on one another.
/// `grain`: items a CPU task takes at a time.
template <class Kernel>
void for_each_item(const Stream& stream, int count, const Kernel& kernel, int grain = 64) {
  if (count <= 0) return;
#ifdef __CUDACC__
  if (stream.on_cuda()) {
    CINELUMEN_CUDA(cudaSetDevice(stream.cuda_device()));
    detail::run_items<<<detail::tiles_along(count, detail::item_threads), detail::item_threads, 0, stream.handle()>>>(kernel, count);
    detail::check_cuda(cudaGetLastError(), "kernel launch");
    return;
  }
#endif
  const CpuSchedule& schedule = stream.schedule();
  const auto run = [&](int first, int last) {
    for (int i = first; i < last; ++i) kernel(schedule.reversed ? count - 1 - i : i);
  };
  if (!schedule.parallel || count <= grain)
    run(0, count);
  else
    oneapi::tbb::parallel_for(oneapi::tbb::blocked_range<int>(0, count, grain),
                              [&](const auto& range) { run(range.begin(), range.end()); });
}

}  // namespace cinelumen
