// The products of matrices outside the steps, and the column sums of the biases.
#pragma once

#include "step.hpp"

namespace rnnkern {
namespace {

template <class T, int G>
void input_product(const InputProduct<T>& product) {
  constexpr int L = kLanes<T>;
  const auto add_bias = [&](int64_t first_row, int rows, int64_t panel, int panels, const T* tile) {
    for (int r = 0; r < rows; ++r) {
      T* out = row_of(product.out, first_row + r) + panel * G * L;
      const T* bias = product.bias + panel * G * L;
      for (int i = 0; i < panels * G * L; i += L) store(out + i, load(tile + r * panels * G * L + i) + load(bias + i));
    }
  };
  multiply_gates<G, T>(
      product.rows, product.first_panel, product.panels, product.units, product.depth, Order::ascending,
      [&](int64_t row) { return row_of(product.a, row); }, product.weights, add_bias);
}

template <class T>
void linear_product(const LinearProduct<T>& product) {
  constexpr int L = kLanes<T>;
  const auto finish = [&](int64_t first_row, int rows, int64_t first_panel, int panels, const T* tile) {
    for (int r = 0; r < rows; ++r)
      for (int p = 0; p < panels; ++p) {
        const int64_t column = (product.weights.first + first_panel + p) * L, count = product.width - column;
        T* out = row_of(product.out, first_row + r) + column;
        Vector<T> sum = load(tile + (r * panels + p) * L);
        if (product.bias) sum += load(product.bias + column);
        store(out, product.add ? load(out, count) + sum : sum, count);
      }
  };
  multiply<1, T>(
      product.rows, product.panels, product.depth, product.order, [&](int64_t row) { return row_of(product.a, row); },
      1, product.weights, InTile{}, finish);
}

// Rows of the result at a time, whose factors stay in a cache meanwhile.
template <class T>
constexpr int kOuterRows = 16 * TileShape<1>::max_rows;

template <class T>
void outer_product(const OuterProduct<T>& product) {
  constexpr int L = kLanes<T>;
  for (int64_t first = 0; first < product.rows;) {
    const int rows = next_block(product.rows - first, kOuterRows<T>);
    const auto element = [&](int64_t row, int64_t panel) {
      return product.out + (first + row) * product.out_stride + panel * L;
    };
    // Calls visit(place in the tile, place in the result, columns there) for the vectors of a tile, unless these are
    // all whole: such a tile has its place in the result.
    const auto in_part = [&](int64_t first_row, int row_count, int64_t first_panel, int panel_count, auto visit) {
      if ((first_panel + panel_count) * L <= product.width) return false;
      for (int r = 0; r < row_count; ++r)
        for (int p = 0; p < panel_count; ++p)
          visit((r * panel_count + p) * L, element(first_row + r, first_panel + p),
                product.width - (first_panel + p) * L);
      return true;
    };
    const auto place = [&](int64_t first_row, int row_count, int64_t first_panel, int panel_count, T* tile,
                           int64_t stride) -> Tile<T> {
      if (product.resume)  // Those of the tile below, which come from afar, meanwhile.
        for (int r = row_count; r < 2 * row_count && first_row + r < rows; ++r)
          for (int p = 0; p < panel_count; ++p) __builtin_prefetch(element(first_row + r, first_panel + p), 1);
      const bool part =
          in_part(first_row, row_count, first_panel, panel_count, [&](int at, const T* out, int64_t count) {
            if (product.resume) store(tile + at, load(out, count));
          });
      return part ? Tile<T>{tile, stride, product.resume}
                  : Tile<T>{element(first_row, first_panel), product.out_stride, product.resume};
    };
    const auto finish = [&](int64_t first_row, int row_count, int64_t first_panel, int panel_count, const T* tile) {
      in_part(first_row, row_count, first_panel, panel_count,
              [&](int at, T* out, int64_t count) { store(out, load(tile + at), count); });
    };
    multiply<1, T>(
        rows, (product.width + L - 1) / L, product.depth, Order::ascending,
        [&](int64_t row) { return product.a + first + row; }, product.a_stride, product.b, place, finish);
    first += rows;
  }
}

// The sum of 2^level rows from `row` on, of halves. N vectors of columns, the last of them with what is left of `count`
// elements.
template <class T, int N, int level>
RNNKERN_INLINE void sum_rows(const ColumnSum<T>& sum, int64_t row, int64_t column, int64_t count, Vector<T>* out) {
  constexpr int L = kLanes<T>;
  if constexpr (level > 0) {
    Vector<T> half[N];
    sum_rows<T, N, level - 1>(sum, row, column, count, out);
    sum_rows<T, N, level - 1>(sum, row + (1 << (level - 1)), column, count, half);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) out[i] += half[i];
  } else {
    const T* const a = row_of(sum.a, row) + column;
    const T* const b = sum.b ? sum.b[row] + sum.first + column : nullptr;
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      out[i] = load(a + i * L, count - i * L);
      if (b) out[i] *= load(b + i * L, count - i * L);
    }
  }
}

