#include "warp_registration.h"

#include <array>
#include <cmath>
#include <utility>

#include "bspline_tile.h"
#include "frame_source.h"
#include "registration_pyramid.h"
#include "registration_tile.h"
#include "tile.h"

namespace cinelumen {
namespace {

using namespace registration;

constexpr int least_extent_px = 64;
constexpr int unused_border_px = 4;
constexpr int components = 3;  // y, x and brightness
// What a displacement's and the brightness's second differences are believed to be between nodes 16 px apart, one SD; between nodes
// further apart by the power 1.5: more than what is rough from node to node, less than what is smooth.
constexpr float bend_sd_px = 0.025f, bend_sd_brightness = 0.0003f;
constexpr float displacement_sd_px = 3;  // the rigid motion has taken the rest
constexpr float brightness_sd = 0.1f;
constexpr float position_sd_px = 0.03f;  // of a place in the mask, by interpolation: no edge tells more
// Noise of the smoothed frame two pixels apart is not independent: what the normal equations promise is that much too good.
constexpr float noise_correlation = 2.7f;
constexpr float most_above = 0.4f;         // of a cell: more is contrast, not background
constexpr float least_determinant = 0.3f;  // below, the field folds
constexpr float least_sigma = 1e-5f;

// Sums over a cell.
enum Sum { of_yy, of_yx, of_xx, of_yb, of_xb, of_bb, of_ry, of_rx, of_rb, of_below_square, of_below, of_above, of_known, cell_sums };
constexpr int system_sums = of_rb + 1;

/// One frame's estimation in progress.
struct WarpState {
  InverseMotion inverse;  // full resolution, without padding
  float sigma;            // of the residual where nothing moved and nothing was added
  bool usable;
};

/// A lattice and what solving for it needs. Planes of a component stand one above the other.
struct Stage {
  int spacing_px, rows, columns;                                // nodes
  int cell_rows, cell_columns;                                  // of spacing_px
  ImageView<float> values;                                      // coefficients of the field
  ImageView<float> step, residual, direction, image, diagonal;  // of the conjugate gradients
  ImageView<float> along_x, of_cells;                           // nodes by cells, cells
  ImageView<float> bend_xx, bend_yy, bend_xy;                   // with a border of zeros
  ImageView<float> system;                                      // system_sums planes of cells
};

/// Weights with which the four nodes around a cell's middle are seen from there: of all cells the same.
struct CellTaps {
  float weight[4];
};

CINELUMEN_HOST_DEVICE inline float bend_information(int component, int spacing_px) {
  const float wider = static_cast<float>(spacing_px / field_spacing_px), sd = component < 2 ? bend_sd_px : bend_sd_brightness;
  return 1 / (sd * sd * wider * wider * wider);
}
CINELUMEN_HOST_DEVICE inline float size_information(int component) {
  const float sd = component < 2 ? displacement_sd_px : brightness_sd;
  return 1 / (sd * sd);
}

/// To be read only, on either machine.
CINELUMEN_HOST_DEVICE inline ImageView<const float> readable(const ImageView<float>& view) {
  return {view.data, view.height, view.width, view.pitch};
}

// ------------------------------------------------------------------ the linear system of one step

/// image = (sum over cells of taps' H taps + prior) p, for all components.
template <class Block>
CINELUMEN_HOST_DEVICE void apply(const Block& block, const Stage& s, const CellTaps& taps, ImageView<const float> p) {
  const int rows = s.rows, columns = s.columns, cell_rows = s.cell_rows, cell_columns = s.cell_columns;
  const float t0 = taps.weight[0], t1 = taps.weight[1], t2 = taps.weight[2], t3 = taps.weight[3];
  block.for_each_pixel(components * rows, cell_columns, [&](int y, int x) {
    const float* in = p.row(y) + x;
    s.along_x.row(y)[x] = (t0 * in[0] + t1 * in[1]) + (t2 * in[2] + t3 * in[3]);
  });
  for (int c = 0; c < components; ++c)
    block.for_each_pixel(rows, columns, [&](int j, int i) {
      const float* in = p.row(c * rows + j) + i;
      const int at = c * (rows + 2) + j + 1;
      if (i > 0 && i + 1 < columns) s.bend_xx.row(at)[i + 1] = in[-1] - 2 * in[0] + in[1];
      if (j > 0 && j + 1 < rows) s.bend_yy.row(at)[i + 1] = in[-p.pitch] - 2 * in[0] + in[p.pitch];
      if (i + 1 < columns && j + 1 < rows) s.bend_xy.row(at)[i + 1] = (in[p.pitch + 1] - in[p.pitch]) - (in[1] - in[0]);
    });
  block.for_each_pixel(cell_rows, cell_columns, [&](int y, int x) {
    float seen[components];
    for (int c = 0; c < components; ++c) {
      const float* in = s.along_x.row(c * rows + y) + x;
      seen[c] = (t0 * in[0] + t1 * in[s.along_x.pitch]) + (t2 * in[2 * s.along_x.pitch] + t3 * in[3 * s.along_x.pitch]);
    }
    const auto h = [&](Sum which) { return s.system.row(which * cell_rows + y)[x]; };
    s.of_cells.row(y)[x] = h(of_yy) * seen[0] + h(of_yx) * seen[1] + h(of_yb) * seen[2];
    s.of_cells.row(cell_rows + y)[x] = h(of_yx) * seen[0] + h(of_xx) * seen[1] + h(of_xb) * seen[2];
    s.of_cells.row(2 * cell_rows + y)[x] = h(of_yb) * seen[0] + h(of_xb) * seen[1] + h(of_bb) * seen[2];
  });
}

/// to = taps' transposed of the planes of cells `from`, for one component or three.
template <class Block>
CINELUMEN_HOST_DEVICE void spread_cells(const Block& block, const Stage& s, const CellTaps& taps, ImageView<const float> from,
                                        ImageView<float> to) {
  for (int c = 0; c < components; ++c) {
    // Nodes 3 to the last but 3 are seen by four cells; at the ends by fewer.
    block.for_each_pixel(s.rows, s.cell_columns, [&](int j, int x) {
      float sum = 0;
      for (int k = 0; k < 4; ++k) {
        const int cell = j - k;
        if (cell >= 0 && cell < s.cell_rows) sum += taps.weight[k] * from.row(c * s.cell_rows + cell)[x];
      }
      s.along_x.row(c * s.rows + j)[x] = sum;
    });
    block.for_each_pixel(s.rows, s.columns, [&](int j, int i) {
      const float* in = s.along_x.row(c * s.rows + j) + i;
      float sum = 0;
      for (int k = 0; k < 4; ++k) sum += i >= k && i - k < s.cell_columns ? taps.weight[k] * in[-k] : 0.0f;
      to.row(c * s.rows + j)[i] = sum;
    });
  }
}

/// image += the prior's part of p, whose bends apply() has left.
template <class Block>
CINELUMEN_HOST_DEVICE void add_prior(const Block& block, const Stage& s, ImageView<const float> p) {
  for (int c = 0; c < components; ++c) {
    const float bend = bend_information(c, s.spacing_px), size = size_information(c);
    block.for_each_pixel(s.rows, s.columns, [&](int j, int i) {
      const int at = c * (s.rows + 2) + j + 1;
      const float *xx = s.bend_xx.row(at) + i + 1, *yy = s.bend_yy.row(at) + i + 1, *xy = s.bend_xy.row(at) + i + 1;
      const std::ptrdiff_t up = s.bend_yy.pitch;
      const float sum = (xx[-1] - 2 * xx[0] + xx[1]) + (yy[-up] - 2 * yy[0] + yy[up]) + 2 * ((xy[0] - xy[-1]) - (xy[-up] - xy[-up - 1]));
      const int row = c * s.rows + j;
      s.image.row(row)[i] += bend * sum + size * p.row(row)[i];
    });
  }
}

/// All of the system's left side: image = A p.
template <class Block>
CINELUMEN_HOST_DEVICE void multiply(const Block& block, const Stage& s, const CellTaps& taps, ImageView<const float> p) {
  apply(block, s, taps, p);
  spread_cells(block, s, taps, readable(s.of_cells), s.image);
  add_prior(block, s, p);
}

/// Preconditioned conjugate gradients from zero: step becomes the solution for the right side that stands in `residual`.
template <class Block>
CINELUMEN_HOST_DEVICE void solve(const Block& block, const Stage& s, const CellTaps& taps, int iterations, SumLanes<2>& lanes) {
  const int rows = components * s.rows, columns = s.columns;
  // The diagonal: squared taps of the information, and the prior's own.
  const CellTaps squared{
      {taps.weight[0] * taps.weight[0], taps.weight[1] * taps.weight[1], taps.weight[2] * taps.weight[2], taps.weight[3] * taps.weight[3]}};
  block.for_each_pixel(s.cell_rows, s.cell_columns, [&](int y, int x) {
    s.of_cells.row(y)[x] = s.system.row(of_yy * s.cell_rows + y)[x];
    s.of_cells.row(s.cell_rows + y)[x] = s.system.row(of_xx * s.cell_rows + y)[x];
    s.of_cells.row(2 * s.cell_rows + y)[x] = s.system.row(of_bb * s.cell_rows + y)[x];
  });
  spread_cells(block, s, squared, readable(s.of_cells), s.diagonal);
  block.for_each_pixel(rows, columns, [&](int y, int x) {
    const int c = y / s.rows;
    constexpr float bends = 6 + 6 + 8;  // squares of the second differences' weights on a node
    const float inverse = 1 / (s.diagonal.row(y)[x] + bends * bend_information(c, s.spacing_px) + size_information(c));
    s.diagonal.row(y)[x] = inverse;
    s.step.row(y)[x] = 0;
    s.direction.row(y)[x] = inverse * s.residual.row(y)[x];
  });
  const auto residual_product = [&] {
    return block
        .sum_pixels(rows, columns, lanes,
                    [&](int y, int x) {
                      const float r = s.residual.row(y)[x];
                      return Sums<2>{{r * r * s.diagonal.row(y)[x], 0.0f}};
                    })
        .value[0];
  };
  float now = residual_product();
  for (int k = 0; k < iterations && now > 0; ++k) {
    multiply(block, s, taps, readable(s.direction));
    const float along =
        block.sum_pixels(rows, columns, lanes,
                         [&](int y, int x) {
                           return Sums<2>{{s.direction.row(y)[x] * s.image.row(y)[x], 0.0f}};
                         })
            .value[0];
    if (!(along > 0)) break;
    const float alpha = now / along;
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      s.step.row(y)[x] += alpha * s.direction.row(y)[x];
      s.residual.row(y)[x] -= alpha * s.image.row(y)[x];
    });
    const float before = now;
    now = residual_product();
    const float beta = now / before;
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      s.direction.row(y)[x] = s.diagonal.row(y)[x] * s.residual.row(y)[x] + beta * s.direction.row(y)[x];
    });
  }
}

