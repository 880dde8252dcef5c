#include "lumen_fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <type_traits>
#include <vector>

#include "math.h"
#include "tile.h"

// A loop over profiles vectorises only once everything in it is inlined, and GCC finds these bodies too large by itself.
#define CINELUMEN_INLINE __attribute__((always_inline))

namespace cinelumen {
namespace {

// The blurred chord in units of the point spread's SD: u = |x| / s, rho = R / s.
//
// rho <= 6: a sum of Gaussians at 0, +-h, ... +-9h. Gaussians of SD 1 at a spacing of 0.8 span what a Gaussian of SD 1 can leave of any
// chord, so ten weights, functions of rho alone, carry the whole profile; the sum needs cosh(jhu) only, which is a two-term recurrence.
//
// rho > 6: only one edge is near. sqrt(rho^2 - t^2) = sqrt(rho - t) sqrt(rho + t), the second factor expanded about u, the first blurred:
// w(a) = E sqrt(a + Z)+, a parabolic cylinder function with w'' = w / 2 - a w', which gives all higher moments.
constexpr int nodes = 10, table_rows = 28;
constexpr float node_step = 0.8f, rho_step = 0.25f, rho_narrow = 6.0f;
constexpr float reach = 5.5f;  // beyond the edge, in SDs, the profile is below 1e-7

struct ChordTable {
  float weight[table_rows][nodes];  // of node j at rho = (row - 1) * rho_step, over rho^2: smooth down to rho = 0
};

double exact_chord(double u, double rho) {
  constexpr int count = 96;  // Gauss-Chebyshev of the second kind: the weight is the chord itself
  double sum = 0;
  for (int k = 1; k <= count; ++k) {
    const double angle = k * std::numbers::pi / (count + 1), sine = std::sin(angle), z = u - rho * std::cos(angle);
    sum += sine * sine * std::exp(-0.5 * z * z);
  }
  return 2 * rho * rho * sum * std::numbers::pi / (count + 1) / std::sqrt(2 * std::numbers::pi);
}

// Least squares over the profile, ridged: the Gaussians are nearly dependent.
ChordTable make_chord_table() {
  constexpr int samples = 160;
  std::vector<std::array<double, nodes>> basis(samples);
  std::array<std::array<double, nodes>, nodes> normal{};
  double trace = 0;
  const auto u_at = [](int i) { return i * 12.0 / (samples - 1); };
  for (int i = 0; i < samples; ++i)
    for (int j = 0; j < nodes; ++j) {
      const double left = u_at(i) + j * double{node_step}, right = u_at(i) - j * double{node_step};
      basis[i][j] = (std::exp(-0.5 * right * right) + std::exp(-0.5 * left * left)) / std::sqrt(2 * std::numbers::pi);
    }
  for (int a = 0; a < nodes; ++a)
    for (int b = 0; b < nodes; ++b)
      for (int i = 0; i < samples; ++i) normal[a][b] += basis[i][a] * basis[i][b];
  for (int a = 0; a < nodes; ++a) trace += normal[a][a];
  for (int a = 0; a < nodes; ++a) normal[a][a] += 1e-11 * trace / nodes;
  std::array<std::array<double, nodes>, nodes> lower{};
  for (int a = 0; a < nodes; ++a)
    for (int b = 0; b <= a; ++b) {
      double sum = normal[a][b];
      for (int k = 0; k < b; ++k) sum -= lower[a][k] * lower[b][k];
      lower[a][b] = a == b ? std::sqrt(sum) : sum / lower[b][b];
    }
  ChordTable table;
  for (int row = 0; row < table_rows; ++row) {
    const double rho = std::max(std::abs((row - 1) * double{rho_step}), 0.01);
    std::array<double, nodes> solution{};
    for (int a = 0; a < nodes; ++a)
      for (int i = 0; i < samples; ++i) solution[a] += basis[i][a] * exact_chord(u_at(i), rho);
    for (int a = 0; a < nodes; ++a) {
      for (int k = 0; k < a; ++k) solution[a] -= lower[a][k] * solution[k];
      solution[a] /= lower[a][a];
    }
    for (int a = nodes - 1; a >= 0; --a) {
      for (int k = a + 1; k < nodes; ++k) solution[a] -= lower[k][a] * solution[k];
      solution[a] /= lower[a][a];
    }
    for (int a = 0; a < nodes; ++a) {
      // The recurrence runs on 2 cosh(jhu), so the node's own exp(-(jh)^2 / 2) goes into its weight.
      const double node = a * double{node_step};
      table.weight[row][a] = static_cast<float>(solution[a] / (rho * rho) * std::exp(-0.5 * node * node) / std::sqrt(2 * std::numbers::pi));
    }
  }
  return table;
}

const ChordTable& chord_table() {
  static const ChordTable table = make_chord_table();
  return table;
}

// Value, first and second derivative along u of the blurred chord.
struct Chord {
  float g, gu, guu;
};

// Weight of node j at rho, by cubic interpolation in the table.
CINELUMEN_HOST_DEVICE CINELUMEN_INLINE inline float node_weight(const ChordTable& table, float rho, int j) {
  const float position = (rho < rho_narrow ? rho : rho_narrow) / rho_step;
  const int row = static_cast<int>(position);
  const float t = position - static_cast<float>(row);
  const float w = table.weight[row][j] * (-t * (t - 1) * (t - 2) / 6) + table.weight[row + 1][j] * ((t + 1) * (t - 1) * (t - 2) / 2) +
                  table.weight[row + 2][j] * (-(t + 1) * t * (t - 2) / 2) + table.weight[row + 3][j] * ((t + 1) * t * (t - 1) / 6);
  return w * rho * rho;
}

// body(0) ... body(Count - 1) with compile-time indices: small arrays then live in registers, of every lane at once.
template <int Count, class Body>
CINELUMEN_HOST_DEVICE CINELUMEN_INLINE inline void unrolled(Body body) {
  if constexpr (Count > 0) {
    unrolled<Count - 1>(body);
    body(std::integral_constant<int, Count - 1>{});
  }
}

// weights: node j's at weights[j * stride].
CINELUMEN_HOST_DEVICE CINELUMEN_INLINE inline Chord narrow_chord(float u_signed, const float* weights, int stride) {
  float u = fabsf(u_signed);
  const float inside = u < rho_narrow + reach ? 1.0f : 0.0f;
  u = u < rho_narrow + reach ? u : rho_narrow + reach;
  const float e = fast_exp(u * node_step), inverse = 1.0f / e, gauss = inside * fast_exp(-0.5f * u * u);
  const float two_cosh = e + inverse;
  float c_before = 2, c = two_cosh, s_before = 0, s = e - inverse;
  float a = 2 * weights[0], b = 0, d = 0;  // node 0 was fitted as two Gaussians on one place
  unrolled<nodes - 1>([&](auto before) CINELUMEN_INLINE {
    constexpr int j = before + 1;
    const float place = static_cast<float>(j) * node_step, weight = weights[j * stride], weighted = place * weight;
    a += weight * c;
    b += weighted * s;
    d += place * weighted * c;
    const float c_next = two_cosh * c - c_before, s_next = two_cosh * s - s_before;
    c_before = c;
    c = c_next;
    s_before = s;
    s = s_next;
  });
  const float slope = gauss * (b - u * a);
  return {gauss * a, u_signed < 0 ? -slope : slope, gauss * (d - 2 * u * b + (u * u - 1) * a)};
}

CINELUMEN_HOST_DEVICE CINELUMEN_INLINE inline Chord wide_chord(float u_signed, float rho) {
  const float u = fabsf(u_signed), a = rho - u, q = rho + u;
  const bool negative = a < 0;
  const float magnitude = negative ? -a : a, capped = magnitude < 5.0f ? magnitude : 5.0f, t = capped * 0.4f - 1.0f;
  // w on [-5, 0] and [0, 5], degree 13: error 3e-7, its derivative 2e-5.
  float w = 0, dw = 0;
#define CINELUMEN_STEP(n, p) \
  dw = dw * t + w;           \
  w = w * t + (negative ? n : p);
  CINELUMEN_STEP(0.00205820275f, 0.00320215896f)
  CINELUMEN_STEP(-0.00612249839f, 0.00111565575f)
  CINELUMEN_STEP(-0.00444286286f, -0.0200597168f)
  CINELUMEN_STEP(0.030526872f, 0.00604657361f)
  CINELUMEN_STEP(-0.0185843338f, 0.0498629907f)
  CINELUMEN_STEP(-0.0504390287f, -0.0537799499f)
  CINELUMEN_STEP(0.0900278187f, -0.0329297283f)
  CINELUMEN_STEP(-0.0241331614f, 0.11915873f)
  CINELUMEN_STEP(-0.100680193f, -0.105728916f)
  CINELUMEN_STEP(0.174449144f, -0.0092704766f)
  CINELUMEN_STEP(-0.150503235f, 0.14939109f)
  CINELUMEN_STEP(0.0781041231f, -0.287409249f)
  CINELUMEN_STEP(-0.023420009f, 0.862923996f)
  CINELUMEN_STEP(0.00315918178f, 1.54189025f)
#undef CINELUMEN_STEP
  dw *= negative ? -0.4f : 0.4f;
  // Above 5 the asymptotic series is better than 1.2e-5.
  const float far = a > 5.0f ? a : 5.0f, root = sqrtf(far), i2 = 1.0f / (far * far);
  const float w_far = root * (1.0f - i2 * (0.125f + i2 * (0.1171875f + i2 * 0.3076172f)));
  const float dw_far = 0.5f / root * (1.0f + i2 * (0.375f + i2 * (0.8203125f + i2 * 3.383789f)));
  w = a > 5.0f ? w_far : (a < -5.0f ? 0.0f : w);
  dw = a > 5.0f ? dw_far : (a < -5.0f ? 0.0f : dw);
  const float d2 = 0.5f * w - a * dw, d3 = -a * d2 - 0.5f * dw, d4 = -a * d3 - 1.5f * d2, d5 = -a * d4 - 2.5f * d3;
  const float m0 = w, m1 = dw, m2 = w + d2, m3 = 3 * dw + d3, m4 = 3 * w + 6 * d2 + d4, m5 = 15 * dw + 10 * d3 + d5;
  const float r = 1.0f / q, scale = 2 * sqrtf(q);
  const float b1 = 0.5f * r, b2 = -0.125f * r * r, b3 = 0.0625f * r * r * r;
  const float g = scale * (m0 - b1 * m1 + b2 * m2 - b3 * m3);
  const float gu = -scale * (m1 - b1 * m2 + b2 * m3 - b3 * m4);
  const float guu = scale * ((m2 - m0) - b1 * (m3 - m1) + b2 * (m4 - m2) - b3 * (m5 - m3));
  return {g, u_signed < 0 ? -gu : gu, guu};
}

constexpr int lanes = 16;         // profiles of a tile: one vector register of floats, and samples of sixteen fit CUDA's shared memory
constexpr int max_samples = 192;  // pixels of one profile
constexpr int at_once = 2;        // samples per visit of the sums: these are too many for the registers
static_assert(max_samples % at_once == 0);
constexpr float small_step_px = 0.02f;  // steps shrink at least tenfold each from here
constexpr int search_half = 95;         // px either side in the search for a start

// Parameters: R, c, kappa, b0, b1 and, where it is fitted, s. The upper triangle is packed by columns so that five of six are a prefix.
CINELUMEN_HOST_DEVICE constexpr int packed(int i, int j) { return j * (j + 1) / 2 + i; }

// Which models the lanes of a tile need; the same for the whole tile.
enum class Width { narrow, wide, both };

struct LumenFitKernel {
  ImageView<const float> image, variance;
  ImageView<const std::uint8_t> valid;
  ArrayView<const LumenFitPoint> points;
  ArrayView<LumenFit> fits;
  LumenFitOptions options;
  ChordTable table;

