#include "driver.hpp"

#include <algorithm>
#include <cmath>

#include "backward.hpp"
#include "forward.hpp"
#include "tape.hpp"

namespace rnnkern {

int64_t Spec::gates() const {
  switch (family) {
    case CellFamily::rnn:
      return 1;
    case CellFamily::lstm:
      return 4;
    default:
      return 3;
  }
}
int64_t Spec::output_size() const { return proj_size > 0 ? proj_size : hidden_size; }
bool Spec::has_cell_state() const { return family == CellFamily::lstm; }
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

CellOptions options_of(const Spec& spec, int64_t direction, bool save_values) {
  CellOptions options;
  std::copy_n(spec.activations[direction], 3, options.activations);
  options.clip = spec.clip;
  options.coupling = spec.coupling;
  options.peephole = spec.peephole;
  options.save_values = save_values;
  return options;
}

template <class T>
Problem problem_of(const Spec& spec, const KernelTable& table, const Batch& batch, bool backward) {
  const Shape<T> shape(spec, table, 0);
  return {batch.steps(), batch.size(),        batch.total(), spec.input_size, spec.hidden_size, shape.outputs,
          spec.gates(),  spec.num_directions, sizeof(T),     shape.lanes(),   backward};
}

// A whole network's forward pass: its layers and the arrays between them.
template <class T>
class ForwardNetwork {
 public:
  ForwardNetwork(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, const Packed<T>* packed,
                 const ForwardCall<T>& call, const Batch& batch, Tape<T>* tape, bool save_values)
      : spec_(spec),
        weights_(weights),
        packed_(packed),
        call_(call),
        batch_(batch),
        tape_(tape),
        problem_(problem_of<T>(spec, table, batch, false)),
        dropped_(spec.num_layers) {
    for (int64_t l = 0; l < spec.num_layers; ++l)
      layers_.push_back({Shape<T>(spec, table, l), &batch, spec.num_directions, block_steps(problem_)});
    for (Layer<T>& layer : layers_)
      for (int64_t d = 0; d < spec.num_directions; ++d) layer.direction[d].options = options_of(spec, d, save_values);
  }

  void run(int threads) {
    const Plan wanted = make_plan(problem_, worth_waking(threads, seconds_alone(problem_)));
    const std::unique_ptr<Barrier[]> barriers(new Barrier[barriers_needed(wanted.threads()) + 1]);
    const Workspace workspace = rnnkern::lay_out([&](Arena& arena) { lay_out(arena, wanted, barriers.get() + 1); });
    std::fill_n(zeros_, zero_count(), T(0));
    run_team(
        wanted.threads(),
        [&](int team) {
          const Plan plan = team == wanted.threads() ? wanted : make_plan(problem_, team);
          for (Layer<T>& layer : layers_) layer.plan = plan;
        },
        [&](int thread, int team) { work(thread, team, barriers[0]); });
  }

 private:
  int64_t width() const { return spec_.num_directions * spec_.output_size(); }
  int64_t zero_count() const { return std::max(spec_.hidden_size, spec_.output_size()); }

  void lay_out(Arena& arena, const Plan& plan, Barrier* barriers) {
    zeros_ = arena.take<T>(zero_count());
    for (int64_t l = 0; l < spec_.num_layers; ++l) lay_out_layer(arena, l, plan, barriers);
  }

