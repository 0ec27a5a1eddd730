"""Multiply-accumulates counted by hand against published sizes and against the profiler."""

from __future__ import annotations

import pytest
import timm
import torch
from tiny_vits import VITS, tiny_vit, variance
from torch.utils.flop_counter import FlopCounterMode

from adaptive.core.solvers.quadtree import Leaves
from adaptive.quadformer import Quadformer

# GMAC of ViT-S, B and L with a class token: facts about these sizes, given with three digits.
TABLE = {
    49: (1.10, 4.32, 15.3),
    64: (1.44, 5.64, 19.9),
    100: (2.27, 8.83, 31.1),
    121: (2.76, 10.7, 37.7),
    169: (3.93, 15.1, 52.9),
    196: (4.60, 17.6, 61.6),
}


@pytest.mark.parametrize("column, size", [(0, "small"), (1, "base"), (2, "large")])
def test_known_sizes(column, size):
    with torch.device("meta"):
        vit = timm.create_model(f"vit_{size}_patch16_224", img_size=256)
    model = Quadformer(vit, prior=variance)
    for tokens, row in TABLE.items():
        assert f"{model.gmacs(tokens):#.3g}" == f"{row[column]:#.3g}"


@pytest.mark.parametrize("name", list(VITS))
@pytest.mark.parametrize("option", [None, "area_attention", "detail", "scale_embedding"])
def test_the_profiler_agrees(name, option):
    vit = tiny_vit(name)
    patch = vit.patch_embed.patch_size[0]
    options = {option: True} if option else {}
    model = Quadformer(vit, prior=variance, max_patch=2 * patch, **options).to("meta")
    geometry = model.geometry
    for tokens in (geometry.nearest(geometry.cells / 2), geometry.cells):
        model.num_tokens = tokens
        image = torch.empty(1, 3, *geometry.size, device="meta")
        node = torch.empty(1, tokens, dtype=torch.long, device="meta")
        with FlopCounterMode(display=False) as counter:
            model(image, leaves=Leaves(geometry, node))
        assert model.gmacs() == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-9)
        assert model.gmacs() == model.gmacs(tokens)
