#include "engine/vessel_injury.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numbers>
#include <optional>
#include <set>

#include "engine/median.h"
#include "engine/words.h"
#include "kernels/stream.h"

namespace cinelumen {
namespace {

constexpr const char *extravasation = "extravasation", *dissection = "dissection", *suspected = " (suspected)";
constexpr std::size_t least_samples = 5, last_samples = 2;

/// Each pixel's contrast over the run.
class Course {
 public:
  explicit Course(const std::vector<CourseSample>& samples) : samples_(samples), peak_(height(), width()), end_(height(), width()) {
    parallel_for(height(), [&](int y) {
      float *const peak = peak_.row(y), *const end = end_.row(y);
      std::fill(peak, peak + width(), 0.0f);
      std::fill(end, end + width(), 0.0f);
      for (std::size_t k = 0; k < size(); ++k) {
        const float* const values = samples_[k].opacification.row(y);
        const float share = k + last_samples >= size() ? 1.0f / last_samples : 0;
        for (int x = 0; x < width(); ++x) {
          const float value = values[x] == values[x] ? values[x] : 0;
          peak[x] = std::max(peak[x], value);
          end[x] += share * value;
        }
      }
    });
  }

  int height() const { return samples_.front().opacification.height(); }
  int width() const { return samples_.front().opacification.width(); }
  std::size_t size() const { return samples_.size(); }
  double time_ms(std::size_t k) const { return samples_[k].time_ms; }
  bool inside(int y, int x) const { return y >= 0 && x >= 0 && y < height() && x < width(); }
  /// 0 where a frame does not reach.
  float at(std::size_t k, int y, int x) const {
    const float value = samples_[k].opacification(y, x);
    return std::isfinite(value) ? value : 0;
  }
  float peak(int y, int x) const { return peak_(y, x); }
  /// In the last two pictures.
  float end(int y, int x) const { return end_(y, x); }
  /// The same between four pixels.
  double peak(double y, double x) const { return between(peak_, y, x); }
  double end(double y, double x) const { return between(end_, y, x); }

 private:
  double between(const Image<float>& image, double y, double x) const {
    const int y0 = static_cast<int>(std::floor(y)), x0 = static_cast<int>(std::floor(x));
    if (!inside(y0, x0) || !inside(y0 + 1, x0 + 1)) return 0;
    const double fy = y - y0, fx = x - x0;
    return (1 - fy) * ((1 - fx) * image(y0, x0) + fx * image(y0, x0 + 1)) +
           fy * ((1 - fx) * image(y0 + 1, x0) + fx * image(y0 + 1, x0 + 1));
  }

