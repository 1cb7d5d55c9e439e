#!/usr/bin/env bash
# Builds the kernels for aarch64 and runs every cell against the reference under an emulator.
# Needs aarch64-linux-gnu-g++, qemu-aarch64, cmake, ninja, and a Python with rnnkern[test] ($PYTHON, default python).
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/neon
cmake -S . -B $build -G Ninja -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DRNNKERN_PYTHON=OFF -DRNNKERN_NATIVE_CHECK=ON -DRNNKERN_WERROR=ON
cmake --build $build
for isa in neon baseline; do
  "${PYTHON:-python}" tests/native/check.py --threads 2 $isa qemu-aarch64 -L /usr/aarch64-linux-gnu $build/native_check
done
