"""Every cell × dtype × instruction set × shape × option against the NumPy reference, gradients included."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys

import numpy as np
import pytest

import rnnkern
from harness import (
    CELLS,
    DTYPES,
    ISAS,
    KINKED,
    Case,
    assert_all_close,
    assert_all_same_bits,
    forward_backward,
    make_inputs,
)
from harness import forward as call
from rnnkern import _core, reference
from rnnkern.spec import GATES, of_each_cell
from rnnkern.weights import Weights
from tolerance import assert_close

SHAPES = [  # T, B, I, H: 0 and 1, sizes that no lane count divides, larger than every block
    (0, 2, 3, 4),
    (3, 0, 2, 5),
    (1, 1, 1, 1),
    (1, 3, 1, 2),
    (2, 1, 5, 3),
    (5, 4, 3, 8),
    (3, 6, 8, 16),
    (7, 5, 9, 17),
    (4, 2, 16, 33),
    (3, 9, 40, 65),
    (2, 1, 128, 100),
    (40, 37, 70, 131),
    (3, 400, 16, 32),  # whole vectors, in more than one block of time
]
VARIANTS = {  # options of the layer, and of the case
    "ragged": ({}, {"lengths": True}),
    "zero state": ({}, {"state": False}),
    "no bias": ({"bias": False}, {}),
    "batch first": ({"batch_first": True}, {"lengths": True}),
    "bidirectional": ({"bidirectional": True}, {}),
    "bidirectional ragged": ({"bidirectional": True}, {"lengths": True}),
    "deep": ({"num_layers": 3}, {}),
    "deep bidirectional ragged": ({"num_layers": 2, "bidirectional": True}, {"lengths": True, "batch": 11}),
    "last only": ({"num_layers": 2, "bidirectional": True}, {"lengths": True, "return_sequence": False}),
    "dropout": ({"num_layers": 3, "bidirectional": True, "dropout": 0.4}, {"lengths": True}),
}


@functools.cache
def expected(case: Case, dtype):
    """What the reference computes in float64 from the values that a layer of this dtype holds."""
    narrow = case.layer(dtype, backend="reference")
    layer = case.layer(np.float64, backend="reference")
    layer.load_state_dict(narrow.state_dict())
    inputs = make_inputs(case, narrow).cast(np.float64)
    return call(layer, inputs, case.return_sequence), forward_backward(layer, inputs, case.return_sequence)


def check(case: Case, dtype, isa):
    layer = case.layer(dtype, _isa=isa)
    inputs = make_inputs(case, layer)
    inference, training = expected(case, dtype)
    assert_all_close(call(layer, inputs, case.return_sequence), inference, case)
    actual = forward_backward(layer, inputs, case.return_sequence)
    assert all(array.dtype == dtype for array in actual.values())
    assert_all_close(actual, training, case)
    again = case.layer(dtype, _isa=isa)  # the same seed: the same dropout
    assert_all_same_bits(forward_backward(again, inputs, case.return_sequence, recompute=True), actual)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: ",".join(map(str, shape)))
def test_shapes(shape, cell, dtype, isa):
    steps, batch, input_size, hidden_size = shape
    if cell in KINKED and dtype == np.float32:
        steps, batch = min(steps, 6), min(batch, 9)
    case = Case(cell, steps, batch, input_size, hidden_size)
    if not case.valid():
        pytest.skip("a projection is smaller than the hidden size")
    check(case, dtype, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_options(variant, cell, dtype, isa):
    layer, case = VARIANTS[variant]
    check(Case(cell, **case).with_options(**layer), dtype, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_packed_weights_make_no_difference(cell, dtype, isa):
    """Few rows, about as many as are worth packing, read live weights as they are."""
    for steps, batch, hidden_size in [(1, 1, 17), (1, 2, 7), (1, 3, 16), (3, 1, 33), (1, 6, 9), (1, 7, 31), (2, 4, 15)]:
        case = Case(cell, steps, batch, hidden_size - 1, hidden_size, lengths=True)
        case = case.with_options(num_layers=2, bidirectional=batch % 2 == 1)
        layer = case.layer(dtype, _isa=isa)
        inputs = make_inputs(case, layer)
        for threads in (1, 3):
            with rnnkern.num_threads(threads):
                assert_all_same_bits(call(layer, inputs, True), call(layer.freeze(), inputs, True))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", sorted(set(reference.ACTIVATIONS) - {"Identity"}))
@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm_peephole", "gru_reset_after", "gru_reset_before"])
def test_activations(cell, name, isa):
    """ONNX's default parameters, in every place, in both directions."""
    count = {"r": 1, "l": 3, "g": 2}[cell[0]]
    others = ("Tanh",) * count
    activations = (name,) * count + others
    options = {"bidirectional": True, "activations": activations}
    if name == "Affine":  # has no default parameters
        options["activations"] = ((name, 0.5, 0.1),) * count + others
    for dtype in DTYPES:
        check(Case(cell, steps=3, hidden_size=10).with_options(**options), dtype, isa)


