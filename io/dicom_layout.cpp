#include "io/dicom_layout.h"

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcistrmf.h>
#include <dcmtk/dcmdata/dctk.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "engine/run.h"

namespace cinelumen {
namespace {

constexpr std::uint64_t undefined_length = 0xFFFFFFFFu;
constexpr std::uint32_t item_tag = 0xFFFEE000u, item_end_tag = 0xFFFEE00Du, sequence_end_tag = 0xFFFEE0DDu;
constexpr std::uint32_t pixel_data_tag = 0x7FE00010u;
constexpr int depth_limit = 64;
constexpr int element_limit = 500'000;

std::string tag_name(std::uint32_t tag) {
  char text[16];
  std::snprintf(text, sizeof text, "(%04x,%04x)", tag >> 16, tag & 0xFFFF);
  return text;
}

/// A window that slides over the source, so that a walk costs few reads.
class Window {
 public:
  explicit Window(const ByteSource& bytes) : bytes_(bytes) {}
  /// `count` <= 4096 bytes at `offset`, valid until the next call.
  const std::uint8_t* at(std::uint64_t offset, std::size_t count) {
    if (offset < start_ || offset + count > start_ + content_.size()) {
      if (offset > bytes_.size() || count > bytes_.size() - offset)
        throw InputError(bytes_.path() + ": truncated: the file ends at byte " + std::to_string(bytes_.size()) +
                         " inside an element that starts at or before byte " + std::to_string(offset));
      content_.resize(std::min<std::uint64_t>(65536, bytes_.size() - offset));
      bytes_.read(offset, content_);
      start_ = offset;
    }
    return content_.data() + (offset - start_);
  }

 private:
  const ByteSource& bytes_;
  std::uint64_t start_ = 0;
  std::vector<std::uint8_t> content_;
};

std::uint16_t number16(const std::uint8_t* p, bool big) { return static_cast<std::uint16_t>(big ? p[0] << 8 | p[1] : p[1] << 8 | p[0]); }
std::uint32_t number32(const std::uint8_t* p, bool big) {
  return big ? std::uint32_t(p[0]) << 24 | std::uint32_t(p[1]) << 16 | std::uint32_t(p[2]) << 8 | p[3]
             : std::uint32_t(p[3]) << 24 | std::uint32_t(p[2]) << 16 | std::uint32_t(p[1]) << 8 | p[0];
}

struct Element {
  std::uint32_t tag = 0;
  std::array<char, 2> vr = {0, 0};  ///< zeros: implicit
  std::uint64_t value = 0, length = 0;
};

bool long_form(std::array<char, 2> vr) {
  static constexpr const char* short_vrs[] = {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FL", "FD", "IS", "LO",
                                              "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"};
  for (const char* name : short_vrs)
    if (vr[0] == name[0] && vr[1] == name[1]) return false;
  return true;
}

Element read_element(Window& window, const ByteSource& bytes, std::uint64_t offset, bool explicit_vr, bool big) {
  Element element;
  const std::uint8_t* p = window.at(offset, 8);
  element.tag = std::uint32_t(number16(p, big)) << 16 | number16(p + 2, big);
  if (!explicit_vr || element.tag >> 16 == 0xFFFE) {
    element.length = number32(p + 4, big);
    element.value = offset + 8;
    return element;
  }
  element.vr = {static_cast<char>(p[4]), static_cast<char>(p[5])};
  const auto capital = [](char c) { return c >= 'A' && c <= 'Z'; };
  if (!capital(element.vr[0]) || !capital(element.vr[1]))
    throw InputError(bytes.path() + ": byte " + std::to_string(offset) + ": element " + tag_name(element.tag) +
                     " has no value representation; the file is damaged or its transfer syntax is not the one it states");
  if (long_form(element.vr)) {
    element.length = number32(window.at(offset, 12) + 8, big);
    element.value = offset + 12;
  } else {
    element.length = number16(p + 6, big);
    element.value = offset + 8;
  }
  return element;
}

/// Whether DCMTK would look for items inside this element.
bool is_sequence(const Element& element) {
  if (element.vr[0] == 'S' && element.vr[1] == 'Q') return true;
  if (element.length == undefined_length) return true;
  if (element.vr[0] != 0) return false;
  return DcmTag(static_cast<Uint16>(element.tag >> 16), static_cast<Uint16>(element.tag & 0xFFFF)).getEVR() == EVR_SQ;
}

/// Refused for its depth: also where the content is only perhaps a sequence.
class TooDeep : public InputError {
 public:
  using InputError::InputError;
};

class Walk {
 public:
  Walk(const ByteSource& bytes, bool explicit_vr, bool big) : bytes_(bytes), window_(bytes), explicit_vr_(explicit_vr), big_(big) {}

