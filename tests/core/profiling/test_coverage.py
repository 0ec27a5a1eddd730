"""What is measured covers what is asked later: no child, size or workload is without a price."""

from __future__ import annotations

import random
from collections.abc import Iterable

import h100_like
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive
from adaptive.core.cost import (
    Attention,
    Conv2d,
    MeasuredTable,
    Origin,
    memory_of,
)
from adaptive.core.cost.models import MODELS, DecoderShape
from adaptive.core.cost.rows import Row, RowKey
from adaptive.core.engine import block_subject
from adaptive.core.engine.verify import Verifier, forward_latency, model_latency
from adaptive.core.errors import UserError
from adaptive.core.hardware import CpuClock
from adaptive.core.hardware.clock import CudaClock
from adaptive.core.profiling import verify_costs
from adaptive.core.profiling.children import random_children
from adaptive.core.profiling.config import (
    ChildrenConfig,
    GridConfig,
    VariantsConfig,
    VerifyCostsConfig,
)
from adaptive.core.profiling.grid import Request, blocks_of, model_shape, requests
from adaptive.core.profiling.verify_costs import decode_points, workload_for
from adaptive.core.workload import Workload

TINY = DecoderShape(64, 8, 8, 100, (4,) * 3, (256,) * 3)


class AnyDevice:
    """Clocks that say what they are and run nothing."""

    origin = Origin("any", "2.15.0", 0)


class Graphs(AnyDevice, CudaClock):
    """Strides of 128."""


class Steps(AnyDevice, CpuClock):
    """Strides of 1."""


CLOCKS = {128: Graphs, 1: Steps}


def table_of(wanted: Iterable[Request], stride: int, fitted: bool = True) -> MeasuredTable:
    """A table of synthetic times at all of the sizes, as the task would have measured them."""
    clock = CLOCKS[stride]()
    rows = {
        key: Row(key, h100_like.seconds(want.block, want.phase, want.batch, want.length))
        for want in wanted
        for key in [RowKey.of(want.block, want.phase, want.batch, want.length, "bf16", clock.mode)]
    }
    table = MeasuredTable(clock.origin, rows.values(), mode=clock.mode, context_stride=stride)
    if not fitted:  # which takes longer than all else and bears on times alone
        table._fit = lambda group: None  # type: ignore[method-assign]
    return table


def asked(config, shape, table, stride, memory, seed=0):
    """(child, decode sizes, workload) as the children stage draws them."""
    verifier = Verifier(table, CLOCKS[stride](), "bf16")
    assert verifier.stride == stride
    ask = config.children
    blocks = blocks_of(shape, config.variants)
    for i, stack in enumerate(random_children(shape, blocks, ask.count, ask.layers, seed)):
        draw = random.Random(f"{seed} {i}")
        points = list(decode_points(config, verifier, stack, memory, draw))
        yield stack, points, workload_for(config, verifier, stack, memory, draw)


@pytest.mark.parametrize("stride", CLOCKS)
@pytest.mark.parametrize("memory", [85e9, 50e9], ids=["80 GiB", "50 GB"])
def test_the_default_recipe_is_never_refused(stride, memory, monkeypatch):
    """All that it asks of Llama-3-8B has a price, with a GPU's memory and without a second draw."""
    config = adaptive.load("verify_costs").config
    assert isinstance(config, VerifyCostsConfig)
    config.children.count = 6
    shape = MODELS[config.model]
    assert isinstance(shape, DecoderShape)
    room = 0.7 * memory

    def fits(want: Request) -> bool:
        nbytes = block_subject(
            want.block, want.phase, want.batch, want.length, "bf16", "cuda", 16e9
        ).nbytes
        return nbytes <= room

    wanted = requests(blocks_of(shape, config.variants), config.workload, vision=False)
    monkeypatch.setattr(verify_costs, "_priced", lambda predict, *where: bool(predict(*where)))
    table = table_of(filter(fits, wanted), stride, fitted=False)
    for stack, points, work in asked(config, shape, table, stride, memory):
        assert [batch for batch, _ in points] == config.children.batches
        for batch, length in points:
            assert (length + 1) % stride == 0
            assert 0 < forward_latency(table, stack, "decode", batch, length, "bf16").seconds < 10
        estimate = model_latency(table, stack, work, "bf16")
        assert estimate.how in ("measured", "interpolated") and 0 < estimate.seconds < 1000
        assert work.batch in config.children.generate_batches
        assert 128 <= work.prompt <= 2048 and 128 <= work.output <= 1024


