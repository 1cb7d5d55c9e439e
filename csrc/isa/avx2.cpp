// AVX2 with FMA: Haswell, Zen and later.
#include <immintrin.h>

#include <cstdint>

namespace rnnkern {
namespace {

constexpr int kVectorBytes = 32;
constexpr int kRegisters = 16;

inline __m256 multiply_add(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
inline __m256d multiply_add(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }

// All ones in the first `count` lanes.
inline __m256i first32(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i first64(int count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
inline __m256 load_first(const float* from, int count) { return _mm256_maskload_ps(from, first32(count)); }
inline __m256d load_first(const double* from, int count) { return _mm256_maskload_pd(from, first64(count)); }
inline void store_first(float* to, __m256 value, int count) { _mm256_maskstore_ps(to, first32(count), value); }
inline void store_first(double* to, __m256d value, int count) { _mm256_maskstore_pd(to, first64(count), value); }

}  // namespace
}  // namespace rnnkern

#include "transpose_avx.hpp"

#define RNNKERN_IN_REGISTER(vector) asm("" : "+x"(vector))
#include "../core/table.hpp"

constexpr rnnkern::KernelTable rnnkern::kernels_avx2 = rnnkern::make_table();
