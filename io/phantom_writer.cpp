#include "io/phantom_writer.h"

#include <dcmtk/config/osconfig.h>
// DCMTK's configuration comes before its other headers.
#include <dcmtk/dcmdata/dctk.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "io/derived_dicom.h"
#include "io/output_folder.h"

namespace cinelumen {
namespace {

using Json = nlohmann::ordered_json;

/// Rounded to a number of decimals; null where it is not a finite number.
Json number(double value, int decimals) {
  if (!std::isfinite(value)) return nullptr;
  const double scale = std::pow(10.0, decimals), rounded = std::round(value * scale) / scale;
  return rounded == 0 ? 0.0 : rounded;  // no "-0.0"
}

Json column(const PhantomSegment& segment, int decimals, const std::function<double(const PhantomPoint&)>& value) {
  Json values = Json::array();
  for (const PhantomPoint& point : segment.points) values.push_back(number(value(point), decimals));
  return values;
}

Json by_frame(const std::vector<std::vector<float>>& of_points) {
  Json frames = Json::array();
  for (const auto& frame : of_points) {
    Json values = Json::array();
    for (const float value : frame) values.push_back(number(value, 4));
    frames.push_back(std::move(values));
  }
  return frames;
}

Json device_json(const PhantomDevice& device) {
  const auto places = [](const std::vector<std::array<double, 2>>& points) {
    Json result = Json::array();
    for (const auto& p : points) result.push_back({number(p[0], 3), number(p[1], 3)});
    return result;
  };
  const auto known = [](double value) { return value > 0 ? number(value, 3) : Json(nullptr); };
  return {{"kind", device.kind},
          {"outer_diameter_mm", known(device.outer_diameter_mm)},
          {"inner_diameter_mm", known(device.inner_diameter_mm)},
          {"length_mm", known(device.length_mm)},
          {"marker_distance_mm", known(device.marker_distance_mm)},
          {"depth_mm", number(device.depth_mm, 3)},
          {"markers_px", places(device.markers_px)},
          {"centreline_px", places(device.centreline_px)}};
}

Json lesion_json(const PhantomLesion& lesion) {
  return {{"kind", lesion.kind},
          {"segment", lesion.segment},
          {"beyond", lesion.beyond > 0 ? Json(lesion.beyond) : Json(nullptr)},
          {"range_mm", {number(lesion.from_mm, 3), number(lesion.to_mm, 3)}},
          {"at_mm", number(lesion.at_mm, 3)},
          {"reference_diameter_mm", number(lesion.reference_diameter_mm, 4)},
          {"minimal_diameter_mm", number(lesion.minimal_diameter_mm, 4)},
          {"diameter_percent", number(lesion.diameter_percent, 2)},
          {"nominal_percent", number(lesion.nominal_percent, 2)},
          {"area_percent", number(lesion.area_percent, 2)}};
}

Json stain_json(const PhantomStain& stain) {
  return {{"kind", stain.kind},
          {"segment", stain.segment},
          {"range_mm", {number(stain.from_mm, 3), number(stain.to_mm, 3)}},
          {"at_px", {number(stain.y_px, 3), number(stain.x_px, 3)}},
          {"onset_ms", number(stain.onset_ms, 2)},
          {"radius_mm", number(stain.radius_mm, 4)},
          {"concentration", number(stain.concentration, 4)}};
}

Json segment_json(const PhantomSegment& segment, const PhantomTruth& truth) {
  const auto node = [&](int index) -> Json { return index < 0 ? Json(nullptr) : Json(truth.nodes[static_cast<std::size_t>(index)].name); };
  Json json = {{"id", segment.id},
               {"name", segment.name},
               {"role", segment.role},
               {"start", node(segment.start)},
               {"end", node(segment.end)},
               {"length_mm", number(segment.points.back().arc_length_mm, 4)},
               {"flow_mm3_s", number(segment.flow_mm3_s, 3)}};
  Json centreline = Json::array();
  for (const PhantomPoint& point : segment.points) centreline.push_back({number(point.y_px, 4), number(point.x_px, 4)});
  json["centreline_px"] = std::move(centreline);
  json["arc_length_mm"] = column(segment, 4, [](const PhantomPoint& p) { return p.arc_length_mm; });
  json["depth_mm"] = column(segment, 3, [](const PhantomPoint& p) { return p.depth_mm; });
  json["radius_mm"] = column(segment, 5, [](const PhantomPoint& p) { return p.radius_mm; });
  json["area_mm2"] = column(segment, 5, [](const PhantomPoint& p) { return p.area_mm2; });
  json["radius_px"] = column(segment, 5, [](const PhantomPoint& p) { return p.radius_px; });
  json["diameter_mm"] = column(segment, 5, [](const PhantomPoint& p) { return p.diameter_calibration_mm; });
  json["path_factor"] = column(segment, 5, [](const PhantomPoint& p) { return p.path_factor; });
  json["velocity_mm_s"] = column(segment, 2, [](const PhantomPoint& p) { return p.velocity_mm_s; });
  json["arrival_ms"] = column(segment, 2, [](const PhantomPoint& p) { return p.arrival_ms; });
  json["place_mm"] = column(segment, 4, [](const PhantomPoint& p) { return p.place_mm; });
  json["healthy_radius_mm"] = column(segment, 5, [](const PhantomPoint& p) { return p.healthy_radius_mm; });
  json["gap_px"] = column(segment, 2, [](const PhantomPoint& p) { return p.gap_px; });
  json["filling"] = by_frame(segment.filling);
  json["mechanism"] = segment.mechanism;
  if (!segment.filled_share.empty()) json["filled_share"] = by_frame(segment.filled_share);
  if (!segment.rest.empty()) json["rest"] = by_frame(segment.rest);
  if (!segment.calibre.empty()) json["calibre"] = by_frame(segment.calibre);
  return json;
}

Json warp_json(const PhantomWarp& warp) {
  Json frames = Json::array();
  for (const auto& field : warp.nodes) {
    Json dy = Json::array(), dx = Json::array();
    for (const auto& node : field) {
      dy.push_back(number(static_cast<double>(node[0]), 4));
      dx.push_back(number(static_cast<double>(node[1]), 4));
    }
    frames.push_back({{"frame", frames.size() + 1}, {"dy_px", std::move(dy)}, {"dx_px", std::move(dx)}});
  }
  return {{"note", "displacement of frame 1's scene before `motion`: cubic B-spline, coefficients row by row"},
          {"spacing_px", warp.spacing_px},
          {"origin_px", {warp.origin_y_px, warp.origin_x_px}},
          {"nodes", {warp.rows, warp.columns}},
          {"frames", std::move(frames)}};
}

/// JSON with objects and the outer arrays of segments and frames broken into lines, inner arrays not: megabytes that can still be read.
void print(const Json& json, int indent, std::string& text) {
  const std::string margin(static_cast<std::size_t>(indent), ' ');
  const bool nested =
      json.is_object() || (json.is_array() && !json.empty() && (json[0].is_object() || (json[0].is_array() && json[0].size() > 6)));
  if (!nested || json.empty()) {
    text += json.dump();
    return;
  }
  text += json.is_object() ? "{\n" : "[\n";
  bool first = true;
  for (const auto& [key, value] : json.items()) {
    if (!first) text += ",\n";
    first = false;
    text += margin + " ";
    if (json.is_object()) text += Json(key).dump() + ": ";
    print(value, indent + 1, text);
  }
  text += "\n" + margin + (json.is_object() ? "}" : "]");
}

bool logarithmic(const PhantomTruth& truth) { return truth.options.encoding == IntensityRelationship::logarithmic; }

/// Everything that changes pixels, so that UIDs differ where runs do.
std::string identity(const PhantomOptions& o) {
  char text[512];
  std::snprintf(text, sizeof text,
                "%s %dx%dx%d %.9g ms free %d seed %llu pitch %.9g sid %.9g m %.9g enc %d bits %d noise %.9g e %.9g motion %.9g %.9g "
                "kappa %.9g focus %.9g scatter %.9g bolus %.9g %.9g",
                o.scenario.c_str(), o.rows, o.columns, *o.frames, o.frame_time_ms, o.contrast_free_frames,
                static_cast<unsigned long long>(o.seed), *o.detector_pitch_mm, o.source_to_detector_mm, o.magnification,
                static_cast<int>(o.encoding), o.bits_stored, *o.noise_log_sd, o.electronic_sd, *o.motion_px, *o.rotation_deg,
                o.attenuation_per_mm, o.focal_spot_mm, o.scatter_fraction, o.bolus_duration_ms, o.inlet_velocity_mm_s);
  std::string result = text;
  const auto append = [&](const char* name, double value) {  // what older runs did not know leaves their UIDs alone
    if (value == 0) return;
    std::snprintf(text, sizeof text, " %s %.9g", name, value);
    result += text;
  };
  append("warp", *o.warp_px);
  append("glare", o.glare_fraction);
  append("lag", o.lag_fraction);
  append("turned", o.pose.rotation_deg);
  append("tilted y", o.pose.tilt_y_deg);
  append("tilted x", o.pose.tilt_x_deg);
  append("shifted y", o.pose.shift_y_mm);
  append("shifted x", o.pose.shift_x_mm);
  append("towards", o.pose.towards_mm);
  if (o.scenario == "spasm") append("onset", *o.onset_ms);
  if (*o.anatomy_seed != o.seed) result += " anatomy " + std::to_string(*o.anatomy_seed);
  return result;
}

std::string decimal(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.8g", value);
  return text;
}

void check(const OFCondition& condition, const std::string& path) {
  if (condition.bad()) throw OutputError(path + ": can't be written: " + condition.text());
}

/// What a run's header says of patient, study and time, and not of its pixels.
struct Visit {
  std::string patient, study, series;  ///< ID, description and description
  std::string instance;                ///< what its UIDs are made from
  std::string session;                 ///< what the study's is made from
  std::string date, time;
  int study_number = 1, series_number = 1;
};

/// A run by itself.
Visit lone_visit(const PhantomOptions& options) {
  Visit visit;
  visit.patient = "PHANTOM-" + std::to_string(options.seed);
  visit.study = "Synthetic angiogram";
  visit.series = "Phantom " + options.scenario + ", seed " + std::to_string(options.seed);
  visit.instance = visit.session = identity(options);
  visit.date = "20260101";
  visit.time = "120000";
  return visit;
}

Visit visit_of(const PhantomCase& made, const PhantomEvent& event, const PhantomOptions& options) {
  const std::string seed = std::to_string(made.options().base.seed), which = "case " + made.options().variant + " seed " + seed;
  Visit visit;
  visit.patient = "PHANTOM-CASE-" + seed;
  visit.study = "Synthetic angiograms, session " + std::to_string(event.session + 1);
  visit.series = "Foot, " + event.note;
  visit.instance = which + (made.options().devices ? " " : " without devices ") + identity(options);
  char size[64];
  std::snprintf(size, sizeof size, " %dx%dx%d", options.rows, options.columns, *options.frames);
  visit.session = which + size + " session " + std::to_string(event.session);
  const auto digits = [&](std::size_t from, std::size_t to) {
    std::string result = event.acquired.substr(from, to - from);
    std::erase_if(result, [](char c) { return c < '0' || c > '9'; });
    return result;
  };
  visit.date = digits(0, 10);
  visit.time = digits(11, 19);
  visit.study_number = event.session + 1;
  visit.series_number = event.run + 1;
  return visit;
}

void write_dicom(const PhantomRun& phantom, const Visit& visit, const std::filesystem::path& path) {
  const PhantomTruth& truth = phantom.truth;
  const PhantomOptions& options = truth.options;
  Derivation derivation;
  derivation.frames = static_cast<int>(phantom.frames.size());
  derivation.version = CINELUMEN_VERSION;
  const auto uid = [&](const std::string& of, const char* purpose) {
    derivation.description = of;
    return derived_uid("cinelumen phantom", derivation, purpose);
  };
  const bool foot = truth.body_part == "FOOT";

  DcmFileFormat file;
  DcmDataset& data = *file.getDataset();
  const auto put = [&](const DcmTagKey& tag, const std::string& value) {
    check(data.putAndInsertString(tag, value.c_str()), path.string());
  };
  const auto put_number = [&](const DcmTagKey& tag, int value) {
    check(data.putAndInsertUint16(tag, static_cast<Uint16>(value)), path.string());
  };
  put(DCM_SpecificCharacterSet, "ISO_IR 192");
  put(DCM_ImageType, "ORIGINAL\\PRIMARY\\SINGLE PLANE");
  put(DCM_SOPClassUID, UID_XRayAngiographicImageStorage);
  put(DCM_SOPInstanceUID, uid(visit.instance, "instance"));
  for (const DcmTagKey& tag : {DCM_StudyDate, DCM_SeriesDate, DCM_AcquisitionDate, DCM_ContentDate}) put(tag, visit.date);
  for (const DcmTagKey& tag : {DCM_StudyTime, DCM_SeriesTime, DCM_AcquisitionTime, DCM_ContentTime}) put(tag, visit.time);
  put(DCM_AccessionNumber, "");
  put(DCM_Modality, "XA");
  put(DCM_Manufacturer, "CineLumen phantom");
  put(DCM_ManufacturerModelName, options.scenario);
  put(DCM_SoftwareVersions, CINELUMEN_VERSION);
  put(DCM_ReferringPhysicianName, "");
  put(DCM_StudyDescription, visit.study);
  put(DCM_SeriesDescription, visit.series);
  put(DCM_PatientName, options.scenario == "tubes" ? "PHANTOM^TUBES" : "PHANTOM^" + truth.body_part);
  put(DCM_PatientID, visit.patient);
  put(DCM_PatientBirthDate, "");
  put(DCM_PatientSex, "O");
  put(DCM_StudyInstanceUID, uid(visit.session, "study"));
  put(DCM_SeriesInstanceUID, uid(visit.instance, "series"));
  put(DCM_StudyID, std::to_string(visit.study_number));
  put(DCM_SeriesNumber, std::to_string(visit.series_number));
  put(DCM_InstanceNumber, "1");
  put(DCM_PatientOrientation, "");
  put(DCM_BodyPartExamined, truth.body_part);
  put(DCM_Laterality, foot ? "R" : "");
  put(DCM_ContrastBolusAgent, "synthetic");
  put(DCM_KVP, "70");
  put(DCM_RadiationSetting, *options.noise_log_sd > 0.02 ? "SC" : "GR");
  put(DCM_XRayTubeCurrent, "");
  put(DCM_ExposureTime, "");
  put(DCM_Exposure, "");
  put(DCM_ImagerPixelSpacing, decimal(*options.detector_pitch_mm) + "\\" + decimal(*options.detector_pitch_mm));
  put(DCM_DistanceSourceToDetector, decimal(options.source_to_detector_mm));
  put(DCM_DistanceSourceToPatient, decimal(options.source_to_detector_mm / options.magnification));
  put(DCM_EstimatedRadiographicMagnificationFactor, decimal(options.magnification));
  put(DCM_FocalSpots, decimal(options.focal_spot_mm));
  put(DCM_PositionerMotion, "STATIC");
  put(DCM_PositionerPrimaryAngle, "0");
  put(DCM_PositionerSecondaryAngle, "0");
  put(DCM_LossyImageCompression, "00");

  put_number(DCM_SamplesPerPixel, 1);
  put(DCM_PhotometricInterpretation, "MONOCHROME2");
  put_number(DCM_Rows, options.rows);
  put_number(DCM_Columns, options.columns);
  put(DCM_NumberOfFrames, std::to_string(phantom.frames.size()));
  put(DCM_FrameTime, decimal(options.frame_time_ms));
  const int rate = std::max(1, static_cast<int>(std::lround(1000 / options.frame_time_ms)));
  put(DCM_CineRate, std::to_string(rate));
  put(DCM_RecommendedDisplayFrameRate, std::to_string(rate));
  check(data.putAndInsertTagKey(DCM_FrameIncrementPointer, DCM_FrameTime), path.string());
  const int allocated = options.bits_stored <= 8 ? 8 : 16;
  put_number(DCM_BitsAllocated, allocated);
  put_number(DCM_BitsStored, options.bits_stored);
  put_number(DCM_HighBit, options.bits_stored - 1);
  put_number(DCM_PixelRepresentation, 0);
  put(DCM_PixelIntensityRelationship, logarithmic(truth) ? "LOG" : "LIN");
  check(data.putAndInsertSint16(DCM_PixelIntensityRelationshipSign, 1), path.string());
  const double top = std::ldexp(1.0, options.bits_stored) - 1;
  if (logarithmic(truth)) {
    put(DCM_WindowCenter, decimal(std::round(0.5 * top)));
    put(DCM_WindowWidth, decimal(top));
    // Linear counts fill 16 bits; the factor is a gain, which no reader needs.
    const std::vector<float> counts = linear_counts(truth);
    std::vector<Uint16> table;
    for (const float count : counts) table.push_back(static_cast<Uint16>(std::lround(std::min(65535.0, 65535.0 * count / top))));
    const Uint16 descriptor[3] = {static_cast<Uint16>(table.size() == 65536 ? 0 : table.size()), 0, 16};
    // XA asks for a Modality LUT beside LOG that leads to linear (PS3.3 A.14.3); the relationship's own LUT says so itself.
    for (const DcmTagKey& sequence : {DCM_ModalityLUTSequence, DCM_PixelIntensityRelationshipLUTSequence}) {
      DcmItem* item = nullptr;
      check(data.findOrCreateSequenceItem(sequence, item), path.string());
      check(item->putAndInsertUint16Array(DCM_LUTDescriptor, descriptor, 3), path.string());
      if (sequence == DCM_ModalityLUTSequence)
        check(item->putAndInsertString(DCM_ModalityLUTType, "US"), path.string());
      else
        check(item->putAndInsertString(DCM_LUTFunction, "TO_LINEAR"), path.string());
      check(item->putAndInsertUint16Array(DCM_LUTData, table.data(), static_cast<unsigned long>(table.size())), path.string());
    }
  } else {
    const double brightest = std::min(top, truth.air_count), darkest = 0.25 * truth.median_count;
    put(DCM_WindowCenter, decimal(std::round(0.5 * (brightest + darkest))));
    put(DCM_WindowWidth, decimal(std::round(brightest - darkest)));
  }

  const std::size_t size = static_cast<std::size_t>(options.rows) * static_cast<std::size_t>(options.columns) * phantom.frames.size();
  if (allocated == 8) {
    std::vector<Uint8> pixels;
    pixels.reserve(size + 1);
    for (const auto& frame : phantom.frames)
      for (int y = 0; y < options.rows; ++y) pixels.insert(pixels.end(), frame.row(y), frame.row(y) + options.columns);
    if (pixels.size() % 2) pixels.push_back(0);
    check(data.putAndInsertUint8Array(DCM_PixelData, pixels.data(), static_cast<unsigned long>(pixels.size())), path.string());
  } else {
    std::vector<Uint16> pixels;
    pixels.reserve(size);
    for (const auto& frame : phantom.frames)
      for (int y = 0; y < options.rows; ++y) pixels.insert(pixels.end(), frame.row(y), frame.row(y) + options.columns);
    check(data.putAndInsertUint16Array(DCM_PixelData, pixels.data(), static_cast<unsigned long>(pixels.size())), path.string());
  }
  check(file.saveFile(path.c_str(), EXS_LittleEndianExplicit), path.string());
}

std::string run_name(int index) {
  char name[32];
  std::snprintf(name, sizeof name, "run_%02d.dcm", index + 1);
  return name;
}

Json run_json(const PhantomTruth& truth, const std::string& file) {
  const PhantomOptions& options = truth.options;
  Json run = {{"file", file},
              {"rows", options.rows},
              {"columns", options.columns},
              {"frames", truth.frame_times_ms.size()},
              {"frame_times_ms", truth.frame_times_ms},
              {"bits_stored", options.bits_stored},
              {"pixel_intensity_relationship", logarithmic(truth) ? "LOG" : "LIN"}};
  if (logarithmic(truth)) run["log_encoding"] = {{"offset", truth.log_offset}, {"slope", truth.log_slope}};
  run["calibration"] = {{"mm_per_px", truth.mm_per_px},
                        {"detector_pitch_mm", *options.detector_pitch_mm},
                        {"source_to_detector_mm", options.source_to_detector_mm},
                        {"magnification", options.magnification}};
  const PhantomPose& pose = options.pose;
  run["seed"] = options.seed;
  run["pose"] = {{"rotation_deg", number(pose.rotation_deg, 6)},
                 {"tilt_deg", {number(pose.tilt_y_deg, 6), number(pose.tilt_x_deg, 6)}},
                 {"shift_mm", {number(pose.shift_y_mm, 6), number(pose.shift_x_mm, 6)}},
                 {"towards_source_mm", number(pose.towards_mm, 6)}};
  run["first_contrast_frame"] =
      truth.first_contrast_frame < static_cast<int>(truth.frame_times_ms.size()) ? Json(truth.first_contrast_frame + 1) : Json(nullptr);
  run["attenuation_per_mm"] = truth.attenuation_per_mm;
  run["psf"] = {{"edge_sigma_px", truth.psf_sigma_px},
                {"rms_px", truth.psf_rms_px},
                {"scintillator_sigma_px", truth.scintillator_sigma_px},
                {"scintillator_weight", truth.scintillator_weight},
                {"focal_blur_px", truth.focal_blur_px},
                {"note", "without the pixel's aperture of 1 px; edge_sigma_px: Gaussian with the same 25 to 75 % rise of an edge"}};
  run["noise"] = {{"log_sd_at_median", *options.noise_log_sd},
                  {"median_count", truth.median_count},
                  {"air_count", truth.air_count},
                  {"gain", truth.noise_gain},
                  {"electronic_sd", truth.electronic_sd},
                  {"scatter_fraction", options.scatter_fraction},
                  {"glare_fraction", options.glare_fraction},
                  {"lag_fraction", options.lag_fraction},
                  {"autocorrelation", truth.noise_autocorrelation}};
  Json motion = Json::array(), mass = Json::array();
  for (std::size_t f = 0; f < truth.motion.size(); ++f) {
    const PhantomMotion& m = truth.motion[f];
    motion.push_back(
        {{"frame", f + 1}, {"shift_px", {number(m.dy_px, 6), number(m.dx_px, 6)}}, {"rotation_rad", number(m.rotation_rad, 9)}});
    const PhantomMass& contrast = truth.mass[f];
    const auto known = [](double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); };
    mass.push_back({{"frame", f + 1},
                    {"injected", known(contrast.injected)},
                    {"in_vessels", known(contrast.in_vessels)},
                    {"drained", known(contrast.drained)}});
  }
  run["motion"] = std::move(motion);
  if (!truth.warp.nodes.empty()) run["warp"] = warp_json(truth.warp);
  run["contrast_mm3"] = std::move(mass);
  Json nodes = Json::array();
  for (const PhantomNode& node : truth.nodes) {
    Json ids = Json::array();
    for (const int index : node.segments) ids.push_back(truth.segments[static_cast<std::size_t>(index)].id);
    if (!ids.empty())
      nodes.push_back({{"name", node.name}, {"at_px", {number(node.y_px, 4), number(node.x_px, 4)}}, {"segments", std::move(ids)}});
  }
  run["branch_points"] = std::move(nodes);
  run["open_field_px"] = truth.open_field_px;
  Json devices = Json::array();
  for (const PhantomDevice& device : truth.devices) devices.push_back(device_json(device));
  run["devices"] = std::move(devices);
  Json lesions = Json::array(), crossings = Json::array();
  for (const PhantomLesion& lesion : truth.lesions) lesions.push_back(lesion_json(lesion));
  run["lesions"] = std::move(lesions);
  for (const PhantomStain& stain : truth.stains) run["stains"].push_back(stain_json(stain));
  for (const PhantomCrossing& crossing : truth.crossings)
    crossings.push_back({{"segments", crossing.segments},
                         {"at_px", {number(crossing.y_px, 3), number(crossing.x_px, 3)}},
                         {"angle_deg", number(crossing.angle_deg, 2)},
                         {"depth_mm", number(crossing.depth_mm, 2)}});
  run["crossings"] = std::move(crossings);
  if (truth.flow_split)
    run["flow_split"] = {{"arch", number(truth.flow_split->arch, 4)},
                         {"perforators_before_arch", number(truth.flow_split->perforators, 4)}};
  Json segments = Json::array();
  for (const PhantomSegment& segment : truth.segments) segments.push_back(segment_json(segment, truth));
  run["segments"] = std::move(segments);
  return run;
}

Json heading(const std::string& scenario, std::uint64_t seed) {
  return {{"schema", "cinelumen.phantom/1"},
          {"software", {{"name", "cinelumen"}, {"version", CINELUMEN_VERSION}, {"commit", CINELUMEN_COMMIT}}},
          {"scenario", scenario},
          {"seed", seed}};
}

std::string text_of(const Json& json) {
  std::string text;
  print(json, 0, text);
  return text + "\n";
}

Json onsets_json(const std::vector<PhantomOnset>& onsets) {
  Json list = Json::array();
  for (const PhantomOnset& onset : onsets)
    list.push_back({{"run", run_name(0)},
                    {"event", "spasm"},
                    {"onset_ms", number(onset.onset_ms, 2)},
                    {"complete_ms", number(onset.complete_ms, 2)},
                    {"segments", onset.segments},
                    {"narrowing_percent", number(onset.narrowing_percent, 2)},
                    {"extent_mm", number(onset.extent_mm, 2)}});
  return list;
}

/// As in the events file; what is empty is left out.
Json events_json(const std::vector<PhantomEvent>& events) {
  Json list = Json::array();
  for (const PhantomEvent& event : events) {
    Json json = {{"run", run_name(event.run)}, {"event", event.event}};
    if (!event.drug.empty()) json["drug"] = event.drug;
    if (!event.dose.empty()) json["dose"] = event.dose;
    json["acquired"] = event.acquired;
    json["note"] = event.note;
    list.push_back(std::move(json));
  }
  return list;
}

Json state_json(const PhantomState& state, std::size_t run) {
  return {{"run", run + 1},
          {"state", state.state},
          {"narrowing_percent", number(state.narrowing_percent, 2)},
          {"change_percent", number(state.change_percent, 2)},
          {"extent_mm", number(state.extent_mm, 2)},
          {"place_mm", number(state.at_mm, 3)},
          {"diameter_mm", number(state.diameter_mm, 4)},
          {"contrast", number(state.contrast, 3)},
          {"label_now", state.label_now},
          {"grade", state.grade}};
}

Json timeline_json(const PhantomTimeline& timeline) {
  Json segments = Json::array();
  for (const PhantomSegmentTimeline& segment : timeline.segments) {
    Json runs = Json::array();
    for (std::size_t run = 0; run < segment.runs.size(); ++run) runs.push_back(state_json(segment.runs[run], run));
    segments.push_back({{"name", segment.name},
                        {"role", segment.role},
                        {"label", segment.label},
                        {"grade", segment.grade},
                        {"narrowing_percent", number(segment.narrowing_percent, 2)},
                        {"extent_mm", number(segment.extent_mm, 2)},
                        {"lesion_extent_mm", number(segment.lesion_extent_mm, 2)},
                        {"recovery", number(segment.recovery, 3)},
                        {"runs", std::move(runs)}});
  }
  return {{"response", timeline.response}, {"segments", std::move(segments)}};
}

}  // namespace

