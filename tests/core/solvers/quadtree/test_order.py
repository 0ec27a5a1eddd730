import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadtrees import best_gain, heap_leaves, heap_order

from adaptive.core import UserError
from adaptive.core.solvers.quadtree import Geometry, batch_leaves, counting, path_min, split_order

GEOMETRIES = [
    Geometry(64, 64, 32, 32),
    Geometry(64, 128, 32, 64),
    Geometry(256, 192),
    Geometry(128, 64, 8, 64),
    Geometry(128, 128, 8, 128),
]
NAMES = [f"{len(g.sides)} levels" for g in GEOMETRIES]


@pytest.fixture(params=["sorted", "counted"])
def way(request, monkeypatch):
    """As CPUs find places, and as GPUs do."""
    if request.param == "counted":
        monkeypatch.setattr(counting, "launches_cost", lambda _: True)
        monkeypatch.setattr(counting, "LARGEST", 2000)


def scores(kind: str, geometry: Geometry, images: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    size = (images, geometry.splittable)
    made = {
        "distinct": rng.normal(size=size),
        "a few values": rng.integers(0, 4, size),
        "all equal": np.zeros(size),
        "halves and zeros": np.where(rng.random(size) < 0.5, 0.0, rng.random(size)),
        "signed zeros": np.where(rng.random(size) < 0.5, -0.0, 0.0),
        "infinite": np.where(rng.random(size) < 0.2, np.inf, rng.random(size)),
    }
    return made[kind].astype(np.float32)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=NAMES)
@pytest.mark.parametrize(
    "kind",
    ["distinct", "a few values", "all equal", "halves and zeros", "signed zeros", "infinite"],
)
def test_sorts_do_what_the_heap_does(geometry, kind, way):
    score_BS = scores(kind, geometry, 20)
    rank_BS = split_order(torch.from_numpy(score_BS), geometry).rank_BS
    for score_S, rank_S in zip(score_BS, rank_BS, strict=True):
        assert rank_S.argsort().tolist() == heap_order(score_S, geometry)


@pytest.mark.slow
def test_ten_thousand_random_pyramids():
    for geometry in GEOMETRIES[2:]:
        score_BS = np.concatenate(
            [scores(kind, geometry, 1667, seed=1) for kind in ("distinct", "a few values")]
        )
        order_BS = split_order(torch.from_numpy(score_BS), geometry).rank_BS.argsort(1)
        for score_S, order_S in zip(score_BS, order_BS.tolist(), strict=True):
            assert order_S == heap_order(score_S, geometry)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(GEOMETRIES), st.integers(0, 2**31), st.data())
def test_leaves_tile_and_are_nested(geometry, seed, data):
    score_BS = torch.from_numpy(scores("a few values", geometry, 3, seed))
    order = split_order(score_BS, geometry)
    fewer, more = sorted(data.draw(st.sampled_from(geometry.feasible())) for _ in range(2))
    coarse, fine = order.leaves(fewer), order.leaves(more)
    for leaves, tokens in ((coarse, fewer), (fine, more)):
        cover = torch.zeros(3, *geometry.size)
        for image, boxes in enumerate(leaves.boxes().tolist()):
            assert len(boxes) == tokens
            for top, left, side in boxes:
                cover[image, top : top + side, left : left + side] += 1
        assert (cover == 1).all()
    # Each fine leaf lies in a leaf of the smaller budget that is as large or larger.
    owners = coarse.levels().gather(1, coarse.owners())
    assert (owners <= fine.levels().gather(1, fine.owners())).all()


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=NAMES)
def test_leaves_are_those_of_the_heap(geometry, way):
    score_BS = scores("a few values", geometry, 4)
    order = split_order(torch.from_numpy(score_BS), geometry)
    tokens = geometry.nearest((geometry.roots + geometry.cells) / 3)
    for score_S, node_N in zip(score_BS, order.leaves(tokens).node_BN.tolist(), strict=True):
        steps = heap_order(score_S, geometry)
        assert node_N == heap_leaves(steps, geometry.splits(tokens), geometry)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=NAMES)
def test_best_first_is_optimal_where_gains_shrink(geometry):
    gain_BS = path_min(torch.from_numpy(scores("distinct", geometry, 1)).abs().double(), geometry)
    order_S = split_order(gain_BS, geometry).rank_BS[0].argsort()
    gain_S = gain_BS[0].numpy()
    greedy = np.concatenate([[0.0], gain_S[order_S.numpy()].cumsum()])
    assert greedy == pytest.approx(best_gain(gain_S, geometry))


