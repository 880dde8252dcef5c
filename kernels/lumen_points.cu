#include "lumen_points.h"

#include <bit>

#include "math.h"
#include "tile.h"
#include "tile_lists.h"

// A loop vectorises only once everything in it is inlined.
#define CINELUMEN_INLINE __attribute__((always_inline))

namespace cinelumen {
namespace {

constexpr int group = points_per_group;
constexpr float half_gap_px = 0.5f;         // every second point stands for its neighbours
constexpr float least_significance = 3;     // peak over surroundings, in SDs of white noise, below which nothing is fitted
constexpr int search_every = 3;             // points; its neighbours are searched for
constexpr int search_reach = 5;             // points on either side whose searches count: three or four of them
constexpr int least_wide = 5;               // points that a pooled kappa needs
constexpr float least_relative_sd = 0.02f;  // of a centreline's kappa
constexpr float between_segments = 0.15f;   // relative SD of kappa from one centreline to another, where too few tell
constexpr float robust = 1.4826f;           // SD of a normal distribution over its median absolute deviation
constexpr float far_off = 1e6f;

CINELUMEN_HOST_DEVICE inline float larger(float a, float b) { return a > b ? a : b; }
CINELUMEN_HOST_DEVICE inline float smaller(float a, float b) { return a < b ? a : b; }
CINELUMEN_HOST_DEVICE inline float limited(float x, float low, float high) { return x < low ? low : (x > high ? high : x); }

struct PlaceBlocks {
  LumenPlan plan;
  ArrayView<const CrossSection> lines;
  LumenWorkspace work;

  CINELUMEN_HOST_DEVICE void operator()(int b) const {
    const CrossSection& middle = lines[plan.block_point[b * group + group / 2]];
    float extent = 0;
    for (int j = b * group; j < (b + 1) * group; ++j) {
      const CrossSection& line = lines[plan.block_point[j]];
      work.block_y[j] = line.y;
      work.block_x[j] = line.x;
      extent = larger(extent, square(line.y - middle.y) + square(line.x - middle.x));
    }
    work.block_extent[b] = sqrtf(extent);
  }
};

// Where an end of a centreline meets another one, with the widest vessel there.
struct FindJunctions {
  LumenPlan plan;
  ArrayView<const CrossSection> lines;
  LumenWorkspace work;

  CINELUMEN_HOST_DEVICE void operator()(int e) const {
    const int end = plan.end_point[e];
    const CrossSection& line = lines[end];
    const float own = plan.radius[end], reach = larger(3.0f, own);
    float radius = 0;
    for (int i = plan.end_seen_first[e]; i < plan.end_seen_first[e + 1]; ++i) {
      const int b = plan.end_seen_block[i], middle = b * group + group / 2;
      if (square(work.block_y[middle] - line.y) + square(work.block_x[middle] - line.x) > square(reach + work.block_extent[b] + 1))
        continue;
      for (int j = b * group; j < (b + 1) * group; ++j)
        if (square(work.block_y[j] - line.y) + square(work.block_x[j] - line.x) <= reach * reach)
          radius = larger(radius, larger(own, plan.radius[plan.block_point[j]]));
    }
    work.junction_radius[e] = radius;
  }
};

// A tile is a group of points; they look at a block of others together.
struct LookAround {
  LumenPlan plan;
  LumenPointOptions options;
  ArrayView<const CrossSection> lines;
  LumenWorkspace work;

