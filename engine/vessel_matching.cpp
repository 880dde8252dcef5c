#include "engine/vessel_matching.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <set>
#include <stdexcept>
#include <string>

#include "engine/median.h"
#include "engine/vessel_parallax.h"

namespace cinelumen {
namespace {

constexpr double nowhere = std::numeric_limits<double>::infinity();

/// A place with a direction on a centreline.
struct Place {
  double y = 0, x = 0, along_y = 0, along_x = 1;
  double arc = 0;           // px along its segment
  double log_diameter = 0;  // NaN: not measured
  int segment = 0, point = 0;
};

double distance(const Place& a, const Place& b) { return std::hypot(a.y - b.y, a.x - b.x); }

/// Directions by differences over a few points, arc lengths by summing: also of a curve that was moved.
void measure_course(std::vector<Place>& places) {
  constexpr int reach = 4;
  const int n = static_cast<int>(places.size());
  for (int i = 0; i < n; ++i) {
    const Place &a = places[std::max(0, i - reach)], &b = places[std::min(n - 1, i + reach)];
    const double length = distance(a, b);
    if (length > 0) {
      places[i].along_y = (b.y - a.y) / length;
      places[i].along_x = (b.x - a.x) / length;
    }
    places[i].arc = i ? places[i - 1].arc + distance(places[i - 1], places[i]) : 0;
  }
}

using Courses = std::vector<std::vector<Place>>;  // [segment][point]

Courses courses_of(const std::vector<SegmentResult>& segments) {
  Courses courses;
  for (const SegmentResult& segment : segments) {
    std::vector<Place> places;
    for (const CentrelinePoint& p : segment.centreline.points) {
      Place place;
      place.y = p.y;
      place.x = p.x;
      place.segment = static_cast<int>(courses.size());
      place.point = static_cast<int>(places.size());
      const auto& profile = segment.profile.points;
      const double diameter = places.size() < profile.size() ? profile[places.size()].diameter_px : 0;
      place.log_diameter = diameter > 0 ? std::log(diameter) : std::numeric_limits<double>::quiet_NaN();
      places.push_back(place);
    }
    measure_course(places);
    courses.push_back(std::move(places));
  }
  return courses;
}

/// The reference's centrelines where a registration puts them in the run.
Courses moved(const Courses& reference, const RunRegistration& registration) {
  Courses result = reference;
  for (auto& places : result) {
    for (Place& p : places) {
      const auto to = registration.forward(p.y, p.x);
      p.y = to[0];
      p.x = to[1];
      p.log_diameter += std::log(registration.scale);
    }
    measure_course(places);
  }
  return result;
}

/// Finds a run's points near a place.
class PlaceMap {
 public:
  PlaceMap(const Courses& courses, double cell) : cell_(cell) {
    double bottom = 0, right = 0;
    for (const auto& places : courses)
      for (const Place& p : places) {
        bottom = std::max(bottom, p.y);
        right = std::max(right, p.x);
      }
    rows_ = static_cast<int>(bottom / cell) + 1;
    columns_ = static_cast<int>(right / cell) + 1;
    cells_.resize(static_cast<std::size_t>(rows_) * columns_);
    for (const auto& places : courses)
      for (const Place& p : places) {
        cells_[static_cast<std::size_t>(row(p.y)) * columns_ + column(p.x)].push_back(static_cast<int>(all_.size()));
        all_.push_back(p);
      }
  }
  const std::vector<Place>& all() const { return all_; }
  /// Calls with the number of every place within a cell's side.
  template <class Function>
  void each_near(double y, double x, const Function& function) const {
    if (y < -cell_ || x < -cell_ || y > (rows_ + 1) * cell_ || x > (columns_ + 1) * cell_) return;
    for (int j = std::max(0, row(y) - 1); j <= std::min(rows_ - 1, row(y) + 1); ++j)
      for (int i = std::max(0, column(x) - 1); i <= std::min(columns_ - 1, column(x) + 1); ++i)
        for (const int number : cells_[static_cast<std::size_t>(j) * columns_ + i]) function(number);
  }

 private:
  int row(double y) const { return std::clamp(static_cast<int>(y / cell_), 0, rows_ - 1); }
  int column(double x) const { return std::clamp(static_cast<int>(x / cell_), 0, columns_ - 1); }
  double cell_;
  int rows_, columns_;
  std::vector<std::vector<int>> cells_;
  std::vector<Place> all_;
};

/// What a course costs, per reference point; 1 is what it costs to have no match.
struct Costs {
  double reach_px;         // run px: the gate, and a distance across of that much costs 1
  double least_cosine;     // of the angle between directions
  double along = 0.3;      // of a distance along the vessel of `reach_px`: it is known worse than across
  double angle = 0.3;      // of the largest angle
  double diameter = 0.05;  // of a factor of e: a spastic vessel is narrow, so calibre tells little
  double uneven = 0.2;     // of a step of the run's arc twice as long as the reference's, or of none
  double jump = 1;         // from one segment of the run to the next
  double change = 3;       // from a match to none and back
};

/// The most likely course of one reference segment over the run's places, -1 where none.
class CourseFinder {
 public:
  CourseFinder(const Courses& run, const PlaceMap& map, const Costs& costs) : run_(run), map_(map), costs_(costs) {}

