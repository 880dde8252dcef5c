#include "engine/skeleton_graph.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

namespace cinelumen {
namespace {

using Node = SkeletonGraph::Node;
using Edge = SkeletonGraph::Edge;

// Of pixels, so that nothing overflows: std::hypot takes ten times as long.
double norm(double y, double x) { return std::sqrt(y * y + x * x); }

// Neighbours of skeleton pixels: all four side neighbours, and a diagonal one where no side neighbour leads there anyway. So a line's
// pixels have two neighbours also where the line turns a corner.
class Neighbours {
 public:
  explicit Neighbours(const std::vector<SkeletonPixel>& pixels) : pixels_(pixels), list_(pixels.size()) {
    const int rows = pixels.empty() ? 0 : pixels.back().y + 1, count = static_cast<int>(pixels.size());
    row_starts_.assign(rows + 1, 0);
    for (const SkeletonPixel& pixel : pixels) ++row_starts_[pixel.y + 1];
    for (int y = 0; y < rows; ++y) row_starts_[y + 1] += row_starts_[y];
    // The pixels are in raster order: those of the rows above and below are met in step with this row's own.
    for (int y = 0; y < rows; ++y) {
      int above = y > 0 ? row_starts_[y - 1] : 0, below = row_starts_[y + 1];
      const int above_end = row_starts_[y], below_end = y + 1 < rows ? row_starts_[y + 2] : count;
      for (int i = row_starts_[y]; i < row_starts_[y + 1]; ++i) {
        const int x = pixels[i].x;
        while (above < above_end && pixels[above].x < x - 1) ++above;
        while (below < below_end && pixels[below].x < x - 1) ++below;
        // Of the row's pixels from `first` on, those at x - 1, x and x + 1.
        const auto three = [&](int first, int last) {
          std::array<int, 3> found = {-1, -1, -1};
          for (int j = first; j < last && pixels[j].x <= x + 1; ++j) found[pixels[j].x - x + 1] = j;
          return found;
        };
        const std::array<int, 3> north = three(above, above_end), south = three(below, below_end);
        const int west = i > row_starts_[y] && pixels[i - 1].x == x - 1 ? i - 1 : -1;
        const int east = i + 1 < row_starts_[y + 1] && pixels[i + 1].x == x + 1 ? i + 1 : -1;
        List& list = list_[i];
        for (const int side : {north[1], west, east, south[1]})
          if (side >= 0) list.add(side);
        for (const auto& row : {north, south})
          if (row[1] < 0) {
            if (west < 0 && row[0] >= 0) list.add(row[0]);
            if (east < 0 && row[2] >= 0) list.add(row[2]);
          }
      }
    }
  }
  // No more than four: a diagonal one takes the place of two side ones.
  class List {
   public:
    void add(int i) { items_[count_++] = i; }
    std::size_t size() const { return count_; }
    const int* begin() const { return items_.data(); }
    const int* end() const { return items_.data() + count_; }

   private:
    std::array<int, 4> items_;
    std::uint32_t count_ = 0;
  };
  const List& operator[](int i) const { return list_[i]; }
  int find(int y, int x) const {
    if (y < 0 || y + 1 >= static_cast<int>(row_starts_.size())) return -1;
    const auto first = pixels_.begin() + row_starts_[y], last = pixels_.begin() + row_starts_[y + 1];
    const auto at = std::lower_bound(first, last, x, [](const SkeletonPixel& pixel, int column) { return pixel.x < column; });
    return at != last && at->x == x ? static_cast<int>(at - pixels_.begin()) : -1;
  }

 private:
  const std::vector<SkeletonPixel>& pixels_;
  std::vector<int> row_starts_;
  std::vector<List> list_;
};

class Builder {
 public:
  Builder(const std::vector<SkeletonPixel>& pixels, const SkeletonGraphOptions& options)
      : pixels_(pixels), options_(options), neighbours_(pixels), node_of_(pixels.size(), -1) {}

