#include "engine/timeline.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "engine/words.h"

namespace cinelumen {
namespace {

constexpr const char* no_change = "no change";
constexpr const char* below_grade = "narrowing below spasm grade";
constexpr const char* relieved = "spasm, relieved";
constexpr const char* refractory = "spasm, refractory";
constexpr const char* not_settled = "spasm, not yet settled";
constexpr const char* fixed_stenosis = "fixed stenosis";
constexpr const char* valve_remnant = "valve remnant";
constexpr const char* occlusion = "occlusion";
constexpr const char* not_filled = "not filled";
constexpr const char* indeterminate = "indeterminate";

constexpr const char* extrapolation =
    "spasm grades are those of the axillary vein (50-90 % mild, 90 % and more severe; Europace 2012, n = 74): nobody has published any for "
    "arterialised veins of the foot, so this is an extrapolation";
constexpr const char* recovery_note = "the rule of recovery is our own proposal, not clinically validated";

bool is_spasm(const std::string& label) { return label.rfind("spasm", 0) == 0; }

/// What opens a vessel by force, as a drug does not.
bool is_mechanical(EventKind kind) {
  return kind == EventKind::valvulotomy || kind == EventKind::balloon || kind == EventKind::stent_graft || kind == EventKind::redo;
}

std::string run_name(std::size_t run) { return "run " + std::to_string(run + 1); }

/// Gravest first; the last three say nothing of a lesion.
int gravity(const std::string& label) {
  static const std::vector<std::string> order = {occlusion,      "dissection",  "extravasation", refractory,    not_settled, relieved,
                                                 fixed_stenosis, valve_remnant, below_grade,     indeterminate, not_filled,  no_change};
  return static_cast<int>(order.end() - std::find(order.begin(), order.end(), label));
}

/// A stretch of the segment that is narrow in some run, mm along the reference's centreline.
struct Site {
  double from = 0, to = 0, at = 0, extent = 0, possible = 0, half_depth = 0;
};

/// What one run says of a site.
struct SiteInRun {
  bool known = false, present = false, occluded = false;
  double ratio = 1, ratio_sd = 0;
  Narrowing narrowing;  // where present
  double percent = 0;   // of narrowing, or the most that is seen of one
};

/// Of a segment: where less of it was compared, that is said.
constexpr double whole_share = 0.9;

/// A narrowing of which less than this was seen is not taken for spasm, however far it may go on where it is hidden.
constexpr double least_share_of_spasm = 0.25;

/// A label with the reasons for it.
struct Verdict {
  std::string label = no_change;
  std::vector<std::string> reasons;
  std::optional<Narrowing> narrowing;
  std::optional<double> recovery;
  bool sees_lesion = false;  // something is narrow or shut there, whatever it may be called
};

class Rules {
 public:
  Rules(SegmentTimeline& segment, const std::vector<TimelineRun>& runs, const ComparisonThresholds& thresholds)
      : segment_(segment), runs_(runs), t_(thresholds) {}

  void apply() {
    for (std::size_t r = 0; r < segment_.entries.size(); ++r) {
      Verdict then = verdict(r, r, find_sites(r));
      segment_.entries[r].label_then = then.label;
      segment_.entries[r].reasons = std::move(then.reasons);
    }
    if (segment_.entries.empty()) return;
    const std::size_t last = segment_.entries.size() - 1;
    const std::vector<Site> sites = find_sites(last);
    std::vector<Verdict> now;
    for (std::size_t r = 0; r <= last; ++r) {
      now.push_back(verdict(r, last, sites));
      segment_.entries[r].label_now = now.back().label;
    }
    conclude(now);
  }

 private:
  /// What is narrow in any run up to `last`: a label of then may not know of later runs.
  std::vector<Site> find_sites(std::size_t last) const {
    std::vector<Site> sites;
    for (std::size_t r = 0; r <= last; ++r) {
      const TimelineEntry& entry = segment_.entries[r];
      if (!entry.change.known || !entry.significant) continue;
      for (const Narrowing& narrowing : entry.change.narrowings) {
        if (narrowing.percent < t_.narrowing_percent || narrowing.probability_25 < 0.5) continue;
        Site* known = nullptr;
        for (Site& site : sites)
          if (narrowing.from_mm < site.to + t_.same_site_mm && narrowing.to_mm > site.from - t_.same_site_mm) known = &site;
        if (!known) {
          sites.push_back(
              {narrowing.from_mm, narrowing.to_mm, narrowing.at_mm, narrowing.spread_mm, narrowing.possible_mm, narrowing.half_depth_mm()});
          continue;
        }
        // A notch that one run shows to end on both sides, short of spasm's length, does not go on beyond a branching in another.
        const bool notches = std::max(known->half_depth, narrowing.half_depth_mm()) <= t_.notch_extent_mm;
        const bool ends = notches && std::min(known->possible, narrowing.possible_mm) <= t_.spasm_extent_mm;
        known->extent = ends ? std::min(known->extent, narrowing.spread_mm) : std::max(known->extent, narrowing.spread_mm);
        known->possible = ends ? std::min(known->possible, narrowing.possible_mm) : std::max(known->possible, narrowing.possible_mm);
        if (narrowing.half_depth_mm() > known->half_depth)
          *known = {narrowing.from_mm, narrowing.to_mm, narrowing.at_mm, known->extent, known->possible, narrowing.half_depth_mm()};
      }
    }
    return sites;
  }

