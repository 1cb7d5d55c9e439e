#include "bind.hpp"
#include "dispatch.hpp"

// Throws, and so fails the import, when RNNKERN_ISA names an instruction set that can't run here.
PYBIND11_MODULE(_core, module) {
  module.doc() = "The compiled part of rnnkern.";
  try {
    rnnkern::default_isa();
  } catch (const std::exception& error) {
    throw pybind11::import_error(error.what());
  }
  rnnkern::bind_settings(module);
  rnnkern::bind_network(module);
  rnnkern::bind_tensors(module);
  rnnkern::bind_cross_entropy(module);
}