  using CpuTile = TileShape<1, 1>;
  using CudaTile = TileShape<1, 1>;
  template <int Height, int Width>
  struct Scratch {
    float y[group], x[group], normal_y[group], normal_x[group], radius[group], arc_length[group];
    float from[group][group], to[group][group], overlap[group][group];
    float meets[group], extent;
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int first = plan.group_first[block.y0], points = plan.group_end[block.y0] - first, segment = plan.segment[first];
    block.for_each_pixel(1, group, [&](int, int l) {
      const int i = first + (l < points ? l : points - 1);
      const CrossSection line = lines[i];
      scratch.y[l] = line.y;
      scratch.x[l] = line.x;
      scratch.normal_y[l] = line.normal_y;
      scratch.normal_x[l] = line.normal_x;
      scratch.radius[l] = limited(plan.radius[i], 0.8f, 60.0f);
      scratch.arc_length[l] = plan.arc_length[i];
      scratch.meets[l] = 0;
    });
    block.for_each_pixel(group, group, [&](int j, int l) {
      scratch.from[j][l] = -far_off;
      scratch.to[j][l] = far_off;
      scratch.overlap[j][l] = 0;
    });
    const float y = scratch.y[group / 2], x = scratch.x[group / 2];
    block.once([&] {
      float extent = 0;
      for (int l = 0; l < group; ++l) extent = larger(extent, square(scratch.y[l] - y) + square(scratch.x[l] - x));
      scratch.extent = sqrtf(extent);
    });
    const float extent = scratch.extent;
    for (int i = plan.seen_first[block.y0]; i < plan.seen_first[block.y0 + 1]; ++i) {
      const int b = plan.seen_block[i], middle = b * group + group / 2;
      const float reach = plan.seen_reach[i] + extent + work.block_extent[b];
      if (square(work.block_y[middle] - y) + square(work.block_x[middle] - x) > reach * reach) continue;
      look_at(block, scratch, b, segment);
    }
    for (int i = plan.group_ends_first[block.y0]; i < plan.group_ends_first[block.y0 + 1]; ++i) {
      const float radius = work.junction_radius[plan.group_ends[i]];
      if (!(radius > 0)) continue;
      const CrossSection& end = lines[plan.end_point[plan.group_ends[i]]];
      block.for_each_pixel(1, group, [&](int, int l) {
        const bool met = square(end.y - scratch.y[l]) + square(end.x - scratch.x[l]) < square(radius + 0.5f * scratch.radius[l] + 2);
        scratch.meets[l] = met ? 1.0f : scratch.meets[l];
      });
    }
    block.for_each_pixel(1, group, [&](int, int l) {
      for (int j = 0; j < group; ++j) {
        scratch.meets[l] = larger(scratch.meets[l], scratch.overlap[j][l]);
        scratch.from[0][l] = larger(scratch.from[0][l], scratch.from[j][l]);
        scratch.to[0][l] = smaller(scratch.to[0][l], scratch.to[j][l]);
      }
    });
    block.for_each_pixel(1, points, [&](int, int l) {
      LumenFitPoint point;
      point.y = scratch.y[l];
      point.x = scratch.x[l];
      point.normal_y = scratch.normal_y[l];
      point.normal_x = scratch.normal_x[l];
      point.radius_px = scratch.radius[l];
      point.psf_px = options.psf_px;
      point.psf_sd_px = options.psf_sd_px;
      point.from_px = scratch.from[0][l];
      point.to_px = scratch.to[0][l];
      work.points[first + l] = point;
      work.overlap[first + l] = plan.inferred[first + l] || scratch.meets[l] > 0 ? 1 : 0;
    });
  }

