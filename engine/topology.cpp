#include "engine/topology.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "engine/centreline_fit.h"
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

// Distance from a branch point to the nearest point of a centreline.
double distance_to(const BranchPoint& branch, const Centreline& line) {
  double least = std::numeric_limits<double>::infinity();
  for (const CentrelinePoint& point : line.points) least = std::min(least, std::hypot(point.y - branch.y, point.x - branch.x));
  return least;
}

// Takes `parts` for the graph's segments, longest first, and tells the branch points which are left at them. part_of: of each part, the
// segment that it was. A crossing is no segment's end: it goes on with the nearest part of either vessel.
void replace_segments(VesselGraph& graph, std::vector<VesselGraph::Segment> parts, const std::vector<int>& part_of) {
  std::vector<int> order(parts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return parts[a].centreline.length_px() > parts[b].centreline.length_px(); });
  for (BranchPoint& branch : graph.branch_points) {
    const std::vector<int> before = std::exchange(branch.segments, {});
    if (!branch.crossing) continue;
    for (const int segment : before) {
      int nearest = -1;
      double nearest_px = std::numeric_limits<double>::infinity();
      for (std::size_t i = 0; i < order.size(); ++i)
        if (const double d = part_of[order[i]] == segment ? distance_to(branch, parts[order[i]].centreline) : nearest_px; d < nearest_px) {
          nearest_px = d;
          nearest = static_cast<int>(i);
        }
      if (nearest >= 0) branch.segments.push_back(nearest);
    }
    std::sort(branch.segments.begin(), branch.segments.end());
  }
  graph.segments.clear();
  for (const int i : order) graph.segments.push_back(std::move(parts[i]));
  for (std::size_t i = 0; i < graph.segments.size(); ++i)
    for (int branch : {graph.segments[i].start_branch, graph.segments[i].end_branch})
      if (branch >= 0) graph.branch_points[branch].segments.push_back(static_cast<int>(i));
}

// Cuts out of every segment the parts whose points are `bad`, and drops what is left of it where that is shorter than `minimum_px`. Returns
// how many points went. Segments are longest first again; branch points are renumbered.
template <class Bad>
int cut_segments(VesselGraph& graph, float minimum_px, Bad bad) {
  int removed = 0;
  std::vector<VesselGraph::Segment> kept;
  std::vector<int> part_of;
  for (std::size_t s = 0; s < graph.segments.size(); ++s) {
    const VesselGraph::Segment& segment = graph.segments[s];
    const std::vector<CentrelinePoint>& points = segment.centreline.points;
    const int count = static_cast<int>(points.size());
    std::vector<int> sum(count + 1, 0);
    for (int i = 0; i < count; ++i) sum[i + 1] = sum[i] + bad(points[i]);
    // By the majority of its neighbourhood: one odd point neither cuts a vessel nor saves what is none.
    constexpr int reach = 10;
    const auto majority_bad = [&](int i) {
      const int from = std::max(0, i - reach), to = std::min(count, i + reach + 1);
      return 2 * (sum[to] - sum[from]) > to - from;
    };
    for (int from = 0; from < count;) {
      if (majority_bad(from)) {
        ++from;
        ++removed;
        continue;
      }
      int to = from;
      while (to < count && !majority_bad(to)) ++to;
      if (points[to - 1].arc_length_px - points[from].arc_length_px >= minimum_px || (from == 0 && to == count)) {
        VesselGraph::Segment part = segment;
        part.centreline.points.assign(points.begin() + from, points.begin() + to);
        for (CentrelinePoint& point : part.centreline.points) point.arc_length_px -= points[from].arc_length_px;
        if (from > 0) part.start_branch = -1;
        if (to < count) part.end_branch = -1;
        kept.push_back(std::move(part));
        part_of.push_back(static_cast<int>(s));
      } else {
        removed += to - from;
      }
      from = to;
    }
  }
  replace_segments(graph, std::move(kept), part_of);
  return removed;
}

