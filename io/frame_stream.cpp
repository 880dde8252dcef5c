#include "io/frame_stream.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>
#include <set>
#include <thread>

#include "io/byte_source.h"
#include "io/field_of_view.h"
#include "io/run_reader.h"
#include "io/video_reader.h"

namespace cinelumen {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int largest_side = 16384;
constexpr std::size_t longest_header = 1 << 16;

/// One frame, as a run's.
class OneFrame : public FrameSource {
 public:
  explicit OneFrame(ImageView<const std::uint16_t> frame) : frame_(frame) {}
  int frame_count() const override { return 1; }
  int rows() const override { return frame_.height; }
  int columns() const override { return frame_.width; }
  void read_frame(int, ImageView<std::uint16_t> stored) const override { copy<std::uint16_t>(Stream::cpu(), frame_, stored); }

 private:
  ImageView<const std::uint16_t> frame_;
};

Clock::duration milliseconds(double ms) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(ms));
}

/// Gives frames their times: equal steps where they are known, else when they came.
class FrameClock {
 public:
  explicit FrameClock(std::optional<double> step_ms) : step_ms_(step_ms) {}
  Arrival now() {
    const Clock::time_point arrived = Clock::now();
    if (count_ == 0) start_ = arrived;
    double time_ms = std::chrono::duration<double, std::milli>(arrived - start_).count();
    if (step_ms_)
      time_ms = *step_ms_ * count_;
    else if (count_ > 0)
      time_ms = std::max(time_ms, last_ms_ + 1e-3);  // two frames in one read
    ++count_;
    last_ms_ = time_ms;
    return {time_ms, arrived};
  }

 private:
  std::optional<double> step_ms_;
  Clock::time_point start_;
  double last_ms_ = 0;
  int count_ = 0;
};

bool is_stopped(const std::function<bool()>& stopped) { return stopped && stopped(); }

/// False where the wait was stopped.
bool wait_until(Clock::time_point due, const std::function<bool()>& stopped) {
  constexpr auto patience = std::chrono::milliseconds(100);
  while (Clock::now() + patience < due) {
    if (is_stopped(stopped)) return false;
    std::this_thread::sleep_for(patience);
  }
  std::this_thread::sleep_until(due);
  return !is_stopped(stopped);
}

void calibrate_by(Run& run, std::optional<double> spacing_mm) {
  if (!spacing_mm) return;
  run.geometry.pixel_spacing_mm = {{*spacing_mm, *spacing_mm}};
  run.geometry.pixel_spacing_calibration = "FIDUCIAL";
}

/// Frames as bytes, from a pipe or a socket.
class RawStream : public FrameStream {
 public:
  RawStream(std::string name, int descriptor, bool owned, const StreamOptions& options)
      : name_(std::move(name)), descriptor_(descriptor), owned_(owned), stopped_(options.stopped), clock_({}) {
#ifdef F_SETPIPE_SZ
    constexpr int pipe_bytes = 1 << 20;  // fewer wake-ups per frame; of a socket it is refused
    (void)::fcntl(descriptor_, F_SETPIPE_SZ, pipe_bytes);
#endif
    const nlohmann::json json = read_header();
    const auto number = [&](const char* key, double least, double most, std::optional<double> otherwise) {
      if (!json.contains(key) || json[key].is_null()) {
        if (!otherwise) throw InputError(name_ + ": the header line has no \"" + key + "\"");
        return *otherwise;
      }
      const double value = json[key].is_number() ? json[key].get<double>() : NAN;
      if (!(value >= least && value <= most))
        throw InputError(name_ + ": \"" + key + "\" is " + clean_text(json[key].dump(), 40) + ", a number from " + in_words(least) +
                         " to " + in_words(most) + " expected");
      return value;
    };
    const int rows = static_cast<int>(number("rows", 16, largest_side, {})),
              columns = static_cast<int>(number("columns", 16, largest_side, {}));
    header_.intensity.bits_stored = static_cast<int>(number("bits_stored", 1, 16, {}));
    header_.intensity.value.resize(std::size_t(1) << header_.intensity.bits_stored);
    for (std::size_t i = 0; i < header_.intensity.value.size(); ++i) header_.intensity.value[i] = static_cast<float>(i);
    const std::string relationship = json.value("pixel_intensity_relationship", std::string("DISP"));
    header_.intensity.relationship_as_stored = relationship;
    if (relationship == "LIN")
      header_.intensity.relationship = IntensityRelationship::linear;
    else if (relationship == "LOG")
      header_.intensity.relationship = IntensityRelationship::logarithmic;
    else if (relationship != "DISP")
      header_.warnings.push_back("pixel_intensity_relationship is \"" + clean_text(relationship, 40) +
                                 "\", LIN, LOG or DISP expected; taken as DISP.");
    const double step = options.frame_time_ms.value_or(number("frame_time_ms", 0, 1e6, 0.0));
    clock_ = FrameClock(step > 0 ? std::optional(step) : std::nullopt);
    const double spacing = options.spacing_mm.value_or(number("mm_per_px", 0, 100, 0.0));
    calibrate_by(header_, spacing > 0 ? std::optional(spacing) : std::nullopt);
    header_.description.path = name_;
    header_.frames = std::make_shared<SizeOnly>(0, rows, columns);
    first_ = Image<std::uint16_t>(rows, columns);
    has_first_ = read(first_.view());
    header_.field = find_field(OneFrame(first_.view()));
  }
  ~RawStream() override {
    if (owned_) ::close(descriptor_);
  }

