"""From variants to a problem: losses, costs, and what is odd about the scores."""

from __future__ import annotations

import math

import nvlabs_like
import pytest

from adaptive.core import Budget, ChoiceProblem, UserError, Workload
from adaptive.llm_puzzle.nvlabs.options import Option, ladders, names, options, problem
from adaptive.llm_puzzle.nvlabs.read import read_released
from adaptive.llm_puzzle.plan import from_shape
from adaptive.llm_puzzle.score import inversions
from adaptive.llm_puzzle.settings import ShapeConfig

PARENT = nvlabs_like.parent_text()
SECOND = nvlabs_like.text(2, 768, 75)
MODEL = from_shape(nvlabs_like.SHAPE)
WORK = Workload(nvlabs_like.BATCH, nvlabs_like.LENGTH)


@pytest.fixture
def content():
    return nvlabs_like.make()


@pytest.fixture
def read(tmp_path, content):
    """Options of the content as it is when called."""
    return lambda: options(
        read_released(str(nvlabs_like.write(tmp_path / "library", content))), MODEL
    )


@pytest.mark.parametrize("metric", ["kl", "lm_loss"])
def test_losses_and_costs_are_those_of_the_files(read, content, metric):
    priced = problem(read(), metric, WORK)
    assert isinstance(priced, ChoiceProblem) and priced.num_groups == 4
    assert priced.num_options == 16
    for g, layer in enumerate(content["block_library.json"].values()):
        assert priced.options[g][0] == "kv2+ffn1024" and priced.reference[g] == 0
        assert priced.loss[g, 0] == 0
        for k, entry in enumerate(layer.values()):
            stats, metrics = entry["stats"], entry["metrics"]
            loss = metrics["kl_div"] if metric == "kl" else metrics["lm_loss"] - 2.5
            assert priced.loss[g, k] == pytest.approx(loss, abs=1e-12)
            assert priced.cost["latency"][g, k] == pytest.approx(stats["runtime_ms"] / 1000)
            assert priced.cost["memory"][g, k] == pytest.approx(stats["memory_mib"] * 2**20)
            assert priced.cost["params"][g, k] == stats["num_params"]


def test_tokens_a_second_become_their_latency(read):
    """throughput = batch x length / runtime, as in the demonstration of NVlabs/puzzle."""
    priced = problem(read(), "kl", WORK)
    limits = Budget({"throughput": "6000"}).resolve(priced)
    assert limits["latency"].max == pytest.approx(256 * 1200 / 6000)
    assert limits["latency"].max == 51.2  # their notebook: 51200.0 ms


def test_the_parents_pair_comes_first_wherever_it_is_listed(read, content):
    layer = content["block_library.json"]["layer_2"]
    content["block_library.json"]["layer_2"] = {
        name: layer[name] for name in sorted(layer, key=lambda name: name == PARENT)
    }
    assert list(content["block_library.json"]["layer_2"])[-1] == PARENT
    layers = read()
    assert [layer[0].block.label for layer in layers] == ["kv2+ffn1024"] * 4
    assert [len(layer) for layer in layers] == [16] * 4


def test_a_parents_pair_that_is_not_listed_is_added(read, content):
    del content["block_library.json"]["layer_1"][PARENT]
    content["parent_block_stats.json"]["stats"]["runtime_ms"] = 77.0
    layers = read()
    first = layers[1][0]
    assert first.block.label == "kv2+ffn1024" and not first.listed
    assert first.scores == {"kl": 0.0, "lm_loss": 0.0} and first.cost["latency"] == 0.077
    assert layers[0][0].listed and layers[0][0].cost["latency"] != 0.077
    assert len(layers[1]) == 16


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_score_that_is_not_finite_takes_its_option_out(read, content, value):
    content["block_library.json"]["layer_1"][SECOND]["metrics"]["kl_div"] = value
    layers = read()
    assert names(layers, lambda o: not math.isfinite(o.scores["kl"])) == ["layer 1 kv2+ffn768"]
    priced = problem(layers, "kl", WORK)
    assert (~priced.available).sum() == 1 and not priced.available[1, 1]
    assert problem(layers, "lm_loss", WORK).available.all()


