#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <deque>
#include <exception>
#include <filesystem>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/live_analysis.h"
#include "io/byte_source.h"
#include "io/frame_stream.h"
#include "io/live_page.h"
#include "io/live_results.h"
#include "io/trace_file.h"
#include "tools/analyze_options.h"
#include "tools/commands.h"

namespace cinelumen {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr int queued_frames = 32;  // a burst, or a second's pause of the machine; beyond it the source waits

struct Options {
  std::string source, output, trace, device = "auto", registration = "rigid", response = "noise-calibrated", diameter = "fit",
                                     page_address = "127.0.0.1";
  int threads = 0, page = -1;
  StreamOptions stream;
  LiveOptions live;
  ObjectOptions object;
  LiveResultOptions results;
};

std::atomic<bool> interrupted{false};
void interrupt(int) { interrupted = true; }

/// Times in steps of 0.05 ms up to 10 s, so that a day's stream takes no more room than a minute's.
class LatencyHistogram {
 public:
  void add(double ms) {
    largest_ = std::max(largest_, ms);
    ++bins_[std::min<std::size_t>(static_cast<std::size_t>(std::max(0.0, ms) / step_ms), bins_.size() - 1)];
    ++count_;
  }
  double quantile(double share) const {
    const auto wanted = static_cast<std::int64_t>(std::ceil(share * static_cast<double>(count_)));
    std::int64_t seen = 0;
    for (std::size_t i = 0; i < bins_.size(); ++i)
      if ((seen += bins_[i]) >= wanted && seen > 0) return std::min(largest_, (static_cast<double>(i) + 1) * step_ms);
    return largest_;
  }
  double largest() const { return largest_; }
  std::int64_t count() const { return count_; }

 private:
  static constexpr double step_ms = 0.05;
  std::vector<std::int64_t> bins_ = std::vector<std::int64_t>(200000, 0);
  double largest_ = 0;
  std::int64_t count_ = 0;
};

double since_ms(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

/// How late this machine wakes a thread that asked for 10 ms while no frame is being worked on: no latency can be told from it.
class IdleTimer {
 public:
  IdleTimer()
      : thread_([this] {
          while (!stop_) {
            const int phase = phase_;
            const Clock::time_point due = Clock::now() + std::chrono::milliseconds(10);
            std::this_thread::sleep_until(due);
            const double late_ms = since_ms(due);
            // Neither before it slept nor since has a frame been worked on.
            if (phase % 2 == 0 && phase_ == phase) late_.add(late_ms);
          }
        }) {}
  ~IdleTimer() { stop(); }
  /// A frame is worked on from now on, or no longer.
  void toggle() { ++phase_; }
  /// Stops it; then its figures may be read.
  const LatencyHistogram& stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    return late_;
  }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<int> phase_{0};  // odd while a frame is worked on
  LatencyHistogram late_;
  std::thread thread_;
};

/// Frames between the thread that takes them from their source and the one that measures them. Memory is made once.
class FrameQueue {
 public:
  struct Frame {
    Image<std::uint16_t> stored;
    Arrival arrival;
  };

