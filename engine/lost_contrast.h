#pragma once
/// Vessels of the reference in which another run shows nothing: shut, not filled, or only too thin to be traced?

#include <string>
#include <vector>

#include "engine/calibre_alignment.h"
#include "engine/calibre_change.h"
#include "engine/run_registration.h"
#include "engine/vessel_matching.h"

namespace cinelumen {

/// When contrast is missed. Our own choice, not clinically validated.
struct LostContrastOptions {
  double least_mm = 5;         ///< length without contrast that counts
  double measurable_mm = 0.4;  ///< a lumen below this is bounded, not measured
  double arrival_sds = 3,
         arrival_relative_sd = 0.3;  ///< contrast is missed so many SDs after it should have come; SD: of the way from the inlet
  double least_calibre_mm = 1.5;     ///< of the reference: in thinner veins contrast may stand still without their being shut
  double window_mm = 3;              ///< contrast is averaged along the vessel over this
  double place_sd_px = 2;            ///< how far the vessel may lie from where registration puts it
  double seen_sds = 4;               ///< contrast above so many of its SDs is seen
  double thread_share = 0.7;         ///< of the reference's calibre: an untraced lumen below it is a thread, above it only was not traced
  double least_share = 0.15;         ///< of the reference's calibre: less contrast than this has is not told from what the background leaves
  double thread_sd = 0.2;            ///< SD of ln of the calibre of a thread, by its contrast ...
  double unseen_sd = 0.5;            ///< ... and of one that is not seen at all: half of what would be seen is taken
  double traced_thread_share = 0.6;  ///< likewise where a vessel was traced and its calibre not measured, or not believed to be filled:
                                     ///< what is diluted or layered hides less, or does not come back
  double hidden_mm = 6;          ///< near a branching the wider vessel hides what begins there
  double shoulder_mm = 4;        ///< a lumen that becomes a thread narrows first, and this near to it that is measured ...
  double shoulder_share = 0.8;   ///< ... as a calibre below this share of the reference's; contrast that thins out keeps its width ...
  double layered_density = 0.08; ///< ... unless it is layered: so much more contrast than a round lumen of that width holds
};

/// What became of one of the reference's segments where no vessel was found.
struct LostContrast {
  double in_view_share = 1;  ///< of its points
  double empty_share = 0;    ///< of its points in view: no vessel and no contrast
  bool occluded =
      false;  ///< empty from `from_mm` to `to_mm` along it, with contrast at both ends, and long enough after it should have come
  double from_mm = 0, to_mm = 0;
  double bound = 0;      ///< share of the reference's calibre below which a lumen there would not be seen
  bool bounded = false;  ///< some of `threads` are upper bounds
  std::vector<LogRatio>
      threads;       ///< ln of calibre over reference where contrast shows a thin lumen that was not measured, between filled ones
  std::string note;  ///< in words, where something is missing
};

/// One per reference segment, as are `matching`'s and `aligned`. Reads the run's maximum_opacification along the reference's vessels where
/// the run has none of its own.
std::vector<LostContrast> find_lost_contrast(const Analysis& reference, const ReferenceCalibre& calibre, const Analysis& run,
                                             ImageView<const std::uint8_t> valid, const RunRegistration& registration,
                                             const VesselMatching& matching, const std::vector<AlignedSegment>& aligned,
                                             const LostContrastOptions& options = {});

}  // namespace cinelumen
