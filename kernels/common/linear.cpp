#include "linear.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#if defined(LLAMO_X86)
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // of _mm512_undefined_ps in GCC's own header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#endif

namespace llamo {
namespace {

constexpr std::int64_t kGroup = 4;  // inputs of which int8 products are summed together

LLAMO_INLINE std::int64_t end_of(const Linear& layer, const Rows& rows) { return std::min(rows.end, layer.padded); }

// ----------------------------------------------------------------------------------------------------- float weights

LLAMO_INLINE float from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// LANES floats fill a vector register; up to MAX_ROWS rows are summed in registers at once. Plain loops: the compiler
// vectorises them for the instruction set of the function that they are inlined into.
template <int LANES, int MAX_ROWS>
struct FloatLoops {
  static constexpr int kPanel = 4 * LANES;

  template <int ROWS>
  static LLAMO_INLINE void panel(const Linear& layer, std::int64_t o, const float* LLAMO_RESTRICT in,
                                 std::int64_t in_stride, float* LLAMO_RESTRICT out, std::int64_t out_stride) {
    const float* LLAMO_RESTRICT weights = layer.floats.get() + o * layer.inputs;
    const float* LLAMO_RESTRICT bias = layer.bias.get() + o;
    float sums[ROWS][kPanel];
    for (int r = 0; r < ROWS; ++r)
      for (int i = 0; i < kPanel; ++i) sums[r][i] = bias[i];
    for (std::int64_t i = 0; i < layer.inputs; ++i, weights += kPanel)
      for (int r = 0; r < ROWS; ++r)
        for (int j = 0; j < kPanel; ++j) sums[r][j] += in[r * in_stride + i] * weights[j];
    for (int r = 0; r < ROWS; ++r)
      for (int i = 0; i < kPanel; ++i) out[r * out_stride + o + i] = sums[r][i];
  }

  template <int ROWS>
  static LLAMO_INLINE void panel_of_pairs(const Linear& layer, std::int64_t o, const float* LLAMO_RESTRICT in,
                                          std::int64_t in_stride, float* LLAMO_RESTRICT out,
                                          std::int64_t out_stride) {
    const std::int64_t pairs = (layer.inputs + 1) / 2, whole = layer.inputs / 2;
    const std::uint32_t* LLAMO_RESTRICT weights = layer.pairs.get() + o * pairs;
    const float* LLAMO_RESTRICT bias = layer.bias.get() + o;
    float sums[ROWS][kPanel];
    for (int r = 0; r < ROWS; ++r)
      for (int i = 0; i < kPanel; ++i) sums[r][i] = bias[i];
    for (std::int64_t p = 0; p < whole; ++p, weights += kPanel) {
#if defined(__GNUC__)  // beyond the caches, so many instructions per byte leave the processor's own fetching behind
      for (int line = 0; line < kPanel / 16; ++line) __builtin_prefetch(weights + 1024 + 16 * line);
#endif
      for (int r = 0; r < ROWS; ++r)
        for (int j = 0; j < kPanel; ++j)
          sums[r][j] += in[r * in_stride + 2 * p] * from_bits(weights[j] << 16) +
                        in[r * in_stride + 2 * p + 1] * from_bits(weights[j] & 0xffff0000u);
    }
    if (whole < pairs)
      for (int r = 0; r < ROWS; ++r)
        for (int j = 0; j < kPanel; ++j) sums[r][j] += in[r * in_stride + 2 * whole] * from_bits(weights[j] << 16);
    for (int r = 0; r < ROWS; ++r)
      for (int i = 0; i < kPanel; ++i) out[r * out_stride + o + i] = sums[r][i];
  }

  // One panel for any number of rows: as many ROWS as fit, then the rest by halves.
  template <bool PAIRS, int ROWS>
  static LLAMO_INLINE void some_rows(const Linear& layer, std::int64_t o, const float* in, std::int64_t in_stride,
                                     float* out, std::int64_t out_stride, std::int64_t count) {
    for (; count >= ROWS; count -= ROWS, in += ROWS * in_stride, out += ROWS * out_stride) {
      if constexpr (PAIRS)
        panel_of_pairs<ROWS>(layer, o, in, in_stride, out, out_stride);
      else
        panel<ROWS>(layer, o, in, in_stride, out, out_stride);
    }
    if constexpr (ROWS > 1) some_rows<PAIRS, ROWS / 2>(layer, o, in, in_stride, out, out_stride, count);
  }

