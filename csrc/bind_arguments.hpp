// Checks of what Python passes: each function names the argument, what was expected and what came.
//
// Code of the user's own may change anything: an element's __index__ and, in older Pythons, finalizers of garbage that
// an allocation collects. So what has such code is read first, nothing else of the user's is called (of a subclass of
// tuple or ndarray its own memory is read), and what was checked is confirmed as the last thing before its memory is
// used.
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

// Where an array's elements are: NumPy can move them under a reference (ndarray.resize with refcheck=False).
struct Place {
  const void* data = nullptr;
  py::ssize_t bytes = 0;
  Place() = default;
  explicit Place(const py::array& array) : data(array.data()), bytes(array.nbytes()) {}
  bool operator==(const Place& other) const { return data == other.data && bytes == other.bytes; }
  bool operator!=(const Place& other) const { return !(*this == other); }
};

// RuntimeError if the elements of an array are no longer where they were when it was checked.
void confirm(const char* name, const py::array& array, const Place& checked);

// An array of T with one of the expected shapes, as an ndarray and not a subclass; TypeError for another kind or dtype
// and for a masked array, ValueError for another shape. The message ends with the hint, or one for its kind.
template <class T>
py::array checked_array(const char* name, py::handle object, const std::vector<Dimensions>& expected,
                        const char* hint = nullptr);

// C-contiguous and aligned, a copy if need be.
template <class T>
py::array_t<T> contiguous(const py::array& array);

// A (T, B, N) or (B, T, N) or (T, N) array as a Sequence; a copy if need be. `holder` keeps the memory alive.
template <class T>
struct SequenceArgument {
  py::array holder;
  Place place;
  Sequence<const T> view;
  int64_t steps, batch;
  bool unbatched;
};
template <class T>
SequenceArgument<T> checked_sequence(const char* name, py::handle object, int64_t width, bool batch_first);
// Makes it a view of another array, with the same axes.
template <class T>
void place_sequence(SequenceArgument<T>& sequence, const py::array& holder, bool batch_first);

// Integers as they came, of a list, tuple or array. To be read before anything else is checked.
struct Lengths {
  std::optional<std::vector<int64_t>> values;  // the nearest ones, of those beyond 64 bits
  std::string wrong_kind, wrong_rank;          // what came instead, if so
};
Lengths read_lengths(py::handle object);
// None, or `batch` integers in 1..steps.
std::optional<std::vector<int64_t>> checked_lengths(Lengths given, int64_t batch, int64_t steps);

// The members of a state, h or (h, c), contiguous; none for None.
template <class T>
struct StateArgument {
  std::vector<py::array_t<T>> members;
  std::vector<Place> places;

  bool empty() const { return members.empty(); }
  const T* h() const { return members.empty() ? nullptr : members[0].data(); }
  const T* c() const { return members.size() < 2 ? nullptr : members[1].data(); }
  void add(const py::array_t<T>& member) {
    members.push_back(member);
    places.emplace_back(member);
  }
  void confirm(const char* name) const {
    for (std::size_t i = 0; i < members.size(); ++i) rnnkern::confirm(name, members[i], places[i]);
  }
};
template <class T>
StateArgument<T> checked_state(const char* name, py::handle object, const Spec& spec, int64_t steps, int64_t batch,
                               bool unbatched);

bool is_masked(py::handle object);

// The end of a message for something of another kind or dtype: what helps, if anything does.
template <class T>
std::string remedy(const std::string& name, py::handle object);

// ValueError if the elements of a call overflow what can be addressed.
void check_volume(const Spec& spec, int64_t steps, int64_t batch);

// "float32 array of shape (3, 4)" or "torch.Tensor".
std::string describe(py::handle object);

}  // namespace rnnkern