// Keeps the segments that `keep`, called with their index, says so of.
template <class Keep>
void keep_segments(VesselGraph& graph, Keep keep) {
  std::vector<VesselGraph::Segment> kept;
  std::vector<int> part_of;
  for (std::size_t i = 0; i < graph.segments.size(); ++i) {
    if (!keep(i)) continue;
    kept.push_back(std::move(graph.segments[i]));
    part_of.push_back(static_cast<int>(i));
  }
  replace_segments(graph, std::move(kept), part_of);
}

// Drops trees (segments joined by branch points) whose length in all is below `minimum_px`.
void drop_isolated(VesselGraph& graph, float minimum_px) {
  std::vector<int> tree(graph.segments.size());
  std::iota(tree.begin(), tree.end(), 0);
  const auto root = [&](int i) {
    while (tree[i] != i) i = tree[i];
    return i;
  };
  for (const BranchPoint& branch : graph.branch_points)
    for (int segment : branch.crossing ? std::vector<int>() : branch.segments) tree[root(segment)] = root(branch.segments.front());
  std::vector<double> length(graph.segments.size(), 0);
  for (std::size_t i = 0; i < graph.segments.size(); ++i) length[root(static_cast<int>(i))] += graph.segments[i].centreline.length_px();
  keep_segments(graph, [&](std::size_t i) { return length[root(static_cast<int>(i))] >= minimum_px; });
}

// Drops segments with a free end that are shorter than `minimum_px`.
void drop_short_spurs(VesselGraph& graph, float minimum_px) {
  keep_segments(graph, [&](std::size_t i) {
    const VesselGraph::Segment& segment = graph.segments[i];
    return (segment.start_branch >= 0 && segment.end_branch >= 0) || segment.centreline.length_px() >= minimum_px;
  });
}

void turn_round(VesselGraph::Segment& segment) {
  std::vector<CentrelinePoint>& points = segment.centreline.points;
  const float length = points.back().arc_length_px;
  std::reverse(points.begin(), points.end());
  for (CentrelinePoint& point : points) {
    point.arc_length_px = length - point.arc_length_px;
    point.tangent_y = -point.tangent_y;
    point.tangent_x = -point.tangent_x;
  }
  std::swap(segment.start_branch, segment.end_branch);
}

// Where nothing branches off any more, two segments are one.
void join_two_way(VesselGraph& graph) {
  std::vector<char> gone(graph.segments.size(), 0);
  for (int n = 0; n < static_cast<int>(graph.branch_points.size()); ++n) {
    if (graph.branch_points[n].crossing) continue;
    std::vector<int> ends;
    for (std::size_t i = 0; i < graph.segments.size(); ++i)
      for (const int branch : {graph.segments[i].start_branch, graph.segments[i].end_branch})
        if (branch == n && !gone[i]) ends.push_back(static_cast<int>(i));
    if (ends.size() != 2 || ends[0] == ends[1]) continue;
    VesselGraph::Segment &first = graph.segments[ends[0]], &second = graph.segments[ends[1]];
    if (first.end_branch != n) turn_round(first);
    if (second.start_branch != n) turn_round(second);
    std::vector<CentrelinePoint>& points = first.centreline.points;
    const CentrelinePoint& last = points.back();
    const CentrelinePoint& next = second.centreline.points.front();
    const float before = last.arc_length_px + std::hypot(next.y - last.y, next.x - last.x);
    const bool same_place = before == last.arc_length_px;
    for (CentrelinePoint point : second.centreline.points) {
      point.arc_length_px += before;
      points.push_back(point);
    }
    if (same_place) points.erase(points.end() - static_cast<std::ptrdiff_t>(second.centreline.points.size()));
    first.end_branch = second.end_branch;
    gone[ends[1]] = 1;
    for (BranchPoint& branch : graph.branch_points)
      std::replace(branch.segments.begin(), branch.segments.end(), ends[1], ends[0]);  // a crossing's
  }
  keep_segments(graph, [&](std::size_t i) { return !gone[i]; });
}

std::string percent(double share) { return std::to_string(static_cast<int>(std::lround(100 * share))) + " %"; }

