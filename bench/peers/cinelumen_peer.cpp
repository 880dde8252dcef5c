// SPDX-License-Identifier: Apache-2.0
/// CineLumen on the peers' own files, by the same clock. B and C are its kernels on the common inputs. A, D and E are a whole analysis of
/// the run, which is what it does: A and D are the time that its stages took in one thread (masks, registration and subtraction; re-snap
/// and fits); E is all of it, with components, thinning and graph in every frame as the peers have them (`--variant once_per_run`: once,
/// as `cinelumen analyze` does).

#include <cmath>
#include <memory>

#include "engine/analysis.h"
#include "io/run_reader.h"
#include "kernels/hysteresis.h"
#include "kernels/thinning.h"
#include "kernels/vesselness.h"
#include "peer.h"

namespace {

using namespace peers;
using namespace cinelumen;

/// The run's frames, decoded once: the peers' are in memory, too.
class DecodedFrames : public FrameSource {
 public:
  explicit DecodedFrames(const Run& run) {
    for (int i = 0; i < run.frame_count(); ++i) {
      frames_.emplace_back(run.rows(), run.columns());
      run.frames->read_frame(i, frames_.back().view());
    }
  }
  int frame_count() const override { return static_cast<int>(frames_.size()); }
  int rows() const override { return frames_.front().height(); }
  int columns() const override { return frames_.front().width(); }
  void read_frame(int frame, ImageView<std::uint16_t> stored) const override {
    copy<std::uint16_t>(Stream::cpu({.parallel = false}), frames_[static_cast<std::size_t>(frame)].view(), stored);
  }

 private:
  std::vector<Image<std::uint16_t>> frames_;
};

/// Of every frame, what the scores compare.
class Collector : public AnalysisObserver {
 public:
  explicit Collector(const Cine& cine) : cine_(cine) {}
  void progress(const std::string&, int, int) override {}
  void topology_done(const Analysis& so_far) override { reference_frame = so_far.subtraction.reference_frame; }
  void frame_done(const FrameResult& frame) override {
    if (frame.frame >= cine_.first_live())
      shifts.insert(shifts.end(), {static_cast<float>(frame.subtraction->shift_x_px), static_cast<float>(frame.subtraction->shift_y_px)});
    if (!std::count(cine_.scored_frames.begin(), cine_.scored_frames.end(), frame.frame)) return;
    for (int y = 0; y < frame.subtracted.height; ++y)
      subtracted.insert(subtracted.end(), frame.subtracted.row(y), frame.subtracted.row(y) + frame.subtracted.width);
    diameters.emplace_back();
    for (const LumenPoint& point : *frame.lumen)
      if (point.used) diameters.back().insert(diameters.back().end(), {point.x_px, point.y_px, point.diameter_px});
  }
  std::vector<float> shifts, subtracted;
  std::vector<std::vector<float>> diameters;
  int reference_frame = 0;

 private:
  const Cine& cine_;
};

class OwnStages {
 public:
  explicit OwnStages(const Options& options)
      : options_(options),
        cine_(options.cine, options.stage.at(0)),
        stream_(options.threads > 1 ? Stream::cpu() : Stream::cpu({.parallel = false})) {
    set_cpu_threads(options.threads);
  }

  void run() {
    const char stage = options_.stage[0];
    if (stage == 'B') return vesselness();
    if (stage == 'C') return segment();
    run_ = read_run(cine_.base + ".dcm");
    run_.frames = std::make_shared<DecodedFrames>(run_);
    run_.mask_instructions.clear();  // which would have the mask frames averaged as they lie: the peers register them
    analysis_options_.topology_every_frame = stage == 'E' && options_.variant.empty();
    if (!options_.dump.empty()) return dump_analysis();
    if (stage == 'E')
      time_stage(name, options_, 1, run_.frame_count() - cine_.first_live(), true,
                 [&](int) { (void)analyze(stream_, run_, analysis_options_); });
    else if (stage == 'A')
      print_stages({"mask", "ingest", "registration", "opacification", "subtraction"});
    else
      print_stages({"re-snap", "diameters", "flow"});
  }

 private:
  static constexpr const char* name = "cinelumen";

  // Seconds of the named stages per live frame. Stages are timed by the clock: the processor's time is their share of all that was used.
  void print_stages(const std::vector<std::string>& stages) {
    const long loaded = memory("VmRSS:");
    double ms = 0;
    int rounds = 0;
    const double start = processor_seconds();
    const auto began = std::chrono::steady_clock::now();
    while (rounds == 0 || processor_seconds() - start < options_.seconds) {
      const Analysis analysis = analyze(stream_, run_, analysis_options_);
      for (const std::string& stage : stages)
        if (const auto found = analysis.timing.stages.find(stage); found != analysis.timing.stages.end()) ms += found->second;
      ++rounds;
    }
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - began;
    const double busy = std::min(1.0, (processor_seconds() - start) / passed.count());
    const double frames = static_cast<double>(rounds) * (run_.frame_count() - cine_.first_live()), seconds = 1e-3 * ms / frames;
    std::printf(
        "{\"peer\": \"%s\", \"stage\": \"%s\", \"threads\": %d, \"frames\": %.0f, \"cpu_s\": %.6f, \"wall_s\": %.6f, \"peak_kb\": %ld, "
        "\"load_kb\": %ld}\n",
        name, options_.stage.c_str(), options_.threads, frames, busy * seconds, seconds, memory("VmHWM:"), loaded);
  }

