#include "team.hpp"

#include <algorithm>
#include <chrono>
#include <climits>

#ifdef __linux__
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace llamo {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kUnit = 64;             // outputs; every instruction set's panels fit into it
constexpr std::int64_t kChunksPerThread = 8;   // few enough for int8, which rounds the inputs once per chunk
constexpr std::chrono::microseconds kSpin{100};  // more than passes between two layers of a network

void relax() {
#if defined(LLAMO_X86)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

std::int64_t this_process() {
#ifdef __linux__
  return getpid();
#else
  return 0;
#endif
}

}  // namespace

Team::Team(std::int64_t helpers, std::int64_t inputs, std::int64_t outputs, std::int64_t rows)
    : inputs_(inputs), rows_(rows), process_(this_process()) {
  // The newest job, and one that each helper may be stuck in: one more is always free.
  for (std::int64_t i = 0; i < helpers + 2; ++i) jobs_.push_back(std::make_unique<Job>(inputs, outputs, rows));
  try {
    for (std::int64_t i = 0; i < helpers; ++i) helpers_.emplace_back(&Team::help, this, i + 1, helpers + 1);
  } catch (...) {
    stop();
    throw;
  }
}

Team::~Team() { stop(); }

void Team::stop() {
  stop_ = true;
  wake();
  for (std::thread& helper : helpers_)
    if (this_process() == process_)
      helper.join();
    else
      helper.detach();
}

void Team::multiply(const Linear& layer, const Rows& rows) {
  Job& job = publish(layer, rows);
  const auto compute = [&](std::int64_t chunk) {
    Rows part = rows;
    part.begin = chunk * job.chunk_size;
    part.end = std::min(part.begin + job.chunk_size, layer.padded);
    layer.multiply(part);
  };

  Clock::duration one_chunk{0};
  bool is_mine[kMaxChunks] = {};
  for (std::int64_t chunk = 0; chunk < job.chunks; ++chunk) {
    State expected = State::kFree;
    if (!job.states[chunk].compare_exchange_strong(expected, State::kClaimed)) continue;
    is_mine[chunk] = true;
    const Clock::time_point start = Clock::now();
    compute(chunk);
    one_chunk = Clock::now() - start;
  }
  for (std::int64_t chunk = 0; chunk < job.chunks; ++chunk) {
    if (is_mine[chunk]) continue;
    const Clock::time_point latest = Clock::now() + one_chunk;
    while (job.states[chunk].load(std::memory_order_acquire) != State::kDone && Clock::now() < latest) relax();
    if (job.states[chunk].load(std::memory_order_acquire) != State::kDone) {
      compute(chunk);
      continue;
    }
    const std::int64_t begin = chunk * job.chunk_size, end = std::min(begin + job.chunk_size, layer.padded);
    for (std::int64_t r = 0; r < rows.count; ++r)
      std::copy(job.out.get() + r * layer.padded + begin, job.out.get() + r * layer.padded + end,
                rows.out + r * rows.out_stride + begin);
  }
}

// Fills a job that no helper is in, and makes it the newest.
Team::Job& Team::publish(const Linear& layer, const Rows& rows) {
  const std::uint64_t places = jobs_.size(), newest = ticket_.load(std::memory_order_relaxed);
  std::uint64_t place = 0;
  // A helper may enter the newest job at any time, and stays out of others: it looks at the ticket once more inside.
  while (place == newest % places || jobs_[place]->visitors.load() != 0) place = (place + 1) % places;
  Job& job = *jobs_[place];
  job.layer = &layer;
  job.rows = rows.count;
  const auto threads = static_cast<std::int64_t>(helpers_.size() + 1);
  const std::int64_t units = (layer.padded + kUnit - 1) / kUnit;
  const std::int64_t most = std::min<std::int64_t>(kMaxChunks, kChunksPerThread * threads);
  job.chunk_size = (units + most - 1) / most * kUnit;
  job.chunks = (layer.padded + job.chunk_size - 1) / job.chunk_size;
  for (std::int64_t r = 0; r < rows.count; ++r)
    std::copy_n(rows.in + r * rows.in_stride, layer.inputs, job.in.get() + r * layer.inputs);
  for (std::int64_t chunk = 0; chunk < job.chunks; ++chunk)
    job.states[chunk].store(State::kFree, std::memory_order_relaxed);
  ticket_.store((newest / places + 1) * places + place);
  if (someone_sleeps_.load() && someone_sleeps_.exchange(false)) wake();
  return job;
}

// ---------------------------------------------------------------------------------------------------------- helpers

void Team::help(std::int64_t index, std::int64_t threads) {
#ifdef __linux__
  // Only cores that nobody else wants: a helper that pushed its caller from a core would be no help.
  const sched_param no_priority{};
  sched_setscheduler(0, SCHED_IDLE, &no_priority);
#endif
  Buffer<std::int16_t> quantised(quantised_size(inputs_, rows_));
  const std::uint64_t places = jobs_.size();
  std::uint64_t seen = 0;
  Clock::time_point tired = Clock::now() + kSpin;
  while (!stop_) {
    const std::uint64_t ticket = ticket_.load();
    if (ticket == seen) {
      if (Clock::now() > tired) {
        sleep_until_other_than(seen);
        tired = Clock::now() + kSpin;
      }
      relax();
      continue;
    }
    Job& job = *jobs_[ticket % places];
    ++job.visitors;
    if (ticket_.load() == ticket) {
      help_with(job, index * job.chunks / threads, quantised.get());
      seen = ticket;
      tired = Clock::now() + kSpin;
    }
    --job.visitors;
  }
}

// From its own share of the chunks on, so that the weights of that share stay in the cache of its core.
void Team::help_with(Job& job, std::int64_t first, std::int16_t* quantised) {
  const Linear& layer = *job.layer;
  for (std::int64_t i = 0; i < job.chunks; ++i) {
    const std::int64_t chunk = (first + i) % job.chunks;
    State expected = State::kFree;
    if (!job.states[chunk].compare_exchange_strong(expected, State::kClaimed)) continue;
    const std::int64_t begin = chunk * job.chunk_size;
    layer.multiply({job.in.get(), layer.inputs, job.out.get(), layer.padded, job.rows, quantised, begin,
                    std::min(begin + job.chunk_size, layer.padded)});
    job.states[chunk].store(State::kDone, std::memory_order_release);
  }
}

#ifdef __linux__
void Team::sleep_until_other_than(std::uint64_t ticket) {
  const std::uint32_t ring = bell_;
  someone_sleeps_ = true;
  if (ticket_ == ticket && !stop_) syscall(SYS_futex, &bell_, FUTEX_WAIT_PRIVATE, ring, nullptr, nullptr, 0);
}

// No lock, which a helper without a core might hold.
void Team::wake() {
  ++bell_;
  syscall(SYS_futex, &bell_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}
#else
void Team::sleep_until_other_than(std::uint64_t) { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }
void Team::wake() {}
#endif

}  // namespace llamo
