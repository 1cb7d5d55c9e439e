"""The same layer in other packages, as their users run it, at their default settings and a given thread count."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..spec import Array
from .case import Case, Problem, Results
from .contenders import Contender


class Peer(Contender):
    """A contender that needs a package of its own. `peer`: it is no way to run rnnkern."""

    peer = True
    modules: ClassVar[Sequence[str]]
    packages: ClassVar[str]
    """What to hand to `pip install` for it."""

    @classmethod
    def load(cls, threads: int) -> None:
        """Import the package; from then on it uses `threads` threads."""
        for module in cls.modules:
            importlib.import_module(module)


class Torch(Peer):
    name = "torch"
    trains = True
    modules = ("torch",)
    packages = "torch --index-url https://download.pytorch.org/whl/cpu"

    @classmethod
    def load(cls, threads: int) -> None:
        super().load(threads)
        import torch

        torch.set_num_threads(threads)

    def __init__(self, problem: Problem) -> None:
        import torch

        self.torch, self.problem = torch, problem
        case = problem.case
        self.layer = getattr(self.layers(), case.cell.upper())(
            case.shape.I,
            case.shape.H,
            case.num_layers,
            bidirectional=case.bidirectional,
            dtype=getattr(torch, case.dtype),
        )
        self.layer.load_state_dict({name: torch.from_numpy(weight) for name, weight in problem.weights.items()})
        self.x, self.dy = torch.from_numpy(problem.x), torch.from_numpy(problem.dy)
        self.x_grad = self.x.clone().requires_grad_()
        self.state = [torch.from_numpy(array).clone().requires_grad_() for array in problem.state]
        self.wrt = [self.x_grad, *self.state, *self.layer.parameters()]
        self.lengths = None if case.lengths is None else torch.from_numpy(case.lengths)

    @staticmethod
    def layers() -> Any:
        """Where the layers are."""
        from torch import nn

        return nn

    def run(self, x: Any, *state: Any) -> Any:
        """Run the layer; sequences of different lengths as a packed sequence."""
        if self.lengths is None:
            return self.layer(x, *state)
        rnn = self.torch.nn.utils.rnn
        y, last = self.layer(rnn.pack_padded_sequence(x, self.lengths, enforce_sorted=False), *state)
        return rnn.pad_packed_sequence(y, total_length=len(x))[0], last

    def infer(self) -> Any:
        with self.torch.inference_mode():
            return self.run(self.x)

    def train(self) -> Any:
        y, state = self.run(self.x_grad, tuple(self.state) if len(self.state) == 2 else self.state[0])
        return y, state, self.torch.autograd.grad(y, self.wrt, self.dy, materialize_grads=True)

    def inferred(self, result: Any) -> Results:
        y, state = result
        arrays = tuple(t.detach().numpy() for t in (state if isinstance(state, tuple) else (state,)))
        return self.problem.results(y.detach().numpy(), arrays)

    def trained(self, result: Any) -> Results:
        y, state, grads = result
        dx, *others = (grad.numpy() for grad in grads)
        states = len(self.state)
        names = [name for name, _ in self.layer.named_parameters()]
        gradients = self.problem.gradients(dx, tuple(others[:states]), dict(zip(names, others[states:], strict=True)))
        return {**self.inferred((y, state)), **gradients}


class TorchModule(Torch):
    """What `rnnkern.torch.accelerate` makes of PyTorch's layers."""

    name = "torch module"
    peer = False

    @staticmethod
    def layers() -> Any:
        import rnnkern.torch

        return rnnkern.torch


GATE_ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}
"""ONNX's gates (iofc, zrh) as places in PyTorch's order (ifgo, rzn)."""


