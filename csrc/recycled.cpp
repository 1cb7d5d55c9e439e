#include "recycled.hpp"

#if defined(__linux__)
#include <malloc.h>
#elif defined(__APPLE__)
#include <malloc/malloc.h>
#endif

#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

namespace rnnkern {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kKeep = 0;  // the sanitizer is to see who uses what was given up
#else
constexpr std::size_t kKeep = std::size_t{64} << 20;
#endif
constexpr std::size_t kSlots = 48;
constexpr std::size_t kPage = 4096;

// A slot that is being looked into is empty to others meanwhile. Never destroyed: arrays may live until the very end.
std::atomic<Block*> slots[kSlots];
std::atomic<std::size_t> kept{0}, next{0};  // bytes in all slots; the one to be emptied next

std::unique_ptr<Block> take(std::atomic<Block*>& slot) {
  if (!slot.load(std::memory_order_relaxed)) return nullptr;
  std::unique_ptr<Block> block(slot.exchange(nullptr));
  if (block) kept.fetch_sub(block->size());
  return block;
}

// Into the first empty slot from here on, if there is one.
void put(std::unique_ptr<Block> block, std::size_t from) {
  kept.fetch_add(block->size());
  for (std::size_t i = 0; i < kSlots; ++i) {
    Block* none = nullptr;
    if (slots[(from + i) % kSlots].compare_exchange_strong(none, block.get())) {
      static_cast<void>(block.release());
      return;
    }
  }
  kept.fetch_sub(block->size());
}

std::size_t usable_size(void* memory, std::size_t bytes) {
#if defined(__linux__)
  static_cast<void>(bytes);
  return malloc_usable_size(memory);
#elif defined(__APPLE__)
  static_cast<void>(bytes);
  return malloc_size(memory);
#else
  static_cast<void>(memory);
  return bytes;
#endif
}

}  // namespace

Block recycled(std::size_t bytes) {
  if (bytes >= kRecycled)
    for (std::size_t i = 0; i < kSlots; ++i) {
      std::unique_ptr<Block> block = take(slots[i]);
      if (!block) continue;
      if (block->size() >= bytes && block->size() <= bytes + bytes / 2) return std::move(*block);
      put(std::move(block), i);
    }
  return Block(bytes);
}

void give_up(Block given) noexcept {
  // What the C library has moved meanwhile may not be aligned.
  const bool aligned = reinterpret_cast<uintptr_t>(given.data()) % kPage == 0;
  if (!given.data() || !aligned || given.size() < kRecycled || given.size() > kKeep) return;
  const std::size_t size = given.size();
  std::unique_ptr<Block> block(new (std::nothrow) Block(std::move(given)));
  if (!block) return;
  for (std::size_t i = 0; i < kSlots && kept.load() + size > kKeep; ++i) take(slots[next.fetch_add(1) % kSlots]);
  put(std::move(block), 0);
}

void give_up(void* memory, std::size_t bytes) noexcept {
  if (memory) give_up(Block::adopt(static_cast<char*>(memory), usable_size(memory, bytes)));
}

}  // namespace rnnkern
