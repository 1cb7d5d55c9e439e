#pragma once

#include <pybind11/pybind11.h>

#include "driver.hpp"

namespace rnnkern {

// From rnnkern.spec.Spec, which Python has validated.
Spec spec_of(const pybind11::object& from);

}  // namespace rnnkern
