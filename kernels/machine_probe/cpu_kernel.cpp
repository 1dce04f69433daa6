// What one core of this machine can do at most, to compare kernels with: bytes read per second from whatever cache level
// holds a buffer, and multiply-add operations per second on registers. Nothing here is part of a model.

#include <pybind11/pybind11.h>

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "instruction_set.hpp"
#include "memory.hpp"

#if defined(LLAMO_X86)
#include <immintrin.h>
#endif

namespace py = pybind11;

namespace {

using llamo::Buffer;
using llamo::InstructionSet;

constexpr std::int64_t kBlock = 1024;     // bytes that are read between two looks at the end of the buffer
constexpr std::int64_t kAhead = 4096;     // how far ahead the second way of reading fetches, as the kernels do
constexpr int kChains = 10;               // independent sums: more than latency times units of any core today
constexpr std::int64_t kRound = 1 << 12;  // multiply-adds of each chain between two looks at the clock

double seconds_since(std::chrono::steady_clock::time_point began) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

// The compiler must not find out that each pass reads the same bytes, nor that nobody needs a sum.
template <typename T>
LLAMO_INLINE void keep(T& value) {
#if defined(__GNUC__)
  asm volatile("" : "+m"(value) : : "memory");
#else
  volatile T copy = value;
  value = copy;
#endif
}

// ---------------------------------------------------------------------------------------------------------- reading
// Each adds up the 64-bit words of `bytes` (a multiple of kBlock): the sum shows that all of them were read.

std::uint64_t sum_portable(const std::uint64_t* words, std::int64_t bytes) {
  std::uint64_t sums[8] = {};
  for (std::int64_t i = 0; i < bytes / 8; i += 8)
    for (int lane = 0; lane < 8; ++lane) sums[lane] += words[i + lane];
  std::uint64_t total = 0;
  for (std::uint64_t sum : sums) total += sum;
  return total;
}

#if defined(LLAMO_X86)
template <bool PREFETCH>
LLAMO_AVX2 std::uint64_t sum_avx2(const std::uint64_t* words, std::int64_t bytes) {
  __m256i sums[8] = {};
  const char* at = reinterpret_cast<const char*>(words);
  for (const char* end = at + bytes; at < end; at += 256) {
    if (PREFETCH)
      for (int line = 0; line < 4; ++line) _mm_prefetch(at + kAhead + 64 * line, _MM_HINT_T0);
    for (int v = 0; v < 8; ++v)
      sums[v] = _mm256_add_epi64(sums[v], _mm256_load_si256(reinterpret_cast<const __m256i*>(at) + v));
  }
  alignas(32) std::uint64_t lanes[4];
  for (int v = 1; v < 8; ++v) sums[0] = _mm256_add_epi64(sums[0], sums[v]);
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sums[0]);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

template <bool PREFETCH>
LLAMO_AVX512 std::uint64_t sum_avx512(const std::uint64_t* words, std::int64_t bytes) {
  __m512i sums[8] = {};
  const char* at = reinterpret_cast<const char*>(words);
  for (const char* end = at + bytes; at < end; at += 512) {
    if (PREFETCH)
      for (int line = 0; line < 8; ++line) _mm_prefetch(at + kAhead + 64 * line, _MM_HINT_T0);
    for (int v = 0; v < 8; ++v) sums[v] = _mm512_add_epi64(sums[v], _mm512_load_si512(at + 64 * v));
  }
  for (int v = 1; v < 8; ++v) sums[0] = _mm512_add_epi64(sums[0], sums[v]);
  return static_cast<std::uint64_t>(_mm512_reduce_add_epi64(sums[0]));
}
#endif

using Sum = std::uint64_t (*)(const std::uint64_t*, std::int64_t);

Sum sum_for(InstructionSet set, [[maybe_unused]] bool prefetch) {
  switch (set) {
#if defined(LLAMO_X86)
    case InstructionSet::kAvx512Vnni:
    case InstructionSet::kAvx512:
      return prefetch ? sum_avx512<true> : sum_avx512<false>;
    case InstructionSet::kAvx2:
      return prefetch ? sum_avx2<true> : sum_avx2<false>;
#endif
    default:
      return sum_portable;
  }
}

// ------------------------------------------------------------------------------------------------------ calculating
// Each does `rounds` multiply-adds in every chain, all values of a register at once. Chains begin at different values,
// so that they are not one.

float multiply_add_portable(std::int64_t rounds) {
  float sums[kChains][8];
  for (int c = 0; c < kChains; ++c)
    for (int lane = 0; lane < 8; ++lane) sums[c][lane] = static_cast<float>(c + lane);
  for (std::int64_t i = 0; i < rounds; ++i)
    for (auto& sum : sums)
      for (float& value : sum) value = value * 0.5f + 0.25f;
  float total = 0.0f;
  for (auto& sum : sums)
    for (float value : sum) total += value;
  return total;
}

#if defined(LLAMO_X86)
LLAMO_AVX2 float multiply_add_avx2(std::int64_t rounds) {
  __m256 sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = _mm256_set1_ps(static_cast<float>(c));
  const __m256 half = _mm256_set1_ps(0.5f), quarter = _mm256_set1_ps(0.25f);
  for (std::int64_t i = 0; i < rounds; ++i)
    for (auto& sum : sums) sum = _mm256_fmadd_ps(sum, half, quarter);
  for (int c = 1; c < kChains; ++c) sums[0] = _mm256_add_ps(sums[0], sums[c]);
  return _mm256_cvtss_f32(sums[0]);
}

LLAMO_AVX512 float multiply_add_avx512(std::int64_t rounds) {
  __m512 sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = _mm512_set1_ps(static_cast<float>(c));
  const __m512 half = _mm512_set1_ps(0.5f), quarter = _mm512_set1_ps(0.25f);
  for (std::int64_t i = 0; i < rounds; ++i)
    for (auto& sum : sums) sum = _mm512_fmadd_ps(sum, half, quarter);
  for (int c = 1; c < kChains; ++c) sums[0] = _mm512_add_ps(sums[0], sums[c]);
  return _mm512_reduce_add_ps(sums[0]);
}

// int8 as common/linear.cpp multiplies it: in pairs of 16 bits, or four bytes at a time with VNNI.
LLAMO_AVX2 float multiply_add_int8_avx2(std::int64_t rounds) {
  __m256i sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = _mm256_set1_epi32(c);
  const __m256i ones = _mm256_set1_epi16(1);
  for (std::int64_t i = 0; i < rounds; ++i)
    for (auto& sum : sums) sum = _mm256_add_epi32(_mm256_madd_epi16(sum, ones), ones);
  for (int c = 1; c < kChains; ++c) sums[0] = _mm256_add_epi32(sums[0], sums[c]);
  return static_cast<float>(_mm256_extract_epi32(sums[0], 0));
}

LLAMO_AVX512 float multiply_add_int8_avx512(std::int64_t rounds) {
  __m512i sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = _mm512_set1_epi32(c);
  const __m512i ones = _mm512_set1_epi16(1);
  for (std::int64_t i = 0; i < rounds; ++i)
    for (auto& sum : sums) sum = _mm512_add_epi32(_mm512_madd_epi16(sum, ones), ones);
  for (int c = 1; c < kChains; ++c) sums[0] = _mm512_add_epi32(sums[0], sums[c]);
  return static_cast<float>(_mm512_reduce_add_epi32(sums[0]));
}

LLAMO_AVX512_VNNI float multiply_add_int8_vnni(std::int64_t rounds) {
  __m512i sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = _mm512_set1_epi32(c);
  const __m512i ones = _mm512_set1_epi8(1);
  for (std::int64_t i = 0; i < rounds; ++i)
    for (auto& sum : sums) sum = _mm512_dpbusd_epi32(sum, ones, ones);
  for (int c = 1; c < kChains; ++c) sums[0] = _mm512_add_epi32(sums[0], sums[c]);
  return static_cast<float>(_mm512_reduce_add_epi32(sums[0]));
}
#endif

struct Calculation {
  float (*run)(std::int64_t rounds);
  int products;  // of one round of one chain
};

Calculation calculation_for(InstructionSet set, [[maybe_unused]] bool int8) {
  switch (set) {
#if defined(LLAMO_X86)
    case InstructionSet::kAvx512Vnni:
      return int8 ? Calculation{multiply_add_int8_vnni, 64} : Calculation{multiply_add_avx512, 16};
    case InstructionSet::kAvx512:
      return int8 ? Calculation{multiply_add_int8_avx512, 32} : Calculation{multiply_add_avx512, 16};
    case InstructionSet::kAvx2:
      return int8 ? Calculation{multiply_add_int8_avx2, 16} : Calculation{multiply_add_avx2, 8};
#endif
    default:
      return {multiply_add_portable, 8};
  }
}

// ---------------------------------------------------------------------------------------------------------- binding

// Best bytes per second over rounds of some milliseconds each, until the time is over.
double read_rate(std::int64_t bytes, double seconds, const std::string& instruction_set) {
  const InstructionSet set = llamo::instruction_set_named(instruction_set);
  py::gil_scoped_release unlocked;
  bytes = llamo::round_up(bytes, kBlock);
  Buffer<std::uint64_t> buffer((bytes + 2 * kAhead) / 8);  // fetching ahead stays inside
  const std::int64_t passes = 1 + (std::int64_t{16} << 20) / bytes;
  double best = 0.0;
  std::uint64_t total = 0;
  const auto began = std::chrono::steady_clock::now();
  do {
    for (bool prefetch : {false, true}) {
      const Sum sum = sum_for(set, prefetch);
      const auto start = std::chrono::steady_clock::now();
      for (std::int64_t pass = 0; pass < passes; ++pass) {
        total += sum(buffer.get(), bytes);
        keep(total);
      }
      const double rate = static_cast<double>(passes * bytes) / seconds_since(start);
      best = rate > best ? rate : best;
    }
  } while (seconds_since(began) < seconds);
  return best;
}

// Best operations per second (a product and its sum are two) over many short rounds, until the time is over.
double multiply_add_rate(const std::string& kind, double seconds, const std::string& instruction_set) {
  const Calculation calculation = calculation_for(llamo::instruction_set_named(instruction_set), kind == "int8");
  py::gil_scoped_release unlocked;
  double best = 0.0;
  float result = 0.0f;
  const auto began = std::chrono::steady_clock::now();
  do {
    const auto start = std::chrono::steady_clock::now();
    for (int repeat = 0; repeat < 64; ++repeat) {
      result = calculation.run(kRound);
      keep(result);
    }
    const double operations = 2.0 * 64 * kRound * kChains * calculation.products;
    const double rate = operations / seconds_since(start);
    best = rate > best ? rate : best;
  } while (seconds_since(began) < seconds);
  return best;
}

// Sum of the 64-bit words 0, 1, 2, ... in so many bytes: what reading is tested with.
std::uint64_t read_sum(std::int64_t bytes, const std::string& instruction_set, bool prefetch) {
  const Sum sum = sum_for(llamo::instruction_set_named(instruction_set), prefetch);
  bytes = llamo::round_up(bytes, kBlock);
  Buffer<std::uint64_t> buffer((bytes + 2 * kAhead) / 8);
  for (std::int64_t i = 0; i < bytes / 8; ++i) buffer.get()[i] = static_cast<std::uint64_t>(i);
  return sum(buffer.get(), bytes);
}

}  // namespace

void register_machine_probe(py::module_& m) {
  m.attr("machine_probe") = true;
  m.def("machine_probe_read_rate", &read_rate, "Bytes per second of one thread that reads a buffer again and again.",
        py::arg("bytes"), py::arg("seconds"), py::arg("instruction_set"));
  m.def("machine_probe_multiply_add_rate", &multiply_add_rate, "Operations per second of one thread.", py::arg("kind"),
        py::arg("seconds"), py::arg("instruction_set"));
  m.def("machine_probe_read_sum", &read_sum, "Sum of the words that reading sees.", py::arg("bytes"),
        py::arg("instruction_set"), py::arg("prefetch"));
}
