// Calls that take long can be given up.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace rnnkern {

// What a call throws, on the thread that made it, when it was given up. What it was to write is then undefined.
struct Interrupted {};

// Sets who is asked whether a call is to be given up: on the thread that made it, between pieces of its work, when it
// has taken a second, and then every tenth of one.
void set_interrupt_check(bool (*wanted)());

// One call's. Its threads do their work in pieces. Once one is wanted they may skip pieces, but meet at every barrier
// as before, until one of these has told all of them alike (Barrier::wait).
class Interruption {
 public:
  bool wanted() const { return wanted_.load(std::memory_order_relaxed); }
  // By any thread between two pieces of work: the one that made the call asks, when it is time. Returns `wanted`.
  bool poll() {
    if (!wanted() && std::this_thread::get_id() == caller_) ask();
    return wanted();
  }
  // By the thread that made the call, when the others are done. Throws Interrupted.
  void check() const {
    if (wanted()) throw Interrupted();
  }

 private:
  void ask();

  const std::thread::id caller_ = std::this_thread::get_id();
  int64_t next_ = 0;  // when to ask, in nanoseconds of the steady clock; 0: no piece was done yet
  std::atomic<bool> wanted_{false};
};

}  // namespace rnnkern
