// A step of a cell on register tiles: the product with the recurrent weights and, on the hot tile, the cell itself.
#pragma once

#include "../cells/list.hpp"
#include "../kernels.hpp"
#include "gemm.hpp"

namespace rnnkern {
namespace {

template <class T>
RNNKERN_INLINE T* row_of(const Rows<T>& rows, int64_t i) {
  return rows.base + (rows.index ? rows.index[i] : i) * rows.stride;
}

template <class Entry, int stage>
void step_forward(const StepForward<typename Entry::Element>& step) {
  using T = typename Entry::Element;
  using Cell = typename Entry::Cell;
  constexpr CellInfo info = Cell::info;
  constexpr int G = info.stage[stage].gates, L = kLanes<T>;
  constexpr bool last = stage == info.stages - 1;
  const typename Entry::Nonlinearity f(step.options);

  const auto cell = [&](int64_t first_row, int rows, int64_t first_panel, int panels, const T* tile) {
    for (int r = 0; r < rows; ++r) {
      const int64_t row = first_row + r;
      const T* input = row_of(step.input, row);
      const T* h_previous = row_of(step.h_previous, row);
      const T* c_previous = info.cell_state ? row_of(step.c_previous, row) : nullptr;
      T* saved = step.saved.base ? row_of(step.saved, row) : nullptr;
      for (int p = 0; p < panels; ++p) {
        const int64_t panel = first_panel + p, unit = (step.first_panel + panel) * L, count = step.units - unit;
        Units<T> u{};
#pragma GCC unroll 4
        for (int g = 0; g < info.gates; ++g) u.x[g] = load(input + (panel * info.gates + g) * L);
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) u.r[g] = load(tile + ((r * panels + p) * G + g) * L);
#pragma GCC unroll 4
        for (int i = 0; i < info.params; ++i) u.param[i] = load(step.params + i * step.params_stride + unit);
        if (info.reads_h_previous) u.h_previous = load(h_previous + unit, count);
        if (info.cell_state) u.c_previous = load(c_previous + unit, count);
        if (stage > 0)
          for (int i = 0; i < info.saved; ++i) u.saved[i] = load(saved + i * step.units + unit, count);
        Cell::template forward<stage>(f, u);
        if (saved)
#pragma GCC unroll 4
          for (int i = 0; i < info.saved; ++i) store(saved + i * step.units + unit, u.saved[i], count);
        if (last) {
          if (info.cell_state) store(row_of(step.c, row) + unit, u.c, count);
          store(row_of(step.h, row) + unit, u.h, count);
        } else {
          store(row_of(step.inner, row) + unit, u.inner, count);
        }
      }
    }
  };
  multiply_gates<G, T>(
      step.rows, step.first_panel, step.panels, step.units, step.depth, step.order,
      [&](int64_t row) { return row_of(step.factors, row); }, step.weights, cell);
}

template <class Entry, int stage>
void step_backward(const StepBackward<typename Entry::Element>& step) {
  using T = typename Entry::Element;
  using Cell = typename Entry::Cell;
  constexpr CellInfo info = Cell::info;
  constexpr int L = kLanes<T>;
  constexpr bool last = stage == info.stages - 1;
  const typename Entry::Nonlinearity f(step.options);

  for (int64_t row = 0; row < step.rows; ++row) {
    const T* saved = step.saved.base ? row_of(step.saved, row) : nullptr;
    const T* dy = last && step.dy.base ? row_of(step.dy, row) : nullptr;
    T* dgates = row_of(step.dgates, row);
    T* dh = row_of(step.dh, row);
    for (int64_t panel = step.first_panel; panel < step.first_panel + step.panels; ++panel) {
      const int64_t unit = panel * L, count = step.units - unit;
      Units<T> u{};
#pragma GCC unroll 4
      for (int i = 0; i < info.saved; ++i) u.saved[i] = load(saved + i * step.units + unit, count);
#pragma GCC unroll 4
      for (int i = 0; i < info.params; ++i) u.param[i] = load(step.params + i * step.params_stride + unit);
      if (info.reads_h_previous) u.h_previous = load(row_of(step.h_previous, row) + unit, count);
      if (info.reads_h) u.h = load(row_of(step.h, row) + unit, count);
      if (info.cell_state) {
        u.c_previous = load(row_of(step.c_previous, row) + unit, count);
        u.c = load(row_of(step.c, row) + unit, count);
        u.dc = load(row_of(step.dc, row) + unit, count);
      }
      u.dh = load(dh + unit, count);
      if (dy) u.dh += load(dy + unit, count);
      if (!last) u.dinner = load(row_of(step.dinner, row) + unit, count);
      Cell::template backward<stage>(f, u);
      store(dh + unit, u.dh, count);
      if (info.cell_state) store(row_of(step.dc, row) + unit, u.dc, count);
      if (stage == 0 && step.inner.base) store(row_of(step.inner, row) + unit, u.inner, count);
#pragma GCC unroll 4
      for (int i = 0; i < info.slots; ++i)
        if (info.stage[stage].made >> i & 1) store(dgates + i * step.units + unit, u.dgate[i], count);
    }
  }
}

}  // namespace
}  // namespace rnnkern
