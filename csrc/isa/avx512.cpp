// AVX-512 F, DQ, BW, VL: Skylake-X, Zen 4 and later.
#include <immintrin.h>

#include <cstdint>

namespace rnnkern {
namespace {

constexpr int kVectorBytes = 64;
constexpr int kRegisters = 32;

inline __m512 multiply_add(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
inline __m512d multiply_add(__m512d a, __m512d b, __m512d c) { return _mm512_fmadd_pd(a, b, c); }

// GCC makes masks and blends of the comparisons. Of these, NaN in x is the result. With a mask of everything: GCC 12
// warns of what the intrinsics without one are made of.
inline __m512 at_most(__m512 x, __m512 bound) { return _mm512_maskz_min_ps(0xffff, bound, x); }
inline __m512d at_most(__m512d x, __m512d bound) { return _mm512_maskz_min_pd(0xff, bound, x); }
inline __m512 at_least(__m512 x, __m512 bound) { return _mm512_maskz_max_ps(0xffff, bound, x); }
inline __m512d at_least(__m512d x, __m512d bound) { return _mm512_maskz_max_pd(0xff, bound, x); }

inline __mmask16 first16(int count) { return static_cast<__mmask16>((1u << count) - 1); }
inline __mmask8 first8(int count) { return static_cast<__mmask8>((1u << count) - 1); }
inline __m512 load_first(const float* from, int count) { return _mm512_maskz_loadu_ps(first16(count), from); }
inline __m512d load_first(const double* from, int count) { return _mm512_maskz_loadu_pd(first8(count), from); }
inline void store_first(float* to, __m512 value, int count) { _mm512_mask_storeu_ps(to, first16(count), value); }
inline void store_first(double* to, __m512d value, int count) { _mm512_mask_storeu_pd(to, first8(count), value); }

}  // namespace
}  // namespace rnnkern

#include "transpose_avx.hpp"

#define RNNKERN_IN_REGISTER(vector) asm("" : "+v"(vector))
#include "../core/table.hpp"

constexpr rnnkern::KernelTable rnnkern::kernels_avx512 = rnnkern::make_table();
