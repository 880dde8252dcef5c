#include "engine/run_registration.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <optional>
#include <stdexcept>
#include <vector>

#include "engine/median.h"

namespace cinelumen {
namespace {

constexpr int finest_side = 640;   // px of the longer side: finer pictures are binned first, bone is no sharper
constexpr int coarsest_side = 40;  // px: shift, rotation and scale are searched here
constexpr int cell_px = 16;        // evidence is summed over squares of this many px of a level
constexpr double degree = std::numbers::pi / 180;

/// One level of a picture's pyramid: binned, then normalised by its neighbourhood.
struct Level {
  int height = 0, width = 0;
  double step = 1;            // px of the picture per px here
  std::vector<float> value;   // binned attenuation
  std::vector<float> weight;  // 1 where known, else 0
  std::vector<float> normal;  // (value - mean) / SD of the neighbourhood, bounded; 0 where not known

  std::size_t at(int y, int x) const { return static_cast<std::size_t>(y) * width + x; }
  /// From px here to px of the picture, and back.
  double to_picture(double p) const { return step * p + (step - 1) / 2; }
  double from_picture(double p) const { return (p - (step - 1) / 2) / step; }
};

Level finest_level(ImageView<const float> image, ImageView<const std::uint8_t> valid) {
  Level level{image.height, image.width, 1, {}, {}, {}};
  level.value.resize(static_cast<std::size_t>(image.height) * image.width);
  level.weight.resize(level.value.size());
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x) {
      const bool known = std::isfinite(image(y, x)) && (!valid.data || valid(y, x));
      level.value[level.at(y, x)] = known ? image(y, x) : 0;
      level.weight[level.at(y, x)] = known;
    }
  return level;
}

Level halved(const Level& fine) {
  Level level{fine.height / 2, fine.width / 2, 2 * fine.step, {}, {}, {}};
  level.value.resize(static_cast<std::size_t>(level.height) * level.width);
  level.weight.resize(level.value.size());
  for (int y = 0; y < level.height; ++y)
    for (int x = 0; x < level.width; ++x) {
      float sum = 0, known = 0;
      for (const std::size_t i :
           {fine.at(2 * y, 2 * x), fine.at(2 * y, 2 * x + 1), fine.at(2 * y + 1, 2 * x), fine.at(2 * y + 1, 2 * x + 1)}) {
        sum += fine.weight[i] * fine.value[i];
        known += fine.weight[i];
      }
      level.value[level.at(y, x)] = known > 0 ? sum / known : 0;
      level.weight[level.at(y, x)] = known >= 2;
    }
  return level;
}

/// Sums over squares of (2 radius + 1)^2 px, cut at the border.
std::vector<double> box_sums(const std::vector<double>& of, int height, int width, int radius) {
  std::vector<double> rows(of.size()), sums(of.size());
  for (int y = 0; y < height; ++y) {
    const double* from = of.data() + static_cast<std::size_t>(y) * width;
    double* to = rows.data() + static_cast<std::size_t>(y) * width;
    double sum = 0;
    for (int x = 0; x < std::min(radius, width); ++x) sum += from[x];
    for (int x = 0; x < width; ++x) {
      if (x + radius < width) sum += from[x + radius];
      if (x - radius > 0) sum -= from[x - radius - 1];
      to[x] = sum;
    }
  }
  std::vector<double> column(width);
  const auto add = [&](int y, double sign) {
    for (int x = 0; x < width; ++x) column[x] += sign * rows[static_cast<std::size_t>(y) * width + x];
  };
  for (int y = 0; y < std::min(radius, height); ++y) add(y, 1);
  for (int y = 0; y < height; ++y) {
    if (y + radius < height) add(y + radius, 1);
    if (y - radius > 0) add(y - radius - 1, -1);
    std::copy(column.begin(), column.end(), sums.begin() + static_cast<std::ptrdiff_t>(y) * width);
  }
  return sums;
}

void normalise(Level& level) {
  constexpr int widest = 8;            // px: bone is told from tissue within
  constexpr float bound = 2.5f;        // SDs: a marker or wire shall not outweigh bone
  constexpr double quiet_share = 0.5;  // of the middle SD: what is quieter than that is shown as quiet
  const int radius = std::clamp(std::min(level.height, level.width) / 8, 2, widest);
  const std::size_t n = level.value.size();
  std::vector<double> count(n), first(n), second(n);
  double mean = 0, known = 0;
  for (std::size_t i = 0; i < n; ++i) {
    mean += static_cast<double>(level.weight[i]) * level.value[i];
    known += level.weight[i];
  }
  if (known > 0) mean /= known;
  for (std::size_t i = 0; i < n; ++i) {
    const double w = level.weight[i], v = level.value[i] - mean;
    count[i] = w;
    first[i] = w * v;
    second[i] = w * v * v;
  }
  count = box_sums(count, level.height, level.width, radius);
  first = box_sums(first, level.height, level.width, radius);
  second = box_sums(second, level.height, level.width, radius);
  std::vector<double> sd(n), known_sd;
  for (std::size_t i = 0; i < n; ++i) {
    if (level.weight[i] == 0) continue;
    const double m = first[i] / count[i];
    sd[i] = std::sqrt(std::max(0.0, second[i] / count[i] - m * m));
    known_sd.push_back(sd[i]);
  }
  const double quiet = known_sd.empty() ? 1 : std::max(1e-6, quiet_share * in_place_median(known_sd));
  level.normal.assign(n, 0);
  for (std::size_t i = 0; i < n; ++i)
    if (level.weight[i] > 0)
      level.normal[i] = std::clamp(static_cast<float>((level.value[i] - mean - first[i] / count[i]) / (sd[i] + quiet)), -bound, bound);
}

/// Finest level first; the pixels of both pyramids are about of one size.
std::vector<Level> make_pyramid(ImageView<const float> image, ImageView<const std::uint8_t> valid, int skipped, int levels) {
  std::vector<Level> pyramid;
  Level level = finest_level(image, valid);
  for (int i = 0; i < skipped; ++i) level = halved(level);
  for (int i = 0; i < levels; ++i) {
    if (i) level = halved(pyramid.back());
    normalise(level);
    pyramid.push_back(std::move(level));
  }
  return pyramid;
}

/// A level's normalised picture between pixels; empty beyond what is known.
std::optional<float> sample(const Level& level, double y, double x) {
  if (!(y >= 0 && x >= 0 && y <= level.height - 1 && x <= level.width - 1)) return {};
  const int j = std::min(static_cast<int>(y), level.height - 2), i = std::min(static_cast<int>(x), level.width - 2);
  const std::size_t a = level.at(j, i), b = a + level.width;
  if (level.weight[a] + level.weight[a + 1] + level.weight[b] + level.weight[b + 1] < 4) return {};
  const float fy = static_cast<float>(y - j), fx = static_cast<float>(x - i);
  const float top = level.normal[a] + fx * (level.normal[a + 1] - level.normal[a]),
              bottom = level.normal[b] + fx * (level.normal[b + 1] - level.normal[b]);
  return top + fy * (bottom - top);
}

/// The run's level as the reference's sees it.
struct Overlay {
  std::vector<float> normal;
  std::vector<std::uint8_t> known;  // in both
};

Overlay lay_over(const Level& reference, const Level& run, const RunRegistration& registration) {
  constexpr int step = 8;  // px: places are worked out so far apart, straight lines lie between them
  const int h = reference.height, w = reference.width, columns = w / step + 2;
  Overlay overlay{std::vector<float>(reference.value.size(), 0), std::vector<std::uint8_t>(reference.value.size(), 0)};
  std::vector<std::array<double, 2>> above(columns), below(columns);
  const auto work_out = [&](int y, std::vector<std::array<double, 2>>& row) {
    for (int i = 0; i < columns; ++i) {
      const auto p = registration.forward(reference.to_picture(y), reference.to_picture(i * step));
      row[i] = {run.from_picture(p[0]), run.from_picture(p[1])};
    }
  };
  work_out(0, below);
  for (int y = 0; y < h; ++y) {
    if (y % step == 0) {
      std::swap(above, below);
      work_out(y + step, below);
    }
    const double f = static_cast<double>(y % step) / step;
    for (int x = 0; x < w; ++x) {
      const std::size_t at = reference.at(y, x);
      if (reference.weight[at] == 0) continue;
      const int i = x / step;
      const double g = static_cast<double>(x % step) / step;
      std::array<double, 2> p{};
      for (int part = 0; part < 2; ++part)
        p[part] = (1 - f) * ((1 - g) * above[i][part] + g * above[i + 1][part]) + f * ((1 - g) * below[i][part] + g * below[i + 1][part]);
      const auto value = sample(run, p[0], p[1]);
      if (!value) continue;
      overlay.normal[at] = *value;
      overlay.known[at] = 1;
    }
  }
  return overlay;
}

/// How two pictures agree where both are known.
struct Likeness {
  double correlation = 0, common_share = 0;
  double score() const { return correlation * std::sqrt(common_share); }  // a small overlap agrees by chance
};

/// Sums for a correlation without means: normalised pictures have none.
struct CorrelationSums {
  double ab = 0, aa = 0, bb = 0, count = 0;
  void add(double a, double b) {
    ab += a * b;
    aa += a * a;
    bb += b * b;
    ++count;
  }
  double correlation() const { return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0; }
};

Likeness compare(const Level& reference, const Overlay& overlay) {
  CorrelationSums sums;
  double known = 0;
  for (std::size_t i = 0; i < overlay.known.size(); ++i) {
    known += reference.weight[i];
    if (overlay.known[i]) sums.add(reference.normal[i], overlay.normal[i]);
  }
  return {sums.correlation(), known > 0 ? sums.count / known : 0};
}

/// How the parts of two pictures agree, each by itself: what a device covers does not count against the rest.
struct LocalLikeness {
  double correlation = 0;  // middle one of the squares with structure in both pictures
  double agreement = 0;    // share of those squares that correlate
};

LocalLikeness compare_parts(const Level& reference, const Overlay& overlay) {
  constexpr int squares = 8;           // along each side
  constexpr double structured = 0.25;  // mean square of the normalised picture, relative to the whole's: below is tissue or air
  constexpr double correlated = 0.35;  // chance rarely gives that in a square
  std::vector<CorrelationSums> sums(squares * squares);
  CorrelationSums all;
  for (int y = 0; y < reference.height; ++y)
    for (int x = 0; x < reference.width; ++x) {
      const std::size_t i = reference.at(y, x);
      if (!overlay.known[i]) continue;
      sums[y * squares / reference.height * squares + x * squares / reference.width].add(reference.normal[i], overlay.normal[i]);
      all.add(reference.normal[i], overlay.normal[i]);
    }
  const double enough = 0.5 * reference.height * reference.width / (squares * squares);
  std::vector<double> correlations;
  int agreeing = 0;
  for (const CorrelationSums& s : sums) {
    if (s.count < enough || s.aa / s.count < structured * all.aa / all.count || s.bb / s.count < structured * all.bb / all.count) continue;
    correlations.push_back(s.correlation());
    agreeing += s.correlation() > correlated;
  }
  if (correlations.empty()) return {};
  const double share = static_cast<double>(agreeing) / static_cast<double>(correlations.size());
  return {in_place_median(correlations), share};
}

/// Median-based SD of residuals.
float robust_sd(std::vector<float> residuals) {
  constexpr float to_sd = 1.4826f;
  for (float& r : residuals) r = std::abs(r);
  return residuals.empty() ? 0 : to_sd * in_place_median(residuals);
}

/// What the residuals say of how places of the reference should move, in reference px, summed over cells.
std::vector<DisplacementEvidence> gather_evidence(const Level& reference, const Level& run, const RunRegistration& registration) {
  constexpr float cut = 3;             // residual SDs, both ways: beyond it is a device in one of the pictures
  constexpr double correlated_px = 4;  // neighbouring pixels tell the same
  constexpr float least_sd = 0.02f;
  const int h = reference.height, w = reference.width;
  const Overlay overlay = lay_over(reference, run, registration);
  struct Edge {
    float gy = 0, gx = 0, residual = 0, alike = 0;
  };
  std::vector<Edge> edges(reference.value.size());
  double slopes = 0, count = 0;
  for (int y = 1; y + 1 < h; ++y)
    for (int x = 1; x + 1 < w; ++x) {
      const std::size_t i = reference.at(y, x);
      if (!(overlay.known[i] && overlay.known[i - 1] && overlay.known[i + 1] && overlay.known[i - w] && overlay.known[i + w])) continue;
      const std::vector<float>&a = reference.normal, &b = overlay.normal;
      const float ay = (a[i + w] - a[i - w]) / 2, ax = (a[i + 1] - a[i - 1]) / 2, by = (b[i + w] - b[i - w]) / 2,
                  bx = (b[i + 1] - b[i - 1]) / 2;
      const float both = ay * by + ax * bx, each = (ay * ay + ax * ax + by * by + bx * bx) / 2;
      // An edge that only one of the pictures shows is a device's: it tells nothing.
      edges[i] = {(ay + by) / 2, (ax + bx) / 2, a[i] - b[i], each > 0 ? std::max(0.0f, both / each) : 0};
      slopes += each;
      ++count;
    }
  // Only edges tell how large residuals of edges are.
  std::vector<float> of_edges;
  for (const Edge& e : edges)
    if ((e.gy * e.gy + e.gx * e.gx) * count > slopes) of_edges.push_back(e.residual);
  const float sd = std::max(least_sd, robust_sd(std::move(of_edges)));
  const double information = 1 / (static_cast<double>(sd) * sd * correlated_px * reference.step * reference.step);
  std::vector<DisplacementEvidence> cells;
  for (int top = 0; top < h; top += cell_px)
    for (int left = 0; left < w; left += cell_px) {
      DisplacementEvidence cell;
      double weights = 0, sum_y = 0, sum_x = 0;
      for (int y = top; y < std::min(h, top + cell_px); ++y)
        for (int x = left; x < std::min(w, left + cell_px); ++x) {
          const Edge& e = edges[reference.at(y, x)];
          const float u = e.residual / (cut * sd), inside = std::max(0.0f, 1 - u * u), weight = e.alike * inside * inside;
          // The reference at p looks like the run at p + displacement: displacement = residual / gradient.
          cell.yy += weight * e.gy * e.gy;
          cell.yx += weight * e.gy * e.gx;
          cell.xx += weight * e.gx * e.gx;
          cell.along_y += weight * e.gy * e.residual;
          cell.along_x += weight * e.gx * e.residual;
          const float energy = weight * (e.gy * e.gy + e.gx * e.gx);
          weights += energy;
          sum_y += energy * y;
          sum_x += energy * x;
        }
      if (weights <= 0) continue;
      cell.y = reference.to_picture(sum_y / weights);
      cell.x = reference.to_picture(sum_x / weights);
      for (double* value : {&cell.yy, &cell.yx, &cell.xx}) *value *= information;
      for (double* value : {&cell.along_y, &cell.along_x}) *value *= information * reference.step;
      cells.push_back(cell);
    }
  return cells;
}

/// The registration after places have moved by `e` first.
void move_first(RunRegistration& registration, const LinearDisplacement& e) {
  const auto a = registration.affine;
  const double m00 = 1 + e.a, m01 = e.b, m10 = e.c, m11 = 1 + e.d;
  for (int i = 0; i < 2; ++i) {
    registration.shift[i] += a[i][0] * e.ty + a[i][1] * e.tx;
    registration.affine[i] = {a[i][0] * m00 + a[i][1] * m10, a[i][0] * m01 + a[i][1] * m11};
  }
}

void improve_linear(const Level& reference, const Level& run, bool similarity, int rounds, RunRegistration& registration) {
  const double centre_y = reference.to_picture((reference.height - 1) / 2.0), centre_x = reference.to_picture((reference.width - 1) / 2.0);
  for (int i = 0; i < rounds; ++i)
    move_first(registration, fit_linear(gather_evidence(reference, run, registration), centre_y, centre_x, similarity));
}

void improve_displacement(const Level& reference, const Level& run, const DisplacementPrior& prior, int rounds,
                          RunRegistration& registration) {
  for (int i = 0; i < rounds; ++i) {
    std::vector<DisplacementEvidence> evidence = gather_evidence(reference, run, registration);
    for (DisplacementEvidence& e : evidence) {  // the step goes on from where the displacement is
      const auto d = registration.displacement.at(e.y, e.x);
      e.along_y += e.yy * d[0] + e.yx * d[1];
      e.along_x += e.yx * d[0] + e.xx * d[1];
    }
    if (!fit_displacement(evidence, prior, registration.displacement)) return;
  }
}

/// A pose of the coarse search.
struct Pose {
  double rotation_deg = 0, scale = 1, shift_y = 0, shift_x = 0;  // shift of the middle, reference px
  double score = 0;
};

/// Turned about the reference's middle, which lies `shift` from the run's.
RunRegistration placed(const Pose& pose, const Level& reference, const Level& run) {
  const double c = pose.scale * std::cos(pose.rotation_deg * degree), s = pose.scale * std::sin(pose.rotation_deg * degree);
  RunRegistration registration;
  registration.affine = {{{c, s}, {-s, c}}};
  const double y = reference.to_picture((reference.height - 1) / 2.0), x = reference.to_picture((reference.width - 1) / 2.0);
  registration.shift = {run.to_picture((run.height - 1) / 2.0) + pose.scale * pose.shift_y - (c * y + s * x),
                        run.to_picture((run.width - 1) / 2.0) + pose.scale * pose.shift_x - (-s * y + c * x)};
  return registration;
}

/// Rows padded to whole lanes.
struct LaneRows {
  static constexpr int lanes = 8;
  int height, width;
  std::vector<float> values;
  LaneRows(int h, int w) : height(h), width((w + lanes - 1) / lanes * lanes), values(static_cast<std::size_t>(h) * width) {}
  float* row(int y) { return values.data() + static_cast<std::size_t>(y) * width; }
  const float* row(int y) const { return values.data() + static_cast<std::size_t>(y) * width; }
};

/// All shifts of one rotation and scale: the best few poses of each.
class CoarseSearch {
 public:
  CoarseSearch(const Level& reference, const Level& run, double largest_shift)
      : reference_(reference),
        run_(run),
        reach_(static_cast<int>(std::ceil(largest_shift * std::max(reference.height, reference.width)))),
        a_(reference.height, reference.width),
        aa_(a_),
        known_(a_) {
    for (int y = 0; y < reference.height; ++y)
      for (int x = 0; x < reference.width; ++x) {
        const float value = reference.normal[reference.at(y, x)], weight = reference.weight[reference.at(y, x)];
        a_.row(y)[x] = weight * value;
        aa_.row(y)[x] = weight * value * value;
        known_.row(y)[x] = weight;
        total_ += weight;
      }
  }
  void search(double rotation_deg, double scale, std::vector<Pose>& poses) const {
    // The run as the reference would see it, `reach_` px further on every side.
    LaneRows b(a_.height + 2 * reach_, a_.width + 2 * reach_), bb(b), known(b);
    const RunRegistration turned = placed({rotation_deg, scale, 0, 0, 0}, reference_, run_);
    for (int y = 0; y < b.height; ++y)
      for (int x = 0; x < b.width; ++x) {
        const auto p = turned.forward(reference_.to_picture(y - reach_), reference_.to_picture(x - reach_));
        const auto value = sample(run_, run_.from_picture(p[0]), run_.from_picture(p[1]));
        if (!value) continue;
        b.row(y)[x] = *value;
        bb.row(y)[x] = *value * *value;
        known.row(y)[x] = 1;
      }
    const double c = std::cos(rotation_deg * degree), s = std::sin(rotation_deg * degree);
    for (int dy = -reach_; dy <= reach_; ++dy)
      for (int dx = -reach_; dx <= reach_; ++dx) {
        const double score = score_at(b, bb, known, dy, dx);
        // Grid steps are of the reference; its shift in the run is turned with it.
        const double step = reference_.step;
        if (score > 0) poses.push_back({rotation_deg, scale, step * (c * dy + s * dx), step * (-s * dy + c * dx), score});
      }
  }

