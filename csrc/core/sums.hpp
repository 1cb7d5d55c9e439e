// What keeps long sums right, and what their NaN is.
#pragma once

#include "vector.hpp"

namespace rnnkern {
namespace {

// Which of several NaN a sum of them takes on depends on the order in which the compiler wrote the operands: there is
// one for all.
template <class T>
RNNKERN_INLINE Vector<T> one_nan(Vector<T> x) {
  return x == x ? x : broadcast<T>(T(__builtin_nan("")));
}

// total += term, and what that rounded off (Knuth); nothing where the sum is not finite.
template <class T>
RNNKERN_INLINE Vector<T> add_exactly(Vector<T>& total, Vector<T> term) {
  const Vector<T> sum = total + term, added = sum - total;
  const Vector<T> error = (total - (sum - added)) + (term - added);
  total = sum;
  return error - error == Vector<T>{} ? error : Vector<T>{};
}

}  // namespace
}  // namespace rnnkern
