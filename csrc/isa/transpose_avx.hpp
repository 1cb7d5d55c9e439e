// The transpose of a square of floats where there is AVX, for vectors of one or two halves of eight: rows are put
// together from loads of four columns, which leaves two shuffles, within quarters, of four. To be included before
// core/.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace rnnkern {
namespace {

inline __m256 four_columns(const float* upper, const float* lower) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(upper)), _mm_loadu_ps(lower), 1);
}

inline void transpose_square(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  constexpr int kLanes = kVectorBytes / 4;
  for (int column = 0; column < kLanes; column += 4)
    for (int row = 0; row < kLanes; row += 8) {
      const float* at = from + row * from_stride + column;
      __m256 rows[4];
      for (int i = 0; i < 4; ++i) rows[i] = four_columns(at + i * from_stride, at + (i + 4) * from_stride);
      const __m256 low[2] = {_mm256_unpacklo_ps(rows[0], rows[1]), _mm256_unpacklo_ps(rows[2], rows[3])};
      const __m256 high[2] = {_mm256_unpackhi_ps(rows[0], rows[1]), _mm256_unpackhi_ps(rows[2], rows[3])};
      float* out = to + column * to_stride + row;
      _mm256_storeu_ps(out, _mm256_shuffle_ps(low[0], low[1], 0x44));
      _mm256_storeu_ps(out + to_stride, _mm256_shuffle_ps(low[0], low[1], 0xee));
      _mm256_storeu_ps(out + 2 * to_stride, _mm256_shuffle_ps(high[0], high[1], 0x44));
      _mm256_storeu_ps(out + 3 * to_stride, _mm256_shuffle_ps(high[0], high[1], 0xee));
    }
}

}  // namespace
}  // namespace rnnkern
