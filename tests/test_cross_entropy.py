"""The output layer's loss and gradients: kernels against the reference, the reference against finite differences."""

from __future__ import annotations

import functools
import inspect
import threading

import numpy as np
import pytest

import rnnkern
from harness import DTYPES, ISAS, assert_same_bits, finite_maximum
from rnnkern import _core, linear_cross_entropy, reference
from tolerance import CENTRAL_DIFFERENCE, assert_close

SHAPES = [  # N, H, V: 1, sizes that no lane count divides, larger than every block
    (1, 1, 1),
    (1, 3, 2),
    (2, 1, 5),
    (7, 9, 13),
    (16, 16, 12),
    (17, 33, 121),
    (65, 20, 240),
    (520, 19, 37),
    (300, 70, 1100),
]
NAMES = ("loss", "dh", "dweight", "dbias")


@functools.cache
def problem(positions, width, classes, dtype=np.float64, biased=True, chosen="all"):
    """Arguments of the functions; numbers that float32 holds, too."""
    random = np.random.default_rng(positions + width + classes)

    def normal(*shape):
        return random.standard_normal(shape).astype(np.float32).astype(dtype)

    h, weight = normal(positions, width), normal(classes, width) / dtype(8)
    bias = normal(classes) if biased else None
    targets = random.integers(0, classes, positions)
    mask = None
    if chosen != "all":
        targets[random.random(positions) < 0.3] = -100
        mask = random.random(positions) < 0.7
        targets[~mask] = classes + 7  # may be anything there
    if chosen == "none":
        targets[:] = -100
    return (h, weight, bias, targets), mask


def native(arguments, mask=None, *, reduction="mean", gradient=True, ignore_index=-100, isa=None):
    """What the kernels of an instruction set compute, in the order of NAMES."""
    loss, *gradients = _core.linear_cross_entropy(*arguments, mask, ignore_index, reduction == "mean", gradient, isa)
    return arguments[0].dtype.type(loss), *gradients


def truth(arguments, mask=None, **options):
    return reference.linear_cross_entropy(*(wide(a) for a in arguments), mask=mask, **{"gradient": True} | options)


def wide(array):
    return array.astype(np.float64) if array is not None and array.dtype.kind == "f" else array


def assert_all_close(actual, expected, arguments, counted):
    """`counted`: what the loss is the mean of, 1 for a sum.

    A gradient by a logit is a difference of numbers of up to 1 / counted, and the others are sums of its products with
    a matrix: this is their scale, as they may be small only because terms cancel each other.
    """
    h, weight, *_ = arguments
    shape = (*h.shape, len(weight))
    factors = {"dh": weight, "dweight": h, "dbias": np.ones(1)}
    for name, a, b in zip(NAMES, actual, expected, strict=True):
        if b is None:
            assert a is None, name
        else:
            scale = finite_maximum(factors[name]) / max(1, counted) if name in factors else None
            assert_close(a, b, depth=sum(shape), scale=scale, name=name)