def onnx_model(problem: Problem) -> bytes:
    """Serialise a model with one node a layer.

    x (T, B, I), and lengths (B,) of ragged batches -> y (T, D, B, H), then all layers' last states h (D, B, H), then c.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    case, shape = problem.case, problem.case.shape
    directions = case.spec.num_directions

    def reorder(name: str) -> Array:
        gates = np.split(problem.weights[name], case.gates)
        return np.concatenate([gates[place] for place in GATE_ORDER[case.cell]])

    constants: dict[str, Array] = {}

    def constant(name: str, value: Array) -> str:
        constants[name] = value
        return name

    options: dict[str, Any] = {"linear_before_reset": 1} if case.cell == "gru" else {}
    if case.bidirectional:
        options["direction"] = "bidirectional"
    nodes, below = [], "x"
    for layer in range(case.num_layers):
        suffixes = [suffix for of, _, suffix in case.spec.parts() if of == layer]
        weight, recurrent, *biases = (
            np.stack([reorder(name + suffix) for suffix in suffixes])
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        if layer:
            laid_out = helper.make_node("Transpose", [below], [f"{below}_transposed"], perm=[0, 2, 1, 3])
            size = constant("size", np.array([0, 0, directions * shape.H], np.int64))
            joined = helper.make_node("Reshape", [f"{below}_transposed", size], [f"{below}_joined"])
            nodes += [laid_out, joined]
            below = f"{below}_joined"
        inputs = [
            below,
            constant(f"W{layer}", weight),
            constant(f"R{layer}", recurrent),
            constant(f"bias{layer}", np.concatenate(biases, axis=1)),
            *(["lengths"] if case.ragged else []),
        ]
        outputs = [f"{name}{layer}" for name in ("y", *"hc"[: len(problem.state)])]
        nodes.append(helper.make_node(case.cell.upper(), inputs, outputs, hidden_size=shape.H, **options))
        below = outputs[0]
    results: dict[str, tuple[int, ...]] = {below: (shape.T, directions, shape.B, shape.H)}
    for name in "hc"[: len(problem.state)]:
        results |= {f"{name}{layer}": (directions, shape.B, shape.H) for layer in range(case.num_layers)}
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [shape.T, shape.B, shape.I])]
    if case.ragged:
        given.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, [shape.B]))
    graph = helper.make_graph(
        nodes,
        case.cell,
        given,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in results.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=10)
    checker.check_model(model)
    return bytes(model.SerializeToString())


class OnnxPeer(Peer):
    problem: Problem

    @classmethod
    def lacks(cls, case: Case) -> str | None:
        return None if case.dtype == "float32" else case.dtype

    def feed(self) -> dict[str, Array]:
        """The inputs of the model."""
        lengths = self.problem.case.lengths
        return {"x": self.problem.x, **({} if lengths is None else {"lengths": lengths.astype(np.int32)})}

    def inferred(self, result: Any) -> Results:
        y, *last = result
        layers = self.problem.case.num_layers
        states = [np.concatenate(last[start : start + layers]) for start in range(0, len(last), layers)]
        return self.problem.results(y.transpose(0, 2, 1, 3).reshape(*y.shape[::2], -1), tuple(states))


class OnnxRuntime(OnnxPeer):
    name = "onnxruntime"
    modules = ("onnx", "onnxruntime")
    packages = "onnx onnxruntime"
    threads: ClassVar[int]

    @classmethod
    def load(cls, threads: int) -> None:
        super().load(threads)
        cls.threads = threads

    def __init__(self, problem: Problem) -> None:
        import onnxruntime

        self.problem = problem
        self.inputs = self.feed()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        self.session = onnxruntime.InferenceSession(onnx_model(problem), options, ["CPUExecutionProvider"])

    def infer(self) -> Any:
        return self.session.run(None, self.inputs)


class OpenVino(OnnxPeer):
    name = "openvino"
    modules = ("onnx", "openvino")
    packages = "onnx openvino"
    core: ClassVar[Any]

    @classmethod
    def load(cls, threads: int) -> None:
        super().load(threads)
        import openvino

        cls.core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        cls.core.set_property("CPU", settings)

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.inputs = self.feed()
        model = self.core.read_model(onnx_model(problem))
        self.request = self.core.compile_model(model, "CPU").create_infer_request()

    def infer(self) -> Any:
        return self.request.infer(self.inputs, share_inputs=True, share_outputs=True)

    def inferred(self, result: Any) -> Results:
        return super().inferred([array.copy() for array in result.values()])


class Jax(Peer):
    """`lax.scan` over the steps, with the input product before it and everything under one `jit`."""

    name = "jax"
    trains = True
    modules = ("jax",)
    packages = "jax"

    @classmethod
    def load(cls, threads: int) -> None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        os.environ["NPROC"] = str(threads)  # the size of XLA's thread pool, read once
        super().load(threads)

    def __init__(self, problem: Problem) -> None:
        import jax

        self.jax, self.problem = jax, problem
        case = problem.case
        jax.config.update("jax_enable_x64", case.dtype == "float64")
        self.inputs = jax.device_put((problem.weights, problem.x, problem.state))
        self.dy = jax.device_put(problem.dy)
        mask = None if case.lengths is None else np.arange(case.shape.T)[:, None, None] < case.lengths[:, None]
        network = functools.partial(jax_network, case, mask)

        def gradients(weights: Any, x: Any, state: Any, dy: Any) -> Any:
            (y, last), backward = jax.vjp(network, weights, x, state)
            return y, last, *backward((dy, jax.tree.map(jax.numpy.zeros_like, last)))

        self.forward, self.gradients = jax.jit(network), jax.jit(gradients)

    def infer(self) -> Any:
        return self.jax.block_until_ready(self.forward(*self.inputs))

    def train(self) -> Any:
        return self.jax.block_until_ready(self.gradients(*self.inputs, self.dy))

    def inferred(self, result: Any) -> Results:
        y, state = self.jax.tree.map(np.asarray, result)
        return self.problem.results(y, state)

    def trained(self, result: Any) -> Results:
        y, state, dweights, dx, dstate = self.jax.tree.map(np.asarray, result)
        return {**self.problem.results(y, state), **self.problem.gradients(dx, dstate, dweights)}


def jax_network(case: Case, mask: Any, weights: Any, x: Any, state: Any) -> Any:
    """(y, last states) of PyTorch's network; mask (T, B, 1) is false where a sequence has ended, None if none ends."""
    from jax import numpy as jnp

    last = []
    for layer in range(case.num_layers):
        outputs = []
        for part, (of, direction, suffix) in enumerate(case.spec.parts()):
            if of == layer:
                own = {name.removesuffix(suffix): array for name, array in weights.items() if name.endswith(suffix)}
                start = tuple(array[part] for array in state)
                final, y = jax_layer(case.cell, mask, own, x, start, direction == 1)
                outputs.append(y)
                last.append(final)
        x = jnp.concatenate(outputs, axis=-1)
    return x, tuple(jnp.stack(arrays) for arrays in zip(*last))


