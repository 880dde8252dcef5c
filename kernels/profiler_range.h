#pragma once
/// What a profiler of the device is told: names of stages (NVTX ranges, seen by Nsight Systems), and when to look. Nothing at all in a
/// build without CUDA.

namespace cinelumen {

/// A range of the calling thread as long as it lives. `name` is a literal.
class ProfilerRange {
 public:
#ifdef CINELUMEN_WITH_CUDA
  /// Opens the range.
  explicit ProfilerRange(const char* name);
  ~ProfilerRange();
#else
  explicit ProfilerRange(const char*) {}
  ~ProfilerRange() {}  // NOLINT(modernize-use-equals-default): else a range that is only held would count as unused
#endif
  ProfilerRange(const ProfilerRange&) = delete;
  ProfilerRange& operator=(const ProfilerRange&) = delete;
};

/// What runs from now on belongs into the profile, or no longer does (cudaProfilerStart, cudaProfilerStop).
#ifdef CINELUMEN_WITH_CUDA
void profile(bool on);
#else
inline void profile(bool) {}
#endif

}  // namespace cinelumen
