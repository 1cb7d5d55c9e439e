#include "cross_entropy.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "interruption.hpp"
#include "panels.hpp"
#include "ranges.hpp"
#include "threads.hpp"
#include "workspace.hpp"

namespace rnnkern {
namespace {

// Sizes of what is at work at a time; none depends on the number of threads.
constexpr int64_t kMostClasses = 120, kClassGrain = 6, kBlocks = 32;  // a block of logits
constexpr int64_t kMostPositions = 256, kLeastPositions = 128;        // a chunk
constexpr int64_t kChunkBytes = int64_t{16}
                                << 20;  // of its logits, where it keeps them all and the weight is not larger
constexpr int64_t kMostDepth = 512, kLeastDepth = 64;  // classes in a product for dh
constexpr int64_t kPanelBytes = int64_t{512} << 10;    // of the weight, packed for it
constexpr int64_t kPartChunks = 32;                    // whose sums are added before they go to the weight's gradient
constexpr int64_t kBlocksEach = 16;                    // from so many a thread, logits are split by class

constexpr double kFlops = 80e9, kExponential = 1e-9, kTeam = 8e-6;  // rough figures of a processor and a team

// In pairs: the error grows with the logarithm of the count.
double sum_of(const double* values, int64_t count) {
  if (count <= 64) return std::accumulate(values, values + count, 0.0);
  return sum_of(values, count / 2) + sum_of(values + count / 2, count - count / 2);
}

// The positions go through in chunks. Those of a chunk are columns of transposed logits, so that the rows of the weight
// are factors as they are. The logits are split by class, or by position where classes are few; the gradients of the
// weight by class, those of h by column.
template <class T>
class Run {
 public:
  Run(const KernelTable& table, const CrossEntropy<T>& call, int threads)
      : kernels_(kernels_of<T>(table)),
        call_(call),
        lanes_(kernels_.lanes),
        width_(divide_up(call.width, lanes_) * lanes_),
        rows_(std::clamp(divide_up(divide_up(call.classes, kBlocks), kClassGrain) * kClassGrain, kClassGrain,
                         kMostClasses)),
        blocks_(divide_up(call.classes, rows_)),
        depth_(std::min(std::clamp(kPanelBytes / static_cast<int64_t>(sizeof(T)) / width_, kLeastDepth, kMostDepth),
                        call.classes)),
        positions_(chunk_positions()),
        stride_(divide_up(positions_, lanes_) * lanes_),
        workspace_(rnnkern::lay_out([&](Arena& arena) { lay_out(arena, threads); })) {}

  double run(int threads) {
    run_team(
        threads, [](int) {}, [&](int thread, int team, const Barrier& all) { work(thread, team, all); });
    interruption_.check();
    return static_cast<double>(loss_);
  }

 private:
  int64_t chunk_positions() const {
    const int64_t fit = std::max(kChunkBytes / static_cast<int64_t>(sizeof(T)) / call_.classes, call_.width);
    const int64_t most = call_.gradients ? std::clamp(fit, kLeastPositions, kMostPositions) : kMostPositions;
    return divide_up(call_.count, divide_up(call_.count, most));
  }

  void lay_out(Arena& arena, int threads) {
    compact_ = arena.take<T>(positions_ * call_.width);
    columns_ = arena.take<T>(stride_ * call_.width);
    largest_ = arena.take<T>(blocks_ * stride_);
    sum_ = arena.take<T>(blocks_ * stride_);
    picked_ = arena.take<T>(positions_);
    losses_ = arena.take<double>(call_.count);
    if (call_.gradients) {
      logits_ = arena.take<T>(call_.classes * stride_);
      dh_ = arena.take<T>(positions_ * call_.width);
      rows_of_h_ = arena.take<T>(positions_ * width_);
      if (call_.count > kPartChunks * positions_) dweight_part_ = arena.take<T>(call_.classes * call_.width);
      if (call_.dbias) dbias_part_ = arena.take<T>(call_.classes);
      scratch_size_ = width_ * depth_;
    } else {
      scratch_size_ = rows_ * stride_;
    }
    scratch_ = arena.take<T>(threads * scratch_size_);
    if (call_.gradients) packed_rows_ = arena.take<const T*>(threads * depth_);
  }

  void work(int thread, int team, const Barrier& all) {
    const auto stop = [&] { return all.wait(team, thread, interruption_.wanted()); };
    if (call_.gradients) clear_dh(thread, team);
    for (int64_t first = 0; first < call_.count; first += positions_) {
      const Chunk chunk{first, std::min(positions_, call_.count - first)};
      const Range own = share(chunk.size, team, thread, lanes_), blocks = share(blocks_, team, thread);
      gather(chunk, own);
      if (stop()) return;
      if (blocks_ >= kBlocksEach * team)
        for (int64_t block = blocks.first; block < blocks.last && !interruption_.poll(); ++block)
          make_logits(chunk, block, {0, chunk.size}, thread);
      else if (own.size() > 0)
        for (int64_t block = 0; block < blocks_ && !interruption_.poll(); ++block)
          make_logits(chunk, block, own, thread);
      if (stop()) return;
      finish_losses(chunk, own);
      if (!call_.gradients) continue;
      if (stop()) return;
      for (int64_t block = blocks.first; block < blocks.last && !interruption_.poll(); ++block)
        make_dweight(chunk, block);
      if (stop()) return;
      make_dh(chunk, thread, team);
    }
    if (stop() || thread > 0) return;
    const double sum = sum_of(losses_, call_.count);
    loss_ = static_cast<T>(call_.mean ? sum / static_cast<double>(call_.count) : sum);
  }

