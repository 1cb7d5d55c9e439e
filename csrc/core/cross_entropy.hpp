// Softmax over the classes of transposed logits, and the gradient of its cross-entropy. A position is a lane: its sums
// run over the classes in order, whatever stands beside it.
#pragma once

#include "softmax.hpp"

namespace rnnkern {
namespace {

// N vectors of columns.
template <class T, int N>
RNNKERN_INLINE void softmax_columns(const SoftmaxBlock<T>& block, int64_t column) {
  constexpr int L = kLanes<T>;
  Vector<T> largest[N], sum[N];
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    largest[i] = broadcast<T>(kLowest<T>);
    sum[i] = Vector<T>{};
  }
  const T* const start = block.logits + column;
  for (int64_t row = 0; row < block.rows; ++row) {
    const Vector<T> bias = broadcast<T>(block.bias ? block.bias[row] : T(0));
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) largest[i] = larger(load(start + row * block.stride + i * L) + bias, largest[i]);
  }
  for (int64_t row = 0; row < block.rows; ++row) {
    const Vector<T> bias = broadcast<T>(block.bias ? block.bias[row] : T(0));
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) sum[i] += exp<T>(load(start + row * block.stride + i * L) + bias - largest[i]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    store(block.largest + column + i * L, largest[i]);
    store(block.sum + column + i * L, one_nan<T>(sum[i]));
  }
}

template <class T>
void softmax_block(const SoftmaxBlock<T>& block) {
  constexpr int L = kLanes<T>;
  int64_t column = 0;
  for (; column + 4 * L <= block.width; column += 4 * L) softmax_columns<T, 4>(block, column);
  for (; column < block.width; column += L) softmax_columns<T, 1>(block, column);
}

template <class T>
void softmax_merge(const SoftmaxMerge<T>& merge) {
  for (int64_t column = 0; column < merge.width; column += kLanes<T>) {
    T *const largest = merge.largest + column, *const sum = merge.sum + column;
    Vector<T> all = load(largest), total{};
    for (int64_t block = 1; block < merge.blocks; ++block) all = larger(load(largest + block * merge.stride), all);
    for (int64_t block = 0; block < merge.blocks; ++block)
      total = multiply_add(load(sum + block * merge.stride), exp<T>(load(largest + block * merge.stride) - all), total);
    store(largest, all);
    store(sum, total);
  }
}

template <class T>
void softmax_gradient(const SoftmaxGradient<T>& gradient) {
  constexpr int L = kLanes<T>;
  for (int64_t row = 0; row < gradient.rows; ++row) {
    const Vector<T> bias = broadcast<T>(gradient.bias ? gradient.bias[row] : T(0));
    T* const logits = gradient.logits + row * gradient.stride;
    Vector<T> sum{};
    for (int64_t column = 0; column < gradient.width; column += L) {
      const Vector<T> x = load(logits + column) + bias;
      const Vector<T> p = exp<T>(x - load(gradient.largest + column)) * load(gradient.factor + column);
      store(logits + column, p);
      sum += first_lanes<T>(p, gradient.positions - column, T(0));
    }
    if (gradient.bias_gradient) {
      T total = gradient.resume ? gradient.bias_gradient[row] : T(0);
      for (int lane = 0; lane < L; ++lane) total += sum[lane];
      gradient.bias_gradient[row] = total;
    }
  }
  for (int64_t position = 0; position < gradient.positions; ++position) {
    const int64_t row = gradient.targets[position] - gradient.first_class;
    if (row < 0 || row >= gradient.rows) continue;
    gradient.logits[row * gradient.stride + position] -= gradient.scale;
    if (gradient.bias_gradient) gradient.bias_gradient[row] -= gradient.scale;
  }
}

}  // namespace
}  // namespace rnnkern
