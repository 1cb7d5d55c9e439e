// One call of a network: what goes in, what comes out. Everything here is validated by the caller (bind_network.cpp);
// after that only an allocation can fail, and it fails (std::bad_alloc) before any output is written; or a long call is
// given up (Interrupted), after which what it was to write is undefined.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dispatch.hpp"
#include "plan.hpp"
#include "types.hpp"

namespace rnnkern {

enum class CellFamily : int { rnn, lstm, gru_reset_after, gru_reset_before, jordan };

// The options of a network, the same for every layer and direction except the activations.
struct Spec {
  CellFamily family;
  int64_t input_size;
  int64_t hidden_size;
  int64_t proj_size;  // of the projection, or of Jordan's output; 0: none
  int64_t num_layers;
  int64_t num_directions;
  bool softmax;  // of Jordan's output
  bool peephole;
  Coupling coupling;
  double clip;                   // infinity: none
  Activation activations[2][3];  // per direction, in ONNX's order

  int64_t gates() const;                          // rows of weight_ih per hidden unit
  int64_t output_size() const;                    // size of h: proj_size or hidden_size
  bool has_cell_state() const;                    // state is (h, c)
  int64_t layer_input_size(int64_t layer) const;  // I of layer 0, D * output_size of the others
};

// The weights of one layer and direction, C-contiguous; nullptr where the network has none.
template <class T>
struct Weights {
  T* ih;        // (G*H, I)
  T* hh;        // (G*H, O)
  T* bias_ih;   // (G*H)
  T* bias_hh;   // (G*H)
  T* hr;        // (P, H), or (O, H) of Jordan's output layer
  T* bias_hr;   // (O) of Jordan's output layer
  T* peephole;  // (3, H): i, f, o
};

// A (T, B, N) array, contiguous along N, strides in elements (any sign).
template <class T>
struct Sequence {
  T* data;
  int64_t stride_t;
  int64_t stride_b;
};

// Weights packed into panels for one instruction set. Immutable.
template <class T>
class Packed;

// weights: num_layers * num_directions entries, layer-major.
template <class T>
std::shared_ptr<const Packed<T>> pack(const Spec&, const KernelTable&, const Weights<const T>* weights, int threads);

// What backward needs of a forward pass: gate values by step and the outputs of the inner layers.
template <class T>
class Tape;

template <class T>
struct ForwardCall {
  int64_t steps, batch;    // T, B
  const int64_t* lengths;  // (B) in 1..T, or nullptr
  Sequence<const T> x;     // (T, B, I)
  const T* h0;             // (L*D, B, O) contiguous, or nullptr: zeros
  const T* c0;             // (L*D, B, H)
  const T* const* masks;   // per inner layer boundary (L-1): (T, B, D*O) contiguous factors, or nullptr
  bool return_sequence;    // y is (T, B, D*O), else (B, D*O) with stride_t ignored
  Sequence<T> y;           // written whole, zeros after each length
  T* hn;                   // (L*D, B, O), or nullptr: not wanted, where the sequence is
  T* cn;                   // (L*D, B, H), nullptr without a cell state
};

// Inference. Exactly one of weights and packed is given.
template <class T>
void run(const Spec&, const KernelTable&, const Weights<const T>* weights, const Packed<T>* packed,
         const ForwardCall<T>&, int threads);

// Training. x, y, h0, c0, masks and weights must stay alive and unchanged until the last backward.
template <class T>
std::shared_ptr<const Tape<T>> forward(const Spec&, const KernelTable&, const Weights<const T>* weights,
                                       const ForwardCall<T>&, bool recompute, int threads);

// The same, on a tape in the caller's memory: of `tape_size`, best at the start of a cache line, to be given to
// `backward`. The sequence of outputs must be wanted.
template <class T>
void forward(const Spec&, const KernelTable&, const Weights<const T>* weights, const ForwardCall<T>&, char* tape,
             int threads);

// Whether such a tape has the last layer's outputs, so that y may be changed: not with padding.
template <class T>
bool tape_has_outputs(const ForwardCall<T>& call) {
  return !call.lengths;
}

// Elements of such a tape: so many for every step of every sequence, and for every step and sequence with the padding.
struct TapeSize {
  int64_t per_step, per_padded_step;
};
template <class T>
TapeSize tape_size(const Spec&, const KernelTable&, bool masked, bool outputs);

// Bytes that a tape keeps beyond x and y.
template <class T>
std::size_t tape_bytes(const Tape<T>&);

template <class T>
struct BackwardCall {
  ForwardCall<T> forward;      // the call that made the tape
  Sequence<const T> dy;        // (T, B, D*O) or (B, D*O) as y; data == nullptr: zeros
  const T* dhn;                // (L*D, B, O), or nullptr: zeros
  const T* dcn;                // (L*D, B, H), or nullptr: zeros
  Sequence<T> dx;              // (T, B, I) contiguous along I, or data == nullptr: not wanted; zeros after each length
  T* dh0;                      // (L*D, B, O), or nullptr: not wanted
  T* dc0;                      // (L*D, B, H), or nullptr: not wanted
  const Weights<T>* dweights;  // L*D entries, written whole where ih is given, or nullptr: not wanted
};

template <class T>
void backward(const Spec&, const KernelTable&, const Weights<const T>* weights, const Tape<T>&, const BackwardCall<T>&,
              int threads);
template <class T>
void backward(const Spec&, const KernelTable&, const Weights<const T>* weights, char* tape, const BackwardCall<T>&,
              int threads);

// Gate values of one layer and direction by step, as (T, B, H) contiguous arrays, zeros after each length:
// LSTM i f g o c, GRU r z n, Jordan h, RNN nothing; h of the others is not included (it is y).
// outputs: L*D*trace_values(spec) pointers, layer-major. h is taken from `hidden`: (L*D) pointers to (T, B, O).
int64_t trace_values(const Spec&);
template <class T>
void trace(const Spec&, const KernelTable&, const Weights<const T>* weights, const ForwardCall<T>&, T* const* values,
           T* const* hidden, int threads);

// The cells by the names of their NumPy twins.
const std::vector<const char*>& cell_names();

// How the work of a call is split, in steps per block of time, and how many values forward keeps per step, sequence and
// hidden unit of every layer and direction (for rnnkern.explain).
struct Explanation {
  Plan plan;
  int64_t block_steps;
  int64_t kept_values;
};
template <class T>
Explanation explain(const Spec&, const KernelTable&, int64_t steps, int64_t batch, const int64_t* lengths, bool live,
                    int threads);

}  // namespace rnnkern
