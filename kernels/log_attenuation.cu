#include "log_attenuation.h"

#include "frame_source.h"
#include "tile.h"

namespace cinelumen {
namespace {

struct LookUp {
  StoredSource frame;
  ImageView<float> attenuation;

  template <int Height, int Width>
  struct Scratch {};

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    load_inside(block, frame, block.y0, block.x0, block.rows(attenuation.height), block.columns(attenuation.width),
                [&](int y) { return attenuation.row(block.y0 + y) + block.x0; });
  }
};

}  // namespace

void log_attenuation(const Stream& stream, ImageView<const std::uint16_t> stored, ArrayView<const float> table,
                     ImageView<float> attenuation) {
  require(same_size(stored, attenuation), "log_attenuation: stored and attenuation differ in size");
  require(table.size > 0, "log_attenuation: the table is empty");
  for_each_tile(stream, attenuation.height, attenuation.width, LookUp{{{stored, table}}, attenuation});
}

}  // namespace cinelumen
