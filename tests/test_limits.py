"""What the machine can do at most, and the shortest time that follows from it."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")

from rnnkern import _core
from rnnkern.cli import probes
from rnnkern.cli.case import DTYPES, Case, Shape
from rnnkern.cli.limit import Limit, Phase, limit
from rnnkern.cli.probes import Cache, Level, Limits

ISAS = [name for name, can_run, _ in _core.isas() if can_run]


def levels(scale=1):
    return (
        Level("L2", 1000, False, 200e9 * scale),
        Level("L3", 100_000, True, 100e9 * scale),
        Level("memory", math.inf, True, 10e9),
    )


ONE = Limits("float32", 1, 100e9, levels(), 1e9, 2e9, 0.0, 1e-9, 20e-9, 10e-9)
TWO = Limits("float32", 2, 200e9, levels(2), 2e9, 4e9, 500e-9, 1e-9, 20e-9, 10e-9)


# ---------------------------------------------------------------------------------------------------------------------
# Probes


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probes_measure(isa, dtype):
    dtype = np.dtype(dtype)
    lanes = 16 // dtype.itemsize  # every instruction set has so many, or more
    latency = min(_core.probe("multiply_add_latency", dtype, isa=isa) for _ in range(3))
    assert 1e-11 < latency < 1e-6
    peak = max(_core.probe("multiply_add", dtype, isa=isa) for _ in range(3))
    assert peak > 1.5 * 2 * lanes / latency, "chains run beside each other"
    assert 1e8 < _core.probe("read", dtype, bytes=8192, isa=isa) < 1e13
    for name in ("sigmoid", "tanh"):
        assert 1e6 < _core.probe(name, dtype, isa=isa) < 1e12
        assert latency < _core.probe(f"{name}_latency", dtype, isa=isa) < 1e-5


def test_probes_of_a_team():
    dtype = np.dtype("f4")
    if _core.openmp_runtime() == "none":
        with pytest.raises(RuntimeError, match="expected a team of 2 threads, got 1"):
            _core.probe("barrier", dtype, 2)
        return
    assert _core.probe("barrier", dtype, 2) > _core.probe("barrier", dtype, 1)
    assert _core.probe("read", dtype, 3, 1) > 0, "a block is at least what is read at once"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("speed", np.dtype("f4")), "name: unknown probe 'speed'"),
        (("read", np.dtype("f2")), "dtype: expected float32 or float64"),
        (("read", np.dtype("f4"), 0), "threads: expected 1 to"),
        (("read", np.dtype("f4"), 10**6), "threads: expected 1 to"),
        (("read", np.dtype("f4"), 1, -1), "bytes: expected 0 or more, got -1"),
        (("tanh", np.dtype("f4"), 1, 0, "z80"), "z80"),
    ],
)
def test_wrong_probes(arguments, message):
    with pytest.raises(ValueError, match=message):
        _core.probe(*arguments)


def test_probe_without_memory():
    with pytest.raises(MemoryError):
        _core.probe("read", np.dtype("f4"), 1, 2**60)


def cache_folder(path, *caches):
    for index, (level, kind, size, processors) in enumerate(caches):
        folder = path / f"index{index}"
        folder.mkdir()
        for name, text in [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", processors)]:
            (folder / name).write_text(f"{text}\n")
    return path


def test_find_caches(tmp_path):
    """Two hardware threads a core, two groups of four cores."""
    folder = cache_folder(
        tmp_path,
        (3, "Unified", "32768K", "0-3,8-11"),
        (1, "Data", "48K", "0,8"),
        (1, "Instruction", "32K", "0,8"),
        (2, "Unified", "1M", "0,8"),
    )
    expected = [Cache("L1", 48 << 10, 1), Cache("L2", 1 << 20, 1), Cache("L3", 32 << 20, 4)]
    assert probes.find_caches(folder) == expected
    (folder / "index0" / "size").write_text("unknown")
    assert probes.find_caches(folder) == []
    assert probes.find_caches(tmp_path / "missing") == []


def test_caches_of_a_sweep(monkeypatch):
    monkeypatch.setattr(probes, "cores", lambda: 8)
    sizes = [2**i for i in range(13, 23)]
    bandwidths = [200, 205, 198, 150, 110, 108, 107, 60, 30, 28]
    assert probes.caches_of_sweep(sizes, bandwidths) == [Cache("L1", 2**15, 1), Cache("L2", 2**19, 8)]
    assert probes.caches_of_sweep([1, 2, 4], [5, 5, 5]) == []


def test_block_sizes():
    caches = [Cache("L1", 2**15, 1), Cache("L2", 2**20, 1), Cache("L3", 2**25, 8)]
    assert probes.block_sizes(caches, 1) == [2**14, 2**19, 2**22, 3 * 2**25]
    assert probes.block_sizes(caches, 8) == [2**14, 2**19, 2**21, 3 * 2**22]
    assert probes.block_sizes([], 2) == [2**25]


def test_thread_counts():
    assert [probes.thread_counts(n) for n in (1, 2, 3, 4, 12)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4], [1, 2, 4, 8, 12]]


def test_level_that_holds():
    assert ONE.level(1000, 10**6).name == "L2"
    assert ONE.level(1001, 100_000).name == "L3"
    assert ONE.level(1001, 100_001).name == "memory"


def test_contradictions():
    assert probes.contradictions([ONE, TWO]) == []
    slow = replace(ONE, levels=(Level("L2", 1000, False, 5e9), *ONE.levels[1:]))
    assert probes.contradictions([slow]) == ["L2 (5.0 GB/s) is slower than L3 (100.0 GB/s) with 1 thread"]
    (late,) = probes.contradictions([ONE, replace(TWO, peak=80e9)])
    assert late == "multiply-adds: 2 threads are 0.80 times as fast as 1"
    (early,) = probes.contradictions([replace(ONE, tanh=1e9), TWO])
    assert early == "tanh: 2 threads are 4.00 times as fast as 1"


# ---------------------------------------------------------------------------------------------------------------------
# The limit of a case, by hand


def seconds(result):
    return {phase.name: phase.seconds for phase in result.phases}


def test_one_sequence_of_a_small_rnn():
    """W_hh 4 * 8 * 8 bytes is in L2, all together in L3: 4 * (2 * 64 + 16 weights, 10 * 16 of x and y) bytes."""
    result = limit(Case("rnn", Shape(10, 1, 8, 8)), False, [ONE])
    found = seconds(result)
    assert found["input product"] == pytest.approx(2 * 64 * 10 / 100e9), "longer than 4 * (64 + 80) bytes from L3"
    assert found["recurrence"] == pytest.approx(10 * (10e-9 + 3 * 1e-9)), "tanh, and a sum of 2**3"
    assert found["activations of the recurrence"] == pytest.approx(80 / 2e9)
    assert result.bound == "latency"
    assert result.seconds == pytest.approx(sum(found.values()))
    assert result.flops == 2 * 2 * 64 * 10
    assert result.intensity == pytest.approx(result.flops / (4 * (64 + 80) + 10 * 256 + 4 * 80))


def test_input_comes_from_where_the_call_fits():
    """4 * (128 + 16 + 40 * 16) bytes don't fit into L2."""
    found = limit(Case("rnn", Shape(40, 1, 8, 8)), False, [replace(ONE, peak=1e15)])
    assert seconds(found)["input product"] == pytest.approx(4 * (64 + 320) / 100e9)


