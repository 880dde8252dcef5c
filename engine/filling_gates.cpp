#include "engine/filling_gates.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/median.h"

namespace cinelumen {
namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

// SD of a median of so many points: neighbours share pixels, about every second one is news.
double of_median(double sd, std::size_t count) { return 1.2533 * sd / std::sqrt(std::max(1.0, static_cast<double>(count) / 2)); }

/// A stretch of points over time. One value per frame; NaN: not read.
struct Block {
  std::size_t first = 0, last = 0;  // points
  double at_px = 0;
  std::vector<double> contrast, contrast_sd, diameter, diameter_sd, kappa, kappa_sd;
  std::vector<bool> filled;  // frames that speak of the lumen
  bool wide = false;         // kappa is its own in some frame
  FillingGate gate = FillingGate::unmeasured;
  double usual_kappa = unknown, usual_kappa_sd = unknown;  // over filled frames, of a wide lumen
  double usual_diameter = unknown;                         // over filled frames
};

bool says_contrast(const LumenPoint& point) {
  return point.contrast_sd > 0 && (point.used || point.reason == Exclusion::unfilled || point.reason == Exclusion::low_contrast ||
                                   point.reason == Exclusion::no_fit || point.reason == Exclusion::partly_filled);
}

/// Values with their SDs, for a median; its memory is used again.
struct Readings {
  std::vector<double> values, sds;
  void clear() { values.clear(), sds.clear(); }
  void add(double value, double sd) { values.push_back(value), sds.push_back(sd); }
  void append_median(std::vector<double>& to, std::vector<double>& sd_to) {
    constexpr std::size_t enough = 3;  // points that make a median
    const bool any = values.size() >= enough;
    to.push_back(any ? in_place_median(values) : unknown);
    sd_to.push_back(any ? of_median(in_place_median(sds), values.size()) : unknown);
  }
};

// The model is a cylinder: where the lumen is a cone, as at the shoulder of a stenosis, its kappa is not that of the contrast.
bool is_cone(const std::vector<LumenPoint>& points, std::size_t at) {
  constexpr std::size_t reach = 2;
  constexpr float steep = 0.2F, allowance_sd = 2;  // of diameter per length; of both diameters
  const LumenPoint& here = points[at];
  const auto rises = [&](const LumenPoint& other) {
    return other.used && std::abs(other.diameter_px - here.diameter_px) > steep * std::abs(other.arc_length_px - here.arc_length_px) +
                                                                              allowance_sd * std::hypot(other.sd_px, here.sd_px);
  };
  return rises(points[at - std::min(at, reach)]) || rises(points[std::min(at + reach, points.size() - 1)]);
}

// What the points of all blocks say in one frame; appended.
void read_frame(std::vector<Block>& blocks, const std::vector<LumenPoint>& points) {
  Readings contrast, diameter, kappa;
  for (Block& block : blocks) {
    contrast.clear(), diameter.clear(), kappa.clear();
    for (std::size_t i = block.first; i <= block.last && i < points.size(); ++i) {
      const LumenPoint& point = points[i];
      if (says_contrast(point)) contrast.add(point.contrast, point.contrast_sd);
      if (!point.used) continue;
      const double shared = std::min(point.common_sd_px, point.sd_px);
      diameter.add(point.diameter_px, std::sqrt(std::max(0.0, static_cast<double>(point.sd_px) * point.sd_px - shared * shared)));
      if (point.own_kappa && point.kappa > 0 && !is_cone(points, i)) kappa.add(point.kappa, point.kappa_sd);
    }
    contrast.append_median(block.contrast, block.contrast_sd);
    diameter.append_median(block.diameter, block.diameter_sd);
    kappa.append_median(block.kappa, block.kappa_sd);
  }
}

// The highest contrast that a frame beside it bears out; NaN: nothing was read, or no contrast came.
double plateau_of(const Block& block) {
  std::vector<double> values, sds;
  for (std::size_t f = 0; f < block.contrast.size(); ++f)
    if (std::isfinite(block.contrast[f])) values.push_back(block.contrast[f]), sds.push_back(block.contrast_sd[f]);
  if (values.size() < 3) return unknown;
  constexpr double borne_out = 1.3;  // times the next frame's: more is something that crossed
  double highest = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double beside = std::max(i > 0 ? values[i - 1] : 0, i + 1 < values.size() ? values[i + 1] : 0);
    highest = std::max(highest, std::min(values[i], borne_out * beside));
  }
  constexpr double enough_sd = 5;
  return highest > enough_sd * middle_of(sds) ? highest : unknown;
}

