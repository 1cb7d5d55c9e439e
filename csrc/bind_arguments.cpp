#include "bind_arguments.hpp"

#include <algorithm>
#include <limits>

namespace rnnkern {
namespace {

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

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

bool is_plain(py::handle array) {
  return reinterpret_cast<PyObject*>(Py_TYPE(array.ptr())) ==
         reinterpret_cast<PyObject*>(py::detail::npy_api::get().PyArray_Type_);
}

// The same memory as an ndarray, which has no methods of the user's.
py::array plain(const py::array& array) {
  if (is_plain(array)) return array;
  const auto& numpy = py::detail::npy_api::get();
  PyObject* view = numpy.PyArray_View_(array.ptr(), nullptr, reinterpret_cast<PyObject*>(numpy.PyArray_Type_));
  if (!view) throw py::error_already_set();
  return py::reinterpret_steal<py::array>(view);
}

bool has_items(py::handle object) { return PyTuple_Check(object.ptr()) || PyList_Check(object.ptr()); }

// The items of a list or tuple, without calling what a subclass makes of it.
py::tuple items_of(py::handle object) {
  if (PyTuple_Check(object.ptr())) return py::reinterpret_borrow<py::tuple>(object);
  auto items = py::reinterpret_steal<py::tuple>(PyList_AsTuple(object.ptr()));
  if (!items) throw py::error_already_set();
  return items;
}

// Of an array of integers; the nearest one of those beyond 64 bits with a sign.
std::vector<int64_t> integers_of(const py::array& array) {
  constexpr int flags = py::array::c_style | py::array::forcecast | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const py::array_t<int64_t, flags> values(array);
  std::vector<int64_t> integers(values.data(), values.data() + values.size());
  if (array.dtype().kind() == 'u')
    std::replace_if(
        integers.begin(), integers.end(), [](int64_t value) { return value < 0; }, kMost);
  return integers;
}

// That of an object with __index__, likewise; nothing if it is no integer, as an array of several is not.
std::optional<int64_t> integer_of(py::handle object) {
  if (py::isinstance<py::bool_>(object) || !PyIndex_Check(object.ptr())) return std::nullopt;
  const py::ssize_t value = PyNumber_AsSsize_t(object.ptr(), nullptr);
  if (value != -1 || !PyErr_Occurred()) return value;
  if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw py::error_already_set();
  PyErr_Clear();
  return std::nullopt;
}

constexpr const char* kSwapped = "; are the axes of time and batch the other way round (batch_first)?";

bool is_aligned(const py::array& array) { return (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0; }

}  // namespace

bool is_masked(py::handle object) {
  if (!py::isinstance<py::array>(object) || is_plain(object)) return false;
  return py::isinstance(object, py::module_::import("numpy.ma").attr("MaskedArray"));
}

template <class T>
std::string remedy(const std::string& name, py::handle object) {
  const std::string wanted = std::string("np.") + dtype_name<T>();
  if (is_masked(object)) return "; its mask would be lost, " + name + ".filled(0) has none";
  if (py::isinstance<py::array>(object)) {
    const py::dtype dtype = py::reinterpret_borrow<py::array>(object).dtype();
    if (std::string("fiub").find(dtype.kind()) == std::string::npos) return "";
    const std::string converted = "; " + name + ".astype(" + wanted + ") converts it";
    const std::string given = py::str(dtype), other = sizeof(T) == 4 ? "float64" : "float32";
    const bool is_input = name == "x" || name == "x_t";
    return converted + (is_input && given == other ? ", or make the layer with dtype=np." + other : "");
  }
  const auto has = [&](const char* attribute) {
    return PyObject_HasAttrString(reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())), attribute) == 1;
  };
  if (has("detach")) return "; " + name + ".detach().numpy() is one, and rnnkern.torch has layers for tensors";
  if (has("__array__") || has_items(object)) return "; np.asarray(" + name + ", " + wanted + ") makes one";
  return "";
}

