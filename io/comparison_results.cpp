#include "io/comparison_results.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "io/flow_json.h"
#include "io/json_text.h"
#include "io/lumen_csv.h"
#include "io/results.h"

namespace cinelumen {
namespace {

template <class Pair>
Json pair_or_null(const std::optional<Pair>& values) {
  return values ? json_pair(*values) : Json(nullptr);
}

/// A length: null where it would be of pixels.
template <class Value>
Json json_mm(const Value& value, bool calibrated) {
  return calibrated ? json_number(value) : Json(nullptr);
}

Json narrowing_json(const Narrowing& n, bool calibrated) {
  return {{"narrowing_percent", json_number(n.percent)},
          {"ci95", json_pair(n.ci95)},
          {"probability_over_25", json_number(n.probability_25)},
          {"probability_over_50", json_number(n.probability_50)},
          {"probability_over_90", json_number(n.probability_90)},
          {"at_least", n.at_least},
          {"at_mm", json_mm(n.at_mm, calibrated)},
          {"extent_mm", json_mm(n.extent_mm(), calibrated)},
          {"extent_across_branchings_mm", json_mm(n.spread_mm, calibrated)},
          {"half_depth_mm", json_mm(n.half_depth_mm(), calibrated)}};
}

Json entry_json(const TimelineEntry& entry, bool calibrated) {
  Json narrowings = Json::array();
  for (const Narrowing& narrowing : entry.change.narrowings) narrowings.push_back(narrowing_json(narrowing, calibrated));
  return {{"run", entry.run + 1},
          {"segment", entry.segment > 0 ? Json(entry.segment) : Json(nullptr)},
          {"state", to_string(entry.state)},
          {"diameter_mm", json_mm(entry.diameter_mm, calibrated)},
          {"sd_mm", json_mm(entry.sd_mm, calibrated)},
          {"percent_of_reference", json_number(entry.percent_of_reference)},
          {"ci95", pair_or_null(entry.ci95)},
          {"largest_narrowing", entry.change.known ? narrowing_json(entry.change.largest, calibrated) : Json(nullptr)},
          {"narrowings", narrowings},
          {"arrival_ms", json_number(entry.arrival_ms)},
          {"velocity_mm_s", json_number(entry.velocity_mm_s)},
          {"auc_relative_to_inlet", json_number(entry.auc_relative_to_inlet)},
          {"label_then", entry.label_then},
          {"label_now", entry.label_now},
          {"reasons", json_texts(entry.reasons)}};
}

Json thresholds_json(const ComparisonThresholds& t) {
  return {{"note", "spasm grades: axillary vein, Europace 2012, an extrapolation; all others: our own proposal, not clinically validated"},
          {"narrowing_percent", t.narrowing_percent},
          {"mild_percent", t.mild_percent},
          {"severe_percent", t.severe_percent},
          {"spasm_extent_mm", t.spasm_extent_mm},
          {"notch_extent_mm", t.notch_extent_mm},
          {"recovery", t.recovery},
          {"refractory_recovery", t.refractory_recovery},
          {"same_site_mm", t.same_site_mm},
          {"same_size_percent", t.same_size_percent},
          {"false_discovery_rate", t.false_discovery_rate},
          {"no_change_probability", t.no_change_probability},
          {"angulation_deg", t.angulation_deg},
          {"procedure_hours", t.procedure_hours},
          {"focal_mm", t.focal_mm},
          {"diffuse_mm", t.diffuse_mm},
          {"diffuse_segments", t.diffuse_segments},
          {"layered_density", t.layered_density},
          {"shoulder_percent", t.shoulder_percent},
          {"shoulder_least_percent", t.shoulder_least_percent},
          {"measurable_mm", t.measurable_mm},
          {"measured_share", t.measured_share},
          {"occluded_mm", t.occluded_mm},
          {"arrival_sds", t.arrival_sds},
          {"arrival_relative_sd", t.arrival_relative_sd},
          {"procedure_scale_sd", t.procedure_scale_sd},
          {"other_scale_sd", t.other_scale_sd},
          {"bone_scale_sd", t.bone_scale_sd},
          {"moving_calibre_sd", t.moving_calibre_sd}};
}

std::string event_words(const RunEvent& event) {
  std::string words = to_string(event.kind);
  if (!event.drug.empty()) words += (words.empty() ? "" : ": ") + event.drug + (event.dose.empty() ? "" : " " + event.dose);
  return words;
}

}  // namespace

std::string comparison_json(const Comparison& comparison, const std::vector<ComparedRun>& runs, const std::vector<std::string>& folders) {
  Json root;
  root["schema"] = "cinelumen.comparison/1";
  root["software"] = {{"name", "CineLumen"}, {"version", software_version()}, {"commit", software_commit()}};
  root["reference_note"] = json_words(comparison.reference_note);
  root["runs"] = Json::array();
  for (const ComparedRunSummary& summary : comparison.runs) {
    const auto given = static_cast<std::size_t>(summary.given);
    const ComparedRun& run = runs[given];
    root["runs"].push_back({{"index", summary.index + 1},
                            {"path", json_words(run.description.path)},
                            {"sha256", json_words(run.description.sha256)},
                            {"analysis", given < folders.size() ? json_words(folders[given]) : Json(nullptr)},
                            {"acquired", json_words(run.acquired)},
                            {"event", json_words(to_string(run.event.kind))},
                            {"drug", json_words(run.event.drug)},
                            {"dose", json_words(run.event.dose)},
                            {"is_reference", summary.is_reference},
                            {"comparable", summary.comparable},
                            {"note", json_words(summary.note.empty() ? run.event.note : summary.note)},
                            {"procedure", summary.procedure + 1},
                            {"registration", summary.comparable ? Json{{"rotation_deg", json_number(summary.registration.rotation_deg)},
                                                                       {"scale", json_number(summary.registration.scale)},
                                                                       {"correlation", json_number(summary.registration.correlation)}}
                                                                : Json(nullptr)},
                            {"common_calibre_factor", json_number(std::exp(summary.scale_offset))},
                            {"common_calibre_factor_sd", json_number(summary.scale_offset_sd)},
                            {"matched_share", json_number(summary.matched_share)},
                            {"segments_without_reference", summary.unmatched},
                            {"flow", flow_json(run.analysis.flow)}});
  }
  root["segments"] = Json::array();
  for (const SegmentTimeline& segment : comparison.segments) {
    Json timeline = Json::array(), probabilities = Json::object();
    for (const TimelineEntry& entry : segment.entries) timeline.push_back(entry_json(entry, comparison.calibrated));
    for (const auto& [label, p] : segment.probabilities) probabilities[label] = json_number(p);
    root["segments"].push_back({{"id", segment.id},
                                {"name", json_words(segment.name)},
                                {"role", json_words(segment.role)},
                                {"at_px", json_pair(segment.at_px)},
                                {"length_mm", json_mm(segment.length_mm, comparison.calibrated)},
                                {"label", segment.label},
                                {"grade", segment.grade},
                                {"narrowing_percent", json_number(segment.narrowing_percent)},
                                {"ci95", pair_or_null(segment.ci95)},
                                {"extent_mm", json_mm(segment.extent_mm, comparison.calibrated)},
                                {"recovery", json_number(segment.recovery)},
                                {"probabilities", probabilities},
                                {"reasons", json_texts(segment.reasons)},
                                {"timeline", timeline}});
  }
  root["summary"] = {{"spasm_extent", comparison.summary.spasm_extent},
                     {"response", comparison.summary.response},
                     {"spastic_segments", comparison.summary.spastic_segments},
                     {"spastic_mm", json_mm(comparison.summary.spastic_mm, comparison.calibrated)}};
  root["thresholds"] = thresholds_json(comparison.thresholds);
  root["warnings"] = json_texts(comparison.warnings);
  return json_text(root);
}

std::string comparison_csv(const Comparison& comparison, const std::vector<ComparedRun>& runs) {
  std::string text =
      "segment,name,run,event,run_segment,state,diameter_mm,sd_mm,percent_of_reference,ci95_low,ci95_high,narrowing_percent,"
      "narrowing_ci95_low,narrowing_ci95_high,extent_mm,label_then,label_now\n";
  for (const SegmentTimeline& segment : comparison.segments)
    for (const TimelineEntry& entry : segment.entries) {
      const auto number = [&](const std::optional<double>& value, int decimals) {
        text += ',';
        if (value) append_number(text, *value, decimals);
      };
      const Narrowing& largest = entry.change.largest;
      const auto known = [&](double value) { return entry.change.known ? std::optional(value) : std::nullopt; };
      const auto mm = [&](const std::optional<double>& value) { return comparison.calibrated ? value : std::nullopt; };
      const ComparedRun& run = runs[static_cast<std::size_t>(comparison.runs[static_cast<std::size_t>(entry.run)].given)];
      text += std::to_string(segment.id) + ',' + csv_cell(segment.name) + ',' + std::to_string(entry.run + 1) + ',' +
              csv_cell(event_words(run.event)) + ',' + (entry.segment > 0 ? std::to_string(entry.segment) : "") + ',' +
              to_string(entry.state);
      number(mm(entry.diameter_mm), 4);
      number(mm(entry.sd_mm), 4);
      number(entry.percent_of_reference, 2);
      number(entry.ci95 ? std::optional((*entry.ci95)[0]) : std::nullopt, 2);
      number(entry.ci95 ? std::optional((*entry.ci95)[1]) : std::nullopt, 2);
      number(known(largest.percent), 2);
      number(known(largest.ci95[0]), 2);
      number(known(largest.ci95[1]), 2);
      number(mm(known(largest.extent_mm())), 2);
      text += ',' + csv_cell(entry.label_then) + ',' + csv_cell(entry.label_now) + '\n';
    }
  return text;
}

}  // namespace cinelumen