  /// Whether a run measured the narrowest place of a site, or enough of it. Spasm relaxes along the whole vessel at once: an end tells.
  bool covered(const CalibreChange& change, const Site& site) const {
    constexpr double near_mm = 0.4, least_mm = 1, enough_mm = 2, enough_share = 0.5, end_mm = 0.6;
    double inside = 0;
    bool at = false;
    for (std::size_t i = 0; i < change.arc_mm.size(); ++i) {
      const double mm = change.arc_mm[i];
      at = at || std::abs(mm - site.at) <= near_mm;
      const std::size_t next = std::max<std::size_t>(i, 1);
      if (mm >= site.from && mm <= site.to && next < change.arc_mm.size())
        inside += std::min(change.arc_mm[next] - change.arc_mm[next - 1], least_mm);
    }
    const double asked = is_focal(site) ? std::max(least_mm, std::min(enough_mm, enough_share * (site.to - site.from))) : end_mm;
    return (at && std::isfinite(change.ratio_between(site.from, site.to)[0])) || inside >= asked;
  }
  static double deepest_in(const CalibreChange& change, const Site& site) {
    double least = 1;
    for (std::size_t i = 0; i < change.arc_mm.size(); ++i)
      if (change.arc_mm[i] >= site.from && change.arc_mm[i] <= site.to) least = std::min(least, std::exp(change.ratio_log[i]));
    return 100 * (1 - least);
  }

  /// `like`: only where this run measured, too, so that one end of a narrowing is not set against its whole.
  SiteInRun look(const Site& site, std::size_t r, std::optional<std::size_t> like = {}) const {
    const TimelineEntry& entry = segment_.entries[r];
    SiteInRun seen;
    if (!runs_[r].comparable) return seen;
    if (entry.state == SegmentState::occluded && entry.lost_mm[0] < site.to && entry.lost_mm[1] > site.from) {
      seen.known = seen.present = seen.occluded = true;
      seen.ratio = 0;
      seen.percent = 100;
      return seen;
    }
    const auto here = [&](const Narrowing& n) {
      return n.from_mm < site.to && n.to_mm > site.from && entry.significant && n.probability_25 > 0.5 && n.percent >= t_.narrowing_percent;
    };
    const std::vector<Narrowing>& narrowings = entry.change.narrowings;
    // A narrowing of which only the beginning was measured is there all the same.
    const bool begun = std::any_of(narrowings.begin(), narrowings.end(), [&](const Narrowing& n) { return n.at_least && here(n); });
    if (!entry.change.known || !(begun || covered(entry.change, site))) return seen;
    const bool shared = like && segment_.entries[*like].change.known && segment_.entries[*like].state != SegmentState::occluded;
    const auto [ratio, sd] = entry.change.ratio_between(site.from, site.to, shared ? &segment_.entries[*like].change : nullptr);
    if (!std::isfinite(ratio)) return seen;
    seen.known = true;
    seen.ratio = ratio;
    seen.ratio_sd = sd;
    seen.percent = deepest_in(entry.change, site);
    for (const Narrowing& narrowing : narrowings)
      if (here(narrowing) && narrowing.percent > (seen.present ? seen.narrowing.percent : 0)) {
        seen.present = true;
        seen.narrowing = narrowing;
        seen.percent = narrowing.percent;
      }
    return seen;
  }

  bool mechanical_between(std::size_t after, std::size_t to) const {
    for (std::size_t r = after + 1; r <= to; ++r)
      if (is_mechanical(runs_[r].event)) return true;
    return false;
  }
  bool drug_between(std::size_t after, std::size_t to) const {
    for (std::size_t r = after + 1; r <= to; ++r)
      if (runs_[r].event == EventKind::spasmolytic) return true;
    return false;
  }