  const std::vector<CourseSample>& samples_;
  Image<float> peak_, end_;
};

double radius_px(const SegmentResult& segment, std::size_t i) {
  const bool measured = i < segment.profile.points.size() && segment.profile.points[i].sd_px > 0;
  return std::max<double>(segment.centreline.points[i].radius_px, measured ? 0.5 * segment.profile.points[i].diameter_px : 0);
}

bool can_tell(const std::vector<CourseSample>& course, const Analysis& analysis) {
  return course.size() >= least_samples && analysis.calibration.known() && analysis.subtracted && !analysis.subtraction.moving_vessels &&
         !analysis.segments.empty();
}

/// Places of the vessels, and what is left of their contrast at the end.
struct VesselPoint {
  std::size_t segment = 0;
  int y = 0, x = 0;
  double radius_px = 0, peak = 0, left = 0;
  bool flows = true;  // no stain that was traced for a vessel: most of its segment does not keep its contrast
};

std::vector<VesselPoint> vessel_points(const Course& course, const Analysis& analysis, double stays) {
  std::vector<VesselPoint> result;
  for (std::size_t s = 0; s < analysis.segments.size(); ++s) {
    const std::size_t first = result.size();
    std::size_t staying = 0;
    // A stain over the vessel looks like a wider one.
    constexpr double widest = 1.25;
    std::vector<double> radii;
    for (std::size_t i = 0; i < analysis.segments[s].centreline.points.size(); ++i) radii.push_back(radius_px(analysis.segments[s], i));
    const double most = radii.empty() ? 0 : widest * middle_of(radii);
    for (std::size_t i = 0; i < radii.size(); ++i) {
      const CentrelinePoint& p = analysis.segments[s].centreline.points[i];
      VesselPoint point{s, static_cast<int>(std::lround(p.y)), static_cast<int>(std::lround(p.x)), std::min(radii[i], most), 0, 0, true};
      if (!course.inside(point.y, point.x)) continue;
      point.peak = course.peak(point.y, point.x);
      point.left = point.peak > 0 ? course.end(point.y, point.x) / point.peak : 1;
      staying += point.left >= stays;
      result.push_back(point);
    }
    constexpr double most_of_it = 0.4;
    for (std::size_t k = first; k < result.size(); ++k)
      result[k].flows = static_cast<double>(staying) < most_of_it * static_cast<double>(result.size() - first);
  }
  return result;
}

/// Contrast outside the vessels that stays.
class Leaks {
 public:
  Leaks(const Course& course, const Analysis& analysis, double noise_sd, const InjuryOptions& options)
      : course_(course),
        analysis_(analysis),
        options_(options),
        mm_(analysis.calibration.mm_per_px),
        points_(vessel_points(course, analysis, options.stays)) {
    std::vector<double> peaks;
    for (const VesselPoint& p : points_) peaks.push_back(p.peak);
    least_ = std::max(options.seen_sds * noise_sd, peaks.empty() ? 0 : options.least_contrast * in_place_median(peaks));
    label_ = Image<std::int32_t>(course.height(), course.width());
    parallel_for(course.height(), [&](int y) {
      for (int x = 0; x < course.width(); ++x) label_(y, x) = stays(y, x) ? candidate : nothing;
    });
    take_out_vessels();
  }

  std::vector<Extravasation> find() {
    std::vector<Extravasation> found;
    for (int y = 0; y < course_.height(); ++y)
      for (int x = 0; x < course_.width(); ++x) {
        if (label_(y, x) != candidate) continue;
        const std::vector<std::array<int, 2>> region = flood(y, x);
        if (const std::optional<Extravasation> leak = judge(region)) found.push_back(*leak);
      }
    return found;
  }

 private:
  static constexpr std::int32_t nothing = 0, candidate = 1, looked_at = 2;

  bool stays(int y, int x) const {
    const float end = course_.end(y, x);
    return end > least_ && end >= options_.stays * course_.peak(y, x);
  }
  /// Not those that keep their contrast: what is traced there may be the stain itself.
  void take_out_vessels() {
    for (const VesselPoint& p : points_) {
      if (!p.flows || p.left >= options_.stays) continue;
      const double reach = p.radius_px + options_.outside_mm / mm_;
      const int rows = static_cast<int>(reach);
      for (int y = std::max(0, p.y - rows); y <= std::min(course_.height() - 1, p.y + rows); ++y) {
        const int half = static_cast<int>(std::sqrt(reach * reach - (y - p.y) * (y - p.y)));
        const int from = std::max(0, p.x - half), to = std::min(course_.width() - 1, p.x + half);
        if (from <= to) std::fill(label_.row(y) + from, label_.row(y) + to + 1, nothing);
      }
    }
  }
  std::vector<std::array<int, 2>> flood(int y, int x) {
    std::vector<std::array<int, 2>> region{{y, x}};
    label_(y, x) = looked_at;
    for (std::size_t i = 0; i < region.size(); ++i)
      for (const auto& [dy, dx] : {std::array{-1, 0}, std::array{1, 0}, std::array{0, -1}, std::array{0, 1}}) {
        const int to_y = region[i][0] + dy, to_x = region[i][1] + dx;
        if (!course_.inside(to_y, to_x) || label_(to_y, to_x) != candidate) continue;
        label_(to_y, to_x) = looked_at;
        region.push_back({to_y, to_x});
      }
    return region;
  }

