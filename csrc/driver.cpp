#include "driver.hpp"

#include <algorithm>
#include <array>

#include "available.hpp"
#include "backward_network.hpp"
#include "forward_network.hpp"

namespace rnnkern {

namespace {

// The same on every instruction set.
const CellInfo& info_of(const Spec& spec) {
  return default_isa().table->f32.cells[static_cast<int>(cell_id(spec))].info;
}

}  // namespace

int64_t Spec::gates() const { return info_of(*this).gates; }
int64_t Spec::output_size() const { return proj_size > 0 ? proj_size : hidden_size; }
bool Spec::has_cell_state() const { return info_of(*this).cell_state; }
int64_t Spec::layer_input_size(int64_t layer) const { return layer == 0 ? input_size : num_directions * output_size(); }

const std::vector<const char*>& cell_names() {
  static const std::vector<const char*> names = [] {
    std::vector<const char*> found;
    for (const CellKernels<float>& cell : default_isa().table->f32.cells) {
      const auto same = [&](const char* name) { return std::string(name) == cell.info.family; };
      if (std::none_of(found.begin(), found.end(), same)) found.push_back(cell.info.family);
    }
    return found;
  }();
  return names;
}

namespace {

// Per direction.
std::array<CellOptions, 2> options_of(const Spec& spec, bool save_values) {
  std::array<CellOptions, 2> options;
  for (int64_t d = 0; d < spec.num_directions; ++d) {
    std::copy_n(spec.activations[d], 3, options[d].activations);
    options[d].clip = spec.clip;
    options[d].coupling = spec.coupling;
    options[d].peephole = spec.peephole;
    options[d].save_values = save_values;
  }
  return options;
}

template <class T>
Problem problem_of(const Spec& spec, const KernelTable& table, const Batch& batch, bool backward, bool live = false) {
  const Shape<T> shape(spec, table, 0);
  return {batch.steps(), batch.size(),        batch.total(), spec.input_size, spec.hidden_size, shape.outputs,
          spec.gates(),  spec.num_directions, sizeof(T),     shape.lanes(),   backward,         live};
}

template <class T>
Tape<T> make_tape(const Spec& spec, const KernelTable& table, const ForwardCall<T>& call, bool recompute,
                  char* memory) {
  Batch batch(call.steps, call.batch, call.lengths);
  const int64_t steps = block_steps(problem_of<T>(spec, table, batch, recompute));
  const bool keep_last = !call.return_sequence || (memory && tape_has_outputs(call));
  return Tape<T>(spec, table, call, std::move(batch), recompute, steps, keep_last, memory);
}

template <class T>
void run_with_tape(const Spec& spec, const KernelTable& table, const Weights<const T>* weights,
                   const ForwardCall<T>& call, Tape<T>& tape, bool save_values, int threads) {
  forward_network<T>(spec, table, weights, nullptr, call, tape.batch, options_of(spec, save_values).data(),
                     problem_of<T>(spec, table, tape.batch, false, true), &tape, threads);
}

}  // namespace

template <class T>
std::shared_ptr<const Packed<T>> pack(const Spec& spec, const KernelTable& table, const Weights<const T>* weights,
                                      int threads) {
  return std::make_shared<const Packed<T>>(spec, table, weights, threads);
}

template <class T>
void run(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, const Packed<T>* packed,
         const ForwardCall<T>& call, int threads) {
  const Batch batch(call.steps, call.batch, call.lengths);
  forward_network<T>(spec, table, weights, packed, call, batch, options_of(spec, false).data(),
                     problem_of<T>(spec, table, batch, false, !packed), nullptr, threads);
}

template <class T>
std::shared_ptr<const Tape<T>> forward(const Spec& spec, const KernelTable& table, const Weights<const T>* weights,
                                       const ForwardCall<T>& call, bool recompute, int threads) {
  const auto tape = std::make_shared<Tape<T>>(make_tape(spec, table, call, recompute, nullptr));
  run_with_tape(spec, table, weights, call, *tape, false, threads);
  return tape;
}

template <class T>
void forward(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, const ForwardCall<T>& call,
             char* memory, int threads) {
  Tape<T> tape = make_tape(spec, table, call, false, memory);
  run_with_tape(spec, table, weights, call, tape, false, threads);
}

template <class T>
std::size_t tape_bytes(const Tape<T>& tape) {
  return tape.bytes();
}

int64_t trace_values(const Spec& spec) {
  return spec.family == CellFamily::rnn ? 0 : spec.gates() + (spec.has_cell_state() ? 1 : 0);
}

template <class T>
void trace(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, const ForwardCall<T>& call,
           T* const* values, T* const* hidden, int threads) {
  Tape<T> tape = make_tape(spec, table, call, false, nullptr);
  run_with_tape(spec, table, weights, call, tape, true, threads);
  const Batch& batch = tape.batch;
  const int64_t units = spec.hidden_size, outputs = spec.output_size(), wanted = trace_values(spec);
  const int64_t saved = Shape<T>(spec, table, 0).info().saved;
  for (int64_t part = 0; part < spec.num_layers * spec.num_directions; ++part) {
    const int64_t layer = part / spec.num_directions, d = part % spec.num_directions;
    const Sequence<T> y = tape.outputs[layer].data ? tape.outputs[layer] : call.y;
    for (int64_t v = 0; v < wanted; ++v) std::fill_n(values[part * wanted + v], call.steps * call.batch * units, T(0));
    std::fill_n(hidden[part], call.steps * call.batch * outputs, T(0));
    for (int64_t step = 0; step < batch.steps(); ++step)
      for (int64_t row = 0; row < batch.active(step); ++row) {
        const int64_t b = batch.sequence(row), t = d == 0 ? step : batch.length(row) - 1 - step;
        const int64_t at = t * call.batch + b, kept = batch.start(row) + step;
        for (int64_t v = 0; v < wanted; ++v) {
          const bool is_gate = v < spec.gates();  // else c
          const T* from =
              is_gate ? tape.kept[part].saved + (kept * saved + v) * units : tape.kept[part].c + kept * units;
          std::copy_n(from, units, values[part * wanted + v] + at * units);
        }
        std::copy_n(y.data + t * y.stride_t + b * y.stride_b + d * outputs, outputs, hidden[part] + at * outputs);
      }
  }
}

template <class T>
Explanation explain(const Spec& spec, const KernelTable& table, int64_t steps, int64_t batch, const int64_t* lengths,
                    bool live, int threads) {
  const Batch sequences(steps, batch, lengths);
  const Problem problem = problem_of<T>(spec, table, sequences, false, live);
  const CellInfo& info = Shape<T>(spec, table, 0).info();
  return {make_plan(problem, std::min(threads, processors()), barrier_seconds()), block_steps(problem),
          info.saved + (info.cell_state ? 1 : 0)};
}

template <class T>
void backward(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, const Tape<T>& tape,
              const BackwardCall<T>& call, int threads) {
  backward_network(spec, table, weights, tape, call, options_of(spec, false).data(),
                   problem_of<T>(spec, table, tape.batch, true), threads);
}

template <class T>
void backward(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, char* memory,
              const BackwardCall<T>& call, int threads) {
  backward(spec, table, weights, make_tape(spec, table, call.forward, false, memory), call, threads);
}

#define RNNKERN_INSTANTIATE(T)                                                                                         \
  template std::shared_ptr<const Packed<T>> pack(const Spec&, const KernelTable&, const Weights<const T>*, int);       \
  template void run(const Spec&, const KernelTable&, const Weights<const T>*, const Packed<T>*, const ForwardCall<T>&, \
                    int);                                                                                              \
  template std::shared_ptr<const Tape<T>> forward(const Spec&, const KernelTable&, const Weights<const T>*,            \
                                                  const ForwardCall<T>&, bool, int);                                   \
  template void forward(const Spec&, const KernelTable&, const Weights<const T>*, const ForwardCall<T>&, char*, int);  \
  template Explanation explain<T>(const Spec&, const KernelTable&, int64_t, int64_t, const int64_t*, bool, int);       \
  template std::size_t tape_bytes(const Tape<T>&);                                                                     \
  template void trace(const Spec&, const KernelTable&, const Weights<const T>*, const ForwardCall<T>&, T* const*,      \
                      T* const*, int);                                                                                 \
  template void backward(const Spec&, const KernelTable&, const Weights<const T>*, const Tape<T>&,                     \
                         const BackwardCall<T>&, int);                                                                 \
  template void backward(const Spec&, const KernelTable&, const Weights<const T>*, char*, const BackwardCall<T>&, int);
RNNKERN_INSTANTIATE(float)
RNNKERN_INSTANTIATE(double)
#undef RNNKERN_INSTANTIATE

}  // namespace rnnkern
