#include "log_attenuation.h"

#include "math.h"
#include "tile.h"

namespace cinelumen {
namespace {

struct LookUp {
  ImageView<const std::uint16_t> stored;
  ArrayView<const float> table;
  ImageView<float> attenuation;

  template <int Height, int Width>
  struct Scratch {};

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    const int last = table.size - 1;
    block.for_each_pixel(block.rows(attenuation.height), block.columns(attenuation.width), [&](int y, int x) {
      const int value = stored.row(block.y0 + y)[block.x0 + x];
      attenuation.row(block.y0 + y)[block.x0 + x] = table.data[value < last ? value : last];
    });
  }
};

}  // namespace

void log_attenuation(const Stream& stream, ImageView<const std::uint16_t> stored, ArrayView<const float> table,
                     ImageView<float> attenuation) {
  require(same_size(stored, attenuation), "log_attenuation: stored and attenuation differ in size");
  require(table.size > 0, "log_attenuation: the table is empty");
  for_each_tile(stream, attenuation.height, attenuation.width, LookUp{stored, table, attenuation});
}

}  // namespace cinelumen
