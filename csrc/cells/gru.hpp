// GRU: h' = (1 - z) n + z h. Reset after the product (cuDNN, PyTorch): n = tanh(x + r (R h + b)); reset before it (Cho
// et al. 2014): n = tanh(x + R (r h) + b).
#pragma once

#include "nonlinearity.hpp"

namespace rnnkern {
namespace {

template <class T>
RNNKERN_INLINE Vector<T> blend(Vector<T> z, Vector<T> h, Vector<T> n) {
  return multiply_add(z, h - n, n);
}

template <class T, class F>
struct GruResetAfter {
  // Slots: n by its input part, r, z, n by its recurrent part.
  static constexpr CellInfo info = [] {
    CellInfo info{};
    info.family = "gru_reset_after";
    info.gates = 3;
    info.saved = info.slots = 4;
    info.slot_gate[0] = 2;
    info.slot_gate[1] = 0;
    info.slot_gate[2] = 1;
    info.stages = 1;
    info.stage[0] = {0, 3, 1, 0b1111};
    info.param_gate = 2;
    info.params = 1;
    info.reads_h_previous = true;
    return info;
  }();

  template <int stage>
  RNNKERN_INLINE static void forward(const F& f, Units<T>& u) {
    const Opened<T> reset = f.template open<0>(u.x[0] + u.r[0]), update = f.template open<0>(u.x[1] + u.r[1]);
    const Vector<T> recurrent = u.r[2] + u.param[0];
    const Opened<T> candidate = f.template open<1>(multiply_add(reset.value, recurrent, u.x[2]));
    u.h = blend<T>(update.value, u.h_previous, candidate.value);
    u.saved[0] = reset.kept;
    u.saved[1] = update.kept;
    u.saved[2] = candidate.kept;
    u.saved[3] = recurrent;
  }

  template <int stage>
  RNNKERN_INLINE static void backward(const F& f, Units<T>& u) {
    const Reopened<T> reset = f.template reopen<0>(u.saved[0]), update = f.template reopen<0>(u.saved[1]),
                      candidate = f.template reopen<1>(u.saved[2]);
    u.dgate[0] = u.dh * (T(1) - update.value) * candidate.slope;
    u.dgate[1] = u.dgate[0] * u.saved[3] * reset.slope;
    u.dgate[2] = u.dh * (u.h_previous - candidate.value) * update.slope;
    u.dgate[3] = u.dgate[0] * reset.value;
    u.dh = u.dh * update.value;
  }
};

template <class T, class F>
struct GruResetBefore {
  // Slots: n, r, z.
  static constexpr CellInfo info = [] {
    CellInfo info{};
    info.family = "gru_reset_before";
    info.gates = info.saved = info.slots = 3;
    info.slot_gate[0] = 2;
    info.slot_gate[1] = 0;
    info.slot_gate[2] = 1;
    info.stages = 2;
    info.stage[0] = {0, 2, 1, 0b010};
    info.stage[1] = {2, 1, 0, 0b101};
    info.param_gate = -1;
    info.reads_h_previous = true;
    return info;
  }();

  template <int stage>
  RNNKERN_INLINE static void forward(const F& f, Units<T>& u) {
    if constexpr (stage == 0) {
      const Opened<T> reset = f.template open<0>(u.x[0] + u.r[0]), update = f.template open<0>(u.x[1] + u.r[1]);
      u.inner = reset.value * u.h_previous;
      u.saved[0] = reset.kept;
      u.saved[1] = update.kept;
      u.saved[2] = update.value;  // until the second stage has made n
    } else {
      const Opened<T> candidate = f.template open<1>(u.x[2] + u.r[0]);
      u.h = blend<T>(u.saved[2], u.h_previous, candidate.value);
      u.saved[2] = candidate.kept;
    }
  }

  // Stage 1 comes first; between the two, dinner = dn R_n.
  template <int stage>
  RNNKERN_INLINE static void backward(const F& f, Units<T>& u) {
    if constexpr (stage == 1) {
      const Reopened<T> update = f.template reopen<0>(u.saved[1]), candidate = f.template reopen<1>(u.saved[2]);
      u.dgate[0] = u.dh * (T(1) - update.value) * candidate.slope;
      u.dgate[2] = u.dh * (u.h_previous - candidate.value) * update.slope;
      u.dh = u.dh * update.value;
    } else {
      const Reopened<T> reset = f.template reopen<0>(u.saved[0]);
      u.inner = reset.value * u.h_previous;
      u.dgate[1] = u.dinner * u.h_previous * reset.slope;
      u.dh = multiply_add(u.dinner, reset.value, u.dh);
    }
  }
};

}  // namespace
}  // namespace rnnkern
