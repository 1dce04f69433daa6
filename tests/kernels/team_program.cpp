// A team whose helpers stall at the worst moments. Prints how many chunks helpers computed; fails if a product differs
// from that of one thread, or if the caller waits for a helper. Compiled and run by test_team.py, also with a sanitiser
// that finds data races.

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "team.hpp"

// Instead of the C library's: helpers compete for cores here, so that they do something on a busy machine too.
extern "C" int sched_setscheduler(pid_t, int, const sched_param*) noexcept { return 0; }

namespace {

using namespace llamo;
using Milliseconds = std::chrono::milliseconds;

std::thread::id caller;
void (*multiply_rows)(const Linear&, const Rows&);
std::atomic<int> by_helpers{0}, stall_ms{0}, every{1};

// What a product does, with stalls before and after it in some of the helpers' chunks.
void stalling(const Linear& layer, const Rows& rows) {
  if (std::this_thread::get_id() == caller) return multiply_rows(layer, rows);
  const int count = ++by_helpers;
  if (count % every == 0) std::this_thread::sleep_for(Milliseconds(stall_ms.load()));
  multiply_rows(layer, rows);
  if (count % every == every / 2) std::this_thread::sleep_for(Milliseconds(stall_ms.load()));
}

float random_value() {
  static std::uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(static_cast<std::int32_t>(state)) / 2147483648.0f;
}

struct Case {
  Case(std::int64_t in, std::int64_t out, std::int64_t rows, Precision precision, InstructionSet set)
      : inputs(in), count(rows), x(rows * in), quantised(quantised_size(in, rows)) {
    std::vector<float> weight(in * out), bias(out);
    for (float& value : weight) value = random_value();
    for (float& value : bias) value = random_value();
    layer = Linear(weight.data(), bias.data(), in, out, precision, set, arena);
    expected = Buffer<float>(rows * layer.padded);
    actual = Buffer<float>(rows * layer.padded);
    multiply_rows = layer.multiply_rows;
    layer.multiply_rows = stalling;
  }

  bool agrees(Team& team) {  // with other inputs each time: what a late helper reads must not change under it
    for (float& value : x) value = random_value();
    multiply_rows(layer, {x.data(), inputs, expected.get(), layer.padded, count, quantised.get()});
    team.multiply(layer, {x.data(), inputs, actual.get(), layer.padded, count, quantised.get()});
    return std::memcmp(expected.get(), actual.get(), sizeof(float) * count * layer.padded) == 0;
  }

  std::int64_t inputs, count;
  std::vector<float> x;
  Buffer<std::int16_t> quantised;
  Arena arena;
  Linear layer;
  Buffer<float> expected, actual;
};

bool products_agree(std::int64_t helpers) {
  every = 7;
  stall_ms = 3;
  bool good = true;
  for (const std::string& name : instruction_sets())
    for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16, Precision::kInt8})
      for (const std::int64_t rows : {1, 3}) {
        Case c(66, 1000, rows, precision, instruction_set_named(name));
        Team team(helpers, 66, padded_size(1000), 3);
        for (int i = 0; i < 20; ++i) {
          good = c.agrees(team) && good;
          if (i % 10 == 9) std::this_thread::sleep_for(Milliseconds(1));  // longer than helpers stay awake
        }
      }
  return good;
}

// Helpers that claim a chunk stay away for two seconds.
bool caller_goes_on(std::int64_t helpers) {
  every = 1;
  stall_ms = 2000;
  by_helpers = 0;
  Case c(64, 1024, 1, Precision::kFloat32, instruction_set_named("portable"));
  Team team(helpers, 64, 1024, 1);
  const auto start = std::chrono::steady_clock::now();
  bool good = true;
  while (by_helpers < helpers && std::chrono::steady_clock::now() - start < Milliseconds(20000))
    good = c.agrees(team) && good;
  const auto all_stall = std::chrono::steady_clock::now();
  for (int i = 0; i < 20; ++i) good = c.agrees(team) && good;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - all_stall).count();
  std::printf("20 products took %.3f s while %d helpers stalled\n", seconds, by_helpers.load());
  return good && by_helpers == helpers && seconds < 1.0;
}

}  // namespace

int main() {
  caller = std::this_thread::get_id();
  bool good = true;
  for (const std::int64_t helpers : {1, 3}) good = products_agree(helpers) && good;
  std::printf("helpers computed %d chunks\n", by_helpers.load());
  good = by_helpers > 0 && good;
  for (const std::int64_t helpers : {1, 3}) good = caller_goes_on(helpers) && good;
  return good ? 0 : 1;
}