  template <bool PAIRS>
  static LLAMO_INLINE void multiply(const Linear& layer, const Rows& rows) {
    for (std::int64_t o = rows.begin; o < end_of(layer, rows); o += kPanel)
      some_rows<PAIRS, MAX_ROWS>(layer, o, rows.in, rows.in_stride, rows.out, rows.out_stride, rows.count);
  }
};

// ------------------------------------------------------------------------------------------------------ int8 weights

// Values of one row as whole numbers from -127 to 127; returns their scale, NaN if one of them is not finite.
template <typename Whole>
LLAMO_INLINE float quantise(const float* LLAMO_RESTRICT x, std::int64_t count, int offset, Whole* LLAMO_RESTRICT out) {
  constexpr std::int32_t kInfinity = 0x7f800000;
  std::int32_t largest = 0;  // sizes of floats are ordered like their bits, whose maximum compilers vectorise
  for (std::int64_t i = 0; i < count; ++i) {
    std::int32_t bits;
    std::memcpy(&bits, x + i, sizeof bits);
    bits &= 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  const float most = from_bits(static_cast<std::uint32_t>(largest));
  const float inverse = most > 1e-30f ? 127.0f / most : 0.0f;
  const float middle = 12582912.0f + static_cast<float>(offset);  // 1.5 * 2^23 pushes the fraction out
  for (std::int64_t i = 0; i < count; ++i) {
    const float shifted = x[i] * inverse + middle;
    std::int32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    out[i] = static_cast<Whole>(bits - 0x4b400000);
  }
  for (std::int64_t i = count; i < round_up(count, kGroup); ++i) out[i] = 0;  // meets weights that are 0
  return largest < kInfinity ? most / 127.0f : std::numeric_limits<float>::quiet_NaN();
}

// Sums of exact products to results.
template <int PANEL>
LLAMO_INLINE void scaled(const Linear& layer, std::int64_t o, const std::int32_t* LLAMO_RESTRICT sums, float scale,
                         float* LLAMO_RESTRICT out) {
  const float* LLAMO_RESTRICT scales = layer.scale.get() + o;
  const float* LLAMO_RESTRICT bias = layer.bias.get() + o;
  for (int i = 0; i < PANEL; ++i) out[i] = static_cast<float>(sums[i]) * (scale * scales[i]) + bias[i];
}

// Plain loops; a panel holds one input after the other here.
void multiply_int8_portable(const Linear& layer, const Rows& rows) {
  constexpr int kPanel = 32;
  for (std::int64_t r = 0; r < rows.count; ++r) {
    std::int16_t* const x = rows.quantised;
    const float scale = quantise(rows.in + r * rows.in_stride, layer.inputs, 0, x);
    for (std::int64_t o = rows.begin; o < end_of(layer, rows); o += kPanel) {
      const std::int8_t* LLAMO_RESTRICT weights = layer.bytes.get() + o * layer.inputs;
      std::int32_t sums[kPanel] = {};
      for (std::int64_t i = 0; i < layer.inputs; ++i, weights += kPanel)
        for (int j = 0; j < kPanel; ++j) sums[j] += static_cast<std::int16_t>(x[i] * weights[j]);
      scaled<kPanel>(layer, o, sums, scale, rows.out + r * rows.out_stride + o);
    }
  }
}

#if defined(LLAMO_X86)

// Four inputs of a row, as one pattern that meets the weights of every output.
template <typename Pattern>
LLAMO_INLINE Pattern pattern_of(const void* four) {
  Pattern pattern;
  std::memcpy(&pattern, four, sizeof pattern);
  return pattern;
}

// One panel of outputs for some quantised rows.
template <typename Whole>
using Int8Panel = void (*)(const Linear&, std::int64_t o, const Whole* x, std::int64_t stride, const float* scales,
                           float* out, std::int64_t out_stride);

constexpr int kScales = 64;  // rows that are quantised before a panel is read

// All panels for all rows, up to 4 of them at once; without `four`, 2.
template <int PANEL, int OFFSET, typename Whole>
LLAMO_INLINE void multiply_int8(const Linear& layer, const Rows& rows, Int8Panel<Whole> four, Int8Panel<Whole> two,
                                Int8Panel<Whole> one) {
  const std::int64_t stride = round_up(layer.inputs, kGroup);
  auto* const x = reinterpret_cast<Whole*>(rows.quantised);
  for (std::int64_t begin = 0; begin < rows.count; begin += kScales) {
    const std::int64_t count = std::min<std::int64_t>(kScales, rows.count - begin);
    float scales[kScales];
    for (std::int64_t r = 0; r < count; ++r)
      scales[r] = quantise(rows.in + (begin + r) * rows.in_stride, layer.inputs, OFFSET, x + r * stride);
    float* const out = rows.out + begin * rows.out_stride;
    for (std::int64_t o = rows.begin; o < end_of(layer, rows); o += PANEL)
      for (std::int64_t r = 0; r < count;) {
        const std::int64_t at_once = count - r >= 4 && four != nullptr ? 4 : count - r >= 2 ? 2 : 1;
        const Int8Panel<Whole> panel = at_once == 4 ? four : at_once == 2 ? two : one;
        panel(layer, o, x + r * stride, stride, scales + r, out + r * rows.out_stride, rows.out_stride);
        r += at_once;
      }
  }
}

// Weights widened to 16 bits, products summed in pairs: exact, where vpmaddubsw would saturate.
template <int ROWS>
LLAMO_AVX2 void int8_panel_avx2(const Linear& layer, std::int64_t o, const std::int16_t* x, std::int64_t stride,
                                const float* scales, float* out, std::int64_t out_stride) {
  constexpr int kPanel = 32, kVectors = kPanel / 4;  // a vector of sums is 4 outputs, each in two halves
  const std::int8_t* weights = layer.bytes.get() + o * stride;
  for (int half = 0; half < 2; ++half) {  // 8 sums per row and half: what fits the 16 registers
    __m256i sums[ROWS][kVectors / 2];
    for (int r = 0; r < ROWS; ++r)
      for (int v = 0; v < kVectors / 2; ++v) sums[r][v] = _mm256_setzero_si256();
    for (std::int64_t i = 0; i < stride; i += kGroup) {
      const std::int8_t* at = weights + i * kPanel + half * 2 * kPanel;
      __m256i four[ROWS];
      for (int r = 0; r < ROWS; ++r) four[r] = _mm256_set1_epi64x(pattern_of<long long>(x + r * stride + i));
      for (int v = 0; v < kVectors / 2; ++v) {
        const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 16 * v)));
        for (int r = 0; r < ROWS; ++r) sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(wide, four[r]));
      }
    }
    for (int r = 0; r < ROWS; ++r) {
      alignas(32) std::int32_t halves[2 * kPanel / 2], whole[kPanel / 2];
      for (int v = 0; v < kVectors / 2; ++v)
        _mm256_store_si256(reinterpret_cast<__m256i*>(halves + 8 * v), sums[r][v]);
      for (int j = 0; j < kPanel / 2; ++j) whole[j] = halves[2 * j] + halves[2 * j + 1];
      const std::int64_t begin = o + half * kPanel / 2;
      scaled<kPanel / 2>(layer, begin, whole, scales[r], out + r * out_stride + begin);
    }
  }
}

