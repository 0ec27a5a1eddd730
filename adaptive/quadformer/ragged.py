"""Images of different numbers of tokens in one batch: packed into one row, or padded in buckets.

Packed, all tokens of all images follow each other and attention is told where images begin: no
work is lost, but the kernel needs CUDA and half precision. Otherwise images of similar length are
padded to the longest of them, and a mask hides the padding from attention and pooling.

Shapes: B images, T leaves of all of them, P prefix tokens of each, L = T + B P, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptive.core.solvers.quadtree import RaggedLeaves

BUCKET = 32  # lengths in a bucket differ by less
HALVES = (torch.float16, torch.bfloat16)


def can_pack(vit: Any, image_BCHW: Tensor) -> bool:
    """Whether the kernel for packed rows is there and computes the same.

    In training it must not be asked for what acts on whole images (stochastic depth) or is not in
    the kernel (dropout of attention).
    """
    device = image_BCHW.device.type
    if device != "cuda":
        return False
    dtype = vit.patch_embed.proj.weight.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    drops = any(
        type(module).__name__ == "DropPath" or name.endswith("attn_drop") and module.p > 0
        for name, module in vit.blocks.named_modules()
    )
    return dtype in HALVES and not (vit.training and drops)


def buckets(leaves: RaggedLeaves) -> Iterator[tuple[Tensor, RaggedLeaves, int]]:
    """Images of similar lengths, short ones first.

    Yields:
        Numbers of the images, their leaves, and the length to which these may be padded.
    """
    step_B = (leaves.lengths_B - 1) // BUCKET
    for step in step_B.unique().tolist():
        chosen_B = step_B == step
        lengths_b = leaves.lengths_B[chosen_B]
        # Images get new numbers within the bucket.
        number_B = chosen_B.cumsum(0) - 1
        here_T = chosen_B[leaves.image_T]
        part = RaggedLeaves(
            leaves.geometry,
            leaves.node_T[here_T],
            number_B[leaves.image_T[here_T]],
            lengths_b,
        )
        yield chosen_B.nonzero()[:, 0], part, int(lengths_b.max())


class PackedRow:
    """All tokens of a batch in one row, each image's prefix tokens before its leaves.

    Args:
        leaves: of the images.
        prefix: prefix tokens of each image.

    Attributes:
        prefixes: prefix tokens of all images.
        order_L: where the row takes its tokens from: all prefix tokens, then all leaves.
        offsets: where each image begins, and the number of all tokens, int32.
        longest: a bound of the tokens of an image; no device is asked for it.
    """

    def __init__(self, leaves: RaggedLeaves, prefix: int):
        self.leaves, self.prefix = leaves, prefix
        B, T = leaves.lengths_B.shape[0], leaves.num_tokens
        device = leaves.node_T.device
        self.prefixes = B * prefix
        self.longest = prefix + leaves.geometry.cells
        steps = prefix * torch.arange(B + 1, device=device, dtype=torch.int32)
        self.offsets = leaves.offsets() + steps
        prefix_BP = self.offsets[:-1, None].long() + torch.arange(prefix, device=device)
        leaf_T = torch.arange(T, device=device) + prefix * (leaves.image_T + 1)
        place_L = torch.cat([prefix_BP.flatten(), leaf_T])
        source_L = torch.arange(place_L.shape[0], device=device)
        self.order_L = torch.empty_like(place_L).scatter(0, place_L, source_L)

    def join(self, prefix_BPD: Tensor | None, leaf_TD: Tensor) -> Tensor:
        """The row, of prefix tokens (None: zeros) and leaves."""
        if prefix_BPD is None:
            first_LD = leaf_TD.new_zeros(self.prefixes, *leaf_TD.shape[1:])
        else:
            first_LD = prefix_BPD.flatten(0, 1)
        return torch.cat([first_LD, leaf_TD])[self.order_L]

    def apart(self, x_LD: Float[Tensor, "L D"]) -> Float[Tensor, "B M D"]:
        """A row for each image, as long as the longest could be, zeros at its end."""
        B = self.leaves.lengths_B.shape[0]
        image_L = torch.arange(B, device=x_LD.device).repeat_interleave(
            self.leaves.lengths_B + self.prefix, output_size=x_LD.shape[0]
        )
        column_L = torch.arange(x_LD.shape[0], device=x_LD.device) - self.offsets[image_L]
        empty_BMD = x_LD.new_zeros(B, self.longest, x_LD.shape[1])
        return empty_BMD.index_put((image_L, column_L), x_LD)
