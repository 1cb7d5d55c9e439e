// The OpenMP team, its barrier, the thread count and what a fork does to them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace rnnkern {

// set_num_threads' value; at first OMP_NUM_THREADS, or the processors that there are; 1 in a forked child.
int process_threads();
void set_process_threads(int n);
const char* openmp_runtime();  // "libgomp", "libomp" or "none"

// How many threads a call should ask for that takes `seconds` on one: never more than there are processors. After a
// while without calls the runtime's threads sleep, and to wake them takes longer than a short call is worth: it gets
// them when calls have kept coming for a while.
int worth_waking(int wanted, double seconds);

// Seconds that threads took to wait for each other, a round of a barrier, when a team gathered that measured it: cores
// may share a cache or be far apart, and a system moves threads from the one to the other. Where that was long ago, a
// second function says so little that teams are tried again.
double barrier_seconds();
double barrier_seconds_or_try();

// A reusable barrier of `size` threads, the same at every wait, of which each gives its rank. By dissemination: in
// round after round a thread tells the one 1, 2, 4, ... ranks ahead that it is there, and is told by the one as far
// behind; so two threads wait for one transfer of a cache line, and nobody for a counter that all of them
// change. Waiting threads spin, then look again after short sleeps. To yield would give a whole time slice away on a
// busy machine; to be woken by the last one would move a thread to that one's processor. A thread that sleeps by the
// clock stays where it is and is back at once. The patience to spin is longer than such a sleep, so that one late
// thread doesn't send the others to sleep in turn.
class Barrier {
 public:
  // What one thread of a barrier is told, and how often it has waited.
  struct Place {
    static constexpr int kRounds = 16;  // of up to 2^16 threads
    // By turns of waits, because the other one may be a wait ahead, but not two: twice the number of the wait, plus 1
    // to stop.
    struct alignas(64) Turn {
      std::atomic<uint32_t> told[kRounds] = {};
    } turns[2];
    alignas(64) uint32_t waits = 0;
  };
  using Places = std::unique_ptr<Place[]>;
  static Places places(int threads) { return Places(threads > 1 ? new Place[threads] : nullptr); }

  Barrier() = default;
  explicit Barrier(Place* places) : places_(places) {}  // as many as there are threads, none for a single one
  // Returns to all of them alike whether one of them has said `stop`.
  bool wait(int size, int rank, bool stop = false) const;

 private:
  Place* places_ = nullptr;
};

// Runs body(context, thread, team, all) on a team of at most `wanted` threads, fewer when other calls are at work, with
// a barrier of all of them; denormals suppressed, the caller's floating-point mode restored. `prepare(context, team)`
// is called once, before any body, with the size of the team that there really is; then `meanwhile(context)`, again and
// again, while not all of it is there: a small piece of work, because a thread may be waiting for this one's processor;
// false: nothing was left to do. None may throw. Throws std::bad_alloc before it calls anything.
void run_team(int wanted, void (*prepare)(void*, int team), bool (*meanwhile)(void*),
              void (*body)(void*, int thread, int team, const Barrier& all), void* context);

// The same with callables prepare(team), meanwhile() and body(thread, team, all).
template <class Prepare, class Meanwhile, class Body>
void run_team(int wanted, Prepare&& prepare, Meanwhile&& meanwhile, Body&& body) {
  struct Context {
    Prepare& prepare;
    Meanwhile& meanwhile;
    Body& body;
  } context{prepare, meanwhile, body};
  run_team(
      wanted, [](void* c, int team) { static_cast<Context*>(c)->prepare(team); },
      [](void* c) { return static_cast<Context*>(c)->meanwhile(); },
      [](void* c, int thread, int team, const Barrier& all) { static_cast<Context*>(c)->body(thread, team, all); },
      &context);
}
template <class Prepare, class Body>
void run_team(int wanted, Prepare&& prepare, Body&& body) {
  run_team(
      wanted, prepare, [] { return false; }, body);
}

}  // namespace rnnkern
