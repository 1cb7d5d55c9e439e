#include "bind_arguments.hpp"

#include <algorithm>

namespace rnnkern {
namespace {

template <class T>
const char* dtype_name() {
  return sizeof(T) == 4 ? "float32" : "float64";
}

std::string shape_text(const std::vector<std::string>& sizes) {
  std::string text = "(";
  for (std::size_t i = 0; i < sizes.size(); ++i) text += (i ? ", " : "") + sizes[i];
  return text + (sizes.size() == 1 ? ",)" : ")");
}

std::string shape_text(const Dimensions& dimensions) {
  std::vector<std::string> sizes;
  for (const Dimension& d : dimensions) sizes.push_back(d.name ? std::string(d.name) : std::to_string(d.size));
  return shape_text(sizes);
}

bool matches(const py::array& array, const Dimensions& dimensions) {
  if (array.ndim() != static_cast<py::ssize_t>(dimensions.size())) return false;
  for (std::size_t i = 0; i < dimensions.size(); ++i)
    if (!dimensions[i].name && array.shape(static_cast<py::ssize_t>(i)) != dimensions[i].size) return false;
  return true;
}

template <class T>
std::string expectation(const char* name, const std::vector<Dimensions>& expected) {
  std::string text = std::string(name) + ": expected a " + dtype_name<T>() + " array of shape ";
  for (std::size_t i = 0; i < expected.size(); ++i) text += (i ? " or " : "") + shape_text(expected[i]);
  return text + ", got ";
}

bool is_aligned(const py::array& array) { return (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0; }

}  // namespace

std::string describe(py::handle object) {
  if (!py::isinstance<py::array>(object)) return py::str(py::type::handle_of(object).attr("__name__"));
  const auto array = py::reinterpret_borrow<py::array>(object);
  std::vector<std::string> sizes;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) sizes.push_back(std::to_string(array.shape(i)));
  return std::string(py::str(array.dtype())) + " array of shape " + shape_text(sizes);
}

template <class T>
py::array checked_array(const char* name, py::handle object, const std::vector<Dimensions>& expected) {
  if (!py::isinstance<py::array_t<T>>(object)) throw py::type_error(expectation<T>(name, expected) + describe(object));
  auto array = py::reinterpret_borrow<py::array>(object);
  const auto fits = [&](const Dimensions& dimensions) { return matches(array, dimensions); };
  if (std::none_of(expected.begin(), expected.end(), fits))
    throw py::value_error(expectation<T>(name, expected) + describe(object));
  return array;
}

template <class T>
py::array_t<T> contiguous(const py::array& array) {
  constexpr int flags = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  return py::array_t<T>(py::array_t<T, flags>(array));  // MemoryError if there is no room for a copy
}

template <class T>
SequenceArgument<T> checked_sequence(const char* name, py::handle object, int64_t width, bool batch_first) {
  const char *first = batch_first ? "B" : "T", *second = batch_first ? "T" : "B";
  SequenceArgument<T> result;
  result.holder = checked_array<T>(name, object, {{first, second, width}, {"T", width}});
  const auto strided = [](const py::array& array) {
    constexpr py::ssize_t size = sizeof(T);
    const py::ssize_t last = array.ndim() - 1;
    if (!is_aligned(array) || (array.shape(last) > 1 && array.strides(last) != size)) return false;
    for (py::ssize_t i = 0; i < last; ++i)
      if (array.strides(i) % size != 0) return false;
    return true;
  };
  if (!strided(result.holder)) result.holder = contiguous<T>(result.holder);
  const py::array& array = result.holder;
  const auto stride = [&](int axis) {
    return static_cast<int64_t>(array.strides(axis) / static_cast<py::ssize_t>(sizeof(T)));
  };
  result.unbatched = array.ndim() == 2;
  const int time = !result.unbatched && batch_first ? 1 : 0;
  result.steps = array.shape(time);
  result.batch = result.unbatched ? 1 : array.shape(1 - time);
  result.view = {static_cast<const T*>(array.data()), stride(time), result.unbatched ? 0 : stride(1 - time)};
  return result;
}

std::optional<std::vector<int64_t>> checked_lengths(py::handle object, int64_t batch, int64_t steps) {
  if (object.is_none()) return std::nullopt;
  const std::string expected =
      "lengths: expected " + std::to_string(batch) + " integers in 1.." + std::to_string(steps);
  const bool is_array = py::isinstance<py::array>(object);
  if (!is_array && !py::isinstance<py::list>(object) && !py::isinstance<py::tuple>(object))
    throw py::type_error(expected + ", got " + describe(object));
  if (is_array) {
    const auto array = py::reinterpret_borrow<py::array>(object);
    const char kind = array.dtype().kind();
    if (kind != 'i' && kind != 'u') throw py::type_error(expected + ", got " + describe(object));
    if (array.ndim() != 1) throw py::value_error(expected + ", got " + describe(object));
  }
  std::vector<int64_t> lengths;
  for (const py::handle item : py::iter(object)) {
    if (py::isinstance<py::bool_>(item) || !PyIndex_Check(item.ptr()))
      throw py::type_error(expected + ", got one of type " + describe(item));
    const py::ssize_t length = PyNumber_AsSsize_t(item.ptr(), nullptr);  // saturates
    if (length == -1 && PyErr_Occurred()) {  // an array, say, which is only an integer if it holds just one
      if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw py::error_already_set();
      PyErr_Clear();
      throw py::type_error(expected + ", got one of type " + describe(item));
    }
    if (length < 1 || length > steps) throw py::value_error(expected + ", got " + std::string(py::str(item)));
    lengths.push_back(length);
  }
  if (static_cast<int64_t>(lengths.size()) != batch)
    throw py::value_error(expected + ", got " + std::to_string(lengths.size()));
  return lengths;
}

template <class T>
std::vector<py::array_t<T>> checked_state(const char* name, py::handle object, const Spec& spec, int64_t batch,
                                          bool unbatched) {
  std::vector<py::array_t<T>> members;
  if (object.is_none()) return members;
  const int64_t parts = spec.num_layers * spec.num_directions;
  const auto member = [&](const std::string& member_name, py::handle value, int64_t width) {
    const Dimensions shape = unbatched ? Dimensions{parts, width} : Dimensions{parts, batch, width};
    members.push_back(contiguous<T>(checked_array<T>(member_name.c_str(), value, {shape})));
  };
  if (!spec.has_cell_state()) {
    member(name, object, spec.output_size());
    return members;
  }
  if (!py::isinstance<py::tuple>(object) && !py::isinstance<py::list>(object))
    throw py::type_error(std::string(name) + ": expected a tuple (h, c), got " + describe(object));
  const auto pair = py::reinterpret_borrow<py::sequence>(object);
  if (pair.size() != 2)
    throw py::value_error(std::string(name) + ": expected a tuple (h, c), got " + std::to_string(pair.size()) +
                          " items");
  member(std::string(name) + "[0]", py::object(pair[0]), spec.output_size());
  member(std::string(name) + "[1]", py::object(pair[1]), spec.hidden_size);
  return members;
}

void check_volume(const Spec& spec, int64_t steps, int64_t batch) {
  // A rough bound; what does not fit in memory shows when it is allocated.
  const int64_t width =
      64 * (spec.hidden_size + spec.input_size + spec.proj_size) * spec.num_layers * spec.num_directions;
  int64_t rows, bytes;
  if (__builtin_mul_overflow(steps, batch, &rows) || __builtin_mul_overflow(rows, width, &bytes))
    throw py::value_error("x: " + std::to_string(steps) + " steps of " + std::to_string(batch) +
                          " sequences overflow the address space");
}

#define RNNKERN_INSTANTIATE(T)                                                                  \
  template py::array checked_array<T>(const char*, py::handle, const std::vector<Dimensions>&); \
  template py::array_t<T> contiguous<T>(const py::array&);                                      \
  template SequenceArgument<T> checked_sequence<T>(const char*, py::handle, int64_t, bool);     \
  template std::vector<py::array_t<T>> checked_state<T>(const char*, py::handle, const Spec&, int64_t, bool);
RNNKERN_INSTANTIATE(float)
RNNKERN_INSTANTIATE(double)
#undef RNNKERN_INSTANTIATE

}  // namespace rnnkern
