#pragma once
/// The same field of view of every run, laid on the reference, and how narrow the vessels are in it.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/comparison.h"
#include "io/pictures.h"

namespace cinelumen {

/// How much narrower a stretch of vessel is than in the reference, in the steps that are drawn.
enum class Narrowness {
  none,      ///< not more than ComparisonThresholds::narrowing_percent, or no change that stands out
  below,     ///< below spasm grade
  mild,      ///< from mild_percent
  severe,    ///< from severe_percent
  shut,      ///< no contrast where some is due
  unfilled,  ///< not filled: nothing can be said
  unjudged,  ///< not measured, or measured without a judgement
};

/// A run of points along the reference's centreline that are drawn alike.
struct NarrowStretch {
  std::size_t first = 0, last = 0;  ///< points, inclusive; the last is the first of the next stretch where one follows
  Narrowness narrowness = Narrowness::unjudged;
};

/// A whole segment in one run, from its first point to its last. Empty where it is out of view or the run is not comparable.
std::vector<NarrowStretch> narrow_stretches(const SegmentTimeline& segment, std::size_t run, bool comparable,
                                            const ComparisonThresholds& thresholds = {});

/// A part of the reference's picture, px.
struct ViewBox {
  int y = 0, x = 0, height = 0, width = 0;
};

/// What all pictures show: the reference's vessels and a margin, inside its picture; the whole picture where no vessel was found.
ViewBox vessels_box(const Analysis& reference);

/// A run's maximum opacification in the reference's coordinates: `box`, `scale` > 0 pixels per reference px, by bilinear interpolation at
/// RunRegistration::forward; NaN outside the run's field.
Image<float> registered_view(const ComparedRun& run, const RunRegistration& registration, const ViewBox& box, double scale);

/// Where the numbers of `segments` (indices) stand beside their places at_px, apart from each other and inside the box; reference px.
std::vector<SegmentLabel> place_numbers(const Comparison& comparison, const Analysis& reference, const std::vector<std::size_t>& segments,
                                        const ViewBox& box, double radius_px);

}  // namespace cinelumen