  void count() {
    if (++elements_ > element_limit) throw InputError(bytes_.path() + ": more than " + std::to_string(element_limit) + " elements");
  }

  Element element(std::uint64_t offset, std::uint64_t end, bool explicit_vr) {
    count();
    const Element element = read_element(window_, bytes_, offset, explicit_vr, big_);
    if (element.length != undefined_length && (element.value > end || element.length > end - element.value))
      throw InputError(bytes_.path() + ": truncated: element " + tag_name(element.tag) + " at byte " + std::to_string(offset) +
                       " has length " + std::to_string(element.length) + ", " +
                       std::to_string(end > element.value ? end - element.value : 0) + " bytes are left");
    return element;
  }
  Element element(std::uint64_t offset) { return element(offset, bytes_.size(), explicit_vr_); }

  /// Walks over what stands in a sequence and returns where it ends. No recursion: the file decides the depth, not our stack.
  std::uint64_t skip_sequence(const Element& sequence, std::uint64_t limit, std::size_t depth = 0) {
    struct Level {
      bool items;        ///< the content is items, else elements
      bool explicit_vr;  ///< of the elements inside
      bool defined;
      std::uint64_t end;
    };
    // A value of VR UN with undefined length is implicit little endian inside (PS3.5 6.2.2).
    const auto inside_explicit = [&](const Element& e, bool now) { return e.vr[0] == 'U' && e.vr[1] == 'N' ? false : now; };
    std::vector<Level> levels;
    const auto enter = [&](const Element& e, bool items, bool explicit_vr, std::uint64_t end) {
      if (depth + levels.size() >= 2 * depth_limit)
        throw TooDeep(bytes_.path() + ": byte " + std::to_string(e.value) + ": sequences nested more than " + std::to_string(depth_limit) +
                      " deep");
      const bool defined = e.length != undefined_length;
      levels.push_back({items, explicit_vr, defined, defined ? e.value + e.length : end});
      return e.value;
    };
    std::uint64_t at = enter(sequence, true, inside_explicit(sequence, explicit_vr_), limit);
    while (!levels.empty()) {
      const Level level = levels.back();
      if (level.defined && at >= level.end) {
        levels.pop_back();
        continue;
      }
      const Element next = element(at, level.end, level.explicit_vr);
      if (next.tag == sequence_end_tag || next.tag == item_end_tag) {
        if (level.defined || (next.tag == sequence_end_tag) != level.items)
          throw InputError(bytes_.path() + ": byte " + std::to_string(at) + ": delimiter " + tag_name(next.tag) + " where none belongs");
        levels.pop_back();
        at = next.value;
      } else if (level.items) {
        if (next.tag != item_tag)
          throw InputError(bytes_.path() + ": byte " + std::to_string(at) + ": " + tag_name(next.tag) +
                           " where an item of a sequence was expected");
        at = enter(next, false, level.explicit_vr, level.end);
      } else if (next.tag == pixel_data_tag && next.length == undefined_length) {
        at = skip_fragments(next, level.end, nullptr);  // an icon
      } else if (is_sequence(next)) {
        at = enter(next, true, inside_explicit(next, level.explicit_vr), level.end);
      } else {
        check_private(next, depth + levels.size());
        at = next.value + next.length;
      }
    }
    return at;
  }

  /// In implicit VR only a private dictionary knows which private elements are sequences, and DCMTK has one: what begins like a
  /// sequence must not nest too deep, whatever else it turns out to be.
  void check_private(const Element& element, std::size_t depth) {
    if (element.vr[0] != 0 || (element.tag >> 16) % 2 == 0 || element.length < 8) return;
    const std::uint8_t* first = window_.at(element.value, 4);
    if ((std::uint32_t(number16(first, big_)) << 16 | number16(first + 2, big_)) != item_tag) return;
    try {
      skip_sequence(element, element.value + element.length, depth);
    } catch (const TooDeep&) {
      throw;
    } catch (const InputError&) {
      // Bytes of another kind.
    }
  }

