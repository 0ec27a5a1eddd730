"""The work between matrix products against plain formulas in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from adaptive.core.engine import Rope, gated, ops

EPS = 1e-6


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def dequantised(operand: ops.Operand) -> torch.Tensor:
    values, scale_M1 = operand
    assert values.dtype == torch.float8_e4m3fn and scale_M1.dtype == torch.float32
    assert scale_M1.shape == (len(values), 1)
    return values.double() * scale_M1.double()


def assert_within_e4m3(operand: ops.Operand, wanted: torch.Tensor) -> None:
    """Three bits of mantissa: half a step is 2**-4 of a value, 2**-10 of a scale near zero."""
    error = (dequantised(operand) - wanted.double()).abs()
    assert (error <= 2**-4 * wanted.double().abs() + 2**-10 * operand[1].double()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e3])
def test_operands_are_within_e4m3(dtype, spread):
    x_MX = (spread * torch.randn(7, 48)).to(dtype)
    operand = ops.operand(x_MX, True)
    assert_within_e4m3(operand, x_MX)
    # The largest of each row stands at the end of the range: nothing of it is wasted.
    assert (operand[0].double().abs().amax(1) == 448).all()
    assert ops.operand(x_MX, False) is x_MX


def test_rows_are_scaled_one_by_one():
    x_MX = torch.randn(3, 16) * torch.tensor([[1e-6], [1.0], [1e6]])
    assert_within_e4m3(ops.operand(x_MX, True), x_MX)


def test_a_row_of_zeros_stays_zero():
    assert (dequantised(ops.operand(torch.zeros(2, 16), True)) == 0).all()


def tensor(operand: ops.Operand) -> torch.Tensor:
    """What enters a product of 16 or 32 bits."""
    assert isinstance(operand, torch.Tensor)
    return operand


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt() * weight + bias


def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


@pytest.mark.parametrize("biased", [False, True])
def test_norms(biased):
    x, delta, weight = torch.randn(5, 24) + 1, torch.randn(5, 24), torch.randn(24)
    bias = torch.randn(24) if biased else None

    def wanted(x):
        if bias is None:
            return rms_norm(x.double(), weight.double())
        return layer_norm(x.double(), weight.double(), bias.double())

    found = tensor(ops.norm(x, weight, bias, EPS, False))
    assert_within_e4m3(ops.norm(x, weight, bias, EPS, True), found)
    torch.testing.assert_close(found.double(), wanted(x), rtol=1e-5, atol=1e-6)
    total, out = ops.add_norm(x, delta, weight, bias, EPS, False)
    found = tensor(out)
    assert torch.equal(total, x + delta)
    torch.testing.assert_close(found.double(), wanted(total), rtol=1e-5, atol=1e-6)
    assert_within_e4m3(ops.add_norm(x, delta, weight, bias, EPS, True)[1], found)


def test_norms_of_halves_do_not_overflow():
    x = torch.full((2, 8), 300.0, dtype=torch.float16)  # 300 squared is beyond float16
    found = tensor(ops.norm(x, torch.ones(8, dtype=torch.float16), None, EPS, False))
    assert found.dtype == torch.float16 and torch.equal(found, torch.ones_like(found))


def test_heads_are_normed_one_by_one():
    x, weight = torch.randn(2, 3, 4, 8), torch.randn(8)
    found = ops.head_norm(x, weight, EPS)
    wanted = rms_norm(x.double(), weight.double())
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


def test_activations():
    x = torch.randn(5, 32)
    gate, up = x[:, :16].double(), x[:, 16:].double()
    wanted = {
        ops.silu_gate: gate / (1 + (-gate).exp()) * up,
        gated(torch.relu): gate.clamp(min=0) * up,
        ops.gelu: 0.5 * x.double() * (1 + torch.erf(x.double() / math.sqrt(2))),
    }
    for activation, values in wanted.items():
        found = tensor(activation(x, False))
        torch.testing.assert_close(found.double(), values, rtol=1e-5, atol=1e-6)
        assert_within_e4m3(activation(x, True), found)


def turned(x_BTND: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """Rotary embedding as what it is: complex numbers times e^(i angle)."""
    left, right = x_BTND.double().chunk(2, -1)
    angles = torch.arange(x_BTND.shape[1]).double()[:, None] * frequencies.double()
    turn = torch.polar(torch.ones_like(angles), angles)[None, :, None]
    out = torch.complex(left, right) * turn
    return torch.cat((out.real, out.imag), -1).transpose(1, 2)


def test_rotation():
    rope, x_BTND = Rope(8, theta=100.0), torch.randn(2, 9, 3, 8)
    found = ops.rotate(x_BTND, *rope.table(9, torch.float32, "cpu"))
    assert found.shape == (2, 3, 9, 8)
    wanted = turned(x_BTND, torch.tensor([100.0 ** (-i / 8) for i in (0, 2, 4, 6)]))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_scores_depend_on_the_distance_alone(first, second, shift):
    torch.manual_seed(1)
    q, k = torch.randn(2, 16).unbind()
    cos, sin = Rope(16, theta=50.0).table(101, torch.float32, "cpu")

    def at(x, position):
        x_BTND = x.expand(1, 1, 1, 16)
        turn = slice(position, position + 1)
        return ops.rotate(x_BTND, cos[turn], sin[turn]).flatten()

    score = at(q, first) @ at(k, second)
    assert score.item() == pytest.approx(
        (at(q, first + shift) @ at(k, second + shift)).item(), abs=1e-4
    )
    assert at(q, first).norm().item() == pytest.approx(q.norm().item(), rel=1e-5)


@pytest.mark.parametrize("position", [0, 3, 7])
def test_place(position):
    cos_CD, sin_CD = Rope(4).table(20, torch.float32, "cpu")
    cos_1D, sin_1D, mask = ops.place(cos_CD, sin_CD, torch.tensor([position]), 8)
    assert torch.equal(cos_1D, cos_CD[position : position + 1])
    assert torch.equal(sin_1D, sin_CD[position : position + 1])
    seen = [0.0] * (position + 1) + [-math.inf] * (7 - position)
    assert mask.shape == (1, 1, 1, 8) and mask.flatten().tolist() == seen


def test_nothing_is_compiled_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: pytest.fail("compiled"))
    x = torch.randn(2, 8)
    assert torch.equal(tensor(gated(F.silu)(x, False)), F.silu(x[:, :4]) * x[:, 4:])


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [1, 2, 5, 130])
def test_compiled_equals_plain(tokens):
    x, delta, weight = torch.randn(tokens, 64), torch.randn(tokens, 64), torch.randn(64)
    calls: dict[Callable[..., ops.Operand], tuple[Any, ...]] = {
        ops.operand: (x,),
        ops.norm: (x, weight, None, EPS),
        lambda *args: ops.add_norm(*args)[1]: (x, delta, weight, weight, EPS),
        ops.silu_gate: (x,),
        ops.gelu: (x,),
    }
    for call, args in calls.items():
        on_gpu = [arg.cuda() if isinstance(arg, torch.Tensor) else arg for arg in args]
        wanted = tensor(call(*args, False))
        found = tensor(call(*on_gpu, False)).cpu()
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        values, scale_M1 = call(*on_gpu, True)
        assert_within_e4m3((values.cpu(), scale_M1.cpu()), found)
