#pragma once
/// Elementary functions as polynomials, so that GCC vectorises loops over them without -ffast-math and both machines agree.

#include <bit>
#include <cmath>
#include <cstdint>

#include "image.h"

namespace cinelumen {

/// exp(x), x clamped to [-87, 88]. Relative error <= 2e-7. NaN is not kept. (Cody-Waite reduction, degree-6 Taylor-like minimax.)
CINELUMEN_HOST_DEVICE inline float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float n = floorf(x * 1.44269504f + 0.5f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);
}

/// Natural logarithm of x, clamped below at the smallest normal float. Absolute error <= 2e-7 near 1, relative <= 2e-7 elsewhere.
CINELUMEN_HOST_DEVICE inline float fast_log(float x) {
  x = x < 1.17549435e-38f ? 1.17549435e-38f : x;
  std::int32_t bits = std::bit_cast<std::int32_t>(x);
  // Mantissa in [sqrt(1/2), sqrt(2)): the polynomial's range.
  const std::int32_t shifted = bits - 0x3f3504f3;
  const std::int32_t exponent = shifted >> 23;
  bits -= static_cast<std::int32_t>(static_cast<std::uint32_t>(exponent) << 23);
  const float m = std::bit_cast<float>(bits) - 1.0f;
  const float z = m * m;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const float e = static_cast<float>(exponent);
  return (m * z * p - 2.12194440e-4f * e - 0.5f * z + m) + 0.693359375f * e;
}

/// atan2(y, x) in (-pi, pi], absolute error <= 4e-7; 0 at (0, 0). Finite arguments.
CINELUMEN_HOST_DEVICE inline float fast_atan2(float y, float x) {
  const float ay = y < 0 ? -y : y, ax = x < 0 ? -x : x;
  const float low = ay < ax ? ay : ax, high = ay < ax ? ax : ay;
  const float t = low / (high > 1.17549435e-38f ? high : 1.17549435e-38f), u = t * t;
  float p = -4.668773307e-3f;
  p = p * u + 2.416618952e-2f;
  p = p * u - 5.936710079e-2f;
  p = p * u + 9.906096896e-2f;
  p = p * u - 1.401658506e-1f;
  p = p * u + 1.996923539e-1f;
  p = p * u - 3.333195972e-1f;
  p = p * u + 9.999998978e-1f;
  p *= t;
  p = ay > ax ? 1.57079633f - p : p;
  p = x < 0 ? 3.14159265f - p : p;
  return y < 0 ? -p : p;
}

/// What std has, for kernels on both machines.
CINELUMEN_HOST_DEVICE inline float square(float x) { return x * x; }
CINELUMEN_HOST_DEVICE inline int clamp_int(int x, int low, int high) { return x < low ? low : (x > high ? high : x); }

/// Index mirrored about the border pixels (whole-sample: -1 -> 1, n -> n - 2), for any distance; n >= 1.
CINELUMEN_HOST_DEVICE inline int mirror(int i, int n) {
  if (i >= 0 && i < n) return i;
  if (n == 1) return 0;
  const int period = 2 * n - 2;
  i %= period;
  if (i < 0) i += period;
  return i < n ? i : period - i;
}

}  // namespace cinelumen
