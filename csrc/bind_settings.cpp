// Threads, instruction sets, and the vector functions for the tests of their error bounds.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "available.hpp"
#include "bind.hpp"
#include "bind_arguments.hpp"
#include "bind_gil.hpp"
#include "dispatch.hpp"
#include "driver.hpp"
#include "kernels.hpp"
#include "panels.hpp"
#include "probes.hpp"
#include "threads.hpp"

namespace rnnkern {
namespace {

// Beyond this the OpenMP runtime may fail to start a thread, which ends the process.
constexpr int kMostThreads = 1024;

PyObject* thread_variable = nullptr;  // a ContextVar: None or the number of threads

const Isa& isa_or_default(const std::optional<std::string>& name) { return name ? find_isa(*name) : default_isa(); }

const char* compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

template <class T>
py::array evaluate(MathFunction function, const py::array& x, const KernelTable& table) {
  const py::array_t<T> from = contiguous<T>(x);
  py::array_t<T> to(from.size());
  const T* in = from.data();
  T* out = to.mutable_data();
  const int64_t count = from.size();
  const auto work = [&](int, int, const Barrier&) { kernels_of<T>(table).evaluate(function, in, out, count); };
  without_gil([&] {
    run_team(
        1, [](int) {}, work);
  });
  return to;
}

py::array math(const std::string& name, const py::array& x, const std::optional<std::string>& isa) {
  const KernelTable& table = *isa_or_default(isa).table;
  if (x.ndim() != 1) throw py::value_error("x: expected one dimension, got " + describe(x));
  MathFunction function;
  if (name == "exp")
    function = MathFunction::exp;
  else if (name == "sigmoid")
    function = MathFunction::sigmoid;
  else if (name == "tanh")
    function = MathFunction::tanh;
  else
    throw py::value_error("name: expected 'exp', 'sigmoid' or 'tanh', got '" + name + "'");
  if (py::isinstance<py::array_t<float>>(x)) return evaluate<float>(function, x, table);
  if (py::isinstance<py::array_t<double>>(x)) return evaluate<double>(function, x, table);
  throw py::type_error("x: expected a float32 or float64 array, got " + describe(x));
}

constexpr struct {
  const char* name;
  Probe probe;
} kProbes[] = {{"multiply_add", Probe::multiply_add},
               {"read", Probe::read},
               {"sigmoid", Probe::sigmoid},
               {"tanh", Probe::tanh},
               {"barrier", Probe::barrier},
               {"multiply_add_latency", Probe::multiply_add_latency},
               {"sigmoid_latency", Probe::sigmoid_latency},
               {"tanh_latency", Probe::tanh_latency}};

double probe(const std::string& name, const py::dtype& dtype, int threads, int64_t bytes,
             const std::optional<std::string>& isa) {
  const KernelTable& table = *isa_or_default(isa).table;
  const bool wide = dtype.equal(py::dtype::of<double>());
  if (!wide && !dtype.equal(py::dtype::of<float>())) throw py::value_error("dtype: expected float32 or float64");
  if (threads < 1 || threads > kMostThreads)
    throw py::value_error("threads: expected 1 to " + std::to_string(kMostThreads) + ", got " +
                          std::to_string(threads));
  if (bytes < 0) throw py::value_error("bytes: expected 0 or more, got " + std::to_string(bytes));
  for (const auto& known : kProbes)
    if (name == known.name) {
      const auto measured = wide ? measure<double> : measure<float>;
      double result = 0;
      without_gil([&] { result = measured(known.probe, table, threads, static_cast<std::size_t>(bytes)); });
      return result;
    }
  throw py::value_error("name: unknown probe '" + name + "'");
}

}  // namespace

int context_threads() {
  PyObject* value = nullptr;
  if (PyContextVar_Get(thread_variable, nullptr, &value) < 0) throw py::error_already_set();
  const auto threads = py::reinterpret_steal<py::object>(value);
  const int wanted = threads && !threads.is_none() ? threads.cast<int>() : process_threads();
  return std::min(wanted, kMostThreads);
}

void bind_settings(py::module_& module) {
  thread_variable = PyContextVar_New("rnnkern.num_threads", Py_None);
  if (!thread_variable) throw py::error_already_set();
  module.attr("thread_variable") = py::reinterpret_borrow<py::object>(thread_variable);
  module.def("context_threads", context_threads);
  module.def("set_process_threads", set_process_threads, py::arg("threads"));
  module.attr("most_threads") = kMostThreads;
  module.def("processors", processors);
  module.def("set_processors", set_processors, py::arg("count"));
  module.def("cpu_quota", cpu_quota, py::arg("root"));
  module.def("barrier_seconds", barrier_seconds);
  module.def("openmp_runtime", openmp_runtime);
  module.def("compiler", compiler);
  module.def("cells", cell_names);
  module.def("default_isa", [] { return default_isa().name; });
  module.def("isas", [] {
    py::list isas;
    for (const Isa& isa : built_isas()) isas.append(py::make_tuple(isa.name, isa.can_run(), isa.selectable));
    return isas;
  });
  module.def("math", math, py::arg("name"), py::arg("x"), py::arg("isa") = py::none());
  module.def("probe", probe, py::arg("name"), py::arg("dtype"), py::arg("threads") = 1, py::arg("bytes") = 0,
             py::arg("isa") = py::none());
}

}  // namespace rnnkern
