"""How many layers are distilled together."""

from __future__ import annotations

import pytest

from adaptive.llm_puzzle import activations
from adaptive.llm_puzzle.variants import near
from adaptive.llm_puzzle.walk import walk_bytes


@pytest.mark.parametrize("fitting, found", [(12, 12), (11, 6), (6, 6), (5, 4), (1, 1), (0, 12)])
def test_as_many_layers_as_have_room_near_by(parent, rows, monkeypatch, fitting, found):
    """Of 12 layers all, halves, thirds and so on; where nothing has room, all of them."""
    room = walk_bytes(parent.model, rows, fitting) if fitting else 0.0
    monkeypatch.setattr(activations, "free_memory", lambda _: room)
    monkeypatch.setattr(activations, "SHARES", {"device": 1.0, "host": 1.0, "disk": 1.0})
    assert near(parent.model, rows, 12) == found
