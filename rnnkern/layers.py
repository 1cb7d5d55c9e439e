"""The recurrent layers: PyTorch's names, shapes and gate order, on NumPy arrays."""

from __future__ import annotations

import copy
import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from . import _core, options, reference
from .frozen import FrozenLayer
from .serialization import save
from .spec import GATES, Array, Family, Spec

State = Array | tuple[Array, Array]
"""h, or (h, c) for an LSTM; each of shape (L*D, B, size), or (L*D, size) where the input is not batched."""

PART_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_peephole", "weight_hr")
"""The weights of one layer and direction, in the order of the extension."""

TRACED = {
    name: gates if name == "rnn" else (*gates, "c", "h") if name == "lstm" else (*gates, "h")
    for name, gates in GATES.items()
}
"""What `Layer.trace` returns of each cell."""


@dataclass(frozen=True)
class Gradients:
    """What `Layer.backward` returns; what was not asked for is None, or an empty dict for the weights."""

    x: Optional[Array]
    """Of the shape of x, zero in the padding."""
    state: Any
    """Of the structure of the state, h or (h, c), also where the initial state was None."""
    weights: dict[str, Array]
    """By the names of `Layer.weights`."""


class Tape:
    """What a forward pass keeps for backward. It refers to x, y and the weights."""

    def __init__(
        self,
        made_by: object,
        content: Any,
        unbatched: bool = False,
        return_sequence: bool = True,
        watched: tuple[Array, ...] = (),
    ) -> None:
        self._made_by = made_by
        self._content = content
        self._unbatched = unbatched
        self._return_sequence = return_sequence
        self._watched = watched
        self._digest = digest(watched)

    @property
    def nbytes(self) -> int:
        """Bytes kept beyond x and y."""
        return int(self._content.nbytes)

    def __repr__(self) -> str:
        return f"<rnnkern.Tape: {self.nbytes:,} bytes>"


class Weights(MutableMapping[str, Array]):
    """A layer's weights by name: fixed keys, live arrays. Assigning copies into the array."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> Array:
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyError(f"{name}: expected one of {', '.join(self._arrays)}") from None

    def __setitem__(self, name: str, value: npt.ArrayLike) -> None:
        target = self[name]
        if value is not target:  # as after `weights[name] += ...`
            target[...] = check_weight(name, value, target.shape)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name}: the weights of a layer can't be removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name}: {array.shape}" for name, array in self._arrays.items()) + "}"


def digest(arrays: tuple[Array, ...]) -> str:
    """Tells whether one of the arrays has changed."""
    content = hashlib.sha256()
    for array in arrays:
        content.update(array.tobytes())
    return content.hexdigest()


def fixed_array(values: Array, dtype: np.dtype[Any]) -> Array:
    """A copy whose memory stays where it is: it does not own it, so it can't be resized."""
    array = np.frombuffer(bytearray(values.size * dtype.itemsize), dtype).reshape(values.shape)
    array[...] = values
    return array


