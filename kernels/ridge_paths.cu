#include "ridge_paths.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "math.h"
#include "tile.h"
#include "tile_lists.h"

namespace cinelumen {
namespace {

constexpr float sample_step_px = 1, fine_step_px = 0.5f, outlier_px = 1.5f;
constexpr int max_half_count = 24;  // samples on either side
constexpr int most_columns = 64;    // of a row of samples, with what fills the last vector
constexpr int rows_together = 32;   // of the way back
constexpr int every = 2;            // points per row of samples: the ridge bends little between neighbours
constexpr float never = -1e30f;     // where nothing can be gained
constexpr float nowhere = 3e38f;    // no offset
constexpr int neighbours = 5, usual = 7,
              smooth_over = 3;  // points on either side that a peak is compared with; that a gap starts and ends with; of a mean

struct PlaceLines {
  ArrayView<const CrossSection> lines;
  ArrayView<const FramePlacement> placement;
  int height, width;
  DisplacementField field;
  ArrayView<CrossSection> placed;

  /// The section moved by the field, its normal turned with the line through it.
  CINELUMEN_HOST_DEVICE CrossSection displaced(const CrossSection& at) const {
    constexpr float reach = 2;
    const float along_y = at.normal_x, along_x = -at.normal_y;
    const Displacement here = displacement_at(field, at.y, at.x);
    const Displacement ahead = displacement_at(field, at.y + reach * along_y, at.x + reach * along_x);
    const Displacement behind = displacement_at(field, at.y - reach * along_y, at.x - reach * along_x);
    const float t_y = along_y + (ahead.y - behind.y) / (2 * reach), t_x = along_x + (ahead.x - behind.x) / (2 * reach);
    const float length = sqrtf(t_y * t_y + t_x * t_x);
    return {at.y + here.y, at.x + here.x, -t_x / length, t_y / length};
  }

  using CpuTile = TileShape<1, 1024>;
  using CudaTile = TileShape<1, 256>;
  template <int Height, int Width>
  struct Scratch {
    float c, s, shift_y, shift_x;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const float cy = 0.5f * static_cast<float>(height - 1), cx = 0.5f * static_cast<float>(width - 1);
    block.once([&] {
      const RigidMotion& motion = placement[0].motion;
      scratch.c = cosf(motion.rotation_rad);
      scratch.s = sinf(motion.rotation_rad);
      scratch.shift_y = motion.shift_y_px;
      scratch.shift_x = motion.shift_x_px;
    });
    const float c = scratch.c, s = scratch.s;
    block.for_each_pixel(1, block.columns(lines.size), [&](int, int i) {
      const CrossSection from = field.data ? displaced(lines[block.x0 + i]) : lines[block.x0 + i];
      const float dy = from.y - cy, dx = from.x - cx;
      CrossSection to;
      to.y = cy + (s * dx + c * dy) + scratch.shift_y;
      to.x = cx + (c * dx - s * dy) + scratch.shift_x;
      to.normal_y = c * from.normal_y + s * from.normal_x;
      to.normal_x = c * from.normal_x - s * from.normal_y;
      placed[block.x0 + i] = to;
    });
  }
};

// How a search reads an image: of the lines' resolution the nearest pixel is near enough, of a coarser one it would be steps.
enum class Reading { nearest, nearest_divided, between };

struct SearchRidges {
  ImageView<const float> values, scale_px;
  Reading reading;
  ArrayView<const CrossSection> lines;
  ArrayView<const int> point_of_row;
  float step_px;  // of the image's own pixels, as all within
  ImageView<float> samples;
  int together;  // samples of one row per item
  float scale;   // pixels of the image per px of the lines

