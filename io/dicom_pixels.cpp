#include "io/dicom_pixels.h"

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dccodec.h>
#include <dcmtk/dcmdata/dcpixseq.h>
#include <dcmtk/dcmdata/dcpxitem.h>
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmjpeg/djdecode.h>
#include <dcmtk/dcmjpls/djdecode.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>

#include "io/jpeg2000.h"

namespace cinelumen {
namespace {

enum class Codec { native, rle, jpeg, jpeg_ls, jpeg_2000 };

struct Syntax {
  const char* uid;
  Codec codec;
  bool lossy;  ///< decoded values may lie outside what was stored: clamp; else bits above those stored are garbage: mask
};

constexpr Syntax syntaxes[] = {
    {UID_LittleEndianImplicitTransferSyntax, Codec::native, false},
    {UID_LittleEndianExplicitTransferSyntax, Codec::native, false},
    {UID_BigEndianExplicitTransferSyntax, Codec::native, false},
    {UID_DeflatedExplicitVRLittleEndianTransferSyntax, Codec::native, false},
    {UID_RLELosslessTransferSyntax, Codec::rle, false},
    {UID_JPEGProcess1TransferSyntax, Codec::jpeg, true},
    {UID_JPEGProcess2_4TransferSyntax, Codec::jpeg, true},
    {"1.2.840.10008.1.2.4.53", Codec::jpeg, true},
    {"1.2.840.10008.1.2.4.55", Codec::jpeg, true},
    {UID_JPEGProcess14TransferSyntax, Codec::jpeg, false},
    {UID_JPEGProcess14SV1TransferSyntax, Codec::jpeg, false},
    {UID_JPEGLSLosslessTransferSyntax, Codec::jpeg_ls, false},
    {UID_JPEGLSLossyTransferSyntax, Codec::jpeg_ls, true},
    {UID_JPEG2000LosslessOnlyTransferSyntax, Codec::jpeg_2000, false},
    {UID_JPEG2000TransferSyntax, Codec::jpeg_2000, true},
};

std::optional<Syntax> find_syntax(const std::string& uid) {
  for (const Syntax& syntax : syntaxes)
    if (uid == syntax.uid) return syntax;
  return std::nullopt;
}

/// Brings samples as stored or decoded to unsigned values of bits_stored bits.
class SampleConversion {
 public:
  SampleConversion(const PixelFormat& format, bool clamp)
      : shift_(format.high_bit + 1 - format.bits_stored),
        mask_((1u << format.bits_stored) - 1),
        sign_(format.is_signed ? 1u << (format.bits_stored - 1) : 0),
        clamp_(clamp && shift_ == 0) {}

  template <class T>
  void row(const T* from, std::uint16_t* to, int columns) const {
    if (clamp_ && sign_ == 0) {
      for (int x = 0; x < columns; ++x) to[x] = static_cast<std::uint16_t>(std::min<std::uint32_t>(from[x], mask_));
    } else if (clamp_) {
      const int low = -static_cast<int>(sign_), high = static_cast<int>(sign_) - 1;
      for (int x = 0; x < columns; ++x)
        to[x] = static_cast<std::uint16_t>(std::clamp<int>(static_cast<std::make_signed_t<T>>(from[x]), low, high) - low);
    } else {
      for (int x = 0; x < columns; ++x) to[x] = static_cast<std::uint16_t>((from[x] >> shift_ & mask_) ^ sign_);
    }
  }