def check_weights(given: Mapping[str, npt.ArrayLike], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Arrays of exactly these names and shapes; else a ValueError that tells everything that is wrong."""
    if not isinstance(given, Mapping):
        raise TypeError(f"state_dict: expected a mapping of names to arrays, got {type(given).__name__}")
    problems = [f"missing {name}" for name in shapes if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in shapes]
    arrays: dict[str, Array] = {}
    for name, shape in shapes.items():
        if name in given:
            try:
                arrays[name] = check_weight(name, given[name], shape)
            except ValueError as error:
                problems.append(str(error))
    if problems:
        raise ValueError("state_dict: " + "; ".join(problems))
    return arrays


def check_weight(name: str, value: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    """`value` as an array of real numbers of this shape."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected real numbers of shape {shape}, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


class Layer:
    """What RNN, LSTM and GRU share. Use those."""

    _names: tuple[str, ...] = ()
    """The constructor's own options, for repr, pickle and files."""

    def __init__(
        self,
        spec: Spec,
        *,
        batch_first: bool,
        dropout: float,
        seed: Any,
        backend: str,
        activations: Any,
        clip: Optional[float],
        dtype: npt.DTypeLike,
        isa: Optional[str],
        weights: Optional[Mapping[str, npt.ArrayLike]],
        arguments: dict[str, Any],
    ) -> None:
        self._batch_first = options.check_bool("batch_first", batch_first)
        self._dropout = options.check_dropout(dropout)
        self._backend = options.check_choice("backend", backend, ("native", "reference"))
        if self._dropout > 0 and spec.num_layers == 1:
            warnings.warn("dropout acts between layers: it has no effect with num_layers=1", stacklevel=3)
        self._spec = replace(
            spec,
            activations=options.check_activations(activations, spec.family, spec.num_directions),
            clip=options.check_clip(clip),
            dtype=options.check_dtype(dtype),
        )
        self._isa = isa
        self._arguments = {name: _as_tuples(value) for name, value in arguments.items()}
        weight_seed, dropout_seed = options.check_seed(seed).spawn(2)
        self._random = np.random.default_rng(dropout_seed)
        shapes = self._spec.weight_shapes()
        if weights is None:
            random, bound = np.random.default_rng(weight_seed), 1 / np.sqrt(self.hidden_size)
            self._hold({name: random.uniform(-bound, bound, shape) for name, shape in shapes.items()})
        else:
            self._hold(check_weights(weights, shapes))

    def _hold(self, values: Mapping[str, Array]) -> None:
        """Begin with these weights, in arrays of our own."""
        self._weights = Weights({name: fixed_array(value, self.dtype) for name, value in values.items()})
        self._network = self._make_network()

    def _make_network(self) -> _core.Network:
        parts = [
            [self._weights._arrays.get(name + suffix) for name in PART_WEIGHTS] for *_, suffix in self._spec.parts()
        ]
        return _core.Network(self._spec, self._batch_first, parts, self._isa)

    # What it is

    @property
    def input_size(self) -> int:
        return self._spec.input_size

    @property
    def hidden_size(self) -> int:
        return self._spec.hidden_size

    @property
    def num_layers(self) -> int:
        return self._spec.num_layers

    @property
    def bidirectional(self) -> bool:
        return self._spec.bidirectional

    @property
    def bias(self) -> bool:
        return self._spec.bias

    @property
    def proj_size(self) -> int:
        return self._spec.proj_size

    @property
    def batch_first(self) -> bool:
        return self._batch_first

    @property
    def dropout(self) -> float:
        return self._dropout

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._spec.dtype

    @property
    def backend(self) -> str:
        return self._backend

    @property
    def weights(self) -> Weights:
        """The weights by PyTorch's names: live arrays; assigning copies into them."""
        return self._weights

    @property
    def num_parameters(self) -> int:
        return sum(array.size for array in self._weights.values())

    def __repr__(self) -> str:
        shown = [f"{self.input_size}, {self.hidden_size}"]
        shown += [f"{name}={value!r}" for name, value in self._arguments.items()]
        return f"{type(self).__name__}({', '.join(shown)})"

    # Running it

    def __call__(
        self, x: Array, state: Optional[State] = None, *, lengths: Any = None, return_sequence: bool = True
    ) -> tuple[Array, State]:
        """Run the sequences; keep nothing for backward.

        Parameters
        ----------
        x : array (T, B, I), or (B, T, I) with `batch_first`, or (T, I)
            Of the layer's dtype, with any strides.
        state : array (L*D, B, H), or a tuple (h, c) of them for an LSTM, optional
            The initial state; None means zeros. Without the axis B where x has none. h has P columns with `proj_size`.
        lengths : sequence of B ints, optional
            Each sequence's own length in 1..T, in any order. No work is done on padding.
        return_sequence : bool
            False: y is each sequence's last output, the forward direction's at its last step, the reverse one's at
            step 0.

        Returns
        -------
        y : array (T, B, D*H), or as x, or (B, D*H) without the sequence
            Zero after each sequence's length.
        state : as `state`
            Each sequence's own last state.

        Raises
        ------
        TypeError
            For another kind of argument or dtype.
        ValueError
            For a wrong rank, size or value.
        MemoryError
            For what cannot be allocated.
        """
        if self._backend == "native":
            return self._network.run(x, state, lengths, options.check_bool("return_sequence", return_sequence))
        y, new_state, _ = self._reference_forward(x, state, lengths, return_sequence, [])
        return y, new_state

    def forward(
        self,
        x: Array,
        state: Optional[State] = None,
        *,
        lengths: Any = None,
        recompute: bool = False,
        return_sequence: bool = True,
    ) -> tuple[Array, State, Tape]:
        """Run the sequences and keep what `backward` needs; dropout between the layers is active.

        Parameters
        ----------
        x, state, lengths, return_sequence
            As for a call.
        recompute : bool
            Keep next to nothing and compute gate values again in backward: less memory for more time, the same bits.

        Returns
        -------
        y, state : as for a call
        tape : Tape
            Refers to x, y, the initial state and the weights, which must not change until the last `backward`.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As for a call.
        """
        recompute = options.check_bool("recompute", recompute)
        return_sequence = options.check_bool("return_sequence", return_sequence)
        masks = self._masks(x, state, lengths)
        if self._backend == "native":
            y, new_state, content = self._network.forward(x, state, lengths, masks, recompute, return_sequence)
            return y, new_state, Tape(self._network, content)
        return self._reference_forward(x, state, lengths, return_sequence, masks, watch=True)

    def backward(
        self,
        tape: Tape,
        dy: Optional[Array] = None,
        dstate: Optional[State] = None,
        *,
        wrt: tuple[str, ...] = ("x", "state", "weights"),
    ) -> Gradients:
        """Back-propagate through time.

        Parameters
        ----------
        tape : Tape
            From this layer's `forward`; it can be used again.
        dy : array of the shape of y, optional
            The gradient of the loss by y; what it holds in the padding is ignored.
        dstate : of the structure and shapes of the returned state, optional
            The gradient by the last state. At least one of dy and dstate is needed.
        wrt : tuple of "x", "state", "weights"
            What gradients are wanted.

        Returns
        -------
        Gradients

        Raises
        ------
        TypeError, ValueError
            For wrong arguments, or a tape of another layer.
        RuntimeError
            If x, y or the weights are seen to have changed since `forward`.
        """
        wanted = self._check_wrt(wrt)
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        if tape._made_by is not self._network:
            raise ValueError("tape: expected a tape of this layer, got another layer's")
        if self._backend == "reference":
            return self._reference_backward(tape, dy, dstate, wanted)
        x, state, arrays = self._network.backward(
            tape._content, dy, dstate, "x" in wanted, "state" in wanted, "weights" in wanted
        )
        names = [
            name + suffix
            for *_, suffix in self._spec.parts()
            for name in PART_WEIGHTS
            if name + suffix in self._weights
        ]
        by_name = dict(zip(names, arrays))
        return Gradients(x, state, {name: by_name[name] for name in self._weights if name in by_name})

    def step(self, x_t: Array, state: Optional[State] = None) -> tuple[Array, State]:
        """Run one time step.

        Parameters
        ----------
        x_t : array (B, I) or (I,)
        state : as for a call, optional

        Returns
        -------
        y_t : array (B, H) or (H,)
        state : as for a call

        Raises
        ------
        ValueError
            If the layer is bidirectional, and as for a call.
        """
        if self._backend == "native":
            return self._network.step(x_t, state)
        return self._reference_step(x_t, state, None)

    def trace(self, x: Array, state: Optional[State] = None, *, lengths: Any = None) -> dict[str, Array]:
        """Run the sequences and return the gate values of every step.

        Parameters
        ----------
        x, state, lengths
            As for a call.

        Returns
        -------
        dict
            LSTM: i, f, g, o, c, h; GRU: r, z, n, h; RNN: h; arrays (T, B, H), laid out as x. With several layers or
            directions the keys end in ``_l0``, ``_l0_reverse`` and so on. Zero after each sequence's length.
        """
        names = TRACED[self._spec.family]
        single = self.num_layers * self._spec.num_directions == 1
        suffixes = [suffix for *_, suffix in self._spec.parts()]
        if self._backend == "native":
            parts = [dict(zip(names, arrays)) for arrays in self._network.trace(x, state, lengths)]
            unbatched = x.ndim == 2
        else:
            _, _, tape = self._reference_forward(x, state, lengths, True, [])
            parts = [{name: tape._content.gates[suffix][name] for name in names} for suffix in suffixes]
            unbatched = tape._unbatched
        return {
            name + ("" if single else suffix): self._as_given(array, unbatched)
            for suffix, part in zip(suffixes, parts)
            for name, array in part.items()
        }

    def freeze(self) -> FrozenLayer:
        """Return a snapshot for inference, with packed weights; later changes of this layer don't reach it."""
        if self._backend == "native":
            return FrozenLayer(self._network.freeze(), copy.deepcopy(self))
        snapshot = copy.deepcopy(self)
        return FrozenLayer(_ReferenceNetwork(snapshot), snapshot)

    # Its weights

    def state_dict(self) -> dict[str, Array]:
        """Copies of the weights by name."""
        return {name: array.copy() for name, array in self._weights.items()}

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike]) -> None:
        """Cast and copy all weights from arrays by name, or change nothing.

        Raises
        ------
        TypeError
            If it is not a mapping, or a value does not hold real numbers.
        ValueError
            Naming every missing, unexpected and misshapen entry.
        """
        arrays = check_weights(state_dict, self._spec.weight_shapes())
        copies = {name: array.astype(self.dtype) for name, array in arrays.items()}
        for name, target in self._weights.items():
            if not target.flags.writeable:
                raise ValueError(f"{name}: expected a writable array to copy into, got a read-only one")
        for name, array in copies.items():
            self._weights[name] = array

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and options to a safetensors file, whole or not at all; `rnnkern.load` reads it.

        Raises
        ------
        OSError
            If the file can't be written; one that was there before is then unchanged.
        """
        save(self, path)

    # Copies

    def _constructor_arguments(self) -> dict[str, Any]:
        return {"input_size": self.input_size, "hidden_size": self.hidden_size, **self._arguments}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_weights": dict(self._weights), "_network": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._hold(state["_weights"])

    # Dropout

    def _masks(self, x: Array, state: Optional[State], lengths: Any) -> list[Array]:
        """Factors (T, B, D*O) for what each inner layer hands on: 0, or 1 / (1 - p)."""
        if self._dropout == 0 or self.num_layers == 1:
            return []
        T, B = self._network.check(x, state, lengths)[0].shape[:2]
        shape = (T, B, self._spec.num_directions * self._spec.output_size)
        kept = 1 / (1 - self._dropout) if self._dropout < 1 else 0.0
        return [
            ((self._random.random(shape) >= self._dropout) * kept).astype(self.dtype)
            for _ in range(self.num_layers - 1)
        ]

    # The reference back end

    def _as_given(self, array: Array, unbatched: bool) -> Array:
        """(T, B, N) as the layer's user lays sequences out."""
        if unbatched:
            return array[:, 0]
        return array.swapaxes(0, 1) if self._batch_first else array

    def _state_of(self, members: tuple[Array, ...], unbatched: bool) -> Any:
        arrays = tuple(member[:, 0] for member in members) if unbatched else members
        return arrays if self._spec.has_cell_state else arrays[0]

    def _reference_forward(
        self,
        x: Array,
        state: Optional[State],
        lengths: Any,
        return_sequence: bool,
        masks: list[Array],
        watch: bool = False,
    ) -> tuple[Array, State, Tape]:
        sequences, initial, checked_lengths, unbatched = self._network.check(x, state, lengths)
        y, last, tape = reference.forward(self._spec, self._weights, sequences, initial, checked_lengths, masks or None)
        if return_sequence:
            y = self._as_given(y, unbatched)
        else:
            y = self._last_outputs(last[0])[0 if unbatched else slice(None)]
        watched = (sequences, y, *self._weights.values()) if watch else ()
        return y, self._state_of(last, unbatched), Tape(self._network, tape, unbatched, return_sequence, watched)

    def _reference_step(self, x_t: Array, state: Optional[State], out: Optional[Array]) -> tuple[Array, State]:
        sequences, initial, unbatched = self._network.check_step(x_t, state, out)
        y, last, _ = reference.forward(self._spec, self._weights, sequences, initial)
        y_t = y[0, 0] if unbatched else y[0]
        if out is not None:
            out[...] = y_t
            y_t = out
        return y_t, self._state_of(last, unbatched)

    def _last_outputs(self, h: Array) -> Array:
        """(B, D*O) from the states (L*D, B, O)."""
        return np.concatenate(list(h[-self._spec.num_directions :]), axis=-1)

    def _reference_backward(self, tape: Tape, dy: Any, dstate: Any, wanted: tuple[str, ...]) -> Gradients:
        if tape._digest != digest(tape._watched):
            raise RuntimeError("tape: x, y or a weight has changed since forward; backward needs them as they were")
        T, B = tape._content.x.shape[:2]
        gradients, states = self._network.check_gradients(T, B, tape._unbatched, tape._return_sequence, dy, dstate)
        if gradients is not None and not tape._return_sequence:
            states = self._with_last_outputs(states, gradients)
            gradients = None
        dx, initial, weights = reference.backward(self._spec, self._weights, tape._content, gradients, states)
        return Gradients(
            self._as_given(dx, tape._unbatched) if "x" in wanted else None,
            self._state_of(initial, tape._unbatched) if "state" in wanted else None,
            weights if "weights" in wanted else {},
        )

    def _with_last_outputs(self, states: Optional[tuple[Array, ...]], gradients: Array) -> tuple[Array, ...]:
        """The gradients (B, D*O) of the last outputs, added to those of the last states."""
        spec, B = self._spec, gradients.shape[0]
        parts = spec.num_layers * spec.num_directions
        if states is None:
            sizes = (spec.output_size, spec.hidden_size) if spec.has_cell_state else (spec.output_size,)
            states = tuple(np.zeros((parts, B, size), self.dtype) for size in sizes)
        h = states[0].copy()
        h[-spec.num_directions :] += gradients.reshape(B, spec.num_directions, spec.output_size).swapaxes(0, 1)
        return (h, *states[1:])

    @staticmethod
    def _check_wrt(wrt: Any) -> tuple[str, ...]:
        known = ("x", "state", "weights")
        if isinstance(wrt, str) or not isinstance(wrt, (tuple, list, set, frozenset)):
            raise TypeError(f"wrt: expected a tuple of {known}, got {options.describe(wrt)}")
        for name in wrt:
            options.check_choice("wrt", name, known)
        return tuple(wrt)


