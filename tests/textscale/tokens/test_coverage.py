"""What tokens show of words: laws, and cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from text_stand_ins import random_scene
from tiny_text import make_words, rectangle

from adaptive.core.errors import UserError
from adaptive.core.prior import build_prior
from adaptive.core.solvers.quadtree import Geometry, split_order
from adaptive.textscale.tokens.coverage import Needs, coarsest_sides
from adaptive.textscale.tokens.known import KnownWords

TREE = Geometry(512, 640, 16, 64)
GAIN = build_prior("gain")


def ranks(worth_S: np.ndarray, geometry: Geometry = TREE) -> np.ndarray:
    return split_order(torch.from_numpy(worth_S)[None].float(), geometry).rank_BS[0].numpy()


def splits(rank_S: np.ndarray, tokens: int) -> set[int]:
    return set(np.flatnonzero(rank_S < TREE.splits(tokens)).tolist())


def test_large_words_bear_coarse_patches():
    """Of 12 pixels at least, where a patch of 64 shows a quarter of the image's resolution."""
    height_N = np.array([5.0, 12, 23.9, 24, 47, 48, 300])
    found = coarsest_sides(height_N, TREE, 12.0).tolist()
    assert found == [16, 16, 16, 32, 32, 64, 64]


@pytest.mark.parametrize(
    ("box", "tokens"),
    [
        ((32, 32, 60, 50), 80),  # large: the coarsest grid will do
        ((32, 32, 40, 30), 83),  # one split gives patches of 32
        ((8, 8, 12, 10), 86),  # another one patches of 16
        ((32, 16, 30, 10), 89),  # across the middle of a root: two of 32 must split
        ((64, 16, 30, 10), 92),  # across two roots
    ],
)
def test_a_word_needs_the_splits_around_it(box, tokens):
    needs = Needs.of(make_words(rectangle(*box)), TREE, 12.0)
    assert needs.tokens_N(ranks(needs.worth_S()), whole=1.0).tolist() == [tokens]
    assert np.bincount(needs.word_K, needs.share_K) == pytest.approx(1)


def test_the_larger_part_of_a_word_may_be_enough():
    """Nine tenths of it lie in the left root, which is split first."""
    needs = Needs.of(make_words(rectangle(49, 8, 40, 8)), TREE, 12.0)  # 29 to 69, roots meet at 64
    left, right = (0, 1)
    rank_S = np.full(TREE.splittable, 10**6)
    inside = TREE.boxes[: TREE.splittable]
    rank_S[left], rank_S[right] = 0, 5
    rank_S[(inside[:, 2] == 32) & (inside[:, 0] == 0) & (inside[:, 1] < 64)] = [1, 2]
    rank_S[(inside[:, 2] == 32) & (inside[:, 0] == 0) & (inside[:, 1] == 64)] = 6
    assert needs.tokens_N(rank_S, whole=0.87).tolist() == [80 + 3 * 3]
    assert needs.tokens_N(rank_S, whole=0.9).tolist() == [80 + 3 * 7]


def test_words_that_do_not_count():
    """Not cared about, outside of the image, or without an area."""
    quads = [rectangle(50, 50, 40, 10), rectangle(900, 50, 40, 10), np.zeros((4, 2)), None]
    quads[3] = rectangle(100, 100, 40, 10)
    needs = Needs.of(make_words(*quads, care=[False, True, True, True]), TREE, 12.0)
    assert needs.care_N.tolist() == [False, False, False, True]
    found = needs.tokens_N(ranks(needs.worth_S()), whole=1.0)
    assert found[:3].tolist() == [-1, -1, -1] and found[3] > TREE.roots
    none = Needs.of(make_words(), TREE, 12.0)
    assert none.tokens_N(ranks(none.worth_S()), 1.0).shape == (0,) and not none.worth_S().any()


