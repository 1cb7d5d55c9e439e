"""Any shape, any options: the kernels agree with the reference, and with themselves by every way of asking."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import rnnkern
from harness import (
    CELLS,
    ISAS,
    KINKED,
    Case,
    Inputs,
    assert_all_close,
    assert_all_same_bits,
    excesses,
    forward,
    forward_backward,
    make_inputs,
)
from rnnkern import reference

quick = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SMOOTH = ["Affine", "ScaledTanh", "Sigmoid", "Softplus", "Softsign", "Tanh"]
"""Without a kink, where a rounding error would choose the other slope."""


@st.composite
def activation(draw):
    name = draw(st.sampled_from(SMOOTH))
    if name not in ("Affine", "ScaledTanh"):
        return name
    return name, *(draw(st.floats(-1.25, 1.25, width=16)) for _ in range(2))


@st.composite
def cases(draw):
    """A cell with any options that it can have, of any small size."""
    cell = draw(st.sampled_from(sorted(CELLS)))
    options = {
        "num_layers": draw(st.integers(1, 3)),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
    }
    if options["num_layers"] > 1:
        options["dropout"] = draw(st.sampled_from([0.0, 0.3, 1.0]))
    if cell in ("rnn_tanh", "lstm", "lstm_peephole", "gru_reset_after", "gru_reset_before") and draw(st.booleans()):
        count = {"r": 1, "l": 3, "g": 2}[cell[0]]
        both = options["bidirectional"] and draw(st.booleans())
        options["activations"] = tuple(draw(activation()) for _ in range(count * (2 if both else 1)))
    steps, batch = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    case = Case(
        cell,
        steps=steps,
        batch=batch,
        input_size=draw(st.integers(1, 40)),
        hidden_size=draw(st.integers(1, 40)),
        lengths=draw(st.booleans()) and steps > 0,
        state=draw(st.booleans()),
        return_sequence=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
    ).with_options(**options)
    assume(case.valid())
    return case


def by_the_reference(compute, case, layer, inputs, rounded):
    """What the reference computes with the values of this layer and of these inputs, each `rounded`."""
    inputs = inputs.map(rounded)
    twin = case.layer(inputs.x.dtype, backend="reference")
    twin.load_state_dict({name: rounded(array) for name, array in layer.state_dict().items()})
    with np.errstate(all="ignore"):
        return compute(twin, inputs, case.return_sequence)


def expected_of(compute, case, layer, inputs):
    """What the reference computes in float64.

    Only where the problem is well-conditioned: unbounded gates multiply each other at each step, and what has grown
    far, or is the difference of what has, has lost its digits. There the reference in float32 is off as well, from the
    same values or from neighbouring ones. (Some of each: a single error may be small by chance.)
    """
    random = np.random.default_rng(case.seed + 2)

    def single(array):
        return array.astype(np.float32)

    def neighbour(array):
        return single(array * (1 + np.finfo(np.float32).eps * random.integers(-1, 2, array.shape)))

    expected = by_the_reference(compute, case, layer, inputs, lambda array: array.astype(np.float64))
    for rounded in (single, neighbour, neighbour, neighbour):
        results = by_the_reference(compute, case, layer, inputs, rounded)
        assume(all(worst <= 1 / 4 for worst in excesses(results, expected, case).values()))
    return expected


@quick
@given(case=cases(), isa=st.sampled_from(ISAS), recompute=st.booleans())
def test_the_reference_in_float64(case, isa, recompute):
    """Everything that is computed."""
    layer = case.layer(np.float64, _isa=isa)
    inputs = make_inputs(case, layer)
    expected = expected_of(forward_backward, case, layer, inputs)
    assert_all_close(forward_backward(layer, inputs, case.return_sequence, recompute), expected, case)


@quick
@given(case=cases(), isa=st.sampled_from(ISAS))
def test_the_reference_in_float32(case, isa):
    layer = case.layer(np.float32, _isa=isa)
    inputs = make_inputs(case, layer)
    expected = expected_of(forward, case, layer, inputs)
    assert_all_close(forward(layer, inputs, case.return_sequence), expected, case)


@quick
@given(case=cases(), isa=st.sampled_from(ISAS), recompute=st.booleans())
def test_gradients_in_float32(case, isa, recompute):
    assume(case.cell not in KINKED)
    layer = case.layer(np.float32, _isa=isa)
    inputs = make_inputs(case, layer)
    expected = expected_of(forward_backward, case, layer, inputs)
    assert_all_close(forward_backward(layer, inputs, case.return_sequence, recompute), expected, case)


@quick
@given(case=cases(), threads=st.integers(1, 5), isa=st.sampled_from(ISAS), data=st.data())
def test_the_same_bits_by_every_way(case, threads, isa, data):
    layer = case.layer(_isa=isa)
    inputs = make_inputs(case, layer)
    with rnnkern.num_threads(1):
        plain = forward(layer, inputs, case.return_sequence)
        trained = forward_backward(case.layer(_isa=isa), inputs, case.return_sequence)
    with rnnkern.num_threads(threads):
        assert_all_same_bits(forward(layer.freeze(), inputs, case.return_sequence), plain)
        again = forward_backward(case.layer(_isa=isa), inputs, case.return_sequence, recompute=data.draw(st.booleans()))
    assert_all_same_bits(again, trained)


@quick
@given(case=cases(), data=st.data())
def test_a_sequence_alone_has_the_same_bits(case, data):
    assume(case.batch > 0)
    layer = case.layer()
    inputs = make_inputs(case, layer)
    y, last = layer(inputs.x, inputs.state, lengths=inputs.lengths)
    row = data.draw(st.integers(0, case.batch - 1))
    time_major = (lambda array: array.swapaxes(0, 1)) if layer.batch_first else (lambda array: array)
    length = case.steps if inputs.lengths is None else int(inputs.lengths[row])
    pair = isinstance(last, tuple)
    first = inputs.state
    if first is not None:
        first = tuple(member[:, row] for member in first) if pair else first[:, row]
    alone, alone_last = layer(time_major(inputs.x)[:length, row], first)
    expected = {
        "y": time_major(y)[:length, row],
        **{str(i): m[:, row] for i, m in enumerate(last if pair else (last,))},
    }
    actual = {"y": alone, **{str(i): m for i, m in enumerate(alone_last if pair else (alone_last,))}}
    assert_all_same_bits(actual, expected)


@quick
@given(case=cases(), cuts=st.lists(st.integers(0, 9), max_size=3))
def test_a_stream_in_pieces_has_the_same_bits(case, cuts):
    assume(case.batch > 0)
    layer = case.layer()
    assume(not layer.bidirectional)
    inputs = make_inputs(case, layer)
    y, last = layer(inputs.x, inputs.state)
    axis = 1 if layer.batch_first else 0
    stream = layer.freeze().stream(case.batch, inputs.state)
    edges = [0, *sorted(min(cut, case.steps) for cut in cuts), case.steps]
    pieces = []
    for start, stop in itertools.pairwise(edges):
        if stop - start == 1:
            pieces.append(np.expand_dims(stream.step(inputs.x.take(start, axis)), axis))
        else:
            pieces.append(stream.run(inputs.x[(slice(None),) * axis + (slice(start, stop),)]))
    actual, state = np.concatenate(pieces, axis), stream.state
    members = zip(state, last) if isinstance(last, tuple) else [(state, last)]
    np.testing.assert_array_equal(actual, y)
    for one, other in members:
        np.testing.assert_array_equal(one, other)


@quick
@given(case=cases(), data=st.data())
def test_what_follows_the_end_of_a_sequence_does_not_matter(case, data):
    assume(case.batch > 0 and case.steps > 0)
    layer, other = case.layer(), case.layer()
    inputs = make_inputs(case, layer)
    lengths = np.array(data.draw(st.lists(st.integers(1, case.steps), min_size=case.batch, max_size=case.batch)))
    inputs = type(inputs)(inputs.x, inputs.state, lengths, inputs.dy, inputs.dstate)
    x, dy = inputs.x.copy(), inputs.dy.copy()
    time_major = (lambda array: array.swapaxes(0, 1)) if layer.batch_first else (lambda array: array)
    padding = np.arange(case.steps)[:, None] >= lengths
    time_major(x)[padding] = np.nan
    if case.return_sequence:
        time_major(dy)[padding] = np.nan
    results = forward_backward(layer, inputs, case.return_sequence)
    spoilt = forward_backward(other, type(inputs)(x, inputs.state, lengths, dy, inputs.dstate), case.return_sequence)
    assert_all_same_bits(spoilt, results)
    assert not time_major(results["dx"])[padding].any()
    if case.return_sequence:
        assert not time_major(results["y"])[padding].any()


@st.composite
def views(draw):
    """A function that copies an array into a read-only view of a larger one: reversed, skipping, transposed, odd."""
    seed, shift = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0, 0, 1, 4]))

    def view_of(array):
        random = np.random.default_rng(seed)
        axes, steps = random.permutation(array.ndim), random.choice([-2, -1, 1, 3], array.ndim)
        shape = [abs(step) * array.shape[axis] for step, axis in zip(steps, axes)]
        buffer = np.full(math.prod(shape) * array.itemsize + shift, 0xFF, np.uint8)  # NaN wherever nothing is copied
        base = buffer[shift:].view(array.dtype).reshape(shape)
        view = base[tuple(slice(None, None, step) for step in steps)].transpose(np.argsort(axes))
        view[...] = array
        view.flags.writeable = False
        return view

    return view_of


@quick
@given(
    case=cases(), view=views(), backend=st.sampled_from(["native", "reference"]), dtype=st.sampled_from(["f4", "f8"])
)
def test_any_layout_of_the_inputs(case, view, backend, dtype):
    """Any strides and any alignment of every argument: the same bits as of contiguous arrays."""
    inputs = make_inputs(case, case.layer(dtype))

    def each(value):
        return tuple(map(view, value)) if isinstance(value, tuple) else None if value is None else view(value)

    odd = Inputs(each(inputs.x), each(inputs.state), each(inputs.lengths), each(inputs.dy), each(inputs.dstate))
    results = [
        forward_backward(case.layer(dtype, backend=backend), given, case.return_sequence) for given in (inputs, odd)
    ]
    assert_all_same_bits(*results)
    results = [forward(case.layer(dtype, backend=backend), given, case.return_sequence) for given in (inputs, odd)]
    assert_all_same_bits(*results)


@quick
@given(
    kind=st.sampled_from(["RNN", "LSTM", "GRU"]),
    shape=st.lists(st.integers(0, 5), max_size=5),
    dtype=st.sampled_from(["f4", ">f4", "f8", "f2", "i4", "u1", "c8", "?", "O", "U2", "M8[s]", "V4"]),
    lengths=st.one_of(
        st.none(), st.lists(st.integers(-1, 6), max_size=5), st.lists(st.floats(), max_size=3), st.text()
    ),
    state=st.one_of(st.none(), st.lists(st.integers(0, 4), max_size=4).map(lambda s: np.zeros(s, np.float32))),
    batch_first=st.booleans(),
)
def test_whatever_comes_is_answered_alike(kind, shape, dtype, lengths, state, batch_first):
    """Either both back ends compute, or both raise the same TypeError or ValueError."""
    answers = []
    for backend in ("native", "reference"):
        layer = getattr(rnnkern, kind)(2, 3, batch_first=batch_first, backend=backend)
        try:
            y, _ = layer(np.zeros(shape, dtype), state, lengths=lengths)
            answers.append(("computed", y.shape))
        except (TypeError, ValueError) as error:
            answers.append((type(error), str(error)))
    assert answers[0] == answers[1]


def test_the_smooth_activations_are_onnx_names():
    assert set(SMOOTH) <= set(reference.ACTIVATIONS)


@pytest.mark.slow
@settings(quick, max_examples=2000)
@given(case=cases(), isa=st.sampled_from(ISAS), threads=st.integers(1, 5))
def test_many_more_against_the_reference(case, isa, threads):
    layer = case.layer(np.float64, _isa=isa)
    inputs = make_inputs(case, layer)
    expected = expected_of(forward_backward, case, layer, inputs)
    with rnnkern.num_threads(threads):
        assert_all_close(forward_backward(layer, inputs, case.return_sequence), expected, case)
