"""The search space: which options a layer gets, and which settings are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.blocks import AttentionOption, BlockOption, FFNOption
from adaptive.llm_puzzle.settings import SpaceConfig
from adaptive.llm_puzzle.space import search_space, width_multiple


def layer(kv_heads: int = 8, width: int = 14336, window: int | None = None) -> BlockOption:
    return BlockOption(AttentionOption("gqa", kv_heads, window), FFNOption("mlp", width))


def labels(config: SpaceConfig, block: BlockOption) -> tuple[list[str], list[str]]:
    [options] = search_space(config, [block])
    return [o.label for o in options.attention], [o.label for o in options.ffn]


def test_the_papers_space_has_54_options():
    """Puzzle, section 2: six attention and nine FFN options of Llama-3.1-70B's layers."""
    [options] = search_space(SpaceConfig(), [layer(8, 28672)])
    assert [o.label for o in options.attention] == ["kv8", "kv4", "kv2", "kv1", "linear", "no_op"]
    widths = [28672, 24832, 21504, 14336, 7168, 5632, 2816]
    assert [o.label for o in options.ffn] == [*(f"ffn{w}" for w in widths), "linear", "no_op"]
    assert len(options.blocks) == 54
    # In the library: all but the parent's own sub-blocks and the two no-ops.
    assert len(options.variants) == 6 + 9 - 2 - 2


def test_the_parent_comes_first_and_ffn_options_vary_fastest():
    [options] = search_space(SpaceConfig(), [layer()])
    assert options.blocks[0] == options.parent == layer()
    assert options.blocks[1].attention == options.parent.attention
    assert options.blocks[len(options.ffn)].attention == options.attention[1]


def test_windows_are_kept():
    [options] = search_space(SpaceConfig(), [layer(4, window=128)])
    assert [o.window for o in options.attention if o.kind == "gqa"] == [128, 128, 128]


def test_default_kv_heads_are_halved_while_they_can_be():
    assert labels(SpaceConfig(), layer(6))[0] == ["kv6", "kv3", "linear", "no_op"]
    assert labels(SpaceConfig(), layer(1))[0] == ["kv1", "linear", "no_op"]


def test_named_kv_heads_leave_the_parents_out():
    config = SpaceConfig(kv_heads=[1, 6, 3, 3], attention_linear=False, attention_no_op=False)
    assert labels(config, layer(6))[0] == ["kv6", "kv3", "kv1"]


def test_switches_and_exact_widths():
    config = SpaceConfig(
        ffn_fractions=[], ffn_widths=[96, 32], ffn_multiple=32, ffn_linear=False, ffn_no_op=False
    )
    assert labels(config, layer(8, 128))[1] == ["ffn128", "ffn96", "ffn32"]


def test_only_named_layers_are_searched():
    space = search_space(SpaceConfig(layers=[1]), [layer()] * 3)
    assert [len(options.blocks) for options in space] == [1, 54, 1]
    assert space[0].variants == []


def test_a_child_can_be_searched_again():
    """Sub-blocks that are linear or missing already can only become cheaper."""
    blocks = [
        BlockOption(AttentionOption("linear"), FFNOption("no_op")),
        BlockOption(AttentionOption("no_op"), FFNOption("linear")),
    ]
    first, second = search_space(SpaceConfig(), blocks)
    assert [o.label for o in first.attention] == ["linear", "no_op"]
    assert [o.label for o in first.ffn] == ["no_op"]
    assert [o.label for o in second.attention] == ["no_op"]
    assert [o.label for o in second.ffn] == ["linear", "no_op"]


@given(st.integers(8, 40000), st.lists(st.floats(0.001, 1.0), max_size=6))
def test_widths_are_distinct_multiples_below_the_parents(width, fractions):
    [options] = search_space(SpaceConfig(ffn_fractions=fractions), [layer(8, width)])
    widths = [o.width for o in options.ffn if o.kind == "mlp"]
    assert widths[0] == width and widths == sorted(set(widths), reverse=True)
    multiple = width_multiple(width)
    assert all(w > 0 and w % multiple == 0 for w in widths[1:])
    for fraction in fractions:
        nearest = max(multiple, round(fraction * width / multiple) * multiple)
        assert fraction == 1 or nearest >= width or nearest in widths


@pytest.mark.parametrize(
    ("width", "multiple"), [(28672, 256), (4096, 256), (4095, 128), (512, 32), (172, 8), (48, 8)]
)
def test_the_multiple_follows_the_width(width, multiple):
    assert width_multiple(width) == multiple


@given(st.from_type(BlockOption))
def test_options_survive_the_configuration(block):
    """What the entry does not say (heads of a linear sub-block) is not part of an option."""
    again = BlockOption.from_config(block.to_config())
    assert again.to_config() == block.to_config()
    assert again.label == block.label


MISTAKES = {
    "space.kv_heads: 3 does not divide the parent's 8 KV heads; choose from [1, 2, 4, 8]": (
        SpaceConfig(kv_heads=[4, 3])
    ),
    "space.kv_heads: 0 does not divide": SpaceConfig(kv_heads=[0]),
    "space.ffn_fractions: 1.5 is not in (0, 1]": SpaceConfig(ffn_fractions=[1.5]),
    "space.ffn_fractions: 0 is not in (0, 1]": SpaceConfig(ffn_fractions=[0]),
    "space.ffn_widths: 100 is not a multiple of 256": SpaceConfig(ffn_widths=[100]),
    "space.ffn_widths: 20480 is not a multiple of 256 up to the parent's 14336": (
        SpaceConfig(ffn_widths=[20480])
    ),
    "space.ffn_multiple=0 must be at least 1": SpaceConfig(ffn_multiple=0),
    "space.layers names layer 2, but the parent's layers are 0..1": SpaceConfig(layers=[0, 2]),
    "space.layers names layer -1": SpaceConfig(layers=[-1]),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_one_sentence(message):
    with pytest.raises(UserError) as caught:
        search_space(MISTAKES[message], [layer(), layer()])
    assert str(caught.value).startswith(message)