constexpr int judged_side_px = 512;  // larger images are compared at half their size

// An image at half its size, each pixel the mean of four, with what finding vessels in it takes.
class Halved {
 public:
  Halved(const Stream& stream, ImageView<const std::uint8_t> valid, const TopologyOptions& options)
      : stream_(stream), height_(valid.height / 2), width_(valid.width / 2), options_(options.centreline), valid_(height_, width_) {
    for (int y = 0; y < height_; ++y)
      for (int x = 0; x < width_; ++x)
        valid_(y, x) = valid(2 * y, 2 * x) && valid(2 * y, 2 * x + 1) && valid(2 * y + 1, 2 * x) && valid(2 * y + 1, 2 * x + 1);
    device_valid_ = to_device(stream, valid_.view());
    vesselness = options.vesselness;
    vesselness.noise_sd /= 2;
    vesselness.min_scale_px /= 2;
    vesselness.max_scale_px /= 2;
    // What one scale is here, the one of twice its size was.
    for (int i = 0; i < vesselness_scale_count; ++i) {
      int before = i;
      for (int j = 0; j < vesselness_scale_count; ++j)
        if (std::abs(vesselness_scales_px[j] / vesselness_scales_px[i] - 2) < 0.05f) before = j;
      vesselness.correlation_factor[i] = options.vesselness.correlation_factor[before];
      vesselness.use_scale[i] = options.vesselness.use_scale[before];
    }
    if (options.vesselness.noise_weight.data) weight_ = of(options.vesselness.noise_weight);
    vesselness.noise_weight = weight_.view();
    options_.minimum_area_px /= 4;
    options_.minimum_length_px /= 2;
  }
  Image<float> of(ImageView<const float> image) const {
    Image<float> copied;
    if (stream_.on_cuda()) copied = to_host(stream_, image);
    const ImageView<const float> from = stream_.on_cuda() ? copied.view() : image;
    Image<float> half(height_, width_);
    for (int y = 0; y < height_; ++y) {
      const float *above = from.row(2 * y), *below = from.row(2 * y + 1);
      float* to = half.row(y);
      for (int x = 0; x < width_; ++x) to[x] = 0.25f * (above[2 * x] + above[2 * x + 1] + below[2 * x] + below[2 * x + 1]);
    }
    return to_device(stream_, half.view());
  }
  ImageView<const std::uint8_t> valid() const { return device_valid_.view(); }
  ImageView<const std::uint8_t> field() const { return valid_.view(); }
  const CentrelineOptions& centreline() const { return options_; }
  VesselnessOptions vesselness;

 private:
  Stream stream_;
  int height_, width_;
  CentrelineOptions options_;
  Image<std::uint8_t> valid_, device_valid_;
  Image<float> weight_;
};

// Median share of one image's clear centrelines that another's confirm; 1 where there is nothing to compare.
double median_agreement(const std::vector<const VesselGraph*>& graphs, float tolerance_px, float minimum_z) {
  std::vector<double> shares;
  for (std::size_t i = 0; i + 1 < graphs.size(); ++i)
    for (std::size_t j = i + 1; j < graphs.size(); ++j) {
      const VesselGraph &a = *graphs[i], &b = *graphs[j];
      const VesselGraph &shorter = total_length_px(a) < total_length_px(b) ? a : b, &longer = &shorter == &a ? b : a;
      if (!shorter.segments.empty()) shares.push_back(confirmed_share(shorter, longer, tolerance_px, minimum_z));
    }
  if (shares.empty()) return 1;
  std::nth_element(shares.begin(), shares.begin() + static_cast<std::ptrdiff_t>(shares.size() / 2), shares.end());
  return shares[shares.size() / 2];
}

