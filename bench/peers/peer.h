// SPDX-License-Identifier: Apache-2.0
#pragma once
/// What every peer in C++ shares: the cine and its stage inputs, the command line, and how a stage is timed. A peer is a class with
///
///     using Plane = ...; using Mask = ...;                       // the library's own images
///     Peer(const Cine&, const Options&);
///     Plane plane(const float*) const; Mask mask(const std::uint8_t*) const;           // views or copies of stage inputs
///     const float* pixels(const Plane&) const; const std::uint8_t* pixels(const Mask&) const;
///     void make_mask();                                          // of the cine's mask frames
///     Plane subtract(int frame, Shift*) const;                   // A: ln mask - ln frame, mask registered
///     Plane vesselness(const Plane&) const;                      // B: Frangi's
///     Segmentation<Mask> segment(const Plane&) const;            // C: hysteresis, components, thinning
///     std::vector<float> diameters(const Mask&, const Mask& skeleton) const;           // D: x, y, diameter of every skeleton pixel
///     void each(int count, const std::function<void(int)>&) const;                     // over its threads, where it takes whole frames
///
/// and hands itself to run_peer().

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace peers {

struct Options {
  std::string cine, stage, variant, dump;  // dump: write results to DUMP.* instead of timing
  int threads = 1, most_frames = 1 << 30, least_area = 30;
  double seconds = 1, low = 0, high = 0;

  Options(int argc, char** argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
      const std::string name = argv[i], value = argv[i + 1];
      if (name == "--cine") cine = value;
      if (name == "--stage") stage = value;
      if (name == "--variant") variant = value;
      if (name == "--dump") dump = value;
      if (name == "--threads") threads = std::stoi(value);
      if (name == "--most-frames") most_frames = std::stoi(value);
      if (name == "--seconds") seconds = std::stod(value);
      if (name == "--low") low = std::stod(value);
      if (name == "--high") high = std::stod(value);
    }
  }
};

template <class T>
std::vector<T> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error(path + ": can't be read");
  std::vector<T> values(static_cast<std::size_t>(file.tellg()) / sizeof(T));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(T)));
  return values;
}

template <class T>
void write_file(const std::string& path, const std::vector<T>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(T)));
  if (!file.flush()) throw std::runtime_error(path + ": can't be written");
}

/// NAME.json with NAME.raw and the inputs of the later stages, which are the same for every peer; see README.md. Only what the stage needs
/// is read.
struct Cine {
  int width = 0, height = 0, frames = 0;
  std::string base;
  std::vector<double> sigmas;
  std::vector<int> mask_frames, scored_frames;
  double frangi_beta = 0, frangi_c = 0;
  std::vector<std::uint16_t> raw;
  std::vector<float> subtracted, response;
  std::vector<std::uint8_t> mask, skeleton;

  Cine(const std::string& path, char stage) : base(path.substr(0, path.rfind('.'))) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error(path + ": can't be read");
    const nlohmann::json header = nlohmann::json::parse(file);
    width = header.at("width");
    height = header.at("height");
    frames = header.at("frames");
    sigmas = header.at("sigmas").get<std::vector<double>>();
    mask_frames = header.at("mask_frames").get<std::vector<int>>();
    scored_frames = header.at("eval_frames").get<std::vector<int>>();
    frangi_beta = header.at("frangi_beta");
    frangi_c = header.at("frangi_c");
    if (stage == 'A' || stage == 'E') raw = read_file<std::uint16_t>(base + ".raw");
    if (stage == 'B') subtracted = read_file<float>(base + ".ref_dsa.f32");
    if (stage == 'C') response = read_file<float>(base + ".ref_vess.f32");
    if (stage == 'D') {
      mask = read_file<std::uint8_t>(base + ".ref_mask.u8");
      skeleton = read_file<std::uint8_t>(base + ".ref_skel.u8");
    }
  }
  std::size_t pixels() const { return static_cast<std::size_t>(width) * height; }
  int first_live() const { return mask_frames.back() + 1; }
  const std::uint16_t* frame(int i) const { return raw.data() + pixels() * i; }
};

struct Shift {
  double x = 0, y = 0;
};

template <class Mask>
struct Segmentation {
  Mask mask, skeleton;
};

