// Work without the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>

namespace rnnkern {

// Waits for the GIL, with the state that PyEval_SaveThread returned.
void take_gil(PyThreadState* thread);
// Throws it again; Python's exception where a call was given up (Interrupted).
[[noreturn]] void rethrow(const std::exception_ptr& failure);

// Runs work() without the GIL. pybind11's gil_scoped_release takes it back in a destructor, out of which Python may not
// end the thread; see take_gil.
template <class Work>
void without_gil(Work&& work) {
  PyThreadState* const thread = PyEval_SaveThread();
  std::exception_ptr failure;
  try {
    work();
  } catch (...) {
    failure = std::current_exception();
  }
  take_gil(thread);
  if (failure) rethrow(failure);
}

}  // namespace rnnkern