def jax_layer(cell: str, mask: Any, weights: Any, x: Any, state: Any, reverse: bool) -> Any:
    """(last state, y) of one layer and direction; states have shape (B, H)."""
    import jax
    from jax import numpy as jnp
    from jax.nn import sigmoid

    recurrent = weights["weight_hh"].T
    projected = x @ weights["weight_ih"].T + weights["bias_ih"]
    if cell != "gru":
        projected = projected + weights["bias_hh"]

    def lstm(state: Any, u: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(u + h @ recurrent, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(c), c

    def gru(state: Any, u: Any) -> Any:
        (h,) = state
        u_r, u_z, u_n = jnp.split(u, 3, axis=-1)
        h_r, h_z, h_n = jnp.split(h @ recurrent + weights["bias_hh"], 3, axis=-1)
        z = sigmoid(u_z + h_z)
        return ((1 - z) * jnp.tanh(u_n + sigmoid(u_r + h_r) * h_n) + z * h,)

    def rnn(state: Any, u: Any) -> Any:
        (h,) = state
        return (jnp.tanh(u + h @ recurrent),)

    cell_step = {"lstm": lstm, "gru": gru, "rnn": rnn}[cell]

    def step(state: Any, u: Any) -> Any:
        new = cell_step(state, u)
        return new, new[0]

    def masked_step(state: Any, inputs: Any) -> Any:
        u, active = inputs
        new = cell_step(state, u)
        return tuple(jnp.where(active, n, s) for n, s in zip(new, state)), jnp.where(active, new[0], 0)

    if mask is None:
        return jax.lax.scan(step, state, projected, reverse=reverse)
    return jax.lax.scan(masked_step, state, (projected, mask), reverse=reverse)


PEERS: tuple[type[Peer], ...] = (TorchModule, Torch, OnnxRuntime, OpenVino, Jax)


def load_peers(threads: int) -> tuple[list[type[Peer]], dict[str, str]]:
    """Those that can be used here, and for the others, by name, why not."""
    loaded, absent = [], {}
    for peer in PEERS:
        try:
            peer.load(threads)
        except ModuleNotFoundError as error:
            reason = "not installed" if error.name in peer.modules else str(error)
            absent[peer.name] = f"{reason}; pip install {peer.packages}"
        except Exception as error:  # a broken installation raises what it likes
            absent[peer.name] = f"{type(error).__name__}: {error}"
        else:
            loaded.append(peer)
    return loaded, absent