  /// Whether a drug was given before run r, in its procedure.
  bool drug_in_procedure(std::size_t r) const {
    std::size_t first = r;
    while (first > 0 && runs_[first - 1].procedure == runs_[r].procedure) --first;
    return runs_[first].event == EventKind::spasmolytic || drug_between(first, r);
  }

  double recovery(const SiteInRun& before, const SiteInRun& after) const {
    return before.ratio < 1 ? (after.ratio - before.ratio) / (1 - before.ratio) : 0;
  }
  bool recovered(const SiteInRun& before, const SiteInRun& after) const {
    const double least_significant_change = 1.96 * std::hypot(before.ratio_sd, after.ratio_sd);
    return !after.occluded && recovery(before, after) >= t_.recovery && after.ratio - before.ratio > least_significant_change &&
           after.percent < t_.mild_percent;
  }

  /// What runs up to `last` say of a narrowing of spasm's size and length in run r.
  Verdict spasm(const Site& site, std::size_t r, std::size_t last, const SiteInRun& seen) const {
    Verdict result;
    result.label = not_settled;
    std::optional<std::size_t> persists;
    bool repeated = false;
    const std::size_t worst = deepest_since(site, r);
    for (std::size_t q = r + 1; q <= last; ++q) {
      const SiteInRun later = look(site, q, worst);
      if (!later.known) continue;
      const SiteInRun before = look(site, worst, q);
      const double regained = recovery(before, later);
      const bool forced = mechanical_between(r, q), same_procedure = runs_[q].procedure == runs_[r].procedure;
      if (same_procedure && !forced) {
        repeated = true;
        result.recovery = std::max(result.recovery.value_or(-1), regained);
        if (!recovered(before, later)) continue;
        result.label = relieved;
        result.reasons.push_back(text("%s: %.0f %% of the lost calibre has come back (recovery %.2f, asked %.2f), %.0f %% are left",
                                      run_name(q).c_str(), 100 * regained, regained, t_.recovery, std::max(0.0, later.percent)));
        result.reasons.emplace_back(recovery_note);
        return result;
      }
      if (!later.present && later.percent < t_.narrowing_percent) {
        const bool tested = repeated || drug_in_procedure(r);
        // Opened by force, it says nothing of what the vessel would have done by itself.
        if (forced && !tested) break;
        result.label = tested ? refractory : relieved;
        if (!result.recovery) result.recovery = tested ? recovery_until(site, r) : regained;
        result.reasons.push_back(run_name(q) + ": the lumen is normal again" +
                                 (forced   ? ", after a balloon; no run before it showed that a drug relieved it"
                                  : tested ? ", which no run of the same procedure showed"
                                           : "; no drug was tried in between"));
        if (tested) result.reasons.emplace_back(recovery_note);
        return result;
      }
    }
    for (std::size_t q = 0; q <= last; ++q) {
      if (runs_[q].procedure == runs_[r].procedure) continue;
      const SiteInRun other = look(site, q);
      if (other.present && !other.occluded && same_size(other, seen) && !gone_between(site, q, r)) persists = q;
    }
    if (persists && site.extent <= t_.focal_mm) {
      result.label = fixed_stenosis;
      result.reasons.push_back(run_name(*persists) + ": as narrow, at the same site, in another procedure: spasm does not last so long");
    } else if (persists) {
      result.label = indeterminate;
      result.reasons.push_back(run_name(*persists) +
                               ": still as narrow, long after: spasm does not last so long, and a fixed stenosis is short");
    } else {
      result.reasons.emplace_back("no later run has shown yet whether it gives way: spasm or an occlusion coming");
    }
    return result;
  }
  bool gone_between(const Site& site, std::size_t a, std::size_t b) const {
    for (std::size_t q = std::min(a, b) + 1; q < std::max(a, b); ++q)
      if (const SiteInRun other = look(site, q); other.known && !other.present) return true;
    return false;
  }
  std::size_t first_present(const Site& site, std::size_t r) const {
    while (r > 0 && runs_[r - 1].procedure == runs_[r].procedure && look(site, r - 1).present) --r;
    return r;
  }
  /// Of the same spasm, up to run r: what gives way step by step is measured from where it was worst.
  std::size_t deepest_since(const Site& site, std::size_t r) const {
    std::size_t deepest = r;
    for (std::size_t q = first_present(site, r); q < r; ++q)
      if (!mechanical_between(q, r) && look(site, q).ratio < look(site, deepest).ratio) deepest = q;
    return deepest;
  }
  std::optional<double> recovery_until(const Site& site, std::size_t r) const {
    const std::size_t first = first_present(site, r);
    if (first == r) return {};
    return recovery(look(site, first, r), look(site, r, first));
  }

