#pragma once
/// Does a segment's calibre change while the run goes on? Frame by frame, against the segment's own earlier frames (methods.md 7).

#include <array>
#include <optional>
#include <vector>

#include "engine/centreline.h"
#include "engine/diameter_profile.h"

namespace cinelumen {

/// When a change of calibre is told. Our own choice, not clinically validated.
struct ChangePointOptions {
  double hazard = 1.0 / 50;     ///< a priori chance of a change per frame and segment; shared out over its windows
  double level_sd = 0.5;        ///< of a new level of ln D, a priori
  double between_sd = 0.01;     ///< of ln D from frame to frame beside the measurement's error, before the run has shown it
  double between_frames = 8;    ///< so many frames' worth is that known beforehand
  double least_change = 0.15;   ///< share of the calibre: smaller changes are not told
  double probability = 0.999;   ///< that the change is at least that
  double window_mm = 5;         ///< length of the windows that are watched beside the whole segment: twice as long a change fills one
  double window_px = 16;        ///< the same where the scale is not known, and at least
  double kappa_share = 0.9;     ///< filled: attenuation per mm of its highest in the run ...
  double kappa_flat = 0.1;      ///< ... and no further (natural log) above that of two frames before
  double measured_share = 0.5;  ///< of a window's points, used: else the frame says nothing there
  double kept_share = 0.75;     ///< and of as many as there usually were: of those that get too narrow the widest would be left
  int frames_before = 8;        ///< filled frames at the old calibre, at least
  int frames_after = 3;         ///< and since it began to change
  double lasting_ms = 500;      ///< since then, at least: what frames share may stay for a few of them
  int frames_confirmed = 2;     ///< of these: with places wide enough to tell their own attenuation per mm; or else ...
  int frames_settled = 5;       ///< ... so many at the new calibre, and the vessel either side of it unchanged
};

/// Adams and MacKay (2007): posterior of the time since the last change of a Gaussian series' level, of known variance per value. What is
/// unlikely is pruned, so that a value costs the same however long the series is.
class ChangePointPosterior {
 public:
  ChangePointPosterior(double hazard, double level_sd) : hazard_(hazard), level_sd_(level_sd) {}
  /// The next value and its variance, > 0.
  void add(double value, double variance);
  /// Probability that there was a change and the level now lies below that of all values before it by more than `step` > 0.
  double probability_of_fall(double step) const { return probability(step, -1); }
  /// The same above.
  double probability_of_rise(double step) const { return probability(step, 1); }
  int count() const { return count_; }

 private:
  struct RunLength {
    int start = 0;  // index of its first value
    double weight = 1, level = 0, precision = 0;
    double before = 0, before_precision = 0;  // of all values before
  };
  double probability(double step, int sign) const;
  double hazard_, level_sd_;
  int count_ = 0;
  double sum_ = 0, precision_ = 0;
  std::vector<RunLength> runs_;
};

/// Page's CUSUM of standardised values, both ways: the comparator.
class Cusum {
 public:
  explicit Cusum(double k = 0.5, double h = 5) : k_(k), h_(h) {}
  /// The next standardised value; true once either sum has passed h.
  bool add(double z);