 private:
  int shift_;
  std::uint32_t mask_, sign_;
  bool clamp_;
};

struct JpegHeader {
  int rows = 0, columns = 0, precision = 0, components = 0;
};

/// The frame header of a JPEG or JPEG-LS codestream, or nothing where there is none.
std::optional<JpegHeader> read_jpeg_header(std::span<const std::uint8_t> bytes) {
  if (bytes.size() < 4 || bytes[0] != 0xFF || bytes[1] != 0xD8) return std::nullopt;
  std::size_t at = 2;
  while (at + 4 <= bytes.size()) {
    if (bytes[at] != 0xFF) return std::nullopt;
    const std::uint8_t marker = bytes[at + 1];
    if (marker == 0xFF) {
      ++at;  // fill bytes before a marker
      continue;
    }
    const std::size_t length = static_cast<std::size_t>(bytes[at + 2]) << 8 | bytes[at + 3];
    const bool frame = (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC) || marker == 0xF7;
    if (frame) {
      if (length < 8 || at + 10 > bytes.size()) return std::nullopt;
      const std::uint8_t* p = bytes.data() + at + 4;
      return JpegHeader{p[1] << 8 | p[2], p[3] << 8 | p[4], p[0], p[5]};
    }
    if (marker == 0xDA || marker == 0xD9 || length < 2) return std::nullopt;
    at += 2 + length;
  }
  return std::nullopt;
}

/// One RLE segment (PS3.5 G.3.1): exactly `count` bytes, `stride` apart from `to` on. False where the segment is damaged or too short.
bool decode_rle_segment(std::span<const std::uint8_t> segment, std::uint8_t* to, std::size_t count, std::size_t stride) {
  std::size_t at = 0, done = 0;
  while (done < count) {
    if (at >= segment.size()) return false;
    const int code = static_cast<std::int8_t>(segment[at++]);
    if (code == -128) continue;
    const std::size_t length = static_cast<std::size_t>(code >= 0 ? code + 1 : 1 - code);
    if (length > count - done || at + (code >= 0 ? length : 1) > segment.size()) return false;
    for (std::size_t i = 0; i < length; ++i) to[(done + i) * stride] = segment[code >= 0 ? at + i : at];
    at += code >= 0 ? length : 1;
    done += length;
  }
  return true;
}

class DicomFrames final : public FrameSource {
 public:
  DicomFrames(const DicomLayout& layout, const PixelFormat& format, Syntax syntax, std::vector<std::vector<ByteRange>> codestreams)
      : bytes_(layout.bytes),
        format_(format),
        syntax_(syntax),
        pixels_(layout.pixels),
        big_endian_(layout.big_endian),
        words_(layout.pixel_words),
        codestreams_(std::move(codestreams)) {}

  int frame_count() const override { return format_.frames; }
  int rows() const override { return format_.rows; }
  int columns() const override { return format_.columns; }

  void read_frame(int frame, ImageView<std::uint16_t> stored) const override {
    if (frame < 0 || frame >= format_.frames) throw std::invalid_argument("read_frame: no such frame");
    if (stored.height != format_.rows || stored.width != format_.columns)
      throw std::invalid_argument("read_frame: the image differs in size from the run's");
    switch (syntax_.codec) {
      case Codec::native:
        return read_native(frame, stored);
      case Codec::rle:
        return read_rle(frame, stored);
      case Codec::jpeg:
      case Codec::jpeg_ls:
        return read_jpeg(frame, stored);
      case Codec::jpeg_2000:
        return read_jpeg2000(frame, stored);
    }
  }

 private:
  std::size_t pixel_count() const { return static_cast<std::size_t>(format_.rows) * static_cast<std::size_t>(format_.columns); }

  [[noreturn]] void fail(int frame, const std::string& what) const {
    throw InputError(bytes_.path() + ": frame " + std::to_string(frame + 1) + " of Pixel Data (7fe0,0010): " + what);
  }

  template <class T>
  void convert(const T* samples, ImageView<std::uint16_t> stored, bool clamp) const {
    const SampleConversion conversion(format_, clamp);
    for (int y = 0; y < format_.rows; ++y)
      conversion.row(samples + static_cast<std::size_t>(y) * static_cast<std::size_t>(format_.columns), stored.row(y), format_.columns);
  }

