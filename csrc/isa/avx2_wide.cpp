// The 16-lane configuration lowered on AVX2: the tiles and tails of AVX-512 run, and are tested, without it.
#include <immintrin.h>

#include <cstdint>

namespace rnnkern {
namespace {

constexpr int kVectorBytes = 64;
constexpr int kRegisters = 32;

template <class Wide, class Half, Half (*fused)(Half, Half, Half)>
inline Wide by_halves(Wide a, Wide b, Wide c) {
  union Pair {
    Wide wide;
    Half half[2];
  } x = {a}, y = {b}, z = {c};
  z.half[0] = fused(x.half[0], y.half[0], z.half[0]);
  z.half[1] = fused(x.half[1], y.half[1], z.half[1]);
  return z.wide;
}
inline __m256 fused(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
inline __m256d fused(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }

typedef float Float16 __attribute__((vector_size(kVectorBytes)));
typedef double Double8 __attribute__((vector_size(kVectorBytes)));
inline Float16 multiply_add(Float16 a, Float16 b, Float16 c) { return by_halves<Float16, __m256, fused>(a, b, c); }
inline Double8 multiply_add(Double8 a, Double8 b, Double8 c) { return by_halves<Double8, __m256d, fused>(a, b, c); }

}  // namespace
}  // namespace rnnkern

#define RNNKERN_IN_REGISTER(vector) (void)vector
#include "../core/partial.hpp"
#include "../core/table.hpp"

constexpr rnnkern::KernelTable rnnkern::kernels_avx2_wide = rnnkern::make_table();
