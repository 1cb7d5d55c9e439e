// Vectors of kVectorBytes and what the kernels do with them. The instruction set's file defines, before this header,
//   kVectorBytes, kRegisters,
//   multiply_add(a, b, c) = a * b + c for its vectors of float and of double,
//   load_first(from, count) and store_first(to, value, count) for less than a vector (or includes partial.hpp),
//   RNNKERN_IN_REGISTER(v): keeps the compiler from reading v from memory once more at each use.
// Included by the files of isa/ only; everything has internal linkage.
#pragma once

#include <utility>

#include "native.hpp"

namespace rnnkern {
namespace {

template <class T, int... Lane>
RNNKERN_INLINE Vector<T> repeat(T value, std::integer_sequence<int, Lane...>) {
  return Vector<T>{(static_cast<void>(Lane), value)...};
}
template <class T>
RNNKERN_INLINE Vector<T> broadcast(T value) {
  return repeat<T>(value, std::make_integer_sequence<int, kLanes<T>>());
}

template <class T>
RNNKERN_INLINE Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename Native<T>::unaligned*>(from);
}

template <class T>
RNNKERN_INLINE void store(T* to, Vector<T> value) {
  *reinterpret_cast<typename Native<T>::unaligned*>(to) = value;
}

// The first `count` elements, at most a vector; the other lanes are zero, and untouched in memory.
template <class T>
RNNKERN_INLINE Vector<T> load(const T* from, int64_t count) {
  return count >= kLanes<T> ? load(from) : load_first(from, static_cast<int>(count));
}
template <class T>
RNNKERN_INLINE void store(T* to, Vector<T> value, int64_t count) {
  if (count >= kLanes<T>)
    store(to, value);
  else
    store_first(to, value, static_cast<int>(count));
}

}  // namespace
}  // namespace rnnkern