  /// Lower bounds are of the size of whatever is larger.
  bool same_size(const SiteInRun& a, const SiteInRun& b) const {
    const auto may_be = [&](const SiteInRun& smaller, const SiteInRun& larger) {
      return smaller.present && smaller.narrowing.at_least && smaller.percent < larger.percent;
    };
    return std::abs(a.percent - b.percent) <= t_.same_size_percent || may_be(a, b) || may_be(b, a);
  }

  Verdict focal(const Site& site, std::size_t r, std::size_t last, const SiteInRun& seen) const {
    Verdict result;
    const bool notch = site.half_depth <= t_.notch_extent_mm;
    std::vector<std::size_t> same, gone_in;
    for (std::size_t q = 0; q <= last; ++q) {
      const SiteInRun other = look(site, q);
      if (!other.known) continue;
      if (other.present && same_size(other, seen)) same.push_back(q);
      const bool less = other.percent < t_.narrowing_percent && other.percent < t_.recovery * seen.percent &&
                        seen.percent - other.percent > t_.same_size_percent;
      if (q > r && !other.present && less) gone_in.push_back(q);
    }
    const std::size_t latest = same.empty() ? r : same.back();
    const auto after = std::upper_bound(gone_in.begin(), gone_in.end(), latest);
    const bool goes = after != gone_in.end();
    const std::size_t gone = goes ? *after : latest;
    const std::string shape = text("short: %.1f mm at half its depth", site.half_depth);
    if (goes && mechanical_between(latest, gone)) {
      result.label = notch ? valve_remnant : fixed_stenosis;
      result.reasons = {shape,
                        "gone in " + run_name(gone) + ", after a balloon" + (drug_between(r, latest) ? ", and not after a drug" : "")};
    } else if (goes) {
      result.label = indeterminate;
      result.reasons = {shape, "gone in " + run_name(gone) + " without a balloon: neither fixed nor long enough for spasm"};
    } else if (same.size() >= 2 && !seen_later(site, same, last)) {
      result.label = indeterminate;
      result.reasons = {shape,
                        "of the same size in the runs of one procedure, but none later could measure its place: spasm that lasts "
                        "looks like this, too"};
    } else if (same.size() >= 2 && (!notch || mechanical_between(same.front(), same.back()))) {
      result.label = fixed_stenosis;
      result.reasons = {shape, text("at the same site and of the same size in %d runs", static_cast<int>(same.size())) +
                                   (drug_between(same.front(), same.back()) ? ", whatever drug was given" : "")};
    } else {
      result.label = indeterminate;
      result.reasons = {shape, same.size() >= 2 ? "a notch at a fixed site: a balloon will tell a valve remnant from a fixed stenosis"
                                                : "seen in one run: a fixed stenosis or valve remnant stays at its site"};
    }
    return result;
  }

  /// Of runs that are all of one procedure: whether there is no later one, or one that measured the place.
  bool seen_later(const Site& site, const std::vector<std::size_t>& same, std::size_t last) const {
    const int procedure = runs_[same.back()].procedure;
    bool later = false;
    for (std::size_t q = same.back() + 1; q <= last; ++q) {
      if (runs_[q].procedure == procedure || !runs_[q].comparable) continue;
      later = true;
      if (look(site, q).known) return true;
    }
    return !later || runs_[same.front()].procedure != procedure;
  }

  /// Short, wherever it may go on beside other vessels that hide it; or hardly seen.
  bool is_focal(const Site& site) const {
    return site.extent <= t_.spasm_extent_mm &&
           (site.possible <= t_.spasm_extent_mm || site.extent < least_share_of_spasm * t_.spasm_extent_mm);
  }
  /// Whether what was measured ends within it.
  static bool reaches_an_end(const CalibreChange& change, const Narrowing& n) {
    constexpr double near_mm = 1;
    return n.extent_from_mm < change.arc_mm.front() + near_mm || n.extent_to_mm > change.arc_mm.back() - near_mm;
  }
  /// May be longer than was seen: what it does then tells more than its length.
  bool may_be_focal(const Site& site) const { return !is_focal(site) && site.extent <= t_.spasm_extent_mm; }

