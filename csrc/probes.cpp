#include "probes.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "dispatch.hpp"
#include "kernels.hpp"
#include "panels.hpp"
#include "threads.hpp"
#include "workspace.hpp"

namespace rnnkern {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kRepeat = 1e-3, kInAll = 0.05;  // seconds
constexpr int kLeastRepeats = 3;

// Zeros that the calling thread has touched first, in the pages that work space has; empty when there is no memory.
Block zeros(std::size_t bytes) {
  try {
    Block block(bytes);
    if (bytes > 0) std::memset(block.data(), 0, bytes);
    return block;
  } catch (const std::bad_alloc&) {
    return Block();
  }
}

// The shortest time that all threads together take for `rounds` rounds of work(memory, rounds, meet), divided by the
// rounds; `bytes` of memory for each thread. Barriers keep the repeats together, but are not in the time.
template <class Work>
double seconds_a_round(int threads, std::size_t bytes, Work work) {
  struct alignas(64) Stamps {
    Clock::time_point start, end;
  };
  const auto between = [](Clock::time_point start, Clock::time_point end) {
    return std::chrono::duration<double>(end - start).count();
  };
  std::vector<Stamps> stamps(threads);
  std::atomic<bool> failed{false};
  int64_t rounds = 1;
  bool goes_on = true;
  double best = 0;
  int size = 0;
  run_team(
      threads, [&](int team) { size = team; },
      [&](int thread, int team, const Barrier& all) {
        const auto meet = [&] { all.wait(team, thread); };
        const Block memory = zeros(bytes);
        if (memory.size() < bytes) failed.store(true);
        meet();
        if (failed.load() || team < threads) return;
        int repeats = 0;
        for (const auto begin = Clock::now(); goes_on;) {
          meet();
          stamps[thread].start = Clock::now();
          work(memory.data(), rounds, meet);
          stamps[thread].end = Clock::now();
          meet();
          if (thread == 0) {
            Stamps whole = stamps[0];
            for (const Stamps& one : stamps) whole = {std::min(whole.start, one.start), std::max(whole.end, one.end)};
            const double taken = between(whole.start, whole.end);
            if (taken < kRepeat / 2 && repeats == 0) {
              rounds = taken < kRepeat / 32 ? rounds * 16 : rounds * 2;
            } else {
              const double each = taken / static_cast<double>(rounds);
              best = repeats++ == 0 ? each : std::min(best, each);
              goes_on = repeats < kLeastRepeats || between(begin, stamps[0].end) < kInAll;
            }
          }
          meet();
        }
      });
  if (failed.load()) throw std::bad_alloc();
  if (size < threads)
    throw std::runtime_error("expected a team of " + std::to_string(threads) + " threads, got " + std::to_string(size));
  return best;
}

// Keeps a result from being left out.
template <class T>
void use(T value) {
  asm volatile("" : : "r,m"(value) : "memory");
}

constexpr int kActivations = 1024;  // a vector and its results fit into every L1 cache

}  // namespace

template <class T>
double measure(Probe probe, const KernelTable& table, int threads, std::size_t bytes) {
  const Kernels<T>& kernels = kernels_of<T>(table);
  const Probes<T>& probes = kernels.probes;
  const T half = T(0.5);
  const auto each = [&](std::size_t size, auto work) { return seconds_a_round(threads, size, work); };
  const auto activation = [&](MathFunction function) {
    return threads * kActivations / each(2 * kActivations * sizeof(T), [&](void* memory, int64_t rounds, auto) {
             T* x = static_cast<T*>(memory);
             for (int i = 0; i < kActivations; ++i) x[i] = T(i - kActivations / 2) / (kActivations / 8);
             for (int64_t i = 0; i < rounds; ++i) kernels.evaluate(function, x, x + kActivations, kActivations);
           });
  };
  const auto activation_latency = [&](MathFunction function) {
    return each(0, [&](void*, int64_t rounds, auto) { use(probes.activation_chain(function, half, rounds)); });
  };
  switch (probe) {
    case Probe::multiply_add:
      return 2.0 * threads * kernels.lanes * probes.chains /
             each(0, [&](void*, int64_t rounds, auto) { use(probes.multiply_adds(half, half, rounds)); });
    case Probe::read: {
      const int64_t block = probes.read_block * static_cast<int64_t>(sizeof(T));
      const int64_t blocks = std::max<int64_t>(1, static_cast<int64_t>(bytes) / block);
      return static_cast<double>(threads) * static_cast<double>(blocks * block) /
             each(blocks * block, [&](void* memory, int64_t rounds, auto) {
               use(probes.read(static_cast<const T*>(memory), blocks * probes.read_block, rounds));
             });
    }
    case Probe::sigmoid:
      return activation(MathFunction::sigmoid);
    case Probe::tanh:
      return activation(MathFunction::tanh);
    case Probe::barrier: {
      return each(0, [&](void*, int64_t rounds, auto meet) {
        for (int64_t i = 0; i < rounds; ++i) meet();
      });
    }
    case Probe::multiply_add_latency:
      return each(0, [&](void*, int64_t rounds, auto) { use(probes.multiply_add_chain(half, half, rounds)); });
    case Probe::sigmoid_latency:
      return activation_latency(MathFunction::sigmoid);
    case Probe::tanh_latency:
      return activation_latency(MathFunction::tanh);
  }
  __builtin_unreachable();
}

template double measure<float>(Probe, const KernelTable&, int, std::size_t);
template double measure<double>(Probe, const KernelTable&, int, std::size_t);

}  // namespace rnnkern