  using CpuTile = TileShape<1, lanes>;
  using CudaTile = TileShape<1, lanes>;

  template <int Height, int Columns>
  struct Scratch {
    float x[max_samples][lanes], value[max_samples][lanes], weight[max_samples][lanes];
    float sum[28][lanes];                                       // 21 of the Hessian, 6 of the gradient, chi2: at the trial
    float hessian[21][lanes], gradient[6][lanes], chi2[lanes];  // at the best so far
    float best[6][lanes], trial[6][lanes];
    float lambda[lanes], step_px[lanes], s_sd[lanes];
    float node[nodes][lanes];
    float start_radius[lanes], start_centre[lanes], fwhm[lanes], contrast[lanes], significance[lanes], half[lanes], lost[lanes];
    int count[lanes], used[lanes], stride[lanes];
    int longest, any_narrow, any_wide, moving;
  };

  CINELUMEN_HOST_DEVICE LumenFitPoint point(int i) const { return points[i < points.size ? i : points.size - 1]; }

  CINELUMEN_HOST_DEVICE bool readable(int y, int x) const {
    return y >= 0 && y < image.height && x >= 0 && x < image.width && (valid.data == nullptr || valid(y, x) != 0);
  }

  // Samples lie in columns (or rows, where the normal is nearer to that axis): one step per `major`, and on the other axis the `rows`
  // pixels nearest to the profile's line. Every pixel near the line is met once. What this needs of a point, by lane, in `sum` while that
  // is free: vector registers instead of a stride over the points.
  enum LanePlace {
    n_major,
    n_minor,
    slope,
    p_major,
    p_minor,
    first_major,
    by_columns,
    from,
    to,
    major_step,
    limit,
    near,
    beyond,
    peak_sum,
    peak,
    outside,
    outside_rows,
    holes
  };
  template <int Columns, class Store>
  CINELUMEN_HOST_DEVICE void place_lanes(const Block<1, Columns>& block, Store& store) const {
    block.for_each_pixel(1, lanes, [&](int, int l) {
      const LumenFitPoint p = point(block.x0 + l);
      const bool columns = fabsf(p.normal_x) >= fabsf(p.normal_y);
      const float major = columns ? p.normal_x : p.normal_y, minor = columns ? p.normal_y : p.normal_x;
      store.sum[n_major][l] = major;
      store.sum[n_minor][l] = minor;
      store.sum[slope][l] = minor / major;
      store.sum[p_major][l] = columns ? p.x : p.y;
      store.sum[p_minor][l] = columns ? p.y : p.x;
      store.sum[first_major][l] = floorf((columns ? p.x : p.y) + 0.5f);
      store.sum[by_columns][l] = columns ? 1.0f : 0.0f;
      store.sum[from][l] = p.from_px;
      store.sum[to][l] = p.to_px;
      store.sum[major_step][l] = 1;
    });
  }
  struct Place {
    float major, minor, distance;  // pixel on either axis; along the normal
  };
  template <class Store>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline Place place_of(const Store& store, int l, float step, int row, int rows) {
    const float major = store.sum[first_major][l] + step, offset = major - store.sum[p_major][l];
    const float line = store.sum[p_minor][l] + offset * store.sum[slope][l];
    const float minor = floorf(line - 0.5f * static_cast<float>(rows - 1) + 0.5f) + static_cast<float>(row);
    return {major, minor, offset * store.sum[n_major][l] + (minor - store.sum[p_minor][l]) * store.sum[n_minor][l]};
  }

