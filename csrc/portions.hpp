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

  // 0 to `count` for `team` threads, in pieces of at most `limit`; by one thread, before any of them takes.
  void deal(int64_t count, int team, int64_t limit) {
    team_ = team;
    for (int thread = 0; thread < team; ++thread) {
      const Range own = share(count, team, thread);
      shares_[thread].next.store(own.first, std::memory_order_relaxed);
      shares_[thread].own = own;
      shares_[thread].piece = divide_up(own.size(), std::max<int64_t>(1, divide_up(own.size(), limit)));
    }
  }

  struct Piece {
    Range range, share;  // `share`: all that was dealt to the same thread
  };
  std::optional<Piece> take(int thread) {
    for (int i = 0; i < team_; ++i) {
      Share& share = shares_[(thread + i) % team_];
      if (share.next.load(std::memory_order_relaxed) >= share.own.last) continue;
      const int64_t first = share.next.fetch_add(share.piece, std::memory_order_relaxed);
      if (first < share.own.last) return Piece{{first, std::min(first + share.piece, share.own.last)}, share.own};
    }
    return std::nullopt;
  }

 private:
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    Range own{0, 0};
    int64_t piece = 1;
  };
  std::unique_ptr<Share[]> shares_;
  int team_ = 0;
};

}  // namespace rnnkern