  FrameQueue(int rows, int columns) {
    for (int i = 0; i < queued_frames; ++i) free_.push_back(std::make_unique<Frame>(Frame{Image<std::uint16_t>(rows, columns), {}}));
  }
  /// Reads the stream to its end; what it throws comes out of pop().
  void fill_from(FrameStream& stream) {
    Trace::name_thread("source");
    try {
      while (true) {
        std::unique_ptr<Frame> frame;
        {
          std::unique_lock lock(mutex_);
          changed_.wait(lock, [&] { return !free_.empty() || closed_; });
          if (closed_) return;
          frame = std::move(free_.back());
          free_.pop_back();
        }
        const std::optional<Arrival> arrival = [&] {
          const TraceSpan span("wait for the source and read");
          return stream.next(frame->stored.view());
        }();
        const std::lock_guard lock(mutex_);
        if (!arrival) break;
        frame->arrival = *arrival;
        full_.push_back(std::move(frame));
        changed_.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  /// The next frame; null at the end. Rethrows what ended the stream once all frames before it are out.
  std::unique_ptr<Frame> pop() {
    std::unique_lock lock(mutex_);
    {
      const TraceSpan span("wait for a frame");
      changed_.wait(lock, [&] { return !full_.empty() || ended_; });
    }
    if (full_.empty()) {
      if (error_) std::rethrow_exception(error_);
      return nullptr;
    }
    std::unique_ptr<Frame> frame = std::move(full_.front());
    full_.pop_front();
    return frame;
  }
  void give_back(std::unique_ptr<Frame> frame) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(frame));
    changed_.notify_all();
  }
  bool more_waiting() {
    const std::lock_guard lock(mutex_);
    return !full_.empty();
  }
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Frame>> free_;
  std::deque<std::unique_ptr<Frame>> full_;
  std::exception_ptr error_;
  bool ended_ = false, closed_ = false;
};

Json number(double value, double scale) {
  value *= scale;
  if (!std::isfinite(value)) return nullptr;
  return std::round(value * 1e4) / 1e4;
}
Json number(const std::optional<double>& value, double scale) { return value ? number(*value, scale) : Json(nullptr); }

Json event_of(const Finding& change) {
  const auto& ci95 = change.ci95;
  return {{"type", "calibre change"},
          {"segment", change.segment},
          {"onset_ms", number(change.onset_ms, 1)},
          {"narrowing_percent", number(change.narrowing_percent, 1)},
          {"ci95", ci95 ? Json{number((*ci95)[0], 1), number((*ci95)[1], 1)} : Json(nullptr)},
          {"probability", number(change.probability, 1)},
          {"grade", change.grade},
          {"extent_mm", number(change.extent_mm, 1)},
          {"at_px", {number(change.at_px[0], 1), number(change.at_px[1], 1)}},
          {"reasons", change.reasons}};
}

std::string line_of(const LiveFrame& frame, const Calibration& calibration, double latency_ms, std::int64_t dropped) {
  const double mm = calibration.known() ? calibration.mm_per_px : NAN;
  Json segments = Json::array();
  for (const LiveSegment& segment : frame.segments)
    segments.push_back({{"id", segment.id},
                        {"diameter_mm", number(segment.diameter_px, mm)},
                        {"sd_mm", number(segment.sd_px, mm)},
                        {"contrast", number(segment.contrast, 1)},
                        {"diameter_px", number(segment.diameter_px, 1)},
                        {"sd_px", number(segment.sd_px, 1)}});
  Json events = frame.events;
  for (const Finding& change : frame.changes) events.push_back(event_of(change));
  return Json{{"frame", frame.frame + 1},
              {"time_ms", number(frame.time_ms, 1)},
              {"latency_ms", number(latency_ms, 1)},
              {"mask", to_string(frame.mask)},
              {"shift_px", {number(frame.subtraction.shift_y_px, 1), number(frame.subtraction.shift_x_px, 1)}},
              {"segments", segments},
              {"events", events},
              {"dropped_for_display", dropped}}
      .dump();
}

std::string default_folder(const std::string& source) {
  if (source == "-") return "stream-cinelumen";
  std::filesystem::path path(source);
  if (!path.has_filename()) path = path.parent_path();
  std::string name = path.stem().string();
  for (char& c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == '/' || c == '%' || c == ':') c = '_';
  return (name.empty() || name == "." || name == ".." ? "stream" : name) + "-cinelumen-stream";
}

int stream_run(Options options, const GlobalOptions& global) {
  bool automatic = false;
  const int device = parse_device(options.device, automatic);
  options.live.registration = parse_registration(options.registration);
  options.live.response = parse_response(options.response);
  options.live.kept_frames = options.results.kept_frames;
  if (options.live.mm_per_px_relative_sd && !options.live.mm_per_px)
    throw std::invalid_argument("--mm-per-px-sd: expected together with --mm-per-px");
  options.live.object = parse_object(options.object);
  options.live.diameter = parse_diameter_rule(options.diameter);
  set_cpu_threads(options.threads);
  interrupted = false;
  std::signal(SIGINT, interrupt);
  std::signal(SIGTERM, interrupt);
  options.stream.stopped = [] { return interrupted.load(); };

  std::optional<TraceFile> trace;
  if (!options.trace.empty()) trace.emplace(options.trace);
  const std::unique_ptr<FrameStream> source = open_stream(options.source, options.stream);
  const Run& header = source->header();
  const Calibration calibration = calibrate(header.geometry, options.live.mm_per_px, options.live.mm_per_px_relative_sd);
  options.results.folder = options.output.empty() ? default_folder(options.source) : options.output;
  LiveResultWriter writer(header, calibration, options.results);
  LiveAnalysis live(device >= 0 ? Stream::cuda(device) : Stream::cpu(), header, options.live);
  std::optional<LivePage> page;
  if (options.page >= 0) {
    page.emplace(options.page_address, options.page, calibration.known() || options.live.object.given());
    std::fprintf(stderr, "live page: %s\n", page->url().c_str());
  }

  FrameQueue queue(header.rows(), header.columns());
  LatencyHistogram latency, work;
  IdleTimer timer;
  std::int64_t dropped = 0;
  std::string cut;
  std::thread reader([&] { queue.fill_from(*source); });
  const auto stop_reading = [&] {
    queue.close();
    interrupted = true;
    reader.join();
  };
  try {
    while (true) {
      std::unique_ptr<FrameQueue::Frame> frame;
      try {
        frame = queue.pop();
      } catch (const InputError& error) {
        // What came before it is whole: it is kept, and the fault said.
        cut = error.what();
      }
      if (!frame) break;
      timer.toggle();
      const Clock::time_point start = Clock::now();
      const LiveFrame& result = live.push(frame->stored.view(), frame->arrival.time_ms);
      const double latency_ms = since_ms(frame->arrival.arrived);
      latency.add(latency_ms);
      work.add(since_ms(start));
      const bool late = queue.more_waiting();
      dropped += late;
      const TraceSpan span("write", result.frame);
      const std::string line = line_of(result, live.calibration(), latency_ms, dropped);
      std::fputs((line + "\n").c_str(), stdout);
      if (std::fflush(stdout) != 0) break;  // nobody listens any more
      if (result.mask == MaskState::ready) writer.calibrate(live.calibration());
      writer.add(result);
      if (page && !late) page->show(result, line);
      queue.give_back(std::move(frame));
      timer.toggle();
    }
  } catch (...) {
    stop_reading();
    throw;
  }
  stop_reading();
  const LatencyHistogram& idle = timer.stop();

  Analysis analysis = live.finish();
  if (!cut.empty()) analysis.warnings.push_back(cut);
  {
    const TraceSpan span("finish the files");
    writer.finish(analysis);
  }
  if (trace) trace->write();
  std::fprintf(stderr,
               "%d frames; latency ms p50 %.2f p95 %.2f p99 %.2f max %.2f; work ms p50 %.2f p99 %.2f; %lld dropped for display, none for "
               "measurement; idle timer p99 %.2f ms late (between frames)\n",
               live.frame_count(), latency.quantile(0.5), latency.quantile(0.95), latency.quantile(0.99), latency.largest(),
               work.quantile(0.5), work.quantile(0.99), static_cast<long long>(dropped), idle.quantile(0.99));
  if (!global.quiet) {
    for (const std::string& warning : analysis.warnings) std::fprintf(stderr, "warning: %s\n", clean_text(warning, 1 << 12).c_str());
    std::fprintf(stderr, "report: %s\n", (options.results.folder / "report.html").c_str());
  }
  if (!cut.empty()) throw InputError(cut);
  return 0;
}

}  // namespace

void add_stream_command(CLI::App& app, const GlobalOptions& global, Command& command) {
  const auto options = std::make_shared<Options>();
  CLI::App* stream =
      app.add_subcommand("stream", "Frames as they arrive: one line of JSON each on stdout, the files of analyze at the end");
  stream
      ->add_option("SOURCE", options->source,
                   "- (raw frames on stdin), unix:PATH, a folder being written, a run to replay, a video device, file or address")
      ->required();
  stream->add_option("--output", options->output, "Folder for the results [<name of SOURCE>-cinelumen-stream]");
  stream->add_option("--device", options->device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  stream->add_option("--threads", options->threads, "CPU threads, 0: all")->check(CLI::Range(0, 4096))->capture_default_str();
  stream->add_option("--mm-per-px", options->live.mm_per_px, "Calibration at the vessels; goes before the source's")
      ->check(CLI::PositiveNumber);
  stream->add_option("--mm-per-px-sd", options->live.mm_per_px_relative_sd, "Its relative standard deviation [0.02]")
      ->check(CLI::Range(0.0, 0.999));
  add_object_options(*stream, options->object);
  add_diameter_option(*stream, options->diameter);
  stream->add_option("--frame-time", options->stream.frame_time_ms, "Time from frame to frame in ms; goes before the source's")
      ->check(CLI::PositiveNumber);
  stream->add_option("--spacing", options->stream.spacing_mm, "mm per pixel at the vessels, where the source has none")
      ->check(CLI::PositiveNumber);
  stream->add_option("--speed", options->stream.speed, "Of a replay: 2 is twice as fast, 0 as fast as it goes")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  stream->add_option("--idle", options->stream.idle_s, "Seconds after which a folder or socket to which nothing comes has ended")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  stream->add_option("--mask-frames", options->live.mask_frames, "First frames that the mask is chosen from")
      ->check(CLI::Range(4, 64))
      ->capture_default_str();
  stream
      ->add_option("--renew", options->live.renew_frames,
                   "The vessels are looked for again every so many frames [as many as half a second takes, 2 to 15]")
      ->check(CLI::Range(1, 1 << 20));
  stream->add_option("--keep", options->results.kept_frames, "Last frames kept for subtracted.dcm, the report's loop and the curves")
      ->check(CLI::Range(16, 1 << 20))
      ->capture_default_str();
  stream->add_option("--trace", options->trace, "Write what each thread did when: JSON for chrome://tracing or ui.perfetto.dev");
  stream->add_flag("--per-point", options->results.per_point, "lumen.csv with a row per centreline point and frame");
  stream->add_option("--page", options->page, "Serve a page with the live picture at this port of this machine, 0: any")
      ->check(CLI::Range(0, 65535));
  stream->add_option("--page-address", options->page_address, "IP address that the page listens on")->capture_default_str();
  stream->add_option("--registration", options->registration, "Move the mask onto each frame: none or rigid")
      ->check(CLI::IsMember({"none", "rigid"}))
      ->capture_default_str();
  stream->add_option("--response", options->response, "Vesselness: noise-calibrated, frangi, sato or jerman")
      ->check(CLI::IsMember({"noise-calibrated", "frangi", "sato", "jerman"}))
      ->capture_default_str();
  stream->callback([&global, &command, options] { command = [&global, options] { return stream_run(*options, global); }; });
}

}  // namespace cinelumen
