// Memory that outlives a call, as tapes and results do, from any thread to any thread. Up to about 64 MiB of what was
// given up is kept for what it is large enough for and at most half too large: so a training loop does not have the
// system clear new pages at every step. What is small is left to the allocator, which does the same.
#pragma once

#include <cstddef>

#include "workspace.hpp"

namespace rnnkern {

constexpr std::size_t kRecycled = std::size_t{128} << 10;  // from this size on

// A block of at least `bytes`. Throws std::bad_alloc.
Block recycled(std::size_t bytes);
void give_up(Block block) noexcept;
// The same of memory of at least `bytes` from the C library.
void give_up(void* memory, std::size_t bytes) noexcept;

}  // namespace rnnkern