  template <int Columns, class Store>
  CINELUMEN_HOST_DEVICE void search(const Block<1, Columns>& block, Store& store) const {
    // A profile of three-pixel means over the search window, then per lane the half-maximum walk.
    block.once([&] {
      store.longest = 0;
      for (int l = 0; l < lanes; ++l) {
        const int need = clamp_int(static_cast<int>(2.5f * point(block.x0 + l).radius_px + 9), 4, search_half);
        store.longest = need > store.longest ? need : store.longest;
      }
    });
    const int reach_px = store.longest;
    // Places first, then the pixels: the former vectorises, the latter cannot.
    block.for_each_pixel(2 * reach_px + 1, lanes, [&](int i, int l) CINELUMEN_INLINE {
      const Place middle = place_of(store, l, static_cast<float>(i - reach_px), 1, 3);
      store.x[i][l] = middle.distance;
      store.value[i][l] = middle.major;
      store.weight[i][l] = middle.minor;
    });
    block.for_each_pixel(2 * reach_px + 1, lanes, [&](int i, int l) {
      const bool columns = store.sum[by_columns][l] > 0;
      const int major = static_cast<int>(store.value[i][l]), minor = static_cast<int>(store.weight[i][l]);
      float sum = 0, weight = 0;
      for (int row = -1; row <= 1; ++row) {
        const int y = columns ? minor + row : major, x = columns ? major : minor + row;
        const float distance = store.x[i][l] + static_cast<float>(row) * store.sum[n_minor][l];
        if (distance >= store.sum[from][l] && distance <= store.sum[to][l] && readable(y, x)) {
          sum += image(y, x);
          weight += 1;
        }
      }
      store.value[i][l] = weight > 0 ? sum / weight : 0;
      store.weight[i][l] = weight > 0 ? 1.0f : 0.0f;
    });
    block.for_each_pixel(1, lanes, [&](int, int l) {
      const LumenFitPoint p = point(block.x0 + l);
      store.sum[limit][l] = fminf(2.5f * p.radius_px + 8, static_cast<float>(reach_px - 1));
      store.sum[near][l] = fmaxf(1.5f, 0.6f * p.radius_px);
      store.sum[beyond][l] = p.radius_px + 2.5f * sqrtf(square(p.psf_px) + 1.0f / 12.0f);
      store.sum[peak_sum][l] = -1e30f;
      store.sum[peak][l] = static_cast<float>(reach_px);
      store.sum[outside][l] = store.sum[outside_rows][l] = store.sum[holes][l] = 0;
    });
    for (int i = 1; i < 2 * reach_px; ++i)
      block.for_each_pixel(1, lanes, [&](int, int l) CINELUMEN_INLINE {
        const float x = fabsf(store.x[i][l]), weight = store.weight[i][l], here = store.value[i][l];
        const float three = store.value[i - 1][l] + here + store.value[i + 1][l], top = store.sum[peak_sum][l], at = store.sum[peak][l];
        const bool inner = x <= store.sum[near][l], higher = inner & (weight > 0) & (three > top);
        store.sum[peak_sum][l] = higher ? three : top;
        store.sum[peak][l] = higher ? static_cast<float>(i) : at;
        const float take = (x > store.sum[beyond][l]) & (x <= store.sum[limit][l]) ? weight : 0.0f;
        store.sum[outside][l] += take * here;
        store.sum[outside_rows][l] += take;
        store.sum[holes][l] += inner ? 1 - weight : 0.0f;
      });
    block.for_each_pixel(1, lanes, [&](int, int l) {
      const LumenFitPoint p = point(block.x0 + l);
      const float limit_px = store.sum[limit][l];
      const int peak_at = static_cast<int>(store.sum[peak][l]);
      const float top = (store.value[peak_at - 1][l] + store.value[peak_at][l] + store.value[peak_at + 1][l]) * (1.0f / 3.0f);
      float edge[2];
      bool found = true;
      for (int side = 0; side < 2; ++side) {
        const int step = side == 0 ? -1 : 1;
        float low = top;
        for (int i = peak_at; i > 0 && i < 2 * reach_px && fabsf(store.x[i][l]) <= limit_px; i += step)
          if (store.weight[i][l] > 0) low = fminf(low, store.value[i][l]);
        const float half = 0.5f * (top + low);
        int i = peak_at;
        while (i > 0 && i < 2 * reach_px && fabsf(store.x[i][l]) <= limit_px && store.value[i][l] > half) i += step;
        const float inner = store.value[i - step][l], outer = store.value[i][l];
        const float part = inner > outer ? (inner - half) / (inner - outer) : 0.5f;
        edge[side] = store.x[i - step][l] + part * (store.x[i][l] - store.x[i - step][l]);
        found = found && top > low && i != peak_at;
      }
      const float fwhm = fabsf(edge[1] - edge[0]), s2 = square(p.psf_px) + 1.0f / 12.0f;
      // The half-maximum width of an ellipse is sqrt(3) / 2 of its axis; the blur's own width comes off in squares.
      const float radius = sqrtf(fmaxf(square(fwhm) - 3.0f * s2, 0.8f * s2)) * 0.57735f;
      // Against what lies beyond the vessel's blur: is there anything to fit?
      const float rows = store.sum[outside_rows][l];
      const int y = static_cast<int>(floorf(p.y + 0.5f)), x = static_cast<int>(floorf(p.x + 0.5f));
      const float noise = variance.data && readable(y, x) ? fmaxf(variance(y, x), 1e-12f) : options.variance;
      // With nothing outside, or holes in the middle, it is for the fit to say.
      store.contrast[l] = rows > 0 ? top - store.sum[outside][l] / rows : top;
      store.significance[l] =
          store.sum[holes][l] == 0 && rows > 0 ? store.contrast[l] / sqrtf(noise * (1.0f / 9.0f + 1.0f / (3 * rows))) : 1e6f;
      store.fwhm[l] = found ? fwhm : 0;
      store.start_radius[l] = found ? fminf(radius, 60.0f) : p.radius_px;
      store.start_centre[l] = found ? 0.5f * (edge[0] + edge[1]) : 0.0f;
    });
  }

