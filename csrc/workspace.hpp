// Work space: one allocation a call, handed out in aligned pieces; kept by the calling thread for its next call.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define RNNKERN_RED_ZONES 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RNNKERN_RED_ZONES 1
#endif
#endif
#ifdef RNNKERN_RED_ZONES
#include <sanitizer/asan_interface.h>
#endif

namespace rnnkern {

// Under AddressSanitizer a piece of work space is followed by memory that nobody may touch: what reads or writes beyond
// its piece is found although the block goes on.
#ifdef RNNKERN_RED_ZONES
constexpr std::size_t kRedZone = 64;
inline void forbid(const char* memory, std::size_t bytes) { __asan_poison_memory_region(memory, bytes); }
inline void allow(const char* memory, std::size_t bytes) { __asan_unpoison_memory_region(memory, bytes); }
#else
constexpr std::size_t kRedZone = 0;
inline void forbid(const char*, std::size_t) {}
inline void allow(const char*, std::size_t) {}
#endif

// Hands out pieces of one block. With no block it only measures: lay everything out once to learn `needed`, allocate,
// and lay it out again. What is needed one after the other shares its place: take, rewind, take.
class Arena {
 public:
  explicit Arena(char* base = nullptr) : base_(base) {}

  template <class T>
  T* take(int64_t count) {
    const std::size_t at = used_, bytes = (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    used_ += bytes + kRedZone;
    needed_ = std::max(needed_, used_);
    if (!base_) return nullptr;
    allow(base_ + at, bytes);
    return reinterpret_cast<T*>(base_ + at);
  }
  // Without the rounding to cache lines: pieces of one type, one right after the other.
  template <class T>
  T* take_dense(int64_t count) {
    const std::size_t at = used_;
    used_ += static_cast<std::size_t>(count) * sizeof(T);
    needed_ = std::max(needed_, used_);
    return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
  }
  std::size_t used() const { return used_; }
  void rewind(std::size_t used) { used_ = used; }
  std::size_t needed() const { return needed_; }

 private:
  char* base_;
  std::size_t used_ = 0, needed_ = 0;
};

// Memory aligned to pages where it is large, to cache lines otherwise. Throws std::bad_alloc.
class Block {
 public:
  Block() = default;
  explicit Block(std::size_t bytes);
  Block(Block&& other) noexcept;
  Block& operator=(Block&& other) noexcept;
  ~Block();
  char* data() const { return data_; }
  std::size_t size() const { return size_; }
  // To own it by its address, and back.
  static Block adopt(char* data, std::size_t size);
  char* release();

 private:
  char* data_ = nullptr;
  std::size_t size_ = 0;
};

// The calling thread's block of at least `bytes`, for the duration of one call; blocks of up to 64 MiB are kept for the
// next one. Not re-entrant: a call does not make another one while it holds the block.
class Workspace {
 public:
  explicit Workspace(std::size_t bytes);
  ~Workspace();
  Workspace(Workspace&&) noexcept = default;
  Workspace& operator=(Workspace&&) = delete;
  char* data() const { return block_.data(); }

 private:
  Block block_;
};

// Runs `layout(arena)` twice: to measure, and on the calling thread's work space, which the result holds.
template <class Layout>
Workspace lay_out(Layout&& layout) {
  Arena measure;
  layout(measure);
  Workspace workspace(measure.needed());
  forbid(workspace.data(), measure.needed());
  Arena arena(workspace.data());
  layout(arena);
  return workspace;
}

}  // namespace rnnkern
