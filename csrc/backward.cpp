// Every sum over steps and sequences runs from the last step to the first and, within a step, from the last row to the
// first; short sums are added up to longer ones, so that the error does not grow with their number. Where one ends and
// the next begins follows from the sizes. So the gradients do not depend on the threads, which only divide what is
// summed into.
#include "backward.hpp"

#include <algorithm>

namespace rnnkern {

namespace {

// Vectors of less than a cache line read the factors of the weight gradients from packed panels: in rows where they
// are, loads that straddle lines and lines of which only a part is read cost them more than packing.
template <class T>
bool packs_factors(const Shape<T>& shape) {
  return shape.lanes() * sizeof(T) < 64;
}

// Whether the vectors of a row, `offset` elements from `base`, straddle cache lines, and are so many that a copy is
// worth it.
template <class T>
bool straddles_lines(const T* base, int64_t offset, int64_t width) {
  constexpr int64_t line = 64 / sizeof(T);
  return (reinterpret_cast<uintptr_t>(base) + offset * sizeof(T)) % 64 != 0 && width > 4 * line;
}

// `from`: where the rows are, as far as that is known.
template <class T>
Factors<T> take_factors(Arena& arena, const Shape<T>& shape, int64_t width, int64_t rows, Sequence<const T> from) {
  const auto off = [&](int64_t offset) { return straddles_lines(from.data, offset, width); };
  const bool straddle = off(0) || off(from.stride_t) || off(from.stride_b);
  const bool packs = packs_factors(shape), copies = packs || shape.padded(width) != width || straddle;
  const int64_t stride = packs ? shape.padded(width) : shape.spread(width);
  return {width, arena.take<const T*>(rows), copies ? arena.take<T>(rows * stride) : nullptr};
}

// Rows whose products are made at a time, and rows whose sums are added before they go to the gradient.
constexpr int64_t kPieceRows = 1024, kPartRows = 8192;

template <class T>
Weights<T> take_rests(Arena& arena, const BackwardLayer<T>& layer, const Weights<T>& out) {
  const Shape<T>& shape = layer.forward.shape;
  const int64_t rows = shape.info().gates * shape.units;
  const bool many = layer.forward.batch->total() > kPartRows;
  const auto take = [&](const T* wanted, int64_t count) { return wanted ? arena.take<T>(count) : nullptr; };
  Weights<T> rests{};
  rests.ih = many ? take(out.ih, rows * shape.inputs) : nullptr;
  rests.hh = many ? take(out.hh, rows * shape.outputs) : nullptr;
  rests.hr = many ? take(out.hr, shape.outputs * shape.units) : nullptr;
  rests.bias_ih = take(out.bias_ih, rows);
  rests.bias_hh = take(out.bias_hh, rows);
  rests.bias_hr = take(out.bias_hr, shape.outputs);
  rests.peephole = take(out.peephole, 3 * shape.units);
  return rests;
}

}  // namespace

template <class T>
void lay_out_backward(Arena& arena, BackwardLayer<T>& layer, bool with_dx, bool with_weights, int threads) {
  Layer<T>& forward = layer.forward;
  const Shape<T>& shape = forward.shape;
  const CellInfo& info = shape.info();
  const int64_t batch = forward.batch->size(), rows = layer.block_rows(), units = shape.units;
  const bool two_products = info.stages > 1 || shape.projected;
  for (int64_t d = 0; d < forward.directions; ++d) {
    BackwardDirection<T>& direction = layer.direction[d];
    direction.panels.lay_out(arena, shape, direction.weights, with_dx, *forward.batch);
    direction.dh = arena.take<T>(batch * shape.outputs);
    direction.dc = info.cell_state ? arena.take<T>(batch * units) : nullptr;
    direction.dcell = shape.projected ? arena.take<T>(batch * units) : nullptr;
    direction.dinner = info.stages > 1 ? arena.take<T>(batch * units) : nullptr;
    direction.dgates = arena.take<T>(rows * shape.dgates_stride());
    direction.dprojected = shape.projected ? arena.take<T>(rows * shape.outputs) : nullptr;
    direction.inner = two_products ? arena.take<T>(rows * units) : nullptr;
    direction.saved = layer.recompute ? arena.take<T>(rows * info.saved * units) : nullptr;
    direction.c = layer.recompute && info.cell_state ? arena.take<T>(rows * units) : nullptr;
    if (with_weights) {
      direction.x_factors = take_factors(arena, shape, shape.inputs, rows, forward.x);
      direction.h_factors = take_factors(arena, shape, shape.outputs, rows, read(forward.direction[d].y));
      if (two_products)
        direction.inner_factors = take_factors(arena, shape, units, rows, {direction.inner, units, units});
      if (direction.dweights) {
        if (direction.dweights->peephole)
          for (const T**& list : direction.c_rows) list = arena.take<const T*>(rows);
        direction.rests = take_rests(arena, layer, *direction.dweights);
      }
    }
    direction.dx_own =
        with_dx && d > 0 && layer.concurrent() ? arena.take<T>(forward.batch->total() * shape.inputs) : nullptr;
    direction.reversed = arena.take<int64_t>(4 * batch);
    forward.direction[d].discarded = layer.recompute ? arena.take<T>(batch * units) : nullptr;
    if (layer.recompute) forward.direction[d].panels.lay_out(arena, shape);
  }
  if (layer.recompute)
    lay_out_work(arena, forward, threads);
  else
    forward.row_lists = arena.take<int64_t>(threads * forward.row_list_size());
  layer.lists = arena.take<int64_t>(threads * layer.list_size());
}

namespace {

// One thread's part of one direction.
template <class T>
class BackwardRunner {
 public:
  BackwardRunner(const BackwardLayer<T>& layer, const Worker& worker, int64_t d, int thread)
      : layer_(layer),
        worker_(worker),
        direction_(layer.direction[d]),
        shape_(layer.forward.shape),
        batch_(*layer.forward.batch),
        d_(d),
        forward_(layer.forward, worker, d, layer.forward.row_lists + thread * layer.forward.row_list_size()) {
    int64_t* lists = layer.lists + thread * layer.list_size();
    dy_origin_ = origins(direction_.dy, lists);
    dx_origin_ = origins(layer.dx, lists + batch_.size());
    block_rows_ = lists + 2 * batch_.size();
    block_dx_ = block_rows_ + layer.block_rows();
  }

