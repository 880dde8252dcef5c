#include "lumen_fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
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
constexpr int nodes = 10, degree = 15;
constexpr float node_step = 0.8f, rho_narrow = 6.0f;
constexpr float reach = 5.5f;  // beyond the edge, in SDs, the profile is below 1e-7

struct ChordTable {
  float weight[degree + 1][nodes];  // of each node over rho^2: a polynomial in rho^2 / 18 - 1, highest power first
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
  // At the Chebyshev points of the polynomials' variable, then by a discrete cosine transform to coefficients.
  std::array<std::array<double, nodes>, degree + 1> at_points{}, chebyshev{};
  const auto angle_of = [](int k) { return std::numbers::pi * (k + 0.5) / (degree + 1); };
  for (int k = 0; k <= degree; ++k) {
    const double rho = std::sqrt(18 * (1 + std::cos(angle_of(k))));
    std::array<double, nodes>& solution = at_points[k];
    for (int i = 0; i < samples; ++i) {
      const double chord = exact_chord(u_at(i), rho);
      for (int a = 0; a < nodes; ++a) solution[a] += basis[i][a] * chord;
    }
    for (int a = 0; a < nodes; ++a) {
      for (int b = 0; b < a; ++b) solution[a] -= lower[a][b] * solution[b];
      solution[a] /= lower[a][a];
    }
    for (int a = nodes - 1; a >= 0; --a) {
      for (int b = a + 1; b < nodes; ++b) solution[a] -= lower[b][a] * solution[b];
      solution[a] /= lower[a][a];
    }
    for (int a = 0; a < nodes; ++a) {
      // The recurrence runs on 2 cosh(jhu), so the node's own exp(-(jh)^2 / 2) goes into its weight.
      const double node = a * double{node_step};
      solution[a] *= std::exp(-0.5 * node * node) / (rho * rho * std::sqrt(2 * std::numbers::pi));
    }
  }
  for (int n = 0; n <= degree; ++n)
    for (int a = 0; a < nodes; ++a)
      for (int k = 0; k <= degree; ++k)
        chebyshev[n][a] += (n == 0 ? 1.0 : 2.0) / (degree + 1) * at_points[k][a] * std::cos(n * angle_of(k));
  ChordTable table{};
  std::array<std::array<double, degree + 1>, degree + 1> power{};  // power[n][m]: of t^m in the Chebyshev polynomial n
  power[0][0] = power[1][1] = 1;
  for (int n = 2; n <= degree; ++n)
    for (int m = 0; m <= n; ++m) power[n][m] = (m > 0 ? 2 * power[n - 1][m - 1] : 0) - power[n - 2][m];
  for (int a = 0; a < nodes; ++a)
    for (int m = 0; m <= degree; ++m) {
      double sum = 0;
      for (int n = m; n <= degree; ++n) sum += chebyshev[n][a] * power[n][m];
      table.weight[degree - m][a] = static_cast<float>(sum);
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

// The build does not let the compiler contract a * b + c, so that every schedule of the CPU gives the same bits; where it pays it is asked
// for.
CINELUMEN_HOST_DEVICE CINELUMEN_INLINE inline float mad(float a, float b, float c) { return fmaf(a, b, c); }

// fast_exp for |x| < 80.
CINELUMEN_HOST_DEVICE CINELUMEN_INLINE inline float small_exp(float x) {
  const float n = floorf(mad(x, 1.44269504f, 0.5f));
  const float r = mad(n, 2.12194440e-4f, mad(n, -0.693359375f, x));
  float p = 1.9875691500e-4f;
  p = mad(p, r, 1.3981999507e-3f);
  p = mad(p, r, 8.3334519073e-3f);
  p = mad(p, r, 4.1665795894e-2f);
  p = mad(p, r, 1.6666665459e-1f);
  p = mad(p, r, 5.0000001201e-1f);
  p = mad(p * r, r, r) + 1.0f;
  return p * std::bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);
}

// body(0) ... body(Count - 1) with compile-time indices: small arrays then live in registers, of every lane at once.
template <int Count, class Body>
CINELUMEN_HOST_DEVICE CINELUMEN_INLINE inline void unrolled(Body body) {
  if constexpr (Count > 0) {
    unrolled<Count - 1>(body);
    body(std::integral_constant<int, Count - 1>{});
  }
}

// Weight of node j at rho, and the weight times the node's place once and twice: at j, nodes + j and 2 nodes + j of `moments`.
CINELUMEN_HOST_DEVICE CINELUMEN_INLINE inline void node_moments(const ChordTable& table, float rho, int j, float* moments, int stride) {
  const float within = rho < rho_narrow ? rho : rho_narrow, square_of = within * within, t = mad(square_of, 1.0f / 18, -1.0f);
  float w = table.weight[0][j];
  unrolled<degree>([&](auto k) CINELUMEN_INLINE { w = mad(w, t, table.weight[k + 1][j]); });
  const float weight = w * square_of, place = static_cast<float>(j) * node_step;
  moments[j * stride] = weight;
  moments[(nodes + j) * stride] = place * weight;
  moments[(2 * nodes + j) * stride] = place * place * weight;
}

// moments: of the nodes, `stride` apart.
CINELUMEN_HOST_DEVICE CINELUMEN_INLINE inline Chord narrow_chord(float u_signed, const float* moments, int stride) {
  float u = fabsf(u_signed);
  const float inside = u < rho_narrow + reach ? 1.0f : 0.0f;
  u = u < rho_narrow + reach ? u : rho_narrow + reach;
  const float e = small_exp(u * node_step), inverse = 1.0f / e, gauss = inside * small_exp(-0.5f * u * u);
  const float two_cosh = e + inverse;
  float c_before = 2, c = two_cosh, s_before = 0, s = e - inverse;
  float a = 2 * moments[0], b = 0, d = 0;  // node 0 was fitted as two Gaussians on one place
  unrolled<nodes - 1>([&](auto before) CINELUMEN_INLINE {
    constexpr int j = before + 1;
    a = mad(moments[j * stride], c, a);
    b = mad(moments[(nodes + j) * stride], s, b);
    d = mad(moments[(2 * nodes + j) * stride], c, d);
    const float c_next = mad(two_cosh, c, -c_before), s_next = mad(two_cosh, s, -s_before);
    c_before = c;
    c = c_next;
    s_before = s;
    s = s_next;
  });
  const float slope = gauss * mad(-u, a, b);
  return {gauss * a, u_signed < 0 ? -slope : slope, gauss * mad(mad(u, u, -1.0f), a, mad(-2 * u, b, d))};
}

constexpr float wide_edge = 5.0f;  // SDs about the edge, within which w(a) is a polynomial

// w and its derivative on [-wide_edge, 0] and [0, wide_edge].
CINELUMEN_HOST_DEVICE CINELUMEN_INLINE inline void near_edge(float a, float& w, float& dw) {
  const bool negative = a < 0;
  const float magnitude = negative ? -a : a, capped = magnitude < wide_edge ? magnitude : wide_edge, t = mad(capped, 0.4f, -1.0f);
  // Degree 13: error 3e-7, its derivative 2e-5.
#define CINELUMEN_STEP(n, p) \
  dw = mad(dw, t, w);        \
  w = mad(w, t, negative ? n : p);
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
}

// `inner`: known to be more than wide_edge inside the edge.
template <bool inner = false>
CINELUMEN_HOST_DEVICE CINELUMEN_INLINE inline Chord wide_chord(float u_signed, float rho) {
  const float u = fabsf(u_signed), a = rho - u, q = rho + u;
  float w = 0, dw = 0;
  if constexpr (!inner) near_edge(a, w, dw);
  // Above 5 the asymptotic series is better than 1.2e-5.
  const float far = a > wide_edge ? a : wide_edge, root = sqrtf(far), inverse = 1.0f / (far * q), r = inverse * far,
              inverse_far = inverse * q;
  const float i2 = inverse_far * inverse_far;
  const float w_far = root * mad(-i2, mad(i2, mad(i2, 0.3076172f, 0.1171875f), 0.125f), 1.0f);
  const float dw_far = 0.5f * root * inverse_far * mad(i2, mad(i2, mad(i2, 3.383789f, 0.8203125f), 0.375f), 1.0f);
  w = inner | (a > wide_edge) ? w_far : (a < -wide_edge ? 0.0f : w);
  dw = inner | (a > wide_edge) ? dw_far : (a < -wide_edge ? 0.0f : dw);
  const float d2 = mad(-a, dw, 0.5f * w), d3 = mad(-a, d2, -0.5f * dw), d4 = mad(-a, d3, -1.5f * d2), d5 = mad(-a, d4, -2.5f * d3);
  const float m0 = w, m1 = dw, m2 = w + d2, m3 = mad(3, dw, d3), m4 = mad(3, w, mad(6, d2, d4)), m5 = mad(15, dw, mad(10, d3, d5));
  const float scale = 2 * sqrtf(q);
  const float b1 = 0.5f * r, b2 = -0.125f * r * r, b3 = 0.0625f * r * r * r;
  const float g = scale * mad(-b3, m3, mad(b2, m2, mad(-b1, m1, m0)));
  const float gu = -scale * mad(-b3, m4, mad(b2, m3, mad(-b1, m2, m1)));
  const float guu = scale * mad(-b3, m5 - m3, mad(b2, m4 - m2, mad(-b1, m3 - m1, m2 - m0)));
  return {g, u_signed < 0 ? -gu : gu, guu};
}

constexpr int max_samples = 192;   // pixels of one profile
constexpr int at_once = 2;         // samples per visit of the sums on the CPU: these are too many for the registers
constexpr int few_iterations = 3;  // enough for most profiles
constexpr int walked_at_once = 4;
constexpr int slices = 32;  // of the samples on CUDA, a thread of each lane's own each: a warp's worth of threads per profile
static_assert(max_samples % at_once == 0);
// Steps shrink about tenfold each from here.
CINELUMEN_HOST_DEVICE CINELUMEN_INLINE inline float small_step(float radius) {
  constexpr float least_px = 0.02f, most_px = 0.04f, of_radius = 0.006f;
  const float wanted = of_radius * radius, raised = wanted > least_px ? wanted : least_px;
  return raised < most_px ? raised : most_px;
}
constexpr float small_step_of_psf_px = 0.02f;
constexpr float hopeless = 6;    // chi2 that kappa has to take off: nothing that could be used takes off less than twice this
constexpr float tail = 4.2f;     // SDs beyond the edge where the vessel counts as gone: 1e-5 of its height is left
constexpr int search_half = 95;  // px either side in the search for a start

// Columns of the model, linear ones first: b0, b1, kappa, then R, c and s over kappa. The upper triangle is packed by columns, so that
// five of six are a prefix.
enum Column { by_b0, by_b1, by_kappa, by_radius, by_centre, by_psf };
CINELUMEN_HOST_DEVICE constexpr int packed(int i, int j) { return j * (j + 1) / 2 + i; }
// What a trial needs summed: the products that involve the vessel, then those with the values.
constexpr int sums = 22, first_value_sum = 18;
CINELUMEN_HOST_DEVICE constexpr int sum_of(int i, int j) { return packed(i, j) - 3; }
CINELUMEN_HOST_DEVICE constexpr int value_sum_of(int j) { return first_value_sum + j - by_kappa; }
// And what a profile needs once.
enum Moment { m_1, m_x, m_xx, m_y, m_xy, m_yy, moments_count };

// Which models the lanes of a tile need; the same for the whole tile.
enum class Width { narrow, wide, both, inner };  // inner: wide, and no edge is near

struct LumenFitKernel {
  ImageView<const float> image;
  VarianceSource variance;
  ImageView<const std::uint8_t> valid;
  LumenFitList list;  // without data: all points
  ArrayView<const LumenFitPoint> points;
  ArrayView<LumenFit> fits;
  LumenFitOptions options;
  ChordTable table;