  /// Walks over encapsulated pixel data, notes the fragments in `layout` where given, and returns where it ends.
  std::uint64_t skip_fragments(const Element& pixel_data, std::uint64_t limit, DicomLayout* layout) {
    std::uint64_t at = pixel_data.value, first = 0;
    for (int item = 0;; ++item) {
      if (at >= limit && layout && item > 0)
        throw InputError(bytes_.path() + ": truncated: Pixel Data (7fe0,0010) ends after " + std::to_string(item - 1) +
                         " fragments without its end mark");
      const Element next = element(at, limit, explicit_vr_);
      if (next.tag == sequence_end_tag) return next.value;
      if (next.tag != item_tag || next.length == undefined_length)
        throw InputError(bytes_.path() + ": byte " + std::to_string(at) + ": " + tag_name(next.tag) +
                         " in Pixel Data (7fe0,0010), a fragment was expected");
      if (layout && item == 0) layout->offset_table = {next.value, next.length};
      if (layout && item > 0) {
        if (item == 1) first = at;
        layout->fragments.push_back({next.value, next.length});
        layout->item_tags.push_back(at - first);
      }
      at = next.value + next.length;
    }
  }

  bool explicit_vr() const { return explicit_vr_; }
  Window& window() { return window_; }

 private:
  const ByteSource& bytes_;
  Window window_;
  bool explicit_vr_, big_;
  int elements_ = 0;
};

struct Start {
  bool preamble = false, meta = false, explicit_vr = true, big_endian = false;
  std::uint64_t offset = 0;
};

std::optional<Start> find_start(const ByteSource& file) {
  Start start;
  std::array<std::uint8_t, 132> head{};
  if (file.size() >= head.size()) {
    file.read(0, head);
    start.preamble = std::memcmp(head.data() + 128, "DICM", 4) == 0;
  }
  start.offset = start.preamble ? 132 : 0;
  if (file.size() < start.offset + 8) return start.preamble ? std::optional(start) : std::nullopt;
  std::array<std::uint8_t, 8> first{};
  file.read(start.offset, first);
  const auto capital = [](std::uint8_t c) { return c >= 'A' && c <= 'Z'; };
  start.explicit_vr = capital(first[4]) && capital(first[5]);
  start.meta = first[0] == 2 && first[1] == 0 && start.explicit_vr;
  start.big_endian = first[0] == 0 && first[1] == 8;
  const bool group_8 = (first[0] == 8 && first[1] == 0) || start.big_endian;
  if (start.preamble || start.meta) return start;
  if (!group_8 || (!start.explicit_vr && number32(first.data() + 4, false) > file.size())) return std::nullopt;
  return start;
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == 0 || text.back() == ' ')) text.pop_back();
  return text;
}

/// Reads group 2 and returns where the data set starts.
std::uint64_t read_meta(const ByteSource& file, std::uint64_t offset, std::string& transfer_syntax) {
  Walk walk(file, true, false);
  std::uint64_t at = offset;
  while (at + 8 <= file.size()) {
    if (number16(walk.window().at(at, 2), false) != 2) break;
    const Element element = walk.element(at);
    if (element.length == undefined_length)
      throw InputError(file.path() + ": element " + tag_name(element.tag) + " of undefined length in the file's meta information");
    if (element.tag == 0x00020010u) {
      const auto value = file.read(element.value, std::min<std::uint64_t>(element.length, 128));
      transfer_syntax = trimmed(std::string(value.begin(), value.end()));
    }
    at = element.value + element.length;
  }
  return at;
}