// Frames near the plateau, so many in a row. Frames that say nothing neither count nor break a row.
void find_flat_frames(Block& block, const FillingOptions& options) {
  const std::size_t frames = block.contrast.size();
  block.filled.assign(frames, false);
  const double plateau = plateau_of(block);
  if (!std::isfinite(plateau)) return;
  constexpr double allowance_sd = 2;  // a frame at the plateau's edge is not sent away by its own noise
  std::vector<std::size_t> row;
  const auto end_row = [&] {
    if (static_cast<int>(row.size()) >= options.flat_frames)
      for (const std::size_t f : row) block.filled[f] = true;
    row.clear();
  };
  for (std::size_t f = 0; f < frames; ++f) {
    if (!std::isfinite(block.contrast[f])) continue;
    if (block.contrast[f] >= options.plateau_share * plateau - allowance_sd * block.contrast_sd[f])
      row.push_back(f);
    else
      end_row();
  }
  end_row();
}

// D^2 = D_final^2 (1 - t0 / t) while a core of contrast goes ahead in the middle of the vessel.
struct Growth {
  double final_area = 0, slope = 0, slope_sd = std::numeric_limits<double>::infinity();  // of D^2
  double chi2 = std::numeric_limits<double>::infinity();
  double start = 0;  // when the core set out
  double diameter_at(double time) const { return std::sqrt(std::max(0.0, final_area + slope / (time - start))); }
};

struct Sizes {
  std::vector<double> time, area, sd;
  std::vector<std::size_t> frame;
};

Growth fit_growth(const Sizes& sizes, double start) {
  double w = 0, wu = 0, wa = 0, wuu = 0, wua = 0;
  const std::size_t n = sizes.area.size();
  for (std::size_t i = 0; i < n; ++i) {
    const double weight = 1 / (sizes.sd[i] * sizes.sd[i]), u = 1 / (sizes.time[i] - start), a = sizes.area[i];
    w += weight, wu += weight * u, wa += weight * a, wuu += weight * u * u, wua += weight * u * a;
  }
  Growth growth;
  growth.start = start;
  const double determinant = w * wuu - wu * wu;
  if (!(determinant > 1e-12 * w * wuu)) return growth;
  growth.slope = (w * wua - wu * wa) / determinant;
  growth.final_area = (wa - growth.slope * wu) / w;
  growth.chi2 = 0;
  for (std::size_t i = 0; i < n; ++i)
    growth.chi2 += std::pow((sizes.area[i] - growth.final_area - growth.slope / (sizes.time[i] - start)) / sizes.sd[i], 2);
  const double excess = n > 3 ? std::max(1.0, growth.chi2 / (static_cast<double>(n) - 3)) : 1;
  growth.slope_sd = std::sqrt(w / determinant * excess);
  return growth;
}

// When the core set out is known to some frames only: the one that explains the sizes best.
Growth best_growth(const Sizes& sizes, double first_arrival, double interval) {
  Growth best;
  for (const double frames_before : {0.0, 0.5, 1.0, 2.0, 4.0, 8.0}) {
    const Growth growth = fit_growth(sizes, first_arrival - frames_before * interval);
    if (growth.chi2 < best.chi2) best = growth;
  }
  return best;
}

// From the rise to the last filled frame: is the lumen still growing? Takes frames out in which it was.
void test_growth(Block& block, const FillingSeries& series, const FillingOptions& options) {
  constexpr double risen = 0.3;  // of the plateau: below, there is little to fit
  const double plateau = plateau_of(block);
  const auto last_filled = std::find(block.filled.rbegin(), block.filled.rend(), true);
  if (last_filled == block.filled.rend()) return;
  const auto end = static_cast<std::size_t>(block.filled.rend() - last_filled);
  const auto time = [&](std::size_t f) { return series.times_ms ? (*series.times_ms)[f] : static_cast<double>(f); };
  Sizes sizes;
  for (std::size_t f = 0; f < end; ++f) {
    if (!std::isfinite(block.diameter[f]) || !(block.contrast[f] > risen * plateau) || !(time(f) > series.first_arrival_ms)) continue;
    sizes.time.push_back(time(f));
    sizes.area.push_back(block.diameter[f] * block.diameter[f]);
    sizes.sd.push_back(2 * block.diameter[f] * std::max(block.diameter_sd[f], 1e-3));
    sizes.frame.push_back(f);
  }
  if (static_cast<int>(sizes.frame.size()) < options.flat_frames) return;
  const double interval = (time(block.filled.size() - 1) - time(0)) / std::max(1.0, static_cast<double>(block.filled.size()) - 1);
  const Growth growth = best_growth(sizes, series.first_arrival_ms, interval);
  if (growth.slope > -options.growth_significance * growth.slope_sd || !(growth.final_area > 0)) return;
  const double least = (1 - options.growth) * std::sqrt(growth.final_area);
  for (std::size_t i = 0; i < sizes.frame.size(); ++i)
    if (growth.diameter_at(sizes.time[i]) < least) block.filled[sizes.frame[i]] = false;
  const auto left = std::count(block.filled.begin(), block.filled.end(), true);
  if (left >= options.flat_frames) return;
  block.filled.assign(block.filled.size(), false);
  block.gate = FillingGate::growing;
}