  // The width is the number of profiles. They are worked on in groups, whose profiles are the lanes below: one vector register of floats,
  // and on CUDA, where a tile is a group, what samples fit the shared memory. No profile's result depends on which others share its group.
  using CpuTile = TileShape<1, 256>;
  using CudaTile = TileShape<1, 8>;
  static constexpr int vector_lanes = 16;

  // What sampling needs of a point, by lane: vector registers instead of a stride over the points.
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
    last_step,
    limit,
    near,
    beyond,
    peak_sum,
    peak,
    outside,
    outside_rows,
    holes,
    top,
    low_before,
    low_after,
    edge_before,
    edge_after,
    crossing,  // of four: x and value on either side of the edge
    crossing_end = crossing + 8,
    noise_here = crossing_end,
    reference,
    prior_kappa,
    prior_precision,  // of kappa; 0: none
    prior_s,          // with the pixel
    s_precision,
    places
  };

  // What goes along with a profile to another lane, next to its samples: rows of one number per lane.
  template <int Columns>
  struct LaneRows {
    float kept[sums][Columns];  // the sums at the best so far
    float moment[moments_count][Columns];
    float trial[6][Columns], best[6][Columns];  // R, c, kappa, b0, b1, s
    float chi2[Columns], lambda[Columns], step[2][Columns], s_sd[Columns];
    float place[places][Columns];
    float start_radius[Columns], start_centre[Columns], fwhm[Columns], contrast[Columns], significance[Columns], half[Columns],
        lost[Columns];
    int count[Columns], used[Columns], stride[Columns], done[Columns];
    int index[Columns];  // of the lane's point; the last one's where there are no more
  };
  template <int Columns>
  struct Group : LaneRows<Columns> {
    float x[max_samples][Columns], value[max_samples][Columns], weight[max_samples][Columns];
    float sum[sums][Columns];   // at the trial
    float inverse[2][Columns];  // of s and R
    float node[3 * nodes][Columns];
    int low[Columns], high[Columns], inner_low[Columns], inner_high[Columns], worse[Columns];
    int elsewhere[Columns];  // 1: handed over
    int longest, first, last, inner_first, inner_last, any_narrow, any_wide, any_worse, moving, clear;
    float partial[Columns < 16 ? slices : 1][sums + 1][Columns];  // CUDA only; one more, so that slices lie in different banks
  };
  template <int Height, int Columns>
  struct Scratch {
    Group<Columns> group;
  };
  // Wide tiles: most profiles need few iterations, a few need all. Those that are left go on together.
  template <int Height, int Columns>
  requires(Columns > vector_lanes) struct Scratch<Height, Columns> {
    Group<vector_lanes> group, left[2];
  };

  CINELUMEN_HOST_DEVICE bool varies() const { return variance.plane.data != nullptr || variance.stored.stored.data != nullptr; }
  CINELUMEN_HOST_DEVICE float variance_at(int y, int x) const {
    if (variance.plane.data != nullptr) return variance.plane(y, x);
    if (variance.stored.stored.data == nullptr) return options.variance;
    const int value = variance.stored.stored(y, x), last = variance.stored.table.size - 1;
    return variance.stored.table[value < last ? value : last];
  }

  CINELUMEN_HOST_DEVICE bool readable(int y, int x) const {
    return y >= 0 && y < image.height && x >= 0 && x < image.width && (valid.data == nullptr || valid(y, x) != 0);
  }

  // body(i, lane) for first <= i < last in this order: one thread per lane on CUDA, all lanes at once on the CPU.
  template <int Columns, class Body>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline void walk(const Block<1, Columns>& block, int first, int last, Body body) {
    if constexpr (on_device) {
      block.for_each_pixel(1, Columns, [&](int, int l) {
        for (int i = first; i < last; ++i) body(i, l);
      });
    } else {
      // Several at a time: what they add to stays in registers between them.
      int i = first;
      for (; i + walked_at_once <= last; i += walked_at_once)
        block.for_each_pixel(
            1, Columns, [&](int, int l) CINELUMEN_INLINE { unrolled<walked_at_once>([&](auto k) CINELUMEN_INLINE { body(i + k, l); }); });
      for (; i < last; ++i) block.for_each_pixel(1, Columns, [&](int, int l) CINELUMEN_INLINE { body(i, l); });
    }
  }

  // Samples lie in columns (or rows, where the normal is nearer to that axis): one step per `major`, and on the other axis the `rows`
  // pixels nearest to the profile's line. Every pixel near the line is met once.
  template <int Columns, class Store>
  CINELUMEN_HOST_DEVICE void place_lanes(const Block<1, Columns>& block, Store& store) const {
    block.for_each_pixel(1, Columns, [&](int, int l) {
      const LumenFitPoint p = points[store.index[l]];
      const bool columns = fabsf(p.normal_x) >= fabsf(p.normal_y);
      const float major = columns ? p.normal_x : p.normal_y, minor = columns ? p.normal_y : p.normal_x;
      store.place[n_major][l] = major;
      store.place[n_minor][l] = minor;
      store.place[slope][l] = minor / major;
      store.place[p_major][l] = columns ? p.x : p.y;
      store.place[p_minor][l] = columns ? p.y : p.x;
      store.place[first_major][l] = floorf((columns ? p.x : p.y) + 0.5f);
      store.place[by_columns][l] = columns ? 1.0f : 0.0f;
      store.place[from][l] = p.from_px;
      store.place[to][l] = p.to_px;
      store.place[major_step][l] = 1;
      const float s = sqrtf(square(p.psf_px) + 1.0f / 12.0f);
      // The prior is on the point spread without the pixel; its SD carries over by ds_eff = (s / s_eff) ds.
      store.s_sd[l] = p.psf_sd_px * p.psf_px / s;
      store.place[prior_s][l] = s;
      store.place[s_precision][l] = p.psf_sd_px > 0 ? 1.0f / square(store.s_sd[l]) : 0.0f;
      store.place[prior_kappa][l] = p.kappa;
      store.place[prior_precision][l] = p.kappa_sd > 0 ? 1.0f / square(p.kappa_sd) : 0.0f;
      store.start_radius[l] = p.radius_px;
      store.start_centre[l] = p.centre_px;
      store.fwhm[l] = 0;
      store.contrast[l] = 0;
      store.significance[l] = 0;
    });
  }
  struct Place {
    float major, minor, distance;  // pixel on either axis; along the normal
  };
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline int index_of(const Place& at, bool columns, int pitch) {
    const int major = static_cast<int>(at.major), minor = static_cast<int>(at.minor);
    return (columns ? minor : major) * pitch + (columns ? major : minor);
  }
  template <class Store>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline Place place_of(const Store& store, int l, float step, int row, int rows) {
    const float major = store.place[first_major][l] + step, offset = major - store.place[p_major][l];
    const float line = mad(offset, store.place[slope][l], store.place[p_minor][l]);
    const float minor = floorf(line - 0.5f * static_cast<float>(rows - 1) + 0.5f) + static_cast<float>(row);
    return {major, minor, mad(offset, store.place[n_major][l], (minor - store.place[p_minor][l]) * store.place[n_minor][l])};
  }

