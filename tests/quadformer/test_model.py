"""The wrapped model against the ViT that it wraps, and against itself."""

from __future__ import annotations

import pytest
import tiny_vits
import torch
from tiny_vits import VITS, images, tiny_vit, variance

from adaptive.core.errors import UserError
from adaptive.core.solvers.quadtree import Geometry, Leaves, RaggedLeaves, batch_leaves, split_order
from adaptive.quadformer import Quadformer, attention

OPTIONS = {"area_attention": True, "detail": True, "scale_embedding": True}
EXACT = {"rtol": 1e-5, "atol": 1e-5}


def _model(name: str = "vit_tiny_patch16_224", vit_settings=None, **options) -> Quadformer:
    vit = tiny_vit(name, **(vit_settings or {}))
    patch, side = vit.patch_embed.patch_size[0], vit.patch_embed.img_size[0]
    ratio = 4 if side % (4 * patch) == 0 else 2
    return Quadformer(vit, **{"prior": variance, "max_patch": ratio * patch} | options)


@pytest.fixture(scope="module")
def model() -> Quadformer:
    return _model("vit_base_patch16_reg4_gap_256")


@pytest.fixture(params=list(VITS))
def kind(request) -> str:
    return request.param


def test_the_full_grid_is_the_vit(kind):
    vit = tiny_vit(kind)
    image = torch.randn(2, 3, *vit.patch_embed.img_size)
    before, names = vit(image), list(vit.state_dict())
    assert before.std() > 0.01
    for options in ({}, OPTIONS):
        model = _model(kind, **options)
        torch.testing.assert_close(model(image), before, **EXACT)
        assert list(model.vit.state_dict()) == names


def test_all_cells_one_by_one_are_the_vit(kind):
    """The path of coarse leaves: gathered pixels, positions and areas, not the short cut."""
    model = _model(kind, **OPTIONS)
    image, geometry = images(model), model.geometry
    node = torch.arange(geometry.splittable, geometry.nodes).expand(2, -1)
    x, area, _ = model._features(image, node)
    torch.testing.assert_close(model._classify(x, area), model(image), **EXACT)


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "options"])
def test_images_of_different_lengths_are_what_they_are_alone(kind, options):
    model = _model(kind, **options)
    image, geometry = images(model, 4), model.geometry
    total = 4 * geometry.roots + 3 * (2 * geometry.splittable // 3)
    leaves = batch_leaves(model.score(image), geometry, total)
    lengths = leaves.lengths_B.tolist()
    assert len(set(lengths)) > 1
    alone = [model(image[b : b + 1], lengths[b]) for b in range(4)]
    torch.testing.assert_close(model(image, leaves=leaves), torch.cat(alone), **EXACT)


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "options"])
def test_a_packed_row_is_what_buckets_are(kind, options, monkeypatch):
    """With the kernel for packed rows played by one attention an image."""

    def by_image(q, k, v, offsets, longest, scale):
        ends = offsets.tolist()
        assert max(b - a for a, b in zip(ends, ends[1:], strict=False)) <= longest
        parts = [
            torch.nn.functional.scaled_dot_product_attention(
                *(x[:, :, a:b] for x in (q, k, v)), scale=scale
            )
            for a, b in zip(ends, ends[1:], strict=False)
        ]
        return torch.cat(parts, 2)

    model = _model(kind, **options)
    image = images(model, 4)
    leaves = split_order(model.score(image), model.geometry).above(
        float(model.score(image).median())
    )
    padded = model(image, leaves=leaves)
    monkeypatch.setattr(attention, "_packed", by_image)
    monkeypatch.setattr("adaptive.quadformer.model.can_pack", lambda *_: True)
    torch.testing.assert_close(model(image, leaves=leaves), padded, **EXACT)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "options"])