  CINELUMEN_HOST_DEVICE void operator()(int i) const {
    const int groups = (samples.width + together - 1) / together, row = i / groups, first = i % groups * together;
    const int last = first + together < samples.width ? first + together : samples.width;
    const CrossSection line = scaled(lines[point_of_row[row]], scale);
    const float start = -0.5f * static_cast<float>(samples.width - 1) * step_px;
#ifdef __CUDA_ARCH__
    constexpr bool inside = false;  // a thread reads one sample: nothing is won by asking once for all
#else
    const float end = -start, y0 = line.y + start * line.normal_y, y1 = line.y + end * line.normal_y, x0 = line.x + start * line.normal_x,
                x1 = line.x + end * line.normal_x;
    const float most_y = static_cast<float>(values.height - 1), most_x = static_cast<float>(values.width - 1);
    const auto within = [](float a, float b, float most) { return a >= 0 && b >= 0 && a <= most && b <= most; };
    const bool inside = within(y0, y1, most_y) && within(x0, x1, most_x);
#endif
    if (reading == Reading::nearest_divided)
      inside ? read<Reading::nearest_divided, true>(line, row, first, last, start)
             : read<Reading::nearest_divided, false>(line, row, first, last, start);
    else if (reading == Reading::between)
      inside ? read<Reading::between, true>(line, row, first, last, start) : read<Reading::between, false>(line, row, first, last, start);
    else
      inside ? read<Reading::nearest, true>(line, row, first, last, start) : read<Reading::nearest, false>(line, row, first, last, start);
  }

  // A call would cost registers that are spilled.
  template <Reading how, bool inside>
  CINELUMEN_HOST_DEVICE __attribute__((always_inline)) inline void read(const CrossSection& line, int row, int first, int last,
                                                                        float start) const {
    const float *const pixels = values.data, *const divisors = scale_px.data;
    const int pitch = static_cast<int>(values.pitch), divisor_pitch = static_cast<int>(scale_px.pitch);
    const int last_y = values.height - 1, last_x = values.width - 1;
    const float most_y = static_cast<float>(last_y), most_x = static_cast<float>(last_x);
    const float factor = scale_px.data ? usual_divisor(scale_px, line) : 1.0f, step = step_px;
    float* const to = samples.row(row);
#pragma GCC ivdep
    for (int k = first; k < last; ++k) {
      const float along = start + static_cast<float>(k) * step;
      float y = line.y + along * line.normal_y, x = line.x + along * line.normal_x;
      bool there = true;
      if constexpr (!inside) {
        there = (y >= 0) & (x >= 0) & (y <= most_y) & (x <= most_x);
        y = there ? y : 0.0f;
        x = there ? x : 0.0f;
      }
      float value;
      if constexpr (how == Reading::between) {
        const int iy = static_cast<int>(y), ix = static_cast<int>(x), at = iy * pitch + ix;
        const int below = iy < last_y ? pitch : 0, right = ix < last_x ? 1 : 0;
        const float fy = y - static_cast<float>(iy), fx = x - static_cast<float>(ix);
        const float upper = pixels[at] + fx * (pixels[at + right] - pixels[at]),
                    lower = pixels[at + below] + fx * (pixels[at + below + right] - pixels[at + below]);
        value = factor * (upper + fy * (lower - upper));
      } else {
        const int iy = static_cast<int>(y + 0.5f), ix = static_cast<int>(x + 0.5f);
        value = pixels[iy * pitch + ix];
        if constexpr (how == Reading::nearest_divided) value = value * factor * (1.0f / divisors[iy * divisor_pitch + ix]);
      }
      to[k] = there ? value : -1.0f;  // nothing to be gained there
    }
  }
};

struct FindPaths {
  ArrayView<const int> first_row, first;
  ImageView<const float> samples;
  float step_px, cost, minimum_z;
  ImageView<std::int8_t> moves;
  ArrayView<float> highest, rough;
  ArrayView<CrossPeak> peaks;

