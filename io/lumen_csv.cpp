#include "io/lumen_csv.h"

#include <charconv>
#include <cmath>
#include <limits>

namespace cinelumen {

void append_number(std::string& line, double value, int decimals) {
  if (!std::isfinite(value)) return;
  char text[64];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, decimals);
  if (error == std::errc()) line.append(text, end);
}

void append_number(std::string& line, int value) {
  char text[16];
  line.append(text, std::to_chars(text, text + sizeof text, value).ptr);
}

LumenCsv::LumenCsv(const std::filesystem::path& path, const Calibration& calibration) : file_(path) {
  calibrate(calibration);
  file_.write("frame,time_ms,segment,point,arc_length_mm,y_px,x_px,diameter_mm,diameter_sd_mm,diameter_px,contrast,used,reason\n");
}

void LumenCsv::calibrate(const Calibration& calibration) {
  mm_ = calibration.known() ? calibration.mm_per_px : std::numeric_limits<double>::quiet_NaN();
}

std::string LumenCsv::rows_of(int frame, double time_ms, const std::vector<LumenPoint>& points, const std::vector<int>& ids) const {
  std::string text, head;
  append_number(head, frame + 1);
  head += ',';
  append_number(head, time_ms, 3);
  head += ',';
  const auto cell = [&](double value, int decimals) {
    append_number(text, value, decimals);
    text += ',';
  };
  for (const LumenPoint& point : points) {
    const bool measured = std::isfinite(point.diameter_px) && point.diameter_px > 0;
    const bool with_sd = measured && std::isfinite(point.sd_px) && point.sd_px > 0;
    const auto index = static_cast<std::size_t>(point.segment);
    text += head;
    append_number(text, index < ids.size() ? ids[index] : point.segment + 1);
    text += ',';
    append_number(text, point.point);
    text += ',';
    cell(point.arc_length_px * mm_, 3);
    cell(point.y_px, 2);
    cell(point.x_px, 2);
    cell(measured ? point.diameter_px * mm_ : NAN, 4);
    cell(with_sd ? point.sd_px * mm_ : NAN, 4);
    cell(measured ? point.diameter_px : NAN, 3);
    cell(point.contrast, 4);
    text += point.used ? "1," : "0,";
    if (point.reason != Exclusion::none) text += to_string(point.reason);
    text += '\n';
  }
  return text;
}

void LumenCsv::add_segment(int frame, double time_ms, int id, double diameter_px, double sd_px, double contrast) {
  text_.clear();
  append_number(text_, frame + 1);
  text_ += ',';
  append_number(text_, time_ms, 3);
  text_ += ',';
  append_number(text_, id);
  text_ += ",,,,,";
  append_number(text_, diameter_px * mm_, 4);
  text_ += ',';
  append_number(text_, sd_px * mm_, 4);
  text_ += ',';
  append_number(text_, diameter_px, 3);
  text_ += ',';
  append_number(text_, contrast, 4);
  text_ += std::isfinite(diameter_px) ? ",1,\n" : ",0,unfilled\n";
  file_.write(text_);
}

}  // namespace cinelumen