 private:
  double score_at(const LaneRows& b, const LaneRows& bb, const LaneRows& known, int dy, int dx) const {
    constexpr int lanes = LaneRows::lanes;
    float ab[lanes] = {}, aa[lanes] = {}, sum_bb[lanes] = {}, count[lanes] = {};
    for (int y = 0; y < a_.height; ++y) {
      const float *ra = a_.row(y), *raa = aa_.row(y), *rk = known_.row(y);
      const float *rb = b.row(y + reach_ + dy) + reach_ + dx, *rbb = bb.row(y + reach_ + dy) + reach_ + dx,
                  *rbk = known.row(y + reach_ + dy) + reach_ + dx;
      for (int x = 0; x < a_.width; x += lanes)
        for (int l = 0; l < lanes; ++l) {
          ab[l] += ra[x + l] * rb[x + l];
          aa[l] += raa[x + l] * rbk[x + l];
          sum_bb[l] += rk[x + l] * rbb[x + l];
          count[l] += rk[x + l] * rbk[x + l];
        }
    }
    double sums[4] = {};
    for (int l = 0; l < lanes; ++l) {
      sums[0] += ab[l];
      sums[1] += aa[l];
      sums[2] += sum_bb[l];
      sums[3] += count[l];
    }
    if (!(sums[1] > 0 && sums[2] > 0)) return 0;
    return Likeness{sums[0] / std::sqrt(sums[1] * sums[2]), sums[3] / total_}.score();
  }

