// What module.cpp registers.
#pragma once

#include <pybind11/pybind11.h>

namespace rnnkern {

void bind_signals(pybind11::module_&);
void bind_network(pybind11::module_&);
void bind_tensors(pybind11::module_&);
void bind_settings(pybind11::module_&);
void bind_cross_entropy(pybind11::module_&);

// Threads for a call from here: those of the context, else of the process.
int context_threads();

}  // namespace rnnkern
