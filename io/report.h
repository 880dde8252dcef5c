#pragma once
/// report.html: one self-contained page for people.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/analysis.h"
#include "io/pictures.h"

namespace cinelumen {

/// One picture of the report's loop.
struct ReportFrame {
  int frame = 0;  ///< 0-based in the file
  double time_ms = 0, shift_y_px = 0, shift_x_px = 0;
  std::vector<std::uint8_t> jpeg;
};

/// Points of one segment over all frames: how many were measured, and how many were not for each reason (indexed by Exclusion).
struct MeasurementCount {
  std::int64_t points = 0, used = 0;
  std::array<std::int64_t, 16> excluded{};

  /// Counts one more.
  void add(const LumenPoint& point) {
    ++points;
    if (point.used)
      ++used;
    else
      ++excluded[static_cast<std::size_t>(point.reason)];
  }
  /// Points that had been used and are not any more.
  void take_out(const PartlyFilled& part) {
    used -= part.points;
    excluded[static_cast<std::size_t>(Exclusion::partly_filled)] += part.points;
  }
};

/// What the page is made of, besides the analysis.
struct ReportInput {
  GreyWindow window;
  std::vector<ReportFrame> frames;
  std::vector<MeasurementCount> counts;  ///< as Analysis::segments
  bool has_video = false;
  std::string version, commit;
};

/// The whole page. It loads nothing: styles, scripts and pictures are inside.
std::string report_html(const Run& run, const Analysis& analysis, const ReportInput& input);

}  // namespace cinelumen
