#include "io/pictures.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numbers>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>

#include "io/output_folder.h"
#include "kernels/error.h"

namespace cinelumen {
namespace {

constexpr int sub_pixel_bits = 4;  // of OpenCV's drawing coordinates

cv::Mat as_mat(ImageView<const std::uint8_t> image) {
  return {image.height, image.width, CV_8U, const_cast<std::uint8_t*>(image.data), static_cast<std::size_t>(image.pitch)};
}

cv::Scalar bgr(const Colour& colour) { return {double(colour[2]), double(colour[1]), double(colour[0])}; }

cv::Mat shrunk(const cv::Mat& image, int longest_side) {
  const int longest = std::max(image.rows, image.cols);
  if (longest <= longest_side) return image;
  const double scale = double(longest_side) / longest;
  cv::Mat result;
  cv::resize(image, result, {std::max(1, int(std::lround(image.cols * scale))), std::max(1, int(std::lround(image.rows * scale)))}, 0, 0,
             cv::INTER_AREA);
  return result;
}

std::vector<std::uint8_t> encode(const char* format, const cv::Mat& image, const std::vector<int>& parameters = {}) {
  std::vector<std::uint8_t> bytes;
  if (!cv::imencode(format, image, bytes, parameters)) throw OutputError(std::string("pictures: OpenCV can't encode ") + format);
  return bytes;
}

/// Drawing in the pixel coordinates of the unscaled image: (y, x) is a pixel's centre.
class Canvas {
 public:
  Canvas(const cv::Mat& grey, double scale) : scale_(scale) {
    cv::Mat scaled;
    if (scale == 1)
      scaled = grey;
    else
      cv::resize(grey, scaled, {std::max(1, int(std::lround(grey.cols * scale))), std::max(1, int(std::lround(grey.rows * scale)))}, 0, 0,
                 scale > 1 ? cv::INTER_CUBIC : cv::INTER_AREA);
    cv::cvtColor(scaled, image, cv::COLOR_GRAY2BGR);
  }
  cv::Point at(double y, double x) const {
    const double one = 1 << sub_pixel_bits;
    return {int(std::lround(((x + 0.5) * scale_ - 0.5) * one)), int(std::lround(((y + 0.5) * scale_ - 0.5) * one))};
  }
  void line(double y0, double x0, double y1, double x1, const cv::Scalar& colour, int thickness = 1) {
    cv::line(image, at(y0, x0), at(y1, x1), colour, thickness, cv::LINE_AA, sub_pixel_bits);
  }
  void disc(double y, double x, double radius_px, const cv::Scalar& colour) {
    cv::circle(image, at(y, x), int(std::lround(radius_px * scale_ * (1 << sub_pixel_bits))), colour, cv::FILLED, cv::LINE_AA,
               sub_pixel_bits);
  }
  /// Text whose middle (or left end) is at canvas pixel `position`.
  void text(const std::string& words, cv::Point position, double size, const cv::Scalar& colour, bool centred, int thickness = 1) {
    int baseline = 0;
    const cv::Size extent = cv::getTextSize(words, cv::FONT_HERSHEY_SIMPLEX, size, thickness, &baseline);
    if (centred) position += cv::Point(-extent.width / 2, extent.height / 2);
    cv::putText(image, words, position, cv::FONT_HERSHEY_SIMPLEX, size, colour, thickness, cv::LINE_AA);
  }
  void haloed_text(const std::string& words, cv::Point position, double size, bool centred = false) {
    text(words, position, size, {255, 255, 255}, centred, 3);
    text(words, position, size, {50, 40, 40}, centred, 1);
  }
  double scale() const { return scale_; }
  cv::Mat image;