  struct Chunk {
    int64_t first, size;  // of the positions that count
  };

  Range classes(int64_t block) const { return {block * rows_, std::min((block + 1) * rows_, call_.classes)}; }
  const T* bias(int64_t first) const { return call_.bias ? call_.bias + first : nullptr; }

  // Zeros where nothing counts.
  void clear_dh(int thread, int team) const {
    if (call_.count == call_.positions) return;
    const Range rows = share(call_.positions, team, thread);
    const int64_t* next = std::lower_bound(call_.counted, call_.counted + call_.count, rows.first);
    for (int64_t row = rows.first; row < rows.last; ++row)
      if (next < call_.counted + call_.count && *next == row)
        ++next;
      else
        std::fill_n(call_.dh + row * call_.width, call_.width, T(0));
  }

  // Packs own rows of h, as columns for the logits and as rows for the gradient of the weight.
  void gather(Chunk chunk, Range own) const {
    if (own.size() == 0) return;
    T* const compact = compact_ + own.first * call_.width;
    for (int64_t i = 0; i < own.size(); ++i)
      std::copy_n(call_.h + call_.counted[chunk.first + own.first + i] * call_.width, call_.width,
                  compact + i * call_.width);
    kernels_.pack_columns({compact, own.size(), call_.width, 1, 0, divide_up(own.size(), lanes_),
                           grouped(columns_, stride_ / lanes_, 1, own.first / lanes_)});
    if (call_.gradients)
      kernels_.pack_rows({{compact, call_.width, nullptr},
                          own.size(),
                          call_.width,
                          own.first,
                          chunk.size,
                          width_ / lanes_,
                          grouped(rows_of_h_, width_ / lanes_, 1)});
  }

  // The logits of a block of classes at some positions, and their part of the softmax.
  void make_logits(Chunk chunk, int64_t block, Range positions, int thread) const {
    const Range own = classes(block);
    const int64_t panels = divide_up(positions.size(), lanes_);
    T* const logits = call_.gradients ? logits_ + own.first * stride_ : scratch_ + thread * scratch_size_;
    kernels_.linear({own.size(),
                     call_.width,
                     panels,
                     stride_,
                     {call_.weight + own.first * call_.width, call_.width, nullptr},
                     read(grouped(columns_, stride_ / lanes_, 1, positions.first / lanes_)),
                     {logits, stride_, nullptr},
                     false});
    kernels_.softmax.block({own.size(), panels * lanes_, logits + positions.first, stride_, bias(own.first),
                            largest_ + block * stride_ + positions.first, sum_ + block * stride_ + positions.first});
    for (int64_t i = positions.first; i < positions.last; ++i) {
      const int64_t target = call_.targets[chunk.first + i];
      if (target >= own.first && target < own.last)
        picked_[i] = logits[(target - own.first) * stride_ + i] + (call_.bias ? call_.bias[target] : T(0));
    }
  }

  // Of own positions; where gradients are wanted, sum_ then holds the softmax's factors.
  void finish_losses(Chunk chunk, Range own) const {
    if (own.size() == 0) return;
    const int64_t width = divide_up(own.size(), lanes_) * lanes_;
    T *const largest = largest_ + own.first, *const sum = sum_ + own.first;
    kernels_.softmax.merge({blocks_, width, stride_, largest, sum});
    for (int64_t i = 0; i < own.size(); ++i) {
      const double distance = static_cast<double>(picked_[own.first + i]) - static_cast<double>(largest[i]);
      losses_[chunk.first + own.first + i] = std::log(static_cast<double>(sum[i])) - distance;
    }
    if (!call_.gradients) return;
    for (int64_t i = 0; i < width; ++i) sum[i] = i < own.size() ? scale() / sum[i] : T(0);
  }

  T scale() const { return call_.mean ? T(1) / static_cast<T>(call_.count) : T(1); }

