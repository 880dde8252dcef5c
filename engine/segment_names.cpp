#include "engine/segment_names.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

namespace cinelumen {
namespace {

constexpr double edge_px = 12;           // a vessel that ends this near to the image's edge goes on beyond it
constexpr double widest_share = 0.85;    // the main vessel is as wide as the widest there is, nearly
constexpr double branch_share = 0.65;    // of the main vessel's calibre: what is thinner is a branch of it
constexpr double loop_share = 0.8;       // of the thinner plantar vein's calibre: ways round the arch, by perforators, are thinner
constexpr double least_measured_px = 5;  // a segment shorter than this has no calibre of its own
constexpr double plantar_share = 0.85;   // of the way from fork to middle: beyond it may be arch or plantar vein

bool contains(std::string text, const char* word) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text.find(word) != std::string::npos;
}

// Segments with the branch point at either end, -1: none.
class Graph {
 public:
  explicit Graph(const Analysis& analysis) : analysis_(analysis), ends_(analysis.segments.size(), {-1, -1}) {
    for (std::size_t b = 0; b < analysis.branch_points.size(); ++b) {
      const BranchPoint& branch = analysis.branch_points[b];
      if (branch.crossing) continue;
      for (const int s : branch.segments) {
        const std::vector<CentrelinePoint>& points = analysis.segments[s].centreline.points;
        if (points.size() < 2) continue;
        const bool at_start = distance(points.front(), branch) < distance(points.back(), branch);
        ends_[s][at_start ? 0 : 1] = static_cast<int>(b);
      }
    }
  }
  const std::vector<int>& at(int branch) const { return analysis_.branch_points[branch].segments; }
  const std::array<int, 2>& ends(int segment) const { return ends_[segment]; }
  int other_end(int segment, int branch) const { return ends_[segment][0] == branch ? ends_[segment][1] : ends_[segment][0]; }
  double length(int segment) const { return analysis_.segments[segment].centreline.length_px(); }
  std::optional<double> diameter(int segment) const {
    return length(segment) < least_measured_px ? std::nullopt : analysis_.segments[segment].diameter.median;
  }
  std::optional<double> arrival(int segment) const { return analysis_.segments[segment].flow.times.arrival_ms; }
  int size() const { return static_cast<int>(ends_.size()); }

  // Unit vector (y, x) along a segment away from a branch point at one of its ends, over its first points.
  std::array<double, 2> direction_from(int segment, int branch) const {
    constexpr std::size_t reach = 15;
    const std::vector<CentrelinePoint>& points = analysis_.segments[segment].centreline.points;
    const std::size_t steps = std::min(reach, points.size() - 1);
    const bool forwards = ends_[segment][0] == branch;
    const CentrelinePoint &from = forwards ? points.front() : points.back(), &to = points[forwards ? steps : points.size() - 1 - steps];
    const double dy = to.y - from.y, dx = to.x - from.x, length = std::max(1e-9, std::hypot(dy, dx));
    return {dy / length, dx / length};
  }
  // Whether who comes along one segment turns back into the other, by more than a right angle.
  bool turns_back(int along, int into, int branch) const {
    const auto a = direction_from(along, branch), b = direction_from(into, branch);
    return a[0] * b[0] + a[1] * b[1] > 0;
  }

  // Where none was measured, between two branchings, that of the widest vessel it leads on to; else rough, from what was traced.
  double calibre(int segment, int from) const {
    if (const auto measured = diameter(segment)) return *measured;
    double widest = 0;
    if (const int far = other_end(segment, from); far >= 0)
      for (const int s : at(far))
        if (s != segment) widest = std::max(widest, diameter(s).value_or(0));
    if (widest > 0) return widest;
    const std::vector<CentrelinePoint>& points = analysis_.segments[segment].centreline.points;
    return points.empty() ? 0 : 2 * points[points.size() / 2].radius_px;
  }

