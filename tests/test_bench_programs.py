"""The programs in bench/ run, and write the figures that they print."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("threadpoolctl")

import rnnkern

BENCH = Path(__file__).parents[1] / "bench"
needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")


def results(program, tmp_path, *arguments):
    """What the program's quick mode writes."""
    path = tmp_path / "figures.json"
    command = [sys.executable, str(BENCH / f"{program}.py"), "--quick", "--threads", "2", "--json", str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(path.read_text())
    assert record["rnnkern"]["version"] == rnnkern.__version__
    assert record["settings"]["threads"] == 2
    return record["results"]


def test_scaling(tmp_path):
    (row,) = results("scaling", tmp_path, "--cell", "gru", "--way", "frozen")
    seconds = row["seconds"]
    assert row["speed_up"]["value"] == pytest.approx(seconds["one_thread"] / seconds["threads"])
    assert row["speed_up"]["met"] == (row["speed_up"]["value"] >= row["speed_up"]["at_least"])
    assert row["float64_speed"]["value"] == pytest.approx(seconds["threads"] / seconds["float64"])


def test_growth(tmp_path):
    picture = tmp_path / "growth.svg"
    found = results("growth", tmp_path, "--cell", "rnn", "--plot", str(picture))
    assert [(sweep["axis"], set(sweep["seconds"])) for sweep in found["sweeps"]] == [(a, {"1", "2", "4"}) for a in "TB"]
    for sweep in found["sweeps"]:
        assert sweep["at_largest"] == pytest.approx(sweep["seconds"]["4"] / sweep["seconds"]["2"] / 2)
    assert "<svg" in picture.read_text()


@needs_proc
def test_memory(tmp_path):
    rows = results("memory", tmp_path, "--cell", "lstm")
    kept = {row["who"]: row for row in rows}
    assert kept["rnnkern"]["tape"]["value"] > kept["rnnkern, recompute"]["tape"]["value"]
    for row in rows:
        assert row["peak"]["value"] > row["tape"]["value"]


@needs_proc
def test_a_peak_is_what_was_allocated(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(BENCH)!r})
import memory, numpy
memory.forget()
before = memory.resident("VmRSS")
numpy.ones(2**24, numpy.uint8)
print(memory.resident("VmHWM") - before)"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert int(done.stdout) == pytest.approx(2**24, rel=0.05)


@needs_proc
def test_linear_cross_entropy(tmp_path):
    rows = results("linear_cross_entropy", tmp_path)
    assert [row["way"] for row in rows] == ["forward", "gradients"]
    for row in rows:
        seconds = row["seconds"]
        ratio = pytest.approx(seconds["torch"] / seconds["rnnkern"]) if "torch" in seconds else None
        assert row["speed_up"]["value"] == ratio
        assert row["peak"]["rnnkern"] > 0


@needs_proc
def test_the_probabilities_are_never_held_whole(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    common, program = (importlib.import_module(name) for name in ("common", "linear_cross_entropy"))
    for way in program.WAYS:
        peak = common.in_new_process(program.peak, "rnnkern", way, [8000, 32, 4000], 2)
        assert peak < 8000 * 4000 * 4 / 4, way


def test_coexistence(tmp_path):
    pytest.importorskip("torch")
    found = results("coexistence", tmp_path)
    assert [row["ours"] for row in found["rows"]] == [True, False]
    for row in found["rows"]:
        assert row["slow_down"]["value"] == pytest.approx(row["mixed"] / row["alone"])
    assert found["processes"]["torch"]["imported"] == ["torch", "rnnkern"]


def test_ragged(tmp_path):
    rows = results("ragged", tmp_path, "--cell", "gru")
    assert [row["way"] for row in rows] == ["frozen", "training"]
    for row in rows:
        share = row["seconds"]["ragged"] / row["seconds"]["full"]
        assert row["proportional"]["value"] == pytest.approx(share / row["filled"])