  void dump_analysis() {
    Collector seen(cine_);
    (void)analyze(stream_, run_, analysis_options_, &seen);
    if (options_.stage[0] == 'A') {
      write_file(options_.dump + ".shift.f32", seen.shifts);
      write_file(options_.dump + ".dsa.f32", seen.subtracted);
      write_file<int>(options_.dump + ".reference.i32", {seen.reference_frame});
      return;
    }
    for (std::size_t i = 0; i < seen.diameters.size(); ++i)
      write_file(options_.dump + ".diam" + std::to_string(i) + ".f32", seen.diameters[i]);
  }

  Image<float> plane(const std::vector<float>& planes, int i) const {
    Image<float> result(cine_.height, cine_.width);
    for (int y = 0; y < cine_.height; ++y)
      std::copy_n(planes.data() + cine_.pixels() * i + static_cast<std::size_t>(y) * cine_.width, cine_.width, result.row(y));
    return result;
  }
  template <class T>
  static void append(std::vector<T>& all, const Image<T>& image) {
    for (int y = 0; y < image.height(); ++y) all.insert(all.end(), image.view().row(y), image.view().row(y) + image.width());
  }

  // Of our scales, the nearest to each of the cine's.
  VesselnessOptions frangi() const {
    VesselnessOptions options;
    options.response = VesselnessResponse::frangi;
    options.planes = VesselnessPlanes::response;
    options.frangi_beta = static_cast<float>(cine_.frangi_beta);
    options.frangi_c = static_cast<float>(cine_.frangi_c);
    options.min_scale_px = vesselness_scales_px.front();
    options.max_scale_px = vesselness_scales_px.back();
    options.use_scale.fill(false);
    for (const double sigma : cine_.sigmas) {
      std::size_t nearest = 0;
      for (std::size_t i = 1; i < vesselness_scales_px.size(); ++i)
        if (std::abs(std::log(vesselness_scales_px[i] / sigma)) < std::abs(std::log(vesselness_scales_px[nearest] / sigma))) nearest = i;
      options.use_scale[nearest] = true;
    }
    return options;
  }
  void vesselness() {
    const int count = static_cast<int>(cine_.scored_frames.size());
    Vesselness filter(stream_, cine_.height, cine_.width);
    VesselnessMap map = make_vesselness_map(stream_, cine_.height, cine_.width);
    std::vector<Image<float>> planes;
    for (int i = 0; i < count; ++i) planes.push_back(plane(cine_.subtracted, i));
    const VesselnessOptions options = frangi();
    const auto compute = [&](int i) { filter.compute(stream_, planes[static_cast<std::size_t>(i)].view(), options, map); };
    if (options_.dump.empty()) return time_stage(name, options_, count, 1, true, compute);
    std::vector<float> responses;
    for (int i = 0; i < count; ++i) {
      compute(i);
      append(responses, map.response);
    }
    write_file(options_.dump + ".vess.f32", responses);
  }
  void segment() {
    const int count = static_cast<int>(cine_.scored_frames.size());
    Hysteresis components(stream_, cine_.height, cine_.width);
    Thinning thinning(stream_, cine_.height, cine_.width);
    Image<std::uint8_t> mask(cine_.height, cine_.width), skeleton(cine_.height, cine_.width);
    std::vector<Image<float>> planes;
    for (int i = 0; i < count; ++i) planes.push_back(plane(cine_.response, i));
    HysteresisOptions options;
    options.low = static_cast<float>(options_.low);
    options.high = static_cast<float>(options_.high);
    options.minimum_area_px = options_.least_area;
    options.minimum_length_px = 0;
    const auto compute = [&](int i) {
      components.segment(planes[static_cast<std::size_t>(i)].view(), {}, options, mask);
      thinning.thin(mask.view(), skeleton);
    };
    if (options_.dump.empty()) return time_stage(name, options_, count, 1, true, compute);
    std::vector<std::uint8_t> masks;
    for (int i = 0; i < count; ++i) {
      compute(i);
      append(masks, mask);
    }
    write_file(options_.dump + ".mask.u8", masks);
  }

  const Options options_;
  const Cine cine_;
  Stream stream_;
  Run run_;
  AnalysisOptions analysis_options_;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options(argc, argv);
    if (options.cine.empty() || options.stage.empty()) throw std::runtime_error("--cine FILE.json and --stage A|B|C|D|E are needed");
    OwnStages(options).run();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cinelumen: %s\n", error.what());
    return 1;
  }
}