  void lay_out_layer(Arena& arena, int64_t l, const Plan& plan, Barrier* barriers) {
    Layer<T>& layer = layers_[l];
    const bool last = l == spec_.num_layers - 1, ends_in_state = last && !tape_ && !call_.return_sequence;
    layer.plan = plan;
    layer.zeros = zeros_;
    layer.barriers = barriers;
    if (l == 0) layer.x = call_.x;
    const auto sequence = [&] {
      return Sequence<T>{arena.take<T>(call_.steps * call_.batch * width()), call_.batch * width(), width()};
    };
    // The last layer writes to the caller, the others to the tape or to work space.
    Sequence<T> y{nullptr, 0, 0};
    if (tape_ && tape_->outputs[l].data)
      y = tape_->outputs[l];
    else if (!last)
      y = sequence();
    else if (call_.return_sequence)
      y = call_.y;
    if (!last) {
      const Sequence<T> next = tape_ ? tape_->inputs[l + 1] : call_.masks ? sequence() : y;
      dropped_[l + 1] = next;
      layers_[l + 1].x = {next.data, next.stride_t, next.stride_b};
    }
    for (int64_t d = 0; d < spec_.num_directions; ++d) {
      Direction<T>& direction = layer.direction[d];
      const int64_t part = l * spec_.num_directions + d, states = part * call_.batch;
      const auto at = [&](auto* states_base, int64_t size) {
        return states_base ? states_base + states * size : nullptr;
      };
      direction.h0 = at(call_.h0, spec_.output_size());
      direction.c0 = at(call_.c0, spec_.hidden_size);
      direction.hn = at(call_.hn, spec_.output_size());
      direction.cn = at(call_.cn, spec_.hidden_size);
      direction.kept = tape_ ? tape_->kept[part] : Kept<T>();
      direction.y = {y.data ? y.data + d * spec_.output_size() : nullptr, y.stride_t, y.stride_b};
      direction.hidden = ends_in_state ? arena.take<T>(2 * call_.batch * spec_.output_size()) : nullptr;
      if (packed_)
        direction.panels = packed_->part(part);
      else
        direction.panels.lay_out(arena, layer.shape);
    }
    lay_out_work(arena, layer, plan.threads());
  }

  void work(int thread, int team, Barrier& all) {
    if (!packed_)
      for (std::size_t part = 0; part < layers_.size() * spec_.num_directions; ++part) {
        const Layer<T>& layer = layers_[part / spec_.num_directions];
        layer.direction[part % spec_.num_directions].panels.pack(layer.shape, weights_[part], thread, team);
      }
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      all.wait(team);
      run_layer(layers_[l], thread);
      if (l + 1 == layers_.size() || !call_.masks) continue;
      all.wait(team);
      drop_out(l, thread, team);
    }
    all.wait(team);
    finish_output(thread, team);
  }

  // The next layer's input: the outputs times their mask.
  void drop_out(std::size_t l, int thread, int team) {
    const Sequence<T> from = layers_[l].direction[0].y, to = dropped_[l + 1];
    const Range own = share(batch_.size(), team, thread);
    for (int64_t row = own.first; row < own.last; ++row)
      for (int64_t t = 0; t < batch_.length(row); ++t) {
        const int64_t b = batch_.sequence(row), at = t * from.stride_t + b * from.stride_b;
        const T* mask = call_.masks[l] + (t * call_.batch + b) * width();
        for (int64_t i = 0; i < width(); ++i) to.data[at + i] = from.data[at + i] * mask[i];
      }
  }

  // Zeros after each sequence's end; or, where no sequence is wanted, its last output.
  void finish_output(int thread, int team) {
    const Range own = share(call_.batch, team, thread);
    for (int64_t row = own.first; row < own.last; ++row) {
      const int64_t b = batch_.sequence(row);
      T* out = call_.y.data + b * call_.y.stride_b;
      if (call_.return_sequence) {
        for (int64_t t = batch_.length(row); t < call_.steps; ++t)
          std::fill_n(out + t * call_.y.stride_t, width(), T(0));
      } else {
        for (int64_t d = 0; d < spec_.num_directions; ++d)
          std::copy_n(layers_.back().direction[d].hn + b * spec_.output_size(), spec_.output_size(),
                      out + d * spec_.output_size());
      }
    }
  }

  const Spec& spec_;
  const Weights<const T>* weights_;
  const Packed<T>* packed_;
  const ForwardCall<T>& call_;
  const Batch& batch_;
  Tape<T>* tape_;
  const Problem problem_;
  std::vector<Layer<T>> layers_;
  std::vector<Sequence<T>> dropped_;
  T* zeros_ = nullptr;
};

template <class T>
std::shared_ptr<Tape<T>> run_with_tape(const Spec& spec, const KernelTable& table, const Weights<const T>* weights,
                                       const ForwardCall<T>& call, bool recompute, bool save_values, int threads) {
  Batch batch(call.steps, call.batch, call.lengths);
  const int64_t block = block_steps(problem_of<T>(spec, table, batch, false));
  auto tape = std::make_shared<Tape<T>>(spec, table, call, std::move(batch), recompute, block, !call.return_sequence);
  ForwardNetwork<T>(spec, table, weights, nullptr, call, tape->batch, tape.get(), save_values).run(threads);
  return tape;
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
  ForwardNetwork<T>(spec, table, weights, packed, call, batch, nullptr, false).run(threads);
}