class _ReferenceNetwork:
    """What FrozenLayer asks of a network, answered by a layer on the reference back end."""

    isa = "reference"

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def run(self, x: Array, state: Any = None, lengths: Any = None, return_sequence: bool = True) -> tuple[Array, Any]:
        return self._layer(x, state, lengths=lengths, return_sequence=return_sequence)

    def step(self, x_t: Array, state: Any = None, out: Optional[Array] = None) -> tuple[Array, Any]:
        return self._layer._reference_step(x_t, state, out)

    def plan(self, T: int, B: int, lengths: Any) -> dict[str, int]:
        return self._layer._network.plan(T, B, lengths)

    def check(self, x: Array, state: Any, lengths: Any) -> tuple[Any, ...]:
        return self._layer._network.check(x, state, lengths)


def _make_spec(
    family: Family, input_size: Any, hidden_size: Any, num_layers: Any, bias: Any, bidirectional: Any, **cell: Any
) -> Spec:
    return Spec(
        family,
        options.check_size("input_size", input_size),
        options.check_size("hidden_size", hidden_size),
        options.check_size("num_layers", num_layers, most=2**16),
        options.check_bool("bidirectional", bidirectional),
        options.check_bool("bias", bias),
        **cell,
    )


def _as_tuples(value: Any) -> Any:
    """Lists, as a file has them, as tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, (list, tuple)) else value


def _changed(arguments: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The arguments that differ from their defaults."""
    return {
        name: value for name, value in arguments.items() if not (value is defaults[name] or value == defaults[name])
    }


