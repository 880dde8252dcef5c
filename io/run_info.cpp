#include "io/run_info.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "engine/calibration.h"
#include "io/byte_source.h"
#include "io/field_of_view.h"

namespace cinelumen {
namespace {

using Json = nlohmann::ordered_json;
using Operation = MaskInstruction::Operation;

std::string figure(double value, int digits = 6) {
  char text[40];
  std::snprintf(text, sizeof text, "%.*g", digits, value);
  return text;
}

const char* name_of(Operation operation) {
  switch (operation) {
    case Operation::none:
      return "NONE";
    case Operation::average_subtraction:
      return "AVG_SUB";
    case Operation::time_interval_difference:
      return "TID";
    case Operation::reverse_time_interval_difference:
      return "REV_TID";
  }
  return "NONE";
}

const char* name_of(IntensityRelationship relationship) {
  switch (relationship) {
    case IntensityRelationship::linear:
      return "linear";
    case IntensityRelationship::logarithmic:
      return "logarithmic";
    case IntensityRelationship::display:
      return "display";
  }
  return "display";
}

std::string list_of(const std::vector<int>& frames) {
  std::string text;
  for (std::size_t i = 0; i < frames.size() && i < 12; ++i) text += (i ? ", " : "") + std::to_string(frames[i]);
  return frames.size() > 12 ? text + ", ..." : text;
}

bool all_exist(const Run& run, const std::vector<int>& frames) {
  return !frames.empty() && std::all_of(frames.begin(), frames.end(), [&](int frame) { return frame >= 1 && frame <= run.frame_count(); });
}

/// What follows from the mask instructions (methods.md 2 decides; this says it).
std::string mask_in_words(const Run& run) {
  if (run.frame_count() == 1) return "a single frame: nothing to subtract, vessels are sought on the frame itself";
  if (run.mask_instructions.empty()) return "no instruction in the file: the mask is chosen from the frames before contrast arrives";
  std::string text;
  bool followed = false, difference = false;
  for (const MaskInstruction& mask : run.mask_instructions) {
    std::string item = name_of(mask.operation);
    if (mask.operation == Operation::none) {
      if (!mask.mask_frames.empty()) item += " with mask frame " + list_of(mask.mask_frames);
      item += ": asks for no subtraction";
    } else if (mask.operation == Operation::average_subtraction) {
      item += " of frame " + list_of(mask.mask_frames);
      if (all_exist(run, mask.mask_frames))
        followed = true;
      else
        item += ": not all of these frames exist (1 to " + std::to_string(run.frame_count()) + ")";
    } else {
      item += " with offset " + std::to_string(mask.tid_offset);
      const bool ranges = !mask.applicable_frames.empty() || mask.operation == Operation::time_interval_difference;
      if (ranges)
        difference = true;
      else
        item += ": lacks the Applicable Frame Range it needs";
    }
    if (!mask.applicable_frames.empty()) {
      item += ", for frames ";
      for (std::size_t i = 0; i < mask.applicable_frames.size(); ++i)
        item += (i ? ", " : "") + std::to_string(mask.applicable_frames[i][0]) + " to " + std::to_string(mask.applicable_frames[i][1]);
    }
    if (mask.sub_pixel_shift[0] != 0 || mask.sub_pixel_shift[1] != 0)
      item += ", shifted by " + figure(mask.sub_pixel_shift[0], 4) + " px down and " + figure(mask.sub_pixel_shift[1], 4) + " px right";
    if (mask.contrast_frame_averaging > 1) item += ", " + std::to_string(mask.contrast_frame_averaging) + " contrast frames averaged";
    text += (text.empty() ? "" : "; ") + item;
  }
  text += followed ? "; followed as the file says" : "; the mask is chosen from the frames before contrast arrives";
  return text + (difference ? "; time interval differences are for showing, lumina are measured against the mask" : "");
}

std::string times_in_words(const Run& run) {
  const std::vector<double>& times = run.frame_times_ms;
  if (run.frame_count() == 1) return "a single frame";
  if (times.empty()) return "not known: nothing that depends on time is measured";
  double shortest = INFINITY, longest = 0;
  for (std::size_t i = 1; i < times.size(); ++i) {
    shortest = std::min(shortest, times[i] - times[i - 1]);
    longest = std::max(longest, times[i] - times[i - 1]);
  }
  const std::string whole = figure(times.back() / 1000, 4) + " s in all";
  if (longest - shortest < 1e-6 * longest)
    return "every " + figure(shortest) + " ms (" + figure(1000 / shortest, 4) + " frames/s), " + whole;
  return figure(shortest) + " to " + figure(longest) + " ms apart, " + whole;
}

std::string pair_in_words(const std::optional<std::array<double, 2>>& pair) {
  if (!pair) return "-";
  return (*pair)[0] == (*pair)[1] ? figure((*pair)[0]) : figure((*pair)[0]) + " x " + figure((*pair)[1]);
}
std::string in_words(const std::optional<double>& value) { return value ? figure(*value) : "-"; }

std::string intensity_in_words(const Run& run) {
  const IntensityEncoding& intensity = run.intensity;
  const std::string stored = intensity.relationship_as_stored.empty() ? "not stated" : intensity.relationship_as_stored;
  std::string text = stored + ", read as " + name_of(intensity.relationship);
  text += intensity.sign > 0 ? "; more is more intensity" : "; more is less intensity";
  if (intensity.relationship == IntensityRelationship::display) text += "; lengths yes, densities no";
  return text;
}

Json number_or_null(const std::optional<double>& value) { return value && std::isfinite(*value) ? Json(*value) : Json(nullptr); }
Json pair_or_null(const std::optional<std::array<double, 2>>& pair) { return pair ? Json(*pair) : Json(nullptr); }
Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(clean_text(text)); }

}  // namespace

