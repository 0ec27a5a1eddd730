"""The streamed head: values and gradients of the plain formula, in little memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adaptive.llm_puzzle.head import CHUNK_LOGITS, chunk_tokens, head_losses, kl_divergence, spans

M, H, V = 37, 12, 101


@pytest.fixture
def inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x, parent = (torch.randn(M, H, generator=generator) for _ in range(2))
    weight, parent_weight = (torch.randn(V, H, generator=generator) for _ in range(2))
    target = torch.randint(-1, V, (M,), generator=generator)
    target[::5] = -1
    return [x, weight, parent, parent_weight, target]


def plain(x, weight, parent, parent_weight, target) -> tuple[torch.Tensor, torch.Tensor]:
    logq, logp = (x @ weight.T).log_softmax(-1), (parent @ parent_weight.T).log_softmax(-1)
    kl = nn.functional.kl_div(logq, logp, reduction="sum", log_target=True)
    return kl, nn.functional.nll_loss(logq, target, ignore_index=-1, reduction="sum")


def run(function, inputs, weights=(0.7, 0.2)) -> list[torch.Tensor]:
    x, weight = (value.clone().requires_grad_(True) for value in inputs[:2])
    kl, lm = function(x, weight, *inputs[2:])
    (weights[0] * kl + weights[1] * lm).backward()
    assert x.grad is not None and weight.grad is not None
    return [kl.detach(), lm.detach(), x.grad, weight.grad]


@pytest.mark.parametrize("chunk", [1, 5, 37, 1000, None])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (0.7, 0.2)])
def test_values_and_gradients_are_the_plain_formula_s(inputs, chunk, weights):
    found = run(lambda *a: head_losses(*a, chunk=chunk), inputs, weights)
    for mine, theirs in zip(found, run(plain, inputs, weights), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_equal_finite_differences(inputs):
    double = [value.double() if value.is_floating_point() else value for value in inputs]
    x, weight = double[0][:6].requires_grad_(True), double[1].requires_grad_(True)
    rest = [double[2][:6], double[3], double[4][:6]]
    assert torch.autograd.gradcheck(lambda a, b: head_losses(a, b, *rest, chunk=4), (x, weight))


def test_half_precision_sums_weight_gradients_in_single(inputs):
    """Chunk by chunk in bfloat16 the sum of many small parts would lose digits."""
    half = [value.bfloat16() if value.is_floating_point() else value for value in inputs]
    exact = [value.float() if value.is_floating_point() else value for value in half]
    one_by_one = run(lambda *a: head_losses(*a, chunk=1), half)[3]
    reference = run(plain, exact)[3]
    assert one_by_one.dtype == torch.bfloat16
    error = (one_by_one.float() - reference).norm() / reference.norm()
    assert error < 0.01


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *(tensor.numel() for tensor in tensors)])
        return result


def test_no_tensor_is_larger_than_a_chunk_of_logits():
    tokens, hidden, vocab, chunk = 256, 2, 64, 16
    x, parent = torch.randn(tokens, hidden), torch.randn(tokens, hidden)
    weight, parent_weight = torch.randn(vocab, hidden), torch.randn(vocab, hidden)
    target = torch.randint(0, vocab, (tokens,))
    inputs = [x, weight, parent, parent_weight, target]
    with Largest() as streamed:
        run(lambda *a: head_losses(*a, chunk=chunk), inputs)
    assert streamed.elements == chunk * vocab
    with Largest() as whole:
        run(plain, inputs)
    assert whole.elements == tokens * vocab


@pytest.mark.parametrize("vocab", [2, 2048, 128_256, 2**27])
def test_chunks_stay_below_the_budget_and_cover_all(vocab):
    size = chunk_tokens(vocab)
    assert size >= 1 and (size == 1 or size * vocab <= CHUNK_LOGITS)
    parts = list(spans(1000, vocab))
    assert [i for part in parts for i in range(1000)[part]] == list(range(1000))
    assert all(part.stop - part.start <= size for part in parts)


def test_kl_divergence_by_hand():
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    wanted = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert kl_divergence(p.log(), q.log()).item() == pytest.approx(wanted)
    assert kl_divergence(p.log(), p.log()).item() == 0
