#include "io/analysis_reader.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/vessel_injury.h"
#include "io/byte_source.h"
#include "io/log_picture.h"

namespace cinelumen {
namespace {

using nlohmann::json;

constexpr std::uintmax_t largest_file = 1u << 30;

/// Fields of one JSON object, with the file and the place in every complaint.
class Fields {
 public:
  Fields(const json& object, std::string place) : object_(object), place_(std::move(place)) {
    if (!object.is_object()) throw InputError(place_ + ": expected an object");
  }
  bool has(const char* name) const { return object_.contains(name) && !object_[name].is_null(); }
  Fields object(const char* name) const { return {required(name), place_ + "." + name}; }
  const json& list(const char* name) const {
    const json& value = required(name);
    if (!value.is_array()) throw InputError(place_ + "." + name + ": expected a list");
    return value;
  }
  /// A list of numbers, `size` of them unless that is negative.
  std::vector<double> numbers(const char* name, std::ptrdiff_t size = -1) const {
    std::vector<double> values;
    for (const json& value : list(name)) {
      if (!value.is_number()) throw InputError(place_ + "." + name + ": expected numbers");
      values.push_back(value.get<double>());
    }
    if (size >= 0 && static_cast<std::ptrdiff_t>(values.size()) != size)
      throw InputError(place_ + "." + name + ": " + std::to_string(values.size()) + " numbers, expected " + std::to_string(size));
    return values;
  }
  double number(const char* name) const {
    const json& value = required(name);
    if (!value.is_number()) throw InputError(place_ + "." + name + ": expected a number");
    return value.get<double>();
  }
  std::optional<double> number_or_null(const char* name) const { return has(name) ? std::optional(number(name)) : std::nullopt; }
  std::string words(const char* name) const {
    if (!has(name)) return "";
    if (!object_[name].is_string()) throw InputError(place_ + "." + name + ": expected a text");
    return object_[name].get<std::string>();
  }
  bool flag(const char* name) const {
    const json& value = required(name);
    if (!value.is_boolean()) throw InputError(place_ + "." + name + ": expected true or false");
    return value.get<bool>();
  }
  const std::string& place() const { return place_; }