  template <int Columns, class Store>
  CINELUMEN_HOST_DEVICE void gather(const Block<1, Columns>& block, Store& store) const {
    block.for_each_pixel(1, lanes, [&](int, int l) {
      const LumenFitPoint p = point(block.x0 + l);
      const float s = sqrtf(square(p.psf_px) + 1.0f / 12.0f), radius = fmaxf(store.start_radius[l], 0.4f * s);
      const float half = 1.5f * radius + 5 * s + 2;
      const int room = max_samples / options.rows;
      int stride = 1;
      while (2 * static_cast<int>(half / static_cast<float>(stride)) + 1 > room && stride < 8) ++stride;
      // Steps on the major axis are 1 / n_major apart along the profile.
      const int side = clamp_int(static_cast<int>(half * fabsf(store.sum[n_major][l])) / stride + 1, 3, (room - 1) / 2);
      store.half[l] = half;
      store.s_sd[l] = p.psf_sd_px * p.psf_px / s;  // of the SD that includes the pixel
      store.stride[l] = stride;
      store.count[l] = (2 * side + 1) * options.rows;
      store.trial[0][l] = radius;
      store.trial[1][l] = store.start_centre[l];
      store.trial[2][l] = p.kappa_sd > 0 ? p.kappa : 0;
      store.trial[3][l] = 0;
      store.trial[4][l] = 0;
      store.trial[5][l] = s;
      store.lambda[l] = 1e-2f;
      store.chi2[l] = 3e38f;
    });
    block.once([&] {
      store.longest = 0;
      for (int l = 0; l < lanes; ++l) store.longest = store.count[l] > store.longest ? store.count[l] : store.longest;
      store.longest = (store.longest + at_once - 1) / at_once * at_once;
    });
    block.for_each_pixel(1, lanes, [&](int, int l) {
      const int side = (store.count[l] / options.rows - 1) / 2;
      const float major_start = floorf(store.start_centre[l] * store.sum[n_major][l] + 0.5f);
      store.sum[major_step][l] = static_cast<float>(store.stride[l]);
      store.sum[first_major][l] += major_start - static_cast<float>(side * store.stride[l]);
      store.used[l] = 0;
      store.lost[l] = 0;  // the number inside, until all are counted
    });
    const int rows = options.rows;
    block.for_each_pixel(store.longest, lanes, [&](int i, int l) CINELUMEN_INLINE {
      const Place at = place_of(store, l, static_cast<float>(i / rows) * store.sum[major_step][l], i % rows, rows);
      const bool inside = i < store.count[l] && at.distance >= store.sum[from][l] && at.distance <= store.sum[to][l];
      store.x[i][l] = at.distance;
      store.value[i][l] = at.major;
      store.weight[i][l] = inside ? at.minor : -1e6f;
    });
    block.for_each_pixel(store.longest, lanes, [&](int i, int l) {
      const bool columns = store.sum[by_columns][l] > 0;
      const float major = store.value[i][l], minor = store.weight[i][l];
      const int y = static_cast<int>(columns ? minor : major), x = static_cast<int>(columns ? major : minor);
      const bool inside = minor > -1e5f, use = inside && readable(y, x);
      store.value[i][l] = use ? image(y, x) : 0;
      store.weight[i][l] = use ? (variance.data ? variance(y, x) : options.variance) : (inside ? -1.0f : -2.0f);
    });
    for (int i = 0; i < store.longest; ++i)
      block.for_each_pixel(1, lanes, [&](int, int l) CINELUMEN_INLINE {
        const float noise = store.weight[i][l];
        const bool use = noise > -0.5f;
        const float bounded = noise > 1e-12f ? noise : 1e-12f;
        store.weight[i][l] = (use ? 1.0f : 0.0f) / bounded;
        store.used[l] += use ? 1 : 0;
        store.lost[l] += noise > -1.5f ? 1.0f : 0.0f;
      });
    block.for_each_pixel(
        1, lanes, [&](int, int l) { store.lost[l] = store.lost[l] > 0 ? 1.0f - static_cast<float>(store.used[l]) / store.lost[l] : 1.0f; });
  }

