// Whether threads can be had.
#pragma once

namespace rnnkern {

// How many of `count` more threads can live at the same time now, found out by starting them, with stacks as large as
// OpenMP's. They are gone when it returns.
int startable(int count);

}  // namespace rnnkern
