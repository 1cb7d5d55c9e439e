// How counts are divided.
#pragma once

#include <cstdint>

namespace rnnkern {

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Range {
  int64_t first, last;
  int64_t size() const { return last - first; }
};

// Part `index` of `parts` of 0..count, in whole multiples of `grain`.
inline Range share(int64_t count, int64_t parts, int64_t index, int64_t grain = 1) {
  const int64_t grains = divide_up(count, grain);
  const int64_t first = grains * index / parts * grain, last = grains * (index + 1) / parts * grain;
  return {first < count ? first : count, last < count ? last : count};
}

}  // namespace rnnkern