// ------------------------------------------------------------------ sums over cells, and what follows them

enum class Task { measure, step, judge };

/// What happens once all cells are summed.
struct Between {
  Task task;
  int iterations;   // of the conjugate gradients
  float first_tap;  // where a cell's middle lies beyond its first node, in spacings
  Stage stage;
  ImageView<float> refined;  // the next stage's values; without data: none follows
  int refined_rows;
  ImageView<float> sums, inverse_scale, scale_along_x;
  int cell_rows, cell_columns;  // of 16 px
  ImageView<float> to_mask;
  ArrayView<float> of_rows;  // scratch, a number per row of nodes
  ArrayView<WarpEstimate> estimate;

  struct Scratch {
    union {
      Sample sample;
      SumLanes<4> four;
      SumLanes<2> two;
    };
  };

  template <class Block>
  CINELUMEN_HOST_DEVICE void operator()(const Block& block, WarpState& state, Scratch& scratch) const {
    if (task == Task::measure) measure_sigma(block, state, scratch.sample);
    if (!state.usable) {
      if (task == Task::judge) refuse(block, WarpEstimate{});
      return;
    }
    if (task == Task::judge) {
      judge(block, state, scratch);
      return;
    }
    update_scale(block, state);
    if (task != Task::step) return;
    make_system(block, state);
    CellTaps taps;
    bspline_weights(first_tap, taps.weight[0], taps.weight[1], taps.weight[2], taps.weight[3]);
    // The right side: what the residual says, less what the prior holds against where the field stands.
    multiply_prior_of_values(block, taps);
    solve(block, stage, taps, iterations, scratch.two);
    block.for_each_pixel(components * stage.rows, stage.columns, [&](int y, int x) { stage.values.row(y)[x] += stage.step.row(y)[x]; });
    if (refined.data) refine(block);
  }

