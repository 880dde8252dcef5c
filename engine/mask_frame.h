#pragma once
/// The contrast-free reference that is subtracted from every frame.

#include <vector>

#include "engine/mask_selection.h"
#include "engine/noise_model.h"
#include "engine/registration.h"
#include "engine/run.h"
#include "kernels/image.h"

namespace cinelumen {

/// The mask, in the coordinates of frame `reference`. Images in memory of the stream's device, rows x columns.
struct MaskFrame {
  Image<float> attenuation;   ///< L
  Image<float> coefficients;  ///< its bspline_coefficients
  float noise_factor = 2;     ///< variance of (frame - mask) over the variance of a frame: 1 + 1/K for an average of K frames
  int reference = 0;          ///< 0-based
};

/// Makes the masks that `choice` asks for, one for each of choice.masks: the average of its frames, each first registered to the reference
/// frame where it has moved by 0.02 px or more (those of a DICOM instruction are averaged as they are, and the average moved by its
/// sub-pixel shift), or the envelope: at each pixel the mean of the two least attenuations that its frames show there, registered alike.
/// With non-rigid registration they are laid on it as bent as they are found. Where there are several masks and `registration` is not
/// none, the later ones are laid (rigidly) on the first, so that all have its coordinates. Returns
/// when the images are complete. Throws InputError where a frame can't be read, std::invalid_argument where choice.source is none or a mask
/// names no frames.
std::vector<MaskFrame> make_mask_frames(const Stream& stream, const Run& run, const IntensityModel& intensity, const MaskChoice& choice,
                                        Registration registration = Registration::rigid);

/// The average of `mask.frames` as they are, moved by its sub-pixel shift: a mask as a DICOM instruction gives it. Throws as above.
MaskFrame average_mask_frames(const Stream& stream, const Run& run, const IntensityModel& intensity, const MaskAverage& mask);

}  // namespace cinelumen