@pytest.mark.parametrize("stride", CLOCKS)
def test_the_tiny_recipe_is_never_refused(stride, monkeypatch):
    config = adaptive.load("verify_costs_tiny").config
    assert isinstance(config, VerifyCostsConfig)
    config.workload.contexts = [32, 96, 512]  # graphs need more than a stride
    shape = model_shape(config.model)
    assert isinstance(shape, DecoderShape)
    wanted = requests(blocks_of(shape, config.variants), config.workload, vision=False)
    monkeypatch.setattr(verify_costs, "_priced", lambda predict, *where: bool(predict(*where)))
    found = list(asked(config, shape, table_of(wanted, stride, fitted=False), stride, float("inf")))
    assert len(found) == config.children.count


sizes = st.sampled_from([1, 2, 3, 8, 16, 64])
lists = st.lists(sizes, min_size=1, max_size=3)


@st.composite
def configurations(draw):
    """Valid ones, of which some ask for what their grid does not reach."""

    def lengths(least, most):
        return draw(st.lists(st.integers(least, most), min_size=1, max_size=3))

    def ends(most):
        return sorted(draw(st.tuples(st.integers(1, most), st.integers(1, most))))

    grid = GridConfig(draw(lists), lengths(1, 1000), lengths(1, 300), draw(lists))
    grid.prefill_tokens = draw(st.integers(300, 20_000))
    batches = st.integers(min(grid.batches), max(grid.batches))
    ask = ChildrenConfig(
        count=2,
        batches=draw(st.lists(batches, min_size=1, max_size=2)),
        generate_batches=draw(
            st.lists(st.sampled_from(grid.prefill_batches), min_size=1, max_size=2)
        ),
        prompts=ends(400),
        outputs=ends(400),
    )
    variants = VariantsConfig(ffn_fractions=[1.0, 0.5], ffn_multiple=32)
    config = VerifyCostsConfig(variants=variants, workload=grid, children=ask)
    config.validate()
    return config


@given(configurations(), st.sampled_from(list(CLOCKS)), st.integers(0, 9))
@settings(max_examples=15)
def test_whatever_is_drawn_has_a_price(config, stride, seed):
    """A configuration is refused in a sentence of its own, or all that is drawn has a price."""
    blocks = blocks_of(TINY, config.variants)
    table = table_of(requests(blocks, config.workload, vision=False), stride, fitted=False)
    refusals: list[str] = []
    try:
        for stack, points, work in asked(config, TINY, table, stride, 1e12, seed):
            for batch, length in points:
                forward_latency(table, stack, "decode", batch, length, "bf16")
            model_latency(table, stack, work, "bf16")
            assert work.seq_len <= max(config.workload.contexts)
    except UserError as error:
        refusals.append(str(error))
    assert all(sentence.startswith("children.") for sentence in refusals)


@pytest.mark.parametrize("stride", CLOCKS)
def test_no_child_outgrows_the_device(stride):
    grid = GridConfig([1, 64], [128, 4096], [128, 1024], [1, 4, 64])
    ask = ChildrenConfig(20, None, [1, 64], [1, 4, 64], [128, 1024], [1, 1024])
    config = VerifyCostsConfig(workload=grid, children=ask)
    table = table_of(requests(blocks_of(TINY, config.variants), grid, False), stride, fitted=False)
    memory = 32e6  # of up to 200 MB that the sizes would take
    longest = []
    for stack, points, work in asked(config, TINY, table, stride, memory):
        for batch, length in points:
            assert memory_of(stack, Workload(batch, 1, length), "bf16").total < 0.9 * memory
        assert memory_of(stack, work, "bf16", stride=stride).total < 0.9 * memory
        longest.append(points[0][1])
    assert max(longest) > 2000  # while batch 1 has room for most contexts
    with pytest.raises(UserError, match=r"^children\.batches: batch 64 fits the device at no"):
        list(asked(config, TINY, table, stride, 2e6))


