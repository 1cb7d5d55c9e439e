#include "bind_gil.hpp"

#include <pthread.h>
#include <unistd.h>

#include <atomic>

#include "bind.hpp"
#include "interruption.hpp"

namespace rnnkern {
namespace {

// Python's main thread, the only one that handles signals: after a fork the one that forked.
std::atomic<unsigned long> main_thread{0};

void in_forked_child() { main_thread.store(PyThread_get_thread_ident()); }

// On the thread that made a call, without the GIL. Leaves Python's exception set where it returns true.
bool signalled() {
  if (PyThread_get_thread_ident() != main_thread.load(std::memory_order_relaxed)) return false;
  const PyGILState_STATE state = PyGILState_Ensure();
  const bool raised = PyErr_CheckSignals() < 0;
  PyGILState_Release(state);
  return raised;
}

// Never ends while it is `armed`.
struct Forever {
  bool armed = true;
  ~Forever() {
    while (armed) pause();
  }
};

}  // namespace

// A daemon thread that asks for the GIL while the interpreter shuts down gets none: up to Python 3.13 it is ended by
// pthread_exit, which unwinds its frames. They hold references that must not be given up without the GIL, and some of
// them let nothing through (std::terminate). So it stops here, as 3.14 has it, until the process ends.
void take_gil(PyThreadState* thread) {
  Forever forever;
  PyEval_RestoreThread(thread);
  forever.armed = false;
}

void rethrow(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Interrupted&) {
    throw pybind11::error_already_set();
  }
}

void bind_signals(pybind11::module_&) {
  const auto main = pybind11::module_::import("threading").attr("main_thread")();
  main_thread.store(main.attr("ident").cast<unsigned long>());
  pthread_atfork(nullptr, nullptr, in_forked_child);
  set_interrupt_check(signalled);
}

}  // namespace rnnkern