  /// price: of each of the run's places, for what others claim.
  std::vector<int> find(const std::vector<Place>& segment, const std::vector<double>& price) const {
    const std::size_t n = segment.size();
    std::vector<std::vector<State>> states(n);
    for (std::size_t k = 0; k < n; ++k) {
      states[k] = candidates(segment[k], price);
      connect(k ? &states[k - 1] : nullptr, states[k], k ? distance(segment[k - 1], segment[k]) : 0);
    }
    std::vector<int> course(n, -1);
    if (n == 0) return course;
    int at = 0;
    for (std::size_t i = 0; i < states[n - 1].size(); ++i)
      if (states[n - 1][i].total < states[n - 1][at].total) at = static_cast<int>(i);
    for (std::size_t k = n; k-- > 0;) {
      course[k] = states[k][at].place;
      at = states[k][at].from;
    }
    return course;
  }

  /// What a place costs for a point, without price; nowhere where it can't be.
  double cost(const Place& p, const Place& q) const {
    const double dy = q.y - p.y, dx = q.x - p.x, cosine = p.along_y * q.along_y + p.along_x * q.along_x;
    const double along = (dy * p.along_y + dx * p.along_x) / costs_.reach_px, across = (dx * p.along_y - dy * p.along_x) / costs_.reach_px;
    if (std::abs(cosine) < costs_.least_cosine || along * along + across * across > 1) return nowhere;
    const double turned = (1 - std::abs(cosine)) / (1 - costs_.least_cosine), wider = q.log_diameter - p.log_diameter;
    return across * across + costs_.along * along * along + costs_.angle * turned +
           (std::isnan(wider) ? 0 : costs_.diameter * std::min(1.0, wider * wider));
  }

 private:
  struct State {
    int place = -1;     // number among the map's places; -1: none
    int direction = 0;  // the run's points follow the reference's: 1 or -1
    double cost = 1, total = 0;
    int from = 0;
  };

  std::vector<State> candidates(const Place& p, const std::vector<double>& price) const {
    std::vector<State> states = {State{}};
    map_.each_near(p.y, p.x, [&](int number) {
      const Place& q = map_.all()[number];
      const double c = cost(p, q);
      if (c < nowhere) states.push_back({number, p.along_y * q.along_y + p.along_x * q.along_x > 0 ? 1 : -1, c + price[number], 0, 0});
    });
    return states;
  }

  /// What it costs to go from one place to the next while the reference goes `step` px.
  double transition(const State& a, const State& b, double step) const {
    constexpr int farthest = 4;   // points in one step
    constexpr double end_px = 4;  // of a segment: where another may follow
    constexpr double gap_px = 3;  // between them; wider ones go by way of no match
    if (a.place < 0 || b.place < 0) return a.place == b.place ? 0 : costs_.change;
    const Place &p = map_.all()[a.place], &q = map_.all()[b.place];
    if (p.segment == q.segment && a.direction == b.direction) {
      const int points = (q.point - p.point) * a.direction;
      if (points < 0 || points > farthest) return nowhere;
      const double uneven = std::abs(q.arc - p.arc) / std::max(step, 0.1) - 1;
      return costs_.uneven * uneven * uneven;
    }
    if (p.segment == q.segment || from_end(p, a.direction) > end_px || from_end(q, -b.direction) > end_px) return nowhere;
    const double gap = distance(p, q);
    return gap > step + gap_px ? nowhere : costs_.jump + costs_.uneven * gap;
  }

  /// px to the end of its segment in a direction.
  double from_end(const Place& p, int direction) const { return direction > 0 ? run_[p.segment].back().arc - p.arc : p.arc; }

  void connect(const std::vector<State>* before, std::vector<State>& now, double step) const {
    for (State& state : now) {
      if (!before) {
        state.total = state.cost;
        continue;
      }
      state.total = nowhere;
      for (std::size_t i = 0; i < before->size(); ++i) {
        const State& old = (*before)[i];
        if (old.total >= state.total) continue;
        const double total = old.total + transition(old, state, step);
        if (total < state.total) {
          state.total = total;
          state.from = static_cast<int>(i);
        }
      }
      state.total += state.cost;
    }
  }

  const Courses& run_;
  const PlaceMap& map_;
  Costs costs_;
};

using CourseNumbers = std::vector<std::vector<int>>;  // [reference segment][point]: number among the run's places, -1

/// Who claims a place of the run, and how often.
struct Claims {
  std::vector<std::vector<int>> by;  // reference segments

