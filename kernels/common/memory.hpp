// Aligned memory, and the macros that let one plain loop be compiled once per instruction set.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#if defined(__GNUC__)  // GCC and Clang
#define LLAMO_INLINE __attribute__((always_inline)) inline  // compiled for the instruction set of its caller
#define LLAMO_RESTRICT __restrict__
#else
#define LLAMO_INLINE inline
#define LLAMO_RESTRICT
#endif

// With these, a function may use instructions that the rest of the module must do without.
#if defined(__x86_64__) && defined(__GNUC__)
#define LLAMO_X86 1
#define LLAMO_AVX2 __attribute__((target("avx2,fma")))
#define LLAMO_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#define LLAMO_AVX512_VNNI __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx2,fma")))
#endif

namespace llamo {

// Zeroed values that start on a cache line.
template <typename T>
class Buffer {
 public:
  explicit Buffer(std::int64_t count = 0)
      : data_(static_cast<T*>(::operator new(sizeof(T) * static_cast<std::size_t>(count), kAlignment))) {
    std::fill_n(data_.get(), count, T{});
  }
  T* get() { return data_.get(); }
  const T* get() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(T* pointer) const { ::operator delete(pointer, kAlignment); }
  };
  std::unique_ptr<T[], Free> data_;
};

inline std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace llamo