  std::optional<Arrival> next(ImageView<std::uint16_t> stored) override {
    if (has_first_) {
      copy<std::uint16_t>(Stream::cpu(), first_.view(), stored);
      has_first_ = false;
      return clock_.now();
    }
    if (!read(stored)) return {};
    return clock_.now();
  }

 private:
  static std::string in_words(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
  }

  // Bytes into `to`; how many came before the end.
  std::size_t read_bytes(void* to, std::size_t count) {
    std::size_t done = 0;
    while (done < count) {
      pollfd waiting{descriptor_, POLLIN, 0};
      const int ready = ::poll(&waiting, 1, 200);
      if (is_stopped(stopped_)) break;
      if (ready == 0) continue;
      const ssize_t got = ::read(descriptor_, static_cast<char*>(to) + done, count - done);
      if (got == 0) break;
      if (got < 0) {
        if (errno == EINTR) continue;
        throw InputError(name_ + ": " + std::strerror(errno));
      }
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

  nlohmann::json read_header() {
    std::string line;
    for (char c = 0; c != '\n';) {
      if (read_bytes(&c, 1) == 0) throw InputError(name_ + ": ended before its header line; one line of JSON expected, then frames");
      if (c != '\n') line += c;
      if (line.size() > longest_header) throw InputError(name_ + ": no header line; one line of JSON expected, then frames");
    }
    nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object())
      throw InputError(name_ + ": the header line is \"" + clean_text(line, 60) +
                       R"(", a JSON object with "rows", "columns" and "bits_stored" expected)");
    if (json.contains("pixel_intensity_relationship") && !json["pixel_intensity_relationship"].is_string())
      json.erase("pixel_intensity_relationship");
    return json;
  }

  bool read(ImageView<std::uint16_t> stored) {
    // Little-endian, as this machine is.
    const std::size_t row_bytes = static_cast<std::size_t>(stored.width) * 2;
    const auto largest = static_cast<std::uint16_t>((1u << header_.intensity.bits_stored) - 1);
    // Rows that lie side by side come in one piece.
    const int rows_at_once = stored.pitch == stored.width ? stored.height : 1;
    for (int y = 0; y < stored.height; y += rows_at_once) {
      const std::size_t wanted = row_bytes * static_cast<std::size_t>(rows_at_once), got = read_bytes(stored.row(y), wanted);
      if (got == 0 && y == 0) return false;
      if (got < wanted && is_stopped(stopped_)) return false;
      if (got < wanted)
        throw InputError(name_ + ": frame " + std::to_string(frames_ + 1) +
                         " is cut short: " + std::to_string(static_cast<std::size_t>(y) * row_bytes + got) + " of " +
                         std::to_string(row_bytes * static_cast<std::size_t>(stored.height)) + " bytes came");
      for (int r = y; r < y + rows_at_once; ++r) {
        std::uint16_t* row = stored.row(r);
        for (int x = 0; x < stored.width; ++x) row[x] = std::min(row[x], largest);
      }
    }
    ++frames_;
    return true;
  }

  std::string name_;
  int descriptor_;
  bool owned_, has_first_ = false;
  std::function<bool()> stopped_;
  int frames_ = 0;
  Image<std::uint16_t> first_;
  FrameClock clock_;
};

/// Waits for the first to connect to a local socket made at `path`.
int accept_at(const std::string& path, double idle_s) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    throw InputError("unix:" + path + ": a socket's path of 1 to " + std::to_string(sizeof address.sun_path - 1) + " characters expected");
  std::memcpy(address.sun_path, path.c_str(), path.size());
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto failed = [&](const char* what) {
    const std::string reason = std::strerror(errno);
    if (listener >= 0) ::close(listener);
    return InputError("unix:" + path + ": " + what + ": " + reason);
  };
  if (listener < 0) throw failed("can't make a socket");
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode)) ::unlink(path.c_str());  // left over by an earlier start
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) throw failed("can't make it");
  if (::listen(listener, 1) != 0) throw failed("can't listen");
  pollfd waiting{listener, POLLIN, 0};
  const int ready = ::poll(&waiting, 1, static_cast<int>(std::min(idle_s * 1000, 2e9)));
  int connection = -1;
  if (ready > 0) connection = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  ::unlink(path.c_str());
  if (ready == 0) {
    ::close(listener);
    throw InputError("unix:" + path + ": nobody connected within " + std::to_string(static_cast<int>(idle_s)) + " s (--idle)");
  }
  if (connection < 0) throw failed("can't accept");
  ::close(listener);
  return connection;
}