  std::optional<Extravasation> judge(const std::vector<std::array<int, 2>>& region) const {
    const auto n = static_cast<double>(region.size());
    Extravasation leak;
    leak.area_mm2 = n * mm_ * mm_;
    if (leak.area_mm2 < options_.least_area_mm2) return {};
    double y = 0, x = 0, yy = 0, xx = 0, yx = 0;
    for (const auto& [py, px] : region) y += py / n, x += px / n;
    for (const auto& [py, px] : region) yy += (py - y) * (py - y) / n, xx += (px - x) * (px - x) / n, yx += (py - y) * (px - x) / n;
    // Widths of the ellipse with the same second moments.
    const double mean = 0.5 * (yy + xx), spread = std::hypot(0.5 * (yy - xx), yx);
    const double length = 4 * mm_ * std::sqrt(mean + spread), width = 4 * mm_ * std::sqrt(std::max(0.0, mean - spread));
    const double ellipse = 0.25 * std::numbers::pi * length * width;
    if (width < options_.least_width_mm || width < options_.least_roundness * length || leak.area_mm2 < options_.least_filled * ellipse ||
        is_part_of_a_vessel(region, length))
      return {};
    leak.at_px = {y, x};
    const VesselPoint* beside = vessel_beside(region);
    if (!beside) return {};
    leak.segment = analysis_.segments[beside->segment].id;
    leak.left_in_vessel = beside->left;
    return grows(region, leak) ? std::optional(leak) : std::nullopt;
  }
  /// A traced vessel passes through it, and keeps its contrast over a much longer way: it filled late.
  bool is_part_of_a_vessel(const std::vector<std::array<int, 2>>& region, double length_mm) const {
    constexpr double much = 2;
    std::vector<double> staying_mm(analysis_.segments.size());
    std::vector<char> passes(analysis_.segments.size());
    std::set<std::array<int, 2>> inside(region.begin(), region.end());
    for (const VesselPoint& p : points_) {
      if (p.left >= options_.stays) staying_mm[p.segment] += mm_;  // points are about a pixel apart
      if (inside.count({p.y, p.x})) passes[p.segment] = 1;
    }
    for (std::size_t s = 0; s < passes.size(); ++s)
      if (passes[s] && staying_mm[s] > much * length_mm) return true;
    return false;
  }
  /// The nearest place of a vessel that has washed out, near enough for the contrast to have come from it.
  const VesselPoint* vessel_beside(const std::vector<std::array<int, 2>>& region) const {
    const VesselPoint* nearest = nullptr;
    double least = options_.beside_mm / mm_;
    for (const VesselPoint& p : points_) {
      if (!p.flows || p.left > options_.washed_out || p.peak < least_) continue;
      for (const auto& [y, x] : region)
        if (const double away = std::hypot(y - p.y, x - p.x) - p.radius_px; away < least) least = away, nearest = &p;
    }
    return nearest;
  }
  bool grows(const std::vector<std::array<int, 2>>& region, Extravasation& leak) const {
    std::vector<double> ends, left;
    for (const auto& [y, x] : region) {
      ends.push_back(course_.end(y, x));
      left.push_back(course_.end(y, x) / course_.peak(y, x));
    }
    leak.left = in_place_median(left);
    const double half = 0.5 * in_place_median(ends);
    std::vector<double> area;
    for (std::size_t k = 0; k < course_.size(); ++k)
      area.push_back(mm_ * mm_ * static_cast<double>(std::count_if(region.begin(), region.end(), [&](const auto& p) {
                       return course_.at(k, p[0], p[1]) > half;
                     })));
    constexpr double begun = 0.1;
    std::size_t first = 0;
    while (first + 1 < area.size() && area[first] < begun * area.back()) ++first;
    leak.onset_ms = course_.time_ms(first);
    leak.seconds = (course_.time_ms(course_.size() - 1) - leak.onset_ms) / 1000;
    std::size_t early = first;
    while (early + 1 < area.size() && course_.time_ms(early) < leak.onset_ms + 1000 * leak.seconds / 3) ++early;
    leak.early_area_mm2 = area[early];
    // Seen in three pictures at least after it began, and at no time smaller again.
    for (std::size_t k = first; k + 1 < area.size(); ++k)
      if (area[k + 1] < 0.9 * area[k]) return false;
    return first > 0 && first + 3 < area.size() && area[early] <= options_.grows * area.back();
  }