LLAMO_AVX2 void multiply_int8_avx2(const Linear& layer, const Rows& rows) {
  multiply_int8<32, 0, std::int16_t>(layer, rows, nullptr, int8_panel_avx2<2>, int8_panel_avx2<1>);
}

// Like AVX2 with registers of twice the size.
template <int ROWS>
LLAMO_AVX512 void int8_panel_avx512(const Linear& layer, std::int64_t o, const std::int16_t* x, std::int64_t stride,
                                    const float* scales, float* out, std::int64_t out_stride) {
  constexpr int kPanel = 64, kVectors = kPanel / 8;
  const std::int8_t* weights = layer.bytes.get() + o * stride;
  __m512i sums[ROWS][kVectors];
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_setzero_si512();
  for (std::int64_t i = 0; i < stride; i += kGroup, weights += kGroup * kPanel) {
    __m512i four[ROWS];
    for (int r = 0; r < ROWS; ++r) four[r] = _mm512_set1_epi64(pattern_of<long long>(x + r * stride + i));
    for (int v = 0; v < kVectors; ++v) {
      const __m512i wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + 32 * v)));
      for (int r = 0; r < ROWS; ++r) sums[r][v] = _mm512_add_epi32(sums[r][v], _mm512_madd_epi16(wide, four[r]));
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    alignas(64) std::int32_t halves[2 * kPanel], whole[kPanel];
    for (int v = 0; v < kVectors; ++v) _mm512_store_si512(halves + 16 * v, sums[r][v]);
    for (int j = 0; j < kPanel; ++j) whole[j] = halves[2 * j] + halves[2 * j + 1];
    scaled<kPanel>(layer, o, whole, scales[r], out + r * out_stride + o);
  }
}