// Whether a wide lumen near a place was filled, and did not grow.
bool is_filled_beside(const std::vector<Block>& blocks, const Block& place, const FillingOptions& options) {
  return std::any_of(blocks.begin(), blocks.end(), [&](const Block& block) {
    return block.wide && block.gate == FillingGate::passed && std::abs(block.at_px - place.at_px) < options.beside_px;
  });
}

void take_usual(Block& block) {
  std::vector<double> values, sds, diameters;
  for (std::size_t f = 0; f < block.kappa.size(); ++f) {
    if (!block.filled[f]) continue;
    if (std::isfinite(block.kappa[f])) values.push_back(block.kappa[f]), sds.push_back(block.kappa_sd[f]);
    if (std::isfinite(block.diameter[f])) diameters.push_back(block.diameter[f]);
  }
  block.usual_diameter = middle_of(std::move(diameters));
  if (values.empty()) return;
  block.usual_kappa = middle_of(values);
  block.usual_kappa_sd = 1.2533 * middle_of(sds) / std::sqrt(static_cast<double>(values.size()));
}

// Kappa of the filled, wide lumen before and after a block: the nearest blocks within reach, no more than `enough`; NaN: none.
double kappa_beside(const std::vector<Block>& blocks, std::size_t at, int direction, std::size_t enough, const FillingOptions& options) {
  std::vector<double> values;
  for (auto k = static_cast<std::ptrdiff_t>(at) + direction; k >= 0 && k < static_cast<std::ptrdiff_t>(blocks.size()); k += direction) {
    const Block& block = blocks[static_cast<std::size_t>(k)];
    if (std::abs(block.at_px - blocks[at].at_px) > options.near_px || values.size() == enough) break;
    if (block.gate == FillingGate::passed && std::isfinite(block.usual_kappa)) values.push_back(block.usual_kappa);
  }
  return middle_of(std::move(values));
}

bool agree(double a, double b, double tolerance) { return a > (1 - tolerance) * b && b > (1 - tolerance) * a; }

// Kappa along a segment, and what it says of places that look narrow.
class KappaAlong {
 public:
  KappaAlong(std::vector<Block>& blocks, const FillingOptions& options) : blocks_(blocks), options_(options) {
    std::vector<double> values;
    for (const Block& block : blocks_)
      if (tells(block)) values.push_back(block.usual_kappa);
    known_ = values.size() >= 2;
    usual_ = middle_of(std::move(values));
  }
  // Kappa that leaves that of the vessel and comes back is an ellipse or an overlap; kappa that stays away is contrast that is thinner or
  // layered from there on, or a vessel that turns towards the beam. Where the lumen is no narrower for it, that does no harm.
  void judge() {
    std::vector<FillingGate> verdicts;
    for (std::size_t b = 0; b < blocks_.size(); ++b)
      verdicts.push_back(blocks_[b].gate == FillingGate::passed ? verdict_of(b) : blocks_[b].gate);
    for (std::size_t b = 0; b < blocks_.size(); ++b) blocks_[b].gate = verdicts[b];
  }