  SkeletonGraph build() {
    find_nodes();
    trace_edges();
    // Each removal may turn a branch point into a point of a longer chain, which then is no spur.
    for (bool trimmed = false;;) {
      link();
      if (join_through() || drop_small_loops() || drop_spurs()) continue;
      if (trimmed) break;
      trim_ends();
      trimmed = true;
    }
    measure_radii();
    find_crossings();
    contract_short_edges();
    link();
    while (join_through()) link();
    return finish();
  }

 private:
  void find_nodes() {
    for (int i = 0; i < static_cast<int>(pixels_.size()); ++i) {
      if (neighbours_[i].size() < 3 || node_of_[i] >= 0) continue;
      const int node = static_cast<int>(nodes_.size());
      nodes_.emplace_back();
      std::vector<int> todo = {i};
      node_of_[i] = node;
      while (!todo.empty()) {
        const int at = todo.back();
        todo.pop_back();
        nodes_[node].pixels.push_back(at);
        for (int dy = -1; dy <= 1; ++dy)
          for (int dx = -1; dx <= 1; ++dx) {
            const int other = neighbours_.find(pixels_[at].y + dy, pixels_[at].x + dx);
            if (other < 0 || node_of_[other] >= 0 || neighbours_[other].size() < 3) continue;
            node_of_[other] = node;
            todo.push_back(other);
          }
      }
      place(nodes_[node]);
    }
    alive_node_.assign(nodes_.size(), 1);
  }

  void place(Node& node) const {
    node.y = node.x = 0;
    for (const int i : node.pixels) {
      node.y += pixels_[i].y;
      node.x += pixels_[i].x;
    }
    node.y /= static_cast<double>(node.pixels.size());
    node.x /= static_cast<double>(node.pixels.size());
    std::sort(node.pixels.begin(), node.pixels.end());
    const auto nearest =
        std::min_element(node.pixels.begin(), node.pixels.end(), [&](int a, int b) { return distance(node, a) < distance(node, b); });
    std::iter_swap(node.pixels.begin(), nearest);
  }
  double distance(const Node& node, int pixel) const { return norm(pixels_[pixel].y - node.y, pixels_[pixel].x - node.x); }

  void trace_edges() {
    std::vector<char> seen(pixels_.size(), 0);
    const auto walk = [&](int from, int at, int start_node) {
      Edge edge;
      edge.start = start_node;
      for (int previous = from;;) {
        seen[at] = 1;
        edge.pixels.push_back(at);
        int next = -1;
        for (const int other : neighbours_[at])
          if (other != previous && (node_of_[other] >= 0 || !seen[other])) next = next < 0 || node_of_[other] >= 0 ? other : next;
        if (next < 0) break;
        if (node_of_[next] >= 0) {
          edge.end = node_of_[next];
          break;
        }
        previous = at;
        at = next;
      }
      add(std::move(edge));
    };
    for (int node = 0; node < static_cast<int>(nodes_.size()); ++node)
      for (const int i : nodes_[node].pixels)
        for (const int other : neighbours_[i])
          if (node_of_[other] < 0 && !seen[other]) walk(i, other, node);
    for (int i = 0; i < static_cast<int>(pixels_.size()); ++i)
      if (node_of_[i] < 0 && !seen[i] && neighbours_[i].size() == 1) walk(-1, i, -1);
    for (int i = 0; i < static_cast<int>(pixels_.size()); ++i)  // closed lines
      if (node_of_[i] < 0 && !seen[i] && neighbours_[i].size() == 2) walk(-1, i, -1);
  }

  void add(Edge edge) {
    edge.hidden.resize(edge.pixels.size(), 0);
    edge.length_px = length_of(edge);
    edges_.push_back(std::move(edge));
    alive_edge_.push_back(1);
  }
  double length_of(const Edge& edge) const {
    double length = 0;
    for (std::size_t i = 1; i < edge.pixels.size(); ++i) {
      const SkeletonPixel &a = pixels_[edge.pixels[i - 1]], &b = pixels_[edge.pixels[i]];
      length += norm(b.y - a.y, b.x - a.x);
    }
    if (edge.start >= 0) length += distance(nodes_[edge.start], edge.pixels.front());
    if (edge.end >= 0) length += distance(nodes_[edge.end], edge.pixels.back());
    return length;
  }

