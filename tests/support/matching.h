#pragma once
/// Compares an analysis with a phantom's truth. Used by tests and by cinelumen_accuracy.

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <vector>

#include "engine/analysis.h"
#include "engine/phantom/phantom.h"
#include "kernels/rigid_motion.h"

namespace cinelumen::test {

/// A square phantom run of a scenario.
inline PhantomRun phantom_of(const char* scenario, int side, std::uint64_t seed, std::optional<int> frames = {}) {
  PhantomOptions options;
  options.scenario = scenario;
  options.rows = options.columns = side;
  options.seed = seed;
  options.frames = frames;
  return make_phantom(options);
}

/// Bias, scatter and honesty of an error bar.
struct ErrorFigures {
  double bias = 0, sd = 0, rms = 0, coverage = 0;  ///< coverage: share of errors within 1.96 reported SDs
  int count = 0;
};

/// Gathers errors with their reported SDs.
class Errors {
 public:
  void add(double error, double reported_sd) {
    errors_.push_back(error);
    covered_ += std::abs(error) <= 1.96 * reported_sd;
  }
  ErrorFigures figures() const {
    ErrorFigures result;
    result.count = static_cast<int>(errors_.size());
    if (errors_.empty()) return result;
    double sum = 0, squares = 0;
    for (double e : errors_) {
      sum += e;
      squares += e * e;
    }
    result.bias = sum / result.count;
    result.rms = std::sqrt(squares / result.count);
    result.sd = std::sqrt(std::max(0.0, squares / result.count - result.bias * result.bias));
    result.coverage = static_cast<double>(covered_) / result.count;
    return result;
  }

 private:
  std::vector<double> errors_;
  int covered_ = 0;
};

/// Where a point of frame 0 lies in frame `frame`.
inline PixelPosition move_truth(const PhantomTruth& truth, int frame, PixelPosition p) {
  const PhantomMotion& m = truth.motion[frame];
  const double cy = (truth.options.rows - 1) / 2.0, cx = (truth.options.columns - 1) / 2.0, c = std::cos(m.rotation_rad),
               s = std::sin(m.rotation_rad);
  return {cy + s * (p.x - cx) + c * (p.y - cy) + m.dy_px, cx + c * (p.x - cx) - s * (p.y - cy) + m.dx_px};
}
/// Where a point of frame `frame` lay in frame 0.
inline PixelPosition move_truth_back(const PhantomTruth& truth, int frame, PixelPosition p) {
  const PhantomMotion& m = truth.motion[frame];
  const double cy = (truth.options.rows - 1) / 2.0, cx = (truth.options.columns - 1) / 2.0, c = std::cos(m.rotation_rad),
               s = std::sin(m.rotation_rad);
  const double y = p.y - m.dy_px - cy, x = p.x - m.dx_px - cx;
  PixelPosition back{cy - s * x + c * y, cx + c * x + s * y};
  // Bends are gentle: the displacement there is nearly that here.
  for (int i = 0; truth.options.warp_px.value_or(0) > 0 && i < 6; ++i) {
    const auto d = truth.displacement(frame, back.y, back.x);
    back = {p.y - d[0], p.x - d[1]};
  }
  return back;
}

/// A true point and the distance to it.
struct TruthMatch {
  const PhantomSegment* segment = nullptr;
  int point = -1;
  double distance_px = 1e9;  ///< perpendicular to the true centreline
};

/// The true centrelines on a grid, frame 0's coordinates.
class TruthMap {
 public:
  /// visible_only: without what lies wholly inside another vessel's lumen, as a branch does where it begins.
  explicit TruthMap(const PhantomTruth& truth, bool visible_only = false)
      : height_(truth.options.rows / cell + 1), width_(truth.options.columns / cell + 1), cells_(height_ * width_) {
    for (const PhantomSegment& segment : truth.segments)
      for (std::size_t i = 0; i < segment.points.size(); ++i) {
        const int y = static_cast<int>(segment.points[i].y_px) / cell, x = static_cast<int>(segment.points[i].x_px) / cell;
        const bool hidden = segment.points[i].gap_px < -2 * segment.points[i].radius_px;
        if (visible_only && hidden) continue;
        if (y >= 0 && x >= 0 && y < height_ && x < width_) cells_[y * width_ + x].push_back({&segment, static_cast<int>(i), 0});
      }
  }
  /// The nearest true point within 8 px, or a match without a segment.
  TruthMatch nearest(PixelPosition p) const {
    TruthMatch best;
    const int cy = static_cast<int>(p.y) / cell, cx = static_cast<int>(p.x) / cell;
    for (int y = std::max(0, cy - 1); y <= std::min(height_ - 1, cy + 1); ++y)
      for (int x = std::max(0, cx - 1); x <= std::min(width_ - 1, cx + 1); ++x)
        for (const TruthMatch& candidate : cells_[y * width_ + x]) {
          const PhantomPoint& q = candidate.segment->points[candidate.point];
          const double distance = std::hypot(q.y_px - p.y, q.x_px - p.x);
          if (distance < best.distance_px) best = {candidate.segment, candidate.point, distance};
        }
    if (!best.segment) return best;
    // Points lie about a pixel apart: measure to the line, not to the point.
    const auto& points = best.segment->points;
    const PhantomPoint &a = points[std::max(0, best.point - 1)], &b = points[std::min<std::size_t>(points.size() - 1, best.point + 1)];
    const double length = std::hypot(b.y_px - a.y_px, b.x_px - a.x_px);
    const PhantomPoint& q = points[best.point];
    if (length > 0 && best.distance_px < 8) {
      const double along = ((p.y - q.y_px) * (b.y_px - a.y_px) + (p.x - q.x_px) * (b.x_px - a.x_px)) / length;
      if (std::abs(along) < 2) best.distance_px = std::sqrt(std::max(0.0, best.distance_px * best.distance_px - along * along));
    }
    return best;
  }

