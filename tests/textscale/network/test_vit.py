"""The network on a ViT: its maps, its tokens, its file, and that it learns."""

from __future__ import annotations

import pytest
import torch
from tiny_text import Scenes, make_net
from tiny_vit_net import SIZE, make_vit_net

from adaptive.core.errors import UserError
from adaptive.core.prior import build_prior
from adaptive.core.solvers.quadtree import split_order
from adaptive.textscale.network import NetSize, TextDetector, TextNet, load_net, save_net
from adaptive.textscale.network.vit import STRIDES, VitBackbone
from adaptive.textscale.train.losses import losses
from adaptive.textscale.train.targets import targets


@pytest.mark.parametrize("height,width", [(32, 64), (96, 32), (160, 224)])
@pytest.mark.parametrize(
    "name,patch", [("tiny_tokens", None), ("tiny_plain", 16), ("tiny_plain", 4)]
)
def test_maps_have_the_strides_of_a_pyramid_whatever_the_sides(name, patch, height, width):
    backbone = VitBackbone(name, patch=patch)
    maps = backbone(torch.rand(2, 3, height, width))
    assert [map_BDhw.shape for map_BDhw in maps] == [
        (2, channels, height // stride, width // stride)
        for channels, stride in zip(backbone.widths, STRIDES, strict=True)
    ]
    assert backbone.multiple == 32


def test_a_place_in_the_image_is_that_place_in_every_map():
    """A bright patch changes the maps most where it lies; positions and attention reach further."""
    backbone = VitBackbone("tiny_plain").eval()
    image_B3HW = torch.zeros(1, 3, 128, 192)
    with torch.no_grad():
        before = backbone(image_B3HW)
        image_B3HW[..., 32:64, 128:160] = 4
        for one, other, stride in zip(before, backbone(image_B3HW), STRIDES, strict=True):
            change_hw = (other - one).abs().sum((0, 1))
            row, column = divmod(int(change_hw.argmax()), change_hw.shape[1])
            assert 32 <= row * stride < 64 and 128 <= column * stride < 160


@pytest.mark.parametrize("height,width", [(64, 64), (96, 160)])
def test_the_full_grid_is_the_plain_vit(height, width):
    """Also at sides for which positions are resampled."""
    tokens, plain = make_vit_net(), make_vit_net(NetSize("tiny_plain", 16))
    state = {k.replace("vit.vit.", "vit."): v for k, v in tokens.state_dict().items()}
    plain.load_state_dict(state)
    image_B3HW = torch.rand(2, 3, height, width)
    torch.testing.assert_close(tokens(image_B3HW), plain(image_B3HW), rtol=0, atol=1e-5)


def test_as_many_tokens_as_asked_for_where_the_prior_wants_them():
    net, image_B3HW = make_vit_net(), torch.rand(1, 3, 96, 64)
    geometry = net.geometry(96, 64)
    assert (geometry.min_patch, geometry.max_patch, geometry.cells) == (8, 32, 96)
    seen = []
    net.backbone.vit.tokenizer.register_forward_hook(lambda *given: seen.append(given[2].shape[1]))
    for share, tokens in ((1.0, 96), (0.5, 48), (0.25, 24), (0.01, 6)):
        net(image_B3HW, share)
        assert seen.pop() == tokens
    by_prior = net.spend(0.5, "centre")(image_B3HW)
    order = split_order(build_prior("centre")(image_B3HW, geometry), geometry)
    torch.testing.assert_close(net(image_B3HW, leaves=order.leaves(48)), by_prior)
    assert not torch.allclose(net.spend(0.5, "random")(image_B3HW), by_prior)


def test_the_finest_patches_need_no_larger_maps():
    net = make_vit_net(NetSize("tiny_tokens", 16, patch=4)).spend(0.5, build_prior("centre"))
    assert (net.geometry(64, 96).min_patch, net.multiple) == (4, 32)
    assert net(torch.rand(1, 3, 64, 96)).shape == (1, 3, 16, 24)


def test_a_prior_is_no_part_of_the_weights(tmp_path):
    """Its own weights are neither trained nor saved."""
    net = make_vit_net().spend(0.5, build_prior("text", net=make_net()))
    save_net(net, tmp_path / "net.safetensors")
    again = load_net(tmp_path / "net.safetensors")
    assert again.size == SIZE and again.share == 1 and not again.training
    image_B3HW = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(again(image_B3HW), net(image_B3HW, share=1), rtol=0, atol=0)
    frozen = {name for name, weight in net.named_parameters() if not weight.requires_grad}
    assert frozen and frozen.isdisjoint(net.weights())


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_gradients_reach_every_parameter(share):
    net = make_vit_net().train()
    net(torch.rand(2, 3, 64, 96), share).square().sum().backward()
    assert [name for name, weight in net.named_parameters() if weight.grad is None] == []
    still = [n for n, w in net.named_parameters() if w.grad is not None and not w.grad.any()]
    # What normalisation takes out again, and keys' biases, which softmax does not see.
    assert all("bias" in name for name in still), still


def test_a_few_steps_on_an_image_lower_its_loss():
    _, image_HW3, words = Scenes(1)[0]
    target_B5hw = torch.from_numpy(targets(words, 160, 192).stacked())[None]
    image_B3HW = torch.from_numpy(image_HW3).permute(2, 0, 1)[None].float() / 255
    net = make_vit_net().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    history = []
    for step in range(12):
        found = losses(net(image_B3HW, (1.0, 0.5)[step % 2]), target_B5hw)
        loss = torch.stack(list(found.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert max(history[-2:]) < 0.9 * min(history[:2])


@pytest.mark.usefixtures("compiling")
def test_it_compiles_whole_at_each_share():
    net, image_B3HW = make_vit_net(), torch.rand(1, 3, 96, 64)
    program = torch.compile(net, dynamic=False, fullgraph=True, backend="eager")
    for share in (1.0, 0.5):
        torch.testing.assert_close(program(image_B3HW, share), net(image_B3HW, share))


def test_a_detector_pads_to_the_coarsest_patches():
    detector = TextDetector(make_vit_net().spend(0.5))
    assert detector.multiple == 32
    _, image_HW3, _ = Scenes(1)[0]
    maps = detector.maps(image_HW3[:150, :100])
    assert maps.probability_hw.shape == (38, 25)


def test_mistakes_are_told():
    with pytest.raises(UserError, match="patches of 14 pixels: choose one of 4, 8, 16, 32"):
        TextNet(NetSize("quadformer_tiny_patch14_224", 16))
    net = make_vit_net()
    with pytest.raises(UserError, match="not tiled by patches of 32"):
        net(torch.rand(1, 3, 64, 80), 0.5)
    with pytest.raises(UserError, match="a share of 1.5 of the tokens: give one above 0 to 1"):
        net.spend(1.5)
    with pytest.raises(UserError, match="unknown prior 'gian'.*'gain'"):
        net.spend(0.5, "gian")
    plain = make_vit_net(NetSize("tiny_plain", 16))
    with pytest.raises(UserError, match="'tiny_plain' of the text network has no choice of tokens"):
        plain(torch.rand(1, 3, 64, 64), 0.5)
