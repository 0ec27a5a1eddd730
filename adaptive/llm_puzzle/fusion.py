"""FFN fusion: consecutive FFNs, freed from the attention between them, become one wider FFN.

(FFN fusion, Bercovich et al., arXiv 2503.18908.) FFNs that follow each other without attention are
given the same input instead, ``x + F_1(n_1(x)) + F_2(n_2(x)) + ...``. That is an approximation, and
worth a measurement; the rest is exact: a sum of gated MLPs is one gated MLP with their channels
side by side, and the weight of an RMSNorm can move into the columns of the matrices that read it.
What was a chain of small matrices is then one large one, which hardware likes better.

Shapes: H hidden size, I width of an FFN.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from adaptive.core.run import StageContext, atomic_path
from adaptive.llm_puzzle.blocks import (
    NO_ATTENTION,
    NO_FFN,
    AttentionOption,
    BlockOption,
    FFNOption,
)
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.rounds import library_after

if TYPE_CHECKING:
    from adaptive.llm_puzzle.puzzle import Puzzle

STAGE = "fusion"

NORM = "post_attention_layernorm.weight"

State = Mapping[str, torch.Tensor]


def runs(blocks: Sequence[BlockOption], keep_last: bool = False) -> list[list[int]]:
    """The layers whose FFNs can become one, from two of them on.

    Within a run only the first layer may have attention. Layers that hold nothing do not end it; a
    linear FFN does, and one of fewer bits, whose grid its norm's weight cannot move into.

    Args:
        blocks: of a child.
        keep_last: leaves the last layer's FFN where it is, for readers that want one there.
    """
    found: list[list[int]] = [[]]
    for i, block in enumerate(blocks):
        plain = block.ffn.kind == "mlp" and block.ffn.bits is None
        if block.attention.kind != "no_op":  # what follows reads what it adds
            found.append([])
        if keep_last and i == len(blocks) - 1:
            break
        if plain:
            found[-1].append(i)
        elif block.ffn.kind != "no_op":
            found.append([])
    return [run for run in found if len(run) > 1]


def fused_blocks(
    blocks: Sequence[BlockOption], merged: Sequence[Sequence[int]] | None = None
) -> list[BlockOption]:
    """The child with one FFN in the first layer of each run; its other layers are left empty.

    Args:
        blocks: of a child.
        merged: its runs; None for all of them.
    """
    fused = list(blocks)
    for first, *others in runs(blocks) if merged is None else merged:
        width = sum(blocks[i].ffn.width for i in (first, *others))
        fused[first] = BlockOption(blocks[first].attention, FFNOption("mlp", width))
        for i in others:
            fused[i] = BlockOption(NO_ATTENTION, NO_FFN)
    return fused


def fuse_weights(states: Sequence[State]) -> dict[str, torch.Tensor]:
    """The weights of the FFN that adds up others.

    Args:
        states: of the FFNs to merge, named as in a layer, the norm among them.

    Returns:
        Of the merged one, in their dtype; its norm's weight is one everywhere.
    """
    first = states[0]
    fused = {NORM: torch.ones_like(first[NORM])}
    for name in ("mlp.gate_proj", "mlp.up_proj"):
        fused[f"{name}.weight"] = torch.cat(
            [s[f"{name}.weight"] * s[NORM] for s in states]  # [I, H] * [H]
        )
        if f"{name}.bias" in first:
            fused[f"{name}.bias"] = torch.cat([s[f"{name}.bias"] for s in states])
    name = "mlp.down_proj"
    fused[f"{name}.weight"] = torch.cat([s[f"{name}.weight"] for s in states], dim=1)
    if f"{name}.bias" in first:
        # Of half precision the sum is rounded once and not at every step.
        exact = torch.promote_types(first[NORM].dtype, torch.float32)
        total_H = torch.stack([s[f"{name}.bias"].to(exact) for s in states]).sum(0)
        fused[f"{name}.bias"] = total_H.to(first[NORM].dtype)
    return fused


class FusedLibrary(Library):
    """Merged FFNs, and for all else the library that they were merged from.

    A merged FFN may be as wide as another option of its layer, or as the parent's own, so it is
    told by its layer and not by its width.

    Args:
        directory: of the merged FFNs, files named as in a library.
        base: the library.
        layers: that merged FFNs are in.
    """

    def __init__(self, directory: Path, base: Library, layers: Sequence[int]):
        super().__init__(directory)
        self.base, self.layers = base, frozenset(layers)

    def trunk(self, model: PuzzleForCausalLM) -> dict[str, torch.Tensor]:
        return self.base.trunk(model)

    def weights(
        self, model: PuzzleForCausalLM, layer: int, option: AttentionOption | FFNOption
    ) -> dict[str, torch.Tensor]:
        if layer in self.layers and isinstance(option, FFNOption):
            return self.state(layer, option)
        return self.base.weights(model, layer, option)


def fuse(
    model: PuzzleForCausalLM,
    blocks: Sequence[BlockOption],
    merged: Sequence[Sequence[int]],
    library: Library,
    directory: Path,
) -> FusedLibrary:
    """Merges the FFNs of a child and writes them, each whole or not at all.

    Args:
        model: the parent, which its own sub-blocks come from.
        blocks: of the child.
        merged: its runs.
        library: gives the other sub-blocks.
        directory: to write to.
    """
    fused = fused_blocks(blocks, merged)
    made = FusedLibrary(directory, library, [run[0] for run in merged])
    for run in merged:
        states = [library.weights(model, i, blocks[i].ffn) for i in run]
        # A library's weights come from disk, the parent's own may be on a GPU.
        state = fuse_weights([{name: w.cpu() for name, w in part.items()} for part in states])
        path = made.path(run[0], fused[run[0]].ffn)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            save_file(state, temporary)
    return made


# --- what later stages read ---


def kept(ctx: StageContext) -> dict[str, Any] | None:
    """What the fusion stage wrote, if the run has one and its child is the fused one.

    Keys: those of ``fusion.json``, among them ``blocks`` and ``cost`` of the fused child.
    """
    if STAGE not in ctx.needs:
        return None
    found = json.loads((ctx.input(STAGE) / "fusion.json").read_text(encoding="utf-8"))
    return found if found["kept"] else None


def library_of(run: Puzzle, ctx: StageContext) -> Library:
    """Where a stage's sub-blocks come from: for the child what was healed between rounds, and the
    merged FFNs of a fused one."""
    if ctx.name != "child":
        return run.library(ctx)
    library = library_after(run, ctx, run.config.search.rounds - 1)
    found = kept(ctx)
    if found is None:
        return library
    return FusedLibrary(ctx.input(STAGE), library, [run[0] for run in found["runs"]])
