#include "engine/lumen_measurement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "engine/lumen_area.h"
#include "engine/lumen_bound.h"

namespace cinelumen {
namespace {

constexpr int group = points_per_group;
constexpr float half_gap_px = 0.5f;  // every second point stands for its neighbours

float with_pixel(float psf_px) { return std::sqrt(psf_px * psf_px + 1.0f / 12); }

float fitted_radius(float radius_px) { return std::clamp(radius_px, 0.8f, 60.0f); }

// How far to either side a profile of that radius looks.
float sight(float radius_px, float psf_px) {
  const float radius = fitted_radius(radius_px);
  return std::max(1.5f * radius + 5 * psf_px + 2, 2.5f * radius + 9);
}

void check(const LumenOptions& options) {
  const auto demand = [&](bool met, const char* what) {
    if (!met) throw std::invalid_argument(std::string("LumenMeasurement: ") + what);
  };
  demand(options.noise_sd > 0 && std::isfinite(options.noise_sd), "noise_sd must be positive");
  demand(options.psf_px > 0 && options.psf_sd_px >= 0, "psf_px must be positive, its SD not negative");
  demand(options.common_noise_share >= 0 && options.common_noise_share <= 1, "common_noise_share must be 0 to 1");
  demand(options.sd_inflation >= 1, "sd_inflation must be at least 1");
}

void check(ImageView<const float> image, ImageView<const std::uint8_t> valid) {
  if (valid.data != nullptr && !same_size(image, valid))
    throw std::invalid_argument("LumenMeasurement: valid differs from the image in size");
}

LumenPointOptions point_options_of(const LumenOptions& options) {
  LumenPointOptions result;
  result.psf_px = options.psf_px;
  result.psf_sd_px = options.psf_sd_px;
  result.effective_psf_px = with_pixel(options.psf_px);
  result.noise_sd = options.noise_sd;
  result.sd_inflation = options.sd_inflation;
  result.common_noise_share = options.common_noise_share;
  result.free_kappa_ratio = options.free_kappa_ratio;
  result.minimum_contrast_ratio = options.minimum_contrast_ratio;
  result.maximum_relative_sd = options.maximum_relative_sd;
  result.maximum_misfit = options.maximum_misfit;
  double radius = 1;
  for (float& factor : result.noise_factor) {
    ProfileCase profile;
    profile.radius_px = radius;
    profile.psf_px = options.psf_px;
    profile.kappa_free = radius > options.free_kappa_ratio * result.effective_psf_px;
    factor = static_cast<float>(correlated_noise_factor(profile, options.autocorrelation, options.rows));
    radius *= 1.6;
  }
  return result;
}

LumenFitOptions fit_options_of(const LumenOptions& options) {
  LumenFitOptions result;
  result.rows = options.rows;
  result.variance = options.noise_sd * options.noise_sd;
  result.iterations = 7;  // what needs more is no vessel
  return result;
}

// Points that keep together, and the circle about their middle one that holds them.
struct Cluster {
  int segment = 0, first = 0, end = 0;  // numbers of points, or of the places of block_point
  float y = 0, x = 0, extent = 0, largest_radius = 0, low_arc = 0, high_arc = 0;
};

Cluster cluster_of(const std::vector<const CentrelinePoint*>& points, int middle) {
  Cluster result;
  result.y = points[middle]->y;
  result.x = points[middle]->x;
  result.low_arc = std::numeric_limits<float>::max();
  result.high_arc = std::numeric_limits<float>::lowest();
  for (const CentrelinePoint* p : points) {
    result.extent = std::max(result.extent, std::hypot(p->y - result.y, p->x - result.x));
    result.largest_radius = std::max(result.largest_radius, p->radius_px);
    result.low_arc = std::min(result.low_arc, p->arc_length_px);
    result.high_arc = std::max(result.high_arc, p->arc_length_px);
  }
  return result;
}

float distance(const Cluster& a, const Cluster& b) { return std::hypot(a.y - b.y, a.x - b.x) - a.extent - b.extent; }

template <class T>
Array<T> upload(const Stream& stream, const std::vector<T>& values) {
  const int count = static_cast<int>(values.size());
  Array<T> host = Array<T>::staging(stream, count), result(stream, count);
  std::copy(values.begin(), values.end(), host.begin());
  copy<T>(stream, host.view(), result.view());
  stream.synchronize();
  return result;
}

}  // namespace

std::vector<CrossSection> sections_of(const std::vector<Centreline>& centrelines) {
  std::vector<CrossSection> sections;
  for (const Centreline& centreline : centrelines)
    for (const CentrelinePoint& p : centreline.points) {
      const float length = std::hypot(p.tangent_y, p.tangent_x);
      sections.push_back({p.y, p.x, length > 0 ? p.tangent_x / length : 0, length > 0 ? -p.tangent_y / length : 1});
    }
  return sections;
}

std::vector<int> first_points_of(const std::vector<Centreline>& centrelines) {
  std::vector<int> first = {0};
  for (const Centreline& centreline : centrelines) first.push_back(first.back() + static_cast<int>(centreline.points.size()));
  return first;
}

// Made on the host once: who may come near whom while points move by reach_px at most.
struct LumenMeasurement::Plan {
  Plan(const Stream& stream, const std::vector<Centreline>& centrelines, float psf_px, float reach_px);
  LumenPlan views() const {
    return {first.view(),     segment.view(),    inferred.view(),       radius.view(),     arc_length.view(),       group_first.view(),
            group_end.view(), seen_first.view(), seen_block.view(),     seen_reach.view(), block_point.view(),      block_radius.view(),
            block_arc.view(), end_point.view(),  end_seen_first.view(), end_seen.view(),   group_ends_first.view(), group_ends.view()};
  }
  int points() const { return segment.size(); }

