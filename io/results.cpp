#include "io/results.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>

#include "io/byte_source.h"
#include "io/derived_dicom.h"
#include "io/flow_json.h"
#include "io/json_text.h"
#include "io/log_picture.h"
#include "io/lumen_csv.h"
#include "io/output_folder.h"
#include "io/pictures.h"
#include "io/report.h"

namespace cinelumen {
namespace {

constexpr int report_side = 768, report_frames = 120;

Json scaled(const std::optional<double>& value, double factor) { return value ? json_number(*value * factor) : Json(nullptr); }
double hundredths(double value) { return std::round(value * 100) / 100; }

double time_of(const Analysis& analysis, std::size_t i) {
  return i < analysis.frame_times_ms.size() ? analysis.frame_times_ms[i] : std::numeric_limits<double>::quiet_NaN();
}

std::string frame_list(const std::vector<int>& frames) {
  std::string text;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    std::size_t last = i;
    while (last + 1 < frames.size() && frames[last + 1] == frames[last] + 1) ++last;
    text += (text.empty() ? "" : ",") + std::to_string(frames[i] + 1);
    if (last > i) text += "-" + std::to_string(frames[last] + 1);
    i = last;
  }
  return text;
}

Derivation derivation_of(const Analysis& so_far, const AnalysisOptions& options, const GreyWindow& window) {
  Derivation derivation;
  derivation.subtracted = so_far.subtracted;
  derivation.first_frame = so_far.first_frame;
  derivation.frames = so_far.frames;
  derivation.version = software_version();
  derivation.window = window;
  const MaskChoice& mask = so_far.subtraction.mask;
  if (so_far.subtracted) {
    derivation.description = "log subtraction; mask " + std::string(to_string(mask.source));
    if (!mask.frames().empty() && mask.frames().size() < 32) derivation.description += ", frames " + frame_list(mask.frames());
    derivation.description += options.registration == Registration::none
                                  ? std::string("; not registered")
                                  : std::string("; mask registered to every frame (") + to_string(options.registration) + ")";
  } else {
    derivation.description = "log attenuation of each frame; nothing was subtracted";
  }
  derivation.description +=
      "; frames " + std::to_string(so_far.first_frame + 1) + "-" + std::to_string(so_far.first_frame + so_far.frames) + " of the source";
  return derivation;
}

double median_step_ms(const std::vector<double>& times) {
  std::vector<double> steps;
  for (std::size_t i = 1; i < times.size(); ++i)
    if (times[i] > times[i - 1]) steps.push_back(times[i] - times[i - 1]);
  if (steps.empty()) return 0;
  std::nth_element(steps.begin(), steps.begin() + static_cast<std::ptrdiff_t>(steps.size() / 2), steps.end());
  return steps[steps.size() / 2];
}

}  // namespace

namespace {

// Of the centreline points that were measured, how many each gate holds.
Json gates_of(const SegmentResult& segment) {
  std::map<std::string, int> counts;
  for (const FillingGate gate : segment.gates)
    if (gate != FillingGate::unmeasured) ++counts[to_string(gate)];
  Json result = Json::object();
  for (const auto& [gate, count] : counts) result[gate] = count;
  return result;
}

// Along the centreline, point by point: what `compare` reads. 0 where nothing was measured.
Json profile_of(const SegmentResult& segment) {
  std::vector<double> diameter, sd, own_kappa, area_ratio, gates, radius;
  for (const DiameterProfile::Point& point : segment.profile.points) {
    diameter.push_back(point.sd_px > 0 ? point.diameter_px : 0);
    sd.push_back(point.sd_px);
    own_kappa.push_back(point.own_kappa);
    area_ratio.push_back(point.area_ratio);
  }
  for (const FillingGate gate : segment.gates) gates.push_back(static_cast<int>(gate));
  for (const CentrelinePoint& point : segment.centreline.points) radius.push_back(point.radius_px);
  return {{"diameter_px", json_numbers(diameter)},  {"sd_px", json_numbers(sd)},   {"own_attenuation", json_numbers(own_kappa)},
          {"area_ratio", json_numbers(area_ratio)}, {"gate", json_numbers(gates)}, {"traced_radius_px", json_numbers(radius)}};
}

}  // namespace

const char* software_version() { return CINELUMEN_VERSION; }
const char* software_commit() { return CINELUMEN_COMMIT; }

