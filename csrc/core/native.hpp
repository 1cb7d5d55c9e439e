// The vector types of kVectorBytes, in the compilers' own vector extensions.
#pragma once

#include <cstdint>

#include "../types.hpp"

#define RNNKERN_INLINE inline __attribute__((always_inline))

namespace rnnkern {
namespace {

template <class T>
struct Native;
template <>
struct Native<float> {
  typedef float vector __attribute__((vector_size(kVectorBytes)));
  typedef float unaligned __attribute__((vector_size(kVectorBytes), aligned(sizeof(float)), may_alias));
  typedef int32_t integer __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t bits __attribute__((vector_size(kVectorBytes)));
};
template <>
struct Native<double> {
  typedef double vector __attribute__((vector_size(kVectorBytes)));
  typedef double unaligned __attribute__((vector_size(kVectorBytes), aligned(sizeof(double)), may_alias));
  typedef int64_t integer __attribute__((vector_size(kVectorBytes)));
  typedef uint64_t bits __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using Vector = typename Native<T>::vector;
template <class T>
using IntegerVector = typename Native<T>::integer;

template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

}  // namespace
}  // namespace rnnkern