  Verdict at_site(const Site& site, std::size_t r, std::size_t last) const {
    const SiteInRun seen = look(site, r);
    if (!seen.present || seen.occluded) return {};
    const TimelineEntry& entry = segment_.entries[r];
    const Narrowing& n = seen.narrowing;
    std::vector<std::string> figures = {text(
        "calibre %s%.0f %% below the reference's (95 %%: %.0f to %.0f) over %.0f mm, P(> 25 %%) %.2f, P(> 50 %%) %.2f, P(> 90 %%) %.2f",
        entry.bounded || n.at_least ? "at least " : "", n.percent, n.ci95[0], n.ci95[1], n.spread_mm, n.probability_25, n.probability_50,
        n.probability_90)};
    Verdict result, as_focal = focal(site, r, last, seen);
    const bool focal_settles = as_focal.label != indeterminate;
    if (!entry.doubt.empty() || !segment_.lengths_known) {
      result.label = indeterminate;
      result.reasons = {!entry.doubt.empty() ? entry.doubt
                                             : std::string("no calibration: how long it is, and so what it is, can't be told")};
    } else if (n.denser > t_.layered_density && n.percent < t_.mild_percent &&
               !(site.extent <= t_.spasm_extent_mm && n.half_depth_mm() <= t_.spasm_extent_mm && !reaches_an_end(entry.change, n) &&
                 focal_settles)) {
      result.label = indeterminate;
      result.reasons = {
          text("holds %.0f %% more contrast than a round lumen of its width would, and no plaque is known there: layered contrast looks "
               "like this",
               100 * n.denser)};
    } else if (n.at_least && n.percent < t_.mild_percent && (site.extent > t_.spasm_extent_mm || !focal_settles)) {
      result.label = indeterminate;
      result.reasons = {"beside it the lumen failed the gates of filling: it may be narrower there, or not filled"};
    } else if (is_focal(site)) {
      result = std::move(as_focal);
      if (result.label == indeterminate && n.percent < t_.mild_percent) result.label = below_grade;
    } else if (may_be_focal(site) && focal_settles) {
      result = std::move(as_focal);
    } else if (n.percent < t_.mild_percent) {
      result.label = below_grade;
      result.reasons = {text("%.0f %% and more would be spasm, mild", t_.mild_percent)};
    } else {
      result = spasm(site, r, last, seen);
      figures.push_back(
          text("smooth over %.0f mm%s, longer than %.0f mm%s", n.spread_mm,
               n.possible_mm > n.spread_mm + 1 ? text(" (%.0f mm with what is hidden by other vessels)", n.possible_mm).c_str() : "",
               t_.spasm_extent_mm, n.taper_mm > 0 ? text(", tapering over %.1f mm", n.taper_mm).c_str() : ""));
      result.reasons.emplace_back(extrapolation);
    }
    result.reasons.insert(result.reasons.begin(), figures.begin(), figures.end());
    result.narrowing = n;
    result.sees_lesion = true;
    return result;
  }