 private:
  CINELUMEN_HOST_DEVICE float sum(Sum which, int y, int x) const { return sums.row(which * cell_rows + y)[x]; }

  /// One over the variance of a cell's residuals, as far as they are independent.
  CINELUMEN_HOST_DEVICE float cell_information(const WarpState& state, int y, int x) const {
    const float own = inverse_scale.row(y)[x], usual = 1 / state.sigma, inverse = own < usual ? own : usual;
    return inverse * inverse / noise_correlation;
  }

  /// The usual scale of what lies below zero: the median over cells.
  template <class Block>
  CINELUMEN_HOST_DEVICE void measure_sigma(const Block& block, WarpState& state, Sample& sample) const {
    int spacing = 1;
    while (((cell_rows + spacing - 1) / spacing) * ((cell_columns + spacing - 1) / spacing) > most_samples) ++spacing;
    const int rows = (cell_rows + spacing - 1) / spacing, columns = (cell_columns + spacing - 1) / spacing;
    std::int32_t* const key = sample.key;
    block.for_each_pixel(rows, columns, [&](int j, int i) {
      const float count = sum(of_below, j * spacing, i * spacing), square = sum(of_below_square, j * spacing, i * spacing);
      key[j * columns + i] = order_key(count >= 2 ? square / count : unknown);
    });
    const int known = known_keys(block, sample, rows * columns);
    const float square = known > 0 ? from_order_key(key_of_rank(block, sample, rows * columns, known / 2)) : 0;
    block.once([&] {
      state.usable = state.usable && known > 0;
      const float sigma = std::sqrt(square);
      state.sigma = sigma > least_sigma ? sigma : least_sigma;
    });
  }

  /// Each cell's own scale, from what lies below zero there and in its neighbours.
  template <class Block>
  CINELUMEN_HOST_DEVICE void update_scale(const Block& block, const WarpState& state) const {
    constexpr float believed = 4;  // pixels that the usual scale counts for
    const float usual = state.sigma * state.sigma;
    const auto square = [&](int y, int x) { return (sum(of_below_square, y, x) + believed * usual) / (sum(of_below, y, x) + believed); };
    block.for_each_pixel(cell_rows, cell_columns, [&](int y, int x) {
      const int a = x > 0 ? x - 1 : 0, b = x + 1 < cell_columns ? x + 1 : x;
      scale_along_x.row(y)[x] = 0.25f * (square(y, a) + square(y, b)) + 0.5f * square(y, x);
    });
    block.for_each_pixel(cell_rows, cell_columns, [&](int y, int x) {
      const int a = y > 0 ? y - 1 : 0, b = y + 1 < cell_rows ? y + 1 : y;
      const float s2 = 0.25f * (scale_along_x.row(a)[x] + scale_along_x.row(b)[x]) + 0.5f * scale_along_x.row(y)[x];
      inverse_scale.row(y)[x] = 1 / std::sqrt(s2 > 0.7f * usual ? s2 : 0.7f * usual);
    });
  }