  using CpuTile = TileShape<1, 1>;  // a line each
  using CudaTile = TileShape<1, 1>;
  template <int Height, int Width>
  struct Scratch {
    KthScratch lanes;
    ListScratch list;
    float total[2][most_columns + 4];
    int moved[rows_together][most_columns];
    int path[rows_together], at;
    float row_highest[16];
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int row0 = first_row[block.y0], rows = first_row[block.y0 + 1] - row0, width = samples.width;
    if (rows == 0) return;
    block.for_each_pixel(1, rows, [&](int, int r) {
      const float* const row = samples.row(row0 + r);
      std::int32_t peak = 0;  // as whole numbers, whose maximum is vector code
      for (int k = 0; k < width; ++k) {
        const std::int32_t bits = std::bit_cast<std::int32_t>(row[k]);
        peak = bits > peak ? bits : peak;
      }
      highest[row0 + r] = peak > 0 ? std::bit_cast<float>(peak) : -1.0f;
    });
    const auto peak_of = [&](int r) { return highest[row0 + r]; };
    const int filled = static_cast<int>(block
                                            .template sum_pixels<7>(1, rows, scratch.lanes,
                                                                    [&](int, int r) {
                                                                      Sums<7> one{};
                                                                      one.value[0] = peak_of(r) >= 0 ? 1.0f : 0.0f;
                                                                      return one;
                                                                    })
                                            .value[0]);
    // In units of the line's usual peak, and hardly more for more: a brighter vessel alongside must not pay for the way over to it.
    const float peak = filled > 0 ? kth_smallest(block, scratch.lanes, rows, filled / 2, peak_of) : 0.0f;
    gather(block, scratch, row0, rows, 1 / (peak > 6 ? peak : 6.0f));
    go_back(block, scratch, row0, rows);
    start_peaks(block, row0, rows);
  }

  template <class Block, class Store>
  CINELUMEN_HOST_DEVICE void gather(const Block& block, Store& scratch, int row0, int rows, float unit) const {
    const int width = samples.width, columns = (width + 15) / 16 * 16;
    block.for_each_pixel(2, most_columns + 4, [&](int i, int k) { scratch.total[i][k] = i == 1 && k >= 2 && k < width + 2 ? 0 : never; });
    const float one_step = cost, two_steps = 2 * cost;
    for (int r = 0; r < rows; ++r) {
      const float *const row = samples.row(row0 + r), *const before = scratch.total[1 - r % 2] + 2;
      float* const now = scratch.total[r % 2] + 2;
      std::int8_t* const move = moves.row(row0 + r);
      // No branches, so that this is vector code; rows are padded to whole vectors.
      block.for_each_pixel(1, columns, [&](int, int k) {
        // Equal ones: the straightest.
        float best = before[k];
        int step = 0;
        const auto offer = [&](float total, int by) {
          step = total > best ? by : step;
          best = total > best ? total : best;
        };
        offer(before[k - 1] - one_step, -1);
        offer(before[k + 1] - one_step, 1);
        offer(before[k - 2] - two_steps, -2);
        offer(before[k + 2] - two_steps, 2);
        const float share = row[k] > 0 ? row[k] * unit : 0.0f, beyond = 1 + 0.1f * (share - 1), most = beyond < 1.1f ? beyond : 1.1f;
        now[k] = k < width ? best + static_cast<float>(every) * (share < 1 ? share : most) : never;
        move[k] = static_cast<std::int8_t>(step);
      });
    }
    block.once([&] {
      const float* const end = scratch.total[(rows - 1) % 2] + 2;
      int k = width / 2;
      for (int j = 0; j < width; ++j)
        if (end[j] > end[k]) k = j;
      scratch.at = k;
    });
  }

  template <class Block, class Store>
  CINELUMEN_HOST_DEVICE void go_back(const Block& block, Store& scratch, int row0, int rows) const {
    const int width = samples.width;
    for (int end = rows; end > 0; end -= rows_together) {
      const int start = end > rows_together ? end - rows_together : 0;
      block.for_each_pixel(end - start, width, [&](int r, int k) { scratch.moved[r][k] = moves.row(row0 + start + r)[k]; });
      block.once([&] {
        int k = scratch.at;
        for (int r = end - start; r-- > 0;) {
          scratch.path[r] = k;
          k += scratch.moved[r][k];
        }
        scratch.at = k;
      });
      block.for_each_pixel(
          1, end - start, [&](int, int r) { rough[row0 + start + r] = rough_peak(samples.row(row0 + start + r), width, scratch.path[r]); });
    }
  }

  // Where near sample k the row is highest, to a fraction of a sample; nowhere where that is at an end or not above minimum_z.
  CINELUMEN_HOST_DEVICE float rough_peak(const float* row, int width, int k) const {
    // The path is stiff: the maximum itself may lie a step or two beside it.
    for (int climb = 0; climb < 2; ++climb) {
      if (k > 0 && row[k - 1] > row[k])
        --k;
      else if (k + 1 < width && row[k + 1] > row[k])
        ++k;
    }
    if (k == 0 || k == width - 1) return nowhere;
    const float left = row[k - 1], here = row[k], right = row[k + 1];
    // Between samples it may be a little higher.
    if (!(here >= left && here >= right && here > 0.7f * minimum_z)) return nowhere;
    const float bend = left - 2 * here + right, t = bend < 0 ? 0.5f * (left - right) / bend : 0.0f;
    return (static_cast<float>(k - width / 2) + (t < -0.5f ? -0.5f : (t > 0.5f ? 0.5f : t))) * step_px;
  }