  Claims(const CourseNumbers& courses, std::size_t places) : by(places) {
    for (std::size_t s = 0; s < courses.size(); ++s)
      for (const int number : courses[s])
        if (number >= 0 && (by[number].empty() || by[number].back() != static_cast<int>(s))) by[number].push_back(static_cast<int>(s));
  }
};

/// Pieces of a course that lie on one segment of the run: [from, to).
struct Piece {
  int segment;
  std::size_t from, to;
};
std::vector<Piece> pieces_of(const std::vector<int>& course, const std::vector<Place>& places) {
  std::vector<Piece> pieces;
  for (std::size_t k = 0; k < course.size(); ++k) {
    if (course[k] < 0) continue;
    const int segment = places[course[k]].segment;
    if (k && course[k - 1] >= 0 && places[course[k - 1]].segment == segment)
      pieces.back().to = k + 1;
    else
      pieces.push_back({segment, k, k + 1});
  }
  return pieces;
}

/// Courses of all reference segments that share no places but a few at their ends. Places that several claim get a price until those that
/// can go elsewhere, or that fit worst, have left.
CourseNumbers find_courses(const CourseFinder& finder, const Courses& reference, const PlaceMap& map) {
  constexpr int rounds = 16;
  constexpr double first_step = 0.4;
  constexpr int shared_ends = 4;  // places at which segments that follow one another may overlap
  const std::vector<Place>& places = map.all();
  std::vector<double> price(places.size(), 0);
  CourseNumbers courses(reference.size());
  std::vector<bool> stale(reference.size(), true);
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t s = 0; s < reference.size(); ++s)
      if (stale[s]) courses[s] = finder.find(reference[s], price);
    const Claims claims(courses, places.size());
    std::fill(stale.begin(), stale.end(), false);
    const double step = first_step / std::sqrt(1.0 + round);
    bool disputed = false;
    // Places lie in the order of their segments: a dispute is a row of places that several claim.
    for (std::size_t i = 0; i < places.size();) {
      std::size_t end = i;
      while (end < places.size() && places[end].segment == places[i].segment && claims.by[end].size() > 1) ++end;
      if (end - i > shared_ends) {
        disputed = true;
        for (std::size_t k = i; k < end; ++k) {
          price[k] += step;
          for (const int s : claims.by[k]) stale[s] = true;
        }
      }
      i = std::max(end, i + 1);
    }
    if (!disputed) break;
  }
  // What is still disputed goes to the one that fits better over the disputed piece.
  const Claims claims(courses, places.size());
  for (std::size_t i = 0; i < places.size();) {
    std::size_t end = i;
    while (end < places.size() && places[end].segment == places[i].segment && claims.by[end].size() > 1) ++end;
    std::set<int> rivals;
    for (std::size_t k = i; k < end; ++k) rivals.insert(claims.by[k].begin(), claims.by[k].end());
    int winner = -1;
    double least = nowhere;
    for (const int s : rivals) {
      double sum = 0;
      int count = 0;
      for (std::size_t k = 0; k < courses[s].size(); ++k)
        if (courses[s][k] >= static_cast<int>(i) && courses[s][k] < static_cast<int>(end)) {
          sum += finder.cost(reference[s][k], places[courses[s][k]]) - 1;  // what it gains
          ++count;
        }
      if (count && sum < least) {
        least = sum;
        winner = s;
      }
    }
    if (end - i > shared_ends)
      for (const int s : rivals)
        if (s != winner)
          for (int& number : courses[s])
            if (number >= static_cast<int>(i) && number < static_cast<int>(end)) number = -1;
    i = std::max(end, i + 1);
  }
  return courses;
}

/// Takes pieces out that are too short to be more than chance.
void drop_short(CourseNumbers& courses, const Courses& reference, double least_px) {
  for (std::size_t s = 0; s < courses.size(); ++s) {
    std::vector<int>& course = courses[s];
    for (std::size_t k = 0; k < course.size();) {
      std::size_t end = k;
      while (end < course.size() && course[end] >= 0) ++end;
      if (end > k && reference[s][end - 1].arc - reference[s][k].arc < std::min(least_px, 0.5 * reference[s].back().arc))
        std::fill(course.begin() + static_cast<std::ptrdiff_t>(k), course.begin() + static_cast<std::ptrdiff_t>(end), -1);
      k = std::max(end, k + 1);
    }
  }
}

/// The foot of the perpendicular on a course near one of its points, as a fractional index.
double foot_near(const std::vector<Place>& course, int point, double y, double x) {
  constexpr int reach = 6;
  const int n = static_cast<int>(course.size());
  double best = point, nearest = nowhere;
  for (int i = std::max(0, point - reach); i < std::min(n - 1, point + reach); ++i) {
    const double ay = course[i].y, ax = course[i].x, by = course[i + 1].y - ay, bx = course[i + 1].x - ax, length2 = by * by + bx * bx;
    const double f = length2 > 0 ? std::clamp(((y - ay) * by + (x - ax) * bx) / length2, 0.0, 1.0) : 0;
    const double d = std::hypot(y - ay - f * by, x - ax - f * bx);
    if (d < nearest) {
      nearest = d;
      best = i + f;
    }
  }
  return best;
}

