// More threads than one for a linear layer, without a barrier at which somebody waits for a thread that has no core.
//
// Outputs are cut into chunks that whoever is free claims. A helper reads a copy of the inputs, writes to memory of the
// job, and says when a chunk is there; the caller takes that over. When nothing is left to claim, the caller waits for
// a chunk that a helper holds for as long as it would take to compute it, and then computes it. So it never depends on
// a helper: one that lost its core finishes later, into memory that nobody reads any more and nobody reuses until then.
//
// Who computes a chunk makes no difference to its values: results are those of one thread, bit for bit.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "linear.hpp"
#include "memory.hpp"

namespace llamo {

class Team {
 public:
  // Starts `helpers` threads, at least one. Layers have at most so many inputs and padded outputs, calls so many rows.
  Team(std::int64_t helpers, std::int64_t inputs, std::int64_t outputs, std::int64_t rows);
  ~Team();  // the layers of earlier calls must still be there
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  // Like layer.multiply(rows). One caller at a time: hold `lock`.
  void multiply(const Linear& layer, const Rows& rows);

  std::mutex lock;

 private:
  static constexpr std::int64_t kMaxChunks = 64;
  enum class State : std::uint8_t { kFree, kClaimed, kDone };

  // One product. Reused when no helper is in it any more.
  struct Job {
    Job(std::int64_t inputs, std::int64_t outputs, std::int64_t rows) : in(rows * inputs), out(rows * outputs) {}
    const Linear* layer = nullptr;
    std::int64_t rows = 0, chunks = 0, chunk_size = 0;
    Buffer<float> in, out;  // rows lie one after the other
    std::atomic<State> states[kMaxChunks] = {};
    alignas(64) std::atomic<int> visitors{0};
  };

  void stop();
  void help(std::int64_t index, std::int64_t threads);
  void help_with(Job& job, std::int64_t first, std::int16_t* quantised);
  Job& publish(const Linear& layer, const Rows& rows);
  void sleep_until_other_than(std::uint64_t ticket);
  void wake();

  const std::int64_t inputs_, rows_;
  std::vector<std::unique_ptr<Job>> jobs_;
  std::vector<std::thread> helpers_;
  const std::int64_t process_;  // that owns the threads: after a fork the child has none
  // Number of the newest job times kMaxJobs, plus its place in jobs_.
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  std::atomic<bool> someone_sleeps_{false}, stop_{false};
  std::atomic<std::uint32_t> bell_{0};
};

}  // namespace llamo
