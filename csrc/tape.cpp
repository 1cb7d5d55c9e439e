#include "tape.hpp"

#include <utility>

namespace rnnkern {

template <class T>
Tape<T>::Tape(const Spec& spec, const KernelTable& table, const ForwardCall<T>& call, Batch sequences, bool again,
              int64_t steps_per_block, bool keep_last, char* memory)
    : batch(std::move(sequences)), recompute(again), block_steps(steps_per_block) {
  kept.resize(spec.num_layers * spec.num_directions);
  outputs.resize(spec.num_layers);
  inputs.resize(spec.num_layers);
  const Shape<T> shape(spec, table, 0);
  const int64_t width = spec.num_directions * spec.output_size();
  const auto lay_out = [&](Arena arena) {
    for (Kept<T>& part : kept) {
      if (!recompute) {
        part.saved =
            shape.info().saved ? arena.take_dense<T>(batch.total() * shape.info().saved * shape.units) : nullptr;
        part.c = shape.info().cell_state ? arena.take_dense<T>(batch.total() * shape.units) : nullptr;
      } else if (shape.info().cell_state) {
        part.c_start = arena.take_dense<T>(divide_up(batch.steps(), block_steps) * batch.size() * shape.units);
      }
    }
    const auto sequence = [&] {
      return Sequence<T>{arena.take_dense<T>(call.steps * call.batch * width), call.batch * width, width};
    };
    for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
      const bool last = layer == spec.num_layers - 1;
      outputs[layer] = !last || keep_last ? sequence() : Sequence<T>{nullptr, 0, 0};
      if (!last) inputs[layer + 1] = call.masks ? sequence() : outputs[layer];
    }
    return arena.needed();
  };
  if (!memory) block_ = recycled(bytes_ = lay_out(Arena()));
  lay_out(Arena(memory ? memory : block_.data()));
}

template <class T>
TapeSize tape_size(const Spec& spec, const KernelTable& table, bool masked, bool outputs) {
  const CellInfo& info = Shape<T>(spec, table, 0).info();
  const int64_t parts = spec.num_layers * spec.num_directions, inner = (masked ? 2 : 1) * (spec.num_layers - 1);
  return {parts * spec.hidden_size * (info.saved + (info.cell_state ? 1 : 0)),
          (inner + (outputs ? 1 : 0)) * spec.num_directions * spec.output_size()};
}

template class Tape<float>;
template class Tape<double>;
template TapeSize tape_size<float>(const Spec&, const KernelTable&, bool, bool);
template TapeSize tape_size<double>(const Spec&, const KernelTable&, bool, bool);

}  // namespace rnnkern