@pytest.mark.parametrize("wrt", [("x",), ("state",), ("weights",), ("x", "weights"), ()])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_on_request(cell, wrt):
    """What is asked for is bitwise what it is when everything is asked for."""
    case = Case(cell, lengths=True).with_options(num_layers=2, bidirectional=True)
    layer = case.layer()
    inputs = make_inputs(case, layer)
    tape = layer.forward(inputs.x, inputs.state, lengths=inputs.lengths)[2]
    whole = layer.backward(tape, inputs.dy, inputs.dstate)
    grads = layer.backward(tape, inputs.dy, inputs.dstate, wrt=wrt)
    for name in ("x", "state", "weights"):
        part = getattr(grads, name)
        if name in wrt:
            assert_all_same_bits(as_dict(part), as_dict(getattr(whole, name)))
        else:
            assert part is None or part == {}


def as_dict(value):
    if isinstance(value, tuple):
        return dict(enumerate(value))
    return value if hasattr(value, "keys") else {0: value}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_either_gradient_may_be_missing(dtype, cell):
    case = Case(cell).with_options(bidirectional=True)
    layer, narrow = case.layer(dtype), case.layer(dtype, backend="reference")
    inputs = make_inputs(case, layer)
    (_, _, tape), (_, _, expected_tape) = (one.forward(inputs.x, inputs.state) for one in (layer, narrow))
    for dy, dstate in [(inputs.dy, None), (None, inputs.dstate)]:
        actual, wanted = layer.backward(tape, dy, dstate), narrow.backward(expected_tape, dy, dstate)
        for name in actual.weights:
            assert_close(actual.weights[name], wanted.weights[name], case.depth + 30, case.steps, name=name)
        assert_close(actual.x, wanted.x, case.depth, case.steps)
    with pytest.raises(ValueError, match="dy, dstate: expected at least one"):
        layer.backward(tape)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("value", [7.5, np.nan])
@pytest.mark.parametrize("cell", ["lstm_coupled_i", "lstm_coupled_f", "lstm_all_options"])
def test_rows_of_the_derived_gate_are_ignored(cell, value, isa):
    case = Case(cell)
    layer = case.layer(_isa=isa)
    inputs = make_inputs(case, layer)
    before = forward_backward(layer, inputs)
    row, size = int(cell == "lstm_coupled_f"), case.hidden_size
    gates = slice(row * size, (row + 1) * size)
    for name, weight in layer.weights.items():
        if "weight_hr" not in name:
            weight[row if "peephole" in name else gates] = value
    after = forward_backward(layer, inputs)
    assert_all_same_bits(after, before)
    for name, gradient in after.items():
        if "_l0" in name and "weight_hr" not in name:
            assert not gradient[row if "peephole" in name else gates].any(), name