  // What of the other lumens lies within the profile's width.
  template <class Block, class Store>
  CINELUMEN_HOST_DEVICE void look_at(const Block& block, Store& scratch, int b, int segment) const {
    const float s = options.effective_psf_px;
    // The same centreline only where it comes back.
    const float least_arc = plan.segment[plan.block_point[b * group]] == segment ? 3.0f : 0.0f;
    block.for_each_pixel(group, group, [&](int j, int l) CINELUMEN_INLINE {
      const int q = b * group + j;
      const float other_radius = plan.block_radius[q] + 2 * s, arc = fabsf(plan.block_arc_length[q] - scratch.arc_length[l]);
      const float dy = work.block_y[q] - scratch.y[l], dx = work.block_x[q] - scratch.x[l];
      const float normal_y = scratch.normal_y[l], normal_x = scratch.normal_x[l];
      const float across = dy * normal_y + dx * normal_x, along = fabsf(dx * normal_y - dy * normal_x), sideways = fabsf(across);
      const float beside = along > half_gap_px ? along - half_gap_px : 0.0f, chord = other_radius * other_radius - beside * beside;
      const float free = sideways - sqrtf(chord > 0 ? chord : 0.0f), room = scratch.radius[l] + 2.5f * s;
      const bool counts = (chord > 0) & (arc >= least_arc * (sideways + along + 4));
      const float met = scratch.overlap[j][l], low = scratch.from[j][l], high = scratch.to[j][l];
      const float above = counts & (free >= room) & (across > 0) ? free : far_off;
      const float below = counts & (free >= room) & (across <= 0) ? -free : -far_off;
      scratch.overlap[j][l] = counts & (free < room) ? 1.0f : met;
      scratch.to[j][l] = above < high ? above : high;
      scratch.from[j][l] = below > low ? below : low;
    });
  }
};

// Puts numbers in a row where flag(i).
struct ListedFlags {
  template <class Block, class Flag>
  CINELUMEN_HOST_DEVICE static void list(const Block& block, ListScratch& scratch, const LumenWorkspace& work, Flag flag) {
    const int total = enumerate(block, scratch, work.overlap.size, flag, [&](int i, int rank, bool flagged) {
      if (flagged) work.list[rank] = i;
    });
    block.once([&] { work.count[0] = total; });
  }
};

CINELUMEN_HOST_DEVICE inline bool is_searched(const LumenPlan& plan, const LumenWorkspace& work, int i) {
  if (work.overlap[i]) return false;
  const int place = i - plan.first[plan.segment[i]];
  return place % search_every == 0 || work.overlap[i - 1];
}

struct ListSearched {
  LumenPlan plan;
  LumenWorkspace work;
  bool all;

  using CpuTile = TileShape<1, 1>;
  using CudaTile = TileShape<1, 1>;
  template <int Height, int Width>
  struct Scratch {
    ListScratch list;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    ListedFlags::list(block, scratch.list, work, [&](int i) { return all ? !work.overlap[i] : is_searched(plan, work, i); });
  }
};

// Bits of a set: <bit> has them for the host only.
CINELUMEN_HOST_DEVICE inline int lowest_of(unsigned set) {
#ifdef __CUDA_ARCH__
  return __ffs(static_cast<int>(set)) - 1;
#else
  return std::countr_zero(set);
#endif
}
CINELUMEN_HOST_DEVICE inline int number_of(unsigned set) {
#ifdef __CUDA_ARCH__
  return __popc(set);
#else
  return std::popcount(set);
#endif
}
CINELUMEN_HOST_DEVICE inline unsigned without_lowest(unsigned set) { return set & (set - 1); }

// The middle of get(j) over the bits of `set`, the mean of two.
template <class Get>
CINELUMEN_HOST_DEVICE inline float middle_of_set(unsigned set, Get get) {
  const int count = number_of(set), lower = (count - 1) / 2, upper = count / 2;
  if (count == 3 || count == 4) {  // the usual cases
    const unsigned after_first = without_lowest(set), after_second = without_lowest(after_first);
    const float a = get(lowest_of(set)), b = get(lowest_of(after_first)), c = get(lowest_of(after_second));
    const float low = smaller(a, b), high = larger(a, b);
    if (count == 3) return larger(low, smaller(high, c));
    const float d = get(lowest_of(without_lowest(after_second)));
    return 0.5f * (larger(low, smaller(c, d)) + smaller(high, larger(c, d)));
  }
  float low = 0, high = 0;
  for (unsigned i = set; i != 0; i = without_lowest(i)) {
    const float here = get(lowest_of(i));
    int below = 0, not_above = 0;
    for (unsigned j = set; j != 0; j = without_lowest(j)) {
      const float other = get(lowest_of(j));
      below += other < here ? 1 : 0;
      not_above += other <= here ? 1 : 0;
    }
    low = below <= lower && lower < not_above ? here : low;
    high = below <= upper && upper < not_above ? here : high;
  }
  return 0.5f * (low + high);
}

struct ChooseStarts {
  LumenPlan plan;
  LumenPointOptions options;
  LumenWorkspace work;

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    LumenFit fit;
    int pass = 0;
    if (!work.overlap[i]) {
      const int segment = plan.segment[i], start = i - search_reach, low = plan.first[segment], high = plan.first[segment + 1];
      unsigned set = 0;
      for (int j = 0; j <= 2 * search_reach; ++j)
        if (start + j >= low && start + j < high && is_searched(plan, work, start + j)) set |= 1u << j;
      const LumenFit* const found = work.found.data + start;
      LumenFitPoint& point = work.points[i];
      point.radius_px = middle_of_set(set, [&](int j) { return 0.5f * found[j].diameter_px; });
      point.centre_px = middle_of_set(set, [&](int j) { return found[j].centre_px; });
      fit.significance = middle_of_set(set, [&](int j) { return found[j].significance; });
      fit.contrast = middle_of_set(set, [&](int j) { return found[j].contrast; });
      // Nothing is fitted where there is plainly nothing.
      const float narrow_below = options.free_kappa_ratio * options.effective_psf_px;
      if (fit.significance >= least_significance) pass = point.radius_px < narrow_below ? 2 : 1;
      work.width_class[i] = width_class(point.radius_px);
      point.first_radius_px = first_radius(point.radius_px);
    }
    work.fits[i] = fit;
    work.pass[i] = pass;
  }

