// A thread's floating-point mode.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rnnkern {

// The calling thread's mode for as long as one lives: to nearest, nothing trapped.
class FloatMode {
 public:
#if defined(__x86_64__)
  using Bits = unsigned;
  static constexpr Bits kUsual = 0x1F80, kFlushed = 0x9FC0;  // FTZ, DAZ
  explicit FloatMode(Bits bits) : saved_(_mm_getcsr()) { _mm_setcsr(bits); }
  ~FloatMode() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
  using Bits = uint64_t;
  static constexpr Bits kUsual = 0, kFlushed = Bits{1} << 24;  // FZ
  explicit FloatMode(Bits bits) {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(bits));
  }
  ~FloatMode() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }
#else
  using Bits = unsigned;
  static constexpr Bits kUsual = 0, kFlushed = 0;
  explicit FloatMode(Bits bits) : saved_(bits) {}
#endif
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

  // The loop's: denormals are zeros, in and out.
  static FloatMode flushed() { return FloatMode(kFlushed); }
  // A program's.
  static FloatMode usual() { return FloatMode(kUsual); }

 private:
  Bits saved_;
};

}  // namespace rnnkern
