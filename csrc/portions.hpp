// Work that the threads of a team take piece by piece.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>

#include "ranges.hpp"

namespace rnnkern {

// Each thread takes the pieces of its own share first, then what is left of the others': they do the share of one that
// has not been given a processor yet. Who does a piece must not matter.
class Portions {
 public:
  explicit Portions(int most_threads) : shares_(new Share[most_threads]) {}

  // Pieces 0 to `count` for `team` threads; by one thread, before any of them takes.
  void deal(int64_t count, int team) {
    team_ = team;
    for (int thread = 0; thread < team; ++thread) {
      const Range own = share(count, team, thread);
      shares_[thread].next.store(own.first, std::memory_order_relaxed);
      shares_[thread].last = own.last;
    }
  }

  std::optional<int64_t> take(int thread) {
    for (int i = 0; i < team_; ++i) {
      Share& share = shares_[(thread + i) % team_];
      if (share.next.load(std::memory_order_relaxed) >= share.last) continue;
      const int64_t piece = share.next.fetch_add(1, std::memory_order_relaxed);
      if (piece < share.last) return piece;
    }
    return std::nullopt;
  }

 private:
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t last = 0;
  };
  std::unique_ptr<Share[]> shares_;
  int team_ = 0;
};

}  // namespace rnnkern