  // The half maximum of a wide vessel lies too far inside: blur wears its edges down more than its peak, which noise raises. What the fits
  // of phantoms found beyond their starts, within 0.1 px from 2.5 to 12 px.
  CINELUMEN_HOST_DEVICE float first_radius(float radius) const {
    const float s = options.effective_psf_px, over = 3.5f * s / larger(radius, 3 * s);
    return radius + 0.4f * s * (1 - square(over));
  }

  // Profiles are fitted in groups, which take as long as their widest, and longer where its model is another: that from 6 point spreads on.
  CINELUMEN_HOST_DEVICE int width_class(float radius) const {
    return clamp_int(static_cast<int>(2 * radius), 0, 123) + (radius > 6 * options.effective_psf_px ? 124 : 0);
  }
};

struct ListPass {
  LumenWorkspace work;
  int pass;

  static constexpr int classes = 248;
  using CpuTile = TileShape<1, 1>;
  using CudaTile = TileShape<1, 1>;
  template <int Height, int Width>
  struct Scratch {
    ListScratch list;
    int end[classes + 1];
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
#ifdef __CUDA_ARCH__
    ListedFlags::list(block, scratch.list, work, [&](int i) { return work.pass[i] == pass; });
#else
    constexpr int stretch = 1024;  // neighbours share pixels that are in the cache: sorted in stretches only
    const int points = work.pass.size;
    int total = 0;
    for (int start = 0; start < points; start += stretch) {
      const int last = start + stretch < points ? start + stretch : points;
      for (int& end : scratch.end) end = 0;
      for (int i = start; i < last; ++i)
        if (work.pass[i] == pass) ++scratch.end[work.width_class[i] + 1];
      for (int c = 0; c < classes; ++c) scratch.end[c + 1] += scratch.end[c];
      for (int i = start; i < last; ++i)
        if (work.pass[i] == pass) work.list[total + scratch.end[work.width_class[i]]++] = i;
      total += scratch.end[classes];
    }
    work.count[0] = total;
    (void)block;
#endif
  }
};

// Rms of what the model leaves beyond the noise, over the contrast.
CINELUMEN_HOST_DEVICE inline float misfit(const LumenFit& fit, const LumenPointOptions& options) {
  return options.noise_sd * sqrtf(larger(fit.chi2_per_dof - 1.5f, 0.0f)) / larger(fit.contrast, 1e-6f);
}

CINELUMEN_HOST_DEVICE inline bool sound(const LumenFit& fit, const LumenPointOptions& options) {
  return fit.converged && !fit.at_bound && fit.lost < 0.05f && fit.contrast > options.minimum_contrast_ratio * fit.contrast_sd &&
         fit.sd_px < options.maximum_relative_sd * fit.diameter_px && misfit(fit, options) < options.maximum_misfit &&
         fabsf(fit.centre_px) < 0.5f * fit.diameter_px + 1;
}

// By the start, not by what the fit found: of points about that size it would take those that came out too wide, with too low a kappa.
CINELUMEN_HOST_DEVICE inline bool fitted_wide(const LumenFit& fit, int pass) {
  return pass == 1 && fit.samples > 0 && fit.converged && !fit.at_bound;
}

struct GatherKappa {
  LumenPointOptions options;
  LumenWorkspace work;
  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const bool tells = fitted_wide(work.fits[i], work.pass[i]) && sound(work.fits[i], options);
    work.kappa[i] = tells ? work.fits[i].kappa : -1.0f;
    work.kappa_sd[i] = tells ? work.fits[i].kappa_sd : -1.0f;
  }
};

