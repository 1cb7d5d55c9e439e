// The weights of one layer and direction as the kernels read them.
#pragma once

#include <cstdint>

#include "batch.hpp"
#include "driver.hpp"
#include "kernels.hpp"
#include "ranges.hpp"
#include "workspace.hpp"

namespace rnnkern {

template <class T>
const Kernels<T>& kernels_of(const KernelTable& table) {
  if constexpr (sizeof(T) == 4)
    return table.f32;
  else
    return table.f64;
}

CellId cell_id(const Spec&);

// The rows of a gate (i is 0, f is 1, of the peepholes as of the gates) that is derived from the other one are ignored.
inline bool is_derived(Coupling coupling, int gate) {
  return (coupling == Coupling::input && gate == 0) || (coupling == Coupling::forget && gate == 1);
}

template <class T>
Panels<const T> read(Panels<T> panels) {
  return {panels.base, panels.count, panels.first, panels.group};
}

// Packed panels of so many gates, as the kernels take them, from panel `first` on.
template <class T>
Panels<T> grouped(T* base, int64_t count, int gates, int64_t first = 0) {
  return {base, count, first, kGroupPanels[gates]};
}

// The sizes of one layer.
template <class T>
struct Shape {
  const Kernels<T>* kernels;
  const CellKernels<T>* cell;
  int64_t inputs, units, outputs;  // I, H, O
  bool projected;                  // one more product makes the outputs, of size O, from h, of size H
  bool biased, softmax;            // and then
  Coupling coupling;

  Shape(const Spec& spec, const KernelTable& table, int64_t layer);
  const CellInfo& info() const { return cell->info; }
  int64_t lanes() const { return kernels->lanes; }
  int64_t panels(int64_t columns) const { return divide_up(columns, lanes()); }
  int64_t padded(int64_t columns) const { return panels(columns) * lanes(); }
  int64_t stage_depth(int stage) const { return stage == 0 ? outputs : units; }
  int64_t input_width() const { return info().gates * lanes(); }  // of a panel of the input product
  int64_t input_panel() const { return inputs * input_width(); }  // elements of a panel of the input weights
  // From one row to the next: an odd number of cache lines, so that a column is spread over a cache.
  static int64_t spread(int64_t columns) {
    constexpr int64_t line = 64 / sizeof(T);
    return (divide_up(columns, line) | 1) * line;
  }
  int64_t dgates_stride() const { return spread(info().slots * units); }
  int64_t stage_panel(int stage) const { return stage_depth(stage) * info().stage[stage].gates * lanes(); }
};

template <class T>
struct ForwardPanels {
  T* input;         // (H panels, I, G), or nullptr: used as they are
  T* recurrent[2];  // (H panels, stage depth, stage gates), or nullptr
  T* projection;    // (O panels, H)
  T* bias;          // (H panels, G)
  T* output_bias;   // (padded O), or nullptr
  T* params;        // (params, padded H)
  const T *plain_input, *plain_recurrent[2];

  void lay_out(Arena&, const Shape<T>&);
  // For one call: weights that few rows are multiplied with, once, are used as they are.
  void lay_out(Arena&, const Shape<T>&, const Weights<const T>&, const Batch&);

  Panels<T> input_at(const Shape<T>& shape, int64_t panel) const {
    return grouped(input, shape.panels(shape.units), shape.info().gates, panel);
  }
  GateWeights<T> recurrent_at(const Shape<T>& shape, int stage, int64_t panel) const {
    const T* plain = plain_recurrent[stage];
    return {read(grouped(recurrent[stage], shape.panels(shape.units), shape.info().stage[stage].gates, panel)),
            plain ? plain + panel * shape.lanes() * shape.stage_depth(stage) : nullptr};
  }
  Panels<T> projection_at(const Shape<T>& shape, int64_t panel) const {
    return grouped(projection, shape.panels(shape.outputs), 1, panel);
  }
  // Packs what belongs to some panels of hidden units, the input weights to `input_to`; all of them together are
  // everything.
  void pack(const Shape<T>&, const Weights<const T>&, Range panels, Panels<T> input_to) const;
  void pack(const Shape<T>& shape, const Weights<const T>& weights, Range panels) const {
    pack(shape, weights, panels, input_at(shape, panels.first));
  }

 private:
  void lay_out(Arena&, const Shape<T>&, const T* plain_ih, const T* plain_hh);
};

// Transposed, for the gradients by the input, by h and by what is projected. For these the weights as they are have the
// rows that a panel needs, only further apart: where that is not far, or they are seldom read, they are not worth
// packing.
template <class T>
class BackwardPanels {
 public:
  void lay_out(Arena&, const Shape<T>&, const Weights<const T>&, bool with_input, const Batch&);
  // Thread `thread` of `team` packs its part.
  void pack(const Shape<T>&, const T* zeros, int thread, int team) const;

  // From a panel on.
  Panels<const T> input(int64_t first) const { return at(input_, first); }  // (I panels, G * H by slot)
  Panels<const T> recurrent(int stage, int64_t first) const {               // (stage depth panels, stage gates * H)
    return at(recurrent_[stage], first);
  }
  Panels<const T> projection(int64_t first) const { return at(projection_, first); }  // (H panels, P)
  const T* params() const { return params_; }

 private:
  struct Matrix {
    T* packed;  // nullptr: as they are, or not wanted
    Panels<const T> panels;
  };
  static Panels<const T> at(const Matrix& matrix, int64_t first) {
    Panels<const T> panels = matrix.panels;
    panels.first = first;
    return panels;
  }

  Weights<const T> weights_{};
  Matrix input_{}, recurrent_[2]{}, projection_{};
  T* params_ = nullptr;
};

template <class T>
class Packed {
 public:
  Packed(const Spec&, const KernelTable&, const Weights<const T>* weights, int threads);
  const ForwardPanels<T>& part(int64_t index) const { return parts_[index]; }

 private:
  std::vector<ForwardPanels<T>> parts_;
  Block block_;
};

}  // namespace rnnkern