/// The place at a fractional index.
Place place_at(const std::vector<Place>& course, double point) {
  const int n = static_cast<int>(course.size()), i = std::clamp(static_cast<int>(point), 0, std::max(0, n - 2));
  if (n == 1) return course[0];
  const double f = std::clamp(point - i, 0.0, 1.0);
  Place p = course[i];
  p.y += f * (course[i + 1].y - p.y);
  p.x += f * (course[i + 1].x - p.x);
  p.arc += f * (course[i + 1].arc - p.arc);
  return p;
}

/// The fractional index at an arc length.
double point_at_arc(const std::vector<Place>& course, double arc) {
  const auto above = std::upper_bound(course.begin(), course.end(), arc, [](double a, const Place& p) { return a < p.arc; });
  if (above == course.begin()) return 0;
  if (above == course.end()) return static_cast<double>(course.size()) - 1;
  const Place &a = *(above - 1), &b = *above;
  return static_cast<double>(above - course.begin()) - 1 + (b.arc > a.arc ? (arc - a.arc) / (b.arc - a.arc) : 0);
}

/// Takes out points that lie beyond the end of the run's segment they were given: there is nothing of it there.
void drop_beyond_ends(CourseNumbers& courses, const Courses& in_run, const Courses& run, const PlaceMap& map) {
  constexpr double allowed_px = 2;  // as far as places along a vessel are known
  for (std::size_t s = 0; s < courses.size(); ++s)
    for (std::size_t k = 0; k < courses[s].size(); ++k) {
      int& number = courses[s][k];
      if (number < 0) continue;
      const std::vector<Place>& target = run[map.all()[number].segment];
      const Place& p = in_run[s][k];
      const double point = foot_near(target, map.all()[number].point, p.y, p.x);
      if (point > 0 && point < static_cast<double>(target.size()) - 1) continue;
      const Place& end = point > 0 ? target.back() : target.front();
      const double beyond = (p.y - end.y) * end.along_y + (p.x - end.x) * end.along_x;
      if ((point > 0 ? beyond : -beyond) > allowed_px) number = -1;
    }
}

/// A branch point: ends of segments that meet.
struct Node {
  double y = 0, x = 0;
  std::vector<std::array<int, 2>> arms;  // segment, and its end: 0 first point, 1 last
};

/// Where three ends of segments meet: two on one middle line, the third at it or short of it by no more than the lumen.
std::vector<Node> find_nodes(const Courses& courses) {
  constexpr double on_the_line_px = 3, short_of_it_px = 9;
  const auto end_of = [&](const std::array<int, 2>& end) -> const Place& {
    return end[1] ? courses[end[0]].back() : courses[end[0]].front();
  };
  std::vector<std::array<int, 2>> ends;
  for (int s = 0; s < static_cast<int>(courses.size()); ++s)
    if (courses[s].size() > 1) {
      ends.push_back({s, 0});
      ends.push_back({s, 1});
    }
  std::vector<Node> nodes;
  std::vector<bool> used(ends.size(), false);
  for (std::size_t i = 0; i < ends.size(); ++i) {
    if (used[i]) continue;
    for (std::size_t j = i + 1; j < ends.size(); ++j) {
      if (used[j] || ends[i][0] == ends[j][0] || distance(end_of(ends[i]), end_of(ends[j])) > on_the_line_px) continue;
      Node node;
      node.y = (end_of(ends[i]).y + end_of(ends[j]).y) / 2;
      node.x = (end_of(ends[i]).x + end_of(ends[j]).x) / 2;
      std::vector<std::size_t> members;
      for (std::size_t k = 0; k < ends.size(); ++k)
        if (std::hypot(end_of(ends[k]).y - node.y, end_of(ends[k]).x - node.x) <= short_of_it_px) members.push_back(k);
      if (members.size() < 3) continue;
      for (const std::size_t k : members) {
        used[k] = true;
        node.arms.push_back(ends[k]);
      }
      if (node.arms.size() == 3) nodes.push_back(std::move(node));  // four: a crossing, which is no place on either vessel
      break;
    }
  }
  return nodes;
}

/// A branch point of the reference and the same of the run.
struct NodeMatch {
  const Node* reference;
  const Node* run;
};

/// Those whose three arms all match.
std::vector<NodeMatch> match_nodes(const std::vector<Node>& of_reference, const std::vector<Node>& of_run, const Courses& reference,
                                   const Courses& run, const CourseNumbers& courses, const PlaceMap& map) {
  constexpr double out_px = 12;    // along an arm: where it is looked at
  constexpr double about_px = 30;  // along the run's arm: how far its match may be
  std::vector<NodeMatch> matches;
  for (const Node& a : of_reference) {
    const NodeMatch* found = nullptr;
    NodeMatch match{};
    for (const Node& b : of_run) {
      int agreeing = 0;
      std::set<int> taken;
      for (const auto& arm : a.arms) {
        const std::vector<Place>& course = reference[arm[0]];
        const double arc = arm[1] ? course.back().arc - out_px : out_px;
        const int k = static_cast<int>(std::lround(point_at_arc(course, std::clamp(arc, 0.0, course.back().arc))));
        const int number = courses[arm[0]][k];
        if (number < 0) continue;
        const Place& q = map.all()[number];
        for (const auto& other : b.arms) {
          const double from_node = other[1] ? run[other[0]].back().arc - q.arc : q.arc;
          if (other[0] == q.segment && from_node < about_px && taken.insert(2 * other[0] + other[1]).second) {
            ++agreeing;
            break;
          }
        }
      }
      if (agreeing == 3) {
        match = {&a, &b};
        found = &match;
        break;
      }
    }
    if (found) matches.push_back(*found);
  }
  return matches;
}

