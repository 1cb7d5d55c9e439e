#!/usr/bin/env bash
# Runs the kernels and the Python module under AddressSanitizer and UndefinedBehaviorSanitizer, and concurrent callers
# with OpenMP teams under ThreadSanitizer (Clang with Archer, which tells it of OpenMP's own synchronisation).
# Needs g++, clang++ with libomp, cmake, ninja, and a Python with rnnkern[test] installed ($PYTHON, default python).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}

native() { # native BUILD COMPILER SANITIZER
  cmake -S . -B "$1" -G Ninja -DCMAKE_CXX_COMPILER="$2" -DRNNKERN_SANITIZE="$3" -DRNNKERN_PYTHON=OFF -DRNNKERN_NATIVE_CHECK=ON
  cmake --build "$1"
}
isas=$("$python" -c "from rnnkern import _core; print(*(name for name, can_run, _ in _core.isas() if can_run))")

native build/asan g++ address,undefined
for isa in $isas; do
  "$python" tests/native/check.py --threads 2 "$isa" build/asan/native_check
done

native build/tsan clang++ thread
archer=$(find /usr/lib/llvm-*/lib -name libarcher.so | sort -V | tail -1)
TSAN_OPTIONS=ignore_noninstrumented_modules=1 OMP_TOOL_LIBRARIES=$archer OMP_NUM_THREADS=2 \
  "$python" tests/native/check.py --threads 2 --callers 3 "$(echo "$isas" | tr ' ' '\n' | tail -1)" build/tsan/native_check

# The module itself: what crosses from Python, errors included. CPython's own small objects come from malloc here, so that
# every one of them is watched; CPython does not free everything when it ends.
venv=build/asan-venv
"$python" -m venv --system-site-packages $venv
$venv/bin/pip install --quiet --no-deps --force-reinstall . -C build-dir=build/asan-module -C install.strip=false \
  -C cmake.define.RNNKERN_SANITIZE=address,undefined
LD_PRELOAD=$(g++ -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
  $venv/bin/python -m pytest -q --timeout 1200 tests/test_boundary.py tests/test_layers.py tests/test_threads.py
