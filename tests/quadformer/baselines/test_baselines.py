"""What all baselines have in common, and what each of them is."""

from __future__ import annotations

import pytest
import torch
from tiny_vits import images, tiny_vit, variance
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adaptive.core.errors import UserError
from adaptive.quadformer.baselines import BASELINES, Entropy, ToMe, Uniform
from adaptive.quadformer.baselines.tome import merge

EXACT = {"rtol": 1e-5, "atol": 1e-5}
POOLED = "vit_base_patch16_reg4_gap_256"
NAMES = ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_base_patch16_siglip_256"]


def _baseline(name: str, vit=None, **settings):
    vit = tiny_vit(POOLED, depth=4) if vit is None else vit
    if name == "entropy":
        side = vit.patch_embed.img_size[0]
        patch = vit.patch_embed.patch_size[0]
        settings = {"prior": variance, "max_patch": 32 if side % (4 * patch) else 64} | settings
    return BASELINES[name](vit, **settings).eval()


@pytest.mark.parametrize("vit_name", [*NAMES, POOLED])
@pytest.mark.parametrize("name", list(BASELINES))
def test_all_tokens_are_the_vit(name, vit_name):
    model = _baseline(name, tiny_vit(vit_name))
    expected = tiny_vit(vit_name)(images(model))
    torch.testing.assert_close(model(images(model)), expected, **EXACT)


@pytest.mark.parametrize("name", list(BASELINES))
def test_the_call_and_the_setting_agree(name):
    model, image = _baseline(name, num_tokens=100), images(_baseline(name), 3)
    assert model.num_tokens == 100
    found = model(image)
    assert found.shape == (3, 7)
    torch.testing.assert_close(found, _baseline(name)(image, 100))
    assert (found - model(image, 169)).abs().max() > 1e-4
    model.num_tokens = 169
    torch.testing.assert_close(model(image), model(image, 169))
    for tokens in (0, 257):
        with pytest.raises(UserError, match=f"num_tokens={tokens} is out of range"):
            model(image, tokens)


@pytest.mark.parametrize("vit_name", [NAMES[0], NAMES[2], POOLED])
@pytest.mark.parametrize("name", list(BASELINES))
def test_the_profiler_counts_the_same(name, vit_name):
    model = _baseline(name, tiny_vit(vit_name, depth=4))
    for tokens in (100, model.cells):
        # One image: then the entropy baseline's average is its number.
        tokens = model.geometry.nearest(tokens) if name == "entropy" else tokens
        # Before torch 2.15 the counter misses fused attention on the CPU.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(images(model, 1), tokens)
        assert model.gmacs(tokens) == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-9)


