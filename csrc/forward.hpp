// The time loop of one layer.
#pragma once

#include "layer.hpp"

namespace rnnkern {

// What a forward pass keeps of one layer and direction for backward, one row of the batch after the other: step s of
// row r is at Layer::place(r) + s - origin. So what threads write is not interleaved: the processor would fetch ahead
// what another core has just written, and make that one fetch it back.
template <class T>
struct Kept {
  T* saved = nullptr;    // (places, saved * H)
  T* c = nullptr;        // (places, H)
  T* c_start = nullptr;  // (blocks, B, H): c before each block of time, to recompute the rest from
  int64_t origin = 0;
};

// One direction of a layer.
template <class T>
struct Direction {
  ForwardPanels<T> panels;
  CellOptions options;
  const T* h0;  // (B, O), or nullptr
  const T* c0;  // (B, H), or nullptr
  T* hn;        // (B, O), or nullptr: not wanted
  T* cn;        // (B, H), nullptr without a cell state
  Kept<T> kept;
  Sequence<T> y;    // its columns of the output
  T* hidden;        // (2, B, O) where y is not kept: the last two steps
  T* discarded;     // (B, H) where y is there already: h of a step that is computed again
  bool input_made;  // of the first block, before the layer runs

  // Work space.
  T* input;       // the input product of a block, by thread
  T* inner;       // (B, H): what the second product of a step multiplies
  T* saved_step;  // (B, saved * H): values of the step, where they are not kept but a later stage needs them
};

template <class T>
struct Layer {
  Shape<T> shape;
  const Batch* batch;
  int64_t directions;
  int64_t block_steps;  // steps per block of time
  Plan plan{};
  Sequence<const T> x{};
  Direction<T> direction[2]{};
  const T* zeros = nullptr;      // as many as the widest row that they stand for
  int64_t* row_lists = nullptr;  // per thread: row_list_size
  Barrier::Place* barrier_places = nullptr;
  Interruption* interruption = nullptr;

  int64_t blocks() const { return divide_up(batch->steps(), block_steps); }
  int64_t block_rows() const { return block_steps * batch->size(); }
  // Of the first step of a row in what is kept of the whole sequences, or of a block that is computed again.
  int64_t place(const Direction<T>& direction, int64_t row) const {
    return direction.discarded ? row * block_steps : batch->start(row);
  }
  // The part of a block's input product, a row of the block each, that the thread for a group of sequences and these
  // panels of hidden units reads.
  Rows<T> input_of(const Direction<T>& direction, int64_t group, Range units) const {
    const int64_t group_rows = block_steps * divide_up(batch->size(), plan.rows), width = shape.input_width();
    return {direction.input + (group * shape.panels(shape.units) + units.first) * group_rows * width,
            units.size() * width, nullptr};
  }
  int64_t row_list_size() const { return OwnRows::list_size(*batch) + 3 * batch->size() + block_rows(); }
};

// Work space of a layer's directions, for at most `threads` threads.
template <class T>
void lay_out_work(Arena& arena, Layer<T>& layer, int threads);

// The input product of `rows` rows, at these offsets in x, for some panels of hidden units, and their weights, if they
// are packed.
template <class T>
void multiply_input(const Layer<T>& layer, const Direction<T>& direction, int64_t rows, const int64_t* offsets,
                    Range panels, Panels<T> packed, Rows<T> out);

// One thread's view of one direction: its rows and where they are.
template <class T>
class Runner {
 public:
  Runner(const Layer<T>& layer, const Worker& worker, int64_t direction, int64_t* lists);

  // Steps [first, last), at most a block. `c_first` is c before them. Returns to all of the group alike whether the
  // call is to be given up.
  bool run(int64_t first, int64_t last, Rows<const T> c_first, const Kept<T>& kept) const;

  const OwnRows& own() const { return own_; }
  Rows<const T> h_at(int64_t step) const;  // step -1: the initial state
  Rows<const T> c_initial() const;         // c0 or zeros, by sequence
  // What is kept of a step.
  Rows<T> kept_saved(const Kept<T>& kept, int64_t step) const { return kept_at(kept, step, kept.saved, saved_width_); }
  Rows<T> kept_c(const Kept<T>& kept, int64_t step) const { return kept_at(kept, step, kept.c, layer_.shape.units); }
  Track<const T> x() const { return x_; }
  Range units() const { return units_; }      // panels of hidden units
  Range outputs() const { return outputs_; }  // panels of h
  Range unit_columns() const { return columns(units_, layer_.shape.units); }
  Range output_columns() const { return columns(outputs_, layer_.shape.outputs); }

 private:
  Range columns(Range panels, int64_t width) const;
  Rows<T> kept_at(const Kept<T>& kept, int64_t step, T* base, int64_t width) const {
    return {base ? base + (step - kept.origin) * width : nullptr, width, places_};
  }
  bool step(int64_t step, Rows<const T> input, Rows<const T> c_previous, Rows<T> c, Rows<T> saved) const;
  Rows<T> h_to(int64_t step) const;

  const Layer<T>& layer_;
  const Worker& worker_;
  const Direction<T>& direction_;
  OwnRows own_;
  Track<const T> x_;
  Track<T> y_;
  Range units_, outputs_;
  const int64_t saved_width_;
  const int64_t* places_;  // of the own rows in what is kept
  int64_t* block_list_;
};

// One thread's part of the layer, all of its directions.
template <class T>
void run_layer(const Layer<T>& layer, int thread);

}  // namespace rnnkern
