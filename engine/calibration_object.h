#pragma once
/// An object of known size in the picture, measured to give the scale: a catheter or sheath by its outer diameter, a device by the
/// distance of its markers (methods.md 5).

#include <array>
#include <optional>
#include <string>

#include "engine/calibration.h"
#include "kernels/image.h"

namespace cinelumen {

/// What the user says lies in the picture. Positions (y, x) in px of the mask, 0-based; a few px of a click's error are allowed for.
struct CalibrationObject {
  /// Outer diameter of a catheter or sheath, smallest_catheter_mm to largest_catheter_mm. The French size of a CATHETER is this (1 F is a
  /// third of a millimetre); that of an INTRODUCER is its lumen: a 5F introducer is 2.2 to 2.3 mm outside, a 5F catheter 1.67 mm.
  std::optional<double> catheter_od_mm;
  std::optional<std::array<double, 2>> catheter_at_px;  ///< on it; empty: looked for where it enters the field
  std::optional<double> marker_length_mm;               ///< between two markers of a device, in space
  std::optional<std::array<std::array<double, 2>, 2>> markers_at_px;
  bool given() const { return catheter_od_mm || marker_length_mm; }
};

inline constexpr double smallest_catheter_mm = 0.5, largest_catheter_mm = 4;  ///< 1.5 F to 12 F; beyond, it was given in French

/// Throws std::invalid_argument, naming the argument, its value and what was expected, where the figures can't be those of such an object.
void check(const CalibrationObject& object);

/// A tube in the picture.
struct TubeMeasurement {
  double outer_diameter_px = 0;
  double sd_px = 0;                          ///< from the spread along it and the model's free parameters
  double length_px = 0;                      ///< over which it was measured
  double inner_share = 0;                    ///< inner over outer diameter of the wall that fits best; 0: solid
  double psf_px = 0;                         ///< Gaussian SD of the point spread that fits best, with the pixel
  int profiles = 0;                          ///< independent stretches
  std::array<double, 2> from_px{}, to_px{};  ///< its ends (y, x)
};

/// Fits a blurred, hollow or solid tube to the attenuation around (y, x): straight edges are looked for there, followed both ways as long
/// as they are the same tube, and fitted together (wall, point spread) and apart (diameter). The blur is taken in transmitted intensity,
/// where it happens. attenuation: raw, of a contrast-free frame or mask, devices bright; valid: same size, or without data; both host
/// memory. expected_px: what its diameter may be. Empty where no tube stands out there; `why` then says what was found.
std::optional<TubeMeasurement> measure_tube(ImageView<const float> attenuation, ImageView<const std::uint8_t> valid,
                                            std::array<double, 2> at_px, std::array<double, 2> expected_px, std::string& why);

/// A marker's centre.
struct MarkerMeasurement {
  double y = 0, x = 0, sd_px = 0;  ///< SD per coordinate
};

/// The centre of the blob of attenuation nearest to (y, x), to a part of a pixel. Empty where nothing stands out within search_px.
std::optional<MarkerMeasurement> measure_marker(ImageView<const float> attenuation, ImageView<const std::uint8_t> valid,
                                                std::array<double, 2> at_px, double search_px = 6);

/// The scale that the object gives, with its SD and a note. attenuation, valid: see measure_tube. by_header: the scale of the file, to
/// narrow the search where it is known, and to be compared with. file: what errors begin with. Throws InputError, naming the argument, its
/// value and what was expected, where the object can't be measured: the user asked for it.
Calibration calibrate_by(const CalibrationObject& object, ImageView<const float> attenuation, ImageView<const std::uint8_t> valid,
                         const Calibration& by_header, const std::string& file);

}  // namespace cinelumen