@pytest.mark.parametrize("name", list(BASELINES))
def test_every_weight_is_trained(name):
    model = _baseline(name, num_tokens=100).train()
    model.set_grad_checkpointing()
    model(images(model)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


# ---- the resized image


def test_a_smaller_image_is_resized_and_its_positions_are_resampled():
    model = _baseline("uniform")
    image = images(model)
    small = F.interpolate(image, (160, 160), mode="bilinear", antialias=True)
    vit = tiny_vit(POOLED, depth=4)
    vit.set_input_size((160, 160))
    torch.testing.assert_close(model(image, 100), vit(small), **EXACT)


def test_the_grid_is_the_nearest_in_the_images_proportions():
    model = _baseline("uniform")
    assert [model.grid(n) for n in (49, 64, 100, 110, 111, 256)] == [
        (7, 7), (8, 8), (10, 10), (10, 10), (11, 11), (16, 16),
    ]  # fmt: skip
    model.set_input_size((256, 128))
    assert model.grid() == (16, 8) and model.grid(32) == (8, 4)
    assert model(images(model), 32).shape == (2, 7)


def test_rotary_positions_are_refused():
    with pytest.raises(UserError, match="rotary"):
        Uniform(tiny_vit("eva02_tiny_patch14_224"))


# ---- merged tokens


def test_merging_keeps_sums_and_merges_the_most_similar():
    torch.manual_seed(0)
    x, size, metric = (
        torch.randn(3, 11, 5),
        torch.randint(1, 9, (3, 11)).float(),
        torch.randn(3, 11, 4),
    )
    for surplus in range(1, 6):
        y, total = merge(x, size, metric, surplus)
        assert y.shape == (3, 11 - surplus, 5)
        torch.testing.assert_close(total.sum(1), size.sum(1))
        torch.testing.assert_close((y * total[..., None]).sum(1), (x * size[..., None]).sum(1))


def test_merging_against_pairs_one_by_one():
    torch.manual_seed(1)
    x, size, metric = torch.randn(1, 9, 5), torch.rand(1, 9) + 1, torch.randn(1, 9, 4)
    first, second = list(range(0, 9, 2)), list(range(1, 9, 2))
    cosine = F.cosine_similarity(metric[0][:, None], metric[0][None], dim=-1)
    best = {a: max(second, key=lambda b, a=a: float(cosine[a, b])) for a in first}
    gone = sorted(first, key=lambda a: -float(cosine[a, best[a]]))[:3]
    expected, sizes = [], []
    for token in [a for a in first if a not in gone] + second:
        group = [token] + [a for a in gone if best[a] == token]
        weight = size[0, group]
        expected.append((x[0, group] * weight[:, None]).sum(0) / weight.sum())
        sizes.append(weight.sum())
    y, total = merge(x, size, metric, 3)
    torch.testing.assert_close(y[0], torch.stack(expected))
    torch.testing.assert_close(total[0], torch.stack(sizes))


def test_identical_patches_merge_without_loss():
    """Attention over merged copies, and pooling, are those over the copies."""
    vit = tiny_vit(POOLED, depth=3)
    with torch.no_grad():
        vit.pos_embed.zero_()
    model, image = _baseline("tome", vit), torch.full((1, 3, 256, 256), 0.4)
    torch.testing.assert_close(model(image, 64), model(image), **EXACT)


def test_layers_merge_evenly_down_to_the_number():
    model = _baseline("tome")
    assert model.schedule(100) == [217, 178, 139, 100]
    with pytest.raises(UserError, match="choose 52 to 256"):
        model.num_tokens = 20


def test_other_blocks_are_refused():
    with pytest.raises(UserError, match="plain Block"):
        ToMe(tiny_vit("vit_base_patch16_rpn_224"))


# ---- a threshold


def test_the_batch_spends_the_number_on_average():
    model = _baseline("entropy")
    image = images(model, 4)
    for tokens in (17, 64, 101, 200):
        leaves = model.divide(image, tokens)
        assert abs(leaves.num_tokens - 4 * tokens) < 3
    assert leaves.lengths_B.unique().numel() > 1


def test_a_threshold_splits_what_lies_above():
    image = images(_baseline("entropy"), 4)
    score = _baseline("entropy").score(image)
    model = _baseline("entropy", threshold=float(score.quantile(0.6)))
    leaves = model.divide(image)
    roots = score[:, : model.geometry.roots] > model.threshold
    kept = [set(leaves.node_T[leaves.image_T == b].tolist()) for b in range(4)]
    for b in range(4):
        for root in range(model.geometry.roots):
            assert (root in kept[b]) == (not roots[b, root])
    torch.testing.assert_close(model(image), model(image, leaves=leaves))
    # A higher threshold, fewer tokens; a number asked for is still a number.
    model.threshold *= 2
    assert model.divide(image).num_tokens < leaves.num_tokens
    assert model.divide(image, 100).num_tokens == 400
    with pytest.raises(UserError, match="leave num_tokens out"):
        _baseline("entropy", threshold=1.0, num_tokens=100)


def test_the_prior_is_entropy_unless_told_otherwise():
    vit = tiny_vit(POOLED)
    model = Entropy(vit, num_tokens=100)
    assert model(images(model)).shape == (2, 7)
