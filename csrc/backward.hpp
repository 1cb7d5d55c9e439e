// Back-propagation through time of one layer, in blocks of time from the last to the first.
#pragma once

#include "forward.hpp"

namespace rnnkern {

// What the gradients of the gates of a block are multiplied with for those of the weights: rows, from the last of the
// block to the first, where they are or copied.
template <class T>
struct Factors {
  int64_t width;
  const T** rows;
  T* copies;  // of rows, spread over a cache, or packed; nullptr: none are needed
};

// A gradient that is a sum over all rows, and beside it what is still to be added: of matrices the sums of the last
// rows, or nullptr where rows are few; of vectors what rounding took.
template <class T>
struct Total {
  T *sum, *rest;
};

// One direction of a layer on the way back.
template <class T>
struct BackwardDirection {
  BackwardPanels<T> panels;
  const T* dhn;  // (B, O), or nullptr: zeros
  const T* dcn;
  const T* dlast;  // (B, dlast_stride): the gradient of each sequence's last output, or nullptr
  int64_t dlast_stride;
  Sequence<const T> dy;  // its columns; data nullptr: zeros
  T* dh0;                // nullptr: not wanted
  T* dc0;
  Weights<const T> weights;
  const Weights<T>* dweights;  // nullptr: not wanted
  Kept<T> kept;

  // Work space. Those of a block have a row per (step, row) of the block, what is computed again per place (see Kept).
  T* dh;          // (B, O): the gradient of h, from the steps after
  T* dc;          // (B, H)
  T* dcell;       // (B, H): the gradient of h before its projection
  T* dinner;      // (B, H): of two-stage cells
  T* dgates;      // block: (slots * H), dgates_stride apart
  T* dprojected;  // block: (O), the whole gradient of what the projection makes, before the softmax
  T* inner;       // block: (H), what the second product multiplied
  T* saved;       // the recomputed values of a block
  T* c;           // and its c
  Factors<T> x_factors, h_factors, inner_factors;  // x, h of the step before, inner
  const T** c_rows[2];                             // with peepholes: c of the step before, c
  Weights<T> rests;                                // see Total
  T* dx_own;                                       // (total, I): where directions run at once, this one's part of dx
  int64_t* reversed;  // 4 lists of B: sequences, origins in x and y, places, from the last row to the first
};

template <class T>
struct BackwardLayer {
  Layer<T> forward;  // as it ran, for where things are and to recompute
  BackwardDirection<T> direction[2];
  Sequence<T> dx;  // data nullptr: not wanted
  int64_t* lists;  // per thread: list_size
  bool recompute;

  int64_t block_rows() const { return forward.block_rows(); }
  int64_t list_size() const { return 2 * forward.batch->size() + 2 * block_rows(); }
  bool concurrent() const { return forward.plan.directions > 1; }
};

// Work space of a layer, for at most `threads` threads.
template <class T>
void lay_out_backward(Arena& arena, BackwardLayer<T>& layer, bool with_dx, bool with_weights, int threads);

// One thread's part of the layer, all of its directions. dx is of the forward direction where directions run at once.
template <class T>
void run_backward(const BackwardLayer<T>& layer, int thread);

}  // namespace rnnkern