  template <class Block>
  CINELUMEN_HOST_DEVICE void start_peaks(const Block& block, int row0, int rows) const {
    const int point0 = first[block.y0];
    block.for_each_pixel(1, rows, [&](int, int r) { peaks[point0 + every * r] = {rough[row0 + r], 0, 0}; });
  }
};

// The points between those that were searched.
struct FillPeaks {
  ArrayView<const int> first, line_of_row, point_of_row;
  ArrayView<CrossPeak> peaks;

  CINELUMEN_HOST_DEVICE void operator()(int row) const {
    const int point = point_of_row[row], end = first[line_of_row[row] + 1];
    const CrossPeak before = peaks[point];
    for (int i = 1; i < every && point + i < end; ++i) {
      CrossPeak between = before;
      if (point + every < end) {
        const CrossPeak after = peaks[point + every];
        const float part = static_cast<float>(i) / static_cast<float>(every);
        between.offset_px = before.offset_px + part * (after.offset_px - before.offset_px);
        between.value = before.value + part * (after.value - before.value);
        between.found = before.found && after.found && fabsf(after.offset_px - before.offset_px) < outlier_px ? 1 : 0;
      }
      peaks[point + i] = between;
    }
  }
};

// The middle one of value(first) ... value(last - 1), the upper of two; at most 16.
template <class Value>
CINELUMEN_HOST_DEVICE float middle_of(int first, int last, Value value) {
  const int middle = (last - first) / 2;
  for (int k = first; k < last; ++k) {
    const float here = value(k);
    int below = 0, equal = 0;
    for (int j = first; j < last; ++j) {
      below += value(j) < here ? 1 : 0;
      equal += value(j) == here ? 1 : 0;
    }
    if (below <= middle && middle < below + equal) return here;
  }
  return 0;
}

struct RejectLonePeaks {
  ArrayView<const int> first;
  ArrayView<CrossPeak> peaks;
  ArrayView<int> list;

  using CpuTile = TileShape<1, 1>;
  using CudaTile = TileShape<1, 1>;
  template <int Height, int Width>
  struct Scratch {
    ListScratch list;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int start = first[block.y0], count = first[block.y0 + 1] - start;
    const int found = enumerate(
        block, scratch.list, count, [&](int i) { return peaks[start + i].found != 0; },
        [&](int i, int rank, bool is_found) {
          if (is_found) list[start + rank] = start + i;
        });
    const auto offset_of = [&](int k) { return peaks[list[start + k]].offset_px; };
    block.for_each_pixel(1, found, [&](int, int k) {
      const int from = k > neighbours ? k - neighbours : 0, to = k + neighbours < found ? k + neighbours + 1 : found;
      const float own = offset_of(k);
      int far = 0;
      for (int j = from; j < to; ++j) far += fabsf(offset_of(j) - own) > outlier_px ? 1 : 0;
      // With most of them near, so is the middle one.
      if (2 * far >= to - from - 1 && fabsf(own - middle_of(from, to, offset_of)) > outlier_px) peaks[list[start + k]].found = 0;
    });
  }
};

struct MoveToPeaks {
  ArrayView<const int> first;
  ArrayView<const CrossSection> lines;
  ArrayView<const CrossPeak> peaks;
  float least_share;
  ArrayView<int> list, rank;
  ArrayView<float> offsets;
  ArrayView<CrossSection> moved;
  ArrayView<std::int32_t> found;

