// What comes before the steps of a layer and needs none of them: live weights are packed if they are worth it, and the
// input product of the first block of time is made.
#pragma once

#include <vector>

#include "forward.hpp"
#include "portions.hpp"

namespace rnnkern {

// In pieces of a few panels of hidden units, so that a team's first thread has work while the others wake, whose it may
// be. The products are made ahead of the layer where the plan doesn't divide the sequences, for the directions that
// start at once.
template <class T>
class Prologue {
 public:
  // weights: per layer and direction; nullptr: they are packed.
  Prologue(std::vector<Layer<T>>& layers, const Weights<const T>* weights) : layers_(layers), weights_(weights) {}

  void lay_out(Arena& arena, const Plan& wanted);
  // One thread, for the plan that the layers have in the end, before anything else.
  void begin();
  // One thread, when x of the layer has its place and the pieces of the layer before are done.
  void enter(std::size_t layer);
  // Does a piece of the layer; false: nothing is left. A thread has its own pieces first.
  bool work(std::size_t layer, int thread);
  // Whether a layer must wait until the pieces of all threads are done: the same for all threads and layers of a call.
  bool needed() const { return weights_ || layers_[0].direction[0].input_made; }

 private:
  // About four vectors wide.
  int64_t most_panels() const { return divide_up(4, layers_[0].shape.info().gates); }
  int crew() const { return layers_[0].plan.rows * layers_[0].plan.units; }
  void work(const Layer<T>& layer, int64_t direction, Portions::Piece piece, const Weights<const T>* weights,
            T* packed_once) const;

  std::vector<Layer<T>>& layers_;
  const Weights<const T>* weights_;
  std::vector<Portions> pieces_;  // panels of hidden units, per layer and direction
  int64_t* offsets_[2] = {};      // per direction: the first block's rows, in x
  // Per thread, where there is one block only: the input weights of a piece, which are multiplied with once.
  T* packed_once_ = nullptr;
  int64_t once_size_ = 0;
};

}  // namespace rnnkern