  void link() {
    for (Node& node : nodes_) node.edges.clear();
    for (int e = 0; e < static_cast<int>(edges_.size()); ++e) {
      if (!alive_edge_[e]) continue;
      if (edges_[e].start >= 0) nodes_[edges_[e].start].edges.push_back(e);
      if (edges_[e].end >= 0) nodes_[edges_[e].end].edges.push_back(e);
    }
  }

  static void reverse(Edge& edge) {
    std::reverse(edge.pixels.begin(), edge.pixels.end());
    std::reverse(edge.hidden.begin(), edge.hidden.end());
    std::swap(edge.start, edge.end);
  }

  // Joins a and b, which end at node_a and node_b, through `between`; the result takes a's place. Pixels nearer than hide_px to the
  // node are hidden.
  void join(int a, int node_a, int b, int node_b, const std::vector<int>& between, bool hide, double hide_y, double hide_x,
            double hide_px) {
    Edge &first = edges_[a], &second = edges_[b];
    if (first.end != node_a) reverse(first);
    if (second.start != node_b) reverse(second);
    for (const int i : between) {
      first.pixels.push_back(i);
      first.hidden.push_back(hide);
    }
    first.pixels.insert(first.pixels.end(), second.pixels.begin(), second.pixels.end());
    first.hidden.insert(first.hidden.end(), second.hidden.begin(), second.hidden.end());
    if (hide)
      for (std::size_t i = 0; i < first.pixels.size(); ++i)
        if (norm(pixels_[first.pixels[i]].y - hide_y, pixels_[first.pixels[i]].x - hide_x) < hide_px) first.hidden[i] = 1;
    first.end = second.end;
    first.length_px = length_of(first);
    alive_edge_[b] = 0;
    for (SkeletonGraph::Crossing& crossing : crossings_)
      for (int& edge : crossing.edges)
        if (edge == b) edge = a;
  }

  bool join_through() {
    bool changed = false;
    for (int n = 0; n < static_cast<int>(nodes_.size()); ++n) {
      if (!alive_node_[n]) continue;
      Node& node = nodes_[n];
      if (node.edges.size() == 2 && node.edges[0] != node.edges[1]) {
        const int a = node.edges[0], b = node.edges[1];
        join(a, n, b, n, {node.pixels[0]}, false, 0, 0, 0);
        // b's far end now belongs to a.
        if (edges_[a].end >= 0)
          for (int& edge : nodes_[edges_[a].end].edges)
            if (edge == b) edge = a;
        if (edges_[a].start >= 0)
          for (int& edge : nodes_[edges_[a].start].edges)
            if (edge == b) edge = a;
      } else if (node.edges.size() == 1) {
        Edge& edge = edges_[node.edges[0]];
        if (edge.end != n) reverse(edge);
        edge.pixels.push_back(node.pixels[0]);
        edge.hidden.push_back(0);
        edge.end = -1;
      } else if (node.edges.size() == 2) {  // a loop and nothing else
        Edge& edge = edges_[node.edges[0]];
        edge.pixels.push_back(node.pixels[0]);
        edge.hidden.push_back(0);
        edge.start = edge.end = -1;
      } else if (!node.edges.empty()) {
        continue;
      }
      node.edges.clear();
      alive_node_[n] = 0;
      changed = true;
    }
    return changed;
  }

  // Median radius over the pixels of an edge near one of its ends.
  double radius_near(const Edge& edge, bool at_start) const {
    std::array<float, 12> scales{};  // the radius grows with the scale: the median of one is that of the other
    auto end = scales.begin();
    const int count = static_cast<int>(edge.pixels.size());
    for (int i = 0; i < std::min(count, 12); ++i) *end++ = pixels_[edge.pixels[at_start ? i : count - 1 - i]].scale_px;
    const auto middle = scales.begin() + (end - scales.begin()) / 2;
    std::nth_element(scales.begin(), middle, end);
    return radius_from_scale(*middle);
  }

