#pragma once
/// Pictures of log attenuation as 16-bit PNG: what `compare` reads of a finished analysis.

#include <cstdint>
#include <string>

#include "engine/analysis.h"
#include "io/output_folder.h"

namespace cinelumen {

/// Their names in an analysis's folder: the contrast-free picture, and the fullest one.
inline constexpr const char* mask_picture_name = "mask.png";
inline constexpr const char* opacification_name = "opacification.png";

/// A PNG file's bytes: 1 + (value + 2) x 4096, clipped; 0 where `valid` is 0, or the value is not a number. Host.
std::string encode_log_picture(ImageView<const float> picture, ImageView<const std::uint8_t> valid);

/// Writes those of an analysis that there are. `valid` as above. Throws OutputError.
void write_log_pictures(OutputFolder& folder, const Analysis& analysis, ImageView<const std::uint8_t> valid);

/// A picture and where it may be read.
struct LogPicture {
  Image<float> picture;
  Image<std::uint8_t> valid;
};

/// The inverse, from a file. Throws InputError where it can't be read or is not such a picture.
LogPicture read_log_picture(const std::string& path);

}  // namespace cinelumen