 private:
  static bool tells(const Block& block) { return block.gate == FillingGate::passed && std::isfinite(block.usual_kappa); }
  bool differs(const Block& block) const {
    constexpr double allowance_sd = 2;
    return std::abs(block.usual_kappa - usual_) > options_.kappa_tolerance * usual_ + allowance_sd * block.usual_kappa_sd;
  }
  FillingGate verdict_of(std::size_t b) const {
    const bool own = std::isfinite(blocks_[b].usual_kappa);
    if (!known_) return own ? FillingGate::passed : FillingGate::unconfirmed;
    // What has none of its own lies between its neighbours': kappa drifts where a vessel turns towards the beam.
    const std::size_t places = own ? 3 : 1;
    const double before = kappa_beside(blocks_, b, -1, places, options_), after = kappa_beside(blocks_, b, 1, places, options_);
    const bool both = std::isfinite(before) && std::isfinite(after);
    if (both && agree(before, after, options_.kappa_tolerance)) {
      if (!own || !differs(blocks_[b]) || agree(before, usual_, options_.kappa_tolerance)) return FillingGate::passed;
    } else if (own) {
      if (!differs(blocks_[b])) return FillingGate::passed;
    } else if (!both) {
      return FillingGate::unconfirmed;
    }
    constexpr double narrower = 0.1;
    const double width = blocks_[b].usual_diameter / diameter_beside(b);
    if (width >= 1 - narrower) return FillingGate::passed;
    // Sized by contrast it may be too narrow by what kappa may be wrong, and by no more.
    if (!own) return width < (1 - narrower) * std::min(before / after, after / before) ? FillingGate::unconfirmed : FillingGate::diluted;
    // An eccentric lumen seen from its narrow side is deeper than it is wide; nothing thinned looks so.
    return blocks_[b].usual_kappa > usual_ && begins_abruptly(b) ? FillingGate::unconfirmed : FillingGate::diluted;
  }
  // Streams mix and layers sink over lengths; a wall has shoulders. `b`: narrow.
  bool begins_abruptly(std::size_t b) const {
    constexpr double steep = 0.15;  // of diameter per length
    for (const int step : {-1, 1}) {
      const Block* inner = &blocks_[b];
      for (auto k = static_cast<std::ptrdiff_t>(b) + step; k >= 0 && k < static_cast<std::ptrdiff_t>(blocks_.size()); k += step) {
        const Block& outer = blocks_[static_cast<std::size_t>(k)];
        if (std::abs(outer.at_px - blocks_[b].at_px) > options_.beside_px) break;
        if (!std::isfinite(outer.usual_diameter)) continue;
        if (outer.usual_diameter - inner->usual_diameter > steep * std::abs(outer.at_px - inner->at_px)) return true;
        if (tells(outer) && !differs(outer)) break;
        inner = &outer;
      }
    }
    return false;
  }
  // Of the nearest places that hold the vessel's kappa.
  double diameter_beside(std::size_t b) const {
    constexpr std::size_t enough = 3;
    std::vector<std::pair<double, double>> near;  // how far, how wide
    for (const Block& block : blocks_)
      if (tells(block) && !differs(block)) near.emplace_back(std::abs(block.at_px - blocks_[b].at_px), block.usual_diameter);
    std::sort(near.begin(), near.end());
    std::vector<double> diameters;
    for (std::size_t i = 0; i < std::min(near.size(), enough); ++i) diameters.push_back(near[i].second);
    return middle_of(std::move(diameters));
  }

  std::vector<Block>& blocks_;
  const FillingOptions& options_;
  bool known_ = false;
  double usual_ = 0;
};

std::vector<Block> blocks_of(const std::vector<std::vector<LumenPoint>>& frames, const FillingOptions& options) {
  std::vector<Block> blocks;
  const std::vector<LumenPoint>& points = frames.front();
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (blocks.empty() || points[i].arc_length_px - points[blocks.back().first].arc_length_px >= options.block_px) {
      blocks.emplace_back();
      blocks.back().first = i;
    }
    blocks.back().last = i;
  }
  for (Block& block : blocks) {
    block.at_px = 0.5 * (points[block.first].arc_length_px + points[block.last].arc_length_px);
    for (auto* series : {&block.contrast, &block.contrast_sd, &block.diameter, &block.diameter_sd, &block.kappa, &block.kappa_sd})
      series->reserve(frames.size());
  }
  for (const std::vector<LumenPoint>& frame : frames) read_frame(blocks, frame);
  return blocks;
}

}  // namespace

const char* to_string(FillingGate gate) {
  switch (gate) {
    case FillingGate::passed:
      return "filled";
    case FillingGate::unmeasured:
      return "not measured";
    case FillingGate::untested:
      return "too few frames to see whether it was filled";
    case FillingGate::contrast:
      return "contrast was not flat near its highest for three frames";
    case FillingGate::growing:
      return "the lumen was still growing in the last frame, as one does that is filling";
    case FillingGate::diluted:
      return "contrast is thinner or layered there: its attenuation per mm leaves that of the vessel and does not come back";
    case FillingGate::unconfirmed:
      return "no filled lumen wide enough beside it to compare the contrast with";
  }
  return "";
}