def layouts(array):
    """The same values, laid out as no kernel expects them."""
    yield np.asfortranarray(array)
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1] + 1), np.nan, array.dtype)
    wide[..., 1::2] = array
    yield wide[..., 1::2]
    yield np.ascontiguousarray(array[::-1, ..., ::-1])[::-1, ..., ::-1]
    yield np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1)
    yield np.ascontiguousarray(array[::-1])[::-1]
    padded = np.full((*array.shape[:-1], array.shape[-1] + 50), np.nan, array.dtype)
    padded[..., : array.shape[-1]] = array
    yield padded[..., : array.shape[-1]]
    unaligned = np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape)
    assert not unaligned.flags.aligned
    yield unaligned
    frozen = array.copy()
    frozen.flags.writeable = False
    yield frozen


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_layouts(dtype, cell):
    case = Case(cell, lengths=True).with_options(bidirectional=True)
    layer = case.layer(dtype)
    inputs = make_inputs(case, layer)
    reference_results = forward_backward(layer, inputs)
    states = inputs.state if isinstance(inputs.state, tuple) else (inputs.state,)
    dstates = inputs.dstate if isinstance(inputs.dstate, tuple) else (inputs.dstate,)
    for x, dy, *rest in zip(*map(layouts, (inputs.x, inputs.dy, *states, *dstates)), strict=True):
        state, dstate = tuple(rest[: len(states)]), tuple(rest[len(states) :])
        if not isinstance(inputs.state, tuple):
            (state,), (dstate,) = state, dstate
        before = [array.copy() for array in (x, dy, *rest)]
        odd = type(inputs)(x, state, inputs.lengths.astype(np.int32)[::-1].copy()[::-1], dy, dstate)
        assert_all_same_bits(forward_backward(layer, odd), reference_results)
        for array, copy in zip((x, dy, *rest), before, strict=True):
            np.testing.assert_array_equal(array, copy)


def before_forbidden_memory(array):
    """A copy whose end is that of a page, before one that may not be read."""
    size = -(-max(array.nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, size + mmap.PAGESIZE), np.uint8)
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(memory.ctypes.data + size), mmap.PAGESIZE, 0) == 0
    copy = memory[size - array.nbytes : size].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for memory that may not be read")
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_nothing_is_read_beyond_the_arrays(cell, dtype, isa):
    whole = {"input_size": 16, "hidden_size": 32}
    for sizes in [
        {},
        {"steps": 1, "input_size": 1},
        whole,
        {"steps": 1, "batch": 1},
        {"steps": 1, "batch": 1, **whole},
    ]:
        case = Case(cell, **sizes)
        layer = case.layer(dtype, _isa=isa)
        inputs = make_inputs(case, layer)
        expected = forward_backward(layer, inputs)
        layer._weights = Weights({name: before_forbidden_memory(array) for name, array in layer.weights.items()})
        layer._network = layer._make_network()
        assert_all_same_bits(forward_backward(layer, inputs.map(before_forbidden_memory)), expected)