  // The gradient of a block's logits, and what it adds to the gradients of the weight and the bias.
  void make_dweight(Chunk chunk, int64_t block) const {
    const Range own = classes(block);
    T* const logits = logits_ + own.first * stride_;
    const int64_t row = own.first * call_.width, index = chunk.first / positions_;
    const bool resume = index > 0, last = chunk.first + chunk.size == call_.count;
    kernels_.softmax.gradient({own.size(), divide_up(chunk.size, lanes_) * lanes_, logits, stride_, bias(own.first),
                               largest_, sum_, call_.targets + chunk.first, chunk.size, own.first, scale(),
                               call_.dbias ? dbias_part_ + own.first : nullptr, resume});
    if (call_.dbias) kernels_.add_part({own.size(), call_.dbias + own.first, dbias_part_ + own.first, resume});
    kernels_.linear({own.size(),
                     chunk.size,
                     width_ / lanes_,
                     call_.width,
                     {logits, stride_, nullptr},
                     read(grouped(rows_of_h_, width_ / lanes_, 1)),
                     {(dweight_part_ ? dweight_part_ : call_.dweight) + row, call_.width, nullptr},
                     resume});
    if (dweight_part_ && (last || (index + 1) % kPartChunks == 0))
      kernels_.add_part({own.size() * call_.width, call_.dweight + row, dweight_part_ + row, index >= kPartChunks});
  }

  // The gradient of h: each thread has panels of columns, and rows where there are more threads than panels. A sum over
  // the classes, in blocks whose weights, packed, fit into a cache.
  void make_dh(Chunk chunk, int thread, int team) {
    const int64_t panels = width_ / lanes_;
    const int across = static_cast<int>(std::min<int64_t>(team, panels)), down = team / across;
    if (thread >= across * down) return;
    const Range own = share(panels, across, thread % across), rows = share(chunk.size, down, thread / across, lanes_);
    if (rows.size() == 0) return;
    const int64_t column = own.first * lanes_, columns = std::min(own.last * lanes_, call_.width) - column;
    T* const packed = scratch_ + thread * scratch_size_;
    T* const dh = dh_ + rows.first * call_.width + column;
    const T** const packed_rows = packed_rows_ + thread * depth_;
    for (int64_t k = 0; k < depth_; ++k) packed_rows[k] = packed + k * lanes_;
    for (int64_t first = 0; first < call_.classes && !interruption_.poll(); first += depth_) {
      const int64_t depth = std::min(depth_, call_.classes - first);
      kernels_.pack_rows({{call_.weight + first * call_.width + column, call_.width, nullptr},
                          depth,
                          columns,
                          0,
                          depth,
                          own.size(),
                          {packed, own.size(), 0, 1}});
      kernels_.outer({rows.size(),
                      columns,
                      depth,
                      logits_ + first * stride_ + rows.first,
                      stride_,
                      {packed_rows, 0, depth * lanes_},
                      dh,
                      call_.width,
                      first > 0});
    }
    for (int64_t i = 0; i < rows.size(); ++i)
      std::copy_n(dh + i * call_.width, columns,
                  call_.dh + call_.counted[chunk.first + rows.first + i] * call_.width + column);
  }

  const Kernels<T>& kernels_;
  const CrossEntropy<T>& call_;
  const int64_t lanes_, width_;       // H in whole panels
  const int64_t rows_, blocks_;       // classes in a block, and how many blocks
  const int64_t depth_;               // classes in a product for dh
  const int64_t positions_, stride_;  // of a chunk, and in whole vectors
  T* compact_;                        // (positions, H): rows of h
  T* columns_;                        // (panels of positions, H)
  T *largest_, *sum_;                 // (blocks, stride)
  T* picked_;                         // (positions,): the target's logit
  double* losses_;                    // (count,)
  T* logits_ = nullptr;               // (V, stride), later their gradient
  T* dh_ = nullptr;                   // (positions, H)
  T* rows_of_h_ = nullptr;            // (H panels, positions)
  T* dweight_part_ = nullptr;         // (V, H): sums of the last chunks, where these are many
  T* dbias_part_ = nullptr;           // (V)

  T* scratch_;  // one a thread
  const T** packed_rows_ = nullptr;
  int64_t scratch_size_ = 0;
  Workspace workspace_;
  Interruption interruption_;
  T loss_ = 0;
};

template <class T>
int worth_having(const CrossEntropy<T>& call, int threads) {
  const double logits = static_cast<double>(call.count) * static_cast<double>(call.classes);
  const double flops = (call.gradients ? 6 : 2) * logits * static_cast<double>(call.width);
  const double seconds = sizeof(T) / 4 * (flops / kFlops + (call.gradients ? 2 : 1) * logits * kExponential);
  return seconds <= kTeam ? 1 : worth_waking(threads, seconds);
}

}  // namespace

template <class T>
double cross_entropy(const KernelTable& table, const CrossEntropy<T>& call, int threads) {
  if (call.count == 0) {
    if (call.gradients) {
      std::fill_n(call.dh, call.positions * call.width, T(0));
      std::fill_n(call.dweight, call.classes * call.width, T(0));
      if (call.dbias) std::fill_n(call.dbias, call.classes, T(0));
    }
    return call.mean ? std::numeric_limits<double>::quiet_NaN() : 0;
  }
  threads = worth_having(call, threads);
  return Run<T>(table, call, threads).run(threads);
}

template double cross_entropy<float>(const KernelTable&, const CrossEntropy<float>&, int);
template double cross_entropy<double>(const KernelTable&, const CrossEntropy<double>&, int);

}  // namespace rnnkern
