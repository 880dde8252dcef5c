#include "io/live_results.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <fstream>
#include <mutex>
#include <thread>

#include "io/derived_dicom.h"
#include "io/frame_stream.h"
#include "io/log_picture.h"
#include "io/lumen_csv.h"
#include "io/output_folder.h"
#include "io/pictures.h"
#include "io/report.h"
#include "io/results.h"

namespace cinelumen {
namespace {

constexpr int report_side = 768, report_frames = 120;
constexpr float counts_per_unit = 4096;  // of added attenuation, as in subtracted.dcm

// What is not a number: 0.
void to_counts(const float* __restrict from, int count, std::int16_t* __restrict to) {
  for (int x = 0; x < count; ++x) {
    const float value = from[x] == from[x] ? from[x] * counts_per_unit : 0.0f;
    const float low = value > -32768.0f ? value : -32768.0f, bounded = low < 32767.0f ? low : 32767.0f;
    to[x] = static_cast<std::int16_t>(static_cast<int>(bounded + (bounded < 0 ? -0.5f : 0.5f)));
  }
}

/// Added attenuation of the last frames, as 16-bit counts in a file that is written round and round: by a thread of its own, since a disk
/// makes one wait when it likes.
class FrameRing {
 public:
  FrameRing(const std::filesystem::path& path, int rows, int columns, int capacity)
      : path_(path), rows_(rows), columns_(columns), capacity_(capacity) {
    file_.open(path, std::ios::in | std::ios::out | std::ios::binary | std::ios::trunc);
    if (!file_) throw OutputError(path.string() + ": can't be created");
    writer_ = std::thread([this] { write_frames(); });
  }
  ~FrameRing() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    writer_.join();
  }
  void clear() { added_ = 0; }
  int size() const { return static_cast<int>(std::min<std::int64_t>(added_, capacity_)); }
  void add(ImageView<const float> image) {
    Waiting next{take_buffer(), static_cast<std::streamoff>(added_ % capacity_) * bytes()};
    constexpr int band = 64;  // rows
    parallel_for((rows_ + band - 1) / band, [&](int b) {
      for (int y = b * band; y < std::min(rows_, (b + 1) * band); ++y)
        to_counts(image.row(y), columns_, next.counts.data() + static_cast<std::size_t>(y) * columns_);
    });
    ++added_;
    {
      const std::lock_guard lock(mutex_);
      waiting_.push_back(std::move(next));
    }
    changed_.notify_all();
  }
  /// Returns when all that was added is in the file.
  void settle() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return (waiting_.empty() && !writing_) || failed_; });
    if (failed_) throw OutputError(path_.string() + ": can't be written (disk full?)");
  }
  /// The k-th of size(), the oldest first; all must have been settled.
  void read(int k, ImageView<float> image) {
    const std::int64_t first = added_ - size();
    std::vector<std::int16_t> counts(pixels());
    file_.seekg(static_cast<std::streamoff>((first + k) % capacity_) * bytes());
    file_.read(reinterpret_cast<char*>(counts.data()), bytes());
    if (!file_) throw OutputError(path_.string() + ": can't be read back");
    std::size_t i = 0;
    for (int y = 0; y < rows_; ++y)
      for (int x = 0; x < columns_; ++x) image(y, x) = static_cast<float>(counts[i++]) / counts_per_unit;
  }

 private:
  static constexpr int most_waiting = 16;  // frames; then the disk sets the pace
  struct Waiting {
    std::vector<std::int16_t> counts;
    std::streamoff at;
  };
  std::size_t pixels() const { return static_cast<std::size_t>(rows_) * columns_; }
  std::streamsize bytes() const { return static_cast<std::streamsize>(pixels() * sizeof(std::int16_t)); }

  std::vector<std::int16_t> take_buffer() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !free_.empty() || made_ < most_waiting || failed_; });
    if (failed_) throw OutputError(path_.string() + ": can't be written (disk full?)");
    if (free_.empty()) {
      ++made_;
      return std::vector<std::int16_t>(pixels());
    }
    std::vector<std::int16_t> buffer = std::move(free_.back());
    free_.pop_back();
    return buffer;
  }
  void write_frames() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return !waiting_.empty() || ended_; });
      if (waiting_.empty() || failed_) return;
      Waiting next = std::move(waiting_.front());
      waiting_.pop_front();
      writing_ = true;
      lock.unlock();
      file_.seekp(next.at);
      file_.write(reinterpret_cast<const char*>(next.counts.data()), bytes());
      const bool written = static_cast<bool>(file_);
      lock.lock();
      writing_ = false;
      failed_ = failed_ || !written;
      free_.push_back(std::move(next.counts));
      changed_.notify_all();
    }
  }

  std::filesystem::path path_;
  int rows_, columns_, capacity_;
  std::int64_t added_ = 0;
  std::fstream file_;  // the writer's until all is settled
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Waiting> waiting_;
  std::vector<std::vector<std::int16_t>> free_;
  int made_ = 0;
  bool writing_ = false, ended_ = false, failed_ = false;
  std::thread writer_;
};

}  // namespace

