// The micro-kernel that every product of matrices runs through, and the loop of register tiles around it.
//
// Start reading at `multiply_tile`: all the rest is the same sum, blocked for registers. An element of the result is
//     sum over k, in order, of a[row][k] * b[k][column]
// accumulated by multiply_add in one lane of one register, so its bits depend on nothing but its row and its column.
// Where k runs over positions, of which there may be many, kTerms of them at a time make a sum, and these are added.
#pragma once

#include <utility>

#include "../kernels.hpp"
#include "sums.hpp"
#include "transpose.hpp"

namespace rnnkern {
namespace {

// A tile's panels, side by side: `step` elements from one k to the next.
template <class T>
struct Stream {
  T* base;
  int64_t step;
};

// Where the vectors of P panels of G are, at one k after the other, and whether k runs over positions: then the tiles
// may have their place outside of `multiply`.
template <class B, int G, int P>
class Walk;
template <class T, int G, int P>
class Walk<Stream<const T>, G, P> {
 public:
  static constexpr bool positions = false;
  RNNKERN_INLINE explicit Walk(const Stream<const T>& stream) : at_(stream.base), step_(stream.step) {}
  RNNKERN_INLINE const T* vector(int c) const { return at_ + c * kLanes<T>; }
  RNNKERN_INLINE void next() { at_ += step_; }

 private:
  const T* at_;
  const int64_t step_;
};
template <class T, int G, int P>
class Walk<PanelRows<T>, G, P> {
 public:
  static constexpr bool positions = true;
  RNNKERN_INLINE explicit Walk(const PanelRows<T>& panels)
      : row_(panels.rows), first_(panels.first), stride_(panels.stride) {}
  RNNKERN_INLINE const T* vector(int c) const { return *row_ + first_ + c / G * stride_ + c % G * kLanes<T>; }
  RNNKERN_INLINE void next() { ++row_; }

 private:
  const T* const* row_;
  const int64_t first_, stride_;
};

// Terms of a sum over positions: few, so that its error is small.
constexpr int64_t kTerms = 128;

// Where the sums of a tile come to stand: its rows, `stride` elements apart. With `resume` they go on from what is
// there, or, over positions, are added to it. Products that are not in place have dense tiles.
template <class T>
struct Tile {
  T* base;
  int64_t stride;
  bool resume;
};

// sum[r][c] += row[r][k * step] * vector c, for the next `terms` k from `offset` = k * step on.
template <class T, class B, int G, int R, int P>
RNNKERN_INLINE void add_products(int64_t terms, const T* const (&row)[R], int64_t step, int64_t& offset,
                                 Walk<B, G, P>& walk, Vector<T> (&sum)[R][P * G]) {
  for (int64_t k = 0; k < terms; ++k, offset += step, walk.next()) {
    // The shorter side of the tile waits in registers, the other one passes.
    if constexpr (R <= P * G) {
      Vector<T> factor[R];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) factor[r] = broadcast<T>(row[r][offset]);
#pragma GCC unroll 16
      for (int c = 0; c < P * G; ++c) {
        Vector<T> weight = load(walk.vector(c));
        if constexpr (R > 1) RNNKERN_IN_REGISTER(weight);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) sum[r][c] = multiply_add(factor[r], weight, sum[r][c]);
      }
    } else {
      Vector<T> weight[P * G];
#pragma GCC unroll 16
      for (int c = 0; c < P * G; ++c) {
        weight[c] = load(walk.vector(c));
        RNNKERN_IN_REGISTER(weight[c]);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Vector<T> factor = broadcast<T>(row[r][offset]);
#pragma GCC unroll 16
        for (int c = 0; c < P * G; ++c) sum[r][c] = multiply_add(factor, weight[c], sum[r][c]);
      }
    }
  }
}

