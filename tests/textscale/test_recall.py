"""Recall by height."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive.core.errors import UserError
from adaptive.textscale.recall import RecallCurve


def test_a_fit_finds_the_curve_that_drew_the_words():
    truth = RecallCurve(top=0.85, small=14, rise=5, large=150, fall=6)
    rng = np.random.default_rng(0)
    height_N = np.exp(rng.uniform(np.log(4), np.log(400), 6000))
    found_N = rng.random(6000) < truth(height_N)
    fitted = RecallCurve.fit(height_N, found_N)
    grid = np.geomspace(5, 350, 40)
    assert np.abs(fitted(grid) - truth(grid)).max() < 0.06


def test_it_rises_then_falls_and_is_a_probability():
    grid = np.concatenate([[0.0], np.geomspace(0.1, 1e5, 200)])
    p = RecallCurve()(grid)
    top = p.argmax()
    assert p[0] < 1e-6 and (np.diff(p[: top + 1]) >= 0).all() and (np.diff(p[top:]) <= 0).all()
    assert p.max() < 0.9 and p[-1] < 1e-6


def test_uncertain_heights_flatten_the_curve():
    curve = RecallCurve(rise=8)
    height = np.array([6.0, 10.0, 16.0])
    wide, narrow = curve.expected(height, np.full(3, 0.5)), curve.expected(height, np.zeros(3))
    assert narrow == pytest.approx(curve(height))
    assert wide[0] > narrow[0] and wide[2] < narrow[2]


def test_few_words_are_no_evidence_and_files_come_back(tmp_path):
    with pytest.raises(UserError, match="needs 50 words at least, got 3"):
        RecallCurve.fit(np.ones(3), np.ones(3, bool))
    curve = RecallCurve(0.8, 12.0, 4.0, 200.0, 5.0)
    curve.save(tmp_path / "curve.json")
    assert RecallCurve.load(tmp_path / "curve.json") == curve
