#include "bind_memory.hpp"

#include <pybind11/gil_safe_call_once.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "recycled.hpp"

namespace py = pybind11;

namespace rnnkern {
namespace {

// NumPy's PyDataMem_Handler, version 1 (NEP 49): what an array gets its memory from, and gives it back to.
struct Handler {
  char name[127];
  uint8_t version;
  void* context;
  void* (*malloc)(void* context, std::size_t bytes);
  void* (*calloc)(void* context, std::size_t count, std::size_t size);
  void* (*realloc)(void* context, void* memory, std::size_t bytes);
  void (*free)(void* context, void* memory, std::size_t bytes);
};

void* allocate(void*, std::size_t bytes) {
  try {
    return recycled(std::max<std::size_t>(bytes, 1)).release();
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void* allocate_zeros(void*, std::size_t count, std::size_t size) { return std::calloc(count, size); }
void* reallocate(void*, void* memory, std::size_t bytes) { return std::realloc(memory, bytes); }
void release(void*, void* memory, std::size_t bytes) { give_up(memory, bytes); }

Handler handler{"rnnkern", 1, nullptr, allocate, allocate_zeros, reallocate, release};

using SetHandler = PyObject* (*)(PyObject*);

SetHandler find_set_handler() {
  constexpr int index = 304;  // of PyDataMem_SetHandler in NumPy's table of functions, since 1.22
  const py::object table = py::detail::import_numpy_core_submodule("multiarray").attr("_ARRAY_API");
  void** const functions = static_cast<void**>(PyCapsule_GetPointer(table.ptr(), nullptr));
  if (!functions) throw py::error_already_set();
  return reinterpret_cast<SetHandler>(functions[index]);
}

// Has new arrays in this context get their memory from a handler; returns the one before.
py::object set_handler(const py::object& capsule) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<SetHandler> found;
  PyObject* before = found.call_once_and_store_result(find_set_handler).get_stored()(capsule.ptr());
  if (!before) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(before);
}

class UseHandler {
 public:
  UseHandler() : before_(set_handler(py::capsule(&handler, "mem_handler"))) {}
  ~UseHandler() {
    try {
      set_handler(before_);
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("rnnkern");
    }
  }

 private:
  py::object before_;
};

}  // namespace

py::array new_array(const py::dtype& dtype, const std::vector<py::ssize_t>& shape) {
  py::ssize_t bytes = dtype.itemsize();
  for (const py::ssize_t size : shape) bytes *= size;
  constexpr py::ssize_t cached_by_numpy = 1024;
  if (bytes < cached_by_numpy) return py::array(dtype, shape);
  const UseHandler use;
  return py::array(dtype, shape);
}

}  // namespace rnnkern
