// The instruction sets that were built and the one in use.
#pragma once

#include <string>
#include <vector>

namespace rnnkern {

struct KernelTable;  // kernels.hpp

struct Isa {
  const char* name;  // "baseline", "avx2", "avx512", "neon"; "avx2-wide": 16 lanes lowered on AVX2, for tests
  const KernelTable* table;
  bool (*can_run)();  // does this processor have it
  bool selectable;    // may be the default
};

const std::vector<Isa>& built_isas();
// The best one that can run here, or the one that RNNKERN_ISA names. Throws std::runtime_error, listing what can run,
// when the named one can't. Evaluated once.
const Isa& default_isa();
// By name, for tests; throws std::invalid_argument when unknown or when it can't run here.
const Isa& find_isa(const std::string& name);

}  // namespace rnnkern
