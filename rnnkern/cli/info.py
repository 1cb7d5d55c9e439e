"""`info`: what was built, and what this machine offers."""

from __future__ import annotations

from ..settings import config
from . import machine

PACKAGES = ("numpy", "safetensors", "torch", "onnxruntime", "openvino", "jax", "onnx", "keras")


def run() -> int:
    here = machine.describe()
    facts = {
        **config(),
        "processor": f"{here['processor']}, {here['cores']} cores, {here['memory_bytes'] / 2**30:.1f} GiB",
        "system": here["system"],
        "python": here["python"],
        **{package: machine.version(package) or "not installed" for package in PACKAGES},
    }
    for name, value in facts.items():
        print(f"{name + ':':<32}{', '.join(value) if isinstance(value, list) else value}")
    return 0
