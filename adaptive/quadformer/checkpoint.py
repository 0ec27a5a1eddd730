"""Checkpoints: of a model, or of the plain ViT that it wraps, for any size of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from timm.layers import resample_abs_pos_embed
from torch import Tensor

from adaptive.core.errors import UserError


class Wrapper(Protocol):
    """A model with a ViT, as far as checkpoints go."""

    vit: Any

    def state_dict(self) -> Mapping[str, Tensor]: ...


def fit_state(model: Wrapper, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint with the model's names and, for the table of positions, its size.

    Args:
        model: that will load it.
        state: of such a model, or of a plain ViT. The latter leaves all else as it is: the prior,
            and what the tokenizer adds.

    Raises:
        UserError: a tensor of another shape, as in a checkpoint of another width.
    """
    own = model.state_dict()
    if not any(name.startswith("vit.") for name in state):
        rest = {name: value for name, value in own.items() if not name.startswith("vit.")}
        state = rest | {f"vit.{name}": value for name, value in state.items()}
    state = dict(state)
    table = state.get("vit.pos_embed")
    if table is not None and "vit.pos_embed" in own:
        state["vit.pos_embed"] = _resampled(model.vit, table, own["vit.pos_embed"])
    for name, value in state.items():
        if name in own and own[name].shape != value.shape:
            raise UserError(
                f"the checkpoint's {name} is of shape {tuple(value.shape)}, the model's "
                f"{tuple(own[name].shape)}: load it into a model of its own size"
            )
    return state


def _resampled(vit: Any, table_1LD: Tensor, own_1LD: Tensor) -> Tensor:
    """A table of positions of a square grid, for the ViT's grid; else as it is."""
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    cells = table_1LD.shape[1] - prefix
    side = round(max(cells, 0) ** 0.5)
    if table_1LD.shape == own_1LD.shape or side**2 != cells or cells == 0:
        return table_1LD
    if table_1LD.shape[2] != own_1LD.shape[2]:
        return table_1LD
    return resample_abs_pos_embed(
        table_1LD, new_size=list(vit.patch_embed.grid_size), num_prefix_tokens=prefix
    )
