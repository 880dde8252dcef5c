#pragma once
/// What goes on between the profile fits of a frame: which other vessels a profile sees, where a fit is worth while and where it starts,
/// what the wide vessels say of the contrast medium, and what of the fits can be used (methods.md 5). Points of all centrelines stand in
/// one row, in order. All memory is the stream's; nothing here waits, allocates or decides on the host.

#include <cstdint>

#include "image.h"
#include "lumen_fit.h"
#include "ridge_points.h"
#include "stream.h"

namespace cinelumen {

inline constexpr int points_per_group = 16;  // of one centreline, with one set of neighbours

/// What stays the same of all points while they move, and who may come near whom. Every second point stands for its neighbours where
/// other vessels look at it; these come in blocks of points_per_group, each of one centreline.
struct LumenPlan {
  ArrayView<const std::int32_t> first;              ///< of each centreline, and the end
  ArrayView<const std::int32_t> segment, inferred;  ///< of each point
  ArrayView<const float> radius, arc_length;        ///< of each point, px
  ArrayView<const std::int32_t> group_first, group_end;
  ArrayView<const std::int32_t> seen_first;  ///< of each group, and the end: into seen_block and seen_reach
  ArrayView<const std::int32_t> seen_block;
  ArrayView<const float> seen_reach;                             ///< further apart than this they have nothing to do with one another
  ArrayView<const std::int32_t> block_point;                     ///< points_per_group points of each block
  ArrayView<const float> block_radius, block_arc_length;         ///< and theirs
  ArrayView<const std::int32_t> end_point;                       ///< first and last point of each centreline
  ArrayView<const std::int32_t> end_seen_first, end_seen_block;  ///< of other centrelines
  ArrayView<const std::int32_t> group_ends_first, group_ends;    ///< ends that may become junctions near a group
};

/// How points are fitted and judged; see LumenOptions of the engine.
struct LumenPointOptions {
  float psf_px = 0.7f, psf_sd_px = 0.15f;
  float effective_psf_px = 0.76f;  ///< with the pixel
  float noise_sd = 0.01f, sd_inflation = 1, common_noise_share = 0;
  float free_kappa_ratio = 4.8f, minimum_contrast_ratio = 4, maximum_relative_sd = 0.3f, maximum_misfit = 0.25f;
  float noise_factor[8] = {1, 1, 1, 1, 1, 1, 1, 1};  ///< on SDs for correlated noise, at radii of 1, 1.6, 1.6^2 ... px
};

/// Why a point is not used.
enum class LumenVerdict : std::int32_t { used, unfilled, overlap, edge, low_contrast, no_fit, inferred };

/// Attenuation per px of lumen, pooled; sd 0: not known.
struct PooledKappa {
  float value = 0, sd = 0;
};

/// What was found at a point.
struct MeasuredLumen {
  float y = 0, x = 0, normal_y = 0, normal_x = 0;  ///< moved onto the fit's centre where it is used
  float diameter_px = 0, sd_px = 0, common_sd_px = 0;
  float contrast = 0, contrast_sd = 0, background = 0, kappa = 0, kappa_sd = 0, chi2_per_dof = 0;
  LumenVerdict verdict = LumenVerdict::no_fit;
};

/// Memory that the functions below share, one element per point where nothing else is said.
struct LumenWorkspace {
  ArrayView<float> block_y, block_x;  ///< points_per_group per block
  ArrayView<float> block_extent;      ///< per block: around its middle point
  ArrayView<float> junction_radius;   ///< per end, 0: no junction
  ArrayView<LumenFitPoint> points;
  ArrayView<std::int32_t> overlap, pass, width_class, list;  ///< pass: which fit a point takes part in, 0: none
  ArrayView<std::int32_t> count;                             ///< 1
  ArrayView<LumenFit> found, fits;
  ArrayView<float> kappa, kappa_sd;  ///< negative: not one of those that tell
  ArrayView<PooledKappa> pooled;     ///< per centreline, then of the frame
};

/// Fills points and overlap: each profile's window ends short of other lumens; where one comes too near for any background between the
/// two, where vessels meet and where the centreline is inferred, the point is an overlap. lines: where the points lie.
void look_around(const Stream& stream, const LumenPlan& plan, const LumenPointOptions& options, ArrayView<const CrossSection> lines,
                 const LumenWorkspace& work);

/// Lists the points that are no overlap: every third, and where a stretch begins; or all of them.
void list_searched(const Stream& stream, const LumenPlan& plan, const LumenWorkspace& work);
void list_all(const Stream& stream, const LumenPlan& plan, const LumenWorkspace& work);

/// From the searches in `found`: where each point's fit starts (the middle of what was found near it along the centreline: a single search
/// may have found anything). Sets pass: 1 for what looks wide, 2 for the rest of what there is anything to fit at, 0; and fits.
void choose_starts(const Stream& stream, const LumenPlan& plan, const LumenPointOptions& options, const LumenWorkspace& work);

/// Lists the points of a pass. On the CPU, profiles of like width together: a group takes as long as its widest.
void list_pass(const Stream& stream, const LumenPlan& plan, int pass, const LumenWorkspace& work);

/// Pools kappa of the wide points by centreline and over the frame, and gives it to those of the second pass: the narrow points and what
/// only looked wide.
void prepare_second_pass(const Stream& stream, const LumenPlan& plan, const LumenPointOptions& options, const LumenWorkspace& work);

/// What became of each point.
void judge_points(const Stream& stream, const LumenPlan& plan, const LumenPointOptions& options, const LumenWorkspace& work,
                  ArrayView<MeasuredLumen> measured);

/// The same judgement for one fit.
bool is_sound(const LumenFit& fit, const LumenPointOptions& options);

/// Mean over three pixels across the line at each point, minus the background beside it where local_background; NaN outside the image or
/// where valid is 0. valid: same size as the image.
void sample_contrast(const Stream& stream, ImageView<const float> image, ImageView<const std::uint8_t> valid,
                     ArrayView<const CrossSection> lines, ArrayView<const float> radius, bool local_background, ArrayView<float> contrast);

}  // namespace cinelumen
