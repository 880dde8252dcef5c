/// cinelumen_profile SIDE FRAMES [LOOK_FROM]: a synthetic foot run through the whole chain on the first CUDA device. A profiler is told to
/// look at frames LOOK_FROM (1-based, default 3) to FRAMES of both passes: the steady state, its memory made. Prints how many frames that
/// is. bench/profile.sh makes a table of what the profiler saw.

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "engine/analysis.h"
#include "engine/phantom/phantom.h"
#include "kernels/profiler_range.h"

namespace {

using namespace cinelumen;

/// Turns the profiler on and off as the frames of each pass go by.
class SteadyState : public AnalysisObserver {
 public:
  explicit SteadyState(int look_from) : look_from_(look_from) {}
  void progress(const std::string&, int done, int total) override {
    if (done == look_from_ - 1) profile(true);
    if (done == total) profile(false);
  }
  void topology_done(const Analysis&) override {}
  void frame_done(const FrameResult&) override {}

 private:
  int look_from_;
};

int run(int side, int frames, int look_from) {
  PhantomOptions options;
  options.scenario = "foot";
  options.rows = options.columns = side;
  options.frames = frames;
  options.contrast_free_frames = 5;
  const Run foot = make_run(make_phantom(options));
  SteadyState steady(look_from);
  const Analysis analysis = analyze(Stream::cuda(), foot, {}, &steady);
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
  const int side = argc > 1 ? std::atoi(argv[1]) : 0, frames = argc > 2 ? std::atoi(argv[2]) : 0, from = argc > 3 ? std::atoi(argv[3]) : 3;
  if (argc < 3 || argc > 4 || side < 64 || from < 2 || frames <= from) {
    std::fprintf(stderr, "usage: cinelumen_profile SIDE FRAMES [LOOK_FROM]\n");
    return 2;
  }
  try {
    return run(side, frames, from);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cinelumen_profile: %s\n", error.what());
    return 3;
  }
}