def test_the_kernel_for_packed_rows_does_what_padding_does(options, monkeypatch):
    model = _model("vit_base_patch16_reg4_gap_256", **options).cuda().bfloat16()
    image = images(model, 8).cuda().bfloat16()
    leaves = batch_leaves(model.score(image), model.geometry, 8 * 100)
    packed = model(image, leaves=leaves)
    monkeypatch.setattr("adaptive.quadformer.model.can_pack", lambda *_: False)
    padded = model(image, leaves=leaves)
    torch.testing.assert_close(packed, padded, rtol=0.05, atol=0.05)


def test_coarse_leaves_of_a_flat_image_lose_nothing():
    """Pixels, positions and pooling: where all patches look alike, sizes must not matter."""
    model = _model("vit_base_patch16_reg4_gap_256", {"depth": 1}, area_attention=True)
    with torch.no_grad():
        model.vit.pos_embed.zero_()
    image = torch.full((1, 3, 256, 256), 0.3)
    for tokens in (16, 100):
        torch.testing.assert_close(model(image, tokens), model(image), **EXACT)
    model.area_attention = False  # then prefix tokens see fewer patches beside themselves
    assert (model(image, 16) - model(image)).abs().max() > 1e-3


def test_pooling_weighs_leaves_by_their_areas(model):
    leaves = model.select(images(model), 100)
    x = model.forward_features(images(model), leaves=leaves)
    owners = leaves.owners() + model.num_prefix_tokens
    mean = torch.stack([x[b, owners[b]].mean(0) for b in range(2)])
    expected = model.vit.head(model.vit.fc_norm(mean))
    torch.testing.assert_close(model.forward_head(x), expected, **EXACT)
    torch.testing.assert_close(model.forward_head(x, leaves=leaves), expected, **EXACT)
    torch.testing.assert_close(model(images(model), leaves=leaves), expected, **EXACT)
    assert model.forward_head(x, pre_logits=True).shape == (2, model.num_features)


@pytest.mark.parametrize("option", ["detail", "scale_embedding"])
def test_options_begin_at_nothing_and_are_trained(option):
    plain, model = _model(num_tokens=100 - 3), _model(num_tokens=100 - 3, **{option: True})
    model.tokenizer.train()
    image = images(model)
    torch.testing.assert_close(model(image), plain(image), **EXACT)
    model(image).square().sum().backward()
    part = model.tokenizer.detail.out if option == "detail" else model.tokenizer
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())


def test_the_detail_branch_sees_what_resizing_loses():
    model = _model("vit_base_patch16_reg4_gap_256", detail=True)
    torch.nn.init.normal_(model.tokenizer.detail.out.weight)
    checks = (torch.arange(256)[:, None] + torch.arange(256)) % 2 * 2.0 - 1
    image = torch.stack([checks, torch.zeros_like(checks)])[:, None].expand(-1, 3, -1, -1)
    leaves = Leaves(model.geometry, torch.arange(16).expand(2, -1))
    tokens = model.tokenizer(
        model.vit, image, model.geometry, leaves.node_BN, torch.arange(2)[:, None]
    )
    assert (tokens[0] - tokens[1]).abs().max() > 0.01
    model.tokenizer.detail = None
    tokens = model.tokenizer(
        model.vit, image, model.geometry, leaves.node_BN, torch.arange(2)[:, None]
    )
    torch.testing.assert_close(tokens[0], tokens[1], **EXACT)


def test_a_scale_embedding_is_added_to_its_scale():
    model = _model("vit_base_patch16_reg4_gap_256", scale_embedding=True, num_tokens=100)
    image = images(model)
    before, leaves = model.tokenize(image)
    with torch.no_grad():
        model.tokenizer.scale_embed[1] = 1.0
    after, _ = model.tokenize(image)
    expected = (leaves.levels() == 1).float()[..., None].expand_as(before)
    torch.testing.assert_close(after - before, expected)


