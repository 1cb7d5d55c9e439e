#include "available.hpp"

#include <time.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <new>
#include <sstream>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace rnnkern {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

// Where a process is in a hierarchy of groups, and where that hierarchy is mounted.
struct Hierarchy {
  bool second_version;
  std::string root, mounted_at;
};

bool has_word(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

// The line of /proc/self/cgroup, number:controllers:path, of a hierarchy; empty: there is none.
std::string path_in(const Hierarchy& hierarchy, const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (hierarchy.second_version ? controllers.empty() : has_word(controllers, "cpu")) return line.substr(second + 1);
  }
  return "";
}

double quota_of(const Hierarchy& hierarchy, const std::string& folder) {
  double quota = 0, period = 0;
  if (hierarchy.second_version) {
    std::ifstream(folder + "/cpu.max") >> quota >> period;  // "max": no number
  } else {
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;  // -1: none
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? quota / period : kNoLimit;
}

// The least of the group's own and of those of all groups around it, as far as they can be seen from here.
double least_quota(const Hierarchy& hierarchy, const std::string& root) {
  std::string path = path_in(hierarchy, root);
  const std::string& seen = hierarchy.root;  // what is mounted may be a part of the hierarchy: a container's
  if (seen != "/" && path.compare(0, seen.size(), seen) == 0) path.erase(0, seen.size());
  if (path.find("/..") != std::string::npos) path.clear();
  double least = kNoLimit;
  while (true) {
    least = std::min(least, quota_of(hierarchy, root + hierarchy.mounted_at + path));
    const std::size_t slash = path.find_last_of('/');
    if (slash == std::string::npos) return least;
    path.erase(slash);
  }
}

int64_t coarse_now() {
#if defined(CLOCK_MONOTONIC_COARSE)
  constexpr clockid_t clock = CLOCK_MONOTONIC_COARSE;  // of a few milliseconds, and several times as fast
#else
  constexpr clockid_t clock = CLOCK_MONOTONIC;
#endif
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

// A count that is asked for again when it is older than `kAge` nanoseconds.
template <int64_t kAge, class Ask>
int remembered(int64_t time, std::atomic<int>& count, std::atomic<int64_t>& asked, Ask ask) {
  if (count.load(std::memory_order_relaxed) == 0 || time - asked.load(std::memory_order_relaxed) > kAge) {
    asked.store(time, std::memory_order_relaxed);
    count.store(ask(), std::memory_order_relaxed);
  }
  return count.load(std::memory_order_relaxed);
}

int rounded_quota() {
  try {
    return static_cast<int>(std::ceil(std::min(cpu_quota(""), 1e6) - 1e-6));
  } catch (const std::bad_alloc&) {
    return 1'000'000;
  }
}

int runnable_on() {
#ifdef _OPENMP
  return omp_get_num_procs();  // also where OpenMP binds the calling thread to one of them
#else
  return 1;
#endif
}

std::atomic<int> forced{0}, quota{0}, allowed{0};
std::atomic<int64_t> quota_asked{0}, allowed_asked{0};

}  // namespace

double cpu_quota(const std::string& root) {
  double least = kNoLimit;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t dash = line.find(" - cgroup");
    if (dash == std::string::npos) continue;
    Hierarchy hierarchy;
    std::string skipped, type, options;
    std::istringstream(line) >> skipped >> skipped >> skipped >> hierarchy.root >> hierarchy.mounted_at;
    std::istringstream(line.substr(dash + 3)) >> type >> skipped >> options;
    hierarchy.second_version = type == "cgroup2";
    if (hierarchy.second_version || has_word(options, "cpu")) least = std::min(least, least_quota(hierarchy, root));
  }
  return least;
}

int processors() {
  if (const int count = forced.load(std::memory_order_relaxed)) return count;
  const int64_t time = coarse_now();
  const int by_time = remembered<5'000'000'000>(time, quota, quota_asked, rounded_quota);
  const int by_affinity = remembered<10'000'000>(time, allowed, allowed_asked, runnable_on);
  return std::max(1, std::min(by_time, by_affinity));
}

void set_processors(int count) { forced.store(count); }

}  // namespace rnnkern
