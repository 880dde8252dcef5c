#pragma once
/// Which frames make the mask (methods.md 2).

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "engine/frame_planes.h"
#include "engine/run.h"

namespace cinelumen {

/// What the mask is made of.
enum class MaskSource { dicom, automatic, envelope, none };
/// The name that results use.
const char* to_string(MaskSource source);

/// Frames whose average is a mask.
struct MaskAverage {
  std::vector<int> frames;                         ///< 0-based in the file
  std::array<double, 2> sub_pixel_shift = {0, 0};  ///< (vertical, horizontal), moves the mask; as the file asks
};

/// The masks of a run.
struct MaskChoice {
  MaskSource source = MaskSource::none;
  std::vector<MaskAverage> masks;      ///< one, or as many as the file's items ask for; empty: none
  std::vector<int> mask_of_frame;      ///< per frame of the analysed part: which of `masks` it is measured against
  int reference_frame = 0;             ///< 0-based: its coordinates are the mask's
  int inflow_frame = -1;               ///< 0-based first frame with contrast, -1: none found
  std::vector<double> contrast_score;  ///< per frame of the analysed part, noise SDs
  std::vector<MaskInstruction> dicom;  ///< what the file asks for, followed or not
  std::vector<std::string> notes;      ///< what the file asked for, what was done, and why

  /// Frames (0-based) of all masks, in the masks' order, each once.
  std::vector<int> frames() const;
};

/// What a DICOM instruction asks for at one frame.
struct FrameMask {
  MaskInstruction::Operation operation = MaskInstruction::Operation::none;
  std::vector<int> frames;                         ///< 0-based, averaged; empty: this frame is shown as it is
  std::array<double, 2> sub_pixel_shift = {0, 0};  ///< (vertical, horizontal), moves the mask
  int contrast_frame_averaging = 1;                ///< frames averaged before subtraction, from this one on
};

/// The mask of frame `frame` (0-based) under DICOM instructions, literally (PS3.3 C.7.6.10): the first item that applies to the frame;
/// AVG_SUB its Mask Frame Numbers; TID the frame `tid_offset` earlier; REV_TID, for the first frame of the range, the frame `tid_offset`
/// before it, and one earlier for each frame further on. Masks that do not exist are left out.
FrameMask dicom_mask_for(const std::vector<MaskInstruction>& instructions, int frame, int frame_count);

/// What frame `frame` is to be shown with, where that is not what it is measured with: a time interval difference (its frames hold
/// contrast, so no lumen can be measured in it), or frames averaged before subtraction (lumina are measured in raw frames). Empty: shown as
/// measured, also where a difference lacks its mask. `choice` must come from select_mask for the same run.
std::optional<FrameMask> shown_mask_for(const MaskChoice& choice, int frame, int frame_count);

/// Chooses the masks for the frames that `planes` show: those of the file's AVG_SUB items, each for its own frames (frames that no such
/// item covers take the first one's), else the contrast-free frames before the inflow, else the envelope, else (a single frame, or no
/// contrast that comes or goes) none. Time interval differences (TID, REV_TID) are for showing only: see shown_mask_for. `odd_frames`
/// (0-based, in order) are never chosen.
MaskChoice select_mask(const Run& run, FramePlanes planes, const std::vector<int>& odd_frames = {});

}  // namespace cinelumen