  int device;
  float psf_px, reach_px;
  std::vector<Centreline> centrelines;
  Array<std::int32_t> first, segment, inferred, group_first, group_end, seen_first, seen_block, block_point, end_point, end_seen_first,
      end_seen, group_ends_first, group_ends;
  Array<float> radius, arc_length, seen_reach, block_radius, block_arc;
  Array<CrossSection> sections;

 private:
  void take_points(const Stream& stream);
  void find_neighbours(const Stream& stream, const std::vector<Cluster>& groups, const std::vector<Cluster>& blocks);
  void find_ends(const Stream& stream, const std::vector<Cluster>& groups, const std::vector<Cluster>& blocks);
};

LumenMeasurement::Plan::Plan(const Stream& stream, const std::vector<Centreline>& of, float psf, float reach)
    : device(stream.cuda_device()), psf_px(psf), reach_px(reach), centrelines(of) {
  take_points(stream);
  std::vector<Cluster> groups, blocks;
  std::vector<std::int32_t> starts, ends, seen;
  std::vector<float> seen_radius, seen_arc;
  int start = 0;
  for (int s = 0; s < static_cast<int>(centrelines.size()); ++s) {
    const std::vector<CentrelinePoint>& points = centrelines[s].points;
    const int count = static_cast<int>(points.size());
    for (int from = 0; from < count; from += group) {
      std::vector<const CentrelinePoint*> members;
      for (int i = from; i < std::min(count, from + group); ++i) members.push_back(&points[i]);
      Cluster cluster = cluster_of(members, std::min<int>(group / 2, static_cast<int>(members.size()) - 1));
      cluster.segment = s;
      groups.push_back(cluster);
      starts.push_back(start + from);
      ends.push_back(start + from + static_cast<int>(members.size()));
    }
    std::vector<int> chosen;
    for (int i = 0; i < count; i += 2) chosen.push_back(i);
    if (count % 2 == 0 && count > 0) chosen.push_back(count - 1);
    while (chosen.size() % group != 0) chosen.push_back(count - 1);  // twice the same does no harm
    for (std::size_t from = 0; from < chosen.size(); from += group) {
      std::vector<const CentrelinePoint*> members;
      for (int j = 0; j < group; ++j) {
        members.push_back(&points[chosen[from + j]]);
        seen.push_back(start + chosen[from + j]);
        seen_radius.push_back(members.back()->radius_px);
        seen_arc.push_back(members.back()->arc_length_px);
      }
      Cluster cluster = cluster_of(members, group / 2);
      cluster.segment = s;
      blocks.push_back(cluster);
    }
    start += count;
  }
  group_first = upload(stream, starts);
  group_end = upload(stream, ends);
  block_point = upload(stream, seen);
  block_radius = upload(stream, seen_radius);
  block_arc = upload(stream, seen_arc);
  find_neighbours(stream, groups, blocks);
  find_ends(stream, groups, blocks);
}

void LumenMeasurement::Plan::take_points(const Stream& stream) {
  std::vector<std::int32_t> segments, marked;
  std::vector<float> radii, arcs;
  for (int s = 0; s < static_cast<int>(centrelines.size()); ++s)
    for (const CentrelinePoint& p : centrelines[s].points) {
      segments.push_back(s);
      marked.push_back(p.inferred ? 1 : 0);
      radii.push_back(p.radius_px);
      arcs.push_back(p.arc_length_px);
    }
  first = upload(stream, first_points_of(centrelines));
  segment = upload(stream, segments);
  inferred = upload(stream, marked);
  radius = upload(stream, radii);
  arc_length = upload(stream, arcs);
  sections = upload(stream, sections_of(centrelines));
}

void LumenMeasurement::Plan::find_neighbours(const Stream& stream, const std::vector<Cluster>& groups, const std::vector<Cluster>& blocks) {
  const float s = with_pixel(psf_px);
  std::vector<std::int32_t> firsts = {0}, seen;
  std::vector<float> reaches;
  for (const Cluster& a : groups) {
    for (int b = 0; b < static_cast<int>(blocks.size()); ++b) {
      const Cluster& other = blocks[b];
      float reach = sight(a.largest_radius, s) + other.largest_radius + 2 * s + half_gap_px;
      // The same centreline only where it comes back: nearer than a third of the way along it.
      if (other.segment == a.segment) reach = std::min(reach, std::max(a.high_arc - other.low_arc, other.high_arc - a.low_arc) / 3 - 4);
      if (reach < 0 || distance(a, other) > reach + 2 * reach_px) continue;
      seen.push_back(b);
      reaches.push_back(reach);
    }
    firsts.push_back(static_cast<std::int32_t>(seen.size()));
  }
  seen_first = upload(stream, firsts);
  seen_block = upload(stream, seen);
  seen_reach = upload(stream, reaches);
}

void LumenMeasurement::Plan::find_ends(const Stream& stream, const std::vector<Cluster>& groups, const std::vector<Cluster>& blocks) {
  float widest = 0;
  for (const Cluster& block : blocks) widest = std::max(widest, block.largest_radius);
  std::vector<Cluster> ends;
  std::vector<std::int32_t> points, seen_firsts = {0}, seen;
  int start = 0;
  for (int s = 0; s < static_cast<int>(centrelines.size()); ++s) {
    const std::vector<CentrelinePoint>& line = centrelines[s].points;
    const int count = static_cast<int>(line.size());
    for (const int i : {0, count - 1}) {
      if (count == 0) break;
      const Cluster end = cluster_of({&line[i]}, 0);
      const std::size_t before = seen.size();
      for (int b = 0; b < static_cast<int>(blocks.size()); ++b)
        if (blocks[b].segment != s && distance(end, blocks[b]) <= std::max(3.0f, line[i].radius_px) + 2 * reach_px) seen.push_back(b);
      if (seen.size() == before) continue;  // nothing it could meet
      ends.push_back(end);
      points.push_back(start + i);
      seen_firsts.push_back(static_cast<std::int32_t>(seen.size()));
    }
    start += count;
  }
  std::vector<std::int32_t> near_firsts = {0}, near;
  for (const Cluster& a : groups) {
    for (int e = 0; e < static_cast<int>(ends.size()); ++e)
      if (distance(a, ends[e]) <= widest + 0.5f * fitted_radius(a.largest_radius) + 2 + 2 * reach_px) near.push_back(e);
    near_firsts.push_back(static_cast<std::int32_t>(near.size()));
  }
  end_point = upload(stream, points);
  end_seen_first = upload(stream, seen_firsts);
  end_seen = upload(stream, seen);
  group_ends_first = upload(stream, near_firsts);
  group_ends = upload(stream, near);
}

LumenMeasurement::LumenMeasurement(const Stream& stream, const std::vector<Centreline>& centrelines, const LumenOptions& options,
                                   float reach_px)
    : LumenMeasurement(stream, (check(options), std::make_shared<const Plan>(stream, centrelines, options.psf_px, reach_px)), options,
                       point_options_of(options)) {}

LumenMeasurement::LumenMeasurement(const Stream& stream, std::shared_ptr<const Plan> plan, const LumenOptions& options,
                                   const LumenPointOptions& point_options)
    : plan_(std::move(plan)), options_(options), point_options_(point_options) {
  const int points = plan_->points(), blocks = plan_->block_point.size() / group;
  for (Array<float>* array : {&block_y_, &block_x_}) *array = Array<float>(stream, blocks * group);
  block_extent_ = Array<float>(stream, blocks);
  junction_radius_ = Array<float>(stream, plan_->end_point.size());
  for (Array<float>* array : {&kappa_, &kappa_sd_}) *array = Array<float>(stream, points);
  points_ = Array<LumenFitPoint>(stream, points);
  for (Array<std::int32_t>* array : {&overlap_, &pass_, &width_class_, &list_}) *array = Array<std::int32_t>(stream, points);
  count_ = Array<std::int32_t>(stream, 1);
  for (Array<LumenFit>* array : {&found_, &fits_}) *array = Array<LumenFit>(stream, points);
  pooled_ = Array<PooledKappa>(stream, plan_->first.size());
  measured_on_host_ = Array<MeasuredLumen>::staging(stream, points);
  if (stream.on_cuda()) measured_ = Array<MeasuredLumen>(stream, points);
  options_.variance = {};
}

LumenMeasurement LumenMeasurement::another(const Stream& stream) const {
  if (stream.cuda_device() == plan_->device) return LumenMeasurement(stream, plan_, options_, point_options_);
  return LumenMeasurement(stream, std::make_shared<const Plan>(stream, plan_->centrelines, plan_->psf_px, plan_->reach_px), options_,
                          point_options_);
}

LumenWorkspace LumenMeasurement::workspace() {
  return {block_y_.view(), block_x_.view(),     block_extent_.view(), junction_radius_.view(), points_.view(), overlap_.view(),
          pass_.view(),    width_class_.view(), list_.view(),         count_.view(),           found_.view(),  fits_.view(),
          kappa_.view(),   kappa_sd_.view(),    pooled_.view()};
}

void LumenMeasurement::fit(const Stream& stream, ImageView<const float> image, const VarianceSource& variance,
                           ImageView<const std::uint8_t> valid, const LumenFitOptions& options, ArrayView<LumenFit> fits) {
  fit_lumen(stream, image, variance, valid, LumenFitList{list_.view(), count_.view().data}, points_.view(), fits, options);
}

void LumenMeasurement::enqueue(const Stream& stream, ImageView<const float> image, const VarianceSource& variance,
                               ImageView<const std::uint8_t> valid, ArrayView<const CrossSection> lines) {
  check(image, valid);
  const LumenPlan plan = plan_->views();
  const LumenWorkspace work = workspace();
  if (plan.segment.size == 0) return;
  look_around(stream, plan, point_options_, lines.data ? lines : plan_->sections.view(), work);
  LumenFitOptions options = fit_options_of(options_);
  options.search = options.search_only = true;
  list_searched(stream, plan, work);
  fit(stream, image, variance, valid, options, found_.view());
  choose_starts(stream, plan, point_options_, work);
  // First what looks wide, with its own kappa; then the others, and what only looked wide, with the kappa of the wide ones.
  options.search = options.search_only = false;
  list_pass(stream, plan, 1, work);
  fit(stream, image, variance, valid, options, fits_.view());
  prepare_second_pass(stream, plan, point_options_, work);
  list_pass(stream, plan, 2, work);
  fit(stream, image, variance, valid, options, fits_.view());
  const ArrayView<MeasuredLumen> measured = stream.on_cuda() ? measured_.view() : measured_on_host_.view();
  judge_points(stream, plan, point_options_, work, measured);
  if (stream.on_cuda()) copy<MeasuredLumen>(stream, measured_.view(), measured_on_host_.view());
}

std::vector<LumenFit> LumenMeasurement::fit_point_spread(const Stream& stream, ImageView<const float> image, const VarianceSource& variance,
                                                         ImageView<const std::uint8_t> valid) {
  const LumenPlan plan = plan_->views();
  const LumenWorkspace work = workspace();
  const int points = plan_->points();
  check(image, valid);
  if (points == 0) return {};
  LumenPointOptions unknown = point_options_;
  unknown.psf_sd_px = 0;  // no prior: these profiles are to speak for themselves
  look_around(stream, plan, unknown, plan_->sections.view(), work);
  list_all(stream, plan, work);
  LumenFitOptions options = fit_options_of(options_);
  options.fit_psf = true;
  fit(stream, image, variance, valid, options, fits_.view());
  Array<LumenFit> fits = Array<LumenFit>::staging(stream, points);
  Array<std::int32_t> list = Array<std::int32_t>::staging(stream, points), count = Array<std::int32_t>::staging(stream, 1);
  copy<LumenFit>(stream, fits_.view(), fits.view());
  copy<std::int32_t>(stream, list_.view(), list.view());
  copy<std::int32_t>(stream, count_.view(), count.view());
  stream.synchronize();
  std::vector<LumenFit> result;
  for (int k = 0; k < count[0]; ++k) result.push_back(fits[list[k]]);
  return result;
}

namespace {

Exclusion reason_of(LumenVerdict verdict) {
  switch (verdict) {
    case LumenVerdict::used:
      return Exclusion::none;
    case LumenVerdict::unfilled:
      return Exclusion::unfilled;
    case LumenVerdict::overlap:
      return Exclusion::overlap;
    case LumenVerdict::edge:
      return Exclusion::edge;
    case LumenVerdict::low_contrast:
      return Exclusion::low_contrast;
    case LumenVerdict::no_fit:
      return Exclusion::no_fit;
    case LumenVerdict::inferred:
      return Exclusion::inferred;
  }
  return Exclusion::no_fit;
}

}  // namespace

std::vector<std::vector<LumenPoint>> LumenMeasurement::results() const {
  std::vector<std::vector<LumenPoint>> result(plan_->centrelines.size());
  int at = 0;
  for (std::size_t s = 0; s < result.size(); ++s) {
    const std::vector<CentrelinePoint>& points = plan_->centrelines[s].points;
    result[s].resize(points.size());
    for (std::size_t i = 0; i < points.size(); ++i) {
      const MeasuredLumen& measured = measured_on_host_[at++];
      LumenPoint& point = result[s][i];
      point.segment = static_cast<int>(s);
      point.point = static_cast<int>(i);
      point.arc_length_px = points[i].arc_length_px;
      point.y_px = measured.y;
      point.x_px = measured.x;
      point.normal_y = measured.normal_y;
      point.normal_x = measured.normal_x;
      point.diameter_px = measured.diameter_px;
      point.sd_px = measured.sd_px;
      point.contrast = measured.contrast;
      point.background = measured.background;
      point.reason = reason_of(measured.verdict);
      point.used = point.reason == Exclusion::none;
      point.contrast_sd = measured.contrast_sd;
      point.kappa = measured.kappa;
      point.kappa_sd = measured.kappa_sd;
      point.own_kappa = measured.diameter_px > 2 * options_.free_kappa_ratio * point_options_.effective_psf_px;
      point.chi2_per_dof = measured.chi2_per_dof;
      point.common_sd_px = measured.common_sd_px;
    }
  }
  if (options_.densitometric) add_areas(result);
  return result;
}

}  // namespace cinelumen
