"""Measured latencies: what is measured, what is reused, and that the parts add up."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from adaptive.core import Workload
from adaptive.core.cost import Attention, MeasuredTable, Origin, Row, RowKey
from adaptive.llm_puzzle.blocks import AttentionOption, BlockOption, FFNOption
from adaptive.llm_puzzle.latency import (
    make_clock,
    measure_model,
    measured_latency,
    mode_of,
    model_key,
    open_table,
    phases,
    profile_space,
)
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.prices import Pricing
from adaptive.llm_puzzle.realise import child_config
from adaptive.llm_puzzle.runtime import engine_of
from adaptive.llm_puzzle.settings import CostConfig, SpaceConfig
from adaptive.llm_puzzle.space import search_space
from adaptive.llm_puzzle.verify import measure_memory, measure_pair

WORK = Workload(2, 16, 4)
SPACE = SpaceConfig(kv_heads=[1], ffn_fractions=[0.5])


@pytest.fixture(scope="module")
def clock():
    return make_clock(CostConfig(), "cpu")


@pytest.fixture
def config(tmp_path) -> CostConfig:
    return CostConfig(table=str(tmp_path / "table.csv"), seconds=1.0)


@pytest.fixture
def space(parent):
    return search_space(SPACE, parent.blocks)


class Counting:
    """A clock that measures nothing and remembers what it was asked."""

    def __init__(self, clock):
        self.clock, self.asked = clock, 0
        self.mode, self.origin, self.device = clock.mode, clock.origin, clock.device
        self.group_size, self.free_memory = clock.group_size, clock.free_memory

    def compare(self, subjects, calls=None, **stop):
        self.asked += len(subjects)
        stop |= {"max_seconds": 0.0, "min_rounds": 1}
        return self.clock.compare(subjects, calls, **stop)


def test_phases_of_a_workload():
    assert phases(Workload(1, 16, 0)) == [("prefill", 16)]
    # The first token comes from the prefill, so four need three steps, on 16 to 18 cached tokens.
    assert phases(Workload(1, 16, 4)) == [("prefill", 16), ("decode", 16), ("decode", 18)]
    assert phases(Workload(1, 16, 2)) == [("prefill", 16), ("decode", 16)]
    assert phases(Workload(1, 16, 1)) == [("prefill", 16)]
    # Graphs for every 128 tokens attend to all of their slots.
    assert phases(Workload(1, 100, 100), 128)[1:] == [("decode", 127), ("decode", 255)]
    assert phases(Workload(1, 127, 2), 128)[1:] == [("decode", 127)]


def test_phases_where_a_sliding_window_fills_up():
    """The mean of the two ends is the mean of all steps only where time is linear in between."""
    block = Attention(64, 8, 4, 8, window=200)
    work = Workload(1, 150, 101)
    points = phases(work, kinks=block.kinks())
    assert points == [("prefill", 150), ("decode", 150), ("decode", 199), ("decode", 249)]

    def seconds(context: int) -> float:
        return 1e-6 + 1e-9 * block.decode_bytes(1, context, "bf16")

    rows = [Row(RowKey("whole", p, 1, n, "bf16", "eager"), seconds(n)) for p, n in points]
    table = MeasuredTable(Origin("any", "2.15.0", 0), rows)
    steps = sum(seconds(context) for context in range(150, 250))
    assert table.latency("whole", work, "bf16").seconds == pytest.approx(seconds(150) + steps)
    # Outside of the generation nothing bends; the window's graph has up to a stride more slots.
    assert phases(Workload(1, 300, 10), kinks=block.kinks()) == phases(Workload(1, 300, 10))
    strided = phases(Workload(1, 100, 1000), 128, block.kinks())
    assert strided[1:] == [("decode", 127), ("decode", 383), ("decode", 1151)]


def test_auto_mode_follows_the_device():
    assert mode_of(CostConfig(), "cpu") == "eager"
    assert mode_of(CostConfig(), "cuda:1") == "graph"
    assert mode_of(CostConfig(mode="eager"), "cuda") == "eager"


def test_every_distinct_part_is_measured_once_and_then_reused(parent, space, clock, config):
    counting = Counting(clock)
    table = open_table(config, counting)
    profile_space(parent.model.config, space, [WORK], "fp32", table, counting, config)
    # kv4, kv1 and the parent at three points each; ffn48, ffn24, linear (of one shape in both
    # halves) and embedding, whose decode steps are alike, at two; the head, which reads one
    # position a sequence in a prefill as well, at one. Layers share their rows.
    assert counting.asked == len(table) == 3 * 3 + 4 * 2 + 1
    profile_space(parent.model.config, space, [WORK], "fp32", table, counting, config)
    assert counting.asked == 18
    again = open_table(config, counting)  # from the disk
    assert {row.key for row in again} == {row.key for row in table}
    wider = search_space(SpaceConfig(kv_heads=[2, 1], ffn_fractions=[0.5]), parent.blocks)
    profile_space(parent.model.config, wider, [WORK], "fp32", again, counting, config)
    assert counting.asked == 18 + 3


def test_every_option_of_every_batch_size_can_be_priced(parent, space, clock, config):
    counting = Counting(clock)
    works = [WORK, dataclasses.replace(WORK, batch=1)]
    table = open_table(config, counting)
    profile_space(parent.model.config, space, works, "fp32", table, counting, config)
    for work in works:
        pricing = Pricing(parent.model.config, space, work, table, "fp32")
        for layer in space:
            for block in layer.blocks:
                cost = pricing.block_cost(block)
                empty = block.attention.kind == block.ffn.kind == "no_op"
                assert cost["latency"] == 0 if empty else cost["latency"] > 0


def test_the_parents_price_is_what_the_whole_takes(parent, space, clock, config):
    """Whatever the parts miss is a fixed cost, so the reference is the measured parent."""
    counting = Counting(clock)
    table = open_table(config, counting)
    profile_space(parent.model.config, space, [WORK], "fp32", table, counting, config)
    pricing = Pricing(parent.model.config, space, WORK, table, "fp32")
    scores = [
        type(
            "Scores",
            (),
            {
                "attention": [o.label for o in layer.attention],
                "ffn": [o.label for o in layer.ffn],
                "values_AF": {"kl": torch.zeros(len(layer.attention), len(layer.ffn)).numpy()},
            },
        )
        for layer in space
    ]
    problem = pricing.problem(scores, "kl")
    whole = measured_latency(table, model_key(parent.model.config), WORK, "fp32")
    reference = problem.reference_cost
    assert reference["latency"] == pytest.approx(whole)
    assert reference["params"] == sum(w.numel() for w in parent.model.parameters())
    assert reference["memory"] == pytest.approx(measure_memory(engine_of(parent.model), WORK))


def test_the_parts_add_up_to_the_whole(clock, parent):
    """Loosely, on a busy machine: a model a hundred times larger is within percents."""
    blocks = [parent.blocks[0].to_config()] * 6
    values = parent.model.config.to_dict() | {"blocks": blocks, "max_position_embeddings": 256}
    config = type(parent.model.config)(**values)
    space = search_space(SpaceConfig(layers=[]), [BlockOption.from_config(b) for b in blocks])
    table = MeasuredTable(clock.origin, mode=clock.mode)
    work = Workload(4, 128)
    profile_space(config, space, [work], "fp32", table, clock, CostConfig(seconds=3.0))
    error = Pricing(config, space, work, table, "fp32").additivity_error()
    assert -0.4 < error < 0.4


def test_a_models_key_ignores_weights_and_knows_shapes(parent):
    config = parent.model.config
    assert model_key(PuzzleForCausalLM(config).config) == model_key(config)
    blocks = list(parent.blocks)
    same = child_config(config, blocks)
    assert model_key(same) == model_key(config)
    blocks[1] = BlockOption(AttentionOption("gqa", 4), FFNOption("mlp", 24))
    moved = [blocks[1], blocks[0], blocks[2]]
    keys = {model_key(child_config(config, b)) for b in (blocks, moved, parent.blocks)}
    assert len(keys) == 3
    for name, value in {"vocab_size": 99, "qk_norm": True, "tie_word_embeddings": True}.items():
        assert model_key(type(config)(**{**config.to_dict(), name: value})) not in keys


def test_a_childs_row_is_its_parents_times_the_measured_ratio(parent, space, clock, config):
    counting = Counting(clock)
    table = open_table(config, counting)
    profile_space(parent.model.config, space, [WORK], "fp32", table, counting, config)
    key = model_key(parent.model.config)
    for row in list(table):  # a parent that took ten times as long when it was measured
        if row.key.block == key:
            table.add(Row(row.key, 10 * row.seconds))
    whole = measured_latency(table, key, WORK, "fp32")
    before = counting.asked
    other = child_config(parent.model.config, parent.blocks[:1] * 3)
    other.vocab_size += 1  # as good as the parent, under another name
    measure_model(parent.model.config, other, WORK, "fp32", table, counting, 1.0)
    assert counting.asked == before + 3 * 2
    child = measured_latency(table, model_key(other), WORK, "fp32")
    assert 0.2 * whole < child < 5 * whole  # ten times as long as it took
    measure_model(parent.model.config, other, WORK, "fp32", table, counting, 1.0)
    assert counting.asked == before + 3 * 2
    assert model_key(other) in {row.key.block for row in open_table(config, counting)}


def test_a_child_without_layers_is_measured_to_be_faster(parent, clock):
    empty = BlockOption(AttentionOption("no_op"), FFNOption("no_op"))
    config = parent.model.config
    child = child_config(config, [empty] * 3)
    measured = measure_pair(config, child, WORK, "fp32", clock, seconds=0.6)
    assert measured.speedup > 1.5
    assert measured.speedup == pytest.approx(measured.parent / measured.child)


def test_memory_is_weights_and_filled_caches(make_child):
    model = make_child("mixed heads", tie_word_embeddings=True)
    weights = 4 * sum(w.numel() for w in model.parameters())  # the tied one once
    cached = 4 * 2 * (4 + 1 + 2 + 4) * 8 * 2 * 20
    assert measure_memory(engine_of(model), WORK) == weights + cached
    bare = make_child("no attention")
    assert measure_memory(engine_of(bare), WORK) == 4 * sum(w.numel() for w in bare.parameters())
