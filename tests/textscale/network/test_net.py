"""The network: shapes of its maps, what it refuses, and its file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from tiny_text import SIZE, make_net

from adaptive.core.errors import UserError
from adaptive.textscale.network import SIZES, NetSize, TextNet, load_net, save_net
from adaptive.textscale.network.net import BORDER, MULTIPLE, SCALE, TEXT


@pytest.mark.parametrize("name", SIZES)
def test_every_size_has_maps_at_stride_4_and_a_few_million_weights(name):
    with torch.device("meta"):
        net = TextNet(name)
        assert net(torch.zeros(2, 3, 64, 128)).shape == (2, 3, 16, 32)
    most = 5e6 if net.multiple == MULTIPLE else 3e7  # the smallest ViTs that are trained elsewhere
    assert 5e5 < sum(weight.numel() for weight in net.parameters()) < most


def test_an_untrained_network_expects_little_text_of_canonical_scale():
    output_B3hw = make_net()(torch.rand(2, 3, 64, 64))
    assert (output_B3hw[:, [TEXT, BORDER]].sigmoid() < 0.3).all()
    assert output_B3hw[:, SCALE].abs().max() < 0.7


def test_a_word_moved_by_the_coarsest_stride_moves_its_maps():
    """Away from the frame, whose padding is another surrounding."""
    net = make_net().double()
    image_B3HW = torch.rand(1, 3, 320, 320, dtype=torch.double)
    here_B3hw = net(image_B3HW)[..., 36:44, 36:44]
    there_B3hw = net(image_B3HW.roll((32, 32), (2, 3)))[..., 44:52, 44:52]
    torch.testing.assert_close(here_B3hw, there_B3hw, rtol=2e-2, atol=2e-3)


def test_mistakes_are_told():
    with pytest.raises(UserError, match="unknown size of a text network 'smal'.*'small'"):
        TextNet("smal")
    with pytest.raises(UserError, match="backbone 'resnot18' of the text network cannot be made"):
        TextNet(NetSize("resnot18", 16))
    with pytest.raises(UserError, match="features at strides 4, 8, 16 and 32"):
        TextNet(NetSize("mixer_s32_224", 16))
    with pytest.raises(UserError, match="no choice of tokens"):
        make_net()(torch.rand(1, 3, 64, 64), share=0.5)
    with pytest.raises(UserError, match="no choice of tokens"):
        make_net().spend(1, "gain")


@pytest.mark.parametrize("half", [False, True])
def test_weights_come_back_with_their_network(tmp_path, half):
    net = make_net()
    save_net(net, tmp_path / "net.safetensors", half=half)
    again = load_net(tmp_path / "net.safetensors")
    assert again.size == SIZE and not again.training
    image_B3HW = torch.rand(1, 3, 64, 64)
    tolerance = 5e-2 if half else 0.0
    torch.testing.assert_close(again(image_B3HW), net(image_B3HW), rtol=0, atol=tolerance)


def test_half_precision_takes_half_of_the_bytes(tmp_path):
    for half in (False, True):
        save_net(make_net(), tmp_path / f"{half}.safetensors", half=half)
    whole, half = ((tmp_path / f"{half}.safetensors").stat().st_size for half in (False, True))
    assert 0.45 < half / whole < 0.6


def test_the_directory_of_a_run_stands_for_its_averaged_weights(tmp_path):
    home = tmp_path / "artifacts" / "train"
    nets = {name: make_net(seed) for seed, name in enumerate(("net", "ema"))}
    for name, net in nets.items():
        save_net(net, home / f"{name}.safetensors")
    found = load_net(tmp_path).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in nets["ema"].state_dict().items())


def test_files_that_hold_something_else_are_refused(tmp_path):
    with pytest.raises(UserError, match="net=.*nowhere: there are no weights"):
        load_net(tmp_path / "nowhere")
    (tmp_path / "text.safetensors").write_bytes(b"text")
    with pytest.raises(UserError, match="cannot be read"):
        load_net(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="does not say what network it is of"):
        load_net(tmp_path / "other.safetensors")
    about = {"size": '{"backbone": "test_efficientnet", "channels": 16}'}
    save_file({"a": torch.zeros(1)}, tmp_path / "wrong.safetensors", about)
    with pytest.raises(UserError, match="the weights do not fit their network"):
        load_net(tmp_path / "wrong.safetensors")
