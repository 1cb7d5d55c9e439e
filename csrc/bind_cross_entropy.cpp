// The loss of an output layer: checks of what comes, then one call without the GIL.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <vector>

#include "bind.hpp"
#include "bind_arguments.hpp"
#include "bind_gil.hpp"
#include "bind_memory.hpp"
#include "cross_entropy.hpp"
#include "dispatch.hpp"

namespace rnnkern {
namespace {

std::string shape_of_positions(const py::array& h) {
  std::string text = "(";
  for (py::ssize_t i = 0; i + 1 < h.ndim(); ++i) text += (i ? ", " : "") + std::to_string(h.shape(i));
  return text + (h.ndim() == 2 ? ",)" : ")");
}

// Of the shape of h but for its last dimension, and of one of the kinds.
py::array checked_positions(const char* name, const char* what, const std::string& kinds, py::handle object,
                            const py::array& h) {
  const auto wrong = [&] {
    return std::string(name) + ": expected " + what + " array of shape " + shape_of_positions(h) + ", got " +
           describe(object);
  };
  if (is_masked(object)) throw py::type_error(wrong() + remedy<float>(name, object));
  if (!py::isinstance<py::array>(object)) throw py::type_error(wrong());
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (kinds.find(array.dtype().kind()) == std::string::npos) throw py::type_error(wrong());
  bool fits = array.ndim() + 1 == h.ndim();
  for (py::ssize_t i = 0; fits && i < array.ndim(); ++i) fits = array.shape(i) == h.shape(i);
  if (!fits) throw py::value_error(wrong());
  return array;
}

// The positions that count, and their classes.
struct Counted {
  std::vector<int64_t> positions, targets;
};

Counted counted(const py::array& targets, const py::object& mask, int64_t ignore_index, int64_t classes,
                const py::array& h) {
  const bool is_wide = targets.dtype().kind() == 'u' && targets.itemsize() == 8;  // may not fit into int64_t
  constexpr int flags = py::array::c_style | py::array::forcecast | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const py::array_t<int64_t, flags> values(targets);
  py::array_t<bool, flags> chosen;
  if (!mask.is_none()) chosen = checked_positions("mask", "a bool", "b", mask, h);
  const int64_t* const value = values.data();
  const bool* const choice = mask.is_none() ? nullptr : chosen.data();
  Counted result;
  result.positions.reserve(values.size());
  result.targets.reserve(values.size());
  for (int64_t i = 0; i < values.size(); ++i) {
    const bool fits = !is_wide || value[i] >= 0;
    if ((choice && !choice[i]) || (fits && value[i] == ignore_index)) continue;
    if (!fits || value[i] < 0 || value[i] >= classes)
      throw py::value_error("targets: expected classes in 0.." + std::to_string(classes - 1) + " or ignore_index (" +
                            std::to_string(ignore_index) + "), got " +
                            std::string(py::str(targets.attr("flat")[py::int_(i)])));
    result.positions.push_back(i);
    result.targets.push_back(value[i]);
  }
  return result;
}

template <class T>
py::tuple call(const py::array& h, py::handle weight, py::handle bias, py::handle targets, const py::object& mask,
               int64_t ignore_index, bool mean, bool gradients, const KernelTable& table) {
  const int64_t width = h.shape(h.ndim() - 1);
  if (width < 1) throw py::value_error("h: expected a last dimension of 1 or more, got " + describe(h));
  const auto rows = contiguous<T>(h);
  const auto matrix = contiguous<T>(checked_array<T>("weight", weight, {{"V", width}}));
  const int64_t classes = matrix.shape(0);
  if (classes < 1) throw py::value_error("weight: expected 1 class or more, got " + describe(weight));
  py::array_t<T> offsets;
  const bool biased = !bias.is_none();
  if (biased) offsets = contiguous<T>(checked_array<T>("bias", bias, {{classes}}));
  const Counted count =
      counted(checked_positions("targets", "an integer", "iu", targets, h), mask, ignore_index, classes, h);
  const Place places[] = {Place(rows), Place(matrix), Place(offsets)};

  CrossEntropy<T> entropy{};
  entropy.positions = rows.size() / width;
  entropy.width = width;
  entropy.classes = classes;
  entropy.h = rows.data();
  entropy.weight = matrix.data();
  entropy.bias = biased ? offsets.data() : nullptr;
  entropy.count = static_cast<int64_t>(count.positions.size());
  entropy.counted = count.positions.data();
  entropy.targets = count.targets.data();
  entropy.mean = mean;
  entropy.gradients = gradients;
  py::object dh = py::none(), dweight = py::none(), dbias = py::none();
  const auto like = [](const py::array_t<T>& array, py::object& gradient) {
    auto made = new_array<T>({array.shape(), array.shape() + array.ndim()});
    gradient = made;
    return made.mutable_data();
  };
  if (gradients) {
    entropy.dh = like(rows, dh);
    entropy.dweight = like(matrix, dweight);
    if (biased) entropy.dbias = like(offsets, dbias);
  }
  const int threads = context_threads();
  double loss = 0;
  confirm("h", rows, places[0]);
  confirm("weight", matrix, places[1]);
  confirm("bias", offsets, places[2]);
  without_gil([&] { loss = cross_entropy(table, entropy, threads); });
  return py::make_tuple(loss, dh, dweight, dbias);
}

py::tuple linear_cross_entropy(py::handle h, py::handle weight, py::handle bias, py::handle targets,
                               const py::object& mask, int64_t ignore_index, bool mean, bool gradients,
                               const std::optional<std::string>& isa) {
  const KernelTable& table = *(isa ? find_isa(*isa) : default_isa()).table;
  const bool wide = py::isinstance<py::array_t<double>>(h);
  const std::string expected = "h: expected a float32 or float64 array of shape (..., H), got ";
  if ((!wide && !py::isinstance<py::array_t<float>>(h)) || is_masked(h))
    throw py::type_error(expected + describe(h) + remedy<float>("h", h));
  const auto array = py::reinterpret_borrow<py::array>(h);
  if (array.ndim() < 1) throw py::value_error(expected + describe(h));
  return (wide ? call<double> : call<float>)(array, weight, bias, targets, mask, ignore_index, mean, gradients, table);
}

}  // namespace

void bind_cross_entropy(py::module_& module) {
  module.def("linear_cross_entropy", linear_cross_entropy, py::arg("h"), py::arg("weight"), py::arg("bias"),
             py::arg("targets"), py::arg("mask"), py::arg("ignore_index"), py::arg("mean"), py::arg("gradients"),
             py::arg("isa") = py::none());
}

}  // namespace rnnkern
