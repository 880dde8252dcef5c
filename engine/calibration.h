#pragma once
/// Millimetres per pixel at the vessels, with its source and standard deviation (methods.md 5).

#include <optional>
#include <string>

#include "engine/run.h"

namespace cinelumen {

/// Where the scale comes from, in the order in which sources are preferred.
enum class CalibrationSource { user, ruler, catheter, device, geometry, none };

/// "user", "ruler", ... as written to analysis.json.
const char* to_string(CalibrationSource source);

/// The scale, its uncertainty and its source.
struct Calibration {
  CalibrationSource source = CalibrationSource::none;
  double mm_per_px = 1;    ///< at the vessels' plane; 1 where the source is none: lengths are then in px
  double relative_sd = 0;  ///< one SD of mm_per_px / mm_per_px
  std::string note;        ///< in words: which figures it was made of, and what it leaves out
  std::string warning{};   ///< what the user should look at; empty: nothing
  bool known() const { return source != CalibrationSource::none; }
};

/// Takes the first source that the user or the file gives, in the documented order: user, fiducial Pixel Spacing, geometry, none. Never
/// falls back silently. What is measured in the picture (catheter, device) goes before geometry: see calibrate_by. user_mm_per_px > 0,
/// user_relative_sd in [0, 1).
Calibration calibrate(const AcquisitionGeometry& geometry, std::optional<double> user_mm_per_px = {},
                      std::optional<double> user_relative_sd = {});

}  // namespace cinelumen
