#include "io/jpeg2000.h"

#include <openjpeg.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace cinelumen {
namespace {

struct Memory {
  std::span<const std::uint8_t> bytes;
  std::size_t at = 0;
};

OPJ_SIZE_T read(void* buffer, OPJ_SIZE_T count, void* user) {
  Memory& memory = *static_cast<Memory*>(user);
  if (memory.at >= memory.bytes.size()) return static_cast<OPJ_SIZE_T>(-1);
  count = std::min<OPJ_SIZE_T>(count, memory.bytes.size() - memory.at);
  std::memcpy(buffer, memory.bytes.data() + memory.at, count);
  memory.at += count;
  return count;
}

OPJ_OFF_T skip(OPJ_OFF_T count, void* user) {
  Memory& memory = *static_cast<Memory*>(user);
  if (count < 0) return -1;
  const std::size_t left = memory.bytes.size() - memory.at;
  memory.at += std::min(static_cast<std::size_t>(count), left);
  return count;
}

OPJ_BOOL seek(OPJ_OFF_T offset, void* user) {
  Memory& memory = *static_cast<Memory*>(user);
  if (offset < 0 || static_cast<std::size_t>(offset) > memory.bytes.size()) return OPJ_FALSE;
  memory.at = static_cast<std::size_t>(offset);
  return OPJ_TRUE;
}

void note_first(const char* message, void* user) {
  std::string& error = *static_cast<std::string*>(user);
  if (error.empty()) error = message;
  while (!error.empty() && error.back() == '\n') error.pop_back();
}

std::string in_words(int columns, int rows, int bits, bool is_signed) {
  return std::to_string(columns) + " x " + std::to_string(rows) + ", " + std::to_string(bits) + " bits " +
         (is_signed ? "signed" : "unsigned");
}

}  // namespace

DecodedSamples decode_jpeg2000(std::span<const std::uint8_t> codestream, const CodestreamExpectation& expected) {
  DecodedSamples result;
  Memory memory{codestream};
  const bool jp2 = codestream.size() > 12 && std::memcmp(codestream.data() + 4, "jP  ", 4) == 0;
  const std::unique_ptr<opj_codec_t, decltype(&opj_destroy_codec)> codec(opj_create_decompress(jp2 ? OPJ_CODEC_JP2 : OPJ_CODEC_J2K),
                                                                         &opj_destroy_codec);
  const std::unique_ptr<opj_stream_t, decltype(&opj_stream_destroy)> stream(opj_stream_create(1 << 16, OPJ_TRUE), &opj_stream_destroy);
  std::string message;
  opj_set_error_handler(codec.get(), note_first, &message);
  opj_stream_set_read_function(stream.get(), read);
  opj_stream_set_skip_function(stream.get(), skip);
  opj_stream_set_seek_function(stream.get(), seek);
  opj_stream_set_user_data(stream.get(), &memory, nullptr);
  opj_stream_set_user_data_length(stream.get(), codestream.size());
  opj_dparameters_t parameters;
  opj_set_default_decoder_parameters(&parameters);

  opj_image_t* opened = nullptr;
  const bool header = opj_setup_decoder(codec.get(), &parameters) && opj_decoder_set_strict_mode(codec.get(), OPJ_TRUE) &&
                      opj_read_header(stream.get(), codec.get(), &opened);
  const std::unique_ptr<opj_image_t, decltype(&opj_image_destroy)> image(opened, &opj_image_destroy);
  if (!header || !image) {
    result.error = "the JPEG 2000 header is damaged" + (message.empty() ? "" : " (" + message + ")");
    return result;
  }
  if (image->numcomps != 1) {
    result.error = "the JPEG 2000 codestream has " + std::to_string(image->numcomps) + " components, 1 expected";
    return result;
  }
  const opj_image_comp_t& component = image->comps[0];
  const std::int64_t columns = std::int64_t(image->x1) - image->x0, rows = std::int64_t(image->y1) - image->y0;
  const int bits = static_cast<int>(component.prec);
  if (columns != expected.columns || rows != expected.rows || component.dx != 1 || component.dy != 1 || bits < expected.bits || bits > 16 ||
      (component.sgnd != 0) != expected.is_signed) {
    result.error = "the JPEG 2000 codestream is " + in_words(static_cast<int>(columns), static_cast<int>(rows), bits, component.sgnd != 0) +
                   ", the header says " + in_words(expected.columns, expected.rows, expected.bits, expected.is_signed);
    return result;
  }
  if (!opj_decode(codec.get(), stream.get(), image.get()) || !opj_end_decompress(codec.get(), stream.get()) || !component.data ||
      component.w != static_cast<OPJ_UINT32>(expected.columns) || component.h != static_cast<OPJ_UINT32>(expected.rows)) {
    result.error = "the JPEG 2000 codestream is damaged" + (message.empty() ? "" : " (" + message + ")");
    return result;
  }
  result.precision = bits;
  result.samples.assign(component.data, component.data + static_cast<std::size_t>(component.w) * component.h);
  return result;
}

}  // namespace cinelumen
