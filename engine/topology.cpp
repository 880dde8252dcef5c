#include "engine/topology.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/clutter.h"

namespace cinelumen {
namespace {

// Centreline points on a coarse grid, so that a neighbour is found without looking at all of them.
class PointGrid {
 public:
  PointGrid(const VesselGraph& graph, float cell_px) : cell_(cell_px) {
    for (const VesselGraph::Segment& segment : graph.segments)
      for (const CentrelinePoint& point : segment.centreline.points) {
        height_ = std::max(height_, index(point.y) + 1);
        width_ = std::max(width_, index(point.x) + 1);
      }
    cells_.resize(static_cast<std::size_t>(height_) * width_);
    for (const VesselGraph::Segment& segment : graph.segments)
      for (const CentrelinePoint& point : segment.centreline.points)
        cells_[static_cast<std::size_t>(index(point.y)) * width_ + index(point.x)].push_back(&point);
  }

  /// True where `accept` holds for a point within one cell's size of (y, x).
  template <class Accept>
  bool any_near(float y, float x, Accept accept) const {
    for (int cy = std::max(0, index(y) - 1); cy <= std::min(height_ - 1, index(y) + 1); ++cy)
      for (int cx = std::max(0, index(x) - 1); cx <= std::min(width_ - 1, index(x) + 1); ++cx)
        for (const CentrelinePoint* point : cells_[static_cast<std::size_t>(cy) * width_ + cx])
          if (std::hypot(point->y - y, point->x - x) <= cell_ && accept(*point)) return true;
    return false;
  }

