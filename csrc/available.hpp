// How many processors the process may use.
#pragma once

#include <string>

namespace rnnkern {

// Processors to compute on: those that the calling thread may run on, but no more than the time that control groups
// allow, rounded up. At least 1. Changes are noticed: of the one within a hundredth of a second, of the other within
// a few.
int processors();
// For tests: as if there were so many; 0: the system is asked again.
void set_processors(int count);

// Processors' worth of time that the control groups of the process (v1 and v2, with all that they are in) allow it;
// infinity: no limit. `root` stands before every path: "" outside tests.
double cpu_quota(const std::string& root);

}  // namespace rnnkern
