// Memory of the kernels under bad luck: allocations that fail, huge pages that are refused, sizes that cannot be, arenas
// that move. Prints what went wrong and fails. Compiled and run by test_memory.py, also with a sanitiser that finds
// accesses outside of what was allocated.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "linear.hpp"
#include "memory.hpp"

namespace {
bool memory_is_full = false;
int huge_pages = 0;  // times that they were asked for
}  // namespace

// Instead of the C and C++ libraries': the one refuses huge pages, the other refuses everything when told to.
extern "C" int madvise(void*, std::size_t, int) noexcept {
  ++huge_pages;
  return -1;
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  const auto align = static_cast<std::size_t>(alignment);
  void* bytes = nullptr;
  if (memory_is_full || size > SIZE_MAX / 4 || posix_memalign(&bytes, align, size) != 0) throw std::bad_alloc();
  return bytes;
}
void operator delete(void* bytes, std::align_val_t) noexcept { std::free(bytes); }
void operator delete(void* bytes, std::size_t, std::align_val_t) noexcept { std::free(bytes); }

namespace {

using namespace llamo;

bool all_good = true;

void check(bool good, const char* what) {
  if (!good) std::printf("%s\n", what);
  all_good = good && all_good;
}

template <typename Function>
bool runs_out_of_memory(Function function) {
  try {
    function();
  } catch (const std::bad_alloc&) {
    return true;
  }
  return false;
}

bool starts_a_line(const void* bytes) { return reinterpret_cast<std::uintptr_t>(bytes) % kCacheLine == 0; }

// Buffers of these sizes start on cache lines, do not overlap and begin as zeros.
void buffers_lie_apart() {
  Arena arena;
  std::vector<Buffer<char>> buffers;
  const std::int64_t slab = std::int64_t{32} << 20;
  for (const std::int64_t size : {std::int64_t{0}, std::int64_t{1}, std::int64_t{64}, std::int64_t{65}, slab - 256,
                                  std::int64_t{1}, std::int64_t{0}, slab, slab + 1, std::int64_t{63}}) {
    buffers.emplace_back(size, arena);
    Buffer<char>& last = buffers.back();
    check(starts_a_line(last.get()), "a buffer does not start on a cache line");
    for (std::int64_t i = 0; i < size; ++i) all_good = all_good && last.get()[i] == 0;
    if (size > 0) std::memset(last.get(), static_cast<int>(buffers.size()), static_cast<std::size_t>(size));
  }
  check(all_good, "a buffer does not begin as zeros: it overlaps another");
  check(huge_pages > 0, "nobody asked for huge pages");
}

void a_failed_request_leaves_the_arena_as_it_was() {
  for (const bool is_used : {false, true}) {
    Arena arena;
    if (is_used) Buffer<char> some(1000, arena);
    memory_is_full = true;
    check(runs_out_of_memory([&] { Buffer<char>(std::int64_t{64} << 20, arena); }), "memory that is not there was given");
    memory_is_full = false;
    Buffer<char> large(std::int64_t{40} << 20, arena);  // in the place of the failed one it would end outside of the slab
    check(large.get() != nullptr, "after a failed request, memory that was never allocated is given");
    if (large.get() != nullptr) std::memset(large.get(), 1, std::size_t{40} << 20);
  }
}

// As when a model is too large: the layers that fit are freed, and a smaller one can be packed instead.
void a_failed_layer_can_be_packed_again() {
  const std::vector<float> weight(64 * 64, 1.0f);
  Arena arena;
  memory_is_full = true;
  const auto pack = [&] {
    return Linear(weight.data(), nullptr, 64, 64, Precision::kFloat32, instruction_set_named("portable"), arena);
  };
  check(runs_out_of_memory(pack), "a layer was packed without memory");
  memory_is_full = false;
  const Linear layer = pack();
  const std::vector<float> x(64, 1.0f);
  std::vector<float> y(64);
  layer.multiply({x.data(), 64, y.data(), 64, 1, nullptr});
  check(y[0] == 64.0f && y[63] == 64.0f, "a layer that was packed again gives something else");
}

void an_arena_that_moved_shares_nothing() {
  Arena first;
  Buffer<char> kept(1000, first);
  std::memset(kept.get(), 7, 1000);
  Arena second = std::move(first);
  Buffer<char> again(1000, first), more(1000, second);  // NOLINT: what is left of the first can be used again
  std::memset(again.get(), 8, 1000);
  std::memset(more.get(), 9, 1000);
  check(again.get()[0] == 8 && kept.get()[999] == 7, "an arena and the one that it moved to give the same memory");
  first = Arena();
  second = std::move(first);
  Buffer<char> last(1000, second);
  std::memset(last.get(), 1, 1000);
}

void sizes_that_cannot_be_are_refused() {
  Arena arena;
  for (const std::int64_t count : {INT64_MAX, INT64_MAX / 2, INT64_MAX / 4 + 1, std::int64_t{-1}, INT64_MIN}) {
    check(runs_out_of_memory([=] { Buffer<double>{count}; }), "a buffer of an impossible size was given");
    check(runs_out_of_memory([&] { Buffer<double>(count, arena); }), "an arena gave a buffer of an impossible size");
  }
}

}  // namespace

int main() {
  buffers_lie_apart();
  sizes_that_cannot_be_are_refused();
  a_failed_layer_can_be_packed_again();
  a_failed_request_leaves_the_arena_as_it_was();
  an_arena_that_moved_shares_nothing();
  return all_good ? 0 : 1;
}