 private:
  static constexpr int cell = 8;
  int height_, width_;
  std::vector<std::vector<TruthMatch>> cells_;
};

/// Largest concentration a true point ever has.
inline float largest_filling(const PhantomSegment& segment, int point) {
  float largest = 0;
  for (const auto& frame : segment.filling) largest = std::max(largest, frame[point]);
  return largest;
}

struct CentrelineFigures {
  double recall = 0, precision = 0, error_rms_px = 0;
  double clear_error_rms_px =
      0;  ///< of points 20 px and more from other vessels' edges and 16 px from the image's: where a middle line can be seen
  double measured_error_rms_px = 0;  ///< without points marked `inferred`: those whose place some pixel tells
  double inferred_share = 0;         ///< of the points that matched
  int true_points = 0, traced_points = 0;
};

/// Recall over true points of at least `minimum_diameter_mm` that were opacified; precision over traced points against vessels of any size;
/// both within `tolerance_px`; rms distance of what matched.
inline CentrelineFigures compare_centrelines(const Analysis& analysis, const PhantomTruth& truth, double minimum_diameter_mm,
                                             double tolerance_px = 2) {
  CentrelineFigures figures;
  const TruthMap map(truth);
  const int reference = analysis.subtraction.reference_frame;
  std::vector<PixelPosition> traced;
  double squares = 0, clear_squares = 0, measured_squares = 0;
  int matched = 0, clear = 0, measured = 0;
  for (const SegmentResult& segment : analysis.segments)
    for (const CentrelinePoint& point : segment.centreline.points) {
      const PixelPosition p = move_truth_back(truth, reference, {point.y, point.x});
      traced.push_back(p);
      const TruthMatch match = map.nearest(p);
      if (match.segment && match.distance_px <= tolerance_px) {
        ++matched;
        squares += match.distance_px * match.distance_px;
        if (!point.inferred) {
          ++measured;
          measured_squares += match.distance_px * match.distance_px;
        }
        const bool inside = p.y >= 16 && p.x >= 16 && p.y <= truth.options.rows - 17 && p.x <= truth.options.columns - 17;
        if (inside && match.segment->points[match.point].gap_px >= 20) {
          ++clear;
          clear_squares += match.distance_px * match.distance_px;
        }
      }
    }
  figures.measured_error_rms_px = measured ? std::sqrt(measured_squares / measured) : 0;
  figures.inferred_share = matched ? 1 - static_cast<double>(measured) / matched : 0;
  figures.clear_error_rms_px = clear ? std::sqrt(clear_squares / clear) : 0;
  figures.traced_points = static_cast<int>(traced.size());
  figures.precision = traced.empty() ? 0 : static_cast<double>(matched) / traced.size();
  figures.error_rms_px = matched ? std::sqrt(squares / matched) : 0;
  int found = 0;
  for (const PhantomSegment& segment : truth.segments)
    for (std::size_t i = 0; i < segment.points.size(); ++i) {
      const PhantomPoint& q = segment.points[i];
      if (q.diameter_calibration_mm < minimum_diameter_mm || largest_filling(segment, static_cast<int>(i)) < 0.5f) continue;
      if (q.y_px < 8 || q.x_px < 8 || q.y_px > truth.options.rows - 9 || q.x_px > truth.options.columns - 9) continue;
      ++figures.true_points;
      found += std::any_of(traced.begin(), traced.end(), [&](const PixelPosition& p) {
        return std::abs(p.y - q.y_px) <= tolerance_px && std::hypot(p.y - q.y_px, p.x - q.x_px) <= tolerance_px;
      });
    }
  figures.recall = figures.true_points ? static_cast<double>(found) / figures.true_points : 0;
  return figures;
}

/// Root mean square error of the estimated motion over frames, at the image's centre (`shift`) and over a grid of the whole image.
struct MotionFigures {
  double shift_rms_px = 0, field_rms_px = 0;
};
inline MotionFigures compare_motion(const Analysis& analysis, const PhantomTruth& truth) {
  const int h = truth.options.rows, w = truth.options.columns, reference = analysis.subtraction.reference_frame;
  double centre = 0, field = 0;
  int frames = 0, nodes = 0;
  for (const FrameSubtraction& frame : analysis.subtraction.frames) {
    const RigidMotion motion{static_cast<float>(frame.shift_y_px), static_cast<float>(frame.shift_x_px),
                             static_cast<float>(frame.rotation_rad)};
    const auto squared_error = [&](PixelPosition p) {
      const PixelPosition expected = move_truth(truth, frame.frame, move_truth_back(truth, reference, p)), actual = move(motion, p, h, w);
      return (std::pow(expected.y - actual.y, 2) + std::pow(expected.x - actual.x, 2)) / 2;  // per coordinate
    };
    centre += squared_error({(h - 1) / 2.0, (w - 1) / 2.0});
    ++frames;
    for (int i = 0; i <= 4; ++i)
      for (int j = 0; j <= 4; ++j, ++nodes) field += squared_error({i * (h - 1) / 4.0, j * (w - 1) / 4.0});
  }
  return {std::sqrt(centre / std::max(1, frames)), std::sqrt(field / std::max(1, nodes))};
}

/// Where a place of the reference frame's picture is found in a frame (0-based number).
using PlaceFinder = std::function<PixelPosition(int frame, PixelPosition)>;

/// By the rigid motion that the analysis tells of each frame; frames that it leaves out stay where they are.
inline PlaceFinder found_places(const Analysis& analysis, const PhantomTruth& truth) {
  std::map<int, RigidMotion> motions;
  for (const FrameSubtraction& frame : analysis.subtraction.frames)
    motions[frame.frame] = {static_cast<float>(frame.shift_y_px), static_cast<float>(frame.shift_x_px),
                            static_cast<float>(frame.rotation_rad)};
  return [motions, rows = truth.options.rows, columns = truth.options.columns](int frame, PixelPosition p) {
    const auto found = motions.find(frame);
    return found == motions.end() ? p : move(found->second, p, rows, columns);
  };
}

/// Endpoint error (both coordinates) of a found field.
struct FieldFigures {
  double endpoint_rms_px = 0;
  int places = 0;  ///< per frame
};

/// Against the true displacement, at places within 5 px of strong edges of the contrast-free background in the reference frame, those
/// beside air (the skin) left out: where subtraction leaves traces if it fails.
inline FieldFigures compare_field(const PhantomRun& phantom, int reference, const PlaceFinder& found) {
  const PhantomTruth& truth = phantom.truth;
  PhantomOptions bare = truth.options;
  bare.frames = 1;
  const Image<float> counts = expected_counts(bare, 0);  // frame 0 is free of contrast
  const int h = counts.height(), w = counts.width();
  constexpr int step = 2, margin = 16, reach = 5;
  constexpr double steep = 0.02;     // log units per px: cortex, not a texture's or a slope of tissue
  constexpr double air_share = 0.8;  // of the unattenuated count: nothing but air lies there
  const auto steepness = [&](int y, int x) {
    return std::hypot(std::log(counts(y + 1, x) / counts(y - 1, x)), std::log(counts(y, x + 1) / counts(y, x - 1))) / 2;
  };
  const auto beside_air = [&](int y, int x) {
    for (int dy = -margin; dy <= margin; dy += 4)
      for (int dx = -margin; dx <= margin; dx += 4)
        if (counts(y + dy, x + dx) > air_share * truth.air_count) return true;
    return false;
  };
  std::vector<PixelPosition> places;
  for (int y = margin + reach; y < h - margin - reach; y += 2 * reach)
    for (int x = margin + reach; x < w - margin - reach; x += 2 * reach) {
      bool near = false;
      for (int dy = -reach; dy <= reach && !near; dy += step)
        for (int dx = -reach; dx <= reach && !near; dx += step)
          near = dy * dy + dx * dx <= reach * reach && steepness(y + dy, x + dx) > steep;
      if (near && !beside_air(y, x)) places.push_back({static_cast<double>(y), static_cast<double>(x)});
    }
  FieldFigures figures;
  figures.places = static_cast<int>(places.size());
  double squares = 0;
  for (int frame = 0; frame < static_cast<int>(phantom.frames.size()); ++frame)
    for (const PixelPosition& p : places) {
      const auto from = truth.displacement(reference, p.y, p.x), to = truth.displacement(frame, p.y, p.x);
      const PixelPosition at = found(frame, {p.y + from[0], p.x + from[1]});
      squares += std::pow(at.y - p.y - to[0], 2) + std::pow(at.x - p.x - to[1], 2);
    }
  if (!places.empty()) figures.endpoint_rms_px = std::sqrt(squares / static_cast<double>(places.size() * phantom.frames.size()));
  return figures;
}

/// Errors of single-frame diameters, mm in the plane of calibration, by true diameter.
struct DiameterBin {
  double from_mm, to_mm;
  Errors single, pooled;
};

/// Collects the diameters measured while a run is analysed.
class DiameterObserver : public AnalysisObserver {
 public:
  explicit DiameterObserver(const PhantomTruth& truth, std::vector<DiameterBin>& bins) : truth_(truth), map_(truth), bins_(bins) {}
  void progress(const std::string&, int, int) override {}
  void topology_done(const Analysis&) override {}
  void frame_done(const FrameResult& frame) override {
    for (const LumenPoint& point : *frame.lumen) {
      ++points_;
      if (!point.used) continue;
      ++used_;
      const TruthMatch match = map_.nearest(move_truth_back(truth_, frame.frame, {point.y_px, point.x_px}));
      if (!match.segment || match.distance_px > 2) continue;
      const PhantomPoint& q = match.segment->points[match.point];
      // Only a filled lumen has a diameter that could be seen.
      if (match.segment->filling[frame.frame][match.point] < 0.5f) continue;
      for (DiameterBin& bin : bins_)
        if (q.diameter_calibration_mm >= bin.from_mm && q.diameter_calibration_mm < bin.to_mm)
          bin.single.add((point.diameter_px - 2 * q.radius_px) * truth_.mm_per_px, point.sd_px * truth_.mm_per_px);
    }
  }
  /// Adds the pooled profiles of the finished analysis.
  void finish(const Analysis& analysis) {
    for (const SegmentResult& segment : analysis.segments)
      for (const DiameterProfile::Point& point : segment.profile.points) {
        if (point.sd_px <= 0) continue;
        const TruthMatch match = map_.nearest(move_truth_back(truth_, analysis.subtraction.reference_frame, {point.y_px, point.x_px}));
        if (!match.segment || match.distance_px > 2) continue;
        const PhantomPoint& q = match.segment->points[match.point];
        for (DiameterBin& bin : bins_)
          if (q.diameter_calibration_mm >= bin.from_mm && q.diameter_calibration_mm < bin.to_mm)
            bin.pooled.add((point.diameter_px - 2 * q.radius_px) * truth_.mm_per_px, point.sd_px * truth_.mm_per_px);
      }
  }
  double used_share() const { return points_ ? static_cast<double>(used_) / points_ : 0; }

 private:
  const PhantomTruth& truth_;
  TruthMap map_;
  std::vector<DiameterBin>& bins_;
  long points_ = 0, used_ = 0;
};

}  // namespace cinelumen::test