  std::vector<std::uint8_t> codestream(int frame) const {
    std::vector<std::uint8_t> result;
    std::uint64_t size = 0;
    for (const ByteRange& piece : codestreams_[static_cast<std::size_t>(frame)]) size += piece.size;
    if (size >= (std::uint64_t(1) << 31)) fail(frame, "a codestream of " + std::to_string(size) + " bytes, less than 2 GiB expected");
    result.resize(size);
    std::size_t at = 0;
    for (const ByteRange& piece : codestreams_[static_cast<std::size_t>(frame)]) {
      bytes_.read(piece.offset, std::span(result).subspan(at, piece.size));
      at += piece.size;
    }
    return result;
  }

  void read_native(int frame, ImageView<std::uint16_t> stored) const {
    const std::uint64_t bytes_per_sample = static_cast<std::uint64_t>(format_.bits_allocated / 8);
    const std::uint64_t size = pixel_count() * bytes_per_sample, start = static_cast<std::uint64_t>(frame) * size;
    if (bytes_per_sample == 2) {
      std::vector<std::uint16_t> samples(pixel_count());
      bytes_.read(pixels_.offset + start, std::span(reinterpret_cast<std::uint8_t*>(samples.data()), size));
      if (big_endian_)
        for (std::uint16_t& sample : samples) sample = static_cast<std::uint16_t>(sample << 8 | sample >> 8);
      return convert(samples.data(), stored, false);
    }
    // 8-bit samples in big-endian words stand swapped in pairs, and a frame may begin in the middle of a word.
    const bool swapped = big_endian_ && words_;
    const std::uint64_t first = swapped ? start & ~std::uint64_t(1) : start;
    std::uint64_t last = swapped ? (start + size + 1) & ~std::uint64_t(1) : start + size;
    last = std::min(last, pixels_.size);
    std::vector<std::uint8_t> samples = bytes_.read(pixels_.offset + first, last - first);
    if (swapped)
      for (std::size_t i = 0; i + 1 < samples.size(); i += 2) std::swap(samples[i], samples[i + 1]);
    convert(samples.data() + (start - first), stored, false);
  }

  void read_rle(int frame, ImageView<std::uint16_t> stored) const {
    const std::vector<std::uint8_t> bytes = codestream(frame);
    if (bytes.size() < 64) fail(frame, "the RLE header is cut: " + std::to_string(bytes.size()) + " bytes, 64 expected");
    const auto number = [&](std::size_t i) {
      std::uint32_t value;
      std::memcpy(&value, bytes.data() + 4 * i, 4);
      return static_cast<std::size_t>(value);
    };
    const std::size_t segments = static_cast<std::size_t>(format_.bits_allocated / 8);
    if (number(0) != segments) fail(frame, std::to_string(number(0)) + " RLE segments, " + std::to_string(segments) + " expected");
    std::vector<std::uint16_t> samples(pixel_count(), 0);
    auto* low_bytes = reinterpret_cast<std::uint8_t*>(samples.data());
    for (std::size_t segment = 0; segment < segments; ++segment) {
      const std::size_t begin = number(segment + 1), end = segment + 1 < segments ? number(segment + 2) : bytes.size();
      if (begin < 64 || begin > end || end > bytes.size())
        fail(frame, "RLE segment " + std::to_string(segment + 1) + " lies outside its fragment");
      // The most significant byte comes first.
      if (!decode_rle_segment(std::span(bytes).subspan(begin, end - begin), low_bytes + (segments - 1 - segment), pixel_count(), 2))
        fail(frame, "RLE segment " + std::to_string(segment + 1) + " doesn't hold " + std::to_string(pixel_count()) + " bytes");
    }
    convert(samples.data(), stored, false);
  }

