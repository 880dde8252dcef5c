#pragma once
/// A trace as a file that chrome://tracing and ui.perfetto.dev open.

#include <filesystem>
#include <string>

#include "engine/trace.h"

namespace cinelumen {

/// Chrome's JSON: a row per thread, a bar per stage with its frame (1-based) as argument, times in us since the recording began.
std::string trace_json(const Trace::Record& record);

/// Records from now until it is written or dies; the calling thread's row is "main".
class TraceFile {
 public:
  /// Tries the folder: throws OutputError where nothing can be written there.
  explicit TraceFile(std::filesystem::path path);
  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;
  ~TraceFile();
  /// Ends the recording and writes it. The file gets its name when it is complete. Throws OutputError.
  void write();

 private:
  std::filesystem::path path_, temporary_;
  bool recording_ = true;
};

}  // namespace cinelumen
