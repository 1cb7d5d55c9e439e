#include "bind.hpp"
#include "dispatch.hpp"

// pybind11 keeps what it knows of types for the whole process and reaches it by the main interpreter's GIL: in a
// subinterpreter it would wait for ever. So its own entry point comes second.
#define PyInit__core initialize_core

// Throws, and so fails the import, when RNNKERN_ISA names an instruction set that can't run here.
PYBIND11_MODULE(_core, module) {
  module.doc() = "The compiled part of rnnkern.";
  try {
    rnnkern::default_isa();
  } catch (const std::exception& error) {
    throw pybind11::import_error(error.what());
  }
  rnnkern::bind_signals(module);
  rnnkern::bind_settings(module);
  rnnkern::bind_network(module);
  rnnkern::bind_tensors(module);
  rnnkern::bind_cross_entropy(module);
}

#undef PyInit__core

extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return initialize_core();
  PyErr_SetString(PyExc_ImportError, "rnnkern can't be imported in a subinterpreter, only in the main one");
  return nullptr;
}