template <class T>
std::shared_ptr<const Tape<T>> forward(const Spec& spec, const KernelTable& table, const Weights<const T>* weights,
                                       const ForwardCall<T>& call, bool recompute, int threads) {
  return run_with_tape(spec, table, weights, call, recompute, false, threads);
}

template <class T>
std::size_t tape_bytes(const Tape<T>& tape) {
  return tape.bytes();
}

int64_t trace_values(const Spec& spec) {
  switch (spec.family) {
    case CellFamily::rnn:
      return 0;
    case CellFamily::lstm:
      return 5;
    default:
      return 3;
  }
}

template <class T>
void trace(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, const ForwardCall<T>& call,
           T* const* values, T* const* hidden, int threads) {
  const auto tape = run_with_tape(spec, table, weights, call, false, true, threads);
  const Batch& batch = tape->batch;
  const int64_t units = spec.hidden_size, outputs = spec.output_size(), wanted = trace_values(spec);
  const int64_t saved = Shape<T>(spec, table, 0).info().saved;
  for (int64_t part = 0; part < spec.num_layers * spec.num_directions; ++part) {
    const int64_t layer = part / spec.num_directions, d = part % spec.num_directions;
    const Sequence<T> y = tape->outputs[layer].data ? tape->outputs[layer] : call.y;
    for (int64_t v = 0; v < wanted; ++v) std::fill_n(values[part * wanted + v], call.steps * call.batch * units, T(0));
    std::fill_n(hidden[part], call.steps * call.batch * outputs, T(0));
    for (int64_t step = 0; step < batch.steps(); ++step)
      for (int64_t row = 0; row < batch.active(step); ++row) {
        const int64_t b = batch.sequence(row), t = d == 0 ? step : batch.length(row) - 1 - step;
        const int64_t at = t * call.batch + b, kept = batch.first(step) + row;
        for (int64_t v = 0; v < wanted; ++v) {
          const T* from =
              v == 4 ? tape->kept[part].c + kept * units : tape->kept[part].saved + (kept * saved + v) * units;
          std::copy_n(from, units, values[part * wanted + v] + at * units);
        }
        std::copy_n(y.data + t * y.stride_t + b * y.stride_b + d * outputs, outputs, hidden[part] + at * outputs);
      }
  }
}

template <class T>
Explanation explain(const Spec& spec, const KernelTable& table, int64_t steps, int64_t batch, const int64_t* lengths,
                    int threads) {
  const Batch sequences(steps, batch, lengths);
  const Problem problem = problem_of<T>(spec, table, sequences, false);
  const CellInfo& info = Shape<T>(spec, table, 0).info();
  return {make_plan(problem, threads), block_steps(problem), info.saved + (info.cell_state ? 1 : 0)};
}

template <class T>
void backward(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, const Tape<T>& tape,
              const BackwardCall<T>& call, int threads) {
  const Problem problem = problem_of<T>(spec, table, tape.batch, true);
  CellOptions options[2];
  for (int64_t d = 0; d < spec.num_directions; ++d) options[d] = options_of(spec, d, false);
  run_backward(spec, table, weights, tape, call, options, problem, threads);
}

#define RNNKERN_INSTANTIATE(T)                                                                                         \
  template std::shared_ptr<const Packed<T>> pack(const Spec&, const KernelTable&, const Weights<const T>*, int);       \
  template void run(const Spec&, const KernelTable&, const Weights<const T>*, const Packed<T>*, const ForwardCall<T>&, \
                    int);                                                                                              \
  template std::shared_ptr<const Tape<T>> forward(const Spec&, const KernelTable&, const Weights<const T>*,            \
                                                  const ForwardCall<T>&, bool, int);                                   \
  template Explanation explain<T>(const Spec&, const KernelTable&, int64_t, int64_t, const int64_t*, int);             \
  template std::size_t tape_bytes(const Tape<T>&);                                                                     \
  template void trace(const Spec&, const KernelTable&, const Weights<const T>*, const ForwardCall<T>&, T* const*,      \
                      T* const*, int);                                                                                 \
  template void backward(const Spec&, const KernelTable&, const Weights<const T>*, const Tape<T>&,                     \
                         const BackwardCall<T>&, int);
RNNKERN_INSTANTIATE(float)
RNNKERN_INSTANTIATE(double)
#undef RNNKERN_INSTANTIATE

}  // namespace rnnkern
