"""Slim blocks: the same function where nothing is gone, and exactly what is left where it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_images import CLASSES, SIZE, VIT
from tiny_vits import VITS, images, tiny_vit, variance

from adaptive.core.errors import UserError
from adaptive.quadformer import Quadformer
from adaptive.quadformer.models import build_model, load_trained, save_trained
from adaptive.quadformer.settings import ModelConfig
from adaptive.quadformer.slim import SlimBlock, cut, head_channels, keep_heads, slim_blocks

OTHER = ("rpn", "rope", "eva02", "dinov3")
PLAIN = [name for name in VITS if not any(part in name for part in OTHER)]
CONFIG = ModelConfig(**VIT, max_patch=32, prior="centre", area_attention=True)


def wrapped(name: str = "vit_tiny_patch16_224", **settings) -> Quadformer:
    patch = 14 if "patch14" in name else 16
    return Quadformer(tiny_vit(name), prior=variance, max_patch=2 * patch, **settings).eval()


@pytest.mark.parametrize("name", PLAIN)
def test_with_nothing_gone_a_model_says_what_it_said(name):
    model = wrapped(name, area_attention=True)
    image_BCHW, tokens = images(model), model.geometry.feasible()[3]
    before = [model(image_BCHW, num_tokens=n) for n in (tokens, None)]
    names, macs = list(model.state_dict()), model.gmacs(tokens)
    slim_blocks(model.vit)
    assert [block.size for block in slim_blocks(model.vit)] == [[3, 4 * model.embed_dim]] * 2
    for logits_BK, n in zip(before, (tokens, None), strict=True):
        torch.testing.assert_close(model(image_BCHW, num_tokens=n), logits_BK, rtol=0, atol=1e-5)
    assert set(model.state_dict()) == set(names) and model.gmacs(tokens) == macs


@pytest.mark.parametrize("name", [name for name in VITS if name not in PLAIN])
def test_other_blocks_are_refused(name):
    with pytest.raises(UserError, match="block 0 of .* cannot be made narrower"):
        slim_blocks(wrapped(name).vit)


def test_heads_that_are_kept_do_what_they_did():
    """As an attention whose other heads have no say."""
    attention = wrapped().vit.blocks[0].attn
    keep = torch.tensor([0, 2])
    x_BLD = torch.randn(2, 9, 192)
    some = keep_heads(attention, keep)
    with torch.no_grad():
        gone = head_channels(torch.tensor([1]), attention.head_dim)
        attention.proj.weight[:, gone] = 0
    torch.testing.assert_close(some(x_BLD), attention(x_BLD), rtol=0, atol=1e-5)
    assert some.proj.in_features == 2 * attention.head_dim and some.num_heads == 2


def test_halves_that_are_gone_cost_nothing():
    model = wrapped(area_attention=True)
    whole, tokens = model.gmacs(100), 100
    cut(model.vit, [[0, 0], [1, 0]])
    image_BCHW = images(model)
    gone, left = model.vit.blocks
    x_BLD = torch.randn(1, 3, 192)
    assert gone(x_BLD) is x_BLD and not list(gone.parameters())
    assert model(image_BCHW, num_tokens=tokens).isfinite().all()
    assert isinstance(left, SlimBlock) and left.size == [1, 0]
    assert model.gmacs(tokens) < 0.2 * whole


def test_a_slim_model_loads_as_any_other(tmp_path):
    config = replace(CONFIG, blocks=[[2, 0], [0, 40]])
    model = build_model(config, len(CLASSES)).eval()
    save_trained(tmp_path, config, CLASSES, {"model": model})
    image_BCHW = 2 * torch.rand(2, 3, SIZE, SIZE) - 1
    again = load_trained(tmp_path).model
    for tokens in (7, 16):
        wanted = model(image_BCHW, num_tokens=tokens)
        assert torch.equal(again(image_BCHW, num_tokens=tokens), wanted)
    uniform = load_trained(tmp_path, kind="uniform").model
    assert uniform(image_BCHW, num_tokens=4).shape == (2, 3)
    with pytest.raises(UserError, match="kind=tome merges tokens within whole blocks"):
        load_trained(tmp_path, kind="tome")


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [
        ([[3, 96]], "names 1 blocks, and the ViT has 2"),
        ([[3, 96], [4, 96]], r"\[4, 96\] of block 1 must be heads up to 3 and a width .* up to 96"),
        ([[3, 96], [3]], r"\[3\] of block 1"),
        ([[3, -1], [3, 96]], r"\[3, -1\] of block 0"),
    ],
)
def test_sizes_of_another_vit_are_refused(blocks, sentence):
    with pytest.raises(UserError, match=sentence):
        build_model(replace(CONFIG, blocks=blocks), len(CLASSES))


def test_heads_that_do_not_divide_the_width_are_told_in_a_sentence():
    settings = {**VIT["vit_settings"], "num_heads": 5}
    with pytest.raises(UserError, match="vit_tiny_patch16_224: timm cannot make it .*divisible"):
        build_model(replace(CONFIG, vit_settings=settings), len(CLASSES))
