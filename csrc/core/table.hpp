// The kernel table of the instruction set that this file is compiled for.
#pragma once

#include "cross_entropy.hpp"
#include "probe.hpp"
#include "products.hpp"

namespace rnnkern {
namespace {

template <class Entry>
constexpr CellKernels<typename Entry::Element> cell_kernels() {
  using T = typename Entry::Element;
  constexpr CellInfo info = Entry::Cell::info;
  static_assert(info.gates <= kMostGates && info.slots <= kMostGates && info.saved <= kMostGates,
                "more than have room");
  if constexpr (info.stages == 1)
    return {info, input_product<T, info.gates>, {step_forward<Entry, 0>, nullptr}, {step_backward<Entry, 0>, nullptr}};
  else
    return {info,
            input_product<T, info.gates>,
            {step_forward<Entry, 0>, step_forward<Entry, 1>},
            {step_backward<Entry, 0>, step_backward<Entry, 1>}};
}

template <class... Entry>
constexpr bool in_order() {
  int next = 0;
  return ((static_cast<int>(Entry::id) == next++) && ...);
}

template <class T, class... Entry>
constexpr Kernels<T> make_kernels(List<Entry...>) {
  static_assert(sizeof...(Entry) == kCellCount && in_order<Entry...>(), "an entry for each CellId, in its order");
  return {kLanes<T>,
          TileShape<4>::max_rows,
          {cell_kernels<Entry>()...},
          linear_product<T>,
          outer_product<T>,
          column_sum<T>,
          add_part<T>,
          pack_columns<T>,
          pack_rows<T>,
          evaluate<T>,
          {softmax_block<T>, softmax_merge<T>, softmax_gradient<T>, softmax_rows<T>, softmax_rows_gradient<T>},
          {ThroughputProbe<T>::chains, kReadBlock<T>, ThroughputProbe<T>::run, multiply_add_chain<T>,
           activation_chain<T>, read<T>}};
}

constexpr KernelTable make_table() {
  return {make_kernels<float>(Cells<float>()), make_kernels<double>(Cells<double>())};
}

}  // namespace
}  // namespace rnnkern