  bool all_valid(int y0, int y1, int x0, int x1) const {
    if (valid.data == nullptr) return true;
    const int width = x1 - x0 + 1;
    for (int y = y0; y <= y1; ++y) {
      const std::uint8_t* const row = valid.row(y) + x0;
      if (width < chunk) {
        for (int x = 0; x < width; ++x)
          if (row[x] == 0) return false;
        continue;
      }
      std::uint64_t zeros = 0;
      for (int x = 0; x + chunk < width; x += chunk) zeros |= zeros_among(row + x);
      if ((zeros | zeros_among(row + width - chunk)) != 0) return false;  // may overlap those before
    }
    return true;
  }
  // Not 0 where one of a chunk's bytes is.
  static constexpr int chunk = 64;
  static CINELUMEN_INLINE inline std::uint64_t zeros_among(const std::uint8_t* at) {
    std::uint64_t words[chunk / 8], zeros = 0;
    std::memcpy(words, at, chunk);
    for (const std::uint64_t word : words) zeros |= (word - 0x0101010101010101u) & ~word & 0x8080808080808080u;
    return zeros;
  }

  // Whether all pixels that the lanes' samples may need can be read without a look: then the reads are vector code. Asked
  // on the CPU only. `margin`: rows beside the line.
  template <int Columns, class Store, class EndStep>
  CINELUMEN_HOST_DEVICE void find_clear(const Block<1, Columns>& block, Store& store, float first_step, EndStep end_step,
                                        int margin) const {
    if constexpr (on_device) {
      block.once([&] { store.clear = 0; });
    } else {
      store.clear = 0;
      if (image.pitch * image.height > (1 << 30) || variance.plane.pitch * variance.plane.height > (1 << 30)) return;
      constexpr int room = 10;  // a box serves several neighbours
      int low_y = 0, high_y = -1, low_x = 0, high_x = -1;
      for (int l = 0; l < Columns; ++l) {
        const float start = store.place[first_major][l] + first_step, end = store.place[first_major][l] + end_step(l);
        const float a = (start - store.place[p_major][l]) * store.place[slope][l],
                    b = (end - store.place[p_major][l]) * store.place[slope][l];
        const float side = static_cast<float>(margin), middle = store.place[p_minor][l];
        // Not for places that an int cannot hold.
        if (!(start > -1e6f && end < 1e6f && middle > -1e6f && middle < 1e6f)) return;
        const int major0 = static_cast<int>(start), major1 = static_cast<int>(end);
        const int minor0 = static_cast<int>(floorf(middle + (a < b ? a : b) - side)),
                  minor1 = static_cast<int>(floorf(middle + (a < b ? b : a) + side)) + 1;
        const bool columns = store.place[by_columns][l] > 0;
        const int y0 = columns ? minor0 : major0, y1 = columns ? minor1 : major1, x0 = columns ? major0 : minor0,
                  x1 = columns ? major1 : minor1;
        if (y0 >= low_y && y1 <= high_y && x0 >= low_x && x1 <= high_x) continue;
        if (y0 < 0 || x0 < 0 || y1 >= image.height || x1 >= image.width) return;
        // As wide as whole chunks.
        const int wide = (x1 - x0 + 2 * room + chunk) / chunk * chunk, left = (wide - (x1 - x0)) / 2;
        low_y = y0 > room ? y0 - room : 0;
        low_x = x0 > left ? x0 - left : 0;
        high_y = y1 + room < image.height ? y1 + room : image.height - 1;
        high_x = low_x + wide <= image.width ? low_x + wide - 1 : image.width - 1;
        if (all_valid(low_y, high_y, low_x, high_x)) continue;
        low_y = y0;
        high_y = y1;
        low_x = x0;
        high_x = x1;
        if (!all_valid(low_y, high_y, low_x, high_x)) return;
      }
      store.clear = 1;
    }
  }

  CINELUMEN_HOST_DEVICE static int own_reach(float radius_px) { return clamp_int(static_cast<int>(2.5f * radius_px + 9), 4, search_half); }

  template <int Columns, class Store>
  CINELUMEN_HOST_DEVICE void search(const Block<1, Columns>& block, Store& store) const {
    // A profile of three-pixel means over the search window, then per lane the half-maximum walk.
    block.once([&] {
      store.longest = 0;
      for (int l = 0; l < Columns; ++l) {
        const int need = own_reach(store.start_radius[l]);
        store.longest = need > store.longest ? need : store.longest;
      }
    });
    const int reach_px = store.longest, steps = 2 * reach_px + 1;
    [[maybe_unused]] const int pitch = static_cast<int>(image.pitch);
    [[maybe_unused]] const float* const pixels = image.data;
    find_clear(
        block, store, -static_cast<float>(reach_px), [&](int) { return static_cast<float>(reach_px); }, 2);
    if (!on_device && store.clear) {
      block.for_each_pixel(steps, Columns, [&](int i, int l) CINELUMEN_INLINE {
        const Place middle = place_of(store, l, static_cast<float>(i - reach_px), 1, 3);
        store.x[i][l] = middle.distance;
        store.weight[i][l] = std::bit_cast<float>(index_of(middle, store.place[by_columns][l] > 0, pitch));
      });
      block.for_each_pixel(steps, Columns, [&](int i, int l) CINELUMEN_INLINE {
        const int next = store.place[by_columns][l] > 0 ? pitch : 1, at = std::bit_cast<int>(store.weight[i][l]);
        const float distance = store.x[i][l], sideways = store.place[n_minor][l];
        const float low = store.place[from][l], high = store.place[to][l];
        const float a = distance - sideways, b = distance, c = distance + sideways;
        const float wa = (a >= low) & (a <= high) ? 1.0f : 0.0f, wb = (b >= low) & (b <= high) ? 1.0f : 0.0f,
                    wc = (c >= low) & (c <= high) ? 1.0f : 0.0f;
        const float weight = wa + wb + wc, bounded = weight > 0 ? weight : 1.0f;
        store.value[i][l] = (wa * pixels[at - next] + wb * pixels[at] + wc * pixels[at + next]) / bounded;
        store.weight[i][l] = weight > 0 ? 1.0f : 0.0f;
      });
    } else {
      block.for_each_pixel(steps, Columns, [&](int i, int l) {
        const Place middle = place_of(store, l, static_cast<float>(i - reach_px), 1, 3);
        const bool columns = store.place[by_columns][l] > 0;
        const int major = static_cast<int>(middle.major), minor = static_cast<int>(middle.minor);
        store.x[i][l] = middle.distance;
        float sum = 0, weight = 0;
        for (int row = -1; row <= 1; ++row) {
          const int y = columns ? minor + row : major, x = columns ? major : minor + row;
          const float distance = store.x[i][l] + static_cast<float>(row) * store.place[n_minor][l];
          if (distance >= store.place[from][l] && distance <= store.place[to][l] && readable(y, x)) {
            sum += image(y, x);
            weight += 1;
          }
        }
        store.value[i][l] = weight > 0 ? sum / weight : 0;
        store.weight[i][l] = weight > 0 ? 1.0f : 0.0f;
      });
    }
    block.for_each_pixel(1, Columns, [&](int, int l) {
      const LumenFitPoint p = points[store.index[l]];
      store.place[limit][l] = fminf(2.5f * p.radius_px + 8, static_cast<float>(own_reach(p.radius_px) - 1));
      store.place[near][l] = fmaxf(1.5f, 0.6f * p.radius_px);
      store.place[beyond][l] = p.radius_px + 2.5f * sqrtf(square(p.psf_px) + 1.0f / 12.0f);
      store.place[peak_sum][l] = -1e30f;
      store.place[peak][l] = static_cast<float>(reach_px);
      store.place[outside][l] = store.place[outside_rows][l] = store.place[holes][l] = 0;
    });
    walk(block, 1, 2 * reach_px, [&](int i, int l) CINELUMEN_INLINE {
      const float x = fabsf(store.x[i][l]), weight = store.weight[i][l], here = store.value[i][l];
      const float three = store.value[i - 1][l] + here + store.value[i + 1][l], best = store.place[peak_sum][l], at = store.place[peak][l];
      const bool inner = x <= store.place[near][l], higher = inner & (weight > 0) & (three > best);
      store.place[peak_sum][l] = higher ? three : best;
      store.place[peak][l] = higher ? static_cast<float>(i) : at;
      const float take = (x > store.place[beyond][l]) & (x <= store.place[limit][l]) ? weight : 0.0f;
      store.place[outside][l] += take * here;
      store.place[outside_rows][l] += take;
      store.place[holes][l] += inner ? 1 - weight : 0.0f;
    });
    block.for_each_pixel(1, Columns, [&](int, int l) {
      const int at = static_cast<int>(store.place[peak][l]);
      const float highest = (store.value[at - 1][l] + store.value[at][l] + store.value[at + 1][l]) * (1.0f / 3.0f);
      store.place[top][l] = store.place[low_before][l] = store.place[low_after][l] = highest;
      store.place[edge_before][l] = 0;
      store.place[edge_after][l] = 1e6f;
    });
    // The lowest on either side, then the first crossing of half the way down from the peak outwards.
    walk(block, 1, 2 * reach_px, [&](int i, int l) CINELUMEN_INLINE {
      const float at = static_cast<float>(i), here = store.value[i][l], before = store.place[low_before][l],
                  after = store.place[low_after][l];
      const bool counts = (fabsf(store.x[i][l]) <= store.place[limit][l]) & (store.weight[i][l] > 0);
      store.place[low_before][l] = counts & (at <= store.place[peak][l]) & (here < before) ? here : before;
      store.place[low_after][l] = counts & (at >= store.place[peak][l]) & (here < after) ? here : after;
    });
    walk(block, 1, 2 * reach_px, [&](int i, int l) CINELUMEN_INLINE {
      const float at = static_cast<float>(i), here = store.value[i][l], highest = store.place[top][l];
      const float before = store.place[edge_before][l], after = store.place[edge_after][l];
      const bool is_before = (at < store.place[peak][l]) & (here <= 0.5f * (highest + store.place[low_before][l]));
      const bool is_after = (at > store.place[peak][l]) & (here <= 0.5f * (highest + store.place[low_after][l])) & (at < after);
      store.place[edge_before][l] = is_before ? at : before;
      store.place[edge_after][l] = is_after ? at : after;
    });
    block.for_each_pixel(1, Columns, [&](int, int l) {
      for (int side = 0; side < 2; ++side) {
        const int step = side == 0 ? -1 : 1;
        const int i = clamp_int(static_cast<int>(store.place[side == 0 ? edge_before : edge_after][l]), 1, 2 * reach_px - 1);
        store.place[crossing + 4 * side][l] = store.x[i - step][l];
        store.place[crossing + 4 * side + 1][l] = store.value[i - step][l];
        store.place[crossing + 4 * side + 2][l] = store.x[i][l];
        store.place[crossing + 4 * side + 3][l] = store.value[i][l];
      }
      const LumenFitPoint& p = points[store.index[l]];
      const int y = static_cast<int>(floorf(p.y + 0.5f)), x = static_cast<int>(floorf(p.x + 0.5f));
      store.place[noise_here][l] = readable(y, x) ? variance_at(y, x) : options.variance;
    });
    block.for_each_pixel(1, Columns, [&](int, int l) CINELUMEN_INLINE {
      const LumenFitPoint& p = points[store.index[l]];
      const float highest = store.place[top][l], psf_px = p.psf_px, radius_px = p.radius_px;
      float edge[2];
      bool found = true;
      unrolled<2>([&](auto side) CINELUMEN_INLINE {
        const float low = store.place[side == 0 ? low_before : low_after][l], half = 0.5f * (highest + low);
        const float inner_x = store.place[crossing + 4 * side][l], inner = store.place[crossing + 4 * side + 1][l];
        const float outer_x = store.place[crossing + 4 * side + 2][l], outer = store.place[crossing + 4 * side + 3][l];
        const bool falls = inner > outer;
        const float part = (falls ? inner - half : 0.5f) / (falls ? inner - outer : 1.0f);
        edge[side] = inner_x + part * (outer_x - inner_x);
        found = found & (highest > low) & (fabsf(outer_x) <= store.place[limit][l] + 1);
      });
      const float fwhm = fabsf(edge[1] - edge[0]), s2 = square(psf_px) + 1.0f / 12.0f;
      // The half-maximum width of an ellipse is sqrt(3) / 2 of its axis; the blur's own width comes off in squares.
      const float across = square(fwhm) - 3.0f * s2, least = 0.8f * s2, radius = sqrtf(across > least ? across : least) * 0.57735f;
      // Against what lies beyond the vessel's blur: is there anything to fit? With nothing outside, or holes in the middle, it is for the
      // fit to say.
      const float rows = store.place[outside_rows][l], bounded_rows = rows > 0 ? rows : 1.0f, measured = store.place[noise_here][l];
      const float noise = measured > 1e-12f ? measured : 1e-12f;
      const float contrast = highest - store.place[outside][l] / bounded_rows;
      const float significance = contrast / sqrtf(noise * (1.0f / 9.0f + 1.0f / (3 * bounded_rows)));
      const bool tells = (store.place[holes][l] == 0) & (rows > 0);
      store.contrast[l] = rows > 0 ? contrast : highest;
      store.significance[l] = tells ? significance : 1e6f;
      store.fwhm[l] = found ? fwhm : 0.0f;
      store.start_radius[l] = found ? (radius < 60.0f ? radius : 60.0f) : radius_px;
      store.start_centre[l] = found ? 0.5f * (edge[0] + edge[1]) : 0.0f;
    });
  }

