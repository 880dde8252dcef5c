#pragma once
/// How contrast fills a section of a vessel whose blood it does not replace all at once.

#include <cstdint>

namespace cinelumen::phantom {

/// Why a section is filled as it is.
enum class Mechanism : std::uint8_t {
  full,                ///< mixed over the section
  core_front,          ///< laminar: contrast advances in the middle first
  layering,            ///< contrast is heavier than blood and sinks
  dilution,            ///< blood without contrast has joined, and is mixed in
  streaming,           ///< the same, not yet mixed: both run side by side
  incomplete_arrival,  ///< so slow that the front is still under way when the run ends
};

/// The field's word for it, as in truth.json: "core front".
const char* name_of(Mechanism mechanism);

/// One vessel's filling.
struct FillingPlan {
  Mechanism mechanism = Mechanism::full;
  double share = 1;      ///< of the section (layering: at the far end, late) or of the flow (dilution, streaming) that carries contrast
  double start_mm = 0;   ///< where blood joins, or where contrast begins to sink
  double length_mm = 1;  ///< over which streams mix (to 1 / e) or contrast sinks
  double angle_rad = 0;  ///< of the line between both parts: 0 along the ray (an asymmetric profile), pi / 2 across it
};

/// A section at one moment. Half widths are scaled to 1: the filled part is the disc of radius `core`, cut where
/// cos(angle) u + sin(angle) w reaches `level` (u across the ray, w along it).
struct SectionFill {
  float core = 1, level = 1;
  float filled = 1, rest = 0;  ///< concentration in both parts, relative to the vessel's
  float angle_rad = 0;
};

/// `since_ms`: after contrast has entered the vessel; `velocity_mm_s`: mean over the section. Core front: D_core^2 = D^2 (1 - t0 / t) with
/// t0 = arc / (2 velocity), Poiseuille's profile without diffusion. Streams keep the contrast that they carry while they mix.
SectionFill section_fill(const FillingPlan& plan, double arc_mm, double since_ms, double velocity_mm_s);

/// Part of the section's area inside the core and below the level.
double filled_share(const SectionFill& fill);

}  // namespace cinelumen::phantom
