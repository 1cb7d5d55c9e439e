// Loops that run into one limit of the processor each. The factor and the term are arguments, and each loop returns
// what it computed, so that the compiler can leave nothing out.
#pragma once

#include "../kernels.hpp"
#include "math.hpp"
#include "vector.hpp"

namespace rnnkern {
namespace {

// Multiply-adds that wait for nothing but the one `chains` before: as many as a register tile has.
template <class T>
struct ThroughputProbe {
  static constexpr int chains = kRegisters == 32 ? 24 : 12;

  static T run(T factor, T term, int64_t rounds) {
    const Vector<T> a = broadcast<T>(factor), b = broadcast<T>(term);
    Vector<T> x[chains];
#pragma GCC unroll 32
    for (int c = 0; c < chains; ++c) x[c] = broadcast<T>(T(c));
    for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 32
      for (int c = 0; c < chains; ++c) x[c] = multiply_add(x[c], a, b);
    Vector<T> sum{};
#pragma GCC unroll 32
    for (int c = 0; c < chains; ++c) sum += x[c];
    return sum[0];
  }
};

// One chain of multiply-adds.
template <class T>
T multiply_add_chain(T factor, T term, int64_t rounds) {
  const Vector<T> a = broadcast<T>(factor), b = broadcast<T>(term);
  Vector<T> x{};
  for (int64_t i = 0; i < rounds; ++i) x = multiply_add(x, a, b);
  return x[0];
}

// One chain of activations.
template <class T>
T activation_chain(MathFunction function, T start, int64_t rounds) {
  const auto chain = [&](auto f) {
    Vector<T> x = broadcast<T>(start);
    for (int64_t i = 0; i < rounds; ++i) x = f(x);
    return x[0];
  };
  switch (function) {
    case MathFunction::exp:
      return chain([](Vector<T> x) { return exp<T>(x); });
    case MathFunction::sigmoid:
      return chain([](Vector<T> x) { return sigmoid<T>(x); });
    case MathFunction::tanh:
      return chain([](Vector<T> x) { return tanh<T>(x); });
  }
  __builtin_unreachable();
}

// Reads `count` elements, a multiple of kReadBlock, `passes` times: a sum each of the vectors of a block.
constexpr int kReadVectors = 8;
template <class T>
constexpr int kReadBlock = kReadVectors* kLanes<T>;

template <class T>
T read(const T* from, int64_t count, int64_t passes) {
  Vector<T> sum[kReadVectors] = {};
  for (int64_t pass = 0; pass < passes; ++pass)
    for (int64_t i = 0; i < count; i += kReadBlock<T>)
#pragma GCC unroll 8
      for (int v = 0; v < kReadVectors; ++v) sum[v] += load(from + i + v * kLanes<T>);
  Vector<T> total{};
#pragma GCC unroll 8
  for (int v = 0; v < kReadVectors; ++v) total += sum[v];
  return total[0];
}

}  // namespace
}  // namespace rnnkern