  const Level &reference_, &run_;
  int reach_;
  LaneRows a_, aa_, known_;
  double total_ = 0;
};

/// The most alike poses that are not neighbours of one another.
std::vector<Pose> find_poses(const Level& reference, const Level& run, double pixel_ratio, const RunRegistrationOptions& options) {
  constexpr double rotation_step_deg = 2, scale_step = 0.04;  // about a coarse pixel at the picture's edge
  constexpr std::size_t most = 12;
  const CoarseSearch search(reference, run, options.largest_shift);
  std::vector<Pose> poses;
  const int rotations = static_cast<int>(std::ceil(options.largest_rotation_deg / rotation_step_deg)),
            scales = static_cast<int>(std::ceil(options.largest_scale_change / scale_step));
  for (int r = -rotations; r <= rotations; ++r)
    for (int s = -scales; s <= scales; ++s) search.search(r * rotation_step_deg, pixel_ratio * (1 + s * scale_step), poses);
  std::stable_sort(poses.begin(), poses.end(), [](const Pose& a, const Pose& b) { return a.score > b.score; });
  std::vector<Pose> chosen;
  const double near = 1.6 * reference.step;
  for (const Pose& pose : poses) {
    if (chosen.size() == most) break;
    const bool seen = std::any_of(chosen.begin(), chosen.end(), [&](const Pose& other) {
      return std::hypot(pose.shift_y - other.shift_y, pose.shift_x - other.shift_x) < near &&
             std::abs(pose.rotation_deg - other.rotation_deg) < 1.5 * rotation_step_deg &&
             std::abs(pose.scale - other.scale) < 1.5 * scale_step * pixel_ratio;
    });
    if (!seen) chosen.push_back(pose);
  }
  return chosen;
}

void describe(RunRegistration& registration) {
  const auto& a = registration.affine;
  registration.scale = std::sqrt(std::max(0.0, a[0][0] * a[1][1] - a[0][1] * a[1][0]));
  registration.rotation_deg = std::atan2(a[0][1] - a[1][0], a[0][0] + a[1][1]) / degree;
}

/// True where the displacement would fold the picture, or stretch it beyond what a tilt does.
bool folds(const SmoothDisplacement& displacement) {
  constexpr double largest_strain = 0.3;  // px per px
  for (int j = 0; j + 1 < displacement.rows; ++j)
    for (int i = 0; i + 1 < displacement.columns; ++i) {
      const auto& node = displacement.nodes[static_cast<std::size_t>(j) * displacement.columns + i];
      for (const std::size_t next :
           {static_cast<std::size_t>(j) * displacement.columns + i + 1, static_cast<std::size_t>(j + 1) * displacement.columns + i})
        if (std::hypot(displacement.nodes[next][0] - node[0], displacement.nodes[next][1] - node[1]) >
            largest_strain * displacement.spacing_px)
          return true;
    }
  return false;
}

std::string in_words(const char* format, double value, double limit) {
  char text[200];
  std::snprintf(text, sizeof text, format, value, limit);
  return text;
}

/// Why it can't be relied on; empty: it can.
std::string doubt(const RunRegistration& r, const Level& reference, const Level& run, double pixel_ratio,
                  const RunRegistrationOptions& options) {
  constexpr double beyond = 1.25;         // the search's range may be left by this much: tilts stretch
  constexpr double largest_shear = 0.08;  // of the affine part: more is no tilt of a few degrees
  const double y = reference.to_picture((reference.height - 1) / 2.0), x = reference.to_picture((reference.width - 1) / 2.0);
  const auto middle = r.forward(y, x);
  const double shift = std::hypot(middle[0] - run.to_picture((run.height - 1) / 2.0), middle[1] - run.to_picture((run.width - 1) / 2.0)) /
                       r.scale,
               longest = reference.step * std::max(reference.height, reference.width);
  if (!(r.scale > 0)) return "the pictures can't be laid on each other";
  if (r.common_share < options.least_common_share)
    return in_words("the fields have too little in common: %.0f %% of the reference's, needed %.0f %%", 100 * r.common_share,
                    100 * options.least_common_share);
  if (r.correlation < options.least_correlation)
    return in_words("the backgrounds do not look alike: correlation %.2f, needed %.2f", r.correlation, options.least_correlation);
  if (r.agreement < options.least_agreement)
    return in_words("the backgrounds agree in %.0f %% of the field's parts, needed %.0f %%", 100 * r.agreement,
                    100 * options.least_agreement);
  if (std::abs(r.rotation_deg) > beyond * options.largest_rotation_deg)
    return in_words("turned by %.1f degrees, at most %.0f are looked for", r.rotation_deg, options.largest_rotation_deg);
  if (std::abs(r.scale / pixel_ratio - 1) > beyond * options.largest_scale_change)
    return in_words("scaled by %.3f, at most %.2f either way is looked for", r.scale / pixel_ratio, options.largest_scale_change);
  if (shift > std::numbers::sqrt2 * beyond * options.largest_shift * longest)
    return in_words("moved by %.0f px, at most %.0f are looked for", shift, options.largest_shift * longest);
  const auto& a = r.affine;
  const double shear = std::max(std::abs(a[0][0] - a[1][1]), std::abs(a[0][1] + a[1][0])) / r.scale;
  if (shear > largest_shear)
    return in_words("the pictures are distorted against each other by %.2f, at most %.2f is a tilt", shear, largest_shear);
  return "";
}

void check(ImageView<const float> image, ImageView<const std::uint8_t> valid) {
  constexpr int least = 32;
  if (image.height < least || image.width < least)
    throw std::invalid_argument("register_runs: a picture of " + std::to_string(image.height) + " x " + std::to_string(image.width) +
                                " px, expected 32 x 32 at least");
  if (valid.data && !same_size(image, valid)) throw std::invalid_argument("register_runs: picture and valid differ in size");
}

int halvings(double side, double limit) {
  int count = 0;
  for (; side > limit; side /= 2) ++count;
  return count;
}

}  // namespace

