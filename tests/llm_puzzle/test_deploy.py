"""Prices from tables that come with the package, and the factor that the whole has on its parts."""

from __future__ import annotations

import csv
import re
from dataclasses import replace

import pytest

import adaptive
from adaptive.core import UserError, Workload
from adaptive.core.cost import (
    MODELS,
    MeasuredTable,
    NoOp,
    Origin,
    Roofline,
    Row,
    RowKey,
    shipped_devices,
    shipped_table,
)
from adaptive.core.cost.models import decoder_shape
from adaptive.core.cost.table import Phase
from adaptive.core.hardware import DEVICES
from adaptive.core.run import Result
from adaptive.llm_puzzle import deploy
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.deploy import latency_of_another_device
from adaptive.llm_puzzle.latency import model_key
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.plan import from_shape
from adaptive.llm_puzzle.prices import Pricing
from adaptive.llm_puzzle.settings import CostConfig, SpaceConfig
from adaptive.llm_puzzle.shapes import shape, stack
from adaptive.llm_puzzle.space import search_space

SHIPPED = [
    "shape.layers=32",
    "shape.hidden=4096",
    "shape.heads=32",
    "shape.intermediate=14336",
    "workload.batch=16",
    "workload.prompt=512",
    "workload.output=512",
    "cost.model=shipped",
    "dtype=bfloat16",
]
WORK = Workload(16, 512, 512)


def configuration(*overrides: str) -> PuzzleConfig:
    config = adaptive.load("puzzle_70b", *SHIPPED, *overrides).config
    assert isinstance(config, PuzzleConfig)
    return config


def parent_of(config: PuzzleConfig) -> PuzzleModelConfig:
    assert config.shape is not None
    return from_shape(config.shape)


# --- plans of an 8B model ---


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> Result:
    return adaptive.load("puzzle_70b", *SHIPPED).run(tmp_path_factory.mktemp("plan") / "run")


def test_the_parent_takes_the_sum_of_the_measured_blocks(planned):
    llama, table = decoder_shape("llama-3-8b").stack(), shipped_table("h100-sxm")
    assert planned.summary["parent.params"] == llama.params()
    expected = sum(table.latency(part, WORK, "bf16").seconds for part in llama.parts())
    assert planned.summary["latency.parent.predicted"] == pytest.approx(expected)
    assert planned.summary["throughput.parent.predicted"] == pytest.approx(16 * 1024 / expected)


def test_it_is_a_prediction_and_no_bound(planned):
    assert not [key for key in planned.summary if key.endswith(".bound")]
    page = planned.report.read_text(encoding="utf-8")
    assert "sum of measured blocks" in page and "lower bound" not in page
    bound = Roofline(DEVICES["h100-sxm"])
    stack_ = MODELS["llama-3-8b"].stack()
    least = sum(bound.cost(part, WORK, "bf16")["latency"] for part in stack_.parts())
    assert least < planned.summary["latency.parent.predicted"] < 3 * least


def test_every_option_has_the_price_of_its_halves(planned):
    config = configuration()
    model, table = parent_of(config), shipped_table("h100-sxm")
    [path] = planned.dir.rglob("plan.csv")
    with path.open() as file:
        found = {row["option"]: float(row["latency"]) for row in csv.DictReader(file)}
    layer = search_space(config.space, [BlockOption.from_config(model.blocks[0])])[0]
    assert len(found) == len(layer.blocks) == 54
    for block in layer.blocks:
        halves = (shape(model, half) for half in (block.attention, block.ffn))
        seconds = sum(table.cost(half, WORK, "bf16")["latency"] for half in halves)
        assert found[block.label] == pytest.approx(seconds), block.label
    assert found["no_op+no_op"] == 0
    dearest, *others = found.values()
    assert all(0 <= other <= dearest for other in others)


def test_the_smallest_child_is_embedding_and_head(planned):
    table, whole = shipped_table("h100-sxm"), MODELS["llama-3-8b"].stack().blocks
    ends = sum(table.cost(part, WORK, "bf16")["latency"] for part in (whole[0], whole[-1]))
    assert planned.summary["smallest.latency.predicted"] == pytest.approx(ends)


# --- refusals ---