HELD = {  # cells with activations that are held somewhere, and what all pre-activations are to be there
    "relu": ("RNN", {"nonlinearity": "relu"}, -9),
    "clip": ("RNN", {"clip": 0.5}, 9),
    "hard sigmoid": ("RNN", {"activations": ("HardSigmoid",)}, 9),
    "hard sigmoid below": ("RNN", {"activations": ("HardSigmoid",)}, -9),
    "thresholded relu": ("RNN", {"activations": (("ThresholdedRelu", 0.5),)}, -9),
    "jordan": ("Jordan", {"output_size": 5, "output": "linear", "activations": ("Relu",)}, -9),
    "lstm clip": ("LSTM", {"clip": 0.5}, 9),
    "lstm clip peephole": ("LSTM", {"clip": 0.5, "peephole": True}, 9),
    "lstm relu": ("LSTM", {"activations": ("HardSigmoid", "Relu", "Relu")}, -9),
    "lstm coupled": ("LSTM", {"activations": ("HardSigmoid", "HardSigmoid", "Relu"), "coupled": "i"}, -9),
    "gru clip": ("GRU", {"clip": 0.5}, 9),
    "gru hard sigmoid": ("GRU", {"activations": ("HardSigmoid", "HardSigmoid")}, -9),
    "gru before clip": ("GRU", {"clip": 0.5, "reset_after": False}, 9),
}


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", [*ISAS, "reference"])
@pytest.mark.parametrize("name", HELD)
def test_nothing_passes_where_an_activation_is_held(name, isa, dtype, value):
    kind, options, bias = HELD[name]
    back_end = {"backend": "reference"} if isa == "reference" else {"_isa": isa}
    layer = getattr(rnnkern, kind)(3, 19, seed=0, dtype=dtype, **options, **back_end)
    layer.weights["bias_ih_l0"] = np.full_like(layer.weights["bias_ih_l0"], bias)
    y, _, tape = layer.forward(np.ones((1, 2, 3), dtype))
    dy = np.zeros_like(y)
    dy[0, 1, 4] = value
    grads = layer.backward(tape, dy)
    assert not grads.x.any()
    if kind == "LSTM":
        assert not grads.state[0].any()
    for key in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        assert not grads.weights[key].any(), key


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell", [*sorted(KINKED), "lstm_coupled_f"])
def test_infinite_gradients_are_where_the_reference_has_them(cell, isa, dtype):
    case = Case(cell, steps=3, hidden_size=19)
    results = []
    for back_end in ({"_isa": isa}, {"backend": "reference"}):
        layer = case.layer(dtype, **back_end)
        inputs = make_inputs(case, layer)
        inputs.dy[1, 2, 3], inputs.dy[2, 4, 0] = np.inf, np.nan
        inputs.x[0, 3, 2] = -np.inf
        results.append(forward_backward(layer, inputs))
    assert_all_close(*results, case)


@pytest.mark.parametrize("isa", [*ISAS, "reference"])
@pytest.mark.parametrize(("coupled", "row"), [("i", 0), ("f", 1)])
def test_the_derived_gate_has_no_gradient_of_infinite_inputs(coupled, row, isa):
    back_end = {"backend": "reference"} if isa == "reference" else {"_isa": isa}
    layer = rnnkern.LSTM(3, 19, coupled=coupled, peephole=True, seed=0, **back_end)
    x, c = np.full((2, 2, 3), np.inf, np.float32), np.full((1, 2, 19), np.inf, np.float32)
    y, _, tape = layer.forward(x, (c, c))
    weights = layer.backward(tape, np.ones_like(y)).weights
    for name, gradient in weights.items():
        assert not gradient.reshape(3 if "peephole" in name else 4, 19, -1)[row].any(), name


def test_the_registries_agree(monkeypatch):
    assert sorted(_core.cells()) == sorted(reference.CELLS)
    with pytest.raises(ImportError, match="a row for each of rnn, lstm"):
        of_each_cell({family: gates for family, gates in GATES.items() if family != "gru_reset_before"})
    for family, gates in [("lstm", ("i", "f", "o")), ("rnn", ("h", "h"))]:
        monkeypatch.setitem(GATES, family, gates)
        with pytest.raises(ValueError, match="the kernels know another cell"):
            Case("lstm" if family == "lstm" else "rnn_tanh").layer()


def test_the_grid_covers_every_cell():
    assert {Case(cell).layer()._spec.family for cell in CELLS} == set(reference.CELLS)


@pytest.mark.parametrize("cell", CELLS)
def test_instruction_sets_really_differ(cell):
    """Proof that `_isa` chooses other code: without fused multiply-adds the last bits of long sums change."""
    if not {"baseline", "avx2"} <= set(ISAS):
        pytest.skip("only x86-64 with AVX2 has two instruction sets of different arithmetic")
    case = Case(cell, input_size=200, hidden_size=64)
    inputs = make_inputs(case, case.layer())
    results = [call(case.layer(_isa=isa), inputs)["y"] for isa in ("baseline", "avx2")]
    assert not np.array_equal(*results)