LLAMO_AVX512 void multiply_int8_avx512(const Linear& layer, const Rows& rows) {
  multiply_int8<64, 0, std::int16_t>(layer, rows, nullptr, int8_panel_avx512<2>, int8_panel_avx512<1>);
}

// vpdpbusd multiplies unsigned by signed bytes and sums four products: activations get 128 added, which `shift` undoes.
template <int ROWS, int VECTORS>
LLAMO_AVX512_VNNI LLAMO_INLINE void add_group_vnni(const std::int8_t* weights, const std::uint8_t* x,
                                                   std::int64_t stride, __m512i (&sums)[ROWS][VECTORS]) {
  __m512i four[ROWS];
  for (int r = 0; r < ROWS; ++r) four[r] = _mm512_set1_epi32(pattern_of<int>(x + r * stride));
  for (int v = 0; v < VECTORS; ++v) {
    const __m512i bytes = _mm512_load_si512(weights + 64 * v);
    for (int r = 0; r < ROWS; ++r) sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], four[r], bytes);
  }
}

template <int ROWS>
LLAMO_AVX512_VNNI void int8_panel_vnni(const Linear& layer, std::int64_t o, const std::uint8_t* x, std::int64_t stride,
                                       const float* scales, float* out, std::int64_t out_stride) {
  constexpr int kPanel = 64, kVectors = kPanel / 16;
  // A sum is ready for the next product after five cycles; a single row is summed in two parts, to fill them.
  constexpr int kParts = ROWS == 1 ? 2 : 1;
  const std::int8_t* weights = layer.bytes.get() + o * stride;
  __m512i parts[kParts][ROWS][kVectors];
  for (auto& sums : parts)
    for (auto& row : sums)
      for (__m512i& sum : row) sum = _mm512_setzero_si512();
  std::int64_t i = 0;
  for (; i + kParts * kGroup <= stride; i += kParts * kGroup)
    for (int p = 0; p < kParts; ++p, weights += kGroup * kPanel)
      add_group_vnni(weights, x + i + p * kGroup, stride, parts[p]);
  if (i < stride) add_group_vnni(weights, x + i, stride, parts[0]);
  auto& sums = parts[0];
  for (int p = 1; p < kParts; ++p)
    for (int r = 0; r < ROWS; ++r)
      for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_add_epi32(sums[r][v], parts[p][r][v]);
  for (int r = 0; r < ROWS; ++r) {
    const __m512 scale = _mm512_set1_ps(scales[r]);
    for (int v = 0; v < kVectors; ++v) {
      const std::int64_t at = o + 16 * v;
      const __m512i sum = _mm512_sub_epi32(sums[r][v], _mm512_load_si512(layer.shift.get() + at));
      const __m512 by = _mm512_mul_ps(scale, _mm512_load_ps(layer.scale.get() + at));
      _mm512_storeu_ps(out + r * out_stride + at,
                       _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), by, _mm512_load_ps(layer.bias.get() + at)));
    }
  }
}

LLAMO_AVX512_VNNI void multiply_int8_vnni(const Linear& layer, const Rows& rows) {
  multiply_int8<64, 128, std::uint8_t>(layer, rows, int8_panel_vnni<4>, int8_panel_vnni<2>, int8_panel_vnni<1>);
}

// Rows at once: as many as leave registers for a panel of weights (16 registers here, 32 below).
LLAMO_AVX2 void multiply_float_avx2(const Linear& layer, const Rows& rows) {
  FloatLoops<8, 2>::multiply<false>(layer, rows);
}
LLAMO_AVX2 void multiply_pairs_avx2(const Linear& layer, const Rows& rows) {
  FloatLoops<8, 2>::multiply<true>(layer, rows);
}
LLAMO_AVX512 void multiply_float_avx512(const Linear& layer, const Rows& rows) {
  FloatLoops<16, 4>::multiply<false>(layer, rows);
}
LLAMO_AVX512 void multiply_pairs_avx512(const Linear& layer, const Rows& rows) {
  FloatLoops<16, 4>::multiply<true>(layer, rows);
}
#endif