  bool drop_small_loops() {
    bool changed = false;
    for (int n = 0; n < static_cast<int>(nodes_.size()); ++n) {
      if (!alive_node_[n]) continue;
      for (const int e : nodes_[n].edges) {
        const Edge& edge = edges_[e];
        if (!alive_edge_[e] || edge.pixels.empty()) continue;
        const double limit = std::max(12.0, 6 * radius_near(edge, true));
        if (edge.start == edge.end) {
          if (edge.length_px < limit) {
            alive_edge_[e] = 0;
            changed = true;
          }
          continue;
        }
        for (const int f : nodes_[n].edges) {
          const Edge& other = edges_[f];
          if (f <= e || !alive_edge_[f] || !alive_edge_[e]) continue;
          const bool parallel =
              edge.start >= 0 && edge.end >= 0 &&
              ((edge.start == other.start && edge.end == other.end) || (edge.start == other.end && edge.end == other.start));
          if (!parallel || edge.length_px + other.length_px >= limit) continue;
          alive_edge_[mean_z(edge) < mean_z(other) ? e : f] = 0;
          changed = true;
        }
      }
    }
    return changed;
  }

  struct Outside {
    int count = 0;
    double mean_z = 0, peak_z = 0, significance = 0;
  };
  // What z says of the part of an edge that lies further than so much from one node and another (null: no such node).
  Outside outside_of(const Edge& edge, const Node* a, double beyond_a_px, const Node* b, double beyond_b_px) const {
    Outside outside;
    double sum = 0, scales = 0;
    int& count = outside.count;
    for (const int i : edge.pixels) {
      if ((a && distance(*a, i) < beyond_a_px) || (b && distance(*b, i) < beyond_b_px)) continue;
      sum += pixels_[i].z;
      scales += pixels_[i].scale_px;
      ++count;
      outside.peak_z = std::max<double>(outside.peak_z, pixels_[i].z);
    }
    if (count == 0) return outside;
    outside.mean_z = sum / count;
    // z of neighbouring pixels is the same noise over about four scales: a patch of noise is one sample however large it is.
    outside.significance = outside.mean_z * std::sqrt(count / std::max(1.0, 4 * scales / count));
    return outside;
  }
  double mean_z(const Edge& edge) const { return outside_of(edge, nullptr, 0, nullptr, 0).mean_z; }

  // The widest vessel at a node, other than edge e.
  double parent_radius(int n, int e) const {
    double parent = 0;
    for (const int other : nodes_[n].edges)
      if (other != e && alive_edge_[other]) parent = std::max(parent, radius_near(edges_[other], edges_[other].start == n));
    return parent;
  }

  // A chain of noise between two vessels. What lies within the lumens on both sides is not asked: a short link is part of a branching.
  bool is_weak_bridge(const Edge& edge) const {
    const int e = static_cast<int>(&edge - edges_.data());
    const Outside outside =
        outside_of(edge, &nodes_[edge.start], parent_radius(edge.start, e), &nodes_[edge.end], parent_radius(edge.end, e));
    return outside.count >= options_.minimum_length_px &&
           (outside.mean_z < options_.bridge_z || outside.significance < options_.minimum_significance);
  }

  // Cuts a free end back to where the vessel itself ends: beyond it the mask runs on, into the tail of its response and into noise. Asked
  // of z / scale, which goes with sigma^2 |lambda2|: z itself favours the large scales that still see the vessel from afar.
  void trim_ends() {
    for (int e = 0; e < static_cast<int>(edges_.size()); ++e) {
      if (!alive_edge_[e]) continue;
      Edge& edge = edges_[e];
      for (int side = 0; side < 2; ++side) {
        if (edge.end < 0) {
          const int count = static_cast<int>(edge.pixels.size()), nearby = std::min(count, 60);
          std::vector<float> strength;
          for (const int i : edge.pixels) strength.push_back(pixels_[i].z / std::max(0.5f, pixels_[i].scale_px));
          std::vector<float> sorted(strength.end() - nearby, strength.end());
          std::nth_element(sorted.begin(), sorted.begin() + nearby * 3 / 4, sorted.end());
          const double enough = options_.end_share * sorted[nearby * 3 / 4];
          const auto mean_before = [&](int last) {  // of up to five pixels
            const int first = std::max(0, last - 4);
            double sum = 0;
            for (int i = first; i <= last; ++i) sum += strength[i];
            return sum / (last - first + 1);
          };
          int last = count - 1;
          while (last > 0 && (strength[last] < enough || mean_before(last) < enough)) --last;
          edge.pixels.resize(last + 1);
          edge.hidden.resize(last + 1);
          edge.length_px = length_of(edge);
        }
        reverse(edge);
      }
    }
  }

