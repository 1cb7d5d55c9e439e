// The transpose of a square of floats where there is AVX: rows are put together from loads of four columns, which
// leaves two shuffles, within quarters, of four. To be included before core/.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace rnnkern {
namespace {

#if defined(__AVX512F__)
using Floats = __m512;

// Four columns of every fourth row.
inline Floats four_columns(const float* from, int64_t stride) {
  Floats rows = _mm512_castps128_ps512(_mm_loadu_ps(from));
  rows = _mm512_insertf32x4(rows, _mm_loadu_ps(from + 4 * stride), 1);
  rows = _mm512_insertf32x4(rows, _mm_loadu_ps(from + 8 * stride), 2);
  return _mm512_insertf32x4(rows, _mm_loadu_ps(from + 12 * stride), 3);
}
// With a mask of everything: GCC 12 warns of what the intrinsics without one are made of.
inline Floats interleave_low(Floats a, Floats b) { return _mm512_maskz_unpacklo_ps(0xffff, a, b); }
inline Floats interleave_high(Floats a, Floats b) { return _mm512_maskz_unpackhi_ps(0xffff, a, b); }
inline Floats low_pairs(Floats a, Floats b) { return _mm512_maskz_shuffle_ps(0xffff, a, b, 0x44); }
inline Floats high_pairs(Floats a, Floats b) { return _mm512_maskz_shuffle_ps(0xffff, a, b, 0xee); }
#else
using Floats = __m256;

inline Floats four_columns(const float* from, int64_t stride) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm_loadu_ps(from + 4 * stride), 1);
}
inline Floats interleave_low(Floats a, Floats b) { return _mm256_unpacklo_ps(a, b); }
inline Floats interleave_high(Floats a, Floats b) { return _mm256_unpackhi_ps(a, b); }
inline Floats low_pairs(Floats a, Floats b) { return _mm256_shuffle_ps(a, b, 0x44); }
inline Floats high_pairs(Floats a, Floats b) { return _mm256_shuffle_ps(a, b, 0xee); }
#endif

static_assert(sizeof(Floats) == kVectorBytes, "of another instruction set");

inline __attribute__((always_inline)) void load_transposed(const float* from, int64_t stride, Floats* columns) {
  constexpr int kLanes = kVectorBytes / 4;
#pragma GCC unroll 4
  for (int column = 0; column < kLanes; column += 4) {
    Floats rows[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) rows[i] = four_columns(from + i * stride + column, stride);
    const Floats low[2] = {interleave_low(rows[0], rows[1]), interleave_low(rows[2], rows[3])};
    const Floats high[2] = {interleave_high(rows[0], rows[1]), interleave_high(rows[2], rows[3])};
    columns[column] = low_pairs(low[0], low[1]);
    columns[column + 1] = high_pairs(low[0], low[1]);
    columns[column + 2] = low_pairs(high[0], high[1]);
    columns[column + 3] = high_pairs(high[0], high[1]);
  }
}

}  // namespace
}  // namespace rnnkern
