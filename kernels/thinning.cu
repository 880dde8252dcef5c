#include "thinning.h"

#include "tile.h"

namespace cinelumen {
namespace {

/// Sub-iterations of one launch: as many rows of halo; one word of halo is 64 columns, more than enough.
constexpr int sub_iterations = 8;

/// Bits of the middle word that a sub-iteration deletes. Words: above, here, below; left, middle, right.
template <bool Odd>
CINELUMEN_HOST_DEVICE inline BitWord deleted_bits(const BitWord* above, const BitWord* here, const BitWord* below) {
  const auto west = [](const BitWord* row) { return row[0] << 1 | row[-1] >> 63; };
  const auto east = [](const BitWord* row) { return row[0] >> 1 | row[1] << 63; };
  // The names of the paper: p2 is north, then clockwise.
  const BitWord p2 = above[0], p3 = east(above), p4 = east(here), p5 = east(below), p6 = below[0], p7 = west(below), p8 = west(here),
                p9 = west(above);
  const BitWord c1 = ~p2 & (p3 | p4), c2 = ~p4 & (p5 | p6), c3 = ~p6 & (p7 | p8), c4 = ~p8 & (p9 | p2);
  const BitWord one_component = (c1 ^ c2 ^ c3 ^ c4) & ~((c1 & c2) | (c3 & c4));
  const BitWord a1 = p9 | p2, a2 = p3 | p4, a3 = p5 | p6, a4 = p7 | p8;
  const BitWord b1 = p2 | p3, b2 = p4 | p5, b3 = p6 | p7, b4 = p8 | p9;
  const BitWord two_a = (a1 & a2) | (a3 & a4) | ((a1 | a2) & (a3 | a4)), two_b = (b1 & b2) | (b3 & b4) | ((b1 | b2) & (b3 | b4));
  const BitWord all_four = a1 & a2 & a3 & a4 & b1 & b2 & b3 & b4;
  const BitWord kept_side = Odd ? (p6 | p7 | ~p9) & p8 : (p2 | p3 | ~p5) & p4;
  return here[0] & one_component & two_a & two_b & ~all_four & ~kept_side;
}

struct ThinTile {
  using CpuTile = TileShape<64, 16>;  // words: 1024 pixels wide
  using CudaTile = TileShape<16, 4>;
  ImageView<const BitWord> input;
  ImageView<BitWord> output;
  ArrayView<const int> changed_before;  // per tile, of the previous launch; empty in the first
  ArrayView<int> changed;

  template <int Height, int Width>
  struct Scratch {
    // Two planes in turn; the outermost columns stay 0.
    Tile<BitWord, Height + 2 * sub_iterations, Width + 4> plane[2];
    SumLanes<1> lanes;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    static_assert(Height >= sub_iterations, "the halo must not reach beyond the neighbouring tiles");
    const int rows = block.rows(input.height), columns = block.columns(input.width);
    if (!depends_on_change(block)) {
      block.for_each_pixel(rows, columns,
                           [&](int y, int x) { output.row(block.y0 + y)[block.x0 + x] = input.row(block.y0 + y)[block.x0 + x]; });
      block.once([&] { changed[block.index] = 0; });
      return;
    }
    constexpr int halo = sub_iterations;
    block.for_each_pixel(rows + 2 * halo, columns + 4, [&](int y, int x) {
      const int from_y = block.y0 + y - halo, from_x = block.x0 + x - 2;
      const bool inside = from_y >= 0 && from_y < input.height && from_x >= 0 && from_x < input.width && x > 0 && x < columns + 3;
      scratch.plane[0][y][x] = inside ? input.row(from_y)[from_x] : 0;
      scratch.plane[1][y][x] = 0;
    });
    for (int step = 0; step < sub_iterations; step += 2) {
      sub_iteration<false>(block, scratch.plane[0], scratch.plane[1], step, rows, columns);
      sub_iteration<true>(block, scratch.plane[1], scratch.plane[0], step + 1, rows, columns);
    }
    const Sums<1> differences = block.template sum_pixels<1>(rows, columns, scratch.lanes, [&](int y, int x) {
      const BitWord after = scratch.plane[0][y + halo][x + 2];
      return Sums<1>{{after != input.row(block.y0 + y)[block.x0 + x] ? 1.0f : 0.0f}};
    });
    block.for_each_pixel(rows, columns, [&](int y, int x) { output.row(block.y0 + y)[block.x0 + x] = scratch.plane[0][y + halo][x + 2]; });
    block.once([&] { changed[block.index] = differences.value[0] > 0; });
  }

  /// A tile that did not change in the last launch, nor any of its neighbours, reads what it read then and stays as it is.
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE bool depends_on_change(const Block<Height, Width>& block) const {
    if (changed_before.size == 0) return true;
    const int tile_columns = (input.width + Width - 1) / Width, tile_rows = (input.height + Height - 1) / Height;
    const int ty = block.y0 / Height, tx = block.x0 / Width;
    bool any = false;
    for (int y = ty - 1; y <= ty + 1; ++y)
      for (int x = tx - 1; x <= tx + 1; ++x)
        if (y >= 0 && y < tile_rows && x >= 0 && x < tile_columns) any = any || changed_before[y * tile_columns + x] != 0;
    return any;
  }

  template <bool Odd, int Height, int Width, class Plane>
  CINELUMEN_HOST_DEVICE static void sub_iteration(const Block<Height, Width>& block, const Plane& from, Plane& to, int step, int rows,
                                                  int columns) {
    // The region shrinks by a row at each end per step: what lies outside has seen neighbours that were not loaded.
    block.for_each_pixel(rows + 2 * sub_iterations - 2 - 2 * step, columns + 2, [&](int y, int x) {
      const int at = y + 1 + step;
      to[at][x + 1] = from[at][x + 1] & ~deleted_bits<Odd>(&from[at - 1][x + 1], &from[at][x + 1], &from[at + 1][x + 1]);
    });
  }
};

}  // namespace

Thinning::Thinning(const Stream& stream, int height, int width)
    : stream_(stream),
      height_(height),
      width_(width),
      bits_{Image<BitWord>(stream, height, words_per_row(width)), Image<BitWord>(stream, height, words_per_row(width))} {
  const int tiles = tile_count<ThinTile>(stream, height, words_per_row(width));
  for (Array<int>& changed : changed_) changed = Array<int>(stream, tiles);
  changed_host_ = Array<int>::staging(stream, tiles);
}

void Thinning::thin(ImageView<const std::uint8_t> mask, ImageView<std::uint8_t> skeleton) {
  require(same_size(mask, skeleton) && mask.height == height_ && mask.width == width_,
          "Thinning::thin: mask and skeleton must have the constructor's size");
  if (height_ == 0 || width_ == 0) return;
  pack_bits(stream_, mask, bits_[0]);
  bool again = true;
  int from = 0;
  for (int pass = 0; again; ++pass, from = 1 - from) {
    const ArrayView<const int> before = pass == 0 ? ArrayView<const int>{} : changed_[from].view();
    for_each_tile(stream_, height_, words_per_row(width_), ThinTile{bits_[from], bits_[1 - from], before, changed_[1 - from]});
    copy<int>(stream_, changed_[1 - from].view(), changed_host_.view());
    stream_.synchronize();
    again = false;
    for (const int tile : changed_host_) again = again || tile != 0;
  }
  unpack_bits(stream_, bits_[from], skeleton);
}

}  // namespace cinelumen