std::vector<std::uint8_t> inflate(const ByteSource& file, std::uint64_t offset) {
  const std::uint64_t limit = std::max<std::uint64_t>(std::uint64_t(64) << 20, 32 * file.size());
  DcmInputFileStream stream(OFFilename(file.path().c_str()), static_cast<offile_off_t>(offset));
  if (stream.status().bad() || stream.installCompressionFilter(ESC_zlib).bad())
    throw InputError(file.path() + ": the deflated data set can't be read: " + stream.status().text());
  std::vector<std::uint8_t> bytes;
  for (;;) {
    const std::size_t part = 1 << 20;
    const std::size_t before = bytes.size();
    bytes.resize(before + part);
    const auto count = stream.read(bytes.data() + before, static_cast<offile_off_t>(part));
    bytes.resize(before + static_cast<std::size_t>(std::max<offile_off_t>(count, 0)));
    if (bytes.size() > limit)
      throw InputError(file.path() + ": the deflated data set grows beyond " + std::to_string(limit) + " bytes from a file of " +
                       std::to_string(file.size()));
    if (stream.status().bad()) throw InputError(file.path() + ": the deflated data set is damaged: " + stream.status().text());
    if (count <= 0) break;
  }
  bytes.shrink_to_fit();
  return bytes;
}

}  // namespace

bool looks_like_dicom(const ByteSource& file) { return find_start(file).has_value(); }

DicomLayout read_dicom_layout(const ByteSource& file) {
  const std::optional<Start> start = find_start(file);
  if (!start)
    throw InputError(file.path() + ": not a DICOM file: no \"DICM\" at byte 128 and no element of group 0002 or 0008 at its start");
  DicomLayout layout;
  layout.bytes = file;
  if (!start->preamble) layout.warnings.push_back("The file has no preamble; it was read all the same.");
  layout.dataset_offset = start->offset;
  if (start->meta) layout.dataset_offset = read_meta(file, start->offset, layout.transfer_syntax);
  if (layout.dataset_offset >= file.size()) throw InputError(file.path() + ": truncated: the file ends before its data set");

  if (layout.transfer_syntax.empty()) {
    const auto head = file.read(layout.dataset_offset, std::min<std::uint64_t>(8, file.size() - layout.dataset_offset));
    const bool vr = head.size() >= 6 && std::isupper(head[4]) && std::isupper(head[5]);
    const bool big = head.size() >= 2 && head[0] == 0 && head[1] != 0;
    layout.transfer_syntax = big  ? UID_BigEndianExplicitTransferSyntax
                             : vr ? UID_LittleEndianExplicitTransferSyntax
                                  : UID_LittleEndianImplicitTransferSyntax;
    layout.warnings.push_back("The file doesn't state its transfer syntax; " + layout.transfer_syntax +
                              " was assumed from its first element.");
  }
  layout.explicit_vr = layout.transfer_syntax != UID_LittleEndianImplicitTransferSyntax;
  layout.big_endian = layout.transfer_syntax == UID_BigEndianExplicitTransferSyntax;
  layout.deflated = layout.transfer_syntax == UID_DeflatedExplicitVRLittleEndianTransferSyntax;
  if (layout.deflated) {
    layout.bytes = ByteSource::memory(file.path(), inflate(file, layout.dataset_offset));
    layout.dataset_offset = 0;
  }

  const ByteSource& bytes = layout.bytes;
  Walk walk(bytes, layout.explicit_vr, layout.big_endian);
  std::uint64_t at = layout.dataset_offset;
  layout.pixel_data_offset = bytes.size();
  while (at < bytes.size()) {
    const bool after_pixels = layout.has_pixel_data;
    try {
      const Element element = walk.element(at);
      if (element.tag >> 16 == 0xFFFE || (after_pixels && element.tag <= pixel_data_tag))
        throw InputError(bytes.path() + ": byte " + std::to_string(at) + ": " + tag_name(element.tag) + " where it doesn't belong");
      if (element.tag == pixel_data_tag) {
        layout.has_pixel_data = true;
        layout.pixel_data_offset = at;
        layout.encapsulated = element.length == undefined_length;
        layout.pixel_words = !layout.explicit_vr || (element.vr[0] == 'O' && element.vr[1] == 'W');
        if (!layout.encapsulated) layout.pixels = {element.value, element.length};
        at = layout.encapsulated ? walk.skip_fragments(element, bytes.size(), &layout) : element.value + element.length;
      } else {
        if (element.tag == 0x7FE00001u && element.length != undefined_length) layout.extended_offsets = {element.value, element.length};
        if (!is_sequence(element)) walk.check_private(element, 0);
        at = is_sequence(element) ? walk.skip_sequence(element, bytes.size()) : element.value + element.length;
      }
    } catch (const InputError&) {
      // What follows the pixels is of no use here, so it can't spoil them.
      if (!after_pixels) throw;
      layout.warnings.push_back("The file goes on after its pixels, from byte " + std::to_string(at) +
                                ", with bytes that are not DICOM; they were ignored.");
      break;
    }
  }
  return layout;
}

