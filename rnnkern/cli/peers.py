"""Other libraries running the same layer, as their users would, at their default settings and a given thread count."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..spec import Array
from .case import Problem, Results
from .contenders import Contender


class Peer(Contender):
    """A contender that needs a package of its own."""

    peer = True
    modules: ClassVar[Sequence[str]]

    @classmethod
    def load(cls, threads: int) -> None:
        """Import the package; from then on it uses `threads` threads."""
        for module in cls.modules:
            importlib.import_module(module)


class Torch(Peer):
    name = "torch"
    trains = True
    modules = ("torch",)

    @classmethod
    def load(cls, threads: int) -> None:
        super().load(threads)
        import torch

        torch.set_num_threads(threads)

    def __init__(self, problem: Problem) -> None:
        import torch

        self.torch, self.problem = torch, problem
        kind = getattr(torch.nn, problem.case.cell.upper())
        self.layer = kind(problem.case.shape.I, problem.case.shape.H)
        self.layer.load_state_dict({name: torch.from_numpy(weight) for name, weight in problem.weights.items()})
        self.x, self.dy = torch.from_numpy(problem.x), torch.from_numpy(problem.dy)
        self.x_grad = self.x.clone().requires_grad_()
        self.state = [torch.from_numpy(array).clone().requires_grad_() for array in problem.state]
        self.wrt = [self.x_grad, *self.state, *self.layer.parameters()]

    def infer(self) -> Any:
        with self.torch.inference_mode():
            return self.layer(self.x)

    def train(self) -> Any:
        y, state = self.layer(self.x_grad, tuple(self.state) if len(self.state) == 2 else self.state[0])
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


GATE_ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}
"""ONNX's gates (iofc, zrh) as places in PyTorch's order (ifgo, rzn)."""


def onnx_model(problem: Problem) -> bytes:
    """Serialise a model of one node: x (T, B, I) -> y (T, 1, B, H) and the last states (1, B, H)."""
    from onnx import TensorProto, checker, helper, numpy_helper

    case, shape = problem.case, problem.case.shape

    def reorder(name: str) -> Array:
        gates = np.split(problem.weights[name], case.gates)
        return np.concatenate([gates[place] for place in GATE_ORDER[case.cell]])

    constants = {
        "W": reorder("weight_ih_l0")[None],
        "R": reorder("weight_hh_l0")[None],
        "bias": np.concatenate([reorder("bias_ih_l0"), reorder("bias_hh_l0")])[None],
    }
    outputs = {"y": (shape.T, 1, shape.B, shape.H)} | dict.fromkeys("hc"[: len(problem.state)], (1, shape.B, shape.H))
    options = {"linear_before_reset": 1} if case.cell == "gru" else {}
    node = helper.make_node(case.cell.upper(), ["x", *constants], list(outputs), hidden_size=shape.H, **options)
    graph = helper.make_graph(
        [node],
        case.cell,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [shape.T, shape.B, shape.I])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=10)
    checker.check_model(model)
    return bytes(model.SerializeToString())


class OnnxPeer(Peer):
    problem: Problem

    def inferred(self, result: Any) -> Results:
        y, *state = result
        return self.problem.results(y[:, 0], tuple(state))


class OnnxRuntime(OnnxPeer):
    name = "onnxruntime"
    modules = ("onnx", "onnxruntime")
    threads: ClassVar[int]

    @classmethod
    def load(cls, threads: int) -> None:
        super().load(threads)
        cls.threads = threads

    def __init__(self, problem: Problem) -> None:
        import onnxruntime

        self.problem = problem
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        self.session = onnxruntime.InferenceSession(onnx_model(problem), options, ["CPUExecutionProvider"])

    def infer(self) -> Any:
        return self.session.run(None, {"x": self.problem.x})


class OpenVino(OnnxPeer):
    name = "openvino"
    modules = ("onnx", "openvino")
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
        model = self.core.read_model(onnx_model(problem))
        self.request = self.core.compile_model(model, "CPU").create_infer_request()

    def infer(self) -> Any:
        return self.request.infer([self.problem.x], share_inputs=True, share_outputs=True)

    def inferred(self, result: Any) -> Results:
        return super().inferred([array.copy() for array in result.values()])


class Jax(Peer):
    """`lax.scan` over the steps, with the input product before it and everything under one `jit`."""

    name = "jax"
    trains = True
    modules = ("jax",)

    @classmethod
    def load(cls, threads: int) -> None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        os.environ["NPROC"] = str(threads)  # the size of XLA's thread pool, read once
        super().load(threads)

    def __init__(self, problem: Problem) -> None:
        import jax

        self.jax, self.problem = jax, problem
        self.inputs = jax.device_put((problem.weights, problem.x, problem.state))
        self.dy = jax.device_put(problem.dy)
        layer = functools.partial(jax_layer, problem.case.cell)

        def gradients(weights: Any, x: Any, state: Any, dy: Any) -> Any:
            (y, last), backward = jax.vjp(layer, weights, x, state)
            return y, last, *backward((dy, jax.tree.map(jax.numpy.zeros_like, last)))

        self.forward, self.gradients = jax.jit(layer), jax.jit(gradients)

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


def jax_layer(cell: str, weights: Any, x: Any, state: Any) -> Any:
    """(y, last state) of PyTorch's layer `cell`; states have shape (1, B, H)."""
    import jax
    from jax import numpy as jnp
    from jax.nn import sigmoid

    recurrent = weights["weight_hh_l0"].T
    projected = x @ weights["weight_ih_l0"].T + weights["bias_ih_l0"]
    if cell != "gru":
        projected = projected + weights["bias_hh_l0"]

    def lstm(state: Any, u: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(u + h @ recurrent, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def gru(state: Any, u: Any) -> Any:
        (h,) = state
        u_r, u_z, u_n = jnp.split(u, 3, axis=-1)
        h_r, h_z, h_n = jnp.split(h @ recurrent + weights["bias_hh_l0"], 3, axis=-1)
        z = sigmoid(u_z + h_z)
        h = (1 - z) * jnp.tanh(u_n + sigmoid(u_r + h_r) * h_n) + z * h
        return (h,), h

    def rnn(state: Any, u: Any) -> Any:
        (h,) = state
        h = jnp.tanh(u + h @ recurrent)
        return (h,), h

    last, y = jax.lax.scan({"lstm": lstm, "gru": gru, "rnn": rnn}[cell], tuple(s[0] for s in state), projected)
    return y, tuple(array[None] for array in last)


PEERS: tuple[type[Peer], ...] = (Torch, OnnxRuntime, OpenVino, Jax)


def load_peers(threads: int) -> tuple[list[type[Peer]], dict[str, str]]:
    """Those that can be used here, and for the others, by name, why not."""
    loaded, absent = [], {}
    for peer in PEERS:
        try:
            peer.load(threads)
        except ModuleNotFoundError as error:
            absent[peer.name] = "not installed" if error.name == peer.modules[-1] else str(error)
        except Exception as error:  # a broken installation raises what it likes
            absent[peer.name] = f"{type(error).__name__}: {error}"
        else:
            loaded.append(peer)
    return loaded, absent
