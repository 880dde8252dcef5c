#include "io/log_picture.h"

#include <algorithm>
#include <cmath>
#include <opencv2/imgcodecs.hpp>
#include <utility>
#include <vector>

#include "engine/run.h"
#include "io/byte_source.h"

namespace cinelumen {
namespace {

constexpr float least_value = -2, steps = 4096;  // log units; steps per unit
constexpr std::uint64_t largest_file = 512u << 20;

}  // namespace

std::string encode_log_picture(ImageView<const float> picture, ImageView<const std::uint8_t> valid) {
  cv::Mat stored(picture.height, picture.width, CV_16U);
  for (int y = 0; y < picture.height; ++y)
    for (int x = 0; x < picture.width; ++x) {
      const bool known = (!valid.data || valid(y, x)) && std::isfinite(picture(y, x));
      const float value = known ? std::round((picture(y, x) - least_value) * steps) : 0;
      stored.at<std::uint16_t>(y, x) = known ? static_cast<std::uint16_t>(1 + std::clamp(value, 0.0f, 65534.0f)) : std::uint16_t{0};
    }
  std::vector<unsigned char> bytes;
  cv::imencode(".png", stored, bytes, {cv::IMWRITE_PNG_COMPRESSION, 1});
  return {bytes.begin(), bytes.end()};
}

void write_log_pictures(OutputFolder& folder, const Analysis& analysis, ImageView<const std::uint8_t> valid) {
  for (const auto& [name, picture] :
       {std::pair{mask_picture_name, &analysis.mask_picture}, std::pair{opacification_name, &analysis.maximum_opacification}})
    if (!picture->empty()) folder.write(name, encode_log_picture(picture->view(), valid));
}

LogPicture read_log_picture(const std::string& path) {
  const ByteSource file = ByteSource::file(path);
  if (file.size() > largest_file) throw InputError(path + ": " + std::to_string(file.size()) + " bytes are too many for a picture");
  const std::vector<std::uint8_t> bytes = file.read(0, file.size());
  cv::Mat stored;
  try {
    stored = cv::imdecode(bytes, cv::IMREAD_UNCHANGED);
  } catch (const cv::Exception&) {
    stored.release();
  }
  if (stored.empty() || stored.type() != CV_16U) throw InputError(path + ": not a grey PNG picture of 16 bits, as `analyze` writes it");
  LogPicture result{Image<float>(stored.rows, stored.cols), Image<std::uint8_t>(stored.rows, stored.cols)};
  for (int y = 0; y < stored.rows; ++y)
    for (int x = 0; x < stored.cols; ++x) {
      const std::uint16_t value = stored.at<std::uint16_t>(y, x);
      result.valid(y, x) = value > 0;
      result.picture(y, x) = value > 0 ? static_cast<float>(value - 1) / steps + least_value : 0;
    }
  return result;
}

}  // namespace cinelumen
