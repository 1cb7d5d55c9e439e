// The sequences of one call in the order they are worked on: the longest first, so that the ones that still run at a
// step are the first ones. A sequence's place in that order is its row.
#pragma once

#include <cstdint>
#include <vector>

namespace rnnkern {

class Batch {
 public:
  // lengths: `size` of them in 1..steps, or nullptr: all have `steps`.
  Batch(int64_t steps, int64_t size, const int64_t* lengths);

  int64_t size() const { return size_; }
  int64_t steps() const { return steps_; }  // of the longest
  int64_t total() const { return first(steps_); }
  bool ragged() const { return !first_.empty(); }

  // Index in the caller's batch of a row, and its length.
  int64_t sequence(int64_t row) const { return ragged() ? sequence_[row] : row; }
  int64_t length(int64_t row) const { return ragged() ? length_[row] : steps_; }
  // Rows 0..active(step) still run at a step.
  int64_t active(int64_t step) const { return ragged() ? first_[step + 1] - first_[step] : size_; }
  // Number of (step, row) pairs before a step: where its rows begin in an array that has no padding.
  int64_t first(int64_t step) const { return ragged() ? first_[step] : step * size_; }
  // Number of steps of all rows before one: where its steps begin in an array that has one row after the other.
  int64_t start(int64_t row) const { return ragged() ? start_[row] : row * steps_; }

 private:
  int64_t steps_, size_;
  std::vector<int64_t> sequence_, length_, first_, start_;
};

}  // namespace rnnkern
