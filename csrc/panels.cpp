#include "panels.hpp"

#include <algorithm>
#include <cmath>

#include "available.hpp"
#include "interruption.hpp"
#include "threads.hpp"

namespace rnnkern {
namespace {

bool has_usual_gates(const Spec& spec, int activations) {
  for (int64_t d = 0; d < spec.num_directions; ++d)
    for (int i = 0; i < activations; ++i)
      if (spec.activations[d][i].kind != (i == 0 ? ActivationKind::sigmoid : ActivationKind::tanh)) return false;
  return std::isinf(spec.clip);
}

CellId rnn_id(const Spec& spec) {
  const ActivationKind kind = spec.activations[0][0].kind;
  if (!std::isinf(spec.clip) || spec.activations[spec.num_directions - 1][0].kind != kind) return CellId::rnn_general;
  if (kind == ActivationKind::tanh) return CellId::rnn_tanh;
  if (kind == ActivationKind::relu) return CellId::rnn_relu;
  if (kind == ActivationKind::identity) return CellId::rnn_identity;
  return CellId::rnn_general;
}

CellId lstm_id(const Spec& spec) {
  if (!has_usual_gates(spec, 3)) return CellId::lstm_general;
  switch (spec.coupling) {
    case Coupling::none:
      return spec.peephole ? CellId::lstm_peephole : CellId::lstm;
    case Coupling::input:
      return spec.peephole ? CellId::lstm_general : CellId::lstm_coupled_input;
    case Coupling::forget:
      return spec.peephole ? CellId::lstm_general : CellId::lstm_coupled_forget;
  }
  __builtin_unreachable();
}

template <class T>
void fill_params(const Shape<T>& shape, const Weights<const T>& weights, T* params) {
  const int64_t stride = shape.padded(shape.units);
  std::fill_n(params, shape.info().params * stride, T(0));
  if (shape.info().param_gate >= 0) {
    if (weights.bias_hh) std::copy_n(weights.bias_hh + shape.info().param_gate * shape.units, shape.units, params);
  } else if (weights.peephole) {
    for (int i = 0; i < shape.info().params; ++i)
      if (!is_derived(shape.coupling, i))
        std::copy_n(weights.peephole + i * shape.units, shape.units, params + i * stride);
  }
}

template <class T>
void fill_bias(const Shape<T>& shape, const Weights<const T>& weights, Range panels, T* bias) {
  const int64_t gates = shape.info().gates, lanes = shape.lanes();
  for (int64_t panel = panels.first; panel < panels.last; ++panel)
    for (int64_t g = 0; g < gates; ++g) {
      T* out = bias + (panel * gates + g) * lanes;
      const int64_t count = weights.bias_ih ? std::min(lanes, shape.units - panel * lanes) : 0;
      const int64_t from = g * shape.units + panel * lanes;
      const bool input_only = g == shape.info().param_gate;
      for (int64_t j = from; j < from + count; ++j)
        out[j - from] = input_only ? weights.bias_ih[j] : weights.bias_ih[j] + weights.bias_hh[j];
      std::fill(out + count, out + lanes, T(0));
    }
}

template <class T>
void fill_output_bias(const Shape<T>& shape, const Weights<const T>& weights, T* bias) {
  std::fill_n(bias, shape.padded(shape.outputs), T(0));
  if (weights.bias_hr) std::copy_n(weights.bias_hr, shape.outputs, bias);
}

}  // namespace

CellId cell_id(const Spec& spec) {
  switch (spec.family) {
    case CellFamily::rnn:
      return rnn_id(spec);
    case CellFamily::lstm:
      return lstm_id(spec);
    case CellFamily::gru_reset_after:
      return has_usual_gates(spec, 2) ? CellId::gru_reset_after : CellId::gru_reset_after_general;
    case CellFamily::gru_reset_before:
      return has_usual_gates(spec, 2) ? CellId::gru_reset_before : CellId::gru_reset_before_general;
    case CellFamily::jordan:
      return rnn_id(spec) == CellId::rnn_tanh ? CellId::jordan : CellId::jordan_general;
  }
  __builtin_unreachable();
}

template <class T>
Shape<T>::Shape(const Spec& spec, const KernelTable& table, int64_t layer)
    : kernels(&kernels_of<T>(table)),
      cell(&kernels->cells[static_cast<int>(cell_id(spec))]),
      inputs(spec.layer_input_size(layer)),
      units(spec.hidden_size),
      outputs(spec.output_size()),
      projected(spec.proj_size > 0),
      biased(spec.family == CellFamily::jordan),
      softmax(spec.softmax),
      coupling(spec.coupling) {}

template <class T>
void ForwardPanels<T>::lay_out(Arena& arena, const Shape<T>& shape) {
  lay_out(arena, shape, nullptr, nullptr);
}

template <class T>
void ForwardPanels<T>::lay_out(Arena& arena, const Shape<T>& shape, const Weights<const T>& weights,
                               const Batch& batch) {
  const bool few = batch.total() <= shape.kernels->plain_rows;
  lay_out(arena, shape, few ? weights.ih : nullptr, few && batch.steps() <= 1 ? weights.hh : nullptr);
}

template <class T>
void ForwardPanels<T>::lay_out(Arena& arena, const Shape<T>& shape, const T* plain_ih, const T* plain_hh) {
  const CellInfo& info = shape.info();
  const int64_t columns = shape.padded(shape.units), panels = shape.panels(shape.units);
  plain_input = plain_ih;
  input = plain_ih ? nullptr : arena.take<T>(panels * shape.input_panel());
  for (int stage = 0; stage < info.stages; ++stage) {
    const int64_t rows_before = info.stage[stage].first_gate * shape.units;
    plain_recurrent[stage] = plain_hh ? plain_hh + rows_before * shape.stage_depth(stage) : nullptr;
    recurrent[stage] = plain_hh ? nullptr : arena.take<T>(panels * shape.stage_panel(stage));
  }
  projection = shape.projected ? arena.take<T>(shape.padded(shape.outputs) * shape.units) : nullptr;
  bias = arena.take<T>(columns * info.gates);
  output_bias = shape.biased ? arena.take<T>(shape.padded(shape.outputs)) : nullptr;
  params = arena.take<T>(columns * info.params);
}

template <class T>
void ForwardPanels<T>::pack(const Shape<T>& shape, const Weights<const T>& weights, Range panels,
                            Panels<T> input_to) const {
  const CellInfo& info = shape.info();
  const auto columns = [&](const T* from, int64_t units, int gates, int64_t depth, Range range, Panels<T> to) {
    shape.kernels->pack_columns({from, units, depth, gates, range.first, range.size(), to});
  };
  if (!plain_input) columns(weights.ih, shape.units, info.gates, shape.inputs, panels, input_to);
  for (int stage = 0; stage < info.stages; ++stage) {
    if (plain_recurrent[stage]) continue;
    const StageInfo& s = info.stage[stage];
    const int64_t depth = shape.stage_depth(stage);
    columns(weights.hh + s.first_gate * shape.units * depth, shape.units, s.gates, depth, panels,
            grouped(recurrent[stage], shape.panels(shape.units), s.gates, panels.first));
  }
  if (shape.projected) {  // has more panels, or fewer
    const int64_t ours = shape.panels(shape.outputs), units = shape.panels(shape.units), depth = shape.units;
    const Range range{panels.first * ours / units, panels.last * ours / units};
    columns(weights.hr, shape.outputs, 1, depth, range, projection_at(shape, range.first));
  }
  fill_bias(shape, weights, panels, bias);
  if (panels.first == 0 && panels.last > 0) {
    if (shape.biased) fill_output_bias(shape, weights, output_bias);
    fill_params(shape, weights, params);
  }
}

// Packing is worth it for a matrix whose rows are longer than this, in bytes, and which is read so often at least; more
// often where it is large, in bytes. Rows that all of a block of time are multiplied with may be longer where vectors
// are cache lines: tiles then read more of a row at once.
constexpr int64_t kShortRow = 256, kShortRowOfBlock = 1024, kUsesWorthPacking = 16, kLarge = int64_t{2} << 20;

template <class T>
void BackwardPanels<T>::lay_out(Arena& arena, const Shape<T>& shape, const Weights<const T>& weights, bool with_input,
                                const Batch& batch) {
  const CellInfo& info = shape.info();
  weights_ = weights;
  // As they are: whole panels only, all gates in order, and no gate whose weights are ignored.
  const auto matrix = [&](bool in_order, const T* rows, int64_t width, int64_t depth, int64_t short_row) {
    const bool can = in_order && width % shape.lanes() == 0 && shape.coupling == Coupling::none;
    const int64_t size = sizeof(T), uses = batch.steps() + batch.total() / 16;
    const bool worth = width * size > short_row && uses >= kUsesWorthPacking * (width * depth * size > kLarge ? 3 : 1);
    const int64_t panels = shape.panels(width);
    if (can && !worth) return Matrix{nullptr, {rows, panels, 0, panels}};
    T* memory = arena.take<T>(shape.padded(width) * depth);
    return Matrix{memory, read(grouped(memory, panels, 1))};
  };
  bool in_order = true;
  for (int slot = 0; slot < info.gates; ++slot) in_order = in_order && info.slot_gate[slot] == slot;
  if (with_input)
    input_ = matrix(in_order, weights.ih, shape.inputs, info.gates * shape.units,
                    shape.lanes() * sizeof(T) < 64 ? kShortRow : kShortRowOfBlock);
  for (int stage = 0; stage < info.stages; ++stage) {
    const StageInfo& s = info.stage[stage];
    const int64_t width = shape.stage_depth(stage);
    recurrent_[stage] =
        matrix(true, weights.hh + s.first_gate * shape.units * width, width, s.gates * shape.units, kShortRow);
  }
  if (shape.projected) projection_ = matrix(true, weights.hr, shape.units, shape.outputs, kShortRow);
  params_ = arena.take<T>(shape.padded(shape.units) * info.params);
}

template <class T>
void BackwardPanels<T>::pack(const Shape<T>& shape, const T* zeros, int thread, int team) const {
  const CellInfo& info = shape.info();
  const int64_t units = shape.units;
  const auto rows_of_gate = [&](const T* matrix, int gate, int64_t width) {
    if (is_derived(shape.coupling, gate)) return Rows<const T>{zeros, 0, nullptr};
    return Rows<const T>{matrix + gate * units * width, width, nullptr};
  };
  const auto rows = [&](Rows<const T> from, int64_t count, int64_t width, int64_t first_depth, int64_t depth, T* to) {
    const Range own = share(shape.panels(width), team, thread);
    shape.kernels->pack_rows(
        {from, count, width, first_depth, depth, own.size(), grouped(to, shape.panels(width), 1, own.first)});
  };
  if (input_.packed)
    for (int slot = 0; slot < info.gates; ++slot)
      rows(rows_of_gate(weights_.ih, info.slot_gate[slot], shape.inputs), units, shape.inputs, slot * units,
           info.gates * units, input_.packed);
  for (int stage = 0; stage < info.stages; ++stage) {
    if (!recurrent_[stage].packed) continue;
    const int64_t width = shape.stage_depth(stage);
    const StageInfo& s = info.stage[stage];
    for (int gate = 0; gate < s.gates; ++gate)
      rows(rows_of_gate(weights_.hh, s.first_gate + gate, width), units, width, gate * units, s.gates * units,
           recurrent_[stage].packed);
  }
  if (projection_.packed)
    rows({weights_.hr, units, nullptr}, shape.outputs, units, 0, shape.outputs, projection_.packed);
  if (thread == 0) fill_params(shape, weights_, params_);
}

template <class T>
Packed<T>::Packed(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, int threads)
    : parts_(spec.num_layers * spec.num_directions) {
  const auto shape_of = [&](std::size_t part) { return Shape<T>(spec, table, part / spec.num_directions); };
  const auto lay_out = [&](Arena arena) {
    for (std::size_t part = 0; part < parts_.size(); ++part) parts_[part].lay_out(arena, shape_of(part));
    return arena.needed();
  };
  block_ = Block(lay_out(Arena()));
  lay_out(Arena(block_.data()));
  Interruption interruption;
  auto pack = [&](int thread, int team, const Barrier&) {
    for (std::size_t part = 0; part < parts_.size() && !interruption.poll(); ++part) {
      const Shape<T> shape = shape_of(part);
      parts_[part].pack(shape, weights[part], share(shape.panels(shape.units), team, thread));
    }
  };
  run_team(
      std::min(threads, processors()), [](int) {}, pack);
  interruption.check();
}

template struct Shape<float>;
template struct Shape<double>;
template struct ForwardPanels<float>;
template struct ForwardPanels<double>;
template class BackwardPanels<float>;
template class BackwardPanels<double>;
template class Packed<float>;
template class Packed<double>;

}  // namespace rnnkern