  // Sums at the trial: Hessian (Gauss-Newton), gradient, chi2.
  template <int Parameters, Width width, int Columns, class Store>
  CINELUMEN_HOST_DEVICE void accumulate(const Block<1, Columns>& block, Store& store) const {
    const int longest = store.longest;
    for (int first = 0; first < longest; first += at_once)
      block.for_each_pixel(1, lanes, [&](int, int l) CINELUMEN_INLINE {
        const float radius = store.trial[0][l], kappa = store.trial[2][l], s = store.trial[5][l];
        const float inverse_s = 1.0f / s, inverse_radius = 1.0f / radius, rho = radius * inverse_s;
        float column[at_once][6], weighted[at_once][6], residual[at_once], weighted_residual[at_once];
        unrolled<at_once>([&](auto q) CINELUMEN_INLINE {
          const float x = store.x[first + q][l], weight = store.weight[first + q][l], from_centre = x - store.trial[1][l];
          const float u = from_centre * inverse_s;
          Chord chord;
          if constexpr (width == Width::narrow) {
            chord = narrow_chord(u, &store.node[0][l], lanes);
          } else if constexpr (width == Width::wide) {
            chord = wide_chord(u, rho);
          } else {
            const Chord a = narrow_chord(u, &store.node[0][l], lanes), b = wide_chord(u, rho);
            const bool small = rho <= rho_narrow;
            chord = {small ? a.g : b.g, small ? a.gu : b.gu, small ? a.guu : b.guu};
          }
          const float g = s * chord.g, gx = chord.gu, gxx = chord.guu * inverse_s;
          // Euler's relation and the heat equation give the other two derivatives.
          column[q][0] = kappa * (g - from_centre * gx - s * s * gxx) * inverse_radius;
          column[q][1] = -kappa * gx;
          column[q][2] = g;
          column[q][3] = 1.0f;
          column[q][4] = x;
          column[q][5] = kappa * s * gxx;
          // The blur acts on the intensity: -ln E exp(-p) = E p - Var(p) / 2, and the variance within the point spread is the sum over n
          // of (s^n d^n g / dx^n)^2 / n!. The first two terms leave a few per cent of what is itself a hundredth of a millimetre.
          const float variance_within = s * s * (chord.gu * chord.gu + 0.5f * chord.guu * chord.guu);
          const float model = kappa * g - 0.5f * kappa * kappa * variance_within + store.trial[3][l] + store.trial[4][l] * x;
          residual[q] = store.value[first + q][l] - model;
          weighted_residual[q] = weight * residual[q];
          unrolled<Parameters>([&](auto j) CINELUMEN_INLINE { weighted[q][j] = weight * column[q][j]; });
        });
        unrolled<Parameters>([&](auto j) CINELUMEN_INLINE {
          unrolled<j + 1>([&](auto k) CINELUMEN_INLINE {
            float sum = store.sum[packed(k, j)][l];
            unrolled<at_once>([&](auto q) CINELUMEN_INLINE { sum += weighted[q][j] * column[q][k]; });
            store.sum[packed(k, j)][l] = sum;
          });
          float sum = store.sum[21 + j][l];
          unrolled<at_once>([&](auto q) CINELUMEN_INLINE { sum += weighted_residual[q] * column[q][j]; });
          store.sum[21 + j][l] = sum;
        });
        float chi2 = store.sum[27][l];
        unrolled<at_once>([&](auto q) CINELUMEN_INLINE { chi2 += weighted_residual[q] * residual[q]; });
        store.sum[27][l] = chi2;
      });
  }

