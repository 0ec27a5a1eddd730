"""Prices of halves of blocks: measured once, and they add up to the parent."""

from __future__ import annotations

import pytest
from tiny_vit_puzzle import make_parent

from adaptive.core.hardware import clock_for
from adaptive.quadformer.models import load_trained
from adaptive.quadformer.puzzle.costs import measure_costs
from adaptive.quadformer.puzzle.settings import CostConfig, SpaceConfig
from adaptive.quadformer.puzzle.space import search_space
from adaptive.quadformer.puzzle.verify import time_children
from adaptive.quadformer.settings import EvaluateConfig
from adaptive.quadformer.slim import slim_blocks

SETTINGS = EvaluateConfig(speed_batch=2, seconds=0.2)


@pytest.mark.parametrize("area", [False, True])
def test_halves_are_measured_once(tmp_path, area, monkeypatch):
    model = load_trained(make_parent(tmp_path, area_attention=area), "model").model
    slim_blocks(model.vit)
    space = search_space([block.size for block in model.vit.blocks], SpaceConfig(multiple=8))
    clock = clock_for("cpu", "eager")
    config = CostConfig(seconds=0.5, table=str(tmp_path / "costs.csv"))

    def run(tokens):
        return measure_costs(model, space, tokens, clock, config, SETTINGS)

    (first,) = run([7])
    assert first.seconds[0] == first.seconds[2] and first.seconds[1] == first.seconds[3]
    assert [row[-1] for row in first.seconds] == [0.0] * 4  # what is left out takes no time
    assert all(value > 0 for row in first.seconds for value in row[:-1])
    assert 0 < first.shell < first.whole
    parts = first.shell + sum(row[0] for row in first.seconds)
    assert first.scale * parts == pytest.approx(first.whole)
    # Query, key, value and output of d = 24 channels for 8 a head, with biases and the norm.
    assert first.params[0] == [4 * 24 * n + n + 2 * n + 24 + 48 for n in (24, 16, 8)] + [0]

    def refuse(subjects, *_, **__):
        raise AssertionError(f"measured again: {list(subjects)}")

    monkeypatch.setattr(clock, "compare", refuse)
    (again,) = run([7])
    assert again.whole == pytest.approx(first.whole, rel=1e-4)  # as the file has it
    assert again.seconds[1] == pytest.approx(first.seconds[1], rel=1e-4)
    with pytest.raises(AssertionError, match="measured again"):
        run([10])


def test_children_are_timed_beside_their_parent(tmp_path):
    model = load_trained(make_parent(tmp_path), "model").model
    slim_blocks(model.vit)
    seconds, found = time_children(
        model, {"same": (model, 16), "fewer": (model, 7)}, clock_for("cpu"), SETTINGS
    )
    assert seconds > 0 and found["same"].speedup == pytest.approx(1, rel=0.5)
    assert found["fewer"].latency > 0
