#pragma once
/// What `stream` writes: the files of `analyze`, in memory that does not grow.

#include <cstdint>
#include <filesystem>
#include <memory>

#include "engine/live_analysis.h"

namespace cinelumen {

/// Where and how much.
struct LiveResultOptions {
  std::filesystem::path folder;
  int kept_frames = 900;   ///< of subtracted.dcm and of the report's loop: the last ones, as LiveOptions::kept_frames
  bool per_point = false;  ///< lumen.csv: a row per centreline point and frame instead of one per segment and frame
};

/// Writes lumen.csv and time_density.csv as frames are measured and keeps the last subtracted frames in a scratch file of fixed size.
class LiveResultWriter {
 public:
  /// Makes the folder. `header` outlives the writer. Throws OutputError.
  LiveResultWriter(const Run& header, const Calibration& calibration, LiveResultOptions options);
  /// Removes what is unfinished unless finish() returned.
  ~LiveResultWriter();
  /// The scale of the frames that follow.
  void calibrate(const Calibration& calibration);
  /// Takes one frame, in order.
  void add(const LiveFrame& frame);
  /// Writes summary, pictures, report and subtracted.dcm and gives all files their names. Throws OutputError.
  void finish(Analysis& analysis);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cinelumen