/// What the matches say of how vessels lie displaced from where the registration alone puts them.
std::vector<ParallaxSample> samples_of(const CourseNumbers& courses, const Courses& registered, const Courses& in_run, const Courses& run,
                                       const PlaceMap& map, const std::vector<NodeMatch>& nodes, const Courses& reference,
                                       const RunRegistration& registration) {
  constexpr int every = 4;           // points: neighbours tell the same
  constexpr double across_px = 1.0;  // SD of such a point's distance across
  constexpr double node_px = 2.5;    // SD of a branch point, as each of its three arms sees it
  std::vector<ParallaxSample> samples;
  for (std::size_t s = 0; s < courses.size(); ++s)
    for (std::size_t k = 0; k < courses[s].size(); k += every) {
      if (courses[s][k] < 0) continue;
      const Place &now = in_run[s][k], &from = registered[s][k], &near = map.all()[courses[s][k]];
      const Place to = place_at(run[near.segment], foot_near(run[near.segment], near.point, now.y, now.x));
      const double ny = to.along_x, nx = -to.along_y;
      samples.push_back(
          {static_cast<int>(s), reference[s][k].arc, from.y, from.x, ny, nx, ny * (to.y - from.y) + nx * (to.x - from.x), across_px});
    }
  for (const NodeMatch& node : nodes) {
    const auto at = registration.forward(node.reference->y, node.reference->x);
    for (const auto& arm : node.reference->arms) {
      const double arc = arm[1] ? reference[arm[0]].back().arc : 0;
      samples.push_back({arm[0], arc, at[0], at[1], 1, 0, node.run->y - at[0], node_px});
      samples.push_back({arm[0], arc, at[0], at[1], 0, 1, node.run->x - at[1], node_px});
    }
  }
  return samples;
}

/// The registration with the smooth displacement that brings the vessels as far as one displacement for all depths can.
void refine(RunRegistration& registration, const Courses& reference, const CourseNumbers& courses, const Courses& registered,
            const VesselParallax& parallax, double mm_per_px) {
  constexpr int every = 4;           // points: neighbours tell the same
  constexpr double point_px = 3;     // SD of one such point: vessels of several depths lie beside each other
  constexpr double spacing_mm = 16;  // where bone has no lattice of its own
  constexpr double bend_mm = 0.25, value_mm = 1;
  SmoothDisplacement& lattice = registration.displacement;
  if (lattice.empty()) {
    double bottom = 1, right = 1;
    for (const auto& course : reference)
      for (const Place& p : course) {
        bottom = std::max(bottom, p.y);
        right = std::max(right, p.x);
      }
    lattice = make_lattice(static_cast<int>(bottom) + 1, static_cast<int>(right) + 1, spacing_mm / mm_per_px);
  }
  const auto& a = registration.affine;
  const double determinant = a[0][0] * a[1][1] - a[0][1] * a[1][0];
  std::vector<DisplacementEvidence> evidence;
  for (std::size_t s = 0; s < courses.size(); ++s)
    for (std::size_t k = 0; k < courses[s].size(); k += every) {
      if (courses[s][k] < 0) continue;
      const Place &p = reference[s][k], &q = registered[s][k];
      const auto d = parallax.at(static_cast<int>(s), p.arc, q.y, q.x);
      evidence.push_back(directed_evidence(p.y, p.x, (a[1][1] * d[0] - a[0][1] * d[1]) / determinant,
                                           (a[0][0] * d[1] - a[1][0] * d[0]) / determinant, 0, 1, point_px, point_px));
    }
  SmoothDisplacement more = lattice;
  if (!fit_displacement(evidence, {bend_mm / mm_per_px, value_mm / mm_per_px}, more)) return;
  for (std::size_t i = 0; i < more.nodes.size(); ++i)
    for (int part = 0; part < 2; ++part) lattice.nodes[i][part] += more.nodes[i][part];
}