std::string analysis_json(const Run& run, const Analysis& analysis) {
  const RunDescription& description = run.description;
  const Calibration& calibration = analysis.calibration;
  const SubtractionSummary& subtraction = analysis.subtraction;
  const bool calibrated = calibration.known();
  const double mm = calibrated ? calibration.mm_per_px : std::numeric_limits<double>::quiet_NaN();

  Json root;
  root["schema"] = "cinelumen.analysis/1";
  root["software"] = {{"name", "CineLumen"},
                      {"version", software_version()},
                      {"commit", software_commit()},
                      {"device", json_words(analysis.device)},
                      {"threads", analysis.threads}};
  root["input"] = {
      {"path", json_words(description.path)},
      {"sha256", json_words(description.sha256)},
      {"sop_instance_uid", json_words(description.sop_instance_uid)},
      {"rows", run.rows()},
      {"columns", run.columns()},
      {"frames", run.frame_count()},
      {"bits_stored", run.intensity.bits_stored},
      {"transfer_syntax", json_words(description.transfer_syntax)},
      {"pixel_intensity_relationship", json_words(run.intensity.relationship_as_stored)},
      {"frame_times_ms", run.frame_times_ms.empty() ? Json(nullptr) : json_numbers(run.frame_times_ms)},
      {"first_frame", analysis.first_frame + 1},
      {"last_frame", analysis.first_frame + analysis.frames},
      {"acquired", json_words(description.acquired)},
      {"patient_id", json_words(description.patient_id)},
      {"study_instance_uid", json_words(description.study_instance_uid)},
      {"series_description", json_words(description.series_description)},
      {"body_part", json_words(description.body_part)},
      {"laterality", json_words(description.laterality)},
      {"positioner_primary_angle_deg", json_number(run.geometry.primary_angle_deg)},
      {"positioner_secondary_angle_deg", json_number(run.geometry.secondary_angle_deg)},
      {"imager_pixel_spacing_mm", run.geometry.imager_pixel_spacing_mm ? json_pair(*run.geometry.imager_pixel_spacing_mm) : Json(nullptr)},
      {"densitometric", analysis.densitometric},
      {"subtracted", analysis.subtracted}};
  root["calibration"] = {{"source", to_string(calibration.source)},
                         {"mm_per_px", json_number(mm)},
                         {"relative_sd", calibrated ? json_number(calibration.relative_sd) : Json(nullptr)},
                         {"note", json_words(calibration.note)}};
  const NoiseModel& noise = analysis.noise;
  const auto if_positive = [](double value) { return value > 0 ? json_number(value) : Json(nullptr); };
  root["noise"] = {{"gain", if_positive(noise.gain)},
                   {"electronic_sd", noise.gain > 0 ? json_number(noise.electronic_sd) : Json(nullptr)},
                   {"log_sd_at_median", if_positive(noise.log_sd_at_median)},
                   {"note", json_words(noise.note)}};

  Json mask_frames = Json::array(), frames = Json::array();
  for (const int frame : subtraction.mask.frames()) mask_frames.push_back(frame + 1);
  const bool bent = subtraction.registration == Registration::nonrigid;
  for (const FrameSubtraction& frame : subtraction.frames) {
    frames.push_back({{"frame", frame.frame + 1},
                      {"shift_px", Json::array({json_number(frame.shift_y_px), json_number(frame.shift_x_px)})},
                      {"rotation_rad", json_number(frame.rotation_rad)},
                      {"residual_sd", json_number(frame.residual_sd)},
                      {"contrast_score", json_number(frame.contrast_score)}});
    if (!bent) continue;
    frames.back()["displacement_rms_px"] = json_number(frame.displacement_rms_px);
    frames.back()["displacement_largest_px"] = json_number(frame.displacement_largest_px);
    frames.back()["residual_motion_px"] = json_number(frame.residual_motion_px);
    frames.back()["field_refused"] = frame.field_refused;
  }
  root["subtraction"] = {{"reference_frame", subtraction.reference_frame + 1},
                         {"topology_frame", subtraction.topology_frame < 0 ? Json(nullptr) : Json(subtraction.topology_frame + 1)},
                         {"topology_note", json_words(subtraction.topology_note)},
                         {"moving_vessels", subtraction.moving_vessels},
                         {"mask_source", to_string(subtraction.mask.source)},
                         {"mask_frames", mask_frames},
                         {"mask_notes", json_texts(subtraction.mask.notes)},
                         {"inflow_frame", subtraction.mask.inflow_frame < 0 ? Json(nullptr) : Json(subtraction.mask.inflow_frame + 1)},
                         {"registration", to_string(subtraction.registration)},
                         {"frames", frames}};

  root["segments"] = Json::array();
  for (const SegmentResult& segment : analysis.segments) {
    Json centreline = Json::array();
    for (const CentrelinePoint& point : segment.centreline.points)
      centreline.push_back(Json::array({json_number(hundredths(point.y)), json_number(hundredths(point.x))}));
    Json inferred = Json::array();  // [first, last] of each stretch, indices into centreline_px
    const std::vector<CentrelinePoint>& points = segment.centreline.points;
    for (std::size_t first = 0; first < points.size(); ++first) {
      if (!points[first].inferred) continue;
      std::size_t last = first;
      while (last + 1 < points.size() && points[last + 1].inferred) ++last;
      inferred.push_back(Json::array({first, last}));
      first = last;
    }
    const SegmentDiameter& diameter = segment.diameter;
    const SegmentFlow& flow = segment.flow;
    const Json minimum_at = diameter.minimum ? json_pair(diameter.minimum_at_px) : Json(nullptr);
    const auto diameters = [&](double factor) {
      return Json{
          {"median", scaled(diameter.median, factor)},         {"sd", scaled(diameter.sd, factor)},
          {"minimum", scaled(diameter.minimum, factor)},       {"minimum_at_px", minimum_at},
          {"reference", scaled(diameter.reference, factor)},   {"percent_stenosis", json_number(diameter.percent_stenosis)},
          {"minimum_sd", scaled(diameter.minimum_sd, factor)}, {"area_ratio_at_minimum", json_number(diameter.area_ratio_at_minimum)}};
    };
    // One SD of the median, the calibration's included; all other SDs and intervals leave it out, and ratios have none of it.
    std::optional<double> whole_sd;
    if (calibrated && diameter.median && diameter.sd) whole_sd = mm * std::hypot(*diameter.sd, calibration.relative_sd * *diameter.median);
    Json in_mm = diameters(mm);
    in_mm["sd_with_calibration"] = json_number(whole_sd);
    root["segments"].push_back({{"id", segment.id},
                                {"name", json_words(segment.name)},
                                {"length_mm", calibrated ? json_number(segment.length) : Json(nullptr)},
                                {"length_px", json_number(segment.centreline.length_px())},
                                {"centreline_px", centreline},
                                {"centreline_inferred", inferred},
                                {"filling", segment.filling},
                                {"filling_gates", gates_of(segment)},
                                {"arrival_ms", json_number(flow.times.arrival_ms)},
                                {"arrival_sd_ms", json_number(flow.times.arrival_sd_ms)},
                                {"time_to_peak_ms", json_number(flow.times.time_to_peak_ms)},
                                {"mean_transit_ms", json_number(flow.times.mean_transit_ms)},
                                {"velocity_mm_s", calibrated ? json_number(flow.velocity_mm_s) : Json(nullptr)},
                                {"velocity_sd_mm_s", calibrated ? json_number(flow.velocity_sd_mm_s) : Json(nullptr)},
                                {"velocity_is_lower_bound", flow.velocity_is_lower_bound},
                                {"auc_relative_to_inlet", json_number(flow.auc_relative_to_inlet)},
                                {"role", segment.role.empty() ? Json(nullptr) : Json(segment.role)},
                                {"diameter_mm", in_mm},
                                {"diameter_px", diameters(1)},
                                {"profile", profile_of(segment)}});
  }

  root["branch_points"] = Json::array();
  for (const BranchPoint& branch : analysis.branch_points) {
    Json ids = Json::array();
    for (const int index : branch.segments) ids.push_back(analysis.segments[static_cast<std::size_t>(index)].id);
    root["branch_points"].push_back(
        {{"at_px", json_pair(std::array{branch.y, branch.x})}, {"segments", ids}, {"crossing", branch.crossing}});
  }

  root["flow"] = flow_json(analysis.flow);

  root["findings"] = Json::array();
  for (const Finding& finding : analysis.findings)
    root["findings"].push_back({{"segment", finding.segment > 0 ? Json(finding.segment) : Json(nullptr)},
                                {"label", finding.label},
                                {"grade", json_words(finding.grade)},
                                {"narrowing_percent", json_number(finding.narrowing_percent)},
                                {"ci95", finding.ci95 ? json_pair(*finding.ci95) : Json(nullptr)},
                                {"extent_mm", json_number(finding.extent_mm)},
                                {"at_px", json_pair(finding.at_px)},
                                {"onset_ms", json_number(finding.onset_ms)},
                                {"probability", json_number(finding.probability)},
                                {"reasons", json_texts(finding.reasons)}});

  Json stages = Json::object();
  for (const auto& [stage, ms] : analysis.timing.stages) stages[stage] = json_number(ms);
  root["timing_ms"] = {{"total", json_number(analysis.timing.total)},
                       {"per_frame_p50", json_number(analysis.timing.per_frame_p50)},
                       {"per_frame_p99", json_number(analysis.timing.per_frame_p99)},
                       {"stages", stages}};
  root["warnings"] = json_texts(analysis.warnings);
  return json_text(root);
}

