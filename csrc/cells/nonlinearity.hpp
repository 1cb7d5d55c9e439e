// How a cell evaluates its gates: the usual functions at compile time, or any of ONNX's with clipping at run time.
#pragma once

#include "../core/math.hpp"
#include "../kernels.hpp"

namespace rnnkern {
namespace {

// A gate on the way forward: its value, and what is kept of it for backward.
template <class T>
struct Opened {
  Vector<T> value, kept;
};
// A gate on the way back: its value and its derivative by the pre-activation.
template <class T>
struct Reopened {
  Vector<T> value;
  Slope<T> slope;
};

// Activation I of the cell is kinds[I], folded because it is a constant. Values are kept: the derivatives follow from
// them.
template <class T, Coupling coupled, bool peepholes, ActivationKind... kinds>
struct Usual {
  static constexpr bool general = false;
  static constexpr Coupling coupling = coupled;
  static constexpr bool peephole = peepholes, may_peep = peepholes;
  static constexpr Activation activation[] = {{kinds, 1, 0}...};

  RNNKERN_INLINE explicit Usual(const CellOptions*) {}

  template <int I>
  RNNKERN_INLINE Opened<T> open(Vector<T> a) const {
    const Vector<T> y = activate<T>(activation[I], a);
    return {y, y};
  }
  template <int I>
  RNNKERN_INLINE Reopened<T> reopen(Vector<T> kept) const {
    return {kept, derivative<T>(activation[I], kept, kept)};
  }
  // The same on something that is not a pre-activation of a gate (c), so never clipped.
  template <int I>
  RNNKERN_INLINE Vector<T> apply(Vector<T> x) const {
    return activate<T>(activation[I], x);
  }
  template <int I>
  RNNKERN_INLINE Slope<T> slope(Vector<T>, Vector<T> y) const {
    return derivative<T>(activation[I], y, y);
  }
};

// Everything at run time; pre-activations are kept, because not every derivative follows from the value.
template <class T>
struct General {
  static constexpr bool general = true, may_peep = true;
  const CellOptions* options;
  const Coupling coupling;
  const bool peephole;

  RNNKERN_INLINE explicit General(const CellOptions* o) : options(o), coupling(o->coupling), peephole(o->peephole) {}

  RNNKERN_INLINE Vector<T> clipped(Vector<T> a) const {
    const Vector<T> bound = broadcast<T>(T(options->clip));
    return at_least(at_most(a, bound), -bound);
  }
  template <int I>
  RNNKERN_INLINE Opened<T> open(Vector<T> a) const {
    const Vector<T> y = activate<T>(options->activations[I], clipped(a));
    return {y, options->save_values ? y : a};
  }
  template <int I>
  RNNKERN_INLINE Reopened<T> reopen(Vector<T> a) const {
    const Vector<T> x = clipped(a), y = activate<T>(options->activations[I], x);
    Slope<T> slope = derivative<T>(options->activations[I], x, y);
    slope.held |= magnitude<T>(a) > broadcast<T>(T(options->clip));
    return {y, slope};
  }
  template <int I>
  RNNKERN_INLINE Vector<T> apply(Vector<T> x) const {
    return activate<T>(options->activations[I], x);
  }
  template <int I>
  RNNKERN_INLINE Slope<T> slope(Vector<T> x, Vector<T> y) const {
    return derivative<T>(options->activations[I], x, y);
  }
};

// The registers of `lanes` hidden units of one sequence at one step: what the driver fills in and takes out.
template <class T>
struct Units {
  Vector<T> x[kMostGates], r[kMostGates];  // the input and the recurrent part of each gate's pre-activation
  Vector<T> param[3];
  Vector<T> h_previous, c_previous, h, c;
  Vector<T> inner;  // what a second product of the step multiplies: r * h, or h before its projection
  Vector<T> saved[kMostGates];
  Vector<T> dh, dc, dinner;
  Vector<T> dgate[kMostGates];  // by slot
};

}  // namespace
}  // namespace rnnkern