  /// Cells of the stage's spacing from those of 16 px, in units of information.
  template <class Block>
  CINELUMEN_HOST_DEVICE void make_system(const Block& block, const WarpState& state) const {
    const int times = stage.spacing_px / field_spacing_px;
    block.for_each_pixel(stage.cell_rows, stage.cell_columns, [&](int y, int x) {
      float total[system_sums] = {};
      for (int j = y * times; j < y * times + times && j < cell_rows; ++j)
        for (int i = x * times; i < x * times + times && i < cell_columns; ++i) {
          const float known = sum(of_known, j, i);
          if (!(known > 0) || sum(of_above, j, i) > most_above * known) continue;
          // What fits badly, for whatever reason, tells little.
          const float information = cell_information(state, j, i);
          for (int k = 0; k < system_sums; ++k) total[k] += information * sums.row(k * cell_rows + j)[i];
        }
      for (int k = 0; k < system_sums; ++k) stage.system.row(k * stage.cell_rows + y)[x] = total[k];
    });
  }

  template <class Block>
  CINELUMEN_HOST_DEVICE void multiply_prior_of_values(const Block& block, const CellTaps& taps) const {
    const Stage& s = stage;
    apply(block, s, taps, readable(s.values));  // for the bends
    block.for_each_pixel(components * s.rows, s.columns, [&](int y, int x) { s.image.row(y)[x] = 0; });
    add_prior(block, s, readable(s.values));
    // of_ry, of_rx and of_rb follow one another as the components do.
    const ImageView<const float> right{s.system.row(of_ry * s.cell_rows), components * s.cell_rows, s.cell_columns, s.system.pitch};
    spread_cells(block, s, taps, right, s.residual);
    block.for_each_pixel(components * s.rows, s.columns, [&](int y, int x) { s.residual.row(y)[x] -= s.image.row(y)[x]; });
  }

  /// The same field on a lattice twice as fine: exactly.
  template <class Block>
  CINELUMEN_HOST_DEVICE void refine(const Block& block) const {
    const int rows = stage.rows, columns = stage.columns;
    block.for_each_pixel(components * refined_rows, refined.width, [&](int row, int i) {
      const int c = row / refined_rows, j = row - c * refined_rows;
      const auto tap = [](int k, int n, int from[3], float weight[3]) {
        // Fine node k lies at (k - 1) / 2 + 1 of the coarse ones.
        const int at = (k - 1 + 2) / 2;
        const bool on = ((k - 1) & 1) == 0;
        from[0] = clamp_int(on ? at - 1 : at, 0, n - 1);
        from[1] = clamp_int(on ? at : at + 1, 0, n - 1);
        from[2] = clamp_int(at + 1, 0, n - 1);
        weight[0] = on ? 0.125f : 0.5f;
        weight[1] = on ? 0.75f : 0.5f;
        weight[2] = on ? 0.125f : 0.0f;
      };
      int y[3], x[3];
      float wy[3], wx[3], value = 0;
      tap(j, rows, y, wy);
      tap(i, columns, x, wx);
      for (int a = 0; a < 3; ++a) {
        const float* in = stage.values.row(c * rows + y[a]);
        value += wy[a] * (wx[0] * in[x[0]] + wx[1] * in[x[1]] + wx[2] * in[x[2]]);
      }
      refined.row(row)[i] = value;
    });
  }

  template <class Block>
  CINELUMEN_HOST_DEVICE void refuse(const Block& block, const WarpEstimate& why) const {
    block.for_each_pixel(to_mask.height, to_mask.width, [&](int y, int x) { to_mask.row(y)[x] = 0; });
    block.once([&] { estimate[0] = why; });
  }