// Noise settings by the clutter of an image that is like those to come.
VesselnessOptions calibrated_on(const Stream& stream, Vesselness& vesselness, VesselnessMap& map, ImageView<const float> image,
                                ImageView<const std::uint8_t> host_valid, VesselnessOptions options) {
  VesselnessOptions gate = options;
  gate.planes = VesselnessPlanes::z_and_scale;
  vesselness.compute(stream, image, gate, map);
  const auto clutter = clutter_factors(stream, map, host_valid, options);
  for (int i = 0; i < vesselness_scale_count; ++i) options.correlation_factor[i] *= clutter[i];
  return options;
}

// Three frames tell whether the vessels move.
std::vector<std::size_t> compared_frames(std::size_t count) {
  std::vector<std::size_t> frames;
  if (count == 0) return frames;
  for (const std::size_t i : {std::size_t{0}, count / 2, count - 1})
    if (frames.empty() || frames.back() != i) frames.push_back(i);
  return frames;
}

// How well key frames agree on where the vessels lie, looked at in half size.
double agreement_in_half_size(const Stream& stream, const std::vector<KeyFrame>& key_frames, ImageView<const std::uint8_t> host_valid,
                              const TopologyOptions& options) {
  Halved half(stream, host_valid, options);
  const std::vector<std::size_t> compared = compared_frames(key_frames.size());
  std::vector<VesselGraph> graphs(compared.size());
  const int height = half.valid().height, width = half.valid().width;
  const auto trace = [&](const Stream& on, Vesselness& vesselness, VesselnessMap& map, const VesselnessOptions& calibrated, int i) {
    const Image<float> image = half.of(key_frames[compared[i]].image.view());
    vesselness.compute(on, image.view(), calibrated, map);
    graphs[i] = trace_centrelines(on, image.view(), map, half.valid(), half.centreline());
  };
  Vesselness vesselness(stream, half.valid());
  VesselnessMap map = make_vesselness_map(stream, height, width);
  const Image<float> usual = half.of(key_frames[key_frames.size() / 2].image.view());
  const VesselnessOptions calibrated = calibrated_on(stream, vesselness, map, usual.view(), half.field(), half.vesselness);
  const int count = static_cast<int>(compared.size());
  if (stream.on_cuda() || !stream.schedule().parallel) {
    for (int i = 0; i < count; ++i) trace(stream, vesselness, map, calibrated, i);
  } else {
    parallel_for(count, [&](int i) {
      const Stream serial = Stream::cpu({.parallel = false});
      Vesselness own(serial, half.valid());
      VesselnessMap own_map = make_vesselness_map(serial, height, width);
      trace(serial, own, own_map, calibrated, i);
    });
  }
  std::vector<const VesselGraph*> pointers;
  for (const VesselGraph& graph : graphs) pointers.push_back(&graph);
  return median_agreement(pointers, options.still_tolerance_px / 2, options.still_minimum_z);
}

}  // namespace

