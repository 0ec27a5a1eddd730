"""The block library on disk: one safetensors file a variant, complete or absent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from adaptive.core.errors import UserError
from adaptive.core.run import atomic_path
from adaptive.llm_puzzle.blocks import AttentionOption, BlockOption, FFNOption, Option, side
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleLayer
from adaptive.llm_puzzle.quantise import rounded
from adaptive.llm_puzzle.space import LayerSpace
from adaptive.llm_puzzle.walk import build
from adaptive.llm_puzzle.weights import Checkpoint, weight_files


@dataclass(frozen=True)
class VariantRecord:
    """How well a variant imitates the parent's block.

    Losses are ``MSE(parent's output, variant's output) / MSE(parent's output, 0)`` of the whole
    block on calibration rows that were not trained on.

    Attributes:
        layer: index.
        side: ``attention``, ``ffn``, or ``block`` for both halves trained together.
        option: label.
        params: parameters of the sub-block, or of both.
        loss_paper: with the paper's initial weights; None for a block, whose training starts from
            halves that were trained apart.
        loss_ridge: with the closed-form ones; likewise.
        loss_start: with the ones that training started from.
        loss: of what the library holds.
        tokens: trained on.
    """

    layer: int
    side: str
    option: str
    params: int
    loss_paper: float | None
    loss_ridge: float | None
    loss_start: float
    loss: float
    tokens: int


class Library:
    """A directory of variants, ``layer_007/ffn-ffn512.safetensors`` and so on.

    Pairs of halves that were trained together lie beside them or in a directory of their own, as
    ``layer_007/block-kv2+ffn512.safetensors``.

    Args:
        directory: of the library; made when the first variant is saved.
        coupled: directory of pairs trained together, which :meth:`block` prefers; None: all pairs
            are put together from halves that were trained apart.
    """

    def __init__(self, directory: Path, coupled: Path | None = None):
        self.directory = directory
        self.coupled = None if coupled is None else Library(coupled)

    def path(self, layer: int, option: Option) -> Path:
        return self.directory / f"layer_{layer:03d}" / f"{side(option)}-{option.label}.safetensors"

    def save(self, option: Option, module: PuzzleLayer, record: VariantRecord) -> None:
        """Writes a variant; a kill leaves the whole file or none."""
        path = self.path(record.layer, option)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: weight.contiguous() for name, weight in module.state_dict().items()}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"record": json.dumps(asdict(record))})

    def record(self, layer: int, option: Option) -> VariantRecord | None:
        """What is known of a variant, ``None`` where the library does not hold it."""
        path = self.path(layer, option)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as handle:
                return VariantRecord(**json.loads(handle.metadata()["record"]))
        except (SafetensorError, KeyError, TypeError) as error:
            raise UserError(
                f"library: {path} is damaged ({error}); delete it and run again"
            ) from None

    def state(self, layer: int, option: Option) -> dict[str, torch.Tensor]:
        """The weights of a variant, named as in its layer."""
        path = self.path(layer, option)
        if not path.is_file():
            raise UserError(f"library: {path} is missing; run the library stage again")
        with safe_open(path, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118

    def load(
        self, model: PuzzleForCausalLM, layer: int, option: AttentionOption | FFNOption
    ) -> PuzzleLayer:
        """A frozen layer that holds the option alone.

        The parent's own sub-blocks come from the parent, no-ops from nowhere, the others from
        disk.
        """
        variant = build(model, option)
        if option.kind != "no_op":
            variant.load_state_dict(self.weights(model, layer, option))
        return variant.eval().requires_grad_(False)

    def weights(
        self, model: PuzzleForCausalLM, layer: int, option: AttentionOption | FFNOption
    ) -> dict[str, torch.Tensor]:
        """The weights of an option that is no no-op, named as in its layer.

        Args:
            model: the parent, which its own sub-blocks come from.
            layer: index.
            option: of fewer bits, if so, rounded.
        """
        if option.to_config() == model.config.blocks[layer][side(option)]:
            names = HALVES[side(option)]
            own = model.model.layers[layer].state_dict()
            return {name: weight for name, weight in own.items() if name.startswith(names)}
        if option.bits is not None:
            whole = self.weights(model, layer, replace(option, bits=None))
            return rounded(whole, option.bits)
        return self.state(layer, option)

    def trunk(self, model: PuzzleForCausalLM) -> dict[str, torch.Tensor]:
        """The weights outside the layers: of the embedding, the last norm and the head.

        Args:
            model: the parent.
        """
        return {
            name: weight for name, weight in model.named_parameters() if not name.startswith(LAYERS)
        }

    def holds_together(self, layer: int, block: BlockOption) -> bool:
        """Whether the halves of a block were trained together."""
        return self.coupled is not None and self.coupled.path(layer, block).is_file()

    def block(
        self, model: PuzzleForCausalLM, layer: int, block: BlockOption
    ) -> dict[str, torch.Tensor]:
        """The weights of a whole layer, its halves trained together where that was done.

        Args:
            model: the parent, which its own sub-blocks come from.
            layer: index.
            block: a pair of options.
        """
        if self.coupled is not None and self.holds_together(layer, block):
            return self.coupled.state(layer, block)
        parts = [self.weights(model, layer, half) for half in block.halves if half.kind != "no_op"]
        return {name: weight for part in parts for name, weight in part.items()}

    def load_block(self, model: PuzzleForCausalLM, layer: int, block: BlockOption) -> PuzzleLayer:
        """A frozen layer with the weights of :meth:`block`."""
        whole = build(model, block)
        whole.load_state_dict(self.block(model, layer, block))
        return whole.eval().requires_grad_(False)

    def records(self, space: Sequence[LayerSpace]) -> Iterator[VariantRecord]:
        """Of every variant of the space that the library holds."""
        for layer, options in enumerate(space):
            for option in options.variants:
                if (record := self.record(layer, option)) is not None:
                    yield record


class HealedLibrary(Library):
    """A child that was distilled as a whole, and for all that it does not have the library.

    Args:
        directory: of the child, a Hugging Face one.
        base: the library that it was made of.
    """

    def __init__(self, directory: Path, base: Library):
        super().__init__(directory)
        self.base = base
        try:
            found = json.loads((directory / "config.json").read_text(encoding="utf-8"))
            self.blocks = found["blocks"]
            self.own = Checkpoint(weight_files(directory))
        except (OSError, ValueError, KeyError, UserError) as error:
            raise UserError(
                f"rounds: {directory} is damaged ({error}); delete {directory.parent} and run again"
            ) from None

    def trunk(self, model: PuzzleForCausalLM) -> dict[str, torch.Tensor]:
        return {name: self.own[name] for name in super().trunk(model)}

    def weights(
        self, model: PuzzleForCausalLM, layer: int, option: AttentionOption | FFNOption
    ) -> dict[str, torch.Tensor]:
        if option.to_config() != self.blocks[layer][side(option)]:
            if option.bits is None:
                return self.base.weights(model, layer, option)
            whole = self.weights(model, layer, replace(option, bits=None))
            return rounded(whole, option.bits)
        prefix = f"{LAYERS}{layer}."
        names = tuple(prefix + name for name in HALVES[side(option)])
        found = (name for name in self.own if name.startswith(names))
        return {name.removeprefix(prefix): self.own[name] for name in found}


LAYERS = "model.layers."
# The parameters of either half of a layer, by the beginning of their names.
HALVES = {
    "attention": ("input_layernorm.", "self_attn."),
    "ffn": ("post_attention_layernorm.", "mlp."),
}