inline double processor_seconds() {
  rusage use;
  getrusage(RUSAGE_SELF, &use);
  return static_cast<double>(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

/// kB, of /proc/self/status.
inline long memory(const char* key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.rfind(key, 0) == 0) return std::atol(line.c_str() + std::strlen(key) + 1);
  return 0;
}

/// Runs batch(0), batch(1) ... batch(batches - 1), batch(0) ... for options.seconds at least and prints a line of JSON: seconds per frame,
/// of all threads and by the clock. `frames`: of a batch.
inline void time_stage(const char* peer, const Options& options, int batches, int frames, bool warm_up,
                       const std::function<void(int)>& batch) {
  const long loaded = memory("VmRSS:");
  if (warm_up) batch(0);
  const double processor = processor_seconds();
  const auto start = std::chrono::steady_clock::now();
  std::chrono::duration<double> passed{0};
  int done = 0;
  while (done == 0 || (passed.count() < options.seconds && done * frames < options.most_frames)) {
    batch(done++ % batches);
    passed = std::chrono::steady_clock::now() - start;
  }
  const double count = static_cast<double>(done) * frames;
  std::printf(
      "{\"peer\": \"%s\", \"stage\": \"%s\", \"threads\": %d, \"frames\": %.0f, \"cpu_s\": %.6f, \"wall_s\": %.6f, \"peak_kb\": %ld, "
      "\"load_kb\": %ld}\n",
      peer, options.stage.c_str(), options.threads, count, (processor_seconds() - processor) / count, passed.count() / count,
      memory("VmHWM:"), loaded);
}

template <class Peer>
class StageRun {
 public:
  StageRun(const char* name, const Options& options)
      : name_(name), options_(options), cine_(options.cine, options.stage.at(0)), peer_(cine_, options) {}

  void run() {
    switch (options_.stage[0]) {
      case 'A':
        return options_.dump.empty() ? time_subtraction() : dump_subtraction();
      case 'B':
        return options_.dump.empty() ? time_frames([&](int i) { (void)peer_.vesselness(plane(cine_.subtracted, i)); }) : dump_vesselness();
      case 'C':
        return options_.dump.empty() ? time_frames([&](int i) { (void)peer_.segment(plane(cine_.response, i)); }) : dump_segmentation();
      case 'D':
        return options_.dump.empty() ? time_frames([&](int i) { (void)diameters_of(i); })
                                     : dump_diameters([&](int i) { return diameters_of(i); });
      case 'E':
        return options_.dump.empty() ? time_chain() : dump_chain();
      default:
        throw std::runtime_error("--stage " + options_.stage + ": expected A, B, C, D or E");
    }
  }

 private:
  using Plane = typename Peer::Plane;
  using Mask = typename Peer::Mask;
  int scored() const { return static_cast<int>(cine_.scored_frames.size()); }
  Plane plane(const std::vector<float>& planes, int i) const { return peer_.plane(planes.data() + cine_.pixels() * i); }
  std::vector<float> diameters_of(int i) const {
    return peer_.diameters(peer_.mask(cine_.mask.data() + cine_.pixels() * i), peer_.mask(cine_.skeleton.data() + cine_.pixels() * i));
  }
  // From a frame to its diameters.
  std::vector<float> chain(int frame, Segmentation<Mask>& found) const {
    found = peer_.segment(peer_.vesselness(peer_.subtract(frame, nullptr)));
    return peer_.diameters(found.mask, found.skeleton);
  }

  template <class Frame>
  void time_frames(Frame frame) {
    const int at_once = options_.threads, count = scored();
    time_stage(name_, options_, count, at_once, true,
               [&](int batch) { peer_.each(at_once, [&](int k) { frame((batch * at_once + k) % count); }); });
  }
  // The mask is made anew each time: its cost is spread over the frames.
  void time_subtraction() {
    const int first = cine_.first_live(), count = cine_.frames - first;
    time_stage(name_, options_, 1, count, false, [&](int) {
      peer_.make_mask();
      peer_.each(count, [&](int i) { (void)peer_.subtract(first + i, nullptr); });
    });
  }
  void time_chain() {
    const int first = cine_.first_live(), count = std::min(cine_.frames - first, options_.most_frames);
    time_stage(name_, options_, 1, count, false, [&](int) {
      peer_.make_mask();
      peer_.each(count, [&](int i) {
        Segmentation<Mask> found;
        (void)chain(first + i, found);
      });
    });
  }

  template <class T, class Image>
  void append(std::vector<T>& all, const Image& image) const {
    const T* const first = peer_.pixels(image);
    all.insert(all.end(), first, first + cine_.pixels());
  }
  void dump_subtraction() {
    peer_.make_mask();
    std::vector<float> planes, shifts;
    for (int frame = cine_.first_live(); frame < cine_.frames; ++frame) {
      Shift shift;
      const Plane subtracted = peer_.subtract(frame, &shift);
      shifts.insert(shifts.end(), {static_cast<float>(shift.x), static_cast<float>(shift.y)});
      if (std::count(cine_.scored_frames.begin(), cine_.scored_frames.end(), frame)) append(planes, subtracted);
    }
    write_file(options_.dump + ".dsa.f32", planes);
    write_file(options_.dump + ".shift.f32", shifts);
  }
  void dump_vesselness() {
    std::vector<float> planes;
    for (int i = 0; i < scored(); ++i) append(planes, peer_.vesselness(plane(cine_.subtracted, i)));
    write_file(options_.dump + ".vess.f32", planes);
  }
  void dump_segmentation() {
    std::vector<std::uint8_t> masks;
    for (int i = 0; i < scored(); ++i) append(masks, peer_.segment(plane(cine_.response, i)).mask);
    write_file(options_.dump + ".mask.u8", masks);
  }
  template <class Diameters>
  void dump_diameters(Diameters diameters) {
    for (int i = 0; i < scored(); ++i) write_file(options_.dump + ".diam" + std::to_string(i) + ".f32", diameters(i));
  }
  void dump_chain() {
    peer_.make_mask();
    std::vector<std::uint8_t> masks;
    dump_diameters([&](int i) {
      Segmentation<Mask> found;
      const std::vector<float> diameters = chain(cine_.scored_frames[i], found);
      append(masks, found.mask);
      return diameters;
    });
    write_file(options_.dump + ".mask.u8", masks);
  }

  const char* name_;
  const Options& options_;
  Cine cine_;
  Peer peer_;
};

/// The peer's main(): 0, or 1 with a line on stderr.
template <class Peer>
int run_peer(const char* name, int argc, char** argv) {
  try {
    const Options options(argc, argv);
    if (options.cine.empty() || options.stage.empty()) throw std::runtime_error("--cine FILE.json and --stage A|B|C|D|E are needed");
    StageRun<Peer>(name, options).run();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name, error.what());
    return 1;
  }
}

}  // namespace peers
