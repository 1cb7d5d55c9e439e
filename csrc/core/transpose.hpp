// The transpose of a square of lanes x lanes, in registers.
#pragma once

#include "vector.hpp"

namespace rnnkern {
namespace {

// Lane l of the result is lane (select(l)) of a and b side by side.
template <class T, class Select, int... Lane>
RNNKERN_INLINE Vector<T> shuffle(Vector<T> a, Vector<T> b, Select select, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, select(Lane)...);
#else
  return __builtin_shuffle(a, b, IntegerVector<T>{select(Lane)...});
#endif
}

// Exchanges the squares of `distance` above the diagonal with those below it.
template <class T, int distance>
RNNKERN_INLINE void exchange(Vector<T>* rows) {
  constexpr int L = kLanes<T>;
  constexpr auto lanes = std::make_integer_sequence<int, L>();
  struct Upper {
    constexpr int operator()(int lane) const { return lane & distance ? L + lane - distance : lane; }
  };
  struct Lower {
    constexpr int operator()(int lane) const { return lane & distance ? L + lane : lane + distance; }
  };
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) {
    if (i & distance) continue;
    const Vector<T> upper = rows[i], lower = rows[i + distance];
    rows[i] = shuffle<T>(upper, lower, Upper(), lanes);
    rows[i + distance] = shuffle<T>(upper, lower, Lower(), lanes);
  }
}

template <class T, int distance = kLanes<T> / 2>
RNNKERN_INLINE void transpose(Vector<T>* rows) {
  exchange<T, distance>(rows);
  if constexpr (distance > 1) transpose<T, distance / 2>(rows);
}

}  // namespace
}  // namespace rnnkern