def test_barriers_are_avoided_where_they_cost_more():
    """One thread for one sequence; two for two sequences, without a barrier."""
    case = Case("rnn", Shape(10, 1, 8, 8))
    assert seconds(limit(case, False, [ONE, TWO]))["recurrence"] == pytest.approx(130e-9)
    both = Case("rnn", Shape(10, 2, 8, 8))
    found = seconds(limit(both, False, [ONE, TWO]))
    assert found["recurrence"] == pytest.approx(130e-9)
    assert found["activations of the recurrence"] == pytest.approx(160 / 4e9)


def test_one_sequence_of_a_large_lstm_is_bound_by_reading():
    """4 * 4 * 64 * 64 bytes a step from L3, whose bandwidth two threads have twice."""
    case = Case("lstm", Shape(5, 1, 64, 64))
    alone, shared = (seconds(limit(case, False, teams)) for teams in ([ONE], [replace(TWO, barrier=0.0)]))
    y = 4 * 64 / 10e9  # to memory: the call takes 136 kB
    assert alone["recurrence"] == pytest.approx(5 * (65536 / 100e9 + y))
    assert shared["recurrence"] == pytest.approx(5 * (65536 / 200e9 + y))
    assert alone["activations of the recurrence"] == pytest.approx(5 * 64 * (3 / 1e9 + 2 / 2e9))


def test_a_large_batch_is_bound_by_arithmetic():
    """3 * 64 * 64 weights, 2 FLOPs each, and 100 GFLOP/s."""
    result = limit(Case("gru", Shape(10, 32, 64, 64)), True, [ONE])
    product = 2 * 3 * 64 * 64 * 320 / 100e9
    found = seconds(result)
    for name in ("input product", "recurrence", "dh product", "dx product", "dW_ih", "dW_hh"):
        assert found[name] == pytest.approx(product), name
    assert found["activations of the recurrence"] == pytest.approx(320 * 64 * (2 / 1e9 + 1 / 2e9))
    assert found["activations of the dh product"] == 0
    assert result.bound == "multiply-adds"


def test_lstm_backward_has_one_more_tanh():
    result = limit(Case("lstm", Shape(10, 32, 64, 64)), True, [ONE])
    assert seconds(result)["activations of the dh product"] == pytest.approx(320 * 64 / 2e9)