// A tile has R rows and P panels of G vectors. `b` begins with the first panel.
// a[r] + k * step is the factor of row r.
template <class T, class B, int G, int R, int P>
void multiply_tile(int64_t depth, const T* const* a, int64_t step, const B& b, const Tile<T>& tile) {
  constexpr int L = kLanes<T>;
  constexpr bool positions = Walk<B, G, P>::positions;
  const int64_t stride = positions ? tile.stride : P * G * L;
  const T* row[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) row[r] = a[r];
  Walk<B, G, P> walk(b);
  bool resume = tile.resume;
  int64_t left = depth, offset = 0;
  do {
    const int64_t terms = positions && left > kTerms ? kTerms : left;
    Vector<T> sum[R][P * G];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int c = 0; c < P * G; ++c) sum[r][c] = Vector<T>{};
    if (!positions && resume)
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
        for (int c = 0; c < P * G; ++c) sum[r][c] = load(tile.base + r * stride + c * L);
    add_products(terms, row, step, offset, walk, sum);
    T* to = tile.base;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r, to += stride)
#pragma GCC unroll 16
      for (int c = 0; c < P * G; ++c) {
        if (positions && resume) sum[r][c] += load(to + c * L);
        store(to + c * L, one_nan<T>(sum[r][c]));
      }
    left -= terms;
    resume = true;
  } while (positions && left > 0);
}

// Tile sizes: as many accumulators as the registers hold beside one row of factors and a weight, within a group of
// panels.
template <int G>
struct TileShape {
  static constexpr int accumulators = kRegisters == 32 ? 24 : 12;
  static constexpr int max_rows = accumulators / (G == 1 ? 4 : G) < 8 ? accumulators / (G == 1 ? 4 : G) : 8;
  static constexpr int max_panels = kGroupPanels[G];
  // Panels side by side for a tile of `rows` rows.
  static constexpr int panels(int rows) {
    const int fit = accumulators / (rows * G);
    return fit < 1 ? 1 : (fit < max_panels ? fit : max_panels);
  }
};

template <class T, class B>
using TileFunction = void (*)(int64_t depth, const T* const* a, int64_t step, const B& b, const Tile<T>& tile);

// The tile functions [rows - 1][panels - 1] of one G.
template <class T, class B, int G>
struct TileTable {
  static constexpr int rows = TileShape<G>::max_rows, panels = TileShape<G>::max_panels;

  template <int R, int P>
  static constexpr TileFunction<T, B> pick() {
    if constexpr (P <= TileShape<G>::panels(R))
      return multiply_tile<T, B, G, R, P>;
    else
      return nullptr;
  }
  struct Entries {
    TileFunction<T, B> at[rows][panels];
  };
  template <int R, int... P>
  static constexpr void fill_row(Entries& entries, std::integer_sequence<int, P...>) {
    ((entries.at[R][P] = pick<R + 1, P + 1>()), ...);
  }
  template <int... R>
  static constexpr Entries fill(std::integer_sequence<int, R...>) {
    Entries entries{};
    (fill_row<R>(entries, std::make_integer_sequence<int, panels>()), ...);
    return entries;
  }
  static constexpr Entries entries = fill(std::make_integer_sequence<int, rows>());
};

template <int G, class T, class B>
RNNKERN_INLINE void fill_tile(int rows, int panels, int64_t depth, const T* const* a, int64_t step, const B& b,
                              const Tile<T>& tile) {
  TileTable<T, B, G>::entries.at[rows - 1][panels - 1](depth, a, step, b, tile);
}

// The largest tile, in elements.
template <class T>
constexpr int kTileElements = 24 * kLanes<T>;

RNNKERN_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// The blocks, at most `limit` each and as equal as can be, the larger ones first, that `count` is divided into.
class Blocks {
 public:
  RNNKERN_INLINE Blocks(int64_t count, int64_t limit) {
    const int64_t blocks = (count + limit - 1) / limit;
    if (blocks > 0) least_ = static_cast<int>(count / blocks), larger_ = count % blocks;
  }
  RNNKERN_INLINE int size(int64_t block) const { return least_ + (block < larger_); }

 private:
  int least_ = 0;
  int64_t larger_ = 0;
};
// The first of them.
RNNKERN_INLINE int next_block(int64_t left, int64_t limit) {
  return left <= limit ? static_cast<int>(left) : Blocks(left, limit).size(0);
}

