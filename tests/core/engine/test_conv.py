"""Convolutions against torch's own, and the sizes of their maps."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from adaptive.core.cost import Conv2d
from adaptive.core.engine import build


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
def test_maps_shrink_by_the_stride_alone(kernel, stride):
    block = Conv2d(2, 3, kernel, stride)
    out = build(block, "fp32", "cpu")(torch.randn(1, 2, 12, 24))
    assert out.shape == (1, 3, 12 // stride, 24 // stride)
    assert out.shape[2] * out.shape[3] == block.out_length(12 * 24)


@pytest.mark.parametrize(
    "block, sides",
    [
        (Conv2d(3, 32, kernel=16, stride=16, bias=True), (48, 64)),
        (Conv2d(3, 8, kernel=4, stride=4, norm=True), (18, 21)),  # pixels that fill no patch
        (Conv2d(8, 8, kernel=2, stride=2), (8, 6)),
    ],
)
def test_patch_embeddings_are_products_and_equal_convolutions(block, sides):
    module = build(block, "fp32", "cpu")
    assert module.patches
    x_BCYX = torch.randn(2, block.inputs, *sides).to(memory_format=torch.channels_last)
    expected, found = module.conv(x_BCYX), module(x_BCYX)
    assert_close(found, expected.relu() if block.norm else expected, rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_convolutions_take_a_folded_batch_norm():
    block = Conv2d(4, 8, 3, stride=2, bias=True, norm=True)
    conv, norm = nn.Conv2d(4, 8, 3, 2, padding=1).double(), nn.BatchNorm2d(8).double().eval()
    statistics = norm.state_dict()
    for name in ("weight", "bias", "running_mean"):
        statistics[name].normal_()
    statistics["running_var"].uniform_(0.5, 2.0)
    module, x = build(block, "fp32", "cpu"), torch.randn(2, 4, 8, 8)
    folded = nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm)
    module.conv.load_state_dict(folded.state_dict())
    with torch.no_grad():
        wanted = norm(conv(x.double())).relu()
        assert_close(module(x).double(), wanted, rtol=1e-5, atol=1e-5)
