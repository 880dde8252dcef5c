#pragma once
/// Which frames make the mask (methods.md 2).

#include <string>
#include <vector>

#include "engine/noise_model.h"
#include "engine/run.h"

namespace cinelumen {

enum class MaskSource { dicom, automatic, envelope, none };
const char* to_string(MaskSource source);

/// The mask of one frame or of all.
struct MaskChoice {
  MaskSource source = MaskSource::none;
  std::vector<int> frames;             ///< 0-based in the file; the first is the reference unless the DICOM instruction says otherwise
  int reference_frame = 0;             ///< 0-based: its coordinates are the mask's
  int inflow_frame = -1;               ///< 0-based first frame with contrast, -1: none found
  std::vector<double> contrast_score;  ///< per frame of the analysed part, noise SDs
  std::vector<MaskInstruction> dicom;  ///< where source is dicom: what to do per frame
  std::vector<std::string> notes;      ///< what the file asked for, what was done, and why
};

/// Chooses the mask for frames first..last (0-based, inclusive): the file's Mask Module where it can be followed, else the contrast-free
/// frames before the inflow, else the envelope, else (single frame) none.
MaskChoice select_mask(const Run& run, const IntensityModel& intensity, int first, int last);

}  // namespace cinelumen
