#pragma once
/// The frames of one DICOM file, each decoded when it is asked for.

#include <memory>
#include <string>
#include <vector>

#include "engine/run.h"
#include "io/dicom_layout.h"

namespace cinelumen {

/// What the Image Pixel module says, validated: 1 <= rows, columns <= 65535; frames >= 1; bits_allocated 8 or 16; bits_stored 8 to
/// bits_allocated; bits_stored - 1 <= high_bit < bits_allocated.
struct PixelFormat {
  int rows = 0, columns = 0, frames = 1;
  int bits_allocated = 0, bits_stored = 0, high_bit = 0;
  bool is_signed = false;
};

/// The frames of `layout`'s Pixel Data. Reading is thread-safe and decodes in the calling thread; nothing is kept. Compares the pixels'
/// length, or the number of codestreams, with the format before anything is allocated; each codestream's own size is compared before
/// it is decoded. Adds to warnings what was odd but could be read; throws InputError.
std::shared_ptr<const FrameSource> open_dicom_frames(const DicomLayout& layout, const PixelFormat& format,
                                                     std::vector<std::string>& warnings);

/// Keeps the frames used last, up to `bytes` in all: memory doesn't grow with the run. Reading is thread-safe.
std::shared_ptr<const FrameSource> cache_frames(std::shared_ptr<const FrameSource> frames, std::size_t bytes);

/// Switches DCMTK's own messages off and its codecs on, once a process. Anything here that uses DCMTK calls it first.
void prepare_dcmtk();

}  // namespace cinelumen