 private:
  static double distance(const CentrelinePoint& p, const BranchPoint& branch) { return std::hypot(p.y - branch.y, p.x - branch.x); }
  const Analysis& analysis_;
  std::vector<std::array<int, 2>> ends_;
};

bool leaves_image(const Analysis& analysis, const CentrelinePoint& p) {
  return p.y < edge_px || p.x < edge_px || p.y > static_cast<float>(analysis.rows) - 1 - edge_px ||
         p.x > static_cast<float>(analysis.columns) - 1 - edge_px;
}

// Where contrast comes in: the widest vessel, filled first, from the image's edge; -1 where that is not one and the same.
int find_inlet(const Analysis& analysis, const Graph& graph) {
  double widest = 0;
  int first = -1;
  for (int s = 0; s < graph.size(); ++s) {
    if (!graph.diameter(s) || !graph.arrival(s)) continue;
    widest = std::max(widest, *graph.diameter(s));
    if (first < 0 || *graph.arrival(s) < *graph.arrival(first)) first = s;
  }
  if (first < 0 || *graph.diameter(first) < widest_share * widest) return -1;
  const std::vector<CentrelinePoint>& points = analysis.segments[first].centreline.points;
  const bool from_start = leaves_image(analysis, points.front()) && graph.ends(first)[0] < 0,
             from_end = leaves_image(analysis, points.back()) && graph.ends(first)[1] < 0;
  return from_start != from_end ? first : -1;
}

// The main path, and the branch point at which it divides into two of like calibre; -1: it is lost before.
struct MainPath {
  std::vector<int> segments;
  int fork = -1;
  std::array<int, 2> beyond = {-1, -1};  // wider first
};

MainPath follow_main(const Graph& graph, int inlet) {
  MainPath path{{inlet}, -1, {-1, -1}};
  double calibre = *graph.diameter(inlet);
  for (int at = std::max(graph.ends(inlet)[0], graph.ends(inlet)[1]); at >= 0;) {
    std::vector<int> on;
    for (const int s : graph.at(at))
      if (std::find(path.segments.begin(), path.segments.end(), s) == path.segments.end() && !graph.turns_back(path.segments.back(), s, at))
        on.push_back(s);
    if (on.empty()) break;
    std::stable_sort(on.begin(), on.end(), [&](int a, int b) { return graph.calibre(a, at) > graph.calibre(b, at); });
    if (graph.calibre(on[0], at) < branch_share * calibre) break;
    if (on.size() > 1 && graph.calibre(on[1], at) >= branch_share * graph.calibre(on[0], at)) {
      // Three of like calibre, or a branching too short to be told: no fork that could be named.
      const bool two = on.size() == 2 || graph.calibre(on[2], at) < branch_share * graph.calibre(on[1], at);
      if (two && graph.diameter(on[0]) && graph.diameter(on[1])) {
        path.fork = at;
        path.beyond = {on[0], on[1]};
      }
      break;
    }
    path.segments.push_back(on[0]);
    if (graph.diameter(on[0])) calibre = *graph.diameter(on[0]);
    at = graph.other_end(on[0], at);
  }
  return path;
}

// The shortest way from the far end of one segment beyond the fork to that of the other: the loop, in order, both included. Empty: none.
std::vector<int> find_loop(const Graph& graph, const MainPath& path, int branch_points) {
  const double least = loop_share * std::min(*graph.diameter(path.beyond[0]), *graph.diameter(path.beyond[1]));
  const int from = graph.other_end(path.beyond[0], path.fork), to = graph.other_end(path.beyond[1], path.fork);
  if (from < 0 || to < 0 || from == path.fork || to == path.fork) return {};
  std::vector<double> way(static_cast<std::size_t>(branch_points), std::numeric_limits<double>::infinity());
  std::vector<int> by(way.size(), -1);
  std::vector<char> done(way.size(), 0);
  way[from] = 0;
  done[path.fork] = 1;
  for (;;) {
    int at = -1;
    for (int b = 0; b < branch_points; ++b)
      if (!done[b] && std::isfinite(way[b]) && (at < 0 || way[b] < way[at])) at = b;
    if (at < 0) return {};
    if (at == to) break;
    done[at] = 1;
    for (const int s : graph.at(at)) {
      const int next = graph.other_end(s, at);
      const bool beyond = s == path.beyond[0] || s == path.beyond[1];
      if (beyond || next < 0 || done[next] || graph.calibre(s, at) < least || way[at] + graph.length(s) >= way[next]) continue;
      way[next] = way[at] + graph.length(s);
      by[next] = s;
    }
  }
  std::vector<int> loop = {path.beyond[1]};
  for (int at = to; at != from; at = graph.other_end(by[at], at)) loop.push_back(by[at]);
  loop.push_back(path.beyond[0]);
  return loop;
}

// Contrast comes later and later along both ways to where they meet.
struct Meeting {
  std::size_t latest = 0, middle = 0;  // indices into the loop
  double half_px = 0;
  bool sure = false;
};

Meeting find_meeting(const Analysis& analysis, const Graph& graph, const std::vector<int>& loop) {
  Meeting meeting;
  double whole = 0;
  for (const int s : loop) {
    if (!graph.arrival(s)) return meeting;
    whole += graph.length(s);
  }
  meeting.half_px = whole / 2;
  double along = 0;
  for (std::size_t i = 0; i < loop.size(); ++i) {
    if (along <= whole / 2) meeting.middle = i;
    along += graph.length(loop[i]);
    if (*graph.arrival(loop[i]) > *graph.arrival(loop[meeting.latest])) meeting.latest = i;
  }
  const auto later = [&](std::size_t before, std::size_t after) {
    const auto sd = [&](std::size_t i) { return analysis.segments[loop[i]].flow.times.arrival_sd_ms.value_or(0); };
    return *graph.arrival(loop[after]) > *graph.arrival(loop[before]) - 2 * std::hypot(sd(before), sd(after));
  };
  bool sure = meeting.latest > 0 && meeting.latest + 1 < loop.size();
  for (std::size_t i = 0; i < meeting.latest && sure; ++i) sure = later(i, i + 1);
  for (std::size_t i = meeting.latest; i + 1 < loop.size() && sure; ++i) sure = later(i + 1, i);
  // The place by time and that by length must be the same or next to one another.
  meeting.sure = sure && std::max(meeting.latest, meeting.middle) - std::min(meeting.latest, meeting.middle) <= 1;
  return meeting;
}

void name_loop(Analysis& analysis, const Graph& graph, const std::vector<int>& loop) {
  const Meeting meeting = find_meeting(analysis, graph, loop);
  if (!meeting.sure) return;
  const auto [first, last] = std::minmax(meeting.latest, meeting.middle);
  double along = 0;
  const double whole = 2 * meeting.half_px;
  for (std::size_t i = 0; i < loop.size(); ++i) {
    const double from = along, to = along += graph.length(loop[i]);
    const double from_fork = i < first ? to : whole - from;
    if (i >= first && i <= last)
      analysis.segments[loop[i]].role = "arch";
    else if (from_fork < plantar_share * meeting.half_px)
      analysis.segments[loop[i]].role = "plantar";
  }
}

}  // namespace

void name_segments(Analysis& analysis, const std::string& body_part) {
  const bool foot = contains(body_part, "FOOT") || contains(body_part, "ANKLE");
  if (!foot && !contains(body_part, "LEG") && !contains(body_part, "CALF")) return;
  const Graph graph(analysis);
  const int inlet = find_inlet(analysis, graph);
  if (inlet < 0) return;
  const MainPath path = follow_main(graph, inlet);
  for (const int s : path.segments) analysis.segments[s].role = "main";
  if (foot && path.fork >= 0)
    if (const std::vector<int> loop = find_loop(graph, path, static_cast<int>(analysis.branch_points.size())); !loop.empty())
      name_loop(analysis, graph, loop);
  for (const auto& [role, words] :
       {std::pair{"main", "main vein"}, std::pair{"plantar", "plantar vein"}, std::pair{"arch", "pedal arch"}}) {
    int number = 0;
    for (SegmentResult& segment : analysis.segments)
      if (segment.role == role) segment.name = std::string(words) + " " + std::to_string(++number);
  }
}

}  // namespace cinelumen