  const Course& course_;
  const Analysis& analysis_;
  const InjuryOptions& options_;
  double mm_, least_ = 0;
  std::vector<VesselPoint> points_;
  Image<std::int32_t> label_;
};

/// Two lumina side by side in one vessel's outline.
class Flaps {
 public:
  Flaps(const Course& course, const Analysis& analysis, double noise_sd, const InjuryOptions& options)
      : course_(course), analysis_(analysis), options_(options), mm_(analysis.calibration.mm_per_px), least_(options.seen_sds * noise_sd) {}

  std::vector<Dissection> find() const {
    std::vector<std::vector<Dissection>> of_segment(analysis_.segments.size());
    parallel_for(static_cast<int>(of_segment.size()), [&](int s) {
      std::vector<Profile> profiles;
      for (const CentrelinePoint& p : analysis_.segments[idx(s)].centreline.points) profiles.push_back(profile(p));
      for (const int side : {-1, 1})
        if (const std::optional<Dissection> flap = longest(idx(s), side, profiles)) of_segment[idx(s)].push_back(*flap);
    });
    std::vector<Dissection> found;
    for (const std::vector<Dissection>& flaps : of_segment) found.insert(found.end(), flaps.begin(), flaps.end());
    return found;
  }

 private:
  /// What a section across a vessel shows of two lumina; `other`: the one that keeps its contrast.
  struct Section {
    double width_px = 0, defect = 0, left = 0, left_beside = 0, y = 0, x = 0;
  };

  /// Contrast along the normal of a point, half a pixel apart: the highest, and at the end. Empty where nothing stays or nothing washes
  /// out.
  struct Profile {
    std::vector<double> full, end;
  };

  int half() const { return static_cast<int>(std::ceil(2 * options_.reach_mm / mm_)); }  // samples on one side
  static std::array<double, 2> place(const CentrelinePoint& p, int i) { return {p.y + 0.5 * i * p.tangent_x, p.x - 0.5 * i * p.tangent_y}; }

  Profile profile(const CentrelinePoint& p) const {
    // Most sections show at a glance that there is nothing to see.
    bool some_stays = false, some_washes_out = false;
    for (int i = -half(); i <= half(); i += 2) {
      const auto [y, x] = place(p, i);
      const int row = static_cast<int>(std::lround(y)), column = static_cast<int>(std::lround(x));
      if (!course_.inside(row, column) || course_.peak(row, column) < least_) continue;
      const double left = course_.end(row, column) / course_.peak(row, column);
      some_stays = some_stays || left >= options_.stays;
      some_washes_out = some_washes_out || left <= options_.washed_out;
    }
    if (!some_stays || !some_washes_out) return {};
    Profile result;
    for (int i = -half(); i <= half(); ++i) {
      const auto [y, x] = place(p, i);
      double most = 0, last = 0;
      for (const int along : {-1, 0, 1}) {  // three places along the vessel: less noise, and the line runs along it
        most += course_.peak(y + along * p.tangent_y, x + along * p.tangent_x) / 3;
        last += course_.end(y + along * p.tangent_y, x + along * p.tangent_x) / 3;
      }
      result.full.push_back(most);
      result.end.push_back(last);
    }
    return result;
  }