void prune_spurs(VesselGraph& graph, float minimum_px) {
  drop_short_spurs(graph, minimum_px);
  join_two_way(graph);
}

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
  Vesselness vesselness(stream, valid);
  VesselnessMap map = make_vesselness_map(stream, height, width);
  const Image<std::uint8_t> host_valid = to_host(stream, valid);
  // Clutter is looked at anew in images of another kind, not in every key frame.
  VesselnessOptions calibrated = options.vesselness;
  const auto calibrate_on = [&](ImageView<const float> image) {
    calibrated = calibrated_on(stream, vesselness, map, image, host_valid.view(), options.vesselness);
  };
  const auto trace = [&](ImageView<const float> image) {
    vesselness.compute(stream, image, calibrated, map);
    return trace_centrelines(stream, image, map, valid, options.centreline);
  };
  std::vector<VesselGraph> graphs(key_frames.size());
  std::vector<char> traced(key_frames.size(), 0);
  const auto trace_key_frame = [&](std::size_t i) {
    if (!traced[i]) graphs[i] = trace(key_frames[i].image.view());
    traced[i] = 1;
  };

  Topology topology;
  const bool large = std::min(height, width) > judged_side_px;
  if (large && key_frames.size() > 1) topology.agreement = agreement_in_half_size(stream, key_frames, host_valid.view(), options);
  const bool looked_at_whole = !key_frames.empty() && (!large || topology.agreement < options.still_agreement);
  if (looked_at_whole) calibrate_on(key_frames[key_frames.size() / 2].image.view());
  if (looked_at_whole && !large) {
    std::vector<const VesselGraph*> compared;
    for (const std::size_t i : compared_frames(key_frames.size())) {
      trace_key_frame(i);
      compared.push_back(&graphs[i]);
    }
    topology.agreement = median_agreement(compared, options.still_tolerance_px, options.still_minimum_z);
  }
  topology.moving_vessels = topology.agreement < options.still_agreement;

  topology.picture = Image<float>(stream, height, width);
  if (topology.moving_vessels) {
    // Only then are the others needed, to find the clearest.
    for (std::size_t i = 0; i < key_frames.size(); ++i) trace_key_frame(i);
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
    calibrate_on(whole_run);
    topology.graph = trace(whole_run);
    copy<float>(stream, whole_run, topology.picture.view());
    topology.note = key_frames.size() > 1 ? "the vessels stand still (well-filled frames share " + percent(topology.agreement) +
                                                " of their centrelines): traced in the image of the whole run"
                                          : "traced in the one image there is";
  }

  topology.removed_edge_points = cut_segments(topology.graph, options.minimum_part_px, [&](const CentrelinePoint& point) {
    return near_edge(point, host_valid, options.edge_margin_px);
  });
  // What lies beside a ridge of lost attenuation is something that moved.
  Image<float> lost;
  VesselGraph lost_ridges;
  std::optional<PointGrid> grid;
  const auto lost_at = [&](const CentrelinePoint& point) {
    const int y = std::clamp(static_cast<int>(std::lround(point.y)), 0, height - 1);
    const int x = std::clamp(static_cast<int>(std::lround(point.x)), 0, width - 1);
    return lost(y, x);
  };
  const auto is_displaced = [&](const CentrelinePoint& point) {
    const float added = -lost_at(point);
    if (added <= 0) return true;
    return grid->any_near(point.y, point.x, [&](const CentrelinePoint& other) {
      const float parallel = std::abs(point.tangent_y * other.tangent_y + point.tangent_x * other.tangent_x);
      const float nearness = 1 - std::hypot(other.y - point.y, other.x - point.x) / options.displaced_reach_px;
      // Close by, less will do: the object was filled with contrast meanwhile.
      return parallel > 0.9f && lost_at(other) > options.displaced_depth * (1 - 0.8f * nearness) * added;
    });
  };
  if (topology.moving_vessels) {
    lost = to_host<const float>(stream, topology.picture.view());
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) lost(y, x) = -lost(y, x);
    lost_ridges = trace(to_device(stream, lost.view()).view());
    grid.emplace(lost_ridges, options.displaced_reach_px);
    topology.removed_displaced_points = cut_segments(topology.graph, options.minimum_part_px, is_displaced);
    // What moves leaves residues of every kind: here a vessel must stand out more.
    cut_segments(topology.graph, options.minimum_part_px, [&](const CentrelinePoint& point) { return point.z < options.moving_minimum_z; });
    drop_isolated(topology.graph, options.moving_minimum_tree_px);
  }
  // Last: what is carried on between vessels is not to be judged by what lies there.
  if (topology.moving_vessels) vesselness.compute(stream, topology.picture.view(), calibrated, map);
  CentrelineFitOptions fit;
  fit.noise_sd = options.vesselness.noise_sd;
  fit.spline_knot_px = options.centreline.spline_knot_px;
  topology.graph = fit_centrelines(stream, topology.picture.view(), map.z.view(), valid, topology.graph, fit);
  // The fit straightens: what it has laid along a residue goes too.
  if (topology.moving_vessels) {
    topology.removed_displaced_points += cut_segments(topology.graph, options.minimum_part_px,
                                                      [&](const CentrelinePoint& point) { return !point.inferred && is_displaced(point); });
    prune_spurs(topology.graph, options.minimum_part_px);
  }
  return topology;
}

}  // namespace cinelumen
