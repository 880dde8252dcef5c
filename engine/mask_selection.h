#pragma once
/// Which frames make the mask (methods.md 2).

#include <array>
#include <string>
#include <vector>

#include "engine/noise_model.h"
#include "engine/run.h"

namespace cinelumen {

/// What the mask is made of.
enum class MaskSource { dicom, automatic, envelope, none };
/// The name that results use.
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

/// One mask among those a DICOM instruction asks for.
struct FrameMask {
  std::vector<int> frames;                         ///< 0-based, averaged; empty: this frame is shown as it is
  std::array<double, 2> sub_pixel_shift = {0, 0};  ///< (vertical, horizontal), moves the mask
  int contrast_frame_averaging = 1;                ///< frames averaged before subtraction, from this one on
};

/// The mask of frame `frame` (0-based) under DICOM instructions, literally (PS3.3 C.7.6.10): the first item that applies to the frame;
/// AVG_SUB its Mask Frame Numbers; TID the frame `tid_offset` earlier; REV_TID, for the first frame of the range, the frame `tid_offset`
/// before it, and one earlier for each frame further on. Masks that do not exist are left out.
FrameMask dicom_mask_for(const std::vector<MaskInstruction>& instructions, int frame, int frame_count);

/// Frames (0-based) whose average is the mask of frame `frame`: those of a DICOM instruction for it, else choice.frames.
std::vector<int> mask_frames_for(const MaskChoice& choice, int frame, int frame_count);

/// Chooses the mask for frames first..last (0-based, inclusive): the file's Mask Module where it can be followed, else the contrast-free
/// frames before the inflow, else the envelope, else (a single frame, or no contrast that comes or goes) none. A time interval difference
/// (TID, REV_TID) subtracts frames with contrast from one another: its instructions are kept in `dicom`, but the mask is chosen
/// automatically, since no lumen can be measured in such differences. Reads the frames, several at a time. Throws InputError where one
/// can't be read, std::invalid_argument where first..last does not lie in the run.
MaskChoice select_mask(const Run& run, const IntensityModel& intensity, int first, int last);

}  // namespace cinelumen