  // False: the call is given up.
  bool run() {
    start();
    const int64_t blocks = layer_.forward.blocks(), block_steps = layer_.forward.block_steps;
    if (blocks == 0) zero_weights();
    for (int64_t block = blocks - 1; block >= 0; --block) {
      first_ = block * block_steps;
      last_ = std::min(batch_.steps(), first_ + block_steps);
      kept_ = direction_.kept;
      if (block < blocks - 1) worker_.interruption->poll();
      if (layer_.recompute) recompute(block);
      for (int64_t step = last_ - 1; step >= first_; --step) back(step);
      worker_.wait_crew();
      if (layer_.dx.data) input_gradient();
      if (direction_.dweights) weight_gradients(block == 0);
      if (worker_.wait_crew()) return false;
    }
    for (int gate = 0; gate < info().gates; ++gate)
      if (is_derived(shape_.coupling, gate)) zero_gate(gate);
    finish();
    return true;
  }

 private:
  const CellInfo& info() const { return shape_.info(); }
  int64_t block_row(int64_t step) const { return batch_.first(step) - batch_.first(first_); }
  const OwnRows& own() const { return forward_.own(); }

  template <class U>
  const int64_t* origins(const Sequence<U>& sequence, int64_t* list) const {
    for (int64_t i = 0; i < own().size(); ++i) list[i] = origin_of(sequence, batch_, own().rows()[i], d_ == 1);
    return list;
  }
  // Rows of a work space with a row per row of the batch, and per row of the block.
  Rows<T> by_row(T* base, int64_t width) const { return {base, width, own().rows()}; }
  Rows<T> in_block(T* base, int64_t width, int64_t step) const {
    return {base ? base + block_row(step) * width : nullptr, width, own().rows()};
  }

