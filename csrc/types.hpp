// Plain structs that cross the instruction-set boundary: no STL, no inline functions with external linkage.
#pragma once

#include <cstdint>

namespace rnnkern {

// ONNX's eleven activations, and the identity.
enum class ActivationKind : int {
  affine,
  elu,
  hard_sigmoid,
  identity,
  leaky_relu,
  relu,
  scaled_tanh,
  sigmoid,
  softplus,
  softsign,
  tanh,
  thresholded_relu,
};

struct Activation {
  ActivationKind kind;
  double alpha;
  double beta;
};

// Which gate of an LSTM is derived from another one.
enum class Coupling : int { none, input, forget };  // input: i = 1 - f; forget: f = 1 - i

// A matrix whose row i starts at base + (index ? index[i] : i) * stride; a row itself is contiguous.
template <class T>
struct Rows {
  T* base;
  int64_t stride;
  const int64_t* index;
};

// Options of a cell that are read at run time (by the cells on the general path only).
struct CellOptions {
  Activation activations[3];
  double clip;  // infinity: none
  Coupling coupling;
  bool peephole;
  bool save_values;  // keep activated gate values instead of pre-activations (trace)
};

}  // namespace rnnkern
