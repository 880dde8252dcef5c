#include "bit_rows.h"

#include <cstring>

#include "tile.h"

namespace cinelumen {
namespace {

constexpr BitWord every_byte = 0x0101010101010101u;

/// Gathers the lowest bit of eight bytes into one byte, first byte first.
CINELUMEN_HOST_DEVICE inline BitWord gather_low_bits(BitWord bytes) { return ((bytes & every_byte) * 0x0102040810204080u) >> 56; }

/// Spreads eight bits into eight bytes of 0 or 1.
CINELUMEN_HOST_DEVICE inline BitWord spread_bits(BitWord byte) {
  return ((((byte & 0xff) * every_byte) & 0x8040201008040201u) + 0x7f7f7f7f7f7f7f7fu) >> 7 & every_byte;
}

struct PackThresholds {
  using CpuTile = TileShape<16, 1024>;
  using CudaTile = TileShape<8, 128>;
  ImageView<const float> z;
  ImageView<const std::uint8_t> valid;
  float z_low, z_high;
  ImageView<BitWord> low, high;
  ImageView<const float> second;  // may be empty
  float second_low, second_high;

  template <int Height, int Width>
  struct Scratch {
    alignas(64) Tile<std::uint8_t, Height, Width> flags;  // bit 0: low, bit 1: high
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    static_assert(Width % 64 == 0);
    const int rows = block.rows(z.height), columns = block.columns(z.width), words = words_per_row(columns);
    const ImageView<const float> source = z;  // copies: bytes written might be any of the kernel's own members
    const float at_low = z_low, at_high = z_high;
    const int y0 = block.y0, x0 = block.x0;
    if (columns % 64 == 0)
      block.for_each_pixel(rows, columns, [&, source, at_low, at_high, y0, x0](int y, int x) {
        const float value = source.row(y0 + y)[x0 + x];
        scratch.flags[y][x] = static_cast<std::uint8_t>((value >= at_low) | (value >= at_high) << 1);
      });
    else  // whole words also here: a warp then writes whole 32-bit words of shared memory, as nobody else does
      block.for_each_pixel(rows, words * 64, [&, source, at_low, at_high, y0, x0](int y, int x) {
        const float value = source.row(y0 + y)[x0 + (x < columns ? x : 0)];
        const int inside = x < columns;
        scratch.flags[y][x] = static_cast<std::uint8_t>(((value >= at_low) & inside) | ((value >= at_high) & inside) << 1);
      });
    // The other images are read only where z passes, which most of a frame does not.
    if (valid.data || second.data)
      block.for_each_pixel(rows, words * 8, [&](int y, int group) {
        std::uint8_t* const flags = &scratch.flags[y][group * 8];
        BitWord bytes;
        memcpy(&bytes, flags, 8);
        if (bytes == 0) return;
        const int first = x0 + group * 8, end = z.width - first < 8 ? z.width - first : 8;
        for (int l = 0; l < end; ++l) {
          int kept = flags[l];
          if (valid.data) kept = valid.row(y0 + y)[first + l] != 0 ? kept : 0;
          if (second.data) {
            const float value = second.row(y0 + y)[first + l];
            kept &= (value >= second_low) | (value >= second_high) << 1;
          }
          flags[l] = static_cast<std::uint8_t>(kept);
        }
      });
    block.for_each_pixel(rows, words, [&](int y, int w) {
      BitWord low_bits = 0, high_bits = 0;
      for (int group = 0; group < 8; ++group) {
        BitWord bytes;
        memcpy(&bytes, &scratch.flags[y][w * 64 + group * 8], 8);
        low_bits |= gather_low_bits(bytes) << (8 * group);
        high_bits |= gather_low_bits(bytes >> 1) << (8 * group);
      }
      low.row(block.y0 + y)[block.x0 / 64 + w] = low_bits;
      high.row(block.y0 + y)[block.x0 / 64 + w] = high_bits;
    });
  }
};

struct PackBits {
  ImageView<const std::uint8_t> mask;
  ImageView<BitWord> bits;

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const int y = i / bits.width, w = i % bits.width, x0 = w * 64;
    const std::uint8_t* row = mask.row(y) + x0;
    const int columns = mask.width - x0 < 64 ? mask.width - x0 : 64;
    BitWord word = 0;
    int x = 0;
    for (; x + 8 <= columns; x += 8) {
      BitWord bytes;
      memcpy(&bytes, row + x, 8);
      // Any nonzero byte counts: its top bit is set in bytes itself or in what the addition carries into it.
      const BitWord nonzero = (bytes | ((bytes & 0x7f7f7f7f7f7f7f7fu) + 0x7f7f7f7f7f7f7f7fu)) >> 7;
      word |= gather_low_bits(nonzero) << x;
    }
    for (; x < columns; ++x) word |= static_cast<BitWord>(row[x] != 0) << x;
    bits.row(y)[w] = word;
  }
};

struct UnpackBits {
  ImageView<const BitWord> bits;
  ImageView<std::uint8_t> mask;

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const int y = i / bits.width, w = i % bits.width, x0 = w * 64;
    std::uint8_t* row = mask.row(y) + x0;
    const int columns = mask.width - x0 < 64 ? mask.width - x0 : 64;
    const BitWord word = bits.row(y)[w];
    int x = 0;
    for (; x + 8 <= columns; x += 8) {
      const BitWord bytes = spread_bits(word >> x);
      memcpy(row + x, &bytes, 8);
    }
    for (; x < columns; ++x) row[x] = word >> x & 1;
  }
};

template <class A, class B>
bool fits(const ImageView<A>& pixels, const ImageView<B>& bits) {
  return bits.height == pixels.height && bits.width == words_per_row(pixels.width);
}

}  // namespace

void pack_bits(const Stream& stream, ImageView<const std::uint8_t> mask, ImageView<BitWord> bits) {
  require(fits(mask, bits), "pack_bits: bits must be height x words_per_row(width)");
  for_each_item(stream, bits.height * bits.width, PackBits{mask, bits}, 1024);
}

void pack_thresholds(const Stream& stream, ImageView<const float> z, ImageView<const std::uint8_t> valid, float z_low, float z_high,
                     ImageView<BitWord> low, ImageView<BitWord> high, ImageView<const float> second, float second_low, float second_high) {
  require(fits(z, low) && fits(z, high), "pack_thresholds: low and high must be height x words_per_row(width)");
  require(!valid.data || same_size(z, valid), "pack_thresholds: valid and z differ in size");
  require(!second.data || same_size(z, second), "pack_thresholds: second and z differ in size");
  for_each_tile(stream, z.height, z.width, PackThresholds{z, valid, z_low, z_high, low, high, second, second_low, second_high});
}

void unpack_bits(const Stream& stream, ImageView<const BitWord> bits, ImageView<std::uint8_t> mask) {
  require(fits(mask, bits), "unpack_bits: bits must be height x words_per_row(width)");
  for_each_item(stream, bits.height * bits.width, UnpackBits{bits, mask}, 1024);
}

}  // namespace cinelumen
