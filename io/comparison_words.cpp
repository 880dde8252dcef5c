#include "io/comparison_words.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <optional>

namespace cinelumen {
namespace {

std::string number_word(std::size_t n) {
  static constexpr std::array<const char*, 13> words = {"no",    "one",   "two",  "three", "four",   "five",  "six",
                                                        "seven", "eight", "nine", "ten",   "eleven", "twelve"};
  return n < words.size() ? words[n] : std::to_string(n);
}
std::string segments_in_words(std::size_t n) { return std::to_string(n) + (n == 1 ? " segment" : " segments"); }

std::string whole(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f", value);
  return text;
}

bool is_spasm(const std::string& label) { return label.rfind("spasm", 0) == 0; }

/// The sentence, clause by clause.
class Words {
 public:
  Words(const Comparison& comparison, const std::vector<ComparedRun>& runs) : comparison_(comparison), runs_(runs) {}

  Conclusion conclude() {
    add_spasm();
    add_occlusion();
    for (const char* label : {"dissection", "extravasation"}) add_label(label, "suspected ");
    Conclusion words;
    words.main = take_sentence();
    for (const char* label : {"fixed stenosis", "valve remnant", "narrowing below spasm grade"}) add_label(label);
    if (words.main.empty()) words.main = take_sentence();
    add_unnamed();
    if (words.main.empty()) words.main = take_sentence();
    const bool found = !words.main.empty();
    add_rest(found);
    (found ? words.rest : words.main) = take_sentence();
    return words;
  }

 private:
  using Segments = std::vector<const SegmentTimeline*>;

  /// The clauses so far as one sentence; none are left.
  std::string take_sentence() {
    std::string text;
    for (const std::string& clause : clauses_) text += (text.empty() ? "" : "; ") + clause;
    clauses_.clear();
    if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
    return text.empty() ? text : text + ".";
  }
  const ComparedRun& run(std::size_t r) const { return runs_[static_cast<std::size_t>(comparison_.runs[r].given)]; }
  EventKind event(std::size_t r) const { return run(r).event.kind; }
  std::string run_name(std::size_t r) const { return "run " + std::to_string(r + 1); }

  /// "run 6 (follow-up, 2 months after run 5)"
  std::string run_in_words(std::size_t r) const {
    std::string more = to_string(event(r));
    const std::string gap = r > 0 ? time_between(run(r - 1).acquired, run(r).acquired) : "";
    if (!gap.empty()) more += (more.empty() ? "" : ", ") + gap + " after " + run_name(r - 1);
    return run_name(r) + (more.empty() ? "" : " (" + more + ")");
  }
  std::string after_event(std::size_t r) const {
    switch (event(r)) {
      case EventKind::valvulotomy:
        return ", after valvulotomy";
      case EventKind::balloon:
        return ", after a balloon";
      case EventKind::spasmolytic:
        return ", after a spasmolytic";
      case EventKind::stent_graft:
        return ", after a stent-graft";
      case EventKind::redo:
        return ", after the redo";
      case EventKind::next_day:
        return ", the next day";
      case EventKind::follow_up:
        return ", at follow-up";
      default:
        return "";
    }
  }
  static std::string name(const SegmentTimeline& segment) {
    const std::string number = "segment " + std::to_string(segment.id);
    return segment.name.empty() || segment.name == number ? number : segment.name + " (" + number + ")";
  }
  /// Up to three by name, more by number.
  static std::string list(const Segments& segments) {
    if (segments.size() > 3) return segments_in_words(segments.size());
    std::string text;
    for (std::size_t i = 0; i < segments.size(); ++i)
      text += (i == 0 ? "" : i + 1 == segments.size() ? " and " : ", ") + name(*segments[i]);
    return text;
  }

