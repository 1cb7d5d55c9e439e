// What forward and backward of one layer share: who does what, and where a sequence is at a step.
#pragma once

#include <cstdint>

#include "batch.hpp"
#include "interruption.hpp"
#include "panels.hpp"
#include "plan.hpp"
#include "threads.hpp"

namespace rnnkern {

// One thread's part of one layer. Threads of a group share sequences and divide the units; the groups of a direction
// (its crew) divide the sequences.
struct Worker {
  int64_t first_direction, last_direction;
  int group, groups;      // of sequences
  int unit, units;        // of units, within the group
  Barrier group_barrier;  // among `units` threads
  Barrier crew_barrier;   // among groups * units threads
  Interruption* interruption;

  int crew() const { return groups * units; }
  int rank() const { return group * units + unit; }
  // Both return to all who meet alike whether the call is to be given up.
  bool wait_group() const { return group_barrier.wait(units, unit, interruption->wanted()); }
  bool wait_crew() const { return crew_barrier.wait(crew(), rank(), interruption->wanted()); }
};

// Places in the barriers of a plan, if there are any: those of the groups, then those of the directions' crews.
inline int barrier_places(const Plan& plan) { return plan.threads() > 1 ? 2 * plan.threads() : 0; }

// False for threads that the plan has no work for.
bool assign(const Plan& plan, int64_t directions, int thread, Barrier::Place* places, Interruption* interruption,
            Worker* worker);

// The rows of a batch that one group works on, and where they are. Row lists are in the batch's order, so the rows that
// still run at a step are the first ones.
class OwnRows {
 public:
  static int64_t list_size(const Batch& batch) { return 2 * batch.size(); }
  OwnRows() = default;
  OwnRows(const Batch& batch, const Worker& worker, int64_t* lists);

  int64_t size() const { return size_; }
  int64_t active(int64_t step) const;
  const int64_t* rows() const { return rows_; }            // places in the batch's order
  const int64_t* sequences() const { return sequences_; }  // the caller's indices

 private:
  const Batch* batch_ = nullptr;
  int64_t size_ = 0;
  int64_t group_ = 0, groups_ = 1;
  const int64_t* rows_ = nullptr;
  const int64_t* sequences_ = nullptr;
};

template <class T>
Rows<const T> read(Rows<T> rows) {
  return {rows.base, rows.stride, rows.index};
}
template <class T>
Sequence<const T> read(Sequence<T> sequence) {
  return {sequence.data, sequence.stride_t, sequence.stride_b};
}

// Where step `step` of a direction is in a (T, B, N) array: element offsets of row i are origin[i] + shift(step).
template <class T>
struct Track {
  T* base;
  int64_t stride_t;
  bool reverse;
  const int64_t* origin;

  int64_t shift(int64_t step) const { return reverse ? -step * stride_t : step * stride_t; }
  Rows<T> at(int64_t step) const { return {base + shift(step), 1, origin}; }
};

// Offset of a row's first step.
template <class T>
int64_t origin_of(const Sequence<T>& sequence, const Batch& batch, int64_t row, bool reverse) {
  return batch.sequence(row) * sequence.stride_b + (reverse ? (batch.length(row) - 1) * sequence.stride_t : 0);
}

}  // namespace rnnkern
