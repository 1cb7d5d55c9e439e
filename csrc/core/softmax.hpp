// Softmax over the values of rows, and its gradient. A row's sums run in one order, whatever stands beside it.
#pragma once

#include "math.hpp"
#include "step.hpp"

namespace rnnkern {
namespace {

template <class T>
constexpr T kLowest = sizeof(T) == 4 ? T(-__FLT_MAX__) : T(-__DBL_MAX__);
template <class T>
constexpr T kInfinity = T(__builtin_inf());

// NaN is left to the sum.
template <class V>
RNNKERN_INLINE V larger(V x, V y) {
  return x > y ? x : y;
}

template <class T, int... Lane>
RNNKERN_INLINE Vector<T> lane_numbers(std::integer_sequence<int, Lane...>) {
  return Vector<T>{T(Lane)...};
}
// The first `count` lanes of x, and `other` in the lanes beyond them.
template <class T>
RNNKERN_INLINE Vector<T> first_lanes(Vector<T> x, int64_t count, T other) {
  if (count >= kLanes<T>) return x;
  const Vector<T> lanes = lane_numbers<T>(std::make_integer_sequence<int, kLanes<T>>());
  return lanes < broadcast<T>(T(count)) ? x : broadcast<T>(other);
}
template <class T>
RNNKERN_INLINE Vector<T> load_or(const T* from, int64_t count, T other) {
  return first_lanes<T>(load(from, count), count, other);
}

template <class T>
void softmax_rows(const SoftmaxRows<T>& softmax) {
  constexpr int L = kLanes<T>;
  for (int64_t i = softmax.first_row; i < softmax.last_row; ++i) {
    T* const x = row_of(softmax.x, i);
    Vector<T> lanes = broadcast<T>(kLowest<T>);
    for (int64_t j = 0; j < softmax.width; j += L)
      lanes = larger(load_or<T>(x + j, softmax.width - j, -kInfinity<T>), lanes);
    T largest = lanes[0];
    for (int lane = 1; lane < L; ++lane) largest = larger(lanes[lane], largest);

    lanes = Vector<T>{};
    for (int64_t j = 0; j < softmax.width; j += L) {
      const int64_t count = softmax.width - j;
      const Vector<T> e = exp<T>(load_or<T>(x + j, count, -kInfinity<T>) - largest);
      lanes += e;
      store(x + j, e, count);
    }
    T sum = lanes[0];
    for (int lane = 1; lane < L; ++lane) sum += lanes[lane];
    for (int64_t j = 0; j < softmax.width; j += L)
      store(x + j, load(x + j, softmax.width - j) / sum, softmax.width - j);
  }
}

template <class T>
void softmax_rows_gradient(const SoftmaxRowsGradient<T>& gradient) {
  constexpr int L = kLanes<T>;
  for (int64_t i = gradient.first_row; i < gradient.last_row; ++i) {
    const T* const y = row_of(gradient.y, i);
    T* const dy = row_of(gradient.dy, i);
    Vector<T> lanes{};
    for (int64_t j = 0; j < gradient.width; j += L)
      lanes = multiply_add(load(y + j, gradient.width - j), load(dy + j, gradient.width - j), lanes);
    T sum = lanes[0];
    for (int lane = 1; lane < L; ++lane) sum += lanes[lane];
    for (int64_t j = 0; j < gradient.width; j += L) {
      const int64_t count = gradient.width - j;
      store(dy + j, load(y + j, count) * (load(dy + j, count) - sum), count);
    }
  }
}

}  // namespace
}  // namespace rnnkern
