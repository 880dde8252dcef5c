#pragma once
/// Videos and image sequences as runs, through OpenCV: pictures made for display.

#include <string>
#include <vector>

#include "engine/run.h"

namespace cinelumen {

/// True where a name's ending is that of a video or of an image that OpenCV reads.
bool is_video_name(const std::string& path);
bool is_image_name(const std::string& path);

/// "2" before "10": runs of digits compare as numbers.
bool natural_less(const std::string& a, const std::string& b);

/// The image files in a folder in natural order ("2" before "10"); empty where there are none.
std::vector<std::string> images_in_folder(const std::string& folder);
/// The files that fit a pattern with one %d or %0Nd, in the order of their numbers; empty where none does. Adds a warning on gaps.
std::vector<std::string> images_of_pattern(const std::string& pattern, std::vector<std::string>& warnings);

/// A video file as a run: 8-bit luminance. Counts the frames by decoding once. No frame times, no spacing: callers set them.
Run read_video(const std::string& path);
/// Image files as a run, one frame each, of one size and depth (8 or 16 bits); colours become luminance. `path` describes the run.
Run read_images(const std::string& path, const std::vector<std::string>& files);

}  // namespace cinelumen