  void read_jpeg(int frame, ImageView<std::uint16_t> stored) const {
    std::vector<std::uint8_t> bytes = codestream(frame);
    const std::optional<JpegHeader> header = read_jpeg_header(bytes);
    if (!header) fail(frame, "no JPEG frame header");
    const int needed = format_.high_bit + 1;
    if (header->rows != format_.rows || header->columns != format_.columns || header->components != 1 || header->precision < needed ||
        header->precision > 16)
      fail(frame, "the JPEG codestream is " + std::to_string(header->columns) + " x " + std::to_string(header->rows) + ", " +
                      std::to_string(header->precision) + " bits, " + std::to_string(header->components) +
                      " component(s), the header says " + std::to_string(format_.columns) + " x " + std::to_string(format_.rows) + ", " +
                      std::to_string(needed) + " bits, 1 component");
    if (bytes.size() % 2) bytes.push_back(0);

    // DCMTK's codecs want a data set and a pixel sequence; a fresh one per frame keeps threads apart.
    DcmDataset image;
    image.putAndInsertUint16(DCM_SamplesPerPixel, 1);
    image.putAndInsertString(DCM_PhotometricInterpretation, "MONOCHROME2");
    image.putAndInsertString(DCM_NumberOfFrames, "1");
    image.putAndInsertUint16(DCM_Rows, static_cast<Uint16>(format_.rows));
    image.putAndInsertUint16(DCM_Columns, static_cast<Uint16>(format_.columns));
    image.putAndInsertUint16(DCM_BitsAllocated, static_cast<Uint16>(header->precision > 8 ? 16 : 8));
    image.putAndInsertUint16(DCM_BitsStored, static_cast<Uint16>(header->precision));
    image.putAndInsertUint16(DCM_HighBit, static_cast<Uint16>(header->precision - 1));
    image.putAndInsertUint16(DCM_PixelRepresentation, 0);
    DcmPixelSequence sequence(DCM_PixelSequenceTag);
    sequence.insert(new DcmPixelItem(DCM_PixelItemTag));
    auto* fragment = new DcmPixelItem(DCM_PixelItemTag);
    sequence.insert(fragment);
    if (fragment->putUint8Array(bytes.data(), static_cast<unsigned long>(bytes.size())).bad()) fail(frame, "out of memory");
    const std::size_t sample_bytes = header->precision > 8 ? 2 : 1;
    std::vector<std::uint16_t> samples((pixel_count() * sample_bytes + 1) / 2);
    Uint32 first_fragment = 1;
    OFString colours;
    const OFCondition decoded = DcmCodecList::decodeFrame(DcmXfer(syntax_.uid), nullptr, &sequence, &image, 0, first_fragment,
                                                          samples.data(), static_cast<Uint32>(samples.size() * 2), colours);
    if (decoded.bad()) fail(frame, std::string("the JPEG codestream is damaged: ") + decoded.text());
    // Decoded signed samples are two's complement at the codestream's own precision: nothing to compare limits with.
    const bool clamp = syntax_.lossy && !format_.is_signed;
    if (sample_bytes == 2)
      convert(samples.data(), stored, clamp);
    else
      convert(reinterpret_cast<const std::uint8_t*>(samples.data()), stored, clamp);
  }

  void read_jpeg2000(int frame, ImageView<std::uint16_t> stored) const {
    const DecodedSamples decoded =
        decode_jpeg2000(codestream(frame), {format_.rows, format_.columns, format_.high_bit + 1, format_.is_signed});
    if (!decoded.error.empty()) fail(frame, decoded.error);
    std::vector<std::uint16_t> samples(decoded.samples.size());
    std::transform(decoded.samples.begin(), decoded.samples.end(), samples.begin(),
                   [](std::int32_t sample) { return static_cast<std::uint16_t>(sample); });
    convert(samples.data(), stored, syntax_.lossy);
  }

