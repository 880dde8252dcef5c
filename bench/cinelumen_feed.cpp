/// cinelumen_feed SIDE FRAMES_PER_S SECONDS: a synthetic foot run on standard output, frame by frame at the pace of a detector, in the
/// format that `cinelumen stream -` reads. A frame that the reader does not take in time is late, never left out; how late, is said at the
/// end.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include "bench/repeated_frames.h"
#include "engine/phantom/phantom.h"

namespace {

using namespace cinelumen;

bool write_all(const char* bytes, std::size_t count) {
  while (count > 0) {
    const ssize_t written = ::write(STDOUT_FILENO, bytes, count);
    if (written <= 0) return false;
    bytes += written;
    count -= static_cast<std::size_t>(written);
  }
  return true;
}

int feed(int side, double frames_per_s, double seconds) {
  PhantomOptions options;
  options.scenario = "foot";
  options.rows = options.columns = side;
  options.frames = 90;
  options.frame_time_ms = 1000 / frames_per_s;
  options.contrast_free_frames = 12;
  options.inlet_velocity_mm_s = 300;  // 90 frames are three seconds: the vessels must fill in them
  const PhantomRun phantom = make_phantom(options);
  const int count = static_cast<int>(frames_per_s * seconds);
  const bench::RepeatedFrames frames(make_run(phantom).frames, std::max(count, 1));
  std::printf(
      "{\"rows\": %d, \"columns\": %d, \"bits_stored\": 12, \"frame_time_ms\": %.6f, \"mm_per_px\": %.6f, "
      "\"pixel_intensity_relationship\": \"LIN\"}\n",
      side, side, options.frame_time_ms, phantom.truth.mm_per_px);
  std::fflush(stdout);

  Image<std::uint16_t> stored(side, side);
  const std::chrono::duration<double> step(1 / frames_per_s);
  const auto start = std::chrono::steady_clock::now();
  double latest_ms = 0;
  for (int i = 0; i < count; ++i) {
    frames.read_frame(i, stored.view());
    const auto due = start + std::chrono::duration_cast<std::chrono::steady_clock::duration>((i + 1) * step);
    std::this_thread::sleep_until(due);
    for (int y = 0; y < side; ++y)
      if (!write_all(reinterpret_cast<const char*>(stored.row(y)), sizeof(std::uint16_t) * static_cast<std::size_t>(side))) return 1;
    const std::chrono::duration<double, std::milli> late = std::chrono::steady_clock::now() - due;
    latest_ms = std::max(latest_ms, late.count());
  }
  std::fprintf(stderr, "fed %d frames, the latest %.1f ms behind its time\n", count, latest_ms);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const int side = argc == 4 ? std::atoi(argv[1]) : 0;
  const double frames_per_s = argc == 4 ? std::atof(argv[2]) : 0, seconds = argc == 4 ? std::atof(argv[3]) : 0;
  if (side < 64 || frames_per_s <= 0 || seconds <= 0) {
    std::fprintf(stderr, "usage: cinelumen_feed SIDE FRAMES_PER_S SECONDS\n");
    return 2;
  }
  return feed(side, frames_per_s, seconds);
}