 private:
  double scale_;
};

double picture_scale(int rows, int columns) {
  const int longest = std::max(rows, columns);
  return longest <= 640 ? 2 : longest <= 1280 ? 1 : 1024.0 / longest;
}

/// The largest of 1, 2, 5, 10, ... not above `limit`.
double round_below(double limit) {
  const double decade = std::pow(10, std::floor(std::log10(limit)));
  for (const double step : {5.0, 2.0})
    if (step * decade <= limit) return step * decade;
  return decade;
}

void draw_scale_bar(Canvas& canvas, const Calibration& calibration, int rows, int columns) {
  if (!calibration.known() || !(calibration.mm_per_px > 0)) return;
  const double length_mm = round_below(0.25 * columns * calibration.mm_per_px), length_px = length_mm / calibration.mm_per_px;
  const double y = rows - 0.04 * rows, x = columns - 0.04 * columns;
  canvas.line(y, x - length_px, y, x, {255, 255, 255}, 5);
  canvas.line(y, x - length_px, y, x, {50, 40, 40}, 2);
  char words[32];
  std::snprintf(words, sizeof words, "%g mm", length_mm);
  const cv::Point middle = canvas.at(y, x - length_px / 2);
  canvas.haloed_text(words, {middle.x >> sub_pixel_bits, (middle.y >> sub_pixel_bits) - 14}, 0.5, true);
}

}  // namespace

GreyWindow choose_window(ImageView<const float> image, bool subtracted) {
  std::vector<float> sample;
  const std::int64_t pixels = std::int64_t(image.height) * image.width;
  const int step = static_cast<int>(std::max<std::int64_t>(1, static_cast<std::int64_t>(std::sqrt(pixels / 65536.0))));
  for (int y = step / 2; y < image.height; y += step)
    for (int x = step / 2; x < image.width; x += step)
      if (std::isfinite(image(y, x))) sample.push_back(image(y, x));
  if (sample.empty()) return {};
  const auto percentile = [&](double share) {
    const auto nth = sample.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(sample.size() - 1));
    std::nth_element(sample.begin(), nth, sample.end());
    return *nth;
  };
  if (subtracted) {
    const float black = std::max(0.08f, 1.05f * percentile(0.997));
    return {-0.2f * black, black};
  }
  const float white = percentile(0.01), black = percentile(0.995);
  return {white, std::max(black, white + 0.05f)};
}

void to_grey(ImageView<const float> image, const GreyWindow& window, ImageView<std::uint8_t> grey) {
  require(same_size(image, grey), "to_grey: the images differ in size");
  const float scale = 255 / (window.black - window.white), black = window.black;
  for (int y = 0; y < image.height; ++y) {
    const float* from = image.row(y);
    std::uint8_t* to = grey.row(y);
#pragma GCC ivdep
    for (int x = 0; x < image.width; ++x) {
      float value = (black - from[x]) * scale + 0.5f;
      value = value <= 255 ? value : 255.0f;  // also for NaN
      to[x] = static_cast<std::uint8_t>(static_cast<int>(value >= 0 ? value : 0.0f));
    }
  }
}

std::vector<std::uint8_t> encode_jpeg(ImageView<const std::uint8_t> grey, int longest_side, int quality) {
  return encode(".jpg", shrunk(as_mat(grey), longest_side), {cv::IMWRITE_JPEG_QUALITY, quality, cv::IMWRITE_JPEG_OPTIMIZE, 1});
}

std::vector<std::uint8_t> encode_png(ImageView<const std::uint8_t> grey, int longest_side) {
  return encode(".png", shrunk(as_mat(grey), longest_side));
}

Colour segment_colour(int id) {
  // Told apart with and without colour vision, and dark enough on a light page (after Okabe and Ito, and Tol).
  static constexpr Colour colours[] = {{0, 99, 170},  {204, 76, 2},  {0, 133, 96},  {158, 58, 138}, {176, 124, 0}, {31, 140, 190},
                                       {170, 34, 60}, {98, 120, 20}, {84, 72, 170}, {140, 86, 56},  {0, 120, 130}, {196, 70, 120}};
  constexpr int count = static_cast<int>(std::size(colours));
  return colours[((id - 1) % count + count) % count];
}

std::string to_hex(const Colour& colour) {
  char text[8];
  std::snprintf(text, sizeof text, "#%02x%02x%02x", colour[0], colour[1], colour[2]);
  return text;
}

Colour time_colour(double position) {
  const cv::Mat index(1, 1, CV_8U, cv::Scalar(std::lround(std::clamp(position, 0.0, 1.0) * 255)));
  cv::Mat colour;
  cv::applyColorMap(index, colour, cv::COLORMAP_TURBO);
  const auto& pixel = colour.at<cv::Vec3b>(0, 0);
  return {pixel[2], pixel[1], pixel[0]};
}

