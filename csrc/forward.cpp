#include "forward.hpp"

#include <algorithm>

namespace rnnkern {
namespace {

// Copies columns of rows; from.base nullptr: zeros.
template <class T>
void copy_rows(int64_t rows, Range columns, Rows<const T> from, Rows<T> to) {
  for (int64_t i = 0; i < rows; ++i) {
    T* out = to.base + (to.index ? to.index[i] : i) * to.stride;
    if (from.base)
      std::copy(from.base + (from.index ? from.index[i] : i) * from.stride + columns.first,
                from.base + (from.index ? from.index[i] : i) * from.stride + columns.last, out + columns.first);
    else
      std::fill(out + columns.first, out + columns.last, T(0));
  }
}

}  // namespace

template <class T>
void lay_out_work(Arena& arena, Layer<T>& layer, int threads) {
  const CellInfo& info = layer.shape.info();
  const int64_t batch = layer.batch->size(), units = layer.shape.units;
  for (int64_t d = 0; d < layer.directions; ++d) {
    Direction<T>& direction = layer.direction[d];
    // Groups round their rows up: `threads` rows more a step.
    direction.input = arena.take<T>((batch + threads) * layer.block_steps * layer.shape.padded(units) * info.gates);
    const bool two_products = info.stages > 1 || layer.shape.projected;
    direction.inner = two_products ? arena.take<T>(batch * units) : nullptr;
    direction.saved_step = info.stages > 1 ? arena.take<T>(batch * info.saved * units) : nullptr;
  }
  layer.row_lists = arena.take<int64_t>(threads * layer.row_list_size());
}

template <class T>
void multiply_input(const Layer<T>& layer, const Direction<T>& direction, int64_t rows, const int64_t* offsets,
                    Range panels, Panels<T> packed, Rows<T> out) {
  const Shape<T>& shape = layer.shape;
  const T* plain = direction.panels.plain_input;
  shape.cell->input({rows,
                     panels.first,
                     panels.size(),
                     shape.units,
                     shape.inputs,
                     {layer.x.data, 1, offsets},
                     {read(packed), plain ? plain + panels.first * shape.lanes() * shape.inputs : nullptr},
                     direction.panels.bias + panels.first * shape.input_width(),
                     out});
}

template <class T>
Runner<T>::Runner(const Layer<T>& layer, const Worker& worker, int64_t d, int64_t* lists)
    : layer_(layer),
      worker_(worker),
      direction_(layer.direction[d]),
      own_(*layer.batch, worker, lists),
      saved_width_(layer.shape.info().saved * layer.shape.units) {
  const bool reverse = d == 1;
  int64_t* x_origin = lists + OwnRows::list_size(*layer.batch);
  int64_t* y_origin = x_origin + layer.batch->size();
  int64_t* places = y_origin + layer.batch->size();
  block_list_ = places + layer.batch->size();
  for (int64_t i = 0; i < own_.size(); ++i) {
    x_origin[i] = origin_of(layer.x, *layer.batch, own_.rows()[i], reverse);
    y_origin[i] = origin_of(direction_.y, *layer.batch, own_.rows()[i], reverse);
    places[i] = layer.place(direction_, own_.rows()[i]);
  }
  places_ = places;
  x_ = {layer.x.data, layer.x.stride_t, reverse, x_origin};
  y_ = {direction_.y.data, direction_.y.stride_t, reverse, y_origin};
  units_ = share(layer.shape.panels(layer.shape.units), worker.units, worker.unit);
  outputs_ = share(layer.shape.panels(layer.shape.outputs), worker.units, worker.unit);
}

template <class T>
Range Runner<T>::columns(Range panels, int64_t width) const {
  const int64_t lanes = layer_.shape.lanes();
  return {std::min(panels.first * lanes, width), std::min(panels.last * lanes, width)};
}

template <class T>
Rows<T> Runner<T>::h_to(int64_t step) const {
  if (y_.base) return y_.at(step);
  const int64_t size = layer_.batch->size() * layer_.shape.outputs;
  return {direction_.hidden + (step & 1) * size, layer_.shape.outputs, own_.rows()};
}

template <class T>
Rows<const T> Runner<T>::h_at(int64_t step) const {
  if (step >= 0) return read(h_to(step));
  if (!direction_.h0) return {layer_.zeros, 0, nullptr};
  return {direction_.h0, layer_.shape.outputs, own_.sequences()};
}

template <class T>
Rows<const T> Runner<T>::c_initial() const {
  if (!direction_.c0) return {layer_.zeros, 0, nullptr};
  return {direction_.c0, layer_.shape.units, own_.sequences()};
}

template <class T>
bool Runner<T>::step(int64_t step, Rows<const T> input, Rows<const T> c_previous, Rows<T> c, Rows<T> saved) const {
  const Shape<T>& shape = layer_.shape;
  const CellInfo& info = shape.info();
  const ForwardPanels<T>& panels = direction_.panels;
  const Rows<const T> h_previous = h_at(step - 1);
  const bool again = direction_.discarded != nullptr;  // every h is known: nobody waits for one
  const Rows<T> inner{direction_.inner, shape.units, own_.rows()};
  if (!saved.base && direction_.saved_step) saved = {direction_.saved_step, saved_width_, own_.rows()};

  StepForward<T> args;
  args.rows = own_.active(step);
  args.first_panel = units_.first;
  args.panels = units_.size();
  args.units = shape.units;
  args.order = turn(step);
  args.input = input;
  args.params = panels.params;
  args.params_stride = shape.padded(shape.units);
  args.h_previous = h_previous;
  args.c_previous = c_previous;
  args.h = shape.projected ? inner : h_to(step);
  if (again) args.h = {direction_.discarded, shape.units, own_.rows()};
  args.c = c;
  args.saved = saved;
  args.inner = inner;
  args.options = &direction_.options;
  bool stop = false;
  for (int stage = 0; stage < info.stages; ++stage) {
    args.depth = shape.stage_depth(stage);
    args.factors = stage == 0 ? h_previous : read(inner);
    args.weights = panels.recurrent_at(shape, stage, units_.first);
    shape.cell->forward[stage](args);
    if (!again || info.stages > 1) stop = worker_.wait_group();
  }
  if (shape.projected && !again) {
    shape.kernels->linear({args.rows, shape.units, outputs_.size(), shape.outputs, read(inner),
                           read(panels.projection_at(shape, outputs_.first)), h_to(step), false, panels.output_bias,
                           args.order});
    stop = worker_.wait_group();
    if (shape.softmax) {
      const Range own = share(args.rows, worker_.units, worker_.unit);
      shape.kernels->softmax.rows({own.first, own.last, shape.outputs, h_to(step)});
      stop = worker_.wait_group();
    }
  }
  return stop;
}

template <class T>
bool Runner<T>::run(int64_t first, int64_t last, Rows<const T> c_first, const Kept<T>& kept) const {
  const Shape<T>& shape = layer_.shape;
  Rows<T> input = layer_.input_of(direction_, worker_.group, units_);
  if (first > 0 || !direction_.input_made) {
    int64_t rows = 0;
    for (int64_t s = first; s < last; ++s)
      for (int64_t i = 0; i < own_.active(s); ++i) block_list_[rows++] = x_.origin[i] + x_.shift(s);
    multiply_input(layer_, direction_, rows, block_list_, units_, direction_.panels.input_at(shape, units_.first),
                   input);
  }

  Rows<const T> c_previous = c_first;
  bool stop = false;
  for (int64_t s = first; s < last; ++s) {
    const Rows<T> c = kept.c ? kept_c(kept, s) : Rows<T>{direction_.cn, shape.units, own_.sequences()};
    stop = step(s, read(input), c_previous, c, kept_saved(kept, s));
    input.base += own_.active(s) * input.stride;
    c_previous = read(c);
  }
  return stop;
}

namespace {

// h and c after each sequence's last step.
template <class T>
void finish(const Layer<T>& layer, const Direction<T>& direction, const Runner<T>& runner) {
  const Batch& batch = *layer.batch;
  const OwnRows& own = runner.own();
  const Range columns = runner.output_columns(), units = runner.unit_columns();
  for (int64_t i = 0; i < own.size(); ++i) {
    const int64_t row = own.rows()[i], sequence = own.sequences()[i], last = batch.length(row) - 1;
    if (direction.hn) {
      const Rows<const T> h = runner.h_at(last);
      const T* from = h.base + (h.index ? h.index[i] : i) * h.stride;
      std::copy(from + columns.first, from + columns.last,
                direction.hn + sequence * layer.shape.outputs + columns.first);
    }
    if (direction.kept.c && last >= 0) {
      const Rows<T> kept = runner.kept_c(direction.kept, last);
      const T* c = kept.base + kept.index[i] * kept.stride;
      std::copy(c + units.first, c + units.last, direction.cn + sequence * layer.shape.units + units.first);
    }
  }
}

// False: the call is given up.
template <class T>
bool run_direction(const Layer<T>& layer, const Worker& worker, int64_t d, int64_t* lists) {
  const Direction<T>& direction = layer.direction[d];
  const Runner<T> runner(layer, worker, d, lists);
  const int64_t units = layer.shape.units, steps = layer.batch->steps();
  const OwnRows& own = runner.own();
  const Rows<T> state{direction.cn, units, own.sequences()};
  if (direction.cn) copy_rows(own.size(), runner.unit_columns(), runner.c_initial(), state);
  Rows<const T> c_previous{state.base, state.stride, state.index};
  for (int64_t first = 0; first < steps; first += layer.block_steps) {
    const int64_t last = std::min(steps, first + layer.block_steps);
    if (first > 0) worker.interruption->poll();
    if (direction.kept.c_start) {
      T* start = direction.kept.c_start + first / layer.block_steps * layer.batch->size() * units;
      copy_rows(own.active(first), runner.unit_columns(), c_previous, {start, units, own.rows()});
    }
    if (runner.run(first, last, c_previous, direction.kept)) return false;
    if (direction.kept.c) c_previous = read(runner.kept_c(direction.kept, last - 1));
  }
  finish(layer, direction, runner);
  return true;
}

}  // namespace

template <class T>
void run_layer(const Layer<T>& layer, int thread) {
  Worker worker;
  if (!assign(layer.plan, layer.directions, thread, layer.barrier_places, layer.interruption, &worker)) return;
  int64_t* lists = layer.row_lists + thread * layer.row_list_size();
  for (int64_t d = worker.first_direction; d < worker.last_direction; ++d)
    if (!run_direction(layer, worker, d, lists)) return;
}

template void lay_out_work(Arena&, Layer<float>&, int);
template void lay_out_work(Arena&, Layer<double>&, int);
template void multiply_input(const Layer<float>&, const Direction<float>&, int64_t, const int64_t*, Range,
                             Panels<float>, Rows<float>);
template void multiply_input(const Layer<double>&, const Direction<double>&, int64_t, const int64_t*, Range,
                             Panels<double>, Rows<double>);
template class Runner<float>;
template class Runner<double>;
template void run_layer(const Layer<float>&, int);
template void run_layer(const Layer<double>&, int);

}  // namespace rnnkern
