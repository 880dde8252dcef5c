#include "io/video_reader.h"

#include <algorithm>
#include <array>
#include <deque>
#include <filesystem>
#include <mutex>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>
#include <regex>

#include "io/byte_source.h"

namespace cinelumen {
namespace {

namespace fs = std::filesystem;

std::string ending(const std::string& path) {
  std::string text = fs::path(path).extension().string();
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

template <std::size_t count>
bool is_one_of(const std::string& text, const std::array<const char*, count>& list) {
  return std::any_of(list.begin(), list.end(), [&](const char* name) { return text == name; });
}

/// One plane of grey, 8 or 16 bits; empty where the picture is of another depth.
cv::Mat grey_of(const cv::Mat& picture) {
  if (picture.depth() != CV_8U && picture.depth() != CV_16U) return {};
  if (picture.channels() == 1) return picture;
  cv::Mat grey;
  if (picture.channels() == 3) cv::cvtColor(picture, grey, cv::COLOR_BGR2GRAY);
  if (picture.channels() == 4) cv::cvtColor(picture, grey, cv::COLOR_BGRA2GRAY);
  return grey;
}

void store(const cv::Mat& grey, ImageView<std::uint16_t> stored) {
  for (int y = 0; y < stored.height; ++y) {
    if (grey.depth() == CV_8U)
      std::copy_n(grey.ptr<std::uint8_t>(y), stored.width, stored.row(y));
    else
      std::copy_n(grey.ptr<std::uint16_t>(y), stored.width, stored.row(y));
  }
}

void check_request(const FrameSource& frames, int frame, ImageView<std::uint16_t> stored) {
  if (frame < 0 || frame >= frames.frame_count()) throw std::invalid_argument("read_frame: no such frame");
  if (stored.height != frames.rows() || stored.width != frames.columns())
    throw std::invalid_argument("read_frame: the image differs in size from the run's");
}

IntensityEncoding display_grey(int bits) {
  IntensityEncoding intensity;
  intensity.bits_stored = bits;
  intensity.value.resize(std::size_t(1) << bits);
  for (std::size_t i = 0; i < intensity.value.size(); ++i) intensity.value[i] = static_cast<float>(i);
  return intensity;
}

class ImageFiles final : public FrameSource {
 public:
  explicit ImageFiles(const std::vector<std::string>& files) {
    for (const std::string& file : files) sources_.push_back(ByteSource::file(file));
    const cv::Mat first = read(0);
    rows_ = first.rows;
    columns_ = first.cols;
    depth_ = first.depth();
  }
  int frame_count() const override { return static_cast<int>(sources_.size()); }
  int rows() const override { return rows_; }
  int columns() const override { return columns_; }
  int bits() const { return depth_ == CV_8U ? 8 : 16; }
  const std::vector<ByteSource>& sources() const { return sources_; }

  void read_frame(int frame, ImageView<std::uint16_t> stored) const override {
    check_request(*this, frame, stored);
    const cv::Mat grey = read(frame);
    if (grey.rows != rows_ || grey.cols != columns_ || grey.depth() != depth_)
      throw InputError(path(frame) + ": " + std::to_string(grey.cols) + " x " + std::to_string(grey.rows) + " pixels of " +
                       (grey.depth() == CV_8U ? "8" : "16") + " bits; the first image has " + std::to_string(columns_) + " x " +
                       std::to_string(rows_) + " of " + std::to_string(bits()));
    store(grey, stored);
  }

 private:
  const std::string& path(int frame) const { return sources_[static_cast<std::size_t>(frame)].path(); }
  cv::Mat read(int frame) const {
    const ByteSource& source = sources_[static_cast<std::size_t>(frame)];
    const std::vector<std::uint8_t> bytes = source.read(0, source.size());
    cv::Mat picture;
    try {
      if (!bytes.empty()) picture = cv::imdecode(bytes, cv::IMREAD_UNCHANGED);
    } catch (const cv::Exception& error) {
      throw InputError(path(frame) + ": the image can't be decoded: " + clean_text(error.what(), 200));
    }
    if (picture.empty()) throw InputError(path(frame) + ": the image can't be decoded");
    cv::Mat grey = grey_of(picture);
    if (grey.empty()) throw InputError(path(frame) + ": the image is not of 8 or 16 bits with 1, 3 or 4 channels");
    return grey;
  }
  std::vector<ByteSource> sources_;
  int rows_ = 0, columns_ = 0, depth_ = CV_8U;
};

/// Decodes forward only; what lies behind is decoded again from the start, so the last frames are kept for callers that run ahead of
/// each other.
class VideoFrames final : public FrameSource {
 public:
  explicit VideoFrames(const std::string& path) : path_(path) {
    open();
    frames_per_second_ = capture_.get(cv::CAP_PROP_FPS);
    cv::Mat frame;
    if (!next(frame)) throw InputError(path_ + ": the video holds no frame that can be decoded");
    rows_ = frame.rows;
    columns_ = frame.cols;
    count_ = 1;
    while (capture_.grab()) ++count_;
    keep_ = std::clamp<std::size_t>((std::size_t(32) << 20) / std::max<std::size_t>(std::size_t(1), static_cast<std::size_t>(rows_) *
                                                                                                        static_cast<std::size_t>(columns_)),
                                    1, 64);
    open();
  }
  int frame_count() const override { return count_; }
  int rows() const override { return rows_; }
  int columns() const override { return columns_; }
  double frames_per_second() const { return frames_per_second_; }

  void read_frame(int frame, ImageView<std::uint16_t> stored) const override {
    check_request(*this, frame, stored);
    const std::lock_guard lock(mutex_);
    for (const auto& [number, grey] : kept_)
      if (number == frame) return store(grey, stored);
    if (frame < position_) open();
    while (position_ <= frame) {
      cv::Mat grey;
      if (!next(grey)) throw InputError(path_ + ": frame " + std::to_string(position_ + 1) + " can't be decoded");
      if (grey.rows != rows_ || grey.cols != columns_)
        throw InputError(path_ + ": frame " + std::to_string(position_ + 1) + " differs in size from the first");
      kept_.emplace_back(position_++, grey.clone());
      if (kept_.size() > keep_) kept_.pop_front();
    }
    store(kept_.back().second, stored);
  }

 private:
  void open() const {
    kept_.clear();
    position_ = 0;
    // Not every back end: one takes a video's name for a pattern of images, another for a pipeline.
    for (const int back_end : {cv::CAP_FFMPEG, cv::CAP_OPENCV_MJPEG}) {
      try {
        if (capture_.open(path_, back_end)) break;
      } catch (const cv::Exception&) {
        capture_.release();
      }
    }
    if (!capture_.isOpened()) throw InputError(path_ + ": the video can't be opened; expected a file that OpenCV decodes");
  }
  bool next(cv::Mat& grey) const {
    cv::Mat picture;
    if (!capture_.read(picture) || picture.empty()) return false;
    grey = grey_of(picture);
    return !grey.empty() && grey.depth() == CV_8U;
  }
  std::string path_;
  int rows_ = 0, columns_ = 0, count_ = 0;
  std::size_t keep_ = 1;
  double frames_per_second_ = 0;
  mutable std::mutex mutex_;
  mutable cv::VideoCapture capture_;
  mutable int position_ = 0;
  mutable std::deque<std::pair<int, cv::Mat>> kept_;
};

}  // namespace

bool natural_less(const std::string& a, const std::string& b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  std::size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (digit(a[i]) && digit(b[j])) {
      while (i < a.size() && a[i] == '0') ++i;
      while (j < b.size() && b[j] == '0') ++j;
      std::size_t p = i, q = j;
      while (p < a.size() && digit(a[p])) ++p;
      while (q < b.size() && digit(b[q])) ++q;
      if (p - i != q - j) return p - i < q - j;
      const int order = a.compare(i, p - i, b, j, q - j);
      if (order != 0) return order < 0;
      i = p;
      j = q;
    } else {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i;
      ++j;
    }
  }
  return a.size() - i != b.size() - j ? a.size() - i < b.size() - j : a < b;
}

bool is_video_name(const std::string& path) {
  return is_one_of(ending(path), std::array{".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".mjpg", ".mjpeg"});
}

bool is_image_name(const std::string& path) {
  return is_one_of(ending(path), std::array{".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg", ".pgm", ".ppm", ".jp2", ".webp"});
}

std::vector<std::string> images_in_folder(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (entry.is_regular_file(error) && is_image_name(entry.path().string())) files.push_back(entry.path().string());
  std::sort(files.begin(), files.end(), natural_less);
  return files;
}

std::vector<std::string> images_of_pattern(const std::string& pattern, std::vector<std::string>& warnings) {
  const fs::path path(pattern);
  const std::string name = path.filename().string();
  std::smatch field;
  if (!std::regex_search(name, field, std::regex("%0?([0-9]{0,2})d"))) return {};
  const std::string before = field.prefix(), after = field.suffix();
  const std::size_t width = field[1].length() > 0 ? static_cast<std::size_t>(std::stoi(field[1])) : 0;
  std::vector<std::pair<long long, std::string>> found;
  std::error_code error;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string file = entry.path().filename().string();
    if (file.size() <= before.size() + after.size() || file.compare(0, before.size(), before) != 0 ||
        file.compare(file.size() - after.size(), after.size(), after) != 0)
      continue;
    const std::string number = file.substr(before.size(), file.size() - before.size() - after.size());
    if (number.size() > 18 || number.size() < width || number.find_first_not_of("0123456789") != std::string::npos) continue;
    found.emplace_back(std::stoll(number), entry.path().string());
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> files;
  for (const auto& [number, file] : found) files.push_back(file);
  if (!found.empty() && found.back().first - found.front().first + 1 != static_cast<long long>(found.size()))
    warnings.push_back("The images' numbers run from " + std::to_string(found.front().first) + " to " + std::to_string(found.back().first) +
                       " with gaps: " + std::to_string(found.size()) + " files.");
  return files;
}

Run read_video(const std::string& path) {
  const ByteSource file = ByteSource::file(path);
  Run run;
  const auto frames = std::make_shared<VideoFrames>(path);
  run.frames = frames;
  run.description.path = path;
  run.description.sha256 = sha256(file);
  run.intensity = display_grey(8);
  std::string rate = std::to_string(frames->frames_per_second());
  rate = rate.substr(0, rate.find('.') + 3);
  run.warnings.push_back("A video: grey made for display, no densitometry. It plays at " + rate +
                         " frames/s, which need not be the rate of acquisition.");
  return run;
}

Run read_images(const std::string& path, const std::vector<std::string>& files) {
  if (files.empty()) throw InputError(path + ": no images");
  Run run;
  const auto frames = std::make_shared<ImageFiles>(files);
  run.frames = frames;
  run.description.path = path;
  run.description.sha256 = sha256(frames->sources());
  run.intensity = display_grey(frames->bits());
  run.warnings.push_back("Images: grey made for display, no densitometry.");
  return run;
}

}  // namespace cinelumen
