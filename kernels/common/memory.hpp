// Aligned memory, and the macros that let one plain loop be compiled once per instruction set.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <utility>
#include <vector>

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

constexpr std::size_t kCacheLine = 64, kHugePage = std::size_t{2} << 20;

struct FreeAligned {
  std::align_val_t alignment{kCacheLine};
  bool is_owner = true;
  void operator()(void* pointer) const {
    if (is_owner) ::operator delete(pointer, alignment);
  }
};

// Bytes that start on a cache line. Large ones ask for huge pages: a processor fetches ahead within a page, and weights
// that lie beyond its cache are read up to a quarter faster.
inline std::unique_ptr<void, FreeAligned> aligned_bytes(std::size_t size) {
  const std::align_val_t alignment{size < kHugePage ? kCacheLine : kHugePage};
  std::unique_ptr<void, FreeAligned> bytes(::operator new(size, alignment), FreeAligned{alignment});
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (size >= kHugePage) madvise(bytes.get(), size / kHugePage * kHugePage, MADV_HUGEPAGE);  // may be refused
#endif
  return bytes;
}

// Memory for all weights of an operation, side by side in the order in which they are asked for. On pages of their own,
// some would share the lines of a cache that others of them leave empty. It has to live as long as what lies in it.
class Arena {
 public:
  // Throws std::bad_alloc; the arena is then as it was.
  void* take(std::size_t size) {
    size = whole(size, kCacheLine);
    if (slabs_.empty() || size > slabs_.back().left) {
      const std::size_t room = whole(std::max(size, kSlab), kHugePage);
      slabs_.push_back({aligned_bytes(room), room});
      slabs_.back().next = static_cast<char*>(slabs_.back().bytes.get());
    }
    Slab& slab = slabs_.back();
    slab.left -= size;
    return std::exchange(slab.next, slab.next + size);
  }

 private:
  struct Slab {
    std::unique_ptr<void, FreeAligned> bytes;
    std::size_t left;
    char* next = nullptr;
  };
  static constexpr std::size_t kSlab = 16 * kHugePage;  // memory that is never written takes no room
  static constexpr std::size_t whole(std::size_t size, std::size_t unit) { return (size + unit - 1) / unit * unit; }
  std::vector<Slab> slabs_;  // all there is to an arena: one that was moved from is empty
};

// Zeroed values that start on a cache line, in memory of their own or in an arena. Throws std::bad_alloc.
template <typename T>
class Buffer {
 public:
  explicit Buffer(std::int64_t count = 0) : bytes_(aligned_bytes(size_of(count))) { std::fill_n(get(), count, T{}); }
  Buffer(std::int64_t count, Arena& arena) : bytes_(arena.take(size_of(count)), FreeAligned{std::align_val_t{1}, false}) {
    std::fill_n(get(), count, T{});
  }
  T* get() { return static_cast<T*>(bytes_.get()); }
  const T* get() const { return static_cast<const T*>(bytes_.get()); }

 private:
  static std::size_t size_of(std::int64_t count) {
    if (count < 0 || count > std::numeric_limits<std::ptrdiff_t>::max() / std::ptrdiff_t{sizeof(T)})
      throw std::bad_array_new_length();
    return sizeof(T) * static_cast<std::size_t>(count);
  }
  std::unique_ptr<void, FreeAligned> bytes_;
};

inline std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace llamo