// Kappa of wide points, pooled. Its SD is how far kappa strays from point to point (mixing), not how well its mean is known: a narrow
// point may stray as far.
template <class Block>
CINELUMEN_HOST_DEVICE PooledKappa pool(const Block& block, KthScratch& lanes, ArrayView<const float> kappa, ArrayView<const float> sds,
                                       float least_relative) {
  const int count = static_cast<int>(block
                                         .template sum_pixels<7>(1, kappa.size, lanes,
                                                                 [&](int, int i) {
                                                                   Sums<7> one{};
                                                                   one.value[0] = kappa[i] >= 0 ? 1.0f : 0.0f;
                                                                   return one;
                                                                 })
                                         .value[0]);
  if (count < least_wide) return {};
  const float centre = median(block, lanes, kappa.size, count, [&](int i) { return kappa[i]; });
  if (!(centre > 0)) return {};
  const float spread =
      robust * median(block, lanes, kappa.size, count, [&](int i) { return kappa[i] >= 0 ? fabsf(kappa[i] - centre) : -1.0f; });
  const float measured = median(block, lanes, kappa.size, count, [&](int i) { return sds[i]; });
  const float strays2 = larger(spread * spread - measured * measured, 0.0f);
  const float least = larger(measured / sqrtf(static_cast<float>(count) / 3.0f), least_relative * centre);
  return {centre, sqrtf(strays2 + least * least)};
}

// A tile per centreline; `of_frame`: one for all of them.
struct PoolKappa {
  LumenPlan plan;
  LumenWorkspace work;
  bool of_frame;

  using CpuTile = TileShape<1, 1>;
  using CudaTile = TileShape<1, 1>;
  template <int Height, int Width>
  struct Scratch {
    KthScratch lanes;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int from = of_frame ? 0 : plan.first[block.y0], to = of_frame ? work.kappa.size : plan.first[block.y0 + 1];
    const ArrayView<const float> kappa{work.kappa.data + from, to - from}, sds{work.kappa_sd.data + from, to - from};
    const float least = of_frame ? between(block, scratch.lanes) : least_relative_sd;
    const PooledKappa pooled = pool(block, scratch.lanes, kappa, sds, least);
    block.once([&] { work.pooled[of_frame ? work.pooled.size - 1 : block.y0] = pooled; });
  }

  // Centrelines fill differently: how differently shows where three or more are wide, and is guessed with fewer.
  template <class Block>
  CINELUMEN_HOST_DEVICE float between(const Block& block, KthScratch& lanes) const {
    const int lines = work.pooled.size - 1;
    const auto value = [&](int s) { return work.pooled[s].sd > 0 ? work.pooled[s].value : -1.0f; };
    const int count = static_cast<int>(block
                                           .template sum_pixels<7>(1, lines, lanes,
                                                                   [&](int, int s) {
                                                                     Sums<7> one{};
                                                                     one.value[0] = value(s) >= 0 ? 1.0f : 0.0f;
                                                                     return one;
                                                                   })
                                           .value[0]);
    if (count < 3) return between_segments;
    const float centre = median(block, lanes, lines, count, value);
    const float spread =
        robust * median(block, lanes, lines, count, [&](int s) { return value(s) >= 0 ? fabsf(value(s) - centre) : -1.0f; });
    return larger(0.05f, 1.5f * spread / centre);
  }
};

struct PrepareSecondPass {
  LumenPlan plan;
  LumenWorkspace work;

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const PooledKappa own = work.pooled[plan.segment[i]], prior = own.sd > 0 ? own : work.pooled[work.pooled.size - 1];
    const LumenFit& fit = work.fits[i];
    const bool only_looked_wide = work.pass[i] == 1 && !fitted_wide(fit, 1) && prior.sd > 0;
    if (work.pass[i] != 2 && !only_looked_wide) return;
    work.pass[i] = 2;
    LumenFitPoint& point = work.points[i];
    point.kappa = prior.value;
    point.kappa_sd = prior.sd;
  }
};