@given(seed=st.integers(0, 10**6), legible=st.sampled_from([6.0, 12.0, 30.0]))
@settings(max_examples=15)
def test_no_quadtree_covers_all_words_with_fewer_tokens_than_the_oracle(seed, legible):
    """The oracle splits what words need and nothing else first."""
    _, words = random_scene(seed, width=640, height=512)
    needs = Needs.of(words, TREE, legible)
    worth_S = needs.worth_S()
    wanted = set(np.flatnonzero(worth_S).tolist())
    rank_S = ranks(worth_S)
    tokens_N = needs.tokens_N(rank_S, whole=1.0)
    assert tokens_N.max() == TREE.roots + 3 * len(wanted)
    assert splits(rank_S, int(tokens_N.max())) == wanted
    noise_S = np.random.default_rng(seed).random(TREE.splittable)
    assert needs.tokens_N(ranks(noise_S), whole=1.0).max() >= tokens_N.max()


@given(seed=st.integers(0, 10**6), whole=st.floats(0.1, 1.0))
@settings(max_examples=5)
def test_more_tokens_never_cover_fewer_and_all_cover_all(seed, whole):
    """Checked against leaves: a word is covered from its number of tokens on, and not before."""
    _, words = random_scene(seed, width=640, height=512)
    needs = Needs.of(words, TREE, 12.0)
    noise_S = np.random.default_rng(seed).random(TREE.splittable)
    order = split_order(torch.from_numpy(noise_S)[None].float(), TREE)
    tokens_N = needs.tokens_N(order.rank_BS[0].numpy(), whole)
    assert (tokens_N <= TREE.cells).all()
    side_N = coarsest_sides(needs.height_N, TREE, 12.0)
    grid_RC = np.zeros(TREE.grid, int)
    for tokens in (80, 200, 500, 1280):
        for top, left, side in TREE.boxes[order.leaves(tokens).node_BN[0].numpy()]:
            grid_RC[top // 16 : (top + side) // 16, left // 16 : (left + side) // 16] = side
        for word, quad_42 in enumerate(words.quad_N42):
            (x0, y0), (x1, y1) = quad_42[0], quad_42[2]
            shown = sum(
                max(0, min(x1, 16 * c + 16) - max(x0, 16 * c))
                * max(0, min(y1, 16 * r + 16) - max(y0, 16 * r))
                for r, c in np.argwhere(grid_RC <= side_N[word])
            )
            share = shown / ((x1 - x0) * (y1 - y0))
            if abs(share - whole) > 1e-4:  # else rounding decides
                assert (tokens_N[word] <= tokens) == (share > whole)


def test_a_prior_that_knows_the_words_needs_them():
    prior, image_BCHW = KnownWords(legible=12.0), torch.rand(1, 3, 512, 640)
    with pytest.raises(UserError, match="needs one image and prior.words"):
        prior(image_BCHW, TREE)
    prior.words = make_words(rectangle(8, 8, 12, 10))
    score_BS = prior(image_BCHW, TREE)
    assert (score_BS > 0.1).nonzero()[:, 1].tolist() == [0, 80]
    assert score_BS.max() == pytest.approx(0.5, abs=1e-5)
    rest_BS, gain_BS = (x[:, score_BS[0] < 0.1] for x in (score_BS, GAIN(image_BCHW, TREE)))
    assert (rest_BS.topk(50).indices == gain_BS.topk(50).indices).all()


def test_chance_needs_more_than_the_oracle_and_gain_less_than_chance():
    """On bars of colour: all detail is text, so that gain finds it."""
    image_HW3, words = random_scene(3, width=640, height=512)
    image_BCHW = torch.from_numpy(image_HW3).permute(2, 0, 1)[None].float() / 255
    needs, prior = Needs.of(words, TREE, 12.0), KnownWords(legible=12.0)
    prior.words = words
    mean = {}
    for name, each in (("oracle", prior), *((n, build_prior(n)) for n in ("gain", "random"))):
        rank_S = split_order(each(image_BCHW, TREE), TREE).rank_BS[0].numpy()
        mean[name] = needs.tokens_N(rank_S, whole=0.9).mean()
    assert mean["oracle"] < mean["gain"] < mean["random"]
