"""Token merging: all patches go in, and similar ones are averaged between attention and FFN.

Bolya et al., "Token Merging: Your ViT But Faster" (ICLR 2023). Patches are dealt to two sets in
turn. Each of the first set is matched with its most similar one of the second, by the cosine of the
attention's keys averaged over heads, and the most similar pairs are merged to their mean, weighted
by the patches that they already stand for. Attention adds the log of that number to its logits.

Shapes: B images, N patches, r of them merged away, P prefix tokens, L = P + N, D width, E channels
of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from adaptive.core.errors import UserError
from adaptive.quadformer.attention import EXTRA, Keys
from adaptive.quadformer.baselines.registry import BASELINES
from adaptive.quadformer.macs import block_macs, embedding_macs, head_macs
from adaptive.quadformer.patches import grid_patches
from adaptive.quadformer.trunk import classify, embed_patches, patch_positions, prefix_tokens
from adaptive.quadformer.wrapper import VitWrapper


@BASELINES.register("tome")
class ToMe(VitWrapper):
    """A ViT that merges patches layer by layer, as many in each, down to ``num_tokens``.

    Costs more than a model that has ``num_tokens`` from the start: :meth:`gmacs` says how much.

    Args:
        vit: timm's VisionTransformer with plain blocks and attention.
        num_tokens: patches after the last layer; None: all, nothing is merged.

    Raises:
        UserError: another ViT, or a number that halving in each layer does not reach.
    """

    def __init__(self, vit: nn.Module, *, num_tokens: int | None = None):
        super().__init__(vit)
        plain = all(type(block) is Block for block in self.vit.blocks)
        if not plain or not self.replaced_attention:
            raise UserError(
                f"token merging works within timm's plain Block, and {type(vit).__name__} has "
                "others: choose a ViT such as vit_small_patch16_224"
            )
        self.num_tokens = self.cells if num_tokens is None else num_tokens

    def schedule(self, num_tokens: int) -> list[int]:
        """Patches left after each block."""
        depth, removed = len(self.vit.blocks), self.cells - num_tokens
        return [self.cells - removed * (layer + 1) // depth for layer in range(depth)]

    def check_tokens(self, num_tokens: int) -> None:
        """Refuses a number that is out of range or out of reach.

        Raises:
            UserError: says which ones are not.
        """
        super().check_tokens(num_tokens)
        if not self._reaches(num_tokens):
            least = next(n for n in range(num_tokens, self.cells + 1) if self._reaches(n))
            raise UserError(
                f"num_tokens={num_tokens}: a layer merges half of its patches at most, choose "
                f"{least} to {self.cells}"
            )

    def forward(
        self, image_BCHW: Float[Tensor, "B 3 H W"], num_tokens: int | None = None
    ) -> Tensor:
        """Logits of normalised images, [B, K]."""
        self.check_image(image_BCHW)
        vit = self.vit
        token_BND = embed_patches(vit, grid_patches(image_BCHW, self.patch_size))
        table_CD = patch_positions(vit)
        token_BND = token_BND if table_CD is None else token_BND + table_CD
        prefix_BPD = prefix_tokens(vit, image_BCHW.shape[0]).to(token_BND.dtype)
        x_BLD = vit.norm_pre(vit.pos_drop(torch.cat([prefix_BPD, token_BND], 1)))
        size_BN = None
        for block, left in zip(vit.blocks, self.schedule(self.tokens(num_tokens)), strict=True):
            if vit.grad_checkpointing and torch.is_grad_enabled():
                x_BLD, size_BN = checkpoint(
                    self._step, block, x_BLD, size_BN, left, use_reentrant=False
                )
            else:
                x_BLD, size_BN = self._step(block, x_BLD, size_BN, left)
        return classify(vit, vit.norm(x_BLD), size_BN, area_attention=True)

    def gmacs(self, num_tokens: int | None = None) -> float:
        """Billions of multiply-accumulates for one image; see :mod:`adaptive.quadformer.macs`.

        Counts the similarities of patches too.
        """
        vit, before = self.vit, self.cells
        schedule = self.schedule(self.tokens(num_tokens))
        total = embedding_macs(vit, self.cells) + head_macs(vit, schedule[-1])
        for block, left in zip(vit.blocks, schedule, strict=True):
            extra = EXTRA if before < self.cells else 0
            total += block_macs(vit, block, before, left, extra)
            if left < before:
                total += (before // 2) * (before - before // 2) * block.attn.head_dim
            before = left
        return total / 1e9

    def _reaches(self, num_tokens: int) -> bool:
        left = self.schedule(num_tokens)
        return all(2 * now >= last for last, now in zip([self.cells, *left], left, strict=False))

    def _step(
        self, block: Any, x_BLD: Tensor, size_BN: Tensor | None, left: int
    ) -> tuple[Tensor, Tensor | None]:
        """A block with merging between its halves; sizes are None before anything is merged."""
        P, keys = self.num_prefix_tokens, Keys()
        if size_BN is not None:
            log_BL = F.pad(size_BN.log(), (P, 0))
            keys = keys.biased(log_BL, block.attn.head_dim)
        normed_BLD = block.norm1(x_BLD)
        q, k_BHLE, v = block.attn.project(normed_BLD)
        y_BLD = block.attn.mix(normed_BLD, q, k_BHLE, v, keys)
        x_BLD = x_BLD + block.drop_path1(block.ls1(y_BLD))
        surplus = x_BLD.shape[1] - P - left
        if surplus:
            patch_BND = x_BLD[:, P:]
            if size_BN is None:
                size_BN = torch.ones(patch_BND.shape[:2], device=x_BLD.device)
            metric_BNE = k_BHLE[:, :, P:].mean(1)
            patch_BND, size_BN = merge(patch_BND, size_BN, metric_BNE, surplus)
            x_BLD = torch.cat([x_BLD[:, :P], patch_BND], 1)
        return x_BLD + block.drop_path2(block.ls2(block.mlp(block.norm2(x_BLD)))), size_BN


def merge(
    x_BND: Float[Tensor, "B N D"],
    size_BN: Float[Tensor, "B N"],
    metric_BNE: Float[Tensor, "B N E"],
    surplus: int,
) -> tuple[Tensor, Tensor]:
    """Merges the most similar patches of two interleaved sets.

    Args:
        x_BND: patches.
        size_BN: how many patches each one stands for already.
        metric_BNE: whose cosine is the patches' similarity.
        surplus: how many patches to be rid of, at most half of them.

    Returns:
        The patches left, and their sizes: those of the first set that found no partner in their
        order, then the second set.
    """
    unit_BNE = F.normalize(metric_BNE.detach(), dim=-1)
    similarity = unit_BNE[:, ::2] @ unit_BNE[:, 1::2].transpose(1, 2)
    best_Bn, partner_Bn = similarity.max(-1)
    order_Bn = best_Bn.argsort(dim=-1, descending=True, stable=True)
    gone_Br, kept_Bm = order_Bn[:, :surplus], order_Bn[:, surplus:].sort(-1).values
    into_Br = partner_Bn.gather(1, gone_Br)
    # The size is one more channel of the weighted sums.
    joint_BND = torch.cat([x_BND * size_BN[..., None], size_BN[..., None]], -1)
    first_BnD, second_BnD = joint_BND[:, ::2], joint_BND[:, 1::2]
    D = joint_BND.shape[2]
    moved_BrD = first_BnD.gather(1, gone_Br[..., None].expand(-1, -1, D))
    kept_BmD = first_BnD.gather(1, kept_Bm[..., None].expand(-1, -1, D))
    sum_BnD = second_BnD.scatter_add(1, into_Br[..., None].expand(-1, -1, D), moved_BrD)
    joint_BND = torch.cat([kept_BmD, sum_BnD], 1)
    size_BN = joint_BND[..., -1]
    return (joint_BND[..., :-1] / size_BN[..., None]).to(x_BND.dtype), size_BN
