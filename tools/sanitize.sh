#!/usr/bin/env bash
# Runs the kernels and the Python module under AddressSanitizer and UndefinedBehaviorSanitizer, and teams and concurrent
# callers under ThreadSanitizer (Clang with Archer, which tells it of OpenMP's own synchronisation).
# Needs g++, clang++ with libomp, cmake, ninja, and a Python with rnnkern[test] installed ($PYTHON, default python).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
check() { "$python" tests/native/check.py "$@"; }

"$python" -m pip install --quiet --no-deps --upgrade --target build/asan-site . --config-settings=build-dir=build/asan \
  --config-settings=install.strip=false --config-settings=cmake.define.RNNKERN_SANITIZE=address,undefined \
  --config-settings=cmake.define.RNNKERN_NATIVE_CHECK=ON --config-settings=cmake.define.RNNKERN_TEST_ISAS=ON
isas=$("$python" -c "from rnnkern import _core; print(*(name for name, can_run, _ in _core.isas() if can_run))")
for isa in $isas; do
  check --threads 2 "$isa" build/asan/native_check
done

# The module itself: what crosses from Python, errors included. Python's small objects come from malloc here, so that
# every one of them is watched; Python does not free everything when it ends.
# libstdc++ is there from the start, so that exceptions are. AddressSanitizer needs more address space than a test leaves.
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)" PYTHONPATH=build/asan-site \
  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc "$python" -m pytest -q --capture=sys \
  --deselect tests/test_threads.py::test_where_no_thread_can_be_had_fewer_compute \
  --timeout 1200 tests/test_boundary.py tests/test_layers.py tests/test_threads.py \
  'tests/test_fuzz.py::test_attacks[arguments]' 'tests/test_fuzz.py::test_attacks[ways]'

cmake -S . -B build/tsan -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DRNNKERN_SANITIZE=thread \
  -DRNNKERN_PYTHON=OFF -DRNNKERN_NATIVE_CHECK=ON
cmake --build build/tsan
OMP_TOOL_LIBRARIES=$(find /usr/lib/llvm-*/lib -name libarcher.so | sort -V | tail -1)
export OMP_TOOL_LIBRARIES TSAN_OPTIONS=ignore_noninstrumented_modules=1
check --threads 4 --callers 1 baseline build/tsan/native_check
check --threads 4 --callers 3 "${isas%% *}" build/tsan/native_check
