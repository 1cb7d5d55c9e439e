// What this machine can do at most: the loops of core/probe.hpp, timed.
#pragma once

#include <cstddef>

namespace rnnkern {

struct KernelTable;  // kernels.hpp

enum class Probe : int {
  multiply_add,          // FLOP/s of independent multiply-adds, all threads together
  read,                  // bytes/s, each thread reading its own block again and again, all threads together
  sigmoid,               // per second, all threads together, from and to the L1 cache
  tanh,                  // the same
  barrier,               // seconds of one wait
  multiply_add_latency,  // seconds of one that waits for the one before
  sigmoid_latency,       // the same
  tanh_latency,          // the same
};

// The best of many repeats, with `threads` threads at once; `bytes` is each thread's block, for Probe::read. Throws
// std::bad_alloc, or std::runtime_error when the team has fewer threads.
template <class T>
double measure(Probe probe, const KernelTable& table, int threads, std::size_t bytes);

}  // namespace rnnkern
