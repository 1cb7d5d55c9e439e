#include "batch.hpp"

#include <algorithm>
#include <numeric>

namespace rnnkern {

Batch::Batch(int64_t steps, int64_t size, const int64_t* lengths) : steps_(steps), size_(size) {
  if (size == 0) steps_ = 0;
  if (!lengths || std::all_of(lengths, lengths + size, [&](int64_t n) { return n == steps; })) return;
  sequence_.resize(size);
  std::iota(sequence_.begin(), sequence_.end(), 0);
  std::stable_sort(sequence_.begin(), sequence_.end(), [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
  length_.resize(size);
  std::transform(sequence_.begin(), sequence_.end(), length_.begin(), [&](int64_t b) { return lengths[b]; });
  start_.resize(size);
  std::partial_sum(length_.begin(), length_.end() - 1, start_.begin() + 1);
  steps_ = length_.front();
  first_.assign(steps_ + 1, 0);
  int64_t running = size;
  for (int64_t step = 0; step < steps_; ++step) {
    while (length_[running - 1] <= step) --running;
    first_[step + 1] = first_[step] + running;
  }
}

}  // namespace rnnkern