_COMMON: dict[str, Any] = {
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "backend": "native",
    "activations": None,
    "clip": None,
    "dtype": np.dtype(np.float32),
}

_COMMON_PARAMETERS = """
    Parameters
    ----------
    input_size, hidden_size : int
        I and H, at least 1.
{own}    num_layers : int
        Layers on top of each other, each reading the outputs of the one below.
    bias : bool
        Whether there are bias_ih and bias_hh.
    batch_first : bool
        Whether x and y are (B, T, N) instead of (T, B, N).
    dropout : float
        Probability of zeroing an output on its way to the next layer, in `forward` only.
    bidirectional : bool
        Also run the sequences backwards, with weights of their own; outputs are concatenated.
    dtype : float32 or float64
    seed : int, optional
        Of the initial weights, uniform in ±1/sqrt(H), and of dropout.
    backend : "native" or "reference"
        The kernels, or their NumPy twins.
    activations : tuple, optional
        ONNX's names in ONNX's order, {order}; one with parameters as a tuple,
        ``("HardSigmoid", 0.2, 0.5)``. A bidirectional layer also takes both directions' list.
    clip : float, optional
        Bound of the gates' and the candidate's pre-activations.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came.
"""


class RNN(Layer):
    __doc__ = """Elman's network: h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh) (Elman 1990).
""" + _COMMON_PARAMETERS.format(own='    nonlinearity : "tanh", "relu" or "linear"\n', order="``(f,)``")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: npt.DTypeLike = np.float32,
        seed: Any = None,
        backend: str = "native",
        activations: Any = None,
        clip: Optional[float] = None,
        _isa: Optional[str] = None,
        _weights: Optional[Mapping[str, npt.ArrayLike]] = None,
    ) -> None:
        kinds = {"tanh": "Tanh", "relu": "Relu", "linear": "Identity"}
        options.check_choice("nonlinearity", nonlinearity, tuple(kinds))
        self._nonlinearity = nonlinearity
        given = {
            "num_layers": num_layers, "nonlinearity": nonlinearity, "bias": bias, "batch_first": batch_first,
            "dropout": dropout, "bidirectional": bidirectional, "backend": backend, "activations": activations,
            "clip": clip, "dtype": options.check_dtype(dtype),
        }  # fmt: skip
        super().__init__(
            _make_spec("rnn", input_size, hidden_size, num_layers, bias, bidirectional),
            batch_first=batch_first,
            dropout=dropout,
            seed=seed,
            backend=backend,
            activations=activations if activations is not None else (kinds[nonlinearity],),
            clip=clip,
            dtype=dtype,
            isa=_isa,
            weights=_weights,
            arguments=_changed(given, {**_COMMON, "nonlinearity": "tanh"}),
        )

    @property
    def nonlinearity(self) -> str:
        return self._nonlinearity


