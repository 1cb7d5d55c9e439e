"""The programs in bench/ that are about rnnkern.torch run, and write the figures that they print."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("rich", reason="needs rich")
pytest.importorskip("threadpoolctl", reason="needs threadpoolctl")

from test_bench_programs import results


def test_modules(tmp_path):
    found = results("torch_modules", tmp_path, "--cell", "gru", "--cell", "rnn")
    assert [(row["cell"], row["way"]) for row in found["rows"]] == [
        (cell, way) for cell in ("gru", "rnn") for way in ("inference", "training")
    ]
    for row in found["rows"]:
        assert row["speed_up"]["value"] == pytest.approx(row["seconds"]["stock"] / row["seconds"]["accelerated"])
    for summary in found["means"]:
        values = [row["speed_up"]["value"] for row in found["rows"] if row["way"] == summary["way"]]
        assert summary["mean"]["value"] == pytest.approx(math.prod(values) ** 0.5)
        assert summary["worst"]["speed_up"]["value"] == min(values)


def test_overhead(tmp_path):
    (row,) = results("torch_overhead", tmp_path, "--kind", "LSTM")
    assert row["call"]["value"] == pytest.approx(row["inference"]["accelerated"] * 1e6)
    above = row["training"]["accelerated"] - row["training"]["nothing"]
    assert row["overhead"]["value"] == pytest.approx(above * 1e6)
    assert row["overhead"]["at_most"] == 60
    assert row["call"]["at_most"] == 12