  ByteSource bytes_;
  PixelFormat format_;
  Syntax syntax_;
  ByteRange pixels_;
  bool big_endian_, words_;
  std::vector<std::vector<ByteRange>> codestreams_;
};

struct CodestreamSize {
  std::int64_t rows = 0, columns = 0;
};

/// The size that a codestream's first bytes state, where they do.
std::optional<CodestreamSize> stated_size(Codec codec, std::span<const std::uint8_t> head) {
  if (codec != Codec::jpeg_2000) {
    const auto header = read_jpeg_header(head);
    return header ? std::optional(CodestreamSize{header->rows, header->columns}) : std::nullopt;
  }
  constexpr std::uint8_t start[] = {0xFF, 0x4F, 0xFF, 0x51};
  const auto found = std::search(head.begin(), head.end(), std::begin(start), std::end(start));
  if (head.end() - found < 24) return std::nullopt;
  const auto number = [&](std::ptrdiff_t at) {
    std::int64_t value = 0;
    for (int i = 0; i < 4; ++i) value = value << 8 | found[at + i];
    return value;
  };
  return CodestreamSize{number(12) - number(20), number(8) - number(16)};
}

/// A header may claim any size: nothing is allocated for it before the first frame's codestream has been seen to agree.
void check_first_codestream(const DicomLayout& layout, const PixelFormat& format, Codec codec, const std::vector<ByteRange>& pieces) {
  const std::string where = layout.bytes.path() + ": frame 1 of Pixel Data (7fe0,0010): ";
  std::uint64_t size = 0;
  for (const ByteRange& piece : pieces) size += piece.size;
  const std::uint64_t frame_bytes = static_cast<std::uint64_t>(format.rows) * static_cast<std::uint64_t>(format.columns) *
                                    static_cast<std::uint64_t>(format.bits_allocated / 8);
  if (codec == Codec::rle) {
    // Two bytes of RLE give 128 at most.
    if (size * 64 < frame_bytes) throw InputError(where + std::to_string(size) + " bytes of RLE can't hold " + std::to_string(frame_bytes));
    return;
  }
  const std::uint64_t head_size = std::min<std::uint64_t>(pieces.front().size, std::uint64_t(1) << 20);
  const std::vector<std::uint8_t> head = layout.bytes.read(pieces.front().offset, head_size);
  const auto stated = stated_size(codec, head);
  if (stated && (stated->rows != format.rows || stated->columns != format.columns))
    throw InputError(where + "the codestream is " + std::to_string(stated->columns) + " x " + std::to_string(stated->rows) +
                     " pixels, the header says " + std::to_string(format.columns) + " x " + std::to_string(format.rows));
  if (!stated && pieces.size() == 1)
    throw InputError(where + "no " + (codec == Codec::jpeg_2000 ? "JPEG 2000" : "JPEG") + " frame header in its first " +
                     std::to_string(head_size) + " bytes");
}

class CachedFrames final : public FrameSource {
 public:
  CachedFrames(std::shared_ptr<const FrameSource> frames, std::size_t bytes)
      : frames_(std::move(frames)), rows_(frames_->rows()), columns_(frames_->columns()) {
    const std::size_t frame_bytes = 2 * static_cast<std::size_t>(rows_) * static_cast<std::size_t>(columns_);
    capacity_ = bytes / std::max<std::size_t>(frame_bytes, 1);
  }

  int frame_count() const override { return frames_->frame_count(); }
  int rows() const override { return rows_; }
  int columns() const override { return columns_; }

  void read_frame(int frame, ImageView<std::uint16_t> stored) const override {
    std::shared_ptr<const std::vector<std::uint16_t>> kept;
    {
      const std::lock_guard lock(mutex_);
      for (auto entry = entries_.begin(); entry != entries_.end(); ++entry)
        if (entry->frame == frame) {
          entries_.splice(entries_.begin(), entries_, entry);
          kept = entry->pixels;
          break;
        }
    }
    if (kept && stored.height == rows_ && stored.width == columns_) {
      for (int y = 0; y < rows_; ++y)
        std::copy_n(kept->data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(columns_), columns_, stored.row(y));
      return;
    }
    frames_->read_frame(frame, stored);
    if (capacity_ == 0) return;
    auto pixels = std::make_shared<std::vector<std::uint16_t>>(static_cast<std::size_t>(rows_) * static_cast<std::size_t>(columns_));
    for (int y = 0; y < rows_; ++y)
      std::copy_n(stored.row(y), columns_, pixels->data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(columns_));
    const std::lock_guard lock(mutex_);
    for (const Entry& entry : entries_)
      if (entry.frame == frame) return;  // another thread decoded it meanwhile
    entries_.push_front({frame, std::move(pixels)});
    if (entries_.size() > capacity_) entries_.pop_back();
  }