class LSTM(Layer):
    __doc__ = """Long short-term memory: c' = f c + i g, h = o tanh(c') (Hochreiter and Schmidhuber 1997).
""" + _COMMON_PARAMETERS.format(
        own="""    proj_size : int
        P > 0: h is projected to P columns by weight_hr (Sak et al. 2014).
    peephole : bool
        c_{t-1} feeds i and f, c_t feeds o, through weight_peephole (3, H) (Gers and Schmidhuber 2000).
    coupled : False, "i" (or True) or "f"
        i = 1 - f, or f = 1 - i (Greff et al. 2017). The derived gate's weights are ignored and get zero gradient.
""",
        order="``(f, g, h)``",
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        peephole: bool = False,
        coupled: Any = False,
        dtype: npt.DTypeLike = np.float32,
        seed: Any = None,
        backend: str = "native",
        activations: Any = None,
        clip: Optional[float] = None,
        _isa: Optional[str] = None,
        _weights: Optional[Mapping[str, npt.ArrayLike]] = None,
    ) -> None:
        given = {
            "num_layers": num_layers, "bias": bias, "batch_first": batch_first, "dropout": dropout,
            "bidirectional": bidirectional, "proj_size": proj_size, "peephole": peephole, "coupled": coupled,
            "backend": backend, "activations": activations, "clip": clip, "dtype": options.check_dtype(dtype),
        }  # fmt: skip
        spec = _make_spec(
            "lstm", input_size, hidden_size, num_layers, bias, bidirectional,
            proj_size=options.check_size("proj_size", proj_size, 0),
            peephole=options.check_bool("peephole", peephole),
            coupled=options.check_coupled(coupled),
        )  # fmt: skip
        if spec.proj_size >= spec.hidden_size and spec.proj_size > 0:
            raise ValueError(f"proj_size: expected less than hidden_size {spec.hidden_size}, got {spec.proj_size}")
        super().__init__(
            spec,
            batch_first=batch_first,
            dropout=dropout,
            seed=seed,
            backend=backend,
            activations=activations,
            clip=clip,
            dtype=dtype,
            isa=_isa,
            weights=_weights,
            arguments=_changed(given, {**_COMMON, "proj_size": 0, "peephole": False, "coupled": False}),
        )