/// Places of the reference's segments that meet in space: the arms of branch points, and ends that go on straight into one another.
std::vector<ParallaxTie> find_ties(const Courses& courses, const std::vector<Node>& nodes) {
  constexpr double near_px = 3;      // of ends on one middle line
  constexpr double straight = -0.9;  // cosine between directions away from the meeting point
  const auto end_of = [&](const std::array<int, 2>& end) -> const Place& {
    return end[1] ? courses[end[0]].back() : courses[end[0]].front();
  };
  std::vector<ParallaxTie> ties;
  const auto tie = [&](const std::array<int, 2>& a, const std::array<int, 2>& b) {
    ties.push_back({a[0], b[0], end_of(a).arc, end_of(b).arc});
  };
  std::set<std::array<int, 2>> in_nodes;
  for (const Node& node : nodes)
    for (std::size_t i = 0; i < node.arms.size(); ++i) {
      in_nodes.insert(node.arms[i]);
      if (i) tie(node.arms[0], node.arms[i]);
    }
  std::vector<std::array<int, 2>> ends;
  for (int s = 0; s < static_cast<int>(courses.size()); ++s)
    for (const int last : {0, 1})
      if (courses[s].size() > 1 && !in_nodes.contains({s, last})) ends.push_back({s, last});
  for (std::size_t i = 0; i < ends.size(); ++i)
    for (std::size_t j = i + 1; j < ends.size(); ++j) {
      const Place &p = end_of(ends[i]), &q = end_of(ends[j]);
      const double cosine = (ends[i][1] == ends[j][1] ? 1 : -1) * (p.along_y * q.along_y + p.along_x * q.along_x);
      if (ends[i][0] != ends[j][0] && distance(p, q) <= near_px && cosine < straight) tie(ends[i], ends[j]);
    }
  return ties;
}

/// Where places lie: the middle of their box, and half its longer side, px.
std::array<double, 4> box_of(const Courses& courses) {
  std::array<double, 4> box = {nowhere, nowhere, -nowhere, -nowhere};
  for (const auto& course : courses)
    for (const Place& p : course) box = {std::min(box[0], p.y), std::min(box[1], p.x), std::max(box[2], p.y), std::max(box[3], p.x)};
  return box;
}
std::array<double, 2> centre_of(const Courses& courses) {
  const auto box = box_of(courses);
  return {(box[0] + box[2]) / 2, (box[1] + box[3]) / 2};
}
double extent_of(const Courses& courses) {
  const auto box = box_of(courses);
  return std::max({1.0, (box[2] - box[0]) / 2, (box[3] - box[1]) / 2});
}

/// Segments with a matched branch point, and those that meet such a one where both lie displaced alike.
std::vector<bool> find_supported(const Courses& reference, const Courses& registered, const VesselParallax& parallax,
                                 const std::vector<NodeMatch>& nodes, const std::vector<ParallaxTie>& ties) {
  constexpr double alike_px = 2;
  std::vector<bool> supported(reference.size(), false);
  for (const NodeMatch& node : nodes)
    for (const auto& arm : node.reference->arms) supported[arm[0]] = true;
  const auto at = [&](int s, double arc) {
    const Place& p = registered[s][arc > 0 ? registered[s].size() - 1 : 0];
    return parallax.at(s, reference[s].empty() ? 0 : arc, p.y, p.x);
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (const ParallaxTie& tie : ties) {
      if (supported[tie.first_segment] == supported[tie.second_segment]) continue;
      const auto a = at(tie.first_segment, tie.first_arc_px), b = at(tie.second_segment, tie.second_arc_px);
      if (std::hypot(a[0] - b[0], a[1] - b[1]) > alike_px) continue;
      supported[tie.first_segment] = supported[tie.second_segment] = true;
      changed = true;
    }
  }
  return supported;
}

/// Takes out segments that no branch point supports and that would lie displaced otherwise than all else: what would have to move by much
/// where nothing else does was given to a neighbour.
void drop_far(CourseNumbers& courses, const Courses& reference, const Courses& registered, const VesselParallax& parallax,
              const std::vector<bool>& supported, double px_per_mm) {
  constexpr double always_mm = 1;  // paired veins lie further apart
  constexpr double middles = 5;    // the middle distance from the middle displacement; a tilt spreads by depth
  std::array<std::vector<double>, 2> parts;
  const auto displacement = [&](std::size_t s, std::size_t k) {
    return parallax.at(static_cast<int>(s), reference[s][k].arc, registered[s][k].y, registered[s][k].x);
  };
  for (std::size_t s = 0; s < courses.size(); ++s)
    for (std::size_t k = 0; k < courses[s].size(); ++k)
      if (courses[s][k] >= 0)
        for (int part = 0; part < 2; ++part) parts[part].push_back(displacement(s, k)[part]);
  if (parts[0].empty()) return;
  const std::array<double, 2> middle = {middle_of(parts[0]), middle_of(parts[1])};
  std::vector<double> distances;
  for (std::size_t i = 0; i < parts[0].size(); ++i) distances.push_back(std::hypot(parts[0][i] - middle[0], parts[1][i] - middle[1]));
  const double limit = std::max(always_mm * px_per_mm, middles * in_place_median(distances));
  for (std::size_t s = 0; s < courses.size(); ++s)
    for (std::size_t k = 0; k < courses[s].size() && !supported[s]; ++k) {
      const auto d = displacement(s, k);
      if (std::hypot(d[0] - middle[0], d[1] - middle[1]) > limit) courses[s][k] = -1;
    }
}

