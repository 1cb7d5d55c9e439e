#include "backward_network.hpp"

#include <algorithm>
#include <vector>

#include "backward.hpp"
#include "network.hpp"

namespace rnnkern {
namespace {

// A network's layers, from the last to the first, and the gradients between them.
template <class T>
class BackwardNetwork {
 public:
  BackwardNetwork(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, const Tape<T>& tape,
                  const BackwardCall<T>& call, const CellOptions* options, const Problem& problem)
      : spec_(spec), weights_(weights), tape_(tape), call_(call), problem_(problem) {
    const int64_t steps = block_steps(problem);
    for (int64_t l = 0; l < spec.num_layers; ++l) {
      layers_.push_back(
          {{Shape<T>(spec, table, l), &tape.batch, spec.num_directions, steps}, {}, {}, nullptr, tape.recompute});
      for (int64_t d = 0; d < spec.num_directions; ++d) layers_[l].forward.direction[d].options = options[d];
    }
  }

  void run(int threads) {
    run_planned(
        problem_, threads,
        [&](Arena& arena, const Plan& plan, Barrier::Place* places) { lay_out(arena, plan, places); },
        [&](const Plan& plan, int) { begin(plan); }, [] { return false; },
        [&](int thread, int team, const Barrier& all) { work(thread, team, all); });
    interruption_.check();
  }

 private:
  int64_t width() const { return spec_.num_directions * spec_.output_size(); }
  int64_t zero_count() const { return std::max({spec_.hidden_size, spec_.input_size, width()}); }

  void lay_out(Arena& arena, const Plan& plan, Barrier::Place* places) {
    const ForwardCall<T>& call = call_.forward;
    zeros_ = arena.take<T>(zero_count());
    // The gradients between the layers, in two arrays by turns.
    T* between[2] = {nullptr, nullptr};
    for (int64_t i = 0; i < std::min<int64_t>(2, spec_.num_layers - 1); ++i)
      between[i] = arena.take<T>(call.steps * call.batch * width());
    for (int64_t l = 0; l < spec_.num_layers; ++l)
      layers_[l].dx = l == 0 ? call_.dx : Sequence<T>{between[(l - 1) % 2], call.batch * width(), width()};
    const std::size_t mark = arena.used();
    for (int64_t l = 0; l < spec_.num_layers; ++l) {
      arena.rewind(mark);
      lay_out_layer(arena, l, plan, places);
    }
  }

  void lay_out_layer(Arena& arena, int64_t l, const Plan& plan, Barrier::Place* places) {
    const ForwardCall<T>& call = call_.forward;
    BackwardLayer<T>& layer = layers_[l];
    Layer<T>& forward = layer.forward;
    const bool last = l == spec_.num_layers - 1;
    forward.plan = plan;
    forward.zeros = zeros_;
    forward.barrier_places = places;
    forward.interruption = &interruption_;
    forward.x = l == 0 ? call.x : read(tape_.inputs[l]);
    const Sequence<T> y = tape_.outputs[l].data ? tape_.outputs[l] : call.y;
    const int64_t outputs = spec_.output_size();
    for (int64_t d = 0; d < spec_.num_directions; ++d) {
      const int64_t part = l * spec_.num_directions + d, states = part * call.batch;
      const auto at = [&](auto* base, int64_t size) { return base ? base + states * size : nullptr; };
      Direction<T>& direction = forward.direction[d];
      direction.h0 = at(call.h0, outputs);
      direction.c0 = at(call.c0, spec_.hidden_size);
      direction.y = {y.data + d * outputs, y.stride_t, y.stride_b};
      BackwardDirection<T>& back = layer.direction[d];
      back.dhn = at(call_.dhn, outputs);
      back.dcn = at(call_.dcn, spec_.hidden_size);
      back.dh0 = at(call_.dh0, outputs);
      back.dc0 = at(call_.dc0, spec_.hidden_size);
      back.weights = weights_[part];
      back.dweights = call_.dweights && call_.dweights[part].ih ? call_.dweights + part : nullptr;
      back.kept = tape_.kept[part];
      const bool sequence = call.return_sequence;
      back.dlast = last && !sequence && call_.dy.data ? call_.dy.data + d * outputs : nullptr;
      back.dlast_stride = call_.dy.stride_b;
      if (!last)
        back.dy = {layers_[l + 1].dx.data ? layers_[l + 1].dx.data + d * outputs : nullptr, call.batch * width(),
                   width()};
      else
        back.dy = {sequence && call_.dy.data ? call_.dy.data + d * outputs : nullptr, call_.dy.stride_t,
                   call_.dy.stride_b};
    }
    lay_out_backward(arena, layer, l > 0 || call_.dx.data, call_.dweights != nullptr, plan.threads());
  }