struct JudgePoints {
  LumenPlan plan;
  LumenPointOptions options;
  LumenWorkspace work;
  ArrayView<MeasuredLumen> measured;

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const LumenFit fit = work.fits[i];
    const LumenFitPoint& at = work.points[i];
    const float factor = options.sd_inflation * noise_factor(0.5f * fit.diameter_px);
    const float of_noise2 = larger(square(fit.sd_px) - square(fit.prior_sd_px), 0.0f);
    LumenFit judged = fit;
    judged.sd_px *= factor;
    judged.contrast_sd *= factor;
    MeasuredLumen result;
    result.verdict = judge(judged, i);
    const float move = result.verdict == LumenVerdict::used ? fit.centre_px : 0.0f;
    result.y = at.y + move * at.normal_y;
    result.x = at.x + move * at.normal_x;
    result.normal_y = at.normal_y;
    result.normal_x = at.normal_x;
    result.diameter_px = fit.samples > 0 ? fit.diameter_px : 0.0f;
    result.sd_px = judged.sd_px;
    result.common_sd_px = sqrtf(square(options.sd_inflation * fit.prior_sd_px) + options.common_noise_share * square(factor) * of_noise2);
    result.contrast = fit.contrast;
    result.contrast_sd = judged.contrast_sd;
    result.background = fit.background;
    result.kappa = fit.kappa;
    result.kappa_sd = factor * fit.kappa_sd;
    result.chi2_per_dof = fit.chi2_per_dof;
    measured[i] = result;
  }

  // By radius, which it goes with slowly: linear in its logarithm.
  CINELUMEN_HOST_DEVICE float noise_factor(float radius_px) const {
    constexpr float steps_per_log = 2.12764f;  // 1 / log(1.6)
    const float position = limited(fast_log(larger(radius_px, 1.0f)) * steps_per_log, 0.0f, 6.999f);
    const int k = static_cast<int>(position);
    return options.noise_factor[k] + (position - static_cast<float>(k)) * (options.noise_factor[k + 1] - options.noise_factor[k]);
  }

  CINELUMEN_HOST_DEVICE LumenVerdict judge(const LumenFit& fit, int i) const {
    if (fit.lost >= 0.05f) return LumenVerdict::edge;
    if (plan.inferred[i]) return LumenVerdict::inferred;
    if (work.overlap[i]) return LumenVerdict::overlap;
    if (fit.samples == 0 || !(fit.contrast > options.minimum_contrast_ratio * fit.contrast_sd)) return LumenVerdict::unfilled;
    if (sound(fit, options)) return LumenVerdict::used;
    return fit.converged && !fit.at_bound && fit.sd_px >= options.maximum_relative_sd * fit.diameter_px ? LumenVerdict::low_contrast
                                                                                                        : LumenVerdict::no_fit;
  }
};

struct SampleContrast {
  ImageView<const float> image;
  ImageView<const std::uint8_t> valid;
  ArrayView<const CrossSection> lines;
  ArrayView<const float> radius;
  bool local_background;
  ArrayView<float> contrast;

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const CrossSection line = lines[i];
    const auto across = [&](float distance) { return sample(line.y + distance * line.normal_y, line.x + distance * line.normal_x); };
    float value = (across(-0.7f) + across(0) + across(0.7f)) / 3;
    if (local_background) {
      const float beside = 2 * radius[i] + 3;
      value -= (across(-beside) + across(-beside - 1) + across(beside) + across(beside + 1)) / 4;
    }
    contrast[i] = value;
  }

  // Bilinear; NaN outside the image or the field.
  CINELUMEN_HOST_DEVICE float sample(float y, float x) const {
    if (!(y >= 0 && x >= 0 && y <= static_cast<float>(image.height - 1) && x <= static_cast<float>(image.width - 1))) return nanf("");
    const int y0 = clamp_int(static_cast<int>(y), 0, image.height > 1 ? image.height - 2 : 0),
              x0 = clamp_int(static_cast<int>(x), 0, image.width > 1 ? image.width - 2 : 0);
    const int y1 = y0 + 1 < image.height ? y0 + 1 : y0, x1 = x0 + 1 < image.width ? x0 + 1 : x0;
    if (!valid(y0, x0) || !valid(y1, x1)) return nanf("");
    const float fy = y - static_cast<float>(y0), fx = x - static_cast<float>(x0);
    return (1 - fy) * ((1 - fx) * image(y0, x0) + fx * image(y0, x1)) + fy * ((1 - fx) * image(y1, x0) + fx * image(y1, x1));
  }
};

