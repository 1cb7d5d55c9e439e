#include "dispatch.hpp"

#include <cstdlib>
#include <stdexcept>

#include "kernels.hpp"

namespace rnnkern {
namespace {

bool always() { return true; }

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

std::string names_of_runnable() {
  std::string names;
  for (const Isa& isa : built_isas())
    if (isa.can_run()) names += (names.empty() ? "" : ", ") + std::string(isa.name);
  return names;
}

const Isa& choose() {
  const char* forced = std::getenv("RNNKERN_ISA");
  if (forced && *forced) {
    try {
      return find_isa(forced);
    } catch (const std::invalid_argument& error) {
      throw std::runtime_error(std::string("RNNKERN_ISA: ") + error.what());
    }
  }
  for (const Isa& isa : built_isas())
    if (isa.selectable && isa.can_run()) return isa;
  throw std::runtime_error("no instruction set can run here");
}

}  // namespace

// The best first.
const std::vector<Isa>& built_isas() {
  static const std::vector<Isa> isas = {
#if defined(RNNKERN_HAS_AVX512)
    {"avx512", &kernels_avx512, has_avx512, true},
#endif
#if defined(RNNKERN_HAS_AVX2)
    {"avx2", &kernels_avx2, has_avx2, true},
#endif
#if defined(RNNKERN_HAS_AVX2_WIDE)
    {"avx2-wide", &kernels_avx2_wide, has_avx2, false},
#endif
#if defined(RNNKERN_HAS_NEON)
    {"neon", &kernels_neon, always, true},
#endif
    {"baseline", &kernels_baseline, always, true},
  };
  return isas;
}

const Isa& default_isa() {
  static const Isa& isa = choose();
  return isa;
}

const Isa& find_isa(const std::string& name) {
  for (const Isa& isa : built_isas())
    if (name == isa.name && isa.can_run()) return isa;
  throw std::invalid_argument("expected an instruction set that can run here (" + names_of_runnable() + "), got '" +
                              name + "'");
}

}  // namespace rnnkern
