// NumPy arrays for results.
#pragma once

#include <pybind11/numpy.h>

#include <vector>

namespace rnnkern {

// A new array in C order. All but the smallest begin at a cache line, so that threads which write neighbouring rows
// share none, and large ones are in recycled memory, which they own as any array does. NumPy has arrays take and give
// back their memory by a handler (NEP 49); one that the user has set is not asked for these.
pybind11::array new_array(const pybind11::dtype& dtype, const std::vector<pybind11::ssize_t>& shape);

template <class T>
pybind11::array_t<T> new_array(const std::vector<pybind11::ssize_t>& shape) {
  return pybind11::reinterpret_steal<pybind11::array_t<T>>(new_array(pybind11::dtype::of<T>(), shape).release());
}

}  // namespace rnnkern
