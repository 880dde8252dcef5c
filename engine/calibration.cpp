#include "engine/calibration.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <stdexcept>

namespace cinelumen {
namespace {

// Relative SDs. A user and a ruler are as good as a few pixels over a catheter or a scale: 2 %. Geometry: the vessels lie off the plane the
// distances refer to by 15 mm or so at 750 mm from the source, 2 %, and the distances themselves are good to 2 %.
constexpr double user_sd = 0.02, ruler_sd = 0.02, geometry_sd = 0.03;

// What a spacing at the vessels can be: below, no detector resolves it; above, no angiogram shows a vessel.
constexpr double smallest_spacing_mm = 0.005, largest_spacing_mm = 5;
constexpr double largest_anisotropy = 0.01;

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

void add(std::string& note, const std::string& sentence) {
  if (!note.empty()) note += "; ";
  note += sentence;
}

// One figure of a (row, column) spacing, or nothing with the reason added to the note. Diameters are taken in all directions, so the
// geometric mean stands for a slightly anisotropic pair; half the difference is added to the SD.
struct Spacing {
  double mm = 0, extra_sd = 0;
};
std::optional<Spacing> usable(const std::array<double, 2>& spacing, const char* name, std::string& note) {
  for (const double value : spacing)
    if (!(value >= smallest_spacing_mm && value <= largest_spacing_mm)) {
      add(note, std::string(name) + " " + number(spacing[0]) + " x " + number(spacing[1]) + " mm is not a spacing (expected " +
                    number(smallest_spacing_mm) + " to " + number(largest_spacing_mm) + " mm): ignored");
      return {};
    }
  Spacing result{std::sqrt(spacing[0] * spacing[1]), 0};
  const double anisotropy = std::abs(std::log(spacing[0] / spacing[1]));
  if (anisotropy > largest_anisotropy) {
    result.extra_sd = 0.5 * anisotropy;
    add(note, std::string(name) + " differs between rows and columns, " + number(spacing[0]) + " x " + number(spacing[1]) +
                  " mm: their geometric mean is used and half the difference added to the SD");
  }
  return result;
}

std::optional<double> distance(const std::optional<double>& value, const char* name, std::string& note) {
  if (!value) return {};
  if (*value >= 50 && *value <= 5000) return value;
  add(note, std::string(name) + " " + number(*value) + " mm is not a distance of an X-ray system (expected 50 to 5000 mm): ignored");
  return {};
}

Calibration made(CalibrationSource source, double mm_per_px, double relative_sd, std::string note) {
  return {source, mm_per_px, relative_sd, std::move(note), {}};
}

}  // namespace

const char* to_string(CalibrationSource source) {
  switch (source) {
    case CalibrationSource::user:
      return "user";
    case CalibrationSource::ruler:
      return "ruler";
    case CalibrationSource::catheter:
      return "catheter";
    case CalibrationSource::device:
      return "device";
    case CalibrationSource::geometry:
      return "geometry";
    case CalibrationSource::none:
      return "none";
  }
  return "none";
}

Calibration calibrate(const AcquisitionGeometry& geometry, std::optional<double> user_mm_per_px, std::optional<double> user_relative_sd) {
  if (user_mm_per_px && !(*user_mm_per_px > 0 && std::isfinite(*user_mm_per_px)))
    throw std::invalid_argument("calibrate: user_mm_per_px must be positive");
  if (user_relative_sd && !(*user_relative_sd >= 0 && *user_relative_sd < 1))
    throw std::invalid_argument("calibrate: user_relative_sd must be in [0, 1)");
  if (user_mm_per_px)
    return made(CalibrationSource::user, *user_mm_per_px, user_relative_sd.value_or(user_sd),
                number(*user_mm_per_px) + " mm per px as given by the user");

  std::string note;
  const bool fiducial = geometry.pixel_spacing_calibration == "FIDUCIAL", by_geometry = geometry.pixel_spacing_calibration == "GEOMETRY";
  if (geometry.pixel_spacing_mm && fiducial)
    if (const auto spacing = usable(*geometry.pixel_spacing_mm, "Pixel Spacing", note)) {
      add(note,
          "Pixel Spacing " + number(spacing->mm) + " mm, Calibration Type FIDUCIAL: calibrated on an object of known size in the image");
      return made(CalibrationSource::ruler, spacing->mm, std::hypot(ruler_sd, spacing->extra_sd), note);
    }

  const char* const plane =
      ": holds at the isocentre or the patient's plane; vessels off it are off by their distance over the source's (SD 3 %)";
  if (geometry.object_pixel_spacing_mm)
    if (const auto spacing = usable(*geometry.object_pixel_spacing_mm, "Object Pixel Spacing in Center of Beam", note)) {
      add(note, "Object Pixel Spacing in Center of Beam " + number(spacing->mm) + " mm" + plane);
      return made(CalibrationSource::geometry, spacing->mm, std::hypot(geometry_sd, spacing->extra_sd), note);
    }

  if (geometry.imager_pixel_spacing_mm) {
    const auto spacing = usable(*geometry.imager_pixel_spacing_mm, "Imager Pixel Spacing", note);
    const auto sid = distance(geometry.source_to_detector_mm, "Distance Source to Detector", note);
    const auto sod = distance(geometry.source_to_patient_mm, "Distance Source to Patient", note);
    std::optional<double> magnification;
    std::string made_of;
    if (sid && sod) {
      if (*sod <= *sid) {
        magnification = *sid / *sod;
        made_of = "SOD " + number(*sod) + " mm / SID " + number(*sid) + " mm";
      } else {
        add(note,
            "Distance Source to Patient " + number(*sod) + " mm exceeds Distance Source to Detector " + number(*sid) + " mm: ignored");
      }
    }
    if (!magnification && geometry.magnification) {
      if (*geometry.magnification >= 1 && *geometry.magnification <= 5) {
        magnification = *geometry.magnification;
        made_of = "1 / Estimated Radiographic Magnification Factor " + number(*magnification);
      } else {
        add(note,
            "Estimated Radiographic Magnification Factor " + number(*geometry.magnification) + " is not one (expected 1 to 5): ignored");
      }
    }
    if (spacing && magnification) {
      const double mm = spacing->mm / *magnification;
      add(note, "Imager Pixel Spacing " + number(spacing->mm) + " mm x " + made_of + " = " + number(mm) + " mm per px" + plane);
      return made(CalibrationSource::geometry, mm, std::hypot(geometry_sd, spacing->extra_sd), note);
    }
    if (spacing)
      add(note, "Imager Pixel Spacing " + number(spacing->mm) +
                    " mm is at the detector, and the file gives no distances or magnification to bring it to the vessels: not used");
  }

  if (geometry.pixel_spacing_mm && by_geometry)
    if (const auto spacing = usable(*geometry.pixel_spacing_mm, "Pixel Spacing", note)) {
      add(note, "Pixel Spacing " + number(spacing->mm) + " mm, Calibration Type GEOMETRY" + plane);
      return made(CalibrationSource::geometry, spacing->mm, std::hypot(geometry_sd, spacing->extra_sd), note);
    }

  if (geometry.pixel_spacing_mm && !fiducial && !by_geometry)
    add(note, "Pixel Spacing " + number((*geometry.pixel_spacing_mm)[0]) + " mm has " +
                  (geometry.pixel_spacing_calibration.empty() ? std::string("no Calibration Type")
                                                              : "Calibration Type \"" + geometry.pixel_spacing_calibration + "\"") +
                  ", so nobody knows at which plane it holds: not used");
  add(note, "no calibration: lengths are in px");
  return made(CalibrationSource::none, 1, 0, note);
}

}  // namespace cinelumen
