// Jordan's network (1986): h = f(x + r), where r multiplies the last output. The layer makes the output of h.
#pragma once

#include "nonlinearity.hpp"

namespace rnnkern {
namespace {

template <class T, class F>
struct Jordan {
  static constexpr CellInfo info = [] {
    CellInfo info{};
    info.family = "jordan";
    info.gates = info.saved = info.slots = 1;
    info.stages = 1;
    info.stage[0] = {0, 1, 0, 0b1};
    info.param_gate = -1;
    return info;
  }();

  template <int stage>
  RNNKERN_INLINE static void forward(const F& f, Units<T>& u) {
    const Opened<T> h = f.template open<0>(u.x[0] + u.r[0]);
    u.h = h.value;
    u.saved[0] = h.kept;
  }

  template <int stage>
  RNNKERN_INLINE static void backward(const F& f, Units<T>& u) {
    const Reopened<T> h = f.template reopen<0>(u.saved[0]);
    u.inner = h.value;
    u.dgate[0] = u.dh * h.slope;
    u.dh = Vector<T>{};
  }
};

}  // namespace
}  // namespace rnnkern