  // Samples beyond a lane's last are read where that is.
  template <class Store>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline Place sample_place(const Store& store, int l, int step, int row, int rows) {
    const float last = store.place[last_step][l], at = static_cast<float>(step);
    return place_of(store, l, (at < last ? at : last) * store.place[major_step][l], row, rows);
  }

  // Puts get(number) in the place of each number.
  template <int Columns, class Get>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline void look_up(float (*plane)[Columns], int count, Get get) {
    for (int i = 0; i < count; ++i)
      for (int l = 0; l < Columns; ++l) plane[i][l] = get(std::bit_cast<std::uint32_t>(plane[i][l]));
  }

  // Where nothing needs a look: places are vector code, and reads follow them closely. One variance for the rows of a step: it hardly
  // differs between neighbours.
  template <int Columns, class Store>
  CINELUMEN_HOST_DEVICE void read_clear(const Block<1, Columns>& block, Store& store) const {
    const int rows = options.rows, longest = store.longest;
    const float* const pixels = image.data;
    const std::uint16_t* const stored = variance.stored.stored.data;
    const float* const variance_of = variance.stored.table.data;
    const ImageView<const float> noise = variance.plane.data ? variance.plane : image;
    const int pitch = static_cast<int>(image.pitch), last_value = variance.stored.table.size - 1,
              noise_pitch = static_cast<int>(stored ? variance.stored.stored.pitch : noise.pitch);
    // Numbers of pixels stand where their values will.
    for (int row = 0; row < rows; ++row)
      block.for_each_pixel((longest + rows - 1 - row) / rows, Columns, [&](int step, int l) CINELUMEN_INLINE {
        const Place at = sample_place(store, l, step, row, rows);
        const bool columns = store.place[by_columns][l] > 0;
        store.x[step * rows + row][l] = at.distance;
        store.value[step * rows + row][l] = std::bit_cast<float>(index_of(at, columns, pitch));
        store.weight[step * rows + row][l] = std::bit_cast<float>(index_of(at, columns, noise_pitch));
      });
    look_up(store.value, longest, [&](std::uint32_t at) CINELUMEN_INLINE { return pixels[at]; });
    for (int first = 0; first < longest; first += rows) {
      if (stored)
        look_up(store.weight + first, 1, [&](std::uint32_t at) CINELUMEN_INLINE {
          const int value = stored[at];
          return variance_of[value < last_value ? value : last_value];
        });
      else
        look_up(store.weight + first, 1, [&](std::uint32_t at) CINELUMEN_INLINE { return noise.data[at]; });
      for (int i = first + 1; i < first + rows && i < longest; ++i)
        block.for_each_pixel(1, Columns, [&](int, int l) CINELUMEN_INLINE { store.weight[i][l] = store.weight[first][l]; });
    }
    if (!varies()) block.for_each_pixel(longest, Columns, [&](int i, int l) { store.weight[i][l] = options.variance; });
  }

  template <int Columns, class Store>
  CINELUMEN_HOST_DEVICE void read(const Block<1, Columns>& block, Store& store) const {
    const int rows = options.rows;
    block.for_each_pixel(store.longest, Columns, [&](int i, int l) {
      const Place at = sample_place(store, l, i / rows, i % rows, rows);
      const bool columns = store.place[by_columns][l] > 0;
      const float minor_first = at.minor - static_cast<float>(i % rows);
      const bool somewhere = at.major > -1e6f && at.major < 1e6f && at.minor > -1e6f && at.minor < 1e6f;  // an int can hold it
      const int y = somewhere ? static_cast<int>(columns ? at.minor : at.major) : -1,
                x = somewhere ? static_cast<int>(columns ? at.major : at.minor) : -1;
      const int y_first = columns && somewhere ? static_cast<int>(minor_first) : y,
                x_first = columns || !somewhere ? x : static_cast<int>(minor_first);
      const bool use = readable(y, x), use_first = readable(y_first, x_first);
      store.x[i][l] = at.distance;
      store.value[i][l] = use ? image(y, x) : 0;
      store.weight[i][l] = use ? variance_at(use_first ? y_first : y, use_first ? x_first : x) : -1.0f;
    });
  }

