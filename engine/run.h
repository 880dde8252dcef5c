#pragma once
/// One cine acquisition: its frames and what its header says about them, free of any file format.

#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/image.h"

namespace cinelumen {

/// The input can't be used. what() is one line that names the file, the tag or place, its value, and what was expected. Exit code 1.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Gives the frames of a run, decoded, on demand. Implemented by io/ and by the phantom.
class FrameSource {
 public:
  virtual ~FrameSource() = default;
  virtual int frame_count() const = 0;
  virtual int rows() const = 0;
  virtual int columns() const = 0;
  /// Writes frame `frame` (0-based) to `stored` (host, rows x columns): unsigned values in [0, 2^bits_stored), signed input already
  /// shifted by 2^(bits_stored - 1), MONOCHROME1 as stored. May be called from several threads at once. Throws InputError.
  virtual void read_frame(int frame, ImageView<std::uint16_t> stored) const = 0;
};

/// How pixel values relate to the X-ray intensity at the detector (DICOM Pixel Intensity Relationship).
enum class IntensityRelationship {
  linear,       ///< LIN, or brought to it by the file's own LUT
  logarithmic,  ///< LOG
  display,      ///< DISP, vendor values, video and images: made for looking at; no densitometry
};

/// Pixel values in words the intensity model understands. io/ has applied Modality LUT or rescale, and the Pixel Intensity Relationship
/// LUT where it gives TO_LINEAR or TO_LOG; neither VOI LUT nor presentation is in here.
struct IntensityEncoding {
  IntensityRelationship relationship = IntensityRelationship::display;
  std::string relationship_as_stored;  ///< "LIN", "DRM", ... as in the file; empty where absent
  int sign = 1;                        ///< +1: larger value means more intensity; -1: less (also MONOCHROME1 without a sign)
  int bits_stored = 8;
  std::vector<float> value;  ///< pixel value for each stored value, size 2^bits_stored
};

/// Distances and spacings of the projection as the file gives them. Nothing is guessed.
struct AcquisitionGeometry {
  std::optional<double> source_to_detector_mm, source_to_patient_mm;
  std::optional<double> magnification;                           ///< Estimated Radiographic Magnification Factor, SID / SOD
  std::optional<std::array<double, 2>> imager_pixel_spacing_mm;  ///< (row, column) at the detector
  std::optional<std::array<double, 2>> pixel_spacing_mm;         ///< (row, column), Pixel Spacing (0028,0030)
  std::string pixel_spacing_calibration;                         ///< "FIDUCIAL", "GEOMETRY" or empty
  std::optional<std::array<double, 2>> object_pixel_spacing_mm;  ///< (row, column), Object Pixel Spacing in Center of Beam
  std::optional<double> primary_angle_deg, secondary_angle_deg;
};

/// One item of the DICOM Mask Module (PS3.3 C.7.6.10), literally: frame numbers are 1-based.
struct MaskInstruction {
  enum class Operation { none, average_subtraction, time_interval_difference, reverse_time_interval_difference };
  Operation operation = Operation::none;
  std::vector<std::array<int, 2>> applicable_frames;  ///< inclusive ranges; empty: all frames
  std::vector<int> mask_frames;                       ///< Mask Frame Numbers (AVG_SUB)
  std::array<double, 2> sub_pixel_shift = {0, 0};     ///< (vertical, horizontal), moves the mask
  int tid_offset = 1;                                 ///< positive: an earlier frame is the mask
  int contrast_frame_averaging = 1;
};

/// A part of the image that is worth reading: the display shutter or the collimator's opening, in pixels.
struct FieldOfView {
  ImageView<const std::uint8_t> valid() const { return mask.view(); }
  Image<std::uint8_t> mask;  ///< rows x columns, 1 inside; host
  std::string source;        ///< "shutter", "collimator", "pixels" or "whole image"
};

/// Who and when, for the report's header. Empty where unknown.
struct RunDescription {
  std::string path, sha256, sop_class_uid, sop_instance_uid, series_instance_uid, study_instance_uid, transfer_syntax, modality;
  std::string patient_name, patient_id, patient_birth_date, patient_sex, body_part, laterality, study_description, series_description,
      manufacturer, model;
  std::string acquired;  ///< ISO 8601 local time
  bool enhanced = false;
};

/// One cine acquisition.
struct Run {
  std::shared_ptr<const FrameSource> frames;
  RunDescription description;
  IntensityEncoding intensity;
  AcquisitionGeometry geometry;
  std::vector<MaskInstruction> mask_instructions;
  FieldOfView field;                            ///< always set, rows x columns
  std::vector<double> frame_times_ms;           ///< from the first frame; empty where the file gives no usable time
  std::optional<std::array<double, 2>> window;  ///< VOI (centre, width) for display only
  std::vector<std::string> warnings;            ///< what was odd in the file and what was done about it

  int frame_count() const { return frames->frame_count(); }
  int rows() const { return frames->rows(); }
  int columns() const { return frames->columns(); }
};

}  // namespace cinelumen
