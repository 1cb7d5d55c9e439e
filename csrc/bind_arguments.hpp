// Checks of what Python passes: each function names the argument, what was expected and what came.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "driver.hpp"

namespace rnnkern {

namespace py = pybind11;

// One dimension of an expected shape: a size or, where any will do, its name.
struct Dimension {
  const char* name;  // nullptr: `size` is required
  int64_t size;
  Dimension(const char* any) : name(any), size(-1) {}
  Dimension(int64_t required) : name(nullptr), size(required) {}
};
using Dimensions = std::vector<Dimension>;

// An array of T with one of the expected shapes; TypeError for another kind or dtype, ValueError for another shape.
template <class T>
py::array checked_array(const char* name, py::handle object, const std::vector<Dimensions>& expected);

// C-contiguous and aligned, a copy if need be.
template <class T>
py::array_t<T> contiguous(const py::array& array);

// A (T, B, N) or (B, T, N) or (T, N) array as a Sequence; a copy if need be. `holder` keeps the memory alive.
template <class T>
struct SequenceArgument {
  py::array holder;
  Sequence<const T> view;
  int64_t steps, batch;
  bool unbatched;
};
template <class T>
SequenceArgument<T> checked_sequence(const char* name, py::handle object, int64_t width, bool batch_first);

// None, or `batch` integers in 1..steps.
std::optional<std::vector<int64_t>> checked_lengths(py::handle object, int64_t batch, int64_t steps);

// The members of a state, h or (h, c), contiguous; empty for None.
template <class T>
std::vector<py::array_t<T>> checked_state(const char* name, py::handle object, const Spec& spec, int64_t batch,
                                          bool unbatched);

// ValueError if the elements of a call overflow what can be addressed.
void check_volume(const Spec& spec, int64_t steps, int64_t batch);

// "float32 array of shape (3, 4)" or "list".
std::string describe(py::handle object);

}  // namespace rnnkern
