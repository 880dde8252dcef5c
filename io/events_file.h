#pragma once
/// What happened between runs, as the user tells it.

#include <string>
#include <vector>

#include "engine/timeline.h"

namespace cinelumen {

/// One run's line of the file.
struct EventLine {
  RunEvent event;
  std::string acquired;  ///< ISO 8601; empty: the file's own
};

/// All of it.
struct Events {
  std::vector<EventLine> lines;       ///< one per run; a run that is not named has none
  std::vector<std::string> warnings;  ///< lines that speak of runs that are not compared
};

/// Reads JSON: a list of {"run": file or folder name, or 1-based index, "event", "drug", "dose", "acquired", "note"}. `runs`: the paths as
/// given, in the order given; `sources`: of finished analyses the run that they are of, another name of theirs; may be empty. Throws
/// InputError: not JSON, an event that is not known, a number that no run has, a run named twice.
Events read_events(const std::string& path, const std::vector<std::string>& runs, const std::vector<std::string>& sources = {});

}  // namespace cinelumen
