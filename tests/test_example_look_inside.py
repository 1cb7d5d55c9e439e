"""examples/look_inside.py on a small budget."""

from __future__ import annotations

import re

import numpy as np
import pytest


@pytest.fixture
def look_inside(load):
    return load("look_inside", "matplotlib")


def test_look_inside_features(look_inside):
    found = look_inside.features('a "b(c"¶¶"d¶¶[e]f)g'.replace("¶", "\n"))
    expected = {
        "quotes": "0011110" + "00" + "11" + "10" + "000000",
        "brackets": "0000111" + "10" + "00" + "00" + "110000",
        "column": "1234567" + "00" + "12" + "00" + "123456",
    }
    assert {name: "".join(f"{value:.0f}" for value in values) for name, values in found.items()} == expected


def test_look_inside_finds_what_is_there(look_inside):
    """A unit that follows a feature among many that don't; without it, what is found is no better than chance."""
    rng = np.random.default_rng(0)
    features = [np.repeat(rng.integers(0, 2, 100), 50).astype(float) for _ in range(2)]
    noise = [{cell: rng.standard_normal((5000, 20)) for cell in ("LSTM", "GRU")} for _ in features]
    control = [rng.standard_normal((5000, 40)) for _ in features]
    nothing = look_inside.find("f", noise, control, features, rng)
    assert abs(nothing.r) < nothing.chance < 0.2
    assert len(nothing.all) == len(nothing.untrained) == 40
    for memories, feature in zip(noise, features):
        memories["GRU"][:, 7] -= 2 * feature
    found = look_inside.find("f", noise, control, features, rng)
    assert (found.cell, found.unit) == ("GRU", 7)
    expected = np.corrcoef(noise[1]["GRU"][:, 7], features[1])[0, 1]
    assert found.r == pytest.approx(expected, rel=1e-12)
    assert found.r < -0.6
    assert found.chance < 0.3


def test_look_inside_memory_is_that_of_the_whole_text(look_inside):
    ids = np.random.default_rng(0).integers(5, size=2100)
    for cell in look_inside.CELLS:
        model = look_inside.Model(cell, 5, embedding=3, hidden=4, dropout=0.0, seed=0)
        trace = model.layer.trace(model.embedding[ids])
        np.testing.assert_array_equal(model.memory(ids), np.tanh(trace["c"]) if cell == "LSTM" else trace["h"])


def test_look_inside(look_inside, tmp_path, capsys):
    assert look_inside.main(["--short", "--plot", str(tmp_path / "inside.png")]) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r"bits per held-out character", printed)) == 3
    for name in ("gradients", "units", "gates"):
        assert (tmp_path / f"inside-{name}.png").stat().st_size > 10_000


def test_look_inside_notices_what_is_wrong(look_inside, monkeypatch, capsys):
    """Networks that have learned nothing follow nothing, and an RNN in place of the LSTM loses its gradient."""
    monkeypatch.setattr(look_inside, "train", lambda model, ids, options, progress, evaluate: evaluate(0.0))
    swapped = {"RNN": "LSTM", "LSTM": "RNN", "GRU": "GRU"}
    made = look_inside.Model.__init__
    monkeypatch.setattr(look_inside.Model, "__init__", lambda self, cell, *rest: made(self, swapped[cell], *rest))
    assert look_inside.main(["--short"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "before training, the LSTM's gradient falls as much as the RNN's" in printed
    assert "no unit follows quotes better than chance and than the untrained networks" in printed


@pytest.mark.parametrize(
    ("path", "message"), [("missing/a.png", "there is no directory missing"), ("a.doc", "must end in one of .")]
)
def test_look_inside_checks_where_pictures_go(look_inside, path, message, capsys):
    with pytest.raises(SystemExit):
        look_inside.main(["--plot", path])
    assert message in capsys.readouterr().err