  template <int Columns, class Store>
  CINELUMEN_HOST_DEVICE void gather(const Block<1, Columns>& block, Store& store) const {
    block.for_each_pixel(1, Columns, [&](int, int l) {
      const float s = store.place[prior_s][l], radius = fmaxf(store.start_radius[l], 0.4f * s);
      const float half = 1.5f * radius + 5 * s + 2, start_at = options.search ? 0.0f : points[store.index[l]].first_radius_px;
      const int room = max_samples / options.rows;
      int stride = 1;
      while (2 * static_cast<int>(half / static_cast<float>(stride)) + 1 > room && stride < 8) ++stride;
      // Steps on the major axis are 1 / n_major apart along the profile.
      const int side = clamp_int(static_cast<int>(half * fabsf(store.place[n_major][l])) / stride + 1, 3, (room - 1) / 2);
      store.half[l] = half;
      store.stride[l] = stride;
      store.count[l] = (2 * side + 1) * options.rows;
      // Kappa, for the second-order term only: the prior's, or what the search saw.
      const float by_contrast = store.contrast[l] > 0 ? store.contrast[l] / (2 * radius) : 0.0f;
      store.trial[0][l] = start_at > 0 ? fmaxf(start_at, 0.4f * s) : radius;
      store.trial[1][l] = store.start_centre[l];
      store.trial[2][l] = store.place[prior_precision][l] > 0 ? store.place[prior_kappa][l] : by_contrast;
      store.trial[3][l] = store.trial[4][l] = 0;
      store.trial[5][l] = s;
      store.lambda[l] = 1e-3f;
      store.chi2[l] = INFINITY;  // whatever comes first is better
      store.done[l] = store.elsewhere[l] = 0;
      const float start = floorf(store.start_centre[l] * store.place[n_major][l] + 0.5f);
      store.place[major_step][l] = static_cast<float>(stride);
      store.place[last_step][l] = static_cast<float>(2 * side);
      store.place[first_major][l] += start - static_cast<float>(side * stride);
      store.used[l] = 0;
      store.lost[l] = 0;  // the number inside, until all are counted
      store.place[reference][l] = 0;
      for (int k = 0; k < moments_count; ++k) store.moment[k][l] = 0;
    });
    block.once([&] {
      store.longest = 0;
      for (int l = 0; l < Columns; ++l) store.longest = store.count[l] > store.longest ? store.count[l] : store.longest;
      store.longest = (store.longest + at_once - 1) / at_once * at_once;
    });
    const int longest = store.longest;
    find_clear(
        block, store, 0, [&](int l) { return store.place[last_step][l] * store.place[major_step][l]; }, (options.rows + 1) / 2);
    if (!on_device && store.clear)
      read_clear(block, store);
    else
      read(block, store);
    walk(block, 0, longest, [&](int i, int l) CINELUMEN_INLINE {
      const float noise = store.weight[i][l], distance = store.x[i][l], value = store.value[i][l];
      const bool inside = (i < store.count[l]) & (distance >= store.place[from][l]) & (distance <= store.place[to][l]);
      const bool use = inside & (noise > -0.5f);
      const float bounded = noise > 1e-12f ? noise : 1e-12f;
      store.weight[i][l] = (use ? 1.0f : 0.0f) / bounded;
      store.used[l] += use ? 1 : 0;
      store.lost[l] += inside ? 1.0f : 0.0f;
      store.place[reference][l] += use ? value : 0.0f;
    });
    block.for_each_pixel(1, Columns, [&](int, int l) {
      const float used = static_cast<float>(store.used[l]);
      store.lost[l] = store.lost[l] > 0 ? 1.0f - used / store.lost[l] : 1.0f;
      store.place[reference][l] /= used > 0 ? used : 1.0f;
    });
    // About the mean, so that little is lost where sums of squares are subtracted from one another.
    walk(block, 0, longest, [&](int i, int l) CINELUMEN_INLINE {
      const float value = store.value[i][l] - store.place[reference][l], x = store.x[i][l], weight = store.weight[i][l];
      const float wx = weight * x, wy = weight * value;
      store.value[i][l] = value;
      store.moment[m_1][l] += weight;
      store.moment[m_x][l] += wx;
      store.moment[m_xx][l] = mad(wx, x, store.moment[m_xx][l]);
      store.moment[m_y][l] += wy;
      store.moment[m_xy][l] = mad(wx, value, store.moment[m_xy][l]);
      store.moment[m_yy][l] = mad(wy, value, store.moment[m_yy][l]);
    });
  }

  // One sample's columns that involve the vessel, its weight (0 beyond the vessel's reach) and value.
  struct Sample {
    float column[6], weight, value;
  };
  template <Width width, class Store>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline Sample sample_at(const Store& store, int i, int l, int stride) {
    const float radius = store.trial[0][l], kappa = store.trial[2][l], s = store.trial[5][l];
    const float inverse_s = store.inverse[0][l], inverse_radius = store.inverse[1][l], rho = radius * inverse_s;
    const float x = store.x[i][l], from_centre = x - store.trial[1][l], u = from_centre * inverse_s;
    Chord chord;
    if constexpr (width == Width::narrow) {
      chord = narrow_chord(u, &store.node[0][l], stride);
    } else if constexpr (width == Width::wide) {
      chord = wide_chord(u, rho);
    } else if constexpr (width == Width::inner) {
      chord = wide_chord<true>(u, rho);
    } else {
      const Chord a = narrow_chord(u, &store.node[0][l], stride), b = wide_chord(u, rho);
      const bool small = rho <= rho_narrow;
      chord = {small ? a.g : b.g, small ? a.gu : b.gu, small ? a.guu : b.guu};
    }
    Sample sample;
    sample.weight = fabsf(u) < rho + tail ? store.weight[i][l] : 0.0f;
    sample.value = store.value[i][l];
    // The blur acts on the intensity: -ln E exp(-p) = E p - Var(p) / 2, and the variance within the point spread is the sum over n
    // of (s^n d^n g / dx^n)^2 / n!. The first two terms leave a few per cent of what is itself a hundredth of a millimetre.
    const float g = s * chord.g, variance_within = s * s * mad(chord.gu, chord.gu, 0.5f * chord.guu * chord.guu);
    sample.column[by_kappa] = mad(-0.5f * kappa, variance_within, g);
    sample.column[by_b0] = 1.0f;
    sample.column[by_b1] = x;
    // Euler's relation and the heat equation give the other two derivatives.
    sample.column[by_radius] = mad(-s, chord.guu, mad(-from_centre, chord.gu, g)) * inverse_radius;
    sample.column[by_centre] = -chord.gu;
    sample.column[by_psf] = chord.guu;
    return sample;
  }
  // add(k, term a, term b): sum k grows by a * b.
  template <class Add>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline void for_each_sum(const Sample& sample, Add add) {
    float weighted[6];
    unrolled<6>([&](auto j) CINELUMEN_INLINE { weighted[j] = sample.weight * sample.column[j]; });
    unrolled<6>([&](auto j) CINELUMEN_INLINE {
      if constexpr (j >= by_kappa) {
        unrolled<j + 1>([&](auto i) CINELUMEN_INLINE { add(std::integral_constant<int, sum_of(i, j)>{}, weighted[j], sample.column[i]); });
        add(std::integral_constant<int, value_sum_of(j)>{}, weighted[j], sample.value);
      }
    });
  }

  // Adds the samples first ... last - 1 to the sums at the trial, which on CUDA are these alone.
  template <Width width, int Columns, class Store>
  CINELUMEN_HOST_DEVICE void accumulate(const Block<1, Columns>& block, Store& store, int first, int last) const {
    if constexpr (on_device) {
      block.for_each_pixel(slices, Columns, [&](int slice, int l) {
        float sum[sums];
        unrolled<sums>([&](auto k) { sum[k] = 0; });
        // A sample always falls to the same slice, whatever range its tile needs.
        for (int i = first / slices * slices + slice; i < last; i += slices)
          for_each_sum(sample_at<width>(store, i, l, Columns), [&](auto k, float a, float b) { sum[k] = mad(a, b, sum[k]); });
        unrolled<sums>([&](auto k) { store.partial[slice][k][l] = sum[k]; });
      });
      block.for_each_pixel(sums, Columns, [&](int k, int l) {
        float total = 0;
        for (int slice = 0; slice < slices; ++slice) total += store.partial[slice][k][l];
        store.sum[k][l] = total;
      });
    } else {
      for (int i = first; i < last; i += at_once)
        block.for_each_pixel(1, Columns, [&](int, int l) CINELUMEN_INLINE {
          float sum[sums];
          unrolled<sums>([&](auto k) CINELUMEN_INLINE { sum[k] = store.sum[k][l]; });
          unrolled<at_once>([&](auto q) CINELUMEN_INLINE {
            for_each_sum(sample_at<width>(store, i + q, l, Columns),
                         [&](auto k, float a, float b) CINELUMEN_INLINE { sum[k] = mad(a, b, sum[k]); });
          });
          unrolled<sums>([&](auto k) CINELUMEN_INLINE { store.sum[k][l] = sum[k]; });
        });
    }
  }

