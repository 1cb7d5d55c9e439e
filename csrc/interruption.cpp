#include "interruption.hpp"

#include <chrono>

#include "float_mode.hpp"

namespace rnnkern {
namespace {

constexpr int64_t kFirst = 1'000'000'000, kAgain = 100'000'000;  // nanoseconds

std::atomic<bool (*)()> interrupt_check{nullptr};

int64_t now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

}  // namespace

void set_interrupt_check(bool (*wanted)()) { interrupt_check.store(wanted); }

void Interruption::ask() {
  const int64_t time = now();
  if (next_ == 0) next_ = time + kFirst;
  if (time < next_) return;
  bool (*const check)() = interrupt_check.load();
  const FloatMode mode = FloatMode::usual();  // it may run anything
  if (check && check()) wanted_.store(true, std::memory_order_relaxed);
  next_ = now() + kAgain;
}

}  // namespace rnnkern
