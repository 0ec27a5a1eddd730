"""The block library on disk: one safetensors file a variant, complete or absent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.core.run import atomic_path
from adaptive.quadformer.puzzle.initialise import parent_half
from adaptive.quadformer.puzzle.space import HALVES, Group
from adaptive.quadformer.slim import SlimBlock


@dataclass(frozen=True)
class VariantRecord:
    """How well a variant imitates the parent's block.

    Losses are ``MSE(parent's output, variant's output) / MSE(parent's output, 0)`` of the whole
    block, on images that were not trained on.

    Attributes:
        block: index.
        half: "attention" or "mlp".
        size: heads, or the MLP's width.
        params: of the half.
        loss_start: with the closed-form weights.
        loss: of what the library holds.
        steps: of local distillation that it has seen.
    """

    block: int
    half: str
    size: int
    params: int
    loss_start: float
    loss: float
    steps: int


class Library:
    """A directory of variants, ``block_003/attention-2.safetensors`` and so on."""

    def __init__(self, directory: Path):
        self.directory = directory

    def path(self, group: Group, size: int) -> Path:
        return self.directory / f"block_{group.block:03d}" / f"{group.half}-{size}.safetensors"

    def save(self, group: Group, module: SlimBlock, record: VariantRecord) -> None:
        """Writes a variant; a kill leaves the whole file or none."""
        path = self.path(group, record.size)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"record": json.dumps(asdict(record))})

    def state(self, group: Group, size: int) -> dict[str, Tensor]:
        """The weights of a variant, named as in its block."""
        path = self.path(group, size)
        if not path.is_file():
            raise UserError(f"library: {path} is missing; run the library stage again")
        return load_file(path)

    def load(self, block: SlimBlock, group: Group, size: int) -> SlimBlock:
        """A frozen block of one half alone, on the device of the parent's block."""
        made = parent_half(block, group, size)
        made.load_state_dict(self.state(group, size))
        return made.eval().requires_grad_(False)

    def records(self, space: Sequence[Group]) -> Iterator[VariantRecord]:
        """Of every variant of the space."""
        for group in space:
            for size in group.variants:
                with safe_open(self.path(group, size), framework="pt") as handle:
                    yield VariantRecord(**json.loads(handle.metadata()["record"]))


def child_state(
    parent: dict[str, Tensor], library: Library, space: Sequence[Group], choice: Sequence[int]
) -> dict[str, Tensor]:
    """The weights of a child: the parent's, with the chosen variants in their places.

    Args:
        parent: state dict of the parent model, whose ViT is ``vit.``.
        library: holds the variants.
        space: groups.
        choice: index of an option of each; 0 is the parent's own.
    """
    state = dict(parent)
    for group, k in zip(space, choice, strict=True):
        if not k:
            continue
        place = f"vit.blocks.{group.block}."
        names = tuple(place + name for name in HALVES[group.half])
        state = {name: value for name, value in state.items() if not name.startswith(names)}
        if size := group.sizes[k]:
            found = library.state(group, size)
            device = next(iter(parent.values())).device
            state |= {place + name: v.to(device) for name, v in found.items()}
    return state