  // The gradients of the last state.
  void start() {
    const Range outputs = forward_.output_columns(), units = forward_.unit_columns();
    for (int64_t i = 0; i < own().size(); ++i) {
      const int64_t row = own().rows()[i], sequence = own().sequences()[i];
      for (int64_t j = outputs.first; j < outputs.last; ++j) {
        T value = direction_.dhn ? direction_.dhn[sequence * shape_.outputs + j] : T(0);
        if (direction_.dlast) value += direction_.dlast[sequence * direction_.dlast_stride + j];
        direction_.dh[row * shape_.outputs + j] = value;
      }
      if (direction_.dc)
        for (int64_t j = units.first; j < units.last; ++j)
          direction_.dc[row * shape_.units + j] = direction_.dcn ? direction_.dcn[sequence * shape_.units + j] : T(0);
    }
    if (worker_.rank() == 0) {
      const Layer<T>& forward = layer_.forward;
      for (int64_t i = 0; i < batch_.size(); ++i) {
        const int64_t row = batch_.size() - 1 - i;
        direction_.reversed[i] = batch_.sequence(row);
        direction_.reversed[batch_.size() + i] = origin_of(forward.x, batch_, row, d_ == 1);
        direction_.reversed[2 * batch_.size() + i] = origin_of(forward.direction[d_].y, batch_, row, d_ == 1);
        direction_.reversed[3 * batch_.size() + i] = forward.place(forward.direction[d_], row);
      }
    }
    worker_.wait_crew();
  }

  void finish() const {
    const Range outputs = forward_.output_columns(), units = forward_.unit_columns();
    for (int64_t i = 0; i < own().size(); ++i) {
      const int64_t row = own().rows()[i], sequence = own().sequences()[i];
      const auto copy = [&](const T* from, Range columns, int64_t width, T* to) {
        if (to)
          std::copy(from + row * width + columns.first, from + row * width + columns.last,
                    to + sequence * width + columns.first);
      };
      copy(direction_.dh, outputs, shape_.outputs, direction_.dh0);
      copy(direction_.dc, units, shape_.units, direction_.dc0);
    }
  }

  // The block once more, from c at its start, with everything kept.
  void recompute(int64_t block) {
    kept_.saved = direction_.saved;
    kept_.c = direction_.c;
    kept_.origin = first_;
    forward_.run(first_, last_, c_at_start(block), kept_);
    worker_.wait_group();
  }
  Rows<const T> c_at_start(int64_t block) const {
    if (!direction_.kept.c_start) return {nullptr, 0, nullptr};
    return {direction_.kept.c_start + block * batch_.size() * shape_.units, shape_.units, own().rows()};
  }

  Rows<const T> c_at(int64_t step) const {
    if (!info().cell_state) return {nullptr, 0, nullptr};
    if (step < 0) return forward_.c_initial();
    if (step < kept_.origin) return c_at_start(first_ / layer_.forward.block_steps);
    return read(forward_.kept_c(kept_, step));
  }

