#pragma once
/// lumen.csv and time_density.csv, row by row.

#include <filesystem>
#include <string>
#include <vector>

#include "engine/calibration.h"
#include "engine/diameter_profile.h"
#include "engine/filling_gates.h"
#include "io/output_folder.h"

namespace cinelumen {

/// Appends a number with so many decimals; nothing where it is not finite.
void append_number(std::string& line, double value, int decimals);
void append_number(std::string& line, int value);

/// lumen.csv, written as frames are measured.
class LumenCsv {
 public:
  /// Writes the header line. Throws OutputError.
  LumenCsv(const std::filesystem::path& path, const Calibration& calibration);

  /// The scale of the rows that follow.
  void calibrate(const Calibration& calibration);
  /// One row per point. frame: 0-based; time_ms NaN: not known; ids[LumenPoint::segment]: the number that is printed. May be called from
  /// several threads at once.
  std::string rows_of(int frame, double time_ms, const std::vector<LumenPoint>& points, const std::vector<int>& ids) const;
  /// Appends such rows.
  void add(const std::string& rows) { file_.write(rows); }
  /// One row for a segment as a whole, its point, place and arc length empty; not used where diameter_px is NaN.
  void add_segment(int frame, double time_ms, int id, double diameter_px, double sd_px, double contrast);
  void close() { file_.close(); }
  /// Marks rows that were written as used and are not, for their lumen was partly filled: after close(). The file is written again, in
  /// `scratch`, where there are any. Throws OutputError.
  void mark(const std::vector<PartlyFilled>& taken, const std::vector<int>& ids, const std::filesystem::path& scratch) const;

 private:
  double mm_;  // per px; NaN where not calibrated
  OutputFile file_;
  std::string text_;
};

}  // namespace cinelumen
