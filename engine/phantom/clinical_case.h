#pragma once
/// One patient's foot over seven runs: reference, valvulotomy, two spasmolytics, next day, two months later, redo (clinical.md). Bones,
/// tissue and vessels are the same in all of them; noise, motion, the injection's timing and the patient's pose are not.

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "engine/phantom/phantom.h"

namespace cinelumen {

/// Runs of a case.
constexpr int phantom_case_runs = 7;

/// Which case to make.
struct PhantomCaseOptions {
  /// For every run, with `seed` the case's: anatomy, findings and the runs' own seeds follow from it. `scenario`: foot, motion-rigid or
  /// motion-nonrigid. Contrast-free frames and poses are the case's own; inlet velocity and bolus are changed from run to run.
  PhantomOptions base;
  std::string variant = "refractory";  ///< one of phantom_case_variants()
  bool devices = true;                 ///< stent-grafts about the arterialised vein
};

/// refractory: disseminated spasm that two drugs do not relieve, gone the next day, then an occlusion, then open again, with a second
/// stent-graft that closes a perforator; relieved: the drugs relieve it; valve-and-fixed: valve remnants that a balloon opens, fixed
/// stenoses and one spasm; null: nothing changes; steal: wide perforators before the arch from the second to the fourth run, calibres as
/// they were.
const std::vector<std::string>& phantom_case_variants();

/// One line about a variant; empty for a name that is not known.
std::string phantom_case_summary(const std::string& variant);

/// What happened before a run.
struct PhantomEvent {
  int run = 0;        ///< 0-based
  std::string event;  ///< as in the events file
  std::string drug, dose;
  std::string acquired;  ///< of the run, ISO 8601
  std::string note;
  int session = 0;  ///< 0-based: runs of one procedure
};

/// One vessel segment in one run.
struct PhantomState {
  std::string state = "out of view";  ///< open, narrowed (from 25 %), not filled, occluded, out of view
  double narrowing_percent = 0;       ///< largest along what is seen here and in the first run: of the width across the ray without it
  double change_percent = 0;          ///< largest change of that width against the first run; negative: wider
  double at_mm = 0;                   ///< PhantomPoint::place_mm of the largest narrowing
  double extent_mm = 0;               ///< where the narrowing exceeds 25 %, along the vessel
  double diameter_mm = 0;             ///< width at `at_mm`, in space
  double contrast = 0;                ///< largest over the frames of the mean along the segment, parts of undiluted
  std::string label_now;              ///< as in comparison.json: what all runs say of this one
  std::string grade = "none";         ///< none, mild, severe
};

/// One vessel segment in all runs.
struct PhantomSegmentTimeline {
  std::string name, role;
  std::vector<PhantomState> runs;
  std::string label = "no change", grade = "none";             ///< as in comparison.json
  double narrowing_percent = 0, extent_mm = 0;                 ///< in the run where it is narrowest
  double lesion_extent_mm = 0;                                 ///< of the same narrowing along the vessel, across branch points
  double recovery = std::numeric_limits<double>::quiet_NaN();  ///< of a spasm, after the second drug; NaN: none
};

/// The truth of a whole case.
struct PhantomTimeline {
  std::string variant;
  std::uint64_t seed = 0;
  std::vector<PhantomEvent> events;  ///< one before each run
  std::vector<PhantomSegmentTimeline> segments;
  std::string response = "not tested";  ///< relieved, refractory, partial: of the spasms to the drugs
};

namespace phantom {
struct CasePlan;
}

/// A case whose findings are drawn; its runs are made one by one.
class PhantomCase {
 public:
  /// Draws what is found in which run. Throws std::invalid_argument as make_phantom() does, also for a variant or scenario that is not
  /// known.
  explicit PhantomCase(const PhantomCaseOptions& options);

  const PhantomCaseOptions& options() const { return options_; }
  /// What happened before each run.
  std::vector<PhantomEvent> events() const;
  /// One run, 0 to 6: the same bytes whichever other runs are made.
  PhantomRun run(int index) const;
  /// Its truth alone.
  PhantomTruth truth(int index) const;
  /// The expected linear counts of one of its frames.
  Image<float> expected_counts(int index, int frame) const;
  /// The case's truth, of its seven truths in order.
  PhantomTimeline timeline(const std::vector<PhantomTruth>& truths) const;

 private:
  PhantomCaseOptions options_;
  std::shared_ptr<const phantom::CasePlan> plan_;
};

/// Makes the runs one after the other and hands each to `use`; none is kept.
PhantomTimeline make_phantom_case(const PhantomCaseOptions& options, const std::function<void(int run, const PhantomRun&)>& use);

}  // namespace cinelumen
