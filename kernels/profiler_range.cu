#include "profiler_range.h"

#ifdef CINELUMEN_WITH_CUDA
#include <cuda_profiler_api.h>
#include <nvtx3/nvToolsExt.h>

#include "tile.h"

namespace cinelumen {

ProfilerRange::ProfilerRange(const char* name) { nvtxRangePushA(name); }
ProfilerRange::~ProfilerRange() { nvtxRangePop(); }

void profile(bool on) { CINELUMEN_CUDA(on ? cudaProfilerStart() : cudaProfilerStop()); }

}  // namespace cinelumen
#endif