namespace {

bool starts_codestream(const std::uint8_t* p) {
  const bool jpeg = p[0] == 0xFF && p[1] == 0xD8 && p[2] == 0xFF;
  const bool jpeg2000 = p[0] == 0xFF && p[1] == 0x4F && p[2] == 0xFF && p[3] == 0x51;
  const bool jp2 = std::memcmp(p, "\0\0\0\x0CjP  ", 8) == 0;
  return jpeg || jpeg2000 || jp2;
}

/// The offset table's frames as pieces, or nothing where the table doesn't fit the fragments.
std::optional<std::vector<std::vector<ByteRange>>> by_offsets(const DicomLayout& layout, const std::vector<std::uint64_t>& offsets) {
  std::vector<std::vector<ByteRange>> frames(offsets.size());
  std::size_t fragment = 0;
  for (std::size_t frame = 0; frame < offsets.size(); ++frame) {
    if (fragment >= layout.fragments.size() || layout.item_tags[fragment] != offsets[frame]) return std::nullopt;
    const std::uint64_t end = frame + 1 < offsets.size() ? offsets[frame + 1] : UINT64_MAX;
    for (; fragment < layout.fragments.size() && layout.item_tags[fragment] < end; ++fragment)
      frames[frame].push_back(layout.fragments[fragment]);
    if (frames[frame].empty()) return std::nullopt;
  }
  return frames;
}

std::vector<std::uint64_t> table(const DicomLayout& layout, ByteRange range, std::size_t width, std::size_t limit) {
  std::vector<std::uint64_t> numbers;
  if (range.size / width > limit) return numbers;
  const auto bytes = layout.bytes.read(range.offset, range.size / width * width);
  for (std::size_t i = 0; i < bytes.size(); i += width) {
    std::uint64_t number = number32(bytes.data() + i, false);
    if (width == 8) number |= std::uint64_t(number32(bytes.data() + i + 4, false)) << 32;
    numbers.push_back(number);
  }
  return numbers;
}

}  // namespace

std::vector<std::vector<ByteRange>> frame_fragments(const DicomLayout& layout, int frames, std::vector<std::string>& warnings) {
  const std::size_t count = static_cast<std::size_t>(frames), fragments = layout.fragments.size();
  for (const auto& [range, width] : {std::pair(layout.extended_offsets, 8), std::pair(layout.offset_table, 4)}) {
    if (range.size == 0) continue;
    auto offsets = table(layout, range, static_cast<std::size_t>(width), fragments);
    if (offsets.size() >= count) {
      if (auto found = by_offsets(layout, offsets)) {
        if (offsets.size() > count)
          warnings.push_back("Number of Frames (0028,0008) is " + std::to_string(frames) + ", the file holds " +
                             std::to_string(offsets.size()) + "; the header's number was taken.");
        found->resize(count);
        return *found;
      }
    }
    warnings.push_back("The offset table of Pixel Data (7fe0,0010) doesn't fit its fragments; it was ignored.");
  }
  std::vector<std::vector<ByteRange>> result;
  if (fragments == count) {
    for (const ByteRange& fragment : layout.fragments) result.push_back({fragment});
    return result;
  }
  if (count == 1 && fragments > 0) return {layout.fragments};
  for (const ByteRange& fragment : layout.fragments) {
    std::array<std::uint8_t, 8> head{};
    layout.bytes.read(fragment.offset, std::span(head).first(std::min<std::uint64_t>(head.size(), fragment.size)));
    if (starts_codestream(head.data())) result.push_back({});
    if (result.empty()) break;
    result.back().push_back(fragment);
  }
  if (result.size() < count)
    throw InputError(layout.bytes.path() + ": Number of Frames (0028,0008) is " + std::to_string(frames) + ", Pixel Data (7fe0,0010) has " +
                     std::to_string(fragments) + " fragments in which " + std::to_string(result.size()) + " frames begin");
  if (result.size() > count) {
    warnings.push_back("Number of Frames (0028,0008) is " + std::to_string(frames) + ", the file holds " + std::to_string(result.size()) +
                       "; the header's number was taken.");
    result.resize(count);
  }
  return result;
}

}  // namespace cinelumen
