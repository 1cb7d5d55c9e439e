#include "startable.hpp"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cctype>
#include <cstdlib>
#include <memory>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace rnnkern {
namespace {

struct Trial {
  pthread_t thread;
  std::atomic<long> id{0};  // the system's
  const std::atomic<bool>* end;
};

void* wait_for_the_end(void* context) {
  auto* trial = static_cast<Trial*>(context);
#if defined(__linux__)
  trial->id.store(syscall(SYS_gettid));
#endif
  while (!trial->end->load()) usleep(10);
  return nullptr;
}

// The system counts a thread for a while after it was joined.
void wait_until_gone(const Trial& trial) {
#if defined(__linux__)
  for (int i = 0; i < 1000 && syscall(SYS_tgkill, getpid(), trial.id.load(), 0) == 0; ++i) sched_yield();
#else
  static_cast<void>(trial);
#endif
}

// OMP_STACKSIZE: a number and B, K (where there is none), M or G; 0: not given.
std::size_t stack_size() {
  const char* given = std::getenv("OMP_STACKSIZE");
  if (!given) return 0;
  char* unit = nullptr;
  std::size_t size = std::strtoul(given, &unit, 10);
  while (*unit == ' ') ++unit;
  switch (std::toupper(static_cast<unsigned char>(*unit))) {
    case 'B':
      return size;
    case 'M':
      return size << 20;
    case 'G':
      return size << 30;
    default:
      return size << 10;
  }
}

}  // namespace

int startable(int count) {
  const std::unique_ptr<Trial[]> trials(new Trial[count]);
  std::atomic<bool> end{false};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (const std::size_t size = stack_size()) pthread_attr_setstacksize(&attributes, size);  // or as usual
  int started = 0;
  for (; started < count; ++started) {
    trials[started].end = &end;
    if (pthread_create(&trials[started].thread, &attributes, wait_for_the_end, &trials[started]) != 0) break;
  }
  pthread_attr_destroy(&attributes);
  end.store(true);
  for (int i = 0; i < started; ++i) pthread_join(trials[i].thread, nullptr);
  for (int i = 0; i < started; ++i) wait_until_gone(trials[i]);
  return started;
}

}  // namespace rnnkern
