"""What a call of an accelerated PyTorch module costs besides its arithmetic.

One step of one sequence with 64 units, where there is next to none: in inference, and forward with backward above an
autograd.Function that does nothing and has as many inputs and outputs. PyTorch's own modules beside it.
"""

from __future__ import annotations

import copy
from typing import Any

from common import figure, medians, parser, shown, started, summarise, track, write

from rnnkern.cli import machine
from rnnkern.cli.measure import Call
from rnnkern.cli.report import duration, new_table

KINDS = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")
SIZE = 64
INFERENCE, TRAINING = 12e-6, 60e-6
"""Seconds of an LSTM: a call, and forward and backward above doing nothing."""


def do_nothing(inputs: int, outputs: int) -> Any:
    """An autograd.Function of so many tensors that makes its results and gradients, but computes nothing."""
    import torch

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Any) -> Any:
            ctx.save_for_backward(*tensors)
            made = tuple(tensors[0].new_empty(1, 1, SIZE) for _ in range(outputs))
            return made if outputs > 1 else made[0]

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return tuple(map(torch.empty_like, ctx.saved_tensors))

    return Nothing.apply


def calls_of(kind: str) -> tuple[dict[str, Call], dict[str, Call]]:
    """Of inference, to be called in inference mode, and of training, by who. They have run."""
    import torch

    import rnnkern.torch

    stock = getattr(torch.nn, kind)(SIZE, SIZE)
    modules = {"stock": stock, "accelerated": rnnkern.torch.accelerate(copy.deepcopy(stock))}
    modules["frozen"] = rnnkern.torch.freeze(stock)
    shape = (1, SIZE) if kind.endswith("Cell") else (1, 1, SIZE)
    x, x_grad, dy = torch.randn(shape), torch.randn(shape, requires_grad=True), torch.randn(shape)

    def train(function: Any, wrt: list[Any], gradient: Any) -> Any:
        result = function()
        y = result[0] if isinstance(result, tuple) else result
        return torch.autograd.grad(y, wrt, gradient)

    inference = {who: lambda module=module: module(x) for who, module in modules.items()}
    training = {}
    for who in ("stock", "accelerated"):
        wrt = [x_grad, *modules[who].parameters()]
        training[who] = lambda module=modules[who], wrt=wrt: train(lambda: module(x_grad), wrt, dy)
    wrt = [x_grad, *stock.parameters()]
    states = {"LSTM": 2, "LSTMCell": 1}.get(kind, 0 if kind.endswith("Cell") else 1)
    nothing = do_nothing(len(wrt), 1 + states)
    training["nothing"] = lambda: train(lambda: nothing(*wrt), wrt, dy.view(1, 1, SIZE))
    for call in (*inference.values(), *training.values()):
        call()
    return inference, training


def main() -> None:
    root = parser(__doc__.splitlines()[0], cells=False, seconds=30)
    root.add_argument("--kind", action="append", choices=KINDS, help="repeatable; default: all")
    if machine.version("torch") is None:
        root.error("this program needs torch")
    with started(root) as (options, out):
        import torch

        torch.set_num_threads(options.threads)
        kinds = list(dict.fromkeys(options.kind or KINDS))
        table = new_table(
            f"torch {machine.version('torch')}, one step of one sequence, {SIZE} units: µs per call",
            "overhead: forward and backward above an autograd.Function that does nothing",
        )
        for name in ("", "inference, stock", "frozen", "accelerated", "training, stock", "accelerated", "overhead"):
            table.add_column(name, justify="right" if name else "left")
        rows: list[dict[str, Any]] = []
        for kind in track(out, kinds):
            calls, seconds = calls_of(kind), options.seconds / len(kinds) / 2
            with torch.inference_mode():
                inference = medians(calls[0], seconds)
            training = medians(calls[1], seconds)
            limited = kind == "LSTM"
            call = figure(inference["accelerated"] * 1e6, at_most=INFERENCE * 1e6 if limited else None)
            above = (training["accelerated"] - training["nothing"]) * 1e6
            overhead = figure(above, at_most=TRAINING * 1e6 if limited else None)
            rows.append(
                {"kind": kind, "inference": inference, "training": training, "call": call, "overhead": overhead}
            )
            times = [inference["stock"], inference["frozen"]], [training["stock"], training["accelerated"]]
            first, second = (map(duration, pair) for pair in times)
            table.add_row(kind, *first, shown(call, 1), *second, shown(overhead, 1))
        out.print(table)
        summarise(out, [row[name] for row in rows for name in ("call", "overhead")], "overhead")
        write(options, out, rows)


if __name__ == "__main__":
    main()