double first_arrival(const std::vector<std::vector<std::vector<LumenPoint>>>& lumen, const std::vector<double>& times_ms) {
  // A few points of each segment tell it: the growth is tried from several starts.
  constexpr std::size_t places = 4;
  const auto time = [&](std::size_t f) { return times_ms.empty() ? static_cast<double>(f) : times_ms[f]; };
  double earliest = std::numeric_limits<double>::infinity();
  for (const auto& frames : lumen) {
    if (frames.size() < 3 || frames.front().empty()) continue;
    for (std::size_t k = 0; k < places; ++k) {
      Block place;
      place.first = frames.front().size() * k / places;
      place.last = std::min(place.first + 4, frames.front().size() - 1);
      std::vector<Block> one = {place};
      for (const std::vector<LumenPoint>& frame : frames) read_frame(one, frame);
      const Block& block = one.front();
      const double plateau = plateau_of(block);
      for (std::size_t f = 0; std::isfinite(plateau) && f < frames.size(); ++f) {
        if (!(block.contrast[f] > 0.5 * plateau)) continue;
        // It came between the frame before and this one.
        earliest = std::min(earliest, f > 0 ? 0.5 * (time(f - 1) + time(f)) : time(0) - 0.5 * (time(1) - time(0)));
        break;
      }
    }
  }
  return std::isfinite(earliest) ? earliest : 0;
}

FillingVerdict gate_filling(std::vector<std::vector<LumenPoint>>& frames, const FillingSeries& series, const FillingOptions& options) {
  FillingVerdict verdict;
  if (frames.empty() || frames.front().empty()) return verdict;
  verdict.points.assign(frames.front().size(), FillingGate::untested);
  if (static_cast<int>(frames.size()) < options.flat_frames) return verdict;
  std::vector<Block> blocks = blocks_of(frames, options);
  for (Block& block : blocks) {
    const bool measured =
        std::any_of(block.diameter.begin(), block.diameter.end(), [](double diameter) { return std::isfinite(diameter); });
    find_flat_frames(block, options);
    if (!measured) continue;
    const auto read = std::count_if(block.contrast.begin(), block.contrast.end(), [](double contrast) { return std::isfinite(contrast); });
    if (read < options.flat_frames) {  // a vessel that moves, measured where it was traced
      block.gate = FillingGate::untested;
      block.filled.assign(frames.size(), true);
      continue;
    }
    const bool flat = std::find(block.filled.begin(), block.filled.end(), true) != block.filled.end();
    block.gate = flat ? FillingGate::passed : FillingGate::contrast;
    block.wide = std::any_of(block.kappa.begin(), block.kappa.end(), [](double kappa) { return std::isfinite(kappa); });
  }
  // The wide ones first. They tell of narrow places beside them, which are sized by contrast with the wide ones' kappa: their size rises
  // with the contrast that comes later there, too.
  for (const bool wide : {true, false})
    for (Block& block : blocks) {
      if (block.wide != wide || block.gate != FillingGate::passed) continue;
      if (wide || !is_filled_beside(blocks, block, options)) test_growth(block, series, options);
      take_usual(block);
    }
  if (options.compare_kappa) KappaAlong(blocks, options).judge();
  for (const Block& block : blocks) {
    const bool out = block.gate == FillingGate::diluted;
    for (std::size_t i = block.first; i <= block.last; ++i) verdict.points[i] = block.gate;
    for (std::size_t f = 0; f < frames.size(); ++f) {
      if (block.filled[f] && !out) continue;
      PartlyFilled taken{series.frame_numbers ? (*series.frame_numbers)[f] : static_cast<int>(f), series.segment,
                         static_cast<int>(block.first), static_cast<int>(block.last), 0};
      for (std::size_t i = block.first; i <= block.last && i < frames[f].size(); ++i) {
        LumenPoint& point = frames[f][i];
        if (!point.used) continue;
        point.used = false;
        point.reason = Exclusion::partly_filled;
        ++taken.points;
      }
      if (taken.points > 0) verdict.frames.push_back(taken);
    }
  }
  return verdict;
}

}  // namespace cinelumen
