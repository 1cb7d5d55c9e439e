// Advanced SIMD of AArch64.
#include <arm_neon.h>

#include <cstdint>

namespace rnnkern {
namespace {

constexpr int kVectorBytes = 16;
constexpr int kRegisters = 32;

inline float32x4_t multiply_add(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
inline float64x2_t multiply_add(float64x2_t a, float64x2_t b, float64x2_t c) { return vfmaq_f64(c, a, b); }

}  // namespace
}  // namespace rnnkern

#define RNNKERN_IN_REGISTER(vector) asm("" : "+w"(vector))
#include "../core/partial.hpp"
#include "../core/table.hpp"

constexpr rnnkern::KernelTable rnnkern::kernels_neon = rnnkern::make_table();