def test_without_any_score_of_a_metric_there_is_nothing_to_search(read, content):
    for layer in content["block_library.json"].values():
        for entry in layer.values():
            del entry["metrics"]["lm_loss"]
    layers = read()
    assert problem(layers, "kl", WORK).available.all()
    with pytest.raises(UserError, match=r"score\.metric=lm_loss: no variant.*finite lm_loss"):
        problem(layers, "lm_loss", WORK)


def test_oddities_are_those_that_were_put_in(read, content):
    """A layer whose ladder falls everywhere but between 25 % and 19 %."""
    for layer in content["block_library.json"].values():
        for name, entry in layer.items():
            width = entry["stats"]["ffn_intermediate_size"]
            no_op = entry["stats"]["num_kv_heads"] == 0
            entry["metrics"] = {"kl_div": 1 - width / 1024 + no_op, "lm_loss": 2.6}
            if name == PARENT:
                entry["metrics"] = {"kl_div": 0.0, "lm_loss": 2.5}
    layer = content["block_library.json"]["layer_3"]
    dearer, cheaper = (layer[nvlabs_like.text(2, w, s)] for w, s in ((256, 25), (192, 20)))
    cheaper["metrics"] = {"kl_div": dearer["metrics"]["kl_div"] - 0.125, "lm_loss": 2.4375}
    layers = read()
    assert names(layers, lambda o: o.scores["lm_loss"] < 0) == ["layer 3 kv2+ffn192"]
    [found] = inversions(ladders(layers), "kl")
    assert (found.layer, found.dearer, found.cheaper) == (3, "ffn256", "ffn192")
    assert found.difference == pytest.approx(0.125)


def test_ladders_hold_every_score_in_its_place(read):
    layers = read()
    for layer, scores in zip(layers, ladders(layers), strict=True):
        assert scores.attention == ["kv2", "no_op"]
        assert scores.ffn[0] == "ffn1024" and scores.ffn[-1] == "no_op" and len(scores.ffn) == 8
        for option in layer:
            a = scores.attention.index(option.block.attention.label)
            f = scores.ffn.index(option.block.ffn.label)
            assert scores.values_AF["kl"][a, f] == option.scores["kl"]


def test_options_survive_their_file(read):
    for layer in read():
        for option in layer:
            assert Option.from_json(option.to_json()) == option
    hole = Option(layer[0].block, layer[0].cost, {"kl": math.nan, "lm_loss": 1.0})
    back = Option.from_json(hole.to_json())
    assert hole.to_json()["scores"]["kl"] is None and math.isnan(back.scores["kl"])


OTHERS = {
    "hidden": (
        128,
        "kv2+ffn1024 with 983,552 parameters, layer 0 of this run's parent kv2+ffn1024",
    ),
    "heads": (8, "kv2+ffn1024 with 983,552 parameters"),
    "kv_heads": (4, "parent kv4+ffn1024"),
    "intermediate": (2048, "parent kv2+ffn2048"),
    "layers": (3, "block_library.json has layer_3, but this run's parent has 3 layers"),
}


@pytest.mark.parametrize("field", OTHERS)
def test_a_library_of_another_parent_is_told_by_its_shape(tmp_path, field):
    value, words = OTHERS[field]
    shape = ShapeConfig(**{**vars(nvlabs_like.SHAPE), field: value})
    with pytest.raises(UserError) as caught:
        options(read_released(str(nvlabs_like.write(tmp_path))), from_shape(shape))
    assert "library of another parent" in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("num_kv_heads", 1), ("ffn_intermediate_size", 960)])
def test_a_parent_of_other_sub_blocks_is_another_parent(read, content, key, value):
    """Even where the number of parameters is the same."""
    content["parent_block_stats.json"]["stats"][key] = value
    with pytest.raises(UserError, match="is a library of another parent"):
        read()


def test_missing_layers_are_named(tmp_path):
    shape = ShapeConfig(**{**vars(nvlabs_like.SHAPE), "layers": 8})
    content = nvlabs_like.make(shape)
    for i in (1, 4, 5, 6):
        del content["block_library.json"][f"layer_{i}"]
    content["block_library.json"]["layer_7"] = {}
    words = "lacks layer_1, layer_4 to layer_7 of the parent's 8 layers"
    with pytest.raises(UserError, match=words):
        options(read_released(str(nvlabs_like.write(tmp_path, content))), from_shape(shape))
