/// cinelumen_accuracy [SCENARIO] [SIDE] [SEEDS] [FIRST_SEED]: makes phantom runs in memory, analyses them, and compares every figure with
/// the truth.

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "support/matching.h"

int main(int argc, char** argv) {
  using namespace cinelumen;
  using namespace cinelumen::test;
  const std::string scenario = argc > 1 ? argv[1] : "tubes";
  const int side = argc > 2 ? std::atoi(argv[2]) : 1024, seeds = argc > 3 ? std::atoi(argv[3]) : 1,
            first_seed = argc > 4 ? std::atoi(argv[4]) : 101;
  if (side < 64 || side > 4096 || seeds < 1) {
    std::fprintf(stderr, "usage: cinelumen_accuracy [tubes|foot] [side 64-4096] [seeds] [first seed]\n");
    return 2;
  }
  std::vector<DiameterBin> bins = {{0.6, 0.8, {}, {}}, {0.8, 1, {}, {}},  {1, 1.5, {}, {}}, {1.5, 2, {}, {}},
                                   {2, 3, {}, {}},     {3, 4.01, {}, {}}, {4.01, 6, {}, {}}};
  const Stream stream = Stream::cpu();
  for (int seed = first_seed; seed < first_seed + seeds; ++seed) {
    PhantomOptions options;
    options.scenario = scenario;
    options.rows = options.columns = side;
    options.seed = static_cast<std::uint64_t>(seed);
    const PhantomRun phantom = make_phantom(options);
    const Run run = make_run(phantom);
    DiameterObserver observer(phantom.truth, bins);
    const Analysis analysis = analyze(stream, run, {}, &observer);
    observer.finish(analysis);
    const MotionFigures motion = compare_motion(analysis, phantom.truth);
    const CentrelineFigures lines = compare_centrelines(analysis, phantom.truth, 0.8);
    std::printf(
        "%s %d seed %d: %zu segments, mask frames %zu (inflow %d, true %d), shift %.3f px rms (whole field %.3f), recall %.3f precision "
        "%.3f "
        "centreline %.3f px rms (clear of others %.3f, without the %.1f %% inferred %.3f), %.0f %% of points used, noise %.4f\n",
        scenario.c_str(), side, seed, analysis.segments.size(), analysis.subtraction.mask.frames().size(),
        analysis.subtraction.mask.inflow_frame + 1, phantom.truth.first_contrast_frame + 1, motion.shift_rms_px, motion.field_rms_px,
        lines.recall, lines.precision, lines.error_rms_px, lines.clear_error_rms_px, 100 * lines.inferred_share,
        lines.measured_error_rms_px, 100 * observer.used_share(), analysis.noise.log_sd_at_median);
    std::printf("  %s\n", analysis.subtraction.topology_note.c_str());
    std::printf("  %.0f ms:", analysis.timing.total);
    for (const auto& [stage, ms] : analysis.timing.stages) std::printf(" %s %.0f,", stage.c_str(), ms);
    std::printf("\n");
    for (const std::string& warning : analysis.warnings) std::printf("  warning: %s\n", warning.c_str());
  }
  std::printf(
      "\n| true diameter mm | single frame: points | bias mm | SD mm | covered | pooled: points | bias mm | SD mm | covered "
      "|\n|---|---|---|---|---|---|---|---|---|\n");
  for (const DiameterBin& bin : bins) {
    const ErrorFigures s = bin.single.figures(), p = bin.pooled.figures();
    std::printf("| %.1f-%.1f | %d | %+.3f | %.3f | %.1f %% | %d | %+.3f | %.3f | %.1f %% |\n", bin.from_mm, bin.to_mm, s.count, s.bias,
                s.sd, 100 * s.coverage, p.count, p.bias, p.sd, 100 * p.coverage);
  }
  return 0;
}
