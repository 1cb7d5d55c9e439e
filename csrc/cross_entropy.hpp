// A linear layer, softmax and cross-entropy in one, with their gradients.
#pragma once

#include <cstdint>

#include "kernels.hpp"

namespace rnnkern {

// The loss of h . weight^T + bias, and where its gradients go. Only the positions that count are read.
template <class T>
struct CrossEntropy {
  int64_t positions, width, classes;  // N, H >= 1, V >= 1
  const T* h;                         // (N, H)
  const T* weight;                    // (V, H)
  const T* bias;                      // (V,); nullptr: none
  int64_t count;                      // of the positions that count
  const int64_t* counted;             // which these are, increasing
  const int64_t* targets;             // their classes
  bool mean;                          // over these positions, else the sum
  bool gradients;
  T *dh, *dweight, *dbias;  // as h, weight and bias
};

// Returns the loss. The same bits on any number of threads. Throws std::bad_alloc before anything is written.
template <class T>
double cross_entropy(const KernelTable&, const CrossEntropy<T>&, int threads);

}  // namespace rnnkern