 private:
  double k_, h_, fall_ = 0, rise_ = 0;
  bool alarm_ = false;
};

/// What one window showed over some frames.
struct CalibreReading {
  double first_ms = 0, last_ms = 0;
  int first_frame = 0, last_frame = 0, frames = 1;
  int confirmed = 0;               ///< of them: in which some places were wide enough to tell their own attenuation per mm
  double value = 0, variance = 0;  ///< mean ln of calibre over the reference profile, and its variance
  double kappa = 0;                ///< mean attenuation per px of lumen
  double common = 0;               ///< SD of ln D that frames share
  double mid_ms() const { return 0.5 * (first_ms + last_ms); }
};

/// A level, then another, with a straight way between.
struct RampFit {
  double change = 0, change_sd = 0;              ///< of ln D
  double onset_ms = 0;                           ///< posterior mode: the last moment at the old level
  std::array<double, 2> onset_interval_ms = {};  ///< 95 %
  double chi2 = 0;                               ///< at the mode
  std::size_t before = 0, settled = 0;           ///< readings at the old level; first reading at the new one, at the mode
};

/// Posterior of when and by how much a series changed once, over all beginnings and ends of a way from one level to another: straight, and
/// where `bent` is set also one that begins and ends gently; an end has a priori the less chance the longer the way. Empty for fewer than
/// three readings.
std::optional<RampFit> fit_ramp(const std::vector<CalibreReading>& readings, double level_sd, bool bent = true);

/// A change of calibre within a run.
struct ChangeWithinRun {
  double onset_ms = 0;
  std::array<double, 2> onset_interval_ms = {};
  int onset_frame = 0;                             ///< number of the last frame at the old calibre
  int before_first = 0, before_last = 0;           ///< numbers of the first and last frame that it is held against
  int frames_before = 0, frames_after = 0;         ///< how many were measured filled
  double narrowing_percent = 0, percent_sd = 0;    ///< negative: wider
  std::array<double, 2> ci95 = {};                 ///< percent
  double probability = 0;                          ///< that it changed by ChangePointOptions::least_change or more, when it was told
  bool still_changing = false;                     ///< when last measured: it is at least that
  int point = 0, first_point = 0, last_point = 0;  ///< centreline points: where most, and over which stretch
  double extent_px = 0;                            ///< length of what has changed by half as much or more
  bool cusum_agrees = false;
  bool narrower() const { return narrowing_percent > 0; }
};

/// Where a centreline's point lay before the vessels were traced anew: segment and point, {-1, ...}: nowhere.
using PointBefore = std::array<int, 2>;

/// The place that was a segment's point, or nearly; empty: none.
std::optional<std::size_t> find_point(const std::vector<PointBefore>& before, int segment, int point);

/// Watches one segment: the whole of it, and windows that overlap by half. Memory does not grow with the run.
///
/// A place is held against its own diameters in the first frames in which it was filled. A window's frame counts where the attenuation per
/// mm is on its plateau: what fills or empties changes that, or the width in a way of its own. When a later frame shows that the plateau
/// was not reached before, earlier frames are dropped. What widens is told where it had narrowed within the run: else it may be filling.
class CalibreWatch {
 public:
  /// mm_per_px <= 0: scale not known.
  CalibreWatch(const Centreline& centreline, double mm_per_px, const ChangePointOptions& options = {});
  /// The same vessels under another centreline, which may be pieces of several: `before` has for each of its points where it lay, index
  /// into `old` and point; what is told of a place goes where the place goes (find_point).
  CalibreWatch(const Centreline& centreline, double mm_per_px, const std::vector<const CalibreWatch*>& old,
               const std::vector<PointBefore>& before, const ChangePointOptions& options = {});
  /// One frame: its number, its time (later than the last one's), one LumenPoint per centreline point or fewer, by LumenPoint::point.
  /// Returns what is told for the first time: a place that narrows further, or more of the segment that follows, is the same change.
  std::vector<ChangeWithinRun> add(int frame, double time_ms, const std::vector<LumenPoint>& points);
  /// One frame as it was measured for the watches that this one was made of, and as it is now (other centrelines, another point spread),
  /// one LumenPoint per centreline point or fewer, by LumenPoint::point: what differs there is no change of the vessel. Before that frame's
  /// add().
  void level(const std::vector<LumenPoint>& before, const std::vector<LumenPoint>& now);
  /// All that was told, with the figures of all frames since.
  std::vector<ChangeWithinRun> changes() const;

 private:
  struct Reference {
    float sum = 0, by_contrast = 0;  // of its first frames: ln D, and ln of sqrt(attenuation per mm) D
    float recent = 0, variance = 0;  // ln of calibre over theirs, smoothed over time; of the last frame's
    int frames = 0, seen = 0;
    int own_kappa = 0;  // frames of the first ones
  };
  struct Residual {
    float value = 0, by_contrast = 0, variance = 0, common = 0, kappa = 0, kappa_variance = 0;  // variance 0: none
    bool own_kappa = false;
  };
  struct Recent {
    double value = 0, variance = 0;
  };
  struct Between {
    double sum = 0, frames = 0;  // of variance beside the measurements'
  };
  struct Window {
    std::size_t first = 0, last = 0;  // points, inclusive
    double plateau = 0, kappa_before = 0, kappa_two_before = 0;
    double usual_share = 0;  // of its points, used in frames that it was filled in
    double offset = 0;       // of its values against what its points say: it went on with the readings of other points
    double recent = 0;       // value, smoothed as the points' are
    int seen = 0;
    std::array<Recent, 4> latest = {};  // readings, round and round
    std::size_t taken = 0;
    Between neighbours, apart;
    ChangePointPosterior posterior{1, 1};
    std::vector<CalibreReading> readings;
    std::vector<CalibreReading> earlier;  // up to the change that was told
    int told = 0;                         // -1: that it narrowed, 1: that it widened
  };
  struct Told {
    ChangeWithinRun change;
    std::size_t window = 0;  // that showed it first; their number: it is not watched any more
    bool settled = false;    // another has followed: its figures stay
  };
  void make_windows(double mm_per_px);
  std::size_t window_at(std::size_t point) const;
  void refer(const std::vector<LumenPoint>& points);
  void level_references(const std::vector<Residual>& before);
  double against_reference(std::size_t point) const;
  std::optional<CalibreReading> read(Window& window) const;
  void take(Window& window, CalibreReading reading) const;
  bool filled(Window& window, double kappa, double kappa_sd) const;
  ChangePointPosterior fresh() const;
  void tell(Window& window, int sign) const;
  bool is_vouched_for(const std::vector<CalibreReading>& readings, const RampFit& ramp, const ChangeWithinRun& change) const;
  std::optional<ChangeWithinRun> examine(const Window& window, int sign, bool bent) const;
  void locate(ChangeWithinRun& change, const Window& window) const;

  ChangePointOptions options_;
  std::vector<float> arc_length_px_;
  std::vector<Reference> references_;
  std::vector<Residual> residuals_;  // of the frame at hand
  std::vector<Window> windows_;      // the last is the whole segment, where it is longer than one window
  std::vector<Told> told_;
};

}  // namespace cinelumen
