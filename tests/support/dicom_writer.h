#pragma once
/// Small DICOM runs for tests of the reader: any codec, any oddity.

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcpixseq.h>
#include <dcmtk/dcmdata/dcpxitem.h>
#include <dcmtk/dcmdata/dcrledrg.h>
#include <dcmtk/dcmdata/dcrleerg.h>
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmjpeg/djencode.h>
#include <dcmtk/dcmjpeg/djrplol.h>
#include <dcmtk/dcmjpls/djencode.h>
#include <dcmtk/dcmjpls/djrparam.h>
#include <openjpeg.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace cinelumen::test {

/// A folder of this test's own, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "cinelumen_XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

inline std::vector<std::uint8_t> file_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}
inline void write_bytes(const std::string& path, const std::vector<std::uint8_t>& bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

/// What to write. Samples are the stored bits of each pixel, frame after frame.
struct WrittenRun {
  int rows = 33, columns = 47, frames = 3;
  int bits_allocated = 16, bits_stored = 12, high_bit = -1;  ///< high_bit -1: bits_stored - 1
  bool is_signed = false;
  std::string transfer_syntax = UID_LittleEndianExplicitTransferSyntax;
  std::string sop_class = UID_XRayAngiographicImageStorage, modality = "XA", photometric = "MONOCHROME2";
  std::vector<std::uint16_t> samples;                               ///< empty: random ones
  std::function<void(DcmDataset&)> add;                             ///< changes the data set before it is written
  std::vector<std::vector<std::vector<std::uint8_t>>> codestreams;  ///< per frame its fragments: written as they are
  bool offset_table = true;

  std::size_t pixel_count() const { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns); }
  /// Random samples of bits_stored bits, smooth enough to be worth compressing.
  void fill(unsigned seed = 1) {
    std::mt19937 random(seed);
    samples.resize(pixel_count() * static_cast<std::size_t>(frames));
    const unsigned mask = (1u << bits_stored) - 1;
    for (std::size_t i = 0; i < samples.size(); ++i) samples[i] = static_cast<std::uint16_t>((i * 3 + random() % 17) & mask);
    // The ends of the range belong to every test.
    samples[0] = static_cast<std::uint16_t>(mask);
    samples[1] = 0;
    samples[2] = static_cast<std::uint16_t>(1u << (bits_stored - 1));
  }
};

/// A lossless JPEG 2000 codestream of one plane. Signed: samples are two's complement of `bits` bits.
inline std::vector<std::uint8_t> encode_jpeg2000(const std::uint16_t* samples, int rows, int columns, int bits, bool is_signed) {
  opj_cparameters_t parameters;
  opj_set_default_encoder_parameters(&parameters);
  parameters.tcp_numlayers = 1;
  parameters.cp_disto_alloc = 1;
  parameters.numresolution = 3;
  opj_image_cmptparm_t component{};
  component.dx = component.dy = 1;
  component.w = static_cast<OPJ_UINT32>(columns);
  component.h = static_cast<OPJ_UINT32>(rows);
  component.prec = static_cast<OPJ_UINT32>(bits);
  component.sgnd = is_signed;
  opj_image_t* image = opj_image_create(1, &component, OPJ_CLRSPC_GRAY);
  image->x1 = component.w;
  image->y1 = component.h;
  for (int i = 0; i < rows * columns; ++i) {
    int value = samples[i] & ((1 << bits) - 1);
    if (is_signed && value >= 1 << (bits - 1)) value -= 1 << bits;
    image->comps[0].data[i] = value;
  }
  std::vector<std::uint8_t> bytes;
  struct Out {
    std::vector<std::uint8_t>* bytes;
    std::size_t at = 0;
  } out{&bytes};
  opj_stream_t* stream = opj_stream_create(1 << 16, OPJ_FALSE);
  opj_stream_set_user_data(stream, &out, nullptr);
  opj_stream_set_write_function(stream, [](void* data, OPJ_SIZE_T count, void* user) -> OPJ_SIZE_T {
    Out& to = *static_cast<Out*>(user);
    if (to.bytes->size() < to.at + count) to.bytes->resize(to.at + count);
    std::memcpy(to.bytes->data() + to.at, data, count);
    to.at += count;
    return count;
  });
  opj_stream_set_seek_function(stream, [](OPJ_OFF_T offset, void* user) -> OPJ_BOOL {
    static_cast<Out*>(user)->at = static_cast<std::size_t>(offset);
    return OPJ_TRUE;
  });
  opj_stream_set_skip_function(stream, [](OPJ_OFF_T count, void* user) -> OPJ_OFF_T {
    static_cast<Out*>(user)->at += static_cast<std::size_t>(count);
    return count;
  });
  opj_codec_t* codec = opj_create_compress(OPJ_CODEC_J2K);
  const bool done = opj_setup_encoder(codec, &parameters, image) && opj_start_compress(codec, image, stream) && opj_encode(codec, stream) &&
                    opj_end_compress(codec, stream);
  opj_destroy_codec(codec);
  opj_stream_destroy(stream);
  opj_image_destroy(image);
  if (!done) throw std::runtime_error("OpenJPEG can't encode");
  return bytes;
}