/// The moved reference, each vessel displaced as it was found.
Courses displaced(Courses registered, const Courses& reference, const VesselParallax& parallax) {
  for (std::size_t s = 0; s < registered.size(); ++s) {
    for (std::size_t k = 0; k < registered[s].size(); ++k) {
      Place& p = registered[s][k];
      const auto d = parallax.at(static_cast<int>(s), reference[s][k].arc, p.y, p.x);
      p.y += d[0];
      p.x += d[1];
    }
    measure_course(registered[s]);
  }
  return registered;
}

/// The shift, run px, that brings most of the reference's points onto a vessel of like direction.
std::array<double, 2> common_shift(const Courses& in_run, const Courses& run, double reach_px) {
  constexpr int directions = 6;       // of half a turn; a vessel counts in its own and both next ones
  constexpr double near_px = 2.5;     // of a vessel
  constexpr int every = 3;            // points
  constexpr double reluctance = 0.1;  // share of the points that a shift of `reach_px` must win
  double bottom = 0, right = 0;
  for (const auto& course : run)
    for (const Place& p : course) {
      bottom = std::max(bottom, p.y);
      right = std::max(right, p.x);
    }
  const int height = static_cast<int>(bottom) + 2, width = static_cast<int>(right) + 2, r = static_cast<int>(near_px);
  std::vector<std::uint8_t> near(static_cast<std::size_t>(height) * width, 0);  // a bit per direction
  const auto direction = [](const Place& p) {
    const double turn = std::atan2(p.along_y, p.along_x) / std::numbers::pi + 1;
    return static_cast<int>(turn * directions) % directions;
  };
  for (const auto& course : run)
    for (const Place& p : course) {
      const int at = direction(p);
      const auto bits = static_cast<std::uint8_t>(1 << at | 1 << (at + 1) % directions | 1 << (at + directions - 1) % directions);
      for (int dy = -r; dy <= r; ++dy)
        for (int dx = -r; dx <= r; ++dx) {
          const int y = static_cast<int>(std::lround(p.y)) + dy, x = static_cast<int>(std::lround(p.x)) + dx;
          if (dy * dy + dx * dx <= near_px * near_px && y >= 0 && x >= 0 && y < height && x < width)
            near[static_cast<std::size_t>(y) * width + x] |= bits;
        }
    }
  struct Sample {
    int y, x, bit;
  };
  std::vector<Sample> samples;
  for (const auto& course : in_run)
    for (std::size_t k = 0; k < course.size(); k += every)
      samples.push_back(
          {static_cast<int>(std::lround(course[k].y)), static_cast<int>(std::lround(course[k].x)), 1 << direction(course[k])});
  const int reach = static_cast<int>(reach_px);
  std::array<double, 2> best = {0, 0};
  double most = -1;
  for (int dy = -reach; dy <= reach; ++dy)
    for (int dx = -reach; dx <= reach; ++dx) {
      int hits = 0;
      for (const Sample& s : samples) {
        const int y = s.y + dy, x = s.x + dx;
        hits += y >= 0 && x >= 0 && y < height && x < width && (near[static_cast<std::size_t>(y) * width + x] & s.bit);
      }
      const double score = hits - reluctance * static_cast<double>(samples.size()) * (dy * dy + dx * dx) / (reach_px * reach_px);
      if (score > most) {
        most = score;
        best = {static_cast<double>(dy), static_cast<double>(dx)};
      }
    }
  return best;
}

/// A place along a reference segment whose match is known beyond what the registration says.
struct Anchor {
  double reference_arc;  // px
  double correction;     // run px, to add to the run's arc in the piece's direction
};

/// Sub-pixel matches of one piece: the foot of the perpendicular, with the arc's unevenness smoothed away, corrected at branch points.
void place_piece(const Piece& piece, const std::vector<Place>& in_run, const std::vector<Place>& target, const std::vector<int>& course,
                 const std::vector<Place>& places, const std::vector<Anchor>& anchors, std::vector<PointMatch>& matches) {
  constexpr int smoothing = 25;  // points either side
  const std::size_t n = piece.to - piece.from;
  const int direction = places[course[piece.to - 1]].point >= places[course[piece.from]].point ? 1 : -1;
  // The run's arc less that of the moved reference: constant but for noise and for what the registration lacks.
  std::vector<double> offset(n);
  for (std::size_t i = 0; i < n; ++i) {
    const Place& from = in_run[piece.from + i];
    offset[i] = direction * place_at(target, foot_near(target, places[course[piece.from + i]].point, from.y, from.x)).arc - from.arc;
  }
  std::vector<double> sums(n + 1, 0);
  for (std::size_t i = 0; i < n; ++i) sums[i + 1] = sums[i] + offset[i];
  double last = -nowhere;
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t reach = std::min({static_cast<std::size_t>(smoothing), i, n - 1 - i});  // symmetric: no drift at the ends
    const double smooth = (sums[i + reach + 1] - sums[i - reach]) / static_cast<double>(2 * reach + 1);
    const Place& from = in_run[piece.from + i];
    double correction = 0;
    if (!anchors.empty()) {
      const auto above = std::find_if(anchors.begin(), anchors.end(), [&](const Anchor& a) { return a.reference_arc >= from.arc; });
      if (above == anchors.begin() || above == anchors.end())
        correction = above == anchors.end() ? anchors.back().correction : anchors.front().correction;
      else {
        const Anchor &a = *(above - 1), &b = *above;
        const double f = b.reference_arc > a.reference_arc ? (from.arc - a.reference_arc) / (b.reference_arc - a.reference_arc) : 0;
        correction = a.correction + f * (b.correction - a.correction);
      }
    }
    last = std::max(last, from.arc + smooth + correction);  // monotone
    PointMatch& match = matches[piece.from + i];
    match.segment = piece.segment;
    match.point = point_at_arc(target, direction * last);
    const Place to = place_at(target, match.point);
    match.distance_px = distance(from, to);
  }
}

}  // namespace