  // One step: the cell's gradient, then what reaches h of the step before.
  void back(int64_t step) const {
    const int64_t rows = own().active(step), units = shape_.units, outputs = shape_.outputs;
    const Rows<T> dh = by_row(direction_.dh, outputs),
                  dgates = in_block(direction_.dgates, shape_.dgates_stride(), step);
    Rows<const T> dy{nullptr, 0, nullptr};
    if (direction_.dy.data)
      dy = {direction_.dy.data + (d_ == 1 ? -step : step) * direction_.dy.stride_t, 1, dy_origin_};

    StepBackward<T> args;
    args.rows = rows;
    args.first_panel = forward_.units().first;
    args.panels = forward_.units().size();
    args.units = units;
    args.params = direction_.panels.params();
    args.params_stride = shape_.padded(units);
    args.h_previous = forward_.h_at(step - 1);
    args.h = forward_.h_at(step);
    args.c_previous = c_at(step - 1);
    args.c = c_at(step);
    args.saved = read(forward_.kept_saved(kept_, step));
    args.dy = dy;
    args.dh = dh;
    args.dc = by_row(direction_.dc, units);
    args.dgates = dgates;
    args.dinner = read(by_row(direction_.dinner, units));
    args.inner = in_block(direction_.inner, units, step);
    args.options = &layer_.forward.direction[d_].options;
    if (shape_.projected) {
      args.dh = by_row(direction_.dcell, units);
      args.dy.base = nullptr;
      project_back(rows, step, dy);
    }

    if (info().stages > 1) {
      shape_.cell->backward[1](args);
      worker_.wait_group();
      product(rows, dgates, 1, forward_.units(), by_row(direction_.dinner, units), false, turn(step));
    }
    shape_.cell->backward[0](args);
    worker_.wait_group();
    product(rows, dgates, 0, forward_.outputs(), dh, !shape_.projected, turn(step));
  }

  // out (+)= the gradients of a stage's gates times their recurrent weights.
  void product(int64_t rows, Rows<T> dgates, int stage, Range panels, Rows<T> out, bool add, Order order) const {
    const StageInfo& s = info().stage[stage];
    const Rows<const T> factors{dgates.base + s.first_slot * shape_.units, dgates.stride, dgates.index};
    shape_.kernels->linear({rows, s.gates * shape_.units, panels.size(), shape_.stage_depth(stage), factors,
                            direction_.panels.recurrent(stage, panels.first), out, add, nullptr, order});
  }

  // The gradient of h before its projection.
  void project_back(int64_t rows, int64_t step, Rows<const T> dy) const {
    const Range columns = forward_.output_columns();
    const Rows<T> total = in_block(direction_.dprojected, shape_.outputs, step);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t row = own().rows()[i];
      const T* from = direction_.dh + row * shape_.outputs;
      for (int64_t j = columns.first; j < columns.last; ++j)
        total.base[row * shape_.outputs + j] = from[j] + (dy.base ? dy.base[dy.index[i] + j] : T(0));
    }
    worker_.wait_group();
    if (shape_.softmax) {
      const Range range = share(rows, worker_.units, worker_.unit);
      shape_.kernels->softmax.rows_gradient({range.first, range.last, shape_.outputs, forward_.h_at(step), total});
      worker_.wait_group();
    }
    shape_.kernels->linear({rows, shape_.outputs, forward_.units().size(), shape_.units, read(total),
                            direction_.panels.projection(forward_.units().first),
                            by_row(direction_.dcell, shape_.units), false, nullptr, turn(step)});
  }

  // dx of the block, this thread's rows and columns.
  void input_gradient() const {
    const int64_t inputs = shape_.inputs, stride = shape_.dgates_stride();
    const Range panels = share(shape_.panels(inputs), worker_.units, worker_.unit);
    int64_t rows = 0;
    for (int64_t step = first_; step < last_; ++step)
      for (int64_t i = 0; i < own().active(step); ++i, ++rows) {
        const int64_t row = block_row(step) + own().rows()[i];
        block_rows_[rows] = row * stride;
        block_dx_[rows] = direction_.dx_own ? (batch_.first(first_) + row) * inputs
                                            : dx_origin_[i] + (d_ == 1 ? -step : step) * layer_.dx.stride_t;
      }
    const Rows<T> out{direction_.dx_own ? direction_.dx_own : layer_.dx.data, 1, block_dx_};
    shape_.kernels->linear({rows,
                            info().gates * shape_.units,
                            panels.size(),
                            inputs,
                            {direction_.dgates, 1, block_rows_},
                            direction_.panels.input(panels.first),
                            out,
                            d_ == 1 && !direction_.dx_own});
  }