  template <class Test>
  Segments segments_where(Test test) const {
    Segments found;
    for (const SegmentTimeline& segment : comparison_.segments)
      if (std::any_of(segment.entries.begin(), segment.entries.end(), test)) found.push_back(&segment);
    return found;
  }
  template <class Test>
  static std::size_t first_run(const SegmentTimeline& segment, Test test) {
    return static_cast<std::size_t>(std::find_if(segment.entries.begin(), segment.entries.end(), test) - segment.entries.begin());
  }
  template <class Test>
  static std::size_t last_run(const SegmentTimeline& segment, Test test) {
    std::size_t last = 0;
    for (std::size_t r = 0; r < segment.entries.size(); ++r)
      if (test(segment.entries[r])) last = r;
    return last;
  }

  /// What became of lesions: ", gone in 2 of 3 segments in run 5 (next day), still there in 1 in the last run". Each segment's end is the
  /// first run after its last lesion in which `over` holds.
  template <class Lesion, class Over>
  std::string ends(const Segments& segments, Lesion lesion, Over over, const char* word) const {
    const std::size_t last = comparison_.runs.size() - 1;
    std::vector<std::size_t> ended(last + 1, 0);
    std::size_t still = 0;
    for (const SegmentTimeline* segment : segments) {
      const std::size_t since = last_run(*segment, lesion);
      still += since == last;
      for (std::size_t r = since + 1; r <= last; ++r)
        if (over(segment->entries[r])) {
          ++ended[r];
          break;
        }
    }
    const auto share = [&](std::size_t n, bool first) {
      if (n == segments.size()) return std::string();
      return " in " + std::to_string(n) + (first ? " of " + segments_in_words(segments.size()) : std::string());
    };
    std::string text;
    for (std::size_t r = 0; r <= last; ++r)
      if (ended[r] > 0) {
        text += "," + (text.empty() ? " " + std::string(word) : std::string()) + share(ended[r], text.empty()) + " in " + run_in_words(r);
      }
    if (still > 0) text += ", still there" + share(still, text.empty()) + " in the last run";
    return text;
  }

  void add_spasm() {
    const auto spastic = [](const TimelineEntry& entry) { return is_spasm(entry.label_now); };
    const Segments segments = segments_where(spastic);
    if (segments.empty()) return;
    std::size_t first = comparison_.runs.size();
    for (const SegmentTimeline* segment : segments) first = std::min(first, first_run(*segment, spastic));
    const TimelineSummary& summary = comparison_.summary;
    std::string text =
        (summary.spasm_extent == "none" ? "" : summary.spasm_extent + " ") + "spasm in " + segments_in_words(segments.size());
    if (comparison_.calibrated && summary.spastic_mm > 0) text += " (" + whole(summary.spastic_mm) + " mm)";
    text += ", first seen in " + run_name(first) + after_event(first) + response(first);
    text += ends(
        segments, spastic, [](const TimelineEntry& entry) { return entry.label_now == "no change"; }, "gone");
    clauses_.push_back(text);
  }
  std::string response(std::size_t first) const {
    std::size_t drugs = 0;
    for (std::size_t r = first + 1; r < comparison_.runs.size(); ++r)
      drugs += comparison_.runs[r].procedure == comparison_.runs[first].procedure && event(r) == EventKind::spasmolytic;
    const std::string given = drugs == 1 ? "the spasmolytic" : number_word(drugs) + " spasmolytics";
    const std::string& word = comparison_.summary.response;
    if (drugs == 0) return ", no spasmolytic recorded since";
    if (word == "refractory") return ", not relieved by " + given;
    if (word == "relieved") return ", relieved after " + given;
    if (word == "partial") return ", partly relieved after " + given;
    return ", its response to " + given + " not to be judged";
  }

  void add_occlusion() {
    const auto shut = [](const TimelineEntry& entry) { return entry.label_now == "occlusion"; };
    const Segments segments = segments_where(shut);
    if (segments.empty()) return;
    for (std::size_t r = 0; r < comparison_.runs.size(); ++r) {
      Segments since;
      for (const SegmentTimeline* segment : segments)
        if (first_run(*segment, shut) == r) since.push_back(segment);
      if (since.empty()) continue;
      const auto open = [](const TimelineEntry& entry) { return entry.state == SegmentState::measured && entry.change.known; };
      clauses_.push_back("occlusion of " + list(since) + " in " + run_in_words(r) + ends(since, shut, open, "open"));
    }
  }

