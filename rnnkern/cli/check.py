"""`check`: every kernel that can run here against the reference in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

import rnnkern

from .. import _core, reference
from ..spec import Array
from .errors import bound, relative_error

LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "RNN tanh": ("RNN", {}),
    "RNN relu": ("RNN", {"nonlinearity": "relu"}),
    "RNN linear": ("RNN", {"nonlinearity": "linear"}),
    "LSTM": ("LSTM", {}),
    "LSTM peephole": ("LSTM", {"peephole": True}),
    "LSTM coupled i": ("LSTM", {"coupled": "i"}),
    "LSTM coupled f": ("LSTM", {"coupled": "f"}),
    "LSTM projected": ("LSTM", {"proj_size": 11}),
    "LSTM clip": ("LSTM", {"clip": 1.0}),
    "LSTM activations": ("LSTM", {"activations": ("Softsign", ("ScaledTanh", 1.2, 0.8), "Softplus")}),
    "GRU reset after": ("GRU", {}),
    "GRU reset before": ("GRU", {"reset_after": False}),
    "Jordan softmax": ("Jordan", {"output_size": 11}),
    "Jordan linear": ("Jordan", {"output_size": 101, "output": "linear"}),
    "linear_cross_entropy": ("linear_cross_entropy", {}),
}
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class Sizes:
    T: int
    B: int
    I: int  # noqa: E741
    H: int
    num_layers: int = 1
    bidirectional: bool = False
    ragged: bool = False

    def __str__(self) -> str:
        return f"{self.T},{self.B},{self.I},{self.H}"


SIZES = (
    Sizes(9, 1, 5, 17),
    Sizes(20, 33, 40, 48),
    Sizes(12, 7, 19, 37, num_layers=2, bidirectional=True, ragged=True),
    Sizes(3, 70, 130, 100),
)
"""Nothing to vectorise over, every kind of tail, layers, directions and lengths, more than one tile of everything."""


@dataclass(frozen=True)
class Error:
    """Of one result: the largest difference relative to the largest value, and what is allowed."""

    name: str
    sizes: Sizes
    relative: float
    allowed: float

    @property
    def fails(self) -> bool:
        return not self.relative <= self.allowed

    @property
    def badness(self) -> float:
        """For finding the worst: NaN is."""
        return self.relative / self.allowed if self.relative >= 0 else np.inf


ROW = "{:<20}  {:<7}  {:<12}  {:>9}  {:>8}  {:>7}  {:>9}  {:>8}  {:>7}  {:<33}  {}"


def run() -> int:
    """Print a table of errors. The exit code is 1 when a result is farther off than its bound, or NaN."""
    isas = [name for name, can_run, _ in _core.isas() if can_run]
    jobs = [(layer, dtype, isa) for layer in LAYERS for dtype in DTYPES for isa in isas]
    print("Largest error against NumPy in float64, relative to the largest value, and in ulp of it\n")
    errors_of = ("ulp", "allowed")
    print(
        ROW.format(
            "layer", "dtype", "instructions", "forward", *errors_of, "gradients", *errors_of, "worst", ""
        ).rstrip()
    )
    failures = 0
    truths: dict[str, list[dict[str, Array]]] = {}
    for layer, dtype, isa in jobs:
        if layer not in truths:
            truths = {layer: [compute(layer, sizes, DTYPES[1], backend="reference") for sizes in SIZES]}
        errors = list(compare(layer, dtype, isa, truths[layer]))
        forward = max((e for e in errors if not e.name.startswith("d")), key=lambda e: e.badness)
        backward = max((e for e in errors if e.name.startswith("d")), key=lambda e: e.badness)
        failed = forward.fails or backward.fails
        failures += failed
        eps = float(np.finfo(dtype).eps)
        cells = [
            cell
            for e in (forward, backward)
            for cell in (f"{e.relative:.1e}", f"{e.relative / eps:.3g}", f"{e.allowed / eps:.0f}")
        ]
        worst = max(forward, backward, key=lambda e: e.badness)
        verdict = "FAIL" if failed else "ok"
        print(ROW.format(layer, dtype.name, isa, *cells, f"{worst.name} at {worst.sizes}", verdict), flush=True)
    failures += check_functions(isas)
    print(f"\n{failures} failed" if failures else f"\nall {len(jobs)} rows and the functions agree; sizes are T,B,I,H")
    return 1 if failures else 0


def compute(name: str, sizes: Sizes, dtype: np.dtype[Any], **keywords: Any) -> dict[str, Array]:
    """Everything that `forward` and `backward` return, by name."""
    kind, options = LAYERS[name]
    if kind == "linear_cross_entropy":
        return compute_output_layer(sizes, dtype, keywords.get("_isa"))
    make, deep = getattr(rnnkern, kind), {"num_layers": sizes.num_layers, "bidirectional": sizes.bidirectional}
    layer = make(sizes.I, sizes.H, dtype=dtype, **deep, **options, **keywords)
    weights = make(sizes.I, sizes.H, dtype=np.float32, seed=0, **deep, **options).state_dict()
    layer.load_state_dict({key: weight.astype(dtype) for key, weight in weights.items()})

    directions, output = 1 + sizes.bidirectional, layer._spec.output_size
    parts = sizes.num_layers * directions

    random = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return random.standard_normal(shape, np.float32).astype(dtype)

    def state() -> Any:
        h = normal(parts, sizes.B, output)
        return (h, normal(parts, sizes.B, sizes.H)) if kind == "LSTM" else h

    lengths = random.integers(1, sizes.T + 1, sizes.B) if sizes.ragged else None
    y, last, tape = layer.forward(normal(sizes.T, sizes.B, sizes.I), state(), lengths=lengths)
    grads = layer.backward(tape, normal(sizes.T, sizes.B, directions * output), state())
    results = {"y": y, **named("", last), "dx": grads.x, **named("d", grads.state)}
    return results | {f"d{key}": gradient for key, gradient in grads.weights.items()}


def compute_output_layer(sizes: Sizes, dtype: np.dtype[Any], isa: Optional[str]) -> dict[str, Array]:
    """The loss and its gradients of T * B positions with H values and several classes for each; None: by NumPy."""
    random = np.random.default_rng(0)
    positions, classes = sizes.T * sizes.B, 8 * sizes.H
    h, weight, bias = (
        random.standard_normal(shape, np.float32).astype(dtype)
        for shape in ((positions, sizes.H), (classes, sizes.H), (classes,))
    )
    weight *= dtype.type(sizes.H**-0.5)
    targets = random.integers(0, classes, positions)
    mask = random.random(positions) < 0.7 if sizes.ragged else None
    found: tuple[Any, ...]
    if isa is None:
        found = reference.linear_cross_entropy(h, weight, bias, targets, mask=mask, gradient=True)
    else:
        found = _core.linear_cross_entropy(h, weight, bias, targets, mask, -100, True, True, isa)
    return {"loss": np.asarray(found[0], dtype), **dict(zip(("dh", "dweight", "dbias"), found[1:]))}


def named(prefix: str, state: Any) -> dict[str, Array]:
    return dict(zip((f"{prefix}h", f"{prefix}c"), state if isinstance(state, tuple) else (state,)))


def compare(name: str, dtype: np.dtype[Any], isa: str, truths: list[dict[str, Array]]) -> Iterator[Error]:
    """Errors of all results for all sizes."""
    for sizes, truth in zip(SIZES, truths):
        actual = compute(name, sizes, dtype, _isa=isa)
        widest = max(sizes.I, (1 + sizes.bidirectional) * sizes.H if sizes.num_layers > 1 else 0)
        for key, expected in truth.items():
            summed = sizes.T * sizes.B if key.startswith(("dweight", "dbias")) else 0
            allowed = bound(dtype, widest + 5 * sizes.H + summed, sizes.T * sizes.num_layers)
            yield Error(key, sizes, relative_error(actual[key], expected), allowed)


FUNCTIONS: dict[str, tuple[Any, int]] = {
    "exp": (np.exp, 2),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 4),
    "tanh": (np.tanh, 4),
}
"""In a wider type, and the promised bound in ulp."""


def check_functions(isas: list[str]) -> int:
    """Print errors of the activations over samples of all exponents; return how many are above their bounds."""
    row = "{:<8}  {:<7}" + "  {:>12}" * (len(isas) + 1) + "  {}"
    print("\nLargest error of the functions in ulp\n")
    print(row.format("function", "dtype", *isas, "allowed", "").rstrip())
    failures = 0
    for name, (_, allowed) in FUNCTIONS.items():
        for dtype, wide in ((DTYPES[0], np.dtype(np.float64)), (DTYPES[1], np.dtype(np.longdouble))):
            if np.finfo(wide).eps >= np.finfo(dtype).eps:
                continue  # no wider type here
            worst = [worst_ulp(name, dtype, wide, isa) for isa in isas]
            failed = sum(not ulp <= allowed for ulp in worst)
            cells = (f"{ulp:.2f}" for ulp in worst)
            print(row.format(name, dtype.name, *cells, allowed, "FAIL" if failed else "ok"), flush=True)
            failures += failed
    return failures


def worst_ulp(name: str, dtype: np.dtype[Any], wide: npt.DTypeLike, isa: str) -> float:
    """Largest error where argument and result are normal numbers."""
    function, _ = FUNCTIONS[name]
    info = np.finfo(dtype)
    limit = float(np.log(info.max)) * 0.999
    magnitudes = np.geomspace(float(info.tiny), limit, 200_000)
    x = np.concatenate([-magnitudes, magnitudes, np.linspace(-limit, limit, 200_000)]).astype(dtype)
    exact = function(x.astype(wide))
    normal = (np.abs(exact) >= info.tiny) & (np.abs(x) >= info.tiny)
    error = np.abs(_core.math(name, x, isa).astype(wide) - exact)[normal]
    return float((error / np.spacing(np.abs(exact[normal].astype(dtype)))).max())