  /// What the field is worth, and the field itself.
  template <class Block>
  CINELUMEN_HOST_DEVICE void judge(const Block& block, const WarpState& state, Scratch& scratch) const {
    // A cell's gradient g = H u + noise of variance H: u's mean square without what noise alone would show.
    const Sums<4> left = block.sum_pixels(cell_rows, cell_columns, scratch.four, [&](int y, int x) {
      const float known = sum(of_known, y, x), share = known > 0 ? sum(of_above, y, x) / known : 1.0f;
      const bool use = share <= most_above;
      const float information = cell_information(state, y, x), noise = 1 / information;
      const float ry = sum(of_ry, y, x), rx = sum(of_rx, y, x), yy = sum(of_yy, y, x), yx = sum(of_yx, y, x), xx = sum(of_xx, y, x);
      const float weight = information * information;
      return Sums<4>{{use ? weight * (ry * ry + rx * rx - noise * (yy + xx)) : 0.0f,
                      use ? weight * (yy * yy + 2 * yx * yx + xx * xx) : 0.0f, 0.0f, 0.0f}};
    });
    const int rows = stage.rows, nodes_y = rows - 3, nodes_x = stage.columns - 3;
    const auto at = [&](int c, int j, int i) { return stage.values.row(c * rows + j)[i]; };
    const auto smooth_y = [&](int c, int j, int i) { return (at(c, j - 1, i) + 4 * at(c, j, i) + at(c, j + 1, i)) / 6; };
    const auto smooth_x = [&](int c, int j, int i) { return (at(c, j, i - 1) + 4 * at(c, j, i) + at(c, j, i + 1)) / 6; };
    const float per_px = 0.5f / static_cast<float>(stage.spacing_px);
    const auto slope_y = [&](int c, int j, int i) { return per_px * (smooth_x(c, j + 1, i) - smooth_x(c, j - 1, i)); };
    const auto slope_x = [&](int c, int j, int i) { return per_px * (smooth_y(c, j, i + 1) - smooth_y(c, j, i - 1)); };
    const auto size2 = [&](int j, int i) {
      float v[2];
      for (int c = 0; c < 2; ++c) v[c] = (smooth_y(c, j, i - 1) + 4 * smooth_y(c, j, i) + smooth_y(c, j, i + 1)) / 6;
      return v[0] * v[0] + v[1] * v[1];
    };
    const Sums<4> spread = block.sum_pixels(nodes_y, nodes_x, scratch.four, [&](int y, int x) {
      return Sums<4>{{size2(y + 1, x + 1), 1.0f, 0.0f, 0.0f}};
    });
    const float cosine = state.inverse.cosine, sine = state.inverse.sine;
    block.for_each_pixel(1, nodes_y, [&](int, int y) {
      float least = 1e30f, largest = 0;
      for (int x = 0; x < nodes_x; ++x) {
        const int j = y + 1, i = x + 1;
        const float determinant =
            (cosine + slope_y(0, j, i)) * (cosine + slope_x(1, j, i)) - (slope_x(0, j, i) - sine) * (slope_y(1, j, i) + sine);
        const float size = size2(j, i);
        least = determinant < least ? determinant : least;
        largest = size > largest ? size : largest;
      }
      of_rows[2 * y] = least;
      of_rows[2 * y + 1] = largest;
    });
    float least = 1e30f, largest = 0;
    for (int y = 0; y < nodes_y; ++y) {
      least = of_rows[2 * y] < least ? of_rows[2 * y] : least;
      largest = of_rows[2 * y + 1] > largest ? of_rows[2 * y + 1] : largest;
    }
    WarpEstimate result;
    result.usable = 1;
    result.least_determinant = least;
    result.largest_px = std::sqrt(largest);
    result.rms_px = std::sqrt(spread.value[0] / spread.value[1]);
    result.residual_px = left.value[1] > 0 && left.value[0] > 0 ? std::sqrt(2 * left.value[0] / left.value[1]) : 0;
    result.folded = least < least_determinant ? 1 : 0;
    if (result.folded) {
      refuse(block, result);
      return;
    }
    block.for_each_pixel(to_mask.height, to_mask.width, [&](int y, int x) { to_mask.row(y)[x] = stage.values.row(y)[x]; });
    block.once([&] { estimate[0] = result; });
  }
};

/// Normal equations and scales of every cell, at the field as it stands; then what follows.
struct CellEquations {
  ImageView<const float> frame, coefficients;  // every second pixel of the frame; padded plane of the mask
  Between between;
  ArrayView<WarpState> state;

  using CpuTile = TileShape<8, 64>;
  using CudaTile = CpuTile;
  static constexpr int cell_side = field_spacing_px / 2;  // grid pixels
  static constexpr int most_nodes = CpuTile::width / cell_side + 5;

