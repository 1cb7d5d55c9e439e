// How the work of one layer is split over the threads: a pure function of sizes, thread count and a barrier's time.
#pragma once

#include <cstdint>

namespace rnnkern {

struct Problem {
  int64_t steps;  // longest sequence
  int64_t batch;
  int64_t total_steps;  // sum of lengths
  int64_t input_size, hidden_size, output_size, gates;
  int64_t directions;
  int64_t element_size;  // bytes
  int64_t lanes;
  bool backward;
  bool live;  // forward packs the weights
};

// threads used = directions * rows * units.
struct Plan {
  int directions;  // directions processed at the same time: 1 or 2
  int rows;        // groups of sequences
  int units;       // groups of hidden units; more than 1 costs a barrier a step
  int threads() const { return directions * rows * units; }
};

// `barrier`: seconds that two threads take to wait for each other.
Plan make_plan(const Problem&, int threads, double barrier);

// Steps per block of time. Forward: what keeps the block's input product in cache. Backward: as many as are worth
// reading and writing the gradients of the weights for, at every block.
int64_t block_steps(const Problem&);

// Roughly what one thread takes.
double seconds_alone(const Problem&);

}  // namespace rnnkern
