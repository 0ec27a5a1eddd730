"""Oracles and the prior that learns from them."""

from __future__ import annotations

import pytest
import timm
import torch
from some_priors import GEOMETRY, images
from torch import nn

from adaptive.core.errors import UserError
from adaptive.core.normalise import Normalise
from adaptive.core.prior import (
    LearnedPrior,
    area_resize,
    attention_rollout,
    build_prior,
    distill_loss,
    distill_prior,
    grad_cam,
)
from adaptive.core.solvers.quadtree import Geometry

SIZE = 64
VITS = {
    "class token": ("test_vit", {}),
    "patches' mean": ("test_vit2", {}),
    "attention pooling": ("test_vit3", {}),
    "rotary": ("eva02_tiny_patch14_224", {"patch_size": 16, "depth": 2}),
}
CNNS = ["test_resnet", "test_efficientnet", "test_convnext"]
every_vit = pytest.mark.parametrize("vit", VITS)


def small(name: str, **settings):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5, **settings)


def small_vit(kind: str):
    name, settings = VITS[kind]
    return small(name, img_size=SIZE, **settings)


def pictures(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@every_vit
def test_rollout_shares_out_attention_over_patches(vit):
    model = small_vit(vit).train()
    fused = [m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")]
    map_BHW = attention_rollout(model, pictures())
    assert map_BHW.shape == (2, SIZE // 16, SIZE // 16)
    # The class token keeps some for itself.
    assert (map_BHW > 0).all() and (map_BHW.sum((1, 2)) < 1 + 1e-5).all()
    assert model.training
    assert [m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")] == fused
    assert not any(m._forward_hooks for m in model.modules())


def test_rollout_through_one_block_is_its_attention():
    model = small("test_vit", img_size=SIZE, depth=1).eval()
    block, seen = model.blocks[0], []
    block.attn.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    map_BHW = attention_rollout(model, pictures())
    qkv = block.attn.qkv(seen[0]).unflatten(2, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    weights_BZTT = (qkv[0] @ qkv[1].transpose(2, 3) * block.attn.scale).softmax(3)
    expected_BT = weights_BZTT.mean(1)[:, 0, 1:] / 2
    torch.testing.assert_close(map_BHW.flatten(1), expected_BT)


def test_rollout_of_a_cnn_is_refused():
    with pytest.raises(UserError, match="choose a ViT"):
        attention_rollout(small("test_resnet"), pictures())


@pytest.mark.parametrize("kind", [*VITS, *CNNS])
def test_grad_cam_gives_a_map_of_any_model(kind):
    model = small(kind) if kind in CNNS else small_vit(kind)
    map_BHW = grad_cam(model, pictures(), torch.tensor([1, 4]))
    assert map_BHW.shape[0] == 2 and map_BHW.shape[1] == map_BHW.shape[2] > 1
    assert (map_BHW >= 0).all() and (map_BHW > 0).any()
    assert not map_BHW.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_grad_cam_finds_what_a_classifier_reads():
    class Reader(nn.Module):
        """Tells classes by the mean of one channel each, which pooling spreads nowhere."""

        def forward_features(self, x_BCHW):
            return nn.functional.avg_pool2d(x_BCHW, 8)

        def forward_head(self, x_BCHW):
            return x_BCHW.mean((2, 3))

    image_BCHW = torch.full((1, 3, SIZE, SIZE), 0.4)
    image_BCHW[:, 0, 8:16, 24:32] = 1
    image_BCHW[:, 1, 40:48, 0:8] = 1
    for target, place in ((0, (1, 3)), (1, (5, 0))):
        map_HW = grad_cam(Reader(), image_BCHW, torch.tensor([target]))[0]
        assert divmod(int(map_HW.argmax()), 8) == place
        assert (map_HW > 0).sum() == 1


def test_grad_cam_explains_what_is_predicted():
    model = small_vit("class token").eval()
    with torch.no_grad():
        predicted_B = model(Normalise.of(model, "cpu")(pictures())).argmax(1)
    chosen_BHW = grad_cam(model, pictures(), predicted_B)
    assert torch.equal(grad_cam(model, pictures()), chosen_BHW)


def test_maps_of_an_oracle_become_a_prior():
    prior = build_prior("precomputed", map_BHW=grad_cam(small_vit("class token"), pictures()))
    geometry = Geometry(SIZE, SIZE, 8, 32)
    score_BS = prior(pictures(), geometry)
    roots_BR = area_resize(prior.map_BHW, 2, 2).flatten(1) * 16
    torch.testing.assert_close(score_BS[:, :4], roots_BR)


def test_distillation_loss_is_a_divergence():
    logits_BHW, oracle_BHW = torch.randn(3, 8, 8), torch.rand(3, 32, 32)
    same_BHW = area_resize(oracle_BHW, 8, 8)
    assert distill_loss(same_BHW.log() + 3, 7 * oracle_BHW).abs() < 1e-6
    share_BP, target_BP = logits_BHW.flatten(1).softmax(1), same_BHW.flatten(1)
    target_BP = target_BP / target_BP.sum(1, keepdim=True)
    expected = (target_BP * (target_BP / share_BP).log()).sum(1).mean()
    torch.testing.assert_close(distill_loss(logits_BHW, oracle_BHW), expected)
    blind = distill_loss(torch.zeros(1, 8, 8), torch.zeros(1, 16, 16))
    assert blind.abs() < 1e-6


def test_an_untrained_prior_prefers_nothing():
    score_BS = LearnedPrior()(images(), GEOMETRY)
    area_S = torch.tensor((GEOMETRY.boxes[: GEOMETRY.splittable, 2] // 8) ** 2)
    torch.testing.assert_close(score_BS, area_S.float().expand(2, -1))


@pytest.mark.slow
def test_distillation_learns_where_the_oracle_looks(tmp_path):
    def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise with one brighter square, which is what the oracle sees."""
        generator = torch.Generator().manual_seed(seed)
        image_BCHW = 0.5 * torch.rand(8, 3, SIZE, SIZE, generator=generator)
        map_BHW = torch.zeros(8, 4, 4)
        cell_B = torch.randint(16, (8,), generator=generator)
        map_BHW.flatten(1)[torch.arange(8), cell_B] = 1
        bright_BHW = map_BHW.repeat_interleave(16, 1).repeat_interleave(16, 2)
        return image_BCHW + 0.4 * bright_BHW[:, None], map_BHW

    torch.manual_seed(0)
    prior = LearnedPrior(width=8)
    logged = []
    losses = distill_prior(
        prior, [batch(seed) for seed in range(10)], steps=60, log=lambda step, **x: logged.append(x)
    )
    assert len(losses) == len(logged) == 60
    assert [x["loss"] for x in logged] == losses and logged[-1]["lr"] < 1e-5
    assert not any(parameter.requires_grad for parameter in prior.parameters())
    image_BCHW, map_BHW = batch(100)
    blind = distill_loss(torch.zeros(8, 8, 8), map_BHW)
    assert distill_loss(prior.logits(image_BCHW), map_BHW) < 0.5 * blind

    prior.save(tmp_path / "prior.safetensors")
    again = build_prior(f"learned(weights={str(tmp_path / 'prior.safetensors')!r}, width=8)")
    geometry = Geometry(SIZE, SIZE, 8, 16)
    assert torch.equal(again(image_BCHW, geometry), prior(image_BCHW, geometry))
    with pytest.raises(UserError, match="width=16"):
        LearnedPrior(weights=tmp_path / "prior.safetensors")


def test_distillation_needs_steps_and_batches():
    with pytest.raises(UserError, match="steps=0"):
        distill_prior(LearnedPrior(), [], steps=0)
    with pytest.raises(UserError, match="batches ended"):
        distill_prior(LearnedPrior(), [], steps=1)
