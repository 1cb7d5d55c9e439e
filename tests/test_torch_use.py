"""rnnkern.torch in use: several processes, loaders, threads, optimisers."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")

import torch
import torch.distributed as dist
from torch import nn

import rnnkern.torch
from torch_harness import H, I, T, assert_near, leaves, normal, objective, on_kernels, pair


def python(code, *arguments, timeout=120):
    """What a program in a new process prints; it must not fail or hang."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, env=environment, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(I, H, 2, bidirectional=True), nn.Linear(2 * H, 3)
        self.double()

    def forward(self, x):
        return self.out(self.rnn(x)[0])


def loss_of(model, x, target):
    return nn.functional.cross_entropy(model(x).flatten(0, 1), target.flatten())


def data(batch=8):
    torch.manual_seed(0)
    return normal(T, batch, I), torch.randint(3, (T, batch))


def train(model, x, target, steps=3, optimiser=torch.optim.SGD, **options):
    optimiser = optimiser(model.parameters(), **{"lr": 0.1, **options})
    for _ in range(steps):
        optimiser.zero_grad()
        loss_of(model, x, target).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimiser.step()
    return {name.removeprefix("module."): weight.detach() for name, weight in model.named_parameters()}


OPTIMISERS = {
    "SGD": {"momentum": 0.9},
    "Adam": {"lr": 1e-3},
    "AdamW": {"lr": 1e-3, "amsgrad": True, "foreach": True},
    "RMSprop": {"lr": 1e-3},
    "Adagrad": {},
    "LBFGS": {},
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers(name):
    """The same Parameters as with PyTorch's layers, clipped by clip_grad_norm_."""
    torch.manual_seed(0)
    theirs = Tagger()
    ours = rnnkern.torch.accelerate(copy.deepcopy(theirs))
    x, target = data()
    if name == "LBFGS":
        found = []
        for model in (ours, theirs):
            optimiser = torch.optim.LBFGS(model.parameters(), max_iter=3)

            def closure(model=model, optimiser=optimiser):
                optimiser.zero_grad()
                loss = loss_of(model, x, target)
                loss.backward()
                return loss

            optimiser.step(closure)
            found.append({key: weight.detach() for key, weight in model.named_parameters()})
    else:
        optimiser = getattr(torch.optim, name)
        with on_kernels():
            found = [train(ours, x, target, optimiser=optimiser, **OPTIMISERS[name])]
        found.append(train(theirs, x, target, optimiser=optimiser, **OPTIMISERS[name]))
    assert_near(*found)


def test_training_learns():
    """A task that needs memory: the first symbol, several steps later."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"rnn": nn.GRU(4, 16), "out": nn.Linear(16, 4)})
    rnnkern.torch.accelerate(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(150):
        symbols = torch.randint(4, (6, 32))
        y, _ = model["rnn"](nn.functional.one_hot(symbols, 4).float())
        loss = nn.functional.cross_entropy(model["out"](y[-1]), symbols[0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 1.2
    assert np.mean(losses[-10:]) < 0.1


def test_checkpoint_in_the_middle():
    """Trained by PyTorch's layers, saved, trained on by ours, saved, trained on by PyTorch's."""
    torch.manual_seed(0)
    x, target = data()
    expected = copy.deepcopy(model := Tagger())
    train(expected, x, target, 9, torch.optim.SGD)
    for accelerate in (False, True, False):
        state = model.state_dict()
        model = Tagger()
        model.load_state_dict(state)
        if accelerate:
            rnnkern.torch.accelerate(model)
        train(model, x, target, 3, torch.optim.SGD)
    assert_near(model.state_dict(), expected.state_dict())


@pytest.mark.skipif(not dist.is_available(), reason="PyTorch without torch.distributed")
def test_two_processes(tmp_path):
    """DDP with gloo: each with half of the batch, the same Parameters as one process with all of it."""
    code = """
        import os, sys, torch, torch.distributed as dist, test_torch_use as test, rnnkern.torch
        rank, store, result = int(sys.argv[1]), sys.argv[2], sys.argv[3]
        dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
        torch.manual_seed(0)
        model = rnnkern.torch.accelerate(test.Tagger())
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        x, target = test.data()
        half = slice(4 * rank, 4 * rank + 4)
        weights = test.train(wrapped, x[:, half], target[:, half])
        torch.save(weights, result)
        dist.barrier()
        dist.destroy_process_group()
        os._exit(0)  # gloo's threads may still run, and then end the process with an error
    """
    paths = [tmp_path / f"{rank}.pt" for rank in range(2)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda rank: python(code, rank, tmp_path / "store", paths[rank]), range(2)))
    torch.manual_seed(0)
    expected = train(Tagger(), *data())
    found = [torch.load(path) for path in paths]
    assert all(torch.equal(found[0][name], found[1][name]) for name in expected)
    assert_near(found[0], expected)


def test_a_loader_with_forked_workers():
    """They run the accelerated model after this process has used threads, and don't hang."""
    code = """
        import torch, torch.utils.data, test_torch_use as test, rnnkern.torch
        torch.manual_seed(0)
        model = rnnkern.torch.accelerate(torch.nn.LSTM(64, 128, 2))
        inputs = torch.randn(8, 30, 64)

        class Encoded(torch.utils.data.Dataset):
            def __len__(self):
                return len(inputs)

            def __getitem__(self, index):
                with torch.no_grad():
                    torch.set_num_threads(2)  # the loader had set 1, which PyTorch's own operations need
                    y = model(inputs[index])[0]
                    torch.set_num_threads(1)
                x = inputs[index].clone().requires_grad_()
                model(x)[0].sum().backward()
                return y, x.grad

        torch.set_num_threads(2)
        model(torch.randn(50, 32, 64))[0].sum().backward()
        with torch.no_grad():
            expected = [model(x)[0] for x in inputs]
        loader = torch.utils.data.DataLoader(Encoded(), batch_size=2, num_workers=2, multiprocessing_context="fork")
        for _ in range(2):
            found = [y for batch, _ in loader for y in batch]
            assert all(map(torch.equal, found, expected))
            model(torch.randn(50, 32, 64))[0].sum().backward()
        print("done")
    """
    assert python(code).strip() == "done"


def test_eight_threads():
    """One model serves eight Python threads: each gets its own results, bit for bit; frozen and training too."""
    model = pair("LSTM", 16, 24, num_layers=2, bidirectional=True, dtype=torch.float32)[1]
    frozen = rnnkern.torch.freeze(model)
    inputs = [normal(5 + i, 1 + i % 3, 16, seed=i, dtype=torch.float32) for i in range(8)]

    def serve(x):
        with torch.inference_mode():
            return leaves(model(x)) + leaves(frozen(x))

    def gradient(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(objective(model(x)), [x, *model.parameters()])

    def work(number):
        start.wait()
        return [(serve(inputs[number]), gradient(inputs[number])) for _ in range(20)]

    expected = [(serve(x), gradient(x)) for x in inputs]
    start = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        for found, (served, gradients) in zip(pool.map(work, range(8)), expected):
            for again in found:
                assert all(map(torch.equal, again[0], served))
                assert all(map(torch.equal, again[1], gradients))


needs_tasks = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")


@needs_tasks
@pytest.mark.parametrize("way", ["model(x)", "frozen(x)", "model(x)[0].sum().backward()", "compiled(x)"])
def test_set_num_threads(way):
    """torch.set_num_threads is obeyed: no other thread appears with 1, and another count gives the same bits."""
    code = """
        import os, sys, torch, rnnkern.torch
        torch.set_num_threads(1)
        torch.set_num_interop_threads(1)
        model = rnnkern.torch.accelerate(torch.nn.LSTM(64, 256, bidirectional=True))
        frozen, compiled = rnnkern.torch.freeze(model), torch.compile(model, fullgraph=True, backend="eager")
        x = torch.randn(40, 64, 64)
        run = lambda: eval(sys.argv[1])
        grad = "backward" in sys.argv[1]
        torch.set_grad_enabled(grad)
        (compiled if "compiled" in sys.argv[1] else model)(x[:, :1])
        tasks = lambda: len(os.listdir("/proc/self/task"))
        before = tasks()
        one = run()
        one = [weight.grad.clone() for weight in model.parameters()] if grad else [one[0]]
        assert tasks() == before, (before, tasks())
        model.zero_grad()
        torch.set_num_threads(2)
        two = run()
        two = [weight.grad for weight in model.parameters()] if grad else [two[0]]
        assert all(map(torch.equal, one, two))
        assert tasks() == before + 1, (before, tasks())
        print("done")
    """
    assert python(code, way).strip() == "done"


def test_an_import_is_all_that_numpy_users_pay():
    """`import rnnkern` does not import torch."""
    assert python("import sys, rnnkern; print('torch' in sys.modules)").strip() == "False"