std::vector<SegmentLabel> place_labels(const std::vector<SegmentResult>& segments, int rows, int columns, double radius_px) {
  std::vector<SegmentLabel> labels;
  for (const SegmentResult& segment : segments) {
    const auto& points = segment.centreline.points;
    if (points.empty()) continue;
    SegmentLabel best;
    double best_cost = std::numeric_limits<double>::infinity();
    for (const double share : {0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8})
      for (const int side : {1, -1})
        for (const double away : {1.0, 1.7}) {
          const CentrelinePoint& point = points[static_cast<std::size_t>(share * static_cast<double>(points.size() - 1))];
          const double distance = side * away * (radius_px * 1.35 + point.radius_px);
          SegmentLabel label{segment.id, point.y - point.tangent_x * distance, point.x + point.tangent_y * distance, point.y, point.x};
          double cost = std::abs(share - 0.5) * 2 + (away - 1) * 1.5;
          const double margin = radius_px * 1.1;
          if (label.y < margin || label.x < margin || label.y > rows - margin || label.x > columns - margin) cost += 50;
          for (const SegmentLabel& other : labels)
            cost += 20 * std::max(0.0, 1 - std::hypot(label.y - other.y, label.x - other.x) / (2.2 * radius_px));
          for (const SegmentResult& other : segments)
            for (std::size_t i = 0; i < other.centreline.points.size(); i += 4) {
              const CentrelinePoint& q = other.centreline.points[i];
              const double clear = std::hypot(label.y - q.y, label.x - q.x) - radius_px - q.radius_px;
              if (clear < 0) cost += 0.5 * std::min(1.0, -clear / radius_px);
            }
          if (cost < best_cost) best_cost = cost, best = label;
        }
    const double y_room = std::min(radius_px, rows / 2.0), x_room = std::min(radius_px, columns / 2.0);
    best.y = std::clamp(best.y, y_room, rows - y_room);
    best.x = std::clamp(best.x, x_room, columns - x_room);
    labels.push_back(best);
  }
  return labels;
}

std::vector<std::uint8_t> draw_maximum_opacification(const Analysis& analysis, const GreyWindow& window) {
  const ImageView<const float> fullest = analysis.maximum_opacification.view();
  const int rows = std::max(1, fullest.height), columns = std::max(1, fullest.width);
  Image<std::uint8_t> grey(rows, columns);
  set_zero(Stream::cpu(), grey.view());
  if (!analysis.maximum_opacification.empty()) to_grey(fullest, window, grey);
  Canvas canvas(as_mat(grey.view()), picture_scale(rows, columns));
  for (const SegmentResult& segment : analysis.segments) {
    const auto& points = segment.centreline.points;
    for (std::size_t i = 1; i < points.size(); ++i)
      canvas.line(points[i - 1].y, points[i - 1].x, points[i].y, points[i].x, bgr(segment_colour(segment.id)), 2);
  }
  const double radius = 11 / canvas.scale();
  for (const SegmentLabel& label : place_labels(analysis.segments, rows, columns, radius)) {
    const cv::Scalar colour = bgr(segment_colour(label.id));
    canvas.line(label.anchor_y, label.anchor_x, label.y, label.x, colour, 1);
    canvas.disc(label.y, label.x, radius * 1.15, {255, 255, 255});
    canvas.disc(label.y, label.x, radius, colour);
    const cv::Point middle = canvas.at(label.y, label.x);
    canvas.text(std::to_string(label.id), {middle.x >> sub_pixel_bits, middle.y >> sub_pixel_bits}, label.id > 99 ? 0.36 : 0.46,
                {255, 255, 255}, true);
  }
  draw_scale_bar(canvas, analysis.calibration, rows, columns);
  return encode(".png", canvas.image);
}

std::optional<TimeToPeakPicture> draw_time_to_peak(const Analysis& analysis, const GreyWindow& window, int longest_side) {
  const ImageView<const float> time = analysis.time_to_peak_ms.view(), fullest = analysis.maximum_opacification.view();
  if (analysis.time_to_peak_ms.empty() || !same_size(time, fullest)) return {};
  std::vector<float> times;
  for (int y = 0; y < time.height; ++y)
    for (int x = 0; x < time.width; ++x)
      if (std::isfinite(time(y, x))) times.push_back(time(y, x));
  if (times.empty()) return {};
  const auto percentile = [&](double share) {
    const auto nth = times.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(times.size() - 1));
    std::nth_element(times.begin(), nth, times.end());
    return double(*nth);
  };
  TimeToPeakPicture picture;
  picture.first_ms = percentile(0.02);
  picture.last_ms = std::max(picture.first_ms + 1, percentile(0.98));

  std::array<Colour, 256> colours;
  for (int i = 0; i < 256; ++i) colours[i] = time_colour(i / 255.0);
  cv::Mat image(time.height, time.width, CV_8UC3);
  for (int y = 0; y < time.height; ++y)
    for (int x = 0; x < time.width; ++x) {
      auto& pixel = image.at<cv::Vec3b>(y, x);
      const float added = std::isfinite(fullest(y, x)) ? fullest(y, x) : 0;
      const float strength = std::clamp(added / window.black, 0.0f, 1.0f);
      if (std::isfinite(time(y, x))) {
        const double position = std::clamp((time(y, x) - picture.first_ms) / (picture.last_ms - picture.first_ms), 0.0, 1.0);
        const Colour& colour = colours[static_cast<std::size_t>(std::lround(position * 255))];
        const float share = 0.35f + 0.65f * std::sqrt(strength);
        for (int c = 0; c < 3; ++c) pixel[c] = cv::saturate_cast<std::uint8_t>(248 + share * (colour[2 - c] - 248.0f));
      } else {
        const auto grey = cv::saturate_cast<std::uint8_t>(248 - 150 * strength);
        pixel = {grey, grey, grey};
      }
    }
  picture.png = encode(".png", shrunk(image, longest_side));
  return picture;
}

