#include "threads.hpp"

#include <pthread.h>
#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

#include "available.hpp"
#include "float_mode.hpp"
#include "processors.hpp"
#include "startable.hpp"

namespace rnnkern {
namespace {

using Clock = std::chrono::steady_clock;

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// While one lives, sleeps of this thread end when they should, not up to 50 us later (Linux's default).
class PunctualSleep {
#if defined(__linux__)
 public:
  PunctualSleep() : saved_(prctl(PR_GET_TIMERSLACK)) {
    if (saved_ > kSlack) prctl(PR_SET_TIMERSLACK, static_cast<unsigned long>(kSlack));
  }
  ~PunctualSleep() {
    if (saved_ > kSlack) prctl(PR_SET_TIMERSLACK, static_cast<unsigned long>(saved_));
  }

 private:
  static constexpr int kSlack = 1000;  // nanoseconds, as is what was set before
  const int saved_;
#else
 public:
  PunctualSleep() {}
#endif
};

int initial_threads() {
#ifdef _OPENMP
  const int wanted = omp_get_max_threads();
  return std::getenv("OMP_NUM_THREADS") ? wanted : std::min(wanted, processors());
#else
  return 1;
#endif
}

std::atomic<int> threads{0};  // 0: not asked yet
std::atomic<bool> forked{false};

// In nanoseconds: when the last call ended, and since when there has been no pause between calls.
std::atomic<int64_t> last_end{0}, busy_since{0};

int64_t now() { return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count(); }

// After a while without calls the runtime's threads sleep.
bool after_pause() {
  constexpr int64_t pause = 1'000'000;
  return now() - last_end.load(std::memory_order_relaxed) > pause;
}

// In nanoseconds: the two last times that a team took to wait for each other, a round of its barrier, and when that
// was.
constexpr int64_t kWorthATry = 50, kLongAgo = 1'000'000'000;
std::atomic<int64_t> last_barrier{kWorthATry}, barrier_before{kWorthATry}, barrier_seen{0};

bool barrier_older_than(int64_t age) { return now() - barrier_seen.load(std::memory_order_relaxed) > age; }

#ifdef _OPENMP
// What the runtime's pool of a calling thread must grow by for a team. Where a thread can't be had the runtime ends the
// process, so that is tried first; by one caller after the other, until its team is there.
class Growth {
 public:
  explicit Growth(int wanted) : size_(wanted) {
    const int there = omp_in_parallel() ? 1 : had;  // nested teams have threads of their own
    if (wanted <= there) return;
    if (now() - failed < kLongAgo) size_ = std::min(wanted, std::max(there, most));
    if (size_ <= there) return;
    lock_ = std::unique_lock<std::mutex>(one_after_the_other);
    size_ = there + startable(size_ - there);
    if (size_ == wanted) return;
    most = size_;
    failed = now();
  }
  int size() const { return size_; }
  // By the first thread of the team, of so many threads in the end.
  void end(int size) {
    if (lock_.owns_lock()) lock_.unlock();
    if (omp_get_level() == 1) had = size;
  }
  static void in_forked_child() { new (&one_after_the_other) std::mutex; }  // whoever had it is not here

 private:
  static std::mutex one_after_the_other;
  static thread_local int had, most;   // of this caller's last team, and what there was when one was too large
  static thread_local int64_t failed;  // when that was
  int size_;
  std::unique_lock<std::mutex> lock_;
};
std::mutex Growth::one_after_the_other;
thread_local int Growth::had = 1, Growth::most = 1;
thread_local int64_t Growth::failed = -kLongAgo;
#endif

// Calls in flight share the threads: a caller that finds others at work takes its part of them.
std::atomic<int> calls{0};

void in_forked_child() {
  threads.store(1);
  calls.store(0);
  forked.store(true);
#ifdef _OPENMP
  Growth::in_forked_child();
#endif
}
const int fork_guard = pthread_atfork(nullptr, nullptr, in_forked_child);

struct Team {
  void (*prepare)(void*, int);
  bool (*meanwhile)(void*);
  void (*body)(void*, int, int, const Barrier&);
  void* context;
  Barrier all;
};

void run_alone(const Team& team) {
  const FloatMode mode = FloatMode::flushed();
  team.prepare(team.context, 1);
  team.body(team.context, 0, 1, team.all);
}

// Spins for a while, then looks again after short sleeps and what else there is to do.
template <class Passed, class Meanwhile>
void wait_until(Passed passed, std::chrono::microseconds patience, Meanwhile meanwhile) {
  const auto spin = [&] {
    for (int i = 0; i < 64; ++i) {
      if (passed()) return;
      pause_briefly();
    }
  };
  spin();
  if (passed()) return;
  for (const auto start = Clock::now(); !passed() && Clock::now() - start < patience;) spin();
  if (passed()) return;
  const PunctualSleep punctual;
  do {
    std::this_thread::sleep_for(std::chrono::microseconds(10));
    meanwhile();
  } while (!passed());
}
constexpr std::chrono::microseconds kPatience{200};
template <class Passed>
void wait_until(Passed passed) {
  wait_until(passed, kPatience, [] {});
}

#ifdef _OPENMP
// How a team begins. The first thread doesn't only wait for the others, which may take long to wake: it does what can
// be done meanwhile. Where they may be waiting for its own processor, it sleeps often enough for them to run, and to
// leave.
class Gathering {
 public:
  explicit Gathering(int wanted) : kept_away_(after_pause() ? wanted - 1 : 0) {}

