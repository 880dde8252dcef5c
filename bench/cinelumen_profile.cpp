/// cinelumen_profile SIDE FRAMES LOOK_FROM PASS: a synthetic foot run through the whole chain on the first CUDA device. A profiler is told
/// to look at frames LOOK_FROM (1-based) to FRAMES of pass 1 (subtracting) or 2 (measuring): the steady state, its memory made. Prints how
/// many frames that is. bench/profile.sh makes a table of what the profiler saw.

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <utility>

#include "engine/analysis.h"
#include "engine/phantom/phantom.h"
#include "kernels/profiler_range.h"

namespace {

using namespace cinelumen;

/// Turns the profiler on and off as the frames of a pass go by.
class SteadyState : public AnalysisObserver {
 public:
  SteadyState(int look_from, std::string pass) : look_from_(look_from), pass_(std::move(pass)) {}
  void progress(const std::string& pass, int done, int total) override {
    if (pass != pass_) return;
    if (done == look_from_ - 1) profile(true);
    if (done == total) profile(false);
  }
  void topology_done(const Analysis&) override {}
  void frame_done(const FrameResult&) override {}

 private:
  int look_from_;
  std::string pass_;
};

int run(int side, int frames, int look_from, int pass) {
  PhantomOptions options;
  options.scenario = "foot";
  options.rows = options.columns = side;
  options.frames = frames;
  options.contrast_free_frames = 5;
  options.inlet_velocity_mm_s = 300;  // few frames: the vessels must fill at once
  Run foot = make_run(make_phantom(options));
  // At a cine loop's rate, and as if it were long: every fourth frame makes the picture of the vessels.
  for (int i = 0; i < frames; ++i) foot.frame_times_ms[static_cast<std::size_t>(i)] = i * 1000.0 / 30;
  AnalysisOptions analysis_options;
  analysis_options.picture_frames = 1;
  SteadyState steady(look_from, pass == 1 ? "subtracting" : "measuring");
  const Analysis analysis = analyze(Stream::cuda(), foot, analysis_options, &steady);
  std::printf("{\"side\": %d, \"frames\": %d, \"segments\": %zu, \"device\": \"%s\"}\n", side, frames - look_from + 1,
              analysis.segments.size(), analysis.device.c_str());
  if (analysis.segments.empty()) {
    std::fprintf(stderr, "no vessel was found: diameters were not measured\n");
    return 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  int number[4] = {};
  for (int i = 0; i < 4 && i + 1 < argc; ++i) number[i] = std::atoi(argv[i + 1]);
  const auto [side, frames, from, pass] = number;
  if (argc != 5 || side < 64 || from < 2 || frames <= from || pass < 1 || pass > 2) {
    std::fprintf(stderr, "usage: cinelumen_profile SIDE FRAMES LOOK_FROM PASS\n");
    return 2;
  }
  try {
    return run(side, frames, from, pass);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cinelumen_profile: %s\n", error.what());
    return 3;
  }
}