RunRegistration register_runs(ImageView<const float> reference_mask, ImageView<const std::uint8_t> reference_valid,
                              ImageView<const float> run_mask, ImageView<const std::uint8_t> run_valid, double pixel_ratio,
                              const RunRegistrationOptions& options) {
  check(reference_mask, reference_valid);
  check(run_mask, run_valid);
  if (!(pixel_ratio > 0)) throw std::invalid_argument("register_runs: pixel_ratio " + std::to_string(pixel_ratio) + ", expected > 0");
  const int longest = std::max(reference_mask.height, reference_mask.width);
  const int skipped = halvings(longest, finest_side), levels = 1 + halvings(std::ldexp(longest, -skipped), coarsest_side);
  // The run's pixels are to be about as large as the reference's: between 0.7 and 1.4 times.
  const int run_skipped = std::max(0, static_cast<int>(std::lround(skipped + std::log2(pixel_ratio))));
  const int run_longest = std::min(run_mask.height, run_mask.width);
  if (std::ldexp(run_longest, -(run_skipped + levels - 1)) < 4) {
    RunRegistration nothing;
    nothing.note = "the run's field is too small for the reference's";
    return nothing;
  }
  const std::vector<Level> reference = make_pyramid(reference_mask, reference_valid, skipped, levels),
                           run = make_pyramid(run_mask, run_valid, run_skipped, levels);

  // Places to begin from, each improved a little: the most alike of them.
  const int next = std::max(0, levels - 2);
  RunRegistration best;
  double best_score = -1;
  for (const Pose& pose : find_poses(reference.back(), run.back(), pixel_ratio, options)) {
    RunRegistration candidate = placed(pose, reference.back(), run.back());
    constexpr int rounds = 6;
    improve_linear(reference[next], run[next], true, rounds, candidate);
    const double score = compare(reference[next], lay_over(reference[next], run[next], candidate)).score();
    if (score <= best_score) continue;
    best_score = score;
    best = candidate;
  }
  if (best_score > 0) {
    constexpr int rounds = 4;
    for (int level = next; level >= 0; --level) improve_linear(reference[level], run[level], level == next && level > 0, rounds, best);
    if (options.lattice_share > 0) {
      const RunRegistration affine = best;
      const DisplacementPrior prior{options.bend_share * longest, 8 * options.bend_share * longest};
      best.displacement = make_lattice(reference_mask.height, reference_mask.width, options.lattice_share * longest);
      for (int level = std::min(1, levels - 1); level >= 0; --level)
        improve_displacement(reference[level], run[level], prior, rounds, best);
      if (folds(best.displacement)) best = affine;
    }
  }
  describe(best);
  const int judged = std::min(2, levels - 1);  // structure of several px, little noise
  const Overlay overlay = lay_over(reference[judged], run[judged], best);
  best.common_share = compare(reference[judged], overlay).common_share;
  const LocalLikeness parts = compare_parts(reference[judged], overlay);
  best.correlation = parts.correlation;
  best.agreement = parts.agreement;
  best.note = doubt(best, reference.front(), run.front(), pixel_ratio, options);
  best.reliable = best.note.empty();
  return best;
}

}  // namespace cinelumen
