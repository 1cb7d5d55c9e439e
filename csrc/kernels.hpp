// What one instruction set offers: a table of functions on plain structs. Panels, in all of them, are blocks of `lanes`
// columns of a matrix, those of several gates interleaved, zeros beyond the last column. A packed matrix has them in
// groups, the last of which has what is left: [group][k][panel][gate][lane]. So a tile of few rows, which is as wide as
// a group, reads one stream.
#pragma once

#include "types.hpp"

namespace rnnkern {

// Panels in a group, by gates: as many sums at the same time, at least, as read weights as fast as a second cache gives
// them.
constexpr int kGroupPanels[] = {0, 4, 4, 4, 2};

// The cells, as compiled: the usual options fused, everything else on the general path.
enum class CellId : int {
  rnn_tanh,
  rnn_relu,
  rnn_identity,
  rnn_general,
  lstm,
  lstm_peephole,
  lstm_coupled_input,
  lstm_coupled_forget,
  lstm_general,
  gru_reset_after,
  gru_reset_after_general,
  gru_reset_before,
  gru_reset_before_general,
  jordan,
  jordan_general,
  count,
};
constexpr int kCellCount = static_cast<int>(CellId::count);

// One product of a step with the recurrent weights: what it multiplies and where its gradients are.
struct StageInfo {
  int first_gate;  // rows of weight_hh, in units of hidden_size
  int gates;
  int first_slot;  // slots [first_slot, first_slot + gates) of the gradient belong to these rows, in order
  unsigned made;   // the slots, as bits, that the stage's point-wise gradient makes
};

// A peephole adds its weight times c to a gate.
struct Peephole {
  int slot;    // of the gate's gradient
  bool new_c;  // c of this step, else of the one before
};

// The most gates, slots and saved values of a cell.
constexpr int kMostGates = 4;

// A cell's sizes, per hidden unit. The gradient of the pre-activations is a matrix of `slots` blocks of hidden_size
// columns; the first `gates` slots are those of the input product.
struct CellInfo {
  const char* family;  // the name of the NumPy twin
  int gates;           // rows of weight_ih
  int saved;           // values kept for backward, besides h and c
  int slots;
  int slot_gate[kMostGates];  // the gate (rows of weight_ih) whose gradient slot i is, for i < gates
  int stages;                 // products a step: the second one multiplies `inner`, which the first one made
  StageInfo stage[2];
  int param_gate;                  // the gate whose bias_hh is params[0] instead of a part of the bias; -1: none
  Peephole peephole[3];            // of params, where they are peepholes
  int params;                      // vectors of hidden_size: GRU the recurrent bias of n, peephole LSTM i, f, o
  bool cell_state;                 // the state is (h, c)
  bool reads_h_previous, reads_h;  // point-wise, forward and backward; backward only
};

// The panels of a matrix from `first` on, of `count` in all, in groups of `group`. The rows of a matrix of whole
// vectors are, as they are, one group.
template <class T>
struct Panels {
  T* base;  // panel 0
  int64_t count, first, group;
};

// Panels of a matrix whose rows lie anywhere: `stride` elements from one panel of a row to the next, panel 0 at
// `first`.
template <class T>
struct PanelRows {
  const T* const* rows;
  int64_t first, stride;
};

// Weights of some gates, (gates * units, depth).
template <class T>
struct GateWeights {
  Panels<const T> packed;
  const T* plain;  // or rows, as they are, from the first unit that is wanted, which is worth it for at most
                   // `plain_rows` rows of factors; nullptr: packed
};

// In which order a product reads its groups of panels. The same weights, read again and again, do best by turns: what a
// cache still holds of the last time is then read first, and not displaced before it is.
enum class Order : bool { ascending, descending };
inline Order turn(int64_t step) { return step & 1 ? Order::descending : Order::ascending; }

// One stage of one step, for `rows` sequences and panels [first_panel, first_panel + panels) of hidden units.
template <class T>
struct StepForward {
  int64_t rows, first_panel, panels, units, depth;
  Rows<const T> factors;  // (rows, depth): h of the step before, or `inner` in the second stage
  GateWeights<T> weights;
  Order order;
  Rows<const T> input;  // the input product: [panel - first_panel][gate][lane]
  const T* params;      // [param][unit], each padded to whole panels; `params_stride` apart
  int64_t params_stride;
  Rows<const T> h_previous, c_previous;
  Rows<T> h, c;
  Rows<T> saved;  // [value][unit]; base nullptr: not kept
  Rows<T> inner;  // r * h, of two-stage cells
  const CellOptions* options;
};

// The point-wise gradient of one stage of one step.
template <class T>
struct StepBackward {
  int64_t rows, first_panel, panels, units;
  const T* params;
  int64_t params_stride;
  Rows<const T> h_previous, c_previous, h, c, saved;
  Rows<const T> dy;  // base nullptr: zeros
  Rows<T> dh;        // in: the gradient from the step after; out: what reaches h_previous other than through the gates
  Rows<T> dc;        // in and out
  Rows<T> dgates;    // [slot][unit]
  Rows<const T> dinner;  // of the second stage, read by the first
  Rows<T> inner;         // r * h again, or h before its projection, for the weight gradients; base nullptr: not wanted
  const CellOptions* options;
};

// out = a . weights + bias, [panel - first_panel][gate][lane] a row, for panels [first_panel, first_panel + panels) of
// hidden units.
template <class T>
struct InputProduct {
  int64_t rows, first_panel, panels, units, depth;
  Rows<const T> a;
  GateWeights<T> weights;
  const T* bias;  // as a row of out
  Rows<T> out;
};

// out = a . weights + bias, or out += a . weights, on the columns of `panels` panels, the weights' first ones.
template <class T>
struct LinearProduct {
  int64_t rows, depth, panels, width;
  Rows<const T> a;
  Panels<const T> weights;
  Rows<T> out;  // (rows, width)
  bool add;
  const T* bias = nullptr;  // (width), padded to whole panels; nullptr: none
  Order order = Order::ascending;
};

// out (rows, width) = a^T b, or out += a^T b. The sums over the positions are of short sums, in order.
template <class T>
struct OuterProduct {
  int64_t rows, width, depth;
  const T* a;  // (depth, rows)
  int64_t a_stride;
  PanelRows<T> b;  // (depth, width)
  T* out;
  int64_t out_stride;
  bool resume;
};

// out[j] = sum over rows of a[j], or of a[j] * b[first + j] where b is given, or its continuation;
// error[j] = what rounding took from it.
template <class T>
struct ColumnSum {
  int64_t rows, width;
  Rows<const T> a;
  const T* const* b;  // a pointer for each row
  int64_t first;
  T *out, *error;
  bool resume;
};

// total = part, or total += part; then part = what that rounded off.
template <class T>
struct PartSum {
  int64_t count;
  T *total, *part;
  bool resume;
};

// Panels of a matrix whose columns are contiguous in memory (weights, forward): column (gate, unit) of the panels is
// row first_gate + gate, unit of `weights` (gates * units, depth).
template <class T>
struct PackColumns {
  const T* weights;
  int64_t units, depth;
  int gates;
  int64_t first_panel, panels;
  Panels<T> out;  // first_panel comes first
};

// Panels of one gate of a matrix whose rows are contiguous, the first ones of `out`; row k goes to depth
// first_depth + k of panels of panel_depth.
template <class T>
struct PackRows {
  Rows<const T> rows;
  int64_t count, width;
  int64_t first_depth, panel_depth;
  int64_t panels;
  Panels<T> out;
};

// Logits stand transposed: a row for each class, a column for each position, `width` columns in whole vectors. A block
// is some of the classes; `bias` is theirs, nullptr: none. x = logits + bias.

// largest[column] = max x, at least the lowest finite number, and sum[column] = sum of exp(x - largest).
template <class T>
struct SoftmaxBlock {
  int64_t rows, width;
  const T* logits;
  int64_t stride;
  const T* bias;
  T *largest, *sum;
};

// The same of all blocks together, from theirs, (blocks, width); comes to stand in the first row.
template <class T>
struct SoftmaxMerge {
  int64_t blocks, width, stride;
  T *largest, *sum;
};

// logits = exp(x - largest) * factor, less `scale` in the row of a column's target; bias_gradient[row] = their sum, or
// its continuation. factor[column] is scale / sum, and zero beyond the last position.
template <class T>
struct SoftmaxGradient {
  int64_t rows, width;
  T* logits;
  int64_t stride;
  const T *bias, *largest, *factor;
  const int64_t* targets;  // `positions` classes, the block's own from first_class
  int64_t positions, first_class;
  T scale;
  T* bias_gradient;  // nullptr: not wanted
  bool resume;
};

// x = softmax(x) of each row, in place.
template <class T>
struct SoftmaxRows {
  int64_t first_row, last_row, width;
  Rows<T> x;
};

// The gradient by what y is the softmax of, in the place of that by y.
template <class T>
struct SoftmaxRowsGradient {
  int64_t first_row, last_row, width;
  Rows<const T> y;
  Rows<T> dy;
};

enum class MathFunction : int { exp, sigmoid, tanh };

template <class T>
struct CellKernels {
  CellInfo info;
  void (*input)(const InputProduct<T>&);
  void (*forward[2])(const StepForward<T>&);
  void (*backward[2])(const StepBackward<T>&);  // second stage first
};

// Loops that `probes.cpp` times; each returns a value that depends on all it did.
template <class T>
struct Probes {
  int chains;          // of `multiply_adds`, a vector each
  int64_t read_block;  // `read` reads multiples of so many elements
  T (*multiply_adds)(T factor, T term, int64_t rounds);
  T (*multiply_add_chain)(T factor, T term, int64_t rounds);
  T (*activation_chain)(MathFunction, T start, int64_t rounds);
  T (*read)(const T* from, int64_t count, int64_t passes);
};

template <class T>
struct SoftmaxKernels {
  void (*block)(const SoftmaxBlock<T>&);
  void (*merge)(const SoftmaxMerge<T>&);
  void (*gradient)(const SoftmaxGradient<T>&);
  void (*rows)(const SoftmaxRows<T>&);
  void (*rows_gradient)(const SoftmaxRowsGradient<T>&);
};

template <class T>
struct Kernels {
  int lanes;
  int plain_rows;
  CellKernels<T> cells[kCellCount];
  void (*linear)(const LinearProduct<T>&);
  void (*outer)(const OuterProduct<T>&);
  void (*column_sum)(const ColumnSum<T>&);
  void (*add_part)(const PartSum<T>&);
  void (*pack_columns)(const PackColumns<T>&);
  void (*pack_rows)(const PackRows<T>&);
  void (*evaluate)(MathFunction, const T* x, T* y, int64_t count);
  SoftmaxKernels<T> softmax;
  Probes<T> probes;
};

struct KernelTable {
  Kernels<float> f32;
  Kernels<double> f64;
};

extern const KernelTable kernels_baseline, kernels_avx2, kernels_avx2_wide, kernels_avx512, kernels_neon;

}  // namespace rnnkern
