// The transpose of a square of lanes x lanes.
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

// Rows `from_stride` apart become columns of rows `to_stride` apart. An instruction set may have a better way: a
// function of this name for its type.
template <class T>
RNNKERN_INLINE void transpose_square(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  constexpr int L = kLanes<T>;
  Vector<T> square[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) square[i] = load(from + i * from_stride);
  transpose<T>(square);
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) store(to + i * to_stride, square[i]);
}

// The same of the first `rows` rows and `columns` columns, at most a square: zeros in the lanes beyond.
template <class T>
RNNKERN_INLINE void transpose_part(const T* from, int64_t from_stride, int64_t rows, int64_t columns, T* to,
                                   int64_t to_stride) {
  constexpr int L = kLanes<T>;
  if (rows >= L && columns >= L) return transpose_square(from, from_stride, to, to_stride);
  Vector<T> square[L];
  for (int i = 0; i < L; ++i) square[i] = i < rows ? load(from + i * from_stride, columns) : Vector<T>{};
  transpose<T>(square);
  for (int i = 0; i < L && i < columns; ++i) store(to + i * to_stride, square[i]);
}

// Whether a matrix may be in a core's own cache.
template <class T>
RNNKERN_INLINE bool fits_own_cache(int64_t elements) {
  return elements * static_cast<int64_t>(sizeof(T)) <= int64_t{512} << 10;
}

// Fetches the square after the next one, for matrices that are not: the hardware does not follow that many rows.
template <class T>
RNNKERN_INLINE void prefetch_square(const T* square, int64_t stride) {
  constexpr int L = kLanes<T>;
  for (int i = 0; i < L; ++i) __builtin_prefetch(square + i * stride + 2 * L, 0, 2);
}

}  // namespace
}  // namespace rnnkern