// What a tile multiplies with, from some panel on, and how many panels may stand side by side in it.
template <class Operand>
struct SideBySide {
  Operand operand;
  int64_t count;
};
template <class T>
RNNKERN_INLINE SideBySide<Stream<T>> from_panel(const Panels<T>& b, int gates, int64_t depth, int64_t p) {
  const int64_t in_group = (b.first + p) % b.group, first = b.first + p - in_group;
  const int64_t width = gates * kLanes<T>, together = smaller(b.count - first, b.group);
  return {{b.base + (first * depth + in_group) * width, together * width}, together - in_group};
}
template <class T>
RNNKERN_INLINE SideBySide<PanelRows<T>> from_panel(const PanelRows<T>& b, int, int64_t, int64_t p) {
  return {{b.rows, b.first + p * b.stride, b.stride}, INT64_MAX};
}

// The first panel of the group that panel p is of.
template <class T>
RNNKERN_INLINE int64_t group_start(const Panels<T>& b, int64_t p) {
  const int64_t in_group = (b.first + p) % b.group;
  return in_group < p ? p - in_group : 0;
}
template <class T>
RNNKERN_INLINE int64_t group_start(const PanelRows<T>&, int64_t) {
  return 0;
}

// The `place` of products whose sums are nowhere but in the tile that the hook reads.
struct InTile {
  template <class T>
  Tile<T> operator()(int64_t, int, int64_t, int, T* tile, int64_t stride) const {
    return {tile, stride, false};
  }
};

// For the tiles that cover rows x panels, at most `panel_limit` wide: sum(factors, first_row, rows, first_panel,
// panels, operand, tile) fills one and hook(first_row, rows, first_panel, panels, tile) reads it. `a(row)` points at a
// row's factors; `from(panel)` is what to multiply with from there on; start(panel) is where its group begins.
template <int G, class T, class RowOf, class From, class Start, class Sum, class Hook>
RNNKERN_INLINE void for_tiles(int64_t rows, int64_t panels, int panel_limit, Order order, RowOf a, From from,
                              Start start, Sum sum, Hook hook) {
  alignas(64) T tile[kTileElements<T>];
  constexpr int kMaxRows = TileShape<G>::max_rows;
  const Blocks row_blocks(rows, kMaxRows);
  for (int64_t done = 0, group = 0; done < panels; done += group) {
    const int64_t last = panels - done;  // descending: of the panels that are left
    const int64_t first = order == Order::ascending ? done : start(last - 1);
    group = order == Order::ascending ? smaller(from(first).count, last) : last - first;
    for (int64_t p = first; p < first + group;) {
      const auto side_by_side = from(p);
      const int panel_count = next_block(first + group - p, panel_limit);
      for (int64_t r = 0, block = 0; r < rows; ++block) {
        const int row_count = row_blocks.size(block);
        const T* row[kMaxRows];
        for (int i = 0; i < row_count; ++i) row[i] = a(r + i);
        sum(row, r, row_count, p, panel_count, side_by_side.operand, tile);
        hook(r, row_count, p, panel_count, static_cast<const T*>(tile));
        r += row_count;
      }
      p += panel_count;
    }
  }
}

// Panels side by side for tiles of `rows` rows in all.
template <int G>
int panel_limit(int64_t rows) {
  using Shape = TileShape<G>;
  return rows < 1 ? 1 : Shape::panels(rows < Shape::max_rows ? static_cast<int>(rows) : Shape::max_rows);
}

// The products with panels. `place`, called as the hook is and with the stride of the tile's rows, says where the sums
// come to stand: in the tile, or where it likes.
template <int G, class T, class B, class RowOf, class Place, class Hook>
RNNKERN_INLINE void multiply(int64_t rows, int64_t panels, int64_t depth, Order order, RowOf a, int64_t step,
                             const B& b, Place place, Hook hook) {
  const auto sum = [&](const T* const* row, int64_t r, int row_count, int64_t p, int panel_count, const auto& operand,
                       T* tile) {
    fill_tile<G, T>(row_count, panel_count, depth, row, step, operand,
                    place(r, row_count, p, panel_count, tile, int64_t{panel_count} * G * kLanes<T>));
  };
  for_tiles<G, T>(
      rows, panels, panel_limit<G>(rows), order, a, [&](int64_t p) { return from_panel(b, G, depth, p); },
      [&](int64_t p) { return group_start(b, p); }, sum, hook);
}