inline DcmTagKey tag(int group, int element) { return DcmTagKey(static_cast<Uint16>(group), static_cast<Uint16>(element)); }

/// Writes the run to `path` and returns the path.
inline std::string write_dicom(const std::string& path, WrittenRun run) {
  static const bool once = [] {
    OFLog::configure(OFLogger::OFF_LOG_LEVEL);
    DJEncoderRegistration::registerCodecs();
    DJLSEncoderRegistration::registerCodecs();
    DcmRLEEncoderRegistration::registerCodecs();
    return true;
  }();
  (void)once;
  if (run.samples.empty()) run.fill();
  DcmFileFormat file;
  DcmDataset& data = *file.getDataset();
  data.putAndInsertString(DCM_SOPClassUID, run.sop_class.c_str());
  data.putAndInsertString(DCM_SOPInstanceUID, "1.2.826.0.1.3680043.10.99.1.1");
  data.putAndInsertString(DCM_SeriesInstanceUID, "1.2.826.0.1.3680043.10.99.1");
  data.putAndInsertString(DCM_StudyInstanceUID, "1.2.826.0.1.3680043.10.99");
  data.putAndInsertString(DCM_Modality, run.modality.c_str());
  data.putAndInsertString(DCM_PixelIntensityRelationship, "LIN");
  data.putAndInsertString(DCM_FrameTime, "40");
  data.putAndInsertTagKey(DCM_FrameIncrementPointer, DCM_FrameTime);
  data.putAndInsertUint16(DCM_SamplesPerPixel, 1);
  data.putAndInsertString(DCM_PhotometricInterpretation, run.photometric.c_str());
  data.putAndInsertString(DCM_NumberOfFrames, std::to_string(run.frames).c_str());
  data.putAndInsertUint16(DCM_Rows, static_cast<Uint16>(run.rows));
  data.putAndInsertUint16(DCM_Columns, static_cast<Uint16>(run.columns));
  data.putAndInsertUint16(DCM_BitsAllocated, static_cast<Uint16>(run.bits_allocated));
  data.putAndInsertUint16(DCM_BitsStored, static_cast<Uint16>(run.bits_stored));
  data.putAndInsertUint16(DCM_HighBit, static_cast<Uint16>(run.high_bit < 0 ? run.bits_stored - 1 : run.high_bit));
  data.putAndInsertUint16(DCM_PixelRepresentation, run.is_signed);

  const bool jpeg2000 = run.transfer_syntax == UID_JPEG2000LosslessOnlyTransferSyntax || run.transfer_syntax == UID_JPEG2000TransferSyntax;
  if (jpeg2000 && run.codestreams.empty())
    for (int frame = 0; frame < run.frames; ++frame)
      run.codestreams.push_back({encode_jpeg2000(run.samples.data() + static_cast<std::size_t>(frame) * run.pixel_count(), run.rows,
                                                 run.columns, run.bits_stored, run.is_signed)});
  if (!run.codestreams.empty()) {
    auto* sequence = new DcmPixelSequence(DCM_PixelSequenceTag);
    auto* table = new DcmPixelItem(DCM_PixelItemTag);
    sequence->insert(table);
    DcmOffsetList offsets;
    std::vector<Uint32> places;
    Uint32 at = 0;
    for (const auto& frame : run.codestreams) {
      places.push_back(at);
      for (std::vector<std::uint8_t> fragment : frame) {
        if (fragment.size() % 2) fragment.push_back(0);
        auto* item = new DcmPixelItem(DCM_PixelItemTag);
        item->putUint8Array(fragment.data(), static_cast<unsigned long>(fragment.size()));
        sequence->insert(item);
        at += static_cast<Uint32>(fragment.size()) + 8;
      }
    }
    if (run.offset_table)
      table->putUint8Array(reinterpret_cast<const Uint8*>(places.data()), static_cast<unsigned long>(places.size() * 4));
    auto* pixels = new DcmPixelData(DCM_PixelData);
    pixels->putOriginalRepresentation(DcmXfer(run.transfer_syntax.c_str()).getXfer(), nullptr, sequence);
    data.insert(pixels, OFTrue);
  } else if (run.bits_allocated == 16) {
    data.putAndInsertUint16Array(DCM_PixelData, run.samples.data(), static_cast<unsigned long>(run.samples.size()));
  } else {
    std::vector<Uint8> bytes(run.samples.begin(), run.samples.end());
    if (bytes.size() % 2) bytes.push_back(0);
    data.putAndInsertUint8Array(DCM_PixelData, bytes.data(), static_cast<unsigned long>(bytes.size()));
  }
  const E_TransferSyntax syntax = DcmXfer(run.transfer_syntax.c_str()).getXfer();
  if (run.codestreams.empty() && DcmXfer(syntax).isEncapsulated()) {
    const DJ_RPLossless lossless(run.transfer_syntax == UID_JPEGProcess14TransferSyntax ? 6 : 1, 0);
    const DJLSRepresentationParameter near_zero(0, OFTrue);
    const bool jpeg_ls = run.transfer_syntax == UID_JPEGLSLosslessTransferSyntax;
    const bool rle = run.transfer_syntax == UID_RLELosslessTransferSyntax;
    const OFCondition chosen = data.chooseRepresentation(syntax, rle       ? nullptr
                                                                 : jpeg_ls ? static_cast<const DcmRepresentationParameter*>(&near_zero)
                                                                           : static_cast<const DcmRepresentationParameter*>(&lossless));
    if (chosen.bad()) throw std::runtime_error(std::string("DCMTK can't encode: ") + chosen.text());
  }
  if (run.add) run.add(data);
  const OFCondition saved = file.saveFile(OFFilename(path.c_str()), syntax, EET_ExplicitLength, EGL_recalcGL, EPD_noChange, 0, 0);
  if (saved.bad()) throw std::runtime_error(std::string("DCMTK can't write: ") + saved.text());
  return path;
}

/// A 16-bit look-up table item in `sequence`, entries for pixel values from `first` on.
inline DcmItem* add_table(DcmItem& to, const DcmTagKey& sequence, int first, const std::vector<Uint16>& entries) {
  DcmItem* item = nullptr;
  to.findOrCreateSequenceItem(sequence, item, -2);
  const Uint16 descriptor[3] = {static_cast<Uint16>(entries.size()), static_cast<Uint16>(first), 16};
  item->putAndInsertUint16Array(DCM_LUTDescriptor, descriptor, 3);
  item->putAndInsertUint16Array(DCM_LUTData, entries.data(), static_cast<unsigned long>(entries.size()));
  return item;
}

}  // namespace cinelumen::test
