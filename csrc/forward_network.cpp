#include "forward_network.hpp"

#include <algorithm>
#include <vector>

#include "network.hpp"
#include "prologue.hpp"

namespace rnnkern {
namespace {

// A network's layers, from the first to the last, and the arrays between them.
template <class T>
class ForwardNetwork {
 public:
  ForwardNetwork(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, const Packed<T>* packed,
                 const ForwardCall<T>& call, const Batch& batch, const CellOptions* options, const Problem& problem,
                 Tape<T>* tape)
      : spec_(spec),
        weights_(weights),
        packed_(packed),
        call_(call),
        batch_(batch),
        problem_(problem),
        tape_(tape),
        prologue_(layers_, packed ? nullptr : weights) {
    for (int64_t l = 0; l < spec.num_layers; ++l) {
      layers_.push_back(
          {Shape<T>(spec, table, l), &batch, spec.num_directions, tape ? tape->block_steps : block_steps(problem)});
      for (int64_t d = 0; d < spec.num_directions; ++d) layers_[l].direction[d].options = options[d];
    }
  }

  void run(int threads) {
    run_planned(
        problem_, threads,
        [&](Arena& arena, const Plan& plan, Barrier::Place* places) { lay_out(arena, plan, places); },
        [&](const Plan& plan, int) { begin(plan); }, [&] { return prologue_.work(0, 0); },
        [&](int thread, int team, const Barrier& all) { work(thread, team, all); });
    interruption_.check();
  }

 private:
  int64_t width() const { return spec_.num_directions * spec_.output_size(); }
  int64_t zero_count() const { return std::max(spec_.hidden_size, spec_.output_size()); }

  void lay_out(Arena& arena, const Plan& plan, Barrier::Place* places) {
    zeros_ = arena.take<T>(zero_count());
    // The last layer writes to the caller, the others to the tape or to two arrays by turns.
    Sequence<T> between[2]{};
    if (!tape_)
      for (int64_t i = 0; i < std::min<int64_t>(2, spec_.num_layers - 1); ++i)
        between[i] = {arena.take<T>(call_.steps * call_.batch * width()), call_.batch * width(), width()};
    const std::size_t mark = arena.used();
    Sequence<const T> x = call_.x;
    for (int64_t l = 0; l < spec_.num_layers; ++l) {
      arena.rewind(mark);
      const bool last = l == spec_.num_layers - 1;
      Sequence<T> y = last ? call_.y : between[l % 2];
      if (last && !call_.return_sequence) y = {nullptr, 0, 0};
      if (tape_ && tape_->outputs[l].data) y = tape_->outputs[l];
      lay_out_layer(arena, l, plan, places, x, y);
      if (!last) x = read(dropped(l));
    }
    arena.rewind(arena.needed());  // behind all layers
    prologue_.lay_out(arena, plan);
  }

  void lay_out_layer(Arena& arena, int64_t l, const Plan& plan, Barrier::Place* places, Sequence<const T> x,
                     Sequence<T> y) {
    Layer<T>& layer = layers_[l];
    layer.plan = plan;
    layer.zeros = zeros_;
    layer.barrier_places = places;
    layer.interruption = &interruption_;
    layer.x = x;
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
      direction.hidden = !y.data ? arena.take<T>(2 * call_.batch * spec_.output_size()) : nullptr;
      if (packed_)
        direction.panels = packed_->part(part);
      else
        direction.panels.lay_out(arena, layer.shape, weights_[part], batch_);
    }
    lay_out_work(arena, layer, plan.threads());
  }

  void begin(const Plan& plan) {
    std::fill_n(zeros_, zero_count(), T(0));
    for (Layer<T>& layer : layers_) layer.plan = plan;
    prologue_.begin();
  }

  void work(int thread, int team, const Barrier& all) {
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      if (l > 0) interruption_.poll();
      while (!interruption_.wanted() && prologue_.work(l, thread)) {
      }
      if (prologue_.needed() && all.wait(team, thread, interruption_.wanted())) return;
      run_layer(layers_[l], thread);
      const bool last = l + 1 == layers_.size();
      if (!last && thread == 0) prologue_.enter(l + 1);
      if (all.wait(team, thread, interruption_.wanted())) return;
      if (!last && call_.masks) {
        drop_out(l, thread, team);
        all.wait(team, thread);
      }
    }
    if (tape_ && tape_->outputs.back().data && call_.return_sequence)
      copy_output(thread, team);
    else
      finish_output(thread, team);
  }

  // What the layer writes, and what the next one reads: the same, or the same times its mask, which needs a place of
  // its own on a tape.
  Sequence<T> outputs(int64_t l) const { return layers_[l].direction[0].y; }
  Sequence<T> dropped(int64_t l) const { return tape_ ? tape_->inputs[l + 1] : outputs(l); }

  void drop_out(std::size_t l, int thread, int team) const {
    const Sequence<T> from = outputs(l), to = dropped(l);
    const Range own = share(batch_.size(), team, thread);
    for (int64_t row = own.first; row < own.last; ++row)
      for (int64_t t = 0; t < batch_.length(row); ++t) {
        const int64_t b = batch_.sequence(row), at = t * from.stride_t + b * from.stride_b;
        const T* mask = call_.masks[l] + (t * call_.batch + b) * width();
        for (int64_t i = 0; i < width(); ++i) to.data[at + i] = from.data[at + i] * mask[i];
      }
  }

  // The tape's, without lengths.
  void copy_output(int thread, int team) const {
    const Sequence<T>& from = tape_->outputs.back();
    const Sequence<T>& to = call_.y;
    const bool together = to.stride_b == width();
    const int64_t count = together ? call_.batch * width() : width();
    const Range own = share(call_.steps, team, thread);
    for (int64_t t = own.first; t < own.last; ++t)
      for (int64_t b = 0; b < (together ? 1 : call_.batch); ++b)
        std::copy_n(from.data + t * from.stride_t + b * from.stride_b, count,
                    to.data + t * to.stride_t + b * to.stride_b);
  }

  // Zeros after each sequence's end; or, where no sequence is wanted, its last output.
  void finish_output(int thread, int team) const {
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
  const Problem& problem_;
  Tape<T>* tape_;
  std::vector<Layer<T>> layers_;
  Prologue<T> prologue_;
  Interruption interruption_;
  T* zeros_ = nullptr;
};

}  // namespace

template <class T>
void forward_network(const Spec& spec, const KernelTable& table, const Weights<const T>* weights,
                     const Packed<T>* packed, const ForwardCall<T>& call, const Batch& batch,
                     const CellOptions* options, const Problem& problem, Tape<T>* tape, int threads) {
  ForwardNetwork<T>(spec, table, weights, packed, call, batch, options, problem, tape).run(threads);
}

template void forward_network(const Spec&, const KernelTable&, const Weights<const float>*, const Packed<float>*,
                              const ForwardCall<float>&, const Batch&, const CellOptions*, const Problem&, Tape<float>*,
                              int);
template void forward_network(const Spec&, const KernelTable&, const Weights<const double>*, const Packed<double>*,
                              const ForwardCall<double>&, const Batch&, const CellOptions*, const Problem&,
                              Tape<double>*, int);

}  // namespace rnnkern
