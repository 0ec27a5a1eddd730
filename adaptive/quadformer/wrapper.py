"""What timm's users expect of a model, for models that wrap a timm ViT as ``model.vit``.

Parameters of the ViT keep their names below ``vit.``; everything that names parameters (groups for
layer-wise learning rates, those without weight decay, checkpoints) is translated.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from timm.data import resolve_data_config
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.normalise import Normalise
from adaptive.quadformer.attention import adopt
from adaptive.quadformer.checkpoint import fit_state
from adaptive.quadformer.trunk import check_vit


class VitWrapper(nn.Module):
    """A timm ViT within a model that makes its tokens in another way.

    Args:
        vit: VisionTransformer or Eva of timm. It becomes a part of this model; its attention
            modules give way to equivalent ones with the same parameters.

    Raises:
        UserError: a model that cannot be wrapped.
    """

    vit: Any  # of timm: VisionTransformer or Eva, whose attributes nn.Module hides
    mean_C11: Tensor
    std_C11: Tensor
    _num_tokens: int

    def __init__(self, vit: nn.Module):
        super().__init__()
        check_vit(vit)
        self.replaced_attention = adopt(vit.blocks)
        self.vit = vit
        data = resolve_data_config(pretrained_cfg=_config_of(vit))
        for name in ("mean", "std"):
            value = torch.tensor(data[name])[:, None, None]
            self.register_buffer(f"{name}_C11", value, persistent=False)

    # ---- the budget

    @property
    def num_tokens(self) -> int:
        """Patches of each image where a call does not say otherwise, without prefix tokens."""
        return self._num_tokens

    @num_tokens.setter
    def num_tokens(self, value: int) -> None:
        self.check_tokens(value)
        self._num_tokens = value

    def tokens(self, num_tokens: int | None) -> int:
        """The number that a call asks for; None: as the model is set.

        Raises:
            UserError: a number that the model cannot spend.
        """
        if num_tokens is None:
            return self._num_tokens
        self.check_tokens(num_tokens)
        return num_tokens

    def check_tokens(self, num_tokens: int) -> None:
        """Refuses a number of tokens that the model cannot spend.

        Raises:
            UserError: says which ones it can.
        """
        if not 1 <= num_tokens <= self.cells:
            raise UserError(
                f"num_tokens={num_tokens} is out of range: choose 1 to {self.cells}, the patches "
                "of the full grid"
            )

    # ---- sizes

    @property
    def cells(self) -> int:
        """Patches of the ViT's grid."""
        return self.vit.patch_embed.num_patches

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        height, width = self.vit.patch_embed.img_size
        return height, width

    @property
    def any_size(self) -> bool:
        """Whether images of other sizes are taken as they are."""
        return False

    @property
    def patch_size(self) -> int:
        """Side of the ViT's patches in pixels."""
        return self.vit.patch_embed.proj.kernel_size[0]

    @property
    def num_classes(self) -> int:
        return self.vit.num_classes

    @property
    def num_features(self) -> int:
        return self.vit.num_features

    @property
    def embed_dim(self) -> int:
        return self.vit.embed_dim

    @property
    def head_hidden_size(self) -> int:
        return self.vit.head_hidden_size

    @property
    def num_prefix_tokens(self) -> int:
        """Class, distillation and register tokens."""
        return self.vit.num_prefix_tokens

    @property
    def global_pool(self) -> str:
        return self.vit.global_pool

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Module, channels and reduction of each block's map, as the ViT says."""
        return self.vit.feature_info

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """The ViT's, with the size of images that it has now."""
        size = (3, *self.img_size)
        return _config_of(self.vit) | {"input_size": size, "fixed_input_size": True}

    @property
    def default_cfg(self) -> dict[str, Any]:
        """The same, by its older name."""
        return self.pretrained_cfg

    # ---- heads, groups of parameters, training

    def get_classifier(self) -> Any:
        """The last layer; two for distilled models."""
        return self.vit.get_classifier()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head for so many classes, 0 for none, as timm's models do it."""
        self.vit.reset_classifier(num_classes, global_pool)

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        """Another size of images or patches; positions are resampled.

        The full grid stays the full grid; else as many tokens as before are spent, if there are.
        """
        full = self.num_tokens == self.cells
        self.vit.set_input_size(img_size=img_size, patch_size=patch_size)
        self.num_tokens = self.cells if full else min(self.num_tokens, self.cells)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes the blocks' activations in the backward pass."""
        self.vit.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay should spare."""
        return {f"vit.{name}" for name in self.vit.no_weight_decay()}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that put each parameter into a layer, for layer-wise learning rates."""
        groups = self.vit.group_matcher(coarse=coarse)
        found = {
            name: _below_vit(value)
            if isinstance(value, str)
            else [(_below_vit(pattern), *rest) for pattern, *rest in value]
            for name, value in groups.items()
        }
        return found | {"stem": rf"{found['stem']}|^tokenizer\."}

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """Takes a checkpoint of this model, or of the ViT alone, whatever its grid.

        Raises:
            UserError: a checkpoint whose tensors have other shapes.
        """
        return super().load_state_dict(fit_state(self, state_dict), strict, assign)

    # ---- images

    def pixels(self, image_BCHW: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """The images before normalisation, in [0, 1], as priors read them, float32."""
        normalise = Normalise(self.mean_C11.float(), self.std_C11.float())
        return normalise.undo(image_BCHW.float())

    def check_image(self, image_BCHW: Tensor) -> None:
        """Refuses images that the model cannot take.

        Raises:
            UserError: says what they are and what they should be.
        """
        shape = tuple(image_BCHW.shape)
        if len(shape) != 4 or shape[1] != 3:
            raise UserError(
                f"images of shape {shape}: give batches [B, 3, H, W], with a grey channel repeated "
                "three times"
            )
        if shape[0] == 0:
            raise UserError("the batch is empty: give at least one image")
        if not image_BCHW.is_floating_point():
            raise UserError(
                f"images of {image_BCHW.dtype}: scale them to [0, 1] and normalise them, as "
                "timm.data's transforms do"
            )
        if shape[2:] != self.img_size and not self.any_size:
            height, width = self.img_size
            raise UserError(
                f"images of {shape[2]} x {shape[3]} pixels for a model of {height} x {width}: "
                f"resize them, or call set_input_size(({shape[2]}, {shape[3]}))"
            )


def _below_vit(pattern: str) -> str:
    return rf"^vit\.(?:{pattern.replace('^', '')})"


def _config_of(vit: Any) -> dict[str, Any]:
    config = getattr(vit, "pretrained_cfg", None) or {}
    return dict(config) if isinstance(config, dict) else config.to_dict()