/// A run, replayed.
class Replay : public FrameStream {
 public:
  Replay(const std::string& path, const StreamOptions& options) : speed_(options.speed), stopped_(options.stopped) {
    Run run = read_run(path, {.frame_time_ms = options.frame_time_ms, .spacing_mm = options.spacing_mm});
    frames_ = run.frames;
    times_ms_ = run.frame_times_ms;
    if (times_ms_.empty() && run.frame_count() > 1) {
      constexpr double usual_ms = 1000.0 / 15;
      for (int i = 0; i < run.frame_count(); ++i) times_ms_.push_back(i * usual_ms);
      run.warnings.push_back("The run gives no frame times: replayed at 15 frames/s; --frame-time says otherwise.");
    }
    for (const MaskInstruction& mask : run.mask_instructions)
      if (mask.operation != MaskInstruction::Operation::none) {
        run.warnings.push_back("The file's Mask Module is not followed in a stream: the mask is made from the first frames.");
        break;
      }
    run.frames = std::make_shared<SizeOnly>(0, frames_->rows(), frames_->columns());
    run.frame_times_ms.clear();
    header_ = std::move(run);
  }
  std::optional<Arrival> next(ImageView<std::uint16_t> stored) override {
    if (next_ >= frames_->frame_count()) return {};
    const int frame = next_++;
    frames_->read_frame(frame, stored);
    const double time_ms = times_ms_.empty() ? 0 : times_ms_[static_cast<std::size_t>(frame)];
    if (frame == 0) start_ = Clock::now();
    if (is_stopped(stopped_)) return {};
    if (speed_ <= 0) return Arrival{time_ms, Clock::now()};
    const Clock::time_point due = start_ + milliseconds(time_ms / speed_);
    if (!wait_until(due, stopped_)) return {};
    return Arrival{time_ms, due};
  }

 private:
  double speed_;
  std::function<bool()> stopped_;
  std::shared_ptr<const FrameSource> frames_;
  std::vector<double> times_ms_;
  Clock::time_point start_;
  int next_ = 0;
};

/// A folder into which files are being written.
class GrowingFolder : public FrameStream {
 public:
  GrowingFolder(std::string folder, const StreamOptions& options)
      : folder_(std::move(folder)),
        idle_s_(options.idle_s),
        read_options_{.frame_time_ms = options.frame_time_ms, .spacing_mm = options.spacing_mm},
        stopped_(options.stopped),
        clock_({}) {
    if (!open_next()) throw InputError(folder_ + ": no file came within " + std::to_string(static_cast<int>(idle_s_)) + " s (--idle)");
    Run& run = *file_;
    std::optional<double> step = options.frame_time_ms;
    if (!step && run.frame_times_ms.size() > 1) step = run.frame_times_ms[1] - run.frame_times_ms[0];
    clock_ = FrameClock(step);
    header_.description = run.description;
    header_.description.path = folder_;
    header_.intensity = run.intensity;
    header_.geometry = run.geometry;
    header_.field = std::move(run.field);
    header_.window = run.window;
    header_.warnings = run.warnings;
    header_.frames = std::make_shared<SizeOnly>(0, run.rows(), run.columns());
  }
  std::optional<Arrival> next(ImageView<std::uint16_t> stored) override {
    while (!file_ || frame_ >= file_->frame_count())
      if (!open_next()) return {};
    if (file_->rows() != header_.rows() || file_->columns() != header_.columns() ||
        file_->intensity.bits_stored != header_.intensity.bits_stored)
      throw InputError(file_->description.path + ": " + std::to_string(file_->columns()) + " x " + std::to_string(file_->rows()) +
                       " pixels of " + std::to_string(file_->intensity.bits_stored) + " bits; the first file has " +
                       std::to_string(header_.columns()) + " x " + std::to_string(header_.rows()) + " of " +
                       std::to_string(header_.intensity.bits_stored));
    file_->frames->read_frame(frame_++, stored);
    return clock_.now();
  }

