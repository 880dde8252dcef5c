#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/phantom/clinical_case.h"
#include "io/phantom_writer.h"
#include "tools/commands.h"

namespace cinelumen {
namespace {

int write_case(PhantomCaseOptions options, const std::string& folder, const GlobalOptions& global) {
  options.base.scenario = "foot";
  const PhantomTimeline timeline = write_phantom_case(PhantomCase(options), folder);
  std::map<std::string, int> labels;
  for (const PhantomSegmentTimeline& segment : timeline.segments) ++labels[segment.label];
  if (global.json) {
    const nlohmann::ordered_json summary = {{"output", folder},          {"scenario", "case"},        {"variant", options.variant},
                                            {"runs", phantom_case_runs}, {"rows", options.base.rows}, {"columns", options.base.columns},
                                            {"labels", labels}};
    std::printf("%s\n", summary.dump(2).c_str());
  } else if (!global.quiet) {
    std::printf("%s: run_01.dcm to run_%02d.dcm (%d x %d), truth.json (%zu segments), events.json\n", folder.c_str(), phantom_case_runs,
                options.base.rows, options.base.columns, timeline.segments.size());
    for (const auto& [label, count] : labels) std::printf("  %s: %d\n", label.c_str(), count);
  }
  return 0;
}

}  // namespace

void add_phantom_command(CLI::App& app, const GlobalOptions& global, Command& command) {
  struct Options {
    PhantomOptions phantom;
    std::string output;
    std::string encoding = "LIN";
    std::string dose;
    std::string variant = phantom_case_variants().front();
    bool no_devices = false;
    int size = 0;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* phantom = app.add_subcommand("phantom", "Write a synthetic run as DICOM, with truth.json beside it");
  std::string listed;
  for (const std::string& name : phantom_scenarios()) listed += (listed.empty() ? "" : "\n") + name + ": " + phantom_summary(name);
  listed += "\ncase: one foot over seven runs, before and after a valvulotomy, drugs, days and months";
  std::vector<std::string> names = phantom_scenarios();
  names.emplace_back("case");
  phantom->add_option("SCENARIO", options->phantom.scenario, listed)->required()->check(CLI::IsMember(names));
  phantom->add_option("-o,--output", options->output, "Folder for run_01.dcm ..., truth.json and events.json; default phantom_SCENARIO");
  std::string variants = "Of a case:";
  for (const std::string& name : phantom_case_variants()) variants += "\n" + name + ": " + phantom_case_summary(name);
  phantom->add_option("--variant", options->variant, variants)->check(CLI::IsMember(phantom_case_variants()))->capture_default_str();
  phantom->add_flag("--no-devices", options->no_devices, "A case without stent-grafts");
  phantom->add_option("--seed", options->phantom.seed, "Noise, motion and texture")->capture_default_str();
  phantom->add_option("--size", options->size, "Rows and columns, 64 to 4096; default 1024");
  phantom->add_option("--rows", options->phantom.rows, "Rows, 64 to 4096")->capture_default_str()->excludes("--size");
  phantom->add_option("--columns", options->phantom.columns, "Columns, 64 to 4096")->capture_default_str()->excludes("--size");
  phantom->add_option("--frames", options->phantom.frames, "Number of frames; default 24 or 48, by scenario; spasm 18.5 s, injury 15 s");
  phantom->add_option("--frame-time", options->phantom.frame_time_ms, "ms from frame to frame")->capture_default_str();
  phantom->add_option("--contrast-free", options->phantom.contrast_free_frames, "Frames before contrast enters")->capture_default_str();
  phantom->add_option("--noise", options->phantom.noise_log_sd,
                      "SD of the log intensity at the object's median, 0 for none; default 0.01, or 0.03 for frame times below 100 ms");
  phantom->add_option("--motion", options->phantom.motion_px,
                      "Amplitude of the translation in px, 0 to 8; default by scenario: 2, feet 1.5, motion-rigid 4");
  phantom->add_option("--rotation", options->phantom.rotation_deg, "Amplitude of the rotation in degrees, 0 to 0.3; default by scenario");
  phantom->add_option("--warp", options->phantom.warp_px,
                      "Largest non-rigid displacement in px; default 0, motion-nonrigid 3.5 at 1024 and in proportion at other sizes");
  phantom->add_option("--pitch", options->phantom.detector_pitch_mm,
                      "Detector pixel in mm; default 0.154 at 1024, else the same field of view");
  phantom->add_option("--attenuation", options->phantom.attenuation_per_mm, "Of undiluted contrast, per mm")->capture_default_str();
  phantom->add_option("--scatter", options->phantom.scatter_fraction, "Scattered over primary intensity")->capture_default_str();
  phantom->add_option("--glare", options->phantom.glare_fraction, "Part of the light that a broad veil takes up, 0 to 0.5")
      ->capture_default_str();
  phantom->add_option("--lag", options->phantom.lag_fraction, "Part of a frame's signal that is the frame before's, 0 to 0.9")
      ->capture_default_str();
  phantom->add_option("--onset", options->phantom.onset_ms,
                      "spasm: ms after the first frame when veins begin to narrow; default once all are filled");
  phantom
      ->add_option("--dose", options->dose,
                   "dsa: noise 0.01 at 250 ms from frame to frame; fluoroscopy: 0.03 at 66.7 ms; --noise and --frame-time override it")
      ->check(CLI::IsMember({"dsa", "fluoroscopy"}));
  phantom->add_option("--encoding", options->encoding, "LIN or LOG")->check(CLI::IsMember({"LIN", "LOG"}))->capture_default_str();
  phantom->add_option("--bits", options->phantom.bits_stored, "Bits stored, 8 to 16")->capture_default_str();
  phantom->callback([&global, &command, options, phantom] {
    PhantomOptions& asked = options->phantom;
    const bool is_case = asked.scenario == "case";
    for (const char* const name : {"--variant", "--no-devices"})
      if (!is_case && phantom->count(name) > 0) throw CLI::ValidationError(name, "is for the scenario 'case' alone");
    if (asked.scenario != "spasm" && phantom->count("--onset") > 0)
      throw CLI::ValidationError("--onset", "is for the scenario 'spasm' alone");
    if (is_case && phantom->count("--contrast-free") > 0) throw CLI::ValidationError("--contrast-free", "a case draws it for every run");
    const bool fluoroscopy = options->dose == "fluoroscopy";
    if (!options->dose.empty() && phantom->count("--frame-time") == 0) asked.frame_time_ms = fluoroscopy ? 66.7 : 250;
    if (!options->dose.empty() && !asked.noise_log_sd) asked.noise_log_sd = fluoroscopy ? 0.03 : 0.01;
    command = [&global, options] {
      PhantomOptions& wanted = options->phantom;
      if (options->size != 0) wanted.rows = wanted.columns = options->size;
      wanted.encoding = options->encoding == "LOG" ? IntensityRelationship::logarithmic : IntensityRelationship::linear;
      const std::string folder = options->output.empty() ? "phantom_" + wanted.scenario : options->output;
      if (wanted.scenario == "case") return write_case({wanted, options->variant, !options->no_devices}, folder, global);
      const PhantomRun run = make_phantom(wanted);
      write_phantom(run, folder);
      const PhantomTruth& truth = run.truth;
      if (global.json) {
        const nlohmann::ordered_json summary = {
            {"output", folder},          {"scenario", wanted.scenario},       {"frames", run.frames.size()}, {"rows", wanted.rows},
            {"columns", wanted.columns}, {"segments", truth.segments.size()}, {"mm_per_px", truth.mm_per_px}};
        std::printf("%s\n", summary.dump(2).c_str());
      } else if (!global.quiet) {
        std::printf("%s: run_01.dcm (%zu frames of %d x %d), truth.json (%zu segments), events.json\n", folder.c_str(), run.frames.size(),
                    wanted.rows, wanted.columns, truth.segments.size());
      }
      return 0;
    };
  });
}

}  // namespace cinelumen