std::string csv_cell(const std::string& text) {
  std::string cell = clean_text(text);
  // A spreadsheet takes these first characters for the start of a formula.
  if (!cell.empty() && std::string("=+-@").find(cell.front()) != std::string::npos) cell.insert(cell.begin(), '\'');
  if (cell.find_first_of(",\"\r\n") == std::string::npos) return cell;
  std::string quoted = "\"";
  for (const char c : cell) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string time_density_csv(const Analysis& analysis) {
  std::string text = "frame,time_ms,segment,contrast\n";
  const auto rows = [&](const std::string& cell, const TimeDensityCurve& curve) {
    for (std::size_t i = 0; i < curve.contrast.size(); ++i) {
      append_number(text, analysis.first_frame + static_cast<int>(i) + 1);
      text += ',';
      append_number(text, time_of(analysis, i), 3);
      text += ',' + cell + ',';
      append_number(text, curve.contrast[i], 6);
      text += '\n';
    }
  };
  for (const SegmentResult& segment : analysis.segments) rows(std::to_string(segment.id), segment.flow.curve);
  for (const RegionFlow& region : analysis.flow.regions) rows(csv_cell(region.name), region.curve);
  return text;
}

struct ResultWriter::State {
  State(const Run& r, const AnalysisOptions& a, ResultOptions o)
      : run(r),
        analysis_options(a),
        options(std::move(o)),
        folder(options.folder, {"analysis.json", "lumen.csv", "time_density.csv", "subtracted.dcm", "maximum_opacification.png",
                                "overlay.mp4", "report.html", mask_picture_name, opacification_name}) {}

  /// A frame, encoded.
  struct Prepared {
    std::string rows, image;
    Image<std::uint8_t> grey;           // where there is a video
    std::vector<std::uint8_t> picture;  // where the report shows it
  };

  Prepared prepare(const FrameResult& frame) const {
    Prepared prepared;
    if (frame.lumen) prepared.rows = lumen->rows_of(frame.frame, frame.time_ms, *frame.lumen, ids);
    prepared.image = dicom->encode(frame.subtracted);
    const std::int64_t i = frame.frame - first_frame;
    const bool shown = i == 0 || i * report_total / analysed != (i + 1) * report_total / analysed;
    if (!shown && !video) return prepared;
    prepared.grey = Image<std::uint8_t>(run.rows(), run.columns());
    to_grey(frame.display.data ? frame.display : frame.subtracted, window, prepared.grey);
    if (shown) prepared.picture = encode_jpeg(prepared.grey.view(), report_side);
    return prepared;
  }

  void count(const FrameResult& frame) {
    if (!frame.lumen) return;
    for (const LumenPoint& point : *frame.lumen) {
      const auto index = static_cast<std::size_t>(point.segment);
      if (index < counts.size()) counts[index].add(point);
    }
  }

  const Run& run;
  const AnalysisOptions& analysis_options;
  ResultOptions options;
  OutputFolder folder;
  std::optional<LumenCsv> lumen;
  std::optional<DerivedDicomWriter> dicom;
  std::optional<OverlayVideo> video;
  std::vector<std::string> warnings;
  GreyWindow window;
  std::vector<int> ids;
  std::vector<MeasurementCount> counts;
  std::vector<ReportFrame> frames;
  std::int64_t analysed = 0, report_total = 0, first_frame = 0;
  std::atomic<std::chrono::steady_clock::rep> spent{0};
};

namespace {

/// Adds the time until it goes to a sum.
class Stopwatch {
 public:
  explicit Stopwatch(std::atomic<std::chrono::steady_clock::rep>& sum) : sum_(sum) {}
  ~Stopwatch() { sum_ += (std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::atomic<std::chrono::steady_clock::rep>& sum_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

ResultWriter::ResultWriter(const Run& run, const AnalysisOptions& analysis_options, ResultOptions options)
    : state_(std::make_unique<State>(run, analysis_options, std::move(options))) {}

ResultWriter::~ResultWriter() = default;

void ResultWriter::progress(const std::string& stage, int done, int total) {
  if (state_->options.progress) state_->options.progress(stage, done, total);
}

void ResultWriter::topology_done(const Analysis& so_far) {
  State& state = *state_;
  const Stopwatch stopwatch(state.spent);
  state.analysed = std::max(1, so_far.frames);
  state.first_frame = so_far.first_frame;
  state.report_total = std::min<std::int64_t>(state.analysed, report_frames);
  for (const SegmentResult& segment : so_far.segments) state.ids.push_back(segment.id);
  state.counts.resize(state.ids.size());
  if (!so_far.maximum_opacification.empty()) state.window = choose_window(so_far.maximum_opacification.view(), so_far.subtracted);
  state.lumen.emplace(state.folder.temporary("lumen.csv"), so_far.calibration);
  state.dicom.emplace(state.run, state.folder.temporary("subtracted.dcm"), derivation_of(so_far, state.analysis_options, state.window));
  if (state.options.video) {
    const double step_ms = median_step_ms(so_far.frame_times_ms);
    state.video.emplace(state.folder.scratch(), state.run.rows(), state.run.columns(), step_ms > 0 ? 1000 / step_ms : 15);
    if (!state.video->available()) {
      state.video.reset();
      state.warnings.push_back(
          "overlay.mp4 was not written: OpenCV finds no H.264 encoder here (avc1 through FFmpeg, as Debian's and Ubuntu's have it)");
    }
  }
}

std::shared_ptr<const void> ResultWriter::prepare(const FrameResult& frame) {
  State& state = *state_;
  const Stopwatch stopwatch(state.spent);
  if (!state.dicom) throw std::logic_error("ResultWriter: a frame before the topology");
  return std::make_shared<const State::Prepared>(state.prepare(frame));
}

void ResultWriter::frame_done(const FrameResult& frame) {
  State& state = *state_;
  const std::shared_ptr<const void> held = frame.prepared ? frame.prepared : prepare(frame);
  const auto& prepared = *static_cast<const State::Prepared*>(held.get());
  const Stopwatch stopwatch(state.spent);
  state.count(frame);
  state.lumen->add(prepared.rows);
  state.dicom->append(prepared.image);
  if (!prepared.picture.empty()) {
    ReportFrame kept{frame.frame, frame.time_ms, 0, 0, prepared.picture};
    if (frame.subtraction) kept.shift_y_px = frame.subtraction->shift_y_px, kept.shift_x_px = frame.subtraction->shift_x_px;
    state.frames.push_back(std::move(kept));
  }
  if (state.video) state.video->add(prepared.grey.view(), frame, state.ids);
}

void ResultWriter::finish(Analysis& analysis) {
  State& state = *state_;
  {
    const Stopwatch stopwatch(state.spent);
    if (!state.dicom) throw std::logic_error("ResultWriter: finished before the topology");
    state.lumen->close();
    state.lumen->mark(analysis.partly_filled, state.ids, state.folder.scratch());
    for (const PartlyFilled& part : analysis.partly_filled) state.counts[static_cast<std::size_t>(part.segment)].take_out(part);
    state.dicom->finish();
    if (state.video) state.video->finish(state.folder.temporary("overlay.mp4"));
    analysis.warnings.insert(analysis.warnings.end(), state.warnings.begin(), state.warnings.end());
    state.warnings.clear();
    state.folder.write("time_density.csv", time_density_csv(analysis));
    const std::vector<std::uint8_t> picture = draw_maximum_opacification(analysis, state.window);
    state.folder.write("maximum_opacification.png", {reinterpret_cast<const char*>(picture.data()), picture.size()});
    write_log_pictures(state.folder, analysis, state.run.field.valid());
    ReportInput input;
    input.window = state.window;
    input.frames = std::move(state.frames);
    input.counts = state.counts;
    input.has_video = state.video.has_value();
    input.version = software_version();
    input.commit = software_commit();
    state.folder.write("report.html", report_html(state.run, analysis, input));
  }
  analysis.timing.stages["write"] = write_ms();
  const Stopwatch stopwatch(state.spent);
  state.folder.write("analysis.json", analysis_json(state.run, analysis));
  state.folder.commit();
}

double ResultWriter::write_ms() const {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::duration(state_->spent.load())).count();
}

}  // namespace cinelumen