// Sums of a tile, one panel wide, of weights that are not packed: a square of each gate at a time, where it stays in
// the cache. `weights` are rows of `depth`, `count` of them in the panel, `units` from gate to gate.
template <class T, int G>
void multiply_plain_tile(int64_t depth, const T* const* a, int rows, const T* weights, int64_t units, int64_t count,
                         T* tile) {
  constexpr int L = kLanes<T>;
  const bool far = !fits_own_cache<T>(G * units * depth);
  alignas(64) T packed[L * G * L];
  int64_t k = 0;
  do {
    const int64_t steps = smaller(depth - k, L);
    const T* row[TileShape<G>::max_rows];
    for (int r = 0; r < rows; ++r) row[r] = a[r] + k;
    for (int g = 0; g < G; ++g) {
      const T* square = weights + g * units * depth + k;
      if (far) prefetch_square(square, depth);
      transpose_square(square, depth, count, steps, packed + g * L, G * L);
    }
    fill_tile<G, T>(rows, 1, steps, row, 1, Stream<const T>{packed, G * L}, {tile, G * L, k > 0});
    k += L;
  } while (k < depth);
}

// The same for a single row: whole squares don't leave the registers.
template <class T, int G>
__attribute__((noinline)) void multiply_plain_row(int64_t depth, const T* a, const T* weights, int64_t units,
                                                  int64_t count, T* tile) {
  constexpr int L = kLanes<T>;
  const bool far = !fits_shared_cache<T>(G * units * depth);
  Vector<T> sum[G];
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) sum[g] = Vector<T>{};
  int64_t k = 0;
  for (; count >= L && k + L <= depth; k += L)
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      const T* square = weights + g * units * depth + k;
      if (far) prefetch_square(square, depth);
      Vector<T> columns[L];
      load_transposed(square, depth, columns);
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) sum[g] = multiply_add(broadcast<T>(a[k + i]), columns[i], sum[g]);
    }
  for (; k < depth; k += L)
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      Vector<T> columns[L];
      load_part_transposed(weights + g * units * depth + k, depth, count, depth - k, columns);
      for (int i = 0; i < L && k + i < depth; ++i) sum[g] = multiply_add(broadcast<T>(a[k + i]), columns[i], sum[g]);
    }
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) store(tile + g * L, one_nan<T>(sum[g]));
}

// The products with the weights of gates, from `first_panel` on.
template <int G, class T, class RowOf, class Hook>
RNNKERN_INLINE void multiply_gates(int64_t rows, int64_t first_panel, int64_t panels, int64_t units, int64_t depth,
                                   Order order, RowOf a, const GateWeights<T>& weights, Hook hook) {
  constexpr int L = kLanes<T>;
  struct Operand {
    Stream<const T> packed;
    const T* plain;
  };
  const auto from = [&](int64_t p) -> SideBySide<Operand> {
    if (weights.plain) return {{{nullptr, 0}, weights.plain + p * L * depth}, 1};
    const auto [packed, count] = from_panel(weights.packed, G, depth, p);
    return {{packed, nullptr}, count};
  };
  const auto start = [&](int64_t p) { return weights.plain ? p : group_start(weights.packed, p); };
  const auto sum = [&](const T* const* row, int64_t, int row_count, int64_t p, int panel_count, const Operand& b,
                       T* tile) {
    const int64_t count = units - (first_panel + p) * L;
    if (!b.plain)
      fill_tile<G, T>(row_count, panel_count, depth, row, 1, b.packed, {tile, int64_t{panel_count} * G * L, false});
    else if (row_count == 1)
      multiply_plain_row<T, G>(depth, row[0], b.plain, units, count, tile);
    else
      multiply_plain_tile<T, G>(depth, row, row_count, b.plain, units, count, tile);
  };
  for_tiles<G, T>(rows, panels, panel_limit<G>(rows), order, a, from, start, sum, hook);
}

}  // namespace
}  // namespace rnnkern