def number(targets, mask, reduction="mean"):
    """What the loss is divided by."""
    counts = (targets != -100) & (True if mask is None else mask)
    return int(counts.sum()) if reduction == "mean" else 1


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("chosen", ["all", "some", "none"])
@pytest.mark.parametrize("biased", [True, False])
def test_the_references_gradients(biased, chosen, reduction):
    arguments, mask = problem(6, 3, 4, biased=biased, chosen=chosen)
    options = {"mask": mask, "reduction": reduction}
    _, *gradients = reference.linear_cross_entropy(*arguments, **options, gradient=True)
    d = np.finfo(np.float64).eps ** (1 / 3)
    for name, array, gradient in zip(NAMES[1:], arguments, gradients, strict=False):
        if array is None:
            assert gradient is None
            continue
        numeric = np.zeros_like(array)
        for index in np.ndindex(array.shape) if chosen != "none" else ():
            value, sides = array[index], []
            for moved in (value + d, value - d):
                array[index] = moved
                sides.append(reference.linear_cross_entropy(*arguments, **options)[0])
            array[index] = value
            numeric[index] = (sides[0] - sides[1]) / (2 * d)
        assert_close(gradient, numeric, depth=13, order=CENTRAL_DIFFERENCE, scale=1.0, name=name)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_match_the_reference(isa, dtype, shape):
    for biased in (True, False):
        for chosen in ("all", "some", "none"):
            arguments, mask = problem(*shape, dtype, biased, chosen)
            for reduction in ("mean", "sum"):
                actual = native(arguments, mask, reduction=reduction, isa=isa)
                expected = truth(arguments, mask, reduction=reduction)
                assert_all_close(actual, expected, arguments, number(arguments[3], mask, reduction))
                only, *nothing = native(arguments, mask, reduction=reduction, gradient=False, isa=isa)
                assert_same_bits(only, actual[0])
                assert nothing == [None] * 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_torchs(dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    functional = torch.nn.functional
    for shape in SHAPES:
        for biased in (True, False):
            for chosen in ("all", "some", "none"):
                (h, weight, bias, targets), mask = problem(*shape, dtype, biased, chosen)
                ignored = targets if mask is None else np.where(mask, targets, -100)
                for reduction in ("mean", "sum"):
                    leaves = [torch.tensor(a, requires_grad=True) for a in (h, weight, bias) if a is not None]
                    logits = functional.linear(*leaves)
                    loss = functional.cross_entropy(logits, torch.from_numpy(ignored), reduction=reduction)
                    loss.backward()
                    expected = [loss.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]
                    actual, grads = linear_cross_entropy(
                        h, weight, bias, targets, mask=mask, reduction=reduction, gradient=True
                    )
                    expected += [None] * (4 - len(expected))
                    assert_all_close([actual, *grads], expected, (h, weight), number(targets, mask, reduction))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", [*ISAS, None])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_class_without_probability_has_no_gradient(isa, dtype):
    """Its logits are -inf at every position, whatever is computed beyond the last one."""
    h, weight = np.full((5, 3), -1, dtype), np.zeros((7, 3), dtype)
    weight[2] = np.inf
    arguments = h, weight, np.zeros(7, dtype), np.array([0, 1, 3, 0, 1])
    loss, _, dweight, dbias = (
        native(arguments, isa=isa) if isa else reference.linear_cross_entropy(*arguments, gradient=True)
    )
    assert_close(loss, np.log(np.float64(6)))
    assert not dweight[2].any()
    assert dbias[2] == 0
    assert_close(dbias[4], np.float64(1 / 6))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "largest"])
@pytest.mark.parametrize("where", ["h", "bias", "target's bias", "all of the bias"])
def test_odd_numbers_come_out_as_torchs(dtype, value, where):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    arguments, _ = problem(7, 9, 130, dtype)
    h, weight, bias, targets = (a.copy() for a in arguments)
    targets[:] = [5, 9, 5, 5, 8, 9, 9]
    if value == "largest":
        value = np.finfo(dtype).max / dtype(1 if where == "h" else 8)  # eight losses still have a sum
    if where == "h":
        h[2, 3] = value
    else:
        bias[{"bias": 6, "target's bias": 9, "all of the bias": slice(None)}[where]] = value
    leaves = [torch.tensor(a, requires_grad=True) for a in (h, weight, bias)]
    loss = torch.nn.functional.cross_entropy(torch.nn.functional.linear(*leaves), torch.from_numpy(targets))
    loss.backward()
    actual, grads = linear_cross_entropy(h, weight, bias, targets, gradient=True)
    expected = [loss.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]
    assert_all_close([actual, *grads], expected, (h, weight), len(h))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(611, 65, 700), (611, 3, 4000), (5000, 40, 11)], ids=str)  # each worth a team