@pytest.mark.parametrize("hardware", ["l4", "a100-80gb"])
def test_a_device_without_a_table_is_refused_with_those_that_have_one(tmp_path, hardware):
    assert hardware not in shipped_devices()
    with pytest.raises(UserError) as refusal:
        adaptive.load("puzzle_70b", *SHIPPED, f"cost.hardware={hardware}").run(tmp_path / "run")
    sentence = str(refusal.value)
    assert f"no measured table of {hardware!r} comes with adaptive" in sentence
    assert ", ".join(shipped_devices()) in sentence
    assert not list(tmp_path.rglob("plan.csv"))


def test_a_device_that_nobody_knows_is_refused(tmp_path):
    with pytest.raises(UserError, match="unknown device 'h1000'.*h100-sxm"):
        adaptive.load("puzzle_70b", *SHIPPED, "cost.hardware=h1000").run(tmp_path / "run")


OUTSIDE = {
    "shape.hidden=8192": r"h=8192,heads=32.* measured are no sizes of it",
    "shape.intermediate=28672": r"ffn\(h=4096,i=28672\).*intermediate [\d, ]*14336; batch 1, 2, 3",
    "workload.batch=512": r"at batch 512, length 512: measured are batch 1, 2, 3, 4, 6, 8",
    "workload.output=40000": r"decode at batch 16, length \d+: .*length 127, .*, 32767",
    "workload.prompt=16": r"prefill at batch 16, length 16: .*length 128, ",
    "dtype=float32": r"no graph fp32 time of .*measured are no sizes of it",
}


@pytest.mark.parametrize("override", OUTSIDE)
def test_what_the_table_does_not_hold_is_refused_with_what_it_holds(tmp_path, override):
    with pytest.raises(UserError) as refusal:
        adaptive.load("puzzle_70b", *SHIPPED, override).run(tmp_path / "run")
    assert re.search(OUTSIDE[override], str(refusal.value)), str(refusal.value)


def test_a_run_is_refused_before_it_measures(parent_dir, tmp_path):
    """The tiny parent's blocks are in no shipped table."""
    settings = ("cost.model=shipped", "cost.hardware=h100-sxm", f"parent={parent_dir}")
    recipe = adaptive.load("puzzle_tiny", *settings)
    run = type("Run", (), {})()
    run.config = recipe.config
    run.parent_config = parent_of(configuration())
    run.space = search_space(
        SpaceConfig(kv_heads=[4], ffn_fractions=[0.5]),
        [BlockOption.from_config(entry) for entry in run.parent_config.blocks],
    )
    run.workloads = {16: WORK}
    context = type("Context", (), {"device": "cpu", "dir": tmp_path})()
    with pytest.raises(UserError, match="no graph fp32 time"):
        deploy.price(run, context)
    assert not list(tmp_path.iterdir())


# --- where latencies of other devices come from ---


def test_the_source_is_the_one_asked_for():
    shipped = latency_of_another_device(CostConfig("shipped", hardware="h100-sxm"), "cpu")
    assert isinstance(shipped, MeasuredTable) and shipped.mode == "graph" and not shipped.is_bound
    assert len(shipped) == len(shipped_table("h100-sxm"))
    bound = latency_of_another_device(CostConfig("roofline", hardware="h100-sxm"), "cpu")
    assert isinstance(bound, Roofline) and bound.is_bound
    eager = CostConfig("shipped", mode="eager", hardware="h100-sxm")
    assert latency_of_another_device(eager, "cpu").mode == "eager"  # type: ignore[attr-defined]


@pytest.fixture
def pretended_h100(monkeypatch) -> Origin:
    """A run whose own device is the one that the shipped table was measured on."""
    origin = shipped_table("h100-sxm").origin
    monkeypatch.setattr(deploy, "detect", lambda device: DEVICES["h100-sxm"])
    monkeypatch.setattr(Origin, "here", lambda device: origin)
    return origin


def test_the_runs_own_device_is_the_default(pretended_h100):
    found = latency_of_another_device(CostConfig("shipped"), "cuda:1")
    assert isinstance(found, MeasuredTable)
    assert len(found) == len(shipped_table("h100-sxm")) and found.context_stride == 128