namespace {

std::uint32_t big_endian(const char* bytes) {
  const auto* b = reinterpret_cast<const unsigned char*>(bytes);
  return std::uint32_t(b[0]) << 24 | std::uint32_t(b[1]) << 16 | std::uint32_t(b[2]) << 8 | b[3];
}
void put_big_endian(char* bytes, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) bytes[i] = static_cast<char>(value >> (24 - 8 * i));
}

/// Adds `shift` to every chunk offset below `box` (its contents); false where an offset leaves 32 bits or the boxes don't fit.
bool shift_chunk_offsets(char* box, std::size_t size, std::uint32_t shift) {
  while (size >= 8) {
    const std::uint32_t length = big_endian(box);
    if (length < 8 || length > size) return false;
    const std::string type(box + 4, 4);
    if (type == "trak" || type == "mdia" || type == "minf" || type == "stbl") {
      if (!shift_chunk_offsets(box + 8, length - 8, shift)) return false;
    } else if (type == "stco") {
      if (length < 16) return false;
      const std::uint32_t count = big_endian(box + 12);
      if (count > (length - 16) / 4) return false;
      for (std::uint32_t i = 0; i < count; ++i) {
        const std::uint64_t moved = std::uint64_t(big_endian(box + 16 + 4 * i)) + shift;
        if (moved > 0xffffffffu) return false;
        put_big_endian(box + 16 + 4 * i, static_cast<std::uint32_t>(moved));
      }
    } else if (type == "co64") {
      return false;  // beyond 4 GB: left as it is
    }
    box += length, size -= length;
  }
  return size == 0;
}

/// Copies an MP4 file with its index (moov) before the pictures (mdat). Throws OutputError where it is not whole.
void copy_index_first(const std::filesystem::path& from, const std::filesystem::path& to) {
  struct Box {
    std::string type;
    std::uint64_t offset, length;
  };
  std::ifstream file(from, std::ios::binary);
  std::error_code error;
  const std::uint64_t size = std::filesystem::file_size(from, error);
  const auto broken = [&] { return OutputError(to.string() + ": the video encoder left an incomplete file (disk full?)"); };
  if (!file || error) throw broken();
  std::vector<Box> boxes;
  for (std::uint64_t offset = 0; offset < size;) {
    char head[16] = {};
    file.seekg(static_cast<std::streamoff>(offset));
    if (!file.read(head, 8)) throw broken();
    std::uint64_t length = big_endian(head);
    if (length == 1) {
      if (!file.read(head + 8, 8)) throw broken();
      length = std::uint64_t(big_endian(head + 8)) << 32 | big_endian(head + 12);
    }
    if (length < 8 || length > size - offset) throw broken();
    boxes.push_back({std::string(head + 4, 4), offset, length});
    offset += length;
  }
  const auto moov = std::find_if(boxes.begin(), boxes.end(), [](const Box& box) { return box.type == "moov"; });
  if (moov == boxes.end() || boxes.empty() || boxes.front().type != "ftyp" || moov->length > (1u << 30)) throw broken();
  std::string index(moov->length, '\0');
  file.seekg(static_cast<std::streamoff>(moov->offset));
  if (!file.read(index.data(), static_cast<std::streamsize>(index.size()))) throw broken();
  const auto mdat = std::find_if(boxes.begin(), boxes.end(), [](const Box& box) { return box.type == "mdat"; });
  std::string shifted = index;
  const bool move = mdat < moov && shift_chunk_offsets(shifted.data() + 8, shifted.size() - 8, static_cast<std::uint32_t>(shifted.size()));

  OutputFile output(to);
  std::vector<char> block(1 << 20);
  for (const Box& box : boxes) {
    if (move && box.type == "moov") continue;
    file.seekg(static_cast<std::streamoff>(box.offset));
    for (std::uint64_t left = box.length; left > 0;) {
      const auto part = static_cast<std::streamsize>(std::min<std::uint64_t>(left, block.size()));
      if (!file.read(block.data(), part)) throw broken();
      output.write({block.data(), static_cast<std::size_t>(part)});
      left -= static_cast<std::uint64_t>(part);
    }
    if (move && box.type == "ftyp") output.write(shifted);
  }
  output.close();
}

}  // namespace

