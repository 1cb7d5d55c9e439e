#include "processors.hpp"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>

namespace rnnkern {

#if defined(__linux__)
namespace {

// libgomp's threads serve the caller that started them; libomp's may be at work for another one.
#if defined(__clang__)
constexpr bool kThreadsOfTheCaller = false;
#else
constexpr bool kThreadsOfTheCaller = true;
#endif

bool may_move() {
#ifdef _OPENMP
  return omp_get_proc_bind() == omp_proc_bind_false;
#else
  return true;
#endif
}

void allow(pid_t thread, const cpu_set_t& processors) {
  if (sched_setaffinity(thread, sizeof(processors), &processors) == 0) return;
  // What the process may run on has changed meanwhile: whatever there is.
  cpu_set_t any;
  CPU_ZERO(&any);
  for (int i = 0; i < CPU_SETSIZE; ++i) CPU_SET(i, &any);
  sched_setaffinity(thread, sizeof(any), &any);
}

// Sends a thread (0: this one) to processors that it may run on, those that `is_wanted(processor)`; false if there are
// none. `allowed` receives all that it may run on.
template <class IsWanted>
bool send(pid_t thread, cpu_set_t* allowed, IsWanted is_wanted) {
  if (sched_getaffinity(thread, sizeof(*allowed), allowed) != 0) return false;
  cpu_set_t wanted;
  CPU_ZERO(&wanted);
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, allowed) && is_wanted(i)) CPU_SET(i, &wanted);
  return CPU_COUNT(&wanted) > 0 && sched_setaffinity(thread, sizeof(wanted), &wanted) == 0;
}

}  // namespace

bool Placement::take(int processor) {
  if (processor < 0 || processor >= kProcessors) return true;
  const uint64_t bit = uint64_t{1} << (processor % 64);
  return (taken_[processor / 64].fetch_or(bit) & bit) == 0;
}

void Placement::claim() {
  if (take(sched_getcpu())) return;
  const auto is_free = [&](int i) { return i < kProcessors && (taken_[i / 64].load() >> (i % 64) & 1) == 0; };
  cpu_set_t allowed;
  if (may_move() && send(0, &allowed, is_free)) allow(0, allowed);
  take(sched_getcpu());
}

thread_local KeptAway::LastTeam KeptAway::last_team;

KeptAway::KeptAway(int count) {
  if (!kThreadsOfTheCaller || count > kMost) return;
  count = std::min(count, last_team_.size);
  const int here = count > 0 && may_move() ? sched_getcpu() : -1;
  if (here < 0) return;
  for (int i = 0; i < count; ++i) {
    Thread& thread = threads_[count_];
    thread.id = last_team_.threads[i];
    const bool lives = syscall(SYS_tgkill, getpid(), thread.id, 0) == 0;
    if (lives && send(thread.id, &thread.allowed, [&](int processor) { return processor != here; })) ++count_;
  }
}

void KeptAway::end() {
  for (; count_ > 0; --count_) allow(threads_[count_ - 1].id, threads_[count_ - 1].allowed);
}

void KeptAway::remember(int thread) {
  static thread_local const pid_t self = static_cast<pid_t>(syscall(SYS_gettid));
  if (thread > kMost) return;
  pid_t& remembered = last_team_.threads[thread - 1];
  if (remembered != self) remembered = self;  // usually known: nothing to write to what the caller reads
}

void KeptAway::remember_size(int others) { last_team_.size = std::min(others, kMost); }

#else

void Placement::claim() {}
KeptAway::KeptAway(int) {}
void KeptAway::end() {}
void KeptAway::remember(int) {}
void KeptAway::remember_size(int) {}

#endif

}  // namespace rnnkern
