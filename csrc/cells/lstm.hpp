// LSTM (Hochreiter and Schmidhuber 1997, Gers et al. 2000), with peepholes (Gers and Schmidhuber 2000) and with coupled
// gates (Greff et al. 2017):  c' = f c + i g,  h = o tanh(c').  Peepholes: c feeds i and f, c' feeds o.
#pragma once

#include "nonlinearity.hpp"

namespace rnnkern {
namespace {

template <class T, class F>
struct Lstm {
  static constexpr CellInfo info = [] {
    CellInfo info{};
    info.family = "lstm";
    info.gates = info.saved = info.slots = 4;
    for (int gate = 0; gate < 4; ++gate) info.slot_gate[gate] = gate;
    info.stages = 1;
    info.stage[0] = {0, 4, 0, 0b1111};
    info.param_gate = -1;
    info.params = F::may_peep ? 3 : 0;
    info.peephole[0] = {0, false};
    info.peephole[1] = {1, false};
    info.peephole[2] = {3, true};
    info.cell_state = true;
    return info;
  }();

  template <int stage>
  RNNKERN_INLINE static void forward(const F& f, Units<T>& u) {
    Vector<T> a[4];
#pragma GCC unroll 4
    for (int gate = 0; gate < 4; ++gate) a[gate] = u.x[gate] + u.r[gate];
    if (f.peephole) {
      a[0] = multiply_add(u.param[0], u.c_previous, a[0]);
      a[1] = multiply_add(u.param[1], u.c_previous, a[1]);
    }
    const Opened<T> candidate = f.template open<1>(a[2]);
    Opened<T> input, forget;
    if (f.coupling != Coupling::input) input = f.template open<0>(a[0]);
    if (f.coupling != Coupling::forget) forget = f.template open<0>(a[1]);
    if (f.coupling == Coupling::input) input.value = input.kept = T(1) - forget.value;
    if (f.coupling == Coupling::forget) forget.value = forget.kept = T(1) - input.value;
    u.c = multiply_add(forget.value, u.c_previous, input.value * candidate.value);
    if (f.peephole) a[3] = multiply_add(u.param[2], u.c, a[3]);
    const Opened<T> output = f.template open<0>(a[3]);
    u.h = output.value * f.template apply<2>(u.c);
    u.saved[0] = input.kept;
    u.saved[1] = forget.kept;
    u.saved[2] = candidate.kept;
    u.saved[3] = output.kept;
  }

  template <int stage>
  RNNKERN_INLINE static void backward(const F& f, Units<T>& u) {
    const Vector<T> zero{}, squashed = f.template apply<2>(u.c);
    const Reopened<T> candidate = f.template reopen<1>(u.saved[2]), output = f.template reopen<0>(u.saved[3]);
    Reopened<T> input{}, forget{};
    if (f.coupling != Coupling::input) input = f.template reopen<0>(u.saved[0]);
    if (f.coupling != Coupling::forget) forget = f.template reopen<0>(u.saved[1]);
    if (f.coupling == Coupling::input) input.value = T(1) - forget.value;
    if (f.coupling == Coupling::forget) forget.value = T(1) - input.value;

    u.inner = output.value * squashed;
    u.dgate[3] = u.dh * squashed * output.slope;
    Vector<T> dc = multiply_add(u.dh * output.value, f.template slope<2>(u.c, squashed), u.dc);
    if (f.peephole) dc = multiply_add(u.dgate[3], u.param[2], dc);
    Vector<T> dinput = dc * candidate.value, dforget = dc * u.c_previous;
    if (f.coupling == Coupling::input) dforget = dforget - dinput;
    if (f.coupling == Coupling::forget) dinput = dinput - dforget;
    u.dgate[0] = f.coupling == Coupling::input ? zero : dinput * input.slope;
    u.dgate[1] = f.coupling == Coupling::forget ? zero : dforget * forget.slope;
    u.dgate[2] = dc * input.value * candidate.slope;
    u.dc = dc * forget.value;
    if (f.peephole) u.dc = multiply_add(u.dgate[1], u.param[1], multiply_add(u.dgate[0], u.param[0], u.dc));
    u.dh = zero;
  }
};

}  // namespace
}  // namespace rnnkern
