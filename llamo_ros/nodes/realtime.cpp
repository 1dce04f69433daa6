// What Python cannot do: publish serialized messages at absolute times from a thread of its own, say how long a thread
// may keep a core, and end with whoever started the process.
//
// A Python thread that wakes up for its deadline must get hold of the interpreter first, and whoever holds that may
// itself be waiting for a core. Here everything is ready before the deadline, so that only rcl_publish is left to do.

#include <pybind11/pybind11.h>
#include <rcl/error_handling.h>
#include <rcl/publisher.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace py = pybind11;

namespace {

using Clock = std::chrono::steady_clock;  // that of Python's time.monotonic()
using Moment = std::chrono::time_point<Clock, std::chrono::nanoseconds>;

// ------------------------------------------------------------------------------------------------------ scheduling
#ifdef __linux__
struct SchedulingAttributes {  // struct sched_attr of the kernel, which no header of every C library has
  std::uint32_t size;
  std::uint32_t policy;
  std::uint64_t flags;
  std::int32_t nice;
  std::uint32_t priority;
  std::uint64_t runtime;
  std::uint64_t deadline;
  std::uint64_t period;
};

// From Linux 6.12 on a thread may ask for time slices of its own length, without any privilege: when it wakes up, it
// preempts a thread with longer ones. Its share of the time does not change. Whether the system does that.
bool set_time_slice(std::int64_t nanoseconds) {
  const auto slice = static_cast<std::uint64_t>(nanoseconds);
  SchedulingAttributes attributes{};
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0) return false;
  attributes.size = sizeof attributes;
  attributes.runtime = slice;
  if (syscall(SYS_sched_setattr, 0, &attributes, 0) != 0) return false;
  SchedulingAttributes now{};
  return syscall(SYS_sched_getattr, 0, &now, sizeof now, 0) == 0 && now.runtime == slice;
}

constexpr std::int64_t kShortestSlice = 100'000;  // [ns], the least that Linux takes

// SIGTERM to this process as soon as the thread that started it ends, however that happens.
void end_with_parent() { prctl(PR_SET_PDEATHSIG, static_cast<unsigned long>(SIGTERM), 0UL, 0UL, 0UL); }

// The best that the system grants to the calling thread.
std::string become_punctual(int priority) {
  prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
  if (priority > 0) {
    sched_param parameters{};
    parameters.sched_priority = priority;
    if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameters) == 0)
      return "real-time priority " + std::to_string(priority);
  }
  return set_time_slice(kShortestSlice) ? "short time slices" : "ordinary scheduling";
}
#else
bool set_time_slice(std::int64_t) { return false; }
void end_with_parent() {}
std::string become_punctual(int) { return "ordinary scheduling"; }
#endif

// -------------------------------------------------------------------------------------------------------- publisher
class PunctualPublisher {
 public:
  PunctualPublisher(std::uintptr_t publisher, int priority)
      : publisher_(reinterpret_cast<const rcl_publisher_t*>(publisher)) {
    if (!rcl_publisher_is_valid(publisher_)) {
      const std::string reason = rcl_get_error_string().str;
      rcl_reset_error();
      throw std::invalid_argument("not an rcl publisher: " + reason);
    }
    thread_ = std::thread([this, priority] { run(priority); });
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !scheduling_.empty(); });
  }

  ~PunctualPublisher() { close(); }

  void publish_at(std::string message, std::int64_t due, std::int64_t too_late) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (is_closing_) throw std::runtime_error("the publisher is closed");
      handed_in_late_ += Clock::now() > moment(due);
      waiting_.push_back({std::move(message), moment(due), moment(too_late)});
    }
    changed_.notify_all();
  }

  void close() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      is_closing_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  std::string scheduling() {
    std::lock_guard<std::mutex> lock(mutex_);
    return scheduling_;
  }

  std::uint64_t published() {
    std::lock_guard<std::mutex> lock(mutex_);
    return published_;
  }

  std::uint64_t handed_in_late() {
    std::lock_guard<std::mutex> lock(mutex_);
    return handed_in_late_;
  }

  double take_lateness() {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(lateness_, 0.0);
  }

  std::string take_error() {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(error_, {});
  }

 private:
  struct Waiting {
    std::string message;
    Moment due, too_late;
  };

  static Moment moment(std::int64_t nanoseconds) { return Moment(std::chrono::nanoseconds(nanoseconds)); }

  void run(int priority) {
    std::unique_lock<std::mutex> lock(mutex_);
    scheduling_ = become_punctual(priority);
    changed_.notify_all();
    for (;;) {
      changed_.wait(lock, [this] { return is_closing_ || !waiting_.empty(); });
      // Only this thread takes messages out, so the first one stays the first while it is waited for.
      if (!is_closing_) changed_.wait_until(lock, waiting_.front().due, [this] { return is_closing_; });
      if (is_closing_) return;
      Waiting next = std::move(waiting_.front());
      waiting_.pop_front();
      if (Clock::now() > next.too_late) continue;
      lock.unlock();
      const std::string error = publish(next.message);
      const double late = std::chrono::duration<double>(Clock::now() - next.due).count();
      lock.lock();
      if (error.empty()) {
        ++published_;
        lateness_ = std::max(lateness_, late);
      } else {
        error_ = error;
      }
    }
  }

  std::string publish(std::string& message) {
    rcl_serialized_message_t serialized = rmw_get_zero_initialized_serialized_message();
    serialized.buffer = reinterpret_cast<std::uint8_t*>(message.data());
    serialized.buffer_length = serialized.buffer_capacity = message.size();
    if (rcl_publish_serialized_message(publisher_, &serialized, nullptr) == RCL_RET_OK) return {};
    const std::string reason = rcl_get_error_string().str;
    rcl_reset_error();
    return reason.empty() ? "unknown error" : reason;
  }

  const rcl_publisher_t* publisher_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Waiting> waiting_;
  bool is_closing_ = false;
  std::string scheduling_, error_;
  std::uint64_t published_ = 0, handed_in_late_ = 0;
  double lateness_ = 0.0;
  std::thread thread_;
};

}  // namespace

PYBIND11_MODULE(_realtime, m) {
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  m.doc() = "Use llamo_ros.nodes.realtime, which keeps the publisher alive meanwhile.";
  m.def("end_with_parent", &end_with_parent);
  m.def("set_time_slice", &set_time_slice, py::arg("nanoseconds"));
  py::class_<PunctualPublisher>(m, "PunctualPublisher")
      .def(py::init<std::uintptr_t, int>(), py::arg("publisher"), py::arg("priority"), Unlocked())
      .def("publish_at", &PunctualPublisher::publish_at, py::arg("message"), py::arg("due"), py::arg("too_late"),
           Unlocked())
      .def("close", &PunctualPublisher::close, Unlocked())
      .def("take_lateness", &PunctualPublisher::take_lateness, Unlocked())
      .def("take_error", &PunctualPublisher::take_error, Unlocked())
      .def_property_readonly("scheduling", &PunctualPublisher::scheduling)
      .def_property_readonly("published", &PunctualPublisher::published)
      .def_property_readonly("handed_in_late", &PunctualPublisher::handed_in_late);
}
