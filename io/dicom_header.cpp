#include "io/dicom_header.h"

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcistrmb.h>
#include <dcmtk/dcmdata/dctk.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <limits>
#include <sstream>

namespace cinelumen {
namespace {

constexpr std::uint64_t header_limit = std::uint64_t(512) << 20;
constexpr std::int64_t pixel_limit = std::int64_t(1) << 26;  // 8192 x 8192, twice the side of the largest detectors

std::string tag_name(const DcmTagKey& tag) {
  char text[16];
  std::snprintf(text, sizeof text, "(%04x,%04x)", tag.getGroup(), tag.getElement());
  return text;
}

std::string in_words(double value) {
  std::ostringstream text;
  text.precision(10);
  text << value;
  return text.str();
}

std::string trimmed(const std::string& text) {
  const auto blank = [](char c) { return c == ' ' || c == '\0' || c == '\n' || c == '\r' || c == '\t'; };
  std::size_t first = 0, last = text.size();
  while (first < last && blank(text[first])) ++first;
  while (last > first && blank(text[last - 1])) --last;
  return text.substr(first, last - first);
}

std::string upper(std::string text) {
  for (char& c : text)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return text;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> values;
  if (text.empty()) return values;
  for (std::size_t start = 0;;) {
    const std::size_t end = text.find('\\', start);
    values.push_back(trimmed(text.substr(start, end == std::string::npos ? end : end - start)));
    if (end == std::string::npos) return values;
    start = end + 1;
  }
}

/// A decimal number and nothing else, or NaN.
double parse_number(std::string text) {
  if (!text.empty() && text.front() == '+') text.erase(0, 1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : std::numeric_limits<double>::quiet_NaN();
}

/// Values of one item or data set. Reads what is there, as text or numbers; empty where the element is absent or empty.
class Attributes {
 public:
  explicit Attributes(DcmItem* item) : item_(item) {}
  explicit operator bool() const { return item_ != nullptr; }
  DcmItem* item() const { return item_; }

  bool has(const DcmTagKey& tag) const { return item_ && item_->tagExistsWithValue(tag); }

  std::string text(const DcmTagKey& tag) const {
    OFString value;
    if (!item_ || item_->findAndGetOFStringArray(tag, value).bad()) return {};
    return clean_text(trimmed(std::string(value.c_str(), value.size())));
  }
  std::string code(const DcmTagKey& tag) const {
    const auto values = split(upper(text(tag)));
    return values.empty() ? std::string() : values.front();
  }
  /// All values; NaN for one that isn't a number.
  std::vector<double> numbers(const DcmTagKey& tag) const {
    std::vector<double> values;
    DcmElement* element = nullptr;
    if (!item_ || item_->findAndGetElement(tag, element).bad() || !element) return values;
    switch (element->getVR()) {
      case EVR_DS:
      case EVR_IS: {
        OFString all;
        if (element->getOFStringArray(all).good())
          for (const std::string& value : split(std::string(all.c_str(), all.size()))) values.push_back(parse_number(value));
        return values;
      }
      case EVR_US:
      case EVR_SS:
      case EVR_UL:
      case EVR_SL:
      case EVR_FL:
      case EVR_FD:
      case EVR_xs: {
        const unsigned long count = element->getVM();
        for (unsigned long i = 0; i < count; ++i) {
          OFString value;
          values.push_back(element->getOFString(value, i).good() ? parse_number(trimmed(value.c_str()))
                                                                 : std::numeric_limits<double>::quiet_NaN());
        }
        return values;
      }
      default:
        return values;
    }
  }
  std::optional<double> number(const DcmTagKey& tag) const {
    const auto values = numbers(tag);
    if (values.empty()) return std::nullopt;
    return values.front();
  }
  std::optional<double> finite(const DcmTagKey& tag) const {
    const auto value = number(tag);
    return value && std::isfinite(*value) ? value : std::nullopt;
  }
  int item_count(const DcmTagKey& tag) const {
    DcmSequenceOfItems* sequence = nullptr;
    if (!item_ || item_->findAndGetSequence(tag, sequence).bad() || !sequence) return 0;
    return static_cast<int>(sequence->card());
  }
  Attributes item(const DcmTagKey& tag, int index = 0) const {
    DcmItem* found = nullptr;
    if (!item_ || item_->findAndGetSequenceItem(tag, found, index).bad()) return Attributes(nullptr);
    return Attributes(found);
  }

 private:
  DcmItem* item_;
};

/// The data set and, in enhanced objects, its functional groups: per frame before shared before the data set's own level.
class Source {
 public:
  Source(DcmDataset& dataset, bool enhanced) : top_(&dataset), shared_(top_.item(DCM_SharedFunctionalGroupsSequence)), enhanced_(enhanced) {
    DcmSequenceOfItems* per_frame = nullptr;
    if (dataset.findAndGetSequence(DCM_PerFrameFunctionalGroupsSequence, per_frame).good() && per_frame)
      for (DcmObject* item = per_frame->nextInContainer(nullptr); item; item = per_frame->nextInContainer(item))
        per_frame_.push_back(Attributes(static_cast<DcmItem*>(item)));
  }
  const Attributes& top() const { return top_; }
  bool enhanced() const { return enhanced_; }
  int group_count() const { return static_cast<int>(per_frame_.size()); }

  /// The item of functional group `macro` for 0-based `frame`; absent: none.
  Attributes group(const DcmTagKey& macro, int frame = 0) const {
    if (frame < group_count())
      if (const Attributes found = per_frame_[static_cast<std::size_t>(frame)].item(macro)) return found;
    return shared_.item(macro);
  }
  /// Where attribute `tag` of functional group `macro` stands for the first frame.
  Attributes holder(const DcmTagKey& macro, const DcmTagKey& tag) const {
    const Attributes found = group(macro);
    return found.has(tag) ? found : top_;
  }
  /// False where `tag` differs between frames.
  bool constant(const DcmTagKey& macro, const DcmTagKey& tag) const {
    std::string first;
    for (int frame = 0; frame < group_count(); ++frame) {
      const std::string value = group(macro, frame).text(tag);
      if (frame == 0) first = value;
      if (value != first) return false;
    }
    return true;
  }

 private:
  Attributes top_, shared_;
  std::vector<Attributes> per_frame_;
  bool enhanced_;
};

bool is_enhanced(const std::string& sop_class) {
  return sop_class == UID_EnhancedXAImageStorage || sop_class == UID_EnhancedXRFImageStorage;
}
bool is_classic(const std::string& sop_class) {
  return sop_class == UID_XRayAngiographicImageStorage || sop_class == UID_XRayRadiofluoroscopicImageStorage;
}
bool is_secondary_capture(const std::string& sop_class) {
  return sop_class == UID_SecondaryCaptureImageStorage || sop_class == UID_MultiframeGrayscaleByteSecondaryCaptureImageStorage ||
         sop_class == UID_MultiframeGrayscaleWordSecondaryCaptureImageStorage;
}

std::unique_ptr<DcmDataset> parse(const DicomLayout& layout) {
  prepare_dcmtk();
  const std::uint64_t size = layout.pixel_data_offset - layout.dataset_offset;
  const std::string& path = layout.bytes.path();
  if (size > header_limit)
    throw InputError(path + ": a header of " + std::to_string(size) + " bytes, at most " + std::to_string(header_limit) + " expected");
  const std::vector<std::uint8_t> bytes = layout.bytes.read(layout.dataset_offset, size);
  DcmInputBufferStream stream;
  if (!bytes.empty()) stream.setBuffer(bytes.data(), static_cast<offile_off_t>(bytes.size()));
  stream.setEos();
  const E_TransferSyntax syntax = layout.big_endian    ? EXS_BigEndianExplicit
                                  : layout.explicit_vr ? EXS_LittleEndianExplicit
                                                       : EXS_LittleEndianImplicit;
  auto dataset = std::make_unique<DcmDataset>();
  dataset->transferInit();
  const OFCondition read = dataset->read(stream, syntax, EGL_noChange, DCM_MaxReadLength);
  dataset->transferEnd();
  if (read.bad()) throw InputError(path + ": the header is damaged: " + read.text());
  dataset->convertToUTF8();  // where it can't, clean_text() keeps the result valid
  return dataset;
}

/// Reads an element of the Image Pixel module that must be an unsigned short.
int pixel_module_number(const Attributes& top, const std::string& path, const DcmTagKey& tag, const char* name, const char* expected,
                        int low, int high) {
  DcmElement* element = nullptr;
  const std::string where = path + ": " + name + " " + tag_name(tag);
  if (top.item()->findAndGetElement(tag, element).bad() || !element) throw InputError(where + " is absent; expected " + expected);
  if (element->getVR() != EVR_US)
    throw InputError(where + " has value representation " + DcmVR(element->getVR()).getVRName() + "; expected US");
  Uint16 value = 0;
  if (element->getUint16(value).bad()) throw InputError(where + " is empty; expected " + expected);
  if (value < low || value > high) throw InputError(where + " is " + std::to_string(value) + "; expected " + expected);
  return value;
}

PixelFormat read_format(const Attributes& top, const std::string& path) {
  const std::string photometric = upper(top.text(DCM_PhotometricInterpretation));
  const int samples = pixel_module_number(top, path, DCM_SamplesPerPixel, "Samples per Pixel", "1", 1, 65535);
  if (samples != 1)
    throw InputError(path + ": Samples per Pixel (0028,0002) is " + std::to_string(samples) + "; colour is not supported, expected 1");
  if (photometric != "MONOCHROME1" && photometric != "MONOCHROME2")
    throw InputError(path + ": Photometric Interpretation (0028,0004) is \"" + photometric + "\"; expected MONOCHROME1 or MONOCHROME2");
  PixelFormat format;
  format.rows = pixel_module_number(top, path, DCM_Rows, "Rows", "1 to 65535", 1, 65535);
  format.columns = pixel_module_number(top, path, DCM_Columns, "Columns", "1 to 65535", 1, 65535);
  const std::int64_t area = std::int64_t(format.rows) * format.columns;
  if (area > pixel_limit)
    throw InputError(path + ": Rows (0028,0010) x Columns (0028,0011) is " + std::to_string(format.rows) + " x " +
                     std::to_string(format.columns) + "; at most " + std::to_string(pixel_limit) + " pixels a frame expected");
  format.bits_allocated = pixel_module_number(top, path, DCM_BitsAllocated, "Bits Allocated", "8 or 16", 0, 65535);
  if (format.bits_allocated != 8 && format.bits_allocated != 16)
    throw InputError(path + ": Bits Allocated (0028,0100) is " + std::to_string(format.bits_allocated) + "; expected 8 or 16");
  const std::string stored = "8 to " + std::to_string(format.bits_allocated);
  format.bits_stored = pixel_module_number(top, path, DCM_BitsStored, "Bits Stored", stored.c_str(), 8, format.bits_allocated);
  const std::string high = std::to_string(format.bits_stored - 1) + " to " + std::to_string(format.bits_allocated - 1);
  format.high_bit =
      pixel_module_number(top, path, DCM_HighBit, "High Bit", high.c_str(), format.bits_stored - 1, format.bits_allocated - 1);
  format.is_signed = pixel_module_number(top, path, DCM_PixelRepresentation, "Pixel Representation", "0 or 1", 0, 1) == 1;
  if (top.item()->tagExists(DCM_NumberOfFrames)) {
    const std::string text = top.text(DCM_NumberOfFrames);
    const double frames = parse_number(text);
    if (!(frames >= 1 && frames <= std::numeric_limits<int>::max() && frames == std::floor(frames)))
      throw InputError(path + ": Number of Frames (0028,0008) is \"" + text + "\"; expected a whole number from 1");
    format.frames = static_cast<int>(frames);
  }
  return format;
}

// --- dates and times ---

std::string digits(const std::string& text, std::size_t limit) {
  std::string result;
  for (const char c : text) {
    if (c == '.' && result.size() >= 6 && limit == 6) break;
    if (c >= '0' && c <= '9' && result.size() < limit) result += c;
  }
  return result;
}

struct Moment {
  std::string iso;
  double ms = 0;
};

/// A DICOM date and time (also in the old form with dots and colons); nothing where they aren't valid.
std::optional<Moment> moment(const std::string& date_text, const std::string& time_text) {
  const std::string date = digits(date_text, 8);
  if (date.size() != 8) return std::nullopt;
  const int year = std::stoi(date.substr(0, 4)), month = std::stoi(date.substr(4, 2)), day = std::stoi(date.substr(6, 2));
  const std::chrono::year_month_day calendar{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                             std::chrono::day(static_cast<unsigned>(day))};
  if (!calendar.ok()) return std::nullopt;
  Moment result;
  result.iso = date.substr(0, 4) + "-" + date.substr(4, 2) + "-" + date.substr(6, 2);
  result.ms = static_cast<double>(std::chrono::sys_days(calendar).time_since_epoch().count()) * 86'400'000.0;
  std::string time = digits(time_text, 6);
  if (time.size() < 2) return result;
  time.resize(6, '0');
  const int hours = std::stoi(time.substr(0, 2)), minutes = std::stoi(time.substr(2, 2)), seconds = std::stoi(time.substr(4, 2));
  if (hours > 23 || minutes > 59 || seconds > 60) return result;
  result.iso += "T" + time.substr(0, 2) + ":" + time.substr(2, 2) + ":" + time.substr(4, 2);
  result.ms += ((hours * 60.0 + minutes) * 60.0 + seconds) * 1000.0;
  const std::size_t dot = time_text.find('.', time_text.find(':') == std::string::npos ? 0 : time_text.rfind(':'));
  if (dot != std::string::npos) {
    const std::string fraction = digits(time_text.substr(dot + 1), 7);
    if (!fraction.empty()) {
      result.ms += 1000.0 * std::stod("0." + fraction);
      if (fraction.find_first_not_of('0') != std::string::npos) result.iso += "." + fraction.substr(0, 6);
    }
  }
  return result;
}

/// A DICOM date-time (DT): YYYYMMDDHHMMSS.FFFFFF, an offset from UTC is left out (all frames of a run share it).
std::optional<Moment> moment(const std::string& date_time) {
  const std::string local = date_time.substr(0, date_time.find_first_of("+-"));
  if (local.size() < 8) return std::nullopt;
  return moment(local.substr(0, 8), local.substr(8));
}

std::optional<Moment> acquisition_moment(const Attributes& top, std::string& taken_from) {
  if (auto found = moment(top.text(DCM_AcquisitionDateTime))) return found;
  const std::array<std::pair<DcmTagKey, DcmTagKey>, 4> pairs = {{{DCM_AcquisitionDate, DCM_AcquisitionTime},
                                                                 {DCM_ContentDate, DCM_ContentTime},
                                                                 {DCM_SeriesDate, DCM_SeriesTime},
                                                                 {DCM_StudyDate, DCM_StudyTime}}};
  for (std::size_t i = 0; i < pairs.size(); ++i)
    if (auto found = moment(top.text(pairs[i].first), top.text(pairs[i].second))) {
      if (i >= 2) taken_from = i == 2 ? "series" : "study";
      return found;
    }
  return std::nullopt;
}

// --- frame times ---

bool usable_interval(double ms) { return std::isfinite(ms) && ms > 0 && ms < 3'600'000; }

std::vector<double> regular_times(double interval_ms, int frames) {
  std::vector<double> times(static_cast<std::size_t>(frames));
  for (int i = 0; i < frames; ++i) times[static_cast<std::size_t>(i)] = interval_ms * i;
  return times;
}

std::vector<double> times_from_frame_content(const Source& source, int frames) {
  for (const DcmTagKey& tag : {DCM_FrameReferenceDateTime, DCM_FrameAcquisitionDateTime}) {
    std::vector<double> times;
    for (int frame = 0; frame < frames && frame < source.group_count(); ++frame) {
      const auto at = moment(source.group(DCM_FrameContentSequence, frame).text(tag));
      if (!at || (!times.empty() && at->ms <= times.back())) break;
      times.push_back(at->ms);
    }
    if (static_cast<int>(times.size()) != frames) continue;
    const double first = times.front();
    for (double& time : times) time -= first;
    return times;
  }
  return {};
}

std::vector<double> read_times(const Source& source, int frames, std::vector<std::string>& warnings) {
  if (source.enhanced()) {
    std::vector<double> times = times_from_frame_content(source, frames);
    if (!times.empty()) return times;
  }
  const Attributes& top = source.top();
  if (frames == 1) return {0};
  std::string problem;
  DcmTagKey pointer = DCM_UndefinedTagKey;
  Uint16 group = 0, element = 0;
  DcmElement* found = nullptr;
  if (top.item()->findAndGetElement(DCM_FrameIncrementPointer, found).good() && found && found->getLength() >= 4) {
    DcmTagKey value;
    if (found->getTagVal(value).good()) {
      group = value.getGroup();
      element = value.getElement();
      pointer = DcmTagKey(group, element);
    }
  }
  if (pointer == DCM_FrameTimeVector) {
    const std::vector<double> steps = top.numbers(DCM_FrameTimeVector);
    bool valid = static_cast<int>(steps.size()) == frames;
    for (std::size_t i = 1; i < steps.size(); ++i) valid = valid && usable_interval(steps[i]);
    if (valid) {
      std::vector<double> times(steps.size(), 0);
      for (std::size_t i = 1; i < steps.size(); ++i) times[i] = times[i - 1] + steps[i];
      return times;
    }
    problem = "Frame Time Vector (0018,1065) has " + std::to_string(steps.size()) + " values, " + std::to_string(frames) +
              " positive ones expected";
  } else if (pointer == DCM_FrameTime || (source.enhanced() && top.has(DCM_FrameTime))) {
    const std::string text = top.text(DCM_FrameTime);
    const double interval = parse_number(text);
    if (usable_interval(interval)) return regular_times(interval, frames);
    problem = "Frame Time (0018,1063) is \"" + text + "\", a positive number of ms expected";
  } else if (pointer == DCM_UndefinedTagKey) {
    problem = "Frame Increment Pointer (0028,0009) is absent";
    if (top.has(DCM_FrameTime)) problem += " (Frame Time (0018,1063) is " + top.text(DCM_FrameTime) + ")";
  } else {
    problem = "Frame Increment Pointer (0028,0009) points to " + tag_name(pointer) + ", Frame Time or Frame Time Vector expected";
  }
  const auto rate = top.finite(DCM_CineRate);
  if (rate && usable_interval(1000 / *rate)) {
    warnings.push_back(problem + "; frame times were made from Cine Rate (0018,0040), " + in_words(*rate) + " frames/s.");
    return regular_times(1000 / *rate, frames);
  }
  const std::string displayed = top.text(DCM_RecommendedDisplayFrameRate);
  warnings.push_back(problem + "; no times are known, nothing that depends on time is measured" +
                     (displayed.empty() ? "" : " (Recommended Display Frame Rate (0008,2144) is " + displayed + ", for display only)") +
                     ". " + frame_time_hint);
  return {};
}

// --- intensity ---

/// A DICOM look-up table (PS3.3 C.11.1.1): values for each pixel value from `first` on, the ends repeated.
struct LookUpTable {
  int first = 0;
  std::vector<float> entries;
  float at(int pixel_value) const {
    return entries[static_cast<std::size_t>(std::clamp(pixel_value - first, 0, static_cast<int>(entries.size()) - 1))];
  }
  /// True where the table is a straight line to within half a percent of its range.
  bool straight() const {
    const double from = entries.front(), to = entries.back();
    const double tolerance = 0.005 * std::abs(to - from) + 1;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const double t = entries.size() > 1 ? static_cast<double>(i) / static_cast<double>(entries.size() - 1) : 0;
      if (std::abs(entries[i] - (from + t * (to - from))) > tolerance) return false;
    }
    return true;
  }
};

std::optional<LookUpTable> read_table(const Attributes& item, bool is_signed, const std::string& name, std::vector<std::string>& warnings) {
  const std::vector<double> descriptor = item.numbers(DCM_LUTDescriptor);
  DcmElement* data = nullptr;
  const Uint16* words = nullptr;
  unsigned long count = 0;
  item.item()->findAndGetElement(DCM_LUTData, data);
  if (data) {
    Uint16* values = nullptr;
    if (data->getUint16Array(values).good() && values) {
      words = values;
      count = data->getLength() / 2;
    }
  }
  const auto refuse = [&](const std::string& why) {
    warnings.push_back(name + " can't be used (" + why + ") and was left out.");
    return std::nullopt;
  };
  if (descriptor.size() != 3 || !std::isfinite(descriptor[0]) || !std::isfinite(descriptor[1]) || !std::isfinite(descriptor[2]))
    return refuse("LUT Descriptor (0028,3002) has " + std::to_string(descriptor.size()) + " values, 3 expected");
  const std::size_t entries =
      descriptor[0] == 0 ? 65536 : static_cast<std::size_t>(static_cast<std::uint16_t>(static_cast<std::int32_t>(descriptor[0])));
  const int bits = static_cast<int>(descriptor[2]);
  LookUpTable table;
  table.first = static_cast<int>(descriptor[1]);
  if (is_signed && table.first > 32767) table.first -= 65536;
  if (!is_signed && table.first < 0) table.first += 65536;
  const bool packed = bits <= 8 && count * 2 >= entries && count < entries;
  if (!words || bits < 1 || bits > 16 || (count < entries && !packed))
    return refuse(std::to_string(count) + " words of LUT Data (0028,3006) for " + std::to_string(entries) + " entries of " +
                  std::to_string(bits) + " bits");
  table.entries.resize(entries);
  for (std::size_t i = 0; i < entries; ++i) {
    const unsigned value = packed ? (words[i / 2] >> (i % 2 * 8)) & 0xFFu : words[i];
    table.entries[i] = static_cast<float>(value);
  }
  return table;
}

IntensityEncoding read_intensity(const Source& source, const PixelFormat& format, bool monochrome1, std::vector<std::string>& warnings) {
  const DcmTagKey properties = DCM_FramePixelDataPropertiesSequence;
  IntensityEncoding intensity;
  intensity.bits_stored = format.bits_stored;
  const Attributes holder = source.holder(properties, DCM_PixelIntensityRelationship);
  intensity.relationship_as_stored = holder.code(DCM_PixelIntensityRelationship);
  const std::string& stored = intensity.relationship_as_stored;
  if (stored == "LIN")
    intensity.relationship = IntensityRelationship::linear;
  else if (stored == "LOG")
    intensity.relationship = IntensityRelationship::logarithmic;
  else if (stored.empty())
    warnings.push_back("Pixel Intensity Relationship (0028,1040) is absent; the pixels are taken as made for display: no densitometry.");
  else if (stored != "DISP")
    warnings.push_back("Pixel Intensity Relationship (0028,1040) is \"" + stored +
                       "\", a vendor's own value; the pixels are taken as made for display: no densitometry.");
  if (!source.constant(properties, DCM_PixelIntensityRelationship))
    warnings.push_back("Pixel Intensity Relationship (0028,1040) differs between frames; the first frame's was taken.");

  const auto sign = source.holder(properties, DCM_PixelIntensityRelationshipSign).number(DCM_PixelIntensityRelationshipSign);
  intensity.sign = monochrome1 ? -1 : 1;
  if (sign && (*sign == 1 || *sign == -1))
    intensity.sign = static_cast<int>(*sign);
  else if (sign)
    warnings.push_back("Pixel Intensity Relationship Sign (0028,1041) is " + in_words(*sign) + ", 1 or -1 expected; taken as " +
                       std::to_string(intensity.sign) + ".");

  const std::size_t count = std::size_t(1) << format.bits_stored;
  const int lowest = format.is_signed ? -(1 << (format.bits_stored - 1)) : 0;
  intensity.value.resize(count);
  const auto fill = [&](const auto& value_of) {
    for (std::size_t i = 0; i < count; ++i) intensity.value[i] = static_cast<float>(value_of(lowest + static_cast<int>(i)));
  };
  fill([](int value) { return value; });

  bool done = false;
  // The relationship's own LUTs first: they say what they lead to, and take stored values.
  if (intensity.relationship != IntensityRelationship::linear) {
    const Attributes group = source.group(DCM_PixelIntensityRelationshipLUTSequence);
    const Attributes above = source.top().item(DCM_PixelIntensityRelationshipLUTSequence);
    for (const std::string wanted : {"TO_LINEAR", "TO_LOG"}) {
      if (done || (wanted == "TO_LOG" && intensity.relationship == IntensityRelationship::logarithmic)) continue;
      std::vector<Attributes> items;
      if (group) items.push_back(group);
      for (int i = 0; above && i < source.top().item_count(DCM_PixelIntensityRelationshipLUTSequence); ++i)
        items.push_back(source.top().item(DCM_PixelIntensityRelationshipLUTSequence, i));
      for (const Attributes& item : items) {
        if (done || item.code(DCM_LUTFunction) != wanted) continue;
        const auto table = read_table(item, format.is_signed, "The Pixel Intensity Relationship LUT " + wanted, warnings);
        if (!table) continue;
        fill([&](int value) { return table->at(value); });
        intensity.relationship = wanted == "TO_LINEAR" ? IntensityRelationship::linear : IntensityRelationship::logarithmic;
        warnings.push_back("The file's Pixel Intensity Relationship LUT " + wanted + " was applied.");
        done = true;
      }
    }
  }
  if (!done && source.top().item_count(DCM_ModalityLUTSequence) > 0) {
    if (const auto table =
            read_table(source.top().item(DCM_ModalityLUTSequence), format.is_signed, "The Modality LUT (0028,3000)", warnings)) {
      fill([&](int value) { return table->at(value); });
      // In XA and XRF a Modality LUT beside LOG leads back to linear (PS3.3 A.14.3, C.8.7.1.1.2); a straight one can't.
      const bool to_linear = intensity.relationship == IntensityRelationship::logarithmic && !table->straight();
      if (to_linear) intensity.relationship = IntensityRelationship::linear;
      warnings.push_back(to_linear ? "The file's Modality LUT (0028,3000) was applied: from LOG to linear."
                                   : "The file's Modality LUT (0028,3000) was applied.");
      done = true;
    }
  }
  if (!done) {
    const Attributes rescale = source.holder(DCM_PixelValueTransformationSequence, DCM_RescaleSlope);
    const auto slope = rescale.number(DCM_RescaleSlope), intercept = rescale.number(DCM_RescaleIntercept);
    if (slope || intercept) {
      const double m = slope.value_or(1), b = intercept.value_or(0);
      if (!std::isfinite(m) || !std::isfinite(b) || m == 0 || std::abs(m) > 1e30 || std::abs(b) > 1e30)
        warnings.push_back("Rescale Slope (0028,1053) and Intercept (0028,1052) are " + in_words(m) + " and " + in_words(b) +
                           "; they were left out.");
      else
        fill([&](int value) { return m * value + b; });
    }
  }
  // The sign is said of stored values: a falling table turns it.
  if (intensity.value.back() < intensity.value.front()) intensity.sign = -intensity.sign;
  return intensity;
}

// --- geometry ---

std::optional<double> distance_mm(const Attributes& from, const DcmTagKey& tag, const char* name, std::vector<std::string>& warnings) {
  if (!from.has(tag)) return std::nullopt;
  const auto value = from.number(tag);
  if (value && std::isfinite(*value) && *value > 1 && *value < 100'000) return value;
  if (value && *value == 0) return std::nullopt;  // consoles write 0 for "not known"
  warnings.push_back(std::string(name) + " " + tag_name(tag) + " is \"" + from.text(tag) +
                     "\", a distance in mm expected; it was left out.");
  return std::nullopt;
}

std::optional<std::array<double, 2>> spacing_mm(const Attributes& from, const DcmTagKey& tag, const char* name,
                                                std::vector<std::string>& warnings) {
  if (!from.has(tag)) return std::nullopt;
  const auto values = from.numbers(tag);
  const auto usable = [](double mm) { return std::isfinite(mm) && mm > 1e-4 && mm < 100; };
  if (values.size() == 2 && usable(values[0]) && usable(values[1])) return std::array<double, 2>{values[0], values[1]};
  warnings.push_back(std::string(name) + " " + tag_name(tag) + " is \"" + from.text(tag) +
                     "\", two numbers of mm expected; it was left out.");
  return std::nullopt;
}

AcquisitionGeometry read_geometry(const Source& source, std::vector<std::string>& warnings) {
  AcquisitionGeometry geometry;
  const Attributes& top = source.top();
  const DcmTagKey distances = DCM_XRayGeometrySequence, calibration = DCM_ProjectionPixelCalibrationSequence,
                  angles = DCM_PositionerPositionSequence, properties = DCM_FramePixelDataPropertiesSequence;
  geometry.source_to_detector_mm = distance_mm(source.holder(distances, DCM_DistanceSourceToDetector), DCM_DistanceSourceToDetector,
                                               "Distance Source to Detector", warnings);
  geometry.source_to_patient_mm = distance_mm(source.holder(distances, DCM_DistanceSourceToPatient), DCM_DistanceSourceToPatient,
                                              "Distance Source to Patient", warnings);
  if (!geometry.source_to_patient_mm)
    geometry.source_to_patient_mm = distance_mm(source.holder(distances, DCM_DistanceSourceToIsocenter), DCM_DistanceSourceToIsocenter,
                                                "Distance Source to Isocenter", warnings);
  if (const auto magnification = top.number(DCM_EstimatedRadiographicMagnificationFactor)) {
    if (std::isfinite(*magnification) && *magnification >= 1 && *magnification < 20)
      geometry.magnification = magnification;
    else if (*magnification != 0)
      warnings.push_back("Estimated Radiographic Magnification Factor (0018,1114) is " + in_words(*magnification) +
                         ", 1 or more expected; it was left out.");
  }
  if (geometry.source_to_detector_mm && geometry.source_to_patient_mm && *geometry.source_to_patient_mm > *geometry.source_to_detector_mm) {
    warnings.push_back("Distance Source to Patient (" + in_words(*geometry.source_to_patient_mm) +
                       " mm) is larger than Distance Source to Detector (" + in_words(*geometry.source_to_detector_mm) +
                       " mm); both were left out.");
    geometry.source_to_patient_mm.reset();
    geometry.source_to_detector_mm.reset();
  }
  geometry.imager_pixel_spacing_mm =
      spacing_mm(source.holder(properties, DCM_ImagerPixelSpacing), DCM_ImagerPixelSpacing, "Imager Pixel Spacing", warnings);
  geometry.pixel_spacing_mm =
      spacing_mm(source.holder(DCM_PixelMeasuresSequence, DCM_PixelSpacing), DCM_PixelSpacing, "Pixel Spacing", warnings);
  geometry.pixel_spacing_calibration = top.code(DCM_PixelSpacingCalibrationType);
  const Attributes beam = source.holder(calibration, DCM_ObjectPixelSpacingInCenterOfBeam);
  geometry.object_pixel_spacing_mm =
      spacing_mm(beam, DCM_ObjectPixelSpacingInCenterOfBeam, "Object Pixel Spacing in Center of Beam", warnings);

  const auto angle = [&](const DcmTagKey& tag) {
    const auto value = source.holder(angles, tag).finite(tag);
    return value && std::abs(*value) <= 360 ? value : std::nullopt;
  };
  geometry.primary_angle_deg = angle(DCM_PositionerPrimaryAngle);
  geometry.secondary_angle_deg = angle(DCM_PositionerSecondaryAngle);

  const std::array<std::tuple<DcmTagKey, DcmTagKey, const char*>, 5> steady = {
      {{distances, DCM_DistanceSourceToDetector, "Distance Source to Detector"},
       {calibration, DCM_ObjectPixelSpacingInCenterOfBeam, "Object Pixel Spacing in Center of Beam"},
       {angles, DCM_PositionerPrimaryAngle, "Positioner Primary Angle"},
       {angles, DCM_PositionerSecondaryAngle, "Positioner Secondary Angle"},
       {properties, DCM_ImagerPixelSpacing, "Imager Pixel Spacing"}}};
  for (const auto& [macro, tag, name] : steady)
    if (!source.constant(macro, tag))
      warnings.push_back(std::string(name) + " " + tag_name(tag) + " changes within the run; the first frame's was taken.");
  for (const auto& [tag, name] : {std::pair(DCM_TableMotion, "Table Motion"), std::pair(DCM_PositionerMotion, "Positioner Motion")})
    if (top.code(tag) == "DYNAMIC")
      warnings.push_back(std::string(name) + " " + tag_name(tag) + " is DYNAMIC: the view changes within the run.");
  return geometry;
}

// --- mask module ---

std::vector<int> whole_numbers(const std::vector<double>& values) {
  std::vector<int> result;
  for (const double value : values) result.push_back(std::isfinite(value) ? static_cast<int>(std::clamp(value, -1e9, 1e9)) : 0);
  return result;
}

std::vector<MaskInstruction> read_masks(const Source& source, std::vector<std::string>& warnings) {
  std::vector<MaskInstruction> result;
  const Attributes& top = source.top();
  for (int i = 0; i < top.item_count(DCM_MaskSubtractionSequence); ++i) {
    const Attributes item = top.item(DCM_MaskSubtractionSequence, i);
    using Operation = MaskInstruction::Operation;
    MaskInstruction mask;
    const std::string operation = item.code(DCM_MaskOperation);
    const std::string where = "Item " + std::to_string(i + 1) + " of the Mask Subtraction Sequence (0028,6100)";
    if (operation == "AVG_SUB")
      mask.operation = Operation::average_subtraction;
    else if (operation == "TID")
      mask.operation = Operation::time_interval_difference;
    else if (operation == "REV_TID")
      mask.operation = Operation::reverse_time_interval_difference;
    else if (operation != "NONE")
      warnings.push_back(where + ": Mask Operation (0028,6101) is \"" + operation +
                         "\", NONE, AVG_SUB, TID or REV_TID expected; taken as NONE.");
    const std::vector<int> ranges = whole_numbers(item.numbers(DCM_ApplicableFrameRange));
    if (ranges.size() % 2)
      warnings.push_back(where + ": Applicable Frame Range (0028,6102) has " + std::to_string(ranges.size()) +
                         " values, pairs expected; the last was left out.");
    for (std::size_t k = 0; k + 1 < ranges.size(); k += 2) mask.applicable_frames.push_back({ranges[k], ranges[k + 1]});
    mask.mask_frames = whole_numbers(item.numbers(DCM_MaskFrameNumbers));
    Attributes shift_holder = item;
    const auto id = item.number(DCM_SubtractionItemID);
    if (id && !item.has(DCM_MaskSubPixelShift)) {
      // Enhanced objects keep the shift in a functional group that names the subtraction item.
      const Attributes group = source.group(DCM_FramePixelShiftSequence);
      if (group && group.number(DCM_SubtractionItemID) == id) {
        shift_holder = group;
        if (!source.constant(DCM_FramePixelShiftSequence, DCM_MaskSubPixelShift))
          warnings.push_back(where +
                             ": Mask Sub-pixel Shift (0028,6114) changes from frame to frame; the first frame's is kept, the registration "
                             "finds the rest.");
      }
    }
    const std::vector<double> shift = shift_holder.numbers(DCM_MaskSubPixelShift);
    if (shift.size() == 2 && std::isfinite(shift[0]) && std::isfinite(shift[1]))
      mask.sub_pixel_shift = {shift[0], shift[1]};
    else if (!shift.empty())
      warnings.push_back(where + ": Mask Sub-pixel Shift (0028,6114) is \"" + shift_holder.text(DCM_MaskSubPixelShift) +
                         "\", two numbers expected; it was left out.");
    if (const auto offset = item.finite(DCM_TIDOffset)) mask.tid_offset = static_cast<int>(*offset);
    if (const auto averaged = item.finite(DCM_ContrastFrameAveraging)) {
      if (*averaged >= 1)
        mask.contrast_frame_averaging = static_cast<int>(*averaged);
      else
        warnings.push_back(where + ": Contrast Frame Averaging (0028,6112) is " + in_words(*averaged) +
                           ", 1 or more expected; taken as 1.");
    }
    result.push_back(mask);
  }
  return result;
}

// --- openings ---

Opening read_opening(const Attributes& from, Uint16 base, const char* name, std::vector<std::string>& warnings) {
  Opening opening;
  if (!from) return opening;
  const auto tag = [&](int offset) { return DcmTagKey(0x0018, static_cast<Uint16>(base + offset)); };
  for (const std::string& shape : split(upper(from.text(tag(0x00))))) {
    bool read = false;
    if (shape == "RECTANGULAR") {
      const auto left = from.finite(tag(0x02)), right = from.finite(tag(0x04)), upper_edge = from.finite(tag(0x06)),
                 lower = from.finite(tag(0x08));
      read = left && right && upper_edge && lower;
      if (read) opening.rectangles.push_back({*left, *right, *upper_edge, *lower});
    } else if (shape == "CIRCULAR") {
      const auto centre = from.numbers(tag(0x10));
      const auto radius = from.finite(tag(0x12));
      read = centre.size() == 2 && std::isfinite(centre[0]) && std::isfinite(centre[1]) && radius && *radius > 0;
      if (read) opening.circles.push_back({centre[0], centre[1], *radius});
    } else if (shape == "POLYGONAL") {
      const auto vertices = from.numbers(tag(0x20));
      read = vertices.size() >= 6 && vertices.size() % 2 == 0 &&
             std::all_of(vertices.begin(), vertices.end(), [](double v) { return std::isfinite(v); });
      std::vector<std::array<double, 2>> polygon;
      for (std::size_t i = 0; read && i < vertices.size(); i += 2) polygon.push_back({vertices[i], vertices[i + 1]});
      if (read) opening.polygons.push_back(polygon);
    } else if (shape == "BITMAP" || shape.empty()) {
      continue;
    }
    if (!read) warnings.push_back(std::string(name) + " " + tag_name(tag(0)) + " \"" + shape + "\" lacks usable edges; it was left out.");
  }
  return opening;
}

RunDescription read_description(const Source& source, const DicomLayout& layout, std::vector<std::string>& warnings,
                                std::optional<double>& acquired_ms) {
  const Attributes& top = source.top();
  RunDescription about;
  about.path = layout.bytes.path();
  about.sop_class_uid = top.text(DCM_SOPClassUID);
  about.sop_instance_uid = top.text(DCM_SOPInstanceUID);
  about.series_instance_uid = top.text(DCM_SeriesInstanceUID);
  about.study_instance_uid = top.text(DCM_StudyInstanceUID);
  about.transfer_syntax = layout.transfer_syntax;
  about.modality = top.code(DCM_Modality);
  about.patient_name = top.text(DCM_PatientName);
  about.patient_id = top.text(DCM_PatientID);
  about.patient_birth_date = top.text(DCM_PatientBirthDate);
  about.patient_sex = top.code(DCM_PatientSex);
  about.body_part = top.text(DCM_BodyPartExamined);
  const Attributes anatomy = source.group(DCM_FrameAnatomySequence);
  for (const Attributes& from : {anatomy, top})
    if (about.body_part.empty() && from) about.body_part = from.item(DCM_AnatomicRegionSequence).text(DCM_CodeMeaning);
  about.laterality = top.code(DCM_ImageLaterality);
  if (about.laterality.empty()) about.laterality = top.code(DCM_Laterality);
  if (about.laterality.empty() && anatomy) about.laterality = anatomy.code(DCM_FrameLaterality);
  about.study_description = top.text(DCM_StudyDescription);
  about.series_description = top.text(DCM_SeriesDescription);
  about.manufacturer = top.text(DCM_Manufacturer);
  about.model = top.text(DCM_ManufacturerModelName);
  about.enhanced = source.enhanced();
  std::string taken_from;
  if (const auto at = acquisition_moment(top, taken_from)) {
    about.acquired = at->iso;
    acquired_ms = at->ms;
    if (!taken_from.empty()) warnings.push_back("The acquisition time is absent; the " + taken_from + "'s was taken.");
  }
  return about;
}

}  // namespace

DicomIdentity read_dicom_identity(const DicomLayout& layout) {
  const auto dataset = parse(layout);
  const Attributes top(dataset.get());
  DicomIdentity identity;
  identity.sop_class_uid = top.text(DCM_SOPClassUID);
  identity.sop_instance_uid = top.text(DCM_SOPInstanceUID);
  identity.series_instance_uid = top.text(DCM_SeriesInstanceUID);
  identity.modality = top.code(DCM_Modality);
  const bool x_ray = identity.modality == "XA" || identity.modality == "RF";
  identity.angiographic = is_classic(identity.sop_class_uid) || is_enhanced(identity.sop_class_uid) ||
                          (x_ray && (is_secondary_capture(identity.sop_class_uid) || identity.sop_class_uid.empty()));
  return identity;
}

DicomHeader read_dicom_header(const DicomLayout& layout) {
  const std::string& path = layout.bytes.path();
  const auto dataset = parse(layout);
  const Attributes top(dataset.get());
  const std::string sop_class = top.text(DCM_SOPClassUID), modality = top.code(DCM_Modality);
  DicomHeader header;
  header.warnings = layout.warnings;
  const bool x_ray = modality == "XA" || modality == "RF";
  if (!is_classic(sop_class) && !is_enhanced(sop_class)) {
    const char* known = sop_class.empty() ? nullptr : dcmFindNameOfUID(sop_class.c_str());
    if (!x_ray || !(is_secondary_capture(sop_class) || sop_class.empty()))
      throw InputError(path + ": not an angiographic run: SOP Class UID (0008,0016) is " +
                       (known               ? known
                        : sop_class.empty() ? "absent"
                                            : sop_class) +
                       ", Modality (0008,0060) is \"" + modality + "\"; expected XA, XRF, Enhanced XA or Enhanced XRF");
    header.warnings.push_back(sop_class.empty() ? "SOP Class UID (0008,0016) is absent; the file was read as " + modality + "."
                                                : "The file is a secondary capture with Modality " + modality +
                                                      ": geometry and intensity may be missing.");
  }
  const Source source(*dataset, is_enhanced(sop_class));
  header.description = read_description(source, layout, header.warnings, header.acquired_ms);
  header.format = read_format(top, path);
  // Before anything is sized by the number of frames: it must agree with the pixels.
  header.frames = open_dicom_frames(layout, header.format, header.warnings);
  const bool monochrome1 = upper(top.text(DCM_PhotometricInterpretation)) == "MONOCHROME1";
  header.intensity = read_intensity(source, header.format, monochrome1, header.warnings);
  header.geometry = read_geometry(source, header.warnings);
  header.mask_instructions = read_masks(source, header.warnings);
  const Attributes shutter = source.enhanced() ? source.group(DCM_FrameDisplayShutterSequence) : top;
  const Attributes collimator = source.enhanced() ? source.group(DCM_CollimatorShapeSequence) : top;
  header.shutter = read_opening(shutter ? shutter : top, 0x1600, "Shutter Shape", header.warnings);
  header.collimator = read_opening(collimator ? collimator : top, 0x1700, "Collimator Shape", header.warnings);
  header.frame_times_ms = read_times(source, header.format.frames, header.warnings);
  const Attributes voi = source.holder(DCM_FrameVOILUTSequence, DCM_WindowCenter);
  const auto centre = voi.finite(DCM_WindowCenter), width = voi.finite(DCM_WindowWidth);
  if (centre && width && *width >= 1) header.window = {*centre, *width};
  const auto whole = [&](const DcmTagKey& tag) -> std::optional<int> {
    const auto value = top.finite(tag);
    return value && std::abs(*value) < 2e9 ? std::optional(static_cast<int>(*value)) : std::nullopt;
  };
  for (const double interval : {top.number(DCM_FrameTime).value_or(0), 1000 / top.number(DCM_CineRate).value_or(0)})
    if (!header.frame_interval_ms && usable_interval(interval)) header.frame_interval_ms = interval;
  if (const auto content = moment(top.text(DCM_ContentDate), top.text(DCM_ContentTime))) header.content_ms = content->ms;
  header.instance_number = whole(DCM_InstanceNumber);
  header.acquisition_number = whole(DCM_AcquisitionNumber);
  return header;
}

}  // namespace cinelumen
