#include "engine/segment_names.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/segment_ends.h"

namespace cinelumen {
namespace {

constexpr double widest_share = 0.85;    // the main vessel is as wide as the widest there is, nearly
constexpr double branch_share = 0.65;    // of the main vessel's calibre: what is thinner is a branch of it
constexpr double loop_share = 0.8;       // of the thinner plantar vein's calibre: ways round the arch, by perforators, are thinner
constexpr double least_measured_px = 5;  // a segment shorter than this has no calibre of its own
constexpr double passed_share = 0.85;    // of the wider one's calibre: what is thinner may be passed by where no loop leads from both
constexpr int most_passed = 3;           // such branches
constexpr double plantar_share = 0.85;   // of the way from fork to middle: beyond it may be arch or plantar vein

bool contains(std::string text, const char* word) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text.find(word) != std::string::npos;
}

// Segments with the branch point at either end, -1: none.
class Graph {
 public:
  explicit Graph(const Analysis& analysis) : analysis_(analysis), ends_(segment_ends(analysis)) {}
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
    return direction_from_end(analysis_.segments[segment].centreline, ends_[segment][0] == branch ? 0 : 1, reach);
  }
  // Whether who comes along one segment turns back into the other, by more than a right angle.
  bool turns_back(int along, int into, int branch) const {
    const auto a = direction_from(along, branch), b = direction_from(into, branch);
    return a[0] * b[0] + a[1] * b[1] > 0;
  }

  // Where none was measured, between two branchings, that of the widest vessel it leads on to; else rough, from what was traced.
  double calibre(int segment, int from) const {
    constexpr int reach = 3;  // branchings: pieces between them may be too short to be measured, too
    if (const double known = measured_beyond(segment, from, reach); known > 0) return known;
    const std::vector<CentrelinePoint>& points = analysis_.segments[segment].centreline.points;
    return points.empty() ? 0 : 2 * points[points.size() / 2].radius_px;
  }

 private:
  double measured_beyond(int segment, int from, int reach) const {
    if (const auto measured = diameter(segment)) return *measured;
    const int far = other_end(segment, from);
    double widest = 0;
    if (far >= 0 && reach > 0)
      for (const int s : at(far))
        if (s != segment) widest = std::max(widest, measured_beyond(s, far, reach - 1));
    return widest;
  }
  const Analysis& analysis_;
  std::vector<std::array<int, 2>> ends_;
};

