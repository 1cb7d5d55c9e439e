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

// A square whose rows are `stride` apart, by columns. An instruction set may have a better way: a function of this name
// for its type.
template <class T>
RNNKERN_INLINE void load_transposed(const T* from, int64_t stride, Vector<T>* columns) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<T>; ++i) columns[i] = load(from + i * stride);
  transpose<T>(columns);
}

// The same of the first `rows` rows and `count` columns, less than a square: zeros in the lanes and the columns beyond.
template <class T>
__attribute__((noinline)) void load_part_transposed(const T* from, int64_t stride, int64_t rows, int64_t count,
                                                    Vector<T>* columns) {
  constexpr int L = kLanes<T>;
  for (int i = 0; i < L; ++i) columns[i] = i < rows ? load(from + i * stride, count) : Vector<T>{};
  transpose<T>(columns);
}

// The columns of a square, or of a part of one, come to stand as rows, `to_stride` apart.
template <class T>
RNNKERN_INLINE void transpose_square(const T* from, int64_t stride, int64_t rows, int64_t count, T* to,
                                     int64_t to_stride) {
  constexpr int L = kLanes<T>;
  if (rows >= L && count >= L) {
    Vector<T> columns[L];
    load_transposed(from, stride, columns);
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) store(to + i * to_stride, columns[i]);
  } else {
    Vector<T> columns[L];
    load_part_transposed(from, stride, rows, count, columns);
    for (int i = 0; i < L && i < count; ++i) store(to + i * to_stride, columns[i]);
  }
}

// Whether a matrix may be in a core's own cache.
template <class T>
RNNKERN_INLINE bool fits_own_cache(int64_t elements) {
  return elements * static_cast<int64_t>(sizeof(T)) <= int64_t{512} << 10;
}

// Whether it may be in the cache that cores share, from where the hardware keeps up with a single row of factors.
template <class T>
RNNKERN_INLINE bool fits_shared_cache(int64_t elements) {
  return elements * static_cast<int64_t>(sizeof(T)) <= int64_t{8} << 20;
}

// Fetches the square after the next one of a matrix that is farther away: the hardware does not follow that many rows.
template <class T>
RNNKERN_INLINE void prefetch_square(const T* square, int64_t stride) {
  constexpr int L = kLanes<T>;
  for (int i = 0; i < L; ++i) __builtin_prefetch(square + i * stride + 2 * L, 0, 2);
}

}  // namespace
}  // namespace rnnkern