def test_another_torch_on_this_device_is_refused_unless_forced(pretended_h100, monkeypatch):
    newer = replace(pretended_h100, torch="9.9")
    monkeypatch.setattr(Origin, "here", lambda device: newer)
    with pytest.raises(UserError, match="torch='2.11.0.*here it is '9.9'"):
        latency_of_another_device(CostConfig("shipped"), "cuda")
    forced = latency_of_another_device(CostConfig("shipped", force=True), "cuda")
    named = latency_of_another_device(CostConfig("shipped", hardware="h100-sxm"), "cpu")
    assert isinstance(forced, MeasuredTable) and isinstance(named, MeasuredTable)
    assert len(forced) == len(named)  # a device that is elsewhere has a torch of its own


# --- the whole and its parts ---

MODEL = parent_of(configuration("shape.layers=3"))
BLOCKS = [BlockOption.from_config(entry) for entry in MODEL.blocks]
SPACE = search_space(SpaceConfig(kv_heads=[4], ffn_fractions=[0.5]), BLOCKS)
SMALL = Workload(2, 8, 3)
ORIGIN = Origin("made-up", "2.15.0", 0)


def table(excess: float | None, steps: bool = True) -> MeasuredTable:
    """A second for every block and call, so 8 for embedding, six halves and head.

    Args:
        excess: what the whole takes over that; None: it was not measured.
        steps: whether its decode steps were.
    """
    blocks = {shape(MODEL, half) for b in SPACE[0].blocks for half in (b.attention, b.ffn)}
    blocks |= {stack(MODEL).blocks[0], stack(MODEL).blocks[-1]}
    places: list[tuple[Phase, int, int]] = [("prefill", 2, 8), ("decode", 2, 8), ("decode", 2, 9)]
    rows = [
        Row(RowKey.of(block, *place, "bf16", "eager"), 1.0)
        for block in blocks - {NoOp()}
        for place in places
    ]
    if excess is not None:
        rows += [
            Row(RowKey(model_key(MODEL), *place, "bf16", "eager"), 8 * excess)
            for place in (places if steps else places[:1])
        ]
    return MeasuredTable(ORIGIN, rows)


def pricing(latency) -> Pricing:
    return Pricing(MODEL, SPACE, SMALL, latency, "bf16")


@pytest.mark.parametrize("excess", [0.9, 1.0, 1.25])
def test_the_reference_is_the_measured_parent(excess):
    priced = pricing(table(excess))
    assert priced.scale == pytest.approx(excess)
    assert priced.additivity_error() == pytest.approx(1 / excess - 1)
    calls = 3  # a prefill and two steps
    assert priced.unscored().reference_cost["latency"] == pytest.approx(8 * excess * calls)


@pytest.mark.parametrize("excess", [0.9, 1.25])
def test_the_factor_is_on_every_block_and_on_latency_alone(excess):
    scaled, plain = pricing(table(excess)), pricing(table(None))
    for block in SPACE[0].blocks:
        ours, theirs = scaled.block_cost(block), plain.block_cost(block)
        assert ours.pop("latency") == pytest.approx(excess * theirs.pop("latency"))
        assert ours == theirs
    ours, theirs = scaled.fixed(), plain.fixed()
    assert ours.pop("latency") == pytest.approx(excess * theirs.pop("latency"))
    assert ours == theirs


def test_a_table_without_the_parent_gives_one():
    priced = pricing(table(None))
    assert priced.scale == 1.0 and priced.additivity_error() == 0.0
    assert priced.unscored().reference_cost["latency"] == pytest.approx(8 * 3)


def test_a_parent_that_was_measured_in_part_gives_one():
    assert pricing(table(1.25, steps=False)).scale == 1.0


@pytest.mark.parametrize("latency", ["roofline", "shipped"])
def test_tables_of_elsewhere_and_bounds_have_no_factor(latency):
    model = latency_of_another_device(CostConfig(latency, hardware="h100-sxm"), "cpu")
    priced = Pricing(MODEL, SPACE, WORK, model, "bf16")
    assert priced.scale == 1.0
    parts = stack(MODEL).parts()
    whole = sum(model.cost(part, WORK, "bf16")["latency"] for part in parts)
    assert priced.unscored().reference_cost["latency"] == pytest.approx(whole)