@pytest.mark.parametrize(
    ("grid", "children"),
    {
        "contexts begin beyond the prompts": (
            GridConfig([1, 4], [512, 1024], [64, 300], [1, 4]),
            ChildrenConfig(prompts=[64, 300], outputs=[8, 8]),
        ),
        "no decode steps of the batch": (
            GridConfig([1], [64, 1024], [64, 300], [4]),
            ChildrenConfig(prompts=[64, 300], outputs=[8, 8], generate_batches=[4]),
        ),
        "no prefills of the batch": (
            GridConfig([1, 16], [64, 1024], [64, 300], [1, 8]),
            ChildrenConfig(prompts=[64, 300], outputs=[8, 8], generate_batches=[16]),
        ),
        "no prompts": (
            GridConfig([1, 4], [64, 1024], [64, 300], [1, 4]),
            ChildrenConfig(prompts=[301, 400], outputs=[8, 8]),
        ),
        "no contexts long enough": (
            GridConfig([1, 4], [64, 256], [64, 300], [1, 4]),
            ChildrenConfig(prompts=[64, 300], outputs=[500, 500]),
        ),
    }.values(),
)
def test_generations_that_the_table_does_not_cover_are_refused_in_a_sentence(grid, children):
    children.count, children.batches = 1, [1]
    config = VerifyCostsConfig(workload=grid, children=children)
    table = table_of(requests(blocks_of(TINY, config.variants), grid, False), 1, fitted=False)
    with pytest.raises(
        UserError, match=r"^children\.prompts=.* and children\.outputs=.* lie outside"
    ):
        list(asked(config, TINY, table, 1, float("inf")))


def test_sizes_that_a_device_has_no_memory_for_are_not_asked_of_it():
    """A GPU of 24 GB measures long contexts of large batches for few KV heads alone."""
    config = adaptive.load("verify_costs").config
    assert isinstance(config, VerifyCostsConfig)
    config.children.count = 4
    shape = MODELS["llama-3-8b"]
    memory = 24e9

    def fits(want: Request) -> bool:
        where = (want.phase, want.batch, want.length, "bf16", "cuda", 16e9)
        return block_subject(want.block, *where).nbytes <= 0.7 * memory

    wanted = requests(blocks_of(shape, config.variants), config.workload, vision=False)
    table = table_of(filter(fits, wanted), 128, fitted=False)
    config.children.layers = 2
    for stack, points, work in asked(config, shape, table, 128, memory):
        for batch, length in points:
            assert forward_latency(table, stack, "decode", batch, length, "bf16").seconds > 0
        assert model_latency(table, stack, work, "bf16").seconds > 0
    dearest = Attention(4096, 32, 8, 128)
    with pytest.raises(UserError, match=r"no graph bf16 time of attention\(.*kv=8"):
        table.seconds(dearest, "decode", 256, 32767, "bf16")


def test_images():
    """Every block of a whole encoder has a time at every size; its stem sees pixels."""
    shape, grid = MODELS["vit-small"], GridConfig(batches=[1, 8], tokens=[49, 196])
    blocks = blocks_of(shape, VariantsConfig())
    wanted = list(requests(blocks, grid, vision=True))
    sizes = {(batch, tokens) for batch in (1, 8) for tokens in (49, 196)}
    for block in blocks:
        pixels = 256 if isinstance(block, Conv2d) else 1
        assert {(w.batch, w.length) for w in wanted if w.block == block} == {
            (batch, tokens * pixels) for batch, tokens in sizes
        }
    table = table_of(wanted, 1, fitted=False)
    for batch, tokens in sizes:
        found = forward_latency(table, shape.stack(), "prefill", batch, tokens * 256, "bf16")
        parts = [seconds_of(b, batch, tokens) for b in shape.stack().parts()]
        assert found.seconds == pytest.approx(sum(parts)) and found.how == "measured"


def seconds_of(block, batch, tokens):
    pixels = 256 if isinstance(block, Conv2d) else 1
    return h100_like.seconds(block, "prefill", batch, tokens * pixels)
