"""Runs `native_check` on every cell and the output layer, dtype and a set of odd shapes, and compares its results with
the reference.

    python tests/native/check.py [--threads N] [--callers N] ISA COMMAND...

COMMAND is the program, with an emulator before it where it needs one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import test_cross_entropy as output_layer

from harness import CELLS, DTYPES, Case, assert_all_close, forward_backward, make_inputs

NETWORK, OUTPUT_LAYER = range(2)
FAMILIES = ("rnn", "lstm", "gru_reset_after", "gru_reset_before", "jordan")  # CellFamily
COUPLINGS = (None, "i", "f")  # Coupling
ACTIVATIONS = (  # ActivationKind
    *("Affine", "Elu", "HardSigmoid", "Identity", "LeakyRelu", "Relu", "ScaledTanh"),
    *("Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"),
)
UNUSED = ("Identity", 0.0, 0.0)
SHAPES = (
    (0, 2, 3, 4),
    (3, 0, 3, 4),
    (1, 1, 1, 2),
    (3, 2, 5, 7),
    (5, 3, 17, 33),
    (2, 9, 3, 64),
    (4, 1, 40, 19),
    (3, 400, 5, 7),
)  # T, B, I, H
DEEP = {"num_layers": 2, "bidirectional": True}


@dataclass(frozen=True)
class Problem:
    """One network, its input and the gradients that arrive at its results."""

    case: Case
    dtype: type
    recompute: bool = False

    @cached_property
    def layer(self):
        return self.case.layer(self.dtype, backend="reference")

    @cached_property
    def inputs(self):
        return make_inputs(self.case, self.layer)

    @cached_property
    def expected(self) -> dict[str, np.ndarray]:
        """By name, in float64, in the order in which check.cpp writes."""
        layer = self.case.layer(np.float64, backend="reference")
        layer.load_state_dict(self.layer.state_dict())
        results = forward_backward(layer, self.inputs.cast(np.float64), self.case.return_sequence)
        names = ("y", "h", "c", "dx", "dh", "dc", *("d" + name for name in self.weight_names))
        return {name: results[name] for name in names if name in results}

    @property
    def weight_names(self) -> list[str]:
        spec = self.layer._spec
        names = [name + suffix for *_, suffix in spec.parts() for name in spec.part_weights]
        return [name for name in names if name in self.layer.weights]

    def encode(self) -> bytes:
        """What check.cpp reads."""
        spec, case, inputs = self.layer._spec, self.case, self.inputs
        members = 2 if spec.has_cell_state else 1

        sizes = (spec.input_size, spec.hidden_size, spec.proj_size, spec.num_layers, spec.num_directions)
        out = integers(DTYPES.index(self.dtype), NETWORK, FAMILIES.index(spec.family), *sizes)
        out += integers(spec.softmax, spec.peephole, COUPLINGS.index(spec.coupled))
        out += np.float64(np.inf if spec.clip is None else spec.clip).tobytes()
        for activations in (spec.activations * 2)[:2]:
            for name, alpha, beta in (*activations, UNUSED, UNUSED)[:3]:
                out += integers(ACTIVATIONS.index(name)) + np.array([alpha, beta]).tobytes()
        out += integers(spec.bias, case.steps, case.batch, case.lengths, self.recompute, case.return_sequence)
        if case.lengths:
            out += integers(*inputs.lengths)
        state = inputs.state if members == 2 else (inputs.state,)
        dstate = inputs.dstate if members == 2 else (inputs.dstate,)
        weights = (self.layer.weights[name] for name in self.weight_names)
        return out + arrays(self.dtype, inputs.x, *state, *weights, inputs.dy, *dstate)

    def compare(self, actual: dict[str, np.ndarray]) -> None:
        assert_all_close(actual, self.expected, self.case)


@dataclass(frozen=True)
class OutputLayer:
    """One call of `linear_cross_entropy` with gradients."""

    shape: tuple[int, int, int]  # N, H, V
    dtype: type
    biased: bool
    chosen: str
    reduction: str

    @cached_property
    def arguments(self):
        return output_layer.problem(*self.shape, self.dtype, self.biased, self.chosen)

    @cached_property
    def expected(self) -> dict[str, np.ndarray]:
        arguments, mask = self.arguments
        results = zip(output_layer.NAMES, output_layer.truth(arguments, mask, reduction=self.reduction), strict=True)
        return {name: np.asarray(array) for name, array in results if array is not None}

    def encode(self) -> bytes:
        (h, weight, bias, targets), mask = self.arguments
        counts = (targets != -100) & (True if mask is None else mask)
        counted = np.flatnonzero(counts)
        out = integers(DTYPES.index(self.dtype), OUTPUT_LAYER, *self.shape, self.reduction == "mean", self.biased)
        out += arrays(self.dtype, h, weight, *([bias] if self.biased else []))
        return out + integers(len(counted), *counted, *targets[counted])

    def compare(self, actual: dict[str, np.ndarray]) -> None:
        arguments, mask = self.arguments
        found, expected = ([results.get(name) for name in output_layer.NAMES] for results in (actual, self.expected))
        counted = output_layer.number(arguments[3], mask, self.reduction)
        output_layer.assert_all_close(found, expected, arguments, counted)


def integers(*values) -> bytes:
    return np.array(values, np.int64).tobytes()


def arrays(dtype, *values) -> bytes:
    return b"".join(np.ascontiguousarray(value, dtype).tobytes() for value in values)


def take(problem: Problem | OutputLayer, values: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A problem's results by name, and the bytes after them."""
    results = {}
    for name, array in problem.expected.items():
        size = array.size * np.dtype(problem.dtype).itemsize
        results[name], values = values[:size].view(problem.dtype).reshape(array.shape), values[size:]
    return results, values


def problems() -> Iterator[Problem | OutputLayer]:
    for dtype in DTYPES:
        for shape in output_layer.SHAPES:
            yield OutputLayer(shape, dtype, biased=True, chosen="some", reduction="mean")
        yield OutputLayer(output_layer.SHAPES[-1], dtype, biased=False, chosen="all", reduction="sum")
        for cell in CELLS:
            for number, (steps, batch, inputs, hidden) in enumerate(SHAPES):
                yield Problem(Case(cell, steps, batch, inputs, hidden, lengths=steps > 0 and number % 2 == 1), dtype)
            yield Problem(Case(cell, return_sequence=False).with_options(bias=False), dtype)
            yield Problem(Case(cell, lengths=True).with_options(**DEEP), dtype)
            yield Problem(Case(cell, lengths=True, return_sequence=False).with_options(**DEEP), dtype, recompute=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("isa")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    every = list(problems())
    with tempfile.TemporaryDirectory() as folder:
        cases, results = Path(folder, "cases"), Path(folder, "results")
        cases.write_bytes(np.int64(len(every)).tobytes() + b"".join(problem.encode() for problem in every))
        subprocess.run([*args.command, args.isa, str(args.threads), str(args.callers), cases, results], check=True)
        values = np.frombuffer(results.read_bytes(), np.uint8)
    failed = 0
    for problem in every:
        actual, values = take(problem, values)
        try:
            problem.compare(actual)
        except AssertionError as error:
            failed += 1
            print(f"FAILED {problem}: {error}")
    if values.size:
        print(f"FAILED {values.size} bytes of results too many")
        failed += 1
    print(f"{args.isa}: {len(every)} problems, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