  /// On one side of the lumen that washes out.
  std::optional<Section> section(const CentrelinePoint& p, int side, const Profile& profile) const {
    if (profile.full.empty()) return {};
    std::vector<double> full = profile.full, end = profile.end;
    if (side < 0)
      for (std::vector<double>* values : {&full, &end}) std::reverse(values->begin(), values->end());
    const int half = this->half();
    const auto is_top = [&](int i) {
      return i > 0 && i + 1 < static_cast<int>(full.size()) && full[idx(i)] >= full[idx(i - 1)] && full[idx(i)] > full[idx(i + 1)] &&
             full[idx(i)] > least_;
    };
    // The lumen that the centreline runs in, or nearest to it, that washes out; then the first beyond a line on that side.
    std::optional<int> flowing;
    for (int i = 0; i < static_cast<int>(full.size()); ++i)
      if (is_top(i) && end[idx(i)] <= options_.washed_out * full[idx(i)] && (!flowing || std::abs(i - half) < std::abs(*flowing - half)))
        flowing = i;
    if (!flowing || std::abs(*flowing - half) > half / 2) return {};
    std::optional<int> other;
    for (int i = *flowing + 2; i < static_cast<int>(full.size()) && !other; ++i)
      if (is_top(i)) other = i;
    if (!other) return {};
    Section found;
    const double lesser = std::min(full[idx(*flowing)], full[idx(*other)]);
    found.defect = *std::min_element(full.begin() + *flowing, full.begin() + *other) / lesser;
    found.left = end[idx(*other)] / full[idx(*other)];
    found.left_beside = end[idx(*flowing)] / full[idx(*flowing)];
    if (found.defect > options_.defect || found.left < options_.stays) return {};
    int from = *flowing, to = *other;
    while (from > 0 && full[idx(from)] > 0.5 * full[idx(*flowing)]) --from;
    while (to + 1 < static_cast<int>(full.size()) && full[idx(to)] > 0.5 * full[idx(*other)]) ++to;
    found.width_px = 0.5 * (to - from);
    const auto [y, x] = place(p, side * ((*flowing + *other) / 2 - half));
    found.y = y;
    found.x = x;
    return found;
  }
  static std::size_t idx(int i) { return static_cast<std::size_t>(i); }

  /// The longest stretch of a segment with two lumina, the staining one on the same side; a section in five may miss it.
  std::optional<Dissection> longest(std::size_t s, int side, const std::vector<Profile>& profiles) const {
    const SegmentResult& segment = analysis_.segments[s];
    const std::size_t n = segment.centreline.points.size();
    std::vector<std::optional<Section>> sections;
    for (std::size_t i = 0; i < n; ++i) sections.push_back(section(segment.centreline.points[i], side, profiles[i]));
    const auto arc = [&](std::size_t i) { return mm_ * segment.centreline.points[i].arc_length_px; };
    std::optional<Dissection> best;
    constexpr double gap_mm = 1, least_share = 0.8;
    for (std::size_t i = 0; i < n; ++i) {
      if (!sections[i]) continue;
      std::size_t last = i, count = 1;
      for (std::size_t k = i + 1; k < n && arc(k) - arc(last) <= gap_mm; ++k)
        if (sections[k]) last = k, ++count;
      const double share = static_cast<double>(count) / static_cast<double>(last - i + 1);
      if (share >= least_share && arc(last) - arc(i) >= options_.least_length_mm && (!best || arc(last) - arc(i) > best->length_mm()))
        if (fits_the_outline(s, i, last, sections)) best = describe(s, i, last, sections);
      i = last;
    }
    return best;
  }
  Dissection describe(std::size_t s, std::size_t first, std::size_t last, const std::vector<std::optional<Section>>& sections) const {
    Dissection flap;
    const SegmentResult& segment = analysis_.segments[s];
    flap.segment = segment.id;
    flap.from_mm = mm_ * segment.centreline.points[first].arc_length_px;
    flap.to_mm = mm_ * segment.centreline.points[last].arc_length_px;
    std::vector<double> defect, left, beside;
    for (std::size_t i = first; i <= last; ++i)
      if (sections[i]) {
        defect.push_back(sections[i]->defect);
        left.push_back(sections[i]->left);
        beside.push_back(sections[i]->left_beside);
      }
    flap.defect = in_place_median(defect);
    flap.left = in_place_median(left);
    flap.left_beside = in_place_median(beside);
    std::size_t middle = (first + last) / 2;
    while (!sections[middle]) ++middle;
    flap.at_px = {sections[middle]->y, sections[middle]->x};
    return flap;
  }
  /// Both together are as wide as the vessel before and after: two veins beside one another are wider than one.
  bool fits_the_outline(std::size_t s, std::size_t first, std::size_t last, const std::vector<std::optional<Section>>& sections) const {
    constexpr double away_mm = 2, reach_mm = 12, parallel = 0.8, most = 1.35, least = 0.65;
    std::vector<double> widths, around;
    for (std::size_t i = first; i <= last; ++i)
      if (sections[i]) widths.push_back(sections[i]->width_px);
    const auto& points = analysis_.segments[s].centreline.points;
    for (const SegmentResult& segment : analysis_.segments)
      for (std::size_t i = 0; i < segment.profile.points.size(); ++i) {
        const DiameterProfile::Point& measured = segment.profile.points[i];
        const CentrelinePoint& p = segment.centreline.points[i];
        if (!(measured.sd_px > 0) || mm_ * measured.diameter_px < options_.least_diameter_mm) continue;
        for (const auto& [end, outward] : {std::pair{first, -1.0}, std::pair{last, 1.0}}) {
          const CentrelinePoint& e = points[end];
          const double along = outward * mm_ * ((p.y - e.y) * e.tangent_y + (p.x - e.x) * e.tangent_x),
                       across = mm_ * std::abs((p.y - e.y) * e.tangent_x - (p.x - e.x) * e.tangent_y);
          if (along > away_mm && along < reach_mm && across < 0.5 * along &&
              std::abs(p.tangent_y * e.tangent_y + p.tangent_x * e.tangent_x) > parallel)
            around.push_back(measured.diameter_px);
        }
      }
    if (around.size() < 5) return false;
    const double ratio = in_place_median(widths) / in_place_median(around);
    return ratio > least && ratio < most;
  }

