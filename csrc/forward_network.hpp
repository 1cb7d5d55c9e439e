// The forward pass of a whole network.
#pragma once

#include "tape.hpp"

namespace rnnkern {

// Exactly one of weights and packed is given; options: per direction; tape: nullptr in inference.
template <class T>
void forward_network(const Spec& spec, const KernelTable& table, const Weights<const T>* weights,
                     const Packed<T>* packed, const ForwardCall<T>& call, const Batch& batch,
                     const CellOptions* options, const Problem& problem, Tape<T>* tape, int threads);

}  // namespace rnnkern