  template <int Parameters, int Columns, class Store>
  CINELUMEN_HOST_DEVICE void evaluate(const Block<1, Columns>& block, Store& store) const {
    block.for_each_pixel(28, lanes, [&](int k, int l) { store.sum[k][l] = 0; });
    block.for_each_pixel(nodes, lanes, [&](int j, int l) {
      const float rho = store.trial[0][l] / store.trial[5][l];
      store.node[j][l] = rho <= rho_narrow ? node_weight(table, rho, j) : 0;
    });
    block.once([&] {
      int narrow = 0, wide = 0;
      for (int l = 0; l < lanes; ++l) {
        const bool small = store.trial[0][l] <= rho_narrow * store.trial[5][l];
        narrow |= small ? 1 : 0;
        wide |= small ? 0 : 1;
      }
      store.any_narrow = narrow;
      store.any_wide = wide;
    });
    if (!store.any_wide)
      accumulate<Parameters, Width::narrow>(block, store);
    else if (!store.any_narrow)
      accumulate<Parameters, Width::wide>(block, store);
    else
      accumulate<Parameters, Width::both>(block, store);
    block.for_each_pixel(1, lanes, [&](int, int l) {
      const LumenFitPoint p = point(block.x0 + l);
      if (p.kappa_sd > 0) {
        const float precision = 1.0f / square(p.kappa_sd), off = p.kappa - store.trial[2][l];
        store.sum[packed(2, 2)][l] += precision;
        store.sum[21 + 2][l] += precision * off;
        store.sum[27][l] += precision * off * off;
      }
      if (Parameters == 6 && p.psf_sd_px > 0) {
        // The prior is on the point spread without the pixel; its SD carries over by ds_eff = (s / s_eff) ds.
        const float s = sqrtf(square(p.psf_px) + 1.0f / 12.0f), sd = p.psf_sd_px * p.psf_px / s;
        const float precision = 1.0f / square(sd), off = s - store.trial[5][l];
        store.sum[packed(5, 5)][l] += precision;
        store.sum[21 + 5][l] += precision * off;
        if (options.fit_psf) store.sum[27][l] += precision * off * off;
      }
    });
  }

  // Factor of (H + damping on the nonlinear parameters), normalised to unit diagonal: lower triangle packed as its transpose.
  struct Factor {
    float lower[21], inverse[6], scale[6];
  };
  template <int Parameters>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline void factorise(const float (&hessian)[21], float damping, Factor& factor) {
    unrolled<Parameters>([&](auto j) CINELUMEN_INLINE {
      const float diagonal = hessian[packed(j, j)];
      factor.scale[j] = (diagonal > 1e-30f ? 1.0f : 0.0f) / sqrtf(diagonal > 1e-30f ? diagonal : 1.0f);
    });
    unrolled<Parameters>([&](auto j) CINELUMEN_INLINE {
      unrolled<j + 1>([&](auto i) CINELUMEN_INLINE {
        float sum = hessian[packed(i, j)] * factor.scale[i] * factor.scale[j];
        if constexpr (i == j) sum = 1.0f + (j < 2 || j == 5 ? damping : 0.0f);
        unrolled<i>([&](auto k) CINELUMEN_INLINE { sum -= factor.lower[packed(k, i)] * factor.lower[packed(k, j)]; });
        if constexpr (i == j) {
          const float root = sqrtf(sum > 1e-6f ? sum : 1e-6f);
          factor.lower[packed(j, j)] = root;
          factor.inverse[j] = 1.0f / root;
        } else {
          factor.lower[packed(i, j)] = sum * factor.inverse[i];
        }
      });
    });
  }
  template <int Parameters>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline void solve(const Factor& factor, const float (&right)[6], float (&step)[6]) {
    unrolled<Parameters>([&](auto j) CINELUMEN_INLINE {
      float sum = right[j] * factor.scale[j];
      unrolled<j>([&](auto k) CINELUMEN_INLINE { sum -= factor.lower[packed(k, j)] * step[k]; });
      step[j] = sum * factor.inverse[j];
    });
    unrolled<Parameters>([&](auto backwards) CINELUMEN_INLINE {
      constexpr int j = Parameters - 1 - backwards;
      float sum = step[j];
      unrolled<backwards>([&](auto k) CINELUMEN_INLINE { sum -= factor.lower[packed(j, j + 1 + k)] * step[j + 1 + k]; });
      step[j] = sum * factor.inverse[j];
    });
    unrolled<Parameters>([&](auto j) CINELUMEN_INLINE { step[j] *= factor.scale[j]; });
  }