  Verdict occluded(std::size_t r, std::size_t last) const {
    const TimelineEntry& entry = segment_.entries[r];
    Verdict result;
    result.label = occlusion;
    result.reasons = {text("no contrast over %.0f mm", entry.lost_mm[1] - entry.lost_mm[0])};
    if (!entry.note.empty()) result.reasons.push_back(entry.note);
    const Site lost{entry.lost_mm[0],
                    entry.lost_mm[1],
                    0.5 * (entry.lost_mm[0] + entry.lost_mm[1]),
                    entry.lost_mm[1] - entry.lost_mm[0],
                    entry.lost_mm[1] - entry.lost_mm[0],
                    entry.lost_mm[1] - entry.lost_mm[0]};
    Narrowing whole = unseen_lumen(entry);
    whole.percent = 100;
    whole.probability_25 = whole.probability_50 = whole.probability_90 = 1;
    result.narrowing = whole;
    result.sees_lesion = true;
    // A vessel that opens by itself was not occluded. Whether it was shut or only passed by is told by its ends: spasm tapers.
    for (std::size_t q = r + 1; q <= last && !mechanical_between(r, q); ++q) {
      const SiteInRun later = look(lost, q);
      if (!later.known || later.present || later.percent >= t_.narrowing_percent) continue;
      const bool shut = tapers_into(entry, lost) || entry.narrowed_around || narrowed_beside(lost, r, last);
      Verdict opened = shut ? spasm(lost, r, last, look(lost, r)) : Verdict{indeterminate, {}, {}, {}};
      opened.sees_lesion = true;
      opened.reasons.insert(opened.reasons.begin(), result.reasons.begin(), result.reasons.end());
      if (is_spasm(opened.label)) {
        opened.reasons.push_back(run_name(q) + ": open without a balloon, so it was shut by spasm, severe, and not occluded");
        opened.reasons.emplace_back(extrapolation);
        opened.narrowing = unseen_lumen(entry);
      } else {
        opened.reasons.push_back(run_name(q) +
                                 ": open without a balloon, so it was not occluded; no taper either side of it shows that it was shut");
      }
      return opened;
    }
    return result;
  }
  /// Spasm of the same place in another run of the procedure: it was on its way, or is giving way.
  bool narrowed_beside(const Site& lost, std::size_t r, std::size_t last) const {
    for (std::size_t q = 0; q <= last; ++q) {
      if (q == r || runs_[q].procedure != runs_[r].procedure) continue;
      const SiteInRun other = look(lost, q);
      if (other.present && !other.occluded && other.percent >= t_.narrowing_percent) return true;
    }
    return false;
  }
  /// A narrowing beside what is lost, or reaching into it.
  bool tapers_into(const TimelineEntry& entry, const Site& lost) const {
    constexpr double beside_mm = 8;
    return entry.change.known && std::any_of(entry.change.narrowings.begin(), entry.change.narrowings.end(), [&](const Narrowing& n) {
             return n.percent >= t_.narrowing_percent && n.extent_from_mm < lost.to + beside_mm && n.extent_to_mm > lost.from - beside_mm;
           });
  }
  Verdict verdict(std::size_t r, std::size_t last, const std::vector<Site>& sites) const {
    const TimelineEntry& entry = segment_.entries[r];
    Verdict result;
    if (!runs_[r].comparable || entry.state == SegmentState::out_of_view) {
      result.label = indeterminate;
      result.reasons = {entry.note.empty() ? std::string("out of view") : entry.note};
      return result;
    }
    if (!entry.injury.empty()) {
      result.label = entry.injury;
      result.reasons = entry.injury_reasons;
      result.sees_lesion = true;
    } else if (entry.state == SegmentState::not_filled) {
      result.label = not_filled;
      result.reasons = {entry.note};
      return result;
    }
    if (entry.state == SegmentState::occluded)
      if (Verdict shut = occluded(r, last); gravity(shut.label) > gravity(result.label)) result = std::move(shut);
    for (const Site& site : sites)
      if (Verdict here = at_site(site, r, last); gravity(here.label) > gravity(result.label)) result = std::move(here);
    if (result.label != no_change) return result;
    if (!entry.change.known) {
      result.label = indeterminate;
      result.reasons = {entry.note.empty() ? std::string("too little of it could be measured") : entry.note};
      return result;
    }
    const Narrowing& largest = entry.change.largest;
    result.narrowing = largest;
    result.reasons = {
        text("calibre %.0f %% of the reference's on average; largest narrowing %.0f %% (95 %%: %.0f to %.0f), P(> 25 %%) %.2f",
             100 * entry.change.mean_ratio, std::max(0.0, largest.percent), largest.ci95[0], largest.ci95[1], largest.probability_25)};
    // What no run could measure is not said to be as it was.
    if (entry.compared_mm > 0 && entry.compared_mm < whole_share * segment_.length_mm)
      result.reasons.push_back(
          text("holds for %.0f %% of it: the rest is not seen in both runs", 100 * entry.compared_mm / segment_.length_mm));
    if (largest.at_least && largest.percent >= t_.shoulder_percent && largest.ci95[0] >= t_.shoulder_least_percent &&
        entry.change.probability > 0.5) {
      result.label = indeterminate;
      result.reasons.emplace_back("it is narrowest where what could be measured ends: it may be narrower beyond");
      return result;
    }
    if (100 * (entry.change.mean_ratio - 1.96 * entry.change.mean_ratio_sd - 1) > t_.narrowing_percent) {
      result.reasons.emplace_back("wider than the reference: not narrowed, and no word here says by what it was widened");
      if (!entry.doubt.empty()) {
        result.label = indeterminate;
        result.reasons.push_back(entry.doubt);
        return result;
      }
    }
    if (largest.probability_25 < t_.no_change_probability) return result;
    result.label = indeterminate;
    result.reasons.push_back(text("below the least significant change, but P(> 25 %%) is not below %.2f", t_.no_change_probability));
    return result;
  }