 private:
  struct Entry {
    int frame;
    std::shared_ptr<const std::vector<std::uint16_t>> pixels;
  };
  std::shared_ptr<const FrameSource> frames_;
  int rows_, columns_;
  std::size_t capacity_;
  mutable std::mutex mutex_;
  mutable std::list<Entry> entries_;
};

}  // namespace

void prepare_dcmtk() {
  static const bool once = [] {
    OFLog::configure(OFLogger::OFF_LOG_LEVEL);
    DJDecoderRegistration::registerCodecs();
    DJLSDecoderRegistration::registerCodecs();
    return true;
  }();
  (void)once;
}

std::shared_ptr<const FrameSource> open_dicom_frames(const DicomLayout& layout, const PixelFormat& format,
                                                     std::vector<std::string>& warnings) {
  prepare_dcmtk();
  const std::string& path = layout.bytes.path();
  const std::optional<Syntax> syntax = find_syntax(layout.transfer_syntax);
  if (!syntax)
    throw InputError(path + ": transfer syntax (0002,0010) " + clean_text(layout.transfer_syntax, 64) +
                     " is not supported; expected uncompressed, deflated, RLE, JPEG, JPEG-LS or JPEG 2000");
  if (!layout.has_pixel_data) throw InputError(path + ": no pixels: Pixel Data (7fe0,0010) is absent");
  const bool native = syntax->codec == Codec::native;
  if (native == layout.encapsulated)
    throw InputError(path + ": transfer syntax (0002,0010) " + layout.transfer_syntax + " contradicts Pixel Data (7fe0,0010), which is " +
                     (layout.encapsulated ? "encapsulated" : "not encapsulated"));
  if (!native) {
    if (layout.fragments.empty()) throw InputError(path + ": no pixels: Pixel Data (7fe0,0010) has no fragments");
    auto codestreams = frame_fragments(layout, format.frames, warnings);
    check_first_codestream(layout, format, syntax->codec, codestreams.front());
    return std::make_shared<DicomFrames>(layout, format, *syntax, std::move(codestreams));
  }
  const std::uint64_t frame_bytes = static_cast<std::uint64_t>(format.rows) * static_cast<std::uint64_t>(format.columns) *
                                    static_cast<std::uint64_t>(format.bits_allocated / 8);
  const std::uint64_t expected = frame_bytes * static_cast<std::uint64_t>(format.frames), present = layout.pixels.size;
  if (present == 0) throw InputError(path + ": no pixels: Pixel Data (7fe0,0010) is empty");
  const std::string figures = "Pixel Data (7fe0,0010) has " + std::to_string(present) + " bytes, " + std::to_string(format.frames) +
                              " frame(s) of " + std::to_string(format.columns) + " x " + std::to_string(format.rows) + " at " +
                              std::to_string(format.bits_allocated) + " bits make " + std::to_string(expected);
  if (present < expected) throw InputError(path + ": " + figures);
  if (present > expected + expected % 2) {
    if (present % frame_bytes > 1) throw InputError(path + ": " + figures);
    warnings.push_back(figures + "; the header's number of frames was taken.");
  }
  return std::make_shared<DicomFrames>(layout, format, *syntax, std::vector<std::vector<ByteRange>>());
}

std::shared_ptr<const FrameSource> cache_frames(std::shared_ptr<const FrameSource> frames, std::size_t bytes) {
  return std::make_shared<CachedFrames>(std::move(frames), bytes);
}

}  // namespace cinelumen
