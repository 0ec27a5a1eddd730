"""Text as a prior: what holds for this one; tests/core/prior has what holds for all."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from tiny_text import make_net

import adaptive.textscale  # noqa: F401
from adaptive.core.errors import UserError
from adaptive.core.prior import build_prior, prior_identity
from adaptive.core.solvers.quadtree import Geometry
from adaptive.textscale.network import save_net
from adaptive.textscale.text_prior import need


def maps(scale: float, rows: slice, columns: slice, side: int = 64):
    """Logits and log-scales of text in a box of cells."""
    logit_11hw = torch.full((1, 1, side, side), -20.0)
    logit_11hw[..., rows, columns] = 20.0
    return logit_11hw, torch.full_like(logit_11hw, math.log(scale / 32))


def test_small_text_needs_more_than_large():
    worth = [float(need(*maps(s, slice(30, 34), slice(20, 40))).max()) for s in (8, 32, 128)]
    assert worth == pytest.approx([0.8, 0.5, 0.2], abs=1e-3)


@pytest.mark.parametrize(("scale", "reach"), [(8, 2), (24, 4), (100, 16), (500, 16)])
def test_cores_grow_to_the_outlines_of_words(scale, reach):
    worth_hw = need(*maps(scale, slice(30, 34), slice(20, 40)))[0, 0]
    rows = torch.nonzero(worth_hw[:, 30] > 1e-3).flatten()
    assert rows.min() == 30 - reach and rows.max() == 33 + reach
    assert worth_hw[0, 0] < 1e-3


def test_it_is_the_networks_and_stays_as_it_is():
    net = make_net()
    prior = build_prior("text", net=net).train()
    assert not net.training and not any(w.requires_grad for w in net.parameters())
    image_BCHW = torch.rand(1, 3, 96, 64)
    geometry = Geometry(96, 64, min_patch=8, max_patch=32)
    saliency_Bhw = prior.saliency(image_BCHW, geometry)
    output_B3hw = net(image_BCHW)
    expected_Bhw = need(output_B3hw[:, :1], output_B3hw[:, 2:])[:, 0]
    torch.testing.assert_close(saliency_Bhw, expected_Bhw)


@pytest.mark.parametrize(("side", "cells"), [(0, (24, 32)), (64, (12, 16)), (999, (24, 32))])
def test_a_small_copy_is_enough(side, cells):
    """Of which the network tells scales half as large; what they need is judged in the image."""
    prior = build_prior("text", net=make_net(), side=side)
    image_BCHW = torch.rand(1, 3, 96, 128)
    saliency_Bhw = prior.saliency(image_BCHW, Geometry(96, 128, min_patch=8, max_patch=32))
    assert saliency_Bhw.shape[1:] == cells
    small, large = maps(8, slice(30, 34), slice(20, 40)), maps(16, slice(30, 34), slice(20, 40))
    assert float(need(*small, 0.5).max()) == pytest.approx(float(need(*large).max()))


def test_it_needs_a_network():
    with pytest.raises(UserError, match="text needs the setting net="):
        build_prior("text")
    with pytest.raises(UserError, match=r"text\(side=-1\) must be a long side"):
        build_prior("text", net=make_net(), side=-1)
    with pytest.raises(UserError, match="net=nowhere: there are no weights"):
        build_prior("text(net='nowhere')")


def test_it_is_known_without_importing_torch():
    program = (
        "import sys, adaptive.textscale.network, adaptive.textscale.train.config\n"
        "heavy = {'torch', 'cv2', 'timm', 'shapely', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from adaptive.core.prior import PRIORS\n"
        "assert 'text' in PRIORS and 'adaptive.textscale.text_prior' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_of_a_run_the_weights_that_are_read_decide(tmp_path):
    text = f"text(net='{tmp_path}')"
    with pytest.raises(UserError, match="there are no weights"):
        prior_identity(text)
    weights = tmp_path / "artifacts" / "train"
    weights.mkdir(parents=True)
    save_net(make_net(), weights / "net.safetensors")
    before = prior_identity(text)
    assert before is not None and [path for path, *_ in before[1]] == [
        str(weights / "net.safetensors")
    ]
    (tmp_path / "report.html").write_text("of later")
    assert prior_identity(text) == before
    save_net(make_net(1), weights / "net.safetensors")
    assert prior_identity(text) != before
