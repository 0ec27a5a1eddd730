"""Loading a parent: a zoo name, a Hugging Face directory or a hub name; safetensors only.

A Hugging Face directory may be a homogeneous model, a child, or a ``nemotron-nas`` model such as
the Puzzle children that NVIDIA publishes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, PreTrainedTokenizerBase

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.activations import free_memory
from adaptive.llm_puzzle.adapters import translate
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.export import deci_config
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleModelConfig
from adaptive.llm_puzzle.stream import StreamedLayers
from adaptive.llm_puzzle.weights import Checkpoint

SHARE = 0.4
"""Of a device's free memory that a parent may take; the rest is for activations and variants."""


@dataclass(frozen=True)
class Parent:
    """A parent model, frozen and in evaluation mode.

    Attributes:
        model: the parent, every layer with its own sub-blocks.
        tokenizer: of the parent, or ``None`` where the directory has none.
        directory: where it was loaded from.
    """

    model: PuzzleForCausalLM
    tokenizer: PreTrainedTokenizerBase | None
    directory: Path

    @property
    def blocks(self) -> list[BlockOption]:
        return [BlockOption.from_config(entry) for entry in self.model.config.blocks]


def parent_directory(name: str) -> Path:
    """The directory of a parent; a hub name is downloaded (or found in the hub's cache).

    Raises:
        UserError: nothing is there.
    """
    if name.startswith("zoo:"):
        from adaptive import zoo

        return zoo.path(name.removeprefix("zoo:"), zoo.LLAMA)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise UserError(f"parent={name}: there is no such directory")
    return _download(name)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"])
        )
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise UserError(
            f"parent={name} is neither a directory nor to be had from the Hugging Face hub "
            f"({type(error).__name__}); check the name, the network and your hub login"
        ) from error


def parent_config(directory: Path) -> PuzzleModelConfig:
    """Reads and translates ``config.json`` alone.

    Raises:
        UserError: the file is missing, is not JSON or describes an unknown architecture.
    """
    raw = _raw_config(directory)
    if raw.get("model_type") == PuzzleModelConfig.model_type:
        return PuzzleModelConfig(**raw)
    if raw.get("model_type") == deci_config.MODEL_TYPE:  # which transformers does not know
        return deci_config.from_deci(raw, f"parent: {directory / 'config.json'}")
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # the validators of configurations raise types of their own
        lines = [line.strip() for line in str(error).splitlines()]
        reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
        raise UserError(
            f"parent: transformers cannot read {directory / 'config.json'}: {reason}"
        ) from None
    return translate(config)


def _raw_config(directory: Path) -> dict[str, Any]:
    if not (directory / "config.json").is_file():
        raise UserError(f"parent: {directory} has no config.json, so it is no model directory")
    try:
        raw = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"parent: {directory / 'config.json'} is not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"parent: {directory / 'config.json'} describes no model: it is no object")
    return raw


def load_parent(
    name: str, device: torch.device, dtype: torch.dtype, layers: int | None = None
) -> Parent:
    """Loads a parent in evaluation mode with gradients off.

    Args:
        name: a zoo name, a directory or a hub name.
        device: of the weights.
        dtype: of the weights.
        layers: of the parent on the device at once, the others being read when they are used (see
            ``stream``); None: all where they take less than ``SHARE`` of the free memory, else as
            many as do.

    Raises:
        UserError: nothing there, weights missing, corrupt or of other shapes, or an architecture
            without an adapter.
    """
    directory = parent_directory(name)
    config = parent_config(directory)
    weights = Checkpoint.of(directory)
    with torch.device("meta"):
        model = PuzzleForCausalLM(config)
    room = _room(model, device, dtype) if layers is None else layers
    if room < len(config.blocks):
        streamed = StreamedLayers(config, weights, device, dtype, room)
        weights.check(streamed.shapes())
        model.model.layers = streamed  # pyrefly: ignore[bad-assignment]
    model.to_empty(device=device)
    model.to(dtype)  # pyrefly: ignore[bad-argument-type]
    _materialise_buffers(model, device)
    _fill(model, weights)
    model.eval().requires_grad_(False)
    return Parent(model, load_tokenizer(directory), directory)


def _room(model: PuzzleForCausalLM, device: torch.device, dtype: torch.dtype) -> int:
    """Layers of a model on ``meta`` that a share of the device's free memory holds."""
    sizes = [sum(w.numel() for w in layer.parameters()) for layer in model.model.layers]
    room = SHARE * free_memory(device) / dtype.itemsize
    room -= sum(w.numel() for w in model.parameters()) - sum(sizes)
    return len(sizes) if sum(sizes) <= room else int(room // max(sizes))


def _materialise_buffers(model: PuzzleForCausalLM, device: torch.device) -> None:
    """Rotary frequencies are computed, not loaded; moving from meta leaves them undefined.

    They stay in single precision whatever the weights are in, as in transformers.
    """
    inner = model.model
    inner.rotary_emb = type(inner.rotary_emb)(cast(LlamaConfig, model.config)).to(device)
    model.tie_weights()


@torch.no_grad()
def _fill(model: PuzzleForCausalLM, weights: Checkpoint) -> None:
    wanted = dict(model.named_parameters(remove_duplicate=False))
    if model.config.tie_word_embeddings:
        wanted.pop("lm_head.weight")
    weights.check({name: weight.shape for name, weight in wanted.items()})
    for name, weight in wanted.items():
        weight.copy_(weights[name])


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a model directory; ``None`` where it has none."""
    if not any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        return None
    if _raw_config(directory).get("model_type") == deci_config.MODEL_TYPE:
        # Else transformers would ask config.json, of a model that it does not know.
        return AutoTokenizer.from_pretrained(
            directory, config=LlamaConfig(), trust_remote_code=False
        )
    return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