 private:
  int index(float position) const { return std::max(0, static_cast<int>(position / cell_)); }
  float cell_;
  int height_ = 0, width_ = 0;
  std::vector<std::vector<const CentrelinePoint*>> cells_;
};

double total_length_px(const VesselGraph& graph) {
  double sum = 0;
  for (const VesselGraph::Segment& segment : graph.segments) sum += segment.centreline.length_px();
  return sum;
}

// How much vessel a picture shows, and how clearly: a smeared vessel has a low z, an empty one no length.
double clarity(const VesselGraph& graph) {
  constexpr float enough_z = 20;  // beyond it a vessel is as clear as it needs to be
  double sum = 0;
  for (const VesselGraph::Segment& segment : graph.segments)
    for (const CentrelinePoint& point : segment.centreline.points) sum += std::min(point.z, enough_z);
  return sum;
}

// Share of a segment's points for which `is_bad` holds.
template <class Predicate>
double share(const Centreline& centreline, Predicate is_bad) {
  if (centreline.points.empty()) return 0;
  return static_cast<double>(std::count_if(centreline.points.begin(), centreline.points.end(), is_bad)) / centreline.points.size();
}

bool near_edge(const CentrelinePoint& point, const Image<std::uint8_t>& valid, float margin_px) {
  constexpr int directions = 16;
  for (int i = 0; i < directions; ++i) {
    const double angle = 2 * 3.14159265358979 * i / directions;
    const int y = static_cast<int>(std::lround(point.y + margin_px * std::sin(angle)));
    const int x = static_cast<int>(std::lround(point.x + margin_px * std::cos(angle)));
    // The picture's own border cuts vessels but makes none: only an edge inside the picture looks like a vessel.
    if (y < 0 || x < 0 || y >= valid.height() || x >= valid.width()) continue;
    if (valid(y, x) == 0) return true;
  }
  return false;
}

// Removes the segments for which `drop` is true and renumbers what refers to them. Returns how many went.
template <class Drop>
int remove_segments(VesselGraph& graph, Drop drop) {
  std::vector<int> new_index(graph.segments.size(), -1);
  std::vector<VesselGraph::Segment> kept;
  for (std::size_t i = 0; i < graph.segments.size(); ++i)
    if (!drop(graph.segments[i])) {
      new_index[i] = static_cast<int>(kept.size());
      kept.push_back(std::move(graph.segments[i]));
    }
  const int removed = static_cast<int>(graph.segments.size() - kept.size());
  graph.segments = std::move(kept);
  for (BranchPoint& branch : graph.branch_points) {
    std::vector<int> segments;
    for (int segment : branch.segments)
      if (new_index[segment] >= 0) segments.push_back(new_index[segment]);
    branch.segments = std::move(segments);
  }
  return removed;
}

std::string percent(double share) { return std::to_string(static_cast<int>(std::lround(100 * share))) + " %"; }

}  // namespace

double confirmed_share(const VesselGraph& a, const VesselGraph& b, float tolerance_px, float minimum_z) {
  const PointGrid grid(b, tolerance_px);
  long points = 0, confirmed = 0;
  for (const VesselGraph::Segment& segment : a.segments)
    for (const CentrelinePoint& point : segment.centreline.points) {
      if (point.z < minimum_z) continue;
      ++points;
      confirmed += grid.any_near(point.y, point.x, [](const CentrelinePoint&) { return true; });
    }
  return points > 0 ? static_cast<double>(confirmed) / points : 1;
}

Topology find_topology(const Stream& stream, ImageView<const float> whole_run, const std::vector<KeyFrame>& key_frames,
                       ImageView<const std::uint8_t> valid, const TopologyOptions& options) {
  const int height = whole_run.height, width = whole_run.width;
  Vesselness vesselness(stream, height, width);
  VesselnessMap map = make_vesselness_map(stream, height, width);
  const Image<std::uint8_t> host_valid = to_host(stream, valid);
  VesselnessOptions calibrated = options.vesselness;
  const auto trace = [&](ImageView<const float> image) {
    vesselness.compute(stream, image, valid, options.vesselness, map);
    calibrated = options.vesselness;
    const auto clutter = clutter_factors(stream, map, host_valid.view(), options.vesselness);
    for (int i = 0; i < vesselness_scale_count; ++i) calibrated.correlation_factor[i] *= clutter[i];
    vesselness.compute(stream, image, valid, calibrated, map);
    return trace_centrelines(stream, image, map, valid, options.centreline);
  };

  std::vector<VesselGraph> graphs;
  for (const KeyFrame& key : key_frames) graphs.push_back(trace(key.image.view()));

  Topology topology;
  std::vector<double> shares;
  for (std::size_t i = 0; i + 1 < graphs.size(); ++i)
    for (std::size_t j = i + 1; j < graphs.size(); ++j) {
      const bool first_is_shorter = total_length_px(graphs[i]) < total_length_px(graphs[j]);
      const VesselGraph &shorter = graphs[first_is_shorter ? i : j], &longer = graphs[first_is_shorter ? j : i];
      if (!shorter.segments.empty())
        shares.push_back(confirmed_share(shorter, longer, options.still_tolerance_px, options.still_minimum_z));
    }
  if (!shares.empty()) {
    std::nth_element(shares.begin(), shares.begin() + shares.size() / 2, shares.end());
    topology.agreement = shares[shares.size() / 2];
  }
  topology.moving_vessels = topology.agreement < options.still_agreement;

  topology.picture = Image<float>(stream, height, width);
  if (topology.moving_vessels) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < graphs.size(); ++i)
      if (clarity(graphs[i]) > clarity(graphs[best])) best = i;
    topology.frame = key_frames[best].frame;
    topology.graph = std::move(graphs[best]);
    copy<float>(stream, key_frames[best].image.view(), topology.picture.view());
    topology.note = "the vessels move against the background (two well-filled frames share " + percent(topology.agreement) +
                    " of their centrelines): traced in frame " + std::to_string(topology.frame + 1) +
                    ", the one with the longest and clearest vessels, and found again in the other frames where they can be";
  } else {
    topology.graph = trace(whole_run);
    copy<float>(stream, whole_run, topology.picture.view());
    topology.note = key_frames.size() > 1 ? "the vessels stand still (well-filled frames share " + percent(topology.agreement) +
                                                " of their centrelines): traced in the image of the whole run"
                                          : "traced in the one image there is";
  }

  topology.removed_edge = remove_segments(topology.graph, [&](const VesselGraph::Segment& segment) {
    return share(segment.centreline, [&](const CentrelinePoint& point) { return near_edge(point, host_valid, options.edge_margin_px); }) >
           options.edge_share;
  });
  if (topology.moving_vessels) {
    Image<float> lost = to_host<const float>(stream, topology.picture.view());
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) lost(y, x) = -lost(y, x);
    const VesselGraph lost_ridges = trace(to_device(stream, lost.view()).view());
    const PointGrid grid(lost_ridges, options.displaced_reach_px);
    topology.removed_displaced = remove_segments(topology.graph, [&](const VesselGraph::Segment& segment) {
      return share(segment.centreline, [&](const CentrelinePoint& point) {
               return grid.any_near(point.y, point.x, [&](const CentrelinePoint& other) {
                 const float parallel = std::abs(point.tangent_y * other.tangent_y + point.tangent_x * other.tangent_x);
                 return parallel > 0.95f && other.z > 0.5f * point.z && other.radius_px < 2 * point.radius_px;
               });
             }) > options.displaced_share;
    });
  }
  return topology;
}

}  // namespace cinelumen
