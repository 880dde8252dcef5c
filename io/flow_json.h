#pragma once
/// Flow of a run, as analysis.json and comparison.json have it.

#include "engine/flow.h"
#include "io/json_text.h"

namespace cinelumen {

/// arch, steal, early venous return, and the regions that the user drew; null where a thing is not known. Times in ms on the run's clock.
Json flow_json(const FlowSummary& flow);

}  // namespace cinelumen