  template <int Height, int Width>
  struct Scratch {
    struct Equations {
      Tile<float, components * Height, most_nodes> along_y;
      Tile<float, Height, Width> position_y, position_x, value, residual, slope_y, slope_x;
      Tile<float, cell_sums*(Height / cell_side), Width> of_columns;
    };
    union {
      Equations equations;
      Between::Scratch between;
    };
  };

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& memory) const {
    auto& scratch = memory.equations;
    const int rows = block.rows(frame.height), columns = block.columns(frame.width);
    const Stage& stage = between.stage;
    constexpr float grid = 2;
    const float nodes_per_px = 1.0f / static_cast<float>(stage.spacing_px);
    const int first_node = lattice_position(static_cast<float>(block.x0) * grid, nodes_per_px, stage.columns).first;
    const int nodes =
        lattice_position(static_cast<float>(block.x0 + columns - 1) * grid, nodes_per_px, stage.columns).first + 4 - first_node;
    block.for_each_pixel(components * rows, nodes, [&](int row, int k) {
      const int c = row / rows, y = row - c * rows;
      const LatticePosition at = lattice_position(static_cast<float>(block.y0 + y) * grid, nodes_per_px, stage.rows);
      float w[4];
      bspline_weights(at.fraction, w[0], w[1], w[2], w[3]);
      float sum = 0;
      for (int j = 0; j < 4; ++j) sum += w[j] * stage.values.row(c * stage.rows + at.first + j)[first_node + k];
      scratch.along_y[c * Height + y][k] = sum;
    });
    const InverseMotion inverse = state[0].inverse;
    const float last_y = static_cast<float>(coefficients.height) - 3.0f, last_x = static_cast<float>(coefficients.width) - 3.0f;
    const int y0 = block.y0, x0 = block.x0, lattice_columns = stage.columns;
    // Whole strips: what lies beyond the last column is thrown away.
    const int strips = (columns + bspline_strip - 1) / bspline_strip;
    // Pieces of a row whose pixels see the same nodes.
    constexpr int piece = on_device ? 1 : cell_side;
    block.for_each_pixel(rows, strips * bspline_strip / piece, [&](int y, int part) {
      const int from = part * piece;
      const float q_y = static_cast<float>(y0 + y) * grid, first_x = static_cast<float>(x0 + from) * grid;
      const LatticePosition at = lattice_position(first_x, nodes_per_px, lattice_columns);
      const int k = at.first - first_node;
      const float* __restrict c0 = scratch.along_y[y] + k, * __restrict c1 = scratch.along_y[Height + y] + k;
      const float* __restrict c2 = scratch.along_y[2 * Height + y] + k;
      const float base_y = inverse.origin_y + inverse.cosine * q_y + padding, base_x = inverse.origin_x + inverse.sine * q_y + padding;
      const float a0 = c0[0], a1 = c0[1], a2 = c0[2], a3 = c0[3], b0 = c1[0], b1 = c1[1], b2 = c1[2], b3 = c1[3];
      const float d0 = c2[0], d1 = c2[1], d2 = c2[2], d3 = c2[3];
      float* __restrict const to_y = scratch.position_y[y] + from;
      float* __restrict const to_x = scratch.position_x[y] + from;
      float* __restrict const to = scratch.residual[y] + from;
#pragma GCC ivdep
      for (int i = 0; i < piece; ++i) {
        const float q_x = first_x + grid * static_cast<float>(i);
        float v0, v1, v2, v3;
        bspline_weights(at.fraction + grid * nodes_per_px * static_cast<float>(i), v0, v1, v2, v3);
        const float p_y = base_y - inverse.sine * q_x + ((v0 * a0 + v1 * a1) + (v2 * a2 + v3 * a3));
        const float p_x = base_x + inverse.cosine * q_x + ((v0 * b0 + v1 * b1) + (v2 * b2 + v3 * b3));
        // What lies off the mask lies on its border of NaN.
        const float low_y = p_y > 1.0f ? p_y : 1.0f, low_x = p_x > 1.0f ? p_x : 1.0f;
        to_y[i] = low_y < last_y ? low_y : last_y;
        to_x[i] = low_x < last_x ? low_x : last_x;
        to[i] = (v0 * d0 + v1 * d1) + (v2 * d2 + v3 * d3);
      }
    });
    block.for_each_pixel(rows, strips, [&](int y, int strip) {
      const int x = strip * bspline_strip;
      evaluate_positions<2, true, BSpline>(coefficients, scratch.position_y[y] + x, scratch.position_x[y] + x, scratch.value[y] + x,
                                           scratch.slope_y[y] + x, scratch.slope_x[y] + x);
    });
    block.for_each_pixel(rows, columns, [&](int y, int x) {
      scratch.residual[y][x] = frame.row(y0 + y)[x0 + x] - scratch.value[y][x] - scratch.residual[y][x];
    });
    // Rows beyond the image say nothing: a constant number of them goes into each cell.
    block.for_each_pixel(Height - rows, columns, [&](int y, int x) { scratch.residual[rows + y][x] = unknown; });
    sum_cells(block, scratch, rows, columns);
  }

  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void finish(Block<Height, Width> block, Scratch<Height, Width>& memory) const {
    between(block, *state.data, memory.between);
  }

 private:
  /// Down the columns of each cell, then across them.
  template <int Height, int Width, class Memory>
  CINELUMEN_HOST_DEVICE void sum_cells(const Block<Height, Width>& block, Memory& scratch, int rows, int columns) const {
    constexpr int cells_down = Height / cell_side;
    const int first_row = block.y0 / cell_side, first_column = block.x0 / cell_side;
    for (int cell = 0; cell < cells_down; ++cell) {
      const int top = cell * cell_side;
      if (top >= rows) break;
      constexpr float blur = position_sd_px * position_sd_px;
      const float* const scale = between.inverse_scale.row(first_row + cell) + first_column;
      block.for_each_pixel(1, columns, [&](int, int x) {
        float sum[cell_sums] = {};
        const float inverse = scale[static_cast<unsigned>(x) / cell_side];
        const float above = inverse * static_cast<float>(1 / cut_above), below = inverse * static_cast<float>(1 / cut_below);
        CINELUMEN_UNROLL
        for (int j = 0; j < cell_side; ++j) {
          const int y = top + j;
          const float r = scratch.residual[y][x];
          const float u = r * (r > 0.0f ? above : below), t = 1.0f - u * u;
          const bool known = t == t, use = t > 0.0f, low = r < 0.0f;
          const float my = use ? scratch.slope_y[y][x] : 0.0f, mx = use ? scratch.slope_x[y][x] : 0.0f, e = use ? r : 0.0f;
          const float w = use ? t * t / (1.0f + blur * inverse * inverse * (my * my + mx * mx)) : 0.0f;
          const float wy = w * my, wx = w * mx;
          sum[of_yy] += wy * my;
          sum[of_yx] += wy * mx;
          sum[of_xx] += wx * mx;
          sum[of_yb] += wy;
          sum[of_xb] += wx;
          sum[of_bb] += w;
          sum[of_ry] += wy * e;
          sum[of_rx] += wx * e;
          sum[of_rb] += w * e;
          sum[of_below_square] += low ? r * r : 0.0f;
          sum[of_below] += low ? 1.0f : 0.0f;
          sum[of_above] += known & !use & !low ? 1.0f : 0.0f;
          sum[of_known] += known ? 1.0f : 0.0f;
        }
        for (int k = 0; k < cell_sums; ++k) scratch.of_columns[cell * cell_sums + k][x] = sum[k];
      });
    }
    const int cells_across = (columns + cell_side - 1) / cell_side, down = (rows + cell_side - 1) / cell_side;
    block.for_each_pixel(cell_sums * down, cells_across, [&](int row, int c) {
      const int cell = row / cell_sums, k = row - cell * cell_sums;
      float sum = 0;
      for (int x = c * cell_side; x < c * cell_side + cell_side && x < columns; ++x) sum += scratch.of_columns[row][x];
      between.sums.row(k * between.cell_rows + first_row + cell)[first_column + c] = sum;
    });
  }
};