def test_threads_change_no_bit(isa, dtype, shape):
    arguments, mask = problem(*shape, dtype, chosen="some")
    results = []
    for threads in (1, 2, 3, 7):
        with rnnkern.num_threads(threads):
            results.append(native(arguments, mask, isa=isa))
    for result in results[1:]:
        for name, a, b in zip(NAMES, result, results[0], strict=True):
            assert_same_bits(a, b, name)


def test_what_does_not_count_is_not_read():
    (h, weight, bias, targets), mask = problem(40, 9, 13, np.float32, chosen="some")
    counts = mask & (targets != -100)
    h = h.copy()
    expected_loss, expected = linear_cross_entropy(h[counts], weight, bias, targets[counts], gradient=True)
    h[~counts] = np.nan
    loss, grads = linear_cross_entropy(h, weight, bias, targets, mask=mask, gradient=True)
    assert_same_bits(loss, expected_loss)
    assert_same_bits(grads.weight, expected.weight)
    assert_same_bits(grads.bias, expected.bias)
    assert_same_bits(grads.h[counts], expected.h)
    assert not grads.h[~counts].any()


def test_any_strides_and_integers():
    (h, weight, bias, targets), mask = problem(24, 9, 13, np.float32, chosen="some")
    expected_loss, expected = linear_cross_entropy(h, weight, bias, targets, mask=mask, gradient=True)
    grid = lambda a: np.ascontiguousarray(a.reshape(4, 6, *a.shape[1:]).swapaxes(0, 1)).swapaxes(0, 1)  # noqa: E731
    spread = np.repeat(bias, 2)[::2]
    targets = np.where(mask, targets, 0)
    for kind in ("i1", "i2", "i4", ">i8", "i8"):
        arrays = [grid(h), np.asfortranarray(weight), spread, grid(targets).astype(kind, order="K")]
        for array in arrays:
            array.flags.writeable = False
        before = [array.copy() for array in arrays]
        loss, grads = linear_cross_entropy(*arrays, mask=grid(mask), gradient=True)
        assert_same_bits(loss, expected_loss)
        assert_same_bits(grads.h, expected.h.reshape(4, 6, 9))
        assert_same_bits(grads.weight, expected.weight)
        assert_same_bits(grads.bias, expected.bias)
        for array, old in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, old)
    unsigned, counts = targets.astype(np.uint64), mask & (targets >= 0)
    unsigned[~counts] = 2**64 - 1
    assert_same_bits(linear_cross_entropy(h, weight, bias, unsigned, mask=counts), expected_loss)


def test_one_position_and_none():
    (h, weight, bias, targets), _ = problem(7, 9, 13, np.float32)
    loss, grads = linear_cross_entropy(h[0], weight, bias, np.asarray(targets[0]), gradient=True)
    assert (type(loss), grads.h.shape) == (np.float32, (9,))
    for shape in ((0,), (3, 0), (0, 2)):
        empty = np.zeros((*shape, 9), np.float32), weight, bias, np.zeros(shape, np.int64)
        loss, grads = linear_cross_entropy(*empty, gradient=True)
        assert np.isnan(loss)
        assert grads.h.shape == (*shape, 9)
        assert not grads.weight.any()
        assert not grads.bias.any()
        assert linear_cross_entropy(*empty, reduction="sum") == 0


def test_a_class_may_be_the_one_to_ignore():
    (h, weight, bias, targets), _ = problem(24, 9, 3, np.float64)
    expected = linear_cross_entropy(h, weight, bias, targets, mask=targets != 1)
    assert_same_bits(linear_cross_entropy(h, weight, bias, targets, ignore_index=1), expected)