  // Past the last element of a sequence's last row.
  const T* end_of(Sequence<const T> sequence, int64_t width) const {
    return sequence.data + std::max<int64_t>(0, (batch_.steps() - 1) * sequence.stride_t) +
           std::max<int64_t>(0, (batch_.size() - 1) * sequence.stride_b) + width;
  }

  // The other factors of the weight gradients: a step each to the threads of the crew. Where they are not packed, they
  // serve where they are, except for rows whose vectors would straddle cache lines or reach beyond `end`.
  void gather_factors() const {
    const int64_t rows = block_row(last_), batch = batch_.size(), outputs = shape_.outputs, units = shape_.units;
    const Layer<T>& forward = layer_.forward;
    const Sequence<const T> x = forward.x, y = read(forward.direction[d_].y);
    const T* const h0 = forward.direction[d_].h0;
    const T *const x_end = end_of(x, shape_.inputs), *const y_end = end_of(y, outputs);
    const int64_t sign = d_ == 1 ? -1 : 1;
    for (int64_t step = last_ - 1 - worker_.rank(); step >= first_; step -= worker_.crew()) {
      const int64_t active = batch_.active(step), first = rows - block_row(step + 1);
      const int64_t* list = direction_.reversed + batch - active;
      const auto gather = [&](Rows<const T> from, const T* end, const Factors<T>& to) {
        const int64_t padded = shape_.padded(to.width), lanes = shape_.lanes();
        if (packs_factors(shape_)) {
          const int64_t panels = shape_.panels(to.width);
          shape_.kernels->pack_rows({from, active, to.width, first, rows, panels, {to.copies, panels, 0, 1}});
          for (int64_t k = first; k < first + active; ++k) to.rows[k] = to.copies + k * lanes;
          return;
        }
        for (int64_t i = 0; i < active; ++i) {
          const T* row = from.base + (from.index ? from.index[i] : i) * from.stride;
          if (to.copies && (end - row < padded || straddles_lines(row, 0, to.width))) {
            T* const copy = to.copies + (first + i) * shape_.spread(to.width);
            std::fill(std::copy_n(row, to.width, copy), copy + padded, T(0));
            row = copy;
          }
          to.rows[first + i] = row;
        }
      };
      gather({x.data + sign * step * x.stride_t, 1, list + batch}, x_end, direction_.x_factors);
      if (step > 0)
        gather({y.data + sign * (step - 1) * y.stride_t, 1, list + 2 * batch}, y_end, direction_.h_factors);
      else if (h0)
        gather({h0, outputs, list}, h0 + batch * outputs, direction_.h_factors);
      else
        gather({forward.zeros, 0, nullptr}, forward.zeros + outputs, direction_.h_factors);
      if (direction_.inner)
        gather({direction_.inner + (block_row(step + 1) - 1) * units, -units, nullptr}, direction_.inner + rows * units,
               direction_.inner_factors);
    }
    if (direction_.dweights->peephole)
      for (int which = 0; which < 2; ++which) gather_c(which == 1, direction_.c_rows[which]);
    worker_.wait_crew();
  }

  // c of each row of the block, after its step or before it.
  void gather_c(bool after, const T** list) const {
    const int64_t rows = block_row(last_), units = shape_.units, *reversed = direction_.reversed;
    const T* const c0 = layer_.forward.direction[d_].c0;
    for (int64_t step = last_ - 1 - worker_.rank(); step >= first_; step -= worker_.crew()) {
      const int64_t active = batch_.active(step), row = rows - block_row(step + 1), at = after ? step : step - 1;
      const int64_t skipped = batch_.size() - active;
      Rows<const T> from{layer_.forward.zeros, 0, nullptr};
      if (at >= kept_.origin)
        from = {c_at(at).base, units, reversed + 3 * batch_.size() + skipped};
      else if (at >= 0)
        from = {c_at(at).base + (active - 1) * units, -units, nullptr};
      else if (c0)
        from = {c0, units, reversed + skipped};
      for (int64_t i = 0; i < active; ++i) list[row + i] = from.base + (from.index ? from.index[i] : i) * from.stride;
    }
  }