/// The state before the first round. One tile.
struct Begin {
  ArrayView<const FramePlacement> placement;
  int height, width;
  ImageView<float> values, inverse_scale;
  ArrayView<WarpState> state;

  using CpuTile = TileShape<1, 1>;
  using CudaTile = CpuTile;
  template <int Height, int Width>
  struct Scratch {};
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>&) const {
    block.once([&] {
      const FramePlacement now = placement[0];
      state[0].inverse =
          invert(now.motion.shift_y_px, now.motion.shift_x_px, now.motion.rotation_rad, (height - 1) / 2.0, (width - 1) / 2.0, 1);
      state[0].usable = true;
      state[0].sigma = 1;
    });
    const float offset = placement[0].offset;
    const int rows = values.height / components;
    block.for_each_pixel(values.height, values.width, [&](int y, int x) { values.row(y)[x] = y >= 2 * rows ? offset : 0.0f; });
    block.for_each_pixel(inverse_scale.height, inverse_scale.width, [&](int y, int x) { inverse_scale.row(y)[x] = 1; });
  }
};

/// e at the nodes: p + e(p) = R^-1 q where R^-1 q + d(q) = p.
struct Invert {
  DisplacementField to_mask;
  ArrayView<const FramePlacement> placement;
  int height, width, rows;
  ImageView<float> at_nodes;

  using CpuTile = TileShape<16, 64>;
  using CudaTile = TileShape<16, 32>;
  template <int Height, int Width>
  struct Scratch {
    ForwardMotion motion;
  };
  template <int Height, int Width>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Width> block, Scratch<Height, Width>& scratch) const {
    block.once([&] { scratch.motion = forward(placement[0].motion, height, width); });
    const ForwardMotion motion = scratch.motion;
    block.for_each_pixel(block.rows(rows), block.columns(at_nodes.width), [&](int y, int x) {
      const int j = block.y0 + y, i = block.x0 + x;
      const float p_y = static_cast<float>((j - 1) * field_spacing_px), p_x = static_cast<float>((i - 1) * field_spacing_px);
      Displacement e{0, 0};
      constexpr int rounds = 12;  // displacements change by a fifth of a pixel per pixel at most times
      for (int k = 0; k < rounds; ++k) {
        const float at_y = p_y + e.y, at_x = p_x + e.x;
        const Displacement d = displacement_at(to_mask, motion.y(at_y, at_x), motion.x(at_y, at_x));
        e = {-d.y, -d.x};
      }
      at_nodes.row(j)[i] = e.y;
      at_nodes.row(rows + j)[i] = e.x;
    });
  }
};

struct WarpRound {
  int stage;
  Task task;
};
// All on the finest grid: on a decimated one aliasing looks like motion, and what no edge contradicts would stay.
constexpr WarpRound rounds[] = {{0, Task::measure}, {0, Task::step}, {0, Task::step}, {1, Task::step},
                                {1, Task::step},    {2, Task::step}, {2, Task::step}, {2, Task::judge}};
constexpr int stage_count = 3;
constexpr int spacing_of[stage_count] = {64, 32, 16};
constexpr int iterations_of[stage_count] = {24, 24, 30};
static_assert(spacing_of[stage_count - 1] == field_spacing_px);

int cells_along(int extent_px, int spacing_px) { return (extent_px + spacing_px - 1) / spacing_px; }

}  // namespace

struct WarpRegistration::Mask {
  int height = 0, width = 0;
  Image<float> coefficients;  // padded, of the smoothed mask
  Image<std::uint8_t> valid;  // every second pixel, device
};

struct WarpRegistration::Workspace {
  struct StageMemory {
    Image<float> values, step, residual, direction, image, diagonal, along_x, of_cells, bend_xx, bend_yy, bend_xy, system;
  };
  Image<float> frame;
  std::array<StageMemory, stage_count> stages;
  Image<float> sums, inverse_scale, scale_along_x, at_nodes;
  Array<float> of_rows;
  Array<WarpState> state;
  Array<unsigned> ticket;

  Workspace(const Stream& stream, int height, int width) : state(stream, 1), ticket(stream, 1) {
    frame = Image<float>(stream, half(height), half(width));
    for (int s = 0; s < stage_count; ++s) {
      const int spacing = spacing_of[s], rows = field_nodes(height, spacing), columns = field_nodes(width, spacing);
      const int cell_rows = cells_along(height, spacing), cell_columns = cells_along(width, spacing);
      StageMemory& of = stages[s];
      for (Image<float>* plane : {&of.values, &of.step, &of.residual, &of.direction, &of.image, &of.diagonal})
        *plane = Image<float>(stream, components * rows, columns);
      of.along_x = Image<float>(stream, components * rows, cell_columns);
      of.of_cells = Image<float>(stream, components * cell_rows, cell_columns);
      of.system = Image<float>(stream, system_sums * cell_rows, cell_columns);
      for (Image<float>* plane : {&of.bend_xx, &of.bend_yy, &of.bend_xy}) {
        *plane = Image<float>(stream, components * (rows + 2), columns + 2);
        set_zero(stream, plane->view());
      }
    }
    const int cell_rows = cells_along(height, field_spacing_px), cell_columns = cells_along(width, field_spacing_px);
    sums = Image<float>(stream, cell_sums * cell_rows, cell_columns);
    inverse_scale = Image<float>(stream, cell_rows, cell_columns);
    scale_along_x = Image<float>(stream, cell_rows, cell_columns);
    at_nodes = make_displacement_field(stream, height, width);
    of_rows = Array<float>(stream, 2 * field_nodes(height));
    set_zero(stream, ticket.view());
  }

