"""A ViT over quadtree leaves: fine patches where a prior finds them worth their tokens.

Shapes: B images, C channels, H, W pixels, S nodes that may split, N leaves of each image, M leaves
with padding, P prefix tokens, L = P + N tokens, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from timm.layers import to_2tuple
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn import functional as F

from adaptive.core.errors import UserError
from adaptive.core.solvers.quadtree import Geometry, Leaves, RaggedLeaves, split_order
from adaptive.quadformer.attention import Keys
from adaptive.quadformer.macs import quadformer_macs
from adaptive.quadformer.patches import leaf_areas, leaf_maps
from adaptive.quadformer.positions import leaf_rotations
from adaptive.quadformer.ragged import PackedRow, buckets, can_pack
from adaptive.quadformer.tokenizer import QuadtreeTokenizer
from adaptive.quadformer.trunk import classify, prefix_tokens, run_blocks
from adaptive.quadformer.wrapper import VitWrapper

Prior = Callable[[Tensor, Geometry], Tensor]


class Quadformer(VitWrapper):
    """Wraps a timm ViT: as many tokens as asked for, in patches of several sizes.

    With as many tokens as the ViT's grid has patches it computes what the ViT does. Of a ViT that
    was made with ``dynamic_img_size=True`` it takes images of any sides that the coarsest patches
    tile, with positions resampled as timm does it; tokens are then the same share of their grids.

    Args:
        vit: a plain timm ViT (class token or pooled, with registers, with rotary positions).
        prior: scores the nodes that may split, ``prior(image_BCHW, geometry) -> score_BS`` for
            images in [0, 1]; or its description, such as ``"gain"`` or ``"0.5*centre + 0.5*gain"``.
        num_tokens: patches of each image, without prefix tokens; None: the full grid.
        max_patch: side of the coarsest patches in pixels; None: four times the ViT's.
        area_attention: attention weighs tokens by their areas.
        detail: adds the zero-initialised detail branch.
        scale_embedding: adds a zero-initialised vector for each patch size.

    Raises:
        UserError: a model that cannot be wrapped, or sides and tokens that do not fit.
    """

    def __init__(
        self,
        vit: nn.Module,
        *,
        prior: str | Prior = "gain",
        num_tokens: int | None = None,
        max_patch: int | None = None,
        area_attention: bool = False,
        detail: bool = False,
        scale_embedding: bool = False,
    ):
        super().__init__(vit)
        if area_attention and not self.replaced_attention:
            raise UserError(
                f"area_attention=true knows timm's Attention, AttentionRope and EvaAttention, and "
                f"not those of {type(vit).__name__}: set it to false"
            )
        self.geometry = self._geometry(max_patch or 4 * self.patch_size)
        self.area_attention = area_attention
        self.tokenizer = QuadtreeTokenizer(
            self.embed_dim,
            len(self.geometry.sides),
            detail=detail,
            scale_embedding=scale_embedding,
        )
        self.set_prior(prior)
        self.num_tokens = self.geometry.cells if num_tokens is None else num_tokens
        # Of the last forward_features.
        self._area_BN: Tensor | None = None
        self._cells = self.geometry.cells
        self.train(vit.training)

    def set_prior(self, prior: str | Prior) -> None:
        """Another prior, frozen: the choice of leaves has no gradient.

        Args:
            prior: as of the model. One that takes a ``vit``, as ``"early"`` does, gets this model's
                with the weights that it has now.
        """
        if isinstance(prior, str):
            from adaptive.core.prior import build_prior

            prior = build_prior(prior, offers={"vit": self.vit}).to(self.mean_C11.device)
        if isinstance(prior, nn.Module):
            prior.requires_grad_(False)
        self.prior = prior

    def check_tokens(self, num_tokens: int) -> None:
        """Refuses numbers that no quadtree here has.

        Raises:
            UserError: names the feasible neighbours.
        """
        self.geometry.splits(num_tokens)

    @property
    def any_size(self) -> bool:
        """Whether images of other sizes are taken: where the ViT takes them."""
        return self.vit.dynamic_img_size

    def geometry_of(self, image_BCHW: Tensor) -> Geometry:
        """The quadtrees of some images: the model's own, but for images of other sizes.

        Raises:
            UserError: sides that the coarsest patches do not tile.
        """
        height, width = image_BCHW.shape[2:]
        if (height, width) == self.geometry.size or not self.any_size:
            return self.geometry
        return replace(self.geometry, height=height, width=width)

    def tokens_of(self, geometry: Geometry, num_tokens: int | None = None) -> int:
        """The number that a call asks for; None: as the model is set, for its share of the grid.

        Raises:
            UserError: a number that no quadtree of the geometry has.
        """
        if num_tokens is not None:
            geometry.splits(num_tokens)
            return num_tokens
        if geometry == self.geometry:
            return self.num_tokens
        return geometry.nearest(self.num_tokens / self.geometry.cells * geometry.cells)

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        """Another size of images or patches; positions are resampled.

        As many tokens as before are spent, or the nearest feasible number; the full grid where it
        was the full grid.

        Raises:
            UserError: sides that do not tile.
        """
        full = self.num_tokens == self.geometry.cells
        ratio = 2 ** (len(self.geometry.sides) - 1)
        height, width = map(int, to_2tuple(img_size or self.img_size))
        patch = int(to_2tuple(patch_size or self.patch_size)[0])
        geometry = Geometry(height, width, patch, ratio * patch)
        self.vit.set_input_size(img_size=img_size, patch_size=patch_size)
        tokens = geometry.cells if full else geometry.nearest(self.num_tokens)
        self.geometry, self.num_tokens = geometry, tokens

    def train(self, mode: bool = True) -> Quadformer:
        """Training mode, but for the prior: nothing of it is trained here."""
        super().train(mode)
        if isinstance(self.prior, nn.Module):
            self.prior.eval()
        return self

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay should spare."""
        return super().no_weight_decay() | {"tokenizer.scale_embed"}

    def gmacs(self, num_tokens: int | None = None) -> float:
        """Billions of multiply-accumulates for one image; see :mod:`adaptive.quadformer.macs`."""
        return quadformer_macs(self, self.tokens(num_tokens)) / 1e9

    # ---- selection

    @torch.no_grad()
    def score(
        self, image_BCHW: Float[Tensor, "B 3 H W"], shared: bool = False
    ) -> Float[Tensor, "B S"]:
        """The prior's scores of normalised images, for selections of one's own.

        Args:
            image_BCHW: normalised images.
            shared: scores are to compare between the images, for a budget that they share. Of a
                prior that is a function of one's own they do if that makes them so.
        """
        prior: Any = self.prior
        if shared:
            prior = getattr(prior, "shared", prior)
        return prior(self.pixels(image_BCHW), self.geometry_of(image_BCHW))

    def select(self, image_BCHW: Float[Tensor, "B 3 H W"], num_tokens: int | None = None) -> Leaves:
        """The leaves that the prior chooses, as many in each image.

        Raises:
            UserError: an infeasible number, or scores that are NaN.
        """
        self.check_image(image_BCHW)
        geometry = self.geometry_of(image_BCHW)
        tokens = self.tokens_of(geometry, num_tokens)
        return split_order(self.score(image_BCHW), geometry).leaves(tokens)

    def tokenize(
        self, image_BCHW: Float[Tensor, "B 3 H W"], num_tokens: int | None = None
    ) -> tuple[Float[Tensor, "B N D"], Leaves]:
        """Prior, selection and embedding, without prefix tokens: what is done before the blocks."""
        leaves = self.select(image_BCHW, num_tokens)
        which_B1 = torch.arange(image_BCHW.shape[0], device=image_BCHW.device)[:, None]
        tokens = self.tokenizer(self.vit, image_BCHW, leaves.geometry, leaves.node_BN, which_B1)
        return tokens, leaves

    # ---- forward

    def forward(
        self,
        image_BCHW: Float[Tensor, "B 3 H W"],
        num_tokens: int | None = None,
        leaves: Leaves | RaggedLeaves | None = None,
    ) -> Tensor:
        """Logits of normalised images, [B, K].

        Args:
            image_BCHW: normalised as the ViT's data configuration says.
            num_tokens: patches of each image; None: as the model is set.
            leaves: instead of those that the prior would choose; ragged ones where images differ
                in number.

        Raises:
            UserError: images of another size, an infeasible number, or leaves of other images.
        """
        if isinstance(leaves, RaggedLeaves):
            return self._ragged(image_BCHW, leaves)
        node_BN = self._nodes(image_BCHW, num_tokens, leaves)
        x_BLD, area_BN, _ = self._features(image_BCHW, node_BN)
        return self._classify(x_BLD, area_BN)

    def forward_features(
        self,
        image_BCHW: Float[Tensor, "B 3 H W"],
        num_tokens: int | None = None,
        leaves: Leaves | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Tokens after the blocks and the final norm, prefix tokens first.

        Their areas are remembered for the next :meth:`forward_head`.
        """
        node_BN = self._nodes(image_BCHW, num_tokens, leaves)
        x_BLD, self._area_BN, _ = self._features(image_BCHW, node_BN)
        self._cells = self.geometry_of(image_BCHW).cells
        return x_BLD

    def forward_head(
        self, x_BLD: Float[Tensor, "B L D"], pre_logits: bool = False, leaves: Leaves | None = None
    ) -> Tensor:
        """Pooling and classifier.

        Args:
            x_BLD: from :meth:`forward_features`.
            pre_logits: features instead of logits.
            leaves: of the tokens; None: those of the last :meth:`forward_features`.
        """
        area_BN = self._area_BN if leaves is None else leaf_areas(leaves.node_BN, leaves.geometry)
        P = self.num_prefix_tokens
        expected = self._cells if area_BN is None else area_BN.shape[1]
        if x_BLD.shape[1] != P + expected:
            raise UserError(
                f"forward_head got {x_BLD.shape[1] - P} patches and leaves for {expected}: give it "
                "leaves=, those of the features"
            )
        return self._classify(x_BLD, area_BN, pre_logits)

    def forward_intermediates(
        self,
        image_BCHW: Float[Tensor, "B 3 H W"],
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        num_tokens: int | None = None,
        leaves: Leaves | None = None,
    ) -> Any:
        """Outputs of blocks, as maps of the finest grid where each leaf fills what it covers.

        Args:
            image_BCHW: normalised images.
            indices: the last so many blocks, these blocks, or all.
            return_prefix_tokens: pairs of map and prefix tokens.
            norm: applies the final norm to each.
            stop_early: ignores blocks after the last one wanted.
            output_fmt: ``"NCHW"``: maps; ``"NLC"``: tokens of the leaves.
            intermediates_only: leaves out the final tokens.
            num_tokens: as for :meth:`forward`.
            leaves: as for :meth:`forward`.

        Returns:
            The intermediates, or the final tokens and these.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise UserError(f"output_fmt={output_fmt!r} is unknown, choose one of NCHW, NLC")
        taken, last = feature_take_indices(len(self.vit.blocks), indices)
        node_BN = self._nodes(image_BCHW, num_tokens, leaves)
        # What comes after the last block wanted is left to forward_features: stop_early has
        # nothing to save where the final tokens are wanted too.
        stop = last + 1 if stop_early and intermediates_only else None
        x_BLD, _, outputs = self._features(image_BCHW, node_BN, taken, stop)
        if norm:
            outputs = [self.vit.norm(y_BLD) for y_BLD in outputs]
        P = self.num_prefix_tokens
        found: list[Any] = [y_BLD[:, P:] for y_BLD in outputs]
        if output_fmt == "NCHW":
            geometry = self.geometry_of(image_BCHW)
            found = [leaf_maps(y_BND, node_BN, geometry) for y_BND in found]
        if return_prefix_tokens:
            found = [(y, y_BLD[:, :P]) for y, y_BLD in zip(found, outputs, strict=True)]
        return found if intermediates_only else (x_BLD, found)

    # ---- steps

    def _geometry(self, max_patch: int) -> Geometry:
        height, width = self.img_size
        return Geometry(height, width, self.patch_size, max_patch)

    def _nodes(
        self, image_BCHW: Tensor, num_tokens: int | None, leaves: Leaves | None
    ) -> Int[Tensor, "B N"] | None:
        """Numbers of the leaves; None: the finest grid, which needs no prior."""
        self.check_image(image_BCHW)
        if isinstance(leaves, RaggedLeaves):
            raise UserError(
                "leaves that differ in number have no common tokens: call the model itself, or "
                "give Leaves"
            )
        if leaves is not None:
            self._check_leaves(leaves, leaves.node_BN.shape[0], image_BCHW)
            if num_tokens is not None and num_tokens != leaves.num_tokens:
                raise UserError(
                    f"num_tokens={num_tokens} and leaves for {leaves.num_tokens}: give one of them"
                )
            num_tokens = leaves.num_tokens
        geometry = self.geometry_of(image_BCHW)
        tokens = self.tokens_of(geometry, num_tokens)
        if tokens == geometry.cells:
            return None
        return (leaves or self.select(image_BCHW, tokens)).node_BN

    def _check_leaves(self, leaves: Leaves | RaggedLeaves, images: int, image_BCHW: Tensor) -> None:
        batch, geometry = image_BCHW.shape[0], self.geometry_of(image_BCHW)
        if leaves.geometry != geometry or images != batch:
            raise UserError(
                f"leaves are of {images} images of {leaves.geometry}, the batch of {batch} of "
                f"{geometry}: make them with the model's geometry"
            )

    def _features(
        self,
        image_BCHW: Tensor,
        node_BM: Int[Tensor, "B M"] | None,
        taken: Sequence[int] = (),
        stop: int | None = None,
        real_BM: Bool[Tensor, "B M"] | None = None,
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Tokens after the final norm, areas of the patches, and outputs of some blocks."""
        B, P = image_BCHW.shape[0], self.num_prefix_tokens
        geometry = self.geometry_of(image_BCHW)
        which_B1 = torch.arange(B, device=image_BCHW.device)[:, None]
        token_BMD = self.tokenizer(self.vit, image_BCHW, geometry, node_BM, which_B1)
        x_BLD = torch.cat([prefix_tokens(self.vit, B).to(token_BMD.dtype), token_BMD], 1)
        area_BM = None if node_BM is None else leaf_areas(node_BM, geometry)
        keys = None
        if area_BM is not None and self.area_attention:
            # Padding is masked anyway; its own area keeps the logarithm finite.
            log_BL = F.pad(area_BM.log(), (P, 0))
            keys = Keys().biased(log_BL, self._head_dim)
        if area_BM is not None and real_BM is not None:
            area_BM = area_BM * real_BM
            keys = replace(keys or Keys(), real_BL=F.pad(real_BM, (P, 0), value=True))
        rope = leaf_rotations(self.vit, geometry, node_BM, P)
        x_BLD, outputs = run_blocks(self.vit, x_BLD, keys, rope, taken, stop)
        return self.vit.norm(x_BLD), area_BM, outputs

    def _ragged(self, image_BCHW: Tensor, leaves: RaggedLeaves) -> Tensor:
        self.check_image(image_BCHW)
        self._check_leaves(leaves, leaves.lengths_B.shape[0], image_BCHW)
        if self.global_pool == "":
            raise UserError(
                "a model without pooling has no common shape for leaves that differ in number: "
                "give Leaves, or reset_classifier with a global_pool"
            )
        if self.replaced_attention and can_pack(self.vit, image_BCHW):
            return self._packed(image_BCHW, leaves)
        if self.training and torch.compiler.is_compiling():
            # One shape for all batches: lengths that follow from the images would make a program of
            # each step, and the host wait for them.
            node_BM, real_BM = leaves.padded(leaves.geometry.cells)
            x_BLD, area_BM, _ = self._features(image_BCHW, node_BM, real_BM=real_BM)
            return self._classify(x_BLD, area_BM)
        parts, places = [], []
        for image_b, part, longest in buckets(leaves):
            node_bM, real_bM = part.padded(longest)
            x_bLD, area_bM, _ = self._features(image_BCHW[image_b], node_bM, real_BM=real_bM)
            parts.append(self._classify(x_bLD, area_bM))
            places.append(image_b)
        return torch.cat(parts)[torch.cat(places).argsort()]

    def _packed(self, image_BCHW: Tensor, leaves: RaggedLeaves) -> Tensor:
        """All images in one row; only the head sees them apart again."""
        row = PackedRow(leaves, self.num_prefix_tokens)
        token_TD = self.tokenizer(
            self.vit, image_BCHW, leaves.geometry, leaves.node_T, leaves.image_T
        )
        prefix_BPD = prefix_tokens(self.vit, image_BCHW.shape[0]).to(token_TD.dtype)
        keys = Keys(offsets=row.offsets, longest=row.longest)
        if self.area_attention:
            log_L = row.join(None, leaf_areas(leaves.node_T, leaves.geometry).log())
            keys = keys.biased(log_L[None], self._head_dim)
        rope = leaf_rotations(self.vit, leaves.geometry, leaves.node_T[None], row.prefixes)
        if rope is not None:
            rope = rope[..., row.order_L, :]
        x_1LD, _ = run_blocks(self.vit, row.join(prefix_BPD, token_TD)[None], keys, rope)
        x_BLD = row.apart(self.vit.norm(x_1LD)[0])
        node_BM, real_BM = leaves.padded(leaves.geometry.cells)
        return self._classify(x_BLD, leaf_areas(node_BM, leaves.geometry) * real_BM)

    def _classify(self, x_BLD: Tensor, area_BN: Tensor | None, pre_logits: bool = False) -> Tensor:
        return classify(
            self.vit, x_BLD, area_BN, area_attention=self.area_attention, pre_logits=pre_logits
        )

    @property
    def _head_dim(self) -> int:
        attentions = (getattr(block, "attn", None) for block in self.vit.blocks)
        return next((attn.head_dim for attn in attentions if attn is not None), 1)
