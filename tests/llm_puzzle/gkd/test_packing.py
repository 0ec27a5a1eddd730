"""Documents side by side attend as if each were alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from adaptive.llm_puzzle.gkd.packing import ALIKE, Alike, attend_by_document

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(LENGTHS, st.sampled_from([ALIKE, 1.0]))
def test_groups_hold_every_document_and_little_padding(lengths, alike):
    lengths = sorted(lengths, reverse=True)
    groups = Alike.of(lengths, alike)
    assert sum(group.count for group in groups) == len(lengths)
    assert sum(group.tokens for group in groups) == sum(lengths)
    for group in groups:
        assert group.tokens >= alike * group.count * group.longest


@given(LENGTHS)
def test_what_is_padded_and_unpadded_is_the_same(lengths):
    row_THD = torch.arange(sum(lengths) * 6.0).view(-1, 2, 3)
    groups = Alike.of(sorted(lengths, reverse=True))
    for group, own_MHD in zip(groups, row_THD.split([g.tokens for g in groups]), strict=True):
        padded = group.pad(own_MHD)
        assert padded.shape == (group.count, 2, group.longest, 3)
        assert torch.equal(group.unpad(padded), own_MHD)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("lengths", [[7], [9, 9, 9], [12, 12, 11, 7, 3, 1]], ids=str)
def test_attention_and_its_gradients_are_those_of_documents_alone(lengths, window):
    torch.manual_seed(0)
    rows = [torch.randn(1, heads, sum(lengths), 4, requires_grad=True) for heads in (4, 2, 2)]
    packed, _ = attend_by_document(
        None, *rows, None, documents=Alike.of(lengths), sliding_window=window
    )
    alone = []
    for q, k, v in zip(*(row.split(lengths, 2) for row in rows), strict=True):
        position = torch.arange(q.shape[2])
        back = position[:, None] - position
        mask = (back >= 0) & (back < (window or len(position)))
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        alone.append(out.transpose(1, 2))
    expected = torch.cat(alone, 1)
    torch.testing.assert_close(packed, expected)
    weight = torch.randn_like(expected)
    found = torch.autograd.grad((packed * weight).sum(), rows)
    wanted = torch.autograd.grad((expected * weight).sum(), rows)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