@pytest.mark.parametrize("geometry", GEOMETRIES[1:], ids=NAMES[1:])
def test_a_price_buys_its_budget_back(geometry):
    score_BS = torch.from_numpy(scores("distinct", geometry, 6))
    order = split_order(score_BS, geometry)
    for tokens in geometry.feasible()[:: max(1, geometry.splittable // 5)]:
        price_B = order.price(tokens)
        for image in range(6):
            alone = split_order(score_BS[image : image + 1], geometry)
            if tokens < geometry.cells:  # nodes that wait for one bottleneck come at one price
                assert alone.above(float(3 * price_B[image]) + 1e-5).num_tokens <= tokens
                assert alone.above(float(3 * price_B[image]) - 1e-5).num_tokens > tokens
    assert (order.price(geometry.cells) == 0).all()


def test_path_minimum_is_that_of_the_way_from_the_root():
    geometry = GEOMETRIES[3]
    score_BS = scores("distinct", geometry, 2)
    least_BS = path_min(torch.from_numpy(score_BS), geometry).numpy()
    for node in range(geometry.splittable):
        way, at = [], node
        while at >= 0:
            way.append(at)
            at = geometry.parents[at]
        assert (least_BS[:, node] == score_BS[:, way].min(1)).all()


@pytest.mark.parametrize("floor", [None, 25])
@pytest.mark.parametrize("kind", ["distinct", "a few values"])
def test_a_batch_shares_its_budget_as_one_heap_would(kind, floor, way):
    geometry, images, total = Geometry(128, 128, 16, 64), 5, 5 * 4 + 3 * 40
    score_BS = scores(kind, geometry, images)
    score_BS *= np.arange(1, images + 1, dtype=np.float32)[:, None]  # busier and busier
    leaves = batch_leaves(torch.from_numpy(score_BS), geometry, total, floor)
    reserved = geometry.splits(floor or geometry.roots)
    orders = [heap_order(score_S, geometry) for score_S in score_BS]
    taken = [order[:reserved] for order in orders]
    for _ in range((total - images * geometry.roots) // 3 - images * reserved):
        # The next node of each image's own order; equal scores go to the first image.
        next_B = [
            score_BS[b, orders[b][len(taken[b])]] if len(taken[b]) < len(orders[b]) else -np.inf
            for b in range(images)
        ]
        best = int(np.argmax(next_B))
        taken[best].append(orders[best][len(taken[best])])
    assert leaves.lengths_B.tolist() == [geometry.roots + 3 * len(nodes) for nodes in taken]
    found = leaves.node_T.split(leaves.lengths_B.tolist())
    for b in range(images):
        assert found[b].tolist() == heap_leaves(orders[b], len(taken[b]), geometry)
    assert leaves.num_tokens == total and (leaves.lengths_B >= (floor or 0)).all()


def test_ragged_leaves_can_be_padded():
    geometry = GEOMETRIES[2]
    leaves = split_order(torch.from_numpy(scores("distinct", geometry, 4)), geometry).above(0.3)
    longest = int(leaves.lengths_B.max())
    node_BM, real_BM = leaves.padded(longest)
    assert (node_BM[real_BM] == leaves.node_T).all()
    assert leaves.offsets().tolist() == [0, *leaves.lengths_B.cumsum(0).tolist()]
    owners_BC = leaves.owners()
    assert (leaves.image_T[owners_BC] == torch.arange(4)[:, None]).all()
    assert len(leaves.boxes()) == len(leaves.levels()) == leaves.num_tokens


def test_many_entries_need_several_sorts(monkeypatch, way):
    """Where ranks of all bottlenecks do not fit into one integer, the order is the same."""
    from adaptive.core.solvers.quadtree import order

    geometry = GEOMETRIES[4]
    score_BS = torch.from_numpy(scores("a few values", geometry, 5))
    whole = split_order(score_BS, geometry).rank_BS
    monkeypatch.setattr(order, "BITS", 20)
    assert (split_order(score_BS, geometry).rank_BS == whole).all()


def test_one_graph_for_all(way):
    geometry = Geometry(256, 256)

    def select(score_BS):
        return split_order(score_BS, geometry).leaves(100).node_BN

    score_BS = torch.from_numpy(scores("distinct", geometry, 3))
    compiled = torch.compile(select, fullgraph=True, backend="eager")
    assert (compiled(score_BS) == select(score_BS)).all()


class Select(torch.nn.Module):
    """Selection alone, as a module that can be exported."""

    def forward(self, score_BS: torch.Tensor) -> torch.Tensor:
        return split_order(score_BS, Geometry(256, 256)).leaves(100).node_BN


def test_exports_with_any_batch():
    score_BS = torch.from_numpy(scores("a few values", Geometry(256, 256), 7))
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(Select(), (score_BS[:3],), dynamic_shapes=({0: batch},))
    assert (program.module()(score_BS) == Select()(score_BS)).all()


@pytest.mark.parametrize(
    "act, says",
    [
        (lambda g, s: split_order(s[:, 1:], g), r"\(2, 9\) do not fit: 10 nodes"),
        (lambda g, s: split_order(s / 0 * 0, g), "scores hold NaN"),
        (lambda g, s: split_order(s, g).leaves(9), "num_tokens=9 .* choose 8 or 11"),
        (lambda g, s: batch_leaves(s, g, 17), "total_tokens=17 .* choose 16 or 19"),
        (lambda g, s: batch_leaves(s, g, 1000), "choose 4 to 64, or another floor"),
        (lambda g, s: batch_leaves(s, g, 7, 5), "choose 10 to 64, or another floor"),
    ],
)
def test_mistakes_get_one_sentence(act, says):
    geometry = Geometry(64, 128)
    with pytest.raises(UserError, match=says):
        act(geometry, torch.ones(2, geometry.splittable))
