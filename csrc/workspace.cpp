#include "workspace.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

namespace rnnkern {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20, kPage = 4096, kCacheLine = 64;
constexpr std::size_t kKeep = std::size_t{64} << 20;
constexpr std::size_t kSlots = 12;

thread_local Block kept;

// A slot that is being looked into is empty to others meanwhile. Never destroyed: there may be arrays until the end.
std::atomic<Block*> given_up[kSlots];
std::atomic<std::size_t> given_up_bytes{0}, next_slot{0};

std::unique_ptr<Block> take(std::atomic<Block*>& slot) {
  std::unique_ptr<Block> block(slot.exchange(nullptr));
  if (block) given_up_bytes.fetch_sub(block->size());
  return block;
}

// Into an empty slot; what is there already stays.
bool put(std::atomic<Block*>& slot, std::unique_ptr<Block>& block) {
  Block* none = nullptr;
  given_up_bytes.fetch_add(block->size());
  if (slot.compare_exchange_strong(none, block.get())) {
    static_cast<void>(block.release());
    return true;
  }
  given_up_bytes.fetch_sub(block->size());
  return false;
}

}  // namespace

Block::Block(std::size_t bytes) {
  if (bytes == 0) return;
  const std::size_t alignment = bytes < kPage ? kCacheLine : bytes < kHugePage ? kPage : kHugePage;
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes) != 0) throw std::bad_alloc();
  data_ = static_cast<char*>(memory);
  size_ = bytes;
#if defined(__linux__)
  // Weights are read again at every step: with small pages, the larger ones miss the TLB each time.
  if (alignment == kHugePage) madvise(data_, size_ / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
}

Block::Block(Block&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Block& Block::operator=(Block&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Block::~Block() { std::free(data_); }

Block Block::adopt(char* data, std::size_t size) {
  Block block;
  block.data_ = data;
  block.size_ = size;
  return block;
}

char* Block::release() {
  size_ = 0;
  return std::exchange(data_, nullptr);
}

Workspace::Workspace(std::size_t bytes) : block_(std::move(kept)) {
  if (block_.size() < bytes) {
    block_ = Block();
    block_ = Block(bytes);
  }
}

Workspace::~Workspace() {
  if (block_.data() && block_.size() <= kKeep) kept = std::move(block_);
}

Block recycled(std::size_t bytes) {
  if (bytes >= kRecycled)
    for (auto& slot : given_up) {
      std::unique_ptr<Block> block = take(slot);
      if (!block) continue;
      if (block->size() >= bytes && block->size() <= bytes + bytes / 2) return std::move(*block);
      put(slot, block);
    }
  return Block(bytes);
}

void give_up(Block given) noexcept {
  if (given.size() < kRecycled || given.size() > kKeep) return;
  std::unique_ptr<Block> block(new (std::nothrow) Block(std::move(given)));
  if (!block) return;
  if (given_up_bytes.load() + block->size() > kKeep)
    for (auto& slot : given_up) take(slot);
  for (auto& slot : given_up)
    if (put(slot, block)) return;
  auto& slot = given_up[next_slot.fetch_add(1) % kSlots];
  take(slot);
  put(slot, block);
}

}  // namespace rnnkern
