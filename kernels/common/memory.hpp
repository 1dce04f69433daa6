// Aligned memory, and the macros that let one plain loop be compiled once per instruction set.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

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

// Zeroed values that start on a cache line. Large ones ask for huge pages: a processor fetches ahead within a page, and
// weights that lie beyond its cache are read up to a quarter faster.
template <typename T>
class Buffer {
 public:
  explicit Buffer(std::int64_t count = 0) {
    const std::size_t size = sizeof(T) * static_cast<std::size_t>(count);
    const std::align_val_t alignment{size < kHugePage ? 64 : kHugePage};
    data_ = {static_cast<T*>(::operator new(size, alignment)), Free{alignment}};
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (size >= kHugePage) madvise(data_.get(), size / kHugePage * kHugePage, MADV_HUGEPAGE);  // may be refused
#endif
    std::fill_n(data_.get(), count, T{});
  }
  T* get() { return data_.get(); }
  const T* get() const { return data_.get(); }

 private:
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;
  struct Free {
    std::align_val_t alignment;
    void operator()(T* pointer) const { ::operator delete(pointer, alignment); }
  };
  std::unique_ptr<T[], Free> data_;
};

inline std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace llamo
