"""What every recurrent layer does: running, back-propagation, weights, copies."""

from __future__ import annotations

import copy
import hashlib
import inspect
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Optional, overload

import numpy as np
import numpy.typing as npt

from . import _core, options, reference
from .frozen import FrozenLayer
from .gradient_flow import trace_gradients
from .gradients import Gradients, WeightsOnly, WithState, WithX, WithXAndState, Wrt
from .serialization import save
from .spec import Array, S, Spec
from .weights import Weights, check_weights, fixed_array

_UNRECORDED = ("input_size", "hidden_size", "seed", "_isa", "_weights")
"""Arguments of the constructors that `Layer._arguments` leaves out."""


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


def digest(arrays: tuple[Array, ...]) -> str:
    """Tells whether one of the arrays has changed."""
    if not arrays:
        return ""
    content = hashlib.sha256()
    for array in arrays:
        content.update(array.tobytes())
    return content.hexdigest()


class Layer(Generic[S]):
    """What RNN, LSTM, GRU and Jordan share. Use those."""

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
        usual: Optional[tuple[str, ...]] = None,
    ) -> None:
        self._batch_first = options.check_bool("batch_first", batch_first)
        self._dropout = options.check_dropout(dropout)
        self._backend = options.check_choice("backend", backend, ("native", "reference"))
        if self._dropout > 0 and spec.num_layers == 1:
            warnings.warn("dropout acts between layers: it has no effect with num_layers=1", stacklevel=3)
        checked_dtype = options.check_dtype(dtype)
        functions = options.check_activations(
            usual if activations is None else activations, spec.family, spec.num_directions
        )
        options.check_parameters(functions, checked_dtype)
        self._spec = replace(
            spec, activations=functions, clip=options.check_clip(clip, checked_dtype), dtype=checked_dtype
        )
        self._isa = isa
        self._activations = options.plain(activations)
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
            [self._weights.own.get(name + suffix) for name in self._spec.part_weights]
            for *_, suffix in self._spec.parts()
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
    def activations(self) -> Any:
        """As given; None means the usual ones."""
        return self._activations

    @property
    def clip(self) -> Optional[float]:
        return self._spec.clip

    @property
    def weights(self) -> Weights:
        """The weights by PyTorch's names: live arrays; assigning copies into them."""
        return self._weights

    @property
    def num_parameters(self) -> int:
        return sum(array.size for array in self._weights.own.values())

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What only a frozen layer has."""
            hint = ": it is a frozen layer's, layer.freeze().stream()" if name == "stream" else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=self)

    def __repr__(self) -> str:
        shown = [f"{self.input_size}, {self.hidden_size}"]
        shown += [f"{name}={value!r}" for name, value in self._arguments().items()]
        return f"{type(self).__name__}({', '.join(shown)})"

    # Running it

    def __call__(
        self, x: Array, state: Optional[S] = None, *, lengths: Any = None, return_sequence: bool = True
    ) -> tuple[Array, S]:
        """Run the sequences; keep nothing for backward.

        Parameters
        ----------
        x : array (T, B, I), or (B, T, I) with `batch_first`, or (T, I)
            Of the layer's dtype, with any strides.
        state : array (L*D, B, H), or a tuple (h, c) of them for an LSTM, optional
            The initial state; None means zeros. Without the axis B where x has none. h has P columns with `proj_size`;
            Jordan's state is its last output.
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
        state: Optional[S] = None,
        *,
        lengths: Any = None,
        recompute: bool = False,
        return_sequence: bool = True,
    ) -> tuple[Array, S, Tape]:
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
        KeyboardInterrupt
            Or what else a signal's handler raises, where a call takes more than a second: nothing has changed.
        """
        recompute = options.check_bool("recompute", recompute)
        return_sequence = options.check_bool("return_sequence", return_sequence)
        generator = self._random.bit_generator
        before = generator.state if self._dropout > 0 else None
        try:
            masks = self._masks(x, state, lengths)
            if self._backend == "native":
                y, new_state, content = self._network.forward(x, state, lengths, masks, recompute, return_sequence)
                return y, new_state, Tape(self._network, content)
            return self._reference_forward(x, state, lengths, return_sequence, masks, watch=True)
        except BaseException:  # interrupted, or out of memory: the next masks are what these were
            if before is not None:
                generator.state = before
            raise

    @overload
    def backward(
        self, tape: Tape, dy: Optional[Array] = None, dstate: Optional[S] = None, *, wrt: WithXAndState = ...
    ) -> Gradients[Array, S]: ...
    @overload
    def backward(
        self, tape: Tape, dy: Optional[Array] = None, dstate: Optional[S] = None, *, wrt: WithX
    ) -> Gradients[Array, None]: ...
    @overload
    def backward(
        self, tape: Tape, dy: Optional[Array] = None, dstate: Optional[S] = None, *, wrt: WithState
    ) -> Gradients[None, S]: ...
    @overload
    def backward(
        self, tape: Tape, dy: Optional[Array] = None, dstate: Optional[S] = None, *, wrt: WeightsOnly
    ) -> Gradients[None, None]: ...
    @overload
    def backward(
        self, tape: Tape, dy: Optional[Array] = None, dstate: Optional[S] = None, *, wrt: Wrt
    ) -> Gradients[Optional[Array], Optional[S]]: ...
    def backward(
        self,
        tape: Tape,
        dy: Optional[Array] = None,
        dstate: Optional[S] = None,
        *,
        wrt: Wrt = ("x", "state", "weights"),
    ) -> Gradients[Any, Any]:
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
        return Gradients(x, state, dict(zip(self._weights, arrays)))

    def step(self, x_t: Array, state: Optional[S] = None) -> tuple[Array, S]:
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

    def trace(self, x: Array, state: Optional[S] = None, *, lengths: Any = None) -> dict[str, Array]:
        """Run the sequences and return the gate values of every step.

        Parameters
        ----------
        x, state, lengths
            As for a call.

        Returns
        -------
        dict
            LSTM: i, f, g, o, c, h; GRU: r, z, n, h; RNN: h; Jordan: h, y; arrays (T, B, H), laid out as x. With several
            layers or directions the keys end in ``_l0``, ``_l0_reverse`` and so on. Zero after each sequence's length.
        """
        names = reference.CELLS[self._spec.family].trace
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

    def trace_gradients(
        self, x: Array, state: Optional[S] = None, *, lengths: Any = None, dy: Optional[Array] = None
    ) -> dict[str, Array]:
        """Run the sequences and return the gradient of a loss by the hidden state of every step.

        The norm of ∂L/∂h_t by t tells whether gradients vanish or explode (Pascanu, Mikolov and Bengio 2013, section
        2.1). `backward` gives it for the first state only. Here every step has a tape of its own; what its backward
        returns for the state before it, and dy, is ∂L/∂h_t of that one. So it is exact, takes time and memory linear
        in T, and is slower than `backward`: for looking, not for training.

        Parameters
        ----------
        x, state, lengths
            As for a call. There is no dropout.
        dy : array of the shape of y, optional
            The gradient of the loss by y; what it holds in the padding is ignored. By default the loss is the sum of
            each sequence's last outputs over sqrt(H), for each direction: with that the norm begins at 1.

        Returns
        -------
        dict
            h: ∂L/∂h_t by all ways, those through y_t, later steps and layers above; arrays and keys as h of `trace`.
            Jordan: y, because that is its state.
            Take norms of it in float64: the squares of a vanishing gradient are too small for float32.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As for a call.
        """
        return trace_gradients(self, x, state, lengths, dy)

    def freeze(self) -> FrozenLayer[S]:
        """Return a snapshot for inference, with packed weights; later changes of this layer don't reach it."""
        snapshot = copy.deepcopy(self)  # first: another thread may be changing this layer's weights
        network = snapshot._network.freeze() if self._backend == "native" else _ReferenceNetwork(snapshot)
        return FrozenLayer(network, snapshot)

    # Its weights

    def state_dict(self) -> dict[str, Array]:
        """Copies of the weights by name."""
        return {name: array.copy() for name, array in self._weights.own.items()}

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike]) -> None:
        """Cast and copy all weights from arrays by name, or change nothing.

        Raises
        ------
        TypeError
            If it is not a mapping, or a value does not hold real numbers.
        ValueError
            Naming every missing, unexpected and misshapen entry.
        """
        self._weights.copy_in(check_weights(state_dict, self._spec.weight_shapes()))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and options to a safetensors file, whole or not at all; `rnnkern.load` reads it.

        A symbolic link is followed, and a file that is replaced keeps its permissions.

        Raises
        ------
        TypeError
            If `path` is not a path.
        OSError
            If the file can't be written; one that was there before is then unchanged.
        """
        save(self, path)

    # Copies

    def _arguments(self) -> dict[str, Any]:
        """What the constructor was given besides the sizes, where it differs from the default."""
        options = [p for p in inspect.signature(type(self)).parameters.values() if p.name not in _UNRECORDED]
        values = {option.name: getattr(self, option.name, option.default) for option in options}
        return {option.name: values[option.name] for option in options if values[option.name] != option.default}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_weights": self._weights.own, "_network": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._hold(state["_weights"])

    # Dropout

    def _masks(self, x: Array, state: Optional[S], lengths: Any) -> list[Array]:
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
        state: Optional[S],
        lengths: Any,
        return_sequence: bool,
        masks: list[Array],
        watch: bool = False,
    ) -> tuple[Array, S, Tape]:
        given, initial, checked_lengths, unbatched = self._network.check(x, state, lengths)
        # The user's array may be given another shape in place; one of another class may refer to the tape, a cycle that
        # Python does not see.
        sequences = given.view() if type(x) is np.ndarray else given.copy()
        y, last, tape = reference.forward(
            self._spec, self._weights.own, sequences, initial, checked_lengths, masks or None
        )
        if return_sequence:
            y = self._as_given(y, unbatched)
        else:
            y = self._last_outputs(last[0])[0 if unbatched else slice(None)]
        watched = (sequences, y.view(), *self._weights.own.values()) if watch else ()
        return y, self._state_of(last, unbatched), Tape(self._network, tape, unbatched, return_sequence, watched)

    def _reference_step(self, x_t: Array, state: Optional[S], out: Optional[Array]) -> tuple[Array, S]:
        sequences, initial, unbatched = self._network.check_step(x_t, state, out)
        y, last, _ = reference.forward(self._spec, self._weights.own, sequences, initial)
        y_t = y[0, 0] if unbatched else y[0]
        if out is not None:
            out[...] = y_t
            y_t = out
        return y_t, self._state_of(last, unbatched)

    def _last_outputs(self, h: Array) -> Array:
        """(B, D*O) from the states (L*D, B, O)."""
        return np.concatenate(list(h[-self._spec.num_directions :]), axis=-1)

    def _reference_backward(self, tape: Tape, dy: Any, dstate: Any, wanted: tuple[str, ...]) -> Gradients[Any, Any]:
        if tape._digest != digest(tape._watched):
            raise RuntimeError("tape: x, y or a weight has changed since forward; backward needs them as they were")
        T, B = tape._content.x.shape[:2]
        gradients, states = self._network.check_gradients(T, B, tape._unbatched, tape._return_sequence, dy, dstate)
        if gradients is not None and not tape._return_sequence:
            states = self._with_last_outputs(states, gradients)
            gradients = None
        dx, initial, weights = reference.backward(self._spec, self._weights.own, tape._content, gradients, states)
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
