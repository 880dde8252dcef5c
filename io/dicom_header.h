#pragma once
/// What a DICOM header says of a run, in the engine's words: classic XA and XRF, and the enhanced ones with their functional groups.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/run.h"
#include "io/dicom_layout.h"
#include "io/dicom_pixels.h"
#include "io/field_of_view.h"

namespace cinelumen {

/// Ends every warning of missing frame times.
inline constexpr const char* frame_time_hint = "--frame-time gives them.";

/// The header of one file, and its frames.
struct DicomHeader {
  RunDescription description;  ///< without sha256
  PixelFormat format;
  std::shared_ptr<const FrameSource> frames;  ///< uncached
  IntensityEncoding intensity;
  AcquisitionGeometry geometry;
  std::vector<MaskInstruction> mask_instructions;
  Opening shutter, collimator;
  std::vector<double> frame_times_ms;
  std::optional<std::array<double, 2>> window;
  std::optional<int> instance_number, acquisition_number;
  std::optional<double> acquired_ms, content_ms;  ///< acquisition and content time of this file, on a scale that all files share
  std::optional<double> frame_interval_ms;        ///< Frame Time, else from Cine Rate, whether or not the file points to it
  std::vector<std::string> warnings;
};

/// Reads the header. Throws InputError where the file is not an angiographic run or its Image Pixel module can't be used; what merely
/// is odd becomes a warning and the value is left out, never guessed.
DicomHeader read_dicom_header(const DicomLayout& layout);

/// Which object a file holds.
struct DicomIdentity {
  std::string sop_class_uid, sop_instance_uid, series_instance_uid, modality;
  bool angiographic = false;  ///< XA, XRF, enhanced XA or XRF, or a secondary capture with Modality XA or RF
};
/// Reads only that, so that reports and presentation states in a folder can be left aside. Throws InputError where there is no header.
DicomIdentity read_dicom_identity(const DicomLayout& layout);

}  // namespace cinelumen