std::string describe_run(const Run& run) {
  const RunDescription& about = run.description;
  const AcquisitionGeometry& geometry = run.geometry;
  std::string text;
  const auto line = [&](const std::string& name, const std::string& value) {
    if (!value.empty()) text += name + std::string(name.size() < 14 ? 14 - name.size() : 1, ' ') + value + "\n";
  };
  const auto joined = [](std::initializer_list<std::string> parts) {
    std::string all;
    for (const std::string& part : parts)
      if (!part.empty()) all += (all.empty() ? "" : ", ") + part;
    return clean_text(all);
  };
  line("run", clean_text(about.path));
  line("frames", std::to_string(run.frame_count()) + " of " + std::to_string(run.columns()) + " x " + std::to_string(run.rows()) +
                     " pixels, " + std::to_string(run.intensity.bits_stored) + " bits");
  line("object",
       joined({about.enhanced ? "enhanced " + about.modality : about.modality, about.transfer_syntax, about.manufacturer, about.model}));
  line("patient", joined({about.patient_name, about.patient_id, about.patient_birth_date, about.patient_sex}));
  line("study", joined({about.study_description, about.series_description, about.body_part, about.laterality}));
  line("acquired", about.acquired);
  line("intensity", intensity_in_words(run));
  line("frame times", times_in_words(run));
  line("mask", mask_in_words(run));
  const Calibration calibration = calibrate(geometry);
  line("calibration", calibration.known() ? std::string(to_string(calibration.source)) + ", " + figure(calibration.mm_per_px) +
                                                " mm/px, SD " + figure(100 * calibration.relative_sd, 3) + " %; " + calibration.note
                                          : "none; " + (calibration.note.empty() ? "lengths in px" : calibration.note));
  line("geometry", "source to detector " + in_words(geometry.source_to_detector_mm) + " mm, to patient " +
                       in_words(geometry.source_to_patient_mm) + " mm, magnification " + in_words(geometry.magnification) + ", angles " +
                       in_words(geometry.primary_angle_deg) + " and " + in_words(geometry.secondary_angle_deg) + " deg");
  line("spacings", "at the detector " + pair_in_words(geometry.imager_pixel_spacing_mm) + " mm, in the beam's centre " +
                       pair_in_words(geometry.object_pixel_spacing_mm) + " mm, Pixel Spacing " + pair_in_words(geometry.pixel_spacing_mm) +
                       (geometry.pixel_spacing_calibration.empty() ? "" : " " + geometry.pixel_spacing_calibration));
  line("field", figure(100 * field_share(run.field), 3) + " % of the image, from " +
                    (run.field.source == "whole image" ? "no shutter seen" : run.field.source));
  for (const std::string& warning : run.warnings) line("note", clean_text(warning));
  return text;
}

