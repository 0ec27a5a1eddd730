"""The check of additivity: pairs of layers, and both halves of its ratio."""

from __future__ import annotations

from adaptive.llm_puzzle.additivity import interactions, random_pairs
from adaptive.llm_puzzle.blocks import NO_ATTENTION, AttentionOption, BlockOption, FFNOption

OWN = [BlockOption(AttentionOption("gqa", 4), FFNOption("mlp", 48))] * 5
CHILD = [
    BlockOption(NO_ATTENTION, OWN[0].ffn),
    OWN[1],
    BlockOption(OWN[2].attention, FFNOption("mlp", 8)),
    BlockOption(NO_ATTENTION, FFNOption("mlp", 8)),
    OWN[4],
]


def test_pairs_are_of_replaced_layers_and_distinct():
    assert random_pairs(OWN, CHILD, 99, 0) == [(0, 2), (0, 3), (2, 3)]
    assert random_pairs(OWN, CHILD, 0, 0) == [] and random_pairs(OWN, OWN, 9, 0) == []
    drawn = {tuple(random_pairs(OWN, CHILD, 2, seed)) for seed in range(20)}
    assert len(drawn) == 3 and all(len(set(pairs)) == 2 for pairs in drawn)
    assert random_pairs(OWN, CHILD, 2, 5) == random_pairs(OWN, CHILD, 2, 5)


def test_pairs_are_compared_with_the_sum_of_their_layers():
    """Made-up costs: 1, 2 and 4 by themselves, and 10 more wherever layers 0 and 3 meet."""
    asked = []

    def measure(blocks):
        replaced = [i for i, (a, b) in enumerate(zip(OWN, blocks, strict=True)) if a != b]
        assert all(blocks[i] == CHILD[i] for i in replaced)
        asked.append(replaced)
        return sum({0: 1, 2: 2, 3: 4}[i] for i in replaced) + 10 * ({0, 3} <= set(replaced))

    found = interactions(OWN, CHILD, [(0, 2), (0, 3), (2, 3)], measure)
    assert found == [
        {"layers": [0, 2], "predicted": 3, "measured": 3},
        {"layers": [0, 3], "predicted": 5, "measured": 15},
        {"layers": [2, 3], "predicted": 6, "measured": 6},
    ]
    assert len(asked) == 6  # each layer by itself is measured once
    assert interactions(OWN, CHILD, [], measure) == []