  template <int Columns, class Store>
  CINELUMEN_HOST_DEVICE void evaluate(const Block<1, Columns>& block, Store& store) const {
    // Beyond the vessel's reach the sums get nothing.
    const float rows = static_cast<float>(options.rows);
    block.for_each_pixel(1, Columns, [&](int, int l) {
      const float extent = store.trial[0][l] + tail * store.trial[5][l] + 0.5f * rows * fabsf(store.place[n_minor][l]);
      const float middle = store.trial[1][l] * store.place[n_major][l] + store.place[p_major][l] - store.place[first_major][l];
      const float half = fabsf(store.place[n_major][l]) * extent, inverse = 1.0f / store.place[major_step][l];
      store.inverse[0][l] = 1.0f / store.trial[5][l];
      store.inverse[1][l] = 1.0f / store.trial[0][l];
      const int low = static_cast<int>(fmaxf((middle - half) * inverse, 0.0f)) * options.rows;
      const int high = (static_cast<int>(fmaxf((middle + half) * inverse, 0.0f)) + 2) * options.rows;
      const bool counts = !store.done[l] && store.used[l] > 0;
      store.low[l] = counts ? low : max_samples;
      store.high[l] = counts ? high : 0;
      const float inner = store.trial[0][l] - (wide_edge + 0.01f) * store.trial[5][l] - 0.5f * rows * fabsf(store.place[n_minor][l]);
      const float inner_half = fabsf(store.place[n_major][l]) * inner;
      store.inner_low[l] = counts ? (static_cast<int>(fmaxf((middle - inner_half) * inverse, 0.0f)) + 2) * options.rows : 0;
      store.inner_high[l] = counts ? static_cast<int>(fmaxf((middle + inner_half) * inverse, 0.0f)) * options.rows : max_samples;
    });
    block.once([&] {
      int narrow = 0, wide = 0, first = max_samples, last = 0, inner_first = 0, inner_last = max_samples;
      for (int l = 0; l < Columns; ++l) {
        if (store.done[l]) continue;
        const bool small = store.trial[0][l] <= rho_narrow * store.trial[5][l];
        narrow |= small ? 1 : 0;
        wide |= small ? 0 : 1;
        first = store.low[l] < first ? store.low[l] : first;
        last = store.high[l] > last ? store.high[l] : last;
        inner_first = store.inner_low[l] > inner_first ? store.inner_low[l] : inner_first;
        inner_last = store.inner_high[l] < inner_last ? store.inner_high[l] : inner_last;
      }
      store.any_narrow = narrow;
      store.any_wide = wide;
      store.first = first / at_once * at_once;
      last = (last + at_once - 1) / at_once * at_once;
      store.last = last < store.longest ? last : store.longest;
      inner_first = (inner_first + at_once - 1) / at_once * at_once;
      inner_last = inner_last / at_once * at_once;
      store.inner_first = clamp_int(inner_first, store.first, store.last > store.first ? store.last : store.first);
      store.inner_last = clamp_int(inner_last, store.inner_first, store.last > store.inner_first ? store.last : store.inner_first);
    });
    if (store.any_narrow)
      block.for_each_pixel(nodes, Columns, [&](int j, int l) {
        node_moments(table, store.trial[0][l] * store.inverse[0][l], j, &store.node[0][l], Columns);
      });
    if constexpr (!on_device) block.for_each_pixel(sums, Columns, [&](int k, int l) { store.sum[k][l] = 0; });
    if (!store.any_wide) return accumulate<Width::narrow>(block, store, store.first, store.last);
    if (store.any_narrow) return accumulate<Width::both>(block, store, store.first, store.last);
    if constexpr (on_device) {
      accumulate<Width::wide>(block, store, store.first, store.last);
    } else {
      accumulate<Width::wide>(block, store, store.first, store.inner_first);
      accumulate<Width::inner>(block, store, store.inner_first, store.inner_last);
      accumulate<Width::wide>(block, store, store.inner_last, store.last);
    }
  }

