"""Values that nobody should pass, and what must not change while somebody does."""

from __future__ import annotations

import decimal
import fractions
import hashlib
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np


class Mischief(Exception):
    """What the code of a hostile value raises."""


class Hostile:
    """Answers whatever it is asked with an exception of its own, but for what Python needs to show it."""

    def __index__(self):
        raise Mischief

    __float__ = __bool__ = __len__ = __iter__ = __int__ = __array__ = __hash__ = __index__

    def __eq__(self, other):
        raise Mischief

    def __getitem__(self, key):
        raise Mischief


class Subclass(np.ndarray):
    pass


def numbers() -> list[Any]:
    return [
        *(0, 1, -1, 2, 2**24, 2**31, 2**63, 2**64, 2**70, -(2**70), 10**400, True, 0.5, -0.5, 1e300, -1e300, 1e-320),
        *(float("nan"), float("inf"), -float("inf"), 1j, decimal.Decimal("0.5"), fractions.Fraction(1, 3)),
        *(np.float32("nan"), np.float16(0.5), np.float64(1e300), np.int8(-1), np.uint64(2**64 - 1), np.bool_(True)),
        *(np.longdouble(2) ** 5000, np.datetime64("2020-01-01"), np.str_("tanh"), np.array(1), np.array(0.5, "f4")),
    ]


def things() -> list[Any]:
    recursive: list[Any] = []
    recursive.append(recursive)
    nested: Any = ()
    for _ in range(10_000):
        nested = (nested,)
    return [
        *(
            None,
            "",
            "x",
            "tanh",
            "x" * 100,
            "\ud800",
            b"x",
            bytearray(8),
            [],
            [1],
            [[1, 2], [3]],
            (),
            ((),),
            {},
            {"h": 1},
        ),
        *(
            set(),
            {"x"},
            frozenset({1}),
            object(),
            Hostile(),
            Hostile,
            Mischief,
            len,
            Ellipsis,
            NotImplemented,
            slice(3),
        ),
        *(range(3), range(2**62), (i for i in range(3)), itertools.count(), itertools.repeat(1), recursive, nested),
    ]


DTYPES = ["f4", "f8", ">f4", "f2", "g", "i1", "i4", "i8", "u8", "?", "F", "O", "U2", "S3", "M8[s]", "V4", [("a", "f4")]]


def array(random: np.random.Generator, like: np.ndarray | None = None) -> np.ndarray:
    """An array that is wrong, or right in an odd way."""
    if like is not None and random.random() < 0.5:
        return odd_copy(random, like)
    shape = tuple(int(n) for n in random.integers(0, 5, random.integers(0, 5)))
    if random.random() < 0.1:  # no values, but many of what there is none of
        shape = tuple(random.permutation([0, random.choice([3, 2**20, 2**31, 2**50]), 3][: random.integers(2, 4)]))
    if random.random() < 0.1 and like is not None:
        return np.broadcast_to(np.zeros((), like.dtype), (2**10, *like.shape[1:]) if like.ndim else (3,))
    return np.zeros(shape, DTYPES[random.integers(len(DTYPES))])


def odd_copy(random: np.random.Generator, like: np.ndarray) -> Any:
    """The same values, or not quite the same, in another kind of array."""
    kind = random.integers(12)
    if kind == 0:
        return like.copy("F")
    if kind == 1:
        return np.repeat(like, 2, -1)[..., ::2] if like.ndim else like
    if kind == 2:
        return like[::-1].copy()[::-1] if like.ndim else like
    if kind == 3:
        shifted = np.frombuffer(bytearray(like.nbytes + 1), np.uint8)[1:].view(like.dtype).reshape(like.shape)
        shifted[...] = like
        return shifted
    if kind == 4:
        return like.view(Subclass)
    if kind == 5:
        return np.ma.masked_array(like, random.random(like.shape) < 0.5)
    if kind == 6:
        return np.asmatrix(like) if like.ndim == 2 else like[None]
    if kind in (7, 8) and like.dtype.kind not in "fiub":
        return like
    if kind == 7:
        spoilt = like.astype("f8")
        spoilt[random.random(like.shape) < 0.2] = [np.nan, np.inf, -np.inf][random.integers(3)]
        with np.errstate(invalid="ignore"):
            return spoilt.astype(like.dtype)
    if kind == 8:
        return like.astype(DTYPES[random.integers(6)])
    if kind == 9:
        return like[..., :-1]
    if kind == 10:
        return np.broadcast_to(like[:1], like.shape) if like.ndim else like
    readonly = like.copy()
    readonly.flags.writeable = False
    return readonly


def value(random: np.random.Generator, like: Any = None) -> Any:
    """Something to pass instead of `like`."""
    kind = random.random()
    if isinstance(like, tuple) and like and kind < 0.5:
        at = int(random.integers(len(like)))
        return (*like[:at], value(random, like[at]), *like[at + 1 :])
    if isinstance(like, np.ndarray) and kind < 0.7:
        return array(random, like)
    if isinstance(like, list) and like and kind < 0.5:
        at = int(random.integers(len(like)))
        return [*like[:at], value(random), *like[at + 1 :]]
    pool = numbers() if kind < 0.4 else things() if kind < 0.9 else [array(random)]
    return pool[random.integers(len(pool))]


def fingerprint(values: Iterable[Any]) -> str:
    """Of the shape, strides and content of every array in nested tuples and lists."""
    digest = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, np.ndarray) and item.nbytes < 1 << 24 and not item.dtype.hasobject:
            digest.update(repr((item.shape, item.strides, item.dtype)).encode() + item.tobytes())
        elif type(item) in (tuple, list) and len(item) < 100:
            for member in item[:10]:
                if member is not item:
                    add(member)

    for item in values:
        try:
            add(item)
        except RecursionError:
            continue
    return digest.hexdigest()
