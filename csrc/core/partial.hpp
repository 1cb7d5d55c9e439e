// load_first and store_first for instruction sets without masked access.
#pragma once

#include "native.hpp"

namespace rnnkern {
namespace {

template <class T>
RNNKERN_INLINE Vector<T> load_first(const T* from, int count) {
  Vector<T> value{};
  for (int lane = 0; lane < count; ++lane) value[lane] = from[lane];
  return value;
}

template <class T>
RNNKERN_INLINE void store_first(T* to, Vector<T> value, int count) {
  for (int lane = 0; lane < count; ++lane) to[lane] = value[lane];
}

}  // namespace
}  // namespace rnnkern