  bool is_spur(int e) const {
    const Edge& edge = edges_[e];
    if (edge.start >= 0 && edge.end >= 0) return is_weak_bridge(edge);
    if (edge.length_px < options_.minimum_length_px) return true;
    const int n = std::max(edge.start, edge.end);
    const Node* node = n >= 0 ? &nodes_[n] : nullptr;
    const double parent = node ? parent_radius(n, e) : 0;
    if (edge.length_px < options_.minimum_length_px + parent) return true;
    const Outside outside = outside_of(edge, node, parent, nullptr, 0);
    if (outside.peak_z < options_.minimum_peak_z || outside.significance < options_.minimum_significance) return true;
    return edge.length_px < options_.minimum_length_radii * parent && !(outside.mean_z > options_.keep_z);
  }

  bool drop_spurs() {
    bool changed = false;
    std::vector<int> shortest(nodes_.size(), -1);
    for (int e = 0; e < static_cast<int>(edges_.size()); ++e) {
      if (!alive_edge_[e] || !is_spur(e)) continue;
      const int node = std::max(edges_[e].start, edges_[e].end);
      if (node < 0 || (edges_[e].start >= 0 && edges_[e].end >= 0)) {
        alive_edge_[e] = 0;
        changed = true;
      } else if (shortest[node] < 0 || edges_[e].length_px < edges_[shortest[node]].length_px) {
        shortest[node] = e;
      }
    }
    // One per branch point: what is left there may then be one chain.
    for (const int e : shortest)
      if (e >= 0) {
        alive_edge_[e] = 0;
        changed = true;
      }
    return changed;
  }

  void measure_radii() {
    for (Node& node : nodes_) {
      node.radius_px = 0;
      for (const int e : node.edges) {
        const bool at_start = edges_[e].start >= 0 && &nodes_[edges_[e].start] == &node;
        node.radius_px = std::max(node.radius_px, radius_near(edges_[e], at_start));
      }
    }
  }

  struct Arm {
    int edge = -1, node = -1;
    double dy = 0, dx = 0;  // unit vector away from the crossing
    double y = 0, x = 0;    // a point of its straight line
    bool known = false;
  };
  Arm arm_of(int e, int n, double y, double x, double radius_px) const {
    const Edge& edge = edges_[e];
    Arm arm{e, n};
    const int count = static_cast<int>(edge.pixels.size());
    const bool at_start = edge.start == n;
    double sy = 0, sx = 0, near_y = 0, near_x = 0;
    int first = -1, last = -1;
    for (int k = 0; k < count; ++k) {
      const SkeletonPixel& pixel = pixels_[edge.pixels[at_start ? k : count - 1 - k]];
      const double d = norm(pixel.y - y, pixel.x - x);
      if (d < radius_px + 1) continue;
      if (first < 0) first = k;
      if (d > radius_px + 12) break;
      last = k;
    }
    if (first < 0 || last - first < 4) return arm;
    // Slope of a straight line by the means of its two halves: one pixel's place says little.
    const int middle = (first + last) / 2;
    for (int k = first; k <= last; ++k) {
      const SkeletonPixel& pixel = pixels_[edge.pixels[at_start ? k : count - 1 - k]];
      if (k <= middle) {
        near_y += pixel.y / static_cast<double>(middle - first + 1);
        near_x += pixel.x / static_cast<double>(middle - first + 1);
      } else {
        sy += pixel.y / static_cast<double>(last - middle);
        sx += pixel.x / static_cast<double>(last - middle);
      }
    }
    const double dy = sy - near_y, dx = sx - near_x, length = norm(dy, dx);
    if (!(length > 0)) return arm;
    arm.dy = dy / length;
    arm.dx = dx / length;
    arm.y = near_y;
    arm.x = near_x;
    arm.known = true;
    return arm;
  }
  // How far two arms are from continuing one another, radians: by their directions, and by the way from one to the other.
  static double bend(const Arm& a, const Arm& b) {
    const double dy = b.y - a.y, dx = b.x - a.x, length = std::max(1e-9, norm(dy, dx));
    const auto angle = [](double cosine) { return std::acos(std::clamp(cosine, -1.0, 1.0)); };
    return std::max(
        {angle(-(a.dy * b.dy + a.dx * b.dx)), angle(-(a.dy * dy + a.dx * dx) / length), angle((b.dy * dy + b.dx * dx) / length)});
  }

