#include "engine/centreline.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "engine/clutter.h"
#include "engine/skeleton_graph.h"
#include "engine/smoothing_spline.h"
#include "kernels/error.h"
#include "kernels/hysteresis.h"
#include "kernels/ridge_points.h"
#include "kernels/thinning.h"

namespace cinelumen {
namespace {

constexpr int hole_area_px = 40;            // holes of wide vessels' masks, not the gap between two vessels
constexpr float along_sigma_px = 1.5f;      // short: smoothing along the vessel is the spline's, which does not pull bends inwards
constexpr double curvature_penalty = 0.05;  // of the spline, in units of the data's weight per knot
constexpr double node_weight = 3;           // of a branch point, which its segments are to meet in
constexpr double outlier_px = 0.75;         // residuals of this size count a quarter
constexpr float accepted_last_step_px = 0.5f;
constexpr double doubtful_weight = 0.02;  // of points without a ridge: they hold the curve where there is nothing better

// Of pixels, so that nothing overflows: std::hypot takes ten times as long.
double norm(double y, double x) { return std::sqrt(y * y + x * x); }

// A curve on its way from pixels to a centreline.
struct Path {
  std::vector<SmoothingSpline::Sample> samples;
  std::vector<float> scale_px;  // per sample, smoothed
  double length = 0;
  std::vector<RidgePoint> points;  // of the curve, one per px of arc length
};

void refine(const Stream& stream, ImageView<const float> image, std::vector<RidgePoint>& points, int steps, float max_step_px) {
  const int count = static_cast<int>(points.size());
  const ArrayView<RidgePoint> host{points.data(), count};
  if (!stream.on_cuda()) {
    refine_ridge_points(stream, image, host, steps, max_step_px);
    return;
  }
  Array<RidgePoint> device(stream, count);
  copy<RidgePoint>(stream, ArrayView<const RidgePoint>{points.data(), count}, device.view());
  refine_ridge_points(stream, image, device, steps, max_step_px);
  copy<RidgePoint>(stream, device.view(), host);
  stream.synchronize();
}

// z at each point, 0 outside the image.
std::vector<float> read_at(const Stream& stream, ImageView<const float> z, const std::vector<CrossSection>& places) {
  const int count = static_cast<int>(places.size());
  Image<float> samples(stream, count, 1);
  Array<CrossSection> device(stream, count);
  copy<CrossSection>(stream, ArrayView<const CrossSection>{places.data(), count}, device.view());
  sample_across(stream, z, device.view(), 1, samples);
  const Image<float> host = to_host(stream, samples.view());
  std::vector<float> result(places.size());
  for (int i = 0; i < count; ++i) result[i] = host(i, 0) == host(i, 0) ? host(i, 0) : 0;
  return result;
}

// Running median of five either side: scales come in steps of sqrt(2) and jump.
std::vector<float> smoothed_scales(const std::vector<float>& scales) {
  const int count = static_cast<int>(scales.size());
  std::vector<float> result(scales.size());
  for (int i = 0; i < count; ++i) {
    std::array<float, 11> window;
    const auto end = std::copy(scales.begin() + std::max(0, i - 5), scales.begin() + std::min(count, i + 6), window.begin());
    const auto middle = window.begin() + (end - window.begin()) / 2;
    std::nth_element(window.begin(), middle, end);
    result[i] = *middle;
  }
  // And a mean, so that the widths of neighbouring points do not jump either.
  std::vector<float> mean(scales.size());
  for (int i = 0; i < count; ++i) {
    const int first = std::max(0, i - 3), last = std::min(count, i + 4);
    mean[i] = std::accumulate(result.begin() + first, result.begin() + last, 0.0f) / static_cast<float>(last - first);
  }
  return mean;
}

bool accepted(const RidgePoint& point, double furthest_px) {
  return std::abs(point.last_step_px) <= accepted_last_step_px && std::abs(point.moved_px) <= furthest_px;
}

// The end of edge e at node n. A vessel that goes through is held there; a branch is not: from where it leaves the parent's lumen it
// goes straight on, and the branch point, which lies where the two part, is off that line.
SmoothingSpline::Sample node_sample(const SkeletonGraph& graph, int n, int e, double t) {
  const SkeletonGraph::Node& node = graph.nodes[n];
  const bool through = node.through[0] == e || node.through[1] == e;
  return {t, node.y, node.x, through ? node_weight : 0.3, through};
}

// The chain of an edge with its nodes' positions at the ends, parametrised by the length of the smoothed pixel chain.
Path path_of(const SkeletonGraph& graph, int e, const std::vector<SkeletonPixel>& pixels, const std::vector<RidgePoint>& refined) {
  const SkeletonGraph::Edge& edge = graph.edges[e];
  const int count = static_cast<int>(edge.pixels.size());
  std::vector<double> y(count), x(count);
  std::vector<float> scales(count);
  for (int i = 0; i < count; ++i) {
    const int half = std::min({3, i, count - 1 - i});
    for (int j = i - half; j <= i + half; ++j) {
      y[i] += static_cast<double>(pixels[edge.pixels[j]].y) / (2 * half + 1);
      x[i] += static_cast<double>(pixels[edge.pixels[j]].x) / (2 * half + 1);
    }
    scales[i] = pixels[edge.pixels[i]].scale_px;
  }
  // Inside a crossing the scale is that of both vessels together: each keeps its own from before and behind.
  for (int i = 0, before = -1; i <= count; ++i) {
    if (i < count && edge.hidden[i]) continue;
    for (int j = before + 1; j < i && i - before < count + 1; ++j) {
      const float left = before >= 0 ? scales[before] : scales[i], right = i < count ? scales[i] : scales[before];
      scales[j] = left + (right - left) * static_cast<float>(j - before) / static_cast<float>(i - before);
    }
    before = i;
  }
  Path path;
  path.samples.reserve(count + 2);
  path.scale_px.reserve(count + 2);
  const std::vector<float> smooth = smoothed_scales(scales);
  double t = 0;
  const auto add_node = [&](int n, float scale) {
    path.samples.push_back(node_sample(graph, n, e, t));
    path.scale_px.push_back(scale);
  };
  if (edge.start >= 0) {
    add_node(edge.start, smooth[0]);
    t += norm(y[0] - graph.nodes[edge.start].y, x[0] - graph.nodes[edge.start].x);
  }
  for (int i = 0; i < count; ++i) {
    if (i > 0) t += norm(y[i] - y[i - 1], x[i] - x[i - 1]);
    const RidgePoint& ridge = refined[edge.pixels[i]];
    const bool good = accepted(ridge, 1 + 0.7 * smooth[i]);
    const double weight = edge.hidden[i] ? 0 : (good ? 1 : doubtful_weight);
    path.samples.push_back({t, good ? ridge.y : y[i], good ? ridge.x : x[i], weight});
    path.scale_px.push_back(smooth[i]);
  }
  if (edge.end >= 0) {
    t += norm(y[count - 1] - graph.nodes[edge.end].y, x[count - 1] - graph.nodes[edge.end].x);
    add_node(edge.end, smooth[count - 1]);
  }
  path.length = t;
  return path;
}

// The curve through the samples, and its points one px of arc length apart (spread evenly, both ends included).
void resample(Path& path, double knot_px) {
  std::vector<float> scales_now = path.scale_px;
  std::nth_element(scales_now.begin(), scales_now.begin() + static_cast<std::ptrdiff_t>(scales_now.size() / 2), scales_now.end());
  // A wide vessel does not bend within its own width, and its ridge is the noisier for a given length.
  knot_px = std::max<double>(knot_px, 2 * radius_from_scale(scales_now[scales_now.size() / 2]));
  const SmoothingSpline spline(path.samples, path.length, knot_px, curvature_penalty, outlier_px);
  const int fine = std::max(8, static_cast<int>(path.length * 8));
  const std::vector<double> arc = spline.arc_lengths(fine);
  const int count = std::max(2, static_cast<int>(std::lround(arc[fine])) + 1);
  path.points.clear();
  std::vector<float> scales;
  std::vector<SmoothingSpline::Sample> next;
  path.points.reserve(count);
  scales.reserve(count);
  next.reserve(count);
  int at = 0;
  std::size_t sample = 0;
  for (int k = 0; k < count; ++k) {
    const double wanted = arc[fine] * k / (count - 1);
    while (at + 1 < fine && arc[at + 1] < wanted) ++at;
    const double share = arc[at + 1] > arc[at] ? std::clamp((wanted - arc[at]) / (arc[at + 1] - arc[at]), 0.0, 1.0) : 0;
    const double t = path.length * (at + share) / fine;
    const SmoothingSpline::Position here = spline.at(t);
    const double speed = std::max(1e-9, norm(here.dy, here.dx));
    while (sample + 1 < path.samples.size() && path.samples[sample + 1].t <= t) ++sample;
    const bool nearer_next = sample + 1 < path.samples.size() && path.samples[sample + 1].t - t < t - path.samples[sample].t;
    const std::size_t nearest = sample + (nearer_next ? 1 : 0);
    RidgePoint point;
    point.y = static_cast<float>(here.y);
    point.x = static_cast<float>(here.x);
    point.normal_y = static_cast<float>(here.dx / speed);
    point.normal_x = static_cast<float>(-here.dy / speed);
    point.sigma_px = path.scale_px[nearest];
    point.along_sigma_px = along_sigma_px;
    path.points.push_back(point);
    scales.push_back(path.scale_px[nearest]);
    // Weight 0 stays 0: inside a crossing the ridge is the other vessel's as much as this one's.
    next.push_back({wanted, here.y, here.x, path.samples[nearest].weight > 0 ? 1.0 : 0.0});
  }
  path.scale_px = std::move(scales);
  path.samples = std::move(next);
  path.length = arc[fine];
}

// Drops the curve's ends where they lie outside the image.
void keep_inside(Path& path, int height, int width) {
  const auto outside = [&](const RidgePoint& point) {
    return !(point.y >= 0 && point.x >= 0 && point.y <= static_cast<float>(height - 1) && point.x <= static_cast<float>(width - 1));
  };
  const double step = path.length / static_cast<double>(path.points.size() - 1);
  std::size_t first = 0, last = path.points.size();
  while (first + 2 < last && outside(path.points[first])) ++first;
  while (last > first + 2 && outside(path.points[last - 1])) --last;
  path.points = std::vector<RidgePoint>(path.points.begin() + static_cast<std::ptrdiff_t>(first),
                                        path.points.begin() + static_cast<std::ptrdiff_t>(last));
  path.scale_px = std::vector<float>(path.scale_px.begin() + static_cast<std::ptrdiff_t>(first),
                                     path.scale_px.begin() + static_cast<std::ptrdiff_t>(last));
  path.length = step * static_cast<double>(path.points.size() - 1);
}

// The chain's samples after a running mean over five, which joins them as they are: a graph for every frame has no more.
void smooth(Path& path) {
  const int count = static_cast<int>(path.samples.size());
  path.points.clear();
  path.points.reserve(path.samples.size());
  for (int i = 0; i < count; ++i) {
    const int half = std::min({2, i, count - 1 - i});
    double y = 0, x = 0, weight = 0;
    for (int j = i - half; j <= i + half; ++j) {
      const double w = std::max(path.samples[j].weight, 1e-3);
      y += w * path.samples[j].y;
      x += w * path.samples[j].x;
      weight += w;
    }
    RidgePoint point;
    point.y = static_cast<float>(y / weight);
    point.x = static_cast<float>(x / weight);
    path.points.push_back(point);
  }
  double length = 0;
  for (int i = 0; i < count; ++i) {
    const RidgePoint &a = path.points[std::max(0, i - 1)], &b = path.points[std::min(count - 1, i + 1)];
    const double dy = b.y - a.y, dx = b.x - a.x, along = std::max(1e-9, norm(dy, dx));
    path.points[i].normal_y = static_cast<float>(dx / along);
    path.points[i].normal_x = static_cast<float>(-dy / along);
    if (i > 0) length += norm(path.points[i].y - path.points[i - 1].y, path.points[i].x - path.points[i - 1].x);
  }
  path.length = length;
}

// Moves each branch point onto the middle line of the vessel that goes through: the skeleton's is drawn towards the branch. The two arms
// that continue one another best are taken where they are clear of the node, and joined by a cubic.
void place_branch_points(SkeletonGraph& graph, const std::vector<SkeletonPixel>& pixels, const std::vector<RidgePoint>& refined) {
  struct Arm {
    int edge;
    double y, x, dy, dx;  // a point clear of the node, and the unit direction towards the node
  };
  for (int n = 0; n < static_cast<int>(graph.nodes.size()); ++n) {
    SkeletonGraph::Node& node = graph.nodes[n];
    std::vector<Arm> arms;
    for (const int e : node.edges) {
      const SkeletonGraph::Edge& edge = graph.edges[e];
      if (edge.start == edge.end) continue;
      std::vector<std::pair<double, double>> clear;
      const int count = static_cast<int>(edge.pixels.size());
      for (int k = 0; k < count && clear.size() < 10; ++k) {
        const int i = edge.pixels[edge.start == n ? k : count - 1 - k];
        if (norm(pixels[i].y - node.y, pixels[i].x - node.x) < node.radius_px + 2 || !accepted(refined[i], 1 + 0.7 * pixels[i].scale_px))
          continue;
        clear.emplace_back(refined[i].y, refined[i].x);
      }
      if (clear.size() < 6) continue;
      double near_y = 0, near_x = 0, far_y = 0, far_x = 0;
      const std::size_t half = clear.size() / 2;
      for (std::size_t k = 0; k < half; ++k) {
        near_y += clear[k].first / static_cast<double>(half);
        near_x += clear[k].second / static_cast<double>(half);
        far_y += clear[clear.size() - 1 - k].first / static_cast<double>(half);
        far_x += clear[clear.size() - 1 - k].second / static_cast<double>(half);
      }
      const double length = std::max(1e-9, norm(near_y - far_y, near_x - far_x));
      arms.push_back({e, near_y, near_x, (near_y - far_y) / length, (near_x - far_x) / length});
    }
    const Arm *first = nullptr, *second = nullptr;
    double straightest = 0.7;  // cosine; a vessel that goes through bends less than 45 degrees
    for (const Arm& a : arms)
      for (const Arm& b : arms) {
        const double cosine = -(a.dy * b.dy + a.dx * b.dx);
        if (&a >= &b || cosine <= straightest) continue;
        straightest = cosine;
        first = &a;
        second = &b;
      }
    if (!first) continue;
    const double span = norm(second->y - first->y, second->x - first->x);
    double best = 1e9, best_y = node.y, best_x = node.x;
    for (int k = 0; k <= 64; ++k) {
      const double t = k / 64.0, h0 = (1 + 2 * t) * (1 - t) * (1 - t), h1 = t * (1 - t) * (1 - t) * span, h2 = t * t * (3 - 2 * t),
                   h3 = t * t * (1 - t) * span;
      const double y = h0 * first->y + h1 * first->dy + h2 * second->y + h3 * second->dy;
      const double x = h0 * first->x + h1 * first->dx + h2 * second->x + h3 * second->dx;
      const double d = norm(y - node.y, x - node.x);
      if (d < best) {
        best = d;
        best_y = y;
        best_x = x;
      }
    }
    if (best > 2 * node.radius_px + 2) continue;
    node.y = best_y;
    node.x = best_x;
    node.through[0] = first->edge;
    node.through[1] = second->edge;
  }
}

// Paths once more, from evenly spaced points of their curves.
void refine_curves(const Stream& stream, ImageView<const float> image, const SkeletonGraph& graph, std::vector<RidgePoint>& on_curves,
                   double knot_px, std::vector<Path>& paths) {
  // What was hidden about a crossing counts again where the two curves are far enough apart not to disturb one another.
  for (const SkeletonGraph::Crossing& crossing : graph.crossings)
    for (const int side : {0, 1}) {
      if (crossing.edges[0] < 0 || crossing.edges[1] < 0 || crossing.edges[0] == crossing.edges[1]) continue;
      Path &path = paths[crossing.edges[side]], &other = paths[crossing.edges[1 - side]];
      for (std::size_t i = 0; i < path.points.size(); ++i) {
        if (path.samples[i].weight > 0) continue;
        double distance = 1e9, reach = 0;
        for (std::size_t j = 0; j < other.points.size(); ++j) {
          const double d = norm(path.points[i].y - other.points[j].y, path.points[i].x - other.points[j].x);
          if (d >= distance) continue;
          distance = d;
          reach = radius_from_scale(path.scale_px[i]) + radius_from_scale(other.scale_px[j]) + 2;
        }
        if (distance > reach) path.samples[i].weight = 1;
      }
    }
  // Again from evenly spaced points of the curve along its own normals, which are far less noisy than a pixel's angle.
  refine(stream, image, on_curves, 3, 0.75f);
  std::size_t at = 0;
  for (std::size_t e = 0; e < paths.size(); ++e) {
    Path& path = paths[e];
    const SkeletonGraph::Edge& edge = graph.edges[e];
    for (std::size_t i = 0; i < path.points.size(); ++i, ++at) {
      SmoothingSpline::Sample& sample = path.samples[i];
      double weight = doubtful_weight;
      if (accepted(on_curves[at], 1.5)) {
        sample.y = on_curves[at].y;
        sample.x = on_curves[at].x;
        weight = 1;
      }
      // Where vessels meet, the ridge is the larger one's: the curve is led to the branch point instead.
      for (const int n : {edge.start, edge.end})
        if (n >= 0 && norm(sample.y - graph.nodes[n].y, sample.x - graph.nodes[n].x) < graph.nodes[n].radius_px) weight = doubtful_weight;
      sample.weight *= weight;
    }
    if (edge.start >= 0) path.samples.front() = node_sample(graph, edge.start, static_cast<int>(e), 0);
    if (edge.end >= 0) path.samples.back() = node_sample(graph, edge.end, static_cast<int>(e), path.length);
    resample(path, knot_px);
    keep_inside(path, image.height, image.width);
  }
}

}  // namespace

struct CentrelineTracer::Workspace {
  Workspace(const Stream& stream, int height, int width)
      : hysteresis(stream, height, width), thinning(stream, height, width), mask(stream, height, width) {}
  Hysteresis hysteresis;
  Thinning thinning;
  Image<std::uint8_t> mask;
};

CentrelineTracer::CentrelineTracer(const Stream& stream, int height, int width)
    : workspace_(std::make_unique<Workspace>(stream, height, width)) {}
CentrelineTracer::~CentrelineTracer() = default;
CentrelineTracer::CentrelineTracer(CentrelineTracer&&) noexcept = default;
CentrelineTracer& CentrelineTracer::operator=(CentrelineTracer&&) noexcept = default;

VesselGraph trace_centrelines(const Stream& stream, ImageView<const float> image, const VesselnessMap& vesselness,
                              ImageView<const std::uint8_t> valid, const CentrelineOptions& options) {
  if (image.height == 0 || image.width == 0) return {};
  return CentrelineTracer(stream, image.height, image.width).trace(stream, image, vesselness, valid, options);
}

VesselGraph CentrelineTracer::trace(const Stream& stream, ImageView<const float> image, const VesselnessMap& vesselness,
                                    ImageView<const std::uint8_t> valid, const CentrelineOptions& options) {
  const ImageView<const float> z = vesselness.z.view();
  require(same_size(image, z), "trace_centrelines: image and vesselness differ in size");
  require(options.response_high <= 0 || same_size(image, vesselness.response.view()),
          "trace_centrelines: image and response differ in size");
  require(options.spline_knot_px > 0, "trace_centrelines: spline_knot_px must be positive");

  Image<std::uint8_t>& mask = workspace_->mask;
  SecondGate second;
  if (options.response_high > 0) second = {vesselness.response.view(), options.response_low, options.response_high};
  const float clutter = options.quick ? overall_clutter(stream, vesselness) : 1.0f;
  const int components = workspace_->hysteresis.segment(z, valid,
                                                        {.low = options.z_low * clutter,
                                                         .high = options.z_high * clutter,
                                                         .minimum_area_px = options.minimum_area_px,
                                                         .minimum_length_px = options.minimum_length_px},
                                                        mask, {}, second);
  if (components == 0) return {};
  workspace_->hysteresis.fill_holes(mask.view(), hole_area_px, mask);
  workspace_->thinning.thin(mask.view(), mask);
  std::vector<SkeletonPixel> pixels = collect_skeleton(stream, mask.view(), z, vesselness.angle, vesselness.scale_px);
  for (SkeletonPixel& pixel : pixels) pixel.z /= clutter;

  SkeletonGraphOptions graph_options;
  graph_options.minimum_length_px = options.minimum_length_px;
  graph_options.minimum_peak_z = options.z_high;
  SkeletonGraph graph = build_skeleton_graph(pixels, graph_options);

  // The skeleton says which way a vessel runs, not where its middle is: that is the ridge's business. Asked of the pixels that are left:
  // most of a noisy skeleton has been pruned.
  std::vector<char> is_used(pixels.size(), 0);
  for (const SkeletonGraph::Edge& edge : graph.edges)
    for (const int i : edge.pixels) is_used[i] = 1;
  std::vector<int> used;
  for (int i = 0; i < static_cast<int>(pixels.size()); ++i)
    if (is_used[i]) used.push_back(i);
  std::vector<RidgePoint> ridges;
  ridges.reserve(used.size());
  for (const int i : used)
    ridges.push_back({static_cast<float>(pixels[i].y), static_cast<float>(pixels[i].x), std::cos(pixels[i].angle),
                      -std::sin(pixels[i].angle), pixels[i].scale_px, along_sigma_px, 0, 0});
  refine(stream, image, ridges, options.quick ? 1 : 4, 1.0f);
  std::vector<RidgePoint> refined(pixels.size());  // of the used ones
  for (std::size_t i = 0; i < used.size(); ++i) refined[used[i]] = ridges[i];
  place_branch_points(graph, pixels, refined);

  std::vector<Path> paths;
  std::vector<RidgePoint> on_curves;
  for (int e = 0; e < static_cast<int>(graph.edges.size()); ++e) {
    paths.push_back(path_of(graph, e, pixels, refined));
    if (options.quick) {
      smooth(paths.back());
      continue;
    }
    resample(paths.back(), options.spline_knot_px);
    on_curves.insert(on_curves.end(), paths.back().points.begin(), paths.back().points.end());
  }
  if (!options.quick) refine_curves(stream, image, graph, on_curves, options.spline_knot_px, paths);

  std::vector<CrossSection> places;
  for (const Path& path : paths)
    for (const RidgePoint& point : path.points) places.push_back({point.y, point.x, point.normal_y, point.normal_x});
  const std::vector<float> z_at = read_at(stream, z, places);

  std::vector<int> order(paths.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return paths[a].length > paths[b].length; });
  std::vector<std::size_t> first_place(paths.size(), 0);
  for (std::size_t e = 1; e < paths.size(); ++e) first_place[e] = first_place[e - 1] + paths[e - 1].points.size();