  const Course& course_;
  const Analysis& analysis_;
  const InjuryOptions& options_;
  double mm_, least_;
};

}  // namespace

VesselInjuries find_injuries(const std::vector<CourseSample>& course, const Analysis& analysis, double noise_sd,
                             const InjuryOptions& options) {
  if (!can_tell(course, analysis)) return {};
  const Course pixels(course);
  return {Leaks(pixels, analysis, noise_sd, options).find(), Flaps(pixels, analysis, noise_sd, options).find()};
}

Finding finding_of(const Dissection& injury) {
  Finding finding;
  finding.segment = injury.segment;
  finding.label = std::string(dissection) + suspected;
  finding.at_px = injury.at_px;
  finding.extent_mm = injury.length_mm();
  finding.reasons = {text("two lumina side by side over %.0f mm, together as wide as the vessel before and after", injury.length_mm()),
                     text("a line between them holds %.0f %% of the lesser one's contrast", 100 * injury.defect),
                     text("one keeps its contrast: %.0f %% are left in it at the run's end, ", 100 * injury.left) +
                         text("%.0f %% in the other", 100 * injury.left_beside)};
  return finding;
}

Finding finding_of(const Extravasation& injury) {
  Finding finding;
  finding.segment = injury.segment;
  finding.label = std::string(extravasation) + suspected;
  finding.at_px = injury.at_px;
  finding.onset_ms = injury.onset_ms;
  finding.reasons = {text("contrast beside the vessel, %.0f mm2, outside all that was traced", injury.area_mm2),
                     text("grows: %.0f mm2 after a third of the ", injury.early_area_mm2) + text("%.1f s that it was seen", injury.seconds),
                     text("does not wash out: %.0f %% of its contrast are left at the run's end, ", 100 * injury.left) +
                         text("%.0f %% of the vessel's", 100 * injury.left_in_vessel)};
  return finding;
}

std::string injury_of(const Finding& finding) {
  for (const char* injury : {extravasation, dissection})
    if (finding.label == std::string(injury) + suspected) return injury;
  return "";
}

}  // namespace cinelumen
