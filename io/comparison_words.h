#pragma once
/// What was found over several runs, in words. Plain text: not escaped.

#include <string>
#include <vector>

#include "engine/comparison.h"

namespace cinelumen {

/// True for a label that names a lesion: not "no change", "not filled" or "indeterminate".
bool is_finding(const std::string& label);

/// True where a narrowing stands out, whatever is said of it.
bool stands_out(const TimelineEntry& entry, const ComparisonThresholds& thresholds);

/// "3 min", "2 months": the time between two ISO 8601 times; empty where one is not known or the second is not the later.
std::string time_between(const std::string& from, const std::string& to);

/// "valvulotomy"; "spasmolytic: papaverine 30 mg"; empty for none.
std::string event_words(const RunEvent& event);

/// What became of the vessels, in sentences of whole clauses.
struct Conclusion {
  std::string
      main;  ///< the gravest: spasm with its response and end, occlusions, dissections; else lesser findings; else that there is none
  std::string rest;  ///< lesser findings, and how many segments are unchanged or can't be judged; may be empty
};

/// Every word rests on the summary, label_now or an event. `runs` as given to compare_runs().
Conclusion conclude(const Comparison& comparison, const std::vector<ComparedRun>& runs);

}  // namespace cinelumen
