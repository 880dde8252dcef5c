#pragma once
/// Where things stand in a DICOM file: a bounded walk over its elements that trusts nothing, made before any parser sees the file, and
/// the places of the compressed frames.

#include <cstdint>
#include <string>
#include <vector>

#include "io/byte_source.h"

namespace cinelumen {

/// A piece of a file.
struct ByteRange {
  std::uint64_t offset = 0, size = 0;
};

/// The outline of one DICOM file.
struct DicomLayout {
  ByteSource bytes;  ///< the file; where it is deflated: the data set inflated, explicit little endian, starting at dataset_offset 0
  std::string transfer_syntax;
  bool explicit_vr = true, big_endian = false, deflated = false;
  std::uint64_t dataset_offset = 0;     ///< first byte after the file's meta information
  std::uint64_t pixel_data_offset = 0;  ///< where the header ends: of Pixel Data's tag, or the end of the file where there is none
  bool has_pixel_data = false;
  bool encapsulated = false;
  bool pixel_words = false;              ///< Pixel Data's VR is OW: matters for 8 bits in big endian
  ByteRange pixels;                      ///< native Pixel Data
  std::vector<ByteRange> fragments;      ///< encapsulated: all items but the first
  std::vector<std::uint64_t> item_tags;  ///< the fragments' item tags, as offsets from the first one's
  ByteRange offset_table;                ///< the first item's bytes, often empty
  ByteRange extended_offsets;            ///< (7FE0,0001), empty where absent
  std::vector<std::string> warnings;
};

/// True where the file begins as DICOM files do: "DICM" at byte 128, or without preamble with an element of group 2 or 8.
bool looks_like_dicom(const ByteSource& file);

/// Walks the whole file. Depth of nesting, number of elements and every length are checked against limits and against the file; the
/// deflated transfer syntax is inflated up to 32 times the file's size (64 MiB at least). Throws InputError that names the place.
DicomLayout read_dicom_layout(const ByteSource& file);

/// The pieces of each frame's codestream. Uses the (extended) offset table; where it is empty or wrong: one fragment a frame, else the
/// codestreams' first bytes. Adds to warnings what it had to do; throws InputError where frames and fragments can't be matched.
std::vector<std::vector<ByteRange>> frame_fragments(const DicomLayout& layout, int frames, std::vector<std::string>& warnings);

}  // namespace cinelumen
