// What every processor of the family has (SSE2 on x86-64): 16-byte vectors, a multiply and an add.
#include <cstdint>

namespace rnnkern {
namespace {

constexpr int kVectorBytes = 16;
constexpr int kRegisters = 16;

template <class V>
inline V multiply_add(V a, V b, V c) {
  return a * b + c;
}

}  // namespace
}  // namespace rnnkern

#define RNNKERN_IN_REGISTER(vector) (void)vector
#include "../core/partial.hpp"
#include "../core/table.hpp"

constexpr rnnkern::KernelTable rnnkern::kernels_baseline = rnnkern::make_table();
