"""What the package promises about bits, accuracy, odd numbers and the floating-point mode."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rnnkern
from harness import (
    CELLS,
    DTYPES,
    ISAS,
    Case,
    Inputs,
    assert_all_same_bits,
    assert_same_bits,
    explained,
    forward,
    forward_backward,
    make_inputs,
    states_of,
)
from rnnkern import _core
from tolerance import assert_close

# ---------------------------------------------------------------------------------------------------------------------
# One arithmetic


def rows_of(state, rows):
    return tuple(array[:, rows] for array in state) if isinstance(state, tuple) else state[:, rows]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_is_the_same_in_any_batch(cell, dtype, isa):
    case = Case(cell, steps=7, batch=14, input_size=21, hidden_size=37, lengths=True)
    case = case.with_options(num_layers=2, bidirectional=True)
    layer = case.layer(dtype, _isa=isa)
    inputs = make_inputs(case, layer)
    whole = forward(layer, inputs)
    for rows in (*([row] for row in range(14)), [3, 1], [5, 5, 0, 9, 2], range(13, -1, -1), range(3, 12)):
        rows = list(rows)
        lengths = inputs.lengths[rows]
        steps = max(lengths)
        part = Inputs(inputs.x[:steps, rows], rows_of(inputs.state, rows), lengths, inputs.dy, None)
        actual = forward(layer, part)
        assert_same_bits(actual.pop("y"), whole["y"][:steps, rows], f"y of {rows}")
        for name, array in actual.items():
            assert_same_bits(array, whole[name][:, rows], f"{name} of {rows}")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_backward_is_the_same_with_packed_weights(cell, dtype, isa):
    """Whole vectors in several groups: used as they are by a few steps, packed for many."""
    case = Case(cell, steps=3, batch=240, input_size=96, hidden_size=144)
    layer = case.layer(dtype, _isa=isa)
    inputs = make_inputs(case, layer)
    whole = forward_backward(layer, inputs)
    few = Inputs(
        inputs.x[:, :2], rows_of(inputs.state, slice(2)), None, inputs.dy[:, :2], rows_of(inputs.dstate, slice(2))
    )
    for name, array in forward_backward(layer, few).items():
        if name in ("dx", "dh", "dc"):
            assert_same_bits(array, whole[name][:, :2], name)


SPLITS = {  # sizes that make the plan split the batch, the units, the directions; and nothing
    "batch": ({"batch": 61, "steps": 5, "hidden_size": 40}, {}),
    "units": ({"batch": 1, "steps": 9, "input_size": 70, "hidden_size": 300}, {}),
    "few rows": ({"batch": 3, "steps": 9, "input_size": 70, "hidden_size": 200, "lengths": True}, {}),
    "directions": (
        {"batch": 6, "steps": 6, "hidden_size": 70, "lengths": True},
        {"bidirectional": True, "num_layers": 2},
    ),
    "nothing": ({"batch": 1, "steps": 1, "hidden_size": 3}, {}),
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_threads_change_no_bit(cell, dtype, split):
    sizes, options = SPLITS[split]
    case = Case(cell, **sizes).with_options(**options)
    layer = case.layer(dtype)
    inputs = make_inputs(case, layer)
    results = []
    for threads in (1, 2, 3, 4):
        with rnnkern.num_threads(threads):
            once = forward_backward(layer, inputs)
            again = forward_backward(layer, inputs, recompute=True)
            inference = forward(layer, inputs)
        assert_all_same_bits(again, once)
        assert_all_same_bits(inference, {name: once[name] for name in inference})
        results.append(once)
    for result in results[1:]:
        assert_all_same_bits(result, results[0])


def test_splits_are_really_made():
    """The sizes above do what their names say, else the test above proves nothing."""
    words = {
        "batch": "groups of sequences",
        "units": "hidden units in 2 groups",
        "directions": "both directions",
        "nothing": "nothing is split",
    }
    with rnnkern.num_threads(2):
        for name, split in words.items():
            sizes, options = SPLITS[name]
            case = Case("lstm", **sizes).with_options(**options)
            inputs = make_inputs(case, case.layer())
            assert split in explained(split, case.layer(), case.steps, case.batch, inputs.lengths)


def stepwise(layer, inputs):
    state, ys = inputs.state, []
    for x in inputs.x:
        y, state = layer.step(x, state)
        ys.append(y)
    return {"y": np.stack(ys), **states_of(state)}


def streamed(layer, inputs):
    stream = layer.freeze().stream(inputs.x.shape[1], inputs.state)
    first = stream.run(inputs.x[:2])
    second = stream.step(inputs.x[2])
    out = np.empty_like(second)
    stream.step(inputs.x[3], out=out)
    rest = stream.run(inputs.x[4:])
    return {"y": np.concatenate([first, second[None], out[None], rest]), **states_of(stream.state)}


def traced(layer, inputs):
    trace = layer.trace(inputs.x, inputs.state, lengths=inputs.lengths)
    return {"y": trace[list(trace)[-1]]}


def last_outputs(layer, inputs):
    y, state = layer(inputs.x, inputs.state, lengths=inputs.lengths, return_sequence=False)
    kept, state_kept, _ = layer.forward(inputs.x, inputs.state, lengths=inputs.lengths, return_sequence=False)
    assert_same_bits(kept, y)
    assert_all_same_bits(states_of(state_kept), states_of(state))
    return states_of(state) | {"last": y}


def explicit_lengths(layer, inputs):
    lengths = np.full(inputs.x.shape[1], inputs.x.shape[0])
    return forward(layer, Inputs(inputs.x, inputs.state, lengths, inputs.dy, inputs.dstate))


def unbatched(layer, inputs):
    columns = []
    for row in range(inputs.x.shape[1]):
        state = inputs.state
        state = tuple(array[:, row] for array in state) if isinstance(state, tuple) else state[:, row]
        columns.append({k: v[:, None] for k, v in forward(layer, Inputs(inputs.x[:, row], state, *[None] * 3)).items()})
    return {name: np.concatenate([column[name] for column in columns], axis=1) for name in columns[0]}


def kept(layer, inputs):
    return {k: v for k, v in forward_backward(layer, inputs).items() if k in ("y", "h", "c")}


def recomputed(layer, inputs):
    results = forward_backward(layer, inputs, recompute=True)
    assert_all_same_bits(results, forward_backward(layer, inputs))
    return {k: v for k, v in results.items() if k in ("y", "h", "c")}


WAYS = {
    "forward": kept,
    "recompute": recomputed,
    "step": stepwise,
    "stream": streamed,
    "trace": traced,
    "frozen": lambda layer, inputs: forward(layer.freeze(), inputs),
    "lengths": explicit_lengths,
    "unbatched": unbatched,
    "last output": last_outputs,
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_way_of_asking_gives_the_same_bits(cell, way, dtype, isa):
    for hidden_size in (19, 150):
        case = Case(cell, steps=9, batch=4, input_size=33, hidden_size=hidden_size)
        layer = case.layer(dtype, _isa=isa)
        inputs = make_inputs(case, layer)
        plain = forward(layer, inputs)
        plain["last"] = plain["y"][-1]
        for name, array in WAYS[way](layer, inputs).items():
            assert_same_bits(array, plain[name], f"{way}: {name}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", ["forward", "recompute", "frozen", "trace", "last output"])
@pytest.mark.parametrize("cell", CELLS)
def test_every_way_gives_the_same_bits_deep_and_ragged(cell, way, dtype):
    case = Case(cell, steps=9, batch=4, lengths=True).with_options(num_layers=2, bidirectional=True)
    layer = case.layer(dtype)
    inputs = make_inputs(case, layer)
    plain = forward(layer, inputs)
    if way == "trace":
        trace = layer.trace(inputs.x, inputs.state, lengths=inputs.lengths)
        name = list(trace)[-1][0]
        assert_same_bits(np.concatenate([trace[f"{name}_l1"], trace[f"{name}_l1_reverse"]], axis=2), plain["y"])
        return
    size = plain["y"].shape[2] // 2
    ends = plain["y"][inputs.lengths - 1, np.arange(4)]
    plain["last"] = np.concatenate([ends[:, :size], plain["y"][0, :, size:]], axis=1)
    for name, array in WAYS[way](layer, inputs).items():
        assert_same_bits(array, plain[name], f"{way}: {name}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_trace_agrees_with_the_reference(cell, dtype):
    case = Case(cell, lengths=True).with_options(num_layers=2, bidirectional=True)
    layer, twin = case.layer(dtype), case.layer(dtype, backend="reference")
    inputs = make_inputs(case, layer)
    actual, expected = (one.trace(inputs.x, inputs.state, lengths=inputs.lengths) for one in (layer, twin))
    assert actual.keys() == expected.keys()
    names = {"RNN": "h", "LSTM": "ifgoch", "GRU": "rznh", "Jordan": "hy"}[CELLS[cell][0]]
    assert set(actual) == {f"{name}_l{layer}{way}" for name in names for layer in (0, 1) for way in ("", "_reverse")}
    for name, array in actual.items():
        assert_close(array, expected[name], case.depth, case.total_steps, name=name)


# ---------------------------------------------------------------------------------------------------------------------
# Accuracy of the functions


def exact_sigmoid(x):
    return 1 / (1 + np.exp(-x))


FUNCTIONS = {"exp": (np.exp, 2), "sigmoid": (exact_sigmoid, 4), "tanh": (np.tanh, 4)}
"""What is exact in a wider type, and the bound in ulp."""


def worst_error(name, x, isa=None):
    """Largest error in ulp over x, after checking what can't be counted in ulp."""
    function, _ = FUNCTIONS[name]
    wide = np.float64 if x.dtype == np.float32 else np.longdouble
    info = np.finfo(x.dtype)
    with np.errstate(all="ignore"):
        actual, exact = _core.math(name, x, isa), function(x.astype(wide))
        rounded = exact.astype(x.dtype)
    assert actual.dtype == x.dtype
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(x))
    infinite = np.isinf(rounded)
    np.testing.assert_array_equal(actual[infinite], rounded[infinite])
    with np.errstate(all="ignore"):
        error = np.abs(actual.astype(wide) - exact)
        small = (np.abs(exact) < info.tiny) | (np.abs(x) < info.tiny)
        assert not (error[small] >= info.tiny).any()
        counted = ~(small | infinite | np.isnan(x))
        ulp = np.spacing(np.abs(rounded[counted])).astype(wide)
        return float((error[counted] / ulp).max(initial=0))