  // The block's part of the gradients, a piece after the other.
  void weight_gradients(bool last_block) {
    gather_factors();
    for (int64_t rows = block_row(last_), first = 0; first < rows; first += kPieceRows) {
      const int64_t count = std::min(kPieceRows, rows - first);
      const bool last = last_block && first + count == rows;
      pending_ += count;
      add_piece({first, count, last, last || pending_ >= kPartRows});
      if (pending_ >= kPartRows) pending_ = 0, parts_ = true;
      begun_ = true;
    }
  }

  // Rows of the block, counted from its end; whether they are the last of all, and whether a part ends with them.
  struct Piece {
    int64_t first, count;
    bool last, ends_part;
  };

  // Gates that follow one another, in the gradients and in the weights, are one matrix.
  void add_piece(const Piece& piece) const {
    const Weights<T>&out = *direction_.dweights, &rest = direction_.rests;
    const int64_t units = shape_.units, stride = shape_.dgates_stride();
    const T* a = row_from_end(direction_.dgates, stride, piece);
    for (int slot = 0, gates; slot < info().gates; slot += gates) {
      const int gate = info().slot_gate[slot];
      for (gates = 1; slot + gates < info().gates && info().slot_gate[slot + gates] == gate + gates;) ++gates;
      const int64_t row = gate * units, count = gates * units;
      add_products(piece, a + slot * units, stride, count, direction_.x_factors,
                   at({out.ih, rest.ih}, row * shape_.inputs));
      const bool same = out.bias_hh && gate != info().param_gate;
      if (out.bias_ih)
        add_rows(piece, a + slot * units, stride, count, at({out.bias_ih, rest.bias_ih}, row), nullptr,
                 same ? out.bias_hh + row : nullptr);
    }
    for (int stage = 0; stage < info().stages; ++stage) {
      const StageInfo& s = info().stage[stage];
      add_products(piece, a + s.first_slot * units, stride, s.gates * units,
                   stage == 0 ? direction_.h_factors : direction_.inner_factors,
                   at({out.hh, rest.hh}, s.first_gate * units * shape_.stage_depth(stage)));
    }
    if (out.bias_hh && info().param_gate >= 0) {
      const StageInfo& s = info().stage[0];
      add_rows(piece, a + (s.first_slot + info().param_gate - s.first_gate) * units, stride, units,
               at({out.bias_hh, rest.bias_hh}, info().param_gate * units));
    }
    if (out.peephole)
      for (int i = 0; i < 3; ++i) {
        const Peephole& p = info().peephole[i];
        add_rows(piece, a + p.slot * units, stride, units, at({out.peephole, rest.peephole}, i * units),
                 direction_.c_rows[p.new_c] + piece.first);
      }
    if (!out.hr) return;
    const int64_t outputs = shape_.outputs;
    const T* projected = row_from_end(direction_.dprojected, outputs, piece);
    add_products(piece, projected, outputs, outputs, direction_.inner_factors, {out.hr, rest.hr});
    if (out.bias_hr) add_rows(piece, projected, outputs, outputs, {out.bias_hr, rest.bias_hr});
  }

  const T* row_from_end(const T* rows, int64_t stride, const Piece& piece) const {
    return rows + (block_row(last_) - 1 - piece.first) * stride;
  }
  static Total<T> at(Total<T> total, int64_t offset) {
    return {total.sum + offset, total.rest ? total.rest + offset : nullptr};
  }
  Range own_part(int64_t count) const { return share(count, worker_.crew(), worker_.rank(), shape_.lanes()); }