  using CpuTile = TileShape<1, 1>;
  using CudaTile = TileShape<1, 1>;
  template <int Height, int Width>
  struct Scratch {
    ListScratch list;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    const int start = first[block.y0], count = first[block.y0 + 1] - start;
    const int there = enumerate(
        block, scratch.list, count, [&](int i) { return peaks[start + i].found != 0; },
        [&](int i, int before, bool is_found) {
          rank[start + i] = before;
          if (is_found) list[start + before] = i;
        });
    const bool enough = static_cast<float>(there) >= least_share * static_cast<float>(count);
    block.once([&] { found[block.y0] = enough ? 1 : 0; });
    if (!enough || there == 0) {
      block.for_each_pixel(1, count, [&](int, int i) { moved[start + i] = lines[start + i]; });
      return;
    }
    block.for_each_pixel(1, count, [&](int, int i) {
      offsets[start + i] = peaks[start + i].found ? peaks[start + i].offset_px : across_gap(start, count, there, i);
    });
    // Vessels bend less from one pixel to the next than single offsets err.
    block.for_each_pixel(1, count, [&](int, int i) {
      const CrossSection line = lines[start + i];
      const int from = i > smooth_over ? i - smooth_over : 0, to = i + smooth_over < count ? i + smooth_over + 1 : count;
      float sum = 0;
      for (int j = from; j < to; ++j) sum += offsets[start + j];
      const float offset = sum / static_cast<float>(to - from);
      moved[start + i] = {line.y + offset * line.normal_y, line.x + offset * line.normal_x, line.normal_y, line.normal_x};
    });
    // Directions over a few points: single offsets are noisy.
    block.for_each_pixel(1, count, [&](int, int i) {
      const int a = start + (i > 4 ? i - 4 : 0), b = start + (i + 4 < count ? i + 4 : count - 1);
      const float dy = moved[b].y - moved[a].y, dx = moved[b].x - moved[a].x, length = sqrtf(dy * dy + dx * dx);
      if (!(length > 0)) return;
      moved[start + i].normal_y = dx / length;
      moved[start + i].normal_x = -dy / length;
    });
  }