def boundary_values(dtype):
    info = np.finfo(dtype)
    log_max, log_tiny = math.log(float(info.max)), math.log(float(info.tiny))
    log_least = math.log(float(info.smallest_subnormal)) if dtype == np.float32 else -744.4400719213812
    centres = [0, 0.25, 0.5, 0.625, 1, 2, 8, 9, 10, 18, 19, 20, 22, 87, 88, 103, 104, 708, 709, 745, 746, 1e5]
    centres += [log_max, -log_tiny, -log_least, math.log(2), math.log(2) / 2, float(info.tiny), float(info.eps)]
    centres += [float(info.smallest_subnormal), float(info.max), float(info.max) / 2, math.sqrt(float(info.tiny))]
    values = np.array([sign * centre for centre in centres for sign in (1, -1)], dtype)
    near = [values]
    for target in (np.inf, -np.inf):
        step = values
        for _ in range(64):
            step = np.nextafter(step, dtype(target))
            near.append(step)
    return np.concatenate([*near, np.array([np.inf, -np.inf, np.nan], dtype)])


def samples(dtype, count, seed=0):
    """Boundary values, all exponents alike, and densely where the functions bend."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 2 ** np.finfo(dtype).bits, count // 3, dtype=f"u{np.dtype(dtype).itemsize}")
    parts = [bits.view(dtype), random.uniform(-20, 20, count // 3), random.uniform(-750, 720, count // 3)]
    return np.concatenate([boundary_values(dtype), *(part.astype(dtype) for part in parts)])


def skip_without_wider_type(dtype):
    if dtype == np.float64 and np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        pytest.skip("this platform has no type wider than float64")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_ulp_of_samples(name, dtype, isa):
    skip_without_wider_type(dtype)
    assert worst_error(name, samples(dtype, 1_000_000), isa) <= FUNCTIONS[name][1]


def worst_of_chunks(name, chunks):
    """NumPy and the kernels release the GIL, so two threads take half the time."""
    with ThreadPoolExecutor(2) as pool:
        return max(pool.map(lambda x: worst_error(name, x()), chunks))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_ulp_of_every_float32(name):
    size = 1 << 18  # as much as caches hold
    chunks = [
        lambda k=k: np.arange(k * size, (k + 1) * size, dtype=np.uint32).view(np.float32)
        for k in range((1 << 32) // size)
    ]
    assert sum(size for _ in chunks) == 1 << 32
    assert worst_of_chunks(name, chunks) <= FUNCTIONS[name][1]


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_ulp_of_a_hundred_million_float64(name):
    skip_without_wider_type(np.float64)
    chunks = [lambda k=k: samples(np.float64, 1_000_000, seed=k) for k in range(100)]
    assert worst_of_chunks(name, chunks) <= FUNCTIONS[name][1]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_value_does_not_depend_on_its_lane(name, dtype, isa):
    values = samples(dtype, 300)
    whole = _core.math(name, values, isa)
    for start, stop in [(1, None), (5, -3), (7, 8), (0, 1)]:
        part = np.ascontiguousarray(values[start:stop])
        assert_same_bits(_core.math(name, part, isa), whole[start:stop])


# ---------------------------------------------------------------------------------------------------------------------
# NaN, infinity, denormals


ODD = [np.nan, np.inf, -np.inf]
TORCH_CELLS = {"rnn_tanh": "RNN", "rnn_relu": "RNN", "lstm": "LSTM", "lstm_projected": "LSTM", "gru_reset_after": "GRU"}


@pytest.mark.parametrize("place", ["x", "state", "weight", "several x"])
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", TORCH_CELLS)
def test_nan_and_infinity_come_out_as_in_torch(cell, dtype, odd, place):
    torch = pytest.importorskip("torch", reason="the oracle of this test is PyTorch, which is not installed")
    case = Case(cell, steps=5, batch=4, input_size=3, hidden_size=6)
    options = {"nonlinearity": CELLS[cell][1].get("nonlinearity", "tanh")} if "rnn" in cell else {}
    options |= {"proj_size": 3} if "projected" in cell else {}
    layer = case.layer(dtype)
    inputs = make_inputs(case, layer)
    if place == "x":
        inputs.x[2, 1, 0] = odd
    elif place == "several x":
        inputs.x[1, 0], inputs.x[2, 2] = [odd, 1, -odd], odd
    elif place == "state":
        (inputs.state[-1] if isinstance(inputs.state, tuple) else inputs.state)[0, 1, 2] = odd
    else:
        layer.weights["weight_ih_l0"][1, 1] = odd
    module = getattr(torch.nn, TORCH_CELLS[cell])(3, 6, dtype=torch.float64, **options)
    module.load_state_dict({name: torch.tensor(weight) for name, weight in layer.weights.items()})
    state = inputs.state if isinstance(inputs.state, tuple) else (inputs.state,)
    state = tuple(torch.tensor(array, dtype=torch.float64) for array in state)
    with torch.no_grad():
        y, last = module(torch.tensor(inputs.x, dtype=torch.float64), state if len(state) > 1 else state[0])
    expected = {"y": y.numpy(), **{k: v.numpy() for k, v in states_of(last).items()}}
    for backend in (layer, case.layer(dtype, backend="reference")):
        backend.load_state_dict(layer.state_dict())
        for name, array in forward(backend, inputs).items():
            assert_close(array, expected[name], case.depth, case.steps, name=name)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_an_odd_sequence_spoils_no_other(cell, dtype, odd):
    case = Case(cell, steps=5, batch=7, lengths=True).with_options(num_layers=2, bidirectional=True)
    layer = case.layer(dtype)
    inputs = make_inputs(case, layer)
    clean = forward(layer, inputs)
    inputs.x[:, 3] = odd
    padding = np.arange(5)[:, None] >= inputs.lengths
    inputs.x[padding] = odd  # is never read
    others = [0, 1, 2, 4, 5, 6]
    for name, array in forward(layer, inputs).items():
        assert_same_bits(array[:, others], clean[name][:, others], name)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_there_is_one_nan(cell, dtype, isa):
    """Of NaN with and without a sign, and of differences of infinities, a sum makes the same one."""
    case = Case(cell, steps=5, batch=33, input_size=40, hidden_size=36)
    layer = case.layer(dtype, _isa=isa)
    inputs = make_inputs(case, layer)
    odd, random = np.array([np.nan, -np.nan, np.inf, -np.inf], dtype), np.random.default_rng(0)
    for array in (inputs.x, inputs.dy):
        array[-1, :, ::7] = random.choice(odd, array[-1, :, ::7].shape)
    results = []
    for threads in (1, 2, 3):
        with rnnkern.num_threads(threads):
            results.append(forward_backward(layer, inputs))
    for result in results[1:]:
        assert_all_same_bits(result, results[0])
    sums = {name: array[np.isnan(array)] for name, array in results[0].items() if "weight" in name or "bias" in name}
    assert any(array.size for array in sums.values())
    for name, array in sums.items():
        assert_same_bits(array, np.full_like(array, np.nan), name)


@pytest.mark.parametrize("cell", CELLS)
def test_nan_in_is_nan_out(cell):
    case = Case(cell, steps=4, batch=2)
    layer = case.layer()
    inputs = make_inputs(case, layer)
    inputs.x[1, 0, 4] = np.nan
    y = forward(layer, inputs)["y"]
    assert np.isfinite(y[0]).all()
    assert np.isfinite(y[:, 1]).all()
    assert np.isnan(y[1:, 0]).all()
    grads = forward_backward(layer, inputs)
    assert all(np.isnan(array).any() for name, array in grads.items() if name.startswith("dweight_ih"))


def decaying(dtype, scale):
    """A linear memory that stays near `scale`: state, weights, input and arriving gradient."""
    rnn = rnnkern.RNN(64, 64, nonlinearity="linear", bias=False, dtype=dtype)
    rnn.weights["weight_ih_l0"] = np.eye(64)
    rnn.weights["weight_hh_l0"] = np.eye(64) * 0.75
    return rnn, np.full((100, 16, 64), scale, dtype), np.full((1, 16, 64), scale, dtype)


def best_time(call, repeats=7):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("dtype", DTYPES)
def test_denormals_cost_no_time(dtype):
    """Where they are not suppressed, each costs about a hundred cycles; 3 leaves room for a busy machine."""
    times = {}
    for scale in (1.0, float(np.finfo(dtype).tiny) / 16):
        rnn, x, h = decaying(dtype, scale)

        def train(rnn=rnn, x=x, h=h):
            _, _, tape = rnn.forward(x, h)
            rnn.backward(tape, x, h)

        train()
        times[scale] = best_time(train)
    usual, denormal = times.values()
    assert denormal < 3 * usual, f"{denormal * 1e3:.2f} ms with denormals, {usual * 1e3:.2f} ms without"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_callers_floating_point_mode_is_restored(dtype, threads):
    tiny = np.full(64, np.finfo(dtype).tiny)
    rnn, x, h = decaying(dtype, 1.0)

    def denormal_arithmetic_works():
        product = tiny * dtype(0.25)  # a denormal result
        return bool((product > 0).all() and (product * dtype(4) == tiny).all())  # and a denormal operand

    def use():
        with rnnkern.num_threads(threads):
            _, _, tape = rnn.forward(x, h)
            rnn.backward(tape, x, h)
            frozen = rnn.freeze()
            frozen(x, h)
            frozen.stream(16, h).step(x[0])
            _core.math("exp", tiny, None)
        return denormal_arithmetic_works()

    assert denormal_arithmetic_works()
    assert use()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(use).result()


def test_a_caller_without_denormals_keeps_them_off():
    torch = pytest.importorskip("torch", reason="PyTorch switches the mode for this test, and is not installed")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor can't flush denormals")
    try:
        rnn, x, h = decaying(np.float32, 1.0)
        rnn(x, h)
        assert not (np.full(4, np.finfo(np.float32).tiny) * np.float32(0.25)).any()
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_nothing_warns(backend, recwarn):
    layer = rnnkern.LSTM(3, 4, backend=backend)
    x = np.full((5, 2, 3), np.finfo(np.float32).max)
    with np.errstate(all="raise"):
        _, _, tape = layer.forward(x)
        layer.backward(tape, np.ones((5, 2, 4), np.float32))
    assert not recwarn.list


@pytest.mark.skipif(sys.platform != "linux", reason="the value of FE_UPWARD is this platform's own")
def test_the_callers_rounding_mode_changes_no_bit():
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    upward = {"x86_64": 0x800, "aarch64": 0x400000}[platform.machine()]
    layer = rnnkern.GRU(64, 256, seed=0)
    x = np.random.default_rng(0).standard_normal((20, 1, 64), dtype=np.float32)
    expected, _ = layer(x)
    before = libm.fegetround()
    assert libm.fesetround(upward) == 0
    try:
        results = []
        for threads in (1, 2):
            with rnnkern.num_threads(threads):
                results.append(layer(x)[0])
        assert libm.fegetround() == upward
    finally:
        libm.fesetround(before)
    for actual in results:
        assert_same_bits(actual, expected)