  Stage stage(int s, int height, int width) {
    StageMemory& of = stages[s];
    const int spacing = spacing_of[s];
    return {spacing,
            field_nodes(height, spacing),
            field_nodes(width, spacing),
            cells_along(height, spacing),
            cells_along(width, spacing),
            of.values,
            of.step,
            of.residual,
            of.direction,
            of.image,
            of.diagonal,
            of.along_x,
            of.of_cells,
            of.bend_xx,
            of.bend_yy,
            of.bend_xy,
            of.system};
  }
};

WarpRegistration::WarpRegistration(const Stream& stream, ImageView<const float> mask_attenuation, ImageView<const std::uint8_t> valid) {
  require(same_size(mask_attenuation, valid), "WarpRegistration: mask_attenuation and valid differ in size");
  require(mask_attenuation.height >= least_extent_px && mask_attenuation.width >= least_extent_px,
          "WarpRegistration: images must be 64 px high and wide at least");
  auto mask = std::make_shared<Mask>();
  const int height = mask->height = mask_attenuation.height, width = mask->width = mask_attenuation.width;
  const Image<std::uint8_t> usable = erode(to_host(stream, valid).view(), unused_border_px);
  const Image<std::uint8_t> second = every_second(usable.view());
  mask->valid = to_device(stream, second.view());
  Image<float> smooth(stream, height, width);
  for_each_tile(stream, height, width, Smooth<1>{{mask_attenuation}, {}, smooth});
  mask->coefficients = padded_coefficients<2>(stream, smooth.view(), usable.view());
  mask_ = std::move(mask);
  workspace_ = std::make_unique<Workspace>(stream, height, width);
  stream.synchronize();
}

WarpRegistration::WarpRegistration(std::shared_ptr<const Mask> mask, std::unique_ptr<Workspace> workspace)
    : mask_(std::move(mask)), workspace_(std::move(workspace)) {}
WarpRegistration WarpRegistration::another(const Stream& stream) const {
  return WarpRegistration(mask_, std::make_unique<Workspace>(stream, mask_->height, mask_->width));
}
WarpRegistration::WarpRegistration(WarpRegistration&&) noexcept = default;
WarpRegistration& WarpRegistration::operator=(WarpRegistration&&) noexcept = default;
WarpRegistration::~WarpRegistration() = default;

void WarpRegistration::enqueue(const Stream& stream, const StoredFrame& frame, ArrayView<const FramePlacement> placement,
                               ImageView<float> to_mask, ImageView<float> to_frame, ArrayView<WarpEstimate> estimate) {
  const Mask& mask = *mask_;
  Workspace& work = *workspace_;
  const int height = mask.height, width = mask.width;
  require(frame.stored.height == height && frame.stored.width == width, "WarpRegistration::enqueue: frame and mask differ in size");
  require(frame.table.size > 0, "WarpRegistration::enqueue: the table is empty");
  require(placement.size == 1 && estimate.size == 1, "WarpRegistration::enqueue: placement and estimate must have one element");
  require(same_size(to_mask, work.at_nodes.view()) && same_size(to_frame, work.at_nodes.view()),
          "WarpRegistration::enqueue: the fields are not of the mask's size");
  for_each_tile(stream, work.frame.height(), work.frame.width(), Smooth<2, StoredSource>{{frame}, mask.valid, work.frame});
  for_each_tile(stream, 1, 1, Begin{placement, height, width, work.stages[0].values, work.inverse_scale, work.state});

  for (std::size_t k = 0; k < std::size(rounds); ++k) {
    const WarpRound& round = rounds[k];
    const float spacing = static_cast<float>(spacing_of[round.stage]);
    const bool refine = k + 1 < std::size(rounds) && rounds[k + 1].stage != round.stage;
    Between between{};
    between.task = round.task;
    between.iterations = iterations_of[round.stage];
    between.first_tap = 0.5f * (spacing - 2) / spacing;  // of every second pixel
    between.stage = work.stage(round.stage, height, width);
    if (refine) {
      between.refined = work.stages[round.stage + 1].values;
      between.refined_rows = field_nodes(height, spacing_of[round.stage + 1]);
    }
    between.sums = work.sums;
    between.inverse_scale = work.inverse_scale;
    between.scale_along_x = work.scale_along_x;
    between.cell_rows = work.inverse_scale.height();
    between.cell_columns = work.inverse_scale.width();
    between.to_mask = to_mask;
    between.of_rows = work.of_rows;
    between.estimate = estimate;
    for_each_tile_then_finish(stream, work.frame.height(), work.frame.width(),
                              CellEquations{work.frame, mask.coefficients, between, work.state}, work.ticket);
  }
  const int rows = field_nodes(height);
  for_each_tile(stream, rows, to_frame.width, Invert{to_mask, placement, height, width, rows, work.at_nodes});
  for (const int plane : {0, 1}) {
    const ImageView<const float> nodes = work.at_nodes.view();
    bspline_coefficients(stream, nodes.part(plane * rows, 0, rows, nodes.width), to_frame.part(plane * rows, 0, rows, to_frame.width));
  }
}

}  // namespace cinelumen
