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

/// Position within a mask of `motion`'s inverse; `step`: mask pixels per output pixel; centre in mask pixels; shift in mask pixels.
inline InverseMotion invert(double shift_y, double shift_x, double rotation_rad, double centre_y, double centre_x, double step) {
  const double c = std::cos(rotation_rad), s = std::sin(rotation_rad);
  return {static_cast<float>(centre_y + s * (centre_x + shift_x) - c * (centre_y + shift_y)),
          static_cast<float>(centre_x - c * (centre_x + shift_x) - s * (centre_y + shift_y)), static_cast<float>(step * c),
          static_cast<float>(step * s)};
}

#ifdef __CUDA_ARCH__
inline constexpr int bspline_strip = 1;  // one pixel a thread
#else
inline constexpr int bspline_strip = 16;  // pixels of a row that share their first row and column of coefficients, nearly always
#endif

/// Evaluates the spline along a strip of bspline_strip output pixels whose first is (y, x); every `Step`-th mask pixel at zero rotation.
/// Calls write(i, value, slope_y, slope_x, inside, mine) for pixel x + i, perhaps several times: the call with mine = true counts.
/// inside: the position is at most a pixel off the mask (coefficients are mirrored there). Slopes are zero unless `Slopes`.
template <int Step, bool Slopes, class Write>
CINELUMEN_HOST_DEVICE inline void evaluate_strip(const ImageView<const float>& coefficients, const InverseMotion& motion, int y, int x,
                                                 const Write& write) {
  constexpr int n = bspline_strip;
  const int height = coefficients.height, width = coefficients.width;
  const float fy = static_cast<float>(y);
  const float row_y = motion.origin_y + motion.cosine * fy, row_x = motion.origin_x + motion.sine * fy;
  // Far-off positions are clamped so that their integer parts exist.
  const auto at_y = [&](int i) {
    const float q = row_y - motion.sine * static_cast<float>(x + i);
    return q < -2.0f ? -2.0f : (q > height + 1.0f ? height + 1.0f : q);
  };
  const auto at_x = [&](int i) { return row_x + motion.cosine * static_cast<float>(x + i); };
  const auto floor_y = [&](int i) { return static_cast<int>(floorf(at_y(i))); };
  // Column relative to Step * i, so that it stays the same along the strip.
  const auto floor_x = [&](int i) {
    float q = at_x(i);
    q = q < -1.0e6f ? -1.0e6f : (q > 1.0e6f ? 1.0e6f : q);
    return static_cast<int>(floorf(q)) - Step * i;
  };
  const int ya = floor_y(0), yb = floor_y(n - 1), xa = floor_x(0), xb = floor_x(n - 1);
  const int y_low = ya < yb ? ya : yb, y_high = ya < yb ? yb : ya, x_low = xa < xb ? xa : xb, x_high = xa < xb ? xb : xa;
  const bool within = y_low >= 1 && y_high + 2 < height && x_low >= 1 && x_high + Step * (n - 1) + 2 < width;
  if (within) {
    for (int base_y = y_low; base_y <= y_high; ++base_y)
      for (int base_x = x_low; base_x <= x_high; ++base_x) {
        const float* c0 = coefficients.row(base_y - 1) + (base_x - 1);
        const float* c1 = c0 + coefficients.pitch;
        const float* c2 = c1 + coefficients.pitch;
        const float* c3 = c2 + coefficients.pitch;
#pragma GCC ivdep
        for (int i = 0; i < n; ++i) {
          const float part_y = at_y(i) - static_cast<float>(base_y), part_x = at_x(i) - static_cast<float>(base_x + Step * i);
          float wx0, wx1, wx2, wx3, wy0, wy1, wy2, wy3;
          bspline_weights(part_x, wx0, wx1, wx2, wx3);
          bspline_weights(part_y, wy0, wy1, wy2, wy3);
          const int k = Step * i;
          const float a0 = wx0 * c0[k] + wx1 * c0[k + 1] + wx2 * c0[k + 2] + wx3 * c0[k + 3];
          const float a1 = wx0 * c1[k] + wx1 * c1[k + 1] + wx2 * c1[k + 2] + wx3 * c1[k + 3];
          const float a2 = wx0 * c2[k] + wx1 * c2[k + 1] + wx2 * c2[k + 2] + wx3 * c2[k + 3];
          const float a3 = wx0 * c3[k] + wx1 * c3[k + 1] + wx2 * c3[k + 2] + wx3 * c3[k + 3];
          const float value = wy0 * a0 + wy1 * a1 + wy2 * a2 + wy3 * a3;
          float slope_y = 0, slope_x = 0;
          if constexpr (Slopes) {
            float dx0, dx1, dx2, dx3, dy0, dy1, dy2, dy3;
            bspline_slopes(part_x, dx0, dx1, dx2, dx3);
            bspline_slopes(part_y, dy0, dy1, dy2, dy3);
            slope_y = dy0 * a0 + dy1 * a1 + dy2 * a2 + dy3 * a3;
            slope_x = wy0 * (dx0 * c0[k] + dx1 * c0[k + 1] + dx2 * c0[k + 2] + dx3 * c0[k + 3]) +
                      wy1 * (dx0 * c1[k] + dx1 * c1[k + 1] + dx2 * c1[k + 2] + dx3 * c1[k + 3]) +
                      wy2 * (dx0 * c2[k] + dx1 * c2[k + 1] + dx2 * c2[k + 2] + dx3 * c2[k + 3]) +
                      wy3 * (dx0 * c3[k] + dx1 * c3[k + 1] + dx2 * c3[k + 2] + dx3 * c3[k + 3]);
          }
          // Open at the ends: a position that rounds differently here than in floor_y and floor_x still finds its piece.
          const bool mine = (base_y == y_low || part_y >= 0.0f) && (base_y == y_high || part_y < 1.0f) &&
                            (base_x == x_low || part_x >= 0.0f) && (base_x == x_high || part_x < 1.0f);
          write(i, value, slope_y, slope_x, true, mine);
        }
      }
    return;
  }
  for (int i = 0; i < n; ++i) {
    const float q_y = row_y - motion.sine * static_cast<float>(x + i), q_x = at_x(i);
    const bool inside = q_y >= -1.0f && q_y <= static_cast<float>(height) && q_x >= -1.0f && q_x <= static_cast<float>(width);
    float value = 0, slope_y = 0, slope_x = 0;
    if (inside) {
      const float whole_y = floorf(q_y), whole_x = floorf(q_x);
      float wx[4], wy[4], dx[4], dy[4];
      bspline_weights(q_x - whole_x, wx[0], wx[1], wx[2], wx[3]);
      bspline_weights(q_y - whole_y, wy[0], wy[1], wy[2], wy[3]);
      if constexpr (Slopes) {
        bspline_slopes(q_x - whole_x, dx[0], dx[1], dx[2], dx[3]);
        bspline_slopes(q_y - whole_y, dy[0], dy[1], dy[2], dy[3]);
      }
      for (int j = 0; j < 4; ++j) {
        const float* c = coefficients.row(mirror_near(static_cast<int>(whole_y) - 1 + j, height));
        float a = 0, d = 0;
        for (int k = 0; k < 4; ++k) {
          const float v = c[mirror_near(static_cast<int>(whole_x) - 1 + k, width)];
          a += wx[k] * v;
          if constexpr (Slopes) d += dx[k] * v;
        }
        value += wy[j] * a;
        if constexpr (Slopes) {
          slope_y += dy[j] * a;
          slope_x += wy[j] * d;
        }
      }
    }
    write(i, value, slope_y, slope_x, inside, true);
  }
}

}  // namespace cinelumen
