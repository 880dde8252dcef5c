#pragma once
/// JPEG 2000 codestreams, which DCMTK doesn't decode.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace cinelumen {

/// What a codestream must hold to be decoded.
struct CodestreamExpectation {
  int rows = 0, columns = 0;
  int bits = 0;  ///< the least precision
  bool is_signed = false;
};

/// rows x columns samples and their precision, or an error in words (empty: none).
struct DecodedSamples {
  std::vector<std::int32_t> samples;
  int precision = 0;
  std::string error;
};

/// Decodes one component of a JPEG 2000 codestream, bare or in a JP2 file, with OpenJPEG in strict mode. Size, depth and sign are compared
/// with what is expected before anything is decoded or allocated for it.
DecodedSamples decode_jpeg2000(std::span<const std::uint8_t> codestream, const CodestreamExpectation& expected);

}  // namespace cinelumen
