#include "workspace.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <new>
#include <utility>

namespace rnnkern {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20, kPage = 4096, kCacheLine = 64;
constexpr std::size_t kKeep = std::size_t{64} << 20;

thread_local Block kept;

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
  allow(block_.data(), block_.size());
  if (block_.data() && block_.size() <= kKeep) kept = std::move(block_);
}

}  // namespace rnnkern