std::string describe(py::handle object) {
  if (!py::isinstance<py::array>(object)) {
    const auto type = py::type::handle_of(object);
    const std::string module = py::str(type.attr("__module__")), name = py::str(type.attr("__name__"));
    return module == "builtins" ? name : module + "." + name;
  }
  const auto array = py::reinterpret_borrow<py::array>(object);
  std::vector<std::string> sizes;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) sizes.push_back(std::to_string(array.shape(i)));
  return (is_masked(object) ? "masked " : "") + std::string(py::str(array.dtype())) + " array of shape " +
         shape_text(sizes);
}

void confirm(const char* name, const py::array& array, const Place& checked) {
  if (Place(array) != checked)
    throw std::runtime_error(std::string(name) + ": its memory was given back in the middle of the call");
}

template <class T>
py::array checked_array(const char* name, py::handle object, const std::vector<Dimensions>& expected,
                        const char* hint) {
  if (!py::isinstance<py::array_t<T>>(object) || is_masked(object))
    throw py::type_error(expectation<T>(name, expected) + describe(object) + (hint ? hint : remedy<T>(name, object)));
  const auto array = plain(py::reinterpret_borrow<py::array>(object));
  const auto fits = [&](const Dimensions& dimensions) { return matches(array, dimensions); };
  if (std::none_of(expected.begin(), expected.end(), fits))
    throw py::value_error(expectation<T>(name, expected) + describe(object) + (hint ? hint : ""));
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
  const py::array given = checked_array<T>(name, object, {{first, second, width}, {"T", width}});
  result.unbatched = given.ndim() == 2;
  const int time = !result.unbatched && batch_first ? 1 : 0;
  result.steps = given.shape(time);
  result.batch = result.unbatched ? 1 : given.shape(1 - time);
  const auto strided = [](const py::array& array) {
    constexpr py::ssize_t size = sizeof(T);
    const py::ssize_t last = array.ndim() - 1;
    if (!is_aligned(array) || (array.shape(last) > 1 && array.strides(last) != size)) return false;
    for (py::ssize_t i = 0; i < last; ++i)
      if (array.strides(i) % size != 0) return false;
    return true;
  };
  place_sequence(result, strided(given) ? given : contiguous<T>(given), batch_first);
  return result;
}

template <class T>
void place_sequence(SequenceArgument<T>& sequence, const py::array& holder, bool batch_first) {
  const auto stride = [&](int axis) {
    return static_cast<int64_t>(holder.strides(axis) / static_cast<py::ssize_t>(sizeof(T)));
  };
  const int time = !sequence.unbatched && batch_first ? 1 : 0;
  sequence.holder = holder;
  sequence.place = Place(holder);
  sequence.view = {static_cast<const T*>(holder.data()), stride(time), sequence.unbatched ? 0 : stride(1 - time)};
}

Lengths read_lengths(py::handle object) {
  Lengths lengths;
  if (object.is_none()) return lengths;
  std::vector<int64_t>& values = lengths.values.emplace();
  if (py::isinstance<py::array>(object)) {
    const auto array = py::reinterpret_borrow<py::array>(object);
    const char kind = array.dtype().kind();
    if ((kind != 'i' && kind != 'u') || is_masked(object))
      lengths.wrong_kind = describe(object);
    else if (array.ndim() != 1)
      lengths.wrong_rank = describe(object);
    else
      values = integers_of(array);
  } else if (!has_items(object)) {
    lengths.wrong_kind = describe(object);
  } else {
    for (const py::handle item : items_of(object)) {
      const std::optional<int64_t> value = integer_of(item);
      if (!value) lengths.wrong_kind = "one of type " + describe(item);
      values.push_back(value.value_or(0));
    }
  }
  return lengths;
}

