#pragma once
/// Everything `analyze` writes: the folder's files, streamed while the run is analysed.

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/analysis.h"

namespace cinelumen {

/// Where and how results are written.
struct ResultOptions {
  std::filesystem::path folder;
  bool video = true;                                                            ///< overlay.mp4 too
  std::function<void(const std::string& stage, int done, int total)> progress;  ///< passed on from the analysis; may be empty
};

/// Version and commit of this build, as in analysis.json.
const char* software_version();
const char* software_commit();

/// analysis.json (schema cinelumen.analysis/1): UTF-8, null where a thing is not known, never NaN or infinity, always in the same order.
std::string analysis_json(const Run& run, const Analysis& analysis);

/// time_density.csv: frame,time_ms,segment,contrast; segments by id, then regions by name.
std::string time_density_csv(const Analysis& analysis);

/// Text as one CSV cell: quoted where needed, and never a formula for a spreadsheet.
std::string csv_cell(const std::string& text);

/// Streams frames into lumen.csv, subtracted.dcm, overlay.mp4 and the report's loop while analyze() runs; finish() writes the rest and
/// gives all files their names. What it keeps does not grow with the run's length beyond the report's 120 small JPEG pictures at most.
class ResultWriter : public AnalysisObserver {
 public:
  /// Makes the folder. `run` and `analysis_options` outlive the writer. Throws OutputError.
  ResultWriter(const Run& run, const AnalysisOptions& analysis_options, ResultOptions options);
  /// Removes what is unfinished unless finish() returned.
  ~ResultWriter() override;

  void progress(const std::string& stage, int done, int total) override;
  void topology_done(const Analysis& so_far) override;
  std::shared_ptr<const void> prepare(const FrameResult& frame) override;
  void frame_done(const FrameResult& frame) override;

  /// Completes `analysis` by what only the writer knows (its warnings, the time it took as timing.stages["write"]), writes the summary,
  /// the pictures and the report, and gives all files their names. Throws OutputError; std::logic_error unless every frame was seen.
  void finish(Analysis& analysis);

  /// Time spent in the writer so far, summed over threads.
  double write_ms() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cinelumen
