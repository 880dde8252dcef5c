#pragma once
/// Opens a run, whatever it is stored as.

#include <cstddef>
#include <optional>
#include <string>

#include "engine/run.h"

namespace cinelumen {

/// What the user says about a run that its file may not.
struct ReadOptions {
  std::optional<double> frame_time_ms;  ///< time from frame to frame, > 0; overrides the file's
  std::optional<double> spacing_mm;     ///< mm per px at the vessels, > 0; kept as calibrated Pixel Spacing; overrides the file's
  std::size_t cache_bytes = std::size_t(32) << 20;  ///< decoded frames kept, at most
};

/// Opens the run at `path`: a DICOM file (XA, XRF, Enhanced XA or XRF; secondary capture of those), a folder with the single-frame DICOM
/// files of one run or one multi-frame file, a video file, a folder of images in the order of the numbers in their names, or a pattern
/// such as "frame_%04d.png". Videos and images are taken as made for display: their grey (luminance) of 8 or 16 bits.
/// Frames are decoded when asked for. Throws InputError, one line that names the file, the tag or place, its value, and what was expected;
/// std::invalid_argument for options out of range.
Run read_run(const std::string& path, const ReadOptions& options = {});

}  // namespace cinelumen