void check(const char* what, const LumenPlan& plan, const LumenWorkspace& work) {
  const int points = plan.segment.size;
  require(plan.first.size > 0 && work.points.size == points && work.overlap.size == points && work.fits.size == points &&
              work.list.size == points && work.pooled.size == plan.first.size,
          what);
}

}  // namespace

void look_around(const Stream& stream, const LumenPlan& plan, const LumenPointOptions& options, ArrayView<const CrossSection> lines,
                 const LumenWorkspace& work) {
  check("look_around: the workspace is for another plan", plan, work);
  require(lines.size == plan.segment.size, "look_around: lines must have one element per point");
  for_each_item(stream, work.block_extent.size, PlaceBlocks{plan, lines, work}, 64);
  for_each_item(stream, plan.end_point.size, FindJunctions{plan, lines, work}, 16);
  for_each_tile(stream, plan.group_first.size, 1, LookAround{plan, options, lines, work});
}

void list_searched(const Stream& stream, const LumenPlan& plan, const LumenWorkspace& work) {
  check("list_searched: the workspace is for another plan", plan, work);
  for_each_tile(stream, 1, 1, ListSearched{plan, work, false});
}

void list_all(const Stream& stream, const LumenPlan& plan, const LumenWorkspace& work) {
  check("list_all: the workspace is for another plan", plan, work);
  for_each_tile(stream, 1, 1, ListSearched{plan, work, true});
}

void choose_starts(const Stream& stream, const LumenPlan& plan, const LumenPointOptions& options, const LumenWorkspace& work) {
  check("choose_starts: the workspace is for another plan", plan, work);
  for_each_item(stream, plan.segment.size, ChooseStarts{plan, options, work}, 256);
}

void list_pass(const Stream& stream, const LumenPlan& plan, int pass, const LumenWorkspace& work) {
  check("list_pass: the workspace is for another plan", plan, work);
  require(pass == 1 || pass == 2, "list_pass: pass must be 1 or 2");
  for_each_tile(stream, 1, 1, ListPass{work, pass});
}

void prepare_second_pass(const Stream& stream, const LumenPlan& plan, const LumenPointOptions& options, const LumenWorkspace& work) {
  check("prepare_second_pass: the workspace is for another plan", plan, work);
  for_each_item(stream, plan.segment.size, GatherKappa{options, work}, 1024);
  for_each_tile(stream, plan.first.size - 1, 1, PoolKappa{plan, work, false});
  for_each_tile(stream, 1, 1, PoolKappa{plan, work, true});
  for_each_item(stream, plan.segment.size, PrepareSecondPass{plan, work}, 1024);
}

void judge_points(const Stream& stream, const LumenPlan& plan, const LumenPointOptions& options, const LumenWorkspace& work,
                  ArrayView<MeasuredLumen> measured) {
  check("judge_points: the workspace is for another plan", plan, work);
  require(measured.size == plan.segment.size, "judge_points: measured must have one element per point");
  for_each_item(stream, measured.size, JudgePoints{plan, options, work, measured}, 256);
}

bool is_sound(const LumenFit& fit, const LumenPointOptions& options) { return sound(fit, options); }

void sample_contrast(const Stream& stream, ImageView<const float> image, ImageView<const std::uint8_t> valid,
                     ArrayView<const CrossSection> lines, ArrayView<const float> radius, bool local_background, ArrayView<float> contrast) {
  require(same_size(image, valid), "sample_contrast: image and valid differ in size");
  require(radius.size == lines.size && contrast.size == lines.size, "sample_contrast: lines, radius and contrast differ in size");
  for_each_item(stream, lines.size, SampleContrast{image, valid, lines, radius, local_background, contrast}, 256);
}

}  // namespace cinelumen