  void add_label(const char* label, const char* how = "") {
    Segments segments;
    for (const SegmentTimeline& segment : comparison_.segments)
      if (segment.label == label) segments.push_back(&segment);
    if (!segments.empty()) clauses_.push_back(std::string(how) + label + " in " + list(segments));
  }

  void add_unnamed() {
    Segments segments;
    for (const SegmentTimeline& segment : comparison_.segments)
      if (!is_finding(segment.label) && std::any_of(segment.entries.begin(), segment.entries.end(), [&](const TimelineEntry& entry) {
            return stands_out(entry, comparison_.thresholds) && entry.doubt.empty() && entry.label_now == "indeterminate";
          }))
        segments.push_back(&segment);
    if (!segments.empty()) clauses_.push_back("a narrowing that can't be named in " + list(segments));
  }

  void add_rest(bool found) {
    const auto with = [&](const char* label) {
      return static_cast<std::size_t>(std::count_if(comparison_.segments.begin(), comparison_.segments.end(),
                                                    [&](const SegmentTimeline& segment) { return segment.label == label; }));
    };
    const std::size_t unchanged = with("no change"), unknown = with("indeterminate") + with("not filled");
    if (!found) clauses_.emplace_back(unchanged > 0 ? "no finding" : "nothing can be said of a change");
    if (unchanged > 0) clauses_.push_back(segments_in_words(unchanged) + " unchanged");
    if (unknown > 0) clauses_.push_back(segments_in_words(unknown) + " can't be judged");
    std::size_t apart = 0;
    for (const ComparedRunSummary& summary : comparison_.runs) apart += !summary.comparable;
    if (apart > 0) clauses_.push_back(std::to_string(apart) + (apart == 1 ? " run" : " runs") + " can't be compared");
  }

  const Comparison& comparison_;
  const std::vector<ComparedRun>& runs_;
  std::vector<std::string> clauses_;
};

}  // namespace

bool is_finding(const std::string& label) { return label_gravity(label) > label_gravity("indeterminate"); }

bool stands_out(const TimelineEntry& entry, const ComparisonThresholds& thresholds) {
  return entry.significant && entry.change.known && entry.change.largest.percent >= thresholds.narrowing_percent;
}

std::string time_between(const std::string& from, const std::string& to) {
  const auto start = seconds_of(from), end = seconds_of(to);
  if (!start || !end || *end <= *start) return "";
  const double seconds = *end - *start;
  const auto words = [](double n, const char* one, const char* many) { return whole(n) + " " + (std::round(n) == 1 ? one : many); };
  constexpr double minute = 60, hour = 3600, day = 86400, week = 7 * day, month = 30.44 * day, year = 365.25 * day;
  if (seconds < 90) return words(seconds, "s", "s");
  if (seconds < 100 * minute) return words(seconds / minute, "min", "min");
  if (seconds < 36 * hour) return words(seconds / hour, "h", "h");
  if (seconds < 2 * week) return words(seconds / day, "day", "days");
  if (seconds < 7 * week) return words(seconds / week, "week", "weeks");
  if (seconds < 2 * year) return words(seconds / month, "month", "months");
  return words(seconds / year, "year", "years");
}

std::string event_words(const RunEvent& event) {
  std::string words = to_string(event.kind);
  if (!event.drug.empty()) words += (words.empty() ? "" : ": ") + event.drug + (event.dose.empty() ? "" : " " + event.dose);
  return words;
}

Conclusion conclude(const Comparison& comparison, const std::vector<ComparedRun>& runs) { return Words(comparison, runs).conclude(); }

}  // namespace cinelumen
