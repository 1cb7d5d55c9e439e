// Back-propagation through a whole network.
#pragma once

#include "tape.hpp"

namespace rnnkern {

// options: per direction.
template <class T>
void backward_network(const Spec& spec, const KernelTable& table, const Weights<const T>* weights, const Tape<T>& tape,
                      const BackwardCall<T>& call, const CellOptions* options, const Problem& problem, int threads);

}  // namespace rnnkern