VesselMatching match_vessels(const std::vector<SegmentResult>& reference_segments, const std::vector<SegmentResult>& run_segments,
                             const RunRegistration& registration, const VesselMatchingOptions& options) {
  for (const double value : {options.mm_per_px, options.search_mm, options.final_mm, options.largest_angle_deg})
    if (!(value > 0)) throw std::invalid_argument("match_vessels: an option is " + std::to_string(value) + ", expected > 0");
  const Courses reference = courses_of(reference_segments), run = courses_of(run_segments);
  VesselMatching matching;
  matching.registration = registration;
  for (const auto& course : reference) matching.points.emplace_back(course.size());
  matching.segment.assign(reference.size(), -1);
  matching.matched_share.assign(reference.size(), 0);

  std::vector<int> explained(run.size(), 0);
  if (registration.reliable && !reference.empty() && !run.empty()) {
    RunRegistration& refined = matching.registration;
    const double px_per_mm = registration.scale / options.mm_per_px,
                 least_cosine = std::cos(options.largest_angle_deg * std::numbers::pi / 180);
    const auto shift = common_shift(moved(reference, refined), run, options.search_mm * px_per_mm);
    for (int i = 0; i < 2; ++i) refined.shift[i] += shift[i];
    const std::vector<Node> of_reference = find_nodes(reference), of_run = find_nodes(run);
    const Courses registered = moved(reference, refined);
    std::vector<double> lengths;
    for (const auto& course : reference) lengths.push_back(course.empty() ? 0 : course.back().arc);
    ParallaxPrior prior;
    prior.px_per_mm = px_per_mm;
    const std::vector<ParallaxTie> ties = find_ties(reference, of_reference);
    VesselParallax parallax(lengths, ties, centre_of(registered), extent_of(registered), prior);
    const std::array<double, 3> reaches_mm = {options.search_mm, std::sqrt(options.search_mm * options.final_mm), options.final_mm};
    CourseNumbers courses;
    for (std::size_t pass = 0; pass < reaches_mm.size(); ++pass) {
      const Courses in_run = displaced(registered, reference, parallax);
      const Costs costs{reaches_mm[pass] * px_per_mm, least_cosine};
      const PlaceMap map(run, costs.reach_px);
      const CourseFinder finder(run, map, costs);
      courses = find_courses(finder, in_run, map);
      const bool last = pass + 1 == reaches_mm.size();
      if (last) drop_beyond_ends(courses, in_run, run, map);
      drop_short(courses, in_run, options.least_length_mm * px_per_mm);
      const std::vector<NodeMatch> nodes = match_nodes(of_reference, of_run, reference, run, courses, map);
      if (!last) {
        parallax.fit(samples_of(courses, registered, in_run, run, map, nodes, reference, refined));
        continue;
      }
      drop_far(courses, reference, registered, parallax, find_supported(reference, registered, parallax, nodes, ties), px_per_mm);
      refine(refined, reference, courses, registered, parallax, options.mm_per_px);
      for (std::size_t s = 0; s < reference.size(); ++s) {
        std::vector<Anchor> anchors;
        for (const Piece& piece : pieces_of(courses[s], map.all()))
          place_piece(piece, in_run[s], run[piece.segment], courses[s], map.all(), anchors, matching.points[s]);
      }
      const Claims claims(courses, map.all().size());
      for (std::size_t i = 0; i < claims.by.size(); ++i) explained[map.all()[i].segment] += !claims.by[i].empty();
    }
  }
  for (std::size_t s = 0; s < reference.size(); ++s) {
    std::vector<int> count(run.size(), 0);
    int matched = 0;
    for (const PointMatch& match : matching.points[s])
      if (match.matched()) {
        ++count[match.segment];
        ++matched;
      }
    if (!matched) continue;
    matching.matched_share[s] = static_cast<double>(matched) / static_cast<double>(reference[s].size());
    matching.segment[s] = static_cast<int>(std::max_element(count.begin(), count.end()) - count.begin());
  }
  for (std::size_t j = 0; j < run.size(); ++j)
    if (explained[j] < options.explained_share * static_cast<double>(run[j].size()))
      matching.unmatched_in_run.push_back(static_cast<int>(j));
  return matching;
}

}  // namespace cinelumen