std::optional<std::vector<int64_t>> checked_lengths(Lengths given, int64_t batch, int64_t steps) {
  if (!given.values) return std::nullopt;
  const auto wrong = [&](const std::string& came) {
    return "lengths: expected " + std::to_string(batch) + " integers in 1.." + std::to_string(steps) + ", got " + came;
  };
  if (!given.wrong_kind.empty()) throw py::type_error(wrong(given.wrong_kind));
  if (!given.wrong_rank.empty()) throw py::value_error(wrong(given.wrong_rank));
  const auto count = static_cast<int64_t>(given.values->size());
  if (count != batch)
    throw py::value_error(wrong(std::to_string(count) + (count == 1 ? " integer" : " integers")) +
                          (count == steps ? kSwapped : ""));
  for (const int64_t length : *given.values) {
    if (1 <= length && length <= steps) continue;
    const bool is_nearest = length == kMost || length == std::numeric_limits<int64_t>::min();
    throw py::value_error(wrong(is_nearest ? "one of more than 63 bits" : std::to_string(length)));
  }
  return std::move(given.values);
}

template <class T>
StateArgument<T> checked_state(const char* name, py::handle object, const Spec& spec, int64_t steps, int64_t batch,
                               bool unbatched) {
  StateArgument<T> state;
  if (object.is_none()) return state;
  const int64_t parts = spec.num_layers * spec.num_directions;
  const char* hint = nullptr;
  const auto member = [&](const std::string& member_name, py::handle value, int64_t width) {
    const Dimensions shape = unbatched ? Dimensions{parts, width} : Dimensions{parts, batch, width};
    if (steps != batch && py::isinstance<py::array_t<T>>(value) &&
        matches(py::reinterpret_borrow<py::array>(value), {parts, steps, width}))
      hint = kSwapped;
    state.add(contiguous<T>(checked_array<T>(member_name.c_str(), value, {shape}, hint)));
  };
  const std::string text = name;
  if (!spec.has_cell_state()) {
    if (has_items(object) && items_of(object).size() == 2) hint = "; h alone, only an LSTM has c";
    member(text, object, spec.output_size());
    return state;
  }
  if (!has_items(object)) throw py::type_error(text + ": expected a tuple (h, c), got " + describe(object));
  const py::tuple pair = items_of(object);
  if (pair.size() != 2)
    throw py::value_error(text + ": expected a tuple (h, c), got a " + describe(object) + " of " +
                          std::to_string(pair.size()));
  member(text + "[0]", pair[0], spec.output_size());
  member(text + "[1]", pair[1], spec.hidden_size);
  return state;
}

void check_volume(const Spec& spec, int64_t steps, int64_t batch) {
  // A rough bound; what does not fit in memory shows when it is allocated.
  const int64_t width =
      64 * (spec.hidden_size + spec.input_size + spec.proj_size) * spec.num_layers * spec.num_directions;
  int64_t rows, bytes;
  if (__builtin_mul_overflow(std::max<int64_t>(steps, 1), batch, &rows) || __builtin_mul_overflow(rows, width, &bytes))
    throw py::value_error("x: " + std::to_string(steps) + " steps of " + std::to_string(batch) +
                          " sequences overflow the address space");
}

#define RNNKERN_INSTANTIATE(T)                                                                               \
  template std::string remedy<T>(const std::string&, py::handle);                                            \
  template py::array checked_array<T>(const char*, py::handle, const std::vector<Dimensions>&, const char*); \
  template py::array_t<T> contiguous<T>(const py::array&);                                                   \
  template SequenceArgument<T> checked_sequence<T>(const char*, py::handle, int64_t, bool);                  \
  template void place_sequence<T>(SequenceArgument<T>&, const py::array&, bool);                             \
  template StateArgument<T> checked_state<T>(const char*, py::handle, const Spec&, int64_t, int64_t, bool);
RNNKERN_INSTANTIATE(float)
RNNKERN_INSTANTIATE(double)
#undef RNNKERN_INSTANTIATE

}  // namespace rnnkern