 private:
  // The next file by name that has stopped growing; false where none came in time.
  bool open_next() {
    const Clock::time_point end = Clock::now() + milliseconds(1000 * idle_s_);
    while (true) {
      std::vector<std::string> names;
      std::error_code error;
      for (fs::directory_iterator at(folder_, error), last; !error && at != last; at.increment(error)) {
        const std::string name = at->path().filename().string(), ending = at->path().extension().string();
        if (name.front() == '.' || ending == ".tmp" || ending == ".part" || done_.count(name) || !at->is_regular_file(error)) continue;
        names.push_back(name);
      }
      if (error) throw InputError(folder_ + ": " + error.message());
      if (!names.empty()) {
        const std::string name = *std::min_element(names.begin(), names.end(), natural_less);
        const fs::path path = fs::path(folder_) / name;
        const std::uintmax_t size = fs::file_size(path, error);
        if (!error && size > 0 && size == size_ && name == growing_) {
          done_.insert(name);
          file_.emplace(read_run(path.string(), read_options_));
          frame_ = 0;
          growing_.clear();
          return true;
        }
        growing_ = name;
        size_ = error ? 0 : size;
      }
      if (is_stopped(stopped_) || (names.empty() && Clock::now() > end)) return false;
      if (Clock::now() > end + milliseconds(1000 * idle_s_)) return false;  // a file that never stops growing
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

  std::string folder_, growing_;
  double idle_s_;
  ReadOptions read_options_;
  std::set<std::string> done_;
  std::uintmax_t size_ = 0;
  std::optional<Run> file_;
  int frame_ = 0;
  std::function<bool()> stopped_;
  FrameClock clock_;
};

/// A camera or a network stream: grey made for display.
class Camera : public FrameStream {
 public:
  Camera(const std::string& source, const StreamOptions& options) : stopped_(options.stopped), clock_(options.frame_time_ms) {
    if (!capture_.open(source)) throw InputError(source + ": OpenCV can't open it as a video source");
    if (!grab()) throw InputError(source + ": no frame came");
    header_.description.path = source;
    header_.intensity.bits_stored = 8;
    for (int i = 0; i < 256; ++i) header_.intensity.value.push_back(static_cast<float>(i));
    calibrate_by(header_, options.spacing_mm);
    header_.frames = std::make_shared<SizeOnly>(0, grey_.rows, grey_.cols);
    Image<std::uint16_t> first(grey_.rows, grey_.cols);
    store(first.view());
    header_.field = find_field(OneFrame(first.view()));
  }
  std::optional<Arrival> next(ImageView<std::uint16_t> stored) override {
    if (is_stopped(stopped_) || (grey_.empty() && !grab())) return {};
    if (grey_.rows != stored.height || grey_.cols != stored.width)
      throw InputError(header_.description.path + ": the picture's size changed to " + std::to_string(grey_.cols) + " x " +
                       std::to_string(grey_.rows));
    store(stored);
    grey_.release();
    return clock_.now();
  }

 private:
  bool grab() {
    cv::Mat picture;
    if (!capture_.read(picture) || picture.empty()) return false;
    if (picture.channels() == 1)
      grey_ = picture;
    else
      cv::cvtColor(picture, grey_, cv::COLOR_BGR2GRAY);
    return true;
  }
  void store(ImageView<std::uint16_t> stored) const {
    for (int y = 0; y < stored.height; ++y) std::copy_n(grey_.ptr<std::uint8_t>(y), stored.width, stored.row(y));
  }

  cv::VideoCapture capture_;
  cv::Mat grey_;
  std::function<bool()> stopped_;
  FrameClock clock_;
};

bool starts_with(const std::string& text, const char* start) { return text.rfind(start, 0) == 0; }

}  // namespace

std::unique_ptr<FrameStream> open_stream(const std::string& source, const StreamOptions& options) {
  if (options.frame_time_ms && !(*options.frame_time_ms > 0)) throw std::invalid_argument("--frame-time: a number above 0 expected");
  if (options.spacing_mm && !(*options.spacing_mm > 0)) throw std::invalid_argument("--spacing: a number above 0 expected");
  if (!(options.speed >= 0)) throw std::invalid_argument("--speed: 0 or more expected");
  if (!(options.idle_s > 0)) throw std::invalid_argument("--idle: a number above 0 expected");
  if (source == "-") return std::make_unique<RawStream>("standard input", STDIN_FILENO, false, options);
  if (starts_with(source, "unix:")) return std::make_unique<RawStream>(source, accept_at(source.substr(5), options.idle_s), true, options);
  if (starts_with(source, "rtsp://") || starts_with(source, "http://") || starts_with(source, "https://") ||
      starts_with(source, "/dev/video"))
    return std::make_unique<Camera>(source, options);
  std::error_code error;
  if (fs::is_directory(source, error)) return std::make_unique<GrowingFolder>(source, options);
  return std::make_unique<Replay>(source, options);
}

}  // namespace cinelumen