F4 = np.float32
WRONG = [
    ({"h": [[1.0]]}, TypeError, r"h: expected a float32 or float64 array of shape \(\.\.\., H\), got list"),
    ({"h": np.zeros((6, 4), np.float16)}, TypeError, "h: .* got float16"),
    ({"h": np.zeros((), F4)}, ValueError, "h: .* got float32 array of shape"),
    ({"h": np.zeros((6, 0), F4)}, ValueError, "h: expected a last dimension of 1 or more"),
    ({"h": np.zeros((6, 5), F4)}, ValueError, r"weight: expected a float32 array of shape \(V, 5\), got .*\(5, 4\)"),
    ({"weight": np.zeros((5, 4))}, TypeError, "weight: expected a float32 array .* got float64"),
    ({"weight": None}, TypeError, "weight: .* got NoneType"),
    ({"weight": np.zeros((0, 4), F4)}, ValueError, "weight: expected 1 class or more"),
    ({"bias": np.zeros((4,), F4)}, ValueError, r"bias: expected a float32 array of shape \(5,\), got .*\(4,\)"),
    ({"bias": np.zeros((5, 1), F4)}, ValueError, "bias: "),
    ({"bias": 0.0}, TypeError, "bias: .* got float"),
    ({"targets": [0] * 6}, TypeError, r"targets: expected an integer array of shape \(6,\), got list"),
    ({"targets": np.zeros(6)}, TypeError, "targets: .* got float64"),
    ({"targets": np.zeros(6, bool)}, TypeError, "targets: .* got bool"),
    ({"targets": np.zeros(7, int)}, ValueError, r"targets: .* \(6,\), got int64 array of shape \(7,\)"),
    ({"targets": np.zeros((6, 1), int)}, ValueError, "targets: "),
    ({"targets": np.arange(6)}, ValueError, r"targets: expected classes in 0\.\.4 or ignore_index \(-100\), got 5"),
    ({"targets": np.full(6, -1)}, ValueError, "targets: .* got -1"),
    ({"targets": np.full(6, 2**64 - 100, np.uint64)}, ValueError, "targets: .* got 18446744073709551516"),
    ({"mask": np.ones(6)}, TypeError, r"mask: expected a bool array of shape \(6,\), got float64"),
    ({"mask": [True] * 6}, TypeError, "mask: .* got list"),
    ({"mask": np.ones(5, bool)}, ValueError, "mask: "),
    ({"ignore_index": 1.5}, TypeError, "ignore_index: expected an integer"),
    ({"ignore_index": True}, TypeError, "ignore_index: "),
    ({"ignore_index": 2**63}, ValueError, "ignore_index: "),
    ({"reduction": "none"}, ValueError, "reduction: expected one of 'mean', 'sum', got 'none'"),
    ({"reduction": 1}, TypeError, "reduction: "),
    ({"gradient": 1}, TypeError, "gradient: expected True or False"),
]


@pytest.mark.parametrize(
    ("wrong", "error", "message"), WRONG, ids=[f"{next(iter(w))}-{i}" for i, (w, *_) in enumerate(WRONG)]
)
def test_wrong_arguments(wrong, error, message):
    right = {"h": np.zeros((6, 4), F4), "weight": np.zeros((5, 4), F4), "bias": None, "targets": np.zeros(6, int)}
    with pytest.raises(error, match=message):
        linear_cross_entropy(**right | wrong)


def test_what_cannot_be_allocated():
    weight = np.broadcast_to(np.zeros(4, F4), (2**50, 4))
    with pytest.raises(MemoryError):
        linear_cross_entropy(np.zeros((6, 4), F4), weight, None, np.zeros(6, int))


def test_the_reference_has_the_same_signature():
    own, twin = (inspect.signature(f).parameters for f in (linear_cross_entropy, reference.linear_cross_entropy))
    assert own == twin


def test_other_threads_run_meanwhile():
    """Python runs on while the kernels do."""
    arguments, _ = problem(2000, 64, 3000, np.float32)
    done, turns = threading.Event(), 0

    def call():
        with rnnkern.num_threads(1):
            linear_cross_entropy(*arguments, gradient=True)
        done.set()

    thread = threading.Thread(target=call)
    thread.start()
    while not done.wait(1e-3):
        turns += 1
    thread.join()
    assert turns > 3
