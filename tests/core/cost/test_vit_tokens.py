from dataclasses import replace

import pytest

from adaptive.core import UserError
from adaptive.core.cost import (
    MODELS,
    MeasuredTable,
    MeasuredTokens,
    Origin,
    Roofline,
    Row,
    RowKey,
    VitShape,
    VitTokens,
    shipped_table,
)
from adaptive.core.hardware import DEVICES
from adaptive.core.solvers.quadtree import Geometry

SHAPES = {name: MODELS[name] for name in ("vit-small", "vit-base", "vit-large")}
GMAC = {  # with the class token
    "vit-small": {49: 1.10, 64: 1.44, 100: 2.27, 121: 2.76, 169: 3.93, 196: 4.60},
    "vit-base": {49: 4.32, 64: 5.64, 100: 8.83, 121: 10.7, 169: 15.1, 196: 17.6},
    "vit-large": {49: 15.3, 64: 19.9, 100: 31.1, 121: 37.7, 169: 52.9, 196: 61.6},
}


def vit(name: str) -> VitShape:
    shape = SHAPES[name]
    assert isinstance(shape, VitShape)
    return shape


@pytest.fixture(scope="module")
def table():
    return shipped_table("h100-sxm")


@pytest.mark.parametrize("name", GMAC)
def test_published_multiply_accumulates(name, table):
    costs = VitTokens(vit(name), table, 1)
    for tokens, gmac in GMAC[name].items():
        assert costs.flops(tokens) / 2e9 == pytest.approx(gmac, rel=0.006)


@pytest.mark.parametrize("name", GMAC)
@pytest.mark.parametrize("batch", [1, 64, 256])
def test_a_latency_buys_the_most_tokens_that_fit(name, batch, table):
    costs, feasible = VitTokens(vit(name), table, batch), Geometry(256, 256).feasible()
    asked = 1.1 * costs.seconds(100)
    tokens = costs.most_tokens(asked, feasible)
    assert tokens >= 100 and costs.seconds(tokens) <= asked
    assert all(costs.seconds(n) > asked for n in feasible if n > tokens)
    later = replace(costs, before=0.05 * asked)
    assert later.seconds(100) == pytest.approx(costs.seconds(100) + 0.05 * asked)
    assert later.most_tokens(asked, feasible) <= tokens
    assert costs.images_per_second(tokens) == pytest.approx(batch / costs.seconds(tokens))


def test_a_whole_model_is_priced_along_straight_lines():
    origin = Origin("here", "2.15.0", 1)
    times = {16: 1.0, 64: 2.0, 256: 6.0}
    rows = [Row(RowKey("model", "prefill", 8, n, "fp32", "eager"), s) for n, s in times.items()]
    costs = MeasuredTokens(MeasuredTable(origin, rows), "model", 8, "fp32")
    assert costs.seconds(40) == pytest.approx(1.5) and costs.images_per_second(64) == 4
    feasible = Geometry(256, 256).feasible()
    assert costs.most_tokens(4.0, feasible) == 160 and costs.most_tokens(1.0, feasible) == 16
    with pytest.raises(
        UserError, match="too little for any number .* batch 8: 16 of them take 1 s"
    ):
        costs.most_tokens(0.9, feasible)


def test_fewer_tokens_are_cheaper_but_not_by_all_of_their_share(table):
    """A GPU that is not full gives less than FLOPs promise."""
    costs = VitTokens(vit("vit-base"), table, 256)
    gained = costs.seconds(196) / costs.seconds(100)
    assert 1.5 < gained < 1.05 * costs.flops(196) / costs.flops(100)


def test_a_bound_says_no_more_than_it_knows():
    costs = VitTokens(vit("vit-small"), Roofline(DEVICES["h100-sxm"]), 64)
    assert costs.latency.is_bound and costs.most_tokens(1.0, [16, 100, 400]) == 400


@pytest.mark.parametrize(
    "seconds, feasible, says",
    [
        (1e-6, [100, 196], "budget.latency=.* is too little .* 100 of them take"),
        (1.0, [4, 7], "beyond|outside|smallest|extrapolate"),
        (1.0, [], "no number of tokens"),
    ],
)
def test_mistakes_get_one_sentence(seconds, feasible, says, table):
    with pytest.raises(UserError, match=says):
        VitTokens(vit("vit-small"), table, 64).most_tokens(seconds, feasible)
