// Loops over one row that several kernels share. Plain C++ without branches: the compiler vectorises them for the
// instruction set of the function that they are inlined into; LANES floats fill a vector register of it.

#pragma once

#include <cstdint>
#include <cstring>

#include "memory.hpp"

namespace llamo {

// exp(y) to a few units in the last place; beyond -87 and 88, where it leaves the normal floats, that of the border. NaN
// gives some number.
LLAMO_INLINE float bounded_exp(float y) {
  y = y > 88.0f ? 88.0f : y;
  y = y < -87.0f ? -87.0f : y;
  const float shifted = y * 1.44269504f + 12582912.0f;  // 1.5 * 2^23 pushes the fraction out: round(y / ln 2) is left
  const float n = shifted - 12582912.0f;
  const float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts keeps r accurate
  float p = 1.9875691500e-4f;                                   // exp(r) on +-ln(2)/2, polynomial of Cephes expf
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.0f);
  std::uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127u) << 23;  // the bits of 2^n: n + 127 becomes the exponent, those of 1.5 * 2^23 fall off the top
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

// x / (1 + exp(-x)), 0 or x far out. NaN stays NaN.
LLAMO_INLINE float silu(float x) { return x / (1.0f + bounded_exp(-x)); }

// Sum of (x[i] - centre)^POWER. LANES partial sums, since a compiler may not reorder a sum of floats by itself.
template <int LANES, int POWER>
LLAMO_INLINE float sum(const float* x, std::int64_t count, float centre) {
  float partial[LANES] = {};
  std::int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int lane = 0; lane < LANES; ++lane) {
      const float d = x[i + lane] - centre;
      partial[lane] += POWER == 1 ? d : d * d;
    }
  float total = 0.0f;
  for (int lane = 0; lane < LANES; ++lane) total += partial[lane];
  for (; i < count; ++i) {
    const float d = x[i] - centre;
    total += POWER == 1 ? d : d * d;
  }
  return total;
}

// Sum of x[i] * y[i], in LANES partial sums.
template <int LANES>
LLAMO_INLINE float dot(const float* LLAMO_RESTRICT x, const float* LLAMO_RESTRICT y, std::int64_t count) {
  float partial[LANES] = {};
  std::int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int lane = 0; lane < LANES; ++lane) partial[lane] += x[i + lane] * y[i + lane];
  float total = 0.0f;
  for (int lane = 0; lane < LANES; ++lane) total += partial[lane];
  for (; i < count; ++i) total += x[i] * y[i];
  return total;
}

}  // namespace llamo