std::string truth_json(const PhantomRun& phantom) {
  Json json = heading(phantom.truth.options.scenario, phantom.truth.options.seed);
  json["events"] = onsets_json(phantom.truth.onsets);
  json["runs"] = Json::array({run_json(phantom.truth, run_name(0))});
  return text_of(json);
}

PhantomTimeline write_phantom_case(const PhantomCase& made, const std::filesystem::path& folder, const std::function<void(int run)>& done) {
  std::vector<std::string> names = {"truth.json", "events.json"};
  for (int run = 0; run < phantom_case_runs; ++run) names.push_back(run_name(run));
  OutputFolder output(folder, names);
  const std::vector<PhantomEvent> events = made.events();
  Json json = heading("case", made.options().base.seed);
  json["variant"] = made.options().variant;
  json["events"] = events_json(events);
  Json runs = Json::array();
  std::vector<PhantomTruth> truths;
  for (int index = 0; index < phantom_case_runs; ++index) {
    PhantomRun run = made.run(index);
    write_dicom(run, visit_of(made, events[static_cast<std::size_t>(index)], run.truth.options), output.temporary(run_name(index)));
    runs.push_back(run_json(run.truth, run_name(index)));
    truths.push_back(std::move(run.truth));
    done(index);
  }
  PhantomTimeline timeline = made.timeline(truths);
  json["timeline"] = timeline_json(timeline);
  json["runs"] = std::move(runs);
  output.write("events.json", events_json(events).dump(1) + "\n");
  output.write("truth.json", text_of(json));
  output.commit();
  return timeline;
}

void write_phantom(const PhantomRun& phantom, const std::filesystem::path& folder) {
  OutputFolder output(folder, {"truth.json", run_name(0), "events.json"});
  write_dicom(phantom, lone_visit(phantom.truth.options), output.temporary(run_name(0)));
  output.write("events.json", "[]\n");
  output.write("truth.json", truth_json(phantom));
  output.commit();
}

}  // namespace cinelumen