  void find_crossings() {
    link();
    // Branch points of four arms, and pairs of three arms joined by a short edge.
    for (int n = 0; n < static_cast<int>(nodes_.size()); ++n)
      if (alive_node_[n] && nodes_[n].edges.size() == 4) try_crossing(n, n, -1);
    for (int e = 0; e < static_cast<int>(edges_.size()); ++e) {
      if (!alive_edge_[e]) continue;
      const int a = edges_[e].start, b = edges_[e].end;
      if (a < 0 || b < 0 || a == b || nodes_[a].edges.size() != 3 || nodes_[b].edges.size() != 3) continue;
      try_crossing(a, b, e);
    }
  }

  void try_crossing(int a, int b, int bridge) {
    const double y = (nodes_[a].y + nodes_[b].y) / 2, x = (nodes_[a].x + nodes_[b].x) / 2;
    const double radius_px = std::max(nodes_[a].radius_px, nodes_[b].radius_px) + (bridge >= 0 ? edges_[bridge].length_px / 2 : 0);
    std::vector<Arm> arms;
    for (const int n : a == b ? std::vector<int>{a} : std::vector<int>{a, b})
      for (const int e : nodes_[n].edges)
        if (e != bridge) arms.push_back(arm_of(e, n, y, x, radius_px));
    if (arms.size() != 4) return;
    for (int i = 0; i < 4; ++i) {
      if (!arms[i].known) return;
      for (int j = 0; j < i; ++j)
        if (arms[i].edge == arms[j].edge) return;
    }
    static constexpr int pairings[3][4] = {{0, 1, 2, 3}, {0, 2, 1, 3}, {0, 3, 1, 2}};
    int best = -1;
    double least = options_.crossing_angle_rad;
    // Arms of one branch point that continue one another are a vessel with a branch: two such vessels joined by the bridge, not a crossing.
    for (int p = bridge >= 0 ? 1 : 0; p < 3; ++p) {
      const double worst = std::max(bend(arms[pairings[p][0]], arms[pairings[p][1]]), bend(arms[pairings[p][2]], arms[pairings[p][3]]));
      if (worst < least) {
        least = worst;
        best = p;
      }
    }
    if (best < 0) return;
    std::vector<int> bridge_pixels;
    if (bridge >= 0) {
      bridge_pixels = edges_[bridge].pixels;
      // Two vessels run as one until they are about the sum of their diameters apart: the longer the smaller their angle.
      const Arm &a0 = arms[pairings[best][0]], &a1 = arms[pairings[best][2]];
      const double cosine = std::abs(a0.dy * a1.dy + a0.dx * a1.dx), sine = std::sqrt(std::max(0.0, 1 - cosine * cosine));
      if (edges_[bridge].length_px > 4 * (nodes_[a].radius_px + nodes_[b].radius_px) * cosine / std::max(sine, 0.25) + 12) return;
    }
    crossings_.push_back({y, x, {-1, -1}});
    int through[2];
    for (int v = 0; v < 2; ++v) {
      const Arm &first = arms[pairings[best][2 * v]], &second = arms[pairings[best][2 * v + 1]];
      std::vector<int> between = {nodes_[first.node].pixels[0]};
      if (first.node != second.node) {
        if (edges_[bridge].start == first.node)
          between.insert(between.end(), bridge_pixels.begin(), bridge_pixels.end());
        else
          between.insert(between.end(), bridge_pixels.rbegin(), bridge_pixels.rend());
        between.push_back(nodes_[second.node].pixels[0]);
      }
      join(first.edge, first.node, second.edge, second.node, between, true, y, x, radius_px + 1);
      through[v] = first.edge;
    }
    crossings_.back().edges[0] = through[0];
    crossings_.back().edges[1] = through[1];
    if (bridge >= 0) alive_edge_[bridge] = 0;
    alive_node_[a] = alive_node_[b] = 0;
    link();
  }