  // Factor of (H + damping on the nonlinear columns), normalised to unit diagonal: lower triangle packed as its transpose.
  struct Factor {
    float lower[21], inverse[6], scale[6];
  };
  template <int Parameters>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline void factorise(const float (&hessian)[21], float damping, Factor& factor) {
    unrolled<Parameters>([&](auto j) CINELUMEN_INLINE {
      const float diagonal = hessian[packed(j, j)], inverse = 1.0f / sqrtf(diagonal > 1e-30f ? diagonal : 1e-30f);
      factor.scale[j] = inverse < 1e15f ? inverse : 0.0f;
    });
    unrolled<Parameters>([&](auto j) CINELUMEN_INLINE {
      unrolled<j + 1>([&](auto i) CINELUMEN_INLINE {
        float sum = hessian[packed(i, j)] * factor.scale[i] * factor.scale[j];
        if constexpr (i == j) sum = 1.0f + (j >= by_radius ? damping : 0.0f);
        unrolled<i>([&](auto k) CINELUMEN_INLINE { sum = mad(-factor.lower[packed(k, i)], factor.lower[packed(k, j)], sum); });
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
  // Forward: chi2 falls by the square of each element as its column joins the model.
  template <int Parameters>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline void solve_forward(const Factor& factor, const float (&right)[6], float (&step)[6]) {
    unrolled<Parameters>([&](auto j) CINELUMEN_INLINE {
      float sum = right[j] * factor.scale[j];
      unrolled<j>([&](auto k) CINELUMEN_INLINE { sum = mad(-factor.lower[packed(k, j)], step[k], sum); });
      step[j] = sum * factor.inverse[j];
    });
  }
  template <int Parameters>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline void solve_backward(const Factor& factor, float (&step)[6]) {
    unrolled<Parameters>([&](auto backwards) CINELUMEN_INLINE {
      constexpr int j = Parameters - 1 - backwards;
      float sum = step[j];
      unrolled<backwards>([&](auto k) CINELUMEN_INLINE { sum = mad(-factor.lower[packed(j, j + 1 + k)], step[j + 1 + k], sum); });
      step[j] = sum * factor.inverse[j];
    });
    unrolled<Parameters>([&](auto j) CINELUMEN_INLINE { step[j] *= factor.scale[j]; });
  }
  template <int Parameters>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline void solve(const Factor& factor, const float (&right)[6], float (&step)[6]) {
    solve_forward<Parameters>(factor, right, step);
    solve_backward<Parameters>(factor, step);
  }

  // The normal equations from the sums, with the priors. `at`: the parameters at which the sums were taken.
  struct Equations {
    float hessian[21], right[6], chi2;  // chi2 of a model of nothing
  };
  template <int Parameters, class Store, class At>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline Equations equations(const Store& store, const float (&sum)[sums], At at, int l) {
    Equations result;
    unrolled<6>([&](auto j) CINELUMEN_INLINE {
      unrolled<j + 1>([&](auto i) CINELUMEN_INLINE {
        if constexpr (j >= by_kappa) result.hessian[packed(i, j)] = sum[sum_of(i, j)];
      });
      if constexpr (j >= by_kappa) result.right[j] = sum[value_sum_of(j)];
    });
    result.hessian[packed(by_b0, by_b0)] = store.moment[m_1][l];
    result.hessian[packed(by_b0, by_b1)] = store.moment[m_x][l];
    result.hessian[packed(by_b1, by_b1)] = store.moment[m_xx][l];
    result.right[by_b0] = store.moment[m_y][l];
    result.right[by_b1] = store.moment[m_xy][l];
    result.chi2 = store.moment[m_yy][l];
    const float precision = store.place[prior_precision][l], prior = store.place[prior_kappa][l];
    result.hessian[packed(by_kappa, by_kappa)] += precision;
    result.right[by_kappa] += precision * prior;
    result.chi2 += precision * square(prior);
    if constexpr (Parameters == 6) {  // the column is over kappa
      const float by_s = store.place[s_precision][l], off = store.place[prior_s][l] - at(5);
      const float magnitude = fabsf(at(2)), kappa = magnitude > 1e-6f ? magnitude : 1e-6f;
      result.hessian[packed(by_psf, by_psf)] += by_s / square(kappa);
      result.right[by_psf] += by_s * off / kappa;
      result.chi2 += by_s * square(off);
    }
    return result;
  }

  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline float away_from_zero(float kappa) {
    const float magnitude = fabsf(kappa), least = magnitude > 1e-8f ? magnitude : 1e-8f;
    return kappa < 0 ? -least : least;
  }
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline float bounded(float x, float low, float high) {
    const float raised = x < low ? low : x;
    return raised > high ? high : raised;
  }

  // The next trial of one lane, from the sums at `from`. The linear parameters are always the best for the others (Golub and Pereyra, "The
  // differentiation of pseudo-inverses and nonlinear least squares problems whose variables separate", SIAM J Numer Anal 10 (1973)), so
  // chi2 is known without a look at residuals.
  struct Proposal {
    float next[6], step_r, step_c, step_s;
    float chi2, of_nothing, of_kappa;  // with the linear parameters at their best; without a model; what kappa takes off chi2
  };
  template <int Parameters, class Store>
  CINELUMEN_HOST_DEVICE CINELUMEN_INLINE static inline Proposal propose(const Store& store, const float (&sum)[sums], const float (&at)[6],
                                                                        float lambda, float psf_share, int l) {
    const Equations now = equations<Parameters>(
        store, sum, [&](auto j) CINELUMEN_INLINE { return at[j]; }, l);
    Factor factor;
    float step[6];
    factorise<Parameters>(now.hessian, lambda, factor);
    solve_forward<Parameters>(factor, now.right, step);
    Proposal result;
    result.of_nothing = now.chi2;
    result.of_kappa = step[by_kappa] * step[by_kappa];
    result.chi2 = now.chi2 - (step[0] * step[0] + step[1] * step[1] + result.of_kappa);
    solve_backward<Parameters>(factor, step);
    const float kappa = step[by_kappa], over = 1.0f / away_from_zero(kappa), s = at[5], half = store.half[l];
    const float limit_r = 0.4f * at[0], limit_c = 0.3f * at[0] + 0.5f;
    result.next[0] = bounded(at[0] + bounded(step[by_radius] * over, -limit_r, limit_r), 0.3f * s, 0.95f * half);
    result.next[1] = bounded(at[1] + bounded(step[by_centre] * over, -limit_c, limit_c), -half, half);
    result.next[2] = kappa;
    result.next[3] = step[by_b0];
    result.next[4] = step[by_b1];
    result.next[5] = s;
    if constexpr (Parameters == 6) {
      const float wanted = bounded(s + psf_share * step[by_psf] * over, 0.6f * s, 1.6f * s);
      result.next[5] = wanted < 0.3f ? 0.3f : wanted;
    }
    result.step_r = result.next[0] - at[0];
    result.step_c = result.next[1] - at[1];
    result.step_s = fabsf(result.next[5] - s);
    return result;
  }

  // Takes the trial where it is better, then proposes the next one.
  template <int Parameters, int Columns, class Store>
  CINELUMEN_HOST_DEVICE void advance(const Block<1, Columns>& block, Store& store, int iteration) const {
    // Numbers, not conditions, which would keep the lanes from being worked on together.
    const float settled_below = iteration == 0 ? 0.1f : 1e30f, hopeless_below = iteration >= 2 ? hopeless : -1.0f;
    const float psf_share = iteration == 0 ? 0.0f : 1.0f, lambda_scale = iteration == 0 ? 1.0f : 0.15f;
    const auto ends = [&](const Proposal& proposal, float radius, float kappa_before) CINELUMEN_INLINE {
      const float kappa = proposal.next[2], step_px = fabsf(proposal.step_r) + fabsf(proposal.step_c);
      // A first step may start from a kappa that is far off, and with it the second-order term.
      const bool settled = fabsf(kappa - kappa_before) <= settled_below * fabsf(kappa);
      const bool arrived = (step_px <= small_step(radius)) & (proposal.step_s <= small_step_of_psf_px) & settled;
      return arrived | (proposal.of_kappa < hopeless_below);
    };
    // As if the trials were all better, which is what they nearly always are.
    block.for_each_pixel(1, Columns, [&](int, int l) CINELUMEN_INLINE {
      float sum[sums], at[6];
      unrolled<sums>([&](auto k) CINELUMEN_INLINE { sum[k] = store.sum[k][l]; });
      unrolled<6>([&](auto j) CINELUMEN_INLINE { at[j] = store.trial[j][l]; });
      const float old_lambda = store.lambda[l], lowered = lambda_scale * old_lambda, old_chi2 = store.chi2[l];
      const float lambda = lowered < 1e-5f ? 1e-5f : lowered;
      const Proposal proposal = propose<Parameters>(store, sum, at, lambda, psf_share, l);
      const int was_done = store.done[l];
      // What rounding may hide does not count as worse.
      const bool better = !(proposal.chi2 > mad(old_chi2, 1.001f, 1e-5f * proposal.of_nothing));
      const bool taken = (was_done == 0) & better;
      store.worse[l] = (was_done == 0) & !better ? 1 : 0;
      store.chi2[l] = taken ? proposal.chi2 : old_chi2;
      store.lambda[l] = taken ? lambda : old_lambda;
      unrolled<sums>([&](auto k) CINELUMEN_INLINE {
        const float old = store.kept[k][l];
        store.kept[k][l] = taken ? sum[k] : old;
      });
      unrolled<6>([&](auto j) CINELUMEN_INLINE {
        const float old = store.best[j][l];
        store.best[j][l] = taken ? at[j] : old;
        store.trial[j][l] = taken ? proposal.next[j] : at[j];
      });
      const float old_r = store.step[0][l], old_c = store.step[1][l];
      store.step[0][l] = taken ? proposal.step_r : old_r;
      store.step[1][l] = taken ? proposal.step_c : old_c;
      store.done[l] = (was_done != 0) | (taken & ends(proposal, at[0], at[2])) ? 1 : 0;
    });
    block.once([&] {
      store.any_worse = 0;
      for (int l = 0; l < Columns; ++l) store.any_worse |= store.worse[l];
    });
    if (store.any_worse)
      block.for_each_pixel(1, Columns, [&](int, int l) CINELUMEN_INLINE {
        float sum[sums], at[6];
        unrolled<sums>([&](auto k) CINELUMEN_INLINE { sum[k] = store.kept[k][l]; });
        unrolled<6>([&](auto j) CINELUMEN_INLINE { at[j] = store.best[j][l]; });
        const bool worse = store.worse[l] != 0;
        const float old_lambda = store.lambda[l], lambda = worse ? 10.0f * old_lambda : old_lambda;
        const Proposal proposal = propose<Parameters>(store, sum, at, lambda, psf_share, l);
        store.lambda[l] = lambda;
        unrolled<6>([&](auto j) CINELUMEN_INLINE {
          const float old = store.trial[j][l];
          store.trial[j][l] = worse ? proposal.next[j] : old;
        });
        const float old_r = store.step[0][l], old_c = store.step[1][l];
        store.step[0][l] = worse ? proposal.step_r : old_r;
        store.step[1][l] = worse ? proposal.step_c : old_c;
        store.done[l] = (store.done[l] != 0) | (worse & ends(proposal, at[0], at[2])) ? 1 : 0;
      });
    block.once([&] {
      int moving = 0;
      for (int l = 0; l < Columns; ++l) moving |= !store.done[l] && store.used[l] > 0 ? 1 : 0;
      store.moving = moving;
    });
  }

  template <bool fitted, int Columns, class Store>
  CINELUMEN_HOST_DEVICE void finish(const Block<1, Columns>& block, Store& store, int lanes_used) const {
    // Into `sum`, read by the next phase: covariances, what is left of the last step, chi2 per degree of freedom. From the sums at the best
    // that was evaluated: a step as small as the last one changes none of this. The parameters take that step unseen; a larger one may
    // have been for the worse.
    block.for_each_pixel(1, Columns, [&](int, int l) CINELUMEN_INLINE {
      float sum[sums], unit[6], by_s[6], z[6], column_r[6], column_c[6], column_k[6], column_s[6];
      unrolled<sums>([&](auto k) CINELUMEN_INLINE { sum[k] = store.kept[k][l]; });
      const Equations now = equations < fitted ? 6
                                               : 5 > (
                                                         store, sum, [&](auto j) CINELUMEN_INLINE { return store.best[j][l]; }, l);
      const bool small = fabsf(store.step[0][l]) + fabsf(store.step[1][l]) <= small_step(store.best[0][l]);
      unrolled<6>([&](auto j) CINELUMEN_INLINE {
        const float last = store.trial[j][l], best = store.best[j][l];
        store.trial[j][l] = small | ((j != 0) & (j != 1) & (j != 5)) ? last : best;
      });
      // Held s: its error enters through the slope of each parameter against s. Fitted s: the six-parameter covariance.
      Factor five, all;
      factorise<5>(now.hessian, 0.0f, five);
      unrolled<5>([&](auto j) CINELUMEN_INLINE { unit[j] = -now.hessian[packed(j, by_psf)]; });
      solve<5>(five, unit, by_s);
      if constexpr (fitted) {
        factorise<6>(now.hessian, 0.0f, all);
        solve_forward<6>(all, now.right, z);
      } else {
        solve_forward<5>(five, now.right, z);
        z[5] = 0;
      }
      const float left = now.chi2 - (z[0] * z[0] + z[1] * z[1] + z[2] * z[2]);
      const float total = small ? left - (z[3] * z[3] + z[4] * z[4] + z[5] * z[5]) : left;
      if constexpr (fitted)
        solve_backward<6>(all, z);
      else
        solve_backward<5>(five, z);
      const float dof = static_cast<float>(store.used[l] - (fitted ? 6 : 5));
      const float chi2 = (dof > 0 ? (total > 0 ? total : 0.0f) : 0.0f) / (dof > 0 ? dof : 1.0f), widen = chi2 > 1 ? chi2 : 1.0f;
      const auto column = [&](auto j, float(&result)[6]) CINELUMEN_INLINE {
        unrolled<6>([&](auto k) CINELUMEN_INLINE { unit[k] = k == j ? 1.0f : 0.0f; });
        if constexpr (fitted)
          solve<6>(all, unit, result);
        else
          solve<5>(five, unit, result);
      };
      column(std::integral_constant<int, by_radius>{}, column_r);
      column(std::integral_constant<int, by_centre>{}, column_c);
      column(std::integral_constant<int, by_kappa>{}, column_k);
      // Out of the columns' units, which are over kappa.
      const float kappa = store.trial[2][l], over = 1.0f / away_from_zero(kappa);
      const float s_variance = fitted ? 0.0f : square(store.s_sd[l]);
      const float r_by_s = by_s[by_radius], c_by_s = by_s[by_centre], k_by_s = kappa * by_s[by_kappa];
      store.sum[0][l] = column_r[by_radius] * over * over * widen + r_by_s * r_by_s * s_variance;
      store.sum[1][l] = column_c[by_centre] * over * over * widen + c_by_s * c_by_s * s_variance;
      store.sum[2][l] = column_k[by_kappa] * widen + k_by_s * k_by_s * s_variance;
      store.sum[3][l] = column_r[by_kappa] * over * widen + r_by_s * k_by_s * s_variance;
      if constexpr (fitted) {
        column(std::integral_constant<int, by_psf>{}, column_s);
        store.sum[4][l] = column_s[by_psf] * over * over * widen;
      } else {
        store.sum[4][l] = s_variance;
      }
      // The kappa prior's share of the radius's error: its slope against the prior's mean.
      const float by_prior = column_r[by_kappa] * over * sqrtf(store.place[prior_precision][l]);
      store.sum[8][l] = r_by_s * r_by_s * s_variance + by_prior * by_prior;
      // Of a small step that was taken, what it left out and what it may have missed.
      const float step_r = z[by_radius] * over, step_c = z[by_centre] * over, took_r = store.step[0][l], took_c = store.step[1][l];
      store.sum[5][l] = small ? mad(0.1f, fabsf(took_r), fabsf(step_r - took_r)) : fabsf(step_r);
      store.sum[6][l] = small ? mad(0.1f, fabsf(took_c), fabsf(step_c - took_c)) : fabsf(step_c);
      store.sum[7][l] = chi2;
    });
    block.for_each_pixel(1, lanes_used, [&](int, int l) {
      if (store.elsewhere[l]) return;
      const float radius = store.trial[0][l], kappa = store.trial[2][l], s = store.trial[5][l], chi2 = store.sum[7][l];
      const float var_radius = store.sum[0][l], var_centre = store.sum[1][l], var_kappa = store.sum[2][l], cov = store.sum[3][l];
      const float rho = radius / s;
      float centre_value = 0;
      if (rho <= rho_narrow) {
        for (int j = 0; j < nodes; ++j) {
          float moments[3 * nodes];
          node_moments(table, rho, j, moments, 1);
          centre_value += 2 * s * moments[j];
        }
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
      fit.background = store.trial[3][l] + store.place[reference][l];
      fit.background_slope = store.trial[4][l];
      fit.chi2_per_dof = chi2;
      fit.fwhm_px = store.fwhm[l];
      fit.significance = store.significance[l];
      fit.lost = store.lost[l];
      fit.samples = store.used[l];
      fit.at_bound =
          radius <= 0.31f * s || radius >= 0.94f * store.half[l] || fabsf(fit.centre_px - store.start_centre[l]) > radius + 2 * s ? 1 : 0;
      fit.converged =
          store.used[l] > 6 && store.sum[5][l] < 0.05f * fit.sd_px + 2e-3f * radius && store.sum[6][l] < 0.2f * fit.centre_sd_px + 5e-3f
              ? 1
              : 0;
      fits[store.index[l]] = fit;
    });
  }

  template <int Columns, class Store>
  CINELUMEN_HOST_DEVICE void iterate(const Block<1, Columns>& block, Store& store, int start, int end) const {
    for (int iteration = start; iteration < end; ++iteration) {
      evaluate(block, store);
      if (options.fit_psf)
        advance<6>(block, store, iteration);
      else
        advance<5>(block, store, iteration);
      if (!store.moving) break;
    }
  }

  template <int Columns, class Store>
  CINELUMEN_HOST_DEVICE void finish_all(const Block<1, Columns>& block, Store& store, int lanes_used) const {
    if (options.fit_psf)
      finish<true>(block, store, lanes_used);
    else
      finish<false>(block, store, lanes_used);
  }

  template <int Columns, class Store>
  CINELUMEN_HOST_DEVICE void write_search(const Block<1, Columns>& block, const Store& store, int lanes_used) const {
    block.for_each_pixel(1, lanes_used, [&](int, int l) {
      LumenFit fit;
      fit.diameter_px = 2 * store.start_radius[l];
      fit.centre_px = store.start_centre[l];
      fit.fwhm_px = store.fwhm[l];
      fit.contrast = store.contrast[l];
      fit.significance = store.significance[l];
      fits[store.index[l]] = fit;
    });
  }

  // Samples of a group's points, and the fits' first iterations. False: there was only to search.
  template <int Columns, class Store>
  CINELUMEN_HOST_DEVICE bool begin(const Block<1, Columns>& block, Store& store, int lanes_used, int iterations) const {
    block.for_each_pixel(1, Columns, [&](int, int l) {
      const int at = block.x0 + (l < lanes_used ? l : lanes_used - 1);
      store.index[l] = list.count ? list.indices[at] : at;
    });
    place_lanes(block, store);
    if (options.search || options.search_only) search(block, store);
    if (options.search_only) {
      write_search(block, store, lanes_used);
      return false;
    }
    gather(block, store);
    iterate(block, store, 0, iterations);
    return true;
  }

  // CPU only: what a profile has come to, to another lane of another group.
  template <int Columns>
  CINELUMEN_HOST_DEVICE static void hand_over(const Group<Columns>& group, int from, Group<Columns>& to, int lane) {
    using Rows = LaneRows<Columns>;
    constexpr std::size_t number = sizeof(float), row = Columns * number;
    static_assert(sizeof(int) == number && sizeof(Rows) % row == 0);
    const auto* const source = reinterpret_cast<const std::byte*>(static_cast<const Rows*>(&group)) + from * number;
    auto* const target = reinterpret_cast<std::byte*>(static_cast<Rows*>(&to)) + lane * number;
    for (std::size_t at = 0; at < sizeof(Rows); at += row) std::memcpy(target + at, source + at, number);
    for (int i = 0; i < group.count[from]; ++i) {
      to.x[i][lane] = group.x[i][from];
      to.value[i][lane] = group.value[i][from];
      to.weight[i][lane] = group.weight[i][from];
    }
  }

  // The profiles that were handed over, `lanes` of them, to their end.
  template <int Columns>
  CINELUMEN_HOST_DEVICE void fit_rest(const Block<1, Columns>& block, Group<Columns>& left, int lanes, int iterations_before) const {
    left.longest = 0;
    for (int l = 0; l < Columns; ++l) {
      left.elsewhere[l] = 0;
      if (l >= lanes) {
        left.done[l] = 1;
        left.count[l] = left.used[l] = 0;
      }
      left.longest = left.count[l] > left.longest ? left.count[l] : left.longest;
    }
    left.longest = (left.longest + at_once - 1) / at_once * at_once;
    for (int l = 0; l < Columns; ++l)
      for (int i = left.count[l]; i < left.longest; ++i) left.x[i][l] = left.value[i][l] = left.weight[i][l] = 0;
    iterate(block, left, iterations_before, options.iterations);
    finish_all(block, left, lanes);
  }

  template <int Height, int Columns>
  CINELUMEN_HOST_DEVICE void operator()(Block<Height, Columns> block, Scratch<Height, Columns>& scratch) const {
    const int count = list.count ? *list.count : points.size, lanes_used = block.columns(count);
    if (lanes_used <= 0) return;
    if constexpr (Columns <= vector_lanes) {
      if (begin(block, scratch.group, lanes_used, options.iterations)) finish_all(block, scratch.group, lanes_used);
    } else {
      fit_groups(block, scratch, lanes_used);
    }
  }

  // CPU only.
  template <int Columns>
  CINELUMEN_HOST_DEVICE void fit_groups(const Block<1, Columns>& block, Scratch<1, Columns>& scratch, int lanes_used) const {
    const int few = options.iterations < few_iterations ? options.iterations : few_iterations;
    Block<1, vector_lanes> place{block.y0, block.x0, block.index, block.reversed};
    int left[2] = {0, 0};  // apart by model: both in one group cost both
    for (int start = 0; start < lanes_used; start += vector_lanes) {
      const int lanes = lanes_used - start < vector_lanes ? lanes_used - start : vector_lanes;
      place.x0 = block.x0 + start;
      if (!begin(place, scratch.group, lanes, few)) continue;
      for (int l = 0; l < lanes; ++l) {
        if (scratch.group.done[l] || scratch.group.used[l] == 0) continue;
        const int model = scratch.group.trial[0][l] > rho_narrow * scratch.group.trial[5][l] ? 1 : 0;
        hand_over(scratch.group, l, scratch.left[model], left[model]++);
        scratch.group.elsewhere[l] = 1;
        if (left[model] < vector_lanes) continue;
        fit_rest(place, scratch.left[model], left[model], few);
        left[model] = 0;
      }
      finish_all(place, scratch.group, lanes);
    }
    for (int model = 0; model < 2; ++model)
      if (left[model] > 0) fit_rest(place, scratch.left[model], left[model], few);
  }
};

bool finite(float x) { return std::isfinite(x); }

}  // namespace

void fit_lumen(const Stream& stream, ImageView<const float> image, const VarianceSource& variance, ImageView<const std::uint8_t> valid,
               ArrayView<const LumenFitPoint> points, ArrayView<LumenFit> fits, const LumenFitOptions& options) {
  fit_lumen(stream, image, variance, valid, LumenFitList{}, points, fits, options);
}

void fit_lumen(const Stream& stream, ImageView<const float> image, const VarianceSource& variance, ImageView<const std::uint8_t> valid,
               const LumenFitList& list, ArrayView<const LumenFitPoint> points, ArrayView<LumenFit> fits, const LumenFitOptions& options) {
  require(points.size == fits.size, "fit_lumen: points and fits differ in size");
  require(points.size == 0 || (image.data != nullptr && image.height > 0 && image.width > 0), "fit_lumen: the image is empty");
  require(variance.plane.data == nullptr || same_size(image, variance.plane), "fit_lumen: the variance differs from the image in size");
  require(variance.stored.stored.data == nullptr || (same_size(image, variance.stored.stored) && variance.stored.table.size > 0),
          "fit_lumen: the stored frame differs from the image in size, or its table is empty");
  require(valid.data == nullptr || same_size(image, valid), "fit_lumen: valid differs from the image in size");
  require(options.rows >= 1 && options.rows <= 3, "fit_lumen: rows must be 1, 2 or 3");
  require(options.iterations >= 2 && options.iterations <= 50, "fit_lumen: iterations must be 2 to 50");
  require(finite(options.variance) && options.variance > 0, "fit_lumen: variance must be positive");
  LumenFitKernel kernel{image, variance, valid, list, points, fits, options, chord_table()};
  for_each_tile(stream, 1, list.count ? list.indices.size : points.size, kernel);
}

BlurredChord blurred_chord(float x_px, float radius_px, float psf_px) {
  require(psf_px > 0 && finite(psf_px) && finite(x_px), "blurred_chord: psf_px must be positive");
  require(radius_px >= 0.05f * psf_px && finite(radius_px), "blurred_chord: radius_px is too small");
  const float u = x_px / psf_px, rho = radius_px / psf_px;
  Chord chord;
  if (rho <= rho_narrow) {
    float moments[3 * nodes];
    for (int j = 0; j < nodes; ++j) node_moments(chord_table(), rho, j, moments, 1);
    chord = narrow_chord(u, moments, 1);
  } else {
    chord = wide_chord(u, rho);
  }
  return {psf_px * chord.g, chord.gu, chord.guu / psf_px};
}

}  // namespace cinelumen
