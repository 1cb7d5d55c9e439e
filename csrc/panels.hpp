// The weights of one layer and direction as the kernels read them.
#pragma once

#include <cstdint>

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

// The sizes of one layer.
template <class T>
struct Shape {
  const Kernels<T>* kernels;
  const CellKernels<T>* cell;
  int64_t inputs, units, outputs;  // I, H, O
  bool projected;
  Coupling coupling;

  Shape(const Spec& spec, const KernelTable& table, int64_t layer);
  const CellInfo& info() const { return cell->info; }
  int64_t lanes() const { return kernels->lanes; }
  int64_t panels(int64_t columns) const { return divide_up(columns, lanes()); }
  int64_t padded(int64_t columns) const { return panels(columns) * lanes(); }
  int64_t stage_depth(int stage) const { return stage == 0 ? outputs : units; }
};

template <class T>
struct ForwardPanels {
  T* input;         // (H panels, I, G)
  T* recurrent[2];  // (H panels, stage depth, stage gates)
  T* projection;    // (O panels, H)
  T* bias;          // (H panels, G)
  T* params;        // (params, padded H)

  void lay_out(Arena&, const Shape<T>&);
  // Packs what belongs to some panels of hidden units; all of them together are everything.
  void pack(const Shape<T>&, const Weights<const T>&, Range panels) const;
};

// Transposed, for the gradients by the input, by h and by what is projected.
template <class T>
struct BackwardPanels {
  T* input;         // (I panels, G * H by slot); nullptr: not wanted
  T* recurrent[2];  // (stage depth panels, stage gates * H)
  T* projection;    // (H panels, P)
  T* params;

  void lay_out(Arena&, const Shape<T>&, bool with_input);
  // Thread `thread` of `team` packs its part.
  void pack(const Shape<T>&, const Weights<const T>&, const T* zeros, int thread, int team) const;
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