def test_maps_hold_each_leafs_feature_where_it_lies(model):
    image = images(model)
    leaves = model.select(image, 100)
    final, maps = model.forward_intermediates(image, leaves=leaves, norm=True, indices=[0, 1])
    assert [tuple(m.shape) for m in maps] == [(2, 96, 16, 16)] * 2
    P = model.num_prefix_tokens
    for number, (row, col, side) in enumerate((leaves.boxes()[1] // 16).tolist()):
        box = maps[1][1, :, row : row + side, col : col + side].flatten(1)
        torch.testing.assert_close(box, final[1, P + number, :, None].expand_as(box))
    pairs = model.forward_intermediates(
        image,
        1,
        return_prefix_tokens=True,
        output_fmt="NLC",
        intermediates_only=True,
        num_tokens=100,
    )
    assert [tuple(part.shape) for part in pairs[0]] == [(2, 100, 96), (2, P, 96)]


def test_maps_of_the_full_grid_are_the_vits(kind):
    model = _model(kind)
    image = images(model)
    expected = tiny_vit(kind).forward_intermediates(image, intermediates_only=True)
    found = model.forward_intermediates(image, intermediates_only=True, stop_early=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("kind", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
def test_images_of_any_sides_are_the_vits(kind):
    """Where the ViT takes them; positions are resampled for each call, and stay as they are."""
    settings = {"img_size": 64, "patch_size": 8, "dynamic_img_size": True}
    vit = tiny_vit(kind, **settings)
    model = Quadformer(tiny_vit(kind, **settings), num_tokens=16)
    image_BCHW = torch.rand(2, 3, 96, 160)
    with torch.no_grad():
        expected = vit(image_BCHW)
        torch.testing.assert_close(model(image_BCHW, num_tokens=240), expected, **EXACT)
        features_BLD = model.forward_features(image_BCHW)  # a quarter of this grid, too
        assert features_BLD.shape[1] == model.num_prefix_tokens + 60
        torch.testing.assert_close(model.forward_head(features_BLD), model(image_BCHW))
        assert model(torch.rand(1, 3, 64, 64)).shape == (1, 7) and model.img_size == (64, 64)
    with pytest.raises(UserError, match="num_tokens=17 is not feasible for 96 x 160"):
        model(image_BCHW, num_tokens=17)
    with pytest.raises(UserError, match="not tiled by patches of 32"):
        model(torch.rand(1, 3, 96, 150))


def test_recomputed_activations_have_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        model = _model("eva02_tiny_patch14_224", area_attention=True, num_tokens=100).train()
        model.set_grad_checkpointing(recompute)
        model(images(model)).square().sum().backward()
        gradients.append(model.vit.patch_embed.proj.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].abs().max() > 0


def test_the_prior_reads_pixels_and_is_not_trained():
    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, image, geometry):
            assert image.dtype == torch.float32 and not self.training
            self.seen = image
            return self.scale * variance(image, geometry)

    model = _model(prior=Mean(), num_tokens=100 - 3).train()
    pixels = torch.rand(2, 3, 224, 224)
    model((pixels - 0.5) / 0.5)  # as this ViT's data are normalised
    torch.testing.assert_close(model.prior.seen, pixels)
    assert not model.prior.scale.requires_grad and not model.prior.training


@pytest.mark.slow
def test_it_compiles_whole():
    for options in ({}, OPTIONS):
        model = _model("vit_base_patch16_reg4_gap_256", num_tokens=100, **options)
        image = images(model)
        with torch.no_grad():
            compiled = torch.compile(model, fullgraph=True)
            torch.testing.assert_close(compiled(image), model(image), **EXACT)


@pytest.mark.slow
def test_it_exports_with_any_batch():
    model = _model("vit_base_patch16_reg4_gap_256", num_tokens=100, **OPTIONS)
    sizes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    exported = torch.export.export(model, (images(model, 3),), dynamic_shapes=sizes).module()
    for batch in (1, 5):
        image = images(model, batch)
        torch.testing.assert_close(exported(image), model(image), **EXACT)


# ---- what users get wrong


@pytest.mark.parametrize(
    "shape, words",
    [
        ((2, 1, 256, 256), "grey channel repeated"),
        ((3, 256, 256), r"\[B, 3, H, W\]"),
        ((0, 3, 256, 256), "batch is empty"),
        ((2, 3, 256, 320), r"set_input_size\(\(256, 320\)\)"),
    ],
)
def test_images_that_do_not_fit(model, shape, words):
    with pytest.raises(UserError, match=words):
        model(torch.zeros(shape))


def test_images_that_are_not_scaled(model):
    with pytest.raises(UserError, match="torch.uint8: scale them"):
        model(torch.zeros(2, 3, 256, 256, dtype=torch.uint8))


def test_numbers_that_no_quadtree_has(model):
    for tokens in (81, 13, 259):
        with pytest.raises(UserError, match=f"num_tokens={tokens} is not feasible"):
            model(images(model), tokens)
        with pytest.raises(UserError, match=f"num_tokens={tokens} is not feasible"):
            model.num_tokens = tokens
    assert model.num_tokens == 256


def test_images_that_patches_do_not_tile():
    with pytest.raises(UserError, match="not tiled by patches of 64"):
        Quadformer(tiny_vit(), prior=variance)  # 224 = 3.5 * 64


def test_scores_that_are_nan(model):
    with pytest.raises(UserError, match="NaN"):
        model(torch.full((1, 3, 256, 256), torch.nan), 100)


def test_leaves_of_other_images(model):
    image, other = images(model), Geometry(256, 256, 16, 32)
    with pytest.raises(UserError, match="model's geometry"):
        model(image, leaves=Leaves(other, torch.arange(64).expand(2, -1)))
    leaves = model.select(image, 100)
    with pytest.raises(UserError, match="2 images"):
        model(image[:1], leaves=leaves)
    with pytest.raises(UserError, match="give one of them"):
        model(image, 64, leaves)
    ragged = batch_leaves(model.score(image), model.geometry, 200)
    assert isinstance(ragged, RaggedLeaves)
    with pytest.raises(UserError, match="differ in number"):
        model.forward_features(image, leaves=ragged)
    x = model.forward_features(image, leaves=leaves)
    with pytest.raises(UserError, match="give it leaves="):
        model.forward_head(x, leaves=model.select(image, 64))


@pytest.mark.parametrize(
    "name, settings, words",
    [
        ("swin_tiny_patch4_window7_224", {}, "SwinTransformer cannot be wrapped"),
        ("naflexvit_base_patch16_gap", {"depth": 1}, "NaFlexVit cannot be wrapped"),
        ("vit_tiny_r_s16_p8_224", {"depth": 1}, "without a convolutional stem"),
        ("vit_tiny_patch16_224", {"depth": 1, "in_chans": 1}, "in_chans=3"),
        ("vit_tiny_patch16_224", {"depth": 1, "patch_drop_rate": 0.5}, "lower num_tokens"),
    ],
)
def test_models_that_cannot_be_wrapped(name, settings, words):
    import timm

    with pytest.raises(UserError, match=words):
        Quadformer(timm.create_model(name, **settings), prior=variance)


def test_area_attention_needs_attention_that_it_knows():
    vit = tiny_vits.tiny_vit(attn_layer="diff")
    with pytest.raises(UserError, match="area_attention=true"):
        Quadformer(vit, prior=variance, max_patch=32, area_attention=True)
    model, image = Quadformer(vit, prior=variance, max_patch=32), torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(model(image), vit(image), **EXACT)
    leaves = batch_leaves(model.score(image), model.geometry, 2 * 97)
    alone = [model(image[b : b + 1], int(leaves.lengths_B[b])) for b in range(2)]
    torch.testing.assert_close(model(image, leaves=leaves), torch.cat(alone), **EXACT)