def test_odd_batches_do_not_split_evenly():
    """Three sequences by two threads: either two of one thread, or all by both with barriers."""
    case = Case("lstm", Shape(10, 3, 64, 64))
    flops = 2 * 4 * 64 * 64
    fast = [Limits("float32", 2, 2e9, levels(2), 1e15, 1e15, 1.0, 0, 0, 0)]
    assert seconds(limit(case, False, fast))["recurrence"] == pytest.approx(10 * 2 * flops / 1e9)
    fast = [replace(fast[0], barrier=0.0)]
    assert seconds(limit(case, False, fast))["recurrence"] == pytest.approx(10 * 3 * flops / 2e9)


def test_layers_add_up_and_directions_run_at_once():
    shape = Shape(10, 32, 64, 64)
    one, two, both = (limit(Case("lstm", shape, *options), False, [ONE]) for options in ((), (2,), (1, True)))
    assert two.seconds == pytest.approx(2 * one.seconds)
    assert both.seconds == pytest.approx(2 * one.seconds), "all the work, one thread"
    wider = limit(Case("lstm", shape, 2, True), False, [ONE])
    assert wider.flops == both.flops * (1 + 3 / 2), "the second layer reads both directions"
    latency = Case("rnn", Shape(1000, 1, 8, 8), bidirectional=True)
    assert seconds(limit(latency, False, [ONE, TWO]))["recurrence"] == pytest.approx(1000 * 13e-9)


def test_ragged_batches_count_active_rows(monkeypatch):
    case = Case("lstm", Shape(4, 3, 64, 64), ragged=True)
    monkeypatch.setitem(case.__dict__, "lengths", np.array([1, 3, 3]))
    assert case.active_rows.tolist() == [3, 2, 2, 0]
    slow = [Limits("float32", 1, 1e9, levels(), 1e9, 1e9, 0, 0, 0, 0)]
    found = limit(case, False, slow)
    flops = 2 * 4 * 64 * 64
    assert seconds(found)["recurrence"] == pytest.approx(7 * flops / 1e9)
    assert seconds(found)["input product"] == pytest.approx(7 * flops / 1e9)
    assert seconds(found)["activations of the recurrence"] == pytest.approx(7 * 64 * 5 / 1e9)
    # A step costs at least its weights, however few rows there are.
    reading = [replace(slow[0], peak=1e15)]
    assert seconds(limit(case, False, reading))["recurrence"] == pytest.approx(3 * 65536 / 100e9 + 7 * 4 * 64 / 10e9)


def test_float64_moves_twice_as_much():
    case = Case("lstm", Shape(5, 1, 64, 64))
    small, large = (limit(replace(case, dtype=dtype), False, [replace(ONE, peak=1e15)]) for dtype in DTYPES)
    assert large.intensity == pytest.approx(small.intensity / 2)


def test_bound_is_what_takes_most():
    phases = (Phase("a", 3.0, "L2"), Phase("b", 2.0, "multiply-adds"), Phase("c", 2.0, "multiply-adds"))
    assert Limit(phases).bound == "multiply-adds"
    assert Limit(phases).seconds == 7


# ---------------------------------------------------------------------------------------------------------------------
# The program


@pytest.fixture
def program():
    path = Path(__file__).parents[1] / "bench" / "limits.py"
    spec = importlib.util.spec_from_file_location("limits", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_program(program, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(probes, "measure", lambda dtype, threads: {1: ONE, 2: TWO}[threads])
    path = tmp_path / "limits.json"
    assert program.main(["--threads", "2", "--dtype", "float32", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "GFLOP/s" in printed
    assert "contradiction" not in printed
    record = json.loads(path.read_text())
    assert [team["peak"] for team in record["limits"]] == [100e9, 200e9]
    assert [level["name"] for level in record["limits"][0]["levels"]] == ["L2", "L3", "memory"]


def test_program_finds_contradictions(program, capsys, monkeypatch):
    slow = replace(ONE, levels=(Level("L2", 1000, False, 5e9), *ONE.levels[1:]))
    monkeypatch.setattr(probes, "measure", lambda dtype, threads: slow)
    assert program.main(["--threads", "1", "--dtype", "float64"]) == 1
    assert "contradiction: float64: L2 (5.0 GB/s) is slower than L3" in capsys.readouterr().out


def test_measured_limits(monkeypatch):
    """Nothing is asserted of their values: the machine may be busy."""
    monkeypatch.setattr(probes, "ROUNDS", 1)
    caches = [Cache("L1", 2**14, 1), Cache("L2", 2**17, 2)]
    found = probes.measure("float32", 1, caches)
    assert [(level.name, level.size, level.shared) for level in found.levels] == [
        ("L1", 2**14, False),
        ("L2", 2**17, True),
        ("memory", math.inf, True),
    ]
    assert all(level.bandwidth > 0 for level in found.levels)
    assert json.dumps(found.as_dict(), allow_nan=False)
