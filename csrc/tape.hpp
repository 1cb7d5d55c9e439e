// What a forward pass keeps for backward.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "forward.hpp"
#include "recycled.hpp"

namespace rnnkern {

template <class T>
class Tape {
 public:
  // keep_last: the outputs of the last layer too, because the caller does not keep them. memory: where to keep
  // everything, `needed` bytes; nullptr: in a block of the tape's own.
  Tape(const Spec&, const KernelTable&, const ForwardCall<T>&, Batch batch, bool recompute, int64_t block_steps,
       bool keep_last, char* memory = nullptr);
  Tape(Tape&&) = default;
  Tape& operator=(Tape&&) = delete;
  ~Tape() { give_up(std::move(block_)); }

  Batch batch;
  bool recompute;
  int64_t block_steps;               // of the forward pass; with recompute backward's too: from one c_start to the next
  std::vector<Kept<T>> kept;         // per part (layer and direction)
  std::vector<Sequence<T>> outputs;  // per layer; data nullptr: the caller's y
  std::vector<Sequence<T>> inputs;   // per layer but the first: its input, after dropout
  std::size_t bytes() const { return bytes_; }

 private:
  Block block_;
  std::size_t bytes_ = 0;  // of all that is in it; 0 in the caller's memory
};

}  // namespace rnnkern