// A wide vessel is lost sight of earlier.
// Where contrast comes in: the widest vessel, filled first, from the image's edge; -1 where that is not one and the same.
int find_inlet(const Analysis& analysis, const Graph& graph) {
  double widest = 0;
  int first = -1;
  for (int s = 0; s < graph.size(); ++s) {
    if (!graph.arrival(s)) continue;
    if (graph.diameter(s)) widest = std::max(widest, *graph.diameter(s));
    if (first < 0 || *graph.arrival(s) < *graph.arrival(first)) first = s;
  }
  if (first < 0 || widest == 0 || graph.calibre(first, -1) < widest_share * widest) return -1;
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

// `pass`: so many forks are passed by, along the wider branch.
MainPath follow_main(const Graph& graph, int inlet, int pass) {
  MainPath path{{inlet}, -1, {-1, -1}};
  double calibre = graph.calibre(inlet, -1);
  for (int at = std::max(graph.ends(inlet)[0], graph.ends(inlet)[1]); at >= 0;) {
    std::vector<int> on;
    for (const int s : graph.at(at))
      if (std::find(path.segments.begin(), path.segments.end(), s) == path.segments.end() && !graph.turns_back(path.segments.back(), s, at))
        on.push_back(s);
    if (on.empty()) break;
    std::stable_sort(on.begin(), on.end(), [&](int a, int b) { return graph.calibre(a, at) > graph.calibre(b, at); });
    if (graph.calibre(on[0], at) < branch_share * calibre) break;
    const bool forks = on.size() > 1 && graph.calibre(on[1], at) >= branch_share * graph.calibre(on[0], at);
    if (forks && (pass-- <= 0 || graph.calibre(on[1], at) > passed_share * graph.calibre(on[0], at))) {
      // Three of like calibre, or a branching too short to be told: no fork that could be named.
      const bool two = on.size() == 2 || graph.calibre(on[2], at) < branch_share * graph.calibre(on[1], at);
      if (two) {
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
  const double least = loop_share * std::min(graph.calibre(path.beyond[0], path.fork), graph.calibre(path.beyond[1], path.fork));
  const int from = graph.other_end(path.beyond[0], path.fork), to = graph.other_end(path.beyond[1], path.fork);
  if (from < 0 || to < 0 || from == path.fork || to == path.fork) return {};
  std::vector<double> way(static_cast<std::size_t>(branch_points), std::numeric_limits<double>::infinity());
  std::vector<int> by(way.size(), -1), before(way.size(), -1);
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
      before[next] = at;
    }
  }
  std::vector<int> loop = {path.beyond[1]};
  for (int at = to; at != from; at = before[at]) loop.push_back(by[at]);
  loop.push_back(path.beyond[0]);
  return loop;
}

// Contrast comes later and later along both ways to where they meet.
struct Meeting {
  std::size_t latest = 0, middle = 0;  // indices into the loop
  bool sure = false;                   // contrast runs to it both ways
  bool in_the_middle = false;          // the place by time and that by length are the same or next to one another
};

Meeting find_meeting(const Analysis& analysis, const Graph& graph, const std::vector<int>& loop) {
  Meeting meeting;
  double whole = 0;
  for (const int s : loop) {
    if (!graph.arrival(s)) return meeting;
    whole += graph.length(s);
  }
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
  meeting.sure = sure;
  meeting.in_the_middle = std::max(meeting.latest, meeting.middle) - std::min(meeting.latest, meeting.middle) <= 1;
  return meeting;
}

// The main vein and the loop beyond its fork; where no loop is sure, the main vein up to the first fork.
FootPath find_path(const Analysis& analysis, const Graph& graph, int inlet, bool foot) {
  FootPath first;
  for (int pass = 0; pass <= most_passed; ++pass) {
    const MainPath main = follow_main(graph, inlet, pass);
    FootPath path{main.segments, {}};
    if (foot && main.fork >= 0) {
      path.loop = find_loop(graph, main, static_cast<int>(analysis.branch_points.size()));
      const Meeting meeting = path.loop.empty() ? Meeting() : find_meeting(analysis, graph, path.loop);
      if (meeting.sure) {
        path.arch_known = meeting.in_the_middle;
        std::tie(path.arch_first, path.arch_last) = std::minmax(meeting.latest, meeting.middle);
        return path;
      }
      path.loop.clear();
    }
    if (pass == 0) first = path;
  }
  return first;
}

void name_loop(Analysis& analysis, const Graph& graph, const FootPath& path) {
  const std::vector<int>& loop = path.loop;
  double whole = 0;
  for (const int s : loop) whole += graph.length(s);
  double along = 0;
  for (std::size_t i = 0; i < loop.size(); ++i) {
    const double from = along, to = along += graph.length(loop[i]);
    const double from_fork = i < path.arch_first ? to : whole - from;
    if (i >= path.arch_first && i <= path.arch_last)
      analysis.segments[loop[i]].role = "arch";
    else if (from_fork < plantar_share * whole / 2)
      analysis.segments[loop[i]].role = "plantar";
  }
}

// The image's edge that a point is nearest to: 0 top, 1 left, 2 bottom, 3 right.
int side_of(const Analysis& analysis, const CentrelinePoint& p) {
  const std::array<float, 4> away = {p.y, p.x, static_cast<float>(analysis.rows - 1) - p.y, static_cast<float>(analysis.columns - 1) - p.x};
  return static_cast<int>(std::min_element(away.begin(), away.end()) - away.begin());
}

// What leaves the image beside the main vein, contrast running outwards, later than where that came in.
void name_collaterals(Analysis& analysis, const Graph& graph, const FootPath& path,
                      const std::vector<std::optional<SegmentTransit>>& transits) {
  const std::vector<CentrelinePoint>& inlet = analysis.segments[path.main.front()].centreline.points;
  const int side = side_of(analysis, graph.ends(path.main.front())[0] < 0 ? inlet.front() : inlet.back());
  constexpr double least_length_px = 20;  // shorter pieces at the edge are no vessel that could be told
  for (int s = 0; s < graph.size(); ++s) {
    SegmentResult& segment = analysis.segments[s];
    if (!segment.role.empty() || !transits[s] || !graph.arrival(s) || graph.length(s) < least_length_px) continue;
    const bool at_end = transits[s]->slowness_s_px > 0;
    const CentrelinePoint& out = at_end ? segment.centreline.points.back() : segment.centreline.points.front();
    if (graph.ends(s)[at_end ? 1 : 0] >= 0 || graph.ends(s)[at_end ? 0 : 1] < 0) continue;
    if (leaves_image(analysis, out) && side_of(analysis, out) == side && *graph.arrival(s) > *graph.arrival(path.main.front()))
      segment.role = "collateral";
  }
}

}  // namespace

FootPath name_segments(Analysis& analysis, const std::string& body_part, const std::vector<std::optional<SegmentTransit>>& transits) {
  const bool foot = contains(body_part, "FOOT") || contains(body_part, "ANKLE");
  if (!foot && !contains(body_part, "LEG") && !contains(body_part, "CALF")) return {};
  const Graph graph(analysis);
  const int inlet = find_inlet(analysis, graph);
  if (inlet < 0) return {};
  FootPath path = find_path(analysis, graph, inlet, foot);
  for (const int s : path.main) analysis.segments[s].role = "main";
  if (path.arch_known) name_loop(analysis, graph, path);
  if (foot && !transits.empty()) name_collaterals(analysis, graph, path, transits);
  for (const auto& [role, words] : {std::pair{"main", "main vein"}, std::pair{"plantar", "plantar vein"}, std::pair{"arch", "pedal arch"},
                                    std::pair{"collateral", "collateral vein"}}) {
    int number = 0;
    for (SegmentResult& segment : analysis.segments)
      if (segment.role == role) segment.name = std::string(words) + " " + std::to_string(++number);
  }
  return path;
}

}  // namespace cinelumen