// Not 4 floats, the SSE2 and NEON register: GCC unrolls a panel of 16 before it looks for vectors, which costs 4 times.
void multiply_float_portable(const Linear& layer, const Rows& rows) { FloatLoops<8, 1>::multiply<false>(layer, rows); }
void multiply_pairs_portable(const Linear& layer, const Rows& rows) { FloatLoops<8, 1>::multiply<true>(layer, rows); }

struct Choice {
  std::int64_t panel, group;  // outputs side by side, and inputs of each of them in int8
  void (*multiply)(const Linear&, const Rows&);
};

Choice choice_of(InstructionSet set, Precision precision) {
  const auto of = [precision](std::int64_t panel, std::int64_t group, auto floats, auto pairs, auto bytes) {
    const auto function = precision == Precision::kFloat32 ? floats : precision == Precision::kBfloat16 ? pairs : bytes;
    return Choice{panel, group, function};
  };
  switch (set) {
#if defined(LLAMO_X86)
    case InstructionSet::kAvx512Vnni:
      return of(64, kGroup, multiply_float_avx512, multiply_pairs_avx512, multiply_int8_vnni);
    case InstructionSet::kAvx512:
      return of(64, kGroup, multiply_float_avx512, multiply_pairs_avx512, multiply_int8_avx512);
    case InstructionSet::kAvx2:
      return of(32, kGroup, multiply_float_avx2, multiply_pairs_avx2, multiply_int8_avx2);
#endif
    default:
      return of(32, 1, multiply_float_portable, multiply_pairs_portable, multiply_int8_portable);
  }
}

// Upper half of a float, rounded to even. Weights are finite.
std::uint32_t bfloat16_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

}  // namespace

Precision precision_named(const std::string& name) {
  if (name == "float32") return Precision::kFloat32;
  if (name == "bfloat16") return Precision::kBfloat16;
  if (name == "int8") return Precision::kInt8;
  throw std::invalid_argument("there is no precision '" + name + "'");
}

Linear::Linear(const float* weight, const float* bias_values, std::int64_t in, std::int64_t out, Precision precision,
               InstructionSet set, Arena& arena)
    : inputs(in), outputs(out) {
  const auto [panel, group, function] = choice_of(set, precision);
  multiply_rows = function;
  padded = round_up(out, panel);
  bias = Buffer<float>(padded, arena);
  if (bias_values != nullptr) std::copy_n(bias_values, out, bias.get());
  const std::int64_t halves = (in + 1) / 2, stride = round_up(in, group);
  if (precision == Precision::kFloat32) floats = Buffer<float>(in * padded, arena);
  if (precision == Precision::kBfloat16) pairs = Buffer<std::uint32_t>(halves * padded, arena);
  if (precision == Precision::kInt8) {
    bytes = Buffer<std::int8_t>(stride * padded, arena);
    scale = Buffer<float>(padded, arena);
    shift = Buffer<std::int32_t>(padded, arena);
  }
  for (std::int64_t o = 0; o < out; ++o) {
    const float* row = weight + o * in;
    const std::int64_t begin = o / panel * panel, column = o % panel;
    if (precision == Precision::kFloat32) {
      for (std::int64_t i = 0; i < in; ++i) floats.get()[begin * in + i * panel + column] = row[i];
    } else if (precision == Precision::kBfloat16) {
      for (std::int64_t i = 0; i < in; ++i)
        pairs.get()[begin * halves + i / 2 * panel + column] |= bfloat16_of(row[i]) << (i % 2 == 0 ? 0 : 16);
    } else {
      float largest = 0.0f;
      for (std::int64_t i = 0; i < in; ++i) largest = std::max(largest, std::fabs(row[i]));
      const float step = largest / 127.0f;
      std::int32_t sum = 0;
      for (std::int64_t i = 0; i < in; ++i) {
        const auto whole = static_cast<std::int8_t>(step > 0.0f ? std::nearbyint(row[i] / step) : 0.0f);
        bytes.get()[begin * stride + i / group * group * panel + column * group + i % group] = whole;
        sum += whole;
      }
      scale.get()[o] = step;
      shift.get()[o] = 128 * sum;
    }
  }
}

}  // namespace llamo