  void lead(int size, const Team& team) {
    kept_away_.remember_size(size - 1);
    placement_.claim();
    team.prepare(team.context, size);
    const bool measure = size > 1 && barrier_older_than(kMeasuredAgain);
    begin_.store(measure ? Begin::meet : Begin::work, std::memory_order_release);
    const auto complete = [&] { return joined_.load(std::memory_order_acquire) == size - 1; };
    const bool undisturbed = kept_away_.count() >= size - 1;
    while (undisturbed && !complete() && team.meanwhile(team.context)) {
    }
    wait_until(complete, undisturbed ? kPatience : std::chrono::microseconds(5), [&] { team.meanwhile(team.context); });
    kept_away_.end();
    if (measure) meet(size, team.all);
  }
  void join(int thread, int size, const Barrier& all) {
    kept_away_.remember(thread);
    placement_.claim();
    joined_.fetch_add(1, std::memory_order_release);
    wait_until([&] { return begin_.load(std::memory_order_acquire) != Begin::not_yet; });
    if (begin_.load(std::memory_order_relaxed) == Begin::meet)
      for (int i = 0; i < 2; ++i) all.wait(size, thread);
  }

 private:
  enum class Begin { not_yet, meet, work };
  static constexpr int64_t kMeasuredAgain = 5'000'000;  // nanoseconds

  // Measures how long a barrier of all threads takes, from where they have just met.
  static void meet(int size, const Barrier& all) {
    int rounds = 0;
    while (1 << rounds < size) ++rounds;
    all.wait(size, 0);
    const int64_t start = now();
    all.wait(size, 0);
    const int64_t end = now(), took = std::max<int64_t>(1, (end - start) / rounds);
    const int64_t before = last_barrier.exchange(took, std::memory_order_relaxed);
    barrier_before.store(barrier_older_than(kLongAgo) ? took : before, std::memory_order_relaxed);
    barrier_seen.store(end, std::memory_order_relaxed);
  }

  KeptAway kept_away_;
  Placement placement_;
  std::atomic<int> joined_{0};
  std::atomic<Begin> begin_{Begin::not_yet};
};

// The runtime's own barrier at the end spins for long, even when the thread that it waits for has not been given a
// processor yet. Ours, before it, lets that thread run.
void run_parallel(int wanted, const Team& team) {
  Growth growth(wanted);
  wanted = growth.size();
  if (wanted == 1) return run_alone(team);
  Gathering gathering(wanted);
#pragma omp parallel num_threads(wanted) default(none) shared(gathering, growth, team)
  {
    const FloatMode mode = FloatMode::flushed();
    const int thread = omp_get_thread_num(), size = omp_get_num_threads();
    if (thread == 0) {
      growth.end(size);
      gathering.lead(size, team);
    } else {
      gathering.join(thread, size, team.all);
    }
    team.body(team.context, thread, size, team.all);
    team.all.wait(size, thread);
  }
}
#endif

class Call {
 public:
  Call() : in_flight_(calls.fetch_add(1) + 1) {}
  ~Call() {
    calls.fetch_sub(1);
    last_end.store(now(), std::memory_order_relaxed);
  }
  int share(int wanted) const { return std::max(1, wanted / in_flight_); }

 private:
  int in_flight_;
};

}  // namespace

bool Barrier::wait(int size, int rank, bool stop) const {
  if (size == 1) return stop;
  Place& own = places_[rank];
  const uint32_t turn = ++own.waits % 2, waits = 2 * own.waits;
  for (int round = 0, distance = 1; distance < size; ++round, distance *= 2) {
    places_[(rank + distance) % size].turns[turn].told[round].store(waits + stop, std::memory_order_release);
    const std::atomic<uint32_t>& told = own.turns[turn].told[round];
    wait_until([&] { return (told.load(std::memory_order_acquire) & ~1u) == waits; });
    stop |= (told.load(std::memory_order_relaxed) & 1) != 0;
  }
  return stop;
}

int process_threads() {
  int n = threads.load();
  if (n == 0) {
    int unset = 0;
    threads.compare_exchange_strong(unset, initial_threads());
    n = threads.load();
  }
  return n;
}

void set_process_threads(int n) { threads.store(n); }

const char* openmp_runtime() {
#if !defined(_OPENMP)
  return "none";
#elif defined(__clang__)
  return "libomp";
#else
  return "libgomp";
#endif
}

double barrier_seconds() {
  // One of them may have been disturbed.
  return 1e-9 * static_cast<double>(std::min(last_barrier.load(std::memory_order_relaxed),
                                             barrier_before.load(std::memory_order_relaxed)));
}
double barrier_seconds_or_try() { return barrier_older_than(kLongAgo) ? 1e-9 * kWorthATry : barrier_seconds(); }

int worth_waking(int wanted, double seconds) {
  constexpr double short_call = 0.2e-3;
  constexpr int64_t a_while = 500'000;
  if (wanted > 1) wanted = std::min(wanted, processors());
  if (wanted == 1 || seconds > short_call) return wanted;
  const int64_t start = now();
  if (after_pause()) busy_since.store(start, std::memory_order_relaxed);
  return start - busy_since.load(std::memory_order_relaxed) < a_while ? 1 : wanted;
}

void run_team(int wanted, void (*prepare)(void*, int), bool (*meanwhile)(void*),
              void (*body)(void*, int, int, const Barrier&), void* context) {
  const Call call;
  wanted = call.share(wanted);
  const Barrier::Places places = Barrier::places(wanted);
  const Team team{prepare, meanwhile, body, context, Barrier(places.get())};
#ifdef _OPENMP
  if (wanted > 1) {
    if (!forked.load()) return run_parallel(wanted, team);
    // The runtime's threads did not survive the fork, and it does not know: a new thread has it start new ones, a team
    // a call.
    try {
      std::thread([&] { run_parallel(wanted, team); }).join();
      return;
    } catch (const std::system_error&) {  // no thread to be had
    }
  }
#endif
  run_alone(team);
}

}  // namespace rnnkern
