// Back-propagation through time, in blocks of time from the last to the first.
#pragma once

#include "layer.hpp"
#include "tape.hpp"

namespace rnnkern {

// options: per direction.
template <class T>
void run_backward(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, const Tape<T>& tape,
                  const BackwardCall<T>& call, const CellOptions* options, const Problem& problem, int threads);

}  // namespace rnnkern