  // This thread's rows of total (count, width) += a^T b. `a` goes backwards.
  void add_products(const Piece& piece, const T* a, int64_t a_stride, int64_t count, const Factors<T>& b,
                    Total<T> total) const {
    const Range own = own_part(count);
    const PanelRows<T> panels{b.rows + piece.first, 0, shape_.lanes() * (packs_factors(shape_) ? block_row(last_) : 1)};
    const Total<T> to = at(total, own.first * b.width);
    shape_.kernels->outer({own.size(), b.width, piece.count, a + own.first, -a_stride, panels,
                           to.rest ? to.rest : to.sum, b.width, begun_});
    if (to.rest && piece.ends_part) shape_.kernels->add_part({own.size() * b.width, to.sum, to.rest, parts_});
  }

  // This thread's columns of total (count) += the rows of a, or of a times c.
  void add_rows(const Piece& piece, const T* a, int64_t a_stride, int64_t count, Total<T> total,
                const T* const* c = nullptr, T* copy = nullptr) const {
    const Range own = own_part(count);
    const Total<T> to = at(total, own.first);
    shape_.kernels->column_sum(
        {piece.count, own.size(), {a + own.first, -a_stride, nullptr}, c, own.first, to.sum, to.rest, begun_});
    if (copy && piece.last) std::copy_n(to.sum, own.size(), copy + own.first);
  }

  static void zero(T* array, int64_t first, int64_t count) {
    if (array) std::fill_n(array + first, count, T(0));
  }
  // No steps, no gradients.
  void zero_weights() const {
    if (!direction_.dweights || worker_.rank() != 0) return;
    const Weights<T>& out = *direction_.dweights;
    zero_rows(0, info().gates * shape_.units);
    zero(out.hr, 0, shape_.outputs * shape_.units);
    zero(out.bias_hr, 0, shape_.outputs);
    zero(out.peephole, 0, 3 * shape_.units);
  }
  // Sums of zeros times x and h, which may be infinite.
  void zero_gate(int gate) const {
    if (!direction_.dweights || worker_.rank() != 0) return;
    zero_rows(gate * shape_.units, shape_.units);
    zero(direction_.dweights->peephole, gate * shape_.units, shape_.units);
  }
  void zero_rows(int64_t first, int64_t count) const {
    const Weights<T>& out = *direction_.dweights;
    zero(out.ih, first * shape_.inputs, count * shape_.inputs);
    zero(out.hh, first * shape_.outputs, count * shape_.outputs);
    zero(out.bias_ih, first, count);
    zero(out.bias_hh, first, count);
  }

  const BackwardLayer<T>& layer_;
  const Worker& worker_;
  const BackwardDirection<T>& direction_;
  const Shape<T>& shape_;
  const Batch& batch_;
  const int64_t d_;
  const Runner<T> forward_;
  const int64_t* dy_origin_;
  const int64_t* dx_origin_;
  int64_t* block_rows_;  // of the gradients of the gates, and of dx, by (step, own row) of the block
  int64_t* block_dx_;
  int64_t first_ = 0, last_ = 0;  // the block
  int64_t pending_ = 0;           // rows that are not yet in the gradients of the weights
  bool begun_ = false;            // there are sums
  bool parts_ = false;            // and such that are in the gradients
  Kept<T> kept_;
};

}  // namespace

template <class T>
void run_backward(const BackwardLayer<T>& layer, int thread) {
  Worker worker;
  const Layer<T>& forward = layer.forward;
  if (!assign(forward.plan, forward.directions, thread, forward.barrier_places, forward.interruption, &worker)) return;
  for (int64_t d = worker.first_direction; d < worker.last_direction; ++d)
    if (!BackwardRunner<T>(layer, worker, d, thread).run()) return;
}

template void lay_out_backward(Arena&, BackwardLayer<float>&, bool, bool, int);
template void lay_out_backward(Arena&, BackwardLayer<double>&, bool, bool, int);
template void run_backward(const BackwardLayer<float>&, int);
template void run_backward(const BackwardLayer<double>&, int);

}  // namespace rnnkern