  void conclude(std::vector<Verdict>& now) {
    std::size_t gravest = now.size();
    int unchanged = 0, unclear = 0;
    bool lesion = false;
    for (std::size_t r = 0; r < now.size(); ++r) {
      if (runs_[r].is_reference && gravity(now[r].label) <= gravity(indeterminate)) continue;  // says nothing of a change
      unchanged += now[r].label == no_change;
      unclear += now[r].label == indeterminate || now[r].label == not_filled;
      lesion = lesion || now[r].sees_lesion;
      const int gravity_here = gravity(now[r].label), so_far = gravest < now.size() ? gravity(now[gravest].label) : -1;
      const double here = now[r].narrowing ? now[r].narrowing->percent : -1e9;
      const double before = gravest < now.size() && now[gravest].narrowing ? now[gravest].narrowing->percent : -1e9;
      if (gravity_here > so_far || (gravity_here == so_far && here > before)) gravest = r;
    }
    if (gravest == now.size()) {
      segment_.reasons = {"no other run can be compared"};
      return;
    }
    // Runs that say nothing do not outweigh those that say that nothing changed.
    const std::string& word = now[gravest].label;
    if ((word == indeterminate || word == not_filled) && unchanged > unclear && !lesion)
      for (std::size_t r = 0; r < now.size(); ++r)
        if (now[r].label == no_change && !runs_[r].is_reference && now[gravest].label != no_change) gravest = r;
    const Verdict& worst = now[gravest];
    segment_.label = worst.label;
    segment_.reasons = worst.reasons;
    if (runs_.size() > 2) segment_.reasons.insert(segment_.reasons.begin(), run_name(gravest));
    segment_.recovery = worst.recovery;
    segment_.at_least = worst.sees_lesion && worst.narrowing && worst.narrowing->at_least && segment_.entries[gravest].doubt.empty();
    if (worst.narrowing) {
      segment_.narrowing_percent = std::max(0.0, worst.narrowing->percent);
      segment_.ci95 = worst.narrowing->ci95;
      segment_.extent_mm = worst.label == no_change ? 0 : worst.narrowing->spread_mm;
    }
    for (std::size_t r = 0; r < now.size(); ++r)
      if (is_spasm(now[r].label) && now[r].narrowing) {
        const double percent = now[r].narrowing->percent;
        if (percent >= t_.severe_percent)
          segment_.grade = "severe";
        else if (percent >= t_.mild_percent && segment_.grade == "none")
          segment_.grade = "mild";
      }
    weigh(worst);
  }

  void weigh(const Verdict& worst) {
    if (!worst.narrowing) return;
    const Narrowing& n = *worst.narrowing;
    const auto add = [&](const std::string& label, double p) {
      if (p > 0) segment_.probabilities.emplace_back(label, p);
    };
    if (is_spasm(worst.label)) {
      add(worst.label, n.probability_50);
      add(below_grade, n.probability_25 - n.probability_50);
    } else if (worst.label == no_change || worst.label == below_grade || worst.label == indeterminate) {
      add(below_grade, n.probability_25 - n.probability_50);
      add(not_settled, n.probability_50);
    } else {
      add(worst.label, n.probability_25);
    }
    add(no_change, 1 - n.probability_25);
  }

