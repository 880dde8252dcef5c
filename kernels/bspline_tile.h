#pragma once
/// Cubic B-spline evaluation inside tile kernels, shared by log_subtract.cu and mask_registration.cu.

#include "image.h"
#include "math.h"

namespace cinelumen {

/// Weights of the four coefficients around a position whose fraction is f, first one at floor - 1.
CINELUMEN_HOST_DEVICE inline void bspline_weights(float f, float& w0, float& w1, float& w2, float& w3) {
  const float g = 1.0f - f, f2 = f * f;
  w0 = g * g * g * (1.0f / 6.0f);
  w3 = f2 * f * (1.0f / 6.0f);
  w1 = 2.0f / 3.0f - f2 + 0.5f * f2 * f;
  w2 = 1.0f - w0 - w1 - w3;
}

/// Weights of the first derivative.
CINELUMEN_HOST_DEVICE inline void bspline_slopes(float f, float& d0, float& d1, float& d2, float& d3) {
  const float g = 1.0f - f;
  d0 = -0.5f * g * g;
  d3 = 0.5f * f * f;
  d1 = f * (1.5f * f - 2.0f);
  d2 = -(d0 + d1 + d3);
}

/// Index mirrored about the border pixels for i in [-3, n + 2]; cheaper than mirror() and without a division.
CINELUMEN_HOST_DEVICE inline int mirror_near(int i, int n) {
  i = i < 0 ? -i : i;
  i = i >= n ? 2 * n - 2 - i : i;
  i = i < 0 ? -i : i;
  return i < n ? i : n - 1;
}

/// Rigid motion as the kernels apply it: position in the mask of output pixel (y, x) is
/// (origin_y - sine x + cosine y, origin_x + cosine x + sine y), in mask pixels.
struct InverseMotion {
  float origin_y, origin_x, cosine, sine;
};

/// Of one angle.
struct SineCosine {
  double sine, cosine;
};

/// Of an angle up to 1e5 rad; absolute error below 1e-11. CUDA's own keeps a table in local memory, for angles that never come.
CINELUMEN_HOST_DEVICE inline SineCosine sine_cosine(double angle) {
  const double quarters = floor(angle * 0.63661977236758134 + 0.5);
  const double r = angle - quarters * 1.5707963267948966, u = r * r;
  const double s =
      r + r * u * (-1.0 / 6 + u * (1.0 / 120 + u * (-1.0 / 5040 + u * (1.0 / 362880 + u * (-1.0 / 39916800 + u / 6227020800.0)))));
  const double c = 1 + u * (-0.5 + u * (1.0 / 24 + u * (-1.0 / 720 + u * (1.0 / 40320 + u * (-1.0 / 3628800 + u / 479001600.0)))));
  const int quarter = static_cast<int>(quarters - 4 * floor(quarters / 4));
  const double sine = quarter % 2 == 0 ? s : c, cosine = quarter % 2 == 0 ? c : s;
  return {quarter < 2 ? sine : -sine, quarter == 0 || quarter == 3 ? cosine : -cosine};
}

/// Position within a mask of `motion`'s inverse; `step`: mask pixels per output pixel; centre in mask pixels; shift in mask pixels.
CINELUMEN_HOST_DEVICE inline InverseMotion invert(double shift_y, double shift_x, double rotation_rad, double centre_y, double centre_x,
                                                  double step) {
  const auto [s, c] = sine_cosine(rotation_rad);
  return {static_cast<float>(centre_y + s * (centre_x + shift_x) - c * (centre_y + shift_y)),
          static_cast<float>(centre_x - c * (centre_x + shift_x) - s * (centre_y + shift_y)), static_cast<float>(step * c),
          static_cast<float>(step * s)};
}

#ifdef __CUDA_ARCH__
inline constexpr int bspline_strip = 1;  // one pixel a thread
#else
inline constexpr int bspline_strip = 16;  // pixels of a row that share their first row and column of coefficients, nearly always
#endif

/// Where column x of the mask stands in a row of coefficients. With Step 2 all even columns come before all odd ones (the width is even),
/// so that the taps of every second pixel lie side by side.
template <int Step>
CINELUMEN_HOST_DEVICE inline int coefficient_column(int x, int width) {
  if constexpr (Step == 2)
    return (x >> 1) + (x & 1) * (width >> 1);
  else
    return x;
}

/// Weights of four neighbours around a position whose fraction is f, for what interpolates either way: of coefficients of a cubic B-spline,
struct BSpline {
  CINELUMEN_HOST_DEVICE static void weights(float f, float& w0, float& w1, float& w2, float& w3) { bspline_weights(f, w0, w1, w2, w3); }
};
/// or of the pixels themselves: Keys' cubic convolution, a = -1/2.
struct Convolution {
  CINELUMEN_HOST_DEVICE static void weights(float f, float& w0, float& w1, float& w2, float& w3) {
    const float g = 1 - f;
    w0 = -0.5f * f * g * g;
    w1 = 1 + f * f * (1.5f * f - 2.5f);
    w2 = 1 + g * g * (1.5f * g - 2.5f);
    w3 = -0.5f * g * f * f;
  }
};

/// One polynomial piece of the spline along a strip: second coefficient at (base_y, base_x + Step * i) for all its pixels. position(i):
/// where pixel i lies beyond that, (y, x). With `All` false only positions whose fractions lie in [low, high) are written.
template <int Step, bool Slopes, bool All, class Weights, class Position>
CINELUMEN_HOST_DEVICE inline void evaluate_piece(const ImageView<const float>& coefficients, int base_y, int base_x, Position position,
                                                 float low_y, float high_y, float low_x, float high_x, float* __restrict value,
                                                 float* __restrict slope_y, float* __restrict slope_x) {
  const float* __restrict c0 = coefficients.row(base_y - 1);
  const float* __restrict c1 = c0 + coefficients.pitch;
  const float* __restrict c2 = c1 + coefficients.pitch;
  const float* __restrict c3 = c2 + coefficients.pitch;
  const int width = coefficients.width;
  const int k0 = coefficient_column<Step>(base_x - 1, width), k1 = coefficient_column<Step>(base_x, width),
            k2 = coefficient_column<Step>(base_x + 1, width), k3 = coefficient_column<Step>(base_x + 2, width);
#pragma GCC ivdep
  for (int i = 0; i < bspline_strip; ++i) {
    float part_y, part_x;
    position(i, part_y, part_x);
    float wx0, wx1, wx2, wx3, wy0, wy1, wy2, wy3;
    Weights::weights(part_x, wx0, wx1, wx2, wx3);
    Weights::weights(part_y, wy0, wy1, wy2, wy3);
    const float a0 = wx0 * c0[k0 + i] + wx1 * c0[k1 + i] + wx2 * c0[k2 + i] + wx3 * c0[k3 + i];
    const float a1 = wx0 * c1[k0 + i] + wx1 * c1[k1 + i] + wx2 * c1[k2 + i] + wx3 * c1[k3 + i];
    const float a2 = wx0 * c2[k0 + i] + wx1 * c2[k1 + i] + wx2 * c2[k2 + i] + wx3 * c2[k3 + i];
    const float a3 = wx0 * c3[k0 + i] + wx1 * c3[k1 + i] + wx2 * c3[k2 + i] + wx3 * c3[k3 + i];
    const bool mine = All || ((part_y >= low_y) & (part_y < high_y) & (part_x >= low_x) & (part_x < high_x));
    const float v = wy0 * a0 + wy1 * a1 + wy2 * a2 + wy3 * a3;
    value[i] = mine ? v : value[i];
    if constexpr (Slopes) {
      float dx0, dx1, dx2, dx3, dy0, dy1, dy2, dy3;
      bspline_slopes(part_x, dx0, dx1, dx2, dx3);
      bspline_slopes(part_y, dy0, dy1, dy2, dy3);
      const float sy = dy0 * a0 + dy1 * a1 + dy2 * a2 + dy3 * a3;
      const float sx = dx0 * (wy0 * c0[k0 + i] + wy1 * c1[k0 + i] + wy2 * c2[k0 + i] + wy3 * c3[k0 + i]) +
                       dx1 * (wy0 * c0[k1 + i] + wy1 * c1[k1 + i] + wy2 * c2[k1 + i] + wy3 * c3[k1 + i]) +
                       dx2 * (wy0 * c0[k2 + i] + wy1 * c1[k2 + i] + wy2 * c2[k2 + i] + wy3 * c3[k2 + i]) +
                       dx3 * (wy0 * c0[k3 + i] + wy1 * c1[k3 + i] + wy2 * c2[k3 + i] + wy3 * c3[k3 + i]);
      slope_y[i] = mine ? sy : slope_y[i];
      slope_x[i] = mine ? sx : slope_x[i];
    }
  }
}

/// Evaluates the spline along a strip of bspline_strip output pixels whose first is (y, x); every `Step`-th mask pixel at zero rotation.
/// value[i] is NaN where the position is more than a pixel off the mask (coefficients are mirrored up to there). The slopes, per mask
/// pixel, are written where `Slopes`.
template <int Step, bool Slopes>
CINELUMEN_HOST_DEVICE inline void evaluate_strip(const ImageView<const float>& coefficients, const InverseMotion& motion, int y, int x,
                                                 float* value, float* slope_y, float* slope_x) {
  constexpr int n = bspline_strip;
  const int height = coefficients.height, width = coefficients.width;
  const float fy = static_cast<float>(y), fx = static_cast<float>(x), sine = motion.sine, cosine = motion.cosine;
  const float first_y = motion.origin_y + cosine * fy - sine * fx, first_x = motion.origin_x + sine * fy + cosine * fx;
  // Far-off positions are clamped so that their integer parts exist.
  const auto whole = [](float q) { return static_cast<int>(floorf(q < -1.0e6f ? -1.0e6f : (q > 1.0e6f ? 1.0e6f : q))); };
  // Columns relative to Step * i, so that they stay the same along the strip.
  // A strip of one pixel is said to have one piece: what rests on 0 * sine the compiler can't leave out.
  const int ya = whole(first_y), yb = n == 1 ? ya : whole(first_y - sine * (n - 1)), xa = whole(first_x),
            xb = n == 1 ? xa : whole(first_x + cosine * (n - 1)) - Step * (n - 1);
  const int y_low = ya < yb ? ya : yb, y_high = ya < yb ? yb : ya, x_low = xa < xb ? xa : xb, x_high = xa < xb ? xb : xa;
  const bool within = y_low >= 1 && y_high + 2 < height && x_low >= 1 && x_high + Step * (n - 1) + 2 < width;
  const auto along = [=](int base_y, int base_x) {
    const float from_y = first_y - base_y, from_x = first_x - base_x;
    return [=](int i, float& part_y, float& part_x) {
      const float fi = static_cast<float>(i);
      part_y = n == 1 ? from_y : from_y - sine * fi;
      part_x = n == 1 ? from_x : from_x + (cosine - Step) * fi;
    };
  };
  if (within && y_low == y_high && x_low == x_high) {
    evaluate_piece<Step, Slopes, true, BSpline>(coefficients, y_low, x_low, along(y_low, x_low), 0, 0, 0, 0, value, slope_y, slope_x);
  } else if (within) {
    // Open at the ends: a position that rounds differently in evaluate_piece still finds its piece.
    constexpr float open = 1.0e9f;
    for (int base_y = y_low; base_y <= y_high; ++base_y)
      for (int base_x = x_low; base_x <= x_high; ++base_x)
        evaluate_piece<Step, Slopes, false, BSpline>(coefficients, base_y, base_x, along(base_y, base_x), base_y == y_low ? -open : 0,
                                                     base_y == y_high ? open : 1, base_x == x_low ? -open : 0, base_x == x_high ? open : 1,
                                                     value, slope_y, slope_x);
  } else {
    for (int i = 0; i < n; ++i) {
      const float q_y = first_y - sine * i, q_x = first_x + cosine * i;
      if (!(q_y >= -1.0f && q_y <= static_cast<float>(height) && q_x >= -1.0f && q_x <= static_cast<float>(width))) {
        value[i] = std::bit_cast<float>(0x7fc00000);  // NaN
        if constexpr (Slopes) slope_y[i] = slope_x[i] = 0;
        continue;
      }
      const float whole_y = floorf(q_y), whole_x = floorf(q_x);
      float wx[4], wy[4], dx[4], dy[4];
      bspline_weights(q_x - whole_x, wx[0], wx[1], wx[2], wx[3]);
      bspline_weights(q_y - whole_y, wy[0], wy[1], wy[2], wy[3]);
      bspline_slopes(q_x - whole_x, dx[0], dx[1], dx[2], dx[3]);
      bspline_slopes(q_y - whole_y, dy[0], dy[1], dy[2], dy[3]);
      float v = 0, sy = 0, sx = 0;
      for (int j = 0; j < 4; ++j) {
        const float* c = coefficients.row(mirror_near(static_cast<int>(whole_y) - 1 + j, height));
        float a = 0, d = 0;
        for (int k = 0; k < 4; ++k) {
          const float one = c[coefficient_column<Step>(mirror_near(static_cast<int>(whole_x) - 1 + k, width), width)];
          a += wx[k] * one;
          d += dx[k] * one;
        }
        v += wy[j] * a;
        sy += dy[j] * a;
        sx += wy[j] * d;
      }
      value[i] = v;
      if constexpr (Slopes) {
        slope_y[i] = sy;
        slope_x[i] = sx;
      }
    }
  }
}

/// The same at given positions of a strip, in pixels of the coefficients, all at least 1 from the first and 3 from the last of both axes.
/// Neighbours lie about `Step` apart along x: where they all share one piece, it costs no more than evaluate_strip.
template <int Step, bool Slopes, class Weights>
CINELUMEN_HOST_DEVICE inline void evaluate_positions(const ImageView<const float>& coefficients, const float* __restrict position_y,
                                                     const float* __restrict position_x, float* value, float* slope_y, float* slope_x) {
  constexpr int n = bspline_strip;
  // Of integers: the least of floats GCC finds one by one.
  int y_low = static_cast<int>(position_y[0]), y_high = y_low, x_low = static_cast<int>(position_x[0]), x_high = x_low;
  for (int i = 1; i < n; ++i) {
    const int y = static_cast<int>(position_y[i]), x = static_cast<int>(position_x[i]) - Step * i;
    y_low = y < y_low ? y : y_low;
    y_high = y > y_high ? y : y_high;
    x_low = x < x_low ? x : x_low;
    x_high = x > x_high ? x : x_high;
  }
  const auto at = [=](int base_y, int base_x) {
    return [=](int i, float& part_y, float& part_x) {
      part_y = position_y[i] - static_cast<float>(base_y);
      part_x = position_x[i] - static_cast<float>(base_x + Step * i);
    };
  };
  if constexpr (n == 1) {
    evaluate_piece<Step, Slopes, true, Weights>(coefficients, y_low, x_low, at(y_low, x_low), 0, 0, 0, 0, value, slope_y, slope_x);
  } else {
    if (y_low == y_high && x_low == x_high) {
      evaluate_piece<Step, Slopes, true, Weights>(coefficients, y_low, x_low, at(y_low, x_low), 0, 0, 0, 0, value, slope_y, slope_x);
      return;
    }
    for (int base_y = y_low; base_y <= y_high; ++base_y)
      for (int base_x = x_low; base_x <= x_high; ++base_x)
        evaluate_piece<Step, Slopes, false, Weights>(coefficients, base_y, base_x, at(base_y, base_x), 0, 1, 0, 1, value, slope_y, slope_x);
  }
}

}  // namespace cinelumen