  // Takes the trial where it is better, then proposes the next one.
  template <int Parameters, int Columns, class Store>
  CINELUMEN_HOST_DEVICE void advance(const Block<1, Columns>& block, Store& store, bool linear_only) const {
    block.for_each_pixel(1, lanes, [&](int, int l) CINELUMEN_INLINE {
      const float new_chi2 = store.sum[27][l], old_chi2 = store.chi2[l];
      const bool better = new_chi2 < old_chi2;
      store.chi2[l] = better ? new_chi2 : old_chi2;
      float hessian[21], gradient[6], step[6], best[6];
      unrolled<21>([&](auto k) CINELUMEN_INLINE {
        const float fresh = store.sum[k][l], kept = store.hessian[k][l];
        hessian[k] = better ? fresh : kept;
        store.hessian[k][l] = hessian[k];
      });
      unrolled<6>([&](auto j) CINELUMEN_INLINE {
        const float fresh = store.sum[21 + j][l], kept = store.gradient[j][l], place = store.trial[j][l], old = store.best[j][l];
        gradient[j] = better ? fresh : kept;
        store.gradient[j][l] = gradient[j];
        best[j] = better ? place : old;
        store.best[j][l] = best[j];
      });
      float lambda = store.lambda[l] * (better ? 0.15f : 10.0f);
      lambda = lambda < 1e-4f ? 1e-4f : lambda;
      store.lambda[l] = linear_only ? 1e-2f : lambda;
      Factor factor;
      factorise<Parameters>(hessian, linear_only ? 1e8f : lambda, factor);
      solve<Parameters>(factor, gradient, step);
      const float s = best[5], r_step = linear_only ? 0.0f : step[0], c_step = linear_only ? 0.0f : step[1];
      const float limit_r = 0.4f * best[0], limit_c = 0.3f * best[0] + 0.5f;
      float radius = best[0] + (r_step > limit_r ? limit_r : (r_step < -limit_r ? -limit_r : r_step));
      const float widest = 0.95f * store.half[l];
      radius = radius < 0.3f * s ? 0.3f * s : (radius > widest ? widest : radius);
      float centre = best[1] + (c_step > limit_c ? limit_c : (c_step < -limit_c ? -limit_c : c_step));
      centre = centre < -store.half[l] ? -store.half[l] : (centre > store.half[l] ? store.half[l] : centre);
      store.trial[0][l] = radius;
      store.trial[1][l] = centre;
      store.trial[2][l] = best[2] + step[2];
      store.trial[3][l] = best[3] + step[3];
      store.trial[4][l] = best[4] + step[4];
      if constexpr (Parameters == 6) {
        const float next = s + (linear_only ? 0.0f : step[5]), low = 0.6f * s, high = 1.6f * s;
        const float bounded = next < low ? low : (next > high ? high : next);
        store.trial[5][l] = bounded < 0.3f ? 0.3f : bounded;
      } else {
        store.trial[5][l] = s;
      }
      store.step_px[l] = fabsf(radius - best[0]) + fabsf(centre - best[1]);
    });
    block.once([&] {
      int moving = linear_only ? 1 : 0;
      for (int l = 0; l < lanes; ++l) moving |= store.step_px[l] > small_step_px && store.used[l] > 0 ? 1 : 0;
      store.moving = moving;
    });
  }

  template <bool fitted, int Columns, class Store>
  CINELUMEN_HOST_DEVICE void finish(const Block<1, Columns>& block, Store& store) const {
    // Into `sum`, read by the next phase: covariances, the last Gauss-Newton step, chi2 per degree of freedom.
    block.for_each_pixel(1, lanes, [&](int, int l) CINELUMEN_INLINE {
      float hessian[21], gradient[6], unit[6], by_s[6], step[6], column_r[6], column_c[6], column_k[6], column_s[6];
      unrolled<21>([&](auto k) CINELUMEN_INLINE { hessian[k] = store.sum[k][l]; });
      unrolled<6>([&](auto j) CINELUMEN_INLINE { gradient[j] = store.sum[21 + j][l]; });
      const float dof = static_cast<float>(store.used[l] - (fitted ? 6 : 5)), sum = store.sum[27][l];
      const float chi2 = (dof > 0 ? sum : 0.0f) / (dof > 0 ? dof : 1.0f), widen = chi2 > 1 ? chi2 : 1.0f;
      // Held s: its error enters through the slope of each parameter against s. Fitted s: the six-parameter covariance.
      Factor five, all;
      factorise<5>(hessian, 0.0f, five);
      unrolled<5>([&](auto j) CINELUMEN_INLINE { unit[j] = -hessian[packed(j, 5)]; });
      solve<5>(five, unit, by_s);
      solve<5>(five, gradient, step);
      const auto column = [&](auto j, float(&result)[6]) CINELUMEN_INLINE {
        unrolled<6>([&](auto k) CINELUMEN_INLINE { unit[k] = k == j ? 1.0f : 0.0f; });
        if constexpr (fitted)
          solve<6>(all, unit, result);
        else
          solve<5>(five, unit, result);
      };
      if constexpr (fitted) factorise<6>(hessian, 0.0f, all);
      column(std::integral_constant<int, 0>{}, column_r);
      column(std::integral_constant<int, 1>{}, column_c);
      column(std::integral_constant<int, 2>{}, column_k);
      const float s_variance = fitted ? 0.0f : square(store.s_sd[l]);
      store.sum[0][l] = column_r[0] * widen + by_s[0] * by_s[0] * s_variance;
      store.sum[1][l] = column_c[1] * widen + by_s[1] * by_s[1] * s_variance;
      store.sum[2][l] = column_k[2] * widen + by_s[2] * by_s[2] * s_variance;
      store.sum[3][l] = column_r[2] * widen + by_s[0] * by_s[2] * s_variance;
      if constexpr (fitted) {
        column(std::integral_constant<int, 5>{}, column_s);
        store.sum[4][l] = column_s[5] * widen;
      } else {
        store.sum[4][l] = s_variance;
      }
      // The kappa prior's share of the radius's error: its slope against the prior's mean.
      const float prior_sd = point(block.x0 + l).kappa_sd, by_prior = prior_sd > 0 ? column_r[2] / prior_sd : 0.0f;
      store.sum[8][l] = by_s[0] * by_s[0] * s_variance + by_prior * by_prior;
      store.sum[5][l] = step[0];
      store.sum[6][l] = step[1];
      store.sum[7][l] = chi2;
    });
    block.for_each_pixel(1, block.columns(points.size), [&](int, int l) {
      const float radius = store.trial[0][l], kappa = store.trial[2][l], s = store.trial[5][l], chi2 = store.sum[7][l];
      const float var_radius = store.sum[0][l], var_centre = store.sum[1][l], var_kappa = store.sum[2][l], cov = store.sum[3][l];
      const float rho = radius / s;
      float centre_value;
      if (rho <= rho_narrow) {
        float weights[nodes];
        for (int j = 0; j < nodes; ++j) weights[j] = node_weight(table, rho, j);
        centre_value = s * narrow_chord(0, weights, 1).g;
      } else {
        centre_value = s * wide_chord(0, rho).g;
      }
      const float peak_by_radius = 2 * kappa;
      LumenFit fit;
      fit.diameter_px = 2 * radius;
      fit.sd_px = 2 * sqrtf(fmaxf(var_radius, 0.0f));
      fit.prior_sd_px = 2 * sqrtf(fmaxf(store.sum[8][l], 0.0f));
      fit.centre_px = store.trial[1][l];
      fit.centre_sd_px = sqrtf(fmaxf(var_centre, 0.0f));
      fit.kappa = kappa;
      fit.kappa_sd = sqrtf(fmaxf(var_kappa, 0.0f));
      fit.psf_px = sqrtf(fmaxf(s * s - 1.0f / 12.0f, 0.0f));
      fit.psf_sd_px = sqrtf(fmaxf(store.sum[4][l], 0.0f)) * s / fmaxf(fit.psf_px, 0.1f);
      fit.contrast = kappa * centre_value;
      fit.contrast_sd = sqrtf(
          fmaxf(square(centre_value) * var_kappa + square(peak_by_radius) * var_radius + 2 * centre_value * peak_by_radius * cov, 0.0f));
      fit.background = store.trial[3][l];
      fit.background_slope = store.trial[4][l];
      fit.chi2_per_dof = chi2;
      fit.fwhm_px = store.fwhm[l];
      fit.significance = store.significance[l];
      fit.lost = store.lost[l];
      fit.samples = store.used[l];
      fit.at_bound =
          radius <= 0.31f * s || radius >= 0.94f * store.half[l] || fabsf(fit.centre_px - store.start_centre[l]) > radius + 2 * s ? 1 : 0;
      fit.converged = store.used[l] > 6 && fabsf(store.sum[5][l]) < 0.05f * fit.sd_px + 2e-3f * radius &&
                              fabsf(store.sum[6][l]) < 0.2f * fit.centre_sd_px + 5e-3f
                          ? 1
                          : 0;
      fits[block.x0 + l] = fit;
    });
  }