  // Directions run at once only where there is work space for it.
  void begin(const Plan& plan) {
    std::fill_n(zeros_, zero_count(), T(0));
    for (BackwardLayer<T>& layer : layers_)
      layer.forward.plan = {std::min(plan.directions, layer.forward.plan.directions), plan.rows, plan.units};
  }

  void work(int thread, int team, const Barrier& all) {
    for (int64_t l = spec_.num_layers - 1; l >= 0; --l) {
      if (l < spec_.num_layers - 1) interruption_.poll();
      const BackwardLayer<T>& layer = layers_[l];
      for (int64_t d = 0; d < spec_.num_directions; ++d) {
        const BackwardDirection<T>& direction = layer.direction[d];
        const Shape<T>& shape = layer.forward.shape;
        direction.panels.pack(shape, zeros_, thread, team);
        if (layer.recompute)
          layer.forward.direction[d].panels.pack(shape, direction.weights,
                                                 share(shape.panels(shape.units), team, thread));
      }
      all.wait(team, thread);
      run_backward(layer, thread);
      if (all.wait(team, thread, interruption_.wanted())) return;
      if (layer.dx.data) finish_dx(l, thread, team);
      all.wait(team, thread);
    }
  }

  // Adds the reverse direction's part, applies the dropout mask, and clears the user's dx after each sequence's end.
  void finish_dx(int64_t l, int thread, int team) const {
    const BackwardLayer<T>& layer = layers_[l];
    const Batch& batch = tape_.batch;
    const ForwardCall<T>& call = call_.forward;
    const int64_t inputs = layer.forward.shape.inputs;
    const T* other = layer.direction[1].dx_own;
    const T* mask = l > 0 && call.masks ? call.masks[l - 1] : nullptr;
    const Range own = share(call.batch, team, thread);
    for (int64_t row = own.first; row < own.last; ++row) {
      const int64_t b = batch.sequence(row), length = batch.length(row);
      for (int64_t t = 0; t < length; ++t) {
        T* dx = layer.dx.data + t * layer.dx.stride_t + b * layer.dx.stride_b;
        if (other) {
          const T* from = other + (batch.first(length - 1 - t) + row) * inputs;
          for (int64_t i = 0; i < inputs; ++i) dx[i] += from[i];
        }
        if (mask)
          for (int64_t i = 0; i < inputs; ++i) dx[i] *= mask[(t * call.batch + b) * inputs + i];
      }
      if (l == 0)
        for (int64_t t = length; t < call.steps; ++t)
          std::fill_n(layer.dx.data + t * layer.dx.stride_t + b * layer.dx.stride_b, inputs, T(0));
    }
  }

  const Spec& spec_;
  const Weights<const T>* weights_;
  const Tape<T>& tape_;
  const BackwardCall<T>& call_;
  const Problem& problem_;
  std::vector<BackwardLayer<T>> layers_;
  Interruption interruption_;
  T* zeros_ = nullptr;
};

}  // namespace

template <class T>
void backward_network(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, const Tape<T>& tape,
                      const BackwardCall<T>& call, const CellOptions* options, const Problem& problem, int threads) {
  BackwardNetwork<T>(spec, table, weights, tape, call, options, problem).run(threads);
}

template void backward_network(const Spec&, const KernelTable&, const Weights<const float>*, const Tape<float>&,
                               const BackwardCall<float>&, const CellOptions*, const Problem&, int);
template void backward_network(const Spec&, const KernelTable&, const Weights<const double>*, const Tape<double>&,
                               const BackwardCall<double>&, const CellOptions*, const Problem&, int);

}  // namespace rnnkern