struct OverlayVideo::State {
  std::filesystem::path file;
  cv::VideoWriter writer;
  double scale = 1;
  cv::Size size;
};

OverlayVideo::OverlayVideo(const std::filesystem::path& scratch, int rows, int columns, double frames_per_second)
    : state_(std::make_unique<State>()) {
  state_->file = scratch / "overlay.mp4";
  // The encoder keeps some fifty frames to look ahead, and OpenCV can't tell it otherwise: 290 MB at 1024 x 1024, half of that at 720.
  state_->scale = 720.0 / std::max(rows, columns);
  // yuv420p needs even sides, and encoders refuse a few pixels.
  const auto side = [&](int pixels) { return std::max(64, (int(std::lround(pixels * state_->scale)) + 1) / 2 * 2); };
  state_->size = {side(columns), side(rows)};
  try {
    state_->writer.open(state_->file.string(), cv::CAP_FFMPEG, cv::VideoWriter::fourcc('a', 'v', 'c', '1'),
                        std::clamp(frames_per_second, 1.0, 60.0), state_->size, true);
  } catch (const cv::Exception&) {  // no FFmpeg in this OpenCV: available() says so
  }
}

OverlayVideo::~OverlayVideo() = default;

bool OverlayVideo::available() const { return state_->writer.isOpened(); }

void OverlayVideo::add(ImageView<const std::uint8_t> grey, const FrameResult& frame, const std::vector<int>& segment_ids) {
  if (!available()) return;
  Canvas canvas(as_mat(grey), state_->scale);
  if (frame.lumen) {
    const std::vector<LumenPoint>& lumen = *frame.lumen;
    for (std::size_t i = 1; i < lumen.size(); ++i) {
      const LumenPoint &a = lumen[i - 1], &b = lumen[i];
      if (a.segment != b.segment || b.point != a.point + 1) continue;
      if (!(std::hypot(a.y_px - b.y_px, a.x_px - b.x_px) < 8)) continue;  // also NaN
      const bool known = b.segment >= 0 && b.segment < static_cast<int>(segment_ids.size());
      const Colour colour = segment_colour(known ? segment_ids[b.segment] : b.segment + 1);
      if (a.used && b.used)
        for (const int side : {-1, 1}) {
          const float ra = side * a.diameter_px / 2, rb = side * b.diameter_px / 2;
          canvas.line(a.y_px + ra * a.normal_y, a.x_px + ra * a.normal_x, b.y_px + rb * b.normal_y, b.x_px + rb * b.normal_x, bgr(colour));
        }
      else if (b.point % 6 < 2)
        canvas.line(a.y_px, a.x_px, b.y_px, b.x_px, {175, 165, 165});
    }
  }
  char words[64];
  if (std::isfinite(frame.time_ms))
    std::snprintf(words, sizeof words, "frame %d   %.2f s", frame.frame + 1, frame.time_ms / 1000);
  else
    std::snprintf(words, sizeof words, "frame %d", frame.frame + 1);
  canvas.haloed_text(words, {14, canvas.image.rows - 14}, 0.5);
  if (canvas.image.size() != state_->size)
    cv::copyMakeBorder(canvas.image, canvas.image, 0, state_->size.height - canvas.image.rows, 0, state_->size.width - canvas.image.cols,
                       cv::BORDER_REPLICATE);
  state_->writer.write(canvas.image);
}

void OverlayVideo::finish(const std::filesystem::path& path) {
  if (!available()) return;
  state_->writer.release();
  copy_index_first(state_->file, path);
  std::error_code ignored;
  std::filesystem::remove(state_->file, ignored);
}

}  // namespace cinelumen