template <class T, int N>
RNNKERN_INLINE void sum_columns(const ColumnSum<T>& sum, int64_t column, int64_t count) {
  constexpr int L = kLanes<T>, levels = 3;
  Vector<T> total[N], error[N], term[N];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) {
    total[i] = sum.resume ? load(sum.out + column + i * L, count - i * L) : Vector<T>{};
    error[i] = sum.resume ? load(sum.error + column + i * L, count - i * L) : Vector<T>{};
  }
  const auto add = [&] {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) error[i] += add_exactly<T>(total[i], term[i]);
  };
  int64_t row = 0;
  for (; row + (1 << levels) <= sum.rows; row += 1 << levels) {
    sum_rows<T, N, levels>(sum, row, column, count, term);
    add();
  }
  for (; row < sum.rows; ++row) {
    sum_rows<T, N, 0>(sum, row, column, count, term);
    add();
  }
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) {
    error[i] = add_exactly<T>(total[i], error[i]);
    store(sum.out + column + i * L, one_nan<T>(total[i]), count - i * L);
    store(sum.error + column + i * L, error[i], count - i * L);
  }
}

template <class T>
void column_sum(const ColumnSum<T>& sum) {
  constexpr int L = kLanes<T>;
  int64_t column = 0;
  for (; column + 4 * L <= sum.width; column += 4 * L) sum_columns<T, 4>(sum, column, 4 * L);
  for (; column < sum.width; column += L) sum_columns<T, 1>(sum, column, sum.width - column);
}

// A sum of sums: `part` keeps what each addition rounds off, and the next one begins with it.
template <class T>
void add_part(const PartSum<T>& sum) {
  for (int64_t i = 0; i < sum.count; i += kLanes<T>) {
    const int64_t count = sum.count - i;
    Vector<T> total = sum.resume ? load(sum.total + i, count) : Vector<T>{};
    const Vector<T> error = add_exactly<T>(total, load(sum.part + i, count));
    store(sum.total + i, one_nan<T>(total), count);
    store(sum.part + i, error, count);
  }
}

template <class T>
void pack_columns(const PackColumns<T>& pack) {
  constexpr int L = kLanes<T>;
  const bool far = !fits_own_cache<T>(pack.gates * pack.units * pack.depth);
  for (int64_t panel = pack.first_panel; panel < pack.first_panel + pack.panels; ++panel) {
    const Stream<T> out = from_panel(pack.out, pack.gates, pack.depth, panel - pack.first_panel).operand;
    const int64_t count = pack.units - panel * L;
    for (int gate = 0; gate < pack.gates; ++gate) {
      const T* rows = pack.weights + (gate * pack.units + panel * L) * pack.depth;
      for (int64_t k = 0; k < pack.depth; k += L) {
        if (far) prefetch_square(rows + k, pack.depth);
        transpose_square(rows + k, pack.depth, count, pack.depth - k, out.base + k * out.step + gate * L, out.step);
      }
    }
  }
}

template <class T>
void pack_rows(const PackRows<T>& pack) {
  constexpr int L = kLanes<T>, kRows = 16;  // at a time, which stay in a cache from one group of panels to the next
  for (int64_t k = 0; k < pack.count; k += kRows)
    for (int64_t p = 0, panels; p < pack.panels; p += panels) {
      const auto to = from_panel(pack.out, 1, pack.panel_depth, p);
      panels = smaller(to.count, pack.panels - p);
      const int64_t column = (pack.out.first + p) * L;
      for (int64_t row = k; row < smaller(k + kRows, pack.count); ++row) {
        const T* from = row_of(pack.rows, row) + column;
        T* out = to.operand.base + (pack.first_depth + row) * to.operand.step;
        for (int64_t i = 0; i < panels; ++i) store(out + i * L, load(from + i * L, pack.width - column - i * L));
      }
    }
}

template <class T>
void evaluate(MathFunction function, const T* x, T* y, int64_t count) {
  const auto each = [&](auto f) {
    for (int64_t i = 0; i < count; i += kLanes<T>) store(y + i, f(load(x + i, count - i)), count - i);
  };
  switch (function) {
    case MathFunction::exp:
      return each([](Vector<T> v) { return exp<T>(v); });
    case MathFunction::sigmoid:
      return each([](Vector<T> v) { return sigmoid<T>(v); });
    case MathFunction::tanh:
      return each([](Vector<T> v) { return tanh<T>(v); });
  }
}

}  // namespace
}  // namespace rnnkern