std::string describe_run_json(const Run& run) {
  const RunDescription& about = run.description;
  const AcquisitionGeometry& geometry = run.geometry;
  const Calibration calibration = calibrate(geometry);
  Json masks = Json::array();
  for (const MaskInstruction& mask : run.mask_instructions)
    masks.push_back({{"operation", name_of(mask.operation)},
                     {"applicable_frames", mask.applicable_frames},
                     {"mask_frames", mask.mask_frames},
                     {"sub_pixel_shift", mask.sub_pixel_shift},
                     {"tid_offset", mask.tid_offset},
                     {"contrast_frame_averaging", mask.contrast_frame_averaging}});
  Json warnings = Json::array();
  for (const std::string& warning : run.warnings) warnings.push_back(clean_text(warning));
  const Json json = {{"schema", "cinelumen.info/1"},
                     {"input",
                      {{"path", clean_text(about.path)},
                       {"sha256", text_or_null(about.sha256)},
                       {"sop_class_uid", text_or_null(about.sop_class_uid)},
                       {"sop_instance_uid", text_or_null(about.sop_instance_uid)},
                       {"series_instance_uid", text_or_null(about.series_instance_uid)},
                       {"study_instance_uid", text_or_null(about.study_instance_uid)},
                       {"transfer_syntax", text_or_null(about.transfer_syntax)},
                       {"modality", text_or_null(about.modality)},
                       {"enhanced", about.enhanced},
                       {"rows", run.rows()},
                       {"columns", run.columns()},
                       {"frames", run.frame_count()},
                       {"bits_stored", run.intensity.bits_stored},
                       {"pixel_intensity_relationship", text_or_null(run.intensity.relationship_as_stored)},
                       {"frame_times_ms", run.frame_times_ms.empty() ? Json(nullptr) : Json(run.frame_times_ms)}}},
                     {"patient",
                      {{"name", text_or_null(about.patient_name)},
                       {"id", text_or_null(about.patient_id)},
                       {"birth_date", text_or_null(about.patient_birth_date)},
                       {"sex", text_or_null(about.patient_sex)}}},
                     {"acquired", text_or_null(about.acquired)},
                     {"body_part", text_or_null(about.body_part)},
                     {"laterality", text_or_null(about.laterality)},
                     {"study_description", text_or_null(about.study_description)},
                     {"series_description", text_or_null(about.series_description)},
                     {"manufacturer", text_or_null(about.manufacturer)},
                     {"model", text_or_null(about.model)},
                     {"intensity", {{"read_as", name_of(run.intensity.relationship)}, {"sign", run.intensity.sign}}},
                     {"mask", {{"instructions", masks}, {"consequence", mask_in_words(run)}}},
                     {"calibration",
                      {{"source", to_string(calibration.source)},
                       {"mm_per_px", calibration.known() ? Json(calibration.mm_per_px) : Json(nullptr)},
                       {"relative_sd", calibration.known() ? Json(calibration.relative_sd) : Json(nullptr)},
                       {"note", text_or_null(calibration.note)}}},
                     {"geometry",
                      {{"source_to_detector_mm", number_or_null(geometry.source_to_detector_mm)},
                       {"source_to_patient_mm", number_or_null(geometry.source_to_patient_mm)},
                       {"magnification", number_or_null(geometry.magnification)},
                       {"imager_pixel_spacing_mm", pair_or_null(geometry.imager_pixel_spacing_mm)},
                       {"pixel_spacing_mm", pair_or_null(geometry.pixel_spacing_mm)},
                       {"pixel_spacing_calibration", text_or_null(geometry.pixel_spacing_calibration)},
                       {"object_pixel_spacing_mm", pair_or_null(geometry.object_pixel_spacing_mm)},
                       {"primary_angle_deg", number_or_null(geometry.primary_angle_deg)},
                       {"secondary_angle_deg", number_or_null(geometry.secondary_angle_deg)}}},
                     {"field_of_view", {{"source", run.field.source}, {"share", field_share(run.field)}}},
                     {"window", pair_or_null(run.window)},
                     {"warnings", warnings}};
  return json.dump(2) + "\n";
}

}  // namespace cinelumen