  // Branch points within about one radius of one another are one.
  void contract_short_edges() {
    for (int e = 0; e < static_cast<int>(edges_.size()); ++e) {
      if (!alive_edge_[e]) continue;
      const int a = edges_[e].start, b = edges_[e].end;
      if (a < 0 || b < 0 || a == b || edges_[e].length_px > std::max(4.0, std::max(nodes_[a].radius_px, nodes_[b].radius_px))) continue;
      alive_edge_[e] = 0;
      alive_node_[b] = 0;
      nodes_[a].pixels.insert(nodes_[a].pixels.end(), nodes_[b].pixels.begin(), nodes_[b].pixels.end());
      nodes_[a].pixels.insert(nodes_[a].pixels.end(), edges_[e].pixels.begin(), edges_[e].pixels.end());
      nodes_[a].radius_px = std::max(nodes_[a].radius_px, nodes_[b].radius_px);
      place(nodes_[a]);
      for (int f = 0; f < static_cast<int>(edges_.size()); ++f) {
        if (!alive_edge_[f]) continue;
        if (edges_[f].start == b) edges_[f].start = a;
        if (edges_[f].end == b) edges_[f].end = a;
        if (edges_[f].start == a || edges_[f].end == a) edges_[f].length_px = length_of(edges_[f]);
        if (edges_[f].start == a && edges_[f].end == a && edges_[f].length_px < std::max(12.0, 6 * nodes_[a].radius_px)) alive_edge_[f] = 0;
      }
    }
  }

  SkeletonGraph finish() {
    SkeletonGraph graph;
    std::vector<int> node_number(nodes_.size(), -1), edge_number(edges_.size(), -1);
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      if (!alive_node_[n] || nodes_[n].edges.empty()) continue;
      node_number[n] = static_cast<int>(graph.nodes.size());
      graph.nodes.push_back(nodes_[n]);
      graph.nodes.back().edges.clear();
    }
    for (std::size_t e = 0; e < edges_.size(); ++e) {
      if (!alive_edge_[e]) continue;
      edge_number[e] = static_cast<int>(graph.edges.size());
      Edge edge = std::move(edges_[e]);
      for (int* end : {&edge.start, &edge.end})
        if (*end >= 0) {
          *end = node_number[*end];
          graph.nodes[*end].edges.push_back(edge_number[e]);
        }
      graph.edges.push_back(std::move(edge));
    }
    for (SkeletonGraph::Crossing crossing : crossings_) {
      for (int& edge : crossing.edges) edge = edge < 0 ? -1 : edge_number[edge];
      graph.crossings.push_back(crossing);
    }
    return graph;
  }

  const std::vector<SkeletonPixel>& pixels_;
  const SkeletonGraphOptions options_;
  const Neighbours neighbours_;
  std::vector<int> node_of_;
  std::vector<Node> nodes_;
  std::vector<Edge> edges_;
  std::vector<char> alive_node_, alive_edge_;
  std::vector<SkeletonGraph::Crossing> crossings_;
};

}  // namespace

float radius_from_scale(float scale_px) {
  const float variance = scale_px * scale_px;
  return 1.19f * std::sqrt(std::max(variance - 0.6f, 0.3f * variance));
}

SkeletonGraph build_skeleton_graph(const std::vector<SkeletonPixel>& pixels, const SkeletonGraphOptions& options) {
  return Builder(pixels, options).build();
}

}  // namespace cinelumen