  // What a gap starts and ends with: the middle of several, as the last point before a gap is often half on what made the gap.
  CINELUMEN_HOST_DEVICE float across_gap(int start, int count, int there, int i) const {
    const int k = rank[start + i];  // found points before it
    const auto offset_of = [&](int j) { return peaks[start + list[start + j]].offset_px; };
    const int from = k > usual ? k - usual : 0, to = k + usual < there ? k + usual : there;
    const float right = k < there ? middle_of(k, to, offset_of) : middle_of(from, k, offset_of);
    const float left = k > 0 ? middle_of(from, k, offset_of) : right;
    const int before = k > 0 ? list[start + k - 1] : -1, after = k < there ? list[start + k] : count;
    return left + (right - left) * static_cast<float>(i - before) / static_cast<float>(after - before);
  }
};

}  // namespace

void place_lines(const Stream& stream, ArrayView<const CrossSection> lines, ArrayView<const FramePlacement> placement, int height,
                 int width, ArrayView<CrossSection> placed, const DisplacementField& field) {
  require(placement.size == 1, "place_lines: one placement is needed");
  require(lines.size == placed.size, "place_lines: lines and placed differ in size");
  for_each_tile(stream, 1, lines.size, PlaceLines{lines, placement, height, width, field, placed});
}

RidgePathScratch::RidgePathScratch(const Stream& stream, ArrayView<const int> first) {
  const int lines = first.size > 0 ? first.size - 1 : 0;
  Array<int> first_row = Array<int>::staging(stream, lines + 1);
  std::vector<int> points, lines_of;
  for (int s = 0; s < lines; ++s) {
    first_row[s] = static_cast<int>(points.size());
    for (int i = first[s]; i < first[s + 1]; i += every) {
      points.push_back(i);
      lines_of.push_back(s);
    }
  }
  const int rows = first_row[lines] = static_cast<int>(points.size());
  Array<int> point_of_row = Array<int>::staging(stream, rows), line_of_row = Array<int>::staging(stream, rows);
  std::copy(points.begin(), points.end(), point_of_row.begin());
  std::copy(lines_of.begin(), lines_of.end(), line_of_row.begin());
  first_row_ = Array<int>(stream, lines + 1);
  point_of_row_ = Array<int>(stream, rows);
  copy<int>(stream, first_row.view(), first_row_.view());
  copy<int>(stream, point_of_row.view(), point_of_row_.view());
  line_of_row_ = Array<int>(stream, rows);
  copy<int>(stream, line_of_row.view(), line_of_row_.view());
  samples_ = Image<float>(stream, rows, most_columns);
  moves_ = Image<std::int8_t>(stream, rows, most_columns);
  highest_ = Array<float>(stream, rows);
  rough_ = Array<float>(stream, rows);
  stream.synchronize();
}

void find_ridge_paths(const Stream& stream, const RidgeImage& image, ArrayView<const int> first, ArrayView<const CrossSection> lines,
                      const RidgePathOptions& options, RidgePathScratch& scratch, ArrayView<CrossPeak> peaks) {
  require(options.search_px > 0, "find_ridge_paths: search_px must be positive");
  require(image.pixel_px > 0, "find_ridge_paths: pixel_px must be positive");
  require(image.scale_px.data == nullptr || same_size(image.values, image.scale_px),
          "find_ridge_paths: values and scale_px differ in size");
  require(image.pixel_px == 1 || image.per_scale, "find_ridge_paths: a coarser image must be per scale");
  require(peaks.size == lines.size, "find_ridge_paths: peaks must have one element per point");
  require(first.size == scratch.lines() + 1, "find_ridge_paths: the scratch is for other lines");
  const int half_count = std::clamp(static_cast<int>(std::ceil(options.search_px / sample_step_px)), 1, max_half_count);
  const float step_px = options.search_px / static_cast<float>(half_count);
  // One more sample at each end, so that a maximum at the end of the search can be told from a slope.
  const int rows = scratch.samples_.height(), width = 2 * (half_count + 1) + 1;
  if (rows == 0) return;
  require(image.values.height > 0 && image.values.width > 0, "find_ridge_paths: the image is empty");
  const ImageView<float> samples = scratch.samples_.view().part(0, 0, rows, width);
  const ArrayView<const int> points = scratch.point_of_row_.view();
  const int together = stream.on_cuda() ? 1 : width;
  const Reading reading = image.pixel_px > 1                        ? Reading::between
                          : image.scale_px.data && !image.per_scale ? Reading::nearest_divided
                                                                    : Reading::nearest;
  for_each_item(
      stream, rows * ((width + together - 1) / together),
      SearchRidges{image.values, image.scale_px, reading, lines, points, step_px / image.pixel_px, samples, together, 1 / image.pixel_px},
      64);
  for_each_tile(stream, scratch.lines(), 1,
                FindPaths{scratch.first_row_.view(), first, samples, step_px, options.stiffness * step_px * step_px, options.minimum_z,
                          scratch.moves_.view(), scratch.highest_.view(), scratch.rough_.view(), peaks});
  locate_peaks_across(stream, image.values, image.scale_px, lines, fine_step_px, peaks,
                      {.least_value = options.minimum_z, .divided = image.per_scale, .pixel_px = image.pixel_px, .which = points});
  for_each_item(stream, rows, FillPeaks{first, scratch.line_of_row_.view(), scratch.point_of_row_.view(), peaks}, 1024);
}

void reject_lone_peaks(const Stream& stream, ArrayView<const int> first, ArrayView<CrossPeak> peaks, ArrayView<int> list) {
  require(list.size == peaks.size, "reject_lone_peaks: list must have one element per point");
  for_each_tile(stream, first.size - 1, 1, RejectLonePeaks{first, peaks, list});
}

void move_to_peaks(const Stream& stream, ArrayView<const int> first, ArrayView<const CrossSection> lines, ArrayView<const CrossPeak> peaks,
                   float least_share, ArrayView<int> list, ArrayView<int> rank, ArrayView<float> offsets, ArrayView<CrossSection> moved,
                   ArrayView<std::int32_t> found) {
  require(peaks.size == lines.size && moved.size == lines.size, "move_to_peaks: lines, peaks and moved differ in size");
  require(list.size == lines.size && rank.size == lines.size && offsets.size == lines.size,
          "move_to_peaks: the scratch must have one element per point");
  require(found.size == first.size - 1, "move_to_peaks: found must have one element per line");
  for_each_tile(stream, first.size - 1, 1, MoveToPeaks{first, lines, peaks, least_share, list, rank, offsets, moved, found});
}

}  // namespace cinelumen