class GRU(Layer):
    __doc__ = """Gated recurrent unit: h' = (1 - z) n + z h (Cho et al. 2014).
""" + _COMMON_PARAMETERS.format(
        own="""    reset_after : bool
        True: n = tanh(W x + b_ih + r (R h + b_hh)), as PyTorch and cuDNN; False: n = tanh(W x + b_ih + R (r h) + b_hh),
        as the original paper.
""",
        order="``(f, g)``",
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        dtype: npt.DTypeLike = np.float32,
        seed: Any = None,
        backend: str = "native",
        activations: Any = None,
        clip: Optional[float] = None,
        _isa: Optional[str] = None,
        _weights: Optional[Mapping[str, npt.ArrayLike]] = None,
    ) -> None:
        given = {
            "num_layers": num_layers, "bias": bias, "batch_first": batch_first, "dropout": dropout,
            "bidirectional": bidirectional, "reset_after": reset_after, "backend": backend,
            "activations": activations, "clip": clip, "dtype": options.check_dtype(dtype),
        }  # fmt: skip
        family: Family = "gru_reset_after" if options.check_bool("reset_after", reset_after) else "gru_reset_before"
        super().__init__(
            _make_spec(family, input_size, hidden_size, num_layers, bias, bidirectional),
            batch_first=batch_first,
            dropout=dropout,
            seed=seed,
            backend=backend,
            activations=activations,
            clip=clip,
            dtype=dtype,
            isa=_isa,
            weights=_weights,
            arguments=_changed(given, {**_COMMON, "reset_after": True}),
        )

    @property
    def reset_after(self) -> bool:
        return self._spec.family == "gru_reset_after"