  template <int Height, int Columns>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Columns> block, Scratch<Height, Columns>& store) const {
    block.for_each_pixel(1, lanes, [&](int, int l) {
      store.start_radius[l] = point(block.x0 + l).radius_px;
      store.start_centre[l] = point(block.x0 + l).centre_px;
      store.fwhm[l] = 0;
      store.significance[l] = 0;
    });
    place_lanes(block, store);
    if (options.search || options.search_only) search(block, store);
    if (options.search_only) {
      block.for_each_pixel(1, block.columns(points.size), [&](int, int l) {
        LumenFit fit;
        fit.diameter_px = 2 * store.start_radius[l];
        fit.centre_px = store.start_centre[l];
        fit.fwhm_px = store.fwhm[l];
        fit.contrast = store.contrast[l];
        fit.significance = store.significance[l];
        fits[block.x0 + l] = fit;
      });
      return;
    }
    gather(block, store);
    for (int iteration = 0; iteration < options.iterations; ++iteration) {
      if (options.fit_psf) {
        evaluate<6>(block, store);
        advance<6>(block, store, iteration == 0);
      } else {
        evaluate<5>(block, store);
        advance<5>(block, store, iteration == 0);
      }
      if (!store.moving) break;
    }
    // The sums once more, now with the point spread's column. A step as small as this one is safe to take unseen; a larger one may have
    // been worse than the best so far.
    block.for_each_pixel(6, lanes, [&](int j, int l) {
      const float last = store.trial[j][l], best = store.best[j][l];
      store.trial[j][l] = store.step_px[l] <= small_step_px ? last : best;
    });
    evaluate<6>(block, store);
    if (options.fit_psf)
      finish<true>(block, store);
    else
      finish<false>(block, store);
  }
};

bool finite(float x) { return std::isfinite(x); }

}  // namespace

void fit_lumen(const Stream& stream, ImageView<const float> image, ImageView<const float> variance, ImageView<const std::uint8_t> valid,
               ArrayView<const LumenFitPoint> points, ArrayView<LumenFit> fits, const LumenFitOptions& options) {
  require(points.size == fits.size, "fit_lumen: points and fits differ in size");
  require(points.size == 0 || (image.data != nullptr && image.height > 0 && image.width > 0), "fit_lumen: the image is empty");
  require(variance.data == nullptr || same_size(image, variance), "fit_lumen: the variance differs from the image in size");
  require(valid.data == nullptr || same_size(image, valid), "fit_lumen: valid differs from the image in size");
  require(options.rows >= 1 && options.rows <= 3, "fit_lumen: rows must be 1, 2 or 3");
  require(options.iterations >= 2 && options.iterations <= 50, "fit_lumen: iterations must be 2 to 50");
  require(finite(options.variance) && options.variance > 0, "fit_lumen: variance must be positive");
  LumenFitKernel kernel{image, variance, valid, points, fits, options, chord_table()};
  for_each_tile(stream, 1, points.size, kernel);
}

BlurredChord blurred_chord(float x_px, float radius_px, float psf_px) {
  require(psf_px > 0 && finite(psf_px) && finite(x_px), "blurred_chord: psf_px must be positive");
  require(radius_px >= 0.05f * psf_px && finite(radius_px), "blurred_chord: radius_px is too small");
  const float u = x_px / psf_px, rho = radius_px / psf_px;
  Chord chord;
  if (rho <= rho_narrow) {
    float weights[nodes];
    for (int j = 0; j < nodes; ++j) weights[j] = node_weight(chord_table(), rho, j);
    chord = narrow_chord(u, weights, 1);
  } else {
    chord = wide_chord(u, rho);
  }
  return {psf_px * chord.g, chord.gu, chord.guu / psf_px};
}

}  // namespace cinelumen