 private:
  const json& required(const char* name) const {
    if (!has(name)) throw InputError(place_ + "." + name + ": missing, expected as written by `cinelumen analyze` of this version");
    return object_[name];
  }
  const json& object_;
  std::string place_;
};

CalibrationSource parse_source(const std::string& word, const std::string& place) {
  for (const CalibrationSource source : {CalibrationSource::user, CalibrationSource::ruler, CalibrationSource::catheter,
                                         CalibrationSource::device, CalibrationSource::geometry, CalibrationSource::none})
    if (word == to_string(source)) return source;
  throw InputError(place + ".source: \"" + word + "\", expected user, ruler, catheter, device, geometry or none");
}

std::array<double, 2> pair_of(const json& value, const std::string& place) {
  if (!value.is_array() || value.size() != 2 || !value[0].is_number() || !value[1].is_number())
    throw InputError(place + ": expected two numbers");
  return {value[0].get<double>(), value[1].get<double>()};
}

void read_centreline(const Fields& fields, SegmentResult& segment) {
  const json& places = fields.list("centreline_px");
  const Fields profile = fields.object("profile");
  const auto count = static_cast<std::ptrdiff_t>(places.size());
  const std::vector<double> radius = profile.numbers("traced_radius_px", count);
  std::vector<CentrelinePoint>& points = segment.centreline.points;
  for (const json& place : places) {
    const auto at = pair_of(place, fields.place() + ".centreline_px");
    CentrelinePoint point;
    point.y = static_cast<float>(at[0]);
    point.x = static_cast<float>(at[1]);
    point.radius_px = static_cast<float>(radius[points.size()]);
    if (!points.empty())
      point.arc_length_px = points.back().arc_length_px + std::hypot(point.y - points.back().y, point.x - points.back().x);
    points.push_back(point);
  }
  for (std::size_t i = 0; i < points.size(); ++i) {
    const CentrelinePoint &a = points[i > 0 ? i - 1 : i], &b = points[std::min(i + 1, points.size() - 1)];
    const float dy = b.y - a.y, dx = b.x - a.x, length = std::hypot(dy, dx);
    if (length > 0) points[i].tangent_y = dy / length, points[i].tangent_x = dx / length;
  }
  for (const json& range : fields.list("centreline_inferred")) {
    const auto ends = pair_of(range, fields.place() + ".centreline_inferred");
    for (double i = std::max(0.0, ends[0]); i <= ends[1] && i < static_cast<double>(count); ++i)
      points[static_cast<std::size_t>(i)].inferred = true;
  }
  // Before the first frame is measured a profile may be empty.
  const auto measured = static_cast<std::ptrdiff_t>(profile.list("diameter_px").size());
  if (measured != 0 && measured != count)
    throw InputError(profile.place() + ".diameter_px: " + std::to_string(measured) + " numbers, expected " + std::to_string(count));
  const std::vector<double> diameter = profile.numbers("diameter_px"), sd = profile.numbers("sd_px", measured),
                            own = profile.numbers("own_attenuation", measured), area_ratio = profile.numbers("area_ratio", measured),
                            gates = profile.numbers("gate");
  for (std::size_t i = 0; i < diameter.size(); ++i) {
    DiameterProfile::Point point;
    point.arc_length_px = points[i].arc_length_px;
    point.y_px = points[i].y;
    point.x_px = points[i].x;
    point.diameter_px = static_cast<float>(diameter[i]);
    point.sd_px = static_cast<float>(sd[i]);
    point.own_kappa = own[i] > 0;
    point.area_ratio = static_cast<float>(area_ratio[i]);
    segment.profile.points.push_back(point);
  }
  for (const double gate : gates) {
    if (!(gate >= 0 && gate <= static_cast<double>(FillingGate::unconfirmed)))
      throw InputError(profile.place() + ".gate: expected numbers from 0 to " + std::to_string(static_cast<int>(FillingGate::unconfirmed)));
    segment.gates.push_back(static_cast<FillingGate>(static_cast<int>(gate)));
  }
}

SegmentResult read_segment(const Fields& fields, double mm_per_px) {
  SegmentResult segment;
  segment.id = static_cast<int>(fields.number("id"));
  segment.name = fields.words("name");
  segment.role = fields.words("role");
  segment.filling = fields.words("filling");
  read_centreline(fields, segment);
  segment.length = segment.centreline.length_px() * mm_per_px;
  segment.flow.times.arrival_ms = fields.number_or_null("arrival_ms");
  segment.flow.times.arrival_sd_ms = fields.number_or_null("arrival_sd_ms");
  segment.flow.times.time_to_peak_ms = fields.number_or_null("time_to_peak_ms");
  segment.flow.velocity_mm_s = fields.number_or_null("velocity_mm_s");
  segment.flow.velocity_sd_mm_s = fields.number_or_null("velocity_sd_mm_s");
  segment.flow.auc_relative_to_inlet = fields.number_or_null("auc_relative_to_inlet");
  const Fields diameter = fields.object("diameter_px");
  segment.diameter.median = diameter.number_or_null("median");
  segment.diameter.sd = diameter.number_or_null("sd");
  return segment;
}

void read_input(const Fields& input, ComparedRun& run) {
  run.description.path = input.words("path");
  run.description.sha256 = input.words("sha256");
  run.description.sop_instance_uid = input.words("sop_instance_uid");
  run.description.acquired = input.words("acquired");
  run.description.patient_id = input.words("patient_id");
  run.description.study_instance_uid = input.words("study_instance_uid");
  run.description.series_description = input.words("series_description");
  run.description.body_part = input.words("body_part");
  run.description.laterality = input.words("laterality");
  run.geometry.primary_angle_deg = input.number_or_null("positioner_primary_angle_deg");
  run.geometry.secondary_angle_deg = input.number_or_null("positioner_secondary_angle_deg");
  if (input.has("imager_pixel_spacing_mm")) {
    const auto spacing = input.numbers("imager_pixel_spacing_mm", 2);
    run.geometry.imager_pixel_spacing_mm = {{spacing[0], spacing[1]}};
  }
  Analysis& analysis = run.analysis;
  analysis.rows = static_cast<int>(input.number("rows"));
  analysis.columns = static_cast<int>(input.number("columns"));
  analysis.first_frame = static_cast<int>(input.number("first_frame")) - 1;
  analysis.frames = static_cast<int>(input.number("last_frame")) - analysis.first_frame;
  analysis.densitometric = input.flag("densitometric");
  analysis.subtracted = input.flag("subtracted");
  if (input.has("frame_times_ms")) {
    const std::vector<double> times = input.numbers("frame_times_ms");
    if (analysis.first_frame >= 0 && analysis.frames >= 1 && analysis.first_frame + analysis.frames <= static_cast<int>(times.size()))
      analysis.frame_times_ms.assign(times.begin() + analysis.first_frame, times.begin() + analysis.first_frame + analysis.frames);
  }
}

void read_flow(const Fields& flow, FlowSummary& summary) {
  summary.inlet = flow.words("inlet");
  if (flow.has("arch_filled")) summary.arch_filled = flow.flag("arch_filled");
  summary.arch_arrival_ms = flow.number_or_null("arch_arrival_ms");
  summary.steal_fraction = flow.number_or_null("steal_fraction");
  summary.steal_sd = flow.number_or_null("steal_sd");
  if (flow.has("early_venous_return"))
    for (const double id : flow.numbers("early_venous_return")) summary.early_venous_return.push_back(static_cast<int>(id));
  for (const json& item : flow.list("regions")) {
    const Fields fields(item, flow.place() + ".regions");
    RegionFlow region;
    region.name = fields.words("name");
    region.times.peak = fields.number_or_null("peak");
    region.times.arrival_ms = fields.number_or_null("arrival_ms");
    region.auc_relative_to_inlet = fields.number_or_null("auc_relative_to_inlet");
    summary.regions.push_back(std::move(region));
  }
}

void read_branch_points(const Fields& root, Analysis& analysis) {
  for (const json& item : root.list("branch_points")) {
    const Fields fields(item, root.place() + ".branch_points");
    const auto at = fields.numbers("at_px", 2);
    BranchPoint branch{at[0], at[1], {}, fields.flag("crossing")};
    for (const double id : fields.numbers("segments"))
      for (std::size_t s = 0; s < analysis.segments.size(); ++s)
        if (analysis.segments[s].id == static_cast<int>(id)) branch.segments.push_back(static_cast<int>(s));
    analysis.branch_points.push_back(std::move(branch));
  }
}

/// Of findings, what one run can tell of its vessels by itself.
void read_injuries(const Fields& root, Analysis& analysis) {
  for (const json& item : root.list("findings")) {
    const Fields fields(item, root.place() + ".findings");
    Finding finding;
    finding.label = fields.words("label");
    if (injury_of(finding).empty()) continue;
    finding.segment = static_cast<int>(fields.number("segment"));
    const auto at = fields.numbers("at_px", 2);
    finding.at_px = {at[0], at[1]};
    for (const json& reason : fields.list("reasons"))
      if (reason.is_string()) finding.reasons.push_back(reason.get<std::string>());
    analysis.findings.push_back(std::move(finding));
  }
}

}  // namespace

bool is_analysis_folder(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(std::filesystem::path(path) / "analysis.json", error);
}

ComparedRun read_analysis(const std::string& folder) {
  const std::filesystem::path base(folder);
  const std::string path = (base / "analysis.json").string();
  const ByteSource file = ByteSource::file(path);
  if (file.size() > largest_file) throw InputError(path + ": " + std::to_string(file.size()) + " bytes are too many");
  const std::vector<std::uint8_t> bytes = file.read(0, file.size());
  const json parsed = json::parse(bytes.begin(), bytes.end(), nullptr, false);
  if (parsed.is_discarded()) throw InputError(path + ": not JSON");
  const Fields root(parsed, path);
  if (root.words("schema") != "cinelumen.analysis/1")
    throw InputError(path + ": schema \"" + root.words("schema") + "\", expected \"cinelumen.analysis/1\"");
  ComparedRun run;
  read_input(root.object("input"), run);
  Analysis& analysis = run.analysis;
  const Fields calibration = root.object("calibration");
  analysis.calibration.source = parse_source(calibration.words("source"), calibration.place());
  analysis.calibration.mm_per_px = calibration.number_or_null("mm_per_px").value_or(1);
  analysis.calibration.relative_sd = calibration.number_or_null("relative_sd").value_or(0);
  analysis.calibration.note = calibration.words("note");
  analysis.subtraction.moving_vessels = root.object("subtraction").flag("moving_vessels");
  for (const json& item : root.list("segments"))
    analysis.segments.push_back(
        read_segment(Fields(item, path + ".segments[" + std::to_string(analysis.segments.size()) + "]"), analysis.calibration.mm_per_px));
  read_branch_points(root, analysis);
  read_injuries(root, analysis);
  read_flow(root.object("flow"), analysis.flow);
  LogPicture mask = read_log_picture((base / mask_picture_name).string()), fullest = read_log_picture((base / opacification_name).string());
  for (const LogPicture* picture : {&mask, &fullest})
    if (picture->picture.height() != analysis.rows || picture->picture.width() != analysis.columns)
      throw InputError((base / (picture == &mask ? mask_picture_name : opacification_name)).string() + ": " +
                       std::to_string(picture->picture.width()) + " x " + std::to_string(picture->picture.height()) + " px, expected " +
                       std::to_string(analysis.columns) + " x " + std::to_string(analysis.rows) + " as in analysis.json");
  analysis.mask_picture = std::move(mask.picture);
  run.valid = std::move(mask.valid);
  analysis.maximum_opacification = std::move(fullest.picture);
  run.acquired = run.description.acquired;
  return run;
}

}  // namespace cinelumen
