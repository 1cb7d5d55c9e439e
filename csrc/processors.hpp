// Which processors the threads of a team run on. On Linux, and where the user does not bind threads (OMP_PROC_BIND);
// elsewhere it does nothing. What a thread may run on is afterwards as it was.
//
// A thread that the runtime wakes often finds itself on the processor of the one that woke it, and stays there for
// milliseconds while another one is idle.
#pragma once

#include <atomic>
#include <cstdint>

#if defined(__linux__)
#include <sched.h>
#include <sys/types.h>
#endif

namespace rnnkern {

// The processors of a team: each thread takes its own, and leaves the one that another thread has taken.
class Placement {
 public:
  void claim();

 private:
  static constexpr int kProcessors = 1024;
  bool take(int processor);  // false if it was taken
  std::atomic<uint64_t> taken_[kProcessors / 64] = {};
};

// Threads of the caller's last team that are kept off the caller's processor while they are woken: then the caller need
// not leave it to them.
class KeptAway {
 public:
  // So many of the last team's threads, the first ones after the caller, or none of them.
  explicit KeptAway(int count);
  ~KeptAway() { end(); }
  KeptAway(const KeptAway&) = delete;
  KeptAway& operator=(const KeptAway&) = delete;
  int count() const { return count_; }
  void end();

  // Every thread of a team but the first, and how many these are, for the caller's next team. `thread` is at least 1.
  void remember(int thread);
  void remember_size(int others);

 private:
  static constexpr int kMost = 15;  // each costs the caller a few microseconds; among many processors few threads meet
  int count_ = 0;
#if defined(__linux__)
  struct LastTeam {
    int size = 0;
    pid_t threads[kMost];
  };
  struct Thread {
    pid_t id;
    cpu_set_t allowed;  // before
  };
  static thread_local LastTeam last_team;
  LastTeam& last_team_ = last_team;  // the caller's
  Thread threads_[kMost];
#endif
};

}  // namespace rnnkern