  SegmentTimeline& segment_;
  const std::vector<TimelineRun>& runs_;
  const ComparisonThresholds& t_;
};

struct Word {
  EventKind kind;
  const char* word;
};
constexpr Word words[] = {{EventKind::reference, "reference"},
                          {EventKind::valvulotomy, "valvulotomy"},
                          {EventKind::balloon, "balloon"},
                          {EventKind::spasmolytic, "spasmolytic"},
                          {EventKind::stent_graft, "stent-graft"},
                          {EventKind::next_day, "next day"},
                          {EventKind::follow_up, "follow-up"},
                          {EventKind::redo, "redo"},
                          {EventKind::other, "other"}};

}  // namespace

const char* to_string(EventKind kind) {
  for (const Word& known : words)
    if (known.kind == kind) return known.word;
  return "";
}

std::optional<EventKind> parse_event(const std::string& word) {
  for (const Word& known : words)
    if (word == known.word) return known.kind;
  return {};
}

std::string known_events() {
  std::string list;
  for (const Word& known : words) list += (list.empty() ? "" : ", ") + std::string(known.word);
  return list;
}

const char* to_string(SegmentState state) {
  switch (state) {
    case SegmentState::measured:
      return "measured";
    case SegmentState::not_filled:
      return "not filled";
    case SegmentState::occluded:
      return "occluded";
    case SegmentState::out_of_view:
      return "out of view";
  }
  return "";
}

Narrowing unseen_lumen(const TimelineEntry& entry) {
  Narrowing result;
  result.percent = 100 * (1 - 0.5 * entry.lost_bound);
  result.ci95 = {100 * (1 - entry.lost_bound), 100};
  const auto exceeds = [&](double percent) { return std::min(1.0, (1 - 0.01 * percent) / std::max(1e-9, entry.lost_bound)); };
  result.probability_25 = exceeds(25);
  result.probability_50 = exceeds(50);
  result.probability_90 = exceeds(90);
  result.from_mm = result.extent_from_mm = entry.lost_mm[0];
  result.to_mm = result.extent_to_mm = entry.lost_mm[1];
  result.at_mm = 0.5 * (result.from_mm + result.to_mm);
  result.spread_mm = result.possible_mm = result.extent_mm();
  return result;
}

int label_gravity(const std::string& label) { return gravity(label); }

void label_timeline(SegmentTimeline& segment, const std::vector<TimelineRun>& runs, const ComparisonThresholds& thresholds) {
  Rules(segment, runs, thresholds).apply();
}

void control_false_discoveries(std::vector<SegmentTimeline>& segments, const ComparisonThresholds& thresholds) {
  const std::size_t runs = segments.empty() ? 0 : segments.front().entries.size();
  for (std::size_t r = 0; r < runs; ++r) {
    std::vector<std::pair<double, std::size_t>> order;
    for (std::size_t s = 0; s < segments.size(); ++s)
      if (segments[s].entries[r].change.known) order.emplace_back(1 - segments[s].entries[r].change.largest.probability_25, s);
    std::sort(order.begin(), order.end());
    double false_ones = 0;
    for (std::size_t k = 0; k < order.size(); ++k) {
      false_ones += order[k].first;
      if (false_ones > thresholds.false_discovery_rate * static_cast<double>(k + 1)) break;
      segments[order[k].second].entries[r].significant = true;
    }
  }
}

void settle_by_neighbours(std::vector<SegmentTimeline>& segments, const std::vector<std::vector<std::size_t>>& joined) {
  for (const std::vector<std::size_t>& group : joined)
    for (const std::size_t open : group) {
      const std::string before = segments[open].label;
      if (before != not_settled && !(segments[open].at_least && (before == indeterminate || before == below_grade))) continue;
      const auto settled = std::find_if(group.begin(), group.end(),
                                        [&](std::size_t s) { return segments[s].label == relieved || segments[s].label == refractory; });
      if (settled == group.end()) continue;
      SegmentTimeline& segment = segments[open];
      const SegmentTimeline& neighbour = segments[*settled];
      for (TimelineEntry& entry : segment.entries)
        if (entry.label_now == before) entry.label_now = neighbour.label;
      segment.label = neighbour.label;
      segment.grade = segment.grade == "none" ? neighbour.grade : segment.grade;
      segment.recovery = neighbour.recovery;
      segment.reasons.push_back(text("goes on in segment %d, which tells: %s; spasm relaxes along the whole vessel at once", neighbour.id,
                                     neighbour.label.c_str()));
      for (auto& [label, probability] : segment.probabilities)
        if (label == not_settled) label = neighbour.label;
    }
}

TimelineSummary summarize_spasm(const std::vector<SegmentTimeline>& segments, const std::vector<TimelineRun>& runs,
                                const ComparisonThresholds& thresholds) {
  TimelineSummary summary;
  double least_recovery = 1, most_recovery = -1;
  bool tested = false;
  for (const SegmentTimeline& segment : segments) {
    double extent = 0;
    bool settled = false;
    for (std::size_t r = 0; r < segment.entries.size(); ++r) {
      const TimelineEntry& entry = segment.entries[r];
      if (!is_spasm(entry.label_now)) continue;
      settled = true;
      double here = entry.state == SegmentState::occluded ? entry.lost_mm[1] - entry.lost_mm[0] : 0;
      for (const Narrowing& narrowing : entry.change.narrowings)
        if (narrowing.percent >= thresholds.mild_percent) here += narrowing.extent_mm();
      extent = std::max(extent, here);
      for (std::size_t q = r + 1; q < runs.size() && runs[q].procedure == runs[r].procedure; ++q)
        tested = tested || runs[q].event == EventKind::spasmolytic;
    }
    if (!settled) continue;
    ++summary.spastic_segments;
    summary.spastic_mm += extent;
    if (segment.recovery) {
      least_recovery = std::min(least_recovery, *segment.recovery);
      most_recovery = std::max(most_recovery, *segment.recovery);
    }
  }
  if (summary.spastic_segments == 0) return summary;
  if (summary.spastic_segments >= thresholds.diffuse_segments ||
      (summary.spastic_segments == 2 && summary.spastic_mm >= thresholds.diffuse_mm))
    summary.spasm_extent = "diffuse";
  else
    summary.spasm_extent = summary.spastic_segments == 1 && summary.spastic_mm < thresholds.focal_mm ? "focal" : "segmental";
  if (tested && most_recovery > -1)
    summary.response = least_recovery >= thresholds.recovery            ? "relieved"
                       : most_recovery < thresholds.refractory_recovery ? "refractory"
                                                                        : "partial";
  return summary;
}

}  // namespace cinelumen
