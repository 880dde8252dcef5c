#include "io/lumen_csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <utility>

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
  file_.write(
      "frame,time_ms,segment,point,arc_length_mm,y_px,x_px,diameter_mm,diameter_sd_mm,diameter_px,contrast,used,reason,area_mm2,note\n");
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
    text += ',';
    append_number(text, point.used && point.area_px2 > 0 ? point.area_px2 * mm_ * mm_ : NAN, 3);
    text += point.used && point.area_disagrees ? ",area_disagrees\n" : ",\n";
  }
  return text;
}

void LumenCsv::mark(const std::vector<PartlyFilled>& taken, const std::vector<int>& ids, const std::filesystem::path& scratch) const {
  if (taken.empty()) return;
  std::map<std::pair<int, int>, std::vector<const PartlyFilled*>> by_row;  // frame and segment as printed
  for (const PartlyFilled& part : taken) by_row[{part.frame + 1, ids[static_cast<std::size_t>(part.segment)]}].push_back(&part);
  const std::filesystem::path again = scratch / "lumen.csv";
  {
    std::ifstream rows(file_.path(), std::ios::binary);
    OutputFile marked(again);
    std::string row;
    while (std::getline(rows, row)) {
      int frame = 0, segment = 0, point = 0;
      const char *at = row.data(), *const end = row.data() + row.size();
      // frame,time_ms,segment,point
      at = std::from_chars(at, end, frame).ptr;
      at = at < end ? std::find(at + 1, end, ',') : end;
      if (at < end) at = std::from_chars(at + 1, end, segment).ptr;
      if (at < end) std::from_chars(at + 1, end, point);
      const auto found = by_row.find({frame, segment});
      const bool out = found != by_row.end() && std::any_of(found->second.begin(), found->second.end(), [&](const PartlyFilled* part) {
                         return point >= part->first_point && point <= part->last_point;
                       });
      const std::size_t used = out ? row.rfind(",1,,") : std::string::npos;
      marked.write(used == std::string::npos ? row : row.substr(0, used) + ",0," + to_string(Exclusion::partly_filled) + ",,");
      marked.write("\n");
    }
    marked.close();
  }
  std::filesystem::rename(again, file_.path());
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
  text_ += std::isfinite(diameter_px) ? ",1,,,\n" : ",0,unfilled,,\n";
  file_.write(text_);
}

}  // namespace cinelumen