  VesselGraph result;
  std::vector<int> number(paths.size());
  for (const int e : order) {
    number[e] = static_cast<int>(result.segments.size());
    VesselGraph::Segment segment;
    segment.start_branch = graph.edges[e].start;
    segment.end_branch = graph.edges[e].end;
    const Path& path = paths[e];
    segment.centreline.points.reserve(path.points.size());
    for (std::size_t i = 0; i < path.points.size(); ++i) {
      CentrelinePoint point;
      point.y = path.points[i].y;
      point.x = path.points[i].x;
      point.tangent_y = -path.points[i].normal_x;
      point.tangent_x = path.points[i].normal_y;
      point.arc_length_px = static_cast<float>(path.length * static_cast<double>(i) / static_cast<double>(path.points.size() - 1));
      point.radius_px = radius_from_scale(path.scale_px[i]);
      point.z = z_at[first_place[e] + i];
      segment.centreline.points.push_back(point);
    }
    result.segments.push_back(std::move(segment));
  }
  for (const SkeletonGraph::Node& node : graph.nodes) {
    BranchPoint branch{node.y, node.x, {}, false};
    for (const int e : node.edges)
      if (std::find(branch.segments.begin(), branch.segments.end(), number[e]) == branch.segments.end())
        branch.segments.push_back(number[e]);
    result.branch_points.push_back(std::move(branch));
  }
  for (const SkeletonGraph::Crossing& crossing : graph.crossings) {
    BranchPoint branch{crossing.y, crossing.x, {}, true};
    for (const int e : crossing.edges)
      if (e >= 0 && std::find(branch.segments.begin(), branch.segments.end(), number[e]) == branch.segments.end())
        branch.segments.push_back(number[e]);
    std::sort(branch.segments.begin(), branch.segments.end());
    result.branch_points.push_back(std::move(branch));
  }
  return result;
}

}  // namespace cinelumen