struct LiveResultWriter::State {
  State(const Run& h, const Calibration& calibration, LiveResultOptions o)
      : header(h),
        options(std::move(o)),
        folder(options.folder, {"analysis.json", "lumen.csv", "time_density.csv", "subtracted.dcm", "maximum_opacification.png",
                                "report.html", mask_picture_name, opacification_name}),
        lumen(folder.temporary("lumen.csv"), calibration),
        density(folder.temporary("time_density.csv")),
        ring(folder.scratch() / "frames", h.rows(), h.columns(), options.kept_frames) {
    density.write("frame,time_ms,segment,contrast\n");
  }
  const Run& header;
  LiveResultOptions options;
  OutputFolder folder;
  LumenCsv lumen;
  OutputFile density;
  FrameRing ring;
  std::vector<int> ids;
  std::map<int, MeasurementCount> counts;  // by id
  std::string text;
  int frames = 0;
};

LiveResultWriter::LiveResultWriter(const Run& header, const Calibration& calibration, LiveResultOptions options)
    : state_(std::make_unique<State>(header, calibration, std::move(options))) {}

LiveResultWriter::~LiveResultWriter() = default;

void LiveResultWriter::calibrate(const Calibration& calibration) { state_->lumen.calibrate(calibration); }

void LiveResultWriter::add(const LiveFrame& frame) {
  State& state = *state_;
  state.frames = frame.frame + 1;
  if (frame.mask == MaskState::again) {
    state.ring.clear();
    state.counts.clear();
  }
  if (!frame.lumen) return;
  state.ring.add(frame.subtracted);
  state.ids.clear();
  state.text.clear();
  for (const LiveSegment& segment : frame.segments) {
    state.ids.push_back(segment.id);
    if (!state.options.per_point)
      state.lumen.add_segment(frame.frame, frame.time_ms, segment.id, segment.diameter_px.value_or(NAN), segment.sd_px.value_or(NAN),
                              segment.contrast);
    append_number(state.text, frame.frame + 1);
    state.text += ',';
    append_number(state.text, frame.time_ms, 3);
    state.text += ',' + std::to_string(segment.id) + ',';
    append_number(state.text, segment.contrast, 6);
    state.text += '\n';
  }
  state.density.write(state.text);
  if (state.options.per_point) state.lumen.add(state.lumen.rows_of(frame.frame, frame.time_ms, *frame.lumen, state.ids));
  for (const LumenPoint& point : *frame.lumen) state.counts[state.ids[static_cast<std::size_t>(point.segment)]].add(point);
}

void LiveResultWriter::finish(Analysis& analysis) {
  State& state = *state_;
  state.lumen.close();
  state.density.close();
  state.ring.settle();
  const int kept = std::min(state.ring.size(), analysis.frames), rows = state.header.rows(), columns = state.header.columns();
  Run run = with_frames(state.header, std::make_shared<SizeOnly>(state.frames, rows, columns));
  const GreyWindow window = choose_window(analysis.maximum_opacification.view(), analysis.subtracted);
  ReportInput input;
  input.window = window;
  input.version = software_version();
  input.commit = software_commit();
  for (const SegmentResult& segment : analysis.segments) input.counts.push_back(state.counts[segment.id]);
  if (kept > 0) {
    // The derived image's times are the kept frames'.
    run.frame_times_ms.assign(static_cast<std::size_t>(analysis.first_frame), 0);
    run.frame_times_ms.insert(run.frame_times_ms.end(), analysis.frame_times_ms.begin(), analysis.frame_times_ms.end());
    Derivation derivation;
    derivation.subtracted = analysis.subtracted;
    derivation.first_frame = analysis.first_frame;
    derivation.frames = kept;
    derivation.version = software_version();
    derivation.window = window;
    derivation.description = "log subtraction of a stream; mask automatic; the last " + std::to_string(kept) + " frames";
    DerivedDicomWriter dicom(run, state.folder.temporary("subtracted.dcm"), derivation);
    Image<float> image(rows, columns);
    Image<std::uint8_t> grey(rows, columns);
    const int shown = std::min(kept, report_frames);
    for (int k = 0; k < kept; ++k) {
      state.ring.read(k, image.view());
      dicom.add(image.view());
      if (k * shown / kept == (k - 1) * shown / kept && k > 0) continue;
      to_grey(image.view(), window, grey.view());
      ReportFrame picture{analysis.subtraction.frames[static_cast<std::size_t>(k)].frame,
                          analysis.frame_times_ms[static_cast<std::size_t>(k)], 0, 0, encode_jpeg(grey.view(), report_side)};
      picture.shift_y_px = analysis.subtraction.frames[static_cast<std::size_t>(k)].shift_y_px;
      picture.shift_x_px = analysis.subtraction.frames[static_cast<std::size_t>(k)].shift_x_px;
      input.frames.push_back(std::move(picture));
    }
    dicom.finish();
  }
  const std::vector<std::uint8_t> picture = draw_maximum_opacification(analysis, window);
  state.folder.write("maximum_opacification.png", {reinterpret_cast<const char*>(picture.data()), picture.size()});
  write_log_pictures(state.folder, analysis, state.header.field.valid());
  state.folder.write("report.html", report_html(run, analysis, input));
  state.folder.write("analysis.json", analysis_json(run, analysis));
  state.folder.commit();
}

}  // namespace cinelumen
